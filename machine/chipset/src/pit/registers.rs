//! Registers of the 8254 (Intel order number 231164) and of system control port B (82371AB 4.1.7).

/// The three counters and, at the fourth port, the control word.
pub const BASE: u16 = 0x40;
/// Offset of the control word.
pub const CONTROL: u16 = 3;
/// System control port B.
pub const PORT_B: u16 = 0x61;
/// Input clock in hertz.
pub const FREQUENCY: u64 = 1_193_182;

/// Control word: counter, bits 7:6; 3 is the read-back command.
pub const SELECT_SHIFT: u8 = 6;
/// Read-back: leave the count alone.
pub const READ_BACK_NO_COUNT: u8 = 1 << 5;
/// Read-back: leave the status alone.
pub const READ_BACK_NO_STATUS: u8 = 1 << 4;

/// Port B: gate of counter 2.
pub const GATE2: u8 = 1 << 0;
/// Port B: speaker data enable.
pub const SPEAKER: u8 = 1 << 1;
/// Port B: bits that software writes.
pub const PORT_B_WRITABLE: u8 = 0x0f;
/// Port B: refresh request, toggles every 15 microseconds.
pub const REFRESH: u8 = 1 << 4;
/// Port B: output of counter 2.
pub const OUT2: u8 = 1 << 5;
