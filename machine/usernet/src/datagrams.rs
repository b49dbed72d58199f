//! Datagrams: each of the guest's exchanges of UDP or of ICMP echoes has a socket of the host's, connected to its peer, so
//! that nobody else can answer, and that the host's kernel says where nobody is.
//!
//! An exchange ends when nothing was heard for a while, or when there are too many.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lodge_net::ip::Sum;
use lodge_net::segment::{ICMP, ICMPV6};
use mio::net::UdpSocket;
use mio::{Interest, Token};
use socket2::{Protocol, Type};

use crate::outbox::Outbox;
use crate::sockets::{Owner, Sockets};
use crate::tcp::Key;

/// Exchanges at a time.
const MOST: usize = 1024;
/// How long one is kept while nothing is heard (RFC 4787, section 4.3: no less than two minutes).
const UDP_SILENCE: Duration = Duration::from_secs(120);
const ECHO_SILENCE: Duration = Duration::from_secs(30);
/// How long a name server has for its answer.
const NAME_SERVER_SILENCE: Duration = Duration::from_secs(3);
/// Datagrams that are read before others have their turn.
const BURST: usize = 1024;
/// The largest datagram.
const LARGEST: usize = 65_535;

/// ICMP types and codes (RFC 792, RFC 4443).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 3;
const PROHIBITED: u8 = 13;
const ECHO_REQUEST_6: u8 = 128;
const ECHO_REPLY_6: u8 = 129;
const UNREACHABLE_6: u8 = 1;
const PORT_UNREACHABLE_6: u8 = 4;
const PROHIBITED_6: u8 = 1;

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// UDP.
    Udp,
    /// A question for a name server, by its number: resolvers ask for both kinds of addresses from one port.
    Question(u16),
    /// Echoes; the guest's port is their identifier.
    Echo,
}

/// What is exchanged, and between whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exchanged {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
}

impl Exchanged {
    /// How long it is kept while nothing is heard.
    fn silence(self) -> Duration {
        match self.kind {
            Kind::Udp | Kind::Question(_) => UDP_SILENCE,
            Kind::Echo => ECHO_SILENCE,
        }
    }
}

/// A question to the host's name servers.
pub(crate) struct Question {
    query: Vec<u8>,
    /// Those that have not been asked yet.
    rest: Vec<SocketAddr>,
}

struct Exchange {
    socket: UdpSocket,
    token: Token,
    /// When it ends if nothing is heard.
    until: Instant,
    question: Option<Question>,
    /// The packet that the guest sent last, as far as an error has to repeat it.
    last: Vec<u8>,
}

/// All exchanges.
#[derive(Default)]
pub(crate) struct Datagrams {
    exchanges: HashMap<Exchanged, Exchange>,
    /// The user was told that the host permits no echoes.
    told: bool,
}

/// What the guest sent: behind its transport header, and the packet that it was in.
pub(crate) struct Sent<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) packet: &'a [u8],
}

