//! A disk in memory to compare with, and ways to read.

use std::io::{IoSlice, IoSliceMut};
use std::path::Path;

use lodge_backend::Disk;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use crate::common::{name, qemu_img};

/// Progress that nobody looks at.
pub fn go_on(_done: u64, _all: u64) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

pub fn read(disk: &dyn Disk, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0xaa; length];
    disk.read_at(offset, &mut [IoSliceMut::new(&mut data)])?;
    Ok(data)
}

/// All of a disk.
pub fn contents(disk: &dyn Disk) -> Vec<u8> {
    read(disk, 0, disk.size() as usize).unwrap()
}

/// All of an image as QEMU sees it.
pub fn qemu_contents(path: &Path, format: &str) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new().unwrap();
    qemu_img(&["convert", "-f", format, "-O", "raw", name(path), name(raw.path())]);
    std::fs::read(raw.path()).unwrap()
}

/// Random accesses through a disk and on bytes in memory, compared as they go.
pub fn exercise(disk: &dyn Disk, model: &mut [u8], rng: &mut StdRng, rounds: usize) {
    let sectors = model.len() / 512;
    for round in 0..rounds {
        let from = rng.random_range(0..sectors);
        let most = (sectors - from).min(if rng.random_ratio(1, 8) { 4096 } else { 64 });
        let (at, length) = (from * 512, rng.random_range(1..=most) * 512);
        let range = at..at + length;
        match rng.random_range(0..10) {
            0..=4 => {
                let mut data = vec![0; length];
                rng.fill_bytes(&mut data);
                // In two buffers, to have them cut.
                let (one, two) = data.split_at(rng.random_range(0..=length));
                disk.write_at(at as u64, &[IoSlice::new(one), IoSlice::new(two)]).unwrap();
                model[range].copy_from_slice(&data);
            }
            5 | 6 => {
                disk.write_zeroes(at as u64, length as u64, rng.random()).unwrap();
                model[range].fill(0);
            }
            7 => {
                disk.discard(at as u64, length as u64).unwrap();
                // Whatever is there now stays.
                let now = read(disk, at as u64, length).unwrap();
                model[range].copy_from_slice(&now);
            }
            8 => disk.flush().unwrap(),
            _ => assert!(read(disk, at as u64, length).unwrap() == model[range.clone()], "round {round} at {at:#x}"),
        }
    }
    assert!(contents(disk) == model, "the disk differs from what was written");
}
