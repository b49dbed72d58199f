//! Commands of the namespace (NVMe 1.4 chapter 6).

use std::sync::atomic::{AtomicU64, Ordering};

use lodge_backend::SECTOR;

use super::command::Command;
use super::core::{Core, Done, PUT_BACK};
use super::registers::*;
use crate::transfer::{Failure, PIECE, Transfer};

/// To the medium, not to a cache.
const FUA: u32 = 1 << 30;
/// WRITE ZEROES: space may be freed.
const DEALLOCATE: u32 = 1 << 25;
/// DATASET MANAGEMENT: the ranges do not matter any more.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
/// Bytes of a range.
const RANGE: usize = 16;

impl Core {
    /// Carries out a command of the namespace.
    pub(super) fn io(&self, command: &Command) -> Done {
        if !command.is_plain() {
            return Err(status::FIELD);
        }
        let everywhere = command.opcode() == io::FLUSH && command.namespace() == u32::MAX;
        if command.namespace() != 1 && !everywhere {
            return Err(status::NAMESPACE);
        }
        let current = || !self.cancelled.load(Ordering::Acquire);
        let transfer =
            Transfer { disk: Some(&*self.disk), memory: &self.memory, current: &current, pausing: &self.stop };
        let done = match command.opcode() {
            io::FLUSH => transfer.flush().map_err(fault),
            io::READ => self.read(command, &transfer),
            io::WRITE => self.write(command, &transfer),
            io::COMPARE => self.compare(command, &transfer),
            io::WRITE_ZEROES => self.write_zeroes(command, &transfer),
            io::DATASET => self.dataset(command, &transfer),
            _ => Err(status::OPCODE),
        };
        done.map(|()| Some(0))
    }

    /// The bytes that a command names.
    fn range(&self, first: u64, count: u64) -> Result<(u64, u64), u16> {
        let end = first.checked_add(count).ok_or(status::RANGE)?;
        if end > self.disk.size() / SECTOR { Err(status::RANGE) } else { Ok((first * SECTOR, count * SECTOR)) }
    }

    fn moved(&self, command: &Command) -> Result<(u64, u64), u16> {
        let (first, count) = (command.wide(10), u64::from(command.0[12] & 0xffff) + 1);
        if count * SECTOR > MOST_BYTES {
            return Err(status::FIELD);
        }
        self.range(first, count)
    }

    fn writable(&self) -> Result<(), u16> {
        if self.disk.is_read_only() { Err(status::READ_ONLY) } else { Ok(()) }
    }

    fn read(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        let (offset, length) = self.moved(command)?;
        let mut regions = command.regions(&self.memory, self.page.load(Ordering::Relaxed), length)?;
        count(&self.counts.reads, &self.counts.bytes_read, length);
        transfer.read_into(offset, length, &mut regions).map_err(fault)
    }

    fn write(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        self.writable()?;
        let (offset, length) = self.moved(command)?;
        let mut regions = command.regions(&self.memory, self.page.load(Ordering::Relaxed), length)?;
        count(&self.counts.writes, &self.counts.bytes_written, length);
        transfer.write_from(offset, length, &mut regions).map_err(fault)?;
        self.settle(command, transfer)
    }

    /// Makes a write durable where that is wanted.
    fn settle(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        let durable = command.0[12] & FUA != 0 || !self.admin.lock().write_cache;
        if durable { transfer.flush().map_err(fault) } else { Ok(()) }
    }

    fn compare(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        let (offset, length) = self.moved(command)?;
        let mut regions = command.regions(&self.memory, self.page.load(Ordering::Relaxed), length)?;
        count(&self.counts.reads, &self.counts.bytes_read, length);
        let mut done = 0;
        while done < length {
            let now = (length - done).min(PIECE) as usize;
            let (mut have, mut wanted) = (vec![0; now], vec![0; now]);
            transfer.read(offset + done, &mut have).map_err(fault)?;
            if !regions.drain(&self.memory, &mut wanted) {
                return Err(status::TRANSFER);
            }
            if have != wanted {
                return Err(status::COMPARE);
            }
            done += now as u64;
        }
        Ok(())
    }

    fn write_zeroes(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        self.writable()?;
        let (offset, length) = self.range(command.wide(10), u64::from(command.0[12] & 0xffff) + 1)?;
        let unmap = command.0[12] & DEALLOCATE != 0;
        self.disk.write_zeroes(offset, length, unmap).map_err(|_| status::WRITE_FAULT)?;
        self.settle(command, transfer)
    }

    fn dataset(&self, command: &Command, transfer: &Transfer<'_>) -> Result<(), u16> {
        let count = (command.0[10] & 0xff) as usize + 1;
        let mut list = vec![0; count * RANGE];
        let page = self.page.load(Ordering::Relaxed);
        if !command.regions(&self.memory, page, list.len() as u64)?.drain(&self.memory, &mut list) {
            return Err(status::TRANSFER);
        }
        // The other attributes are hints.
        if command.0[11] & ATTRIBUTE_DEALLOCATE == 0 {
            return Ok(());
        }
        self.writable()?;
        for range in list.chunks_exact(RANGE) {
            let [_, _, _, _, n0, n1, n2, n3, b0, b1, b2, b3, b4, b5, b6, b7] = std::array::from_fn(|n| range[n]);
            let first = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
            let (offset, length) = self.range(first, u32::from_le_bytes([n0, n1, n2, n3]).into())?;
            // There may be terabytes of them: a pause does not wait for that, nor does a reset.
            match transfer.discard(offset, length) {
                Err(Failure::Cancelled) => return Err(PUT_BACK),
                done => done.map_err(fault)?,
            }
        }
        Ok(())
    }
}

fn count(commands: &AtomicU64, bytes: &AtomicU64, length: u64) {
    commands.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(length, Ordering::Relaxed);
}

/// The status of a failure.
fn fault(failure: Failure) -> u16 {
    match failure {
        Failure::Read => status::READ_FAULT,
        Failure::Write => status::WRITE_FAULT,
        Failure::Memory | Failure::Short => status::TRANSFER,
        Failure::Cancelled | Failure::Refused(_) => status::INTERNAL,
    }
}
