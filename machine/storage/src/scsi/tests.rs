use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use lodge_backend::{Content, Ejection, Mechanism, RawDisk};

use super::registers::page;
use super::*;
use lodge_backend::VastDisk;

fn disk(sectors: usize, read_only: bool) -> Unit {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0x5a; sectors * 512]).unwrap();
    Unit::new(Medium::Disk(Arc::new(RawDisk::open(file.path(), read_only).unwrap())), "serial-1", false)
}

fn cd(sectors: usize) -> (Unit, Arc<Tray>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0x5a; sectors * 2048]).unwrap();
    let tray = Tray::new(Some(Arc::new(RawDisk::open(file.path(), true).unwrap())));
    (Unit::new(Medium::Cd(tray.clone()), "serial-2", false), tray)
}

fn given(unit: &mut Unit, command: &[u8]) -> Vec<u8> {
    match unit.command(command) {
        Ok(Action::Give(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_tells_what_it_is() {
    let mut unit = disk(100, false);
    let inquiry = given(&mut unit, &[0x12, 0, 0, 0, 96]);
    assert_eq!((inquiry.len(), inquiry[0], inquiry[4], &inquiry[8..16]), (36, 0, 31, &b"lodge   "[..]));
    assert_eq!(given(&mut unit, &[0x12, 1, 0, 0, 255]), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(given(&mut unit, &[0x12, 1, 0x80, 0, 255]), b"\0\x80\0\x08serial-1");
    let names = given(&mut unit, &[0x12, 1, 0x83, 0, 255]);
    assert_eq!(names.len(), 4 + word(&names, 2));
    assert_eq!((&names[4..8], names[24..28].to_vec(), names[28] >> 4), (&[2, 1, 0, 16][..], vec![1, 3, 0, 8], 3));
    let limits = given(&mut unit, &[0x12, 1, 0xb0, 0, 255]);
    assert_eq!((limits.len(), long(&limits, 8), huge(&limits, 36)), (64, 0xffff, 0x1_0000));
    assert_eq!(given(&mut unit, &[0x12, 1, 0xb2, 0, 255]), [0, 0xb2, 0, 4, 0, 0xe0, 2, 0]);
    assert_eq!(unit.command(&[0x12, 1, 0x99, 0, 255]), Err(Sense::BAD_FIELD));
    assert_eq!(given(&mut unit, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16]), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(given(&mut unit, &[0x25]), [0, 0, 0, 99, 0, 0, 2, 0]);
    let capacity = given(&mut unit, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!((huge(&capacity, 0), long(&capacity, 8), capacity[14]), (99, 512, 0x80));
}

#[test]
fn blocks_are_named_in_all_lengths() {
    let mut unit = disk(1000, false);
    let read = |offset: u64, length: u64| Ok(Action::Read { offset: offset * 512, length: length * 512 });
    assert_eq!(unit.command(&[0x08, 0, 1, 2, 3, 0]), read(0x102, 3));
    assert_eq!(unit.command(&[0x08, 0, 0, 2, 0, 0]), read(2, 256));
    assert_eq!(unit.command(&[0x28, 0, 0, 0, 1, 2, 0, 0, 4]), read(0x102, 4));
    assert_eq!(unit.command(&[0xa8, 0, 0, 0, 1, 2, 0, 0, 0, 5]), read(0x102, 5));
    assert_eq!(unit.command(&[0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 6]), read(0x102, 6));
    assert_eq!(unit.command(&[0x28, 0, 0, 0, 3, 0xe8, 0, 0, 0]), Ok(Action::Done), "of none at the end");
    assert_eq!(unit.command(&[0x28, 0, 0, 0, 3, 0xe7, 0, 0, 2]), Err(Sense::OUT_OF_RANGE));
    let far = [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(unit.command(&far), Err(Sense::OUT_OF_RANGE));
    assert_eq!(unit.command(&[0x28, 0x20]), Err(Sense::BAD_FIELD));
    let write = |durable| Ok(Action::Write { offset: 512, length: 1024, durable });
    assert_eq!(unit.command(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 2]), write(false));
    assert_eq!(unit.command(&[0x2a, 8, 0, 0, 0, 1, 0, 0, 2]), write(true));
    assert_eq!(unit.command(&[0x0a, 0, 0, 1, 2, 0]), write(false));
    assert_eq!(unit.command(&[0x35]), Ok(Action::Flush));
    assert_eq!(disk(8, true).command(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 2]), Err(Sense::PROTECTED));
    assert_eq!(unit.command(&[0xff]), Err(Sense::UNKNOWN_COMMAND));
    assert_eq!(given(&mut unit, &[0x03, 0, 0, 0, 18])[2], 0, "the sense went with the answer");
}

#[test]
fn a_machine_that_starts_over_has_not_locked_the_tray() {
    let (mut unit, tray) = cd(4);
    assert_eq!(unit.command(&[0x1e, 0, 0, 0, 1, 0]), Ok(Action::Done));
    assert!(tray.is_locked());
    let _anew = Unit::new(Medium::Cd(tray.clone()), "serial-2", false);
    assert!(!tray.is_locked());
}

#[test]
fn space_is_given_back_and_filled() {
    let mut unit = disk(64, false);
    let command = [0x42, 0, 0, 0, 0, 0, 0, 0, 24];
    assert_eq!(unit.command(&command), Ok(Action::Parameters(24)));
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0];
    assert_eq!(unit.parameters(&command, &list), Ok(Action::Discard(vec![(8 * 512, 4 * 512)])));
    list[15] = 61;
    assert_eq!(unit.parameters(&command, &list), Err(Sense::OUT_OF_RANGE));
    assert_eq!(unit.parameters(&command, &list[..4]), Err(Sense::LIST_LENGTH));
    let command = [0x41, 0, 0, 0, 0, 2, 0, 0, 3];
    assert_eq!(unit.command(&command), Ok(Action::Parameters(512)));
    let fill = unit.parameters(&command, &[0x77; 512]).unwrap();
    let medium = unit.disk().unwrap();
    assert!(fill.carry_out(&*medium, &|| true).unwrap());
    let mut bytes = vec![0; 5 * 512];
    medium.read_at(512, &mut [std::io::IoSliceMut::new(&mut bytes)]).unwrap();
    assert_eq!((bytes[511], bytes[512], bytes[2047], bytes[2048]), (0x5a, 0x77, 0x77, 0x5a));
    let zero = [0x93, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64];
    assert!(unit.command(&zero).unwrap().carry_out(&*medium, &|| true).unwrap());
    medium.read_at(0, &mut [std::io::IoSliceMut::new(&mut bytes)]).unwrap();
    assert_eq!(bytes, [0; 5 * 512]);
    assert_eq!(unit.command(&[0x41, 0, 0, 0, 0, 2, 0, 0, 0]), Err(Sense::BAD_FIELD), "of none");
}

#[test]
fn modes_are_told_and_the_cache_can_be_turned_off() {
    let mut unit = disk(64, false);
    let mode = given(&mut unit, &[0x1a, 0, 8, 0, 255]);
    assert_eq!((mode[0], mode[2], mode[3], mode[12], mode[14]), (31, 0x10, 8, 8, 4));
    assert_eq!(given(&mut unit, &[0x1a, 8, 0x48, 0, 255])[6], 4, "which can be changed");
    let all = given(&mut unit, &[0x5a, 8, 0x3f, 0, 0, 0, 0, 1, 0]);
    assert_eq!(all.len(), 2 + word(&all, 0));
    assert_eq!(all[8] & 0x3f, page::RECOVERY);
    let mut list = vec![0; 4];
    list.extend(&mode[12..]);
    list[6] = 0;
    let command = [0x15, 0x10, 0, 0, list.len() as u8];
    assert_eq!(unit.command(&command), Ok(Action::Parameters(24)));
    assert_eq!(unit.parameters(&command, &list), Ok(Action::Flush));
    assert!(matches!(unit.command(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 2]), Ok(Action::Write { durable: true, .. })));
    list[7] = 1;
    assert_eq!(unit.parameters(&command, &list), Err(Sense::BAD_PARAMETER));
    assert_eq!(unit.parameters(&command, &list[..9]), Err(Sense::LIST_LENGTH));
    let state = unit.state().clone();
    unit.reset();
    assert_ne!(*unit.state(), state);
    unit.set_state(state.clone());
    assert_eq!(*unit.state(), state);
    unit.reset_with_attention();
    assert_eq!(unit.command(&[0]), Err(Sense::RESET));
    assert_eq!(unit.command(&[0]), Ok(Action::Done));
}

#[test]
fn a_medium_tells_its_contents_and_comes_and_goes() {
    let (mut unit, tray) = cd(100);
    assert_eq!(given(&mut unit, &[0x12, 1, 0, 0, 255]), [5, 0, 0, 3, 0, 0x80, 0x83]);
    assert_eq!(given(&mut unit, &[0x46, 2, 0, 3, 0, 0, 0, 0, 255])[3], 12, "one feature");
    let all = given(&mut unit, &[0x46, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(all.len() as u64, 4 + long(&all, 0));
    assert_eq!(
        unit.command(&[0xbe, 0, 0, 0, 0, 3, 0, 0, 2, 0x10]),
        Ok(Action::Read { offset: 3 * 2048, length: 4096 })
    );
    assert_eq!(
        unit.command(&[0xb9, 0, 0, 0, 2, 3, 0, 2, 5, 0x10]),
        Ok(Action::Read { offset: 3 * 2048, length: 4096 })
    );
    assert_eq!(unit.command(&[0xbe, 4, 0, 0, 0, 3, 0, 0, 2, 0x10]), Err(Sense::OTHER_MODE));
    assert_eq!(unit.command(&[0xb9, 0, 0, 0, 1, 0, 0, 2, 5, 0x10]), Err(Sense::OUT_OF_RANGE));
    assert_eq!(given(&mut unit, &[0x52, 1, 0, 0, 0, 1, 0, 0, 36])[27], 100);
    assert_eq!(unit.command(&[0xad, 0, 0, 0, 0, 0, 0, 0, 8, 0]), Err(Sense::INCOMPATIBLE));
    assert_eq!(given(&mut unit, &[0x43, 0, 0, 0, 0, 0, 0xaa, 0, 12])[4..], [0, 0x14, 0xaa, 0, 0, 0, 0, 100]);
    assert_eq!(given(&mut unit, &[0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x80]).len(), 12, "all of a full table");
    tray.eject().unwrap();
    let sense = given(&mut unit, &[3, 0, 0, 0, 18]);
    assert_eq!((sense[2], sense[12]), (6, 0x28), "those who ask are told, too");
    assert_eq!(unit.command(&[0]), Err(Sense::TRAY_OPEN));
    assert_eq!(unit.command(&[0x1b, 0, 0, 0, 3]), Ok(Action::Done));
    assert_eq!(unit.command(&[0]), Err(Sense::NO_MEDIUM));
    assert_eq!(given(&mut unit, &[0x46, 0, 0, 0, 0, 0, 0, 0, 8])[6..], [0, 0]);
}

/// A host's drive that opens, closes and looks when the test says so.
#[derive(Default)]
struct Host {
    moves: AtomicBool,
}

impl Mechanism for Host {
    fn lock(&self, _: bool) {}
    fn eject(&self) -> Arc<Ejection> {
        self.moves.store(true, Ordering::Relaxed);
        Arc::default()
    }
    fn close(&self, moves: bool) {
        self.moves.store(moves, Ordering::Relaxed);
    }
    fn is_moving(&self) -> bool {
        self.moves.load(Ordering::Relaxed)
    }
    fn is_locking(&self) -> bool {
        false
    }
}

#[test]
fn a_drive_of_the_hosts_that_moves_or_looks_becomes_ready() {
    const BECOMING_READY: [u8; 3] = [2, 4, 1];
    let (mut unit, tray) = cd(8);
    let medium = tray.medium().unwrap();
    let host = Arc::new(Host::default());
    tray.stand_for(host.clone());
    let drive: Arc<dyn Mechanism> = host.clone();
    let drive = Arc::downgrade(&drive);
    assert_eq!(unit.command(&[0]), Err(Sense::CHANGED));
    let sense = |unit: &mut Unit, command: &[u8]| {
        let sense = unit.command(command).unwrap_err();
        [sense.key, sense.code, sense.qualifier]
    };
    tray.follow(&drive, Content::Busy);
    for command in [&[0][..], &[0x25], &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], &[0x43, 0, 0, 0, 0, 0, 0, 0, 12]] {
        assert_eq!(sense(&mut unit, command), BECOMING_READY, "{command:?}");
    }
    tray.follow(&drive, Content::Medium(medium));
    assert_eq!(unit.command(&[0]), Err(Sense::CHANGED));
    assert_eq!(unit.command(&[0]), Ok(Action::Done));
    assert_eq!(given(&mut unit, &[0x4a, 1, 0, 0, 16, 0, 0, 0, 8])[4..6], [2, 2], "a new medium, which is there");
    // It spins down and up.
    tray.follow(&drive, Content::Busy);
    assert_eq!(sense(&mut unit, &[0]), BECOMING_READY);
    assert_eq!(given(&mut unit, &[0x4a, 1, 0, 0, 16, 0, 0, 0, 8])[4], 0, "nothing has happened");
    tray.follow(&drive, Content::Same);
    assert_eq!(unit.command(&[0]), Ok(Action::Done));
    // A closed tray closes at once, and an open one opens.
    assert_eq!(unit.command(&[0x1b, 0, 0, 0, 3]), Ok(Action::Done));
    assert_eq!(unit.command(&[0]), Ok(Action::Done));
    assert_eq!(unit.command(&[0x1b, 0, 0, 0, 2]), Ok(Action::Done));
    assert_eq!(sense(&mut unit, &[0]), BECOMING_READY);
    host.moves.store(false, Ordering::Relaxed);
    tray.follow(&drive, Content::Open);
    assert_eq!(unit.command(&[0]), Err(Sense::CHANGED));
    assert_eq!(unit.command(&[0]), Err(Sense::TRAY_OPEN));
    assert_eq!(unit.command(&[0x1b, 0, 0, 0, 3]), Ok(Action::Done));
    assert_eq!(sense(&mut unit, &[0]), BECOMING_READY);
    host.moves.store(false, Ordering::Relaxed);
    tray.follow(&drive, Content::Empty);
    assert_eq!(unit.command(&[0]), Err(Sense::NO_MEDIUM));
}

#[test]
fn commands_at_random_do_no_harm() {
    let (unit, _tray) = cd(20);
    let mut units = [disk(64, false), disk(64, true), unit];
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed >> 8
    };
    for _ in 0..crate::testing::steps(1_000_000) {
        let mut command: Vec<u8> =
            (0..random() % 33).map(|_| if random() % 2 == 0 { 0 } else { random() as u8 }).collect();
        if let Some(first) = command.first_mut()
            && random() % 2 == 0
        {
            *first = [0x12, 0x1a, 0x5a, 0x28, 0x2a, 0x42, 0x93, 0x43, 0x46, 0x88][random() as usize % 10];
        }
        let unit = &mut units[random() as usize % 3];
        if let Ok(action) = unit.command(&command) {
            let data: Vec<u8> = (0..random() % 40).map(|_| random() as u8 & 0x1f).collect();
            if let Action::Parameters(length) = action {
                let short = &data[..data.len().min(length)];
                let _ = unit.parameters(&command, short);
            }
        }
    }
    for unit in &mut units {
        given(unit, &[0x12, 0, 0, 0, 36]);
    }
}

#[test]
fn what_takes_long_ends_when_nobody_waits() {
    let disk = VastDisk::default();
    let calls = || std::mem::take(&mut *disk.discarded.lock());
    let all = Action::Discard(vec![(512, 1 << 42), (1 << 43, 1024)]);
    assert!(!all.carry_out(&disk, &|| disk.discarded.lock().len() < 3).unwrap());
    let done = calls();
    assert_eq!((done.len(), done[0].0, done[1].0), (3, 512, 512 + done[0].1));
    assert!(done[0].1 <= 64 << 20);
    assert!(all.carry_out(&disk, &|| true).unwrap());
    let done = calls();
    assert_eq!(done.iter().map(|(_, length)| length).sum::<u64>(), (1 << 42) + 1024, "all of it, once");
    assert_eq!(done.last(), Some(&(1 << 43, 1024)));
    for block in [vec![0; 512], vec![1; 512]] {
        let fill = Action::Fill { offset: 0, length: 1 << 25, block, unmap: false };
        assert!(!fill.carry_out(&disk, &|| false).unwrap());
        assert!(calls().is_empty());
        assert!(fill.carry_out(&disk, &|| true).unwrap());
        calls();
    }
}
