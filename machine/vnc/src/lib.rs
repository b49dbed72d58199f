//! A VNC server: shows a monitor to viewers, and takes their keys and pointer (RFB 3.8, RFC 6143, and earlier).
//!
//! * [`Server`] listens at an [`Address`] and serves several viewers at once, each on two threads of its own: a slow or
//!   hostile one holds up nobody, and costs a bounded amount of memory.
//! * `session` is one viewer's: handshake, messages, updates. `encoding` is how pixels are sent, `pixel` in which format.
//! * Who has no [`Password`] is only listened to on loopback addresses. The protocol encrypts nothing.
//!
//! Neighbours: `lodge-display` has the monitor, `lodge-input` the keys.
#![forbid(unsafe_code)]

mod address;
mod auth;
mod encoding;
mod input;
mod message;
mod pixel;
mod region;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use address::{Address, AddressError};
pub use auth::Password;
pub use server::{Server, VncConfig, VncError, VncWiring};
