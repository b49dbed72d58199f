//! Files that are not what they should be, and what is in use: one clear error that names the file, the cause and the remedy,
//! exit status 2, and nothing written. Images are made with `qemu-img`.

use std::path::{Path, PathBuf};
use std::process::Command;

use lodge_tests::{TestVm, finish, guest, lodge, run, with_firmware};
use tempfile::TempDir;

const FORMATS: [&str; 5] = ["qcow2", "vmdk", "vdi", "vhd", "vhdx"];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img is there");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image of 8 MiB, half of which holds data.
fn image(folder: &TempDir, format: &str) -> PathBuf {
    let (raw, path) = (folder.path().join("data"), folder.path().join(format!("image.{format}")));
    std::fs::write(&raw, [vec![7; 4 << 20], vec![0; 4 << 20]].concat()).expect("it is written");
    let name = if format == "vhd" { "vpc" } else { format };
    qemu_img(&["convert", "-f", "raw", "-O", name, &raw.to_string_lossy(), &path.to_string_lossy()]);
    path
}

fn with_name(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("it is written");
    path
}

/// What lodge says of a command line that it refuses: all of `expected` is in it, in one or two lines, and of these files no
/// byte has changed.
#[track_caller]
fn refused(command: &mut Command, files: &[&Path], expected: &[&str]) {
    let before: Vec<_> = files.iter().map(|file| std::fs::read(file).ok()).collect();
    let (status, output) = finish(command.args(["--serial", "none", "--timeout", "20"]));
    assert_eq!(status, 2, "{output}");
    let lines: Vec<_> = output.lines().filter(|line| !line.contains(" engine (")).collect();
    assert!(matches!(lines.len(), 1 | 2) && lines[0].starts_with("lodge: "), "{output}");
    assert!(!output.contains("panicked") && !output.contains("os error"), "{output}");
    for text in expected {
        assert!(output.contains(text), "{text:?} is not in {output}");
    }
    let after: Vec<_> = files.iter().map(|file| std::fs::read(file).ok()).collect();
    assert!(before == after, "a file was written");
}

