//! Realtek's RTL8139C+ (data sheet of the RTL8139C(L)+, version 1.6).
//!
//! [`Rtl8139`] is the PCI function and the registers; [`transmit`] and [`receive`] work on the card's thread, in the mode of
//! the RTL8139 (a ring of bytes, four transmit descriptors) or in C+ mode (rings of descriptors).
//!
//! ```text
//!   TSD, TPPoll ──► thread: transmit ──► cable            cause ──► ISR & IMR ──► INTA
//!   CAPR        ──► thread: receive  ◄── cable              ▲
//!   TCTR reaches TimerInt, the link changed ────────────────┘
//! ```
//!
//! Not built: waking a machine up, as nothing wakes this one up by frames; early receive and transmit, whose thresholds are
//! kept and change nothing, as frames come and go whole; IntrMitigate, which drivers leave alone; CardBus.

mod receive;
pub mod registers;
mod state;
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
use receive::Received;
use registers::*;
pub use state::{RingState, Rtl8139State, TallyState};
use vm_memory::{Bytes, GuestAddress};

use crate::wiring::{CardConfig, PciWiring};
use crate::worker::{Bell, Work, Worker};

const REGION_PORTS: u8 = 0;
const REGION_REGISTERS: u8 = 1;
const REGION_ROM: u8 = 2;

/// How long after the last look descriptors are looked at again that the guest gives back without saying so: 1 ms.
const LOOK_AGAIN: u64 = 1_000_000;

/// The card.
pub struct Rtl8139 {
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
    state: Rtl8139State,
    paused: bool,
    /// When descriptors are looked at again.
    look_again: Option<u64>,
    /// What the timer is set to.
    armed: Option<u64>,
}

