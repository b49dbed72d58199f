use std::io::{IoSliceMut, Write};

use lodge_backend::{Disk, RawDisk, Tray};
use lodge_bus::{PauseDevice, ResetDevice, SaveDevice};
use lodge_trial::{Random, steps};

use super::registers::control;
use super::*;
use crate::testing::{DATA, Driver, wait_for};

fn file(bytes: usize) -> Arc<dyn Disk> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..bytes).map(|n| (n / 512) as u8 ^ n as u8).collect();
    file.write_all(&content).unwrap();
    Arc::new(RawDisk::open(file.path(), false).unwrap())
}

struct Rig {
    driver: Driver,
    disk: Arc<dyn Disk>,
    tray: Arc<Tray>,
}

/// A disk of 1 MiB as target 0, a CD of 40 sectors as target 1.
fn rig(queues: u16) -> Rig {
    let (disk, tray) = (file(1 << 20), Tray::new(Some(file(40 * 2048))));
    let targets = vec![
        Target { medium: Medium::Disk(disk.clone()), serial: "serial-1".into() },
        Target { medium: Medium::Cd(tray.clone()), serial: "serial-2".into() },
    ];
    let driver = Driver::new(Scsi::new(ScsiConfig { name: "scsi0".into(), queues }, targets));
    driver.start(0);
    Rig { driver, disk, tray }
}

const IN: u64 = DATA + 0x10_0000;

/// What a request came to.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    response: u8,
    status: u8,
    /// Key and code.
    sense: (u8, u8),
    residual: u32,
    data: Vec<u8>,
}

impl Rig {
    fn content(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.disk.read_at(offset, &mut [IoSliceMut::new(&mut data)]).unwrap();
        data
    }

    /// Puts a request into a queue at descriptors from `first` on.
    fn submit(&self, queue: u16, first: u16, lun: [u8; 4], command: &[u8], out: &[u8], room: u32) {
        let at = DATA + u64::from(first) * 0x1000;
        let mut header = vec![0; REQUEST + 32];
        header[..4].copy_from_slice(&lun);
        header[REQUEST..REQUEST + command.len()].copy_from_slice(command);
        self.driver.put(at, &header);
        self.driver.put(at + 0x800, out);
        let mut parts = vec![(at, header.len() as u32, false)];
        if !out.is_empty() {
            parts.push((at + 0x800, out.len() as u32, false));
        }
        parts.push((at + 0x400, 108, true));
        if room > 0 {
            parts.push((IN, room, true));
        }
        self.driver.submit(queue, first, &parts);
    }

    fn answer(&self, first: u16, room: u32, used: u32) -> Answer {
        let header = self.driver.get(DATA + u64::from(first) * 0x1000 + 0x400, 108);
        let length = u32::from_le_bytes(header[..4].try_into().unwrap());
        assert_eq!(length, if header[10] == 2 { 18 } else { 0 });
        Answer {
            response: header[11],
            status: header[10],
            sense: (header[14] & 15, header[24]),
            residual: u32::from_le_bytes(header[4..8].try_into().unwrap()),
            data: self.driver.get(IN, (used.saturating_sub(108)).min(room) as usize),
        }
    }

    fn run_at(&self, lun: [u8; 4], command: &[u8], out: &[u8], room: u32) -> Answer {
        self.submit(2, 0, lun, command, out, room);
        let (head, used) = self.driver.complete(2);
        assert_eq!(head, 0);
        self.answer(0, room, used)
    }

    fn run(&self, target: u8, command: &[u8], out: &[u8], room: u32) -> Answer {
        self.run_at([1, target, 0x40, 0], command, out, room)
    }

    /// Sends a request of the control queue; the response and what is before it.
    fn control(&self, request: &[u8], room: u32) -> Vec<u8> {
        let at = DATA + 0xf_0000;
        self.driver.put(at, request);
        self.driver.submit(0, 0, &[(at, request.len() as u32, false), (at + 0x100, room, true)]);
        assert_eq!(self.driver.complete(0), (0, room));
        self.driver.get(at + 0x100, room as usize)
    }

    fn manage(&self, function: u32, lun: [u8; 4]) -> u8 {
        let request = [[0; 4], function.to_le_bytes(), lun, [0; 4], [7, 0, 0, 0], [0; 4]].concat();
        self.control(&request, 1)[0]
    }
}

#[test]
fn configuration() {
    let rig = rig(2);
    assert_eq!([0, 16, 20, 24].map(|at| rig.driver.config(at, 4)), [2, 16, 96, 32]);
    assert_eq!((rig.driver.config(30, 2), rig.driver.config(32, 4)), (1, 0));
    let device = rig.driver.function.device().clone();
    device.write_config(20, &64u32.to_le_bytes());
    device.write_config(24, &u32::MAX.to_le_bytes());
    assert_eq!([20, 24].map(|at| rig.driver.config(at, 4)), [64, 32], "what cannot be is not taken");
}

