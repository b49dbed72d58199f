//! A virtqueue as a device sees it: chains of buffers in, used buffers out.
//!
//! [`VirtQueue`] wraps `virtio-queue`'s ring and checks what a driver could get wrong: every descriptor lies in guest RAM, no
//! chain is cut off by a loop, no ring is elsewhere. What can't be gone on with is [`Broken`].

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use lodge_engine_api::GuestMemory;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use crate::transport::Interrupts;

/// Requests after which the driver is told, if more are waiting.
const BATCH: usize = 8;
/// Most descriptors in one chain.
const MOST_DESCRIPTORS: usize = 1024;

/// The driver broke a rule of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The rings are not in RAM, or their indices make no sense.
    #[error("the rings make no sense")]
    Ring,
    /// A chain is empty, loops, is too long, or has buffers outside of RAM.
    #[error("a descriptor chain makes no sense")]
    Chain,
    /// A request has no room for its header or status.
    #[error("a request lacks its header or status")]
    Request,
}

impl From<virtio_queue::Error> for Broken {
    fn from(_: virtio_queue::Error) -> Self {
        Self::Ring
    }
}

/// Buffers in guest memory, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    parts: Vec<(u64, u32)>,
    length: u64,
}

impl Buffers {
    fn push(&mut self, address: u64, length: u32) {
        self.parts.push((address, length));
        self.length += u64::from(length);
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Calls `visit` with each piece (address, range in `0..length`) of the bytes from `offset` on.
    fn visit(
        &self,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let mut skip = offset;
        let mut done = 0;
        for &(address, part) in &self.parts {
            let part = u64::from(part);
            if done == length {
                break;
            }
            if skip >= part {
                skip -= part;
                continue;
            }
            let now = usize::try_from(part - skip).unwrap_or(usize::MAX).min(length - done);
            visit(GuestAddress(address + skip), done..done + now)?;
            done += now;
            skip = 0;
        }
        if done == length { Ok(()) } else { Err(Broken::Request) }
    }
}

/// A request: buffers to read, then buffers to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What identifies it in the ring.
    head: u16,
    /// What the driver wrote for the device.
    pub readable: Buffers,
    /// What the device may fill.
    pub writable: Buffers,
}

/// A virtqueue that a driver has set up.
pub struct VirtQueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupts: Arc<Interrupts>,
    stop: Arc<AtomicBool>,
    /// Requests given back since the driver was last told, or not told on its own wish.
    untold: Wrapping<u16>,
}

impl VirtQueue {
    /// A queue whose rings lie in `memory`.
    ///
    /// # Errors
    /// They don't.
    pub(crate) fn new(
        index: u16,
        queue: Queue,
        memory: GuestMemory,
        interrupts: Arc<Interrupts>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Broken> {
        if !queue.is_valid(&memory) {
            return Err(Broken::Ring);
        }
        Ok(Self { index, queue, memory, interrupts, stop, untold: Wrapping(0) })
    }

    /// The next request, or `None` for now.
    ///
    /// # Errors
    /// The ring or the chain makes no sense.
    pub fn pop(&mut self) -> Result<Option<Chain>, Broken> {
        if self.stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        let memory = &self.memory;
        let Some(descriptors) = self.queue.iter(memory)?.next() else { return Ok(None) };
        let mut chain =
            Chain { head: descriptors.head_index(), readable: Buffers::default(), writable: Buffers::default() };
        let mut open = true;
        let mut count = 0;
        for descriptor in descriptors {
            open = descriptor.has_next();
            count += 1;
            if count > MOST_DESCRIPTORS {
                return Err(Broken::Chain);
            }
            let (address, length) = (descriptor.addr(), descriptor.len());
            if length == 0 {
                continue;
            }
            let (buffers, permissions) = if descriptor.is_write_only() {
                (&mut chain.writable, Permissions::Write)
            } else {
                (&mut chain.readable, Permissions::Read)
            };
            if !memory.check_range(address, length as usize, permissions) {
                return Err(Broken::Chain);
            }
            buffers.push(address.0, length);
        }
        // The iterator ends early at a loop, a bad index or a bad indirect table.
        if open { Err(Broken::Chain) } else { Ok(Some(chain)) }
    }

    /// Leaves the request that was popped last to be popped again.
    pub fn put_back(&mut self) {
        let next = self.queue.next_avail().wrapping_sub(1);
        self.queue.set_next_avail(next);
    }

    /// Whether processing shall end soon, for a reset or a pause.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Copies from a request's readable bytes.
    ///
    /// # Errors
    /// There are not so many.
    pub fn read(&self, chain: &Chain, offset: u64, data: &mut [u8]) -> Result<(), Broken> {
        chain.readable.visit(offset, data.len(), |address, range| {
            self.memory.read_slice(&mut data[range], address).map_err(|_| Broken::Chain)
        })
    }

    /// Copies to a request's writable bytes.
    ///
    /// # Errors
    /// There are not so many.
    pub fn write(&self, chain: &Chain, offset: u64, data: &[u8]) -> Result<(), Broken> {
        chain.writable.visit(offset, data.len(), |address, range| {
            self.memory.write_slice(&data[range], address).map_err(|_| Broken::Chain)
        })
    }

    /// Gives a request back, of which `written` bytes were filled.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn push(&mut self, chain: &Chain, written: u64) -> Result<(), Broken> {
        self.push_together(&[(chain, written)])
    }

