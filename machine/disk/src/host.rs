//! A file or block device on the host that holds an image, with the locks on it.
//!
//! Two kinds of lock are taken, both of the open file, so that they hold against other threads of this process too:
//!
//! * flock(2), shared by readers and exclusive for a writer, as `lodge_backend::RawDisk` does;
//! * QEMU's byte-range locks (OFD): a shared lock on byte 100 + n says that permission n is used, one on byte 200 + n
//!   that nobody else may use it. So QEMU's programs notice lodge, and lodge notices them.
//!
//! A block device is opened for writing only if the host itself does not use it (O_EXCL); `holders` says how it does.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lodge_backend::DiskError as FileError;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use crate::{DiskError, holders};

/// QEMU's permissions: consistent read, write, write unchanged, resize.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const RESIZE: u64 = 1 << 3;
const PERMISSIONS: std::ops::Range<u64> = 0..4;
/// Where QEMU's locks of permissions in use begin, and those of permissions denied to others.
const USED: u64 = 100;
const DENIED: u64 = 200;
/// Most buffers in one call (UIO_MAXIOV).
const MOST_BUFFERS: usize = 1024;
/// How often, and how long each time, another's lock is waited for.
const PATIENCE: u32 = 10;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// An image's file.
#[derive(Debug)]
pub(crate) struct HostFile {
    file: File,
    path: PathBuf,
    writable: bool,
    identity: (u64, u64),
    /// What is done to the file, for tests that cut the power.
    #[cfg(test)]
    journal: Option<std::sync::Arc<parking_lot::Mutex<Vec<Event>>>>,
}

/// Something that was done to a file.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Bytes were written at an offset.
    Write(u64, Vec<u8>),
    /// A range was given back.
    Punch(u64, u64),
    /// All that was done is on stable storage.
    Sync,
}

