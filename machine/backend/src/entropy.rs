//! Random bytes for guests.

use rustix::rand::{GetRandomFlags, getrandom};

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills as much of `buffer` as the source has now, and returns how much.
    fn fill(&self, buffer: &mut [u8]) -> usize;
}

/// The host's generator (getrandom(2)).
#[derive(Debug, Default)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&self, buffer: &mut [u8]) -> usize {
        match getrandom(buffer, GetRandomFlags::NONBLOCK) {
            Ok(filled) => filled,
            Err(error) => {
                tracing::warn!(%error, "the host gives no random bytes");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        assert_eq!((HostEntropy.fill(&mut a), HostEntropy.fill(&mut b)), (32, 32));
        assert_ne!(a, b);
    }
}
