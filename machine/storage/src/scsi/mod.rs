//! SCSI commands of disks and CD drives, whatever carries them: ATAPI's packets, or virtio.
//!
//! [`Unit`] is a logical unit. [`Unit::command`] looks at a command and says by an [`Action`] what has to be done with data;
//! that is for the caller, who knows where data come from and on which thread to wait for the host. [`primary`] are the
//! commands that all units have (SPC-4, INCITS 513), [`block`] those of disks (SBC-3, INCITS 514), [`multimedia`] those of CD
//! drives (MMC-6, INCITS 468).

mod block;
mod multimedia;
mod primary;
pub mod registers;
mod sense;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::Arc;

use lodge_backend::{Disk, Tray, stretches};
use registers::code;
pub use sense::Sense;
use serde::{Deserialize, Serialize};

/// Bytes of the longest command.
const LONGEST: usize = 32;
/// Bytes that are filled at a time.
const PIECE: u64 = 128 << 10;

/// What a unit holds.
#[derive(Clone)]
pub enum Medium {
    /// A hard disk.
    Disk(Arc<dyn Disk>),
    /// A CD drive.
    Cd(Arc<Tray>),
}

/// What a unit remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// Why the last command failed, for those who ask.
    pub sense: Sense,
    /// What the next command will be told.
    pub attention: Option<Sense>,
    /// Changes of the medium that the guest knows of.
    pub seen: u64,
    /// Changes that it has been told of as events.
    pub announced: u64,
    /// Writes may be in a cache when they end.
    pub write_cache: bool,
    /// The medium is held.
    pub locked: bool,
}

impl Default for UnitState {
    fn default() -> Self {
        Self { sense: Sense::NONE, attention: None, seen: 0, announced: 0, write_cache: true, locked: false }
    }
}

/// What a command has to be done for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing more.
    Done,
    /// These bytes are for the guest.
    Give(Vec<u8>),
    /// So many bytes of the medium, from this one on, are for the guest.
    Read {
        /// The first byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The guest's data are for the medium.
    Write {
        /// The first byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// They are flushed at the end.
        durable: bool,
    },
    /// The guest's data, so many bytes, are for [`Unit::parameters`].
    Parameters(usize),
    /// What was written is to be made durable.
    Flush,
    /// These ranges (first byte, bytes) do not matter any more.
    Discard(Vec<(u64, u64)>),
    /// A block is to be repeated.
    Fill {
        /// The first byte.
        offset: u64,
        /// Bytes, a multiple of the block's.
        length: u64,
        /// The block.
        block: Vec<u8>,
        /// If it is zero, space may be freed.
        unmap: bool,
    },
}

