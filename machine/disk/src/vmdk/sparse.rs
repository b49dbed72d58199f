//! A hosted sparse extent: a grain directory, grain tables, grains, which may be compressed.

use std::io::Read;
use std::sync::Arc;

use super::{SECTOR, descriptor};
use crate::check::Report;
use crate::error::corrupt;
use crate::host::HostFile;
use crate::mapped::{Blocks, PagedTable, Place, Unpacked};
use crate::pieces::at;
use crate::{DiskError, Format};

/// Flags of the header.
const REDUNDANT: u32 = 1 << 1;
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// The directory is where a footer says.
const AT_END: u64 = u64::MAX;
/// Grains have at most so many sectors: 1 MiB is more than any program makes.
const MOST_GRAIN: u64 = 2048;
const TABLE_ENTRIES: std::ops::RangeInclusive<u64> = 1..=4096;
/// Grain tables that are kept.
const MOST_TABLES: usize = 256;

/// One sparse file.
pub(super) struct Sparse {
    file: Arc<HostFile>,
    sectors: u64,
    /// Sectors of a grain.
    grain: u64,
    table_entries: u64,
    has_zero_grains: bool,
    is_compressed: bool,
    text: (u64, u64),
    directory: PagedTable,
    tables: parking_lot::Mutex<std::collections::HashMap<u64, Arc<PagedTable>>>,
    unpacked: Unpacked,
}

impl Sparse {
    pub fn open(file: Arc<HostFile>) -> Result<Self, DiskError> {
        let path = file.path().to_owned();
        let fault = DiskError::io(&path, "read");
        let damaged = |problem: String| DiskError::damaged(&path, Format::Vmdk, problem);
        let length = file.length().map_err(&fault)?;
        let mut head = [0; 512];
        file.read_padded(0, &mut head).map_err(&fault)?;
        if at::le64(&head, 56) == AT_END && length >= 3 * SECTOR {
            // A marker, the footer, an end marker.
            file.read_padded(length - 2 * SECTOR, &mut head).map_err(&fault)?;
        }
        if !head.starts_with(b"KDMV") {
            return Err(damaged("it has no header, or no footer though its header says so".into()));
        }
        let version = at::le32(&head, 4);
        if !(1..=3).contains(&version) {
            return Err(damaged(format!("version {version} is not known")));
        }
        let flags = at::le32(&head, 8);
        let (sectors, grain) = (at::le64(&head, 12), at::le64(&head, 20));
        let table_entries = u64::from(at::le32(&head, 44));
        let redundant = flags & REDUNDANT != 0 && at::le64(&head, 56) == 0;
        let directory = if redundant { at::le64(&head, 48) } else { at::le64(&head, 56) };
        if sectors == 0 || sectors > 1 << 52 || !grain.is_power_of_two() || !(8..=MOST_GRAIN).contains(&grain) {
            return Err(damaged(format!("{sectors} sectors in grains of {grain} are not possible")));
        }
        if !TABLE_ENTRIES.contains(&table_entries) {
            return Err(damaged(format!("grain tables of {table_entries} entries are not possible")));
        }
        let is_compressed = flags & COMPRESSED != 0;
        if is_compressed && at::le16(&head, 77) != 1 {
            return Err(damaged("its way of compression is not deflate".into()));
        }
        let tables = sectors.div_ceil(grain * table_entries);
        let end = directory.checked_mul(SECTOR).and_then(|start| start.checked_add(tables * 4));
        if directory == 0 || end.is_none_or(|end| end > length) {
            return Err(damaged("its grain directory lies behind the end of the file".into()));
        }
        Ok(Self {
            sectors,
            grain,
            table_entries,
            has_zero_grains: flags & ZERO_GRAINS != 0,
            is_compressed,
            text: (at::le64(&head, 28), at::le64(&head, 36)),
            directory: PagedTable::new(file.clone(), directory * SECTOR, tables, 4, false),
            tables: parking_lot::Mutex::default(),
            unpacked: Unpacked::default(),
            file,
        })
    }

