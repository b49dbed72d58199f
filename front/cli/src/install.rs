//! `lodge install`: makes a disk and installs a guest operating system on it.
//!
//! What speaks against it, the answers and the running are `lodge_install`'s; here are the options, the command line of the
//! machine, and how stages are shown.

mod machine;
mod wanted;

use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lodge_disk::Format;
use lodge_guests::{MediaError, Profile};
use lodge_install::pxe::TreeError;
use lodge_install::{InstallError, Installation, PrepareError, Problem, Stage, Target};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::values;

/// The installation failed; what was asked for is in order.
const FAILED: u8 = 1;
/// What was asked for is not.
const WRONG: u8 = 2;

/// Options of `install`.
#[derive(Args, Debug)]
pub struct InstallArgs {
    /// The operating system, as `lodge guests` lists it
    #[arg(long, value_name = "ID")]
    os: String,
    /// The disk that is made
    #[arg(long, value_name = "F")]
    disk: PathBuf,
    /// Its size, with suffix K, M, G or T; MiB without  [default: what the system is to be given]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    size: Option<u64>,
    /// Its format: qcow2 or raw  [default: as the name says, else qcow2]
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// Where the installer is: iso=F, disc=DEVICE (the host's drive), pxe=DIR (a folder that lodge serves) or pxe (a
    /// server on the network that --net names)
    #[arg(long, value_name = "SPEC")]
    from: String,
    /// What in the folder of pxe=DIR firmware starts  [default: a loader that is known]
    #[arg(long, value_name = "F")]
    bootfile: Option<String>,
    /// RAM, with suffix K, M, G or T; MiB without  [default: what the system is to be given]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// Number of virtual processors  [default: what the system is to be given]
    #[arg(long, value_name = "N", value_parser = values::processors)]
    cpus: Option<u32>,
    /// Firmware: bios or uefi  [default: what suits the system best]
    #[arg(long, value_name = "NAME")]
    firmware: Option<String>,
    /// The disk's bus: virtio, ide, sata, nvme or scsi  [default: what suits the system best]
    #[arg(long, value_name = "NAME")]
    bus: Option<String>,
    /// Network card, as of `lodge run`  [default: user, with the card that suits the system best]
    #[arg(long, value_name = "SPEC", default_value = "user")]
    net: String,
    /// Engine: auto, translator or kvm
    #[arg(long, value_name = "NAME", default_value = "auto")]
    engine: String,
    /// Where firmware is looked for before the folders of distributions
    #[arg(long, value_name = "DIR")]
    firmware_dir: Option<PathBuf>,
    /// Who sees the screen, as of `lodge run`  [default: none if unattended, else vnc=:0]
    #[arg(long, value_name = "SPEC")]
    display: Option<String>,
    /// Make a socket through which `lodge ctl` talks to the machine
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    timeout: Option<Duration>,
    /// Ask nobody: lodge answers the installer
    #[arg(long)]
    unattended: bool,
    #[command(flatten)]
    answers: AnswerArgs,
}

