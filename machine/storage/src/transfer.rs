//! Moving data between media and regions of guest memory, in pieces, on an I/O thread.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use lodge_backend::{Disk, SECTOR, stretches};
use lodge_engine_api::GuestMemory;

use crate::ata::{Source, Work, disk};
use crate::regions::Regions;

/// Bytes that are moved at a time: few enough to stay in the host processor's cache.
pub(crate) const PIECE: u64 = 128 << 10;

/// Why data did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The medium could not be read, or is not there.
    Read,
    /// The medium could not be written.
    Write,
    /// The regions are not in memory.
    Memory,
    /// The regions have no room for all.
    Short,
    /// The drive refuses, with this in its error register.
    Refused(u8),
    /// It is not wanted any more; or not now, if it still is.
    Cancelled,
}

/// What a transfer needs besides the work.
pub(crate) struct Transfer<'a> {
    /// The disk, or the medium that is in the drive.
    pub disk: Option<&'a dyn Disk>,
    /// Guest memory.
    pub memory: &'a GuestMemory,
    /// Whether it is still wanted.
    pub current: &'a dyn Fn() -> bool,
    /// Whether a pause waits for it: what may take minutes is then left to be begun anew.
    pub pausing: &'a AtomicBool,
}

impl Transfer<'_> {
    fn disk(&self, failure: Failure) -> Result<&dyn Disk, Failure> {
        self.disk.ok_or(failure)
    }

    fn check(&self) -> Result<(), Failure> {
        if (self.current)() { Ok(()) } else { Err(Failure::Cancelled) }
    }

    /// Reads bytes of the medium.
    pub fn read(&self, from: u64, data: &mut [u8]) -> Result<(), Failure> {
        let disk = self.disk(Failure::Read)?;
        disk.read_at(from, &mut [IoSliceMut::new(data)]).map_err(|_| Failure::Read)
    }

    /// Writes bytes of the medium.
    pub fn write(&self, from: u64, data: &[u8]) -> Result<(), Failure> {
        let disk = self.disk(Failure::Write)?;
        disk.write_at(from, &[IoSlice::new(data)]).map_err(|_| Failure::Write)
    }

    /// Makes what was written durable.
    pub fn flush(&self) -> Result<(), Failure> {
        // Where there is no medium there is nothing to make durable.
        self.disk.map_or(Ok(()), |disk| disk.flush().map_err(|_| Failure::Write))
    }

    /// Discards a range, which may be terabytes: neither a pause nor a reset waits for the end.
    pub fn discard(&self, from: u64, length: u64) -> Result<(), Failure> {
        let disk = self.disk(Failure::Write)?;
        let current = || (self.current)() && !self.pausing.load(Ordering::Acquire);
        let done = stretches(from, length, &current, |from, now| disk.discard(from, now));
        if done.map_err(|_| Failure::Write)? { Ok(()) } else { Err(Failure::Cancelled) }
    }

    /// Calls `each` with pieces (first byte, bytes) of a range.
    fn pieces(
        &self,
        mut from: u64,
        mut left: u64,
        mut each: impl FnMut(u64, &mut [u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut buffer = vec![0; left.min(PIECE) as usize];
        while left > 0 {
            self.check()?;
            let now = left.min(PIECE);
            each(from, &mut buffer[..now as usize])?;
            (from, left) = (from.saturating_add(now), left - now);
        }
        Ok(())
    }

    /// Reads into regions.
    pub fn read_into(&self, from: u64, length: u64, regions: &mut Regions) -> Result<(), Failure> {
        if regions.left() < length {
            return Err(Failure::Short);
        }
        self.pieces(from, length, |from, piece| {
            self.read(from, piece)?;
            if regions.fill(self.memory, piece) { Ok(()) } else { Err(Failure::Memory) }
        })
    }

    /// Writes from regions.
    pub fn write_from(&self, from: u64, length: u64, regions: &mut Regions) -> Result<(), Failure> {
        if regions.left() < length {
            return Err(Failure::Short);
        }
        self.pieces(from, length, |from, piece| {
            if !regions.drain(self.memory, piece) {
                return Err(Failure::Memory);
            }
            self.write(from, piece)
        })
    }

    /// Does the work of a drive's command. Bytes that moved.
    pub fn work(&self, work: &Work, regions: &mut Regions) -> Result<u64, Failure> {
        match work {
            Work::Give(Source::Bytes(bytes), _) => {
                // The guest may want less than there is.
                let count = (bytes.len() as u64).min(regions.left());
                let moved = regions.fill(self.memory, &bytes[..count as usize]);
                if moved { Ok(count) } else { Err(Failure::Memory) }
            }
            Work::Give(Source::Medium(from, length), _) => self.read_into(*from, *length, regions).map(|()| *length),
            Work::Take { from, left, durable, .. } => {
                self.write_from(*from, *left, regions)?;
                if *durable {
                    self.flush()?;
                }
                Ok(*left)
            }
            Work::Trim(length) => {
                let mut list = vec![0; *length];
                if regions.left() < *length as u64 {
                    return Err(Failure::Short);
                }
                if !regions.drain(self.memory, &mut list) {
                    return Err(Failure::Memory);
                }
                let sectors = self.disk(Failure::Write)?.size() / SECTOR;
                for range in disk::ranges(&list, sectors) {
                    let (from, length) = range.map_err(Failure::Refused)?;
                    self.discard(from, length)?;
                }
                Ok(*length as u64)
            }
            Work::Flush => self.flush().map(|()| 0),
            Work::Packet => Ok(0),
        }
    }
}
