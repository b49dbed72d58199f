//! Registers of the 8259A (Intel order number 231468) and of the edge/level control that PIIX adds (82371AB 4.1.5).

/// Ports of the master: ICW1, OCW2, OCW3 and status at the first, ICW2 to ICW4 and OCW1 at the second.
pub const MASTER: u16 = 0x20;
/// Ports of the slave.
pub const SLAVE: u16 = 0xa0;
/// Edge/level control of both chips.
pub const ELCR: u16 = 0x4d0;

/// ICW1: begins initialization ("Initialization command words").
pub const ICW1: u8 = 0x10;
/// ICW1: ICW4 follows.
pub const ICW1_ICW4: u8 = 0x01;
/// ICW1: single, no ICW3.
pub const ICW1_SINGLE: u8 = 0x02;
/// ICW1: all inputs level-triggered.
pub const ICW1_LEVEL: u8 = 0x08;
/// ICW4: automatic end of interrupt.
pub const ICW4_AUTO_EOI: u8 = 0x02;
/// ICW4: special fully nested mode.
pub const ICW4_NESTED: u8 = 0x10;
/// OCW3 rather than OCW2 (with bit 4 clear).
pub const OCW3: u8 = 0x08;
/// OCW3: poll command.
pub const OCW3_POLL: u8 = 0x04;
/// OCW3: bit 0 selects what is read.
pub const OCW3_READ: u8 = 0x02;
/// OCW3: bit 5 is the special mask mode.
pub const OCW3_SET_MASK_MODE: u8 = 0x40;

/// The master's input that the slave drives.
pub const CASCADE: u8 = 2;
/// Inputs whose trigger can be chosen: not the timer, keyboard, cascade, clock and coprocessor.
pub const ELCR_MASK: [u8; 2] = [0xf8, 0xde];
