//! A flash chip with Intel's command set, in which UEFI firmware keeps its variables.
//!
//! What the guest reads and runs is memory, as long as the chip is in the mode of reading its array; [`Flash`] gets the
//! writes, which are commands, and in other modes the reads. What is programmed goes to that memory and to a disk of the
//! host.
//!
//! ```text
//!             0x10 ──► Program ──byte──┐
//!             0x20 ──► Erase ──0xd0────┤
//!   Array ──► 0x60 ──► Lock ───any─────┼──► Status ──► any command
//!     ▲       0xe8 ──► count, bytes, 0xd0
//!     │       0x70, 0x90, 0x98 ──► Status, Identity, Query
//!     └── 0xff, 0x50
//! ```
//!
//! Neighbours: `vm` fills the memory and maps it; OVMF's driver for it is QemuFlashFvbServicesRuntimeDxe.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use lodge_backend::Disk;
use lodge_bus::{
    AccessError, Device, MemoryChange, MemoryControl, MmioDevice, MmioRange, MmioWidths, PauseDevice, Reach,
    ResetDevice, SaveDevice, StateError,
};
use lodge_engine_api::GuestMemory;
use parking_lot::Mutex;
use registers::*;
pub use state::{FlashState, Mode};
use vm_memory::{Bytes, GuestAddress};

/// A flash chip.
pub struct Flash {
    // configuration
    range: Range<u64>,
    // wiring
    memory: GuestMemory,
    map: Arc<dyn MemoryControl>,
    disk: Arc<dyn Disk>,
    // volatile
    state: Mutex<FlashState>,
}

impl Flash {
    /// A chip whose array is the memory in `range`, of whole blocks, which holds what `disk` does.
    pub fn new(range: Range<u64>, memory: GuestMemory, map: Arc<dyn MemoryControl>, disk: Arc<dyn Disk>) -> Arc<Self> {
        let flash = Self { range, memory, map, disk, state: Mutex::default() };
        flash.show(Mode::Array);
        Arc::new(flash)
    }

    /// Bytes of its array.
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Has reads reach what they shall in this mode.
    fn show(&self, mode: Mode) {
        let reach = if mode == Mode::Array { Reach::ReadOnly } else { Reach::Devices };
        self.map.change(MemoryChange::Reach { range: self.range.clone(), reach });
    }

    fn enter(&self, state: &mut FlashState, mode: Mode) {
        if (state.mode == Mode::Array) != (mode == Mode::Array) {
            self.show(mode);
        }
        state.mode = mode;
    }

    /// Bytes at an offset become these. As in QEMU's chip, bits can be set again without erasing the block.
    fn program(&self, offset: u64, bytes: &[u8]) -> Result<(), ()> {
        if offset + bytes.len() as u64 > self.size() || self.disk.is_read_only() {
            return Err(());
        }
        self.memory.write_slice(bytes, GuestAddress(self.range.start + offset)).map_err(drop)?;
        self.disk.write_at(offset, &[IoSlice::new(bytes)]).map_err(|error| {
            tracing::warn!("the firmware's variables can't be written: {error}");
        })
    }

    fn erase(&self, offset: u64) -> Result<(), ()> {
        self.program(offset / BLOCK * BLOCK, &[0xff; BLOCK as usize])
    }

    /// Ends an operation.
    fn finish(&self, state: &mut FlashState, result: Result<(), ()>, failed: u8) {
        state.status |= STATUS_READY | if result.is_err() { failed } else { 0 };
        state.buffer.clear();
        self.enter(state, Mode::Status);
    }

    fn command(&self, state: &mut FlashState, command: u8) {
        match command {
            _ if PROGRAM.contains(&command) => self.enter(state, Mode::Program),
            ERASE => self.enter(state, Mode::Erase),
            LOCK => self.enter(state, Mode::Lock),
            READ_STATUS => self.enter(state, Mode::Status),
            READ_ID => self.enter(state, Mode::Identity),
            QUERY => self.enter(state, Mode::Query),
            WRITE_BUFFER => {
                // Firmware reads that the buffer is free.
                state.status |= STATUS_READY;
                self.enter(state, Mode::BufferCount);
            }
            CLEAR_STATUS => {
                // QEMU's clears the ready bit as well, and OVMF knows a flash by that.
                state.status = 0;
                self.enter(state, Mode::Array);
            }
            _ => self.enter(state, Mode::Array),
        }
    }

