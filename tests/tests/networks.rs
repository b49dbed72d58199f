//! Guests on networks: every card with Linux's driver, the network in user mode in both directions.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use lodge_tests::host_net::{content, free_port, sum_of, web_server};
use lodge_tests::{Controlled, TestVm, linux, linux_with, type_line};

/// Bytes that the server serves.
const LENGTH: usize = 3 << 20;

/// Has the guest ask for an address.
fn with_address(vm: &mut TestVm) {
    type_line(vm, "ip link set lo up; ip link set eth0 up; udhcpc -i eth0 -n -q -f -s /bin/lodge-dhcp");
    vm.expect("lease of 10.0.2.15 obtained from 10.0.2.2");
}

/// Has the guest send back what comes from outside, on its port 7.
fn echoes(vm: &mut TestVm, forwarded: u16) {
    // What is typed is echoed, too.
    type_line(vm, "nc -l -p 7 -e cat & sleep 1; echo listens | tr a-z A-Z");
    vm.expect("LISTENS");
    let mut stream = TcpStream::connect(("127.0.0.1", forwarded)).expect("the port is forwarded");
    let data = content(1 << 20);
    let mut writer = stream.try_clone().expect("it can be had twice");
    let sent = data.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).expect("it is sent");
        writer.shutdown(std::net::Shutdown::Write).expect("it ends");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("it comes back");
    writing.join().expect("all was sent");
    assert!(back == data, "{} bytes came back", back.len());
}

/// All ways through a card: pings, the host's files, a connection from outside.
fn works(command: &mut Command, card: &str) {
    works_and_ends(command, card, "poweroff -f");
}

