//! virtio-console: one port in front of a character stream (virtio 1.2 section 5.3).
//!
//! [`Console`] passes bytes both ways with backpressure: output that the stream has no room for stays in the guest's buffers
//! until it has; input waits in the stream until the guest has given buffers.
//!
//! Queues 0 and 1 are port 0's receive and transmit queues in both the single-port and the multiport layout, so that more
//! ports can be added behind a feature.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use lodge_backend::{CharStream, Receiver};
use parking_lot::Mutex;

use crate::device::VirtioDevice;
use crate::queue::{Broken, Chain, VirtQueue};
use crate::worker::Bell;

/// Device ID.
const DEVICE_ID: u16 = 3;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Most received bytes that wait for the guest's buffers.
const INPUT: usize = 4096;
/// Most bytes passed to the stream at a time.
const PIECE: usize = 4096;

#[derive(Default)]
struct Volatile {
    bell: Option<Bell>,
    input: VecDeque<u8>,
    /// The stream holds input back.
    stalled: bool,
    /// A request whose bytes from an offset on the stream had no room for.
    unsent: Option<(Chain, u64)>,
}

/// A virtio console device.
pub struct Console {
    // configuration
    name: String,
    // wiring
    stream: Arc<dyn CharStream>,
    // volatile
    volatile: Mutex<Volatile>,
}

impl Console {
    /// A console in front of `stream`.
    pub fn new(name: &str, stream: Arc<dyn CharStream>) -> Arc<Self> {
        let console = Arc::new(Self { name: name.to_owned(), stream, volatile: Mutex::default() });
        console.stream.connect(Arc::downgrade(&console) as Weak<dyn Receiver>);
        console
    }

    fn receive_queue(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            loop {
                let mut volatile = self.volatile.lock();
                if volatile.input.is_empty() {
                    break;
                }
                let Some(chain) = queue.pop()? else { break };
                let length = (volatile.input.len() as u64).min(chain.writable.length()) as usize;
                let bytes: Vec<u8> = volatile.input.drain(..length).collect();
                let resume = std::mem::take(&mut volatile.stalled);
                drop(volatile);
                queue.write(&chain, 0, &bytes)?;
                queue.push(&chain, length as u64)?;
                if resume {
                    self.stream.resume();
                }
            }
            queue.signal()?;
            // With nothing to give, buffers that come need no look.
            if !queue.listen()? || self.volatile.lock().input.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends a request's bytes from `from` on. Returns where the stream had no more room.
    fn send(&self, queue: &VirtQueue, chain: &Chain, mut from: u64) -> Result<Option<u64>, Broken> {
        let mut buffer = [0; PIECE];
        while from < chain.readable.length() {
            let piece = (chain.readable.length() - from).min(PIECE as u64) as usize;
            queue.read(chain, from, &mut buffer[..piece])?;
            let sent = self.stream.send(&buffer[..piece]).min(piece);
            from += sent as u64;
            if sent < piece {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }

    fn transmit_queue(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            loop {
                let unsent = self.volatile.lock().unsent.take();
                let (chain, from) = match unsent {
                    Some(unsent) => unsent,
                    None => match queue.pop()? {
                        Some(chain) => (chain, 0),
                        None => break,
                    },
                };
                if let Some(from) = self.send(queue, &chain, from)? {
                    // The stream will tell when there is room, and may have done so already: the bell's flag keeps that.
                    self.volatile.lock().unsent = Some((chain, from));
                    return queue.signal();
                }
                queue.push(&chain, 0)?;
            }
            queue.signal()?;
            if !queue.listen()? {
                return Ok(());
            }
        }
    }
}

impl Receiver for Console {
    fn receive(&self, data: &[u8]) -> usize {
        let mut volatile = self.volatile.lock();
        let taken = data.len().min(INPUT - volatile.input.len().min(INPUT));
        volatile.input.extend(&data[..taken]);
        volatile.stalled |= taken < data.len();
        let bell = volatile.bell.clone();
        drop(volatile);
        if let Some(bell) = bell {
            bell.ring(RECEIVE);
        }
        taken
    }

    fn room_to_send(&self) {
        let bell = self.volatile.lock().bell.clone();
        if let Some(bell) = bell {
            bell.ring(TRANSMIT);
        }
    }
}

impl VirtioDevice for Console {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x07, 0x80, 0x00]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![128, 128]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_console_config: columns and rows are not offered; one port (5.3.4).
        let image = [0, 0, 0, 0, 1, 0, 0, 0];
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn activate(&self, _features: u64, bell: Bell) {
        self.volatile.lock().bell = Some(bell);
    }

    fn deactivate(&self) {
        let mut volatile = self.volatile.lock();
        volatile.bell = None;
        volatile.unsent = None;
    }

    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        if index == RECEIVE { self.receive_queue(queue) } else { self.transmit_queue(queue) }
    }
}
