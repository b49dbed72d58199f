//! The folder that the files are in: checked to be its user's alone, with the key.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::Problem;

/// Bytes of the key.
const KEY: usize = 32;
const KEY_NAME: &str = "key";
const LOCK_NAME: &str = "lock";
/// Permissions of others and the group.
const OTHERS: u32 = 0o077;

/// A folder of one user.
#[derive(Debug)]
pub struct Folder {
    pub(crate) fd: OwnedFd,
    pub(crate) key: [u8; KEY],
}

impl Folder {
    /// Opens the folder, or makes it, with a new key.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or is not the user's alone.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let host = Problem::host("the folder for kept code cannot be used");
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
        {
            std::fs::create_dir_all(parent).map_err(|source| Problem::Host { what: "making a folder", source })?;
        }
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(host(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(&host)?;
        let status = rustix::fs::fstat(&fd).map_err(&host)?;
        if status.st_uid != rustix::process::geteuid().as_raw() || status.st_mode & 0o022 != 0 {
            return Err(Problem::Exposed("the folder"));
        }
        let key = read_key(&fd)?;
        Ok(Self { fd, key })
    }

    /// Opens a file for reading, if there is one; it must be a plain file of the user's alone.
    pub(crate) fn file(&self, name: &str) -> Result<Option<OwnedFd>, Problem> {
        open_private(&self.fd, name)
    }

    /// Makes a file that nobody has a name for by chance. It is locked for as long as it is open.
    pub(crate) fn create(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(fd)
    }

    pub(crate) fn remove(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
    }

    /// Keeps others from replacing files for as long as the result lives. `None`: someone else does for too long.
    pub(crate) fn lock(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, LOCK_NAME, flags, Mode::RUSR | Mode::WUSR).ok()?;
        // 2 s in all.
        for _ in 0..200 {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(fd),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(10)),
                Err(_) => return None,
            }
        }
        None
    }

    /// Names, sizes and times of change of the files that end in `suffix`.
    pub(crate) fn list(&self, suffix: &str) -> rustix::io::Result<Vec<(String, u64, i64)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.ends_with(suffix) {
                continue;
            }
            let Ok(status) = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            found.push((name.to_owned(), status.st_size as u64, status.st_mtime));
        }
        Ok(found)
    }

    /// Removes files that someone was making when he was stopped: nobody has them locked. One that was just made may
    /// not be locked yet.
    pub(crate) fn sweep(&self, suffix: &str) {
        const YOUNG: i64 = 60;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs() as i64);
        for (name, _, changed) in self.list(suffix).unwrap_or_default() {
            if now - changed > YOUNG
                && let Ok(Some(file)) = self.file(&name)
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = self.remove(&name);
            }
        }
    }
}

/// Opens a plain file that belongs to the user and that others can neither read nor write.
fn open_private(folder: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Problem> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let host = Problem::host("a file cannot be opened");
    let fd = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Problem::Exposed("a file in the folder")),
        Err(error) => return Err(host(error)),
    };
    let status = rustix::fs::fstat(&fd).map_err(host)?;
    let plain = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    if !plain || status.st_uid != rustix::process::geteuid().as_raw() || status.st_mode & OTHERS != 0 {
        return Err(Problem::Exposed("a file in the folder"));
    }
    Ok(Some(fd))
}

fn read_key(folder: &OwnedFd) -> Result<[u8; KEY], Problem> {
    let host = Problem::host("the key cannot be made");
    // Two programs may make it at once; the first one's counts. One that was half made is nobody's.
    for _ in 0..2 {
        if let Some(file) = open_private(folder, KEY_NAME)? {
            let mut key = [0; KEY + 1];
            let length = rustix::io::pread(file.as_fd(), &mut key, 0).map_err(&host)?;
            let (bytes, _) = key.split_at(KEY);
            return <[u8; KEY]>::try_from(bytes)
                .ok()
                .filter(|_| length == KEY)
                .ok_or(Problem::Damaged("the folder's key"));
        }
        let mut random = [0; KEY + 8];
        let got = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()).map_err(&host)?;
        if got != random.len() {
            return Err(Problem::Damaged("the host's random numbers"));
        }
        let (key, tail) = random.split_at(KEY);
        let name = format!("key-{:02x}{:02x}{:02x}{:02x}-{}", tail[0], tail[1], tail[2], tail[3], std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &*name, flags, Mode::RUSR | Mode::WUSR).map_err(&host)?;
        let written = rustix::io::pwrite(&file, key, 0);
        let linked = rustix::fs::linkat(folder, &*name, folder, KEY_NAME, AtFlags::empty());
        let _ = rustix::fs::unlinkat(folder, &*name, AtFlags::empty());
        if written.map_err(&host)? != KEY {
            return Err(Problem::Damaged("the folder's key"));
        }
        match linked {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(host(error)),
        }
    }
    Err(Problem::Damaged("the folder's key"))
}
