//! What all ports share: global registers, configuration space, and the way to the interrupt controllers.

use std::sync::OnceLock;

use lodge_bus::IrqLine;
use lodge_pci::config::registers::{COMMAND_MASTER, COMMAND_NO_INTX};
use lodge_pci::{ConfigSpace, Msi};
use parking_lot::Mutex;

use super::registers::{GHC_AHCI, GHC_INTERRUPTS};

/// See the module.
pub(super) struct Hba {
    pub line: OnceLock<IrqLine>,
    pub state: Mutex<HbaState>,
}

pub(super) struct HbaState {
    pub config: ConfigSpace,
    pub msi: Option<Msi>,
    /// Global control.
    pub control: u32,
    /// Interrupt status.
    pub interrupts: u32,
    /// Ports that have an interrupt now.
    pending: u32,
}

impl Hba {
    pub fn new(config: ConfigSpace, msi: Option<Msi>) -> Self {
        let state = HbaState { config, msi, control: GHC_AHCI, interrupts: 0, pending: 0 };
        Self { line: OnceLock::new(), state: Mutex::new(state) }
    }

    /// A port has an interrupt, or has none any more.
    pub fn set_pending(&self, port: usize, pending: bool) {
        let mut state = self.state.lock();
        let bit = 1 << port;
        state.pending = if pending { state.pending | bit } else { state.pending & !bit };
        let new = state.pending & !state.interrupts;
        state.interrupts |= new;
        self.deliver(&mut state, new != 0);
    }

    /// Interrupts that the guest has seen; what is pending still shows again.
    pub fn acknowledge(&self, bits: u32) {
        let mut state = self.state.lock();
        state.interrupts = state.interrupts & !bits | state.pending;
        let again = state.interrupts != 0;
        self.deliver(&mut state, again);
    }

    /// Drives INTx, or sends a message if there is something `new`.
    pub fn deliver(&self, state: &mut HbaState, new: bool) {
        let raised = state.control & GHC_INTERRUPTS != 0 && state.interrupts != 0;
        let message = state.msi.as_ref().is_some_and(|msi| msi.is_enabled(&state.config));
        if let Some(msi) = &state.msi
            && message
            && new
            && raised
            && state.config.command() & COMMAND_MASTER != 0
        {
            msi.signal(&state.config);
        }
        state.config.set_intx_status(raised && !message);
        if let Some(line) = self.line.get() {
            line.set(raised && !message && state.config.command() & COMMAND_NO_INTX == 0);
        }
    }

    /// After a reset of the controller.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        (state.control, state.interrupts, state.pending) = (GHC_AHCI, 0, 0);
        self.deliver(&mut state, false);
    }
}
