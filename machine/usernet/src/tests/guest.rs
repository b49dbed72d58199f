//! A guest for the tests: frames by hand, and TCP by a stack of its own.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as HostInstant};

use lodge_net::segment::{ICMP, ICMPV6, Layout, UDP, ethertype, is_intact, prepare};
use lodge_net::{Accepts, Frame, HEADER, MacAddress, Network, checksum};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::{GATEWAY, GATEWAY_6, UserConfig, UserNet};

/// The guest's card.
pub(super) const CARD: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
/// Its addresses.
pub(super) const ADDRESS: Ipv4Addr = crate::GUEST;
pub(super) const ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x6f64, 0x6765, 0, 0, 0, 0, 0x99);
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes out of the network, and goes into it.
pub(super) struct Wire {
    pub(super) net: Arc<UserNet>,
    packets: VecDeque<Vec<u8>>,
}

impl Wire {
    /// The next frame, as it would be on a wire.
    pub(super) fn frame(&mut self) -> Option<Vec<u8>> {
        if self.packets.is_empty()
            && let Some(frame) = self.net.receive()
        {
            prepare(frame, Accepts::default(), |frame| self.packets.push_back(frame.bytes));
        }
        self.packets.pop_front()
    }

    /// Waits for a frame in which `look` finds something.
    #[track_caller]
    pub(super) fn expect<T>(&mut self, what: &str, mut look: impl FnMut(&[u8]) -> Option<T>) -> T {
        let until = HostInstant::now() + PATIENCE;
        loop {
            match self.frame() {
                Some(frame) => {
                    if let Some(found) = look(&frame) {
                        return found;
                    }
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(HostInstant::now() < until, "{what} did not come");
        }
    }

    /// Holds that nothing comes.
    #[track_caller]
    pub(super) fn expect_nothing(&mut self) {
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(self.frame(), None);
    }

    /// Sends a frame to the router.
    pub(super) fn send(&self, kind: u16, data: &[u8]) {
        self.send_to(crate::config::MAC, kind, data);
    }

    pub(super) fn send_to(&self, to: MacAddress, kind: u16, data: &[u8]) {
        let mut bytes = [to.0, CARD.0].concat();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(data);
        assert!(self.net.send(&Frame::plain(bytes)));
    }

    /// Sends an IP packet.
    pub(super) fn ip(&self, from: IpAddr, to: IpAddr, protocol: u8, data: &[u8], hops: u8) {
        let (kind, packet) = ip_packet(from, to, protocol, data, hops);
        self.send(kind, &packet);
    }

    /// Sends a datagram.
    pub(super) fn udp(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.ip(from.ip(), to.ip(), UDP, &datagram(from.port(), to.port(), data), 64);
    }

    /// Waits for a datagram to a port: who sent it, and what.
    #[track_caller]
    pub(super) fn expect_udp(&mut self, port: u16) -> (SocketAddr, Vec<u8>) {
        self.expect("a datagram", |frame| {
            let (from, _, protocol, data) = dissect(frame)?;
            let to = u16::from_be_bytes([*data.get(2)?, *data.get(3)?]);
            let sender = u16::from_be_bytes([data[0], data[1]]);
            (protocol == UDP && to == port).then(|| (SocketAddr::new(from, sender), data[8..].to_vec()))
        })
    }

    /// Waits for an ICMP message of a type: who sent it, and what.
    #[track_caller]
    pub(super) fn expect_icmp(&mut self, kind: u8) -> (IpAddr, Vec<u8>) {
        self.expect("a message", |frame| {
            let (from, _, protocol, data) = dissect(frame)?;
            (matches!(protocol, ICMP | ICMPV6) && data[0] == kind).then(|| (from, data.to_vec()))
        })
    }
}

/// A UDP datagram, its checksum left to whoever sends it.
pub(super) fn datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = [from.to_be_bytes(), to.to_be_bytes()].concat();
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// An IP packet with right checksums; those of ICMP, UDP and TCP are made.
pub(super) fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, data: &[u8], hops: u8) -> (u16, Vec<u8>) {
    let mut data = data.to_vec();
    let place = match protocol {
        ICMP | ICMPV6 => 2,
        UDP => 6,
        _ => 16,
    };
    data[place..place + 2].fill(0);
    let (kind, mut packet, addresses) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0];
            packet.extend(((20 + data.len()) as u16).to_be_bytes());
            packet.extend([0, 1, 0, 0, hops, protocol, 0, 0]);
            let addresses = [from.octets(), to.octets()].concat();
            packet.extend(&addresses);
            let sum = checksum::finish(checksum::sum(&packet));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (ethertype::IPV4, packet, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend([protocol, hops]);
            let addresses = [from.octets(), to.octets()].concat();
            packet.extend(&addresses);
            (ethertype::IPV6, packet, addresses)
        }
        other => panic!("{other:?}"),
    };
    let pseudo = if protocol == ICMP { 0 } else { checksum::pseudo_header(&addresses, &[], protocol, data.len()) };
    let sum = checksum::finish(pseudo + checksum::sum(&data));
    data[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(data);
    (kind, packet)
}

