//! qcow2 images agree with QEMU's, in both directions, whatever is done to them.

use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use lodge_backend::Disk;
use lodge_disk::{Backing, Convert, Create, Format, Options};
use rand::{Rng, RngCore};

use crate::common::{Folder, name, qemu_img, qemu_io, rng};
use crate::model::{contents, exercise, go_on, qemu_contents, read};

const MIB: u64 = 1 << 20;

fn open(path: &Path) -> Arc<dyn Disk> {
    lodge_disk::open(path, Options { format: Some(Format::Qcow2), ..Options::default() }).unwrap()
}

fn open_to_read(path: &Path) -> Arc<dyn Disk> {
    lodge_disk::open(path, Options { format: Some(Format::Qcow2), readonly: true, ..Options::default() }).unwrap()
}

/// Neither QEMU nor lodge finds anything wrong, nor lost.
fn sound(path: &Path) {
    qemu_img(&["check", "-f", "qcow2", name(path)]);
    let report = lodge_disk::check(path, Some(Format::Qcow2)).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn random_accesses_to_images_of_all_shapes_leave_what_qemu_reads() {
    let shapes = [
        "compat=1.1",
        "compat=0.10",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=4096,refcount_bits=1",
        "compat=1.1,cluster_size=2M",
        "compat=1.1,refcount_bits=64,cluster_size=32768",
        "compat=1.1,refcount_bits=8,lazy_refcounts=on",
        "compat=1.1,compression_type=zstd",
        "compat=0.10,cluster_size=1024",
        "compat=1.1,preallocation=metadata",
        "compat=1.1,refcount_bits=2,cluster_size=8192",
    ];
    for (number, shape) in shapes.iter().enumerate() {
        for below in [None, Some("raw"), Some("qcow2")] {
            if below.is_some() && shape.contains("preallocation") {
                continue;
            }
            let folder = Folder::new();
            let mut rng = rng(number as u64 * 3 + below.map_or(0, |format| format.len() as u64));
            // No multiple of a cluster, and longer than what is below.
            let size = 6 * MIB as usize + 512 * rng.random_range(1..100);
            let mut model = vec![0; size];
            let (path, base) = (folder.file("a.qcow2"), folder.file("base.img"));
            let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", shape];
            if let Some(format) = below {
                let raw = folder.file("raw.img");
                rng.fill_bytes(&mut model[..4 * MIB as usize - 512]);
                model[MIB as usize..2 * MIB as usize].fill(0);
                std::fs::write(&raw, &model[..4 * MIB as usize - 512]).unwrap();
                let how: &[&str] = if format == "qcow2" { &["-c", "-O", "qcow2"] } else { &["-O", "raw"] };
                qemu_img(&[&["convert", "-f", "raw"], how, &[name(&raw), name(&base)]].concat());
                arguments.extend(["-F", format, "-b", "base.img"]);
            }
            let text = size.to_string();
            arguments.extend([name(&path), &text]);
            qemu_img(&arguments);
            exercise(&*open(&path), &mut model, &mut rng, 150);
            sound(&path);
            assert!(qemu_contents(&path, "qcow2") == model, "{shape}, {below:?}");
            // Opened again, after QEMU wrote to it, compressed too.
            qemu_io(&path, &["write -P 7 1M 300k", "write -z 5M 100k", "discard 3M 200k"]);
            // QEMU refuses to compress what has a cluster already, which depends on the shape.
            crate::common::tool("qemu-io", &["-c", "discard 2M 2M", "-c", "write -c -P 9 2M 128k", name(&path)]);
            model = qemu_contents(&path, "qcow2");
            let disk = open(&path);
            assert!(contents(&*disk) == model, "{shape}, {below:?}");
            exercise(&*disk, &mut model, &mut rng, 60);
            drop(disk);
            sound(&path);
            assert!(qemu_contents(&path, "qcow2") == model, "{shape}, {below:?}");
        }
    }
}

#[test]
fn snapshots_within_keep_what_they_were_made_of() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", name(&path), "8M"]);
    let mut model = vec![0; 8 << 20];
    let mut rng = rng(5);
    exercise(&*open(&path), &mut model, &mut rng, 80);
    qemu_io(&path, &["write -c -P 3 1M 64k"]);
    let at_snapshot = qemu_contents(&path, "qcow2");
    qemu_img(&["snapshot", "-c", "one", name(&path)]);
    model.copy_from_slice(&at_snapshot);
    exercise(&*open(&path), &mut model, &mut rng, 120);
    sound(&path);
    assert!(qemu_contents(&path, "qcow2") == model);
    let info = lodge_disk::info(&path, None).unwrap();
    assert_eq!(info.snapshots.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one"]);
    // What has snapshots is neither resized nor rewritten.
    assert!(lodge_disk::resize(&path, None, 16 << 20, false).unwrap_err().to_string().contains("has snapshots"));
    assert!(lodge_disk::compact(&path, None, &mut go_on).unwrap_err().to_string().contains("snapshots"));
    qemu_img(&["snapshot", "-a", "one", name(&path)]);
    assert!(contents(&*open(&path)) == at_snapshot, "the snapshot was changed");
    qemu_img(&["snapshot", "-d", "one", name(&path)]);
    sound(&path);
}

#[test]
fn a_chain_of_three_is_read_through_and_only_its_top_is_written() {
    let folder = Folder::new();
    let (raw, middle, top) = (folder.file("raw.img"), folder.file("middle.qcow2"), folder.file("top.qcow2"));
    let mut model = vec![0; 3 << 20];
    let mut rng = rng(9);
    rng.fill_bytes(&mut model);
    std::fs::write(&raw, &model).unwrap();
    let on = |below: &Path, format| Create {
        size: None,
        format: Format::Qcow2,
        backing: Some(Backing { path: below.to_owned(), format: Some(format) }),
        preallocate: false,
        force: false,
    };
    lodge_disk::create(&middle, &on(&raw, Format::Raw)).unwrap();
    exercise(&*open(&middle), &mut model, &mut rng, 20);
    lodge_disk::create(&top, &on(&middle, Format::Qcow2)).unwrap();
    let before = (std::fs::read(&raw).unwrap(), std::fs::read(&middle).unwrap());
    exercise(&*open(&top), &mut model, &mut rng, 40);
    assert!(before == (std::fs::read(&raw).unwrap(), std::fs::read(&middle).unwrap()), "what is below was written");
    assert!(qemu_contents(&top, "qcow2") == model);
    sound(&top);
    let chain = lodge_disk::info_chain(&top, None).unwrap();
    assert_eq!(chain.iter().map(|info| info.format).collect::<Vec<_>>(), ["qcow2", "qcow2", "raw"]);
    assert_eq!(chain[0].backing.as_deref(), Some("middle.qcow2"), "names are relative");
}

#[test]
fn sizes_change_as_qemu_would_change_them() {
    for (shape, size) in [("cluster_size=512", 1000 << 10), ("cluster_size=65536", 5 << 20), ("compat=0.10", 3 << 20)] {
        let folder = Folder::new();
        let (path, base) = (folder.file("a.qcow2"), folder.file("base.img"));
        let mut rng = rng(size as u64);
        let mut model = vec![0; size];
        rng.fill_bytes(&mut model);
        // What is below is longer than the image, and must not show when that grows.
        std::fs::write(&base, vec![0x77; size + (2 << 20)]).unwrap();
        let text = size.to_string();
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", shape, "-F", "raw", "-b", "base.img", name(&path), &text]);
        open(&path).write_at(0, &[IoSlice::new(&model)]).unwrap();
        for new in [size + 512 * 77, size + (1 << 20), 64 << 20, size / 2 + 512, size, 1 << 20] {
            lodge_disk::resize(&path, None, new as u64, true).unwrap();
            model.resize(new, 0);
            assert!(contents(&*open_to_read(&path)) == model, "{shape} {new}");
            sound(&path);
            exercise(&*open(&path), &mut model, &mut rng, 10);
        }
        sound(&path);
        assert!(qemu_contents(&path, "qcow2") == model);
        let error = lodge_disk::resize(&path, None, 4096, false).unwrap_err().to_string();
        assert!(error.contains("would be lost; add `--shrink`"), "{error}");
        assert_eq!(open(&path).size(), model.len() as u64);
    }
}

#[test]
fn what_is_made_here_is_as_qemu_expects() {
    let folder = Folder::new();
    for (number, (size, preallocate)) in
        [(512, false), (10 * MIB, true), (1 << 40, false), (3 * MIB + 512, true)].into_iter().enumerate()
    {
        let path = folder.file(&format!("{number}.qcow2"));
        let wanted = Create { size: Some(size), format: Format::Qcow2, backing: None, preallocate, force: false };
        lodge_disk::create(&path, &wanted).unwrap();
        sound(&path);
        let info: serde_json::Value = serde_json::from_str(&qemu_img(&["info", "--output=json", name(&path)])).unwrap();
        assert_eq!((info["virtual-size"].as_u64(), info["format"].as_str()), (Some(size), Some("qcow2")));
        assert_eq!(info["dirty-flag"].as_bool(), Some(false));
        if preallocate {
            assert!(info["actual-size"].as_u64().unwrap() >= size, "{info}");
            assert!(qemu_contents(&path, "qcow2").iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn compressed_copies_are_read_by_qemu_and_can_be_written() {
    let folder = Folder::new();
    let (raw, path) = (folder.file("raw.img"), folder.file("a.qcow2"));
    let mut model: Vec<u8> = (0..9 * MIB).map(|n| (n / 1000) as u8).collect();
    let mut rng = rng(1);
    rng.fill_bytes(&mut model[MIB as usize..2 * MIB as usize]);
    model[4 << 20..6 << 20].fill(0);
    model.truncate((9 << 20) - 1024);
    std::fs::write(&raw, &model).unwrap();
    let how = Convert { from: None, format: Format::Qcow2, compress: true, force: false };
    let mut told = Vec::new();
    lodge_disk::convert(&raw, &path, how, &mut |done, all| {
        told.push((done, all));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(told.last(), Some(&(model.len() as u64, model.len() as u64)));
    assert!(std::fs::metadata(&path).unwrap().len() < 3 * MIB, "it is not compressed");
    sound(&path);
    assert!(qemu_contents(&path, "qcow2") == model);
    exercise(&*open(&path), &mut model, &mut rng, 200);
    sound(&path);
    assert!(qemu_contents(&path, "qcow2") == model);
}

#[test]
fn compacting_drops_zeroes_and_what_is_unused_and_keeps_the_rest() {
    for (shape, below) in [("cluster_size=65536", false), ("cluster_size=4096,compression_type=zstd", true)] {
        let folder = Folder::new();
        let (path, base) = (folder.file("a.qcow2"), folder.file("base.img"));
        std::fs::write(&base, vec![5; 16 << 20]).unwrap();
        let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", shape];
        arguments.extend(if below { &["-F", "raw", "-b", "base.img"][..] } else { &[] });
        arguments.extend([name(&path), "16M"]);
        qemu_img(&arguments);
        qemu_io(&path, &["write -P 1 0 8M", "write -P 0 1M 6M", "write -c -P 6 9M 256k", "write -z 12M 1M"]);
        let model = qemu_contents(&path, "qcow2");
        let done = lodge_disk::compact(&path, None, &mut go_on).unwrap();
        assert!(done.before > 7 * MIB && done.after < 3 * MIB, "{done:?}");
        sound(&path);
        assert!(qemu_contents(&path, "qcow2") == model);
        assert_eq!(lodge_disk::info(&path, None).unwrap().backing.is_some(), below);
        assert_eq!(folder.count(), 2, "nothing else is left");
    }
}

#[test]
fn discards_give_space_back_after_a_flush() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "64M"]);
    let disk = open(&path);
    disk.write_at(0, &[IoSlice::new(&vec![1; 32 << 20])]).unwrap();
    disk.flush().unwrap();
    let allocated = || lodge_disk::info(&path, None).unwrap().allocated;
    assert!(allocated() >= 32 * MIB);
    disk.discard(0, 32 * MIB).unwrap();
    disk.flush().unwrap();
    assert!(allocated() < MIB, "{}", allocated());
    disk.write_at(0, &[IoSlice::new(&vec![2; 32 << 20])]).unwrap();
    drop(disk);
    assert!(std::fs::metadata(&path).unwrap().len() < 34 * MIB, "freed clusters are used again");
    sound(&path);
}

#[test]
fn threads_write_at_once() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", name(&path), "16M"]);
    let disk = open(&path);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let disk = &disk;
            scope.spawn(move || {
                let mut rng = rng(thread);
                // Sectors of one cluster belong to different threads.
                for n in 0..1500 {
                    let sector = rng.random_range(0..(16 * MIB / 512 / 4)) * 4 + thread;
                    disk.write_at(sector * 512, &[IoSlice::new(&[thread as u8 + 1; 512])]).unwrap();
                    assert_eq!(read(&**disk, sector * 512, 512).unwrap(), [thread as u8 + 1; 512]);
                    if n % 300 == 0 {
                        disk.flush().unwrap();
                    } else if n % 100 == 0 {
                        disk.write_zeroes(sector * 512, 512, true).unwrap();
                    }
                }
            });
        }
    });
    let model = contents(&*disk);
    for (sector, data) in model.chunks(512).enumerate() {
        assert!(data.iter().all(|byte| *byte == 0 || usize::from(*byte) == sector % 4 + 1), "sector {sector}");
    }
    drop(disk);
    sound(&path);
    assert!(qemu_contents(&path, "qcow2") == model);
}

