//! Commands of hard disks (ATA/ATAPI-7 chapter 6; ACS-2 chapter 7).

use lodge_backend::SECTOR;

use super::identify::{self, TRIM_BLOCKS};
use super::registers::*;
use super::{By, Drive, Source, Task, Unit, Work};

/// Bytes of a sector, and of a block of the data register.
const BLOCK: usize = SECTOR as usize;

/// Sectors are numbered with 28 bits or by cylinder, or with 48.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Short,
    Long,
}

/// Begins a command: what there is to do, nothing more, or the error register.
pub(super) fn command(unit: &mut Unit, task: &mut Task, command: u8) -> Result<Option<Work>, u8> {
    use super::registers::command as c;
    use Width::{Long, Short};
    let multiple = usize::from(unit.state.settings.multiple) * BLOCK;
    let several = || if multiple == 0 { Err(ABRT) } else { Ok(By::Ports(multiple)) };
    match command {
        c::READ_SECTORS | c::READ_SECTORS_ONCE => read(unit, task, Short, By::Ports(BLOCK)),
        c::READ_SECTORS_EXT => read(unit, task, Long, By::Ports(BLOCK)),
        c::READ_MULTIPLE => read(unit, task, Short, several()?),
        c::READ_MULTIPLE_EXT => read(unit, task, Long, several()?),
        c::READ_DMA | c::READ_DMA_ONCE => read(unit, task, Short, By::Dma),
        c::READ_DMA_EXT => read(unit, task, Long, By::Dma),
        c::WRITE_SECTORS | c::WRITE_SECTORS_ONCE => write(unit, task, Short, By::Ports(BLOCK), false),
        c::WRITE_SECTORS_EXT => write(unit, task, Long, By::Ports(BLOCK), false),
        c::WRITE_MULTIPLE => write(unit, task, Short, several()?, false),
        c::WRITE_MULTIPLE_EXT => write(unit, task, Long, several()?, false),
        c::WRITE_MULTIPLE_FUA_EXT => write(unit, task, Long, several()?, true),
        c::WRITE_DMA | c::WRITE_DMA_ONCE => write(unit, task, Short, By::Dma, false),
        c::WRITE_DMA_EXT => write(unit, task, Long, By::Dma, false),
        c::WRITE_DMA_FUA_EXT => write(unit, task, Long, By::Dma, true),
        c::VERIFY | c::VERIFY_ONCE => range(unit, task, Short).map(|_| None),
        c::VERIFY_EXT => range(unit, task, Long).map(|_| None),
        c::FLUSH | c::FLUSH_EXT | c::STANDBY | c::STANDBY_IMMEDIATE | c::SLEEP => Ok(Some(Work::Flush)),
        c::IDENTIFY => {
            let bytes = identify::disk(&unit.serial, unit.sectors(), &unit.state.settings, unit.sata);
            Ok(Some(Work::Give(Source::Bytes(bytes), By::Ports(BLOCK))))
        }
        c::DATA_SET_MANAGEMENT => trim(unit, task),
        c::READ_LOG_EXT if unit.sata => read_log(unit, task, By::Ports(BLOCK)),
        c::READ_LOG_DMA_EXT if unit.sata => read_log(unit, task, By::Dma),
        c::SET_MULTIPLE => {
            let count = task.count as u8;
            if count > identify::MULTIPLE || count != 0 && !count.is_power_of_two() {
                return Err(ABRT);
            }
            unit.state.settings.multiple = count;
            Ok(None)
        }
        c::INITIALIZE_PARAMETERS => {
            let heads = u16::from(task.device & 0x0f) + 1;
            let per_track = task.count & 0xff;
            if per_track == 0 {
                return Err(ABRT);
            }
            unit.state.settings.geometry = (heads, per_track);
            Ok(None)
        }
        c::SET_FEATURES => set_features(unit, task),
        c::READ_NATIVE_MAX => Ok(native_max(unit, task, Short)),
        c::READ_NATIVE_MAX_EXT => Ok(native_max(unit, task, Long)),
        c::DIAGNOSE => {
            *task = Task { features: task.features, ..unit.signature() };
            Ok(None)
        }
        c::CHECK_POWER => {
            // Active or idle.
            task.count = 0xff;
            Ok(None)
        }
        c::IDLE | c::IDLE_IMMEDIATE => Ok(None),
        _ if c::RECALIBRATE.contains(&command) || c::SEEK.contains(&command) => Ok(None),
        _ => Err(ABRT),
    }
}

