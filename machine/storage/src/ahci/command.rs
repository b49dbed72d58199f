//! Carrying out commands, on a port's thread.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::frame::{self, Command};
use super::port::{Port, Volatile};
use super::registers::*;
use super::state::PortState;
use crate::ata::registers::{ABRT, BSY, CONTROL_SRST, DRDY, DRQ, DSC, ERR, UNC, command as c};
use crate::ata::{By, QueueError, Source, Task, Unit, Work};
use crate::regions::Regions;
use crate::scsi::Sense;
use crate::transfer::{Failure, Transfer};

/// Status of a drive that is well.
const GOOD: u8 = DRDY | DSC;

/// What came of a command.
struct Outcome {
    task: Task,
    result: Result<(), u8>,
    /// Bytes that moved.
    moved: u64,
    /// How they did, if any were to: to the host, by PIO.
    way: Option<(bool, bool)>,
    /// Interrupts besides those of frames.
    raised: u32,
}

/// Why the list stops.
type Halt = u32;

impl Port {
    /// The thread.
    pub fn serve(&self) {
        let mut volatile = self.volatile.lock();
        while !volatile.ended {
            let paused = self.paused.load(Ordering::Acquire);
            let Some(slot) = volatile.next().filter(|_| !paused) else {
                self.changed.wait(&mut volatile);
                continue;
            };
            volatile.working = true;
            volatile.state.slot = slot;
            let generation = self.generation.load(Ordering::Acquire);
            let halt = self.carry_out(&mut volatile, slot, generation);
            volatile.working = false;
            if self.generation.load(Ordering::Acquire) == generation {
                if let Err(raised) = halt {
                    volatile.state.raised |= raised;
                    volatile.state.halted = true;
                }
            } else {
                self.released(&mut volatile);
            }
            self.update(&volatile.state);
            self.changed.notify_all();
        }
    }

    /// Runs without the lock.
    fn unlocked<T>(volatile: &mut MutexGuard<'_, Volatile>, run: impl FnOnce() -> T) -> T {
        MutexGuard::unlocked(volatile, run)
    }

    fn carry_out(&self, volatile: &mut MutexGuard<'_, Volatile>, slot: u32, generation: u64) -> Result<(), Halt> {
        let current = || self.generation.load(Ordering::Acquire) == generation;
        let list = volatile.state.list;
        let command = Self::unlocked(volatile, || Command::read(&self.memory, list, slot)).ok_or(IS_BUS)?;
        if !current() {
            return Ok(());
        }
        if !command.is_frame() {
            return Err(IS_INTERFACE);
        }
        if !command.is_command() {
            self.device_control(volatile, &command, slot);
            return Ok(());
        }
        if volatile.state.software_reset {
            // A drive that is being reset takes none.
            return Err(IS_INTERFACE);
        }
        let queued = matches!(command.code(), c::READ_QUEUED | c::WRITE_QUEUED);
        let done = if queued {
            self.queued(volatile, &command, slot, &current)
        } else {
            self.plain(volatile, &command, slot, &current)
        };
        // What is not wanted any more leaves no trace.
        if current() { done } else { Ok(()) }
    }

    /// The device control register is written: SRST resets the drive when it goes (SATA 3.0 11.4).
    fn device_control(&self, volatile: &mut Volatile, command: &Command, slot: u32) {
        let reset = command.control() & CONTROL_SRST != 0;
        let state = &mut volatile.state;
        state.issued &= !(1 << slot);
        let was = std::mem::replace(&mut state.software_reset, reset);
        if reset {
            if command.flags & HEADER_CLEAR == 0 {
                state.task_file = u32::from(BSY) | state.task_file & 0xff00;
            }
        } else if was {
            if let Some(unit) = &mut volatile.unit {
                unit.reset();
            }
            volatile.signed();
            self.send_signature(volatile);
        }
    }

