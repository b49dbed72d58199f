//! `lodge install`: what it refuses beforehand, installations that fail at a stage and leave no disk, and ones that are seen to
//! their end and beyond.
//!
//! The installer is Debian's, from the network and from a disc, with answers and without anybody. It gets as far as its mirror
//! where that cannot be reached; with one, which takes minutes, the system that it installed is started and logged into.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lodge_tests::host_net::free_port;
use lodge_tests::{TestVm, check_log, finish, guest, host_mirror, lodge, mirror, write_file};

/// A public key that nobody has the other half of.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUyKKq1dnGYKXNa1qKZJj6nMmbpb9SUvDB2xUPj3nn2 test\n";

/// `lodge install` of Debian on `d.qcow2` in a folder.
fn debian(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(lodge());
    command.args(["install", "--os", "debian-12", "--disk"]).arg(folder.join("d.qcow2"));
    command.arg("--firmware-dir").arg(guest("firmware/bios-256k.bin").with_file_name("")).args(more);
    command
}

/// The folder with Debian's installer for the network.
fn netboot() -> PathBuf {
    guest("media/netboot/pxelinux.0").with_file_name("")
}

#[test]
#[ignore = "starts lodge: run by `cargo xtask test`"]
fn what_speaks_against_an_installation_is_said_beforehand() {
    let folder = tempfile::tempdir().expect("a folder");
    let pxe = format!("pxe={}", netboot().display());
    let iso = format!("iso={}", guest("media/installer.iso").display());
    let other = format!("iso={}", guest("media/memtest86+.iso").display());
    let text = write_file(b"no disc at all");
    let no_disc = format!("iso={}", text.path().display());
    let empty = tempfile::tempdir().expect("a folder");
    let no_tree = format!("pxe={}", empty.path().display());
    let cases: &[(&[&str], &str)] = &[
        (&["--from", &pxe, "--size", "1G"], "at least 2 GiB of disk"),
        (&["--from", &pxe, "--memory", "64M"], "of memory"),
        (&["--from", &no_disc], "not the image of a disc"),
        (&["--from", &other], "the medium is of"),
        (&["--from", "iso=/no/such.iso"], "/no/such.iso"),
        (&["--from", &no_tree], "no boot loader"),
        (&["--from", "pxe"], "no network card is on a network that offers"),
        (&["--from", &pxe, "--net", "none"], "there is no network card"),
        (&["--from", &pxe, "--net", "user,model=ne3k"], "model=ne3k"),
        (&["--from", "usb"], "is not one of iso=F"),
        (&["--from", &pxe, "--unattended"], "nobody could log in"),
        (&["--from", &pxe, "--unattended", "--ssh-key", "/no/such/key"], "/no/such/key"),
        (&["--from", &iso, "--net", "none", "--unattended"], "connect one"),
    ];
    for (more, named) in cases {
        let (status, output) = finish(&mut debian(folder.path(), more));
        assert_eq!(status, 2, "{more:?}: {output}");
        assert!(output.contains(named) && output.trim_end().lines().count() <= 2, "{more:?}: {output}");
    }
    let mut unknown = Command::new(lodge());
    unknown.args(["install", "--os", "debian-99", "--disk", "d.qcow2", "--from", "pxe"]);
    let (status, output) = finish(&mut unknown);
    assert!(status == 2 && output.contains("lodge guests"), "{output}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing was made");
    // What is there is left alone.
    std::fs::write(folder.path().join("d.qcow2"), "mine").expect("it is written");
    let (status, output) = finish(&mut debian(folder.path(), &["--from", &pxe]));
    assert!(status == 2 && output.contains("is there already"), "{output}");
    assert_eq!(std::fs::read_to_string(folder.path().join("d.qcow2")).expect("it is there"), "mine");
}

