//! Small ports of the board.

/// System control port A (82371AB 4.1.9).
pub const PORT_A: u16 = 0x92;
/// Port A: a rising edge resets the processor.
pub const PORT_A_RESET: u8 = 1 << 0;
/// Port A: the A20 line is open.
pub const PORT_A_A20: u8 = 1 << 1;
/// Where firmware writes its progress.
pub const POST: u16 = 0x80;
/// Where firmware writes its log; reading tells that there is a listener (Bochs; QEMU's isa-debugcon).
pub const LOG: u16 = 0x402;
/// What is read there.
pub const LOG_PRESENT: u8 = 0xe9;
/// The debug exit port.
pub const DEBUG_EXIT: u16 = 0xf4;
