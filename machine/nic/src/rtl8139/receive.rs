//! The receiver of the RTL8139C+, in both modes.
//!
//! ```text
//!   RBSTART: │ status, length │ frame, check sequence │ to a multiple of 4 │ status ...     CBR: card, CAPR + 16: guest
//!   C+ mode: descriptors, each the card's or the guest's
//! ```

use std::sync::atomic::Ordering;

use lodge_engine_api::GuestMemory;
use lodge_net::segment::{self, Layout, TCP, UDP, ethertype};
use lodge_net::{Accepts, Cable, Checksum, Frame, checksum};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use super::state::Rtl8139State;
use super::transmit::Descriptor;
use crate::filter::{check_sequence, multicast_bit, pad};

/// Most frames that are thrown away in one piece of work.
const AT_ONCE: usize = 64;
/// Bytes before a frame in the ring.
const RING_HEADER: usize = 4;

/// The longest of the usual frames, with its check sequence.
const USUAL: usize = 1518;

/// What came of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// There may be more.
    Some,
    /// There is no more, or it has to wait until something is written.
    None,
    /// The guest gives descriptors back without saying so: they have to be looked at again.
    Stalled,
}

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipient {
    All,
    Group,
    Card,
    Another,
}

impl Rtl8139State {
    /// Bytes of the ring.
    pub(super) fn ring_size(&self) -> u32 {
        8192 << (self.receive >> RCR_RBLEN & 3)
    }

