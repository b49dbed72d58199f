//! Saved state of the firmware configuration device.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// What is selected, and half of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FwCfgState {
    /// The item.
    pub key: u16,
    /// Bytes of it that have been read.
    pub offset: u32,
    /// The upper half of a request's address.
    pub dma_high: u32,
}

impl Saved for FwCfgState {
    const KIND: &'static str = "fw-cfg";
    const VERSION: u16 = 1;
}
