//! Saved state of the I/O APIC.

use serde::{Deserialize, Serialize};

use super::registers::{MASKED, PINS};

/// The registers and the inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoApicState {
    /// Identification.
    pub id: u8,
    /// Register select.
    pub select: u8,
    /// Requests latched (edge) or asserted (level), by pin.
    pub irr: u32,
    /// Levels of the inputs, by pin.
    pub lines: u32,
    /// Redirection entries.
    pub entries: [u64; PINS],
}

impl Default for IoApicState {
    fn default() -> Self {
        Self { id: 0, select: 0, irr: 0, lines: 0, entries: [MASKED; PINS] }
    }
}
