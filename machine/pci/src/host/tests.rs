use super::*;
use crate::bridges::Bridge;
use crate::router::Router;

#[derive(Default)]
struct System(Mutex<u32>, Mutex<u32>);

impl SystemControl for System {
    fn power_off(&self) {}
    fn reset(&self) {
        *self.0.lock() += 1;
    }
    fn reset_processors(&self) {
        *self.1.lock() += 1;
    }
    fn suspend(&self) {}
    fn wake(&self) {}
    fn exit(&self, _status: u8) {}
}

struct Rig {
    system: Arc<System>,
    host: Arc<PciHost>,
    ports: PortBus,
}

fn rig() -> Rig {
    struct Nowhere;
    impl lodge_bus::IrqSink for Nowhere {
        fn set_level(&self, _: u32, _: bool) {}
    }
    let system = Arc::new(System::default());
    let host = PciHost::new(system.clone());
    let ports = PortBus::new();
    ports.attach(&host.clone().port().unwrap()).unwrap();
    host.add(Bridge::i440fx(Arc::new(lodge_bus::FixedMemory))).unwrap();
    host.add(Bridge::piix3(Router::new(Arc::new(Nowhere)))).unwrap();
    Rig { system, host, ports }
}

/// A function with one memory BAR of this size.
struct Function(Mutex<[u32; 64]>, u64);

impl Function {
    fn new(size: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new([0; 64]), size))
    }
}

impl PciFunction for Function {
    fn config_read(&self, offset: u8) -> u32 {
        if offset == 0x3c { self.0.lock()[15] | 0x100 } else { self.0.lock()[usize::from(offset / 4)] }
    }
    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        let word = &mut self.0.lock()[usize::from(offset / 4)];
        *word = *word & !mask | value & mask;
    }
    fn bars(&self) -> Vec<(u8, u64, bool)> {
        vec![(0x10, self.1, false)]
    }
}

#[test]
fn mechanism_1() {
    let rig = rig();
    let read = |address: u32, width, offset: u16| {
        rig.ports.write(0xcf8, Width::Dword, address);
        rig.ports.read(0xcfc + offset, width)
    };
    assert_eq!(read(0x8000_0000, Width::Dword, 0), 0x1237_8086);
    assert_eq!(rig.ports.read(0xcf8, Width::Dword), 0x8000_0000);
    assert_eq!(read(0x8000_0000, Width::Word, 2), 0x1237);
    assert_eq!(read(0x8000_0008, Width::Byte, 3), 0x06);
    assert_eq!(read(0x8000_0800, Width::Dword, 0), 0x7000_8086);
    assert_eq!(read(0x8000_1000, Width::Dword, 0), u32::MAX, "nobody at device 2");
    assert_eq!(read(0x8001_0000, Width::Dword, 0), u32::MAX, "nobody on bus 1");
    assert_eq!(read(0x0000_0000, Width::Dword, 0), u32::MAX, "not enabled");
    assert_eq!(rig.ports.read(0xcf8, Width::Word), 0xffff);
    rig.ports.write(0xcf8, Width::Dword, 0x8000_0860);
    rig.ports.write(0xcfd, Width::Word, 0x0b0a);
    assert_eq!(rig.ports.read(0xcfc, Width::Dword), 0x800b_0a80);
}

#[test]
fn reset_control_acts_on_a_rising_edge() {
    let rig = rig();
    rig.ports.write(0xcf9, Width::Byte, 0x02);
    assert_eq!(*rig.system.0.lock(), 0);
    rig.ports.write(0xcf9, Width::Byte, 0x06);
    rig.ports.write(0xcf9, Width::Byte, 0x06);
    assert_eq!(*rig.system.0.lock(), 1);
    rig.ports.write(0xcf8, Width::Dword, 0x8000_0600);
    assert_eq!(*rig.system.0.lock(), 1, "not by way of the address register");
}

#[test]
fn functions_get_places_addresses_and_interrupts() {
    let rig = rig();
    let (big, small) = (Function::new(0x10_0000), Function::new(0x80));
    assert_eq!(rig.host.add(small.clone()), Ok(PciAddress { device: 2, function: 0 }));
    assert_eq!(rig.host.add(big.clone()), Ok(PciAddress { device: 3, function: 0 }));
    let window = PciWindow { memory_base: 0xe000_0000, memory_end: 0xe020_0000, io_base: 0xc000 };
    rig.host.assign(window, 0x600, &rig.ports).unwrap();
    assert_eq!([small.config_read(0x10), big.config_read(0x10)], [0xe000_0000, 0xe010_0000]);
    assert_eq!([small.config_read(0x3c), big.config_read(0x3c)], [0x10a, 0x10b]);
    assert_eq!(big.config_read(4), 7);
    rig.host.add(Function::new(0x1000)).unwrap();
    assert_eq!(rig.host.assign(window, 0x600, &rig.ports), Err(PciError::Window { size: 0x1000 }));
}

#[test]
fn a_full_bus_refuses() {
    let rig = rig();
    for _ in 2..32 {
        rig.host.add(Function::new(16)).unwrap();
    }
    assert_eq!(rig.host.add(Function::new(16)), Err(PciError::Full));
    assert_eq!(
        rig.host.add(Bridge::i440fx(Arc::new(lodge_bus::FixedMemory))),
        Err(PciError::Taken { device: 0, function: 0 })
    );
}

#[test]
fn state_is_restored() {
    let rig = rig();
    rig.ports.write(0xcf8, Width::Dword, 0x8000_0860);
    let saved = rig.host.save();
    rig.host.reset();
    assert_ne!(rig.host.save(), saved);
    rig.host.restore(&saved).unwrap();
    assert_eq!(rig.host.save(), saved);
}
