//! Saved state of the 82540EM.

use std::collections::VecDeque;

use lodge_net::{LARGEST, MacAddress};
use lodge_pci::ConfigState;
use lodge_pci::bridges::registers::SUBSYSTEM as PCI_SUBSYSTEM;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

pub use super::phy::Phy;
use super::registers::*;
pub use super::statistics::Statistics;
use crate::eeprom::{Eeprom, WORDS};
use crate::frame::FrameState;

/// A ring of descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RingState {
    /// Where it lies.
    pub base: u64,
    /// Bytes of it.
    pub length: u32,
    /// The card's end.
    pub head: u32,
    /// The guest's end.
    pub tail: u32,
}

impl RingState {
    /// How many descriptors it has.
    pub(super) fn count(&self) -> u32 {
        self.length / DESCRIPTOR as u32
    }

    /// How many of them are the card's. None if an end is beyond the ring.
    pub(super) fn ready(&self) -> u32 {
        let count = self.count();
        if self.head >= count || self.tail >= count {
            return 0;
        }
        (self.tail + count - self.head) % count
    }

    /// Where the descriptor at the head is.
    pub(super) fn at(&self) -> u64 {
        self.base.wrapping_add(u64::from(self.head) * DESCRIPTOR)
    }

    /// The head goes on.
    pub(super) fn advance(&mut self) {
        self.head = (self.head + 1) % self.count().max(1);
    }

    /// Reads one of its registers, by its place from the first.
    pub(super) fn read(&self, offset: u32) -> u32 {
        match offset {
            0x00 => self.base as u32,
            0x04 => (self.base >> 32) as u32,
            0x08 => self.length,
            0x10 => self.head,
            0x18 => self.tail,
            _ => 0,
        }
    }

    /// Writes one of its registers.
    pub(super) fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x00 => self.base = self.base & !0xffff_ffff | u64::from(value & !0xf),
            0x04 => self.base = self.base & 0xffff_ffff | u64::from(value) << 32,
            0x08 => self.length = value & LENGTH_WRITABLE,
            0x10 => self.head = value & 0xffff,
            0x18 => self.tail = value & 0xffff,
            _ => {}
        }
    }

    fn is_sound(&self) -> bool {
        self.length & !LENGTH_WRITABLE == 0 && self.base & 0xf == 0 && self.head <= 0xffff && self.tail <= 0xffff
    }
}

/// Where checksums are, and how large packets are cut (3.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextState {
    /// IP: start, place, last byte or 0.
    pub ip: (u8, u8, u16),
    /// TCP or UDP: start, place, last byte or 0.
    pub transport: (u8, u8, u16),
    /// Bytes of the headers.
    pub header: u8,
    /// Most bytes of data in each.
    pub size: u16,
    /// It is TCP.
    pub tcp: bool,
    /// It is IPv4.
    pub ipv4: bool,
}

/// A frame of which not all descriptors are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartialState {
    /// What is there of it.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// A descriptor was read.
    pub begun: bool,
    /// Some of it was not to be had, or it is too large: it is lost.
    pub bad: bool,
    /// It is to be cut.
    pub segmented: bool,
    /// Which checksums are made by a context.
    pub options: u8,
    /// A checksum without a context: start and place.
    pub checksum: Option<(u8, u8)>,
    /// A tag goes into it.
    pub tag: Option<u16>,
}

/// The transmitter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransmitState {
    /// Control.
    pub control: u32,
    /// The ring.
    pub ring: RingState,
    /// The context for checksums.
    pub context: ContextState,
    /// The context for segmentation.
    pub segmentation: ContextState,
    /// The frame that is being put together.
    pub partial: PartialState,
    /// A frame for which the network had no room.
    pub held: Option<FrameState>,
}

/// The receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceiveState {
    /// Control.
    pub control: u32,
    /// The ring.
    pub ring: RingState,
    /// Addresses: low and high words in turn.
    pub addresses: Vec<u32>,
    /// Groups by hash.
    pub groups: Vec<u32>,
    /// VLANs.
    pub vlans: Vec<u32>,
    /// Frames that have come, and wait for descriptors.
    pub waiting: VecDeque<FrameState>,
}

impl Default for ReceiveState {
    fn default() -> Self {
        Self {
            control: 0,
            ring: RingState::default(),
            addresses: vec![0; 2 * ADDRESSES],
            groups: vec![0; TABLE],
            vlans: vec![0; TABLE],
            waiting: VecDeque::new(),
        }
    }
}

