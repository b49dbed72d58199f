//! What a virtual processor asks of the world while it runs.

/// The width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Width {
    /// One byte.
    Byte = 1,
    /// Two bytes.
    Word = 2,
    /// Four bytes.
    Dword = 4,
}

impl Width {
    /// Bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// All ones in this width: what an empty bus answers.
    pub const fn ones(self) -> u32 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
        }
    }
}

/// Something that an interrupt controller wants a processor to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Deliver the external interrupt with this vector; it has been acknowledged.
    Interrupt(u8),
    /// Deliver a non-maskable interrupt.
    Nmi,
    /// Reset to the state after INIT (SDM 3A table 9-1) and, on an application processor, wait for a start-up IPI.
    Init,
    /// Start in real mode at this vector times 0x1000. Ignored unless waiting for it.
    StartUp(u8),
}

/// An access that the model-specific register or control register refuses: the guest gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the register refuses the access")]
pub struct AccessError;

/// How guest time relates to the host's time-stamp counter, at one instant (the terms of the KVM paravirtual clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// The time-stamp counter at the instant.
    pub tsc: u64,
    /// Nanoseconds of guest monotonic time, zero at power-on.
    pub monotonic_ns: u64,
    /// Nanoseconds of the wall clock since 1970 UTC.
    pub wall_ns: u64,
}

/// The world as one vCPU sees it. One object per vCPU; all methods are called on that vCPU's thread.
///
/// None of these may panic, whatever the guest passes.
pub trait CpuIo {
    /// Reads a port. Where nobody answers, all ones.
    fn port_read(&self, port: u16, width: Width) -> u32;

    /// Writes a port. Where nobody answers, nothing happens.
    fn port_write(&self, port: u16, width: Width, value: u32);

    /// Reads physical memory that is not RAM: 1 to 64 bytes, within one page. Where nobody answers, all ones.
    fn mmio_read(&self, address: u64, data: &mut [u8]);

    /// Writes physical memory that is not RAM: 1 to 64 bytes, within one page.
    fn mmio_write(&self, address: u64, data: &[u8]);

    /// Reads an MSR that belongs to the interrupt controller: APIC base (0x1b), TSC deadline (0x6e0) and x2APIC
    /// (0x800 to 0x8ff). A TSC deadline is in terms of the machine's counter ([`CpuIo::tsc_shift`]): the engine, which
    /// keeps the guest's offset, adds it to what it shows the guest. Zero means "none" on both sides.
    fn apic_msr_read(&self, msr: u32) -> Result<u64, AccessError>;

    /// Writes such an MSR; a TSC deadline in terms of the machine's counter.
    fn apic_msr_write(&self, msr: u32, value: u64) -> Result<(), AccessError>;

    /// The task priority class, 0 to 15 (CR8).
    fn task_priority(&self) -> u8;

    /// Sets the task priority class.
    fn set_task_priority(&self, class: u8);

    /// Takes what is most urgent for this processor, and acknowledges it. Interrupts are given only if
    /// `interruptible`. Cheap when there is nothing.
    fn take_event(&self, interruptible: bool, nmi_open: bool) -> Option<Event>;

    /// Blocks until [`CpuIo::take_event`] would give something or the vCPU's [`crate::Notifier`] was used.
    fn halt(&self, interruptible: bool, nmi_open: bool);

    /// The host's time-stamp counter, through the boundary. The guest's is this plus [`CpuIo::tsc_shift`] plus an offset
    /// that the engine keeps. An engine may emit a fast form while nothing records.
    fn host_tsc(&self) -> u64;

    /// What makes of the host's time-stamp counter the machine's, which stands still while the machine is paused: it is
    /// added to it. It changes only while no vCPU runs; an engine looks at the beginning of each run. A machine that is
    /// never paused has none.
    fn tsc_shift(&self) -> u64 {
        0
    }

    /// Time for the paravirtual clock; `tsc` in it is the machine's.
    fn clock(&self) -> ClockSample;

    /// 64 random bits, for RDRAND and RDSEED.
    fn random(&self) -> u64;
}
