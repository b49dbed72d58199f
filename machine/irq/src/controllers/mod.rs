//! All interrupt controllers of a PC in user space, wired together.
//!
//! [`Controllers`] implements [`InterruptController`]. Locks: the I/O APIC, then the 8259A pair, then one local APIC.
//! Each vCPU has an atomic byte that says exactly what could be taken (the bits of [`hint`]), written under the
//! local APIC's lock, so that a vCPU with nothing to do pays for one load.
//!
//! ```text
//!   ISA 0..15 --+--> 8259A pair --INTR--> LINT0 of vCPU 0
//!               |
//!               +--> I/O APIC --messages--> local APICs <-- MSI, IPI
//!   GSI 16..23 ----/    ^---- EOI of level-triggered vectors
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError as BusError, Clock, Device, IrqSink, MmioDevice, MmioRange, MmioWidths, MsiTarget, PortDevice,
    PortRange, ResetDevice, SaveDevice, StateError, Timer, Timers, Width,
};
use lodge_engine_api::{AccessError, Event};
use parking_lot::{Mutex, MutexGuard};
use registers::*;
pub use state::ControllersState;

use crate::controller::{GuestTsc, InterruptController, Waker};
use crate::ioapic::IoApic;
use crate::lapic::{Effect, LocalApic, Now, Pending, hint};
use crate::message::{Message, mode};
use crate::pic::{self, Pic};

struct Slot {
    apic: Mutex<Local>,
    /// What could be taken: bits of [`hint`].
    hint: AtomicU8,
    timer: Timer,
}

struct Local {
    apic: LocalApic,
    /// The vCPU sleeps and watches its timer itself.
    asleep: bool,
    /// What the slot's timer is armed for.
    armed: Option<u64>,
}

/// The interrupt controllers of one machine.
pub struct Controllers {
    // configuration: none beyond the number of slots
    // wiring
    clock: Arc<dyn Clock>,
    tsc: Arc<dyn GuestTsc>,
    waker: Arc<dyn Waker>,
    // volatile
    io_apic: Mutex<IoApic>,
    pic: Mutex<Pic>,
    slots: Vec<Slot>,
    /// Where lowest-priority arbitration begins.
    next_lowest: AtomicU32,
}

