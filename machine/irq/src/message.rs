//! Interrupt messages between I/O APIC, MSI devices and local APICs.

/// Delivery modes (SDM 3A 11.5.1, 11.6.1; 82093AA 3.2.4).
pub mod mode {
    /// To all destinations.
    pub const FIXED: u8 = 0;
    /// To the destination that is doing the least urgent work.
    pub const LOWEST: u8 = 1;
    /// System management interrupt.
    pub const SMI: u8 = 2;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 4;
    /// INIT.
    pub const INIT: u8 = 5;
    /// Start-up.
    pub const STARTUP: u8 = 6;
    /// The 8259A has the vector.
    pub const EXTINT: u8 = 7;
}

/// An interrupt on its way to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The vector.
    pub vector: u8,
    /// One of [`mode`].
    pub mode: u8,
    /// The destination is logical.
    pub logical: bool,
    /// Level-triggered.
    pub level: bool,
    /// The destination: 8 bits from devices, 32 from a local APIC in x2APIC mode.
    pub destination: u32,
}

impl Message {
    /// What a device's write of `data` to `address` means (SDM 3A 11.11); `None` if the address is not an
    /// interrupt's.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != 0xfee {
            return None;
        }
        // A redirection hint with a physical destination changes nothing when there is one destination.
        Some(Self {
            vector: data as u8,
            mode: (data >> 8) as u8 & 7,
            logical: address & 4 != 0,
            level: data & 1 << 15 != 0,
            destination: (address >> 12) as u32 & 0xff,
        })
    }
}
