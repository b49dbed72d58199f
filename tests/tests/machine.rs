//! What the machine does around a guest: ends, reports, signals, other kernels.

use std::ops::Range;
use std::process::Command;

use lodge_tests::{TestVm, finish, guest, lodge, lodge_with, multiboot, run, write_file};
use rustix::process::{Pid, Signal, kill_process};

/// `cli; hlt; jmp .-3`: sleeps for ever.
const SLEEP: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfc];

fn memtest86(name: &str) -> TestVm {
    let mut command = run();
    command.arg("--kernel").arg(guest(&format!("memtest86+/{name}.bin")));
    command.args(["--append", "console=ttyS0,115200", "--memory", "64M"]);
    let mut vm = TestVm::start(&mut command);
    vm.expect("Memtest86+");
    vm.expect("Status: Testing");
    vm
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn memtest86_finds_no_errors_in_its_first_tests() {
    for name in ["x64", "ia32"] {
        let mut vm = memtest86(name);
        // The serial screen is refreshed every two seconds, so that quick tests may never show. The tenth waits for
        // minutes: by then those before it are done.
        vm.expect("#10 ");
        vm.expect("Pass:  0        Errors: 0 ");
    }
}

#[test]
#[ignore = "boots a VM for minutes: run by `cargo xtask test --long`"]
fn memtest86_full_pass_takes_long() {
    let mut vm = memtest86("x64");
    vm.expect("Bit fade test");
    vm.expect("Pass:  1        Errors: 0 ");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_triple_fault_is_shown_with_registers_and_instructions() {
    // mov eax, 0x12345678; ud2 without an interrupt table
    let kernel = multiboot(&[0xb8, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x0b]);
    let (status, output) = finish(run().arg("--kernel").arg(kernel.path()).args(["--serial", "none"]));
    assert_eq!(status, 3, "{output}");
    assert!(output.contains("triple fault"), "{output}");
    assert!(output.contains("rax 0000000012345678"), "{output}");
    assert!(output.contains("rip 0000000000100025"), "{output}");
    assert!(output.contains("ud2"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_jump_to_where_nothing_is_is_a_crash() {
    // mov eax, 0xf0000000; jmp eax
    let kernel = multiboot(&[0xb8, 0, 0, 0, 0xf0, 0xff, 0xe0]);
    let (status, output) = finish(run().arg("--kernel").arg(kernel.path()).args(["--serial", "none"]));
    assert_eq!(status, 3, "{output}");
    assert!(output.contains("#UD in code at 0xf0000000"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_debug_exit_port_sets_the_status() {
    // mov al, 21; out 0xf4, al
    let kernel = multiboot(&[0xb0, 21, 0xe6, 0xf4, 0xf4]);
    let arguments = ["--serial", "none", "--debug-exit"];
    let (status, output) = finish(run().arg("--kernel").arg(kernel.path()).args(arguments));
    assert_eq!(status, 43, "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_timeout_ends_with_a_report() {
    let kernel = multiboot(SLEEP);
    let report = write_file(b"");
    let mut command = run();
    command.arg("--kernel").arg(kernel.path()).args(["--serial", "none", "--timeout", "0.5"]);
    let (status, output) = finish(command.arg("--report").arg(report.path()));
    assert_eq!(status, 4, "{output}");
    let text = std::fs::read_to_string(report.path()).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["outcome"], "timeout");
    assert_eq!(report["exit_status"], 4);
    assert!(report["seconds"]["exit"].as_f64().unwrap() >= 0.5);
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(output.matches("lodge: ").count(), 2, "the start line and the reason, each once: {output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn signals_end_the_machine_in_order() {
    let kernel = multiboot(SLEEP);
    for (signal, expected) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut vm = TestVm::start(run().arg("--kernel").arg(kernel.path()).args(["--timeout", "600"]));
        vm.expect("engine");
        let id = Pid::from_raw(i32::try_from(vm.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        let (status, output) = vm.wait();
        assert_eq!(status, expected, "{output}");
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_guest_that_loops_with_interrupts_off_is_ended() {
    // cli; jmp .
    let kernel = multiboot(&[0xfa, 0xeb, 0xfe]);
    let with = |timeout: &str| {
        let mut command = run();
        command.arg("--kernel").arg(kernel.path()).args(["--cpus", "2", "--timeout", timeout]);
        command
    };
    let (status, output) = finish(&mut with("1"));
    assert_eq!(status, 4, "{output}");
    for (signal, expected) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut vm = TestVm::start(&mut with("600"));
        vm.expect("engine");
        kill_process(Pid::from_raw(i32::try_from(vm.id()).unwrap()).unwrap(), signal).unwrap();
        let (status, output) = vm.wait();
        assert_eq!(status, expected, "{output}");
    }
}

/// Where the process of a machine has mapped what can be accessed, while the guest sleeps.
fn mappings(mut command: Command) -> Vec<Range<u64>> {
    let mut vm = TestVm::start(command.env("LODGE_LOG", "info"));
    vm.expect("machine built");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", vm.id())).unwrap();
    let accessible = maps.lines().filter(|line| !line.contains(" ---") && !line.contains("[vsyscall]"));
    let number = |digits: &str| u64::from_str_radix(digits, 16).unwrap();
    let range = |line: &str| {
        let (start, rest) = line.split_once('-').unwrap();
        number(start)..number(rest.split(' ').next().unwrap())
    };
    accessible.map(range).collect()
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn all_of_lodge_is_in_the_arena() {
    let kernel = multiboot(SLEEP);
    let mut command = run();
    command.arg("--kernel").arg(kernel.path()).args(["--serial", "none", "--cpus", "2", "--timeout", "600"]);
    let mapped = mappings(command);
    assert!(mapped.len() > 20);
    for range in mapped {
        assert!(range.start >= 0x601_0000_0000 && range.end <= 0x7ff_0000_0000, "{range:x?}");
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_limit_keeps_lodge_out_of_the_arena_and_it_runs() {
    let kernel = multiboot(SLEEP);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 16000000; exec \"$0\" \"$@\""]).arg(lodge()).args(["run", "--kernel"]);
    command.arg(kernel.path()).args(["--serial", "none", "--timeout", "600"]);
    assert!(mappings(command).iter().any(|range| range.end > 0x800_0000_0000));
}

/// A file's first half.
fn half(file: &str) -> tempfile::NamedTempFile {
    let bytes = std::fs::read(guest(file)).unwrap();
    write_file(&bytes[..bytes.len() / 2])
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn damaged_files_are_refused() {
    let (kernel, initrd) = (guest("cloud-amd64/vmlinuz"), guest("cloud-amd64/initrd"));
    let (kernel, initrd) = (kernel.to_str().unwrap(), initrd.to_str().unwrap());
    let (empty, short, odd) = (write_file(b""), half("cloud-amd64/vmlinuz"), write_file(&[0; 1000]));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let (empty, short, odd) = (path(&empty), path(&short), path(&odd));
    let (text, good) = (write_file(b"This is no kernel.\n"), write_file(&[0; 4096]));
    // The head of an ELF file of machine 183.
    let foreign = write_file(&[&b"\x7fELF\x02\x01\x01"[..], &[0; 9], &[2, 0, 183, 0], &[0; 4096]].concat());
    let (text, good, foreign) = (path(&text), path(&good), path(&foreign));
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let fifo = fifo.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["--kernel", &empty], "is empty"),
        (vec!["--kernel", &short], "is cut short"),
        (vec!["--kernel", "/"], "'/'"),
        (vec!["--kernel", fifo], "is not a regular file"),
        (vec!["--kernel", "/dev/zero"], "is not a regular file"),
        (vec!["--kernel", &text], "it looks like text"),
        (vec!["--kernel", &foreign], "for another processor, AArch64"),
        (vec!["--kernel", kernel, "--initrd", fifo], "is not a regular file"),
        (vec!["--kernel", kernel, "--disk", fifo], "is neither a file nor a block device"),
        (vec!["--kernel", kernel, "--disk", "/dev/null"], "is neither a file nor a block device"),
        (vec!["--kernel", kernel, "--disk", "/no/such/disk"], "truncate -s 8G"),
        (vec!["--kernel", kernel, "--disk", &good, "--disk", &good], "is in use already"),
        (vec!["--kernel", kernel, "--initrd", "/no/such/initrd"], "'/no/such/initrd' does not exist"),
        (vec!["--kernel", kernel, "--initrd", &empty], "is empty"),
        (vec!["--kernel", kernel, "--initrd", initrd, "--memory", "8M"], "too little"),
        // It unpacks itself to 16 MiB, though it can be relocated.
        (vec!["--kernel", kernel, "--initrd", initrd, "--memory", "60M"], "too little"),
        (vec!["--kernel", kernel, "--disk", &empty], "is empty"),
        (vec!["--kernel", kernel, "--disk", &odd], "which is no multiple of 512"),
        (vec!["--kernel", kernel, "--disk", "/"], "the disk /"),
    ] {
        let (status, output) = finish(run().args(&arguments));
        assert_eq!(status, 2, "{arguments:?}: {output}");
        assert!(output.contains(expected), "{arguments:?}: {output}");
        check_error(&output);
    }
}

/// Holds that an error is one line, after the one that names the engine if it came so far.
#[track_caller]
fn check_error(output: &str) {
    let lines: Vec<_> = output.lines().filter(|line| !line.contains(" engine (")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("lodge: "), "{output}");
    assert!(!output.contains("panicked") && !output.contains("os error"), "{output}");
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn values_that_mean_nothing_are_refused() {
    let kernel = guest("cloud-amd64/vmlinuz");
    let disk = write_file(&[0; 4096]);
    let disk = disk.path().to_str().unwrap();
    for (option, value) in [
        ("--cpus", "0"),
        ("--cpus", "33"),
        ("--cpus", "1000"),
        ("--cpus", "two"),
        ("--cpus", "-1"),
        ("--timeout", "-1"),
        ("--memory", "1"),
        ("--memory", "99999G"),
        ("--virtio-console", "pigeon"),
        ("--memory", "0"),
        ("--memory", "12Q"),
        ("--memory", "-1"),
        ("--memory", "1000T"),
        ("--engine", "warp"),
        ("--serial", "pigeon"),
        ("--net", "avian"),
        ("--display", "mirror"),
        ("--timeout", "0"),
        ("--timeout", "soon"),
        ("--disk", &format!("{disk},bus=ribbon")),
        ("--disk", &format!("{disk},format=papyrus")),
        ("--disk", &format!("{disk},colour=blue")),
    ] {
        let (status, output) = finish(run().arg("--kernel").arg(&kernel).args([option, value]));
        assert_eq!(status, 2, "{option} {value}: {output}");
        check_error(&output);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_truncated_initial_ram_disk_is_the_guests_to_complain_about() {
    let initrd = half("cloud-amd64/initrd");
    let mut command = run();
    command.arg("--kernel").arg(guest("cloud-amd64/vmlinuz")).arg("--initrd").arg(initrd.path());
    let (status, output) = finish(command.args(["--append", "console=ttyS0 panic=-1", "--no-reboot"]));
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("Unable to mount root fs"), "{output}");
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn errors_say_what_failed_and_end_with_two() {
    let junk = write_file(b"\x1f\x8b\x08 not a kernel");
    let path = junk.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["run", "--kernel", "/no/such/kernel"][..], "the kernel '/no/such/kernel' does not exist"),
        (&["run", "--kernel", path], "it looks like a gzip file"),
        (&["run"], "there is nothing to boot; name a kernel with --kernel"),
        (&["run", "--kernel", path, "--net", "tap="], "--net: tap= takes the name of an interface"),
        (&["run", "--kernel", path, "--memory", "1K"], "a machine can have 2 MiB to"),
        (&["run", "--kernel", path, "--disk", "/no/such/disk"], "/no/such/disk"),
        (&["run", "--kernel", path, "--report", "/no/such/folder/r.json"], "/no/such/folder/r.json"),
        (&["run", "--frobnicate"], "unexpected argument '--frobnicate'"),
    ] {
        let (status, output) = lodge_with(arguments);
        assert_eq!(status, 2, "{arguments:?}: {output}");
        assert!(output.contains(expected), "{arguments:?}: {output}");
        check_error(&output);
    }
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn engines_and_doctor_know_the_translator() {
    let (status, output) = lodge_with(["engines"]);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("translator   usable"), "{output}");
    let (status, output) = lodge_with(["doctor"]);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("Linux ") && output.contains("/dev/kvm"), "{output}");
}

/// Writes "hi" to COM1 and ends with status 1: mov dx, 0x3f8; mov al, 'h'; out dx, al; the same with 'i'; xor al, al;
/// out 0xf4, al; hlt.
const SAYS_HI: &[u8] = &[0xba, 0xf8, 0x03, 0, 0, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee, 0x30, 0xc0, 0xe6, 0xf4, 0xf4];

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_serial_port_can_lead_to_a_file() {
    let kernel = multiboot(SAYS_HI);
    let log = write_file(b"old");
    let mut command = run();
    command.arg("--kernel").arg(kernel.path()).arg("--debug-exit");
    let (status, output) = finish(command.arg("--serial").arg(format!("file={}", log.path().display())));
    assert_eq!(status, 1, "{output}");
    assert_eq!(std::fs::read(log.path()).unwrap(), b"hi");
    assert!(!output.contains("hi\n"), "nothing on standard output: {output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_serial_port_can_lead_to_a_socket() {
    use std::io::{Read, Write};
    // Waits for a byte on COM1, sends it back, and ends: in al, (COM1+5); test al, 1; jz back; in al, COM1; out COM1, al;
    // xor al, al; out 0xf4, al; hlt.
    let code = [
        0xba, 0xfd, 0x03, 0, 0, 0xec, 0xa8, 1, 0x74, 0xf6, 0xba, 0xf8, 0x03, 0, 0, 0xec, 0xee, 0x30, 0xc0, 0xe6, 0xf4,
        0xf4,
    ];
    let kernel = multiboot(&code);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("com1");
    let mut command = run();
    command.arg("--kernel").arg(kernel.path()).args(["--debug-exit", "--timeout", "60"]);
    let vm = TestVm::start(command.arg("--serial").arg(format!("unix={}", path.display())));
    let until = std::time::Instant::now() + lodge_tests::PATIENCE;
    let mut socket = loop {
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(error) => assert!(std::time::Instant::now() < until, "no socket: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    socket.write_all(b"x").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"x");
    let (status, output) = vm.wait();
    assert_eq!(status, 1, "{output}");
}
