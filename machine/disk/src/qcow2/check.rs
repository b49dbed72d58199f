//! Contradictions in a qcow2 image: found, and mended.
//!
//! [`examine`] counts every reference to every cluster ([`Census`]) and compares with the refcounts in the file.
//! [`repair`] first takes away entries that lead nowhere, then writes refcounts anew behind the end of the file, and
//! puts the header over to them in one write: whenever it is interrupted, the image is as bad as before or better.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{COPIED, Mapping, OFFSET};
use super::header::{CORRUPT, DIRTY, Header, Snapshots, place};
use crate::check::Report;
use crate::host::HostFile;
use crate::{DiskError, Format};

/// Clusters counted together.
const GROUP: u64 = 64;

/// How often clusters are referred to.
#[derive(Default)]
struct Census {
    groups: HashMap<u64, Box<[u32; GROUP as usize]>>,
}

impl Census {
    fn count(&mut self, cluster: u64, times: u32) {
        let group = self.groups.entry(cluster / GROUP).or_insert_with(|| Box::new([0; GROUP as usize]));
        let count = &mut group[(cluster % GROUP) as usize];
        *count = count.saturating_add(times);
    }

    fn get(&self, cluster: u64) -> u64 {
        self.groups.get(&(cluster / GROUP)).map_or(0, |group| u64::from(group[(cluster % GROUP) as usize]))
    }

    /// Clusters that are referred to, in order.
    fn referred(&self) -> Vec<u64> {
        let mut groups: Vec<_> = self.groups.keys().copied().collect();
        groups.sort_unstable();
        let all = groups.into_iter().flat_map(|group| group * GROUP..(group + 1) * GROUP);
        all.filter(|cluster| self.get(*cluster) > 0).collect()
    }
}

/// A block of refcounts that are one for the first `count` clusters, in `2^order` bits each.
pub(super) fn ones(count: u64, order: u32) -> Vec<u8> {
    pack(&vec![1; count as usize], order)
}

fn pack(values: &[u64], order: u32) -> Vec<u8> {
    match order {
        0..=2 => {
            let per_byte = 8 >> order;
            let byte = |chunk: &[u64]| {
                chunk.iter().enumerate().fold(0, |byte, (index, value)| byte | (*value as u8) << (index << order))
            };
            values.chunks(per_byte).map(byte).collect()
        }
        _ => values.iter().flat_map(|value| value.to_be_bytes()[8 - (1 << (order - 3))..].to_vec()).collect(),
    }
}

fn unpack(bytes: &[u8], order: u32) -> Vec<u64> {
    match order {
        0..=2 => {
            let (width, per_byte) = (1 << order, 8 >> order);
            let mask = (1_u64 << width) - 1;
            bytes.iter().flat_map(|byte| (0..per_byte).map(move |n| u64::from(*byte) >> (n * width) & mask)).collect()
        }
        _ => {
            let chunks = bytes.chunks_exact(1 << (order - 3));
            chunks.map(|chunk| chunk.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))).collect()
        }
    }
}

/// What goes over an image's tables.
struct Walk<'a> {
    host: &'a HostFile,
    header: &'a Header,
    /// Bytes of the file, to whole clusters.
    length: u64,
    census: Census,
    report: Report,
    /// Clusters of tables, which no data may lie in.
    tables: HashSet<u64>,
    /// L2 tables of the active disk, for the flags in them.
    active: Vec<(usize, u64)>,
    /// Whether entries that lead nowhere are taken away.
    mend: bool,
    /// A snapshot can't be followed: without it its clusters would be given away.
    has_lost_snapshot: bool,
    /// The bitmaps can't be followed: they are of no use.
    has_lost_bitmaps: bool,
}

impl<'a> Walk<'a> {
    fn new(host: &'a HostFile, header: &'a Header, mend: bool) -> std::io::Result<Self> {
        let length = host.length()?.next_multiple_of(header.cluster());
        Ok(Self {
            host,
            header,
            length,
            census: Census::default(),
            report: Report::default(),
            tables: HashSet::new(),
            active: Vec::new(),
            mend,
            has_lost_snapshot: false,
            has_lost_bitmaps: false,
        })
    }

