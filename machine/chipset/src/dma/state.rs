//! Saved state of the DMA controllers.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// A channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelState {
    /// Where the next transfer begins, and the address it was set to.
    pub address: u16,
    /// What was written.
    pub base_address: u16,
    /// Transfers left, less one.
    pub count: u16,
    /// What was written.
    pub base_count: u16,
    /// Its mode, without the channel's number.
    pub mode: u8,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerState {
    /// Its channels.
    pub channels: [ChannelState; 4],
    /// The next byte of an address or count is the upper one.
    pub upper: bool,
    /// The command register.
    pub command: u8,
    /// Channels that have reached the end of their count, since that was last read.
    pub ended: u8,
    /// Software requests.
    pub requests: u8,
    /// Channels that are masked.
    pub masked: u8,
}

impl Default for ControllerState {
    fn default() -> Self {
        Self { channels: Default::default(), upper: false, command: 0, ended: 0, requests: 0, masked: 0x0f }
    }
}

/// Both controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DmaState {
    /// That of bytes, and that of words.
    pub controllers: [ControllerState; 2],
    /// Page registers, from port 0x81 on.
    pub pages: [u8; 15],
}

impl Saved for DmaState {
    const KIND: &'static str = "dma";
    const VERSION: u16 = 1;
}
