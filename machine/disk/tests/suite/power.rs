//! A process that writes is killed at any moment: what was flushed is there, and the image is sound but for leaks.
//!
//! `LODGE_DISK_KILLS` says how often, for each format (20 without it). What a loss of power adds to that, that writes
//! reach the disk out of order, is tried in `src/qcow2/outage.rs`.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lodge_disk::{Create, Format, Options};
use rand::Rng;
use rand::rngs::StdRng;

use crate::common::{Folder, name, qemu_img, rng, tool};
use crate::model::read;

const SIZE: u64 = 24 << 20;
const SECTORS: u64 = SIZE / 512;
const CHILD: &str = "LODGE_DISK_CHILD";

/// One operation of the child: sectors from here on get this value, or are zeroed, or flushed.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Write { sector: u64, count: u64, value: u64 },
    Zero { sector: u64, count: u64 },
    Flush,
}

/// What the child of a round does, in order and for ever.
fn operation(round: u64, number: u64, rng: &mut StdRng) -> Operation {
    let sector = rng.random_range(0..SECTORS);
    let most = if rng.random_ratio(1, 4) { 600 } else { 16 };
    let count = rng.random_range(1..=most.min(SECTORS - sector));
    match rng.random_range(0..12) {
        0 => Operation::Flush,
        1 => Operation::Zero { sector, count },
        _ => Operation::Write { sector, count, value: round << 32 | number },
    }
}

fn options(path: &Path) -> Options {
    let format = if path.extension().unwrap() == "qcow2" { Format::Qcow2 } else { Format::Raw };
    Options { format: Some(format), ..Options::default() }
}

/// The child: this test does nothing unless it is called as one.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (round, path) = task.split_once(':').unwrap();
    let round = round.parse().unwrap();
    let disk = lodge_disk::open(Path::new(path), options(Path::new(path))).unwrap();
    let mut rng = rng(round);
    let mut out = std::io::stderr();
    writeln!(out, "begun").unwrap();
    for number in 1.. {
        match operation(round, number, &mut rng) {
            Operation::Write { sector, count, value } => {
                let data: Vec<u8> = (0..count * 64).flat_map(|_| value.to_le_bytes()).collect();
                disk.write_at(sector * 512, &[IoSlice::new(&data)]).unwrap();
            }
            Operation::Zero { sector, count } => disk.write_zeroes(sector * 512, count * 512, true).unwrap(),
            Operation::Flush => {
                disk.flush().unwrap();
                writeln!(out, "flushed {number}").unwrap();
            }
        }
    }
}

/// What a sector may hold: the last flushed value, or any that came later.
#[derive(Clone, Default)]
struct Allowed {
    values: Vec<u64>,
}

fn kill_and_look(path: &Path, round: u64, before: &mut [Allowed]) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{round}:{}", name(path)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("begun"), "the child did not open the image");
    std::thread::sleep(Duration::from_micros(rng(round ^ 0xabcd).random_range(0..60_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    let told = lines.filter_map(|line| line.strip_prefix("flushed ").and_then(|number| number.parse::<u64>().ok()));
    let flushed = told.last().unwrap_or(0);
    // The same again, on paper. What was never begun is harmless to allow: no value comes twice.
    let mut rng = rng(round);
    for number in 1..flushed + 5000 {
        let (sector, count, value) = match operation(round, number, &mut rng) {
            Operation::Write { sector, count, value } => (sector, count, value),
            Operation::Zero { sector, count } => (sector, count, 0),
            Operation::Flush => continue,
        };
        for allowed in &mut before[sector as usize..(sector + count) as usize] {
            if number <= flushed {
                allowed.values.clear();
            }
            allowed.values.push(value);
        }
    }
    flushed
}

#[test]
fn what_was_flushed_survives_a_kill() {
    let kills = std::env::var("LODGE_DISK_KILLS").map_or(20, |text| text.parse::<u64>().unwrap());
    for (file, shape) in
        [("a.img", ""), ("b.qcow2", "cluster_size=65536"), ("c.qcow2", "cluster_size=512,refcount_bits=64")]
    {
        let folder = Folder::new();
        let path = folder.file(file);
        if shape.is_empty() {
            let wanted =
                Create { size: Some(SIZE), format: Format::Raw, backing: None, preallocate: false, force: false };
            lodge_disk::create(&path, &wanted).unwrap();
        } else {
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", shape, name(&path), &SIZE.to_string()]);
        }
        let mut allowed = vec![Allowed { values: vec![0] }; SECTORS as usize];
        let mut flushes = 0;
        for round in 1..=kills {
            let flushed = kill_and_look(&path, round, &mut allowed);
            flushes += flushed;
            if !shape.is_empty() {
                let check = tool("qemu-img", &["check", "-f", "qcow2", name(&path)]);
                let text = String::from_utf8_lossy(&check.stdout).into_owned();
                // 3 says that there are leaks and nothing else.
                assert!(matches!(check.status.code(), Some(0 | 3)), "round {round}: {text}");
                let report = lodge_disk::check(&path, Some(Format::Qcow2)).unwrap();
                assert_eq!(report.errors, 0, "round {round}: {report:?}");
            }
            let disk = lodge_disk::open(&path, Options { readonly: true, ..options(&path) }).unwrap();
            let data = read(&*disk, 0, SIZE as usize).unwrap();
            for (sector, (data, allowed)) in data.chunks(512).zip(&mut allowed).enumerate() {
                let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                assert!(
                    data.chunks(8).all(|word| word == value.to_le_bytes()),
                    "round {round}: sector {sector} is torn"
                );
                let known = allowed.values.contains(&value);
                assert!(
                    known,
                    "{file} round {round}, flushed {flushed}: sector {sector} has {value:#x}, not {:x?}",
                    allowed.values
                );
                allowed.values = vec![value];
            }
        }
        assert!(flushes > 0, "no child came as far as a flush");
        if !shape.is_empty() {
            lodge_disk::repair(&path, Some(Format::Qcow2)).unwrap();
            qemu_img(&["check", "-f", "qcow2", name(&path)]);
        }
    }
}