    fn bits(&self) -> u32 {
        self.header.cluster_bits
    }

    fn read_entries(&self, offset: u64, count: u64) -> std::io::Result<Vec<u64>> {
        let mut bytes = vec![0; (count * 8) as usize];
        self.host.read_padded(offset, &mut bytes)?;
        Ok(bytes.chunks_exact(8).map(|entry| u64::from_be_bytes(entry.try_into().unwrap_or_default())).collect())
    }

    /// Whether a range is in the file and begins with a cluster.
    fn is_sound(&self, offset: u64, length: u64) -> bool {
        offset.is_multiple_of(self.header.cluster())
            && offset.checked_add(length).is_some_and(|end| end <= self.length)
            && offset != 0
    }

    fn count_table(&mut self, offset: u64, length: u64, times: u32) {
        for cluster in offset >> self.bits()..(offset + length).div_ceil(self.header.cluster()) {
            self.census.count(cluster, times);
            self.tables.insert(cluster);
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        self.count_table(0, self.header.cluster(), 1);
        let l1_bytes = u64::from(self.header.l1_entries) * 8;
        self.count_table(self.header.l1_offset, l1_bytes, 1);
        if let Some((offset, length)) = self.header.bitmaps {
            self.bitmaps(offset, length)?;
        }
        // What snapshots share is looked at once and counted for each of them.
        let mut firsts = BTreeMap::from([((self.header.l1_offset, self.header.l1_entries), 1)]);
        if self.header.has_snapshots() {
            match self.header.snapshots(self.host) {
                Ok(snapshots) => self.snapshots(&snapshots, &mut firsts),
                Err(error) => {
                    self.has_lost_snapshot = true;
                    self.report.error(|| format!("the table of snapshots can't be read: {error}"));
                }
            }
        }
        // All tables first: what is found to overlap with one is data, whatever the order.
        let mut seconds: BTreeMap<u64, (u32, bool)> = BTreeMap::new();
        for ((offset, entries), times) in firsts {
            let is_active = offset == self.header.l1_offset;
            if !is_active {
                self.count_table(offset, u64::from(entries) * 8, times);
            }
            for (index, table) in self.l2_tables(offset, entries, times)? {
                if is_active {
                    self.active.push((index, table));
                }
                let second = seconds.entry(table).or_default();
                *second = (second.0.saturating_add(times), second.1 || is_active);
            }
        }
        for (table, (times, is_active)) in seconds {
            let entries = self.read_entries(table, self.header.l2_entries())?;
            self.l2_table(table, &entries, times, is_active)?;
        }
        Ok(())
    }

    /// Counts the tables of snapshots.
    fn snapshots(&mut self, snapshots: &Snapshots, firsts: &mut BTreeMap<(u64, u32), u32>) {
        self.count_table(self.header.snapshots_offset, snapshots.end - self.header.snapshots_offset, 1);
        // Tables that are not the same don't overlap, so they fit into the file together.
        let mut room = self.length;
        for (offset, entries) in &snapshots.tables {
            let bytes = u64::from(*entries) * 8;
            let is_new = !firsts.contains_key(&(*offset, *entries));
            let is_sound =
                bytes <= 32 << 20 && (bytes == 0 || self.is_sound(*offset, bytes)) && *offset != self.header.l1_offset;
            if !is_sound || is_new && bytes > room {
                self.has_lost_snapshot = true;
                self.report.error(|| format!("a snapshot's L1 table is said to be at {offset:#x}"));
                continue;
            }
            if is_new {
                room -= bytes;
            }
            *firsts.entry((*offset, *entries)).or_default() += 1;
        }
    }

    /// The L2 tables of an L1 table, with their index.
    fn l2_tables(&mut self, offset: u64, entries: u32, times: u32) -> std::io::Result<Vec<(usize, u64)>> {
        let cluster = self.header.cluster();
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for (index, entry) in self.read_entries(offset, u64::from(entries))?.into_iter().enumerate() {
            let table = entry & OFFSET;
            if table == 0 {
                continue;
            }
            let twice = !seen.insert(table);
            if twice || !self.is_sound(table, cluster) || self.is_fixed(table) {
                self.report.error(|| format!("entry {index} of the L1 table at {offset:#x} leads to {table:#x}"));
                if self.mend {
                    self.host.write(offset + index as u64 * 8, &[0; 8])?;
                }
                continue;
            }
            self.count_table(table, cluster, times);
            found.push((index, table));
        }
        Ok(found)
    }

    /// Whether an offset is in the header or the active L1 table.
    fn is_fixed(&self, offset: u64) -> bool {
        let l1 = self.header.l1_offset..self.header.l1_offset + u64::from(self.header.l1_entries) * 8;
        offset < self.header.cluster() || l1.contains(&offset)
    }

    fn l2_table(&mut self, offset: u64, entries: &[u64], times: u32, is_active: bool) -> std::io::Result<()> {
        let cluster = self.header.cluster();
        for (index, entry) in entries.iter().enumerate() {
            let sound = match Mapping::of(*entry, self.header.version, self.bits()) {
                Mapping::Below | Mapping::Zero { host: None, .. } => continue,
                Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. } => {
                    let sound = self.is_sound(host, cluster) && !self.tables.contains(&(host >> self.bits()));
                    if sound {
                        self.census.count(host >> self.bits(), times);
                    }
                    sound
                }
                Mapping::Compressed { host, length } => {
                    let span = host >> self.bits()..=(host + length - 1) >> self.bits();
                    let sound = host >= cluster
                        && host.checked_add(length).is_some_and(|end| end <= self.length)
                        && span.clone().all(|place| !self.tables.contains(&place));
                    if sound {
                        span.for_each(|place| self.census.count(place, times));
                    }
                    sound
                }
            };
            if is_active && sound {
                self.report.clusters += 1;
            }
            if !sound {
                self.report.error(|| format!("entry {index} of the L2 table at {offset:#x} is {entry:#x}"));
                if self.mend {
                    self.host.write(offset + index as u64 * 8, &[0; 8])?;
                }
            }
        }
        Ok(())
    }

