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

use crate::branch_table::{self, BranchTable};
use crate::cpu::{Cpu, JUMP_OFFSET, RECORD_OFFSET, REGION_STRIDE, STATE_SIZE, TLB_OFFSET};

pub mod physical;

/// Entries of the soft TLB.
pub const TLB_ENTRIES: usize = 8192;
/// Entries of the jump cache.
pub const JUMP_ENTRIES: usize = 8192;
/// Distance of the two ways of the jump cache: an entry that is displaced goes to the second, where other addresses
/// share its slot than in the first.
pub const JUMP_WAY: i32 = (JUMP_ENTRIES * size_of::<JumpEntry>()) as i32;
/// A slot is, for each way, the address shifted left by the second number plus the address rotated right by the first:
/// code at the same offset in different pages must not meet.
pub const JUMP_HASH: [(u8, u8); 2] = [(13, 0), (11, 1)];
/// Address spaces kept warm: Linux deals out six PCIDs to each processor.
pub const REGIONS: usize = 5;
/// How often a region may change hands before its global pages are flushed, too.
const TURNS: u32 = 64;
/// Slots logged before a flush clears the whole table instead.
pub const LOG: usize = 2048;

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
pub const GLOBAL: u64 = 1;

/// One way from a linear address to code.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct JumpEntry {
    /// The linear address.
    pub linear: u64,
    /// The block's entry for indirect branches.
    pub host: u64,
}

/// Offset of the tag for `context` in an entry.
pub const fn tag_offset(context: usize, write: bool) -> i32 {
    (context * 16 + if write { 8 } else { 0 }) as i32
}
/// Offset of the host address in an entry.
pub const HOST_OFFSET: i32 = 48;
/// Offset of the linear page in an entry.
pub const PAGE_OFFSET: i32 = 56;

/// What has been filled in a region's TLB, by Rust or by emitted code.
#[repr(C)]
pub struct Record {
    /// Entries of `log` in use; [`LOG`]: it ran over, and any slot may be in use.
    pub length: u32,
    /// Slots.
    pub log: [u16; LOG],
    /// Stretches of 4 MiB, and of 1 GiB for still larger pages, in which entries of large pages were filled, hashed.
    pub large: Bloom,
}

/// Where an instruction fetch leads; only Rust looks here.
#[derive(Clone, Copy)]
struct FetchEntry {
    page: u64,
    translation: Translation,
}

/// Slots of the fetch TLB.
const FETCH: usize = 256;

/// A page that the jump cache leads to.
#[derive(Default)]
struct Executed {
    /// Slots that may hold entries for it, in one way or the other.
    slots: Vec<u16>,
    /// A change of address space leaves it where it is.
    global: bool,
}

struct Meta {
    /// The PCID that the region serves.
    pcid: Option<u64>,
    used: u64,
    ready: bool,
    /// It has learnt of blocks ([`Regions::learn_block`]).
    knows: bool,
    /// Some of them are the supervisor's, in pages that are not global.
    knows_passing: bool,
    /// Where it knows of linear pages: whose, and the slot.
    fetched: Vec<(u8, u16)>,
    /// How often it has changed hands since all of it was flushed.
    turns: u32,
    jump_log: Vec<u16>,
    /// Pages that jump-cache entries were made for.
    executed: FxHashMap<u64, Executed>,
    fetch: Box<[Option<FetchEntry>; FETCH]>,
}

impl Meta {
    /// What is known of a region that is all zeroes.
    fn new() -> Self {
        Self {
            pcid: None,
            used: 0,
            ready: false,
            knows: false,
            knows_passing: false,
            fetched: Vec::new(),
            turns: 0,
            jump_log: Vec::new(),
            executed: FxHashMap::default(),
            fetch: Box::new([None; FETCH]),
        }
    }
}

impl Record {
    /// Notes that a slot is in use.
    fn note(&mut self, slot: usize) {
        if let Some(place) = self.log.get_mut(self.length as usize) {
            *place = slot as u16;
            self.length += 1;
        }
    }

    /// The slots that may be in use.
    fn slots(&self) -> Vec<u16> {
        match self.log.get(..self.length as usize) {
            Some(log) if log.len() < LOG => log.to_vec(),
            _ => (0..TLB_ENTRIES as u16).collect(),
        }
    }

    /// Notes that entries of a page of that size are there.
    fn note_large(&mut self, linear: u64, size: u64) {
        if size <= 4096 {
            return;
        }
        self.large.insert(linear >> 22);
        if size > 4 << 20 {
            self.large.insert(linear >> 30 | HUGE);
        }
    }
}

/// Sets the numbers of pages of 1 GiB and more apart from those of 4 MiB in [`Record::large`].
const HUGE: u64 = 1 << 60;

/// A set of numbers that may say yes too often.
#[repr(C)]
pub struct Bloom([u64; 64]);

/// The hash is the upper 12 bits of the product with this.
pub const BLOOM_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

