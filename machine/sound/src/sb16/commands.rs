//! The DSP's commands ("Hardware Programming Guide", chapter 6).

use super::registers::*;
use super::state::{Coding, Sb16State, Transfer};
use super::{Sb16, Volatile};

/// What each bit of E2h's parameter adds to the identification, by how often it has been asked for, and what is added always.
/// Creative's drivers look for it.
const IDENTIFICATION: [([i8; 8], u8); 4] = [
    ([1, -2, -4, 8, -16, 32, 64, -128], 0x96),
    ([-1, 2, -4, 8, 16, -32, 64, -128], 0xa5),
    ([-1, 2, 4, -8, 16, -32, -64, -128], 0x69),
    ([1, -2, 4, -8, -16, 32, -64, -128], 0x5a),
];

/// A rate that the card can have.
fn rate(frames: u32) -> u32 {
    frames.clamp(*RATES.start(), *RATES.end())
}

/// The length of a block, of which commands have one less.
fn length(low: u8, high: u8) -> u32 {
    u32::from(u16::from_le_bytes([low, high])) + 1
}

impl Sb16 {
    /// A byte for the DSP.
    pub(super) fn write_dsp(&self, volatile: &mut Volatile, now: u64, value: u8) {
        let state = &mut volatile.state;
        // MIDI goes nowhere; while it is held in reset the DSP does not listen.
        if state.midi || state.resetting {
            return;
        }
        let command = match state.command {
            None => value,
            Some(command) => {
                state.parameters.push(value);
                command
            }
        };
        if state.parameters.len() < parameters(command) {
            state.command = Some(command);
            return;
        }
        state.command = None;
        let given = std::mem::take(&mut state.parameters);
        let byte = |n: usize| given.get(n).copied().unwrap_or(0);
        self.carry_out(volatile, now, command, [byte(0), byte(1), byte(2)]);
    }

    fn carry_out(&self, volatile: &mut Volatile, now: u64, command: u8, [a, b, c]: [u8; 3]) {
        let state = &mut volatile.state;
        match command {
            0x10 => self.set_level(volatile, now, a),
            0x14..=0x1f | 0x24 | 0x2c | 0x74..=0x7f | 0x90 | 0x91 | 0x98 | 0x99 => {
                self.start_8(volatile, now, command, length(a, b));
            }
            // What a line without a signal is.
            0x20 => state.answer(&[0x80]),
            0x34..=0x37 => state.midi = true,
            0x40 => {
                state.rate = rate(1_000_000 / (256 - u32::from(a)));
                state.input_rate = state.rate;
            }
            0x41 => state.rate = rate(u16::from_be_bytes([a, b]).into()),
            0x42 => state.input_rate = rate(u16::from_be_bytes([a, b]).into()),
            0x48 => state.block = u16::from_le_bytes([a, b]),
            0x80 => {
                let silence = Transfer { coding: Coding::Silence, block: length(a, b), ..Transfer::default() };
                self.start(volatile, now, silence);
            }
            0xb0..=0xcf => self.start_16(volatile, now, command, a, length(b, c)),
            0xd0 | 0xd5 => self.pause(volatile, now, command == 0xd5, true),
            0xd4 | 0xd6 => self.pause(volatile, now, command == 0xd6, false),
            0xd1 => state.speaker = true,
            0xd3 => state.speaker = false,
            0xd8 => state.answer(&[if state.speaker { 0xff } else { 0 }]),
            // The block that is being moved is the last one, or is not.
            0xd9 | 0xda | 0x45 | 0x47 => {
                let wide = matches!(command, 0xd9 | 0x47);
                if let Some(transfer) = state.transfer.as_mut().filter(|transfer| transfer.wide == wide) {
                    transfer.auto = command < 0xd0;
                }
            }
            0xe0 => state.answer(&[!a]),
            0xe1 => state.answer(&VERSION),
            0xe2 => self.identify(state, a),
            0xe3 => state.answer(COPYRIGHT),
            0xe4 => state.test = a,
            0xe8 => state.answer(&[state.test]),
            0xf2 => self.interrupt(state, state.interrupts | STATUS_8),
            0xf3 => self.interrupt(state, state.interrupts | STATUS_16),
            // Of the signal processor, which is not there, and of the DSP's own memory.
            0x0f => state.answer(&[0xff]),
            0xf8 | 0xf9 => state.answer(&[0]),
            _ => {}
        }
    }

