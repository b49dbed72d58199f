//! Giving a disk another size.

use std::path::Path;

use lodge_backend::SECTOR;

use crate::chain::Chain;
use crate::format::decide;
use crate::host::HostFile;
use crate::{DiskError, Format};

/// Gives an image another size. A smaller one loses what is beyond it, and needs `shrink`.
///
/// # Errors
/// The image can't be opened for writing, has a format or contents that rule it out, or would shrink.
pub fn resize(path: &Path, format: Option<Format>, size: u64, shrink: bool) -> Result<(), DiskError> {
    let refuse = |problem: String| Err(DiskError::Refused(format!("{} can't be resized: {problem}", path.display())));
    if size == 0 || !size.is_multiple_of(SECTOR) || size > i64::MAX as u64 - (1 << 30) {
        return refuse("a disk has a multiple of 512 bytes, and less than 8 EiB; give another size".into());
    }
    let shrinks = |now: u64| {
        format!("it has {now} bytes, and those beyond {size} would be lost; add `--shrink` if nothing needs them")
    };
    let format = match format {
        Some(format) => format,
        None => decide(&HostFile::open(path, false)?)?,
    };
    match format {
        Format::Qcow2 => {
            let mut image = Chain::default().open_qcow2(path)?;
            let now = image.header().size;
            if size < now && !shrink {
                return refuse(shrinks(now));
            }
            image.resize(size)
        }
        Format::Raw => {
            let host = HostFile::open(path, true)?;
            host.lock()?;
            let fault = DiskError::io(path, "resized");
            let is_file = std::fs::metadata(path).map_err(&fault)?.is_file();
            if !is_file {
                return refuse("it is a device, not a file".into());
            }
            let now = host.length().map_err(&fault)?;
            if size < now && !shrink {
                return refuse(shrinks(now));
            }
            host.set_length(size).and_then(|()| host.sync()).map_err(&fault)
        }
        other => refuse(format!("lodge only reads {other}; make a qcow2 of it with `lodge disk convert`")),
    }
}
