//! Saved state of the power-management block.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PmState {
    /// PM1 status.
    pub status: u16,
    /// PM1 enable.
    pub enable: u16,
    /// PM1 control.
    pub control: u16,
    /// The machine sleeps.
    pub asleep: bool,
    /// APM control and status.
    pub apm: [u8; 2],
    /// Guest nanoseconds up to which changes of the timer's highest bit are in `status`.
    pub served: u64,
}

impl Saved for PmState {
    const KIND: &'static str = "pm";
    const VERSION: u16 = 1;
}
