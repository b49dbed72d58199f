//! A 16550A UART in front of a character stream.
//!
//! [`Uart`] sends at once what the stream has room for and keeps the rest in its FIFO until the stream says that there is
//! room: a guest that writes faster than the host reads sees a transmitter that is not empty, and no vCPU ever blocks.
//! Received bytes wait in the stream while the FIFO is full, so nothing is overrun. Baud rates are remembered and have no
//! effect; the receiver's character time-out passes at once.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use lodge_backend::{CharStream, Receiver};
use lodge_bus::{AccessError, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Width};
use parking_lot::Mutex;
use registers::*;
pub use state::UartState;

/// What a UART is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UartConfig {
    /// Its name, "uart0" for COM1.
    pub name: String,
    /// The first port, 0x3f8 for COM1.
    pub base: u16,
}

struct Volatile {
    state: UartState,
    /// The stream was told that there is no room.
    stalled: bool,
}

/// A UART.
pub struct Uart {
    // configuration
    config: UartConfig,
    // wiring
    irq: IrqLine,
    stream: Arc<dyn CharStream>,
    // volatile
    volatile: Mutex<Volatile>,
}

impl UartState {
    fn has_fifo(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.has_fifo() { FIFO } else { 1 }
    }

    fn trigger(&self) -> usize {
        if self.has_fifo() { [1, 4, 8, 14][usize::from(self.fcr >> 6)] } else { 1 }
    }

    fn is_looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    /// The most urgent interrupt.
    fn cause(&self) -> u8 {
        let enabled = |bit: u8| self.ier & bit != 0;
        if enabled(IER_LINE) && self.errors != 0 {
            IIR_LINE
        } else if enabled(IER_DATA) && self.received.len() >= self.trigger() {
            IIR_DATA
        } else if enabled(IER_DATA) && !self.received.is_empty() {
            IIR_TIMEOUT
        } else if enabled(IER_EMPTY) && self.empty_pending {
            IIR_EMPTY
        } else if enabled(IER_MODEM) && self.msr & 0x0f != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// Changes the modem inputs; the lower half collects what changed, and for ring only its end (8.9).
    fn set_modem(&mut self, inputs: u8) {
        let changed = (self.msr ^ inputs) & 0xf0;
        let mut deltas = changed & !MSR_RI;
        if changed & MSR_RI != 0 && inputs & MSR_RI == 0 {
            deltas |= MSR_RI;
        }
        self.msr = inputs & 0xf0 | self.msr & 0x0f | deltas >> 4;
    }
}

impl Uart {
    /// A UART that drives `irq` (ISA interrupt 4 for COM1) in front of `stream`.
    pub fn new(config: UartConfig, irq: IrqLine, stream: Arc<dyn CharStream>) -> Arc<Self> {
        let volatile = Mutex::new(Volatile { state: UartState::default(), stalled: false });
        let uart = Arc::new(Self { config, irq, stream, volatile });
        uart.stream.connect(Arc::downgrade(&uart) as Weak<dyn Receiver>);
        uart
    }

    fn update(&self, state: &UartState) {
        self.irq.set(state.cause() != IIR_NONE && state.mcr & MCR_OUT2 != 0);
    }

    /// Hands the stream what it takes.
    fn drain(&self, state: &mut UartState) {
        if state.sending.is_empty() {
            return;
        }
        let sent = self.stream.send(state.sending.make_contiguous());
        state.sending.drain(..sent.min(state.sending.len()));
        state.empty_pending |= state.sending.is_empty();
    }

    fn transmit(&self, state: &mut UartState, byte: u8) {
        state.empty_pending = false;
        if state.is_looped() {
            if state.received.len() < state.capacity() {
                state.received.push_back(byte);
            } else {
                state.errors |= LSR_OVERRUN;
            }
            state.empty_pending = true;
            return;
        }
        // A byte written to a full FIFO is lost, as on the chip.
        if state.sending.len() < state.capacity() {
            state.sending.push_back(byte);
        }
        self.drain(state);
    }

    /// There may be room for more received bytes.
    fn resume(&self, volatile: &mut Volatile) {
        let state = &volatile.state;
        if volatile.stalled && !state.is_looped() && state.received.len() < state.capacity().div_ceil(2) {
            volatile.stalled = false;
            self.stream.resume();
        }
    }

