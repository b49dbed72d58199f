//! Intel's 82540EM, the "PRO/1000 MT Desktop" (317453).
//!
//! [`E1000`] is the PCI function and the registers. [`transmit`] and [`receive`] work on the rings, on the card's thread;
//! [`phy`] is the PHY, [`statistics`] the counters.
//!
//! ```text
//!   TDT ──► thread: transmit ──► cable            cause ──► ICR & IMS ──► throttled by ITR ──► INTA
//!   RDT ──► thread: receive  ◄── cable              ▲
//!           thread: looks whether the link changed ─┘
//! ```
//!
//! Not built: waking a machine up, as nothing wakes this one up by frames; flow control, as cables hold back what there is
//! no room for; the delays of RDTR, RADV, TIDV and TADV, which drivers do without (they count as 0; ITR is kept to); cutting
//! of UDP, which no driver asks for (it goes out in one piece); the packet buffer, flash and TBI, which diagnosis alone
//! looks at.

mod phy;
mod receive;
pub mod registers;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
mod transmit;

use std::sync::{Arc, OnceLock, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, MmioDevice, MmioRange, MmioWidths, PauseDevice, PciAddress, PciFunction,
    PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Timer, Width,
};
use lodge_engine_api::GuestMemory;
use lodge_net::{Cable, Listener};
use lodge_pci::bridges::registers::SUBSYSTEM;
use lodge_pci::config::registers::{COMMAND_MASTER, COMMAND_NO_INTX};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Router, read_rom, rom_length};
use parking_lot::{Mutex, MutexGuard};
use registers::*;
pub use state::{ContextState, E1000State, PartialState, Phy, ReceiveState, RingState, Statistics, TransmitState};

use crate::wiring::{CardConfig, PciWiring};
use crate::worker::{Bell, Work, Worker};

const REGION_REGISTERS: u8 = 0;
const REGION_PORTS: u8 = 1;
const REGION_ROM: u8 = 2;

/// The card.
pub struct E1000 {
    // configuration
    name: String,
    rom: Vec<u8>,
    // wiring
    cable: Arc<Cable>,
    memory: GuestMemory,
    router: Arc<Router>,
    line: OnceLock<IrqLine>,
    clock: Arc<dyn Clock>,
    timer: Timer,
    bell: Arc<Bell>,
    worker: OnceLock<Worker>,
    // volatile
    volatile: Mutex<Volatile>,
}

struct Volatile {
    config: ConfigSpace,
    /// But for the configuration space.
    state: E1000State,
    paused: bool,
    /// The timer may be armed.
    armed: bool,
}

