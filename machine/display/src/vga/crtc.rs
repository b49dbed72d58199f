//! What the CRT controller does: which memory each row of dots comes from, and when.

use super::registers::*;
use super::state::Registers;

/// The picture that the CRT controller makes.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// Characters, or groups of eight dots, in a row.
    pub characters: usize,
    /// Dots of a character: 8, or 9 in text modes.
    pub dots: usize,
    /// Each dot is shown twice.
    pub half: bool,
    /// Rows of dots.
    pub height: usize,
    /// Bits of an address that reach memory.
    pub mask: u32,
    start: u32,
    step: u32,
    preset: u8,
    max_scan: u8,
    double: bool,
    split: usize,
    /// How far addresses are shifted when they go to memory, which has no gaps: 0 bytes, 1 words, 2 double words.
    shift: u8,
    /// The mode register.
    mode: u8,
}

/// A row of dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Address of the first character.
    pub address: u32,
    /// Row within a row of characters.
    pub row: u8,
    /// It lies below where the screen is split.
    pub below: bool,
}

impl Picture {
    /// Columns of dots.
    pub fn width(&self) -> usize {
        self.characters * self.dots * if self.half { 2 } else { 1 }
    }

    /// Where in each plane the character at `address` is, in row `row` of a row of characters.
    pub fn place(&self, address: u32, row: u8) -> u32 {
        let mut at = address & self.mask;
        // Rows of characters interleaved as on CGA and Hercules: row bits take the place of address bits 13 and 14.
        for (bit, select) in [(13, 1), (14, 2)] {
            if self.mode & select == 0 {
                let bit = 1u32 << (bit - self.shift);
                at = if row & select != 0 { at | bit } else { at & !bit };
            }
        }
        at
    }

    /// Rows of dots from the top.
    pub fn scans(&self) -> impl Iterator<Item = Scan> + use<> {
        let picture = self.clone();
        let mut next = Scan { address: picture.start, row: picture.preset, below: false };
        let mut repeated = false;
        (0..picture.height).map(move |y| {
            let scan = next;
            if y == picture.split {
                next = Scan { address: 0, row: 0, below: true };
                repeated = false;
            } else if picture.double && !repeated {
                repeated = true;
            } else {
                repeated = false;
                if next.row == picture.max_scan {
                    next.row = 0;
                    next.address = next.address.wrapping_add(picture.step);
                } else {
                    next.row = (next.row + 1) & 0x1f;
                }
            }
            scan
        })
    }
}

impl Registers {
    fn crtc16(&self, high: usize, low: usize) -> u16 {
        u16::from(self.crtc[high]) << 8 | u16::from(self.crtc[low])
    }

    /// A vertical count whose bits 8 and 9 are these of the overflow register.
    fn vertical(&self, register: usize, bits: [u8; 2]) -> usize {
        let overflow = self.crtc[crtc::OVERFLOW];
        let [eight, nine] = bits.map(|bit| usize::from(overflow >> bit & 1));
        usize::from(self.crtc[register]) | eight << 8 | nine << 9
    }

    /// Whether characters are shown, and not pixels.
    pub(super) fn is_text(&self) -> bool {
        self.gfx[gfx::MISC] & gfx::MISC_GRAPHICS == 0
    }

    /// Vertical counts are of two rows of dots each.
    fn vertical_factor(&self) -> usize {
        if self.crtc[crtc::MODE] & 4 != 0 { 2 } else { 1 }
    }

    fn dots(&self) -> usize {
        if self.seq[seq::CLOCKING] & seq::CLOCKING_8_DOTS == 0 && self.is_text() { 9 } else { 8 }
    }

