//! Saved state of the bridges.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use crate::config::ConfigState;

/// A bridge's configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeState {
    /// Its bytes.
    pub config: ConfigState,
}

impl Saved for BridgeState {
    const KIND: &'static str = "pci-bridge";
    const VERSION: u16 = 1;
}
