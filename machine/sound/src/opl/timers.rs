//! The timers, by which drivers and games find the chip (application manual, registers 02h to 04h).
//!
//! Nothing ticks: flags are worked out from guest time when the status is read.

use serde::{Deserialize, Serialize};

use super::registers::{TIMER_1, TIMER_2, TIMER_RESET};

/// One timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OplTimer {
    /// What it counts up from the next time, to 256.
    pub from: u8,
    /// What it has counted up from this time.
    pub loaded: u8,
    /// When it was started, in guest nanoseconds.
    pub started: Option<u64>,
    /// Its flag cannot be set.
    pub masked: bool,
    /// Its flag.
    pub flag: bool,
}

/// How long a step of each timer takes, in nanoseconds.
const STEPS: [u64; 2] = [80_000, 320_000];

/// How long a timer takes from a count on.
fn period(from: u8, step: u64) -> u64 {
    (256 - u64::from(from)) * step
}

/// Sets flags of timers that have run over.
pub(super) fn settle(timers: &mut [OplTimer; 2], now: u64) {
    for (timer, step) in timers.iter_mut().zip(STEPS) {
        let Some(started) = timer.started else { continue };
        let first = started.saturating_add(period(timer.loaded, step));
        if now < first {
            continue;
        }
        timer.flag |= !timer.masked;
        // It begins anew by itself, from what has been written since.
        let more = period(timer.from, step);
        timer.loaded = timer.from;
        timer.started = Some(first + (now - first) / more * more);
    }
}

/// The status register.
pub(super) fn status(timers: &[OplTimer; 2]) -> u8 {
    let [first, second] = timers.map(|timer| u8::from(timer.flag));
    (first | second) << 7 | first << 6 | second << 5
}

/// Writes one of the timers' registers.
pub(super) fn write(timers: &mut [OplTimer; 2], register: u16, value: u8, now: u64) {
    settle(timers, now);
    match register {
        TIMER_1 => timers[0].from = value,
        TIMER_2 => timers[1].from = value,
        _ if value & TIMER_RESET != 0 => timers.iter_mut().for_each(|timer| timer.flag = false),
        _ => {
            for (n, timer) in timers.iter_mut().enumerate() {
                timer.masked = value & 0x40 >> n != 0;
                timer.flag &= !timer.masked;
                match (value & 1 << n != 0, timer.started) {
                    (false, _) => timer.started = None,
                    (true, None) => (timer.loaded, timer.started) = (timer.from, Some(now)),
                    (true, Some(_)) => {}
                }
            }
        }
    }
}
