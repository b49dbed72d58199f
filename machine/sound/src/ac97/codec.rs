//! The codec, like SigmaTel's STAC9700: volumes, rates, power. What is played passes master and PCM volume; other sources are
//! silent, and tone and 3D controls keep what is written to them.

use serde::{Deserialize, Serialize};

use super::registers::*;
use crate::mixer;

/// The codec's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecState {
    /// 64 registers, of even numbers.
    pub registers: Vec<u16>,
}

impl Default for CodecState {
    fn default() -> Self {
        let mut registers = vec![0; 64];
        for (register, value) in CODEC_DEFAULTS {
            registers[usize::from(register / 2)] = value;
        }
        Self { registers }
    }
}

impl CodecState {
    pub(super) fn is_sound(&self) -> bool {
        let rate = |register: u8| (RATE_LEAST..=RATE).contains(&self.read(register));
        self.registers.len() == 64 && [RATE_OUT, RATE_IN, RATE_MIC].into_iter().all(rate)
    }

    /// The register at an even offset.
    pub(super) fn read(&self, register: u8) -> u16 {
        self.registers.get(usize::from(register / 2)).copied().unwrap_or(0)
    }

    pub(super) fn write(&mut self, register: u8, value: u16) {
        let value = match register {
            RESET => return *self = Self::default(),
            // Of variable rates, those that there are; others become the nearest.
            RATE_OUT | RATE_IN if self.read(EXTENDED) & VRA == 0 => return,
            RATE_MIC if self.read(EXTENDED) & VRM == 0 => return,
            RATE_OUT | RATE_IN | RATE_MIC => value.clamp(RATE_LEAST, RATE),
            EXTENDED => {
                // Without them rates are as they were.
                if value & VRA == 0 {
                    self.set(RATE_OUT, RATE);
                    self.set(RATE_IN, RATE);
                }
                if value & VRM == 0 {
                    self.set(RATE_MIC, RATE);
                }
                value & codec_bits(EXTENDED)
            }
            POWER => value & codec_bits(POWER) | Self::ready(value),
            MASTER | 0x06 => {
                // There is no sixth bit of attenuation; one that is set is as quiet as can be.
                let widest = |shift: u16| if value & 0x20 << shift != 0 { 0x1f << shift } else { 0 };
                (value | widest(0) | widest(8)) & codec_bits(register)
            }
            _ if codec_bits(register) == 0 => return,
            _ => value & codec_bits(register),
        };
        self.set(register, value);
    }

    fn set(&mut self, register: u8, value: u16) {
        if let Some(slot) = self.registers.get_mut(usize::from(register / 2)) {
            *slot = value;
        }
    }

    /// What is ready with these parts off: reference, analog mixer, DAC, ADC (5.7.15).
    fn ready(power: u16) -> u16 {
        let on = |bit: u16| power & 1 << bit == 0;
        let (adc, dac, reference) = (on(8), on(9), on(11));
        u16::from(reference) << 3 | u16::from(on(10) && reference) << 2 | u16::from(dac) << 1 | u16::from(adc)
    }

    /// Frames a second of a box.
    pub(super) fn rate(&self, number: usize) -> u32 {
        self.read([RATE_IN, RATE_OUT, RATE_MIC][number % BOXES]).into()
    }

    /// The gains of what is played, left and right.
    pub(super) fn gains(&self) -> [u32; 2] {
        let (master, pcm) = (self.read(MASTER), self.read(PCM));
        if (master | pcm) & MUTE != 0 || self.read(POWER) & POWER_NO_SOUND != 0 {
            return [0; 2];
        }
        // Steps of 1.5 dB, of which eight above one for PCM.
        [8, 0].map(|shift| {
            let steps = |volume: u16| f64::from(volume >> shift & 0x1f);
            mixer::gain(1.5 * (8.0 - steps(pcm) - steps(master)))
        })
    }
}
