//! What drives say of themselves: 256 words (ATA/ATAPI-7 6.17, 6.18).

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

/// What a drive has been set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Sectors that move at a time; 0: that has not been set.
    pub multiple: u8,
    /// Heads and sectors of a track by which the host numbers sectors.
    pub geometry: (u16, u16),
    /// The transfer mode that was set last (SET FEATURES 03h).
    pub mode: u8,
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
    fn common(&mut self, serial: &str, model: &str, settings: &Settings) {
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
        // The 80-wire cable is there.
        self.0[93] = 0x6001 | 0x2000;
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
pub fn disk(serial: &str, sectors: u64, settings: &Settings) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.common(serial, "lodge hard disk", settings);
    let (heads, per_track) = settings.geometry;
    let now = (sectors / u64::from(heads.max(1) * per_track.max(1))).min(65535) as u16;
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
    // A write cache; 48-bit numbers, FLUSH CACHE and its longer form.
    (words.0[82], words.0[83], words.0[84]) = (0x4020, 0x7400, 0x4000);
    (words.0[85], words.0[86], words.0[87]) = (0x4020, 0x3400, 0x4000);
    words.number(100, 4, sectors);
    words.bytes()
}

/// IDENTIFY PACKET DEVICE, of a CD drive.
pub fn cd(serial: &str, settings: &Settings) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.common(serial, "lodge DVD-ROM", settings);
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
        let settings = Settings { multiple: 8, geometry: (HEADS, SECTORS), mode: 0x45 };
        let bytes = disk("SN1", 0x1_2345_6789, &settings);
        assert_eq!(bytes.len(), 512);
        assert_eq!((word(&bytes, 1), word(&bytes, 60), word(&bytes, 61)), (16383, 0xffff, 0x0fff));
        assert_eq!([100, 101, 102].map(|n| word(&bytes, n)), [0x6789, 0x2345, 1]);
        assert_eq!(word(&bytes, 59), 0x108);
        assert_eq!(word(&bytes, 88), 0x203f, "mode 5 of Ultra DMA");
        assert_eq!(&bytes[20..24], b"NS 1", "bytes are swapped");
        let small = disk("", 1000 * 1008, &settings);
        assert_eq!((word(&small, 1), word(&small, 54)), (1000, 1000));
    }

    #[test]
    fn a_cd_drive_is_one() {
        let bytes = cd("SN2", &Settings { mode: 0x22, ..Settings::default() });
        assert_eq!((word(&bytes, 0), word(&bytes, 63), word(&bytes, 88)), (0x85c0, 0x407, 0x3f));
    }
}
