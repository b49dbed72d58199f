//! The timers of the OPL3 FM synthesizer (YMF262), by which drivers and games find it.
//!
//! Nothing ticks: flags are worked out from guest time when the status is read. The synthesizer's voices are silent.

use serde::{Deserialize, Serialize};

use super::registers::*;

/// One timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OplTimer {
    /// What it counts up from, to 256.
    pub from: u8,
    /// When it was started, in guest nanoseconds.
    pub started: Option<u64>,
    /// Its flag cannot be set.
    pub masked: bool,
    /// Its flag.
    pub flag: bool,
}

/// The registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OplState {
    /// The address in the first bank, and the one in the second.
    pub address: [u8; 2],
    /// The timers.
    pub timers: [OplTimer; 2],
}

/// How long a step of each timer takes, in nanoseconds.
const STEPS: [u64; 2] = [80_000, 320_000];

impl OplState {
    /// Sets flags of timers that have run over.
    fn settle(&mut self, now: u64) {
        for (timer, step) in self.timers.iter_mut().zip(STEPS) {
            let Some(started) = timer.started else { continue };
            let period = (256 - u64::from(timer.from)) * step;
            let periods = now.saturating_sub(started) / period;
            if periods > 0 {
                timer.flag |= !timer.masked;
                // It begins anew by itself.
                timer.started = Some(started.saturating_add(periods * period));
            }
        }
    }

    /// The status. Its two lowest timer bits are zero in an OPL3 and not in an OPL2.
    pub(super) fn status(&mut self, now: u64) -> u8 {
        self.settle(now);
        let [first, second] = self.timers.map(|timer| u8::from(timer.flag));
        (first | second) << 7 | first << 6 | second << 5
    }

    /// Writes to one of the four ports: address and data of each bank.
    pub(super) fn write(&mut self, port: u16, value: u8, now: u64) {
        let bank = usize::from(port >> 1 & 1);
        if port & 1 == 0 {
            self.address[bank] = value;
            return;
        }
        if bank != 0 {
            return;
        }
        self.settle(now);
        match self.address[0] {
            TIMER_1 => self.timers[0].from = value,
            TIMER_2 => self.timers[1].from = value,
            TIMER_CONTROL if value & FM_RESET != 0 => self.timers.iter_mut().for_each(|timer| timer.flag = false),
            TIMER_CONTROL => {
                for (n, timer) in self.timers.iter_mut().enumerate() {
                    timer.masked = value & 0x40 >> n != 0;
                    timer.flag &= !timer.masked;
                    let starts = value & 1 << n != 0;
                    timer.started = timer.started.filter(|_| starts).or(starts.then_some(now));
                }
            }
            _ => {}
        }
    }
}
