//! The table behind both buses: ranges with priorities, flattened into disjoint sorted pieces.
//!
//! [`Ranges`] is the list of what is mapped, changed under a lock; [`Flat`] is what a lookup searches. Fixed ranges of
//! board devices win over ranges that the guest places (PCI BARs), and among equals the older one wins, so a guest that
//! moves a BAR over the I/O APIC hides its own BAR and nothing else.

/// Why a range can't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Its length is zero or its end lies beyond the address space.
    #[error("the range at {base:#x} of {length:#x} bytes does not fit the address space")]
    Bounds {
        /// The first address.
        base: u64,
        /// Bytes or ports.
        length: u64,
    },
    /// A fixed range overlaps another fixed one.
    #[error("the range at {base:#x} of {length:#x} bytes overlaps another device's")]
    Overlap {
        /// The first address.
        base: u64,
        /// Bytes or ports.
        length: u64,
    },
}

/// One mapped range.
#[derive(Clone)]
pub(crate) struct Range<T> {
    id: u64,
    fixed: bool,
    base: u64,
    last: u64,
    value: T,
}

/// All mapped ranges, in no particular order.
pub(crate) struct Ranges<T> {
    ranges: Vec<Range<T>>,
    next_id: u64,
    limit: u64,
}

/// A disjoint piece: `first..=last` belongs to the range that started at `base`.
pub(crate) struct Piece<T> {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) base: u64,
    pub(crate) value: T,
}

/// Disjoint pieces in order of address.
pub(crate) struct Flat<T> {
    pieces: Vec<Piece<T>>,
}

impl<T> Flat<T> {
    pub(crate) fn empty() -> Self {
        Self { pieces: Vec::new() }
    }

    /// The piece that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Piece<T>> {
        let after = self.pieces.partition_point(|piece| piece.first <= address);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        (address <= piece.last).then_some(piece)
    }

    /// All pieces, in order.
    pub(crate) fn pieces(&self) -> &[Piece<T>] {
        &self.pieces
    }
}

impl<T: Clone> Ranges<T> {
    /// No ranges, in an address space whose last address is `limit`.
    pub(crate) fn new(limit: u64) -> Self {
        Self { ranges: Vec::new(), next_id: 0, limit }
    }

    fn bounds(&self, base: u64, length: u64) -> Result<u64, MapError> {
        let last = length.checked_sub(1).and_then(|length| base.checked_add(length));
        last.filter(|last| *last <= self.limit).ok_or(MapError::Bounds { base, length })
    }

    /// Adds a range and returns its number.
    pub(crate) fn add(&mut self, fixed: bool, base: u64, length: u64, value: T) -> Result<u64, MapError> {
        let last = self.bounds(base, length)?;
        if fixed && self.ranges.iter().any(|other| other.fixed && other.base <= last && base <= other.last) {
            return Err(MapError::Overlap { base, length });
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ranges.push(Range { id, fixed, base, last, value });
        Ok(id)
    }

    /// Removes a range, if it is still there.
    pub(crate) fn remove(&mut self, id: u64) {
        self.ranges.retain(|range| range.id != id);
    }

    /// The disjoint pieces.
    pub(crate) fn flatten(&self) -> Flat<T> {
        let mut order: Vec<&Range<T>> = self.ranges.iter().collect();
        order.sort_by_key(|range| (!range.fixed, range.id));
        let mut pieces: Vec<Piece<T>> = Vec::new();
        for range in order {
            // Fill the gaps that the pieces so far (sorted) leave within this range.
            let mut cursor = Some(range.base);
            let mut gaps = Vec::new();
            for piece in &pieces {
                let Some(from) = cursor.filter(|from| *from <= range.last) else { break };
                if piece.last < from {
                    continue;
                }
                if piece.first > range.last {
                    break;
                }
                if piece.first > from {
                    gaps.push((from, piece.first - 1));
                }
                cursor = piece.last.checked_add(1);
            }
            if let Some(from) = cursor.filter(|from| *from <= range.last) {
                gaps.push((from, range.last));
            }
            let new = gaps.into_iter();
            pieces.extend(new.map(|(first, last)| Piece { first, last, base: range.base, value: range.value.clone() }));
            pieces.sort_by_key(|piece| piece.first);
        }
        Flat { pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(ranges: &Ranges<char>) -> Vec<(u64, u64, u64, char)> {
        ranges.flatten().pieces().iter().map(|p| (p.first, p.last, p.base, p.value)).collect()
    }

    #[test]
    fn fixed_ranges_win_and_split_movable_ones() {
        let mut ranges = Ranges::new(u64::MAX);
        ranges.add(false, 0, 100, 'a').unwrap();
        ranges.add(true, 10, 10, 'b').unwrap();
        ranges.add(false, 15, 100, 'c').unwrap();
        assert_eq!(shape(&ranges), [(0, 9, 0, 'a'), (10, 19, 10, 'b'), (20, 99, 0, 'a'), (100, 114, 15, 'c')]);
        let flat = ranges.flatten();
        assert_eq!(flat.find(9).map(|p| p.value), Some('a'));
        assert_eq!(flat.find(114).map(|p| p.value), Some('c'));
        assert!(flat.find(115).is_none());
    }

    #[test]
    fn removal_uncovers_what_was_hidden() {
        let mut ranges = Ranges::new(0xffff);
        let old = ranges.add(false, 0x100, 0x10, 'a').unwrap();
        ranges.add(false, 0x100, 0x10, 'b').unwrap();
        assert_eq!(shape(&ranges), [(0x100, 0x10f, 0x100, 'a')]);
        ranges.remove(old);
        assert_eq!(shape(&ranges), [(0x100, 0x10f, 0x100, 'b')]);
    }

    #[test]
    fn bounds_and_overlaps_are_refused() {
        let mut ranges = Ranges::new(0xffff);
        assert_eq!(ranges.add(true, 0xfff0, 0x11, ' '), Err(MapError::Bounds { base: 0xfff0, length: 0x11 }));
        assert_eq!(ranges.add(true, 0, 0, ' '), Err(MapError::Bounds { base: 0, length: 0 }));
        ranges.add(true, 0xfff0, 0x10, ' ').unwrap();
        assert_eq!(ranges.add(true, 0xffff, 1, ' '), Err(MapError::Overlap { base: 0xffff, length: 1 }));
    }

    #[test]
    fn the_last_address_of_the_space_can_be_mapped() {
        let mut ranges = Ranges::new(u64::MAX);
        ranges.add(false, u64::MAX, 1, 'x').unwrap();
        ranges.add(false, 0, u64::MAX, 'y').unwrap();
        assert_eq!(shape(&ranges), [(0, u64::MAX - 1, 0, 'y'), (u64::MAX, u64::MAX, u64::MAX, 'x')]);
    }
}
