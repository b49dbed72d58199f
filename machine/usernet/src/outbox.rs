//! Frames for the guest, and which card has which address.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use lodge_net::ip::{self, Head, IPV4_HEADER, IPV6_HEADER, Sum};
use lodge_net::segment::{TCP, UDP, ethertype};
use lodge_net::{Checksum, Frame, HEADER, MacAddress, Offload, Segmentation, checksum};

use crate::config::{BROADCAST, MAC};
use crate::fragments;

/// Frames that wait for the guest before connections are held up.
const ROOM: usize = 64;
/// Frames beyond that, for what can't be held up; more are lost.
const MOST: usize = 4 * ROOM;
/// Addresses of guests that are known at a time.
const NEIGHBOURS: usize = 64;
/// What packets from here have for a hop limit.
const HOPS: u8 = 64;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// TCP's flag SYN (RFC 9293, section 3.1).
const SYN: u8 = 2;

/// Frames for the guest.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    neighbours: HashMap<IpAddr, MacAddress>,
    /// The one that was heard of last, of each kind.
    last_4: Option<Ipv4Addr>,
    /// Of the packet that was sent last.
    number: u32,
    /// Guests that somebody has something for, and whose card nobody knows.
    pub(crate) wanted: Vec<IpAddr>,
}

impl Outbox {
    /// Whether connections may send.
    pub(crate) fn has_room(&self) -> bool {
        self.frames.len() < ROOM
    }

    /// Whether so little is left that those who were held up should go on.
    pub(crate) fn is_low(&self) -> bool {
        self.frames.len() <= ROOM / 2
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Notes who has an address.
    pub(crate) fn learn(&mut self, address: IpAddr, mac: MacAddress) {
        if !mac.is_one_card() {
            return;
        }
        if self.neighbours.len() >= NEIGHBOURS && !self.neighbours.contains_key(&address) {
            // Whoever makes up addresses has to start over with them.
            self.neighbours.clear();
        }
        self.neighbours.insert(address, mac);
        if let IpAddr::V4(address) = address {
            self.last_4 = Some(address);
        }
    }

    /// The guest's IPv4 address: that which was heard of last.
    pub(crate) fn guest(&self) -> Option<Ipv4Addr> {
        self.last_4
    }

    /// Puts a frame behind the others, if there is room for it.
    pub(crate) fn push(&mut self, frame: Frame) {
        if self.frames.len() < MOST {
            self.frames.push_back(frame);
        }
    }

    /// Sends an IP packet, before which the bytes have room for an Ethernet header, to whoever has its destination.
    pub(crate) fn packet(&mut self, mut bytes: Vec<u8>, offload: Offload) {
        let packet = &bytes[HEADER..];
        let (to, kind) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => {
                let Some(to) = packet.get(16..20).and_then(|to| <[u8; 4]>::try_from(to).ok()) else { return };
                (IpAddr::from(to), ethertype::IPV4)
            }
            Some(6) => {
                let Some(to) = packet.get(24..40).and_then(|to| <[u8; 16]>::try_from(to).ok()) else { return };
                (IpAddr::from(to), ethertype::IPV6)
            }
            _ => return,
        };
        let Some(mac) = self.card_of(to) else {
            if !self.wanted.contains(&to) {
                self.wanted.push(to);
            }
            return;
        };
        self.wrap(&mut bytes, mac, kind);
        self.push(Frame { bytes, offload });
    }

    /// Who is sent what goes to an address.
    fn card_of(&self, to: IpAddr) -> Option<MacAddress> {
        match to {
            IpAddr::V4(Ipv4Addr::BROADCAST | BROADCAST) => Some(MacAddress::BROADCAST),
            // RFC 2464, section 7.
            IpAddr::V6(to) if to.is_multicast() => {
                let [.., a, b, c, d] = to.octets();
                Some(MacAddress([0x33, 0x33, a, b, c, d]))
            }
            _ => self.neighbours.get(&to).copied(),
        }
    }