    fn write(&self, state: &mut FlashState, offset: u64, value: u8) {
        const WRONG: u8 = STATUS_ERASE_FAILED | STATUS_PROGRAM_FAILED;
        match state.mode {
            Mode::Array | Mode::Status | Mode::Identity | Mode::Query => self.command(state, value),
            Mode::Program => {
                let result = self.program(offset, &[value]);
                self.finish(state, result, STATUS_PROGRAM_FAILED);
            }
            Mode::Erase if value == CONFIRM => {
                let result = self.erase(offset);
                self.finish(state, result, STATUS_ERASE_FAILED);
            }
            // Blocks are never locked.
            Mode::Lock => self.finish(state, Ok(()), 0),
            Mode::BufferCount if usize::from(value) < BUFFER => {
                state.buffer.clear();
                self.enter(state, Mode::BufferData(value + 1));
            }
            Mode::BufferData(left) => {
                state.buffer.push((offset as u32, value));
                let next = if left <= 1 { Mode::BufferConfirm } else { Mode::BufferData(left - 1) };
                self.enter(state, next);
            }
            Mode::BufferConfirm if value == CONFIRM => {
                let bytes = std::mem::take(&mut state.buffer);
                let result = bytes.iter().try_for_each(|(offset, byte)| self.program((*offset).into(), &[*byte]));
                self.finish(state, result, STATUS_PROGRAM_FAILED);
            }
            Mode::Erase | Mode::BufferCount | Mode::BufferConfirm => self.finish(state, Err(()), WRONG),
        }
    }

    fn read(&self, state: &FlashState, offset: u64) -> u8 {
        match state.mode {
            Mode::Identity => IDENTITY[(offset & 1) as usize],
            Mode::Query => {
                let table = query(self.size());
                let at = (offset & 0xff).checked_sub(0x10).map(|at| at as usize);
                at.and_then(|at| table.get(at).copied()).unwrap_or(0)
            }
            // The first reads after a change of modes may still come here.
            Mode::Array => self.memory.read_obj(GuestAddress(self.range.start + offset)).unwrap_or(0xff),
            _ => state.status,
        }
    }
}

impl Device for Flash {
    fn name(&self) -> &str {
        "flash"
    }
    fn mmio(self: Arc<Self>) -> Option<Arc<dyn MmioDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl MmioDevice for Flash {
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        let length = self.size();
        vec![MmioRange { base: self.range.start, length, region: 0, widths: MmioWidths { narrowest: 1, widest: 1 } }]
    }

    fn mmio_read(&self, _region: u8, offset: u64, _bytes: usize) -> Result<u64, AccessError> {
        Ok(self.read(&self.state.lock(), offset).into())
    }

    fn mmio_write(&self, _region: u8, offset: u64, _bytes: usize, value: u64) -> Result<(), AccessError> {
        self.write(&mut self.state.lock(), offset, value as u8);
        Ok(())
    }
}

impl ResetDevice for Flash {
    fn reset(&self) {
        let mut state = self.state.lock();
        *state = FlashState::default();
        self.show(state.mode);
    }
}

/// Variables are made durable when the machine rests or ends.
impl PauseDevice for Flash {
    fn pause(&self) {
        if let Err(error) = self.disk.flush() {
            tracing::warn!("the firmware's variables can't be made durable: {error}");
        }
    }

    fn resume(&self) {}
}

impl SaveDevice for Flash {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let mut restored: FlashState = StateError::read("flash", record)?;
        restored.buffer.truncate(BUFFER);
        let length = self.size();
        restored.buffer.retain(|(offset, _)| u64::from(*offset) < length);
        let mut state = self.state.lock();
        *state = restored;
        self.show(state.mode);
        Ok(())
    }
}
