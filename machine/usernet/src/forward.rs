//! Ports of the host's that lead to the guest.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::net::{TcpListener, UdpSocket};

use crate::config::{GATEWAY, GATEWAY_6};
use crate::outbox::Outbox;
use crate::tcp::Key;

/// Peers of a forwarded UDP port at a time.
const PEERS: u16 = 256;
/// The router's ports that they have for the guest: so many for each forwarded port.
const FIRST_PORT: u16 = 20_000;
/// Forwarded UDP ports at most.
pub(crate) const MOST_UDP: usize = 64;
/// Datagrams that are read before others have their turn.
const BURST: usize = 1024;
/// The largest datagram.
const LARGEST: usize = 65_535;

/// A TCP port that is forwarded.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// The guest's port.
    pub(crate) guest: u16,
}

/// A UDP port that is forwarded. Each of its peers has a port of the router's, by which the guest's answers find it.
pub(crate) struct UdpForward {
    socket: UdpSocket,
    guest: u16,
    first: u16,
    peers: HashMap<SocketAddr, (u16, Instant)>,
}

impl UdpForward {
    /// Forwarded port `number` of all, below [`MOST_UDP`].
    pub(crate) fn new(socket: UdpSocket, guest: u16, number: usize) -> Self {
        let first = FIRST_PORT + PEERS * number.min(MOST_UDP) as u16;
        Self { socket, guest, first, peers: HashMap::new() }
    }

    /// Passes on what has come.
    pub(crate) fn receive(&mut self, guest: IpAddr, outbox: &mut Outbox) {
        let mut buffer = vec![0; LARGEST];
        for _ in 0..BURST {
            match self.socket.recv_from(&mut buffer) {
                Ok((count, peer)) => {
                    let port = self.port_of(peer);
                    let router: IpAddr = if guest.is_ipv4() { GATEWAY.into() } else { GATEWAY_6.into() };
                    let (from, to) = (SocketAddr::new(router, port), SocketAddr::new(guest, self.guest));
                    outbox.udp(from, to, &buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The router's port that a peer has, which another has lost if there were too many.
    fn port_of(&mut self, peer: SocketAddr) -> u16 {
        let now = Instant::now();
        if let Some((port, heard)) = self.peers.get_mut(&peer) {
            *heard = now;
            return *port;
        }
        let port = if self.peers.len() < usize::from(PEERS) {
            self.first + self.peers.len() as u16
        } else {
            let oldest = self.peers.iter().min_by_key(|(_, (_, heard))| *heard).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.peers.remove(&peer)).map_or(self.first, |(port, _)| port)
        };
        self.peers.insert(peer, (port, now));
        port
    }

    /// Passes the guest's answer to a peer on. Whether it is one.
    pub(crate) fn answer(&mut self, key: Key, data: &[u8]) -> bool {
        let port = key.peer.port();
        if key.guest.port() != self.guest || !(self.first..self.first + PEERS).contains(&port) {
            return false;
        }
        let Some((peer, _)) = self.peers.iter().find(|(_, (own, _))| *own == port) else { return false };
        // Where there is no room, or nobody any more, it is lost, as anywhere.
        let _ = self.socket.send_to(data, *peer);
        true
    }
}