    pub fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// Bytes of a grain.
    pub fn grain(&self) -> u64 {
        self.grain * SECTOR
    }

    /// The descriptor within, if there is one.
    pub fn descriptor(&self) -> Result<Option<String>, DiskError> {
        let (offset, length) = self.text;
        if offset == 0 || length == 0 {
            return Ok(None);
        }
        let length = length.saturating_mul(SECTOR);
        descriptor::read(&self.file, offset.saturating_mul(SECTOR), length).map(Some)
    }

    /// Where a grain is, in sectors: 0 if nowhere.
    fn grain_at(&self, number: u64) -> std::io::Result<u64> {
        let table = self.directory.get(number / self.table_entries)?.unwrap_or(0);
        if table == 0 {
            return Ok(0);
        }
        let kept = {
            let mut tables = self.tables.lock();
            if tables.len() >= MOST_TABLES && !tables.contains_key(&table) {
                tables.clear();
            }
            let make = || Arc::new(PagedTable::new(self.file.clone(), table * SECTOR, self.table_entries, 4, false));
            tables.entry(table).or_insert_with(make).clone()
        };
        let entry = kept.get(number % self.table_entries)?.unwrap_or(0);
        Ok(if entry == 1 && self.has_zero_grains { 0 } else { entry })
    }

    /// Where a place of the extent is, and for how many bytes.
    pub fn locate(&self, offset: u64, wanted: bool) -> std::io::Result<(Place, u64)> {
        let number = offset / self.grain();
        let within = offset % self.grain();
        let here = self.grain() - within;
        let place = match self.grain_at(number)? {
            0 => Place::Zero,
            sector if !self.is_compressed => Place::File { file: self.file.clone(), offset: sector * SECTOR + within },
            _ if !wanted => Place::Unpacked { data: Arc::default(), from: 0 },
            sector => {
                let data = self.unpacked.get(sector, || self.unpack(sector))?;
                Place::Unpacked { data, from: within as usize }
            }
        };
        Ok((place, here))
    }

    /// A compressed grain: its sector number, its length, zlib data.
    fn unpack(&self, sector: u64) -> std::io::Result<Vec<u8>> {
        let mut marker = [0; 12];
        self.file.read_padded(sector * SECTOR, &mut marker)?;
        let length = u64::from(at::le32(&marker, 8));
        if length == 0 || length > self.grain() * 2 + 1024 {
            return Err(corrupt(format!("{}: a grain has {length} compressed bytes", self.file.path().display())));
        }
        let mut packed = vec![0; length as usize];
        self.file.read_padded(sector * SECTOR + 12, &mut packed)?;
        let mut data = Vec::with_capacity(self.grain() as usize);
        let stream = flate2::read::ZlibDecoder::new(packed.as_slice());
        stream
            .take(self.grain())
            .read_to_end(&mut data)
            .map_err(|error| corrupt(format!("{}: a grain can't be unpacked: {error}", self.file.path().display())))?;
        // The last grain may be cut short; the rest is zero.
        data.resize(self.grain() as usize, 0);
        Ok(data)
    }

    pub fn check(&self) -> std::io::Result<Report> {
        let length = self.file.length()?;
        let size = if self.is_compressed { SECTOR } else { self.grain() };
        let mut blocks = Blocks::new(length, size);
        let mut seen = std::collections::HashSet::new();
        let per_table = self.table_entries;
        let grains = self.sectors.div_ceil(self.grain);
        for number in 0..grains.div_ceil(per_table) {
            let table = self.directory.get(number)?.unwrap_or(0);
            if table == 0 {
                continue;
            }
            let end = (table * SECTOR).saturating_add(per_table * 4);
            if end > length || !seen.insert(table) {
                let report = &mut blocks.report;
                report.error(|| format!("grain table {number} is said to be at sector {table}"));
                continue;
            }
            for grain in number * per_table..((number + 1) * per_table).min(grains) {
                match self.grain_at(grain)? {
                    0 => {}
                    sector => blocks.add(grain, sector * SECTOR),
                }
            }
        }
        Ok(blocks.report)
    }
}
