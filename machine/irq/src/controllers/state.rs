//! Saved state of all interrupt controllers.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use crate::ioapic::IoApicState;
use crate::lapic::LocalApicState;
use crate::pic::PicState;

/// All controllers of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllersState {
    /// The 8259A pair.
    pub pic: PicState,
    /// The I/O APIC.
    pub io_apic: IoApicState,
    /// Local APICs by vCPU.
    pub local_apics: Vec<LocalApicState>,
}

impl Saved for ControllersState {
    const KIND: &'static str = "irq";
    const VERSION: u16 = 1;
}
