//! Guest RAM as the translator reaches it: host pointers.
//!
//! [`Ram`] is built once from [`GuestMemory`] and answers [`Ram::host`] for a guest physical address. The page walk of
//! `lodge_x86::paging` goes through it.
//!
//! **Writers and translators** of one page may be two vCPUs. Who is about to write without a further look says so first
//! ([`WRITABLE`], [`BESIDE`]) and then looks whether the page is watched; who translates watches first, and then looks
//! whether anyone may be writing ([`Ram::has_writers`]). One of the two sees the other. A translator that does stops all
//! other vCPUs, which lets what they were doing end, and has the page written by none from then on
//! ([`Ram::take_writers`]); marks of writers go away in no other way.
#![expect(unsafe_code, reason = "guest RAM is shared with other vCPUs and devices; access is by pointer")]
// UNSAFETY: reads and writes of mapped guest RAM through raw pointers; bounds are checked against the regions. One vector
// of bytes becomes one of atomics.

use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::alias::Alias;
use crate::walk::View;
use lodge_engine_api::{GuestMemory, NOWHERE, Reach, WriteTracker};
use lodge_x86::paging::PhysicalMemory;
use vm_memory::{Address, FileOffset, GuestMemoryBackend, GuestMemoryRegion};

/// Bytes of a small page.
pub const PAGE: u64 = 4096;

/// Mark of a page: some TLB may let it be written.
pub const WRITABLE: u8 = 1;
/// Mark of a page: a part of it is watched.
pub const WATCHED: u8 = 2;
/// Mark of a page: a vCPU may be about to write beside its watched parts.
pub const BESIDE: u8 = 4;
/// Mark of a page: what is written goes to devices.
pub const READ_ONLY: u8 = 8;
/// Mark of a page: accesses reach devices, not the memory.
pub const HIDDEN: u8 = 16;

/// Marks of pages that no TLB may let be written.
pub const REFUSING: u8 = WATCHED | READ_ONLY | HIDDEN;

/// The bit of addresses that [`Ram::line_20`] is about.
pub const LINE_20: u64 = 1 << 20;

struct Region {
    /// Where it begins, or [`NOWHERE`]. Changed only while no vCPU runs.
    start: Arc<AtomicU64>,
    length: u64,
    host: *mut u8,
    file: Option<FileOffset>,
    tracker: WriteTracker,
    /// A byte a page: [`WRITABLE`], [`WATCHED`], [`BESIDE`], [`READ_ONLY`], [`HIDDEN`].
    pages: Vec<AtomicU8>,
}

/// That many marks, all clear. They take memory only where they are touched: most of a large guest's never are.
fn marks(count: usize) -> Vec<AtomicU8> {
    let mut zeros = std::mem::ManuallyDrop::new(vec![0u8; count]);
    // SAFETY: the parts of a vector whose elements have the same size, alignment and valid values.
    unsafe { Vec::from_raw_parts(zeros.as_mut_ptr().cast(), zeros.len(), zeros.capacity()) }
}

impl Region {
    fn mark(&self, offset: u64) -> &AtomicU8 {
        &self.pages[(offset / PAGE) as usize]
    }

    fn has_mark(&self, offset: u64, mark: u8) -> bool {
        self.mark(offset).load(Ordering::Relaxed) & mark != 0
    }

    fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }
}

/// All RAM of a guest.
pub struct Ram {
    /// Address line 20 passes.
    line_20: AtomicBool,
    regions: Vec<Region>,
    /// Where the regions' host addresses are of, if not of `_memory`.
    _aliases: Vec<Option<Alias>>,
    /// Keeps the mappings alive.
    _memory: GuestMemory,
}

