//! The DP8390 and the memory around it, whatever bus the card is on (DP8390D data sheet).
//!
//! ```text
//!   data port ◄──► remote DMA ◄──► RAM ──► transmitter ──► cable
//!                                   ▲ ring, PSTART to PSTOP: CURR is the card's end, BNRY the guest's
//!                                   └── receiver ◄── cable
//! ```

use lodge_net::{Accepts, Cable, Frame, HEADER};

use super::registers::*;
use super::state::Ne2000State;
use crate::filter::{check_sequence, multicast_bit, pad};

/// Most frames that are thrown away in one piece of work.
const AT_ONCE: usize = 64;

impl Ne2000State {
    /// After the reset port was read: the registers are as they were, but for these.
    pub(super) fn reset(&mut self) {
        self.command = CR_STP | CR_ABORT;
        self.causes = cause::RST;
        (self.remote_count, self.remote_boundary) = (0, None);
    }

    fn peek(&self, prom: &[u8; PROM], address: u16) -> u8 {
        let address = address & DECODED;
        let ram = address.checked_sub(RAM_BASE).and_then(|at| self.ram.get(usize::from(at)));
        ram.or_else(|| prom.get(usize::from(address))).copied().unwrap_or(0xff)
    }

    fn poke(&mut self, address: u16, value: u8) {
        let at = (address & DECODED).checked_sub(RAM_BASE);
        if let Some(byte) = at.and_then(|at| self.ram.get_mut(usize::from(at))) {
            *byte = value;
        }
    }

    /// Remote DMA goes on by so many bytes.
    fn go_on(&mut self, bytes: u16) {
        self.remote_address = self.remote_address.wrapping_add(bytes);
        if self.remote_address == u16::from(self.stop) * PAGE {
            self.remote_address = u16::from(self.start) * PAGE;
        }
        self.remote_count = self.remote_count.saturating_sub(bytes);
        if self.remote_count == 0 {
            self.causes |= cause::RDC;
            if let Some(boundary) = self.remote_boundary.take() {
                self.boundary = boundary;
            }
        }
    }

    /// Whether the data port moves words.
    pub(super) fn moves_words(&self) -> bool {
        self.data_config & DCR_WTS != 0
    }

    /// Reads the data port once.
    pub(super) fn read_data(&mut self, prom: &[u8; PROM]) -> u16 {
        if self.remote_count == 0 {
            return 0xffff;
        }
        if self.moves_words() {
            let address = self.remote_address & !1;
            let word = u16::from_le_bytes([self.peek(prom, address), self.peek(prom, address | 1)]);
            self.go_on(2);
            word
        } else {
            let byte = self.peek(prom, self.remote_address);
            self.go_on(1);
            byte.into()
        }
    }

    /// Writes the data port once.
    pub(super) fn write_data(&mut self, value: u16) {
        if self.remote_count == 0 {
            return;
        }
        let [low, high] = value.to_le_bytes();
        if self.moves_words() {
            let address = self.remote_address & !1;
            self.poke(address, low);
            self.poke(address | 1, high);
            self.go_on(2);
        } else {
            self.poke(self.remote_address, low);
            self.go_on(1);
        }
    }

