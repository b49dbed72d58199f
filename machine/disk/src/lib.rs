//! Disk images: raw, qcow2, VMDK, VDI, VHD and VHDX, as `lodge_backend::Disk`s.
//!
//! [`open`] is what a machine needs; [`create`], [`convert`], [`check`], [`resize`], [`compact`] and [`info`] are what
//! `lodge disk` does. Raw and qcow2 images are written, the others only read.
//!
//! * [`Format`]: a format; a format that is not given is never taken from a file's contents alone (`docs/disks.md`).
//! * [`Image`]: a disk that can tell where it holds data.
//! * [`DiskError`]: what went wrong, with what to do.
//!
//! Whatever a file contains, nothing here panics, hangs or takes memory without bound; no name within an image is
//! followed anywhere but by a qcow2's backing file, which `open` locks with it.
//!
//! Neighbours: `lodge-backend` has the seam and raw files; storage devices hold the disks; the front end names the
//! files.
#![forbid(unsafe_code)]

mod chain;
mod check;
mod error;
mod format;
mod holders;
mod host;
mod image;
mod mapped;
mod pieces;
mod qcow2;
mod raw;
mod tools;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::path::Path;
use std::sync::Arc;

pub use lodge_backend::Disk;
use lodge_backend::Overlay;

pub use check::Report;
pub use error::DiskError;
pub use format::Format;
pub use image::{Extent, Image, Info, Kind, Snapshot};
pub use tools::{
    Backing, Compacted, Convert, Create, Progress, check, compact, convert, create, info, info_chain, repair, resize,
};

/// The largest disk under an overlay, which has a bit in memory for each 64 KiB.
const MOST_EPHEMERAL: u64 = 256 << 40;

/// How to open a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The format; without one, the file's name and contents have to agree.
    pub format: Option<Format>,
    /// Writes are refused.
    pub readonly: bool,
    /// Writes go to a temporary file and are forgotten; the image is only read.
    pub ephemeral: bool,
}

/// Opens a disk for a machine, and locks it with all that it stands on.
///
/// # Errors
/// A file is missing, in use, damaged, of an unknown or ambiguous format, or can't be written though it should.
pub fn open(path: &Path, options: Options) -> Result<Arc<dyn Disk>, DiskError> {
    let image = open_image(path, options.format, !options.readonly && !options.ephemeral)?;
    if options.ephemeral {
        if image.size() > MOST_EPHEMERAL {
            return Err(DiskError::Refused(format!(
                "the disk {} is too large to be `ephemeral`; use a qcow2 image that stands on it",
                path.display()
            )));
        }
        return Ok(Arc::new(Overlay::new(image, &std::env::temp_dir())?));
    }
    Ok(image)
}

/// Opens an image with all that it stands on, and locks them.
///
/// # Errors
/// As [`open`].
pub fn open_image(path: &Path, format: Option<Format>, writable: bool) -> Result<Arc<dyn Image>, DiskError> {
    chain::Chain::default().open(path, format, writable)
}
