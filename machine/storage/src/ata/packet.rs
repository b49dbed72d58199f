//! Commands of drives that take packets (ATA/ATAPI-7 volume 1, 6.24).

use super::identify;
use super::registers::{ABRT, REASON_COMMAND, command as c};
use super::{By, Source, Task, Unit, Work, disk};
use crate::scsi::{Action, Sense};

/// Bytes of a packet.
pub(crate) const PACKET: usize = 12;

/// Begins a command: what there is to do, nothing more, or the error register.
pub(super) fn command(unit: &mut Unit, task: &mut Task, command: u8) -> Result<Option<Work>, u8> {
    match command {
        c::PACKET => {
            let limit = (task.lba >> 8 & 0xffff) as usize;
            task.count = REASON_COMMAND.into();
            unit.state.dma = task.features & 1 != 0;
            // An even number, as all pieces but the last are.
            unit.state.limit = if limit < 2 { 0xfffe } else { limit & !1 };
            Ok(Some(Work::Packet))
        }
        c::IDENTIFY_PACKET => {
            let bytes = identify::cd(&unit.serial, &unit.state.settings, unit.sata);
            Ok(Some(Work::Give(Source::Bytes(bytes), By::Ports(512))))
        }
        // It tells what it is, and refuses.
        c::IDENTIFY | c::READ_SECTORS | c::READ_SECTORS_ONCE => {
            *task = Task { features: task.features, device: task.device, ..unit.signature() };
            Err(ABRT)
        }
        c::DIAGNOSE => {
            *task = Task { features: task.features, ..unit.signature() };
            Ok(None)
        }
        c::SET_FEATURES => disk::set_features(unit, task),
        c::CHECK_POWER => {
            task.count = 0xff;
            Ok(None)
        }
        c::STANDBY | c::STANDBY_IMMEDIATE | c::IDLE | c::IDLE_IMMEDIATE | c::SLEEP | c::FLUSH => Ok(None),
        _ => Err(ABRT),
    }
}

impl Unit {
    /// A packet has come: what there is to do, or nothing more.
    pub fn packet(&mut self, packet: &[u8]) -> Result<Option<Work>, Sense> {
        let by = if self.state.dma { By::Dma } else { By::Ports(self.state.limit) };
        let scsi = self.scsi.as_mut().ok_or(Sense::UNKNOWN_COMMAND)?;
        match scsi.command(packet)? {
            Action::Give(bytes) => Ok(Some(Work::Give(Source::Bytes(bytes), by))),
            Action::Read { offset, length } => Ok(Some(Work::Give(Source::Medium(offset, length), by))),
            Action::Done => Ok(None),
            // CD drives do not write.
            _ => Err(Sense::UNKNOWN_COMMAND),
        }
    }
}