#[track_caller]
fn disk_refused(path: &Path, properties: &str, expected: &[&str]) {
    let name = path.display().to_string();
    let expected: Vec<_> = expected.iter().copied().chain([name.as_str()]).collect();
    refused(with_firmware().args(["--disk", &format!("{name}{properties}")]), &[path], &expected);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn truncated_images_are_refused() {
    let folder = folder();
    for format in FORMATS {
        let whole = std::fs::read(image(&folder, format)).expect("it is read");
        for length in [100, 600, 1500] {
            let path = with_name(&folder, &format!("cut.{format}"), &whole[..length]);
            for properties in [",readonly".to_owned(), format!(",readonly,format={format}")] {
                disk_refused(&path, &properties, &[format, "copy"]);
            }
        }
        let path = with_name(&folder, &format!("empty.{format}"), b"");
        disk_refused(&path, ",readonly", &[format, "copy"]);
    }
    // Where the data are, and where the tables.
    let whole = std::fs::read(image(&folder, "qcow2")).expect("it is read");
    for length in [200_000, 300_000, 400_000, whole.len() - (1 << 20)] {
        let path = with_name(&folder, "cut.qcow2", &whole[..length]);
        for properties in ["", ",readonly", ",ephemeral"] {
            disk_refused(&path, properties, &["qcow2", "cut short", "--repair", "copy"]);
        }
    }
    disk_refused(&with_name(&folder, "cut.img", &[0; 1000]), "", &["no multiple of 512", "truncate -s %512"]);
    disk_refused(&with_name(&folder, "empty.img", b""), "", &["is empty", "truncate -s SIZE"]);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn corrupted_images_and_headers_that_lie_are_refused() {
    let folder = folder();
    for format in FORMATS {
        let whole = std::fs::read(image(&folder, format)).expect("it is read");
        let end = whole.len();
        // The magic number, wherever it is.
        let marks: &[usize] = match format {
            "vdi" => &[64],
            "vhd" => &[0, end - 512],
            _ => &[0],
        };
        let mut bytes = whole.clone();
        marks.iter().for_each(|at| bytes[*at..at + 4].copy_from_slice(b"JUNK"));
        let path = with_name(&folder, &format!("junk.{format}"), &bytes);
        disk_refused(&path, ",readonly", &[format, "copy"]);
        disk_refused(&path, &format!(",readonly,format={format}"), &[format, "copy"]);
        // Sizes of disks that there is no room for in the tables.
        let mut bytes = whole;
        match format {
            "qcow2" => bytes[24..32].copy_from_slice(&(1u64 << 62).to_be_bytes()),
            "vmdk" => bytes[12..20].copy_from_slice(&(1u64 << 50).to_le_bytes()),
            "vdi" => bytes[0x170..0x178].copy_from_slice(&(1u64 << 50).to_le_bytes()),
            "vhd" => {
                let header = &mut bytes[512..1536];
                header[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
                header[36..40].fill(0);
                let sum = !header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
                header[36..40].copy_from_slice(&sum.to_be_bytes());
            }
            _ => {
                // Where qemu-img has it: behind the file parameters, 64 KiB into the metadata.
                let region = bytes.chunks(1 << 20).position(|part| part.starts_with(b"metadata"));
                let at = (region.expect("there are metadata") << 20) + (64 << 10) + 8;
                let size = &mut bytes[at..at + 8];
                assert_eq!(*size, (8u64 << 20).to_le_bytes());
                size.copy_from_slice(&(1u64 << 50).to_le_bytes());
            }
        }
        let path = with_name(&folder, &format!("lies.{format}"), &bytes);
        disk_refused(&path, ",readonly", &[format, "copy"]);
        if format == "qcow2" {
            disk_refused(&path, "", &[format, "copy"]);
        }
    }
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn backing_files_that_are_missing_or_loop_are_named() {
    let folder = folder();
    let base = image(&folder, "qcow2");
    let at = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.display().to_string();
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &text(&base), "-F", "qcow2", &text(&at("top.qcow2"))]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &text(&at("top.qcow2")), "-F", "qcow2", &text(&at("more.qcow2"))]);
    std::fs::rename(&base, at("moved")).expect("it is moved");
    for name in ["top.qcow2", "more.qcow2"] {
        disk_refused_with(
            &at(name),
            &[&at("top.qcow2"), &at("more.qcow2")],
            &[&text(&base), "there is no file", "qemu-img rebase -u"],
        );
    }
    qemu_img(&["rebase", "-u", "-b", &text(&at("more.qcow2")), "-F", "qcow2", &text(&at("top.qcow2"))]);
    disk_refused_with(
        &at("more.qcow2"),
        &[&at("top.qcow2"), &at("more.qcow2")],
        &["never ends", "another backing file"],
    );
    qemu_img(&["rebase", "-u", "-b", &text(&at("top.qcow2")), "-F", "qcow2", &text(&at("top.qcow2"))]);
    disk_refused_with(&at("top.qcow2"), &[&at("top.qcow2")], &["never ends", "another backing file"]);
}

#[track_caller]
fn disk_refused_with(path: &Path, files: &[&Path], expected: &[&str]) {
    let name = path.display().to_string();
    refused(with_firmware().args(["--disk", &name]), files, expected);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn floppies_of_odd_sizes_are_refused() {
    let folder = folder();
    // No remedy loses data.
    for (name, size, remedy) in [
        ("odd", 1_000_000, "truncate -s 1440K"),
        ("large", 2_000_000, "truncate -s 2880K"),
        ("larger", 4 << 20, "no floppy's image; attach it as a disk with --disk"),
        ("empty", 0, "truncate -s 1440K"),
    ] {
        let path = with_name(&folder, name, &vec![0; size]);
        let (text, size) = (path.display().to_string(), size.to_string());
        let expected = [text.as_str(), &size, remedy];
        refused(with_firmware().args(["--floppy", &text]), &[&path], &expected);
    }
    let missing = folder.path().join("none").display().to_string();
    refused(with_firmware().args(["--floppy", &missing]), &[], &[&missing, "truncate -s 1440K"]);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn discs_that_cannot_boot_are_warned_of() {
    let folder = folder();
    let data = with_name(&folder, "data.iso", &vec![0; 64 << 10]).display().to_string();
    let warning = format!("lodge: warning: the disc {data} has no boot record");
    let warned = |arguments: &[&str]| {
        let (status, output) = finish(with_firmware().args(arguments).args(["--serial", "none", "--timeout", "1"]));
        assert_eq!(status, 4, "{output}");
        output.contains(&warning)
    };
    assert!(warned(&["--cdrom", &data]));
    assert!(warned(&["--cdrom", &format!("{data},bus=sata"), "--firmware", "uefi"]));
    let bootable = guest("media/grub-mkrescue.iso").display().to_string();
    let disk = format!("{},readonly", with_name(&folder, "disk", &[0; 4096]).display());
    assert!(!warned(&["--cdrom", &data, "--disk", &disk]));
    assert!(!warned(&["--cdrom", &data, "--floppy", "none"]));
    assert!(!warned(&["--cdrom", &data, "--cdrom", "none"]));
    let (_, output) = finish(with_firmware().args(["--cdrom", &data, "--cdrom", &bootable, "--timeout", "5"]));
    assert!(!output.contains("warning"), "{output}");
    let missing = folder.path().join("none.iso").display().to_string();
    refused(with_firmware().args(["--cdrom", &missing]), &[], &[&missing, "give the file of an ISO image"]);
    let cut = with_name(&folder, "cut.iso", &[0; 3000]);
    refused(with_firmware().arg("--cdrom").arg(&cut), &[&cut], &["3000 bytes", "cut short", "another copy"]);
}

/// Hosts may have firmware where distributions put it; then there is nothing to miss.
#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn firmware_that_is_missing_is_named_with_its_package() {
    let folder = folder();
    let disk = format!("{},readonly", with_name(&folder, "disk", &[0; 4096]).display());
    let empty = folder.path().display().to_string();
    let known =
        ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/OVMF", "/usr/share/edk2"];
    let there =
        |names: &[&str]| known.iter().any(|place| names.iter().any(|name| Path::new(place).join(name).is_file()));
    for (firmware, names, package) in [
        ("bios", &["bios-256k.bin"][..], "`seabios`"),
        ("uefi", &["OVMF_CODE_4M.fd", "OVMF_CODE.fd", "ovmf-x86_64-4m-code.bin"], "`ovmf`"),
    ] {
        if there(names) {
            eprintln!("skipped: this host has {names:?} where lodge finds it by itself");
            continue;
        }
        let vars = folder.path().join("vars").display().to_string();
        let mut command = run();
        command.args(["--firmware", firmware, "--firmware-dir", &empty, "--disk", &disk]);
        if firmware == "uefi" {
            command.args(["--firmware-vars", &vars]);
        }
        refused(&mut command, &[], &[&empty, package, "--firmware-dir"]);
        assert!(!Path::new(&vars).exists(), "nothing is made");
    }
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn what_is_in_use_or_cannot_be_written_is_refused() {
    let folder = folder();
    // A VNC port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it has an address").port();
    let disk = with_name(&folder, "disk.img", &[0; 4096]);
    let readonly = format!("{},readonly", disk.display());
    let address = format!("127.0.0.1:{port}");
    let mut command = with_firmware();
    command.args(["--disk", &readonly, "--display", &format!("vnc={address}")]);
    refused(&mut command, &[&disk], &[&address, "is in use", "choose another"]);
    // Formats that are only read.
    for format in ["vmdk", "vdi", "vhd", "vhdx"] {
        disk_refused(&image(&folder, format), "", &["can only be read", ",readonly", "lodge disk convert"]);
    }
    // Two machines on one image: the second writes, or the first does.
    for path in [disk.clone(), image(&folder, "qcow2")] {
        for (first, second) in [("", ""), ("", ",readonly"), (",readonly", "")] {
            let mut command = with_firmware();
            let vm =
                TestVm::start(command.args(["--disk", &format!("{}{first}", path.display()), "--control"]).args([
                    folder.path().join("control").as_os_str(),
                    "--serial".as_ref(),
                    "none".as_ref(),
                ]));
            let control = folder.path().join("control");
            let up = (0..200).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                finish(Command::new(lodge()).arg("ctl").arg(&control).arg("status")).0 == 0
            });
            assert!(up, "the first machine runs");
            disk_refused(&path, second, &["is in use already", "readonly"]);
            drop(vm);
        }
    }
    // A file without write permission, for those whom permissions hold.
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped in part: root may write to every file");
        return;
    }
    let mut permissions = std::fs::metadata(&disk).expect("it is there").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&disk, permissions).expect("they are changed");
    disk_refused(&disk, "", &["Permission denied", "chmod", ",readonly"]);
}