    /// Fills an Ethernet header in.
    fn wrap(&self, bytes: &mut [u8], to: MacAddress, kind: u16) {
        bytes[..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&MAC.0);
        bytes[12..HEADER].copy_from_slice(&kind.to_be_bytes());
    }

    /// Sends a frame of another kind to a card.
    pub(crate) fn frame(&mut self, to: MacAddress, kind: u16, data: &[u8]) {
        let mut bytes = vec![0; HEADER];
        self.wrap(&mut bytes, to, kind);
        bytes.extend_from_slice(data);
        self.push(Frame::plain(bytes));
    }

    /// Sends a TCP packet from smoltcp, whose checksum is missing, in segments that whoever gets it and the link take.
    pub(crate) fn tcp(&mut self, mut bytes: Vec<u8>, segment: u16) {
        let v6 = bytes[HEADER] >> 4 == 6;
        let (header, addresses) = if v6 { (IPV6_HEADER, 8..40) } else { (IPV4_HEADER, 12..20) };
        let start = HEADER + header;
        let largest = (MTU - header - TCP_HEADER) as u16;
        let Some(&[offset, flags]) = bytes.get(start + 12..start + TCP_HEADER).and_then(|rest| rest.first_chunk())
        else {
            return;
        };
        // smoltcp knows of no link that takes less than the largest packets; this option is its first.
        if flags & SYN != 0
            && let Some([2, 4, said @ ..]) = bytes[start + TCP_HEADER..].first_chunk_mut::<4>()
        {
            *said = largest.to_be_bytes();
        }
        let addresses = &bytes[HEADER..][addresses];
        let pseudo = checksum::fold(checksum::pseudo_header(addresses, &[], TCP, bytes.len() - start));
        bytes[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
        // Options count as data (RFC 9293, section 3.7.1).
        let options = (u16::from(offset >> 4) * 4).saturating_sub(TCP_HEADER as u16);
        let size = segment.min(largest).saturating_sub(options);
        let data = bytes.len().saturating_sub(start + TCP_HEADER + usize::from(options));
        let segmentation = (data > size.into()).then_some(Segmentation { size, congestion: false });
        let checksum = Checksum::Missing { start: start as u16, offset: 16 };
        self.packet(bytes, Offload { checksum, segmentation });
    }

    /// Sends an IP packet with `data`, in fragments if need be.
    pub(crate) fn ip(&mut self, from: IpAddr, to: IpAddr, protocol: u8, data: &[u8], sum: Sum) {
        self.ip_with_hops(from, to, protocol, data, sum, HOPS);
    }

    /// The same with another hop limit.
    pub(crate) fn ip_with_hops(&mut self, from: IpAddr, to: IpAddr, protocol: u8, data: &[u8], sum: Sum, hops: u8) {
        self.number = self.number.wrapping_add(1);
        let head = Head { from, to, protocol, hops, number: self.number as u16 };
        let Some(bytes) = ip::packet(&head, data, sum) else { return };
        let offload = Offload { checksum: Checksum::Good, segmentation: None };
        if bytes.len() - HEADER <= MTU {
            self.packet(bytes, offload);
        } else {
            fragments::cut(&bytes, MTU, self.number, |fragment| self.packet(fragment, offload));
        }
    }

    /// Sends a UDP datagram (RFC 768).
    pub(crate) fn udp(&mut self, from: std::net::SocketAddr, to: std::net::SocketAddr, data: &[u8]) {
        let Ok(length) = u16::try_from(UDP_HEADER + data.len()) else { return };
        let mut datagram = Vec::with_capacity(usize::from(length));
        datagram.extend(from.port().to_be_bytes());
        datagram.extend(to.port().to_be_bytes());
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend_from_slice(data);
        self.ip(from.ip(), to.ip(), UDP, &datagram, Sum::WithAddresses(6));
    }
}

/// The largest IP packet that is not cut into segments.
pub(crate) const MTU: usize = 1500;
