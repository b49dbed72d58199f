//! A server of files by TFTP (RFC 1350) with its options (RFC 2347): `blksize` (RFC 2348), `timeout` and `tsize` (RFC 2349),
//! `windowsize` (RFC 7440).
//!
//! ```text
//!   RRQ ──► options asked? ──yes──► OACK ──ACK 0──┐
//!                │ no                             ▼
//!                └───────────────────────► a window of DATA ──ACK n──► the window behind n ── ... ──ACK of the last──► end
//! ```
//!
//! [`Tftp`] holds the transfers; each is from a port of its own ([`Tftp::takes`]), in `transfer`. `request` reads what clients
//! ask.

use std::net::SocketAddr;
use std::time::Instant;

use crate::folder::{Folder, FolderError};
use request::{Malformed, Request};
use transfer::{Progress, Transfer};

mod request;
#[cfg(test)]
mod tests;
mod transfer;

/// The port that requests go to.
const PORT: u16 = 69;
/// The ports that transfers are from: few of them, for what a guest sends there doesn't get to the host.
const FIRST_PORT: u16 = 57_344;
const PORTS: u16 = 1024;
/// The longest text of an error: the packet is to fit the buffers of clients that know no option.
const LONGEST_TEXT: usize = 400;
/// Transfers at a time.
const MOST: usize = 16;

/// Kinds of packets (RFC 1350, section 5; RFC 2347).
mod opcode {
    pub(super) const READ: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const ACKNOWLEDGE: u16 = 4;
    pub(super) const ERROR: u16 = 5;
    pub(super) const ACKNOWLEDGE_OPTIONS: u16 = 6;
}

/// What goes wrong (RFC 1350, appendix).
mod code {
    pub(super) const OTHER: u16 = 0;
    pub(super) const NOT_FOUND: u16 = 1;
    pub(super) const ACCESS: u16 = 2;
    pub(super) const ILLEGAL: u16 = 4;
    pub(super) const UNKNOWN_TRANSFER: u16 = 5;
}

/// A server by TFTP.
pub struct Tftp {
    // Configuration.
    folder: Folder,

    // Volatile.
    transfers: Vec<Transfer>,
    /// The port that is looked at next for a transfer.
    next: u16,
}

impl Tftp {
    /// A server of the files in a folder.
    pub fn new(folder: Folder) -> Self {
        Self { folder, transfers: Vec::new(), next: 0 }
    }

    /// Whether datagrams to one of the server's ports belong here.
    pub fn takes(port: u16) -> bool {
        port == PORT || (FIRST_PORT..FIRST_PORT + PORTS).contains(&port)
    }

    /// How many transfers there are.
    pub fn load(&self) -> usize {
        self.transfers.len()
    }

