//! Mutated images of every format go through information, checks, reading and repair: no panic, no hang, no memory
//! without bound, and nothing is written but by a repair.
//!
//! `LODGE_DISK_MUTATIONS` says how many of each format (2,000 without it).

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Folder, name, qemu_img, qemu_io, rng};
use lodge_disk::{Format, Image};
use rand::Rng;
use rand::rngs::StdRng;

/// An image that takes longer than this hangs: others take milliseconds.
const LONGEST: Duration = Duration::from_secs(60);
/// Most kilobytes of memory that this process may ever have had.
const MOST_MEMORY: u64 = 1 << 20;

/// An image to mutate, and where its tables are.
struct Seed {
    format: Format,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Places that are mutated more often than others.
    tables: Vec<std::ops::Range<usize>>,
}

fn seeds(folder: &Folder) -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |format: Format, path: PathBuf, tables: &[std::ops::Range<usize>]| {
        let bytes = std::fs::read(&path).unwrap();
        let length = bytes.len();
        let tables = tables.iter().map(|range| range.start.min(length - 1)..range.end.min(length)).collect();
        seeds.push(Seed { format, path, bytes, tables });
    };
    let work = ["write -P 1 0 20k", "write -z 64k 8k", "write -P 2 300k 9k"];
    for (number, shape) in [
        "cluster_size=512",
        "compat=0.10,cluster_size=512",
        "cluster_size=1024,refcount_bits=1",
        "cluster_size=512,compression_type=zstd",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.file(&format!("{number}.qcow2"));
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", shape, name(&path), "1M"]);
        qemu_io(&path, &work);
        if !shape.contains("refcount_bits=1") {
            qemu_io(&path, &["write -c -P 7 200k 4k"]);
            qemu_img(&["snapshot", "-c", "one", name(&path)]);
            qemu_io(&path, &["write -P 3 1k 3k"]);
        }
        add(Format::Qcow2, path, &[0..112, 0..112, 0..4096, 0..20_000]);
    }
    let raw = folder.file("raw.img");
    let mut data = vec![0; 1 << 20];
    data[..70_000].fill(1);
    data[300_000..310_000].fill(2);
    std::fs::write(&raw, &data).unwrap();
    let mut convert = |format: Format, qemu: &str, options: &str, tables: &[std::ops::Range<usize>]| {
        let path = folder.file(&format!("{}.{format}", options.replace('=', "-")));
        qemu_img(&["convert", "-f", "raw", "-O", qemu, "-o", options, name(&raw), name(&path)]);
        add(format, path, tables);
    };
    convert(Format::Vmdk, "vmdk", "subformat=monolithicSparse", &[0..80, 512..1600, 10_000..24_000]);
    convert(Format::Vmdk, "vmdk", "subformat=streamOptimized", &[0..80, 512..1600, 10_000..80_000]);
    convert(Format::Vmdk, "vmdk", "subformat=twoGbMaxExtentFlat", &[0..500, 20..500]);
    convert(Format::Vdi, "vdi", "static=off", &[0..512, 64..80, 336..400, 512..540]);
    convert(Format::Vhd, "vpc", "subformat=dynamic", &[0..512, 512..1536, 1536..2048]);
    convert(Format::Vhd, "vpc", "subformat=fixed", &[1_000_000..2_000_000, 1_048_576..2_000_000]);
    let areas = [65_536..65_620, 131_072..131_160, 196_608..196_700, 262_144..262_240, 1 << 20..3 << 20];
    convert(Format::Vhdx, "vhdx", "subformat=dynamic", &areas);
    // What is there may look like another format's.
    convert(Format::Raw, "raw", "preallocation=off", &[0..8, 0..512, (1 << 20) - 512..1 << 20]);
    seeds
}

