//! The CT1745 mixer: volumes, and what interrupt and DMA channels the card uses ("Hardware Programming Guide", chapter 4).
//!
//! Master volume, output gain and their own volumes are applied to what the DSP and FM play. Other sources are silent; tone
//! controls keep what is written to them, and pass all as it is.

use serde::{Deserialize, Serialize};

use super::registers::*;
use crate::mixer;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MixerState {
    /// The register that is accessed next.
    pub index: u8,
    /// Registers, 256 of them.
    pub registers: Vec<u8>,
}

impl Default for MixerState {
    fn default() -> Self {
        let mut state = Self { index: 0, registers: vec![0; 256] };
        state.reset();
        (state.registers[usize::from(IRQ_SELECT)], state.registers[usize::from(DMA_SELECT)]) =
            (IRQ_DEFAULT, DMA_DEFAULT);
        state
    }
}

impl MixerState {
    fn reset(&mut self) {
        // Interrupt and DMA select stay.
        self.registers[..usize::from(IRQ_SELECT)].fill(0);
        for (first, last, value) in MIXER_DEFAULTS {
            self.registers[usize::from(first)..=usize::from(last)].fill(value);
        }
    }

    fn get(&self, register: u8) -> u8 {
        self.registers.get(usize::from(register)).copied().unwrap_or(0)
    }

    pub(super) fn is_sound(&self) -> bool {
        let known = |(register, value): (usize, &u8)| value & !mixer_bits(register as u8) == 0;
        self.registers.len() == 256 && self.registers.iter().enumerate().all(known)
    }

    /// Reads the register that the index names.
    pub(super) fn read(&self, status: u8) -> u8 {
        match self.index {
            IRQ_STATUS => status,
            MIC_PRO => self.get(MIC) >> 5,
            register => match mixer_pair(register) {
                Some(left) => self.get(left) & 0xf0 | self.get(left + 1) >> 4,
                None => self.get(register),
            },
        }
    }

    /// Writes it; whether volumes may have changed.
    pub(super) fn write(&mut self, value: u8) {
        // Volumes of fewer bits are the upper ones, the lowest being one as in the chip.
        let widened = |upper: u8| upper & 0xf0 | 0x08;
        match self.index {
            MIXER_RESET => self.reset(),
            MIC_PRO => self.registers[usize::from(MIC)] = (value & 7) << 5 | 0x18,
            register => match mixer_pair(register) {
                Some(left) => {
                    self.registers[usize::from(left)] = widened(value);
                    self.registers[usize::from(left) + 1] = widened(value << 4);
                }
                None => self.registers[usize::from(register)] = value & mixer_bits(register),
            },
        }
    }

    /// The gains of a source, left and right, by the register of its volume on the left.
    pub(super) fn gains(&self, volume: u8) -> [u32; 2] {
        [0, 1].map(|side| {
            // Steps of 2 dB below the loudest, and gains of 6 dB.
            let steps = |register: u8| f64::from(self.get(register + side) >> 3) - 31.0;
            let gain = f64::from(self.get(OUTPUT_GAIN + side) >> 6);
            mixer::gain(2.0 * (steps(MASTER) + steps(volume)) + 6.0 * gain)
        })
    }

    /// The interrupt that is selected, as an index into [`INTERRUPTS`].
    pub(super) fn interrupt(&self) -> Option<usize> {
        let select = self.get(IRQ_SELECT);
        (0..4).find(|n| select & 1 << n != 0)
    }

    /// The DMA channel of transfers of this width. 16-bit ones go by an 8-bit channel where they have none of their own.
    pub(super) fn channel(&self, wide: bool) -> Option<usize> {
        let select = self.get(DMA_SELECT);
        let of = |channels: u8| (0..8).find(|n| select & channels & 1 << n != 0);
        if wide { of(DMA_16).or(of(DMA_8)) } else { of(DMA_8) }
    }
}
