//! Structures of the PCI transport (virtio 1.2 section 4.1.4).

/// Vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// The device ID of virtio device 0.
pub const DEVICE_BASE: u16 = 0x1040;

/// The BAR of the MSI-X table and pending array.
pub const BAR_MSIX: u8 = 1;
/// Bytes of that BAR.
pub const BAR_MSIX_SIZE: u64 = 0x1000;
/// Where in it the pending array is.
pub const PENDING_OFFSET: u64 = 0x800;
/// The BAR of everything else.
pub const BAR_MAIN: u8 = 4;
/// Bytes of that BAR.
pub const BAR_MAIN_SIZE: u64 = 0x4000;

/// Where in the main BAR the common configuration is.
pub const COMMON_OFFSET: u64 = 0x0000;
/// Its bytes.
pub const COMMON_SIZE: u64 = 0x38;
/// Where the interrupt status is.
pub const ISR_OFFSET: u64 = 0x1000;
/// Where the device configuration is.
pub const DEVICE_OFFSET: u64 = 0x2000;
/// Where the doorbells are.
pub const NOTIFY_OFFSET: u64 = 0x3000;
/// Bytes of each of the three.
pub const PAGE: u64 = 0x1000;
/// Bytes per doorbell.
pub const NOTIFY_MULTIPLIER: u32 = 4;

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
