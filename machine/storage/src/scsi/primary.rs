//! Commands of all units (SPC-4 chapters 6 and 7).

use std::sync::Arc;

use lodge_backend::{Absent, Disk, SECTOR, Tray};

use super::registers::{MOST_BLOCKS, MOST_RANGES, MOST_SAME, MOST_UNMAPPED, code, page, vital};
use super::{Action, LONGEST, Medium, Sense, Unit, give, long, word};

const VENDOR: &str = "lodge";
/// Mode parameters of a header: write-protected.
const WRITE_PROTECTED: u8 = 0x80;
/// Mode parameters of a header: FUA bits are looked at.
const HAS_FUA: u8 = 0x10;
/// Caching page: writes may be in a cache when they end.
const WRITE_CACHE: u8 = 0x04;

/// What MODE SENSE asks for (SPC-4 table 157).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
}

impl Unit {
    /// A command that all units have, if it is one.
    pub(super) fn primary(&mut self, command: &[u8; LONGEST]) -> Option<Result<Action, Sense>> {
        Some(match command[0] {
            code::TEST_UNIT_READY => self.ready().map(|()| Action::Done),
            code::INQUIRY => self.inquiry(command),
            code::REPORT_LUNS => report_luns(command),
            code::MODE_SENSE_6 => self.mode_sense(command, false).map(|bytes| give(bytes, command[4].into())),
            code::MODE_SENSE_10 => self.mode_sense(command, true).map(|bytes| give(bytes, word(command, 7))),
            code::MODE_SELECT_6 if !self.atapi => Ok(parameters(command[4].into())),
            code::MODE_SELECT_10 if !self.atapi => Ok(parameters(word(command, 7))),
            code::START_STOP => self.start_stop(command[4]),
            code::PREVENT_REMOVAL => {
                self.state.locked = command[4] & 1 != 0;
                if let Medium::Cd(tray) = &self.medium {
                    tray.lock(self.state.locked);
                }
                Ok(Action::Done)
            }
            // There is one initiator.
            code::RESERVE_6 | code::RELEASE_6 if !self.atapi => Ok(Action::Done),
            _ => return None,
        })
    }

    /// Whether there is a medium.
    pub(super) fn ready(&self) -> Result<(), Sense> {
        match &self.medium {
            Medium::Cd(tray) => medium_in(tray).map(drop),
            Medium::Disk(_) => Ok(()),
        }
    }

    fn start_stop(&self, what: u8) -> Result<Action, Sense> {
        const START: u8 = 1;
        const EJECT: u8 = 2;
        const POWER: u8 = 0xf0;
        // A power condition has the other bits mean nothing.
        let what = if what & POWER == 0 { what & (START | EJECT) } else { START };
        match (&self.medium, what) {
            (Medium::Cd(tray), EJECT) if !tray.open() => Err(Sense::PREVENTED),
            (Medium::Cd(tray), what) if what == START | EJECT => {
                tray.close();
                Ok(Action::Done)
            }
            // What stops has nothing in its cache.
            (Medium::Disk(_), 0) => Ok(Action::Flush),
            _ => Ok(Action::Done),
        }
    }

    fn kind(&self) -> u8 {
        match self.medium {
            Medium::Disk(_) => 0x00,
            Medium::Cd(_) => 0x05,
        }
    }

    fn inquiry(&self, command: &[u8; LONGEST]) -> Result<Action, Sense> {
        let room = word(command, 3);
        if command[1] & 1 != 0 {
            return Ok(give(self.vital(command[2])?, room));
        }
        if command[2] != 0 {
            return Err(Sense::BAD_FIELD);
        }
        let is_cd = matches!(self.medium, Medium::Cd(_));
        let removable = if is_cd { 0x80 } else { 0 };
        // SPC-3; the format of this answer, for packets with the version of ATAPI; commands are queued, but by packets.
        let format = if self.atapi { 0x32 } else { 0x02 };
        let queues = if self.atapi { 0 } else { 0x02 };
        let mut bytes = vec![self.kind(), removable, 0x05, format, 31, 0, 0, queues];
        let product = if is_cd { "DVD-ROM" } else { "disk" };
        bytes.extend(format!("{VENDOR:<8}{product:<16}{:<4}", env!("CARGO_PKG_VERSION")).bytes().take(28));
        Ok(give(bytes, room))
    }

