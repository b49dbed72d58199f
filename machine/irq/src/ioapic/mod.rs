//! The I/O APIC: 24 inputs, each sent as a message to local APICs.
//!
//! [`IoApic`] is plain data without a lock; what it wants delivered is handed to a closure as a [`Message`].
//! [`crate::Controllers`] owns it, and brings it the end-of-interrupt of level-triggered vectors.
//!
//! ```text
//!   level pin:  line high --> message, remote IRR = 1 --EOI--> remote IRR = 0 --line still high--> message ...
//!   edge pin:   rising edge --> message          (a masked pin loses the edge, 82093AA 3.4.2)
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use registers::*;
pub use state::IoApicState;

use crate::message::Message;

/// The I/O APIC.
#[derive(Clone, Debug, Default)]
pub struct IoApic {
    state: IoApicState,
}

impl IoApic {
    /// After power-on: all pins masked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to power-on; the inputs keep their levels.
    pub fn reset(&mut self) {
        self.state = IoApicState { lines: self.state.lines, ..IoApicState::default() };
    }

    /// Drives input `pin`; pins beyond the last are ignored.
    pub fn set_line(&mut self, pin: usize, high: bool, send: &mut dyn FnMut(Message)) {
        let Some(entry) = self.state.entries.get(pin).copied() else { return };
        let bit = 1 << pin;
        let rising = high && self.state.lines & bit == 0;
        self.state.lines = if high { self.state.lines | bit } else { self.state.lines & !bit };
        if entry & LEVEL != 0 {
            self.state.irr = if high { self.state.irr | bit } else { self.state.irr & !bit };
            if high {
                self.serve(pin, send);
            }
        } else if rising && entry & MASKED == 0 {
            self.state.irr |= bit;
            self.serve(pin, send);
        }
    }

    fn serve(&mut self, pin: usize, send: &mut dyn FnMut(Message)) {
        let bit = 1 << pin;
        let Some(entry) = self.state.entries.get_mut(pin) else { return };
        if self.state.irr & bit == 0 || *entry & MASKED != 0 {
            return;
        }
        if *entry & LEVEL != 0 {
            if *entry & REMOTE_IRR != 0 {
                return;
            }
            *entry |= REMOTE_IRR;
        } else {
            self.state.irr &= !bit;
        }
        send(Message {
            vector: *entry as u8,
            mode: ((*entry >> 8) & 7) as u8,
            logical: *entry & LOGICAL != 0,
            level: *entry & LEVEL != 0,
            destination: (*entry >> 56) as u32,
        });
    }

    /// A local APIC (or the EOI register) ended the interrupt with this vector.
    pub fn end_of_interrupt(&mut self, vector: u8, send: &mut dyn FnMut(Message)) {
        for pin in 0..PINS {
            let entry = &mut self.state.entries[pin];
            if *entry as u8 == vector && *entry & REMOTE_IRR != 0 {
                *entry &= !REMOTE_IRR;
                self.serve(pin, send);
            }
        }
    }

    fn window_read(&self) -> u32 {
        match self.state.select {
            ID | ARBITRATION => u32::from(self.state.id) << 24,
            VERSION => VERSION_VALUE,
            select => {
                let index = usize::from(select.wrapping_sub(REDIRECTION));
                match self.state.entries.get(index / 2) {
                    Some(entry) => (entry >> (32 * (index & 1))) as u32,
                    None => u32::MAX,
                }
            }
        }
    }

    fn window_write(&mut self, value: u32, send: &mut dyn FnMut(Message)) {
        let select = self.state.select;
        if select == ID {
            self.state.id = (value >> 24) as u8 & 0x0f;
            return;
        }
        let index = usize::from(select.wrapping_sub(REDIRECTION));
        let Some(entry) = self.state.entries.get_mut(index / 2) else { return };
        let shift = 32 * (index & 1);
        let mask = WRITABLE & (0xffff_ffff << shift);
        *entry = *entry & !mask | u64::from(value) << shift & mask;
        let bit = 1 << (index / 2);
        if *entry & LEVEL == 0 {
            // An edge entry has no remote IRR: software of old ends an interrupt by switching to edge and back.
            *entry &= !REMOTE_IRR;
        } else {
            self.state.irr = self.state.irr & !bit | self.state.lines & bit;
        }
        self.serve(index / 2, send);
    }

    /// Reads a double word.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => self.state.select.into(),
            IOWIN => self.window_read(),
            _ => 0,
        }
    }

    /// Writes a double word.
    pub fn write(&mut self, offset: u64, value: u32, send: &mut dyn FnMut(Message)) {
        match offset {
            IOREGSEL => self.state.select = value as u8,
            IOWIN => self.window_write(value, send),
            EOI => self.end_of_interrupt(value as u8, send),
            _ => {}
        }
    }

    /// Its saved state.
    pub fn state(&self) -> IoApicState {
        self.state.clone()
    }

    /// Replaces its state.
    pub fn set_state(&mut self, state: IoApicState) {
        self.state = state;
    }
}
