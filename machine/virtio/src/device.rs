//! What a kind of virtio device is, behind whatever transport.

use lodge_bus::StateError;

use crate::queue::{Broken, VirtQueue};

/// Features that every device here has (virtio 1.2 section 6).
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Notifications say how far the other side has come.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Virtio 1.0 and later.
    pub const VERSION_1: u64 = 1 << 32;
    /// All three.
    pub const COMMON: u64 = INDIRECT | EVENT_IDX | VERSION_1;
}

/// A kind of virtio device. Queues are processed on threads of their own, never on a vCPU's.
pub trait VirtioDevice: Send + Sync {
    /// Its name in the machine ("disk0").
    fn name(&self) -> &str;

    /// Its device ID (virtio 1.2 section 5).
    fn device_id(&self) -> u16;

    /// Its PCI class: base class, sub-class, programming interface.
    fn class(&self) -> [u8; 3];

    /// Features beyond [`feature::COMMON`].
    fn features(&self) -> u64;

    /// The sizes of its queues, powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// How many threads serve the queues.
    fn threads(&self) -> usize {
        1
    }

    /// Which of them, modulo their number, serves a queue.
    fn thread(&self, queue: u16) -> usize {
        queue.into()
    }

    /// Reads device configuration; bytes beyond it read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration.
    fn write_config(&self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready, with these features.
    fn activate(&self, features: u64, bell: crate::worker::Bell);

    /// The device was reset: no queue is processed any more.
    fn deactivate(&self);

    /// Processes what is available in queue `index`, on the queue's thread.
    ///
    /// # Errors
    /// The driver broke a rule that leaves no way to go on; the device will need a reset.
    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken>;

    /// Its own state as a record, of a device at rest; nothing where the queues are all there is.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Replaces its own state, before it is activated.
    ///
    /// # Errors
    /// The record is not one of this device's.
    fn restore(&self, _record: &[u8]) -> Result<(), StateError> {
        Ok(())
    }
}
