//! The transmitter of the 82540EM (317453, sections 3.3 and 3.5).
//!
//! ```text
//!   TDH ──► legacy or data descriptor: bytes ──► ... ──EOP──► frame ──► cable, or held until that has room
//!      └──► context descriptor: where checksums are, how to cut
//! ```

use lodge_engine_api::GuestMemory;
use lodge_net::{Cable, Checksum, Frame, HEADER, LARGEST, Offload, Segmentation, checksum, segment};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use super::state::{ContextState, E1000State, PartialState, TransmitState};
use crate::filter::pad;

/// Most descriptors that are read in one piece of work.
const AT_ONCE: u32 = 64;
/// Kinds of descriptors that are not legacy (3.3).
const CONTEXT: u8 = 0;
const DATA: u8 = 1;
/// Status of a descriptor: done.
const DONE: u8 = 1 << 0;

/// A descriptor, as far as all kinds have the same fields.
struct Descriptor([u8; DESCRIPTOR as usize]);

impl Descriptor {
    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn address(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn command(&self) -> u8 {
        self.0[11]
    }

    /// `None`: legacy.
    fn kind(&self) -> Option<u8> {
        (self.command() & command::DEXT != 0).then_some(self.0[10] >> 4)
    }

    /// Bytes of a data descriptor.
    fn length(&self) -> usize {
        usize::from(self.half(8)) | usize::from(self.0[10] & 0xf) << 16
    }

    fn context(&self) -> ContextState {
        ContextState {
            ip: (self.0[0], self.0[1], self.half(2)),
            transport: (self.0[4], self.0[5], self.half(6)),
            header: self.0[13],
            size: self.half(14),
            tcp: self.command() & command::TCP != 0,
            ipv4: self.command() & command::IP != 0,
        }
    }
}

/// Puts the sum from `start` to `last`, or to the end where that is 0, at `place`. Nothing happens outside of the frame.
fn put_sum(bytes: &mut [u8], (start, place, last): (usize, usize, usize), finish: impl FnOnce(u64) -> u16) {
    let end = if last == 0 { bytes.len() } else { (last + 1).min(bytes.len()) };
    if place + 2 > bytes.len() || start >= end {
        return;
    }
    let value = finish(checksum::sum(&bytes[start..end]));
    bytes[place..place + 2].copy_from_slice(&value.to_be_bytes());
}

impl PartialState {
    fn add(&mut self, memory: &GuestMemory, address: u64, length: usize) {
        let from = self.bytes.len();
        if self.bad || from + length > LARGEST {
            self.bad = true;
            self.bytes.clear();
            return;
        }
        self.bytes.resize(from + length, 0);
        self.bad = memory.read_slice(&mut self.bytes[from..], GuestAddress(address)).is_err();
    }
}

impl TransmitState {
    /// The frame that has been put together, as it is to be sent.
    fn finish(&mut self, vlan_type: u16, has_sequence: bool) -> Option<Frame> {
        let PartialState { mut bytes, bad, segmented, options, checksum, tag, .. } = std::mem::take(&mut self.partial);
        if has_sequence {
            bytes.truncate(bytes.len().saturating_sub(4));
        }
        // With a tag it may not be larger than frames are.
        if bad || bytes.len() < HEADER || bytes.len() + 4 > LARGEST {
            return None;
        }
        let context = if segmented { self.segmentation } else { self.context };
        let mut shift = 0;
        if let Some(tag) = tag {
            let [a, b] = vlan_type.to_be_bytes();
            let [c, d] = tag.to_be_bytes();
            bytes.splice(12..12, [a, b, c, d]);
            shift = 4;
        }
        let shifted = |(start, place, last): (u8, u8, u16)| {
            let last = if last == 0 { 0 } else { usize::from(last) + shift };
            (usize::from(start) + shift, usize::from(place) + shift, last)
        };
        let mut offload = Offload::default();
        if segmented {
            set_length(&mut bytes, usize::from(context.ip.0) + shift, context.ipv4);
            // What is not TCP goes as it is.
            offload.segmentation = context.tcp.then_some(Segmentation { size: context.size, congestion: false });
        }
        if options & command::IXSM != 0 {
            put_sum(&mut bytes, shifted(context.ip), |sum| !checksum::fold(sum));
        }
        let transport = match checksum {
            Some((start, place)) => Some(shifted((start, place, 0))),
            None => (options & command::TXSM != 0).then(|| shifted(context.transport)),
        };
        if let Some((start, place, last)) = transport {
            if last == 0 && place >= start && place + 2 <= bytes.len() {
                // At most 255 and a tag.
                offload.checksum = Checksum::Missing { start: start as u16, offset: (place - start) as u16 };
            } else {
                put_sum(&mut bytes, (start, place, last), checksum::finish);
            }
        }
        if self.control & TCTL_PSP != 0 {
            // Padding counts nothing in a sum.
            pad(&mut bytes);
        }
        Some(Frame { bytes, offload })
    }
}

/// Makes the length in an IP header at `at` that of the frame: drivers leave it to the card (3.5).
fn set_length(bytes: &mut [u8], at: usize, ipv4: bool) {
    let Some(packet) = bytes.len().checked_sub(at) else { return };
    let (place, length) = if ipv4 { (at + 2, packet) } else { (at + 4, packet.saturating_sub(40)) };
    if let (Some(room), Ok(length)) = (bytes.get_mut(place..place + 2), u16::try_from(length)) {
        room.copy_from_slice(&length.to_be_bytes());
    }
}

impl E1000State {
    /// Does a piece of work; whether there may be more at once.
    pub(super) fn transmit(&mut self, memory: &GuestMemory, cable: &Cable) -> bool {
        if let Some(frame) = self.transmit.held.take()
            && !self.send(frame.into(), cable)
        {
            return false;
        }
        // What comes back has to be taken first.
        if self.transmit.control & TCTL_EN == 0 || self.is_looped() && !self.receive.waiting.is_empty() {
            return false;
        }
        let mut ready = self.transmit.ring.ready();
        if ready == 0 {
            return false;
        }
        for _ in 0..AT_ONCE.min(ready) {
            let sent = self.descriptor(memory, cable);
            ready -= 1;
            if sent {
                break;
            }
        }
        let threshold = 8 * (self.stored(TXDCTL) >> 25);
        if ready == 0 {
            self.causes |= cause::TXQE;
        }
        if threshold != 0 && ready <= threshold {
            self.causes |= cause::TXD_LOW;
        }
        ready != 0 && self.transmit.held.is_none()
    }

