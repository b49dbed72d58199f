//! A drive by way of Linux's driver: the ioctls of `linux/cdrom.h` (Documentation/userspace-api/ioctl/cdrom.rst).
//!
//! A tray is held by having the device open a second time, for its data, as a mounted disc has it: such an opening locks
//! the tray, and the last closing unlocks it, however the process ended (drivers/cdrom/cdrom.c, `cdrom_release`). What
//! CDROM_LOCKDOOR locks stays so after the last closing; it is for hosts where openings are told not to lock
//! (`dev.cdrom.lock`).
#![expect(unsafe_code, reason = "ioctls of the kernel's that no crate has safe functions for")]
// UNSAFETY: all requests here take a number as their argument, so that the kernel reads and writes no memory of ours.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

use super::{Door, Presence};
use crate::disk::{Disk, RawDisk};

/// CDROMEJECT: open the tray.
const EJECT: Opcode = 0x5309;
/// CDROMCLOSETRAY: close it.
const CLOSE: Opcode = 0x5319;
/// CDROM_MEDIA_CHANGED: whether the medium was changed since this was last asked.
const CHANGED: Opcode = 0x5325;
/// CDROM_DRIVE_STATUS: what is in it.
const STATUS: Opcode = 0x5326;
/// CDROM_LOCKDOOR: hold the tray, or let it go.
const LOCK: Opcode = 0x5329;
/// CDROM_SET_OPTIONS: adds options, here none, and returns those that are set.
const OPTIONS: Opcode = 0x5320;
/// CDO_LOCK: opening the device for its data locks the tray.
const OPENING_LOCKS: i32 = 0x08;
/// CDS_DISC_OK: a disc is in it.
const DISC: i32 = 4;
/// Argument: the drive's current slot, for those with many.
const CURRENT: usize = i32::MAX as usize;

/// A request with a number, and what it returns.
struct Request(Opcode, usize);

// SAFETY: the argument is a number and not an address; the output is the return value.
unsafe impl Ioctl for Request {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::without_provenance_mut(self.1)
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// How often a tray is told to open that something else has open, as the host's own look at a disc does for a moment.
const TRIES: u32 = 10;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(100);

/// An optical drive's device file.
pub(super) struct Kernel {
    path: PathBuf,
    /// None while it is gone.
    file: Option<File>,
    /// Holds the tray.
    hold: Option<File>,
}

impl Kernel {
    /// The drive at `path`, if there is one: a block device that answers as optical drives do.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        if !std::fs::metadata(path)?.file_type().is_block_device() {
            return Ok(None);
        }
        let kernel = Self { path: path.to_owned(), file: Some(device(path)?), hold: None };
        Ok(kernel.ask(STATUS, CURRENT).is_ok().then_some(kernel))
    }

    fn ask(&self, request: Opcode, argument: usize) -> Result<i32> {
        let file = self.file.as_ref().ok_or(Errno::NODEV)?;
        // SAFETY: see `Request`.
        Ok(unsafe { rustix::ioctl::ioctl(file, Request(request, argument)) }?)
    }

    /// Has the drive do something.
    fn order(&self, request: Opcode, argument: usize) -> Result<()> {
        self.ask(request, argument).and_then(done)
    }

    /// Opens the device for its data, which locks the tray.
    fn hold(&mut self) -> Result<()> {
        // An opening would close an open tray.
        if self.ask(STATUS, CURRENT)? != DISC {
            return Err(Errno::NOMEDIUM.into());
        }
        let hold = File::open(&self.path)?;
        let is_the_drive = |file: &File| Ok::<_, Error>(file.metadata()?.rdev() == hold.metadata()?.rdev());
        if !self.file.as_ref().map_or(Ok(false), is_the_drive)? {
            return Err(Errno::NODEV.into());
        }
        self.hold = Some(hold);
        Ok(())
    }
}

/// Whether a drive did what it was to do: what the kernel passes on to it is answered with the drive's SCSI status.
fn done(status: i32) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::other(format!("it refuses (SCSI status {status})"))),
    }
}

