//! A file that comes into being whole or not at all.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::DiskError;
use crate::host::HostFile;

/// Permissions of a new file, before the umask.
const MODE: u32 = 0o666;

/// A file to be.
pub(super) struct Output {
    temporary: NamedTempFile,
    path: PathBuf,
    /// The file that it replaces, kept locked until then.
    _replaced: Option<HostFile>,
}

impl Output {
    /// Begins a file; one that is there is replaced only by `force`.
    pub fn new(path: &Path, force: bool) -> Result<Self, DiskError> {
        // What a link leads to is replaced rather than the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let replaced = match std::fs::symlink_metadata(&path) {
            Ok(_) if !force => return Err(DiskError::Exists { path }),
            Ok(metadata) if !metadata.is_file() => {
                return Err(DiskError::Refused(format!("{} is not a file; name one", path.display())));
            }
            Ok(_) => {
                let host = HostFile::open(&path, true)?;
                host.lock()?;
                Some(host)
            }
            Err(_) => None,
        };
        Self::beside(path, replaced)
    }

    /// Begins the file that takes the place of one which is open and locked.
    pub fn replacing(path: PathBuf) -> Result<Self, DiskError> {
        Self::beside(path, None)
    }

    fn beside(path: PathBuf, replaced: Option<HostFile>) -> Result<Self, DiskError> {
        let folder = folder_of(&path);
        let temporary = Builder::new()
            .prefix(".lodge-disk-")
            .permissions(std::fs::Permissions::from_mode(MODE))
            .tempfile_in(folder)
            .map_err(DiskError::io(&path, "made"))?;
        Ok(Self { temporary, path, _replaced: replaced })
    }

    /// The file as it is now, for writing.
    pub fn host(&self) -> Result<HostFile, DiskError> {
        HostFile::open(self.temporary.path(), true)
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Where it will be.
    pub fn target(&self) -> &Path {
        &self.path
    }

    /// Gives it the permissions, and as far as we may the owner, of another file.
    pub fn like(&self, other: &Path) -> Result<(), DiskError> {
        let fault = DiskError::io(&self.path, "made");
        let metadata = std::fs::metadata(other).map_err(&fault)?;
        let owner = std::os::unix::fs::fchown(self.temporary.as_file(), Some(metadata.uid()), Some(metadata.gid()));
        if let Err(error) = owner {
            tracing::debug!(%error, "the owner can't be kept");
        }
        self.temporary.as_file().set_permissions(metadata.permissions()).map_err(&fault)
    }

    /// Puts it in its place, when all of it is on stable storage.
    pub fn finish(self, force: bool) -> Result<(), DiskError> {
        let fault = DiskError::io(&self.path, "made");
        self.temporary.as_file().sync_all().map_err(&fault)?;
        let persisted =
            if force { self.temporary.persist(&self.path) } else { self.temporary.persist_noclobber(&self.path) };
        persisted.map_err(|error| {
            if error.error.kind() == std::io::ErrorKind::AlreadyExists {
                DiskError::Exists { path: self.path.clone() }
            } else {
                fault(error.error)
            }
        })?;
        File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all()).map_err(&fault)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
