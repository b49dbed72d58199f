//! Registers of the PIIX4 power-management block (82371AB section 7.2; ACPI 6.4 section 4.8.3).

/// Where the block is mapped unless the guest moves it.
pub const BASE: u16 = 0x600;
/// Ports in the block.
pub const LENGTH: u16 = 0x40;
/// PM1 status (7.2.1), two bytes.
pub const STATUS: u16 = 0x00;
/// PM1 enable (7.2.2), two bytes.
pub const ENABLE: u16 = 0x02;
/// PM1 control (7.2.3), two bytes.
pub const CONTROL: u16 = 0x04;
/// PM timer (7.2.4), four bytes.
pub const TIMER: u16 = 0x08;
/// The advanced power-management control and status ports (82371AB 4.1.10), through which ACPI is switched on.
pub const APM: u16 = 0xb2;
/// What firmware's table says switches ACPI on.
pub const ACPI_ON: u8 = 0xf1;
/// And off.
pub const ACPI_OFF: u8 = 0xf0;

/// Timer frequency in hertz.
pub const FREQUENCY: u64 = 3_579_545;

/// Status and enable: the timer's highest bit changed.
pub const TIMER_BIT: u16 = 1 << 0;
/// Status and enable: global lock.
pub const GLOBAL: u16 = 1 << 5;
/// Status and enable: power button.
pub const POWER_BUTTON: u16 = 1 << 8;
/// Enable bits that there are.
pub const ENABLE_WRITABLE: u16 = TIMER_BIT | GLOBAL | POWER_BUTTON | ALARM;
/// Status and enable: the real-time clock's alarm.
pub const ALARM: u16 = 1 << 10;
/// Status: woken up.
pub const WAKE: u16 = 1 << 15;
/// Control: events raise the SCI rather than an SMI.
pub const SCI_ENABLE: u16 = 1 << 0;
/// Control: sleep type, three bits from here.
pub const SLEEP_TYPE_SHIFT: u16 = 10;
/// Sleep type: soft off, as the DSDT says.
pub const SOFT_OFF: u16 = 0;
/// Sleep type: suspend to memory (S3), as the DSDT of a machine with firmware says.
pub const SUSPEND: u16 = 1;
/// Control: enter the sleep type.
pub const SLEEP_ENABLE: u16 = 1 << 13;
