use std::sync::Arc;

use lodge_bus::{FixedMemory, MemoryChange, MemoryControl, MmioBus, MockClock, PortBus};
use lodge_engine_api::{GuestMemory, NOWHERE};
use proptest::prelude::*;
use vm_memory::GuestAddress;

use super::registers::{attr, dispi};
use super::*;

mod modes;
mod pictures;

const MIB: u64 = 1 << 20;

struct Rig {
    vga: Arc<Vga>,
    ports: PortBus,
    mmio: MmioBus,
    clock: Arc<MockClock>,
    memory: VideoMemory,
}

fn rig_with(control: Arc<dyn MemoryControl>, length: u64) -> Rig {
    let regions = [(GuestAddress(0), 0x1_0000), (GuestAddress(NOWHERE), length as usize)];
    let memory = VideoMemory::new(GuestMemory::from_ranges(&regions).unwrap(), NOWHERE, length).unwrap();
    let (ports, mmio, clock) = (PortBus::new(), MmioBus::new(), Arc::new(MockClock::new()));
    let wiring = VgaWiring {
        clock: clock.clone(),
        mmio: mmio.clone(),
        memory: memory.clone(),
        frame_buffer: MemoryMapping::new(control, 1, length, vec![0..0x1_0000, 0xfec0_0000..1 << 32]),
    };
    let rom = (0..0x9400u32).map(|n| if n < 2 { [0x55, 0xaa][n as usize] } else { n as u8 }).collect();
    let vga = Vga::new(VgaConfig { rom }, wiring);
    ports.attach(&vga.clone().port().unwrap()).unwrap();
    mmio.attach(&vga.clone().mmio().unwrap()).unwrap();
    Rig { vga, ports, mmio, clock, memory }
}

fn rig() -> Rig {
    rig_with(Arc::new(FixedMemory), 16 * MIB)
}

impl Rig {
    fn outb(&self, port: u16, value: u8) {
        self.ports.write(port, Width::Byte, value.into());
    }
    fn inb(&self, port: u16) -> u8 {
        self.ports.read(port, Width::Byte) as u8
    }
    /// Writes a register behind an index.
    fn set(&self, port: u16, index: u8, value: u8) {
        self.ports.write(port, Width::Word, u32::from(value) << 8 | u32::from(index));
    }
    fn get(&self, port: u16, index: u8) -> u8 {
        self.outb(port, index);
        self.inb(port + 1)
    }
    fn attribute(&self, index: u8, value: u8) {
        self.inb(0x3da);
        self.outb(0x3c0, index);
        self.outb(0x3c0, value);
        self.outb(0x3c0, attr::SHOWN);
    }
    fn dispi(&self, index: usize, value: u16) {
        self.ports.write(0x1ce, Width::Word, index as u32);
        self.ports.write(0x1cf, Width::Word, value.into());
    }
    fn dispi_value(&self, index: usize) -> u16 {
        self.ports.write(0x1ce, Width::Word, index as u32);
        self.ports.read(0x1cf, Width::Word) as u16
    }
    fn write(&self, address: u64, data: &[u8]) {
        self.mmio.write(address, data);
    }
    fn read(&self, address: u64) -> u8 {
        let mut data = [0];
        self.mmio.read(address, &mut data);
        data[0]
    }
    fn planes(&self, address: u32) -> [u8; 4] {
        self.memory.planes(address).to_le_bytes()
    }
    fn colour(&self, index: u8, colour: [u8; 3]) {
        self.outb(0x3c8, index);
        colour.iter().for_each(|part| self.outb(0x3c9, *part));
    }
    fn config(&self, offset: u8, value: u32) {
        self.vga.config_write(offset, u32::MAX, value);
    }
}

#[test]
fn registers_read_as_they_were_written() {
    let rig = rig();
    rig.outb(0x3c2, 0x67);
    assert_eq!(rig.inb(0x3cc), 0x67);
    for (port, index, expected) in
        [(0x3c4, 1, 0x3d), (0x3c4, 4, 0x0e), (0x3ce, 5, 0x7b), (0x3ce, 8, 0xff), (0x3d4, 0x18, 0xff)]
    {
        rig.set(port, index, 0xff);
        assert_eq!(rig.get(port, index), expected, "{port:#x} {index}");
    }
    assert_eq!(rig.get(0x3d4, 0x30), 0, "there is no such register");
    // Registers of the CRT controller are where the card is, and nowhere else.
    rig.set(0x3d4, 0x0e, 0x12);
    assert_eq!((rig.inb(0x3b4), rig.inb(0x3ba)), (0xff, 0xff));
    rig.outb(0x3c2, 0x66);
    assert_eq!((rig.get(0x3b4, 0x0e), rig.inb(0x3d4)), (0x12, 0xff));
}

