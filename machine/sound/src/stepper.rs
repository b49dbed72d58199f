//! Sound that is a level changed now and then, rather than frames at a rate: the PC speaker, and a card's direct DAC.
//!
//! Each frame of the stream is the mean of the level over the frame's time, so that pulses much shorter than a frame are heard
//! as what they amount to. Levels that stay are no sound: what passes is let through a high-pass filter of 20 Hz, as any
//! amplifier has, and once that has died down nothing is left to do.

use lodge_chipset::pit::Signal;

use crate::mixer::Voice;
use crate::sink::Frame;

/// Most time that is made up for, in nanoseconds.
const MOST: u64 = 1_000_000_000;
/// Frames that are made at a time.
const PIECE: usize = 1024;
/// How often to come back while there is something to hear, in nanoseconds.
pub(crate) const INTERVAL: u64 = 10_000_000;

/// A level as a function of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// What it is made from.
    pub signal: Signal,
    /// The level while the signal is high, in units of samples; low is 0.
    pub high: f64,
}

impl Level {
    /// Zero.
    pub const ZERO: Self = Self { signal: Signal::Low, high: 0.0 };

    /// A level that stays.
    pub fn constant(level: i16) -> Self {
        Self { signal: Signal::High, high: level.into() }
    }

    fn mean(&self, from: u64, to: u64) -> f64 {
        self.signal.mean(from, to) * self.high
    }
}

pub(crate) struct Stepper {
    voice: Voice,
    /// What a level that stays loses from one frame to the next.
    decay: f64,
    level: Level,
    /// The frame that is being made, and how much of its time has passed.
    frame: u64,
    done: u64,
    /// The level times nanoseconds, over that time.
    sum: f64,
    /// The filter's last input and output.
    input: f64,
    output: f64,
    live: bool,
}

impl Stepper {
    pub fn new(voice: Voice) -> Self {
        let decay = (-std::f64::consts::TAU * 20.0 / f64::from(voice.rate())).exp();
        let level = Level::ZERO;
        Self { voice, decay, level, frame: 0, done: 0, sum: 0.0, input: 0.0, output: 0.0, live: false }
    }

    pub fn voice(&mut self) -> &mut Voice {
        &mut self.voice
    }

    /// Whether there is something to hear.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// When a frame begins.
    fn start(&self, frame: u64) -> u64 {
        let ns = u128::from(frame) * 1_000_000_000 / u128::from(self.voice.rate());
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    fn begin(&mut self, now: u64) {
        let frame = u128::from(now) * u128::from(self.voice.rate()) / 1_000_000_000;
        self.frame = u64::try_from(frame).unwrap_or(u64::MAX);
        self.done = now;
        // Until now it was what the filter has got used to.
        self.sum = self.input * now.saturating_sub(self.start(self.frame)) as f64;
    }

    /// The level is another one from now on.
    pub fn change(&mut self, now: u64, level: Level) {
        if level == self.level {
            return;
        }
        self.render(now);
        if !self.live && level.signal.stays(now) && level.mean(now, now.saturating_add(1)) == self.input {
            // Another way to say the same.
            self.level = level;
            return;
        }
        if !self.live {
            self.live = true;
            self.begin(now);
        }
        self.level = level;
    }

    /// The level has been this for ever, and is silent.
    pub fn rest(&mut self, level: Level) {
        self.voice.stop();
        (self.level, self.input, self.output, self.live) = (level, level.high, 0.0, false);
    }

    /// Plays what there is up to now.
    pub fn render(&mut self, now: u64) {
        if !self.live {
            return;
        }
        if now.saturating_sub(self.done) > MOST {
            self.voice.stop();
            self.begin(now - MOST);
        }
        let mut at = self.start(self.frame);
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let end = self.start(self.frame.saturating_add(1));
            let to = end.min(now);
            if to > self.done {
                self.sum += self.level.mean(self.done, to) * (to - self.done) as f64;
                self.done = to;
            }
            if end > now || end == u64::MAX {
                break;
            }
            let input = self.sum / end.saturating_sub(self.start(self.frame)).max(1) as f64;
            self.output = self.decay * self.output + input - self.input;
            self.input = input;
            let sample = self.output.round() as i16;
            frames.push([sample; 2]);
            (self.frame, self.sum) = (self.frame + 1, 0.0);
            if self.output.abs() < 0.5 && self.level.signal.stays(self.done) {
                // What it stays at is where the next change begins from.
                self.input = self.level.mean(self.done, self.done.saturating_add(1));
                (self.output, self.live) = (0.0, false);
                break;
            }
            if frames.len() == PIECE {
                self.voice.play(at, self.voice.rate(), &frames);
                frames.clear();
                at = self.start(self.frame);
            }
        }
        self.voice.play(at, self.voice.rate(), &frames);
        if !self.live {
            self.voice.stop();
        }
    }
}
