//! What stands between network cards and networks.
//!
//! ```text
//!   card ──send──► Cable ──send──► Network      a Network is full: send says no, and later room_to_send()
//!        ◄receive─       ◄receive─              frames are there: frames_wait(), and whoever has room takes them
//! ```
//!
//! * [`Frame`] is an Ethernet frame, and what has still to be done to it: a checksum, or that it be cut into several
//!   ([`Offload`]). [`Accepts`] is which of these somebody does himself.
//! * [`Network`] is what is at the far end. It takes frames without blocking, and keeps those for the card until they are
//!   taken, so that a slow guest slows its peers and loses nothing.
//! * [`Cable`] is between the two: it can be pulled, is as fast as it is said to be, can be listened to, and does for either
//!   side what that does not do itself. [`Rules`] say how far what the card sends goes.
//! * [`Tap`] is a network of the host's kernel, [`switch`] the way to one among machines.
//!   [`vnet`] is how frames are handed on with what is left to do to them, [`ip`] makes packets.
//! * [`MacAddress`] is a card's address.
//!
//! Neighbours: the cards are in `lodge-virtio` and `lodge-nic`, the network in user mode is `lodge-usernet`.

mod cable;
mod capture;
pub mod checksum;
mod far;
mod frame;
pub mod ip;
mod mac;
mod packets;
mod rate;
mod rules;
pub mod segment;
pub mod switch;
mod tap;
#[cfg(test)]
mod tests;
pub mod vnet;

use std::sync::Weak;

pub use cable::{Cable, CableConfig};
pub use capture::Capture;
pub use far::Far;
pub use frame::{Accepts, Checksum, Frame, HEADER, LARGEST, Offload, SMALLEST, Segmentation};
pub use mac::{BadMac, MacAddress};
pub use rate::Rate;
pub use rules::{BadRule, Rule, Rules};
pub use tap::{Tap, TapError};

/// The near end of a network or cable. Called on any thread, with no lock of the caller's held; must not block.
pub trait Listener: Send + Sync {
    /// There is a frame to receive where there was none.
    fn frames_wait(&self);

    /// After a frame had no room: there is room again.
    fn room_to_send(&self);

    /// The cable was plugged in or pulled.
    fn link_changed(&self) {}
}

/// What is at the far end of a cable.
pub trait Network: Send + Sync {
    /// Says who listens. A later call replaces an earlier one.
    fn connect(&self, listener: Weak<dyn Listener>);

    /// What it does itself to frames that it is sent.
    fn accepts(&self) -> Accepts;

    /// Takes a frame, or says that there is no room for it. Never blocks. Frames that make no sense are taken and lost.
    #[must_use]
    fn send(&self, frame: &Frame) -> bool;

    /// The next frame for the card.
    fn receive(&self) -> Option<Frame>;
}
