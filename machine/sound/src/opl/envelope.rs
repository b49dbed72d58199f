//! An operator's envelope: how its level changes while the key is down, and after.
//!
//! ```text
//!   key ──► attack ──0──► decay ──sustain level──► sustain: held, or goes down at the release rate
//!              ▲                                      │
//!              └──key── release ◄──────no key─────────┘ (from anywhere)
//! ```
//!
//! Levels are attenuations in units of 0.1875 dB. A rate is four times what the register has, and what key scaling adds. Levels
//! change at every 4096th sample at the lowest four rates on average, and twice as often at each four more.

use serde::{Deserialize, Serialize};

/// The level that is silence: 96 dB.
pub const SILENT: u16 = 511;
/// From this level on an envelope that goes down is at its end.
const END: u16 = 0x1f8;
/// The rate from which on an attack takes no time.
const AT_ONCE: u8 = 60;

/// Where an envelope is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It gets louder.
    Attack,
    /// It goes down to the sustain level.
    Decay,
    /// It stays there, or goes on down.
    Sustain,
    /// The key is up.
    #[default]
    Release,
}

/// An envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// Where it is.
    pub stage: Stage,
    /// Attenuation, 0 to [`SILENT`].
    pub level: u16,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { stage: Stage::Release, level: SILENT }
    }
}

/// What the registers say of an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Attack, decay and release rates, 0 to 15.
    pub rates: [u8; 3],
    /// The level that is held at, in units of 3 dB; 15 stands for 93 dB.
    pub sustain: u8,
    /// It is held there as long as the key is down.
    pub hold: bool,
    /// What key scaling adds to rates.
    pub scaling: u8,
}

impl Shape {
    /// The rate of a stage, 0 to 63; `None` where nothing changes.
    fn rate(&self, stage: Stage) -> Option<u8> {
        let [attack, decay, release] = self.rates;
        let register = match stage {
            Stage::Attack => attack,
            Stage::Decay => decay,
            Stage::Sustain if self.hold => 0,
            Stage::Sustain | Stage::Release => release,
        };
        (register > 0).then(|| (4 * (register & 15) + self.scaling).min(63))
    }
}

/// By how much a level changes at a sample, by its number.
fn step(rate: u8, clock: u64) -> u16 {
    /// Of eight steps, which are taken: four, and one for each of the two lowest bits of the rate.
    const TAKEN: [u8; 4] = [0b1010_1010, 0b1011_1010, 0b1110_1110, 0b1111_1110];
    let (row, more) = (rate >> 2, usize::from(rate & 3));
    if row <= 12 {
        let shift = 12 - row;
        if clock & ((1 << shift) - 1) != 0 {
            return 0;
        }
        return u16::from(TAKEN[more] >> (clock >> shift & 7) & 1);
    }
    if row == 15 {
        return 4;
    }
    // None, one, two or three of four steps are twice as large.
    let twice = [0b0000u8, 0b1000, 0b1010, 0b1110][more] >> (clock & 3) & 1;
    1 << (u16::from(row - 13) + u16::from(twice))
}

impl Envelope {
    /// A key goes down.
    pub fn begin(&mut self, shape: Shape) {
        self.stage = Stage::Attack;
        if shape.rate(Stage::Attack).is_some_and(|rate| rate >= AT_ONCE) {
            self.level = 0;
        }
    }

    /// A key goes up.
    pub fn release(&mut self) {
        self.stage = Stage::Release;
    }

    /// Whether the level stays as it is, unless registers change.
    pub fn rests(&self, shape: Shape) -> bool {
        let done = self.stage != Stage::Attack && self.level == SILENT;
        done || self.stage != Stage::Decay && shape.rate(self.stage).is_none()
    }

