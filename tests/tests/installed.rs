//! A Debian that installs its boot loaders on a disk, which then starts from every bus under BIOS and UEFI.

use std::process::Command;

use lodge_tests::{TestVm, check_log, copy_of, finish, guest, run, with_firmware};

/// What installs them. What is typed comes back as an echo, so that no answer may be part of its command.
const INSTALLATION: &[&str] = &[
    "mountpoint /boot/efi",
    "grub-install --target=i386-pc /dev/vda",
    "grub-install --target=x86_64-efi --efi-directory=/boot/efi --removable --no-nvram",
    "update-grub",
];

/// The buses, and what is in the path of a disk's device there.
const BUSES: &[(&str, &str)] =
    &[("virtio", "/virtio"), ("ide", "0000:00:01.1/ata"), ("sata", "/ata"), ("nvme", "/nvme/"), ("scsi", "/target")];

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn an_installed_debian_root_starts_from_every_bus_under_bios_and_uefi() {
    let disk = copy_of(&guest("installed/disk.img"));
    let mut install = run();
    install.arg("--kernel").arg(guest("installed/vmlinuz")).arg("--initrd").arg(guest("installed/initrd"));
    install.args(["--append", "root=LABEL=root console=ttyS0 panic=-1", "--memory", "512M"]);
    install.arg("--disk").arg(format!("{},format=raw", disk.display()));
    let mut vm = TestVm::start(&mut install);
    vm.expect("login:");
    vm.send("root\n");
    vm.expect("# ");
    for (number, command) in INSTALLATION.iter().enumerate() {
        vm.send(&format!("{command}; echo \"done {number}:\"$?\n"));
        vm.expect(&format!("done {number}:0"));
    }
    vm.send("poweroff\n");
    let (status, output) = vm.wait();
    assert_eq!(status, 0, "{output}");
    check_log(&output);
    for (bus, path) in BUSES {
        for firmware in ["bios", "uefi"] {
            let mut start: Command = with_firmware();
            start.args(["--firmware", firmware, "--memory", "512M", "--timeout", "200"]);
            start.arg("--disk").arg(format!("{},format=raw,bus={bus},ephemeral", disk.display()));
            let (status, output) = finish(&mut start);
            let says = format!("lodge: up by {firmware} from ");
            let line = output.lines().find_map(|line| line.split_once(&says));
            let (_, device) = line.unwrap_or_else(|| panic!("{bus}, {firmware}: it did not come up:\n{output}"));
            assert!(device.contains(path), "{bus}, {firmware}: {device}");
            assert_eq!(status, 0, "{bus}, {firmware}: {output}");
            check_log(&output);
        }
    }
}
