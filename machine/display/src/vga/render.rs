//! Drawing what the card shows: from registers and a copy of the memory that is shown to pixels.
//!
//! ```text
//!   CRT controller: a row of dots' addresses ([`super::crtc`])
//!     -> text: characters, fonts, cursor    \
//!     -> planes, two in turn, or 256 colours  -> dots of four bits -> palette -> DAC -> pixels
//!   Bochs' extension: pixels in rows ---------------------------------------/
//! ```

use super::crtc::{Picture, Scan};
use super::dispi::Linear;
use super::registers::*;
use super::state::Registers;
use crate::screen::Frame;

/// Bytes of memory that a VGA's own modes show: 64 KiB of each plane.
pub const PLANES: usize = 256 << 10;
/// What is drawn while there is no mode worth the name.
const NOTHING: (usize, usize) = (640, 400);

/// What blinks is shown now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blink {
    /// The cursor: on for 8 pictures of 16.
    pub cursor: bool,
    /// Characters: on for 16 of 32.
    pub characters: bool,
}

impl Registers {
    /// What blinks at some moment of guest time; always on where nothing does.
    pub(super) fn blink(&self, now_ns: u64) -> Blink {
        let pictures = self.pictures(now_ns);
        let characters = self.attr[attr::MODE] & attr::MODE_BLINK == 0 || self.extended();
        let cursor = !self.is_text() || self.extended() || self.crtc[crtc::CURSOR_START] & 0x20 != 0;
        Blink { cursor: cursor || pictures & 8 == 0, characters: characters || pictures & 16 == 0 }
    }

    /// A colour of the DAC.
    fn colour(&self, index: u8) -> u32 {
        let at = usize::from(index & self.dac_mask) * 3;
        let part = |n: usize| {
            let value = self.dac.get(at + n).copied().unwrap_or(0);
            u32::from(if self.dac_8_bits() { value } else { value << 2 | value >> 4 & 3 })
        };
        part(0) << 16 | part(1) << 8 | part(2)
    }

    /// Colours of four bits by way of the palette.
    fn palette(&self) -> [u32; 16] {
        let select = self.attr[attr::COLOUR_SELECT];
        std::array::from_fn(|dot| {
            let dot = dot as u8 & self.attr[attr::PLANES] & 15;
            let entry = self.attr[usize::from(dot)] & 0x3f;
            let entry = if self.attr[attr::MODE] & attr::MODE_SELECT != 0 {
                entry & 0x0f | (select & 0x03) << 4
            } else {
                entry
            };
            self.colour(entry | (select & 0x0c) << 4)
        })
    }

    fn colours(&self) -> Vec<u32> {
        (0..=255).map(|index| self.colour(index)).collect()
    }

    /// Draws what is shown. `memory` begins with what is shown first.
    pub(super) fn draw(&self, memory: &[u8], blink: Blink) -> Frame {
        if self.extended() {
            let shown = self.linear();
            let frame = Frame::black(shown.width, shown.height);
            return if self.lit() { self.draw_linear(&shown, memory, frame) } else { frame };
        }
        let picture = self.picture();
        let (width, height) = (picture.width(), picture.height);
        if width < 64 || height < 64 {
            return Frame::black(NOTHING.0, NOTHING.1);
        }
        if !self.lit() {
            return Frame::black(width, height);
        }
        let drawing = Drawing { registers: self, memory, picture: &picture, blink };
        let wide = self.attr[attr::MODE] & attr::MODE_256 != 0 && !self.is_text();
        let (palette, colours) = (self.palette(), if wide { self.colours() } else { Vec::new() });
        let mut pixels = Vec::with_capacity(width * height);
        let mut dots = Vec::new();
        for scan in picture.scans() {
            dots.clear();
            if self.is_text() {
                drawing.text(scan, &mut dots)
            } else {
                drawing.graphics(scan, &mut dots)
            }
            if wide {
                // Pairs of dots are one pixel, shown in the place of both.
                for pair in dots.chunks_exact_mut(2) {
                    pair.fill(pair[0] << 4 | pair[1] & 15);
                }
            }
            let pan = drawing.pan(scan.below);
            for dot in &dots[pan..pan + picture.characters * picture.dots] {
                let pixel = if wide { colours[usize::from(*dot)] } else { palette[usize::from(*dot & 15)] };
                pixels.push(pixel);
                if picture.half {
                    pixels.push(pixel);
                }
            }
        }
        Frame { width, height, pixels }
    }

