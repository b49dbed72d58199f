//! Putting the guest's fragments together (RFC 791, section 3.2; RFC 8200, section 4.5), and cutting what is too long for it.
//!
//! A guest that sends fragments and never the rest takes no more room than [`MOST`] packets do, for [`PATIENCE`]. Fragments that
//! overlap are no honest guest's: all of the packet is lost with them (RFC 5722).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lodge_net::HEADER;
use lodge_net::ip::{self, IPV4_HEADER, IPV6_HEADER};

/// Packets of which not all is there, at a time; of more, the oldest is lost.
pub(crate) const MOST: usize = 64;
/// How long the rest of one is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Fragments of a packet; with the smallest that networks have to carry (RFC 791: 576 bytes) it has 118.
pub(crate) const PIECES: usize = 128;
/// The largest IP packet.
const LARGEST: usize = 65_535;
/// The kinds of IPv6's extension headers that may come before a fragment's: hop-by-hop options, routing, destination options.
const BEFORE: [u8; 3] = [0, 43, 60];
/// A fragment's own header.
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    from: IpAddr,
    to: IpAddr,
    /// Of IPv4 alone.
    protocol: u8,
    number: u32,
}

/// A fragment.
struct Piece<'a> {
    identity: Identity,
    /// The headers that each fragment has, without what makes it one.
    head: Vec<u8>,
    offset: usize,
    more: bool,
    data: &'a [u8],
}

/// A packet of which not all is there.
struct Partial {
    /// From the first fragment.
    head: Option<Vec<u8>>,
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Bytes in them.
    there: usize,
    /// Bytes in all, once the last fragment is there.
    total: Option<usize>,
    until: Instant,
    /// Its fragments contradict each other: nothing is made of it.
    spoilt: bool,
}

/// Packets that are being put together.
#[derive(Default)]
pub(crate) struct Fragments {
    partial: HashMap<Identity, Partial>,
}

impl Fragments {
    /// Takes the IP packet of a frame. `None` if it is no fragment; otherwise the frame that it completes, if it does.
    pub(crate) fn take(&mut self, frame: &[u8], network: usize, end: usize) -> Option<Option<Vec<u8>>> {
        let packet = frame.get(network..end)?;
        let piece = match packet.first()? >> 4 {
            4 => Piece::ipv4(packet)?,
            _ => Piece::ipv6(packet)?,
        };
        let whole = self.add(&piece);
        Some(whole.map(|packet| [&frame[..HEADER], &packet].concat()))
    }

    fn add(&mut self, piece: &Piece<'_>) -> Option<Vec<u8>> {
        let now = Instant::now();
        let is_whole = piece.data.len().is_multiple_of(8) || !piece.more;
        if piece.data.is_empty() || !is_whole || piece.head.len() + piece.offset + piece.data.len() > LARGEST {
            return None;
        }
        if !self.partial.contains_key(&piece.identity) {
            self.make_room(now);
        }
        let partial = self.partial.entry(piece.identity).or_insert_with(|| Partial {
            head: None,
            pieces: BTreeMap::new(),
            there: 0,
            total: None,
            until: now + PATIENCE,
            spoilt: false,
        });
        partial.add(piece);
        if !partial.is_complete() {
            return None;
        }
        self.partial.remove(&piece.identity)?.finish()
    }

    /// Forgets those whose rest did not come, and makes room for another.
    fn make_room(&mut self, now: Instant) {
        self.forget_old(now);
        if self.partial.len() >= MOST
            && let Some(oldest) = self.partial.iter().min_by_key(|(_, one)| one.until).map(|(identity, _)| *identity)
        {
            self.partial.remove(&oldest);
        }
    }

    /// Forgets those that have waited for too long by then.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.partial.retain(|_, partial| partial.until > now);
    }

    /// When the next one is forgotten.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.partial.values().map(|partial| partial.until).min()
    }

    /// How many packets are waited for, and how many bytes there are of them.
    #[cfg(test)]
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.partial.len(), self.partial.values().map(|partial| partial.there).sum())
    }
}

impl Partial {
    fn add(&mut self, piece: &Piece<'_>) {
        let (from, to) = (piece.offset, piece.offset + piece.data.len());
        let total = if piece.more { self.total } else { Some(to) };
        let before = self.pieces.range(..to).next_back();
        if before.is_some_and(|(at, data)| *at == from && data[..] == *piece.data) && total == self.total {
            // It came twice, as may happen on any network.
            return;
        }
        let overlaps = before.is_some_and(|(at, data)| at + data.len() > from);
        let last = self.pieces.last_key_value().map_or(0, |(at, data)| at + data.len());
        let contradicts = self.total.is_some_and(|own| Some(own) != total)
            || total.is_some_and(|total| to.max(last) > total)
            || self.pieces.len() >= PIECES;
        if self.spoilt || overlaps || contradicts {
            // What comes of it later is lost, too, and what was there is no use.
            *self =
                Self { head: None, pieces: BTreeMap::new(), there: 0, total: None, until: self.until, spoilt: true };
            return;
        }
        self.total = total;
        self.there += piece.data.len();
        self.pieces.insert(from, piece.data.to_vec());
        if from == 0 {
            self.head = Some(piece.head.clone());
        }
    }

