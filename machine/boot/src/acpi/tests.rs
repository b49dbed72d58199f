use super::*;

pub(super) fn description() -> Description {
    Description {
        suspend: false,
        apic_ids: vec![0, 1, 2, 300],
        pci_window: 0xe000_0000..0xfec0_0000,
        pci_window_64: None,
        pci_routes: [10, 10, 11, 11],
        hpet: true,
        pm_base: 0x600,
        uarts: vec![(0x3f8, 4), (0x2f8, 3)],
        parallel: None,
        keyboard: true,
        vga: false,
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The table at a guest address, its checksum checked.
fn at(tables: &Tables, address: u64) -> &[u8] {
    let bytes = &tables.bytes[(address - tables.address) as usize..];
    let table = &bytes[..word(bytes, 4) as usize];
    if &table[..4] != b"FACS" {
        assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
    }
    table
}

fn find<'a>(tables: &'a Tables, signature: &[u8]) -> &'a [u8] {
    let rsdp = &tables.bytes[(tables.rsdp - tables.address) as usize..];
    let xsdt = at(tables, u64::from_le_bytes(rsdp[24..32].try_into().unwrap()));
    let entries = xsdt[36..].chunks(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap()));
    entries.map(|entry| at(tables, entry)).find(|table| &table[..4] == signature).unwrap()
}

#[test]
fn every_table_is_reached_from_the_root_pointer() {
    let tables = build(&description(), 0xe_0000..0x10_0000).unwrap();
    let rsdp = &tables.bytes[..36];
    assert_eq!(tables.rsdp, 0xe_0000);
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    let rsdt = at(&tables, word(rsdp, 16).into());
    assert_eq!((&rsdt[..4], rsdt.len()), (b"RSDT".as_slice(), 36 + 3 * 4));
    let fadt = find(&tables, b"FACP");
    assert_eq!(&at(&tables, word(fadt, 40).into())[..4], b"DSDT");
    let facs = word(fadt, 36);
    assert_eq!((&at(&tables, facs.into())[..4], facs % 64), (b"FACS".as_slice(), 0));
    assert_eq!(find(&tables, b"HPET").len(), 56);
}

#[test]
fn the_fixed_table_names_the_power_management_block() {
    let tables = build(&description(), 0xe_0000..0x10_0000).unwrap();
    let fadt = find(&tables, b"FACP");
    assert_eq!(fadt.len(), 244);
    assert_eq!([word(fadt, 56), word(fadt, 64), word(fadt, 76)], [0x600, 0x604, 0x608]);
    assert_eq!(u16::from_le_bytes([fadt[46], fadt[47]]), 9);
    assert_eq!(fadt[116..128], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[128], 6);
    assert_eq!(fadt[208..212], [1, 32, 0, 3]);
}

#[test]
fn interrupt_controllers() {
    let tables = build(&description(), 0xe_0000..0x10_0000).unwrap();
    let mut rest = &find(&tables, b"APIC")[44..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(rest[1].into());
        entries.push(entry.to_vec());
        rest = after;
    }
    let kinds: Vec<u8> = entries.iter().map(|entry| entry[0]).collect();
    assert_eq!(kinds, [0, 0, 0, 9, 1, 2, 2, 2, 2, 4, 10]);
    assert_eq!(entries[3][4..8], 300u32.to_le_bytes());
    assert_eq!(entries[5], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0], "the timer is on pin 2");
    assert_eq!(entries[6], [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0], "the SCI");
}

#[test]
fn the_name_space_is_well_formed() {
    let tables = build(&description(), 0xe_0000..0x10_0000).unwrap();
    let dsdt = at(&tables, word(find(&tables, b"FACP"), 40).into());
    let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
    assert_eq!(&dsdt[36..42], b"\x08\\_S5_");
    for name in ["C000", "C003", "PCI0", "_PRT", "ISA_", "COM1", "COM2", "KBD_", "HPET", "RTC_"] {
        assert!(has(name.as_bytes()), "{name}");
    }
    assert!(!has(b"C004") && !has(b"COM3"));
    assert!(!has(b"\\_S3_") && !has(b"LPT1"));
    let printing = build(&Description { parallel: Some((0x378, 7)), ..description() }, 0xe_0000..0x10_0000).unwrap();
    let dsdt = at(&printing, word(find(&printing, b"FACP"), 40).into());
    let lpt = dsdt.windows(4).position(|window| window == b"LPT1").unwrap();
    // PNP0400, a fixed range of eight ports from 378h on.
    let after = &dsdt[lpt..lpt + 60];
    assert!(after.windows(4).any(|window| window == [0x41, 0xd0, 0x04, 0x00]), "{after:x?}");
    assert!(after.windows(8).any(|window| window == [0x47, 1, 0x78, 3, 0x78, 3, 1, 8]), "{after:x?}");
    let sleepy = build(&Description { suspend: true, ..description() }, 0xe_0000..0x10_0000).unwrap();
    let dsdt = at(&sleepy, word(find(&sleepy, b"FACP"), 40).into());
    assert!(dsdt.windows(8).any(|window| window == b"\\_S3_\x12\x06\x04"), "a package of four");
    let dsdt = at(&tables, word(find(&tables, b"FACP"), 40).into());
    let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
    // Device 2's INTA is on wire 1: interrupt 10. A package of four: address, pin, source, interrupt.
    assert!(has(&[0x12, 0x0b, 4, 0x0c, 0xff, 0xff, 2, 0, 0, 0, 0x0a, 10]));
    // The scope's length ends with the table: two bytes of length, low nibble first.
    let scope = dsdt.windows(1).position(|window| window == [0x10]).unwrap();
    assert!(scope > 36);
}

#[test]
fn areas_that_do_not_do_are_refused() {
    assert!(matches!(build(&description(), 0xf_f800..0x10_0000), Err(AcpiError::Room { .. })));
    assert_eq!(build(&description(), 8..0x1_0000), Err(AcpiError::Place(8)));
    let big = Description { apic_ids: (0..255).collect(), ..description() };
    build(&big, 0xe_0000..0x10_0000).unwrap();
}

#[test]
fn multiprocessor_tables() {
    let small = Description { apic_ids: vec![0, 1], ..description() };
    let bytes = mp_table(&small, 0x9_fc00, 0x600, 0x201).unwrap();
    assert_eq!((&bytes[..4], sum(&bytes[..16])), (b"_MP_".as_slice(), 0));
    assert_eq!(word(&bytes, 4), 0x9_fc10);
    let table = &bytes[16..];
    assert_eq!((&table[..4], sum(table)), (b"PCMP".as_slice(), 0));
    assert_eq!(u16::from_le_bytes([table[4], table[5]]) as usize, table.len());
    let count = u16::from_le_bytes([table[34], table[35]]);
    let mut rest = &table[44..];
    let mut seen = 0;
    while !rest.is_empty() {
        rest = &rest[if rest[0] == 0 { 20 } else { 8 }..];
        seen += 1;
    }
    assert_eq!(seen, count);
    assert_eq!(mp_table(&description(), 0x9_fc00, 0, 0), None, "APIC ID 300");
}
