//! A network in user mode: what a guest sends goes out through sockets of the host's, with an ordinary user's rights and no
//! change to the host.
//!
//! ```text
//!   card ──frame──► UserNet ── Stack ─┬─ link: ARP, neighbour discovery, router advertisements
//!        ◄─outbox──     ▲             ├─ dhcp, dns: addresses and names
//!                       │             ├─ fragments: what they come to
//!                       │ events      ├─ tcp: each connection ends here and goes on in the host's kernel (far_end)
//!                 thread, epoll       ├─ datagrams: UDP and echoes, each exchange by a connected socket
//!                                     └─ forward: ports of the host's that lead in
//! ```
//!
//! * [`UserNet`] is the network, for a [`lodge_net::Cable`]. What the guest sends is dealt with on the thread that sends it; the
//!   network's own thread waits for the host's sockets and the time.
//! * [`UserConfig`] says what is forwarded in, and what of the host's loopback interface is reached, which is nothing unless it
//!   is asked for. The host's network is reached as the user reaches it.
//!
//! With a [`Netboot`] the router serves boot files, by TFTP and HTTP, and DHCP says where they are (`machine/netboot`).
//!
//! Limits: 4,096 connections and 1,024 exchanges of datagrams at a time; 64 packets whose fragments are put together.
#![forbid(unsafe_code)]

mod config;
mod datagrams;
mod dhcp;
mod dns;
mod far_end;
mod forward;
mod fragments;
mod link;
mod outbox;
mod sockets;
mod stack;
mod tcp;
#[cfg(test)]
mod tests;

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use config::{
    DOMAIN, Forward, GATEWAY, GATEWAY_6, GUEST, HOST_NAME, LINK_LOCAL, Loopback, MAC, NAME_SERVER, NAME_SERVER_6,
    Netboot, Protocol, UserConfig,
};
use lodge_net::{Accepts, Frame, Listener, Network};
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Poll, Token, Waker};
use parking_lot::Mutex;
use stack::Stack;

/// The waker's token; those of sockets are numbers of a slab.
const WAKE: Token = Token(usize::MAX);
/// Events that are looked at in one go.
const EVENTS: usize = 256;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum UserNetError {
    /// The host's port can't be listened on.
    #[error("{} port {address} can't be forwarded: {source}", protocol.name())]
    Forward {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where it was to listen.
        address: SocketAddr,
        /// Why not.
        source: Error,
    },
    /// Too many UDP ports.
    #[error("at most {} UDP ports can be forwarded", forward::MOST_UDP)]
    TooMany,
    /// The host gives no thread or no means of waiting.
    #[error("the host has no room for a network: {0}")]
    Host(#[from] Error),
}

impl UserNetError {
    /// What can be done.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Forward { source, .. } => match source.kind() {
                ErrorKind::AddrInUse => "name another port; `ss -tulpn` shows who has this one",
                ErrorKind::PermissionDenied => "name a port from 1024 on, which ordinary users may have",
                ErrorKind::AddrNotAvailable => "name an address of this host's, such as 127.0.0.1",
                _ => "name another address or port",
            },
            Self::TooMany => "forward fewer of them",
            Self::Host(_) => "end other programs, or raise their limits (ulimit -a)",
        }
    }
}

/// What the network's thread and those who send share.
struct Inner {
    stack: Mutex<Stack>,
    listener: Mutex<Option<Weak<dyn Listener>>>,
    waker: Waker,
    /// When the thread will look at the time.
    sleeps_until: Mutex<Option<Instant>>,
}

/// A network in user mode.
pub struct UserNet {
    inner: Arc<Inner>,
    addresses: Vec<SocketAddr>,
}

