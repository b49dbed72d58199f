//! Every format is read as QEMU reads it; conversions agree; what can't be used is refused in one clear line.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use lodge_disk::{Backing, Convert, Create, DiskError, Format, Options};
use rand::RngCore;

use crate::common::{Folder, name, qemu_img, qemu_io, rng};
use crate::model::{contents, exercise, go_on, qemu_contents, read};

const MIB: usize = 1 << 20;

/// Formats and subformats as QEMU writes them.
const KINDS: [(Format, &str, &str); 13] = [
    (Format::Raw, "raw", ""),
    (Format::Qcow2, "qcow2", "compat=1.1"),
    (Format::Qcow2, "qcow2", "compat=0.10"),
    (Format::Vmdk, "vmdk", "subformat=monolithicSparse"),
    (Format::Vmdk, "vmdk", "subformat=streamOptimized"),
    (Format::Vmdk, "vmdk", "subformat=monolithicFlat"),
    (Format::Vmdk, "vmdk", "subformat=twoGbMaxExtentSparse"),
    (Format::Vmdk, "vmdk", "subformat=twoGbMaxExtentFlat"),
    (Format::Vdi, "vdi", "static=off"),
    (Format::Vdi, "vdi", "static=on"),
    (Format::Vhd, "vpc", "subformat=dynamic"),
    (Format::Vhd, "vpc", "subformat=fixed,force_size=on"),
    (Format::Vhdx, "vhdx", "subformat=dynamic"),
];

/// A disk with data, zeroes and holes.
fn sample(size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    rng(size as u64).fill_bytes(&mut data[3 * MIB / 2..4 * MIB]);
    data[..MIB].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n / 300) as u8);
    data[2 * MIB..2 * MIB + 70_000].fill(0);
    rng(1).fill_bytes(&mut data[size - 40 * 512..]);
    data
}

fn make(folder: &Folder, raw: &Path, number: usize) -> PathBuf {
    let (format, qemu, options) = KINDS[number];
    let extension = if format == Format::Raw { "img" } else { format.name() };
    let path = folder.file(&format!("{number}.{extension}"));
    let mut arguments = vec!["convert", "-f", "raw", "-O", qemu];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    arguments.extend([name(raw), name(&path)]);
    qemu_img(&arguments);
    path
}

#[test]
fn every_format_is_read_and_converted_as_qemu_does() {
    let folder = Folder::new();
    let raw = folder.file("source.img");
    // Sizes that VHD's geometry can and can't express.
    for size in [20_054_016, 11 * MIB + 512 * 5] {
        let data = sample(size);
        std::fs::write(&raw, &data).unwrap();
        for (number, (format, qemu, options)) in KINDS.into_iter().enumerate() {
            let path = make(&folder, &raw, number);
            let disk = lodge_disk::open(&path, Options { readonly: true, ..Options::default() }).unwrap();
            let found = contents(&*disk);
            assert!(found[..data.len()] == data, "{options}");
            assert!(found[data.len()..].iter().all(|byte| *byte == 0), "{options}");
            assert!(found == qemu_contents(&path, qemu), "{options}");
            drop(disk);
            let report = lodge_disk::check(&path, None).unwrap();
            assert!(report.is_clean(), "{options}: {report:?}");
            let info = lodge_disk::info(&path, None).unwrap();
            assert_eq!((info.format, info.size), (format.name(), found.len() as u64), "{options}");
            for (to, extension) in [(Format::Qcow2, "q.qcow2"), (Format::Raw, "r.img")] {
                let target = folder.file(extension);
                let how = Convert { from: None, format: to, compress: false, force: true };
                lodge_disk::convert(&path, &target, how, &mut go_on).unwrap();
                qemu_img(&["compare", "-f", qemu, "-F", to.name(), name(&path), name(&target)]);
                assert!(lodge_disk::check(&target, None).unwrap().is_clean());
            }
            // Holes stay holes.
            let blocks = lodge_disk::info(&folder.file("r.img"), None).unwrap().allocated;
            assert!(blocks < 5 * MIB as u64, "{options}: {blocks} bytes");
        }
    }
}

