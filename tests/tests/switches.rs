//! Guests on one switch: what they reach, and what the switch keeps from them.

use std::fs::Permissions;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lodge_tests::host_net::{content, sum_of, web_server};
use lodge_tests::{TestVm, linux, type_line};
use tempfile::TempDir;

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb]];
const ADDRESSES: [[u8; 4]; 2] = [[10, 9, 0, 1], [10, 9, 0, 2]];
/// Bytes that go from one guest to the other.
const LENGTH: usize = 1 << 20;

/// A switch of this test's own, with two guests, whose cards are up.
struct Lab {
    /// Where the switch's socket is, and not a user's.
    folder: TempDir,
    guests: [TestVm; 2],
}

impl Lab {
    fn new(options: &str) -> Self {
        // A folder that others may read is none for this.
        let own = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(own).tempdir().expect("a folder");
        let guests = [0, 1].map(|number| {
            let [.., last] = MACS[number];
            let capture = capture(folder.path(), number);
            let net = format!("switch=lab,mac=02:00:00:00:00:{last:02x},capture={}{options}", capture.display());
            let mut command = linux("cloud-amd64", "");
            command.args(["--net", &net, "--memory", "256", "--timeout", "280"]);
            let mut vm = TestVm::start(command.env("XDG_RUNTIME_DIR", folder.path()));
            does(&mut vm, "ip link set lo up; ip link set eth0 up");
            vm
        });
        Self { folder, guests }
    }

    /// With addresses.
    fn addressed(options: &str) -> Self {
        let mut lab = Self::new(options);
        for (vm, [a, b, c, d]) in lab.guests.iter_mut().zip(ADDRESSES) {
            does(vm, &format!("ip addr add {a}.{b}.{c}.{d}/24 dev eth0"));
        }
        lab
    }

    /// Ends the guests. What went over the cable of the second.
    fn end(self) -> Vec<u8> {
        for mut vm in self.guests {
            type_line(&mut vm, "poweroff -f");
            let (status, output) = vm.wait();
            assert_eq!(status, 0, "{output}");
        }
        std::fs::read(capture(self.folder.path(), 1)).expect("it was recorded")
    }
}

fn capture(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.pcapng"))
}

/// Whether somebody said that this card has this address, in an ARP packet.
fn says(frames: &[u8], mac: [u8; 6], address: [u8; 4]) -> bool {
    let sender = [&mac[..], &address].concat();
    frames.windows(sender.len()).any(|bytes| bytes == sender)
}

/// Has a command carried out, and waits for its end.
fn does(vm: &mut TestVm, command: &str) {
    // What is typed is echoed, too.
    type_line(vm, &format!("{command}; echo done | tr a-z A-Z"));
    vm.expect("DONE");
}

/// Sends pings, of which so many are answered.
fn ping(vm: &mut TestVm, to: &str, received: usize) {
    type_line(vm, &format!("ping -c 2 -W 2 {to}"));
    vm.expect(&format!("2 packets transmitted, {received} packets received"));
}

