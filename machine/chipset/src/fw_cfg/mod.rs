//! The firmware configuration device, by which SeaBIOS and OVMF learn of the machine (QEMU, docs/specs/fw_cfg).
//!
//! [`Items`] are bytes under a number; some are files with a name, of which [`KEY_DIRECTORY`] has a list. Firmware selects
//! one and reads it byte by byte, or has it copied to its memory by a request. None can be written.
//!
//! ```text
//!   selector <- key                 data -> next byte, 0 behind the last
//!   address <- request { control, length, address }: select? then read, or skip; control becomes 0, or says that it failed
//! ```
//!
//! Neighbours: `vm` fills in what the machine has; `lodge-boot` makes the tables that are handed over as files.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use lodge_bus::{AccessError, Device, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Width};
use lodge_engine_api::GuestMemory;
use parking_lot::Mutex;
use registers::*;
pub use state::FwCfgState;
use vm_memory::{Bytes, GuestAddress};

const REGION_PORTS: u8 = 0;
const REGION_DMA: u8 = 1;
/// Most bytes behind an item's end that a request may ask for.
const BEYOND: usize = 1 << 20;
/// Bytes that are copied at a time.
const PIECE: usize = 4096;

/// Makes an item's bytes, of which there are always as many.
type Maker = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

#[derive(Clone)]
enum Item {
    Bytes(Vec<u8>),
    /// Made anew whenever it is selected; so many bytes.
    Made(Maker, usize),
}

impl Item {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Made(_, length) => *length,
        }
    }
}

/// What firmware is told.
#[derive(Clone, Default)]
pub struct Items {
    plain: BTreeMap<u16, Item>,
    files: BTreeMap<String, Item>,
}

impl Items {
    /// What every machine has.
    pub fn new(vcpus: u32) -> Self {
        let mut items = Self::default();
        let count = vcpus.min(u32::from(u16::MAX)) as u16;
        items.set(KEY_SIGNATURE, b"QEMU");
        items.set(KEY_ID, &(ID_PORTS | ID_DMA).to_le_bytes());
        items.set(KEY_CPUS, &count.to_le_bytes());
        items.set(KEY_MAX_CPUS, &count.to_le_bytes());
        items
    }

    /// Sets an item that is known by number.
    pub fn set(&mut self, key: u16, bytes: &[u8]) {
        self.plain.insert(key, Item::Bytes(bytes.to_vec()));
    }

    /// Whether firmware waits for a key that opens its menu.
    pub fn boot_menu(&mut self, shown: bool) {
        self.set(KEY_BOOT_MENU, &u16::from(shown).to_le_bytes());
    }

    /// A Linux kernel that firmware is to start: its first sectors, the rest, its RAM disk (empty for none), and its command
    /// line with a zero behind it.
    pub fn kernel(&mut self, setup: &[u8], kernel: &[u8], initrd: &[u8], command_line: &[u8]) {
        for (size, key, bytes) in [
            (KEY_SETUP_SIZE, KEY_SETUP, setup),
            (KEY_KERNEL_SIZE, KEY_KERNEL, kernel),
            (KEY_INITRD_SIZE, KEY_INITRD, initrd),
            (KEY_COMMAND_LINE_SIZE, KEY_COMMAND_LINE, command_line),
        ] {
            self.set(size, &(bytes.len() as u32).to_le_bytes());
            self.set(key, bytes);
        }
    }

    /// Sets a file. Names of more than 55 bytes are cut.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.put(name, Item::Bytes(bytes));
    }

    /// Sets a file that is made anew whenever it is selected, because it tells what firmware itself changes. `make` gives
    /// as many bytes each time.
    pub fn made_file(&mut self, name: &str, make: impl Fn() -> Vec<u8> + Send + Sync + 'static) {
        let length = make().len();
        self.put(name, Item::Made(Arc::new(make), length));
    }

    fn put(&mut self, name: &str, item: Item) {
        let most = (0..NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        self.files.insert(name[..most].to_owned(), item);
    }

    /// All items by key, the list of files among them; files are numbered in the order of their names.
    fn numbered(self) -> BTreeMap<u16, Item> {
        let Self { plain: mut items, files } = self;
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, item)) in (KEY_FIRST_FILE..KEY_WRITE).zip(files) {
            let start = directory.len();
            directory.extend((item.length() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0, 0]);
            directory.extend(name.as_bytes());
            directory.resize(start + ENTRY, 0);
            items.insert(key, item);
        }
        items.insert(KEY_DIRECTORY, Item::Bytes(directory));
        items
    }
}

/// The device.
pub struct FwCfg {
    // configuration
    items: BTreeMap<u16, Item>,
    // wiring
    memory: GuestMemory,
    // volatile
    state: Mutex<Volatile>,
}

#[derive(Default)]
struct Volatile {
    saved: FwCfgState,
    /// The selected item, if it is one that is made.
    made: Vec<u8>,
}