#[test]
fn wrong_refcounts_are_found_and_made_right() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    for (shape, field) in [("cluster_size=512", 512), ("cluster_size=65536", 65536)] {
        let _ = std::fs::remove_file(&path);
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", shape, name(&path), "4M"]);
        qemu_io(&path, &["write -P 3 0 1M", "write -c -P 4 2M 64k"]);
        let model = qemu_contents(&path, "qcow2");
        // The first refcount block, all gone; then a leak.
        let mut bytes = std::fs::read(&path).unwrap();
        let block = u64::from_be_bytes(bytes[field..field + 8].try_into().unwrap()) as usize;
        bytes[block + 8..block + 40].fill(0);
        let end = bytes.len();
        bytes.resize(end + (128 << 10), 0);
        std::fs::write(&path, &bytes).unwrap();
        let report = lodge_disk::check(&path, None).unwrap();
        assert!(report.errors >= 4 && !report.repaired, "{report:?}");
        assert!(std::fs::read(&path).unwrap() == bytes, "a check wrote to the image");
        assert!(lodge_disk::repair(&path, None).unwrap().repaired);
        sound(&path);
        assert!(qemu_contents(&path, "qcow2") == model);
    }
}

#[test]
fn an_image_that_was_not_closed_is_mended_when_it_is_opened_for_writing() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", name(&path), "4M"]);
    // qemu-io dies before it writes refcounts.
    let died = crate::common::tool("qemu-io", &["-c", "write -P 3 0 1M", "-c", "sigraise 9", name(&path)]);
    assert!(!died.status.success());
    assert!(lodge_disk::info(&path, None).unwrap().details.contains_key("not closed cleanly"));
    assert_eq!(read(&*open_to_read(&path), 0, 512).unwrap(), [3; 512]);
    let disk = open(&path);
    assert_eq!(read(&*disk, 0, 512).unwrap(), [3; 512]);
    disk.write_at(2 << 20, &[IoSlice::new(&[4; 512])]).unwrap();
    drop(disk);
    sound(&path);
    assert_eq!(qemu_contents(&path, "qcow2")[..512], [3; 512]);
}

