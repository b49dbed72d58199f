//! ATA drives, whatever controller they are on: hard disks, and CD drives that take packets.
//!
//! A [`Unit`] is a drive with what it remembers. A controller gives it a [`Task`], as the guest has put it into registers or a
//! FIS, and does the [`Work`] that comes of it: moving data and waiting for the host are the controller's. [`disk`] and
//! [`packet`] are the commands, [`identify`] is what drives say of themselves.

pub(crate) mod disk;
pub(crate) mod identify;
pub(crate) mod packet;
pub mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use identify::Settings;
use lodge_backend::{Disk, SECTOR, Tray};
use registers::*;
use serde::{Deserialize, Serialize};

use crate::scsi;

/// A drive that a controller gets.
#[derive(Clone)]
pub enum Drive {
    /// A hard disk.
    Disk(Arc<dyn Disk>),
    /// A CD drive.
    Cd(Arc<Tray>),
}

/// A drive with what it remembers.
pub(crate) struct Unit {
    // configuration
    serial: String,
    /// It is a SATA drive.
    sata: bool,
    // wiring
    drive: Drive,
    // volatile
    pub state: UnitState,
    /// Of a CD drive, what packets are for.
    scsi: Option<scsi::Unit>,
}

/// What a drive remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// What it has been set to.
    pub settings: Settings,
    /// The packet's data go by DMA.
    pub dma: bool,
    /// Most bytes of a packet's data that go by ports at a time.
    pub limit: usize,
    /// What packets are for, of a CD drive.
    pub scsi: scsi::UnitState,
    /// The queued command that failed last (log 10h).
    pub queue_error: Option<QueueError>,
}

/// A queued command that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueError {
    /// Its tag; none if it was none of the queue's.
    pub tag: Option<u8>,
    /// Status.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// What it was.
    pub task: Task,
}

/// The registers that commands take and answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// Features.
    pub features: u16,
    /// Sector count.
    pub count: u16,
    /// Number of the sector, 48 bits; or cylinder and sector.
    pub lba: u64,
    /// Device.
    pub device: u8,
}

/// Where data for the guest are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// They are here.
    Bytes(Vec<u8>),
    /// The medium: so many bytes from this one on.
    Medium(u64, u64),
}

/// How data move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The guest reads or writes the data register, so many bytes between two interrupts.
    Ports(usize),
    /// The controller moves them.
    Dma,
}

/// What a command that has been begun still has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Give data to the guest.
    Give(Source, By),
    /// Take data for the medium.
    Take {
        /// The first byte.
        from: u64,
        /// Bytes that are left.
        left: u64,
        /// How they move.
        by: By,
        /// They are flushed at the end.
        durable: bool,
    },
    /// Take so many bytes with ranges that do not matter any more.
    Trim(usize),
    /// Take a packet.
    Packet,
    /// Make what was written durable.
    Flush,
}

impl Unit {
    /// A drive after power-on.
    pub fn new(drive: Drive, serial: &str, sata: bool) -> Self {
        let scsi = match &drive {
            Drive::Disk(_) => None,
            Drive::Cd(tray) => Some(scsi::Unit::new(scsi::Medium::Cd(tray.clone()), serial, true)),
        };
        Self { serial: serial.to_owned(), sata, drive, state: UnitState::default(), scsi }
    }

    /// Whether it takes packets.
    pub fn is_cd(&self) -> bool {
        self.scsi.is_some()
    }

    /// The disk, or the medium that is in the drive.
    pub fn medium(&self) -> Option<Arc<dyn Disk>> {
        match &self.drive {
            Drive::Disk(disk) => Some(disk.clone()),
            Drive::Cd(tray) => tray.medium(),
        }
    }

    /// Sectors of a disk.
    fn sectors(&self) -> u64 {
        match &self.drive {
            Drive::Disk(disk) => disk.size() / SECTOR,
            Drive::Cd(_) => 0,
        }
    }

    /// What registers hold after a reset (ATA/ATAPI-7 9.12).
    pub fn signature(&self) -> Task {
        Task { count: 1, lba: if self.is_cd() { 0xeb_1401 } else { 1 }, ..Task::default() }
    }

    /// The status after a reset: a packet drive is not ready before its first command.
    pub fn fresh_status(&self) -> u8 {
        if self.is_cd() { 0 } else { DRDY | DSC }
    }

    /// After power-on.
    pub fn power_on(&mut self) {
        self.state = UnitState::default();
        if let Some(scsi) = &mut self.scsi {
            scsi.reset();
        }
    }

    /// A reset by software, or of the link: what has been set by INITIALIZE DEVICE PARAMETERS stays.
    pub fn reset(&mut self) {
        let geometry = self.state.settings.geometry;
        self.state = UnitState { settings: Settings { geometry, ..Settings::default() }, ..UnitState::default() };
        if let Some(scsi) = &mut self.scsi {
            scsi.failed(scsi::Sense::NONE);
        }
    }

    /// What it remembers, to be saved.
    pub fn saved(&self) -> UnitState {
        let scsi = self.scsi.as_ref().map(|scsi| scsi.state().clone()).unwrap_or_default();
        UnitState { scsi, ..self.state.clone() }
    }

    /// Replaces what it remembers.
    pub fn restore(&mut self, state: UnitState) {
        if let Some(scsi) = &mut self.scsi {
            scsi.set_state(state.scsi.clone());
        }
        self.state = state;
    }

    /// Begins a command: what there is to do, nothing more, or the error register.
    pub fn command(&mut self, task: &mut Task, command: u8) -> Result<Option<Work>, u8> {
        if self.is_cd() { packet::command(self, task, command) } else { disk::command(self, task, command) }
    }

    /// A packet command failed: the error register (ATA/ATAPI-7 9.10).
    pub fn packet_failed(&mut self, sense: scsi::Sense) -> u8 {
        if let Some(scsi) = &mut self.scsi {
            scsi.failed(sense);
        }
        sense.key << 4 | if sense.is_illegal() { ABRT } else { 0 }
    }
}

impl UnitState {
    /// Whether a drive can be in this state.
    pub(crate) fn is_sound(&self) -> bool {
        self.settings.is_sound() && self.limit <= 0x1_0000
    }
}

impl Work {
    /// Whether the bytes that it is for are on a disk of this size, as they were when it began.
    pub(crate) fn is_sound(&self, size: u64) -> bool {
        let within = |from: u64, length: u64| from.checked_add(length).is_some_and(|end| end <= size);
        match self {
            Self::Give(Source::Medium(from, length), _) => within(*from, *length),
            Self::Take { from, left, by, .. } => within(*from, *left) && *by != By::Ports(0),
            Self::Trim(length) => *length <= usize::from(identify::TRIM_BLOCKS) * SECTOR as usize,
            Self::Give(Source::Bytes(_), _) | Self::Packet | Self::Flush => true,
        }
    }
}
