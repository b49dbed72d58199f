//! Saved state of the GPU, besides the transport's.

use std::collections::BTreeSet;
use std::sync::Arc;

use lodge_display::edid;
use lodge_engine_api::GuestMemory;
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::*;
use super::resource::{Backing, Resource};

/// A part of a resource, in pixels (struct virtio_gpu_rect).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Area {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scanout {
    /// The resource.
    pub resource: u32,
    /// Which part of it, never empty.
    pub area: Area,
}

/// The cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CursorState {
    /// Where its left edge is.
    pub x: i32,
    /// Where its upper edge is.
    pub y: i32,
    /// Its pixels in rows, four bytes each: blue, green, red, alpha. None: it is hidden.
    #[serde(with = "serde_bytes")]
    pub image: Vec<u8>,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceState {
    /// What the driver calls it.
    pub id: u32,
    /// How bytes make a pixel.
    pub format: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its pixels.
    #[serde(with = "serde_bytes")]
    pub pixels: Vec<u8>,
    /// The guest memory behind it: address and bytes.
    pub backing: Option<Vec<(u64, u32)>>,
}

/// The GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuState {
    /// It shows something, rather than the VGA.
    pub taken_over: bool,
    /// What it shows.
    pub scanout: Option<Scanout>,
    /// Pixels in a row, and rows, of what it has shown last.
    pub size: Option<[u32; 2]>,
    /// Its cursor.
    pub cursor: CursorState,
    /// The size that the monitor prefers, if someone has wished for one.
    pub preferred: Option<[u16; 2]>,
    /// The driver is still to be told of it.
    pub announce: bool,
    /// Events that the driver has not cleared.
    pub events: u32,
    /// Its resources.
    pub resources: Vec<ResourceState>,
}

impl ResourceState {
    pub(super) fn of(id: u32, resource: &Resource) -> Self {
        let [width, height] = resource.size;
        let backing = resource.backing.as_ref().map(|backing| backing.pieces().to_vec());
        Self { id, format: resource.format.number, width, height, pixels: resource.pixels.to_vec(), backing }
    }

    /// The resource, if there can be such a one.
    pub(super) fn revive(self, memory: &GuestMemory) -> Option<(u32, Resource)> {
        let size = [self.width, self.height];
        let sizes = size.iter().all(|side| (1..=MOST_SIDE).contains(side));
        let few = self.backing.as_ref().is_none_or(|pieces| pieces.len() <= MOST_ENTRIES as usize);
        if self.id == 0 || !sizes || !few || self.pixels.len() as u64 != Resource::length(size) {
            return None;
        }
        let backing = match self.backing {
            Some(pieces) => Some(Backing::new(memory, pieces)?),
            None => None,
        };
        Some((self.id, Resource { format: Format::of(self.format)?, size, pixels: Arc::new(self.pixels), backing }))
    }
}

impl GpuState {
    /// Whether a GPU can be in it, as far as that can be told before the resources are there.
    pub(super) fn is_sound(&self) -> bool {
        let ids: BTreeSet<_> = self.resources.iter().map(|resource| resource.id).collect();
        let bytes: u64 = self.resources.iter().map(|resource| resource.pixels.len() as u64).sum();
        let cursor = self.cursor.image.len();
        let shown = |size: [u32; 2]| (1..=MOST_SHOWN).contains(&(u64::from(size[0]) * u64::from(size[1])));
        let size = self.size.is_none_or(|size| size.iter().all(|side| (1..=MOST_SIDE).contains(side)) && shown(size));
        let preferred = self.preferred.is_none_or(|size| size.iter().all(|side| edid::SIDES.contains(side)));
        ids.len() == self.resources.len()
            && preferred
            && self.events & !EVENT_DISPLAY == 0
            && ids.len() <= MOST_RESOURCES
            && bytes <= MOST_BYTES
            && size
            && (cursor == 0 || cursor == (CURSOR_SIDE * CURSOR_SIDE) as usize * PIXEL)
    }
}

impl Saved for GpuState {
    const KIND: &'static str = "virtio-gpu";
    const VERSION: u16 = 1;
}
