//! The host's sockets that are waited for, and whom their events concern.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::process::{Resource, getrlimit};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::datagrams::Exchanged;
use crate::tcp::Key;

/// Whom an event concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    /// A connection.
    Tcp(Key),
    /// An exchange of datagrams.
    Datagrams(Exchanged),
    /// A forwarded TCP port.
    Listener(usize),
    /// A forwarded UDP port.
    UdpForward(usize),
}

/// Descriptors that are left to the rest of lodge, or half of them where there are few.
const LEFT: RawFd = 256;

/// The sockets that are waited for.
pub(crate) struct Sockets {
    registry: Registry,
    owners: Slab<Owner>,
    /// A guest's socket that has this descriptor is one too many: the host gives the lowest that is free, so that all below are
    /// taken, whoever has them.
    ceiling: RawFd,
    complained: bool,
}

impl Sockets {
    pub(crate) fn new(registry: Registry) -> Self {
        let most = getrlimit(Resource::Nofile).current.and_then(|most| RawFd::try_from(most).ok());
        let ceiling = most.map_or(RawFd::MAX, |most| (most - LEFT).max(most / 2));
        Self { registry, owners: Slab::new(), ceiling, complained: false }
    }

    /// As if the host gave so many descriptors to guests.
    #[cfg(test)]
    pub(crate) fn set_ceiling(&mut self, ceiling: RawFd) {
        self.ceiling = ceiling;
    }

    /// Makes a socket for a guest, which does not block.
    ///
    /// # Errors
    /// The host gives none, or lodge itself will need what is left.
    pub(crate) fn make(&mut self, to: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
        self.check(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Whether a guest can have a socket that is there already.
    ///
    /// # Errors
    /// Lodge itself will need what is left.
    pub(crate) fn check(&mut self, socket: &impl AsRawFd) -> Result<()> {
        if socket.as_raw_fd() < self.ceiling {
            return Ok(());
        }
        self.complain("descriptors are scarce; raise their limit (ulimit -Hn)");
        Err(ErrorKind::QuotaExceeded.into())
    }

    /// Says once that the guest does not get all the connections that it wants.
    pub(crate) fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("the guest has very many connections, and some of the new ones are refused: {why}");
        }
    }

    /// Waits for a socket from now on, until it is forgotten; closing it beforehand does no harm.
    pub(crate) fn add(&mut self, socket: &mut impl Source, interest: Interest, owner: Owner) -> Result<Token> {
        let entry = self.owners.vacant_entry();
        let token = Token(entry.key());
        self.registry.register(socket, token, interest)?;
        entry.insert(owner);
        Ok(token)
    }

    /// Whom the events of a socket concern.
    pub(crate) fn owner(&self, token: Token) -> Option<Owner> {
        self.owners.get(token.0).copied()
    }

    pub(crate) fn forget(&mut self, token: Token) {
        self.owners.try_remove(token.0);
    }
}
