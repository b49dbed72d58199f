//! How fast a cable is: a bucket of bytes that fills with time.

use std::time::{Duration, Instant};

/// A limit, in bits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// How long a cable may have been idle for it to count: so much can be sent at once.
const BURST: Duration = Duration::from_millis(20);

/// The longest wait for one frame.
const LONGEST: Duration = Duration::from_secs(60);

/// What may be sent now.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When all that was sent would have been, at the rate.
    until: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, until: now }
    }

    /// When something may be sent, if not now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        (self.until > now).then_some(self.until)
    }

    /// Counts `bytes` that are sent, which may be more than there is room for: that is waited for afterwards.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        let from = self.until.max(now.checked_sub(BURST).unwrap_or(now));
        let nanos = u128::from(bytes as u64) * 8_000_000_000 / u128::from(self.rate.0.max(1));
        self.until = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST);
    }
}
