//! A drive by way of Linux's driver: the ioctls of `linux/cdrom.h` (Documentation/userspace-api/ioctl/cdrom.rst).
#![expect(unsafe_code, reason = "ioctls of the kernel's that no crate has safe functions for")]
// UNSAFETY: all requests here take a number as their argument, so that the kernel reads and writes no memory of ours.

use std::fs::{File, OpenOptions};
use std::io::{Result, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
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

/// An optical drive's device file.
pub(super) struct Kernel {
    path: PathBuf,
    file: Option<File>,
}

impl Kernel {
    /// The drive at `path`, if there is one: a block device that answers as optical drives do.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        if !std::fs::metadata(path)?.file_type().is_block_device() {
            return Ok(None);
        }
        let kernel = Self { path: path.to_owned(), file: Some(device(path)?) };
        Ok(kernel.ask(STATUS, CURRENT).is_ok().then_some(kernel))
    }

    fn ask(&self, request: Opcode, argument: usize) -> Result<i32> {
        let file = self.file.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        // SAFETY: see `Request`.
        Ok(unsafe { rustix::ioctl::ioctl(file, Request(request, argument)) }?)
    }
}

/// Opens a drive, with or without a medium in it.
fn device(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

impl Door for Kernel {
    fn presence(&mut self) -> Result<Presence> {
        if self.file.is_none() {
            self.file = Some(device(&self.path)?);
        }
        Ok(match self.ask(STATUS, CURRENT)? {
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
        self.file = None;
        let mut file = device(&self.path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let disk = RawDisk::from_file(file.try_clone()?, size, true);
        self.file = Some(file);
        if size == 0 { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(Arc::new(disk)) }
    }

    fn lock(&mut self, locked: bool) -> Result<()> {
        self.ask(LOCK, locked.into()).map(drop)
    }

    fn eject(&mut self) -> Result<()> {
        self.ask(EJECT, 0).map(drop)
    }

    fn close(&mut self) -> Result<()> {
        self.ask(CLOSE, 0).map(drop)
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
        let mut kernel = Kernel { path: file.path().to_owned(), file: Some(file.reopen().unwrap()) };
        assert!(kernel.presence().is_err() && !kernel.is_changed());
        assert!(kernel.lock(true).is_err() && kernel.eject().is_err() && kernel.close().is_err());
        assert!(kernel.medium().is_err(), "it has no bytes");
    }
}
