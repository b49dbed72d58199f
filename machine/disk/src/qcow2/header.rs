//! The header of a qcow2 file, its extensions and its table of snapshots.
//!
//! Sections refer to QEMU's `docs/interop/qcow2.txt`: "Header", "Header extensions", "Snapshots". Everything that a
//! file says of itself is held against its length before anything is allocated for it.

use std::path::Path;

use crate::host::HostFile;
use crate::image::Snapshot;
use crate::pieces::at;
use crate::{DiskError, Format};

/// "QFI\xfb".
pub(super) const MAGIC: u32 = 0x5146_49fb;
/// Clusters have from 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Most bytes of an L1 table and of a refcount table (QEMU's limits too).
const MOST_L1: u64 = 32 << 20;
const MOST_REFTABLE: u64 = 8 << 20;
/// Most snapshots and most bytes of their table.
const MOST_SNAPSHOTS: u32 = 65536;
const MOST_SNAPSHOT_TABLE: u64 = 16 << 20;
/// Longest name of a backing file.
const LONGEST_NAME: u32 = 1023;

/// Bits of incompatible features.
pub(super) const DIRTY: u64 = 1 << 0;
pub(super) const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// Bit of auto-clear features: the bitmaps extension is valid.
pub(super) const BITMAPS: u64 = 1 << 0;

/// Types of header extensions.
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;

/// Where fields are that are changed in place.
pub(super) mod place {
    pub(in super::super) const SIZE: u64 = 24;
    pub(in super::super) const L1: u64 = 36;
    pub(in super::super) const REFTABLE: u64 = 48;
    pub(in super::super) const INCOMPATIBLE: u64 = 72;
    pub(in super::super) const AUTOCLEAR: u64 = 88;
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Zlib,
    Zstd,
}

/// A header that fits its file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    pub encryption: u32,
    pub l1_offset: u64,
    pub l1_entries: u32,
    pub reftable_offset: u64,
    pub reftable_clusters: u32,
    pub snapshot_count: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub refcount_order: u32,
    pub compression: Compression,
    pub backing: Option<String>,
    pub backing_format: Option<String>,
    /// Offset and length of the directory of bitmaps.
    pub bitmaps: Option<(u64, u64)>,
}

