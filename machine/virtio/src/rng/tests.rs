use lodge_bus::MockClock;

use super::*;
use crate::testing::{DATA, Driver};

/// Counts up.
struct Counter(Mutex<u8>);

impl Entropy for Counter {
    fn fill(&self, buffer: &mut [u8]) -> usize {
        let mut next = self.0.lock();
        for byte in buffer.iter_mut() {
            *byte = *next;
            *next = next.wrapping_add(1);
        }
        buffer.len()
    }
}

#[test]
fn requests_are_filled_up_to_the_rate() {
    let clock = Arc::new(MockClock::new());
    let timers = Timers::mock(clock.clone());
    let driver = Driver::new(Rng::new("rng0", Arc::new(Counter(Mutex::new(0))), &timers));
    driver.start(crate::feature::EVENT_IDX);
    driver.submit(0, 0, &[(DATA, 3, true), (DATA + 3, 2, true)]);
    assert_eq!(driver.complete(0), (0, 5));
    assert_eq!(driver.get(DATA, 6), [0, 1, 2, 3, 4, 0]);
    let mut total = 5;
    for _ in 0..16 {
        driver.submit(0, 0, &[(DATA, 1 << 20, true)]);
        let (_, used) = driver.complete(0);
        assert!(used <= 64 << 10);
        total += u64::from(used);
    }
    assert_eq!(total, BUDGET, "the last request got what was left");
    driver.submit(0, 0, &[(DATA, 10, true)]);
    crate::testing::wait_for("the timer", || timers.next_deadline() == Some(PERIOD));
    assert_eq!(driver.used_index(0), 17);
    timers.advance(&clock, PERIOD);
    assert_eq!(driver.complete(0), (0, 10));
}
