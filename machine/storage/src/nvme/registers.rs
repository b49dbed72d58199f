//! Registers, commands and status codes of NVM Express (revision 1.4).

/// Vendor and device, as drivers know them.
pub const VENDOR: u16 = 0x1b36;
/// See [`VENDOR`].
pub const DEVICE: u16 = 0x0010;
/// Subsystem vendor.
pub const SUBSYSTEM_VENDOR: u16 = 0x1af4;
/// The BAR that everything is behind.
pub const BAR: u8 = 0;
/// Bytes of it.
pub const BAR_SIZE: u64 = 0x4000;
/// Where in it doorbells are.
pub const DOORBELLS: u64 = 0x1000;
/// Where in it the table of messages is.
pub const TABLE: u64 = 0x2000;
/// Where in it the bits of pending messages are.
pub const PENDING: u64 = 0x3000;
/// Fewest queues for I/O: UEFI firmware makes two without asking how many there are.
pub const LEAST_QUEUES: u16 = 2;
/// Most queues for I/O.
pub const MOST_QUEUES: u16 = 64;
/// Most entries of a queue.
pub const MOST_ENTRIES: u32 = 2048;
/// Most bytes that a command moves: 2^8 pages of 4 KiB.
pub const MDTS: u8 = 8;
/// See [`MDTS`].
pub const MOST_BYTES: u64 = 4096 << MDTS;
/// Asynchronous events that can be asked for at a time.
pub const EVENTS: usize = 4;
/// Errors that are remembered.
pub const ERRORS: usize = 4;

/// Capabilities (3.1.1).
pub const CAP: u64 = 0x00;
/// Version (3.1.2).
pub const VS: u64 = 0x08;
/// Mask interrupts (3.1.3).
pub const INTMS: u64 = 0x0c;
/// Unmask interrupts (3.1.4).
pub const INTMC: u64 = 0x10;
/// Configuration (3.1.5).
pub const CC: u64 = 0x14;
/// Status (3.1.6).
pub const CSTS: u64 = 0x1c;
/// Sizes of the admin queues (3.1.8).
pub const AQA: u64 = 0x24;
/// Admin submission queue (3.1.9).
pub const ASQ: u64 = 0x28;
/// Admin completion queue (3.1.10).
pub const ACQ: u64 = 0x30;

/// Largest page: 64 KiB.
pub const MPS_MOST: u32 = 4;
/// Capabilities: entries, contiguous, 15 s to get ready, the NVM commands, pages of 4 to 64 KiB.
pub const CAP_VALUE: u64 = (MOST_ENTRIES as u64 - 1) | 1 << 16 | 30 << 24 | 1 << 37 | (MPS_MOST as u64) << 52;
/// Version 1.4.
pub const VS_VALUE: u32 = 0x0001_0400;

/// Configuration: enabled.
pub const CC_EN: u32 = 1 << 0;
/// Configuration: shutdown.
pub const CC_SHN: u32 = 3 << 14;
/// Configuration: bits that there are.
pub const CC_KEPT: u32 = 0x00ff_fff1;
/// Status: ready.
pub const CSTS_RDY: u32 = 1 << 0;
/// Status: fatal.
pub const CSTS_CFS: u32 = 1 << 1;
/// Status: a shutdown goes on.
pub const CSTS_SHUTTING: u32 = 1 << 2;
/// Status: a shutdown has ended.
pub const CSTS_SHUT: u32 = 2 << 2;

/// Bytes of a command.
pub const COMMAND: u64 = 64;
/// Bytes of a completion.
pub const COMPLETION: u64 = 16;

/// Admin commands (5).
pub mod admin {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const EVENT: u8 = 0x0c;
}

/// Commands for I/O (6).
pub mod io {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET: u8 = 0x09;
}

/// Features (5.21.1).
pub mod feature {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER: u8 = 0x02;
    pub const TEMPERATURE: u8 = 0x04;
    pub const RECOVERY: u8 = 0x05;
    pub const WRITE_CACHE: u8 = 0x06;
    pub const QUEUES: u8 = 0x07;
    pub const COALESCING: u8 = 0x08;
    pub const VECTOR: u8 = 0x09;
    pub const ATOMICITY: u8 = 0x0a;
    pub const EVENTS: u8 = 0x0b;
}

/// Logs (5.14.1).
pub mod log {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const ERRORS: u8 = 0x01;
    pub const HEALTH: u8 = 0x02;
    pub const FIRMWARE: u8 = 0x03;
    pub const EFFECTS: u8 = 0x05;
}

/// Status of a completion: type and code, and whether trying again is no use (4.6.1).
pub mod status {
    #![expect(missing_docs, reason = "the names are the specification's")]
    const DO_NOT_RETRY: u16 = 1 << 14;
    const SPECIFIC: u16 = 1 << 8;
    const MEDIA: u16 = 2 << 8;
    pub const OK: u16 = 0;
    pub const OPCODE: u16 = 0x01 | DO_NOT_RETRY;
    pub const FIELD: u16 = 0x02 | DO_NOT_RETRY;
    pub const TRANSFER: u16 = 0x04;
    pub const INTERNAL: u16 = 0x06;
    pub const NAMESPACE: u16 = 0x0b | DO_NOT_RETRY;
    pub const PRP_OFFSET: u16 = 0x13 | DO_NOT_RETRY;
    pub const RANGE: u16 = 0x80 | DO_NOT_RETRY;
    pub const COMPLETION_QUEUE: u16 = SPECIFIC | DO_NOT_RETRY;
    pub const QUEUE: u16 = SPECIFIC | 0x01 | DO_NOT_RETRY;
    pub const QUEUE_SIZE: u16 = SPECIFIC | 0x02 | DO_NOT_RETRY;
    pub const EVENT_LIMIT: u16 = SPECIFIC | 0x05 | DO_NOT_RETRY;
    pub const VECTOR: u16 = SPECIFIC | 0x08 | DO_NOT_RETRY;
    pub const LOG_PAGE: u16 = SPECIFIC | 0x09 | DO_NOT_RETRY;
    pub const DELETION: u16 = SPECIFIC | 0x0c | DO_NOT_RETRY;
    pub const NOT_SAVEABLE: u16 = SPECIFIC | 0x0d | DO_NOT_RETRY;
    pub const NOT_CHANGEABLE: u16 = SPECIFIC | 0x0e | DO_NOT_RETRY;
    pub const READ_ONLY: u16 = SPECIFIC | 0x82 | DO_NOT_RETRY;
    pub const WRITE_FAULT: u16 = MEDIA | 0x80;
    pub const READ_FAULT: u16 = MEDIA | 0x81;
    pub const COMPARE: u16 = MEDIA | 0x85 | DO_NOT_RETRY;
}