/// A few changes of a kind that tables don't expect: offsets and bytes.
fn mutations(seed: &Seed, rng: &mut StdRng) -> Vec<(usize, Vec<u8>)> {
    let length = seed.bytes.len();
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let area = if rng.random_ratio(1, 8) {
            0..length
        } else {
            seed.tables[rng.random_range(0..seed.tables.len())].clone()
        };
        let at = rng.random_range(area);
        let mut bytes = seed.bytes[at..(at + 8).min(length)].to_vec();
        match rng.random_range(0..7) {
            0 => bytes = vec![bytes[0] ^ 1 << rng.random_range(0..8)],
            1 => bytes = vec![rng.random()],
            2 => bytes.fill(0xff),
            3 => bytes.fill(0),
            // Another format's first bytes.
            4 if seed.format == Format::Raw => {
                let magics: [&[u8]; 6] =
                    [b"QFI\xfb\0\0\0\x03", b"KDMV\x01", b"COWD", b"conectix", b"vhdxfile", b"# Disk D"];
                bytes = magics[rng.random_range(0..magics.len())].to_vec();
                bytes.truncate(length - at);
            }
            4 => bytes.iter_mut().for_each(|byte| *byte = rng.random()),
            // What is elsewhere: pointers to other tables.
            5 => {
                let from = rng.random_range(0..length - 8) & !7;
                let count = bytes.len();
                bytes.copy_from_slice(&seed.bytes[from..from + count]);
            }
            _ => bytes[0] = bytes[0].wrapping_add(1),
        }
        changes.push((at, bytes));
    }
    if rng.random_ratio(3, 4) {
        changes.extend(checksums(seed, &changes));
    }
    changes
}

/// What makes the checksums right again, so that mutations get behind them.
fn checksums(seed: &Seed, changes: &[(usize, Vec<u8>)]) -> Vec<(usize, Vec<u8>)> {
    let mut bytes = std::borrow::Cow::Borrowed(seed.bytes.as_slice());
    let areas: &[(usize, usize, usize)] = match seed.format {
        Format::Vhdx => &[(65_536, 4096, 4), (131_072, 4096, 4), (196_608, 65_536, 4), (262_144, 65_536, 4)],
        Format::Vhd => &[(0, 512, 64), (512, 1024, 36), (seed.bytes.len() - 512, 512, 64)],
        _ => return Vec::new(),
    };
    for (at, change) in changes {
        if areas.iter().any(|(start, size, _)| (*start..start + size).contains(at)) {
            bytes.to_mut()[*at..at + change.len()].copy_from_slice(change);
        }
    }
    if matches!(bytes, std::borrow::Cow::Borrowed(_)) {
        return Vec::new();
    }
    let sum = |(start, size, place): &(usize, usize, usize)| {
        let mut area = bytes[*start..start + size].to_vec();
        area[*place..place + 4].fill(0);
        let sum = if seed.format == Format::Vhdx {
            crc32c(&area).to_le_bytes()
        } else {
            (!area.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)))).to_be_bytes()
        };
        (start + place, sum.to_vec())
    };
    areas.iter().map(sum).collect()
}

/// CRC-32C the slow way, so that it does not come from the library that is tested.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

/// Reads here and there, and follows extents for a while.
fn look_at(image: &dyn Image, rng: &mut StdRng) {
    let size = image.size();
    let mut data = vec![0; 64 << 10];
    let mut places = vec![0, size.saturating_sub(data.len() as u64), 196_608.min(size - 1) & !511];
    places.extend((0..6).map(|_| rng.random_range(0..size) & !511));
    for at in places {
        let length = (data.len() as u64).min(size - at) as usize;
        let _ = image.read_at(at, &mut [std::io::IoSliceMut::new(&mut data[..length])]);
    }
    let mut at = 0;
    for _ in 0..200 {
        if at >= size {
            break;
        }
        match image.extent(at, size - at) {
            Ok(extent) => {
                assert!(extent.length > 0 && extent.length <= size - at, "{extent:?} at {at} of {size}");
                at += extent.length;
            }
            Err(_) => at += 4096,
        }
    }
}

fn patch(file: &File, changes: impl Iterator<Item = (usize, Vec<u8>)>) {
    for (at, bytes) in changes {
        file.write_all_at(&bytes, at as u64).unwrap();
    }
}

/// What a mutated image goes through. Whether it could be opened.
fn try_all(seed: &Seed, path: &Path, rng: &mut StdRng, number: u64) -> bool {
    let _ = lodge_disk::info(path, Some(seed.format)).map(|info| info.details.len());
    let _ = lodge_disk::info(path, None);
    let _ = lodge_disk::info_chain(path, Some(seed.format));
    let _ = lodge_disk::check(path, Some(seed.format));
    let opened = lodge_disk::open_image(path, Some(seed.format), false);
    let is_open = opened.is_ok();
    if let Ok(image) = opened {
        look_at(&*image, rng);
    }
    if number.is_multiple_of(4) && seed.bytes.len() < 1 << 20 && seed.format == Format::Qcow2 {
        let before = std::fs::read(path).unwrap();
        if number.is_multiple_of(8)
            && let Ok(image) = lodge_disk::open_image(path, Some(seed.format), true)
        {
            let size = image.size();
            for _ in 0..12 {
                let at = rng.random_range(0..size) & !511;
                let length = rng.random_range(1..=40_u64).saturating_mul(512).min(size - at);
                let data = vec![9; length as usize];
                let _ = image.write_at(at, &[std::io::IoSlice::new(&data)]);
                let _ = image.discard(at, length);
                let _ = image.write_zeroes(at, length, rng.random());
                let _ = image.flush();
            }
        }
        if lodge_disk::repair(path, Some(seed.format)).is_ok_and(|report| report.repaired) {
            let after = lodge_disk::check(path, Some(seed.format)).unwrap();
            assert_eq!(after.errors, 0, "a repair left errors: {after:?}");
        }
        std::fs::write(path, before).unwrap();
    }
    is_open
}