#[test]
fn targets_tell_what_they_are() {
    let rig = rig(1);
    let inquiry = rig.run(0, &[0x12, 0, 0, 0, 36], &[], 36);
    assert_eq!((inquiry.response, inquiry.status, inquiry.residual, inquiry.data[0]), (0, 0, 0, 0));
    assert_eq!(rig.run(1, &[0x12, 0, 0, 0, 36], &[], 96).data[0], 5);
    assert_eq!(rig.run(1, &[0x12, 0, 0, 0, 36], &[], 96).residual, 60);
    assert_eq!(rig.run(0, &[0x25], &[], 8).data, [0, 0, 7, 0xff, 0, 0, 2, 0]);
    assert_eq!(rig.run(2, &[0], &[], 0).response, response::BAD_TARGET);
    assert_eq!(rig.run_at([0, 0, 0, 0], &[0], &[], 0).response, response::BAD_TARGET);
    // Units that are not there.
    let other = [1, 0, 0x40, 1];
    assert_eq!(rig.run_at(other, &[0x12, 0, 0, 0, 36], &[], 36).data[0], 0x7f);
    assert_eq!(rig.run_at(other, &[0], &[], 0).sense, (5, 0x25));
    assert_eq!(rig.run_at(other, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16], &[], 16).data[3], 8);
    assert_eq!(rig.run_at(other, &[3, 0, 0, 0, 18], &[], 18).data[12], 0x25);
    // The first unit by either form.
    assert_eq!(rig.run_at([1, 0, 0, 0], &[0], &[], 0).status, 0);
}

#[test]
fn blocks_are_read_and_written() {
    let rig = rig(1);
    let read = rig.run(0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 4], &[], 2048);
    assert_eq!((read.status, read.residual), (0, 0));
    assert_eq!(read.data, rig.content(9 * 512, 2048));
    // Larger than a piece.
    let read = rig.run(0, &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1], &[], 0x201 * 512);
    assert!(read.data == rig.content(0, 0x201 * 512));
    let write = rig.run(0, &[0x2a, 8, 0, 0, 0, 3, 0, 0, 1], &[0x91; 512], 0);
    assert_eq!((write.status, write.residual), (0, 0));
    assert_eq!(rig.content(3 * 512, 512), [0x91; 512]);
    assert_eq!(rig.run(0, &[0x35], &[], 0).status, 0);
    let beyond = rig.run(0, &[0x28, 0, 0, 0, 8, 0, 0, 0, 1], &[], 512);
    assert_eq!((beyond.status, beyond.sense, beyond.residual), (2, (5, 0x21), 512));
    // Less room than data.
    assert_eq!(rig.run(0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 4], &[], 512).response, response::OVERRUN);
    assert_eq!(rig.run(0, &[0x2a, 0, 0, 0, 0, 3, 0, 0, 2], &[0x91; 512], 0).response, response::OVERRUN);
    // Parameters come with the command.
    let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0];
    assert_eq!(rig.run(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24], &list, 0).status, 0);
    assert_eq!(rig.content(3 * 512, 8 * 512), [0; 4096]);
    assert_eq!(rig.run(0, &[0x41, 0, 0, 0, 0, 4, 0, 0, 2], &[0x17; 512], 0).status, 0);
    assert_eq!(rig.content(4 * 512, 1024), [0x17; 1024]);
    assert_eq!(rig.run(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24], &list[..8], 0).response, response::OVERRUN);
}

