//! MSI-X structures (PCI 3.0 section 6.8.2).

/// Bytes in a table entry.
pub const ENTRY: u64 = 16;
/// Message control: enable.
pub const ENABLE: u16 = 1 << 15;
/// Message control: mask all.
pub const MASK_ALL: u16 = 1 << 14;
/// Vector control: masked.
pub const MASKED: u32 = 1 << 0;
/// Most entries.
pub const MOST: u16 = 2048;
