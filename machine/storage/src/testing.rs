//! What tests of several devices share.

use std::io::{IoSliceMut, Write};
use std::sync::Arc;

use lodge_backend::{Disk, RawDisk, Tray};
use lodge_bus::{IrqSink, MmioBus, MsiTarget, PciAddress, PciFunction};
use lodge_engine_api::GuestMemory;
use lodge_pci::Router;
pub(crate) use lodge_trial::{Random, steps, wait_for};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use crate::ahci::PciWiring;

/// A disk of so many bytes, each of whose sectors is told from others.
pub(crate) fn disk(bytes: usize, read_only: bool) -> Arc<dyn Disk> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..bytes).map(|n| (n / 512) as u8 ^ n as u8 ^ (n >> 17) as u8).collect();
    file.write_all(&content).unwrap();
    Arc::new(RawDisk::open(file.path(), read_only).unwrap())
}

/// The longest list of a TRIM, of 16 gigabytes from this sector on, in ranges of 65535 sectors.
pub(crate) fn trim_list(first: u64) -> Vec<u8> {
    (0..512u64).flat_map(|n| ((first + n * 0xffff) | (0xffff << 48)).to_le_bytes()).collect()
}

/// A tray with a medium of so many bytes.
pub(crate) fn tray(bytes: usize) -> Arc<Tray> {
    Tray::new(Some(disk(bytes, true)))
}

/// Bytes of a disk.
pub(crate) fn content(disk: &dyn Disk, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    disk.read_at(offset, &mut [IoSliceMut::new(&mut data)]).unwrap();
    data
}

#[derive(Default)]
pub(crate) struct Messages(pub Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Messages {
    fn signal(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

#[derive(Default)]
pub(crate) struct Wire(pub Mutex<bool>);

impl IrqSink for Wire {
    fn set_level(&self, _line: u32, high: bool) {
        *self.0.lock() = high;
    }
}

/// Where the BAR of the function under test is.
pub(crate) const BAR: u64 = 0xe000_0000;
pub(crate) const RAM: usize = 8 << 20;

/// A board for one PCI function with a BAR of memory.
pub(crate) struct Board {
    pub memory: GuestMemory,
    pub mmio: MmioBus,
    pub messages: Arc<Messages>,
    pub wire: Arc<Wire>,
    router: Arc<Router>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let wire = Arc::new(Wire::default());
        let router = Router::new(wire.clone());
        (0..4).for_each(|wire| router.set_route(wire, 11));
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        Self { memory, mmio: MmioBus::new(), messages: Arc::default(), wire, router }
    }

    pub(crate) fn wiring(&self) -> PciWiring {
        PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            msi: self.messages.clone(),
            router: self.router.clone(),
        }
    }

    /// Gives a function its place, and its BAR `register` an address.
    pub(crate) fn place(&self, function: &dyn PciFunction, register: u8) {
        function.placed(PciAddress { device: 3, function: 0 });
        function.config_write(register, u32::MAX, BAR as u32);
        function.config_write(0x04, 0xffff, 6);
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(BAR + offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        self.mmio.write(BAR + offset, &value.to_le_bytes());
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
