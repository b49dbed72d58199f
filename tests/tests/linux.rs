//! Debian's kernels with busybox.

use lodge_tests::{TestVm, check_log, finish, linux, linux_keeping, linux_with, write_file};

/// What `lodge.exit` makes of a command's status 0 and 1: the debug exit port gives (v << 1) | 1.
const GOOD: i32 = 1;
const BAD: i32 = 3;

const WORK: &str = "uname -m; head -c 1048576 /dev/zero | sha256sum";
const SHA: &str = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";

#[track_caller]
fn check_work(output: &str, machine: &str) {
    assert!(output.contains(&format!("\n{machine}\r\n")), "{output}");
    assert!(output.contains(SHA), "{output}");
    check_log(output);
}

fn runs_commands(guest: &str, machine: &str) {
    let mut command = linux(guest, &format!("lodge.exit lodge.run=\"{WORK}\""));
    let (status, output) = finish(command.args(["--debug-exit", "--no-reboot"]));
    assert_eq!(status, GOOD, "{output}");
    assert!(output.contains("lodge: status 0"), "{output}");
    check_work(&output, machine);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_cloud_kernel_runs_commands() {
    // It has no /dev/port, through which the others end the machine, and powers off.
    let (status, output) = finish(&mut linux("cloud-amd64", &format!("lodge.run=\"{WORK}\"")));
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("lodge: status 0"), "{output}");
    check_work(&output, "x86_64");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_stock_kernel_runs_commands() {
    runs_commands("amd64", "x86_64");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_32_bit_kernel_runs_commands() {
    runs_commands("686-pae", "i686");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_failing_command_shows_in_the_exit_status() {
    let (status, output) = finish(linux("amd64", "quiet lodge.exit lodge.run=\"false\"").arg("--debug-exit"));
    assert_eq!(status, BAD, "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_shell_answers_on_standard_input_and_output() {
    let mut vm = TestVm::start(linux("amd64", "quiet").args(["--debug-exit", "--no-reboot"]));
    vm.expect("lodge: init");
    vm.expect("#");
    vm.send("echo answer $((6 * 7))\n");
    vm.expect("answer 42");
    vm.send("cat /proc/version\n");
    vm.expect("Linux version 6.1");
    vm.send("lodge-exit 5\n");
    assert_eq!(vm.wait().0, 11);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_reboot_starts_anew_or_ends() {
    let mut vm = TestVm::start(linux("cloud-amd64", "quiet lodge.run=\"reboot -f\"").args(["--timeout", "600"]));
    vm.expect("lodge: init");
    vm.expect("lodge: init");
    drop(vm);
    let (status, output) = finish(linux("cloud-amd64", "quiet lodge.run=\"reboot -f\"").arg("--no-reboot"));
    assert_eq!(status, 0, "{output}");
    assert_eq!(output.matches("lodge: init").count(), 1, "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn time_passes_as_on_the_host() {
    let script = "date +%s; sleep 2; date +%s; cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let begin = std::time::SystemTime::now();
    let mut vm = TestVm::start(linux("amd64", &format!("quiet lodge.exit lodge.run=\"{script}\"")).arg("--debug-exit"));
    vm.expect("lodge: init\r\n");
    let (status, output) = vm.wait();
    assert_eq!(status, GOOD, "{output}");
    let after = output.split("lodge: init").nth(1).unwrap_or_default();
    let seconds: Vec<u64> = after.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let [first, second] = seconds[..] else { panic!("{output}") };
    assert!(second - first >= 2, "{output}");
    let host = begin.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(first >= host && first <= host + 600, "{first} on the guest, {host} on the host");
    assert!(after.contains("tsc") || after.contains("kvm-clock"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn several_processors_work_at_once() {
    let script = "nproc; for i in 1 2 3 4; do (head -c 4194304 /dev/zero | sha256sum) & done; wait";
    for (guest, cpus) in [("cloud-amd64", 1), ("cloud-amd64", 2), ("cloud-amd64", 4), ("amd64", 2), ("686-pae", 2)] {
        let mut command = linux(guest, &format!("lodge.run=\"{script}\""));
        let (status, output) = finish(command.args(["--cpus", &cpus.to_string()]));
        assert_eq!(status, 0, "{output}");
        assert!(output.contains(&format!("\n{cpus}\r\n")), "{output}");
        let sum = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";
        assert_eq!(output.matches(sum).count(), 4, "{output}");
        check_log(&output);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn disks_keep_what_is_written_unless_they_must_not() {
    const SECTORS: usize = 2048;
    let disks: Vec<_> = (0..3u8).map(|n| write_file(&[b'a' + n; SECTORS * 512])).collect();
    let script = "cat /sys/block/vd?/size /sys/block/vd?/ro; \
                  for d in a b c; do head -c 3 /dev/vd$d; echo; echo written | dd of=/dev/vd$d conv=fsync; done; \
                  head -c 7 /dev/vdb; sync";
    let mut command = linux("cloud-amd64", &format!("lodge.run=\"{script}\""));
    for (disk, more) in disks.iter().zip(["", ",ephemeral", ",readonly"]) {
        command.arg("--disk").arg(format!("{}{more}", disk.path().display()));
    }
    let (status, output) = finish(&mut command);
    assert_eq!(status, 0, "{output}");
    for text in ["2048\r\n2048\r\n2048\r\n0\r\n0\r\n1\r\n", "aaa\r\n", "bbb\r\n", "ccc\r\n", "written"] {
        assert!(output.contains(text), "{text:?}: {output}");
    }
    let start = |disk: &tempfile::NamedTempFile| std::fs::read(disk.path()).unwrap()[..8].to_vec();
    assert_eq!(start(&disks[0]), b"written\n");
    assert_eq!(start(&disks[1]), b"bbbbbbbb");
    assert_eq!(start(&disks[2]), b"cccccccc");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_full_host_is_an_io_error_for_the_guest() {
    const LIMIT: usize = 128 << 20;
    let disk = write_file(b"");
    disk.as_file().set_len(3 * LIMIT as u64 / 2).unwrap();
    // What is there is written over; what lies beyond the limit stays a hole. `ulimit` counts blocks of 512 bytes.
    let script = "yes lodge | head -c 4194304 | dd of=/dev/vda bs=4096 conv=fsync; echo first $?; \
                  yes again | head -c 8388608 | dd of=/dev/vda bs=4096 seek=31744 conv=fsync; echo second $?; \
                  yes third | head -c 4096 | dd of=/dev/vda bs=4096 seek=2048 conv=fsync; echo third $?";
    let linux = linux("cloud-amd64", &format!("lodge.run=\"{script}\""));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -f {} && exec \"$@\"", LIMIT / 512), "sh"]);
    command.arg(linux.get_program()).args(linux.get_args());
    command.args(["--memory", "128M", "--disk"]).arg(disk.path());
    let (status, output) = finish(&mut command);
    assert_eq!(status, 0, "{output}");
    for text in ["first 0\r\n", "second 1\r\n", "third 0\r\n", "I/O error, dev vda", "lodge: status 0"] {
        assert!(output.contains(text), "{text:?}: {output}");
    }
    assert_eq!(output.matches("the host failed a disk request").count(), 1, "{output}");
    let bytes = std::fs::read(disk.path()).unwrap();
    let is = |range: std::ops::Range<usize>, text: &[u8]| {
        bytes[range].iter().zip(text.iter().cycle()).all(|(got, want)| got == want)
    };
    assert!(is(0..4 << 20, b"lodge\n"), "what was made durable before is there");
    assert!(is(8 << 20..(8 << 20) + 4096, b"third\n"), "and what was after");
    assert!(is(LIMIT..bytes.len(), b"\0"), "nothing is beyond the limit");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_virtio_console_reaches_a_file_or_standard_output() {
    let log = write_file(b"");
    let run = "lodge.run=\"for n in 1 2 3; do echo line $n; done > /dev/hvc0\"";
    let mut command = linux("cloud-amd64", &format!("quiet {run}"));
    let (status, output) = finish(command.arg("--virtio-console").arg(format!("file={}", log.path().display())));
    assert_eq!(status, 0, "{output}");
    assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "line 1\r\nline 2\r\nline 3\r\n", "{output}");
    // Both ways, in the place of the serial port on standard input and output.
    let run = "lodge.run=\"exec 3<>/dev/hvc0; echo ready >&3; read line <&3; echo got $line >&3\"";
    let mut vm = TestVm::start(linux("cloud-amd64", &format!("quiet {run}")).args(["--virtio-console", "stdio"]));
    vm.expect("ready");
    vm.send("a line\n");
    vm.expect("got a line");
    assert_eq!(vm.wait().0, 0);
}

/// Boots the cloud kernel with translations kept in `folder`: what it printed, and the number of translations made and
/// loaded.
fn boot_keeping(folder: &std::path::Path) -> (String, [u64; 2]) {
    let report = write_file(b"");
    let append = format!("nokaslr lodge.run=\"{WORK}\"");
    let mut command = linux_keeping("cloud-amd64", &append, folder.as_os_str());
    let (status, output) = finish(command.arg("--report").arg(report.path()));
    assert_eq!(status, 0, "{output}");
    check_work(&output, "x86_64");
    let report = std::fs::read_to_string(report.path()).unwrap();
    let counter = |name: &str| {
        let line = report.lines().find(|line| line.contains(&format!("\"{name}\":"))).unwrap();
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    (output, [counter("translations"), counter("translations_loaded")])
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_second_boot_starts_with_the_translations_of_the_first() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("translations");
    let (_, [made, loaded]) = boot_keeping(&folder);
    assert!(made > 10_000 && loaded == 0, "{made} made, {loaded} loaded");
    let (_, [made_again, loaded]) = boot_keeping(&folder);
    assert!(made_again < made / 20 && loaded > made / 2, "{made_again} made, {loaded} loaded");
    // A file that was tampered with is as good as none, or none of the part that was.
    let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "vault")).unwrap();
    let good = std::fs::read(&file).unwrap();
    for (at, most) in [(100, 0), (good.len() / 2, 2 * made), (good.len() - 1, 0)] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).unwrap();
        let (output, [_, loaded]) = boot_keeping(&folder);
        assert!(loaded <= most, "{at}: {loaded} loaded");
        assert_eq!(output.matches("kept translations").count(), 1, "{at}: it is said once: {output}");
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn two_machines_that_end_together_keep_their_translations() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("translations");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| boot_keeping(&folder));
        }
    });
    let (output, [made, loaded]) = boot_keeping(&folder);
    assert!(made < loaded / 20, "{made} made, {loaded} loaded");
    assert!(!output.contains("WARN"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn linux_prints_on_the_parallel_port() {
    for guest in ["amd64", "686-pae"] {
        let paper = tempfile::NamedTempFile::new().expect("a temporary file");
        // More than the driver's buffer; by polling, and then with interrupts where the kernel knows of one.
        let script =
            "cat /proc/sys/dev/parport/parport0/modes; seq 2000 > /dev/lp0; grep parport /proc/interrupts; true";
        let (mut command, _initrd) = linux_with("parport_pc,lp", guest, &format!("lodge.run=\"{script}\""));
        command.arg("--parallel").arg(format!("file={}", paper.path().display()));
        let (status, output) = finish(&mut command);
        assert_eq!(status, 0, "{output}");
        assert!(output.contains("lp0: using parport0") && output.contains("lodge: status 0"), "{output}");
        assert!(output.contains("PCSPP") && !output.contains("ECP"), "{output}");
        check_log(&output);
        let printed = std::fs::read_to_string(paper.path()).expect("it is text");
        let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
        // The driver may end lines as printers want them.
        assert!(printed.replace('\r', "") == expected, "{} bytes", printed.len());
    }
}

/// Modules that read discs on each bus.
const DISCS: &str = "ata_piix,ahci,virtio_scsi,sr_mod,isofs";

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn linux_reads_discs_on_each_bus_and_sees_them_go_and_come() {
    let image = lodge_tests::guest("media/grub-mkrescue.iso");
    // A guest that is just reading holds the disc; the second request takes it all the same.
    let control = |folder: &tempfile::TempDir, words: &[&str]| {
        let ask = || {
            let mut command = std::process::Command::new(lodge_tests::lodge());
            finish(command.arg("ctl").arg(folder.path().join("control")).args(words))
        };
        let (status, output) = ask();
        assert!(status == 0 || output.contains("locked the tray") && ask().0 == 0, "{output}");
    };
    for bus in ["ide", "sata", "scsi"] {
        let script = "mount -r -t iso9660 /dev/sr0 /tmp; ls /tmp/boot; umount /tmp; echo disc is read; \
                      while head -c 1 /dev/sr0 > /dev/null 2>&1; do sleep 0.2; done; echo disc is gone; \
                      until head -c 1 /dev/sr0 > /dev/null 2>&1; do sleep 0.2; done; echo disc is back; \
                      mount -r -t iso9660 /dev/sr0 /tmp; ls /tmp/boot";
        let (mut command, _initrd) = linux_with(DISCS, "amd64", &format!("lodge.run=\"{script}\""));
        let folder = tempfile::tempdir().expect("a folder");
        command.arg("--cdrom").arg(format!("{},bus={bus}", image.display()));
        let mut vm = TestVm::start(command.arg("--control").arg(folder.path().join("control")));
        vm.expect("grub\r\n");
        vm.expect("disc is read\r\n");
        control(&folder, &["media", "cd0", "eject"]);
        vm.expect("disc is gone\r\n");
        control(&folder, &["media", "cd0", &image.to_string_lossy()]);
        vm.expect("disc is back\r\n");
        vm.expect("grub\r\n");
        let (status, output) = vm.wait();
        assert!(status == 0 && output.contains("lodge: status 0"), "{bus}: {output}");
    }
}

/// A guest that holds a disc is asked for it first.
#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_disc_that_linux_has_mounted_is_held() {
    let image = lodge_tests::guest("media/grub-mkrescue.iso");
    for bus in ["ide", "sata", "scsi"] {
        let script = "mount -r -t iso9660 /dev/sr0 /tmp; echo disc is mounted; sleep 100";
        let (mut command, _initrd) = linux_with(DISCS, "amd64", &format!("lodge.run=\"{script}\""));
        let folder = tempfile::tempdir().expect("a folder");
        command.arg("--cdrom").arg(format!("{},bus={bus}", image.display()));
        let mut vm = TestVm::start(command.arg("--control").arg(folder.path().join("control")));
        vm.expect("disc is mounted\r\n");
        let control = |words: &[&str]| {
            let mut command = std::process::Command::new(lodge_tests::lodge());
            finish(command.arg("ctl").arg(folder.path().join("control")).args(words))
        };
        assert!(control(&["status"]).1.contains("held by the guest"), "{bus}");
        let (status, output) = control(&["media", "cd0", "eject"]);
        assert!(status == 2 && output.contains("locked the tray"), "{bus}: {output}");
        assert_eq!(control(&["media", "cd0", "eject"]).0, 0, "{bus}: by force");
    }
}
