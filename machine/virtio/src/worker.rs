//! The threads that process queues, and the bells that wake them.
//!
//! A doorbell from a vCPU sets a flag and unparks the queue's thread, which is a system call only if the thread sleeps. Each
//! queue has a slot with a lock, held while the queue is processed: whoever holds all of them knows the device at rest.
//!
//! ```text
//!   vCPU: ring(n) --> flag n --> thread: lock slot n, process --> interrupt
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{JoinHandle, Thread};

use parking_lot::Mutex;

use crate::device::VirtioDevice;
use crate::queue::VirtQueue;
use crate::transport::Interrupts;

/// A queue's place: its ring while the driver has it set up.
pub(crate) struct Slot {
    pub(crate) queue: Mutex<Option<VirtQueue>>,
    rung: AtomicBool,
}

/// What the threads of one device share.
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn VirtioDevice>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) interrupts: Arc<Interrupts>,
    /// Processing shall end soon, for a reset or a pause.
    pub(crate) stop: Arc<AtomicBool>,
    /// A queue broke: the device needs a reset.
    pub(crate) broken: AtomicBool,
    ended: AtomicBool,
    threads: Vec<OnceLock<Thread>>,
}

/// Wakes the threads of a device.
#[derive(Clone)]
pub struct Bell(Weak<Shared>);

impl Bell {
    /// Has queue `index` processed soon. Never blocks.
    pub fn ring(&self, index: u16) {
        if let Some(shared) = self.0.upgrade() {
            shared.ring(index);
        }
    }

    /// Tells the driver that the device's configuration has changed. Never blocks.
    pub fn config_changed(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.interrupts.config();
        }
    }

    /// Whether the driver has set queue `index` up. Never blocks.
    pub fn is_live(&self, index: u16) -> bool {
        let Some(shared) = self.0.upgrade() else { return false };
        // One that is being processed is there.
        shared
            .slots
            .get(usize::from(index))
            .is_some_and(|slot| slot.queue.try_lock().is_none_or(|queue| queue.is_some()))
    }
}

impl Shared {
    pub(crate) fn new(device: Arc<dyn VirtioDevice>, interrupts: Arc<Interrupts>) -> Arc<Self> {
        let slot = |_| Slot { queue: Mutex::new(None), rung: AtomicBool::new(false) };
        let slots: Vec<Slot> = (0..device.queue_sizes().len()).map(slot).collect();
        let threads = device.threads().clamp(1, slots.len().max(1));
        Arc::new(Self {
            slots,
            interrupts,
            stop: Arc::default(),
            broken: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            threads: (0..threads).map(|_| OnceLock::new()).collect(),
            device,
        })
    }

    pub(crate) fn bell(self: &Arc<Self>) -> Bell {
        Bell(Arc::downgrade(self))
    }

    /// Has queue `index` processed soon; indices beyond the last are ignored.
    pub(crate) fn ring(&self, index: u16) {
        let Some(slot) = self.slots.get(usize::from(index)) else { return };
        if !slot.rung.swap(true, Ordering::AcqRel) {
            let thread = &self.threads[self.thread_of(index)];
            if let Some(thread) = thread.get() {
                thread.unpark();
            }
        }
    }

    /// The thread that serves queue `index`.
    fn thread_of(&self, index: u16) -> usize {
        self.device.thread(index) % self.threads.len()
    }

    /// Rings for every queue.
    pub(crate) fn ring_all(&self) {
        for index in 0..self.slots.len() {
            self.ring(index as u16);
        }
    }

    fn serve(&self, thread: usize) {
        while !self.ended.load(Ordering::Acquire) {
            let mut busy = false;
            for (index, slot) in self.slots.iter().enumerate() {
                if self.thread_of(index as u16) == thread && slot.rung.swap(false, Ordering::AcqRel) {
                    busy = true;
                    self.process(index as u16, slot);
                }
            }
            if !busy {
                std::thread::park();
            }
        }
    }

    fn process(&self, index: u16, slot: &Slot) {
        let mut place = slot.queue.lock();
        if self.stop.load(Ordering::Acquire) {
            return;
        }
        let Some(queue) = place.as_mut() else { return };
        if let Err(error) = self.device.process(index, queue) {
            tracing::warn!(device = self.device.name(), queue = index, %error, "the driver broke the device");
            *place = None;
            self.broken.store(true, Ordering::Release);
            self.interrupts.config();
        }
    }

    /// Waits until no queue is being processed, with `stop` set by the caller.
    pub(crate) fn quiesce(&self) {
        for slot in &self.slots {
            drop(slot.queue.lock());
        }
    }
}

/// The threads of one device; they end with it.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let mut workers = Self { shared: shared.clone(), handles: Vec::new() };
        for thread in 0..shared.threads.len() {
            let on_thread = shared.clone();
            let handle = std::thread::Builder::new()
                .name(format!("io-{}", shared.device.name()))
                .spawn(move || on_thread.serve(thread))?;
            // Nobody else sets it, and it is empty.
            let _ = shared.threads[thread].set(handle.thread().clone());
            workers.handles.push(handle);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
                tracing::error!("an I/O thread panicked");
            }
        }
    }
}
