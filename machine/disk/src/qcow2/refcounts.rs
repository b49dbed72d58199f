//! Refcounts and the allocation of clusters ("Host cluster management" in QEMU's `docs/interop/qcow2.txt`).
//!
//! [`Refcounts`] keeps the refcount table and those blocks of it that were used, changes them in memory, and hands out
//! what has to be written ([`Refcounts::take_dirty`]). A new block lies in the first of the clusters that it counts, so
//! it needs no other block.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::header::Header;
use crate::error::corrupt;
use crate::host::HostFile;

/// Bytes of clean blocks that are kept.
const KEPT: u64 = 16 << 20;
/// And most blocks, since the oldest is searched for.
const MOST_KEPT: u64 = 1024;
/// No file is longer: the offsets of descriptors have 56 bits.
const LONGEST: u64 = 1 << 55;
const OFFSET: u64 = !0x1ff;

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    dirty: bool,
    used: u64,
}

/// What has to be written for refcounts.
#[derive(Debug, Default)]
pub(super) struct DirtyRefcounts {
    /// Offsets and contents of blocks.
    pub blocks: Vec<(u64, Vec<u8>)>,
    /// Offsets and contents of parts of the table, which must follow the blocks.
    pub table: Vec<(u64, Vec<u8>)>,
    parts: Vec<usize>,
}

/// The refcounts of an image that is open for writing.
#[derive(Debug)]
pub(super) struct Refcounts {
    cluster_bits: u32,
    order: u32,
    most: u64,
    block_entries: u64,
    table_offset: u64,
    table: Vec<u64>,
    /// Entries of the table that are not on disk, in parts of 512 bytes.
    dirty_parts: BTreeSet<usize>,
    blocks: HashMap<u64, Block>,
    dirty_blocks: usize,
    clock: u64,
    /// No cluster below is free.
    hint: u64,
    /// Clusters of tables: never to be handed out, nor written as data.
    metadata: HashSet<u64>,
}

impl Refcounts {
    pub fn read(host: &HostFile, header: &Header) -> std::io::Result<Self> {
        let mut bytes = vec![0; (u64::from(header.reftable_clusters) * header.cluster()) as usize];
        host.read_padded(header.reftable_offset, &mut bytes)?;
        let table: Vec<u64> =
            bytes.chunks_exact(8).map(|entry| u64::from_be_bytes(entry.try_into().unwrap_or_default())).collect();
        let mut found = Self {
            cluster_bits: header.cluster_bits,
            order: header.refcount_order,
            most: header.most_references(),
            block_entries: header.block_entries(),
            table_offset: header.reftable_offset,
            table,
            dirty_parts: BTreeSet::new(),
            blocks: HashMap::new(),
            dirty_blocks: 0,
            clock: 0,
            hint: 1,
            metadata: HashSet::from([0]),
        };
        found.mark_table();
        found
            .metadata
            .extend(found.table.iter().filter(|entry| **entry != 0).map(|entry| entry >> header.cluster_bits));
        Ok(found)
    }

