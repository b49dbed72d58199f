//! Commands for sectors (82077AA chapter 5): what they work on is noted with the controller held ([`Unit::prepare`]), the work
//! is done without ([`Job::carry_out`]), and what came of it is put into the registers ([`Unit::apply`]).

use std::cmp::Ordering;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use lodge_backend::Disk;
use lodge_chipset::DmaChannel;
use lodge_chipset::dma::Moved;

use super::command::{self, ACCESS, VERIFIED};
use super::registers::*;
use super::state::Phase;
use super::{FloppyState, Geometry, Unit};

const SECTOR: usize = 512;
/// How often DMA that is not set up is tried again, at intervals of [`ACCESS`].
const PATIENCE: u16 = 4000;

/// Status bytes 0 to 2 of a command.
type Status = [u8; 3];

const NO_MARK: Status = [ST0_ABNORMAL, ST1_NO_MARK, 0];
const NO_SECTOR: Status = [ST0_ABNORMAL, ST1_NO_DATA, 0];
const NO_CYLINDER: Status = [ST0_ABNORMAL, ST1_NO_DATA, ST2_WRONG_CYLINDER];
const BAD_DATA: Status = [ST0_ABNORMAL, ST1_DATA, ST2_DATA];
const PROTECTED: Status = [ST0_ABNORMAL, ST1_PROTECTED, 0];
const OVERRUN: Status = [ST0_ABNORMAL, ST1_OVERRUN, 0];
const END: Status = [ST0_ABNORMAL, ST1_END, 0];

/// The sector that a command is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    cylinder: u8,
    head: u8,
    sector: u8,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has ended.
    End(Status, Place),
    /// DMA is not set up yet.
    Later,
    /// The guest reads these bytes from the data port.
    Offer(Vec<u8>),
    /// The guest writes so many bytes to the data port.
    Want(usize),
}

/// A command with all that it works on.
pub(super) struct Job {
    bytes: Vec<u8>,
    disk: Arc<dyn Disk>,
    geometry: Geometry,
    /// Where the head is.
    cylinder: u8,
    by_dma: bool,
    /// What the guest has written to the data port.
    data: Vec<u8>,
}

impl Unit {
    /// Notes what the command works on, or what comes of it at once.
    pub(super) fn prepare(&self, state: &mut FloppyState) -> Result<Job, Outcome> {
        let drive = state.drive();
        let kind = state.kind();
        if state.seeks[drive].is_some() {
            // The drive is under way; what comes then is not late.
            return Err(Outcome::Later);
        }
        let byte = |at: usize| state.bytes.get(at).copied().unwrap_or(0);
        let head = byte(1) >> 2 & 1;
        let at = state.drives.get(drive).map_or(0, |drive| drive.cylinder);
        let start = match kind {
            command::READ_ID | command::FORMAT => Place { cylinder: at, head, sector: 1 },
            _ => Place { cylinder: byte(2), head: byte(3), sector: byte(4) },
        };
        let (disk, geometry) = self.readable(state, drive).ok_or(Outcome::End(NO_MARK, start))?;
        if kind == command::READ_ID {
            let place = Place { sector: state.next_id % geometry.sectors + 1, ..start };
            let there = geometry.offset(at, head, place.sector).is_some();
            state.next_id = place.sector;
            return Err(if there { Outcome::End([0; 3], place) } else { Outcome::End(NO_MARK, start) });
        }
        // CONFIGURE can have each transfer seek first.
        if state.configured[0] & CONFIGURE_SEEK != 0 && kind != command::FORMAT && start.cylinder < geometry.cylinders {
            state.drives[drive].cylinder = start.cylinder;
            self.step(state, drive);
        }
        let writes = matches!(kind, command::WRITE | command::WRITE_DELETED | command::FORMAT);
        if writes && disk.is_read_only() {
            return Err(Outcome::End(PROTECTED, start));
        }
        let by_dma = state.specified[1] & 1 == 0;
        let data = std::mem::take(&mut state.data);
        state.at = 0;
        let cylinder = state.drives[drive].cylinder;
        Ok(Job { bytes: state.bytes.clone(), disk, geometry, cylinder, by_dma, data })
    }

