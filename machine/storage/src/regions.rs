//! Regions of guest memory that data go to or come from, one after the other: what the tables of all controllers come to.

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// Where data go to or come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regions {
    list: Vec<(u64, usize)>,
    at: usize,
    /// Bytes of the present region that are done.
    done: usize,
}

impl Regions {
    /// One more region, of so many bytes, behind the others.
    pub fn push(&mut self, address: u64, length: usize) {
        if length == 0 {
            return;
        }
        match self.list.last_mut() {
            // One that goes on where the last one ends is the same.
            Some((base, so_far)) if base.checked_add(*so_far as u64) == Some(address) && *so_far < 1 << 30 => {
                *so_far += length;
            }
            _ => self.list.push((address, length)),
        }
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        let all: u64 = self.list[self.at.min(self.list.len())..].iter().map(|(_, length)| *length as u64).sum();
        all - self.done as u64
    }

    /// Calls `each` with addresses and lengths of the next `length` bytes; whether it went well for all, and there were so
    /// many.
    fn walk(&mut self, mut length: usize, mut each: impl FnMut(GuestAddress, usize, usize) -> bool) -> bool {
        let mut from = 0;
        while length > 0 {
            let Some(&(base, whole)) = self.list.get(self.at) else { return false };
            let count = length.min(whole - self.done);
            let Some(address) = base.checked_add(self.done as u64) else { return false };
            if !each(GuestAddress(address), from, count) {
                return false;
            }
            self.done += count;
            from += count;
            length -= count;
            if self.done == whole {
                (self.at, self.done) = (self.at + 1, 0);
            }
        }
        true
    }

    /// Copies to the regions.
    pub fn fill(&mut self, memory: &GuestMemory, data: &[u8]) -> bool {
        self.walk(data.len(), |at, from, count| memory.write_slice(&data[from..from + count], at).is_ok())
    }

    /// Copies from the regions.
    pub fn drain(&mut self, memory: &GuestMemory, data: &mut [u8]) -> bool {
        let length = data.len();
        self.walk(length, |at, from, count| memory.read_slice(&mut data[from..from + count], at).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_worked_through_in_order() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut regions = Regions::default();
        regions.push(0x1000, 6);
        regions.push(0x2000, 0x1_0000);
        let mut again = regions.clone();
        assert_eq!(regions.left(), 6 + 0x1_0000);
        assert!(regions.fill(&memory, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(regions.left(), 0xfffe);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x1004)).unwrap(), [5, 6]);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x2000)).unwrap(), [7, 8]);
        let mut data = [0; 8];
        assert!(again.drain(&memory, &mut data));
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!again.drain(&memory, &mut vec![0; 0x1_0000]), "there are not so many");
        let mut nowhere = Regions::default();
        nowhere.push(u64::MAX - 1, 8);
        assert!(!nowhere.fill(&memory, &[0; 8]));
        // Neighbours are one.
        let mut joined = Regions::default();
        (0..4).for_each(|n| joined.push(0x1000 * n, 0x1000));
        assert_eq!(joined.list.len(), 1);
    }
}
