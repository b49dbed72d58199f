//! The host's time-stamp counter and its frequency.
//!
//! The frequency is measured against CLOCK_MONOTONIC_RAW between the machine's beginning and the moment when it is
//! needed, which costs nothing as long as building the machine takes that long anyway. Both ends are the best of a few
//! readings; with [`LEAST`] between them the error stays below 20 ppm.
#![expect(unsafe_code, reason = "RDTSC is only to be had as an unsafe intrinsic")]
// UNSAFETY: one intrinsic, which reads a counter and touches no memory.

use std::thread::sleep;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Least time between the two readings.
const LEAST: Duration = Duration::from_millis(20);
/// Readings of which the quickest is taken.
const TRIES: u32 = 16;

/// Reads the host's time-stamp counter.
#[inline]
pub fn read() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux leaves it to user space unless a process renounces it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The counter, and nanoseconds of something that `clock` reads, at one instant.
pub fn read_with(clock: impl Fn() -> u64) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..TRIES {
        let before = read();
        let ns = clock();
        let width = read().wrapping_sub(before);
        if width < best.0 {
            best = (width, before.wrapping_add(width / 2), ns);
        }
    }
    (best.1, best.2)
}

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    tsc: u64,
    ns: u64,
}

impl Measurement {
    /// Begins.
    pub fn begin() -> Self {
        let (tsc, ns) = read_with(raw_ns);
        Self { tsc, ns }
    }

    /// Ends, after at least [`LEAST`], and gives the frequency in Hz.
    pub fn finish(self) -> u64 {
        let gone = Duration::from_nanos(raw_ns().saturating_sub(self.ns));
        if let Some(rest) = LEAST.checked_sub(gone) {
            sleep(rest);
        }
        let (tsc, ns) = read_with(raw_ns);
        let ticks = u128::from(tsc.wrapping_sub(self.tsc));
        let hz = ticks * 1_000_000_000 / u128::from(ns.saturating_sub(self.ns).max(1));
        u64::try_from(hz).unwrap_or(u64::MAX).max(1)
    }
}

fn raw_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicRaw);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        // Longer ones than in use, so that a busy machine does not fail the test: what is shown is the arithmetic.
        let measure = || {
            let measurement = Measurement::begin();
            sleep(Duration::from_millis(60));
            measurement.finish() as f64
        };
        let (a, b) = (measure(), measure());
        assert!(a > 5e8 && a < 1e10, "{a}");
        assert!((a / b - 1.0).abs() < 1e-3, "{a} {b}");
    }

    #[test]
    fn a_pair_lies_between_its_neighbours() {
        let before = read();
        let (tsc, value) = read_with(|| 42);
        assert!(before <= tsc && tsc <= read());
        assert_eq!(value, 42);
    }
}