impl Datagrams {
    pub(crate) fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Sends a datagram on, to where it goes for the host.
    pub(crate) fn send(
        &mut self,
        id: Exchanged,
        to: SocketAddr,
        sent: &Sent<'_>,
        sockets: &mut Sockets,
        outbox: &mut Outbox,
    ) {
        if !self.exchanges.contains_key(&id) {
            match self.open(id, to, sockets) {
                Ok((socket, token)) => {
                    let exchange = Exchange { socket, token, until: Instant::now(), question: None, last: Vec::new() };
                    self.exchanges.insert(id, exchange);
                }
                Err(error) => return self.refuse(id, sent.packet, &error, outbox),
            }
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.until = Instant::now() + id.silence();
        exchange.last = sent.packet[..sent.packet.len().min(quoted(sent.packet))].to_vec();
        match exchange.socket.send(sent.data) {
            // Where there is no room in the host's kernel the datagram is lost, as anywhere.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.refuse(id, sent.packet, &error, outbox),
        }
    }

    /// Asks the first of the host's name servers, and later the others.
    pub(crate) fn ask(&mut self, key: Key, servers: &[SocketAddr], query: &[u8], sockets: &mut Sockets) {
        let Some((first, rest)) = servers.split_first() else { return };
        let Some(number) = query.first_chunk() else { return };
        let id = Exchanged { kind: Kind::Question(u16::from_be_bytes(*number)), key };
        // A guest that asks the same again has waited long enough.
        self.end(&id, sockets);
        let Ok((socket, token)) = self.open(id, *first, sockets) else { return };
        // What can't be sent is not answered, and another server is asked.
        let _ = socket.send(query);
        let until = Instant::now() + NAME_SERVER_SILENCE;
        let question = Some(Question { query: query.to_vec(), rest: rest.to_vec() });
        self.exchanges.insert(id, Exchange { socket, token, until, question, last: Vec::new() });
    }

    fn end(&mut self, id: &Exchanged, sockets: &mut Sockets) {
        if let Some(exchange) = self.exchanges.remove(id) {
            sockets.forget(exchange.token);
        }
    }

    /// A socket for another exchange, for which the one that would end first ends if there are too many.
    fn open(&mut self, id: Exchanged, to: SocketAddr, sockets: &mut Sockets) -> Result<(UdpSocket, Token)> {
        if self.exchanges.len() >= MOST {
            self.end_oldest(sockets);
        }
        match open(id, to, sockets) {
            Err(error) if error.kind() == ErrorKind::QuotaExceeded && self.end_oldest(sockets) => open(id, to, sockets),
            opened => opened,
        }
    }

    /// Ends the exchange that would end first. Whether there was one.
    fn end_oldest(&mut self, sockets: &mut Sockets) -> bool {
        let oldest = self.exchanges.iter().min_by_key(|(_, exchange)| exchange.until).map(|(id, _)| *id);
        oldest.is_some_and(|oldest| {
            self.end(&oldest, sockets);
            true
        })
    }

    /// Something came for an exchange, or the host's kernel has something to say of it.
    pub(crate) fn host_event(&mut self, id: Exchanged, sockets: &mut Sockets, outbox: &mut Outbox) {
        let mut buffer = vec![0; LARGEST];
        let Exchanged { kind, key } = id;
        for _ in 0..BURST {
            let Some(exchange) = self.exchanges.get_mut(&id) else { return };
            match exchange.socket.recv(&mut buffer) {
                Ok(count) => {
                    let data = &buffer[..count];
                    exchange.until = Instant::now() + id.silence();
                    match kind {
                        Kind::Udp | Kind::Question(_) => outbox.udp(key.peer, key.guest, data),
                        Kind::Echo => echo(key, data, outbox),
                    }
                    if exchange.question.is_some() {
                        return self.end(&id, sockets);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if exchange.question.is_some() {
                        // The next server is asked at once.
                        exchange.until = Instant::now();
                        return;
                    }
                    let packet = std::mem::take(&mut exchange.last);
                    self.refuse(id, &packet, &error, outbox);
                }
            }
        }
    }

    /// Ends what has been silent for too long, and asks other name servers.
    pub(crate) fn time_passed(&mut self, sockets: &mut Sockets) {
        let now = Instant::now();
        let due: Vec<_> = self.exchanges.iter().filter(|(_, one)| one.until <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(exchange) = self.exchanges.remove(&id) else { continue };
            sockets.forget(exchange.token);
            if let Some(question) = exchange.question {
                self.ask(id.key, &question.rest, &question.query, sockets);
            }
        }
    }

    /// When the next one ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.exchanges.values().map(|exchange| exchange.until).min()
    }

    /// Tells the guest that what it sent can't be sent on (RFC 1122, section 4.1.3.3).
    fn refuse(&mut self, id: Exchanged, packet: &[u8], error: &Error, outbox: &mut Outbox) {
        let denied = matches!(error.kind(), ErrorKind::PermissionDenied);
        if id.kind == Kind::Echo && denied && !self.told {
            self.told = true;
            tracing::warn!(
                "the host permits no pings: the group is not within `sysctl net.ipv4.ping_group_range`; the guest's get no answers"
            );
        }
        unreachable(id.key, packet, denied, outbox);
    }
}

/// ICMP's number and checksum.
fn icmp(v6: bool) -> (u8, Sum) {
    if v6 { (ICMPV6, Sum::WithAddresses(2)) } else { (ICMP, Sum::Data(2)) }
}

/// Tells the guest that nobody is where it sent a packet, or that it is not permitted.
pub(crate) fn unreachable(key: Key, packet: &[u8], prohibited: bool, outbox: &mut Outbox) {
    if packet.is_empty() {
        return;
    }
    let v6 = key.guest.is_ipv6();
    let (kind, port, denied) = if v6 {
        (UNREACHABLE_6, PORT_UNREACHABLE_6, PROHIBITED_6)
    } else {
        (UNREACHABLE, PORT_UNREACHABLE, PROHIBITED)
    };
    let mut message = vec![kind, if prohibited { denied } else { port }, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..packet.len().min(quoted(packet))]);
    let (protocol, sum) = icmp(v6);
    outbox.ip(key.peer.ip(), key.guest.ip(), protocol, &message, sum);
}

