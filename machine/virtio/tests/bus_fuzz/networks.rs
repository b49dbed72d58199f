//! The network cards: each on a network that sends back, set up as drivers do, with frames that come and cables that are pulled.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use lodge_bus::{IrqLine, IrqSink, Width};
use lodge_net::{Accepts, Cable, CableConfig, Checksum, Frame, Listener, Network, Offload, Segmentation};
use lodge_nic::{CardConfig, E1000, IsaConfig, Ne2000, Rtl8139};
use lodge_pci::Router;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use super::{Machine, RAM, Random};

/// A network that sends back what it is sent, and has room for little.
#[derive(Default)]
pub struct Echo {
    frames: Mutex<VecDeque<Frame>>,
    listener: Mutex<Option<Weak<dyn Listener>>>,
    /// Frames that came from the card.
    pub sent: AtomicU64,
}

impl Echo {
    /// Takes a frame for the card, if there is room for it.
    fn put(&self, frame: Frame) -> bool {
        let mut frames = self.frames.lock();
        if frames.len() >= 16 {
            return false;
        }
        frames.push_back(frame);
        drop(frames);
        self.tell(|listener| listener.frames_wait());
        true
    }

    fn tell(&self, what: impl Fn(&dyn Listener)) {
        let listener = self.listener.lock().as_ref().and_then(Weak::upgrade);
        if let Some(listener) = listener {
            what(&*listener);
        }
    }
}

impl Network for Echo {
    fn connect(&self, listener: Weak<dyn Listener>) {
        *self.listener.lock() = Some(listener);
    }
    fn accepts(&self) -> Accepts {
        if self.sent.load(Ordering::Relaxed).is_multiple_of(2) { Accepts::ALL } else { Accepts::default() }
    }
    fn send(&self, frame: &Frame) -> bool {
        let taken = self.put(frame.clone());
        self.sent.fetch_add(taken.into(), Ordering::Relaxed);
        taken
    }
    fn receive(&self) -> Option<Frame> {
        let mut frames = self.frames.lock();
        let (before, frame) = (frames.len(), frames.pop_front());
        drop(frames);
        if before == 16 {
            self.tell(|listener| listener.room_to_send());
        }
        frame
    }
}

impl Machine {
    pub fn cable(&mut self, name: &str) -> Arc<Cable> {
        let echo = Arc::new(Echo::default());
        let cable = Cable::new(CableConfig { name: name.into(), ..CableConfig::default() }, echo.clone()).unwrap();
        self.networks.push((cable.clone(), echo));
        cable
    }

