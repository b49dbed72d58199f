//! virtio-blk: a disk (virtio 1.2 section 5.2).
//!
//! [`Block`] serves requests from a [`Disk`] on the threads of its queues. Data passes through a buffer of the thread, in
//! pieces, so that no request makes the host allocate more; whatever the host's answer, the guest gets a status and the device
//! goes on. Without the flush feature every write is durable before it completes.
//!
//! Its state is that of its queues, which the transport saves: at rest no request is half done. What a pause does not wait for, as
//! vast ranges that are discarded, is put back.

pub mod registers;
#[cfg(test)]
mod tests;

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lodge_backend::{Disk, SECTOR, stretches};
use registers::*;

use crate::device::VirtioDevice;
use crate::queue::{Broken, Chain, VirtQueue};
use crate::worker::Bell;

/// Bytes that are moved at a time: few enough to stay in the host processor's cache.
const PIECE: usize = 128 << 10;

/// What a block device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Its name in the machine ("disk0").
    pub name: String,
    /// What the guest reads as its serial number, at most 20 bytes.
    pub serial: String,
    /// Queues, each with a thread; 1 to 16.
    pub queues: u16,
}

/// A virtio block device.
pub struct Block {
    // configuration
    config: BlockConfig,
    // wiring
    disk: Arc<dyn Disk>,
    // volatile
    features: AtomicU64,
    /// The user was told that the host failed a request.
    told: AtomicBool,
}

/// A request's outcome: what the driver wrote wrong, or a status and the bytes filled before it.
type Outcome = Result<(u8, u64), Broken>;

/// In place of a status: the request is begun anew when the queue goes on. The guest never sees it.
const PUT_BACK: u8 = u8::MAX;

impl Block {
    /// A device in front of `disk`.
    pub fn new(mut config: BlockConfig, disk: Arc<dyn Disk>) -> Arc<Self> {
        config.queues = config.queues.clamp(1, 16);
        Arc::new(Self { config, disk, features: AtomicU64::new(0), told: AtomicBool::new(false) })
    }

    /// The first byte of a range of `length` bytes at `sector`, if the disk has it.
    fn offset(&self, sector: u64, length: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(length)?;
        (length.is_multiple_of(SECTOR) && end <= self.disk.size()).then_some(offset)
    }

