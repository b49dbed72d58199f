//! virtio-rng: random bytes for the guest (virtio 1.2 section 5.4).
//!
//! [`Rng`] fills buffers from an [`Entropy`] source, at most so many bytes per second: a guest that wants more waits, woken by
//! a timer.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_backend::Entropy;
use lodge_bus::{Clock, Timer, Timers};
use parking_lot::Mutex;

use crate::device::VirtioDevice;
use crate::queue::{Broken, VirtQueue};
use crate::worker::Bell;

/// Device ID.
const DEVICE_ID: u16 = 4;
/// Bytes handed out in a period.
const BUDGET: u64 = 1 << 20;
/// The period, in nanoseconds.
const PERIOD: u64 = 1_000_000_000;
/// Most bytes for one request.
const MOST: usize = 64 << 10;

struct Volatile {
    bell: Option<Bell>,
    left: u64,
    /// When the budget is full again.
    refill: u64,
}

/// A virtio entropy device.
pub struct Rng {
    // configuration
    name: String,
    // wiring
    source: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    volatile: Arc<Mutex<Volatile>>,
}

impl Rng {
    /// A device that hands out bytes of `source`.
    pub fn new(name: &str, source: Arc<dyn Entropy>, timers: &Timers) -> Arc<Self> {
        let volatile = Arc::new(Mutex::new(Volatile { bell: None, left: BUDGET, refill: 0 }));
        let on_timer = volatile.clone();
        let timer = timers.timer(move || {
            let bell = on_timer.lock().bell.clone();
            if let Some(bell) = bell {
                bell.ring(0);
            }
        });
        Arc::new(Self { name: name.to_owned(), source, clock: timers.clock().clone(), timer, volatile })
    }

    /// Takes up to `wanted` bytes out of the budget.
    fn take(&self, wanted: u64) -> u64 {
        let now = self.clock.now_ns();
        let mut volatile = self.volatile.lock();
        if now >= volatile.refill {
            volatile.left = BUDGET;
            volatile.refill = now.saturating_add(PERIOD);
        }
        let taken = wanted.min(volatile.left);
        volatile.left -= taken;
        taken
    }

    /// Whether there is budget; if not, the timer will ring.
    fn has_budget(&self) -> bool {
        let volatile = self.volatile.lock();
        let spent = volatile.left == 0 && self.clock.now_ns() < volatile.refill;
        if spent {
            self.timer.arm_at(volatile.refill);
        }
        !spent
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x00, 0xff, 0x00]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&self, _features: u64, bell: Bell) {
        self.volatile.lock().bell = Some(bell);
    }

    fn deactivate(&self) {
        self.volatile.lock().bell = None;
        self.timer.cancel();
    }

    fn process(&self, _index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        let mut buffer = Vec::new();
        loop {
            queue.hush()?;
            while self.has_budget()
                && let Some(chain) = queue.pop()?
            {
                let wanted = self.take(chain.writable.length().min(MOST as u64)) as usize;
                buffer.resize(wanted, 0);
                let filled = self.source.fill(&mut buffer).min(wanted);
                queue.write(&chain, 0, &buffer[..filled])?;
                queue.push(&chain, filled as u64)?;
            }
            queue.signal()?;
            if !queue.listen()? || !self.has_budget() {
                return Ok(());
            }
        }
    }
}
