//! Booting from the network, under BIOS and UEFI: Debian's installer, as its package has it, reaches its first question.

use std::process::Command;

use lodge_tests::{TestVm, finish, guest, plain, with_firmware};

/// What UEFI loads, and the BIOS.
const BOOT_FILES: [(&str, &str); 2] = [("bios", "pxelinux.0"), ("uefi", "debian-installer/amd64/bootnetx64.efi")];

/// `lodge run` of a machine that has nothing but a network card on a network of that kind.
fn bare(firmware: &str, net: &str) -> Command {
    let mut command = with_firmware();
    command.args(["--firmware", firmware, "--net", net, "--memory", "1G", "--timeout", "280"]);
    command
}

/// lodge's own service with the installer's files, and the card.
fn own_service(bootfile: &str, model: &str) -> String {
    format!(
        "user,netboot={},bootfile={bootfile},model={model}",
        guest("media/netboot/pxelinux.0").with_file_name("").display()
    )
}

/// Waits until the installer asks for a language. It has found no disk, and nobody asked it to.
fn reaches_its_language_menu(mut vm: TestVm, what: &str) {
    vm.expect("Choose the language to be used for the installation process.");
    vm.expect("English [*]");
    let output = vm.kill();
    assert!(!plain(&output).contains("panic"), "{what}: {output}");
}

fn by_lodge_on(model: &str) {
    for (firmware, bootfile) in BOOT_FILES {
        let vm = TestVm::start(&mut bare(firmware, &own_service(bootfile, model)));
        reaches_its_language_menu(vm, firmware);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_installer_starts_on_a_virtio_card() {
    by_lodge_on("virtio");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_installer_starts_on_an_e1000() {
    by_lodge_on("e1000");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_loader_starts_on_the_other_cards() {
    for model in ["rtl8139", "ne2k"] {
        let mut vm = TestVm::start(&mut bare("bios", &own_service("pxelinux.0", model)));
        vm.expect("lodge: pxelinux");
        vm.kill();
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_installer_starts_from_its_disc() {
    for firmware in ["bios", "uefi"] {
        let mut command = with_firmware();
        command.arg("--cdrom").arg(guest("media/installer.iso"));
        command.args(["--firmware", firmware, "--memory", "1G", "--timeout", "280"]);
        reaches_its_language_menu(TestVm::start(&mut command), firmware);
    }
}

#[test]
#[ignore = "starts lodge: run by `cargo xtask test`"]
fn what_cannot_be_booted_is_named() {
    let folder = guest("media/netboot/pxelinux.0").with_file_name("");
    let folder = folder.display();
    let cases = [
        (format!("user,netboot={folder},bootfile=nothing.efi"), "nothing.efi"),
        (format!("user,netboot={folder}"), "bootfile="),
        ("user,bootfile=x".into(), "netboot="),
        ("user,netboot=/no/such/folder,bootfile=x".into(), "/no/such/folder"),
        (format!("user,netboot={folder},bootfile=pxelinux.0,rom=/no/such.rom"), "/no/such.rom"),
    ];
    for (net, named) in cases {
        let (status, output) = finish(&mut bare("bios", &net));
        assert_eq!(status, 2, "{net}: {output}");
        assert!(output.contains(named), "{net}: {output}");
    }
    // A file that is not there when the guest asks for it.
    let place = tempfile::tempdir().expect("a folder");
    let copy = place.path().join("pxelinux.0");
    std::fs::copy(guest("media/netboot/pxelinux.0"), &copy).expect("it is copied");
    let net = format!("user,netboot={},bootfile=pxelinux.0", place.path().display());
    let mut vm = TestVm::start(&mut bare("bios", &net));
    vm.expect("\"ldlinux.c32\" is not in the folder that is served");
    vm.kill();
}

/// PXE finds no file, over IPv4 or IPv6, which it takes a minute to say; then it is there for HTTP.
#[test]
#[ignore = "boots a VM: run by `cargo xtask test --long`"]
fn uefi_boots_by_http_which_takes_long() {
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("grub.efi");
    let put = || _ = std::fs::copy(guest("media/netboot/debian-installer/amd64/grubx64.efi"), &file).expect("a copy");
    put();
    let net = format!("user,netboot={},bootfile=grub.efi", place.path().display());
    let mut vm = TestVm::start(&mut bare("uefi", &net));
    // Until the machine runs, what is served has to be there.
    vm.expect(">>Start PXE over IPv4");
    std::fs::remove_file(&file).expect("it was there");
    vm.expect("\"grub.efi\" is not in the folder that is served");
    vm.expect("UEFI PXEv6");
    put();
    vm.expect(">>Start HTTP Boot over IPv4");
    vm.expect("http://10.0.2.2/grub.efi");
    vm.expect("grub> ");
    vm.kill();
}
