//! Block devices of the host as disks and discs. They take root to make: for anybody else, and on hosts without loop
//! devices, these tests say that they are skipped.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use lodge_tests::{finish, guest, linux, with_firmware};

/// A file as a block device.
struct Loop(String);

impl Loop {
    fn new(file: &Path, options: &[&str]) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
            }
            _ => {
                eprintln!("skipped: losetup gives no loop device here; it takes root, and a kernel with loop devices");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn file(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(bytes).expect("it is extended");
    file
}

/// `lodge run` of a disk with firmware that is there, to its error.
fn refused(spec: &str) -> String {
    let (status, output) = finish(with_firmware().args(["--disk", spec, "--timeout", "20"]));
    assert_eq!(status, 2, "{output}");
    assert!(output.lines().count() <= 2, "{output}");
    output
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_block_device_is_a_disk() {
    let file = file(8 << 20);
    let Some(device) = Loop::new(file.path(), &[]) else { return };
    let script = "cat /sys/block/vda/size; echo written | dd of=/dev/vda bs=512 seek=9 conv=sync; sync";
    let mut command = linux("cloud-amd64", &format!("quiet lodge.run=\"{script}\""));
    let (status, output) = finish(command.args(["--disk", &format!("{},format=raw", device.0)]));
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("16384") && output.contains("lodge: status 0"), "{output}");
    drop(device);
    let content = std::fs::read(file.path()).expect("it is read");
    assert_eq!(content.len(), 8 << 20);
    assert!(content[9 * 512..].starts_with(b"written\n"));
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn a_block_device_that_the_host_uses_is_not_written() {
    let file = file(8 << 20);
    let Some(device) = Loop::new(file.path(), &[]) else { return };
    const EXCLUSIVE: i32 = 0o200;
    let holder = OpenOptions::new().read(true).custom_flags(EXCLUSIVE).open(&device.0).expect("it is free");
    let output = refused(&format!("{},format=raw", device.0));
    assert!(output.contains(&device.0) && output.contains("has it for itself"), "{output}");
    drop(holder);
    let made = Command::new("mkfs.ext4").args(["-q", &device.0]).status();
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = Command::new("mount").arg(&device.0).arg(folder.path()).status();
    if !made.is_ok_and(|status| status.success()) || !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a file system cannot be made or mounted here");
        return;
    }
    let output = refused(&format!("{},format=raw", device.0));
    let readonly = finish(
        linux("cloud-amd64", "quiet lodge.run=\"head -c 2048 /dev/vda > /dev/null\"")
            .args(["--disk", &format!("{},format=raw,readonly", device.0)]),
    );
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert!(output.contains(&format!("{} is mounted at {}", device.0, folder.path().display())), "{output}");
    assert!(output.contains("add `,readonly`"), "{output}");
    assert!(readonly.0 == 0 && readonly.1.contains("lodge: status 0"), "{}", readonly.1);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn a_block_device_that_cannot_be_written_is_said_so() {
    let file = file(8 << 20);
    let Some(device) = Loop::new(file.path(), &["--read-only"]) else { return };
    let output = refused(&format!("{},format=raw", device.0));
    assert!(output.contains(&device.0) && output.contains(",readonly"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_block_device_is_a_disc() {
    let image = guest("media/grub-mkrescue.iso");
    let mut content = Vec::new();
    std::fs::File::open(&image).and_then(|mut file| file.read_to_end(&mut content)).expect("it is read");
    let Some(device) = Loop::new(&image, &["--read-only"]) else { return };
    let (status, output) = finish(with_firmware().args(["--cdrom", &format!("{},bus=sata", device.0)]));
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("lodge: grub on pc"), "{output}");
    assert_eq!(std::fs::read(&image).expect("it is read"), content);
}
