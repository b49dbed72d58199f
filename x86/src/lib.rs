//! The x86 processor as data.
//!
//! What every engine and every device that looks at a processor agrees on: the architectural state that is saved,
//! shown and compared ([`state`]), exceptions ([`exception`]), segments ([`segment`]), control-register and flag
//! bits ([`bits`]), MSR numbers ([`msr`]), the CPU that the guest sees ([`cpuid`]) and the walk of its page tables
//! ([`paging`]).
//!
//! Nothing here does I/O, owns memory or holds `unsafe`. References of the form "SDM 3A 4.5" are to the Intel 64 and
//! IA-32 Architectures Software Developer's Manual; "APM 2 5.3" to the AMD64 Architecture Programmer's Manual.
#![forbid(unsafe_code)]

pub mod bits;
pub mod cpuid;
pub mod descriptor;
mod dump;
pub mod exception;
pub mod msr;
pub mod paging;
pub mod segment;
pub mod state;

pub use exception::Exception;
pub use segment::{Segment, SegmentName, TableRegister};
pub use state::{Activity, CpuState, Gpr};
