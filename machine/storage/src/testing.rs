//! What tests of several devices share.

/// How many steps a test with random accesses takes: all where `LODGE_RANDOM_STEPS=all` is set, a tenth otherwise.
pub(crate) fn steps(all: u64) -> u64 {
    let every = std::env::var("LODGE_RANDOM_STEPS").is_ok_and(|value| value == "all");
    if every { all } else { all / 10 }
}
