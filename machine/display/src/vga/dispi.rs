//! Bochs' extension: modes of any resolution, at 4 to 32 bits a pixel, linear or in banks.
//!
//! A register that is given what cannot be takes the nearest value that can, and reads as that.

use super::memory::VideoMemory;
use super::registers::{attr, crtc, dispi, gfx, seq};
use super::state::Registers;

/// What is shown, where the extension rules it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bits a pixel: 4 (in planes), 8, 15, 16, 24 or 32.
    pub depth: u8,
    /// Bytes from a row to the next.
    pub pitch: usize,
    /// Where in video memory the first row is.
    pub start: u64,
}

impl Linear {
    /// Bytes from the first pixel to the last.
    pub fn length(&self) -> usize {
        let row = match self.depth {
            4 => self.width.div_ceil(8) * 4,
            depth => self.width * usize::from(depth.div_ceil(8)),
        };
        self.pitch * (self.height - 1) + row
    }
}

/// Bytes of so many pixels of a depth.
fn bytes(pixels: u16, depth: u16) -> u64 {
    match depth {
        4 => u64::from(pixels / 8) * 4,
        depth => u64::from(pixels) * u64::from(depth.div_ceil(8)),
    }
}

impl Registers {
    /// Reads register `index`.
    pub(super) fn read_dispi(&self, index: u16, memory: &VideoMemory) -> u16 {
        let capabilities = self.dispi[dispi::ENABLE] & dispi::GET_CAPABILITIES != 0;
        match usize::from(index) {
            dispi::X_RESOLUTION if capabilities => dispi::X_MOST,
            dispi::Y_RESOLUTION if capabilities => dispi::Y_MOST,
            dispi::DEPTH if capabilities => dispi::DEPTH_MOST,
            _ if index == dispi::MEMORY_64K => u16::try_from(memory.length() >> 16).unwrap_or(u16::MAX),
            index => self.dispi.get(index).copied().unwrap_or(0),
        }
    }

    /// Writes register `index`.
    pub(super) fn write_dispi(&mut self, index: u16, value: u16, memory: &VideoMemory) {
        match usize::from(index) {
            dispi::ID if !(dispi::ID_FIRST..=dispi::ID_LAST).contains(&value) => {}
            dispi::ID => self.dispi[dispi::ID] = value,
            dispi::BANK => {
                // In four planes, an address reaches four bytes.
                let window = if self.dispi[dispi::DEPTH] == 4 { 18 } else { 16 };
                let last = (memory.length() >> window).saturating_sub(1);
                self.dispi[dispi::BANK] = value & u16::try_from(last).unwrap_or(u16::MAX);
            }
            dispi::ENABLE => self.enable_dispi(value, memory),
            dispi::VIRTUAL_HEIGHT => {}
            index if index < usize::from(dispi::COUNT) => {
                self.dispi[index] = value;
                self.fit_dispi(memory);
            }
            _ => {}
        }
    }

    fn enable_dispi(&mut self, value: u16, memory: &VideoMemory) {
        let begins = value & dispi::ENABLED != 0 && !self.extended();
        self.dispi[dispi::ENABLE] = value;
        if !begins {
            self.dispi[dispi::BANK] = 0;
            return;
        }
        for register in [dispi::VIRTUAL_WIDTH, dispi::X_OFFSET, dispi::Y_OFFSET] {
            self.dispi[register] = 0;
        }
        self.fit_dispi(memory);
        let shown = self.linear();
        if value & dispi::KEEP_MEMORY == 0 {
            memory.clear(shown.pitch as u64 * shown.height as u64);
        }
        // The VGA is set so that the window shows banks of what is shown, and its own picture is about the same.
        self.gfx[gfx::MISC] = self.gfx[gfx::MISC] & !0x0c | 0x04 | gfx::MISC_GRAPHICS;
        self.gfx[gfx::MODE] &= !(gfx::MODE_INTERLEAVED | gfx::MODE_256);
        self.crtc[crtc::MODE] |= 3;
        self.crtc[crtc::OFFSET] = (shown.pitch >> 3) as u8;
        self.crtc[crtc::H_DISPLAY_END] = (shown.width >> 3).wrapping_sub(1) as u8;
        let last = shown.height - 1;
        self.crtc[crtc::V_DISPLAY_END] = last as u8;
        let overflow = (last >> 7 & 0x02) as u8 | (last >> 3 & 0x40) as u8 | crtc::OVERFLOW_LINE_COMPARE;
        self.crtc[crtc::OVERFLOW] = self.crtc[crtc::OVERFLOW] & !0x42 | overflow;
        self.crtc[crtc::LINE_COMPARE] = 0xff;
        self.crtc[crtc::MAX_SCAN] = self.crtc[crtc::MAX_SCAN] & !0x9f | 0x40;
        if shown.depth == 4 {
            self.seq[seq::CLOCKING] &= !seq::CLOCKING_HALF;
            self.seq[seq::MEMORY] &= !seq::MEMORY_CHAIN_4;
        } else {
            self.gfx[gfx::MODE] |= gfx::MODE_256;
            self.seq[seq::MEMORY] |= seq::MEMORY_CHAIN_4;
            self.seq[seq::MAP_MASK] |= 0x0f;
        }
    }

