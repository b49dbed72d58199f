//! Registers of a parallel port (SMSC FDC37C669 data sheet, "Parallel Port"; IEEE 1284-1994, 6.2 and 8).

/// First port of LPT1.
pub const BASE: u16 = 0x378;
/// Ports.
pub const LENGTH: u16 = 8;
/// LPT1's ISA interrupt.
pub const INTERRUPT: u8 = 7;

/// Data.
pub const DATA: u16 = 0;
/// Status.
pub const STATUS: u16 = 1;
/// Control.
pub const CONTROL: u16 = 2;
// From 3 on: EPP's address and data.

/// Status: an EPP cycle had no answer. Cleared by writing a 1.
pub const TIMEOUT: u8 = 1 << 0;
/// Status: nError, high.
pub const NO_ERROR: u8 = 1 << 3;
/// Status: the printer is on line.
pub const SELECTED: u8 = 1 << 4;
/// Status: nAck, high but for a moment when a byte has been taken.
pub const NO_ACK: u8 = 1 << 6;
/// Status: not busy; the line, inverted.
pub const NOT_BUSY: u8 = 1 << 7;

/// Control: nStrobe is low.
pub const STROBE: u8 = 1 << 0;
/// Control: nInit is high.
pub const NO_INIT: u8 = 1 << 2;
/// Control: nSelectIn is low: the printer is meant.
pub const SELECT: u8 = 1 << 3;
/// Control: acknowledgements interrupt.
pub const INTERRUPTS: u8 = 1 << 4;
/// Control: the data lines are inputs.
pub const INPUT: u8 = 1 << 5;
/// Control: bits that are there; the others read as 1.
pub const CONTROL_BITS: u8 = 0x3f;
