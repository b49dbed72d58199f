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
//! of the host's, its [`Mechanism`]: then what the guest does with the tray is ordered from that one, and what the tray
//! holds is what that one says ([`Content`]); until it has done what was ordered, the guest is told to wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::disk::Disk;

/// The guest holds the medium; it has been asked to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest has locked the tray; it has been asked to eject, and a second request takes the medium by force")]
pub struct Locked;

/// Why a medium was not taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EjectError {
    /// The guest holds it.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// A drive of the host's did not open: which, why, and what to do.
    #[error("{0}")]
    Drive(String),
    /// A drive of the host's takes its time.
    #[error("the host's drive has not opened in {} s; it may still do so: ask for the status, or look at it", .0.as_secs())]
    Late(Duration),
    /// Nobody waits for it any more.
    #[error("the request was given up; the host's drive may open all the same")]
    GivenUp,
}

/// A drive of the host's that a tray stands for. Nothing here waits for it; it does what is ordered in turn.
pub trait Mechanism: Send + Sync {
    /// Holds the medium, or lets go of it.
    fn lock(&self, locked: bool);
    /// Opens the tray, whether it is held or not.
    fn eject(&self) -> Arc<Ejection>;
    /// Closes it. `moves`: it is open, or was told to open, as far as the tray knows.
    fn close(&self, moves: bool);
    /// Whether it has still to open or close as it was ordered to.
    fn is_moving(&self) -> bool;
    /// Whether it has still to hold the medium, or to let go of it, as it was ordered to.
    fn is_locking(&self) -> bool;
}

/// What comes of an order to open.
#[derive(Debug, Default)]
pub struct Ejection {
    result: Mutex<Option<Result<(), String>>>,
    told: Condvar,
}

impl Ejection {
    /// How often it is looked whether anybody still waits.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// It was done, or why it was not and what to do, in a line.
    pub fn tell(&self, result: Result<(), String>) {
        *self.result.lock() = Some(result);
        self.told.notify_all();
    }

    /// Whether it has been told.
    #[cfg(test)]
    pub(crate) fn is_told(&self) -> bool {
        self.result.lock().is_some()
    }

    fn wait(&self, limit: Duration, wanted: &dyn Fn() -> bool) -> Result<(), EjectError> {
        let until = Instant::now() + limit;
        let mut result = self.result.lock();
        loop {
            if let Some(result) = &*result {
                return result.clone().map_err(EjectError::Drive);
            }
            if !wanted() {
                return Err(EjectError::GivenUp);
            }
            let now = Instant::now();
            if now >= until {
                return Err(EjectError::Late(limit));
            }
            self.told.wait_until(&mut result, until.min(now + Self::PATIENCE));
        }
    }
}

/// What a drive of the host's has in it.
#[derive(Clone)]
pub enum Content {
    /// Nothing.
    Empty,
    /// Its tray is open.
    Open,
    /// It is looking; what was there may be there still.
    Busy,
    /// A medium that is not the one that was there, of which nothing is known yet.
    Another,
    /// The medium that was there before, if there was one.
    Same,
    /// A medium.
    Medium(Arc<dyn Disk>),
}

/// Why there is no medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is none.
    Empty,
    /// The tray is open.
    Open,
    /// It will turn out: the drive moves or looks.
    NotYet,
}

