//! A tagged, versioned, additive format for saved state.
//!
//! A record is eight bytes of magic followed by one CBOR map (RFC 8949) with the keys `kind`, `version` and `fields`;
//! `fields` is a map from field name to value. Names are the tags: a reader ignores fields that it does not know and
//! uses defaults for those that are missing, so both directions of an upgrade that only adds fields work. A change that
//! is more than an addition raises [`Saved::VERSION`]; a record from a later version is refused, never guessed at.
//!
//! [`Saved`] marks a structure as the state of one kind of thing; [`to_record`] and [`from_record`] convert; [`header`]
//! reads kind and version of any record, whatever it holds.
#![forbid(unsafe_code)]

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"ldgstate";

/// The state of one kind of thing. Derive `Serialize` and `Deserialize` with `#[serde(default)]` on the structure, so
/// that a field that is missing takes its default.
pub trait Saved: Serialize + DeserializeOwned {
    /// What it is the state of; never changes.
    const KIND: &'static str;
    /// Raised when a change is more than an addition of fields.
    const VERSION: u16;
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not begin as a record does.
    #[error("not a saved-state record")]
    Magic,
    /// Its bytes are no valid CBOR, or fields have other types.
    #[error("the record is damaged: {0}")]
    Damaged(String),
    /// It is the state of something else.
    #[error("the record is of kind {found:?}, not {wanted:?}")]
    Kind {
        /// The kind in the record.
        found: String,
        /// The kind asked for.
        wanted: &'static str,
    },
    /// It was written by a later version.
    #[error("the record has version {found}, and this program reads up to {known}")]
    Version {
        /// The version in the record.
        found: u16,
        /// The latest version known.
        known: u16,
    },
}

/// What any record says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// [`Saved::KIND`].
    pub kind: String,
    /// [`Saved::VERSION`] at the time of writing.
    pub version: u16,
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    kind: &'static str,
    version: u16,
    fields: &'a T,
}

#[derive(Deserialize)]
struct Incoming<T> {
    fields: T,
}

/// Writes a record.
pub fn to_record<T: Saved>(state: &T) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let outgoing = Outgoing { kind: T::KIND, version: T::VERSION, fields: state };
    match ciborium::into_writer(&outgoing, &mut bytes) {
        Ok(()) => bytes,
        // Writing to memory can't fail, and a derived `Serialize` has nothing to refuse: a record without fields says so
        // when it is read.
        Err(_) => MAGIC.to_vec(),
    }
}

fn parse<T: DeserializeOwned>(record: &[u8]) -> Result<T, RecordError> {
    let body = record.strip_prefix(MAGIC).ok_or(RecordError::Magic)?;
    ciborium::from_reader(body).map_err(|error| RecordError::Damaged(error.to_string()))
}

/// Reads kind and version of any record.
///
/// # Errors
/// It is no record, or damaged.
pub fn header(record: &[u8]) -> Result<Header, RecordError> {
    parse(record)
}

/// Reads a record.
///
/// # Errors
/// It is no record, damaged, of another kind, or from a later version.
pub fn from_record<T: Saved>(record: &[u8]) -> Result<T, RecordError> {
    let header = header(record)?;
    if header.kind != T::KIND {
        return Err(RecordError::Kind { found: header.kind, wanted: T::KIND });
    }
    if header.version > T::VERSION {
        return Err(RecordError::Version { found: header.version, known: T::VERSION });
    }
    Ok(parse::<Incoming<T>>(record)?.fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Old {
        count: u32,
        name: String,
    }
    impl Saved for Old {
        const KIND: &'static str = "thing";
        const VERSION: u16 = 1;
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct New {
        count: u32,
        extra: Option<u64>,
    }
    impl Saved for New {
        const KIND: &'static str = "thing";
        const VERSION: u16 = 1;
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Later {
        count: u32,
    }
    impl Saved for Later {
        const KIND: &'static str = "thing";
        const VERSION: u16 = 2;
    }

    #[test]
    fn added_and_removed_fields_are_read_both_ways() {
        let old = Old { count: 7, name: "x".into() };
        let record = to_record(&old);
        assert_eq!(from_record::<Old>(&record).unwrap(), old);
        assert_eq!(from_record::<New>(&record).unwrap(), New { count: 7, extra: None });
        let record = to_record(&New { count: 9, extra: Some(1) });
        assert_eq!(from_record::<Old>(&record).unwrap(), Old { count: 9, name: String::new() });
    }

    #[test]
    fn a_record_from_the_future_is_refused_but_its_header_reads() {
        let record = to_record(&Later { count: 1 });
        assert!(matches!(from_record::<Old>(&record), Err(RecordError::Version { found: 2, known: 1 })));
        assert_eq!(header(&record).unwrap(), Header { kind: "thing".into(), version: 2 });
    }

    #[test]
    fn damage_is_refused() {
        let record = to_record(&Old { count: 7, name: "x".into() });
        assert!(matches!(from_record::<Old>(b"nonsense"), Err(RecordError::Magic)));
        for cut in 8..record.len() {
            assert!(matches!(from_record::<Old>(&record[..cut]), Err(RecordError::Damaged(_))), "cut at {cut}");
        }
    }
}
