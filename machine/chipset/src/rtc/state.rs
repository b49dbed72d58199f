//! Saved state of the real-time clock.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// Registers, memory, and how the clock relates to the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RtcState {
    /// The register selected.
    pub index: u8,
    /// Registers A to D and CMOS memory; the time of day is in here only while it is being set.
    pub memory: Vec<u8>,
    /// Nanoseconds that the clock is ahead of the host's wall clock.
    pub ahead: i64,
    /// The clock's time, in nanoseconds, at which it was stopped for setting.
    pub stopped: Option<i64>,
    /// The clock's time at which register C was last read.
    pub seen: i64,
    /// Flags of register C that were up when the time was changed.
    pub kept: u8,
    /// The alarm's flag is up, enabled and told of.
    pub alarm: bool,
    /// The clock's time up to which alarms have been told of.
    pub told: i64,
}

impl Saved for RtcState {
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;
}
