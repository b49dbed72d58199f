//! What the GPU does with commands (virtio 1.2 section 5.7.6).
//!
//! [`Gpu::serve`] answers one request. Whatever a driver sends it gets an answer, where there is room for it; none of it
//! breaks the queue. What resources may take is bounded by [`MOST_BYTES`].

use std::sync::Arc;

use lodge_display::edid;
use lodge_engine_api::NOWHERE;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

use super::registers::*;
use super::resource::{Backing, Resource};
use super::state::{Area, Scanout};
use super::{Gpu, Volatile};
use crate::queue::{Broken, Chain, VirtQueue};

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unspecified,
    Memory,
    Scanout,
    Resource,
    Parameter,
}

impl Refusal {
    fn response(self) -> u32 {
        match self {
            Self::Unspecified => response::ERR_UNSPEC,
            Self::Memory => response::ERR_OUT_OF_MEMORY,
            Self::Scanout => response::ERR_INVALID_SCANOUT_ID,
            Self::Resource => response::ERR_INVALID_RESOURCE_ID,
            Self::Parameter => response::ERR_INVALID_PARAMETER,
        }
    }
}

/// What is answered: the response, and what comes behind its header.
struct Answer(u32, Vec<u8>);

const DONE: Result<Answer, Refusal> = Ok(Answer(response::OK_NODATA, Vec::new()));

/// A command: its header, and what it has behind that, as far as its kind has a size.
struct Request {
    header: [u8; HEADER],
    body: [u8; BODY],
    /// Bytes of the body that came.
    length: usize,
}

impl Request {
    /// Reads the command at the beginning of a request; `None` if it has not even a header.
    fn read(queue: &VirtQueue, chain: &Chain) -> Result<Option<Self>, Broken> {
        let mut request = Self { header: [0; HEADER], body: [0; BODY], length: 0 };
        let Some(rest) = chain.readable.length().checked_sub(HEADER as u64) else { return Ok(None) };
        queue.read(chain, 0, &mut request.header)?;
        request.length = rest.min(BODY as u64) as usize;
        queue.read(chain, HEADER as u64, &mut request.body[..request.length])?;
        Ok(Some(request))
    }

    /// The double word at an offset in the header.
    fn head(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.header[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    /// Holds that the body has so many bytes.
    fn needs(&self, bytes: usize) -> Result<&Self, Refusal> {
        if self.length >= bytes { Ok(self) } else { Err(Refusal::Unspecified) }
    }

    /// Double word `index` of the body.
    fn word(&self, index: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.body[4 * index..][..4]);
        u32::from_le_bytes(bytes)
    }

    /// The rectangle at the beginning of the body.
    fn area(&self) -> Area {
        Area { x: self.word(0), y: self.word(1), width: self.word(2), height: self.word(3) }
    }

    /// The header of the response.
    fn answer_header(&self, kind: u32) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        if self.head(4) & FLAG_FENCE != 0 {
            header[4..8].copy_from_slice(&FLAG_FENCE.to_le_bytes());
            // Fence and context.
            header[8..20].copy_from_slice(&self.header[8..20]);
        }
        header
    }
}

/// The scanout with a number.
fn scanout(number: u32) -> Result<(), Refusal> {
    if number < SCANOUTS { Ok(()) } else { Err(Refusal::Scanout) }
}

impl Volatile {
    fn resource(&mut self, id: u32) -> Result<&mut Resource, Refusal> {
        self.resources.get_mut(&id).ok_or(Refusal::Resource)
    }

