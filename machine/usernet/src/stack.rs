//! The network as one thing: who a frame of the guest's is for, whom an event of the host's concerns.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use lodge_net::segment::{self, ICMP, ICMPV6, Layout, TCP, UDP, ethertype};
use lodge_net::{Checksum, Frame, HEADER, MacAddress};
use lodge_netboot::{Folder, Http, OfferConfig, Tftp};
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry, Token};

use crate::config::{
    GATEWAY, GATEWAY_6, GUEST, Loopback, Protocol, UserConfig, destination, is_gateway, is_guests, is_inside,
    is_link_local_6, is_name_server, is_ours, is_outside,
};
use crate::datagrams::{self, Datagrams, Exchanged, Kind, Sent};
use crate::dhcp::{self, Dhcp};
use crate::dns::{self, Resolver, Verdict};
use crate::forward::{Listener, UdpForward};
use crate::fragments::Fragments;
use crate::link;
use crate::outbox::Outbox;
use crate::sockets::{Owner, Sockets};
use crate::tcp::{Key, Tcp};

/// The port at which the router serves boot files by HTTP.
const HTTP: u16 = 80;

/// All of the network's state.
pub(crate) struct Stack {
    // configuration
    loopback: Loopback,
    /// What the router serves by HTTP.
    served: Option<Folder>,
    // wiring
    resolver: Resolver,
    // volatile
    pub(crate) fragments: Fragments,
    pub(crate) sockets: Sockets,
    tcp: Tcp,
    datagrams: Datagrams,
    dhcp: Dhcp,
    tftp: Option<Tftp>,
    listeners: Vec<Listener>,
    udp_forwards: Vec<UdpForward>,
    pub(crate) outbox: Outbox,
}

/// An IP packet of the guest's.
struct Packet<'a> {
    mac: MacAddress,
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    /// From the IP header on, without padding.
    whole: &'a [u8],
    protocol: u8,
    /// What is behind the IP header.
    data: &'a [u8],
}

impl<'a> Packet<'a> {
    fn of(frame: &'a [u8], layout: &Layout) -> Option<Self> {
        let mac = MacAddress(frame.get(6..12)?.try_into().ok()?);
        let whole = frame.get(layout.network..layout.end)?;
        let (protocol, at) = layout.transport?;
        let data = frame.get(at..layout.end)?;
        let (from, to, hops) = if layout.ethertype == ethertype::IPV4 {
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(whole.get(at..at + 4)?).ok()?));
            (address(12)?, address(16)?, *whole.get(8)?)
        } else {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(whole.get(at..at + 16)?).ok()?));
            (address(8)?, address(24)?, *whole.get(7)?)
        };
        Some(Self { mac, from, to, hops, whole, protocol, data })
    }
}

impl Stack {
    pub(crate) fn new(
        config: &UserConfig,
        registry: Registry,
        listeners: Vec<TcpListener>,
        udp_forwards: Vec<UdpSocket>,
        seed: u64,
    ) -> std::io::Result<Self> {
        let guests = |protocol| config.forwards.iter().filter(move |one| one.protocol == protocol).map(|one| one.guest);
        let boot = config.netboot.as_ref();
        let boot = boot.map(|netboot| OfferConfig { server: GATEWAY, bootfile: netboot.bootfile.clone() });
        let mut stack = Self {
            loopback: config.loopback.clone(),
            served: config.netboot.as_ref().map(|netboot| netboot.folder.clone()),
            resolver: Resolver::new(&config.resolver, config.resolver_port),
            fragments: Fragments::default(),
            sockets: Sockets::new(registry),
            tcp: Tcp::new(seed),
            datagrams: Datagrams::default(),
            dhcp: Dhcp::new(boot),
            tftp: config.netboot.as_ref().map(|netboot| Tftp::new(netboot.folder.clone())),
            listeners: Vec::new(),
            udp_forwards: Vec::new(),
            outbox: Outbox::default(),
        };
        for (mut socket, guest) in listeners.into_iter().zip(guests(Protocol::Tcp)) {
            stack.sockets.add(&mut socket, Interest::READABLE, Owner::Listener(stack.listeners.len()))?;
            stack.listeners.push(Listener { socket, guest });
        }
        for (mut socket, guest) in udp_forwards.into_iter().zip(guests(Protocol::Udp)) {
            stack.sockets.add(&mut socket, Interest::READABLE, Owner::UdpForward(stack.udp_forwards.len()))?;
            stack.udp_forwards.push(UdpForward::new(socket, guest, stack.udp_forwards.len()));
        }
        Ok(stack)
    }

    /// The guest's IPv4 address, or the one that it will have.
    fn guest(&self) -> IpAddr {
        self.outbox.guest().unwrap_or(GUEST).into()
    }

    // --- what the guest sends ---

