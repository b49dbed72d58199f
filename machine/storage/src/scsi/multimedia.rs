//! Commands of CD drives (MMC-6 chapter 6). A medium is a CD or DVD with one session and one track of data.

use std::sync::Arc;

use lodge_backend::{Disk, Tray};

use super::primary::medium_in;
use super::registers::code;
use super::{Action, LONGEST, Sense, Unit, give, long, word};

/// Bytes of a sector.
const SECTOR: u64 = 2048;
/// Frames that come before the first one, by minute, second and frame.
const LEAD_IN: u64 = 150;
/// Frames of a second.
const FRAMES: u64 = 75;
/// More bytes than any CD holds.
const LARGE: u64 = 900 << 20;
/// Control and address of a track of data.
const DATA_TRACK: u8 = 0x14;

impl Unit {
    /// A command of a CD drive.
    pub(super) fn multimedia(&mut self, tray: &Arc<Tray>, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        match command[0] {
            code::GET_CONFIGURATION => return Ok(give(configuration(tray, command), word(command, 7))),
            code::GET_EVENT => return self.event(tray, command),
            code::MECHANISM_STATUS => {
                let open = if tray.is_open() { 0x10 } else { 0 };
                return Ok(give(vec![0, open, 0, 0, 0, 0, 0, 0], word(command, 8)));
            }
            _ => {}
        }
        if !is_known(command[0]) {
            return Err(Sense::UNKNOWN_COMMAND);
        }
        let medium = medium_in(tray)?;
        let read = |first: u64, count: u64| {
            if first + count > medium.size() / SECTOR {
                return Err(Sense::OUT_OF_RANGE);
            }
            let (offset, length) = (first * SECTOR, count * SECTOR);
            Ok(if count == 0 { Action::Done } else { Action::Read { offset, length } })
        };
        match command[0] {
            code::READ_CAPACITY => {
                let last = (medium.size() / SECTOR).saturating_sub(1) as u32;
                Ok(Action::Give([last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat()))
            }
            code::READ_10 => read(long(command, 2), word(command, 7) as u64),
            code::READ_12 => read(long(command, 2), long(command, 6)),
            code::READ_CD => read_cd(command, long(command, 2), long(command, 5) & 0x00ff_ffff, read),
            code::READ_CD_MSF => {
                let frame = |at: usize| {
                    let [minute, second, frame] = [command[at], command[at + 1], command[at + 2]].map(u64::from);
                    ((minute * 60 + second) * FRAMES + frame).checked_sub(LEAD_IN).ok_or(Sense::OUT_OF_RANGE)
                };
                let (first, end) = (frame(3)?, frame(6)?);
                read_cd(command, first, end.checked_sub(first).ok_or(Sense::BAD_FIELD)?, read)
            }
            code::SEEK_10 => read(long(command, 2), 0),
            code::READ_TOC => Ok(give(toc(&*medium, command)?, word(command, 7))),
            code::READ_SUBCHANNEL => {
                // No audio is being played.
                Ok(give(vec![0, 0x15, 0, 0], word(command, 7)))
            }
            code::READ_DISC_INFORMATION => {
                let mut bytes = vec![0; 34];
                // Finished, one session, one track.
                (bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6]) = (32, 0x0e, 1, 1, 1, 1);
                Ok(give(bytes, word(command, 7)))
            }
            code::READ_TRACK_INFORMATION => {
                let mut bytes = vec![0; 36];
                (bytes[1], bytes[2], bytes[3], bytes[5], bytes[6]) = (34, 1, 1, 0x04, 0x01);
                bytes[24..28].copy_from_slice(&((medium.size() / SECTOR) as u32).to_be_bytes());
                Ok(give(bytes, word(command, 7)))
            }
            code::READ_DVD_STRUCTURE => Ok(give(structure(&*medium, command)?, word(command, 8))),
            // SET CD SPEED.
            _ => Ok(Action::Done),
        }
    }

