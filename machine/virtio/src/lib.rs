//! Virtio devices over PCI: block, SCSI, network, console, entropy, graphics, a tablet.
//!
//! * [`VirtioDevice`] is what a kind of device is; [`Block`], [`Scsi`], [`Net`], [`Console`], [`Rng`], [`Gpu`] and [`Tablet`]
//!   implement it.
//! * [`VirtioPci`] puts one behind PCI: registers, doorbells, MSI-X, saved state. A VGA can be the function's other half.
//! * [`VirtQueue`] gives a device its requests, and trusts nothing that the driver wrote. [`Broken`] puts a device into
//!   NEEDS_RESET.
//! * Queues are processed on threads of the device; a vCPU only rings a [`Bell`].
//!
//! Section numbers are those of Virtual I/O Device (VIRTIO) Version 1.2. Neighbours: `lodge-pci` for configuration space and
//! messages, `lodge-backend` for what is behind the devices, `lodge-storage` for SCSI commands, `lodge-net` for cables, `lodge-display` for what is
//! seen, `lodge-input` for who moves the pointer.
#![forbid(unsafe_code)]

pub mod block;
pub mod console;
mod device;
pub mod gpu;
pub mod input;
pub mod net;
mod queue;
pub mod rng;
pub mod scsi;
#[cfg(test)]
mod testing;
pub mod transport;
mod worker;

pub use block::{Block, BlockConfig};
pub use console::Console;
pub use device::{VirtioDevice, feature};
pub use gpu::{Gpu, GpuWiring};
pub use input::Tablet;
pub use net::{Net, NetConfig};
pub use queue::{Broken, Buffers, Chain, VirtQueue};
pub use rng::Rng;
pub use scsi::{Scsi, ScsiConfig, Target};
pub use transport::{Interrupts, VirtioPci, VirtioWiring};
pub use worker::Bell;
