//! A port: its registers, and the thread that carries out what the guest has put into its list.
//!
//! ```text
//!            CI written              frame read             moved
//!   idle ----------------> working ------------> working ----------> frame to memory, interrupt, idle
//!     ^                       |                                          |
//!     |                       +-- stopped or reset meanwhile: forgotten  +-- error: halted until ST is cleared
//!     |                       +-- a pause during a vast TRIM: still issued, begun anew
//! ```
//!
//! One command is carried out at a time, queued ones too: the host's page cache is what would reorder them.
//! The list "runs" as long as the thread works on a command, so that a driver that stops it knows its memory its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lodge_engine_api::GuestMemory;
use parking_lot::{Condvar, Mutex, MutexGuard};
use vm_memory::{Bytes, GuestAddress};

use super::frame;
use super::hba::Hba;
use super::registers::*;
use super::state::PortState;
use crate::ata::Unit;
use crate::ata::registers::{BSY, DRQ};

/// What ends when the thread lets go of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The link's reset.
    Link,
    /// The controller's.
    Controller,
}

pub(super) struct Volatile {
    pub state: PortState,
    pub unit: Option<Unit>,
    /// The thread works on a command.
    pub working: bool,
    ending: Option<Ending>,
    pub ended: bool,
}

/// A port.
pub(super) struct Port {
    pub number: usize,
    pub memory: GuestMemory,
    pub hba: Arc<Hba>,
    pub volatile: Mutex<Volatile>,
    /// There may be something for the thread to do, or it has done it.
    pub changed: Condvar,
    /// Counts stops and resets: what was begun before one does not count.
    pub generation: AtomicU64,
    /// Nothing is begun, and what may take minutes is left to be begun anew.
    pub paused: AtomicBool,
}

impl Port {
    /// A port with the drive that is on it.
    pub fn new(number: usize, unit: Option<Unit>, memory: GuestMemory, hba: Arc<Hba>) -> Arc<Self> {
        let volatile = Volatile { state: PortState::default(), unit, working: false, ending: None, ended: false };
        let port = Self {
            number,
            memory,
            hba,
            volatile: Mutex::new(volatile),
            changed: Condvar::new(),
            generation: AtomicU64::new(0),
            paused: AtomicBool::new(false),
        };
        port.volatile.lock().reset_registers();
        Arc::new(port)
    }

    /// Tells the controller whether the port has an interrupt.
    pub fn update(&self, state: &PortState) {
        self.hba.set_pending(self.number, state.interrupts() & state.enabled != 0);
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        let volatile = self.volatile.lock();
        let state = &volatile.state;
        match offset {
            at::CLB => state.list as u32,
            at::CLBU => (state.list >> 32) as u32,
            at::FB => state.frames as u32,
            at::FBU => (state.frames >> 32) as u32,
            at::IS => state.interrupts(),
            at::IE => state.enabled,
            at::CMD => {
                let runs = state.command & CMD_ST != 0 || volatile.working;
                let receives = state.command & CMD_FRE != 0;
                let bit = |set: bool, bit: u32| if set { bit } else { 0 };
                let slot = if state.command & CMD_ST != 0 { state.slot << 8 } else { 0 };
                state.command | CMD_ON | bit(runs, CMD_CR) | bit(receives, CMD_FR) | slot
            }
            at::TFD => state.task_file,
            at::SIG => state.signature,
            at::SSTS => state.link,
            at::SCTL => state.control,
            at::SERR => state.error,
            at::SACT => state.active,
            at::CI => state.issued,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&self, offset: u64, value: u32) {
        let mut volatile = self.volatile.lock();
        let volatile = &mut *volatile;
        let state = &mut volatile.state;
        let low = |old: u64, value: u32| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64, value: u32| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            at::CLB => state.list = low(state.list, value & !0x3ff),
            at::CLBU => state.list = high(state.list, value),
            at::FB => state.frames = low(state.frames, value & !0xff),
            at::FBU => state.frames = high(state.frames, value),
            at::IS => state.raised &= !value,
            at::IE => state.enabled = value & IS_ALL,
            at::CMD => self.write_command(volatile, value),
            at::SCTL => self.write_control(volatile, value),
            at::SERR => state.error &= !value,
            at::SACT if state.command & CMD_ST != 0 => state.active |= value,
            at::CI if state.command & CMD_ST != 0 => {
                state.issued |= value;
                self.changed.notify_all();
            }
            _ => {}
        }
        self.update(&volatile.state);
    }

    fn write_command(&self, volatile: &mut Volatile, value: u32) {
        let state = &mut volatile.state;
        let before = state.command;
        state.command = value & CMD_KEPT;
        if value & CMD_CLO != 0 && before & CMD_ST == 0 {
            state.task_file &= !u32::from(BSY | DRQ);
        }
        if before & CMD_ST != 0 && value & CMD_ST == 0 {
            self.stop(state);
        }
        if before & CMD_ST == 0 && value & CMD_ST != 0 {
            state.slot = 0;
        }
        if value & CMD_FRE != 0 && !state.signature_sent && state.link == SSTS_UP {
            self.send_signature(volatile);
        }
        self.changed.notify_all();
    }

