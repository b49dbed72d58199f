//! Saved state of the small ports.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// Their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardState {
    /// Port A.
    pub port_a: u8,
    /// The last progress code.
    pub post: u8,
    /// Address line 20 passes, whichever device said so.
    pub line_20: bool,
}

impl Default for BoardState {
    fn default() -> Self {
        Self { port_a: 0, post: 0, line_20: true }
    }
}

impl Saved for BoardState {
    const KIND: &'static str = "board";
    const VERSION: u16 = 1;
}