    fn draw_linear(&self, shown: &Linear, memory: &[u8], mut frame: Frame) -> Frame {
        let (palette, colours) = (self.palette(), self.colours());
        let rows = frame.pixels.chunks_exact_mut(shown.width).zip(memory.chunks(shown.pitch));
        let swap = self.big_endian;
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1]];
            u32::from(if swap { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        // A component of `bits` at `shift`, its upper bits repeated in the lower ones.
        let part = |value: u32, shift: u32, bits: u32| {
            let part = value >> shift & ((1 << bits) - 1);
            part << (8 - bits) | part >> (2 * bits - 8)
        };
        for (pixels, bytes) in rows {
            match shown.depth {
                4 => {
                    for (pixels, planes) in pixels.chunks_mut(8).zip(bytes.chunks_exact(4)) {
                        for (n, pixel) in pixels.iter_mut().enumerate() {
                            *pixel = palette[usize::from(planar_dot(planes, n))];
                        }
                    }
                }
                8 => pixels.iter_mut().zip(bytes).for_each(|(pixel, byte)| *pixel = colours[usize::from(*byte)]),
                15 => pixels.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(pixel, bytes)| {
                    let v = word(bytes);
                    *pixel = part(v, 10, 5) << 16 | part(v, 5, 5) << 8 | part(v, 0, 5);
                }),
                16 => pixels.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(pixel, bytes)| {
                    let v = word(bytes);
                    *pixel = part(v, 11, 5) << 16 | part(v, 5, 6) << 8 | part(v, 0, 5);
                }),
                24 => pixels.iter_mut().zip(bytes.chunks_exact(3)).for_each(|(pixel, bytes)| {
                    let [a, b, c] = [bytes[0], bytes[1], bytes[2]];
                    *pixel = u32::from_le_bytes(if swap { [c, b, a, 0] } else { [a, b, c, 0] });
                }),
                _ => pixels.iter_mut().zip(bytes.chunks_exact(4)).for_each(|(pixel, bytes)| {
                    let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
                    *pixel = if swap { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) } & 0xff_ffff;
                }),
            }
        }
        frame
    }

    /// The memory that is shown: where it begins, and its bytes.
    pub(super) fn shown(&self) -> (u64, usize) {
        if self.extended() {
            let shown = self.linear();
            (shown.start, shown.length())
        } else {
            (0, PLANES)
        }
    }
}

/// Dot `n` of eight: a bit of each plane.
fn planar_dot(planes: &[u8], n: usize) -> u8 {
    planes.iter().take(4).enumerate().map(|(plane, byte)| (byte >> (7 - n) & 1) << plane).sum()
}

/// Drawing a VGA's own modes.
struct Drawing<'a> {
    registers: &'a Registers,
    memory: &'a [u8],
    picture: &'a Picture,
    blink: Blink,
}