    /// Takes memory of the host.
    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        let all = self.bytes.checked_add(bytes).filter(|all| *all <= MOST_BYTES).ok_or(Refusal::Memory)?;
        self.bytes = all;
        Ok(())
    }

    /// Shows nothing any more.
    fn hide(&mut self) {
        self.size = Some(self.size());
        self.scanout = None;
        self.changes += 1;
    }

    fn create(&mut self, id: u32, format: u32, size: [u32; 2]) -> Result<Answer, Refusal> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(Refusal::Resource);
        }
        let format = Format::of(format).ok_or(Refusal::Parameter)?;
        if size.contains(&0) || size.iter().any(|side| *side > MOST_SIDE) {
            return Err(Refusal::Parameter);
        }
        if self.resources.len() >= MOST_RESOURCES {
            return Err(Refusal::Memory);
        }
        let length = Resource::length(size);
        self.take(length)?;
        // At most MOST_BYTES, which the host may not have all the same.
        let mut pixels = Vec::new();
        if pixels.try_reserve_exact(length as usize).is_err() {
            self.bytes -= length;
            return Err(Refusal::Memory);
        }
        pixels.resize(length as usize, 0);
        self.resources.insert(id, Resource { format, size, pixels: Arc::new(pixels), backing: None });
        DONE
    }

    fn remove(&mut self, id: u32) -> Result<Answer, Refusal> {
        let resource = self.resources.remove(&id).ok_or(Refusal::Resource)?;
        self.bytes -= resource.bytes();
        if self.scanout.is_some_and(|scanout| scanout.resource == id) {
            self.hide();
        }
        DONE
    }

    fn show(&mut self, id: u32, area: Area) -> Result<Answer, Refusal> {
        if id == 0 {
            self.hide();
        } else {
            let shown = u64::from(area.width) * u64::from(area.height);
            if shown == 0 || shown > MOST_SHOWN || !self.resource(id)?.has(&area) {
                return Err(Refusal::Parameter);
            }
            self.scanout = Some(Scanout { resource: id, area });
            self.changes += 1;
        }
        self.taken_over = true;
        DONE
    }

    fn flush(&mut self, id: u32, area: &Area) -> Result<Answer, Refusal> {
        if !self.resource(id)?.has(area) {
            return Err(Refusal::Parameter);
        }
        if self.scanout.is_some_and(|scanout| scanout.resource == id) {
            self.changes += 1;
        }
        DONE
    }

    fn attach(&mut self, id: u32, backing: Option<Backing>) -> Result<Answer, Refusal> {
        let resource = self.resource(id)?;
        if resource.backing.is_some() {
            return Err(Refusal::Unspecified);
        }
        let before = resource.bytes();
        resource.backing = Some(backing.ok_or(Refusal::Unspecified)?);
        let more = resource.bytes() - before;
        let taken = self.take(more);
        if taken.is_err() {
            self.resource(id)?.backing = None;
        }
        taken.and(DONE)
    }

    fn detach(&mut self, id: u32) -> Result<Answer, Refusal> {
        let resource = self.resource(id)?;
        let before = resource.bytes();
        if resource.backing.take().is_none() {
            return Err(Refusal::Unspecified);
        }
        let after = resource.bytes();
        self.bytes -= before - after;
        DONE
    }

    fn move_cursor(&mut self, x: u32, y: u32) {
        // Beyond the left and upper edge they are negative.
        (self.cursor.x, self.cursor.y) = (x as i32, y as i32);
        self.changes += 1;
    }

    fn cursor_image(&self, id: u32) -> Result<Vec<u8>, Refusal> {
        if id == 0 {
            return Ok(Vec::new());
        }
        let resource = self.resources.get(&id).ok_or(Refusal::Resource)?;
        if resource.size != [CURSOR_SIDE; 2] {
            return Err(Refusal::Parameter);
        }
        let (pixels, _) = resource.pixels.as_chunks();
        Ok(pixels.iter().flat_map(|pixel| resource.format.colour_and_alpha(*pixel).to_le_bytes()).collect())
    }
}

impl Gpu {
    /// Carries out one request of a queue and gives it back.
    pub(super) fn serve(&self, index: u16, queue: &mut VirtQueue, chain: &Chain) -> Result<(), Broken> {
        let request = Request::read(queue, chain)?;
        let (header, body) = match &request {
            None => ([0; HEADER], None),
            Some(request) => {
                let answer = if index == CURSOR { self.cursor(request) } else { self.control(request, queue, chain) };
                let Answer(kind, body) = answer.unwrap_or_else(|refusal| Answer(refusal.response(), Vec::new()));
                (request.answer_header(kind), Some(body))
            }
        };
        let mut answer = header.to_vec();
        match body {
            Some(body) => answer.extend(body),
            None => answer[..4].copy_from_slice(&response::ERR_UNSPEC.to_le_bytes()),
        }
        // Cursor commands have no room for one, as a rule.
        answer.truncate(usize::try_from(chain.writable.length()).unwrap_or(usize::MAX));
        queue.write(chain, 0, &answer)?;
        queue.push(chain, answer.len() as u64)
    }

