//! Saved state of a parallel port.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::{CONTROL_BITS, NO_INIT, SELECT};

/// Registers, and the printer's side of the wires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParallelState {
    /// What the guest wrote last.
    pub data: u8,
    /// Control.
    pub control: u8,
    /// A byte that the printer has taken and is busy with.
    pub printing: Option<u8>,
    /// The printer has acknowledged a byte, and the guest has not seen it yet.
    pub acknowledged: bool,
    /// The interrupt of that.
    pub interrupt: bool,
    /// An EPP cycle had no answer.
    pub timeout: bool,
}

impl Default for ParallelState {
    fn default() -> Self {
        Self {
            data: 0,
            control: NO_INIT | SELECT,
            printing: None,
            acknowledged: false,
            interrupt: false,
            timeout: false,
        }
    }
}

impl ParallelState {
    /// Whether a port can be in it.
    pub(super) fn is_sound(&self) -> bool {
        self.control & !CONTROL_BITS == 0
    }
}

impl Saved for ParallelState {
    const KIND: &'static str = "parallel";
    const VERSION: u16 = 1;
}
