//! Saved state of a local APIC.

use serde::{Deserialize, Serialize};

use super::registers::{BASE_ADDRESS, BASE_ENABLE, LVT_MASKED};

/// A set of 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorSet(pub [u32; 8]);

impl VectorSet {
    /// Adds a vector.
    pub fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    /// Removes a vector.
    pub fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    /// Whether it holds a vector.
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The highest vector.
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some((index as u8) << 5 | (31 - word.leading_zeros() as u8))
    }
}

/// Registers and pending events. Times are guest nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalApicState {
    /// The APIC base MSR without its BSP bit.
    pub base: u64,
    /// Task priority.
    pub tpr: u8,
    /// Logical destination, bits 31:24.
    pub ldr: u32,
    /// Destination format, bits 31:28.
    pub dfr: u32,
    /// Spurious interrupt vector.
    pub svr: u32,
    /// In service.
    pub isr: VectorSet,
    /// Trigger modes.
    pub tmr: VectorSet,
    /// Requested.
    pub irr: VectorSet,
    /// Error status as read.
    pub esr: u32,
    /// Errors since the last write of the error status.
    pub errors: u32,
    /// Interrupt command.
    pub icr: u64,
    /// Local vector table.
    pub lvt: [u32; 6],
    /// Divide configuration.
    pub divide: u32,
    /// Initial count.
    pub initial_count: u32,
    /// When the count was started.
    pub started: u64,
    /// When the timer expires next.
    pub expires: Option<u64>,
    /// The TSC deadline, zero for none.
    pub tsc_deadline: u64,
    /// An NMI is pending.
    pub nmi: bool,
    /// An INIT is pending.
    pub init: bool,
    /// A start-up IPI is pending.
    pub startup: Option<u8>,
    /// The 8259A pair's output, where LINT0 is wired to it.
    pub lint0: bool,
    /// An ExtINT message is pending.
    pub extint: bool,
}

impl Default for LocalApicState {
    fn default() -> Self {
        Self {
            base: BASE_ADDRESS | BASE_ENABLE,
            tpr: 0,
            ldr: 0,
            dfr: 0xf000_0000,
            svr: 0xff,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [LVT_MASKED; 6],
            divide: 0,
            initial_count: 0,
            started: 0,
            expires: None,
            tsc_deadline: 0,
            nmi: false,
            init: false,
            startup: None,
            lint0: false,
            extint: false,
        }
    }
}
