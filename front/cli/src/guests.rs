//! `lodge guests`: lists and shows guest operating systems, and recognises media.
//!
//! What is known of them is `lodge_guests`'; here are the options, and how it is shown.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lodge_guests::{Catalogue, Detection, Kind, MediaError, Profile, Resources, Support};
use serde_json::json;

/// Options of `guests`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GuestsArgs {
    /// What to do instead of listing.
    #[command(subcommand)]
    command: Option<GuestsCommand>,
    /// List those that all of these words are found in, in id, name, family or support
    words: Vec<String>,
    /// In JSON
    #[arg(long)]
    json: bool,
}

/// What can be done with guest operating systems besides listing them.
#[derive(Debug, Subcommand)]
pub enum GuestsCommand {
    /// Show all that is known of one
    Show(ShowArgs),
    /// Say which one an installation disc or floppy is of, and why
    Detect(DetectArgs),
}

/// Options of `guests show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Its id, as `lodge guests` lists it
    id: String,
    /// In JSON
    #[arg(long)]
    json: bool,
}

/// Options of `guests detect`.
#[derive(Args, Debug)]
pub struct DetectArgs {
    /// The image of a disc or floppy, or the host's drive
    file: PathBuf,
    /// In JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestsError {
    /// Nothing was found for these words.
    #[error("no guest operating system is found by '{0}'; `lodge guests` lists all")]
    NoneFound(String),
    /// There is no such id.
    #[error("there is no guest operating system '{id}'; {instead}")]
    NoSuchId {
        /// The id.
        id: String,
        /// What to do.
        instead: String,
    },
    /// A file can't be opened.
    #[error("'{file}' cannot be opened: {cause}")]
    Open {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is a folder, a pipe or the like.
    #[error("'{0}' is neither a file nor a drive; name the image of an installation disc or floppy")]
    NoFile(PathBuf),
    /// It can't be looked into.
    #[error("'{file}': {cause}; name the image of an installation disc or floppy, whole and as it was published")]
    Media {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: MediaError,
    },
    /// It is a medium that nothing is known of.
    #[error(
        "'{file}' was not recognised: {seen}; `lodge guests` lists what there is, and linux-other is for Linuxes that are not listed"
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// What is on it.
        seen: String,
    },
}