impl Rtl8139 {
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
            let range = PortRange { base: 0, length: SPACE, region: REGION_PORTS, widths: Width::Dword };
            let port_face: Weak<dyn PortDevice> = this.clone();
            space.add_bar(0, SPACE.into(), BarTarget::Ports(ports.mapping(port_face, range)));
            let face: Weak<dyn MmioDevice> = this.clone();
            let length = SPACE.into();
            let range = MmioRange { base: 0, length, region: REGION_REGISTERS, widths: MmioWidths::UP_TO_DWORD };
            space.add_bar(1, length, BarTarget::Memory32(mmio.mapping(face.clone(), range)));
            if !config.rom.is_empty() {
                let length = rom_length(&config.rom);
                let range = MmioRange { base: 0, length, region: REGION_ROM, widths: MmioWidths::ANY };
                space.add_rom(length, mmio.mapping(face, range));
            }
            let on_timer = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = on_timer.upgrade() {
                    this.with(|_, _| ());
                    this.bell.ring();
                }
            });
            let clock = timers.clock().clone();
            let state = Rtl8139State::new(cable.mac(), cable.is_up(), clock.now_ns());
            let volatile = Volatile { config: space, state, paused: false, look_again: None, armed: None };
            Self {
                name: config.name,
                rom: config.rom,
                cable,
                memory,
                router,
                line: OnceLock::new(),
                clock,
                timer,
                bell: Arc::default(),
                worker: OnceLock::new(),
                volatile: Mutex::new(volatile),
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

    /// Does something, and sees to the timer and the interrupt that may come of it.
    fn with<R>(&self, act: impl FnOnce(&mut Volatile, u64) -> R) -> R {
        let mut volatile = self.volatile.lock();
        let result = act(&mut volatile, self.clock.now_ns());
        self.drive(&mut volatile);
        result
    }

    fn drive(&self, volatile: &mut Volatile) {
        let Volatile { config, state, paused, look_again, armed } = volatile;
        if !*paused && state.timer_due.is_some_and(|due| due <= self.clock.now_ns()) {
            state.causes |= cause::TIMEOUT;
            // The next time is when it has gone round.
            state.set_timer(self.clock.now_ns());
        }
        let deadline = state.timer_due.into_iter().chain(*look_again).min();
        if deadline != *armed {
            self.timer.set(deadline);
            *armed = deadline;
        }
        let raised = state.causes & state.mask != 0;
        config.set_intx_status(raised);
        if let Some(line) = self.line.get() {
            line.set(raised && config.command() & COMMAND_NO_INTX == 0);
        }
    }

    /// Reads `bytes` from `offset` on, each from the register that it is in.
    fn read(&self, offset: u16, bytes: u16) -> u32 {
        self.with(|volatile, now| {
            let at = |n: u16| {
                let offset = (offset + n) % SPACE;
                volatile.state.read(offset & !3, now) >> (8 * (offset & 3)) & 0xff
            };
            (0..bytes).fold(0, |value, n| value | at(n) << (8 * n))
        })
    }

    /// Writes `bytes` from `offset` on, to one or two registers.
    fn write(&self, offset: u16, bytes: u16, value: u32) {
        let mask = u64::from(u32::MAX >> (8 * (4 - bytes.clamp(1, 4)))) << (8 * (offset & 3));
        let value = u64::from(value) << (8 * (offset & 3));
        let mut rings = false;
        self.with(|volatile, now| {
            let master = volatile.config.command() & COMMAND_MASTER != 0;
            for half in 0..2 {
                let (mask, value) = ((mask >> (32 * half)) as u32, (value >> (32 * half)) as u32);
                let register = (offset & !3) + 4 * half;
                if mask != 0 && register < SPACE {
                    let concerns = volatile.state.write(register, mask, value, now);
                    // A guest that has looked at causes may have given descriptors back.
                    rings |= concerns || register == IMR && volatile.look_again.is_some();
                    if register == TSD && master {
                        self.dump(&mut volatile.state);
                    }
                }
            }
        });
        if rings {
            self.bell.ring();
        }
    }

    /// Writes the counters to memory, if that was asked for.
    fn dump(&self, state: &mut Rtl8139State) {
        let [low, high] = state.dump;
        if low & DUMP == 0 {
            return;
        }
        state.dump[0] = low & DUMP_ADDRESS;
        let tally = state.tally;
        let mut bytes = Vec::with_capacity(64);
        for count in [tally.sent, tally.received, 0] {
            bytes.extend(count.to_le_bytes());
        }
        bytes.extend(tally.errors.to_le_bytes());
        // Missed, and badly aligned; sent after collisions.
        bytes.extend([0; 4 + 8]);
        for count in [tally.physical, tally.broadcast] {
            bytes.extend(count.to_le_bytes());
        }
        bytes.extend(tally.groups.to_le_bytes());
        // Given up, and run under.
        bytes.extend([0; 4]);
        let address = u64::from(low & DUMP_ADDRESS) | u64::from(high) << 32;
        // Memory that is not there keeps nothing.
        let _ = self.memory.write_slice(&bytes, GuestAddress(address));
    }
}

/// Those bits of a register that are written, the others as they were.
fn merge(old: u32, mask: u32, value: u32) -> u32 {
    old & !mask | value & mask
}

fn merge_array(bytes: &mut [u8; 8], at: u16, mask: u32, value: u32) {
    let half = usize::from(at & 4);
    let old = u32::from_le_bytes([bytes[half], bytes[half + 1], bytes[half + 2], bytes[half + 3]]);
    bytes[half..half + 4].copy_from_slice(&merge(old, mask, value).to_le_bytes());
}

fn half_of(bytes: &[u8; 8], at: u16) -> u32 {
    let half = usize::from(at & 4);
    u32::from_le_bytes([bytes[half], bytes[half + 1], bytes[half + 2], bytes[half + 3]])
}

impl Rtl8139State {
    /// What the timer has counted.
    fn ticks(&self, now: u64) -> u32 {
        (now.saturating_sub(self.timer_zero).wrapping_mul(TIMER_MHZ) / 1000) as u32
    }

