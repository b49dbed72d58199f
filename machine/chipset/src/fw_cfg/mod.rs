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
/// Bytes that are copied at a time.
const PIECE: usize = 4096;

/// What firmware is told.
#[derive(Clone, Debug, Default)]
pub struct Items {
    plain: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
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
        self.plain.insert(key, bytes.to_vec());
    }

    /// Whether firmware waits for a key that opens its menu.
    pub fn boot_menu(&mut self, shown: bool) {
        self.set(KEY_BOOT_MENU, &u16::from(shown).to_le_bytes());
    }

    /// Sets a file. Names of more than 55 bytes are cut.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        let most = (0..NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        self.files.insert(name[..most].to_owned(), bytes);
    }

    /// All items by key, the list of files among them; files are numbered in the order of their names.
    fn numbered(self) -> BTreeMap<u16, Vec<u8>> {
        let Self { plain: mut items, files } = self;
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, bytes)) in (KEY_FIRST_FILE..KEY_WRITE).zip(files) {
            let start = directory.len();
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0, 0]);
            directory.extend(name.as_bytes());
            directory.resize(start + ENTRY, 0);
            items.insert(key, bytes);
        }
        items.insert(KEY_DIRECTORY, directory);
        items
    }
}

/// The device.
pub struct FwCfg {
    // configuration
    items: BTreeMap<u16, Vec<u8>>,
    // wiring
    memory: GuestMemory,
    // volatile
    state: Mutex<FwCfgState>,
}

impl FwCfg {
    /// The device with these items; requests are found in `memory`.
    pub fn new(items: Items, memory: GuestMemory) -> Arc<Self> {
        Arc::new(Self { items: items.numbered(), memory, state: Mutex::default() })
    }

    /// What is left of the selected item.
    fn rest(&self, state: &FwCfgState) -> &[u8] {
        let item = self.items.get(&state.key).map_or(&[][..], Vec::as_slice);
        item.get(state.offset as usize..).unwrap_or_default()
    }

    fn next_byte(&self) -> u8 {
        let mut state = self.state.lock();
        let byte = self.rest(&state).first().copied().unwrap_or(0);
        state.offset = state.offset.saturating_add(1);
        byte
    }

    /// Copies what is left of the selected item to `address`, and zeroes behind its end; whether all of that is memory.
    fn copy_out(&self, state: &FwCfgState, address: u64, length: u32) -> bool {
        let rest = self.rest(state);
        let length = length as usize;
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
    fn request(&self, state: &mut FwCfgState, address: u64) {
        let mut request = [0; REQUEST];
        if self.memory.read_slice(&mut request, GuestAddress(address)).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, a0, a1, a2, a3, a4, a5, a6, a7] = request;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let target = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        if control & CONTROL_SELECT != 0 {
            (state.key, state.offset) = ((control >> 16) as u16, 0);
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
            (REGION_PORTS, 0, Width::Word) => (state.key, state.offset) = (value as u16, 0),
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
        *self.state.lock() = FwCfgState::default();
    }
}

impl SaveDevice for FwCfg {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        *self.state.lock() = StateError::read("fw-cfg", record)?;
        Ok(())
    }
}
