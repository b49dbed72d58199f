//! Small ports of the board: system control port A, progress codes, and the debug exit.
//!
//! [`Board`] is also the device to copy when writing a new one: it has every facet that most devices need, and little else.
//! Neighbours: port B is the PIT's, 0xcf9 the PCI host bridge's.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::{
    AccessError, Device, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, SystemControl, Width,
};
use parking_lot::Mutex;
use registers::*;
pub use state::BoardState;

const REGION_PORT_A: u8 = 0;
const REGION_POST: u8 = 1;
const REGION_DEBUG_EXIT: u8 = 2;

/// The small ports.
pub struct Board {
    // configuration
    debug_exit: bool,
    // wiring
    system: Arc<dyn SystemControl>,
    // volatile
    state: Mutex<BoardState>,
}

impl Board {
    /// The ports; with `debug_exit`, writing v to port 0xf4 ends the machine with status `(v << 1) | 1`.
    pub fn new(debug_exit: bool, system: Arc<dyn SystemControl>) -> Arc<Self> {
        Arc::new(Self { debug_exit, system, state: Mutex::default() })
    }

    /// The last progress code that was written to port 0x80.
    pub fn post_code(&self) -> u8 {
        self.state.lock().post
    }
}

impl Device for Board {
    fn name(&self) -> &str {
        "board"
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

impl PortDevice for Board {
    fn port_ranges(&self) -> Vec<PortRange> {
        let mut ranges = vec![
            PortRange { base: PORT_A, length: 1, region: REGION_PORT_A, widths: Width::Byte },
            PortRange { base: POST, length: 1, region: REGION_POST, widths: Width::Byte },
        ];
        if self.debug_exit {
            ranges.push(PortRange { base: DEBUG_EXIT, length: 4, region: REGION_DEBUG_EXIT, widths: Width::Dword });
        }
        ranges
    }

    fn port_read(&self, region: u8, _offset: u16, _width: Width) -> Result<u32, AccessError> {
        let state = self.state.lock();
        match region {
            REGION_PORT_A => Ok((state.port_a | PORT_A_A20).into()),
            REGION_POST => Ok(state.post.into()),
            // Write-only; zero shows that it is there.
            _ => Ok(0),
        }
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let value = value as u8;
        match region {
            REGION_PORT_A => {
                let mut state = self.state.lock();
                let rising = value & !state.port_a & PORT_A_RESET != 0;
                state.port_a = value;
                drop(state);
                if rising {
                    self.system.reset();
                }
            }
            REGION_POST => self.state.lock().post = value,
            _ if offset == 0 => self.system.exit(value << 1 | 1),
            _ => {}
        }
        Ok(())
    }
}

impl ResetDevice for Board {
    fn reset(&self) {
        *self.state.lock() = BoardState::default();
    }
}

impl SaveDevice for Board {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        *self.state.lock() = StateError::read("board", record)?;
        Ok(())
    }
}
