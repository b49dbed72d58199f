//! Listening for viewers.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lodge_display::Monitor;
use lodge_input::{Keyboard, Pointer};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;

use crate::address::Address;
use crate::auth::Password;
use crate::session::{Shared, serve};

/// Most viewers at once.
const VIEWERS_MOST: usize = 16;
/// Longest name that a server has.
const NAME_MOST: usize = 256;

/// How a server shall be.
#[derive(Clone, Debug)]
pub struct VncConfig {
    /// Where it listens.
    pub address: Address,
    /// What viewers have to know. Without one only this host is listened to.
    pub password: Option<Password>,
    /// The title of viewers' windows.
    pub name: String,
}

/// What a server is connected to.
pub struct VncWiring {
    /// What it shows.
    pub monitor: Arc<Monitor>,
    /// Where keys go.
    pub keyboard: Arc<dyn Keyboard>,
    /// What the pointer moves.
    pub pointer: Arc<dyn Pointer>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum VncError {
    /// The host's name leads nowhere.
    #[error("the VNC address {address} can't be resolved: {source}; name an address of this host, or say :0")]
    Resolve {
        /// Where it was to listen.
        address: Address,
        /// The host's answer.
        source: io::Error,
    },
    /// Others could come in.
    #[error(
        "VNC at {address} can be reached by other hosts, and has no password; set one, or listen at :{display} and let viewers come through ssh"
    )]
    Open {
        /// Where it was to listen.
        address: Address,
        /// A display that would do.
        display: u16,
    },
    /// The port is not to be had.
    #[error("the VNC address {address} is in use; another VM or server has it: choose another, such as :{display}")]
    InUse {
        /// Where it was to listen.
        address: Address,
        /// Another display.
        display: u16,
    },
    /// The host gave no socket or thread.
    #[error("VNC can't listen at {address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: Address,
        /// The host's answer.
        source: io::Error,
    },
}

/// A viewer that is served.
struct Served {
    stream: TcpStream,
    thread: JoinHandle<()>,
}

/// A server. It ends, with all of its viewers, when it is dropped.
pub struct Server {
    address: SocketAddr,
    viewers: Arc<Mutex<Vec<Served>>>,
    ends: Arc<AtomicBool>,
    bell: Arc<OwnedFd>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves viewers from now on.
    ///
    /// # Errors
    /// The address can't be listened at, or shall not be without a password.
    pub fn start(config: VncConfig, wiring: VncWiring) -> Result<Self, VncError> {
        let VncConfig { address, password, mut name } = config;
        let resolved = (address.host.as_str(), address.port).to_socket_addrs();
        let places: Vec<SocketAddr> =
            resolved.map_err(|source| VncError::Resolve { address: address.clone(), source })?.collect();
        // A port that is no display's has none to say.
        let display = address.port.saturating_sub(5900);
        if password.is_none() && !places.iter().all(|place| place.ip().is_loopback()) {
            return Err(VncError::Open { address, display });
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => {
                VncError::InUse { address: address.clone(), display: display.saturating_add(1) }
            }
            _ => VncError::Listen { address: address.clone(), source },
        };
        let listener = TcpListener::bind(&places[..]).map_err(failed)?;
        // A viewer that goes away between poll and accept must not stop the thread.
        listener.set_nonblocking(true).map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let bell = Arc::new(bell);
        name.truncate(name.floor_char_boundary(NAME_MOST));
        let VncWiring { monitor, keyboard, pointer } = wiring;
        let shared = Arc::new(Shared { monitor, keyboard, pointer, password, name });
        let (viewers, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let acceptor = {
            let (viewers, ends, bell) = (viewers.clone(), ends.clone(), bell.clone());
            let accept = move || accept(&listener, &bell, &ends, &viewers, &shared);
            std::thread::Builder::new().name("vnc".into()).spawn(accept).map_err(failed)?
        };
        Ok(Self { address: local, viewers, ends, bell, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many viewers are connected.
    pub fn viewers(&self) -> usize {
        self.viewers.lock().iter().filter(|viewer| !viewer.thread.is_finished()).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // The counter can't be full.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let viewers = std::mem::take(&mut *self.viewers.lock());
        for viewer in &viewers {
            let _ = viewer.stream.shutdown(Shutdown::Both);
        }
        for viewer in viewers {
            let _ = viewer.thread.join();
        }
    }
}

fn accept(
    listener: &TcpListener,
    bell: &OwnedFd,
    ends: &AtomicBool,
    viewers: &Mutex<Vec<Served>>,
    shared: &Arc<Shared>,
) {
    while !ends.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        match listener.accept() {
            Ok((stream, from)) => {
                if let Err(error) = admit(stream, viewers, shared) {
                    tracing::warn!(%from, %error, "a viewer was turned away");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // Out of descriptors, most likely: somebody has to leave first.
                tracing::warn!(%error, "a viewer can't be accepted");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Gives a viewer a thread.
fn admit(stream: TcpStream, viewers: &Mutex<Vec<Served>>, shared: &Arc<Shared>) -> io::Result<()> {
    let mut viewers = viewers.lock();
    viewers.retain(|viewer| !viewer.thread.is_finished());
    if viewers.len() >= VIEWERS_MOST {
        return Err(io::Error::other("there are too many already"));
    }
    stream.set_nonblocking(false)?;
    let (own, shared) = (stream.try_clone()?, shared.clone());
    let run = move || {
        if let Err(error) = serve(&own, &shared) {
            tracing::debug!(%error, "a viewer has left");
        }
        let _ = own.shutdown(Shutdown::Both);
    };
    let thread = std::thread::Builder::new().name("vnc-viewer".into()).spawn(run)?;
    viewers.push(Served { stream, thread });
    Ok(())
}