    fn read(&self, volatile: &mut Volatile, register: u16) -> u8 {
        let state = &mut volatile.state;
        let latched = state.lcr & LCR_DLAB != 0;
        match register {
            DATA if latched => state.divisor as u8,
            IER if latched => (state.divisor >> 8) as u8,
            DATA => {
                let byte = state.received.pop_front().unwrap_or(0);
                self.resume(volatile);
                byte
            }
            IER => state.ier,
            IIR => {
                let cause = state.cause();
                if cause == IIR_EMPTY {
                    state.empty_pending = false;
                }
                cause | if state.has_fifo() { IIR_FIFO } else { 0 }
            }
            LCR => state.lcr,
            MCR => state.mcr,
            LSR => {
                let status = state.line_status();
                state.errors = 0;
                status
            }
            MSR => {
                let status = state.msr;
                state.msr &= 0xf0;
                status
            }
            _ => state.scr,
        }
    }

    fn write(&self, volatile: &mut Volatile, register: u16, value: u8) {
        let state = &mut volatile.state;
        let latched = state.lcr & LCR_DLAB != 0;
        match register {
            DATA if latched => state.divisor = state.divisor & 0xff00 | u16::from(value),
            IER if latched => state.divisor = state.divisor & 0xff | u16::from(value) << 8,
            DATA => self.transmit(state, value),
            IER => {
                let new = value & !state.ier;
                state.ier = value & 0x0f;
                if new & IER_EMPTY != 0 && state.sending.is_empty() {
                    state.empty_pending = true;
                }
            }
            IIR => {
                let toggled = (state.fcr ^ value) & FCR_ENABLE != 0;
                if toggled || value & FCR_CLEAR_RX != 0 {
                    state.received.clear();
                }
                if toggled || value & FCR_CLEAR_TX != 0 {
                    state.empty_pending |= !state.sending.is_empty();
                    state.sending.clear();
                }
                state.fcr = value & 0xc9;
                self.resume(volatile);
            }
            LCR => state.lcr = value,
            MCR => {
                state.mcr = value & 0x1f;
                let inputs = if state.is_looped() {
                    let wire = |output: u8, input: u8| if value & output != 0 { input } else { 0 };
                    wire(MCR_DTR, MSR_DSR) | wire(MCR_RTS, MSR_CTS) | wire(MCR_OUT1, MSR_RI) | wire(MCR_OUT2, MSR_DCD)
                } else {
                    MSR_CONNECTED
                };
                state.set_modem(inputs);
                self.resume(volatile);
            }
            // Line and modem status are for factory tests only.
            LSR | MSR => {}
            _ => state.scr = value,
        }
    }
}

impl Receiver for Uart {
    fn receive(&self, data: &[u8]) -> usize {
        let mut volatile = self.volatile.lock();
        let state = &mut volatile.state;
        let room = if state.is_looped() { 0 } else { state.capacity().saturating_sub(state.received.len()) };
        let taken = room.min(data.len());
        state.received.extend(&data[..taken]);
        self.update(state);
        volatile.stalled = taken < data.len();
        taken
    }

    fn room_to_send(&self) {
        let mut volatile = self.volatile.lock();
        self.drain(&mut volatile.state);
        self.update(&volatile.state);
    }
}

impl Device for Uart {
    fn name(&self) -> &str {
        &self.config.name
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

impl PortDevice for Uart {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange { base: self.config.base, length: LENGTH, region: 0, widths: Width::Byte }]
    }

    fn port_read(&self, _region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut volatile = self.volatile.lock();
        let value = self.read(&mut volatile, offset);
        self.update(&volatile.state);
        Ok(value.into())
    }

    fn port_write(&self, _region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut volatile = self.volatile.lock();
        self.write(&mut volatile, offset, value as u8);
        self.update(&volatile.state);
        Ok(())
    }
}

impl ResetDevice for Uart {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        // What was on its way out is still sent, if there is room for it now.
        self.drain(&mut volatile.state);
        volatile.state = UartState::default();
        self.resume(&mut volatile);
        self.update(&volatile.state);
    }
}

impl SaveDevice for Uart {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.volatile.lock().state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let mut state: UartState = StateError::read(&self.config.name, record)?;
        state.received.truncate(FIFO);
        state.sending.truncate(FIFO);
        let mut volatile = self.volatile.lock();
        volatile.state = state;
        self.drain(&mut volatile.state);
        self.resume(&mut volatile);
        self.update(&volatile.state);
        Ok(())
    }
}
