//! Registers of the AC'97 controller of Intel's ICH (82801AA, order number 290655, chapter 13) and of its codec (Audio Codec '97
//! Component Specification 2.2, chapter 5; SigmaTel STAC9700 data sheet).

/// Device: 82801AA's AC'97 audio controller.
pub const ICH_AUDIO: u16 = 0x2415;
/// Ports of the mixer (NAM): those of two codecs, of which one is there.
pub const MIXER_PORTS: u16 = 256;
/// Ports of the bus master (NABM).
pub const MASTER_PORTS: u16 = 64;

/// Bus master: ports of each of its boxes.
pub const BOX_PORTS: u16 = 0x10;
/// The boxes: PCM in, PCM out, microphone in.
pub const BOXES: usize = 3;
/// The box of PCM in.
pub const PCM_IN: usize = 0;
/// The box of PCM out.
pub const PCM_OUT: usize = 1;
/// The box of the microphone.
pub const MIC_IN: usize = 2;

/// Box: where the list of descriptors is (13.2.1); four bytes.
pub const LIST: u16 = 0x0;
/// Box: its last byte.
pub const LIST_LAST: u16 = 0x3;
/// Box: current index (13.2.2).
pub const CURRENT: u16 = 0x4;
/// Box: last valid index (13.2.3).
pub const LAST: u16 = 0x5;
/// Box: status (13.2.4).
pub const STATUS: u16 = 0x6;
/// Box: samples left in the current buffer (13.2.5); two bytes.
pub const LEFT: u16 = 0x8;
/// Box: prefetched index (13.2.6).
pub const PREFETCHED: u16 = 0xa;
/// Box: control (13.2.7).
pub const CONTROL: u16 = 0xb;
/// Global control (13.2.8); four bytes.
pub const GLOBAL_CONTROL: u16 = 0x2c;
/// Global status (13.2.9); four bytes.
pub const GLOBAL_STATUS: u16 = 0x30;
/// Codec access semaphore (13.2.10).
pub const SEMAPHORE: u16 = 0x34;

/// Status: halted.
pub const DCH: u8 = 1 << 0;
/// Status: the last valid buffer has been processed.
pub const CELV: u8 = 1 << 1;
/// Status: so it has since this was cleared.
pub const LVBCI: u8 = 1 << 2;
/// Status: a buffer whose descriptor asks for it has been processed.
pub const BCIS: u8 = 1 << 3;
/// Status: the FIFO had an error.
pub const FIFOE: u8 = 1 << 4;
/// Status: bits that are cleared by ones.
pub const STATUS_EVENTS: u8 = LVBCI | BCIS | FIFOE;

/// Control: run.
pub const RPBM: u8 = 1 << 0;
/// Control: reset the box.
pub const RR: u8 = 1 << 1;
/// Control: interrupt for [`LVBCI`].
pub const LVBIE: u8 = 1 << 2;
/// Control: interrupt for [`FIFOE`].
pub const FEIE: u8 = 1 << 3;
/// Control: interrupt for [`BCIS`].
pub const IOCE: u8 = 1 << 4;

/// Descriptor: interrupt on completion.
pub const DESCRIPTOR_IOC: u16 = 1 << 15;
/// Descriptors in a list.
pub const DESCRIPTORS: u8 = 32;

/// Global control: the codec is not held in cold reset.
pub const NO_COLD_RESET: u32 = 1 << 1;
/// Global control: warm reset, which ends by itself.
pub const WARM_RESET: u32 = 1 << 2;
/// Global control: bits that are kept.
pub const GLOBAL_KEPT: u32 = 0x3b;

/// Global status: interrupts of the boxes.
pub const BOX_INTERRUPTS: [u32; BOXES] = [1 << 5, 1 << 6, 1 << 7];
/// Global status: the first codec is ready.
pub const CODEC_READY: u32 = 1 << 8;
/// Global status: reading a codec's register failed; cleared by a one.
pub const READ_FAILED: u32 = 1 << 15;

/// Codec: reset; read: what it can do.
pub const RESET: u8 = 0x00;
/// Codec: master volume.
pub const MASTER: u8 = 0x02;
/// Codec: volume of PCM out.
pub const PCM: u8 = 0x18;
/// Codec: power down, and what is ready.
pub const POWER: u8 = 0x26;
/// Codec: extended audio, what there is.
pub const EXTENDED_ID: u8 = 0x28;
/// Codec: extended audio, what is on.
pub const EXTENDED: u8 = 0x2a;
/// Codec: rate of PCM out.
pub const RATE_OUT: u8 = 0x2c;
/// Codec: rate of PCM in.
pub const RATE_IN: u8 = 0x32;
/// Codec: rate of the microphone.
pub const RATE_MIC: u8 = 0x34;
/// Codec: its maker and kind.
pub const VENDOR: u8 = 0x7c;

/// Volumes: silence.
pub const MUTE: u16 = 1 << 15;
/// Extended audio: rates can be set.
pub const VRA: u16 = 1 << 0;
/// Extended audio: that of the microphone can.
pub const VRM: u16 = 1 << 3;
/// Power: PCM out, the mixer with and without its reference are off.
pub const POWER_NO_SOUND: u16 = 7 << 9;

/// What the rate is unless it has been set.
pub const RATE: u16 = 48_000;
/// Slowest rate.
pub const RATE_LEAST: u16 = 8_000;

/// What registers hold after a reset; the others hold 0.
pub const CODEC_DEFAULTS: [(u8, u16); 22] = [
    (RESET, 0x6940),
    (MASTER, MUTE),
    (0x06, MUTE),
    (0x0c, MUTE | 0x0008),
    (0x0e, MUTE | 0x0008),
    (0x10, MUTE | 0x0808),
    (0x12, MUTE | 0x0808),
    (0x14, MUTE | 0x0808),
    (0x16, MUTE | 0x0808),
    (PCM, MUTE | 0x0808),
    (0x1a, 0),
    (0x1c, MUTE),
    (0x20, 0),
    (0x22, 0),
    (POWER, 0x000f),
    (EXTENDED_ID, 0x0800 | VRM | VRA),
    (EXTENDED, 0),
    (RATE_OUT, RATE),
    (RATE_IN, RATE),
    (RATE_MIC, RATE),
    (VENDOR, 0x8384),
    (VENDOR + 2, 0x7600),
];

/// The bits of a register that are written.
pub const fn codec_bits(register: u8) -> u16 {
    match register {
        MASTER | 0x10 | 0x12 | 0x14 | 0x16 | PCM => 0x9f1f,
        0x06 | 0x0c => 0x801f,
        0x0a => 0x801e,
        0x0e => 0x805f,
        0x1a => 0x0707,
        0x1c => 0x8f0f,
        0x20 => 0xa380,
        0x22 => 0x000c,
        POWER => 0xbf00,
        EXTENDED => VRM | VRA,
        _ => 0,
    }
}
