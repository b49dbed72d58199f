//! A resource: pixels on the host, and the guest memory that they are copied from.
//!
//! [`Resource`] holds pixels in rows without gaps; [`Backing`] is a list of pieces of guest memory that count as one.

use std::sync::Arc;

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::registers::{Format, PIXEL};
use super::state::Area;

/// Pieces of guest memory, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backing {
    /// Address and bytes, none of them empty.
    pieces: Vec<(u64, u32)>,
    /// Where each ends among all.
    ends: Vec<u64>,
}

impl Backing {
    /// These pieces, if they all lie in guest memory.
    pub(super) fn new(memory: &GuestMemory, mut pieces: Vec<(u64, u32)>) -> Option<Self> {
        pieces.retain(|(_, length)| *length > 0);
        // What is counted is what is kept.
        pieces.shrink_to_fit();
        let there = |&(address, length): &(u64, u32)| {
            memory.check_range(GuestAddress(address), length as usize, Permissions::Read)
        };
        if !pieces.iter().all(there) {
            return None;
        }
        let mut end = 0u64;
        let ends = pieces.iter().map(|(_, length)| {
            end += u64::from(*length);
            end
        });
        Some(Self { ends: ends.collect(), pieces })
    }

    /// The pieces.
    pub(super) fn pieces(&self) -> &[(u64, u32)] {
        &self.pieces
    }

    /// Bytes that the list takes.
    fn bytes(&self) -> u64 {
        const ENTRY: usize = size_of::<(u64, u32)>() + size_of::<u64>();
        (self.pieces.len() * ENTRY) as u64
    }

    /// Copies the bytes from `offset` on. Where there are not so many, the rest of `data` stays as it is.
    fn read(&self, memory: &GuestMemory, offset: u64, data: &mut [u8]) {
        let first = self.ends.partition_point(|end| *end <= offset);
        let mut at = offset;
        let mut rest = data;
        for (&(address, length), end) in self.pieces.iter().zip(&self.ends).skip(first) {
            if rest.is_empty() {
                return;
            }
            let within = at - (end - u64::from(length));
            let now = usize::try_from(end - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, more) = std::mem::take(&mut rest).split_at_mut(now);
            // It was there when it was attached, and stays.
            let _ = memory.read_slice(part, GuestAddress(address + within));
            at += now as u64;
            rest = more;
        }
    }
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) format: Format,
    /// Pixels in a row, and rows.
    pub(super) size: [u32; 2],
    /// `size[0] * size[1]` of them, which someone who draws them may have, too.
    pub(super) pixels: Arc<Vec<u8>>,
    pub(super) backing: Option<Backing>,
}

impl Resource {
    /// Bytes that the pixels of so many take.
    pub(super) fn length(size: [u32; 2]) -> u64 {
        u64::from(size[0]) * u64::from(size[1]) * PIXEL as u64
    }

    /// Bytes of the host that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.pixels.len() as u64 + self.backing.as_ref().map_or(0, Backing::bytes)
    }

    /// Whether it has the whole of an area.
    pub(super) fn has(&self, area: &Area) -> bool {
        let fits = |at: u32, length: u32, side: u32| at.checked_add(length).is_some_and(|end| end <= side);
        fits(area.x, area.width, self.size[0]) && fits(area.y, area.height, self.size[1])
    }

    /// The bytes of `count` pixels from column `x` of row `y` on, which it has.
    pub(super) fn row(&self, x: u32, y: u32, count: u32) -> &[u8] {
        let start = (y as usize * self.size[0] as usize + x as usize) * PIXEL;
        self.pixels.get(start..start + count as usize * PIXEL).unwrap_or_default()
    }

    /// It as it is now, without guest memory: to be drawn.
    pub(super) fn picture(&self) -> Self {
        Self { format: self.format, size: self.size, pixels: self.pixels.clone(), backing: None }
    }

    /// The pixels, to be changed: others than someone draws. `None`: the host has no memory for them.
    fn changed(pixels: &mut Arc<Vec<u8>>) -> Option<&mut [u8]> {
        if Arc::get_mut(pixels).is_none() {
            let mut copy = Vec::new();
            copy.try_reserve_exact(pixels.len()).ok()?;
            copy.extend_from_slice(pixels);
            *pixels = Arc::new(copy);
        }
        Arc::get_mut(pixels).map(Vec::as_mut_slice)
    }

    /// Copies an area, which it has, from guest memory, where it begins at `offset` and rows are as long as here. False
    /// without guest memory, or if the host has none.
    pub(super) fn transfer(&mut self, memory: &GuestMemory, offset: u64, area: &Area) -> bool {
        let Some(backing) = &self.backing else { return false };
        let stride = self.size[0] as usize * PIXEL;
        let (first, length) = (area.x as usize * PIXEL, area.width as usize * PIXEL);
        if length == 0 {
            return true;
        }
        let Some(pixels) = Self::changed(&mut self.pixels) else { return false };
        let rows = pixels.chunks_exact_mut(stride).skip(area.y as usize).take(area.height as usize);
        for (number, row) in rows.enumerate() {
            let Some(from) = offset.checked_add((number * stride) as u64) else { break };
            backing.read(memory, from, &mut row[first..first + length]);
        }
        true
    }
}
