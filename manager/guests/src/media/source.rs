//! Where an image's bytes come from: [`ReadAt`], and [`Source`], which reads from one within bounds.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::MediaError;

/// Bytes that can be read from any place.
pub trait ReadAt {
    /// How many there are.
    ///
    /// # Errors
    ///
    /// The host does not say.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// They can't be read, or are not all there.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        // Seeking tells a block device's size, too, and reads here do not mind where the file stands.
        io::Seek::seek(&mut &*self, io::SeekFrom::End(0))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let found = from.and_then(|from| self.get(from..from.checked_add(buffer.len())?));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
}

/// The most that is read of one image, in bytes; true ones take a few MiB.
const MOST: u64 = 128 << 20;

/// An image, read within bounds.
pub struct Source<'a> {
    image: &'a dyn ReadAt,
    size: u64,
    left: Cell<u64>,
}

impl<'a> Source<'a> {
    pub fn new(image: &'a dyn ReadAt) -> Result<Self, MediaError> {
        Self::with_limit(image, MOST)
    }

    /// One of which at most so many bytes are read.
    pub fn with_limit(image: &'a dyn ReadAt, most: u64) -> Result<Self, MediaError> {
        Ok(Self { image, size: image.size()?, left: Cell::new(most) })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// So many bytes from `offset` on; callers bound `length`.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(MediaError::Damaged("something on it lies beyond its end"));
        }
        self.left.set(self.left.get().checked_sub(length as u64).ok_or(MediaError::TooMuch)?);
        let mut buffer = vec![0; length];
        self.image.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }
}

/// A part of a buffer of fixed length; zeroes where the buffer ends before it.
pub fn bytes<const N: usize>(buffer: &[u8], at: usize) -> [u8; N] {
    let found = buffer.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().unwrap_or([0; N])
}

/// A number of 16 bits, least significant byte first.
pub fn le16(buffer: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(buffer, at))
}

/// A number of 32 bits, least significant byte first.
pub fn le32(buffer: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(buffer, at))
}

/// A number of 64 bits, least significant byte first.
pub fn le64(buffer: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(buffer, at))
}

/// Text of 16-bit units, most significant byte first.
pub fn utf16be(buffer: &[u8]) -> String {
    let units = buffer.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A field of fixed width, without its padding of blanks or zeroes.
pub fn field(buffer: &[u8]) -> String {
    let text: String = buffer.iter().map(|byte| char::from(*byte)).collect();
    text.trim_end_matches([' ', '\0']).trim_start().to_owned()
}
