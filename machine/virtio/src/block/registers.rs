//! Request types, features and configuration of the block device (virtio 1.2 section 5.2).

/// Device ID.
pub const DEVICE_ID: u16 = 2;

/// Features (5.2.3).
pub mod feature {
    /// There is a limit to segments in a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// There is a block size.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Flush requests.
    pub const FLUSH: u64 = 1 << 9;
    /// Several queues.
    pub const MQ: u64 = 1 << 12;
    /// Discard requests.
    pub const DISCARD: u64 = 1 << 13;
    /// Write-zeroes requests.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Flush.
    pub const FLUSH: u32 = 4;
    /// The device's name.
    pub const GET_ID: u32 = 8;
    /// Discard.
    pub const DISCARD: u32 = 11;
    /// Write zeroes.
    pub const WRITE_ZEROES: u32 = 13;
}

/// A request succeeded.
pub const OK: u8 = 0;
/// A request failed.
pub const IOERR: u8 = 1;
/// The device has no such request.
pub const UNSUPP: u8 = 2;

/// Bytes in a request's header: type, reserved, sector.
pub const HEADER: usize = 16;
/// Bytes in a discard or write-zeroes segment: sector, sectors, flags.
pub const SEGMENT: usize = 16;
/// A write-zeroes segment's flag: may unmap.
pub const SEGMENT_UNMAP: u32 = 1;
/// Bytes in a name.
pub const NAME: usize = 20;
/// Descriptors for data in one request.
pub const SEG_MAX: u32 = 254;
/// Sectors in one discard or write-zeroes segment.
pub const MOST_SECTORS: u32 = 1 << 22;
/// Segments in one discard or write-zeroes request.
pub const MOST_SEGMENTS: u32 = 16;
/// Entries in a queue.
pub const QUEUE_SIZE: u16 = 256;
