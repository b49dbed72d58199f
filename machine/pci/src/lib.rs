//! PCI: bus 0 behind an i440FX, with PIIX3 and PIIX4 on it.
//!
//! * [`PciHost`] is the bus: configuration mechanism #1, and the assignment of addresses on machines without firmware.
//! * [`ConfigSpace`] is what a function builds its configuration space from; it moves BARs on the buses. [`Msix`] is its
//!   table of messages, [`Msi`] its one message.
//! * [`Router`] leads INTx pins to ISA interrupts, steered by PIIX3.
//! * [`read_rom`] is what all cards with an expansion ROM answer with.
//! * [`Bridge`] makes the functions of the board itself.
//!
//! Neighbours: devices such as `lodge-virtio`'s implement `lodge_bus::PciFunction`.
#![forbid(unsafe_code)]

pub mod bridges;
pub mod config;
pub mod host;
pub mod msi;
pub mod msix;
pub mod rom;
pub mod router;

pub use bridges::Bridge;
pub use config::{BarTarget, ConfigSpace, ConfigSpec, ConfigState};
pub use host::{PciError, PciHost, PciWindow};
pub use msi::Msi;
pub use msix::{Msix, MsixState};
pub use rom::{read_rom, rom_for, rom_length};
pub use router::{DEFAULT_ROUTES, Router, wire_of};
