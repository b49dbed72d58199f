//! ISO 9660 (ECMA-119, 4th edition) with Rock Ridge's names (IEEE P1282), Joliet and El Torito, as far as looking for
//! files by path takes.
//!
//! Ours rather than a crate's, because reading has to stay within bounds that are known beforehand, whatever an image
//! says: only paths that are asked for are walked, and nothing is followed twice.

use super::disc::Node;
use super::source::{Source, bytes, field, le16, le32, utf16be};
use super::{MediaError, Medium};

/// A sector, which descriptors and records are laid out by (6.1.2).
const SECTOR: u64 = 2048;
/// The first volume descriptor's sector (6.2.1: sixteen sectors are the system's).
const FIRST_DESCRIPTOR: u64 = 16;
/// Descriptors that are looked at; discs have up to about five.
const MOST_DESCRIPTORS: u64 = 64;
/// The most that is read of a directory; a record takes at least 34 bytes.
const MOST_OF_DIRECTORY: u64 = 256 << 10;

/// Types of volume descriptors (8.1.1).
mod descriptor {
    pub const BOOT: u8 = 0;
    pub const PRIMARY: u8 = 1;
    pub const SUPPLEMENTARY: u8 = 2;
    pub const TERMINATOR: u8 = 255;
}

/// Offsets in a primary or supplementary descriptor (8.4, 8.5).
mod volume {
    use std::ops::Range;

    pub const SYSTEM: Range<usize> = 8..40;
    pub const LABEL: Range<usize> = 40..72;
    pub const SPACE: usize = 80;
    pub const ESCAPES: Range<usize> = 88..120;
    pub const BLOCK: usize = 128;
    pub const ROOT: Range<usize> = 156..190;
    pub const PUBLISHER: Range<usize> = 318..446;
    pub const APPLICATION: Range<usize> = 574..702;
}

/// Offsets in a directory record (9.1).
mod record {
    pub const EXTENDED: usize = 1;
    pub const EXTENT: usize = 2;
    pub const LENGTH: usize = 10;
    pub const FLAGS: usize = 25;
    pub const NAME_LENGTH: usize = 32;
    pub const NAME: usize = 33;
    /// The flag of a directory (9.1.6).
    pub const IS_DIRECTORY: u8 = 1 << 1;
}

/// Escape sequences of Joliet's three levels (Joliet, "SVD escape sequences").
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

/// A volume with ISO 9660.
pub struct Iso {
    medium: Medium,
    primary: Tree,
    joliet: Option<Tree>,
}

/// One of a volume's trees of directories.
struct Tree {
    root: Node,
    block: u64,
    wide: bool,
}

impl Iso {
    /// Opens a volume; `None` if there is none.
    pub fn open(source: &Source<'_>) -> Result<Option<Self>, MediaError> {
        let mut medium = Medium::default();
        let (mut primary, mut joliet) = (None, None);
        for number in 0..MOST_DESCRIPTORS {
            let Ok(sector) = source.read((FIRST_DESCRIPTOR + number) * SECTOR, SECTOR as usize) else { break };
            if bytes(&sector, 1) != *b"CD001" {
                break;
            }
            match sector[0] {
                descriptor::PRIMARY if primary.is_none() => {
                    primary = Some(Tree::new(&sector, false)?);
                    medium.system = field(&sector[volume::SYSTEM]);
                    medium.label = field(&sector[volume::LABEL]);
                    medium.publisher = field(&sector[volume::PUBLISHER]);
                    medium.application = field(&sector[volume::APPLICATION]);
                    let named = u64::from(le32(&sector, volume::SPACE)) * u64::from(le16(&sector, volume::BLOCK));
                    medium.missing = named.saturating_sub(source.size());
                }
                descriptor::SUPPLEMENTARY if joliet.is_none() => {
                    let escapes = &sector[volume::ESCAPES];
                    if JOLIET.iter().any(|escape| escapes.starts_with(escape)) {
                        joliet = Some(Tree::new(&sector, true)?);
                    }
                }
                descriptor::BOOT if sector[7..39].starts_with(b"EL TORITO SPECIFICATION") => {
                    // A catalogue that can't be read starts nothing; the disc may be known all the same.
                    let catalogue = source.read(u64::from(le32(&sector, 0x47)) * SECTOR, SECTOR as usize);
                    (medium.bios, medium.uefi) = catalogue.map_or((false, false), |sector| platforms(&sector));
                }
                descriptor::TERMINATOR => break,
                _ => {}
            }
        }
        Ok(primary.map(|primary| Self { medium, primary, joliet }))
    }

    /// What its descriptors say.
    pub fn medium(&self) -> Medium {
        self.medium.clone()
    }

