//! The floppy controller, an Intel 82077AA (290166), with two drives.
//!
//! [`Floppy`] is the registers. Commands are taken byte by byte ([`command`]); those for sectors are carried out ([`transfer`])
//! on a thread after about the time that drives take for it. Data go by DMA channel 2, or by the data port where the guest wants
//! that. Formats are told by the image's size ([`Geometry`]).
//!
//! ```text
//!            last byte                  time is up                    all moved
//!   command -----------> waiting -------------------> moving data ---------------> result --last byte--> command
//!      ^                    | seek: goes on by itself      (DMA: at once)             |
//!      +--------------------+                             none to give ---------------+
//! ```

mod command;
mod geometry;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

pub use geometry::{FloppyError, Geometry};
use lodge_backend::{Disk, Tray};
use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PauseDevice, PortDevice, PortRange, ResetDevice, SaveDevice, StateError,
    Timer, Timers, Width,
};
use lodge_chipset::DmaChannel;
use parking_lot::{Condvar, Mutex, MutexGuard};
use registers::*;
use state::Phase;
pub use state::{DriveState, FloppyState, Seek};

use crate::thread::Thread;

const REGION_MAIN: u8 = 0;
const REGION_LAST: u8 = 1;

/// The controller.
pub struct Floppy {
    unit: Arc<Unit>,
    _thread: Thread,
}

/// What the ports, the timer and the thread share.
struct Unit {
    // wiring
    trays: [Option<Arc<Tray>>; 2],
    dma: DmaChannel,
    irq: IrqLine,
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    volatile: Mutex<Volatile>,
    /// There may be something for the thread to do, or it has done it.
    changed: Condvar,
    /// Counts resets: what was begun before one is not gone on with.
    generation: AtomicU64,
}

#[derive(Default)]
struct Volatile {
    state: FloppyState,
    /// The thread carries out a command.
    working: bool,
    paused: bool,
    ended: bool,
}

impl Floppy {
    /// A controller with the drives that have a tray.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(
        trays: [Option<Arc<Tray>>; 2],
        dma: DmaChannel,
        irq: IrqLine,
        timers: &Timers,
    ) -> std::io::Result<Arc<Self>> {
        let unit = Arc::new_cyclic(|this: &Weak<Unit>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.time_is_up();
                }
            });
            let clock = timers.clock().clone();
            let (volatile, changed, generation) = Default::default();
            Unit { trays, dma, irq, clock, timer, volatile, changed, generation }
        });
        let on_thread = unit.clone();
        let thread = Thread::start("io-floppy", move || on_thread.serve())?;
        Ok(Arc::new(Self { unit, _thread: thread }))
    }
}

impl Drop for Floppy {
    fn drop(&mut self) {
        self.unit.volatile.lock().ended = true;
        self.unit.changed.notify_all();
    }
}

impl Unit {
    fn medium(&self, drive: usize) -> Option<(Arc<dyn Disk>, Geometry)> {
        let disk = self.trays.get(drive)?.as_ref()?.medium()?;
        let geometry = Geometry::of(disk.size())?;
        Some((disk, geometry))
    }

    fn is_there(&self, drive: usize) -> bool {
        self.trays.get(drive).is_some_and(Option::is_some)
    }

    /// The timer: seeks end here, commands on the thread.
    fn time_is_up(&self) {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        self.end_seeks(&mut volatile.state, now);
        if volatile.state.due.is_some_and(|due| due <= now) {
            self.changed.notify_all();
        }
        // What is due and not done yet is the thread's.
        self.timer.set(volatile.state.next_due().filter(|due| *due > now));
    }

    /// The thread.
    fn serve(&self) {
        let mut volatile = self.volatile.lock();
        while !volatile.ended {
            let due = volatile.state.due.is_some_and(|due| due <= self.clock.now_ns());
            if volatile.paused || !due {
                self.changed.wait(&mut volatile);
                continue;
            }
            volatile.state.due = None;
            match self.prepare(&mut volatile.state) {
                Err(outcome) => self.apply(&mut volatile.state, outcome),
                Ok(job) => {
                    volatile.working = true;
                    let generation = self.generation.load(Ordering::Acquire);
                    let current = || self.generation.load(Ordering::Acquire) == generation;
                    let outcome = MutexGuard::unlocked(&mut volatile, || job.carry_out(&self.dma, &current));
                    volatile.working = false;
                    if current() {
                        self.apply(&mut volatile.state, outcome);
                    }
                }
            }
            self.changed.notify_all();
        }
    }

    /// Has the command gone on with in so many nanoseconds.
    fn after(&self, state: &mut FloppyState, ns: u64) {
        state.due = Some(self.clock.now_ns().saturating_add(ns));
        self.timer.set(state.next_due());
    }

    fn interrupt(&self, state: &mut FloppyState, raised: bool) {
        state.interrupt = raised;
        self.irq.set(raised && state.output & DMA_GATE != 0);
    }

