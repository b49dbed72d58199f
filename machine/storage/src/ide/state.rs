//! Saved state of the IDE function: registers, of a machine whose channels are at rest.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::master::Master;

/// The function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdeState {
    /// Its configuration space.
    pub config: ConfigState,
    /// Its channels' bus masters.
    pub masters: [Master; 2],
}

impl Saved for IdeState {
    const KIND: &'static str = "ide";
    const VERSION: u16 = 1;
}