    /// The next sample, by its number.
    pub fn advance(&mut self, shape: Shape, clock: u64) {
        let sustain = if shape.sustain < 15 { shape.sustain } else { 31 };
        match self.stage {
            Stage::Attack if self.level == 0 => self.stage = Stage::Decay,
            // As in the chip, which compares for equality: a level that has gone past it goes down to the end.
            Stage::Decay if self.level >> 4 == u16::from(sustain) => self.stage = Stage::Sustain,
            stage => {
                let Some(rate) = shape.rate(stage) else { return };
                if stage != Stage::Attack {
                    let level = self.level + step(rate, clock);
                    self.level = if level >= END { SILENT } else { level };
                } else if rate < AT_ONCE {
                    // An eighth of what is left, or a multiple of it, is taken away.
                    let change = ((self.level + 1) * step(rate, clock)).div_ceil(8);
                    self.level = self.level.saturating_sub(change);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 50.0;

    fn shape(rates: [u8; 3], scaling: u8) -> Shape {
        Shape { rates, sustain: 15, hold: true, scaling }
    }

    /// Samples from when the level passes `from` decibels to when it passes `to`.
    fn samples(mut envelope: Envelope, shape: Shape, from: f64, to: f64) -> f64 {
        let (mut begin, mut clock) = (None, 0u64);
        let passed = |level: u16, limit: f64| {
            let level = f64::from(level) * 0.1875;
            if from < to { level >= limit } else { level <= limit }
        };
        loop {
            if begin.is_none() && passed(envelope.level, from) {
                begin = Some(clock);
            }
            if passed(envelope.level, to) {
                return (clock - begin.unwrap()) as f64;
            }
            envelope.advance(shape, clock);
            clock += 1;
            assert!(clock < 1 << 24);
        }
    }

    #[test]
    fn decays_take_the_time_of_the_data_sheet() {
        // Rate, and milliseconds from 0 to 90 dB and from 90 % to 10 % at 50 kHz.
        for (rate, whole, part) in [
            (4, 39_280.64, 8212.48),
            (5, 31_416.32, 6574.08),
            (20, 2455.04, 513.28),
            (40, 76.72, 16.04),
            (52, 9.6, 2.0),
        ] {
            let shape = shape([15, rate / 4, rate / 4], rate % 4);
            for stage in [Stage::Decay, Stage::Release] {
                let loud = Envelope { stage, level: 0 };
                let (all, middle) = (samples(loud, shape, 0.0, 90.0), samples(loud, shape, 0.915, 20.0));
                assert!((all / MS / whole - 1.0).abs() < 0.02, "{rate}: {all}");
                assert!((middle / MS / part - 1.0).abs() < 0.05, "{rate}: {middle}");
            }
        }
    }

    #[test]
    fn attacks_take_the_time_of_the_data_sheet() {
        for (rate, whole) in [(4, 2826.24), (5, 2252.80), (24, 88.32), (40, 5.52)] {
            let all =
                samples(Envelope { stage: Stage::Attack, level: SILENT }, shape([rate / 4, 0, 0], rate % 4), 95.9, 0.0);
            assert!((all / MS / whole - 1.0).abs() < 0.06, "{rate}: {all}");
        }
        let mut envelope = Envelope::default();
        envelope.begin(shape([15, 1, 1], 0));
        assert_eq!(envelope, Envelope { stage: Stage::Attack, level: 0 });
    }

    #[test]
    fn each_rate_is_quicker_than_the_one_before() {
        let sum = |rate| (0..1u64 << 15).map(|clock| u32::from(step(rate, clock))).sum::<u32>();
        for rate in 4..60 {
            // Eight steps of a row are 4, 5, 6 and 7 eighths of the next.
            let whole = (4 + u32::from(rate & 3)) << (rate >> 2);
            assert_eq!(sum(rate), whole, "{rate}");
        }
        assert_eq!((sum(60), sum(63)), (4 << 15, 4 << 15));
    }

    #[test]
    fn levels_are_held_and_let_go() {
        let run = |envelope: &mut Envelope, shape, count: u64| (0..count).for_each(|n| envelope.advance(shape, n));
        let mut held = shape([15, 12, 12], 0);
        held.sustain = 4;
        let mut envelope = Envelope::default();
        envelope.begin(held);
        run(&mut envelope, held, 1000);
        assert_eq!((envelope, envelope.rests(held)), (Envelope { stage: Stage::Sustain, level: 64 }, true));
        let going = Shape { hold: false, ..held };
        assert!(!envelope.rests(going));
        run(&mut envelope, going, 200);
        assert_eq!(envelope.level, 164);
        envelope.release();
        run(&mut envelope, held, 10_000);
        assert_eq!((envelope.level, envelope.rests(held)), (SILENT, true));
        // No attack rate, no sound.
        let never = shape([0, 15, 15], 3);
        envelope.begin(never);
        run(&mut envelope, never, 100_000);
        assert_eq!((envelope.level, envelope.rests(never)), (SILENT, true));
    }
}
