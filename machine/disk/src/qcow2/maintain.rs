//! Making, resizing and preallocating qcow2 images.

use std::io::IoSlice;

use super::entry::COPIED;
use super::header::place;
use super::write::With;
use super::{Compression, Header, Qcow2};
use crate::host::HostFile;
use crate::{DiskError, Format};
use lodge_backend::Disk;

/// What a new image is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub size: u64,
    pub version: u32,
    pub cluster_bits: u32,
    pub refcount_order: u32,
    pub compression: Compression,
    /// Name and format of the image below.
    pub backing: Option<(String, Format)>,
}

impl Layout {
    /// What is usual.
    pub fn new(size: u64) -> Self {
        Self { size, version: 3, cluster_bits: 16, refcount_order: 4, compression: Compression::Zlib, backing: None }
    }
}

/// Writes the tables of an empty image into an empty file.
pub(crate) fn create(host: &HostFile, layout: &Layout) -> Result<(), DiskError> {
    let path = host.path();
    let cluster = 1_u64 << layout.cluster_bits;
    let l1_entries = layout.size.div_ceil(cluster * (cluster / 8));
    let l1 = (l1_entries * 8).div_ceil(cluster).max(1);
    let too_large = || {
        let remedy = "make it smaller, or use a raw image";
        DiskError::Refused(format!("{} can't have {} bytes as qcow2; {remedy}", path.display(), layout.size))
    };
    if l1_entries * 8 > 32 << 20 {
        return Err(too_large());
    }
    let per_block = (cluster * 8) >> layout.refcount_order;
    let (mut blocks, mut table) = (1, 1);
    loop {
        let needed: u64 = (1 + table + blocks + l1).div_ceil(per_block);
        let more = (needed * 8).div_ceil(cluster);
        if (needed, more) == (blocks, table) {
            break;
        }
        (blocks, table) = (needed.max(blocks), more.max(table));
    }
    let header = Header {
        version: layout.version,
        cluster_bits: layout.cluster_bits,
        size: layout.size,
        encryption: 0,
        l1_offset: (1 + table + blocks) * cluster,
        l1_entries: u32::try_from(l1_entries.max(1)).map_err(|_| too_large())?,
        reftable_offset: cluster,
        reftable_clusters: u32::try_from(table).map_err(|_| too_large())?,
        snapshot_count: 0,
        snapshots_offset: 0,
        incompatible: 0,
        compatible: 0,
        autoclear: 0,
        refcount_order: layout.refcount_order,
        compression: layout.compression,
        backing: layout.backing.as_ref().map(|(name, _)| name.clone()),
        backing_format: layout.backing.as_ref().map(|(_, format)| qemu_name(*format).to_owned()),
        bitmaps: None,
    };
    let head = header.to_bytes();
    if head.len() as u64 > cluster || header.backing.as_ref().is_some_and(|name| name.len() > 1023) {
        let problem = "the name of the backing file is too long for the header; use a relative or shorter name";
        return Err(DiskError::Refused(format!("{} can't be made: {problem}", path.display())));
    }
    let write = || {
        let used = 1 + table + blocks + l1;
        host.set_length(used * cluster)?;
        let pointers: Vec<u8> = (0..blocks).flat_map(|n| ((1 + table + n) * cluster).to_be_bytes()).collect();
        host.write(cluster, &pointers)?;
        for n in 0..blocks {
            let counted = used.saturating_sub(n * per_block).min(per_block);
            host.write((1 + table + n) * cluster, &super::check::ones(counted, layout.refcount_order))?;
        }
        host.sync()?;
        // Only with the header is it an image.
        host.write(0, &head)?;
        host.sync()
    };
    write().map_err(DiskError::io(path, "made"))
}

/// QEMU calls VHD by its old name.
fn qemu_name(format: Format) -> &'static str {
    if format == Format::Vhd { "vpc" } else { format.name() }
}

impl Qcow2 {
    /// Gives the disk another size. What is beyond a smaller one is lost.
    pub fn resize(&mut self, size: u64) -> Result<(), DiskError> {
        let path = self.host.path().to_owned();
        if self.header.has_snapshots() {
            return Err(DiskError::Refused(format!(
                "{} has snapshots within, which would no longer fit; delete them with `qemu-img snapshot -d`, or \
                 resize a copy made with `lodge disk convert`",
                path.display()
            )));
        }
        if self.header.l1_needed(size) * 8 > 32 << 20 {
            return Err(DiskError::Refused(format!(
                "{} can't have {size} bytes with clusters of {} bytes; convert it to a new image first",
                path.display(),
                self.cluster()
            )));
        }
        let result = if size < self.header.size { self.shrink(size) } else { self.grow(size) };
        result.map_err(DiskError::io(&path, "resized"))
    }

