//! Commands of CD drives: those of ATA, and those in packets (ATA/ATAPI-7; MMC-3, INCITS 360; SPC-3, INCITS 408).

use std::sync::Arc;

use lodge_backend::{Disk, Tray};

use super::channel::{By, Drive, PIECE, Source, State as Channel, Unit, Work};
use super::registers::*;
use super::{disk, identify};

/// Bytes of a packet.
pub(super) const PACKET: usize = 12;
/// Bytes of a sector.
const SECTOR: u64 = 2048;
/// Frames that come before the first one, by minute, second and frame.
const LEAD_IN: u64 = 150;
const FRAMES: u64 = 75;

/// Why a packet command failed (SPC-3 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
}

const NOT_READY: u8 = 2;
const MEDIUM: u8 = 3;
/// Sense key: illegal request.
pub(super) const ILLEGAL: u8 = 5;
const ATTENTION: u8 = 6;

impl Sense {
    const NONE: Self = Self::new(0, 0, 0);
    const NO_MEDIUM: Self = Self::new(NOT_READY, 0x3a, 0);
    const TRAY_OPEN: Self = Self::new(NOT_READY, 0x3a, 2);
    pub(super) const UNREADABLE: Self = Self::new(MEDIUM, 0x11, 0);
    const UNKNOWN_COMMAND: Self = Self::new(ILLEGAL, 0x20, 0);
    const OUT_OF_RANGE: Self = Self::new(ILLEGAL, 0x21, 0);
    const BAD_FIELD: Self = Self::new(ILLEGAL, 0x24, 0);
    const PREVENTED: Self = Self::new(ILLEGAL, 0x53, 2);
    const CHANGED: Self = Self::new(ATTENTION, 0x28, 0);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }
}

/// What a CD drive remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub sense: Sense,
    /// Changes of the medium that the guest knows of.
    seen: u64,
    /// Changes that it has been told of as events.
    announced: u64,
    /// Most bytes that it takes at a time by ports.
    limit: usize,
    dma: bool,
}

impl State {
    pub fn reset(&mut self) {
        *self = Self { seen: self.seen, announced: self.announced, ..Self::default() };
    }
}

