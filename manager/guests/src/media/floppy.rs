//! Floppies: the boot sector and the root directory of FAT12 (Microsoft's "FAT: General Overview of On-Disk Format",
//! 1.03).

use super::source::{Source, bytes, field, le16};
use super::{MediaError, Medium};

/// The largest floppy, 2880 KiB.
const LARGEST: u64 = 2880 << 10;
/// The smallest, 160 KiB.
const SMALLEST: u64 = 160 << 10;
const SECTOR: usize = 512;
/// Bytes of a directory's entry.
const ENTRY: usize = 32;

/// A floppy.
pub struct Floppy {
    boot_sector: Vec<u8>,
    label: String,
    /// What is in the root directory; `NAME.EXTENSION`.
    names: Vec<String>,
}

impl Floppy {
    /// Opens a floppy; `None` if the image has not the size of one, or nothing that one begins with.
    pub fn open(source: &Source<'_>) -> Result<Option<Self>, MediaError> {
        if !(SMALLEST..=LARGEST).contains(&source.size()) {
            return Ok(None);
        }
        let boot_sector = source.read(0, SECTOR)?;
        let starts = boot_sector[510..] == [0x55, 0xaa];
        let jumps = matches!(boot_sector[0], 0xeb | 0xe9);
        if !starts && !jumps {
            return Ok(None);
        }
        let mut floppy = Self { boot_sector, label: String::new(), names: Vec::new() };
        floppy.read_root(source)?;
        Ok(Some(floppy))
    }

    /// Reads the root directory, if there is a FAT.
    fn read_root(&mut self, source: &Source<'_>) -> Result<(), MediaError> {
        const LABEL: u8 = 0x08;
        const LONG_NAME: u8 = 0x0f;
        const DELETED: u8 = 0xe5;
        let sector = &self.boot_sector;
        let (reserved, fats, entries, of_fat) = (
            u64::from(le16(sector, 14)),
            u64::from(sector[16]),
            usize::from(le16(sector, 17)),
            u64::from(le16(sector, 22)),
        );
        if usize::from(le16(sector, 11)) != SECTOR || !(1..=2).contains(&fats) || reserved == 0 || of_fat == 0 {
            return Ok(());
        }
        let start = (reserved + fats * of_fat) * SECTOR as u64;
        // A floppy's root has up to 240 entries; this is at most 2 MiB.
        let Ok(root) = source.read(start, entries * ENTRY) else {
            return Err(MediaError::Damaged("its root directory lies beyond its end"));
        };
        for entry in root.chunks_exact(ENTRY) {
            match (entry[0], entry[11]) {
                (0, _) => break,
                (DELETED, _) | (_, LONG_NAME) => {}
                (_, attributes) if attributes & LABEL != 0 => self.label = field(&entry[..11]),
                _ => self.names.push(match field(&entry[8..11]) {
                    extension if extension.is_empty() => field(&entry[..8]),
                    extension => format!("{}.{extension}", field(&entry[..8])),
                }),
            }
        }
        Ok(())
    }

    /// What is on it.
    pub fn medium(&self) -> Medium {
        Medium {
            label: self.label.clone(),
            oem: field(&bytes::<8>(&self.boot_sector, 3)),
            bios: self.boot_sector[510..] == [0x55, 0xaa],
            ..Medium::default()
        }
    }

    /// Whether a file or directory is in the root.
    pub fn has(&self, path: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(path))
    }

    /// Whether the boot sector holds a text.
    pub fn boot_sector_holds(&self, text: &str) -> bool {
        !text.is_empty() && self.boot_sector.windows(text.len()).any(|part| part == text.as_bytes())
    }
}
