//! virtio-gpu: a display in two dimensions (virtio 1.2 section 5.7).
//!
//! [`Gpu`] keeps the driver's resources, shows one of them, and draws the cursor over it. Until its driver shows something,
//! what another [`Screen`] shows is seen: that of the VGA which is the other half of the function
//! ([`crate::VirtioPci::with_vga`]). [`commands`](self) carries commands out; [`resource`](self) copies pixels.
//!
//! ```text
//!   guest memory --transfer--> resource --flush, cursor--> count of changes --> look: drawn when somebody looks
//!   wish for a size --bell--> event, interrupt --> the driver asks what is connected, and shows that
//! ```
//!
//! Neighbours: `lodge-display` has the monitor that looks, and what it says of itself.

mod commands;
mod connector;
pub mod registers;
mod resource;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use connector::Connector;
use lodge_bus::StateError;
use lodge_display::{Frame, Look, Mode, Screen, VideoAperture};
use lodge_engine_api::GuestMemory;
use parking_lot::Mutex;
use registers::*;
use resource::Resource;
pub use state::{Area, CursorState, GpuState, ResourceState, Scanout};

use crate::device::VirtioDevice;
use crate::queue::{Broken, VirtQueue};
use crate::worker::Bell;

/// Marks stamps of this screen among those of the other.
const OWN_STAMP: u64 = 1 << 63;
/// What is shown where nothing was shown before.
const NO_SIGNAL: [u32; 2] = [640, 400];

/// What a GPU is connected to.
pub struct GpuWiring {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// What is seen until its driver shows something.
    pub before: Option<Arc<dyn Screen>>,
    /// The function's own video memory, in which resources can lie, too.
    pub video: Option<VideoAperture>,
}

#[derive(Default)]
struct Volatile {
    resources: BTreeMap<u32, Resource>,
    /// Bytes that they take.
    bytes: u64,
    /// The driver has shown something.
    taken_over: bool,
    scanout: Option<Scanout>,
    /// The size that was shown last.
    size: Option<[u32; 2]>,
    cursor: CursorState,
    /// Counts changes of what is seen, over resets.
    changes: u64,
}

impl Volatile {
    /// As after a reset, which is seen.
    fn clear(&mut self) {
        *self = Self { changes: self.changes + 1, ..Self::default() };
    }

    /// The size of what the driver shows.
    fn scanned(&self) -> Option<[u32; 2]> {
        self.scanout.map(|Scanout { area, .. }| [area.width, area.height])
    }

    /// The size of what is seen.
    fn size(&self) -> [u32; 2] {
        self.scanned().or(self.size).unwrap_or(NO_SIGNAL)
    }

    /// What is seen now.
    fn shown(&self) -> Shown {
        let scanout = self.scanout.and_then(|Scanout { resource, area }| {
            let resource = self.resources.get(&resource)?;
            Some((resource.picture(), area))
        });
        Shown { size: self.size(), scanout, cursor: self.cursor.clone() }
    }
}

/// What is seen at some moment, to be drawn without the lock: a reset does not wait for that.
struct Shown {
    size: [u32; 2],
    scanout: Option<(Resource, Area)>,
    cursor: CursorState,
}

impl Shown {
    fn draw(&self) -> Frame {
        let [width, height] = self.size.map(|side| side as usize);
        let Some((resource, area)) = &self.scanout else { return Frame::black(width, height) };
        let mut pixels = Vec::with_capacity(width * height);
        for y in area.y..area.y + area.height {
            let (row, _) = resource.row(area.x, y, area.width).as_chunks();
            pixels.extend(row.iter().map(|pixel| resource.format.colour(*pixel)));
        }
        let mut frame = Frame { width, height, pixels };
        self.cursor.draw(&mut frame);
        frame
    }
}

impl CursorState {
    /// Draws it over a frame. Its colours have been multiplied by alpha before, as Linux has them.
    fn draw(&self, frame: &mut Frame) {
        let side = CURSOR_SIDE as usize;
        let (image, _) = self.image.as_chunks::<PIXEL>();
        for (number, [blue, green, red, alpha]) in image.iter().enumerate() {
            let place = |at: i32, by: usize| usize::try_from(i64::from(at) + by as i64).ok();
            let (Some(x), Some(y)) = (place(self.x, number % side), place(self.y, number / side)) else { continue };
            if x >= frame.width || y >= frame.height || *alpha == 0 {
                continue;
            }
            let Some(pixel) = frame.pixels.get_mut(y * frame.width + x) else { continue };
            let below = *pixel;
            let blend = |colour: &u8, shift: u32| {
                let through = (below >> shift & 0xff) * u32::from(0xff - alpha) / 0xff;
                (u32::from(*colour) + through).min(0xff) << shift
            };
            *pixel = blend(red, 16) | blend(green, 8) | blend(blue, 0);
        }
    }
}

/// A GPU.
pub struct Gpu {
    // configuration
    name: String,
    // wiring
    memory: GuestMemory,
    before: Option<Arc<dyn Screen>>,
    video: Option<VideoAperture>,
    // volatile
    volatile: Mutex<Volatile>,
    /// Never held together with the other, which is held for as long as pixels are copied.
    connector: Mutex<Connector>,
}

