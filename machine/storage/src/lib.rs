//! Disks and CD drives on the controllers that every system knows.
//!
//! * [`floppy`]: the 82077AA with two drives.
//! * [`ide`]: PIIX3's two channels with up to two drives each, by ports and by bus-master DMA.
//!
//! Neighbours: drives hold a `lodge_backend::Disk`, or a `Tray` where the medium can be changed.
#![forbid(unsafe_code)]

pub mod floppy;
pub mod ide;
#[cfg(test)]
mod testing;
mod thread;

pub use floppy::{Floppy, FloppyError, Geometry};
pub use ide::{Drive, Ide, IdeWiring};
