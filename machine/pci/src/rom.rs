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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_reads_as_ones_behind_its_end() {
        let rom = [0x55, 0xaa, 3];
        assert_eq!(read_rom(&rom, 0, 4), 0xff03_aa55);
        assert_eq!(read_rom(&rom, 1, 2), 0x03aa);
        assert_eq!(read_rom(&rom, u64::MAX, 8), u64::MAX);
        assert_eq!(rom_length(&rom), 4);
    }
}
