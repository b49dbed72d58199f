//! A machine that is talked to through its control socket.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{PATIENCE, TestVm, finish, lodge};

/// A machine that is talked to through its control socket.
pub struct Controlled {
    /// Its process, and what it says.
    pub vm: TestVm,
    folder: tempfile::TempDir,
}

impl Controlled {
    /// Starts one that has no serial port.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_serial(command.args(["--serial", "none"]))
    }

    /// Starts one with what serial ports the command says.
    pub fn start_with_serial(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        command.arg("--control").arg(folder.path().join("control")).args(["--timeout", "280"]);
        Self { vm: TestVm::start(command), folder }
    }

    /// A file that goes away with the machine.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `lodge ctl` says.
    pub fn ctl(&self, words: &[&str]) -> (i32, String) {
        finish(Command::new(lodge()).arg("ctl").arg(self.file("control")).args(words))
    }

    /// Waits until the screen shows a text; all that it shows then.
    #[track_caller]
    pub fn expect_on_screen(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, screen) = self.ctl(&["text"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < until, "{text:?} did not come; the screen shows:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends it.
    #[track_caller]
    pub fn quit(self) {
        assert_eq!(self.ctl(&["quit"]).0, 0);
        assert_eq!(self.vm.wait().0, 0);
    }
}