/// Runs an installation whose mirror can't be reached: it fails at that stage, with the installer's log beside the disk that
/// is not there.
fn fails_at_the_mirror(firmware: &str, from: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = write_file(KEY.as_bytes());
    let key = key.path().to_str().expect("a name");
    // Nobody is there: the router refuses.
    let mirror = "http://10.0.2.2:9/debian";
    let mut command = debian(folder.path(), &["--from", from, "--firmware", firmware]);
    command.args(["--unattended", "--ssh-key", key, "--mirror", mirror, "--timeout", "280"]);
    let (status, output) = finish(&mut command);
    assert_eq!(status, 1, "{output}");
    for stage in ["starts the installer", "gets an address", "asks the mirror", "failed at 'choose-mirror'"] {
        assert!(output.contains(stage), "{stage}: {output}");
    }
    assert!(!folder.path().join("d.qcow2").exists(), "{output}");
    let log = std::fs::read_to_string(folder.path().join("d.qcow2.install.log")).expect("the log is there");
    assert!(log.contains("choose-mirror") && log.contains("preseed: successfully loaded"), "{log}");
    assert_eq!(log.contains("efi: EFI v"), firmware == "uefi", "{log}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn an_installation_from_the_network_fails_at_its_mirror() {
    let from = format!("pxe={}", netboot().display());
    for firmware in ["bios", "uefi"] {
        fails_at_the_mirror(firmware, &from);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn an_installation_from_a_disc_fails_at_its_mirror() {
    let from = format!("iso={}", guest("media/installer.iso").display());
    for firmware in ["bios", "uefi"] {
        fails_at_the_mirror(firmware, &from);
    }
}

/// Whether a process runs: not one that has ended and that nobody asked about.
fn runs(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_machine_ends_with_the_installation() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = write_file(KEY.as_bytes());
    let key = key.path().to_str().expect("a name");
    let from = format!("pxe={}", netboot().display());
    let mut vm = TestVm::start(&mut debian(folder.path(), &["--from", &from, "--unattended", "--ssh-key", key]));
    vm.expect("looks for network cards");
    let children = format!("/proc/{0}/task/{0}/children", vm.id());
    let children = std::fs::read_to_string(children).expect("the kernel tells of children");
    let machine: u32 = children.trim().parse().expect("it has one");
    assert!(runs(machine));
    vm.kill();
    let until = Instant::now() + Duration::from_secs(60);
    while runs(machine) {
        assert!(Instant::now() < until, "the machine goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!folder.path().join("d.qcow2").exists());
}

/// What the installed system is asked, and what it answers.
const ASKED: &[(&str, &str)] = &[
    (". /etc/os-release; echo $VERSION_CODENAME", "bookworm"),
    ("hostname", "d"),
    ("sudo -n id -u", "0"),
    ("findmnt -n -o FSTYPE /", "ext4"),
    ("systemctl is-system-running --wait", "running"),
    ("test -d /sys/firmware/efi && echo uefi || echo bios", ""),
    ("sudo -n apt-get -q update >/dev/null && echo updated", "updated"),
];

/// Runs a command in a guest by SSH: whether it succeeded, and what it printed.
fn by_ssh(key: &Path, port: u16, command: &str) -> (bool, String) {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60", "-i"]).arg(key);
    ssh.args(["-p", &port.to_string(), "ann@127.0.0.1", command]);
    let output = ssh.output().expect("ssh is there");
    let text = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    (output.status.success(), text)
}

/// Installs Debian with nobody there, starts it as lodge says, and logs in with the key.
fn is_installed_and_entered(firmware: &str, from: &str, card: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let mut generate = Command::new("ssh-keygen");
    generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    assert!(generate.status().is_ok_and(|status| status.success()), "there is no key");
    let behind = mirror(guest("mirror/recipe").with_file_name(""), &host_mirror());
    let packages = format!("http://10.0.2.2:{behind}/debian");
    let net = format!("user,loopback=tcp:{behind},model={card}");
    let mut command = debian(folder.path(), &["--from", from, "--firmware", firmware, "--size", "4G", "--net", &net]);
    command.args(["--unattended", "--user", "ann", "--ssh-key"]).arg(key.with_extension("pub"));
    // The installer's parts are not the mirror's alone, and nobody has signed what they are.
    let parts = "mirror/udeb/suite=lodge debian-installer/allow_unauthenticated=true";
    command.args(["--mirror", &packages, "--append", parts, "--timeout", "5400"]);
    let output = command.output().expect("lodge starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{text}");
    let stages = ["asks the mirror", "makes partitions", "installs the base system", "installs the boot loader"];
    for stage in stages {
        assert!(text.contains(stage), "{stage}: {text}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").flatten().collect();
    assert!(names.iter().any(|entry| entry.file_name() == "d.qcow2"), "{names:?}");
    assert!(!names.iter().any(|entry| entry.file_name() == "d.qcow2.incomplete"), "{names:?}");

    let (_, start) = text.split_once("start it with: lodge ").expect("it says how to start");
    let port = free_port();
    let start = start.lines().next().unwrap_or_default().replace("tcp:2222:22", &format!("tcp:{port}:22"));
    assert!(start.contains(&port.to_string()), "{start}");
    let mut vm = TestVm::start(Command::new("sh").args(["-c", &format!("exec '{}' {start}", lodge().display())]));
    vm.expect("login:");
    for (command, answer) in ASKED {
        let (succeeded, text) = by_ssh(&key, port, command);
        let answer = if answer.is_empty() { firmware } else { answer };
        assert!(succeeded && text.lines().any(|line| line == answer), "{command}: {text}");
    }
    check_log(&by_ssh(&key, port, "sudo -n dmesg").1);
    // The connection ends with the system.
    by_ssh(&key, port, "sudo -n systemctl poweroff");
    assert_eq!(vm.wait().0, 0);
}

#[test]
#[ignore = "boots VMs: run by `cargo xtask test --long`"]
fn an_installation_from_the_network_takes_long() {
    let from = format!("pxe={}", netboot().display());
    is_installed_and_entered("bios", &from, "virtio");
    is_installed_and_entered("uefi", &from, "e1000");
}

#[test]
#[ignore = "boots VMs: run by `cargo xtask test --long`"]
fn an_installation_from_a_disc_takes_long() {
    let from = format!("iso={}", guest("media/installer.iso").display());
    is_installed_and_entered("bios", &from, "virtio");
    is_installed_and_entered("uefi", &from, "virtio");
}
