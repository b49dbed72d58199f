//! Writing to a qcow2 image: in place, to new clusters, zeroes, and compressed.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use super::entry::{COPIED, Mapping, ZERO};
use super::{MOST_FREES, MOST_WAITING, Qcow2, Run, State, compress};
use crate::error::corrupt;
use crate::pieces::{Sink, Source, read_only_error, total};

/// Most bytes that one allocation covers, while which nobody else gets on.
const MOST_AT_ONCE: u64 = 4 << 20;

/// What clusters are replaced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    /// Whatever needs least space; what the image below has may stay.
    Anything,
    /// Zeroes without space.
    Zeroes,
    /// Zeroes, keeping the space.
    ReservedZeroes,
    /// The image below, or zeroes where there is none.
    Nothing,
}

impl Qcow2 {
    /// Writes a range that is within the tables.
    pub(super) fn write_range(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        let mut source = Source::new(buffers);
        let end = offset + total(buffers.iter().map(|buffer| buffer.len()));
        let mut at = offset;
        while at < end {
            {
                let state = self.state.read();
                if let (Run::Data { host, copied: true }, here) = self.run(&state, at, end)? {
                    self.write_in_place(&state, host, here, &mut source)?;
                    at += here;
                    continue;
                }
            }
            let mut state = self.state.write();
            at += self.write_new(&mut state, at, end, &mut source)?;
            drop(state);
            self.relieve()?;
        }
        Ok(())
    }

    /// Flushes if too much waits for it.
    fn relieve(&self) -> std::io::Result<()> {
        let state = self.state.read();
        let waiting = self.tables.waiting() + state.refcounts.as_ref().map_or(0, super::Refcounts::waiting);
        let much = waiting > MOST_WAITING || state.frees.len() > MOST_FREES;
        drop(state);
        if much { self.write_out() } else { Ok(()) }
    }

    fn write_in_place(&self, state: &State, host: u64, length: u64, source: &mut Source<'_>) -> std::io::Result<()> {
        let bits = self.header.cluster_bits;
        if let Some(refcounts) = &state.refcounts
            && (host >> bits..=(host + length - 1) >> bits).any(|cluster| refcounts.is_metadata(cluster))
        {
            return Err(corrupt("data of the disk lies in one of the image's tables; `lodge disk check` says more"));
        }
        self.host.writev(host, &source.take(length as usize))
    }

    /// The L2 table of an L1 entry, which nobody else refers to: its offset.
    pub(super) fn own_table(&self, state: &mut State, index: usize) -> std::io::Result<u64> {
        let entry = *state.l1.get(index).ok_or_else(|| corrupt("beyond the L1 table"))?;
        let old = self.l2_offset(entry)?;
        if let Some(offset) = old
            && entry & COPIED != 0
        {
            return Ok(offset);
        }
        let bits = self.header.cluster_bits;
        let table = match old {
            Some(offset) => self.tables.get(&self.host, offset)?,
            None => Arc::new(vec![0; self.header.l2_entries() as usize]),
        };
        let refcounts = state.refcounts.as_mut().ok_or_else(read_only_error)?;
        let (cluster, _) = refcounts.allocate(&self.host, 1)?;
        refcounts.protect(cluster);
        self.tables.insert(cluster << bits, table);
        state.l1[index] = cluster << bits | COPIED;
        state.l1_dirty.insert(index / 64);
        state.frees.extend(old.map(|offset| offset >> bits));
        Ok(cluster << bits)
    }

