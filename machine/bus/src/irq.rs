//! Interrupt wires and messages.
//!
//! A device holds an [`IrqLine`], which leads to one input of an [`IrqSink`]: the ISA interrupts, the PCI interrupt
//! router, or in tests a recorder. [`MsiTarget`] takes message-signalled interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something with numbered interrupt inputs.
pub trait IrqSink: Send + Sync {
    /// Drives input `line` high or low. Setting the level that it already has is harmless.
    fn set_level(&self, line: u32, high: bool);

    /// A rising and a falling edge.
    fn pulse(&self, line: u32) {
        self.set_level(line, true);
        self.set_level(line, false);
    }
}

/// A device's end of one interrupt wire. It remembers its level, so that driving it to where it is costs nothing.
#[derive(Clone)]
pub struct IrqLine {
    wire: Arc<Wire>,
}

struct Wire {
    sink: Arc<dyn IrqSink>,
    line: u32,
    high: AtomicBool,
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IrqLine").field("line", &self.wire.line).field("high", &self.is_high()).finish()
    }
}

impl IrqLine {
    /// A wire, low, to input `line` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, line: u32) -> Self {
        Self { wire: Arc::new(Wire { sink, line, high: AtomicBool::new(false) }) }
    }

    /// A wire that leads nowhere.
    pub fn unconnected() -> Self {
        struct Nowhere;
        impl IrqSink for Nowhere {
            fn set_level(&self, _line: u32, _high: bool) {}
        }
        Self::new(Arc::new(Nowhere), 0)
    }

    /// Drives the level. A device calls this with its own lock held, so that levels arrive in order.
    pub fn set(&self, high: bool) {
        if self.wire.high.swap(high, Ordering::AcqRel) != high {
            self.wire.sink.set_level(self.wire.line, high);
        }
    }

    /// A rising and a falling edge, for edge-triggered interrupts.
    pub fn pulse(&self) {
        self.set(false);
        self.set(true);
        self.set(false);
    }

    /// The level it is driven to.
    pub fn is_high(&self) -> bool {
        self.wire.high.load(Ordering::Acquire)
    }

    /// Sends the current level again, after the sink was restored or reset.
    pub fn resend(&self) {
        self.wire.sink.set_level(self.wire.line, self.is_high());
    }
}

/// Takes message-signalled interrupts (PCI 3.0 section 6.8; SDM 3A 11.11).
pub trait MsiTarget: Send + Sync {
    /// A device wrote `data` to `address`. Addresses that are not an interrupt's are ignored.
    fn signal(&self, address: u64, data: u32);
}

/// Takes messages and does nothing, for machines without APICs.
#[derive(Debug)]
pub struct NoMsi;

impl MsiTarget for NoMsi {
    fn signal(&self, _address: u64, _data: u32) {}
}
