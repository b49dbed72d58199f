//! Registers and commands of ATA drives (ATA/ATAPI-7, ANSI INCITS 397) and of PIIX3's IDE function (82371SB section 2.7).

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

/// Status: busy.
pub const BSY: u8 = 1 << 7;
/// Status: ready.
pub const DRDY: u8 = 1 << 6;
/// Status: fault of the drive.
pub const DF: u8 = 1 << 5;
/// Status: seek complete.
pub const DSC: u8 = 1 << 4;
/// Status: data wait to be moved.
pub const DRQ: u8 = 1 << 3;
/// Status: see the error register. For packet commands: sense data are there.
pub const ERR: u8 = 1 << 0;

/// Error: uncorrectable data.
pub const UNC: u8 = 1 << 6;
/// Error: no such sector.
pub const IDNF: u8 = 1 << 4;
/// Error: aborted.
pub const ABRT: u8 = 1 << 2;

/// Device: by number rather than cylinder, head and sector.
pub const DEVICE_LBA: u8 = 1 << 6;
/// Device: the second drive.
pub const DEVICE_SECOND: u8 = 1 << 4;
/// Device: bits that read as one.
pub const DEVICE_ONES: u8 = 0xa0;

/// Device control: no interrupts.
pub const CONTROL_NIEN: u8 = 1 << 1;
/// Device control: reset.
pub const CONTROL_SRST: u8 = 1 << 2;
/// Device control: read the earlier of two bytes.
pub const CONTROL_HOB: u8 = 1 << 7;

/// Interrupt reason: a packet, not data.
pub const REASON_COMMAND: u8 = 1 << 0;
/// Interrupt reason: from the drive.
pub const REASON_TO_HOST: u8 = 1 << 1;

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

/// Commands.
pub mod command {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const NOP: u8 = 0x00;
    pub const DEVICE_RESET: u8 = 0x08;
    pub const RECALIBRATE: std::ops::RangeInclusive<u8> = 0x10..=0x1f;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_ONCE: u8 = 0x21;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_ONCE: u8 = 0x31;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const VERIFY: u8 = 0x40;
    pub const VERIFY_ONCE: u8 = 0x41;
    pub const VERIFY_EXT: u8 = 0x42;
    pub const SEEK: std::ops::RangeInclusive<u8> = 0x70..=0x7f;
    pub const DIAGNOSE: u8 = 0x90;
    pub const INITIALIZE_PARAMETERS: u8 = 0x91;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const READ_DMA_ONCE: u8 = 0xc9;
    pub const WRITE_DMA: u8 = 0xca;
    pub const WRITE_DMA_ONCE: u8 = 0xcb;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER: u8 = 0xe5;
    pub const SLEEP: u8 = 0xe6;
    pub const FLUSH: u8 = 0xe7;
    pub const FLUSH_EXT: u8 = 0xea;
    pub const IDENTIFY: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
    pub const READ_NATIVE_MAX: u8 = 0xf8;
}
