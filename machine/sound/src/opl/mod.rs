//! Yamaha's YMF262, the OPL3: an FM synthesizer of 36 operators and 18 channels, with eight waveforms, drums and two timers.
//!
//! [`OplState`] is the chip, all of it. [`timers`] are what drivers and games find it by; an [`operator`] makes a waveform under
//! an [`envelope`]; a [`channel`] joins operators. As an OPL2, which it is until a program sets it to new mode, it has the first
//! bank of registers, four waveforms, and no sides. Its owner has the ports, the guest's time, and a voice.
//!
//! ```text
//!   write ──► registers ──► keys ──► envelopes ─┐
//!   samples due in guest time ──► operators ────┴─► channels ──► voice: 49716 frames a second
//! ```
//!
//! Samples are made in guest time, and only while there is something to hear. Sources: Yamaha's application manual, and what has
//! been read from decapsulated chips and measured on others (tables, steps of envelopes, noise, which the manual does not have).
//! What is not there: outputs C and D, which have no converter on a Sound Blaster 16, and the test registers.

mod channel;
mod envelope;
mod operator;
pub mod registers;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod timers;

use registers::*;
pub use state::{Envelope, OperatorState, OplState, OplTimer, Stage};

use crate::mixer::Voice;
use crate::pace::Pace;
use crate::sink::Frame;

/// Samples that are made at a time.
const PIECE: u64 = 512;
/// How often to come back while there is something to hear, in nanoseconds.
const INTERVAL: u64 = 10_000_000;

impl OplState {
    /// The status. Its two lowest timer bits are zero in an OPL3 and not in an OPL2.
    pub(crate) fn status(&mut self, now: u64) -> u8 {
        timers::settle(&mut self.timers, now);
        timers::status(&self.timers)
    }

    /// Writes to one of the four ports: addresses of each bank at 0 and 2, data at 1 and 3. What is due is to have been played.
    pub(crate) fn write(&mut self, port: u16, value: u8, now: u64) {
        match port & 3 {
            0 => self.latch = value.into(),
            // In an OPL2 there is one bank, and the way to become an OPL3.
            2 if self.is_new() || u16::from(value) == MODE & 0xff => self.latch = 0x100 | u16::from(value),
            2 => self.latch = value.into(),
            _ => self.write_register(self.latch, value, now),
        }
    }

    fn write_register(&mut self, register: u16, value: u8, now: u64) {
        if matches!(register, TIMER_1 | TIMER_2 | TIMER_CONTROL) {
            timers::write(&mut self.timers, register, value, now);
            return;
        }
        let Some(place) = self.registers.get_mut(usize::from(register)) else { return };
        *place = value;
        // Keys, and what says whose they are.
        if matches!(register & 0xff, KEY..=0xbf) || matches!(register, FOUR_OPERATORS | MODE) {
            self.set_keys();
        }
        if self.pace.is_none() && self.is_live() {
            self.clock = (u128::from(now) * u128::from(RATE) / 1_000_000_000) as u64;
            self.pace = Some(Pace::new(now, RATE));
        }
    }

    /// Plays what is due.
    pub(crate) fn advance(&mut self, now: u64, voice: &mut Voice) {
        let Some(mut pace) = self.pace else { return };
        let mut due = pace.due(now);
        while due > 0 {
            let count = due.min(PIECE);
            let frames: Vec<Frame> = (0..count).map(|_| self.sample().map(cut_off)).collect();
            voice.play(pace.next(), RATE, &frames);
            pace.done += count;
            due -= count;
            if !self.is_live() {
                // The sound has died away: nothing is due until something is written.
                voice.stop();
                self.pace = None;
                return;
            }
        }
        self.pace = Some(pace);
    }

    /// When there will be something to do.
    pub(crate) fn due(&self, now: u64) -> Option<u64> {
        self.pace.map(|_| now.saturating_add(INTERVAL))
    }
}

/// What the converter, which has 16 bits, makes of a sum.
fn cut_off(sum: i32) -> i16 {
    sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}