    fn control(&self, request: &Request, queue: &VirtQueue, chain: &Chain) -> Result<Answer, Refusal> {
        let kind = request.head(0);
        match kind {
            command::GET_DISPLAY_INFO => return Ok(display_info(self.connector.lock().preferred())),
            command::GET_EDID => {
                scanout(request.needs(8)?.word(0))?;
                return Ok(description(self.connector.lock().preferred()));
            }
            command::RESOURCE_ATTACH_BACKING => {
                let (id, entries) = (request.needs(8)?.word(0), request.word(1));
                let backing = self.backing(entries, queue, chain)?;
                return self.volatile.lock().attach(id, backing);
            }
            _ => {}
        }
        let mut volatile = self.volatile.lock();
        match kind {
            command::RESOURCE_CREATE_2D => {
                let [id, format, width, height] = std::array::from_fn(|index| request.word(index));
                request.needs(16)?;
                volatile.create(id, format, [width, height])
            }
            command::RESOURCE_UNREF => volatile.remove(request.needs(8)?.word(0)),
            command::SET_SCANOUT => {
                scanout(request.needs(24)?.word(4))?;
                volatile.show(request.word(5), request.area())
            }
            command::RESOURCE_FLUSH => volatile.flush(request.needs(24)?.word(4), &request.area()),
            command::TRANSFER_TO_HOST_2D => {
                let offset = u64::from(request.needs(32)?.word(4)) | u64::from(request.word(5)) << 32;
                let (resource, area) = (volatile.resource(request.word(6))?, request.area());
                if !resource.has(&area) {
                    return Err(Refusal::Parameter);
                }
                if resource.transfer(&self.memory, offset, &area) { DONE } else { Err(Refusal::Unspecified) }
            }
            command::RESOURCE_DETACH_BACKING => volatile.detach(request.needs(8)?.word(0)),
            _ => Err(Refusal::Unspecified),
        }
    }

    /// The pieces of guest memory that a command names behind its body; `None` if some are not there.
    fn backing(&self, entries: u32, queue: &VirtQueue, chain: &Chain) -> Result<Option<Backing>, Refusal> {
        const FIRST: u64 = HEADER as u64 + 8;
        let bytes = u64::from(entries) * MEMORY_ENTRY;
        if entries > MOST_ENTRIES || chain.readable.length() < FIRST + bytes {
            return Err(Refusal::Unspecified);
        }
        let mut list = vec![0; bytes as usize];
        queue.read(chain, FIRST, &mut list).map_err(|_| Refusal::Unspecified)?;
        let (list, _) = list.as_chunks::<{ MEMORY_ENTRY as usize }>();
        let piece = |entry: &[u8; MEMORY_ENTRY as usize]| {
            let entry = u128::from_le_bytes(*entry);
            (entry as u64, (entry >> 64) as u32)
        };
        let pieces: Option<Vec<_>> = list.iter().map(piece).map(|piece| self.locate(piece)).collect();
        Ok(pieces.and_then(|pieces| Backing::new(&self.memory, pieces)))
    }

    /// Where the bytes are that a driver names by their address: in RAM, or in the function's own video memory.
    fn locate(&self, (address, length): (u64, u32)) -> Option<(u64, u32)> {
        let ram = || self.memory.check_range(GuestAddress(address), length as usize, Permissions::Read);
        if length == 0 || address < NOWHERE && ram() {
            return Some((address, length));
        }
        Some((self.video.as_ref()?.locate(address, length.into())?, length))
    }

    fn cursor(&self, request: &Request) -> Result<Answer, Refusal> {
        let kind = request.head(0);
        let update = kind == command::UPDATE_CURSOR;
        if !update && kind != command::MOVE_CURSOR {
            return Err(Refusal::Unspecified);
        }
        // A driver may send no more than the position with a move, and nothing else counts (5.7.6.10): it hides nothing.
        scanout(request.needs(if update { 32 } else { 16 })?.word(0))?;
        let mut volatile = self.volatile.lock();
        if update {
            volatile.cursor.image = volatile.cursor_image(request.word(4))?;
        }
        volatile.move_cursor(request.word(1), request.word(2));
        DONE
    }
}

/// What is connected: the monitor, to the first scanout.
fn display_info(preferred: [u16; 2]) -> Answer {
    let mut body = vec![0; MOST_SCANOUTS * DISPLAY_ONE];
    let [width, height] = preferred.map(u32::from);
    for (slot, value) in body.as_chunks_mut::<4>().0.iter_mut().zip([0, 0, width, height, 1]) {
        *slot = value.to_le_bytes();
    }
    Answer(response::OK_DISPLAY_INFO, body)
}

/// What the monitor says of itself.
fn description(preferred: [u16; 2]) -> Answer {
    let block = edid::block(preferred);
    let mut body = vec![0; 8 + EDID_ROOM];
    body[..4].copy_from_slice(&(block.len() as u32).to_le_bytes());
    body[8..][..block.len()].copy_from_slice(&block);
    Answer(response::OK_EDID, body)
}
