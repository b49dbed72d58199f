//! Small ports of the board: system control port A, progress codes, the firmware's log, and the debug exit.
//!
//! [`Board`] is also the device to copy when writing a new one: it has every facet that most devices need, and little else.
//! Neighbours: port B is the PIT's, 0xcf9 the PCI host bridge's.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_backend::CharStream;
use lodge_bus::{
    AccessError, AddressLine20, Device, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, SystemControl,
    Width,
};
use parking_lot::Mutex;
use registers::*;
pub use state::BoardState;

const REGION_PORT_A: u8 = 0;
const REGION_POST: u8 = 1;
const REGION_DEBUG_EXIT: u8 = 2;
const REGION_LOG: u8 = 3;

/// Which of the small ports there are beyond those of every PC.
#[derive(Clone, Default)]
pub struct BoardConfig {
    /// Writing v to port 0xf4 ends the machine with status `(v << 1) | 1`.
    pub debug_exit: bool,
    /// Where what firmware writes to port 0x402 goes.
    pub log: Option<Arc<dyn CharStream>>,
}

/// The small ports.
pub struct Board {
    // configuration
    config: BoardConfig,
    // wiring
    system: Arc<dyn SystemControl>,
    line_20: Arc<AddressLine20>,
    // volatile
    state: Mutex<BoardState>,
}

impl Board {
    /// The ports.
    pub fn new(config: BoardConfig, system: Arc<dyn SystemControl>, line_20: Arc<AddressLine20>) -> Arc<Self> {
        Arc::new(Self { config, system, line_20, state: Mutex::default() })
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
        if self.config.log.is_some() {
            ranges.push(PortRange { base: LOG, length: 1, region: REGION_LOG, widths: Width::Byte });
        }
        if self.config.debug_exit {
            ranges.push(PortRange { base: DEBUG_EXIT, length: 4, region: REGION_DEBUG_EXIT, widths: Width::Dword });
        }
        ranges
    }

    fn port_read(&self, region: u8, _offset: u16, _width: Width) -> Result<u32, AccessError> {
        let state = self.state.lock();
        match region {
            REGION_PORT_A => {
                let line_20 = if self.line_20.is_open() { PORT_A_A20 } else { 0 };
                Ok((state.port_a & !PORT_A_A20 | line_20).into())
            }
            REGION_POST => Ok(state.post.into()),
            REGION_LOG => Ok(LOG_PRESENT.into()),
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
                self.line_20.set(value & PORT_A_A20 != 0);
                drop(state);
                if rising {
                    self.system.reset_processors();
                }
            }
            REGION_POST => self.state.lock().post = value,
            // What the host cannot take at once is lost: firmware does not wait for it.
            REGION_LOG => self.config.log.iter().for_each(|log| _ = log.send(&[value])),
            REGION_DEBUG_EXIT if offset == 0 => self.system.exit(value << 1 | 1),
            _ => {}
        }
        Ok(())
    }
}

impl ResetDevice for Board {
    fn reset(&self) {
        *self.state.lock() = BoardState::default();
        self.line_20.set(true);
    }
}

impl SaveDevice for Board {
    fn save(&self) -> Vec<u8> {
        let state = BoardState { line_20: self.line_20.is_open(), ..self.state.lock().clone() };
        lodge_savestate::to_record(&state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let restored: BoardState = StateError::read("board", record)?;
        self.line_20.set(restored.line_20);
        *self.state.lock() = restored;
        Ok(())
    }
}
