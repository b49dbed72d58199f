//! Counters of the 82540EM (317453, section 13.7). They are cleared when they are read, and stay at their most.

use serde::{Deserialize, Serialize};

use super::registers::STATISTICS;

/// How many registers there are.
const COUNT: usize = 64;

const fn index(register: u32) -> usize {
    (register - *STATISTICS.start()) as usize / 4
}

/// Received frames by size: 64, to 127, to 255, to 511, to 1023, more.
const PRC64: usize = index(0x405c);
const GPRC: usize = index(0x4074);
const BPRC: usize = index(0x4078);
const MPRC: usize = index(0x407c);
const GPTC: usize = index(0x4080);
const GORC: usize = index(0x4088);
const GOTC: usize = index(0x4090);
const ROC: usize = index(0x40ac);
const TOR: usize = index(0x40c0);
const TOT: usize = index(0x40c8);
const TPR: usize = index(0x40d0);
const TPT: usize = index(0x40d4);
/// Transmitted frames by size.
const PTC64: usize = index(0x40d8);
const MPTC: usize = index(0x40f0);
const BPTC: usize = index(0x40f4);
const TSCTC: usize = index(0x40f8);
/// Where the counters of 64 bits are.
const WIDE: [usize; 4] = [GORC, GOTC, TOR, TOT];

/// The counters, which are their own saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    counters: Vec<u32>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { counters: vec![0; COUNT] }
    }
}

impl Statistics {
    /// Reads a counter, which clears it; one of 64 bits when its upper half is read.
    pub(super) fn read(&mut self, register: u32) -> u32 {
        let at = index(register);
        if WIDE.contains(&at) {
            return self.counters[at];
        }
        if at > 0 && WIDE.contains(&(at - 1)) {
            self.counters[at - 1] = 0;
        }
        std::mem::take(&mut self.counters[at])
    }

    fn add(&mut self, at: usize, count: u32) {
        self.counters[at] = self.counters[at].saturating_add(count);
    }

    fn add_wide(&mut self, at: usize, count: u64) {
        let value = u64::from(self.counters[at]) | u64::from(self.counters[at + 1]) << 32;
        let value = value.saturating_add(count);
        (self.counters[at], self.counters[at + 1]) = (value as u32, (value >> 32) as u32);
    }

    /// A frame came, of so many bytes with its check sequence.
    pub(super) fn came(&mut self, bytes: usize) {
        self.add(TPR, 1);
        self.add_wide(TOR, bytes as u64);
    }

    /// It was for this card.
    pub(super) fn received(&mut self, bytes: usize, frame: &[u8]) {
        self.add(GPRC, 1);
        self.add_wide(GORC, bytes as u64);
        self.add(PRC64 + class(bytes), 1);
        match group(frame) {
            Group::All => self.add(BPRC, 1),
            Group::Some => self.add(MPRC, 1),
            Group::None => {}
        }
    }

    /// It was too long.
    pub(super) fn oversized(&mut self) {
        self.add(ROC, 1);
    }

    /// `count` frames were sent that begin like `frame`, each of so many bytes with its check sequence.
    pub(super) fn sent(&mut self, bytes: usize, count: u32, frame: &[u8]) {
        let all = bytes as u64 * u64::from(count);
        for at in [TPT, GPTC] {
            self.add(at, count);
        }
        for at in [TOT, GOTC] {
            self.add_wide(at, all);
        }
        self.add(PTC64 + class(bytes), count);
        match group(frame) {
            Group::All => self.add(BPTC, count),
            Group::Some => self.add(MPTC, count),
            Group::None => {}
        }
    }

    /// A large segment was cut.
    pub(super) fn segmented(&mut self) {
        self.add(TSCTC, 1);
    }

    pub(super) fn is_sound(&self) -> bool {
        self.counters.len() == COUNT
    }
}

enum Group {
    All,
    Some,
    None,
}

fn group(frame: &[u8]) -> Group {
    match frame.first_chunk::<6>() {
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => Group::All,
        Some([first, ..]) if first & 1 != 0 => Group::Some,
        _ => Group::None,
    }
}

/// Which of the six counters by size a frame belongs to.
fn class(bytes: usize) -> usize {
    [64, 127, 255, 511, 1023].iter().filter(|most| bytes > **most).count()
}
