//! An NVM Express controller with one namespace (NVMe 1.4).
//!
//! [`Nvme`] is the PCI function and the registers. [`core`] has the queues and the threads that serve them; [`admin`] and [`io`]
//! are the commands, [`identify`] what the controller says of itself, [`command`] how commands name guest memory.
//!
//! ```text
//!   EN --> ready --> SHN: flush --> shut
//!    ^       | EN cleared: what is under way is given up
//!    +-------+ not ready once the threads have let go
//! ```

mod admin;
mod command;
mod core;
mod identify;
mod io;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use self::core::Core;
use lodge_backend::Disk;
use lodge_bus::{
    AccessError, Device, MmioDevice, MmioRange, MmioWidths, PauseDevice, PciAddress, PciFunction, ResetDevice,
    SaveDevice, StateError,
};
use lodge_pci::config::registers::CAP_MSIX;
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Msix, Router};
use parking_lot::Mutex;
use registers::*;
pub use state::{AdminState, CompletionState, ErrorState, NvmeState, PairState, SubmissionState};

use crate::ahci::PciWiring;
use crate::thread::Thread;

/// Most threads for I/O.
const MOST_THREADS: usize = 8;

/// What a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeConfig {
    /// Its name in the machine ("nvme0").
    pub name: String,
    /// Its serial number, at most 20 bytes.
    pub serial: String,
    /// Queues for I/O: 2 to 64, or the nearest to that.
    pub queues: u16,
}

struct Volatile {
    config: ConfigSpace,
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    /// EN was cleared, and threads still work.
    resetting: bool,
    paused: bool,
}

/// The controller.
pub struct Nvme {
    // configuration
    name: String,
    msix_cap: u8,
    // wiring
    router: Arc<Router>,
    core: Arc<Core>,
    _threads: Vec<Thread>,
    // volatile
    volatile: Mutex<Volatile>,
}

