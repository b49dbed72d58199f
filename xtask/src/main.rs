//! The project's own commands: `cargo xtask boot`, `check`, `guests`, `test`, `bench`.
//!
//! [`boot`] boots a guest to look at, [`check`] holds the tree against the house's rules, [`guests`] fetches and builds what is booted, [`test`] runs all
//! tests and is what CI calls, [`bench`] measures. [`shell`] runs other programs.

mod bench;
mod boot;
mod check;
mod guests;
mod shell;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch a Debian kernel and busybox, build lodge and boot to a shell
    Boot {
        /// Further options of `lodge run`, such as `--cpus 2`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Hold the tree against the house's rules: strata, budgets, headers, unsafe, format, lints, licences
    Check {
        /// Leave out what takes long: lints
        #[arg(long)]
        quick: bool,
    },
    /// Install what is needed, then fetch guest kernels and build initial RAM disks, into ./cache
    Guests {
        /// Also build a Debian root file system (needs mmdebstrap and root or user namespaces)
        #[arg(long)]
        root: bool,
        /// Also fetch what Debian's installer needs of the mirror
        #[arg(long)]
        installer: bool,
    },
    /// Install what is needed, then run every test; this is what CI calls
    Test {
        /// Only the whole-VM tests
        #[arg(long)]
        vm: bool,
        /// Also what takes minutes each: a full pass of memtest86+, installations to their end, and many more random accesses, mutated images and power cuts
        #[arg(long)]
        long: bool,
    },
    /// Measure lodge, QEMU and the bare host in turn
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Boot { options } => boot::run(&options),
        Command::Check { quick } => check::run(quick),
        Command::Guests { root, installer } => test::install_what_is_needed()
            .and_then(|()| guests::run(root))
            .and_then(|()| if installer { guests::parts().map(drop) } else { Ok(()) }),
        Command::Test { vm, long } => test::run(vm, long),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}
