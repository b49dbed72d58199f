//! VirtualBox's VDI: a header, a map of blocks, the blocks.
//!
//! Layout after VirtualBox's `VDICore.h` (header version 1.1), all numbers little-endian.

use std::path::Path;
use std::sync::Arc;

use crate::check::Report;
use crate::host::HostFile;
use crate::mapped::{Blocks, Layout, PagedTable, Place};
use crate::pieces::at;
use crate::{DiskError, Format};

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;
/// Blocks at least this number in the map are not there: 0xffffffff was never written, 0xfffffffe was discarded.
const ABSENT: u64 = 0xffff_fffe;

/// A VDI image.
pub(crate) struct Vdi {
    file: Arc<HostFile>,
    size: u64,
    block: u64,
    data: u64,
    blocks: u64,
    map: PagedTable,
}

impl Vdi {
    pub fn open(host: HostFile) -> Result<Self, DiskError> {
        let path = host.path().to_owned();
        let fault = DiskError::io(&path, "read");
        let damaged = |problem: String| DiskError::damaged(&path, Format::Vdi, problem);
        let mut head = [0; 512];
        host.read_padded(0, &mut head).map_err(&fault)?;
        let length = host.length().map_err(&fault)?;
        if at::le32(&head, 64) != SIGNATURE {
            return Err(damaged("it does not begin with a VDI header".into()));
        }
        let unsupported =
            |what: String, remedy| DiskError::Unsupported { path: path.clone(), format: Format::Vdi, what, remedy };
        if at::le32(&head, 68) != VERSION {
            let version = format!("header version {:#x}", at::le32(&head, 68));
            return Err(unsupported(version, "clone it with VirtualBox, which writes version 1.1"));
        }
        let kind = at::le32(&head, 76);
        let has_parent = head[440..456].iter().any(|byte| *byte != 0);
        if kind != DYNAMIC && kind != FIXED || has_parent {
            let remedy = "make one image of it and its parents with `VBoxManage clonemedium`";
            return Err(unsupported("a parent".into(), remedy));
        }
        let (map, data) = (u64::from(at::le32(&head, 340)), u64::from(at::le32(&head, 344)));
        let size = at::le64(&head, 368);
        let block = u64::from(at::le32(&head, 376));
        let extra = u64::from(at::le32(&head, 380));
        let blocks = u64::from(at::le32(&head, 384));
        if at::le32(&head, 360) != 512 || block < 512 || block % 512 != 0 || extra != 0 {
            return Err(damaged(format!(
                "sectors of {} and blocks of {block} bytes are not possible",
                at::le32(&head, 360)
            )));
        }
        if size == 0 || size.div_ceil(block) > blocks {
            return Err(damaged(format!("its {blocks} blocks of {block} bytes are too few for {size} bytes")));
        }
        if map < 512 || map + blocks * 4 > length || data < map + blocks * 4 {
            return Err(damaged("its map of blocks lies outside of the file".into()));
        }
        let allocated = u64::from(at::le32(&head, 388));
        if allocated > 0 && data.saturating_add((allocated - 1) * block) >= length {
            return Err(damaged(format!("it is too short for the {allocated} blocks that it should have")));
        }
        let file = Arc::new(host);
        let map = PagedTable::new(file.clone(), map, blocks, 4, false);
        Ok(Self { file, size: size.next_multiple_of(512), block, data, blocks: size.div_ceil(block), map })
    }

    pub fn block(&self) -> u64 {
        self.block
    }

    fn block_at(&self, number: u64) -> std::io::Result<Option<u64>> {
        Ok(self.map.get(number)?.filter(|place| *place < ABSENT).map(|place| self.data + place * self.block))
    }
}

impl Layout for Vdi {
    fn format(&self) -> Format {
        Format::Vdi
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
            Some(start) => Place::File { file: self.file.clone(), offset: start + within },
            None => Place::Zero,
        };
        Ok((place, self.block - within))
    }

    fn check(&self) -> std::io::Result<Report> {
        let mut blocks = Blocks::new(self.file.length()?, self.block);
        for number in 0..self.blocks {
            if let Some(offset) = self.block_at(number)? {
                blocks.add(number, offset);
            }
        }
        Ok(blocks.report)
    }
}