#[test]
fn a_disk_of_several_extents_is_read_behind_two_gigabytes() {
    let folder = Folder::new();
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicSparse"] {
        let path = folder.file(&format!("{kind}.vmdk"));
        qemu_img(&["create", "-q", "-f", "vmdk", "-o", &format!("subformat={kind}"), name(&path), "5G"]);
        qemu_io(&path, &["write -P 1 2147418112 128k", "write -P 2 4294901760 256k", "write -P 3 5368643584 64k"]);
        let disk = lodge_disk::open(&path, Options { readonly: true, ..Options::default() }).unwrap();
        assert_eq!(disk.size(), 5 << 30);
        for (at, value) in [(2_147_418_112, 1), (2_147_549_183 - 511, 1), (4_294_901_760, 2), ((5 << 30) - 512, 3)] {
            assert_eq!(read(&*disk, at, 512).unwrap(), [value; 512], "{kind} {at}");
        }
        assert_eq!(read(&*disk, 3 << 30, 512).unwrap(), [0; 512]);
        let target = folder.file("copy.qcow2");
        let how = Convert { from: None, format: Format::Qcow2, compress: false, force: true };
        lodge_disk::convert(&path, &target, how, &mut go_on).unwrap();
        qemu_img(&["compare", "-f", "vmdk", "-F", "qcow2", name(&path), name(&target)]);
        assert!(std::fs::metadata(&target).unwrap().len() < 4 << 20);
    }
}

#[test]
fn all_formats_can_be_stood_on_and_written_for_a_while() {
    let folder = Folder::new();
    let raw = folder.file("source.img");
    let data = sample(8 * MIB);
    std::fs::write(&raw, &data).unwrap();
    for (number, (format, qemu, options)) in KINDS.into_iter().enumerate() {
        let path = make(&folder, &raw, number);
        let before = std::fs::read(&path).unwrap();
        let ephemeral = Options { ephemeral: true, ..Options::default() };
        let disk = lodge_disk::open(&path, ephemeral).unwrap();
        let mut model = contents(&*disk);
        exercise(&*disk, &mut model, &mut rng(number as u64), 40);
        drop(disk);
        let top = folder.file("top.qcow2");
        let backing = Some(Backing { path: path.clone(), format: Some(format) });
        let wanted = Create { size: None, format: Format::Qcow2, backing, preallocate: false, force: true };
        lodge_disk::create(&top, &wanted).unwrap();
        let disk = lodge_disk::open(&top, Options::default()).unwrap();
        let mut model = qemu_contents(&path, qemu);
        exercise(&*disk, &mut model, &mut rng(number as u64), 40);
        drop(disk);
        assert!(qemu_contents(&top, "qcow2") == model, "{options}");
        assert!(std::fs::read(&path).unwrap() == before, "{options}: the image below was written");
    }
}

/// Why an image isn't opened, as its user sees it.
fn refusal(path: &Path, options: Options) -> String {
    let text = lodge_disk::open(path, options).err().unwrap_or_else(|| panic!("{path:?} was opened")).to_string();
    assert!(text.contains(name(path)), "no file is named: {text}");
    assert!(!text.contains('\n') && text.contains("; "), "no remedy is named: {text}");
    text
}

#[test]
fn formats_are_not_guessed_from_contents_that_a_guest_can_write() {
    let folder = Folder::new();
    let plain = folder.file("disk.img");
    let given = |format| Options { format: Some(format), ..Options::default() };
    qemu_img(&["create", "-q", "-f", "qcow2", name(&plain), "1M"]);
    assert!(refusal(&plain, Options::default()).contains("begins like a qcow2 image but isn't named like one"));
    assert_eq!(lodge_disk::open(&plain, given(Format::Qcow2)).unwrap().size(), 1 << 20);
    let file = std::fs::OpenOptions::new().write(true).open(&plain).unwrap();
    file.set_len(256 << 10).unwrap();
    assert_eq!(lodge_disk::open(&plain, given(Format::Raw)).unwrap().size(), 256 << 10);
}

