//! Commands of hard disks (ATA/ATAPI-7 chapter 6).

use lodge_backend::SECTOR;

use super::channel::{By, Drive, Source, State, Unit, Work};
use super::identify;
use super::registers::*;

/// Sectors are numbered with 28 bits or by cylinder, or with 48.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Short,
    Long,
}

/// Begins a command: what there is to do, nothing more, or the error register.
pub(super) fn command(state: &mut State, command: u8) -> Result<Option<Work>, u8> {
    use Width::{Long, Short};
    use super::registers::command as c;
    let block = SECTOR as usize;
    let multiple = usize::from(unit(state)?.settings.multiple) * block;
    let several = || if multiple == 0 { Err(ABRT) } else { Ok(By::Ports(multiple)) };
    match command {
        c::READ_SECTORS | c::READ_SECTORS_ONCE => read(state, Short, By::Ports(block)),
        c::READ_SECTORS_EXT => read(state, Long, By::Ports(block)),
        c::READ_MULTIPLE => read(state, Short, several()?),
        c::READ_MULTIPLE_EXT => read(state, Long, several()?),
        c::READ_DMA | c::READ_DMA_ONCE => read(state, Short, By::Dma),
        c::READ_DMA_EXT => read(state, Long, By::Dma),
        c::WRITE_SECTORS | c::WRITE_SECTORS_ONCE => write(state, Short, By::Ports(block)),
        c::WRITE_SECTORS_EXT => write(state, Long, By::Ports(block)),
        c::WRITE_MULTIPLE => write(state, Short, several()?),
        c::WRITE_MULTIPLE_EXT => write(state, Long, several()?),
        c::WRITE_DMA | c::WRITE_DMA_ONCE => write(state, Short, By::Dma),
        c::WRITE_DMA_EXT => write(state, Long, By::Dma),
        c::VERIFY | c::VERIFY_ONCE => range(state, Short).map(|_| None),
        c::VERIFY_EXT => range(state, Long).map(|_| None),
        c::FLUSH | c::FLUSH_EXT => Ok(Some(Work::Flush)),
        c::IDENTIFY => {
            let unit = unit(state)?;
            let bytes = identify::disk(&unit.serial, sectors(unit), &unit.settings);
            Ok(Some(Work::Give(Source::Bytes(bytes), By::Ports(block))))
        }
        c::SET_MULTIPLE => set_multiple(state),
        c::INITIALIZE_PARAMETERS => {
            let heads = u16::from(state.registers.device & 0x0f) + 1;
            let per_track = u16::from(state.registers.count.now);
            unit(state)?.settings.geometry = (heads, per_track);
            if per_track == 0 { Err(ABRT) } else { Ok(None) }
        }
        c::SET_FEATURES => set_features(state),
        c::READ_NATIVE_MAX => native_max(state, Short),
        c::READ_NATIVE_MAX_EXT => native_max(state, Long),
        c::DIAGNOSE => {
            state.sign();
            state.registers.error = 1;
            Ok(None)
        }
        c::CHECK_POWER => {
            // Active or idle.
            state.registers.count.now = 0xff;
            Ok(None)
        }
        c::STANDBY | c::STANDBY_IMMEDIATE | c::IDLE | c::IDLE_IMMEDIATE | c::SLEEP => Ok(None),
        _ if c::RECALIBRATE.contains(&command) || c::SEEK.contains(&command) => Ok(None),
        _ => Err(ABRT),
    }
}

fn unit(state: &mut State) -> Result<&mut Unit, u8> {
    state.selected().ok_or(ABRT)
}

/// Sectors of a disk.
fn sectors(unit: &Unit) -> u64 {
    match &unit.drive {
        Drive::Disk(disk) => disk.size() / SECTOR,
        Drive::Cd(_) => 0,
    }
}

