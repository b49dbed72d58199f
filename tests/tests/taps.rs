//! Guests on taps, in a network namespace of each test's own. To make those takes root, which these tests need and say so;
//! lodge runs as the ordinary user whose tap it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use lodge_tests::host_net::{Namespace, ORDINARY, TAP_ADDRESS, content, sum_of};
use lodge_tests::{TestVm, finish, guest, linux, linux_with, run, type_line, with_firmware};

const TAP: &str = "lodge0";
const GUEST: &str = "192.168.77.2";
/// Bytes that go either way.
const LENGTH: usize = 8 << 20;

/// A guest on the tap, its card up.
fn start(namespace: &Namespace, command: &mut Command, card: &str) -> TestVm {
    command.args(["--net", &format!("tap={TAP},model={card}"), "--memory", "256", "--timeout", "280"]);
    let mut vm = TestVm::start(&mut namespace.ordinary(command));
    type_line(&mut vm, "ip link set lo up; ip link set eth0 up");
    vm
}

/// Pings, and data in both directions.
fn works(command: &mut Command, card: &str) {
    let Some(namespace) = Namespace::new() else { return };
    namespace.tap(TAP, ORDINARY);
    let mut vm = start(&namespace, command, card);
    type_line(&mut vm, &format!("ip addr add {GUEST}/24 dev eth0; ping -c 2 -s 1400 {TAP_ADDRESS}"));
    vm.expect("2 packets received, 0% packet loss");
    let data = content(LENGTH);
    // What is typed is echoed, too.
    type_line(&mut vm, "(nc -l -p 7 > /tmp/data; md5sum /tmp/data) & sleep 1; echo listens | tr a-z A-Z");
    vm.expect("LISTENS");
    let mut stream = namespace.within(|| TcpStream::connect((GUEST, 7))).expect("the guest listens");
    stream.write_all(&data).expect("it is sent");
    drop(stream);
    vm.expect(&sum_of(&data));
    let listener = namespace.within(|| TcpListener::bind((TAP_ADDRESS, 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    vm.send(&format!("\nnc {TAP_ADDRESS} {port} < /tmp/data\n"));
    let (mut stream, _) = listener.accept().expect("the guest comes");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("it comes");
    drop(stream);
    assert!(back == data, "{} bytes came back", back.len());
    vm.send("\ndmesg | grep -i -E 'WARNING|BUG|timed out|checksum'; poweroff -f\n");
    let (status, output) = vm.wait();
    assert_eq!(status, 0, "{output}");
    let complaints = output.split("poweroff -f\r\n").last().unwrap_or_default();
    assert!(!complaints.contains("WARNING") && !complaints.contains("timed out"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_tap_with_segments_and_checksums_left_undone() {
    works(&mut linux("cloud-amd64", ""), "virtio");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_tap_with_a_card_that_does_them_itself() {
    let (mut command, _initrd) = linux_with("e1000", "amd64", "");
    works(&mut command, "e1000");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_foreign_server_gives_out_addresses() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.tap(TAP, ORDINARY);
    let server = namespace.dnsmasq(TAP, &["--port=0"]);
    let mut vm = start(&namespace, &mut linux("cloud-amd64", ""), "virtio");
    type_line(&mut vm, "udhcpc -i eth0 -n -q -f -s /bin/lodge-dhcp");
    let address = vm.expect_rest("lease of ");
    assert!(address.starts_with("192.168.77.") && address.contains(&format!("from {TAP_ADDRESS}")), "{address}");
    type_line(&mut vm, &format!("ping -c 1 {TAP_ADDRESS}"));
    vm.expect("1 packets received, 0% packet loss");
    type_line(&mut vm, "poweroff -f");
    assert_eq!(vm.wait().0, 0);
    let log = server.log();
    assert!(log.contains("DHCPACK"), "{log}");
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn a_tap_that_cannot_be_had_is_named() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.tap(TAP, ORDINARY - 1);
    for (tap, why) in
        [("nosuch", "there is no interface 'nosuch'"), (TAP, "belongs to another user"), ("lo", "not a tap")]
    {
        let mut command = run();
        command.args(["--net", &format!("tap={tap}"), "--kernel"]).arg(lodge_tests::guest("cloud-amd64/vmlinuz"));
        let (status, output) = finish(&mut namespace.ordinary(&command));
        assert_eq!(status, 2, "{output}");
        assert!(output.contains(why) && output.lines().count() <= 2, "{output}");
    }
}

/// Another's PXE service: dnsmasq names the file and serves it by TFTP.
#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_foreign_server_boots_the_installer() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.tap(TAP, ORDINARY);
    let folder = guest("media/netboot/pxelinux.0").with_file_name("");
    let root = format!("--tftp-root={}", folder.display());
    let files = [
        "--dhcp-match=set:uefi,option:client-arch,7",
        // Debian's shim takes GRUB from the folder in the header's field, which dnsmasq leaves empty for UEFI: GRUB itself.
        "--dhcp-boot=tag:uefi,debian-installer/amd64/grubx64.efi",
        "--dhcp-boot=tag:!uefi,pxelinux.0",
    ];
    let server = namespace.dnsmasq(TAP, &[&["--port=0", "--enable-tftp", &root], &files[..]].concat());
    for (firmware, loader) in [("bios", "lodge: pxelinux"), ("uefi", "lodge: grub on efi")] {
        let mut command = with_firmware();
        command.args(["--firmware", firmware, "--boot", "network", "--memory", "1G", "--timeout", "280"]);
        command.args(["--net", &format!("tap={TAP}")]);
        let mut vm = TestVm::start(&mut namespace.ordinary(&command));
        vm.expect(loader);
        vm.expect("Choose the language to be used for the installation process.");
        vm.kill();
    }
    assert!(server.log().contains("sent"), "{}", server.log());
}
