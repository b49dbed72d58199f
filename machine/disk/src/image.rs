//! What the formats have in common besides being disks.
//!
//! [`Image`] adds to `Disk` what information, conversion and checks need: where an image holds data and where it leaves
//! that to the one below.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodge_backend::Disk;

use crate::Format;
use crate::check::Report;

/// Where a range's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The image holds them.
    Data,
    /// The image holds them compressed.
    Compressed,
    /// They are zero.
    Zero,
    /// The image below has them; without one they are zero.
    Below,
}

/// A range that is alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least 1 unless none were asked for.
    pub length: u64,
    /// Where they come from.
    pub kind: Kind,
}

/// A disk that is an image on the host.
pub trait Image: Disk {
    /// Its format.
    fn format(&self) -> Format;

    /// Its file, or the first of its files.
    fn path(&self) -> &Path;

    /// The image below.
    fn backing(&self) -> Option<&Arc<dyn Image>> {
        None
    }

    /// What is at `offset`, and for how many of the next `length` bytes that holds.
    ///
    /// # Errors
    /// The host's answer; the image contradicts itself.
    fn extent(&self, offset: u64, length: u64) -> std::io::Result<Extent>;

    /// Looks for contradictions in the image's own tables, and reads every one of them.
    ///
    /// # Errors
    /// The host's answer.
    fn check(&self) -> std::io::Result<Report>;
}

/// What a range reads as through all of the chain: data, or zeroes.
///
/// # Errors
/// The host's answer; an image contradicts itself.
pub(crate) fn resolved(image: &dyn Image, offset: u64, length: u64) -> std::io::Result<Extent> {
    let mut current = image;
    let mut length = length;
    loop {
        if offset >= current.size() {
            return Ok(Extent { length, kind: Kind::Zero });
        }
        let inside = length.min(current.size() - offset);
        let extent = current.extent(offset, inside)?;
        match (extent.kind, current.backing()) {
            (Kind::Below, Some(below)) => {
                length = extent.length;
                current = &**below;
            }
            (Kind::Below, None) => return Ok(Extent { kind: Kind::Zero, ..extent }),
            _ => return Ok(extent),
        }
    }
}

/// What `lodge disk info` tells about one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Info {
    /// The file.
    pub path: PathBuf,
    /// Its format's name.
    pub format: &'static str,
    /// Bytes that a guest sees.
    pub size: u64,
    /// Bytes that the file occupies on the host.
    pub allocated: u64,
    /// Bytes of a cluster, block or grain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// The image below, as the file names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<String>,
    /// The format that the file gives for the image below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_format: Option<String>,
    /// Snapshots within the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// What else is to be known, by name.
    pub details: std::collections::BTreeMap<&'static str, String>,
}

/// A snapshot within a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Its number, as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub seconds: u64,
    /// Bytes of saved machine state.
    pub state_size: u64,
}
