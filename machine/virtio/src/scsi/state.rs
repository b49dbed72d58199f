//! Saved state of the SCSI host, besides the transport's: at rest no request is half done.

use lodge_savestate::Saved;
use lodge_storage::scsi::UnitState;
use serde::{Deserialize, Serialize};

use super::registers::{CDB_SIZE, CDB_SIZES, SENSE_SIZE, SENSE_SIZES};

/// The host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScsiState {
    /// Bytes of sense data.
    pub sense_size: u32,
    /// Bytes of commands.
    pub cdb_size: u32,
    /// What each target remembers.
    pub units: Vec<UnitState>,
    /// Targets whose events the driver has subscribed to.
    pub subscribed: Vec<usize>,
    /// Targets whose events have not been told.
    pub events: Vec<usize>,
    /// Events were lost.
    pub missed: bool,
}

impl Default for ScsiState {
    fn default() -> Self {
        Self {
            sense_size: SENSE_SIZE,
            cdb_size: CDB_SIZE,
            units: Vec::new(),
            subscribed: Vec::new(),
            events: Vec::new(),
            missed: false,
        }
    }
}

impl ScsiState {
    /// Whether a host with so many targets can be in it.
    pub(super) fn is_sound(&self, targets: usize) -> bool {
        let known = |list: &[usize]| list.len() <= targets && list.iter().all(|target| *target < targets);
        let sizes = SENSE_SIZES.contains(&self.sense_size) && CDB_SIZES.contains(&self.cdb_size);
        self.units.len() == targets && known(&self.subscribed) && known(&self.events) && sizes
    }
}

impl Saved for ScsiState {
    const KIND: &'static str = "virtio-scsi";
    const VERSION: u16 = 1;
}
