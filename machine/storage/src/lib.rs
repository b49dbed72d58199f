//! Disks and CD drives on the controllers that every system knows.
//!
//! * [`floppy`]: the 82077AA with two drives.
//! * [`ahci`]: ICH9's SATA controller with six ports.
//! * [`ide`]: PIIX3's two channels with up to two drives each, by ports and by bus-master DMA.
//! * [`nvme`]: NVM Express, with a disk as its namespace.
//! * [`scsi`]: commands of SCSI disks and CD drives, for ATAPI's packets and for `lodge-virtio`.
//!
//! Neighbours: drives hold a `lodge_backend::Disk`, or a `Tray` where the medium can be changed.
#![forbid(unsafe_code)]

pub mod ahci;
mod ata;
pub mod floppy;
pub mod ide;
pub mod nvme;
mod regions;
pub mod scsi;
#[cfg(test)]
mod testing;
mod thread;
mod transfer;

pub use ahci::{Ahci, PciWiring};
pub use ata::Drive;
pub use floppy::{Floppy, FloppyError, Geometry};
pub use ide::{Ide, IdeWiring};
pub use nvme::{Nvme, NvmeConfig};
