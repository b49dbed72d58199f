//! Registers of the i440FX host bridge (82441FX section 3) and of PIIX3 and PIIX4 (82371SB, 82371AB).

/// Vendor Intel.
pub const INTEL: u16 = 0x8086;
/// Device: i440FX.
pub const I440FX: u16 = 0x1237;
/// Device: PIIX3's ISA bridge.
pub const PIIX3_ISA: u16 = 0x7000;
/// Device: PIIX4's power management.
pub const PIIX4_PM: u16 = 0x7113;
/// Subsystem vendor and device that drivers and firmware know QEMU's machines by.
pub const SUBSYSTEM: [u16; 2] = [0x1af4, 0x1100];

/// i440FX: programmable attribute map (3.2.17), seven bytes.
pub const PAM: u8 = 0x59;
/// i440FX: system management RAM control (3.2.19).
pub const SMRAM: u8 = 0x72;
/// PIIX3: the first of four PIRQ route control registers (2.2.7).
pub const PIRQ: u8 = 0x60;
/// PIIX4: base of the power-management block (82371AB 7.1.26).
pub const PM_BASE: u8 = 0x40;
/// PIIX4: the fourth byte of device activity B (7.1.22), whose bit 1 has writes to the APM port raise an SMI.
pub const APMC_SMI: u8 = 0x5b;
/// It is on. Firmware takes that to mean that system management mode, which there is not, has been set up.
pub const APMC_SMI_ON: u8 = 1 << 1;
/// PIIX4: miscellaneous, whose bit 0 switches the block on (7.1.32).
pub const PM_MISC: u8 = 0x80;
/// PIIX4: the interrupt that the block raises.
pub const SCI: u8 = 9;

/// PIIX3's IDE function: timing of both channels (82371SB 2.7.11).
pub const IDE_TIMING: u8 = 0x40;
/// Timing: both channels are decoded.
pub const IDE_DECODE: u32 = 0x8000_8000;
