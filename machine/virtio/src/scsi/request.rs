//! Requests: a command to a logical unit, with its data (virtio 1.2 section 5.6.6.1).

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lodge_backend::Disk;
use lodge_storage::scsi::registers::code;
use lodge_storage::scsi::{Action, Sense};

use super::registers::*;
use super::{Address, Scsi};
use crate::queue::{Broken, Chain, VirtQueue};

/// Bytes that are moved at a time: few enough to stay in the host processor's cache.
const PIECE: u64 = 128 << 10;

/// A request with the sizes that the driver has set.
struct Request<'a> {
    chain: &'a Chain,
    command: Vec<u8>,
    /// Where data from the guest begin, and how many.
    out_at: u64,
    out: u64,
    /// Where data for the guest begin, and how many have room.
    in_at: u64,
    room: u64,
}

/// What a command came to.
enum Outcome {
    /// It went well, and so many bytes moved.
    Good(u64),
    /// It failed.
    Failed(Sense),
    /// There is no such target, or less room than data.
    Response(u8),
    /// The queue is to stop: it is begun anew when that goes on.
    Unfinished,
}

impl Scsi {
    /// Carries out what is in a queue for requests.
    pub(super) fn requests(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        let mut buffer = Vec::new();
        // A queue that is looked at for the first time has requests that someone may wait for.
        self.passes[usize::from(index - REQUESTS)].fetch_max(1, Ordering::AcqRel);
        queue.drain(|queue, chain| self.serve(queue, chain, &mut buffer))?;
        if !queue.is_stopping() {
            self.passes[usize::from(index - REQUESTS)].fetch_add(1, Ordering::AcqRel);
            if self.waits.load(Ordering::Acquire)
                && let Some(bell) = &self.volatile.lock().bell
            {
                bell.ring(CONTROL);
            }
        }
        Ok(())
    }

    /// Carries out one request and gives it back.
    fn serve(&self, queue: &mut VirtQueue, chain: &Chain, buffer: &mut Vec<u8>) -> Result<(), Broken> {
        let (cdb_size, sense_size) = {
            let state = &self.volatile.lock().state;
            (state.cdb_size as usize, u64::from(state.sense_size))
        };
        let (header, response) = ((REQUEST + cdb_size) as u64, RESPONSE as u64 + sense_size);
        let out = chain.readable.length().checked_sub(header).ok_or(Broken::Request)?;
        let room = chain.writable.length().checked_sub(response).ok_or(Broken::Request)?;
        let mut bytes = vec![0; header as usize];
        queue.read(chain, 0, &mut bytes)?;
        let command = bytes.split_off(REQUEST);
        let request = Request { chain, command, out_at: header, out, in_at: response, room };
        let outcome = self.carry_out(queue, &request, self.address(&bytes[..8]), buffer)?;
        let mut answer = vec![0; response as usize];
        let moved = match outcome {
            Outcome::Good(moved) => moved,
            Outcome::Failed(sense) => {
                let sense = sense.data(false);
                answer[..4].copy_from_slice(&(sense.len() as u32).to_le_bytes());
                answer[10] = CHECK_CONDITION;
                answer[RESPONSE..RESPONSE + sense.len()].copy_from_slice(&sense);
                0
            }
            Outcome::Response(response) => {
                answer[11] = response;
                0
            }
            Outcome::Unfinished => {
                queue.put_back();
                return Ok(());
            }
        };
        let residual = request.out.max(request.room).saturating_sub(moved);
        answer[4..8].copy_from_slice(&u32::try_from(residual).unwrap_or(u32::MAX).to_le_bytes());
        queue.write(chain, 0, &answer)?;
        let filled = if request.out == 0 { moved } else { 0 };
        queue.push(chain, response + filled)
    }

