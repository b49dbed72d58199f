//! UDF (ECMA-167, 3rd edition; OSTA UDF 1.02 to 2.01) on discs of one partition, as those of Windows are; of those that
//! have it beside ISO 9660, only it names all files.

use super::MediaError;
use super::disc::Node;
use super::source::{Source, bytes, field, le16, le32, le64, utf16be};

/// A sector of a disc; UDF's blocks are as large there (UDF 2.2.4.2).
const SECTOR: u64 = 2048;
/// Where the volume recognition sequence begins (ECMA-167 2/8.3).
const RECOGNITION: u64 = 16;
/// Structures of that sequence that are looked at.
const MOST_STRUCTURES: u64 = 64;
/// Where the anchor is (3/8.4.2.1).
const ANCHOR: u64 = 256;
/// Descriptors that are looked at.
const MOST_DESCRIPTORS: u64 = 64;
/// The most that is read of a directory.
const MOST_OF_DIRECTORY: usize = 256 << 10;

/// Tags of descriptors (3/7.2.1, 4/7.2.1).
mod tag {
    pub const ANCHOR: u16 = 2;
    pub const PARTITION: u16 = 5;
    pub const LOGICAL_VOLUME: u16 = 6;
    pub const TERMINATING: u16 = 8;
    pub const FILE_SET: u16 = 256;
    pub const FILE_IDENTIFIER: u16 = 257;
    pub const FILE_ENTRY: u16 = 261;
    pub const EXTENDED_FILE_ENTRY: u16 = 266;
}

/// A volume with UDF.
pub struct Udf {
    label: String,
    /// Where the partition begins, in bytes.
    partition: u64,
    root: Node,
}

impl Udf {
    /// Opens a volume; `None` if there is none, or one of a kind that is not on installation media.
    pub fn open(source: &Source<'_>) -> Result<Option<Self>, MediaError> {
        if !is_recognised(source) {
            return Ok(None);
        }
        let anchor = source.read(ANCHOR * SECTOR, SECTOR as usize)?;
        if !has_tag(&anchor, tag::ANCHOR) {
            return Ok(None);
        }
        // 3/10.2.2: the main volume descriptor sequence.
        let first = u64::from(le32(&anchor, 20));
        let count = (u64::from(le32(&anchor, 16)) / SECTOR).min(MOST_DESCRIPTORS);
        let (mut partition, mut volume) = (None, None);
        for number in first..first + count {
            let sector = source.read(number * SECTOR, SECTOR as usize)?;
            if has_tag(&sector, tag::PARTITION) && partition.is_none() {
                partition = Some(u64::from(le32(&sector, 188)) * SECTOR);
            } else if has_tag(&sector, tag::LOGICAL_VOLUME) && volume.is_none() {
                volume = Some(sector);
            } else if has_tag(&sector, tag::TERMINATING) {
                break;
            }
        }
        let (Some(partition), Some(volume)) = (partition, volume) else { return Ok(None) };
        // 3/10.6: blocks of a sector, and one partition map, of type 1 (3/10.7.2).
        if u64::from(le32(&volume, 212)) != SECTOR || le32(&volume, 268) != 1 || volume[440] != 1 {
            return Ok(None);
        }
        let label = identifier(&volume[84..212]);
        let file_set = read_block(source, partition, le32(&volume, 252))?;
        if !has_tag(&file_set, tag::FILE_SET) {
            return Err(MediaError::Damaged("its UDF volume has no files"));
        }
        let root = open_entry(source, partition, le32(&file_set, 404))?;
        Ok(Some(Self { label, partition, root }))
    }

