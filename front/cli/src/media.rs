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

/// Puts what is in a file into a drive, for reading alone if that is wanted.
type Load = fn(&Arc<Tray>, &Path, bool) -> Result<(), String>;

/// What opens a file: [`lodge_disk::open`], or a test's.
type Open = fn(&Path, Options) -> Result<Arc<dyn Disk>, DiskError>;

/// A drive whose media `lodge ctl` changes.
pub fn drive(name: String, tray: &Arc<Tray>, load: Load) -> Drive {
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

/// Puts a disc into a CD drive, which writes to none, while the machine runs.
///
/// # Errors
/// It cannot be opened, or the guest holds the one that is there.
pub fn load_disc(tray: &Arc<Tray>, path: &Path, _readonly: bool) -> Result<(), String> {
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
    Ok(Tray::new(Some(open_image_of_floppy(lodge_disk::open, path, plan.readonly)?)))
}

/// Puts a floppy into a drive while the machine runs: a write-protected one, if that is wanted or the file can't be written.
///
/// # Errors
/// It cannot be opened, or is no floppy's size.
pub fn load_floppy(tray: &Arc<Tray>, path: &Path, readonly: bool) -> Result<(), String> {
    load_floppy_by(lodge_disk::open, tray, path, readonly)
}

fn load_floppy_by(open: Open, tray: &Tray, path: &Path, readonly: bool) -> Result<(), String> {
    let floppy = match open_image_of_floppy(open, path, readonly) {
        Err(RunError::FloppyFile { source, .. }) if !readonly && is_denied(&source) => {
            open_image_of_floppy(open, path, true)
        }
        other => other,
    };
    tray.insert(floppy.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

/// Whether it may be allowed to read, but not to write.
fn is_denied(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

fn open_image_of_floppy(open: Open, path: &Path, readonly: bool) -> Result<Arc<dyn Disk>, RunError> {
    let options = Options { format: Some(Format::Raw), readonly, ephemeral: false };
    let disk = open(path, options).map_err(|error| match error {
        DiskError::File(FileError::Open { path, source }) => RunError::FloppyFile { path, readonly, source },
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

/// What to do about a floppy that can't be opened, for reading alone if that was wanted.
pub fn floppy_remedy(source: &std::io::Error, path: &Path, readonly: bool) -> String {
    match source.kind() {
        std::io::ErrorKind::NotFound => format!("make one with `truncate -s 1440K {}`", path.display()),
        _ if is_denied(source) && readonly => "change its permissions with chmod".into(),
        _ if is_denied(source) => "change its permissions with chmod, or add `,readonly`".into(),
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
    use rustix::io::Errno;

    fn iso(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut all = vec![0; 20 * 2048];
        all[17 * 2048..][..bytes.len()].copy_from_slice(bytes);
        std::fs::write(file.path(), all).unwrap();
        file
    }

    #[test]
    fn a_floppy_that_cannot_be_written_is_write_protected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(DISKETTE).unwrap();
        let tray = Tray::new(None);
        let protected = || tray.medium().unwrap().is_read_only();
        load_floppy(&tray, file.path(), false).unwrap();
        assert!(!protected());
        tray.eject().unwrap();
        load_floppy(&tray, file.path(), true).unwrap();
        assert!(protected());
        tray.eject().unwrap();
        // Root may write to any file: the answers are the test's.
        fn refuse(path: &Path, errno: Errno) -> Result<Arc<dyn Disk>, DiskError> {
            Err(FileError::Open { path: path.to_owned(), source: errno.into() }.into())
        }
        const DENIED: Open = |path, options| match options.readonly {
            true => lodge_disk::open(path, options),
            false => refuse(path, Errno::ACCESS),
        };
        const READ_ONLY: Open = |path, options| match options.readonly {
            true => lodge_disk::open(path, options),
            false => refuse(path, Errno::ROFS),
        };
        for open in [DENIED, READ_ONLY] {
            load_floppy_by(open, &tray, file.path(), false).unwrap();
            assert!(protected());
            tray.eject().unwrap();
        }
        load_floppy(&tray, file.path(), false).unwrap();
        let error = load_floppy_by(|path, _| refuse(path, Errno::ACCESS), &tray, file.path(), false).unwrap_err();
        assert!(error.contains("Permission denied") && error.ends_with("with chmod"), "{error}");
        // What fails for other reasons is not tried again.
        const BROKEN: Open = |path, options| match options.readonly {
            true => lodge_disk::open(path, options),
            false => refuse(path, Errno::IO),
        };
        assert!(load_floppy_by(BROKEN, &tray, file.path(), false).is_err());
        assert!(!protected(), "the one that is there stays");
    }

    #[test]
    fn a_floppy_of_somebody_elses_is_write_protected() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(DISKETTE).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o444)).unwrap();
        let is_root = std::fs::File::options().write(true).open(file.path()).is_ok();
        let tray = Tray::new(None);
        load_floppy(&tray, file.path(), false).unwrap();
        assert_eq!(tray.medium().unwrap().is_read_only(), !is_root, "as the file can be written");
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