#[test]
fn timing_registers_are_protected() {
    let rig = rig();
    rig.outb(0x3c2, 0x67);
    rig.set(0x3d4, 0, 0x5f);
    rig.set(0x3d4, 7, 0x1f);
    rig.set(0x3d4, 0x11, 0x8e);
    rig.set(0x3d4, 0, 0);
    rig.set(0x3d4, 7, 0x00);
    rig.set(0x3d4, 8, 0x01);
    assert_eq!((rig.get(0x3d4, 0), rig.get(0x3d4, 7), rig.get(0x3d4, 8)), (0x5f, 0x0f, 1));
    rig.set(0x3d4, 0x11, 0x0e);
    rig.set(0x3d4, 0, 1);
    assert_eq!(rig.get(0x3d4, 0), 1);
}

#[test]
fn the_attribute_controller_takes_index_and_data_in_turn() {
    let rig = rig();
    rig.outb(0x3c2, 0x67);
    rig.inb(0x3da);
    for value in [0x01, 0x2a, 0x02, 0xff, 0x10, 0xff] {
        rig.outb(0x3c0, value);
    }
    assert_eq!(rig.get(0x3d4, 0x24) >> 7, 0);
    rig.outb(0x3c0, 0x02);
    assert_eq!((rig.inb(0x3c0), rig.inb(0x3c1), rig.get(0x3d4, 0x24) >> 7), (0x02, 0x3f, 1));
    rig.inb(0x3da);
    rig.outb(0x3c0, 0x30);
    assert_eq!((rig.inb(0x3c0), rig.inb(0x3c1)), (0x30, 0xef));
    // The palette can be written while it is shown.
    rig.inb(0x3da);
    rig.outb(0x3c0, 0x21);
    assert_eq!(rig.inb(0x3c1), 0x2a);
    rig.outb(0x3c0, 0x11);
    assert_eq!(rig.inb(0x3c1), 0x11);
    // There are no more than 21 registers.
    rig.outb(0x3c0, 0x3f);
    rig.outb(0x3c0, 0xff);
    assert_eq!(rig.inb(0x3c1), 0);
}

#[test]
fn the_dac_counts_components() {
    let rig = rig();
    rig.outb(0x3c8, 255);
    for value in [1, 2, 0xff, 4, 5, 6, 7, 8] {
        rig.outb(0x3c9, value);
    }
    assert_eq!((rig.inb(0x3c7), rig.inb(0x3c8)), (0, 1));
    rig.outb(0x3c7, 255);
    assert_eq!(rig.inb(0x3c7), 3);
    let read: Vec<u8> = (0..9).map(|_| rig.inb(0x3c9)).collect();
    assert_eq!(read, [1, 2, 0x3f, 4, 5, 6, 0, 0, 0], "two components make no colour");
    rig.dispi(dispi::ENABLE, dispi::DAC_8_BITS);
    rig.colour(3, [0xff, 0x80, 0x41]);
    rig.outb(0x3c7, 3);
    assert_eq!([rig.inb(0x3c9), rig.inb(0x3c9), rig.inb(0x3c9)], [0xff, 0x80, 0x41]);
}

#[test]
fn the_window_is_where_it_is_mapped() {
    let rig = rig();
    rig.set(0x3c4, 2, 0x0f);
    rig.set(0x3c4, 4, 0x06);
    rig.set(0x3ce, 8, 0xff);
    for (map, first, length) in
        [(0, 0xa_0000, 0x2_0000), (1, 0xa_0000, 0x1_0000), (2, 0xb_0000, 0x8000), (3, 0xb_8000, 0x8000)]
    {
        rig.set(0x3ce, 6, map << 2 | 1);
        rig.memory.clear(MIB);
        rig.write(first, &[map + 1]);
        rig.write(first + length - 1, &[map + 11]);
        assert_eq!((rig.planes(0)[0], rig.planes(length as u32 - 1)[3]), (map + 1, map + 11));
        assert_eq!(rig.read(first + length - 1), map + 11);
        for outside in [first - 1, first + length] {
            rig.write(outside, &[0x55]);
            assert_eq!(rig.read(outside), 0xff, "{outside:#x}");
        }
        assert_eq!(rig.planes(length as u32 - 1), [map + 11; 4]);
    }
}

