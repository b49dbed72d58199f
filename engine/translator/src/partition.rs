//! What all vCPUs of a guest share: RAM, translations, and the ways to stop or notify each other.
//!
//! **Locks**, to be taken in this order: `world`, `code`. A vCPU holds `world` for reading while it is in emitted code
//! or a helper; taking it for writing stops all of them at their next safepoint. While one waits for `world` it holds
//! nothing.
#![expect(unsafe_code, reason = "a pointer to a vCPU's state is handed to other threads")]
// UNSAFETY: the pointer is used for one atomic field, under a lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use iced_x86::Mnemonic;
use lodge_engine_api::{CpuidTable, EngineError, MemoryChange, Notifier, Partition, PartitionSpec, Statistics, Vcpu};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use crate::cpu::Cpu;
use crate::kept::Kept;
use crate::memory::Ram;
use crate::mirror::Mirror;
use crate::stubs::Helpers;
use crate::translate::Code;
use crate::vcpu::TranslatorVcpu;

/// Bits of a guest physical address.
pub const PHYSICAL_BITS: u8 = 40;

/// Where a vCPU's state is, null while there is none. The lock around it keeps the state mapped.
struct CpuPointer(*mut Cpu);

// SAFETY: only the atomic `pending` is reached through it.
unsafe impl Send for CpuPointer {}

/// One vCPU as others see it.
pub struct Mailbox {
    /// The vCPU's state, once it is bound: only its atomic `pending` is touched through this.
    cpu: Mutex<CpuPointer>,
    /// Stop at the next safepoint, and stay stopped until `run` is called again.
    pub stop: AtomicBool,
    /// A notification came while the vCPU was not bound or not looking.
    pub notified: AtomicBool,
    /// Host pages that have come to hold code: writes to them must be seen from now on.
    pub protect: Mutex<Vec<u64>>,
    /// Something is in `protect`, or the code cache was emptied.
    pub chores: AtomicBool,
    /// Nothing is as it was: the vCPU's tables are of no use any more.
    pub flush: AtomicBool,
    bound: AtomicBool,
}

/// What vCPUs share.
pub struct Shared {
    /// Guest RAM.
    pub ram: Ram,
    /// All translations.
    pub code: Mutex<Code>,
    /// See the module's text.
    pub world: RwLock<()>,
    /// Device writes over translated code that are still to be acted on: address, length.
    pub foreign_writes: Mutex<Vec<(u64, u64)>>,
    /// There are some.
    pub foreign: AtomicBool,
    /// What has been asked for of [`lodge_engine_api::Partition::change_memory`] and is still to be done.
    pub memory_changes: Mutex<Vec<MemoryChange>>,
    /// There are some.
    pub memory_changed: AtomicBool,
    /// One per vCPU.
    pub mailboxes: Vec<Mailbox>,
    /// What CPUID answers.
    pub cpuid: CpuidTable,
    /// Counter frequency.
    pub tsc_hz: u64,
    /// The paravirtual clock's reference: counter and time, taken once for all vCPUs.
    pub clock: Mutex<Option<lodge_engine_api::ClockSample>>,
    /// Programs' memory at the programs' own addresses.
    pub mirror: Mirror,
    /// Sums of the counters of vCPUs, added by each when it stops.
    pub counters: Counters,
}

/// Sums over vCPUs.
#[derive(Default)]
pub struct Counters {
    /// In the order of [`COUNTER_NAMES`].
    pub values: [AtomicU64; COUNTER_NAMES.len()],
    /// Instructions that helpers carried out.
    pub helped: Mutex<FxHashMap<Mnemonic, u64>>,
}

/// Names of the per-vCPU counters.
pub const COUNTER_NAMES: [&str; 19] = [
    "entries", "memory_slow", "page_walks", "bounced", "system", "strings", "exceptions", "interrupts", "lookups",
    "code_writes", "unchained", "polls", "helper_exits", "host_faults", "raised", "space_switches", "space_flushes",
    "page_flushes", "shown",
];

