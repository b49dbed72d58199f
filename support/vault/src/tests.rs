//! Files as they should be, and as they should not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;

const IDENTITY: Identity = [7; 32];
const LIMITS: Limits = Limits { file: 8 << 20, folder: 32 << 20 };

struct Home {
    _scratch: TempDir,
    path: PathBuf,
}

impl Home {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("a/b");
        Self { _scratch: scratch, path }
    }

    fn folder(&self) -> Arc<Folder> {
        Arc::new(Folder::open(&self.path).unwrap())
    }

    fn file(&self) -> PathBuf {
        self.path.join("x.vault")
    }

    fn writer(&self) -> Writer {
        Writer::new(self.folder(), "x", IDENTITY, LIMITS)
    }

    fn open(&self) -> Result<Option<Vault>, Problem> {
        Vault::open(&self.folder(), "x", &IDENTITY)
    }

    /// A file with `count` records.
    fn fill(&self, count: u64) {
        let mut writer = self.writer();
        for n in 0..count {
            assert!(writer.add(key(n), &record(n)));
        }
        assert_eq!(writer.finish(None).unwrap(), Outcome::Made(count as usize));
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(&self.path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn key(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn record(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + n as usize % 60)
}

/// Whether record `n` can be read, and is what was written.
fn has(vault: &mut Vault, n: u64) -> bool {
    let places: Vec<_> = vault.find(key(n)).collect();
    let found = places.into_iter().filter_map(|place| Some((place, vault.record(place)?.to_vec()))).next();
    found.is_some_and(|(place, bytes)| {
        assert_eq!(bytes, record(n));
        vault.note_use(place);
        true
    })
}

#[test]
fn records_are_found_again() {
    let home = Home::new();
    assert!(home.open().unwrap().is_none());
    home.fill(5000);
    let mut vault = home.open().unwrap().unwrap();
    assert_eq!(vault.len(), 5000);
    assert!((0..5000).all(|n| has(&mut vault, n)));
    assert!((5000..9000).all(|n| vault.find(key(n)).next().is_none()));
    assert_eq!(vault.damaged(), 0);
    assert_eq!(home.names(), ["key", "lock", "x.vault"]);
    let mode = std::fs::metadata(home.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&home.path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn records_are_written_in_place_and_counted_by_the_front_of_their_number() {
    let home = Home::new();
    let mut writer = home.writer();
    for n in 0..30 {
        let add = |out: &mut Vec<u8>| {
            out.extend_from_slice(&record(n));
            n % 3 != 0
        };
        // Three numbers to a front, of which the first is not kept in the end.
        assert_eq!(writer.add_with((n / 3) << 32 | n, add), n % 3 != 0);
    }
    writer.finish(None).unwrap();
    let mut vault = home.open().unwrap().unwrap();
    assert_eq!(vault.len(), 20);
    for front in 0..10 {
        let key = front << 32;
        assert!(vault.has_like(key, 32, 0) && vault.has_like(key | 77, 32, 2) && !vault.has_like(key, 32, 3));
        let place = vault.find(key | (3 * front + 1)).next().unwrap();
        let length = record(3 * front + 1).len();
        assert_eq!(vault.record(place), Some(&*record(3 * front + 1)));
        assert_eq!(vault.record(Vault::after(place, length)), Some(&*record(3 * front + 2)));
    }
    assert!(!vault.has_like(10 << 32, 32, 1));
}

#[test]
fn many_chunks_pass_through_memory() {
    let home = Home::new();
    let mut writer = home.writer();
    let big = |n: u64| vec![n as u8; 40_000];
    (0..200).for_each(|n| assert!(writer.add(n, &big(n))));
    assert!(!writer.add(200, &vec![0; 1 << 20]), "beyond the limit");
    writer.finish(None).unwrap();
    let mut vault = home.open().unwrap().unwrap();
    for n in (0..200).chain(0..200) {
        let place = vault.find(n).next().unwrap();
        assert_eq!(vault.record(place), Some(&*big(n)));
    }
}

#[test]
fn a_file_is_replaced_by_a_merged_one() {
    let home = Home::new();
    home.fill(2000);
    let mut vault = home.open().unwrap().unwrap();
    assert!((0..2000).all(|n| has(&mut vault, n)));
    let mut writer = home.writer();
    (2000..4000).for_each(|n| assert!(writer.add(key(n), &record(n))));
    assert_eq!(writer.finish(Some(&vault)).unwrap(), Outcome::Made(4000));
    let mut merged = home.open().unwrap().unwrap();
    assert!((0..4000).all(|n| has(&mut merged, n)));
    // The one that is open is not changed by that.
    assert!((0..2000).all(|n| has(&mut vault, n)));
    // So little is new that it is not worth a file; or nothing is.
    let mut writer = home.writer();
    assert!(writer.add(1, b"x"));
    assert_eq!(writer.finish(Some(&merged)).unwrap(), Outcome::Left);
    assert_eq!(home.writer().finish(Some(&merged)).unwrap(), Outcome::Left);
    assert_eq!(home.writer().finish(None).unwrap(), Outcome::Left);
    assert_eq!(home.names(), ["key", "lock", "x.vault"]);
}

#[test]
fn two_that_end_together_lose_nothing() {
    let home = Home::new();
    let (mut one, mut two) = (home.writer(), home.writer());
    (0..1000).for_each(|n| assert!(one.add(key(n), &record(n))));
    (0..1000).for_each(|n| assert!(two.add(key(n), &record(n))));
    (1000..2000).for_each(|n| assert!(two.add(key(n), &record(n))));
    std::thread::scope(|scope| {
        scope.spawn(|| one.finish(None).unwrap());
        scope.spawn(|| two.finish(None).unwrap());
    });
    let mut vault = home.open().unwrap().unwrap();
    assert!((0..2000).all(|n| has(&mut vault, n)));
    assert_eq!(home.names(), ["key", "lock", "x.vault"]);
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let home = Home::new();
    let limits = Limits { file: 1 << 20, folder: 32 << 20 };
    let block = |n: u64| vec![n as u8; 60_000];
    let mut writer = Writer::new(home.folder(), "x", IDENTITY, limits);
    (0..16).for_each(|n| assert!(writer.add(n, &block(n))));
    writer.finish(None).unwrap();
    let mut vault = home.open().unwrap().unwrap();
    let place = vault.find(0).next().unwrap();
    assert!(vault.record(place).is_some());
    vault.note_use(place);
    let mut writer = Writer::new(home.folder(), "x", IDENTITY, limits);
    (100..108).for_each(|n| assert!(writer.add(n, &block(n))));
    writer.finish(Some(&vault)).unwrap();
    let vault = home.open().unwrap().unwrap();
    let has = |n: u64| vault.find(n).next().is_some();
    assert!(has(0) && (100..108).all(has));
    assert!(!(0..16).all(has));
    assert!(vault.bytes() <= 1 << 20);
}

#[test]
fn the_folder_is_bounded_and_swept() {
    let home = Home::new();
    let limits = Limits { file: 8 << 20, folder: 150_000 };
    std::fs::create_dir_all(&home.path).unwrap();
    std::fs::set_permissions(&home.path, PermissionsExt::from_mode(0o700)).unwrap();
    for (name, age) in [("x-1-1.new", 3600), ("x-1-2.new", 0)] {
        let file = std::fs::File::create(home.path.join(name)).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    let second = std::time::Duration::from_millis(1100);
    for name in ["a", "b", "c"] {
        let mut writer = Writer::new(home.folder(), name, IDENTITY, limits);
        assert!(writer.add(1, &[0; 50_000]));
        writer.finish(None).unwrap();
        std::thread::sleep(second);
    }
    assert_eq!(home.names(), ["b.vault", "c.vault", "key", "lock", "x-1-2.new"]);
}

#[test]
fn every_byte_counts() {
    let home = Home::new();
    home.fill(300);
    let good = std::fs::read(home.file()).unwrap();
    let end_of_chunks = u64::from_le_bytes(good[40..48].try_into().unwrap()) as usize;
    let head = 0..file::HEAD;
    let places = head.chain((4096..good.len()).step_by(97)).chain([end_of_chunks - 1, good.len() - 1]);
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(home.file(), &bad).unwrap();
        match home.open() {
            Err(Problem::Stale) => assert!((8..40).contains(&at), "{at}"),
            Err(Problem::Damaged(_)) => assert!(!(4096..end_of_chunks).contains(&at), "{at}"),
            Ok(Some(mut vault)) => {
                // A chunk: none of its records is given, and all others are.
                assert!((4096..end_of_chunks).contains(&at), "{at}");
                let lost = (0..300).filter(|&n| !has(&mut vault, n)).count();
                assert!(lost > 0 && vault.damaged() == 1, "{at}: {lost}");
                assert!(home.writer().finish(Some(&vault)).is_ok());
                let mut mended = home.open().unwrap().unwrap();
                assert_eq!((0..300).filter(|&n| !has(&mut mended, n)).count(), lost);
                assert_eq!(mended.damaged(), 0);
            }
            other => panic!("{at}: {:?}", other.err()),
        }
    }
}

#[test]
fn truncated_and_lengthened_files_are_refused() {
    let home = Home::new();
    home.fill(300);
    let good = std::fs::read(home.file()).unwrap();
    let lengths = [0, 1, 7, 8, 39, 40, file::HEAD - 1, file::HEAD, 4095, 4096, 4097, good.len() / 2, good.len() - 1];
    for length in lengths {
        std::fs::write(home.file(), &good[..length]).unwrap();
        assert!(matches!(home.open(), Err(Problem::Damaged(_))), "{length}");
    }
    std::fs::write(home.file(), [&good[..], b"x"].concat()).unwrap();
    assert!(matches!(home.open(), Err(Problem::Damaged(_))));
    // It is replaced like one that is not there.
    home.fill(10);
    assert_eq!(home.open().unwrap().unwrap().len(), 10);
}

#[test]
fn only_the_same_key_name_and_identity_open_a_file() {
    let home = Home::new();
    home.fill(10);
    assert!(matches!(Vault::open(&home.folder(), "x", &[8; 32]), Err(Problem::Stale)));
    std::fs::copy(home.file(), home.path.join("y.vault")).unwrap();
    assert!(matches!(Vault::open(&home.folder(), "y", &IDENTITY), Err(Problem::Damaged(_))));
    // Another user's file under this user's name.
    let other = Home::new();
    other.fill(10);
    std::fs::copy(other.file(), home.file()).unwrap();
    assert!(matches!(home.open(), Err(Problem::Damaged(_))));
    home.fill(10);
    std::fs::remove_file(home.path.join("key")).unwrap();
    assert!(matches!(home.open(), Err(Problem::Damaged(_))), "there is a new key now");
}

#[test]
fn what_others_may_touch_is_refused() {
    let home = Home::new();
    home.fill(10);
    let allow = |path: &PathBuf, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
        for path in [home.file(), home.path.join("key")] {
            allow(&path, mode);
            let opened = Folder::open(&home.path).and_then(|folder| Vault::open(&folder, "x", &IDENTITY));
            assert!(matches!(opened, Err(Problem::Exposed(_))), "{mode:o} {path:?}");
            allow(&path, 0o600);
        }
    }
    for mode in [0o720, 0o702, 0o777] {
        allow(&home.path, mode);
        assert!(matches!(Folder::open(&home.path), Err(Problem::Exposed(_))), "{mode:o}");
    }
    allow(&home.path, 0o755);
    assert!(home.open().unwrap().is_some(), "others may look");
    // Links lead elsewhere.
    std::fs::rename(home.file(), home.path.join("z")).unwrap();
    symlink(home.path.join("z"), home.file()).unwrap();
    assert!(matches!(home.open(), Err(Problem::Exposed(_))));
    std::fs::remove_file(home.file()).unwrap();
    std::fs::create_dir(home.file()).unwrap();
    assert!(matches!(home.open(), Err(Problem::Exposed(_))));
    let link = home.path.parent().unwrap().join("link");
    symlink(&home.path, &link).unwrap();
    assert!(Folder::open(&link).is_err());
    // A key that is cut short.
    std::fs::write(home.path.join("key"), [0; 31]).unwrap();
    assert!(matches!(Folder::open(&home.path), Err(Problem::Damaged(_))));
}

#[test]
fn another_owner_is_refused() {
    // Only root can give a file away; as anyone else, root's own folder is at hand.
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("x");
    let folder = if rustix::process::geteuid().is_root() {
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
        path
    } else {
        PathBuf::from("/proc")
    };
    assert!(matches!(Folder::open(&folder), Err(Problem::Exposed(_))));
}

#[test]
fn a_folder_that_cannot_be_written_costs_nothing_but_the_file() {
    let home = Home::new();
    let mut writer = home.writer();
    assert!(writer.add(1, b"x"));
    std::fs::remove_dir_all(&home.path).unwrap();
    assert!(matches!(writer.finish(None), Err(Problem::Host { .. })));
    // One that is given up leaves nothing behind.
    let mut writer = home.writer();
    (0..10).for_each(|n| assert!(writer.add(n, &[0; 30_000])));
    drop(writer);
    assert_eq!(home.names(), ["key"]);
}
