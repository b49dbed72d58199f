//! Saved state of a UART.

use std::collections::VecDeque;

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::{LSR_EMPTY, LSR_IDLE, MSR_CONNECTED};

/// Registers and FIFOs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UartState {
    /// Received bytes.
    pub received: VecDeque<u8>,
    /// Bytes to send.
    pub sending: VecDeque<u8>,
    /// Interrupt enable.
    pub ier: u8,
    /// FIFO control.
    pub fcr: u8,
    /// Line control.
    pub lcr: u8,
    /// Modem control.
    pub mcr: u8,
    /// Error bits of the line status.
    pub errors: u8,
    /// Modem status.
    pub msr: u8,
    /// Scratch.
    pub scr: u8,
    /// Divisor.
    pub divisor: u16,
    /// The transmitter became empty and nobody was told.
    pub empty_pending: bool,
}

impl Default for UartState {
    fn default() -> Self {
        Self {
            received: VecDeque::new(),
            sending: VecDeque::new(),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            msr: MSR_CONNECTED,
            scr: 0,
            divisor: 12,
            empty_pending: false,
        }
    }
}

impl UartState {
    /// The line status.
    pub(super) fn line_status(&self) -> u8 {
        let mut status = self.errors;
        if !self.received.is_empty() {
            status |= super::registers::LSR_DATA;
        }
        if self.sending.is_empty() {
            status |= LSR_EMPTY | LSR_IDLE;
        }
        status
    }
}

impl Saved for UartState {
    const KIND: &'static str = "uart";
    const VERSION: u16 = 1;
}