impl Shared {
    /// Whether a store into RAM hits translated code; if so its blocks are dropped.
    pub fn note_write(&self, gpa: u64, length: usize) -> bool {
        let room = (4096 - gpa % 4096) as usize;
        let mask = lodge_engine_api::chunk_mask((gpa % 4096) as usize, length.min(room));
        if self.ram.watched(gpa) & mask == 0 {
            return false;
        }
        self.code.lock().drop_range(&self.ram, gpa, length as u64)
    }

    /// Has seen a store beside the translated code of a page. Where data are written again and again beside code that
    /// perhaps is dead, it is dropped.
    pub fn note_write_beside(&self, gpa: u64) {
        let mut code = self.code.lock();
        if code.tires_of(gpa) {
            code.drop_range(&self.ram, gpa & !0xfff, 4096);
        }
    }

    /// Notifies every vCPU that emitted code must be left.
    pub fn interrupt_all(&self) {
        for mailbox in &self.mailboxes {
            mailbox.interrupt();
        }
    }

    /// The same for all but one.
    pub fn interrupt_others(&self, index: u32) {
        for (n, mailbox) in self.mailboxes.iter().enumerate() {
            if n != index as usize {
                mailbox.interrupt();
            }
        }
    }

    /// Stops all vCPUs but `index`, which is the caller's, at a safepoint, for as long as the result lives.
    pub fn stop_others(&self, index: u32) -> parking_lot::RwLockWriteGuard<'_, ()> {
        loop {
            self.interrupt_others(index);
            // One that saw the interruption before it could see this wait has gone on: interrupt it again.
            if let Some(world) = self.world.try_write_for(std::time::Duration::from_micros(200)) {
                return world;
            }
        }
    }

    /// Carries out what has been asked of memory. `index` is the caller's vCPU; none is in emitted code.
    pub fn settle_memory_changes(&self, index: u32) {
        if !self.memory_changed.load(Ordering::SeqCst) {
            return;
        }
        let _world = self.stop_others(index);
        self.memory_changed.store(false, Ordering::SeqCst);
        // Not locked for longer: who asks for changes holds device locks.
        let changes = std::mem::take(&mut *self.memory_changes.lock());
        for change in changes {
            let touched = match change {
                MemoryChange::Reach { range, reach } => {
                    self.ram.set_reach(range.clone(), reach);
                    [range, 0..0]
                }
                MemoryChange::AddressLine20 { open } => {
                    self.ram.set_line_20(open);
                    // Blocks are linked over addresses that have come apart, or together.
                    self.code.lock().reset(&self.ram);
                    [0..0, 0..0]
                }
                MemoryChange::Move { region, to } => self.ram.move_region(region, to),
            };
            let mut code = self.code.lock();
            for range in touched {
                code.drop_range(&self.ram, range.start, range.end - range.start);
            }
        }
        self.mirror.show(None);
        self.sever();
        for mailbox in &self.mailboxes {
            mailbox.flush.store(true, Ordering::SeqCst);
            mailbox.chores.store(true, Ordering::SeqCst);
        }
    }

    /// Acts on device writes over translated code.
    pub fn settle_foreign_writes(&self) {
        if !self.foreign.swap(false, Ordering::SeqCst) {
            return;
        }
        let writes = std::mem::take(&mut *self.foreign_writes.lock());
        let mut code = self.code.lock();
        for (gpa, length) in writes {
            code.drop_range(&self.ram, gpa, length);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        crate::signal::forget(&self.code.get_mut().range());
    }
}

impl Mailbox {
    fn new() -> Self {
        Self {
            cpu: Mutex::new(CpuPointer(std::ptr::null_mut())),
            stop: AtomicBool::new(false),
            notified: AtomicBool::new(false),
            protect: Mutex::new(Vec::new()),
            chores: AtomicBool::new(false),
            flush: AtomicBool::new(false),
            bound: AtomicBool::new(false),
        }
    }

    /// Ties the mailbox to a vCPU's state, or unties it.
    pub fn tie(&self, cpu: *mut Cpu) {
        *self.cpu.lock() = CpuPointer(cpu);
    }

    /// Has the vCPU leave emitted code at its next safepoint.
    pub fn interrupt(&self) {
        self.notified.store(true, Ordering::SeqCst);
        Cpu::set_pending(self.cpu.lock().0);
    }
}

