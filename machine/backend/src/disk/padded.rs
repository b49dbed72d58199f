//! A disk whose image is shorter than its medium.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::sync::Arc;

use super::{Disk, check_range};

/// A disk of which the beginning is another, and the rest zeroes that can't be written: images of floppies are often cut
/// off where their contents end.
pub struct Padded {
    disk: Arc<dyn Disk>,
    size: u64,
}

impl Padded {
    /// `disk`, and zeroes up to `size` bytes.
    pub fn new(disk: Arc<dyn Disk>, size: u64) -> Self {
        Self { size: size.max(disk.size()), disk }
    }

    /// Refuses what is not all of the disk's.
    fn inside(&self, offset: u64, length: u64) -> Result<()> {
        check_range(offset, length, self.disk.size())
            .map_err(|_| Error::new(ErrorKind::PermissionDenied, "the image ends before"))
    }
}

impl Disk for Padded {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<()> {
        let length = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        check_range(offset, length, self.size)?;
        let mut at = offset;
        for buffer in buffers {
            let there = self.disk.size().saturating_sub(at).min(buffer.len() as u64) as usize;
            let (head, tail) = buffer.split_at_mut(there);
            if !head.is_empty() {
                self.disk.read_at(at, &mut [IoSliceMut::new(head)])?;
            }
            tail.fill(0);
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<()> {
        self.inside(offset, buffers.iter().map(|buffer| buffer.len() as u64).sum())?;
        self.disk.write_at(offset, buffers)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.inside(offset, length)?;
        self.disk.discard(offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<()> {
        self.inside(offset, length)?;
        self.disk.write_zeroes(offset, length, may_unmap)
    }
}