    /// GET EVENT STATUS NOTIFICATION (MMC-6 6.6), of which there are those of the medium.
    fn event(&mut self, tray: &Tray, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        const POLLED: u8 = 1;
        const MEDIA: u8 = 4;
        const EJECT_REQUEST: u8 = 1;
        const NEW_MEDIUM: u8 = 2;
        const REMOVED: u8 = 3;
        let room = word(command, 7);
        if command[1] & POLLED == 0 {
            return Err(Sense::BAD_FIELD);
        }
        let supported = 1 << MEDIA;
        if command[4] & supported == 0 {
            return Ok(give(vec![0, 2, 0x80, supported], room));
        }
        let changes = tray.changes();
        // Without room for the event itself it is not told.
        let told = room > 4;
        let changed = told && std::mem::replace(&mut self.state.announced, changes) != changes;
        let present = tray.medium().is_some();
        let what = match (told && tray.take_request(), changed, present) {
            (true, ..) => EJECT_REQUEST,
            (_, true, true) => NEW_MEDIUM,
            (_, true, false) => REMOVED,
            _ => 0,
        };
        let status = u8::from(tray.is_open()) | u8::from(present) << 1;
        Ok(give(vec![0, 6, MEDIA, supported, what, status, 0, 0], room))
    }
}

fn is_known(operation: u8) -> bool {
    matches!(
        operation,
        code::READ_CAPACITY
            | code::READ_10
            | code::READ_12
            | code::READ_CD
            | code::READ_CD_MSF
            | code::SEEK_10
            | code::READ_TOC
            | code::READ_SUBCHANNEL
            | code::READ_DISC_INFORMATION
            | code::READ_TRACK_INFORMATION
            | code::READ_DVD_STRUCTURE
            | code::SET_SPEED
    )
}

/// READ CD (MMC-6 6.15): of sectors, nothing or their data.
fn read_cd(
    command: &[u8; LONGEST],
    first: u64,
    count: u64,
    read: impl Fn(u64, u64) -> Result<Action, Sense>,
) -> Result<Action, Sense> {
    const ANY: u8 = 0;
    const MODE_1: u8 = 2;
    if !matches!(command[1] >> 2 & 7, ANY | MODE_1) {
        return Err(Sense::OTHER_MODE);
    }
    match (command[9] & 0xf8, command[10] & 7) {
        (0, 0) => read(first, 0),
        (0x10, 0) => read(first, count),
        // Headers, error codes and sub-channels are not in an image.
        _ => Err(Sense::BAD_FIELD),
    }
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

/// READ TOC (MMC-6 6.25): a session with one track of data.
fn toc(medium: &dyn Disk, packet: &[u8; LONGEST]) -> Result<Vec<u8>, Sense> {
    const LEAD_OUT: u8 = 0xaa;
    let by_time = packet[1] & 2 != 0;
    // Older hosts have the format in the last byte.
    let format = if packet[2] & 0x0f != 0 { packet[2] & 0x0f } else { packet[9] >> 6 };
    let from = packet[6];
    let end = medium.size() / SECTOR;
    let mut bytes = vec![0, 0, 1, 1];
    let mut entry = |track: u8, sector: u64| {
        bytes.extend([0, DATA_TRACK, track, 0]);
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
            for (point, place) in
                [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, address(end, true)), (1, address(0, true))]
            {
                bytes.extend([1, DATA_TRACK, 0, point, 0, 0, 0]);
                bytes.extend(place);
            }
        }
        _ => return Err(Sense::BAD_FIELD),
    }
    let length = (bytes.len() as u16 - 2).to_be_bytes();
    bytes[..2].copy_from_slice(&length);
    Ok(bytes)
}

