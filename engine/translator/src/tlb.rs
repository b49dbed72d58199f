//! The soft TLB and the jump cache, which emitted code probes inline, and the regions that hold one of each per guest
//! address space.
//!
//! A TLB entry holds, for each of three *contexts* (supervisor under SMAP, user, supervisor without SMAP), the
//! negated page address that a read and a write must match. `address + tag` is then the offset in the page, if and
//! only if the entry hits, so that one unsigned comparison checks the tag and the end of the page. An all-zero entry
//! matches page 0 only, which no entry but the first and the last can be asked for; their empty form is different.
//!
//! A jump-cache entry leads from a linear address to a block's code. Its slot depends on the mode, so that a slot hit
//! by address is of the right mode.
//!
//! Flushing costs as much as was filled: each region logs the slots that it uses.
#![expect(unsafe_code, reason = "entries lie behind the GS base, shared with emitted code")]
// UNSAFETY: all pointers are into regions that this file maps; slots are masked to their table.

use std::io;

use rustc_hash::FxHashMap;

use lodge_x86::paging::{Access, AccessKind, PagingContext, Translation};

use crate::cpu::{Cpu, JUMP_OFFSET, REGION_STRIDE, STATE_SIZE, TLB_OFFSET};

/// Entries of the soft TLB.
pub const TLB_ENTRIES: usize = 8192;
/// Entries of the jump cache.
pub const JUMP_ENTRIES: usize = 8192;
/// Distance of the two ways of the jump cache: an entry that is displaced goes to the second.
pub const JUMP_WAY: i32 = (JUMP_ENTRIES * size_of::<JumpEntry>()) as i32;
/// A slot is the low bits of the address plus the address rotated right by this: code at the same offset in different
/// pages must not meet.
pub const JUMP_HASH: u8 = 13;
/// Address spaces kept warm.
pub const REGIONS: usize = 5;
/// Slots logged before a flush clears the whole table instead.
const LOG: usize = 2048;

/// One page in the soft TLB.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TlbEntry {
    /// Per context: negated page address for reads, for writes.
    pub tags: [[u64; 2]; 3],
    /// Where the page lies on the host.
    pub host: u64,
    /// The linear page, with [`GLOBAL`] in its low bits.
    pub page: u64,
}

/// Bit of [`TlbEntry::page`].
const GLOBAL: u64 = 1;

/// One way from a linear address to code.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct JumpEntry {
    /// The negated linear address.
    pub negated: u64,
    /// The block's entry for indirect branches.
    pub host: u64,
}

/// Offset of the tag for `context` in an entry.
pub const fn tag_offset(context: usize, write: bool) -> i32 {
    (context * 16 + if write { 8 } else { 0 }) as i32
}
/// Offset of the host address in an entry.
pub const HOST_OFFSET: i32 = 48;

/// Where an instruction fetch leads; only Rust looks here.
#[derive(Clone, Copy)]
struct FetchEntry {
    page: u64,
    translation: Translation,
}

/// Slots of the fetch TLB.
const FETCH: usize = 256;

struct Meta {
    /// The PCID that the region serves.
    pcid: Option<u64>,
    used: u64,
    ready: bool,
    tlb_log: Vec<u16>,
    jump_log: Vec<u16>,
    /// Pages that jump-cache entries were made for, with their slots.
    executed: FxHashMap<u64, Vec<u16>>,
    /// 2 MiB and 1 GiB frames in which entries of large pages were filled, hashed.
    large: Bloom,
    fetch: Box<[Option<FetchEntry>; FETCH]>,
}

/// A set of numbers that may say yes too often.
struct Bloom(Box<[u64; 64]>);

impl Bloom {
    fn new() -> Self {
        Self(Box::new([0; 64]))
    }

