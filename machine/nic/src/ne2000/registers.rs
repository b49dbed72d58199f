//! Registers of the DP8390D (National Semiconductor's data sheet), of the NE2000 around it, and what Realtek's RTL8029AS
//! adds (its data sheet, pages 0 and 3).

/// Vendor of the PCI card.
pub const VENDOR: u16 = 0x10ec;
/// Device of the PCI card: RTL8029AS.
pub const DEVICE: u16 = 0x8029;
/// Ports: registers, data, reset.
pub const PORTS: u16 = 0x20;
/// The first data port; all of them are the same.
pub const DATA: u16 = 0x10;
/// The first reset port; all of them are the same.
pub const RESET: u16 = 0x18;

/// Bytes of the memory that frames are in.
pub const RAM: usize = 0x4000;
/// Where it is.
pub const RAM_BASE: u16 = 0x4000;
/// Bytes of the PROM, which begins at 0.
pub const PROM: usize = 0x20;
/// Address lines that are decoded: the uppermost is not.
pub const DECODED: u16 = 0x7fff;
/// What the last bytes of the PROM say that the card can do words.
pub const SIGNATURE: u8 = 0x57;
/// Bytes of a page.
pub const PAGE: u16 = 256;

/// Command, on every page.
pub const CR: u16 = 0x0;

/// CR: stop.
pub const CR_STP: u8 = 1 << 0;
/// CR: start.
pub const CR_STA: u8 = 1 << 1;
/// CR: transmit.
pub const CR_TXP: u8 = 1 << 2;
/// CR: remote DMA.
pub const CR_RD: u8 = 0b111 << 3;
/// CR: remote DMA, read.
pub const CR_READ: u8 = 0b001 << 3;
/// CR: remote DMA, write.
pub const CR_WRITE: u8 = 0b010 << 3;
/// CR: remote DMA, the next packet of the ring.
pub const CR_SEND: u8 = 0b011 << 3;
/// CR: remote DMA, given up or complete.
pub const CR_ABORT: u8 = 0b100 << 3;
/// Where CR says which page there is.
pub const CR_PAGE: u32 = 6;

/// Causes of interrupts, ISR.
pub mod cause {
    #![expect(missing_docs, reason = "the names are the data sheet's")]
    pub const PRX: u8 = 1 << 0;
    pub const PTX: u8 = 1 << 1;
    pub const RXE: u8 = 1 << 2;
    pub const TXE: u8 = 1 << 3;
    pub const CNT: u8 = 1 << 5;
    pub const RDC: u8 = 1 << 6;
    pub const RST: u8 = 1 << 7;
}

/// DCR: words.
pub const DCR_WTS: u8 = 1 << 0;
/// TCR: the check sequence is in the frame.
pub const TCR_CRC: u8 = 1 << 0;
/// TCR: loopback, of three kinds.
pub const TCR_LB: u8 = 0b11 << 1;
/// RCR: broadcasts.
pub const RCR_AB: u8 = 1 << 2;
/// RCR: groups.
pub const RCR_AM: u8 = 1 << 3;
/// RCR: all single addresses.
pub const RCR_PRO: u8 = 1 << 4;
/// RCR: frames are looked at and not kept.
pub const RCR_MON: u8 = 1 << 5;
/// TSR: it was sent.
pub const TSR_PTX: u8 = 1 << 0;
/// TSR: it was given up.
pub const TSR_ABT: u8 = 1 << 3;
/// TSR: carrier sense was lost.
pub const TSR_CRS: u8 = 1 << 4;
/// TSR: there was no heartbeat.
pub const TSR_CDH: u8 = 1 << 6;
/// RSR: received.
pub const RSR_PRX: u8 = 1 << 0;
/// RSR: the check sequence is wrong.
pub const RSR_CRC: u8 = 1 << 1;
/// RSR: to a group or to all.
pub const RSR_PHY: u8 = 1 << 5;

/// Most bytes of a frame, without its check sequence.
pub const LONGEST: usize = 1518;

/// What the RTL8029AS says it is, on page 0: "P", "C".
pub const ID: [u8; 2] = [0x50, 0x43];
/// What it says it is, on page 3.
pub const ID_PAGE_3: [u8; 2] = [0x29, 0x80];
/// Page 3, CONFIG2: 10BASE-T.
pub const CONFIG2: u8 = 0x40;
/// Page 3, CONFIG3: full duplex.
pub const CONFIG3_FUDUP: u8 = 1 << 6;
/// Page 3, 9346CR: what it is about.
pub const EE_MODE: u8 = 0b11 << 6;
