//! The seam between engines and machines.
//!
//! An engine executes guest instructions. A machine is all else: memory, devices, interrupt controllers, time. They
//! meet here and nowhere else, so that the same machine runs on the translator and on KVM.
//!
//! * [`Engine`] says what it can do ([`Capabilities`]) and makes a [`Partition`] from a [`PartitionSpec`], or refuses
//!   with a reason; what it does not know it never ignores.
//! * [`Partition`] is one guest's processors and memory. It binds each [`Vcpu`] to the thread that will run it and
//!   hands out a [`Notifier`] for each, which other threads use to get its attention.
//! * [`Vcpu::run`] is passed a [`CpuIo`]: the processor calls *up* for ports, MMIO, interrupts, halts, time and random
//!   numbers, because a translator meets MMIO in the middle of a block.
//!
//! [`CpuIo`] is also the one input boundary: everything that reaches a vCPU and that the guest itself does not determine
//! passes through it. Record and replay will be built on that, so nothing may bypass it.
#![forbid(unsafe_code)]

mod io;
mod partition;
mod tracking;

pub use io::{AccessError, ClockSample, CpuIo, Event, Width};
pub use partition::{
    Capabilities, CrashReport, Engine, EngineError, Exit, KeptCode, MemoryChange, Mirroring, Notifier, Partition,
    PartitionSpec, Reach, Statistics, Vcpu, Verdict,
};

pub use lodge_x86::cpuid::{Entry as CpuidEntry, Table as CpuidTable};
pub use tracking::{TrackerSlice, WriteTracker, chunk_mask};

/// Guest physical memory, backed by memfds. Writes that do not come from a vCPU go through `vm-memory`, or report
/// their range to the region's [`WriteTracker`] afterwards.
pub type GuestMemory = vm_memory::GuestMemoryMmap<WriteTracker>;

/// Where a region of guest memory begins that is nowhere, until [`MemoryChange::Move`] gives it a place: beyond every
/// address that a processor or a bus has. At most one region can begin there.
pub const NOWHERE: u64 = 1 << 63;
