//! What rules have to know of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::segment::{ICMP, ICMPV6, Inside, Layout, TCP, UDP, ethertype, ipv6_inside};

/// The least that a first fragment has of these (RFC 9293, section 3.1; RFC 768; RFC 792), so that it can be judged.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 4;
/// IPv4's options by which a packet goes by way of others first (RFC 791, section 3.1).
const SOURCE_ROUTES: [u8; 2] = [131, 137];
/// TCP's flags SYN and ACK (RFC 9293, section 3.1).
const SYN: u8 = 2;
const ACK: u8 = 16;
/// IGMP, by which groups are joined.
const IGMP: u8 = 2;

/// One end of where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: IpAddr,
    /// What is sent; `None` if that can't be seen.
    pub(super) protocol: Option<u8>,
    /// The port, if it has one and that can be seen.
    pub(super) port: Option<u16>,
}

/// Who talks to whom: first the one who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    protocol: u8,
    by: SocketAddr,
    to: SocketAddr,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries<'a> {
    /// A packet of this protocol, or its first fragment, with all that is in the frame of it.
    Whole(u8, &'a [u8]),
    /// A later fragment of one.
    Later(u8),
    /// That can't be seen.
    Unknown,
}

/// An IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) hops: u8,
    pub(super) carries: Carries<'a>,
    /// From the IP header on, without padding.
    pub(super) whole: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The IP packet in a frame. `None` if it makes no sense, or hides where it goes.
    pub(super) fn of(bytes: &'a [u8], layout: &Layout) -> Option<Self> {
        let whole = bytes.get(layout.network..layout.end)?;
        let packet = if layout.ethertype == ethertype::IPV4 { Self::ipv4(whole)? } else { Self::ipv6(whole)? };
        let enough = match packet.carries {
            Carries::Whole(TCP, data) => data.len() >= TCP_HEADER,
            Carries::Whole(UDP, data) => data.len() >= UDP_HEADER,
            Carries::Whole(ICMP | ICMPV6, data) => data.len() >= ICMP_HEADER,
            _ => true,
        };
        enough.then_some(packet)
    }

    fn ipv4(whole: &'a [u8]) -> Option<Self> {
        let header = usize::from(whole.first()? & 0xf) * 4;
        if is_source_routed(whole.get(20..header)?) {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(*whole.get(at..)?.first_chunk::<4>()?));
        let (protocol, hops) = (*whole.get(9)?, *whole.get(8)?);
        let offset = (u16::from_be_bytes([*whole.get(6)?, *whole.get(7)?]) & 0x1fff) * 8;
        let carries = match offset {
            0 => Carries::Whole(protocol, whole.get(header..)?),
            _ => later(protocol, offset)?,
        };
        Some(Self { from: address(12)?.into(), to: address(16)?.into(), hops, carries, whole })
    }

    fn ipv6(whole: &'a [u8]) -> Option<Self> {
        let address = |at: usize| Some(Ipv6Addr::from(*whole.get(at..)?.first_chunk::<16>()?));
        let carries = match ipv6_inside(whole) {
            Inside::Transport(protocol, at) => Carries::Whole(protocol, whole.get(at..)?),
            Inside::Later(protocol, offset) => later(protocol, offset)?,
            Inside::Unknown => Carries::Unknown,
        };
        Some(Self { from: address(8)?.into(), to: address(24)?.into(), hops: *whole.get(7)?, carries, whole })
    }

    /// The ports of a TCP or UDP packet, of its sender and its receiver.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        match self.carries {
            Carries::Whole(TCP | UDP, [s0, s1, d0, d1, ..]) => {
                Some((u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])))
            }
            _ => None,
        }
    }

    /// Where it goes.
    pub(super) fn destination(&self) -> End {
        self.end(self.to, self.ports().map(|(_, to)| to))
    }

    /// Where it comes from.
    pub(super) fn origin(&self) -> End {
        self.end(self.from, self.ports().map(|(from, _)| from))
    }

    fn end(&self, address: IpAddr, port: Option<u16>) -> End {
        let protocol = match self.carries {
            Carries::Whole(protocol, _) | Carries::Later(protocol) => Some(protocol),
            Carries::Unknown => None,
        };
        End { address, protocol, port }
    }

    /// If somebody is spoken to who may answer: who by whom.
    pub(super) fn question(&self) -> Option<Talk> {
        let asks = match self.carries {
            Carries::Whole(TCP, _) => self.opens(),
            Carries::Whole(ICMP, data) => data[0] == 8,
            Carries::Whole(ICMPV6, data) => data[0] == 128,
            Carries::Whole(UDP, _) => true,
            _ => false,
        };
        self.talk().filter(|_| asks)
    }

    /// If it may be an answer: to whom by whom.
    pub(super) fn answer(&self) -> Option<Talk> {
        let answers = match self.carries {
            Carries::Whole(TCP, _) => !self.opens(),
            Carries::Whole(ICMP, data) => data[0] == 0,
            Carries::Whole(ICMPV6, data) => data[0] == 129,
            Carries::Whole(UDP, _) => true,
            _ => false,
        };
        self.talk().filter(|_| answers).map(|Talk { protocol, by, to }| Talk { protocol, by: to, to: by })
    }

    /// Sender and receiver; an echo's identifier is the port of both.
    fn talk(&self) -> Option<Talk> {
        let Carries::Whole(protocol, data) = self.carries else { return None };
        let (from, to) = match (self.ports(), data) {
            (Some(ports), _) => ports,
            (None, [_, _, _, _, i0, i1, ..]) => [u16::from_be_bytes([*i0, *i1]); 2].into(),
            _ => return None,
        };
        Some(Talk { protocol, by: SocketAddr::new(self.from, from), to: SocketAddr::new(self.to, to) })
    }

    /// Whether it is the first of a TCP connection.
    fn opens(&self) -> bool {
        matches!(self.carries, Carries::Whole(TCP, data) if data[13] & (SYN | ACK) == SYN)
    }

    /// Whether it is what keeps the link going: neighbour discovery, the search for routers, DHCP to all, the joining of
    /// groups.
    pub(super) fn is_of_the_link(&self) -> bool {
        let link_local = match self.to {
            IpAddr::V4(to) => to.octets()[..3] == [224, 0, 0],
            IpAddr::V6(to) => to.segments()[0] == 0xff02 || to.segments()[0] & 0xffc0 == 0xfe80,
        };
        match self.carries {
            // Router solicitation, neighbour solicitation and advertisement (RFC 4861, section 4). A router that passes
            // them on makes them worthless, but what comes with them would be passed on.
            Carries::Whole(ICMPV6, data @ [133 | 135 | 136, ..]) => {
                self.hops == 255 && (link_local || data.len() <= 32)
            }
            // Multicast listeners (RFC 2710, RFC 3810).
            Carries::Whole(ICMPV6, [131 | 132 | 143, ..]) => self.hops == 1 && link_local,
            Carries::Whole(IGMP, _) => self.hops == 1 && self.to.is_multicast(),
            Carries::Whole(UDP, _) => match (self.to, self.ports()) {
                (IpAddr::V4(Ipv4Addr::BROADCAST), Some((68, 67))) => true,
                // All relay agents and servers (RFC 8415, section 7.1).
                (IpAddr::V6(to), Some((546, 547))) => to == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
                _ => false,
            },
            _ => false,
        }
    }
}

/// A later fragment, unless it has a piece of a header (RFC 1858, section 3.2.2).
fn later<'a>(protocol: u8, offset: u16) -> Option<Carries<'a>> {
    (protocol != TCP || usize::from(offset) >= TCP_HEADER).then_some(Carries::Later(protocol))
}

/// Whether among IPv4's options is a source route.
fn is_source_routed(mut options: &[u8]) -> bool {
    while let Some(kind) = options.first() {
        if SOURCE_ROUTES.contains(kind) {
            return true;
        }
        let length = match kind {
            // The end of them, nothing.
            0 => return false,
            1 => 1,
            _ => options.get(1).map_or(options.len(), |length| usize::from(*length).max(2)),
        };
        options = options.get(length..).unwrap_or_default();
    }
    false
}
