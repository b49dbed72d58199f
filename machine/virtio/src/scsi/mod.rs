//! virtio-scsi: a SCSI host with a target for each disk and CD drive (virtio 1.2 section 5.6).
//!
//! [`Scsi`] has a control queue, a queue for events, and queues for requests with a thread each. The targets' commands are
//! `lodge-storage`'s; each target has one logical unit, 0. [`request`] carries commands out, [`control`] is task management and
//! events.
//!
//! ```text
//!   control queue: abort, reset --> waits until what was in the request queues before is done --> answer
//! ```

mod control;
pub mod registers;
mod request;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lodge_bus::StateError;
use lodge_storage::scsi::{Medium, Unit};
use parking_lot::Mutex;
use registers::*;
pub use state::ScsiState;

use crate::device::VirtioDevice;
use crate::queue::{Broken, VirtQueue};
use crate::worker::Bell;

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiConfig {
    /// Its name in the machine ("scsi0").
    pub name: String,
    /// Queues for requests, each with a thread; 1 to 16.
    pub queues: u16,
}

/// A target.
#[derive(Clone)]
pub struct Target {
    /// What it holds.
    pub medium: Medium,
    /// What the guest reads as its serial number.
    pub serial: String,
}

/// What the driver and task management change.
#[derive(Default)]
struct Volatile {
    state: ScsiState,
    bell: Option<Bell>,
    /// How far the request queues have to have come before a task is managed.
    awaited: Option<Vec<u64>>,
    /// Events that wait for room: targets.
    events: VecDeque<usize>,
    /// Events had no room here.
    missed: bool,
}

/// A SCSI host.
pub struct Scsi {
    // configuration
    config: ScsiConfig,
    // wiring
    units: Vec<Mutex<Unit>>,
    // volatile
    volatile: Mutex<Volatile>,
    /// How often each request queue has been found empty.
    passes: Vec<AtomicU64>,
    /// A task waits for that.
    waits: AtomicBool,
    /// The user was told that the host failed a request.
    told: AtomicBool,
}

impl Scsi {
    /// A host with these targets, at most 256.
    pub fn new(mut config: ScsiConfig, targets: Vec<Target>) -> Arc<Self> {
        config.queues = config.queues.clamp(1, MOST_QUEUES);
        let passes = (0..config.queues).map(|_| AtomicU64::new(0)).collect();
        let trays: Vec<_> = targets.iter().map(|target| target.medium.clone()).collect();
        let unit = |target: Target| Mutex::new(Unit::new(target.medium, &target.serial, false));
        let units = targets.into_iter().take(MOST_TARGETS).map(unit).collect();
        let (volatile, waits, told) = Default::default();
        let this = Arc::new(Self { config, units, volatile, passes, waits, told });
        for (number, medium) in trays.into_iter().enumerate().take(MOST_TARGETS) {
            if let Medium::Cd(tray) = medium {
                tray.watch(&Arc::downgrade(&this), move |this| this.changed(number));
            }
        }
        this
    }

    /// The target and logical unit that an address names (5.6.6.1).
    fn address(&self, lun: &[u8]) -> Address {
        /// Logical units by peripheral device or flat space addressing; the host's own unit.
        const PERIPHERAL: u8 = 0x00;
        const FLAT: u8 = 0x40;
        const WELL_KNOWN: [u8; 2] = [0xc1, 0x01];
        if lun[..2] == WELL_KNOWN {
            return Address::Nobody;
        }
        let target = usize::from(lun[1]);
        if lun[0] != 1 || target >= self.units.len() {
            return Address::Nobody;
        }
        match (lun[2] & 0xc0, u16::from_be_bytes([lun[2] & 0x3f, lun[3]])) {
            (PERIPHERAL | FLAT, 0) => Address::Unit(target),
            _ => Address::Other(target),
        }
    }

    fn told(&self, error: &std::io::Error) {
        // A guest that goes on trying shall not fill the user's screen.
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                device = self.config.name, %error,
                "the host failed a disk request, of which the guest is told; more of these are not shown"
            );
        }
    }
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    /// A target that is not there.
    Nobody,
    /// A target's logical unit that is not there.
    Other(usize),
    /// A target's only one.
    Unit(usize),
}

impl VirtioDevice for Scsi {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x01, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        feature::INOUT
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(REQUESTS + self.config.queues)]
    }

    fn threads(&self) -> usize {
        self.config.queues.into()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_scsi_config (5.6.4).
        let mut image = [0; CONFIG_SIZE];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        let state = &self.volatile.lock().state;
        put(0, &u32::from(self.config.queues).to_le_bytes());
        put(4, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
        put(8, &0xffffu32.to_le_bytes());
        put(12, &u32::from(QUEUE_SIZE).to_le_bytes());
        put(16, &(event::SIZE as u32).to_le_bytes());
        put(20, &state.sense_size.to_le_bytes());
        put(24, &state.cdb_size.to_le_bytes());
        put(30, &(self.units.len().saturating_sub(1) as u16).to_le_bytes());
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        let state = &mut self.volatile.lock().state;
        match offset {
            CONFIG_SENSE if SENSE_SIZES.contains(&value) => state.sense_size = value,
            CONFIG_CDB if CDB_SIZES.contains(&value) => state.cdb_size = value,
            _ => {}
        }
    }

    fn activate(&self, _features: u64, bell: Bell) {
        self.volatile.lock().bell = Some(bell);
    }

    fn deactivate(&self) {
        *self.volatile.lock() = Volatile::default();
        self.waits.store(false, Ordering::Release);
        self.passes.iter().for_each(|pass| pass.store(0, Ordering::Release));
        self.units.iter().for_each(|unit| unit.lock().reset());
    }

    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        match index {
            CONTROL => self.control(queue),
            EVENTS => self.tell_events(queue),
            _ => self.requests(index, queue),
        }
    }

    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        let units = self.units.iter().map(|unit| unit.lock().state().clone()).collect();
        let (events, missed) = (volatile.events.iter().copied().collect(), volatile.missed);
        lodge_savestate::to_record(&ScsiState { units, events, missed, ..volatile.state.clone() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let mut state: ScsiState = StateError::read(&self.config.name, record)?;
        if !state.is_sound(self.units.len()) {
            let cause = "its targets are not those of this host".into();
            return Err(StateError { device: self.config.name.clone(), cause });
        }
        for (unit, saved) in self.units.iter().zip(std::mem::take(&mut state.units)) {
            unit.lock().set_state(saved);
        }
        let mut volatile = self.volatile.lock();
        volatile.events = std::mem::take(&mut state.events).into();
        volatile.missed = state.missed;
        volatile.state = state;
        Ok(())
    }
}
