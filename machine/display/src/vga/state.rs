//! The card's registers, which are its saved state. Video memory is a region of guest memory and saved as such.

use lodge_pci::ConfigState;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::{dispi, seq};

/// Bytes of the colour table: 256 times red, green, blue.
pub(super) const COLOURS: usize = 3 * 256;

/// What the ports reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    pub feature: u8,
    /// The subsystem's enable.
    pub enable: u8,
    /// Which register of the sequencer is reached.
    pub seq_index: u8,
    /// The sequencer's registers.
    pub seq: [u8; 8],
    /// Which register of the CRT controller is reached.
    pub crtc_index: u8,
    /// The CRT controller's registers.
    pub crtc: [u8; 32],
    /// Which register of the graphics controller is reached.
    pub gfx_index: u8,
    /// The graphics controller's registers.
    pub gfx: [u8; 16],
    /// Which register of the attribute controller is reached, and whether the palette is shown.
    pub attr_index: u8,
    /// The attribute controller's registers.
    pub attr: [u8; 32],
    /// The attribute controller's port expects data next.
    pub attr_data: bool,
    /// The DAC's colour table.
    pub dac: Vec<u8>,
    /// What of an index reaches the DAC.
    pub dac_mask: u8,
    /// Index of the colour that is written next.
    pub dac_write: u8,
    /// Index of the colour that is read next.
    pub dac_read: u8,
    /// The component that comes next.
    pub dac_component: u8,
    /// The last index was one for reads.
    pub dac_reading: bool,
    /// Components of the colour that is being written.
    pub dac_pending: [u8; 3],
    /// The latches: a byte a plane.
    pub latch: u32,
    /// Which register of Bochs' extension is reached.
    pub dispi_index: u16,
    /// Its registers.
    pub dispi: [u16; dispi::COUNT as usize],
    /// The frame buffer's bytes are in big-endian order.
    pub big_endian: bool,
}

impl Default for Registers {
    fn default() -> Self {
        let mut registers = Self {
            misc: 0,
            feature: 0,
            enable: 1,
            seq_index: 0,
            seq: [0; 8],
            crtc_index: 0,
            crtc: [0; 32],
            gfx_index: 0,
            gfx: [0; 16],
            attr_index: 0,
            attr: [0; 32],
            attr_data: false,
            dac: vec![0; COLOURS],
            dac_mask: 0xff,
            dac_write: 0,
            dac_read: 0,
            dac_component: 0,
            dac_reading: false,
            dac_pending: [0; 3],
            latch: 0,
            dispi_index: 0,
            dispi: [0; dispi::COUNT as usize],
            big_endian: false,
        };
        registers.dispi[dispi::ID] = dispi::ID_LAST;
        registers
    }
}

impl Registers {
    /// Whether Bochs' extension rules what is shown.
    pub fn extended(&self) -> bool {
        self.dispi[dispi::ENABLE] & dispi::ENABLED != 0
    }

    /// Whether colours have components of eight bits rather than six.
    pub fn dac_8_bits(&self) -> bool {
        self.dispi[dispi::ENABLE] & dispi::DAC_8_BITS != 0
    }

    /// Whether addresses go to planes in turn, all four.
    pub fn chain_4(&self) -> bool {
        self.seq[seq::MEMORY] & seq::MEMORY_CHAIN_4 != 0
    }
}

/// The card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VgaState {
    /// Its configuration space.
    pub config: ConfigState,
    /// Its registers.
    pub registers: Registers,
}

impl Saved for VgaState {
    const KIND: &'static str = "vga";
    const VERSION: u16 = 1;
}
