//! `cargo xtask boot`: the first thing to try. Fetches Debian's cloud kernel and busybox, builds lodge and boots them
//! to a shell.

use anyhow::{Result, bail};

use crate::{guests, shell, test};

/// Does so; `arguments` go to `lodge run` besides.
pub fn run(arguments: &[String]) -> Result<()> {
    test::install_what_is_needed()?;
    let guest = guests::cloud()?;
    let root = crate::root();
    let mut build = shell::command("cargo", ["build", "--quiet", "--release", "--package", "lodge"]);
    shell::run(build.current_dir(&root))?;
    let mut lodge = std::process::Command::new(root.join("target/release/lodge"));
    lodge.arg("run").arg("--kernel").arg(guest.join("vmlinuz")).arg("--initrd").arg(guest.join("initrd"));
    let status = lodge.args(["--append", "console=ttyS0 quiet"]).args(arguments).status()?;
    if !status.success() {
        bail!("lodge ended with {status}");
    }
    Ok(())
}