    /// Notes that nothing refers to a cluster's data any more.
    fn release(&self, state: &mut State, entry: u64) -> std::io::Result<()> {
        let bits = self.header.cluster_bits;
        match self.mapping(entry)? {
            Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. } => state.frees.push(host >> bits),
            Mapping::Compressed { host, length } => state.frees.extend(host >> bits..=(host + length - 1) >> bits),
            Mapping::Below | Mapping::Zero { host: None, .. } => {}
        }
        Ok(())
    }

    /// Writes up to `end` to clusters that are not there yet, or not ours alone. Bytes written.
    fn write_new(&self, state: &mut State, at: u64, end: u64, source: &mut Source<'_>) -> std::io::Result<u64> {
        let (cluster, bits, per_table) = (self.cluster(), self.header.cluster_bits, self.header.l2_entries());
        // Another thread may have made it.
        if let (Run::Data { host, copied: true }, here) = self.run(state, at, end)? {
            self.write_in_place(state, host, here, source)?;
            return Ok(here);
        }
        let first = at >> bits;
        let index = first % per_table;
        let offset = self.own_table(state, (first / per_table) as usize)?;
        let table = self.tables.get(&self.host, offset)?;
        let last = ((end - 1) >> bits).min(first - index + per_table - 1).min(first + MOST_AT_ONCE / cluster);
        let mut wanted = 0;
        let mut reserved = None;
        for entry in &table[index as usize..=(last % per_table) as usize] {
            match self.mapping(*entry)? {
                Mapping::Data { copied: true, .. } => break,
                Mapping::Zero { host: Some(host), copied: true } => {
                    reserved = (wanted == 0).then_some(host);
                    break;
                }
                _ => wanted += 1,
            }
        }
        let (place, count) = match (reserved, &mut state.refcounts) {
            (Some(host), _) => (host >> bits, 1),
            (None, Some(refcounts)) => refcounts.allocate(&self.host, wanted.max(1))?,
            (None, None) => return Err(read_only_error()),
        };
        let written = (end - at).min(((first + count) << bits) - at);
        let done = self.fill_clusters(state, first, count, place, at, written, source);
        if done.is_err() {
            if let (None, Some(refcounts)) = (reserved, &mut state.refcounts) {
                for cluster in place..place + count {
                    refcounts.decrease(&self.host, cluster)?;
                }
            }
            return done.map(|()| 0);
        }
        for n in 0..count {
            if reserved.is_none() {
                self.release(state, table[(index + n) as usize])?;
            }
        }
        drop(table);
        self.tables.change(&self.host, offset, |entries| {
            for n in 0..count {
                entries[(index + n) as usize] = (place + n) << bits | COPIED;
            }
        })?;
        Ok(written)
    }

    /// Writes data into new clusters, and around it what was there.
    #[expect(clippy::too_many_arguments, reason = "places on both sides of one copy")]
    fn fill_clusters(
        &self,
        state: &State,
        first: u64,
        count: u64,
        place: u64,
        at: u64,
        length: u64,
        source: &mut Source<'_>,
    ) -> std::io::Result<()> {
        let bits = self.header.cluster_bits;
        let start = first << bits;
        let after = at + length;
        let end = (first + count) << bits;
        if let Some(refcounts) = &state.refcounts
            && (place..place + count).any(|cluster| refcounts.is_metadata(cluster))
        {
            return Err(corrupt("data of the disk lies in one of the image's tables; `lodge disk check` says more"));
        }
        let (mut head, mut tail) = (vec![0; (at - start) as usize], vec![0; (end - after) as usize]);
        if !head.is_empty() {
            self.read_range(state, start, at - start, &mut Sink::new(&mut [IoSliceMut::new(&mut head)]))?;
        }
        if !tail.is_empty() {
            self.read_range(state, after, end - after, &mut Sink::new(&mut [IoSliceMut::new(&mut tail)]))?;
        }
        // Taken from a copy: after an error the caller gives up on the whole range.
        let mut buffers = vec![IoSlice::new(&head)];
        buffers.extend(source.take(length as usize));
        buffers.push(IoSlice::new(&tail));
        self.host.writev(place << bits, &buffers)
    }

    /// Fills a range with zeroes.
    pub(super) fn zero_range(&self, offset: u64, length: u64, may_unmap: bool) -> std::io::Result<()> {
        let (end, cluster, bits) = (offset + length, self.cluster(), self.header.cluster_bits);
        if self.header.version < 3 && self.backing.is_some() {
            return self.write_zero_bytes(offset, end);
        }
        let first = offset.div_ceil(cluster);
        let last = if end == self.header.size { end.div_ceil(cluster) } else { end >> bits };
        if first >= last {
            return self.write_zero_bytes(offset, end);
        }
        self.write_zero_bytes(offset, first << bits)?;
        let keep = !may_unmap && self.header.version >= 3;
        self.replace(first..last, if keep { With::ReservedZeroes } else { With::Zeroes })?;
        if last << bits < end { self.write_zero_bytes(last << bits, end) } else { Ok(()) }
    }

    /// Writes zeroes as data, but where zeroes are anyway.
    fn write_zero_bytes(&self, mut at: u64, end: u64) -> std::io::Result<()> {
        let zeroes = vec![0; self.cluster().min(end.saturating_sub(at)) as usize];
        while at < end {
            let (run, here) = self.run(&self.state.read(), at, end)?;
            let is_zero = matches!(run, Run::Zero { .. }) || run == Run::Below && self.backing.is_none();
            let piece = if is_zero { here } else { here.min(zeroes.len() as u64) };
            if !is_zero {
                self.write_range(at, &[IoSlice::new(&zeroes[..piece as usize])])?;
            }
            at += piece;
        }
        Ok(())
    }

    /// Replaces whole clusters.
    pub(super) fn replace(&self, clusters: Range<u64>, with: With) -> std::io::Result<()> {
        let per_table = self.header.l2_entries();
        let mut next = clusters.start;
        while next < clusters.end {
            let last = (next - next % per_table + per_table).min(clusters.end);
            let mut state = self.state.write();
            self.replace_in_table(&mut state, next..last, with)?;
            drop(state);
            self.relieve()?;
            next = last;
        }
        Ok(())
    }

    fn replace_in_table(&self, state: &mut State, clusters: Range<u64>, with: With) -> std::io::Result<()> {
        let per_table = self.header.l2_entries();
        let l1_index = (clusters.start / per_table) as usize;
        let zero = if self.backing.is_some() && self.header.version >= 3 { ZERO } else { 0 };
        let old = match self.l2_offset(state.l1.get(l1_index).copied().unwrap_or(0))? {
            None if zero == 0 || with == With::Anything || with == With::Nothing => return Ok(()),
            None => None,
            Some(offset) => Some(self.tables.get(&self.host, offset)?),
        };
        let mut changes = Vec::new();
        for cluster in clusters {
            let index = (cluster % per_table) as usize;
            let entry = old.as_ref().map_or(0, |table| table[index]);
            let new = match (with, self.mapping(entry)?) {
                (With::Nothing, _) => 0,
                (With::Anything, Mapping::Below) | (_, Mapping::Zero { host: None, .. }) => entry,
                (With::ReservedZeroes, Mapping::Data { host, copied: true }) => host | COPIED | ZERO,
                (With::ReservedZeroes, Mapping::Zero { .. }) => entry,
                _ => zero,
            };
            if new != entry {
                changes.push((index, entry, new));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let offset = self.own_table(state, l1_index)?;
        for (_, entry, new) in &changes {
            // Space that is kept is still referred to.
            if new & !(COPIED | ZERO) == 0 {
                self.release(state, *entry)?;
            }
        }
        self.tables
            .change(&self.host, offset, |entries| changes.iter().for_each(|(index, _, new)| entries[*index] = *new))
    }

    /// Writes a whole cluster compressed, or as it is if that is no larger.
    pub fn write_compressed(&self, at: u64, data: &[u8]) -> std::io::Result<()> {
        self.writable(at, data.len() as u64)?;
        let (cluster, bits, per_table) = (self.cluster(), self.header.cluster_bits, self.header.l2_entries());
        let mut whole = data.to_vec();
        whole.resize(cluster as usize, 0);
        let packed = if at.is_multiple_of(cluster) && data.len() as u64 <= cluster {
            compress::pack(self.header.compression, &whole)?
        } else {
            None
        };
        let Some(packed) = packed else { return self.write_range(at, &[IoSlice::new(data)]) };
        let mut state = self.state.write();
        let index = ((at >> bits) % per_table) as usize;
        let offset = self.own_table(&mut state, ((at >> bits) / per_table) as usize)?;
        let place = self.place_packed(&mut state, packed.len() as u64)?;
        self.host.write(place, &packed)?;
        let old = self.tables.get(&self.host, offset)?[index];
        self.release(&mut state, old)?;
        let entry = Mapping::compressed_entry(place, packed.len() as u64, bits);
        self.tables.change(&self.host, offset, |entries| entries[index] = entry)?;
        drop(state);
        self.relieve()
    }

    /// Finds room for compressed data, behind the one before if that goes.
    fn place_packed(&self, state: &mut State, length: u64) -> std::io::Result<u64> {
        let (cluster, bits) = (self.cluster(), self.header.cluster_bits);
        let packed = state.packed;
        let refcounts = state.refcounts.as_mut().ok_or_else(read_only_error)?;
        let mut place = None;
        if let Some(next) = packed.filter(|next| next % cluster != 0) {
            let current = next >> bits;
            let fits = next % cluster + length <= cluster;
            if fits && refcounts.increase(&self.host, current)? {
                place = Some(next);
            } else if !fits {
                let (new, _) = refcounts.allocate(&self.host, 1)?;
                let joined = new == current + 1 && refcounts.increase(&self.host, current)?;
                place = Some(if joined { next } else { new << bits });
            }
        }
        let place = match place {
            Some(place) => place,
            None => refcounts.allocate(&self.host, 1)?.0 << bits,
        };
        state.packed = Some(place + length);
        Ok(place)
    }
}
