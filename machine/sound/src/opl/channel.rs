//! Channels: how their operators are joined (application manual, registers C0h and 104h; rhythm mode, register BDh).
//!
//! ```text
//!   two operators     0: ↻1 ► 2 ►          1: ↻1 ►, 2 ►
//!   four operators   00: ↻1 ► 2 ► 3 ► 4 ►  01: ↻1 ► 2 ►, 3 ► 4 ►   10: ↻1 ►, 2 ► 3 ► 4 ►   11: ↻1 ►, 2 ► 3 ►, 4 ►
//! ```
//!
//! Only the first operator modulates itself. Each operator is heard on the sides that its own channel's register says.

use super::operator::{Note, Settings, Waver};
use super::registers::*;
use super::state::OplState;

/// Channels of the drums.
const BASS: usize = 6;
const HI_HAT_AND_SNARE: usize = 7;
const TOM_AND_CYMBAL: usize = 8;

/// The two operators of a channel, joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Joint {
    /// What modulates the first one.
    first: Input,
    /// The first one modulates the second.
    chained: bool,
    /// How often each is heard.
    heard: [i32; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Itself,
    /// The second operator of the channel whose first half this one's operators are not.
    Partner,
}

/// Which half of a channel with four operators a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

impl OplState {
    fn register(&self, register: u16) -> u8 {
        self.registers.get(usize::from(register)).copied().unwrap_or_default()
    }

    /// It is an OPL3.
    pub(super) fn is_new(&self) -> bool {
        self.register(MODE) & NEW != 0
    }

    fn is_rhythm(&self, channel: usize) -> bool {
        (BASS..=TOM_AND_CYMBAL).contains(&channel) && self.register(RHYTHM) & RHYTHM_MODE != 0
    }

    fn half(&self, channel: usize) -> Option<Half> {
        let (bank, number) = (channel / 9, channel % 9);
        let joined = |first: usize| self.is_new() && self.register(FOUR_OPERATORS) & 1 << (bank * 3 + first) != 0;
        match number {
            0..3 if joined(number) => Some(Half::First),
            3..6 if joined(number - 3) => Some(Half::Second),
            _ => None,
        }
    }

    /// The channel whose note a channel plays.
    fn leader(&self, channel: usize) -> usize {
        if self.half(channel) == Some(Half::Second) { channel - 3 } else { channel }
    }

    fn joint(&self, channel: usize) -> Joint {
        let added = |channel: usize| self.register(FEEDBACK + channel_offset(channel)) & CONNECTION != 0;
        let own = added(channel);
        if self.is_rhythm(channel) {
            return match channel {
                // Added, the first one is not heard.
                BASS => Joint { first: Input::Itself, chained: !own, heard: [0, 2] },
                _ => Joint { first: Input::Nothing, chained: false, heard: [2, 2] },
            };
        }
        match self.half(channel) {
            None => Joint { first: Input::Itself, chained: !own, heard: [own.into(), 1] },
            Some(Half::First) => {
                let second = !own && added(channel + 3);
                Joint { first: Input::Itself, chained: !own, heard: [own.into(), second.into()] }
            }
            Some(Half::Second) => {
                let before = added(channel - 3);
                let first = if !before && own { Input::Nothing } else { Input::Partner };
                let alone = before && own;
                Joint { first, chained: !alone, heard: [alone.into(), 1] }
            }
        }
    }

    /// What a channel plays.
    pub(super) fn note(&self, channel: usize) -> Note {
        let offset = channel_offset(self.leader(channel));
        let (low, high) = (self.register(NUMBER + offset), self.register(KEY + offset));
        let number = u16::from_le_bytes([low, high & 3]);
        let block = high >> 2 & 7;
        let bit = if self.register(KEYBOARD_SPLIT) & NOTE_SELECT != 0 { 8 } else { 9 };
        Note { number, block, scaling: block << 1 | (number >> bit & 1) as u8 }
    }

    /// Whether the keys of a channel's operators are down.
    fn keys(&self, channel: usize) -> [bool; 2] {
        let key = self.register(KEY + channel_offset(self.leader(channel))) & KEY_ON != 0;
        let drums = if self.is_rhythm(channel) { self.register(RHYTHM) } else { 0 };
        let bits = match channel {
            BASS => [BASS_DRUM, BASS_DRUM],
            HI_HAT_AND_SNARE => [HI_HAT, SNARE],
            TOM_AND_CYMBAL => [TOM, CYMBAL],
            _ => [0; 2],
        };
        bits.map(|bit| key || drums & bit != 0)
    }

    /// Presses and lets go of keys as registers say.
    pub(super) fn set_keys(&mut self) {
        for channel in 0..CHANNELS {
            let (keys, note) = (self.keys(channel), self.note(channel));
            for (number, key) in operators(channel).into_iter().zip(keys) {
                let settings = Settings::of(&self.registers, number);
                self.operators[number].set_key(key, &settings, note);
            }
        }
    }

    /// Whether there is something to hear, now or later without anything written.
    pub(super) fn is_live(&self) -> bool {
        (0..CHANNELS).any(|channel| {
            let note = self.note(channel);
            let live = |number: usize| {
                let operator = &self.operators[number];
                // Most are at their end.
                !operator.is_off() && operator.is_live(&Settings::of(&self.registers, number), note)
            };
            operators(channel).into_iter().any(live)
        })
    }

    /// Sides on which a channel is heard.
    fn sides(&self, channel: usize) -> [bool; 2] {
        let register = self.register(FEEDBACK + channel_offset(channel));
        [LEFT, LEFT << 1].map(|side| !self.is_new() || register & side != 0)
    }

