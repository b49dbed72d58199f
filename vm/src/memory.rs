//! What devices change of the memory map, on its way to the engine.

use std::sync::{Arc, OnceLock};

use lodge_bus::MemoryControl;
use lodge_engine_api::{MemoryChange, Partition};
use parking_lot::Mutex;

/// Passes changes on to the engine, once there is one.
#[derive(Default)]
pub struct MemoryMap {
    partition: OnceLock<Arc<dyn Partition>>,
    early: Mutex<Vec<MemoryChange>>,
}

impl MemoryMap {
    /// Changes go to `partition` from now on, those that came before at once. No vCPU runs yet.
    pub fn connect(&self, partition: &Arc<dyn Partition>) {
        let mut early = self.early.lock();
        // There is one engine per machine.
        let _ = self.partition.set(partition.clone());
        early.drain(..).for_each(|change| partition.change_memory(change));
    }
}

impl MemoryControl for MemoryMap {
    fn change(&self, change: MemoryChange) {
        let mut early = self.early.lock();
        match self.partition.get() {
            Some(partition) => partition.change_memory(change),
            None => early.push(change),
        }
    }
}
