//! Power cuts: of what was written since the last sync, any part may be on disk, in any order.
//!
//! A journal notes every write, hole, change of length and sync of a run of random accesses. Then disks are put
//! together as a power cut might have left them: all that was synced, and of the rest whatever chance picks, some of it
//! torn at sectors. Each has to be without errors, and to hold what the last flush before the cut had promised.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;

use lodge_backend::Disk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Layout, Qcow2, create};
use crate::host::{Event, HostFile};
use crate::qcow2::{Header, check};

const SIZE: u64 = 3 << 20;
const SECTORS: usize = (SIZE / 512) as usize;

/// What may be read of each sector: what the last flush promised, and what was written since.
#[derive(Clone)]
struct Promise(Vec<Vec<u64>>);

/// A promise holds from so many events on.
struct Mark {
    events: usize,
    promise: Promise,
}

/// Random accesses with the journal on. The events, and what was promised when.
fn run(host: HostFile, rng: &mut StdRng, journal: &dyn Fn() -> Vec<Event>) -> (Vec<Event>, Vec<Mark>) {
    let mut disk = Qcow2::open(host, None).unwrap();
    let mut data = vec![0; SIZE as usize];
    disk.read_at(0, &mut [IoSliceMut::new(&mut data)]).unwrap();
    let known = |data: &[u8]| vec![u64::from_le_bytes(data[..8].try_into().unwrap())];
    let mut promise = Promise(data.chunks(512).map(known).collect());
    let can_grow = !disk.header().has_snapshots();
    let mut marks = vec![Mark { events: journal().len(), promise: promise.clone() }];
    let mut history = Vec::new();
    for value in 1..200_u64 {
        if can_grow && value % 40 == 0 {
            // With small clusters the L1 table has to move for that.
            let size = disk.size() + (2 << 20);
            disk.resize(size).unwrap();
        }
        let sector = rng.random_range(0..SECTORS);
        let most = if rng.random_ratio(1, 6) { 800 } else { 24 };
        let count = rng.random_range(1..=most.min(SECTORS - sector));
        let (at, length) = (sector as u64 * 512, count as u64 * 512);
        let new = match rng.random_range(0..10) {
            0..=4 => {
                let data: Vec<u8> = (0..count * 64).flat_map(|_| value.to_le_bytes()).collect();
                disk.write_at(at, &[IoSlice::new(&data)]).unwrap();
                value
            }
            5 | 6 => {
                disk.write_zeroes(at, length, rng.random()).unwrap();
                0
            }
            7 => {
                // Without an image below, whole clusters read as zeroes then, and others stay.
                disk.discard(at, length).unwrap();
                0
            }
            _ => {
                disk.flush().unwrap();
                for (sector, count, new, is_sure) in history.drain(..) {
                    for values in &mut promise.0[sector..sector + count] {
                        if is_sure {
                            values.clear();
                        }
                        values.push(new);
                    }
                }
                marks.push(Mark { events: journal().len(), promise: promise.clone() });
                continue;
            }
        };
        // Parts of clusters may keep what a discard is about.
        let is_sure = length > 0 && (new != 0 || disk_reads_zero(&disk, at, length));
        history.push((sector, count, new, is_sure));
        // What comes after the flush may be there as well.
        if let Some(mark) = marks.last_mut() {
            mark.promise.0[sector..sector + count].iter_mut().for_each(|values| values.push(new));
        }
    }
    let events = journal();
    (events, marks)
}

fn disk_reads_zero(disk: &Qcow2, at: u64, length: u64) -> bool {
    let mut data = vec![1; length as usize];
    disk.read_at(at, &mut [IoSliceMut::new(&mut data)]).unwrap();
    data.iter().all(|byte| *byte == 0)
}