    fn slot(number: u64) -> (usize, u64) {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    fn insert(&mut self, number: u64) {
        let (word, bit) = Self::slot(number);
        self.0[word] |= bit;
    }

    fn contains(&self, number: u64) -> bool {
        let (word, bit) = Self::slot(number);
        self.0[word] & bit != 0
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// The regions of one vCPU.
pub struct Regions {
    base: *mut u8,
    current: usize,
    clock: u64,
    meta: Vec<Meta>,
    /// The code that a jump-cache entry which is empty leads to.
    miss: u64,
    /// Counters.
    pub counts: Counts,
}

/// Counters of one vCPU's address spaces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Changes of address space.
    pub switches: u64,
    /// Regions flushed, in whole or but for global pages.
    pub flushes: u64,
    /// Pages flushed.
    pub page_flushes: u64,
}

/// A tag that no access asked of this slot matches: zero where page 0 and accesses that reach it do not belong. Page 0
/// belongs to the first slot, and an access that begins in the last page and wraps around reaches it from the last one;
/// those are two pages off, so that an access into the neighbouring page does not match either.
const fn empty_tag(slot: usize) -> u64 {
    match slot {
        0 => 8192u64.wrapping_neg(),
        _ if slot == TLB_ENTRIES - 1 => 8192,
        _ => 0,
    }
}

impl Regions {
    /// Maps the regions; the vCPU's state is zeroed memory.
    pub fn new(miss: u64) -> io::Result<Self> {
        // SAFETY: plain system calls whose results are checked; fixed mappings replace the reservation made here.
        unsafe {
            let fd = libc::memfd_create(c"lodge-vcpu".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 || libc::ftruncate(fd, STATE_SIZE as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            let length = REGIONS * REGION_STRIDE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let base = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            for n in 0..REGIONS {
                let at = base.cast::<u8>().add(n * REGION_STRIDE).cast();
                let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                if libc::mmap(at, STATE_SIZE, protection, flags, fd, 0) == libc::MAP_FAILED {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::close(fd);
            let meta = (0..REGIONS)
                .map(|_| Meta {
                    pcid: None,
                    used: 0,
                    ready: false,
                    tlb_log: Vec::new(),
                    jump_log: Vec::new(),
                    executed: FxHashMap::default(),
                    large: Bloom::new(),
                    fetch: Box::new([None; FETCH]),
                })
                .collect();
            let mut regions = Self { base: base.cast(), current: 0, clock: 0, meta, miss, counts: Counts::default() };
            regions.prepare(0);
            regions.meta[0].pcid = Some(0);
            Ok(regions)
        }
    }

    /// The state, as seen from the current region: also the GS base.
    pub fn cpu(&self) -> *mut Cpu {
        self.region(self.current).cast()
    }

    fn region(&self, n: usize) -> *mut u8 {
        // SAFETY: n is below REGIONS.
        unsafe { self.base.add(n * REGION_STRIDE) }
    }

    #[expect(clippy::mut_from_ref, reason = "the entries lie in a mapping that only the owning thread changes")]
    fn entry(&self, n: usize, slot: usize) -> &mut TlbEntry {
        // SAFETY: the slot is masked; entries are plain data that this thread owns while it is not in emitted code.
        unsafe { &mut *self.region(n).add(TLB_OFFSET).cast::<TlbEntry>().add(slot % TLB_ENTRIES) }
    }

    #[expect(clippy::mut_from_ref, reason = "the entries lie in a mapping that only the owning thread changes")]
    fn jump(&self, n: usize, slot: usize, way: usize) -> &mut JumpEntry {
        let slot = slot % JUMP_ENTRIES + (way & 1) * JUMP_ENTRIES;
        // SAFETY: as for `entry`.
        unsafe { &mut *self.region(n).add(JUMP_OFFSET).cast::<JumpEntry>().add(slot) }
    }

    /// Brings a region into its empty state before its first use.
    fn prepare(&mut self, n: usize) {
        self.clear_entry(n, 0);
        self.clear_entry(n, TLB_ENTRIES - 1);
        for slot in 0..JUMP_ENTRIES {
            self.clear_jump(n, slot);
        }
        self.meta[n].ready = true;
    }

    fn clear_entry(&self, n: usize, slot: usize) {
        let empty = empty_tag(slot % TLB_ENTRIES);
        *self.entry(n, slot) = TlbEntry { tags: [[empty; 2]; 3], host: 0, page: 0 };
    }

    fn clear_jump(&self, n: usize, slot: usize) {
        // Address 0 may match this; it leads to where a miss does.
        for way in 0..2 {
            *self.jump(n, slot, way) = JumpEntry { negated: 0, host: self.miss };
        }
    }

    /// Puts a page into the current TLB. `writable` is false where each write has to be seen (translated code).
    pub fn fill(&mut self, linear: u64, translation: &Translation, context: &PagingContext, host: u64, writable: bool) {
        let page = linear & !4095;
        let slot = (page >> 12) as usize % TLB_ENTRIES;
        let empty = empty_tag(slot);
        let tag = |access: Access| {
            if translation.fills(context, access) { page.wrapping_neg() } else { empty }
        };
        let pair = |make: &dyn Fn(AccessKind) -> Access| {
            [tag(make(AccessKind::Read)), if writable { tag(make(AccessKind::Write)) } else { empty }]
        };
        *self.entry(self.current, slot) = TlbEntry {
            tags: [
                pair(&|kind| Access::supervisor(kind, false)),
                pair(&Access::user),
                pair(&|kind| Access::supervisor(kind, true)),
            ],
            host,
            page: page | if translation.global { GLOBAL } else { 0 },
        };
        let meta = &mut self.meta[self.current];
        if meta.tlb_log.len() < LOG {
            meta.tlb_log.push(slot as u16);
        }
        if translation.page_size > 4096 {
            meta.large.insert(page >> 21);
            meta.large.insert(page >> 30 | 1 << 60);
        }
    }

    /// Takes write permission for the host page at `host` out of all entries of all regions.
    pub fn forbid_writes(&mut self, host: u64) {
        for n in 0..REGIONS {
            let full = self.meta[n].tlb_log.len() >= LOG;
            let slots: Vec<u16> = if full { (0..TLB_ENTRIES as u16).collect() } else { self.meta[n].tlb_log.clone() };
            for slot in slots {
                let entry = self.entry(n, slot.into());
                if entry.host == host {
                    let empty = empty_tag(slot.into());
                    for tags in &mut entry.tags {
                        tags[1] = empty;
                    }
                }
            }
        }
    }

    /// Remembers where the block for `linear` is.
    /// `crosses`: its code goes on in the next page, whose mapping it therefore depends on, too.
    pub fn fill_jump(&mut self, linear: u64, salt: u32, host: u64, crosses: bool) {
        let hash = linear.wrapping_add(linear.rotate_right(JUMP_HASH.into()));
        let slot = (hash.wrapping_add(u64::from(salt)) as usize) % JUMP_ENTRIES;
        let negated = linear.wrapping_neg();
        let old = *self.jump(self.current, slot, 0);
        if old.negated != negated {
            *self.jump(self.current, slot, 1) = old;
        }
        *self.jump(self.current, slot, 0) = JumpEntry { negated, host };
        let meta = &mut self.meta[self.current];
        for page in linear >> 12..=(linear >> 12) + u64::from(crosses) {
            let slots = meta.executed.entry(page).or_default();
            if !slots.contains(&(slot as u16)) {
                slots.push(slot as u16);
            }
        }
        if meta.jump_log.len() < LOG {
            meta.jump_log.push(slot as u16);
        }
    }

    /// What a fetch from `linear` was translated to, if that is still known.
    pub fn fetch(&self, linear: u64) -> Option<Translation> {
        let page = linear >> 12;
        let entry = self.meta[self.current].fetch[page as usize % FETCH].filter(|entry| entry.page == page)?;
        let mut translation = entry.translation;
        translation.gpa |= linear & 4095;
        Some(translation)
    }

    /// Remembers a fetch's translation.
    pub fn fill_fetch(&mut self, linear: u64, translation: &Translation) {
        let page = linear >> 12;
        let mut translation = *translation;
        translation.gpa &= !4095;
        let meta = &mut self.meta[self.current];
        meta.fetch[page as usize % FETCH] = Some(FetchEntry { page, translation });
        if translation.page_size > 4096 {
            meta.large.insert(linear >> 21);
            meta.large.insert(linear >> 30 | 1 << 60);
        }
    }

    /// Forgets every way to code, in all regions: the code is gone.
    pub fn forget_code(&mut self) {
        for n in 0..REGIONS {
            self.flush_jumps(n);
        }
    }

    fn flush_jumps(&mut self, n: usize) {
        if !self.meta[n].ready {
            return;
        }
        let log = std::mem::take(&mut self.meta[n].jump_log);
        if log.len() >= LOG {
            for slot in 0..JUMP_ENTRIES {
                self.clear_jump(n, slot);
            }
        } else {
            for &slot in &log {
                self.clear_jump(n, slot.into());
            }
        }
        let meta = &mut self.meta[n];
        meta.jump_log = log;
        meta.jump_log.clear();
        meta.executed.clear();
    }

    /// Drops all entries of region `n` for which `doomed` holds, given the linear page and whether it is global.
    fn flush_where(&mut self, n: usize, doomed: impl Fn(u64, bool) -> bool) {
        if !self.meta[n].ready {
            return;
        }
        let mut log = std::mem::take(&mut self.meta[n].tlb_log);
        if log.len() >= LOG {
            log = (0..TLB_ENTRIES as u16).filter(|&slot| self.entry(n, slot.into()).host != 0).collect();
        }
        log.retain(|&slot| {
            let entry = self.entry(n, slot.into());
            let gone = entry.host == 0 || doomed(entry.page & !4095, entry.page & GLOBAL != 0);
            if gone {
                self.clear_entry(n, slot.into());
            }
            !gone
        });
        log.sort_unstable();
        log.dedup();
        self.meta[n].tlb_log = log;
        for entry in self.meta[n].fetch.iter_mut() {
            if entry.is_some_and(|e| doomed(e.page << 12, e.translation.global)) {
                *entry = None;
            }
        }
    }

    /// Drops everything, in all regions (CR0.PG, CR4.PGE and the like have changed).
    pub fn flush_all(&mut self) {
        for n in 0..REGIONS {
            self.flush_region(n, true);
        }
    }

    fn flush_region(&mut self, n: usize, globals: bool) {
        self.counts.flushes += 1;
        self.flush_where(n, |_, global| globals || !global);
        self.flush_jumps(n);
        if globals {
            self.meta[n].large.clear();
        }
    }

    /// CR3 was written: goes to the region for `pcid`, and drops what it holds beyond global pages unless `keep`.
    pub fn switch(&mut self, pcid: u64, keep: bool) {
        self.clock += 1;
        self.counts.switches += 1;
        let known = self.meta.iter().position(|meta| meta.pcid == Some(pcid));
        let n = known.unwrap_or_else(|| {
            let oldest = (0..REGIONS).min_by_key(|&n| self.meta[n].used).unwrap_or(0);
            if self.meta[oldest].ready {
                self.flush_region(oldest, true);
            } else {
                self.prepare(oldest);
            }
            self.meta[oldest].pcid = Some(pcid);
            oldest
        });
        if known.is_some() && !keep {
            self.flush_region(n, false);
        }
        self.meta[n].used = self.clock;
        self.current = n;
    }

    /// Drops what is held for `pcid` (INVPCID type 1), global pages excepted.
    pub fn flush_pcid(&mut self, pcid: u64) {
        if let Some(n) = self.meta.iter().position(|meta| meta.pcid == Some(pcid)) {
            self.flush_region(n, false);
        }
    }

    /// Drops all but global pages everywhere (INVPCID type 3).
    pub fn flush_all_but_global(&mut self) {
        for n in 0..REGIONS {
            self.flush_region(n, false);
        }
    }

    /// INVLPG, or INVPCID type 0 where `pcid` is not the current one: drops one page, and global pages at that address
    /// in every region.
    pub fn flush_page(&mut self, linear: u64, pcid: Option<u64>) {
        let target = match pcid {
            None => Some(self.current),
            Some(pcid) => self.meta.iter().position(|meta| meta.pcid == Some(pcid)),
        };
        let page = linear & !4095;
        self.counts.page_flushes += 1;
        for n in 0..REGIONS {
            if !self.meta[n].ready {
                continue;
            }
            let own = Some(n) == target;
            let meta = &self.meta[n];
            let in_2m = meta.large.contains(linear >> 21);
            let in_1g = meta.large.contains(linear >> 30 | 1 << 60);
            if in_2m || in_1g {
                self.flush_where(n, |p, global| (own || global) && p >> 30 == linear >> 30);
                self.flush_jumps(n);
                continue;
            }
            let slot = (page >> 12) as usize % TLB_ENTRIES;
            let entry = self.entry(n, slot);
            if entry.page & !4095 == page && (own || entry.page & GLOBAL != 0) {
                self.clear_entry(n, slot);
            }
            let fetch = &mut self.meta[n].fetch[(page >> 12) as usize % FETCH];
            if fetch.is_some_and(|e| e.page == page >> 12 && (own || e.translation.global)) {
                *fetch = None;
            }
            for slot in self.meta[n].executed.remove(&(page >> 12)).unwrap_or_default() {
                self.clear_jump(n, slot.into());
            }
        }
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and the vCPU that used it is gone.
        unsafe { libc::munmap(self.base.cast(), REGIONS * REGION_STRIDE) };
    }
}
