//! Buffers of one access, taken off piece by piece.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};

/// What is left to fill.
pub(crate) struct Sink<'a> {
    rest: VecDeque<&'a mut [u8]>,
}

impl<'a> Sink<'a> {
    pub fn new(buffers: &'a mut [IoSliceMut<'_>]) -> Self {
        Self { rest: buffers.iter_mut().map(|buffer| &mut **buffer).filter(|buffer| !buffer.is_empty()).collect() }
    }

    /// The next `length` bytes, or what there is.
    pub fn take(&mut self, mut length: usize) -> Vec<IoSliceMut<'a>> {
        let mut taken = Vec::new();
        while length > 0
            && let Some(first) = self.rest.pop_front()
        {
            if first.len() > length {
                let (now, later) = first.split_at_mut(length);
                self.rest.push_front(later);
                taken.push(IoSliceMut::new(now));
                break;
            }
            length -= first.len();
            taken.push(IoSliceMut::new(first));
        }
        taken
    }

    /// Zeroes for the next `length` bytes.
    pub fn zero(&mut self, length: usize) {
        self.take(length).iter_mut().for_each(|buffer| buffer.fill(0));
    }

    /// Fills the next bytes from a slice.
    pub fn put(&mut self, mut data: &[u8]) {
        for mut buffer in self.take(data.len()) {
            let (now, later) = data.split_at(buffer.len());
            buffer.copy_from_slice(now);
            data = later;
        }
    }
}

/// What is left to write.
#[derive(Clone)]
pub(crate) struct Source<'a> {
    rest: VecDeque<&'a [u8]>,
}

impl<'a> Source<'a> {
    pub fn new(buffers: &'a [IoSlice<'_>]) -> Self {
        Self { rest: buffers.iter().map(|buffer| &**buffer).filter(|buffer| !buffer.is_empty()).collect() }
    }

    /// The next `length` bytes, or what there is.
    pub fn take(&mut self, mut length: usize) -> Vec<IoSlice<'a>> {
        let mut taken = Vec::new();
        while length > 0
            && let Some(first) = self.rest.pop_front()
        {
            if first.len() > length {
                let (now, later) = first.split_at(length);
                self.rest.push_front(later);
                taken.push(IoSlice::new(now));
                break;
            }
            length -= first.len();
            taken.push(IoSlice::new(first));
        }
        taken
    }
}

/// Bytes in buffers.
pub(crate) fn total(lengths: impl Iterator<Item = usize>) -> u64 {
    lengths.fold(0, |sum, length| sum.saturating_add(length as u64))
}

/// Refuses a range that is not within `size`.
pub(crate) fn check_range(offset: u64, length: u64, size: u64) -> std::io::Result<()> {
    if offset.checked_add(length).is_some_and(|end| end <= size) {
        Ok(())
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "beyond the end of the disk"))
    }
}

pub(crate) fn read_only_error() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the disk is read-only")
}

/// Big-endian and little-endian numbers at places in a buffer; what lies beyond its end is zero.
pub(crate) mod at {
    fn bytes<const N: usize>(data: &[u8], offset: usize) -> [u8; N] {
        offset
            .checked_add(N)
            .and_then(|end| data.get(offset..end))
            .and_then(|slice| slice.try_into().ok())
            .unwrap_or([0; N])
    }

    pub(crate) fn be16(data: &[u8], offset: usize) -> u16 {
        u16::from_be_bytes(bytes(data, offset))
    }
    pub(crate) fn be32(data: &[u8], offset: usize) -> u32 {
        u32::from_be_bytes(bytes(data, offset))
    }
    pub(crate) fn be64(data: &[u8], offset: usize) -> u64 {
        u64::from_be_bytes(bytes(data, offset))
    }
    pub(crate) fn le16(data: &[u8], offset: usize) -> u16 {
        u16::from_le_bytes(bytes(data, offset))
    }
    pub(crate) fn le32(data: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes(data, offset))
    }
    pub(crate) fn le64(data: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes(data, offset))
    }
}
