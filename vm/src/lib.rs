//! One running virtual machine.
//!
//! * [`Config`] says what the machine shall be; [`Vm::start`] builds it and starts its processors.
//! * [`Handle`] enqueues requests (pause, resume, reset, quit, status); one driver thread owns the machine's state and
//!   serves them in turn, together with what the guest itself does (power off, reset, crash).
//! * [`Vm::wait`] gives the [`Report`] once the machine has ended.
//!
//! Inside: `ram` makes guest memory, `memory` passes changes of it on, `firmware` fills in what stands in it at first, `assembly` puts devices on the buses, from the table in `devices`, `inputs` is the one boundary
//! through which anything reaches a processor, `processors` runs one thread per vCPU, `driver` holds the lifecycle.
//!
//! Neighbours: front ends parse options into a [`Config`] and watch; engines and devices are used through their traits.

mod assembly;
mod boot_order;
mod clock;
mod config;
mod devices;
mod driver;
pub mod engines;
mod error;
mod firmware;
mod inputs;
mod memory;
mod processors;
mod ram;
mod report;
mod slots;
mod tsc;

#[cfg(test)]
mod tests;

pub use assembly::{Attached, AttachedCd, AttachedNetwork, Backends, Bus, CdBus, NetworkCard, host_profile};
pub use boot_order::{BootDevice, BootOrder};
pub use config::{Boot, Config, Firmware, GraphicsCard, Kernel, MachineType, OnReboot, SoundCard};
pub use driver::{Handle, Link, Phase, Status, Vm};
pub use error::VmError;
pub use lodge_engine_api::KeptCode;
pub use lodge_sound::{Sink, WavSink};
pub use lodge_storage::{FloppyError, Geometry};
pub use ram::{MEMORY_MAX, MEMORY_MIN, VIDEO_MEMORY};
pub use report::{Outcome, Report, Times};