/// The bytes that a task names: the first, and how many.
fn range(unit: &Unit, task: &Task, width: Width) -> Result<(u64, u64), u8> {
    let whole = |count: u16, most: u64| if count == 0 { most } else { count.into() };
    let (first, count) = match width {
        Width::Long => (task.lba, whole(task.count, 0x1_0000)),
        Width::Short => {
            let near = task.lba & 0xff_ffff;
            let first = if task.device & DEVICE_LBA != 0 {
                near | u64::from(task.device & 0x0f) << 24
            } else {
                let (heads, per_track) = unit.state.settings.geometry;
                let (cylinder, head, sector) = (near >> 8, u64::from(task.device & 0x0f), near & 0xff);
                if head >= u64::from(heads) || !(1..=u64::from(per_track)).contains(&sector) {
                    return Err(IDNF);
                }
                (cylinder * u64::from(heads) + head) * u64::from(per_track) + sector - 1
            };
            (first, whole(task.count & 0xff, 0x100))
        }
    };
    sectors(unit, first, count)
}

fn sectors(unit: &Unit, first: u64, count: u64) -> Result<(u64, u64), u8> {
    if first + count > unit.sectors() { Err(IDNF) } else { Ok((first * SECTOR, count * SECTOR)) }
}

fn read(unit: &Unit, task: &Task, width: Width, by: By) -> Result<Option<Work>, u8> {
    let (from, length) = range(unit, task, width)?;
    Ok(Some(Work::Give(Source::Medium(from, length), by)))
}

fn writable(unit: &Unit) -> Result<(), u8> {
    if matches!(&unit.drive, Drive::Disk(disk) if !disk.is_read_only()) { Ok(()) } else { Err(ABRT) }
}

fn write(unit: &Unit, task: &Task, width: Width, by: By, durable: bool) -> Result<Option<Work>, u8> {
    let (from, left) = range(unit, task, width)?;
    writable(unit)?;
    Ok(Some(Work::Take { from, left, by, durable: durable || !unit.state.settings.write_cache }))
}

impl Unit {
    /// READ or WRITE FPDMA QUEUED (ACS-2 7.23, 7.65): the count is among the features, the tag in the count.
    pub fn queued(&self, task: &Task, writes: bool) -> Result<Work, u8> {
        /// Device: to the medium, not to a cache.
        const FUA: u8 = 1 << 7;
        if self.is_cd() {
            return Err(ABRT);
        }
        let count = if task.features == 0 { 0x1_0000 } else { task.features.into() };
        let (from, length) = sectors(self, task.lba, count)?;
        if !writes {
            return Ok(Work::Give(Source::Medium(from, length), By::Dma));
        }
        writable(self)?;
        let durable = task.device & FUA != 0 || !self.state.settings.write_cache;
        Ok(Work::Take { from, left: length, by: By::Dma, durable })
    }
}

/// DATA SET MANAGEMENT, of which there is TRIM.
fn trim(unit: &Unit, task: &Task) -> Result<Option<Work>, u8> {
    const TRIM: u16 = 1;
    if task.features & 0xff != TRIM || task.count == 0 || task.count > TRIM_BLOCKS {
        return Err(ABRT);
    }
    writable(unit)?;
    Ok(Some(Work::Trim(usize::from(task.count) * BLOCK)))
}

