//! A kernel of Debian's that sleeps (ACPI S3), and what wakes it.

use std::time::{Duration, Instant};

use lodge_tests::{Controlled, PATIENCE, check_log, guest, with_firmware, write_file};

/// The guest, at its shell. It has noted what is in its memory.
fn started(firmware: &str, cpus: &str) -> (Controlled, tempfile::NamedTempFile) {
    let disk = write_file(&[b'x'; 1 << 20]);
    let mut command = with_firmware();
    command.arg("--cdrom").arg(guest("media/linux.iso")).args(["--firmware", firmware, "--cpus", cpus]);
    let mut controlled = Controlled::start(command.arg("--disk").arg(disk.path()).args(["--timeout", "280"]));
    let vm = &mut controlled.vm;
    vm.expect("lodge: init");
    vm.send("head -c 8000000 /dev/urandom > /tmp/r; md5sum /tmp/r > /tmp/sum; date +%s > /tmp/then; echo no\"\"ted\n");
    vm.expect("noted");
    (controlled, disk)
}

/// The guest has come back, with its memory, its disk, its clock and its processors.
#[track_caller]
fn goes_on(mut controlled: Controlled, disk: &std::path::Path, cpus: &str) {
    let vm = &mut controlled.vm;
    vm.expect("Waking up from system sleep state S3");
    vm.expect("woken 0");
    let look = "md5sum -c /tmp/sum; echo written | dd of=/dev/vda bs=512 seek=9 conv=sync,fsync; \
                head -c 3 /dev/vda; echo; nproc; test $(date +%s) -ge $(($(cat /tmp/then) + 1)) && echo la\"\"ter\n";
    vm.send(look);
    vm.expect("/tmp/r: OK");
    vm.expect("xxx");
    vm.expect(&format!("\n{cpus}\r\n"));
    vm.expect("later");
    vm.send("poweroff -f\n");
    let (status, output) = controlled.vm.wait();
    assert_eq!(status, 0, "{output}");
    check_log(&output);
    let bytes = std::fs::read(disk).unwrap();
    assert_eq!(bytes[9 * 512..9 * 512 + 9], *b"written\n\0");
}

/// Waits until the guest sleeps.
#[track_caller]
fn sleeps(controlled: &Controlled) {
    let until = Instant::now() + PATIENCE;
    while !controlled.ctl(&["status"]).1.contains("suspended") {
        assert!(Instant::now() < until, "it does not fall asleep");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_kernel_that_sleeps_until_the_clocks_alarm() {
    for (firmware, cpus) in [("bios", "1"), ("bios", "2"), ("uefi", "2")] {
        let (mut controlled, disk) = started(firmware, cpus);
        // Later than falling asleep may take: an alarm that goes off on the way there is lost, as it is on any PC.
        controlled.vm.send("echo +10 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state; echo woken $?\n");
        goes_on(controlled, disk.path(), cpus);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_kernel_that_sleeps_until_the_power_button_is_pressed() {
    let (mut controlled, disk) = started("bios", "2");
    for _ in 0..2 {
        controlled.vm.send("echo mem > /sys/power/state; echo wo\"\"ken $?\n");
        sleeps(&controlled);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(controlled.ctl(&["powerdown"]), (0, String::new()));
        controlled.vm.expect("suspend exit");
    }
    controlled.vm.send("echo mem > /sys/power/state; echo woken $?\n");
    sleeps(&controlled);
    assert_eq!(controlled.ctl(&["powerdown"]), (0, String::new()));
    goes_on(controlled, disk.path(), "2");
}