    /// When the timer reaches its value from now on.
    fn set_timer(&mut self, now: u64) {
        if self.timer_interrupt == 0 {
            self.timer_due = None;
            return;
        }
        let left = match self.timer_interrupt.wrapping_sub(self.ticks(now)) {
            0 => 1 << 32,
            left => u64::from(left),
        };
        // Rounded up, that it has reached it then.
        let passed = now.saturating_sub(self.timer_zero).saturating_mul(TIMER_MHZ) / 1000;
        let due = passed.saturating_add(left).saturating_mul(1000).div_ceil(TIMER_MHZ);
        self.timer_due = Some(self.timer_zero.saturating_add(due));
    }

    fn can_configure(&self) -> bool {
        self.eeprom_command & EE_MODE == EE_CONFIGURE
    }

    /// Reads the double word at a multiple of 4.
    fn read(&self, register: u16, now: u64) -> u32 {
        let bytes = |a: u8, b: u8, c: u8, d: u8| u32::from_le_bytes([a, b, c, d]);
        let words = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let [config0, config1, config3, config4, config5] = self.configuration;
        match register {
            0x00..MAR => half_of(&self.address, register),
            MAR..TSD => half_of(&self.groups, register),
            TSD..TSAD => {
                let number = usize::from(register - TSD) / 4;
                if self.sends_plus() { self.dump.get(number).copied().unwrap_or(0) } else { self.status[number] }
            }
            TSAD..RBSTART => self.addresses[usize::from(register - TSAD) / 4],
            RBSTART => self.ring,
            CR => bytes(0, 0, 0, self.command | if self.is_empty() { CR_BUFE } else { 0 }),
            CAPR => words(self.read.wrapping_sub(CAPR_BEHIND), self.written),
            IMR => words(self.mask, self.causes),
            TCR => self.transmit | TCR_VERSION,
            RCR => self.receive,
            TCTR => self.ticks(now),
            EEPROM_COMMAND => {
                let programs = self.eeprom_command & EE_MODE == EE_PROGRAM;
                let output = if programs && self.eeprom.output() { EE_DO } else { 0 };
                bytes(self.eeprom_command | output, config0, config1, 0)
            }
            TIMER_INTERRUPT => self.timer_interrupt,
            MSR => bytes(MSR_FIXED | if self.link { 0 } else { MSR_LINKB }, config3, config4, 0),
            MULINT => words(self.early, 0),
            TSAD_STATUS => {
                let all = |bit: u32| (0..4).fold(0, |bits, n| bits | u16::from(self.status[n] & bit != 0) << n);
                let status = all(TSD_OWN) | all(TSD_TABT) << 4 | all(TSD_TUN) << 8 | all(TSD_TOK) << 12;
                words(status, self.control)
            }
            BMSR => words(BMSR_FIXED | if self.link { BMSR_LINK } else { 0 }, self.advertisement),
            ANLPAR => words(if self.link { ANLPAR_LINK } else { 0 }, u16::from(self.link)),
            CSCR => words(if self.link { CSCR_LINK } else { 0 }, 0),
            CONFIG5 => bytes(config5, 0, 0, 0),
            CPCR => words(self.plus, self.mitigation),
            RDSAR => self.receives.base as u32,
            0xe8 => (self.receives.base >> 32) as u32,
            ETTHR => bytes(self.threshold, 0, 0, 0),
            _ => 0,
        }
    }

