//! ICH9's AHCI controller with six ports (Serial ATA AHCI 1.3.1).
//!
//! [`Ahci`] is the PCI function; [`hba`] has what all ports share, a [`port`] its registers, and [`command`] is what its thread
//! does, with [`frame`] for the structures in guest memory. Drives' commands are [`crate::ata`]'s.
//!
//! ```text
//!   BAR 5 --> global registers ----------------------> MSI, or INTA
//!         \-> port 0 .. 5 --> thread, if there is a drive --> command list, frames, data in guest memory
//! ```
//!
//! Lock order: a port, then what all share.

mod command;
mod frame;
mod hba;
mod port;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use hba::Hba;
use lodge_bus::{
    AccessError, Device, MmioBus, MmioDevice, MmioRange, MmioWidths, MsiTarget, PauseDevice, PciAddress, PciFunction,
    ResetDevice, SaveDevice, StateError,
};
use lodge_engine_api::GuestMemory;
use lodge_pci::bridges::registers::{INTEL, SUBSYSTEM};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Msi, Router};
use port::Port;
use registers::*;
pub use state::{AhciState, PortState};

use crate::ata::{Drive, Unit};
use crate::thread::Thread;

/// What a function with registers in memory is wired to.
#[derive(Clone)]
pub struct PciWiring {
    /// Guest memory.
    pub memory: GuestMemory,
    /// The bus that its BAR is mapped on.
    pub mmio: MmioBus,
    /// Where messages go.
    pub msi: Arc<dyn MsiTarget>,
    /// Where INTx goes.
    pub router: Arc<Router>,
}

/// The controller.
pub struct Ahci {
    // configuration
    name: String,
    // wiring
    router: Arc<Router>,
    hba: Arc<Hba>,
    ports: [Arc<Port>; PORTS],
    _threads: Vec<Thread>,
}

impl Ahci {
    /// A controller with these drives on its ports; `name` is its name in the machine ("sata0").
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(name: &str, drives: [Option<Drive>; PORTS], wiring: PciWiring) -> std::io::Result<Arc<Self>> {
        let mut threads = Vec::new();
        let mut failed = None;
        let this = Arc::new_cyclic(|this: &Weak<Self>| {
            let mut config = ConfigSpace::new(&ConfigSpec {
                vendor: INTEL,
                device: ICH9_AHCI,
                revision: 2,
                class: [0x01, 0x06, 0x01],
                subsystem: SUBSYSTEM,
                multifunction: false,
                pin: 1,
            });
            let face: Weak<dyn MmioDevice> = this.clone();
            let range = MmioRange { base: 0, length: BAR_SIZE, region: BAR, widths: MmioWidths::DWORD };
            config.add_bar(BAR, BAR_SIZE, BarTarget::Memory32(wiring.mmio.mapping(face, range)));
            let msi = Msi::new(&mut config, wiring.msi);
            let hba = Arc::new(Hba::new(config, msi));
            let mut number = 0;
            let ports = drives.map(|drive| {
                let unit = drive.map(|drive| Unit::new(drive, &format!("{name}-{number}"), true));
                let has_thread = unit.is_some();
                let port = Port::new(number, unit, wiring.memory.clone(), hba.clone());
                if has_thread {
                    let on_thread = port.clone();
                    match Thread::start(&format!("io-{name}-{number}"), move || on_thread.serve()) {
                        Ok(thread) => threads.push(thread),
                        Err(error) => failed = Some(error),
                    }
                }
                number += 1;
                port
            });
            Self { name: name.to_owned(), router: wiring.router, hba, ports, _threads: threads }
        });
        failed.map_or(Ok(this), Err)
    }

    /// The port and register at an offset.
    fn port(&self, offset: u64) -> Option<(&Port, u64)> {
        let within = offset.checked_sub(FIRST_PORT)?;
        let port = self.ports.get(usize::try_from(within / PORT_SIZE).ok()?)?;
        Some((port, within % PORT_SIZE))
    }

    fn write_control(&self, value: u32) {
        if value & GHC_RESET != 0 {
            self.ports.iter().for_each(|port| port.reset_with_controller());
            return self.hba.reset();
        }
        let mut state = self.hba.state.lock();
        let before = std::mem::replace(&mut state.control, value & GHC_INTERRUPTS | GHC_AHCI);
        let enabled = state.control & !before & GHC_INTERRUPTS != 0;
        self.hba.deliver(&mut state, enabled);
    }
}

