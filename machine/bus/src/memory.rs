//! How chipset and cards change what guest physical memory is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lodge_engine_api::MemoryChange;

/// What a device may ask of guest memory. Calls come from vCPU threads with a device lock held: an implementation takes
/// note and returns; what was asked holds before the vCPU's next instruction.
pub trait MemoryControl: Send + Sync {
    /// Changes what some addresses are.
    fn change(&self, change: MemoryChange);
}

/// Memory that never changes, for boards without an engine.
pub struct FixedMemory;

impl MemoryControl for FixedMemory {
    fn change(&self, _change: MemoryChange) {}
}

/// Bit 20 of the addresses that processors put out, which two devices hold low or let pass: whoever says so last.
pub struct AddressLine20 {
    memory: Arc<dyn MemoryControl>,
    open: AtomicBool,
}

impl AddressLine20 {
    /// The line, open.
    pub fn new(memory: Arc<dyn MemoryControl>) -> Arc<Self> {
        Arc::new(Self { memory, open: AtomicBool::new(true) })
    }

    /// Whether the bit passes.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// Lets the bit pass, or holds it low.
    pub fn set(&self, open: bool) {
        if self.open.swap(open, Ordering::SeqCst) != open {
            self.memory.change(MemoryChange::AddressLine20 { open });
        }
    }
}