    /// Writes those bits of the double word at a multiple of 4 that `mask` has; whether the thread has to know.
    fn write(&mut self, register: u16, mask: u32, value: u32, now: u64) -> bool {
        let has = |lane: u16| mask >> (8 * lane) & 0xff != 0;
        let byte = |lane: u16| (value >> (8 * lane)) as u8;
        let upper = (mask >> 16) as u16;
        let merge_low = |old: u16| merge(old.into(), mask & 0xffff, value) as u16;
        let merge_high = |old: u16| merge(old.into(), mask >> 16, value >> 16) as u16;
        match register {
            0x00..MAR => merge_array(&mut self.address, register, mask, value),
            MAR..TSD => merge_array(&mut self.groups, register, mask, value),
            TSD..TSAD => self.write_status(usize::from(register - TSD) / 4, mask, value),
            TSAD..RBSTART => {
                let number = usize::from(register - TSAD) / 4;
                self.addresses[number] = merge(self.addresses[number], mask, value);
                let pair = number & !1;
                let base = u64::from(self.addresses[pair]) | u64::from(self.addresses[pair + 1]) << 32;
                self.sends[pair / 2] = RingState { base: base & RING_ADDRESS, ..RingState::default() };
            }
            RBSTART => self.ring = merge(self.ring, mask, value),
            CR if has(3) => self.write_command(byte(3)),
            CAPR if has(0) || has(1) => {
                let behind = merge_low(self.read.wrapping_sub(CAPR_BEHIND));
                self.read = behind.wrapping_add(CAPR_BEHIND);
            }
            IMR => {
                self.mask = merge_low(self.mask) & cause::ALL;
                self.causes &= !((value >> 16) as u16 & upper);
            }
            TCR => self.transmit = merge(self.transmit, mask, value) & TCR_WRITABLE,
            RCR => {
                let before = self.ring_size();
                self.receive = merge(self.receive, mask, value) & RCR_WRITABLE;
                if self.ring_size() != before {
                    (self.read, self.written) = (0, 0);
                }
            }
            TCTR => {
                self.timer_zero = now;
                self.set_timer(now);
            }
            EEPROM_COMMAND => {
                if has(0) {
                    self.write_eeprom(byte(0));
                }
                if has(1) && self.can_configure() {
                    self.configuration[0] = byte(1);
                }
                if has(2) && self.can_configure() {
                    self.configuration[1] = byte(2) & !0b1110 | CONFIG1_FIXED;
                }
            }
            TIMER_INTERRUPT => {
                self.timer_interrupt = merge(self.timer_interrupt, mask, value);
                self.set_timer(now);
            }
            MSR => {
                for (lane, number) in [(1, 2), (2, 3)] {
                    if has(lane) && self.can_configure() {
                        self.configuration[number] = byte(lane);
                    }
                }
            }
            MULINT => self.early = merge_low(self.early) & 0x0fff,
            TSAD_STATUS if upper != 0 => {
                let control = merge_high(self.control);
                self.control = if control >> 15 != 0 { BMCR_RESET } else { control & BMCR_WRITABLE & !BMCR_ANEW };
            }
            BMSR if upper != 0 => self.advertisement = merge_high(self.advertisement),
            CONFIG5 => {
                if has(0) {
                    self.configuration[4] = byte(0);
                }
                if has(1) {
                    self.poll(byte(1));
                }
            }
            CPCR => {
                self.plus = merge_low(self.plus) & CPCR_WRITABLE;
                self.mitigation = merge_high(self.mitigation);
            }
            RDSAR => {
                let low = merge(self.receives.base as u32, mask, value);
                let base = self.receives.base & !0xffff_ffff | u64::from(low);
                self.receives = RingState { base: base & RING_ADDRESS, ..RingState::default() };
            }
            0xe8 => {
                let high = merge((self.receives.base >> 32) as u32, mask, value);
                let base = self.receives.base & 0xffff_ffff | u64::from(high) << 32;
                self.receives = RingState { base, ..RingState::default() };
            }
            ETTHR if has(0) => self.threshold = byte(0) & 0x3f,
            _ => {}
        }
        matches!(register, TSD..TSAD | CR | CAPR | TCR | RCR | CONFIG5 | CPCR | RDSAR | 0xe8)
    }

