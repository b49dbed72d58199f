//! Registers of the MC146818A (Motorola ADI 1033) and the CMOS bytes that PC firmware and systems look at (Ralf Brown's
//! CMOS list; SeaBIOS `rtc.h`).

/// The index port; data is at the next.
pub const BASE: u16 = 0x70;

/// Seconds.
pub const SECONDS: u8 = 0x00;
/// Alarm seconds.
pub const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub const MINUTES: u8 = 0x02;
/// Alarm minutes.
pub const MINUTES_ALARM: u8 = 0x03;
/// Hours.
pub const HOURS: u8 = 0x04;
/// Alarm hours.
pub const HOURS_ALARM: u8 = 0x05;
/// Day of week, Sunday is 1.
pub const WEEKDAY: u8 = 0x06;
/// Day of month.
pub const DAY: u8 = 0x07;
/// Month.
pub const MONTH: u8 = 0x08;
/// Year in the century.
pub const YEAR: u8 = 0x09;
/// Register A.
pub const A: u8 = 0x0a;
/// Register B.
pub const B: u8 = 0x0b;
/// Register C.
pub const C: u8 = 0x0c;
/// Register D.
pub const D: u8 = 0x0d;
/// Century.
pub const CENTURY: u8 = 0x32;

/// A: update in progress.
pub const A_UIP: u8 = 1 << 7;
/// A: divider; 6 and 7 hold it in reset.
pub const A_DIVIDER: u8 = 7 << 4;
/// A: rate of the periodic interrupt.
pub const A_RATE: u8 = 0x0f;
/// B: updates are inhibited while the time is set.
pub const B_SET: u8 = 1 << 7;
/// B: periodic interrupt enable.
pub const B_PIE: u8 = 1 << 6;
/// B: alarm interrupt enable.
pub const B_AIE: u8 = 1 << 5;
/// B: update-ended interrupt enable.
pub const B_UIE: u8 = 1 << 4;
/// B: binary rather than BCD.
pub const B_BINARY: u8 = 1 << 2;
/// B: 24 hours rather than 12.
pub const B_24H: u8 = 1 << 1;
/// C: an enabled interrupt is pending.
pub const C_IRQ: u8 = 1 << 7;
/// D: the battery is well.
pub const D_VALID: u8 = 1 << 7;
/// An alarm byte of 0xc0 and above matches everything.
pub const ALARM_ANY: u8 = 0xc0;

/// Shutdown status.
pub const SHUTDOWN: u8 = 0x0f;
/// Shutdown status: the machine was suspended to memory.
pub const SHUTDOWN_RESUME: u8 = 0xfe;
/// Kinds of the floppy drives, the first one's in the upper half.
pub const FLOPPIES: usize = 0x10;
/// Equipment.
pub const EQUIPMENT: usize = 0x14;
/// Equipment: FPU and mouse.
pub const EQUIPMENT_BASE: u8 = 0x06;
/// Equipment: a floppy drive.
pub const EQUIPMENT_FLOPPY: u8 = 1 << 0;
/// Equipment: a second one.
pub const EQUIPMENT_TWO_FLOPPIES: u8 = 1 << 6;
/// Base memory, KiB, two bytes.
pub const BASE_MEMORY: usize = 0x15;
/// Memory above 1 MiB, KiB, at most 64 MiB, two bytes; again at 0x30.
pub const EXTENDED_MEMORY: usize = 0x17;
/// The copy of [`EXTENDED_MEMORY`].
pub const EXTENDED_MEMORY_2: usize = 0x30;
/// Memory from 16 MiB to 4 GiB, in 64 KiB, two bytes.
pub const MEMORY_ABOVE_16M: usize = 0x34;
/// Memory above 4 GiB, in 64 KiB, three bytes.
pub const MEMORY_ABOVE_4G: usize = 0x5b;
/// vCPUs other than the first.
pub const MORE_CPUS: usize = 0x5f;