impl Gpu {
    /// A GPU.
    pub fn new(name: &str, wiring: GpuWiring) -> Arc<Self> {
        let GpuWiring { memory, before, video } = wiring;
        Arc::new(Self {
            name: name.to_owned(),
            memory,
            before,
            video,
            volatile: Mutex::default(),
            connector: Mutex::default(),
        })
    }

    /// What is seen, if it is other than what was seen last.
    fn shown(&self, last: &mut Look) -> Option<Shown> {
        let volatile = self.volatile.lock();
        let stamp = OWN_STAMP | volatile.changes;
        // What the other has compared with.
        last.memory = Vec::new();
        (last.stamp.replace(stamp) != Some(stamp)).then(|| volatile.shown())
    }

    /// Tells the driver if the monitor prefers another size.
    fn announce(&self, queue: &VirtQueue) {
        let due = self.connector.lock().announce();
        if due {
            queue.config_changed();
        }
    }

    /// The other screen, while it is what is seen.
    fn other(&self) -> Option<&Arc<dyn Screen>> {
        self.before.as_ref().filter(|_| !self.volatile.lock().taken_over)
    }
}

impl Screen for Gpu {
    fn mode(&self) -> Mode {
        if let Some(other) = self.other() {
            return other.mode();
        }
        let [width, height] = self.volatile.lock().size().map(|side| side as usize);
        Mode::Graphics { width, height, depth: 32 }
    }

    fn look(&self, last: &mut Look) -> Option<Frame> {
        if let Some(other) = self.other() {
            return other.look(last);
        }
        self.shown(last).map(|shown| shown.draw())
    }

    fn prefer(&self, size: [u16; 2]) -> bool {
        let shown = self.volatile.lock().scanned();
        let bell = self.connector.lock().prefer(size, shown);
        // It is told where nothing happens during a pause.
        if let Some(bell) = bell {
            bell.ring(CONTROL);
        }
        true
    }

    fn text(&self) -> Option<String> {
        self.other()?.text()
    }
}

impl VirtioDevice for Gpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x03, 0x80, 0x00]
    }

    fn features(&self) -> u64 {
        FEATURE_EDID
    }

    fn queue_sizes(&self) -> Vec<u16> {
        QUEUE_SIZES.to_vec()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut image = [0; CONFIG_SIZE];
        image[CONFIG_EVENTS..][..4].copy_from_slice(&self.connector.lock().events.to_le_bytes());
        image[CONFIG_SCANOUTS..][..4].copy_from_slice(&SCANOUTS.to_le_bytes());
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let bits = (offset..).zip(data).filter_map(|(at, byte)| {
            let number = at.checked_sub(CONFIG_CLEAR as u64).filter(|number| *number < 4)?;
            Some(u32::from(*byte) << (8 * number))
        });
        let cleared = bits.fold(0, |all, some| all | some);
        let bell = self.connector.lock().clear(cleared);
        if let Some(bell) = bell {
            bell.ring(CONTROL);
        }
    }

    fn activate(&self, _features: u64, bell: Bell) {
        self.connector.lock().connect(bell);
    }

    fn deactivate(&self) {
        self.volatile.lock().clear();
        self.connector.lock().disconnect();
    }

    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        if index == CONTROL {
            self.announce(queue);
        }
        queue.drain(|queue, chain| self.serve(index, queue, chain))
    }

    fn save(&self) -> Vec<u8> {
        let (preferred, announce, events) = {
            let connector = self.connector.lock();
            (connector.preferred, connector.announce, connector.events)
        };
        let volatile = self.volatile.lock();
        let resources = volatile.resources.iter().map(|(id, resource)| ResourceState::of(*id, resource));
        lodge_savestate::to_record(&GpuState {
            taken_over: volatile.taken_over,
            scanout: volatile.scanout,
            size: volatile.size,
            cursor: volatile.cursor.clone(),
            preferred,
            announce,
            events,
            resources: resources.collect(),
        })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let fault = |cause: &str| StateError { device: self.name.clone(), cause: cause.into() };
        let state: GpuState = StateError::read(&self.name, record)?;
        if !state.is_sound() {
            return Err(fault("it is not one of a GPU"));
        }
        let revived = state.resources.into_iter().map(|resource| resource.revive(&self.memory));
        let resources: Option<BTreeMap<_, _>> = revived.collect();
        let resources = resources.ok_or_else(|| fault("a resource makes no sense"))?;
        let bytes = resources.values().map(Resource::bytes).sum();
        let shows = |scanout: &Scanout| {
            let area = scanout.area;
            let some = area.width > 0 && area.height > 0;
            some && resources.get(&scanout.resource).is_some_and(|resource| resource.has(&area))
        };
        if bytes > MOST_BYTES || !state.scanout.as_ref().is_none_or(shows) {
            return Err(fault("its resources don't go together"));
        }
        let mut volatile = self.volatile.lock();
        let (taken_over, scanout, size, cursor) = (state.taken_over, state.scanout, state.size, state.cursor);
        let changes = volatile.changes + 1;
        *volatile = Volatile { resources, bytes, taken_over, scanout, size, cursor, changes };
        drop(volatile);
        self.connector.lock().restore(state.preferred, state.announce, state.events);
        Ok(())
    }
}