fn works_and_ends(command: &mut Command, card: &str, end: &str) {
    let ((port, server), forwarded) = (web_server("127.0.0.1", content(LENGTH), 1), free_port());
    let net = format!("user,model={card},loopback=tcp:{port},forward=tcp:{forwarded}:7");
    let mut vm = TestVm::start(command.args(["--net", &net, "--memory", "256", "--timeout", "280"]));
    with_address(&mut vm);
    // In one packet, and in fragments.
    for size in [1400, 4000] {
        type_line(&mut vm, &format!("ping -c 2 -s {size} 10.0.2.2"));
        vm.expect("2 packets received, 0% packet loss");
    }
    // A router is advertised; an address is one when nobody else has it, which takes a moment.
    type_line(&mut vm, "sleep 2; ping -6 -c 1 -s 4000 fd6c:6f64:6765::2");
    vm.expect("1 packets received, 0% packet loss");
    type_line(&mut vm, &format!("wget -q -O - http://host.lodge.internal:{port}/file | md5sum"));
    vm.expect(&sum_of(&content(LENGTH)));
    assert_eq!(server.join().expect("the server ended"), ["GET /file HTTP/1.1"]);
    echoes(&mut vm, forwarded);
    type_line(&mut vm, &format!("dmesg | grep -i -E 'WARNING|BUG|timed out|transmit|checksum'; {end}"));
    let (status, output) = vm.wait();
    assert_eq!(status, 0, "{output}");
    let complaints = output.split(&format!("{end}\r\n")).last().unwrap_or_default();
    assert!(!complaints.contains("WARNING") && !complaints.contains("timed out"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_virtio_card() {
    works(&mut linux("cloud-amd64", ""), "virtio");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_virtio_card_with_a_queue_for_each_processor() {
    works(linux("cloud-amd64", "").args(["--cpus", "2"]), "virtio,queues=2");
}

/// The stock kernel, which has drivers of other cards as modules.
fn works_with(module: &str, append: &str, card: &str) {
    let (mut command, _initrd) = linux_with(module, "amd64", append);
    works(&mut command, card);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_e1000_card() {
    works_with("e1000", "", "e1000");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_rtl8139_card() {
    // Linux's other driver, 8139too, leaves cards of this revision to this one.
    works_with("8139cp", "", "rtl8139");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_ne2000_card() {
    works_with("ne2k-pci", "", "ne2k");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_ne2000_card_for_isa() {
    // Its interrupt is ACPI's, too, which shares it with no driver of ISA's; without ACPI nobody switches off.
    let (mut command, _initrd) = linux_with("ne", "686-pae", "acpi=off ne.io=0x300 ne.irq=9");
    works_and_ends(command.arg("--no-reboot"), "ne2k-isa", "reboot -f");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn nothing_of_the_host_is_reached_unasked() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("it need not wait");
    let mut vm = TestVm::start(linux("cloud-amd64", "").args(["--net", "user", "--timeout", "280"]));
    with_address(&mut vm);
    for host in ["10.0.2.2", "10.0.2.3", "127.0.0.1"] {
        type_line(&mut vm, &format!("nc -w 5 {host} {port} < /dev/null; echo ended $?"));
        vm.expect("ended 1\r\n");
    }
    type_line(&mut vm, "poweroff -f");
    assert_eq!(vm.wait().0, 0);
    assert!(listener.accept().is_err(), "somebody came");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn what_is_denied_is_refused() {
    let ((port, server), forwarded) = (web_server("127.0.0.1", content(LENGTH), 1), free_port());
    let denied = TcpListener::bind("127.0.0.1:0").expect("a port");
    let denied_port = denied.local_addr().expect("an address").port();
    denied.set_nonblocking(true).expect("it need not wait");
    let net =
        format!("user,loopback=on,forward=tcp:{forwarded}:7,deny=10.0.2.2:{denied_port},allow=tcp:10.0.2.2:{port}");
    let mut vm = TestVm::start(linux("cloud-amd64", "").args(["--net", &net, "--timeout", "280"]));
    with_address(&mut vm);
    // Denied, not allowed, and nobody's: that is said at once, as it would not be for an address that nobody has.
    for to in [format!("10.0.2.2 {denied_port}"), "10.0.2.2 9".into(), "192.0.2.1 80".into()] {
        type_line(&mut vm, &format!("nc -w 100 {to} < /dev/null; echo ended $?"));
        vm.expect("Connection refused");
        vm.expect("ended 1\r\n");
    }
    type_line(&mut vm, "ping -c 1 -W 3 10.0.2.2");
    vm.expect("1 packets transmitted, 0 packets received, 100% packet loss");
    // The name server is the network's own. The host has an IPv6 address, too, of which nothing is allowed.
    type_line(&mut vm, "nslookup host.lodge.internal");
    vm.expect("Address: 10.0.2.2");
    type_line(&mut vm, &format!("wget -q -O - http://10.0.2.2:{port}/file | md5sum"));
    vm.expect(&sum_of(&content(LENGTH)));
    assert_eq!(server.join().expect("the server ended"), ["GET /file HTTP/1.1"]);
    // Who comes in is answered.
    echoes(&mut vm, forwarded);
    type_line(&mut vm, "poweroff -f");
    assert_eq!(vm.wait().0, 0);
    assert!(denied.accept().is_err(), "somebody came");
}

/// Pulls cables and plugs them in.
fn cables(command: &mut Command, model: &str) {
    let net = format!("user,link=down,model={model}");
    let mut machine = Controlled::start(command.args(["--net", &net, "--timeout", "280"]));
    let carrier = |vm: &mut TestVm, is: &str| {
        let line =
            format!("until [ $(cat /sys/class/net/eth0/carrier) = {is} ]; do sleep 0.2; done; echo carrier is {is}");
        type_line(vm, &line);
        vm.expect(&format!("\ncarrier is {is}"));
    };
    let link = |machine: &Controlled, state: &str, says: &str| {
        assert_eq!(machine.ctl(&["link", "net0", state]), (0, String::new()));
        let (status, text) = machine.ctl(&["status"]);
        assert!(status == 0 && text.contains(&format!("\nnet0: {says}\n")), "{text}");
    };
    type_line(&mut machine.vm, "ip link set eth0 up");
    carrier(&mut machine.vm, "0");
    link(&machine, "up", "plugged in");
    carrier(&mut machine.vm, "1");
    with_address(&mut machine.vm);
    for _ in 0..2 {
        type_line(&mut machine.vm, "ping -c 1 -W 5 10.0.2.2");
        machine.vm.expect("1 packets received, 0% packet loss");
        link(&machine, "down", "pulled");
        carrier(&mut machine.vm, "0");
        type_line(&mut machine.vm, "ping -c 1 -W 2 10.0.2.2");
        machine.vm.expect("0 packets received");
        link(&machine, "up", "plugged in");
        carrier(&mut machine.vm, "1");
    }
    type_line(&mut machine.vm, "ping -c 1 -W 5 10.0.2.2");
    machine.vm.expect("1 packets received, 0% packet loss");
    let (status, text) = machine.ctl(&["link", "net1", "up"]);
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("there is no network card 'net1'; there are: net0"), "{text}");
    machine.quit();
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_cable_of_a_virtio_card() {
    cables(&mut linux("cloud-amd64", ""), "virtio");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_cable_of_an_e1000_card() {
    let (mut command, _initrd) = linux_with("e1000", "amd64", "");
    cables(&mut command, "e1000");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_cable_of_an_rtl8139_card() {
    let (mut command, _initrd) = linux_with("8139cp", "amd64", "");
    cables(&mut command, "rtl8139");
}
