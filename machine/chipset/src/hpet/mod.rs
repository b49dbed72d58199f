//! The high-precision event timer: a 64-bit counter at 100 MHz and three comparators.
//!
//! [`Hpet`] derives the counter from guest time. One host timer is armed for the earliest comparator whose interrupt is
//! enabled. In legacy replacement mode timers 0 and 1 take interrupts 0 and 8 over from the PIT and the RTC, which are told
//! through a closure called with no lock held.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, MmioDevice, MmioRange, MmioWidths, ResetDevice, SaveDevice, StateError, Timer,
    Timers,
};
use parking_lot::Mutex;
use registers::*;
pub use state::{HpetState, HpetTimerState};

/// Where the HPET's interrupts go.
pub struct HpetWiring {
    /// ISA interrupt 0, in legacy replacement mode.
    pub irq0: IrqLine,
    /// ISA interrupt 8, in legacy replacement mode.
    pub irq8: IrqLine,
    /// Global system interrupts 16 to 23.
    pub gsi16: [IrqLine; 8],
    /// Told when legacy replacement begins (`true`) and ends.
    pub replace: Box<dyn Fn(bool) + Send + Sync>,
}

/// The HPET.
pub struct Hpet {
    // wiring
    clock: Arc<dyn Clock>,
    wiring: HpetWiring,
    timer: Timer,
    // volatile
    state: Mutex<HpetState>,
}

impl HpetState {
    fn is_running(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    fn counter_at(&self, now: u64) -> u64 {
        if self.is_running() {
            self.counter.wrapping_add(now.saturating_sub(self.since) / PERIOD_NS)
        } else {
            self.counter
        }
    }
}

impl HpetTimerState {
    fn is_32(&self) -> bool {
        self.configuration & MODE_32 != 0
    }

    fn is_periodic(&self) -> bool {
        self.configuration & PERIODIC != 0
    }

    /// Counts from `served` to the next match; the whole range when the comparator is at it.
    fn distance(&self) -> u64 {
        let distance = self.comparator.wrapping_sub(self.served);
        let distance = if self.is_32() { distance & 0xffff_ffff } else { distance };
        match (distance, self.is_32()) {
            (0, true) => 1 << 32,
            (0, false) => u64::MAX,
            _ => distance,
        }
    }

    /// Moves past the matches up to `counter`; whether there was one.
    fn serve(&mut self, counter: u64) -> bool {
        let passed = counter.wrapping_sub(self.served);
        let distance = self.distance();
        self.served = counter;
        if passed < distance {
            return false;
        }
        if self.is_periodic() && self.period != 0 {
            // Matches that nobody saw are merged.
            let periods = (passed - distance) / self.period + 1;
            self.comparator = self.comparator.wrapping_add(periods.wrapping_mul(self.period));
            if self.is_32() {
                self.comparator &= 0xffff_ffff;
            }
        }
        true
    }
}

impl Hpet {
    /// An HPET at its usual address.
    pub fn new(timers: &Timers, wiring: HpetWiring) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.update(&mut this.state.lock());
                }
            });
            Self { clock: timers.clock().clone(), wiring, timer, state: Mutex::default() }
        })
    }

    /// The line a timer drives, if it is routed anywhere.
    fn line(&self, state: &HpetState, index: usize) -> Option<&IrqLine> {
        match (state.configuration & LEGACY != 0, index) {
            (true, 0) => Some(&self.wiring.irq0),
            (true, 1) => Some(&self.wiring.irq8),
            _ => {
                let route = (state.timers[index].configuration >> ROUTE_SHIFT) & 0x1f;
                self.wiring.gsi16.get(usize::try_from(route).ok()?.checked_sub(16)?)
            }
        }
    }

    /// Serves all matches up to now, drives the lines and arms the timer.
    fn update(&self, state: &mut HpetState) {
        let now = self.clock.now_ns();
        let counter = state.counter_at(now);
        let mut next: Option<u64> = None;
        for index in 0..TIMERS {
            let matched = state.is_running() && state.timers[index].serve(counter);
            let configuration = state.timers[index].configuration;
            let legacy = state.configuration & LEGACY != 0 && index < 2;
            if matched && configuration & LEVEL != 0 {
                state.status |= 1 << index;
            }
            let enabled = configuration & INTERRUPT != 0 && state.is_running();
            if matched
                && enabled
                && configuration & LEVEL == 0
                && let Some(line) = self.line(state, index)
            {
                line.pulse();
            }
            if configuration & LEVEL != 0 && !legacy {
                let high = enabled && state.status & 1 << index != 0;
                if let Some(line) = self.line(state, index) {
                    line.set(high);
                }
            }
            let timer = &state.timers[index];
            let waits = configuration & LEVEL != 0 && state.status & 1 << index != 0;
            if enabled && !waits && self.line(state, index).is_some() {
                let distance = timer.distance().min(u64::MAX / PERIOD_NS);
                next = Some(next.map_or(distance, |next| next.min(distance)));
            }
        }
        let deadline = next.map(|distance| {
            // Up to the boundary of a count.
            let phase = now.saturating_sub(state.since) % PERIOD_NS;
            now.saturating_add(distance * PERIOD_NS).saturating_sub(phase)
        });
        self.timer.set(deadline);
    }

    fn release_lines(&self, state: &HpetState) {
        for index in 0..TIMERS {
            if let Some(line) = self.line(state, index) {
                line.set(false);
            }
        }
    }

    fn read(&self, state: &HpetState, register: u64) -> u64 {
        match register {
            CAPABILITIES => CAPABILITIES_VALUE,
            CONFIGURATION => state.configuration,
            STATUS => state.status,
            COUNTER => state.counter_at(self.clock.now_ns()),
            _ => match timer_register(register) {
                Some((index, TIMER_CONFIGURATION)) => {
                    state.timers[index].configuration | ROUTES << 32 | PERIODIC_CAPABLE | SIZE_CAPABLE
                }
                Some((index, TIMER_COMPARATOR)) => state.timers[index].comparator,
                _ => 0,
            },
        }
    }

    /// Writes a whole register. Returns whether legacy replacement changed.
    fn write(&self, state: &mut HpetState, register: u64, value: u64, mask: u64) -> bool {
        let now = self.clock.now_ns();
        self.update(state);
        let mut replaced = false;
        match register {
            CONFIGURATION => {
                let counter = state.counter_at(now);
                self.release_lines(state);
                replaced = (state.configuration ^ value) & LEGACY != 0;
                state.configuration = value & (ENABLE | LEGACY);
                state.counter = counter;
                state.since = now;
            }
            STATUS => state.status &= !(value & mask),
            COUNTER => {
                state.counter = value;
                state.since = now;
                for timer in &mut state.timers {
                    timer.served = value;
                }
            }
            _ => match timer_register(register) {
                Some((index, TIMER_CONFIGURATION)) => {
                    self.release_lines(state);
                    let timer = &mut state.timers[index];
                    timer.configuration = value & WRITABLE;
                    if timer.is_32() {
                        timer.comparator &= 0xffff_ffff;
                        timer.period &= 0xffff_ffff;
                    }
                }
                Some((index, TIMER_COMPARATOR)) => write_comparator(&mut state.timers[index], value),
                _ => {}
            },
        }
        let counter = state.counter_at(now);
        for timer in &mut state.timers {
            timer.served = counter;
        }
        self.update(state);
        replaced
    }
}