/// Has a drive let go of its tray and open it, by way of `order`. It may not let go, either, while something else has it open:
/// then its lock stays, whether the kernel knows of that (CDROMEJECT is busy) or only the drive (it refuses).
fn open_tray(pause: Duration, mut order: impl FnMut(Opcode) -> Result<()>) -> Result<()> {
    let is_busy = |error: &Error| error.kind() == ErrorKind::ResourceBusy;
    for tries_left in (0..TRIES).rev() {
        // A drive that cannot lock does not let go, and opens.
        let kept = order(LOCK).err().filter(is_busy);
        let Err(error) = order(EJECT) else { return Ok(()) };
        let error = kept.unwrap_or(error);
        if tries_left == 0 || !is_busy(&error) {
            return Err(error);
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Opens a drive, with or without a medium in it.
fn device(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if file.metadata()?.file_type().is_block_device() { Ok(file) } else { Err(Errno::NOTBLK.into()) }
}

impl Door for Kernel {
    fn presence(&mut self) -> Result<Presence> {
        if self.file.is_none() {
            self.file = Some(device(&self.path)?);
        }
        let status = self.ask(STATUS, CURRENT).inspect_err(|_| {
            // It may have been unplugged. Its name is free for the one that comes once nobody has it open.
            (self.file, self.hold) = (None, None);
        })?;
        Ok(match status {
            1 => Presence::Empty,
            2 => Presence::Open,
            3 => Presence::NotReady,
            // It is there, or the drive cannot tell.
            _ => Presence::Loaded,
        })
    }

    fn is_changed(&mut self) -> bool {
        // A drive that cannot tell is one whose presence tells.
        self.ask(CHANGED, CURRENT).is_ok_and(|changed| changed == 1)
    }

    fn medium(&mut self) -> Result<Arc<dyn Disk>> {
        // The size is the medium's that was there when the device was opened. Closed first: the kernel opens no tray of a
        // drive that is open twice.
        (self.file, self.hold) = (None, None);
        let mut file = device(&self.path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let disk = RawDisk::from_file(file.try_clone()?, size, true);
        self.file = Some(file);
        if size == 0 { Err(Errno::NOMEDIUM.into()) } else { Ok(Arc::new(disk)) }
    }

    fn lock(&mut self, locked: bool) -> Result<()> {
        if !locked {
            self.hold = None;
            return self.order(LOCK, 0);
        }
        if self.ask(OPTIONS, 0).is_ok_and(|options| options & OPENING_LOCKS != 0) {
            return if self.hold.is_some() { Ok(()) } else { self.hold() };
        }
        self.order(LOCK, 1)
    }

    fn eject(&mut self) -> Result<()> {
        open_tray(PAUSE, |request| self.order(request, 0))
    }

    fn close(&mut self) -> Result<()> {
        self.order(CLOSE, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_drive_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Kernel::open(file.path()).unwrap().is_none());
        assert!(Kernel::open(Path::new("/dev/null")).unwrap().is_none());
        assert!(Kernel::open(Path::new("/no/such")).is_err());
        let mut kernel = Kernel { path: file.path().to_owned(), file: Some(file.reopen().unwrap()), hold: None };
        assert!(kernel.presence().is_err() && !kernel.is_changed());
        assert!(kernel.lock(true).is_err() && kernel.eject().is_err() && kernel.close().is_err());
        assert!(kernel.medium().is_err(), "it has no bytes");
    }

    #[test]
    fn what_a_drive_refuses_is_an_error() {
        assert!(done(0).is_ok());
        // CHECK CONDITION, as a tray that is held answers.
        assert_eq!(done(2).unwrap_err().to_string(), "it refuses (SCSI status 2)");
    }

    #[test]
    fn a_tray_is_let_go_and_opened_when_nothing_else_has_it_open_any_more() {
        // How long it is busy, what a locked tray answers, what comes of it.
        for (busy, locked, opens) in [
            (0, Errno::BUSY.into(), true),
            (3, Errno::BUSY.into(), true),
            (3, done(2).unwrap_err(), true),
            (u32::MAX, done(2).unwrap_err(), false),
        ] {
            let (mut tries, mut held) = (0, true);
            let result = open_tray(Duration::ZERO, |request| match request {
                LOCK if tries < busy => Err(Errno::BUSY.into()),
                LOCK => {
                    held = false;
                    Ok(())
                }
                EJECT => {
                    tries += 1;
                    if !held {
                        return Ok(());
                    }
                    Err(locked.raw_os_error().map_or_else(|| done(2).unwrap_err(), Error::from_raw_os_error))
                }
                other => panic!("{other:#x}"),
            });
            match result {
                Ok(()) => assert_eq!((opens, tries), (true, busy + 1)),
                Err(error) => assert_eq!((opens, tries, error.kind()), (false, TRIES, ErrorKind::ResourceBusy)),
            }
        }
        // What has other reasons is not tried again, and what cannot lock opens.
        let mut asked = vec![];
        let mut answer = |request, error: Errno| {
            asked.push(request);
            if request == LOCK || error == Errno::IO { Err(error.into()) } else { Ok(()) }
        };
        assert!(open_tray(Duration::ZERO, |request| answer(request, Errno::IO)).is_err());
        assert!(open_tray(Duration::ZERO, |request| answer(request, Errno::NOSYS)).is_ok());
        assert_eq!(asked, [LOCK, EJECT, LOCK, EJECT]);
    }

    #[test]
    fn a_drive_that_is_gone_is_looked_for_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drive");
        std::fs::write(&path, "no drive").unwrap();
        let file = || Some(File::open(&path).unwrap());
        let mut kernel = Kernel { path: path.clone(), file: file(), hold: file() };
        let number = |error: Error| error.raw_os_error().map(Errno::from_raw_os_error);
        assert_eq!(number(kernel.presence().unwrap_err()), Some(Errno::NOTTY));
        assert!(kernel.file.is_none() && kernel.hold.is_none(), "closed, so that another can have its name");
        assert_eq!(number(kernel.presence().unwrap_err()), Some(Errno::NOTBLK), "it was opened again");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(number(kernel.presence().unwrap_err()), Some(Errno::NOENT));
        assert_eq!(number(kernel.eject().unwrap_err()), Some(Errno::NODEV));
    }
}
