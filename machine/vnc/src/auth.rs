//! VNC authentication: the server sends random bytes, the viewer returns them encrypted with the password (RFC 6143
//! section 7.2.2).
//!
//! DES with eight characters is weak, and all that viewers share: it keeps out the curious, on a network that one trusts.

use std::fmt;

use des::Des;
use des::cipher::{BlockEncrypt, KeyInit};

/// Bytes of a challenge.
pub(crate) const CHALLENGE: usize = 16;

/// A password. Only its first eight bytes count, as the protocol has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password([u8; 8]);

impl Password {
    /// From a text; `None` if it is empty, which would keep out nobody.
    pub fn new(text: &str) -> Option<Self> {
        let mut key = [0; 8];
        key.iter_mut().zip(text.bytes()).for_each(|(key, byte)| *key = byte);
        (!text.is_empty()).then_some(Self(key))
    }

    /// What a viewer that knows the password answers.
    pub(crate) fn answer(&self, challenge: [u8; CHALLENGE]) -> [u8; CHALLENGE] {
        // Of each byte, the lowest bit comes first.
        let cipher = Des::new(&self.0.map(u8::reverse_bits).into());
        let mut answer = challenge;
        for block in answer.chunks_exact_mut(8) {
            cipher.encrypt_block(block.into());
        }
        answer
    }

    /// Whether this is the right answer. Takes the same time whatever is wrong.
    pub(crate) fn accepts(&self, challenge: [u8; CHALLENGE], answer: [u8; CHALLENGE]) -> bool {
        let expected = self.answer(challenge);
        std::hint::black_box(expected.iter().zip(answer).fold(0, |all, (a, b)| all | (a ^ b))) == 0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn des_has_its_bits_reversed() {
        // FIPS 81's example: key 0123456789abcdef, "Now is the time ".
        let key = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].map(u8::reverse_bits);
        let answer = Password(key).answer(*b"Now is the time ");
        assert_eq!(
            answer,
            [0x3f, 0xa4, 0x0e, 0x8a, 0x98, 0x4d, 0x48, 0x15, 0x6a, 0x27, 0x17, 0x87, 0xab, 0x88, 0x83, 0xf9]
        );
    }

    #[test]
    fn only_the_right_answer_is_accepted() {
        let password = Password::new("secret").unwrap();
        let challenge = [7; CHALLENGE];
        let answer = password.answer(challenge);
        assert!(password.accepts(challenge, answer));
        let mut wrong = answer;
        wrong[15] ^= 1;
        assert!(!password.accepts(challenge, wrong));
        assert!(!Password::new("Secret").unwrap().accepts(challenge, answer));
        assert_eq!(Password::new("12345678"), Password::new("123456789"));
        assert_eq!(Password::new(""), None);
        assert_eq!(format!("{password:?}"), "Password(..)");
    }
}