/// Waits until a ping is answered: after a change of addresses the first may go to where somebody was.
fn reaches(vm: &mut TestVm, to: &str) {
    type_line(vm, &format!("until ping -c 1 -W 1 {to} > /dev/null; do :; done; echo reached | tr a-z A-Z"));
    vm.expect("REACHED");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn guests_reach_each_other_and_nothing_else() {
    let mut lab = Lab::addressed("");
    let [one, two] = &mut lab.guests;
    ping(one, "10.9.0.2", 2);
    ping(two, "10.9.0.1", 2);
    let data = sum_of(&vec![0; LENGTH]);
    type_line(two, "(nc -l -p 7 | md5sum) & sleep 1; echo listens | tr a-z A-Z");
    two.expect("LISTENS");
    type_line(one, &format!("head -c {LENGTH} /dev/zero | nc 10.9.0.2 7"));
    two.expect(&data);
    two.send("\n");
    // There is no router, whatever the guest thinks of it, and nobody who gives out addresses.
    does(one, "ip addr add 10.0.2.99/24 dev eth0; ip route add default via 10.0.2.2");
    ping(one, "10.0.2.2", 0);
    ping(one, "192.0.2.1", 0);
    type_line(one, "udhcpc -i eth0 -n -q -f -t 2 -T 1 -s /bin/lodge-dhcp");
    one.expect("no lease, failing");
    lab.end();
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_guest_that_says_it_is_another_is_not_heard() {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
    let mut lab = Lab::addressed("");
    let [one, two] = &mut lab.guests;
    ping(one, "10.9.0.2", 2);
    ping(two, "10.9.0.1", 2);
    // With the other's address it asks for somebody, which all hear of.
    does(one, "ip addr flush dev eth0; ip addr add 10.9.0.2/24 dev eth0");
    ping(one, "-I 10.9.0.2 10.9.0.3", 0);
    does(one, "ip addr flush dev eth0; ip addr add 10.9.0.1/24 dev eth0");
    reaches(two, "10.9.0.1");
    // With another card's address nobody hears of it at all.
    does(one, "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:0c; ip link set eth0 up");
    ping(one, "10.9.0.2", 0);
    does(two, "ip neigh flush dev eth0");
    ping(two, "10.9.0.1", 0);
    does(one, "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:0a; ip link set eth0 up");
    ping(one, "10.9.0.2", 2);
    let log = std::fs::read_to_string(lab.folder.path().join("lodge/switch/lab.log")).expect("it has a log");
    assert!(log.contains("02:00:00:00:00:0a are dropped"), "{log}");
    let frames = lab.end();
    assert!(says(&frames, MACS[0], ADDRESSES[0]), "what is right comes through");
    assert!(!says(&frames, MACS[0], ADDRESSES[1]), "the other's address");
    assert!(!frames.windows(OTHER.len()).any(|bytes| bytes == OTHER), "a card that is not there");
}

/// An address of the host's other than loopback, if it has one.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; the kernel only looks for the way.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn with_nat_they_reach_what_is_outside() {
    let mut lab = Lab::new(",nat");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("it need not wait");
    let addresses = lab.guests.each_mut().map(|vm| {
        type_line(vm, "udhcpc -i eth0 -n -q -f -s /bin/lodge-dhcp");
        let lease = vm.expect_rest("lease of ");
        assert!(lease.starts_with("10.0.2.") && lease.contains("from 10.0.2.2"), "{lease}");
        lease.split(' ').next().unwrap_or_default().to_owned()
    });
    assert_ne!(addresses[0], addresses[1]);
    let outside = own_address();
    if outside.is_none() {
        eprintln!("this host has no network: what is outside is not reached");
    }
    let data = content(LENGTH);
    for (number, vm) in lab.guests.iter_mut().enumerate() {
        ping(vm, "10.0.2.2", 2);
        ping(vm, &addresses[1 - number], 2);
        type_line(vm, &format!("nc -w 5 10.0.2.2 {port} < /dev/null; echo ended $?"));
        vm.expect("ended 1\r\n");
        if let Some(outside) = &outside {
            let (port, server) = web_server(outside, data.clone(), 1);
            type_line(vm, &format!("wget -q -O - http://{outside}:{port}/file | md5sum"));
            vm.expect(&sum_of(&data));
            assert_eq!(server.join().expect("the server ended"), ["GET /file HTTP/1.1"]);
        }
    }
    lab.end();
    assert!(listener.accept().is_err(), "somebody came");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn what_is_denied_is_refused_on_a_switch() {
    let mut lab = Lab::addressed(",deny=tcp:10.9.0.2:7");
    let [one, two] = &mut lab.guests;
    ping(one, "10.9.0.2", 2);
    does(two, "(nc -l -p 7; echo heard | tr a-z A-Z) & (nc -l -p 8) & sleep 1");
    type_line(one, "nc -w 100 10.9.0.2 7 < /dev/null; echo ended $?");
    one.expect("Connection refused");
    type_line(one, "echo let-through | tr a-z A-Z | nc 10.9.0.2 8");
    two.expect("LET-THROUGH");
    two.send("\n");
    lab.end();
}
