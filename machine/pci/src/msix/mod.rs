//! MSI-X: a table of messages with a mask each, and pending bits.
//!
//! [`Msix`] is plain data; the function that owns it locks it, forwards accesses to its table and pending array, and message
//! control from its capability.
//!
//! ```text
//!   signal --masked?--> pending bit --unmask--> message
//!          \--------------------------------^
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::MsiTarget;
use registers::*;
pub use state::{Entry, MsixState};

/// A function's MSI-X table and pending bits.
pub struct Msix {
    target: Arc<dyn MsiTarget>,
    state: MsixState,
}

impl Msix {
    /// A table of `vectors` entries (1 to 2048), all masked, whose messages go to `target`.
    pub fn new(vectors: u16, target: Arc<dyn MsiTarget>) -> Self {
        let vectors = usize::from(vectors.clamp(1, MOST));
        let mut msix = Self { target, state: MsixState::default() };
        msix.state.entries = vec![Entry { control: MASKED, ..Entry::default() }; vectors];
        msix.state.pending = vec![0; vectors.div_ceil(64)];
        msix
    }

    /// Entries.
    pub fn vectors(&self) -> u16 {
        self.state.entries.len() as u16
    }

    /// Whether the guest uses MSI-X.
    pub fn is_enabled(&self) -> bool {
        self.state.control & ENABLE != 0
    }

    /// Message control was written.
    pub fn set_control(&mut self, control: u16) {
        self.state.control = control & (ENABLE | MASK_ALL);
        for index in 0..self.state.entries.len() {
            self.release(index);
        }
    }

    fn is_masked(&self, index: usize) -> bool {
        self.state.control & MASK_ALL != 0 || self.state.entries[index].control & MASKED != 0
    }

    /// Sends a pending message if nothing masks it any more.
    fn release(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        if self.is_enabled() && self.state.pending[index / 64] & bit != 0 && !self.is_masked(index) {
            self.state.pending[index / 64] &= !bit;
            let entry = self.state.entries[index];
            self.target.signal(entry.address, entry.data);
        }
    }

    /// Raises a vector. Vectors beyond the table, and all while MSI-X is off, do nothing.
    pub fn signal(&mut self, vector: u16) {
        let index = usize::from(vector);
        if !self.is_enabled() || index >= self.state.entries.len() {
            return;
        }
        self.state.pending[index / 64] |= 1 << (index % 64);
        self.release(index);
    }

    /// Reads 4 or 8 bytes of the table.
    pub fn read_table(&self, offset: u64, bytes: usize) -> u64 {
        let Some(entry) = usize::try_from(offset / ENTRY).ok().and_then(|index| self.state.entries.get(index)) else {
            return 0;
        };
        let whole = u128::from(entry.address) | u128::from(entry.data) << 64 | u128::from(entry.control) << 96;
        let value = (whole >> (8 * (offset % ENTRY))) as u64;
        if bytes == 8 { value } else { value & 0xffff_ffff }
    }

    /// Writes 4 or 8 bytes of the table.
    pub fn write_table(&mut self, offset: u64, bytes: usize, value: u64) {
        if bytes == 8 {
            self.write_table(offset & !7, 4, value & 0xffff_ffff);
            self.write_table(offset & !7 | 4, 4, value >> 32);
            return;
        }
        let Ok(index) = usize::try_from(offset / ENTRY) else { return };
        let Some(entry) = self.state.entries.get_mut(index) else { return };
        let value = value as u32;
        match (offset % ENTRY) / 4 {
            0 => entry.address = entry.address & !0xffff_ffff | u64::from(value & !3),
            1 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
            2 => entry.data = value,
            _ => {
                entry.control = value & MASKED;
                self.release(index);
            }
        }
    }

    /// Reads 4 or 8 bytes of the pending array; it can't be written.
    pub fn read_pending(&self, offset: u64, bytes: usize) -> u64 {
        let word = usize::try_from(offset / 8).ok().and_then(|index| self.state.pending.get(index)).copied();
        let value = word.unwrap_or(0) >> (8 * (offset & 4));
        if bytes == 8 { value } else { value & 0xffff_ffff }
    }

    /// After power-on.
    pub fn reset(&mut self) {
        *self = Self::new(self.vectors(), self.target.clone());
    }

    /// Its saved state.
    pub fn state(&self) -> MsixState {
        self.state.clone()
    }

    /// Replaces its state; `false` (and nothing changed) if it is for another number of vectors.
    pub fn set_state(&mut self, state: MsixState) -> bool {
        let fits = state.entries.len() == self.state.entries.len() && state.pending.len() == self.state.pending.len();
        if fits {
            self.state = state;
        }
        fits
    }
}
