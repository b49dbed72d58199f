//! Saved state of the RTL8139C+.

use std::collections::VecDeque;

use lodge_net::MacAddress;
use lodge_pci::ConfigState;
use lodge_pci::bridges::registers::SUBSYSTEM;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::*;
use crate::eeprom::{Eeprom, WORDS};
use crate::frame::FrameState;

/// A ring of descriptors of C+ mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RingState {
    /// Where it lies.
    pub base: u64,
    /// The next descriptor.
    pub next: u8,
    /// It is to be looked at.
    pub polled: bool,
}

/// Counters that the guest has dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TallyState {
    /// Frames sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Of these, to the card's address.
    pub physical: u64,
    /// Of these, to all.
    pub broadcast: u64,
    /// Of these, to groups.
    pub groups: u32,
    /// Frames that were too long.
    pub errors: u32,
}

/// The card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rtl8139State {
    /// Its configuration space.
    pub config: ConfigState,
    /// Its EEPROM.
    pub eeprom: Eeprom,
    /// IDR, and the two bytes behind it.
    pub address: [u8; 8],
    /// MAR.
    pub groups: [u8; 8],
    /// TSD.
    pub status: [u32; 4],
    /// TSAD.
    pub addresses: [u32; 4],
    /// The transmit descriptor that is next.
    pub next: u8,
    /// RBSTART.
    pub ring: u32,
    /// CR.
    pub command: u8,
    /// Where the guest reads.
    pub read: u16,
    /// CBR: where the card writes.
    pub written: u16,
    /// IMR.
    pub mask: u16,
    /// ISR.
    pub causes: u16,
    /// TCR, what is written of it.
    pub transmit: u32,
    /// RCR.
    pub receive: u32,
    /// When the timer was zero, in guest time.
    pub timer_zero: u64,
    /// TimerInt.
    pub timer_interrupt: u32,
    /// When the timer interrupts.
    pub timer_due: Option<u64>,
    /// 9346CR, what is written of it.
    pub eeprom_command: u8,
    /// CONFIG 0, 1, 3, 4, 5.
    pub configuration: [u8; 5],
    /// MULINT.
    pub early: u16,
    /// BMCR.
    pub control: u16,
    /// ANAR.
    pub advertisement: u16,
    /// CPCR.
    pub plus: u16,
    /// IntrMitigate.
    pub mitigation: u16,
    /// ETThR.
    pub threshold: u8,
    /// The transmit rings of C+ mode: normal, and of high priority. Their addresses are those of TSAD.
    pub sends: [RingState; 2],
    /// The receive ring of C+ mode.
    pub receives: RingState,
    /// Where counters are dumped to.
    pub dump: [u32; 2],
    /// Counters.
    pub tally: TallyState,
    /// The cable was plugged in when it was looked at last.
    pub link: bool,
    /// Frames that have come, and wait for room.
    pub waiting: VecDeque<FrameState>,
}

impl Default for Rtl8139State {
    fn default() -> Self {
        Self {
            config: ConfigState::default(),
            eeprom: Eeprom::default(),
            address: [0; 8],
            groups: [0; 8],
            status: [TSD_OWN; 4],
            addresses: [0; 4],
            next: 0,
            ring: 0,
            command: 0,
            read: 0,
            written: 0,
            mask: 0,
            causes: 0,
            transmit: TCR_RESET,
            receive: 0,
            timer_zero: 0,
            timer_interrupt: 0,
            timer_due: None,
            eeprom_command: 0,
            configuration: [0, CONFIG1_FIXED, 0, 0, 0],
            early: 0,
            control: BMCR_RESET,
            advertisement: ANAR_RESET,
            plus: 0,
            mitigation: 0,
            threshold: 0,
            sends: [RingState::default(); 2],
            receives: RingState::default(),
            dump: [0; 2],
            tally: TallyState::default(),
            link: false,
            waiting: VecDeque::new(),
        }
    }
}

impl Saved for Rtl8139State {
    const KIND: &'static str = "rtl8139";
    const VERSION: u16 = 1;
}

impl Rtl8139State {
    /// A card after power-on.
    pub(super) fn new(address: MacAddress, link: bool, now: u64) -> Self {
        let eeprom = Eeprom::new(eeprom(address));
        let mut state = Self { eeprom, link, timer_zero: now, ..Self::default() };
        state.load();
        state
    }

    /// After CR's reset: addresses, EEPROM, PHY and configuration stay.
    pub(super) fn reset(&mut self) {
        let old = std::mem::take(self);
        *self = Self {
            config: old.config,
            eeprom: old.eeprom,
            address: old.address,
            groups: old.groups,
            timer_zero: old.timer_zero,
            eeprom_command: old.eeprom_command,
            configuration: old.configuration,
            control: old.control,
            advertisement: old.advertisement,
            tally: old.tally,
            link: old.link,
            ..Self::default()
        };
    }

    /// Loads the address from the EEPROM.
    pub(super) fn load(&mut self) {
        for n in 0..3 {
            let word = self.eeprom.word(EEPROM_ADDRESS + n);
            self.address[2 * n..][..2].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// The transmitter is in C+ mode.
    pub(super) fn sends_plus(&self) -> bool {
        self.plus & CPCR_TX != 0
    }

    /// What is sent comes back.
    pub(super) fn is_looped(&self) -> bool {
        self.transmit & TCR_LBK == TCR_LBK
    }

    /// Whether a card can be in it.
    pub(super) fn is_sound(&self) -> bool {
        let ring = |ring: &RingState| ring.next < MOST_DESCRIPTORS && ring.base & !RING_ADDRESS == 0;
        self.eeprom.is_sound()
            && self.next < 4
            && self.written.is_multiple_of(4)
            && self.sends.iter().all(ring)
            && ring(&self.receives)
            && self.waiting.iter().all(FrameState::is_sound)
    }
}

/// What is in the EEPROM of a card with this address.
fn eeprom(address: MacAddress) -> [u16; WORDS] {
    let mut words = [0; WORDS];
    for (at, value) in EEPROM {
        words[at] = value;
    }
    words[EEPROM_SUBSYSTEM..][..2].copy_from_slice(&SUBSYSTEM);
    let MacAddress([a, b, c, d, e, f]) = address;
    words[EEPROM_ADDRESS..][..3].copy_from_slice(&[[a, b], [c, d], [e, f]].map(u16::from_le_bytes));
    words
}
