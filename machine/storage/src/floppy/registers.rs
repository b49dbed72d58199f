//! Registers and commands of the floppy controller (Intel 82077AA, 290166).

/// First port: status A of PS/2 models.
pub const BASE: u16 = 0x3f0;
/// Ports below the one that is the IDE controller's.
pub const LENGTH: u16 = 6;
/// The port behind it: digital input when read, data rate when written.
pub const LAST: u16 = 0x3f7;
/// ISA interrupt.
pub const INTERRUPT: u32 = 6;
/// DMA channel.
pub const CHANNEL: usize = 2;

/// Offset: digital output.
pub const DIGITAL_OUTPUT: u16 = 2;
/// Offset: tape drive.
pub const TAPE_DRIVE: u16 = 3;
/// Offset: main status when read, data rate select when written.
pub const MAIN_STATUS: u16 = 4;
/// Offset: data.
pub const DATA: u16 = 5;

/// Digital output: not reset.
pub const NOT_RESET: u8 = 1 << 2;
/// Digital output: interrupts and DMA are let through.
pub const DMA_GATE: u8 = 1 << 3;
/// Digital output: motor of drive 0; the next bits are those of the others.
pub const MOTOR: u8 = 1 << 4;

/// Main status: data can be moved.
pub const RQM: u8 = 1 << 7;
/// Main status: to the host.
pub const DIO: u8 = 1 << 6;
/// Main status: a command moves data by the data port.
pub const NON_DMA: u8 = 1 << 5;
/// Main status: a command is under way.
pub const BUSY: u8 = 1 << 4;

/// Data rate select: reset.
pub const RATE_RESET: u8 = 1 << 7;
/// Digital input: the medium may have been changed.
pub const CHANGED: u8 = 1 << 7;

/// Status 0: ended abnormally.
pub const ST0_ABNORMAL: u8 = 1 << 6;
/// Status 0: an invalid command.
pub const ST0_INVALID: u8 = 1 << 7;
/// Status 0: ended because of a change of readiness, as after a reset.
pub const ST0_POLLED: u8 = 3 << 6;
/// Status 0: a seek has ended.
pub const ST0_SEEK: u8 = 1 << 5;
/// Status 0: track 0 was not found.
pub const ST0_EQUIPMENT: u8 = 1 << 4;
/// Status 1: beyond the last sector.
pub const ST1_END: u8 = 1 << 7;
/// Status 1: no such sector.
pub const ST1_NO_DATA: u8 = 1 << 2;
/// Status 1: write-protected.
pub const ST1_PROTECTED: u8 = 1 << 1;
/// Status 1: no address mark.
pub const ST1_NO_MARK: u8 = 1 << 0;
/// Status 1: data were wrong.
pub const ST1_DATA: u8 = 1 << 5;
/// Status 2: so they were in the data field.
pub const ST2_DATA: u8 = 1 << 5;
/// Status 2: another cylinder.
pub const ST2_WRONG_CYLINDER: u8 = 1 << 4;
/// Status 2: a scan found its data.
pub const ST2_SCAN_HIT: u8 = 1 << 3;
/// Status 2: a scan did not.
pub const ST2_SCAN_MISS: u8 = 1 << 2;
/// Status 3: write-protected.
pub const ST3_PROTECTED: u8 = 1 << 6;
/// Status 3: at track 0.
pub const ST3_TRACK_0: u8 = 1 << 4;
/// Status 3: bits that are always one: ready, two sides.
pub const ST3_ONES: u8 = 0x28;

/// Status 1: the host was too slow, or DMA was not set up.
pub const ST1_OVERRUN: u8 = 1 << 4;
/// Status 2: the sector's data mark is of the other kind.
pub const ST2_OTHER_MARK: u8 = 1 << 6;

/// Configuration, second byte: transfers seek first.
pub const CONFIGURE_SEEK: u8 = 1 << 6;
/// VERIFY, second byte: the last byte counts sectors.
pub const VERIFY_COUNT: u8 = 1 << 7;

/// Bits of a command's first byte: both sides of a cylinder are one. For LOCK: lock. For SEEK: by so many cylinders.
pub const MULTI_TRACK: u8 = 1 << 7;
/// The double density that all floppies have here. For SEEK by so many cylinders: inwards.
pub const MFM: u8 = 1 << 6;
/// Sectors with the other data mark are passed over.
pub const SKIP: u8 = 1 << 5;
/// The command without them.
pub const COMMAND: u8 = 0x1f;

/// Commands, and how many bytes each has.
pub mod command {
    #![expect(missing_docs, reason = "the names are the data sheet's")]
    pub const READ_TRACK: u8 = 0x02;
    pub const SPECIFY: u8 = 0x03;
    pub const SENSE_DRIVE: u8 = 0x04;
    pub const WRITE: u8 = 0x05;
    pub const READ: u8 = 0x06;
    pub const RECALIBRATE: u8 = 0x07;
    pub const SENSE_INTERRUPT: u8 = 0x08;
    pub const WRITE_DELETED: u8 = 0x09;
    pub const READ_ID: u8 = 0x0a;
    pub const READ_DELETED: u8 = 0x0c;
    pub const FORMAT: u8 = 0x0d;
    pub const DUMP: u8 = 0x0e;
    pub const SEEK: u8 = 0x0f;
    pub const VERSION: u8 = 0x10;
    pub const SCAN_EQUAL: u8 = 0x11;
    pub const PERPENDICULAR: u8 = 0x12;
    pub const CONFIGURE: u8 = 0x13;
    pub const LOCK: u8 = 0x14;
    pub const VERIFY: u8 = 0x16;
    pub const SCAN_LOW: u8 = 0x19;
    pub const SCAN_HIGH: u8 = 0x1d;

    use super::{COMMAND, MFM, MULTI_TRACK, SKIP};

    /// Bytes of a command, the first among them; 1 for those that there are not.
    pub const fn length(first: u8) -> usize {
        if !is_known(first) {
            return 1;
        }
        match first & COMMAND {
            READ_TRACK | WRITE | READ | WRITE_DELETED | READ_DELETED | SCAN_EQUAL | SCAN_LOW | SCAN_HIGH | VERIFY => 9,
            FORMAT => 6,
            CONFIGURE => 4,
            SPECIFY | SEEK => 3,
            SENSE_DRIVE | RECALIBRATE | READ_ID | PERPENDICULAR => 2,
            _ => 1,
        }
    }

    /// Whether there is a command with this first byte.
    pub const fn is_known(first: u8) -> bool {
        let options = match first & COMMAND {
            READ | READ_DELETED | VERIFY | SCAN_EQUAL | SCAN_LOW | SCAN_HIGH => MULTI_TRACK | MFM | SKIP,
            WRITE | WRITE_DELETED | SEEK => MULTI_TRACK | MFM,
            READ_TRACK => MFM | SKIP,
            READ_ID | FORMAT => MFM,
            LOCK => MULTI_TRACK,
            SPECIFY | SENSE_DRIVE | RECALIBRATE | SENSE_INTERRUPT | DUMP | VERSION | PERPENDICULAR | CONFIGURE => 0,
            _ => return false,
        };
        first & !COMMAND & !options == 0
    }

    /// Whether a command moves data, or looks for sectors.
    pub const fn is_transfer(first: u8) -> bool {
        is_known(first)
            && matches!(
                first & COMMAND,
                READ | WRITE
                    | READ_DELETED
                    | WRITE_DELETED
                    | READ_TRACK
                    | READ_ID
                    | FORMAT
                    | VERIFY
                    | SCAN_EQUAL
                    | SCAN_LOW
                    | SCAN_HIGH
            )
    }
}