impl Controllers {
    /// Controllers for `vcpus` vCPUs, whose APIC IDs are their indices.
    pub fn new(vcpus: u32, timers: &Timers, tsc: Arc<dyn GuestTsc>, waker: Arc<dyn Waker>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let slots = (0..vcpus).map(|index| {
                let this = this.clone();
                let timer = timers.timer(move || {
                    if let Some(this) = this.upgrade() {
                        this.timer_due(index);
                    }
                });
                let local = Local { apic: LocalApic::new(index), asleep: false, armed: None };
                Slot { apic: Mutex::new(local), hint: AtomicU8::new(0), timer }
            });
            Self {
                clock: timers.clock().clone(),
                tsc,
                waker,
                io_apic: Mutex::new(IoApic::new()),
                pic: Mutex::new(Pic::new()),
                slots: slots.collect(),
                next_lowest: AtomicU32::new(0),
            }
        })
    }

    fn now(&self) -> Now<'_> {
        Now { ns: self.clock.now_ns(), tsc: &*self.tsc }
    }

    fn slot(&self, vcpu: u32) -> Option<&Slot> {
        self.slots.get(vcpu as usize)
    }

    /// Publishes what a vCPU could take, and wakes it for what is new.
    fn publish(&self, vcpu: u32, slot: &Slot, local: &MutexGuard<'_, Local>) {
        let new = local.apic.hint();
        let old = slot.hint.swap(new, Ordering::AcqRel);
        if new & !old != 0 {
            self.waker.wake(vcpu);
        }
    }

    /// Changes a vCPU's local APIC and publishes what that means.
    fn with_local<R>(&self, vcpu: u32, change: impl FnOnce(&mut LocalApic) -> R) -> Option<R> {
        let slot = self.slot(vcpu)?;
        let mut local = slot.apic.lock();
        let result = change(&mut local.apic);
        self.publish(vcpu, slot, &local);
        Some(result)
    }

    /// Makes the timer agree with the local APIC; the common case, no change, costs one comparison.
    fn arm(slot: &Slot, local: &mut Local) {
        let wanted = if local.asleep { None } else { local.apic.deadline() };
        if local.armed != wanted {
            local.armed = wanted;
            slot.timer.set(wanted);
        }
    }

    fn timer_due(&self, vcpu: u32) {
        let Some(slot) = self.slot(vcpu) else { return };
        let now = self.now();
        let mut local = slot.apic.lock();
        local.armed = None;
        local.apic.poll_timer(now);
        Self::arm(slot, &mut local);
        self.publish(vcpu, slot, &local);
    }

    /// Asserts the INIT pin of all processors.
    pub fn reset_processors(&self) {
        for index in 0..self.slots.len() as u32 {
            self.with_local(index, LocalApic::assert_init);
        }
    }

    // --- messages ---

    /// Delivers a message to its destinations.
    fn send(&self, message: &Message) {
        if message.mode == mode::LOWEST {
            self.send_lowest(message);
            return;
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let mut local = slot.apic.lock();
            if local.apic.is_destination(message) {
                local.apic.accept(message);
                self.publish(index as u32, slot, &local);
            }
        }
    }

    /// Delivers to the destination with the lowest processor priority, taking turns among equals.
    fn send_lowest(&self, message: &Message) {
        let count = self.slots.len();
        let begin = self.next_lowest.fetch_add(1, Ordering::Relaxed) as usize;
        let mut best: Option<(u8, usize)> = None;
        for step in 0..count {
            let index = (begin.wrapping_add(step)) % count;
            let local = self.slots[index].apic.lock();
            if local.apic.is_destination(message) {
                let priority = local.apic.processor_priority();
                if best.is_none_or(|(lowest, _)| priority < lowest) {
                    best = Some((priority, index));
                }
            }
        }
        if let Some((_, index)) = best {
            self.with_local(index as u32, |apic| apic.accept(message));
        }
    }

    /// Carries out what a register write of `vcpu`'s local APIC asked for, without holding its lock.
    fn carry_out(&self, vcpu: u32, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(message) => self.send(&message),
            Effect::ToSelf(message) => {
                self.with_local(vcpu, |apic| apic.accept(&message));
            }
            Effect::ToAll(message, with_self) => {
                for index in 0..self.slots.len() as u32 {
                    if with_self || index != vcpu {
                        self.with_local(index, |apic| {
                            if apic.is_enabled() {
                                apic.accept(&message);
                            }
                        });
                    }
                }
            }
            Effect::Eoi(vector) => {
                self.io_apic.lock().end_of_interrupt(vector, &mut |message| self.send(&message));
            }
        }
    }

    /// Changes the 8259A pair and passes its output on.
    fn with_pic<R>(&self, change: impl FnOnce(&mut Pic) -> R) -> R {
        let mut pic = self.pic.lock();
        let before = pic.output();
        let result = change(&mut pic);
        let output = pic.output();
        if before != output {
            self.with_local(0, |apic| apic.set_lint0(output));
        }
        result
    }

    /// A change of `vcpu`'s own local APIC that may touch its timer.
    fn access<R>(&self, vcpu: u32, change: impl FnOnce(&mut LocalApic, Now<'_>) -> R) -> Option<R> {
        let slot = self.slot(vcpu)?;
        let now = self.now();
        let mut local = slot.apic.lock();
        let result = change(&mut local.apic, now);
        Self::arm(slot, &mut local);
        self.publish(vcpu, slot, &local);
        Some(result)
    }

    /// Where in the vCPU's register page an address is.
    fn page_offset(&self, vcpu: u32, address: u64) -> Option<u64> {
        let page = self.slot(vcpu)?.apic.lock().apic.page()?;
        (address & !0xfff == page).then_some(address & 0xfff)
    }
}

