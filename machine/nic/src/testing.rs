//! What tests of several cards share: a board, a network that a test is the other end of, frames.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use lodge_bus::{Device, IrqSink, MmioBus, MockClock, PciAddress, PciFunction, PortBus, Timers, Width};
use lodge_engine_api::GuestMemory;
use lodge_net::segment::{TCP, UDP};
use lodge_net::{Accepts, Cable, CableConfig, Frame, Listener, MacAddress, Network, checksum};
use lodge_pci::Router;
pub(crate) use lodge_trial::{steps, wait_for};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use crate::wiring::{CardConfig, PciWiring};

/// The card's address.
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Where a function's memory and ports are.
pub(crate) const BAR: u64 = 0xe000_0000;
pub(crate) const PORTS: u16 = 0xc000;
pub(crate) const RAM: usize = 1 << 20;

#[derive(Default)]
struct Ends {
    listener: Option<Weak<dyn Listener>>,
    to_card: VecDeque<Frame>,
    sent: Vec<Frame>,
    full: bool,
    accepts: Accepts,
}

/// A network whose other end is the test.
#[derive(Default)]
pub(crate) struct Peer(Mutex<Ends>);

impl Network for Peer {
    fn connect(&self, listener: Weak<dyn Listener>) {
        self.0.lock().listener = Some(listener);
    }
    fn accepts(&self) -> Accepts {
        self.0.lock().accepts
    }
    fn send(&self, frame: &Frame) -> bool {
        let mut ends = self.0.lock();
        if !ends.full {
            ends.sent.push(frame.clone());
        }
        !ends.full
    }
    fn receive(&self) -> Option<Frame> {
        self.0.lock().to_card.pop_front()
    }
}

impl Peer {
    fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.0.lock().listener.as_ref().and_then(Weak::upgrade)
    }

    /// Gives the card a frame.
    pub(crate) fn deliver(&self, frame: Frame) {
        self.0.lock().to_card.push_back(frame);
        if let Some(listener) = self.listener() {
            listener.frames_wait();
        }
    }

    /// There is no room in it, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
        if let Some(listener) = self.listener().filter(|_| !full) {
            listener.room_to_send();
        }
    }

    pub(crate) fn set_accepts(&self, accepts: Accepts) {
        self.0.lock().accepts = accepts;
    }

    /// How many frames the card has not taken.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().to_card.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().sent.len()
    }

    /// Forgets what the card sent.
    pub(crate) fn clear(&self) {
        self.0.lock().sent.clear();
    }

    /// What the card sent, once there are so many.
    #[track_caller]
    pub(crate) fn sent(&self, count: usize) -> Vec<Frame> {
        wait_for("the frames", || self.count() >= count);
        let sent = std::mem::take(&mut self.0.lock().sent);
        assert_eq!(sent.len(), count);
        sent
    }
}

#[derive(Default)]
pub(crate) struct Wire(Mutex<bool>);

impl IrqSink for Wire {
    fn set_level(&self, _line: u32, high: bool) {
        *self.0.lock() = high;
    }
}

/// A board for one card.
pub(crate) struct Board {
    pub memory: GuestMemory,
    pub mmio: MmioBus,
    pub ports: PortBus,
    pub clock: Arc<MockClock>,
    pub timers: Timers,
    pub peer: Arc<Peer>,
    pub cable: Arc<Cable>,
    pub wire: Arc<Wire>,
    router: Arc<Router>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let wire = Arc::new(Wire::default());
        let router = Router::new(wire.clone());
        (0..4).for_each(|wire| router.set_route(wire, 11));
        let clock = Arc::new(MockClock::new());
        let peer = Arc::new(Peer::default());
        let config = CableConfig { name: "net0".into(), mac: Some(MacAddress(MAC)), ..CableConfig::default() };
        Self {
            memory: GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap(),
            mmio: MmioBus::new(),
            ports: PortBus::new(),
            timers: Timers::mock(clock.clone()),
            clock,
            cable: Cable::new(config, peer.clone()).unwrap(),
            peer,
            wire,
            router,
        }
    }

    pub(crate) fn config(&self) -> CardConfig {
        CardConfig { name: "net0".into(), rom: vec![0x55, 0xaa, 4] }
    }

    pub(crate) fn wiring(&self) -> PciWiring {
        PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            ports: self.ports.clone(),
            router: self.router.clone(),
            timers: self.timers.clone(),
        }
    }

    /// Gives a function its place and its BARs addresses, and makes it the bus's master.
    pub(crate) fn place(&self, function: &dyn PciFunction) {
        function.placed(PciAddress { device: 3, function: 0 });
        for (register, size, ports) in function.bars() {
            let base = match (register, ports) {
                (0x30, _) => (BAR + 0x10_0000) as u32 | 1,
                (_, true) => PORTS.into(),
                (_, false) => BAR as u32,
            };
            assert!(size.is_power_of_two());
            function.config_write(register, u32::MAX, base);
        }
        function.config_write(0x04, 0xffff, 7);
    }

    pub(crate) fn read(&self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(BAR + u64::from(offset), &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u32, value: u32) {
        self.mmio.write(BAR + u64::from(offset), &value.to_le_bytes());
    }

    pub(crate) fn port(&self, offset: u16, width: Width) -> u32 {
        self.ports.read(PORTS + offset, width)
    }

    pub(crate) fn set_port(&self, offset: u16, width: Width, value: u32) {
        self.ports.write(PORTS + offset, width, value);
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn interrupted(&self) -> bool {
        *self.wire.0.lock()
    }

    /// Guest time goes on.
    pub(crate) fn pass(&self, nanoseconds: u64) {
        self.timers.advance(&self.clock, nanoseconds);
    }
}

/// Saves a card, pauses around it.
pub(crate) fn save(card: &Arc<impl Device + 'static>) -> Vec<u8> {
    let device: Arc<dyn Device> = card.clone();
    let pause = device.clone().pausable().unwrap();
    pause.pause();
    let record = device.saved().unwrap().save();
    pause.resume();
    record
}

/// Loads a saved state.
pub(crate) fn restore(card: &Arc<impl Device + 'static>, record: &[u8]) -> Result<(), lodge_bus::StateError> {
    let device: Arc<dyn Device> = card.clone();
    device.saved().unwrap().restore(record)
}

/// A frame to an address, its bytes told from others'.
pub(crate) fn frame_to(destination: [u8; 6], length: usize) -> Vec<u8> {
    let mut bytes = destination.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    bytes.extend((bytes.len()..length).map(|at| (at * 7 + length) as u8));
    bytes
}

/// TCP or UDP over IPv4 to the card, with correct checksums.
pub(crate) fn packet(protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAC.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    let header = if protocol == TCP { 20 } else { 8 };
    let length = (20 + header + data.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15];
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = !checksum::fold(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut rest = if protocol == TCP {
        vec![0, 80, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]
    } else {
        assert_eq!(protocol, UDP);
        let [high, low] = ((8 + data.len()) as u16).to_be_bytes();
        vec![0, 53, 0x12, 0x34, high, low, 0, 0]
    };
    rest.extend(data);
    let pseudo = checksum::pseudo_header(&ip[12..16], &ip[16..20], protocol, rest.len());
    let value = checksum::finish(pseudo + checksum::sum(&rest));
    let at = if protocol == TCP { 16 } else { 6 };
    rest[at..at + 2].copy_from_slice(&value.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(rest);
    bytes
}
