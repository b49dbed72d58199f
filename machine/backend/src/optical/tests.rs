use std::io::Write;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::orders::Order;
use super::*;
use crate::tray::{Absent, EjectError};
use crate::{Locked, RawDisk};

/// A drive that others look at.
#[derive(Default)]
struct Fake {
    presence: Mutex<Option<Presence>>,
    size: Mutex<usize>,
    changed: Mutex<bool>,
    stuck: Mutex<bool>,
    /// Locks and unlocks fail.
    jammed: Mutex<bool>,
    /// Somebody puts in another disc as soon as it opens.
    refilled: Mutex<bool>,
    /// Held while the drive shall take its time with what it does.
    slow: Mutex<()>,
    /// How often it was looked at.
    looks: Mutex<u64>,
    log: Mutex<Vec<String>>,
}

struct Handle(Arc<Fake>);

/// How long anything is waited for that comes.
const LONG: Duration = Duration::from_secs(20);

impl Fake {
    fn note(&self, text: impl Into<String>) -> Result<()> {
        self.log.lock().push(text.into());
        Ok(())
    }

    fn load(&self, presence: Presence, size: usize) {
        (*self.size.lock(), *self.changed.lock()) = (size, true);
        *self.presence.lock() = Some(presence);
    }

    fn has(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    fn count(&self, text: &str) -> usize {
        self.log.lock().iter().filter(|line| *line == text).count()
    }

    /// Waits for what the drive may still have to do: until it has been looked at some more.
    fn settle(&self) {
        let from = *self.looks.lock();
        wait_for(|| *self.looks.lock() > from + 5);
    }
}

impl Door for Handle {
    fn presence(&mut self) -> Result<Presence> {
        *self.0.looks.lock() += 1;
        self.0.presence.lock().ok_or(std::io::ErrorKind::NotFound.into())
    }
    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut *self.0.changed.lock())
    }
    fn medium(&mut self) -> Result<Arc<dyn Disk>> {
        let size = *self.0.size.lock();
        self.0.note(format!("medium {size}"))?;
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&vec![7; size])?;
        let disk = RawDisk::open(file.path(), true).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Arc::new(disk))
    }
    fn lock(&mut self, locked: bool) -> Result<()> {
        drop(self.0.slow.lock());
        if *self.0.jammed.lock() {
            self.0.note(format!("no lock {locked}"))?;
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        self.0.note(format!("lock {locked}"))
    }
    fn eject(&mut self) -> Result<()> {
        drop(self.0.slow.lock());
        if *self.0.stuck.lock() {
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        match *self.0.refilled.lock() {
            true => self.0.load(Presence::Loaded, 8192),
            false => *self.0.presence.lock() = Some(Presence::Open),
        }
        self.0.note("eject")
    }
    fn close(&mut self) -> Result<()> {
        if *self.0.presence.lock() == Some(Presence::Open) {
            self.0.load(Presence::Loaded, 4096);
        }
        self.0.note("close")
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    lodge_trial::wait_for("anything", condition);
}

fn rig(presence: Presence) -> (Arc<Fake>, Arc<Tray>) {
    let fake = Arc::new(Fake::default());
    fake.load(presence, 2048);
    let tray = Tray::new(None);
    let door = Box::new(Handle(fake.clone()));
    OpticalDrive::connect_door(Path::new("/dev/sr9"), door, &tray, Duration::from_millis(1), start).unwrap();
    (fake, tray)
}

fn size(tray: &Tray) -> Option<u64> {
    tray.medium().map(|medium| medium.size())
}

#[test]
fn what_is_in_the_drive_is_in_the_tray() {
    let (fake, tray) = rig(Presence::Loaded);
    assert_eq!(size(&tray), Some(2048), "from the first");
    let changes = tray.changes();
    fake.load(Presence::Loaded, 6144);
    wait_for(|| size(&tray) == Some(6144));
    assert!(tray.changes() > changes, "the guest is told");
    fake.load(Presence::Open, 0);
    wait_for(|| size(&tray).is_none() && tray.is_open());
    fake.load(Presence::NotReady, 0);
    fake.load(Presence::Loaded, 512);
    wait_for(|| size(&tray) == Some(512) && !tray.is_open());
    // A drive that is unplugged, and one with a medium that cannot be read.
    *fake.presence.lock() = None;
    wait_for(|| size(&tray).is_none());
    fake.load(Presence::Loaded, 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(size(&tray), None);
}

#[test]
fn an_empty_drive_is_empty() {
    let (fake, tray) = rig(Presence::Empty);
    assert!(tray.medium().is_none() && !tray.is_open());
    fake.load(Presence::Loaded, 2048);
    wait_for(|| size(&tray) == Some(2048));
}

#[test]
fn the_guests_commands_are_the_drives() {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    assert!(!tray.open(), "it is held");
    tray.lock(false);
    wait_for(|| fake.has("lock false"));
    assert!(tray.open());
    assert!(tray.medium().is_none(), "not while it moves");
    wait_for(|| tray.is_open());
    assert!(fake.has("eject"));
    tray.close();
    wait_for(|| fake.has("close") && size(&tray) == Some(4096));
}

#[test]
fn a_drive_that_does_not_open_keeps_its_medium() {
    let (fake, tray) = rig(Presence::Loaded);
    *fake.stuck.lock() = true;
    let changes = tray.changes();
    assert!(tray.open());
    assert_eq!(tray.ready().err(), Some(Absent::NotYet), "until it is known what comes of it");
    wait_for(|| size(&tray) == Some(2048));
    assert!(!tray.is_open() && tray.changes() == changes, "it was there all the time");
    // Nor by force, and then the guest holds it as before.
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    assert!(tray.eject().is_err());
    tray.eject().unwrap();
    wait_for(|| fake.count("lock true") == 2);
    assert!(tray.is_locked() && size(&tray) == Some(2048) && tray.changes() == changes);
}

#[test]
fn from_outside_it_is_asked_for_and_then_taken() {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    assert!(tray.eject().is_err() && tray.take_request());
    tray.eject().unwrap();
    wait_for(|| fake.has("eject"));
    assert!(fake.has("lock false"), "before it opens");
    assert!(tray.medium().is_none());
    wait_for(|| tray.is_open());
    assert!(!tray.is_locked());
}

/// A drive whose disc the guest holds.
fn held() -> (Arc<Fake>, Arc<Tray>) {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    (fake, tray)
}

#[test]
fn what_was_not_taken_by_force_stays_held_when_it_is_gone_for_a_moment() {
    let (fake, tray) = held();
    *fake.stuck.lock() = true;
    assert!(tray.eject().is_err());
    assert!(matches!(tray.eject_and_wait(LONG, &|| true), Err(EjectError::Drive(_))));
    for gone in [None, Some(Presence::Empty), Some(Presence::Open)] {
        *fake.presence.lock() = gone;
        wait_for(|| size(&tray).is_none());
        let locks = fake.count("lock true");
        fake.load(Presence::Loaded, 2048);
        wait_for(|| size(&tray) == Some(2048) && fake.count("lock true") > locks);
        assert!(tray.is_locked(), "as the drive holds it: {gone:?}");
    }
}

#[test]
fn what_was_taken_by_force_is_not_held_however_soon_another_comes() {
    let (fake, tray) = held();
    *fake.refilled.lock() = true;
    assert!(tray.eject().is_err());
    tray.eject_and_wait(LONG, &|| true).unwrap();
    assert_eq!(size(&tray), Some(8192));
    fake.settle();
    assert_eq!((tray.is_locked(), fake.count("lock true")), (false, 1));
    assert!(!tray.take_request(), "that one it was asked for is out");
    tray.lock(true);
    wait_for(|| fake.count("lock true") == 2);
    assert!(tray.is_locked());
}

#[test]
fn what_the_guest_holds_anew_while_the_drive_opens_is_held() {
    let (fake, tray) = held();
    let slow = fake.slow.lock();
    assert!(tray.eject().is_err());
    tray.eject().unwrap();
    tray.lock(true);
    drop(slow);
    wait_for(|| tray.is_open());
    fake.load(Presence::Loaded, 1024);
    wait_for(|| size(&tray) == Some(1024) && fake.count("lock true") == 2);
    assert!(tray.is_locked());
}

#[test]
fn what_may_have_been_let_go_is_held_again() {
    let (fake, tray) = held();
    (*fake.jammed.lock(), *fake.stuck.lock()) = (true, true);
    assert!(tray.eject().is_err());
    assert!(matches!(tray.eject_and_wait(LONG, &|| true), Err(EjectError::Drive(_))));
    *fake.jammed.lock() = false;
    wait_for(|| fake.count("lock true") == 2);
    fake.settle();
    assert_eq!((fake.count("lock true"), fake.count("lock false"), tray.is_locked()), (2, 0, true));
}

#[test]
fn without_a_thread_nothing_happens_to_the_tray() {
    let fake = Arc::new(Fake::default());
    fake.load(Presence::Loaded, 2048);
    let image = Handle(fake.clone()).medium().unwrap();
    let tray = Tray::new(Some(image));
    let door = || Box::new(Handle(fake.clone()));
    let fails = |_: Box<dyn FnOnce() + Send>| Err(std::io::ErrorKind::WouldBlock.into());
    let connect = |start| OpticalDrive::connect_door(Path::new("/dev/sr9"), door(), &tray, INTERVAL, start);
    let begin = Instant::now();
    assert_eq!(connect(fails).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(begin.elapsed() < LAST, "it waited for a thread that is not there");
    assert_eq!((size(&tray), tray.changes(), *fake.looks.lock()), (Some(2048), 0, 0));
    // Its commands are nobody else's.
    assert!(tray.open() && tray.is_open());
    tray.close();
    assert!(tray.ready().is_ok() && Arc::strong_count(&fake) == 1);
    connect(start).unwrap();
    assert_eq!((size(&tray), *fake.looks.lock() > 0), (Some(2048), true));
}

#[test]
fn an_image_takes_the_drives_place_and_its_tray_is_let_go() {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    let image = Handle(fake.clone()).medium().unwrap();
    assert!(tray.insert(image.clone()).is_err());
    tray.insert(image).unwrap();
    assert!(fake.has("lock false") && !fake.has("eject"), "{:?}", fake.log.lock());
    assert_eq!(size(&tray), Some(2048));
    fake.load(Presence::Empty, 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(size(&tray), Some(2048), "what becomes of the drive is of no interest");
    tray.eject().unwrap();
    assert!(!fake.has("eject"));
}

#[test]
fn the_end_of_the_tray_lets_go_of_the_drive() {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    drop(tray);
    assert!(fake.has("lock false"));
}

#[test]
fn an_order_to_close_a_closed_tray_changes_nothing() {
    let (fake, tray) = rig(Presence::Loaded);
    let changes = tray.changes();
    for time in 1..4 {
        tray.close();
        assert!(tray.medium().is_some(), "it is there all the while");
        wait_for(|| fake.count("close") == time);
    }
    fake.settle();
    assert_eq!((tray.changes(), size(&tray)), (changes, Some(2048)));
}

#[test]
fn orders_are_carried_out_in_turn() {
    let (fake, tray) = rig(Presence::Loaded);
    let slow = fake.slow.lock();
    tray.lock(true);
    tray.lock(false);
    assert!(tray.open());
    tray.lock(true);
    tray.close();
    drop(slow);
    wait_for(|| fake.log.lock().last().is_some_and(|last| last == "lock true") && size(&tray) == Some(4096));
    let log = fake.log.lock().clone();
    let at = |text: &str| log.iter().position(|line| line == text).unwrap();
    assert!(at("eject") < at("close") && at("close") < log.len() - 1, "{log:?}");
}

#[test]
fn a_guest_that_never_stops_ordering_fills_no_memory() {
    let (fake, tray) = rig(Presence::Loaded);
    let slow = fake.slow.lock();
    for _ in 0..10_000 {
        tray.lock(true);
        tray.lock(false);
        tray.open();
        tray.close();
    }
    tray.open();
    tray.lock(true);
    drop(slow);
    wait_for(|| tray.is_open());
    fake.settle();
    assert!(tray.is_open() && fake.log.lock().len() < 100, "the last order counts");
    tray.close();
    wait_for(|| fake.log.lock().last().is_some_and(|last| last == "lock true"));
}

#[test]
fn a_lock_that_fails_is_tried_again() {
    let (fake, tray) = rig(Presence::Loaded);
    *fake.jammed.lock() = true;
    tray.lock(true);
    wait_for(|| fake.count("no lock true") > 3);
    *fake.jammed.lock() = false;
    wait_for(|| fake.has("lock true"));
    *fake.jammed.lock() = true;
    tray.lock(false);
    wait_for(|| fake.count("no lock false") > 3);
    *fake.jammed.lock() = false;
    wait_for(|| fake.has("lock false"));
    fake.settle();
    assert_eq!((fake.count("lock true"), fake.count("lock false")), (1, 1));
}

#[test]
fn who_asks_for_a_medium_waits_until_the_drive_has_opened() {
    let (fake, tray) = rig(Presence::Loaded);
    let slow = fake.slow.lock();
    let short = Duration::from_millis(20);
    assert_eq!(tray.eject_and_wait(short, &|| true), Err(EjectError::Late(short)));
    assert_eq!(tray.eject_and_wait(LONG, &|| false), Err(EjectError::GivenUp));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| tray.eject_and_wait(LONG, &|| true));
        std::thread::sleep(short);
        assert!(!waits.is_finished());
        drop(slow);
        assert_eq!(waits.join().unwrap(), Ok(()));
        assert!(tray.is_open(), "and the tray knows");
    });
    tray.close();
    wait_for(|| size(&tray) == Some(4096));
    *fake.stuck.lock() = true;
    let Err(EjectError::Drive(text)) = tray.eject_and_wait(LONG, &|| true) else { panic!() };
    let expected = "the drive /dev/sr9 can't be opened: resource busy; see what uses it with `fuser -v /dev/sr9`";
    assert_eq!((text.as_str(), size(&tray)), (expected, Some(4096)));
    tray.lock(true);
    assert_eq!(tray.eject_and_wait(LONG, &|| true), Err(EjectError::Locked(Locked)));
    // One that goes away does not leave anybody waiting.
    let slow = fake.slow.lock();
    let drive = tray.clone();
    let waits = std::thread::spawn(move || drive.eject_and_wait(LONG, &|| true));
    let image = Handle(fake.clone()).medium().unwrap();
    let taken = std::thread::spawn(move || tray.insert(image).unwrap());
    std::thread::sleep(short);
    drop(slow);
    assert_ne!(waits.join().unwrap(), Err(EjectError::Late(LONG)));
    taken.join().unwrap();
}

#[test]
fn few_orders_wait_and_those_who_wait_for_others_are_told() {
    let mut orders = Orders::default();
    orders.lock(true);
    let outcome = orders.eject();
    assert!(Arc::ptr_eq(&outcome, &orders.eject()), "the same again is the same");
    for _ in 0..1000 {
        orders.close(false);
        orders.lock(false);
        orders.eject();
        orders.lock(true);
    }
    orders.close(true);
    let left: Vec<_> = std::iter::from_fn(|| orders.next()).collect();
    assert!(left.len() < 20, "{left:?}");
    assert!(matches!(left[left.len() - 2..], [Order::Lock(true), Order::Close { moves: true }]), "{left:?}");
    assert!(outcome.is_told(), "that nothing comes of it");
}

#[test]
fn a_drive_that_looks_has_the_guest_wait() {
    let (fake, tray) = rig(Presence::NotReady);
    assert_eq!(tray.ready().err(), Some(Absent::NotYet), "from the first");
    fake.load(Presence::Loaded, 2048);
    wait_for(|| size(&tray) == Some(2048));
    let changes = tray.changes();
    *fake.presence.lock() = Some(Presence::NotReady);
    wait_for(|| tray.ready().err() == Some(Absent::NotYet));
    *fake.presence.lock() = Some(Presence::Loaded);
    wait_for(|| size(&tray) == Some(2048));
    assert_eq!(tray.changes(), changes, "it is the same disc");
    fake.load(Presence::NotReady, 0);
    wait_for(|| tray.ready().err() == Some(Absent::NotYet));
    fake.load(Presence::Loaded, 1024);
    wait_for(|| size(&tray) == Some(1024));
    assert!(tray.changes() > changes, "it is another one");
    fake.load(Presence::Open, 0);
    wait_for(|| tray.ready().err() == Some(Absent::Open));
    fake.load(Presence::Empty, 0);
    wait_for(|| tray.ready().err() == Some(Absent::Empty));
}

#[test]
fn a_disc_that_cannot_be_read_is_tried_for_a_while() {
    let (fake, tray) = rig(Presence::Loaded);
    fake.load(Presence::Loaded, 0);
    wait_for(|| tray.ready().err() == Some(Absent::Empty));
    fake.settle();
    let tries = fake.count("medium 0");
    assert!((2..20).contains(&tries), "{tries}");
    fake.settle();
    assert_eq!(fake.count("medium 0"), tries, "no more");
    fake.load(Presence::Loaded, 512);
    wait_for(|| size(&tray) == Some(512));
}

#[test]
fn what_the_guest_holds_is_held_when_it_is_there_again() {
    let (fake, tray) = rig(Presence::Loaded);
    tray.lock(true);
    wait_for(|| fake.has("lock true"));
    // Unplugged: nothing can be held, and nothing was let go.
    *fake.presence.lock() = None;
    wait_for(|| size(&tray).is_none());
    fake.load(Presence::Loaded, 2048);
    wait_for(|| size(&tray) == Some(2048) && fake.count("lock true") == 2);
    // Someone has opened it all the same.
    fake.load(Presence::Open, 0);
    wait_for(|| fake.has("lock false"));
    fake.load(Presence::Loaded, 1024);
    wait_for(|| size(&tray) == Some(1024) && fake.count("lock true") == 3);
    assert!(tray.is_locked());
}

/// Counts what is said.
struct Listener(Arc<AtomicUsize>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn what_fails_again_and_again_is_said_once() {
    let said = Arc::new(AtomicUsize::new(0));
    let count = || said.swap(0, Ordering::SeqCst);
    tracing::subscriber::with_default(Listener(said.clone()), || {
        let fake = Arc::new(Fake::default());
        fake.load(Presence::Loaded, 2048);
        let mut door = Handle(fake.clone());
        let tray = Tray::new(None);
        let shared = Arc::<Shared>::default();
        // It has no thread that its end would wait for.
        shared.wanted.lock().done = true;
        let drive: Arc<dyn Mechanism> = Arc::new(OpticalDrive { shared });
        let mut follower = Follower::new("/dev/sr9".into(), Arc::downgrade(&tray), Arc::downgrade(&drive));
        let eject = || Order::Eject(Arc::default());
        follower.look(&mut door);
        assert_eq!(count(), 0);
        *fake.stuck.lock() = true;
        for _ in 0..100 {
            follower.carry_out(eject(), &mut door);
            follower.look(&mut door);
        }
        assert_eq!(count(), 1);
        *fake.stuck.lock() = false;
        follower.carry_out(eject(), &mut door);
        *fake.stuck.lock() = true;
        follower.carry_out(eject(), &mut door);
        assert_eq!(count(), 1, "it had worked meanwhile");
        fake.load(Presence::Loaded, 2048);
        *fake.jammed.lock() = true;
        follower.carry_out(Order::Lock(true), &mut door);
        (0..100).for_each(|_| follower.look(&mut door));
        assert_eq!(count(), 1);
        *fake.presence.lock() = None;
        (0..100).for_each(|_| follower.look(&mut door));
        assert_eq!(count(), 1);
    });
}
