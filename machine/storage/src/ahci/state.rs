//! Saved state of the AHCI controller, of a machine that is paused: no command is half done.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::*;
use crate::ata::UnitState;

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortState {
    /// Where the command list is.
    pub list: u64,
    /// Where frames are received.
    pub frames: u64,
    /// Interrupts but for those that SATA error shows.
    pub raised: u32,
    /// Interrupts that are let through.
    pub enabled: u32,
    /// Command: what is kept as written.
    pub command: u32,
    /// Task file.
    pub task_file: u32,
    /// Signature.
    pub signature: u32,
    /// SATA status.
    pub link: u32,
    /// SATA control.
    pub control: u32,
    /// SATA error.
    pub error: u32,
    /// Queued commands that are active.
    pub active: u32,
    /// Commands that have been issued.
    pub issued: u32,
    /// The slot that was last taken.
    pub slot: u32,
    /// An error stopped the list.
    pub halted: bool,
    /// The drive is held in reset.
    pub software_reset: bool,
    /// The frame that tells the drive's kind has been sent.
    pub signature_sent: bool,
}

impl Default for PortState {
    fn default() -> Self {
        Self {
            list: 0,
            frames: 0,
            raised: 0,
            enabled: 0,
            command: 0,
            task_file: TFD_NONE,
            signature: SIG_NONE,
            link: 0,
            control: 0,
            error: 0,
            active: 0,
            issued: 0,
            slot: 0,
            halted: false,
            software_reset: false,
            signature_sent: false,
        }
    }
}

impl PortState {
    /// Interrupts.
    pub(super) fn interrupts(&self) -> u32 {
        let show = |error: u32, bit: u32| if self.error & error != 0 { bit } else { 0 };
        self.raised & !IS_SHOWN | show(SERR_EXCHANGED, IS_CONNECT) | show(SERR_LINK, IS_LINK)
    }

    /// Whether a port can be in it.
    pub(super) fn is_sound(&self) -> bool {
        self.slot < SLOTS && self.command & !CMD_KEPT == 0
    }
}

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AhciState {
    /// Configuration space.
    pub config: ConfigState,
    /// Global control.
    pub control: u32,
    /// Interrupt status.
    pub interrupts: u32,
    /// The ports.
    pub ports: [PortState; PORTS],
    /// What each port's drive remembers.
    pub units: [UnitState; PORTS],
}

impl Saved for AhciState {
    const KIND: &'static str = "ahci";
    const VERSION: u16 = 1;
}
