//! `cargo xtask test`: everything that CI runs.
//!
//! The rules first, then the unit tests, the differential test, then whole VMs. lodge is for ordinary users, so the whole-VM tests run as one:
//! as root, their program, lodge and the guests are copied to where everybody may read, and root is dropped for them. A few
//! ([`AS_ROOT`]) need root to prepare something, such as a tap, and drop it for lodge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{check, guests, shell};

/// Whole-VM tests are this package's.
const PACKAGE: &str = "lodge-tests";
/// The differential test is this package's, and is run in a release build.
const DIFFERENTIAL: &str = "lodge-differential";
/// The user that they run as when we are root: any that owns nothing.
const ORDINARY: &str = "65534";

/// Random instructions that the translator is held against the host with.
const DIFFERENTIAL_CASES: &str = "5000000";
/// Tests with this in their name take minutes and are run with `--long` only.
const LONG: &str = "takes_long";
/// What is tried more often with `--long`: environment variables, and how often.
const MORE: &[(&str, &str)] = &[
    ("LODGE_BUS_STEPS", "100000000"),
    ("LODGE_RANDOM_STEPS", "all"),
    ("LODGE_DISK_MUTATIONS", "100000"),
    ("LODGE_DISK_KILLS", "200"),
    ("LODGE_POWER_CUTS", "200"),
];
/// Tests with this in their name need the Debian root file system, which only root builds.
const DEBIAN: &str = "debian_root";

/// Programs of tests that need root to prepare something, and run lodge as an ordinary user themselves.
const AS_ROOT: &[&str] = &["taps"];

/// Runs all tests, or those of whole VMs alone; `long` adds those that take minutes.
pub fn run(vm_only: bool, long: bool) -> Result<()> {
    install_what_is_needed()?;
    let root = crate::root();
    let cargo = |words: &[&str]| {
        let mut command = shell::command("cargo", words);
        command.current_dir(&root);
        command
    };
    if !vm_only {
        check::run(false)?;
        let others = ["--exclude", PACKAGE, "--exclude", DIFFERENTIAL];
        let mut tests = cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"]);
        tests.args(others).envs(more(long));
        shell::run(&mut tests)?;
        println!("test: {DIFFERENTIAL_CASES} random instructions against the host's processor");
        let mut differential = cargo(&["test", "--quiet", "--release", "--package", DIFFERENTIAL]);
        shell::run(differential.env("LODGE_DIFFERENTIAL_CASES", DIFFERENTIAL_CASES))?;
    }
    shell::run(&mut cargo(&["build", "--quiet", "--release", "--package", "lodge"]))?;
    let debian = shell::is_root();
    guests::run(debian)?;
    let mirror = if long { guests::parts()? } else { String::new() };
    let mut skipped = Vec::new();
    if !debian {
        println!("test: {DEBIAN} is left out: only root builds a root file system whose files belong to root");
        skipped.push(DEBIAN);
    }
    if !long {
        println!("test: {LONG} is left out: `cargo xtask test --long` runs it too");
        skipped.push(LONG);
    }
    let built = shell::output(&mut cargo(&["test", "--package", PACKAGE, "--no-run", "--message-format=json"]))?;
    let lodge = root.join("target/release/lodge");
    let stage = if debian { Some(Stage::new()?) } else { None };
    let mut paths = Paths { lodge, guests: guests::folder(), root: guests::root_image(), mirror };
    if let Some(stage) = &stage {
        paths = Paths {
            lodge: stage.copy(&paths.lodge)?,
            guests: stage.copy(&paths.guests)?,
            root: stage.copy(&paths.root)?,
            ..paths
        };
    }
    let failed = executables(&built)
        .into_iter()
        .filter_map(|test| whole_vm(&test, &paths, stage.as_ref(), &skipped, long).err())
        .inspect(|error| eprintln!("test: {error:#}"))
        .count();
    if failed > 0 {
        bail!("{failed} programs of whole-VM tests failed; what they say is above");
    }
    Ok(())
}

