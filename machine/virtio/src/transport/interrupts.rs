//! A virtio device's interrupts: MSI-X, or the interrupt status and INTx.

use std::sync::OnceLock;

use lodge_bus::IrqLine;
use lodge_pci::Msix;
use parking_lot::Mutex;

use super::registers::{ISR_CONFIG, ISR_QUEUE, NO_VECTOR};

pub(super) struct InterruptState {
    pub(super) msix: Msix,
    pub(super) isr: u8,
    /// INTx is switched off in the command register.
    pub(super) no_intx: bool,
    pub(super) config_vector: u16,
    pub(super) queue_vectors: Vec<u16>,
    /// Counts changes of the device's configuration.
    pub(super) generation: u8,
}

/// Where a device's interrupts go. Shared by the transport and the I/O threads.
pub struct Interrupts {
    pub(super) state: Mutex<InterruptState>,
    pub(super) line: OnceLock<IrqLine>,
}

impl Interrupts {
    pub(super) fn new(msix: Msix, queues: usize) -> Self {
        let state = InterruptState {
            msix,
            isr: 0,
            no_intx: false,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
            generation: 0,
        };
        Self { state: Mutex::new(state), line: OnceLock::new() }
    }

    /// Drives INTx from the interrupt status.
    pub(super) fn update(&self, state: &InterruptState) {
        if let Some(line) = self.line.get() {
            line.set(state.isr != 0 && !state.no_intx && !state.msix.is_enabled());
        }
    }

    fn raise(&self, state: &mut InterruptState, vector: u16, isr: u8) {
        if state.msix.is_enabled() {
            // NO_VECTOR lies beyond every table.
            state.msix.signal(vector);
        } else {
            state.isr |= isr;
            self.update(state);
        }
    }

    /// Buffers of queue `index` were used.
    pub(crate) fn queue(&self, index: u16) {
        let mut state = self.state.lock();
        let vector = state.queue_vectors.get(usize::from(index)).copied().unwrap_or(NO_VECTOR);
        self.raise(&mut state, vector, ISR_QUEUE);
    }

    /// The configuration or the status changed.
    pub(crate) fn config(&self) {
        let mut state = self.state.lock();
        state.generation = state.generation.wrapping_add(1);
        let vector = state.config_vector;
        self.raise(&mut state, vector, ISR_CONFIG);
    }

    /// Reading the interrupt status clears it.
    pub(super) fn read_isr(&self) -> u8 {
        let mut state = self.state.lock();
        let isr = std::mem::take(&mut state.isr);
        self.update(&state);
        isr
    }
}
