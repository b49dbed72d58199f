//! The `lodge` command: parses options, resolves files and engines, and leaves the rest to `lodge_vm`.
//!
//! [`args`] and [`values`] parse, without looking at the world; [`run`] resolves and runs; [`console`] and [`terminal`] are
//! the interactive serial console; [`report`] and [`doctor`] print.
#![forbid(unsafe_code)]

mod args;
mod console;
mod doctor;
mod report;
mod run;
mod terminal;
mod values;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

/// Exit status where a check found that lodge cannot run here.
const CANNOT_RUN: u8 = 5;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("LODGE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let status = match cli.command {
        Command::Run(args) => run::run(&args).unwrap_or_else(|error| {
            terminal::restore();
            eprintln!("lodge: {error}");
            error.status()
        }),
        Command::Engines => show(run::list_engines()),
        Command::Doctor => show(doctor::examine()),
    };
    ExitCode::from(status)
}

fn show((text, works): (String, bool)) -> u8 {
    print!("{text}");
    if works { 0 } else { CANNOT_RUN }
}
