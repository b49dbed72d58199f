//! How a processor reaches video memory through the window at 0xa0000: planes, latches, write and read modes.
//!
//! (IBM PS/2 Hardware Interface Technical Reference, "Graphics Controller"; addresses as in [`super::memory`].)

use super::memory::VideoMemory;
use super::registers::{dispi, gfx, seq};
use super::state::Registers;

/// Bytes of the window.
pub const WINDOW: u64 = 0x2_0000;

/// A bit of `nibble` becomes a byte of ones for its plane.
pub(super) fn spread(nibble: u8) -> u32 {
    (0..4).filter(|plane| nibble >> plane & 1 != 0).map(|plane| 0xff << (8 * plane)).sum()
}

/// The same byte in all planes.
fn repeat(byte: u8) -> u32 {
    u32::from(byte) * 0x0101_0101
}

/// What a byte of the window is.
struct Place {
    /// Its address within each plane.
    address: u32,
    /// Planes that it belongs to.
    planes: u8,
    /// The plane that a read is answered from.
    read: u8,
}

impl Registers {
    /// Where in video memory `offset` of the window leads; `None`: nowhere.
    fn window(&self, offset: u64) -> Option<u32> {
        let offset = offset as u32;
        match self.gfx[gfx::MISC] >> 2 & 3 {
            0 => Some(offset),
            1 => (offset < 0x1_0000).then(|| offset + (u32::from(self.bank()) << 16)),
            2 => offset.checked_sub(0x1_0000).filter(|offset| *offset < 0x8000),
            _ => offset.checked_sub(0x1_8000),
        }
    }

    fn bank(&self) -> u16 {
        if self.extended() { self.dispi[dispi::BANK] } else { 0 }
    }

    fn place(&self, offset: u64) -> Option<Place> {
        let at = self.window(offset)?;
        Some(if self.chain_4() {
            Place { address: at >> 2, planes: 1 << (at & 3), read: (at & 3) as u8 }
        } else if self.gfx[gfx::MODE] & gfx::MODE_ODD_EVEN != 0 {
            let odd = (at & 1) as u8;
            Place { address: at >> 1, planes: 0b0101 << odd, read: self.gfx[gfx::READ_MAP] & 2 | odd }
        } else {
            Place { address: at, planes: 0b1111, read: self.gfx[gfx::READ_MAP] }
        })
    }

    /// Whether writes put bytes into memory as they are.
    fn writes_plainly(&self) -> bool {
        self.chain_4()
            && self.gfx[gfx::MODE] & 3 == 0
            && self.gfx[gfx::ROTATE] == 0
            && self.gfx[gfx::ENABLE_SET_RESET] == 0
            && self.gfx[gfx::BIT_MASK] == 0xff
            && self.seq[seq::MAP_MASK] == 0x0f
    }

    /// Reads a byte at `offset` in the window, and loads the latches; `None`: nobody is there.
    pub(super) fn read_memory(&mut self, memory: &VideoMemory, offset: u64) -> Option<u8> {
        let place = self.place(offset)?;
        self.latch = memory.planes(place.address);
        if self.gfx[gfx::MODE] & gfx::MODE_READ_1 == 0 {
            return Some((self.latch >> (8 * place.read)) as u8);
        }
        // A bit is set where all planes that matter are as they should be.
        let differs = (self.latch ^ spread(self.gfx[gfx::COMPARE])) & spread(self.gfx[gfx::DONT_CARE]);
        Some(!(differs.to_le_bytes().into_iter().fold(0, |all, plane| all | plane)))
    }

    /// Writes bytes from `offset` in the window on.
    pub(super) fn write_memory(&self, memory: &VideoMemory, offset: u64, data: &[u8]) {
        if self.writes_plainly()
            && let (Some(first), Some(_)) = (self.window(offset), self.window(offset + data.len() as u64 - 1))
        {
            memory.write(first.into(), data);
            return;
        }
        for (at, byte) in (offset..).zip(data) {
            if let Some(place) = self.place(at) {
                let mask = spread(place.planes & self.seq[seq::MAP_MASK]);
                memory.set_planes(place.address, mask, self.write_value(*byte));
            }
        }
    }

    /// What a byte from the processor becomes on its way to the planes.
    fn write_value(&self, byte: u8) -> u32 {
        let set_reset = spread(self.gfx[gfx::SET_RESET]);
        let rotated = byte.rotate_right(u32::from(self.gfx[gfx::ROTATE] & 7));
        let mask = self.gfx[gfx::BIT_MASK];
        let (value, mask) = match self.gfx[gfx::MODE] & 3 {
            0 => {
                let enabled = spread(self.gfx[gfx::ENABLE_SET_RESET]);
                (repeat(rotated) & !enabled | set_reset & enabled, mask)
            }
            1 => return self.latch,
            2 => (spread(byte & 0x0f), mask),
            _ => (set_reset, mask & rotated),
        };
        let value = match self.gfx[gfx::ROTATE] >> 3 & 3 {
            0 => value,
            1 => value & self.latch,
            2 => value | self.latch,
            _ => value ^ self.latch,
        };
        let mask = repeat(mask);
        value & mask | self.latch & !mask
    }
}
