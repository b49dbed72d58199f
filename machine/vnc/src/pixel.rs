//! Formats of pixels (RFC 6143 section 7.4).

use crate::message::ProtocolError;

/// A format that a viewer has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelFormat {
    /// Bytes a pixel: 1, 2 or 4.
    pub bytes: usize,
    /// Bits of a pixel that count.
    pub depth: u8,
    /// The upper byte comes first.
    pub big_endian: bool,
    /// Pixels are colours, not indices into a map.
    pub true_colour: bool,
    /// Highest value of red, green, blue.
    pub max: [u16; 3],
    /// Where in a pixel each begins.
    pub shift: [u8; 3],
}

impl PixelFormat {
    /// What a server says it has: 32 bits, blue lowest.
    pub const NATIVE: Self =
        Self { bytes: 4, depth: 24, big_endian: false, true_colour: true, max: [255; 3], shift: [16, 8, 0] };

    /// The format that viewers with a colour map get: three bits red, three green, two blue; the map says so.
    const MAPPED: ([u16; 3], [u8; 3]) = ([7, 7, 3], [5, 2, 0]);

    /// Reads the 16 bytes of a format.
    pub fn parse(data: &[u8; 16]) -> Result<Self, ProtocolError> {
        let word = |at| u16::from_be_bytes([data[at], data[at + 1]]);
        let bytes = match data[0] {
            8 => 1,
            16 => 2,
            32 => 4,
            bits => return Err(ProtocolError::Format { bits }),
        };
        let true_colour = data[3] != 0;
        let (max, shift) =
            if true_colour { ([word(4), word(6), word(8)], [data[10], data[11], data[12]]) } else { Self::MAPPED };
        if shift.iter().any(|shift| *shift > 31) {
            return Err(ProtocolError::Format { bits: data[0] });
        }
        Ok(Self { bytes, depth: data[1], big_endian: data[2] != 0, true_colour, max, shift })
    }

    /// The 16 bytes of a format.
    pub fn write(&self) -> [u8; 16] {
        let mut data = [0; 16];
        data[0] = (self.bytes * 8) as u8;
        data[1] = self.depth;
        data[2] = self.big_endian.into();
        data[3] = self.true_colour.into();
        for n in 0..3 {
            data[4 + 2 * n..][..2].copy_from_slice(&self.max[n].to_be_bytes());
            data[10 + n] = self.shift[n];
        }
        data
    }

    /// The 256 entries of the colour map: red, green, blue, of 16 bits each.
    pub fn map() -> impl Iterator<Item = [u16; 3]> {
        (0..256u32).map(|index| {
            let (max, shift) = Self::MAPPED;
            [0, 1, 2].map(|n| {
                let part = index >> shift[n] & u32::from(max[n]);
                (part * 0xffff / u32::from(max[n])) as u16
            })
        })
    }
}

/// Turns pixels of a frame into those of a format.
pub struct Converter {
    format: PixelFormat,
    /// What each value of red, green and blue adds.
    parts: Box<[[u32; 256]; 3]>,
    /// Which bytes of a pixel are sent in compressed encodings: first, count.
    compact: (usize, usize),
}

impl Converter {
    /// To this format.
    pub fn new(format: PixelFormat) -> Self {
        let mut parts = Box::new([[0; 256]; 3]);
        for n in 0..3 {
            for (value, part) in parts[n].iter_mut().enumerate() {
                // Rounded, in the range that the format has.
                let scaled = (value as u32 * u32::from(format.max[n]) + 127) / 255;
                *part = scaled.wrapping_shl(format.shift[n].into());
            }
        }
        let compact = Self::compact(&format, &parts);
        Self { format, parts, compact }
    }

    /// ZRLE leaves out a byte of 32 that never counts (section 7.7.5).
    fn compact(format: &PixelFormat, parts: &[[u32; 256]; 3]) -> (usize, usize) {
        let all = parts[0][255] | parts[1][255] | parts[2][255];
        if format.bytes != 4 || !format.true_colour || format.depth > 24 {
            return (0, format.bytes);
        }
        match (all < 1 << 24, all & 0xff == 0, format.big_endian) {
            (true, _, false) | (false, true, true) => (0, 3),
            (true, _, true) | (false, true, false) => (1, 3),
            _ => (0, 4),
        }
    }