/// Comparator writes in periodic mode set the period, or with SET_VALUE the comparator (2.3.9.2.2).
fn write_comparator(timer: &mut HpetTimerState, value: u64) {
    let value = if timer.is_32() { value & 0xffff_ffff } else { value };
    if !timer.is_periodic() {
        timer.comparator = value;
    } else if timer.configuration & SET_VALUE != 0 {
        timer.comparator = value;
        timer.configuration &= !SET_VALUE;
    } else {
        // Nothing faster than 10 microseconds: the spec leaves shorter periods to the platform.
        timer.period = if value == 0 { 0 } else { value.max(1000) };
    }
}

fn timer_register(register: u64) -> Option<(usize, u64)> {
    let index = usize::try_from(register.checked_sub(TIMER)? / 0x20).ok()?;
    (index < TIMERS).then_some((index, register & 0x1f))
}

impl Device for Hpet {
    fn name(&self) -> &str {
        "hpet"
    }
    fn mmio(self: Arc<Self>) -> Option<Arc<dyn MmioDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl MmioDevice for Hpet {
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        vec![MmioRange { base: BASE, length: LENGTH, region: 0, widths: MmioWidths::DWORD_OR_QWORD }]
    }

    fn mmio_read(&self, _region: u8, offset: u64, _bytes: usize) -> Result<u64, AccessError> {
        let mut state = self.state.lock();
        if offset & !7 == STATUS || timer_register(offset & !7).is_some() {
            self.update(&mut state);
        }
        Ok(self.read(&state, offset & !7) >> (8 * (offset & 4)))
    }

    fn mmio_write(&self, _region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
        let register = offset & !7;
        let mut state = self.state.lock();
        let shift = 8 * (offset & 4);
        let mask = if bytes == 8 { u64::MAX } else { 0xffff_ffff << shift };
        // The half that is not written keeps its value; a comparator's writes are not what it reads in periodic mode,
        // and its other half is then zero.
        let periodic =
            matches!(timer_register(register), Some((index, TIMER_COMPARATOR)) if state.timers[index].is_periodic());
        let old = if periodic { 0 } else { self.read(&state, register) };
        let value = old & !mask | value << shift & mask;
        if periodic && shift != 0 {
            // Drivers write periods of less than 2^32; the upper half of one would be a second write.
            return Ok(());
        }
        let replaced = self.write(&mut state, register, value, mask);
        let legacy = state.configuration & LEGACY != 0;
        drop(state);
        if replaced {
            (self.wiring.replace)(legacy);
        }
        Ok(())
    }
}

impl ResetDevice for Hpet {
    fn reset(&self) {
        let mut state = self.state.lock();
        self.release_lines(&state);
        *state = HpetState::default();
        self.update(&mut state);
        drop(state);
        (self.wiring.replace)(false);
    }
}

impl SaveDevice for Hpet {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let restored: HpetState = StateError::read("hpet", record)?;
        let mut state = self.state.lock();
        self.release_lines(&state);
        *state = restored;
        self.update(&mut state);
        let legacy = state.configuration & LEGACY != 0;
        drop(state);
        (self.wiring.replace)(legacy);
        Ok(())
    }
}
