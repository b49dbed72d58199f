//! Where sound goes on the host.
//!
//! A [`Sink`] takes 16-bit stereo frames in guest time: frames of a second of it are as many as its rate, however long the host
//! took. [`WavSink`] records them; [`NullSink`] is for a card that nobody hears.

mod wav;

use std::time::Duration;

pub use wav::WavSink;

/// Left and right.
pub type Frame = [i16; 2];

/// Takes sound.
pub trait Sink: Send + Sync {
    /// Frames in a second.
    fn rate(&self) -> u32;

    /// So many frames of silence, then these. Never waits: frames that there is no room for become silence.
    fn play(&self, silence: u64, frames: &[Frame]);

    /// Lets what has been played reach the host, for at most so long.
    fn flush(&self, _at_most: Duration) {}
}

/// Sound that nobody hears. Guest time alone says how fast it is consumed.
#[derive(Debug)]
pub struct NullSink {
    rate: u32,
}

impl NullSink {
    /// One that takes so many frames in a second.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1) }
    }
}

impl Sink for NullSink {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn play(&self, _silence: u64, _frames: &[Frame]) {}
}
