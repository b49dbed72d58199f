//! The world of a case: RAM, a few ports, MMIO that answers with its address, and events that the guest raises itself.

use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use lodge_engine_api::{AccessError, ClockSample, CpuIo, Event, GuestMemory, MemoryChange, Notifier, Partition, Width};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress};

use crate::case::{Access, Case, Ending};
use crate::layout::{self, port};

/// What all processors of a case share.
pub struct Board {
    events: Vec<(u32, Event)>,
    ends_at_halt: bool,
    inner: Mutex<Inner>,
    wake: Condvar,
    notifiers: OnceLock<Vec<Arc<dyn Notifier>>>,
    changes: Vec<MemoryChange>,
    partition: OnceLock<Weak<dyn Partition>>,
}

#[derive(Default)]
struct Inner {
    pending: Vec<(u32, Event)>,
    log: Vec<Access>,
    stopped: bool,
    stop_written: bool,
    halted: bool,
    /// The event that is raised when processor 0 halts.
    at_halt: Option<usize>,
}

/// What was seen of a case from outside.
pub struct Seen {
    /// Accesses, in order, but for the board's own ports.
    pub log: Vec<Access>,
    /// The stop port was written.
    pub stopped: bool,
    /// Processor 0 halted with nothing to wake it.
    pub halted: bool,
}

/// Makes RAM.
pub fn memory() -> std::io::Result<GuestMemory> {
    let memfd = memfd_create("lodge-case", MemfdFlags::CLOEXEC)?;
    ftruncate(&memfd, layout::RAM_END)?;
    let file = File::from(memfd);
    let high = layout::RAM_END - layout::MMIO_LOW_END;
    let ranges = [(0, layout::MMIO_LOW), (layout::MMIO_LOW_END, high)];
    let mut regions = Vec::new();
    for (start, length) in ranges {
        let offset = FileOffset::new(file.try_clone()?, start);
        regions.push((GuestAddress(start), usize::try_from(length).map_err(std::io::Error::other)?, Some(offset)));
    }
    GuestMemory::from_ranges_with_files(regions).map_err(std::io::Error::other)
}

/// What MMIO answers.
pub fn mmio_byte(address: u64) -> u8 {
    (address as u8).wrapping_mul(3) ^ 0x5a
}

impl Board {
    /// A case's board.
    pub fn new(case: &Case) -> Self {
        let pending = case.events.iter().take(case.pending).copied().collect();
        let inner = Inner { pending, at_halt: case.at_halt, ..Inner::default() };
        Self {
            events: case.events.clone(),
            ends_at_halt: case.ending == Ending::Halt,
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            notifiers: OnceLock::new(),
            changes: case.changes.clone(),
            partition: OnceLock::new(),
        }
    }

    /// Says how to reach the processors and their memory.
    pub fn connect(&self, partition: &Arc<dyn Partition>, vcpus: u32) {
        let notifiers = (0..vcpus).filter_map(|index| partition.notifier(index)).collect();
        let _ = self.partition.set(Arc::downgrade(partition));
        let _ = self.notifiers.set(notifiers);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn notifiers(&self) -> &[Arc<dyn Notifier>] {
        self.notifiers.get().map_or(&[], Vec::as_slice)
    }

    /// Raises an event by its number.
    pub fn raise(&self, number: usize) {
        if let Some(&(vcpu, event)) = self.events.get(number) {
            self.lock().pending.push((vcpu, event));
            self.wake.notify_all();
            if let Some(notifier) = self.notifiers().get(vcpu as usize) {
                notifier.notify();
            }
        }
    }

    /// Has a change of memory take place by its number.
    fn change(&self, number: usize) {
        let partition = self.partition.get().and_then(Weak::upgrade);
        if let Some((partition, change)) = partition.zip(self.changes.get(number)) {
            partition.change_memory(change.clone());
        }
    }

    /// Stops all processors.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.wake.notify_all();
        for notifier in self.notifiers() {
            notifier.stop();
        }
    }