    /// Takes a frame of the guest's.
    pub(crate) fn frame(&mut self, frame: &Frame) {
        let bytes = &frame.bytes;
        let Some(to) = bytes.first_chunk().map(|to| MacAddress(*to)) else { return };
        if to != crate::config::MAC && !to.is_group() {
            return;
        }
        let Some(layout) = Layout::of(bytes) else { return };
        // Nothing here is in a VLAN.
        if layout.network != HEADER {
            return;
        }
        match layout.ethertype {
            ethertype::ARP => link::arp(&bytes[HEADER..], &mut self.outbox),
            ethertype::IPV4 | ethertype::IPV6 => match self.fragments.take(bytes, layout.network, layout.end) {
                None => self.ip(bytes, &layout, frame.offload.checksum),
                Some(None) => {}
                Some(Some(whole)) => {
                    if let Some(layout) = Layout::of(&whole) {
                        self.ip(&whole, &layout, Checksum::There);
                    }
                }
            },
            _ => {}
        }
        link::ask(&mut self.outbox);
    }

    fn ip(&mut self, bytes: &[u8], layout: &Layout, checksum: Checksum) {
        if checksum == Checksum::There && !segment::is_intact(bytes, layout) {
            return;
        }
        if let Some(packet) = Packet::of(bytes, layout) {
            self.packet(&packet);
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        if packet.protocol == UDP && self.dhcp(packet) {
            return;
        }
        if let IpAddr::V6(from) = packet.from
            && packet.protocol == ICMPV6
            && link::discovery(from, packet.hops, packet.data, packet.mac, &mut self.outbox)
        {
            return;
        }
        // Nobody but guests is on the link: who says that he is somebody else lies, or has not been given an address.
        if !is_guests(packet.from) {
            return;
        }
        self.outbox.learn(packet.from, packet.mac);
        if packet.to.is_multicast() || packet.to == IpAddr::V4(crate::config::BROADCAST) {
            return;
        }
        match packet.protocol {
            TCP => self.tcp(packet),
            UDP => self.udp(packet),
            ICMP | ICMPV6 => self.icmp(packet),
            _ => {}
        }
    }

    fn dhcp(&mut self, packet: &Packet<'_>) -> bool {
        let [_, _, d0, d1, _, _, _, _, message @ ..] = packet.data else { return false };
        let to_us = packet.to == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) || is_gateway(packet.to);
        if !packet.to.is_ipv4() || !to_us || u16::from_be_bytes([*d0, *d1]) != dhcp::SERVER {
            return false;
        }
        if let Some(answer) = self.dhcp.serve(message) {
            if let Some((mac, address)) = answer.client {
                self.outbox.learn(address.into(), mac);
                if answer.begins {
                    // Whoever looks for an address has started anew.
                    self.tcp.end_those_of(address.into(), &mut self.sockets);
                }
            }
            let from = SocketAddr::new(GATEWAY.into(), dhcp::SERVER);
            self.outbox.udp(from, SocketAddr::new(answer.to.into(), dhcp::CLIENT), &answer.message);
        }
        true
    }

    fn tcp(&mut self, packet: &Packet<'_>) {
        let Some(key) = key_of(packet) else { return };
        let known = self.tcp.has(&key) || Tcp::is_opening(packet.data) && self.open(key);
        if known {
            self.tcp.packet(&key, packet.whole, &mut self.sockets, &mut self.outbox);
        } else {
            self.tcp.stray(packet.whole, &mut self.outbox);
        }
    }

