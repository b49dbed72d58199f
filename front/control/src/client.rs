//! The asking end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::{Request, Response};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no machine listens at {path}: {source}; start one with `lodge run --control {path}`")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The machine went away, or what listens is none.
    #[error("the machine at {path} went away: {source}")]
    Talk {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The machine says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the machine that listens at `path`, and waits for its answer.
///
/// # Errors
/// Nobody listens there, the machine went away, or it refuses.
pub fn ask(path: &Path, request: &Request) -> Result<Response, AskError> {
    let failed = |source| AskError::Talk { path: path.to_owned(), source };
    let mut peer = UnixStream::connect(path).map_err(|source| AskError::Connect { path: path.to_owned(), source })?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    peer.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    if BufReader::new(peer).read_line(&mut answer).map_err(failed)? == 0 {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&answer).map_err(|error| failed(error.into()))? {
        Response::Error(text) => Err(AskError::Refused(text)),
        response => Ok(response),
    }
}