    fn mark_table(&mut self) {
        let first = self.table_offset >> self.cluster_bits;
        self.metadata.extend(first..first + ((self.table.len() as u64 * 8) >> self.cluster_bits));
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Notes that a cluster holds a table.
    pub fn protect(&mut self, cluster: u64) {
        self.metadata.insert(cluster);
    }

    /// Whether a cluster holds a table.
    pub fn is_metadata(&self, cluster: u64) -> bool {
        self.metadata.contains(&cluster)
    }

    fn value(&self, bytes: &[u8], index: u64) -> u64 {
        let index = index as usize;
        match self.order {
            0..=2 => {
                let per_byte = 8 >> self.order;
                let shift = (index % per_byte) << self.order;
                u64::from(bytes[index / per_byte] >> shift) & self.most
            }
            order => {
                let width = 1 << (order - 3);
                bytes[index * width..][..width].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
        }
    }

    fn set_value(order: u32, most: u64, bytes: &mut [u8], index: u64, value: u64) {
        let index = index as usize;
        match order {
            0..=2 => {
                let per_byte = 8 >> order;
                let shift = (index % per_byte) << order;
                let byte = &mut bytes[index / per_byte];
                *byte = *byte & !((most as u8) << shift) | (value as u8) << shift;
            }
            order => {
                let width = 1 << (order - 3);
                bytes[index * width..][..width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
            }
        }
    }

    /// The block that counts a cluster, if there is one: its offset.
    fn block_of(&self, cluster: u64) -> std::io::Result<Option<u64>> {
        let Some(entry) = self.table.get((cluster / self.block_entries) as usize) else { return Ok(None) };
        let offset = entry & OFFSET;
        if !offset.is_multiple_of(self.cluster()) || offset >= LONGEST {
            return Err(corrupt(format!("a refcount block is said to be at {offset:#x}")));
        }
        Ok((offset != 0).then_some(offset))
    }

    fn load(&mut self, host: &HostFile, offset: u64) -> std::io::Result<&mut Block> {
        self.clock += 1;
        if !self.blocks.contains_key(&offset) {
            if self.blocks.len() as u64 >= (KEPT >> self.cluster_bits).clamp(8, MOST_KEPT) + self.dirty_blocks as u64 {
                let oldest = self.blocks.iter().filter(|(_, block)| !block.dirty).min_by_key(|(_, block)| block.used);
                let oldest = oldest.map(|(offset, _)| *offset);
                oldest.and_then(|offset| self.blocks.remove(&offset));
            }
            let mut bytes = vec![0; self.cluster() as usize];
            host.read_padded(offset, &mut bytes)?;
            self.blocks.insert(offset, Block { bytes, dirty: false, used: 0 });
        }
        let clock = self.clock;
        let block = self.blocks.get_mut(&offset).ok_or_else(|| corrupt("a refcount block is gone"))?;
        block.used = clock;
        Ok(block)
    }

    /// A cluster's refcount.
    pub fn get(&mut self, host: &HostFile, cluster: u64) -> std::io::Result<u64> {
        let Some(offset) = self.block_of(cluster)? else { return Ok(0) };
        self.load(host, offset)?;
        Ok(self.blocks.get(&offset).map_or(0, |block| self.value(&block.bytes, cluster % self.block_entries)))
    }

    fn set(&mut self, host: &HostFile, cluster: u64, value: u64) -> std::io::Result<()> {
        let (order, most, index) = (self.order, self.most, cluster % self.block_entries);
        let offset = self.block_of(cluster)?.ok_or_else(|| corrupt("a cluster in use has no refcount"))?;
        let block = self.load(host, offset)?;
        Self::set_value(order, most, &mut block.bytes, index, value);
        if !std::mem::replace(&mut block.dirty, true) {
            self.dirty_blocks += 1;
        }
        Ok(())
    }

    /// Counts one reference more. Whether there was room for it.
    pub fn increase(&mut self, host: &HostFile, cluster: u64) -> std::io::Result<bool> {
        let now = self.get(host, cluster)?;
        if now >= self.most {
            return Ok(false);
        }
        self.set(host, cluster, now + 1)?;
        Ok(true)
    }

    /// Counts one reference less. Whether the cluster is free now.
    pub fn decrease(&mut self, host: &HostFile, cluster: u64) -> std::io::Result<bool> {
        match self.get(host, cluster)? {
            // What was not counted can't be given back; a check finds it.
            0 => Ok(false),
            1 => {
                self.set(host, cluster, 0)?;
                self.metadata.remove(&cluster);
                self.hint = self.hint.min(cluster);
                Ok(true)
            }
            now => {
                self.set(host, cluster, now - 1)?;
                Ok(false)
            }
        }
    }

    /// Takes up to `most` free clusters in a row, with a refcount of one each: the first, and how many.
    pub fn allocate(&mut self, host: &HostFile, most: u64) -> std::io::Result<(u64, u64)> {
        let first = self.next_free(host, self.hint)?;
        let mut count = 1;
        self.set(host, first, 1)?;
        while count < most && self.is_free(host, first + count)? {
            self.set(host, first + count, 1)?;
            count += 1;
        }
        self.hint = first + count;
        Ok((first, count))
    }

    /// Takes exactly `count` clusters in a row.
    pub fn allocate_row(&mut self, host: &HostFile, count: u64) -> std::io::Result<u64> {
        let mut first = self.next_free(host, self.hint)?;
        let mut have = 1;
        while have < count {
            if self.next_free(host, first + have)? == first + have {
                have += 1;
            } else {
                first = self.next_free(host, first + have)?;
                have = 1;
            }
        }
        for cluster in first..first + count {
            self.set(host, cluster, 1)?;
        }
        Ok(first)
    }

    /// Whether a cluster is free and its block is there.
    fn is_free(&mut self, host: &HostFile, cluster: u64) -> std::io::Result<bool> {
        Ok(self.block_of(cluster)?.is_some() && self.get(host, cluster)? == 0 && !self.metadata.contains(&cluster))
    }

    fn next_free(&mut self, host: &HostFile, from: u64) -> std::io::Result<u64> {
        let mut cluster = from;
        loop {
            if cluster >= LONGEST >> self.cluster_bits {
                return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the image can't grow any more"));
            }
            let index = (cluster / self.block_entries) as usize;
            if index >= self.table.len() {
                self.grow_table(host)?;
            }
            if self.block_of(cluster)?.is_none() {
                let own = index as u64 * self.block_entries;
                let mut bytes = vec![0; self.cluster() as usize];
                Self::set_value(self.order, self.most, &mut bytes, 0, 1);
                let offset = own << self.cluster_bits;
                if self.metadata.contains(&own) {
                    return Err(corrupt("a table lies where no cluster is in use; `lodge disk check` says more"));
                }
                self.blocks.insert(offset, Block { bytes, dirty: true, used: self.clock });
                self.dirty_blocks += 1;
                self.metadata.insert(own);
                self.table[index] = offset;
                self.dirty_parts.insert(index / 64);
            }
            if self.is_free(host, cluster)? {
                return Ok(cluster);
            }
            cluster += 1;
        }
    }

    /// Puts a table twice as large behind all that the old one counts, at once and on disk: that is rare.
    fn grow_table(&mut self, host: &HostFile) -> std::io::Result<()> {
        let old_clusters = (self.table.len() as u64 * 8) >> self.cluster_bits;
        let clusters = (old_clusters * 2).max(1);
        if clusters << self.cluster_bits > 8 << 20 {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the image can't grow any more"));
        }
        // What the old table knows has to be on disk before the new one takes over.
        let dirty = self.take_dirty();
        let written = self.write(host, &dirty).and_then(|()| host.sync());
        if written.is_err() {
            self.put_back(&dirty);
        }
        written?;
        let first = self.table.len() as u64 * self.block_entries;
        let mut table = self.table.clone();
        table.resize((clusters << self.cluster_bits) as usize / 8, 0);
        // New blocks: as many as count the table and themselves. They come first, then the table.
        let mut blocks = 1;
        while blocks * self.block_entries < blocks + clusters {
            blocks += 1;
        }
        for n in 0..blocks {
            let mut bytes = vec![0; self.cluster() as usize];
            for index in 0..self.block_entries {
                if n * self.block_entries + index < blocks + clusters {
                    Self::set_value(self.order, self.most, &mut bytes, index, 1);
                }
            }
            let offset = (first + n) << self.cluster_bits;
            host.write(offset, &bytes)?;
            self.metadata.insert(first + n);
            table[self.table.len() + n as usize] = offset;
        }
        let offset = (first + blocks) << self.cluster_bits;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        host.write(offset, &bytes)?;
        host.sync()?;
        let mut field = offset.to_be_bytes().to_vec();
        field.extend((clusters as u32).to_be_bytes());
        host.write(super::header::place::REFTABLE, &field)?;
        host.sync()?;
        let old = self.table_offset >> self.cluster_bits;
        self.table = table;
        self.table_offset = offset;
        self.mark_table();
        for cluster in old..old + old_clusters {
            self.decrease(host, cluster)?;
        }
        Ok(())
    }

    /// Bytes of blocks that wait to be written.
    pub fn waiting(&self) -> u64 {
        (self.dirty_blocks as u64) << self.cluster_bits
    }

    /// What has to be written; it counts as written from here on.
    pub fn take_dirty(&mut self) -> DirtyRefcounts {
        let mut dirty =
            DirtyRefcounts { parts: self.dirty_parts.iter().copied().collect(), ..DirtyRefcounts::default() };
        for (offset, block) in self.blocks.iter_mut().filter(|(_, block)| block.dirty) {
            block.dirty = false;
            dirty.blocks.push((*offset, block.bytes.clone()));
        }
        dirty.blocks.sort_unstable_by_key(|(offset, _)| *offset);
        for part in std::mem::take(&mut self.dirty_parts) {
            let entries = &self.table[part * 64..(part * 64 + 64).min(self.table.len())];
            let bytes = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            dirty.table.push((self.table_offset + part as u64 * 512, bytes));
        }
        self.dirty_blocks = 0;
        dirty
    }

    /// Says that writing failed.
    pub fn put_back(&mut self, dirty: &DirtyRefcounts) {
        self.dirty_parts.extend(&dirty.parts);
        for (offset, bytes) in &dirty.blocks {
            // A clean block may have been dropped meanwhile; what is in memory is newer.
            let clock = self.clock;
            let block =
                self.blocks.entry(*offset).or_insert_with(|| Block { bytes: bytes.clone(), dirty: false, used: clock });
            if !std::mem::replace(&mut block.dirty, true) {
                self.dirty_blocks += 1;
            }
        }
    }

    /// Writes blocks, then the table.
    pub fn write(&self, host: &HostFile, dirty: &DirtyRefcounts) -> std::io::Result<()> {
        write_refcounts(host, dirty)
    }
}

/// Writes blocks, and the parts of the table once these are on stable storage.
pub(super) fn write_refcounts(host: &HostFile, dirty: &DirtyRefcounts) -> std::io::Result<()> {
    for (offset, bytes) in &dirty.blocks {
        host.write(*offset, bytes)?;
    }
    if !dirty.table.is_empty() {
        host.sync()?;
        for (offset, bytes) in &dirty.table {
            host.write(*offset, bytes)?;
        }
    }
    Ok(())
}
