//! Saved state of the tablet, besides the transport's.

use std::collections::{BTreeSet, VecDeque};

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::{code, kind};

/// Most reports that wait for the guest.
pub(super) const MOST_REPORTS: usize = 64;

/// What has happened at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The pointer is at this place.
    Position(u16, u16),
    /// The wheel was turned by so many notches, away from the user.
    Wheel(i32),
    /// This button is down, or up.
    Button(u16, bool),
}

/// An event as the guest gets it: type, code, value.
pub type Event = (u16, u16, u32);

impl Report {
    /// Its events, with the one that ends them.
    pub(super) fn events(self) -> Vec<Event> {
        let mut events = match self {
            Self::Position(x, y) => vec![(kind::ABS, code::ABS_X, x.into()), (kind::ABS, code::ABS_Y, y.into())],
            Self::Wheel(notches) => vec![(kind::REL, code::REL_WHEEL, notches as u32)],
            Self::Button(code, down) => vec![(kind::KEY, code, down.into())],
        };
        events.push((kind::SYN, 0, 0));
        events
    }
}

/// The tablet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TabletState {
    /// What of the configuration is selected.
    pub select: u8,
    /// What of that.
    pub subsel: u8,
    /// Events of the report that is being told.
    pub events: VecDeque<Event>,
    /// Reports that wait.
    pub reports: VecDeque<Report>,
    /// Buttons that are down once all of that is told.
    pub held: BTreeSet<u16>,
}

impl TabletState {
    /// Puts a report behind those that wait. What adds to the last is put together with it; where there are too many, only
    /// what they come to is left.
    pub(super) fn add(&mut self, report: Report) {
        match report {
            Report::Button(code, true) => _ = self.held.insert(code),
            Report::Button(code, false) => _ = self.held.remove(&code),
            Report::Position(..) | Report::Wheel(_) => {}
        }
        match (self.reports.back_mut(), report) {
            (Some(last @ Report::Position(..)), Report::Position(..)) => *last = report,
            (Some(Report::Wheel(sum)), Report::Wheel(more)) => *sum = sum.saturating_add(more),
            _ => self.reports.push_back(report),
        }
        if self.reports.len() <= MOST_REPORTS {
            return;
        }
        let reports = std::mem::take(&mut self.reports);
        let last = |wanted: &dyn Fn(&Report) -> bool| reports.iter().rev().copied().find(|report| wanted(report));
        let place = last(&|report| matches!(report, Report::Position(..)));
        let turned = reports.iter().fold(0i32, |sum, report| match report {
            Report::Wheel(notches) => sum.saturating_add(*notches),
            _ => sum,
        });
        let button = |code: u16| last(&|report| matches!(report, Report::Button(other, _) if *other == code));
        self.reports.extend(place);
        self.reports.extend((turned != 0).then_some(Report::Wheel(turned)));
        self.reports.extend(code::BUTTONS.into_iter().filter_map(button));
    }

    /// Nobody holds a button any more.
    pub(super) fn release(&mut self) {
        while let Some(code) = self.held.first().copied() {
            self.add(Report::Button(code, false));
        }
    }

    /// The event that comes next; it stays until [`TabletState::told`].
    pub(super) fn next(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.events.extend(self.reports.pop_front()?.events());
        }
        self.events.front().copied()
    }

    /// The next event has been told.
    pub(super) fn told(&mut self) {
        self.events.pop_front();
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.events.is_empty() && self.reports.is_empty()
    }

    /// Whether a tablet can be in it.
    pub(super) fn is_sound(&self) -> bool {
        let held = self.held.iter().all(|code| code::BUTTONS.contains(code));
        held && self.events.len() <= 3 && self.reports.len() <= MOST_REPORTS
    }
}

impl Saved for TabletState {
    const KIND: &'static str = "virtio-tablet";
    const VERSION: u16 = 1;
}
