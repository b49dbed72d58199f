//! The tables that are plain structures: root pointer, FADT, FACS, MADT, HPET (ACPI 6.5 sections 5.2.5 to 5.2.12; IA-PC HPET
//! specification 3.2.4).

use acpi_tables::sdt::{GenericAddress, Sdt};

use super::Description;

/// Bytes in the root pointer.
pub(super) const RSDP_LENGTH: usize = 36;
/// Bytes of the header that tables have (5.2.6).
pub(super) const HEADER: usize = 36;
/// Offset and size of the fixed description table's pointers to others: the firmware control structure, and the name
/// space twice.
pub(super) const FADT_POINTERS: [(usize, u8); 3] = [(36, 4), (40, 4), (140, 8)];
const OEM: [u8; 6] = *b"LODGE ";
const OEM_TABLE: [u8; 8] = *b"LODGEPC ";
const SCI: u16 = 9;
const HPET_BASE: u64 = 0xfed0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

/// An empty table of `length` bytes.
pub(super) fn table(signature: &[u8; 4], length: u32, revision: u8) -> Sdt {
    Sdt::new(*signature, length, revision, OEM, OEM_TABLE, 1)
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The root pointer (5.2.5.3).
pub(super) fn rsdp(rsdt: u64, xsdt: u64) -> [u8; RSDP_LENGTH] {
    let mut bytes = [0; RSDP_LENGTH];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[9..15].copy_from_slice(&OEM);
    bytes[15] = 2;
    bytes[16..20].copy_from_slice(&(rsdt as u32).to_le_bytes());
    bytes[20..24].copy_from_slice(&(RSDP_LENGTH as u32).to_le_bytes());
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    bytes[8] = checksum(&bytes[..20]);
    bytes[32] = checksum(&bytes);
    bytes
}

/// The list of tables with 32-bit addresses (5.2.7).
pub(super) fn rsdt(entries: &[u64]) -> Vec<u8> {
    let mut rsdt = table(b"RSDT", 36, 1);
    for entry in entries {
        rsdt.append_slice(&(*entry as u32).to_le_bytes());
    }
    rsdt.as_slice().to_vec()
}

/// The list of tables (5.2.8).
pub(super) fn xsdt(entries: &[u64]) -> Vec<u8> {
    let mut xsdt = table(b"XSDT", 36, 1);
    for entry in entries {
        xsdt.append_slice(&entry.to_le_bytes());
    }
    xsdt.as_slice().to_vec()
}

/// The firmware control structure (5.2.10).
pub(super) fn facs() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..4].copy_from_slice(b"FACS");
    bytes[4] = 64;
    bytes[32] = 2;
    bytes
}

/// The fixed description table (5.2.9), revision 4.
pub(super) fn fadt(description: &Description, facs: u64, dsdt: u64) -> Vec<u8> {
    const WBINVD: u32 = 1 << 0;
    const PROC_C1: u32 = 1 << 2;
    const NO_SLEEP_BUTTON: u32 = 1 << 5;
    const RESET_REGISTER: u32 = 1 << 10;
    const LEGACY_DEVICES: u16 = 1 << 0;
    const KEYBOARD: u16 = 1 << 1;
    const NO_VGA: u16 = 1 << 2;

    let (event, control, timer) =
        (description.pm_base, description.pm_base.wrapping_add(4), description.pm_base.wrapping_add(8));
    let mut fadt = table(b"FACP", 244, 4);
    fadt.write_u32(36, facs as u32);
    fadt.write_u32(40, dsdt as u32);
    // Desktop.
    fadt.write_u8(45, 1);
    fadt.write_u16(46, SCI);
    // How ACPI is switched on and off; it is on already.
    fadt.write_u32(48, 0xb2);
    fadt.write_u8(52, 0xf1);
    fadt.write_u8(53, 0xf0);
    fadt.write_u32(56, event.into());
    fadt.write_u32(64, control.into());
    fadt.write_u32(76, timer.into());
    fadt.write_u8(88, 4);
    fadt.write_u8(89, 2);
    fadt.write_u8(91, 4);
    // No C2 and C3.
    fadt.write_u16(96, 0xfff);
    fadt.write_u16(98, 0xfff);
    // The century's place in CMOS memory.
    fadt.write_u8(108, 0x32);
    let mut boot = LEGACY_DEVICES;
    if description.keyboard {
        boot |= KEYBOARD;
    }
    if !description.vga {
        boot |= NO_VGA;
    }
    fadt.write_u16(109, boot);
    fadt.write_u32(112, WBINVD | PROC_C1 | NO_SLEEP_BUTTON | RESET_REGISTER);
    fadt.write(116, GenericAddress::io_port_address::<u8>(0xcf9));
    fadt.write_u8(128, 0x06);
    fadt.write_u64(140, dsdt);
    fadt.write(148, GenericAddress::io_port_address::<u32>(event));
    fadt.write(172, GenericAddress::io_port_address::<u16>(control));
    fadt.write(208, GenericAddress::io_port_address::<u32>(timer));
    fadt.update_checksum();
    fadt.as_slice().to_vec()
}

