//! Registers of the local APIC (SDM 3A table 11-1; x2APIC: table 11-6).
//!
//! Numbers are those of table 11-6, which are the offsets of table 11-1 divided by 16.

/// Local APIC ID.
pub const ID: u8 = 0x02;
/// Version.
pub const VERSION: u8 = 0x03;
/// Task priority.
pub const TPR: u8 = 0x08;
/// Arbitration priority.
pub const APR: u8 = 0x09;
/// Processor priority.
pub const PPR: u8 = 0x0a;
/// End of interrupt.
pub const EOI: u8 = 0x0b;
/// Remote read.
pub const RRD: u8 = 0x0c;
/// Logical destination.
pub const LDR: u8 = 0x0d;
/// Destination format.
pub const DFR: u8 = 0x0e;
/// Spurious interrupt vector.
pub const SVR: u8 = 0x0f;
/// In-service, first of eight.
pub const ISR: u8 = 0x10;
/// Trigger mode, first of eight.
pub const TMR: u8 = 0x18;
/// Interrupt request, first of eight.
pub const IRR: u8 = 0x20;
/// Error status.
pub const ESR: u8 = 0x28;
/// LVT of corrected machine checks; absent here.
pub const LVT_CMCI: u8 = 0x2f;
/// Interrupt command, low half (all of it in x2APIC mode).
pub const ICR_LOW: u8 = 0x30;
/// Interrupt command, high half.
pub const ICR_HIGH: u8 = 0x31;
/// LVT of the timer, the first of six.
pub const LVT_TIMER: u8 = 0x32;
/// LVT of the error interrupt, the last of six.
pub const LVT_ERROR: u8 = 0x37;
/// The timer's initial count.
pub const INITIAL_COUNT: u8 = 0x38;
/// The timer's current count.
pub const CURRENT_COUNT: u8 = 0x39;
/// The timer's divider.
pub const DIVIDE: u8 = 0x3e;
/// Self IPI (x2APIC mode only).
pub const SELF_IPI: u8 = 0x3f;

/// Version 0x14 (integrated), LVT entries less one in bits 23:16 (11.4.8).
pub const VERSION_VALUE: u32 = 0x0005_0014;
/// SVR: software enable (11.9).
pub const SVR_ENABLE: u32 = 1 << 8;
/// SVR bits that software writes.
pub const SVR_WRITABLE: u32 = 0x3ff;

/// LVT: masked (figure 11-8).
pub const LVT_MASKED: u32 = 1 << 16;
/// LVT: remote IRR (read-only).
pub const LVT_REMOTE_IRR: u32 = 1 << 14;
/// LVT timer: mode, bits 18:17.
pub const LVT_TIMER_MODE: u32 = 3 << 17;
/// LVT timer mode: periodic.
pub const LVT_PERIODIC: u32 = 1 << 17;
/// LVT timer mode: TSC deadline.
pub const LVT_DEADLINE: u32 = 2 << 17;
/// Bits that software writes, by LVT: timer, thermal, performance, LINT0, LINT1, error.
pub const LVT_WRITABLE: [u32; 6] = [0x0007_00ff, 0x0001_07ff, 0x0001_07ff, 0x0001_a7ff, 0x0001_a7ff, 0x0001_00ff];
/// Index of an LVT.
pub mod lvt {
    /// The timer.
    pub const TIMER: usize = 0;
    /// The first local pin, where the 8259A pair arrives.
    pub const LINT0: usize = 3;
    /// The second local pin, where NMIs arrive.
    pub const LINT1: usize = 4;
    /// Errors.
    pub const ERROR: usize = 5;
}

/// Error status (figure 11-9).
pub mod esr {
    /// A message with an illegal vector was sent.
    pub const SEND_ILLEGAL: u32 = 1 << 5;
    /// A message with an illegal vector arrived, or an LVT holds one.
    pub const RECEIVE_ILLEGAL: u32 = 1 << 6;
    /// A register that is not there was accessed.
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// ICR: delivery mode, bits 10:8 (figure 11-12).
pub const ICR_MODE_SHIFT: u32 = 8;
/// ICR: logical destination.
pub const ICR_LOGICAL: u32 = 1 << 11;
/// ICR: level is assert.
pub const ICR_ASSERT: u32 = 1 << 14;
/// ICR: trigger mode is level.
pub const ICR_LEVEL: u32 = 1 << 15;
/// ICR: destination shorthand, bits 19:18.
pub const ICR_SHORTHAND_SHIFT: u32 = 18;
/// ICR: bits that software writes.
pub const ICR_WRITABLE: u32 = 0x000c_cfff;

/// APIC base: bootstrap processor (11.4.4).
pub const BASE_BSP: u64 = 1 << 8;
/// APIC base: x2APIC mode.
pub const BASE_X2APIC: u64 = 1 << 10;
/// APIC base: enabled.
pub const BASE_ENABLE: u64 = 1 << 11;
/// Where the page is after power-on.
pub const BASE_ADDRESS: u64 = 0xfee0_0000;
/// APIC base: address bits, for at most 52 physical address bits.
pub const BASE_ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// MSR: APIC base.
pub const MSR_BASE: u32 = 0x1b;
/// MSR: TSC deadline.
pub const MSR_DEADLINE: u32 = 0x6e0;
/// MSR: the first of x2APIC's.
pub const MSR_X2APIC: u32 = 0x800;