    /// Reads a register; `realtek` is whether it is an RTL8029AS.
    pub(super) fn read(&mut self, offset: u16, realtek: bool) -> u8 {
        if offset == CR {
            return self.command;
        }
        let [current_low, current_high] = (u16::from(self.current) * PAGE).to_le_bytes();
        match (self.command >> CR_PAGE, offset) {
            (0, 0x1) => current_low,
            (0, 0x2) => current_high,
            (0, 0x3) => self.boundary,
            (0, 0x4) => self.transmit_status,
            // Collisions.
            (0, 0x5) => 0,
            (0, 0x6) => {
                let byte = self.fifo[usize::from(self.fifo_at % 8)];
                self.fifo_at = (self.fifo_at + 1) % 8;
                byte
            }
            (0, 0x7) => self.causes,
            (0, 0x8) => self.remote_address.to_le_bytes()[0],
            (0, 0x9) => self.remote_address.to_le_bytes()[1],
            (0, 0xa | 0xb) if realtek => ID[usize::from(offset - 0xa)],
            (0, 0xa | 0xb) => 0xff,
            (0, 0xc) => self.receive_status,
            // Frames badly aligned, with wrong check sequences, missed. Reading clears a counter.
            (0, 0xf) => std::mem::take(&mut self.missed),
            (0, _) => 0,
            (1, 0x1..=0x6) => self.address[usize::from(offset - 1)],
            (1, 0x7) => self.current,
            (1, _) => self.groups[usize::from(offset & 7)],
            (2, 0x1) => self.start,
            (2, 0x2) => self.stop,
            (2, 0x4) => self.transmit_page,
            (2, 0xc) => self.receive_config | 0xc0,
            (2, 0xd) => self.transmit_config | 0xe0,
            (2, 0xe) => self.data_config | 0x80,
            (2, 0xf) => self.mask | 0x80,
            (3, _) if realtek => match offset {
                0x1 => self.eeprom_command,
                0x5 => CONFIG2,
                0x6 => self.config3,
                0xe | 0xf => ID_PAGE_3[usize::from(offset - 0xe)],
                _ => 0,
            },
            _ => 0xff,
        }
    }

    /// Writes a register; whether the thread has to know.
    pub(super) fn write(&mut self, offset: u16, value: u8, realtek: bool) -> bool {
        let page = self.command >> CR_PAGE;
        if offset == CR {
            let before = self.command;
            self.write_command(value);
            return (before ^ self.command) & (CR_STP | CR_TXP) != 0;
        }
        let with = |word: u16, high: bool| {
            let [a, b] = word.to_le_bytes();
            u16::from_le_bytes(if high { [a, value] } else { [value, b] })
        };
        match (page, offset) {
            (0, 0x1) => self.start = value,
            (0, 0x2) => self.stop = value,
            (0, 0x3) => self.boundary = value,
            (0, 0x4) => self.transmit_page = value,
            (0, 0x5 | 0x6) => self.transmit_count = with(self.transmit_count, offset == 0x6),
            // That it is reset ends with the start.
            (0, 0x7) => self.causes &= !(value & !cause::RST),
            (0, 0x8 | 0x9) => self.remote_address = with(self.remote_address, offset == 0x9),
            (0, 0xa | 0xb) => self.remote_count = with(self.remote_count, offset == 0xb),
            (0, 0xc) => self.receive_config = value & 0x3f,
            (0, 0xd) => self.transmit_config = value & 0x1f,
            (0, 0xe) => self.data_config = value & 0x7f,
            (0, 0xf) => self.mask = value & 0x7f,
            (1, 0x1..=0x6) => self.address[usize::from(offset - 1)] = value,
            (1, 0x7) => self.current = value,
            (1, _) => self.groups[usize::from(offset & 7)] = value,
            (3, 0x1) if realtek => self.eeprom_command = value & EE_MODE,
            // Configuration is written when that is enabled.
            (3, 0x6) if realtek && self.eeprom_command == EE_MODE => self.config3 = value,
            _ => {}
        }
        // The ring, what is listened to, and what was seen of it.
        matches!((page, offset), (0, 0x1 | 0x2 | 0x3 | 0x7 | 0xc | 0xd) | (1, 0x7))
    }

