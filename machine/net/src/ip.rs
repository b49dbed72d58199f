//! Making IP packets: headers, checksums.

use std::net::IpAddr;

use crate::HEADER;
use crate::checksum;

/// Bytes of an IPv4 header without options (RFC 791, section 3.1).
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header (RFC 8200, section 3).
pub const IPV6_HEADER: usize = 40;

/// Where a protocol has its checksum, and what that is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// It has none, or it is there.
    None,
    /// Here, over the data alone (ICMP).
    Data(usize),
    /// Here, over the data and a pseudo header with the addresses (TCP, UDP, ICMPv6).
    WithAddresses(usize),
}

/// The header of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Who sends it.
    pub from: IpAddr,
    /// Whom it is for; of the same kind.
    pub to: IpAddr,
    /// What it carries.
    pub protocol: u8,
    /// Over how many routers it may go.
    pub hops: u8,
    /// Its number, by which fragments of IPv4 are known.
    pub number: u16,
}

/// A packet with `data`, before which there is room for an Ethernet header. `None` if it would be too large, the addresses are
/// of two kinds, or the checksum's place is outside.
pub fn packet(head: &Head, data: &[u8], sum: Sum) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER + IPV6_HEADER + data.len());
    bytes.resize(HEADER, 0);
    let pseudo = match (head.from, head.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(IPV4_HEADER + data.len()).ok()?;
            bytes.extend([0x45, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(head.number.to_be_bytes());
            bytes.extend([0, 0, head.hops, head.protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            finish_header(&mut bytes[HEADER..]);
            checksum::pseudo_header(&from.octets(), &to.octets(), head.protocol, data.len())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(data.len()).ok()?;
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([head.protocol, head.hops]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            checksum::pseudo_header(&from.octets(), &to.octets(), head.protocol, data.len())
        }
        _ => return None,
    };
    let start = bytes.len();
    bytes.extend_from_slice(data);
    let (at, pseudo) = match sum {
        Sum::None => return Some(bytes),
        Sum::Data(at) => (at, 0),
        Sum::WithAddresses(at) => (at, pseudo),
    };
    bytes.get_mut(start + at..start + at + 2)?.fill(0);
    let value = checksum::finish(checksum::sum(&bytes[start..]) + pseudo);
    bytes[start + at..start + at + 2].copy_from_slice(&value.to_be_bytes());
    Some(bytes)
}

/// Makes the checksum of an IPv4 header without options, with which a packet begins.
///
/// # Panics
/// The packet is shorter than its header.
pub fn finish_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[..IPV4_HEADER]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
