//! Commands of disks (SBC-3 chapter 5).

use lodge_backend::{Disk, SECTOR};

use super::registers::{MOST_BLOCKS, MOST_RANGES, MOST_SAME, MOST_UNMAPPED, READ_CAPACITY_16, code};
use super::{Action, LONGEST, Sense, Unit, give, huge, long, word};

/// READ and WRITE: to the medium, not to a cache.
const FUA: u8 = 0x08;
/// WRITE SAME: space may be freed.
const UNMAP: u8 = 0x08;
/// WRITE SAME: the block is one of zeroes, and is not sent.
const NO_DATA: u8 = 0x01;

impl Unit {
    /// A command of a disk.
    pub(super) fn block(&self, disk: &dyn Disk, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        let (first, count) = blocks(command);
        match command[0] {
            code::READ_6 | code::READ_10 | code::READ_12 | code::READ_16 => {
                plain(command)?;
                let (offset, length) = moved(disk, first, count)?;
                Ok(if length == 0 { Action::Done } else { Action::Read { offset, length } })
            }
            code::WRITE_6
            | code::WRITE_10
            | code::WRITE_12
            | code::WRITE_16
            | code::WRITE_VERIFY_10
            | code::WRITE_VERIFY_12
            | code::WRITE_VERIFY_16 => {
                plain(command)?;
                writable(disk)?;
                let (offset, length) = moved(disk, first, count)?;
                let verified =
                    matches!(command[0], code::WRITE_VERIFY_10 | code::WRITE_VERIFY_12 | code::WRITE_VERIFY_16);
                let forced = command[0] != code::WRITE_6 && command[1] & FUA != 0;
                let durable = verified || forced || !self.state().write_cache;
                Ok(if length == 0 { Action::Done } else { Action::Write { offset, length, durable } })
            }
            code::VERIFY_10 | code::VERIFY_12 | code::VERIFY_16 => {
                // With data to compare it is not there.
                if command[1] & 0x06 != 0 {
                    return Err(Sense::BAD_FIELD);
                }
                plain(command)?;
                range(disk, first, count).map(|_| Action::Done)
            }
            code::SYNCHRONIZE_10 | code::SYNCHRONIZE_16 => {
                range(disk, first, count)?;
                Ok(Action::Flush)
            }
            code::SEEK_6 | code::SEEK_10 => range(disk, first, 0).map(|_| Action::Done),
            code::REZERO => Ok(Action::Done),
            code::READ_CAPACITY => {
                let last = (disk.size() / SECTOR).saturating_sub(1);
                let last = u32::try_from(last).unwrap_or(u32::MAX);
                Ok(Action::Give([last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat()))
            }
            code::SERVICE_IN if command[1] & 0x1f == READ_CAPACITY_16 => {
                let mut bytes = vec![0; 32];
                bytes[..8].copy_from_slice(&(disk.size() / SECTOR).saturating_sub(1).to_be_bytes());
                bytes[8..12].copy_from_slice(&(SECTOR as u32).to_be_bytes());
                // Thin; the host's pages are as large as eight blocks.
                (bytes[13], bytes[14]) = (3, 0x80);
                Ok(give(bytes, long(command, 10) as usize))
            }
            code::UNMAP => {
                // With an anchor it is not there.
                if command[1] & 1 != 0 {
                    return Err(Sense::BAD_FIELD);
                }
                writable(disk)?;
                Ok(match word(command, 7) {
                    0 => Action::Done,
                    length => Action::Parameters(length),
                })
            }
            code::WRITE_SAME_10 | code::WRITE_SAME_16 => {
                // Neither an anchor nor the old forms that number blocks.
                if command[1] & 0xf6 != 0 || command[0] == code::WRITE_SAME_10 && command[1] & NO_DATA != 0 {
                    return Err(Sense::BAD_FIELD);
                }
                writable(disk)?;
                if command[1] & NO_DATA != 0 {
                    return write_same(disk, command, &[0; SECTOR as usize]);
                }
                same(disk, command)?;
                Ok(Action::Parameters(SECTOR as usize))
            }
            _ => Err(Sense::UNKNOWN_COMMAND),
        }
    }
}

/// The blocks that a command names: the first, and how many.
fn blocks(command: &[u8; LONGEST]) -> (u64, u64) {
    match command[0] >> 5 {
        0 => {
            let first = long(command, 0) & 0x1f_ffff;
            (first, if command[4] == 0 { 256 } else { command[4].into() })
        }
        1 | 2 => (long(command, 2), word(command, 7) as u64),
        5 => (long(command, 2), long(command, 6)),
        _ => (huge(command, 2), long(command, 10)),
    }
}

/// Without protection information, which there is none of.
fn plain(command: &[u8; LONGEST]) -> Result<(), Sense> {
    let short = command[0] >> 5 == 0;
    if short || command[1] >> 5 == 0 { Ok(()) } else { Err(Sense::BAD_FIELD) }
}

fn writable(disk: &dyn Disk) -> Result<(), Sense> {
    if disk.is_read_only() { Err(Sense::PROTECTED) } else { Ok(()) }
}

/// Blocks as bytes.
fn range(disk: &dyn Disk, first: u64, count: u64) -> Result<(u64, u64), Sense> {
    let end = first.checked_add(count).ok_or(Sense::OUT_OF_RANGE)?;
    if end > disk.size() / SECTOR { Err(Sense::OUT_OF_RANGE) } else { Ok((first * SECTOR, count * SECTOR)) }
}

fn moved(disk: &dyn Disk, first: u64, count: u64) -> Result<(u64, u64), Sense> {
    let range = range(disk, first, count)?;
    if count > MOST_BLOCKS { Err(Sense::BAD_FIELD) } else { Ok(range) }
}

fn same(disk: &dyn Disk, command: &[u8; LONGEST]) -> Result<(u64, u64), Sense> {
    let (first, count) = blocks(command);
    if count == 0 || count > MOST_SAME {
        return Err(Sense::BAD_FIELD);
    }
    range(disk, first, count)
}

/// WRITE SAME with its block.
pub(super) fn write_same(disk: &dyn Disk, command: &[u8; LONGEST], block: &[u8]) -> Result<Action, Sense> {
    let (offset, length) = same(disk, command)?;
    if block.len() != SECTOR as usize {
        return Err(Sense::LIST_LENGTH);
    }
    Ok(Action::Fill { offset, length, block: block.to_vec(), unmap: command[1] & UNMAP != 0 })
}

/// UNMAP's parameters (SBC-3 5.28.2).
pub(super) fn unmap(disk: &dyn Disk, data: &[u8]) -> Result<Action, Sense> {
    const HEADER: usize = 8;
    const DESCRIPTOR: usize = 16;
    if data.len() < HEADER {
        return Err(Sense::LIST_LENGTH);
    }
    let length = word(data, 2).min(data.len() - HEADER);
    let descriptors = data[HEADER..HEADER + length].chunks_exact(DESCRIPTOR);
    if descriptors.len() > MOST_RANGES {
        return Err(Sense::BAD_PARAMETER);
    }
    let ranges = descriptors.map(|descriptor| {
        let (first, count) = (huge(descriptor, 0), long(descriptor, 8));
        if count > MOST_UNMAPPED { Err(Sense::BAD_PARAMETER) } else { range(disk, first, count) }
    });
    Ok(Action::Discard(ranges.collect::<Result<_, _>>()?))
}
