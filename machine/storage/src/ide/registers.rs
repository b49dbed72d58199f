//! Registers and commands of ATA drives (ATA/ATAPI-7, ANSI INCITS 397) and of PIIX3's IDE function (82371SB section 2.7).

pub use crate::ata::registers::*;

/// First port of each channel's command block.
pub const COMMAND_BLOCKS: [u16; 2] = [0x1f0, 0x170];
/// Port of each channel's device control register.
pub const CONTROLS: [u16; 2] = [0x3f6, 0x376];
/// ISA interrupt of each channel.
pub const INTERRUPTS: [u32; 2] = [14, 15];

/// Offsets in the command block.
pub const DATA: u16 = 0;
/// Error when read, features when written.
pub const ERROR: u16 = 1;
/// Sector count; interrupt reason of packet commands.
pub const COUNT: u16 = 2;
/// Bits 0 to 7 of the sector's number, or the sector.
pub const LBA_LOW: u16 = 3;
/// The next eight bits, or the cylinder's lower ones; byte count of packet commands.
pub const LBA_MID: u16 = 4;
/// The next eight bits, or the cylinder's upper ones.
pub const LBA_HIGH: u16 = 5;
/// Which drive, and four bits of the sector's number, or the head.
pub const DEVICE: u16 = 6;
/// Status when read, command when written.
pub const STATUS: u16 = 7;

/// Device control: no interrupts.
pub const CONTROL_NIEN: u8 = 1 << 1;
/// Device control: read the earlier of two bytes.
pub const CONTROL_HOB: u8 = 1 << 7;

/// Ports of a channel's bus master.
pub const MASTER_PORTS: u16 = 8;
/// Bus master: command.
pub const MASTER_COMMAND: u16 = 0;
/// Bus master: status.
pub const MASTER_STATUS: u16 = 2;
/// Bus master: where its table of regions is.
pub const MASTER_TABLE: u16 = 4;
/// Bus master command: go.
pub const MASTER_START: u8 = 1 << 0;
/// Bus master command: to memory.
pub const MASTER_TO_MEMORY: u8 = 1 << 3;
/// Bus master status: at work.
pub const MASTER_ACTIVE: u8 = 1 << 0;
/// Bus master status: it failed.
pub const MASTER_ERROR: u8 = 1 << 1;
/// Bus master status: the drive has raised its interrupt.
pub const MASTER_INTERRUPT: u8 = 1 << 2;
/// Bus master status: drives that can do DMA, which software notes.
pub const MASTER_CAPABLE: u8 = 3 << 5;
/// Table: the last region.
pub const TABLE_END: u16 = 1 << 15;

/// Device: PIIX3's IDE function.
pub const PIIX3_IDE: u16 = 0x7010;
/// Configuration: timing of both channels, whose bit 15 lets a channel be decoded.
pub const TIMING: u8 = 0x40;
