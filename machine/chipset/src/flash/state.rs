//! Saved state of a flash chip. Its contents are guest memory and a file, which are saved by others.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

/// What reads give and what the next write means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The array; the next write is a command, as in all modes of reading.
    #[default]
    Array,
    /// The status register.
    Status,
    /// The identity.
    Identity,
    /// The query table.
    Query,
    /// The next write is the byte to program.
    Program,
    /// The next write confirms that a block is erased.
    Erase,
    /// The next write locks or unlocks a block.
    Lock,
    /// The next write is the number of bytes for the buffer, less one.
    BufferCount,
    /// So many bytes are still to come.
    BufferData(u8),
    /// The next write confirms that the buffer is programmed.
    BufferConfirm,
}

/// A chip's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlashState {
    /// The mode.
    pub mode: Mode,
    /// The status register.
    pub status: u8,
    /// Offsets and bytes in the write buffer.
    pub buffer: Vec<(u32, u8)>,
}

impl Saved for FlashState {
    const KIND: &'static str = "flash";
    const VERSION: u16 = 1;
}