impl UserNet {
    /// A network, with its ports listened on.
    ///
    /// # Errors
    /// A port can't be had, or the host gives no thread.
    pub fn new(config: &UserConfig) -> Result<Arc<Self>, UserNetError> {
        let (mut listeners, mut sockets, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for forward in &config.forwards {
            let failed = |source| UserNetError::Forward { protocol: forward.protocol, address: forward.host, source };
            match forward.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(forward.host).map_err(failed)?;
                    addresses.push(listener.local_addr().map_err(failed)?);
                    listeners.push(listener);
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(forward.host).map_err(failed)?;
                    addresses.push(socket.local_addr().map_err(failed)?);
                    sockets.push(socket);
                }
            }
        }
        if sockets.len() > forward::MOST_UDP {
            return Err(UserNetError::TooMany);
        }
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), Instant::now());
        let stack = Stack::new(config, poll.registry().try_clone()?, listeners, sockets, seed)?;
        let inner = Arc::new(Inner {
            stack: Mutex::new(stack),
            listener: Mutex::default(),
            waker,
            sleeps_until: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name(format!("user-{}", config.name)).spawn(move || serve(poll, &weak))?;
        Ok(Arc::new(Self { inner, addresses }))
    }

    /// Where the host listens, in the order of the forwards.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many TCP connections and exchanges of datagrams there are.
    pub fn load(&self) -> (usize, usize) {
        self.inner.stack.lock().load()
    }

    /// How many packets wait for the rest of their fragments, and how many bytes there are of them.
    #[cfg(test)]
    fn fragments(&self) -> (usize, usize) {
        self.inner.stack.lock().fragments.load()
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        // The thread finds that nobody is left. If it can't be woken it will find so with the next event.
        let _ = self.inner.waker.wake();
    }
}

impl Inner {
    /// Does something with the stack, and tells who has to know of it.
    fn with<T>(&self, what: impl FnOnce(&mut Stack) -> T) -> T {
        let mut stack = self.stack.lock();
        let was_empty = stack.outbox.is_empty();
        let result = what(&mut stack);
        let news = was_empty && !stack.outbox.is_empty();
        let deadline = stack.deadline();
        drop(stack);
        if news {
            self.tell();
        }
        let sooner = deadline.is_some_and(|at| self.sleeps_until.lock().is_some_and(|until| at < until));
        if sooner {
            // It looks at the time with the next event if it can't be woken.
            let _ = self.waker.wake();
        }
        result
    }

    fn tell(&self) {
        let listener = self.listener.lock().as_ref().and_then(Weak::upgrade);
        if let Some(listener) = listener {
            listener.frames_wait();
        }
    }
}

impl Network for UserNet {
    fn connect(&self, listener: Weak<dyn Listener>) {
        *self.inner.listener.lock() = Some(listener);
    }

    fn accepts(&self) -> Accepts {
        Accepts::ALL
    }

    fn send(&self, frame: &Frame) -> bool {
        self.inner.with(|stack| stack.frame(frame));
        true
    }

    fn receive(&self) -> Option<Frame> {
        self.inner.with(Stack::next)
    }
}

/// The network's thread: waits for the host's sockets and the time.
fn serve(mut poll: Poll, inner: &Weak<Inner>) {
    let mut events = Events::with_capacity(EVENTS);
    loop {
        let timeout = {
            let Some(inner) = inner.upgrade() else { return };
            // Far ahead, but some time: what is sooner wakes.
            let forever = Instant::now() + Duration::from_secs(3600);
            // Who changes it later finds that the thread sleeps.
            let stack = inner.stack.lock();
            let deadline = stack.deadline().unwrap_or(forever);
            *inner.sleeps_until.lock() = Some(deadline);
            deadline.saturating_duration_since(Instant::now())
        };
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != ErrorKind::Interrupted
        {
            tracing::error!(%error, "the network ends: the host's sockets can't be waited for");
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        *inner.sleeps_until.lock() = None;
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            let writable = event.is_writable() || event.is_write_closed() || event.is_error();
            inner.with(|stack| stack.event(event.token(), readable, writable));
        }
        inner.with(Stack::time_passed);
    }
}