/// Source, destination, protocol and data of an IP packet, whose checksums are looked at.
pub(super) fn dissect(frame: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let layout = Layout::of(frame)?;
    let (protocol, at) = layout.transport?;
    assert!(is_intact(frame, &layout), "a packet with a wrong checksum: {frame:02x?}");
    let packet = &frame[layout.network..];
    let (from, to) = if layout.ethertype == ethertype::IPV4 {
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (address(12), address(16))
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        (address(8), address(24))
    };
    Some((from, to, protocol, &frame[at..layout.end]))
}

pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[HEADER..])
    }
}

pub(super) struct Sending<'a>(&'a Wire);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.send(if packet[0] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 }, &packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        loop {
            let frame = self.frame()?;
            // The router asks for the guest's card, which it is told when the guest starts.
            if Layout::of(&frame).is_some_and(|layout| layout.transport.is_some()) {
                return Some((Received(frame), Sending(self)));
            }
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// A guest with an address.
pub(super) struct Guest {
    pub(super) wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    begin: HostInstant,
    port: u16,
}

impl Guest {
    pub(super) fn new(config: &UserConfig) -> Self {
        let mut wire = Wire { net: UserNet::new(config).unwrap(), packets: VecDeque::new() };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(ADDRESS.into(), 24)).unwrap();
            addresses.push(IpCidr::new(ADDRESS_6.into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_6).unwrap();
        // Whoever has an address has asked for the router's.
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
        request.extend(CARD.0);
        request.extend(ADDRESS.octets());
        request.extend([0; 6]);
        request.extend(GATEWAY.octets());
        wire.send_to(MacAddress::BROADCAST, ethertype::ARP, &request);
        wire.expect("the router's card", |frame| (frame[12..14] == [8, 6]).then_some(()));
        let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
        solicitation.extend(GATEWAY_6.octets());
        wire.ip(ADDRESS_6.into(), GATEWAY_6.into(), ICMPV6, &solicitation, 255);
        wire.expect("the router's card", |frame| (frame[12..14] == [0x86, 0xdd]).then_some(()));
        Self { wire, interface, sockets: SocketSet::new(Vec::new()), begin: HostInstant::now(), port: 40_000 }
    }

    fn socket() -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket
    }

    pub(super) fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let mut socket = Self::socket();
        self.port += 1;
        socket.connect(self.interface.context(), to, self.port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = Self::socket();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// Forgets a socket.
    pub(super) fn forget(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    pub(super) fn state(&mut self, handle: SocketHandle) -> State {
        self.with(handle).state()
    }

    pub(super) fn with(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets the guest's stack work.
    pub(super) fn poll(&mut self) {
        let now = Instant::from_micros(self.begin.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    /// Lets it work until something is so.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let until = HostInstant::now() + PATIENCE;
        loop {
            self.poll();
            if condition(self) {
                return;
            }
            assert!(HostInstant::now() < until, "{what} did not happen");
            std::thread::yield_now();
        }
    }
}