impl Nvme {
    /// A controller in front of a disk.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(config: NvmeConfig, disk: Arc<dyn Disk>, wiring: PciWiring) -> std::io::Result<Arc<Self>> {
        let queues = config.queues.clamp(LEAST_QUEUES, MOST_QUEUES);
        let msix = Msix::new(queues + 1, wiring.msi);
        let vectors = msix.vectors();
        let count = 1 + usize::from(queues).min(MOST_THREADS);
        let core = Core::new(&config.name, &config.serial, queues, disk, wiring.memory, msix, count);
        let mut threads = Vec::new();
        for n in 0..core.threads() {
            let on_thread = core.clone();
            match Thread::start(&format!("io-{}", config.name), move || on_thread.serve(n)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    core.ended.store(true, Ordering::Release);
                    return Err(error);
                }
            }
        }
        Ok(Arc::new_cyclic(|this: &Weak<Self>| {
            let mut space = ConfigSpace::new(&ConfigSpec {
                vendor: VENDOR,
                device: DEVICE,
                revision: 2,
                class: [0x01, 0x08, 0x02],
                subsystem: [SUBSYSTEM_VENDOR, 0x1100],
                multifunction: false,
                pin: 1,
            });
            let face: Weak<dyn MmioDevice> = this.clone();
            let range = MmioRange { base: 0, length: BAR_SIZE, region: BAR, widths: MmioWidths::DWORD_OR_QWORD };
            space.add_bar(BAR, BAR_SIZE, BarTarget::Memory64(wiring.mmio.mapping(face, range)));
            let mut body = (vectors - 1).to_le_bytes().to_vec();
            body.extend((TABLE as u32 | u32::from(BAR)).to_le_bytes());
            body.extend((PENDING as u32 | u32::from(BAR)).to_le_bytes());
            // The space is empty: there is room.
            let msix_cap = space.add_capability(CAP_MSIX, &body, &[0, 0xc0]).unwrap_or(0);
            let volatile =
                Volatile { config: space, cc: 0, csts: 0, aqa: 0, asq: 0, acq: 0, resetting: false, paused: false };
            let router = wiring.router;
            Self { name: config.name, msix_cap, router, core, _threads: threads, volatile: Mutex::new(volatile) }
        }))
    }

    fn read_register(&self, offset: u64) -> u32 {
        let mut volatile = self.volatile.lock();
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        match offset & !3 {
            CAP | 0x04 => half(CAP_VALUE),
            VS => VS_VALUE,
            INTMS | INTMC => self.core.interrupts.lock().mask,
            CC => volatile.cc,
            CSTS => self.status(&mut volatile),
            AQA => volatile.aqa,
            ASQ | 0x2c => half(volatile.asq),
            ACQ | 0x34 => half(volatile.acq),
            _ => 0,
        }
    }

    fn status(&self, volatile: &mut Volatile) -> u32 {
        if volatile.resetting {
            self.finish_reset(volatile);
        }
        if volatile.csts & CSTS_SHUTTING != 0 && self.core.shut.swap(false, Ordering::AcqRel) {
            volatile.csts = volatile.csts & !CSTS_SHUTTING | CSTS_SHUT;
        }
        let fatal = self.core.fatal.load(Ordering::Acquire);
        volatile.csts | if fatal { CSTS_CFS } else { 0 }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let mut volatile = self.volatile.lock();
        let volatile = &mut *volatile;
        let low = |old: u64| old & !0xffff_ffff | u64::from(value & !0xfff);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset & !3 {
            INTMS | INTMC => {
                let mut interrupts = self.core.interrupts.lock();
                let mask = interrupts.mask;
                interrupts.mask = if offset & !3 == INTMS { mask | value } else { mask & !value };
                self.core.update(&interrupts);
            }
            CC => self.configure(volatile, value),
            // The admin queue is set up while the controller is off (3.1.8).
            _ if volatile.cc & CC_EN != 0 => {}
            AQA => volatile.aqa = value & 0x0fff_0fff,
            ASQ => volatile.asq = low(volatile.asq),
            0x2c => volatile.asq = high(volatile.asq),
            ACQ => volatile.acq = low(volatile.acq),
            0x34 => volatile.acq = high(volatile.acq),
            _ => {}
        }
    }

    fn configure(&self, volatile: &mut Volatile, value: u32) {
        // While it is enabled, only a shutdown can be asked for (3.1.5).
        let fixed = volatile.cc & CC_EN & value != 0;
        let value = if fixed { volatile.cc & !CC_SHN | value & CC_SHN } else { value };
        let before = std::mem::replace(&mut volatile.cc, value & CC_KEPT);
        let core = &self.core;
        if before & CC_EN != 0 && value & CC_EN == 0 {
            core.cancelled.store(true, Ordering::Release);
            core.stop.store(true, Ordering::Release);
            volatile.resetting = true;
            self.finish_reset(volatile);
        } else if before & CC_EN == 0 && value & CC_EN != 0 && !volatile.resetting {
            self.enable(volatile);
        }
        let shuts = value & CC_SHN != 0 && before & CC_SHN == 0;
        if shuts && volatile.csts & (CSTS_SHUTTING | CSTS_SHUT) == 0 {
            volatile.csts |= CSTS_SHUTTING;
            core.shut.store(false, Ordering::Release);
            core.shutdown.store(true, Ordering::Release);
            core.ring(0);
        }
    }

    /// EN was set: the admin queues are there.
    fn enable(&self, volatile: &mut Volatile) {
        let core = &self.core;
        let (commands, page) = (volatile.cc >> 4 & 7, volatile.cc >> 7 & 15);
        let (submission, completion) = ((volatile.aqa & 0xfff) + 1, (volatile.aqa >> 16) + 1);
        if commands != 0 || page > MPS_MOST || submission < 2 || completion < 2 {
            // What is not there cannot be had (3.1.6, CFS).
            core.fatal.store(true, Ordering::Release);
            return;
        }
        core.page.store(4096 << page, Ordering::Relaxed);
        let queue =
            CompletionState { base: volatile.acq, entries: completion, interrupts: true, ..CompletionState::default() };
        *core.slots[0].completion.lock() = Some(queue);
        let queue = SubmissionState { base: volatile.asq, entries: submission, head: 0, completion: 0 };
        core.open(0, queue, 0);
        volatile.csts = CSTS_RDY;
        core.stop.store(volatile.paused, Ordering::Release);
        core.ring_all();
    }

    /// Ends a reset if no thread works any more; otherwise a later look at the status will.
    fn finish_reset(&self, volatile: &mut Volatile) {
        if !self.core.try_clear() {
            return;
        }
        volatile.resetting = false;
        volatile.csts = 0;
        if volatile.cc & CC_EN != 0 {
            self.enable(volatile);
        }
    }

    /// Configuration space changed: interrupts follow.
    fn config_changed(&self, volatile: &Volatile) {
        let mut interrupts = self.core.interrupts.lock();
        interrupts.command = volatile.config.command();
        let control = (volatile.config.read(self.msix_cap) >> 16) as u16;
        interrupts.msix.set_control(control);
        self.core.update(&interrupts);
    }

    /// After power-on, with no thread at work.
    fn power_on(&self, volatile: &mut Volatile) {
        let core = &self.core;
        core.cancelled.store(true, Ordering::Release);
        core.stop.store(true, Ordering::Release);
        core.quiesce();
        // A thread that looked at its flag meanwhile finds `stop`, and lets go at once.
        while !core.try_clear() {
            std::thread::yield_now();
        }
        core.shutdown.store(false, Ordering::Release);
        core.shut.store(false, Ordering::Release);
        (volatile.cc, volatile.csts, volatile.aqa, volatile.asq, volatile.acq) = (0, 0, 0, 0, 0);
        volatile.resetting = false;
        core.interrupts.lock().msix.reset();
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        self.core.cancelled.store(true, Ordering::Release);
        self.core.stop.store(true, Ordering::Release);
        self.core.ended.store(true, Ordering::Release);
    }
}

