//! Network cards that systems have drivers for in the box.
//!
//! * [`e1000`]: Intel's 82540EM, which everything since Windows XP knows.
//! * [`rtl8139`]: Realtek's RTL8139C+, in its own mode and that of the RTL8139 before it.
//! * [`ne2000`]: the card that DOS knows, for ISA and, as Realtek's RTL8029AS, for PCI.
//!
//! What they share: [`worker`] is the thread that each has, so that no doorbell makes a vCPU wait; [`eeprom`] the memory
//! that their addresses are in; [`frame`] frames in saved state; [`filter`] which addresses a card listens to.
//!
//! ```text
//!   vCPU ──doorbell──► Bell ──► worker: descriptors ──► Cable         a frame at a time, the card locked for each
//!                       ▲                descriptors ◄── Cable
//!   cable ──frames_wait, room_to_send──┘
//! ```
//!
//! Neighbours: cards are plugged into a `lodge_net::Cable`; the virtio card is `lodge-virtio`'s.
#![forbid(unsafe_code)]

pub mod e1000;
pub mod eeprom;
mod filter;
mod frame;
pub mod ne2000;
pub mod rtl8139;
#[cfg(test)]
mod testing;
mod wiring;
mod worker;

pub use e1000::E1000;
pub use frame::FrameState;
pub use ne2000::{IsaConfig, Ne2000};
pub use rtl8139::Rtl8139;
pub use wiring::{CardConfig, PciWiring};
