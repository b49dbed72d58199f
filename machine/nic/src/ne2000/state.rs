//! Saved state of the NE2000.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::*;
use crate::frame::FrameState;

/// The card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ne2000State {
    /// The configuration space of the PCI card.
    pub config: ConfigState,
    /// The memory that frames are in.
    #[serde(with = "serde_bytes")]
    pub ram: Vec<u8>,
    /// CR.
    pub command: u8,
    /// PSTART.
    pub start: u8,
    /// PSTOP.
    pub stop: u8,
    /// BNRY.
    pub boundary: u8,
    /// CURR.
    pub current: u8,
    /// TPSR.
    pub transmit_page: u8,
    /// TBCR.
    pub transmit_count: u16,
    /// TSR.
    pub transmit_status: u8,
    /// TCR.
    pub transmit_config: u8,
    /// RSAR and CRDA.
    pub remote_address: u16,
    /// RBCR.
    pub remote_count: u16,
    /// What BNRY will be at the end of remote DMA that sends a packet.
    pub remote_boundary: Option<u8>,
    /// RSR.
    pub receive_status: u8,
    /// RCR.
    pub receive_config: u8,
    /// DCR.
    pub data_config: u8,
    /// ISR.
    pub causes: u8,
    /// IMR.
    pub mask: u8,
    /// PAR.
    pub address: [u8; 6],
    /// MAR.
    pub groups: [u8; 8],
    /// CNTR 2: frames that were looked at and not kept.
    pub missed: u8,
    /// What is in the FIFO after loopback, and which byte of it is next.
    pub fifo: [u8; 8],
    /// See `fifo`.
    pub fifo_at: u8,
    /// 9346CR of the RTL8029AS.
    pub eeprom_command: u8,
    /// CONFIG3 of the RTL8029AS.
    pub config3: u8,
    /// A frame that has come, and waits for room.
    pub waiting: Option<FrameState>,
}

impl Default for Ne2000State {
    fn default() -> Self {
        Self {
            config: ConfigState::default(),
            ram: vec![0; RAM],
            command: CR_STP | CR_ABORT,
            start: 0,
            stop: 0,
            boundary: 0,
            current: 0,
            transmit_page: 0,
            transmit_count: 0,
            transmit_status: 0,
            transmit_config: 0,
            remote_address: 0,
            remote_count: 0,
            remote_boundary: None,
            receive_status: 0,
            receive_config: 0,
            data_config: 0,
            causes: cause::RST,
            mask: 0,
            address: [0; 6],
            groups: [0; 8],
            missed: 0,
            fifo: [0; 8],
            fifo_at: 0,
            eeprom_command: 0,
            config3: CONFIG3_FUDUP,
            waiting: None,
        }
    }
}

impl Saved for Ne2000State {
    const KIND: &'static str = "ne2000";
    const VERSION: u16 = 1;
}

impl Ne2000State {
    /// Whether a card can be in it.
    pub(super) fn is_sound(&self) -> bool {
        self.ram.len() == RAM && self.fifo_at < 8 && self.waiting.as_ref().is_none_or(FrameState::is_sound)
    }
}
