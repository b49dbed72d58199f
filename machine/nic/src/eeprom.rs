//! The 93C46: 64 words of memory behind four wires (Microwire; Atmel AT93C46, "instruction set").
//!
//! ```text
//!   chip select ──► idle ──1──► command, 2 + 6 bits ──READ──► words go out, one after the other
//!        falls: idle ◄──────────────────┴──WRITE, WRAL──► 16 bits come in; written when chip select falls
//! ```

use serde::{Deserialize, Serialize};

/// How many words it has.
pub const WORDS: usize = 64;

/// Bits of a command behind the first one.
const COMMAND_BITS: u8 = 8;
const WORD_BITS: u8 = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    #[default]
    Idle,
    Command,
    Reading,
    Writing,
    /// As `Writing`, to every word.
    WritingAll,
    /// It waits for chip select to fall.
    Done,
}

/// The memory, which is its own saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eeprom {
    /// What is in it.
    words: Vec<u16>,
    phase: Phase,
    clock: bool,
    /// What has come in, or is to go out, and how many bits of it are done.
    shift: u16,
    bits: u8,
    address: u8,
    output: bool,
    /// Writing is enabled.
    writable: bool,
}

impl Default for Eeprom {
    fn default() -> Self {
        Self::new([0xffff; WORDS])
    }
}

impl Eeprom {
    /// A memory that holds `words`.
    pub(crate) fn new(words: [u16; WORDS]) -> Self {
        Self {
            words: words.to_vec(),
            phase: Phase::Idle,
            clock: false,
            shift: 0,
            bits: 0,
            address: 0,
            output: true,
            writable: false,
        }
    }

    /// A word.
    pub(crate) fn word(&self, address: usize) -> u16 {
        self.words.get(address % WORDS).copied().unwrap_or(0xffff)
    }

    /// The wire out of it; high while nothing goes out, which tells that a word was written, too.
    pub(crate) fn output(&self) -> bool {
        self.output
    }

    /// Drives the wires into it.
    pub(crate) fn drive(&mut self, select: bool, clock: bool, input: bool) {
        let rises = clock && !self.clock;
        self.clock = clock;
        if !select {
            self.deselect();
        } else if rises {
            self.bit(input);
        }
    }

    fn deselect(&mut self) {
        let whole = self.bits == WORD_BITS && self.writable;
        match self.phase {
            Phase::Writing if whole => self.words[usize::from(self.address)] = self.shift,
            Phase::WritingAll if whole => self.words.fill(self.shift),
            _ => {}
        }
        self.phase = Phase::Idle;
        self.output = true;
    }

    fn bit(&mut self, input: bool) {
        match self.phase {
            Phase::Idle if input => self.enter(Phase::Command),
            Phase::Idle | Phase::Done => {}
            Phase::Command => {
                self.take(input);
                if self.bits == COMMAND_BITS {
                    self.command();
                }
            }
            Phase::Reading => {
                self.output = self.shift >> 15 != 0;
                self.shift <<= 1;
                self.bits += 1;
                if self.bits == WORD_BITS {
                    self.address = (self.address + 1) % WORDS as u8;
                    (self.shift, self.bits) = (self.word(self.address.into()), 0);
                }
            }
            Phase::Writing | Phase::WritingAll if self.bits < WORD_BITS => self.take(input),
            Phase::Writing | Phase::WritingAll => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.shift, self.bits) = (phase, 0, 0);
    }

    fn take(&mut self, input: bool) {
        self.shift = self.shift << 1 | u16::from(input);
        self.bits += 1;
    }

    fn command(&mut self) {
        let (operation, address) = (self.shift >> 6 & 3, (self.shift & 0x3f) as u8);
        self.address = address;
        match (operation, address >> 4) {
            (0b10, _) => {
                self.enter(Phase::Reading);
                self.shift = self.word(address.into());
                // A zero goes before the word.
                self.output = false;
            }
            (0b01, _) => self.enter(Phase::Writing),
            (0b11, _) => self.erase(|words| words[usize::from(address)] = 0xffff),
            (_, 0b11) => self.enable(true),
            (_, 0b00) => self.enable(false),
            (_, 0b10) => self.erase(|words| words.fill(0xffff)),
            _ => self.enter(Phase::WritingAll),
        }
    }

