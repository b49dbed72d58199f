//! The 8259A interrupt controller pair.
//!
//! [`Pic`] holds the two [`Chip`]s, the slave's output wired to the master's input 2. It is plain data without a lock:
//! [`crate::Controllers`] owns it, feeds it levels and reads its output.
//!
//! ```text
//!   IR0..1 ----+
//!   slave -----+ IR2   master --- INTR
//!   IR3..7 ----+
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use registers::*;
pub use state::{ChipState, PicState, Step};

/// One 8259A.
#[derive(Clone, Debug, Default)]
struct Chip {
    // configuration
    is_master: bool,
    elcr_mask: u8,
    // volatile
    state: ChipState,
}

impl Chip {
    fn level_inputs(&self) -> u8 {
        if self.state.level_mode { 0xff } else { self.state.elcr }
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << (input & 7);
        let state = &mut self.state;
        let rising = high && state.lines & bit == 0;
        state.lines = if high { state.lines | bit } else { state.lines & !bit };
        if self.level_inputs() & bit != 0 {
            let state = &mut self.state;
            state.irr = if high { state.irr | bit } else { state.irr & !bit };
        } else if rising {
            self.state.irr |= bit;
        }
    }

    /// The distance from the highest priority of the most urgent input in `set`; 8 if there is none.
    fn rank(&self, set: u8) -> u8 {
        set.rotate_right(u32::from(self.state.highest)).trailing_zeros() as u8
    }

    /// The input that would interrupt now.
    fn pending(&self) -> Option<u8> {
        let state = &self.state;
        let requested = self.rank(state.irr & !state.imr);
        let mut serving = state.isr;
        if state.special_mask {
            serving &= !state.imr;
        }
        if state.nested && self.is_master {
            // The slave may interrupt its own service (special fully nested mode).
            serving &= !(1 << CASCADE);
        }
        (requested < self.rank(serving)).then(|| requested.wrapping_add(state.highest) & 7)
    }

    fn acknowledge(&mut self, input: u8) {
        let level = self.level_inputs();
        let state = &mut self.state;
        let bit = 1 << input;
        if state.auto_eoi {
            if state.rotate_on_auto_eoi {
                state.highest = (input + 1) & 7;
            }
        } else {
            state.isr |= bit;
        }
        if level & bit == 0 {
            state.irr &= !bit;
        }
    }

    /// Acknowledges what is pending, or else the spurious input 7.
    fn take(&mut self) -> u8 {
        match self.pending() {
            Some(input) => {
                self.acknowledge(input);
                input
            }
            None => 7,
        }
    }

    fn begin_initialization(&mut self, value: u8) {
        let elcr = self.state.elcr;
        let lines = self.state.lines;
        self.state = ChipState {
            elcr,
            lines,
            level_mode: value & ICW1_LEVEL != 0,
            step: Step::Icw2,
            wants_icw4: value & ICW1_ICW4 != 0,
            single: value & ICW1_SINGLE != 0,
            ..ChipState::default()
        };
        // The edge-sense circuits are reset: an edge input needs a new edge.
        self.state.irr = lines & self.level_inputs();
    }

    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        let state = &mut self.state;
        match value >> 5 {
            // Rotate in automatic EOI mode: clear, set.
            0 => state.rotate_on_auto_eoi = false,
            4 => state.rotate_on_auto_eoi = true,
            // Non-specific EOI, with and without rotation.
            command @ (1 | 5) => {
                let mut serving = state.isr;
                if state.special_mask {
                    // A masked bit is not cleared by a non-specific EOI ("Special mask mode").
                    serving &= !state.imr;
                }
                let rank = self.rank(serving);
                if rank < 8 {
                    let state = &mut self.state;
                    let input = rank.wrapping_add(state.highest) & 7;
                    state.isr &= !(1 << input);
                    if command == 5 {
                        state.highest = (input + 1) & 7;
                    }
                }
            }
            // Specific EOI, with and without rotation.
            command @ (3 | 7) => {
                state.isr &= !(1 << level);
                if command == 7 {
                    state.highest = (level + 1) & 7;
                }
            }
            6 => state.highest = (level + 1) & 7,
            _ => {}
        }
    }

    fn write(&mut self, second: bool, value: u8) {
        if !second {
            if value & ICW1 != 0 {
                self.begin_initialization(value);
            } else if value & OCW3 != 0 {
                let state = &mut self.state;
                state.poll = value & OCW3_POLL != 0;
                if value & OCW3_READ != 0 {
                    state.read_isr = value & 1 != 0;
                }
                if value & OCW3_SET_MASK_MODE != 0 {
                    state.special_mask = value & 0x20 != 0;
                }
            } else {
                self.ocw2(value);
            }
            return;
        }
        let state = &mut self.state;
        match state.step {
            Step::Ready => state.imr = value,
            Step::Icw2 => {
                state.base = value & 0xf8;
                state.step = match (state.single, state.wants_icw4) {
                    (false, _) => Step::Icw3,
                    (true, true) => Step::Icw4,
                    (true, false) => Step::Ready,
                };
            }
            // The cascade is wired, whatever ICW3 says.
            Step::Icw3 => state.step = if state.wants_icw4 { Step::Icw4 } else { Step::Ready },
            Step::Icw4 => {
                state.nested = value & ICW4_NESTED != 0;
                state.auto_eoi = value & ICW4_AUTO_EOI != 0;
                state.step = Step::Ready;
            }
        }
    }

    fn read(&mut self, second: bool) -> u8 {
        if self.state.poll {
            self.state.poll = false;
            // Poll word: bit 7 says whether there was an interrupt ("Poll command").
            return match self.pending() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (second, self.state.read_isr) {
            (true, _) => self.state.imr,
            (false, true) => self.state.isr,
            (false, false) => self.state.irr,
        }
    }

    fn set_elcr(&mut self, value: u8) {
        let state = &mut self.state;
        state.elcr = value & self.elcr_mask;
        // Inputs that are level-triggered now follow their lines.
        let level = state.elcr;
        state.irr = state.irr & !level | state.lines & level;
    }
}

