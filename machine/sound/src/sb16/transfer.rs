//! Blocks that the DSP moves by DMA, at its rate, and what their bytes are as frames.
//!
//! ```text
//!   command ──► transfer: left units ──all moved──► interrupt ──► auto: left = block, goes on
//!                 ▲ │ pause, go on                             └─► single: none
//!                 └─┘
//! ```

use lodge_chipset::DmaChannel;

use super::registers::{STATUS_8, STATUS_16};
use super::state::{Coding, Transfer};
use crate::mixer::Voice;
use crate::pace::Pace;
use crate::sink::Frame;

/// Most bytes moved at a time.
const PIECE: usize = 4096;
/// How often to come back, in nanoseconds, unless a block ends earlier. Programs watch the DMA controller's count.
const INTERVAL: u64 = 2_000_000;

impl Transfer {
    /// One that begins now: units of `rate` frames a second.
    pub(super) fn start(mut self, now: u64, rate: u32) -> Self {
        let units = match self.coding {
            Coding::Pcm | Coding::Silence => rate * if self.stereo { 2 } else { 1 },
            coding => (rate / coding.samples()).max(1),
        };
        self.left = self.block;
        self.pace = Pace::new(now, units);
        self
    }

    /// The interrupt at the end of a block.
    pub(super) fn interrupt(&self) -> u8 {
        if self.wide { STATUS_16 } else { STATUS_8 }
    }

    /// When there will be something to do.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        let end = self.pace.moment(self.left.into());
        (!self.paused).then(|| end.min(now.saturating_add(INTERVAL)).max(now.saturating_add(1)))
    }

    /// Frames a second.
    fn frames_per_second(&self) -> u32 {
        match self.coding {
            Coding::Pcm | Coding::Silence => self.pace.rate / if self.stereo { 2 } else { 1 },
            coding => self.pace.rate * coding.samples(),
        }
    }

    /// Moves what is due up to now: how many blocks have ended. A single one leaves `left` at 0.
    pub(super) fn advance(&mut self, now: u64, channel: Option<&DmaChannel>, voice: &mut Voice) -> u32 {
        let mut ended = 0;
        if self.paused {
            return 0;
        }
        let mut due = self.pace.due(now);
        let unit = if self.wide { 2 } else { 1 };
        while due > 0 && self.left > 0 {
            let units = due.min(self.left.into()).min((PIECE / unit) as u64) as usize;
            let at = self.pace.next();
            let mut data = vec![0; units * unit];
            let moved = match (self.coding, self.record, channel) {
                (Coding::Silence, ..) => units,
                (_, _, None) => 0,
                (_, true, Some(channel)) => {
                    self.fill_silence(&mut data);
                    channel.write(&data).bytes / unit
                }
                (_, false, Some(channel)) => channel.read(&mut data).bytes / unit,
            };
            if moved == 0 {
                // The guest is not ready: time begins when it is.
                self.pace = Pace::new(now, self.pace.rate);
                voice.stop();
                break;
            }
            if !self.record && self.coding != Coding::Silence {
                let mut frames = Vec::new();
                data[..moved * unit].iter().for_each(|byte| self.decode(*byte, &mut frames));
                voice.play(at, self.frames_per_second(), &frames);
            }
            self.pace.done += moved as u64;
            due -= moved as u64;
            self.left -= moved as u32;
            if self.left == 0 {
                ended += 1;
                if self.auto {
                    self.left = self.block;
                }
            }
        }
        ended
    }

    /// What a line without a signal records.
    fn fill_silence(&self, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            let upper = !self.wide || n % 2 == 1;
            *byte = if upper && !self.signed { 0x80 } else { 0 };
        }
    }

    /// A byte's worth of frames.
    fn decode(&mut self, byte: u8, frames: &mut Vec<Frame>) {
        if self.coding != Coding::Pcm {
            return self.decode_adpcm(byte, frames);
        }
        self.part.push(byte);
        let whole = if self.wide { 2 } else { 1 } * if self.stereo { 2 } else { 1 };
        if self.part.len() < whole {
            return;
        }
        let flip = if self.signed { 0 } else { 0x80 };
        let sample = |n: usize| {
            if self.wide {
                i16::from_le_bytes([self.part[2 * n], self.part[2 * n + 1] ^ flip])
            } else {
                i16::from_le_bytes([0, self.part[n] ^ flip])
            }
        };
        frames.push([sample(0), sample(usize::from(self.stereo))]);
        self.part.clear();
    }

    fn decode_adpcm(&mut self, byte: u8, frames: &mut Vec<Frame>) {
        if std::mem::take(&mut self.reference) {
            self.adpcm = (byte, 0);
            return;
        }
        let codes: &[u8] = match self.coding {
            Coding::Adpcm4 => &[byte >> 4, byte & 15],
            Coding::Adpcm3 => &[byte >> 5, byte >> 2 & 7, (byte & 3) << 1],
            _ => &[byte >> 6, byte >> 4 & 3, byte >> 2 & 3, byte & 3],
        };
        for code in codes {
            self.adpcm = self.coding.step(self.adpcm, *code);
            let sample = i16::from_le_bytes([0, self.adpcm.0 ^ 0x80]);
            frames.push([sample; 2]);
        }
    }
}

impl Coding {
    /// Samples in a byte.
    pub(super) fn samples(self) -> u32 {
        match self {
            Self::Pcm | Self::Silence => 1,
            Self::Adpcm4 => 2,
            Self::Adpcm3 => 3,
            Self::Adpcm2 => 4,
        }
    }

    /// The sample and step size after a code, whose upper bit is the sign and whose others are the magnitude. The step size goes
    /// up at large magnitudes and down at zero.
    fn step(self, (sample, size): (u8, u8), code: u8) -> (u8, u8) {
        let (bits, large, most) = match self {
            Self::Adpcm4 => (3, 5, 3),
            Self::Adpcm3 => (2, 3, 4),
            _ => (1, 1, 5),
        };
        let magnitude = i16::from(code & ((1 << bits) - 1));
        let odd = 2 * magnitude + 1;
        let change = match (self, size) {
            (_, 0) => magnitude,
            // The largest size of 2.6 bits is out of line.
            (Self::Adpcm3, 4) => 5 * odd,
            _ => odd << (size - 1).min(5),
        };
        let signed = if code & 1 << bits == 0 { change } else { -change };
        let sample = (i16::from(sample) + signed).clamp(0, 255) as u8;
        let size =
            if magnitude >= large { (size + 1).min(most) } else { size.saturating_sub(u8::from(magnitude == 0)) };
        (sample, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adpcm_steps() {
        let run = |coding: Coding, codes: &[u8]| {
            let mut state = (0x80, 0);
            codes
                .iter()
                .map(|code| {
                    state = coding.step(state, *code);
                    state
                })
                .collect::<Vec<_>>()
        };
        // 4 bits: +7, then sizes 1 and 2: +15, +30, then -2 at size 3... and down at zero.
        assert_eq!(run(Coding::Adpcm4, &[7, 7, 7, 8, 0]), [(135, 1), (150, 2), (180, 3), (176, 2), (178, 1)]);
        assert_eq!(
            run(Coding::Adpcm3, &[3, 3, 3, 3, 3, 7]),
            [(131, 1), (138, 2), (152, 3), (180, 4), (215, 4), (180, 4)]
        );
        assert_eq!(run(Coding::Adpcm2, &[1, 1, 3, 0]), [(129, 1), (132, 2), (126, 3), (130, 2)]);
        assert_eq!(run(Coding::Adpcm2, &[1; 12]).last(), Some(&(255, 5)), "it is cut off");
    }
}
