//! A disk for tests of what devices do with vast ranges.

use std::io::{IoSlice, IoSliceMut, Result};
use std::time::Duration;

use parking_lot::Mutex;

use super::Disk;

/// A disk of 16 TiB without content that notes what is discarded or filled with zeroes.
#[derive(Debug, Default)]
pub struct VastDisk {
    /// Ranges that were discarded or filled: first byte and bytes.
    pub discarded: Mutex<Vec<(u64, u64)>>,
    /// How long that takes each time.
    pub delay: Duration,
}

impl Disk for VastDisk {
    fn size(&self) -> u64 {
        1 << 44
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, _: &mut [IoSliceMut<'_>]) -> Result<()> {
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.discarded.lock().push((offset, length));
        std::thread::sleep(self.delay);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> Result<()> {
        self.discard(offset, length)
    }
}
