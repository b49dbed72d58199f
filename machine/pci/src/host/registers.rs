//! Ports of configuration mechanism #1 (PCI 3.0 section 3.2.2.3.2) and PIIX3's reset control (82371SB 2.5.5).

/// Configuration address.
pub const ADDRESS: u16 = 0xcf8;
/// Offset of the configuration data ports.
pub const DATA_OFFSET: u16 = 4;
/// Offset of the reset control port.
pub const RESET_OFFSET: u16 = 1;
/// Address: enable.
pub const ENABLE: u32 = 1 << 31;
/// Reset control: which reset; both are hard here.
pub const RESET_HARD: u8 = 1 << 1;
/// Reset control: a rising edge resets.
pub const RESET_CPU: u8 = 1 << 2;
