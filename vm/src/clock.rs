//! How guest time, the time-stamp counter and the paravirtual clock hang together.
//!
//! All of them stand still while the machine is paused, so that a guest sees no jump: [`TimeSource`] keeps the *machine's*
//! counter, which is the host's plus a shift that each pause lowers by its length. Only the wall clock goes on: a guest
//! learns of it by the real-time clock, or by asking the paravirtual wall clock anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lodge_bus::Clock;
use lodge_engine_api::ClockSample;
use lodge_irq::GuestTsc;
use parking_lot::Mutex;

use crate::tsc;

/// The time sources of one machine.
///
/// The paravirtual clock promises guests that all vCPUs agree (its "stable" flag), so every vCPU is given the same
/// sample of counter and guest time, taken once: pauses change neither's relation to the other.
pub struct TimeSource {
    clock: Arc<dyn Clock>,
    tsc_hz: u64,
    /// The machine's counter is the host's plus this.
    shift: AtomicU64,
    state: Mutex<State>,
}

struct State {
    sample: ClockSample,
    /// The host's counter when guest time was stopped; `None` while it goes on.
    held: Option<u64>,
}

impl TimeSource {
    /// Over guest time, which stands still, and a counter of this frequency.
    pub fn new(clock: Arc<dyn Clock>, tsc_hz: u64) -> Arc<Self> {
        let (tsc, monotonic_ns) = tsc::read_with(|| clock.now_ns());
        let sample = ClockSample { tsc, monotonic_ns, wall_ns: clock.wall_ns() };
        let state = Mutex::new(State { sample, held: Some(tsc) });
        Arc::new(Self { clock, tsc_hz: tsc_hz.max(1), shift: AtomicU64::new(0), state })
    }

    /// The sample for the paravirtual clock; its counter is the machine's.
    pub fn sample(&self) -> ClockSample {
        self.state.lock().sample
    }

    /// What to add to the host's counter for the machine's.
    pub fn shift(&self) -> u64 {
        self.shift.load(Ordering::Relaxed)
    }

    /// Guest time was stopped just now.
    pub fn pause(&self) {
        self.state.lock().held.get_or_insert_with(tsc::read);
    }

    /// Guest time goes on from now.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        if let Some(held) = state.held.take() {
            self.shift.fetch_sub(tsc::read().wrapping_sub(held), Ordering::Relaxed);
        }
        let since = self.clock.now_ns().saturating_sub(state.sample.monotonic_ns);
        state.sample.wall_ns = self.clock.wall_ns().saturating_sub(since);
    }

    /// The machine's counter.
    fn counter(&self) -> u64 {
        let held = self.state.lock().held;
        held.unwrap_or_else(tsc::read).wrapping_add(self.shift())
    }
}

impl GuestTsc for TimeSource {
    /// Deadlines cross the engine's seam in terms of the machine's counter, so there is no vCPU's offset to know.
    fn now(&self, _vcpu: u32) -> u64 {
        self.counter()
    }

    fn reaches(&self, _vcpu: u32, deadline: u64) -> u64 {
        let (tsc, now) = (self.counter(), self.clock.now_ns());
        let ticks = deadline.saturating_sub(tsc);
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.tsc_hz);
        now.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use lodge_bus::HostClock;

    use super::*;

    /// A clock that goes on, and the time source over it.
    fn running(tsc_hz: u64) -> (Arc<HostClock>, Arc<TimeSource>) {
        let clock = Arc::new(HostClock::new());
        let time = TimeSource::new(clock.clone(), tsc_hz);
        time.resume();
        (clock, time)
    }

    #[test]
    fn deadlines_convert_to_guest_time() {
        let (clock, time) = running(1_000_000_000);
        let before = clock.now_ns();
        let at = time.reaches(0, time.now(0) + 5_000_000_000);
        let after = clock.now_ns();
        assert!(at >= before + 4_900_000_000 && at <= after + 5_000_000_000, "{before} {at} {after}");
        assert!(time.reaches(0, 1) <= clock.now_ns(), "the past is now");
        assert!(time.reaches(0, u64::MAX) > 1 << 60, "the far future does not wrap");
    }

    #[test]
    fn the_counter_stands_still_in_a_pause_and_the_wall_clock_does_not() {
        let (clock, time) = running(1_000_000_000);
        let sample = time.sample();
        clock.pause();
        time.pause();
        let (counter, begin) = (time.now(0), tsc::read());
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(time.now(0), counter);
        time.pause();
        assert_eq!(time.now(0), counter, "pausing twice is pausing once");
        let length = tsc::read() - begin;
        clock.resume();
        time.resume();
        let shift = 0u64.wrapping_sub(time.shift());
        assert!(shift >= length, "{shift} {length}");
        assert!(time.now(0) >= counter);
        let after = time.sample();
        assert_eq!((after.tsc, after.monotonic_ns), (sample.tsc, sample.monotonic_ns));
        assert!(after.wall_ns >= sample.wall_ns + 5_000_000, "the wall clock was not stopped");
    }
}