    /// When [`Self::time_passed`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.transfers.iter().map(Transfer::deadline).min()
    }

    /// Takes a datagram that a client sent to one of the server's ports (others' are left alone), and sends what is to be answered: from which port, to
    /// whom, what.
    pub fn packet(
        &mut self,
        client: SocketAddr,
        port: u16,
        data: &[u8],
        now: Instant,
        send: &mut impl FnMut(u16, SocketAddr, &[u8]),
    ) {
        let Some((kind, rest)) = data.split_first_chunk() else { return };
        let kind = u16::from_be_bytes(*kind);
        if !Self::takes(port) {
            return;
        }
        if port == PORT {
            match kind {
                opcode::READ => self.read(client, rest, now, send),
                opcode::WRITE => send(port, client, &error(code::ACCESS, "nothing can be written here")),
                // An error is never answered: the answer might be answered in turn.
                opcode::ERROR => {}
                _ => send(port, client, &error(code::ILLEGAL, "a transfer begins with a request")),
            }
            return;
        }
        let at = self.transfers.iter().position(|transfer| transfer.port == port && transfer.client == client);
        let Some(at) = at else {
            if kind != opcode::ERROR {
                send(port, client, &error(code::UNKNOWN_TRANSFER, "there is no such transfer"));
            }
            return;
        };
        let progress = match (kind, rest) {
            (opcode::ACKNOWLEDGE, [high, low, ..]) => {
                self.transfers[at].acknowledged(u16::from_be_bytes([*high, *low]), now, send)
            }
            // Clients that only want the size end it so (RFC 2349); some end it so when they have enough.
            (opcode::ERROR, _) => Progress::Given,
            _ => {
                send(port, client, &error(code::ILLEGAL, "only acknowledgements are expected"));
                Progress::Given
            }
        };
        self.settle(at, progress);
    }

    /// Sends again what was not acknowledged in time, and gives up what was not for long.
    pub fn time_passed(&mut self, now: Instant, send: &mut impl FnMut(u16, SocketAddr, &[u8])) {
        for at in (0..self.transfers.len()).rev() {
            if self.transfers[at].deadline() <= now {
                let progress = self.transfers[at].late(now, send);
                self.settle(at, progress);
            }
        }
    }

    /// Begins a transfer.
    fn read(&mut self, client: SocketAddr, rest: &[u8], now: Instant, send: &mut impl FnMut(u16, SocketAddr, &[u8])) {
        let request = match Request::read(rest, client.is_ipv6()) {
            Ok(request) => request,
            Err(Malformed(why)) => {
                send(PORT, client, &error(code::ILLEGAL, why));
                return;
            }
        };
        if let Some(at) = self.transfers.iter().position(|transfer| transfer.client == client) {
            // The client may not have got the answer yet, and would take one from another port for somebody else's.
            if self.transfers[at].is_asked_again(&request, now, send) {
                return;
            }
            self.transfers.swap_remove(at);
        }
        let file = match self.folder.file(&request.path) {
            Ok(file) => file,
            Err(reason) => {
                let code = match reason {
                    FolderError::Missing { .. } => code::NOT_FOUND,
                    FolderError::Outside { .. } | FolderError::NotFile { .. } | FolderError::Malformed { .. } => {
                        code::ACCESS
                    }
                    _ => code::OTHER,
                };
                self.folder.report_refused("TFTP", &reason);
                send(PORT, client, &error(code, &reason.to_string()));
                return;
            }
        };
        if self.transfers.len() >= MOST {
            let idle = (0..self.transfers.len()).min_by_key(|at| self.transfers[*at].heard());
            if let Some(at) = idle {
                let evicted = self.transfers.swap_remove(at);
                send(evicted.port, evicted.client, &error(code::OTHER, "there are too many transfers"));
            }
        }
        let port = self.free_port();
        let mut transfer = Transfer::new(client, port, request, file, now);
        let progress = transfer.begin(now, send);
        self.transfers.push(transfer);
        self.settle(self.transfers.len() - 1, progress);
    }

    /// Lets go of a transfer that has ended.
    fn settle(&mut self, at: usize, progress: Progress) {
        match progress {
            Progress::Goes => return,
            Progress::Done => {
                let transfer = &self.transfers[at];
                self.folder.report_served("TFTP", &transfer.file, transfer.file.size());
            }
            Progress::Given => {}
            Progress::Broken(reason) => self.folder.report_broken("TFTP", &self.transfers[at].file, &reason),
        }
        self.transfers.swap_remove(at);
    }

    /// A port that no transfer is from; there are more ports than transfers. They are used in turn, so that what is left on
    /// the way from one transfer doesn't meet the next.
    fn free_port(&mut self) -> u16 {
        loop {
            let port = FIRST_PORT + self.next;
            self.next = (self.next + 1) % PORTS;
            if self.transfers.iter().all(|transfer| transfer.port != port) {
                return port;
            }
        }
    }
}

/// An error's packet.
fn error(code: u16, text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(LONGEST_TEXT)];
    let mut packet = Vec::with_capacity(text.len() + 5);
    packet.extend(opcode::ERROR.to_be_bytes());
    packet.extend(code.to_be_bytes());
    packet.extend(text.bytes().filter(|byte| *byte != 0));
    packet.push(0);
    packet
}
