//! TCP: each of the guest's connections ends here and goes on as one of the host's.
//!
//! ```text
//!   guest ──SYN──► Flow: socket in SYN-RECEIVED, silent ── connect ──► host
//!         ◄─SYN,ACK── once the host's end is connected; RST, if it can't be
//!   guest ◄══ socket's buffers ══► host's stream            each end's close is passed on by itself
//! ```
//!
//! Each connection has a socket of smoltcp's, in a set of its own, so that a packet costs the same however many there are.
//! What the host sends waits in the host's kernel while the guest is slow, and the other way round: nothing is lost here and
//! nothing piles up.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Instant as HostInstant;

use mio::net::TcpStream;
use mio::{Interest, Token};
use rustix::io::Errno;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, SegmentationCapabilities, TxToken,
};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};
use socket2::{Protocol, Type};

use lodge_net::HEADER;
use lodge_netboot::Http;

use crate::config::{GATEWAY, GATEWAY_6, PREFIX_LENGTH};
use crate::far_end::FarEnd;
use crate::outbox::Outbox;
use crate::sockets::{Owner, Sockets};

/// Bytes of a connection that wait in either direction: with more, less often one thread waits for another. Few connections
/// at a time have much to say, and thousands shall not cost the host gigabytes more.
const BUFFER: usize = 1 << 20;
/// The same while there are many connections, and how many that is.
const SMALL_BUFFER: usize = 256 << 10;
const MANY: usize = 64;
/// Connections to the server of boot files at a time, and how long one is kept whose guest says nothing.
const MOST_FILES: usize = 32;
const FILES_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// Connections at a time; the guest's further ones are refused.
const MOST: usize = 4096;
/// The largest IP packet that is cut into segments elsewhere.
const LARGEST_PACKET: usize = 65_535;
/// TCP's flags SYN and ACK, and where they are (RFC 9293, section 3.1).
const SYN: u8 = 2;
const ACK: u8 = 16;
const FLAGS: usize = 13;
/// Bytes of a TCP header without options, and of an IPv6 header, which is the larger.
const TCP_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// What a guest takes that does not say what it takes, by the kind of address (section 3.7.1).
const UNSAID: [u16; 2] = [536, 1220];

/// Both ends of a connection as the guest knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The guest's.
    pub(crate) guest: SocketAddr,
    /// The one that it thinks it talks to.
    pub(crate) peer: SocketAddr,
}

/// A connection.
struct Flow {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    host: FarEnd,
    /// The host's end is not connected yet.
    connecting: bool,
    /// Where else the host can try to connect.
    other: Option<SocketAddr>,
    /// The host may have something to read, room to write.
    readable: bool,
    writable: bool,
    /// The host has said its last.
    host_ended: bool,
    /// The guest has, and the host was told.
    guest_ended: bool,
    /// The host takes nothing any more.
    refused: bool,
    /// When there is something to do though nothing happens.
    deadline: Option<Instant>,
    /// There was no room for what it has to send.
    held_up: bool,
    /// The most that the guest takes in a segment.
    segment: u16,
}

/// All connections.
pub(crate) struct Tcp {
    interface: Interface,
    flows: HashMap<Key, Flow>,
    begin: HostInstant,
    /// Ports of the router's that forwarded connections come from.
    next_port: u16,
}

/// The link to the guest as smoltcp knows it.
struct Wire<'a> {
    packet: Option<&'a [u8]>,
    outbox: &'a mut Outbox,
    /// The most that the guest takes in a segment.
    segment: u16,
    /// A packet had no room.
    held_up: bool,
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Sending<'a> {
    outbox: &'a mut Outbox,
    segment: u16,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; HEADER + length];
        let result = f(&mut bytes[HEADER..]);
        self.outbox.tcp(bytes, self.segment);
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        // An answer to a packet always has room, or is lost.
        Some((Received(self.packet.take()?), Sending { outbox: self.outbox, segment: self.segment }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.held_up |= !self.outbox.has_room();
        self.outbox.has_room().then_some(Sending { outbox: self.outbox, segment: self.segment })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // They are looked at before, and made on the other side of the cable where need be.
        checksum.tcp = Checksum::None;
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = NonZeroUsize::new(LARGEST_PACKET);
        segmentation.tcpv6 = NonZeroUsize::new(LARGEST_PACKET);
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        // The real one is the outbox's to see to: smoltcp 0.14 drops IPv6 packets beyond it even if they are to be cut.
        capabilities.max_transmission_unit = LARGEST_PACKET;
        capabilities.checksum = checksum;
        capabilities.segmentation = segmentation;
        capabilities
    }
}