#[test]
fn planes_are_written_in_four_modes_and_read_in_two() {
    let rig = rig();
    let at = 0xa_0010;
    let graphics = |index, value| rig.set(0x3ce, index, value);
    rig.set(0x3c4, 4, 0x06);
    graphics(6, 0x05);
    graphics(8, 0xff);
    // Mode 0: map mask, set/reset, rotation, functions with the latches, bit mask.
    rig.set(0x3c4, 2, 0b0101);
    rig.write(at, &[0x81]);
    assert_eq!(rig.planes(0x10), [0x81, 0, 0x81, 0]);
    rig.set(0x3c4, 2, 0x0f);
    graphics(0, 0b0010);
    graphics(1, 0b0011);
    graphics(3, 1);
    rig.write(at, &[0x81]);
    assert_eq!(rig.planes(0x10), [0, 0xff, 0xc0, 0xc0]);
    graphics(1, 0);
    graphics(3, 0x10);
    graphics(8, 0x0f);
    assert_eq!(rig.read(at), 0, "which loads the latches");
    rig.write(at + 1, &[0x35]);
    assert_eq!(rig.planes(0x11), [0x05, 0xff, 0xc5, 0xc5], "or, in the lower bits");
    graphics(3, 0x18);
    graphics(8, 0xff);
    rig.write(at + 1, &[0xf0]);
    assert_eq!(rig.planes(0x11), [0xf0, 0x0f, 0x30, 0x30], "exclusive or");
    graphics(3, 0x08);
    rig.write(at + 1, &[0xf0]);
    assert_eq!(rig.planes(0x11), [0, 0xf0, 0xc0, 0xc0], "and");
    // Mode 1: the latches, whatever is written.
    graphics(5, 1);
    rig.write(at + 2, &[0x77]);
    assert_eq!(rig.planes(0x12), [0, 0xff, 0xc0, 0xc0]);
    // Mode 2: a colour.
    graphics(5, 2);
    graphics(3, 0);
    graphics(8, 0x3c);
    rig.write(at + 3, &[0b1001]);
    assert_eq!(rig.planes(0x13), [0x3c, 0xc3, 0xc0, 0xfc]);
    // Mode 3: set/reset where both the mask and what is written have ones.
    graphics(5, 3);
    graphics(0, 0b0101);
    graphics(3, 4);
    rig.write(at + 4, &[0xf0]);
    assert_eq!(rig.planes(0x14), [0x0c, 0xf3, 0xcc, 0xc0]);
    // Read mode 0 selects a plane, read mode 1 compares those that matter.
    for plane in 0..4 {
        graphics(4, plane);
        assert_eq!(rig.read(at + 3), [0x3c, 0xc3, 0xc0, 0xfc][usize::from(plane)]);
    }
    assert_eq!(rig.get(0x3d4, 0x22), 0xff, "nobody is there on a monochrome card's ports");
    rig.outb(0x3c2, 1);
    assert_eq!(rig.get(0x3d4, 0x22), 0xfc);
    graphics(5, 8);
    graphics(2, 0b1001);
    graphics(7, 0b1111);
    assert_eq!(rig.read(at + 3), 0x3c);
    graphics(7, 0b1000);
    assert_eq!(rig.read(at + 3), 0xfc);
    graphics(7, 0);
    assert_eq!(rig.read(at + 3), 0xff);
}

