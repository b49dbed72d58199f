//! A whole Debian on a disk: systemd, a login, and programs of many kinds.

use std::process::Command;

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

/// Packages from the mirror that the root file system was made from, over the network in user mode. Its name server and
/// addresses of both kinds come from that network.
const PACKAGES: &[(&str, &str)] = &[
    (r#"printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' > /etc/systemd/network/a.network"#, ""),
    ("systemctl start systemd-networkd; until ip route | grep ^default; do sleep 1; done", "via 10.0.2.2"),
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
