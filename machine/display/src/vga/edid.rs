//! What the monitor says of itself (VESA E-EDID release A, revision 1; EDID structure 1.4).

/// Bytes of the block.
pub const LENGTH: usize = 128;

/// Pixels in a row, and rows, of the mode that the monitor prefers.
pub const PREFERRED: [u16; 2] = [1920, 1080];

/// The mode that the monitor prefers: 1920x1080 at 60 Hz (CTA-861, format 16).
struct Timing;

impl Timing {
    const CLOCK_10_KHZ: u16 = 14_850;
    const ACTIVE: [u16; 2] = PREFERRED;
    const BLANK: [u16; 2] = [280, 45];
    const FRONT: [u16; 2] = [88, 4];
    const SYNC: [u16; 2] = [44, 5];
    /// Its sides in millimetres.
    const SIZE: [u16; 2] = [531, 299];

    /// A detailed timing descriptor (section 3.10.2).
    fn descriptor() -> [u8; 18] {
        let clock = Self::CLOCK_10_KHZ.to_le_bytes();
        let low = |value: u16| value as u8;
        let high = |a: u16, b: u16| ((a >> 8) << 4 | b >> 8) as u8;
        let [x, y] = [0, 1].map(|n| (Self::ACTIVE[n], Self::BLANK[n]));
        [
            clock[0],
            clock[1],
            low(x.0),
            low(x.1),
            high(x.0, x.1),
            low(y.0),
            low(y.1),
            high(y.0, y.1),
            low(Self::FRONT[0]),
            low(Self::SYNC[0]),
            (low(Self::FRONT[1]) & 15) << 4 | low(Self::SYNC[1]) & 15,
            (high(Self::FRONT[0], Self::SYNC[0]) & 0x33) << 2,
            low(Self::SIZE[0]),
            low(Self::SIZE[1]),
            high(Self::SIZE[0], Self::SIZE[1]),
            0,
            0,
            // Separate synchronisation, both positive.
            0x1e,
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

/// The block.
pub fn block() -> [u8; LENGTH] {
    let mut edid = [0; LENGTH];
    edid[1..7].fill(0xff);
    // "LDG", five bits a letter, upper byte first.
    let id = "LDG".bytes().fold(0u16, |id, letter| id << 5 | u16::from(letter - b'@'));
    edid[8..10].copy_from_slice(&id.to_be_bytes());
    edid[10..12].copy_from_slice(&1u16.to_le_bytes());
    // Made in 2026; version 1.4.
    edid[17..20].copy_from_slice(&[36, 1, 4]);
    // Digital, eight bits a colour; its sides in centimetres; gamma 2.2; RGB, a preferred mode, sRGB.
    edid[20..25].copy_from_slice(&[0xa0, (Timing::SIZE[0] / 10) as u8, (Timing::SIZE[1] / 10) as u8, 120, 0x06]);
    // The colours of sRGB.
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    // 640x480, 800x600 and 1024x768, at 60 Hz.
    edid[35..38].copy_from_slice(&[0x21, 0x08, 0x00]);
    for (slot, (width, aspect)) in edid[38..54].chunks_exact_mut(2).zip(STANDARD) {
        slot.copy_from_slice(&[(width / 8 - 31) as u8, aspect << 6]);
    }
    edid[54..72].copy_from_slice(&Timing::descriptor());
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
        let edid = block();
        assert_eq!(edid[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
        assert_eq!(edid.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256, 0);
        // The bytes that monitors with this mode commonly have.
        assert_eq!(edid[54..66], [0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d, 0x40, 0x58, 0x2c, 0x45, 0x00]);
        assert_eq!(edid[38..42], [0xd1, 0x00, 0xb3, 0x00]);
        assert_eq!(edid[72..85], [0, 0, 0, 0xfc, 0, b'l', b'o', b'd', b'g', b'e', b'\n', b' ', b' ']);
        assert_eq!(u16::from_be_bytes([edid[8], edid[9]]), 0b01100_00100_00111);
    }
}
