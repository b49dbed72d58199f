//! Runs an installation: the machine as a process of its own, what its log tells, and what it leaves.
//!
//! ```text
//!   disk F.incomplete ─► machine (a process) ─► ended well, said so, and left a disk that starts ─► F
//!                             │ log: F.log                       └─ else: F.incomplete stays, and the log
//!                             └─ stages, as they begin
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lodge_disk::{Create, DiskError, Format};
use lodge_guests::Firmware;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::stages::{self, Told};
use crate::starts::boots;

/// How often the log is looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// How long a log may say nothing: slow mirrors and slow disks are far quicker.
const SILENCE: Duration = Duration::from_secs(45 * 60);
/// How long a machine has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes that a log, or what the console shows, may have: installers say a few MiB.
const MOST_SAID: u64 = 256 << 20;
/// The longest line of a log that is looked at.
const LONGEST: usize = 64 << 10;

/// Why a disk is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is something in its place.
    #[error("'{0}' is there already; remove it, or name another disk")]
    Exists(PathBuf),
    /// It can't be made, or not be looked at.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file beside it can't be made or read.
    #[error("'{path}' can't be made or read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The machine can't be started.
    #[error("the machine can't be started: {0}")]
    Start(io::Error),
    /// A step failed.
    #[error("the installer failed at {step}; its log is '{log}', and the disk so far '{disk}'")]
    Step {
        /// The step.
        step: String,
        /// The log.
        log: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// The log said nothing for long.
    #[error("nothing was heard of the installer for {} minutes, last of the stage '{stage}'; its log is '{log}', and the disk so far '{disk}'", SILENCE.as_secs() / 60)]
    Silent {
        /// The stage.
        stage: String,
        /// The log.
        log: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// The log, or what the console shows, has no end.
    #[error("the installer says more and more ('{said}' has {} MiB); the disk so far is '{disk}'", MOST_SAID >> 20)]
    Endless {
        /// What it says.
        said: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// The machine ended otherwise than by switching itself off.
    #[error("the machine ended {how}; the disk so far is '{disk}'{}", said(.output))]
    Ended {
        /// How.
        how: String,
        /// What it said last.
        output: String,
        /// The disk.
        disk: PathBuf,
    },
    /// It switched itself off before the installer was done.
    #[error(
        "the machine switched itself off before the installer was done; its log is '{log}', and the disk so far '{disk}'"
    )]
    NotDone {
        /// The log.
        log: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// Nothing starts from the disk.
    #[error("the installer has left nothing that starts from the disk; it is '{0}'")]
    NothingBoots(PathBuf),
    /// Whoever installs stopped it.
    #[error("stopped; the disk so far is '{0}'")]
    Stopped(PathBuf),
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("; it said: {output}") }
}

/// What is told while an installation runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it does now.
    pub what: String,
    /// Since when, from the beginning.
    pub at: Duration,
}

/// The disk of an installation, and what is beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    disk: PathBuf,
    format: Format,
}

impl Target {
    /// The disk that will be there: a format of its own, or what its name says, else qcow2.
    pub fn new(disk: &Path, format: Option<Format>) -> Self {
        let format = format.or_else(|| Format::from_extension(disk)).unwrap_or(Format::Qcow2);
        Self { disk: disk.to_owned(), format }
    }

    /// The disk.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.disk.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    /// The disk while it is not ready.
    pub fn incomplete(&self) -> PathBuf {
        self.beside(".incomplete")
    }

    /// The installer's log.
    pub fn log(&self) -> PathBuf {
        self.beside(".install.log")
    }

    /// What the installer's console shows.
    pub fn console(&self) -> PathBuf {
        self.beside(".install.console")
    }

    /// Makes the disk, empty.
    ///
    /// # Errors
    ///
    /// There is one, or it can't be made.
    pub fn create(&self, size: u64) -> Result<(), InstallError> {
        if self.disk.symlink_metadata().is_ok() {
            return Err(InstallError::Exists(self.disk.clone()));
        }
        let wanted = Create { size: Some(size), format: self.format, backing: None, preallocate: false, force: true };
        Ok(lodge_disk::create(&self.incomplete(), &wanted)?)
    }

    /// Gives the disk its name if firmware finds something to start on it.
    fn complete(&self, firmware: Firmware) -> Result<(), InstallError> {
        let path = self.incomplete();
        if !boots(&path, self.format, firmware)? {
            return Err(InstallError::NothingBoots(path));
        }
        let failed = |source| InstallError::File { path: self.disk.clone(), source };
        // What has the name is all there, also after a power cut.
        File::open(&path).and_then(|disk| disk.sync_all()).map_err(failed)?;
        // Not over one that has come there meanwhile.
        match rustix::fs::renameat_with(CWD, &path, CWD, &self.disk, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(InstallError::Exists(self.disk.clone())),
            // File systems that can't promise it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if self.disk.symlink_metadata().is_err() => {
                fs::rename(&path, &self.disk).map_err(failed)
            }
            result => result.map_err(|error| failed(error.into())),
        }
    }
}

/// An installation that is to run.
#[derive(Debug)]
pub struct Installation {
    /// The disk, which has been made.
    pub target: Target,
    /// The machine: a program and its arguments, but for where its serial ports and its report go.
    pub command: Command,
    /// Its firmware, which shall find something to start.
    pub firmware: Firmware,
    /// Where the machine says how it ended.
    pub report: PathBuf,
    /// Nobody is there to answer: the machine's console and the installer's log go to files, and the log tells.
    pub unattended: bool,
    /// The log tells stages, and that all is done.
    pub tells: bool,
}

