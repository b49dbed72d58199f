//! A drive whose medium can be changed while the machine runs: CD, DVD, floppy.
//!
//! ```text
//!            insert                     lock
//!   empty ----------> loaded, free <-----------> loaded, locked --eject from outside--> the guest is asked
//!     ^                   |              free                                               |
//!     +------ eject ------+<--------------------- the guest ejects -------------------------+
//! ```
//!
//! A tray is shared by the device, which the guest commands, and by whoever commands the machine. It may stand for a drive
//! of the host's, its [`Mechanism`]: then what the guest does with the tray is done to that one, and the medium is what that
//! one holds.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::disk::Disk;

/// The guest holds the medium; it has been asked to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest has locked the tray; it has been asked to eject, and a second request takes the medium by force")]
pub struct Locked;

/// A drive of the host's that a tray stands for. Nothing here waits for it.
pub trait Mechanism: Send + Sync {
    /// Holds the medium, or lets go of it.
    fn lock(&self, locked: bool);
    /// Opens the tray.
    fn eject(&self);
    /// Closes it.
    fn close(&self);
}

#[derive(Default)]
struct State {
    mechanism: Option<Arc<dyn Mechanism>>,
    medium: Option<Arc<dyn Disk>>,
    open: bool,
    locked: bool,
    /// The guest has been asked to eject, and has not been told yet.
    asked: bool,
    /// Someone outside asked once.
    insisted: bool,
    /// How often the medium has changed.
    changes: u64,
}

/// Someone who wants to know when a medium has come or gone.
struct Watcher {
    is_there: Box<dyn Fn() -> bool + Send + Sync>,
    tell: Box<dyn Fn() + Send + Sync>,
}

/// A drive's tray.
#[derive(Default)]
pub struct Tray {
    state: Mutex<State>,
    watchers: Mutex<Vec<Watcher>>,
}

impl Tray {
    /// A closed tray with a medium in it, or none.
    pub fn new(medium: Option<Arc<dyn Disk>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { medium, ..State::default() }), watchers: Mutex::default() })
    }

    /// Has `tell` called with `who`, for as long as that is there, whenever a medium has come or gone.
    pub fn watch<T: Send + Sync + 'static>(&self, who: &Weak<T>, tell: impl Fn(&T) + Send + Sync + 'static) {
        let (known, called) = (who.clone(), who.clone());
        let watcher = Watcher {
            is_there: Box::new(move || known.strong_count() > 0),
            tell: Box::new(move || {
                if let Some(who) = called.upgrade() {
                    tell(&who);
                }
            }),
        };
        let mut watchers = self.watchers.lock();
        // Trays stay when machines are built anew, and their devices do not.
        watchers.retain(|watcher| (watcher.is_there)());
        watchers.push(watcher);
    }

    fn tell(&self) {
        self.watchers.lock().iter().for_each(|watcher| (watcher.tell)());
    }

    /// Puts a medium in, in place of the one that is there, and closes the tray.
    ///
    /// # Errors
    /// The guest holds the one that is there.
    pub fn insert(&self, medium: Arc<dyn Disk>) -> Result<(), Locked> {
        // A drive of the host's keeps what is in it.
        let mechanism = self.take_out(false)?;
        let mut state = self.state.lock();
        state.medium = Some(medium);
        state.open = false;
        state.changes += 1;
        drop(state);
        // Its end may take a moment.
        drop(mechanism);
        self.tell();
        Ok(())
    }

    /// From now on the tray is that of a drive of the host's, which says what is in it by [`Self::follow`].
    pub fn stand_for(&self, mechanism: Arc<dyn Mechanism>) {
        let mut state = self.state.lock();
        state.take_out();
        state.open = false;
        let before = state.mechanism.replace(mechanism);
        drop(state);
        drop(before);
        self.tell();
    }

    /// What is in the host's drive now, and whether its tray is open. Nothing happens if the tray stands for another one.
    pub fn follow(&self, mechanism: &Weak<dyn Mechanism>, medium: Option<Arc<dyn Disk>>, open: bool) {
        let mut state = self.state.lock();
        let mine = state.mechanism.as_ref().map(|mine| Arc::as_ptr(mine).cast::<()>());
        if mine != Some(mechanism.as_ptr().cast()) {
            return;
        }
        if state.medium.is_some() || medium.is_some() {
            state.changes += 1;
        } else if state.open == open {
            return;
        }
        (state.medium, state.open) = (medium, open);
        drop(state);
        self.tell();
    }

    /// Takes the medium out, or has the tray stand for a host's drive no more, without doing anything to that one's medium.
    ///
    /// # Errors
    /// The guest holds it.
    pub fn clear(&self) -> Result<(), Locked> {
        drop(self.take_out(false)?);
        self.tell();
        Ok(())
    }

    /// Takes the medium out. One that the guest holds stays the first time, and the guest is asked.
    ///
    /// # Errors
    /// The guest holds it.
    pub fn eject(&self) -> Result<(), Locked> {
        self.take_out(true)?;
        self.tell();
        Ok(())
    }

    /// Takes the medium out, of the host's drive too if it is to be `kept`; else the tray stands for none any more, which is
    /// returned.
    fn take_out(&self, kept: bool) -> Result<Option<Arc<dyn Mechanism>>, Locked> {
        let mut state = self.state.lock();
        if state.locked && state.medium.is_some() && !state.insisted {
            state.asked = true;
            state.insisted = true;
            return Err(Locked);
        }
        state.take_out();
        match &state.mechanism {
            Some(mechanism) if kept => mechanism.eject(),
            _ => return Ok(state.mechanism.take()),
        }
        Ok(None)
    }

    /// The medium, while the tray is closed.
    pub fn medium(&self) -> Option<Arc<dyn Disk>> {
        let state = self.state.lock();
        if state.open { None } else { state.medium.clone() }
    }

    /// Whether the tray is open.
    pub fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Counts changes of the medium.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// The guest holds the medium, or lets go of it.
    pub fn lock(&self, locked: bool) {
        let mut state = self.state.lock();
        state.locked = locked;
        if locked {
            state.insisted = false;
        }
        if let Some(mechanism) = &state.mechanism {
            mechanism.lock(locked);
        }
    }

    /// Whether the guest holds the medium.
    pub fn is_locked(&self) -> bool {
        self.state.lock().locked
    }

    /// Whether the guest was asked to eject since this was last called.
    pub fn take_request(&self) -> bool {
        std::mem::take(&mut self.state.lock().asked)
    }

    /// The guest opens the tray; whether it could.
    pub fn open(&self) -> bool {
        let mut state = self.state.lock();
        if state.locked {
            return false;
        }
        state.open = true;
        if let Some(mechanism) = &state.mechanism {
            mechanism.eject();
        }
        if state.insisted {
            state.take_out();
        }
        true
    }

    /// The guest closes the tray, with what is in it.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if let Some(mechanism) = &state.mechanism {
            mechanism.close();
        }
        if std::mem::take(&mut state.open) && state.medium.is_some() {
            state.changes += 1;
        }
    }
}

