//! `cargo xtask test`: everything that CI runs.
//!
//! The rules first, then the unit tests, then whole VMs. lodge is for ordinary users, so the whole-VM tests run as one:
//! as root, their program, lodge and the guests are copied to where everybody may read, and root is dropped for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{check, guests, shell};

/// Whole-VM tests are this package's.
const PACKAGE: &str = "lodge-tests";
/// The user that they run as when we are root: any that owns nothing.
const ORDINARY: &str = "65534";

/// Runs all tests, or those of whole VMs alone.
pub fn run(vm_only: bool) -> Result<()> {
    install_what_is_needed()?;
    let root = crate::root();
    let cargo = |words: &[&str]| {
        let mut command = shell::command("cargo", words);
        command.current_dir(&root);
        command
    };
    if !vm_only {
        check::run(false)?;
        shell::run(&mut cargo(&["test", "--quiet", "--workspace", "--exclude", PACKAGE]))?;
    }
    shell::run(&mut cargo(&["build", "--quiet", "--release", "--package", "lodge"]))?;
    guests::run(false)?;
    let built = shell::output(&mut cargo(&["test", "--package", PACKAGE, "--no-run", "--message-format=json"]))?;
    let lodge = root.join("target/release/lodge");
    for test in executables(&built) {
        whole_vm(&test, &lodge)?;
    }
    Ok(())
}

/// Programs that the tests run, and the packages that bring them.
const NEEDED: &[(&str, &str)] = &[
    ("git", "git"),
    ("cc", "gcc"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Installs the programs that are missing, as root; otherwise says how.
fn install_what_is_needed() -> Result<()> {
    let missing: Vec<_> =
        NEEDED.iter().filter(|(program, _)| !shell::has(program)).map(|(_, package)| *package).collect();
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

/// Runs a program of whole-VM tests, as an ordinary user.
fn whole_vm(test: &Path, lodge: &Path) -> Result<()> {
    if !shell::is_root() {
        return shell::run(&mut with_environment(Command::new(test), lodge, &guests::folder()));
    }
    let stage = Stage::new()?;
    let test = stage.copy(test)?;
    let lodge = stage.copy(lodge)?;
    let guests = stage.copy(&guests::folder())?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups", "--no-new-privs", "--"]).arg(test);
    command.current_dir("/").env("HOME", "/nonexistent");
    shell::run(&mut with_environment(command, &lodge, &guests))
}

fn with_environment(mut command: Command, lodge: &Path, guests: &Path) -> Command {
    // Each test runs a VM with threads of its own.
    command.args(["--include-ignored", "--test-threads=2"]);
    command.env("LODGE_BIN", lodge).env("LODGE_GUESTS", guests);
    command
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
}
