//! Guest RAM as the translator reaches it: host pointers.
//!
//! [`Ram`] is built once from [`GuestMemory`] and answers [`Ram::host`] for a guest physical address. The page walk of
//! `lodge_x86::paging` goes through it.
#![expect(unsafe_code, reason = "guest RAM is shared with other vCPUs and devices; access is by pointer")]
// UNSAFETY: reads and writes of mapped guest RAM through raw pointers; bounds are checked against the regions.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::alias::Alias;
use lodge_engine_api::{GuestMemory, WriteTracker};
use lodge_x86::paging::PhysicalMemory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// Bytes of a small page.
pub const PAGE: u64 = 4096;

struct Region {
    start: u64,
    length: u64,
    host: *mut u8,
    tracker: WriteTracker,
    /// One bit a page: some TLB may let it be written.
    writable: Vec<AtomicU64>,
}

/// All RAM of a guest.
pub struct Ram {
    regions: Vec<Region>,
    /// Where the regions' host addresses are of, if not of `_memory`.
    _aliases: Vec<Alias>,
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
                start: region.start_addr().raw_value(),
                length: region.len() & !(PAGE - 1),
                host: aliases.get(n).map_or(region.as_ptr(), Alias::host),
                tracker: region.bitmap_tracker(),
                writable: (0..region.len().div_ceil(PAGE * 64)).map(|_| AtomicU64::new(0)).collect(),
            })
            .collect();
        Self { regions, _aliases: aliases, _memory: memory }
    }

    fn region(&self, gpa: u64) -> Option<(&Region, u64)> {
        self.regions.iter().find_map(|region| {
            let offset = gpa.wrapping_sub(region.start);
            (offset < region.length).then_some((region, offset))
        })
    }

    /// Where the byte at `gpa` lies on the host; the rest of its page follows. `None`: not RAM.
    pub fn host(&self, gpa: u64) -> Option<*mut u8> {
        let (region, offset) = self.region(gpa)?;
        // SAFETY: offset is below the region's length.
        Some(unsafe { region.host.add(offset as usize) })
    }

    /// The watched chunks of the page at `gpa`.
    pub fn watched(&self, gpa: u64) -> u64 {
        self.region(gpa).map_or(0, |(region, offset)| region.tracker.watched(offset as usize))
    }

    /// Watches more chunks of the page at `gpa`.
    pub fn watch(&self, gpa: u64, chunks: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            region.tracker.watch(offset as usize, chunks);
        }
    }

    /// Watches exactly these chunks of the page at `gpa`.
    pub fn rewatch(&self, gpa: u64, chunks: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            region.tracker.rewatch(offset as usize, chunks);
        }
    }

    /// Notes that a TLB is about to let the page at `gpa` be written.
    pub fn note_writable(&self, gpa: u64) {
        if let Some((region, offset)) = self.region(gpa) {
            let page = (offset / PAGE) as usize;
            let (word, bit) = (&region.writable[page / 64], 1 << (page % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    /// Whether a TLB may let the page at `gpa` be written; from now on none does.
    pub fn take_written(&self, gpa: u64) -> bool {
        self.region(gpa).is_some_and(|(region, offset)| {
            let page = (offset / PAGE) as usize;
            let bit = 1 << (page % 64);
            region.writable[page / 64].fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    /// Has `listener` called with guest physical address and length of each device write over watched chunks.
    pub fn listen(&self, listener: impl Fn(u64, u64) + Send + Sync + Clone + 'static) {
        for region in &self.regions {
            let (start, listener) = (region.start, listener.clone());
            region.tracker.listen(move |offset, length| listener(start + offset as u64, length as u64));
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

    /// Copies in; whether all of it was RAM. The range must not leave a page.
    pub fn write(&self, gpa: u64, data: &[u8]) -> bool {
        match self.host(gpa) {
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
        // SAFETY: aligned, within a page of RAM.
        let cell = unsafe { AtomicU64::from_ptr(host) };
        Some(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    fn compare_exchange_u32(&self, address: u64, old: u32, new: u32) -> Option<bool> {
        let host = self.host(address)?.cast::<u32>();
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
