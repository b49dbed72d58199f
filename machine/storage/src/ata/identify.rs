//! What drives say of themselves: 256 words (ATA/ATAPI-7 6.17, 6.18; ACS-2 7.12 for what SATA and TRIM add).

use serde::{Deserialize, Serialize};

/// Sectors in a track and heads, as every drive claims.
pub const SECTORS: u16 = 63;
/// See [`SECTORS`].
pub const HEADS: u16 = 16;
/// Most cylinders that fit.
const MOST_CYLINDERS: u64 = 16383;
/// Most sectors that 28 bits can number.
const MOST_28: u64 = 0x0fff_ffff;
/// Most sectors that move at a time.
pub const MULTIPLE: u8 = 16;
/// Most blocks of 512 bytes with ranges that TRIM takes.
pub const TRIM_BLOCKS: u16 = 8;
/// Queued commands.
pub const QUEUE: u16 = 32;

/// What a drive has been set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Sectors that move at a time; 0: that has not been set.
    pub multiple: u8,
    /// Heads and sectors of a track by which the host numbers sectors.
    pub geometry: (u16, u16),
    /// The transfer mode that was set last (SET FEATURES 03h).
    pub mode: u8,
    /// Writes may be in a cache when they end.
    pub write_cache: bool,
    /// Data are read ahead.
    pub read_ahead: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { multiple: 0, geometry: (HEADS, SECTORS), mode: 0, write_cache: true, read_ahead: true }
    }
}

impl Settings {
    /// Whether a drive could have been set so.
    pub fn is_sound(&self) -> bool {
        let (heads, per_track) = self.geometry;
        let counted = self.multiple == 0 || self.multiple.is_power_of_two() && self.multiple <= MULTIPLE;
        counted && (1..=16).contains(&heads) && (1..=255).contains(&per_track)
    }
}

struct Words([u16; 256]);

impl Words {
    /// Text, padded with blanks, with the bytes of each word swapped.
    fn text(&mut self, first: usize, count: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for word in &mut self.0[first..first + count] {
            let mut next = || u16::from(bytes.next().unwrap_or(b' '));
            *word = next() << 8 | next();
        }
    }

    fn number(&mut self, first: usize, count: usize, value: u64) {
        for (n, word) in self.0[first..first + count].iter_mut().enumerate() {
            *word = (value >> (16 * n)) as u16;
        }
    }

    /// Who it is, and what both kinds of drive can do.
    fn common(&mut self, serial: &str, model: &str, settings: &Settings, sata: bool) {
        self.text(10, 10, serial);
        self.text(23, 4, env!("CARGO_PKG_VERSION"));
        self.text(27, 20, model);
        // LBA, DMA, IORDY, which can be switched off.
        self.0[49] = 0x0f00;
        self.0[53] = 0x0007;
        let chosen = |kind: u8| if settings.mode >> 3 == kind { 0x100 << (settings.mode & 7) } else { 0 };
        self.0[63] = 0x0007 | chosen(0x20 >> 3);
        // PIO modes 3 and 4, 120 ns each.
        self.0[64] = 0x0003;
        self.0[65..69].fill(120);
        // ATA-4 to ATA-7.
        self.0[80] = 0x00f0;
        self.0[88] = 0x003f | chosen(0x40 >> 3);
        if sata {
            // 1.5, 3 and 6 Gb/s.
            self.0[76] = 0x000e;
            self.0[80] = 0x01f0;
        } else {
            // The 80-wire cable is there.
            self.0[93] = 0x6001;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Cylinders of a disk of so many sectors.
pub fn cylinders(sectors: u64) -> u16 {
    (sectors / u64::from(HEADS * SECTORS)).clamp(1, MOST_CYLINDERS) as u16
}

/// IDENTIFY DEVICE.
pub fn disk(serial: &str, sectors: u64, settings: &Settings, sata: bool) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.common(serial, "lodge hard disk", settings, sata);
    let (heads, per_track) = settings.geometry;
    let now = (sectors / (u64::from(heads.max(1)) * u64::from(per_track.max(1)))).min(65535) as u16;
    words.0[0] = 0x0040;
    (words.0[1], words.0[3], words.0[6]) = (cylinders(sectors), HEADS, SECTORS);
    words.0[47] = 0x8000 | u16::from(MULTIPLE);
    words.0[50] = 0x4000;
    words.0[51] = 0x0200;
    (words.0[54], words.0[55], words.0[56]) = (now, heads, per_track);
    words.number(57, 2, u64::from(now) * u64::from(heads) * u64::from(per_track));
    if settings.multiple != 0 {
        words.0[59] = 0x100 | u16::from(settings.multiple);
    }
    words.number(60, 2, sectors.min(MOST_28));
    // NOP, read ahead, a write cache, power management; 48-bit numbers, FLUSH CACHE and its longer form; FUA, and logs.
    let extended = if sata { 0x4060 } else { 0x4040 };
    (words.0[82], words.0[83], words.0[84]) = (0x4068, 0x7400, extended);
    let enabled = 0x4008 | if settings.write_cache { 0x20 } else { 0 } | if settings.read_ahead { 0x40 } else { 0 };
    (words.0[85], words.0[86], words.0[87]) = (enabled, 0x3400, extended);
    words.number(100, 4, sectors);
    if sata {
        words.0[75] = QUEUE - 1;
        words.0[76] |= 0x100;
    }
    // TRIM; nothing rotates.
    (words.0[105], words.0[169], words.0[217]) = (TRIM_BLOCKS, 1, 1);
    words.bytes()
}

/// IDENTIFY PACKET DEVICE, of a CD drive.
pub fn cd(serial: &str, settings: &Settings, sata: bool) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.common(serial, "lodge DVD-ROM", settings, sata);
    // Packets of 12 bytes, DRQ within 50 us, removable, a CD drive.
    words.0[0] = 0x85c0;
    (words.0[82], words.0[83], words.0[84]) = (0x0010, 0x4000, 0x4000);
    (words.0[85], words.0[86], words.0[87]) = (0x0010, 0x0000, 0x4000);
    words.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], n: usize) -> u16 {
        u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]])
    }

    #[test]
    fn a_disk_says_its_size() {
        let settings = Settings { multiple: 8, geometry: (HEADS, SECTORS), mode: 0x45, ..Settings::default() };
        let bytes = disk("SN1", 0x1_2345_6789, &settings, false);
        assert_eq!(bytes.len(), 512);
        assert_eq!((word(&bytes, 1), word(&bytes, 60), word(&bytes, 61)), (16383, 0xffff, 0x0fff));
        assert_eq!([100, 101, 102].map(|n| word(&bytes, n)), [0x6789, 0x2345, 1]);
        assert_eq!(word(&bytes, 59), 0x108);
        assert_eq!(word(&bytes, 88), 0x203f, "mode 5 of Ultra DMA");
        assert_eq!(&bytes[20..24], b"NS 1", "bytes are swapped");
        let small = disk("", 1000 * 1008, &settings, true);
        assert_eq!((word(&small, 1), word(&small, 54)), (1000, 1000));
        assert_eq!((word(&bytes, 76), word(&bytes, 93), word(&small, 75), word(&small, 76)), (0, 0x6001, 31, 0x10e));
        assert_eq!((word(&small, 85), word(&small, 169)), (0x4068, 1));
    }

    #[test]
    fn a_cd_drive_is_one() {
        let bytes = cd("SN2", &Settings { mode: 0x22, ..Settings::default() }, false);
        assert_eq!((word(&bytes, 0), word(&bytes, 63), word(&bytes, 88)), (0x85c0, 0x407, 0x3f));
    }
}
