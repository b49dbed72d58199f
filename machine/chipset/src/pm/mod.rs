//! ACPI power management as PIIX4 has it: power-off, sleep, power button, 24-bit timer, SCI.
//!
//! [`Pm`] is mapped by the PIIX4 PCI function, whose base register can move it; that function holds the mapping. The timer
//! is derived from guest time, and a host timer armed only if the guest wants to hear of its overflow.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, SystemControl,
    Timer, Timers, Width,
};
use parking_lot::Mutex;
use registers::*;
pub use state::PmState;

const REGION_BLOCK: u8 = 0;
const REGION_APM: u8 = 1;

/// The power-management block.
pub struct Pm {
    // configuration
    acpi_on_at_reset: bool,
    // wiring
    clock: Arc<dyn Clock>,
    sci: IrqLine,
    system: Arc<dyn SystemControl>,
    timer: Timer,
    // volatile
    state: Mutex<PmState>,
}

/// The timer's value at a moment.
fn timer_at(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(FREQUENCY) / 1_000_000_000) as u64
}

impl Pm {
    /// A block that drives `sci` (ISA interrupt 9). `acpi_on_at_reset` is for machines without firmware, where ACPI is on
    /// from the first.
    pub fn new(acpi_on_at_reset: bool, timers: &Timers, sci: IrqLine, system: Arc<dyn SystemControl>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.update(&mut this.state.lock());
                }
            });
            let state = Mutex::new(Self::initial(acpi_on_at_reset));
            Self { acpi_on_at_reset, clock: timers.clock().clone(), sci, system, timer, state }
        })
    }

    fn initial(acpi_on: bool) -> PmState {
        PmState { control: if acpi_on { SCI_ENABLE } else { 0 }, ..PmState::default() }
    }

    /// The range of ports of the block, for whoever maps it.
    pub fn block() -> PortRange {
        PortRange { base: BASE, length: LENGTH, region: REGION_BLOCK, widths: Width::Dword }
    }

    /// The power button was pressed.
    pub fn press_power_button(&self) {
        let mut state = self.state.lock();
        state.status |= POWER_BUTTON;
        self.update(&mut state);
        if state.asleep {
            self.system.wake();
        }
    }

    /// The real-time clock's alarm went off.
    pub fn clock_alarm(&self) {
        let mut state = self.state.lock();
        state.status |= ALARM;
        self.update(&mut state);
        if state.asleep && state.enable & ALARM != 0 {
            self.system.wake();
        }
    }

    /// Whether the guest listens to the power button.
    pub fn power_button_heard(&self) -> bool {
        let state = self.state.lock();
        state.enable & POWER_BUTTON != 0 && state.control & SCI_ENABLE != 0
    }

    /// Brings the status up to now, drives the SCI and arms the timer.
    fn update(&self, state: &mut PmState) {
        let now = self.clock.now_ns();
        // The highest bit of 24 changes every 2^23 counts.
        if timer_at(now) >> 23 != timer_at(state.served) >> 23 {
            state.status |= TIMER_BIT;
        }
        state.served = now;
        let on = state.control & SCI_ENABLE != 0;
        let events = TIMER_BIT | GLOBAL | POWER_BUTTON | ALARM;
        self.sci.set(on && state.status & state.enable & events != 0);
        let wanted = on && state.enable & TIMER_BIT != 0 && state.status & TIMER_BIT == 0;
        self.timer.set(wanted.then(|| {
            let next = u128::from((timer_at(now) >> 23) + 1) << 23;
            (next * 1_000_000_000).div_ceil(u128::from(FREQUENCY)) as u64
        }));
    }

    fn byte(&self, state: &PmState, offset: u16) -> u8 {
        let word = |value: u16, first: u16| value.to_le_bytes()[usize::from(offset - first)];
        match offset {
            STATUS..=0x01 => word(state.status, STATUS),
            ENABLE..=0x03 => word(state.enable, ENABLE),
            CONTROL..=0x05 => word(state.control, CONTROL),
            TIMER..=0x0b => {
                let value = timer_at(self.clock.now_ns()) as u32 & 0x00ff_ffff;
                value.to_le_bytes()[usize::from(offset - TIMER)]
            }
            _ => 0,
        }
    }

    /// Writes those bits of a word that `mask` has.
    fn write_word(&self, state: &mut PmState, register: u16, mask: u16, value: u16) {
        match register {
            STATUS => state.status &= !(value & mask),
            ENABLE => state.enable = (state.enable & !mask | value & mask) & ENABLE_WRITABLE,
            CONTROL => {
                let control = state.control & !mask | value & mask;
                // Sleep enable reads as zero, and software does not write SCI_EN (ACPI 4.8.3.2.1).
                state.control = control & !SLEEP_ENABLE & !SCI_ENABLE | state.control & SCI_ENABLE;
                match (control & SLEEP_ENABLE != 0, (control >> SLEEP_TYPE_SHIFT) & 7) {
                    (true, SOFT_OFF) => self.system.power_off(),
                    // Only firmware brings a system back.
                    (true, SUSPEND) if !self.acpi_on_at_reset => {
                        state.asleep = true;
                        self.system.suspend();
                        // What came before, and was not seen, wakes at once.
                        if state.status & (POWER_BUTTON | state.enable & ALARM) != 0 {
                            self.system.wake();
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

impl Device for Pm {
    fn name(&self) -> &str {
        "pm"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Pm {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange { base: APM, length: 2, region: REGION_APM, widths: Width::Byte }]
    }

    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        let mut state = self.state.lock();
        if region == REGION_APM {
            return Ok(state.apm[usize::from(offset & 1)].into());
        }
        if offset == TIMER && width == Width::Dword {
            // The common case, without touching anything.
            return Ok(timer_at(self.clock.now_ns()) as u32 & 0x00ff_ffff);
        }
        self.update(&mut state);
        let bytes =
            (0..width.bytes() as u16).map(|i| u32::from(self.byte(&state, offset.saturating_add(i))) << (8 * i));
        Ok(bytes.sum())
    }

    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        if region == REGION_APM {
            state.apm[usize::from(offset & 1)] = value as u8;
            match (offset, value as u8) {
                (0, ACPI_ON) => state.control |= SCI_ENABLE,
                (0, ACPI_OFF) => state.control &= !SCI_ENABLE,
                _ => {}
            }
            self.update(&mut state);
            return Ok(());
        }
        self.update(&mut state);
        // Cut into words; a byte writes its half.
        let shift = 8 * u64::from(offset & 1);
        let (value, mask) = (u64::from(value) << shift, u64::from(width.ones()) << shift);
        for index in 0..3u16 {
            let word = |bits: u64| (bits >> (16 * index)) as u16;
            if word(mask) != 0 {
                self.write_word(&mut state, (offset & !1).saturating_add(2 * index), word(mask), word(value));
            }
        }
        self.update(&mut state);
        Ok(())
    }
}

impl ResetDevice for Pm {
    fn reset(&self) {
        let mut state = self.state.lock();
        // A reset out of sleep is told apart, with what woke the machine (ACPI 4.8.3.1.1).
        let status = if state.asleep { state.status & (POWER_BUTTON | ALARM) | WAKE } else { 0 };
        *state = PmState { status, served: self.clock.now_ns(), ..Self::initial(self.acpi_on_at_reset) };
        self.update(&mut state);
    }
}

impl SaveDevice for Pm {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let restored = StateError::read("pm", record)?;
        let mut state = self.state.lock();
        *state = restored;
        self.update(&mut state);
        Ok(())
    }
}
