//! Expansion ROMs: code for firmware that a card brings along (PCI Local Bus Specification 3.0, section 6.3).

/// What a guest reads from an expansion ROM at `offset`: at most 8 bytes; what is behind its end reads as ones.
pub fn read_rom(rom: &[u8], offset: u64, bytes: usize) -> u64 {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let byte = |n: usize| at.checked_add(n).and_then(|at| rom.get(at)).copied().unwrap_or(0xff);
    (0..bytes.min(8)).fold(0, |value, n| value | u64::from(byte(n)) << (8 * n))
}

/// Bytes of address space that a ROM takes.
pub fn rom_length(rom: &[u8]) -> u64 {
    (rom.len() as u64).next_power_of_two()
}

/// A ROM for a function: its first image names the function's vendor and device, as firmware expects of what it runs (section
/// 6.3.1.2). There are ROMs that name none, being for several cards; iPXE's for NE2000s is one. Another ROM stays as it is.
pub fn rom_for(mut rom: Vec<u8>, vendor: u16, device: u16) -> Vec<u8> {
    /// Where the image's data structure is named; a byte that nobody reads, for the sum of all to stay what it was.
    const POINTER: usize = 0x18;
    const SPARE: usize = 6;
    let Some(&[low, high]) = rom.get(POINTER..POINTER + 2) else { return rom };
    let data = usize::from(u16::from_le_bytes([low, high]));
    let Some(names) = rom.get(data..data + 8) else { return rom };
    if !names.starts_with(b"PCIR") || names[4..] != [0; 4] {
        return rom;
    }
    let [a, b] = vendor.to_le_bytes();
    let [c, d] = device.to_le_bytes();
    rom[data + 4..data + 8].copy_from_slice(&[a, b, c, d]);
    let more = [a, b, c, d].into_iter().fold(0u8, u8::wrapping_add);
    rom[SPARE] = rom[SPARE].wrapping_sub(more);
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_for_no_card_becomes_one_for_this() {
        let mut rom = vec![0; 512];
        rom[..3].copy_from_slice(&[0x55, 0xaa, 1]);
        rom[0x18] = 0x20;
        rom[0x20..0x24].copy_from_slice(b"PCIR");
        let sum = |rom: &[u8]| rom.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let made = rom_for(rom.clone(), 0x10ec, 0x8029);
        assert_eq!(made[0x24..0x28], [0xec, 0x10, 0x29, 0x80]);
        assert_eq!(sum(&made), sum(&rom));
        assert_eq!(rom_for(made.clone(), 1, 2), made, "it is another's");
        for broken in [vec![], vec![0x55; 0x19], vec![0xff; 64]] {
            assert_eq!(rom_for(broken.clone(), 1, 2), broken);
        }
    }

    #[test]
    fn a_rom_reads_as_ones_behind_its_end() {
        let rom = [0x55, 0xaa, 3];
        assert_eq!(read_rom(&rom, 0, 4), 0xff03_aa55);
        assert_eq!(read_rom(&rom, 1, 2), 0x03aa);
        assert_eq!(read_rom(&rom, u64::MAX, 8), u64::MAX);
        assert_eq!(rom_length(&rom), 4);
    }
}
