//! `lodge ctl`: says one thing to a running machine and prints the answer.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use lodge_control::{AskError, Request, Response, StatusReport, ask};

use crate::args::{self, UsageError};

/// Options of `ctl`.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// The socket that was named with `lodge run --control`
    pub socket: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What can be said to a running machine.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Say what it is doing
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold its processors and its time
    Pause,
    /// Let it go on, or wake it up
    Resume,
    /// Press its reset button
    Reset,
    /// Press its power button
    Powerdown,
    /// End it at once
    Quit,
    /// Write what the screen shows to a file
    Screenshot {
        /// A file in the PNG format
        #[arg(value_name = "FILE.png")]
        file: PathBuf,
    },
    /// Print what can be read on the screen
    Text,
    /// Type text
    Type {
        /// The text, as on a US keyboard
        #[arg(allow_hyphen_values = true)]
        text: String,
    },
    /// Press keys, one after the other, those joined by `-` together: ctrl-alt-delete f12
    Key {
        /// Their names
        #[arg(required = true, allow_hyphen_values = true)]
        keys: Vec<String>,
    },
    /// Change the medium in a drive: cd0, cd1, floppy0 and so on
    Media {
        /// The drive
        device: String,
        /// The medium's file, of a floppy with `,readonly` if it is to be write-protected; or `eject`
        #[arg(value_name = "FILE[,readonly]|eject")]
        file: PathBuf,
    },
    /// Plug a network card's cable in, or pull it: net0, net1 and so on
    Link {
        /// The card
        card: String,
        /// Which
        #[arg(value_enum)]
        state: LinkState,
    },
}

/// What becomes of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkState {
    /// It is plugged in
    Up,
    /// It is pulled
    Down,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The machine did not do it.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The picture is none.
    #[error("what came is no picture; is the machine of another version?")]
    Picture,
    /// The picture's file.
    #[error("the file '{file}' can't be written: {source}; name a place that you may write to")]
    Write {
        /// The file.
        file: String,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Where the medium's file is.
    #[error("the file '{file}' can't be found: {source}")]
    File {
        /// The file.
        file: String,
        /// The host's answer.
        source: std::io::Error,
    },
}

/// Does what the command line says; what to print.
///
/// # Errors
///
/// The machine is not there, or refuses.
pub fn run(args: &CtlArgs) -> Result<String, CtlError> {
    let request = match &args.command {
        CtlCommand::Status { .. } => Request::Status,
        CtlCommand::Pause => Request::Pause,
        CtlCommand::Resume => Request::Resume,
        CtlCommand::Reset => Request::Reset,
        CtlCommand::Powerdown => Request::Powerdown,
        CtlCommand::Quit => Request::Quit,
        CtlCommand::Screenshot { .. } => Request::Screenshot,
        CtlCommand::Text => Request::Text,
        CtlCommand::Type { text } => Request::Type { text: text.clone() },
        CtlCommand::Key { keys } => Request::Key { keys: keys.clone() },
        CtlCommand::Media { device, file } => media(device, file)?,
        CtlCommand::Link { card, state } => Request::Link { card: card.clone(), up: *state == LinkState::Up },
    };
    Ok(match (ask(&args.socket, &request)?, &args.command) {
        (Response::Status(report), CtlCommand::Status { json: true }) => {
            serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default()
        }
        (Response::Status(report), _) => describe(&report),
        (Response::Screenshot(picture), CtlCommand::Screenshot { file }) => {
            let png = BASE64_STANDARD.decode(picture).map_err(|_| CtlError::Picture)?;
            std::fs::write(file, png).map_err(|source| CtlError::Write { file: file.display().to_string(), source })?;
            String::new()
        }
        (Response::Text(text), _) => text + "\n",
        (Response::Done | Response::Error(_) | Response::Screenshot(_), _) => String::new(),
    })
}

/// What is asked for a drive.
fn media(device: &str, file: &Path) -> Result<Request, CtlError> {
    let ejected = || Request::Media { device: device.to_owned(), file: None, readonly: false };
    if file.as_os_str() == "eject" {
        return Ok(ejected());
    }
    let (mut file, mut readonly) = (file.to_owned(), false);
    // Floppies are named as with `lodge run --floppy`; discs are files whatever there is in their names.
    if device.starts_with("floppy")
        && let Some(text) = file.to_str()
    {
        let plan = args::floppy("media", text)?;
        let Some(path) = plan.path else { return Ok(ejected()) };
        (file, readonly) = (path, plan.readonly);
    }
    let file =
        std::path::absolute(&file).map_err(|source| CtlError::File { file: file.display().to_string(), source })?;
    Ok(Request::Media { device: device.to_owned(), file: Some(file), readonly })
}

fn describe(report: &StatusReport) -> String {
    let resets = match report.resets {
        0 => String::new(),
        1 => ", 1 reset".into(),
        n => format!(", {n} resets"),
    };
    let mut text = format!("{} for {:.0} s on the {} engine{resets}\n", report.phase, report.uptime, report.engine);
    for drive in &report.drives {
        let state = match (drive.loaded, drive.locked) {
            (false, _) => "empty",
            (true, false) => "loaded",
            (true, true) => "loaded, held by the guest",
        };
        text += &format!("{}: {state}\n", drive.name);
    }
    for card in &report.cards {
        text += &format!("{}: {}\n", card.name, if card.up { "plugged in" } else { "pulled" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_named_as_for_run() {
        let asked = |device: &str, file: &str| match media(device, Path::new(file)) {
            Ok(Request::Media { file, readonly, .. }) => Ok((file, readonly)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        for (device, text, file, readonly) in [
            ("floppy0", "/a.img", Some("/a.img"), false),
            ("floppy1", "/a.img,readonly", Some("/a.img"), true),
            ("floppy0", "/a,,b.img", Some("/a,b.img"), false),
            ("floppy0", "none", None, false),
            ("floppy0", "eject", None, false),
            ("cd0", "/a,b.iso", Some("/a,b.iso"), false),
            ("cd0", "/a,readonly", Some("/a,readonly"), false),
            ("cd0", "eject", None, false),
        ] {
            assert_eq!(asked(device, text), Ok((file.map(PathBuf::from), readonly)), "{device} {text}");
        }
        let error = asked("floppy0", "/a.img,fast").unwrap_err();
        assert_eq!(error, "media: 'fast' is not readonly; a comma in a file's name is doubled");
    }

    #[test]
    fn a_status_is_described() {
        let drive = |name: &str, loaded, locked| lodge_control::DriveReport { name: name.into(), loaded, locked };
        let card = |name: &str, up| lodge_control::CardReport { name: name.into(), up };
        let report = StatusReport {
            phase: "running".into(),
            uptime: 61.7,
            resets: 2,
            engine: "translator".into(),
            drives: vec![drive("cd0", true, true), drive("floppy0", false, false)],
            cards: vec![card("net0", true), card("net1", false)],
        };
        let expected = "running for 62 s on the translator engine, 2 resets\ncd0: loaded, held by the guest\nfloppy0: empty\n\
             net0: plugged in\nnet1: pulled\n";
        assert_eq!(describe(&report), expected);
    }
}
