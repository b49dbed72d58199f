//! What cards for PCI are made of and connected to.

use std::sync::Arc;

use lodge_bus::{MmioBus, PortBus, Timers};
use lodge_engine_api::GuestMemory;
use lodge_pci::Router;

/// What a card is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardConfig {
    /// Its name in the machine ("net0").
    pub name: String,
    /// Its expansion ROM, from which firmware boots off the network; empty for none.
    pub rom: Vec<u8>,
}

/// What a card is connected to, but for its cable.
#[derive(Clone)]
pub struct PciWiring {
    /// Where its rings and buffers are.
    pub memory: GuestMemory,
    /// Where its registers are.
    pub mmio: MmioBus,
    /// Where its registers are, too.
    pub ports: PortBus,
    /// Where its interrupt goes.
    pub router: Arc<Router>,
    /// What it waits with.
    pub timers: Timers,
}
