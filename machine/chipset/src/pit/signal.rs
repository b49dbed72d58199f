//! What counter 2 and port B's bit 1 make of the line to the speaker, as a function of time.

use super::registers::FREQUENCY;

/// The line to the speaker, from a moment on until it is said to be another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// It stays low.
    #[default]
    Low,
    /// It stays high.
    High,
    /// It is low until a moment of guest time, and high from then on.
    Rises(u64),
    /// A square wave.
    Square {
        /// When its first period began, in guest nanoseconds.
        since: u64,
        /// Ticks of the counter's clock in a period.
        period: u32,
        /// How many of them, the first ones, it is high for.
        high: u32,
    },
}

impl Signal {
    /// How much of the time from one moment to another it is high, from 0 to 1.
    pub fn mean(&self, from: u64, to: u64) -> f64 {
        if to <= from {
            return 0.0;
        }
        let length = u128::from(to - from);
        match *self {
            Self::Low => 0.0,
            Self::High => 1.0,
            Self::Rises(at) => to.saturating_sub(at.max(from)) as f64 / length as f64,
            Self::Square { since, period, high } => {
                // In billionths of a tick.
                let scale = |ticks: u32| u128::from(ticks) * 1_000_000_000;
                let (period, high) = (scale(period.max(1)), scale(high));
                let so_far = |ns: u64| {
                    let elapsed = u128::from(ns.saturating_sub(since)) * u128::from(FREQUENCY);
                    elapsed / period * high + (elapsed % period).min(high)
                };
                so_far(to).saturating_sub(so_far(from)) as f64 / (length * u128::from(FREQUENCY)) as f64
            }
        }
    }

    /// Whether it does not change any more from a moment on.
    pub fn stays(&self, now: u64) -> bool {
        match *self {
            Self::Low | Self::High => true,
            Self::Rises(at) => at <= now,
            Self::Square { .. } => false,
        }
    }
}

/// What listens to the line.
pub trait Loudspeaker: Send + Sync {
    /// From `now` on, in guest nanoseconds, the line is this. Called with the PIT's lock held: it may take its own and those of
    /// what it plays through, and shall not call back.
    fn drive(&self, now: u64, signal: Signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means() {
        assert_eq!((Signal::Low.mean(0, 5), Signal::High.mean(0, 5), Signal::High.mean(5, 5)), (0.0, 1.0, 0.0));
        let rises = Signal::Rises(100);
        assert_eq!((rises.mean(0, 100), rises.mean(50, 150), rises.mean(200, 300)), (0.0, 0.5, 1.0));
        assert!(rises.stays(100) && !rises.stays(99));
        let square = Signal::Square { since: 1000, period: 1193, high: 597 };
        assert!((square.mean(1000, 1_000_001_000) - 0.5004).abs() < 1e-4);
        assert_eq!((square.mean(1000, 400_000), square.mean(600_000, 900_000)), (1.0, 0.0));
        let broken = Signal::Square { since: 0, period: 0, high: u32::MAX };
        assert!(broken.mean(0, u64::MAX).is_finite());
    }
}
