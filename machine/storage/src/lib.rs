//! Disks and CD drives on the controllers that every system knows.
//!
//! * [`floppy`]: the 82077AA with two drives.
//! * [`ide`]: PIIX3's two channels with up to two drives each, by ports and by bus-master DMA.
//!
//! Neighbours: drives hold a `lodge_backend::Disk`, or a `Tray` where the medium can be changed.
#![forbid(unsafe_code)]

mod ata;
pub mod floppy;
pub mod ide;
mod regions;
pub mod scsi;
#[cfg(test)]
mod testing;
mod thread;
mod transfer;

pub use floppy::{Floppy, FloppyError, Geometry};
pub use ata::Drive;
pub use ide::{Ide, IdeWiring};
