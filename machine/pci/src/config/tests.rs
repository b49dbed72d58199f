use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, MemoryChange, MemoryControl, MmioBus, MmioDevice, MmioRange, MmioWidths, PortBus, PortDevice,
    PortRange, Width,
};

use super::*;

struct Nothing;

impl MmioDevice for Nothing {
    fn mmio_read(&self, _: u8, _: u64, _: usize) -> Result<u64, AccessError> {
        Ok(0)
    }
    fn mmio_write(&self, _: u8, _: u64, _: usize, _: u64) -> Result<(), AccessError> {
        Ok(())
    }
}

impl PortDevice for Nothing {
    fn port_read(&self, _: u8, _: u16, _: Width) -> Result<u32, AccessError> {
        Ok(0)
    }
    fn port_write(&self, _: u8, _: u16, _: Width, _: u32) -> Result<(), AccessError> {
        Ok(())
    }
}

struct Rig {
    device: Arc<Nothing>,
    mmio: MmioBus,
    ports: PortBus,
}

impl Rig {
    fn new() -> Self {
        Self { device: Arc::new(Nothing), mmio: MmioBus::new(), ports: PortBus::new() }
    }
    fn space(&self) -> ConfigSpace {
        let spec = ConfigSpec {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: [1, 0x80, 0],
            subsystem: [0x1af4, 2],
            multifunction: false,
            pin: 1,
        };
        let mut space = ConfigSpace::new(&spec);
        let range = MmioRange { base: 0, length: 0x4000, region: 0, widths: MmioWidths::ANY };
        let memory = self.mmio.mapping(Arc::downgrade(&self.device) as Weak<dyn MmioDevice>, range);
        let range = PortRange { base: 0, length: 32, region: 0, widths: Width::Dword };
        let ports = self.ports.mapping(Arc::downgrade(&self.device) as Weak<dyn PortDevice>, range);
        space.add_bar(0, 32, BarTarget::Ports(ports));
        space.add_bar(2, 0x4000, BarTarget::Memory64(memory));
        space
    }
}

#[test]
fn the_header_reads_as_specified() {
    let space = Rig::new().space();
    assert_eq!(space.read(0), 0x1042_1af4);
    assert_eq!(space.read(8), 0x0180_0001);
    assert_eq!(space.read(0x2c), 0x0002_1af4);
    assert_eq!(space.read(0x3c), 0x0000_0100);
    assert_eq!(space.bars(), [(0x10, 32, true), (0x18, 0x4000, false)]);
}

#[test]
fn bars_are_sized_and_moved() {
    let rig = Rig::new();
    let mut space = rig.space();
    for offset in [0x10, 0x14, 0x18, 0x1c] {
        space.write(offset, u32::MAX, u32::MAX);
    }
    assert_eq!([space.read(0x10), space.read(0x14)], [0xffff_ffe1, 0]);
    assert_eq!([space.read(0x18), space.read(0x1c)], [0xffff_c004, 0xffff_ffff]);
    assert_eq!(rig.mmio.layout(), [], "memory is not switched on");
    space.write(0x18, u32::MAX, 0xe000_4000);
    space.write(0x1c, u32::MAX, 0);
    space.write(0x10, u32::MAX, 0xc020);
    space.write(4, 0xffff, 0x0003);
    assert_eq!(rig.mmio.layout(), [(0xe000_4000, 0xe000_7fff)]);
    assert_eq!(rig.ports.layout(), [(0xc020, 0xc03f)]);
    space.write(0x1c, u32::MAX, 0x10);
    assert_eq!(rig.mmio.layout(), [(0x10_e000_4000, 0x10_e000_7fff)]);
    space.write(4, 0x00ff, 0);
    assert_eq!((rig.mmio.layout().len(), rig.ports.layout().len()), (0, 0));
}

#[test]
fn only_writable_bits_change() {
    let mut space = Rig::new().space();
    for offset in (0u16..256).step_by(4) {
        space.write(offset as u8, u32::MAX, u32::MAX);
    }
    assert_eq!(space.read(0), 0x1042_1af4);
    assert_eq!(space.read(4), u32::from(COMMAND_WRITABLE));
    assert_eq!(space.read(0x3c), 0x0000_01ff);
    space.write(0x3c, 0x0000_ff00, 0);
    assert_eq!(space.read(0x3c), 0x0000_01ff);
}