/// READ DVD STRUCTURE (MMC-6 6.22): what a pressed disc with one layer says.
fn structure(medium: &dyn Disk, command: &[u8; LONGEST]) -> Result<Vec<u8>, Sense> {
    const PHYSICAL: u8 = 0x00;
    const COPYRIGHT: u8 = 0x01;
    const MANUFACTURING: u8 = 0x04;
    const LIST: u8 = 0xff;
    /// Where data begin on a disc.
    const FIRST: u32 = 0x3_0000;
    if medium.size() <= LARGE {
        return Err(Sense::INCOMPATIBLE);
    }
    if command[6] != 0 {
        return Err(Sense::BAD_FIELD);
    }
    let body = match command[7] {
        PHYSICAL => {
            let mut bytes = vec![0; 2048];
            // A DVD-ROM of 12 cm, any speed, one layer.
            (bytes[0], bytes[1], bytes[2]) = (0x01, 0x0f, 0x01);
            let last = FIRST.wrapping_add((medium.size() / SECTOR).saturating_sub(1) as u32);
            bytes[4..8].copy_from_slice(&FIRST.to_be_bytes());
            bytes[8..12].copy_from_slice(&last.to_be_bytes());
            bytes
        }
        COPYRIGHT => vec![0; 4],
        MANUFACTURING => vec![0; 2048],
        LIST => [(PHYSICAL, 2052u16), (COPYRIGHT, 8), (MANUFACTURING, 2052)]
            .into_iter()
            .flat_map(|(format, length)| [format, 0x40, length.to_be_bytes()[0], length.to_be_bytes()[1]])
            .collect(),
        _ => return Err(Sense::BAD_FIELD),
    };
    let length = (body.len() as u16 + 2).to_be_bytes();
    Ok([&[length[0], length[1], 0, 0], body.as_slice()].concat())
}

/// GET CONFIGURATION (MMC-6 6.5): what the drive can do, and with the medium that is in it.
fn configuration(tray: &Tray, command: &[u8; LONGEST]) -> Vec<u8> {
    const CD: u16 = 0x08;
    const DVD: u16 = 0x10;
    const PERSISTENT: u8 = 0x02;
    let profile = tray.medium().map_or(0, |medium| if medium.size() > LARGE { DVD } else { CD });
    let is = |wanted| u8::from(profile == wanted);
    let loaded = u8::from(profile != 0);
    let [high, low] = profile.to_be_bytes();
    // Code, version with "persistent" and "current", data.
    let features: [(u16, u8, Vec<u8>); 9] = [
        (0x000, PERSISTENT | 1, vec![0, DVD as u8, is(DVD), 0, 0, CD as u8, is(CD), 0]),
        (0x001, 0x08 | PERSISTENT | 1, vec![0, 0, 0, 2, 1, 0, 0, 0]),
        // Asynchronous events of the medium; eject, lock, a tray.
        (0x002, 0x04 | PERSISTENT | 1, vec![2, 0, 0, 0]),
        (0x003, PERSISTENT | 1, vec![0x29, 0, 0, 0]),
        (0x010, loaded, vec![0, 0, SECTOR.to_be_bytes()[6], 0, 0, 16, 0, 0]),
        (0x01e, 0x08 | is(CD), vec![0, 0, 0, 0]),
        (0x01f, 0x04 | is(DVD), vec![0, 0, 0, 0]),
        (0x100, PERSISTENT | 1, vec![]),
        (0x105, PERSISTENT | 1, vec![0, 0, 0, 0]),
    ];
    let (which, from) = (command[1] & 3, word(command, 2) as u16);
    let mut bytes = vec![0, 0, 0, 0, 0, 0, high, low];
    for (code, flags, data) in features {
        let wanted = match which {
            1 => code >= from && flags & 1 != 0,
            2 => code == from,
            _ => code >= from,
        };
        if wanted {
            let [high, low] = code.to_be_bytes();
            bytes.extend([high, low, flags, data.len() as u8]);
            bytes.extend(data);
        }
    }
    let length = (bytes.len() as u32 - 4).to_be_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}
