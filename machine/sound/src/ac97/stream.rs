//! A box of the bus master: it works through a ring of 32 descriptors at the codec's rate (82801AA 13.2).
//!
//! ```text
//!               run                    last sample of a buffer
//!   halted ───────────► running ──────────────────────────────► next descriptor: running
//!     ▲                  │    ▲                                └─ it was the last valid one: halted, CELV
//!     └──── stop ────────┘    └──── new last valid index ─────────────────┘
//! ```

use lodge_engine_api::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use crate::mixer::Voice;
use crate::pace::Pace;
use crate::sink::Frame;

/// Samples moved at a time.
const PIECE: u64 = 2048;
/// Descriptors looked at before something else has a turn: empty ones take no time.
const MOST_DESCRIPTORS: u32 = 32;
/// How often to come back, in nanoseconds, unless a buffer ends earlier.
const INTERVAL: u64 = 4_000_000;

/// A box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Where the list of descriptors is.
    pub list: u32,
    /// Current index.
    pub current: u8,
    /// Last valid index.
    pub last: u8,
    /// Prefetched index.
    pub prefetched: u8,
    /// Status.
    pub status: u8,
    /// Control.
    pub control: u8,
    /// Samples left in the current buffer.
    pub left: u16,
    /// Where the next one is.
    pub address: u32,
    /// The current descriptor's control.
    pub descriptor: u16,
    /// There is a current descriptor.
    pub loaded: bool,
    /// Samples in guest time.
    pub pace: Pace,
    /// The left sample of a frame whose right one is in the next buffer.
    pub part: Option<i16>,
}

impl Default for StreamState {
    fn default() -> Self {
        Self {
            list: 0,
            current: 0,
            last: 0,
            prefetched: 0,
            status: DCH,
            control: 0,
            left: 0,
            address: 0,
            descriptor: 0,
            loaded: false,
            pace: Pace::default(),
            part: None,
        }
    }
}

/// What a box works with.
pub(super) struct Surroundings<'a> {
    pub memory: &'a GuestMemory,
    /// Memory can be accessed.
    pub master: bool,
    /// What is played goes there; boxes without one record.
    pub voice: Option<&'a mut Voice>,
}

impl StreamState {
    pub(super) fn is_sound(&self) -> bool {
        self.current.max(self.last).max(self.prefetched) < DESCRIPTORS && self.pace.rate <= 2 * u32::from(RATE)
    }

    pub(super) fn is_running(&self) -> bool {
        self.control & RPBM != 0 && self.status & DCH == 0
    }

    /// Whether it asks for an interrupt.
    pub(super) fn interrupts(&self) -> bool {
        let on = |event: u8, enable: u8| self.status & event != 0 && self.control & enable != 0;
        on(LVBCI, LVBIE) || on(BCIS, IOCE) || on(FIFOE, FEIE)
    }

