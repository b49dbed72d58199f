//! Saved state of the small ports.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// Their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardState {
    /// Port A.
    pub port_a: u8,
    /// The last progress code.
    pub post: u8,
}

impl Saved for BoardState {
    const KIND: &'static str = "board";
    const VERSION: u16 = 1;
}