    /// The medium, if it can be read as the controller is set.
    fn readable(&self, state: &FloppyState, drive: usize) -> Option<(Arc<dyn Disk>, Geometry)> {
        let (disk, geometry) = self.medium(drive)?;
        let motor = state.output & MOTOR << drive != 0;
        let double = state.bytes.first().is_some_and(|first| first & MFM != 0);
        (motor && double && geometry.rates & 1 << (state.rate & 3) != 0).then_some((disk, geometry))
    }

    /// Puts what came of the command into the registers.
    pub(super) fn apply(&self, state: &mut FloppyState, outcome: Outcome) {
        match outcome {
            Outcome::End(status, place) => self.end(state, status, place),
            Outcome::Later => {
                if state.seeks[state.drive()].is_none() {
                    state.tries += 1;
                }
                if state.tries < PATIENCE {
                    return self.after(state, ACCESS);
                }
                let place = Place { cylinder: state.bytes[2], head: state.bytes[3], sector: 1 };
                self.end(state, OVERRUN, place);
            }
            Outcome::Offer(data) => {
                (state.data, state.at, state.phase) = (data, 0, Phase::Giving);
                self.interrupt(state, true);
            }
            Outcome::Want(count) => {
                (state.data, state.at, state.phase) = (vec![0; count], 0, Phase::Taking);
                self.interrupt(state, true);
            }
        }
    }

    /// Ends a command with its seven bytes of result.
    fn end(&self, state: &mut FloppyState, status: Status, place: Place) {
        let drive = state.drive() as u8;
        let [first, second, third] = status;
        let head = (place.head & 1) << 2;
        state.result(vec![first | drive | head, second, third, place.cylinder, place.head, place.sector, 2]);
        self.interrupt(state, true);
    }

    /// The guest has read all that was offered: without a terminal count the command ends at the last sector, or at one that
    /// is not found.
    pub(super) fn all_read(&self, state: &mut FloppyState) {
        let drive = state.drive();
        let count = state.data.len() / SECTOR;
        let last = self.medium(drive).and_then(|(disk, geometry)| {
            let cylinder = state.drives.get(drive)?.cylinder;
            Some(Job { bytes: state.bytes.clone(), disk, geometry, cylinder, by_dma: false, data: Vec::new() })
        });
        let Some(job) = last else {
            let place = Place { cylinder: state.bytes[2], head: state.bytes[3], sector: state.bytes[4] };
            return self.end(state, NO_MARK, place);
        };
        let mut place = job.start();
        let mut status = END;
        for _ in 0..count {
            match job.next(place) {
                Ok(after) => {
                    place = after;
                    // There would be one more: it was not found.
                    status = job.find(place).err().unwrap_or(END);
                }
                Err(after) => (place, status) = (after, END),
            }
        }
        if job.kind() == command::READ_DELETED {
            status = [0, 0, ST2_OTHER_MARK];
        }
        self.end(state, status, place);
    }
}

impl Job {
    fn kind(&self) -> u8 {
        self.bytes[0] & COMMAND
    }

    fn option(&self, bit: u8) -> bool {
        self.bytes[0] & bit != 0
    }

    fn start(&self) -> Place {
        let sector = if self.kind() == command::READ_TRACK { 1 } else { self.bytes[4] };
        Place { cylinder: self.bytes[2], head: self.bytes[3], sector }
    }

    /// Where the sector is, or why it is not found.
    fn find(&self, place: Place) -> Result<u64, Status> {
        if place.cylinder != self.cylinder {
            return Err(NO_CYLINDER);
        }
        let offset = self.geometry.offset(place.cylinder, place.head, place.sector);
        offset.filter(|_| self.bytes[5] == 2).ok_or(NO_SECTOR)
    }

    /// The sector behind `place`, or, where there is none in this command, what the result says of it (table 5-6).
    fn next(&self, place: Place) -> Result<Place, Place> {
        let by = if is_scan(self.kind()) && self.bytes[8] == 2 { 2 } else { 1 };
        let after = place.sector.wrapping_add(by);
        let last = self.bytes[6];
        // Steps of two may pass over the last one.
        if place.sector != last && !(by == 2 && after == last.wrapping_add(1)) {
            return Ok(Place { sector: after, ..place });
        }
        let multi = self.option(MULTI_TRACK) && self.kind() != command::READ_TRACK;
        if multi && place.head == 0 {
            return Ok(Place { head: 1, sector: 1, ..place });
        }
        let head = if multi { 0 } else { place.head };
        Err(Place { cylinder: place.cylinder.wrapping_add(1), head, sector: 1 })
    }

