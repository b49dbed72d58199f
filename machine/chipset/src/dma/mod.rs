//! The two 8237A DMA controllers with their page registers, by which floppy and sound card reach memory.
//!
//! A device holds a [`DmaChannel`] and moves data when it has or wants some: [`DmaChannel::write`] to memory,
//! [`DmaChannel::read`] from it. How much goes, and where, is what the guest has programmed.
//!
//! ```text
//!   masked, or no such transfer programmed --> nothing moves
//!   count left ------------------------------> moves; at its end "terminal count": masked, or begins anew (auto)
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::{AccessError, Device, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Width};
use lodge_engine_api::GuestMemory;
use parking_lot::Mutex;
use registers::*;
pub use state::{ChannelState, ControllerState, DmaState};
use vm_memory::{Bytes, GuestAddress};

const REGION_FIRST: u8 = 0;
const REGION_SECOND: u8 = 1;
const REGION_PAGES: u8 = 2;

/// The controllers.
pub struct Dma {
    // wiring
    memory: GuestMemory,
    // volatile
    state: Mutex<DmaState>,
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes.
    pub bytes: usize,
    /// The channel has reached the end of its count.
    pub ended: bool,
}

/// A channel, as the device on it sees it.
#[derive(Clone)]
pub struct DmaChannel {
    dma: Arc<Dma>,
    number: usize,
}

/// Which way data go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToMemory,
    FromMemory,
}

impl Dma {
    /// Controllers of this memory.
    pub fn new(memory: GuestMemory) -> Arc<Self> {
        Arc::new(Self { memory, state: Mutex::default() })
    }

    /// Channel `number`, below 8.
    pub fn channel(self: &Arc<Self>, number: usize) -> DmaChannel {
        DmaChannel { dma: self.clone(), number: number & 7 }
    }

    /// Moves as much as the guest has programmed for, at most `data.len()` bytes.
    fn transfer(&self, number: usize, way: Way, data: &mut [u8]) -> Moved {
        let mut state = self.state.lock();
        let page = state.pages[usize::from(PAGE_OF_CHANNEL[number])];
        let wide = number >= 4;
        let controller = &mut state.controllers[usize::from(wide)];
        let bit = 1u8 << (number % 4);
        let unit = if wide { 2 } else { 1 };
        let mut moved = Moved::default();
        for piece in data.chunks_exact_mut(unit) {
            if controller.masked & bit != 0 || controller.command & COMMAND_DISABLE != 0 {
                break;
            }
            let channel = &mut controller.channels[number % 4];
            let kind = channel.mode & MODE_TYPE;
            if channel.mode & MODE_CASCADE == MODE_CASCADE {
                break;
            }
            let address = GuestAddress(channel.linear(page, wide));
            // Where there is no memory, reads give ones and writes go nowhere. Transfers that only verify touch none.
            match (kind, way) {
                (TYPE_WRITE, Way::ToMemory) => drop(self.memory.write_slice(piece, address)),
                (TYPE_READ, Way::FromMemory) => {
                    if self.memory.read_slice(piece, address).is_err() {
                        piece.fill(0xff);
                    }
                }
                (0, _) => {}
                _ => break,
            }
            moved.bytes += unit;
            if channel.step() {
                moved.ended = true;
                controller.ended |= bit;
                controller.requests &= !bit;
                let auto = channel.mode & MODE_AUTO != 0;
                if auto {
                    (channel.address, channel.count) = (channel.base_address, channel.base_count);
                } else {
                    controller.masked |= bit;
                }
                break;
            }
        }
        moved
    }
}

impl ChannelState {
    /// Where the next unit lies.
    fn linear(&self, page: u8, wide: bool) -> u64 {
        if wide {
            // Of words; the page's lowest bit is not used.
            u64::from(page & 0xfe) << 16 | u64::from(self.address) << 1
        } else {
            u64::from(page) << 16 | u64::from(self.address)
        }
    }

    /// Goes on by a unit; whether it was the last one.
    fn step(&mut self) -> bool {
        let by = if self.mode & MODE_DOWN != 0 { u16::MAX } else { 1 };
        // The page register does not follow.
        self.address = self.address.wrapping_add(by);
        let last = self.count == 0;
        self.count = self.count.wrapping_sub(1);
        last
    }
}

impl ControllerState {
    fn read(&mut self, offset: u16) -> u8 {
        match offset {
            0..STATUS => {
                let channel = &self.channels[usize::from(offset / 2)];
                let value = if offset & 1 == 0 { channel.address } else { channel.count };
                self.upper = !self.upper;
                value.to_le_bytes()[usize::from(!self.upper)]
            }
            STATUS => std::mem::take(&mut self.ended) | self.requests << 4,
            MASK_ALL => self.masked | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u16, value: u8) {
        let bit = 1u8 << (value & 3);
        let set = |bits: u8| if value & ONE_ON != 0 { bits | bit } else { bits & !bit };
        match offset {
            0..STATUS => {
                let channel = &mut self.channels[usize::from(offset / 2)];
                let (now, base) = if offset & 1 == 0 {
                    (&mut channel.address, &mut channel.base_address)
                } else {
                    (&mut channel.count, &mut channel.base_count)
                };
                let mut bytes = base.to_le_bytes();
                bytes[usize::from(self.upper)] = value;
                *base = u16::from_le_bytes(bytes);
                *now = *base;
                self.upper = !self.upper;
            }
            STATUS => self.command = value,
            REQUEST => self.requests = set(self.requests),
            MASK_ONE => self.masked = set(self.masked),
            MODE => self.channels[usize::from(value & 3)].mode = value & !3,
            CLEAR_FLIP_FLOP => self.upper = false,
            MASTER_CLEAR => {
                let channels = self.channels;
                *self = Self { channels, ..Self::default() };
            }
            CLEAR_MASK => self.masked = 0,
            _ => self.masked = value & 0x0f,
        }
    }
}

impl DmaChannel {
    /// Data that a device has for memory.
    pub fn write(&self, data: &[u8]) -> Moved {
        // It is not changed in this direction; a copy is what the type asks for.
        let mut data = data.to_vec();
        self.dma.transfer(self.number, Way::ToMemory, &mut data)
    }

    /// Data that a device wants of memory.
    pub fn read(&self, data: &mut [u8]) -> Moved {
        self.dma.transfer(self.number, Way::FromMemory, data)
    }
}

impl Device for Dma {
    fn name(&self) -> &str {
        "dma"
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

impl PortDevice for Dma {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base, length, region| PortRange { base, length, region, widths: Width::Byte };
        vec![range(FIRST, 16, REGION_FIRST), range(SECOND, 32, REGION_SECOND), range(PAGES, PAGES_LENGTH, REGION_PAGES)]
    }

    fn port_read(&self, region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut state = self.state.lock();
        Ok(match region {
            REGION_FIRST => state.controllers[0].read(offset),
            REGION_SECOND => state.controllers[1].read(offset / 2),
            _ => state.pages.get(usize::from(offset)).copied().ok_or(AccessError::Nobody)?,
        }
        .into())
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        let value = value as u8;
        match region {
            REGION_FIRST => state.controllers[0].write(offset, value),
            REGION_SECOND => state.controllers[1].write(offset / 2, value),
            _ => *state.pages.get_mut(usize::from(offset)).ok_or(AccessError::Nobody)? = value,
        }
        Ok(())
    }
}

impl ResetDevice for Dma {
    fn reset(&self) {
        *self.state.lock() = DmaState::default();
    }
}

impl SaveDevice for Dma {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        *self.state.lock() = StateError::read("dma", record)?;
        Ok(())
    }
}
