//! Virtual PC's VHD: fixed, or dynamic with a table of blocks.
//!
//! After Microsoft's "Virtual Hard Disk Image Format Specification" (1.0): "Hard Disk Footer Format", "Dynamic Disk
//! Header Format", "Block Allocation Table and Data Blocks". All numbers are big-endian.

use std::path::Path;
use std::sync::Arc;

use crate::check::Report;
use crate::host::HostFile;
use crate::mapped::{Blocks, Layout, PagedTable, Place};
use crate::pieces::at;
use crate::{DiskError, Format};

const FOOTER: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
/// A block that is not there.
const ABSENT: u64 = 0xffff_ffff;
/// The largest geometry: such disks say their size elsewhere.
const LARGEST_GEOMETRY: u64 = 65535 * 16 * 255;
/// Programs that give a disk the size of its geometry.
const BY_GEOMETRY: [&[u8]; 3] = [b"vpc ", b"vs  ", b"qemu"];

/// A VHD image.
pub(crate) struct Vhd {
    file: Arc<HostFile>,
    size: u64,
    dynamic: Option<Dynamic>,
}

struct Dynamic {
    block: u64,
    /// Bytes of the bitmap before a block's data.
    bitmap: u64,
    entries: u64,
    table: PagedTable,
}

/// Whether a footer's or header's checksum, at `place`, is right: the complement of the sum of the other bytes.
fn is_whole(bytes: &[u8], place: usize) -> bool {
    let others = bytes.iter().enumerate().filter(|(index, _)| !(place..place + 4).contains(index));
    let sum = others.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum == at::be32(bytes, place)
}

impl Vhd {
    pub fn open(host: HostFile) -> Result<Self, DiskError> {
        let path = host.path().to_owned();
        let fault = DiskError::io(&path, "read");
        let damaged = |problem: &str| DiskError::damaged(&path, Format::Vhd, problem);
        let length = host.length().map_err(&fault)?;
        if length < FOOTER {
            return Err(damaged("it is shorter than a footer"));
        }
        // The footer at the end counts; a dynamic disk has a copy at the beginning.
        let mut footer = [0; FOOTER as usize];
        host.read_padded(length - FOOTER, &mut footer).map_err(&fault)?;
        let mut is_copy = false;
        if !footer.starts_with(b"conectix") || !is_whole(&footer, 64) {
            host.read_padded(0, &mut footer).map_err(&fault)?;
            is_copy = true;
        }
        if !footer.starts_with(b"conectix") || !is_whole(&footer, 64) {
            return Err(damaged("it has no footer, or not a whole one"));
        }
        let kind = at::be32(&footer, 60);
        let geometry = u64::from(at::be16(&footer, 56)) * u64::from(footer[58]) * u64::from(footer[59]);
        let by_geometry = BY_GEOMETRY.contains(&&footer[28..32]) && geometry < LARGEST_GEOMETRY && geometry > 0;
        let size = if by_geometry { geometry * 512 } else { at::be64(&footer, 48) };
        if size == 0 || size % 512 != 0 || size > 1 << 62 {
            return Err(damaged("its footer names an impossible size"));
        }
        let file = Arc::new(host);
        let dynamic = match kind {
            FIXED if is_copy || size > length - FOOTER => return Err(damaged("it is shorter than its footer says")),
            FIXED => None,
            DYNAMIC => Some(Self::open_dynamic(&file, at::be64(&footer, 16), length, size)?),
            DIFFERENCING => {
                return Err(DiskError::Unsupported {
                    path: path.clone(),
                    format: Format::Vhd,
                    what: "a parent".into(),
                    remedy: "merge it into its parent with `Merge-VHD` on Windows",
                });
            }
            _ => return Err(damaged("its footer names an unknown type of disk")),
        };
        Ok(Self { file, size, dynamic })
    }

    fn open_dynamic(file: &Arc<HostFile>, offset: u64, length: u64, size: u64) -> Result<Dynamic, DiskError> {
        let damaged = |problem: String| DiskError::damaged(file.path(), Format::Vhd, problem);
        let mut header = [0; 1024];
        if offset.checked_add(1024).is_none_or(|end| end > length) {
            return Err(damaged("its second header lies behind the end of the file".into()));
        }
        file.read_padded(offset, &mut header).map_err(DiskError::io(file.path(), "read"))?;
        if !header.starts_with(b"cxsparse") || !is_whole(&header, 36) {
            return Err(damaged("its second header is not whole".into()));
        }
        let (table, entries) = (at::be64(&header, 16), u64::from(at::be32(&header, 28)));
        let block = u64::from(at::be32(&header, 32));
        if !block.is_power_of_two() || block < 512 {
            return Err(damaged(format!("blocks of {block} bytes are not possible")));
        }
        if size.div_ceil(block) > entries || table.checked_add(entries * 4).is_none_or(|end| end > length) {
            return Err(damaged(format!("its table of {entries} blocks does not fit the file or the disk")));
        }
        let bitmap = (block / 512).div_ceil(8).next_multiple_of(512);
        let table = PagedTable::new(file.clone(), table, entries, 4, true);
        Ok(Dynamic { block, bitmap, entries: size.div_ceil(block), table })
    }

    pub fn block(&self) -> Option<u64> {
        self.dynamic.as_ref().map(|dynamic| dynamic.block)
    }
}

impl Dynamic {
    /// Where a block's bitmap begins.
    fn block_at(&self, number: u64) -> std::io::Result<Option<u64>> {
        Ok(self.table.get(number)?.filter(|sector| *sector != ABSENT).map(|sector| sector * 512))
    }
}

impl Layout for Vhd {
    fn format(&self) -> Format {
        Format::Vhd
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn locate(&self, offset: u64, _wanted: bool) -> std::io::Result<(Place, u64)> {
        let file = self.file.clone();
        let Some(dynamic) = &self.dynamic else { return Ok((Place::File { file, offset }, self.size - offset)) };
        let within = offset % dynamic.block;
        // Sectors that the block's bitmap leaves out have been zero since the block was made.
        let place = match dynamic.block_at(offset / dynamic.block)? {
            Some(start) => Place::File { file, offset: start + dynamic.bitmap + within },
            None => Place::Zero,
        };
        Ok((place, dynamic.block - within))
    }

    fn check(&self) -> std::io::Result<Report> {
        let Some(dynamic) = &self.dynamic else { return Ok(Report { end: self.size + FOOTER, ..Report::default() }) };
        let mut blocks = Blocks::new(self.file.length()?, dynamic.block + dynamic.bitmap);
        for number in 0..dynamic.entries {
            if let Some(offset) = dynamic.block_at(number)? {
                blocks.add(number, offset);
            }
        }
        Ok(blocks.report)
    }
}