/// A guest on the translator.
pub struct TranslatorPartition {
    shared: Arc<Shared>,
}

impl TranslatorPartition {
    /// Makes the partition.
    pub fn new(spec: PartitionSpec, helpers: &Helpers) -> io::Result<Self> {
        let ram = Ram::new(spec.memory);
        let avx = std::arch::is_x86_feature_detected!("avx");
        let kept = spec.kept_code.as_ref().and_then(|wanted| Kept::open(wanted, &spec.cpuid, avx));
        let code = Code::new(spec.code_cache, helpers, avx, kept)?;
        crate::signal::register(code.range())?;
        crate::signal::set_leave(code.range().start, code.stubs.leave_fault);
        let shared = Arc::new(Shared {
            ram,
            code: Mutex::new(code),
            world: RwLock::new(()),
            foreign_writes: Mutex::new(Vec::new()),
            foreign: AtomicBool::new(false),
            memory_changes: Mutex::default(),
            memory_changed: AtomicBool::new(false),
            mailboxes: (0..spec.vcpus).map(|_| Mailbox::new()).collect(),
            cpuid: spec.cpuid,
            tsc_hz: spec.tsc_hz,
            clock: Mutex::new(None),
            mirror: Mirror::new(spec.mirroring),
            counters: Counters::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.ram.listen(move |gpa, length| {
            if let Some(shared) = weak.upgrade() {
                shared.foreign_writes.lock().push((gpa, length));
                shared.foreign.store(true, Ordering::SeqCst);
                shared.interrupt_all();
            }
        });
        Ok(Self { shared })
    }
}

impl Partition for TranslatorPartition {
    fn bind_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, EngineError> {
        let refuse = |what: String| EngineError::Unsupported { engine: "translator", what };
        let mailbox = self
            .shared
            .mailboxes
            .get(index as usize)
            .ok_or_else(|| refuse(format!("vCPU {index} of {}", self.shared.mailboxes.len())))?;
        if mailbox.bound.swap(true, Ordering::SeqCst) {
            return Err(refuse(format!("binding vCPU {index} twice")));
        }
        let vcpu = TranslatorVcpu::new(Arc::clone(&self.shared), index)
            .map_err(|source| EngineError::Host { what: "mapping a vCPU's state", source })?;
        Ok(Box::new(vcpu))
    }

    fn notifier(&self, index: u32) -> Option<Arc<dyn Notifier>> {
        self.shared.mailboxes.get(index as usize)?;
        Some(Arc::new(MailboxNotifier { shared: Arc::clone(&self.shared), index: index as usize }))
    }

    fn change_memory(&self, change: MemoryChange) {
        self.shared.memory_changes.lock().push(change);
        self.shared.memory_changed.store(true, Ordering::SeqCst);
        self.shared.interrupt_all();
    }

    fn statistics(&self) -> Statistics {
        let code = self.shared.code.lock();
        let mut counters = vec![
            ("translations", code.counts.translations),
            ("translations_loaded", code.counts.loaded),
            ("translated_instructions", code.counts.instructions),
            ("chained", code.counts.chained),
            ("dropped", code.counts.dropped),
            ("tired_pages", code.counts.tired),
            ("cache_resets", code.counts.resets),
        ];
        for (name, value) in COUNTER_NAMES.iter().zip(&self.shared.counters.values) {
            counters.push((name, value.load(Ordering::Relaxed)));
        }
        let helped = self.shared.counters.helped.lock();
        let mut helped: Vec<_> = helped.iter().map(|(name, count)| (format!("{name:?}"), *count)).collect();
        helped.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Statistics { counters, helped, code_bytes: code.bytes() as u64 }
    }

    fn retire(&self) {
        self.shared.code.lock().keep();
    }
}

struct MailboxNotifier {
    shared: Arc<Shared>,
    index: usize,
}

impl Notifier for MailboxNotifier {
    fn notify(&self) {
        self.shared.mailboxes[self.index].interrupt();
    }

    fn stop(&self) {
        let mailbox = &self.shared.mailboxes[self.index];
        mailbox.stop.store(true, Ordering::SeqCst);
        mailbox.interrupt();
    }
}
