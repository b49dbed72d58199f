use std::sync::Mutex;
use std::time::Duration;

use lodge_bus::{PauseDevice, SaveDevice};

use super::*;
use crate::testing::{DATA, Driver, wait_for};

/// A disk in memory that can run full.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    full: Mutex<bool>,
    flushes: Mutex<u32>,
    read_only: bool,
}

impl Memory {
    fn new(sectors: usize, read_only: bool) -> Arc<Self> {
        let bytes = (0..sectors * 512).map(|i| (i / 512) as u8).collect();
        Arc::new(Self { bytes: Mutex::new(bytes), full: Mutex::new(false), flushes: Mutex::new(0), read_only })
    }
    fn check(&self) -> std::io::Result<()> {
        if *self.full.lock().unwrap() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let mut at = offset as usize;
        for buffer in buffers {
            let length = buffer.len();
            buffer.copy_from_slice(&bytes[at..at + length]);
            at += length;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().unwrap();
        let mut at = offset as usize;
        for buffer in buffers {
            bytes[at..at + buffer.len()].copy_from_slice(buffer);
            at += buffer.len();
        }
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        *self.flushes.lock().unwrap() += 1;
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.write_zeroes(offset, length, true)
    }
    fn write_zeroes(&self, offset: u64, length: u64, _may_unmap: bool) -> std::io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap()[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }
}

struct Rig {
    disk: Arc<Memory>,
    driver: Driver,
}

fn rig(read_only: bool, features: u64) -> Rig {
    let disk = Memory::new(64, read_only);
    let config = BlockConfig { name: "disk0".into(), serial: "serial-7".into(), queues: 1 };
    let driver = Driver::new(Block::new(config, disk.clone()));
    driver.start(features);
    Rig { disk, driver }
}

impl Rig {
    /// Sends a request with `out` behind its header and `inward` bytes of room; returns status, what came, used length.
    fn request(&self, kind: u32, sector: u64, out: &[u8], inward: u32) -> (u8, Vec<u8>, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.put(DATA, &header);
        self.driver.put(DATA + 0x1000, out);
        let room = DATA + 0x10_0000;
        self.driver.put(room, &vec![0xee; inward as usize + 1]);
        let mut parts = vec![(DATA, 16, false)];
        if !out.is_empty() {
            parts.push((DATA + 0x1000, out.len() as u32, false));
        }
        if inward > 0 {
            parts.push((room, inward, true));
        }
        parts.push((room + u64::from(inward), 1, true));
        self.driver.submit(0, 0, &parts);
        let (head, used) = self.driver.complete(0);
        assert_eq!(head, 0);
        let mut came = self.driver.get(room, inward as usize + 1);
        (came.pop().unwrap(), came, used)
    }
}

#[test]
fn configuration() {
    let rig = rig(false, feature::FLUSH);
    assert_eq!(rig.driver.config(0, 8), 64, "sectors");
    assert_eq!(rig.driver.config(12, 4), 254);
    assert_eq!(rig.driver.config(20, 4), 512);
    assert_eq!(rig.driver.config(0x400, 4), 0);
    let offered = rig.driver.offered();
    assert_eq!(offered & (feature::RO | feature::DISCARD), feature::DISCARD);
    assert_eq!(offered & crate::feature::COMMON, crate::feature::COMMON);
}

#[test]
fn reads_and_writes() {
    let rig = rig(false, feature::FLUSH);
    assert_eq!(rig.request(request::IN, 3, &[], 1024), (OK, [[3; 512], [4; 512]].concat(), 1025));
    assert_eq!(rig.request(request::OUT, 3, &[0x99; 512], 0), (OK, vec![], 1));
    assert_eq!(rig.request(request::IN, 3, &[], 512).1, [0x99; 512]);
    assert_eq!(*rig.disk.flushes.lock().unwrap(), 0);
    assert_eq!(rig.request(request::FLUSH, 0, &[], 0).0, OK);
    assert_eq!(*rig.disk.flushes.lock().unwrap(), 1);
    assert_eq!(rig.driver.isr(), 1);
    assert_eq!(rig.driver.isr(), 0);
}

#[test]
fn without_the_flush_feature_writes_are_durable() {
    let rig = rig(false, 0);
    rig.request(request::OUT, 0, &[1; 512], 0);
    assert_eq!(*rig.disk.flushes.lock().unwrap(), 1);
}

#[test]
fn ranges_and_kinds_that_are_not_there() {
    let rig = rig(false, feature::FLUSH);
    assert_eq!(rig.request(request::IN, 64, &[], 512).0, IOERR);
    assert_eq!(rig.request(request::IN, 63, &[], 1024).0, IOERR);
    assert_eq!(rig.request(request::IN, u64::MAX, &[], 512).0, IOERR);
    assert_eq!(rig.request(request::IN, 0, &[], 511).0, IOERR);
    assert_eq!(rig.request(request::OUT, u64::MAX / 512, &[0; 512], 0).0, IOERR);
    assert_eq!(rig.request(99, 0, &[], 0).0, UNSUPP);
    assert_eq!(rig.request(request::IN, 63, &[], 512).0, OK);
}

#[test]
fn a_full_host_disk_is_an_io_error_and_the_device_goes_on() {
    let rig = rig(false, feature::FLUSH);
    rig.request(request::OUT, 1, &[1; 512], 0);
    *rig.disk.full.lock().unwrap() = true;
    assert_eq!(rig.request(request::OUT, 2, &[2; 512], 0).0, IOERR);
    assert_eq!(rig.request(request::IN, 1, &[], 512), (OK, vec![1; 512], 513));
    *rig.disk.full.lock().unwrap() = false;
    assert_eq!(rig.request(request::OUT, 2, &[2; 512], 0).0, OK);
}

#[test]
fn discard_and_write_zeroes() {
    let rig = rig(false, feature::FLUSH);
    let segment = |sector: u64, sectors: u32, flags: u32| {
        [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let two = [segment(1, 2, 0), segment(8, 1, 1)].concat();
    assert_eq!(rig.request(request::WRITE_ZEROES, 0, &two, 0).0, OK);
    let bytes = rig.disk.bytes.lock().unwrap().clone();
    assert_eq!([bytes[512], bytes[1024], bytes[1536], bytes[4096]], [0, 0, 3, 0]);
    assert_eq!(rig.request(request::DISCARD, 0, &segment(20, 1, 0), 0).0, OK);
    assert_eq!(rig.request(request::DISCARD, 0, &segment(20, 1, 1), 0).0, UNSUPP);
    assert_eq!(rig.request(request::DISCARD, 0, &segment(63, 2, 0), 0).0, IOERR);
    assert_eq!(rig.request(request::DISCARD, 0, &segment(u64::MAX, u32::MAX, 0), 0).0, IOERR);
    assert_eq!(rig.request(request::DISCARD, 0, &[0; 15], 0).0, IOERR);
}

#[test]
fn a_read_only_disk() {
    let rig = rig(true, feature::FLUSH);
    assert_eq!(rig.driver.offered() & (feature::RO | feature::DISCARD), feature::RO);
    assert_eq!(rig.request(request::OUT, 0, &[1; 512], 0).0, IOERR);
    assert_eq!(rig.request(request::IN, 5, &[], 512).1, [5; 512]);
}

#[test]
fn the_name() {
    let rig = rig(false, feature::FLUSH);
    let (status, name, used) = rig.request(request::GET_ID, 0, &[], 20);
    assert_eq!((status, used), (OK, 21));
    assert_eq!(&name[..9], b"serial-7\0");
    assert_eq!(rig.request(request::GET_ID, 0, &[], 3).1, b"ser");
}

#[test]
fn neither_pause_nor_reset_waits_for_a_vast_range() {
    for kind in [request::DISCARD, request::WRITE_ZEROES] {
        let disk = Arc::new(lodge_backend::VastDisk { delay: Duration::from_millis(2), ..Default::default() });
        let config = BlockConfig { name: "disk0".into(), serial: String::new(), queues: 1 };
        let driver = Driver::new(Block::new(config, disk.clone()));
        driver.start(feature::FLUSH);
        let calls = || disk.discarded.lock().len();
        let begin = || {
            driver.put(DATA, &[&kind.to_le_bytes()[..], &[0; 12]].concat());
            // 32 gigabytes.
            for n in 0..u64::from(MOST_SEGMENTS) {
                let first = 3 + n * u64::from(MOST_SECTORS);
                let segment = [&first.to_le_bytes()[..], &MOST_SECTORS.to_le_bytes(), &[0; 4]].concat();
                driver.put(DATA + 16 + n * SEGMENT as u64, &segment);
            }
            driver.put(DATA + 0x1000, &[0xee]);
            driver.submit(0, 0, &[(DATA, 16 + MOST_SEGMENTS * SEGMENT as u32, false), (DATA + 0x1000, 1, true)]);
        };
        begin();
        wait_for("the request", || calls() > 3);
        driver.function.pause();
        let (before, saved) = (calls(), driver.function.save());
        assert_eq!((driver.used_index(0), driver.get(DATA + 0x1000, 1)), (0, vec![0xee]), "neither ended nor failed");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(calls(), before, "nothing goes on");
        driver.function.restore(&saved).unwrap();
        driver.function.resume();
        assert_eq!((driver.complete(0).1, driver.get(DATA + 0x1000, 1)), (1, vec![OK]));
        let (mut at, end) = (3 * 512, (3 + u64::from(MOST_SEGMENTS * MOST_SECTORS)) * 512);
        for (offset, length) in &disk.discarded.lock()[before..] {
            assert_eq!(*offset, at, "all is done, from the beginning");
            at += length;
        }
        assert_eq!(at, end);
        // The guest's reset.
        begin();
        let before = calls();
        wait_for("the request again", || calls() > before + 3);
        driver.start(feature::FLUSH);
        let before = calls();
        assert!(before < 1500, "it was given up");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(calls(), before);
    }
}
