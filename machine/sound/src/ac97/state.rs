//! Saved state of the AC'97 controller.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

pub use super::codec::CodecState;
use super::registers::BOXES;
pub use super::stream::StreamState;

/// The function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ac97State {
    /// Its configuration space.
    pub config: ConfigState,
    /// PCM in, PCM out, microphone in.
    pub streams: [StreamState; BOXES],
    /// Global control.
    pub control: u32,
    /// Global status: what is kept until it is cleared.
    pub status: u32,
    /// The semaphore is taken.
    pub semaphore: bool,
    /// The codec.
    pub codec: CodecState,
}

impl Saved for Ac97State {
    const KIND: &'static str = "ac97";
    const VERSION: u16 = 1;
}

impl Ac97State {
    /// Whether the function can be in it.
    pub(super) fn is_sound(&self) -> bool {
        self.codec.is_sound() && self.streams.iter().all(StreamState::is_sound)
    }
}