    fn enable(&mut self, writable: bool) {
        self.writable = writable;
        self.enter(Phase::Done);
    }

    fn erase(&mut self, what: impl FnOnce(&mut [u16])) {
        if self.writable {
            what(&mut self.words);
        }
        self.enter(Phase::Done);
    }

    /// Whether there can be such a memory.
    pub(crate) fn is_sound(&self) -> bool {
        self.words.len() == WORDS && self.bits <= WORD_BITS && usize::from(self.address) < WORDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Driver(Eeprom);

    impl Driver {
        fn clock_in(&mut self, value: u32, bits: u32) {
            for bit in (0..bits).rev() {
                let input = value >> bit & 1 != 0;
                self.0.drive(true, false, input);
                self.0.drive(true, true, input);
                self.0.drive(true, false, input);
            }
        }
        fn clock_out(&mut self) -> u16 {
            (0..16).fold(0, |word, _| {
                self.0.drive(true, true, false);
                let bit = self.0.output();
                self.0.drive(true, false, false);
                word << 1 | u16::from(bit)
            })
        }
        fn end(&mut self) {
            self.0.drive(false, false, false);
        }
        fn read(&mut self, address: u32) -> u16 {
            self.clock_in(0b110 << 6 | address, 9);
            assert!(!self.0.output(), "a zero comes first");
            let word = self.clock_out();
            self.end();
            word
        }
        fn run(&mut self, command: u32) {
            self.clock_in(0b100 << 6 | command, 9);
            self.end();
        }
        fn write(&mut self, address: u32, value: u16) {
            self.clock_in(0b101 << 6 | address, 9);
            self.clock_in(value.into(), 16);
            self.end();
        }
    }

    fn driver() -> Driver {
        Driver(Eeprom::new(std::array::from_fn(|n| 0x1234 + n as u16)))
    }

    #[test]
    fn words_are_read_one_and_several() {
        let mut driver = driver();
        assert_eq!(driver.read(0), 0x1234);
        assert_eq!(driver.read(63), 0x1273);
        driver.clock_in(0b110 << 6 | 62, 9);
        let words = [driver.clock_out(), driver.clock_out(), driver.clock_out()];
        assert_eq!(words, [0x1272, 0x1273, 0x1234], "from the last word it goes on at the first");
    }

    #[test]
    fn writing_has_to_be_enabled() {
        let mut driver = driver();
        driver.write(5, 0xbeef);
        assert_eq!(driver.read(5), 0x1239);
        driver.run(0b11 << 4);
        driver.write(5, 0xbeef);
        assert_eq!(driver.read(5), 0xbeef);
        // Too few bits are no word.
        driver.clock_in(0b101 << 6 | 5, 9);
        driver.clock_in(0, 15);
        driver.end();
        assert_eq!(driver.read(5), 0xbeef);
        driver.clock_in(0b111 << 6 | 6, 9);
        driver.end();
        assert_eq!(driver.read(6), 0xffff, "erased");
        driver.clock_in(0b100 << 6 | 0b01 << 4, 9);
        driver.clock_in(0x0ff0, 16);
        driver.end();
        assert_eq!([driver.read(0), driver.read(63)], [0x0ff0; 2], "all are written");
        driver.run(0b10 << 4);
        assert_eq!(driver.read(9), 0xffff, "all are erased");
        driver.run(0);
        driver.write(5, 1);
        assert_eq!(driver.read(5), 0xffff, "writing is disabled");
    }

    #[test]
    fn leading_zeros_are_skipped_and_a_lost_clock_is_harmless() {
        let mut driver = driver();
        driver.clock_in(0, 32);
        assert_eq!(driver.read(3), 0x1237);
        for n in 0..10_000u32 {
            driver.0.drive(n % 97 != 0, n % 2 == 0, n * n % 7 < 3);
        }
        assert!(driver.0.is_sound());
        driver.end();
    }
}
