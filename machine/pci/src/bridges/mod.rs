//! The functions of the board itself: host bridge, ISA bridge, power management.
//!
//! One [`Bridge`] type serves all three, with an [`Action`] for what a write does beyond changing bytes: the i440FX changes
//! what memory is ([`pam`]), PIIX3 steers the interrupt [`Router`], PIIX4 moves the power-management ports.

pub mod pam;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::{Device, MemoryControl, PciAddress, PciFunction, PortMapping, ResetDevice, SaveDevice, StateError};
use parking_lot::Mutex;
use registers::*;
pub use state::BridgeState;

use crate::config::{ConfigSpace, ConfigSpec};
use crate::router::{ROUTE_OFF, Router};

enum Action {
    /// The memory, and the attribute map that it was last told of.
    Memory(Arc<dyn MemoryControl>, Mutex<[u8; pam::LENGTH]>),
    Route(Arc<Router>),
    PowerManagement(PortMapping),
}

/// A function of the board.
pub struct Bridge {
    // configuration
    name: &'static str,
    address: PciAddress,
    // wiring
    action: Action,
    // volatile
    config: Mutex<ConfigSpace>,
}

impl Bridge {
    fn new(name: &'static str, address: (u8, u8), spec: &ConfigSpec, action: Action) -> Self {
        let address = PciAddress { device: address.0, function: address.1 };
        Self { name, address, action, config: Mutex::new(ConfigSpace::new(spec)) }
    }

    /// The i440FX host bridge, 00:00.0.
    pub fn i440fx(memory: Arc<dyn MemoryControl>) -> Arc<Self> {
        let spec = ConfigSpec {
            vendor: INTEL,
            device: I440FX,
            revision: 2,
            class: [6, 0, 0],
            subsystem: SUBSYSTEM,
            ..ConfigSpec::default()
        };
        let bridge = Self::new("i440fx", (0, 0), &spec, Action::Memory(memory, Mutex::default()));
        bridge.config.lock().allow(PAM, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        bridge.config.lock().allow(SMRAM, &[0x78]);
        Arc::new(bridge)
    }

    /// The PIIX3 ISA bridge, 00:01.0.
    pub fn piix3(router: Arc<Router>) -> Arc<Self> {
        let spec = ConfigSpec {
            vendor: INTEL,
            device: PIIX3_ISA,
            class: [6, 1, 0],
            subsystem: SUBSYSTEM,
            multifunction: true,
            ..ConfigSpec::default()
        };
        let bridge = Self::new("piix3", (1, 0), &spec, Action::Route(router));
        bridge.config.lock().allow(PIRQ, &[0x8f; 4]);
        bridge.config.lock().set(PIRQ, &[ROUTE_OFF; 4]);
        Arc::new(bridge)
    }

    /// The PIIX4 power-management function, 00:01.3, which moves the block behind `block`.
    pub fn piix4_pm(block: PortMapping) -> Arc<Self> {
        let spec = ConfigSpec {
            vendor: INTEL,
            device: PIIX4_PM,
            revision: 3,
            class: [6, 0x80, 0],
            subsystem: SUBSYSTEM,
            pin: 1,
            ..ConfigSpec::default()
        };
        let bridge = Self::new("piix4-pm", (1, 3), &spec, Action::PowerManagement(block));
        {
            let mut config = bridge.config.lock();
            config.allow(PM_BASE, &[0xc0, 0xff]);
            config.set(PM_BASE, &[1]);
            config.allow(PM_MISC, &[1]);
            config.set(0x3c, &[SCI]);
            config.set(APMC_SMI, &[APMC_SMI_ON]);
        }
        Arc::new(bridge)
    }

    /// Where the power-management block is, if it is switched on.
    pub fn pm_base(&self) -> Option<u16> {
        pm_base(&self.config.lock())
    }

    fn act(&self, config: &ConfigSpace) {
        match &self.action {
            Action::Memory(memory, told) => {
                let map = attributes(config);
                let before = std::mem::replace(&mut *told.lock(), map);
                pam::changes(before, map).into_iter().for_each(|change| memory.change(change));
            }
            Action::Route(router) => {
                for (wire, route) in config.read(PIRQ).to_le_bytes().into_iter().enumerate() {
                    router.set_route(wire, route);
                }
            }
            Action::PowerManagement(block) => {
                block.set(pm_base(config));
            }
        }
    }
}

fn attributes(config: &ConfigSpace) -> [u8; pam::LENGTH] {
    std::array::from_fn(|n| {
        let at = PAM + n as u8;
        config.read(at).to_le_bytes()[usize::from(at & 3)]
    })
}

fn pm_base(config: &ConfigSpace) -> Option<u16> {
    let base = config.read16(PM_BASE) & 0xffc0;
    (config.read16(PM_MISC) & 1 != 0 && base != 0).then_some(base)
}

impl Device for Bridge {
    fn name(&self) -> &str {
        self.name
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PciFunction for Bridge {
    fn pci_address(&self) -> Option<PciAddress> {
        Some(self.address)
    }

    fn config_read(&self, offset: u8) -> u32 {
        self.config.lock().read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        let mut config = self.config.lock();
        config.write(offset, mask, value);
        self.act(&config);
    }
}

/// Devices are reset where a machine wakes up; one that starts over is made anew.
impl ResetDevice for Bridge {
    /// The host bridge keeps its settings, but that shadow memory can be written: SeaBIOS goes on in it, with stack, locks and
    /// counters of processors there, and locks it again at the end of its way; it unlocks it only when it starts over.
    fn reset(&self) {
        let mut config = self.config.lock();
        match &self.action {
            Action::Memory(..) => {
                let map = pam::unlocked(attributes(&config));
                config.set(PAM, &map);
            }
            Action::Route(_) => {
                config.reset();
                config.set(PIRQ, &[ROUTE_OFF; 4]);
            }
            Action::PowerManagement(_) => config.reset(),
        }
        self.act(&config);
    }
}

impl SaveDevice for Bridge {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&BridgeState { config: self.config.lock().state() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: BridgeState = StateError::read(self.name, record)?;
        let mut config = self.config.lock();
        config.set_state(&state.config);
        self.act(&config);
        Ok(())
    }
}
