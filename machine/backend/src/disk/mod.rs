//! Disks: bytes at offsets, with a size that is a multiple of 512.
//!
//! [`Disk`] is what a storage device holds. All methods may block and are called on I/O threads, several at once.

mod overlay;
mod padded;
mod raw;
#[cfg(test)]
mod tests;
mod vast;

use std::io::{IoSlice, IoSliceMut};
use std::path::PathBuf;

pub use overlay::Overlay;
pub use padded::Padded;
pub use raw::{RawDisk, write_all};
pub use vast::VastDisk;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// Bytes of a range that are discarded or filled with zeroes at a time: what the host does quickly, however little it knows of
/// holes.
const STRETCH: u64 = 64 << 20;

/// Calls `each` with stretches (first byte, bytes) of a range for as long as `current` says that it is wanted: how devices
/// discard and fill what may be terabytes. Whether it was to the end; what has been done may be done again.
///
/// # Errors
/// That of `each`.
pub fn stretches(
    mut from: u64,
    mut left: u64,
    current: &dyn Fn() -> bool,
    mut each: impl FnMut(u64, u64) -> std::io::Result<()>,
) -> std::io::Result<bool> {
    while left > 0 {
        if !current() {
            return Ok(false);
        }
        // It is cut where no clusters are: what covers only a part of one does not free it.
        let now = if left <= STRETCH { left } else { STRETCH - from % STRETCH };
        each(from, now)?;
        (from, left) = (from.saturating_add(now), left - now);
    }
    Ok(true)
}

/// Why a disk can't be opened. The text names the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It can't be opened.
    #[error("the disk {path} can't be opened: {source}{}", remedy(.source, .path))]
    Open {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// It is neither a regular file nor a block device.
    #[error("the disk {path} is neither a file nor a block device; give the file of a disk image")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("the disk {path} is empty; give it a size with `truncate -s SIZE {path}`")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its size is no multiple of 512 bytes.
    #[error(
        "the disk {path} has {size} bytes, which is no multiple of 512; \
         pad it with `truncate -s %512 {path}` if it is a raw image"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// Another process has it open for writing, or (if this one would write) has it open at all.
    #[error(
        "the disk {path} is in use already, by another process or as another disk; stop that, or use `readonly` in both"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The host itself uses a device that would be written.
    #[error("the disk {path} is a device that this host uses: {holder}; end that, or add `,readonly`")]
    Held {
        /// The device's file.
        path: PathBuf,
        /// How it is used.
        holder: String,
    },
    /// No place for an overlay's writes.
    #[error("no temporary file can be made in {path}: {source}")]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
}

/// What to do about a disk that can't be opened.
fn remedy(source: &std::io::Error, path: &std::path::Path) -> String {
    match source.kind() {
        std::io::ErrorKind::NotFound => format!("; make one with `truncate -s 8G {}`", path.display()),
        std::io::ErrorKind::PermissionDenied => "; change its permissions with chmod, or add `,readonly`".into(),
        std::io::ErrorKind::ReadOnlyFilesystem => "; add `,readonly`, or `,ephemeral` to forget what is written".into(),
        std::io::ErrorKind::IsADirectory => "; give the file of a disk image".into(),
        _ => String::new(),
    }
}

/// Bytes at offsets. Offsets and lengths are in bytes; an access beyond the end is an error, and touches nothing.
pub trait Disk: Send + Sync {
    /// Bytes, a multiple of [`SECTOR`].
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool;

    /// Fills the buffers from `offset` on.
    ///
    /// # Errors
    /// The host's answer.
    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()>;

    /// Writes the buffers from `offset` on.
    ///
    /// # Errors
    /// The host's answer; part of the buffers may have been written.
    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The host's answer.
    fn flush(&self) -> std::io::Result<()>;

    /// The contents of the range don't matter any more.
    ///
    /// # Errors
    /// The host's answer.
    fn discard(&self, offset: u64, length: u64) -> std::io::Result<()>;

    /// Fills the range with zeroes; `may_unmap` allows to free the space.
    ///
    /// # Errors
    /// The host's answer.
    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> std::io::Result<()>;
}

/// Refuses a range that is not within `size`.
fn check_range(offset: u64, length: u64, size: u64) -> std::io::Result<()> {
    if offset.checked_add(length).is_some_and(|end| end <= size) {
        Ok(())
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "beyond the end of the disk"))
    }
}

fn read_only_error() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the disk is read-only")
}
