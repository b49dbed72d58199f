//! How rectangles of pixels are sent: Raw (RFC 6143 section 7.7.1) and ZRLE (section 7.7.6).

use flate2::{Compress, Compression, FlushCompress};
use lodge_display::Frame;

use crate::pixel::Converter;
use crate::region::{Rect, TILE};

/// Numbers of encodings and pseudo-encodings (the registry at IANA, and the community's `rfbproto`).
pub mod number {
    /// Pixels as they are.
    pub const RAW: i32 = 0;
    /// Tiles of runs and palettes, deflated.
    pub const ZRLE: i32 = 16;
    /// The viewer can change its size.
    pub const DESKTOP_SIZE: i32 = -223;
    /// It tells pointer motions where there are no positions (QEMU).
    pub const POINTER_MOTION: i32 = -257;
    /// It tells which key is pressed, besides what is on it (QEMU).
    pub const EXTENDED_KEYS: i32 = -258;
    /// It can change its size, and ask for one.
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
}

/// A rectangle's rows of pixels, converted; black where a frame does not reach.
fn pixels(frame: &Frame, rect: &Rect, converter: &Converter) -> Vec<u32> {
    let black = converter.convert(0);
    let mut pixels = Vec::with_capacity(rect.width * rect.height);
    for y in rect.y..rect.y + rect.height {
        let end = pixels.len() + rect.width;
        let row = frame.row(y).get(rect.x..).unwrap_or_default();
        pixels.extend(row.iter().take(rect.width).map(|pixel| converter.convert(*pixel)));
        pixels.resize(end, black);
    }
    pixels
}

/// A rectangle as Raw.
pub fn raw(frame: &Frame, rect: &Rect, converter: &Converter, out: &mut Vec<u8>) {
    for pixel in pixels(frame, rect, converter) {
        converter.put(pixel, out);
    }
}

/// A viewer's ZRLE stream: one deflated stream through all rectangles.
pub struct Zrle {
    deflate: Compress,
}

impl Default for Zrle {
    fn default() -> Self {
        Self { deflate: Compress::new(Compression::fast(), true) }
    }
}

impl Zrle {
    /// A rectangle as ZRLE.
    pub fn encode(
        &mut self,
        frame: &Frame,
        rect: &Rect,
        converter: &Converter,
        out: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let mut plain = Vec::new();
        for y in (0..rect.height).step_by(TILE) {
            for x in (0..rect.width).step_by(TILE) {
                let (width, height) = (TILE.min(rect.width - x), TILE.min(rect.height - y));
                let part = Rect { x: rect.x + x, y: rect.y + y, width, height };
                tile(&pixels(frame, &part, converter), width, converter, &mut plain);
            }
        }
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.deflate(&plain, out)?;
        let length = u32::try_from(out.len() - at - 4).map_err(std::io::Error::other)?;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Appends `plain` deflated, up to a byte's end.
    fn deflate(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            out.reserve(plain.len() / 4 + 1024);
            let before = self.deflate.total_in();
            self.deflate.compress_vec(plain, out, FlushCompress::Sync).map_err(std::io::Error::other)?;
            plain = plain.get((self.deflate.total_in() - before) as usize..).unwrap_or_default();
            // Room that is left means that nothing is held back.
            if plain.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

/// Runs of equal pixels: (pixel, length).
fn runs(pixels: &[u32]) -> impl Iterator<Item = (u32, usize)> {
    pixels.chunk_by(|a, b| a == b).filter_map(|run| Some((*run.first()?, run.len())))
}

/// Bytes that the length of a run takes.
fn length_bytes(length: usize) -> usize {
    (length - 1) / 255 + 1
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend(std::iter::repeat_n(255, (length - 1) / 255));
    out.push(((length - 1) % 255) as u8);
}

/// Bits of an index into a packed palette of so many colours.
fn packed_bits(colours: usize) -> usize {
    match colours {
        0..=2 => 1,
        3..=4 => 2,
        _ => 4,
    }
}

/// A tile in whichever way is the shortest.
fn tile(pixels: &[u32], width: usize, converter: &Converter, out: &mut Vec<u8>) {
    const PALETTE_MOST: usize = 127;
    const PACKED_MOST: usize = 16;
    let mut palette: Vec<u32> = Vec::new();
    let (mut count, mut run_bytes, mut index_bytes) = (0, 0, 0);
    for (pixel, length) in runs(pixels) {
        count += 1;
        run_bytes += length_bytes(length);
        index_bytes += 1 + if length > 1 { length_bytes(length) } else { 0 };
        if palette.len() <= PALETTE_MOST && !palette.contains(&pixel) {
            palette.push(pixel);
        }
    }
    let bytes = converter.compact_bytes();
    let index = |pixel: u32| palette.iter().position(|own| *own == pixel).unwrap_or(0) as u8;
    if let [only] = palette[..] {
        out.push(1);
        return converter.put_compact(only, out);
    }
    let height = pixels.len() / width.max(1);
    let raw = pixels.len() * bytes;
    let plain_runs = count * bytes + run_bytes;
    let colours = palette.len();
    let indexed_runs = if colours <= PALETTE_MOST { colours * bytes + index_bytes } else { usize::MAX };
    let bits = packed_bits(colours);
    let packed =
        if colours <= PACKED_MOST { colours * bytes + (width * bits).div_ceil(8) * height } else { usize::MAX };
    let least = raw.min(plain_runs).min(indexed_runs).min(packed);
    if least == packed {
        out.push(colours as u8);
        palette.iter().for_each(|pixel| converter.put_compact(*pixel, out));
        for row in pixels.chunks(width.max(1)) {
            for group in row.chunks(8 / bits) {
                let shifted = group.iter().zip(1..).map(|(pixel, n)| index(*pixel) << (8 - n * bits));
                out.push(shifted.fold(0, |byte, part| byte | part));
            }
        }
    } else if least == indexed_runs {
        out.push(128 + colours as u8);
        palette.iter().for_each(|pixel| converter.put_compact(*pixel, out));
        for (pixel, length) in runs(pixels) {
            if length == 1 {
                out.push(index(pixel));
            } else {
                out.push(index(pixel) | 0x80);
                put_length(length, out);
            }
        }
    } else if least == plain_runs {
        out.push(128);
        for (pixel, length) in runs(pixels) {
            converter.put_compact(pixel, out);
            put_length(length, out);
        }
    } else {
        out.push(0);
        pixels.iter().for_each(|pixel| converter.put_compact(*pixel, out));
    }
}
