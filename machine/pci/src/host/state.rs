//! Saved state of the host bridge's ports.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// The ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostState {
    /// Configuration address.
    pub address: u32,
    /// Reset control.
    pub reset_control: u8,
}

impl Saved for HostState {
    const KIND: &'static str = "pci";
    const VERSION: u16 = 1;
}
