//! A command as the guest submits it, and the guest memory that it is for (NVMe 1.4 sections 4.2 and 4.3).

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use crate::regions::Regions;

/// A command of 16 double words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Command(pub [u32; 16]);

impl Command {
    /// Reads one; `None`: there is no memory.
    pub fn read(memory: &GuestMemory, address: u64) -> Option<Self> {
        let mut bytes = [0; COMMAND as usize];
        memory.read_slice(&mut bytes, GuestAddress(address)).ok()?;
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Some(Self(words))
    }

    pub fn opcode(&self) -> u8 {
        self.0[0] as u8
    }

    /// What tells it from others.
    pub fn id(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    /// Neither fused, nor with lists of other kinds than PRPs.
    pub fn is_plain(&self) -> bool {
        self.0[0] & 0xc300 == 0
    }

    pub fn namespace(&self) -> u32 {
        self.0[1]
    }

    /// Double words `low` and the next one.
    pub fn wide(&self, low: usize) -> u64 {
        u64::from(self.0[low]) | u64::from(self.0[low + 1]) << 32
    }

    /// The first PRP entry.
    pub fn prp1(&self) -> u64 {
        self.wide(6)
    }

    /// The memory of so many bytes that PRP entries name, with pages of `page` bytes.
    ///
    /// # Errors
    /// The status that the command ends with.
    pub fn regions(&self, memory: &GuestMemory, page: u64, length: u64) -> Result<Regions, u16> {
        let mut regions = Regions::default();
        let (first, second) = (self.prp1(), self.wide(8));
        if length > MOST_BYTES {
            return Err(status::FIELD);
        }
        if first & 3 != 0 {
            return Err(status::PRP_OFFSET);
        }
        let now = (page - first % page).min(length);
        regions.push(first, now as usize);
        let mut left = length - now;
        if left == 0 {
            return Ok(regions);
        }
        if left <= page {
            if !second.is_multiple_of(page) {
                return Err(status::PRP_OFFSET);
            }
            regions.push(second, left as usize);
            return Ok(regions);
        }
        if second & 7 != 0 {
            return Err(status::PRP_OFFSET);
        }
        let mut list = second;
        while left > 0 {
            let entries = (page - list % page) / 8;
            let mut next = None;
            for n in 0..entries {
                let at = list.checked_add(8 * n).ok_or(status::TRANSFER)?;
                let entry: u64 = memory.read_obj(GuestAddress(at)).map_err(|_| status::TRANSFER)?;
                let entry = u64::from_le(entry);
                // The last one of a page leads to more, if there are more.
                if n + 1 == entries && left > page {
                    next = Some(entry);
                    break;
                }
                if !entry.is_multiple_of(page) {
                    return Err(status::PRP_OFFSET);
                }
                let now = page.min(left);
                regions.push(entry, now as usize);
                left -= now;
                if left == 0 {
                    break;
                }
            }
            match next {
                // Lists that go on begin a page, so that each has at least 511 entries.
                Some(entry) if entry.is_multiple_of(page) => list = entry,
                Some(_) => return Err(status::PRP_OFFSET),
                None => break,
            }
        }
        Ok(regions)
    }
}
