//! Formats of floppies, told by their size.

use std::path::{Path, PathBuf};

/// How a floppy is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors of 512 bytes in a track.
    pub sectors: u8,
    /// Data rates at which drives read it: bit n is for rate n of the data rate select register.
    pub rates: u8,
}

/// Data rates (82077AA table 2-5).
mod rate {
    pub const K500: u8 = 1 << 0;
    pub const K300: u8 = 1 << 1;
    pub const K250: u8 = 1 << 2;
    pub const M1: u8 = 1 << 3;
}

const DOUBLE: u8 = rate::K250 | rate::K300;

/// All formats, cylinders, sides, sectors, rates.
const FORMATS: &[(u8, u8, u8, u8)] = &[
    (80, 2, 18, rate::K500),
    (80, 2, 36, rate::M1),
    (80, 2, 9, rate::K250),
    (80, 2, 15, rate::K500),
    (40, 2, 9, DOUBLE),
    (40, 2, 8, DOUBLE),
    (40, 1, 9, DOUBLE),
    (40, 1, 8, DOUBLE),
    // Formatted with more than usual.
    (80, 2, 10, rate::K250),
    (80, 2, 20, rate::K500),
    (80, 2, 21, rate::K500),
    (82, 2, 21, rate::K500),
    (83, 2, 21, rate::K500),
    (80, 2, 39, rate::M1),
];

/// An image has a size that no format has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the floppy {path} has {bytes} bytes, which no format has (360 KiB, 720 KiB, 1200 KiB, 1440 KiB, 2880 KiB and others); {}",
    remedy(.path, *.bytes)
)]
pub struct FloppyError {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// KiB of the formats that short images are made as large as: the commonest, and the largest that is common.
const COMMON: [u64; 2] = [1440, 2880];

/// What to do about an image of another size, which is never to cut something off.
fn remedy(path: &Path, bytes: u64) -> String {
    match COMMON.iter().find(|kib| bytes <= *kib << 10) {
        Some(kib) => format!("make it as large with `truncate -s {kib}K {}`", path.display()),
        None => "this is no floppy's image; attach it as a disk with --disk".into(),
    }
}

impl Geometry {
    /// The format of an image in a file.
    ///
    /// # Errors
    /// No format has so many bytes.
    pub fn of_file(path: &Path, bytes: u64) -> Result<Self, FloppyError> {
        Self::of(bytes).ok_or_else(|| FloppyError { path: path.to_owned(), bytes })
    }

    /// The format of a floppy with so many bytes.
    pub fn of(bytes: u64) -> Option<Self> {
        let formats =
            FORMATS.iter().map(|&(cylinders, heads, sectors, rates)| Self { cylinders, heads, sectors, rates });
        formats.into_iter().find(|format| format.bytes() == bytes)
    }

    /// Bytes on it.
    pub fn bytes(&self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * 512
    }

    /// Where a sector's bytes begin; sectors are numbered from 1 on.
    pub fn offset(&self, cylinder: u8, head: u8, sector: u8) -> Option<u64> {
        let there = cylinder < self.cylinders && head < self.heads && (1..=self.sectors).contains(&sector);
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        there.then(|| (track * u64::from(self.sectors) + u64::from(sector) - 1) * 512)
    }

    /// The kind of drive that reads it, as CMOS memory has it (Ralf Brown, CMOS 10h).
    pub fn drive(&self) -> u8 {
        match (self.cylinders, self.sectors) {
            (40, _) => 1,
            (_, 15) => 2,
            (_, 9 | 10) => 3,
            (_, 36..) => 5,
            _ => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_size() {
        for (kib, sectors, drive) in
            [(360, 9, 1), (720, 9, 3), (1200, 15, 2), (1440, 18, 4), (2880, 36, 5), (1680, 21, 4)]
        {
            let geometry = Geometry::of(kib << 10).unwrap();
            assert_eq!((geometry.sectors, geometry.drive()), (sectors, drive), "{kib}");
        }
        assert_eq!(Geometry::of(1 << 20), None);
        let sizes: std::collections::BTreeSet<_> = FORMATS.iter().map(|f| (f.0, f.1, f.2)).collect();
        assert_eq!(sizes.len(), FORMATS.len());
    }

    #[test]
    fn what_to_do_about_an_image_of_another_size_loses_nothing() {
        for (bytes, remedy) in [
            (0, "make it as large with `truncate -s 1440K a.img`"),
            (1_000_001, "make it as large with `truncate -s 1440K a.img`"),
            ((1440 << 10) + 1, "make it as large with `truncate -s 2880K a.img`"),
            ((2880 << 10) - 1, "make it as large with `truncate -s 2880K a.img`"),
            ((2880 << 10) + 1, "this is no floppy's image; attach it as a disk with --disk"),
        ] {
            let text = Geometry::of_file(Path::new("a.img"), bytes).unwrap_err().to_string();
            assert!(text.ends_with(remedy) && text.contains(&format!("a.img has {bytes} bytes")), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn sectors_lie_one_behind_the_other() {
        let geometry = Geometry::of(1440 << 10).unwrap();
        assert_eq!(geometry.offset(0, 0, 1), Some(0));
        assert_eq!(geometry.offset(0, 1, 1), Some(18 * 512));
        assert_eq!(geometry.offset(79, 1, 18), Some((1440 << 10) - 512));
        for (cylinder, head, sector) in [(80, 0, 1), (0, 2, 1), (0, 0, 0), (0, 0, 19)] {
            assert_eq!(geometry.offset(cylinder, head, sector), None);
        }
    }
}
