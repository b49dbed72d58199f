//! Saved state of the PIT.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// One counter. Times are guest nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelState {
    /// Mode, 0 to 5.
    pub mode: u8,
    /// Counts in decimal.
    pub bcd: bool,
    /// Which bytes are read and written: 1 low, 2 high, 3 both.
    pub access: u8,
    /// The count, 1 to 65536; zero while none was written.
    pub count: u32,
    /// When counting began; `None` while it stands still.
    pub started: Option<u64>,
    /// Ticks counted before `started`.
    pub elapsed: u64,
    /// The gate input.
    pub gate: bool,
    /// The next read gives the high byte.
    pub read_high: bool,
    /// The low byte, when the high byte is to be written next.
    pub write_low: Option<u8>,
    /// The latched count.
    pub latched_count: Option<u16>,
    /// The latched status.
    pub latched_status: Option<u8>,
    /// A mode was set, and no count yet (the null count flag).
    pub null_count: bool,
}

impl Default for ChannelState {
    fn default() -> Self {
        Self {
            mode: 0,
            bcd: false,
            access: 3,
            count: 0,
            started: None,
            elapsed: 0,
            gate: true,
            read_high: false,
            write_low: None,
            latched_count: None,
            latched_status: None,
            null_count: true,
        }
    }
}

/// The three counters and port B.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PitState {
    /// Counters 0 to 2.
    pub channels: [ChannelState; 3],
    /// The writable bits of port B.
    pub port_b: u8,
    /// The HPET has taken interrupt 0 over.
    pub replaced: bool,
}

impl Saved for PitState {
    const KIND: &'static str = "pit";
    const VERSION: u16 = 1;
}
