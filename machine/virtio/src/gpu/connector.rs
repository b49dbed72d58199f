//! What the driver is told of the monitor (virtio 1.2, 5.7.4): the size that it prefers, and by an event that this has changed.
//!
//! ```text
//!   prefer ──► announce ──(worker)──► event, interrupt ──► the driver asks, shows, clears the event ──┐
//!                 ▲                                                                                   │
//!                 └────────── kept while an event is there: the driver may have asked before ◄────────┘
//! ```

use lodge_display::edid;

use super::registers::EVENT_DISPLAY;
use crate::worker::Bell;

/// The driver's end of the monitor's cable.
#[derive(Default)]
pub(super) struct Connector {
    /// The size that the monitor prefers, if someone has wished for one.
    pub(super) preferred: Option<[u16; 2]>,
    /// That has changed, and the driver is still to be told.
    pub(super) announce: bool,
    /// Events that the driver has not cleared.
    pub(super) events: u32,
    /// There while a driver is.
    bell: Option<Bell>,
}

impl Connector {
    /// The size that the monitor prefers.
    pub(super) fn preferred(&self) -> [u16; 2] {
        self.preferred.unwrap_or(edid::PREFERRED)
    }

    /// The monitor prefers a size; `shown` is the one that the driver shows. Who has to be rung to tell the driver: one that
    /// comes later asks.
    pub(super) fn prefer(&mut self, size: [u16; 2], shown: Option<[u32; 2]>) -> Option<Bell> {
        let under_way = self.announce || self.events & EVENT_DISPLAY != 0;
        let settled = self.preferred() == size && (under_way || shown == Some(size.map(u32::from)));
        if settled {
            return None;
        }
        self.preferred = Some(size);
        self.announce = self.bell.is_some();
        self.bell.clone()
    }

    /// Whether the driver is to be interrupted for an event now.
    pub(super) fn announce(&mut self) -> bool {
        let now = self.announce && self.events & EVENT_DISPLAY == 0;
        if now {
            self.announce = false;
            self.events |= EVENT_DISPLAY;
        }
        now
    }

    /// The driver clears events. Who has to be rung because there is another one.
    pub(super) fn clear(&mut self, events: u32) -> Option<Bell> {
        self.events &= !events;
        self.bell.clone().filter(|_| self.announce && self.events & EVENT_DISPLAY == 0)
    }

    /// A driver is there.
    pub(super) fn connect(&mut self, bell: Bell) {
        self.bell = Some(bell);
    }

    /// There is none any more; the monitor stays.
    pub(super) fn disconnect(&mut self) {
        *self = Self { preferred: self.preferred, ..Self::default() };
    }

    /// Goes on from a saved state. The monitor is the one that stands here, if someone has wished for anything here.
    pub(super) fn restore(&mut self, preferred: Option<[u16; 2]>, announce: bool, events: u32) {
        self.events = events;
        self.preferred = self.preferred.or(preferred);
        self.announce = announce || self.preferred != preferred;
    }
}
