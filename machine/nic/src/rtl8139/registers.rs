//! Registers and descriptors of the RTL8139C+ (Realtek's data sheet of the RTL8139C(L)+, version 1.6, section 6 and that
//! on C+ mode).

/// Vendor.
pub const VENDOR: u16 = 0x10ec;
/// Device.
pub const DEVICE: u16 = 0x8139;
/// Revision, by which drivers tell a C+ from others.
pub const REVISION: u8 = 0x20;
/// Bytes of the registers, in memory and in ports.
pub const SPACE: u16 = 0x100;

/// The card's address.
pub const IDR: u16 = 0x00;
/// Groups by hash.
pub const MAR: u16 = 0x08;
/// Status of four transmit descriptors; in C+ mode where counters are dumped to.
pub const TSD: u16 = 0x10;
/// Addresses of four transmit descriptors; in C+ mode both transmit rings.
pub const TSAD: u16 = 0x20;
/// The receive ring.
pub const RBSTART: u16 = 0x30;
/// Early receive, and the command.
pub const CR: u16 = 0x34;
/// How far the guest has read, and the card has written.
pub const CAPR: u16 = 0x38;
/// Interrupt mask, and status.
pub const IMR: u16 = 0x3c;
/// Transmit configuration.
pub const TCR: u16 = 0x40;
/// Receive configuration.
pub const RCR: u16 = 0x44;
/// A timer.
pub const TCTR: u16 = 0x48;
/// Missed packets.
pub const MPC: u16 = 0x4c;
/// The EEPROM, configuration 0 and 1.
pub const EEPROM_COMMAND: u16 = 0x50;
/// When the timer interrupts.
pub const TIMER_INTERRUPT: u16 = 0x54;
/// Media status, configuration 3 and 4.
pub const MSR: u16 = 0x58;
/// Multiple interrupt select, and the revision.
pub const MULINT: u16 = 0x5c;
/// Status of all four transmit descriptors, and BMCR.
pub const TSAD_STATUS: u16 = 0x60;
/// BMSR and ANAR.
pub const BMSR: u16 = 0x64;
/// ANLPAR and ANER.
pub const ANLPAR: u16 = 0x68;
/// Status of the line.
pub const CSCR: u16 = 0x74;
/// Configuration 5 and, in C+ mode, a look at transmit descriptors.
pub const CONFIG5: u16 = 0xd8;
/// The command of C+ mode (6.33).
pub const CPCR: u16 = 0xe0;
/// The receive ring of C+ mode.
pub const RDSAR: u16 = 0xe4;
/// Early transmit threshold.
pub const ETTHR: u16 = 0xec;

/// CR: the receive ring is empty.
pub const CR_BUFE: u8 = 1 << 0;
/// CR: the transmitter is on.
pub const CR_TE: u8 = 1 << 2;
/// CR: the receiver is on.
pub const CR_RE: u8 = 1 << 3;
/// CR: reset, which clears itself.
pub const CR_RST: u8 = 1 << 4;

/// Causes of interrupts.
pub mod cause {
    #![expect(missing_docs, reason = "the names are the data sheet's")]
    pub const ROK: u16 = 1 << 0;
    pub const RER: u16 = 1 << 1;
    pub const TOK: u16 = 1 << 2;
    /// The link changed; a packet ran under.
    pub const PUN: u16 = 1 << 5;
    pub const TDU: u16 = 1 << 7;
    pub const SWINT: u16 = 1 << 8;
    pub const TIMEOUT: u16 = 1 << 14;
    /// All that there are.
    pub const ALL: u16 = 0xe1ff;
}

/// TSD: bytes.
pub const TSD_SIZE: u32 = 0x1fff;
/// TSD: it is the guest's again.
pub const TSD_OWN: u32 = 1 << 13;
/// TSD: transmit underrun.
pub const TSD_TUN: u32 = 1 << 14;
/// TSD: it was sent.
pub const TSD_TOK: u32 = 1 << 15;
/// TSD: bits that are written.
pub const TSD_WRITABLE: u32 = TSD_SIZE | TSD_OWN | 0x3f << 16;
/// TSD: it was given up.
pub const TSD_TABT: u32 = 1 << 30;

/// TCR: the check sequence is in the frame.
pub const TCR_CRC: u32 = 1 << 16;
/// TCR: loopback.
pub const TCR_LBK: u32 = 0b11 << 17;
/// TCR: bits that are written.
pub const TCR_WRITABLE: u32 = 0x0307_07f0;
/// TCR: which chip it is.
pub const TCR_VERSION: u32 = 0x7480_0000;
/// TCR after a reset.
pub const TCR_RESET: u32 = 0x0300_0600;

/// RCR: all addresses.
pub const RCR_AAP: u32 = 1 << 0;
/// RCR: the card's address.
pub const RCR_APM: u32 = 1 << 1;
/// RCR: groups.
pub const RCR_AM: u32 = 1 << 2;
/// RCR: broadcasts.
pub const RCR_AB: u32 = 1 << 3;
/// RCR: a frame that begins in the ring goes on behind its end.
pub const RCR_WRAP: u32 = 1 << 7;
/// RCR: bits that are written.
pub const RCR_WRITABLE: u32 = 0x0f03_ffbf;
/// Where RCR says how large the ring is.
pub const RCR_RBLEN: u32 = 11;

/// What stands before a frame in the receive ring, and what it says: it is well.
pub const HEADER_OK: u16 = 1 << 0;
/// It is a broadcast.
pub const HEADER_BROADCAST: u16 = 1 << 13;
/// It is to the card's address.
pub const HEADER_PHYSICAL: u16 = 1 << 14;
/// It is to a group.
pub const HEADER_GROUP: u16 = 1 << 15;
/// CAPR is so much behind where the guest reads.
pub const CAPR_BEHIND: u16 = 16;
/// Most bytes of a frame, with its check sequence.
pub const LONGEST: usize = 4096;

