//! Graphics cards, and what they show.
//!
//! * [`Vga`] is a VGA card with Bochs' extensions on PCI, as QEMU's "standard VGA": firmware and systems have drivers for it.
//!   It can be a half of another function ([`Vga::half`]): of `lodge-virtio`'s GPU, which is a VGA until it has a driver.
//! * [`Screen`] is what a card shows: a [`Frame`] of pixels, or text. [`Monitor`] is what viewers look at; cards are
//!   plugged into it, one after the other when a machine is reset. Nothing is drawn while nobody looks.
//!
//! Neighbours: `lodge-vnc` shows a monitor's picture elsewhere; `lodge-pci` has the configuration space.
#![forbid(unsafe_code)]

mod codepage;
mod monitor;
mod screen;
pub mod vga;

pub use codepage::unicode;
pub use monitor::{Monitor, Picture, Resizing};
pub use screen::{Frame, Look, Mode, Screen};
pub use vga::{
    VIDEO_MEMORY_SIZES, Vga, VgaConfig, VgaParts, VgaWiring, VideoAperture, VideoMemory, VideoMemoryError, edid,
};