    /// Looks for a path, without regard to case.
    pub fn find(&self, source: &Source<'_>, path: &str) -> Result<Option<Node>, MediaError> {
        match (self.primary.find(source, path)?, &self.joliet) {
            (None, Some(joliet)) => joliet.find(source, path),
            (found, _) => Ok(found),
        }
    }
}

impl Tree {
    fn new(sector: &[u8], wide: bool) -> Result<Self, MediaError> {
        let block = le16(sector, volume::BLOCK);
        // 6.2.2: a power of two, from 512 bytes to a sector.
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(MediaError::Damaged("its blocks have a size that there is not"));
        }
        let block = u64::from(block);
        Ok(Self { root: node(&sector[volume::ROOT], block), block, wide })
    }

    fn find(&self, source: &Source<'_>, path: &str) -> Result<Option<Node>, MediaError> {
        let mut at = self.root.clone();
        for part in path.split('/') {
            if !at.directory {
                return Ok(None);
            }
            match self.entry(source, &at, part)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// An entry of a directory by its name.
    fn entry(&self, source: &Source<'_>, directory: &Node, name: &str) -> Result<Option<Node>, MediaError> {
        for (start, length) in &directory.extents {
            let length = (*length).min(MOST_OF_DIRECTORY);
            let sectors = source.read(*start, usize::try_from(length).unwrap_or(0))?;
            // A record never goes from one sector into the next (6.8.1.1).
            for sector in sectors.chunks(SECTOR as usize) {
                let mut rest = sector;
                while let Some(length) = rest.first().map(|length| usize::from(*length)) {
                    // Nothing, or less than a record's fixed part: the rest of the sector is padding.
                    if length <= record::NAME || length > rest.len() {
                        break;
                    }
                    let (this, next) = rest.split_at(length);
                    if self.is_named(this, name) {
                        return Ok(Some(node(this, self.block)));
                    }
                    rest = next;
                }
            }
        }
        Ok(None)
    }

    fn is_named(&self, this: &[u8], name: &str) -> bool {
        let length = usize::from(this[record::NAME_LENGTH]);
        let Some(own) = this.get(record::NAME..record::NAME + length) else { return false };
        let own_name = if self.wide { utf16be(own) } else { field(own) };
        // 7.5.1: NAME.EXTENSION;VERSION, where the point stands even without an extension.
        let plain = own_name.split(';').next().unwrap_or_default();
        if same(plain, name) || same(plain.trim_end_matches('.'), name) {
            return true;
        }
        // 9.1.12: the system's part begins at an even place.
        let after = record::NAME + length + usize::from(length % 2 == 0);
        !self.wide && rock_ridge_name(this.get(after..).unwrap_or_default()).is_some_and(|own| same(&own, name))
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The name that Rock Ridge gives a file, if it gives one (IEEE P1282, 4.1.4).
fn rock_ridge_name(mut rest: &[u8]) -> Option<String> {
    const CONTINUES: u8 = 1;
    let mut name = String::new();
    let mut found = false;
    // SUSP 4.1: signature of two bytes, length, version, data.
    while let [a, b, length, _, data @ ..] = rest {
        let length = usize::from(*length);
        if length < 4 || length > rest.len() {
            break;
        }
        if (*a, *b) == (b'N', b'M') {
            let [flags, text @ ..] = &data[..length - 4] else { break };
            name.push_str(&String::from_utf8_lossy(text));
            found = true;
            if flags & CONTINUES == 0 {
                break;
            }
        }
        rest = &rest[length..];
    }
    found.then_some(name)
}

/// The file or directory that a record is of.
fn node(this: &[u8], block: u64) -> Node {
    // 9.1.3: attributes, where there are any, come first.
    let first = u64::from(le32(this, record::EXTENT)) + u64::from(this[record::EXTENDED]);
    let length = u64::from(le32(this, record::LENGTH));
    Node { directory: this[record::FLAGS] & record::IS_DIRECTORY != 0, extents: vec![(first * block, length)] }
}

/// Whether a boot catalogue has entries for a BIOS and for UEFI (El Torito 1.0, 2.0; UEFI 2.10, 13.3.2.1).
fn platforms(catalogue: &[u8]) -> (bool, bool) {
    const VALIDATION: u8 = 1;
    const BOOTABLE: u8 = 0x88;
    const SECTION: u8 = 0x90;
    const LAST_SECTION: u8 = 0x91;
    const UEFI: u8 = 0xef;
    let (mut bios, mut uefi) = (false, false);
    let mut platform = match catalogue.first() {
        Some(&VALIDATION) => catalogue[1],
        _ => return (false, false),
    };
    for entry in catalogue.chunks_exact(32).skip(1) {
        match entry[0] {
            BOOTABLE if platform == UEFI => uefi = true,
            BOOTABLE => bios = true,
            SECTION | LAST_SECTION => platform = entry[1],
            _ => {}
        }
    }
    (bios, uefi)
}
