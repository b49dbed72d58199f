//! An operator: a phase that goes on at its frequency, a waveform, and an envelope.
//!
//! ```text
//!   frequency ± vibrato ──► phase ─+ modulation─► waveform ─+ level, tremolo─► exponential ──► -4085 to 4084
//! ```
//!
//! All is added up as logarithms, and made a number at the end.

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, SILENT, Shape, Stage};
use super::registers::*;
use super::tables::{MULTIPLES, exponential, key_scale_level, log_sine};

/// Bits of the phase.
const PHASE: u32 = (1 << 19) - 1;
/// An attenuation at which nothing is left, in units of 0.1875 dB.
const NOTHING: u16 = 12 << 5;

/// What of an operator changes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorState {
    /// Its key is down.
    pub key: bool,
    /// 2^19 is a turn.
    pub phase: u32,
    /// Its envelope.
    pub envelope: Envelope,
    /// The last sample, and the one before.
    pub output: [i16; 2],
}

/// What an operator's registers say.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    flags: u8,
    level: u8,
    attack_decay: u8,
    sustain_release: u8,
    waveform: u8,
}

/// The note of an operator's channel.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// Frequency number, 0 to 1023.
    pub number: u16,
    /// Block, 0 to 7.
    pub block: u8,
    /// What key scaling of rates goes by, 0 to 15.
    pub scaling: u8,
}

/// What wavers, at a sample.
#[derive(Clone, Copy, Debug)]
pub struct Waver {
    /// Attenuation in units of 0.1875 dB.
    tremolo: u16,
    /// An eighth of the period of vibrato.
    vibrato: u64,
    deep: bool,
}

impl Waver {
    /// At a sample, by its number; `depths` is the register of rhythm mode.
    pub fn at(clock: u64, depths: u8) -> Self {
        // 105 steps of 64 samples up, and as many down.
        let step = (clock / 64 % 210) as u16;
        let height = step.min(210 - step);
        let tremolo = if depths & DEEP_TREMOLO != 0 { height / 4 } else { height / 16 };
        Self { tremolo, vibrato: clock / 1024 % 8, deep: depths & DEEP_VIBRATO != 0 }
    }

    /// What is added to a frequency number: up, twice as far up, up, back, and down likewise.
    fn bend(self, number: u16) -> i32 {
        let most = i32::from(number >> 7);
        let height = match self.vibrato % 4 {
            0 => 0,
            2 => most,
            _ => most >> 1,
        };
        let height = if self.deep { height } else { height >> 1 };
        if self.vibrato < 4 { height } else { -height }
    }
}

impl Settings {
    /// Those of an operator, 0 to 35.
    pub fn of(registers: &[u8], operator: usize) -> Self {
        let get = |register: u16| {
            registers.get(usize::from(register + operator_offset(operator))).copied().unwrap_or_default()
        };
        // An OPL2 has four waveforms.
        let new = registers.get(usize::from(MODE)).is_some_and(|mode| mode & NEW != 0);
        Self {
            flags: get(FLAGS),
            level: get(LEVEL),
            attack_decay: get(ATTACK_DECAY),
            sustain_release: get(SUSTAIN_RELEASE),
            waveform: get(WAVEFORM) & if new { 7 } else { 3 },
        }
    }

    fn shape(&self, note: Note) -> Shape {
        let rates = [self.attack_decay >> 4, self.attack_decay & 15, self.sustain_release & 15];
        let scaling = if self.flags & KEY_SCALE_RATE != 0 { note.scaling } else { note.scaling >> 2 };
        Shape { rates, sustain: self.sustain_release >> 4, hold: self.flags & HOLD != 0, scaling }
    }

    /// The total level in units of 0.1875 dB.
    fn total(&self) -> u16 {
        u16::from(self.level & 0x3f) * 4
    }
}

/// A waveform at a phase, of which 1024 are a turn: the attenuation in units of 6 dB / 256, and whether it is negative.
/// `None` is silence.
fn waveform(number: u8, phase: u32) -> Option<(u32, bool)> {
    let (second_half, second_quarter) = (phase & 0x200 != 0, phase & 0x100 != 0);
    let mirrored = |place: u32, mirror: bool| log_sine(if mirror { !place } else { place });
    let sine = mirrored(phase, second_quarter);
    match number {
        0 => Some((sine, second_half)),
        1 => (!second_half).then_some((sine, false)),
        2 => Some((sine, false)),
        3 => (!second_quarter).then_some((sine, false)),
        // Both halves of the sine, or the first one twice, in half the time.
        4 | 5 => {
            let quick = mirrored(phase << 1, phase & 0x80 != 0);
            (!second_half).then_some((quick, number == 4 && second_quarter))
        }
        6 => Some((0, second_half)),
        // A level that falls evenly in decibels, and back.
        _ => Some(((if second_half { !phase & 0x1ff } else { phase & 0x1ff }) << 3, second_half)),
    }
}

impl OperatorState {
    /// Presses or lets go of its key.
    pub fn set_key(&mut self, key: bool, settings: &Settings, note: Note) {
        if std::mem::replace(&mut self.key, key) == key {
            return;
        }
        if key {
            self.phase = 0;
            self.envelope.begin(settings.shape(note));
        } else {
            self.envelope.release();
        }
    }

