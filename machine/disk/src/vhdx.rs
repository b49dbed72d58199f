//! Hyper-V's VHDX, fixed and dynamic.
//!
//! After Microsoft's [MS-VHDX] 2.0: 2.2 headers, 2.2.3 region table, 2.3 log, 2.5 block allocation table, 2.6 metadata.
//! All numbers are little-endian. A log that has to be replayed means that the file was not closed: it is refused.

use std::path::Path;
use std::sync::Arc;

use crate::check::Report;
use crate::host::HostFile;
use crate::mapped::{Blocks, Layout, PagedTable, Place};
use crate::pieces::at;
use crate::{DiskError, Format};

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER: usize = 4096;
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const REGION_TABLE: usize = 64 << 10;
const MOST_REGIONS: u32 = 2047;
const MEGABYTE: u64 = 1 << 20;

/// Identifiers, as they lie in files.
const BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const SECTOR_SIZE: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);

/// Block states of 2.5.1.1.
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
const STATE: u64 = 7;

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// A VHDX image.
pub(crate) struct Vhdx {
    file: Arc<HostFile>,
    size: u64,
    block: u64,
    /// Payload blocks between two blocks of bitmaps.
    ratio: u64,
    blocks: u64,
    bat: PagedTable,
}

/// Whether a structure's CRC-32C, at byte 4, is right.
fn is_whole(bytes: &[u8]) -> bool {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &[0; 4]);
    crc32c::crc32c_append(sum, &bytes[8..]) == at::le32(bytes, 4)
}

impl Vhdx {
    pub fn open(host: HostFile) -> Result<Self, DiskError> {
        let path = host.path().to_owned();
        let fault = DiskError::io(&path, "read");
        let damaged = |problem: String| DiskError::damaged(&path, Format::Vhdx, problem);
        let length = host.length().map_err(&fault)?;
        let mut magic = [0; 8];
        host.read_padded(0, &mut magic).map_err(&fault)?;
        if &magic != b"vhdxfile" {
            return Err(damaged("it does not begin with a VHDX header".into()));
        }
        let mut current: Option<(u64, Vec<u8>)> = None;
        for place in HEADERS {
            let mut bytes = vec![0; HEADER];
            host.read_padded(place, &mut bytes).map_err(&fault)?;
            let sequence = at::le64(&bytes, 8);
            if bytes.starts_with(b"head") && is_whole(&bytes) && current.as_ref().is_none_or(|(old, _)| sequence > *old)
            {
                current = Some((sequence, bytes));
            }
        }
        let (_, header) = current.ok_or_else(|| damaged("neither of its headers is whole".into()))?;
        let unsupported = |what: &str, remedy| DiskError::Unsupported {
            path: path.clone(),
            format: Format::Vhdx,
            what: what.into(),
            remedy,
        };
        if at::le16(&header, 66) != 1 {
            return Err(unsupported("a later version", "convert it with the program that made it"));
        }
        if header[48..64].iter().any(|byte| *byte != 0) {
            let remedy = "attach it once on Windows, or run `qemu-img check -r all` on it, to have it closed cleanly";
            return Err(unsupported("changes in its log that were not carried out", remedy));
        }
        let regions = Self::regions(&host, &damaged)?;
        let region =
            |name: &[u8; 16]| regions.iter().find(|(id, ..)| id == name).map(|(_, place, size)| (*place, *size));
        let (metadata, metadata_length) = region(&METADATA).ok_or_else(|| damaged("it has no metadata".into()))?;
        let (bat, bat_length) = region(&BAT).ok_or_else(|| damaged("it has no block allocation table".into()))?;
        if metadata.checked_add(metadata_length).is_none_or(|end| end > length)
            || bat.checked_add(bat_length).is_none_or(|end| end > length)
        {
            return Err(damaged("a region lies behind the end of the file".into()));
        }
        let item = |name| Self::item(&host, metadata, metadata_length, name);
        let parameters = item(&FILE_PARAMETERS)?;
        let size = at::le64(&item(&DISK_SIZE)?, 0);
        let sector = u64::from(at::le32(&item(&SECTOR_SIZE)?, 0));
        let block = u64::from(at::le32(&parameters, 0));
        if at::le32(&parameters, 4) & 2 != 0 {
            return Err(unsupported("a parent", "merge it into its parent with `Merge-VHD` on Windows"));
        }
        if !block.is_power_of_two() || !(MEGABYTE..=256 * MEGABYTE).contains(&block) {
            return Err(damaged(format!("blocks of {block} bytes are not possible")));
        }
        if sector != 512 && sector != 4096 || size == 0 || !size.is_multiple_of(sector) || size > 64 << 40 {
            return Err(damaged(format!("{size} bytes in sectors of {sector} bytes are not possible")));
        }
        let ratio = (sector << 23) / block;
        let blocks = size.div_ceil(block);
        let entries = blocks + (blocks - 1) / ratio;
        if entries * 8 > bat_length {
            return Err(damaged("its block allocation table is too short for the disk".into()));
        }
        let file = Arc::new(host);
        let bat = PagedTable::new(file.clone(), bat, entries, 8, false);
        Ok(Self { file, size, block, ratio, blocks, bat })
    }

