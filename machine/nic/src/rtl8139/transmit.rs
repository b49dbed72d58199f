//! The transmitter of the RTL8139C+, in both modes.
//!
//! A frame for which the network has no room stays where it is: its descriptors remain the card's, and are read again.

use std::sync::atomic::Ordering;

use lodge_engine_api::GuestMemory;
use lodge_net::segment::{self, Layout, TCP, UDP, ethertype};
use lodge_net::{Accepts, Cable, Checksum, Frame, HEADER, LARGEST, Offload, Segmentation, checksum};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use super::state::{RingState, Rtl8139State};
use crate::filter::pad;

/// A descriptor of C+ mode.
pub(super) struct Descriptor {
    pub at: u64,
    pub status: u32,
    pub second: u32,
    pub buffer: u64,
}

impl RingState {
    /// Reads the descriptor at `index`. Memory that is not there holds none that are the card's.
    pub(super) fn read(&self, memory: &GuestMemory, index: u8) -> Descriptor {
        let at = self.base.wrapping_add(u64::from(index) * DESCRIPTOR);
        // Whoever owns it is known before the rest is read.
        let status: u32 = memory.load(GuestAddress(at), Ordering::Acquire).unwrap_or(0);
        let second: u32 = memory.read_obj(GuestAddress(at.wrapping_add(4))).unwrap_or(0);
        let buffer: u64 = memory.read_obj(GuestAddress(at.wrapping_add(8))).unwrap_or(0);
        Descriptor { at, status, second, buffer }
    }
}

impl Descriptor {
    pub(super) fn is_owned(&self) -> bool {
        self.status & descriptor::OWN != 0
    }

    /// The index behind `index`.
    pub(super) fn after(&self, index: u8) -> u8 {
        if self.status & descriptor::EOR != 0 { 0 } else { (index + 1) % MOST_DESCRIPTORS }
    }
}

impl Rtl8139State {
    /// Does a piece of work; whether there may be more at once.
    pub(super) fn send(&mut self, memory: &GuestMemory, cable: &Cable) -> bool {
        // What comes back has to be taken first.
        if self.command & CR_TE == 0 || self.is_looped() && !self.waiting.is_empty() {
            return false;
        }
        if !self.sends_plus() {
            return self.send_one_of_four(memory, cable);
        }
        // High priority goes first.
        [1, 0].into_iter().any(|number| self.sends[number].polled && self.send_from_ring(number, memory, cable))
    }

    fn send_one_of_four(&mut self, memory: &GuestMemory, cable: &Cable) -> bool {
        let number = usize::from(self.next);
        let status = self.status[number];
        if status & TSD_OWN != 0 {
            return false;
        }
        let mut bytes = vec![0; (status & TSD_SIZE) as usize];
        let there = memory.read_slice(&mut bytes, GuestAddress(self.addresses[number].into())).is_ok();
        if there && !self.pass(Frame::plain(bytes), cable) {
            return false;
        }
        self.status[number] = status | TSD_OWN | TSD_TOK;
        self.next = (self.next + 1) % 4;
        self.causes |= cause::TOK;
        self.tally.sent += 1;
        true
    }

    /// Sends a frame, without the check sequence that may be in it. Whether it is gone.
    fn pass(&mut self, mut frame: Frame, cable: &Cable) -> bool {
        if self.transmit & TCR_CRC != 0 {
            frame.bytes.truncate(frame.bytes.len().saturating_sub(4));
        }
        if frame.bytes.len() < HEADER {
            return true;
        }
        pad(&mut frame.bytes);
        if self.is_looped() {
            segment::prepare(frame, Accepts::default(), |part| self.waiting.push_back(part.into()));
            return true;
        }
        cable.send(frame).is_ok()
    }

    fn send_from_ring(&mut self, number: usize, memory: &GuestMemory, cable: &Cable) -> bool {
        let ring = self.sends[number];
        let mut used: Vec<Descriptor> = Vec::new();
        let mut bytes = Vec::new();
        let (mut index, mut bad) = (ring.next, false);
        loop {
            let next = ring.read(memory, index);
            if !next.is_owned() {
                // The rest of a frame comes with the next poll.
                self.sends[number].polled = false;
                if used.is_empty() {
                    self.causes |= cause::TDU;
                }
                return false;
            }
            let (from, length) = (bytes.len(), (next.status & 0xffff) as usize);
            bad |= from + length > LARGEST - 4;
            if !bad {
                bytes.resize(from + length, 0);
                bad = memory.read_slice(&mut bytes[from..], GuestAddress(next.buffer)).is_err();
            }
            index = next.after(index);
            let ends = next.status & descriptor::LS != 0;
            used.push(next);
            // A ring in which no frame ends goes round once.
            let is_round = index == ring.next || used.len() == usize::from(MOST_DESCRIPTORS);
            bad |= !ends && is_round;
            if ends || is_round {
                break;
            }
        }
        if !bad && !self.pass(offloaded(bytes, &used[0]), cable) {
            return false;
        }
        for done in &used {
            // Memory that is not there keeps nothing.
            let _ = memory.store(done.status & !descriptor::OWN, GuestAddress(done.at), Ordering::Release);
        }
        self.sends[number].next = index;
        self.causes |= cause::TOK;
        self.tally.sent += 1;
        true
    }
}

/// A frame with what its first descriptor says is to be done to it.
fn offloaded(mut bytes: Vec<u8>, first: &Descriptor) -> Frame {
    let mut offload = Offload::default();
    let status = first.status;
    let large = status & descriptor::LGSEN != 0;
    let wants = |bit: u32| large || status & bit != 0;
    if let Some(layout) = Layout::of(&bytes).filter(|layout| layout.ethertype == ethertype::IPV4) {
        if wants(descriptor::IPCS) {
            let header = usize::from(bytes[layout.network] & 0xf) * 4;
            if let Some(header) = bytes.get_mut(layout.network..layout.network + header) {
                header[10..12].fill(0);
                let sum = !checksum::fold(checksum::sum(header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let place = match layout.transport {
            Some((TCP, at)) if wants(descriptor::TCPCS) => Some((TCP, at, 16)),
            Some((UDP, at)) if wants(descriptor::UDPCS) => Some((UDP, at, 6)),
            _ => None,
        };
        if let Some((protocol, at, offset)) = place
            && at + offset + 2 <= layout.end
        {
            let addresses = &bytes[layout.network + 12..layout.network + 20];
            let pseudo = checksum::fold(checksum::pseudo_header(addresses, &[], protocol, layout.end - at));
            bytes[at + offset..][..2].copy_from_slice(&pseudo.to_be_bytes());
            // Within an IPv4 header and two tags of the frame's start.
            offload.checksum = Checksum::Missing { start: at as u16, offset: offset as u16 };
            // What is behind the packet is not summed up.
            bytes.truncate(layout.end);
        }
    }
    if large {
        let size = (status >> descriptor::MSS_SHIFT & descriptor::MSS) as u16;
        offload.segmentation = Some(Segmentation { size, congestion: false });
    }
    if first.second & descriptor::TAGC != 0 && bytes.len() >= HEADER {
        // The tag is in the order of the wire.
        let [a, b, ..] = first.second.to_le_bytes();
        bytes.splice(12..12, [0x81, 0, a, b]);
        if let Checksum::Missing { start, .. } = &mut offload.checksum {
            *start += 4;
        }
    }
    Frame { bytes, offload }
}
