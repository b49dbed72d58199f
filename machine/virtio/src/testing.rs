//! A driver for the tests: it sets a device up through its registers and rings, as a guest would.

use std::sync::Arc;

use lodge_bus::{IrqSink, MmioBus, MsiTarget, PciAddress, PciFunction};
use lodge_engine_api::GuestMemory;
use lodge_pci::Router;
pub(crate) use lodge_trial::wait_for;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use crate::device::{VirtioDevice, feature};
use crate::transport::registers::{DEVICE_OFFSET, Layout, NOTIFY_OFFSET, common};
use crate::transport::{VirtioPci, VirtioWiring};

pub(crate) const BAR: u64 = 0xe000_0000;
pub(crate) const MSIX_BAR: u64 = 0xe010_0000;
pub(crate) const DATA: u64 = 0x10_0000;
const RINGS: u64 = 0x1000;
const SIZE: u16 = 16;

#[derive(Default)]
pub(crate) struct Messages(pub(crate) Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Messages {
    fn signal(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

#[derive(Default)]
pub(crate) struct Wire(pub(crate) Mutex<bool>);

impl IrqSink for Wire {
    fn set_level(&self, _line: u32, high: bool) {
        *self.0.lock() = high;
    }
}

/// A buffer of a request: address, length, whether the device writes it.
pub(crate) type Part = (u64, u32, bool);

pub(crate) struct Driver {
    pub(crate) memory: GuestMemory,
    pub(crate) mmio: MmioBus,
    pub(crate) messages: Arc<Messages>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) function: Arc<VirtioPci>,
    available: Mutex<Vec<u16>>,
    used: Mutex<Vec<u16>>,
}

impl Driver {
    /// A function with its BARs mapped, before the driver touches it.
    pub(crate) fn new(device: Arc<dyn VirtioDevice>) -> Self {
        Self::over(Self::memory(), device)
    }

    /// Guest RAM as drivers have it here.
    pub(crate) fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    /// The same for a device that has this memory already.
    pub(crate) fn over(memory: GuestMemory, device: Arc<dyn VirtioDevice>) -> Self {
        let mmio = MmioBus::new();
        let messages = Arc::new(Messages::default());
        let wire = Arc::new(Wire::default());
        let router = Router::new(wire.clone());
        (0..4).for_each(|wire| router.set_route(wire, 11));
        let queues = device.queue_sizes().len();
        let wiring = VirtioWiring { memory: memory.clone(), mmio: mmio.clone(), msi: messages.clone(), router };
        let function = VirtioPci::new(device, wiring).unwrap();
        function.placed(PciAddress { device: 2, function: 0 });
        function.config_write(0x14, u32::MAX, MSIX_BAR as u32);
        function.config_write(0x20, u32::MAX, BAR as u32);
        function.config_write(0x04, 0xffff, 6);
        let counters = || Mutex::new(vec![0; queues]);
        Self { memory, mmio, messages, wire, function, available: counters(), used: counters() }
    }

    pub(crate) fn read(&self, offset: u64, bytes: usize) -> u64 {
        let mut data = [0; 8];
        self.mmio.read(BAR + offset, &mut data[..bytes]);
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u64, bytes: usize, value: u64) {
        self.mmio.write(BAR + offset, &value.to_le_bytes()[..bytes]);
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(common::STATUS, 1) as u8
    }

    pub(crate) fn config(&self, offset: u64, bytes: usize) -> u64 {
        self.read(DEVICE_OFFSET + offset, bytes)
    }

    pub(crate) fn isr(&self) -> u8 {
        self.read(Layout::PLAIN.isr, 1) as u8
    }

    /// The device's features.
    pub(crate) fn offered(&self) -> u64 {
        self.write(common::DEVICE_FEATURE_SELECT, 4, 0);
        let low = self.read(common::DEVICE_FEATURE, 4);
        self.write(common::DEVICE_FEATURE_SELECT, 4, 1);
        low | self.read(common::DEVICE_FEATURE, 4) << 32
    }

    fn rings(queue: u16) -> [u64; 3] {
        let base = RINGS + u64::from(queue) * 0x3000;
        [base, base + 0x1000, base + 0x2000]
    }

    /// Agrees on features and enables all queues.
    pub(crate) fn start(&self, features: u64) {
        self.write(common::STATUS, 1, 0);
        wait_for("the reset", || self.status() == 0);
        self.write(common::STATUS, 1, 3);
        for half in [0, 1] {
            self.write(common::DRIVER_FEATURE_SELECT, 4, half);
            self.write(common::DRIVER_FEATURE, 4, (features | feature::VERSION_1) >> (32 * half) & 0xffff_ffff);
        }
        self.write(common::STATUS, 1, 11);
        assert_eq!(self.status(), 11, "features are agreed on");
        for queue in 0..self.available.lock().len() as u16 {
            let [descriptors, available, used] = Self::rings(queue);
            for address in [descriptors, available, used] {
                self.memory.write_slice(&[0; 0x1000], GuestAddress(address)).unwrap();
            }
            self.write(common::QUEUE_SELECT, 2, queue.into());
            self.write(common::QUEUE_SIZE, 2, SIZE.into());
            self.write(common::QUEUE_DESC, 4, descriptors);
            self.write(common::QUEUE_DRIVER, 8, available);
            self.write(common::QUEUE_DEVICE, 4, used);
            self.write(common::QUEUE_ENABLE, 2, 1);
        }
        self.available.lock().fill(0);
        self.used.lock().fill(0);
        self.write(common::STATUS, 1, 15);
    }

    /// Writes a descriptor.
    pub(crate) fn descriptor(&self, queue: u16, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = Self::rings(queue)[0] + u64::from(index) * 16;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes the chain at descriptor `head` available.
    pub(crate) fn offer(&self, queue: u16, head: u16) {
        let ring = Self::rings(queue)[1];
        let mut available = self.available.lock();
        let counter = &mut available[usize::from(queue)];
        let slot = ring + 4 + u64::from(*counter % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        *counter = counter.wrapping_add(1);
        self.memory.write_obj(*counter, GuestAddress(ring + 2)).unwrap();
    }

    /// The driver wants to hear when the used ring goes beyond `index`.
    pub(crate) fn wants_to_hear_of(&self, queue: u16, index: u16) {
        let at = Self::rings(queue)[1] + 4 + 2 * u64::from(SIZE);
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    pub(crate) fn ring(&self, queue: u16) {
        self.write(NOTIFY_OFFSET + u64::from(queue) * 4, 2, queue.into());
    }

    /// Puts a request at descriptors from `first` on and rings.
    pub(crate) fn submit(&self, queue: u16, first: u16, parts: &[Part]) {
        for (index, (address, length, writable)) in parts.iter().enumerate() {
            let more = index + 1 < parts.len();
            let flags = u16::from(more) | u16::from(*writable) << 1;
            let at = first + index as u16;
            self.descriptor(queue, at, *address, *length, flags, at + 1);
        }
        self.offer(queue, first);
        self.ring(queue);
    }

    /// The used index.
    pub(crate) fn used_index(&self, queue: u16) -> u16 {
        self.memory.read_obj(GuestAddress(Self::rings(queue)[2] + 2)).unwrap()
    }

    /// Waits for the next used request: its head and length.
    pub(crate) fn complete(&self, queue: u16) -> (u32, u32) {
        let mut used = self.used.lock();
        let counter = &mut used[usize::from(queue)];
        wait_for("the request", || self.used_index(queue) != *counter);
        let at = Self::rings(queue)[2] + 4 + u64::from(*counter % SIZE) * 8;
        *counter = counter.wrapping_add(1);
        let read = |at| self.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        (read(at), read(at + 4))
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}