    fn write_command(&mut self, value: u8) {
        // What is to be sent is sent, whatever is written.
        self.command = value | self.command & CR_TXP;
        if value & CR_STP != 0 {
            self.causes |= cause::RST;
            return;
        }
        if value & CR_STA != 0 {
            self.causes &= !cause::RST;
        }
        match value & CR_RD {
            CR_SEND => {
                let at = u16::from(self.boundary) * PAGE;
                // A packet is not in the PROM.
                let [next, low, high] = [1, 2, 3].map(|n| self.peek(&[0xff; PROM], at | n));
                self.remote_address = at;
                self.remote_count = u16::from_le_bytes([low, high]);
                self.remote_boundary = Some(next);
            }
            CR_READ | CR_WRITE => self.remote_boundary = None,
            _ => {
                self.remote_boundary = None;
                return;
            }
        }
        if self.remote_count == 0 {
            self.causes |= cause::RDC;
        }
    }

    /// Does a piece of work of the transmitter; whether there may be more at once.
    pub(super) fn transmit(&mut self, cable: &Cable) -> bool {
        if self.command & CR_TXP == 0 || self.command & CR_STP != 0 {
            return false;
        }
        let length = usize::from(self.transmit_count);
        let at = u16::from(self.transmit_page) * PAGE;
        let extra = if self.transmit_config & TCR_CRC != 0 { 4 } else { 0 };
        if length < HEADER + extra || length > LONGEST + extra {
            self.sent(TSR_ABT);
            return true;
        }
        let none = [0xff; PROM];
        let mut bytes: Vec<u8> = (0..length as u16).map(|n| self.peek(&none, at.wrapping_add(n))).collect();
        if self.transmit_config & TCR_LB != 0 {
            self.loop_back(&bytes);
            return true;
        }
        bytes.truncate(length - extra);
        pad(&mut bytes);
        // Without room it stays where it is.
        if cable.send(Frame::plain(bytes)).is_err() {
            return false;
        }
        self.sent(TSR_PTX);
        true
    }

    fn sent(&mut self, status: u8) {
        self.command &= !CR_TXP;
        self.transmit_status = status;
        self.causes |= if status & TSR_ABT != 0 { cause::TXE } else { cause::PTX };
    }

    /// What a packet in loopback comes to: nothing is written to memory, all is in registers (12.0, "loopback
    /// diagnostics"; application note AN-937, section 6).
    fn loop_back(&mut self, bytes: &[u8]) {
        let has_sequence = self.transmit_config & TCR_CRC != 0;
        let (data, sequence) = match bytes.split_last_chunk::<4>() {
            Some((data, sequence)) if has_sequence => (data, *sequence),
            _ => (bytes, check_sequence(bytes)),
        };
        let recipient = self.recipient(bytes);
        // A check sequence that the card itself makes is wrong, as one circuit cannot both make and look at it.
        let wrong = !has_sequence || sequence != check_sequence(data);
        let group = if bytes[0] & 1 != 0 { RSR_PHY } else { 0 };
        self.receive_status = match recipient {
            true if wrong => RSR_CRC | group,
            true => RSR_PRX | group,
            false => RSR_PRX,
        };
        // In modes 1 and 2 nobody listens to carrier or heartbeat.
        let lost = [0, TSR_CRS | TSR_CDH, TSR_CDH, 0][usize::from(self.transmit_config >> 1 & 3)];
        self.sent(TSR_PTX | lost);
        if recipient && wrong {
            self.causes |= cause::RXE;
        }
        let [low, high] = ((data.len() + sequence.len()) as u16).to_le_bytes();
        let [a, b, c, d] = sequence;
        self.fifo = [low, high, high, data.last().copied().unwrap_or(0), a, b, c, d];
        self.fifo_at = 0;
    }

    /// Whether a frame is for this card.
    fn recipient(&self, bytes: &[u8]) -> bool {
        let Some(address) = bytes.first_chunk::<6>() else { return false };
        if *address == [0xff; 6] {
            self.receive_config & RCR_AB != 0
        } else if address[0] & 1 != 0 {
            let bit = multicast_bit(address);
            self.receive_config & RCR_AM != 0 && self.groups[bit as usize >> 3] >> (bit & 7) & 1 != 0
        } else {
            self.receive_config & RCR_PRO != 0 || *address == self.address
        }
    }

