use lodge_bus::PciFunction;

use super::*;
use crate::testing::{BAR, DATA, Driver, MSIX_BAR, wait_for};
use crate::worker::Bell;

/// Gives every request back, its readable bytes inverted.
struct Inverter {
    active: Mutex<u32>,
    hold: Mutex<()>,
}

impl VirtioDevice for Inverter {
    fn name(&self) -> &str {
        "inverter"
    }
    fn device_id(&self) -> u16 {
        30
    }
    fn class(&self) -> [u8; 3] {
        [0xff, 0, 0]
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![64, 16]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn activate(&self, _features: u64, _bell: Bell) {
        *self.active.lock() += 1;
    }
    fn deactivate(&self) {
        *self.active.lock() = 0;
    }
    fn process(&self, _index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        let _held = self.hold.lock();
        loop {
            queue.hush()?;
            while let Some(chain) = queue.pop()? {
                let length = chain.readable.length().min(chain.writable.length());
                let mut data = vec![0; length.min(4096) as usize];
                queue.read(&chain, 0, &mut data)?;
                data.iter_mut().for_each(|byte| *byte = !*byte);
                queue.write(&chain, 0, &data)?;
                queue.push(&chain, data.len() as u64)?;
            }
            queue.signal()?;
            if !queue.listen()? {
                return Ok(());
            }
        }
    }
}

fn rig() -> (Driver, Arc<Inverter>) {
    let device = Arc::new(Inverter { active: Mutex::new(0), hold: Mutex::new(()) });
    (Driver::new(device.clone()), device)
}

fn invert(driver: &Driver, first: u16) {
    driver.put(DATA, &[1, 2, 3, 4]);
    driver.submit(0, first, &[(DATA, 4, false), (DATA + 0x100, 2, true), (DATA + 0x200, 2, true)]);
    assert_eq!(driver.complete(0), (first.into(), 4));
    assert_eq!([driver.get(DATA + 0x100, 2), driver.get(DATA + 0x200, 2)].concat(), [0xfe, 0xfd, 0xfc, 0xfb]);
}

#[test]
fn what_a_driver_finds() {
    let (driver, _) = rig();
    assert_eq!(driver.function.config_read(0), 0x105e_1af4);
    let mut at = driver.function.config_read(0x34) as u8;
    let mut kinds = Vec::new();
    while at != 0 {
        let head = driver.function.config_read(at);
        kinds.push((head as u8, (head >> 24) as u8));
        at = (head >> 8) as u8;
    }
    assert_eq!(kinds[0].0, CAP_MSIX);
    assert_eq!(kinds[1..], [(9, 1), (9, 3), (9, 4), (9, 2), (9, 5)]);
    assert_eq!(driver.offered(), feature::COMMON | 1 << 5);
    assert_eq!(driver.read(common::NUM_QUEUES, 2), 2);
    driver.write(common::QUEUE_SELECT, 2, 1);
    assert_eq!((driver.read(common::QUEUE_SIZE, 2), driver.read(common::QUEUE_NOTIFY_OFF, 2)), (16, 1));
    driver.write(common::QUEUE_SELECT, 2, 9);
    assert_eq!(driver.read(common::QUEUE_SIZE, 2), 0);
    assert_eq!(driver.config(8, 4), 0x0808_0808);
}

#[test]
fn features_must_be_offered_and_modern() {
    let (driver, device) = rig();
    for (features, agreed) in [(1u64 << 32, 8), (0, 0), (1 << 32 | 1 << 6, 0)] {
        driver.write(common::STATUS, 1, 0);
        driver.write(common::STATUS, 1, 3);
        for half in [0, 1] {
            driver.write(common::DRIVER_FEATURE_SELECT, 4, half);
            driver.write(common::DRIVER_FEATURE, 4, features >> (32 * half) & 0xffff_ffff);
        }
        driver.write(common::STATUS, 1, 11);
        assert_eq!(driver.status() & 8, agreed, "{features:#x}");
        driver.write(common::STATUS, 1, 15);
        assert_eq!(*device.active.lock(), u32::from(agreed != 0));
        // Only a reset takes bits away; nothing is started twice.
        let before = driver.status();
        driver.write(common::STATUS, 1, 1);
        assert_eq!(driver.status(), before);
        driver.write(common::STATUS, 1, 15);
        assert_eq!(*device.active.lock(), u32::from(agreed != 0));
    }
}

#[test]
fn requests_with_intx() {
    let (driver, _) = rig();
    driver.start(0);
    invert(&driver, 0);
    wait_for("the interrupt", || *driver.wire.0.lock());
    assert_eq!(driver.function.config_read(4) >> 19 & 1, 1);
    assert_eq!(driver.isr(), 1);
    assert!(!*driver.wire.0.lock());
    driver.function.config_write(4, 0xffff, 0x0406);
    invert(&driver, 0);
    wait_for("the status", || driver.function.config_read(4) >> 19 & 1 == 1);
    assert!(!*driver.wire.0.lock(), "INTx is disabled");
    assert_eq!(driver.messages.0.lock().len(), 0);
}

#[test]
fn requests_with_msix_and_event_index() {
    let (driver, _) = rig();
    driver.mmio.write(MSIX_BAR + 16, &0xfee0_0000u64.to_le_bytes());
    driver.mmio.write(MSIX_BAR + 24, &0x55u64.to_le_bytes());
    driver.function.config_write(0x40, 0xffff_0000, 0x8000_0000);
    driver.start(feature::EVENT_IDX | feature::INDIRECT);
    driver.write(common::QUEUE_SELECT, 2, 0);
    driver.write(common::QUEUE_VECTOR, 2, 1);
    assert_eq!(driver.read(common::QUEUE_VECTOR, 2), 1);
    invert(&driver, 0);
    wait_for("the message", || *driver.messages.0.lock() == [(0xfee0_0000, 0x55)]);
    invert(&driver, 0);
    assert_eq!(driver.messages.0.lock().len(), 1, "used_event is still 0");
    driver.write(common::QUEUE_VECTOR, 2, 3);
    assert_eq!(driver.read(common::QUEUE_VECTOR, 2), u64::from(NO_VECTOR), "the table has three");
    assert!(!*driver.wire.0.lock());
}

#[test]
fn indirect_descriptors() {
    let (driver, _) = rig();
    driver.start(feature::INDIRECT);
    driver.put(DATA, &[0xf0]);
    let table = DATA + 0x1000;
    let entry = |address: u64, flags: u16, next: u16| {
        [address.to_le_bytes().as_slice(), &1u32.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    driver.put(table, &[entry(DATA, 1, 1), entry(DATA + 8, 2, 0)].concat());
    driver.descriptor(0, 3, table, 32, 4, 0);
    driver.offer(0, 3);
    driver.ring(0);
    assert_eq!(driver.complete(0), (3, 1));
    assert_eq!(driver.get(DATA + 8, 1), [0x0f]);
}

/// Runs what a malicious driver does and expects the device to ask for a reset, and to work after one.
fn breaks(what: &str, attack: impl Fn(&Driver)) {
    let (driver, _) = rig();
    driver.start(feature::INDIRECT);
    attack(&driver);
    wait_for(what, || driver.status() & status::NEEDS_RESET != 0);
    driver.start(0);
    invert(&driver, 0);
    assert_eq!(driver.status(), 15, "{what}");
}

#[test]
fn malicious_rings_need_a_reset() {
    breaks("a loop", |driver| {
        driver.descriptor(0, 0, DATA, 1, 1, 1);
        driver.descriptor(0, 1, DATA, 1, 1, 0);
        driver.offer(0, 0);
        driver.ring(0);
    });
    breaks("a buffer outside of RAM", |driver| driver.submit(0, 0, &[(1 << 40, 16, true)]));
    breaks("a buffer across the end of RAM", |driver| driver.submit(0, 0, &[((4 << 20) - 8, 16, true)]));
    breaks("a buffer at the end of the address space", |driver| driver.submit(0, 0, &[(u64::MAX - 4, 16, true)]));
    breaks("a huge length", |driver| driver.submit(0, 0, &[(0, u32::MAX, true)]));
    breaks("a head beyond the table", |driver| {
        driver.offer(0, 999);
        driver.ring(0);
    });
    breaks("an index that jumps", |driver| {
        driver.put(0x2002, &1000u16.to_le_bytes());
        driver.ring(0);
    });
    breaks("an indirect table in itself", |driver| {
        driver.descriptor(0, 0, 0x1000, 16, 4, 0);
        driver.offer(0, 0);
        driver.ring(0);
    });
    breaks("an indirect table of an odd length", |driver| {
        driver.descriptor(0, 0, DATA, 17, 4, 0);
        driver.offer(0, 0);
        driver.ring(0);
    });
}

#[test]
fn rings_outside_of_ram_need_a_reset() {
    let (driver, _) = rig();
    driver.write(common::STATUS, 1, 3);
    driver.write(common::DRIVER_FEATURE_SELECT, 4, 1);
    driver.write(common::DRIVER_FEATURE, 4, 1);
    driver.write(common::STATUS, 1, 11);
    driver.write(common::QUEUE_SIZE, 2, 0);
    driver.write(common::QUEUE_SIZE, 2, 3);
    driver.write(common::QUEUE_SIZE, 2, 128);
    assert_eq!(driver.read(common::QUEUE_SIZE, 2), 64, "sizes that are not allowed are not taken");
    driver.write(common::QUEUE_DESC, 8, u64::MAX - 15);
    driver.write(common::QUEUE_DRIVER, 8, 2);
    driver.write(common::QUEUE_DEVICE, 8, 4);
    driver.write(common::QUEUE_ENABLE, 2, 1);
    driver.write(common::STATUS, 1, 15);
    assert_eq!(driver.status(), 15 | status::NEEDS_RESET);
    assert_eq!(driver.isr(), ISR_CONFIG);
}

#[test]
fn a_reset_waits_for_io_without_blocking() {
    let (driver, device) = rig();
    driver.start(0);
    let hold = device.hold.lock();
    driver.submit(0, 0, &[(DATA, 1, false), (DATA, 1, true)]);
    wait_for("the thread", || driver.function.shared.slots[0].queue.try_lock().is_none());
    driver.write(common::STATUS, 1, 0);
    assert_ne!(driver.status(), 0, "I/O is under way");
    drop(hold);
    wait_for("the reset", || driver.status() == 0);
    assert_eq!(*device.active.lock(), 0);
    driver.start(0);
    invert(&driver, 0);
}

#[test]
fn access_through_configuration_space() {
    let (driver, _) = rig();
    let cap = driver.function.pci_cfg;
    let select = |offset: u32, length: u32| {
        driver.function.config_write(cap + 4, u32::MAX, Layout::PLAIN.main_bar.into());
        driver.function.config_write(cap + 8, u32::MAX, offset);
        driver.function.config_write(cap + 12, u32::MAX, length);
    };
    select(common::NUM_QUEUES as u32, 2);
    assert_eq!(driver.function.config_read(cap + 16), 2);
    select(common::STATUS as u32, 1);
    driver.function.config_write(cap + 16, u32::MAX, 0x0303_0303);
    assert_eq!(driver.status(), 3);
    for (offset, length) in [(u32::MAX, 4), (0x4000, 1), (0x3fff, 2), (0, 3), (0, 0)] {
        select(offset, length);
        driver.function.config_write(cap + 16, u32::MAX, u32::MAX);
        assert_eq!(driver.function.config_read(cap + 16), 0, "{offset:#x}");
        driver.function.config_write(cap + 16, u32::MAX, 0);
    }
    assert_eq!(driver.status(), 3);
}

#[test]
fn state_is_restored_in_mid_use() {
    let (driver, _) = rig();
    driver.start(0);
    invert(&driver, 0);
    invert(&driver, 3);
    driver.function.pause();
    driver.submit(0, 0, &[(DATA, 1, false), (DATA, 1, true)]);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(driver.used_index(0), 2, "paused");
    let saved = driver.function.save();
    lodge_bus::ResetDevice::reset(&*driver.function);
    assert_ne!(driver.function.save(), saved);
    assert!(driver.mmio.layout().is_empty(), "a reset unmaps BARs");
    driver.function.restore(&saved).unwrap();
    assert_eq!(driver.function.save(), saved);
    assert_eq!(driver.mmio.layout()[0].0, BAR);
    driver.function.resume();
    assert_eq!(driver.complete(0), (0, 1), "what was rung for before is done after");
}

/// A function with a VGA as its other half, BARs mapped; they are told apart by what is there.
#[test]
fn a_vga_shares_the_function() {
    use lodge_bus::{FixedMemory, MemoryMapping, MmioBus, MockClock};
    use lodge_display::{VgaConfig, VgaWiring, VideoMemory};
    use lodge_engine_api::NOWHERE;
    use vm_memory::GuestAddress;

    const FRAME_BUFFER: u64 = 0xe000_0000;
    const MAIN: u64 = 0xe800_0000;
    const MSIX: u64 = 0xe810_0000;
    const ROM: u64 = 0xe820_0000;
    let regions = [(GuestAddress(0), 1 << 20), (GuestAddress(NOWHERE), 1 << 20)];
    let memory = GuestMemory::from_ranges(&regions).unwrap();
    let mmio = MmioBus::new();
    let video = VgaWiring {
        clock: Arc::new(MockClock::new()),
        mmio: mmio.clone(),
        memory: VideoMemory::new(memory.clone(), NOWHERE, 1 << 20).unwrap(),
        frame_buffer: MemoryMapping::new(Arc::new(FixedMemory), 1, 1 << 20, Vec::new()),
    };
    let (vga, parts) = Vga::half(VgaConfig { rom: vec![0x55; 4096] }, video);
    assert!(Device::pci(vga.clone()).is_none(), "it has no function of its own");
    let device = Arc::new(Inverter { active: Mutex::new(0), hold: Mutex::new(()) });
    let router = Router::new(Arc::new(crate::testing::Wire::default()));
    let msi = Arc::new(crate::testing::Messages::default());
    let wiring = VirtioWiring { memory, mmio: mmio.clone(), msi, router };
    let function = VirtioPci::with_vga(device, wiring, (vga.clone(), parts)).unwrap();

    assert_eq!(function.config_read(8), 0x0300_0001);
    let mut bars = function.bars();
    bars.sort_unstable();
    assert_eq!(bars, [(0x10, 1 << 20, false), (0x18, 0x4000, false), (0x20, 0x1000, false), (0x30, 4096, false)]);
    for (register, base) in [(0x10, FRAME_BUFFER), (0x18, MAIN), (0x20, MSIX), (0x30, ROM | 1)] {
        function.config_write(register, u32::MAX, base as u32);
    }
    function.config_write(4, 0xffff, 6);
    let read = |at: u64, bytes: usize| {
        let mut data = [0; 8];
        mmio.read(at, &mut data[..bytes]);
        u64::from_le_bytes(data)
    };
    let write = |at: u64, bytes: usize, value: u64| mmio.write(at, &value.to_le_bytes()[..bytes]);

    // Capabilities say where each part is: BAR, offset, length.
    let mut found = std::collections::BTreeMap::new();
    let mut at = function.config_read(0x34) as u8;
    while at != 0 {
        let head = function.config_read(at);
        if head as u8 == CAP_VENDOR {
            let place = (function.config_read(at + 4) as u8, function.config_read(at + 8));
            found.insert((head >> 24) as u8, place);
        } else {
            assert_eq!((function.config_read(at + 4), function.config_read(at + 8)), (4, 0x804));
        }
        at = (head >> 8) as u8;
    }
    let expected = [(1, (2, 0x1000)), (2, (2, 0x3000)), (3, (2, 0x1800)), (4, (2, 0x2000)), (5, (2, 0))];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(read(MAIN + 0x1000 + common::NUM_QUEUES, 2), 2);
    write(MAIN + 0x1000 + common::STATUS, 1, 3);
    assert_eq!((read(MAIN + 0x1000 + common::STATUS, 1), read(MAIN + 0x1038, 8)), (3, 0));
    assert_eq!((read(MAIN + 0x2008, 4), read(MAIN + 0x1800, 1)), (0x0808_0808, 0));
    // Bochs' registers, by words and eight bytes at a time; the order of bytes behind them.
    assert_eq!(read(MAIN + 0x500, 2), 0xb0c5);
    write(MAIN + 0x508, 2, 0);
    write(MAIN + 0x500, 8, 0x0020_0258_0320_b0c4);
    assert_eq!(read(MAIN + 0x500, 8), 0x0020_0258_0320_b0c4);
    write(MAIN + 0x604, 4, 0xbebe_bebe);
    assert_eq!(read(MAIN + 0x600, 8), 0xbebe_bebe_0000_0008);
    assert_eq!((read(ROM, 2), read(MSIX + 12, 4)), (0x5555, 1));
    // The same through configuration space.
    let cap = function.pci_cfg;
    for (register, value) in [(4, 2), (8, 0x502), (12, 2)] {
        function.config_write(cap + register, u32::MAX, value);
    }
    assert_eq!(function.config_read(cap + 16), 800);
    function.config_write(cap + 16, u32::MAX, 640);
    assert_eq!(read(MAIN + 0x502, 2), 640);
    // Each saves its own half.
    let (saved, half) = (function.save(), vga.save());
    lodge_bus::ResetDevice::reset(&*function);
    lodge_bus::ResetDevice::reset(&*vga);
    assert!(mmio.layout().is_empty());
    function.restore(&saved).unwrap();
    vga.restore(&half).unwrap();
    assert_eq!((function.save(), vga.save(), read(MAIN + 0x502, 2)), (saved, half, 640));
}

/// Firmware finds a card's ROM behind the register that it has in every function.
#[test]
fn a_rom_is_read_where_it_is_mapped() {
    use lodge_bus::MmioBus;

    const ROM: u64 = 0xe820_0000;
    let mmio = MmioBus::new();
    let device = Arc::new(Inverter { active: Mutex::new(0), hold: Mutex::new(()) });
    let router = Router::new(Arc::new(crate::testing::Wire::default()));
    let msi = Arc::new(crate::testing::Messages::default());
    let wiring = VirtioWiring { memory: crate::testing::Driver::memory(), mmio: mmio.clone(), msi, router };
    let rom: Vec<u8> = [0x55, 0xaa].into_iter().chain((0..5000).map(|n| n as u8)).collect();
    let function = VirtioPci::with_rom(device, wiring, rom.clone()).unwrap();
    assert!(function.bars().contains(&(0x30, 8192, false)));
    function.config_write(0x30, u32::MAX, ROM as u32 | 1);
    function.config_write(4, 0xffff, 2);
    let mut data = vec![0; 8192];
    data.chunks_exact_mut(4).zip(0..).for_each(|(piece, at)| mmio.read(ROM + 4 * at, piece));
    assert!(data.starts_with(&rom) && data[rom.len()..].iter().all(|byte| *byte == 0xff));
    // It can't be written.
    mmio.write(ROM, &[0; 4]);
    mmio.read(ROM, &mut data[..2]);
    assert_eq!(data[..2], [0x55, 0xaa]);
}
