//! `lodge disk`: makes, shows, copies, checks, resizes and compacts disk images.
//!
//! What is done is `lodge_disk`'s; here are the options, the words that say what was found, and progress on a terminal.
//!
//! Exit status: 0 done, and nothing wrong found (or it was mended); 2 the command line or a file is wrong, or a check
//! found errors; 3 a check found nothing but leaks.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use lodge_disk::{Backing, Convert, Create, DiskError, Format, Info, Progress};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::values;

/// A check found errors.
const ERRORS: u8 = 2;
/// A check found leaks and no errors.
const LEAKS: u8 = 3;

/// What can be done with disk images.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Make an empty image
    Create(CreateArgs),
    /// Show an image's format, sizes, backing file and snapshots
    Info(InfoArgs),
    /// Copy an image, and all that it stands on, into a new one
    Convert(ConvertArgs),
    /// Look for contradictions in an image; status 0 if there are none, 2 for errors, 3 for leaks only
    Check(CheckArgs),
    /// Give a disk another size
    Resize(ResizeArgs),
    /// Give back the space of zeroes and of what is not used
    Compact(CompactArgs),
}

/// Options of `disk create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The new file
    file: PathBuf,
    /// The disk's size, with suffix K, M, G or T; MiB without  [default: the backing file's]
    #[arg(long, value_name = "SIZE", value_parser = values::size, required_unless_present = "backing")]
    size: Option<u64>,
    /// Format: qcow2 or raw  [default: as the name says, else raw]
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// Stand on this image, which must not be changed from then on: F[,format=..]
    #[arg(long, value_name = "SPEC")]
    backing: Option<String>,
    /// Reserve all space at once
    #[arg(long)]
    preallocate: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Options of `disk info`.
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// The image
    file: PathBuf,
    /// Its format  [default: what it looks like]
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// In JSON
    #[arg(long)]
    json: bool,
    /// With all that it stands on
    #[arg(long)]
    chain: bool,
}

