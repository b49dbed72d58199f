//! Saved state of MSI-X.

use serde::{Deserialize, Serialize};

/// A table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Vector control.
    pub control: u32,
}

/// Table and pending bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MsixState {
    /// The table.
    pub entries: Vec<Entry>,
    /// Vectors that wait for their mask to go.
    pub pending: Vec<u64>,
    /// Message control.
    pub control: u16,
}
