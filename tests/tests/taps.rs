//! Guests on taps, and what else takes a host's network that can be changed, in a network namespace of each test's own. To make
//! those takes root, which these tests need and say so; lodge runs as the ordinary user whose tap it is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use lodge_tests::host_net::{Namespace, ORDINARY, TAP_ADDRESS, content, succeeds, sum_of};
use lodge_tests::{TestVm, finish, guest, linux, linux_with, run, type_line, with_firmware, write_file};

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

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn what_is_denied_is_refused_on_a_tap() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.tap(TAP, ORDINARY);
    let [denied, allowed] = [(); 2].map(|()| namespace.within(|| TcpListener::bind((TAP_ADDRESS, 0))).expect("a port"));
    let [denied_port, port] = [&denied, &allowed].map(|listener| listener.local_addr().expect("an address").port());
    let card = format!("virtio,deny=tcp:{TAP_ADDRESS}:{denied_port}");
    let mut vm = start(&namespace, &mut linux("cloud-amd64", ""), &card);
    type_line(&mut vm, &format!("ip addr add {GUEST}/24 dev eth0; nc -w 100 {TAP_ADDRESS} {denied_port} < /dev/null"));
    vm.expect("Connection refused");
    type_line(&mut vm, &format!("echo allowed | nc {TAP_ADDRESS} {port}"));
    let mut text = String::new();
    allowed.accept().expect("the guest comes").0.read_to_string(&mut text).expect("it comes");
    assert_eq!(text, "allowed\n");
    type_line(&mut vm, "poweroff -f");
    assert_eq!(vm.wait().0, 0);
    denied.set_nonblocking(true).expect("it need not wait");
    assert!(denied.accept().is_err(), "somebody came");
}

/// The host moves to another network while the guest runs, as laptops do.
#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_hosts_resolver_changes() {
    const SERVERS: [(&str, &str); 2] = [("127.0.0.11", "192.0.2.11"), ("127.0.0.22", "192.0.2.22")];
    let Some(namespace) = Namespace::new() else { return };
    let servers = SERVERS.map(|(listens, answer)| namespace.name_server(listens, answer));
    let file = write_file(format!("nameserver {}\n", SERVERS[0].0).as_bytes());
    succeeds(Command::new("chmod").arg("0644").arg(file.path()));
    let mut command = linux("cloud-amd64", "");
    command.args(["--net", "user", "--timeout", "280"]);
    let resolver = Path::new("/etc/resolv.conf");
    let mut vm = TestVm::start(&mut namespace.ordinary_seeing(&command, &[(file.path(), resolver)]));
    type_line(&mut vm, "ip link set lo up; ip link set eth0 up; udhcpc -i eth0 -n -q -f -s /bin/lodge-dhcp");
    vm.expect("lease of 10.0.2.15");
    for (number, (listens, answer)) in SERVERS.into_iter().enumerate() {
        // The file is the same one, as an editor or a DHCP client of the host's would leave it.
        std::fs::write(file.path(), format!("nameserver {listens}\n")).expect("it is written");
        let question = format!("until nslookup name{number}.example | grep {answer}; do sleep 1; done");
        type_line(&mut vm, &format!("{question}; echo answered | tr a-z A-Z"));
        vm.expect("ANSWERED");
        assert!(servers[number].log().contains(&format!("name{number}.example")), "{}", servers[number].log());
    }
    assert!(servers[1].log().contains("name1.example") && !servers[1].log().contains("name0.example"));
    type_line(&mut vm, "poweroff -f");
    assert_eq!(vm.wait().0, 0);
}