impl Bloom {
    fn slot(number: u64) -> (usize, u64) {
        let hash = number.wrapping_mul(BLOOM_HASH) >> 52;
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
    /// The branch table, which all regions show.
    branches: BranchTable,
    /// CR4.PGE: global pages outlive a change of address space.
    pub keep_globals: bool,
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

/// The slot of an address in a way of the jump cache.
fn jump_slot(linear: u64, way: usize, salt: u32) -> u16 {
    (jump_hash(linear, way, salt) % JUMP_ENTRIES as u64) as u16
}

/// What slots are the lower bits of.
fn jump_hash(address: u64, way: usize, salt: u32) -> u64 {
    let (rotate, shift) = JUMP_HASH[way];
    (address << shift).wrapping_add(address.rotate_right(rotate.into())).wrapping_add(salt.into())
}

impl Regions {
    /// Maps the regions; the vCPU's state is zeroed memory.
    pub fn new(miss: u64) -> io::Result<Self> {
        // SAFETY: plain system calls whose results are checked; fixed mappings replace the reservation made here.
        unsafe {
            let fd = libc::memfd_create(c"lodge-vcpu".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 || libc::ftruncate(fd, (STATE_SIZE + branch_table::BYTES + physical::BYTES) as libc::off_t) != 0 {
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
                let region = base.cast::<u8>().add(n * REGION_STRIDE);
                // The tables lie side by side.
                let tables = branch_table::BYTES + physical::BYTES;
                let shared = [(0, STATE_SIZE, 0), (branch_table::OFFSET, tables, STATE_SIZE)];
                for (at, length, offset) in shared {
                    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
                    let offset = offset as libc::off_t;
                    if libc::mmap(region.add(at).cast(), length, protection, flags, fd, offset) == libc::MAP_FAILED {
                        return Err(io::Error::last_os_error());
                    }
                }
            }
            libc::close(fd);
            let meta = (0..REGIONS).map(|_| Meta::new()).collect();
            let mut regions = Self {
                base: base.cast(),
                current: 0,
                clock: 0,
                meta,
                miss,
                branches: BranchTable::new(base.cast::<u8>().add(branch_table::OFFSET).cast(), miss),
                keep_globals: false,
                counts: Counts::default(),
            };
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

    #[expect(clippy::mut_from_ref, reason = "the record lies in a mapping that only the owning thread changes")]
    fn record(&self, n: usize) -> &mut Record {
        // SAFETY: within the region, zeroed at first, plain data that this thread owns while it is not in emitted code.
        unsafe { &mut *self.region(n).add(RECORD_OFFSET).cast::<Record>() }
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

    /// Gives back the memory of regions that no address space has been loaded into since `clock`, a result of
    /// this; the present clock.
    pub fn release_unused(&mut self, clock: u64) -> u64 {
        for n in 0..REGIONS {
            if n != self.current && self.meta[n].ready && self.meta[n].used <= clock {
                self.release(n);
            }
        }
        self.clock
    }

    fn release(&mut self, n: usize) {
        let length = REGION_STRIDE - STATE_SIZE;
        // SAFETY: the region's own private memory, which is zero afterwards, as it was before it was prepared; what all
        // regions show keeps its contents.
        let released = unsafe { libc::madvise(self.region(n).add(STATE_SIZE).cast(), length, libc::MADV_DONTNEED) };
        if released == 0 {
            self.meta[n] = Meta::new();
        }
    }

    fn clear_entry(&self, n: usize, slot: usize) {
        let empty = empty_tag(slot % TLB_ENTRIES);
        *self.entry(n, slot) = TlbEntry { tags: [[empty; 2]; 3], host: 0, page: 0 };
    }

    fn clear_jump(&self, n: usize, slot: usize) {
        // Address 0 may match this; it leads to where a miss does.
        for way in 0..2 {
            *self.jump(n, slot, way) = JumpEntry { linear: 0, host: self.miss };
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
        let record = self.record(self.current);
        record.note(slot);
        record.note_large(linear, translation.page_size);
    }

    /// Where `bytes` at `linear` lie on the host, if the current TLB lets them be accessed.
    pub fn peek(&self, linear: u64, bytes: usize, access: Access) -> Option<*mut u8> {
        let context = match access {
            Access { user: true, .. } => 1,
            Access { smap_override: true, .. } => 2,
            _ => 0,
        };
        let entry = self.entry(self.current, (linear >> 12) as usize % TLB_ENTRIES);
        let write = usize::from(access.kind == AccessKind::Write);
        let offset = linear.wrapping_add(entry.tags[context][write]);
        let room = 4096usize.checked_sub(bytes)?;
        (offset <= room as u64).then(|| entry.host.wrapping_add(offset) as *mut u8)
    }

    /// Takes write permission for the host page at `host` out of all entries of all regions.
    pub fn forbid_writes(&mut self, host: u64) {
        for n in 0..REGIONS {
            for slot in self.record(n).slots() {
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
        let slots = [0, 1].map(|way| jump_slot(linear, way, salt));
        let first = slots[0];
        let old = *self.jump(self.current, first.into(), 0);
        if old.linear != linear && old.host != self.miss {
            // The slot says what the salt was.
            let salt = u32::from(first).wrapping_sub(jump_slot(old.linear, 0, 0).into());
            let second = jump_slot(old.linear, 1, salt);
            // What emitted code has filled in would not be found there by a flush.
            let executed = self.meta[self.current].executed.get(&(old.linear >> 12));
            if executed.is_some_and(|executed| executed.slots.contains(&second)) {
                *self.jump(self.current, second.into(), 1) = old;
            }
        }
        *self.jump(self.current, first.into(), 0) = JumpEntry { linear, host };
        let global = !crosses && self.fetch(linear).is_some_and(|translation| translation.global);
        let meta = &mut self.meta[self.current];
        for page in linear >> 12..=(linear >> 12) + u64::from(crosses) {
            let executed = meta.executed.entry(page).or_insert_with(|| Executed { global, slots: Vec::new() });
            executed.global &= global;
            for slot in slots {
                if !executed.slots.contains(&slot) {
                    executed.slots.push(slot);
                }
            }
        }
        if meta.jump_log.len() < LOG {
            meta.jump_log.extend(slots);
        }
    }

    /// Empties the branch table, unless that was done at this count and in this region.
    pub fn renew_branches(&mut self, count: u64) {
        self.branches.renew((count, self.current));
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
        self.record(self.current).note_large(linear, translation.page_size);
    }

    /// Forgets every way to code, in all regions: the code is gone.
    pub fn forget_code(&mut self) {
        for n in 0..REGIONS {
            self.flush_jumps(n);
        }
        self.branches.forget();
    }

    fn flush_jumps(&mut self, n: usize) {
        if !self.meta[n].ready {
            return;
        }
        self.forget_known(n);
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

    /// Forgets the ways to code in pages for which `doomed` holds, given the page's number and whether it is global.
    fn flush_jumps_where(&mut self, n: usize, doomed: impl Fn(u64, bool) -> bool) {
        let mut executed = std::mem::take(&mut self.meta[n].executed);
        executed.retain(|&page, executed| {
            let gone = doomed(page, executed.global);
            if gone {
                for &slot in &executed.slots {
                    self.clear_jump(n, slot.into());
                }
            }
            !gone
        });
        self.meta[n].executed = executed;
    }

    /// Drops all entries of region `n` for which `doomed` holds, given the linear page and whether it is global.
    fn flush_where(&mut self, n: usize, doomed: impl Fn(u64, bool) -> bool) {
        if !self.meta[n].ready {
            return;
        }
        let mut log = self.record(n).slots();
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
        let record = self.record(n);
        record.length = log.len().min(LOG) as u32;
        for (place, slot) in record.log.iter_mut().zip(log) {
            *place = slot;
        }
        self.flush_fetches(n, doomed);
    }

    /// The same for the fetch TLB alone.
    fn flush_fetches(&mut self, n: usize, doomed: impl Fn(u64, bool) -> bool) {
        for entry in self.meta[n].fetch.iter_mut() {
            if entry.is_some_and(|e| doomed(e.page << 12, e.translation.global)) {
                *entry = None;
            }
        }
    }

    /// Drops the entries of region `n` for the aligned area of `1 << shift` bytes around `linear`; of those that are not
    /// `own`, global ones.
    fn flush_area(&mut self, n: usize, linear: u64, shift: u32, own: bool) {
        let doomed = |page: u64, global: bool| page >> shift == linear >> shift && (own || global);
        let first = (linear >> shift << shift >> 12) as usize;
        let pages = (1usize << (shift - 12)).min(TLB_ENTRIES);
        for slot in (first..first + pages).map(|page| page % TLB_ENTRIES) {
            let entry = self.entry(n, slot);
            if entry.host != 0 && doomed(entry.page, entry.page & GLOBAL != 0) {
                self.clear_entry(n, slot);
            }
        }
        self.flush_fetches(n, doomed);
    }

    /// Drops everything, in all regions (CR0.PG, CR4.PGE and the like have changed).
    pub fn flush_all(&mut self) {
        for n in 0..REGIONS {
            self.flush_region(n, true);
        }
    }

    fn flush_region(&mut self, n: usize, globals: bool) {
        self.counts.flushes += 1;
        let globals = globals || !self.keep_globals;
        self.flush_where(n, |_, global| globals || !global);
        if globals {
            self.flush_jumps(n);
            self.record(n).large.clear();
        } else {
            self.forget_known_but_global(n);
            self.flush_jumps_where(n, |_, global| !global);
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
                // Global pages are the same in all address spaces. What is noted of large pages grows until all is
                // flushed.
                self.meta[oldest].turns = (self.meta[oldest].turns + 1) % TURNS;
                let all = self.meta[oldest].turns == 0;
                self.flush_region(oldest, all);
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
            let large = &self.record(n).large;
            let in_huge = large.contains(linear >> 30 | HUGE);
            if in_huge || large.contains(linear >> 22) {
                let shift = if in_huge { 30 } else { 22 };
                self.flush_area(n, linear, shift, own);
                self.forget_known(n);
                self.flush_jumps_where(n, |page, _| page >> (shift - 12) == linear >> shift);
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
            self.forget_known_page(n, page >> 12);
            for slot in self.meta[n].executed.remove(&(page >> 12)).unwrap_or_default().slots {
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
