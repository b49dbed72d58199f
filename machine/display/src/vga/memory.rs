//! Video memory: a region of guest memory, which guests also reach at full speed where BAR 0 says.
//!
//! Byte `a` of plane `p` is at `4 * a + p`, so that one aligned double word is what the latches hold. Chain 4 thereby
//! leaves memory as it is; odd/even addresses leave no gaps in planes, as in QEMU.

use std::ops::RangeInclusive;

use lodge_bus::MemoryPlace;
use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Bytes of video memory, which are a power of two: at least what a VGA's window can reach.
pub const VIDEO_MEMORY_SIZES: RangeInclusive<u64> = 1 << 20..=256 << 20;

/// Why a region will not do as video memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VideoMemoryError {
    /// BARs have sizes that are powers of two.
    #[error("video memory of {length} bytes can't be had; it is a power of two from 1 MiB to 256 MiB")]
    Size {
        /// Bytes asked for.
        length: u64,
    },
    /// Guest memory has no such region.
    #[error("internal fault: guest memory has no {length} bytes at {base:#x} for video memory")]
    Region {
        /// Where it was to begin.
        base: u64,
        /// Its bytes.
        length: u64,
    },
}

/// Video memory by the addresses at which a guest finds it: those behind BAR 0.
#[derive(Clone)]
pub struct VideoAperture {
    place: MemoryPlace,
    base: u64,
    length: u64,
}

impl VideoAperture {
    /// The address by which guest memory knows the bytes from the guest's `address` on; `None` if not all of them are here.
    pub fn locate(&self, address: u64, length: u64) -> Option<u64> {
        let offset = address.checked_sub(self.place.get()?)?;
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| self.base + offset)
    }
}

/// Video memory. Accesses beyond its end read zero and change nothing.
#[derive(Clone)]
pub struct VideoMemory {
    memory: GuestMemory,
    base: GuestAddress,
    length: u64,
}

impl VideoMemory {
    /// The region of `length` bytes that begins at `base` in `memory`: the address by which `memory` knows it, not where a
    /// guest finds it.
    ///
    /// # Errors
    /// The length is no power of two from 1 MiB to 256 MiB, or there is no such region.
    pub fn new(memory: GuestMemory, base: u64, length: u64) -> Result<Self, VideoMemoryError> {
        if !length.is_power_of_two() || !VIDEO_MEMORY_SIZES.contains(&length) {
            return Err(VideoMemoryError::Size { length });
        }
        if !memory.check_range(GuestAddress(base), length as usize) {
            return Err(VideoMemoryError::Region { base, length });
        }
        Ok(Self { memory, base: GuestAddress(base), length })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// This memory as a guest finds it at `place`.
    pub fn aperture(&self, place: MemoryPlace) -> VideoAperture {
        VideoAperture { place, base: self.base.0, length: self.length }
    }

    fn at(&self, offset: u64, bytes: usize) -> Option<GuestAddress> {
        let end = offset.checked_add(bytes as u64)?;
        (end <= self.length).then_some(GuestAddress(self.base.0 + offset))
    }

    /// Reads bytes from `offset` on.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let read = self.at(offset, data.len()).map(|at| self.memory.read_slice(data, at));
        if !matches!(read, Some(Ok(()))) {
            data.fill(0);
        }
    }

    /// Writes bytes from `offset` on.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(at) = self.at(offset, data.len()) {
            // The region was there when this was made, and stays.
            let _ = self.memory.write_slice(data, at);
        }
    }

    /// The bytes at `address` of all four planes, that of plane 0 lowest.
    pub fn planes(&self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(u64::from(address) * 4, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes those bytes of the planes at `address` that `mask` (whole bytes) has.
    pub fn set_planes(&self, address: u32, mask: u32, value: u32) {
        let value = if mask == u32::MAX { value } else { self.planes(address) & !mask | value & mask };
        self.write(u64::from(address) * 4, &value.to_le_bytes());
    }

    /// Zeroes `length` bytes from the first on.
    pub fn clear(&self, length: u64) {
        const PIECE: usize = 64 << 10;
        let zeros = vec![0; PIECE];
        let length = length.min(self.length);
        for offset in (0..length).step_by(PIECE) {
            let piece = (length - offset).min(PIECE as u64) as usize;
            self.write(offset, &zeros[..piece]);
        }
    }

    /// Brings `copy` up to date with the bytes from `offset` on, as many as it shall have; whether it was not.
    pub fn refresh(&self, offset: u64, length: usize, copy: &mut Vec<u8>) -> bool {
        const PIECE: usize = 64 << 10;
        let mut changed = copy.len() != length;
        copy.resize(length, 0);
        let mut piece = vec![0; PIECE.min(length)];
        for (index, old) in copy.chunks_mut(PIECE).enumerate() {
            let new = &mut piece[..old.len()];
            self.read(offset.saturating_add((index * PIECE) as u64), new);
            if new != old {
                old.copy_from_slice(new);
                changed = true;
            }
        }
        changed
    }
}
