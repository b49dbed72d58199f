//! Saved state of the Sound Blaster 16.

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

pub use super::mixer::MixerState;
use super::registers::{RATES, parameters};
use crate::opl::OplState;
use crate::pace::Pace;

/// What a transfer's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coding {
    /// Unsigned or signed samples.
    #[default]
    Pcm,
    /// ADPCM of four bits.
    Adpcm4,
    /// ADPCM of 2.6 bits: three samples in a byte.
    Adpcm3,
    /// ADPCM of two bits.
    Adpcm2,
    /// None: so many samples' time of silence.
    Silence,
}

/// A transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transfer {
    /// What its bytes are.
    pub coding: Coding,
    /// Units have two bytes.
    pub wide: bool,
    /// It records.
    pub record: bool,
    /// It begins anew at the end.
    pub auto: bool,
    /// Two channels.
    pub stereo: bool,
    /// Samples are signed.
    pub signed: bool,
    /// It is held.
    pub paused: bool,
    /// Units of a block.
    pub block: u32,
    /// Units that are left of this one.
    pub left: u32,
    /// Units in guest time.
    pub pace: Pace,
    /// Bytes of a frame that is not whole yet.
    pub part: Vec<u8>,
    /// ADPCM: the first byte, the reference, has yet to come.
    pub reference: bool,
    /// ADPCM: the last sample, and the step size.
    pub adpcm: (u8, u8),
}

/// The card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sb16State {
    /// The reset port's bit is set.
    pub resetting: bool,
    /// The command whose parameters are awaited.
    pub command: Option<u8>,
    /// Its parameters so far.
    pub parameters: Vec<u8>,
    /// What the guest reads next.
    pub output: Vec<u8>,
    /// What it read last.
    pub last: u8,
    /// The test register.
    pub test: u8,
    /// The identification by DMA: value and count.
    pub identification: (u8, u8),
    /// Frames a second of what is played.
    pub rate: u32,
    /// Frames a second of what is recorded.
    pub input_rate: u32,
    /// The block size of command 48h, less one.
    pub block: u16,
    /// The speaker has been said to be on.
    pub speaker: bool,
    /// All that is written is MIDI, until a reset.
    pub midi: bool,
    /// The direct DAC's level.
    pub level: u8,
    /// Interrupt status.
    pub interrupts: u8,
    /// The transfer.
    pub transfer: Option<Transfer>,
    /// The mixer.
    pub mixer: MixerState,
    /// The synthesizer.
    pub opl: OplState,
}

impl Default for Sb16State {
    fn default() -> Self {
        Self {
            resetting: false,
            command: None,
            parameters: Vec::new(),
            output: Vec::new(),
            last: 0,
            test: 0,
            identification: (0xaa, 0),
            rate: 11_025,
            input_rate: 11_025,
            block: 0x7ff,
            speaker: false,
            midi: false,
            level: 0x80,
            interrupts: 0,
            transfer: None,
            mixer: MixerState::default(),
            opl: OplState::default(),
        }
    }
}

impl Saved for Sb16State {
    const KIND: &'static str = "sb16";
    const VERSION: u16 = 1;
}

impl Sb16State {
    /// Whether the card can be in it.
    pub(super) fn is_sound(&self) -> bool {
        let room = self.command.map_or(0, parameters);
        let transfer = self.transfer.as_ref().is_none_or(|transfer| {
            (1..=0x1_0000).contains(&transfer.block)
                && (1..=transfer.block).contains(&transfer.left)
                && (1..=2 * RATES.end()).contains(&transfer.pace.rate)
                && transfer.part.len() < 4
                && transfer.adpcm.1 < 6
        });
        transfer
            && self.parameters.len() <= room.saturating_sub(1)
            && self.output.len() <= 64
            && RATES.contains(&self.rate)
            && RATES.contains(&self.input_rate)
            && self.interrupts < 4
            && self.mixer.is_sound()
            && self.opl.is_sound()
    }
}