    /// Counts the clusters of dirty bitmaps ("Bitmaps"): a directory, tables, data.
    fn bitmaps(&mut self, offset: u64, length: u64) -> std::io::Result<()> {
        const MOST: u64 = 16 << 20;
        if length > MOST || !self.is_sound(offset, length) {
            self.has_lost_bitmaps = true;
            self.report.error(|| format!("the directory of bitmaps is said to be at {offset:#x}"));
            return Ok(());
        }
        self.count_table(offset, length, 1);
        let mut directory = vec![0; length as usize];
        self.host.read_padded(offset, &mut directory)?;
        let mut at = 0;
        while at + 24 <= directory.len() {
            let table = crate::pieces::at::be64(&directory, at);
            let entries = u64::from(crate::pieces::at::be32(&directory, at + 8));
            let name = usize::from(crate::pieces::at::be16(&directory, at + 18));
            let extra = crate::pieces::at::be32(&directory, at + 20) as usize;
            if entries * 8 > MOST || !self.is_sound(table, entries * 8) {
                self.has_lost_bitmaps = true;
                self.report.error(|| format!("a table of a bitmap is said to be at {table:#x}"));
                return Ok(());
            }
            self.count_table(table, entries * 8, 1);
            for entry in self.read_entries(table, entries)? {
                let place = entry & OFFSET;
                if place != 0 && self.is_sound(place, self.header.cluster()) {
                    self.count_table(place, self.header.cluster(), 1);
                } else if place != 0 {
                    self.has_lost_bitmaps = true;
                    self.report.error(|| format!("a bitmap is said to be at {place:#x}"));
                }
            }
            at = (at + 24).saturating_add(extra).saturating_add(name).next_multiple_of(8);
        }
        Ok(())
    }

    /// The refcount table, without entries that lead nowhere.
    fn blocks(&mut self) -> std::io::Result<HashMap<u64, u64>> {
        let cluster = self.header.cluster();
        let length = u64::from(self.header.reftable_clusters) * cluster;
        self.count_table(self.header.reftable_offset, length, 1);
        let mut found = HashMap::new();
        let mut seen = HashSet::new();
        for (index, entry) in self.read_entries(self.header.reftable_offset, length / 8)?.into_iter().enumerate() {
            let block = entry & !0x1ff;
            if block == 0 {
                continue;
            }
            if self.is_sound(block, cluster) && seen.insert(block) {
                self.count_table(block, cluster, 1);
                found.insert(index as u64, block);
            } else {
                self.report.error(|| format!("refcount block {index} is said to be at {block:#x}"));
            }
        }
        Ok(found)
    }