impl IrqSink for Controllers {
    fn set_level(&self, line: u32, high: bool) {
        let pin = if line == GSI_TIMER { PIN_TIMER } else { line as usize };
        // ISA interrupt 2 is the cascade: nothing is wired to pin 2 but the timer.
        if line != PIN_TIMER as u32 {
            self.io_apic.lock().set_line(pin, high, &mut |message| self.send(&message));
        }
        if line < 16 {
            self.with_pic(|pic| pic.set_line(line as u8, high));
        }
    }
}

impl MsiTarget for Controllers {
    fn signal(&self, address: u64, data: u32) {
        if let Some(message) = Message::from_msi(address, data) {
            self.send(&message);
        }
    }
}

impl InterruptController for Controllers {
    fn take_event(&self, vcpu: u32, interruptible: bool, nmi_open: bool) -> Option<Event> {
        if !self.has_event(vcpu, interruptible, nmi_open) {
            return None;
        }
        let slot = self.slot(vcpu)?;
        let mut local = slot.apic.lock();
        let pending = local.apic.take(interruptible, nmi_open);
        if pending == Some(Pending::Init) {
            Self::arm(slot, &mut local);
        }
        self.publish(vcpu, slot, &local);
        drop(local);
        Some(match pending? {
            Pending::Init => Event::Init,
            Pending::StartUp(vector) => Event::StartUp(vector),
            Pending::Nmi => Event::Nmi,
            Pending::Vector(vector) => Event::Interrupt(vector),
            Pending::ExtInt => Event::Interrupt(self.with_pic(Pic::acknowledge)),
        })
    }

    fn has_event(&self, vcpu: u32, interruptible: bool, nmi_open: bool) -> bool {
        let mut wanted = hint::START;
        if interruptible {
            wanted |= hint::INTERRUPT;
        }
        if nmi_open {
            wanted |= hint::NMI;
        }
        self.slot(vcpu).is_some_and(|slot| slot.hint.load(Ordering::Acquire) & wanted != 0)
    }

    fn msr_read(&self, vcpu: u32, msr: u32) -> Result<u64, AccessError> {
        self.access(vcpu, |apic, now| apic.msr_read(msr, now)).unwrap_or(Err(AccessError))
    }

    fn msr_write(&self, vcpu: u32, msr: u32, value: u64) -> Result<(), AccessError> {
        let effect = self.access(vcpu, |apic, now| apic.msr_write(msr, value, now)).unwrap_or(Err(AccessError))?;
        self.carry_out(vcpu, effect);
        Ok(())
    }

    fn apic_read(&self, vcpu: u32, address: u64, data: &mut [u8]) -> bool {
        let Some(offset) = self.page_offset(vcpu, address) else { return false };
        data.fill(0);
        // Registers are double words at multiples of 16; an access reaches only those at its own double words.
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at & 3) as usize;
            let bytes = (4 - within).min(data.len() - done);
            if at < 0x1000 {
                let value = self.access(vcpu, |apic, now| apic.mmio_read(at & !3, now)).unwrap_or(0);
                data[done..done + bytes].copy_from_slice(&value.to_le_bytes()[within..within + bytes]);
            }
            done += bytes;
        }
        true
    }

    fn apic_write(&self, vcpu: u32, address: u64, data: &[u8]) -> bool {
        let Some(offset) = self.page_offset(vcpu, address) else { return false };
        // Only whole, aligned double words are defined (SDM 3A 11.4.1.1); what is narrower is dropped.
        let skew = (offset.wrapping_neg() & 3) as usize;
        for (index, word) in data.get(skew..).unwrap_or_default().chunks_exact(4).enumerate() {
            let at = offset + skew as u64 + index as u64 * 4;
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if at < 0x1000
                && let Some(effect) = self.access(vcpu, |apic, now| apic.mmio_write(at, value, now))
            {
                self.carry_out(vcpu, effect);
            }
        }
        true
    }

    fn task_priority(&self, vcpu: u32) -> u8 {
        self.slot(vcpu).map_or(0, |slot| slot.apic.lock().apic.task_priority())
    }

    fn set_task_priority(&self, vcpu: u32, class: u8) {
        self.with_local(vcpu, |apic| apic.set_task_priority(class & 0xf));
    }

    fn halt_begin(&self, vcpu: u32) -> Option<u64> {
        let slot = self.slot(vcpu)?;
        let mut local = slot.apic.lock();
        local.asleep = true;
        Self::arm(slot, &mut local);
        local.apic.deadline()
    }

    fn halt_end(&self, vcpu: u32) {
        let Some(slot) = self.slot(vcpu) else { return };
        let now = self.now();
        let mut local = slot.apic.lock();
        local.asleep = false;
        local.apic.poll_timer(now);
        Self::arm(slot, &mut local);
        self.publish(vcpu, slot, &local);
    }

    fn apic_enabled(&self, vcpu: u32) -> bool {
        self.slot(vcpu).is_some_and(|slot| slot.apic.lock().apic.is_enabled())
    }

    fn inject_nmi(&self, vcpu: u32) {
        self.with_local(vcpu, LocalApic::inject_nmi);
    }
}