    /// A command that is not queued.
    fn plain(
        &self,
        volatile: &mut MutexGuard<'_, Volatile>,
        command: &Command,
        slot: u32,
        current: &dyn Fn() -> bool,
    ) -> Result<(), Halt> {
        let before = std::mem::replace(&mut volatile.state.task_file, u32::from(BSY | GOOD));
        let mut task = command.task();
        let Volatile { unit: Some(unit), .. } = &mut **volatile else { return Err(IS_INTERFACE) };
        let is_cd = unit.is_cd();
        let begun = match unit.command(&mut task, command.code()) {
            Err(error) if command.code() == c::DEVICE_RESET && is_cd => Err(error),
            Ok(Some(Work::Packet)) => {
                let packet = Self::unlocked(volatile, || command.packet(&self.memory)).ok_or(IS_BUS)?;
                if !current() {
                    return Ok(());
                }
                let Volatile { unit: Some(unit), .. } = &mut **volatile else { return Err(IS_INTERFACE) };
                // The interrupt reason: the end.
                task.count = 3;
                unit.packet(&packet).map_err(|sense| unit.packet_failed(sense))
            }
            begun => begun,
        };
        let medium = volatile.unit.as_ref().and_then(Unit::medium);
        let mut outcome = Outcome { task, result: Ok(()), moved: 0, way: None, raised: 0 };
        match begun {
            Ok(None) => {}
            Err(error) => outcome.result = Err(error),
            Ok(Some(work)) => {
                let done = Self::unlocked(volatile, || {
                    let transfer =
                        Transfer { disk: medium.as_deref(), memory: &self.memory, current, pausing: &self.paused };
                    self.work(command, &work, &transfer)
                });
                let (result, interrupt) = done?;
                if !current() {
                    return Ok(());
                }
                if result == Err(Failure::Cancelled) {
                    // A pause does not wait for it: it is still in the list, and next.
                    volatile.state.task_file = before;
                    volatile.state.slot = (slot + SLOTS - 1) % SLOTS;
                    return Ok(());
                }
                outcome.way = way(&work);
                outcome.raised = if interrupt { IS_REGION } else { 0 };
                match result {
                    Ok(moved) => outcome.moved = moved,
                    Err(failure) => {
                        if failure == Failure::Short {
                            outcome.raised |= IS_OVERFLOW;
                        }
                        outcome.result = Err(self.refuse(volatile, failure));
                    }
                }
            }
        }
        command.moved(&self.memory, outcome.moved);
        self.complete(volatile, slot, &outcome, is_cd)
    }

    /// Moves data: what came of it, and whether a region asks for an interrupt. `Err`: there is no such memory.
    fn work(
        &self,
        command: &Command,
        work: &Work,
        transfer: &Transfer<'_>,
    ) -> Result<(Result<u64, Failure>, bool), Halt> {
        let (mut regions, interrupt) = match work {
            Work::Flush => (Regions::default(), false),
            _ => command.regions(&self.memory).ok_or(IS_BUS)?,
        };
        match transfer.work(work, &mut regions) {
            Err(Failure::Memory) => Err(IS_BUS),
            result => Ok((result, interrupt)),
        }
    }

    /// The error register of a failure.
    fn refuse(&self, volatile: &mut Volatile, failure: Failure) -> u8 {
        match (&mut volatile.unit, failure) {
            (Some(unit), _) if unit.is_cd() => unit.packet_failed(Sense::UNREADABLE),
            (_, Failure::Read) => UNC,
            (_, Failure::Refused(error)) => error,
            _ => ABRT,
        }
    }

    /// Sends the frames that end a command.
    fn complete(&self, volatile: &mut Volatile, slot: u32, outcome: &Outcome, is_cd: bool) -> Result<(), Halt> {
        let (status, error) = match outcome.result {
            Ok(()) => (GOOD, 0),
            Err(error) => (if is_cd { DRDY | ERR } else { GOOD | ERR }, error),
        };
        let state = &mut volatile.state;
        state.raised |= outcome.raised;
        state.task_file = u32::from(status) | u32::from(error) << 8;
        // What the host reads by PIO ends with the frame that began it (SATA 3.0 11.8), but for packets.
        let last = matches!(outcome.way, Some((true, true))) && outcome.result.is_ok() && !is_cd;
        if let Some((to_host, true)) = outcome.way {
            let bytes = frame::pio(&outcome.task, GOOD | DRQ, status, to_host, last, outcome.moved);
            self.receive(state, received::PIO_SETUP, &bytes);
        }
        if last {
            state.raised |= IS_PIO;
        } else {
            let bytes = frame::registers(&outcome.task, status, error, true);
            self.receive(state, received::REGISTERS, &bytes);
            state.raised |= IS_REGISTERS;
        }
        if outcome.result.is_err() {
            return Err(IS_ERROR);
        }
        state.issued &= !(1 << slot);
        Ok(())
    }