// SAFETY: the pointers are to a shared mapping that any thread may access; all accesses are atomic or of data whose
// races are the guest's own.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Takes the regions of `memory`. Each must be page-aligned.
    pub fn new(memory: GuestMemory) -> Self {
        let files: Option<Vec<_>> = memory
            .iter()
            .map(|region| Some((region.start_addr().raw_value(), region.len() as usize, region.file_offset()?.clone())))
            .collect();
        let aliases = files.and_then(|files| Alias::of_all(&files)).unwrap_or_default();
        let regions = memory
            .iter()
            .enumerate()
            .map(|(n, region)| Region {
                start: Arc::new(AtomicU64::new(region.start_addr().raw_value())),
                length: region.len() & !(PAGE - 1),
                host: aliases.get(n).and_then(Option::as_ref).map_or(region.as_ptr(), Alias::host),
                file: region.file_offset().cloned(),
                tracker: region.bitmap_tracker(),
                pages: marks(region.len().div_ceil(PAGE) as usize),
            })
            .collect();
        Self { line_20: AtomicBool::new(true), regions, _aliases: aliases, _memory: memory }
    }

    fn region(&self, gpa: u64) -> Option<(&Region, u64)> {
        self.regions.iter().find_map(|region| {
            let offset = gpa.wrapping_sub(region.start());
            (offset < region.length).then_some((region, offset))
        })
    }

    /// The region that holds `gpa`, and where in it, unless accesses there reach devices.
    fn seen(&self, gpa: u64) -> Option<(&Region, u64)> {
        self.region(gpa).filter(|(region, offset)| !region.has_mark(*offset, HIDDEN))
    }

    /// Whether what is written at `gpa` reaches memory.
    pub fn takes_writes(&self, gpa: u64) -> bool {
        self.region(gpa).is_some_and(|(region, offset)| !region.has_mark(offset, HIDDEN | READ_ONLY))
    }

    /// Changes what accesses to a range reach. No vCPU runs, and none may rely on what it knew.
    pub fn set_reach(&self, range: Range<u64>, reach: Reach) {
        let marks = match reach {
            Reach::Memory => 0,
            Reach::ReadOnly => READ_ONLY,
            Reach::Devices => HIDDEN,
        };
        for gpa in range.step_by(PAGE as usize) {
            if let Some((region, offset)) = self.region(gpa) {
                let mark = region.mark(offset);
                mark.fetch_and(!(READ_ONLY | HIDDEN | WRITABLE | BESIDE), Ordering::SeqCst);
                mark.fetch_or(marks, Ordering::SeqCst);
            }
        }
    }

    /// Lets address line 20 pass, or not. No vCPU runs, and none may rely on what it knew.
    pub fn set_line_20(&self, open: bool) {
        self.line_20.store(open, Ordering::SeqCst);
    }

    /// Whether address line 20 passes. What a walk leads to has the bit cleared otherwise.
    pub fn line_20(&self) -> bool {
        self.line_20.load(Ordering::Relaxed)
    }

    /// Moves a region; where it was before, and where it is now. No vCPU runs, and none may rely on what it knew.
    pub fn move_region(&self, number: usize, to: Option<u64>) -> [Range<u64>; 2] {
        let Some(region) = self.regions.get(number) else { return [0..0, 0..0] };
        let range = |start: u64| if start == NOWHERE { 0..0 } else { start..start + region.length };
        let to = to.unwrap_or(NOWHERE);
        [range(region.start.swap(to, Ordering::SeqCst)), range(to)]
    }

    /// Where the byte at `gpa` lies on the host; the rest of its page follows. `None`: not RAM.
    pub fn host(&self, gpa: u64) -> Option<*mut u8> {
        let (region, offset) = self.seen(gpa)?;
        // SAFETY: offset is below the region's length.
        Some(unsafe { region.host.add(offset as usize) })
    }

    /// The file that holds the byte at `gpa`, and where in it.
    pub fn file(&self, gpa: u64) -> Option<(RawFd, u64)> {
        let (region, offset) = self.seen(gpa)?;
        let file = region.file.as_ref()?;
        Some((file.file().as_raw_fd(), file.start() + offset))
    }

    /// The watched chunks of the page at `gpa`.
    pub fn watched(&self, gpa: u64) -> u64 {
        self.region(gpa).map_or(0, |(region, offset)| region.tracker.watched(offset as usize))
    }

    /// Watches more chunks of the page at `gpa`.
    pub fn watch(&self, gpa: u64, chunks: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            region.tracker.watch(offset as usize, chunks);
            region.mark(offset).fetch_or(WATCHED, Ordering::SeqCst);
        }
    }

    /// Watches exactly these chunks of the page at `gpa`.
    pub fn rewatch(&self, gpa: u64, chunks: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            region.tracker.rewatch(offset as usize, chunks);
            if chunks == 0 {
                region.mark(offset).fetch_and(!WATCHED, Ordering::SeqCst);
            } else {
                region.mark(offset).fetch_or(WATCHED, Ordering::SeqCst);
            }
        }
    }

    /// Whether a TLB may let the page at `gpa` be written, which is noted: it takes writes, and no part of it is watched.
    /// Emitted code does the same ([`crate::walk`]).
    pub fn admit_writes(&self, gpa: u64) -> bool {
        let Some((region, offset)) = self.region(gpa) else { return true };
        let mark = region.mark(offset);
        let before = mark.load(Ordering::SeqCst);
        if before & REFUSING == 0 && before & WRITABLE == 0 {
            return mark.fetch_or(WRITABLE, Ordering::SeqCst) & REFUSING == 0;
        }
        before & REFUSING == 0
    }

    /// Notes that a vCPU is about to look at the watched chunks of the page at `gpa` and then to write beside them.
    pub fn announce_write(&self, gpa: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            let mark = region.mark(offset);
            if mark.load(Ordering::SeqCst) & (WRITABLE | BESIDE) == 0 {
                mark.fetch_or(BESIDE, Ordering::SeqCst);
            }
        }
    }

    /// Whether any vCPU may be about to write to the page at `gpa` without a further look.
    pub fn has_writers(&self, gpa: u64) -> bool {
        self.region(gpa)
            .is_some_and(|(region, offset)| region.mark(offset).load(Ordering::SeqCst) & (WRITABLE | BESIDE) != 0)
    }

    /// Whether a TLB may let the page at `gpa` be written; from now on none does, and no vCPU is about to write to it.
    pub fn take_writers(&self, gpa: u64) -> bool {
        self.region(gpa).is_some_and(|(region, offset)| {
            region.mark(offset).fetch_and(!(WRITABLE | BESIDE), Ordering::SeqCst) & WRITABLE != 0
        })
    }

    /// The two largest pieces, as emitted code wants them, of those that have a place: they stay there.
    pub fn views(&self) -> [View; 2] {
        let mut views: Vec<View> = self
            .regions
            .iter()
            .filter(|region| region.start() < 1 << crate::partition::PHYSICAL_BITS)
            .map(|region| View {
                start: region.start(),
                length: region.length,
                host: region.host as u64,
                pages: region.pages.as_ptr() as u64,
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.length));
        [0, 1].map(|n| views.get(n).copied().unwrap_or_default())
    }

    /// Has `listener` called with guest physical address and length of each device write over watched chunks.
    pub fn listen(&self, listener: impl Fn(u64, u64) + Send + Sync + Clone + 'static) {
        for region in &self.regions {
            let (start, listener) = (Arc::clone(&region.start), listener.clone());
            region.tracker.listen(move |offset, length| {
                listener(start.load(Ordering::SeqCst).wrapping_add(offset as u64), length as u64);
            });
        }
    }

    /// Copies out; whether all of it was RAM. The range must not leave a page.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> bool {
        match self.host(gpa) {
            // SAFETY: the range lies in one page of RAM.
            Some(host) => unsafe {
                std::ptr::copy_nonoverlapping(host, data.as_mut_ptr(), data.len());
                true
            },
            None => false,
        }
    }

    /// Copies in; whether all of it was RAM that takes writes. The range must not leave a page.
    pub fn write(&self, gpa: u64, data: &[u8]) -> bool {
        match self.host(gpa).filter(|_| self.takes_writes(gpa)) {
            // SAFETY: the range lies in one page of RAM.
            Some(host) => unsafe {
                std::ptr::copy_nonoverlapping(data.as_ptr(), host, data.len());
                true
            },
            None => false,
        }
    }
}

