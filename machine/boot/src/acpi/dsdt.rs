//! The name space (ACPI 6.5 chapters 6, 19, 20): processors, the PCI host bridge with its windows and interrupt routing, the
//! board's devices, soft off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, PackageBuilder,
    Path, ResourceTemplate, Scope,
};

use super::Description;
use super::tables::table;

/// An ISA device: its name, ID, number among its like, ports (base, length), interrupt.
struct Isa<'a> {
    name: &'a str,
    id: &'a str,
    uid: u8,
    ports: &'a [(u16, u8)],
    interrupt: Option<u8>,
}

impl Isa<'_> {
    fn aml(&self) -> Vec<u8> {
        let ports: Vec<IO> = self.ports.iter().map(|(base, length)| IO::new(*base, *base, 1, *length)).collect();
        // Edge-triggered, active high.
        let interrupt = self.interrupt.map(|number| Interrupt::new(true, true, false, false, number.into()));
        let mut resources: Vec<&dyn Aml> = ports.iter().map(|port| port as &dyn Aml).collect();
        resources.extend(interrupt.iter().map(|interrupt| interrupt as &dyn Aml));
        let mut bytes = Vec::new();
        let id = Name::new("_HID".into(), &EISAName::new(self.id));
        let uid = Name::new("_UID".into(), &self.uid);
        let current = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
        Device::new(Path::new(self.name), vec![&id, &uid, &current]).to_aml_bytes(&mut bytes);
        bytes
    }
}

/// Bytes that are AML already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn board_devices(description: &Description) -> Vec<u8> {
    let mut devices = vec![
        Isa { name: "PIC_", id: "PNP0000", uid: 0, ports: &[(0x20, 2), (0xa0, 2), (0x4d0, 2)], interrupt: None },
        Isa { name: "TIMR", id: "PNP0100", uid: 0, ports: &[(0x40, 4)], interrupt: Some(0) },
        Isa { name: "RTC_", id: "PNP0B00", uid: 0, ports: &[(0x70, 2)], interrupt: Some(8) },
        Isa { name: "SPKR", id: "PNP0800", uid: 0, ports: &[(0x61, 1)], interrupt: None },
    ];
    if description.keyboard {
        devices.push(Isa { name: "KBD_", id: "PNP0303", uid: 0, ports: &[(0x60, 1), (0x64, 1)], interrupt: Some(1) });
        devices.push(Isa { name: "MOU_", id: "PNP0F13", uid: 0, ports: &[], interrupt: Some(12) });
    }
    let names = ["COM1", "COM2", "COM3", "COM4"];
    let ports: Vec<[(u16, u8); 1]> = description.uarts.iter().map(|(base, _)| [(*base, 8)]).collect();
    for (index, ((name, ports), (_, interrupt))) in names.iter().zip(&ports).zip(&description.uarts).enumerate() {
        devices.push(Isa { name, id: "PNP0501", uid: index as u8 + 1, ports, interrupt: Some(*interrupt) });
    }
    let lpt: Option<([(u16, u8); 1], u8)> = description.parallel.map(|(base, interrupt)| ([(base, 8)], interrupt));
    if let Some((ports, interrupt)) = &lpt {
        devices.push(Isa { name: "LPT1", id: "PNP0400", uid: 1, ports, interrupt: Some(*interrupt) });
    }
    // What belongs to the board and to no driver.
    let board = [(0x80, 1), (0x92, 1), (0xb2, 2), (description.pm_base, 0x40)];
    devices.push(Isa { name: "BRD_", id: "PNP0C02", uid: 1, ports: &board, interrupt: None });
    let mut bytes = Name::to_bytes("_ADR", &0x0001_0000u32);
    for device in &devices {
        bytes.extend(device.aml());
    }
    bytes
}

/// A name's bytes.
trait NameBytes {
    fn to_bytes(name: &str, value: &dyn Aml) -> Vec<u8>;
}

