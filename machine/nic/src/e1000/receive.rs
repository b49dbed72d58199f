//! The receiver of the 82540EM (317453, section 3.2).
//!
//! A frame stays at the cable until there are descriptors for it; only one is taken ahead, as its length is not known
//! before.

use std::sync::atomic::Ordering;

use lodge_engine_api::GuestMemory;
use lodge_net::segment::{self, Layout, TCP, UDP, ethertype};
use lodge_net::{Accepts, Cable, Checksum, Frame, HEADER, checksum};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use super::state::{E1000State, ReceiveState};
use crate::filter::{check_sequence, pad};

/// Most frames that are thrown away in one piece of work.
const AT_ONCE: usize = 64;

/// How the filters took a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Exactly,
    /// By its hash: the driver has to look.
    Perhaps,
}

impl ReceiveState {
    /// Bytes of a buffer (13.4.22).
    fn buffer(&self) -> usize {
        let small = [2048, 1024, 512, 256][(self.control >> 16 & 3) as usize];
        // With BSEX the first of them is reserved.
        if self.control & RCTL_BSEX != 0 { (small * 16).min(16384) } else { small }
    }

    fn has_address(&self, address: &[u8; 6]) -> bool {
        let [a, b, c, d, e, f] = *address;
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from(u16::from_le_bytes([e, f])));
        self.addresses.chunks_exact(2).any(|pair| pair[0] == low && pair[1] & RAH_WRITABLE == high | RAH_AV)
    }

    /// Whether a group is in the table, by twelve bits of its address (13.4.22, MO).
    fn has_group(&self, address: &[u8; 6]) -> bool {
        let shift = [4, 3, 2, 0][(self.control >> 12 & 3) as usize];
        let hash = u32::from(u16::from_le_bytes([address[4], address[5]])) >> shift & 0xfff;
        self.groups[hash as usize >> 5] >> (hash & 31) & 1 != 0
    }

    fn filter(&self, bytes: &[u8], tag: Option<u16>) -> Option<Passed> {
        if self.control & RCTL_VFE != 0
            && let Some(tag) = tag
        {
            let vlan = usize::from(tag & 0xfff);
            if self.vlans[vlan >> 5] >> (vlan & 31) & 1 == 0 {
                return None;
            }
        }
        let address = bytes.first_chunk()?;
        let exact = if *address == [0xff; 6] {
            self.control & (RCTL_BAM | RCTL_MPE) != 0
        } else if address[0] & 1 != 0 {
            self.control & RCTL_MPE != 0
        } else {
            self.control & RCTL_UPE != 0
        };
        if exact || self.has_address(address) {
            return Some(Passed::Exactly);
        }
        (address[0] & 1 != 0 && self.has_group(address)).then_some(Passed::Perhaps)
    }
}

impl E1000State {
    /// Does a piece of work; whether there may be more at once.
    pub(super) fn receive(&mut self, memory: &GuestMemory, cable: &Cable, master: bool) -> bool {
        let looped = self.is_looped();
        let on = self.receive.control & RCTL_EN != 0;
        if !on {
            self.receive.waiting.clear();
        }
        if !on || looped {
            // What a card does not listen to is lost, and does not come later.
            let lost = (0..AT_ONCE).take_while(|_| cable.receive(Accepts::default()).is_some()).count();
            if lost == AT_ONCE || !on {
                return lost == AT_ONCE;
            }
        }
        let ready = self.receive.ring.ready();
        if ready == 0 || !master {
            return false;
        }
        let waiting = self.receive.waiting.pop_front().map(Frame::from);
        let frame = match waiting {
            Some(frame) => Some(frame),
            None if looped => None,
            None => cable.receive(Accepts::default()),
        };
        let Some(mut frame) = frame else { return false };
        pad(&mut frame.bytes);
        self.take(frame, memory, ready)
    }