    fn carry_out(
        &self,
        queue: &VirtQueue,
        request: &Request<'_>,
        address: Address,
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, Broken> {
        let target = match address {
            Address::Unit(target) => target,
            Address::Other(target) => match request.command[0] {
                // Which there are, any unit tells (SPC-4 6.33).
                code::REPORT_LUNS => target,
                code::INQUIRY => {
                    // Nothing is connected there, nor could be.
                    let mut bytes = vec![0; 36];
                    (bytes[0], bytes[2], bytes[3], bytes[4]) = (0x7f, 0x05, 0x02, 31);
                    bytes.truncate(usize::from(u16::from_be_bytes([request.command[3], request.command[4]])));
                    return give(queue, request, &bytes);
                }
                code::REQUEST_SENSE => {
                    let mut bytes = Sense::NO_UNIT.data(request.command[1] & 1 != 0);
                    bytes.truncate(request.command[4].into());
                    return give(queue, request, &bytes);
                }
                _ => return Ok(Outcome::Failed(Sense::NO_UNIT)),
            },
            Address::Nobody => return Ok(Outcome::Response(response::BAD_TARGET)),
        };
        let (begun, disk) = {
            let mut unit = self.units[target].lock();
            (unit.command(&request.command), unit.disk())
        };
        match begun {
            Ok(action) => self.act(queue, request, target, &action, disk, buffer),
            Err(sense) => Ok(Outcome::Failed(sense)),
        }
    }

    /// Does what a command asks for.
    fn act(
        &self,
        queue: &VirtQueue,
        request: &Request<'_>,
        target: usize,
        action: &Action,
        disk: Option<Arc<dyn Disk>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, Broken> {
        let missing = || Outcome::Failed(Sense::NO_MEDIUM);
        match action {
            Action::Done => Ok(Outcome::Good(0)),
            Action::Give(bytes) => give(queue, request, bytes),
            Action::Read { offset, length } => {
                let Some(disk) = disk else { return Ok(missing()) };
                self.read(queue, request, &*disk, *offset, *length, buffer)
            }
            Action::Write { offset, length, durable } => {
                let Some(disk) = disk else { return Ok(missing()) };
                self.write(queue, request, &*disk, (*offset, *length, *durable), buffer)
            }
            Action::Parameters(length) => {
                let length = *length;
                if (length as u64) > request.out {
                    return Ok(Outcome::Response(response::OVERRUN));
                }
                let mut data = vec![0; length];
                queue.read(request.chain, request.out_at, &mut data)?;
                let next = self.units[target].lock().parameters(&request.command, &data);
                match (next, disk) {
                    (Err(sense), _) => Ok(Outcome::Failed(sense)),
                    (Ok(action), Some(disk)) => Ok(self.finish(queue, &action, &*disk, length as u64)),
                    (Ok(_), None) => Ok(Outcome::Good(length as u64)),
                }
            }
            Action::Flush | Action::Discard(_) | Action::Fill { .. } => match disk {
                Some(disk) => Ok(self.finish(queue, action, &*disk, 0)),
                None => Ok(Outcome::Good(0)),
            },
        }
    }

    /// Does what moves no data of the guest's.
    fn finish(&self, queue: &VirtQueue, action: &Action, disk: &dyn Disk, moved: u64) -> Outcome {
        match action.carry_out(disk, &|| !queue.is_stopping()) {
            Ok(true) => Outcome::Good(moved),
            Ok(false) => Outcome::Unfinished,
            Err(error) => {
                self.told(&error);
                Outcome::Failed(Sense::UNWRITABLE)
            }
        }
    }

    fn read(
        &self,
        queue: &VirtQueue,
        request: &Request<'_>,
        disk: &dyn Disk,
        offset: u64,
        length: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, Broken> {
        if length > request.room {
            return Ok(Outcome::Response(response::OVERRUN));
        }
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(PIECE);
            buffer.resize(piece as usize, 0);
            if let Err(error) = disk.read_at(offset + done, &mut [IoSliceMut::new(buffer)]) {
                self.told(&error);
                return Ok(Outcome::Failed(Sense::UNREADABLE));
            }
            queue.write(request.chain, request.in_at + done, buffer)?;
            done += piece;
        }
        Ok(Outcome::Good(length))
    }

    fn write(
        &self,
        queue: &VirtQueue,
        request: &Request<'_>,
        disk: &dyn Disk,
        (offset, length, durable): (u64, u64, bool),
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, Broken> {
        if length > request.out {
            return Ok(Outcome::Response(response::OVERRUN));
        }
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(PIECE);
            buffer.resize(piece as usize, 0);
            queue.read(request.chain, request.out_at + done, buffer)?;
            if let Err(error) = disk.write_at(offset + done, &[IoSlice::new(buffer)]) {
                self.told(&error);
                return Ok(Outcome::Failed(Sense::UNWRITABLE));
            }
            done += piece;
        }
        Ok(if durable { self.finish(queue, &Action::Flush, disk, length) } else { Outcome::Good(length) })
    }
}

/// Gives bytes to the guest, as far as there is room.
fn give(queue: &VirtQueue, request: &Request<'_>, bytes: &[u8]) -> Result<Outcome, Broken> {
    let count = (bytes.len() as u64).min(request.room);
    queue.write(request.chain, request.in_at, &bytes[..count as usize])?;
    // A driver that says how much it takes gets no more; one that has less room than it says is told.
    if count < bytes.len() as u64 { Ok(Outcome::Response(response::OVERRUN)) } else { Ok(Outcome::Good(count)) }
}
