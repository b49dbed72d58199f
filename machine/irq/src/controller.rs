//! The seam between a machine and its interrupt controllers.
//!
//! [`InterruptController`] is what the vCPU threads and the devices see. [`crate::Controllers`] implements it in user
//! space; an engine that has controllers of its own may stand in its place.

use lodge_bus::{IrqSink, MsiTarget, ResetDevice};
use lodge_engine_api::{AccessError, Event};

/// Told that a vCPU has something new to take. Called with locks of the interrupt controllers held, from any thread:
/// must not block and must not call back.
pub trait Waker: Send + Sync {
    /// `take_event` has something new for this vCPU: get its attention, and end its halt if it is in one.
    fn wake(&self, vcpu: u32);
}

/// The time-stamp counters of the guest, for APIC timers in TSC-deadline mode (SDM 3A 11.5.4.1).
pub trait GuestTsc: Send + Sync {
    /// The vCPU's time-stamp counter now.
    fn now(&self, vcpu: u32) -> u64;

    /// The guest time, in nanoseconds, at which the vCPU's time-stamp counter will reach `tsc`; now or earlier if it
    /// has.
    fn reaches(&self, vcpu: u32, tsc: u64) -> u64;
}

/// The interrupt controllers of one machine. ISA and PCI devices reach them through [`IrqSink`], whose lines are
/// global system interrupts: 0 to 15 are the ISA interrupts (and drive the 8259A pair too), 16 to 23 the I/O APIC's
/// other pins; messages through [`MsiTarget`].
///
/// `vcpu` is an index below the number of vCPUs; for any other, nothing happens and nothing is there.
pub trait InterruptController: IrqSink + MsiTarget + ResetDevice {
    /// Takes what is most urgent for a vCPU, and acknowledges it (see `CpuIo::take_event`). One atomic load when there
    /// is nothing.
    fn take_event(&self, vcpu: u32, interruptible: bool, nmi_open: bool) -> Option<Event>;

    /// Whether `take_event` would give something.
    fn has_event(&self, vcpu: u32, interruptible: bool, nmi_open: bool) -> bool;

    /// Reads the APIC base, TSC deadline or an x2APIC MSR.
    ///
    /// # Errors
    /// The MSR is not there, or not in this mode: #GP(0).
    fn msr_read(&self, vcpu: u32, msr: u32) -> Result<u64, AccessError>;

    /// Writes such an MSR.
    ///
    /// # Errors
    /// The MSR is not there, is read-only, or refuses the value: #GP(0).
    fn msr_write(&self, vcpu: u32, msr: u32, value: u64) -> Result<(), AccessError>;

    /// Reads the vCPU's own local APIC page. `false` if `address` is not in it: ask the MMIO bus then.
    fn apic_read(&self, vcpu: u32, address: u64, data: &mut [u8]) -> bool;

    /// Writes the vCPU's own local APIC page. `false` if `address` is not in it.
    fn apic_write(&self, vcpu: u32, address: u64, data: &[u8]) -> bool;

    /// The task priority class, 0 to 15 (CR8).
    fn task_priority(&self, vcpu: u32) -> u8;

    /// Sets the task priority class.
    fn set_task_priority(&self, vcpu: u32, class: u8);

    /// The vCPU is about to sleep and will itself call [`InterruptController::halt_end`] no later than the guest time
    /// (in nanoseconds) that is returned: its APIC timer's next expiry. Until then no other thread is woken for it.
    fn halt_begin(&self, vcpu: u32) -> Option<u64>;

    /// The vCPU woke: a timer that expired meanwhile is pending now, one that did not is served by the timer thread
    /// again.
    fn halt_end(&self, vcpu: u32);

    /// Whether the vCPU's local APIC is globally enabled (its CPUID bit follows this).
    fn apic_enabled(&self, vcpu: u32) -> bool;

    /// Raises an NMI on a vCPU, from outside the guest.
    fn inject_nmi(&self, vcpu: u32);
}
