//! Saved state of the OPL3. It is a part of its card's.

use serde::{Deserialize, Serialize};

pub use super::envelope::{Envelope, Stage};
pub use super::operator::OperatorState;
use super::registers::{OPERATORS, RATE, REGISTERS};
pub use super::timers::OplTimer;
use crate::pace::Pace;

/// The chip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OplState {
    /// The register that is written next, with its bank in bit 8.
    pub latch: u16,
    /// The timers.
    pub timers: [OplTimer; 2],
    /// What has been written to registers, those of the second bank behind those of the first: 512.
    pub registers: Vec<u8>,
    /// Operators, 36 of them.
    pub operators: Vec<OperatorState>,
    /// Samples since power-on.
    pub clock: u64,
    /// The noise generator, 23 bits of which at least one is set.
    pub noise: u32,
    /// Samples in guest time, while there is something to hear.
    pub pace: Option<Pace>,
}

impl Default for OplState {
    fn default() -> Self {
        Self {
            latch: 0,
            timers: Default::default(),
            registers: vec![0; REGISTERS],
            operators: vec![OperatorState::default(); OPERATORS],
            clock: 0,
            noise: 1,
            pace: None,
        }
    }
}

impl OplState {
    /// Whether the chip can be in it.
    pub(crate) fn is_sound(&self) -> bool {
        usize::from(self.latch) < REGISTERS
            && self.registers.len() == REGISTERS
            && self.operators.len() == OPERATORS
            && self.operators.iter().all(OperatorState::is_sound)
            && (1..1 << 23).contains(&self.noise)
            && self.pace.is_none_or(|pace| pace.rate == RATE)
    }
}