    /// One network card of each kind, each on a network of its own.
    pub fn attach_networks(&mut self, router: &Arc<Router>) {
        let wiring = lodge_nic::PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            ports: self.ports.clone(),
            router: router.clone(),
            timers: self.timers.clone(),
        };
        let config = |name: &str| CardConfig { name: name.into(), rom: vec![0x55; 4096] };
        let cable = self.cable("net0");
        self.attach(E1000::new(config("net0"), cable, wiring.clone()).unwrap());
        let cable = self.cable("net1");
        self.attach(Rtl8139::new(config("net1"), cable, wiring.clone()).unwrap());
        let cable = self.cable("net2");
        self.attach(Ne2000::pci(config("net2"), cable, wiring).unwrap());
        let cable = self.cable("net3");
        let config = IsaConfig { name: "net3".into(), base: IsaConfig::BASE };
        let line = IrqLine::new(self.irq.clone() as Arc<dyn IrqSink>, IsaConfig::INTERRUPT);
        self.attach(Ne2000::isa(config, cable, line).unwrap());
    }

    /// Where a PCI function is.
    fn device(&self, id: u32) -> u32 {
        let functions = self.pci.functions();
        functions.into_iter().find(|(_, function)| function.config_read(0) == id).unwrap().0.device.into()
    }

    /// Descriptors that may make sense, as the network cards have them: the second and third double word are random.
    fn put_descriptors(&self, random: &mut Random, ring: u64, words: impl Fn(&mut Random) -> [u32; 4]) {
        for index in 0..16 {
            let bytes: Vec<u8> = words(random).iter().flat_map(|word| word.to_le_bytes()).collect();
            self.memory.write_slice(&bytes, GuestAddress(ring + index * 16)).unwrap();
        }
    }

    /// Sets a network card up the way a driver does, with rings in RAM.
    pub fn start_network(&self, random: &mut Random) {
        let rings = 0x1000 * (1 + random.below(20));
        let sizes = [14, 60, 1514, 9000, 0xffff];
        match random.below(4) {
            0 => {
                let (device, base) = (self.device(0x100e_8086), 0xe080_0000u32);
                self.config_write(device, 0x10, base);
                self.config_write(device, 0x04, 7);
                let write = |at: u32, value: u32| self.mmio.write(u64::from(base + at), &value.to_le_bytes());
                self.put_descriptors(random, rings, |random| {
                    // End, check sequence, status, and any of the others; legacy, context or data.
                    let flags = 0x0b | random.next() as u32 & 0xe7;
                    let size = *random.pick(&sizes) | (random.below(2) as u32) << 20;
                    [random.below(RAM) as u32, 0, size | flags << 24, random.next() as u32]
                });
                self.put_descriptors(random, rings + 0x800, |random| [random.below(RAM) as u32, 0, 0, 0]);
                for (base, ring, tail) in [(0x2800, rings + 0x800, 15), (0x3800, rings, 1 + random.below(16))] {
                    let values = [(0, ring as u32), (4, 0), (8, 256), (0x10, 0), (0x18, tail as u32)];
                    values.into_iter().for_each(|(at, value)| write(base + at, value));
                }
                write(0x38, 0x8100);
                write(0x400, 0x0a);
                write(0x100, 0x0000_801a | random.next() as u32 & 0x0603_00e0);
                write(0x3818, random.below(17) as u32);
            }
            1 => {
                let (device, base) = (self.device(0x8139_10ec), 0xd000u16);
                self.config_write(device, 0x10, base.into());
                self.config_write(device, 0x04, 7);
                let write = |at: u16, width: Width, value: u32| self.ports.write(base + at, width, value);
                write(0x37, Width::Byte, 0x10);
                write(0xe0, Width::Word, random.below(128) as u32);
                self.put_descriptors(random, rings, |random| {
                    let flags = random.next() as u32 & 0x7fff_0000 | (random.below(8) as u32).min(1) << 31;
                    [flags | *random.pick(&sizes), random.next() as u32, random.below(RAM) as u32, 0]
                });
                self.put_descriptors(random, rings + 0x800, |random| {
                    [1 << 31 | random.below(2048) as u32, 0, random.below(RAM) as u32, 0]
                });
                for (at, value) in [(0x20, rings), (0x24, 0), (0x30, rings), (0xe4, rings + 0x800), (0xe8, 0)] {
                    write(at, Width::Dword, value as u32);
                }
                write(0x37, Width::Byte, 0x0c);
                write(0x44, Width::Dword, 0x0f | random.next() as u32 & 0x1880);
                write(0x10, Width::Dword, random.below(1800) as u32);
                write(0xd9, Width::Byte, 0x40);
            }
            kind => {
                let mut base = IsaConfig::BASE;
                if kind == 2 {
                    base = 0xd200;
                    self.config_write(self.device(0x8029_10ec), 0x10, base.into());
                    self.config_write(self.device(0x8029_10ec), 0x04, 7);
                }
                let write = |at: u16, value: u8| self.ports.write(base + at, Width::Byte, value.into());
                let values = [(0, 0x21), (0xe, 0x49), (1, 0x46), (2, 0x80), (3, 0x46), (0, 0x61), (7, 0x47), (0, 0x22)];
                values.into_iter().for_each(|(at, value)| write(at, value));
                for (at, value) in
                    [(0xc, 0x1c), (0xd, 0), (4, 0x40), (5, random.next() as u8), (6, random.below(6) as u8)]
                {
                    write(at, value);
                }
                write(0, 0x26);
            }
        }
    }

    /// A frame for a card, or its cable is plugged in or pulled.
    pub fn network_step(&self, random: &mut Random) {
        let (cable, echo) = random.pick(&self.networks);
        if random.below(8) == 0 {
            return cable.set_up(random.below(4) != 0);
        }
        let mut bytes = vec![random.next() as u8; 14 + random.below(1600) as usize];
        let destination = if random.below(2) == 0 { [0xff; 6] } else { cable.mac().0 };
        bytes[..6].copy_from_slice(&destination);
        let checksum = match random.below(3) {
            0 => Checksum::There,
            1 => Checksum::Good,
            _ => Checksum::Missing { start: random.below(64) as u16, offset: random.below(32) as u16 },
        };
        let segmentation =
            (random.below(4) == 0).then(|| Segmentation { size: random.value() as u16, congestion: false });
        echo.put(Frame { bytes, offload: Offload { checksum, segmentation } });
    }
}
