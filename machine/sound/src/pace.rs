//! A steady pace in guest time: so many units a second, since a moment.

use lodge_bus::Timer;
use serde::{Deserialize, Serialize};

const SECOND: u128 = 1_000_000_000;

/// A steady pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pace {
    /// When it began, in guest nanoseconds.
    pub since: u64,
    /// Units a second.
    pub rate: u32,
    /// Units that have been done.
    pub done: u64,
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl Pace {
    /// One that begins now.
    pub fn new(now: u64, rate: u32) -> Self {
        Self { since: now, rate: rate.max(1), done: 0 }
    }

    /// Units that are due. After a stall they are those of a second at most; the others are taken for done.
    pub fn due(&mut self, now: u64) -> u64 {
        let elapsed = u128::from(now.saturating_sub(self.since));
        let due = saturate(elapsed * u128::from(self.rate) / SECOND).saturating_sub(self.done);
        let taken = due.min(self.rate.into());
        self.done = self.done.saturating_add(due - taken);
        taken
    }

    /// When the next unit begins.
    pub fn next(&self) -> u64 {
        let elapsed = u128::from(self.done) * SECOND / u128::from(self.rate.max(1));
        self.since.saturating_add(saturate(elapsed))
    }

    /// When so many more are due.
    pub fn moment(&self, units: u64) -> u64 {
        let elapsed = (u128::from(self.done) + u128::from(units)) * SECOND;
        self.since.saturating_add(saturate(elapsed.div_ceil(self.rate.max(1).into())))
    }
}

/// Has a timer call back by a moment at the latest, or not at all. One that is set to an earlier moment stays: a guest that looks
/// at registers in a loop shall not set the host's timer each time.
pub(crate) fn arm(timer: &Timer, due: Option<u64>) {
    match (due, timer.deadline()) {
        (Some(due), Some(armed)) if armed <= due => {}
        _ => timer.set(due),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_due_when_their_time_has_passed() {
        let mut pace = Pace::new(1000, 44_100);
        assert_eq!((pace.due(1000), pace.due(0)), (0, 0));
        let moment = pace.moment(441);
        assert_eq!(moment, 10_001_000);
        assert_eq!((pace.due(moment - 1), pace.due(moment)), (440, 441));
        pace.done = 441;
        assert_eq!((pace.due(moment), pace.next()), (0, moment));
    }

    #[test]
    fn a_stall_is_made_up_for_by_a_second_at_most() {
        let mut pace = Pace::new(0, 8000);
        assert_eq!(pace.due(u64::MAX), 8000);
        let mut broken = Pace { since: 5, rate: 0, done: u64::MAX };
        assert_eq!(broken.due(u64::MAX), 0);
        assert!(broken.next() > 1 << 60 && broken.moment(u64::MAX) == u64::MAX);
    }
}