    /// What was seen.
    pub fn seen(&self) -> Seen {
        let mut inner = self.lock();
        Seen { log: std::mem::take(&mut inner.log), stopped: inner.stop_written, halted: inner.halted }
    }
}

/// A processor's way to the board.
pub struct Io {
    board: Arc<Board>,
    index: u32,
    time: AtomicU64,
    priority: AtomicU8,
}

impl Io {
    /// For processor `index`.
    pub fn new(board: Arc<Board>, index: u32) -> Self {
        Self { board, index, time: AtomicU64::new(1 << 40), priority: AtomicU8::new(0) }
    }

    fn deliverable(&self, event: Event, interruptible: bool, nmi_open: bool) -> bool {
        match event {
            Event::Interrupt(vector) => interruptible && vector >> 4 > self.priority.load(Ordering::Relaxed),
            Event::Nmi => nmi_open,
            Event::Init | Event::StartUp(_) => true,
        }
    }

    fn find(&self, pending: &[(u32, Event)], interruptible: bool, nmi_open: bool) -> Option<usize> {
        pending.iter().position(|&(vcpu, event)| vcpu == self.index && self.deliverable(event, interruptible, nmi_open))
    }
}

impl CpuIo for Io {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.board.lock().log.push(Access::PortRead(port, width.bytes()));
        let answer = if port == port::DATA { 0x89ab_cdef } else { u32::MAX };
        answer & width.ones()
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        match port {
            port::STOP => {
                self.board.lock().stop_written = true;
                self.board.stop();
            }
            port::MEMORY => self.board.change(value as usize & 0xff),
            port::EVENT => self.board.raise(value as usize & 0xff),
            _ => self.board.lock().log.push(Access::PortWrite(port, width.bytes(), value)),
        }
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.board.lock().log.push(Access::MmioRead(address, data.len()));
        for (at, byte) in (address..).zip(data) {
            *byte = mmio_byte(at);
        }
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.board.lock().log.push(Access::MmioWrite(address, data.to_vec()));
    }

    fn apic_msr_read(&self, msr: u32) -> Result<u64, AccessError> {
        if msr == lodge_x86::msr::APIC_BASE { Ok(0xfee0_0900) } else { Err(AccessError) }
    }

    fn apic_msr_write(&self, _: u32, _: u64) -> Result<(), AccessError> {
        Err(AccessError)
    }

    fn task_priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    fn set_task_priority(&self, class: u8) {
        self.priority.store(class, Ordering::Relaxed);
        if let Some(notifier) = self.board.notifiers().get(self.index as usize) {
            notifier.notify();
        }
    }

    fn take_event(&self, interruptible: bool, nmi_open: bool) -> Option<Event> {
        let mut inner = self.board.lock();
        let at = self.find(&inner.pending, interruptible, nmi_open)?;
        Some(inner.pending.remove(at).1)
    }

    fn halt(&self, interruptible: bool, nmi_open: bool) {
        let mut inner = self.board.lock();
        if self.index == 0
            && let Some(event) = inner.at_halt.take().and_then(|number| self.board.events.get(number))
        {
            inner.pending.push(*event);
        }
        while !inner.stopped && self.find(&inner.pending, interruptible, nmi_open).is_none() {
            if self.board.ends_at_halt && self.index == 0 {
                inner.halted = true;
                drop(inner);
                self.board.stop();
                return;
            }
            let (guard, timeout) = self
                .board
                .wake
                .wait_timeout(inner, Duration::from_millis(50))
                .unwrap_or_else(|poison| poison.into_inner());
            inner = guard;
            if timeout.timed_out() {
                return;
            }
        }
    }

    fn host_tsc(&self) -> u64 {
        self.time.fetch_add(1000, Ordering::Relaxed)
    }

    fn clock(&self) -> ClockSample {
        let tsc = self.host_tsc();
        ClockSample { tsc, monotonic_ns: tsc, wall_ns: tsc }
    }

    fn random(&self) -> u64 {
        self.time.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
