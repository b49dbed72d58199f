//! A user's private files of records that are found by a number, for what may be used only if nobody else has had
//! a hand in it.
//!
//! * A [`Folder`] belongs to one user alone, and holds a secret key.
//! * A [`Vault`] is one file in it, open for reading. Whatever is read from it was written by a program that knew the
//!   key: the head is verified when the file is opened, each chunk of records when one of them is first asked for.
//!   What is verified is a copy in memory, so a file that changes later changes nothing.
//! * A [`Writer`] collects records, and makes a new file of them and of those of the old one that were used last.
//!
//! ```text
//! head       magic, identity, where the directory is, its MAC; the head's own MAC
//! chunks     records: length in 32 bits, bytes
//! directory  of each chunk: place, length, runs since it was last used, MAC
//!            of each record, by ascending number: number, chunk, offset
//! ```
//!
//! A file is never changed once it has its name: it is replaced by rename. It is not synced to disk; what a power cut
//! leaves of it does not verify. Whoever cannot use a file for whatever reason goes without it.
#![forbid(unsafe_code)]

mod file;
mod folder;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use folder::Folder;
pub use read::{Place, Vault};
pub use write::{Limits, Outcome, Writer};

/// What records are only good for: a file with another identity is of no use.
pub type Identity = [u8; 32];

/// The identity that stands for these bytes.
pub fn identity(of: &[u8]) -> Identity {
    *blake3::hash(of).as_bytes()
}

/// Why a folder or file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The host says no.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Others own it or may write to it.
    #[error("{0} is not its user's alone; make it so with chown and chmod, or remove it")]
    Exposed(&'static str),
    /// It holds what no program with the key wrote.
    #[error("{0} is damaged, or was not written with this folder's key")]
    Damaged(&'static str),
    /// It was written by another build, or for something else.
    #[error("the file is of another build")]
    Stale,
}

impl Problem {
    fn host(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |error| Self::Host { what, source: error.into() }
    }
}