impl Device for Nvme {
    fn name(&self) -> &str {
        &self.name
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl MmioDevice for Nvme {
    fn mmio_read(&self, _region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        Ok(match offset {
            PENDING.. => self.core.interrupts.lock().msix.read_pending(offset - PENDING, bytes),
            TABLE.. => self.core.interrupts.lock().msix.read_table(offset - TABLE, bytes),
            // Doorbells cannot be read.
            DOORBELLS.. => 0,
            _ if bytes == 8 => u64::from(self.read_register(offset)) | u64::from(self.read_register(offset + 4)) << 32,
            _ => self.read_register(offset).into(),
        })
    }

    fn mmio_write(&self, _region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
        match offset {
            PENDING.. => {}
            TABLE.. => self.core.interrupts.lock().msix.write_table(offset - TABLE, bytes, value),
            DOORBELLS.. => {
                self.core.doorbell((offset - DOORBELLS) / 4, value as u32);
                if bytes == 8 {
                    self.core.doorbell((offset - DOORBELLS) / 4 + 1, (value >> 32) as u32);
                }
            }
            _ => {
                self.write_register(offset, value as u32);
                if bytes == 8 {
                    self.write_register(offset + 4, (value >> 32) as u32);
                }
            }
        }
        Ok(())
    }
}

impl PciFunction for Nvme {
    fn config_read(&self, offset: u8) -> u32 {
        self.volatile.lock().config.read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        let mut volatile = self.volatile.lock();
        volatile.config.write(offset, mask, value);
        self.config_changed(&volatile);
    }

    fn placed(&self, address: PciAddress) {
        // A function is placed once.
        let _ = self.core.line.set(self.router.line(address.device, 0));
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.volatile.lock().config.bars()
    }
}

impl ResetDevice for Nvme {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        self.power_on(&mut volatile);
        volatile.config.reset();
        self.config_changed(&volatile);
    }
}

impl PauseDevice for Nvme {
    fn pause(&self) {
        let mut volatile = self.volatile.lock();
        volatile.paused = true;
        self.core.paused.store(true, Ordering::Release);
        self.core.stop.store(true, Ordering::Release);
        self.core.quiesce();
        if volatile.resetting {
            self.finish_reset(&mut volatile);
        }
    }