    fn set_size(&mut self, size: u64) -> std::io::Result<()> {
        self.host.write(place::SIZE, &size.to_be_bytes())?;
        self.host.sync()?;
        self.header.size = size;
        Ok(())
    }

    fn shrink(&mut self, size: u64) -> std::io::Result<()> {
        let (old, cluster) = (self.header.size, self.cluster());
        let kept = size.div_ceil(cluster);
        // What is cut off of the last cluster must not come back when it grows again.
        self.zero_range(size, (kept * cluster).min(old) - size, true)?;
        self.write_out()?;
        self.set_size(size)?;
        self.replace(kept..old.div_ceil(cluster), With::Nothing)?;
        self.write_out()
    }

    fn grow(&mut self, size: u64) -> std::io::Result<()> {
        let old = self.header.size;
        let needed = self.header.l1_needed(size) as usize;
        if needed > self.state.get_mut().l1.len() {
            self.move_l1(needed)?;
        }
        // What a shrinking that was cut off left behind must not come back.
        let covered = (self.header.l2_entries()).saturating_mul(self.state.get_mut().l1.len() as u64);
        self.replace(old.div_ceil(self.cluster())..covered.min(size.div_ceil(self.cluster())), With::Nothing)?;
        // The image below may be longer than this one was.
        let below = self.backing.as_ref().map_or(0, |backing| backing.size()).min(size);
        if below > old {
            // Within the last cluster of the old size as well.
            let end = (below.next_multiple_of(self.cluster())).min(size);
            self.header.size = end;
            let done = self.zero_range(old, end - old, true);
            self.header.size = old;
            done?;
        }
        self.write_out()?;
        self.set_size(size)
    }

    /// Puts a longer L1 table elsewhere, and then gives up the old one.
    fn move_l1(&mut self, entries: usize) -> std::io::Result<()> {
        self.write_out()?;
        let (cluster, bits) = (self.header.cluster(), self.header.cluster_bits);
        let old_clusters = (u64::from(self.header.l1_entries) * 8).div_ceil(cluster);
        let old_first = self.header.l1_offset >> bits;
        let clusters = (entries as u64 * 8).div_ceil(cluster);
        let state = self.state.get_mut();
        let Some(refcounts) = &mut state.refcounts else { return Err(crate::pieces::read_only_error()) };
        let first = refcounts.allocate_row(&self.host, clusters)?;
        (first..first + clusters).for_each(|n| refcounts.protect(n));
        let mut l1 = state.l1.clone();
        l1.resize(entries, 0);
        let mut bytes: Vec<u8> = l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize((clusters * cluster) as usize, 0);
        self.host.write(first << bits, &bytes)?;
        state.l1 = l1;
        // Refcounts and the table first, then the header that refers to it.
        self.write_out()?;
        let mut field = (entries as u32).to_be_bytes().to_vec();
        field.extend((first << bits).to_be_bytes());
        self.host.write(place::L1, &field)?;
        self.host.sync()?;
        self.header.l1_entries = entries as u32;
        self.header.l1_offset = first << bits;
        self.state.get_mut().frees.extend(old_first..old_first + old_clusters);
        self.write_out()
    }

    /// Gives every cluster its place, and reserves it on the host.
    pub fn preallocate(&self) -> std::io::Result<()> {
        let (bits, per_table) = (self.header.cluster_bits, self.header.l2_entries());
        let clusters = self.header.size.div_ceil(self.cluster());
        let mut next = 0;
        while next < clusters {
            let last = (next - next % per_table + per_table).min(clusters);
            let mut state = self.state.write();
            let offset = self.own_table(&mut state, (next / per_table) as usize)?;
            let Some(refcounts) = &mut state.refcounts else { break };
            while next < last {
                let (first, count) = refcounts.allocate(&self.host, last - next)?;
                self.host.reserve(first << bits, count << bits)?;
                self.tables.change(&self.host, offset, |entries| {
                    for n in 0..count {
                        entries[((next + n) % per_table) as usize] = (first + n) << bits | COPIED;
                    }
                })?;
                next += count;
            }
            drop(state);
            self.flush()?;
        }
        Ok(())
    }

    /// Writes data, compressed if that is asked for.
    pub fn put(&self, at: u64, data: &[u8], compressed: bool) -> std::io::Result<()> {
        if compressed { self.write_compressed(at, data) } else { self.write_at(at, &[IoSlice::new(data)]) }
    }
}