/// The card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct E1000State {
    /// Its configuration space.
    pub config: ConfigState,
    /// Its EEPROM.
    pub eeprom: Eeprom,
    /// Its PHY.
    pub phy: Phy,
    /// Which register the ports lead to.
    pub port_address: u32,
    /// Device control.
    pub control: u32,
    /// Extended device control.
    pub extended: u32,
    /// EEPROM control, what is written of it.
    pub eeprom_control: u32,
    /// EEPROM read.
    pub eeprom_read: u32,
    /// Management of the PHY.
    pub phy_access: u32,
    /// Type of VLAN tags.
    pub vlan_type: u16,
    /// Causes of interrupts.
    pub causes: u32,
    /// Causes that interrupt.
    pub mask: u32,
    /// Throttling: 256 ns each.
    pub throttle: u32,
    /// The interrupt is asserted.
    pub asserted: bool,
    /// When it may be asserted again, in guest time.
    pub next_interrupt: u64,
    /// The cable was plugged in when it was looked at last.
    pub link: bool,
    /// Registers that hold what is written.
    pub stored: Vec<u32>,
    /// Counters.
    pub statistics: Statistics,
    /// The transmitter.
    pub transmit: TransmitState,
    /// The receiver.
    pub receive: ReceiveState,
}

impl Default for E1000State {
    fn default() -> Self {
        Self {
            config: ConfigState::default(),
            eeprom: Eeprom::default(),
            phy: Phy::default(),
            port_address: 0,
            control: CTRL_RESET,
            extended: 0,
            eeprom_control: 0,
            eeprom_read: 0,
            phy_access: 0,
            vlan_type: 0,
            causes: 0,
            mask: 0,
            throttle: 0,
            asserted: false,
            next_interrupt: 0,
            link: false,
            stored: STORED.iter().map(|(_, _, value)| *value).collect(),
            statistics: Statistics::default(),
            transmit: TransmitState::default(),
            receive: ReceiveState::default(),
        }
    }
}

impl Saved for E1000State {
    const KIND: &'static str = "e1000";
    const VERSION: u16 = 1;
}

impl E1000State {
    /// A card after power-on.
    pub(super) fn new(address: MacAddress, link: bool) -> Self {
        let mut state = Self { eeprom: Eeprom::new(eeprom(address)), link, ..Self::default() };
        state.load_address();
        state
    }

    /// After CTRL.RST: what is not the controller's stays.
    pub(super) fn reset(&mut self) {
        let old = std::mem::take(self);
        let Self { config, eeprom, phy, port_address, link, .. } = old;
        *self = Self { config, eeprom, phy, port_address, link, ..Self::default() };
        self.load_address();
    }

    /// The first receive address is that of the EEPROM (5.6).
    pub(super) fn load_address(&mut self) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(self.eeprom.word(at)));
        self.receive.addresses[0] = a | b << 16;
        self.receive.addresses[1] = c | RAH_AV;
    }

    /// A register that holds what is written.
    pub(super) fn stored(&self, register: u32) -> u32 {
        STORED.iter().position(|(place, ..)| *place == register).map_or(0, |at| self.stored[at])
    }

    /// Whether a card can be in it.
    pub(super) fn is_sound(&self) -> bool {
        let (transmit, receive) = (&self.transmit, &self.receive);
        self.eeprom.is_sound()
            && self.phy.is_sound()
            && self.statistics.is_sound()
            && self.stored.len() == STORED.len()
            && transmit.ring.is_sound()
            && transmit.partial.bytes.len() <= LARGEST
            && transmit.held.as_ref().is_none_or(FrameState::is_sound)
            && receive.ring.is_sound()
            && receive.addresses.len() == 2 * ADDRESSES
            && receive.groups.len() == TABLE
            && receive.vlans.len() == TABLE
            && receive.waiting.iter().all(FrameState::is_sound)
    }
}

/// What is in the EEPROM of a card with this address (5.6).
fn eeprom(address: MacAddress) -> [u16; WORDS] {
    let mut words = [0xffff; WORDS];
    let MacAddress([a, b, c, d, e, f]) = address;
    words[..3].copy_from_slice(&[[a, b], [c, d], [e, f]].map(u16::from_le_bytes));
    for (at, values) in EEPROM {
        words[at..at + values.len()].copy_from_slice(values);
    }
    let [vendor, device] = PCI_SUBSYSTEM;
    words[EEPROM_SUBSYSTEM..][..2].copy_from_slice(&[device, vendor]);
    let sum = words[..WORDS - 1].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    words[WORDS - 1] = EEPROM_SUM.wrapping_sub(sum);
    words
}