impl Drop for Ahci {
    fn drop(&mut self) {
        for port in &self.ports {
            port.volatile.lock().ended = true;
            port.generation.fetch_add(1, Ordering::AcqRel);
            port.changed.notify_all();
        }
    }
}

impl Device for Ahci {
    fn name(&self) -> &str {
        &self.name
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl MmioDevice for Ahci {
    fn mmio_read(&self, _region: u8, offset: u64, _bytes: usize) -> Result<u64, AccessError> {
        if let Some((port, register)) = self.port(offset) {
            return Ok(port.read(register).into());
        }
        Ok(match offset {
            CAP => CAP_VALUE,
            GHC => {
                let resetting = self.ports.iter().any(|port| port.is_resetting());
                self.hba.state.lock().control | if resetting { GHC_RESET } else { 0 }
            }
            IS => self.hba.state.lock().interrupts,
            PI => (1 << PORTS) - 1,
            VS => VS_VALUE,
            _ => 0,
        }
        .into())
    }

    fn mmio_write(&self, _region: u8, offset: u64, _bytes: usize, value: u64) -> Result<(), AccessError> {
        let value = value as u32;
        match (self.port(offset), offset) {
            (Some((port, register)), _) => port.write(register, value),
            (None, GHC) => self.write_control(value),
            (None, IS) => self.hba.acknowledge(value),
            _ => {}
        }
        Ok(())
    }
}

impl PciFunction for Ahci {
    fn config_read(&self, offset: u8) -> u32 {
        self.hba.state.lock().config.read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        let mut state = self.hba.state.lock();
        let before = state.msi.as_ref().is_some_and(|msi| msi.is_enabled(&state.config));
        state.config.write(offset, mask, value);
        let after = state.msi.as_ref().is_some_and(|msi| msi.is_enabled(&state.config));
        self.hba.deliver(&mut state, after && !before);
    }

    fn placed(&self, address: PciAddress) {
        // A function is placed once.
        let _ = self.hba.line.set(self.router.line(address.device, 0));
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.hba.state.lock().config.bars()
    }
}

impl ResetDevice for Ahci {
    fn reset(&self) {
        self.ports.iter().for_each(|port| port.power_on());
        self.hba.state.lock().config.reset();
        self.hba.reset();
    }
}

impl PauseDevice for Ahci {
    fn pause(&self) {
        self.ports.iter().for_each(|port| port.paused.store(true, Ordering::Release));
        self.ports.iter().for_each(|port| port.quiesce(&mut port.volatile.lock()));
    }

    fn resume(&self) {
        for port in &self.ports {
            // The lock: not between a thread's look at it and its sleep.
            let volatile = port.volatile.lock();
            port.paused.store(false, Ordering::Release);
            drop(volatile);
            port.changed.notify_all();
        }
    }
}

impl SaveDevice for Ahci {
    fn save(&self) -> Vec<u8> {
        let mut state = AhciState::default();
        for (n, port) in self.ports.iter().enumerate() {
            let mut volatile = port.volatile.lock();
            port.quiesce(&mut volatile);
            state.ports[n] = volatile.state.clone();
            state.units[n] = volatile.unit.as_ref().map(Unit::saved).unwrap_or_default();
        }
        let hba = self.hba.state.lock();
        state.config = hba.config.state();
        (state.control, state.interrupts) = (hba.control, hba.interrupts);
        lodge_savestate::to_record(&state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: AhciState = StateError::read(&self.name, record)?;
        let sound = state.ports.iter().all(PortState::is_sound) && state.units.iter().all(|unit| unit.is_sound());
        if !sound {
            let cause = "a port is in a state that it cannot be in".into();
            return Err(StateError { device: self.name.clone(), cause });
        }
        self.ports.iter().for_each(|port| port.power_on());
        {
            let mut hba = self.hba.state.lock();
            hba.config.set_state(&state.config);
            hba.control = state.control & GHC_INTERRUPTS | GHC_AHCI;
            hba.interrupts = state.interrupts & ((1 << PORTS) - 1);
        }
        for ((port, saved), unit) in self.ports.iter().zip(state.ports).zip(state.units) {
            let mut volatile = port.volatile.lock();
            volatile.state = saved;
            if let Some(drive) = &mut volatile.unit {
                drive.restore(unit);
            }
            port.update(&volatile.state);
            port.changed.notify_all();
        }
        let mut hba = self.hba.state.lock();
        self.hba.deliver(&mut hba, false);
        Ok(())
    }
}
