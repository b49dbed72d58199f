use std::io::Write;
use std::sync::atomic::AtomicBool;

use lodge_backend::RawDisk;
use vm_memory::{Bytes, GuestAddress};

use super::registers::command as c;
use super::*;
use crate::regions::Regions;
use crate::testing::Board;
use crate::transfer::{Failure, Transfer};

fn unit(sectors: usize, sata: bool) -> Unit {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![1; sectors * 512]).unwrap();
    Unit::new(Drive::Disk(Arc::new(RawDisk::open(file.path(), false).unwrap())), "serial", sata)
}

fn task(count: u16, lba: u64) -> Task {
    Task { count, lba, device: DEVICE_LBA, ..Task::default() }
}

#[test]
fn ranges_are_within_the_disk() {
    let mut unit = unit(2000, false);
    let give = |from: u64, count: u64| Ok(Some(Work::Give(Source::Medium(from * 512, count * 512), By::Dma)));
    assert_eq!(unit.command(&mut task(0, 3), c::READ_DMA), give(3, 256));
    assert_eq!(unit.command(&mut task(1, 1999), c::READ_DMA), give(1999, 1));
    assert_eq!(unit.command(&mut task(2, 1999), c::READ_DMA), Err(IDNF));
    assert_eq!(unit.command(&mut task(0, 0), c::READ_DMA_EXT), Err(IDNF), "65536 of them");
    assert_eq!(unit.command(&mut task(1, 0xffff_ffff_ffff), c::READ_DMA_EXT), Err(IDNF));
    // Cylinder 1, head 2, sector 3 of 16 heads with 63 sectors each.
    let by_place = |lba, device| Task { count: 1, lba, device, ..Task::default() };
    assert_eq!(unit.command(&mut by_place(0x103, 2), c::READ_DMA), give(1008 + 2 * 63 + 2, 1));
    assert_eq!(unit.command(&mut by_place(0x100, 2), c::READ_DMA), Err(IDNF), "sectors are numbered from 1 on");
    assert_eq!(unit.command(&mut by_place(0x140, 2), c::READ_DMA), Err(IDNF), "to 63");
    let mut small = by_place(0, 3);
    small.count = 10;
    assert_eq!(unit.command(&mut small, c::INITIALIZE_PARAMETERS), Ok(None));
    assert_eq!(unit.command(&mut by_place(0x105, 4), c::READ_DMA), Err(IDNF), "there are four heads now");
    assert_eq!(unit.command(&mut by_place(0x105, 3), c::READ_DMA), give(40 + 30 + 4, 1));
    small.count = 0;
    assert_eq!(unit.command(&mut small, c::INITIALIZE_PARAMETERS), Err(ABRT), "tracks of no sectors");
    assert_eq!(unit.command(&mut by_place(0x105, 3), c::READ_DMA), give(74, 1), "it stays as it was");
}

#[test]
fn writes_are_durable_where_that_is_wanted() {
    let mut unit = unit(100, false);
    let durable = |unit: &mut Unit, command| match unit.command(&mut task(1, 0), command) {
        Ok(Some(Work::Take { durable, .. })) => durable,
        other => panic!("{other:?}"),
    };
    assert!(!durable(&mut unit, c::WRITE_DMA_EXT) && durable(&mut unit, c::WRITE_DMA_FUA_EXT));
    let mut off = Task { features: 0x82, ..Task::default() };
    assert_eq!(unit.command(&mut off, c::SET_FEATURES), Ok(Some(Work::Flush)));
    assert!(durable(&mut unit, c::WRITE_DMA));
    let Ok(Some(Work::Give(Source::Bytes(words), _))) = unit.command(&mut task(0, 0), c::IDENTIFY) else { panic!() };
    assert_eq!(words[170] & 0x20, 0, "IDENTIFY tells");
    let state = unit.saved();
    unit.power_on();
    assert_ne!(unit.saved(), state);
    unit.restore(state.clone());
    assert_eq!(unit.saved(), state);
}

#[test]
fn the_largest_sector_is_told() {
    let mut unit = unit(100, false);
    let mut native = task(7, 0x1122_3344_5566);
    assert_eq!(unit.command(&mut native, c::READ_NATIVE_MAX), Ok(None));
    assert_eq!((native.lba, native.device), (0x1122_3300_0063, DEVICE_LBA));
    assert_eq!(unit.command(&mut native, c::READ_NATIVE_MAX_EXT), Ok(None));
    assert_eq!(native.lba, 99);
}

#[test]
fn queued_commands_and_their_log() {
    let mut unit = unit(100, true);
    let queued = Task { features: 8, lba: 92, ..Task::default() };
    assert_eq!(unit.queued(&queued, false), Ok(Work::Give(Source::Medium(92 * 512, 8 * 512), By::Dma)));
    assert_eq!(unit.queued(&Task { lba: 93, ..queued }, true), Err(IDNF));
    let task_of_it = Task { lba: 0x0102_0304_0506, count: 0x10, ..Task::default() };
    unit.state.queue_error = Some(QueueError { tag: Some(9), status: 0x41, error: UNC, task: task_of_it });
    let mut log = task(1, 0x10);
    let Ok(Some(Work::Give(Source::Bytes(bytes), _))) = unit.command(&mut log, c::READ_LOG_EXT) else { panic!() };
    assert_eq!((&bytes[..4], &bytes[4..11]), (&[9, 0, 0x41, UNC][..], &[6, 5, 4, 0, 3, 2, 1][..]));
    assert_eq!(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let Ok(Some(Work::Give(Source::Bytes(bytes), _))) = unit.command(&mut log, c::READ_LOG_EXT) else { panic!() };
    assert_eq!(bytes[0], 0x80, "it has been read");
    assert_eq!(unit.command(&mut task(1, 0x30), c::READ_LOG_EXT), Err(ABRT));
}

#[test]
fn ranges_can_be_trimmed() {
    let mut unit = unit(100, true);
    let mut trim = Task { features: 1, count: 1, ..Task::default() };
    assert_eq!(unit.command(&mut trim, c::DATA_SET_MANAGEMENT), Ok(Some(Work::Trim(512))));
    trim.count = 9;
    assert_eq!(unit.command(&mut trim, c::DATA_SET_MANAGEMENT), Err(ABRT));
    let medium = unit.medium().unwrap();
    let (memory, pausing) = (Board::new().memory, AtomicBool::new(false));
    let transfer = Transfer { disk: Some(&*medium), memory: &memory, current: &|| true, pausing: &pausing };
    let trim = |list: &[u8]| {
        memory.write_slice(list, GuestAddress(0x1000)).unwrap();
        let mut regions = Regions::default();
        regions.push(0x1000, 512);
        transfer.work(&Work::Trim(512), &mut regions)
    };
    let mut list = [0; 512];
    list[..8].copy_from_slice(&(8u64 | 8 << 48).to_le_bytes());
    assert_eq!(trim(&list), Ok(512));
    let mut bytes = [1; 512];
    medium.read_at(8 * 512, &mut [std::io::IoSliceMut::new(&mut bytes)]).unwrap();
    assert_eq!(bytes, [0; 512]);
    list[8..16].copy_from_slice(&(93u64 | 8 << 48).to_le_bytes());
    assert_eq!(trim(&list), Err(Failure::Refused(IDNF)));
}
