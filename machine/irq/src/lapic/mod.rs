//! A local APIC: xAPIC and x2APIC registers, priorities, timer.
//!
//! [`LocalApic`] is plain data without a lock. What reaches beyond it is an [`Effect`] that
//! [`crate::Controllers`] carries out: a message to other APICs, an end of interrupt for the I/O APIC.
//!
//! ```text
//!   message --> IRR --take--> ISR --EOI--> done
//!                    ^ if IRR's highest class > processor priority
//!   APIC base:  disabled <--> xAPIC --> x2APIC --> disabled       (SDM 3A figure 11-27; all other moves #GP)
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use lodge_engine_api::AccessError;
use registers::*;
pub use state::{LocalApicState, VectorSet};

use crate::controller::GuestTsc;
use crate::message::{Message, mode};

/// What a register write asks of the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this to APICs by destination.
    Send(Message),
    /// Send this to this APIC itself.
    ToSelf(Message),
    /// Send this to all APICs, with or without this one.
    ToAll(Message, bool),
    /// A level-triggered interrupt ended: tell the I/O APIC.
    Eoi(u8),
}

/// What is pending, by what it needs to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// INIT, always taken.
    Init,
    /// Start-up, always taken.
    StartUp(u8),
    /// NMI.
    Nmi,
    /// This vector.
    Vector(u8),
    /// The 8259A pair has a vector.
    ExtInt,
}

/// The bits of [`LocalApic::hint`].
pub mod hint {
    /// An interrupt could be taken.
    pub const INTERRUPT: u8 = 1;
    /// An NMI could be taken.
    pub const NMI: u8 = 2;
    /// INIT or start-up could be taken.
    pub const START: u8 = 4;
}

/// Time, as a local APIC needs it.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// Guest nanoseconds.
    pub ns: u64,
    /// The guest's time-stamp counters.
    pub tsc: &'a dyn GuestTsc,
}

/// One vCPU's local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    // configuration
    id: u32,
    // volatile
    state: LocalApicState,
}

impl LocalApic {
    /// After power-on. The BSP's LINT0 passes the 8259A pair on, as firmware would have set it (virtual wire mode).
    pub fn new(id: u32) -> Self {
        let mut apic = Self { id, state: LocalApicState::default() };
        apic.wire_lint0();
        apic
    }

    fn is_bsp(&self) -> bool {
        self.id == 0
    }

    fn wire_lint0(&mut self) {
        if self.is_bsp() {
            self.state.lvt[lvt::LINT0] = u32::from(mode::EXTINT) << 8;
        }
    }

    /// Back to power-on; LINT0's level stays.
    pub fn reset(&mut self) {
        let lint0 = self.state.lint0;
        self.state = LocalApicState { lint0, ..LocalApicState::default() };
        self.wire_lint0();
    }

    /// The vCPU took an INIT: registers as after power-on but for the base MSR (11.4.7.3); a start-up that came since
    /// stays.
    fn init(&mut self) {
        let (base, startup, lint0) = (self.state.base, self.state.startup, self.state.lint0);
        self.state = LocalApicState { base, startup, lint0, ..LocalApicState::default() };
        self.wire_lint0();
    }

    /// Enabled by the base MSR.
    pub fn is_enabled(&self) -> bool {
        self.state.base & BASE_ENABLE != 0
    }

    fn is_x2apic(&self) -> bool {
        self.state.base & (BASE_ENABLE | BASE_X2APIC) == BASE_ENABLE | BASE_X2APIC
    }

    fn is_software_enabled(&self) -> bool {
        self.is_enabled() && self.state.svr & SVR_ENABLE != 0
    }

    /// The address of the register page, in xAPIC mode.
    pub fn page(&self) -> Option<u64> {
        (self.is_enabled() && !self.is_x2apic()).then_some(self.state.base & BASE_ADDRESS_MASK)
    }

    // --- priorities and what is pending ---

    /// The processor priority (11.8.3.1).
    pub fn processor_priority(&self) -> u8 {
        let serving = self.state.isr.highest().unwrap_or(0);
        if self.state.tpr >> 4 >= serving >> 4 { self.state.tpr } else { serving & 0xf0 }
    }

