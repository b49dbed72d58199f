//! The MSI capability (PCI 3.0 section 6.8.1): offsets within it.

/// Message control.
pub const CONTROL: u8 = 2;
/// Message address.
pub const ADDRESS: u8 = 4;
/// Its upper half.
pub const ADDRESS_HIGH: u8 = 8;
/// Message data.
pub const DATA: u8 = 12;
/// Message control: enable.
pub const ENABLE: u16 = 1 << 0;
/// Message control: addresses have 64 bits.
pub const CONTROL_64: u16 = 1 << 7;