    fn resume(&self) {
        let mut volatile = self.volatile.lock();
        volatile.paused = false;
        self.core.paused.store(false, Ordering::Release);
        if volatile.csts & CSTS_RDY != 0 && !volatile.resetting {
            self.core.stop.store(false, Ordering::Release);
        }
        drop(volatile);
        self.core.ring_all();
    }
}

impl SaveDevice for Nvme {
    fn save(&self) -> Vec<u8> {
        let mut volatile = self.volatile.lock();
        let csts = self.status(&mut volatile) & !CSTS_CFS;
        let core = &self.core;
        let pair = |slot: &core::Slot| PairState {
            submission: slot.submission.lock().clone(),
            tail: slot.tail.load(Ordering::Acquire),
            completion: slot.completion.lock().clone(),
        };
        let pairs = core.slots.iter().map(pair).collect();
        let mut admin = core.admin.lock().clone();
        admin.pending |= core.events.load(Ordering::Acquire);
        let counts = &core.counts;
        let counts = [&counts.reads, &counts.writes, &counts.bytes_read, &counts.bytes_written];
        let interrupts = core.interrupts.lock();
        lodge_savestate::to_record(&NvmeState {
            config: volatile.config.state(),
            msix: interrupts.msix.state(),
            mask: interrupts.mask,
            waiting: interrupts.waiting,
            cc: volatile.cc,
            csts,
            aqa: volatile.aqa,
            asq: volatile.asq,
            acq: volatile.acq,
            resetting: volatile.resetting,
            shutting: core.shutdown.load(Ordering::Acquire),
            fatal: core.fatal.load(Ordering::Acquire),
            pairs,
            admin,
            counts: counts.map(|count| count.load(Ordering::Relaxed)),
        })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let fault = |cause: &str| StateError { device: self.name.clone(), cause: cause.into() };
        let state: NvmeState = StateError::read(&self.name, record)?;
        let core = &self.core;
        if !state.is_sound(core.slots.len()) {
            return Err(fault("its queues are not those of this controller"));
        }
        let fits = state.msix.entries.len() == usize::from(core.interrupts.lock().msix.vectors());
        if !fits {
            return Err(fault("it has another number of interrupt vectors"));
        }
        let mut volatile = self.volatile.lock();
        self.power_on(&mut volatile);
        volatile.config.set_state(&state.config);
        {
            let mut interrupts = core.interrupts.lock();
            if !interrupts.msix.set_state(state.msix) {
                return Err(fault("its pending interrupts do not fit its vectors"));
            }
            (interrupts.mask, interrupts.waiting) = (state.mask, state.waiting);
            for (number, pair) in state.pairs.iter().enumerate() {
                interrupts.set_vector(number, pair.completion.as_ref().map_or(0, |queue| queue.vector));
            }
        }
        core.page.store(4096 << (state.cc >> 7 & 15), Ordering::Relaxed);
        *core.admin.lock() = state.admin;
        for (number, pair) in state.pairs.into_iter().enumerate() {
            *core.slots[number].completion.lock() = pair.completion;
            if let Some(queue) = pair.submission {
                core.open(number, queue, pair.tail);
            }
        }
        let counts = &core.counts;
        for (count, value) in
            [&counts.reads, &counts.writes, &counts.bytes_read, &counts.bytes_written].into_iter().zip(state.counts)
        {
            count.store(value, Ordering::Relaxed);
        }
        core.fatal.store(state.fatal, Ordering::Release);
        core.shutdown.store(state.shutting, Ordering::Release);
        (volatile.cc, volatile.csts) = (state.cc, state.csts);
        (volatile.aqa, volatile.asq, volatile.acq) = (state.aqa, state.asq, state.acq);
        self.config_changed(&volatile);
        volatile.resetting = state.resetting;
        if state.resetting {
            self.finish_reset(&mut volatile);
        }
        let runs = volatile.csts & CSTS_RDY != 0 && !volatile.paused;
        core.stop.store(!runs, Ordering::Release);
        drop(volatile);
        core.ring_all();
        Ok(())
    }
}
