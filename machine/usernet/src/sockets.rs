//! The host's sockets that are waited for, and whom their events concern.

use std::io::Result;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use slab::Slab;

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

/// The sockets that are waited for.
pub(crate) struct Sockets {
    registry: Registry,
    owners: Slab<Owner>,
}

impl Sockets {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, owners: Slab::new() }
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