    /// Compares refcounts with references.
    fn compare(&mut self, blocks: &HashMap<u64, u64>) -> std::io::Result<()> {
        let per_block = self.header.block_entries();
        let most = self.header.most_references();
        let mut numbers: Vec<_> = blocks.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(offset) = blocks.get(&number) else { continue };
            let mut bytes = vec![0; self.header.cluster() as usize];
            self.host.read_padded(*offset, &mut bytes)?;
            for (index, counted) in unpack(&bytes, self.header.refcount_order).into_iter().enumerate() {
                let cluster = number * per_block + index as u64;
                let real = self.census.get(cluster).min(most);
                if counted > real && real == 0 {
                    self.report.leak(|| format!("cluster {cluster} has a refcount of {counted} and is not used"));
                } else if counted > real {
                    self.report.leak(|| format!("cluster {cluster} has a refcount of {counted} and {real} references"));
                } else if counted < real {
                    self.report
                        .error(|| format!("cluster {cluster} has a refcount of {counted} and {real} references"));
                }
            }
        }
        for cluster in self.census.referred() {
            if !blocks.contains_key(&(cluster / per_block)) {
                self.report.error(|| format!("cluster {cluster} is used and has no refcount"));
            }
        }
        Ok(())
    }

    /// Flags that say "written in place" where a cluster is shared, or the other way round: offsets and right entries.
    /// Wrong the other way round costs a copy and is no error of the data, but counts as one for QEMU.
    fn flags(&mut self) -> std::io::Result<Vec<(u64, u64)>> {
        let bits = self.bits();
        let mut wrong = Vec::new();
        let entries = self.read_entries(self.header.l1_offset, u64::from(self.header.l1_entries))?;
        let mut look = |walk: &mut Self, place: u64, entry: u64, cluster: u64| {
            let is_copied = entry & COPIED != 0;
            if is_copied != (walk.census.get(cluster) == 1) {
                walk.report.error(|| format!("the entry at {place:#x} has the wrong flag for cluster {cluster}"));
                wrong.push((place, entry ^ COPIED));
            }
        };
        for (index, table) in std::mem::take(&mut self.active) {
            let place = self.header.l1_offset + index as u64 * 8;
            if let Some(entry) = entries.get(index) {
                look(self, place, *entry, table >> bits);
            }
            for (index, entry) in self.read_entries(table, self.header.l2_entries())?.into_iter().enumerate() {
                if let Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. } =
                    Mapping::of(entry, self.header.version, bits)
                    && self.is_sound(host, self.header.cluster())
                {
                    look(self, table + index as u64 * 8, entry, host >> bits);
                }
            }
        }
        Ok(wrong)
    }
}

/// Compares an image's refcounts and flags with its references.
pub(crate) fn examine(host: &HostFile, header: &Header) -> std::io::Result<Report> {
    Ok(walk_through(host, header)?.report)
}

fn walk_through<'a>(host: &'a HostFile, header: &'a Header) -> std::io::Result<Walk<'a>> {
    let mut walk = Walk::new(host, header, false)?;
    let blocks = walk.blocks()?;
    walk.run()?;
    walk.compare(&blocks)?;
    walk.flags()?;
    if header.incompatible & CORRUPT != 0 {
        walk.report.error(|| "it is marked as corrupt".into());
    }
    walk.report.end = walk.census.referred().last().map_or(0, |last| (last + 1) << header.cluster_bits);
    Ok(walk)
}

