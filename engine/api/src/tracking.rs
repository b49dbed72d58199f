//! Guest RAM that tells the engine of writes which did not go through a vCPU.
//!
//! An engine that keeps translations of guest code has to learn when a device writes over that code. Every write
//! through `vm-memory` reports its range to the region's bitmap; [`WriteTracker`] is that bitmap. The engine marks
//! the 64-byte chunks that it has read code from, and is called when a marked one is written. Unmarked memory costs a
//! device two loads and a fence.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Pages that share one lazily made leaf.
const LEAF: usize = 32;

type Leaf = Box<[AtomicU64; LEAF]>;
type Listener = Box<dyn Fn(usize, usize) + Send + Sync>;

struct Inner {
    leaves: Vec<OnceLock<Leaf>>,
    listener: OnceLock<Listener>,
}

/// Watches one memory region. Clones share their state.
#[derive(Clone)]
pub struct WriteTracker(Arc<Inner>);

impl WriteTracker {
    /// Sets what is called, with offset and length in the region, when a device has written over watched bytes.
    /// Only the first caller is heard; whether this was it.
    pub fn listen(&self, listener: impl Fn(usize, usize) + Send + Sync + 'static) -> bool {
        self.0.listener.set(Box::new(listener)).is_ok()
    }

    /// The watched chunks of the page at `offset`: bit n stands for bytes 64n to 64n+63.
    pub fn watched(&self, offset: usize) -> u64 {
        self.cell(offset).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Watches `chunks` of the page at `offset` besides those already watched.
    pub fn watch(&self, offset: usize, chunks: u64) {
        let page = offset / PAGE;
        if let Some(slot) = self.0.leaves.get(page / LEAF) {
            let leaf = slot.get_or_init(|| Box::new([const { AtomicU64::new(0) }; LEAF]));
            leaf[page % LEAF].fetch_or(chunks, Ordering::SeqCst);
        }
    }

    /// Watches exactly `chunks` of the page at `offset`.
    pub fn rewatch(&self, offset: usize, chunks: u64) {
        if let Some(cell) = self.cell(offset) {
            cell.store(chunks, Ordering::SeqCst);
        }
    }

    /// Whether a byte of the range is watched.
    pub fn is_watched(&self, offset: usize, length: usize) -> bool {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let page_end = (at / PAGE + 1) * PAGE;
            if self.watched(at) & chunk_mask(at % PAGE, end.min(page_end) - at) != 0 {
                return true;
            }
            at = page_end;
        }
        false
    }

    fn cell(&self, offset: usize) -> Option<&AtomicU64> {
        let page = offset / PAGE;
        self.0.leaves.get(page / LEAF)?.get().map(|leaf| &leaf[page % LEAF])
    }
}

/// The chunks that `length` bytes at `offset` in a page touch. The range must not leave the page.
pub fn chunk_mask(offset: usize, length: usize) -> u64 {
    if length == 0 {
        return 0;
    }
    let first = offset / 64;
    let last = (offset + length - 1) / 64;
    (u64::MAX >> (63 - (last - first).min(63))) << first
}

impl std::fmt::Debug for WriteTracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTracker").field("pages", &(self.0.leaves.len() * LEAF)).finish_non_exhaustive()
    }
}

impl Default for WriteTracker {
    fn default() -> Self {
        Self::with_len(0)
    }
}

impl NewBitmap for WriteTracker {
    fn with_len(len: usize) -> Self {
        let leaves = (0..len.div_ceil(PAGE * LEAF)).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner { leaves, listener: OnceLock::new() }))
    }
}

impl<'a> WithBitmapSlice<'a> for WriteTracker {
    type S = TrackerSlice;
}

impl Bitmap for WriteTracker {
    fn mark_dirty(&self, offset: usize, len: usize) {
        // The engine watches before it reads: the write must be there before this looks.
        fence(Ordering::SeqCst);
        if self.is_watched(offset, len)
            && let Some(listener) = self.0.listener.get()
        {
            listener(offset, len);
        }
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> TrackerSlice {
        TrackerSlice { tracker: self.clone(), offset }
    }
}

/// A part of a [`WriteTracker`] that begins at some offset.
#[derive(Clone, Debug)]
pub struct TrackerSlice {
    tracker: WriteTracker,
    offset: usize,
}

impl BitmapSlice for TrackerSlice {}

impl<'a> WithBitmapSlice<'a> for TrackerSlice {
    type S = Self;
}

impl Bitmap for TrackerSlice {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.tracker.mark_dirty(self.offset.saturating_add(offset), len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { tracker: self.tracker.clone(), offset: self.offset.saturating_add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn masks_cover_the_chunks_touched() {
        assert_eq!(chunk_mask(0, 1), 1);
        assert_eq!(chunk_mask(63, 2), 3);
        assert_eq!(chunk_mask(0, 4096), u64::MAX);
        assert_eq!(chunk_mask(4095, 1), 1 << 63);
        assert_eq!(chunk_mask(100, 0), 0);
    }

    #[test]
    fn a_device_write_over_watched_bytes_is_reported_and_no_other() {
        let memory = crate::GuestMemory::from_ranges(&[(GuestAddress(0x10000), 0x40_0000)]).unwrap();
        let region = memory.iter().next().unwrap();
        let tracker = region.bitmap().tracker.clone();
        static HITS: AtomicUsize = AtomicUsize::new(0);
        assert!(tracker.listen(|offset, len| {
            assert!(offset <= 0x20_1040 && offset + len > 0x20_1000);
            HITS.fetch_add(1, Ordering::SeqCst);
        }));
        tracker.watch(0x20_1000, 1);
        let write = |at: u64, data: &[u8]| memory.write_slice(data, GuestAddress(0x10000 + at)).unwrap();
        write(0x20_1040, &[1]);
        write(0x20_0fff, &[1]);
        assert_eq!(HITS.load(Ordering::SeqCst), 0);
        write(0x20_0fff, &[1, 2]);
        write(0x20_103f, &[1]);
        assert_eq!(HITS.load(Ordering::SeqCst), 2);
        tracker.rewatch(0x20_1000, 0);
        write(0x20_1000, &[0; 64]);
        assert_eq!(HITS.load(Ordering::SeqCst), 2);
    }
}
