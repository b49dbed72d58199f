//! A channel's bus master, and the guest's table of regions that it works through (82371SB section 3.5).

use lodge_engine_api::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use crate::regions::Regions;

/// Most regions of one table: it must not cross a 64 KiB boundary.
const MOST_REGIONS: u64 = 8192;

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

/// Reads a table of regions; `None`: it is not in memory.
pub(super) fn regions(memory: &GuestMemory, table: u32) -> Option<Regions> {
    let mut regions = Regions::default();
    for n in 0..MOST_REGIONS {
        let mut entry = [0; 8];
        memory.read_slice(&mut entry, GuestAddress(u64::from(table) + 8 * n)).ok()?;
        let [b0, b1, b2, b3, l0, l1, f0, f1] = entry;
        let length = match u16::from_le_bytes([l0, l1]) & !1 {
            0 => 0x1_0000,
            length => usize::from(length),
        };
        regions.push(u64::from(u32::from_le_bytes([b0, b1, b2, b3]) & !1), length);
        if u16::from_le_bytes([f0, f1]) & TABLE_END != 0 {
            break;
        }
    }
    Some(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_to_its_end() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let table: [u8; 16] = [0, 0x10, 0, 0, 6, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x80];
        memory.write_slice(&table, GuestAddress(0x100)).unwrap();
        assert_eq!(regions(&memory, 0x100).unwrap().left(), 6 + 0x1_0000);
        assert_eq!(regions(&memory, 0xffff_fff8), None);
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