/// EEPROM command: data out.
pub const EE_DO: u8 = 1 << 0;
/// EEPROM command: data in.
pub const EE_DI: u8 = 1 << 1;
/// EEPROM command: clock.
pub const EE_SK: u8 = 1 << 2;
/// EEPROM command: chip select.
pub const EE_CS: u8 = 1 << 3;
/// EEPROM command: what it is about.
pub const EE_MODE: u8 = 0b11 << 6;
/// The mode in which all is loaded from the EEPROM.
pub const EE_LOAD: u8 = 0b01 << 6;
/// The mode in which the wires are the guest's.
pub const EE_PROGRAM: u8 = 0b10 << 6;
/// The mode in which configuration is written.
pub const EE_CONFIGURE: u8 = 0b11 << 6;

/// CONFIG1: in memory and in ports.
pub const CONFIG1_FIXED: u8 = 0b11 << 2;
/// MSR: no link.
pub const MSR_LINKB: u8 = 1 << 2;
/// MSR: flow control both ways, auxiliary power.
pub const MSR_FIXED: u8 = 0xd0;

/// BMCR after a reset: negotiation, 100 Mb/s, full duplex.
pub const BMCR_RESET: u16 = 0x3100;
/// BMCR: bits that are written.
pub const BMCR_WRITABLE: u16 = 0x3100;
/// BMCR: reset, and negotiation anew: both clear themselves.
pub const BMCR_ANEW: u16 = 1 << 15 | 1 << 9;
/// BMSR: every kind of 10 and 100 Mb/s, negotiation can be done, extended registers.
pub const BMSR_FIXED: u16 = 0x7809;
/// BMSR: the link, and that negotiation has ended.
pub const BMSR_LINK: u16 = 1 << 2 | 1 << 5;
/// ANAR after a reset: 10 and 100 Mb/s, pauses.
pub const ANAR_RESET: u16 = 0x05e1;
/// ANLPAR: the same, and that it was understood.
pub const ANLPAR_LINK: u16 = 0x45e1;
/// CSCR: the link.
pub const CSCR_LINK: u16 = 1 << 10;

/// TPPoll: the normal ring.
pub const TPPOLL_NPQ: u8 = 1 << 6;
/// TPPoll: the ring of high priority.
pub const TPPOLL_HPQ: u8 = 1 << 7;
/// TPPoll: an interrupt.
pub const TPPOLL_FSWINT: u8 = 1 << 0;

/// CPCR: the transmitter is in C+ mode.
pub const CPCR_TX: u16 = 1 << 0;
/// CPCR: the receiver is in C+ mode.
pub const CPCR_RX: u16 = 1 << 1;
/// CPCR: checksums are looked at.
pub const CPCR_CHECKSUM: u16 = 1 << 5;
/// CPCR: tags are taken out.
pub const CPCR_VLAN: u16 = 1 << 6;
/// CPCR: bits that are written.
pub const CPCR_WRITABLE: u16 = 0x007b;

/// Where counters are dumped to: do it.
pub const DUMP: u32 = 1 << 3;
/// Where counters are dumped to: bits of the address.
pub const DUMP_ADDRESS: u32 = !0x3f;

/// Bytes of a descriptor of C+ mode.
pub const DESCRIPTOR: u64 = 16;
/// Most descriptors of a ring.
pub const MOST_DESCRIPTORS: u8 = 64;
/// Rings are aligned to this.
pub const RING_ADDRESS: u64 = !0xff;

/// The first word of a descriptor of C+ mode, of both kinds.
pub mod descriptor {
    #![expect(missing_docs, reason = "the names are the data sheet's")]
    pub const OWN: u32 = 1 << 31;
    pub const EOR: u32 = 1 << 30;
    pub const FS: u32 = 1 << 29;
    pub const LS: u32 = 1 << 28;
    /// Transmit: cut it.
    pub const LGSEN: u32 = 1 << 27;
    /// Transmit: most bytes of data, and where they are.
    pub const MSS: u32 = 0x7ff;
    pub const MSS_SHIFT: u32 = 16;
    pub const IPCS: u32 = 1 << 18;
    pub const UDPCS: u32 = 1 << 17;
    pub const TCPCS: u32 = 1 << 16;
    /// Transmit, second word: put a tag in.
    pub const TAGC: u32 = 1 << 17;
    /// Receive: to a group, to the card, to all.
    pub const MAR: u32 = 1 << 26;
    pub const PAM: u32 = 1 << 25;
    pub const BAR: u32 = 1 << 24;
    /// Receive: what it is.
    pub const TCP: u32 = 1 << 16;
    pub const UDP: u32 = 2 << 16;
    pub const IP: u32 = 3 << 16;
    /// Receive: which checksum is wrong.
    pub const IPF: u32 = 1 << 15;
    pub const UDPF: u32 = 1 << 14;
    pub const TCPF: u32 = 1 << 13;
    /// Receive: bytes.
    pub const SIZE: u32 = 0x1fff;
    /// Receive, second word: there was a tag.
    pub const TAVA: u32 = 1 << 16;
}

/// Words of the EEPROM that are not the card's alone: the signature, vendor, device, subsystem.
pub const EEPROM: [(usize, u16); 3] = [(0, 0x8129), (1, VENDOR), (2, DEVICE)];
/// Where the subsystem is in the EEPROM: vendor, then device.
pub const EEPROM_SUBSYSTEM: usize = 3;
/// Where the address is in the EEPROM.
pub const EEPROM_ADDRESS: usize = 7;

/// The timer counts the bus's clock, of 33 MHz.
pub const TIMER_MHZ: u64 = 33;
