//! Task management and events (virtio 1.2 sections 5.6.6.2 and 5.6.6.3).

use std::sync::atomic::Ordering;

use super::registers::*;
use super::{Address, Scsi};
use crate::queue::{Broken, Chain, VirtQueue};

impl Scsi {
    /// Carries out what is in the control queue.
    pub(super) fn control(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            while let Some(chain) = queue.pop()? {
                let mut kind = [0; 4];
                queue.read(&chain, 0, &mut kind)?;
                let written = match u32::from_le_bytes(kind) {
                    control::TASK_MANAGEMENT => {
                        if !self.is_drained() {
                            // The queues for requests ring when they have come so far.
                            queue.put_back();
                            return queue.signal();
                        }
                        self.manage(queue, &chain)?
                    }
                    control::QUERY_EVENTS => self.subscribe(queue, &chain, false)?,
                    control::SUBSCRIBE => self.subscribe(queue, &chain, true)?,
                    _ => {
                        queue.write(&chain, 0, &[response::FAILURE])?;
                        1
                    }
                };
                queue.push(&chain, written)?;
            }
            queue.signal()?;
            if !queue.listen()? {
                return Ok(());
            }
        }
    }

    /// Whether the requests that were there when this was first asked have been carried out.
    fn is_drained(&self) -> bool {
        let mut volatile = self.volatile.lock();
        let volatile = &mut *volatile;
        let Some(bell) = &volatile.bell else { return false };
        let now = self.passes.iter().map(|pass| pass.load(Ordering::Acquire));
        let awaited = volatile.awaited.get_or_insert_with(|| {
            self.waits.store(true, Ordering::Release);
            // A pass that is under way may have looked before they came: the next one has not. The first counts as two.
            let next = |(queue, pass): (u16, u64)| if bell.is_live(REQUESTS + queue) { pass.max(1) + 2 } else { 0 };
            (0..).zip(now.clone()).map(next).collect()
        });
        let behind: Vec<u16> = (0..)
            .zip(awaited.iter().zip(now))
            .filter(|(_, (awaited, now))| now < *awaited)
            .map(|(queue, _)| queue)
            .collect();
        behind.iter().for_each(|queue| bell.ring(REQUESTS + queue));
        if behind.is_empty() {
            volatile.awaited = None;
            self.waits.store(false, Ordering::Release);
        }
        behind.is_empty()
    }

    /// Manages tasks: all that were there have ended by now, so that none is left to be aborted.
    fn manage(&self, queue: &VirtQueue, chain: &Chain) -> Result<u64, Broken> {
        let mut request = [0; 24];
        queue.read(chain, 0, &mut request)?;
        let function = u32::from_le_bytes([request[4], request[5], request[6], request[7]]);
        let answer = match (function, self.address(&request[8..16])) {
            (_, Address::Nobody) => response::BAD_TARGET,
            (control::NEXUS_RESET, Address::Other(target) | Address::Unit(target))
            | (control::UNIT_RESET, Address::Unit(target)) => {
                self.units[target].lock().reset_with_attention();
                response::FUNCTION_COMPLETE
            }
            (_, Address::Other(_)) => response::INCORRECT_LUN,
            (
                control::ABORT_TASK
                | control::ABORT_TASK_SET
                | control::CLEAR_ACA
                | control::CLEAR_TASK_SET
                | control::QUERY_TASK
                | control::QUERY_TASK_SET,
                Address::Unit(_),
            ) => response::FUNCTION_COMPLETE,
            _ => response::FUNCTION_REJECTED,
        };
        queue.write(chain, 0, &[answer])?;
        Ok(1)
    }

    /// Subscribes to events, of which there are those of media, or asks which there are.
    fn subscribe(&self, queue: &VirtQueue, chain: &Chain, subscribes: bool) -> Result<u64, Broken> {
        let mut request = [0; 16];
        queue.read(chain, 0, &mut request)?;
        let wanted = u32::from_le_bytes([request[12], request[13], request[14], request[15]]);
        let (events, answer) = match self.address(&request[4..12]) {
            Address::Unit(target) => {
                let actual = wanted & event::MEDIA_CHANGE;
                if subscribes {
                    let list = &mut self.volatile.lock().state.subscribed;
                    list.retain(|other| *other != target);
                    if actual != 0 {
                        list.push(target);
                    }
                }
                (actual, response::OK)
            }
            Address::Other(_) => (0, response::INCORRECT_LUN),
            Address::Nobody => (0, response::BAD_TARGET),
        };
        let bytes = [&events.to_le_bytes()[..], &[answer]].concat();
        queue.write(chain, 0, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// A target's medium has changed.
    pub(super) fn changed(&self, target: usize) {
        let mut volatile = self.volatile.lock();
        if !volatile.state.subscribed.contains(&target) {
            return;
        }
        if !volatile.events.contains(&target) {
            volatile.events.push_back(target);
        }
        if let Some(bell) = &volatile.bell {
            bell.ring(EVENTS);
        }
    }

    /// Tells events as far as the driver has given room for them.
    pub(super) fn tell_events(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            loop {
                let (target, missed) = {
                    let volatile = self.volatile.lock();
                    (volatile.events.front().copied(), volatile.missed)
                };
                if target.is_none() && !missed {
                    break;
                }
                let Some(chain) = queue.pop()? else { break };
                let mut bytes = [0; event::SIZE];
                let kind = if target.is_some() { event::NOTIFY } else { event::NONE };
                let flag = if missed { event::MISSED } else { 0 };
                bytes[..4].copy_from_slice(&(kind | flag).to_le_bytes());
                if let Some(target) = target {
                    bytes[4..8].copy_from_slice(&[1, target as u8, 0x40, 0]);
                    bytes[12..].copy_from_slice(&event::MEDIA_CHANGE.to_le_bytes());
                }
                let fits = chain.writable.length() >= event::SIZE as u64;
                {
                    let mut volatile = self.volatile.lock();
                    volatile.events.pop_front();
                    // One that has no room is lost, and the next one says so.
                    volatile.missed = !fits;
                }
                if fits {
                    queue.write(&chain, 0, &bytes)?;
                }
                queue.push(&chain, if fits { event::SIZE as u64 } else { 0 })?;
                if !fits {
                    break;
                }
            }
            queue.signal()?;
            let has_room = queue.listen()?;
            let volatile = self.volatile.lock();
            if !has_room || volatile.events.is_empty() {
                return Ok(());
            }
        }
    }
}
