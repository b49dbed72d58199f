//! The NE2000, for the ISA bus and, as Realtek's RTL8029AS, for PCI.
//!
//! [`Ne2000`] is either card; [`core`] is the DP8390 with its memory that both are made of.
//!
//! ```text
//!   0x00 to 0x0f: registers, in pages         TXP ──► thread: transmit ──► cable
//!   0x10 to 0x17: data, by remote DMA         BNRY ─► thread: receive  ◄── cable
//!   0x18 to 0x1f: reading resets              cause ──► ISR & IMR ──► interrupt
//! ```
//!
//! Not built: overruns of the ring, as frames wait at the cable until there is room; errors of the line; the EEPROM behind
//! the RTL8029AS's 9346CR, since drivers read the address from the PROM; swapping bytes and the other modes of DCR, which an
//! NE2000 has no wires for, and that loopback in words sends every second byte.

mod core;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use lodge_bus::{
    AccessError, Device, IrqLine, MmioDevice, MmioRange, MmioWidths, PauseDevice, PciAddress, PciFunction, PortDevice,
    PortRange, ResetDevice, SaveDevice, StateError, Width,
};
use lodge_net::{Cable, Listener, MacAddress};
use lodge_pci::bridges::registers::SUBSYSTEM;
use lodge_pci::config::registers::COMMAND_NO_INTX;
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Router, read_rom, rom_for, rom_length};
use parking_lot::{Mutex, MutexGuard};
use registers::*;
pub use state::Ne2000State;

use crate::wiring::{CardConfig, PciWiring};
use crate::worker::{Bell, Work, Worker};

const REGION_PORTS: u8 = 0;
const REGION_ROM: u8 = 1;

/// What a card for the ISA bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaConfig {
    /// Its name in the machine ("net0").
    pub name: String,
    /// The first of its 32 ports: [`IsaConfig::BASE`], unless there are several.
    pub base: u16,
}

impl IsaConfig {
    /// Where drivers look first.
    pub const BASE: u16 = 0x300;
    /// The interrupt that goes with it.
    pub const INTERRUPT: u32 = 9;
}

/// The card.
pub struct Ne2000 {
    // configuration
    name: String,
    /// The first port of a card for ISA.
    base: Option<u16>,
    rom: Vec<u8>,
    prom: [u8; PROM],
    // wiring
    cable: Arc<Cable>,
    router: Option<Arc<Router>>,
    line: OnceLock<IrqLine>,
    bell: Arc<Bell>,
    worker: OnceLock<Worker>,
    // volatile
    volatile: Mutex<Volatile>,
}

struct Volatile {
    /// Of a card for PCI.
    config: Option<ConfigSpace>,
    /// But for the configuration space.
    state: Ne2000State,
    paused: bool,
}

/// The address in each byte twice, and at the end that the card can do words.
fn prom(address: MacAddress) -> [u8; PROM] {
    let mut bytes = [0; PROM];
    for (pair, byte) in bytes.chunks_exact_mut(2).zip(address.0) {
        pair.fill(byte);
    }
    bytes[28..].fill(SIGNATURE);
    bytes
}

