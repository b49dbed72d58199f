//! What the monitor says of itself (VESA E-EDID release A, revision 1; EDID structure 1.4).

use std::ops::RangeInclusive;

/// Bytes of the block.
pub const LENGTH: usize = 128;

/// Pixels in a row, and rows, of the mode that the monitor prefers unless someone wishes for another one.
pub const PREFERRED: [u16; 2] = [1920, 1080];
/// How many pixels its sides can have: what a detailed timing can say, and Linux takes from one.
pub const SIDES: RangeInclusive<u16> = 64..=0xfff;

/// A mode: horizontally, then vertically.
struct Timing {
    clock_10_khz: u16,
    active: [u16; 2],
    blank: [u16; 2],
    front: [u16; 2],
    sync: [u16; 2],
    /// Bits of the descriptor's last byte.
    polarity: u8,
}

impl Timing {
    /// Vertical synchronisation is positive.
    const VERTICAL: u8 = 1 << 2;
    /// Horizontal.
    const HORIZONTAL: u8 = 1 << 1;

    /// That of a mode of this size, at 60 Hz, or as fast as a descriptor can say.
    fn of(size: [u16; 2]) -> Self {
        if size == PREFERRED {
            // CTA-861, format 16.
            return Self {
                clock_10_khz: 14_850,
                active: size,
                blank: [280, 45],
                front: [88, 4],
                sync: [44, 5],
                polarity: Self::HORIZONTAL | Self::VERTICAL,
            };
        }
        Self::reduced(size)
    }

    /// VESA's coordinated video timing with reduced blanking (CVT 1.1, section 5.4).
    fn reduced(size: [u16; 2]) -> Self {
        /// Least time for vertical blanking.
        const BLANK_PS: u64 = 460_000_000;
        const FRAME_PS: u64 = 1_000_000_000_000 / 60;
        let [width, height] = size.map(u64::from);
        let sync = match (width, height) {
            _ if height * 4 == width * 3 => 4,
            _ if height * 16 == width * 9 => 5,
            _ if height * 16 == width * 10 => 6,
            _ if height * 5 == width * 4 || height * 15 == width * 9 => 7,
            _ => 10,
        };
        let line_ps = (FRAME_PS - BLANK_PS) / height.max(1);
        // Front porch, synchronisation, and at least six lines behind it.
        let lines = (BLANK_PS / line_ps + 1).max(3 + sync + 6);
        // Clocks come in steps of 250 kHz.
        let clock = (width + 160) * (height + lines) * 60 / 250_000 * 25;
        Self {
            clock_10_khz: u16::try_from(clock).unwrap_or(u16::MAX),
            active: size,
            blank: [160, lines as u16],
            front: [48, 3],
            sync: [32, sync as u16],
            polarity: Self::HORIZONTAL,
        }
    }

    /// Its sides in millimetres: pixels are those of 1920 on 531.
    fn size(&self) -> [u16; 2] {
        self.active.map(|pixels| (u32::from(pixels) * 531 / 1920).max(1) as u16)
    }

    /// A detailed timing descriptor (section 3.10.2).
    fn descriptor(&self) -> [u8; 18] {
        let clock = self.clock_10_khz.to_le_bytes();
        let low = |value: u16| value as u8;
        let high = |a: u16, b: u16| ((a >> 8) << 4 | b >> 8) as u8;
        let [x, y] = [0, 1].map(|n: usize| (self.active[n], self.blank[n]));
        let size = self.size();
        [
            clock[0],
            clock[1],
            low(x.0),
            low(x.1),
            high(x.0, x.1),
            low(y.0),
            low(y.1),
            high(y.0, y.1),
            low(self.front[0]),
            low(self.sync[0]),
            (low(self.front[1]) & 15) << 4 | low(self.sync[1]) & 15,
            (high(self.front[0], self.sync[0]) & 0x33) << 2,
            low(size[0]),
            low(size[1]),
            high(size[0], size[1]),
            0,
            0,
            // Separate synchronisation.
            0x18 | self.polarity,
        ]
    }
}

/// Standard timings (section 3.9): pixels in a row, and the code of the aspect; all at 60 Hz.
const STANDARD: [(u16, u8); 8] = [
    (1920, WIDE_10),
    (1680, WIDE_10),
    (1600, TV),
    (1600, WIDE_9),
    (1440, WIDE_10),
    (1280, SQUARE),
    (1280, WIDE_10),
    (1280, WIDE_9),
];
const WIDE_10: u8 = 0;
const TV: u8 = 1;
const SQUARE: u8 = 2;
const WIDE_9: u8 = 3;

