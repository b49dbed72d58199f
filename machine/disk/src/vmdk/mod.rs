//! VMware's VMDK: one sparse file, one stream-optimized file, or a descriptor that names flat and sparse files.
//!
//! After VMware's "Virtual Disk Format 5.0": "The Descriptor File", "Hosted Sparse Extents", "Stream-Optimized
//! Compressed Sparse Extents". [`descriptor`] reads the text, [`sparse`] the tables of one extent; here they become a
//! disk.

mod descriptor;
mod sparse;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::descriptor::{Descriptor, Role};
use self::sparse::Sparse;
use crate::check::Report;
use crate::host::HostFile;
use crate::mapped::{Layout, Place};
use crate::{DiskError, Format};

/// A file that opens as an extent: the caller locks it.
pub(crate) type Opener<'a> = &'a mut dyn FnMut(&Path) -> Result<HostFile, DiskError>;

const SECTOR: u64 = 512;

enum Data {
    Zero,
    Flat { file: Arc<HostFile>, offset: u64 },
    Sparse(Box<Sparse>),
}

struct Extent {
    start: u64,
    length: u64,
    data: Data,
}

/// A VMDK image.
pub(crate) struct Vmdk {
    path: PathBuf,
    kind: String,
    size: u64,
    extents: Vec<Extent>,
}

impl Vmdk {
    /// Opens an image by its first file, which is locked; `open` opens the others.
    pub fn open(host: HostFile, open: Opener<'_>) -> Result<Self, DiskError> {
        let path = host.path().to_owned();
        let damaged = |problem: String| DiskError::damaged(&path, Format::Vmdk, problem);
        let mut magic = [0; 4];
        host.read_padded(0, &mut magic).map_err(DiskError::io(&path, "read"))?;
        let host = Arc::new(host);
        if &magic == b"KDMV" {
            let sparse = Sparse::open(host.clone())?;
            let text = sparse.descriptor()?;
            let descriptor = text.map(|text| Descriptor::parse(&text).map_err(damaged)).transpose()?;
            let mut kind = "monolithicSparse".to_owned();
            if let Some(descriptor) = descriptor {
                refuse_parent(&path, &descriptor)?;
                kind = descriptor.kind;
            }
            let length = sparse.size();
            let extents = vec![Extent { start: 0, length, data: Data::Sparse(Box::new(sparse)) }];
            return Ok(Self { path, kind, size: length, extents });
        }
        if &magic == b"COWD" {
            return Err(unsupported(&path, "an extent of an ESX server's snapshot"));
        }
        let length = host.length().map_err(DiskError::io(&path, "read"))?;
        let text = descriptor::read(&host, 0, length)?;
        let descriptor = Descriptor::parse(&text).map_err(damaged)?;
        refuse_parent(&path, &descriptor)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut extents = Vec::new();
        let mut start = 0_u64;
        for named in &descriptor.extents {
            let length = named.sectors * SECTOR;
            let data = match &named.role {
                Role::Zero => Data::Zero,
                Role::Flat { name, offset } => {
                    let file = open(&folder.join(plain_name(&path, name)?))?;
                    let needed = offset.saturating_mul(SECTOR).saturating_add(length);
                    if file.length().map_err(DiskError::io(file.path(), "read"))? < needed {
                        let problem = format!("its extent {name:?} is shorter than {needed} bytes");
                        return Err(DiskError::damaged(&path, Format::Vmdk, problem));
                    }
                    Data::Flat { file: Arc::new(file), offset: offset.saturating_mul(SECTOR) }
                }
                Role::Sparse { name } => {
                    let sparse = Sparse::open(Arc::new(open(&folder.join(plain_name(&path, name)?))?))?;
                    if sparse.size() < length {
                        let problem = format!("its extent {name:?} holds less than {length} bytes");
                        return Err(DiskError::damaged(&path, Format::Vmdk, problem));
                    }
                    Data::Sparse(Box::new(sparse))
                }
            };
            extents.push(Extent { start, length, data });
            start = start
                .checked_add(length)
                .filter(|end| *end <= 1 << 62)
                .ok_or_else(|| DiskError::damaged(&path, Format::Vmdk, "its extents are larger than any disk"))?;
        }
        if start == 0 {
            return Err(DiskError::damaged(&path, Format::Vmdk, "its descriptor names no extent"));
        }
        Ok(Self { path, kind: descriptor.kind, size: start, extents })
    }

    /// What the descriptor calls this kind of image.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Bytes of a grain.
    pub fn grain(&self) -> Option<u64> {
        self.extents.iter().find_map(|extent| match &extent.data {
            Data::Sparse(sparse) => Some(sparse.grain()),
            _ => None,
        })
    }
}

/// Extents lie beside their descriptor: a path would let an image show any file of the host.
fn plain_name<'a>(path: &Path, name: &'a str) -> Result<&'a str, DiskError> {
    if name.is_empty()
        || name.contains(['/', '\\', '\0'])
        || name == ".."
        || name == "."
        || name.chars().any(char::is_control)
    {
        let problem = format!("its descriptor names the extent {name:?}, which is not a file beside it");
        return Err(DiskError::damaged(path, Format::Vmdk, problem));
    }
    Ok(name)
}

fn unsupported(path: &Path, what: &str) -> DiskError {
    DiskError::Unsupported {
        path: path.to_owned(),
        format: Format::Vmdk,
        what: what.to_owned(),
        remedy: "make one image of all with `vmware-vdiskmanager -r SOURCE -t 0 NEW`",
    }
}

fn refuse_parent(path: &Path, descriptor: &Descriptor) -> Result<(), DiskError> {
    if descriptor.has_parent { Err(unsupported(path, "a parent")) } else { Ok(()) }
}

impl Layout for Vmdk {
    fn format(&self) -> Format {
        Format::Vmdk
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn locate(&self, offset: u64, wanted: bool) -> std::io::Result<(Place, u64)> {
        let index = self.extents.partition_point(|extent| extent.start <= offset).saturating_sub(1);
        let Some(extent) = self.extents.get(index) else { return Ok((Place::Zero, 1)) };
        let within = offset - extent.start;
        let left = extent.length.saturating_sub(within);
        Ok(match &extent.data {
            Data::Zero => (Place::Zero, left),
            Data::Flat { file, offset } => {
                (Place::File { file: file.clone(), offset: offset.saturating_add(within) }, left)
            }
            Data::Sparse(sparse) => {
                let (place, here) = sparse.locate(within, wanted)?;
                (place, here.min(left))
            }
        })
    }

    fn check(&self) -> std::io::Result<Report> {
        let mut all = Report::default();
        for extent in &self.extents {
            if let Data::Sparse(sparse) = &extent.data {
                let found = sparse.check()?;
                all.errors += found.errors;
                all.clusters += found.clusters;
                all.end = all.end.max(found.end);
                all.messages.extend(found.messages);
            }
        }
        all.messages.truncate(50);
        Ok(all)
    }
}