    /// Takes a frame, for which there may be too little room; whether there may be more.
    fn take(&mut self, frame: Frame, memory: &GuestMemory, ready: u32) -> bool {
        let length = frame.bytes.len() + 4;
        let tag = self.tag(&frame.bytes);
        let most = if self.receive.control & RCTL_LPE != 0 { LONGEST_OF_ALL } else { LONGEST };
        let buffer = self.receive.buffer();
        let strips = tag.is_some() && self.control & CTRL_VME != 0;
        let sequence = if self.receive.control & RCTL_SECRC == 0 { 4 } else { 0 };
        let size = frame.bytes.len() + sequence - if strips { 4 } else { 0 };
        // At most 16384 bytes come so far.
        let needed = size.div_ceil(buffer) as u32;
        let passed = self.receive.filter(&frame.bytes, tag);
        let fits = length <= most && needed < self.receive.ring.count();
        if passed.is_some() && fits && needed > ready {
            self.receive.waiting.push_front(frame.into());
            return false;
        }
        self.statistics.came(length);
        let Some(passed) = passed else { return true };
        if !fits {
            self.statistics.oversized();
            return true;
        }
        self.statistics.received(length, &frame.bytes);
        let (status, errors) = self.check(&frame);
        let start = (self.stored(RXCSUM) & RXCSUM_PCSS) as usize;
        let sum = checksum::fold(checksum::sum(frame.bytes.get(start..).unwrap_or_default()));
        let mut bytes = frame.bytes;
        if sequence != 0 {
            let sequence = check_sequence(&bytes);
            bytes.extend(sequence);
        }
        if strips {
            bytes.drain(12..16);
        }
        let status =
            status | if strips { received::VP } else { 0 } | if passed == Passed::Perhaps { received::PIF } else { 0 };
        let special = tag.filter(|_| strips).unwrap_or(0);
        let last = bytes.len().div_ceil(buffer) - 1;
        for (number, part) in bytes.chunks(buffer).enumerate() {
            let status = received::DD | if number == last { status | received::EOP } else { 0 };
            let [sum_low, sum_high] = sum.to_le_bytes();
            let errors = if number == last { errors } else { 0 };
            let [length_low, length_high] = (part.len() as u16).to_le_bytes();
            let [tag_low, tag_high] = special.to_le_bytes();
            self.put(memory, part, [length_low, length_high, sum_low, sum_high, status, errors, tag_low, tag_high]);
        }
        self.causes |= cause::RXT0;
        let left = self.receive.ring.ready() * DESCRIPTOR as u32;
        if left <= self.receive.ring.length >> (1 + (self.receive.control >> 8 & 3).min(2)) {
            self.causes |= cause::RXDMT0;
        }
        true
    }

    /// Fills the next buffer and gives the descriptor back.
    fn put(&mut self, memory: &GuestMemory, part: &[u8], status: [u8; 8]) {
        let at = self.receive.ring.at();
        // What lies outside of memory is lost.
        if let Ok(buffer @ 1..) = memory.read_obj::<u64>(GuestAddress(at)) {
            let _ = memory.write_slice(part, GuestAddress(buffer));
        }
        // All at once, and after the data: the status tells the guest that they are there.
        let _ = memory.store(u64::from_ne_bytes(status), GuestAddress(at.wrapping_add(8)), Ordering::Release);
        self.receive.ring.advance();
    }

    /// The tag of a frame.
    fn tag(&self, bytes: &[u8]) -> Option<u16> {
        let tag = bytes.get(12..HEADER + 2)?;
        (tag[..2] == self.vlan_type.to_be_bytes()).then(|| u16::from_be_bytes([tag[2], tag[3]]))
    }

    /// Looks at checksums (3.2.9): status and errors.
    fn check(&self, frame: &Frame) -> (u8, u8) {
        let wanted = self.stored(RXCSUM);
        let nothing = (received::IXSM, 0);
        if wanted & (RXCSUM_IPOFL | RXCSUM_TUOFL) == 0 {
            return nothing;
        }
        let Some(layout) = Layout::of(&frame.bytes) else { return nothing };
        if layout.ethertype != ethertype::IPV4 {
            return nothing;
        }
        let header = usize::from(frame.bytes[layout.network] & 0xf) * 4;
        let header = frame.bytes.get(layout.network..layout.network + header).unwrap_or_default();
        let good = checksum::fold(checksum::sum(header)) == 0xffff;
        let (mut status, mut errors) = (0, 0);
        if wanted & RXCSUM_IPOFL != 0 {
            status |= received::IPCS;
            errors |= if good { 0 } else { received::IPE };
        }
        let checked = matches!(layout.transport, Some((TCP | UDP, _))) && !is_fragment(&frame.bytes, &layout);
        if wanted & RXCSUM_TUOFL != 0 && checked && good {
            status |= received::TCPCS;
            let intact = frame.offload.checksum == Checksum::Good || segment::is_intact(&frame.bytes, &layout);
            errors |= if intact { 0 } else { received::TCPE };
        }
        (status, errors)
    }
}

/// Whether more of an IPv4 packet follows: its checksum is over all of it.
fn is_fragment(bytes: &[u8], layout: &Layout) -> bool {
    bytes.get(layout.network + 6).is_some_and(|flags| flags & 0x20 != 0)
}
