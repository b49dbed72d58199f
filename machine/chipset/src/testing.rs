//! What the devices' tests share: a mock clock with timers, a bus, and a recorder of interrupt edges.

use std::sync::Arc;

use lodge_bus::{
    AddressLine20, Device, FixedMemory, IrqLine, IrqSink, MmioBus, MockClock, PortBus, SystemControl, Timers, Width,
};
use parking_lot::Mutex;

/// Counts rising edges and keeps levels, by line.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<[(bool, u32); 32]>,
}

impl IrqSink for Lines {
    fn set_level(&self, line: u32, high: bool) {
        let mut state = self.state.lock();
        let (level, edges) = &mut state[line as usize];
        *edges += u32::from(high && !*level);
        *level = high;
    }
}

/// Records what devices ask of the machine.
#[derive(Default)]
pub(crate) struct System(pub(crate) Mutex<Vec<String>>);

impl SystemControl for System {
    fn power_off(&self) {
        self.0.lock().push("power off".into());
    }
    fn reset(&self) {
        self.0.lock().push("reset".into());
    }
    fn reset_processors(&self) {
        self.0.lock().push("reset processors".into());
    }
    fn suspend(&self) {
        self.0.lock().push("suspend".into());
    }
    fn wake(&self) {
        self.0.lock().push("wake".into());
    }
    fn exit(&self, status: u8) {
        self.0.lock().push(format!("exit {status}"));
    }
}

/// A board without devices.
pub(crate) struct Board {
    pub(crate) clock: Arc<MockClock>,
    pub(crate) timers: Timers,
    pub(crate) lines: Arc<Lines>,
    pub(crate) system: Arc<System>,
    pub(crate) ports: PortBus,
    pub(crate) mmio: MmioBus,
    pub(crate) line_20: Arc<AddressLine20>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(MockClock::new());
        Self {
            timers: Timers::mock(clock.clone()),
            clock,
            lines: Arc::default(),
            system: Arc::default(),
            ports: PortBus::new(),
            mmio: MmioBus::new(),
            line_20: AddressLine20::new(Arc::new(FixedMemory)),
        }
    }
    pub(crate) fn line(&self, line: u32) -> IrqLine {
        IrqLine::new(self.lines.clone(), line)
    }
    pub(crate) fn attach(&self, device: Arc<impl Device + 'static>) {
        let device: Arc<dyn Device> = device;
        if let Some(port) = device.clone().port() {
            self.ports.attach(&port).unwrap();
        }
        if let Some(mmio) = device.mmio() {
            self.mmio.attach(&mmio).unwrap();
        }
    }
    pub(crate) fn outb(&self, port: u16, value: u8) {
        self.ports.write(port, Width::Byte, value.into());
    }
    pub(crate) fn inb(&self, port: u16) -> u8 {
        self.ports.read(port, Width::Byte) as u8
    }
    pub(crate) fn advance(&self, ns: u64) {
        self.timers.advance(&self.clock, ns);
    }
    /// Rising edges of a line so far.
    pub(crate) fn edges(&self, line: u32) -> u32 {
        self.lines.state.lock()[line as usize].1
    }
    pub(crate) fn level(&self, line: u32) -> bool {
        self.lines.state.lock()[line as usize].0
    }
}
