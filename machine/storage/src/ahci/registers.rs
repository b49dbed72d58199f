//! Registers and structures in memory of the AHCI controller (Serial ATA AHCI 1.3.1), and frames of SATA (SATA 3.0 chapter 10).

/// Device: ICH9's controller with six ports, in AHCI mode.
pub const ICH9_AHCI: u16 = 0x2922;
/// The BAR that the registers are behind.
pub const BAR: u8 = 5;
/// Bytes of it.
pub const BAR_SIZE: u64 = 0x1000;
/// Ports.
pub const PORTS: usize = 6;
/// Command slots of a port.
pub const SLOTS: u32 = 32;

/// Capabilities (3.1.1).
pub const CAP: u64 = 0x00;
/// Global control (3.1.2).
pub const GHC: u64 = 0x04;
/// Ports that have an interrupt pending (3.1.3).
pub const IS: u64 = 0x08;
/// Ports that there are (3.1.4).
pub const PI: u64 = 0x0c;
/// Version (3.1.5).
pub const VS: u64 = 0x10;
/// The first port's registers.
pub const FIRST_PORT: u64 = 0x100;
/// Bytes of a port's registers.
pub const PORT_SIZE: u64 = 0x80;

/// Capabilities: six ports, 32 slots, AHCI only, 6 Gb/s, command list override, NCQ, addresses of 64 bits.
pub const CAP_VALUE: u32 = (PORTS as u32 - 1) | (SLOTS - 1) << 8 | 1 << 18 | 3 << 20 | 1 << 24 | 1 << 30 | 1 << 31;
/// Version 1.3.1.
pub const VS_VALUE: u32 = 0x0001_0301;

/// Global control: reset.
pub const GHC_RESET: u32 = 1 << 0;
/// Global control: interrupts.
pub const GHC_INTERRUPTS: u32 = 1 << 1;
/// Global control: AHCI, which is all there is.
pub const GHC_AHCI: u32 = 1 << 31;

/// Offsets of a port's registers (3.3).
pub mod at {
    /// Command list.
    pub const CLB: u64 = 0x00;
    /// Its upper half.
    pub const CLBU: u64 = 0x04;
    /// Received frames.
    pub const FB: u64 = 0x08;
    /// Its upper half.
    pub const FBU: u64 = 0x0c;
    /// Interrupt status.
    pub const IS: u64 = 0x10;
    /// Interrupt enable.
    pub const IE: u64 = 0x14;
    /// Command and status.
    pub const CMD: u64 = 0x18;
    /// Task file.
    pub const TFD: u64 = 0x20;
    /// Signature.
    pub const SIG: u64 = 0x24;
    /// SATA status.
    pub const SSTS: u64 = 0x28;
    /// SATA control.
    pub const SCTL: u64 = 0x2c;
    /// SATA error.
    pub const SERR: u64 = 0x30;
    /// Queued commands that are active.
    pub const SACT: u64 = 0x34;
    /// Commands that have been issued.
    pub const CI: u64 = 0x38;
}

/// Command and status: commands are started.
pub const CMD_ST: u32 = 1 << 0;
/// Command and status: spun up, powered.
pub const CMD_ON: u32 = 3 << 1;
/// Command and status: task file override.
pub const CMD_CLO: u32 = 1 << 3;
/// Command and status: frames are received.
pub const CMD_FRE: u32 = 1 << 4;
/// Command and status: so they are.
pub const CMD_FR: u32 = 1 << 14;
/// Command and status: the list runs.
pub const CMD_CR: u32 = 1 << 15;
/// Command and status: the drive takes packets.
pub const CMD_ATAPI: u32 = 1 << 24;
/// Command and status: bits that are kept as written.
pub const CMD_KEPT: u32 = CMD_ST | CMD_FRE | CMD_ATAPI | 7 << 25;

