//! Queues and the threads that serve them.
//!
//! ```text
//!   doorbell: tail --> flag --> thread: lock the queue, fetch, carry out, complete --> message
//! ```
//!
//! A submission queue is locked while a command of it is carried out: whoever holds them all knows the controller at rest. A
//! completion queue is locked only to put an entry in, or for its doorbell.
//!
//! Lock order: a submission queue, then what admin commands change, then a completion queue, then interrupts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lodge_backend::Disk;
use lodge_bus::IrqLine;
use lodge_engine_api::GuestMemory;
use lodge_pci::Msix;
use lodge_pci::config::registers::COMMAND_NO_INTX;
use parking_lot::{Mutex, MutexGuard};
use vm_memory::{Bytes, GuestAddress};

use super::command::Command;
use super::registers::*;
use super::state::{AdminState, CompletionState, SubmissionState};

/// What a command came to: the completion's first word; or nothing yet, for events.
pub(super) type Done = Result<Option<u32>, u16>;

/// In place of a status: the command is begun anew when the machine goes on. The guest never sees it.
pub(super) const PUT_BACK: u16 = u16::MAX;

/// The place of a pair of queues.
#[derive(Default)]
pub(super) struct Slot {
    pub submission: Mutex<Option<SubmissionState>>,
    pub completion: Mutex<Option<CompletionState>>,
    /// Where the guest's end of the submission queue is.
    pub tail: AtomicU32,
    /// Entries of the submission queue; 0: there is none.
    pub entries: AtomicU32,
    rung: AtomicBool,
}

/// Where interrupts go.
pub(super) struct Interrupts {
    pub msix: Msix,
    /// Completion queues with entries that wait.
    pub waiting: u128,
    /// The vector of each of those queues.
    vectors: Vec<u16>,
    /// INTMS and INTMC.
    pub mask: u32,
    /// The command register.
    pub command: u16,
}

impl Interrupts {
    /// The vector of a completion queue.
    pub fn set_vector(&mut self, number: usize, vector: u16) {
        self.vectors[number] = vector;
    }
}

/// Counts for the health log.
#[derive(Default)]
pub(super) struct Counts {
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_written: AtomicU64,
}

/// What registers and threads share.
pub(super) struct Core {
    // configuration
    pub name: String,
    pub serial: String,
    /// Queues for I/O.
    pub queues: u16,
    // wiring
    pub disk: Arc<dyn Disk>,
    pub memory: GuestMemory,
    pub line: OnceLock<IrqLine>,
    /// Told of a shutdown, on a thread.
    pub shutdown: AtomicBool,
    pub shut: AtomicBool,
    // volatile
    pub slots: Vec<Slot>,
    pub admin: Mutex<AdminState>,
    pub interrupts: Mutex<Interrupts>,
    pub counts: Counts,
    /// Bytes of a page.
    pub page: AtomicU64,
    /// Nothing new is begun.
    pub stop: AtomicBool,
    /// The machine is paused: nothing changes by itself.
    pub paused: AtomicBool,
    /// What is under way is not wanted any more.
    pub cancelled: AtomicBool,
    /// Memory was not where it should be.
    pub fatal: AtomicBool,
    /// Events that have come: bits of information of errors.
    pub events: AtomicU32,
    pub ended: AtomicBool,
    /// The flags that threads sleep on.
    threads: Vec<OnceLock<std::thread::Thread>>,
}

impl Core {
    pub fn new(
        name: &str,
        serial: &str,
        queues: u16,
        disk: Arc<dyn Disk>,
        memory: GuestMemory,
        msix: Msix,
        threads: usize,
    ) -> Arc<Self> {
        let pairs = usize::from(queues) + 1;
        let interrupts = Interrupts { msix, waiting: 0, vectors: vec![0; pairs], mask: 0, command: 0 };
        Arc::new(Self {
            name: name.to_owned(),
            serial: serial.to_owned(),
            queues,
            disk,
            memory,
            line: OnceLock::new(),
            shutdown: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            slots: (0..pairs).map(|_| Slot::default()).collect(),
            admin: Mutex::default(),
            interrupts: Mutex::new(interrupts),
            counts: Counts::default(),
            page: AtomicU64::new(4096),
            stop: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            fatal: AtomicBool::new(false),
            events: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            threads: (0..threads.max(2)).map(|_| OnceLock::new()).collect(),
        })
    }

    /// How many threads there are to be.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The thread of a pair of queues: the first is for the admin queue alone.
    fn thread_of(&self, number: usize) -> usize {
        if number == 0 { 0 } else { 1 + (number - 1) % (self.threads.len() - 1) }
    }

    /// Has a submission queue looked at soon. Never blocks.
    pub fn ring(&self, number: usize) {
        let Some(slot) = self.slots.get(number) else { return };
        if !slot.rung.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.threads[self.thread_of(number)].get()
        {
            thread.unpark();
        }
    }

