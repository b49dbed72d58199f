//! Saved state of the floppy controller.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::{COMMAND, command};

/// Most bytes that one command moves by the data port: both sides of a cylinder with 39 sectors.
const MOST_DATA: usize = 2 * 39 * 512;

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

/// A seek that is under way. Commands for other drives may come meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seek {
    /// The cylinder where it ends.
    pub target: u8,
    /// The head that was selected, as status 0 has it.
    pub head: u8,
    /// It is a RECALIBRATE.
    pub recalibrates: bool,
    /// When it ends, in guest time.
    pub due: u64,
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
    /// When the drive has had its time for the command, in guest time.
    pub due: Option<u64>,
    /// How often DMA has been tried.
    pub tries: u16,
    /// What each drive seeks.
    pub seeks: [Option<Seek>; 4],
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
    /// The interrupt is raised.
    pub interrupt: bool,
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
            seeks: [None; 4],
            sought: [None; 4],
            polled: 0,
            drives: [DriveState::default(); 2],
            next_id: 0,
            specified: [0; 2],
            configured: [0; 2],
            locked: false,
            perpendicular: 0,
            last_sector: 0,
            interrupt: false,
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
        self.phase = Phase::Result;
        self.bytes = bytes;
        self.data.clear();
        self.at = 0;
    }

    /// What a reset leaves.
    pub(super) fn reset(&mut self) {
        let before = std::mem::take(self);
        let configured = if before.locked { before.configured } else { [0; 2] };
        // Of PERPENDICULAR MODE, the bits of drives stay (82077AA 6.6).
        let perpendicular = before.perpendicular & !3;
        let Self { output, tape, rate, drives, specified, locked, .. } = before;
        *self = Self { output, tape, rate, drives, specified, configured, locked, perpendicular, ..Self::default() };
    }

    /// The drive that the command's second byte names.
    pub(super) fn drive(&self) -> usize {
        usize::from(self.bytes.get(1).copied().unwrap_or(0) & 3)
    }

    /// When the next thing happens by itself.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.seeks.iter().flatten().map(|seek| seek.due).chain(self.due).min()
    }

    /// Whether a command that is under way has all of its bytes, as carrying it out relies on.
    pub(super) fn is_sound(&self) -> bool {
        let first = self.bytes.first().copied();
        let transfers =
            first.is_some_and(|first| command::is_transfer(first) && self.bytes.len() == command::length(first));
        let bounded = self.data.len() <= MOST_DATA && self.at <= self.data.len();
        bounded
            && self.polled <= 4
            && match self.phase {
                Phase::Command => first.is_none_or(|first| self.bytes.len() < command::length(first)),
                Phase::Result => (1..=10).contains(&self.bytes.len()),
                Phase::Waiting => transfers && self.due.is_some(),
                Phase::Giving | Phase::Taking => transfers && self.at < self.data.len(),
            }
    }

    /// The command without its options.
    pub(super) fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0) & COMMAND
    }
}

impl Saved for FloppyState {
    const KIND: &'static str = "floppy";
    const VERSION: u16 = 1;
}