#[test]
fn bitmaps_count_as_used_until_the_disk_is_written() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "4M"]);
    qemu_img(&["bitmap", "--add", name(&path), "changes"]);
    qemu_io(&path, &["write -P 3 0 1M"]);
    sound(&path);
    drop(open(&path));
    qemu_img(&["info", name(&path)]);
    // QEMU says itself that the bitmap is of no use now; its clusters are leaks.
    let report = lodge_disk::repair(&path, None).unwrap();
    assert_eq!(report.errors, 0, "{report:?}");
    sound(&path);
}

#[test]
fn what_is_not_known_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    for (options, expected) in [
        ("extended_l2=on", "has subclusters, which lodge can't use; make an image without"),
        ("data_file=DATA", "has its data in another file, which lodge can't use"),
    ] {
        let _ = std::fs::remove_file(&path);
        let options = options.replace("DATA", name(&folder.file("data")));
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, name(&path), "4M"]);
        let error = lodge_disk::open(&path, Options::default()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(lodge_disk::info(&path, None).unwrap().size, 4 << 20);
    }
    let _ = std::fs::remove_file(&path);
    // Making an encrypted one measures how long this host takes to hash, which a busy one does not always answer: the
    // header's field alone says LUKS (QEMU docs/interop/qcow2, "crypt_method").
    qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "1M"]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[32..36].copy_from_slice(&2u32.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = lodge_disk::open(&path, Options::default()).err().unwrap().to_string();
    assert!(error.contains("has encrypted contents"), "{error}");
}