/// The interrupt controllers (5.2.12).
pub(super) fn madt(description: &Description) -> Vec<u8> {
    const PCAT_COMPATIBLE: u32 = 1;
    const ENABLED: u32 = 1;
    const LEVEL_HIGH: u16 = 0x000d;
    const ALL_PROCESSORS: u8 = 0xff;
    const ALL_PROCESSORS_X2: u32 = 0xffff_ffff;

    let mut madt = table(b"APIC", 44, 4);
    madt.write_u32(36, LOCAL_APIC);
    madt.write_u32(40, PCAT_COMPATIBLE);
    let mut x2apic = false;
    for (uid, id) in description.apic_ids.iter().enumerate() {
        let mut entry = Vec::new();
        match u8::try_from(*id).ok().filter(|id| *id < 255) {
            Some(id) => {
                entry.extend([0, 8, uid as u8, id]);
                entry.extend(ENABLED.to_le_bytes());
            }
            None => {
                x2apic = true;
                entry.extend([9, 16, 0, 0]);
                entry.extend(id.to_le_bytes());
                entry.extend(ENABLED.to_le_bytes());
                entry.extend((uid as u32).to_le_bytes());
            }
        }
        madt.append_slice(&entry);
    }
    let mut rest = vec![1, 12, 0, 0];
    rest.extend(IO_APIC.to_le_bytes());
    rest.extend(0u32.to_le_bytes());
    let mut replace = |source: u8, gsi: u32, flags: u16| {
        rest.extend([2, 10, 0, source]);
        rest.extend(gsi.to_le_bytes());
        rest.extend(flags.to_le_bytes());
    };
    // The timer is on pin 2; the SCI and PCI's interrupts are level-triggered, active high.
    replace(0, 2, 0);
    let mut level: Vec<u8> = description.pci_routes.to_vec();
    level.push(SCI as u8);
    level.sort_unstable();
    level.dedup();
    for source in level.into_iter().filter(|source| *source < 16) {
        replace(source, source.into(), LEVEL_HIGH);
    }
    // NMIs arrive at LINT1 of all.
    rest.extend([4, 6, ALL_PROCESSORS, 0, 0, 1]);
    if x2apic {
        rest.extend([10, 12, 0, 0]);
        rest.extend(ALL_PROCESSORS_X2.to_le_bytes());
        rest.extend([1, 0, 0, 0]);
    }
    madt.append_slice(&rest);
    madt.as_slice().to_vec()
}

/// The HPET's description.
pub(super) fn hpet() -> Vec<u8> {
    let mut hpet = table(b"HPET", 56, 1);
    hpet.write_u32(36, 0x8086_a201);
    hpet.write(40, GenericAddress { access_size: 0, ..GenericAddress::mmio_address::<u64>(HPET_BASE) });
    hpet.write_u8(52, 0);
    // The shortest period without lost interrupts, in counts: 10 microseconds.
    hpet.write_u16(53, 1000);
    hpet.update_checksum();
    hpet.as_slice().to_vec()
}
