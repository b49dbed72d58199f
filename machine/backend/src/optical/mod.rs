//! The host's optical drives as a guest's: what is in the host's drive is in the guest's, and the guest's commands for the
//! tray go to the host's.
//!
//! [`OpticalDrive`] is a host's drive. A [`Tray`] that stands for one tells it what the guest wants by way of [`Mechanism`],
//! which never waits; a thread carries that out and looks at the drive now and then, for people press its button:
//!
//! ```text
//!   guest --lock, eject, close--> Tray --> Orders --> Follower --ioctls--> drive
//!   guest <------- content ------ Tray <------------- Follower <--state---
//! ```
//!
//! [`Door`] is the drive as the thread sees it: [`kernel`]'s, or a test's.

mod follower;
mod kernel;
mod orders;
#[cfg(test)]
mod tests;

use std::io::Result;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use follower::Follower;
use orders::{Order, Orders};
use parking_lot::{Condvar, Mutex};

use crate::disk::Disk;
use crate::tray::{Ejection, Mechanism, Tray};

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

/// What is between a drive and its thread.
#[derive(Default)]
struct Wanted {
    orders: Orders,
    /// The guest waits for the order that is being carried out.
    moves: bool,
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
        Self::connect_door(path, Box::new(door), tray, INTERVAL, start)
    }

    fn connect_door(
        path: &Path,
        mut door: Box<dyn Door>,
        tray: &Arc<Tray>,
        interval: Duration,
        start: fn(Box<dyn FnOnce() + Send>) -> Result<()>,
    ) -> Result<()> {
        let shared = Arc::new(Shared::default());
        // A tray never stands for a drive that nobody serves: first of all there is a thread, which waits for what it needs.
        let (needed, needs) = mpsc::channel::<(Follower, Box<dyn Door>)>();
        let served = shared.clone();
        start(Box::new(move || {
            if let Ok((mut follower, mut door)) = needs.recv() {
                served.serve(&mut follower, &mut *door, interval);
            }
        }))?;
        let drive: Arc<dyn Mechanism> = Arc::new(Self { shared });
        // What is in it now is there when the machine starts.
        let mut follower = Follower::new(path.display().to_string(), Arc::downgrade(tray), Arc::downgrade(&drive));
        tray.stand_for(drive);
        follower.look(&mut *door);
        // The thread is there, waiting.
        let _ = needed.send((follower, door));
        Ok(())
    }

    fn order<T>(&self, give: impl FnOnce(&mut Orders) -> T) -> T {
        let given = give(&mut self.shared.wanted.lock().orders);
        self.shared.changed.notify_all();
        given
    }
}

/// Starts a drive's thread.
fn start(thread: Box<dyn FnOnce() + Send>) -> Result<()> {
    std::thread::Builder::new().name("optical-drive".into()).spawn(thread).map(drop)
}

impl Shared {
    /// What the thread does, from its beginning to its end.
    fn serve(&self, follower: &mut Follower, door: &mut dyn Door, interval: Duration) {
        // It is set once, here.
        let _ = self.thread.set(std::thread::current().id());
        self.follow(follower, door, interval);
        let mut wanted = self.wanted.lock();
        wanted.done = true;
        // Nobody gives any more.
        while let Some(order) = wanted.orders.next() {
            if let Order::Eject(outcome) = order {
                outcome.tell(Err("the drive has been let go".into()));
            }
        }
        self.changed.notify_all();
    }

    /// Carries out orders and looks at the drive, until nobody wants it any more.
    fn follow(&self, follower: &mut Follower, door: &mut dyn Door, interval: Duration) {
        loop {
            let mut wanted = self.wanted.lock();
            if !wanted.ended && wanted.orders.is_empty() {
                self.changed.wait_for(&mut wanted, interval);
            }
            if wanted.ended {
                break;
            }
            let order = wanted.orders.next();
            wanted.moves = order.as_ref().is_some_and(Order::moves);
            drop(wanted);
            let outcome = order.and_then(|order| follower.carry_out(order, door));
            follower.look(door);
            self.wanted.lock().moves = false;
            if let Some((outcome, result)) = outcome {
                outcome.tell(result.map_err(|error| follower.refusal(&error)));
            }
        }
        follower.let_go(door);
    }
}

impl Mechanism for OpticalDrive {
    fn lock(&self, locked: bool) {
        self.order(|orders| orders.lock(locked));
    }

    fn eject(&self) -> Arc<Ejection> {
        self.order(Orders::eject)
    }

    fn close(&self, moves: bool) {
        self.order(|orders| orders.close(moves));
    }

    fn is_moving(&self) -> bool {
        let wanted = self.shared.wanted.lock();
        wanted.moves || wanted.orders.moves()
    }

    fn is_locking(&self) -> bool {
        self.shared.wanted.lock().orders.locks()
    }
}

impl Drop for OpticalDrive {
    fn drop(&mut self) {
        self.shared.wanted.lock().ended = true;
        self.shared.changed.notify_all();
        // The thread may be the last to hold the tray.
        if self.shared.thread.get() == Some(&std::thread::current().id()) {
            return;
        }
        let until = Instant::now() + LAST;
        let mut wanted = self.shared.wanted.lock();
        while !wanted.done && !self.shared.changed.wait_until(&mut wanted, until).timed_out() {}
    }
}