    /// Makes registers say what can be, while the extension is on.
    pub(super) fn fit_dispi(&mut self, memory: &VideoMemory) {
        if !self.extended() {
            return;
        }
        let r = &mut self.dispi;
        if !matches!(r[dispi::DEPTH], 4 | 8 | 15 | 16 | 24 | 32) {
            r[dispi::DEPTH] = 8;
        }
        let depth = r[dispi::DEPTH];
        // Pixels in planes come in bytes of eight; else any even number will do.
        let step = if depth == 4 { 8 } else { 2 };
        let wide = |value: u16| (value & !(step - 1)).min(dispi::X_MOST);
        // A pixel is counted as a byte at least, which bounds how large a picture is that has to be drawn.
        let row = |width: u16| bytes(width, depth).max(width.into());
        r[dispi::X_RESOLUTION] = wide(r[dispi::X_RESOLUTION]).max(8);
        r[dispi::VIRTUAL_WIDTH] = wide(r[dispi::VIRTUAL_WIDTH]).max(r[dispi::X_RESOLUTION]);
        let rows = memory.length() / row(r[dispi::VIRTUAL_WIDTH]);
        let rows = u16::try_from(rows).unwrap_or(u16::MAX);
        r[dispi::VIRTUAL_HEIGHT] = rows;
        r[dispi::Y_RESOLUTION] = r[dispi::Y_RESOLUTION].clamp(1, dispi::Y_MOST.min(rows));
        r[dispi::X_OFFSET] = r[dispi::X_OFFSET].min(dispi::X_MOST);
        r[dispi::Y_OFFSET] = r[dispi::Y_OFFSET].min(dispi::Y_MOST);
        let pitch = row(r[dispi::VIRTUAL_WIDTH]);
        let end = |x, y: u16| bytes(x, depth) + (u64::from(y) + u64::from(r[dispi::Y_RESOLUTION])) * pitch;
        if end(r[dispi::X_OFFSET], r[dispi::Y_OFFSET]) > memory.length() {
            if end(r[dispi::X_OFFSET], 0) > memory.length() {
                r[dispi::X_OFFSET] = 0;
            }
            r[dispi::Y_OFFSET] = 0;
        }
    }

    /// What is shown; meaningful while the extension is on.
    pub(super) fn linear(&self) -> Linear {
        let r = &self.dispi;
        let depth = r[dispi::DEPTH];
        let pitch = bytes(r[dispi::VIRTUAL_WIDTH], depth);
        Linear {
            width: r[dispi::X_RESOLUTION].max(1).into(),
            height: r[dispi::Y_RESOLUTION].max(1).into(),
            depth: depth as u8,
            pitch: pitch as usize,
            start: bytes(r[dispi::X_OFFSET], depth) + u64::from(r[dispi::Y_OFFSET]) * pitch,
        }
    }

    /// Whether the screen shows anything.
    pub(super) fn lit(&self) -> bool {
        let palette = self.attr_index & attr::SHOWN != 0;
        palette
            && (self.extended()
                || (self.seq[seq::CLOCKING] & seq::CLOCKING_OFF == 0 && self.crtc[crtc::MODE] & 0x80 != 0))
    }
}