/// Carries out a command; what it prints.
///
/// # Errors
///
/// There is no answer.
pub fn run(args: &GuestsArgs) -> Result<(), GuestsError> {
    let text = match &args.command {
        None => list(&args.words, args.json)?,
        Some(GuestsCommand::Show(args)) => show(&args.id, args.json)?,
        Some(GuestsCommand::Detect(args)) => detect(&args.file, args.json)?,
    };
    // A reader that has gone is no error.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Values as JSON. All of them are text and numbers, which can always be written.
fn pretty(value: impl serde::Serialize) -> String {
    serde_json::to_string_pretty(&value).map(|text| text + "\n").unwrap_or_default()
}

fn list(words: &[String], as_json: bool) -> Result<String, GuestsError> {
    let found = Catalogue::built_in().search(words);
    if found.is_empty() {
        return Err(GuestsError::NoneFound(printable(&words.join(" "))));
    }
    Ok(if as_json { pretty(&found) } else { table(&found) })
}

/// One line for each, under a heading.
fn table(profiles: &[&Profile]) -> String {
    let mut rows = vec![["ID", "NAME", "SUPPORT", "FIRMWARE"].map(str::to_owned)];
    rows.extend(profiles.iter().map(|profile| {
        let firmware = names(&profile.firmware);
        [profile.id.clone(), profile.name.clone(), profile.support.to_string(), firmware]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [id, name, support] = [width(0), width(1), width(2)];
    rows.iter().map(|row| format!("{:id$}  {:name$}  {:support$}  {}\n", row[0], row[1], row[2], row[3])).collect()
}

fn show(id: &str, as_json: bool) -> Result<String, GuestsError> {
    let catalogue = Catalogue::built_in();
    let profile = catalogue.find(id).ok_or_else(|| {
        let near = catalogue.suggestions(id);
        let instead = match near.as_slice() {
            [] => "`lodge guests` lists all".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        GuestsError::NoSuchId { id: printable(id), instead }
    })?;
    Ok(if as_json { pretty(profile) } else { shown(profile) })
}

/// All that is known of one, a line for each.
fn shown(profile: &Profile) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("{:<14} {value}\n", format!("{name}:"));
        }
    };
    line("id", profile.id.clone());
    line("name", profile.name.clone());
    line("family", profile.family.clone());
    line("version", profile.version.clone());
    line("released", profile.released.clone().unwrap_or_default());
    line("updates until", profile.ends.clone().unwrap_or_default());
    line("support", support(profile));
    line("note", profile.note.clone().unwrap_or_default());
    line("architectures", names(&profile.architectures));
    line("minimum", resources(&profile.minimum));
    line("recommended", resources(&profile.recommended));
    line("from", profile.source.clone().unwrap_or_default());
    line("firmware", names(&profile.firmware));
    line("disk bus", names(&profile.disks));
    line("network card", names(&profile.nics));
    line("graphics", names(&profile.graphics));
    line("pointer", names(&profile.pointers));
    line("sound", names(&profile.sound));
    line("PXE", if profile.pxe { "yes" } else { "no" }.into());
    line("unattended", profile.unattended.to_string());
    line("media", if profile.media.is_empty() { "not recognised" } else { "recognised" }.into());
    text
}

/// How far it is known to run, in words.
fn support(profile: &Profile) -> String {
    match (profile.support, &profile.proof) {
        (Support::Tested, Some(proof)) => format!("tested here ({proof})"),
        (Support::Tested, None) => "tested here".into(),
        (Support::Expected, _) => "expected, not tested".into(),
        (Support::Broken, _) => "known not to work".into(),
    }
}

fn resources(resources: &Resources) -> String {
    let Resources { memory, disk, cpus } = resources;
    let processors = if *cpus == 1 { "processor" } else { "processors" };
    let disk = if disk.bytes() == 0 { "no disk".into() } else { format!("{disk} of disk") };
    format!("{memory} of memory, {disk}, {cpus} {processors}")
}

fn names<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn detect(path: &Path, as_json: bool) -> Result<String, GuestsError> {
    let file = open(path)?;
    let found = lodge_guests::detect(&file, Catalogue::built_in())
        .map_err(|cause| GuestsError::Media { file: path.to_owned(), cause })?;
    let Some(first) = found.profiles.first() else {
        return Err(GuestsError::Unknown { file: path.to_owned(), seen: seen(&found) });
    };
    let others: Vec<&str> = found.profiles[1..].iter().map(|profile| profile.id.as_str()).collect();
    if as_json {
        return Ok(pretty(json!({
            "id": first.id,
            "name": first.name,
            "reasons": found.reasons,
            "alternatives": others,
            "label": found.medium.label,
            "kind": kind(&found),
            "bios": found.medium.bios,
            "uefi": found.medium.uefi,
            "missing": found.medium.missing,
        })));
    }
    let mut text = format!("{}  {}\n", first.id, first.name);
    for reason in &found.reasons {
        text += &format!("  because {reason}\n");
    }
    if !others.is_empty() {
        text += &format!("  it may as well be {}\n", others.join(" or "));
    }
    if found.medium.missing > 0 {
        text += &format!("  {} bytes of it are missing: it was cut short\n", found.medium.missing);
    }
    Ok(text)
}

fn kind(found: &Detection<'_>) -> &'static str {
    match found.kind {
        Kind::Disc => "disc",
        Kind::Floppy => "floppy",
    }
}

/// What is on a medium that nothing is known of.
fn seen(found: &Detection<'_>) -> String {
    let label = if found.medium.label.is_empty() {
        "without a label".into()
    } else {
        format!("labelled '{}'", printable(&found.medium.label))
    };
    let starts = match (found.medium.bios, found.medium.uefi) {
        (true, true) => "that BIOS and UEFI can start",
        (true, false) => "that a BIOS can start",
        (false, true) => "that UEFI can start",
        (false, false) => "that no firmware can start",
    };
    format!("it is a {} {label} {starts}", kind(found))
}

/// Opens a file or block device; a pipe would be waited for.
fn open(path: &Path) -> Result<File, GuestsError> {
    let failed = |cause| GuestsError::Open { file: path.to_owned(), cause };
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?.file_type();
    if !about.is_file() && !about.is_block_device() {
        return Err(GuestsError::NoFile(path.to_owned()));
    }
    Ok(file)
}

/// Text from elsewhere, without what a terminal would take for orders.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_a_line_for_each() {
        let text = list(&["debian-12".into()], false).unwrap();
        assert_eq!(
            text,
            "ID         NAME                  SUPPORT  FIRMWARE\n\
             debian-12  Debian 12 (bookworm)  tested   uefi, bios\n"
        );
        let all: serde_json::Value = serde_json::from_str(&list(&[], true).unwrap()).unwrap();
        assert_eq!(all.as_array().unwrap().len(), Catalogue::built_in().profiles().len());
        assert_eq!(
            list(&["no".into(), "such\n".into()], false).unwrap_err().to_string(),
            "no guest operating system is found by 'no such\u{fffd}'; `lodge guests` lists all"
        );
    }

    #[test]
    fn one_is_shown_with_all_that_is_known() {
        let text = show("windows-11", false).unwrap();
        assert!(text.contains("support:       known not to work\n"), "{text}");
        assert!(text.contains("minimum:       4 GiB of memory, 64 GiB of disk, 2 processors\n"), "{text}");
        let error = show("debain-12", false).unwrap_err().to_string();
        assert!(error.starts_with("there is no guest operating system 'debain-12'; did you mean debian-12"), "{error}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = detect(folder.path(), false).unwrap_err();
        assert!(matches!(error, GuestsError::NoFile(_)), "{error}");
        let file = folder.path().join("x");
        assert!(matches!(detect(&file, false).unwrap_err(), GuestsError::Open { .. }));
        std::fs::write(&file, "text").unwrap();
        let error = detect(&file, false).unwrap_err().to_string();
        assert!(error.contains("is not the image of a disc or floppy"), "{error}");
    }
}