impl Ne2000 {
    /// A card for the ISA bus, plugged into a cable. `line` is its interrupt.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn isa(config: IsaConfig, cable: Arc<Cable>, line: IrqLine) -> std::io::Result<Arc<Self>> {
        let card = Arc::new(Self {
            name: config.name,
            base: Some(config.base),
            rom: Vec::new(),
            prom: prom(cable.mac()),
            cable,
            router: None,
            line: OnceLock::from(line),
            bell: Arc::default(),
            worker: OnceLock::new(),
            volatile: Mutex::new(Volatile { config: None, state: Ne2000State::default(), paused: false }),
        });
        card.start()?;
        Ok(card)
    }

    /// A card for PCI, plugged into a cable.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn pci(config: CardConfig, cable: Arc<Cable>, wiring: PciWiring) -> std::io::Result<Arc<Self>> {
        let PciWiring { mmio, ports, router, .. } = wiring;
        let card = Arc::new_cyclic(|this: &Weak<Self>| {
            let mut space = ConfigSpace::new(&ConfigSpec {
                vendor: VENDOR,
                device: DEVICE,
                class: [2, 0, 0],
                subsystem: SUBSYSTEM,
                pin: 1,
                ..ConfigSpec::default()
            });
            let range = PortRange { base: 0, length: PORTS, region: REGION_PORTS, widths: Width::Dword };
            let port_face: Weak<dyn PortDevice> = this.clone();
            space.add_bar(0, PORTS.into(), BarTarget::Ports(ports.mapping(port_face, range)));
            if !config.rom.is_empty() {
                let face: Weak<dyn MmioDevice> = this.clone();
                let length = rom_length(&config.rom);
                let range = MmioRange { base: 0, length, region: REGION_ROM, widths: MmioWidths::ANY };
                space.add_rom(length, mmio.mapping(face, range));
            }
            Self {
                name: config.name,
                base: None,
                rom: rom_for(config.rom, VENDOR, DEVICE),
                prom: prom(cable.mac()),
                cable,
                router: Some(router),
                line: OnceLock::new(),
                bell: Arc::default(),
                worker: OnceLock::new(),
                volatile: Mutex::new(Volatile { config: Some(space), state: Ne2000State::default(), paused: false }),
            }
        });
        card.start()?;
        Ok(card)
    }

    fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let listener: Weak<dyn Listener> = Arc::downgrade(self) as Weak<dyn Listener>;
        self.cable.plug(listener);
        let work: Weak<dyn Work> = Arc::downgrade(self) as Weak<dyn Work>;
        // Nobody else sets it.
        let _ = self.worker.set(Worker::start(&self.name, self.bell.clone(), work)?);
        self.bell.ring();
        Ok(())
    }

    /// Does something, and sees to the interrupt that may come of it.
    fn with<R>(&self, act: impl FnOnce(&mut Volatile) -> R) -> R {
        let mut volatile = self.volatile.lock();
        let result = act(&mut volatile);
        self.drive(&mut volatile);
        result
    }

    fn drive(&self, volatile: &mut Volatile) {
        let raised = volatile.state.causes & volatile.state.mask != 0;
        let mut allowed = true;
        if let Some(config) = &mut volatile.config {
            config.set_intx_status(raised);
            allowed = config.command() & COMMAND_NO_INTX == 0;
        }
        if let Some(line) = self.line.get() {
            line.set(raised && allowed);
        }
    }

    fn is_realtek(&self) -> bool {
        self.base.is_none()
    }

    fn read_data(&self, state: &mut Ne2000State, bytes: usize) -> u32 {
        let step = if state.moves_words() { 2 } else { 1 };
        let parts = (0..bytes).step_by(step).map(|at| u32::from(state.read_data(&self.prom)) << (8 * at));
        parts.fold(0, |value, part| value | part)
    }

    fn write_data(state: &mut Ne2000State, bytes: usize, value: u32) {
        let step = if state.moves_words() { 2 } else { 1 };
        (0..bytes).step_by(step).for_each(|at| state.write_data((value >> (8 * at)) as u16));
    }
}

impl Drop for Ne2000 {
    fn drop(&mut self) {
        self.bell.end();
    }
}

impl Work for Ne2000 {
    fn work(&self) -> bool {
        let mut volatile = self.volatile.lock();
        if volatile.paused {
            return false;
        }
        let transmits = volatile.state.transmit(&self.cable);
        let receives = volatile.state.receive(&self.cable);
        self.drive(&mut volatile);
        // A vCPU that waits has its turn.
        MutexGuard::unlock_fair(volatile);
        transmits || receives
    }
}