impl std::ops::Deref for Volatile {
    type Target = FwCfgState;
    fn deref(&self) -> &FwCfgState {
        &self.saved
    }
}

impl std::ops::DerefMut for Volatile {
    fn deref_mut(&mut self) -> &mut FwCfgState {
        &mut self.saved
    }
}

impl FwCfg {
    /// The device with these items; requests are found in `memory`.
    pub fn new(items: Items, memory: GuestMemory) -> Arc<Self> {
        Arc::new(Self { items: items.numbered(), memory, state: Mutex::default() })
    }

    /// What is left of the selected item.
    fn rest<'a>(&'a self, state: &'a Volatile) -> &'a [u8] {
        let item = match self.items.get(&state.key) {
            Some(Item::Bytes(bytes)) => bytes,
            Some(Item::Made(..)) => &state.made,
            None => return &[],
        };
        item.get(state.offset as usize..).unwrap_or_default()
    }

    fn select(&self, state: &mut Volatile, key: u16) {
        (state.key, state.offset) = (key, 0);
        self.make(state);
    }

    /// Makes the selected item if it is one that is made.
    fn make(&self, state: &mut Volatile) {
        state.made = match self.items.get(&state.key) {
            Some(Item::Made(make, length)) => {
                let mut bytes = make();
                bytes.resize(*length, 0);
                bytes
            }
            _ => Vec::new(),
        };
    }

    fn next_byte(&self) -> u8 {
        let mut state = self.state.lock();
        let byte = self.rest(&state).first().copied().unwrap_or(0);
        state.offset = state.offset.saturating_add(1);
        byte
    }

    /// Copies what is left of the selected item to `address`, and zeroes behind its end; whether all of that is memory.
    fn copy_out(&self, state: &Volatile, address: u64, length: u32) -> bool {
        let rest = self.rest(state);
        let length = length as usize;
        // Nobody reads far beyond the end, and zeroing a large memory would take long.
        if length > rest.len() + BEYOND {
            return false;
        }
        let mut done = 0;
        while done < length {
            let mut piece = [0; PIECE];
            let count = PIECE.min(length - done);
            let have = rest.get(done..).unwrap_or_default();
            let have = &have[..have.len().min(count)];
            piece[..have.len()].copy_from_slice(have);
            let Some(to) = address.checked_add(done as u64) else { return false };
            if self.memory.write_slice(&piece[..count], GuestAddress(to)).is_err() {
                return false;
            }
            done += count;
        }
        true
    }

    /// Carries out the request at `address`.
    fn request(&self, state: &mut Volatile, address: u64) {
        let mut request = [0; REQUEST];
        if self.memory.read_slice(&mut request, GuestAddress(address)).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, a0, a1, a2, a3, a4, a5, a6, a7] = request;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let target = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        if control & CONTROL_SELECT != 0 {
            self.select(state, (control >> 16) as u16);
        }
        let done = if control & CONTROL_READ != 0 {
            self.copy_out(state, target, length)
        } else {
            // Nothing can be written.
            control & CONTROL_WRITE == 0 || length == 0
        };
        if done && control & (CONTROL_READ | CONTROL_SKIP) != 0 {
            state.offset = state.offset.saturating_add(length);
        }
        let answer = if done { 0 } else { CONTROL_ERROR };
        // It could be read, so it can be written.
        let _ = self.memory.write_slice(&answer.to_be_bytes(), GuestAddress(address));
    }
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        "fw-cfg"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for FwCfg {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![
            PortRange { base: SELECTOR, length: 2, region: REGION_PORTS, widths: Width::Word },
            PortRange { base: DMA, length: 8, region: REGION_DMA, widths: Width::Dword },
        ]
    }

    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        match (region, offset, width) {
            (REGION_PORTS, DATA_OFFSET, Width::Byte) => Ok(self.next_byte().into()),
            (REGION_DMA, ..) => {
                let signature = DMA_SIGNATURE.iter().skip(offset.into()).take(4);
                Ok(signature.rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
            }
            _ => Err(AccessError::Nobody),
        }
    }

    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        match (region, offset, width) {
            (REGION_PORTS, 0, Width::Word) => self.select(&mut state, value as u16),
            (REGION_DMA, 0, Width::Dword) => state.dma_high = value.swap_bytes(),
            (REGION_DMA, DMA_LOW_OFFSET, Width::Dword) => {
                let high = std::mem::take(&mut state.dma_high);
                self.request(&mut state, u64::from(high) << 32 | u64::from(value.swap_bytes()));
            }
            _ => return Err(AccessError::Nobody),
        }
        Ok(())
    }
}

impl ResetDevice for FwCfg {
    fn reset(&self) {
        *self.state.lock() = Volatile::default();
    }
}

impl SaveDevice for FwCfg {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.state.lock().saved)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let mut restored = Volatile { saved: StateError::read("fw-cfg", record)?, made: Vec::new() };
        self.make(&mut restored);
        *self.state.lock() = restored;
        Ok(())
    }
}