    /// Takes a descriptor; whether a frame has ended.
    fn descriptor(&mut self, memory: &GuestMemory, cable: &Cable) -> bool {
        let at = self.transmit.ring.at();
        let mut descriptor = Descriptor([0; DESCRIPTOR as usize]);
        // One that is not to be had is as good as one that says nothing.
        let _ = memory.read_slice(&mut descriptor.0, GuestAddress(at));
        let flags = descriptor.command();
        let transmit = &mut self.transmit;
        let mut ends = flags & command::EOP != 0;
        match descriptor.kind() {
            Some(CONTEXT) => {
                ends = false;
                let segments = flags & command::TSE != 0;
                let context = if segments { &mut transmit.segmentation } else { &mut transmit.context };
                *context = descriptor.context();
            }
            Some(DATA) => {
                if !transmit.partial.begun {
                    transmit.partial.options = descriptor.0[13];
                    transmit.partial.segmented = flags & command::TSE != 0;
                }
                transmit.partial.add(memory, descriptor.address(), descriptor.length());
            }
            Some(_) => ends = false,
            None => {
                transmit.partial.add(memory, descriptor.address(), descriptor.half(8).into());
                if flags & command::IC != 0 {
                    transmit.partial.checksum = Some((descriptor.0[13], descriptor.0[10]));
                }
            }
        }
        let tags = self.control & CTRL_VME != 0 && flags & command::VLE != 0;
        if descriptor.kind() != Some(CONTEXT) {
            self.transmit.partial.begun = true;
            if tags {
                self.transmit.partial.tag = Some(descriptor.half(14));
            }
        }
        if ends {
            let frame = self.transmit.finish(self.vlan_type, flags & command::IFCS == 0);
            if let Some(frame) = frame {
                self.count(&frame);
                self.send(frame, cable);
            }
        }
        if flags & command::RS != 0 {
            let status = descriptor.0[12] | DONE;
            // Memory that is not there keeps nothing.
            let _ = memory.write_obj(status, GuestAddress(at.wrapping_add(12)));
            self.causes |= cause::TXDW;
        }
        self.transmit.ring.advance();
        ends
    }

    /// Sends a frame, or keeps it. Whether it is gone.
    fn send(&mut self, frame: Frame, cable: &Cable) -> bool {
        if self.is_looped() {
            let waiting = &mut self.receive.waiting;
            segment::prepare(frame, lodge_net::Accepts::default(), |part| waiting.push_back(part.into()));
            return true;
        }
        match cable.send(frame) {
            Ok(()) => true,
            Err(frame) => {
                self.transmit.held = Some(frame.into());
                false
            }
        }
    }

    /// What is sent comes back (13.4.22; 13.4.7.1).
    pub(super) fn is_looped(&self) -> bool {
        self.receive.control & RCTL_LBM != 0 || self.phy.is_looped()
    }

    fn count(&mut self, frame: &Frame) {
        /// Bytes of a check sequence.
        const SEQUENCE: usize = 4;
        let length = frame.bytes.len();
        let statistics = &mut self.statistics;
        let Some(Segmentation { size, .. }) = frame.offload.segmentation else {
            return statistics.sent(length + SEQUENCE, 1, &frame.bytes);
        };
        statistics.segmented();
        let header = usize::from(self.transmit.segmentation.header).min(length);
        let (data, size) = (length - header, usize::from(size).max(1));
        let whole = data / size;
        if whole > 0 {
            // At most as many as a frame has bytes.
            statistics.sent(header + size + SEQUENCE, whole as u32, &frame.bytes);
        }
        if data % size != 0 {
            statistics.sent(header + data % size + SEQUENCE, 1, &frame.bytes);
        }
    }
}
