//! Registers of a type 0 configuration header (PCI 3.0 section 6.1).

/// Vendor and device.
pub const ID: u8 = 0x00;
/// Command and status.
pub const COMMAND: u8 = 0x04;
/// Revision and class.
pub const CLASS: u8 = 0x08;
/// Cache line, latency timer, header type.
pub const HEADER: u8 = 0x0c;
/// The first of six base address registers.
pub const BAR0: u8 = 0x10;
/// Subsystem vendor and device.
pub const SUBSYSTEM: u8 = 0x2c;
/// Expansion ROM base address (section 6.2.5.2).
pub const ROM: u8 = 0x30;
/// Expansion ROM: it responds.
pub const ROM_ENABLE: u32 = 1 << 0;
/// Expansion ROM: bits of the address.
pub const ROM_ADDRESS: u32 = !0x7ff;
/// Least bytes of an expansion ROM.
pub const ROM_LEAST: u64 = 2 << 10;
/// Most bytes of an expansion ROM.
pub const ROM_MOST: u64 = 16 << 20;
/// Where the list of capabilities begins.
pub const CAPABILITIES: u8 = 0x34;
/// Interrupt line and pin.
pub const INTERRUPT: u8 = 0x3c;
/// The first byte after the header.
pub const AFTER_HEADER: u8 = 0x40;

/// Command: responds to I/O ports.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: responds to memory.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: masters the bus.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// Command: INTx disabled.
pub const COMMAND_NO_INTX: u16 = 1 << 10;
/// Command: bits that software writes.
pub const COMMAND_WRITABLE: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX | 1 << 6 | 1 << 8;
/// Status: INTx asserted.
pub const STATUS_INTX: u16 = 1 << 3;
/// Status: there is a list of capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Header type: several functions.
pub const HEADER_MULTIFUNCTION: u8 = 0x80;

/// Capability: MSI.
pub const CAP_MSI: u8 = 0x05;
/// Capability: vendor-specific.
pub const CAP_VENDOR: u8 = 0x09;
/// Capability: MSI-X.
pub const CAP_MSIX: u8 = 0x11;