impl Installation {
    /// Runs it. `tell` hears of stages; `stop` ends it.
    ///
    /// # Errors
    ///
    /// It failed, and there is no disk of the name.
    pub fn run(mut self, stop: &AtomicBool, mut tell: impl FnMut(&Stage)) -> Result<(), InstallError> {
        let begin = Instant::now();
        let (log, console) = (self.target.log(), self.target.console());
        if self.unattended {
            for path in [&console, &log] {
                own_file(path).map_err(|source| InstallError::File { path: path.clone(), source })?;
                let mut spec = std::ffi::OsString::from("file=");
                spec.push(path);
                self.command.arg("--serial").arg(spec);
            }
            self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            // What is typed to stop it is for whoever installs, who ends the machine in good order.
            self.command.process_group(0);
        }
        self.command.arg("--report").arg(&self.report);
        // However lodge ends, nobody would look after the machine.
        self.command.args(["--ends-with", &std::process::id().to_string()]);
        let mut machine = Machine(self.command.spawn().map_err(InstallError::Start)?);
        let child = &mut machine.0;
        let errors = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What came before the pipe broke is what there is.
                let _ = pipe.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let mut followed = Follower::new(self.tells.then(|| log.clone()));
        let first = if self.unattended { "starts the installer" } else { "runs the installer" };
        let mut stage = Stage { what: first.to_owned(), at: Duration::ZERO };
        tell(&stage);
        let mut heard = Instant::now();
        let mut installed = false;
        let result = loop {
            let ended = child.try_wait().map_err(InstallError::Start)?;
            for told in followed.news() {
                heard = Instant::now();
                match told {
                    Some(Told::Stage(what)) if what != stage.what => {
                        stage = Stage { what: what.to_owned(), at: begin.elapsed() };
                        tell(&stage);
                    }
                    Some(Told::Installed) => installed = true,
                    Some(Told::Failed(step)) => {
                        end(child);
                        return Err(InstallError::Step { step, log, disk: self.target.incomplete() });
                    }
                    _ => {}
                }
            }
            if let Some(status) = ended {
                break status;
            }
            if stop.load(Ordering::SeqCst) {
                end(child);
                return Err(InstallError::Stopped(self.target.incomplete()));
            }
            if self.tells && heard.elapsed() > SILENCE {
                end(child);
                return Err(InstallError::Silent { stage: stage.what, log, disk: self.target.incomplete() });
            }
            let endless = [&log, &console].into_iter().find(|said| self.unattended && length(said) > MOST_SAID);
            if let Some(said) = endless {
                end(child);
                return Err(InstallError::Endless { said: said.clone(), disk: self.target.incomplete() });
            }
            std::thread::sleep(PERIOD);
        };
        let disk = self.target.incomplete();
        let outcome = outcome(&self.report);
        if stop.load(Ordering::SeqCst) || outcome.as_deref() == Some("quit") {
            return Err(InstallError::Stopped(disk));
        }
        let orderly = matches!(outcome.as_deref(), Some("powered-off" | "rebooted"));
        if !result.success() || !orderly {
            let output = errors.and_then(|reader| reader.join().ok()).unwrap_or_default();
            return Err(InstallError::Ended { how: how(result), output: last_line(&output), disk });
        }
        if self.tells && !installed {
            return Err(InstallError::NotDone { log, disk });
        }
        self.target.complete(self.firmware)?;
        if self.unattended {
            // It says what the log says, and what is of no more use.
            let _ = fs::remove_file(console);
        }
        Ok(())
    }
}

/// A machine's process, which does not outlive whoever installs.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            end(&mut self.0);
        }
    }
}

/// How a machine ended, in the word of its report.
fn outcome(report: &Path) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(report).ok()?).ok()?;
    Some(value["outcome"].as_str()?.to_owned())
}

/// Bytes of a file; of one that is not there, none.
fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Makes a file that is the user's alone, in place of one from before.
fn own_file(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(there) if there.is_file() => fs::remove_file(path)?,
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// Asks a machine to end, and makes it.
fn end(child: &mut Child) {
    let until = Instant::now() + GRACE;
    // It may have ended by itself.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
    while Instant::now() < until {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(PERIOD / 4);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(3), _) => "by a crash of the guest's (status 3)".into(),
        (Some(4), _) => "because the time was up (status 4)".into(),
        (Some(0), _) => "without saying how".into(),
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "otherwise".into(),
    }
}

fn last_line(text: &str) -> String {
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    crate::answers::printable_line(last.trim_start_matches("lodge: "))
}

/// Reads a log as it grows.
struct Follower {
    path: Option<PathBuf>,
    file: Option<File>,
    offset: u64,
    line: Vec<u8>,
    log: stages::Debian,
}

impl Follower {
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None, offset: 0, line: Vec::new(), log: stages::Debian::default() }
    }

    /// What has come since: for each line what it means.
    fn news(&mut self) -> Vec<Option<Told>> {
        let Some(path) = &self.path else { return Vec::new() };
        if self.file.is_none() {
            self.file = File::open(path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.take(4 << 20).read_to_end(&mut bytes));
        // What can't be read now comes later, or the silence is noticed.
        let Ok(count) = read else { return Vec::new() };
        self.offset += count as u64;
        let mut told = Vec::new();
        for byte in bytes {
            if byte == b'\n' {
                told.push(self.log.line(String::from_utf8_lossy(&self.line).trim_end()));
                self.line.clear();
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests;