/// Operation codes.
mod code {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP: u8 = 0x1b;
    pub const PREVENT_REMOVAL: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK: u8 = 0x2b;
    pub const READ_SUBCHANNEL: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const SET_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Begins a command of ATA: what there is to do, nothing more, or the error register.
pub(super) fn command(channel: &mut Channel, command: u8) -> Result<Option<Work>, u8> {
    use super::registers::command as c;
    match command {
        c::PACKET => {
            let registers = &mut channel.registers;
            let (dma, limit) = (registers.features & 1 != 0, [registers.mid.now, registers.high.now]);
            registers.count.now = REASON_COMMAND;
            let limit = usize::from(u16::from_le_bytes(limit));
            let unit = channel.selected().ok_or(ABRT)?;
            unit.cd.dma = dma;
            // An even number, as all pieces but the last are.
            unit.cd.limit = if limit < 2 { 0xfffe } else { limit & !1 };
            Ok(Some(Work::Packet))
        }
        c::IDENTIFY_PACKET => {
            let unit = channel.selected().ok_or(ABRT)?;
            unit.cd.limit = PIECE;
            let bytes = identify::cd(&unit.serial, &unit.settings);
            Ok(Some(Work::Give(Source::Bytes(bytes), By::Ports(512))))
        }
        c::DEVICE_RESET => {
            if let Some(unit) = channel.selected() {
                unit.cd.reset();
            }
            channel.sign();
            channel.registers.error = 1;
            // No interrupt, and not ready either (ATA/ATAPI-7 9.11).
            channel.registers.status = 0;
            Ok(None)
        }
        c::DIAGNOSE => {
            channel.sign();
            channel.registers.error = 1;
            Ok(None)
        }
        c::IDENTIFY | c::READ_SECTORS | c::READ_SECTORS_ONCE => {
            // That is how hosts tell the two kinds of drives apart.
            channel.sign();
            Err(ABRT)
        }
        c::SET_FEATURES => disk::set_features(channel),
        c::CHECK_POWER => {
            channel.registers.count.now = 0xff;
            Ok(None)
        }
        c::STANDBY_IMMEDIATE | c::IDLE_IMMEDIATE | c::SLEEP => Ok(None),
        _ => Err(ABRT),
    }
}

/// Bytes of the next piece that is read by ports, of `left`; the registers say so.
pub(super) fn block(channel: &mut Channel, left: usize) -> usize {
    let limit = channel.selected().map_or(0, |unit| unit.cd.limit);
    let block = left.min(limit);
    let [mid, high] = (block as u16).to_le_bytes();
    let registers = &mut channel.registers;
    (registers.mid.now, registers.high.now) = (mid, high);
    registers.count.now = REASON_TO_HOST;
    block
}

fn word(packet: &[u8], at: usize) -> usize {
    usize::from(packet[at]) << 8 | usize::from(packet[at + 1])
}

fn long(packet: &[u8], at: usize) -> u64 {
    (word(packet, at) as u64) << 16 | word(packet, at + 2) as u64
}

/// Carries out a packet of [`PACKET`] bytes.
pub(super) fn packet(channel: &mut Channel, packet: &[u8]) -> Result<Option<Work>, Sense> {
    let Some(Unit { drive: Drive::Cd(tray), cd, .. }) = channel.selected() else { return Err(Sense::UNKNOWN_COMMAND) };
    let tray = tray.clone();
    let operation = packet[0];
    let quiet = matches!(operation, code::INQUIRY | code::REQUEST_SENSE | code::GET_EVENT | code::GET_CONFIGURATION);
    if !quiet && std::mem::replace(&mut cd.seen, tray.changes()) != tray.changes() {
        return Err(Sense::CHANGED);
    }
    let by = if cd.dma { By::Dma } else { By::Ports(cd.limit) };
    let sense = cd.sense;
    if operation != code::REQUEST_SENSE {
        cd.sense = Sense::NONE;
    }
    let give = |bytes: Vec<u8>, room: usize| {
        let mut bytes = bytes;
        bytes.truncate(room);
        Ok(if bytes.is_empty() { None } else { Some(Work::Give(Source::Bytes(bytes), by)) })
    };
    let read = |first: u64, count: u64| {
        let medium = medium(&tray)?;
        if first + count > medium.size() / SECTOR {
            return Err(Sense::OUT_OF_RANGE);
        }
        let source = Source::Medium(first * SECTOR, count * SECTOR);
        Ok(if count == 0 { None } else { Some(Work::Give(source, by)) })
    };
    match operation {
        code::TEST_UNIT_READY => medium(&tray).map(|_| None),
        code::REQUEST_SENSE => {
            cd.sense = Sense::NONE;
            let mut bytes = vec![0; 18];
            (bytes[0], bytes[2], bytes[7]) = (0x70, sense.key, 10);
            (bytes[12], bytes[13]) = (sense.code, sense.qualifier);
            give(bytes, packet[4].into())
        }
        code::INQUIRY => give(inquiry(), packet[4].into()),
        code::MODE_SENSE_6 => give(mode_sense(&tray, packet[2], false)?, packet[4].into()),
        code::MODE_SENSE_10 => give(mode_sense(&tray, packet[2], true)?, word(packet, 7)),
        code::START_STOP => start_stop(&tray, packet[4]).map(|()| None),
        code::PREVENT_REMOVAL => {
            tray.lock(packet[4] & 1 != 0);
            Ok(None)
        }
        code::READ_CAPACITY => {
            let last = (medium(&tray)?.size() / SECTOR).saturating_sub(1) as u32;
            give([last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat(), usize::MAX)
        }
        code::READ_10 => read(long(packet, 2), word(packet, 7) as u64),
        code::READ_12 => read(long(packet, 2), long(packet, 6)),
        code::READ_CD => match packet[9] & 0xf8 {
            // Of a sector, nothing or its data.
            0 => medium(&tray).map(|_| None),
            0x10 => read(long(packet, 2), long(packet, 5) & 0x00ff_ffff),
            _ => Err(Sense::BAD_FIELD),
        },
        code::SEEK | code::SET_SPEED => medium(&tray).map(|_| None),
        code::READ_TOC => give(toc(&*medium(&tray)?, packet)?, word(packet, 7)),
        code::READ_SUBCHANNEL => {
            medium(&tray)?;
            // No audio is being played.
            give(vec![0, 0x15, 0, 0], word(packet, 7))
        }
        code::GET_CONFIGURATION => give(configuration(&tray), word(packet, 7)),
        code::GET_EVENT => {
            if packet[1] & 1 == 0 {
                return Err(Sense::BAD_FIELD);
            }
            let changed = std::mem::replace(&mut cd.announced, tray.changes()) != tray.changes();
            give(event(&tray, packet[4], changed), word(packet, 7))
        }
        code::READ_DISC_INFORMATION => {
            medium(&tray)?;
            let mut bytes = vec![0; 34];
            // Finished, one session, one track.
            (bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6]) = (32, 0x0e, 1, 1, 1, 1);
            give(bytes, word(packet, 7))
        }
        code::MECHANISM_STATUS => {
            let open = if tray.is_open() { 0x10 } else { 0 };
            give(vec![0, open, 0, 0, 0, 0, 0, 0], word(packet, 8))
        }
        _ => Err(Sense::UNKNOWN_COMMAND),
    }
}

fn medium(tray: &Tray) -> Result<Arc<dyn Disk>, Sense> {
    tray.medium().ok_or(if tray.is_open() { Sense::TRAY_OPEN } else { Sense::NO_MEDIUM })
}

fn start_stop(tray: &Tray, what: u8) -> Result<(), Sense> {
    const START: u8 = 1;
    const TRAY: u8 = 2;
    match what & (START | TRAY) {
        TRAY if !tray.open() => Err(Sense::PREVENTED),
        bits if bits == START | TRAY => {
            tray.close();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// SPC-3 6.4.
fn inquiry() -> Vec<u8> {
    let mut bytes = vec![0x05, 0x80, 0x05, 0x32, 31, 0, 0, 0];
    bytes.extend(format!("{:<8}{:<16}{:<4}", "lodge", "DVD-ROM", env!("CARGO_PKG_VERSION")).bytes().take(28));
    bytes
}

/// MMC-3 5.2, and annex for the capabilities page.
fn mode_sense(tray: &Tray, page: u8, long: bool) -> Result<Vec<u8>, Sense> {
    const RECOVERY: u8 = 0x01;
    const CAPABILITIES: u8 = 0x2a;
    const ALL: u8 = 0x3f;
    let saved = page >> 6 == 3;
    if saved {
        return Err(Sense::new(ILLEGAL, 0x39, 0));
    }
    let changeable = page >> 6 == 1;
    let page = page & 0x3f;
    let mut pages = Vec::new();
    if matches!(page, RECOVERY | ALL) {
        pages.extend([RECOVERY, 6, 0, 5, 0, 0, 0, 0]);
    }
    if matches!(page, CAPABILITIES | ALL) {
        let locked = if tray.is_locked() { 0x02 } else { 0 };
        // Reads CD-R, CD-RW and DVD; can lock, eject, has a tray; 50 times a CD's speed, as is set.
        pages.extend([CAPABILITIES, 18, 0x3f, 0, 0x70, 0x60, 0x29 | locked, 0, 0x22, 0x71, 0, 2, 2, 0, 0x22, 0x71, 0, 0, 0, 0]);
    }
    if pages.is_empty() {
        return Err(Sense::BAD_FIELD);
    }
    if changeable {
        // Nothing can be changed.
        let mut at = 0;
        while let Some(&length) = pages.get(at + 1) {
            let end = at + 2 + usize::from(length);
            pages[at + 2..end].fill(0);
            at = end;
        }
    }
    let kind = match (tray.is_open(), tray.medium().is_some()) {
        (true, _) => 0x71,
        (false, true) => 0x01,
        (false, false) => 0x70,
    };
    let mut bytes = if long {
        let length = (6 + pages.len() as u16).to_be_bytes();
        vec![length[0], length[1], kind, 0, 0, 0, 0, 0]
    } else {
        vec![3 + pages.len() as u8, kind, 0, 0]
    };
    bytes.extend(pages);
    Ok(bytes)
}

/// A sector's number as disc tables have it.
fn address(sector: u64, by_time: bool) -> [u8; 4] {
    if by_time {
        let frame = sector + LEAD_IN;
        [0, (frame / (60 * FRAMES)) as u8, (frame / FRAMES % 60) as u8, (frame % FRAMES) as u8]
    } else {
        (sector as u32).to_be_bytes()
    }
}

/// READ TOC (MMC-3 6.26): a session with one track of data.
fn toc(medium: &dyn Disk, packet: &[u8]) -> Result<Vec<u8>, Sense> {
    const LEAD_OUT: u8 = 0xaa;
    const DATA: u8 = 0x14;
    let by_time = packet[1] & 2 != 0;
    // Older hosts have the format in the last byte.
    let format = if packet[2] & 0x0f != 0 { packet[2] & 0x0f } else { packet[9] >> 6 };
    let from = packet[6];
    let end = medium.size() / SECTOR;
    let mut bytes = vec![0, 0, 1, 1];
    let mut entry = |track: u8, sector: u64| {
        bytes.extend([0, DATA, track, 0]);
        bytes.extend(address(sector, by_time));
    };
    match format {
        0 if from > 1 && from != LEAD_OUT => return Err(Sense::BAD_FIELD),
        0 => {
            if from <= 1 {
                entry(1, 0);
            }
            entry(LEAD_OUT, end);
        }
        1 => entry(1, 0),
        2 => {
            // First and last track, lead-out, the track itself, each with its point.
            for (point, place) in [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, address(end, true)), (1, address(0, true))] {
                bytes.extend([1, DATA, 0, point, 0, 0, 0]);
                bytes.extend(place);
            }
        }
        _ => return Err(Sense::BAD_FIELD),
    }
    let length = (bytes.len() as u16 - 2).to_be_bytes();
    bytes[..2].copy_from_slice(&length);
    Ok(bytes)
}

/// GET CONFIGURATION (MMC-3 6.5): what the drive can do, and with the medium that is in it.
fn configuration(tray: &Tray) -> Vec<u8> {
    const CD: u16 = 0x08;
    const DVD: u16 = 0x10;
    /// More than any CD holds.
    const LARGE: u64 = 900 << 20;
    let current = tray.medium().map_or(0, |medium| if medium.size() > LARGE { DVD } else { CD });
    let is = |profile| u8::from(current == profile);
    let [high, low] = current.to_be_bytes();
    let mut bytes = vec![0, 0, 0, 0, 0, 0, high, low];
    // Profiles, core, removable medium.
    bytes.extend([0, 0, 0x03, 8, 0, DVD as u8, is(DVD), 0, 0, CD as u8, is(CD), 0]);
    bytes.extend([0, 1, 0x0b, 8, 0, 0, 0, 2, 1, 0, 0, 0]);
    bytes.extend([0, 3, 0x03, 4, 0x29, 0, 0, 0]);
    let length = (bytes.len() as u32 - 4).to_be_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

/// GET EVENT STATUS NOTIFICATION (MMC-3 6.6), of which there are those of the medium.
fn event(tray: &Tray, classes: u8, changed: bool) -> Vec<u8> {
    const MEDIA: u8 = 4;
    const EJECT_REQUEST: u8 = 1;
    const NEW_MEDIUM: u8 = 2;
    const REMOVED: u8 = 3;
    let supported = 1 << MEDIA;
    if classes & supported == 0 {
        return vec![0, 2, 0x80, supported];
    }
    let present = tray.medium().is_some();
    let what = match (tray.take_request(), changed, present) {
        (true, ..) => EJECT_REQUEST,
        (_, true, true) => NEW_MEDIUM,
        (_, true, false) => REMOVED,
        _ => 0,
    };
    vec![0, 6, MEDIA, supported, what, u8::from(tray.is_open()) | u8::from(present) << 1, 0, 0]
}
