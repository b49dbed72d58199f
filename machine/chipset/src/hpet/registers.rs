//! Registers of the HPET (IA-PC HPET Specification 1.0a, section 2.3).

/// Where it is mapped.
pub const BASE: u64 = 0xfed0_0000;
/// Bytes mapped.
pub const LENGTH: u64 = 0x400;
/// Timers.
pub const TIMERS: usize = 3;
/// Femtoseconds per count: 10 ns, 100 MHz.
pub const PERIOD_FS: u64 = 10_000_000;
/// Nanoseconds per count.
pub const PERIOD_NS: u64 = 10;

/// General capabilities and identification (2.3.4).
pub const CAPABILITIES: u64 = 0x000;
/// General configuration (2.3.5).
pub const CONFIGURATION: u64 = 0x010;
/// General interrupt status (2.3.6).
pub const STATUS: u64 = 0x020;
/// Main counter (2.3.7).
pub const COUNTER: u64 = 0x0f0;
/// The first timer; each takes 0x20 (2.3.8).
pub const TIMER: u64 = 0x100;
/// In a timer: configuration and capabilities.
pub const TIMER_CONFIGURATION: u64 = 0x00;
/// In a timer: comparator.
pub const TIMER_COMPARATOR: u64 = 0x08;

/// Intel's vendor ID, legacy replacement, 64 bits, [`TIMERS`], revision 1.
pub const CAPABILITIES_VALUE: u64 = PERIOD_FS << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// Configuration: the counter runs.
pub const ENABLE: u64 = 1 << 0;
/// Configuration: timers 0 and 1 replace the PIT and the RTC.
pub const LEGACY: u64 = 1 << 1;

/// Timer: level-triggered.
pub const LEVEL: u64 = 1 << 1;
/// Timer: interrupt enable.
pub const INTERRUPT: u64 = 1 << 2;
/// Timer: periodic.
pub const PERIODIC: u64 = 1 << 3;
/// Timer: can be periodic.
pub const PERIODIC_CAPABLE: u64 = 1 << 4;
/// Timer: has 64 bits.
pub const SIZE_CAPABLE: u64 = 1 << 5;
/// Timer: the next write of the comparator sets the accumulator too.
pub const SET_VALUE: u64 = 1 << 6;
/// Timer: works in 32 bits.
pub const MODE_32: u64 = 1 << 8;
/// Timer: interrupt routing, five bits from here.
pub const ROUTE_SHIFT: u64 = 9;
/// Timer: bits that software writes.
pub const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | SET_VALUE | MODE_32 | 0x1f << ROUTE_SHIFT;
/// Timer: the global system interrupts it can be routed to, 16 to 23.
pub const ROUTES: u64 = 0x00ff_0000;