impl Device for Controllers {
    fn name(&self) -> &str {
        "irq"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn mmio(self: Arc<Self>) -> Option<Arc<dyn MmioDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl ResetDevice for Controllers {
    fn reset(&self) {
        self.io_apic.lock().reset();
        self.with_pic(Pic::reset);
        for index in 0..self.slots.len() as u32 {
            self.access(index, |apic, _| apic.reset());
        }
    }
}

/// The 8259A pair.
impl PortDevice for Controllers {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base, region| PortRange { base, length: 2, region, widths: Width::Byte };
        vec![
            range(pic::registers::MASTER, REGION_MASTER),
            range(pic::registers::SLAVE, REGION_SLAVE),
            range(pic::registers::ELCR, REGION_ELCR),
        ]
    }

    fn port_read(&self, region: u8, offset: u16, _width: Width) -> Result<u32, BusError> {
        let second = offset & 1 != 0;
        match region {
            REGION_ELCR => Ok(self.pic.lock().elcr(second).into()),
            _ => Ok(self.with_pic(|pic| pic.read(region == REGION_SLAVE, second)).into()),
        }
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), BusError> {
        let second = offset & 1 != 0;
        self.with_pic(|pic| match region {
            REGION_ELCR => pic.set_elcr(second, value as u8),
            _ => pic.write(region == REGION_SLAVE, second, value as u8),
        });
        Ok(())
    }
}

/// The I/O APIC.
impl MmioDevice for Controllers {
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        use crate::ioapic::registers::{BASE, LENGTH};
        vec![MmioRange { base: BASE, length: LENGTH, region: 0, widths: MmioWidths::DWORD }]
    }

    fn mmio_read(&self, _region: u8, offset: u64, _bytes: usize) -> Result<u64, BusError> {
        Ok(self.io_apic.lock().read(offset).into())
    }

    fn mmio_write(&self, _region: u8, offset: u64, _bytes: usize, value: u64) -> Result<(), BusError> {
        self.io_apic.lock().write(offset, value as u32, &mut |message| self.send(&message));
        Ok(())
    }
}

impl SaveDevice for Controllers {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&ControllersState {
            io_apic: self.io_apic.lock().state(),
            pic: self.pic.lock().state(),
            local_apics: self.slots.iter().map(|slot| slot.apic.lock().apic.state()).collect(),
        })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: ControllersState = StateError::read("irq", record)?;
        if state.local_apics.len() != self.slots.len() {
            return Err(StateError {
                device: "irq".into(),
                cause: format!("it is for {} vCPUs, and there are {}", state.local_apics.len(), self.slots.len()),
            });
        }
        self.io_apic.lock().set_state(state.io_apic);
        self.pic.lock().set_state(state.pic);
        for (index, saved) in state.local_apics.into_iter().enumerate() {
            self.access(index as u32, |apic, _| apic.set_state(saved));
        }
        Ok(())
    }
}