#[test]
fn a_raw_disk_cannot_become_an_image_by_what_its_guest_writes() {
    let folder = Folder::new();
    let (plain, named) = (folder.file("disk.img"), folder.file("disk.qcow2"));
    let magics: [&[u8]; 5] = [b"QFI\xfb", b"KDMV", b"vhdxfile", b"conectix", b"# Disk DescriptorFile"];
    for path in [&plain, &named] {
        std::fs::write(path, vec![0; MIB]).unwrap();
        // Raw by its contents, or called raw while its name would speak for another format.
        let format = (path == &named).then_some(Format::Raw);
        let disk = lodge_disk::open(path, Options { format, ..Options::default() }).unwrap();
        for magic in magics {
            let mut sector = vec![0; 1024];
            sector[..magic.len()].copy_from_slice(magic);
            let error = disk.write_at(0, &[IoSlice::new(&sector[..2]), IoSlice::new(&sector[2..])]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            disk.write_at(512, &[IoSlice::new(&sector)]).unwrap();
        }
        assert_eq!(read(&*disk, 0, 512).unwrap(), [0; 512]);
        disk.write_at(0, &[IoSlice::new(&[1; 512])]).unwrap();
    }
    let disk = lodge_disk::open(&plain, Options { format: Some(Format::Raw), ..Options::default() }).unwrap();
    disk.write_at(0, &[IoSlice::new(b"QFI\xfb"), IoSlice::new(&[0; 508])]).unwrap();
    drop(disk);
    assert!(refusal(&named, Options::default()).contains("is named like a qcow2 image and isn't one"));
}

#[test]
fn backing_files_that_are_missing_looping_or_unclear_are_told_of() {
    let folder = Folder::new();
    let (top, below) = (folder.file("top.qcow2"), folder.file("below.qcow2"));
    let link = |image: &Path, to: &str, format: &str| {
        let mut arguments = vec!["rebase", "-u", "-b", to];
        if !format.is_empty() {
            arguments.extend(["-F", format]);
        }
        arguments.push(name(image));
        qemu_img(&arguments);
    };
    for path in [&top, &below] {
        qemu_img(&["create", "-q", "-f", "qcow2", name(path), "1M"]);
    }
    link(&top, "below.qcow2", "qcow2");
    link(&below, "top.qcow2", "qcow2");
    let text = refusal(&top, Options::default());
    assert!(text.contains("the chain never ends"), "{text}");
    link(&top, "top.qcow2", "qcow2");
    assert!(refusal(&top, Options::default()).contains("the chain never ends"));
    assert!(lodge_disk::info_chain(&top, None).unwrap_err().to_string().contains("does not end"));
    link(&top, "gone.qcow2", "qcow2");
    assert!(refusal(&top, Options::default()).contains("there is no file"), "{}", refusal(&top, Options::default()));
    link(&top, "nbd://localhost/x", "raw");
    assert!(refusal(&top, Options::default()).contains("is not a file"));
    // A raw file below, with the header silent: it may say what its guest wrote.
    std::fs::write(folder.file("raw"), vec![0; MIB]).unwrap();
    for to in ["raw", "below.img"] {
        std::fs::copy(&below, folder.file("below.img")).unwrap();
        link(&top, to, "raw");
        let mut bytes = std::fs::read(&top).unwrap();
        // The extension that names the format becomes one that nobody knows.
        let place = bytes.windows(4).position(|four| four == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
        bytes[place + 1] = 0x11;
        std::fs::write(&top, &bytes).unwrap();
        assert!(refusal(&top, Options::default()).contains("does not say which format"), "{to}");
    }
    // A long chain.
    for n in 0..70 {
        let path = folder.file(&format!("{n}.qcow2"));
        qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "1M"]);
        if n > 0 {
            link(&path, &format!("{}.qcow2", n - 1), "qcow2");
        }
    }
    let last = lodge_disk::open(&folder.file("69.qcow2"), Options::default()).err().unwrap().to_string();
    assert!(last.contains("more than 64 images"), "{last}");
    assert!(lodge_disk::open(&folder.file("60.qcow2"), Options::default()).is_ok());
}

