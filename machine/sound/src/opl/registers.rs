//! Registers of the YMF262 (Yamaha, "YMF262 application manual", register map and sections 2 and 3).
//!
//! There are two banks of 256 registers; the second one's have bit 8 set here. Each bank has nine channels, whose registers are
//! at an offset of 0 to 8, and 18 operators, whose offsets are those of [`operator_offset`].

/// Samples a second: 14.31818 MHz / 288, rounded.
pub const RATE: u32 = 49_716;
/// Registers in both banks.
pub const REGISTERS: usize = 512;
/// Operators in both banks.
pub const OPERATORS: usize = 36;
/// Channels in both banks.
pub const CHANNELS: usize = 18;

/// First timer, of 80 microseconds.
pub const TIMER_1: u16 = 0x02;
/// Second timer, of 320 microseconds.
pub const TIMER_2: u16 = 0x03;
/// Control of the timers.
pub const TIMER_CONTROL: u16 = 0x04;
/// Timer control: flags become zero, and nothing else happens.
pub const TIMER_RESET: u8 = 1 << 7;
/// Channels of four operators, a bit for each; those of the first bank first.
pub const FOUR_OPERATORS: u16 = 0x104;
/// [`NEW`].
pub const MODE: u16 = 0x105;
/// The chip is an OPL3; an OPL2 otherwise.
pub const NEW: u8 = 1 << 0;
/// [`NOTE_SELECT`].
pub const KEYBOARD_SPLIT: u16 = 0x08;
/// Key scaling looks at bit 8 of the frequency number rather than 9.
pub const NOTE_SELECT: u8 = 1 << 6;
/// Depths, rhythm mode and the drums' keys.
pub const RHYTHM: u16 = 0xbd;
/// Tremolo of 4.8 dB rather than 1 dB.
pub const DEEP_TREMOLO: u8 = 1 << 7;
/// Vibrato of 14 cents rather than 7.
pub const DEEP_VIBRATO: u8 = 1 << 6;
/// Channels 6 to 8 are drums.
pub const RHYTHM_MODE: u8 = 1 << 5;
/// Key: bass drum, both operators of channel 6.
pub const BASS_DRUM: u8 = 1 << 4;
/// Key: snare drum, the second operator of channel 7.
pub const SNARE: u8 = 1 << 3;
/// Key: tom-tom, the first operator of channel 8.
pub const TOM: u8 = 1 << 2;
/// Key: top cymbal, the second operator of channel 8.
pub const CYMBAL: u8 = 1 << 1;
/// Key: hi-hat, the first operator of channel 7.
pub const HI_HAT: u8 = 1 << 0;

/// Operator: [`TREMOLO`], [`VIBRATO`], [`HOLD`], [`KEY_SCALE_RATE`] and a multiple.
pub const FLAGS: u16 = 0x20;
/// Flags: the volume wavers.
pub const TREMOLO: u8 = 1 << 7;
/// Flags: the frequency wavers.
pub const VIBRATO: u8 = 1 << 6;
/// Flags: the level is held while the key is down.
pub const HOLD: u8 = 1 << 5;
/// Flags: envelopes of high notes are quicker, in full measure.
pub const KEY_SCALE_RATE: u8 = 1 << 4;
/// Operator: key scale level in bits 7 to 6, total level in steps of 0.75 dB.
pub const LEVEL: u16 = 0x40;
/// Operator: attack and decay rates.
pub const ATTACK_DECAY: u16 = 0x60;
/// Operator: sustain level in steps of 3 dB, and release rate.
pub const SUSTAIN_RELEASE: u16 = 0x80;
/// Channel: the lower bits of the frequency number.
pub const NUMBER: u16 = 0xa0;
/// Channel: [`KEY_ON`], block in bits 4 to 2, the upper bits of the frequency number.
pub const KEY: u16 = 0xb0;
/// Key: on.
pub const KEY_ON: u8 = 1 << 5;
/// Channel: left in bit 4, right in bit 5, feedback in bits 3 to 1, [`CONNECTION`].
pub const FEEDBACK: u16 = 0xc0;
/// Feedback: operators are added rather than chained.
pub const CONNECTION: u8 = 1 << 0;
/// Feedback: to the left. The right side's bit is the next one.
pub const LEFT: u8 = 1 << 4;
/// Operator: waveform.
pub const WAVEFORM: u16 = 0xe0;

/// Bit 8 of the registers of an operator or a channel, of so many in a bank, and its number within the bank.
const fn in_bank(number: usize, of: usize) -> (u16, u16) {
    (if number < of { 0 } else { 0x100 }, (number % of) as u16)
}

/// What is added to the registers of an operator, 0 to 35: six in a row, and a gap of two.
pub const fn operator_offset(operator: usize) -> u16 {
    let (bank, number) = in_bank(operator, OPERATORS / 2);
    bank + number / 6 * 8 + number % 6
}

/// What is added to the registers of a channel, 0 to 17.
pub const fn channel_offset(channel: usize) -> u16 {
    let (bank, number) = in_bank(channel, CHANNELS / 2);
    bank + number
}

/// The operators of a channel, 0 to 17.
pub const fn operators(channel: usize) -> [usize; 2] {
    let first = channel / 3 * 6 + channel % 3;
    [first, first + 3]
}