    /// Does the work, as long as it is `current`.
    pub(super) fn carry_out(&self, dma: &DmaChannel, current: &dyn Fn() -> bool) -> Outcome {
        let kind = self.kind();
        if kind == command::FORMAT {
            return self.format(dma);
        }
        let start = self.start();
        // The head that is selected reads what its tracks say of themselves.
        if self.bytes[1] >> 2 & 1 != self.bytes[3] {
            return Outcome::End(NO_SECTOR, start);
        }
        // All sectors have the common mark.
        if kind == command::READ_DELETED && self.option(SKIP) {
            return Outcome::End(self.find(start).err().unwrap_or(END), start);
        }
        if self.by_dma || kind == command::VERIFY { self.sectors(dma, current) } else { self.by_ports() }
    }

    fn read(&self, offset: u64) -> Option<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        self.disk.read_at(offset, &mut [IoSliceMut::new(&mut sector)]).ok()?;
        Some(sector)
    }

    fn write(&self, offset: u64, sector: &[u8]) -> bool {
        self.disk.write_at(offset, &[IoSlice::new(sector)]).is_ok()
    }

    /// Moves one sector by DMA, or compares it; `Err`: the command ends with it.
    fn sector(&self, dma: &DmaChannel, offset: u64) -> Result<Moved, Status> {
        let kind = self.kind();
        if matches!(kind, command::WRITE | command::WRITE_DELETED) {
            let mut sector = [0; SECTOR];
            let moved = dma.read(&mut sector);
            // What is missing at the end of the count is zero.
            return if moved.bytes == 0 || self.write(offset, &sector) { Ok(moved) } else { Err(BAD_DATA) };
        }
        let sector = self.read(offset).ok_or(BAD_DATA)?;
        match kind {
            command::VERIFY => Ok(VERIFIED),
            _ if is_scan(kind) => {
                let mut wanted = [0xff; SECTOR];
                let moved = dma.read(&mut wanted);
                match scan(kind, &sector, &wanted[..moved.bytes]) {
                    Some(hit) if moved.bytes > 0 => Err([0, 0, hit]),
                    _ => Ok(moved),
                }
            }
            _ => Ok(dma.write(&sector)),
        }
    }

    /// How a command ends that has done all it should.
    fn fulfilled(&self) -> Status {
        match self.kind() {
            kind if is_scan(kind) => [0, 0, ST2_SCAN_MISS],
            command::READ_DELETED => [0, 0, ST2_OTHER_MARK],
            command::READ_TRACK if self.bytes[4] != 1 => [0, ST1_NO_DATA, 0],
            _ => [0; 3],
        }
    }

    fn sectors(&self, dma: &DmaChannel, current: &dyn Fn() -> bool) -> Outcome {
        let kind = self.kind();
        let counted = kind == command::VERIFY && self.bytes[1] & VERIFY_COUNT != 0;
        let mut left = if counted { usize::from(self.bytes[8]) } else { usize::MAX };
        let mut place = self.start();
        let mut begun = false;
        loop {
            let offset = match self.find(place) {
                Ok(offset) => offset,
                Err(status) => return Outcome::End(status, place),
            };
            let moved = match self.sector(dma, offset) {
                Ok(moved) => moved,
                Err(status) => return Outcome::End(status, place),
            };
            if moved.bytes == 0 && !begun {
                return Outcome::Later;
            }
            begun = true;
            left = left.saturating_sub(1);
            let next = self.next(place);
            let (Ok(after) | Err(after)) = next;
            if moved.ended || left == 0 {
                return Outcome::End(self.fulfilled(), after);
            }
            if moved.bytes < SECTOR {
                return Outcome::End(OVERRUN, place);
            }
            match next {
                // A mark of the other kind ends the command behind its sector.
                _ if kind == command::READ_DELETED => return Outcome::End(self.fulfilled(), after),
                Ok(after) if current() => place = after,
                Err(_) if kind == command::VERIFY || is_scan(kind) => return Outcome::End(self.fulfilled(), after),
                _ => return Outcome::End(END, after),
            }
        }
    }

    /// The sectors of this command, up to one that is not there.
    fn places(&self) -> Vec<(Place, u64)> {
        let mut places = Vec::new();
        let mut place = self.start();
        while let Ok(offset) = self.find(place) {
            places.push((place, offset));
            match self.next(place) {
                Ok(after) if self.kind() != command::READ_DELETED => place = after,
                _ => break,
            }
        }
        places
    }

    fn by_ports(&self) -> Outcome {
        let kind = self.kind();
        let places = self.places();
        if places.is_empty() {
            let start = self.start();
            return Outcome::End(self.find(start).err().unwrap_or(NO_SECTOR), start);
        }
        let takes = matches!(kind, command::WRITE | command::WRITE_DELETED) || is_scan(kind);
        if takes {
            let wanted = places.len() * SECTOR;
            return if self.data.len() == wanted { self.take(&places) } else { Outcome::Want(wanted) };
        }
        let mut data = Vec::with_capacity(places.len() * SECTOR);
        for (place, offset) in places {
            let Some(sector) = self.read(offset) else { return Outcome::End(BAD_DATA, place) };
            data.extend(sector);
        }
        Outcome::Offer(data)
    }

    /// Writes what the guest has written to the data port, or looks for it.
    fn take(&self, places: &[(Place, u64)]) -> Outcome {
        let mut last = self.start();
        for ((place, offset), data) in places.iter().zip(self.data.chunks_exact(SECTOR)) {
            last = *place;
            if is_scan(self.kind()) {
                let Some(sector) = self.read(*offset) else { return Outcome::End(BAD_DATA, *place) };
                if let Some(hit) = scan(self.kind(), &sector, data) {
                    return Outcome::End([0, 0, hit], *place);
                }
            } else if !self.write(*offset, data) {
                return Outcome::End(BAD_DATA, *place);
            }
        }
        match self.next(last) {
            Err(after) if is_scan(self.kind()) => Outcome::End(self.fulfilled(), after),
            Err(after) => Outcome::End(END, after),
            Ok(after) => Outcome::End(self.find(after).err().unwrap_or(END), after),
        }
    }

    /// FORMAT TRACK: four bytes for each sector say what it is to be.
    fn format(&self, dma: &DmaChannel) -> Outcome {
        let mut headers = vec![0; 4 * usize::from(self.bytes[3])];
        let head = self.bytes[1] >> 2 & 1;
        let mut place = Place { cylinder: self.cylinder, head, sector: 1 };
        if headers.is_empty() {
            return Outcome::End(NO_SECTOR, place);
        }
        if !self.by_dma {
            if self.data.len() != headers.len() {
                return Outcome::Want(headers.len());
            }
            headers.clone_from(&self.data);
        } else {
            let moved = dma.read(&mut headers);
            if moved.bytes == 0 {
                return Outcome::Later;
            }
            headers.truncate(moved.bytes);
        }
        let (size, filler) = (self.bytes[2], self.bytes[5]);
        for header in headers.chunks_exact(4) {
            place.sector = header[2];
            // An image holds one format only: sectors that it has no room for cannot be made.
            let offset = self.geometry.offset(self.cylinder, head, header[2]).filter(|_| size == 2 && header[3] == 2);
            if !offset.is_some_and(|at| self.write(at, &[filler; SECTOR])) {
                return Outcome::End(NO_SECTOR, place);
            }
        }
        Outcome::End([0; 3], place)
    }
}

fn is_scan(kind: u8) -> bool {
    matches!(kind, command::SCAN_EQUAL | command::SCAN_LOW | command::SCAN_HIGH)
}

/// Whether a sector satisfies a scan: the byte of status, if it does. Bytes of ones match any.
fn scan(kind: u8, sector: &[u8], wanted: &[u8]) -> Option<u8> {
    let mut pairs = sector.iter().zip(wanted).filter(|(_, wanted)| **wanted != 0xff);
    let order = pairs.find_map(|(have, wanted)| Some(have.cmp(wanted)).filter(|order| order.is_ne()));
    match (kind, order) {
        (_, None) => Some(ST2_SCAN_HIT),
        (command::SCAN_LOW, Some(Ordering::Less)) | (command::SCAN_HIGH, Some(Ordering::Greater)) => Some(0),
        _ => None,
    }
}