/// The ranges (first byte, bytes) that a list names for a disk of so many sectors: numbers of 48 bits, counts of 16. An error is
/// one of the register's.
pub(crate) fn ranges(list: &[u8], sectors: u64) -> impl Iterator<Item = Result<(u64, u64), u8>> + '_ {
    list.chunks_exact(8).filter_map(move |entry| {
        let [l0, l1, l2, l3, l4, l5, c0, c1] = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| entry[n]);
        let first = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]);
        let count = u64::from(u16::from_le_bytes([c0, c1]));
        let within = first + count <= sectors;
        (count != 0).then_some(if within { Ok((first * SECTOR, count * SECTOR)) } else { Err(IDNF) })
    })
}

/// READ LOG EXT: which logs there are, and that of the queue's error (ACS-2 7.24, A.13).
fn read_log(unit: &mut Unit, task: &Task, by: By) -> Result<Option<Work>, u8> {
    const DIRECTORY: u64 = 0x00;
    const QUEUE_ERROR: u64 = 0x10;
    const NOT_QUEUED: u8 = 0x80;
    let page = task.lba >> 8 & 0xff | task.lba >> 24 & 0xff00;
    if task.count != 1 || page != 0 {
        return Err(ABRT);
    }
    let mut bytes = vec![0; BLOCK];
    match task.lba & 0xff {
        DIRECTORY => {
            // Version 1; one page of the other.
            (bytes[0], bytes[2 * QUEUE_ERROR as usize]) = (1, 1);
        }
        QUEUE_ERROR => {
            let error = unit.state.queue_error.take().unwrap_or_default();
            let lba = error.task.lba.to_le_bytes();
            let count = error.task.count.to_le_bytes();
            (bytes[0], bytes[2], bytes[3]) = (error.tag.unwrap_or(NOT_QUEUED), error.status, error.error);
            bytes[4..7].copy_from_slice(&lba[..3]);
            bytes[7] = error.task.device;
            bytes[8..11].copy_from_slice(&lba[3..6]);
            bytes[12..14].copy_from_slice(&count);
            // All of them come to zero.
            bytes[511] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        }
        _ => return Err(ABRT),
    }
    Ok(Some(Work::Give(Source::Bytes(bytes), by)))
}

/// SET FEATURES; CD drives have those that are not about caches.
pub(super) fn set_features(unit: &mut Unit, task: &Task) -> Result<Option<Work>, u8> {
    const WRITE_CACHE: u16 = 0x02;
    const TRANSFER_MODE: u16 = 0x03;
    const NO_READ_AHEAD: u16 = 0x55;
    const KEEP_SETTINGS: u16 = 0x66;
    const NO_WRITE_CACHE: u16 = 0x82;
    const READ_AHEAD: u16 = 0xaa;
    const FORGET_SETTINGS: u16 = 0xcc;
    let is_cd = unit.is_cd();
    let settings = &mut unit.state.settings;
    match task.features & 0xff {
        TRANSFER_MODE => {
            let mode = task.count as u8;
            // PIO, multi-word DMA 0 to 2, Ultra DMA 0 to 5.
            if !matches!(mode, 0x00..=0x01 | 0x08..=0x0c | 0x20..=0x22 | 0x40..=0x45) {
                return Err(ABRT);
            }
            settings.mode = mode;
        }
        WRITE_CACHE if !is_cd => settings.write_cache = true,
        NO_WRITE_CACHE if !is_cd => {
            settings.write_cache = false;
            return Ok(Some(Work::Flush));
        }
        READ_AHEAD if !is_cd => settings.read_ahead = true,
        NO_READ_AHEAD if !is_cd => settings.read_ahead = false,
        KEEP_SETTINGS | FORGET_SETTINGS => {}
        _ => return Err(ABRT),
    }
    Ok(None)
}

fn native_max(unit: &Unit, task: &mut Task, width: Width) -> Option<Work> {
    let last = unit.sectors().saturating_sub(1);
    if width == Width::Long {
        task.lba = last;
    } else {
        let last = last.min(0x0fff_ffff);
        task.lba = task.lba & !0xff_ffff | last & 0xff_ffff;
        task.device = task.device & 0xf0 | (last >> 24) as u8;
    }
    None
}
