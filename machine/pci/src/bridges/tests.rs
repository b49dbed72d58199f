use std::sync::Weak;

use lodge_bus::{AccessError, IrqSink, MemoryChange, PortBus, PortDevice, PortRange, Reach, Width};

use super::*;

#[derive(Default)]
struct Log(Mutex<Vec<(u32, bool)>>);

impl IrqSink for Log {
    fn set_level(&self, line: u32, high: bool) {
        self.0.lock().push((line, high));
    }
}

struct Block;

impl PortDevice for Block {
    fn port_read(&self, _: u8, _: u16, _: Width) -> Result<u32, AccessError> {
        Ok(0)
    }
    fn port_write(&self, _: u8, _: u16, _: Width, _: u32) -> Result<(), AccessError> {
        Ok(())
    }
}

#[test]
fn piix3_routes_interrupts() {
    let log = Arc::new(Log::default());
    let router = Router::new(log.clone());
    let piix3 = Bridge::piix3(router.clone());
    assert_eq!(piix3.config_read(PIRQ), 0x8080_8080);
    router.line(3, 0).set(true);
    piix3.config_write(PIRQ, 0x00ff_0000, 0x000b_0000);
    assert_eq!(*log.0.lock(), [(11, true)]);
    piix3.reset();
    assert_eq!(log.0.lock()[1..], [(11, false)]);
    assert_eq!(piix3.config_read(PIRQ), 0x8080_8080);
    assert_eq!(piix3.config_read(0x0c) >> 16, 0x80, "several functions");
}

#[test]
fn piix4_moves_the_power_management_block() {
    let ports = PortBus::new();
    let block = Arc::new(Block);
    let range = PortRange { base: 0, length: 0x40, region: 0, widths: Width::Dword };
    let pm = Bridge::piix4_pm(ports.mapping(Arc::downgrade(&block) as Weak<dyn PortDevice>, range));
    pm.config_write(PM_BASE, 0xffff, 0x0601);
    assert_eq!(ports.layout(), []);
    pm.config_write(PM_MISC, 0xff, 1);
    assert_eq!(ports.layout(), [(0x600, 0x63f)]);
    assert_eq!(pm.config_read(PM_BASE), 0x601);
    let saved = pm.save();
    pm.config_write(PM_BASE, 0xffff, 0xb000);
    assert_eq!(ports.layout(), [(0xb000, 0xb03f)]);
    pm.restore(&saved).unwrap();
    assert_eq!(pm.save(), saved);
    assert_eq!(ports.layout(), [(0x600, 0x63f)]);
    pm.reset();
    assert_eq!(ports.layout(), []);
}

#[test]
fn the_host_bridge_changes_memory_by_its_attribute_map() {
    #[derive(Default)]
    struct Changes(Mutex<Vec<MemoryChange>>);
    impl MemoryControl for Changes {
        fn change(&self, change: MemoryChange) {
            self.0.lock().push(change);
        }
    }
    let changes = Arc::new(Changes::default());
    let bridge = Bridge::i440fx(changes.clone());
    assert_eq!(bridge.config_read(0), 0x1237_8086);
    bridge.config_write(0x58, 0xff00, u32::MAX);
    assert_eq!(bridge.config_read(0x58), 0x3000);
    let shadow = |reach| MemoryChange::Reach { range: 0xf_0000..0x10_0000, reach };
    assert_eq!(changes.0.lock()[..], [shadow(Reach::Memory)]);
    bridge.config_write(0x58, u32::MAX, u32::MAX);
    assert_eq!(bridge.config_read(0x58), 0x3333_3000);
    assert_eq!(changes.0.lock().len(), 1 + 4);
    let saved = bridge.save();
    bridge.config_write(0x58, u32::MAX, 0);
    assert_eq!(changes.0.lock().len(), 2 * (1 + 4));
    assert_eq!(changes.0.lock().last(), Some(&shadow(Reach::ReadOnly)));
    bridge.restore(&saved).unwrap();
    assert_eq!(changes.0.lock().last(), Some(&shadow(Reach::Memory)));
    // Firmware has locked its shadow memory; where the machine wakes up, it wants to write there.
    bridge.config_write(0x58, 0xff00, 0x1000);
    assert_eq!(changes.0.lock().last(), Some(&shadow(Reach::ReadOnly)));
    bridge.config_write(0x04, 0xffff, 0x0103);
    bridge.clone().resettable().unwrap().reset();
    assert_eq!(changes.0.lock().last(), Some(&shadow(Reach::Memory)));
    assert_eq!((bridge.config_read(0x58), bridge.config_read(0x04) & 0xffff), (0x3333_3000, 0x0103));
}