    /// Where the guest reads, and whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        u32::from(self.read) % self.ring_size() == u32::from(self.written) % self.ring_size()
    }

    fn recipient(&self, bytes: &[u8]) -> Option<Recipient> {
        let address: &[u8; 6] = bytes.first_chunk()?;
        let (recipient, accepted) = if *address == [0xff; 6] {
            (Recipient::All, self.receive & RCR_AB != 0)
        } else if address[0] & 1 != 0 {
            let bit = multicast_bit(address);
            let listed = self.groups[bit as usize >> 3] >> (bit & 7) & 1 != 0;
            (Recipient::Group, self.receive & RCR_AM != 0 && listed)
        } else if *address == self.address[..6] {
            (Recipient::Card, self.receive & RCR_APM != 0)
        } else {
            (Recipient::Another, false)
        };
        (accepted || self.receive & RCR_AAP != 0).then_some(recipient)
    }

    /// Does a piece of work.
    pub(super) fn take(&mut self, memory: &GuestMemory, cable: &Cable, master: bool) -> Received {
        let (on, looped) = (self.command & CR_RE != 0, self.is_looped());
        if !on {
            self.waiting.clear();
        }
        if !on || looped {
            // What a card does not listen to is lost, and does not come later.
            let lost = (0..AT_ONCE).take_while(|_| cable.receive(Accepts::default()).is_some()).count();
            if lost == AT_ONCE {
                return Received::Some;
            }
        }
        if !on || !master {
            return Received::None;
        }
        let frame = match self.waiting.pop_front().map(Frame::from) {
            Some(frame) => frame,
            None if looped => return Received::None,
            // In a ring of bytes there is room for one, or it waits at the cable.
            None if self.plus & CPCR_RX == 0 && self.room() <= USUAL + RING_HEADER => return Received::None,
            None => match cable.receive(Accepts::default()) {
                Some(frame) => frame,
                None => return Received::None,
            },
        };
        self.put(frame, memory)
    }

    /// Bytes that are free in the ring.
    fn room(&self) -> usize {
        let size = self.ring_size();
        let used = (u32::from(self.written) % size + size - u32::from(self.read) % size) % size;
        (size - used) as usize
    }

    fn put(&mut self, mut frame: Frame, memory: &GuestMemory) -> Received {
        pad(&mut frame.bytes);
        let Some(recipient) = self.recipient(&frame.bytes) else { return Received::Some };
        if frame.bytes.len() + 4 > LONGEST {
            self.tally.errors = self.tally.errors.saturating_add(1);
            self.causes |= cause::RER;
            return Received::Some;
        }
        let done = if self.plus & CPCR_RX != 0 {
            self.put_into_descriptors(&frame, recipient, memory)
        } else {
            self.put_into_ring(&frame, recipient, memory)
        };
        if done != Received::Some {
            self.waiting.push_front(frame.into());
            return done;
        }
        self.causes |= cause::ROK;
        self.tally.received += 1;
        match recipient {
            Recipient::All => self.tally.broadcast += 1,
            Recipient::Group => self.tally.groups = self.tally.groups.wrapping_add(1),
            Recipient::Card => self.tally.physical += 1,
            Recipient::Another => {}
        }
        done
    }

    fn put_into_ring(&mut self, frame: &Frame, recipient: Recipient, memory: &GuestMemory) -> Received {
        let size = self.ring_size() as usize;
        let length = frame.bytes.len() + 4;
        let whole = (RING_HEADER + length).next_multiple_of(4);
        // A ring that was filled to the last byte would be an empty one.
        if whole >= self.room() {
            return Received::None;
        }
        let status = HEADER_OK
            | match recipient {
                Recipient::All => HEADER_BROADCAST,
                Recipient::Group => HEADER_GROUP,
                Recipient::Card => HEADER_PHYSICAL,
                Recipient::Another => 0,
            };
        let mut bytes = status.to_le_bytes().to_vec();
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend_from_slice(&frame.bytes);
        bytes.extend(check_sequence(&frame.bytes));
        let at = usize::from(self.written) % size;
        // The largest ring always goes round.
        let goes_on = self.receive & RCR_WRAP != 0 && size < 0x1_0000;
        let split = if goes_on { bytes.len() } else { bytes.len().min(size - at) };
        let base = u64::from(self.ring);
        // Memory that is not there keeps nothing.
        let _ = memory.write_slice(&bytes[..split], GuestAddress(base + at as u64));
        let _ = memory.write_slice(&bytes[split..], GuestAddress(base));
        // Rings have at most 64 KiB.
        self.written = ((at + whole) % size) as u16;
        Received::Some
    }

    fn put_into_descriptors(&mut self, frame: &Frame, recipient: Recipient, memory: &GuestMemory) -> Received {
        let ring = self.receives;
        let mut bytes = frame.bytes.clone();
        bytes.extend(check_sequence(&frame.bytes));
        let mut second = 0;
        if self.plus & CPCR_VLAN != 0 && bytes[12..14] == [0x81, 0] {
            second = descriptor::TAVA | u32::from(u16::from_le_bytes([bytes[14], bytes[15]]));
            bytes.drain(12..16);
        }
        let mut used: Vec<Descriptor> = Vec::new();
        let (mut index, mut room) = (ring.next, 0);
        while room < bytes.len() {
            let next = ring.read(memory, index);
            if !next.is_owned() {
                return Received::Stalled;
            }
            room += (next.status & descriptor::SIZE) as usize;
            index = next.after(index);
            used.push(next);
            if room < bytes.len() && (index == ring.next || used.len() == usize::from(MOST_DESCRIPTORS)) {
                // No ring of this guest's is large enough.
                self.tally.errors = self.tally.errors.saturating_add(1);
                self.causes |= cause::RER;
                return Received::Some;
            }
        }
        let length = bytes.len() as u32;
        let kind = match recipient {
            Recipient::All => descriptor::BAR,
            Recipient::Group => descriptor::MAR,
            Recipient::Card => descriptor::PAM,
            Recipient::Another => 0,
        };
        let common = kind | length | if self.plus & CPCR_CHECKSUM != 0 { checked(frame) } else { 0 };
        let last = used.len() - 1;
        let mut rest = &bytes[..];
        for (number, next) in used.iter().enumerate() {
            let (part, after) = rest.split_at(rest.len().min((next.status & descriptor::SIZE) as usize));
            rest = after;
            let ends = if number == 0 { descriptor::FS } else { 0 } | if number == last { descriptor::LS } else { 0 };
            let status = next.status & descriptor::EOR | ends | common;
            // Memory that is not there keeps nothing. The guest owns it when all is there.
            let _ = memory.write_slice(part, GuestAddress(next.buffer));
            let _ = memory.write_obj(second, GuestAddress(next.at.wrapping_add(4)));
            let _ = memory.store(status, GuestAddress(next.at), Ordering::Release);
        }
        self.receives.next = index;
        Received::Some
    }
}

/// What a frame is, and which of its checksums are wrong.
fn checked(frame: &Frame) -> u32 {
    let Some(layout) = Layout::of(&frame.bytes).filter(|layout| layout.ethertype == ethertype::IPV4) else { return 0 };
    let header = usize::from(frame.bytes[layout.network] & 0xf) * 4;
    let header = frame.bytes.get(layout.network..layout.network + header).unwrap_or_default();
    let good = checksum::fold(checksum::sum(header)) == 0xffff;
    let more = frame.bytes.get(layout.network + 6).is_some_and(|flags| flags & 0x20 != 0);
    let intact = good && (frame.offload.checksum == Checksum::Good || segment::is_intact(&frame.bytes, &layout));
    let (kind, wrong) = match layout.transport {
        Some((TCP, _)) if !more => (descriptor::TCP, descriptor::TCPF),
        Some((UDP, _)) if !more => (descriptor::UDP, descriptor::UDPF),
        _ => return descriptor::IP | if good { 0 } else { descriptor::IPF },
    };
    kind | if good { 0 } else { descriptor::IPF } | if intact { 0 } else { wrong }
}
