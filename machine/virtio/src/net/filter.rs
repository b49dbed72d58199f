//! Which frames a card receives (virtio 1.2 sections 5.1.6.5.1 to 5.1.6.5.3).

use lodge_net::MacAddress;
use serde::{Deserialize, Serialize};

use super::registers::MOST_ADDRESSES;

/// Addresses of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// They.
    listed: Vec<[u8; 6]>,
    /// There were too many, or all are wanted.
    all: bool,
}

impl Addresses {
    /// `count` addresses, one after the other; with too many, all.
    pub(super) fn listed(bytes: &[u8]) -> Self {
        let (addresses, _) = bytes.as_chunks::<6>();
        if addresses.len() > MOST_ADDRESSES {
            return Self { listed: Vec::new(), all: true };
        }
        Self { listed: addresses.to_vec(), all: false }
    }

    fn has(&self, address: [u8; 6]) -> bool {
        self.all || self.listed.contains(&address)
    }

    /// Whether there are no more than there may be.
    fn is_bounded(&self) -> bool {
        self.listed.len() <= MOST_ADDRESSES
    }
}

/// Which frames a card receives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The card's own address, where the driver has set another.
    pub own: Option<[u8; 6]>,
    /// Single cards and groups beside it.
    pub single: Addresses,
    /// Groups.
    pub groups: Addresses,
    /// All frames.
    pub promiscuous: bool,
    /// All of each kind.
    pub all_single: bool,
    /// All to groups.
    pub all_groups: bool,
    /// None to groups.
    pub no_groups: bool,
    /// None to single cards.
    pub no_single: bool,
    /// None to all.
    pub no_broadcast: bool,
}

impl Filter {
    /// The filter after a reset: drivers that don't ask for less get everything (5.1.6.5.1).
    pub(super) fn open() -> Self {
        Self { promiscuous: true, ..Self::default() }
    }

    /// Whether a frame to `destination` is received by the card with address `mac`.
    pub(super) fn passes(&self, destination: [u8; 6], mac: MacAddress) -> bool {
        if self.promiscuous {
            return true;
        }
        let to = MacAddress(destination);
        if to == MacAddress::BROADCAST {
            return !self.no_broadcast;
        }
        if to.is_group() {
            return !self.no_groups && (self.all_groups || self.groups.has(destination));
        }
        let own = self.own.unwrap_or(mac.0);
        !self.no_single && (self.all_single || destination == own || self.single.has(destination))
    }

    /// Whether it is one that the device could have.
    pub(super) fn is_sane(&self) -> bool {
        self.single.is_bounded() && self.groups.is_bounded()
    }
}