    /// The picture that the CRT controller makes.
    pub(super) fn picture(&self) -> Picture {
        let mode = self.crtc[crtc::MODE];
        let factor = self.vertical_factor();
        let max_scan = self.crtc[crtc::MAX_SCAN];
        let split = self.vertical(crtc::LINE_COMPARE, [4, 4]) & 0x1ff | usize::from(max_scan >> 6 & 1) << 9;
        let shift = match (self.crtc[crtc::UNDERLINE] & 0x40 != 0, mode & 0x40 != 0) {
            (true, _) => 2,
            (_, false) => 1,
            _ => 0,
        };
        let byte_pan = u32::from(self.crtc[crtc::PRESET_ROW] >> 5 & 3);
        Picture {
            characters: usize::from(self.crtc[crtc::H_DISPLAY_END]) + 1,
            dots: self.dots(),
            half: self.seq[seq::CLOCKING] & seq::CLOCKING_HALF != 0,
            height: (self.vertical(crtc::V_DISPLAY_END, [1, 6]) + 1) * factor,
            mask: 0xffff >> shift,
            start: u32::from(self.crtc16(crtc::START_HIGH, crtc::START_LOW)) + byte_pan,
            step: u32::from(self.crtc[crtc::OFFSET]) * 2,
            preset: self.crtc[crtc::PRESET_ROW] & 0x1f,
            max_scan: max_scan & 0x1f,
            double: max_scan & 0x80 != 0,
            split: split * factor,
            shift,
            mode,
        }
    }

    /// Address of the cursor.
    pub(super) fn cursor(&self) -> u32 {
        self.crtc16(crtc::CURSOR_HIGH, crtc::CURSOR_LOW).into()
    }

    fn timing(&self) -> Timing {
        let clock = if self.misc >> 2 & 3 == 1 { 28_322_000 } else { 25_175_000 };
        let dots = if self.seq[seq::CLOCKING] & seq::CLOCKING_8_DOTS == 0 { 9 } else { 8 };
        let dots = if self.seq[seq::CLOCKING] & seq::CLOCKING_HALF != 0 { 2 * dots } else { dots };
        let factor = self.vertical_factor() as u64;
        let retrace = self.vertical(crtc::V_RETRACE_START, [2, 7]) as u64;
        let end = u64::from(self.crtc[crtc::V_RETRACE_END] & 15);
        let length = (end.wrapping_sub(retrace) & 15).max(1);
        let timing = Timing {
            clock,
            row: (u64::from(self.crtc[crtc::H_TOTAL]) + 5) * dots,
            rows: (self.vertical(crtc::V_TOTAL, [0, 5]) as u64 + 2) * factor,
            shown: (u64::from(self.crtc[crtc::H_DISPLAY_END]) + 1) * dots,
            shown_rows: (self.vertical(crtc::V_DISPLAY_END, [1, 6]) as u64 + 1) * factor,
            retrace: retrace * factor..(retrace + length) * factor,
        };
        let hertz = timing.clock / (timing.row * timing.rows);
        let sound = (40..=160).contains(&hertz)
            && timing.shown < timing.row
            && timing.shown_rows < timing.rows
            && timing.retrace.end <= timing.rows;
        if sound && !self.extended() { timing } else { Timing::default() }
    }

    /// Input status 1 at some moment of guest time.
    pub(super) fn status_1(&self, now_ns: u64) -> u8 {
        let timing = self.timing();
        let dots = u128::from(now_ns) * u128::from(timing.clock) / 1_000_000_000;
        let dot = (dots % u128::from(timing.row * timing.rows)) as u64;
        let (row, column) = (dot / timing.row, dot % timing.row);
        let blank = row >= timing.shown_rows || column >= timing.shown;
        let retrace = timing.retrace.contains(&row);
        let bit = |set, bit| if set { bit } else { 0 };
        bit(blank, STATUS_1_BLANK) | bit(retrace, STATUS_1_RETRACE)
    }

    /// Pictures since power-on, about: what blinks counts them.
    pub(super) fn pictures(&self, now_ns: u64) -> u64 {
        now_ns / 16_666_667
    }
}

/// When what is shown; in dots of the dot clock, and rows.
struct Timing {
    clock: u64,
    row: u64,
    rows: u64,
    shown: u64,
    shown_rows: u64,
    retrace: std::ops::Range<u64>,
}

impl Default for Timing {
    /// 640 by 400 at 70 Hz.
    fn default() -> Self {
        Self { clock: 25_175_000, row: 800, rows: 449, shown: 640, shown_rows: 400, retrace: 412..414 }
    }
}
