//! Status, error and command codes of ATA drives (ATA/ATAPI-7, ANSI INCITS 397; ACS-2, INCITS 482 for those of SATA drives).

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

/// Device control: reset.
pub const CONTROL_SRST: u8 = 1 << 2;

/// Interrupt reason: a packet, not data.
pub const REASON_COMMAND: u8 = 1 << 0;
/// Interrupt reason: from the drive.
pub const REASON_TO_HOST: u8 = 1 << 1;

/// Commands.
pub mod command {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const NOP: u8 = 0x00;
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub const DEVICE_RESET: u8 = 0x08;
    pub const RECALIBRATE: std::ops::RangeInclusive<u8> = 0x10..=0x1f;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_ONCE: u8 = 0x21;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const READ_LOG_EXT: u8 = 0x2f;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_ONCE: u8 = 0x31;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub const VERIFY: u8 = 0x40;
    pub const VERIFY_ONCE: u8 = 0x41;
    pub const VERIFY_EXT: u8 = 0x42;
    pub const READ_LOG_DMA_EXT: u8 = 0x47;
    pub const READ_QUEUED: u8 = 0x60;
    pub const WRITE_QUEUED: u8 = 0x61;
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
    pub const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
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