/// Puts an event on a disk, or parts of it.
fn apply(file: &std::fs::File, event: &Event, rng: Option<&mut StdRng>) {
    match (event, rng) {
        (Event::Write(at, bytes), None) => file.write_all_at(bytes, *at).unwrap(),
        (Event::Write(at, bytes), Some(rng)) => {
            let is_torn = rng.random_ratio(1, 3);
            let mut done = 0;
            while done < bytes.len() {
                let piece = (512 - (*at as usize + done) % 512).min(bytes.len() - done);
                if !is_torn || rng.random() {
                    file.write_all_at(&bytes[done..done + piece], at + done as u64).unwrap();
                }
                done += piece;
            }
        }
        (Event::Punch(at, length), _) => {
            let end = (at + length).min(file.metadata().unwrap().len());
            if *at < end {
                file.write_all_at(&vec![0; (end - at) as usize], *at).unwrap();
            }
        }
        (Event::Sync, _) => {}
    }
}

/// Has QEMU fill a part of an image and make a snapshot.
fn add_snapshot(path: &std::path::Path) {
    let path = path.to_str().unwrap();
    let commands: [&[&str]; 2] = [
        &["qemu-io", "-c", "write -P 7 100k 1M", "-c", "write -c -P 9 2M 64k", path],
        &["qemu-img", "snapshot", "-c", "one", path],
    ];
    for command in commands {
        let output = std::process::Command::new(command[0]).args(&command[1..]).output();
        let output = output.unwrap_or_else(|error| panic!("{} can't be run ({error}); install qemu-utils", command[0]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn any_power_cut_leaves_an_image_without_errors_and_with_what_was_flushed() {
    let cuts = std::env::var("LODGE_DISK_OUTAGES").map_or(150, |text| text.parse::<u64>().unwrap());
    // The last has a snapshot within, so that clusters and tables are shared at first.
    for (cluster_bits, refcount_order, version) in [(9, 4, 3), (12, 0, 3), (16, 4, 3), (9, 6, 2), (10, 3, 3)] {
        let mut rng = StdRng::seed_from_u64(u64::from(cluster_bits * 8 + refcount_order));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.qcow2");
        std::fs::write(&path, []).unwrap();
        let mut host = HostFile::open(&path, true).unwrap();
        let refcount_order = if version == 2 { 4 } else { refcount_order };
        create(&host, &Layout { cluster_bits, refcount_order, version, ..Layout::new(SIZE) }).unwrap();
        if cluster_bits == 10 {
            drop(host);
            add_snapshot(&path);
            host = HostFile::open(&path, true).unwrap();
        }
        let start = std::fs::read(&path).unwrap();
        let journal = host.record();
        let (events, marks) = run(host, &mut rng, &move || journal.lock().clone());
        assert!(marks.len() > 10 && events.len() > 200, "{} marks, {} events", marks.len(), events.len());
        let cut_path = folder.path().join("cut.qcow2");
        for _ in 0..cuts {
            let cut = rng.random_range(marks[0].events..=events.len());
            let synced = events[..cut].iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
            std::fs::write(&cut_path, &start).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(&cut_path).unwrap();
            events[..synced].iter().for_each(|event| apply(&file, event, None));
            for event in &events[synced..cut] {
                if rng.random() {
                    apply(&file, event, Some(&mut rng));
                }
            }
            let host = HostFile::open(&cut_path, false).unwrap();
            let header = Header::read(&host).unwrap();
            let report = check::examine(&host, &header).unwrap();
            assert_eq!(report.errors, 0, "cut at {cut} of {}, synced {synced}: {report:?}", events.len());
            let promised = marks.iter().rev().find(|mark| mark.events <= cut).unwrap();
            let disk = Qcow2::open(host, None).unwrap();
            let mut data = vec![0; SIZE as usize];
            disk.read_at(0, &mut [IoSliceMut::new(&mut data)]).unwrap();
            for (sector, (data, allowed)) in data.chunks(512).zip(&promised.promise.0).enumerate() {
                let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                assert!(allowed.contains(&value), "cut at {cut}: sector {sector} has {value}, promised {allowed:?}");
            }
        }
    }
}