    fn status(&self, what: &str, result: std::io::Result<()>) -> u8 {
        match result {
            Ok(()) => OK,
            Err(error) => {
                // A guest that goes on trying shall not fill the user's screen.
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        device = self.config.name, what, %error,
                        "the host failed a disk request, of which the guest is told; more of these are not shown"
                    );
                }
                IOERR
            }
        }
    }

    fn read(&self, queue: &VirtQueue, chain: &Chain, sector: u64, buffer: &mut Vec<u8>) -> Outcome {
        // The last byte is the status.
        let length = chain.writable.length() - 1;
        let Some(offset) = self.offset(sector, length) else { return Ok((IOERR, 0)) };
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(PIECE as u64) as usize;
            buffer.resize(piece, 0);
            let result = self.disk.read_at(offset + done, &mut [IoSliceMut::new(buffer)]);
            let status = self.status("read", result);
            if status != OK {
                return Ok((status, done));
            }
            queue.write(chain, done, buffer)?;
            done += piece as u64;
        }
        Ok((OK, length))
    }

    fn write(&self, queue: &VirtQueue, chain: &Chain, sector: u64, buffer: &mut Vec<u8>) -> Outcome {
        let length = chain.readable.length() - HEADER as u64;
        let Some(offset) = self.offset(sector, length) else { return Ok((IOERR, 0)) };
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(PIECE as u64) as usize;
            buffer.resize(piece, 0);
            queue.read(chain, HEADER as u64 + done, buffer)?;
            let result = self.disk.write_at(offset + done, &[IoSlice::new(buffer)]);
            let status = self.status("write", result);
            if status != OK {
                return Ok((status, 0));
            }
            done += piece as u64;
        }
        if self.features.load(Ordering::Relaxed) & feature::FLUSH == 0 {
            return Ok((self.status("flush", self.disk.flush()), 0));
        }
        Ok((OK, 0))
    }

    fn zero(&self, queue: &VirtQueue, chain: &Chain, discard: bool) -> Outcome {
        let length = chain.readable.length() - HEADER as u64;
        if length == 0 || !length.is_multiple_of(SEGMENT as u64) || length > u64::from(MOST_SEGMENTS) * SEGMENT as u64 {
            return Ok((IOERR, 0));
        }
        for index in 0..length / SEGMENT as u64 {
            let mut segment = [0; SEGMENT];
            queue.read(chain, HEADER as u64 + index * SEGMENT as u64, &mut segment)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = segment;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes([f0, f1, f2, f3]);
            // Discard has no flags; what a later version may add is not ignored (5.2.6.2).
            if flags & !(if discard { 0 } else { SEGMENT_UNMAP }) != 0 {
                return Ok((UNSUPP, 0));
            }
            let bytes = u64::from(sectors) * SECTOR;
            let Some(offset) = self.offset(sector, bytes).filter(|_| sectors <= MOST_SECTORS) else {
                return Ok((IOERR, 0));
            };
            // There may be gigabytes of them: a pause does not wait for that, nor does a reset.
            let done = stretches(offset, bytes, &|| !queue.is_stopping(), |from, now| {
                if discard {
                    self.disk.discard(from, now)
                } else {
                    self.disk.write_zeroes(from, now, flags & SEGMENT_UNMAP != 0)
                }
            });
            if matches!(done, Ok(false)) {
                return Ok((PUT_BACK, 0));
            }
            let status = self.status(if discard { "discard" } else { "write zeroes" }, done.map(drop));
            if status != OK {
                return Ok((status, 0));
            }
        }
        Ok((OK, 0))
    }

    fn name_of(&self, queue: &VirtQueue, chain: &Chain) -> Outcome {
        let mut name = [0; NAME];
        for (to, from) in name.iter_mut().zip(self.config.serial.bytes()) {
            *to = from;
        }
        let length = (chain.writable.length() - 1).min(NAME as u64);
        queue.write(chain, 0, &name[..length as usize])?;
        Ok((OK, length))
    }

    /// Carries out one request and gives it back.
    fn serve(&self, queue: &mut VirtQueue, chain: &Chain, buffer: &mut Vec<u8>) -> Result<(), Broken> {
        if chain.readable.length() < HEADER as u64 || chain.writable.length() == 0 {
            return Err(Broken::Request);
        }
        let mut header = [0; HEADER];
        queue.read(chain, 0, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let read_only = self.disk.is_read_only();
        let (status, filled) = match kind {
            request::IN => self.read(queue, chain, sector, buffer)?,
            request::OUT | request::DISCARD | request::WRITE_ZEROES if read_only => (IOERR, 0),
            request::OUT => self.write(queue, chain, sector, buffer)?,
            request::FLUSH => {
                // What came before need not wait for it.
                queue.signal()?;
                (self.status("flush", self.disk.flush()), 0)
            }
            request::GET_ID => self.name_of(queue, chain)?,
            request::DISCARD => self.zero(queue, chain, true)?,
            request::WRITE_ZEROES => self.zero(queue, chain, false)?,
            _ => (UNSUPP, 0),
        };
        if status == PUT_BACK {
            queue.put_back();
            return Ok(());
        }
        queue.write(chain, chain.writable.length() - 1, &[status])?;
        queue.push(chain, filled + 1)
    }
}

impl VirtioDevice for Block {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x01, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        let common = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH;
        let several = if self.config.queues > 1 { feature::MQ } else { 0 };
        let access = if self.disk.is_read_only() { feature::RO } else { feature::DISCARD | feature::WRITE_ZEROES };
        common | several | access
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; self.config.queues.into()]
    }

    fn threads(&self) -> usize {
        self.config.queues.into()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_blk_config (5.2.4).
        let mut image = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.disk.size() / SECTOR).to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(34, &self.config.queues.to_le_bytes());
        put(36, &MOST_SECTORS.to_le_bytes());
        put(40, &MOST_SEGMENTS.to_le_bytes());
        // Discards are best aligned to the host's pages.
        put(44, &8u32.to_le_bytes());
        put(48, &MOST_SECTORS.to_le_bytes());
        put(52, &MOST_SEGMENTS.to_le_bytes());
        put(56, &[1]);
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn activate(&self, features: u64, _bell: Bell) {
        self.features.store(features, Ordering::Relaxed);
    }

    fn deactivate(&self) {
        self.features.store(0, Ordering::Relaxed);
    }

    fn process(&self, _index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        let mut buffer = Vec::new();
        queue.drain(|queue, chain| self.serve(queue, chain, &mut buffer))
    }
}