    fn deliverable(&self) -> Option<u8> {
        if !self.is_software_enabled() {
            return None;
        }
        let vector = self.state.irr.highest()?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    fn takes_extint(&self) -> bool {
        if self.state.extint {
            return true;
        }
        let lint0 = self.state.lvt[lvt::LINT0];
        let open = !self.is_enabled() || lint0 & LVT_MASKED == 0 && (lint0 >> 8) & 7 == u32::from(mode::EXTINT);
        self.state.lint0 && open
    }

    /// What could be taken, as bits of [`hint`].
    pub fn hint(&self) -> u8 {
        let mut bits = 0;
        if self.takes_extint() || self.deliverable().is_some() {
            bits |= hint::INTERRUPT;
        }
        if self.state.nmi {
            bits |= hint::NMI;
        }
        if self.state.init || self.state.startup.is_some() {
            bits |= hint::START;
        }
        bits
    }

    /// Takes the most urgent. For [`Pending::ExtInt`] the caller goes on to acknowledge at the 8259A pair.
    pub fn take(&mut self, interruptible: bool, nmi_open: bool) -> Option<Pending> {
        if std::mem::take(&mut self.state.init) {
            self.init();
            return Some(Pending::Init);
        }
        if let Some(vector) = self.state.startup.take() {
            return Some(Pending::StartUp(vector));
        }
        if nmi_open && std::mem::take(&mut self.state.nmi) {
            return Some(Pending::Nmi);
        }
        if !interruptible {
            return None;
        }
        if self.takes_extint() {
            self.state.extint = false;
            return Some(Pending::ExtInt);
        }
        let vector = self.deliverable()?;
        self.state.irr.remove(vector);
        self.state.isr.insert(vector);
        Some(Pending::Vector(vector))
    }

    // --- arrival ---

    /// Whether a message's destination includes this APIC (11.6.2).
    pub fn is_destination(&self, message: &Message) -> bool {
        if !self.is_enabled() {
            return false;
        }
        let to = message.destination;
        if to == 0xff && !self.is_x2apic() || to == u32::MAX {
            return true;
        }
        if !message.logical {
            // Eight bits of 0xff are a broadcast from a device even in x2APIC mode.
            return to == self.id || to == 0xff;
        }
        if self.is_x2apic() {
            let own = self.logical_x2apic();
            return to >> 16 == own >> 16 && to & own & 0xffff != 0;
        }
        let own = self.state.ldr >> 24;
        if self.state.dfr >> 28 == 0xf {
            own & to & 0xff != 0
        } else {
            own >> 4 == (to >> 4) & 0xf && own & to & 0xf != 0
        }
    }

    /// The logical ID in x2APIC mode (11.12.10.2).
    fn logical_x2apic(&self) -> u32 {
        (self.id >> 4) << 16 | 1 << (self.id & 0xf)
    }

    /// Takes a message in that was addressed to this APIC.
    pub fn accept(&mut self, message: &Message) {
        match message.mode {
            mode::FIXED | mode::LOWEST => self.request(message.vector, message.level),
            mode::NMI => self.state.nmi = true,
            mode::INIT => self.assert_init(),
            mode::STARTUP => self.state.startup = Some(message.vector),
            mode::EXTINT => self.state.extint = true,
            // System management mode is firmware's, and there is none.
            _ => {}
        }
    }

    /// The INIT pin was asserted. A start-up that came before is forgotten.
    pub fn assert_init(&mut self) {
        self.state.init = true;
        self.state.startup = None;
    }

    fn request(&mut self, vector: u8, level: bool) {
        if !self.is_software_enabled() {
            return;
        }
        if vector < 16 {
            self.error(esr::RECEIVE_ILLEGAL);
            return;
        }
        self.state.irr.insert(vector);
        if level {
            self.state.tmr.insert(vector);
        } else {
            self.state.tmr.remove(vector);
        }
    }

    fn error(&mut self, bit: u32) {
        self.state.errors |= bit;
        let entry = self.state.lvt[lvt::ERROR];
        // An illegal vector in the error LVT itself must not recurse.
        if entry & LVT_MASKED == 0 && entry as u8 >= 16 {
            self.request(entry as u8, false);
        }
    }

    /// The 8259A pair's output changed.
    pub fn set_lint0(&mut self, high: bool) {
        let rising = high && !self.state.lint0;
        self.state.lint0 = high;
        let entry = self.state.lvt[lvt::LINT0];
        if rising && self.is_enabled() && (entry >> 8) & 7 != u32::from(mode::EXTINT) {
            self.local(entry);
        }
    }

    /// An NMI from the board, which arrives at LINT1.
    pub fn board_nmi(&mut self) {
        if self.is_enabled() {
            self.local(self.state.lvt[lvt::LINT1]);
        } else {
            self.state.nmi = true;
        }
    }

    /// An NMI whatever the LVT says.
    pub fn inject_nmi(&mut self) {
        self.state.nmi = true;
    }

    fn local(&mut self, entry: u32) {
        if entry & LVT_MASKED != 0 {
            return;
        }
        match (entry >> 8) as u8 & 7 {
            mode::FIXED => self.request(entry as u8, false),
            mode::NMI => self.state.nmi = true,
            mode::EXTINT => self.state.extint = true,
            _ => {}
        }
    }

    // --- timer (11.5.4) ---

    /// Nanoseconds per count: the timer's input clock is 1 GHz.
    fn divisor(&self) -> u64 {
        let code = self.state.divide & 3 | (self.state.divide >> 1) & 4;
        if code == 7 { 1 } else { 2 << code }
    }

    fn timer_mode(&self) -> u32 {
        self.state.lvt[lvt::TIMER] & LVT_TIMER_MODE
    }

    /// When the timer expires next, if that would be noticed.
    pub fn deadline(&self) -> Option<u64> {
        self.state.expires.filter(|_| self.state.lvt[lvt::TIMER] & LVT_MASKED == 0 && self.is_enabled())
    }

    /// Lets the timer expire if it is time.
    pub fn poll_timer(&mut self, now: Now<'_>) {
        let Some(expires) = self.state.expires.filter(|expires| *expires <= now.ns) else { return };
        match self.timer_mode() {
            LVT_PERIODIC => {
                let period = u64::from(self.state.initial_count) * self.divisor();
                // Periods that nobody saw are merged into one interrupt, as the IRR would have.
                let missed = (now.ns - expires).checked_div(period).unwrap_or(0);
                let next = (period > 0).then(|| expires.saturating_add((missed + 1).saturating_mul(period)));
                self.state.started = next.map_or(now.ns, |next| next.saturating_sub(period));
                self.state.expires = next;
            }
            LVT_DEADLINE => {
                self.state.expires = None;
                self.state.tsc_deadline = 0;
            }
            _ => self.state.expires = None,
        }
        self.local(self.state.lvt[lvt::TIMER] & !(7 << 8));
    }

    fn start_timer(&mut self, now: Now<'_>) {
        self.state.started = now.ns;
        self.state.expires = match self.timer_mode() {
            LVT_DEADLINE => None,
            _ if self.state.initial_count == 0 => None,
            _ => Some(now.ns.saturating_add(u64::from(self.state.initial_count) * self.divisor())),
        };
    }

    fn current_count(&self, now: Now<'_>) -> u32 {
        if self.timer_mode() == LVT_DEADLINE || self.state.initial_count == 0 {
            return 0;
        }
        let initial = u64::from(self.state.initial_count);
        let elapsed = now.ns.saturating_sub(self.state.started) / self.divisor();
        let left = if self.timer_mode() == LVT_PERIODIC {
            initial - elapsed % initial
        } else {
            initial.saturating_sub(elapsed)
        };
        left as u32
    }

    fn set_deadline(&mut self, value: u64, now: Now<'_>) {
        if self.timer_mode() != LVT_DEADLINE {
            // Ignored in the other modes (11.5.4.1).
            return;
        }
        self.state.tsc_deadline = value;
        self.state.expires = (value != 0).then(|| now.tsc.reaches(self.id, value));
        self.poll_timer(now);
    }

    // --- registers ---

    fn read_register(&mut self, register: u8, now: Now<'_>) -> Option<u32> {
        let x2apic = self.is_x2apic();
        Some(match register {
            ID if x2apic => self.id,
            ID => self.id << 24,
            VERSION => VERSION_VALUE,
            TPR => self.state.tpr.into(),
            APR if !x2apic => self.processor_priority().into(),
            PPR => self.processor_priority().into(),
            EOI | RRD if !x2apic => 0,
            LDR if x2apic => self.logical_x2apic(),
            LDR => self.state.ldr,
            DFR if !x2apic => self.state.dfr | 0x0fff_ffff,
            SVR => self.state.svr,
            ISR..=0x17 => self.state.isr.0[usize::from(register - ISR)],
            TMR..=0x1f => self.state.tmr.0[usize::from(register - TMR)],
            IRR..=0x27 => self.state.irr.0[usize::from(register - IRR)],
            ESR => self.state.esr,
            ICR_LOW => self.state.icr as u32,
            ICR_HIGH if !x2apic => (self.state.icr >> 32) as u32,
            LVT_TIMER..=LVT_ERROR => self.state.lvt[usize::from(register - LVT_TIMER)],
            INITIAL_COUNT => self.state.initial_count,
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.state.divide,
            _ => return None,
        })
    }

    fn write_register(&mut self, register: u8, value: u32, now: Now<'_>) -> Option<Effect> {
        let x2apic = self.is_x2apic();
        match register {
            TPR => self.state.tpr = value as u8,
            EOI => return Some(self.end_of_interrupt()),
            LDR if !x2apic => self.state.ldr = value & 0xff00_0000,
            DFR if !x2apic => self.state.dfr = value & 0xf000_0000,
            SVR => {
                self.state.svr = value & SVR_WRITABLE;
                if value & SVR_ENABLE == 0 {
                    // All LVTs are masked and stay so (11.4.7.2).
                    for entry in &mut self.state.lvt {
                        *entry |= LVT_MASKED;
                    }
                }
            }
            ESR => {
                self.state.esr = std::mem::take(&mut self.state.errors);
            }
            ICR_LOW => {
                self.state.icr = self.state.icr & !0xffff_ffff | u64::from(value & ICR_WRITABLE);
                return Some(self.send());
            }
            ICR_HIGH if !x2apic => {
                self.state.icr = self.state.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            LVT_TIMER..=LVT_ERROR => self.write_lvt(usize::from(register - LVT_TIMER), value, now),
            INITIAL_COUNT => {
                if self.timer_mode() != LVT_DEADLINE {
                    self.state.initial_count = value;
                    self.start_timer(now);
                }
            }
            DIVIDE => {
                self.state.divide = value & 0xb;
                if self.state.expires.is_some() && self.timer_mode() != LVT_DEADLINE {
                    self.start_timer(now);
                }
            }
            SELF_IPI if x2apic => {
                let message = self.message(u32::from(value as u8), 0);
                return Some(Effect::ToSelf(message));
            }
            ID | VERSION | APR | PPR | RRD if !x2apic => {}
            _ => return None,
        }
        Some(Effect::None)
    }

    fn write_lvt(&mut self, index: usize, value: u32, now: Now<'_>) {
        let mut value = value & LVT_WRITABLE[index];
        if self.state.svr & SVR_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        let old = std::mem::replace(&mut self.state.lvt[index], value);
        if index == lvt::TIMER && (old ^ value) & LVT_TIMER_MODE != 0 {
            let deadline = |entry: u32| entry & LVT_TIMER_MODE == LVT_DEADLINE;
            if deadline(old) || deadline(value) {
                // Moving to or from TSC-deadline mode disarms (11.5.4.1).
                self.state.expires = None;
                self.state.tsc_deadline = 0;
                self.state.initial_count = 0;
            } else if value & LVT_TIMER_MODE == LVT_PERIODIC && self.state.expires.is_none() {
                self.start_timer(now);
            }
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.state.isr.highest() else { return Effect::None };
        self.state.isr.remove(vector);
        if self.state.tmr.contains(vector) { Effect::Eoi(vector) } else { Effect::None }
    }

    fn message(&self, icr: u32, destination: u32) -> Message {
        Message {
            vector: icr as u8,
            mode: (icr >> ICR_MODE_SHIFT) as u8 & 7,
            logical: icr & ICR_LOGICAL != 0,
            // Only an I/O APIC's interrupts are level-triggered; an IPI's bit matters for INIT alone.
            level: false,
            destination,
        }
    }

    /// Carries out the interrupt command (11.6.1).
    fn send(&mut self) -> Effect {
        let icr = self.state.icr as u32;
        let destination = if self.is_x2apic() { (self.state.icr >> 32) as u32 } else { (self.state.icr >> 56) as u32 };
        let message = self.message(icr, destination);
        if message.mode == mode::INIT && icr & ICR_LEVEL != 0 && icr & ICR_ASSERT == 0 {
            // INIT level de-assert only set arbitration IDs, on processors of old.
            return Effect::None;
        }
        if matches!(message.mode, mode::FIXED | mode::LOWEST) && message.vector < 16 {
            self.error(esr::SEND_ILLEGAL);
            return Effect::None;
        }
        match (icr >> ICR_SHORTHAND_SHIFT) & 3 {
            0 => Effect::Send(message),
            1 => Effect::ToSelf(message),
            2 => Effect::ToAll(message, true),
            _ => Effect::ToAll(message, false),
        }
    }

    /// Reads the double word at `offset` of the register page.
    pub fn mmio_read(&mut self, offset: u64, now: Now<'_>) -> u32 {
        if offset & 0xf != 0 {
            return 0;
        }
        match self.read_register((offset >> 4) as u8, now) {
            Some(value) => value,
            None => {
                self.error(esr::ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the double word at `offset` of the register page.
    pub fn mmio_write(&mut self, offset: u64, value: u32, now: Now<'_>) -> Effect {
        if offset & 0xf != 0 {
            return Effect::None;
        }
        match self.write_register((offset >> 4) as u8, value, now) {
            Some(effect) => effect,
            None => {
                self.error(esr::ILLEGAL_REGISTER);
                Effect::None
            }
        }
    }

    /// Reads an MSR.
    pub fn msr_read(&mut self, msr: u32, now: Now<'_>) -> Result<u64, AccessError> {
        match msr {
            MSR_BASE => Ok(self.state.base | if self.is_bsp() { BASE_BSP } else { 0 }),
            MSR_DEADLINE => Ok(self.state.tsc_deadline),
            0x800..=0x8ff if self.is_x2apic() => {
                let register = (msr - MSR_X2APIC) as u8;
                match register {
                    ICR_LOW => Ok(self.state.icr),
                    // Write-only (table 11-6).
                    EOI | SELF_IPI => Err(AccessError),
                    _ => self.read_register(register, now).map(u64::from).ok_or(AccessError),
                }
            }
            _ => Err(AccessError),
        }
    }

    /// Writes an MSR.
    pub fn msr_write(&mut self, msr: u32, value: u64, now: Now<'_>) -> Result<Effect, AccessError> {
        match msr {
            MSR_BASE => self.write_base(value).map(|()| Effect::None),
            MSR_DEADLINE => {
                self.set_deadline(value, now);
                Ok(Effect::None)
            }
            0x800..=0x8ff if self.is_x2apic() => self.write_x2apic((msr - MSR_X2APIC) as u8, value, now),
            _ => Err(AccessError),
        }
    }

    fn write_x2apic(&mut self, register: u8, value: u64, now: Now<'_>) -> Result<Effect, AccessError> {
        let reserved = match register {
            ICR_LOW => {
                if value as u32 & !ICR_WRITABLE != 0 {
                    return Err(AccessError);
                }
                self.state.icr = value;
                return Ok(self.send());
            }
            TPR | SELF_IPI => !0xff,
            // EOI and ESR take zero only.
            EOI | ESR => !0,
            SVR => !u64::from(SVR_WRITABLE | 1 << 12),
            LVT_TIMER..=LVT_ERROR => {
                let read_only = LVT_REMOTE_IRR | 1 << 12;
                !u64::from(LVT_WRITABLE[usize::from(register - LVT_TIMER)] | read_only)
            }
            INITIAL_COUNT => !0xffff_ffff,
            DIVIDE => !0xb,
            // The rest is read-only or not there.
            _ => return Err(AccessError),
        };
        if value & reserved != 0 {
            return Err(AccessError);
        }
        self.write_register(register, value as u32, now).ok_or(AccessError)
    }

    fn write_base(&mut self, value: u64) -> Result<(), AccessError> {
        if value & !(BASE_ADDRESS_MASK | BASE_BSP | BASE_X2APIC | BASE_ENABLE) != 0 {
            return Err(AccessError);
        }
        let mode = |base: u64| (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0);
        match (mode(self.state.base), mode(value)) {
            // Invalid, or not a move that the figure has.
            (_, (false, true)) | ((true, true), (true, false)) | ((false, _), (true, true)) => {
                return Err(AccessError);
            }
            ((true, _), (false, false)) => {
                // Disabled: state is lost (11.4.3).
                self.reset();
            }
            ((true, false), (true, true)) => {
                // The logical ID is derived now, the ICR's high half means something else (11.12.5.1).
                self.state.icr &= 0xffff_ffff;
            }
            _ => {}
        }
        self.state.base = value & !BASE_BSP;
        Ok(())
    }

    /// The task priority class (CR8).
    pub fn task_priority(&self) -> u8 {
        self.state.tpr >> 4
    }

    /// Sets the task priority class; the sub-class becomes zero (11.8.6).
    pub fn set_task_priority(&mut self, class: u8) {
        self.state.tpr = class << 4;
    }

    /// Its saved state.
    pub fn state(&self) -> LocalApicState {
        self.state.clone()
    }

    /// Replaces its state.
    pub fn set_state(&mut self, state: LocalApicState) {
        self.state = state;
    }
}
