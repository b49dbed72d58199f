//! [`Disc`]: the file systems of one disc as one. A path is looked for in the first of them that has it.

use std::collections::HashMap;

use super::iso::Iso;
use super::source::Source;
use super::tree_info::TreeInfo;
use super::udf::Udf;
use super::windows::WindowsImage;
use super::{MediaError, Medium};

/// The most that is read of a file that rules look into.
const TEXT: usize = 64 << 10;

/// Where Windows' image is.
const WINDOWS_IMAGES: [&str; 4] =
    ["sources/install.wim", "sources/install.esd", "sources/install.swm", "x64/sources/install.wim"];

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub directory: bool,
    /// Where its bytes are, offset and length, in order.
    pub extents: Vec<(u64, u64)>,
}

impl Node {
    /// The bytes from `offset` on, at most `most`.
    pub fn read(&self, source: &Source<'_>, mut offset: u64, most: usize) -> Result<Vec<u8>, MediaError> {
        let mut found = Vec::new();
        for (start, length) in &self.extents {
            if offset >= *length {
                offset -= length;
                continue;
            }
            let wanted = (most - found.len()).min(usize::try_from(length - offset).unwrap_or(usize::MAX));
            let start = start.checked_add(offset).ok_or(MediaError::Damaged("a file lies beyond all bounds"))?;
            found.extend(source.read(start, wanted)?);
            offset = 0;
            if found.len() == most {
                break;
            }
        }
        Ok(found)
    }
}

/// A disc.
pub struct Disc<'a> {
    source: &'a Source<'a>,
    iso: Option<Iso>,
    udf: Option<Udf>,
    /// What was looked for before.
    known: HashMap<String, Option<Node>>,
}

impl<'a> Disc<'a> {
    /// Opens a disc; `None` if it has none of the file systems of one.
    pub fn open(source: &'a Source<'a>) -> Result<Option<Self>, MediaError> {
        let iso = Iso::open(source)?;
        // What looks like UDF and is not does not make an ISO image unreadable.
        let udf = match Udf::open(source) {
            Ok(udf) => udf,
            Err(error) if iso.is_none() => return Err(error),
            Err(_) => None,
        };
        let is_disc = iso.is_some() || udf.is_some();
        Ok(is_disc.then(|| Self { source, iso, udf, known: HashMap::new() }))
    }

    /// What is on it.
    pub fn medium(&mut self) -> Result<Medium, MediaError> {
        let mut medium = self.iso.as_ref().map(Iso::medium).unwrap_or_default();
        if let Some(udf) = self.udf.as_ref().filter(|_| medium.label.is_empty()) {
            medium.label = udf.label().to_owned();
        }
        // A file that can't be read says nothing; the label may.
        let mut text = |path: &str| self.read(path, TEXT).ok().flatten();
        medium.disk_info = text(".disk/info").and_then(|bytes| first_line(&bytes));
        medium.tree_info = text(".treeinfo").and_then(|bytes| TreeInfo::parse(&String::from_utf8_lossy(&bytes)));
        for path in WINDOWS_IMAGES {
            if let Some(node) = self.find(path).ok().flatten() {
                medium.windows = WindowsImage::read(self.source, &node).ok().flatten();
                break;
            }
        }
        Ok(medium)
    }

    /// Whether there is a file or directory.
    pub fn has(&mut self, path: &str) -> Result<bool, MediaError> {
        Ok(self.find(path)?.is_some())
    }

    /// All of a file.
    pub fn whole(&mut self, path: &str, most: usize) -> Result<Option<Vec<u8>>, MediaError> {
        match self.find(path)? {
            Some(node) if !node.directory => {
                let size = node.extents.iter().fold(0u64, |sum, (_, length)| sum.saturating_add(*length));
                if size > most as u64 {
                    return Err(MediaError::TooMuch);
                }
                node.read(self.source, 0, most).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The beginning of a file.
    fn read(&mut self, path: &str, most: usize) -> Result<Option<Vec<u8>>, MediaError> {
        match self.find(path)? {
            Some(node) if !node.directory => node.read(self.source, 0, most).map(Some),
            _ => Ok(None),
        }
    }

    fn find(&mut self, path: &str) -> Result<Option<Node>, MediaError> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let mut found = match &self.udf {
            Some(udf) => udf.find(self.source, path)?,
            None => None,
        };
        if let (None, Some(iso)) = (&found, &self.iso) {
            found = iso.find(self.source, path)?;
        }
        self.known.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
