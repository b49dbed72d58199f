//! The `lodge` command: parses options, resolves files and engines, and leaves the rest to `lodge_vm`.
//!
//! [`args`] and [`values`] parse, without looking at the world; [`run`] resolves and runs; [`ctl`] talks to what runs;
//! [`console`] and [`terminal`] are the interactive serial console; [`translations`] says where those are kept;
//! [`report`] and [`doctor`] print; [`disk`] is `lodge disk`, [`guests`] is `lodge guests`,
//! [`install`] is `lodge install`.
#![forbid(unsafe_code)]

mod args;
mod console;
mod ctl;
mod disk;
mod doctor;
mod firmware;
mod guests;
mod install;
mod media;
mod net;
mod report;
mod run;
mod terminal;
mod translations;
mod values;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

/// Exit status where a check found that lodge cannot run here.
const CANNOT_RUN: u8 = 5;
/// Exit status where the command line is wrong.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors, and without arguments there is help.
        Err(error) if !error.use_stderr() || std::env::args_os().len() == 1 => error.exit(),
        Err(error) => {
            let word = std::env::args_os().nth(1);
            let command =
                ["disk", "guests", "install"].into_iter().find(|name| word.as_ref().is_some_and(|word| word == name));
            eprintln!("lodge: {}", usage(&error.to_string(), command.unwrap_or("run")));
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let arena = match &cli.command {
        Command::Run(args) => run::enter_arena(args),
        _ => Ok(()),
    };
    let filter = EnvFilter::try_from_env("LODGE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    if let Err(error) = arena {
        tracing::info!("guest programs' memory cannot be mapped directly: {error}");
    }
    if matches!(cli.command, Command::Run(_) | Command::Switch { .. }) {
        raise_limit();
    }
    let status = match cli.command {
        Command::Run(args) => run::run(&args).unwrap_or_else(|error| {
            terminal::restore();
            eprintln!("lodge: {}", without_numbers(&error.to_string()));
            error.status()
        }),
        Command::Engines => show(run::list_engines()),
        Command::Ctl(args) => match ctl::run(&args) {
            Ok(text) => {
                print!("{text}");
                0
            }
            Err(error) => {
                eprintln!("lodge: {}", without_numbers(&error.to_string()));
                WRONG_USAGE
            }
        },
        Command::Doctor => show(doctor::examine()),
        Command::Switch { name } => match net::serve(&name) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("lodge: {}", without_numbers(&error));
                WRONG_USAGE
            }
        },
        Command::Disk(command) => disk::run(&command).unwrap_or_else(|error| {
            eprintln!("lodge: {}", without_numbers(&error.to_string()));
            WRONG_USAGE
        }),
        Command::Install(args) => match install::run(&args) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("lodge: {}", without_numbers(&error.to_string()));
                error.status()
            }
        },
        Command::Guests(args) => match guests::run(&args) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("lodge: {}", without_numbers(&error.to_string()));
                WRONG_USAGE
            }
        },
    };
    ExitCode::from(status)
}

/// Takes as many descriptors as the host gives: disks, viewers and each of a guest's connections have some. The limit that
/// programs begin with is meant for those that have none above 1023 (select(2)), which lodge is not.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::info!("there are no more descriptors than before: {error}");
    }
}

/// What clap says of a command line, in one line: its message and tips without the summary of the options.
fn usage(text: &str, command: &str) -> String {
    let kept = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let kept: Vec<_> = kept.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    let text = kept.join(" ");
    format!("{}; `lodge {command} --help` lists the options", text.strip_prefix("error: ").unwrap_or(&text))
}

/// Leaves out the numbers of the host's errors, which say nothing beside the words.
fn without_numbers(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(" (os error ") {
        kept += before;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    kept + rest
}

fn show((text, works): (String, bool)) -> u8 {
    print!("{text}");
    if works { 0 } else { CANNOT_RUN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: &[&str]) -> String {
        usage(&Cli::try_parse_from(arguments).unwrap_err().to_string(), "run")
    }

    #[test]
    fn wrong_usage_is_one_line() {
        for (arguments, expected) in [
            (&["lodge", "run", "--frob"][..], "unexpected argument '--frob' found"),
            (
                &["lodge", "run", "--cpus", "-1"],
                "invalid value '-1' for '--cpus <N>': '-1' is not a number from 1 to 255",
            ),
            (&["lodge", "run", "--initrd", "x"], "the following required arguments were not provided: --kernel <F>"),
            (&["lodge", "run", "--kernel"], "a value is required for '--kernel <F>' but none was supplied"),
            (&["lodge", "rum"], "unrecognized subcommand 'rum' tip: a similar subcommand exists: 'run'"),
        ] {
            assert_eq!(said(arguments), format!("{expected}; `lodge run --help` lists the options"));
        }
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        let text = "'x': Permission denied (os error 13); use chmod (os error 2)";
        assert_eq!(without_numbers(text), "'x': Permission denied; use chmod");
        assert_eq!(without_numbers("plain"), "plain");
    }
}