#[test]
fn files_that_cannot_be_used_are_refused_in_one_line() {
    let folder = Folder::new();
    let raw = folder.file("source.img");
    std::fs::write(&raw, sample(6 * MIB)).unwrap();
    let readonly = Options { readonly: true, ..Options::default() };
    for (number, (format, _, options)) in KINDS.into_iter().enumerate().skip(1) {
        let path = make(&folder, &raw, number);
        if !format.is_writable() {
            let text = refusal(&path, Options::default());
            assert!(text.contains("can only be read") && text.contains("lodge disk convert"), "{text}");
        }
        // Cut short within its tables; text files are cut to a word.
        let length = std::fs::metadata(&path).unwrap().len();
        let is_text = options.contains("Flat") || options.contains("twoGb");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(if is_text { 30 } else { length.min(1100) }).unwrap();
        let text = refusal(&path, readonly);
        assert!(text.contains(format.name()), "{text}");
        file.set_len(0).unwrap();
        assert!(refusal(&path, readonly).contains("is named like a"));
    }
    let pipe = folder.file("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(refusal(&pipe, readonly).contains("neither a file nor a block device"));
    assert!(refusal(&folder.file(""), readonly).contains("give the file of a disk image"));
    assert!(refusal(&folder.file("missing"), readonly).contains("make one with"));
}

#[test]
fn extents_lie_beside_their_descriptor() {
    let folder = Folder::new();
    let path = folder.file("a.vmdk");
    for evil in ["/etc/passwd", "../a.img", "..", "x/../../y"] {
        let text = format!("# Disk DescriptorFile\nparentCID=ffffffff\nRW 8 FLAT \"{evil}\" 0\n");
        std::fs::write(&path, text).unwrap();
        let text = refusal(&path, Options { readonly: true, ..Options::default() });
        assert!(text.contains("is not a file beside it"), "{text}");
    }
    std::fs::write(&path, "# Disk DescriptorFile\nparentCID=12345678\nRW 8 ZERO\n").unwrap();
    assert!(refusal(&path, Options { readonly: true, ..Options::default() }).contains("has a parent"));
}

#[test]
fn one_writer_or_many_readers() {
    let folder = Folder::new();
    for format in [Format::Raw, Format::Qcow2] {
        let path = folder.file(&format!("a.{format}"));
        let wanted = Create { size: Some(1 << 20), format, backing: None, preallocate: false, force: false };
        lodge_disk::create(&path, &wanted).unwrap();
        let writer = Options { format: Some(format), ..Options::default() };
        let reader = Options { readonly: true, ..writer };
        let first = lodge_disk::open(&path, writer).unwrap();
        for options in [writer, reader] {
            assert!(refusal(&path, options).contains("is in use already"));
        }
        // QEMU notices as well.
        let output = crate::common::tool("qemu-io", &["-f", format.name(), "-c", "read 0 512", name(&path)]);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("Failed to get") && text.contains("lock"), "{text}");
        for error in [
            lodge_disk::resize(&path, Some(format), 2 << 20, false).unwrap_err(),
            lodge_disk::repair(&path, Some(format)).unwrap_err(),
            lodge_disk::compact(&path, Some(format), &mut go_on).unwrap_err(),
            lodge_disk::create(&path, &Create { force: true, ..wanted.clone() }).unwrap_err(),
        ] {
            assert!(matches!(error, DiskError::File(lodge_backend::DiskError::InUse { .. })), "{error}");
        }
        drop(first);
        let _readers = [lodge_disk::open(&path, reader).unwrap(), lodge_disk::open(&path, reader).unwrap()];
        assert!(refusal(&path, writer).contains("is in use already"));
        // What is stood on is locked with the image above it.
        let top = folder.file(&format!("top-{format}.qcow2"));
        let backing = Some(Backing { path: path.clone(), format: Some(format) });
        let wanted = Create { size: None, format: Format::Qcow2, backing, preallocate: false, force: false };
        lodge_disk::create(&top, &wanted).unwrap();
        drop(_readers);
        let above = lodge_disk::open(&top, Options::default()).unwrap();
        assert!(refusal(&path, writer).contains("is in use already"));
        drop(above);
        assert!(lodge_disk::open(&path, writer).is_ok());
    }
}

