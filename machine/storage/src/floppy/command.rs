//! Commands that need no sectors: seeks, set-up, and questions (82077AA chapter 5).

use lodge_chipset::dma::Moved;

pub(super) use super::registers::command::*;
use super::registers::*;
use super::state::Seek;
use super::{FloppyState, Phase, Unit};

/// A step from one cylinder to the next, and what comes before data, in nanoseconds of guest time.
const STEP: u64 = 100_000;
/// See [`STEP`].
pub(super) const ACCESS: u64 = 500_000;

/// What VERIFY has in place of a transfer.
pub(super) const VERIFIED: Moved = Moved { bytes: 512, ended: false };

impl Unit {
    /// All bytes of a command are there.
    pub(super) fn begin(&self, state: &mut FloppyState) {
        self.interrupt(state, false);
        let first = state.bytes[0];
        if !is_known(first) {
            return state.result(vec![ST0_INVALID]);
        }
        let drive = state.drive();
        match first & COMMAND {
            SPECIFY => {
                state.specified = [state.bytes[1], state.bytes[2]];
                state.idle();
            }
            SENSE_DRIVE => {
                let head = state.bytes[1] & 4;
                let protected = self.medium(drive).is_some_and(|(disk, _)| disk.is_read_only());
                let track_0 = self.is_there(drive) && state.drives.get(drive).is_some_and(|drive| drive.cylinder == 0);
                let bit = |set: bool, bit: u8| if set { bit } else { 0 };
                let status = ST3_ONES | head | drive as u8 | bit(protected, ST3_PROTECTED) | bit(track_0, ST3_TRACK_0);
                state.result(vec![status]);
            }
            RECALIBRATE | SEEK => self.seek(state, drive),
            SENSE_INTERRUPT => self.sense_interrupt(state),
            VERSION => state.result(vec![0x90]),
            PERPENDICULAR => {
                state.perpendicular = state.bytes[1];
                state.idle();
            }
            CONFIGURE => {
                state.configured = [state.bytes[2], state.bytes[3]];
                state.idle();
            }
            LOCK => {
                state.locked = first & MULTI_TRACK != 0;
                let answer = if state.locked { 0x10 } else { 0 };
                state.result(vec![answer]);
            }
            DUMP => {
                let [first, second] = state.drives.map(|drive| drive.cylinder);
                let lock = if state.locked { 0x80 } else { 0 };
                let [s0, s1] = state.specified;
                let [c0, c1] = state.configured;
                let modes = lock | state.perpendicular & 0x7f;
                state.result(vec![first, second, 0, 0, s0, s1, state.last_sector, modes, c0, c1]);
            }
            _ => {
                state.phase = Phase::Waiting;
                state.tries = 0;
                state.data.clear();
                state.at = 0;
                state.last_sector = state.bytes.get(6).copied().unwrap_or(state.last_sector);
                self.after(state, ACCESS);
            }
        }
    }

    fn seek(&self, state: &mut FloppyState, drive: usize) {
        let from = state.drives.get(drive).map_or(0, |drive| drive.cylinder);
        let first = state.bytes[0];
        let recalibrates = first & COMMAND == RECALIBRATE;
        let target = match first & (MULTI_TRACK | MFM) {
            _ if recalibrates => 0,
            0 | MFM => state.bytes[2],
            MULTI_TRACK => from.saturating_sub(state.bytes[2]),
            _ => from.saturating_add(state.bytes[2]),
        };
        let head = if recalibrates { 0 } else { state.bytes[1] & 4 };
        let time = STEP * u64::from(from.abs_diff(target).max(1));
        let due = self.clock.now_ns().saturating_add(time);
        state.sought[drive] = None;
        state.seeks[drive] = Some(Seek { target, head, recalibrates, due });
        state.idle();
        self.timer.set(state.next_due());
    }

    /// Ends the seeks whose time is up.
    pub(super) fn end_seeks(&self, state: &mut FloppyState, now: u64) {
        for drive in 0..4 {
            let Some(seek) = state.seeks[drive].take_if(|seek| seek.due <= now) else { continue };
            let mut status = ST0_SEEK | drive as u8 | seek.head;
            if self.is_there(drive) {
                state.drives[drive].cylinder = seek.target;
                self.step(state, drive);
            } else if seek.recalibrates {
                status |= ST0_EQUIPMENT | ST0_ABNORMAL;
            }
            state.sought[drive] = Some(status);
            // While a result waits to be read its interrupt is up; this one comes then.
            if state.phase != Phase::Result {
                self.interrupt(state, true);
            }
        }
    }

    /// A step tells that there is a medium.
    pub(super) fn step(&self, state: &mut FloppyState, drive: usize) {
        if let Some(Some(tray)) = self.trays.get(drive)
            && tray.medium().is_some()
        {
            state.drives[drive].seen = tray.changes().saturating_add(1);
        }
    }

    fn sense_interrupt(&self, state: &mut FloppyState) {
        if let Some(number) = state.sought.iter().position(Option::is_some)
            && let Some(status) = state.sought[number].take()
        {
            let cylinder = state.drives.get(number).map_or(0, |drive| drive.cylinder);
            return state.result(vec![status, cylinder]);
        }
        if state.polled > 0 {
            let number = 4 - state.polled;
            state.polled -= 1;
            let cylinder = state.drives.get(usize::from(number)).map_or(0, |drive| drive.cylinder);
            return state.result(vec![ST0_POLLED | number, cylinder]);
        }
        state.result(vec![ST0_INVALID]);
    }
}
