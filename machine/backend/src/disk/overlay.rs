//! A decorator that keeps writes to itself and forgets them at the end.
//!
//! [`Overlay`] writes to an unlinked temporary file, in clusters of 64 KiB; a bit per cluster says which ones it holds. The
//! disk below is only read.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::raw::{read_all, total, write_all};
use super::{Disk, DiskError, check_range};

const CLUSTER: u64 = 64 << 10;

/// What a virtual machine writes for as long as it runs.
pub struct Overlay {
    below: Arc<dyn Disk>,
    file: File,
    /// A bit per cluster that the overlay holds. Readers share it, filling a cluster excludes them.
    held: RwLock<Vec<u64>>,
}

impl Overlay {
    /// An overlay with nothing in it; its file lies in `directory` without a name.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn new(below: Arc<dyn Disk>, directory: &Path) -> Result<Self, DiskError> {
        let fault = |source| DiskError::Temporary { path: directory.to_owned(), source };
        let file = tempfile::tempfile_in(directory).map_err(fault)?;
        file.set_len(below.size()).map_err(fault)?;
        let clusters = below.size().div_ceil(CLUSTER);
        Ok(Self { below, file, held: RwLock::new(vec![0; clusters.div_ceil(64) as usize]) })
    }

    fn holds(held: &[u64], cluster: u64) -> bool {
        held[(cluster / 64) as usize] & 1 << (cluster % 64) != 0
    }

    /// Copies a cluster from below, so that part of it can be written.
    fn fill(&self, held: &mut [u64], cluster: u64) -> std::io::Result<()> {
        let offset = cluster * CLUSTER;
        let mut data = vec![0; CLUSTER.min(self.size() - offset) as usize];
        self.below.read_at(offset, &mut [IoSliceMut::new(&mut data)])?;
        write_all(&self.file, offset, &[IoSlice::new(&data)])?;
        held[(cluster / 64) as usize] |= 1 << (cluster % 64);
        Ok(())
    }

    /// Makes the overlay hold every cluster that a write touches.
    fn prepare(&self, offset: u64, length: u64) -> std::io::Result<()> {
        check_range(offset, length, self.size())?;
        if length == 0 {
            return Ok(());
        }
        let clusters = offset / CLUSTER..=(offset + length - 1) / CLUSTER;
        {
            let held = self.held.read();
            if clusters.clone().all(|cluster| Self::holds(&held, cluster)) {
                return Ok(());
            }
        }
        let mut held = self.held.write();
        for cluster in clusters {
            if Self::holds(&held, cluster) {
                continue;
            }
            let whole = offset <= cluster * CLUSTER && offset + length >= (cluster + 1) * CLUSTER;
            if whole {
                // A write that fails half-way leaves zeroes below it: fill first unless nothing is there to lose.
                held[(cluster / 64) as usize] |= 1 << (cluster % 64);
            } else {
                self.fill(&mut held, cluster)?;
            }
        }
        Ok(())
    }
}

impl Disk for Overlay {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> std::io::Result<()> {
        check_range(offset, total(buffers.iter().map(|buffer| buffer.len())), self.size())?;
        let held = self.held.read();
        let mut at = offset;
        for buffer in buffers {
            let mut rest: &mut [u8] = buffer;
            while !rest.is_empty() {
                // A run of clusters that are all here or all below.
                let here = Self::holds(&held, at / CLUSTER);
                let mut end = (at / CLUSTER + 1) * CLUSTER;
                while end < at + rest.len() as u64 && Self::holds(&held, end / CLUSTER) == here {
                    end += CLUSTER;
                }
                let (run, after) = rest.split_at_mut((end - at).min(rest.len() as u64) as usize);
                let length = run.len() as u64;
                if here {
                    read_all(&self.file, at, &mut [IoSliceMut::new(run)])?;
                } else {
                    self.below.read_at(at, &mut [IoSliceMut::new(run)])?;
                }
                at += length;
                rest = after;
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> std::io::Result<()> {
        self.prepare(offset, total(buffers.iter().map(|buffer| buffer.len())))?;
        write_all(&self.file, offset, buffers)
    }

    fn flush(&self) -> std::io::Result<()> {
        // Nothing here outlives the process.
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> std::io::Result<()> {
        check_range(offset, length, self.size())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _may_unmap: bool) -> std::io::Result<()> {
        self.prepare(offset, length)?;
        let zeroes = vec![0; CLUSTER as usize];
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(CLUSTER) as usize;
            write_all(&self.file, offset + done, &[IoSlice::new(&zeroes[..piece])])?;
            done += piece as u64;
        }
        Ok(())
    }
}
