//! The folder that is served, which guests have no way out of.
//!
//! The kernel resolves what guests ask for and stays beneath the folder while it does (openat2(2), `RESOLVE_BENEATH`), so that
//! neither `..` nor a symbolic link leads out, not even one that is put there while a path is walked.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

#[cfg(test)]
mod tests;

/// The longest path that a client can ask for, in bytes.
pub(crate) const LONGEST_PATH: usize = 1024;
/// How deep it can lead.
const DEEPEST: usize = 16;
/// Entries of a folder that are looked at for a name that differs in case.
const MOST_ENTRIES: usize = 4096;
/// How often a path is walked when something is moved meanwhile.
const TRIES: usize = 8;
/// Names that were asked for in vain that are told, each once.
const MOST_MISSED: usize = 200;
/// What is told of guests' requests in all: who reads the log is not to be flooded by a guest.
const MOST_REPORTS: u32 = 2000;

/// Why there is no file, with the path that was asked for where there is one.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder itself can't be opened.
    #[error("{} can't be served: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// The kernel has no openat2(2), or forbids it.
    #[error("{} can't be served: the host can't hold guests inside of it (openat2: {source})", path.display())]
    NotHeld {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// There is no such file.
    #[error("{asked:?} is not in the folder that is served")]
    Missing {
        /// The path that was asked for.
        asked: String,
    },
    /// The path leads out of the folder, by `..` or by a symbolic link.
    #[error("{asked:?} is outside of the folder that is served")]
    Outside {
        /// The path that was asked for.
        asked: String,
    },
    /// It is a folder, a device or the like.
    #[error("{asked:?} is not a regular file")]
    NotFile {
        /// The path that was asked for.
        asked: String,
    },
    /// The path is none.
    #[error("{asked:?} is not a path of a file: {reason}")]
    Malformed {
        /// The path that was asked for.
        asked: String,
        /// Why not.
        reason: &'static str,
    },
    /// The host's user may not read it, or the host can't.
    #[error("{asked:?} can't be read: {source}")]
    Unreadable {
        /// The path that was asked for.
        asked: String,
        /// Why not.
        source: Error,
    },
}

/// A folder whose regular files are served. Copies are of the same folder.
#[derive(Clone, Debug)]
pub struct Folder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: OwnedFd,
    reports: AtomicU32,
    /// What was asked for in vain, as it was told.
    missed: Mutex<HashSet<String>>,
}

/// A file that is served: it has the size that it had when it was opened.
#[derive(Debug)]
pub struct ServedFile {
    file: File,
    size: u64,
    /// The path that was asked for, as it can be shown.
    asked: String,
}

