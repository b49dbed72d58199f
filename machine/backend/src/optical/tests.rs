use std::io::Write;

use super::*;
use crate::RawDisk;

/// A drive that others look at.
#[derive(Default)]
struct Fake {
    presence: Mutex<Option<Presence>>,
    size: Mutex<usize>,
    changed: Mutex<bool>,
    stuck: Mutex<bool>,
    log: Mutex<Vec<String>>,
}

struct Handle(Arc<Fake>);

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
        self.log.lock().iter().any(|line| line == text)
    }
}

impl Door for Handle {
    fn presence(&mut self) -> Result<Presence> {
        self.0.presence.lock().ok_or(std::io::ErrorKind::NotFound.into())
    }
    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut *self.0.changed.lock())
    }
    fn medium(&mut self) -> Result<Arc<dyn Disk>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&vec![7; *self.0.size.lock()])?;
        let disk = RawDisk::open(file.path(), true).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Arc::new(disk))
    }
    fn lock(&mut self, locked: bool) -> Result<()> {
        self.0.note(format!("lock {locked}"))
    }
    fn eject(&mut self) -> Result<()> {
        if *self.0.stuck.lock() {
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        *self.0.presence.lock() = Some(Presence::Open);
        self.0.note("eject")
    }
    fn close(&mut self) -> Result<()> {
        self.0.load(Presence::Loaded, 4096);
        self.0.note("close")
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "nothing happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rig(presence: Presence) -> (Arc<Fake>, Arc<Tray>) {
    let fake = Arc::new(Fake::default());
    fake.load(presence, 2048);
    let tray = Tray::new(None);
    OpticalDrive::connect_door(Box::new(Handle(fake.clone())), &tray, Duration::from_millis(1)).unwrap();
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
    wait_for(|| fake.has("eject"));
    assert!(tray.medium().is_none() && tray.is_open());
    tray.close();
    wait_for(|| fake.has("close") && size(&tray) == Some(4096));
}

#[test]
fn a_drive_that_does_not_open_keeps_its_medium() {
    let (fake, tray) = rig(Presence::Loaded);
    *fake.stuck.lock() = true;
    assert!(tray.open());
    wait_for(|| size(&tray) == Some(2048) && !tray.is_open());
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