    /// A queued command (SATA 3.0 11.14).
    fn queued(
        &self,
        volatile: &mut MutexGuard<'_, Volatile>,
        command: &Command,
        slot: u32,
        current: &dyn Fn() -> bool,
    ) -> Result<(), Halt> {
        let task = command.task();
        let writes = command.code() == c::WRITE_QUEUED;
        let tag = u32::from(task.count >> 3 & 0x1f);
        let Volatile { unit: Some(unit), state, .. } = &mut **volatile else { return Err(IS_INTERFACE) };
        let active = state.active & 1 << slot != 0;
        let begun = if tag == slot && active { unit.queued(&task, writes) } else { Err(ABRT) };
        let medium = unit.medium();
        // The drive has taken it.
        state.issued &= !(1 << slot);
        self.receive(state, received::REGISTERS, &frame::registers(&task, GOOD, 0, false));
        let result = match begun {
            Err(error) => Err(error),
            Ok(work) => {
                let bytes = if task.features == 0 { 0x1_0000 } else { u64::from(task.features) } * 512;
                self.receive(state, received::DMA_SETUP, &frame::dma_setup(tag, !writes, bytes));
                let done = Self::unlocked(volatile, || {
                    let transfer =
                        Transfer { disk: medium.as_deref(), memory: &self.memory, current, pausing: &self.paused };
                    self.work(command, &work, &transfer)
                });
                let (result, interrupt) = done?;
                if !current() {
                    return Ok(());
                }
                if interrupt {
                    volatile.state.raised |= IS_REGION;
                }
                if result == Err(Failure::Short) {
                    volatile.state.raised |= IS_OVERFLOW;
                }
                result.map_err(|failure| self.refuse(volatile, failure))
            }
        };
        let Volatile { unit, state, .. } = &mut **volatile;
        let (status, error, ended) = match result {
            Ok(_) => (GOOD, 0, 1 << slot),
            Err(error) => (GOOD | ERR, error, 0),
        };
        state.active &= !ended;
        state.task_file = u32::from(status) | u32::from(error) << 8;
        self.receive(state, received::BITS, &frame::bits(status, error, ended));
        state.raised |= IS_BITS;
        if result.is_ok() {
            return Ok(());
        }
        if let Some(unit) = unit {
            unit.state.queue_error = Some(QueueError { tag: Some(tag as u8), status, error, task });
        }
        Err(IS_ERROR)
    }
}

impl Volatile {
    /// The slot whose turn it is.
    fn next(&self) -> Option<u32> {
        let state = &self.state;
        let runs = state.command & CMD_ST != 0 && !state.halted && self.unit.is_some();
        if !runs || state.link != SSTS_UP || state.task_file & u32::from(BSY | DRQ) != 0 && !state.software_reset {
            return None;
        }
        state.next()
    }
}

impl PortState {
    /// The issued slot behind the last one.
    fn next(&self) -> Option<u32> {
        let first = (self.slot + 1) % SLOTS;
        let turned = self.issued.rotate_right(first);
        (turned != 0).then(|| (turned.trailing_zeros() + first) % SLOTS)
    }
}

/// How work's data move, if they do: to the host, by PIO.
fn way(work: &Work) -> Option<(bool, bool)> {
    match work {
        Work::Give(Source::Bytes(_) | Source::Medium(..), by) => Some((true, matches!(by, By::Ports(_)))),
        Work::Take { by, .. } => Some((false, matches!(by, By::Ports(_)))),
        Work::Trim(_) => Some((false, false)),
        Work::Packet | Work::Flush => None,
    }
}
