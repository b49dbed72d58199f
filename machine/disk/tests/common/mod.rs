//! What the tests share: QEMU's tools, patterns, and a disk in memory to compare with.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part")]

use std::io::{IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lodge_backend::Disk;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// Runs one of QEMU's tools, which the package `qemu-utils` has.
pub fn tool(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} can't be run ({error}); install the package qemu-utils"))
}

/// What `qemu-img` says; it has to succeed.
pub fn qemu_img(arguments: &[&str]) -> String {
    let output = tool("qemu-img", arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "qemu-img {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Carries out commands of `qemu-io` on an image.
pub fn qemu_io(path: &Path, commands: &[&str]) {
    let mut arguments = Vec::new();
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(name(path));
    let output = tool("qemu-io", &arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path as text.
pub fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder and a way to name files in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

/// Progress that nobody looks at.
pub fn go_on(_done: u64, _all: u64) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
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
