//! Sound: cards, the PC speaker, and where on the host their sound goes.
//!
//! ```text
//!   Sb16 ──┐ frames at the card's rate, with guest time
//!   Ac97 ──┼──► Voice ──► Mixer ──► Sink: WavSink, NullSink
//!   Pit ──► Speaker ┘       one stream at the sink's rate
//! ```
//!
//! * [`Sink`] takes frames of 16-bit stereo. It never makes its caller wait.
//! * [`Mixer`] puts what all [`Voice`]s play at a moment of guest time into one stream.
//! * [`Speaker`] listens to the PIT's counter 2 and port 61h.
//! * [`Sb16`] and [`Ac97`] are the cards; [`opl`] is the FM synthesizer of the former.
//!
//! Cards move data when guest time says so, and sound follows: nothing waits for the host's speed, and nothing is armed while
//! all is silent. Neighbours: `lodge-chipset` has the PIT and the DMA controllers.
#![forbid(unsafe_code)]

pub mod ac97;
mod mixer;
pub mod opl;
mod pace;
pub mod sb16;
mod sink;
mod speaker;
mod stepper;
#[cfg(test)]
mod testing;

pub use ac97::{Ac97, Ac97Wiring};
pub use mixer::{Mixer, Voice};
pub use pace::Pace;
pub use sb16::{Sb16, Sb16Wiring};
pub use sink::{Frame, NullSink, Sink, WavSink};
pub use speaker::Speaker;
