//! A lodge process under test: [`TestVm`] starts the built command, reads what the guest says and answers it.
//!
//! `LODGE_BIN` names the command and `LODGE_GUESTS` the folder that `cargo xtask guests` fills, `LODGE_ROOT` the image of
//! a Debian root file system; `cargo xtask test` sets them. Every wait has a limit, and a test that fails shows what the guest said last.
#![forbid(unsafe_code)]

mod controlled;
pub mod disks;
pub mod host_net;
mod kernels;
mod mirror;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub use controlled::{Controlled, Picture};
pub use kernels::{multiboot, write_file};
pub use mirror::mirror;

/// How long a guest may take for one thing. CI machines are slow and busy; a guest that hangs hangs for ever.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The command under test.
pub fn lodge() -> PathBuf {
    from_environment("LODGE_BIN")
}

/// A guest's file, such as "amd64/vmlinuz".
pub fn guest(file: &str) -> PathBuf {
    let path = from_environment("LODGE_GUESTS").join(file);
    assert!(path.is_file(), "{} is missing; `cargo xtask guests` fetches it", path.display());
    path
}

/// The mirror that the host's packages come from.
pub fn host_mirror() -> String {
    from_environment("LODGE_MIRROR").to_string_lossy().into_owned()
}

/// A copy of the Debian root file system's image, to be written.
pub fn debian_root() -> tempfile::TempPath {
    copy_of(&from_environment("LODGE_ROOT"))
}

/// A copy of an image, to be written.
pub fn copy_of(image: &Path) -> tempfile::TempPath {
    let copy = tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
    let status = Command::new("cp").arg("--sparse=always").arg(image).arg(&copy).status();
    assert!(status.is_ok_and(|status| status.success()), "{} cannot be copied", image.display());
    copy
}

/// Holds that a kernel's log has nothing in it that tells of a fault of the machine.
#[track_caller]
pub fn check_log(log: &str) {
    const BAD: &[&str] = &[
        "BUG:",
        "WARNING:",
        "Oops",
        "Call Trace",
        "unchecked MSR",
        "lockup",
        "rcu_sched self-detected",
        "unstable",
        "Spurious",
        "spurious",
        "nobody cared",
        "Machine check",
        "Kernel panic",
        "inconsistent",
        "mtrr: your CPUs",
        "segfault at",
        "traps: ",
    ];
    for line in log.lines() {
        assert!(!BAD.iter().any(|bad| line.contains(bad)), "{line:?} is in this log:\n{log}");
    }
}

/// Text without the sequences that move a terminal's cursor and change its colours.
pub fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| ('@'..='~').contains(&c));
        plain += end.map_or("", |end| &part[end + 1..]);
    }
    plain
}

fn from_environment(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => value.into(),
        None => panic!("{name} is not set; these tests are run by `cargo xtask test`"),
    }
}

/// `lodge run` with more arguments to come. What a test sees shall not depend on the tests before it, so translations
/// are not kept.
pub fn run() -> Command {
    run_keeping(OsStr::new("off"))
}

/// `lodge run` with the firmware that was fetched for the tests.
pub fn with_firmware() -> Command {
    let mut command = run();
    command.arg("--firmware-dir").arg(guest("firmware/bios-256k.bin").with_file_name(""));
    command
}

/// The same with translations kept in a folder.
fn run_keeping(translations: &OsStr) -> Command {
    let mut command = Command::new(lodge());
    command.args([OsStr::new("run"), OsStr::new("--translations"), translations]);
    command
}

/// `lodge run` of one of the Linux guests, with its console and `append` on the command line.
pub fn linux(guest_name: &str, append: &str) -> Command {
    linux_keeping(guest_name, append, OsStr::new("off"))
}

