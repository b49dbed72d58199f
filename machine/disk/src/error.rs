//! Why an image can't be opened, made or changed. Each text names the file, the cause and the next step.

use std::path::{Path, PathBuf};

use crate::Format;

/// Why something can't be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] lodge_backend::DiskError),
    /// The file's contents contradict its format.
    #[error("the disk {path} is no sound {format} image: {problem}; {}", mend(*.format))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it was opened as.
        format: Format,
        /// What is wrong.
        problem: String,
    },
    /// The image uses what lodge does not know.
    #[error("the {format} image {path} has {what}, which lodge can't use; {remedy}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What it has.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A format that is only read was to be written.
    #[error(
        "the disk {path} can only be read, as {format} images all; add `,readonly` or `,ephemeral`, or make a qcow2 of \
         it with `lodge disk convert --format qcow2 {path} NEW`"
    )]
    OnlyRead {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// The contents look like a format and the name does not, or the other way round.
    #[error("{0}")]
    Ambiguous(String),
    /// What an image stands on can't be used.
    #[error("the backing file that {path} names can't be used: {problem}")]
    Backing {
        /// The image.
        path: PathBuf,
        /// What is wrong, with what to do.
        problem: String,
    },
    /// There is such a file already.
    #[error("{path} exists already; name another file, or overwrite it with --force")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// What was asked for can't be done with this image.
    #[error("{0}")]
    Refused(String),
    /// The host failed in the middle.
    #[error("{path} can't be {action}: {source}{}", host_remedy(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it, as a participle.
        action: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
}

impl DiskError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    pub(crate) fn damaged(path: &Path, format: Format, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), format, problem: problem.into() }
    }
}

/// What to do about a damaged image.
fn mend(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "`lodge disk check --repair` mends what can be mended, a copy of the file is the other way",
        _ => "use another copy of the file, or name the right format with format=",
    }
}

fn host_remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "; make its folder first",
        std::io::ErrorKind::PermissionDenied => "; change its permissions, or name a place that you may write to",
        std::io::ErrorKind::FileTooLarge => "; make it smaller, or put it on a file system that holds such files",
        std::io::ErrorKind::StorageFull => "; make room on that file system",
        _ => "",
    }
}

/// An error of an access because the image contradicts itself.
pub(crate) fn corrupt(what: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.into())
}
