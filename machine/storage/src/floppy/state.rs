//! Saved state of the floppy controller.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::command;

/// What a command is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is being written.
    #[default]
    Command,
    /// The drive takes its time.
    Waiting,
    /// The guest reads data.
    Giving,
    /// The guest writes data.
    Taking,
    /// The guest reads the result.
    Result,
}

/// A drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveState {
    /// Where its head is.
    pub cylinder: u8,
    /// One more than the changes of the medium that the drive has seen; 0: none was seen yet.
    pub seen: u64,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FloppyState {
    /// Digital output.
    pub output: u8,
    /// Tape drive.
    pub tape: u8,
    /// Data rate.
    pub rate: u8,
    /// See [`Phase`].
    pub phase: Phase,
    /// The command's bytes, or the result's.
    pub bytes: Vec<u8>,
    /// Data that go by the data port, and how far.
    pub data: Vec<u8>,
    /// See `data`.
    pub at: usize,
    /// When the drive has had its time, in guest time.
    pub due: Option<u64>,
    /// How often DMA has been tried.
    pub tries: u16,
    /// Drives that seek.
    pub seeking: u8,
    /// Status 0 of seeks that have ended.
    pub sought: [Option<u8>; 4],
    /// Drives that have not been looked at since the reset.
    pub polled: u8,
    /// The drives.
    pub drives: [DriveState; 2],
    /// The sector that READ ID came by last.
    pub next_id: u8,
    /// SPECIFY.
    pub specified: [u8; 2],
    /// CONFIGURE.
    pub configured: [u8; 2],
    /// LOCK.
    pub locked: bool,
    /// PERPENDICULAR MODE.
    pub perpendicular: u8,
    /// The last sector of a track, as the last transfer had it.
    pub last_sector: u8,
}

impl Default for FloppyState {
    fn default() -> Self {
        Self {
            output: 0,
            tape: 0,
            rate: 2,
            phase: Phase::Command,
            bytes: Vec::new(),
            data: Vec::new(),
            at: 0,
            due: None,
            tries: 0,
            seeking: 0,
            sought: [None; 4],
            polled: 0,
            drives: [DriveState::new(); 2],
            next_id: 0,
            specified: [0; 2],
            configured: [0; 2],
            locked: false,
            perpendicular: 0,
            last_sector: 0,
        }
    }
}

impl FloppyState {
    /// The next command may come.
    pub(super) fn idle(&mut self) {
        self.phase = Phase::Command;
        self.bytes.clear();
    }

    /// The result is there.
    pub(super) fn result(&mut self, bytes: Vec<u8>) {
        if let Some(last) = self.bytes.get(6) {
            self.last_sector = *last;
        }
        self.phase = Phase::Result;
        self.bytes = bytes;
        self.data.clear();
        self.at = 0;
    }

    /// What a reset leaves.
    pub(super) fn reset(&mut self) {
        let before = std::mem::take(self);
        let configured = if before.locked { before.configured } else { [0; 2] };
        let Self { output, tape, rate, drives, specified, locked, .. } = before;
        *self = Self { output, tape, rate, drives, specified, configured, locked, ..Self::default() };
    }

    /// Whether a command that is under way has all of its bytes, as carrying it out relies on.
    pub(super) fn is_sound(&self) -> bool {
        let complete = self.bytes.first().is_some_and(|first| self.bytes.len() >= command::length(*first));
        match self.phase {
            Phase::Command | Phase::Result => true,
            Phase::Waiting => complete,
            Phase::Giving | Phase::Taking => complete && self.at < self.data.len(),
        }
    }
}

impl Saved for FloppyState {
    const KIND: &'static str = "floppy";
    const VERSION: u16 = 1;
}
