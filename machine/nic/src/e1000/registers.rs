//! Registers and descriptors of the 82540EM (Intel 317453, "PCI/PCI-X Family of Gigabit Ethernet Controllers Software
//! Developer's Manual"; sections are its).

/// Vendor (4.1).
pub const VENDOR: u16 = 0x8086;
/// Device: 82540EM (4.1).
pub const DEVICE: u16 = 0x100e;
/// Revision.
pub const REVISION: u8 = 3;
/// Bytes of the registers in memory (4.1).
pub const BAR_SIZE: u64 = 0x2_0000;
/// Bytes of the two ports that lead to registers; the rest of the range is reserved.
pub const PORTS: u16 = 0x40;
/// Port: which register.
pub const IOADDR: u16 = 0;
/// Port: the register.
pub const IODATA: u16 = 4;

/// Device control (13.4.1).
pub const CTRL: u32 = 0x0000;
/// The same once more.
pub const CTRL_DUPLICATE: u32 = 0x0004;
/// Device status (13.4.2).
pub const STATUS: u32 = 0x0008;
/// EEPROM and flash control (13.4.3).
pub const EECD: u32 = 0x0010;
/// EEPROM read (13.4.4).
pub const EERD: u32 = 0x0014;
/// Extended device control (13.4.6).
pub const CTRL_EXT: u32 = 0x0018;
/// Management of the PHY (13.4.7).
pub const MDIC: u32 = 0x0020;
/// Type of VLAN tags (13.4.11).
pub const VET: u32 = 0x0038;
/// Causes of interrupts; reading clears them (13.4.17).
pub const ICR: u32 = 0x00c0;
/// Throttling of interrupts (13.4.18).
pub const ITR: u32 = 0x00c4;
/// Sets causes (13.4.19).
pub const ICS: u32 = 0x00c8;
/// Lets causes interrupt (13.4.20).
pub const IMS: u32 = 0x00d0;
/// Keeps causes from it (13.4.21).
pub const IMC: u32 = 0x00d8;
/// Receive control (13.4.22).
pub const RCTL: u32 = 0x0100;
/// Transmit control (13.4.33).
pub const TCTL: u32 = 0x0400;
/// The receive ring: base, low and high, bytes, head, tail (13.4.25 and on).
pub const RDBAL: u32 = 0x2800;
/// See [`RDBAL`].
pub const RDBAH: u32 = 0x2804;
/// See [`RDBAL`].
pub const RDLEN: u32 = 0x2808;
/// See [`RDBAL`].
pub const RDH: u32 = 0x2810;
/// See [`RDBAL`].
pub const RDT: u32 = 0x2818;
/// The transmit ring: base, low and high, bytes, head, tail (13.4.36 and on).
pub const TDBAL: u32 = 0x3800;
/// See [`TDBAL`].
pub const TDBAH: u32 = 0x3804;
/// See [`TDBAL`].
pub const TDLEN: u32 = 0x3808;
/// See [`TDBAL`].
pub const TDH: u32 = 0x3810;
/// See [`TDBAL`].
pub const TDT: u32 = 0x3818;
/// Transmit descriptor control (13.4).
pub const TXDCTL: u32 = 0x3828;
/// The first and last counters (13.7).
pub const STATISTICS: std::ops::RangeInclusive<u32> = 0x4000..=0x40fc;
/// Receive checksums (13.4).
pub const RXCSUM: u32 = 0x5000;
/// Multicast table (13.5.1).
pub const MTA: std::ops::Range<u32> = 0x5200..0x5400;
/// Receive addresses, two words each (13.5.2, 13.5.3).
pub const RA: std::ops::Range<u32> = 0x5400..0x5480;
/// VLAN filter table (13.5.4).
pub const VFTA: std::ops::Range<u32> = 0x5600..0x5800;

/// Entries of the multicast and VLAN tables.
pub const TABLE: usize = 128;
/// Receive addresses.
pub const ADDRESSES: usize = 16;

/// CTRL: VLAN mode.
pub const CTRL_VME: u32 = 1 << 30;
/// CTRL: reset, which clears itself.
pub const CTRL_RST: u32 = 1 << 26;
/// CTRL: reset of the PHY, which clears itself.
pub const CTRL_PHY_RST: u32 = 1 << 31;
/// CTRL after a reset: link up, 1000 Mb/s, pins 0 and 2 high.
pub const CTRL_RESET: u32 = 0x0014_0240;
/// CTRL_EXT: reload from the EEPROM, which clears itself.
pub const CTRL_EXT_EE_RST: u32 = 1 << 13;

/// STATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// STATUS: full duplex; 1000 Mb/s, as it is and as it was found.
pub const STATUS_FIXED: u32 = 1 << 0 | 0b10 << 6 | 0b10 << 8;

