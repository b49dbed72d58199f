//! Saved state of the HPET.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::TIMERS;

/// One timer.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HpetTimerState {
    /// The writable bits of its configuration.
    pub configuration: u64,
    /// The comparator.
    pub comparator: u64,
    /// The period, in periodic mode.
    pub period: u64,
    /// The counter's value up to which matches were served.
    pub served: u64,
}

/// Counter and timers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HpetState {
    /// General configuration.
    pub configuration: u64,
    /// General interrupt status.
    pub status: u64,
    /// The counter when it was last started or set.
    pub counter: u64,
    /// When that was, in guest nanoseconds.
    pub since: u64,
    /// The timers.
    pub timers: [HpetTimerState; TIMERS],
}

impl Saved for HpetState {
    const KIND: &'static str = "hpet";
    const VERSION: u16 = 1;
}