impl Header {
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }

    /// Refcounts in a block.
    pub fn block_entries(&self) -> u64 {
        (self.cluster() * 8) >> self.refcount_order
    }

    /// The largest refcount.
    pub fn most_references(&self) -> u64 {
        if self.refcount_order == 6 { i64::MAX as u64 } else { (1 << (1 << self.refcount_order)) - 1 }
    }

    /// L1 entries that a disk of so many bytes needs.
    pub fn l1_needed(&self, size: u64) -> u64 {
        size.div_ceil(self.cluster() * self.l2_entries())
    }

    pub fn has_snapshots(&self) -> bool {
        self.snapshot_count > 0
    }

    /// Reads the header of a file.
    pub fn read(host: &HostFile) -> Result<Self, DiskError> {
        let path = host.path();
        let fault = DiskError::io(path, "read");
        let damaged = |problem: String| DiskError::damaged(path, Format::Qcow2, problem);
        let length = host.length().map_err(&fault)?;
        let mut head = [0; 112];
        host.read_padded(0, &mut head).map_err(&fault)?;
        if at::be32(&head, 0) != MAGIC || length < 72 {
            return Err(damaged("it does not begin with a qcow2 header".into()));
        }
        let version = at::be32(&head, 4);
        if !(2..=3).contains(&version) {
            return Err(DiskError::Unsupported {
                path: path.to_owned(),
                format: Format::Qcow2,
                what: format!("version {version}"),
                remedy: "convert it to version 3 with the program that made it",
            });
        }
        let new = version == 3;
        let wide = |offset| if new { at::be64(&head, offset) } else { 0 };
        let header_length = if new { u64::from(at::be32(&head, 100)) } else { 72 };
        let mut header = Self {
            version,
            cluster_bits: at::be32(&head, 20),
            size: at::be64(&head, 24),
            encryption: at::be32(&head, 32),
            l1_entries: at::be32(&head, 36),
            l1_offset: at::be64(&head, 40),
            reftable_offset: at::be64(&head, 48),
            reftable_clusters: at::be32(&head, 56),
            snapshot_count: at::be32(&head, 60),
            snapshots_offset: at::be64(&head, 64),
            incompatible: wide(72),
            compatible: wide(80),
            autoclear: wide(88),
            refcount_order: if new { at::be32(&head, 96) } else { 4 },
            compression: Compression::Zlib,
            backing: None,
            backing_format: None,
            bitmaps: None,
        };
        header.validate(length).map_err(damaged)?;
        if new && (header_length < 104 || header_length > header.cluster() || header_length % 8 != 0) {
            return Err(damaged(format!("its header has an impossible length of {header_length} bytes")));
        }
        if header.incompatible & COMPRESSION != 0 && header_length > 104 && head[104] == 1 {
            header.compression = Compression::Zstd;
        } else if header.incompatible & COMPRESSION != 0 && (header_length <= 104 || head[104] > 1) {
            return Err(damaged("its way of compression is not one of zlib, zstd".into()));
        }
        header.read_extensions(host, header_length)?;
        header.read_backing(host, at::be64(&head, 8), at::be32(&head, 16))?;
        Ok(header)
    }

    /// Holds the header against itself and the file's length.
    fn validate(&self, length: u64) -> Result<(), String> {
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            return Err(format!("clusters of 2^{} bytes are not possible", self.cluster_bits));
        }
        if self.refcount_order > 6 {
            return Err(format!("refcounts of 2^{} bits are not possible", self.refcount_order));
        }
        if self.size == 0 || !self.size.is_multiple_of(512) || self.size > i64::MAX as u64 - (1 << 30) {
            return Err(format!("a disk of {} bytes is not possible", self.size));
        }
        let end = length.next_multiple_of(self.cluster());
        let table = |what: &str, offset: u64, bytes: u64, most: u64| {
            if !offset.is_multiple_of(self.cluster()) {
                Err(format!("its {what} is not at a multiple of the cluster size"))
            } else if bytes > most {
                Err(format!("its {what} has {bytes} bytes, more than any image needs"))
            } else if bytes > 0 && offset.checked_add(bytes).is_none_or(|last| last > end || offset == 0) {
                Err(format!("its {what} lies beyond the end of the file"))
            } else {
                Ok(())
            }
        };
        table("L1 table", self.l1_offset, u64::from(self.l1_entries) * 8, MOST_L1)?;
        let reftable = u64::from(self.reftable_clusters) * self.cluster();
        table("refcount table", self.reftable_offset, reftable, MOST_REFTABLE)?;
        if u64::from(self.l1_entries) < self.l1_needed(self.size) {
            return Err(format!(
                "its L1 table has {} entries where a disk of {} bytes needs {}",
                self.l1_entries,
                self.size,
                self.l1_needed(self.size)
            ));
        }
        if self.snapshot_count > MOST_SNAPSHOTS {
            return Err(format!("it says that it has {} snapshots", self.snapshot_count));
        }
        table("table of snapshots", self.snapshots_offset, u64::from(self.snapshot_count), MOST_SNAPSHOT_TABLE)
    }

    fn read_extensions(&mut self, host: &HostFile, header_length: u64) -> Result<(), DiskError> {
        let mut data = vec![0; self.cluster().min(64 << 10) as usize];
        host.read_padded(0, &mut data).map_err(DiskError::io(host.path(), "read"))?;
        let mut offset = header_length as usize;
        while offset + 8 <= data.len() {
            let (kind, length) = (at::be32(&data, offset), at::be32(&data, offset + 4) as usize);
            offset += 8;
            if kind == EXTENSION_END {
                break;
            }
            let Some(body) = offset.checked_add(length).and_then(|end| data.get(offset..end)) else {
                return Err(DiskError::damaged(host.path(), Format::Qcow2, "a header extension exceeds the header"));
            };
            match kind {
                EXTENSION_BACKING_FORMAT => self.backing_format = Some(String::from_utf8_lossy(body).into_owned()),
                EXTENSION_BITMAPS if self.autoclear & BITMAPS != 0 => {
                    self.bitmaps = Some((at::be64(body, 16), at::be64(body, 8)));
                }
                _ => {}
            }
            offset = (offset + length).next_multiple_of(8);
        }
        Ok(())
    }

    fn read_backing(&mut self, host: &HostFile, offset: u64, length: u32) -> Result<(), DiskError> {
        if offset == 0 || length == 0 {
            return Ok(());
        }
        if length > LONGEST_NAME || offset.checked_add(u64::from(length)).is_none_or(|end| end > self.cluster()) {
            let problem = "the name of its backing file lies outside the header";
            return Err(DiskError::damaged(host.path(), Format::Qcow2, problem));
        }
        let mut name = vec![0; length as usize];
        host.read_padded(offset, &mut name).map_err(DiskError::io(host.path(), "read"))?;
        match String::from_utf8(name) {
            Ok(name) if !name.chars().any(char::is_control) => self.backing = Some(name),
            _ => {
                let problem = "the name of its backing file is not text";
                return Err(DiskError::damaged(host.path(), Format::Qcow2, problem));
            }
        }
        Ok(())
    }

    /// Refuses what lodge can't read or write.
    pub fn refuse_unknown(&self, path: &Path) -> Result<(), DiskError> {
        let refuse = |what: String, remedy| {
            Err(DiskError::Unsupported { path: path.to_owned(), format: Format::Qcow2, what, remedy })
        };
        if self.encryption != 0 {
            return refuse("encrypted contents".into(), "decrypt it with `qemu-img convert`");
        }
        if self.incompatible & DATA_FILE != 0 {
            return refuse("its data in another file".into(), "make one file of it with `qemu-img convert -O qcow2`");
        }
        if self.incompatible & EXTENDED_L2 != 0 {
            return refuse("subclusters".into(), "make an image without with `qemu-img convert -O qcow2`");
        }
        let unknown = self.incompatible & !(DIRTY | CORRUPT | COMPRESSION);
        if unknown != 0 {
            return refuse(format!("features of a later version ({unknown:#x})"), "convert it with a later program");
        }
        Ok(())
    }

    /// Reads the table of snapshots: what there is to tell, and where their L1 tables are (offset, entries). `end` is
    /// where the table ends.
    pub fn snapshots(&self, host: &HostFile) -> std::io::Result<Snapshots> {
        let mut found = Snapshots { end: self.snapshots_offset, ..Snapshots::default() };
        for _ in 0..self.snapshot_count {
            let mut fixed = [0; 64];
            host.read_padded(found.end, &mut fixed)?;
            let extra = u64::from(at::be32(&fixed, 36));
            let (id, name) = (u64::from(at::be16(&fixed, 12)), u64::from(at::be16(&fixed, 14)));
            let length = 40 + extra + id + name;
            let table = found.end - self.snapshots_offset + length;
            if extra > 1024 || table > MOST_SNAPSHOT_TABLE || found.end + length > host.length()? {
                return Err(crate::error::corrupt("an entry of the table of snapshots is too long"));
            }
            let mut text = vec![0; (id + name) as usize];
            host.read_padded(found.end + 40 + extra, &mut text)?;
            let (id, name) = text.split_at(id as usize);
            let small = u64::from(at::be32(&fixed, 32));
            found.list.push(Snapshot {
                id: String::from_utf8_lossy(id).into_owned(),
                name: String::from_utf8_lossy(name).into_owned(),
                seconds: u64::from(at::be32(&fixed, 16)),
                state_size: if extra >= 8 { at::be64(&fixed, 40) } else { small },
            });
            found.tables.push((at::be64(&fixed, 0), at::be32(&fixed, 8)));
            found.end += length.next_multiple_of(8);
        }
        Ok(found)
    }

    /// The bytes of a new image's header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header_length = if self.version == 3 { 112 } else { 72 };
        let mut bytes = vec![0; header_length];
        let mut put = |offset: usize, field: &[u8]| {
            if offset < header_length {
                bytes[offset..offset + field.len()].copy_from_slice(field);
            }
        };
        put(0, &MAGIC.to_be_bytes());
        put(4, &self.version.to_be_bytes());
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(36, &self.l1_entries.to_be_bytes());
        put(40, &self.l1_offset.to_be_bytes());
        put(48, &self.reftable_offset.to_be_bytes());
        put(56, &self.reftable_clusters.to_be_bytes());
        put(72, &(self.incompatible | (u64::from(self.compression == Compression::Zstd) * COMPRESSION)).to_be_bytes());
        put(80, &self.compatible.to_be_bytes());
        put(96, &self.refcount_order.to_be_bytes());
        put(100, &(header_length as u32).to_be_bytes());
        put(104, &[u8::from(self.compression == Compression::Zstd)]);
        let mut extension = |kind: u32, body: &[u8]| {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((body.len() as u32).to_be_bytes());
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            extension(EXTENSION_BACKING_FORMAT, format.as_bytes());
        }
        extension(EXTENSION_END, &[]);
        if let Some(name) = &self.backing {
            let offset = bytes.len() as u64;
            bytes[8..16].copy_from_slice(&offset.to_be_bytes());
            bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes
    }
}

/// The table of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    pub list: Vec<Snapshot>,
    /// Offset and entries of each one's L1 table.
    pub tables: Vec<(u64, u32)>,
    /// Where the table ends.
    pub end: u64,
}
