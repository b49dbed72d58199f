//! Saying no, as a router would, so that the guest's program learns of it at once: connections are reset, of other packets
//! it is said that they are prohibited (RFC 1812, section 5.2.7.1; RFC 4443, section 3.1).

use std::net::{IpAddr, Ipv4Addr};

use super::packet::{Carries, Packet};
use crate::MacAddress;
use crate::frame::{Checksum, Frame, HEADER, Offload};
use crate::ip::{self, Head, IPV4_HEADER, IPV6_HEADER, Sum};
use crate::segment::{ICMP, ICMPV6, Layout, TCP, ethertype};

const HOPS: u8 = 64;
/// TCP's flags (RFC 9293, section 3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// How large an error may be (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4), of which its own headers are a part.
const LARGEST_4: usize = 576 - IPV4_HEADER - 8;
const LARGEST_6: usize = 1280 - IPV6_HEADER - 8;

/// What the guest is told of a packet that does not go on, if anything: what goes to many, and what is an error itself, is
/// never answered (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
pub(super) fn refusal(bytes: &[u8], layout: &Layout, packet: &Packet<'_>) -> Option<Frame> {
    let to = MacAddress(*bytes.first_chunk()?);
    let from = MacAddress(*bytes.get(6..)?.first_chunk()?);
    if !to.is_one_card() || !from.is_one_card() || layout.network != HEADER || !is_single(packet.from) {
        return None;
    }
    if !is_single(packet.to) {
        return None;
    }
    let (protocol, data, sum) = match packet.carries {
        Carries::Later(_) => return None,
        Carries::Whole(TCP, segment) => (TCP, reset(segment)?, Sum::WithAddresses(16)),
        Carries::Whole(protocol @ (ICMP | ICMPV6), [kind, ..]) if is_error(protocol, *kind) => return None,
        _ if packet.to.is_ipv4() => (ICMP, prohibited(3, 13, packet.whole, LARGEST_4), Sum::Data(2)),
        _ => (ICMPV6, prohibited(1, 1, packet.whole, LARGEST_6), Sum::WithAddresses(2)),
    };
    let head = Head { from: packet.to, to: packet.from, protocol, hops: HOPS, number: 0 };
    let mut bytes = ip::packet(&head, &data, sum)?;
    let kind = if packet.to.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
    bytes[..6].copy_from_slice(&from.0);
    bytes[6..12].copy_from_slice(&to.0);
    bytes[12..HEADER].copy_from_slice(&kind.to_be_bytes());
    Some(Frame { bytes, offload: Offload { checksum: Checksum::Good, segmentation: None } })
}

/// Whether an address is that of one.
fn is_single(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether a message tells of an error (RFC 1122, section 3.2.2; RFC 4443, section 2.1).
fn is_error(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 || kind == 137 }
}

fn prohibited(kind: u8, code: u8, packet: &[u8], most: usize) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..packet.len().min(most)]);
    message
}

/// The reset that a segment to a connection that is none gets (RFC 9293, section 3.5.2).
fn reset(segment: &[u8]) -> Option<Vec<u8>> {
    let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, ..] = *segment else { return None };
    if flags & RST != 0 {
        return None;
    }
    let (sequence, acknowledged, flags) = if flags & ACK != 0 {
        ([a0, a1, a2, a3], 0, RST)
    } else {
        let data = segment.len().saturating_sub(usize::from(offset >> 4) * 4);
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        // No packet is longer than 65,535 bytes.
        let length = (data as u32).wrapping_add(control);
        ([0; 4], u32::from_be_bytes([n0, n1, n2, n3]).wrapping_add(length), RST | ACK)
    };
    let mut reset = vec![d0, d1, s0, s1];
    reset.extend(sequence);
    reset.extend(acknowledged.to_be_bytes());
    reset.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    Some(reset)
}
