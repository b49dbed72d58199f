//! Disks and CD drives on the controllers that every system knows.
//!
//! * [`ide`]: PIIX3's two channels with up to two drives each, by ports and by bus-master DMA.
//!
//! Neighbours: drives hold a `lodge_backend::Disk`, or a `Tray` where the medium can be changed.
#![forbid(unsafe_code)]

pub mod ide;

pub use ide::{Drive, Ide, IdeWiring};