impl NameBytes for Name {
    fn to_bytes(name: &str, value: &dyn Aml) -> Vec<u8> {
        let mut bytes = Vec::new();
        Name::new(name.into(), value).to_aml_bytes(&mut bytes);
        bytes
    }
}

/// Interrupt routing: device and pin to global system interrupt (6.2.13).
fn routing(description: &Description) -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for device in 0..32u32 {
        for pin in 0..4u8 {
            let wire = (device as usize + usize::from(pin) + 3) % 4;
            let (address, interrupt) = (device << 16 | 0xffff, u32::from(description.pci_routes[wire]));
            routes.add_element(&Package::new(vec![&address, &pin, &0u8, &interrupt]));
        }
    }
    routes
}

fn host_bridge(description: &Description) -> Vec<u8> {
    let bus = AddressSpace::new_bus_number(0u16, 0u16);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let low = AddressSpace::new_io(0u16, 0xcf7, None);
    let high = AddressSpace::new_io(0xd00u16, 0xffff, None);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let vga = AddressSpace::new_memory(uncached, true, 0xa_0000u32, 0xb_ffff, None);
    let window = &description.pci_window;
    let last = window.end.saturating_sub(1) as u32;
    let memory = AddressSpace::new_memory(uncached, true, window.start as u32, last, None);
    let memory_64 = description
        .pci_window_64
        .as_ref()
        .map(|window| AddressSpace::new_memory(uncached, true, window.start, window.end.saturating_sub(1), None));
    let mut resources: Vec<&dyn Aml> = vec![&bus, &config, &low, &high, &vga, &memory];
    resources.extend(memory_64.iter().map(|window| window as &dyn Aml));
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A03"));
    let address = Name::new("_ADR".into(), &0u8);
    let uid = Name::new("_UID".into(), &0u8);
    let current = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let routes = Name::new("_PRT".into(), &routing(description));
    let isa = Raw(board_devices(description));
    let isa = Device::new("ISA_".into(), vec![&isa]);
    let mut bytes = Vec::new();
    Device::new("PCI0".into(), vec![&id, &address, &uid, &current, &routes, &isa]).to_aml_bytes(&mut bytes);
    bytes
}

fn hpet() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0103"));
    let uid = Name::new("_UID".into(), &0u8);
    let registers = Memory32Fixed::new(true, 0xfed0_0000, 0x400);
    let current = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers]));
    let mut bytes = Vec::new();
    Device::new("HPET".into(), vec![&id, &uid, &current]).to_aml_bytes(&mut bytes);
    bytes
}

fn processors(description: &Description) -> Vec<u8> {
    let mut bytes = Vec::new();
    for uid in 0..description.apic_ids.len() as u32 {
        let id = Name::new("_HID".into(), &"ACPI0007");
        let number = Name::new("_UID".into(), &uid);
        let name = format!("C{uid:03X}");
        Device::new(Path::new(&name), vec![&id, &number]).to_aml_bytes(&mut bytes);
    }
    bytes
}

/// The whole table.
pub(super) fn dsdt(description: &Description) -> Vec<u8> {
    // Soft off: sleep type 0 (7.4.2.6).
    let off = Package::new(vec![&0u8, &0u8, &0u8, &0u8]);
    let soft_off = Name::new("\\_S5_".into(), &off);
    let mut system = processors(description);
    if description.hpet {
        system.extend(hpet());
    }
    system.extend(host_bridge(description));
    let system = Raw(system);
    let mut bytes = Vec::new();
    soft_off.to_aml_bytes(&mut bytes);
    if description.suspend {
        let suspend = Package::new(vec![&1u8, &1u8, &0u8, &0u8]);
        Name::new("\\_S3_".into(), &suspend).to_aml_bytes(&mut bytes);
    }
    Scope::new("\\_SB_".into(), vec![&system]).to_aml_bytes(&mut bytes);
    let mut dsdt = table(b"DSDT", 36, 2);
    dsdt.append_slice(&bytes);
    dsdt.as_slice().to_vec()
}
