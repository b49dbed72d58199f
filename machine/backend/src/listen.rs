//! Unix sockets with a name.

use std::fs;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

/// Connections that wait to be taken.
const BACKLOG: i32 = 16;

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// Whoever the process's umask leaves it to.
    Umask,
    /// Its user alone.
    Private,
}

/// Listens at `path`. A socket that nobody listens on any more is replaced.
///
/// # Errors
/// Somebody listens there, something else is there, or the host gives no socket.
pub fn listen_at(path: &Path, openness: Openness) -> Result<UnixListener> {
    match make(path, openness) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            make(path, openness)
        }
        other => other,
    }
}

/// Listens at `path`, where nothing may be.
fn make(path: &Path, openness: Openness) -> Result<UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if openness == Openness::Private {
        // Before it has a name: nobody can be quicker.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    }
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Whether `path` is a socket that refuses connections; files that are no sockets refuse them too, and are the user's.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