impl Tcp {
    pub(crate) fn new(seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut outbox = Outbox::default();
        let mut wire = Wire { packet: None, outbox: &mut outbox, segment: 0, held_up: false };
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        // It takes packets to every address for its own, because all routes lead to itself.
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), 24));
            let _ = addresses.push(IpCidr::new(GATEWAY_6.into(), PREFIX_LENGTH));
        });
        // And for these.
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY);
        let _ = interface.routes_mut().add_default_ipv6_route(GATEWAY_6);
        Self { interface, flows: HashMap::new(), begin: HostInstant::now(), next_port: 0 }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.begin.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.flows.contains_key(key)
    }

    /// Whether a packet asks for a new connection; what it says behind its IP header.
    pub(crate) fn is_opening(segment: &[u8]) -> bool {
        segment.get(13).is_some_and(|flags| flags & (SYN | ACK) == SYN)
    }

    /// Whether there is room for another connection.
    pub(crate) fn has_room(&self) -> bool {
        self.flows.len() < MOST
    }

    /// Begins a connection of the guest's to where the host is to connect. Its packet comes next.
    ///
    /// # Errors
    /// The host can't even begin to.
    pub(crate) fn open(&mut self, key: Key, to: SocketAddr, sockets: &mut Sockets) -> Result<()> {
        let mut other = other_loopback(to);
        let mut host = connect(key, to, sockets);
        if host.is_err()
            && let Some(to) = other.take()
        {
            host = connect(key, to, sockets);
        }
        let host = host?;
        let mut socket = new_socket(self.flows.len());
        // The guest hears of it when the host is connected.
        socket.pause_synack(true);
        let endpoint = IpListenEndpoint { addr: Some(key.peer.ip().into()), port: key.peer.port() };
        if socket.listen(endpoint).is_err() {
            host.forget(true, sockets);
            return Err(ErrorKind::InvalidInput.into());
        }
        self.add(key, socket, host, true).other = other;
        Ok(())
    }

    /// Begins a connection of the guest's to the server of boot files. Its packet comes next.
    /// Whether it was; there are few at a time, as each holds a file.
    pub(crate) fn open_files(&mut self, key: Key, server: Http) -> bool {
        if self.flows.values().filter(|flow| flow.host.is_here()).count() >= MOST_FILES {
            return false;
        }
        let mut socket = new_socket(self.flows.len());
        let endpoint = IpListenEndpoint { addr: Some(key.peer.ip().into()), port: key.peer.port() };
        // Nobody else ends a connection of which the guest hears nothing more.
        socket.set_timeout(Some(FILES_TIMEOUT));
        socket.set_keep_alive(Some(FILES_TIMEOUT / 4));
        // The port is none of those that can't be listened on, and the socket is new.
        let listens = socket.listen(endpoint).is_ok();
        if listens {
            self.add(key, socket, FarEnd::Files(Box::new(server), false), false);
        }
        listens
    }

    /// Begins a connection to the guest for one of the host's. It comes from the router's address, if a port of that is free.
    pub(crate) fn forward(
        &mut self,
        guest: SocketAddr,
        mut host: TcpStream,
        sockets: &mut Sockets,
        outbox: &mut Outbox,
    ) {
        const FIRST: u16 = 49_152;
        let router = if guest.is_ipv4() { IpAddr::from(GATEWAY) } else { GATEWAY_6.into() };
        let ports = u16::MAX - FIRST;
        let key = (0..ports).find_map(|_| {
            self.next_port = (self.next_port + 1) % ports;
            let key = Key { guest, peer: SocketAddr::new(router, FIRST + self.next_port) };
            (!self.flows.contains_key(&key)).then_some(key)
        });
        let Some(key) = key.filter(|_| self.has_room() && sockets.check(&host).is_ok()) else { return };
        let mut socket = new_socket(self.flows.len());
        if socket.connect(self.interface.context(), key.guest, key.peer).is_err() {
            return;
        }
        let Ok(token) = watch(&mut host, Owner::Tcp(key), sockets) else { return };
        self.add(key, socket, FarEnd::Host(host, token), false);
        self.serve(&key, None, sockets, outbox);
    }

    fn add(&mut self, key: Key, socket: Socket<'static>, host: FarEnd, connecting: bool) -> &mut Flow {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let flow = Flow {
            sockets,
            handle,
            host,
            connecting,
            other: None,
            readable: !connecting,
            writable: !connecting,
            host_ended: false,
            guest_ended: false,
            refused: false,
            deadline: None,
            held_up: false,
            segment: UNSAID[usize::from(key.guest.is_ipv6())],
        };
        self.flows.entry(key).insert_entry(flow).into_mut()
    }

    /// A packet of a connection.
    pub(crate) fn packet(&mut self, key: &Key, packet: &[u8], sockets: &mut Sockets, outbox: &mut Outbox) {
        if let Some((flow, said)) = self.flows.get_mut(key).zip(segment_said(packet)) {
            flow.segment = said;
        }
        self.serve(key, Some(packet), sockets, outbox);
    }

    /// A packet that belongs to no connection.
    pub(crate) fn stray(&mut self, packet: &[u8], outbox: &mut Outbox) {
        let now = self.now();
        let mut wire = Wire { packet: Some(packet), outbox, segment: UNSAID[0], held_up: false };
        self.interface.poll(now, &mut wire, &mut SocketSet::new([]));
    }

    /// Something happened at the host's end: there may be something to read, or room to write.
    pub(crate) fn host_event(
        &mut self,
        key: &Key,
        (readable, writable): (bool, bool),
        sockets: &mut Sockets,
        outbox: &mut Outbox,
    ) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.readable |= readable;
            flow.writable |= writable;
            self.serve(key, None, sockets, outbox);
        }
    }

    /// Goes on with those whose time has come.
    pub(crate) fn time_passed(&mut self, sockets: &mut Sockets, outbox: &mut Outbox) {
        let now = self.now();
        self.serve_those(|flow| flow.deadline.is_some_and(|deadline| deadline <= now), sockets, outbox);
    }

    /// Goes on with those that were held up, now that there is room.
    pub(crate) fn go_on(&mut self, sockets: &mut Sockets, outbox: &mut Outbox) {
        self.serve_those(|flow| flow.held_up, sockets, outbox);
    }

    fn serve_those(&mut self, which: impl Fn(&Flow) -> bool, sockets: &mut Sockets, outbox: &mut Outbox) {
        let keys: Vec<Key> = self.flows.iter().filter(|(_, flow)| which(flow)).map(|(key, _)| *key).collect();
        for key in keys {
            self.serve(&key, None, sockets, outbox);
        }
    }

    /// Ends the connections of a guest that has started anew.
    pub(crate) fn end_those_of(&mut self, guest: IpAddr, sockets: &mut Sockets) {
        let keys: Vec<Key> = self.flows.keys().filter(|key| key.guest.ip() == guest).copied().collect();
        for key in keys {
            self.remove(&key, sockets);
        }
    }

    /// When something is to be done though nothing happens.
    pub(crate) fn deadline(&self) -> Option<HostInstant> {
        let next = self.flows.values().filter_map(|flow| flow.deadline).min()?;
        let micros = u64::try_from(next.total_micros()).unwrap_or(0);
        Some(self.begin + std::time::Duration::from_micros(micros))
    }

    /// Moves what can be moved of a connection.
    fn serve(&mut self, key: &Key, packet: Option<&[u8]>, sockets: &mut Sockets, outbox: &mut Outbox) {
        let now = self.now();
        let Some(flow) = self.flows.get_mut(key) else { return };
        let mut wire = Wire { packet, outbox, segment: flow.segment, held_up: false };
        if wire.packet.is_some() {
            self.interface.poll_ingress_single(now, &mut wire, &mut flow.sockets);
        }
        let gone = loop {
            if flow.connecting && !flow.finish_connecting(*key, sockets) {
                break !flow.socket().is_open();
            }
            let moved = flow.move_data();
            self.interface.poll(now, &mut wire, &mut flow.sockets);
            if !moved {
                // What the guest said last may be waiting for the host still.
                let waits = flow.socket().can_recv() && !flow.refused;
                break !waits && !flow.socket().is_open();
            }
        };
        flow.held_up = wire.held_up;
        // While the host is being connected nothing is sent, though there is something to send.
        let waits = wire.held_up || flow.connecting;
        flow.deadline = if waits { None } else { self.interface.poll_at(now, &flow.sockets) };
        // What made no sense has opened nothing.
        if gone || flow.socket().state() == State::Listen {
            self.remove(key, sockets);
        }
    }

    fn remove(&mut self, key: &Key, sockets: &mut Sockets) {
        let Some(flow) = self.flows.remove(key) else { return };
        flow.host.forget(flow.guest_ended && flow.host_ended, sockets);
    }
}