    /// The list is stopped: commands in it are forgotten.
    fn stop(&self, state: &mut PortState) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        (state.issued, state.active, state.halted) = (0, 0, false);
    }

    /// The frame that tells a drive's kind goes to memory as soon as frames are received.
    pub fn send_signature(&self, volatile: &mut Volatile) {
        let Some(unit) = &volatile.unit else { return };
        let bytes = frame::registers(&unit.signature(), volatile.state.task_file as u8, 1, false);
        volatile.state.signature_sent = true;
        self.receive(&volatile.state, received::REGISTERS, &bytes);
    }

    /// Puts a frame where the guest receives them.
    pub fn receive(&self, state: &PortState, at: u64, bytes: &[u8]) {
        if state.command & CMD_FRE != 0
            && let Some(address) = state.frames.checked_add(at)
        {
            // Frames that have nowhere to go are lost.
            let _ = self.memory.write_slice(bytes, GuestAddress(address));
        }
    }

    fn write_control(&self, volatile: &mut Volatile, value: u32) {
        let before = volatile.state.control & SCTL_DETECTION;
        volatile.state.control = value & 0xfff;
        match value & SCTL_DETECTION {
            SCTL_RESET | SCTL_OFF => {
                self.stop(&mut volatile.state);
                volatile.link_down(if value & SCTL_DETECTION == SCTL_OFF { SSTS_OFF } else { 0 });
            }
            0 if before == SCTL_RESET || before == SCTL_OFF => self.end_with(volatile, Ending::Link),
            _ => {}
        }
    }

    /// Resets the port with the controller.
    pub fn reset_with_controller(&self) {
        let mut volatile = self.volatile.lock();
        self.stop(&mut volatile.state);
        self.end_with(&mut volatile, Ending::Controller);
        self.update(&volatile.state);
    }

    /// Whether a reset waits for the thread.
    pub fn is_resetting(&self) -> bool {
        self.volatile.lock().ending == Some(Ending::Controller)
    }

    /// Resets now, or when the thread lets go of its command; until then the drive is busy.
    fn end_with(&self, volatile: &mut Volatile, ending: Ending) {
        if volatile.working {
            if volatile.ending != Some(Ending::Controller) {
                volatile.ending = Some(ending);
            }
            volatile.state.task_file = BSY.into();
            return;
        }
        volatile.ending = None;
        match ending {
            Ending::Controller => volatile.reset_registers(),
            Ending::Link => volatile.link_up(),
        }
        if volatile.state.command & CMD_FRE != 0 {
            self.send_signature(volatile);
        }
    }

    /// The thread has let go of a command that was stopped.
    pub fn released(&self, volatile: &mut Volatile) {
        if let Some(ending) = volatile.ending.take() {
            self.end_with(volatile, ending);
            self.update(&volatile.state);
        }
    }

    /// Waits until the thread does nothing.
    pub fn quiesce(&self, volatile: &mut MutexGuard<'_, Volatile>) {
        while volatile.working {
            self.changed.wait(volatile);
        }
    }

    /// After power-on.
    pub fn power_on(&self) {
        let mut volatile = self.volatile.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.quiesce(&mut volatile);
        volatile.ending = None;
        if let Some(unit) = &mut volatile.unit {
            unit.power_on();
        }
        volatile.state = PortState::default();
        volatile.reset_registers();
        self.update(&volatile.state);
    }
}

impl Volatile {
    /// Registers after a reset of the controller, with the link up again.
    pub fn reset_registers(&mut self) {
        // Where the guest's structures are stays (10.4.3).
        let (list, frames) = (self.state.list, self.state.frames);
        self.state = PortState { list, frames, ..PortState::default() };
        self.link_up();
    }

    fn link_down(&mut self, link: u32) {
        let state = &mut self.state;
        if state.link != link && state.link == SSTS_UP {
            state.error |= SERR_LINK;
        }
        (state.link, state.signature, state.task_file) = (link, SIG_NONE, TFD_NONE);
        state.software_reset = false;
    }

    fn link_up(&mut self) {
        self.link_down(0);
        let Some(unit) = &mut self.unit else { return };
        unit.reset();
        self.state.link = SSTS_UP;
        self.state.error |= SERR_LINK | SERR_EXCHANGED;
        self.signed();
    }

    /// The drive has told its kind.
    pub fn signed(&mut self) {
        let Some(unit) = &self.unit else { return };
        let signature = unit.signature();
        self.state.signature = (signature.lba as u32) << 8 | u32::from(signature.count);
        self.state.task_file = u32::from(unit.fresh_status()) | 1 << 8;
        self.state.signature_sent = false;
    }
}
