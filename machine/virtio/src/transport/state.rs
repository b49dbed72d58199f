//! Saved state of a virtio device behind PCI.

use lodge_pci::{ConfigState, MsixState};
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::NO_VECTOR;

/// One queue as the driver has set it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueState {
    /// Entries.
    pub size: u16,
    /// Its MSI-X vector.
    pub vector: u16,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Descriptors.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// Where the device is in the available ring.
    pub next_available: u16,
    /// Where the device is in the used ring.
    pub next_used: u16,
}

impl Default for QueueState {
    fn default() -> Self {
        Self {
            size: 0,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
        }
    }
}

/// Transport registers, queues, configuration space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransportState {
    /// Which half of the device's features is shown.
    pub device_feature_select: u32,
    /// Which half of the driver's features is written.
    pub driver_feature_select: u32,
    /// What the driver agreed to.
    pub driver_features: u64,
    /// Device status.
    pub status: u8,
    /// Which queue is selected.
    pub queue_select: u16,
    /// The vector of configuration changes.
    pub config_vector: u16,
    /// The queues.
    pub queues: Vec<QueueState>,
    /// Interrupt status.
    pub isr: u8,
    /// Counts changes of the device's configuration.
    pub generation: u8,
    /// MSI-X.
    pub msix: MsixState,
    /// Configuration space.
    pub config: ConfigState,
    /// The device's own state, a record.
    #[serde(with = "serde_bytes")]
    pub device: Vec<u8>,
}

impl Default for TransportState {
    fn default() -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            config_vector: NO_VECTOR,
            queues: Vec::new(),
            isr: 0,
            generation: 0,
            msix: MsixState::default(),
            config: ConfigState::default(),
            device: Vec::new(),
        }
    }
}

impl Saved for TransportState {
    const KIND: &'static str = "virtio-pci";
    const VERSION: u16 = 1;
}