    /// A pixel of a frame in the format.
    pub fn convert(&self, pixel: u32) -> u32 {
        let part = |n: usize, shift: u32| self.parts[n][(pixel >> shift & 0xff) as usize];
        part(0, 16) | part(1, 8) | part(2, 0)
    }

    fn bytes(&self, value: u32) -> [u8; 4] {
        match (self.format.bytes, self.format.big_endian) {
            (2, true) => {
                let [high, low] = (value as u16).to_be_bytes();
                [high, low, 0, 0]
            }
            (4, true) => value.to_be_bytes(),
            _ => value.to_le_bytes(),
        }
    }

    /// Appends a converted pixel, whole.
    pub fn put(&self, value: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes(value)[..self.format.bytes]);
    }

    /// Appends a converted pixel as compressed encodings have it.
    pub fn put_compact(&self, value: u32, out: &mut Vec<u8>) {
        let (first, count) = self.compact;
        out.extend_from_slice(&self.bytes(value)[first..first + count]);
    }

    /// Bytes of a pixel as compressed encodings have it.
    pub fn compact_bytes(&self) -> usize {
        self.compact.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(format: PixelFormat, pixel: u32) -> (Vec<u8>, Vec<u8>) {
        let converter = Converter::new(PixelFormat::parse(&format.write()).unwrap());
        let (mut whole, mut compact) = (Vec::new(), Vec::new());
        converter.put(converter.convert(pixel), &mut whole);
        converter.put_compact(converter.convert(pixel), &mut compact);
        assert_eq!(compact.len(), converter.compact_bytes());
        (whole, compact)
    }

    #[test]
    fn pixels_of_every_width_and_order() {
        let native = PixelFormat::NATIVE;
        assert_eq!(sent(native, 0x11_2233), (vec![0x33, 0x22, 0x11, 0], vec![0x33, 0x22, 0x11]));
        let big = PixelFormat { big_endian: true, ..native };
        assert_eq!(sent(big, 0x11_2233), (vec![0, 0x11, 0x22, 0x33], vec![0x11, 0x22, 0x33]));
        let upper = PixelFormat { shift: [24, 16, 8], ..native };
        assert_eq!(sent(upper, 0x11_2233), (vec![0, 0x33, 0x22, 0x11], vec![0x33, 0x22, 0x11]));
        let upper_big = PixelFormat { big_endian: true, ..upper };
        assert_eq!(sent(upper_big, 0x11_2233), (vec![0x11, 0x22, 0x33, 0], vec![0x11, 0x22, 0x33]));
        let deep = PixelFormat { depth: 32, ..native };
        assert_eq!(sent(deep, 0x11_2233).1.len(), 4);
        let high = PixelFormat { bytes: 2, depth: 16, max: [31, 63, 31], shift: [11, 5, 0], ..native };
        assert_eq!(sent(high, 0xff_8000).0, 0xfc00u16.to_le_bytes());
        assert_eq!(sent(PixelFormat { big_endian: true, ..high }, 0xff_8000).0, 0xfc00u16.to_be_bytes());
        let low = PixelFormat { bytes: 1, depth: 8, max: [7, 7, 3], shift: [0, 3, 6], ..native };
        assert_eq!(sent(low, 0xff_00ff).0, [0b1100_0111]);
    }

    #[test]
    fn maps_are_of_332() {
        let mapped = PixelFormat { bytes: 1, depth: 8, true_colour: false, ..PixelFormat::NATIVE };
        assert_eq!(sent(mapped, 0xff_00ff).0, [0b1110_0011]);
        let map: Vec<_> = PixelFormat::map().collect();
        assert_eq!((map.len(), map[0b1110_0011], map[0]), (256, [0xffff, 0, 0xffff], [0; 3]));
    }

    #[test]
    fn what_is_no_format_is_refused() {
        let parse = |format: [u8; 16]| PixelFormat::parse(&format);
        let mut format = PixelFormat::NATIVE.write();
        format[0] = 24;
        assert_eq!(parse(format), Err(ProtocolError::Format { bits: 24 }));
        format[0] = 32;
        format[11] = 32;
        assert!(parse(format).is_err());
        // Of absurd values comes absurd colour, and nothing else.
        format = [0xff; 16];
        (format[0], format[10], format[11], format[12]) = (16, 31, 31, 31);
        let converter = Converter::new(parse(format).unwrap());
        converter.put(converter.convert(0xff_ffff), &mut Vec::new());
    }
}