    /// Whether it can be heard, now or later without anything written.
    pub fn is_live(&self, settings: &Settings, note: Note) -> bool {
        !self.envelope.rests(settings.shape(note)) || self.envelope.level + settings.total() < NOTHING
    }

    /// Whether it is silent until its key goes down.
    pub fn is_off(&self) -> bool {
        self.envelope.stage != Stage::Attack && self.envelope.level == SILENT && self.output == [0; 2]
    }

    /// The phase as waveforms have it: 1024 are a turn.
    pub fn angle(&self) -> u32 {
        self.phase >> 9
    }

    /// What it adds to its own phase, by the register of feedback.
    pub fn feedback(&self, register: u8) -> i32 {
        match register >> 1 & 7 {
            0 => 0,
            amount => (i32::from(self.output[0]) + i32::from(self.output[1])) >> (9 - amount),
        }
    }

    /// The next sample, by its number; `angle` is the phase with what modulates it.
    pub fn sample(&mut self, settings: &Settings, note: Note, waver: Waver, angle: u32, clock: u64) -> i32 {
        let silent = self.envelope.level == SILENT;
        let output = if silent {
            0
        } else {
            let tremolo = if settings.flags & TREMOLO != 0 { waver.tremolo } else { 0 };
            let scaled = key_scale_level(settings.level >> 6, note.number, note.block);
            let attenuation = self.envelope.level + settings.total() + scaled + tremolo;
            waveform(settings.waveform, angle & 0x3ff).map_or(0, |(shape, negative)| {
                let value = exponential(shape + u32::from(attenuation) * 8);
                // The chip turns bits over rather than negate.
                if negative { !value } else { value }
            })
        };
        self.output = [output as i16, self.output[0]];
        self.envelope.advance(settings.shape(note), clock);
        let bend = if settings.flags & VIBRATO != 0 { waver.bend(note.number) } else { 0 };
        let frequency = ((i32::from(note.number) + bend).max(0) as u32) << note.block >> 1;
        let step = (frequency * MULTIPLES[usize::from(settings.flags & 15)]) >> 1;
        self.phase = (self.phase + step) & PHASE;
        output
    }

    /// Whether an operator can be in it.
    pub fn is_sound(&self) -> bool {
        self.phase <= PHASE
            && self.envelope.level <= SILENT
            && self.output.iter().all(|output| (-4085..=4084).contains(output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A waveform at 1024 phases as the numbers that it gives.
    fn turn(number: u8) -> Vec<i32> {
        let sample = |(attenuation, negative): (u32, bool)| {
            let value = exponential(attenuation);
            if negative { -value } else { value }
        };
        (0..1024).map(|phase| waveform(number, phase).map_or(0, sample)).collect()
    }

    #[test]
    fn waveforms_have_their_shapes() {
        let sine = |turns: f64| 4084.0 * (turns * std::f64::consts::TAU).sin();
        let logarithmic = |x: f64| 4084.0 * ((0.5 / 1024.0 - x) * 32.0).exp2();
        type Shape<'a> = &'a dyn Fn(f64) -> f64;
        let shapes: [Shape<'_>; 8] = [
            &sine,
            &|x| sine(x).max(0.0),
            &|x| sine(x).abs(),
            &|x| if x % 0.5 < 0.25 { sine(x).abs() } else { 0.0 },
            &|x| if x < 0.5 { sine(2.0 * x) } else { 0.0 },
            &|x| if x < 0.5 { sine(2.0 * x).abs() } else { 0.0 },
            &|x| if x < 0.5 { 4084.0 } else { -4084.0 },
            &|x| if x < 0.5 { logarithmic(x) } else { -logarithmic(1.0 - x) },
        ];
        for (number, shape) in shapes.iter().enumerate() {
            for (phase, value) in turn(number as u8).into_iter().enumerate() {
                let expected = shape((phase as f64 + 0.5) / 1024.0);
                assert!((f64::from(value) - expected).abs() < 30.0, "{number} at {phase}: {value}, not {expected}");
            }
        }
    }

    #[test]
    fn tremolo_and_vibrato_have_their_depths_and_periods() {
        let deepest = |depths| (0..49_716).map(|clock| Waver::at(clock, depths).tremolo).max();
        assert_eq!((deepest(0), deepest(DEEP_TREMOLO)), (Some(6), Some(26)), "1.1 and 4.9 dB");
        let peak = |from: u64| (from..).find(|clock| Waver::at(*clock, DEEP_TREMOLO).tremolo == 26).unwrap();
        let next = peak(peak(0) + 64 * 64);
        assert_eq!(next - peak(0), 64 * 210, "3.7 Hz");
        let bends =
            |depths| -> Vec<i32> { (0..8).map(|eighth| Waver::at(eighth * 1024, depths).bend(0x3ff)).collect() };
        assert_eq!(bends(DEEP_VIBRATO), [0, 3, 7, 3, 0, -3, -7, -3]);
        assert_eq!(bends(0), [0, 1, 3, 1, 0, -1, -3, -1]);
        assert_eq!(Waver::at(8 * 1024, 0).vibrato, 0, "6.1 Hz");
    }
}
