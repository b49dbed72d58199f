use std::io::{IoSlice, IoSliceMut, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;

fn image(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i / 7 + i / 512) as u8).collect()
}

fn read(disk: &dyn Disk, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    let (a, b) = data.split_at_mut(length / 3);
    disk.read_at(offset, &mut [IoSliceMut::new(a), IoSliceMut::new(b)]).unwrap();
    data
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let (directory, path) = image(&[]);
    let text = |path: &std::path::Path| RawDisk::open(path, false).unwrap_err().to_string();
    assert!(text(&path).contains("is empty"));
    std::fs::write(&path, [0; 513]).unwrap();
    assert!(text(&path).contains("513 bytes, which is no multiple of 512"));
    assert!(text(&directory.path().join("none")).contains("can't be opened: No such file"));
    assert!(matches!(RawDisk::open(directory.path(), true), Err(DiskError::Kind { .. })));
}

#[test]
fn a_second_writer_is_refused() {
    let (_directory, path) = image(&[0; 512]);
    let writer = RawDisk::open(&path, false).unwrap();
    assert!(matches!(RawDisk::open(&path, false), Err(DiskError::InUse { .. })));
    assert!(matches!(RawDisk::open(&path, true), Err(DiskError::InUse { .. })));
    drop(writer);
    let _reader = RawDisk::open(&path, true).unwrap();
    RawDisk::open(&path, true).unwrap();
    assert!(matches!(RawDisk::open(&path, false), Err(DiskError::InUse { .. })));
}

#[test]
fn reads_and_writes_land_where_they_should() {
    let data = pattern(1 << 20);
    let (_directory, path) = image(&data);
    let disk = RawDisk::open(&path, false).unwrap();
    assert_eq!(disk.size(), 1 << 20);
    assert_eq!(read(&disk, 12_345, 54_321), data[12_345..12_345 + 54_321]);
    disk.write_at(1000, &[IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"def")]).unwrap();
    assert_eq!(read(&disk, 999, 8), [&[data[999]], b"abcdef".as_slice(), &[data[1006]]].concat());
    disk.flush().unwrap();
    disk.write_zeroes(4096, 8192, true).unwrap();
    disk.write_zeroes(20_000, 100, false).unwrap();
    assert_eq!(read(&disk, 4096, 8192), [0; 8192]);
    assert_eq!(read(&disk, 19_999, 102)[1..101], [0; 100]);
    disk.discard(0, 1 << 20).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
}

#[test]
fn accesses_beyond_the_end_are_errors_and_touch_nothing() {
    let (_directory, path) = image(&[7; 1024]);
    let disk = RawDisk::open(&path, false).unwrap();
    assert!(disk.write_at(1000, &[IoSlice::new(&[1; 25])]).is_err());
    assert!(disk.read_at(u64::MAX, &mut [IoSliceMut::new(&mut [0; 2])]).is_err());
    assert!(disk.write_zeroes(0, u64::MAX, true).is_err());
    assert!(disk.discard(1024, 1).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), [7; 1024]);
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (_directory, path) = image(&[7; 1024]);
    let disk = RawDisk::open(&path, true).unwrap();
    assert!(disk.is_read_only());
    assert!(disk.write_at(0, &[IoSlice::new(&[1])]).is_err());
    assert!(disk.write_zeroes(0, 512, false).is_err());
    assert!(disk.discard(0, 512).is_err());
    disk.flush().unwrap();
}

#[test]
fn an_overlay_keeps_writes_to_itself() {
    let data = pattern(300_000 / 512 * 512);
    let (directory, path) = image(&data);
    let below = Arc::new(RawDisk::open(&path, true).unwrap());
    let disk = Overlay::new(below, directory.path()).unwrap();
    let mut expected = data.clone();
    let mut seed = 1u64;
    for _ in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (seed >> 33) as usize % data.len();
        let length = ((seed >> 13) as usize % 100_000).min(data.len() - offset);
        if seed & 0x100 == 0 {
            expected[offset..offset + length].fill(seed as u8);
            disk.write_at(offset as u64, &[IoSlice::new(&vec![seed as u8; length])]).unwrap();
        } else if seed & 0x200 == 0 {
            expected[offset..offset + length].fill(0);
            disk.write_zeroes(offset as u64, length as u64, true).unwrap();
        }
        assert_eq!(read(&disk, offset as u64, length), expected[offset..offset + length]);
    }
    assert_eq!(read(&disk, 0, data.len()), expected);
    drop(disk);
    assert_eq!(std::fs::read(&path).unwrap(), data, "the image is as it was");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "and nothing is left beside it");
}

#[test]
fn a_full_host_disk_is_an_error_and_keeps_what_was_written() {
    // A limit on the file size fails a write just as a full file system does; /dev/full fails every one.
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(full.write(b"x").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let error = super::raw::write_all(&file, 0, &[IoSlice::new(&[1; 4096])]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_short_image_is_padded_with_zeroes_that_stay() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 1024]).unwrap();
    let disk = Padded::new(Arc::new(RawDisk::open(file.path(), false).unwrap()), 2048);
    assert_eq!(disk.size(), 2048);
    let (mut first, mut second) = ([1; 700], [1; 324]);
    disk.read_at(1024 - 512, &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]).unwrap();
    assert!(first[..512].iter().all(|byte| *byte == 7) && first[512..].iter().chain(&second).all(|byte| *byte == 0));
    disk.write_at(512, &[IoSlice::new(&[9; 512])]).unwrap();
    assert!(disk.write_at(1023, &[IoSlice::new(&[9; 2])]).is_err());
    assert!(disk.read_at(1537, &mut [IoSliceMut::new(&mut [0; 512])]).is_err());
    assert_eq!(file.path().metadata().unwrap().len(), 1024);
}

#[test]
fn vast_ranges_are_cut_where_clusters_end() {
    const MIB: u64 = 1 << 20;
    let cut = |from: u64, length: u64| {
        let mut pieces = Vec::new();
        let whole = stretches(from, length, &|| true, |from, length| {
            pieces.push((from, length));
            Ok(())
        });
        assert!(whole.unwrap());
        pieces
    };
    assert_eq!(cut(512, 64 * MIB), [(512, 64 * MIB)], "little is done at once");
    assert_eq!(cut(512, 64 * MIB + 512), [(512, 64 * MIB - 512), (64 * MIB, 1024)]);
    assert_eq!(cut(64 * MIB, 160 * MIB), [(64 * MIB, 64 * MIB), (128 * MIB, 64 * MIB), (192 * MIB, 32 * MIB)]);
    assert_eq!(cut(7, 0), []);
    let mut left = 2;
    let wanted = std::cell::Cell::new(true);
    let whole = stretches(0, u64::MAX, &|| wanted.get(), |_, _| {
        left -= 1;
        wanted.set(left > 0);
        Ok(())
    });
    assert!(!whole.unwrap() && left == 0);
}
