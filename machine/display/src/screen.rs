//! What a card shows.
//!
//! [`Screen`] is the seam between cards and viewers. A frame buffer that a guest writes at full speed tells nobody of the
//! writes, so changes are found by comparing memory, and only when somebody looks ([`Look`]).

/// Pixels in rows from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` pixels: red in bits 16 to 23, green, blue; the upper byte is zero.
    pub pixels: Vec<u32>,
}

impl Frame {
    /// A black frame.
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height] }
    }

    /// The pixel at column `x` of row `y`; black outside.
    pub fn pixel(&self, x: usize, y: usize) -> u32 {
        if x < self.width { self.pixels.get(y * self.width + x).copied().unwrap_or(0) } else { 0 }
    }

    /// A row's pixels; none outside.
    pub fn row(&self, y: usize) -> &[u32] {
        let start = y.saturating_mul(self.width);
        self.pixels.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }

    /// Three bytes a pixel: red, green, blue.
    pub fn rgb(&self) -> Vec<u8> {
        self.pixels.iter().flat_map(|pixel| [(pixel >> 16) as u8, (pixel >> 8) as u8, *pixel as u8]).collect()
    }

    /// The frame as a file in the PNG format.
    ///
    /// # Errors
    /// The frame has no pixels, or more than the format can say.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let side = |length| u32::try_from(length).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(&mut file, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb())?;
        writer.finish()?;
        Ok(file)
    }
}

/// What kind of picture is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Characters.
    Text {
        /// Characters in a row.
        columns: usize,
        /// Rows of characters.
        rows: usize,
    },
    /// Pixels.
    Graphics {
        /// In a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Bits a pixel.
        depth: u8,
    },
}

/// What one who looks repeatedly has seen last. A screen keeps here what it compares with.
#[derive(Default)]
pub struct Look {
    /// A screen's own number for the state of its registers; `None`: nothing has been seen.
    pub stamp: Option<u64>,
    /// The video memory that was shown.
    pub memory: Vec<u8>,
}

/// What a card shows.
pub trait Screen: Send + Sync {
    /// The mode that is set.
    fn mode(&self) -> Mode;

    /// What is shown now, if it may be other than what was seen last.
    fn look(&self, last: &mut Look) -> Option<Frame>;

    /// The monitor prefers pixels in a row, and rows, so many (each of [`crate::edid::SIDES`]): a guest that listens follows.
    /// Whether the card can tell one.
    fn prefer(&self, _size: [u16; 2]) -> bool {
        false
    }

    /// In text modes, what can be read: rows from the top, without spaces at their ends.
    fn text(&self) -> Option<String>;

    /// What is shown now.
    fn frame(&self) -> Frame {
        // Who has seen nothing is always shown something.
        self.look(&mut Look::default()).unwrap_or_else(|| Frame::black(1, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screenshot_decodes_to_the_frame() {
        let frame =
            Frame { width: 3, height: 2, pixels: vec![0xff_0000, 0x00_ff00, 0x00_00ff, 0, 0xff_ffff, 0x12_3456] };
        let file = frame.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(pixels, frame.rgb());
        assert_eq!(pixels[15..], [0x12, 0x34, 0x56]);
    }

    #[test]
    fn there_is_nothing_beyond_a_frame() {
        let frame = Frame::black(2, 2);
        assert_eq!((frame.pixel(2, 0), frame.pixel(0, 2), frame.row(2).len()), (0, 0, 0));
        assert!(Frame::black(0, 0).png().is_err());
    }
}
