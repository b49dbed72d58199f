//! Operation codes and pages (SPC-4, SBC-3, MMC-6).

/// Operation codes.
pub mod code {
    #![expect(missing_docs, reason = "the names are the standards'")]
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REZERO: u8 = 0x01;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const SEEK_6: u8 = 0x0b;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const RESERVE_6: u8 = 0x16;
    pub const RELEASE_6: u8 = 0x17;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP: u8 = 0x1b;
    pub const PREVENT_REMOVAL: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SEEK_10: u8 = 0x2b;
    pub const WRITE_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_SUBCHANNEL: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const READ_TRACK_INFORMATION: u8 = 0x52;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_IN: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const READ_DVD_STRUCTURE: u8 = 0xad;
    pub const WRITE_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
    pub const READ_CD_MSF: u8 = 0xb9;
    pub const SET_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// SERVICE ACTION IN(16): READ CAPACITY(16).
pub const READ_CAPACITY_16: u8 = 0x10;

/// Mode pages.
pub mod page {
    /// Read-write error recovery.
    pub const RECOVERY: u8 = 0x01;
    /// Rigid disk geometry.
    pub const GEOMETRY: u8 = 0x04;
    /// Caching.
    pub const CACHING: u8 = 0x08;
    /// Control.
    pub const CONTROL: u8 = 0x0a;
    /// Audio control of CD drives.
    pub const AUDIO: u8 = 0x0e;
    /// Capabilities of CD drives.
    pub const CAPABILITIES: u8 = 0x2a;
    /// All of them.
    pub const ALL: u8 = 0x3f;
}

/// Vital product data pages.
pub mod vital {
    /// Which there are.
    pub const LIST: u8 = 0x00;
    /// Serial number.
    pub const SERIAL: u8 = 0x80;
    /// Identification.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Block limits.
    pub const LIMITS: u8 = 0xb0;
    /// What disk it is.
    pub const CHARACTERISTICS: u8 = 0xb1;
    /// Thin provisioning.
    pub const PROVISIONING: u8 = 0xb2;
}

/// Blocks that one command moves at most.
pub const MOST_BLOCKS: u64 = 0xffff;
/// Blocks that one range of UNMAP has at most: 4 GiB.
pub const MOST_UNMAPPED: u64 = 0x80_0000;
/// Ranges of UNMAP.
pub const MOST_RANGES: usize = 256;
/// Blocks that WRITE SAME fills at most: 32 MiB.
pub const MOST_SAME: u64 = 0x1_0000;
