//! What tests share that try things at random ([`Random`], [`steps`]) or wait for threads ([`wait_for`]).

use std::time::{Duration, Instant};

/// How many steps a test with random accesses takes: all where `LODGE_RANDOM_STEPS=all` is set, a tenth otherwise.
pub fn steps(all: u64) -> u64 {
    let every = std::env::var("LODGE_RANDOM_STEPS").is_ok_and(|value| value == "all");
    if every { all } else { all / 10 }
}

/// Numbers at random (xorshift), the same from the same seed, which must not be 0.
pub struct Random(pub u64);

impl Random {
    /// 56 random bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    /// A number below `most`, which must not be 0.
    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Waits for something that threads do.
///
/// # Panics
/// It did not happen for 20 seconds.
#[track_caller]
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_micros(50));
    }
}
