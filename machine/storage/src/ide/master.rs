//! A channel's bus master, and the guest's table of regions that it works through (82371SB section 3.5).

use lodge_engine_api::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;

/// Most regions of one table: it must not cross a 64 KiB boundary.
const MOST_REGIONS: usize = 8192;

/// The bus master's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Master {
    /// Command.
    pub command: u8,
    /// Status.
    pub status: u8,
    /// Where the table is.
    pub table: u32,
}

/// Where data go to or come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    list: Vec<(u64, usize)>,
    at: usize,
    /// Bytes of the present region that are done.
    done: usize,
}

impl Master {
    /// A register's byte.
    pub fn read(&self, offset: u16) -> u8 {
        match offset {
            MASTER_COMMAND => self.command,
            MASTER_STATUS => self.status,
            MASTER_TABLE.. => self.table.to_le_bytes()[usize::from(offset - MASTER_TABLE) & 3],
            _ => 0,
        }
    }

    /// Writes a register's byte; whether the master has been started.
    pub fn write(&mut self, offset: u16, value: u8) -> bool {
        match offset {
            MASTER_COMMAND => {
                let starts = value & !self.command & MASTER_START != 0;
                self.command = value & (MASTER_START | MASTER_TO_MEMORY);
                if starts {
                    self.status |= MASTER_ACTIVE;
                } else if value & MASTER_START == 0 {
                    self.status &= !MASTER_ACTIVE;
                }
                return starts;
            }
            MASTER_STATUS => {
                let cleared = value & (MASTER_ERROR | MASTER_INTERRUPT);
                self.status = self.status & !cleared & !MASTER_CAPABLE | value & MASTER_CAPABLE;
            }
            MASTER_TABLE.. => {
                let mut bytes = self.table.to_le_bytes();
                bytes[usize::from(offset - MASTER_TABLE) & 3] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
        false
    }

    /// Whether it waits for a drive.
    pub fn is_started(&self) -> bool {
        self.command & MASTER_START != 0
    }

    /// A transfer has ended; `exhausted`: so have the regions.
    pub fn finish(&mut self, exhausted: bool, failed: bool) {
        self.status |= MASTER_INTERRUPT;
        if exhausted || failed {
            self.status &= !MASTER_ACTIVE;
        }
        if failed {
            self.status |= MASTER_ERROR;
        }
    }
}

impl Regions {
    /// Reads the table; `None`: it is not in memory.
    pub fn read(memory: &GuestMemory, table: u32) -> Option<Self> {
        let mut list = Vec::new();
        for n in 0..MOST_REGIONS {
            let mut entry = [0; 8];
            memory.read_slice(&mut entry, GuestAddress(u64::from(table) + 8 * n as u64)).ok()?;
            let [b0, b1, b2, b3, l0, l1, f0, f1] = entry;
            let length = match u16::from_le_bytes([l0, l1]) & !1 {
                0 => 0x1_0000,
                length => usize::from(length),
            };
            list.push((u64::from(u32::from_le_bytes([b0, b1, b2, b3]) & !1), length));
            if u16::from_le_bytes([f0, f1]) & TABLE_END != 0 {
                break;
            }
        }
        Some(Self { list, at: 0, done: 0 })
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.list[self.at..].iter().map(|(_, length)| length).sum::<usize>() - self.done
    }

    /// Calls `each` with addresses and lengths of the next `length` bytes; whether it went well for all, and there were so
    /// many.
    fn walk(&mut self, mut length: usize, mut each: impl FnMut(GuestAddress, usize, usize) -> bool) -> bool {
        let mut from = 0;
        while length > 0 {
            let Some(&(base, whole)) = self.list.get(self.at) else { return false };
            let count = length.min(whole - self.done);
            if !each(GuestAddress(base + self.done as u64), from, count) {
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
        let table: [u8; 16] = [0, 0x10, 0, 0, 6, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x80];
        memory.write_slice(&table, GuestAddress(0x100)).unwrap();
        let mut regions = Regions::read(&memory, 0x100).unwrap();
        assert_eq!(regions.left(), 6 + 0x1_0000);
        assert!(regions.fill(&memory, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(regions.left(), 0xfffe);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x1004)).unwrap(), [5, 6]);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(0x2000)).unwrap(), [7, 8]);
        let mut again = Regions::read(&memory, 0x100).unwrap();
        let mut data = [0; 8];
        assert!(again.drain(&memory, &mut data));
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!again.drain(&memory, &mut vec![0; 0x1_0000]), "there are not so many");
        assert_eq!(Regions::read(&memory, 0xffff_fff8), None);
    }

    #[test]
    fn status_bits_are_cleared_by_ones() {
        let mut master = Master::default();
        assert!(master.write(MASTER_COMMAND, MASTER_START) && !master.write(MASTER_COMMAND, MASTER_START));
        assert_eq!(master.status, MASTER_ACTIVE);
        master.finish(true, false);
        master.write(MASTER_STATUS, MASTER_CAPABLE);
        assert_eq!(master.status, MASTER_INTERRUPT | MASTER_CAPABLE);
        master.write(MASTER_STATUS, MASTER_INTERRUPT);
        assert_eq!(master.status, 0);
        for (n, byte) in [0x47, 0x33, 0x22, 0x11].into_iter().enumerate() {
            master.write(MASTER_TABLE + n as u16, byte);
        }
        assert_eq!((master.table, master.read(MASTER_TABLE + 3)), (0x1122_3344, 0x11));
    }
}