/// The most that the sender of an IP packet takes in a segment, if it begins a connection and says so (RFC 9293, sections
/// 3.1, 3.7.1).
fn segment_said(packet: &[u8]) -> Option<u16> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const SEGMENT: u8 = 2;
    let header = if packet.first()? >> 4 == 4 { usize::from(packet[0] & 0xf) * 4 } else { IPV6_HEADER };
    let tcp = packet.get(header..)?;
    if tcp.get(FLAGS)? & SYN == 0 {
        return None;
    }
    let mut options = tcp.get(TCP_HEADER..usize::from(tcp[12] >> 4) * 4)?;
    loop {
        options = match options {
            [] | [END, ..] => return None,
            [NOTHING, rest @ ..] => rest,
            [SEGMENT, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            // Those of no length would never end.
            [_, length, ..] => options.get(usize::from(*length).max(2)..)?,
            [_] => return None,
        };
    }
}

/// A socket for one of so many connections.
fn new_socket(connections: usize) -> Socket<'static> {
    let size = if connections < MANY { BUFFER } else { SMALL_BUFFER };
    let buffer = || SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

impl Flow {
    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Whether the host's end is connected. If it can't be, nor elsewhere, the guest's is ended.
    fn finish_connecting(&mut self, key: Key, sockets: &mut Sockets) -> bool {
        if !self.writable {
            return false;
        }
        match self.host.is_connected() {
            Ok(true) => {
                self.socket().pause_synack(false);
                self.readable = true;
            }
            // Not yet: it was a false alarm.
            Ok(false) => {
                self.writable = false;
                return false;
            }
            Err(error) => {
                if let Some(host) = self.other.take().and_then(|to| connect(key, to, sockets).ok()) {
                    std::mem::replace(&mut self.host, host).forget(true, sockets);
                    self.writable = false;
                    return false;
                }
                tracing::debug!(%error, "a connection can't be made");
                self.socket().pause_synack(false);
                self.socket().abort();
            }
        }
        self.connecting = false;
        true
    }

