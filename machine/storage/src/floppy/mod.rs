//! The floppy controller, an Intel 82077AA (290166), with two drives.
//!
//! [`Floppy`] takes commands byte by byte, carries them out after about the time that drives take for it, and gives results
//! byte by byte. Data go by DMA channel 2, or by the data port where the guest wants that. Formats are told by the image's size
//! ([`Geometry`]).
//!
//! ```text
//!            last byte                  time is up                    all moved
//!   command -----------> waiting -------------------> moving data ---------------> result --last byte--> command
//!      ^                    | seek: interrupt              (DMA: at once)             |
//!      +--------------------+                             none to give ---------------+
//! ```

mod geometry;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, Weak};

pub use geometry::Geometry;
use lodge_backend::{Disk, Tray};
use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Timer, Timers,
    Width,
};
use lodge_chipset::DmaChannel;
use parking_lot::Mutex;
use registers::*;
pub use state::FloppyState;
use state::{DriveState, Phase};

const REGION_MAIN: u8 = 0;
const REGION_LAST: u8 = 1;
const SECTOR: usize = 512;
/// A step from one cylinder to the next, and what comes before data, in nanoseconds of guest time.
const STEP: u64 = 100_000;
const ACCESS: u64 = 500_000;
/// How often DMA that is not set up is tried again, at intervals of [`ACCESS`].
const PATIENCE: u16 = 4000;

/// The controller.
pub struct Floppy {
    // wiring
    trays: [Option<Arc<Tray>>; 2],
    dma: DmaChannel,
    irq: IrqLine,
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    state: Mutex<FloppyState>,
}

/// The sector that a command is at.
#[derive(Clone, Copy)]
struct Place {
    cylinder: u8,
    head: u8,
    sector: u8,
}

/// Status bytes 0 to 2 of a command.
type Status = [u8; 3];

