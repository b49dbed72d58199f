//! Ports, DSP commands and mixer registers of the Sound Blaster 16 (Creative, "Sound Blaster Series Hardware Programming
//! Guide", chapters 2 to 6).

/// First port.
pub const BASE: u16 = 0x220;
/// How many there are.
pub const LENGTH: u16 = 16;
/// Ports of the FM synthesizer where the AdLib card had it.
pub const ADLIB: u16 = 0x388;
/// How many there are.
pub const ADLIB_LENGTH: u16 = 4;

/// Offset: FM status; address of the first bank.
pub const FM_ADDRESS: u16 = 0x0;
/// Offset: the last of the four FM ports.
pub const FM_LAST: u16 = 0x3;
/// Offset: mixer address.
pub const MIXER_ADDRESS: u16 = 0x4;
/// Offset: mixer data.
pub const MIXER_DATA: u16 = 0x5;
/// Offset: DSP reset.
pub const RESET: u16 = 0x6;
/// Offset: FM status and address as on the first cards.
pub const FM_OLD: u16 = 0x8;
/// Offset: FM data as on the first cards.
pub const FM_OLD_DATA: u16 = 0x9;
/// Offset: DSP read data.
pub const READ: u16 = 0xa;
/// Offset: DSP write; read: whether it can be.
pub const WRITE: u16 = 0xc;
/// Offset: whether there are data to read; acknowledges the interrupt of 8-bit transfers.
pub const READ_STATUS: u16 = 0xe;
/// Offset: acknowledges the interrupt of 16-bit transfers.
pub const ACK_16: u16 = 0xf;

/// What a DSP that has been reset says.
pub const READY: u8 = 0xaa;
/// Version 4.05.
pub const VERSION: [u8; 2] = [4, 5];
/// What command E3h reads.
pub const COPYRIGHT: &[u8] = b"COPYRIGHT (C) CREATIVE TECHNOLOGY LTD, 1992.\0";

/// Bytes that follow a DSP command (chapter 6; those of the signal processor, which is not there, among them).
pub const fn parameters(command: u8) -> usize {
    match command {
        0x04 | 0x08 | 0x0f | 0x10 | 0x38 | 0x40 | 0xe0 | 0xe2 | 0xe4 | 0xf9 => 1,
        0x05 | 0x0e | 0x14..=0x17 | 0x24 | 0x41 | 0x42 | 0x48 | 0x74..=0x77 | 0x80 => 2,
        0xb0..=0xcf => 3,
        _ => 0,
    }
}

/// Commands B0h to CFh: record.
pub const IO_RECORD: u8 = 1 << 3;
/// Commands B0h to CFh: begin anew at the end.
pub const IO_AUTO: u8 = 1 << 2;
/// Their mode: stereo.
pub const MODE_STEREO: u8 = 1 << 5;
/// Their mode: signed samples.
pub const MODE_SIGNED: u8 = 1 << 4;

/// Slowest and fastest rate in frames a second.
pub const RATES: std::ops::RangeInclusive<u32> = 3906..=48_000;

/// Mixer: reset.
pub const MIXER_RESET: u8 = 0x00;
/// Mixer: master volume, left; the right one follows, then come voice, MIDI, CD and line.
pub const MASTER: u8 = 0x30;
/// Mixer: voice volume, left.
pub const VOICE: u8 = 0x32;
/// Mixer: volume of FM, which Creative calls MIDI, left.
pub const FM: u8 = 0x34;
/// Mixer: output gain, left.
pub const OUTPUT_GAIN: u8 = 0x41;
/// Mixer: interrupt select.
pub const IRQ_SELECT: u8 = 0x80;
/// Mixer: DMA select.
pub const DMA_SELECT: u8 = 0x81;
/// Mixer: interrupt status.
pub const IRQ_STATUS: u8 = 0x82;
/// Interrupt status: of 8-bit transfers.
pub const STATUS_8: u8 = 1 << 0;
/// Interrupt status: of 16-bit transfers.
pub const STATUS_16: u8 = 1 << 1;

/// Interrupts that the card can be set to, by bit of interrupt select.
pub const INTERRUPTS: [u8; 4] = [2, 5, 7, 10];
/// Interrupt select after power-on: 5.
pub const IRQ_DEFAULT: u8 = 1 << 1;
/// DMA select after power-on: channels 1 and 5.
pub const DMA_DEFAULT: u8 = 1 << 5 | 1 << 1;
/// Channels that 8-bit transfers can use, as bits of DMA select.
pub const DMA_8: u8 = 0x0b;
/// Channels that 16-bit transfers can use.
pub const DMA_16: u8 = 0xe0;

/// Registers that both mixers have hold this after a reset: (first, last, value).
pub const MIXER_DEFAULTS: [(u8, u8, u8); 6] = [
    (0x30, 0x35, 0xc0),
    (0x3c, 0x3c, 0x1f),
    (0x3d, 0x3d, 0x15),
    (0x3e, 0x3e, 0x0b),
    (0x43, 0x43, 0),
    (0x44, 0x47, 0x80),
];

/// The bits that a mixer register has; 0 where there is none.
pub const fn mixer_bits(register: u8) -> u8 {
    match register {
        0x30..=0x3a => 0xf8,
        0x3b | 0x3f..=0x42 => 0xc0,
        0x3c => 0x1f,
        0x3d | 0x3e => 0x7f,
        0x43 => 0x01,
        0x44..=0x47 => 0xf0,
        IRQ_SELECT => 0x0f,
        DMA_SELECT => DMA_8 | DMA_16,
        _ => 0,
    }
}

/// Which pair of volumes a register of the Sound Blaster Pro's mixer stands for, by its left one.
pub const fn mixer_pair(register: u8) -> Option<u8> {
    match register {
        0x04 => Some(0x32),
        0x22 => Some(0x30),
        0x26 => Some(0x34),
        0x28 => Some(0x36),
        0x2e => Some(0x38),
        _ => None,
    }
}
/// The Sound Blaster Pro's register of the microphone's volume.
pub const MIC_PRO: u8 = 0x0a;
/// That of the SB16.
pub const MIC: u8 = 0x3a;
