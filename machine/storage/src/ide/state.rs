//! Saved state of the IDE function, of a machine that is paused: the threads are at rest, and what commands are under way waits
//! for the guest.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

pub use super::channel::Registers;
use super::channel::{Channel, State};
use super::master::Master;
use crate::ata::{By, Unit, UnitState, Work};

/// Most bytes that wait in the data register.
const MOST_DATA: usize = crate::transfer::PIECE as usize;

/// The function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdeState {
    /// Its configuration space.
    pub config: ConfigState,
    /// Its channels.
    pub channels: [ChannelState; 2],
}

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelState {
    /// The bus master.
    pub master: Master,
    /// Registers of each drive.
    pub registers: [Registers; 2],
    /// Device.
    pub device: u8,
    /// Device control.
    pub control: u8,
    /// What each drive remembers.
    pub units: [UnitState; 2],
    /// What the command still has to do.
    pub work: Option<Work>,
    /// The interrupt is raised.
    pub interrupt: bool,
    /// What the guest reads or writes.
    pub data: Vec<u8>,
    /// How far it has come.
    pub at: usize,
    /// The end of what moves before the next interrupt.
    pub end: usize,
    /// Bytes between two interrupts.
    pub block: usize,
    /// It waits for the bus master to be started.
    pub waits: bool,
    /// A pause did not wait for it, and it is begun anew.
    pub held: bool,
}

impl Saved for IdeState {
    const KIND: &'static str = "ide";
    const VERSION: u16 = 1;
}

impl ChannelState {
    /// That of a channel.
    pub(super) fn of(channel: &Channel) -> Self {
        let mut state = channel.state.lock();
        channel.quiesce(&mut state);
        Self {
            master: state.master,
            registers: state.registers,
            device: state.device,
            control: state.control,
            units: [0, 1].map(|n: usize| state.units[n].as_ref().map(Unit::saved).unwrap_or_default()),
            work: state.work.clone(),
            interrupt: state.interrupt,
            data: state.data.clone(),
            at: state.at,
            end: state.end,
            block: state.block,
            waits: state.waits,
            held: state.held,
        }
    }

    /// Whether a channel with these drives can be in it.
    pub(super) fn is_sound(&self, state: &State) -> bool {
        use super::registers::{BSY, DEVICE_SECOND, DRQ};
        let number = usize::from(self.device & DEVICE_SECOND != 0);
        let status = self.registers[number].status;
        let ordered = self.at <= self.end && self.end <= self.data.len() && self.data.len() <= MOST_DATA;
        let work = match (&self.work, &state.units[number]) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(work), Some(unit)) => work.is_sound(unit.medium().map_or(0, |disk| disk.size())),
        };
        // Data move only for a command, and one that is at work on a thread would never end.
        let held = self.held && matches!(self.work, Some(Work::Trim(_))) && !self.waits;
        let rests = status & BSY == 0 || held || self.control & super::registers::CONTROL_SRST != 0;
        let gives =
            matches!(self.work, Some(Work::Give(_, By::Ports(_)) | Work::Take { by: By::Ports(_), .. } | Work::Packet));
        let moves = status & DRQ == 0 || self.waits || gives && self.at < self.end;
        ordered
            && (held || !self.held)
            && work
            && rests
            && moves
            && (!self.waits || self.work.is_some())
            && self.units.iter().all(UnitState::is_sound)
    }

    /// Puts it into a channel.
    pub(super) fn put(self, channel: &Channel) {
        let mut state = channel.state.lock();
        state.master = self.master;
        state.registers = self.registers;
        (state.device, state.control) = (self.device, self.control);
        for (unit, saved) in state.units.iter_mut().zip(self.units) {
            if let Some(unit) = unit {
                unit.restore(saved);
            }
        }
        (state.work, state.interrupt) = (self.work, self.interrupt);
        (state.waits, state.held) = (self.waits, self.held);
        (state.data, state.at, state.end, state.block) = (self.data, self.at, self.end, self.block);
        channel.release(&mut state);
        channel.drive_line(&state);
    }
}