    /// Vital product data (SPC-4 7.8, SBC-3 6.6).
    fn vital(&self, wanted: u8) -> Result<Vec<u8>, Sense> {
        let is_disk = matches!(self.medium, Medium::Disk(_));
        let body = match wanted {
            vital::LIST if is_disk => vec![
                vital::LIST,
                vital::SERIAL,
                vital::IDENTIFICATION,
                vital::LIMITS,
                vital::CHARACTERISTICS,
                vital::PROVISIONING,
            ],
            vital::LIST => vec![vital::LIST, vital::SERIAL, vital::IDENTIFICATION],
            vital::SERIAL => self.serial.bytes().take(252).collect(),
            vital::IDENTIFICATION => self.identification(),
            vital::LIMITS if is_disk => {
                let mut bytes = vec![0; 60];
                let mut put = |at: usize, value: &[u8]| bytes[at - 4..at - 4 + value.len()].copy_from_slice(value);
                // WRITE SAME of nothing is refused, not of all.
                put(4, &[1]);
                put(8, &(MOST_BLOCKS as u32).to_be_bytes());
                put(20, &(MOST_UNMAPPED as u32).to_be_bytes());
                put(24, &(MOST_RANGES as u32).to_be_bytes());
                // The host's pages.
                put(28, &8u32.to_be_bytes());
                put(36, &MOST_SAME.to_be_bytes());
                bytes
            }
            vital::CHARACTERISTICS if is_disk => {
                let mut bytes = vec![0; 60];
                // Nothing rotates.
                bytes[1] = 1;
                bytes
            }
            // By UNMAP and WRITE SAME; thin.
            vital::PROVISIONING if is_disk => vec![0, 0xe0, 0x02, 0],
            _ => return Err(Sense::BAD_FIELD),
        };
        let length = (body.len() as u16).to_be_bytes();
        Ok([&[self.kind(), wanted, length[0], length[1]], body.as_slice()].concat())
    }

    /// Designators (SPC-4 7.8.6): vendor and serial as text, and a number of our own.
    fn identification(&self) -> Vec<u8> {
        let text: Vec<u8> = format!("{VENDOR:<8}").bytes().chain(self.serial.bytes().take(200)).collect();
        let mut bytes = vec![0x02, 0x01, 0, text.len() as u8];
        bytes.extend(&text);
        // FNV-1a, as a locally assigned name (NAA 3).
        let hash = text
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        bytes.extend([0x01, 0x03, 0, 8]);
        bytes.extend((hash >> 4 | 3 << 60).to_be_bytes());
        bytes
    }

    fn mode_sense(&self, command: &[u8; LONGEST], wide: bool) -> Result<Vec<u8>, Sense> {
        let values = match command[2] >> 6 {
            0 | 2 => Values::Current,
            1 => Values::Changeable,
            _ => return Err(Sense::NOT_SAVED),
        };
        let defaults = command[2] >> 6 == 2;
        let (wanted, sub) = (command[2] & 0x3f, command[3]);
        if !matches!(sub, 0 | 0xff) {
            return Err(Sense::BAD_FIELD);
        }
        let all = [page::RECOVERY, page::GEOMETRY, page::CACHING, page::CONTROL, page::AUDIO, page::CAPABILITIES];
        let pages: Vec<_> = all
            .into_iter()
            .filter(|code| [*code, page::ALL].contains(&wanted))
            .filter_map(|code| self.page(code, values, defaults))
            .flatten()
            .collect();
        if pages.is_empty() {
            return Err(Sense::BAD_FIELD);
        }
        let (kind, parameter, descriptor) = match &self.medium {
            Medium::Disk(disk) => {
                let protected = if disk.is_read_only() { WRITE_PROTECTED } else { 0 };
                let wanted = command[1] & 0x08 == 0;
                (0, protected | HAS_FUA, if wanted { block_descriptor(&**disk) } else { Vec::new() })
            }
            Medium::Cd(tray) => {
                let kind = match (tray.is_open(), tray.medium().is_some()) {
                    (true, _) => 0x71,
                    (false, true) => 0x01,
                    (false, false) => 0x70,
                };
                (if self.atapi { kind } else { 0 }, if self.atapi { 0 } else { WRITE_PROTECTED }, Vec::new())
            }
        };
        let length = descriptor.len() + pages.len();
        let mut bytes = if wide {
            let all = ((6 + length) as u16).to_be_bytes();
            vec![all[0], all[1], kind, parameter, 0, 0, 0, descriptor.len() as u8]
        } else {
            vec![(3 + length) as u8, kind, parameter, descriptor.len() as u8]
        };
        bytes.extend(descriptor);
        bytes.extend(pages);
        Ok(bytes)
    }