#[test]
fn capabilities_form_a_list() {
    let mut space = Rig::new().space();
    assert_eq!(space.add_capability(CAP_VENDOR, &[1, 2, 3], &[]), Some(0x40));
    assert_eq!(space.add_capability(CAP_MSIX, &[0; 10], &[0, 0xc0]), Some(0x48));
    assert_eq!(space.read(0x34) & 0xff, 0x40);
    assert_eq!(space.read(0x40), 0x0201_4809);
    assert_eq!(space.read(0x48), 0x0000_0011);
    assert_eq!(space.read(4) >> 16, u32::from(STATUS_CAPABILITIES));
    space.write(0x48, u32::MAX, u32::MAX);
    assert_eq!(space.read(0x48), 0xc000_0011);
    assert_eq!(space.add_capability(CAP_VENDOR, &[0; 255], &[]), None);
}

#[test]
fn state_is_restored() {
    let rig = Rig::new();
    let mut space = rig.space();
    space.write(0x18, u32::MAX, 0xe000_0000);
    space.write(4, 0xffff, 2);
    let saved = space.state();
    space.reset();
    assert_ne!(space.state(), saved);
    assert_eq!(rig.mmio.layout(), []);
    space.set_state(&saved);
    assert_eq!(space.state(), saved);
    assert_eq!(rig.mmio.layout(), [(0xe000_0000, 0xe000_3fff)]);
    space.set_state(&ConfigState { bytes: vec![0xff; 3] });
    assert_eq!(space.read(0), 0x1042_1af4);
}

#[derive(Default)]
struct Moves(parking_lot::Mutex<Vec<Option<u64>>>);

impl MemoryControl for Moves {
    fn change(&self, change: MemoryChange) {
        let MemoryChange::Move { region: 2, to } = change else { panic!("{change:?}") };
        self.0.lock().push(to);
    }
}

#[test]
fn memory_behind_a_bar_moves() {
    let moves = Arc::new(Moves::default());
    let mut space = ConfigSpace::new(&ConfigSpec::default());
    let mapping = MemoryMapping::new(moves.clone(), 2, 16 << 20, std::iter::once(0xfec0_0000..1 << 32).collect());
    space.add_bar(0, 16 << 20, BarTarget::Prefetchable(mapping));
    assert_eq!(space.bars(), [(0x10, 16 << 20, false)]);
    space.write(0x10, u32::MAX, u32::MAX);
    assert_eq!(space.read(0x10), 0xff00_0008, "sized, and prefetchable");
    space.write(4, 0xffff, 2);
    assert_eq!(*moves.0.lock(), [], "what is all ones covers the firmware: nowhere");
    space.write(0x10, u32::MAX, 0xfd00_0000);
    let saved = space.state();
    space.write(4, 0xffff, 0);
    assert_eq!(*moves.0.lock(), [Some(0xfd00_0000), None]);
    space.set_state(&saved);
    space.reset();
    assert_eq!(moves.0.lock()[2..], [Some(0xfd00_0000), None]);
}

#[test]
fn an_expansion_rom_answers_when_it_is_enabled() {
    let rig = Rig::new();
    let mut space = ConfigSpace::new(&ConfigSpec::default());
    let range = MmioRange { base: 0, length: 0x9000, region: 7, widths: MmioWidths::ANY };
    space.add_rom(range.length, rig.mmio.mapping(Arc::downgrade(&rig.device) as Weak<dyn MmioDevice>, range));
    assert_eq!(space.bars(), [(0x30, 0x1_0000, false)]);
    space.write(0x30, u32::MAX, !1);
    assert_eq!(space.read(0x30), 0xffff_0000);
    space.write(0x30, u32::MAX, 0xfe00_0000);
    space.write(4, 0xffff, 2);
    assert_eq!(rig.mmio.layout(), [], "not enabled");
    space.write(0x30, u32::MAX, 0xfe00_0001);
    assert_eq!(rig.mmio.layout(), [(0xfe00_0000, 0xfe00_8fff)]);
    let saved = space.state();
    space.write(4, 0xffff, 0);
    assert_eq!(rig.mmio.layout(), []);
    space.set_state(&saved);
    assert_eq!(rig.mmio.layout(), [(0xfe00_0000, 0xfe00_8fff)]);
    space.reset();
    assert_eq!((space.read(0x30), rig.mmio.layout().len()), (0, 0));
}