/// The same with translations kept in a folder.
pub fn linux_keeping(guest_name: &str, append: &str, translations: &OsStr) -> Command {
    let mut command = run_keeping(translations);
    command.arg("--kernel").arg(guest(&format!("{guest_name}/vmlinuz")));
    command.arg("--initrd").arg(guest(&format!("{guest_name}/initrd")));
    command.args(["--append", &format!("console=ttyS0 panic=-1 {append}")]);
    command
}

/// The same with modules for more devices, separated by commas, which are loaded first. The file is of use until lodge
/// has started.
pub fn linux_with(modules: &str, guest_name: &str, append: &str) -> (Command, tempfile::NamedTempFile) {
    let parts = ["initrd", "devices.cpio"].map(|part| guest(&format!("{guest_name}/{part}")));
    let initrd = write_file(&parts.map(|part| std::fs::read(part).expect("it is read")).concat());
    let mut command = run();
    command.arg("--kernel").arg(guest(&format!("{guest_name}/vmlinuz"))).arg("--initrd").arg(initrd.path());
    command.args(["--append", &format!("console=ttyS0 panic=-1 lodge.modules={modules} {append}")]);
    (command, initrd)
}

/// A running lodge.
pub struct TestVm {
    child: Child,
    output: Receiver<Vec<u8>>,
    /// What was printed and not matched yet.
    pending: String,
    /// All that was printed.
    all: String,
}

impl TestVm {
    /// Starts a command, with standard error among its output.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("lodge starts");
        let (sender, output) = channel();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("its output is piped")),
            Box::new(child.stderr.take().expect("its errors are piped")),
        ];
        for mut pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    if sender.send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, output, pending: String::new(), all: String::new() }
    }

    /// Waits until the guest has said `text`, and forgets everything up to there.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.pending.contains(text) {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard(&bytes),
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("nobody said {text:?} in time")),
                Err(RecvTimeoutError::Disconnected) => self.fail(&format!("it ended without saying {text:?}")),
            }
        }
        let end = self.pending.find(text).unwrap_or(0) + text.len();
        self.pending.drain(..end);
    }

    /// Waits until the guest has said `start`, and for what follows in that line.
    #[track_caller]
    pub fn expect_rest(&mut self, start: &str) -> String {
        self.expect(start);
        let so_far = self.all.len() - self.pending.len();
        self.expect("\n");
        self.all[so_far..].lines().next().unwrap_or_default().to_owned()
    }

    /// Types text.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input is piped");
        if let Err(error) = input.write_all(text.as_bytes()).and_then(|()| input.flush()) {
            self.fail(&format!("{text:?} could not be typed: {error}"));
        }
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end: the exit status, and all that was printed.
    #[track_caller]
    pub fn wait(mut self) -> (i32, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.fail("it did not end in time"),
            }
        }
        let status = self.child.wait().expect("it can be waited for");
        let code = status.code().unwrap_or_else(|| self.fail(&format!("it was killed: {status}")));
        (code, std::mem::take(&mut self.all))
    }

    /// Kills it, as a loss of power would; all that was printed before.
    #[track_caller]
    pub fn kill(mut self) -> String {
        self.child.kill().expect("it can be killed");
        let until = Instant::now() + PATIENCE;
        loop {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard(&bytes),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.all),
                Err(RecvTimeoutError::Timeout) => self.fail("its output does not end"),
            }
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.pending += &text;
        self.all += &text;
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let lines: Vec<_> = self.all.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        panic!("{why}; the last lines were:\n{tail}");
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Types a line when the shell is ready for it: what comes before, it may take for its terminal's answer.
#[track_caller]
pub fn type_line(vm: &mut TestVm, line: &str) {
    vm.expect("/ # ");
    vm.send(&format!("{line}\n"));
}

/// Runs a command to its end: exit status and output.
#[track_caller]
pub fn finish(command: &mut Command) -> (i32, String) {
    TestVm::start(command).wait()
}

/// `lodge` with these arguments, to its end.
#[track_caller]
pub fn lodge_with<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> (i32, String) {
    finish(Command::new(lodge()).args(arguments))
}
