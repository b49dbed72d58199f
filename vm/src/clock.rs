//! How guest time, the host's time-stamp counter and the paravirtual clock hang together.

use std::sync::Arc;

use lodge_bus::Clock;
use lodge_engine_api::ClockSample;
use lodge_irq::GuestTsc;
use parking_lot::RwLock;

use crate::tsc;

/// The time sources of one machine.
///
/// The paravirtual clock promises guests that all vCPUs agree (its "stable" flag), so every vCPU is given the same
/// sample, taken once; only a resume after a pause takes a new one.
pub struct TimeSource {
    clock: Arc<dyn Clock>,
    tsc_hz: u64,
    sample: RwLock<ClockSample>,
}

impl TimeSource {
    /// Over guest time and a counter of this frequency.
    pub fn new(clock: Arc<dyn Clock>, tsc_hz: u64) -> Arc<Self> {
        let sample = RwLock::new(take(&*clock));
        Arc::new(Self { clock, tsc_hz: tsc_hz.max(1), sample })
    }

    /// The sample for the paravirtual clock.
    pub fn sample(&self) -> ClockSample {
        *self.sample.read()
    }

    /// Guest time jumped against the counter: takes a new sample.
    pub fn resample(&self) {
        *self.sample.write() = take(&*self.clock);
    }
}

fn take(clock: &dyn Clock) -> ClockSample {
    let (tsc, monotonic_ns) = tsc::read_with(|| clock.now_ns());
    ClockSample { tsc, monotonic_ns, wall_ns: clock.wall_ns() }
}

impl GuestTsc for TimeSource {
    /// Deadlines cross the engine's seam in terms of the host's counter, so there is no offset to know.
    fn now(&self, _vcpu: u32) -> u64 {
        tsc::read()
    }

    fn reaches(&self, _vcpu: u32, deadline: u64) -> u64 {
        let (tsc, now) = (tsc::read(), self.clock.now_ns());
        let ticks = deadline.saturating_sub(tsc);
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.tsc_hz);
        now.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use lodge_bus::HostClock;

    use super::*;

    #[test]
    fn deadlines_convert_to_guest_time() {
        let clock = Arc::new(HostClock::new());
        let time = TimeSource::new(clock.clone(), 1_000_000_000);
        let before = clock.now_ns();
        let at = time.reaches(0, tsc::read() + 5_000_000_000);
        let after = clock.now_ns();
        assert!(at >= before + 4_900_000_000 && at <= after + 5_000_000_000, "{before} {at} {after}");
        assert!(time.reaches(0, 1) <= clock.now_ns(), "the past is now");
        assert!(time.reaches(0, u64::MAX) > 1 << 60, "the far future does not wrap");
    }

    #[test]
    fn the_sample_stays_until_it_is_taken_anew() {
        let clock = Arc::new(HostClock::new());
        let time = TimeSource::new(clock, 1_000_000_000);
        let first = time.sample();
        assert_eq!(time.sample(), first);
        time.resample();
        assert!(time.sample().tsc > first.tsc);
    }
}
