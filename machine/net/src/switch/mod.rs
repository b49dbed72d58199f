//! A machine's end of a switch: [`SwitchLink`], over a socket to the process that is the switch (`lodge-switch`).
//!
//! [`SwitchLink::join`] finds the switch by its [`Place`], has it started if it is not there, and says who comes
//! ([`protocol`]).

mod place;
pub mod protocol;
#[cfg(test)]
mod tests;

use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use place::{Place, PlaceError};
use protocol::{Hello, Refusal, SOCKET_BUFFER};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};
use rustix::process::geteuid;

use crate::packets::Packets;
use crate::{Accepts, Frame, LARGEST, Listener, Network};

/// How long a switch may take to be there and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a machine is not on a switch.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is no place for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It says no.
    #[error("the switch '{name}' does not let this machine in: {refusal}")]
    Refused {
        /// The switch.
        name: String,
        /// What it says.
        refusal: Refusal,
    },
    /// It could not be started.
    #[error("the switch '{name}' can't be started: {source}")]
    Start {
        /// The switch.
        name: String,
        /// Why not.
        source: Error,
    },
    /// It does not answer.
    #[error("the switch '{name}' does not answer")]
    Silent {
        /// The switch.
        name: String,
    },
    /// Somebody else's process is where the switch should be.
    #[error("'{}' is another user's", .0.display())]
    Stranger(PathBuf),
    /// The host has not what it takes.
    #[error("the host has no room for a network: {0}")]
    Host(#[from] Error),
}

impl SwitchError {
    /// What can be done.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Place(PlaceError::Name(_)) => "name it otherwise",
            Self::Place(_) | Self::Stranger(_) => "remove it, or set XDG_RUNTIME_DIR to a folder that is yours alone",
            Self::Refused { refusal, .. } => match refusal {
                Refusal::Version => "end the machines that are on it, or name another switch",
                Refusal::MacTaken => "give this one another with mac=ADDRESS",
                Refusal::NatDiffers => "say nat for all of its machines, or for none",
                Refusal::Full => "name another switch",
                Refusal::NoNat => "leave nat out, or raise the user's limits (ulimit -a)",
            },
            Self::Start { .. } | Self::Silent { .. } => "`lodge switch NAME` in another terminal says what is wrong",
            Self::Host(_) => "end other programs, or raise their limits (ulimit -a)",
        }
    }
}

/// A machine's end of a switch.
pub struct SwitchLink(Packets);

impl SwitchLink {
    /// Plugs into the switch at `place`. `start` has a switch started there, and returns before it is.
    ///
    /// # Errors
    /// It can't be started, or says no.
    pub fn join(
        place: &Place,
        hello: Hello,
        mut start: impl FnMut() -> std::io::Result<()>,
    ) -> Result<Arc<Self>, SwitchError> {
        let name = || place.name().to_owned();
        let until = Instant::now() + PATIENCE;
        let mut started: Option<Instant> = None;
        loop {
            // A switch that ends closes its socket without an answer, and another one takes its place.
            if let Some(socket) = reach(place)?
                && let Some(answer) = greet(&socket, hello, until)?
            {
                answer.map_err(|refusal| SwitchError::Refused { name: name(), refusal })?;
                return Ok(Arc::new(Self(Packets::new(place.name(), socket)?)));
            }
            let now = Instant::now();
            if now >= until {
                return Err(SwitchError::Silent { name: name() });
            }
            // One that was started while another was about to end has ended, too.
            if started.is_none_or(|at| now - at > Duration::from_secs(1)) {
                start().map_err(|source| SwitchError::Start { name: name(), source })?;
                started = Some(now);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Connects to a switch, if it is there.
fn reach(place: &Place) -> Result<Option<OwnedFd>, SwitchError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(Error::from)?;
    enlarge(&socket)?;
    let path = place.socket();
    let address = SocketAddrUnix::new(&path).map_err(Error::from)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        // Not there; a file that was left; with so many waiting that there is no room for another.
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(SwitchError::Host(error.into())),
    }
    let peer = sockopt::socket_peercred(&socket).map_err(Error::from)?;
    if peer.uid != geteuid() {
        return Err(SwitchError::Stranger(path));
    }
    Ok(Some(socket))
}

/// Has a socket take the largest frames.
///
/// # Errors
/// The host does not allow it.
pub fn enlarge(socket: &OwnedFd) -> std::io::Result<()> {
    // The kernel gives as much as it allows ordinary users (net.core.wmem_max), and tells twice that.
    sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER)?;
    if sockopt::socket_send_buffer_size(socket)? < 2 * LARGEST {
        let cause = "it gives sockets no room for large frames; sudo sysctl net.core.wmem_max=212992 mends it";
        return Err(Error::new(ErrorKind::OutOfMemory, cause));
    }
    Ok(())
}

/// Says hello, and waits for the answer. `None` if the switch closes instead.
fn greet(socket: &OwnedFd, hello: Hello, until: Instant) -> Result<Option<protocol::Welcome>, SwitchError> {
    let gone = |error| matches!(error, Errno::PIPE | Errno::CONNRESET);
    match send(socket, &hello.encode(), SendFlags::NOSIGNAL) {
        Err(error) if gone(error) => return Ok(None),
        result => result.map_err(Error::from)?,
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SwitchError::Host(error.into())),
        }
        let mut answer = [0; 1];
        match recv(socket, &mut answer, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(protocol::decode(&answer[..length.min(1)])),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) if gone(error) => return Ok(None),
            Err(error) => return Err(SwitchError::Host(error.into())),
        }
    }
}

impl Network for SwitchLink {
    fn connect(&self, listener: Weak<dyn Listener>) {
        self.0.connect(listener);
    }

    fn accepts(&self) -> Accepts {
        Accepts::ALL
    }

    fn send(&self, frame: &Frame) -> bool {
        self.0.send(frame)
    }

    fn receive(&self) -> Option<Frame> {
        self.0.receive()
    }
}