impl Drawing<'_> {
    /// Dots by which a row is moved to the left.
    fn pan(&self, below: bool) -> usize {
        let registers = self.registers;
        if below && registers.attr[attr::MODE] & attr::MODE_PAN_TOP != 0 {
            return 0;
        }
        let pan = usize::from(registers.attr[attr::PANNING] & 15);
        match (self.picture.dots, pan) {
            (9, 8..) => 0,
            (9, _) => pan + 1,
            _ => pan & 7,
        }
    }

    /// The bytes of the four planes at an address.
    fn planes(&self, address: u32) -> &[u8] {
        let at = address as usize * 4;
        self.memory.get(at..at + 4).unwrap_or(&[0; 4])
    }

    /// A row of dots of characters, and one character more, for panning.
    fn text(&self, scan: Scan, dots: &mut Vec<u8>) {
        let registers = self.registers;
        let fonts = registers.seq[seq::FONTS];
        let font = |select: u8| u32::from(select & 3) * 0x4000 + u32::from(select >> 2 & 1) * 0x2000;
        let (bright, plain) = (font(fonts >> 2 & 3 | fonts >> 3 & 4), font(fonts & 3 | fonts >> 2 & 4));
        let cursor = {
            let (start, end) = (registers.crtc[crtc::CURSOR_START], registers.crtc[crtc::CURSOR_END]);
            let shown = start & 0x20 == 0 && self.blink.cursor && (start & 0x1f..=end & 0x1f).contains(&scan.row);
            shown.then(|| registers.cursor().wrapping_add(u32::from(end >> 5 & 3)))
        };
        let blinks = registers.attr[attr::MODE] & attr::MODE_BLINK != 0;
        let underlined = registers.crtc[crtc::UNDERLINE] & 0x1f == scan.row;
        let lines = registers.attr[attr::MODE] & attr::MODE_LINES != 0;
        for n in 0..=self.picture.characters as u32 {
            let address = scan.address.wrapping_add(n);
            let cell = self.planes(self.picture.place(address, scan.row));
            let (character, attribute) = (cell[0], cell[1]);
            let map = if attribute & 8 != 0 { bright } else { plain };
            let mut glyph = self.planes(map + u32::from(character) * 32 + u32::from(scan.row))[2];
            let mut ninth = lines && (0xc0..0xe0).contains(&character) && glyph & 1 != 0;
            let (mut ink, mut paper) = (attribute & 15, attribute >> 4);
            if blinks {
                paper &= 7;
                if attribute & 0x80 != 0 && !self.blink.characters {
                    ink = paper;
                }
            }
            if underlined && attribute & 7 == 1 {
                (glyph, ninth) = (0xff, true);
            }
            if cursor == Some(address) {
                (glyph, ninth) = (0xff, true);
                ink = attribute & 15;
            }
            dots.extend((0..8).rev().map(|bit| if glyph >> bit & 1 != 0 { ink } else { paper }));
            if self.picture.dots == 9 {
                dots.push(if ninth { ink } else { paper });
            }
        }
    }

    /// A row of dots of pixels, and eight more, for panning.
    fn graphics(&self, scan: Scan, dots: &mut Vec<u8>) {
        let registers = self.registers;
        let mode = registers.gfx[gfx::MODE];
        for n in 0..=self.picture.characters as u32 {
            let planes = self.planes(self.picture.place(scan.address.wrapping_add(n), scan.row));
            if mode & gfx::MODE_256 != 0 {
                dots.extend(planes.iter().flat_map(|byte| [byte >> 4, byte & 15]));
            } else if mode & gfx::MODE_INTERLEAVED != 0 {
                // Four dots of planes 0 and 2, then four of planes 1 and 3; two bits each.
                for (low, high) in [(planes[0], planes[2]), (planes[1], planes[3])] {
                    dots.extend([6, 4, 2, 0].map(|shift| low >> shift & 3 | (high >> shift & 3) << 2));
                }
            } else {
                dots.extend((0..8).map(|n| planar_dot(planes, n)));
            }
        }
        let attribute_mode = registers.attr[attr::MODE];
        let sixteen = attribute_mode & attr::MODE_256 == 0;
        if sixteen && attribute_mode & attr::MODE_BLINK != 0 {
            // The upper bit of a dot blinks.
            for dot in dots {
                *dot = if self.blink.characters { *dot | 8 } else { *dot ^ 8 };
            }
        }
    }
}