impl E1000 {
    /// A card, plugged into a cable.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(config: CardConfig, cable: Arc<Cable>, wiring: PciWiring) -> std::io::Result<Arc<Self>> {
        let PciWiring { memory, mmio, ports, router, timers } = wiring;
        let card = Arc::new_cyclic(|this: &Weak<Self>| {
            let mut space = ConfigSpace::new(&ConfigSpec {
                vendor: VENDOR,
                device: DEVICE,
                revision: REVISION,
                class: [2, 0, 0],
                subsystem: SUBSYSTEM,
                pin: 1,
                ..ConfigSpec::default()
            });
            let face: Weak<dyn MmioDevice> = this.clone();
            let range = MmioRange { base: 0, length: BAR_SIZE, region: REGION_REGISTERS, widths: MmioWidths::DWORD };
            space.add_bar(0, BAR_SIZE, BarTarget::Memory32(mmio.mapping(face.clone(), range)));
            let range = PortRange { base: 0, length: PORTS, region: REGION_PORTS, widths: Width::Dword };
            let port_face: Weak<dyn PortDevice> = this.clone();
            space.add_bar(1, PORTS.into(), BarTarget::Ports(ports.mapping(port_face, range)));
            if !config.rom.is_empty() {
                let length = rom_length(&config.rom);
                let range = MmioRange { base: 0, length, region: REGION_ROM, widths: MmioWidths::ANY };
                space.add_rom(length, mmio.mapping(face, range));
            }
            let on_timer = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = on_timer.upgrade() {
                    this.with(|_| ());
                }
            });
            let state = E1000State::new(cable.mac(), cable.is_up());
            Self {
                name: config.name,
                rom: config.rom,
                cable,
                memory,
                router,
                line: OnceLock::new(),
                clock: timers.clock().clone(),
                timer,
                bell: Arc::default(),
                worker: OnceLock::new(),
                volatile: Mutex::new(Volatile { config: space, state, paused: false, armed: false }),
            }
        });
        let listener: Weak<dyn Listener> = Arc::downgrade(&card) as Weak<dyn Listener>;
        card.cable.plug(listener);
        let work: Weak<dyn Work> = Arc::downgrade(&card) as Weak<dyn Work>;
        // Nobody else sets it.
        let _ = card.worker.set(Worker::start(&card.name, card.bell.clone(), work)?);
        card.bell.ring();
        Ok(card)
    }

    /// Does something, and sees to the interrupt that may come of it.
    fn with<R>(&self, act: impl FnOnce(&mut Volatile) -> R) -> R {
        let mut volatile = self.volatile.lock();
        let result = act(&mut volatile);
        self.drive(&mut volatile);
        result
    }

    /// Asserts the interrupt if there is a cause, but not sooner after the last one than ITR says (13.4.18).
    fn drive(&self, volatile: &mut Volatile) {
        let Volatile { config, state, paused, armed } = volatile;
        let pending = state.causes & state.mask != 0;
        let mut deadline = None;
        if pending && !*paused && !state.asserted {
            let now = self.clock.now_ns();
            // A clock that was set may have gone back; the longest wait is that of ITR.
            let wait = u64::from(state.throttle) * 256;
            let until = state.next_interrupt.min(now.saturating_add(wait));
            if now < until {
                deadline = Some(until);
            } else {
                state.asserted = true;
                state.next_interrupt = now.saturating_add(wait);
            }
        }
        if *armed || deadline.is_some() {
            self.timer.set(deadline);
            *armed = deadline.is_some();
        }
        state.asserted &= pending;
        config.set_intx_status(state.asserted);
        if let Some(line) = self.line.get() {
            line.set(state.asserted && config.command() & COMMAND_NO_INTX == 0);
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        self.with(|volatile| volatile.state.read(register))
    }

    fn write_register(&self, register: u32, value: u32) {
        let rings = self.with(|volatile| volatile.state.write(register, value));
        if rings {
            self.bell.ring();
        }
    }
}

/// Registers that the thread has to know of: what is on, and which descriptors are the card's.
fn concerns_rings(register: u32) -> bool {
    let ring = |first: u32| (first..first + 0x20).contains(&register);
    matches!(register, CTRL | CTRL_DUPLICATE | MDIC | RCTL | TCTL) || ring(RDBAL) || ring(TDBAL)
}

fn table(range: &std::ops::Range<u32>, register: u32) -> usize {
    (register - range.start) as usize / 4
}

impl E1000State {
    /// There is a link.
    fn link_is_up(&self) -> bool {
        self.link && self.phy.is_on() || self.is_looped()
    }

    fn read(&mut self, register: u32) -> u32 {
        match register & !3 {
            CTRL | CTRL_DUPLICATE => self.control,
            STATUS => STATUS_FIXED | if self.link_is_up() { STATUS_LU } else { 0 },
            EECD => {
                let granted = if self.eeprom_control & EECD_REQ != 0 { EECD_GNT } else { 0 };
                let output = if self.eeprom.output() { EECD_DO } else { 0 };
                self.eeprom_control | EECD_PRES | granted | output
            }
            EERD => self.eeprom_read,
            CTRL_EXT => self.extended,
            MDIC => self.phy_access,
            VET => self.vlan_type.into(),
            ICR => std::mem::take(&mut self.causes),
            ITR => self.throttle,
            IMS => self.mask,
            RCTL => self.receive.control,
            TCTL => self.transmit.control,
            at @ RDBAL..=RDT => self.receive.ring.read(at - RDBAL),
            at @ TDBAL..=TDT => self.transmit.ring.read(at - TDBAL),
            at if STATISTICS.contains(&at) => self.statistics.read(at),
            at if MTA.contains(&at) => self.receive.groups[table(&MTA, at)],
            at if RA.contains(&at) => self.receive.addresses[table(&RA, at)],
            at if VFTA.contains(&at) => self.receive.vlans[table(&VFTA, at)],
            at => self.stored(at),
        }
    }

