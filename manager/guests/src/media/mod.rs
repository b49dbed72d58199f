//! Recognises installation media: discs (ISO 9660 with its extensions, UDF) and floppies.
//!
//! ```text
//! ReadAt ─► Source (how much may be read) ─► disc: iso ┬ udf     ─► Medium ─► rules of profiles ─► Detection
//!                                            floppy    └ windows, tree_info
//! ```
//!
//! * [`ReadAt`]: where an image's bytes come from.
//! * [`Medium`]: what was found on it, whether or not that is known.
//! * [`Detection`]: the profiles that claim it, with reasons.
//!
//! An image may contain anything. Only the paths that rules name are walked, directories and files are read up to
//! limits, and all reading of one image together has one, so that no loop, size or count in it matters.

mod disc;
mod floppy;
mod iso;
mod rules;
mod source;
mod tree_info;
mod udf;
mod windows;

use crate::Catalogue;
use disc::Disc;
use floppy::Floppy;
pub use rules::Detection;
pub use source::ReadAt;
use source::Source;
pub use tree_info::TreeInfo;
pub use windows::WindowsImage;

/// Why an image can't be looked into.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The host can't read it.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is no image of a disc or floppy.
    #[error("it is not the image of a disc or floppy: there is no file system of either kind in it")]
    NotAnImage,
    /// It contradicts itself.
    #[error("the image is damaged or cut short: {0}")]
    Damaged(&'static str),
    /// Looking for what rules ask took more reading than any true image does.
    #[error("the image is damaged: looking for what is on it takes too much reading")]
    TooMuch,
}

/// What kind of medium an image is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A CD, DVD or larger.
    Disc,
    /// A floppy.
    Floppy,
}

/// What is on a medium, whether or not it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// Its volume's label, without padding.
    pub label: String,
    /// A disc's system identifier.
    pub system: String,
    /// A disc's publisher.
    pub publisher: String,
    /// A disc's application identifier.
    pub application: String,
    /// A BIOS can start it: there is an El Torito entry for one, or a floppy's boot signature.
    pub bios: bool,
    /// UEFI firmware can start it: there is an El Torito entry for one.
    pub uefi: bool,
    /// The first line of `.disk/info`.
    pub disk_info: Option<String>,
    /// What `.treeinfo` says.
    pub tree_info: Option<TreeInfo>,
    /// What the image says that Windows is installed from.
    pub windows: Option<WindowsImage>,
    /// A floppy's OEM name.
    pub oem: String,
    /// More of the volume is named than the file holds, in bytes: it was cut short.
    pub missing: u64,
}

/// A file system that rules ask for files.
enum Volume<'a> {
    Disc(Box<Disc<'a>>),
    Floppy(Box<Floppy>),
}

impl Volume<'_> {
    fn has(&mut self, path: &str) -> Result<bool, MediaError> {
        match self {
            Self::Disc(disc) => disc.has(path),
            Self::Floppy(floppy) => Ok(floppy.has(path)),
        }
    }

    fn boot_sector_holds(&self, text: &str) -> bool {
        match self {
            Self::Disc(_) => false,
            Self::Floppy(floppy) => floppy.boot_sector_holds(text),
        }
    }
}

/// Bytes that may be read of an image to find a file.
const LOOKING: u64 = 16 << 20;

/// Looks which operating system an image holds.
///
/// # Errors
///
/// The image can't be read, is of neither a disc nor a floppy, or contradicts itself. One that is merely unknown is no
/// error: its [`Detection`] names no profile.
pub fn detect<'a>(image: &dyn ReadAt, catalogue: &'a Catalogue) -> Result<Detection<'a>, MediaError> {
    let source = Source::new(image)?;
    let (kind, medium, mut volume) = if let Some(mut disc) = Disc::open(&source)? {
        (Kind::Disc, disc.medium()?, Volume::Disc(Box::new(disc)))
    } else if let Some(floppy) = Floppy::open(&source)? {
        (Kind::Floppy, floppy.medium(), Volume::Floppy(Box::new(floppy)))
    } else {
        return Err(MediaError::NotAnImage);
    };
    rules::apply(kind, medium, &mut volume, catalogue)
}

/// A file of a disc's, of at most `most` bytes, by its path without regard to case; `None` if there is none.
///
/// # Errors
///
/// The image can't be read, is not a disc's, contradicts itself, or the file is longer.
pub fn read_file(image: &dyn ReadAt, path: &str, most: usize) -> Result<Option<Vec<u8>>, MediaError> {
    let source = Source::with_limit(image, most as u64 + LOOKING)?;
    let Some(mut disc) = Disc::open(&source)? else { return Err(MediaError::NotAnImage) };
    disc.whole(path, most)
}

#[cfg(test)]
mod tests;
