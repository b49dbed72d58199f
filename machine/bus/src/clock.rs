//! Guest time.
//!
//! [`Clock`] tells nanoseconds since power-on; it stands still while the machine is paused. [`HostClock`] follows the
//! host's monotonic clock, [`MockClock`] is moved by hand in tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};

/// Guest time. Never goes backwards.
pub trait Clock: Send + Sync {
    /// Nanoseconds of guest monotonic time, zero at power-on.
    fn now_ns(&self) -> u64;

    /// Nanoseconds of the wall clock since 1970 UTC.
    fn wall_ns(&self) -> u64;

    /// The host's CLOCK_MONOTONIC, in nanoseconds, at which guest time will be `guest_ns`; `None` while guest time
    /// stands still, and for clocks that do not follow the host's.
    fn to_host_ns(&self, guest_ns: u64) -> Option<u64>;
}

/// Guest time that follows the host's monotonic clock but for the time spent paused.
#[derive(Debug)]
pub struct HostClock {
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    /// Guest time is host time less this.
    Running { offset: u64 },
    /// Guest time is this.
    Paused { at: u64 },
}

fn host_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl HostClock {
    /// A running clock that shows zero now.
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// A running clock that shows `guest_ns` now (a restored machine).
    pub fn starting_at(guest_ns: u64) -> Self {
        Self { state: RwLock::new(State::Running { offset: host_ns().wrapping_sub(guest_ns) }) }
    }

    /// Stops guest time. [`crate::Timers::clock_changed`] shall be called next.
    pub fn pause(&self) {
        let mut state = self.state.write();
        if let State::Running { offset } = *state {
            *state = State::Paused { at: host_ns().wrapping_sub(offset) };
        }
    }

    /// Lets guest time go on. [`crate::Timers::clock_changed`] shall be called next.
    pub fn resume(&self) {
        let mut state = self.state.write();
        if let State::Paused { at } = *state {
            *state = State::Running { offset: host_ns().wrapping_sub(at) };
        }
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        match *self.state.read() {
            State::Running { offset } => host_ns().wrapping_sub(offset),
            State::Paused { at } => at,
        }
    }

    fn wall_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn to_host_ns(&self, guest_ns: u64) -> Option<u64> {
        match *self.state.read() {
            State::Running { offset } => Some(guest_ns.saturating_add(offset)),
            State::Paused { .. } => None,
        }
    }
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct MockClock {
    now: AtomicU64,
    wall_at_zero: AtomicU64,
}

impl MockClock {
    /// A clock at zero, with the wall clock at 1970.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the wall clock at power-on.
    pub fn set_wall_at_zero(&self, ns: u64) {
        self.wall_at_zero.store(ns, Ordering::Relaxed);
    }

    /// Moves time, without calling any timer; [`crate::Timers::advance`] does both.
    pub fn set(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl Clock for MockClock {
    fn now_ns(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn wall_ns(&self) -> u64 {
        self.wall_at_zero.load(Ordering::Relaxed).wrapping_add(self.now_ns())
    }

    fn to_host_ns(&self, _guest_ns: u64) -> Option<u64> {
        None
    }
}