impl Action {
    /// Does what moves no data of the guest's. May take its time, but ends soon once `current` says that nobody waits for it:
    /// whether it was done to the end. What was not can be begun anew.
    ///
    /// # Errors
    /// The host's answer.
    pub fn carry_out(&self, disk: &dyn Disk, current: &dyn Fn() -> bool) -> std::io::Result<bool> {
        match self {
            Self::Flush => disk.flush().map(|()| true),
            Self::Discard(ranges) => {
                for (offset, length) in ranges {
                    if !stretches(*offset, *length, current, |from, now| disk.discard(from, now))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Fill { offset, length, block, unmap } if block.iter().all(|byte| *byte == 0) => {
                stretches(*offset, *length, current, |from, now| disk.write_zeroes(from, now, *unmap))
            }
            Self::Fill { offset, length, block, .. } => {
                let copies = (PIECE.min(*length) as usize).div_ceil(block.len().max(1));
                let piece = block.repeat(copies);
                let mut done = 0;
                while done < *length && !piece.is_empty() {
                    if !current() {
                        return Ok(false);
                    }
                    let now = (piece.len() as u64).min(length - done);
                    disk.write_at(offset + done, &[IoSlice::new(&piece[..now as usize])])?;
                    done += now;
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }
}

/// A logical unit.
pub struct Unit {
    // configuration
    serial: String,
    /// Its commands come in packets.
    atapi: bool,
    // wiring
    medium: Medium,
    // volatile
    state: UnitState,
}

impl Unit {
    /// A unit with this serial number; `atapi`: its commands come in packets.
    pub fn new(medium: Medium, serial: &str, atapi: bool) -> Self {
        let mut unit = Self { serial: serial.to_owned(), atapi, medium, state: UnitState::default() };
        unit.state = unit.fresh();
        if let Medium::Cd(tray) = &unit.medium {
            // What a machine that was reset has locked is not locked any more.
            tray.lock(false);
        }
        unit
    }

    /// State after power-on: of changes before that nobody need be told.
    fn fresh(&self) -> UnitState {
        let changes = self.changes();
        UnitState { seen: changes, announced: changes, ..UnitState::default() }
    }

    fn changes(&self) -> u64 {
        match &self.medium {
            Medium::Disk(_) => 0,
            Medium::Cd(tray) => tray.changes(),
        }
    }

    /// What it holds.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The disk, or the medium in the tray.
    pub fn disk(&self) -> Option<Arc<dyn Disk>> {
        match &self.medium {
            Medium::Disk(disk) => Some(disk.clone()),
            Medium::Cd(tray) => tray.medium(),
        }
    }

    /// What it remembers.
    pub fn state(&self) -> &UnitState {
        &self.state
    }

    /// Replaces what it remembers.
    pub fn set_state(&mut self, state: UnitState) {
        if let Medium::Cd(tray) = &self.medium {
            tray.lock(state.locked);
        }
        self.state = state;
    }

    /// After power-on.
    pub fn reset(&mut self) {
        self.state = self.fresh();
        if let Medium::Cd(tray) = &self.medium {
            tray.lock(false);
        }
    }

    /// A reset that the guest is told of (SAM-5 6.3).
    pub fn reset_with_attention(&mut self) {
        self.reset();
        self.state.attention = Some(Sense::RESET);
    }

    /// A command failed: what REQUEST SENSE will tell.
    pub fn failed(&mut self, sense: Sense) {
        self.state.sense = sense;
    }

    /// Begins a command: what has to be done.
    ///
    /// # Errors
    /// It fails with this.
    pub fn command(&mut self, command: &[u8]) -> Result<Action, Sense> {
        let mut bytes = [0; LONGEST];
        let length = command.len().min(LONGEST);
        bytes[..length].copy_from_slice(&command[..length]);
        let changes = self.changes();
        if std::mem::replace(&mut self.state.seen, changes) != changes {
            self.state.attention = Some(Sense::CHANGED);
        }
        if bytes[0] == code::REQUEST_SENSE {
            return self.request_sense(&bytes);
        }
        let quiet = matches!(bytes[0], code::INQUIRY | code::REPORT_LUNS | code::GET_EVENT | code::GET_CONFIGURATION);
        if !quiet && let Some(attention) = self.state.attention.take() {
            return Err(attention);
        }
        self.state.sense = Sense::NONE;
        self.dispatch(&bytes)
    }

    fn request_sense(&mut self, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        let kept = std::mem::replace(&mut self.state.sense, Sense::NONE);
        // What a command has failed with comes first.
        let sense = if kept == Sense::NONE { self.state.attention.take().unwrap_or(Sense::NONE) } else { kept };
        Ok(give(sense.data(command[1] & 1 != 0), command[4].into()))
    }

    fn dispatch(&mut self, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        if let Some(result) = self.primary(command) {
            return result;
        }
        match self.medium.clone() {
            Medium::Disk(disk) => self.block(&*disk, command),
            Medium::Cd(tray) => self.multimedia(&tray, command),
        }
    }

    /// Goes on with a command whose parameters are there.
    ///
    /// # Errors
    /// It fails with this.
    pub fn parameters(&mut self, command: &[u8], data: &[u8]) -> Result<Action, Sense> {
        let mut bytes = [0; LONGEST];
        let length = command.len().min(LONGEST);
        bytes[..length].copy_from_slice(&command[..length]);
        match (&self.medium.clone(), bytes[0]) {
            (_, code::MODE_SELECT_6) => self.mode_select(bytes[1], data, false),
            (_, code::MODE_SELECT_10) => self.mode_select(bytes[1], data, true),
            (Medium::Disk(disk), code::UNMAP) => block::unmap(&**disk, data),
            (Medium::Disk(disk), code::WRITE_SAME_10 | code::WRITE_SAME_16) => block::write_same(&**disk, &bytes, data),
            _ => Err(Sense::UNKNOWN_COMMAND),
        }
    }
}

/// Bytes for the guest, who has room for so many.
fn give(mut bytes: Vec<u8>, room: usize) -> Action {
    bytes.truncate(room);
    if bytes.is_empty() { Action::Done } else { Action::Give(bytes) }
}

/// A number of two bytes.
fn word(command: &[u8], at: usize) -> usize {
    usize::from(command[at]) << 8 | usize::from(command[at + 1])
}

/// A number of four bytes.
fn long(command: &[u8], at: usize) -> u64 {
    (word(command, at) as u64) << 16 | word(command, at + 2) as u64
}

/// A number of eight bytes.
fn huge(command: &[u8], at: usize) -> u64 {
    long(command, at) << 32 | long(command, at + 4)
}