    /// Begins a connection. Whether it may be.
    fn open(&mut self, key: Key) -> bool {
        if !self.tcp.has_room() {
            self.sockets.complain("it can have 4096");
            return false;
        }
        if key.peer.port() == HTTP
            && is_gateway(key.peer.ip())
            && let Some(folder) = &self.served
        {
            return self.tcp.open_files(key, Http::new(folder.clone()));
        }
        let to = if is_name_server(key.peer.ip()) {
            if key.peer.port() != dns::PORT {
                return false;
            }
            self.resolver.servers().first().copied()
        } else {
            destination(&self.loopback, Protocol::Tcp, key.peer)
        };
        let Some(to) = to else { return false };
        match self.tcp.open(key, to, &mut self.sockets) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%to, %error, "a connection can't be made");
                false
            }
        }
    }

    fn udp(&mut self, packet: &Packet<'_>) {
        let Some(key) = key_of(packet) else { return };
        let Some((length, data)) = packet.data.get(4..6).zip(packet.data.get(8..)) else { return };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).saturating_sub(8);
        let Some(data) = data.get(..length) else { return };
        if is_name_server(key.peer.ip()) && key.peer.port() == dns::PORT {
            return self.question(key, data);
        }
        if key.peer.ip() == router_of(key.guest)
            && Tftp::takes(key.peer.port())
            && let Some(tftp) = &mut self.tftp
        {
            let send = &mut from_router(&mut self.outbox);
            return tftp.packet(key.guest, key.peer.port(), data, Instant::now(), send);
        }
        if is_gateway(key.peer.ip()) && self.udp_forwards.iter_mut().any(|one| one.answer(key, data)) {
            return;
        }
        let sent = Sent { data, packet: packet.whole };
        match destination(&self.loopback, Protocol::Udp, key.peer).filter(|_| !is_name_server(key.peer.ip())) {
            Some(to) => self.send(Kind::Udp, key, to, &sent),
            None => datagrams::unreachable(key, packet.whole, false, &mut self.outbox),
        }
    }

    fn question(&mut self, key: Key, query: &[u8]) {
        match dns::answer(query, &self.dhcp) {
            Verdict::Answer(answer) => self.outbox.udp(key.peer, key.guest, &answer),
            Verdict::Drop => {}
            Verdict::Ask => {
                let servers = self.resolver.servers().to_vec();
                self.datagrams.ask(key, &servers, query, &mut self.sockets);
            }
        }
    }

    fn send(&mut self, kind: Kind, key: Key, to: SocketAddr, sent: &Sent<'_>) {
        self.datagrams.send(Exchanged { kind, key }, to, sent, &mut self.sockets, &mut self.outbox);
    }

    fn icmp(&mut self, packet: &Packet<'_>) {
        if (packet.protocol == ICMPV6) != packet.to.is_ipv6() {
            return;
        }
        let Some(number) = datagrams::echo_request(packet.data, packet.to.is_ipv6()) else { return };
        let key = Key { guest: SocketAddr::new(packet.from, number), peer: SocketAddr::new(packet.to, 0) };
        if is_ours(packet.to) {
            return datagrams::answer_echo(key, packet.data, &mut self.outbox);
        }
        let sent = Sent { data: packet.data, packet: packet.whole };
        if is_outside(packet.to) {
            self.send(Kind::Echo, key, key.peer, &sent);
        } else if !is_inside(packet.to) {
            datagrams::unreachable(key, packet.whole, true, &mut self.outbox);
        }
    }

    // --- what the host says ---

    /// Something happened to a socket of the host's.
    pub(crate) fn event(&mut self, token: Token, readable: bool, writable: bool) {
        let outbox = &mut self.outbox;
        match self.sockets.owner(token) {
            Some(Owner::Tcp(key)) => self.tcp.host_event(&key, (readable, writable), &mut self.sockets, outbox),
            Some(Owner::Datagrams(id)) => self.datagrams.host_event(id, &mut self.sockets, outbox),
            Some(Owner::Listener(number)) => self.accept(number),
            Some(Owner::UdpForward(number)) => {
                let guest = self.guest();
                self.udp_forwards[number].receive(guest, &mut self.outbox);
            }
            None => {}
        }
        link::ask(&mut self.outbox);
    }

    /// Takes those who connect to a port that is forwarded.
    fn accept(&mut self, number: usize) {
        let guest = SocketAddr::new(self.guest(), self.listeners[number].guest);
        loop {
            match self.listeners[number].socket.accept() {
                Ok((stream, _)) => self.tcp.forward(guest, stream, &mut self.sockets, &mut self.outbox),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a forwarded connection can't be taken");
                    return;
                }
            }
        }
    }

    // --- time ---

    /// Does what is due.
    pub(crate) fn time_passed(&mut self) {
        let now = Instant::now();
        if self.tcp.deadline().is_some_and(|at| at <= now) {
            self.tcp.time_passed(&mut self.sockets, &mut self.outbox);
        }
        if self.datagrams.deadline().is_some_and(|at| at <= now) {
            self.datagrams.time_passed(&mut self.sockets);
        }
        if self.fragments.deadline().is_some_and(|at| at <= now) {
            self.fragments.forget_old(now);
        }
        if let Some(tftp) = &mut self.tftp {
            tftp.time_passed(now, &mut from_router(&mut self.outbox));
        }
        link::ask(&mut self.outbox);
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let tftp = self.tftp.as_ref().and_then(Tftp::deadline);
        let others = [self.tcp.deadline(), self.datagrams.deadline(), self.fragments.deadline()];
        others.into_iter().chain([tftp]).flatten().min()
    }

    /// The next frame for the guest.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let frame = self.outbox.pop();
        if self.outbox.is_low() {
            self.tcp.go_on(&mut self.sockets, &mut self.outbox);
        }
        frame
    }

    /// How many connections and exchanges there are.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.tcp.len(), self.datagrams.len())
    }
}

/// The router's address of a guest's kind.
fn router_of(guest: SocketAddr) -> IpAddr {
    if guest.is_ipv4() { GATEWAY.into() } else { GATEWAY_6.into() }
}

/// Sends datagrams of the router's: from a port, to somebody, what.
fn from_router(outbox: &mut Outbox) -> impl FnMut(u16, SocketAddr, &[u8]) {
    |port, to, data| outbox.udp(SocketAddr::new(router_of(to), port), to, data)
}

/// Both ends of what a TCP or UDP packet belongs to.
fn key_of(packet: &Packet<'_>) -> Option<Key> {
    let [s0, s1, d0, d1, ..] = *packet.data else { return None };
    let guest = SocketAddr::new(packet.from, u16::from_be_bytes([s0, s1]));
    let peer = SocketAddr::new(packet.to, u16::from_be_bytes([d0, d1]));
    // Of one link are only the router's services.
    let elsewhere = matches!(packet.to, IpAddr::V6(to) if is_link_local_6(to) && !is_ours(packet.to));
    (guest.port() != 0 && peer.port() != 0 && !elsewhere).then_some(Key { guest, peer })
}