    /// Bytes of the ring, and of it those that are free.
    fn room(&self) -> (usize, usize) {
        let [start, stop, current, boundary] =
            [self.start, self.stop, self.current, self.boundary].map(|page| usize::from(page) * usize::from(PAGE));
        let size = stop.saturating_sub(start);
        // At the same place the ring is empty.
        let free = if current < boundary { boundary - current } else { size.saturating_sub(current - boundary) };
        (size, free.min(size))
    }

    /// Whether there are frames in the ring. Some drivers have BNRY where the next frame is, most a page before.
    fn has_unread(&self) -> bool {
        let next = if self.boundary.wrapping_add(1) == self.stop { self.start } else { self.boundary.wrapping_add(1) };
        self.current != self.boundary && self.current != next
    }

    /// Does a piece of work of the receiver; whether there may be more at once.
    pub(super) fn receive(&mut self, cable: &Cable) -> bool {
        if self.command & CR_STP != 0 || self.transmit_config & TCR_LB != 0 {
            // What a card does not listen to is lost, and does not come later.
            self.waiting = None;
            let lost = (0..AT_ONCE).take_while(|_| cable.receive(Accepts::default()).is_some()).count();
            return lost == AT_ONCE;
        }
        if self.has_unread() {
            // Drivers leave frames in the ring and say that they have seen all (Linux's does after ten): on a wire the next
            // frame tells them, or that there was no room for it. Here it may be waiting for that room.
            self.causes |= cause::PRX;
        }
        let waiting = self.waiting.take().map(Frame::from);
        // A frame stays at the cable while there is no room for the longest.
        let longest = (LONGEST + 8).next_multiple_of(PAGE.into());
        if waiting.is_none() && self.room().1 <= longest && self.room().0 > longest {
            return false;
        }
        let Some(mut frame) = waiting.or_else(|| cable.receive(Accepts::default())) else { return false };
        pad(&mut frame.bytes);
        if !self.recipient(&frame.bytes) || frame.bytes.len() > LONGEST + 4 {
            return true;
        }
        if self.receive_config & RCR_MON != 0 {
            self.missed = self.missed.saturating_add(1);
            if self.missed >= 0x80 {
                self.causes |= cause::CNT;
            }
            return true;
        }
        // Header, frame, check sequence.
        let whole = (4 + frame.bytes.len() + 4).next_multiple_of(PAGE.into());
        let (size, free) = self.room();
        if size != 0 && whole >= size {
            return true;
        }
        // A ring that was filled to the last page would be an empty one.
        if whole >= free {
            self.waiting = Some(frame.into());
            return false;
        }
        self.put(&frame.bytes, (whole / usize::from(PAGE)) as u8);
        true
    }

    /// Puts a frame into so many pages of the ring, which has them.
    fn put(&mut self, frame: &[u8], pages: u8) {
        let status = RSR_PRX | if frame[0] & 1 != 0 { RSR_PHY } else { 0 };
        let after = |page: u16| if page == u16::from(self.stop) { u16::from(self.start) } else { page };
        let (mut page, mut last) = (u16::from(self.current), u16::from(self.current));
        for _ in 0..pages {
            last = after(last + 1);
        }
        let [low, high] = ((frame.len() + 4) as u16).to_le_bytes();
        let mut bytes = vec![status, last as u8, low, high];
        bytes.extend_from_slice(frame);
        bytes.extend(check_sequence(frame));
        let mut places = Vec::with_capacity(pages.into());
        for _ in 0..pages {
            places.push(page);
            page = after(page + 1);
        }
        for (place, part) in places.into_iter().zip(bytes.chunks(PAGE.into())) {
            for (at, byte) in (0..).zip(part) {
                self.poke((place & 0xff) * PAGE + at, *byte);
            }
        }
        self.current = last as u8;
        self.receive_status = status;
        self.causes |= cause::PRX;
    }
}