#[test]
fn addresses_are_chained_over_planes() {
    let rig = rig();
    rig.set(0x3ce, 8, 0xff);
    rig.set(0x3c4, 2, 0x0f);
    // Odd and even: characters and attributes.
    rig.set(0x3c4, 4, 0x02);
    rig.set(0x3ce, 5, 0x10);
    rig.set(0x3ce, 6, 0x0e);
    rig.set(0x3c4, 2, 0x03);
    rig.write(0xb_8000, &[b'A', 0x1f, b'B', 0x2e]);
    assert_eq!((rig.planes(0), rig.planes(1)), ([b'A', 0x1f, 0, 0], [b'B', 0x2e, 0, 0]));
    assert_eq!([rig.read(0xb_8002), rig.read(0xb_8003)], [b'B', 0x2e]);
    // All four: memory as it is.
    rig.set(0x3c4, 4, 0x0e);
    rig.set(0x3ce, 5, 0x40);
    rig.set(0x3ce, 6, 0x05);
    rig.set(0x3c4, 2, 0x0f);
    rig.write(0xa_0100, &[1, 2, 3, 4, 5, 6, 7, 8]);
    rig.write(0xa_0103, &[9]);
    assert_eq!((rig.planes(0x40), rig.planes(0x41)), ([1, 2, 3, 9], [5, 6, 7, 8]));
    assert_eq!(rig.read(0xa_0106), 7);
    rig.set(0x3c4, 2, 0b0010);
    rig.write(0xa_0100, &[0xaa; 4]);
    assert_eq!(rig.planes(0x40), [1, 0xaa, 3, 9]);
    rig.set(0x3ce, 8, 0xf0);
    rig.read(0xa_0101);
    rig.write(0xa_0101, &[0x55]);
    assert_eq!(rig.planes(0x40), [1, 0x5a, 3, 9], "bits can be masked here, too");
}

#[test]
fn retraces_come_at_a_monitors_pace() {
    let rig = rig();
    modes::set(&rig, &modes::TEXT_80X25);
    let (mut rises, mut last, mut blank) = (0, 0, 0);
    for us in 0..1_000_000u64 {
        rig.clock.set(us * 1000);
        let status = rig.inb(0x3da);
        rises += u32::from(status & 8 != 0 && last & 8 == 0);
        blank += u32::from(status & 1 != 0);
        assert!(status & 8 == 0 || status & 1 != 0, "nothing is shown in a retrace");
        last = status;
    }
    assert!((69..=71).contains(&rises), "{rises}");
    // 80 of 100 columns and 400 of 449 rows are shown: 29 % of the time nothing is.
    assert!((280_000..300_000).contains(&blank), "{blank}");
    // Nonsense does not stop time.
    rig.set(0x3d4, 0x11, 0);
    rig.set(0x3d4, 0, 0);
    rig.set(0x3d4, 6, 0);
    let seen = (0..20_000u64).fold(0, |seen, us| {
        rig.clock.set(us * 1000);
        seen | rig.inb(0x3da)
    });
    assert_eq!(seen, 9);
}

#[test]
fn the_extension_makes_modes_that_can_be() {
    let rig = rig();
    assert_eq!((rig.dispi_value(dispi::ID), rig.dispi_value(10)), (0xb0c5, 256));
    rig.dispi(dispi::ID, 0xb0c0);
    rig.dispi(dispi::ID, 0x1234);
    assert_eq!(rig.dispi_value(dispi::ID), 0xb0c0);
    rig.dispi(dispi::ENABLE, dispi::GET_CAPABILITIES);
    let most = [dispi::X_RESOLUTION, dispi::Y_RESOLUTION, dispi::DEPTH].map(|index| rig.dispi_value(index));
    assert_eq!(most, [16_000, 12_000, 32]);
    let set = |width, height, depth| {
        rig.dispi(dispi::ENABLE, 0);
        rig.dispi(dispi::X_RESOLUTION, width);
        rig.dispi(dispi::Y_RESOLUTION, height);
        rig.dispi(dispi::DEPTH, depth);
        rig.dispi(dispi::ENABLE, 0x41);
        let all = [dispi::X_RESOLUTION, dispi::Y_RESOLUTION, dispi::DEPTH, dispi::VIRTUAL_WIDTH, dispi::VIRTUAL_HEIGHT];
        all.map(|index| rig.dispi_value(index))
    };
    assert_eq!(set(2560, 1600, 32), [2560, 1600, 32, 2560, 1638]);
    assert_eq!(set(1366, 768, 24), [1366, 768, 24, 1366, 4094]);
    assert_eq!(set(2560, 1700, 32), [2560, 1638, 32, 2560, 1638], "as much as memory has");
    assert_eq!(set(0, 0, 7), [8, 1, 8, 8, 0xffff]);
    assert_eq!(set(u16::MAX, u16::MAX, 32), [16_000, 262, 32, 16_000, 262]);
    set(1024, 768, 32);
    rig.dispi(dispi::VIRTUAL_WIDTH, 2048);
    rig.dispi(dispi::X_OFFSET, 100);
    rig.dispi(dispi::Y_OFFSET, 768);
    assert_eq!([dispi::VIRTUAL_HEIGHT, dispi::X_OFFSET, dispi::Y_OFFSET].map(|n| rig.dispi_value(n)), [2048, 100, 768]);
    rig.dispi(dispi::Y_OFFSET, 2000);
    assert_eq!((rig.dispi_value(dispi::X_OFFSET), rig.dispi_value(dispi::Y_OFFSET)), (100, 0));
}

