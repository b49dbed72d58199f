//! MSI: one message, whose address and data are in configuration space (PCI 3.0 section 6.8.1).
//!
//! [`Msi`] is the capability; its state is the configuration space's, which the function that owns both locks and saves.

pub mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::MsiTarget;
use registers::*;

use crate::config::ConfigSpace;
use crate::config::registers::CAP_MSI;

/// A function's MSI capability, with one message and no mask.
pub struct Msi {
    offset: u8,
    target: Arc<dyn MsiTarget>,
}

impl Msi {
    /// Adds the capability to a configuration space; its message goes to `target`. `None` when there is no room.
    pub fn new(config: &mut ConfigSpace, target: Arc<dyn MsiTarget>) -> Option<Self> {
        let [low, high] = CONTROL_64.to_le_bytes();
        let mut body = vec![low, high];
        body.extend([0; 10]);
        let [enable, _] = ENABLE.to_le_bytes();
        let mut writable = vec![enable, 0, 0xfc];
        writable.extend([0xff; 9]);
        let offset = config.add_capability(CAP_MSI, &body, &writable)?;
        Some(Self { offset, target })
    }

    /// Whether the guest uses MSI.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.read16(self.offset + CONTROL) & ENABLE != 0
    }

    /// Sends the message, if the guest uses MSI.
    pub fn signal(&self, config: &ConfigSpace) {
        if self.is_enabled(config) {
            let low = u64::from(config.read(self.offset + ADDRESS));
            let address = low | u64::from(config.read(self.offset + ADDRESS_HIGH)) << 32;
            self.target.signal(address, config.read16(self.offset + DATA).into());
        }
    }
}