/// The pair.
#[derive(Clone, Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// The pair after power-on. All inputs are masked until initialized, as after firmware that did nothing.
    pub fn new() -> Self {
        let chip = |is_master: bool, elcr_mask| Chip { is_master, elcr_mask, state: ChipState::default() };
        let mut pic = Self { master: chip(true, ELCR_MASK[0]), slave: chip(false, ELCR_MASK[1]) };
        pic.master.state.imr = 0xff;
        pic.slave.state.imr = 0xff;
        pic
    }

    /// Back to power-on; the lines keep their levels.
    pub fn reset(&mut self) {
        let lines = [self.master.state.lines & !(1 << CASCADE), self.slave.state.lines];
        *self = Self::new();
        self.master.state.lines = lines[0];
        self.slave.state.lines = lines[1];
    }

    fn cascade(&mut self) {
        let output = self.slave.pending().is_some();
        self.master.set_line(CASCADE, output);
        if !output {
            // A request that the slave withdraws (its input was masked) shall not become a spurious interrupt.
            self.master.state.irr &= !(1 << CASCADE);
        }
    }

    /// Drives ISA interrupt `input` (0 to 15; 2 is the cascade and ignored).
    pub fn set_line(&mut self, input: u8, high: bool) {
        match input {
            0 | 1 | 3..=7 => self.master.set_line(input, high),
            8..=15 => {
                self.slave.set_line(input - 8, high);
                self.cascade();
            }
            _ => {}
        }
    }

    /// The INTR output.
    pub fn output(&self) -> bool {
        self.master.pending().is_some()
    }

    /// An interrupt acknowledge cycle: the vector, which is a spurious one if nothing is pending.
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.master.take();
        if input != CASCADE {
            return self.master.state.base | input;
        }
        let from_slave = self.slave.take();
        // The slave's output falls with the acknowledge, so that a further request is a new edge for the master.
        self.master.set_line(CASCADE, false);
        self.cascade();
        self.slave.state.base | from_slave
    }

    fn chip(&mut self, slave: bool) -> &mut Chip {
        if slave { &mut self.slave } else { &mut self.master }
    }

    /// Reads a chip's first or second port.
    pub fn read(&mut self, slave: bool, second: bool) -> u8 {
        let value = self.chip(slave).read(second);
        self.cascade();
        value
    }

    /// Writes a chip's first or second port.
    pub fn write(&mut self, slave: bool, second: bool, value: u8) {
        self.chip(slave).write(second, value);
        self.cascade();
    }

    /// Reads a chip's edge/level control.
    pub fn elcr(&self, slave: bool) -> u8 {
        if slave { self.slave.state.elcr } else { self.master.state.elcr }
    }

    /// Writes a chip's edge/level control.
    pub fn set_elcr(&mut self, slave: bool, value: u8) {
        self.chip(slave).set_elcr(value);
        self.cascade();
    }

    /// Its saved state.
    pub fn state(&self) -> PicState {
        PicState { master: self.master.state.clone(), slave: self.slave.state.clone() }
    }

    /// Replaces its state; a priority out of range is taken modulo 8.
    pub fn set_state(&mut self, state: PicState) {
        self.master.state = state.master;
        self.slave.state = state.slave;
        self.master.state.highest &= 7;
        self.slave.state.highest &= 7;
    }
}