/// What whole-VM tests use.
struct Paths {
    lodge: PathBuf,
    guests: PathBuf,
    root: PathBuf,
    /// Where the host's packages come from; empty unless long tests are run.
    mirror: String,
}

/// Programs that the tests run, or other files that they need, and the packages that bring them.
const NEEDED: &[(&str, &str)] = &[
    ("git", "git"),
    ("cc", "gcc"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("e2fsck", "e2fsprogs"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("/usr/share/seabios/vgabios-stdvga.bin", "seabios"),
    ("qemu-img", "qemu-utils"),
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("ssh", "openssh-client"),
];

/// Installs the programs that are missing, as root; otherwise says how.
pub fn install_what_is_needed() -> Result<()> {
    let ours = if shell::is_root() { [guests::ROOT_PROGRAMS, guests::DISK_PROGRAMS].concat() } else { Vec::new() };
    let missing: Vec<_> = NEEDED
        .iter()
        .chain(guests::MEDIA_PROGRAMS)
        .chain(&ours)
        .filter(|(program, _)| !shell::has(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("programs are missing; `sudo apt-get install {}` brings them", missing.join(" "));
    }
    shell::run(&mut shell::command("apt-get", ["-q", "update"]))?;
    let mut install = shell::command("apt-get", ["-q", "-y", "--no-install-recommends", "install"]);
    shell::run(install.args(missing).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The test programs in cargo's messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let tests = parsed.filter(|message| message["profile"]["test"] == true);
    tests.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

/// Runs a program of whole-VM tests, as an ordinary user: with a stage, as one that we become.
fn whole_vm(test: &Path, paths: &Paths, stage: Option<&Stage>, skipped: &[&str], long: bool) -> Result<()> {
    let mut command = match stage {
        None => Command::new(test),
        Some(stage) if needs_root(test) => Command::new(stage.copy(test)?),
        Some(stage) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups", "--no-new-privs", "--"]);
            command.arg(stage.copy(test)?).current_dir("/").env("HOME", "/nonexistent");
            command
        }
    };
    // Each test runs a VM with threads of its own.
    command.args(["--include-ignored", "--test-threads=2"]);
    command.args(skipped.iter().flat_map(|name| ["--skip", name]));
    command
        .env("LODGE_BIN", &paths.lodge)
        .env("LODGE_GUESTS", &paths.guests)
        .env("LODGE_ROOT", &paths.root)
        .env("LODGE_MIRROR", &paths.mirror);
    command.envs(more(long));
    shell::run(&mut command)
}

/// Whether a program of tests is among those that need root.
fn needs_root(test: &Path) -> bool {
    let name = test.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    AS_ROOT.iter().any(|program| name.strip_prefix(program).is_some_and(|rest| rest.starts_with('-')))
}

/// What says how often some things are tried.
fn more(long: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    MORE.iter().copied().filter(move |_| long)
}

/// A folder that everybody may read, and that goes away.
struct Stage(PathBuf);

impl Stage {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lodge-test-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    /// Copies a file or folder, readable by all.
    fn copy(&self, from: &Path) -> Result<PathBuf> {
        let to = self.0.join(from.file_name().context("nothing to copy")?);
        shell::run(Command::new("cp").args(["--recursive", "--sparse=always"]).arg(from).arg(&to))?;
        shell::run(Command::new("chmod").args(["--recursive", "a+rX"]).arg(&to))?;
        Ok(to)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} stays: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/boot-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/lodge"}"#,
        );
        assert_eq!(executables(messages), [PathBuf::from("/t/boot-1")]);
    }

    #[test]
    fn those_that_need_root_are_known_by_their_names() {
        assert!(needs_root(Path::new("/t/taps-0123")));
        assert!(!needs_root(Path::new("/t/tapsters-0123")) && !needs_root(Path::new("/t/networks-0123")));
    }
}
