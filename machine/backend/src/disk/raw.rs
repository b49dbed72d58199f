//! A raw image file or block device.
//!
//! [`RawDisk`] uses vectored positioned I/O, so that several threads share it without a lock, and holds a lock
//! (flock(2), which belongs to the open file) against a second writer.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{Disk, DiskError, SECTOR, check_range, read_only_error};

/// A raw image.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    size: u64,
    read_only: bool,
}

impl RawDisk {
    /// Opens an image.
    ///
    /// # Errors
    /// It is missing, unreadable (or unwritable unless `read_only`), empty, not a multiple of 512 bytes long, not a file
    /// or block device, or in use by another process.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let opened = |source| DiskError::Open { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(opened)?;
        let kind = file.metadata().map_err(opened)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind { path: path.to_owned() });
        }
        let size = file.seek(SeekFrom::End(0)).map_err(opened)?;
        if size == 0 {
            return Err(DiskError::Empty { path: path.to_owned() });
        }
        if size % SECTOR != 0 {
            return Err(DiskError::Size { path: path.to_owned(), size });
        }
        let operation =
            if read_only { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse { path: path.to_owned() }),
            // Some network file systems have no locks.
            Err(error) => tracing::warn!(%error, path = %path.display(), "the disk can't be locked"),
        }
        Ok(Self { file, size, read_only })
    }

    /// An image in a file that the caller has opened, for writing unless `read_only`, and locked. `size` is a multiple of
    /// [`SECTOR`].
    pub fn from_file(file: File, size: u64, read_only: bool) -> Self {
        Self { file, size: size - size % SECTOR, read_only }
    }

    fn writable(&self, offset: u64, length: u64) -> std::io::Result<()> {
        if self.read_only {
            return Err(read_only_error());
        }
        check_range(offset, length, self.size)
    }

    /// Writes zeroes the slow way, in bounded pieces.
    fn fill(&self, mut offset: u64, mut length: u64) -> std::io::Result<()> {
        let zeroes = vec![0; 1 << 20];
        while length > 0 {
            let piece = length.min(zeroes.len() as u64) as usize;
            write_all(&self.file, offset, &[IoSlice::new(&zeroes[..piece])])?;
            offset += piece as u64;
            length -= piece as u64;
        }
        Ok(())
    }
}

/// Most buffers in one call (UIO_MAXIOV).
const MOST_BUFFERS: usize = 1024;

pub(super) fn read_all(file: &File, mut offset: u64, mut buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
    IoSliceMut::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let now = buffers.len().min(MOST_BUFFERS);
        match rustix::io::preadv(file, &mut buffers[..now], offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                offset += count as u64;
                IoSliceMut::advance_slices(&mut buffers, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes all of the buffers from `offset` on.
///
/// # Errors
/// The host's answer; part of the buffers may have been written.
pub fn write_all(file: &File, mut offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
    let mut copy = buffers.to_vec();
    let mut buffers = copy.as_mut_slice();
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let now = buffers.len().min(MOST_BUFFERS);
        match rustix::io::pwritev(file, &buffers[..now], offset) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut buffers, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn total(lengths: impl Iterator<Item = usize>) -> u64 {
    lengths.fold(0, |sum, length| sum.saturating_add(length as u64))
}

impl Disk for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        check_range(offset, total(buffers.iter().map(|buffer| buffer.len())), self.size)?;
        read_all(&self.file, offset, buffers)
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        self.writable(offset, total(buffers.iter().map(|buffer| buffer.len())))?;
        write_all(&self.file, offset, buffers)
    }

    fn flush(&self) -> std::io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn discard(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.writable(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
        {
            // A file system without holes, or a device with larger blocks than these, keeps the bytes, which is as good.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> std::io::Result<()> {
        self.writable(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let how = if may_unmap {
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE
        };
        match rustix::fs::fallocate(&self.file, how, offset, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::INVAL) => self.fill(offset, length),
            Err(error) => Err(error.into()),
        }
    }
}