impl Listener for Ne2000 {
    fn frames_wait(&self) {
        self.bell.ring();
    }
    fn room_to_send(&self) {
        self.bell.ring();
    }
}

impl Device for Ne2000 {
    fn name(&self) -> &str {
        &self.name
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        self.base.is_some().then_some(self as Arc<dyn PortDevice>)
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        self.base.is_none().then_some(self as Arc<dyn PciFunction>)
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

impl PortDevice for Ne2000 {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base| PortRange { base, length: PORTS, region: REGION_PORTS, widths: Width::Word };
        self.base.map(range).into_iter().collect()
    }

    fn port_read(&self, _region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        let bytes = width.bytes();
        self.with(|volatile| match offset {
            RESET.. => {
                volatile.state.reset();
                Ok(0)
            }
            DATA.. => Ok(self.read_data(&mut volatile.state, bytes)),
            // Registers are bytes; an access that reaches the data port does nothing there.
            _ => Ok((0..bytes as u16)
                .filter(|n| offset + n < DATA)
                .fold(0, |value, n| value | u32::from(volatile.state.read(offset + n, self.is_realtek())) << (8 * n))),
        })
    }

    fn port_write(&self, _region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        let bytes = width.bytes();
        let rings = self.with(|volatile| match offset {
            // Only reading resets.
            RESET.. => false,
            DATA.. => {
                Self::write_data(&mut volatile.state, bytes, value);
                false
            }
            _ => {
                let mut rings = false;
                for n in (0..bytes as u16).filter(|n| offset + n < DATA) {
                    rings |= volatile.state.write(offset + n, (value >> (8 * n)) as u8, self.is_realtek());
                }
                rings
            }
        });
        if rings {
            self.bell.ring();
        }
        Ok(())
    }
}

impl MmioDevice for Ne2000 {
    fn mmio_read(&self, _region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        Ok(read_rom(&self.rom, offset, bytes))
    }

    fn mmio_write(&self, _region: u8, _offset: u64, _bytes: usize, _value: u64) -> Result<(), AccessError> {
        Ok(())
    }
}

impl PciFunction for Ne2000 {
    fn config_read(&self, offset: u8) -> u32 {
        self.volatile.lock().config.as_ref().map_or(u32::MAX, |config| config.read(offset))
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        self.with(|volatile| {
            if let Some(config) = &mut volatile.config {
                config.write(offset, mask, value);
            }
        });
    }

    fn placed(&self, address: PciAddress) {
        if let Some(router) = &self.router {
            // A function is placed once.
            let _ = self.line.set(router.line(address.device, 0));
        }
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.volatile.lock().config.as_ref().map(ConfigSpace::bars).unwrap_or_default()
    }
}

impl ResetDevice for Ne2000 {
    fn reset(&self) {
        self.with(|volatile| {
            if let Some(config) = &mut volatile.config {
                config.reset();
            }
            volatile.state = Ne2000State::default();
        });
        self.bell.ring();
    }
}

impl PauseDevice for Ne2000 {
    fn pause(&self) {
        // Whoever holds the lock is not amid a piece of work.
        self.volatile.lock().paused = true;
    }

    fn resume(&self) {
        self.volatile.lock().paused = false;
        self.bell.ring();
    }
}

impl SaveDevice for Ne2000 {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        let config = volatile.config.as_ref().map(ConfigSpace::state).unwrap_or_default();
        lodge_savestate::to_record(&Ne2000State { config, ..volatile.state.clone() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: Ne2000State = StateError::read(&self.name, record)?;
        if !state.is_sound() {
            let cause = "its memory has another size, or a register is out of range".into();
            return Err(StateError { device: self.name.clone(), cause });
        }
        self.with(|volatile| {
            if let Some(config) = &mut volatile.config {
                config.set_state(&state.config);
            }
            volatile.state = Ne2000State { config: Default::default(), ..state };
        });
        self.bell.ring();
        Ok(())
    }
}