/// Options of `disk convert`.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The image
    source: PathBuf,
    /// The new file
    target: PathBuf,
    /// The new image's format: qcow2 or raw  [default: as the name says, else raw]
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// The source's format
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    from: Option<Format>,
    /// Compress (qcow2 only)
    #[arg(long)]
    compress: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Options of `disk check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The image
    file: PathBuf,
    /// Its format
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// Mend what is found (qcow2 only)
    #[arg(long)]
    repair: bool,
}

/// Options of `disk resize`.
#[derive(Args, Debug)]
pub struct ResizeArgs {
    /// The image
    file: PathBuf,
    /// The new size, with suffix K, M, G or T; MiB without
    #[arg(value_name = "SIZE", value_parser = values::size)]
    size: u64,
    /// Its format
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
    /// Allow a smaller size: what is beyond it is lost
    #[arg(long)]
    shrink: bool,
}

/// Options of `disk compact`.
#[derive(Args, Debug)]
pub struct CompactArgs {
    /// The image
    file: PathBuf,
    /// Its format
    #[arg(long, value_name = "NAME", value_parser = values::format)]
    format: Option<Format>,
}

/// Carries out a command. The exit status.
///
/// # Errors
///
/// It can't be done.
pub fn run(command: &DiskCommand) -> Result<u8, DiskError> {
    match command {
        DiskCommand::Create(args) => create(args),
        DiskCommand::Info(args) => info(args),
        DiskCommand::Convert(args) => convert(args),
        DiskCommand::Check(args) => check(args),
        DiskCommand::Resize(args) => lodge_disk::resize(&args.file, args.format, args.size, args.shrink).map(|()| 0),
        DiskCommand::Compact(args) => {
            let done = with_progress(|told| lodge_disk::compact(&args.file, args.format, told))?;
            say(&format!("{}: {} before, {} now\n", args.file.display(), bytes(done.before), bytes(done.after)));
            Ok(0)
        }
    }
}

/// The format of a new file for which none was given.
fn format_of(given: Option<Format>, path: &Path) -> Format {
    given.or_else(|| Format::from_extension(path)).unwrap_or(Format::Raw)
}

fn create(args: &CreateArgs) -> Result<u8, DiskError> {
    let backing = args.backing.as_deref().map(backing).transpose()?;
    let wanted = Create {
        size: args.size,
        format: format_of(args.format, &args.file),
        backing,
        preallocate: args.preallocate,
        force: args.force,
    };
    lodge_disk::create(&args.file, &wanted).map(|()| 0)
}

/// A value of `--backing`.
fn backing(text: &str) -> Result<Backing, DiskError> {
    let (path, properties) = values::properties(text);
    let wrong = |problem: String| DiskError::Refused(format!("--backing: {problem}"));
    let mut found = Backing { path: path.into(), format: None };
    for (name, given) in properties {
        match (name.as_str(), given) {
            ("format", Some(format)) => found.format = Some(values::format(&format).map_err(wrong)?),
            _ => return Err(wrong(format!("'{name}' is not format=..; a comma in a file's name is doubled"))),
        }
    }
    Ok(found)
}

fn info(args: &InfoArgs) -> Result<u8, DiskError> {
    let chain = if args.chain {
        lodge_disk::info_chain(&args.file, args.format)?
    } else {
        vec![lodge_disk::info(&args.file, args.format)?]
    };
    let json = match (args.json, chain.as_slice()) {
        (true, [one]) if !args.chain => serde_json::to_string_pretty(one),
        (true, all) => serde_json::to_string_pretty(all),
        (false, all) => Ok(all.iter().map(shown).collect::<Vec<_>>().join("\n")),
    };
    // Everything in it is text and numbers.
    let text = json.map_err(|error| DiskError::Refused(format!("{}: {error}", args.file.display())))?;
    say(&format!("{}\n", text.trim_end()));
    Ok(0)
}

/// What `disk info` prints of one image.
fn shown(info: &Info) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text += &format!("{:<20} {value}\n", format!("{name}:"));
    line("file", info.path.display().to_string());
    line("format", info.format.into());
    line("size", format!("{} ({} bytes)", bytes(info.size), info.size));
    line("on the host", bytes(info.allocated));
    if let Some(size) = info.cluster_size {
        line("cluster", bytes(size));
    }
    if let Some(name) = &info.backing {
        line("backing file", name.clone());
        line("backing format", info.backing_format.clone().unwrap_or_else(|| "not given".into()));
    }
    for (name, value) in &info.details {
        line(name, value.clone());
    }
    for snapshot in &info.snapshots {
        line(
            "snapshot",
            format!("{} {} ({} of machine state)", snapshot.id, snapshot.name, bytes(snapshot.state_size)),
        );
    }
    // Names in a file may hold anything.
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn convert(args: &ConvertArgs) -> Result<u8, DiskError> {
    let how = Convert {
        from: args.from,
        format: format_of(args.format, &args.target),
        compress: args.compress,
        force: args.force,
    };
    with_progress(|told| lodge_disk::convert(&args.source, &args.target, how, told)).map(|()| 0)
}

fn check(args: &CheckArgs) -> Result<u8, DiskError> {
    let report = if args.repair {
        lodge_disk::repair(&args.file, args.format)?
    } else {
        lodge_disk::check(&args.file, args.format)?
    };
    let mut text: String = report.messages.iter().map(|message| format!("{message}\n")).collect();
    let more = (report.errors + report.leaks).saturating_sub(report.messages.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    let name = args.file.display();
    text += &match (report.is_clean(), report.repaired) {
        (true, _) => format!("{name}: nothing is wrong; {} clusters of data\n", report.clusters),
        (false, true) => format!("{name}: {} errors and {} leaks were mended\n", report.errors, report.leaks),
        (false, false) if report.errors == 0 => {
            format!("{name}: {} leaks, which only cost space; --repair ends them\n", report.leaks)
        }
        (false, false) => format!("{name}: {} errors and {} leaks\n", report.errors, report.leaks),
    };
    say(&text);
    Ok(match (report.errors, report.leaks) {
        _ if report.repaired => 0,
        (0, 0) => 0,
        (0, _) => LEAKS,
        _ => ERRORS,
    })
}

/// Shows progress on a terminal, and calls the work off at a signal, so that it leaves nothing behind.
fn with_progress<T>(work: impl FnOnce(Progress<'_>) -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Without a handler the signal ends lodge as it always would.
        if let Err(error) = signal_hook::flag::register(signal, stop.clone()) {
            tracing::debug!(%error, "a signal can't be caught");
        }
    }
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {percent}% {binary_bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let done = work(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    done
}

/// Writes to standard output; a reader that has gone is no error.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Bytes with a unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{count} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_units() {
        for (count, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (8 << 30, "8.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn names_from_files_do_not_reach_the_terminal_as_they_are() {
        let info = Info { format: "qcow2", backing: Some("a\x1b[2Jb".into()), ..Info::default() };
        assert!(shown(&info).contains("a\u{fffd}[2Jb"), "{}", shown(&info));
    }

    #[test]
    fn values_of_backing() {
        let found = backing("a,,b.img,format=raw").unwrap();
        assert_eq!(found, Backing { path: "a,b.img".into(), format: Some(Format::Raw) });
        assert!(backing("a,frob").unwrap_err().to_string().starts_with("--backing: 'frob' is not format"));
    }
}
