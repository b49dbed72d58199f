//! [`Catalogue`]: all profiles.
//!
//! A data file is one family: its `family`, the `defaults` that all its entries start from, and the entries, `guest`. A
//! key of an entry replaces the default of that name as a whole. `{version}` in media rules stands for the entry's version.

use std::sync::LazyLock;

use serde::Deserialize;
use toml::{Table, Value};

use crate::{Profile, Support};

/// The data, by file.
const FILES: &[(&str, &str)] = &[
    ("lodge.toml", include_str!("../data/lodge.toml")),
    ("debian.toml", include_str!("../data/debian.toml")),
    ("ubuntu.toml", include_str!("../data/ubuntu.toml")),
    ("debian-kin.toml", include_str!("../data/debian-kin.toml")),
    ("fedora.toml", include_str!("../data/fedora.toml")),
    ("enterprise-linux.toml", include_str!("../data/enterprise-linux.toml")),
    ("suse.toml", include_str!("../data/suse.toml")),
    ("linux.toml", include_str!("../data/linux.toml")),
    ("bsd.toml", include_str!("../data/bsd.toml")),
    ("unix.toml", include_str!("../data/unix.toml")),
    ("windows.toml", include_str!("../data/windows.toml")),
    ("windows-nt.toml", include_str!("../data/windows-nt.toml")),
    ("windows-dos.toml", include_str!("../data/windows-dos.toml")),
    ("dos.toml", include_str!("../data/dos.toml")),
    ("others.toml", include_str!("../data/others.toml")),
    ("tools.toml", include_str!("../data/tools.toml")),
];

/// All profiles, in the order of the data.
#[derive(Clone, Debug)]
pub struct Catalogue {
    profiles: Vec<Profile>,
}

/// What is wrong with data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// A file can't be understood.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// An entry can't be understood.
    #[error("{file}: the entry '{id}': {problem}")]
    Entry {
        /// The file.
        file: String,
        /// The entry's id, or its number.
        id: String,
        /// What is wrong.
        problem: String,
    },
}

/// A data file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: String,
    #[serde(default)]
    defaults: Table,
    guest: Vec<Table>,
}

impl Catalogue {
    /// The profiles that lodge knows.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| {
            // The data are part of the program, and a test reads them all.
            Catalogue::from_files(FILES).unwrap_or_else(|error| panic!("lodge's own data are wrong: {error}"))
        });
        &BUILT_IN
    }

    /// Reads data files, each given by name and text.
    ///
    /// # Errors
    ///
    /// One is not TOML, or holds what a profile does not have.
    pub fn from_files(files: &[(&str, &str)]) -> Result<Self, DataError> {
        let mut profiles = Vec::new();
        for (name, text) in files {
            let wrong = |problem: String| DataError::File { file: (*name).to_owned(), problem };
            let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
            for (number, entry) in file.guest.into_iter().enumerate() {
                let id = entry.get("id").and_then(Value::as_str).map_or(format!("number {number}"), str::to_owned);
                let profile = merged(&file.family, &file.defaults, entry).map_err(|error| DataError::Entry {
                    file: (*name).to_owned(),
                    id,
                    problem: error.to_string(),
                })?;
                profiles.push(profile);
            }
        }
        Ok(Self { profiles })
    }

    /// All profiles.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The profile with this id.
    pub fn find(&self, id: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id.eq_ignore_ascii_case(id))
    }

    /// The profiles that each of the words is found in: in id, name, family, aliases or support. Words are compared
    /// without regard to case; none finds all.
    pub fn search(&self, words: &[String]) -> Vec<&Profile> {
        let words: Vec<_> = words.iter().map(|word| word.to_lowercase()).collect();
        let matches = |profile: &&Profile| {
            let text = format!(
                "{}\n{}\n{}\n{}\n{}",
                profile.id,
                profile.name,
                profile.family,
                profile.aliases.join("\n"),
                profile.support
            );
            let text = text.to_lowercase();
            words.iter().all(|word| text.contains(word.as_str()))
        };
        self.profiles.iter().filter(matches).collect()
    }

    /// Ids that somebody may have meant who wrote one that is not there, best first; at most three.
    pub fn suggestions(&self, wrong: &str) -> Vec<&str> {
        let wrong = wrong.to_lowercase();
        // No id is as long; and the comparison takes time in proportion to both lengths.
        if wrong.len() > 64 {
            return Vec::new();
        }
        let mut near: Vec<_> = self
            .profiles
            .iter()
            .filter(|profile| profile.support != Support::Broken)
            .map(|profile| (distance(&wrong, &profile.id), profile.id.as_str()))
            .filter(|(distance, _)| *distance <= 2)
            .collect();
        near.sort();
        near.into_iter().take(3).map(|(_, id)| id).collect()
    }
}

/// An entry over the family's defaults.
fn merged(family: &str, defaults: &Table, entry: Table) -> Result<Profile, toml::de::Error> {
    let version = entry.get("version").and_then(Value::as_str).unwrap_or_default();
    let version = regex_lite::escape(version);
    let mut all = Table::new();
    all.insert("family".into(), Value::String(family.to_owned()));
    all.insert("version".into(), Value::String(String::new()));
    all.extend(defaults.clone());
    all.extend(entry);
    if let Some(media) = all.get_mut("media") {
        fill_in(media, &version);
    }
    Value::Table(all).try_into()
}

/// Puts the version in its places.
fn fill_in(value: &mut Value, version: &str) {
    match value {
        Value::String(text) => *text = text.replace("{version}", version),
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(item, version)),
        Value::Table(table) => table.iter_mut().for_each(|(_, item)| fill_in(item, version)),
        _ => {}
    }
}

/// Single letters to be put in, taken out or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
