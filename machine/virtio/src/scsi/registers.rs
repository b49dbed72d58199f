//! Queues, configuration and structures of the SCSI host (virtio 1.2 section 5.6).

/// Device ID.
pub const DEVICE_ID: u16 = 8;
/// Queue: control.
pub const CONTROL: u16 = 0;
/// Queue: events.
pub const EVENTS: u16 = 1;
/// The first queue for requests.
pub const REQUESTS: u16 = 2;
/// Entries of a queue.
pub const QUEUE_SIZE: u16 = 128;
/// Most queues for requests.
pub const MOST_QUEUES: u16 = 16;
/// Most targets.
pub const MOST_TARGETS: usize = 256;

/// Features (5.6.3).
pub mod feature {
    /// A request may have data both ways.
    pub const INOUT: u64 = 1 << 0;
}

/// Configuration (5.6.4): bytes of it.
pub const CONFIG_SIZE: usize = 36;
/// Where the size of sense data is.
pub const CONFIG_SENSE: u64 = 20;
/// Where the size of commands is.
pub const CONFIG_CDB: u64 = 24;
/// Bytes of sense data, unless the driver changes it, and as it may.
pub const SENSE_SIZE: u32 = 96;
/// See [`SENSE_SIZE`].
pub const SENSE_SIZES: std::ops::RangeInclusive<u32> = 18..=252;
/// Bytes of commands, unless the driver changes it, and as it may.
pub const CDB_SIZE: u32 = 32;
/// See [`CDB_SIZE`].
pub const CDB_SIZES: std::ops::RangeInclusive<u32> = 6..=260;

/// Bytes of a request before its command: unit, ID, attributes (5.6.6.1).
pub const REQUEST: usize = 19;
/// Bytes of a response before its sense data.
pub const RESPONSE: usize = 12;
/// SCSI status: look at the sense data.
pub const CHECK_CONDITION: u8 = 2;

/// Responses.
pub mod response {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const BAD_TARGET: u8 = 3;
    pub const FAILURE: u8 = 9;
    pub const FUNCTION_COMPLETE: u8 = 0;
    pub const FUNCTION_REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

/// Requests of the control queue (5.6.6.2).
pub mod control {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const TASK_MANAGEMENT: u32 = 0;
    pub const QUERY_EVENTS: u32 = 1;
    pub const SUBSCRIBE: u32 = 2;
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_ACA: u32 = 2;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const NEXUS_RESET: u32 = 4;
    pub const UNIT_RESET: u32 = 5;
    pub const QUERY_TASK: u32 = 6;
    pub const QUERY_TASK_SET: u32 = 7;
}

/// Events (5.6.6.3).
pub mod event {
    /// Some could not be told.
    pub const MISSED: u32 = 0x8000_0000;
    /// Nothing else.
    pub const NONE: u32 = 0;
    /// What was subscribed to.
    pub const NOTIFY: u32 = 2;
    /// Reason: the medium has changed.
    pub const MEDIA_CHANGE: u32 = 1 << 4;
    /// Bytes of an event.
    pub const SIZE: usize = 16;
}
