//! lodge on a terminal: raw mode, escape keys, and the terminal as it was afterwards, however it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lodge_tests::{PATIENCE, guest, lodge, multiboot};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// lodge in a session of its own, on a pseudo-terminal that is the session's.
struct Terminal {
    controller: File,
    /// Kept open, so that the terminal's mode can be looked at when lodge is gone.
    user: OwnedFd,
    output: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = PathBuf::from(ptsname(&controller, Vec::new()).unwrap().into_string().unwrap());
        let user = open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let controller = File::from(controller);
        let end = || user.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(lodge()).args(arguments);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("util-linux has setsid");
        let (sender, output) = channel();
        let mut reader = controller.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { controller, user, output, seen: String::new(), child }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
        self.seen.clear();
    }

    /// What a shell says its kernel's time since start is, in seconds.
    #[track_caller]
    fn guest_seconds(&mut self) -> f64 {
        self.press(b"echo up=$(cut -d' ' -f1 /proc/uptime)=\n");
        let until = Instant::now() + PATIENCE;
        loop {
            // The echo of the command has no digit there.
            let said = self.seen.split("up=").skip(1).find_map(|text| text.split_once('=')?.0.parse().ok());
            if let Some(seconds) = said {
                self.seen.clear();
                return seconds;
            }
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no time in {:?}", self.seen),
            }
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.user).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    #[track_caller]
    fn wait_until_raw(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.is_raw() {
            assert!(Instant::now() < until, "the terminal never became raw");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.controller.write_all(keys).unwrap();
    }

    /// lodge's own process: setsid may have forked.
    fn lodge_id(&self) -> Pid {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let id = children.split_whitespace().next().map_or(id, |child| child.parse().unwrap());
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    #[track_caller]
    fn ends_with(mut self, status: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(status), "{:?}", self.seen);
        assert!(!self.is_raw(), "the terminal is as it was");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sleeper() -> tempfile::NamedTempFile {
    // cli; hlt; jmp .-3
    multiboot(&[0xfa, 0xf4, 0xeb, 0xfc])
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn escape_keys_quit_and_prompt() {
    let kernel = sleeper();
    let mut terminal = Terminal::start(&["run", "--kernel", kernel.path().to_str().unwrap(), "--timeout", "600"]);
    terminal.wait_until_raw();
    terminal.press(b"\x01c");
    terminal.expect("lodge> ");
    terminal.press(b"status\r");
    terminal.expect("running for");
    terminal.press(b"\x01cpause\r\x01cstatus\r");
    terminal.expect("paused for");
    terminal.press(b"\x01cresume\r\x01cstatus\r");
    terminal.expect("running for");
    // Ctrl-C is the guest's.
    terminal.press(b"\x03\x01x");
    terminal.ends_with(0);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn signals_leave_the_terminal_as_it_was() {
    let kernel = sleeper();
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let terminal = Terminal::start(&["run", "--kernel", kernel.path().to_str().unwrap(), "--timeout", "600"]);
        terminal.wait_until_raw();
        kill_process(terminal.lodge_id(), signal).unwrap();
        terminal.ends_with(status);
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_crash_leaves_the_terminal_as_it_was() {
    let kernel = multiboot(&[0x0f, 0x0b]);
    let terminal = Terminal::start(&["run", "--kernel", kernel.path().to_str().unwrap()]);
    terminal.ends_with(3);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_pause_is_no_time_for_the_guest() {
    let (kernel, initrd) = (guest("cloud-amd64/vmlinuz"), guest("cloud-amd64/initrd"));
    let (kernel, initrd) = (kernel.to_str().unwrap(), initrd.to_str().unwrap());
    for source in ["kvm-clock", "tsc"] {
        let append = format!("console=ttyS0 quiet clocksource={source}");
        let mut terminal =
            Terminal::start(&["run", "--kernel", kernel, "--initrd", initrd, "--append", &append, "--cpus", "2"]);
        terminal.expect("lodge: init");
        terminal.expect("#");
        let begin = Instant::now();
        let first = terminal.guest_seconds();
        terminal.press(b"\x01cpause\r\x01cstatus\r");
        terminal.expect("paused for");
        let pause = Instant::now();
        std::thread::sleep(Duration::from_secs(3));
        let paused = pause.elapsed().as_secs_f64();
        terminal.press(b"\x01cresume\r\x01cstatus\r");
        terminal.expect("running for");
        let second = terminal.guest_seconds();
        let host = begin.elapsed().as_secs_f64();
        // The guest says hundredths.
        let gone = second - first - 0.01;
        assert!(gone >= -0.01 && gone <= host - paused, "{source}: {gone} s there, {host} s here, {paused} s of pause");
        terminal.press(b"cat /sys/devices/system/clocksource/*/current_clocksource\n");
        terminal.expect(&format!("\n{source}\r"));
        terminal.press(b"echo bad=$(dmesg | grep -c -E 'stall|unstable|lockup|backwards')=\n");
        terminal.expect("bad=0=");
        terminal.press(b"\x01x");
        terminal.ends_with(0);
    }
}