    /// Writes a register; whether the thread has to know.
    fn write(&mut self, register: u32, value: u32) -> bool {
        let register = register & !3;
        match register {
            CTRL | CTRL_DUPLICATE => self.write_control(value),
            EECD => {
                self.eeprom_control = value & EECD_WRITABLE;
                self.eeprom.drive(value & EECD_CS != 0, value & EECD_SK != 0, value & EECD_DI != 0);
            }
            EERD if value & EERD_START != 0 => {
                let word = self.eeprom.word((value & EERD_ADDRESS) as usize >> 8);
                self.eeprom_read = u32::from(word) << 16 | value & EERD_ADDRESS | EERD_DONE;
            }
            EERD => self.eeprom_read = value & EERD_ADDRESS,
            CTRL_EXT => {
                self.extended = value & !CTRL_EXT_EE_RST;
                if value & CTRL_EXT_EE_RST != 0 {
                    self.load_address();
                }
            }
            MDIC => self.access_phy(value),
            VET => self.vlan_type = value as u16,
            ICR => self.causes &= !value,
            ITR => self.throttle = value & 0xffff,
            ICS => self.causes |= value & cause::ALL,
            IMS => self.mask |= value & cause::ALL,
            IMC => self.mask &= !value,
            RCTL => self.receive.control = value & RCTL_WRITABLE,
            TCTL => self.transmit.control = value,
            RDBAL..=RDT => self.receive.ring.write(register - RDBAL, value),
            TDBAL..=TDT => self.transmit.ring.write(register - TDBAL, value),
            at if MTA.contains(&at) => self.receive.groups[table(&MTA, at)] = value,
            at if RA.contains(&at) => {
                let index = table(&RA, at);
                self.receive.addresses[index] = if index.is_multiple_of(2) { value } else { value & RAH_WRITABLE };
            }
            at if VFTA.contains(&at) => self.receive.vlans[table(&VFTA, at)] = value,
            at => {
                if let Some(index) = STORED.iter().position(|(place, ..)| *place == at) {
                    self.stored[index] = value & STORED[index].1;
                }
            }
        }
        concerns_rings(register)
    }

    fn write_control(&mut self, value: u32) {
        if value & CTRL_RST != 0 {
            return self.reset();
        }
        self.control = value & !CTRL_PHY_RST;
        if value & CTRL_PHY_RST != 0 {
            self.phy = Phy::default();
            self.link_changed();
        }
    }

    /// The PHY has negotiated, or the cable was plugged in or pulled.
    fn link_changed(&mut self) {
        self.phy.link_changed(self.link);
        self.causes |= cause::LSC;
    }

    fn access_phy(&mut self, value: u32) {
        let register = (value >> 16 & 0x1f) as usize;
        let up = self.link_is_up();
        let mut result = value & !(MDIC_READY | MDIC_ERROR);
        let operation = value & MDIC_OPERATION;
        if value >> 21 & 0x1f != phy::ADDRESS {
            result |= MDIC_ERROR;
        } else if operation == MDIC_READ {
            result = result & !0xffff | u32::from(self.phy.read(register, up));
        } else if operation == MDIC_WRITE && self.phy.write(register, value as u16) {
            self.link_changed();
        }
        self.phy_access = result | MDIC_READY;
        if value & MDIC_INTERRUPT != 0 {
            self.causes |= cause::MDAC;
        }
    }
}

