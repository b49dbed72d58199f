//! A parallel port with a printer that prints to a character stream.
//!
//! [`Parallel`] is LPT1: the compatibility mode of IEEE 1284 in both directions of the data lines, where nothing comes back.
//! The port can do EPP cycles, which the printer does not answer; ECP's registers at 778h are not there.
//!
//! ```text
//!   nStrobe goes low: the byte is taken, busy --stream has room--> nAck is low for one look, interrupt --> ready
//! ```
//!
//! The acknowledgement lasts until the guest looks, rather than the microseconds of a real one: the BIOS waits to see it, and
//! the guest's processor may be slower than a printer. A stream without room keeps the printer busy, and no vCPU ever waits.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use lodge_backend::{CharStream, Receiver};
use lodge_bus::{AccessError, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Width};
use parking_lot::Mutex;
use registers::*;
pub use state::ParallelState;

/// A parallel port.
pub struct Parallel {
    // wiring
    irq: IrqLine,
    stream: Arc<dyn CharStream>,
    // volatile
    state: Mutex<ParallelState>,
}

impl Parallel {
    /// LPT1 that drives `irq` (ISA interrupt 7), with a printer that prints to `stream`.
    pub fn new(irq: IrqLine, stream: Arc<dyn CharStream>) -> Arc<Self> {
        let port = Arc::new(Self { irq, stream, state: Mutex::default() });
        port.stream.connect(Arc::downgrade(&port) as Weak<dyn Receiver>);
        port
    }

    fn update(&self, state: &ParallelState) {
        self.irq.set(state.interrupt && state.control & INTERRUPTS != 0);
    }

    /// Prints the byte that was taken, if there is room for it.
    fn print(&self, state: &mut ParallelState) {
        let Some(byte) = state.printing else { return };
        if self.stream.send(&[byte]) == 0 {
            return;
        }
        state.printing = None;
        state.acknowledged = true;
        if state.control & INTERRUPTS != 0 {
            // Interrupts are edges: one that nobody has seen makes way for the next.
            state.interrupt = false;
            self.update(state);
            state.interrupt = true;
        }
    }

    /// Status; what it tells of the last byte, it tells once.
    fn status(state: &mut ParallelState) -> u8 {
        let mut status = NO_ERROR | SELECTED | NO_ACK;
        if state.printing.is_none() && state.control & NO_INIT != 0 {
            status |= NOT_BUSY;
        }
        if std::mem::take(&mut state.acknowledged) {
            status &= !NO_ACK;
        }
        state.interrupt = false;
        status | if state.timeout { TIMEOUT } else { 0 }
    }

    fn control(&self, state: &mut ParallelState, value: u8) {
        let rising = value & !state.control;
        state.control = value & CONTROL_BITS;
        if value & INTERRUPTS == 0 {
            state.interrupt = false;
        }
        if value & NO_INIT == 0 {
            // What was acknowledged before it starts over is of no interest.
            (state.acknowledged, state.interrupt) = (false, false);
            return;
        }
        // A printer that is busy, or is not meant, takes nothing; nor is there anything where nobody drives the lines.
        let meant = value & SELECT != 0 && value & INPUT == 0;
        if rising & STROBE != 0 && meant && state.printing.is_none() {
            (state.acknowledged, state.interrupt) = (false, false);
            state.printing = Some(state.data);
            self.print(state);
        }
    }
}

impl Receiver for Parallel {
    fn receive(&self, data: &[u8]) -> usize {
        // A printer has nothing to say.
        data.len()
    }

    fn room_to_send(&self) {
        let mut state = self.state.lock();
        self.print(&mut state);
        self.update(&state);
    }
}

impl Device for Parallel {
    fn name(&self) -> &str {
        "parallel0"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Parallel {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange { base: BASE, length: LENGTH, region: 0, widths: Width::Byte }]
    }

    fn port_read(&self, _region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut state = self.state.lock();
        let value = match offset {
            DATA if state.control & INPUT != 0 => 0xff,
            DATA => state.data,
            STATUS => Self::status(&mut state),
            CONTROL => state.control | !CONTROL_BITS,
            _ => {
                state.timeout = true;
                0xff
            }
        };
        self.update(&state);
        Ok(value.into())
    }

    fn port_write(&self, _region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        let value = value as u8;
        match offset {
            DATA => state.data = value,
            STATUS => state.timeout &= value & TIMEOUT == 0,
            CONTROL => self.control(&mut state, value),
            _ => state.timeout = true,
        }
        self.update(&state);
        Ok(())
    }
}

impl ResetDevice for Parallel {
    fn reset(&self) {
        let mut state = self.state.lock();
        // The printer is not reset by the machine: it prints what it has taken.
        *state = ParallelState { printing: state.printing, ..ParallelState::default() };
        self.update(&state);
    }
}

impl SaveDevice for Parallel {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: ParallelState = StateError::read("parallel0", record)?;
        if !state.is_sound() {
            return Err(StateError {
                device: "parallel0".into(),
                cause: "a control bit is set that is not there".into(),
            });
        }
        let mut here = self.state.lock();
        *here = state;
        self.print(&mut here);
        self.update(&here);
        Ok(())
    }
}
