//! Discs and floppies: opening what the plan or `lodge ctl` names, and putting it into drives.
//!
//! A disc is an ISO image, a block device that holds one, or an optical drive of the host's, whose medium comes and goes.

use std::io::IoSliceMut;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodge_backend::{Disk, DiskError as FileError, OpticalDrive, Padded, Tray};
use lodge_control::Drive;
use lodge_disk::{DiskError, Format, Options};
use lodge_vm::{AttachedCd, FloppyError, Geometry};

use crate::args::{CdPlan, FloppyPlan};
use crate::run::RunError;

/// Bytes of the commonest floppy.
const DISKETTE: u64 = 1440 << 10;

/// A drive whose media `lodge ctl` changes.
pub fn drive(name: String, tray: &Arc<Tray>, load: fn(&Arc<Tray>, &Path) -> Result<(), String>) -> Drive {
    Drive { name, tray: tray.clone(), load: Box::new(load) }
}

/// A CD drive with what the plan has in it.
///
/// # Errors
/// That cannot be opened.
pub fn open_cd(plan: &CdPlan) -> Result<AttachedCd, RunError> {
    let tray = Tray::new(None);
    match &plan.path {
        Some(path) if is_drive(path)? => connect(&tray, path)?,
        Some(path) => {
            let tray = Tray::new(Some(open_disc(path)?));
            return Ok(AttachedCd { bus: plan.bus, tray });
        }
        None => {}
    }
    Ok(AttachedCd { bus: plan.bus, tray })
}

/// Puts a disc into a CD drive while the machine runs.
///
/// # Errors
/// It cannot be opened, or the guest holds the one that is there.
pub fn load_disc(tray: &Arc<Tray>, path: &Path) -> Result<(), String> {
    if is_drive(path).map_err(|error| error.to_string())? {
        tray.clear().map_err(|error| error.to_string())?;
        return connect(tray, path).map_err(|error| error.to_string());
    }
    let disc = open_disc(path).map_err(|error| error.to_string())?;
    tray.insert(disc).map_err(|error| error.to_string())
}

/// Whether it is an optical drive.
fn is_drive(path: &Path) -> Result<bool, RunError> {
    let device = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    if !device {
        return Ok(false);
    }
    OpticalDrive::is_at(path).map_err(|source| RunError::Disc { path: path.to_owned(), source })
}

fn connect(tray: &Arc<Tray>, path: &Path) -> Result<(), RunError> {
    OpticalDrive::connect(path, tray).map_err(|source| RunError::Disc { path: path.to_owned(), source })
}

/// A CD is always its image's bytes.
fn open_disc(path: &Path) -> Result<Arc<dyn Disk>, RunError> {
    let options = Options { format: Some(Format::Raw), readonly: true, ephemeral: false };
    lodge_disk::open(path, options).map_err(|error| match error {
        // What to do about a disk that can't be opened is another matter.
        DiskError::File(FileError::Open { path, source }) => RunError::Disc { path, source },
        DiskError::File(FileError::Empty { path }) => RunError::EmptyDisc { path },
        DiskError::File(FileError::Size { path, size }) => RunError::CutDisc { path, size },
        other => other.into(),
    })
}

/// What to do about a disc that can't be opened.
pub fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "change its permissions with chmod; for a drive, join the group `cdrom`"
        }
        _ => "give the file of an ISO image, or the device of a drive such as /dev/sr0",
    }
}

/// A floppy drive with what the plan has in it.
///
/// # Errors
/// That cannot be opened, or is no floppy's size.
pub fn open_floppy(plan: &FloppyPlan) -> Result<Arc<Tray>, RunError> {
    let Some(path) = &plan.path else { return Ok(Tray::new(None)) };
    Ok(Tray::new(Some(open_image_of_floppy(path, plan.readonly)?)))
}