    fn write_status(&mut self, number: usize, mask: u32, value: u32) {
        if !self.sends_plus() {
            self.status[number] = merge(self.status[number], mask, value) & TSD_WRITABLE;
        } else if let Some(half) = self.dump.get_mut(number) {
            *half = merge(*half, mask, value) & if number == 0 { DUMP_ADDRESS | DUMP } else { u32::MAX };
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & CR_RST != 0 {
            return self.reset();
        }
        let begins = value & !self.command;
        self.command = value & (CR_TE | CR_RE);
        if begins & CR_RE != 0 {
            (self.read, self.written, self.receives.next) = (0, 0, 0);
        }
        if begins & CR_TE != 0 {
            self.sends.iter_mut().for_each(|ring| ring.next = 0);
        }
    }

    fn write_eeprom(&mut self, value: u8) {
        self.eeprom_command = value & (EE_MODE | EE_CS | EE_SK | EE_DI);
        let mode = value & EE_MODE;
        let wires = if mode == EE_PROGRAM { value } else { 0 };
        self.eeprom.drive(wires & EE_CS != 0, wires & EE_SK != 0, wires & EE_DI != 0);
        if mode == EE_LOAD {
            self.load();
            self.eeprom_command = 0;
        }
    }

    /// Transmit rings are to be looked at.
    fn poll(&mut self, value: u8) {
        self.sends[0].polled |= value & TPPOLL_NPQ != 0;
        self.sends[1].polled |= value & TPPOLL_HPQ != 0;
        if value & TPPOLL_FSWINT != 0 {
            self.causes |= cause::SWINT;
        }
    }
}

impl Drop for Rtl8139 {
    fn drop(&mut self) {
        self.bell.end();
    }
}

impl Work for Rtl8139 {
    fn work(&self) -> bool {
        let mut volatile = self.volatile.lock();
        if volatile.paused {
            return false;
        }
        let master = volatile.config.command() & COMMAND_MASTER != 0;
        let state = &mut volatile.state;
        let up = self.cable.is_up();
        if std::mem::replace(&mut state.link, up) != up {
            state.causes |= cause::PUN;
        }
        let sends = master && state.send(&self.memory, &self.cable);
        let received = state.take(&self.memory, &self.cable, master);
        let again = self.clock.now_ns().saturating_add(LOOK_AGAIN);
        volatile.look_again = (received == Received::Stalled).then_some(again);
        self.drive(&mut volatile);
        // A vCPU that waits has its turn.
        MutexGuard::unlock_fair(volatile);
        sends || received == Received::Some
    }
}

impl Listener for Rtl8139 {
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

impl Device for Rtl8139 {
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

impl MmioDevice for Rtl8139 {
    fn mmio_read(&self, region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        if region == REGION_ROM {
            return Ok(read_rom(&self.rom, offset, bytes));
        }
        Ok(self.read(offset as u16, bytes as u16).into())
    }

    fn mmio_write(&self, region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
        if region == REGION_REGISTERS {
            self.write(offset as u16, bytes as u16, value as u32);
        }
        Ok(())
    }
}

impl PortDevice for Rtl8139 {
    fn port_read(&self, _region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        Ok(self.read(offset, width.bytes() as u16))
    }

    fn port_write(&self, _region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        self.write(offset, width.bytes() as u16, value);
        Ok(())
    }
}

impl PciFunction for Rtl8139 {
    fn config_read(&self, offset: u8) -> u32 {
        self.volatile.lock().config.read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        self.with(|volatile, _| volatile.config.write(offset, mask, value));
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

impl ResetDevice for Rtl8139 {
    fn reset(&self) {
        self.with(|volatile, now| {
            volatile.config.reset();
            volatile.state = Rtl8139State::new(self.cable.mac(), volatile.state.link, now);
        });
        self.bell.ring();
    }
}

impl PauseDevice for Rtl8139 {
    fn pause(&self) {
        // Whoever holds the lock is not amid a piece of work.
        self.with(|volatile, _| volatile.paused = true);
    }

    fn resume(&self) {
        self.with(|volatile, _| volatile.paused = false);
        self.bell.ring();
    }
}

impl SaveDevice for Rtl8139 {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        lodge_savestate::to_record(&Rtl8139State { config: volatile.config.state(), ..volatile.state.clone() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: Rtl8139State = StateError::read(&self.name, record)?;
        if !state.is_sound() {
            let cause = "a register is out of range".into();
            return Err(StateError { device: self.name.clone(), cause });
        }
        self.with(|volatile, _| {
            volatile.config.set_state(&state.config);
            volatile.state = Rtl8139State { config: Default::default(), ..state };
        });
        self.bell.ring();
        Ok(())
    }
}
