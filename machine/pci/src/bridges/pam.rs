//! The i440FX's programmable attribute map: what the processor reaches between 0xc0000 and 1 MiB (82441FX 3.2.17).
//!
//! Each of 13 segments has a bit for reads and one for writes that says whether they reach memory or PCI. Where a system has
//! its BIOS, memory that reads do not reach would be the ROM's, of which it holds a copy from the first: there
//! reads always reach memory. Elsewhere, memory that is only written reads as what was written, and not as nothing.

use std::ops::Range;

use lodge_bus::{MemoryChange, Reach};

/// Bytes of the map.
pub const LENGTH: usize = 7;
const READ: u8 = 1;
const WRITE: u8 = 2;
/// Where the BIOS's own segments begin.
const BIOS: u64 = 0xe_0000;

/// The segments: byte and shift of their bits, and where they lie.
fn segments() -> impl Iterator<Item = (usize, u8, Range<u64>)> {
    let small = (0..12u64).map(|n| {
        let start = 0xc_0000 + n * 0x4000;
        (1 + n as usize / 2, 4 * (n % 2) as u8, start..start + 0x4000)
    });
    small.chain(std::iter::once((0, 4, 0xf_0000..0x10_0000)))
}

fn reach(bits: u8, start: u64) -> Reach {
    let read = bits & READ != 0 || start >= BIOS;
    match (read, bits & WRITE != 0) {
        (_, true) => Reach::Memory,
        (true, false) => Reach::ReadOnly,
        (false, false) => Reach::Devices,
    }
}

/// What changes when the map does.
pub fn changes(before: [u8; LENGTH], after: [u8; LENGTH]) -> Vec<MemoryChange> {
    segments()
        .filter_map(|(byte, shift, range)| {
            let bits = |map: [u8; LENGTH]| map[byte] >> shift & (READ | WRITE);
            let (old, new) = (reach(bits(before), range.start), reach(bits(after), range.start));
            (old != new).then_some(MemoryChange::Reach { range, reach: new })
        })
        .collect()
}

/// The map with all segments writable whose reads reach memory.
pub fn unlocked(map: [u8; LENGTH]) -> [u8; LENGTH] {
    const READS: u8 = READ << 4 | READ;
    map.map(|bits| bits | ((bits & READS) * WRITE))
}

/// What the map of a machine with firmware says at power-on: nothing reaches memory but reads of the BIOS.
pub fn at_power_on() -> Vec<MemoryChange> {
    segments().map(|(_, _, range)| MemoryChange::Reach { reach: reach(0, range.start), range }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(range: Range<u64>, reach: Reach) -> MemoryChange {
        MemoryChange::Reach { range, reach }
    }

    #[test]
    fn segments_are_where_the_data_sheet_has_them() {
        let all: Vec<_> = segments().collect();
        assert_eq!(all[0], (1, 0, 0xc_0000..0xc_4000));
        assert_eq!(all[3], (2, 4, 0xc_c000..0xd_0000));
        assert_eq!(all[11], (6, 4, 0xe_c000..0xf_0000));
        assert_eq!(all[12], (0, 4, 0xf_0000..0x10_0000));
        let power_on = at_power_on();
        assert_eq!(power_on.len(), 13);
        assert_eq!(power_on[7], change(0xd_c000..0xe_0000, Reach::Devices));
        assert_eq!(power_on[8], change(0xe_0000..0xe_4000, Reach::ReadOnly));
    }

    #[test]
    fn what_is_shadowed_is_unlocked() {
        assert_eq!(unlocked([0x10, 0x01, 0x11, 0x31, 0x22, 0x00, 0x33]), [0x30, 0x03, 0x33, 0x33, 0x22, 0x00, 0x33]);
    }

    #[test]
    fn only_what_differs_changes() {
        let mut map = [0; LENGTH];
        assert_eq!(changes([0; LENGTH], map), []);
        map[0] = 0x30;
        map[1] = 0x10;
        let expected = [change(0xc_4000..0xc_8000, Reach::ReadOnly), change(0xf_0000..0x10_0000, Reach::Memory)];
        assert_eq!(changes([0; LENGTH], map), expected);
        let mut locked = map;
        locked[0] = 0x10;
        assert_eq!(changes(map, locked), [change(0xf_0000..0x10_0000, Reach::ReadOnly)]);
        // Written, but not read: not told apart from both.
        map[1] = 0x30;
        locked[1] = 0x20;
        locked[0] = 0x30;
        assert_eq!(changes(map, locked), []);
    }
}
