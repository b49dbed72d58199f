//! Frames with what is left to do to them, as Linux's taps, virtio cards and switches hand them on: behind a header of twelve
//! bytes (virtio 1.2, section 5.1.6, `struct virtio_net_hdr`).

use crate::frame::{Checksum, Frame, HEADER as ETHERNET, LARGEST, Offload, Segmentation};
use crate::segment::{Layout, ethertype};

/// Bytes of the header.
pub const HEADER: usize = 12;
/// In its flags: a checksum is missing.
pub const NEEDS_CSUM: u8 = 1;
/// In its flags: the checksum is known to be right.
pub const DATA_VALID: u8 = 2;
/// Kinds of large segments: none, TCP over IPv4, TCP over IPv6.
pub const GSO_NONE: u8 = 0;
/// See [`GSO_NONE`].
pub const GSO_TCPV4: u8 = 1;
/// See [`GSO_NONE`].
pub const GSO_TCPV6: u8 = 4;
/// A flag among the kinds: congestion was experienced.
pub const GSO_ECN: u8 = 0x80;

/// What a header says. `None` for kinds of segments that nobody here has asked for.
pub fn decode(header: &[u8; HEADER]) -> Option<Offload> {
    let [flags, kind, _, _, size0, size1, start0, start1, offset0, offset1, _, _] = *header;
    let checksum = if flags & NEEDS_CSUM != 0 {
        let (start, offset) = (u16::from_le_bytes([start0, start1]), u16::from_le_bytes([offset0, offset1]));
        Checksum::Missing { start, offset }
    } else if flags & DATA_VALID != 0 {
        Checksum::Good
    } else {
        Checksum::There
    };
    let segmentation = match kind & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 | GSO_TCPV6 => {
            let size = u16::from_le_bytes([size0, size1]);
            Some(Segmentation { size, congestion: kind & GSO_ECN != 0 })
        }
        _ => return None,
    };
    Some(Offload { checksum, segmentation })
}

/// The header of a frame, without how many buffers it has.
pub fn encode(frame: &Frame) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    match frame.offload.checksum {
        Checksum::There => {}
        Checksum::Good => header[0] = DATA_VALID,
        Checksum::Missing { start, offset } => {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
    }
    if let Some((segmentation, layout)) = frame.offload.segmentation.zip(Layout::of(&frame.bytes)) {
        let kind = if layout.ethertype == ethertype::IPV4 { GSO_TCPV4 } else { GSO_TCPV6 };
        header[1] = kind | if segmentation.congestion { GSO_ECN } else { 0 };
        let at = layout.transport.map_or(layout.end, |(_, at)| at);
        let length = frame.bytes.get(at + 12).map_or(at, |byte| at + usize::from(byte >> 4) * 4);
        header[2..4].copy_from_slice(&(length as u16).to_le_bytes());
        header[4..6].copy_from_slice(&segmentation.size.to_le_bytes());
    }
    header
}

/// A frame behind its header.
pub fn pack(frame: &Frame) -> Vec<u8> {
    [&encode(frame)[..], &frame.bytes].concat()
}

/// The frame of a packet. `None` if it makes no sense.
pub fn unpack(packet: &[u8]) -> Option<Frame> {
    let (header, bytes) = packet.split_first_chunk()?;
    let whole = (ETHERNET..=LARGEST).contains(&bytes.len());
    let offload = decode(header).filter(|_| whole)?;
    Some(Frame { bytes: bytes.to_vec(), offload })
}
