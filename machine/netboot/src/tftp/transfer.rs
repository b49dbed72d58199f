//! One transfer.
//!
//! Blocks are numbered from 1 without an end here; on the wire the number rolls over to 0, so that a file may have more than
//! 65,535 of them.
//!
//! An acknowledgement that comes a second time is not answered a second time: each of the two answers would be answered in
//! turn, until the end (the Sorcerer's Apprentice bug, RFC 1123, section 4.2.3.1). With a window of more than one block it may
//! be how a client says that the window's first block is lost (RFC 7440, section 4). If nothing new comes soon, the
//! window is sent again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::request::Request;
use super::{code, error, opcode};
use crate::folder::ServedFile;

/// How long an acknowledgement is waited for at first, if the client doesn't say.
const PATIENCE: Duration = Duration::from_secs(1);
/// It doubles so often while nothing comes.
const DOUBLINGS: u32 = 3;
/// How long something new is waited for when a client with a window acknowledges the same again: long enough for what is on
/// its way in a guest that is slow.
const HURRY: Duration = Duration::from_millis(20);
/// How often the same is sent before the client is given up: two minutes, for boot loaders that read on when their user wants.
const TRIES: u32 = 18;

/// How a transfer goes on.
#[must_use]
#[derive(Debug)]
pub(super) enum Progress {
    /// It goes on.
    Goes,
    /// The client has it all.
    Done,
    /// It was given up, by one side or the other.
    Given,
    /// The file can't be read any more.
    Broken(std::io::Error),
}

/// A file on its way.
pub(super) struct Transfer {
    // Configuration.
    pub(super) client: SocketAddr,
    /// The port that it is from.
    pub(super) port: u16,
    request: Request,
    pub(super) file: ServedFile,
    /// How many blocks there are: the last one is shorter than the others, and may be empty.
    blocks: u64,

    // Volatile.
    /// The client has the answer to its options, or asked for none.
    begun: bool,
    /// Blocks that the client has.
    acknowledged: u64,
    /// Blocks that were sent.
    sent: u64,
    /// How often nothing came in time.
    late: u32,
    /// When the client was heard of last.
    heard: Instant,
    /// When something was sent last.
    sent_at: Instant,
    deadline: Instant,
}

impl Transfer {
    pub(super) fn new(client: SocketAddr, port: u16, request: Request, file: ServedFile, now: Instant) -> Self {
        let blocks = file.size() / u64::from(request.block_size) + 1;
        let begun = request.options.is_empty();
        Self {
            client,
            port,
            request,
            file,
            blocks,
            begun,
            acknowledged: 0,
            sent: 0,
            late: 0,
            heard: now,
            sent_at: now,
            deadline: now,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Sends the first that there is to send.
    pub(super) fn begin(&mut self, now: Instant, send: &mut impl FnMut(u16, SocketAddr, &[u8])) -> Progress {
        self.send_window(now, send)
    }

    /// Whether a client's request is this one again; it is answered then if the client can't have the answer.
    pub(super) fn is_asked_again(
        &mut self,
        request: &Request,
        now: Instant,
        send: &mut impl FnMut(u16, SocketAddr, &[u8]),
    ) -> bool {
        if self.request != *request {
            return false;
        }
        if self.acknowledged == 0 && (!self.begun || self.request.options.is_empty()) {
            return matches!(self.send_window(now, send), Progress::Goes);
        }
        // It was on its way for long. One that comes when nothing else did is of a client that has started over.
        now.saturating_duration_since(self.heard) < PATIENCE
    }

    /// The client has all blocks up to this one.
    pub(super) fn acknowledged(
        &mut self,
        number: u16,
        now: Instant,
        send: &mut impl FnMut(u16, SocketAddr, &[u8]),
    ) -> Progress {
        let ahead = u64::from(number.wrapping_sub(self.acknowledged as u16));
        if !self.begun {
            // Only the options can be acknowledged, as block 0.
            if number != 0 {
                return Progress::Goes;
            }
            self.begun = true;
            self.moved(now);
            return self.send_window(now, send);
        }
        if ahead > self.sent - self.acknowledged {
            // What was acknowledged long ago, or was never sent.
            return Progress::Goes;
        }
        if ahead == 0 {
            self.heard = now;
            if self.request.window > 1 {
                self.late = 0;
                self.deadline = self.deadline.min(self.sent_at + HURRY);
            }
            return Progress::Goes;
        }
        self.acknowledged += ahead;
        self.moved(now);
        if self.acknowledged == self.blocks {
            return Progress::Done;
        }
        self.send_window(now, send)
    }

    /// Nothing came in time.
    pub(super) fn late(&mut self, now: Instant, send: &mut impl FnMut(u16, SocketAddr, &[u8])) -> Progress {
        self.late += 1;
        if self.late > TRIES {
            send(self.port, self.client, &error(code::OTHER, "the client does not answer"));
            return Progress::Given;
        }
        self.send_window(now, send)
    }

    /// The client has something new.
    fn moved(&mut self, now: Instant) {
        self.late = 0;
        self.heard = now;
    }

    /// Sends the answer to the options, or the blocks behind the last that was acknowledged.
    fn send_window(&mut self, now: Instant, send: &mut impl FnMut(u16, SocketAddr, &[u8])) -> Progress {
        self.sent_at = now;
        self.deadline = now + self.request.timeout.unwrap_or(PATIENCE * (1 << self.late.min(DOUBLINGS)));
        if !self.begun {
            let mut packet = opcode::ACKNOWLEDGE_OPTIONS.to_be_bytes().to_vec();
            packet.extend(self.request.answer(self.file.size()));
            send(self.port, self.client, &packet);
            return Progress::Goes;
        }
        let last = self.blocks.min(self.acknowledged + u64::from(self.request.window));
        let size = u64::from(self.request.block_size);
        let mut packet = Vec::with_capacity(4 + size as usize);
        for block in self.acknowledged + 1..=last {
            let offset = (block - 1) * size;
            let length = size.min(self.file.size() - offset) as usize;
            packet.clear();
            packet.extend(opcode::DATA.to_be_bytes());
            // It rolls over to 0.
            packet.extend((block as u16).to_be_bytes());
            packet.resize(4 + length, 0);
            if let Err(reason) = self.file.read_at(&mut packet[4..], offset) {
                send(self.port, self.client, &error(code::OTHER, &reason.to_string()));
                return Progress::Broken(reason);
            }
            send(self.port, self.client, &packet);
        }
        self.sent = self.sent.max(last);
        Progress::Goes
    }
}