    fn is_complete(&self) -> bool {
        // They do not overlap, and none is beyond the end.
        self.head.is_some() && self.total == Some(self.there)
    }

    /// The packet.
    fn finish(self) -> Option<Vec<u8>> {
        let mut packet = self.head?;
        let head = packet.len();
        self.pieces.into_values().for_each(|data| packet.extend(data));
        if packet.first()? >> 4 == 4 {
            let length = u16::try_from(packet.len()).ok()?;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].fill(0);
            let sum = !lodge_net::checksum::fold(lodge_net::checksum::sum(&packet[..head]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let length = u16::try_from(packet.len() - IPV6_HEADER).ok()?;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
        }
        Some(packet)
    }
}

impl<'a> Piece<'a> {
    fn ipv4(packet: &'a [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xf) * 4;
        let place = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        if offset == 0 && !more {
            return None;
        }
        let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let number = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]).into();
        let identity = Identity { from: address(12)?, to: address(16)?, protocol: *packet.get(9)?, number };
        let mut head = packet.get(..header)?.to_vec();
        head.get_mut(6..8)?.fill(0);
        Some(Self { identity, head, offset, more, data: packet.get(header..)? })
    }

    fn ipv6(packet: &'a [u8]) -> Option<Self> {
        // Where the kind of the header at `at` is said.
        let (mut named, mut at) = (6, IPV6_HEADER);
        // There are few kinds, and each comes once or twice.
        for _ in 0..8 {
            let kind = *packet.get(named)?;
            if kind == FRAGMENT {
                let [next, _, p0, p1, n0, n1, n2, n3] = *packet.get(at..)?.first_chunk::<FRAGMENT_HEADER>()?;
                let place = u16::from_be_bytes([p0, p1]);
                let (offset, more) = (usize::from(place & 0xfff8), place & 1 != 0);
                if offset == 0 && !more {
                    // It is all of the packet (RFC 6946).
                    return None;
                }
                let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
                let number = u32::from_be_bytes([n0, n1, n2, n3]);
                let identity = Identity { from: address(8)?, to: address(24)?, protocol: 0, number };
                let mut head = packet[..at].to_vec();
                head[named] = next;
                return Some(Self { identity, head, offset, more, data: &packet[at + FRAGMENT_HEADER..] });
            }
            if !BEFORE.contains(&kind) {
                return None;
            }
            named = at;
            at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
        }
        None
    }
}

/// Cuts an IP packet without options or extension headers, before which there is room for an Ethernet header, into packets of at most
/// `mtu` bytes.
pub(crate) fn cut(bytes: &[u8], mtu: usize, number: u32, mut take: impl FnMut(Vec<u8>)) {
    let packet = &bytes[HEADER..];
    let v4 = packet[0] >> 4 == 4;
    let (header, own) = if v4 { (IPV4_HEADER, 0) } else { (IPV6_HEADER, FRAGMENT_HEADER) };
    let (head, data) = packet.split_at(header);
    let size = (mtu - header - own) / 8 * 8;
    let count = data.len().div_ceil(size);
    for (index, piece) in data.chunks(size).enumerate() {
        let (offset, more) = ((index * size) as u16, index + 1 < count);
        let mut fragment = Vec::with_capacity(HEADER + mtu);
        fragment.resize(HEADER, 0);
        fragment.extend_from_slice(head);
        if v4 {
            let length = (header + piece.len()) as u16;
            let place = (offset / 8) | if more { 0x2000 } else { 0 };
            fragment[HEADER + 2..HEADER + 4].copy_from_slice(&length.to_be_bytes());
            fragment[HEADER + 6..HEADER + 8].copy_from_slice(&place.to_be_bytes());
            ip::finish_header(&mut fragment[HEADER..]);
        } else {
            let length = (own + piece.len()) as u16;
            fragment[HEADER + 4..HEADER + 6].copy_from_slice(&length.to_be_bytes());
            let next = std::mem::replace(&mut fragment[HEADER + 6], FRAGMENT);
            fragment.extend([next, 0]);
            fragment.extend((offset | u16::from(more)).to_be_bytes());
            fragment.extend(number.to_be_bytes());
        }
        fragment.extend_from_slice(piece);
        take(fragment);
    }
}
