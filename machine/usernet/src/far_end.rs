//! What a connection of the guest's goes on as: a connection of the host's, or the router's own server of boot files.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::time::Duration;

use lodge_netboot::{Connection, Http};
use mio::Token;
use mio::net::TcpStream;

use crate::sockets::Sockets;

/// The far end of a connection, which never waits: what can't be done now is [`ErrorKind::WouldBlock`].
pub(crate) enum FarEnd {
    /// A connection of the host's, whose events come with the token.
    Host(TcpStream, Token),
    /// The server of boot files. Whether the guest has said its last.
    Files(Box<Http>, bool),
}

impl FarEnd {
    /// Whether it need not be waited for: what it can do it can do at once.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Self::Files(..))
    }

    /// Whether it is connected by now.
    ///
    /// # Errors
    /// It never will be.
    pub(crate) fn is_connected(&self) -> Result<bool> {
        match self {
            Self::Host(stream, _) => match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(stream.peer_addr().is_ok()),
            },
            Self::Files(..) => Ok(true),
        }
    }

    /// Tells it that nothing more comes.
    pub(crate) fn end(&mut self) {
        match self {
            // It may be gone.
            Self::Host(stream, _) => _ = stream.shutdown(Shutdown::Write),
            Self::Files(_, ended) => *ended = true,
        }
    }

    /// Lets go of it, by a reset if the end was not orderly.
    pub(crate) fn forget(self, orderly: bool, sockets: &mut Sockets) {
        let Self::Host(stream, token) = self else { return };
        if !orderly {
            // The host's peer shall not take it for an orderly end; where that can't be said it has to.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        sockets.forget(token);
    }
}

impl Read for FarEnd {
    fn read(&mut self, room: &mut [u8]) -> Result<usize> {
        match self {
            Self::Host(stream, _) => stream.read(room),
            Self::Files(http, ended) => match http.output(room) {
                0 => match http.connection() {
                    Connection::Broken => Err(ErrorKind::ConnectionReset.into()),
                    Connection::Closes => Ok(0),
                    Connection::Open if *ended => Ok(0),
                    Connection::Open => Err(ErrorKind::WouldBlock.into()),
                },
                count => Ok(count),
            },
        }
    }
}

impl Write for FarEnd {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Host(stream, _) => stream.write(bytes),
            Self::Files(http, _) => match http.input(bytes) {
                0 if !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
                count => Ok(count),
            },
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
