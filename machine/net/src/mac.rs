//! Addresses of network cards.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address (IEEE 802, section 8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// The first three bytes of derived addresses: those of one card, administered locally.
const PREFIX: [u8; 3] = [0x02, 0x6c, 0x64];

impl MacAddress {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of card `number` of the machine that is known by `identity`: the same for the same, whatever lodge's
    /// version, and hardly ever the same for two.
    pub fn derived(identity: &[u8], number: u32) -> Self {
        // FNV-1a (draft-eastlake-fnv, section 2).
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let hash = identity.iter().chain(&number.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, hash);
        // Its upper half depends on all of the lower.
        let [_, _, _, _, a, b, c, d] = hash.to_le_bytes();
        let [x, y, z] = PREFIX;
        Self([x, y, z, a ^ d, b, c])
    }

    /// Whether it is that of a group of cards, or of all.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a card can have it.
    pub fn is_one_card(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not the address of a card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    /// It has another form.
    #[error("'{0}' is not six bytes in hexadecimal, as in 02:6c:64:01:02:03")]
    Form(String),
    /// It is that of a group, or nobody's.
    #[error("'{0}' is not the address of a single card; its first byte has to be even, as 02")]
    Group(String),
}

impl FromStr for MacAddress {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac::Form(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(bad)?;
            // `from_str_radix` takes signs.
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        let address = Self(bytes);
        if address.is_one_card() { Ok(address) } else { Err(BadMac::Group(text.to_owned())) }
    }
}
