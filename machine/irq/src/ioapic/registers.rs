//! Registers of the I/O APIC (82093AA section 3; version 0x20 adds the EOI register).

/// Where it is mapped.
pub const BASE: u64 = 0xfec0_0000;
/// Bytes mapped.
pub const LENGTH: u64 = 0x1000;
/// Interrupt inputs.
pub const PINS: usize = 24;

/// I/O register select (3.1.1).
pub const IOREGSEL: u64 = 0x00;
/// I/O window (3.1.2).
pub const IOWIN: u64 = 0x10;
/// End of interrupt: a vector (version 0x20).
pub const EOI: u64 = 0x40;

/// Indirect: identification (3.2.1).
pub const ID: u8 = 0x00;
/// Indirect: version and number of pins (3.2.2).
pub const VERSION: u8 = 0x01;
/// Indirect: arbitration (3.2.3).
pub const ARBITRATION: u8 = 0x02;
/// Indirect: the first redirection entry's lower half (3.2.4).
pub const REDIRECTION: u8 = 0x10;
/// What [`VERSION`] reads.
pub const VERSION_VALUE: u32 = 0x20 | (PINS as u32 - 1) << 16;

/// Redirection entry: destination is logical.
pub const LOGICAL: u64 = 1 << 11;
/// Redirection entry: delivery status (read-only).
pub const STATUS: u64 = 1 << 12;
/// Redirection entry: remote IRR (read-only).
pub const REMOTE_IRR: u64 = 1 << 14;
/// Redirection entry: level-triggered.
pub const LEVEL: u64 = 1 << 15;
/// Redirection entry: masked.
pub const MASKED: u64 = 1 << 16;
/// Redirection entry: bits that software writes.
pub const WRITABLE: u64 = 0xff00_0000_0001_afff;