impl Folder {
    /// Opens a folder of the host's.
    ///
    /// # Errors
    /// It is none, can't be read, or the host's kernel can't hold guests inside of it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| FolderError::Folder { path: path.into(), source: error.into() })?;
        beneath(&root, Path::new("."), flags)
            .map_err(|error| FolderError::NotHeld { path: path.into(), source: error.into() })?;
        Ok(Self {
            inner: Arc::new(Inner { path: path.into(), root, reports: AtomicU32::new(0), missed: Mutex::default() }),
        })
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Opens what a client asks for. Both `/` and `\` separate names, and paths start at the folder, whatever they start with.
    /// What is not there is looked for once more without regard to case, in the way of those who ask for it.
    ///
    /// # Errors
    /// The path is none, leads out, or to nothing that can be served.
    pub fn file(&self, path: &[u8]) -> Result<ServedFile, FolderError> {
        let asked = shown(path);
        let names = match names(path) {
            Ok(names) => names,
            Err(Refusal::Outside) => return Err(FolderError::Outside { asked }),
            Err(Refusal::Malformed(reason)) => return Err(FolderError::Malformed { asked, reason }),
        };
        let exact: PathBuf = names.iter().map(|name| OsString::from_vec(name.to_vec())).collect();
        // Nothing is waited for: a pipe's opening would wait for who writes to it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let found = beneath(&self.inner.root, &exact, flags).or_else(|error| match error {
            Errno::NOENT => match self.alike(&names) {
                Some(path) => beneath(&self.inner.root, &path, flags),
                None => Err(error),
            },
            _ => Err(error),
        });
        let file = match found {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Err(FolderError::Missing { asked }),
            // XDEV says that it leads out; LOOP, that symbolic links lead in circles.
            Err(Errno::XDEV | Errno::LOOP) => return Err(FolderError::Outside { asked }),
            // What is neither a file nor a folder and has nobody at its other end.
            Err(Errno::NXIO | Errno::NODEV) => return Err(FolderError::NotFile { asked }),
            Err(error) => return Err(FolderError::Unreadable { asked, source: error.into() }),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(ServedFile { file, size: metadata.len(), asked }),
            Ok(_) => Err(FolderError::NotFile { asked }),
            Err(source) => Err(FolderError::Unreadable { asked, source }),
        }
    }

    /// The path whose names are those but for case, if there is one; of several, the first by its bytes.
    fn alike(&self, names: &[&[u8]]) -> Option<PathBuf> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut path = PathBuf::new();
        for name in names {
            let parent = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            let folder = beneath(&self.inner.root, parent, flags).ok()?;
            let mut best: Option<Vec<u8>> = None;
            for entry in Dir::read_from(&folder).ok()?.take(MOST_ENTRIES) {
                let entry = entry.ok()?;
                let entry = entry.file_name().to_bytes();
                if entry == *name {
                    best = Some(entry.to_vec());
                    break;
                }
                if entry.eq_ignore_ascii_case(name) && best.as_deref().is_none_or(|best| entry < best) {
                    best = Some(entry.to_vec());
                }
            }
            path.push(OsString::from_vec(best?));
        }
        Some(path)
    }

    /// Whether something may be told of a guest's request.
    pub(crate) fn may_report(&self) -> bool {
        let told = self
            .inner
            .reports
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| (told <= MOST_REPORTS).then_some(told + 1));
        if told == Ok(MOST_REPORTS) {
            tracing::warn!("guests ask for many boot files: nothing more is said of them");
        }
        told.is_ok_and(|told| told < MOST_REPORTS)
    }

    /// Tells of a file that a guest was not given.
    pub(crate) fn report_refused(&self, by: &'static str, error: &FolderError) {
        // Loaders go through lists of names, and some through the same list several times.
        let text = error.to_string();
        let is_new = {
            let mut missed = self.inner.missed.lock();
            missed.len() < MOST_MISSED && missed.insert(text.clone())
        };
        if is_new && self.may_report() {
            tracing::warn!(folder = %self.path().display(), by, "a guest asked for a boot file in vain: {text}");
        }
    }

    /// Tells of a file that could not be read to its end.
    pub(crate) fn report_broken(&self, by: &'static str, file: &ServedFile, reason: &Error) {
        if self.may_report() {
            tracing::warn!(by, "a guest can't read {:?} to its end: {reason}", file.asked);
        }
    }

    /// Tells of a file that a guest was given.
    pub(crate) fn report_served(&self, by: &'static str, file: &ServedFile, bytes: u64) {
        if self.may_report() {
            tracing::info!(by, bytes, "a guest has read {:?}", file.asked);
        }
    }
}

impl ServedFile {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The path that was asked for, as it can be shown.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Reads at an offset until the buffer is full.
    ///
    /// # Errors
    /// The host can't read it, or it has become shorter.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> IoResult<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::new(ErrorKind::UnexpectedEof, "the file has become shorter"),
            _ => error,
        })
    }
}

/// Opens what is beneath a folder.
fn beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        // The kernel says so when something was moved while it walked past a link or `..`, and INTR as everywhere.
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
        result = rustix::fs::openat2(root, path.as_os_str().as_bytes(), flags, Mode::empty(), resolve);
    }
    result
}

/// Why a path is refused before anybody looks for it.
enum Refusal {
    Outside,
    Malformed(&'static str),
}

/// The names in a path.
fn names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > LONGEST_PATH {
        return Err(Refusal::Malformed("it is too long"));
    }
    if path.contains(&0) {
        return Err(Refusal::Malformed("it has a NUL"));
    }
    let names: Vec<&[u8]> = path
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .filter(|name| !name.is_empty() && *name != b".")
        .take(DEEPEST + 1)
        .collect();
    if names.contains(&b"..".as_slice()) {
        return Err(Refusal::Outside);
    }
    match names.len() {
        0 => Err(Refusal::Malformed("it names nothing")),
        depth if depth > DEEPEST => Err(Refusal::Malformed("it is too deep")),
        _ => Ok(names),
    }
}

/// A path as it can be shown: text of a bounded length.
fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(path.get(..MOST).unwrap_or(path)).into_owned();
    if path.len() > MOST { text + "..." } else { text }
}