impl State {
    fn take_out(&mut self) {
        if self.medium.take().is_some() {
            self.changes += 1;
        }
        (self.open, self.locked, self.asked, self.insisted) = (true, false, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawDisk;
    use std::io::Write;

    fn medium() -> (tempfile::NamedTempFile, Arc<dyn Disk>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 2048]).unwrap();
        let disk = RawDisk::open(file.path(), true).unwrap();
        (file, Arc::new(disk))
    }

    #[test]
    fn a_medium_comes_and_goes() {
        let tray = Tray::new(None);
        assert!(tray.medium().is_none());
        let (_file, disk) = medium();
        tray.insert(disk).unwrap();
        assert!(tray.medium().is_some() && tray.changes() == 1);
        tray.eject().unwrap();
        assert!(tray.medium().is_none() && tray.is_open() && tray.changes() == 2);
    }

    #[test]
    fn watchers_that_are_gone_are_forgotten() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let tray = Tray::new(None);
        for _ in 0..100 {
            let gone = Arc::new(());
            tray.watch(&Arc::downgrade(&gone), |()| unreachable!("it is gone"));
        }
        let count = Arc::new(AtomicU32::new(0));
        tray.watch(&Arc::downgrade(&count), |count| _ = count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(tray.watchers.lock().len(), 1);
        let (_file, disk) = medium();
        tray.insert(disk).unwrap();
        tray.eject().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_the_guest_holds_is_asked_for_first() {
        let (_file, disk) = medium();
        let tray = Tray::new(Some(disk));
        tray.lock(true);
        assert!(!tray.open());
        assert_eq!(tray.eject(), Err(Locked));
        assert!(tray.medium().is_some());
        assert!(tray.take_request() && !tray.take_request());
        tray.lock(false);
        assert!(tray.open());
        assert!(tray.medium().is_none());
        tray.close();
        assert!(!tray.is_open());
        // Asked for twice it goes in any case.
        let (_file, disk) = medium();
        tray.insert(disk).unwrap();
        tray.lock(true);
        assert_eq!(tray.eject(), Err(Locked));
        assert_eq!(tray.eject(), Ok(()));
        assert!(tray.medium().is_none() && !tray.is_locked());
    }

    #[test]
    fn the_guest_opens_and_closes() {
        let (_file, disk) = medium();
        let tray = Tray::new(Some(disk));
        assert!(tray.open());
        assert!(tray.medium().is_none(), "not while it is open");
        tray.close();
        assert!(tray.medium().is_some() && tray.changes() == 1);
    }
}