    /// When there will be something to do.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        let end = self.pace.moment(self.left.max(1).into());
        self.is_running().then(|| end.min(now.saturating_add(INTERVAL)).max(now.saturating_add(1)))
    }

    /// Samples a second from now on.
    pub(super) fn set_rate(&mut self, now: u64, samples: u32) {
        if self.pace.rate != samples {
            self.pace = Pace::new(now, samples);
        }
    }

    /// The byte at an offset.
    pub(super) fn read(&self, offset: u16) -> u8 {
        match offset {
            LIST..=LIST_LAST => self.list.to_le_bytes()[usize::from(offset - LIST)],
            CURRENT => self.current,
            LAST => self.last,
            STATUS => self.status,
            LEFT => self.left as u8,
            0x9 => (self.left >> 8) as u8,
            PREFETCHED => self.prefetched,
            CONTROL => self.control,
            _ => 0,
        }
    }

    /// Writes the byte at an offset. Samples a second are for what begins now.
    pub(super) fn write(&mut self, offset: u16, value: u8, now: u64, samples: u32, around: &mut Surroundings<'_>) {
        match offset {
            LIST..=LIST_LAST => {
                let mut bytes = self.list.to_le_bytes();
                bytes[usize::from(offset - LIST)] = value;
                self.list = u32::from_le_bytes(bytes) & !7;
            }
            LAST => {
                self.last = value % DESCRIPTORS;
                if self.status & CELV != 0 {
                    self.status &= !CELV;
                    if self.control & RPBM != 0 {
                        self.go(now, samples, around);
                    }
                }
            }
            STATUS => self.status &= !(value & STATUS_EVENTS),
            CONTROL => {
                let runs = self.control & RPBM != 0;
                self.control = value & (RPBM | LVBIE | FEIE | IOCE);
                if value & RR != 0 && value & RPBM == 0 {
                    *self = Self { control: self.control, ..Self::default() };
                    around.stop();
                } else if runs && value & RPBM == 0 {
                    self.status |= DCH;
                    around.stop();
                } else if !runs && value & RPBM != 0 && self.status & CELV == 0 {
                    self.go(now, samples, around);
                }
            }
            _ => {}
        }
    }

    /// Starts, or goes on where it was stopped.
    fn go(&mut self, now: u64, samples: u32, around: &mut Surroundings<'_>) {
        self.status &= !DCH;
        self.pace = Pace::new(now, samples);
        if self.left == 0 && around.master {
            self.next(around.memory);
        }
    }

    /// Takes the next descriptor.
    fn next(&mut self, memory: &GuestMemory) {
        self.current = self.prefetched % DESCRIPTORS;
        self.prefetched = (self.current + 1) % DESCRIPTORS;
        let mut bytes = [0; 8];
        let at = GuestAddress(u64::from(self.list) + 8 * u64::from(self.current));
        if memory.read_slice(&mut bytes, at).is_err() {
            bytes = [0; 8];
        }
        let [a0, a1, a2, a3, l0, l1, c0, c1] = bytes;
        self.address = u32::from_le_bytes([a0, a1, a2, a3]) & !1;
        self.left = u16::from_le_bytes([l0, l1]);
        self.descriptor = u16::from_le_bytes([c0, c1]);
        self.loaded = true;
    }

    /// The current buffer has been processed.
    fn complete(&mut self, around: &mut Surroundings<'_>) {
        self.loaded = false;
        if self.descriptor & DESCRIPTOR_IOC != 0 {
            self.status |= BCIS;
        }
        if self.current == self.last {
            self.status |= LVBCI | CELV | DCH;
            around.stop();
        } else {
            self.next(around.memory);
        }
    }

    /// Moves what is due up to now; frames have so many channels.
    pub(super) fn advance(&mut self, now: u64, channels: u32, around: &mut Surroundings<'_>) {
        if !self.is_running() {
            return;
        }
        if !around.master {
            // Time begins when memory can be reached.
            self.pace = Pace::new(now, self.pace.rate);
            return around.stop();
        }
        let mut due = self.pace.due(now);
        let mut descriptors = 0;
        while self.is_running() && descriptors < MOST_DESCRIPTORS {
            if self.left == 0 {
                descriptors += 1;
                if self.loaded {
                    self.complete(around)
                } else {
                    self.next(around.memory)
                }
                continue;
            }
            let count = due.min(self.left.into()).min(PIECE);
            if count == 0 {
                break;
            }
            self.move_samples(count as usize, channels, around);
            self.pace.done += count;
            self.left -= count as u16;
            due -= count;
            if self.left == 0 {
                descriptors += 1;
                self.complete(around);
            }
        }
    }

    fn move_samples(&mut self, count: usize, channels: u32, around: &mut Surroundings<'_>) {
        let mut data = vec![0; 2 * count];
        let address = GuestAddress(self.address.into());
        self.address = self.address.wrapping_add(data.len() as u32);
        let Some(voice) = &mut around.voice else {
            // A line without a signal. Where there is no memory it goes nowhere.
            let _ = around.memory.write_slice(&data, address);
            return;
        };
        if around.memory.read_slice(&mut data, address).is_err() {
            data.fill(0);
        }
        let at = self.pace.next();
        let mut frames: Vec<Frame> = Vec::with_capacity(count);
        for sample in data.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])) {
            match self.part.take() {
                _ if channels == 1 => frames.push([sample; 2]),
                Some(left) => frames.push([left, sample]),
                None => self.part = Some(sample),
            }
        }
        voice.play(at, self.pace.rate / channels.max(1), &frames);
    }
}

impl Surroundings<'_> {
    fn stop(&mut self) {
        if let Some(voice) = &mut self.voice {
            voice.stop();
        }
    }
}