/// The bytes that the registers name: the first, and how many.
fn range(state: &mut State, width: Width) -> Result<(u64, u64), u8> {
    let registers = state.registers;
    let byte = |value: u8, shift: u32| u64::from(value) << shift;
    let near = byte(registers.low.now, 0) | byte(registers.mid.now, 8) | byte(registers.high.now, 16);
    let whole = |count: u64, most: u64| if count == 0 { most } else { count };
    let unit = unit(state)?;
    let (first, count) = match width {
        Width::Long => {
            let far = byte(registers.low.before, 24) | byte(registers.mid.before, 32) | byte(registers.high.before, 40);
            let count = byte(registers.count.now, 0) | byte(registers.count.before, 8);
            (near | far, whole(count, 0x1_0000))
        }
        Width::Short => {
            let first = if registers.device & DEVICE_LBA != 0 {
                near | byte(registers.device & 0x0f, 24)
            } else {
                let (heads, per_track) = unit.settings.geometry;
                let (cylinder, head) = (near >> 8, u64::from(registers.device & 0x0f));
                let sector = u64::from(registers.low.now).checked_sub(1).ok_or(IDNF)?;
                (cylinder * u64::from(heads) + head) * u64::from(per_track) + sector
            };
            (first, whole(registers.count.now.into(), 0x100))
        }
    };
    if first + count > sectors(unit) {
        return Err(IDNF);
    }
    Ok((first * SECTOR, count * SECTOR))
}

fn read(state: &mut State, width: Width, by: By) -> Result<Option<Work>, u8> {
    let (from, length) = range(state, width)?;
    Ok(Some(Work::Give(Source::Medium(from, length), by)))
}

fn write(state: &mut State, width: Width, by: By) -> Result<Option<Work>, u8> {
    let (from, length) = range(state, width)?;
    let writable = matches!(&unit(state)?.drive, Drive::Disk(disk) if !disk.is_read_only());
    if writable { Ok(Some(Work::Take(from, length, by))) } else { Err(ABRT) }
}

fn set_multiple(state: &mut State) -> Result<Option<Work>, u8> {
    let count = state.registers.count.now;
    if count > identify::MULTIPLE || count != 0 && !count.is_power_of_two() {
        return Err(ABRT);
    }
    unit(state)?.settings.multiple = count;
    Ok(None)
}

/// Subcommands of SET FEATURES that both kinds of drives have.
pub(super) fn set_features(state: &mut State) -> Result<Option<Work>, u8> {
    const WRITE_CACHE: u8 = 0x02;
    const TRANSFER_MODE: u8 = 0x03;
    const NO_READ_AHEAD: u8 = 0x55;
    const KEEP_SETTINGS: u8 = 0x66;
    const NO_WRITE_CACHE: u8 = 0x82;
    const READ_AHEAD: u8 = 0xaa;
    const FORGET_SETTINGS: u8 = 0xcc;
    match state.registers.features {
        TRANSFER_MODE => {
            let mode = state.registers.count.now;
            // PIO, multi-word DMA 0 to 2, Ultra DMA 0 to 5.
            let known = matches!(mode, 0x00..=0x01 | 0x08..=0x0c | 0x20..=0x22 | 0x40..=0x45);
            if known {
                unit(state)?.settings.mode = mode;
            }
            if known { Ok(None) } else { Err(ABRT) }
        }
        WRITE_CACHE | NO_WRITE_CACHE | NO_READ_AHEAD | READ_AHEAD | KEEP_SETTINGS | FORGET_SETTINGS => Ok(None),
        _ => Err(ABRT),
    }
}

fn native_max(state: &mut State, width: Width) -> Result<Option<Work>, u8> {
    let last = sectors(unit(state)?) - 1;
    let last = if width == Width::Short { last.min(0x0fff_ffff) } else { last };
    let [b0, b1, b2, b3, b4, b5, ..] = last.to_le_bytes();
    let registers = &mut state.registers;
    (registers.low.now, registers.mid.now, registers.high.now) = (b0, b1, b2);
    if width == Width::Long {
        (registers.low.before, registers.mid.before, registers.high.before) = (b3, b4, b5);
    } else {
        registers.device = registers.device & 0xf0 | b3 & 0x0f;
    }
    Ok(None)
}
