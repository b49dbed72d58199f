//! Images that are only read: a map from places of the disk to places in files.
//!
//! A format is a [`Layout`]; [`Mapped`] makes a disk of it. [`PagedTable`] reads the formats' tables a page at a time,
//! so that a table costs neither time nor memory before it is used, whatever a header says of its length.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::Arc;

use lodge_backend::Disk;
use parking_lot::Mutex;

use crate::Format;
use crate::check::Report;
use crate::host::HostFile;
use crate::image::{Extent, Image, Kind};
use crate::pieces::{Sink, check_range, read_only_error, total};

/// Where bytes of a disk are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Nowhere: they are zero.
    Zero,
    /// In a file, from this offset on.
    File { file: Arc<HostFile>, offset: u64 },
    /// In these bytes, which were unpacked.
    Unpacked { data: Arc<Vec<u8>>, from: usize },
}

/// A format that is only read.
pub(crate) trait Layout: Send + Sync {
    fn format(&self) -> Format;
    /// Bytes, a multiple of 512.
    fn size(&self) -> u64;
    /// The file that was opened.
    fn path(&self) -> &Path;
    /// Where the byte at `offset` is, and how many from there on are in a row. Compressed data is unpacked if that is
    /// `wanted`.
    fn locate(&self, offset: u64, wanted: bool) -> std::io::Result<(Place, u64)>;
    /// Looks at all tables.
    fn check(&self) -> std::io::Result<Report>;
}

/// A disk of a format that is only read.
pub(crate) struct Mapped<L>(pub L);

impl<L: Layout> Disk for Mapped<L> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        let length = total(buffers.iter().map(|buffer| buffer.len()));
        check_range(offset, length, self.size())?;
        let mut sink = Sink::new(buffers);
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (place, here) = self.0.locate(at, true)?;
            let here = here.clamp(1, end - at);
            match place {
                Place::Zero => sink.zero(here as usize),
                Place::File { file, offset } => file.readv_data(offset, &mut sink.take(here as usize))?,
                Place::Unpacked { data, from } => {
                    let slice = data.get(from..).unwrap_or_default();
                    let known = slice.len().min(here as usize);
                    sink.put(&slice[..known]);
                    sink.zero(here as usize - known);
                }
            }
            at += here;
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        Err(read_only_error())
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _length: u64) -> std::io::Result<()> {
        Err(read_only_error())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _may_unmap: bool) -> std::io::Result<()> {
        Err(read_only_error())
    }
}

impl<L: Layout> Image for Mapped<L> {
    fn format(&self) -> Format {
        self.0.format()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn extent(&self, offset: u64, length: u64) -> std::io::Result<Extent> {
        check_range(offset, length, self.size())?;
        if length == 0 {
            return Ok(Extent { length, kind: Kind::Zero });
        }
        let (place, here) = self.0.locate(offset, false)?;
        let here = here.clamp(1, length);
        Ok(match place {
            Place::Zero => Extent { length: here, kind: Kind::Zero },
            Place::Unpacked { .. } => Extent { length: here, kind: Kind::Compressed },
            Place::File { file, offset } => {
                // Images of fixed size have holes in their files.
                let (is_data, end) = file.data_run(offset, offset + here);
                Extent { length: end - offset, kind: if is_data { Kind::Data } else { Kind::Zero } }
            }
        })
    }

    fn check(&self) -> std::io::Result<Report> {
        self.0.check()
    }
}

/// Bytes of a page of a table, and most pages that are kept.
const PAGE: u64 = 4096;
const MOST_PAGES: usize = 2048;

/// A table of numbers in a file.
pub(crate) struct PagedTable {
    file: Arc<HostFile>,
    offset: u64,
    entries: u64,
    /// Bytes of an entry: 4 or 8.
    width: u64,
    is_big_endian: bool,
    pages: Mutex<HashMap<u64, Box<[u8]>>>,
}

impl PagedTable {
    pub fn new(file: Arc<HostFile>, offset: u64, entries: u64, width: u64, is_big_endian: bool) -> Self {
        Self { file, offset, entries, width, is_big_endian, pages: Mutex::default() }
    }

    /// An entry; those behind the end are `None`.
    pub fn get(&self, index: u64) -> std::io::Result<Option<u64>> {
        if index >= self.entries {
            return Ok(None);
        }
        let (page, within) = (index * self.width / PAGE, (index * self.width % PAGE) as usize);
        let mut pages = self.pages.lock();
        if !pages.contains_key(&page) {
            let mut bytes = vec![0; PAGE as usize];
            self.file.read_padded(self.offset.saturating_add(page * PAGE), &mut bytes)?;
            if pages.len() >= MOST_PAGES {
                pages.clear();
            }
            pages.insert(page, bytes.into());
        }
        let bytes = pages.get(&page).and_then(|page| page.get(within..within + self.width as usize));
        Ok(bytes.map(|bytes| {
            let number = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            if self.is_big_endian { bytes.iter().fold(0, number) } else { bytes.iter().rev().fold(0, number) }
        }))
    }
}

/// Unpacked pieces of files, by place.
#[derive(Default)]
pub(crate) struct Unpacked {
    kept: Mutex<std::collections::VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl Unpacked {
    /// The piece at `key`, made by `make` unless it is kept.
    pub fn get(&self, key: u64, make: impl FnOnce() -> std::io::Result<Vec<u8>>) -> std::io::Result<Arc<Vec<u8>>> {
        let found = self.kept.lock().iter().find(|(other, _)| *other == key).map(|(_, data)| data.clone());
        if let Some(data) = found {
            return Ok(data);
        }
        let data = Arc::new(make()?);
        let mut kept = self.kept.lock();
        kept.truncate(7);
        kept.push_front((key, data.clone()));
        Ok(data)
    }
}

/// Looks whether blocks of one length lie within a file and not on each other: `blocks` are numbers and offsets.
pub(crate) struct Blocks {
    length: u64,
    size: u64,
    taken: HashMap<u64, u64>,
    pub report: Report,
}

impl Blocks {
    /// For a file of `length` bytes, with blocks of `size`.
    pub fn new(length: u64, size: u64) -> Self {
        Self { length, size, taken: HashMap::new(), report: Report::default() }
    }

    /// Looks at a block.
    pub fn add(&mut self, number: u64, offset: u64) {
        self.report.clusters += 1;
        // The last block of a file may be cut short.
        if offset >= self.length {
            self.report.error(|| format!("block {number} is said to be at {offset:#x}, behind the end of the file"));
            return;
        }
        self.report.end = self.report.end.max(offset.saturating_add(self.size).min(self.length));
        let unit = offset / self.size.max(1);
        // Blocks need not be at multiples of their size: the neighbours may reach into this one.
        for other in [unit.checked_sub(1), Some(unit), unit.checked_add(1)].into_iter().flatten() {
            if let Some(taken) = self.taken.get(&other)
                && taken.abs_diff(offset) < self.size
            {
                self.report.error(|| format!("block {number} at {offset:#x} overlaps with the one at {taken:#x}"));
                return;
            }
        }
        self.taken.insert(unit, offset);
    }
}