#[test]
fn qemu_at_work_is_noticed() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "1M"]);
    let mut qemu = std::process::Command::new("qemu-io")
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Its prompt shows that it has opened the image.
    let mut prompt = [0; 1];
    std::io::Read::read_exact(qemu.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    assert!(refusal(&path, Options::default()).contains("is in use already"));
    drop(qemu.stdin.take());
    qemu.wait().unwrap();
    assert!(lodge_disk::open(&path, Options::default()).is_ok());
}

#[test]
fn what_fails_leaves_nothing_behind_and_what_is_there_is_kept() {
    let folder = Folder::new();
    let (raw, there) = (folder.file("source.img"), folder.file("there.qcow2"));
    std::fs::write(&raw, sample(6 * MIB)).unwrap();
    std::fs::write(&there, "precious").unwrap();
    let wanted = Create { size: Some(1 << 20), format: Format::Qcow2, backing: None, preallocate: false, force: false };
    let how = Convert { from: None, format: Format::Qcow2, compress: false, force: false };
    let errors = [
        lodge_disk::create(&there, &wanted).unwrap_err(),
        lodge_disk::create(&there, &Create { size: None, ..wanted.clone() }).unwrap_err(),
        lodge_disk::create(&there, &Create { size: Some(1000), ..wanted.clone() }).unwrap_err(),
        lodge_disk::create(&there, &Create { format: Format::Vdi, ..wanted.clone() }).unwrap_err(),
        lodge_disk::create(&folder.file("no/where"), &wanted).unwrap_err(),
        lodge_disk::convert(&raw, &there, how, &mut go_on).unwrap_err(),
        lodge_disk::convert(&there, &folder.file("new"), how, &mut go_on).unwrap_err(),
        lodge_disk::convert(&raw, &raw, Convert { force: true, ..how }, &mut go_on).unwrap_err(),
        lodge_disk::convert(
            &raw,
            &folder.file("x"),
            Convert { format: Format::Raw, compress: true, ..how },
            &mut go_on,
        )
        .unwrap_err(),
    ];
    let mut stop = |_, _| std::ops::ControlFlow::Break(());
    let stopped = lodge_disk::convert(&raw, &folder.file("x.qcow2"), how, &mut stop).unwrap_err().to_string();
    assert!(stopped.contains("it was called off"), "{stopped}");
    for error in errors {
        let text = error.to_string();
        assert!(text.contains(';') && !text.contains('\n'), "{text}");
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"precious");
    assert_eq!(std::fs::read(&raw).unwrap(), sample(6 * MIB));
    assert_eq!(folder.count(), 2, "something was left behind");
    lodge_disk::create(&there, &Create { force: true, ..wanted }).unwrap();
    qemu_img(&["check", "-f", "qcow2", name(&there)]);
}

#[test]
fn raw_images_are_compacted_and_resized_in_place() {
    let folder = Folder::new();
    let path = folder.file("a.img");
    let data = sample(8 * MIB);
    std::fs::write(&path, &data).unwrap();
    let done = lodge_disk::compact(&path, None, &mut go_on).unwrap();
    assert!(done.before >= 8 * MIB as u64 && done.after < 4 * MIB as u64, "{done:?}");
    assert!(std::fs::read(&path).unwrap() == data);
    lodge_disk::resize(&path, None, 9 << 20, false).unwrap();
    assert!(lodge_disk::resize(&path, None, 1 << 20, false).unwrap_err().to_string().contains("--shrink"));
    lodge_disk::resize(&path, None, 1 << 20, true).unwrap();
    assert!(std::fs::read(&path).unwrap() == data[..MIB]);
}

#[test]
fn a_read_only_file_is_not_opened_for_writing() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", name(&path), "1M"]);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    if rustix_is_root() {
        // Root may write to anything; that is no matter of the file's permissions.
        return;
    }
    assert!(refusal(&path, Options::default()).contains("add `,readonly`"));
    assert!(lodge_disk::open(&path, Options { readonly: true, ..Options::default() }).is_ok());
}

fn rustix_is_root() -> bool {
    std::fs::OpenOptions::new().write(true).open("/proc/sys/kernel/core_pattern").is_ok()
}