    fn reset_controller(&self, state: &mut FloppyState) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        state.reset();
        self.timer.set(None);
        self.interrupt(state, false);
    }

    fn write_output(&self, state: &mut FloppyState, value: u8) {
        let before = std::mem::replace(&mut state.output, value);
        if value & NOT_RESET == 0 {
            return self.reset_controller(state);
        }
        let raised = state.interrupt;
        if before & NOT_RESET == 0 {
            // Each drive asks to be looked at.
            state.polled = 4;
        }
        self.interrupt(state, raised || before & NOT_RESET == 0);
    }

    fn write_rate(&self, state: &mut FloppyState, value: u8) {
        state.rate = value & 3;
        if value & RATE_RESET != 0 && state.output & NOT_RESET != 0 {
            // This reset ends by itself.
            self.reset_controller(state);
            state.polled = 4;
            self.interrupt(state, true);
        }
    }

    fn main_status(state: &FloppyState) -> u8 {
        if state.output & NOT_RESET == 0 {
            return 0;
        }
        let seeking = (0..4).filter(|drive| state.seeks[*drive].is_some()).map(|drive| 1 << drive).sum::<u8>();
        seeking
            | match state.phase {
                Phase::Command if state.bytes.is_empty() => RQM,
                Phase::Command => RQM | BUSY,
                Phase::Waiting => BUSY,
                Phase::Giving => RQM | DIO | NON_DMA | BUSY,
                Phase::Taking => RQM | NON_DMA | BUSY,
                Phase::Result => RQM | DIO | BUSY,
            }
    }

    fn read_data(&self, state: &mut FloppyState) -> u8 {
        match state.phase {
            Phase::Result => {
                self.interrupt(state, false);
                let byte = if state.bytes.is_empty() { 0 } else { state.bytes.remove(0) };
                if state.bytes.is_empty() {
                    state.phase = Phase::Command;
                    // A seek that ended meanwhile has its turn.
                    let waits = state.sought.iter().any(Option::is_some);
                    self.interrupt(state, waits);
                }
                byte
            }
            Phase::Giving => {
                self.interrupt(state, false);
                let byte = state.data.get(state.at).copied().unwrap_or(0);
                state.at += 1;
                if state.at >= state.data.len() {
                    self.all_read(state);
                }
                byte
            }
            _ => 0,
        }
    }

    fn write_data(&self, state: &mut FloppyState, value: u8) {
        if state.output & NOT_RESET == 0 {
            return;
        }
        match state.phase {
            Phase::Command => {
                state.bytes.push(value);
                if state.bytes.len() >= command::length(state.bytes[0]) {
                    self.begin(state);
                }
            }
            Phase::Taking => {
                self.interrupt(state, false);
                if let Some(byte) = state.data.get_mut(state.at) {
                    *byte = value;
                }
                state.at += 1;
                if state.at >= state.data.len() {
                    // What they are for is the thread's to do.
                    state.phase = Phase::Waiting;
                    state.due = Some(self.clock.now_ns());
                    self.changed.notify_all();
                }
            }
            _ => {}
        }
    }

    fn digital_input(&self, state: &FloppyState) -> u8 {
        let drive = usize::from(state.output & 3);
        let motor = state.output & MOTOR << drive != 0;
        let changed = match self.trays.get(drive) {
            Some(Some(tray)) => tray.medium().is_none() || state.drives[drive].seen != tray.changes().saturating_add(1),
            _ => true,
        };
        if motor && changed { CHANGED } else { 0 }
    }
}

impl Device for Floppy {
    fn name(&self) -> &str {
        "floppy"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
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

impl PortDevice for Floppy {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![
            PortRange { base: BASE, length: LENGTH, region: REGION_MAIN, widths: Width::Byte },
            PortRange { base: LAST, length: 1, region: REGION_LAST, widths: Width::Byte },
        ]
    }

    fn port_read(&self, region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let unit = &self.unit;
        let state = &mut unit.volatile.lock().state;
        let value = match (region, offset) {
            (REGION_LAST, _) => unit.digital_input(state),
            (_, DIGITAL_OUTPUT) => state.output,
            (_, TAPE_DRIVE) => state.tape,
            (_, MAIN_STATUS) => Unit::main_status(state),
            (_, DATA) => unit.read_data(state),
            _ => return Err(AccessError::Nobody),
        };
        Ok(value.into())
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let unit = &self.unit;
        let state = &mut unit.volatile.lock().state;
        let value = value as u8;
        match (region, offset) {
            (REGION_LAST, _) => state.rate = value & 3,
            (_, DIGITAL_OUTPUT) => unit.write_output(state, value),
            (_, TAPE_DRIVE) => state.tape = value & 3,
            (_, MAIN_STATUS) => unit.write_rate(state, value),
            (_, DATA) => unit.write_data(state, value),
            _ => return Err(AccessError::Nobody),
        }
        Ok(())
    }
}

impl ResetDevice for Floppy {
    fn reset(&self) {
        let unit = &self.unit;
        let mut volatile = unit.volatile.lock();
        unit.generation.fetch_add(1, Ordering::AcqRel);
        while volatile.working {
            unit.changed.wait(&mut volatile);
        }
        volatile.state = FloppyState::default();
        unit.timer.set(None);
        unit.irq.set(false);
    }
}

impl PauseDevice for Floppy {
    fn pause(&self) {
        let mut volatile = self.unit.volatile.lock();
        volatile.paused = true;
        while volatile.working {
            self.unit.changed.wait(&mut volatile);
        }
    }

    fn resume(&self) {
        self.unit.volatile.lock().paused = false;
        self.unit.changed.notify_all();
    }
}

impl SaveDevice for Floppy {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.unit.volatile.lock().state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let restored: FloppyState = StateError::read("floppy", record)?;
        if !restored.is_sound() {
            return Err(StateError { device: "floppy".into(), cause: "a command without its bytes".into() });
        }
        let unit = &self.unit;
        let mut volatile = unit.volatile.lock();
        unit.generation.fetch_add(1, Ordering::AcqRel);
        while volatile.working {
            unit.changed.wait(&mut volatile);
        }
        let raised = restored.interrupt;
        volatile.state = restored;
        unit.interrupt(&mut volatile.state, raised);
        unit.timer.set(volatile.state.next_due());
        unit.changed.notify_all();
        Ok(())
    }
}