/// EECD: clock, chip select, data in.
pub const EECD_SK: u32 = 1 << 0;
/// See [`EECD_SK`].
pub const EECD_CS: u32 = 1 << 1;
/// See [`EECD_SK`].
pub const EECD_DI: u32 = 1 << 2;
/// EECD: data out.
pub const EECD_DO: u32 = 1 << 3;
/// EECD: access to it is asked for.
pub const EECD_REQ: u32 = 1 << 6;
/// EECD: access to it is granted.
pub const EECD_GNT: u32 = 1 << 7;
/// EECD: it is there. That it has 64 words is said by the next bit being clear.
pub const EECD_PRES: u32 = 1 << 8;
/// EECD: bits that are written, with those for flash, which there is none of.
pub const EECD_WRITABLE: u32 = EECD_SK | EECD_CS | EECD_DI | 0b11 << 4 | EECD_REQ;

/// EERD: start.
pub const EERD_START: u32 = 1 << 0;
/// EERD: done.
pub const EERD_DONE: u32 = 1 << 4;
/// EERD: the address.
pub const EERD_ADDRESS: u32 = 0xff00;

/// MDIC: the operation, and what it can be.
pub const MDIC_OPERATION: u32 = 0b11 << 26;
/// See [`MDIC_OPERATION`].
pub const MDIC_WRITE: u32 = 0b01 << 26;
/// See [`MDIC_OPERATION`].
pub const MDIC_READ: u32 = 0b10 << 26;
/// MDIC: ready.
pub const MDIC_READY: u32 = 1 << 28;
/// MDIC: interrupt at the end.
pub const MDIC_INTERRUPT: u32 = 1 << 29;
/// MDIC: nobody answered.
pub const MDIC_ERROR: u32 = 1 << 30;

/// Causes of interrupts (13.4.17).
pub mod cause {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const TXDW: u32 = 1 << 0;
    pub const TXQE: u32 = 1 << 1;
    pub const LSC: u32 = 1 << 2;
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXT0: u32 = 1 << 7;
    pub const MDAC: u32 = 1 << 9;
    pub const TXD_LOW: u32 = 1 << 15;
    /// All that there are.
    pub const ALL: u32 = 0x0001_e7df;
}

/// RCTL: the receiver is on (13.4.22).
pub const RCTL_EN: u32 = 1 << 1;
/// RCTL: all single addresses.
pub const RCTL_UPE: u32 = 1 << 3;
/// RCTL: all groups.
pub const RCTL_MPE: u32 = 1 << 4;
/// RCTL: long frames.
pub const RCTL_LPE: u32 = 1 << 5;
/// RCTL: loopback.
pub const RCTL_LBM: u32 = 0b11 << 6;
/// RCTL: broadcasts.
pub const RCTL_BAM: u32 = 1 << 15;
/// RCTL: VLANs are filtered.
pub const RCTL_VFE: u32 = 1 << 18;
/// RCTL: buffers are sixteen times as large.
pub const RCTL_BSEX: u32 = 1 << 25;
/// RCTL: check sequences are stripped.
pub const RCTL_SECRC: u32 = 1 << 26;
/// RCTL: bits that there are.
pub const RCTL_WRITABLE: u32 = 0x06df_b3fe;

/// Most bytes of a frame that is not long, with tag and check sequence.
pub const LONGEST: usize = 1522;
/// Most bytes of one that is (3.2).
pub const LONGEST_OF_ALL: usize = 16384;

/// TCTL: the transmitter is on (13.4.33).
pub const TCTL_EN: u32 = 1 << 1;
/// TCTL: short frames are padded.
pub const TCTL_PSP: u32 = 1 << 3;

/// RXCSUM: where the packet's checksum starts.
pub const RXCSUM_PCSS: u32 = 0xff;
/// RXCSUM: IP checksums are looked at.
pub const RXCSUM_IPOFL: u32 = 1 << 8;
/// RXCSUM: TCP and UDP checksums are looked at.
pub const RXCSUM_TUOFL: u32 = 1 << 9;

/// Receive address, high: there is one (13.5.3).
pub const RAH_AV: u32 = 1 << 31;
/// Receive address, high: what it is compared with; 0 is the destination.
pub const RAH_AS: u32 = 0b11 << 16;
/// Receive address, high: bits that are written.
pub const RAH_WRITABLE: u32 = RAH_AV | RAH_AS | 0xffff;

/// Bytes of a descriptor.
pub const DESCRIPTOR: u64 = 16;
/// Ring lengths: bits that are written.
pub const LENGTH_WRITABLE: u32 = 0x000f_ff80;

/// Status of a receive descriptor (3.2.3.1).
pub mod received {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const DD: u8 = 1 << 0;
    pub const EOP: u8 = 1 << 1;
    pub const IXSM: u8 = 1 << 2;
    pub const VP: u8 = 1 << 3;
    pub const TCPCS: u8 = 1 << 5;
    pub const IPCS: u8 = 1 << 6;
    pub const PIF: u8 = 1 << 7;
    /// Errors (3.2.3.2): TCP or UDP checksum.
    pub const TCPE: u8 = 1 << 5;
    /// Errors: IP checksum.
    pub const IPE: u8 = 1 << 6;
}

