//! What the ports of a VGA do.

use super::registers::*;
use super::state::{COLOURS, Registers};

impl Registers {
    /// Whether a port of the CRT controller is where it is looked for.
    fn answers(&self, port: u16) -> bool {
        let colour = self.misc & MISC_COLOUR != 0;
        match port {
            0x3b0..0x3c0 => !colour,
            0x3d0..0x3e0 => colour,
            _ => true,
        }
    }

    /// Reads a port; `status` is what input status 1 shows. `None`: nobody is there.
    pub(super) fn read_port(&mut self, port: u16, status: u8) -> Option<u8> {
        if !self.answers(port) {
            return None;
        }
        Some(match port {
            ATTRIBUTE => self.attr_index,
            ATTRIBUTE_READ => self.attr[usize::from(self.attr_index & attr::INDEX)],
            MISC_WRITE => STATUS_0_SENSE,
            ENABLE => self.enable,
            SEQUENCER => self.seq_index,
            0x3c5 => self.seq[usize::from(self.seq_index & 7)],
            DAC_MASK => self.dac_mask,
            DAC_READ_INDEX => 3 * u8::from(self.dac_reading),
            DAC_WRITE_INDEX => self.dac_write,
            DAC_DATA => self.read_colour(),
            FEATURE_READ => self.feature,
            MISC_READ => self.misc,
            GRAPHICS => self.gfx_index,
            0x3cf => self.gfx[usize::from(self.gfx_index & 15)],
            0x3b4 | CRTC => self.crtc_index,
            0x3b5 | 0x3d5 => match self.crtc_index {
                index if index < crtc::COUNT => self.crtc[usize::from(index)],
                crtc::LATCH => (self.latch >> (8 * (self.gfx[gfx::READ_MAP] & 3))) as u8,
                crtc::FLIP_FLOP => u8::from(self.attr_data) << 7,
                _ => 0,
            },
            STATUS_1 | STATUS_1_MONOCHROME => {
                self.attr_data = false;
                status
            }
            _ => return None,
        })
    }

    /// Writes a port; whether that may change what is shown.
    pub(super) fn write_port(&mut self, port: u16, value: u8) -> bool {
        if !self.answers(port) {
            return false;
        }
        match port {
            ATTRIBUTE => return self.write_attribute(value),
            MISC_WRITE => self.misc = value,
            ENABLE => self.enable = value & 1,
            SEQUENCER => {
                self.seq_index = value & 7;
                return false;
            }
            0x3c5 => {
                let index = usize::from(self.seq_index & 7);
                self.seq[index] = value & seq::MASKS[index];
            }
            DAC_MASK => self.dac_mask = value,
            DAC_READ_INDEX => {
                (self.dac_read, self.dac_component, self.dac_reading) = (value, 0, true);
                return false;
            }
            DAC_WRITE_INDEX => {
                (self.dac_write, self.dac_component, self.dac_reading) = (value, 0, false);
                return false;
            }
            DAC_DATA => return self.write_colour(value),
            GRAPHICS => {
                self.gfx_index = value & 15;
                return false;
            }
            0x3cf => {
                let index = usize::from(self.gfx_index & 15);
                self.gfx[index] = value & gfx::MASKS[index];
            }
            0x3b4 | CRTC => {
                self.crtc_index = value;
                return false;
            }
            0x3b5 | 0x3d5 => self.write_crtc(value),
            STATUS_1 | STATUS_1_MONOCHROME => self.feature = value,
            _ => return false,
        }
        true
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        if self.crtc_index >= crtc::COUNT {
            return;
        }
        let locked = index <= crtc::OVERFLOW && self.crtc[crtc::V_RETRACE_END] & crtc::PROTECT != 0;
        let mask = match index {
            crtc::OVERFLOW if locked => crtc::OVERFLOW_LINE_COMPARE,
            _ if locked => 0,
            _ => 0xff,
        };
        self.crtc[index] = self.crtc[index] & !mask | value & mask;
    }

    /// Index and data in turn.
    fn write_attribute(&mut self, value: u8) -> bool {
        let data = self.attr_data;
        self.attr_data = !data;
        if !data {
            let before = std::mem::replace(&mut self.attr_index, value & (attr::INDEX | attr::SHOWN));
            return (before ^ value) & attr::SHOWN != 0;
        }
        let index = usize::from(self.attr_index & attr::INDEX);
        let mask = match index {
            // Cards let the palette be written while the screen uses it, too, and programs do.
            0..16 | attr::PLANES => 0x3f,
            attr::MODE => 0xef,
            attr::OVERSCAN => 0xff,
            attr::PANNING | attr::COLOUR_SELECT => 0x0f,
            _ => return false,
        };
        self.attr[index] = value & mask;
        true
    }

    fn read_colour(&mut self) -> u8 {
        let at = usize::from(self.dac_read) * 3 + usize::from(self.dac_component.min(2));
        let value = self.dac.get(at).copied().unwrap_or(0);
        self.dac_component += 1;
        if self.dac_component > 2 {
            self.dac_component = 0;
            self.dac_read = self.dac_read.wrapping_add(1);
        }
        value
    }

    /// Takes a component; the colour changes with its third.
    fn write_colour(&mut self, value: u8) -> bool {
        let value = if self.dac_8_bits() { value } else { value & 0x3f };
        self.dac_pending[usize::from(self.dac_component.min(2))] = value;
        self.dac_component += 1;
        if self.dac_component <= 2 {
            return false;
        }
        self.dac_component = 0;
        let at = usize::from(self.dac_write) * 3;
        self.dac_write = self.dac_write.wrapping_add(1);
        if let Some(colour) = self.dac.get_mut(at..at + 3) {
            colour.copy_from_slice(&self.dac_pending);
        }
        true
    }

    /// Registers from a saved state, of whatever lengths and values it has.
    pub(super) fn sane(mut self) -> Self {
        self.dac.resize(COLOURS, 0);
        self.dac_component = self.dac_component.min(2);
        self.seq_index &= 7;
        self.gfx_index &= 15;
        self.gfx.iter_mut().zip(gfx::MASKS).for_each(|(register, mask)| *register &= mask);
        self.seq.iter_mut().zip(seq::MASKS).for_each(|(register, mask)| *register &= mask);
        self
    }
}
