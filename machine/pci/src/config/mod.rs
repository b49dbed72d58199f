//! A function's configuration space: header, base address registers, capabilities.
//!
//! [`ConfigSpace`] holds the bytes, knows which bits software may write, and moves the ranges behind its BARs on the buses when
//! a BAR or the command register changes. The function that owns it locks it.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use lodge_bus::{MemoryMapping, MmioMapping, PortMapping};
use registers::*;
pub use state::ConfigState;

/// What does not change in a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigSpec {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor and device.
    pub subsystem: [u16; 2],
    /// Several functions at this device number.
    pub multifunction: bool,
    /// Interrupt pin: 1 is INTA, 0 none.
    pub pin: u8,
}

/// What lies behind a BAR.
pub enum BarTarget {
    /// Memory below 4 GiB.
    Memory32(MmioMapping),
    /// Memory anywhere; takes two registers.
    Memory64(MmioMapping),
    /// Ports.
    Ports(PortMapping),
    /// Guest memory below 4 GiB, prefetchable: a frame buffer, which is reached at full speed.
    Prefetchable(MemoryMapping),
}

struct Bar {
    register: u8,
    size: u64,
    target: BarTarget,
}

/// A configuration space.
pub struct ConfigSpace {
    bytes: [u8; 256],
    writable: [u8; 256],
    bars: Vec<Bar>,
    rom: Option<(u64, MmioMapping)>,
    next_capability: u8,
    last_capability: u8,
}

impl ConfigSpace {
    /// A header without BARs and capabilities.
    pub fn new(spec: &ConfigSpec) -> Self {
        let mut space = Self {
            bytes: [0; 256],
            writable: [0; 256],
            bars: Vec::new(),
            rom: None,
            next_capability: AFTER_HEADER,
            last_capability: CAPABILITIES,
        };
        space.put16(ID, spec.vendor);
        space.put16(ID + 2, spec.device);
        space.bytes[usize::from(CLASS)] = spec.revision;
        let [base, sub, interface] = spec.class;
        space.bytes[usize::from(CLASS) + 1..][..3].copy_from_slice(&[interface, sub, base]);
        space.bytes[usize::from(HEADER) + 2] = if spec.multifunction { HEADER_MULTIFUNCTION } else { 0 };
        space.put16(SUBSYSTEM, spec.subsystem[0]);
        space.put16(SUBSYSTEM + 2, spec.subsystem[1]);
        space.bytes[usize::from(INTERRUPT) + 1] = spec.pin;
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // Cache line size and latency timer.
        space.allow(HEADER, &[0xff, 0xff]);
        if spec.pin != 0 {
            space.allow(INTERRUPT, &[0xff]);
        }
        space
    }

