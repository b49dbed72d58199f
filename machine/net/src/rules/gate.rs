//! The rules of one cable at work.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use super::Rules;
use super::packet::{Packet, Talk};
use super::refusal::refusal;
use crate::frame::Frame;
use crate::segment::{Layout, ethertype};

/// Who came in and is remembered: so many at least, twice as many at most.
pub(super) const ANSWERED: usize = 4096;
/// Refusals that wait for the guest; of more it does not hear.
pub(super) const REFUSALS: usize = 64;

/// What becomes of a frame of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It goes on.
    Pass,
    /// It does not.
    Lost,
    /// It does not, and there is something to say to the guest.
    Refused,
}

/// The rules of a cable.
pub(crate) struct Gate {
    rules: Rules,
    volatile: Mutex<Volatile>,
}

#[derive(Default)]
struct Volatile {
    /// Who came in, where the guest could not have gone. When so many are recent, they become the older ones, and the
    /// older ones are forgotten; whoever is answered is recent.
    recent: HashSet<Talk>,
    older: HashSet<Talk>,
    /// What is said to the guest.
    refusals: VecDeque<Frame>,
}

impl Volatile {
    fn remember(&mut self, talk: Talk) {
        if self.recent.len() >= ANSWERED {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(talk);
    }

    fn remembers(&mut self, talk: &Talk) -> bool {
        if self.recent.contains(talk) {
            return true;
        }
        let known = self.older.remove(talk);
        if known {
            self.remember(*talk);
        }
        known
    }
}

impl Gate {
    /// `None` if there are no rules.
    pub(crate) fn new(rules: Rules) -> Option<Self> {
        (!rules.are_none()).then(|| Self { rules, volatile: Mutex::default() })
    }

    /// Judges a frame of the guest's.
    pub(crate) fn judge(&self, bytes: &[u8]) -> Judged {
        let Some(layout) = Layout::of(bytes) else { return Judged::Lost };
        let tagged = layout.network != crate::HEADER;
        match layout.ethertype {
            ethertype::ARP if !tagged => return Judged::Pass,
            // What is in a VLAN, or is no IP, is nothing that is allowed.
            _ if tagged && self.rules.strict => return Judged::Lost,
            ethertype::IPV4 | ethertype::IPV6 => {}
            // What is within so many is nothing that could be judged.
            ethertype::VLAN | ethertype::SERVICE_VLAN => return Judged::Lost,
            _ if self.rules.strict => return Judged::Lost,
            _ => return Judged::Pass,
        }
        let Some(packet) = Packet::of(bytes, &layout) else { return Judged::Lost };
        if packet.is_of_the_link() || self.rules.let_pass(&packet.destination()) {
            return Judged::Pass;
        }
        let mut volatile = self.volatile.lock();
        if packet.answer().is_some_and(|talk| volatile.remembers(&talk)) {
            return Judged::Pass;
        }
        tracing::debug!(to = %packet.to, ports = ?packet.ports(), "what the guest sends there is denied");
        match refusal(bytes, &layout, &packet) {
            Some(refusal) if volatile.refusals.len() < REFUSALS => {
                volatile.refusals.push_back(refusal);
                Judged::Refused
            }
            _ => Judged::Lost,
        }
    }

    /// Notes who comes in, so that the guest may answer.
    pub(crate) fn note(&self, bytes: &[u8]) {
        let Some(layout) = Layout::of(bytes).filter(|layout| layout.network == crate::HEADER) else { return };
        if !matches!(layout.ethertype, ethertype::IPV4 | ethertype::IPV6) {
            return;
        }
        let Some(packet) = Packet::of(bytes, &layout) else { return };
        if let Some(talk) = packet.question()
            && !self.rules.let_pass(&packet.origin())
        {
            self.volatile.lock().remember(talk);
        }
    }

    /// The next thing that is said to the guest.
    pub(crate) fn refusal(&self) -> Option<Frame> {
        self.volatile.lock().refusals.pop_front()
    }

    /// How many of those who came in are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        let volatile = self.volatile.lock();
        volatile.recent.len() + volatile.older.len()
    }

    /// Nobody listens any more.
    pub(crate) fn forget_refusals(&self) {
        self.volatile.lock().refusals.clear();
    }
}