#[derive(Default)]
struct State {
    mechanism: Option<Arc<dyn Mechanism>>,
    medium: Option<Arc<dyn Disk>>,
    open: bool,
    /// The host's drive looks what is in it.
    busy: bool,
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
        let mechanism = self.take_out()?;
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
        (state.open, state.busy) = (false, false);
        let before = state.mechanism.replace(mechanism);
        drop(state);
        drop(before);
        self.tell();
    }

    /// What is in the host's drive now. Nothing happens if the tray stands for another one.
    pub fn follow(&self, mechanism: &Weak<dyn Mechanism>, content: Content) {
        let mut state = self.state.lock();
        if state.mechanism_that_is(mechanism).is_none() {
            return;
        }
        let before = (state.changes, state.open);
        if matches!(content, Content::Empty | Content::Open | Content::Another) && state.medium.take().is_some() {
            state.changes += 1;
        }
        match &content {
            Content::Empty | Content::Open => {
                // What the guest was asked for, or was not, has been done.
                (state.asked, state.insisted) = (false, false);
            }
            Content::Medium(medium) => {
                state.medium = Some(medium.clone());
                state.changes += 1;
            }
            Content::Busy | Content::Another | Content::Same => {}
        }
        state.open = matches!(content, Content::Open);
        state.busy = matches!(content, Content::Busy | Content::Another);
        let changed = before != (state.changes, state.open);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// The host's drive has opened as it was ordered to, held or not: it holds nothing any more, and nor does the guest, but
    /// for one that has said otherwise since. Nothing happens if the tray stands for another one.
    pub fn opened(&self, mechanism: &Weak<dyn Mechanism>) {
        let mut state = self.state.lock();
        let Some(mechanism) = state.mechanism_that_is(mechanism) else { return };
        // Orders for the lock are given with the state at hand: none comes in between.
        state.locked &= mechanism.is_locking();
        (state.asked, state.insisted) = (false, false);
    }

    /// Takes the medium out, or has the tray stand for a host's drive no more, without doing anything to that one's medium.
    ///
    /// # Errors
    /// The guest holds it.
    pub fn clear(&self) -> Result<(), Locked> {
        drop(self.take_out()?);
        self.tell();
        Ok(())
    }

    /// Takes the medium out. One that the guest holds stays the first time, and the guest is asked. A drive of the host's is
    /// told to open.
    ///
    /// # Errors
    /// The guest holds it.
    pub fn eject(&self) -> Result<(), Locked> {
        self.order_out().map(drop)
    }

    /// The same, and waits so long until a drive of the host's has opened, or `wanted` says that nobody waits for that.
    ///
    /// # Errors
    /// The guest holds the medium, the drive did not open, or not yet.
    pub fn eject_and_wait(&self, limit: Duration, wanted: &dyn Fn() -> bool) -> Result<(), EjectError> {
        self.order_out()?.map_or(Ok(()), |outcome| outcome.wait(limit, wanted))
    }

    fn order_out(&self) -> Result<Option<Arc<Ejection>>, Locked> {
        let mut state = self.state.lock();
        state.ask()?;
        if let Some(mechanism) = state.mechanism.clone() {
            // The medium is there until the drive says that it is not, and held until that one has opened.
            return Ok(Some(mechanism.eject()));
        }
        state.take_out();
        drop(state);
        self.tell();
        Ok(None)
    }

    /// Takes the medium out; the tray stands for no drive of the host's any more, which is returned.
    fn take_out(&self) -> Result<Option<Arc<dyn Mechanism>>, Locked> {
        let mut state = self.state.lock();
        state.ask()?;
        state.take_out();
        Ok(state.mechanism.take())
    }

    /// The medium, if it can be read.
    ///
    /// # Errors
    /// Why there is none.
    pub fn ready(&self) -> Result<Arc<dyn Disk>, Absent> {
        let state = self.state.lock();
        if state.busy || state.is_moving() {
            return Err(Absent::NotYet);
        }
        if state.open {
            return Err(Absent::Open);
        }
        state.medium.clone().ok_or(Absent::Empty)
    }

    /// The medium, while the tray is closed and at rest.
    pub fn medium(&self) -> Option<Arc<dyn Disk>> {
        self.ready().ok()
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

    /// The guest opens the tray; whether it could. That of a drive of the host's opens in a while.
    pub fn open(&self) -> bool {
        let mut state = self.state.lock();
        if state.locked {
            return false;
        }
        if let Some(mechanism) = &state.mechanism {
            mechanism.eject();
            return true;
        }
        state.open = true;
        if state.insisted {
            state.take_out();
        }
        true
    }

    /// The guest closes the tray, with what is in it. That of a drive of the host's closes in a while.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if let Some(mechanism) = &state.mechanism {
            mechanism.close(state.open || mechanism.is_moving());
            return;
        }
        if std::mem::take(&mut state.open) && state.medium.is_some() {
            state.changes += 1;
        }
    }
}

impl State {
    /// Whoever wants the medium may have it, or has to ask once more.
    fn ask(&mut self) -> Result<(), Locked> {
        if self.locked && self.medium.is_some() && !self.insisted {
            self.asked = true;
            self.insisted = true;
            return Err(Locked);
        }
        Ok(())
    }

    fn take_out(&mut self) {
        if self.medium.take().is_some() {
            self.changes += 1;
        }
        self.open = true;
        (self.busy, self.locked, self.asked, self.insisted) = Default::default();
    }

    /// The drive that the tray stands for, if it is this one.
    fn mechanism_that_is(&self, this: &Weak<dyn Mechanism>) -> Option<Arc<dyn Mechanism>> {
        let mine = self.mechanism.as_ref()?;
        std::ptr::addr_eq(Arc::as_ptr(mine), this.as_ptr()).then(|| mine.clone())
    }

    fn is_moving(&self) -> bool {
        self.mechanism.as_ref().is_some_and(|mechanism| mechanism.is_moving())
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