    /// The volume's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Looks for a path, without regard to case.
    pub fn find(&self, source: &Source<'_>, path: &str) -> Result<Option<Node>, MediaError> {
        let mut at = self.root.clone();
        for part in path.split('/') {
            if !at.directory {
                return Ok(None);
            }
            let listing = at.read(source, 0, MOST_OF_DIRECTORY)?;
            match entry(&listing, part) {
                Some(block) => at = open_entry(source, self.partition, block)?,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

/// Whether the recognition sequence names UDF (2/8.3; 3/9.1).
fn is_recognised(source: &Source<'_>) -> bool {
    for number in RECOGNITION..RECOGNITION + MOST_STRUCTURES {
        let Ok(start) = source.read(number * SECTOR, 6) else { return false };
        match &bytes::<5>(&start, 1) {
            b"NSR02" | b"NSR03" => return true,
            b"CD001" | b"BEA01" | b"BOOT2" | b"CDW02" => {}
            _ => return false,
        }
    }
    false
}

/// Whether a descriptor has this tag, and the tag the right checksum (3/7.2).
fn has_tag(descriptor: &[u8], wanted: u16) -> bool {
    let tag: [u8; 16] = bytes(descriptor, 0);
    let sum = tag.iter().enumerate().filter(|(at, _)| *at != 4).fold(0u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    le16(&tag, 0) == wanted && sum == tag[4]
}

fn read_block(source: &Source<'_>, partition: u64, block: u32) -> Result<Vec<u8>, MediaError> {
    source.read(partition + u64::from(block) * SECTOR, SECTOR as usize)
}

/// The file or directory whose entry is in this block (4/14.9, 4/14.17).
fn open_entry(source: &Source<'_>, partition: u64, block: u32) -> Result<Node, MediaError> {
    const DIRECTORY: u8 = 4;
    const SHORT: u16 = 0;
    const LONG: u16 = 1;
    const EMBEDDED: u16 = 3;
    let entry = read_block(source, partition, block)?;
    let header = if has_tag(&entry, tag::FILE_ENTRY) {
        176
    } else if has_tag(&entry, tag::EXTENDED_FILE_ENTRY) {
        216
    } else {
        return Err(MediaError::Damaged("a file's entry in its UDF volume is none"));
    };
    // 4/14.6: in the tag of the entry are the file's type and how its bytes are told.
    let directory = entry[27] == DIRECTORY;
    let kind = le16(&entry, 34) & 7;
    let mut left = le64(&entry, 56);
    let from = header + le32(&entry, header - 8) as usize;
    let length = le32(&entry, header - 4) as usize;
    let Some(told) = from.checked_add(length).and_then(|to| entry.get(from..to)) else {
        return Err(MediaError::Damaged("a file's entry in its UDF volume is longer than its block"));
    };
    let mut extents = Vec::new();
    let start = partition + u64::from(block) * SECTOR;
    match kind {
        EMBEDDED => extents.push((start + from as u64, left.min(length as u64))),
        SHORT | LONG => {
            for extent in told.chunks_exact(if kind == SHORT { 8 } else { 16 }) {
                // 4/14.14.1: the two highest bits say whether it is recorded, which holes are not.
                let (named, recorded) = (le32(extent, 0) & 0x3fff_ffff, le32(extent, 0) >> 30 == 0);
                let length = u64::from(named).min(left);
                if length == 0 || !recorded {
                    break;
                }
                extents.push((partition + u64::from(le32(extent, 4)) * SECTOR, length));
                left -= length;
            }
        }
        _ => return Err(MediaError::Damaged("a file in its UDF volume is told in a way that there is not")),
    }
    Ok(Node { directory, extents })
}

/// The block of the entry that a directory has for a name (4/14.4).
fn entry(listing: &[u8], name: &str) -> Option<u32> {
    const DELETED: u8 = 1 << 2;
    const PARENT: u8 = 1 << 3;
    let mut rest = listing;
    while has_tag(rest, tag::FILE_IDENTIFIER) && rest.len() >= 38 {
        let (length, use_length) = (usize::from(rest[19]), usize::from(le16(rest, 36)));
        let own = rest.get(38 + use_length..38 + use_length + length)?;
        if rest[18] & (DELETED | PARENT) == 0 && characters(own).eq_ignore_ascii_case(name) {
            return Some(le32(rest, 24));
        }
        rest = rest.get((38 + use_length + length).next_multiple_of(4)..)?;
    }
    None
}

/// Compressed Unicode (UDF 2.1.1): the first byte is the width of the characters.
fn characters(own: &[u8]) -> String {
    match own {
        [8, text @ ..] => text.iter().map(|byte| char::from(*byte)).collect(),
        [16, text @ ..] => utf16be(text),
        _ => String::new(),
    }
}

/// A field of fixed width (1/7.2.12): its last byte is how much of it is used.
fn identifier(field_: &[u8]) -> String {
    let used = field_.last().map_or(0, |used| usize::from(*used));
    field(characters(field_.get(..used).unwrap_or_default()).as_bytes())
}