    /// A mode page, if the unit has it.
    fn page(&self, code: u8, values: Values, defaults: bool) -> Option<Vec<u8>> {
        let mut bytes = match (&self.medium, code) {
            (Medium::Disk(_), page::RECOVERY) => vec![code, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            (Medium::Cd(_), page::RECOVERY) => vec![code, 6, 0, 5, 0, 0, 0, 0],
            (Medium::Disk(disk), page::GEOMETRY) => geometry(&**disk),
            (Medium::Disk(_), page::CACHING) => {
                let cache = if self.state.write_cache || defaults { WRITE_CACHE } else { 0 };
                let mut bytes = vec![0; 20];
                (bytes[0], bytes[1], bytes[2]) = (code, 18, cache);
                bytes
            }
            // Commands may be done in any order.
            (Medium::Disk(_), page::CONTROL) => vec![code, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
            (Medium::Cd(_), page::AUDIO) => vec![code, 14, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            (Medium::Cd(tray), page::CAPABILITIES) => {
                let locked = if tray.is_locked() { 0x02 } else { 0 };
                // Reads CD-R, CD-RW and DVD; can lock, eject, has a tray; 50 times a CD's speed, as is set.
                let mut bytes =
                    vec![code, 18, 0x3f, 0, 0x70, 0x60, 0x29 | locked, 0, 0x22, 0x71, 0, 2, 2, 0, 0x22, 0x71];
                bytes.extend([0; 4]);
                bytes
            }
            _ => return None,
        };
        if values == Values::Changeable {
            bytes[2..].fill(0);
            if code == page::CACHING {
                bytes[2] = WRITE_CACHE;
            }
        }
        Some(bytes)
    }

    /// MODE SELECT (SPC-4 6.9): of disks, whether writes are cached; what cannot be changed has to be as it is.
    pub(super) fn mode_select(&mut self, flags: u8, data: &[u8], wide: bool) -> Result<Action, Sense> {
        const PAGE_FORMAT: u8 = 0x10;
        const SAVE: u8 = 0x01;
        if flags & SAVE != 0 || flags & PAGE_FORMAT == 0 && !data.is_empty() && matches!(self.medium, Medium::Disk(_)) {
            return Err(Sense::BAD_FIELD);
        }
        if data.is_empty() {
            return Ok(Action::Done);
        }
        let header = if wide { 8 } else { 4 };
        if data.len() < header {
            return Err(Sense::LIST_LENGTH);
        }
        let descriptors = if wide { word(data, 6) } else { usize::from(data[3]) };
        let mut rest = data.get(header + descriptors..).ok_or(Sense::LIST_LENGTH)?;
        let mut cache = self.state.write_cache;
        while let [code, length, ..] = rest {
            let code = code & 0x3f;
            let (page, after) = rest.split_at_checked(2 + usize::from(*length)).ok_or(Sense::LIST_LENGTH)?;
            let present = self.page(code, Values::Current, false).ok_or(Sense::BAD_PARAMETER)?;
            let mask = self.page(code, Values::Changeable, false).ok_or(Sense::BAD_PARAMETER)?;
            let fits =
                page.len() == present.len() && (2..page.len()).all(|at| (page[at] ^ present[at]) & !mask[at] == 0);
            if !fits {
                return Err(Sense::BAD_PARAMETER);
            }
            if code == page::CACHING {
                cache = page[2] & WRITE_CACHE != 0;
            }
            rest = after;
        }
        let flush = self.state.write_cache && !cache;
        self.state.write_cache = cache;
        Ok(if flush { Action::Flush } else { Action::Done })
    }
}

/// The medium in a tray, or why there is none, as sense data (SPC-4 4.5).
pub(super) fn medium_in(tray: &Tray) -> Result<Arc<dyn Disk>, Sense> {
    tray.ready().map_err(|absent| match absent {
        Absent::NotYet => Sense::BECOMING_READY,
        Absent::Open => Sense::TRAY_OPEN,
        Absent::Empty => Sense::NO_MEDIUM,
    })
}

fn parameters(length: usize) -> Action {
    if length == 0 { Action::Done } else { Action::Parameters(length) }
}

/// REPORT LUNS: the one.
fn report_luns(command: &[u8; LONGEST]) -> Result<Action, Sense> {
    let room = long(command, 6) as usize;
    if room < 16 {
        return Err(Sense::BAD_FIELD);
    }
    // Only well-known units are asked for, of which there are none.
    let length: u8 = if command[2] == 1 { 0 } else { 8 };
    let mut bytes = vec![0; 8 + usize::from(length)];
    bytes[3] = length;
    Ok(give(bytes, room))
}

/// Short block descriptor (SPC-4 7.5.5).
fn block_descriptor(disk: &dyn Disk) -> Vec<u8> {
    let blocks = u32::try_from(disk.size() / SECTOR).unwrap_or(u32::MAX).to_be_bytes();
    let size = (SECTOR as u32).to_be_bytes();
    [blocks, [0, size[1], size[2], size[3]]].concat()
}

/// The rigid disk geometry page: 16 heads, 63 sectors.
fn geometry(disk: &dyn Disk) -> Vec<u8> {
    let cylinders = (disk.size() / SECTOR / (16 * 63)).clamp(1, 0xff_ffff) as u32;
    let [_, c0, c1, c2] = cylinders.to_be_bytes();
    let mut bytes = vec![0; 24];
    (bytes[0], bytes[1]) = (page::GEOMETRY, 22);
    bytes[2..6].copy_from_slice(&[c0, c1, c2, 16]);
    // Nothing rotates.
    bytes[20..22].copy_from_slice(&1u16.to_be_bytes());
    bytes
}