/// A descriptor of text (section 3.10.3), which ends with a line feed.
fn text(tag: u8, text: &str) -> [u8; 18] {
    let mut descriptor = [b' '; 18];
    descriptor[..5].copy_from_slice(&[0, 0, 0, tag, 0]);
    for (byte, character) in descriptor[5..].iter_mut().zip(text.bytes().chain([b'\n'])) {
        *byte = character;
    }
    descriptor
}

/// The block of a monitor that prefers a mode of this size, each side one of [`SIDES`] or the nearest to that.
pub fn block(preferred: [u16; 2]) -> [u8; LENGTH] {
    let timing = Timing::of(preferred.map(|side| side.clamp(*SIDES.start(), *SIDES.end())));
    let centimetres = timing.size().map(|side| (side / 10).clamp(1, 0xff) as u8);
    let mut edid = [0; LENGTH];
    edid[1..7].fill(0xff);
    // "LDG", five bits a letter, upper byte first.
    let id = "LDG".bytes().fold(0u16, |id, letter| id << 5 | u16::from(letter - b'@'));
    edid[8..10].copy_from_slice(&id.to_be_bytes());
    edid[10..12].copy_from_slice(&1u16.to_le_bytes());
    // Made in 2026; version 1.4.
    edid[17..20].copy_from_slice(&[36, 1, 4]);
    // Digital, eight bits a colour; its sides in centimetres; gamma 2.2; RGB, a preferred mode, sRGB.
    edid[20..25].copy_from_slice(&[0xa0, centimetres[0], centimetres[1], 120, 0x06]);
    // The colours of sRGB.
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    // 640x480, 800x600 and 1024x768, at 60 Hz.
    edid[35..38].copy_from_slice(&[0x21, 0x08, 0x00]);
    for (slot, (width, aspect)) in edid[38..54].chunks_exact_mut(2).zip(STANDARD) {
        slot.copy_from_slice(&[(width / 8 - 31) as u8, aspect << 6]);
    }
    edid[54..72].copy_from_slice(&timing.descriptor());
    edid[72..90].copy_from_slice(&text(0xfc, "lodge"));
    // Limits: 50 to 125 Hz, 30 to 160 kHz, 600 MHz.
    let mut limits = text(0xfd, "");
    limits[5..11].copy_from_slice(&[50, 125, 30, 160, 60, 0x01]);
    limits[11] = b'\n';
    edid[90..108].copy_from_slice(&limits);
    edid[108..126].copy_from_slice(&text(0xff, "1"));
    let sum = edid.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    edid[127] = sum.wrapping_neg();
    edid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_one() {
        let edid = block(PREFERRED);
        assert_eq!(edid[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
        assert_eq!(edid.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256, 0);
        // The bytes that monitors with this mode commonly have.
        assert_eq!(edid[54..66], [0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d, 0x40, 0x58, 0x2c, 0x45, 0x00]);
        assert_eq!(edid[38..42], [0xd1, 0x00, 0xb3, 0x00]);
        assert_eq!(edid[72..85], [0, 0, 0, 0xfc, 0, b'l', b'o', b'd', b'g', b'e', b'\n', b' ', b' ']);
        assert_eq!(u16::from_be_bytes([edid[8], edid[9]]), 0b01100_00100_00111);
    }

    #[test]
    fn any_size_can_be_preferred() {
        // What `cvt -r` says of these: pixels, blanking, lines, blanking, clock in 10 kHz, lines of synchronisation.
        for (size, blank, clock, sync) in [([1280, 800], 23, 7100, 6), ([1024, 768], 22, 5600, 4)] {
            let timing = Timing::of(size);
            assert_eq!((timing.blank, timing.sync), ([160, blank], [32, sync]));
            assert_eq!(timing.clock_10_khz, clock, "{size:?}");
        }
        for size in [[64, 64], [65, 4095], [4095, 64], [4095, 4095], [1366, 768], [800, 600], [0, 0xffff]] {
            let edid = block(size);
            assert_eq!(edid.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256, 0);
            let [width, height] = size.map(|side| side.clamp(64, 4095));
            let half = |low: usize, high: usize| u16::from(edid[54 + low]) | u16::from(edid[54 + high] >> 4) << 8;
            assert_eq!([half(2, 4), half(5, 7)], [width, height]);
            assert!(edid[54..56] != [0, 0] && edid[66..69] != [0, 0, 0] && edid[21] > 0 && edid[22] > 0);
        }
    }
}