impl PhysicalMemory for Ram {
    fn read_u64(&self, address: u64) -> Option<u64> {
        let host = self.host(address)?.cast::<u64>();
        // SAFETY: aligned, within a page of RAM.
        Some(unsafe { AtomicU64::from_ptr(host) }.load(Ordering::Acquire))
    }

    fn read_u32(&self, address: u64) -> Option<u32> {
        let host = self.host(address)?.cast::<u32>();
        // SAFETY: aligned, within a page of RAM.
        Some(unsafe { AtomicU32::from_ptr(host) }.load(Ordering::Acquire))
    }

    fn compare_exchange_u64(&self, address: u64, old: u64, new: u64) -> Option<bool> {
        let host = self.host(address)?.cast::<u64>();
        if !self.takes_writes(address) {
            // Tables in read-only memory stay as they are.
            return Some(true);
        }
        // SAFETY: aligned, within a page of RAM.
        let cell = unsafe { AtomicU64::from_ptr(host) };
        Some(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    fn compare_exchange_u32(&self, address: u64, old: u32, new: u32) -> Option<bool> {
        let host = self.host(address)?.cast::<u32>();
        if !self.takes_writes(address) {
            return Some(true);
        }
        // SAFETY: aligned, within a page of RAM.
        let cell = unsafe { AtomicU32::from_ptr(host) };
        Some(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }
}

/// Reaches a region's tracker and its host address.
trait Tracked {
    fn bitmap_tracker(&self) -> WriteTracker;
    fn as_ptr(&self) -> *mut u8;
}

impl Tracked for vm_memory::GuestRegionMmap<WriteTracker> {
    fn bitmap_tracker(&self) -> WriteTracker {
        self.get_mmap().bitmap().clone()
    }

    fn as_ptr(&self) -> *mut u8 {
        self.get_mmap().as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn writers_and_translators_of_a_page_see_each_other() {
        let ram = Ram::new(GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 10)]).unwrap());
        let page = PAGE;
        ram.announce_write(page);
        assert!(ram.has_writers(page), "it may come to be watched before the write");
        assert!(!ram.take_writers(page));
        assert!(ram.admit_writes(page));
        assert!(ram.has_writers(page) && !ram.has_writers(0) && !ram.has_writers(2 * PAGE));
        assert!(ram.take_writers(page), "some TLB may have it");
        assert!(!ram.has_writers(page));
        ram.watch(page, 1);
        assert!(!ram.admit_writes(page));
        assert!(!ram.has_writers(page), "who was refused does not write");
        ram.announce_write(page);
        assert!(ram.has_writers(page));
        assert!(!ram.take_writers(page), "no TLB has it");
        assert!(!ram.has_writers(page));
        ram.rewatch(page, 0);
        assert!(ram.admit_writes(page));
    }
}