#[test]
fn media_change_and_events_tell() {
    let rig = rig(1);
    assert_eq!(rig.run(1, &[0x28, 0, 0, 0, 0, 3, 0, 0, 1], &[], 2048).data.len(), 2048);
    let subscribe = |kind: u8| [&[kind, 0, 0, 0, 1, 1, 0x40, 0][..], &[0; 4], &0xffu32.to_le_bytes()].concat();
    assert_eq!(rig.control(&subscribe(1), 5), [16, 0, 0, 0, 0]);
    rig.driver.submit(1, 0, &[(DATA, 16, true)]);
    rig.tray.eject().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(rig.driver.used_index(1), 0, "not asked for");
    assert_eq!(rig.control(&subscribe(2), 5), [16, 0, 0, 0, 0]);
    rig.tray.insert(file(8 * 2048)).unwrap();
    assert_eq!(rig.driver.complete(1), (0, 16));
    assert_eq!(rig.driver.get(DATA, 16), [2, 0, 0, 0, 1, 1, 0x40, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    assert_eq!(rig.run(1, &[0], &[], 0).sense, (6, 0x28));
    assert_eq!(rig.run(1, &[0x25], &[], 8).data[3], 7);
    // What finds no buffer waits for one; one that is too small loses it, and the next one says so.
    rig.tray.eject().unwrap();
    rig.driver.submit(1, 2, &[(DATA, 8, true)]);
    assert_eq!(rig.driver.complete(1), (2, 0));
    rig.driver.submit(1, 4, &[(DATA, 16, true)]);
    assert_eq!(rig.driver.complete(1), (4, 16));
    assert_eq!(rig.driver.get(DATA, 4), 0x8000_0000u32.to_le_bytes());
}

#[test]
fn tasks_are_managed_when_those_before_have_ended() {
    let rig = rig(2);
    for (first, queue) in [(0, 2), (4, 2), (0, 3)] {
        rig.submit(queue, first, [1, 0, 0x40, 0], &[0x28, 0, 0, 0, 0, 9, 0, 0, 4], &[], 2048);
    }
    assert_eq!(rig.manage(control::ABORT_TASK, [1, 0, 0x40, 0]), response::FUNCTION_COMPLETE);
    assert_eq!((rig.driver.used_index(2), rig.driver.used_index(3)), (2, 1));
    (0..2).for_each(|_| {
        rig.driver.complete(2);
    });
    assert_eq!(rig.manage(control::UNIT_RESET, [1, 0, 0x40, 1]), response::INCORRECT_LUN);
    assert_eq!(rig.manage(control::UNIT_RESET, [1, 9, 0x40, 0]), response::BAD_TARGET);
    assert_eq!(rig.manage(99, [1, 0, 0x40, 0]), response::FUNCTION_REJECTED);
    assert_eq!(rig.manage(control::UNIT_RESET, [1, 0, 0x40, 0]), response::FUNCTION_COMPLETE);
    assert_eq!(rig.run(0, &[0], &[], 0).sense, (6, 0x29));
    assert_eq!(rig.run(0, &[0], &[], 0).status, 0);
    assert_eq!(rig.control(&[9, 0, 0, 0], 1), [response::FAILURE]);
}

#[test]
fn a_request_without_its_parts_breaks_the_device() {
    let rig = rig(1);
    rig.driver.submit(2, 0, &[(DATA, 50, false), (DATA + 0x1000, 108, true)]);
    wait_for("the device's end", || rig.driver.status() & 0x40 != 0);
}

#[test]
fn state_is_restored() {
    let rig = rig(1);
    rig.run(1, &[0x1e, 0, 0, 0, 1], &[], 0);
    rig.manage(control::UNIT_RESET, [1, 0, 0x40, 0]);
    rig.control(&[&[2, 0, 0, 0, 1, 1, 0x40, 0][..], &[0; 4], &16u32.to_le_bytes()].concat(), 5);
    rig.driver.function.pause();
    let saved = rig.driver.function.save();
    rig.driver.function.reset();
    assert_ne!(rig.driver.function.save(), saved);
    assert!(!rig.tray.is_locked());
    rig.driver.function.restore(&saved).unwrap();
    assert_eq!(rig.driver.function.save(), saved);
    rig.driver.function.resume();
    assert!(rig.tray.is_locked());
    assert_eq!(rig.run(0, &[0], &[], 0).sense, (6, 0x29));
    let device = rig.driver.function.device();
    let mut broken: ScsiState = lodge_savestate::from_record(&device.save()).unwrap();
    broken.subscribed = vec![9];
    assert!(device.restore(&lodge_savestate::to_record(&broken)).is_err());
}

/// Requests with random commands, parts and addresses, on both queues and the control queue.
#[test]
fn requests_at_random_do_no_harm() {
    let rig = rig(2);
    let mut numbers = Random(0x9e37_79b9_7f4a_7c15);
    let mut random = |most: u64| numbers.below(most);
    let codes = [
        0, 3, 8, 0xa, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x55, 0x5a, 0x88, 0x8a, 0x93,
        0x9e, 0xa0,
    ];
    for step in 0..steps(60_000) {
        let queue = [0, 2, 2, 3, 3][random(5) as usize];
        let mut bytes: Vec<u8> =
            (0..REQUEST + 32).map(|_| if random(3) == 0 { random(256) as u8 } else { 0 }).collect();
        bytes[..4]
            .copy_from_slice(&[[1, 0, 0x40, 0], [1, 1, 0x40, 0], [1, 1, 0x40, 3], [9, 9, 9, 9]][random(4) as usize]);
        bytes[REQUEST] = codes[random(codes.len() as u64) as usize];
        if queue == 0 {
            bytes[..8].copy_from_slice(&[random(4) as u8, 0, 0, 0, random(9) as u8, 0, 0, 0]);
            bytes[8..12].copy_from_slice(&[1, random(3) as u8, 0x40, 0]);
        }
        rig.driver.put(DATA, &bytes);
        let mut parts = vec![(DATA, bytes.len() as u32, false)];
        if random(2) == 0 {
            parts.push((DATA + 0x1000, 1 + random(2000) as u32, false));
        }
        parts.push((DATA + 0x3000, 108, true));
        if random(2) == 0 {
            parts.push((IN, 1 + random(0x2_0000) as u32, true));
        }
        rig.driver.submit(queue, 0, &parts);
        rig.driver.complete(queue);
        match random(400) {
            0 => drop(rig.tray.eject()),
            1 => drop(rig.tray.insert(file(12 * 2048))),
            2 => {
                rig.driver.function.pause();
                let saved = rig.driver.function.save();
                rig.driver.function.restore(&saved).unwrap();
                assert_eq!(rig.driver.function.save(), saved, "{step}");
                rig.driver.function.resume();
            }
            3 => rig.driver.start(0),
            _ => {}
        }
    }
    assert_eq!(rig.run(0, &[0x12, 0, 0, 0, 36], &[], 36).data.len(), 36);
}