    /// Identifier, offset and length of each region, from the first table that is whole.
    fn regions(host: &HostFile, damaged: &dyn Fn(String) -> DiskError) -> Result<Vec<([u8; 16], u64, u64)>, DiskError> {
        for place in REGION_TABLES {
            let mut bytes = vec![0; REGION_TABLE];
            host.read_padded(place, &mut bytes).map_err(DiskError::io(host.path(), "read"))?;
            let count = at::le32(&bytes, 8);
            if !bytes.starts_with(b"regi") || !is_whole(&bytes) || count > MOST_REGIONS {
                continue;
            }
            let entries = bytes[16..].chunks_exact(32).take(count as usize);
            let mut found = Vec::new();
            for entry in entries {
                let mut id = [0; 16];
                id.copy_from_slice(&entry[..16]);
                if at::le32(entry, 28) & 1 != 0 && id != BAT && id != METADATA {
                    return Err(damaged("it needs a region that lodge does not know".into()));
                }
                found.push((id, at::le64(entry, 16), u64::from(at::le32(entry, 24))));
            }
            return Ok(found);
        }
        Err(damaged("neither of its region tables is whole".into()))
    }

    /// The first bytes of an item of the metadata.
    fn item(host: &HostFile, start: u64, length: u64, name: &[u8; 16]) -> Result<[u8; 16], DiskError> {
        let fault = DiskError::io(host.path(), "read");
        let mut table = vec![0; 64 << 10];
        host.read_padded(start, &mut table).map_err(&fault)?;
        let entries = table[32..].chunks_exact(32).take(usize::from(at::le16(&table, 10)).min(2047));
        for entry in entries.filter(|_| table.starts_with(b"metadata")) {
            if &entry[..16] == name {
                let place = u64::from(at::le32(entry, 16));
                if place >= 64 << 10 && place + 8 <= length {
                    let mut bytes = [0; 16];
                    host.read_padded(start + place, &mut bytes).map_err(&fault)?;
                    return Ok(bytes);
                }
            }
        }
        Err(DiskError::damaged(host.path(), Format::Vhdx, "its metadata lacks what a disk needs"))
    }

    pub fn block(&self) -> u64 {
        self.block
    }

    fn block_at(&self, number: u64) -> std::io::Result<Option<u64>> {
        let entry = self.bat.get(number + number / self.ratio)?.unwrap_or(0);
        // Blocks that are not present, undefined, zero or unmapped read as zeroes.
        Ok(matches!(entry & STATE, FULLY_PRESENT | PARTIALLY_PRESENT).then_some(entry & !(MEGABYTE - 1)))
    }
}

impl Layout for Vhdx {
    fn format(&self) -> Format {
        Format::Vhdx
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn locate(&self, offset: u64, _wanted: bool) -> std::io::Result<(Place, u64)> {
        let within = offset % self.block;
        let place = match self.block_at(offset / self.block)? {
            Some(start) => Place::File { file: self.file.clone(), offset: start.saturating_add(within) },
            None => Place::Zero,
        };
        Ok((place, self.block - within))
    }

    fn check(&self) -> std::io::Result<Report> {
        let mut blocks = Blocks::new(self.file.length()?, self.block);
        for number in 0..self.blocks {
            match self.block_at(number)? {
                Some(0..MEGABYTE) => {
                    blocks.report.error(|| format!("block {number} is said to lie in the headers"));
                }
                Some(offset) => blocks.add(number, offset),
                None => {}
            }
        }
        Ok(blocks.report)
    }
}
