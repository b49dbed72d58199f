//! Structures of the PCI transport (virtio 1.2 section 4.1.4).

/// Vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// The device ID of virtio device 0.
pub const DEVICE_BASE: u16 = 0x1040;

/// Bytes of the BAR of the MSI-X table and pending array.
pub const BAR_MSIX_SIZE: u64 = 0x1000;
/// Where in it the pending array is.
pub const PENDING_OFFSET: u64 = 0x800;
/// Bytes of the main BAR, that of everything else.
pub const BAR_MAIN_SIZE: u64 = 0x4000;

/// Bytes of the common configuration.
pub const COMMON_SIZE: u64 = 0x38;
/// Where in the main BAR the device configuration is.
pub const DEVICE_OFFSET: u64 = 0x2000;
/// Where the doorbells are.
pub const NOTIFY_OFFSET: u64 = 0x3000;
/// Bytes of each of the two.
pub const PAGE: u64 = 0x1000;
/// Bytes per doorbell.
pub const NOTIFY_MULTIPLIER: u32 = 4;

/// What differs between functions: which BARs there are, and what lies where in the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The BAR of the MSI-X table and pending array.
    pub msix_bar: u8,
    /// The main BAR.
    pub main_bar: u8,
    /// Where in it the common configuration is. What is before is a VGA's.
    pub common: u64,
    /// Where the interrupt status is.
    pub isr: u64,
}

impl Layout {
    /// Of a function that is a virtio device.
    pub const PLAIN: Self = Self { msix_bar: 1, main_bar: 4, common: 0, isr: 0x1000 };
    /// Of one that is a VGA, too: BARs 0 and 2 begin as a VGA's (QEMU `hw/display/virtio-vga.c`).
    pub const VGA: Self = Self { msix_bar: 4, main_bar: 2, common: 0x1000, isr: 0x1800 };

    /// What is at an offset in the main BAR.
    pub fn part(&self, offset: u64) -> Part {
        if offset >= NOTIFY_OFFSET {
            Part::Notify(offset - NOTIFY_OFFSET)
        } else if offset >= DEVICE_OFFSET {
            Part::Device(offset - DEVICE_OFFSET)
        } else if offset >= self.isr {
            Part::Isr(offset - self.isr)
        } else if offset >= self.common {
            Part::Common(offset - self.common)
        } else {
            Part::Vga(offset)
        }
    }
}

/// A part of the main BAR, and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Registers of the VGA that the function is, too.
    Vga(u64),
    /// Common configuration.
    Common(u64),
    /// Interrupt status.
    Isr(u64),
    /// Device configuration.
    Device(u64),
    /// Doorbells.
    Notify(u64),
}

/// Capability types (4.1.4).
pub mod cfg_type {
    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Doorbells.
    pub const NOTIFY: u8 = 2;
    /// Interrupt status.
    pub const ISR: u8 = 3;
    /// Device configuration.
    pub const DEVICE: u8 = 4;
    /// Access to the BARs through configuration space.
    pub const PCI: u8 = 5;
}

/// Common configuration (4.1.4.3).
pub mod common {
    /// Which half of the device's features is shown.
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// That half.
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// Which half of the driver's features is written.
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// That half.
    pub const DRIVER_FEATURE: u64 = 0x0c;
    /// The vector of configuration changes.
    pub const CONFIG_VECTOR: u64 = 0x10;
    /// Queues.
    pub const NUM_QUEUES: u64 = 0x12;
    /// Device status.
    pub const STATUS: u64 = 0x14;
    /// Changes with the configuration.
    pub const GENERATION: u64 = 0x15;
    /// Which queue the rest is about.
    pub const QUEUE_SELECT: u64 = 0x16;
    /// Its size.
    pub const QUEUE_SIZE: u64 = 0x18;
    /// Its vector.
    pub const QUEUE_VECTOR: u64 = 0x1a;
    /// Whether it is enabled.
    pub const QUEUE_ENABLE: u64 = 0x1c;
    /// Its doorbell.
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// Descriptors.
    pub const QUEUE_DESC: u64 = 0x20;
    /// Available ring.
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// Used ring.
    pub const QUEUE_DEVICE: u64 = 0x30;
}

/// Device status (2.1).
pub mod status {
    /// The driver has agreed on features.
    pub const FEATURES_OK: u8 = 8;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// The device is broken until reset.
    pub const NEEDS_RESET: u8 = 64;
}

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;
/// Interrupt status: a queue.
pub const ISR_QUEUE: u8 = 1;
/// Interrupt status: the configuration.
pub const ISR_CONFIG: u8 = 2;
