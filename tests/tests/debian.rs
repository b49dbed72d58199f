//! A whole Debian on a disk: systemd, a login, and programs of many kinds.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lodge_tests::host_net::web_server;
use lodge_tests::{TestVm, check_log, debian_root, linux};

/// Commands, and what each must say besides its exit status of 0. What is typed comes back as an echo, so that no
/// answer may be part of its command.
const COMMANDS: &[(&str, &str)] = &[
    ("echo state=$(systemctl is-system-running --wait)", "state=running"),
    ("echo failed=$(systemctl list-units --failed --no-legend | wc -l)", "failed=0"),
    ("apt list --installed 2>/dev/null | grep ^sqlite3/", "amd64 [installed"),
    ("python3 -c 'import json, hashlib; print(json.dumps({1: sum(range(10**6))}))'", r#"{"1": 499999500000}"#),
    (r#"printf '#include <stdio.h>\nint main(void) { printf("c%%d\\n", 6 * 7); }\n' > a.c"#, ""),
    ("gcc -O2 -o a.out a.c && ./a.out", "c42"),
    ("printf abc | openssl dgst -sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("sqlite3 t.db 'create table t(a); insert into t values(40),(2); select sum(a)*10 from t'", "420"),
    (r"perl -e 'print join(q(-), map { $_ ** 2 } 1..5), qq(\n)'", "1-4-9-16-25"),
    ("seq 100000 | xz | xz -d | cmp - <(seq 100000) && echo same=$((1 + 1))", "same=2"),
    ("ip -brief link show lo", "LOOPBACK"),
    ("sync; dmesg | grep -c Linux.version", "1"),
];

/// How a guest comes to its address, over the network in user mode.
const ADDRESS: [(&str, &str); 2] = [
    (r#"printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' > /etc/systemd/network/a.network"#, ""),
    ("systemctl start systemd-networkd; until ip route | grep ^default; do sleep 1; done", "via 10.0.2.2"),
];

/// Packages from the mirror that the root file system was made from, over the network in user mode. Its name server and
/// addresses of both kinds come from that network.
const PACKAGES: &[(&str, &str)] = &[
    ADDRESS[0],
    ADDRESS[1],
    ("echo nameserver 10.0.2.3 > /etc/resolv.conf", ""),
    ("apt-get -q -y update && echo updated=$((1 + 1))", "updated=2"),
    ("DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install hello", "Setting up hello"),
    ("hello --greeting=$((6 * 7))", "42"),
];

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_debian_root_on_a_disk_is_worked_in() {
    works(&[], COMMANDS);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_debian_root_installs_packages_over_the_network() {
    works(&["--net", "user"], PACKAGES);
}

/// Has 200 connections send and get back something for a minute, none of which may wait for 20 seconds; then asks how many
/// the host's server still has.
const TALK: &str = "
import asyncio, os, sys, time
async def talk(number, until, rounds=0):
    reader, writer = await asyncio.open_connection('10.0.2.2', int(sys.argv[1]))
    while time.monotonic() < until:
        data = os.urandom(500 + 37 * number)
        writer.write(data)
        assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
        rounds += 1
        await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    return rounds
async def main():
    rounds = await asyncio.gather(*[talk(number, time.monotonic() + 60) for number in range(200)])
    print('went on:', len(rounds), 'rounds:', min(rounds), 'to', max(rounds))
    await asyncio.sleep(2)
    reader, _ = await asyncio.open_connection('10.0.2.2', int(sys.argv[2]))
    print('left over:', (await reader.read()).decode())
asyncio.run(main())
";

/// Sends back what comes, and counts who is there.
fn echo_server(there: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let there = there.clone();
            std::thread::spawn(move || {
                there.fetch_add(1, Ordering::SeqCst);
                let mut buffer = vec![0; 16 << 10];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                there.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    port
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test --long`"]
fn a_debian_root_keeps_two_hundred_connections_which_takes_long() {
    let there = Arc::new(AtomicUsize::new(0));
    let port = echo_server(there.clone());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let count = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest asks");
        write!(stream, "{}", there.load(Ordering::SeqCst)).expect("it is told");
    });
    let (script, server) = web_server("127.0.0.1", TALK.into(), 1);
    let fetch = format!(
        "python3 -c 'from urllib.request import *; urlretrieve(\"http://10.0.2.2:{script}/talk.py\", \"talk.py\")'"
    );
    let talk = format!("python3 talk.py {port} {count} | tee talk");
    let commands = [ADDRESS[0], ADDRESS[1], (&fetch, ""), (&talk, "went on: 200"), ("cat talk", "left over: 0")];
    works(&["--net", &format!("user,loopback=tcp:{port},loopback=tcp:{count},loopback=tcp:{script}")], &commands);
    server.join().expect("the server ended");
}

/// Logs in, types commands and waits for what they say, and switches off.
fn works(more: &[&str], commands: &[(&str, &str)]) {
    let image = debian_root();
    let mut command = linux("cloud-amd64", "lodge.root=/dev/vda");
    command.args(["--memory", "1G", "--cpus", "2", "--disk"]).arg(&image).args(more);
    let mut vm = TestVm::start(&mut command);
    vm.expect("login:");
    vm.send("root\n");
    vm.expect("# ");
    for (number, (command, answer)) in commands.iter().enumerate() {
        vm.send(&format!("{command}; echo \"done {number}:\"$?\n"));
        // The echo ends with this, whatever the width of the terminal.
        vm.expect("$?");
        vm.expect(answer);
        vm.expect(&format!("done {number}:0"));
    }
    vm.send("poweroff\n");
    let (status, output) = vm.wait();
    assert_eq!(status, 0, "{output}");
    check_log(&output);
    let check = Command::new("/sbin/e2fsck").arg("-fn").arg(&image).output().expect("e2fsprogs has e2fsck");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
