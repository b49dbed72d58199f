//! What people boot a PC from, under BIOS and UEFI: each says something that can be waited for.

use std::process::Command;
use std::time::{Duration, Instant};

use lodge_tests::{PATIENCE, TestVm, check_log, finish, guest, lodge, with_firmware};

/// `lodge run` of a disc.
fn disc(name: &str, memory: &str) -> Command {
    let mut command = with_firmware();
    command.arg("--cdrom").arg(guest(&format!("media/{name}.iso"))).args(["--memory", memory]);
    command
}

/// Text without the cursor movements that the BIOS sends to the serial port, at times in the middle of words.
fn plain(output: &str) -> String {
    let mut parts = output.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
    })
}

/// A machine that is talked to through its control socket.
struct Controlled {
    vm: TestVm,
    folder: tempfile::TempDir,
}

impl Controlled {
    fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        command.arg("--control").arg(folder.path().join("control")).args(["--serial", "none", "--timeout", "280"]);
        Self { vm: TestVm::start(command), folder }
    }

    /// What `lodge ctl` says.
    fn ctl(&self, words: &[&str]) -> (i32, String) {
        finish(Command::new(lodge()).arg("ctl").arg(self.folder.path().join("control")).args(words))
    }

    /// Waits until the screen shows a text; all that it shows then.
    #[track_caller]
    fn expect_on_screen(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, screen) = self.ctl(&["text"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < until, "{text:?} did not come; the screen shows:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    #[track_caller]
    fn quit(self) {
        assert_eq!(self.ctl(&["quit"]).0, 0);
        assert_eq!(self.vm.wait().0, 0);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn grub_rescue_shows_its_menu_from_disc_and_floppy() {
    let image = guest("media/grub-rescue.img");
    let mut floppy = with_firmware();
    floppy.args(["--floppy", &format!("{},readonly", image.display()), "--memory", "64M"]);
    for mut command in [disc("grub-rescue", "64M"), floppy] {
        let vm = Controlled::start(&mut command);
        let screen = vm.expect_on_screen("Memtest86+");
        assert!(screen.contains("GNU GRUB"), "{screen}");
        // Keys reach it: the command line opens.
        assert_eq!(vm.ctl(&["key", "c"]).0, 0);
        vm.expect_on_screen("grub>");
        assert_eq!(vm.ctl(&["type", "echo 4$grub_platform\n"]).0, 0);
        vm.expect_on_screen("4pc");
        let picture = vm.folder.path().join("screen.png");
        assert_eq!(vm.ctl(&["screenshot", &picture.to_string_lossy()]).0, 0);
        assert_eq!(std::fs::read(picture).unwrap()[1..4], *b"PNG");
        vm.quit();
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn memtest86_starts_from_its_disc() {
    let vm = Controlled::start(&mut disc("memtest86+", "64M"));
    let screen = vm.expect_on_screen("Status: Testing");
    assert!(screen.contains("Memtest86+ v6"), "{screen}");
    vm.quit();
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn ipxe_starts_from_its_disc() {
    let vm = Controlled::start(&mut disc("ipxe", "64M"));
    vm.expect_on_screen("Open Source Network Boot Firmware");
    vm.quit();
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_disc_of_grub_mkrescue_starts_from_each_bus_under_bios_and_uefi() {
    let image = guest("media/grub-mkrescue.iso");
    for (firmware, platform) in [("bios", "pc"), ("uefi", "efi")] {
        for bus in ["ide", "sata", "scsi"] {
            let spec = format!("{},bus={bus}", image.display());
            let mut command = with_firmware();
            command.args(["--cdrom", &spec, "--memory", "256M", "--firmware", firmware]);
            let (status, output) = finish(&mut command);
            assert_eq!(status, 0, "{firmware}, {bus}: {output}");
            assert!(plain(&output).contains(&format!("lodge: grub on {platform}")), "{firmware}, {bus}: {output}");
        }
    }
}

/// The second drive in the order of the command line has nothing to boot from; `--boot` and the order of drives decide.
#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn drives_on_other_buses_are_tried_in_order() {
    let image = guest("media/grub-mkrescue.iso");
    let mut blank = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut blank, &[0; 64 << 10]).expect("it is written");
    for (firmware, platform) in [("bios", "pc"), ("uefi", "efi")] {
        let mut command = with_firmware();
        command.arg("--disk").arg(format!("{},bus=sata,format=raw", blank.path().display()));
        command.args(["--cdrom", "none,bus=sata", "--cdrom", "none,bus=scsi"]);
        command.arg("--cdrom").arg(format!("{},bus=scsi", image.display()));
        let (status, output) = finish(command.args(["--memory", "256M", "--firmware", firmware]));
        assert_eq!(status, 0, "{firmware}: {output}");
        assert!(plain(&output).contains(&format!("lodge: grub on {platform}")), "{firmware}: {output}");
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_disc_of_isolinux_starts_a_kernel() {
    let (status, output) = finish(&mut disc("isolinux", "512M"));
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("lodge: isolinux") && output.contains("lodge: status 0"), "{output}");
    check_log(&output);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_live_system_of_debian_root_starts_from_its_disc() {
    for (firmware, platform) in [("bios", "pc"), ("uefi", "efi")] {
        let (status, output) = finish(disc("live", "1G").args(["--firmware", firmware]));
        assert_eq!(status, 0, "{output}");
        assert!(output.contains(&format!("lodge: live on {platform}")), "{output}");
        assert!(output.contains("lodge: live system is up, root is overlay"), "{output}");
        check_log(&output);
    }
}
