//! The tables of the MultiProcessor Specification 1.4, for kernels that do without ACPI.

use super::Description;

const BUS_PCI: u8 = 0;
const BUS_ISA: u8 = 1;
const IO_APIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The pointer structure and the configuration table behind it, for `address` (a multiple of 16 below 1 MiB where kernels look:
/// the last KiB of conventional memory, or from 0xf0000 on). `signature` and `features` are CPUID leaf 1's EAX and EDX. Nothing if
/// an APIC ID does not fit its byte.
pub fn mp_table(description: &Description, address: u32, signature: u32, features: u32) -> Option<Vec<u8>> {
    let ids: Vec<u8> = description.apic_ids.iter().map(|id| u8::try_from(*id).ok()).collect::<Option<_>>()?;
    // The I/O APIC's ID must be free, as IDs share one space.
    let io_apic = (0..=0x0f).find(|id| !ids.contains(id)).unwrap_or(0);
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        let mut entry = vec![0, *id, 0x14, if index == 0 { 3 } else { 1 }];
        entry.extend(signature.to_le_bytes());
        entry.extend(features.to_le_bytes());
        entry.extend([0; 8]);
        entries.push(entry);
    }
    for (bus, name) in [(BUS_PCI, b"PCI   "), (BUS_ISA, b"ISA   ")] {
        entries.push([&[1, bus], name.as_slice()].concat());
    }
    let mut entry = vec![2, io_apic, 0x20, 1];
    entry.extend(IO_APIC.to_le_bytes());
    entries.push(entry);
    // Type, interrupt type, flags, source bus, source, destination, pin. Flags: 0 as the bus has it, 0x0d level and high.
    let interrupt =
        |kind: u8, flags: u8, bus: u8, source: u8, pin: u8| vec![3, kind, flags, 0, bus, source, io_apic, pin];
    for source in (0..16).filter(|source| *source != 2) {
        let is_level = source == 9 || description.pci_routes.contains(&source);
        let pin = if source == 0 { 2 } else { source };
        entries.push(interrupt(0, if is_level { 0x0d } else { 0 }, BUS_ISA, source, pin));
    }
    for device in 1..32u8 {
        for pin in 0..4u8 {
            let route = description.pci_routes[(usize::from(device) + usize::from(pin) + 3) % 4];
            entries.push(interrupt(0, 0x0d, BUS_PCI, device << 2 | pin, route));
        }
    }
    // The 8259A pair at LINT0, NMIs at LINT1, of all local APICs.
    entries.push(vec![4, 3, 0, 0, BUS_ISA, 0, 0xff, 0]);
    entries.push(vec![4, 1, 0, 0, BUS_ISA, 0, 0xff, 1]);

    let body: Vec<u8> = entries.concat();
    let mut table = b"PCMP".to_vec();
    table.extend((44 + body.len() as u16).to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"LODGE   ");
    table.extend(b"PC          ");
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(body);
    table[7] = checksum(&table);

    let mut bytes = b"_MP_".to_vec();
    bytes.extend((address + 16).to_le_bytes());
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes.extend(table);
    Some(bytes)
}
