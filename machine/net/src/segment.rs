//! Doing to frames what is left to do: making checksums, cutting large TCP segments.
//!
//! Where the parts of a frame are is found in the frame, not in what its sender says of it.

use crate::checksum;
use crate::frame::{Accepts, Checksum, Frame, HEADER, Offload, Segmentation};

/// Ethernet types (IEEE 802.3, clause 3.2.6; RFC 894, RFC 2464).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A VLAN's tag follows (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Another tag follows (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The number of TCP among IP's protocols.
pub const TCP: u8 = 6;
/// The number of UDP.
pub const UDP: u8 = 17;
/// The number of ICMP.
pub const ICMP: u8 = 1;
/// The number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// The least size of cut segments: less is no network's, and would make thousands of frames of one.
const SMALLEST_SEGMENT: u16 = 48;
/// TCP's flags FIN and PSH, which only the last of several has, and CWR, which only the first has (RFC 9293, section 3.1).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
const TCP_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where a TCP header has its flags.
const FLAGS: usize = 13;

/// Where the parts of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What is in the frame.
    pub ethertype: u16,
    /// Where that begins.
    pub network: usize,
    /// What is in that packet, and where it begins, if it is IP and no later fragment.
    pub transport: Option<(u8, usize)>,
    /// Where the IP packet ends; what follows is padding.
    pub end: usize,
}

impl Layout {
    /// Looks into a frame. `None` if it contradicts itself.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let mut network = HEADER;
        let mut kind = half(12)?;
        // At most two tags.
        for _ in 0..2 {
            if matches!(kind, ethertype::VLAN | ethertype::SERVICE_VLAN) {
                kind = half(network + 2)?;
                network += 4;
            }
        }
        let packet = bytes.get(network..)?;
        let (transport, length) = match kind {
            ethertype::IPV4 => {
                let header = usize::from(packet.first()? & 0xf) * 4;
                let length = usize::from(half(network + 2)?);
                if packet[0] >> 4 != 4 || header < 20 || length < header {
                    return None;
                }
                let first = half(network + 6)? & 0x1fff == 0;
                (first.then_some((*packet.get(9)?, network + header)), length)
            }
            ethertype::IPV6 => {
                if packet.first()? >> 4 != 6 {
                    return None;
                }
                let transport = match ipv6_inside(packet) {
                    Inside::Transport(kind, at) => Some((kind, network + at)),
                    Inside::Later(..) | Inside::Unknown => None,
                };
                (transport, IPV6_HEADER + usize::from(half(network + 4)?))
            }
            _ => return Some(Self { ethertype: kind, network, transport: None, end: bytes.len() }),
        };
        let end = network + length;
        let inside = end <= bytes.len() && transport.is_none_or(|(_, at)| at <= end);
        inside.then_some(Self { ethertype: kind, network, transport, end })
    }

    /// The sum of the pseudo header of what is within an IP packet.
    fn pseudo_header(&self, bytes: &[u8], protocol: u8, length: usize) -> u64 {
        let packet = &bytes[self.network..];
        let addresses = if self.ethertype == ethertype::IPV4 { &packet[12..20] } else { &packet[8..40] };
        checksum::pseudo_header(addresses, &[], protocol, length)
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// A packet of this protocol, which begins here, or its first fragment.
    Transport(u8, usize),
    /// A later fragment of one, and how many bytes of it come before.
    Later(u8, u16),
    /// It can't be told: it is encrypted, goes by way of others first, or makes no sense.
    Unknown,
}

/// What an IPv6 packet carries behind extension headers (RFC 8200, section 4).
pub(crate) fn ipv6_inside(packet: &[u8]) -> Inside {
    ipv6_walk(packet).unwrap_or(Inside::Unknown)
}

fn ipv6_walk(packet: &[u8]) -> Option<Inside> {
    let mut kind = *packet.get(6)?;
    let mut at = IPV6_HEADER;
    // There are few kinds, and each comes once or twice.
    for _ in 0..8 {
        match kind {
            // Routing: with segments left, the destination is another than it says (section 4.4).
            43 if *packet.get(at + 3)? != 0 => return None,
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                kind = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            // A fragment.
            44 => {
                let offset = u16::from_be_bytes([*packet.get(at + 2)?, *packet.get(at + 3)?]) & 0xfff8;
                kind = *packet.get(at)?;
                at += 8;
                if offset != 0 {
                    return Some(Inside::Later(kind, offset));
                }
            }
            50 => return None,
            _ => return (at <= packet.len()).then_some(Inside::Transport(kind, at)),
        }
    }
    None
}

/// Whether a checksum that is missing has its place in the frame.
fn is_inside(bytes: &[u8], checksum: Checksum) -> bool {
    let Checksum::Missing { start, offset } = checksum else { return true };
    usize::from(start) + usize::from(offset) + 2 <= bytes.len()
}

/// Makes a checksum that is missing.
fn finish_checksum(bytes: &mut [u8], checksum: Checksum) {
    let Checksum::Missing { start, offset } = checksum else { return };
    let (start, place) = (usize::from(start), usize::from(start) + usize::from(offset));
    let value = checksum::finish(checksum::sum(&bytes[start..]));
    bytes[place..place + 2].copy_from_slice(&value.to_be_bytes());
}