impl Floppy {
    /// A controller with the drives that have a tray.
    pub fn new(trays: [Option<Arc<Tray>>; 2], dma: DmaChannel, irq: IrqLine, timers: &Timers) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.time_is_up();
                }
            });
            Self { trays, dma, irq, clock: timers.clock().clone(), timer, state: Mutex::default() }
        })
    }

    fn medium(&self, drive: usize) -> Option<(Arc<dyn Disk>, Geometry)> {
        let disk = self.trays.get(drive)?.as_ref()?.medium()?;
        let geometry = Geometry::of(disk.size())?;
        Some((disk, geometry))
    }

    fn time_is_up(&self) {
        let mut state = self.state.lock();
        if state.due.is_some_and(|due| due <= self.clock.now_ns()) {
            state.due = None;
            self.execute(&mut state);
        }
    }

    fn after(&self, state: &mut FloppyState, ns: u64) {
        let due = self.clock.now_ns().saturating_add(ns);
        state.due = Some(due);
        self.timer.set(Some(due));
    }

    fn interrupt(&self, state: &FloppyState) {
        self.irq.set(state.output & DMA_GATE != 0);
    }

    /// What a reset leaves: each drive asks to be looked at.
    fn reset_controller(&self, state: &mut FloppyState) {
        state.reset();
        state.due = None;
        self.timer.set(None);
        self.irq.set(false);
    }

    fn write_output(&self, state: &mut FloppyState, value: u8) {
        let before = std::mem::replace(&mut state.output, value);
        if value & NOT_RESET == 0 {
            self.reset_controller(state);
        } else if before & NOT_RESET == 0 {
            state.polled = 4;
            self.interrupt(state);
        }
    }

    fn main_status(&self, state: &FloppyState) -> u8 {
        if state.output & NOT_RESET == 0 {
            return 0;
        }
        let seeking = state.seeking;
        seeking
            | match state.phase {
                Phase::Command if state.bytes.is_empty() => RQM,
                Phase::Command => RQM | BUSY,
                Phase::Waiting if seeking != 0 => RQM,
                Phase::Waiting => BUSY,
                Phase::Giving => RQM | DIO | NON_DMA | BUSY,
                Phase::Taking => RQM | NON_DMA | BUSY,
                Phase::Result => RQM | DIO | BUSY,
            }
    }

    fn read_data(&self, state: &mut FloppyState) -> u8 {
        match state.phase {
            Phase::Result => {
                self.irq.set(false);
                let byte = if state.bytes.is_empty() { 0 } else { state.bytes.remove(0) };
                if state.bytes.is_empty() {
                    state.phase = Phase::Command;
                }
                byte
            }
            Phase::Giving => {
                let byte = state.data.get(state.at).copied().unwrap_or(0);
                state.at += 1;
                if state.at >= state.data.len() {
                    self.ports_done(state);
                }
                byte
            }
            _ => 0,
        }
    }

    fn write_data(&self, state: &mut FloppyState, value: u8) {
        if state.output & NOT_RESET == 0 {
            return;
        }
        match state.phase {
            Phase::Command => {
                state.bytes.push(value);
                if state.bytes.len() >= command::length(state.bytes[0]) {
                    self.begin(state);
                }
            }
            Phase::Waiting if state.seeking != 0 => {
                // While drives seek, others can be commanded; most hosts ask for the interrupt's cause only.
                state.phase = Phase::Command;
                state.bytes = vec![value];
                if command::length(value) == 1 {
                    self.begin(state);
                }
            }
            Phase::Taking => {
                state.data[state.at] = value;
                state.at += 1;
                if state.at == state.data.len() {
                    self.ports_done(state);
                }
            }
            _ => {}
        }
    }

    /// All bytes of a command are there.
    fn begin(&self, state: &mut FloppyState) {
        self.irq.set(false);
        let drive = usize::from(state.bytes.get(1).copied().unwrap_or(0) & 3);
        match state.bytes[0] & COMMAND {
            command::SPECIFY => {
                state.specified = [state.bytes[1], state.bytes[2]];
                state.idle();
            }
            command::SENSE_DRIVE => {
                let head = state.bytes[1] & 4;
                let protected = self.medium(drive).is_some_and(|(disk, _)| disk.is_read_only());
                let there = self.trays.get(drive).is_some_and(Option::is_some);
                let track_0 = there && state.drives.get(drive).is_some_and(|drive| drive.cylinder == 0);
                let bit = |set: bool, bit: u8| if set { bit } else { 0 };
                let status = ST3_ONES | head | drive as u8 | bit(protected, ST3_PROTECTED) | bit(track_0, ST3_TRACK_0);
                state.result(vec![status]);
            }
            command::RECALIBRATE | command::SEEK => {
                let seeks = state.bytes[0] & COMMAND == command::SEEK;
                let target = if seeks { state.bytes[2] } else { 0 };
                let from = state.drives.get(drive).map_or(0, |drive| drive.cylinder);
                state.seeking |= 1 << drive;
                state.phase = Phase::Waiting;
                self.after(state, STEP * u64::from(from.abs_diff(target).max(1)));
            }
            command::SENSE_INTERRUPT => self.sense_interrupt(state),
            command::VERSION => state.result(vec![0x90]),
            command::PART_ID => state.result(vec![0x41]),
            command::PERPENDICULAR => {
                state.perpendicular = state.bytes[1];
                state.idle();
            }
            command::CONFIGURE => {
                state.configured = [state.bytes[2], state.bytes[3]];
                state.idle();
            }
            command::LOCK => {
                state.locked = state.bytes[0] & MULTI_TRACK != 0;
                let answer = if state.locked { 0x10 } else { 0 };
                state.result(vec![answer]);
            }
            command::DUMP => {
                let [first, second] = state.drives.map(|drive| drive.cylinder);
                let lock = if state.locked { 0x80 } else { 0 };
                let [s0, s1] = state.specified;
                let [c0, c1] = state.configured;
                let bytes = vec![first, second, 0, 0, s0, s1, state.last_sector, lock | state.perpendicular & 0x7f, c0, c1];
                state.result(bytes);
            }
            command::READ
            | command::WRITE
            | command::READ_DELETED
            | command::WRITE_DELETED
            | command::READ_TRACK
            | command::READ_ID
            | command::FORMAT
            | command::VERIFY
            | command::SCAN_EQUAL
            | command::SCAN_LOW
            | command::SCAN_HIGH => {
                state.phase = Phase::Waiting;
                state.tries = 0;
                self.after(state, ACCESS);
            }
            _ => state.result(vec![ST0_INVALID]),
        }
    }

    fn sense_interrupt(&self, state: &mut FloppyState) {
        if let Some(number) = state.sought.iter().position(Option::is_some)
            && let Some(status) = state.sought[number].take()
        {
            let cylinder = state.drives.get(number).map_or(0, |drive| drive.cylinder);
            return state.result(vec![status, cylinder]);
        }
        if state.polled > 0 {
            let number = 4 - state.polled;
            state.polled -= 1;
            let cylinder = state.drives.get(usize::from(number)).map_or(0, |drive| drive.cylinder);
            return state.result(vec![ST0_POLLED | number, cylinder]);
        }
        state.result(vec![ST0_INVALID]);
    }

    /// The drive has had its time.
    fn execute(&self, state: &mut FloppyState) {
        let Some(&first) = state.bytes.first() else { return };
        let drive = usize::from(state.bytes.get(1).copied().unwrap_or(0) & 3);
        match first & COMMAND {
            command::RECALIBRATE | command::SEEK => self.sought(state, drive, first & COMMAND == command::SEEK),
            command::READ_ID => self.read_id(state, drive),
            command::FORMAT => self.format(state, drive),
            _ => self.transfer(state, drive),
        }
    }

    fn sought(&self, state: &mut FloppyState, drive: usize, seeks: bool) {
        let target = if seeks { state.bytes[2] } else { 0 };
        let head = state.bytes[1] & 4;
        let there = self.trays.get(drive).is_some_and(Option::is_some);
        let mut status = ST0_SEEK | drive as u8 | head;
        if there {
            state.drives[drive].cylinder = target;
            self.step(state, drive);
        } else if !seeks {
            status |= ST0_EQUIPMENT | ST0_ABNORMAL;
        }
        state.seeking &= !(1 << drive);
        state.sought[drive] = Some(status);
        state.idle();
        self.interrupt(state);
    }

    /// A step tells that there is a medium.
    fn step(&self, state: &mut FloppyState, drive: usize) {
        if let Some(Some(tray)) = self.trays.get(drive)
            && tray.medium().is_some()
        {
            state.drives[drive].seen = tray.changes().saturating_add(1);
        }
    }

    /// The medium, if it can be read at the rate that is set.
    fn readable(&self, state: &FloppyState, drive: usize) -> Result<(Arc<dyn Disk>, Geometry), Status> {
        let missing = [ST0_ABNORMAL, ST1_NO_MARK, 0];
        let (disk, geometry) = self.medium(drive).ok_or(missing)?;
        let motor = state.output & MOTOR << drive != 0;
        if motor && geometry.rates & 1 << (state.rate & 3) != 0 { Ok((disk, geometry)) } else { Err(missing) }
    }

    fn read_id(&self, state: &mut FloppyState, drive: usize) {
        let head = state.bytes[1] >> 2 & 1;
        let found = self.readable(state, drive).and_then(|(_, geometry)| {
            let cylinder = state.drives[drive].cylinder;
            let place = Place { cylinder, head, sector: state.next_id % geometry.sectors + 1 };
            let there = geometry.offset(cylinder, head, place.sector).is_some();
            if there { Ok((place, place.sector)) } else { Err([ST0_ABNORMAL, ST1_NO_MARK, 0]) }
        });
        match found {
            Ok((place, next)) => {
                state.next_id = next;
                self.end(state, drive, [0; 3], place);
            }
            Err(status) => self.end(state, drive, status, Place { cylinder: 0, head, sector: 1 }),
        }
    }

    /// Ends a command with its seven bytes of result.
    fn end(&self, state: &mut FloppyState, drive: usize, status: Status, place: Place) {
        let [first, second, third] = status;
        let head = place.head << 2;
        state.result(vec![first | drive as u8 | head, second, third, place.cylinder, place.head, place.sector, 2]);
        self.interrupt(state);
    }

    /// Whether data go by DMA.
    fn by_dma(state: &FloppyState) -> bool {
        state.specified[1] & 1 == 0
    }

    fn transfer(&self, state: &mut FloppyState, drive: usize) {
        let kind = state.bytes[0] & COMMAND;
        let place = Place { cylinder: state.bytes[2], head: state.bytes[3], sector: state.bytes[4] };
        let writes = matches!(kind, command::WRITE | command::WRITE_DELETED);
        let (disk, geometry) = match self.readable(state, drive) {
            Ok(found) => found,
            Err(status) => return self.end(state, drive, status, place),
        };
        // CONFIGURE can have each transfer seek first.
        if state.configured[0] & 0x40 != 0 && place.cylinder < geometry.cylinders {
            state.drives[drive].cylinder = place.cylinder;
            self.step(state, drive);
        }
        if writes && disk.is_read_only() {
            return self.end(state, drive, [ST0_ABNORMAL, ST1_PROTECTED, 0], place);
        }
        if Self::by_dma(state) {
            self.transfer_by_dma(state, drive, &*disk, geometry, place);
        } else {
            self.transfer_by_ports(state, drive, &*disk, geometry, place);
        }
    }

    /// Where the sector is, or why it is not found.
    fn find(state: &FloppyState, drive: usize, geometry: Geometry, place: Place) -> Result<u64, Status> {
        if place.cylinder != state.drives[drive].cylinder {
            return Err([ST0_ABNORMAL, ST1_NO_DATA, ST2_WRONG_CYLINDER]);
        }
        let wanted = state.bytes[5];
        let offset = geometry.offset(place.cylinder, place.head, place.sector).filter(|_| wanted == 2);
        offset.ok_or([ST0_ABNORMAL, ST1_NO_DATA, 0])
    }

    /// The sector behind `place`; `None`: there is none in this command.
    fn next(state: &FloppyState, place: Place) -> Result<Place, Place> {
        let last = state.bytes[6];
        if place.sector != last {
            return Ok(Place { sector: place.sector.wrapping_add(1), ..place });
        }
        let multi = state.bytes[0] & MULTI_TRACK != 0;
        if multi && place.head == 0 {
            return Ok(Place { head: 1, sector: 1, ..place });
        }
        Err(Place { cylinder: place.cylinder.wrapping_add(1), head: if multi { 0 } else { place.head }, sector: 1 })
    }

    fn transfer_by_dma(&self, state: &mut FloppyState, drive: usize, disk: &dyn Disk, geometry: Geometry, start: Place) {
        let kind = state.bytes[0] & COMMAND;
        let mut place = start;
        let mut begun = false;
        loop {
            let offset = match Self::find(state, drive, geometry, place) {
                Ok(offset) => offset,
                Err(status) => return self.end(state, drive, status, place),
            };
            let mut sector = [0; SECTOR];
            let moved = match kind {
                command::WRITE | command::WRITE_DELETED => {
                    let moved = self.dma.read(&mut sector);
                    // What is missing at the end of the count is zero.
                    if moved.bytes > 0 && disk.write_at(offset, &[IoSlice::new(&sector)]).is_err() {
                        return self.end(state, drive, [ST0_ABNORMAL, ST1_DATA, ST2_DATA], place);
                    }
                    moved
                }
                _ => {
                    if disk.read_at(offset, &mut [IoSliceMut::new(&mut sector)]).is_err() {
                        return self.end(state, drive, [ST0_ABNORMAL, ST1_DATA, ST2_DATA], place);
                    }
                    match kind {
                        command::VERIFY => lodge_chipset::dma::Moved { bytes: SECTOR, ended: false },
                        command::SCAN_EQUAL | command::SCAN_LOW | command::SCAN_HIGH => {
                            let mut wanted = [0xff; SECTOR];
                            let moved = self.dma.read(&mut wanted);
                            if let Some(status) = scan(kind, &sector, &wanted[..moved.bytes]) {
                                return self.end(state, drive, [0, 0, status], place);
                            }
                            moved
                        }
                        _ => self.dma.write(&sector),
                    }
                }
            };
            if moved.bytes == 0 && !begun {
                // The channel is not set up yet.
                state.tries += 1;
                if state.tries < PATIENCE {
                    return self.after(state, ACCESS);
                }
                return self.end(state, drive, [ST0_ABNORMAL, 0x10, 0], place);
            }
            begun = true;
            let next = Self::next(state, place);
            let whole = moved.bytes == SECTOR;
            match next {
                _ if moved.ended || !whole => {
                    let (Ok(after) | Err(after)) = next;
                    return self.end(state, drive, [0; 3], after);
                }
                Ok(after) => place = after,
                Err(after) if kind == command::VERIFY => return self.end(state, drive, [0; 3], after),
                Err(after) => return self.end(state, drive, [ST0_ABNORMAL, ST1_END, 0], after),
            }
        }
    }

    fn transfer_by_ports(&self, state: &mut FloppyState, drive: usize, disk: &dyn Disk, geometry: Geometry, start: Place) {
        let kind = state.bytes[0] & COMMAND;
        let mut data = Vec::new();
        let mut place = start;
        loop {
            let offset = match Self::find(state, drive, geometry, place) {
                Ok(offset) => offset,
                Err(status) if data.is_empty() => return self.end(state, drive, status, place),
                Err(_) => break,
            };
            let mut sector = [0; SECTOR];
            let writes = matches!(kind, command::WRITE | command::WRITE_DELETED);
            if !writes && disk.read_at(offset, &mut [IoSliceMut::new(&mut sector)]).is_err() {
                return self.end(state, drive, [ST0_ABNORMAL, ST1_DATA, ST2_DATA], place);
            }
            data.extend(sector);
            match Self::next(state, place) {
                Ok(after) => place = after,
                Err(_) => break,
            }
        }
        (state.data, state.at) = (data, 0);
        let writes = matches!(kind, command::WRITE | command::WRITE_DELETED | command::FORMAT);
        state.phase = if writes { Phase::Taking } else { Phase::Giving };
        self.interrupt(state);
    }

    /// All bytes have gone through the data port: without a terminal count the command ends at the last sector.
    fn ports_done(&self, state: &mut FloppyState) {
        let drive = usize::from(state.bytes[1] & 3);
        let data = std::mem::take(&mut state.data);
        if state.bytes[0] & COMMAND == command::FORMAT {
            return self.format_with(state, drive, &data);
        }
        let mut place = Place { cylinder: state.bytes[2], head: state.bytes[3], sector: state.bytes[4] };
        let taking = state.phase == Phase::Taking;
        for sector in data.chunks_exact(SECTOR) {
            if taking {
                let written = self.readable(state, drive).and_then(|(disk, geometry)| {
                    let offset = Self::find(state, drive, geometry, place)?;
                    disk.write_at(offset, &[IoSlice::new(sector)]).map_err(|_| [ST0_ABNORMAL, ST1_DATA, ST2_DATA])
                });
                if let Err(status) = written {
                    return self.end(state, drive, status, place);
                }
            }
            let (Ok(after) | Err(after)) = Self::next(state, place);
            place = after;
        }
        self.end(state, drive, [ST0_ABNORMAL, ST1_END, 0], place);
    }

    /// FORMAT TRACK: four bytes for each sector say what it is to be.
    fn format(&self, state: &mut FloppyState, drive: usize) {
        let place = Place { cylinder: state.drives.get(drive).map_or(0, |drive| drive.cylinder), head: 0, sector: 1 };
        let mut headers = vec![0; 4 * usize::from(state.bytes[3])];
        if !Self::by_dma(state) {
            (state.data, state.at, state.phase) = (headers, 0, Phase::Taking);
            if state.data.is_empty() {
                return self.end(state, drive, [ST0_ABNORMAL, ST1_NO_DATA, 0], place);
            }
            return self.interrupt(state);
        }
        let moved = self.dma.read(&mut headers);
        if moved.bytes == 0 && state.tries < PATIENCE {
            state.tries += 1;
            return self.after(state, ACCESS);
        }
        headers.truncate(moved.bytes);
        self.format_with(state, drive, &headers);
    }

    fn format_with(&self, state: &mut FloppyState, drive: usize, headers: &[u8]) {
        let head = state.bytes[1] >> 2 & 1;
        let (size, filler) = (state.bytes[2], state.bytes[5]);
        let cylinder = state.drives.get(drive).map_or(0, |drive| drive.cylinder);
        let mut place = Place { cylinder, head, sector: 1 };
        let (disk, geometry) = match self.readable(state, drive) {
            Ok(found) => found,
            Err(status) => return self.end(state, drive, status, place),
        };
        if disk.is_read_only() {
            return self.end(state, drive, [ST0_ABNORMAL, ST1_PROTECTED, 0], place);
        }
        for header in headers.chunks_exact(4) {
            place.sector = header[2];
            // An image holds one format only: sectors that it has no room for cannot be made.
            let offset = geometry.offset(cylinder, head, header[2]).filter(|_| size == 2 && header[3] == 2);
            let written = offset.is_some_and(|at| disk.write_at(at, &[IoSlice::new(&[filler; SECTOR])]).is_ok());
            if !written {
                return self.end(state, drive, [ST0_ABNORMAL, ST1_NO_DATA, 0], place);
            }
        }
        self.end(state, drive, [0; 3], place);
    }

    fn digital_input(&self, state: &FloppyState) -> u8 {
        let drive = usize::from(state.output & 3);
        let motor = state.output & MOTOR << drive != 0;
        let changed = match self.trays.get(drive) {
            Some(Some(tray)) => {
                tray.medium().is_none() || state.drives[drive].seen != tray.changes().saturating_add(1)
            }
            _ => true,
        };
        if motor && changed { CHANGED } else { 0 }
    }
}