/// How much of a packet an error repeats (RFC 792: the header and 8 bytes; RFC 4443, section 3.1: as much as fits).
fn quoted(packet: &[u8]) -> usize {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => usize::from(packet[0] & 0xf) * 4 + 8,
        _ => 1280 - 48,
    }
}

/// Whether an ICMP message is an echo request: its identifier.
pub(crate) fn echo_request(message: &[u8], v6: bool) -> Option<u16> {
    let [kind, 0, _, _, i0, i1, _, _, ..] = *message else { return None };
    (kind == if v6 { ECHO_REQUEST_6 } else { ECHO_REQUEST }).then_some(u16::from_be_bytes([i0, i1]))
}

/// Answers an echo request at once, as whom it went to.
pub(crate) fn answer_echo(key: Key, request: &[u8], outbox: &mut Outbox) {
    let v6 = key.guest.is_ipv6();
    let mut reply = request.to_vec();
    reply[0] = if v6 { ECHO_REPLY_6 } else { ECHO_REPLY };
    let (protocol, sum) = icmp(v6);
    outbox.ip(key.peer.ip(), key.guest.ip(), protocol, &reply, sum);
}

/// Passes a reply on, with the identifier that the guest gave.
fn echo(key: Key, reply: &[u8], outbox: &mut Outbox) {
    let v6 = key.guest.is_ipv6();
    if reply.len() < 8 || reply[0] != if v6 { ECHO_REPLY_6 } else { ECHO_REPLY } {
        return;
    }
    let mut reply = reply.to_vec();
    reply[4..6].copy_from_slice(&key.guest.port().to_be_bytes());
    let (protocol, sum) = icmp(v6);
    outbox.ip(key.peer.ip(), key.guest.ip(), protocol, &reply, sum);
}

/// A socket that is connected to a peer. Sockets for echoes are the kernel's own, which ordinary users may have (icmp(7)):
/// they have no ports, but identifiers, and otherwise what those of UDP have.
fn open(id: Exchanged, to: SocketAddr, sockets: &mut Sockets) -> Result<(UdpSocket, Token)> {
    let protocol = match (id.kind, to.is_ipv6()) {
        (Kind::Udp | Kind::Question(_), _) => Protocol::UDP,
        (Kind::Echo, false) => Protocol::ICMPV4,
        (Kind::Echo, true) => Protocol::ICMPV6,
    };
    let socket = sockets.make(to, Type::DGRAM, protocol)?;
    socket.connect(&to.into())?;
    let mut socket = UdpSocket::from_std(socket.into());
    let token = sockets.add(&mut socket, Interest::READABLE, Owner::Datagrams(id))?;
    Ok((socket, token))
}