/// Puts a floppy into a drive while the machine runs.
///
/// # Errors
/// It cannot be opened, or is no floppy's size.
pub fn load_floppy(tray: &Arc<Tray>, path: &Path) -> Result<(), String> {
    let writable = std::fs::metadata(path).is_ok_and(|metadata| !metadata.permissions().readonly());
    let floppy = open_image_of_floppy(path, !writable).map_err(|error| error.to_string())?;
    tray.insert(floppy).map_err(|error| error.to_string())
}

fn open_image_of_floppy(path: &Path, readonly: bool) -> Result<Arc<dyn Disk>, RunError> {
    let options = Options { format: Some(Format::Raw), readonly, ephemeral: false };
    let disk = lodge_disk::open(path, options).map_err(|error| match error {
        DiskError::File(FileError::Open { path, source }) => RunError::FloppyFile { path, source },
        DiskError::File(FileError::Empty { path }) => FloppyError { path, bytes: 0 }.into(),
        DiskError::File(FileError::Size { path, size: bytes }) => FloppyError { path, bytes }.into(),
        other => other.into(),
    })?;
    if Geometry::of(disk.size()).is_none() && disk.size() < DISKETTE {
        // Images are often cut off where their contents end.
        return Ok(Arc::new(Padded::new(disk, DISKETTE)));
    }
    Geometry::of_file(path, disk.size())?;
    Ok(disk)
}

/// What to do about a floppy that can't be opened.
pub fn floppy_remedy(source: &std::io::Error, path: &Path) -> String {
    match source.kind() {
        std::io::ErrorKind::NotFound => format!("make one with `truncate -s 1440K {}`", path.display()),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "change its permissions with chmod, or add `,readonly`".into()
        }
        _ => "give the file of a floppy's image".into(),
    }
}

/// What is wrong with discs that are all there is to boot from, if none of them can be: the first such disc. Without a
/// medium, or a drive of the host's, nobody knows yet.
pub fn unbootable(plans: &[CdPlan], cds: &[AttachedCd]) -> Option<PathBuf> {
    let discs: Vec<_> = plans.iter().zip(cds).map(|(plan, cd)| (plan.path.clone(), cd.tray.medium())).collect();
    let none_boots = discs.iter().all(|(_, disc)| disc.as_deref().is_some_and(|disc| !has_boot_record(disc)));
    discs.into_iter().next().filter(|_| none_boots)?.0
}

/// Whether a disc has a boot record (El Torito 1.0, section 2.0, figure 7).
fn has_boot_record(disc: &dyn Disk) -> bool {
    const AT: u64 = 17 * 2048;
    const RECORD: &[u8] = b"\0CD001\x01EL TORITO SPECIFICATION";
    let mut bytes = [0; RECORD.len()];
    disc.read_at(AT, &mut [IoSliceMut::new(&mut bytes)]).is_ok() && bytes == RECORD
}

#[cfg(test)]
mod tests {
    use super::*;
    use lodge_vm::CdBus;

    fn iso(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut all = vec![0; 20 * 2048];
        all[17 * 2048..][..bytes.len()].copy_from_slice(bytes);
        std::fs::write(file.path(), all).unwrap();
        file
    }

    #[test]
    fn discs_without_a_boot_record_are_known() {
        let (good, bad) = (iso(b"\0CD001\x01EL TORITO SPECIFICATION"), iso(b"\x02CD001\x01"));
        let short = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(short.path(), [0; 2048]).unwrap();
        let of = |files: &[Option<&Path>]| {
            let plan = |path: &Option<&Path>| CdPlan { path: path.map(Path::to_owned), bus: CdBus::Ide };
            let plans: Vec<_> = files.iter().map(plan).collect();
            let cds: Vec<_> = plans.iter().map(|plan| open_cd(plan).unwrap()).collect();
            unbootable(&plans, &cds)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None]), None);
        assert_eq!(of(&[Some(good.path())]), None);
        assert_eq!(of(&[Some(bad.path())]), Some(bad.path().to_owned()));
        assert_eq!(of(&[Some(short.path()), Some(bad.path())]), Some(short.path().to_owned()));
        assert_eq!(of(&[Some(bad.path()), Some(good.path())]), None);
    }
}