/// The most memory that this process ever had, in kilobytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn mutated_images_do_no_harm() {
    let folder = Folder::new();
    let count: u64 = std::env::var("LODGE_DISK_MUTATIONS").map_or(2000, |text| text.parse().unwrap());
    let seeds = seeds(&folder);
    let files = folder.count();
    for format in [Format::Raw, Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vhd, Format::Vhdx] {
        let seeds: Vec<_> = seeds.iter().filter(|seed| seed.format == format).collect();
        let (mut opened, mut slowest) = (0, (Duration::ZERO, 0));
        for number in 0..count {
            let seed = seeds[number as usize % seeds.len()];
            let mut rng = rng(number << 3 | format as u64);
            let changes = mutations(seed, &mut rng);
            let file = OpenOptions::new().write(true).open(&seed.path).unwrap();
            patch(&file, changes.iter().cloned());
            let began = Instant::now();
            let done = catch_unwind(AssertUnwindSafe(|| try_all(seed, &seed.path, &mut rng, number)));
            let took = began.elapsed();
            let Ok(is_open) = done else { panic!("{format} number {number} panicked: {changes:x?}") };
            assert!(took < LONGEST, "{format} number {number} took {took:?}: {changes:x?}");
            slowest = slowest.max((took, number));
            opened += u64::from(is_open);
            let undo = changes.iter().rev().map(|(at, bytes)| (*at, seed.bytes[*at..at + bytes.len()].to_vec()));
            patch(&file, undo);
            if number % 64 == 0 {
                assert!(std::fs::read(&seed.path).unwrap() == seed.bytes, "{format} number {number} changed the image");
            }
        }
        eprintln!("{format}: {opened} of {count} could be opened; the slowest took {slowest:?}, {} KiB", peak());
        assert!(opened * 20 > count, "mutations of {format} don't get behind its header: {opened} of {count}");
    }
    assert_eq!(folder.count(), files, "files were made or removed");
    assert!(peak() < MOST_MEMORY, "{} KiB", peak());
}

/// An image whose 65,536 snapshots share an L1 table of 4,096 entries: what is shared must not be gone over for each.
#[test]
fn many_snapshots_of_the_same_cost_no_more_than_one() {
    const CLUSTER: usize = 512;
    const SNAPSHOTS: usize = 65_536;
    const ENTRIES: usize = 4096;
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", name(&path), "32M"]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.resize(bytes.len().next_multiple_of(CLUSTER), 0);
    let l1 = bytes.len();
    let seconds = l1 + ENTRIES * 8;
    for n in 0..ENTRIES {
        bytes.extend(((seconds + n * CLUSTER) as u64).to_be_bytes());
    }
    bytes.resize(seconds + ENTRIES * CLUSTER, 0);
    let table = bytes.len();
    for _ in 0..SNAPSHOTS {
        let mut entry = [0; 40];
        entry[..8].copy_from_slice(&(l1 as u64).to_be_bytes());
        entry[8..12].copy_from_slice(&(ENTRIES as u32).to_be_bytes());
        bytes.extend(entry);
    }
    bytes[60..64].copy_from_slice(&(SNAPSHOTS as u32).to_be_bytes());
    bytes[64..72].copy_from_slice(&(table as u64).to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let began = Instant::now();
    let report = lodge_disk::check(&path, None).unwrap();
    assert!(report.errors > 4000, "{}", report.errors);
    assert_eq!(lodge_disk::info(&path, None).unwrap().snapshots.len(), SNAPSHOTS);
    // No refcount of 16 bits holds so many references.
    let error = lodge_disk::repair(&path, None).unwrap_err().to_string();
    assert!(error.contains("more references than its refcounts can hold"), "{error}");
    assert!(std::fs::read(&path).unwrap() == bytes, "a repair that is refused changes nothing");
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    assert!(peak() < MOST_MEMORY, "{} KiB", peak());
}