    fn put16(&mut self, offset: u8, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Sets bytes that software may not be able to write.
    pub fn set(&mut self, offset: u8, bytes: &[u8]) {
        let room = &mut self.bytes[usize::from(offset)..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
    }

    /// Lets software write these bits.
    pub fn allow(&mut self, offset: u8, mask: &[u8]) {
        for (byte, mask) in self.writable[usize::from(offset)..].iter_mut().zip(mask) {
            *byte |= mask;
        }
    }

    /// Adds BAR `index` (0 to 5) of `size` bytes, a power of two; sizes are rounded up to the least that PCI has.
    pub fn add_bar(&mut self, index: u8, size: u64, target: BarTarget) {
        let register = BAR0 + 4 * index.min(5);
        let (least, flags) = match target {
            BarTarget::Memory32(_) => (16, 0b0000),
            BarTarget::Memory64(_) => (16, 0b0100),
            BarTarget::Ports(_) => (4, 0b01),
            // Memory comes in pages.
            BarTarget::Prefetchable(_) => (4096, 0b1000),
        };
        let size = size.max(least).next_power_of_two();
        let mask = !(size - 1);
        self.set(register, &[flags]);
        match target {
            BarTarget::Memory64(_) => self.allow(register, &mask.to_le_bytes()),
            _ => self.allow(register, &(mask as u32).to_le_bytes()),
        }
        self.bars.push(Bar { register, size, target });
    }

    /// Adds an expansion ROM of `size` bytes, which is rounded up to a power of two of at least 2 KiB. `target` is where
    /// it is read; it is found there while the ROM's own enable bit and the command register's are set.
    pub fn add_rom(&mut self, size: u64, target: MmioMapping) {
        let size = size.clamp(ROM_LEAST, ROM_MOST).next_power_of_two();
        self.allow(ROM, &(!(size - 1) as u32 | ROM_ENABLE).to_le_bytes());
        self.rom = Some((size, target));
    }

    /// The BARs as (register, size, is I/O), and the expansion ROM, whose register is [`ROM`].
    pub fn bars(&self) -> Vec<(u8, u64, bool)> {
        let bars = self.bars.iter().map(|bar| (bar.register, bar.size, matches!(bar.target, BarTarget::Ports(_))));
        bars.chain(self.rom.iter().map(|(size, _)| (ROM, *size, false))).collect()
    }

    /// Adds a capability: its ID and next pointer are put before `body`, bits in `writable` (which matches `body`) can be
    /// written. Returns its offset, or `None` when there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u8> {
        let offset = self.next_capability;
        let end = usize::from(offset) + 2 + body.len();
        if end > 256 {
            return None;
        }
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        // The header's pointer, or the one before.
        let link = if self.last_capability == CAPABILITIES { CAPABILITIES } else { self.last_capability + 1 };
        self.set(link, &[offset]);
        self.bytes[usize::from(COMMAND) + 2] |= STATUS_CAPABILITIES as u8;
        self.last_capability = offset;
        self.next_capability = u8::try_from(end.next_multiple_of(4)).unwrap_or(0xfc);
        Some(offset)
    }

    /// The double word at `offset`.
    pub fn read(&self, offset: u8) -> u32 {
        let at = usize::from(offset & 0xfc);
        u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    /// The word at `offset`.
    pub fn read16(&self, offset: u8) -> u16 {
        (self.read(offset) >> (8 * (offset & 2))) as u16
    }

    /// Writes those bits of the double word at `offset` that `mask` has and that can be written, and moves BARs.
    pub fn write(&mut self, offset: u8, mask: u32, value: u32) {
        let at = usize::from(offset & 0xfc);
        for index in 0..4 {
            let shift = 8 * index;
            let mask = (mask >> shift) as u8 & self.writable[at + index];
            let byte = &mut self.bytes[at + index];
            *byte = *byte & !mask | (value >> shift) as u8 & mask;
        }
        let bars = usize::from(BAR0)..usize::from(BAR0) + 24;
        if at == usize::from(COMMAND) || at == usize::from(ROM) || bars.contains(&at) {
            self.remap();
        }
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.read16(COMMAND)
    }

    /// Shows whether INTx is asserted.
    pub fn set_intx_status(&mut self, asserted: bool) {
        let status = &mut self.bytes[usize::from(COMMAND) + 2];
        *status = if asserted { *status | STATUS_INTX as u8 } else { *status & !(STATUS_INTX as u8) };
    }

    /// Maps what lies behind the BARs where they say, or nowhere while the command register does not let them respond.
    fn remap(&self) {
        let command = self.command();
        for bar in &self.bars {
            let low = self.read(bar.register);
            match &bar.target {
                BarTarget::Ports(mapping) => {
                    let base = u16::try_from(low & !3).ok().filter(|base| *base != 0);
                    mapping.set(base.filter(|_| command & COMMAND_IO != 0));
                }
                BarTarget::Memory32(mapping) => {
                    let base = u64::from(low & !0xf);
                    mapping.set(Some(base).filter(|base| *base != 0 && command & COMMAND_MEMORY != 0));
                }
                BarTarget::Memory64(mapping) => {
                    let base = u64::from(low & !0xf) | u64::from(self.read(bar.register + 4)) << 32;
                    mapping.set(Some(base).filter(|base| *base != 0 && command & COMMAND_MEMORY != 0));
                }
                BarTarget::Prefetchable(mapping) => {
                    let base = u64::from(low & !0xf);
                    mapping.set(Some(base).filter(|base| *base != 0 && command & COMMAND_MEMORY != 0));
                }
            }
        }
        if let Some((_, mapping)) = &self.rom {
            let register = self.read(ROM);
            let base = u64::from(register & ROM_ADDRESS);
            let enabled = register & ROM_ENABLE != 0 && command & COMMAND_MEMORY != 0;
            mapping.set(Some(base).filter(|base| *base != 0 && enabled));
        }
    }

    /// After power-on: what software wrote is zero again.
    pub fn reset(&mut self) {
        for (byte, writable) in self.bytes.iter_mut().zip(&self.writable) {
            *byte &= !writable;
        }
        self.set_intx_status(false);
        self.remap();
    }

    /// Its saved state.
    pub fn state(&self) -> ConfigState {
        ConfigState { bytes: self.bytes.to_vec() }
    }

    /// Takes what software wrote from a saved state.
    pub fn set_state(&mut self, state: &ConfigState) {
        for ((byte, writable), saved) in self.bytes.iter_mut().zip(&self.writable).zip(&state.bytes) {
            *byte = *byte & !writable | saved & writable;
        }
        self.remap();
    }
}
