//! How chipset and cards change what guest physical memory is.

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