/// Commands of a transmit descriptor (3.3), and what only some kinds have.
pub mod command {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const EOP: u8 = 1 << 0;
    pub const IFCS: u8 = 1 << 1;
    /// Legacy: insert a checksum. Data: TCP segmentation, which is TSE.
    pub const IC: u8 = 1 << 2;
    pub const TSE: u8 = 1 << 2;
    pub const RS: u8 = 1 << 3;
    pub const DEXT: u8 = 1 << 5;
    pub const VLE: u8 = 1 << 6;
    /// Context (3.3.6): the packet is TCP.
    pub const TCP: u8 = 1 << 0;
    /// Context: the packet is IPv4.
    pub const IP: u8 = 1 << 1;
    /// Options of a data descriptor (3.3.7): IP checksum.
    pub const IXSM: u8 = 1 << 0;
    /// Options: TCP or UDP checksum.
    pub const TXSM: u8 = 1 << 1;
}

/// Registers that only hold what is written, as far as this card is concerned: place, bits that are written, and the value
/// after a reset (13.4, 13.6, 13.8).
pub const STORED: [(u32, u32, u32); 36] = [
    (0x001c, 0xffff_ffff, 0),           // FLA
    (0x0028, 0xffff_ffff, 0),           // FCAL
    (0x002c, 0x0000_ffff, 0),           // FCAH
    (0x0030, 0x0000_ffff, 0),           // FCT
    (0x0170, 0x0000_ffff, 0),           // FCTTV
    (0x0178, 0xc000_ffff, 0),           // TXCW
    (0x0410, 0x3fff_ffff, 0x0060_2008), // TIPG
    (0x0458, 0x0000_ffff, 0),           // AIFS
    (0x0e00, 0xcfcf_cfcf, 0x0706_8302), // LEDCTL
    (0x1000, 0x0000_007f, 0x0000_0030), // PBA
    (0x2160, 0x8000_fff8, 0),           // FCRTL
    (0x2168, 0x0000_fff8, 0),           // FCRTH
    (0x2410, 0x0000_1fff, 0),           // RDFH
    (0x2418, 0x0000_1fff, 0),           // RDFT
    (0x2420, 0x0000_1fff, 0),           // RDFHS
    (0x2428, 0x0000_1fff, 0),           // RDFTS
    (0x2430, 0x0000_1fff, 0),           // RDFPC
    (0x2820, 0x0000_ffff, 0),           // RDTR
    (0x2828, 0x013f_3f3f, 0x0001_0000), // RXDCTL
    (0x282c, 0x0000_ffff, 0),           // RADV
    (0x2c00, 0x0000_0fff, 0),           // RSRPD
    (0x3000, 0x0000_0001, 0),           // TXDMAC
    (0x3410, 0x0000_1fff, 0),           // TDFH
    (0x3418, 0x0000_1fff, 0),           // TDFT
    (0x3420, 0x0000_1fff, 0),           // TDFHS
    (0x3428, 0x0000_1fff, 0),           // TDFTS
    (0x3430, 0x0000_1fff, 0),           // TDFPC
    (0x3820, 0x0000_ffff, 0),           // TIDV
    (TXDCTL, 0xff3f_3f3f, 0),           // TXDCTL
    (0x382c, 0x0000_ffff, 0),           // TADV
    (0x3830, 0xffff_ffff, 0x0100_0400), // TSPMT
    (RXCSUM, 0x0000_07ff, 0),           // RXCSUM
    (0x5800, 0x0000_000f, 0),           // WUC
    (0x5808, 0x000f_00ff, 0),           // WUFC
    (0x5820, 0x0fff_ffff, 0),           // MANC
    (0x5838, 0x0001_000f, 0),           // IPAV
];

/// Words of the EEPROM that are not the card's alone, from word 3 on (5.6, tables 5-2 and 5-3); the others read as erased.
pub const EEPROM: [(usize, &[u16]); 5] = [
    // Compatibility, LEDs by default, version, and two for manufacturers.
    (0x03, &[0x0000, 0xffff, 0x0000, 0x0000, 0x0000]),
    // Part number, initialization control 1.
    (0x08, &[0x3000, 0x1000, 0x6403]),
    // Device, vendor, initialization control 2.
    (0x0d, &[DEVICE, VENDOR, 0x3040]),
    // Reserved, and what is on the LEDs.
    (
        0x10,
        &[
            0x0008, 0x2000, 0x7e14, 0x0048, 0x1000, 0x00d8, 0x0000, 0x2700, 0x6cc9, 0x3150, 0x0722, 0x040b, 0x0984,
            0x0000, 0xc000, 0x0706,
        ],
    ),
    // Pins, circuits, initialization control 3, what wakes the machine up, size of the flash.
    (0x20, &[0x1008, 0x0000, 0x0f04, 0x7fff, 0x4d01]),
];
/// Where the subsystem is in the EEPROM: device, then vendor.
pub const EEPROM_SUBSYSTEM: usize = 0x0b;
/// The sum of all words of the EEPROM (5.6).
pub const EEPROM_SUM: u16 = 0xbaba;