/// Whether a TCP, UDP or ICMP checksum that nobody has looked at is right. Packets without one are right.
pub fn is_intact(bytes: &[u8], layout: &Layout) -> bool {
    if layout.ethertype == ethertype::IPV4 {
        let header = usize::from(bytes[layout.network] & 0xf) * 4;
        let header = bytes.get(layout.network..layout.network + header);
        if header.is_none_or(|header| checksum::fold(checksum::sum(header)) != 0xffff) {
            return false;
        }
    }
    let Some((protocol, at)) = layout.transport else { return true };
    let data = &bytes[at..layout.end];
    let pseudo = match protocol {
        TCP | ICMPV6 => layout.pseudo_header(bytes, protocol, data.len()),
        // Zero: there is none (RFC 768).
        UDP if data.get(6..8) == Some(&[0, 0]) && layout.ethertype == ethertype::IPV4 => return true,
        UDP => layout.pseudo_header(bytes, protocol, data.len()),
        ICMP => 0,
        _ => return true,
    };
    checksum::fold(pseudo + checksum::sum(data)) == 0xffff
}

/// Does what `accepts` does not cover, and gives each frame that results to `take`. Frames that make no sense are lost.
pub fn prepare(frame: Frame, accepts: Accepts, mut take: impl FnMut(Frame)) {
    if !frame.has_sane_size() {
        return;
    }
    let Some(segmentation) = frame.offload.segmentation else {
        let mut frame = frame;
        let checksum = frame.offload.checksum;
        if !is_inside(&frame.bytes, checksum) {
            return;
        }
        if !accepts.checksum && checksum != Checksum::There {
            finish_checksum(&mut frame.bytes, checksum);
            frame.offload.checksum = Checksum::Good;
        }
        return take(frame);
    };
    let Some(layout) = Layout::of(&frame.bytes) else { return };
    let whole = accepts.checksum
        && (accepts.congestion || !segmentation.congestion)
        && match layout.ethertype {
            ethertype::IPV4 => accepts.tcp4,
            ethertype::IPV6 => accepts.tcp6,
            _ => false,
        };
    let Some(header) = tcp_header_end(&frame.bytes, &layout) else { return };
    if segmentation.size < SMALLEST_SEGMENT {
        return;
    }
    if whole {
        // Where the checksum is is known now, whatever the sender said.
        let mut frame = frame;
        let (_, at) = layout.transport.unwrap_or_default();
        let pseudo = checksum::fold(layout.pseudo_header(&frame.bytes, TCP, layout.end - at));
        frame.bytes[at + 16..at + 18].copy_from_slice(&pseudo.to_be_bytes());
        frame.bytes.truncate(layout.end);
        let checksum = Checksum::Missing { start: at as u16, offset: 16 };
        frame.offload = Offload { checksum, segmentation: Some(segmentation) };
        return take(frame);
    }
    cut(&frame.bytes, &layout, header, segmentation, take);
}

/// Where a TCP packet's headers end.
fn tcp_header_end(bytes: &[u8], layout: &Layout) -> Option<usize> {
    let (protocol, at) = layout.transport?;
    let length = usize::from(bytes.get(at + 12)? >> 4) * 4;
    (protocol == TCP && length >= TCP_HEADER && at + length <= layout.end).then_some(at + length)
}

/// Cuts a TCP packet into several, each whole.
fn cut(bytes: &[u8], layout: &Layout, header: usize, segmentation: Segmentation, mut take: impl FnMut(Frame)) {
    let Some((_, tcp)) = layout.transport else { return };
    let data = &bytes[header..layout.end];
    let size = usize::from(segmentation.size);
    let sequence = u32::from_be_bytes([bytes[tcp + 4], bytes[tcp + 5], bytes[tcp + 6], bytes[tcp + 7]]);
    let count = data.len().div_ceil(size).max(1);
    for index in 0..count {
        let from = index * size;
        let part = &data[from..data.len().min(from + size)];
        let mut frame = Vec::with_capacity(header + part.len());
        frame.extend_from_slice(&bytes[..header]);
        frame.extend_from_slice(part);
        let packet = &mut frame[layout.network..];
        if layout.ethertype == ethertype::IPV4 {
            let length = packet.len() as u16;
            let number = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[4..6].copy_from_slice(&number.to_be_bytes());
            packet[10..12].fill(0);
            let header = usize::from(packet[0] & 0xf) * 4;
            let value = !checksum::fold(checksum::sum(&packet[..header]));
            packet[10..12].copy_from_slice(&value.to_be_bytes());
        } else {
            let length = (packet.len() - IPV6_HEADER) as u16;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let flags = &mut frame[tcp + FLAGS];
        if index + 1 < count {
            *flags &= !FIN_PSH;
        }
        if index > 0 {
            *flags &= !CWR;
        }
        frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(from as u32).to_be_bytes());
        frame[tcp + 16..tcp + 18].fill(0);
        let pseudo = layout.pseudo_header(&frame, TCP, frame.len() - tcp);
        let value = checksum::finish(pseudo + checksum::sum(&frame[tcp..]));
        frame[tcp + 16..tcp + 18].copy_from_slice(&value.to_be_bytes());
        take(Frame { bytes: frame, offload: Offload { checksum: Checksum::Good, segmentation: None } });
    }
}