/// Makes refcounts and flags right, and takes away what leads nowhere. What was found before that.
pub(crate) fn repair(host: &HostFile) -> Result<Report, DiskError> {
    let fault = DiskError::io(host.path(), "repaired");
    let mut header = Header::read(host)?;
    header.refuse_unknown(host.path())?;
    let walk = walk_through(host, &header).map_err(&fault)?;
    let (lost_snapshot, lost_bitmaps) = (walk.has_lost_snapshot, walk.has_lost_bitmaps);
    let counts = walk.census.groups.values().flat_map(|group| group.iter());
    let is_too_much = counts.copied().any(|count| u64::from(count) > header.most_references());
    let mut found = walk.report;
    let marked = header.incompatible & (CORRUPT | DIRTY) != 0;
    if found.is_clean() && !marked {
        return Ok(found);
    }
    if lost_snapshot {
        return Err(DiskError::Refused(format!(
            "{} can't be repaired without losing its snapshots: {}; save the disk as it is now with `lodge disk \
             convert`",
            host.path().display(),
            found.messages.first().map_or("their tables can't be read", |first| first)
        )));
    }
    if is_too_much {
        let problem = "a cluster has more references than its refcounts can hold, which no repair changes";
        return Err(DiskError::Refused(format!(
            "{} can't be repaired: {problem}; save the disk as it is now with `lodge disk convert`",
            host.path().display()
        )));
    }
    if lost_bitmaps {
        header.bitmaps = None;
        host.write(place::AUTOCLEAR, &[0; 8]).map_err(&fault)?;
    }
    mend(host, &header).map_err(&fault)?.map_err(|problem| DiskError::damaged(host.path(), Format::Qcow2, problem))?;
    found.repaired = true;
    Ok(found)
}

/// Writes refcounts anew. The outer error is the host's, the inner one says why that is not possible.
fn mend(host: &HostFile, header: &Header) -> std::io::Result<Result<(), &'static str>> {
    let bits = header.cluster_bits;
    // Entries that overlap the old refcounts are fine: those are given up.
    let mut walk = Walk::new(host, header, true)?;
    walk.run()?;
    host.sync()?;
    // Flags that say too much go first, those that say too little come last, so that none is ever wrong for writing.
    let wrong = walk.flags()?;
    for (place, entry) in wrong.iter().filter(|(_, entry)| entry & COPIED == 0) {
        host.write(*place, &entry.to_be_bytes())?;
    }
    let start = walk.length >> bits;
    let per_block = header.block_entries();
    let mut numbers: Vec<u64> = walk.census.referred().into_iter().map(|cluster| cluster / per_block).collect();
    numbers.dedup();
    // The new blocks and table count themselves.
    let (mut blocks, mut table) = (numbers.clone(), 1_u64);
    loop {
        let end = start + blocks.len() as u64 + table;
        let mut all = numbers.clone();
        all.extend(start / per_block..=(end - 1) / per_block);
        all.sort_unstable();
        all.dedup();
        let entries = all.last().map_or(1, |last| last + 1);
        let needed = (entries * 8).div_ceil(header.cluster());
        let settled = (all.len(), needed) == (blocks.len(), table);
        (blocks, table) = (all, needed.max(table));
        if table << bits > 8 << 20 {
            return Ok(Err("it is too long for its refcounts; convert it to a new image"));
        }
        if settled {
            break;
        }
    }
    let first_block = start + table;
    for cluster in start..first_block + blocks.len() as u64 {
        walk.census.count(cluster, 1);
    }
    let mut pointers = vec![0_u8; (table << bits) as usize];
    for (n, number) in blocks.iter().enumerate() {
        let offset = (first_block + n as u64) << bits;
        let values: Vec<u64> =
            (number * per_block..(number + 1) * per_block).map(|cluster| walk.census.get(cluster)).collect();
        host.write(offset, &pack(&values, header.refcount_order))?;
        pointers[*number as usize * 8..][..8].copy_from_slice(&offset.to_be_bytes());
    }
    host.write(start << bits, &pointers)?;
    host.sync()?;
    let mut field = (start << bits).to_be_bytes().to_vec();
    field.extend((table as u32).to_be_bytes());
    host.write(place::REFTABLE, &field)?;
    host.sync()?;
    for (place, entry) in wrong.iter().filter(|(_, entry)| entry & COPIED != 0) {
        host.write(*place, &entry.to_be_bytes())?;
    }
    if header.version >= 3 {
        host.sync()?;
        host.write(place::INCOMPATIBLE, &(header.incompatible & !(CORRUPT | DIRTY)).to_be_bytes())?;
    }
    host.sync()?;
    Ok(Ok(()))
}