impl Drop for E1000 {
    fn drop(&mut self) {
        self.bell.end();
    }
}

impl Work for E1000 {
    fn work(&self) -> bool {
        let mut volatile = self.volatile.lock();
        if volatile.paused {
            return false;
        }
        let master = volatile.config.command() & COMMAND_MASTER != 0;
        let state = &mut volatile.state;
        let up = self.cable.is_up();
        if std::mem::replace(&mut state.link, up) != up {
            state.link_changed();
        }
        let transmits = master && state.transmit(&self.memory, &self.cable);
        let receives = state.receive(&self.memory, &self.cable, master);
        self.drive(&mut volatile);
        // A vCPU that waits has its turn.
        MutexGuard::unlock_fair(volatile);
        transmits || receives
    }
}

impl Listener for E1000 {
    fn frames_wait(&self) {
        self.bell.ring();
    }
    fn room_to_send(&self) {
        self.bell.ring();
    }
    fn link_changed(&self) {
        self.bell.ring();
    }
}

impl Device for E1000 {
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

impl MmioDevice for E1000 {
    fn mmio_read(&self, region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        if region == REGION_ROM {
            return Ok(read_rom(&self.rom, offset, bytes));
        }
        Ok(self.read_register(offset as u32).into())
    }

    fn mmio_write(&self, region: u8, offset: u64, _bytes: usize, value: u64) -> Result<(), AccessError> {
        if region == REGION_REGISTERS {
            self.write_register(offset as u32, value as u32);
        }
        Ok(())
    }
}

impl PortDevice for E1000 {
    fn port_read(&self, _region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        match (offset, width) {
            (IOADDR, Width::Dword) => Ok(self.volatile.lock().state.port_address),
            (IODATA, Width::Dword) => Ok(self.with(|volatile| volatile.state.read(volatile.state.port_address))),
            (IOADDR | IODATA, _) => Err(AccessError::Width),
            _ => Err(AccessError::Nobody),
        }
    }

    fn port_write(&self, _region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        match (offset, width) {
            (IOADDR, Width::Dword) => self.volatile.lock().state.port_address = value & (BAR_SIZE as u32 - 1),
            (IODATA, Width::Dword) => {
                let register = self.volatile.lock().state.port_address;
                self.write_register(register, value);
            }
            (IOADDR | IODATA, _) => return Err(AccessError::Width),
            _ => return Err(AccessError::Nobody),
        }
        Ok(())
    }
}

impl PciFunction for E1000 {
    fn config_read(&self, offset: u8) -> u32 {
        self.volatile.lock().config.read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        self.with(|volatile| volatile.config.write(offset, mask, value));
        // It may be the bus's master now.
        self.bell.ring();
    }

    fn placed(&self, address: PciAddress) {
        // A function is placed once.
        let _ = self.line.set(self.router.line(address.device, 0));
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.volatile.lock().config.bars()
    }
}

impl ResetDevice for E1000 {
    fn reset(&self) {
        self.with(|volatile| {
            volatile.config.reset();
            volatile.state = E1000State::new(self.cable.mac(), volatile.state.link);
        });
        self.bell.ring();
    }
}

impl PauseDevice for E1000 {
    fn pause(&self) {
        // Whoever holds the lock is not amid a piece of work.
        self.with(|volatile| volatile.paused = true);
    }

    fn resume(&self) {
        self.with(|volatile| volatile.paused = false);
        self.bell.ring();
    }
}

impl SaveDevice for E1000 {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        lodge_savestate::to_record(&E1000State { config: volatile.config.state(), ..volatile.state.clone() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: E1000State = StateError::read(&self.name, record)?;
        if !state.is_sound() {
            let cause = "a register is out of range".into();
            return Err(StateError { device: self.name.clone(), cause });
        }
        self.with(|volatile| {
            volatile.config.set_state(&state.config);
            volatile.state = E1000State { config: Default::default(), ..state };
        });
        self.bell.ring();
        Ok(())
    }
}
