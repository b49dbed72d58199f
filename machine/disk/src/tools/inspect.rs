//! Looking at images: information, checks, repair.

use std::path::Path;

use lodge_backend::Disk;

use crate::chain::backing_path;
use crate::check::Report;
use crate::format::{decide, probe_file};
use crate::host::HostFile;
use crate::image::{Image, Info};
use crate::mapped::Mapped;
use crate::qcow2::{self, Compression, Header};
use crate::raw::RawImage;
use crate::vdi::Vdi;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;
use crate::vmdk::Vmdk;
use crate::{DiskError, Format};

/// Most images of a chain that are told of.
const MOST: usize = 64;

/// What there is to know of an image. It is not locked, and what it stands on is not looked at. Without a format, what
/// the contents look like is told.
///
/// # Errors
/// The file can't be read, or its header contradicts itself.
pub fn info(path: &Path, format: Option<Format>) -> Result<Info, DiskError> {
    let host = HostFile::open(path, false)?;
    let fault = DiskError::io(path, "read");
    let format = match format {
        Some(format) => format,
        None => probe_file(&host).map_err(&fault)?,
    };
    let mut found = Info {
        path: path.to_owned(),
        format: format.name(),
        allocated: host.allocated().map_err(&fault)?,
        ..Info::default()
    };
    match format {
        Format::Raw => found.size = host.length().map_err(&fault)?,
        Format::Qcow2 => qcow2_info(&host, &mut found)?,
        Format::Vmdk => {
            let mut allocated = 0;
            let image = Vmdk::open(host, &mut |path| {
                let file = HostFile::open(path, false)?;
                allocated += file.allocated().map_err(DiskError::io(path, "read"))?;
                Ok(file)
            })?;
            found.details.insert("kind", image.kind().to_owned());
            found.cluster_size = image.grain();
            found.allocated += allocated;
            found.size = Mapped(image).size();
        }
        Format::Vdi => {
            let image = Vdi::open(host)?;
            found.cluster_size = Some(image.block());
            found.size = Mapped(image).size();
        }
        Format::Vhd => {
            let image = Vhd::open(host)?;
            found.cluster_size = image.block();
            found.details.insert("kind", if image.block().is_some() { "dynamic" } else { "fixed" }.into());
            found.size = Mapped(image).size();
        }
        Format::Vhdx => {
            let image = Vhdx::open(host)?;
            found.cluster_size = Some(image.block());
            found.size = Mapped(image).size();
        }
    }
    Ok(found)
}

fn qcow2_info(host: &HostFile, found: &mut Info) -> Result<(), DiskError> {
    let header = Header::read(host)?;
    let yes = || "yes".to_owned();
    found.size = header.size;
    found.cluster_size = Some(header.cluster());
    found.backing.clone_from(&header.backing);
    found.backing_format.clone_from(&header.backing_format);
    found.details.insert("version", header.version.to_string());
    found.details.insert("refcount bits", (1 << header.refcount_order).to_string());
    let compression = if header.compression == Compression::Zstd { "zstd" } else { "zlib" };
    found.details.insert("compression", compression.into());
    let flags = [
        ("encrypted", header.encryption != 0),
        ("not closed cleanly", header.incompatible & 1 != 0),
        ("corrupt", header.incompatible & 2 != 0),
        ("data in another file", header.incompatible & 4 != 0),
        ("subclusters", header.incompatible & 16 != 0),
        ("lazy refcounts", header.compatible & 1 != 0),
    ];
    found.details.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name, yes())));
    if header.has_snapshots() {
        let damaged = |error: std::io::Error| DiskError::damaged(host.path(), Format::Qcow2, error.to_string());
        found.snapshots = header.snapshots(host).map_err(damaged)?.list;
    }
    Ok(())
}

/// What there is to know of an image and all that it stands on, from the top.
///
/// # Errors
/// As [`info`], for any of them; the chain never ends.
pub fn info_chain(path: &Path, format: Option<Format>) -> Result<Vec<Info>, DiskError> {
    let mut found: Vec<Info> = Vec::new();
    let mut next = Some((path.to_owned(), format));
    while let Some((path, format)) = next {
        if found.len() == MOST {
            let problem = format!("it does not end after {MOST} images");
            return Err(DiskError::Refused(format!("the chain of images at {} is no good: {problem}", path.display())));
        }
        let one = match (info(&path, format), found.last()) {
            (Ok(one), _) => one,
            (Err(error), Some(above)) => {
                return Err(DiskError::Backing { path: above.path.clone(), problem: error.to_string() });
            }
            (Err(error), None) => return Err(error),
        };
        next = match &one.backing {
            Some(name) => {
                let below = backing_path(&one.path, name);
                let below = below.map_err(|problem| DiskError::Backing { path: one.path.clone(), problem })?;
                Some((below, one.backing_format.as_deref().and_then(Format::from_name)))
            }
            None => None,
        };
        found.push(one);
    }
    Ok(found)
}

/// Looks for contradictions. The file is locked against writers, and not changed.
///
/// # Errors
/// It can't be read, is in use, or can't be understood at all.
pub fn check(path: &Path, format: Option<Format>) -> Result<Report, DiskError> {
    let host = HostFile::open(path, false)?;
    host.lock()?;
    let format = match format {
        Some(format) => format,
        None => decide(&host)?,
    };
    let fault = DiskError::io(path, "checked");
    let mut open = |path: &Path| {
        let host = HostFile::open(path, false)?;
        host.lock()?;
        Ok(host)
    };
    let report = match format {
        Format::Qcow2 => {
            let header = Header::read(&host)?;
            header.refuse_unknown(path)?;
            qcow2::check::examine(&host, &header)
        }
        Format::Raw => RawImage::open(host, false, false)?.check(),
        Format::Vmdk => Mapped(Vmdk::open(host, &mut open)?).check(),
        Format::Vdi => Mapped(Vdi::open(host)?).check(),
        Format::Vhd => Mapped(Vhd::open(host)?).check(),
        Format::Vhdx => Mapped(Vhdx::open(host)?).check(),
    };
    report.map_err(fault)
}

/// Looks for contradictions and mends them: refcounts are made anew, and entries that lead nowhere taken away. Only
/// qcow2 images are mended. What was found before.
///
/// # Errors
/// As [`check`]; it can't be written, or has no tables that could be mended.
pub fn repair(path: &Path, format: Option<Format>) -> Result<Report, DiskError> {
    let host = HostFile::open(path, true)?;
    host.lock()?;
    let format = match format {
        Some(format) => format,
        None => decide(&host)?,
    };
    if format == Format::Qcow2 {
        return qcow2::check::repair(&host);
    }
    drop(host);
    let report = check(path, Some(format))?;
    if report.is_clean() {
        return Ok(report);
    }
    let remedy = "use another copy, or save what can be read with `lodge disk convert`";
    Err(DiskError::Refused(format!(
        "{} can't be repaired: {} errors were found, and lodge only reads {format}; {remedy}",
        path.display(),
        report.errors
    )))
}
