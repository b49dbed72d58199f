//! The host's optical drives as a guest's: what is in the host's drive is in the guest's, and the guest's commands for the
//! tray go to the host's.
//!
//! [`OpticalDrive`] is a host's drive. A [`Tray`] that stands for one tells it what the guest wants by way of [`Mechanism`],
//! which never waits; a thread carries that out and looks at the drive now and then, for people press its button:
//!
//! ```text
//!   guest --lock, eject, close--> Tray --> Wanted --> thread --ioctls--> drive
//!   guest <-------- medium ------ Tray <------------- thread <--state---
//! ```
//!
//! [`Door`] is the drive as the thread sees it: [`kernel`]'s, or a test's.

mod kernel;
#[cfg(test)]
mod tests;

use std::io::Result;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::disk::Disk;
use crate::tray::{Mechanism, Tray};

/// How often the drive is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long the end of a drive waits for its thread, which lets go of the tray.
const LAST: Duration = Duration::from_secs(2);

/// What is in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Nothing.
    Empty,
    /// Its tray is open.
    Open,
    /// It is looking.
    NotReady,
    /// A medium.
    Loaded,
}

/// A drive of the host's. May wait for it.
trait Door: Send {
    fn presence(&mut self) -> Result<Presence>;
    /// Whether the medium is another one than when this was last asked.
    fn is_changed(&mut self) -> bool;
    /// The medium that is there.
    fn medium(&mut self) -> Result<Arc<dyn Disk>>;
    fn lock(&mut self, locked: bool) -> Result<()>;
    fn eject(&mut self) -> Result<()>;
    fn close(&mut self) -> Result<()>;
}

/// What the guest wants that has not been done yet: the last of each counts.
#[derive(Default)]
struct Wanted {
    lock: Option<bool>,
    /// The tray shall be open, or closed.
    open: Option<bool>,
    /// Nobody wants anything any more.
    ended: bool,
    /// The thread is done.
    done: bool,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    thread: OnceLock<ThreadId>,
}

/// A host's optical drive.
pub struct OpticalDrive {
    shared: Arc<Shared>,
}

impl OpticalDrive {
    /// Whether `path` is an optical drive.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn is_at(path: &Path) -> Result<bool> {
        Ok(kernel::Kernel::open(path)?.is_some())
    }

    /// Has `tray` stand for the drive at `path`. What it held goes away.
    ///
    /// # Errors
    /// There is no such drive, or the host gives no thread.
    pub fn connect(path: &Path, tray: &Arc<Tray>) -> Result<()> {
        let door = kernel::Kernel::open(path)?.ok_or(std::io::ErrorKind::InvalidInput)?;
        Self::connect_door(Box::new(door), tray, INTERVAL)
    }

    fn connect_door(mut door: Box<dyn Door>, tray: &Arc<Tray>, interval: Duration) -> Result<()> {
        let shared = Arc::new(Shared::default());
        let drive: Arc<dyn Mechanism> = Arc::new(Self { shared: shared.clone() });
        // What is in it now is there when the machine starts.
        let mut follower = Follower { tray: Arc::downgrade(tray), drive: Arc::downgrade(&drive), seen: None };
        tray.stand_for(drive);
        follower.look(&mut *door);
        let serve = move || {
            // It is set once, here.
            let _ = shared.thread.set(std::thread::current().id());
            follower.serve(&shared, &mut *door, interval);
            shared.wanted.lock().done = true;
            shared.changed.notify_all();
        };
        std::thread::Builder::new().name("optical-drive".into()).spawn(serve).map(drop)
    }

    fn want(&self, set: impl FnOnce(&mut Wanted)) {
        set(&mut self.shared.wanted.lock());
        self.shared.changed.notify_all();
    }
}

impl Mechanism for OpticalDrive {
    fn lock(&self, locked: bool) {
        self.want(|wanted| wanted.lock = Some(locked));
    }

    fn eject(&self) {
        self.want(|wanted| wanted.open = Some(true));
    }

    fn close(&self) {
        self.want(|wanted| wanted.open = Some(false));
    }
}

impl Drop for OpticalDrive {
    fn drop(&mut self) {
        self.want(|wanted| wanted.ended = true);
        // The thread may be the last to hold the tray.
        if self.shared.thread.get() == Some(&std::thread::current().id()) {
            return;
        }
        let until = Instant::now() + LAST;
        let mut wanted = self.shared.wanted.lock();
        while !wanted.done && !self.shared.changed.wait_until(&mut wanted, until).timed_out() {}
    }
}

/// What the thread knows.
struct Follower {
    tray: Weak<Tray>,
    drive: Weak<dyn Mechanism>,
    /// What the tray was told last.
    seen: Option<Presence>,
}

impl Follower {
    fn serve(&mut self, shared: &Shared, door: &mut dyn Door, interval: Duration) {
        let mut locked = false;
        loop {
            let mut wanted = shared.wanted.lock();
            if !wanted.ended && wanted.lock.is_none() && wanted.open.is_none() {
                shared.changed.wait_for(&mut wanted, interval);
            }
            let Wanted { lock, open, ended, .. } = std::mem::take(&mut *wanted);
            wanted.ended = ended;
            drop(wanted);
            if ended {
                break;
            }
            if let Some(lock) = lock.filter(|lock| *lock != locked) {
                locked = lock;
                told("locked or unlocked", door.lock(lock));
            }
            if let Some(open) = open {
                if open {
                    // A tray that is held does not open; that it may the guest has seen to before.
                    told("opened", door.lock(false).and_then(|()| door.eject()));
                    locked = false;
                } else {
                    told("closed", door.close());
                }
                // Whatever became of it the tray is told.
                self.seen = None;
            }
            self.look(door);
        }
        if locked {
            told("unlocked", door.lock(false));
        }
    }

    /// Tells the tray what is in the drive, if that is new.
    fn look(&mut self, door: &mut dyn Door) {
        // A drive that is gone has no medium, either.
        let mut now = door.presence().unwrap_or(Presence::Empty);
        let changed = now == Presence::Loaded && door.is_changed();
        if self.seen == Some(now) && !changed {
            return;
        }
        let Some(tray) = self.tray.upgrade() else { return };
        if now == Presence::NotReady {
            // One that was there may be spinning up again; one that comes is waited for.
            return;
        }
        // The old one is let go before the new one is opened.
        if self.seen == Some(Presence::Loaded) {
            tray.follow(&self.drive, None, false);
        }
        let medium = if now == Presence::Loaded { door.medium().ok() } else { None };
        if now == Presence::Loaded && medium.is_none() {
            now = Presence::Empty;
        }
        tray.follow(&self.drive, medium, now == Presence::Open);
        self.seen = Some(now);
    }
}

fn told(what: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!("the host's optical drive can't be {what}: {error}");
    }
}
