//! Where the switches of a user are.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The most letters of a switch's name.
const LONGEST: usize = 32;

/// Why there is no place for a switch.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No switch can be called so.
    #[error("'{0}' is not a switch's name: at most {LONGEST} letters, digits, '-' and '_'")]
    Name(String),
    /// The folder is not this user's alone.
    #[error("the folder '{}' is not yours alone", .0.display())]
    Folder(PathBuf),
    /// The folder can't be made.
    #[error("the folder '{}' can't be made: {source}", folder.display())]
    Make {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: Error,
    },
}

/// The socket and the lock of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    name: String,
}

impl Place {
    /// That of the switch `name` of this user: in the folder for what a user runs, or for lack of one in /tmp. The folder is
    /// made if need be, and is this user's alone.
    ///
    /// # Errors
    /// The name is none, or somebody else has made the folder.
    pub fn of(name: &str) -> Result<Self, PlaceError> {
        let user = geteuid().as_raw();
        // It may be another user's after `su`.
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| is_ours(folder));
        let base = match runtime {
            Some(folder) => folder.join("lodge"),
            None => PathBuf::from(format!("/tmp/lodge-{user}")),
        };
        Self::within(&base, name)
    }

    /// That of the switch `name` in a folder, which is made if need be.
    ///
    /// # Errors
    /// See [`Place::of`].
    pub fn within(base: &Path, name: &str) -> Result<Self, PlaceError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=LONGEST).contains(&name.len()) || !name.bytes().all(letter) {
            return Err(PlaceError::Name(name.to_owned()));
        }
        let folder = base.join("switch");
        for folder in [base, &folder] {
            match std::fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                    return Err(PlaceError::Make { folder: folder.to_owned(), source });
                }
                _ if !is_ours(folder) => return Err(PlaceError::Folder(folder.to_owned())),
                _ => {}
            }
        }
        Ok(Self { folder, name: name.to_owned() })
    }

    /// The switch's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// The file that whoever is the switch has locked.
    pub fn lock(&self) -> PathBuf {
        // No switch's name has a dot in it.
        self.folder.join(format!("{}.lock", self.name))
    }

    /// The file that it says in what it has to say.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }
}

/// Whether it is a folder that nobody but this user can use.
fn is_ours(folder: &Path) -> bool {
    let metadata = std::fs::symlink_metadata(folder);
    metadata.is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}