    /// Transfers as the first cards have them: 8-bit, mono, ADPCM.
    fn start_8(&self, volatile: &mut Volatile, now: u64, command: u8, single: u32) {
        let coding = match command {
            0x16 | 0x17 | 0x1e | 0x1f => Coding::Adpcm2,
            0x74 | 0x75 | 0x7c | 0x7d => Coding::Adpcm4,
            0x76 | 0x77 | 0x7e | 0x7f => Coding::Adpcm3,
            0x14 | 0x15 | 0x1c | 0x24 | 0x2c | 0x90 | 0x91 | 0x98 | 0x99 => Coding::Pcm,
            _ => return,
        };
        let auto = matches!(command, 0x1c..=0x1f | 0x2c | 0x7c..=0x7f | 0x90 | 0x98);
        // At high speed the length is always that of command 48h.
        let by_command = auto || command >= 0x90;
        let transfer = Transfer {
            coding,
            record: matches!(command, 0x24 | 0x2c | 0x98 | 0x99),
            auto,
            block: if by_command { u32::from(volatile.state.block) + 1 } else { single },
            reference: coding != Coding::Pcm && command & 1 != 0,
            // Without a reference it goes on from the last one.
            adpcm: volatile.state.transfer.as_ref().map_or((0x80, 0), |transfer| transfer.adpcm),
            ..Transfer::default()
        };
        self.start(volatile, now, transfer);
    }

    /// Transfers of the SB16.
    fn start_16(&self, volatile: &mut Volatile, now: u64, command: u8, mode: u8, block: u32) {
        let transfer = Transfer {
            wide: command < 0xc0,
            record: command & IO_RECORD != 0,
            auto: command & IO_AUTO != 0,
            stereo: mode & MODE_STEREO != 0,
            signed: mode & MODE_SIGNED != 0,
            block,
            ..Transfer::default()
        };
        self.start(volatile, now, transfer);
    }

    fn start(&self, volatile: &mut Volatile, now: u64, transfer: Transfer) {
        let state = &mut volatile.state;
        let rate = if transfer.record { state.input_rate } else { state.rate };
        volatile.voice.stop();
        state.transfer = Some(transfer.start(now, rate));
    }

    /// Holds the transfer of this width, or lets it go on.
    fn pause(&self, volatile: &mut Volatile, now: u64, wide: bool, paused: bool) {
        let Some(transfer) = &mut volatile.state.transfer else { return };
        if transfer.wide == wide && transfer.paused != paused {
            transfer.paused = paused;
            transfer.pace = crate::Pace::new(now, transfer.pace.rate);
            volatile.voice.stop();
        }
    }

    /// Writes a byte by DMA that only Creative's cards know.
    fn identify(&self, state: &mut Sb16State, challenge: u8) {
        let (mut value, count) = state.identification;
        let (bits, always) = IDENTIFICATION[usize::from(count % 4)];
        for (n, add) in bits.into_iter().enumerate() {
            if challenge & 1 << n != 0 {
                value = value.wrapping_add_signed(add);
            }
        }
        value = value.wrapping_add(always);
        state.identification = (value, count.wrapping_add(1));
        if let Some(number) = state.mixer.channel(false) {
            self.channels[number].write(&[value]);
        }
    }
}

impl Sb16State {
    /// What the guest reads next, in place of what it has not read.
    fn answer(&mut self, bytes: &[u8]) {
        self.output = bytes.to_vec();
    }
}