impl HostFile {
    /// Opens a file without locking it.
    pub fn open(path: &Path, writable: bool) -> Result<Self, DiskError> {
        let fault = |source| FileError::Open { path: path.to_owned(), source };
        // Opening a FIFO must not wait for its other end.
        let mut flags = OFlags::NONBLOCK;
        if writable && std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
            flags |= OFlags::EXCL;
        }
        let file = OpenOptions::new().read(true).write(writable).custom_flags(flags.bits() as i32).open(path);
        let file = file.map_err(|source| match source.kind() {
            std::io::ErrorKind::ResourceBusy if flags.contains(OFlags::EXCL) => {
                FileError::Held { path: path.to_owned(), holder: holders::of(path) }
            }
            _ => fault(source),
        })?;
        let metadata = file.metadata().map_err(fault)?;
        let kind = metadata.file_type();
        if writable && kind.is_block_device() && holders::is_read_only(metadata.rdev()) {
            return Err(fault(Errno::ROFS.into()).into());
        }
        if kind.is_dir() {
            return Err(fault(std::io::ErrorKind::IsADirectory.into()).into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FileError::Kind { path: path.to_owned() }.into());
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            writable,
            // A device may have several files.
            identity: if kind.is_file() { (metadata.dev(), metadata.ino()) } else { (metadata.rdev(), u64::MAX) },
            #[cfg(test)]
            journal: None,
        })
    }

    /// Notes from now on what is done to the file.
    #[cfg(test)]
    pub fn record(&mut self) -> std::sync::Arc<parking_lot::Mutex<Vec<Event>>> {
        self.journal.insert(std::sync::Arc::default()).clone()
    }

    #[cfg(test)]
    fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(journal) = &self.journal {
            journal.lock().push(event());
        }
    }

    /// Locks it: for itself alone if it is writable, and shared with other readers if not. A process that is about to
    /// end, or one that is about to become another program, may hold a lock for a moment longer: that is waited for.
    pub fn lock(&self) -> Result<(), DiskError> {
        for _ in 0..PATIENCE {
            match self.try_lock() {
                Err(DiskError::File(FileError::InUse { .. })) => std::thread::sleep(PAUSE),
                done => return done,
            }
        }
        self.try_lock()
    }

    fn try_lock(&self) -> Result<(), DiskError> {
        let in_use = || DiskError::from(FileError::InUse { path: self.path.clone() });
        let how = if self.writable {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match rustix::fs::flock(&self.file, how) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use()),
            // Some network file systems have no locks.
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "the disk can't be locked"),
        }
        let used = if self.writable { READ | WRITE | RESIZE } else { READ };
        let denied = if self.writable { READ | WRITE | RESIZE } else { WRITE | RESIZE };
        for n in PERMISSIONS {
            for (set, base) in [(used, USED), (denied, DENIED)] {
                if set & 1 << n != 0 && !self.range_lock(base + n) {
                    return Ok(());
                }
            }
        }
        for n in PERMISSIONS {
            let conflict = used & 1 << n != 0 && self.others_hold(DENIED + n)
                || denied & 1 << n != 0 && self.others_hold(USED + n);
            if conflict {
                return Err(in_use());
            }
        }
        Ok(())
    }

    fn range(byte: u64, kind: i32) -> nix::libc::flock {
        nix::libc::flock {
            l_type: kind as i16,
            l_whence: nix::libc::SEEK_SET as i16,
            l_start: byte as i64,
            l_len: 1,
            l_pid: 0,
        }
    }

    /// Takes a shared lock of a byte. Whether there are such locks here.
    fn range_lock(&self, byte: u64) -> bool {
        let range = Self::range(byte, nix::libc::F_RDLCK);
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range)).is_ok()
    }

    fn others_hold(&self, byte: u64) -> bool {
        let mut range = Self::range(byte, nix::libc::F_WRLCK);
        let asked = fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range));
        asked.is_ok() && i32::from(range.l_type) != nix::libc::F_UNLCK
    }

    /// Its name, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and file number.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// A second handle of the same open file, which shares its locks.
    pub fn file(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// Bytes, of a block device too.
    pub fn length(&self) -> std::io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_file() { Ok(metadata.len()) } else { (&self.file).seek(SeekFrom::End(0)) }
    }

    /// Bytes that it occupies on the host's disk.
    pub fn allocated(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    /// Fills a buffer; what lies beyond the end of the file is zero.
    pub fn read_padded(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.readv_padded(offset, &mut [IoSliceMut::new(buffer)])
    }

    /// Fills buffers; what lies beyond the end of the file is zero.
    pub fn readv_padded(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        self.readv_from(offset, buffers).map(|_| ())
    }

    /// Fills buffers with data that has to be there: at least its beginning. A file that ends before it was cut short,
    /// and its data must not read as zeroes.
    pub fn readv_data(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        if self.readv_from(offset, buffers)? {
            return Ok(());
        }
        let problem = format!("{} ends before its data: it was cut short", self.path.display());
        Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, problem))
    }

    /// Fills buffers, with zeroes beyond the end of the file. Whether any of it was there.
    fn readv_from(&self, mut offset: u64, mut buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<bool> {
        let mut any = buffers.iter().all(|buffer| buffer.is_empty());
        IoSliceMut::advance_slices(&mut buffers, 0);
        while !buffers.is_empty() {
            if i64::try_from(offset).is_err() {
                buffers.iter_mut().for_each(|buffer| buffer.fill(0));
                return Ok(any);
            }
            let now = buffers.len().min(MOST_BUFFERS);
            match rustix::io::preadv(&self.file, &mut buffers[..now], offset) {
                Ok(0) => {
                    buffers.iter_mut().for_each(|buffer| buffer.fill(0));
                    return Ok(any);
                }
                Ok(count) => {
                    any = true;
                    offset += count as u64;
                    IoSliceMut::advance_slices(&mut buffers, count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(any)
    }

    /// Writes a buffer.
    pub fn write(&self, offset: u64, buffer: &[u8]) -> std::io::Result<()> {
        self.writev(offset, &[IoSlice::new(buffer)])
    }

    /// Writes buffers.
    pub fn writev(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        #[cfg(test)]
        self.note(|| Event::Write(offset, buffers.iter().flat_map(|buffer| buffer.to_vec()).collect()));
        lodge_backend::write_all(&self.file, offset, buffers)
    }

    /// Returns when all that was written is on stable storage.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()?;
        #[cfg(test)]
        self.note(|| Event::Sync);
        Ok(())
    }

    /// Gives back a range's space; it reads as zeroes then, if the file system knows how.
    pub fn punch(&self, offset: u64, length: u64) -> std::io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        #[cfg(test)]
        self.note(|| Event::Punch(offset, length));
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
        {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reserves space on the host for a range.
    pub fn reserve(&self, offset: u64, length: u64) -> std::io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            Err(Errno::OPNOTSUPP) if offset + length > self.length()? => self.set_length(offset + length),
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Cuts or extends the file.
    pub fn set_length(&self, length: u64) -> std::io::Result<()> {
        self.file.set_len(length)
    }

    /// Whether the file holds data at an offset, and where that changes. A file system that can't tell holds data.
    pub fn data_run(&self, offset: u64, end: u64) -> (bool, u64) {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) if data > offset => (false, data.min(end)),
            Ok(_) => {
                let hole = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(offset)).unwrap_or(end);
                (true, if hole > offset { hole.min(end) } else { end })
            }
            Err(Errno::NXIO) => (false, end),
            Err(_) => (true, end),
        }
    }
}