    pub fn ring_all(&self) {
        (0..self.slots.len()).for_each(|number| self.ring(number));
    }

    /// Thread `thread`.
    pub fn serve(&self, thread: usize) {
        // Nobody else sets it.
        let _ = self.threads[thread].set(std::thread::current());
        while !self.ended.load(Ordering::Acquire) {
            let mut busy = false;
            for (number, slot) in self.slots.iter().enumerate().filter(|(number, _)| self.thread_of(*number) == thread)
            {
                if slot.rung.swap(false, Ordering::AcqRel) {
                    busy = true;
                    self.process(number, slot);
                }
            }
            if !busy {
                std::thread::park();
            }
        }
    }

    fn process(&self, number: usize, slot: &Slot) {
        if number == 0 {
            let guard = slot.submission.lock();
            self.shut_down();
            if let Some(queue) = &*guard
                && !self.stop.load(Ordering::Acquire)
            {
                self.post_events(queue.head);
            }
        }
        while self.step(number, slot) {}
    }

    /// The guest is about to switch off.
    fn shut_down(&self) {
        if !self.paused.load(Ordering::Acquire) && self.shutdown.swap(false, Ordering::AcqRel) {
            // A flush that fails is for nobody any more.
            let _ = self.disk.flush();
            self.shut.store(true, Ordering::Release);
        }
    }

    /// Carries out a command; whether there may be more.
    fn step(&self, number: usize, slot: &Slot) -> bool {
        let mut guard = slot.submission.lock();
        if self.stop.load(Ordering::Acquire) || self.fatal.load(Ordering::Acquire) {
            return false;
        }
        let Some(queue) = guard.as_mut() else { return false };
        if queue.head == slot.tail.load(Ordering::Acquire) || !self.reserve(queue.completion) {
            return false;
        }
        let Some(command) = Command::read(&self.memory, queue.base.wrapping_add(u64::from(queue.head) * COMMAND))
        else {
            self.fail();
            return false;
        };
        let before = queue.head;
        queue.head = (before + 1) % queue.entries;
        let (head, completion) = (queue.head, queue.completion);
        let done = if number == 0 { self.admin(&command) } else { self.io(&command) };
        if self.cancelled.load(Ordering::Acquire) {
            return false;
        }
        if done == Err(PUT_BACK) {
            queue.head = before;
            self.unreserve(completion);
            return false;
        }
        let (result, status) = match done {
            Ok(Some(result)) => (result, status::OK),
            Ok(None) => {
                self.unreserve(completion);
                MutexGuard::unlock_fair(guard);
                return true;
            }
            Err(status) => (0, status),
        };
        if status != status::OK {
            self.note_error(number as u16, &command, status);
        }
        self.complete(number as u16, completion, head, command.id(), result, status);
        // Who wants to delete the queue has its turn.
        MutexGuard::unlock_fair(guard);
        true
    }

    /// Memory was not where it should be: only a reset helps.
    pub fn fail(&self) {
        self.fatal.store(true, Ordering::Release);
        tracing::warn!(device = self.name, "a queue lies outside of memory; the guest has to reset the controller");
    }

    /// Keeps room for a completion.
    fn reserve(&self, number: u16) -> bool {
        let Some(slot) = self.slots.get(usize::from(number)) else { return false };
        let mut guard = slot.completion.lock();
        let Some(queue) = guard.as_mut() else { return false };
        let used = (queue.tail + queue.entries - queue.head) % queue.entries;
        if used + queue.reserved + 1 >= queue.entries {
            queue.stalled = true;
            return false;
        }
        queue.reserved += 1;
        true
    }

    fn unreserve(&self, number: u16) {
        if let Some(slot) = self.slots.get(usize::from(number))
            && let Some(queue) = slot.completion.lock().as_mut()
        {
            queue.reserved = queue.reserved.saturating_sub(1);
        }
    }

    /// Puts a completion, for which there is room, into its queue.
    fn complete(&self, queue_id: u16, number: u16, head: u32, id: u16, result: u32, status: u16) {
        let Some(slot) = self.slots.get(usize::from(number)) else { return };
        let mut guard = slot.completion.lock();
        let Some(queue) = guard.as_mut() else { return };
        queue.reserved = queue.reserved.saturating_sub(1);
        let words = [result, 0, head | u32::from(queue_id) << 16];
        let last = u32::from(id) | u32::from(status << 1 | u16::from(queue.phase)) << 16;
        let at = queue.base.wrapping_add(u64::from(queue.tail) * COMPLETION);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // The phase tells the guest that all is there: it comes last, and at once.
        let written = self.memory.write_slice(&bytes, GuestAddress(at)).is_ok()
            && self.memory.store(last.to_le(), GuestAddress(at.wrapping_add(12)), Ordering::Release).is_ok();
        if !written {
            return self.fail();
        }
        queue.tail += 1;
        if queue.tail == queue.entries {
            (queue.tail, queue.phase) = (0, !queue.phase);
        }
        if queue.interrupts {
            let mut interrupts = self.interrupts.lock();
            interrupts.vectors[usize::from(number)] = queue.vector;
            interrupts.waiting |= 1 << number;
            if interrupts.msix.is_enabled() {
                interrupts.msix.signal(queue.vector);
            }
            self.update(&interrupts);
        }
    }

