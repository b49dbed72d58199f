//! Raw images: the disk's bytes as they are, in a file or block device.
//!
//! A raw image that was taken for one without being called one is guarded: a write by which its first sector would look
//! like another format's header is refused, since the next to open it might believe that.

use std::io::{IoSlice, IoSliceMut, Write};
use std::path::Path;

use lodge_backend::{Disk, DiskError as FileError, RawDisk, SECTOR};

use crate::check::Report;
use crate::format::probe;
use crate::host::HostFile;
use crate::image::{Extent, Image, Kind};
use crate::pieces::{check_range, total};
use crate::{DiskError, Format};

/// A raw image.
pub(crate) struct RawImage {
    host: HostFile,
    disk: RawDisk,
    size: u64,
    guarded: bool,
}

impl RawImage {
    /// Opens a locked file. `is_backing` pads the last sector, which a disk's own file has to have whole.
    pub fn open(host: HostFile, guarded: bool, is_backing: bool) -> Result<Self, DiskError> {
        let path = host.path();
        let fault = |source| FileError::Open { path: path.to_owned(), source };
        let length = host.length().map_err(fault)?;
        if length == 0 {
            return Err(FileError::Empty { path: path.to_owned() }.into());
        }
        if length % SECTOR != 0 && !is_backing {
            return Err(FileError::Size { path: path.to_owned(), size: length }.into());
        }
        let disk = RawDisk::from_file(host.file().map_err(fault)?, length, !host.is_writable());
        Ok(Self { size: length.next_multiple_of(SECTOR), host, disk, guarded })
    }

    /// Refuses a write that would make the first sector another format's header.
    fn guard(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        if !self.guarded || offset >= SECTOR {
            return Ok(());
        }
        let mut sector = [0; SECTOR as usize];
        self.host.read_padded(0, &mut sector)?;
        let before = probe(&sector);
        let mut rest = &mut sector[offset as usize..];
        for buffer in buffers {
            // What does not fit any more is of no interest.
            let _ = rest.write(buffer)?;
        }
        let after = probe(&sector);
        if after == Format::Raw || after == before {
            return Ok(());
        }
        tracing::warn!(
            path = %self.host.path().display(),
            "a write that would make the disk look like a {after} image was refused; `format=raw` allows it"
        );
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the disk would look like an image"))
    }
}

impl Disk for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        if self.size == self.disk.size() {
            return self.disk.read_at(offset, buffers);
        }
        check_range(offset, total(buffers.iter().map(|buffer| buffer.len())), self.size)?;
        self.host.readv_padded(offset, buffers)
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        self.guard(offset, buffers)?;
        self.disk.write_at(offset, buffers)
    }

    fn flush(&self) -> std::io::Result<()> {
        self.disk.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.disk.discard(offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> std::io::Result<()> {
        self.disk.write_zeroes(offset, length, may_unmap)
    }
}

impl Image for RawImage {
    fn format(&self) -> Format {
        Format::Raw
    }

    fn path(&self) -> &Path {
        self.host.path()
    }

    fn extent(&self, offset: u64, length: u64) -> std::io::Result<Extent> {
        check_range(offset, length, self.size)?;
        let (is_data, end) = self.host.data_run(offset, offset + length);
        Ok(Extent { length: end - offset, kind: if is_data { Kind::Data } else { Kind::Zero } })
    }

    fn check(&self) -> std::io::Result<Report> {
        Ok(Report { end: self.host.length()?, ..Report::default() })
    }
}