    /// Gives several requests back at once: the driver sees none before it sees all.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn push_together(&mut self, all: &[(&Chain, u64)]) -> Result<(), Broken> {
        let length = |written: u64| u32::try_from(written).unwrap_or(u32::MAX);
        let Some(((last, written), before)) = all.split_last() else { return Ok(()) };
        let (first, size) = (self.queue.next_used(), self.queue.size().max(1));
        for (number, (chain, written)) in (0u16..).zip(before) {
            // struct virtq_used: flags and index, then elements (virtio 1.2, section 2.7.8).
            let place = u64::from(first.wrapping_add(number) % size);
            let address = self.queue.used_ring().checked_add(4 + 8 * place).ok_or(Broken::Ring)?;
            let mut element = [0; 8];
            element[..2].copy_from_slice(&chain.head.to_le_bytes());
            element[4..].copy_from_slice(&length(*written).to_le_bytes());
            self.memory.write_slice(&element, GuestAddress(address)).map_err(|_| Broken::Ring)?;
        }
        // The last one takes the index with it. There are no more of them than fit in the ring.
        self.queue.set_next_used(first.wrapping_add(before.len() as u16));
        self.untold += Wrapping(all.len() as u16);
        Ok(self.queue.add_used(&self.memory, last.head, length(*written))?)
    }

    /// Interrupts the driver if it wants to know about what was given back since the last time.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn signal(&mut self) -> Result<(), Broken> {
        if self.wants_to_know()? {
            self.interrupts.queue(self.index);
        }
        Ok(())
    }

    /// Whether the driver wants to know about what was given back since the last time (virtio 1.2, sections 2.7.7, 2.7.10).
    /// The queue's own answer does not know of those that were given back together.
    fn wants_to_know(&mut self) -> Result<bool, Broken> {
        const NO_INTERRUPT: u16 = 1;
        let untold = std::mem::take(&mut self.untold);
        // What was given back is there before the driver's wish is read.
        fence(Ordering::SeqCst);
        let word = |offset: u64| {
            let address = self.queue.avail_ring().checked_add(offset).ok_or(Broken::Ring)?;
            self.memory.load(GuestAddress(address), Ordering::Relaxed).map(u16::from_le).map_err(|_| Broken::Ring)
        };
        if !self.queue.event_idx_enabled() {
            return Ok(word(0)? & NO_INTERRUPT == 0);
        }
        // It is behind the ring of indices.
        let event = Wrapping(word(4 + 2 * u64::from(self.queue.size()))?);
        Ok(Wrapping(self.queue.next_used()) - event - Wrapping(1) < untold)
    }

    /// Tells the driver that the device's configuration has changed.
    pub fn config_changed(&self) {
        self.interrupts.config();
    }

    /// Serves what is in the queue until nothing is left, or the queue is to stop. The driver hears of every few.
    ///
    /// # Errors
    /// The ring or a chain makes no sense, or what `serve` says.
    pub fn drain(&mut self, mut serve: impl FnMut(&mut Self, &Chain) -> Result<(), Broken>) -> Result<(), Broken> {
        loop {
            self.hush()?;
            let mut batch = 0;
            while let Some(chain) = self.pop()? {
                serve(self, &chain)?;
                batch += 1;
                if batch % BATCH == 0 {
                    self.signal()?;
                }
            }
            self.signal()?;
            if !self.listen()? {
                return Ok(());
            }
        }
    }

    /// Asks the driver not to ring while the queue is being processed.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn hush(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notification(&self.memory)?)
    }

    /// Asks the driver to ring again. Whether requests came meanwhile, for which it may not have rung.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn listen(&mut self) -> Result<bool, Broken> {
        Ok(self.queue.enable_notification(&self.memory)? && !self.stop.load(Ordering::Acquire))
    }

    /// Asks the driver to ring for requests beyond those that are there now, which are not enough. Whether more came
    /// meanwhile.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn listen_beyond(&mut self) -> Result<bool, Broken> {
        let next = self.queue.next_avail();
        let there = self.queue.avail_idx(&self.memory, Ordering::Acquire)?;
        // The driver is told how far the device has come, which here is as if it had taken them all.
        self.queue.set_next_avail(there.0);
        let more = self.listen();
        self.queue.set_next_avail(next);
        more
    }

    /// Where the device is in the rings: available, used.
    pub(crate) fn position(&self) -> (u16, u16) {
        (self.queue.next_avail(), self.queue.next_used())
    }
}