    /// Drives INTx.
    pub fn update(&self, interrupts: &Interrupts) {
        let Some(line) = self.line.get() else { return };
        let vectors = interrupts.vectors.iter().enumerate();
        let raised = vectors.filter(|(number, _)| interrupts.waiting >> number & 1 != 0);
        let unmasked = raised.into_iter().any(|(_, vector)| *vector >= 32 || interrupts.mask >> vector & 1 == 0);
        line.set(unmasked && !interrupts.msix.is_enabled() && interrupts.command & COMMAND_NO_INTX == 0);
    }

    /// A doorbell was rung; whether there is a queue behind it that can be so.
    pub fn doorbell(&self, index: u64, value: u32) {
        /// Information of an error event (figure 147): no such doorbell; no such value.
        const REGISTER: u32 = 1 << 0;
        const VALUE: u32 = 1 << 1;
        let disabled = self.slots.first().is_none_or(|admin| admin.entries.load(Ordering::Acquire) == 0);
        if disabled || self.cancelled.load(Ordering::Acquire) {
            return;
        }
        let number = usize::try_from(index / 2).unwrap_or(usize::MAX);
        let value = value & 0xffff;
        let error = match self.slots.get(number) {
            None => REGISTER,
            Some(slot) if index.is_multiple_of(2) => match slot.entries.load(Ordering::Acquire) {
                0 => REGISTER,
                entries if value >= entries => VALUE,
                _ => {
                    slot.tail.store(value, Ordering::Release);
                    return self.ring(number);
                }
            },
            Some(slot) => {
                let mut guard = slot.completion.lock();
                match guard.as_mut() {
                    None => REGISTER,
                    Some(queue) if value >= queue.entries => VALUE,
                    Some(queue) => {
                        queue.head = value;
                        let stalled = std::mem::take(&mut queue.stalled);
                        if queue.head == queue.tail {
                            let mut interrupts = self.interrupts.lock();
                            interrupts.waiting &= !(1 << number);
                            self.update(&interrupts);
                        }
                        drop(guard);
                        if stalled {
                            self.ring_all();
                        }
                        return;
                    }
                }
            }
        };
        self.events.fetch_or(error, Ordering::AcqRel);
        self.ring(0);
    }

    /// Tells the guest of events, as far as it has asked for them.
    fn post_events(&self, head: u32) {
        /// The kind of event, and the log that has more.
        const ERROR: u32 = 0;
        let mut admin = self.admin.lock();
        admin.pending |= self.events.swap(0, Ordering::AcqRel);
        while admin.pending != 0 && !admin.reported && !admin.requests.is_empty() && self.reserve(0) {
            let information = admin.pending.trailing_zeros();
            admin.pending &= admin.pending - 1;
            // The next one of this kind waits until the log is read.
            admin.reported = true;
            let id = admin.requests.remove(0);
            let result = ERROR | information << 8 | u32::from(log::ERRORS) << 16;
            self.complete(0, 0, head, id, result, status::OK);
        }
    }

    /// Waits until no command is carried out, with `stop` set by the caller.
    pub fn quiesce(&self) {
        for slot in &self.slots {
            drop(slot.submission.lock());
        }
    }

    /// Forgets all queues, if no command is being carried out.
    pub fn try_clear(&self) -> bool {
        for slot in &self.slots {
            let Some(mut queue) = slot.submission.try_lock() else { return false };
            *queue = None;
            slot.entries.store(0, Ordering::Release);
            slot.tail.store(0, Ordering::Release);
            *slot.completion.lock() = None;
        }
        *self.admin.lock() = AdminState::default();
        self.events.store(0, Ordering::Release);
        self.fatal.store(false, Ordering::Release);
        self.cancelled.store(false, Ordering::Release);
        let mut interrupts = self.interrupts.lock();
        (interrupts.waiting, interrupts.mask) = (0, 0);
        self.update(&interrupts);
        true
    }

    /// Puts a submission queue where it can be rung for.
    pub fn open(&self, number: usize, queue: SubmissionState, tail: u32) {
        let slot = &self.slots[number];
        let entries = queue.entries;
        *slot.submission.lock() = Some(queue);
        slot.tail.store(tail, Ordering::Release);
        slot.entries.store(entries, Ordering::Release);
    }
}
