//! Saved state of a configuration space.

use serde::{Deserialize, Serialize};

/// The bytes that software can change, as they read; the rest is configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigState {
    /// All 256 bytes.
    pub bytes: Vec<u8>,
}
