//! Saved state of the network card, besides the transport's. Frames that wait for the driver are lost, as networks lose them.

use lodge_net::Accepts;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::registers::feature;

/// The network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetState {
    /// Which frames are received.
    pub filter: Filter,
    /// How many pairs of queues are used.
    pub pairs: u16,
    /// What the driver does itself, as features; `None` while it is what was agreed on.
    pub offloads: Option<u64>,
}

impl Default for NetState {
    fn default() -> Self {
        Self { filter: Filter::open(), pairs: 1, offloads: None }
    }
}

impl NetState {
    /// What the driver does itself, with these features.
    pub(super) fn accepts(&self, features: u64) -> Accepts {
        let on = features & self.offloads.unwrap_or(u64::MAX);
        let has = |feature: u64| on & feature != 0;
        let checksum = has(feature::GUEST_CSUM);
        Accepts {
            checksum,
            tcp4: checksum && has(feature::GUEST_TSO4),
            tcp6: checksum && has(feature::GUEST_TSO6),
            congestion: checksum && has(feature::GUEST_ECN),
        }
    }

    /// Whether a card with so many pairs can be in it.
    pub(super) fn is_sound(&self, most_pairs: u16) -> bool {
        (1..=most_pairs).contains(&self.pairs) && self.filter.is_sane()
    }
}

impl Saved for NetState {
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;
}
