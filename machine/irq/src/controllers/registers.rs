//! Regions of the controllers on the buses.

/// The master 8259A's two ports.
pub const REGION_MASTER: u8 = 0;
/// The slave 8259A's two ports.
pub const REGION_SLAVE: u8 = 1;
/// The edge/level control ports.
pub const REGION_ELCR: u8 = 2;

/// Global system interrupt of the timer, which drives pin 2 of the I/O APIC (ACPI 5.2.12.5, interrupt source
/// override).
pub const GSI_TIMER: u32 = 0;
/// The I/O APIC pin that the timer drives.
pub const PIN_TIMER: usize = 2;