    /// The phases of hi-hat, snare drum and cymbal, which are made from each other's and noise.
    fn drum_angles(&self) -> [u32; 3] {
        let [hat, snare] = operators(HI_HAT_AND_SNARE);
        let [_, cymbal] = operators(TOM_AND_CYMBAL);
        let (hat_at, cymbal_at) = (self.operators[hat].angle(), self.operators[cymbal].angle());
        let (of_hat, of_cymbal) = (|bit: u32| hat_at >> bit & 1, |bit: u32| cymbal_at >> bit & 1);
        let mixed = of_hat(2) ^ of_hat(7) | of_hat(3) ^ of_cymbal(5) | of_cymbal(3) ^ of_cymbal(5);
        // Each operator has its turn, and the noise goes on between them.
        let noise = |turn: usize| advanced(self.noise, turn as u32) & 1;
        [
            mixed << 9 | if mixed ^ noise(hat) != 0 { 0xd0 } else { 0x34 },
            of_hat(8) << 9 | (of_hat(8) ^ noise(snare)) << 8,
            mixed << 9 | 0x80,
        ]
    }

    /// The next sample of all channels, left and right.
    pub(super) fn sample(&mut self) -> [i32; 2] {
        let (clock, waver) = (self.clock, Waver::at(self.clock, self.register(RHYTHM)));
        let drums = self.is_rhythm(BASS).then(|| self.drum_angles());
        let mut sum = [0; 2];
        for channel in 0..CHANNELS {
            let [first, second] = operators(channel);
            // Phases of drums go on: others are made from them.
            let drum = drums.is_some() && (HI_HAT_AND_SNARE..=TOM_AND_CYMBAL).contains(&channel);
            if !drum && [first, second].iter().all(|number| self.operators[*number].is_off()) {
                continue;
            }
            let (note, joint) = (self.note(channel), self.joint(channel));
            let feedback = self.register(FEEDBACK + channel_offset(channel));
            let modulation = match joint.first {
                Input::Nothing => 0,
                Input::Itself => self.operators[first].feedback(feedback),
                Input::Partner => self.operators[operators(channel - 3)[1]].output[0].into(),
            };
            let mut run = |number: usize, modulation: i32, angle: Option<u32>| {
                let settings = Settings::of(&self.registers, number);
                let operator = &mut self.operators[number];
                let angle = angle.unwrap_or(operator.angle().wrapping_add_signed(modulation));
                operator.sample(&settings, note, waver, angle, clock)
            };
            let angles = match (channel, drums) {
                (HI_HAT_AND_SNARE, Some([hat, snare, _])) => [Some(hat), Some(snare)],
                (TOM_AND_CYMBAL, Some([.., cymbal])) => [None, Some(cymbal)],
                _ => [None; 2],
            };
            let from_first = run(first, modulation, angles[0]);
            let from_second = run(second, if joint.chained { from_first } else { 0 }, angles[1]);
            let heard = from_first * joint.heard[0] + from_second * joint.heard[1];
            for (sum, on) in sum.iter_mut().zip(self.sides(channel)) {
                *sum += if on { heard } else { 0 };
            }
        }
        self.noise = advanced(self.noise, OPERATORS as u32);
        self.clock = self.clock.wrapping_add(1);
        sum
    }
}

/// The noise after so many steps: a shift register of 23 bits, into which goes the sum of the lowest bit and the 15th.
fn advanced(mut noise: u32, mut steps: u32) -> u32 {
    while steps > 0 {
        let count = steps.min(9);
        let fed = (noise ^ noise >> 14) & ((1 << count) - 1);
        noise = noise >> count | fed << (23 - count);
        steps -= count;
    }
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_when_all_of_its_states_have_been() {
        let one = |noise: u32| noise >> 1 | (noise ^ noise >> 14 & 1) << 22 & 1 << 22;
        let mut noise = 1;
        for steps in 1..100 {
            noise = one(noise);
            assert_eq!(advanced(1, steps), noise);
        }
        let period = std::iter::successors(Some(one(1)), |noise| Some(one(*noise))).position(|noise| noise == 1);
        assert_eq!(period, Some((1 << 23) - 2));
    }

    #[test]
    fn operators_are_joined_as_connections_say() {
        let mut state = OplState::default();
        (state.registers[usize::from(MODE)], state.registers[usize::from(FOUR_OPERATORS)]) = (NEW, 0b01_0001);
        let joint = |first, chained, heard| Joint { first, chained, heard };
        let (itself, partner) = (Input::Itself, Input::Partner);
        // Channels 0 and 3, and 10 and 13.
        for (first, second, expected) in [
            (0, 0, [joint(itself, true, [0, 0]), joint(partner, true, [0, 1])]),
            (0, 1, [joint(itself, true, [0, 1]), joint(Input::Nothing, true, [0, 1])]),
            (1, 0, [joint(itself, false, [1, 0]), joint(partner, true, [0, 1])]),
            (1, 1, [joint(itself, false, [1, 0]), joint(partner, false, [1, 1])]),
        ] {
            for (a, b) in [(0, 3), (10, 13)] {
                state.registers[usize::from(FEEDBACK + channel_offset(a))] = first;
                state.registers[usize::from(FEEDBACK + channel_offset(b))] = second;
                assert_eq!([state.joint(a), state.joint(b)], expected);
                assert_eq!([state.leader(a), state.leader(b)], [a, a]);
            }
        }
        // Others have two, and all have in an OPL2.
        assert_eq!([state.joint(1), state.joint(4)], [joint(itself, true, [0, 1]); 2]);
        state.registers[usize::from(MODE)] = 0;
        assert_eq!([state.joint(0), state.joint(3)], [joint(itself, false, [1, 1]); 2]);
        assert_eq!(state.leader(3), 3);
    }
}
