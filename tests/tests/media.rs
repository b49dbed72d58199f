//! What people boot a PC from, under BIOS and UEFI: each says something that can be waited for.

use std::process::Command;

use lodge_tests::{Controlled, check_log, finish, guest, with_firmware};

/// `lodge run` of a disc.
fn disc(name: &str, memory: &str) -> Command {
    let mut command = with_firmware();
    command.arg("--cdrom").arg(guest(&format!("media/{name}.iso"))).args(["--memory", memory]);
    command
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
        let picture = vm.file("screen.png");
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
fn a_disc_of_grub_mkrescue_starts_under_bios_and_uefi() {
    for (firmware, platform) in [("bios", "pc"), ("uefi", "efi")] {
        let (status, output) = finish(disc("grub-mkrescue", "256M").args(["--firmware", firmware]));
        assert_eq!(status, 0, "{output}");
        assert!(output.contains(&format!("lodge: grub on {platform}")), "{output}");
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
