//! One counter of the 8254: its count and output as functions of time.
//!
//! Nothing ticks. A [`Channel`] knows when it began and derives the rest from guest time (8254 "Mode definitions").

use super::registers::FREQUENCY;
use super::signal::Signal;
use super::state::ChannelState;

/// Whole ticks of the input clock in `ns`.
pub(super) fn ticks(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(FREQUENCY) / 1_000_000_000) as u64
}

/// The nanoseconds after which `ticks` have passed.
pub(super) fn nanoseconds(ticks: u64) -> u64 {
    let ns = (u128::from(ticks) * 1_000_000_000).div_ceil(u128::from(FREQUENCY));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

fn to_bcd(value: u64) -> u16 {
    let digit = |power: u64| ((value / power) % 10) as u16;
    digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
}

/// A counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    pub(super) state: ChannelState,
}

impl Channel {
    /// Ticks since the count was loaded.
    fn elapsed(&self, now: u64) -> u64 {
        let running = self.state.started.map_or(0, |started| ticks(now.saturating_sub(started)));
        self.state.elapsed.saturating_add(running)
    }

    fn is_periodic(&self) -> bool {
        matches!(self.state.mode, 2 | 3)
    }

    /// The count, as the counting element shows it.
    fn count(&self, now: u64) -> u16 {
        let count = u64::from(self.state.count);
        if count == 0 {
            return 0;
        }
        let elapsed = self.elapsed(now);
        let value = match self.state.mode {
            2 => count - elapsed % count,
            // Counts down by two, twice per period.
            3 => (count - (elapsed * 2) % count) & !1,
            // Counts on below zero.
            _ => {
                let modulus = if self.state.bcd { 10_000 } else { 0x1_0000 };
                (count + modulus - elapsed % modulus) % modulus
            }
        };
        if self.state.bcd { to_bcd(value) } else { value as u16 }
    }

    /// The output.
    pub(super) fn output(&self, now: u64) -> bool {
        let count = u64::from(self.state.count);
        let elapsed = self.elapsed(now);
        let triggered = count != 0 && (self.state.started.is_some() || self.state.elapsed != 0);
        match self.state.mode {
            0 => triggered && elapsed >= count,
            1 => !triggered || elapsed >= count,
            2 => !triggered || !self.state.gate || elapsed % count != count - 1,
            3 => !triggered || !self.state.gate || elapsed % count < count.div_ceil(2),
            _ => !triggered || elapsed != count,
        }
    }

    /// The output from now on, as long as nothing is written. A strobe (modes 4 and 5) is too short to be told.
    pub(super) fn signal(&self, now: u64) -> Signal {
        let state = &self.state;
        match (state.mode, state.started) {
            (2, Some(since)) if state.count != 0 && state.gate => {
                Signal::Square { since, period: state.count, high: state.count - 1 }
            }
            (3, Some(since)) if state.count != 0 && state.gate => {
                Signal::Square { since, period: state.count, high: state.count.div_ceil(2) }
            }
            (0 | 1, Some(started)) if !self.output(now) && state.count != 0 => {
                let left = u64::from(state.count).saturating_sub(state.elapsed);
                Signal::Rises(started.saturating_add(nanoseconds(left)))
            }
            (0 | 1, _) if !self.output(now) => Signal::Low,
            _ => Signal::High,
        }
    }

    /// When the output rises next, strictly after `now`.
    pub(super) fn next_rise(&self, now: u64) -> Option<u64> {
        let started = self.state.started?;
        let count = u64::from(self.state.count);
        if count == 0 {
            return None;
        }
        let elapsed = self.elapsed(now);
        let at = match self.state.mode {
            0 | 1 => count,
            2 | 3 => (elapsed / count + 1) * count,
            _ => count + 1,
        };
        if at <= elapsed {
            return None;
        }
        Some(started.saturating_add(nanoseconds(at.saturating_sub(self.state.elapsed))).max(now + 1))
    }

    /// A control word for this counter.
    pub(super) fn set_mode(&mut self, control: u8) {
        let mode = (control >> 1) & 7;
        self.state = ChannelState {
            // Modes 6 and 7 are 2 and 3.
            mode: if mode > 5 { mode & 3 } else { mode },
            bcd: control & 1 != 0,
            access: (control >> 4) & 3,
            gate: self.state.gate,
            ..ChannelState::default()
        };
    }

    /// The counter latch command.
    pub(super) fn latch_count(&mut self, now: u64) {
        if self.state.latched_count.is_none() {
            self.state.latched_count = Some(self.count(now));
            self.state.read_high = false;
        }
    }

    /// The status half of the read-back command.
    pub(super) fn latch_status(&mut self, now: u64) {
        if self.state.latched_status.is_none() {
            let state = &self.state;
            self.state.latched_status = Some(
                u8::from(self.output(now)) << 7
                    | u8::from(state.null_count) << 6
                    | state.access << 4
                    | state.mode << 1
                    | u8::from(state.bcd),
            );
        }
    }

    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.state.latched_status.take() {
            return status;
        }
        let count = self.state.latched_count.unwrap_or_else(|| self.count(now));
        let [low, high] = count.to_le_bytes();
        match self.state.access {
            1 => {
                self.state.latched_count = None;
                low
            }
            2 => {
                self.state.latched_count = None;
                high
            }
            _ if self.state.read_high => {
                self.state.read_high = false;
                self.state.latched_count = None;
                high
            }
            _ => {
                self.state.read_high = true;
                low
            }
        }
    }

    pub(super) fn write(&mut self, value: u8, now: u64) {
        match (self.state.access, self.state.write_low.take()) {
            (1, _) => self.load(value.into(), now),
            (2, _) => self.load(u16::from(value) << 8, now),
            (_, Some(low)) => self.load(u16::from_le_bytes([low, value]), now),
            (_, None) => {
                self.state.write_low = Some(value);
                if self.state.mode == 0 {
                    // The first byte stops the count.
                    self.state.started = None;
                    self.state.elapsed = 0;
                }
            }
        }
    }

    fn load(&mut self, value: u16, now: u64) {
        let value = if self.state.bcd {
            let digit = |shift: u16| u32::from((value >> shift) & 0xf).min(9);
            digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)
        } else {
            value.into()
        };
        let most = if self.state.bcd { 10_000 } else { 0x1_0000 };
        let count = if value == 0 { most } else { value };
        // A count of 1 is illegal in modes 2 and 3; take the fastest legal one.
        self.state.count = if self.is_periodic() { count.max(2) } else { count };
        self.state.null_count = false;
        match self.state.mode {
            // Wait for the trigger.
            1 | 5 => {}
            _ => {
                self.state.elapsed = 0;
                self.state.started = self.state.gate.then_some(now);
            }
        }
    }

    /// Drives the gate input ("Gate pin operations summary").
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.state.gate {
            return;
        }
        match (self.state.mode, gate) {
            // Enables and disables counting.
            (0 | 4, true) => {
                if self.state.count != 0 && self.state.started.is_none() {
                    self.state.started = Some(now);
                }
            }
            (0 | 4, false) => {
                self.state.elapsed = self.elapsed(now);
                self.state.started = None;
            }
            // Reloads and starts.
            (_, true) => {
                if self.state.count != 0 {
                    self.state.elapsed = 0;
                    self.state.started = Some(now);
                }
            }
            // Modes 2 and 3 stop; 1 and 5 run on.
            (2 | 3, false) => {
                self.state.elapsed = 0;
                self.state.started = None;
            }
            (_, false) => {}
        }
        self.state.gate = gate;
    }
}
