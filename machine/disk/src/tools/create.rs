//! Making an image.

use std::path::{Path, PathBuf};

use lodge_backend::{Disk, SECTOR};

use super::output::Output;
use crate::qcow2::{self, Layout, Qcow2};
use crate::{DiskError, Format, open_image};

/// An image to be.
#[derive(Clone, Debug)]
pub struct Create {
    /// Bytes; that of the backing file if not given.
    pub size: Option<u64>,
    /// Its format: raw or qcow2.
    pub format: Format,
    /// What it stands on.
    pub backing: Option<Backing>,
    /// All space is reserved at once.
    pub preallocate: bool,
    /// A file that is there is replaced.
    pub force: bool,
}

/// An image that another stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The file.
    pub path: PathBuf,
    /// Its format, which is written into the header of the new image.
    pub format: Option<Format>,
}

/// Makes an empty image.
///
/// # Errors
/// The file is there already, can't be made, or what was asked for does not go together.
pub fn create(path: &Path, wanted: &Create) -> Result<(), DiskError> {
    let refuse = |problem: &str| Err(DiskError::Refused(format!("{} can't be made: {problem}", path.display())));
    refuse_format(path, wanted.format)?;
    if wanted.backing.is_some() && wanted.format != Format::Qcow2 {
        return refuse("only a qcow2 image has a backing file; add `--format qcow2`");
    }
    if wanted.backing.is_some() && wanted.preallocate {
        return refuse("with all space reserved nothing of a backing file would be seen; leave one of them out");
    }
    let mut size = wanted.size;
    let mut named = None;
    if let Some(backing) = &wanted.backing {
        let image = open_image(&backing.path, backing.format, false)?;
        size = size.or(Some(image.size()));
        named = Some((backing_name(path, &backing.path)?, image.format()));
    }
    let Some(size) = size else { return refuse("it needs a size; add `--size`") };
    if size == 0 || size % SECTOR != 0 || size > i64::MAX as u64 - (1 << 30) {
        return refuse("a disk has a multiple of 512 bytes, and less than 8 EiB; give another size");
    }
    let output = Output::new(path, wanted.force)?;
    let host = output.host()?;
    match wanted.format {
        Format::Qcow2 => {
            qcow2::create(&host, &Layout { backing: named, ..Layout::new(size) })?;
            if wanted.preallocate {
                let image = Qcow2::open(host, None)?;
                image.preallocate().and_then(|()| image.flush()).map_err(DiskError::io(path, "preallocated"))?;
            }
        }
        _ => {
            host.set_length(size).map_err(DiskError::io(path, "made"))?;
            if wanted.preallocate {
                host.reserve(0, size).map_err(DiskError::io(path, "preallocated"))?;
            }
        }
    }
    output.finish(wanted.force)
}

/// Refuses a format that is only read.
pub(super) fn refuse_format(path: &Path, format: Format) -> Result<(), DiskError> {
    if format.is_writable() {
        return Ok(());
    }
    Err(DiskError::Refused(format!("{} can't be made: lodge only reads {format}; use qcow2 or raw", path.display())))
}

/// What the header calls a backing file: its name if it lies beside the image, else all of its path.
fn backing_name(image: &Path, backing: &Path) -> Result<String, DiskError> {
    let fault = DiskError::io(backing, "named as backing file");
    let whole = std::fs::canonicalize(backing).map_err(&fault)?;
    let folder = image.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(folder).map_err(DiskError::io(image, "made"))?;
    let name = if whole.parent() == Some(&folder) { whole.file_name().map(PathBuf::from) } else { None };
    let name = name.unwrap_or(whole).into_os_string().into_string();
    let name = name.map_err(|_| {
        let problem = "its name is not UTF-8; give it another";
        DiskError::Refused(format!("{} can't be a backing file: {problem}", backing.display()))
    })?;
    // A colon would be taken for a protocol.
    let is_plain = !name.split('/').next().is_some_and(|first| first.contains(':'));
    Ok(if is_plain { name } else { format!("./{name}") })
}