#[test]
fn the_extension_clears_memory_unless_told_otherwise_and_has_banks() {
    let rig = rig();
    rig.memory.write(0, &[7; 16]);
    rig.dispi(dispi::X_RESOLUTION, 800);
    rig.dispi(dispi::Y_RESOLUTION, 600);
    rig.dispi(dispi::DEPTH, 8);
    rig.dispi(dispi::ENABLE, 0x81);
    assert_eq!(rig.planes(0), [7; 4]);
    rig.dispi(dispi::ENABLE, 0);
    rig.dispi(dispi::ENABLE, 1);
    assert_eq!(rig.planes(0), [0; 4]);
    rig.set(0x3ce, 8, 0xff);
    rig.dispi(dispi::BANK, 6);
    rig.write(0xa_0005, &[0x42]);
    let mut byte = [0];
    rig.memory.read(0x6_0005, &mut byte);
    assert_eq!((byte, rig.read(0xa_0005)), ([0x42], 0x42));
    rig.dispi(dispi::BANK, 0x1ff);
    assert_eq!(rig.dispi_value(dispi::BANK), 0xff);
}

#[test]
fn bars_show_memory_registers_and_rom() {
    #[derive(Default)]
    struct Moves(Mutex<Vec<MemoryChange>>);
    impl MemoryControl for Moves {
        fn change(&self, change: MemoryChange) {
            self.0.lock().push(change);
        }
    }
    let moves = Arc::new(Moves::default());
    let rig = rig_with(moves.clone(), 16 * MIB);
    assert_eq!(
        [rig.vga.config_read(0), rig.vga.config_read(8), rig.vga.config_read(0x2c)],
        [0x1111_1234, 0x0300_0002, 0x1100_1af4]
    );
    assert_eq!(rig.vga.bars(), [(0x10, 16 * MIB, false), (0x18, 0x1000, false), (0x30, 0x1_0000, false)]);
    rig.config(0x10, 0xfd00_0000);
    rig.config(0x18, 0xfebf_0000);
    rig.config(0x30, 0xfebe_0001);
    rig.config(4, 7);
    assert_eq!(*moves.0.lock(), [MemoryChange::Move { region: 1, to: Some(0xfd00_0000) }]);
    let dword = |address| {
        let mut bytes = [0; 4];
        rig.mmio.read(address, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    assert_eq!((dword(0xfebe_0000), rig.read(0xfebe_93ff)), (0x0302_aa55, 0xff));
    rig.write(0xfebe_0000, &[1]);
    assert_eq!(rig.read(0xfebe_0000), 0x55);
    // EDID, ports, Bochs' registers, order of bytes.
    assert_eq!((dword(0xfebf_0000), dword(0xfebf_0200)), (0xffff_ff00, 0));
    rig.write(0xfebf_0402, &[0x67]);
    assert_eq!((rig.inb(0x3cc), rig.read(0xfebf_040c)), (0x67, 0x67));
    rig.write(0xfebf_0404, &[0x02, 0x0a]);
    assert_eq!(rig.get(0x3c4, 2), 0x0a);
    rig.write(0xfebf_0502, &1024u16.to_le_bytes());
    assert_eq!((rig.dispi_value(dispi::X_RESOLUTION), dword(0xfebf_0500)), (1024, 0x0400_b0c5));
    assert_eq!(dword(0xfebf_0514) & 0xffff, 256);
    assert_eq!((dword(0xfebf_0600), dword(0xfebf_0604)), (8, 0x1e1e_1e1e));
    rig.write(0xfebf_0604, &pci::ENDIAN_BIG.to_le_bytes());
    assert_eq!(dword(0xfebf_0604), 0xbebe_bebe);
}

#[test]
fn state_is_restored() {
    let rig = rig();
    modes::set(&rig, &modes::GRAPHICS_640X480);
    rig.config(0x18, 0xfebf_0000);
    rig.config(4, 7);
    rig.colour(5, [1, 2, 3]);
    rig.dispi(dispi::X_RESOLUTION, 640);
    let (saved, frame) = (rig.vga.save(), rig.vga.frame());
    rig.vga.reset();
    assert_ne!(rig.vga.save(), saved);
    rig.vga.restore(&saved).unwrap();
    assert_eq!(rig.vga.save(), saved);
    assert_eq!((rig.vga.frame(), rig.mmio.layout().len()), (frame, 2));
    assert!(rig.vga.restore(b"nonsense").is_err());
    assert_eq!(rig.vga.save(), saved);
}

#[test]
fn a_saved_state_can_not_make_what_can_not_be() {
    let rig = rig();
    let mut registers = Registers { dac: vec![1], dac_component: 200, seq_index: 99, ..Registers::default() };
    registers.dispi = [0xffff; 10];
    registers.gfx = [0xff; 16];
    let state = VgaState { registers, ..VgaState::default() };
    rig.vga.restore(&lodge_savestate::to_record(&state)).unwrap();
    let frame = rig.vga.frame();
    assert!(frame.pixels.len() <= 16 << 20, "{} x {}", frame.width, frame.height);
    for port in 0x3b0..0x3e0 {
        rig.inb(port);
        rig.outb(port, 0xff);
    }
    rig.write(0xa_0000, &[1; 64]);
}

#[test]
fn regions_that_will_not_do_are_refused() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(NOWHERE), 1 << 20)]).unwrap();
    let refused = |base, length| VideoMemory::new(memory.clone(), base, length).err();
    assert_eq!(refused(NOWHERE, 3 << 19), Some(VideoMemoryError::Size { length: 3 << 19 }));
    assert_eq!(refused(NOWHERE, 2 << 20), Some(VideoMemoryError::Region { base: NOWHERE, length: 2 << 20 }));
    assert_eq!(refused(0, 1 << 20), Some(VideoMemoryError::Region { base: 0, length: 1 << 20 }));
    assert_eq!(refused(NOWHERE, 1 << 20), None);
}