/// Interrupt: a frame with registers.
pub const IS_REGISTERS: u32 = 1 << 0;
/// Interrupt: a frame that begins PIO.
pub const IS_PIO: u32 = 1 << 1;
/// Interrupt: a frame with bits of queued commands.
pub const IS_BITS: u32 = 1 << 3;
/// Interrupt: a region that was marked is done.
pub const IS_REGION: u32 = 1 << 5;
/// Interrupt: a drive has come; shows [`SERR_EXCHANGED`].
pub const IS_CONNECT: u32 = 1 << 6;
/// Interrupt: the link has changed; shows [`SERR_LINK`].
pub const IS_LINK: u32 = 1 << 22;
/// Interrupt: more data than regions.
pub const IS_OVERFLOW: u32 = 1 << 24;
/// Interrupt: a frame was not taken.
pub const IS_INTERFACE: u32 = 1 << 27;
/// Interrupt: memory is not there.
pub const IS_BUS: u32 = 1 << 29;
/// Interrupt: the task file shows an error.
pub const IS_ERROR: u32 = 1 << 30;
/// All interrupts of a port.
pub const IS_ALL: u32 = 0xfdc0_00ff;
/// Interrupts that show bits of SATA error.
pub const IS_SHOWN: u32 = IS_CONNECT | IS_LINK;

/// SATA error: the link has changed.
pub const SERR_LINK: u32 = 1 << 16;
/// SATA error: a drive has come.
pub const SERR_EXCHANGED: u32 = 1 << 26;
/// SATA status with a drive: present, 6 Gb/s, active.
pub const SSTS_UP: u32 = 0x133;
/// SATA status when switched off.
pub const SSTS_OFF: u32 = 4;
/// SATA control: reset.
pub const SCTL_RESET: u32 = 1;
/// SATA control: switched off.
pub const SCTL_OFF: u32 = 4;
/// SATA control: what it is about.
pub const SCTL_DETECTION: u32 = 0x0f;
/// The signature register without a drive.
pub const SIG_NONE: u32 = u32::MAX;
/// The task file without a drive.
pub const TFD_NONE: u32 = 0x7f;

/// Bytes of a command header (4.2.2).
pub const HEADER: u64 = 32;
/// Command header: a packet.
pub const HEADER_PACKET: u32 = 1 << 5;
/// Command header: the list's bit goes when the frame has been sent.
pub const HEADER_CLEAR: u32 = 1 << 10;
/// Where in a command table the packet is (4.2.3).
pub const TABLE_PACKET: u64 = 0x40;
/// Where in a command table regions are.
pub const TABLE_REGIONS: u64 = 0x80;
/// Bytes of a region.
pub const REGION: u64 = 16;
/// Region: interrupt when it is done.
pub const REGION_INTERRUPT: u32 = 1 << 31;

/// Where frames are received (4.2.1).
pub mod received {
    /// DMA Setup.
    pub const DMA_SETUP: u64 = 0x00;
    /// PIO Setup.
    pub const PIO_SETUP: u64 = 0x20;
    /// Register, Device to Host.
    pub const REGISTERS: u64 = 0x40;
    /// Set Device Bits.
    pub const BITS: u64 = 0x58;
}

/// Kinds of frames.
pub mod frame {
    /// Register, Host to Device.
    pub const COMMAND: u8 = 0x27;
    /// Register, Device to Host.
    pub const REGISTERS: u8 = 0x34;
    /// DMA Setup.
    pub const DMA_SETUP: u8 = 0x41;
    /// PIO Setup.
    pub const PIO_SETUP: u8 = 0x5f;
    /// Set Device Bits.
    pub const BITS: u8 = 0xa1;
    /// Second byte: interrupt.
    pub const INTERRUPT: u8 = 1 << 6;
    /// Second byte: to the host.
    pub const TO_HOST: u8 = 1 << 5;
    /// Second byte, to the device: a command rather than the device control register.
    pub const IS_COMMAND: u8 = 1 << 7;
}
