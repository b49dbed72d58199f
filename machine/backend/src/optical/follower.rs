//! What a drive's thread does: it carries out orders, looks what has come of them and what people have done, and tells the
//! tray. The guest is told what the drive did, not what it was told to do.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Weak};

use super::orders::Order;
use super::{Door, Presence};
use crate::tray::{Content, Ejection, Mechanism, Tray};

/// How often a disc is tried that cannot be read.
const TRIES: u32 = 10;

/// What the thread knows.
pub(super) struct Follower {
    // wiring
    path: String,
    tray: Weak<Tray>,
    drive: Weak<dyn Mechanism>,
    // volatile
    /// The medium that is there has been given to the tray, or given up.
    known: bool,
    /// How often it is still tried.
    tries: u32,
    /// The guest wants the tray held.
    wanted: bool,
    /// It is held, if that is known.
    held: Option<bool>,
    /// What fails and was said to fail.
    failing: BTreeSet<&'static str>,
}

impl Follower {
    pub fn new(path: String, tray: Weak<Tray>, drive: Weak<dyn Mechanism>) -> Self {
        Self { path, tray, drive, known: false, tries: 0, wanted: false, held: Some(false), failing: BTreeSet::new() }
    }

    /// Carries out an order. Who waits for its outcome, and what that is, for when the tray has been told.
    pub fn carry_out(&mut self, order: Order, door: &mut dyn Door) -> Option<(Arc<Ejection>, Result<()>)> {
        match order {
            Order::Lock(locked) => {
                // Done when it has been looked whether there is something to hold.
                self.wanted = locked;
                None
            }
            Order::Eject(outcome) => {
                // A tray that is held does not open; that it may the guest has seen to before, or is made to.
                if door.lock(false).is_ok() {
                    self.held = Some(false);
                } else if self.held == Some(true) {
                    // The drive lets go before it opens, and may do so without opening then.
                    self.held = None;
                }
                let result = door.eject();
                self.say("opened", result.as_ref().err());
                if result.is_ok() {
                    self.wanted = false;
                    if let Some(tray) = self.tray.upgrade() {
                        tray.opened(&self.drive);
                    }
                }
                Some((outcome, result))
            }
            Order::Close { .. } => {
                let result = door.close();
                self.say("closed", result.as_ref().err());
                None
            }
        }
    }

    /// What to say of a drive that did not open.
    pub fn refusal(&self, error: &Error) -> String {
        format!("the drive {} can't be opened: {error}; {}", self.path, self.remedy(error))
    }

    /// Tells the tray what is in the drive, and has the drive hold what the guest wants held.
    pub fn look(&mut self, door: &mut dyn Door) {
        let answer = door.presence();
        self.say("asked what is in it", answer.as_ref().err());
        if answer.is_err() {
            // What comes back is another one.
            self.held = Some(false);
        }
        // A drive that is gone has no medium, either.
        let now = answer.unwrap_or(Presence::Empty);
        let Some(tray) = self.tray.upgrade() else { return };
        let content = match now {
            Presence::Loaded => self.loaded(door, &tray),
            Presence::NotReady => Content::Busy,
            Presence::Empty => Content::Empty,
            Presence::Open => Content::Open,
        };
        self.known &= !matches!(now, Presence::Empty | Presence::Open);
        tray.follow(&self.drive, content);
        // There is nothing to hold in an empty drive; what was held and is spinning up again stays held.
        let hold = match now {
            Presence::Loaded => self.wanted,
            Presence::NotReady => self.wanted && self.held == Some(true),
            Presence::Empty | Presence::Open => false,
        };
        if self.held != Some(hold) {
            let result = door.lock(hold);
            self.say(if hold { "locked" } else { "unlocked" }, result.as_ref().err());
            if result.is_ok() {
                self.held = Some(hold);
            }
        }
    }

    fn loaded(&mut self, door: &mut dyn Door, tray: &Tray) -> Content {
        let changed = door.is_changed() || !self.known;
        if !changed && self.tries == 0 {
            return Content::Same;
        }
        if changed {
            self.tries = TRIES;
            // The old one is let go before the new one is opened, and so is what holds it.
            tray.follow(&self.drive, Content::Another);
        }
        self.known = true;
        let medium = door.medium();
        self.held = Some(false);
        self.say("read", medium.as_ref().err());
        match medium {
            Ok(medium) => {
                self.tries = 0;
                Content::Medium(medium)
            }
            Err(_) => {
                self.tries -= 1;
                if self.tries == 0 { Content::Empty } else { Content::Busy }
            }
        }
    }

    /// The last thing: nothing is held any more.
    pub fn let_go(&mut self, door: &mut dyn Door) {
        if self.held != Some(false) {
            let result = door.lock(false);
            self.say("unlocked", result.as_ref().err());
        }
    }

    /// Says that something can't be done, unless that was said since it could be: guests and drives go on trying.
    fn say(&mut self, what: &'static str, error: Option<&Error>) {
        match error {
            None => {
                self.failing.remove(what);
            }
            Some(error) => {
                if self.failing.insert(what) {
                    tracing::warn!("the drive {} can't be {what}: {error}; {}", self.path, self.remedy(error));
                }
            }
        }
    }

    /// What to do about a drive that fails.
    fn remedy(&self, error: &Error) -> String {
        const NO_DEVICE: [i32; 2] = [rustix::io::Errno::NODEV.raw_os_error(), rustix::io::Errno::NXIO.raw_os_error()];
        match error.kind() {
            ErrorKind::ResourceBusy => format!("see what uses it with `fuser -v {}`", self.path),
            ErrorKind::PermissionDenied => "join the group `cdrom`".into(),
            ErrorKind::NotFound => "look whether it is plugged in".into(),
            _ if error.raw_os_error().is_some_and(|number| NO_DEVICE.contains(&number)) => {
                "look whether it is plugged in".into()
            }
            _ => "look at the drive and its disc".into(),
        }
    }
}