#[derive(Clone, Debug)]
enum Step {
    Port(u16, u8),
    In(u16),
    Dispi(u16, u16),
    Write(u64, u64),
    Read(u64),
    Register(u64, u32),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0x3b4u16..0x3e0, any::<u8>()).prop_map(|(port, value)| Step::Port(port, value)),
        1 => (0x3b4u16..0x3e0).prop_map(Step::In),
        3 => (0u16..12, prop_oneof![0u16..2000, any::<u16>()]).prop_map(|(index, value)| Step::Dispi(index, value)),
        2 => (0u64..0x2_0000, any::<u64>()).prop_map(|(at, value)| Step::Write(at, value)),
        1 => (0u64..0x2_0000).prop_map(Step::Read),
        1 => (0u64..0x1000, any::<u32>()).prop_map(|(at, value)| Step::Register(at, value)),
        1 => Just(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_a_guest_does_there_is_a_picture(steps in prop::collection::vec(step(), 1..200)) {
        let rig = rig_with(Arc::new(FixedMemory), MIB);
        rig.config(0x18, 0xfebf_0000);
        rig.config(4, 7);
        // Ports of a colour card, and lit, mostly.
        rig.outb(0x3c2, 1);
        rig.outb(0x3c0, attr::SHOWN);
        for step in steps {
            match step {
                Step::Port(port, value) => rig.outb(port, value),
                Step::In(port) => { rig.inb(port); }
                Step::Dispi(index, value) => rig.dispi(index.into(), value),
                Step::Write(at, value) => rig.write(0xa_0000 + at, &value.to_le_bytes()),
                Step::Read(at) => { rig.mmio.read(0xa_0000 + at, &mut [0; 8]); }
                Step::Register(at, value) => {
                    rig.write(0xfebf_0000 + at, &value.to_le_bytes());
                    rig.mmio.read(0xfebf_0000 + at, &mut [0; 4]);
                }
                Step::Look => {
                    let frame = rig.vga.frame();
                    prop_assert_eq!(frame.pixels.len(), frame.width * frame.height);
                    rig.vga.text();
                    rig.vga.mode();
                }
            }
        }
        let frame = rig.vga.frame();
        prop_assert_eq!(frame.pixels.len(), frame.width * frame.height);
        let saved = rig.vga.save();
        rig.vga.restore(&saved).unwrap();
        prop_assert_eq!(rig.vga.save(), saved);
    }
}