    /// Moves data between the ends. Whether any was.
    fn move_data(&mut self) -> bool {
        if self.host.is_here() {
            // No event says so: an answer follows from what was asked.
            (self.readable, self.writable) = (true, !self.refused);
        }
        let out = self.move_out();
        let back = self.move_back();
        out | back
    }

    /// From the guest to the host.
    fn move_out(&mut self) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let mut moved = false;
        while self.writable && socket.can_recv() {
            let host = &mut self.host;
            let written = socket.recv(|bytes| match host.write(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(0)) => self.writable = false,
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                // Nobody is there any more; what was read before comes first.
                Ok(Err(_)) => {
                    (self.writable, self.refused) = (false, true);
                    if self.host_ended {
                        socket.abort();
                        return true;
                    }
                    self.readable = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let closed = matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if closed && !socket.can_recv() && !self.guest_ended {
            self.guest_ended = true;
            self.host.end();
        }
        moved
    }

    /// From the host to the guest.
    fn move_back(&mut self) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let mut moved = false;
        while self.readable && !self.host_ended && socket.can_send() {
            let host = &mut self.host;
            let read = socket.send(|room| match host.read(room) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    socket.close();
                    moved = true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(_)) => {
                    self.readable = false;
                    socket.abort();
                    moved = true;
                }
                Err(_) => break,
            }
        }
        moved
    }
}

/// The loopback interface's other address: a service listens on one of them or both, and a guest that knows only the host's
/// name takes either.
fn other_loopback(to: SocketAddr) -> Option<SocketAddr> {
    let other = match to.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(other, to.port()))
}

/// Begins to connect to the host's peer.
fn connect(key: Key, to: SocketAddr, sockets: &mut Sockets) -> Result<FarEnd> {
    let socket = sockets.make(to, Type::STREAM, Protocol::TCP)?;
    match socket.connect(&to.into()) {
        // That it takes a while is no error (connect(2)).
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    let mut host = TcpStream::from_std(socket.into());
    let token = watch(&mut host, Owner::Tcp(key), sockets)?;
    Ok(FarEnd::Host(host, token))
}

/// Has the events of a connection told.
fn watch(stream: &mut TcpStream, owner: Owner, sockets: &mut Sockets) -> Result<Token> {
    // What waits is sent on in whole: there is no need to wait for more. A socket that does not take it is none.
    let _ = stream.set_nodelay(true);
    sockets.add(stream, Interest::READABLE | Interest::WRITABLE, owner)
}