/// Whether a sector satisfies a scan: the byte of status, if it does. Bytes of ones match any.
fn scan(kind: u8, sector: &[u8], wanted: &[u8]) -> Option<u8> {
    let mut pairs = sector.iter().zip(wanted).filter(|(_, wanted)| **wanted != 0xff);
    let order = pairs.find_map(|(have, wanted)| Some(have.cmp(wanted)).filter(|order| order.is_ne()));
    match (kind, order) {
        (_, None) => Some(ST2_SCAN_HIT),
        (command::SCAN_LOW, Some(std::cmp::Ordering::Less))
        | (command::SCAN_HIGH, Some(std::cmp::Ordering::Greater)) => Some(0),
        _ => None,
    }
}

impl Device for Floppy {
    fn name(&self) -> &str {
        "floppy"
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

impl PortDevice for Floppy {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![
            PortRange { base: BASE, length: LENGTH, region: REGION_MAIN, widths: Width::Byte },
            PortRange { base: LAST, length: 1, region: REGION_LAST, widths: Width::Byte },
        ]
    }

    fn port_read(&self, region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut state = self.state.lock();
        let value = match (region, offset) {
            (REGION_LAST, _) => self.digital_input(&state),
            (_, DIGITAL_OUTPUT) => state.output,
            (_, TAPE_DRIVE) => state.tape,
            (_, MAIN_STATUS) => self.main_status(&state),
            (_, DATA) => self.read_data(&mut state),
            _ => return Err(AccessError::Nobody),
        };
        Ok(value.into())
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        let value = value as u8;
        match (region, offset) {
            (REGION_LAST, _) => state.rate = value & 3,
            (_, DIGITAL_OUTPUT) => self.write_output(&mut state, value),
            (_, TAPE_DRIVE) => state.tape = value & 3,
            (_, MAIN_STATUS) => {
                state.rate = value & 3;
                if value & RATE_RESET != 0 && state.output & NOT_RESET != 0 {
                    self.reset_controller(&mut state);
                    state.polled = 4;
                    self.interrupt(&state);
                }
            }
            (_, DATA) => self.write_data(&mut state, value),
            _ => return Err(AccessError::Nobody),
        }
        Ok(())
    }
}

impl ResetDevice for Floppy {
    fn reset(&self) {
        let mut state = self.state.lock();
        *state = FloppyState::default();
        self.timer.set(None);
        self.irq.set(false);
    }
}

impl SaveDevice for Floppy {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let restored: FloppyState = StateError::read("floppy", record)?;
        if !restored.is_sound() {
            return Err(StateError { device: "floppy".into(), cause: "a command without its bytes".into() });
        }
        let mut state = self.state.lock();
        *state = restored;
        self.timer.set(state.due);
        Ok(())
    }
}

impl DriveState {
    const fn new() -> Self {
        Self { cylinder: 0, seen: 0 }
    }
}
