//! Character streams: bytes in both directions, with backpressure.
//!
//! A device calls [`CharStream::send`], which never blocks and takes what it has room for. What arrives is offered to the
//! device's [`Receiver`] on the stream's own thread; what the device has no room for waits there until it calls
//! [`CharStream::resume`].
//!
//! ```text
//!   guest -> send() -> ring (64 KiB) -> writer thread -> host        ring full: send takes less, later room_to_send()
//!   guest <- receive() <- reader thread <- host                      receive takes less, later resume()
//! ```

mod fd;
mod ring;
mod socket;

use std::sync::Weak;

pub use fd::FdStream;
pub use socket::SocketStream;

/// The device's end of a stream. Called on the stream's threads, with no lock of the stream held.
pub trait Receiver: Send + Sync {
    /// Bytes have arrived. Returns how many of them the device took; after taking fewer than all it shall call
    /// [`CharStream::resume`] when it has room.
    fn receive(&self, data: &[u8]) -> usize;

    /// After [`CharStream::send`] took less than it was given: there is room again.
    fn room_to_send(&self);
}

/// The host's end of a stream.
pub trait CharStream: Send + Sync {
    /// Connects the device. Nothing is received before; a later call replaces an earlier one.
    fn connect(&self, receiver: Weak<dyn Receiver>);

    /// Takes bytes from the device, and returns how many. Never blocks.
    fn send(&self, data: &[u8]) -> usize;

    /// The device has room for received bytes again. Never blocks.
    fn resume(&self);

    /// Waits until all that was sent has reached the host, or for this long.
    fn flush(&self, at_most: std::time::Duration);
}

/// A stream that swallows everything and says nothing.
#[derive(Debug, Default)]
pub struct NullStream;

impl CharStream for NullStream {
    fn connect(&self, _receiver: Weak<dyn Receiver>) {}
    fn send(&self, data: &[u8]) -> usize {
        data.len()
    }
    fn resume(&self) {}
    fn flush(&self, _at_most: std::time::Duration) {}
}