/// What lodge answers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Answers, with --unattended")]
pub struct AnswerArgs {
    /// The first user, who administers the system  [default: guest]
    #[arg(long, value_name = "NAME", requires = "unattended")]
    user: Option<String>,
    /// A file with the user's public keys for SSH; repeatable
    #[arg(long, value_name = "F", requires = "unattended")]
    ssh_key: Vec<PathBuf>,
    /// A file whose first line is the user's password, or, but for Windows, its hash as crypt(5) writes it
    #[arg(long, value_name = "F", requires = "unattended")]
    password_file: Option<PathBuf>,
    /// The system's name  [default: the disk's, as far as it can be one]
    #[arg(long, value_name = "NAME", requires = "unattended")]
    hostname: Option<String>,
    /// Language and country  [default: en_US.UTF-8]
    #[arg(long, value_name = "NAME", requires = "unattended")]
    locale: Option<String>,
    /// Keyboard layout  [default: us]
    #[arg(long, value_name = "NAME", requires = "unattended")]
    keyboard: Option<String>,
    /// Time zone  [default: UTC]
    #[arg(long, value_name = "NAME", requires = "unattended")]
    timezone: Option<String>,
    /// Where packages come from: http://HOST/FOLDER  [default: the installer's own]
    #[arg(long, value_name = "URL", requires = "unattended")]
    mirror: Option<String>,
    /// A package besides the system's own; repeatable
    #[arg(long, value_name = "NAME", requires = "unattended")]
    package: Vec<String>,
    /// What the installer's kernel is told besides, as parameters
    #[arg(long, value_name = "TEXT", requires = "unattended", allow_hyphen_values = true)]
    append: Option<String>,
    /// Windows' product key is this file's first line
    #[arg(long, value_name = "F", requires = "unattended")]
    product_key_file: Option<PathBuf>,
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// An option's value makes no sense.
    #[error("{option}: {problem}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A file can't be read.
    #[error("'{path}' can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is needed beside the disk can't be made.
    #[error("the installer's files can't be prepared: {0}; make room for them, or name another place with TMPDIR")]
    Work(std::io::Error),
    /// There is no such system.
    #[error("there is no guest operating system '{0}'; `lodge guests` lists all")]
    NoSystem(String),
    /// All that speaks against it.
    #[error("{}", all(.0))]
    Problems(Vec<Problem>),
    /// The medium can't be looked into.
    #[error("'{path}': {source}; name the image of an installation disc, whole and as it was published")]
    Medium {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: MediaError,
    },
    /// Nothing starts from the medium.
    #[error("'{0}' is not a disc that an installer starts from; name the image of an installation disc")]
    NoInstaller(PathBuf),
    /// The medium is not one that answers can go with.
    #[error("'{path}' has no kernel and no initial RAM disk where discs of {name} have them; install it attended")]
    NoKernel {
        /// Its file.
        path: PathBuf,
        /// The system.
        name: String,
    },
    /// Answers can't be given.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A tree for the network can't be made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It was begun, and failed.
    #[error(transparent)]
    Install(#[from] InstallError),
}

fn all(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl CommandError {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Install(InstallError::Exists(_) | InstallError::Disk(_)) => WRONG,
            Self::Install(_) => FAILED,
            _ => WRONG,
        }
    }
}

/// Installs.
///
/// # Errors
/// Something speaks against it, or it failed; there is no disk of the name then.
pub fn run(args: &InstallArgs) -> Result<(), CommandError> {
    let wanted = wanted::wanted(args)?;
    let target = Target::new(&args.disk, args.format);
    // What is there already is said before anything is prepared.
    if target.disk().symlink_metadata().is_ok() {
        return Err(InstallError::Exists(target.disk().to_owned()).into());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        // Without a handler the signal ends lodge at once.
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
    // Answers are nobody else's to read.
    let own = std::fs::Permissions::from_mode(0o700);
    let work = tempfile::Builder::new().permissions(own).tempdir().map_err(CommandError::Work)?;
    let (command, tells) = machine::command(args, &wanted, &target, work.path())?;
    target.create(wanted.plan.disk.bytes())?;
    introduce(args, wanted.profile, &wanted, &target);
    let begin = Instant::now();
    let shown = Shown::new(args.unattended);
    let installation = Installation {
        target: target.clone(),
        command,
        firmware: wanted.plan.firmware,
        report: work.path().join("report"),
        unattended: args.unattended,
        tells,
    };
    let result = installation.run(&stop, |stage| shown.stage(stage));
    shown.end();
    result?;
    say(&format!("lodge: {} is ready after {}", target.disk().display(), clock(begin.elapsed())));
    say(&format!("lodge: start it with: {}", machine::start(args, &wanted, &target)));
    Ok(())
}

fn introduce(args: &InstallArgs, profile: &Profile, wanted: &wanted::Wanted, target: &Target) {
    let plan = &wanted.plan;
    say(&format!(
        "lodge: installing {} on {}: {} on {}, {} of memory, {} CPU, {}{}",
        profile.name,
        target.disk().display(),
        plan.disk,
        plan.bus,
        plan.memory,
        plan.cpus,
        plan.firmware,
        if args.unattended { ", unattended" } else { "" },
    ));
}

/// Says something to whoever listens still.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// Stages as they are shown: a line each, and on a terminal the time that goes by.
struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(unattended: bool) -> Self {
        // Attended, the terminal is the guest's.
        let bar = (unattended && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            // It is one that can be understood.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar }
    }

    fn stage(&self, stage: &Stage) {
        let line = format!("lodge: {:>6}  {}", clock(stage.at), stage.what);
        match &self.bar {
            Some(bar) => {
                bar.suspend(|| say(&line));
                bar.set_message(stage.what.clone());
            }
            None => say(&line),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
