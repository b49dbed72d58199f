//! L2 tables in memory.
//!
//! Readers share them by reference count; a writer changes a copy if a reader or a flush holds the table. Tables that
//! were changed stay until a flush has written them, and the others go when there are too many.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::host::HostFile;

/// Bytes of clean tables that are kept: enough for 256 GiB in clusters of 64 KiB.
const KEPT: u64 = 32 << 20;
const FEWEST: u64 = 16;
/// The oldest is searched for.
const MOST: u64 = 1024;

/// The entries of a table.
pub(super) type Table = Arc<Vec<u64>>;

#[derive(Debug)]
struct Kept {
    table: Table,
    dirty: bool,
    /// A flush is writing it: what is on disk is older.
    busy: bool,
    used: u64,
}

#[derive(Debug, Default)]
struct Inner {
    tables: HashMap<u64, Kept>,
    dirty: usize,
    clock: u64,
}

/// The L2 tables, by offset.
#[derive(Debug)]
pub(super) struct Tables {
    cluster_bits: u32,
    inner: Mutex<Inner>,
}

impl Tables {
    pub fn new(cluster_bits: u32) -> Self {
        Self { cluster_bits, inner: Mutex::default() }
    }

    /// The table at an offset.
    pub fn get(&self, host: &HostFile, offset: u64) -> std::io::Result<Table> {
        {
            let mut inner = self.inner.lock();
            inner.clock += 1;
            let clock = inner.clock;
            if let Some(kept) = inner.tables.get_mut(&offset) {
                kept.used = clock;
                return Ok(kept.table.clone());
            }
        }
        let mut bytes = vec![0; 1 << self.cluster_bits];
        host.read_padded(offset, &mut bytes)?;
        let entries = bytes.chunks_exact(8).map(|entry| u64::from_be_bytes(entry.try_into().unwrap_or_default()));
        let table: Table = Arc::new(entries.collect());
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if inner.tables.len() as u64 >= (KEPT >> self.cluster_bits).clamp(FEWEST, MOST) + inner.dirty as u64 {
            let clean = inner.tables.iter().filter(|(_, kept)| !kept.dirty && !kept.busy);
            let oldest = clean.min_by_key(|(_, kept)| kept.used).map(|(offset, _)| *offset);
            oldest.and_then(|offset| inner.tables.remove(&offset));
        }
        // Another thread may have been faster.
        let used = inner.clock;
        let kept = inner.tables.entry(offset).or_insert(Kept { table, dirty: false, busy: false, used });
        Ok(kept.table.clone())
    }

    /// Puts a new table in, to be written.
    pub fn insert(&self, offset: u64, table: Table) {
        let mut inner = self.inner.lock();
        let used = inner.clock;
        let old = inner.tables.insert(offset, Kept { table, dirty: true, busy: false, used });
        if !old.is_some_and(|old| old.dirty) {
            inner.dirty += 1;
        }
    }

    /// Forgets the table of a cluster that is none any more.
    pub fn forget(&self, offset: u64) {
        let mut inner = self.inner.lock();
        if inner.tables.remove(&offset).is_some_and(|old| old.dirty) {
            inner.dirty -= 1;
        }
    }

    /// Changes a table. Nobody else may change it at the same time.
    pub fn change(&self, host: &HostFile, offset: u64, how: impl FnOnce(&mut [u64])) -> std::io::Result<()> {
        drop(self.get(host, offset)?);
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(kept) = inner.tables.get_mut(&offset) {
            how(Arc::make_mut(&mut kept.table).as_mut_slice());
            if !std::mem::replace(&mut kept.dirty, true) {
                inner.dirty += 1;
            }
            Ok(())
        } else {
            Err(std::io::Error::other("a table was dropped while it was changed"))
        }
    }

    /// Bytes of tables that wait to be written.
    pub fn waiting(&self) -> u64 {
        (self.inner.lock().dirty as u64) << self.cluster_bits
    }

    /// What has to be written. [`Tables::written`] has to follow.
    pub fn take_dirty(&self) -> Vec<(u64, Table)> {
        let mut inner = self.inner.lock();
        inner.dirty = 0;
        let mut dirty = Vec::new();
        for (offset, kept) in inner.tables.iter_mut().filter(|(_, kept)| kept.dirty) {
            kept.dirty = false;
            kept.busy = true;
            dirty.push((*offset, kept.table.clone()));
        }
        dirty.sort_unstable_by_key(|(offset, _)| *offset);
        dirty
    }

    /// Says whether what was taken is on disk now.
    pub fn written(&self, taken: &[(u64, Table)], done: bool) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for (offset, _) in taken {
            if let Some(kept) = inner.tables.get_mut(offset) {
                kept.busy = false;
                if !done && !std::mem::replace(&mut kept.dirty, true) {
                    inner.dirty += 1;
                }
            }
        }
    }
}
