//! Guest programs' pages at the programs' own addresses.
//!
//! A program that computes for a while gets its pages mapped into the host process where it has them itself, so that its
//! loads and stores need no look at a table ([`crate::emit::mirrored`]): the host's processor translates. One address
//! space is *shown* at a time, on all vCPUs that are in it.
//!
//! ```text
//! 0               7.5 TiB                                   8 TiB                  128 TiB
//! |  pages shown   | guard |  lodge's own memory  |   guard   |      pages shown     |
//!                  '---------------- the arena ---------------'
//! ```
//!
//! That is safe only in a process that has nothing of its own outside the arena, which whoever asks for mirroring has
//! seen to, and which [`Mirror::new`] checks. Emitted code never touches the arena in this way, whatever the program does.
//!
//! Nothing is shown at first. An access to a page that is not raises SIGSEGV, whose handler walks the page tables
//! ([`Cpu::show_page`]): if they permit the access to a page of RAM, it is mapped, with those around it that the program
//! has used before, and the instruction goes on. If not, the instruction is run again as a block that probes, which
//! knows all of the architecture. What is shown is what a TLB may hold: a page is shown for reading only until it is
//! dirty, never for writing if code has been translated from it, and flushes are acted on at once ([`Shared::flush_mirror`]).
//!
//! Code of the program that is shown is known by its address, so that exits to other pages can lead straight to it
//! ([`crate::translate::Code::sever`]).
//!
//! Lock order: the partition's `world`, then `shown`, then `code`.
#![expect(unsafe_code, reason = "maps guest RAM at addresses that the guest chooses")]
// UNSAFETY: fixed mappings outside the arena only, where nothing of lodge's lies; emitted code alone reaches them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lodge_engine_api::Mirroring;
use lodge_x86::paging::{Access, AccessKind, PagingContext, PagingMode, PhysicalMemory, Translation, walk};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cpu::Cpu;
use crate::memory::{PAGE, Ram};
use crate::mode::Mode;
use crate::partition::Shared;
use crate::worth::{Program, Worth};

/// The bits of an address that tell whether it lies in the arena, and what they are there.
pub const ARENA_BITS: std::ops::Range<u8> = 39..47;
/// See [`ARENA_BITS`].
pub const ARENA_NUMBER: u8 = 15;
/// Bytes at both ends of the arena where nothing lies.
pub const GUARD: u64 = lodge_arena::GUARD;
const _: () = assert!(
    lodge_arena::ARENA.start == (ARENA_NUMBER as u64) << ARENA_BITS.start
        && lodge_arena::ARENA.end == (ARENA_NUMBER as u64 + 1) << ARENA_BITS.start
);

/// Nothing is shown.
const NONE: u64 = u64::MAX;
/// Where programs' addresses end, and where the lowest begin that a host lets be mapped.
const END: u64 = (1 << 47) - PAGE;
const START: u64 = 64 << 10;
/// Pages that are looked at around one that is asked for.
const AROUND: u64 = 16;
/// Most mappings: a host permits 65,530 as a rule.
const MAPPINGS: usize = 24_000;
/// How often in a row an access may be let try again.
const PATIENCE: u32 = 4;

/// What it costs to make a translation, to show a page with those around it, and to hide one, in microseconds; how many
/// can be looked at in one.
const MAKE_COST: u64 = 8;
const SHOW_COST: u64 = 16;
const CLOSE_COST: u64 = 4;
const LOOKS_IN_ONE: u64 = 12;

/// Whether the arena contains an address.
pub const fn in_arena(address: u64) -> bool {
    address >> ARENA_BITS.start == ARENA_NUMBER as u64
}

/// The mirror of a partition.
pub struct Mirror {
    mirroring: Mirroring,
    /// The root table of the address space that is shown, or [`NONE`].
    root: AtomicU64,
    /// How many have been shown.
    number: AtomicU64,
    /// Changes each time that code of the program that is shown may no longer be where it was.
    severed: AtomicU64,
    /// Translations made for the program that is shown, since that was last reckoned.
    made: AtomicU64,
    shown: Mutex<Shown>,
}

/// Consecutive pages that lie side by side in a file, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Their number.
    pages: u64,
    /// Guest physical address of the first.
    gpa: u64,
    writable: bool,
}

/// Where the code lies that the program which is shown has run, in pages.
#[derive(Default)]
struct Code {
    /// Guest physical page by linear page.
    at: FxHashMap<u64, u64>,
    /// And the other way round, for as long as the program is shown: ways to a page may be left in some vCPU's tables.
    of: FxHashMap<u64, u64>,
    /// Some lies at more than one address.
    ambiguous: bool,
    /// Pages that were in `at` since the program is shown, and are not any more. A vCPU that has not flushed yet may
    /// still find its way to what was there.
    gone: FxHashSet<u64>,
}

impl Code {
    /// Notes a page; whether what was known is no longer so.
    fn note(&mut self, home: u64, page: u64) -> bool {
        if self.at.get(&page) == Some(&home) {
            return false;
        }
        let other = self.of.insert(home, page);
        let twice = other.is_some_and(|other| other != page);
        self.ambiguous |= twice;
        self.at.insert(page, home).is_some() || twice
    }

    /// Forgets a page; whether it was ever known.
    fn forget(&mut self, page: u64) -> bool {
        if self.at.remove(&page).is_some() {
            self.gone.insert(page);
        }
        self.gone.contains(&page)
    }

    /// Forgets all pages. Nothing can be told of what comes, until another program is shown.
    fn forget_all(&mut self) {
        self.gone.extend(self.at.drain().map(|(page, _)| page));
        self.ambiguous = true;
    }
}

/// What is shown.
#[derive(Default)]
struct Shown {
    /// By the number of the first page.
    runs: BTreeMap<u64, Run>,
    /// Pages of larger ones are among them, which are flushed as a whole.
    large: bool,
    code: Code,
    worth: Worth,
}

/// Reads page tables without leaving a trace.
struct Look<'a> {
    ram: &'a Ram,
    /// The walk would have set a flag.
    marks: Cell<bool>,
}

impl PhysicalMemory for Look<'_> {
    fn read_u64(&self, address: u64) -> Option<u64> {
        self.ram.read_u64(address)
    }

    fn read_u32(&self, address: u64) -> Option<u32> {
        self.ram.read_u32(address)
    }

    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<bool> {
        self.marks.set(true);
        None
    }

    fn compare_exchange_u32(&self, _: u64, _: u32, _: u32) -> Option<bool> {
        self.marks.set(true);
        None
    }
}

/// What a page may be shown as without changing its tables' flags. Nothing, where an address line is held low.
fn look(ram: &Ram, paging: &PagingContext, page: u64) -> Option<Translation> {
    let look = Look { ram, marks: Cell::new(false) };
    let translation = walk(&look, paging, page * PAGE, Access::user(AccessKind::Read)).ok()?;
    (!look.marks.get() && !translation.global && ram.line_20()).then_some(translation)
}

impl Mirror {
    /// A mirror that shows nothing yet, and never will if lodge's own memory is not where it has to be for that.
    pub fn new(mirroring: Mirroring) -> Self {
        let mirroring = match mirroring {
            Mirroring::Never => Mirroring::Never,
            asked => match lodge_arena::verify() {
                Ok(()) => asked,
                Err(error) => {
                    tracing::warn!(%error, "programs' memory is not mirrored");
                    Mirroring::Never
                }
            },
        };
        Self {
            mirroring,
            root: AtomicU64::new(NONE),
            number: AtomicU64::new(0),
            severed: AtomicU64::new(0),
            made: AtomicU64::new(0),
            shown: Mutex::default(),
        }
    }

    /// Whether anything may ever be shown.
    pub fn is_possible(&self) -> bool {
        self.mirroring != Mirroring::Never
    }

    /// Whether every program is to be shown at once.
    pub fn is_eager(&self) -> bool {
        self.mirroring == Mirroring::Always
    }

    /// Whether the address space with that root table is shown.
    pub fn shows(&self, root: u64) -> bool {
        self.root.load(Ordering::SeqCst) == root
    }

    /// Shows another address space, or none. No vCPU may be in emitted code, and all have to look again before they are.
    pub fn show(&self, program: Option<Program>) {
        let mut shown = self.shown.lock();
        shown.clear();
        shown.code = Code::default();
        self.number.fetch_add(1, Ordering::SeqCst);
        shown.worth.begin(program, Instant::now());
        self.root.store(program.map_or(NONE, |program| program.root), Ordering::SeqCst);
    }

    /// The page at `gpa` has come to hold code: it is not to be written any more without a look.
    pub fn forbid_writes(&self, gpa: u64) {
        if self.root.load(Ordering::SeqCst) != NONE {
            self.shown.lock().forbid_writes(gpa & !(PAGE - 1));
        }
    }

    /// Changes each time that another address space is shown.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// Changes each time that code of the program that is shown may no longer be where it was.
    pub fn severed(&self) -> u64 {
        self.severed.load(Ordering::SeqCst)
    }

    /// Whether code of the program that is shown lies at one address only.
    pub fn may_link(&self) -> bool {
        !self.shown.lock().code.ambiguous
    }

    /// Whether a program that is met often may be shown.
    pub fn may_show(&self, program: Program, now: Instant) -> bool {
        self.shown.lock().worth.may_show(program, now)
    }

    /// Whether the program that is shown has not been met for long.
    pub fn is_gone(&self, now: Instant) -> bool {
        self.root.load(Ordering::SeqCst) != NONE && !self.is_eager() && self.shown.lock().worth.is_gone(now)
    }

    /// The program that is shown was met; whether it is not worth that any longer.
    pub fn has_to_end(&self, program: Program, now: Instant) -> bool {
        let mut shown = self.shown.lock();
        shown.worth.spend(self.made.swap(0, Ordering::Relaxed) * MAKE_COST);
        shown.worth.meet(program, now)
    }

    /// A translation was made for the program that is shown.
    pub fn note_made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Code at `gpa` is about to be run at `linear` by the program that is shown; `large`: it lies in a large page.
    pub fn note_code(&self, gpa: u64, linear: u64, large: bool) {
        let mut shown = self.mirror.shown.lock();
        shown.large |= large;
        if shown.code.note(gpa / PAGE, linear / PAGE) {
            self.sever();
        }
    }

    /// Takes away what leads straight to code of the program that is shown. Each vCPU empties its branch table when it
    /// flushes, as it has to before it may rely on what has changed.
    pub fn sever(&self) {
        self.mirror.severed.fetch_add(1, Ordering::SeqCst);
        self.code.lock().sever();
    }

    /// One page's translation was flushed. `paging` is some vCPU's.
    pub fn flush_mirrored_page(&self, linear: u64, paging: &PagingContext) {
        let root = self.mirror.root.load(Ordering::SeqCst);
        if root == NONE {
            return;
        }
        let mut shown = self.mirror.shown.lock();
        let page = linear / PAGE;
        shown.hide(page, 1);
        let mut moved = shown.code.forget(page);
        if shown.large {
            const HUGE: u64 = (1 << 30) / PAGE;
            let first = page & !(HUGE - 1);
            moved |= shown.look_again(first..first + HUGE, &self.ram, root, paging);
        }
        if moved {
            self.sever();
        }
    }

    /// All translations were flushed: pages whose translation is what it was stay.
    pub fn flush_mirror(&self, paging: &PagingContext) {
        let root = self.mirror.root.load(Ordering::SeqCst);
        if root == NONE {
            return;
        }
        let mut shown = self.mirror.shown.lock();
        if paging.mode != PagingMode::FourLevel {
            // Of a vCPU that can't tell what is still so.
            shown.clear();
            shown.code.forget_all();
            self.sever();
            self.mirror.number.fetch_add(1, Ordering::SeqCst);
            for mailbox in &self.mailboxes {
                mailbox.chores.store(true, Ordering::SeqCst);
            }
        } else if shown.look_again(0..u64::MAX / PAGE, &self.ram, root, paging) {
            self.sever();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shown.lock().clear();
    }
}

impl Shown {
    /// The run that contains a page, and its first page.
    fn find(&self, page: u64) -> Option<(u64, Run)> {
        let (&first, &run) = self.runs.range(..=page).next_back()?;
        (page - first < run.pages).then_some((first, run))
    }

    /// Takes pages out of the runs, not out of the address space.
    fn forget(&mut self, page: u64, pages: u64) {
        let end = page + pages;
        let mut first_touched = self.find(page).map_or(page, |(first, _)| first);
        while let Some((&first, &run)) = self.runs.range(first_touched..end).next() {
            self.runs.remove(&first);
            if first < page {
                self.runs.insert(first, Run { pages: page - first, ..run });
            }
            let behind = first + run.pages;
            if behind > end {
                let gpa = run.gpa + (end - first) * PAGE;
                self.runs.insert(end, Run { pages: behind - end, gpa, ..run });
            }
            first_touched = end.min(behind);
        }
    }

    /// Shows pages no longer.
    fn hide(&mut self, page: u64, pages: u64) {
        if self.runs.len() > MAPPINGS {
            // A part of a run would make one more.
            return self.clear();
        }
        let end = page + pages;
        let mut from = page;
        while from < end {
            let next = self.find(from).map(|(first, run)| (from, first + run.pages));
            let after = || self.runs.range(from..end).next().map(|(&first, run)| (first, first + run.pages));
            let Some((start, stop)) = next.or_else(after) else { break };
            let stop = stop.min(end);
            close(start, stop - start);
            self.worth.spend(CLOSE_COST);
            from = stop;
        }
        self.forget(page, pages);
    }

    fn clear(&mut self) {
        self.large = false;
        for (page, run) in std::mem::take(&mut self.runs) {
            close(page, run.pages);
        }
    }

    fn forbid_writes(&mut self, gpa: u64) {
        let holds = |run: &Run| run.writable && gpa.wrapping_sub(run.gpa) < run.pages * PAGE;
        let pages: Vec<u64> =
            self.runs.iter().filter(|(_, run)| holds(run)).map(|(first, run)| first + (gpa - run.gpa) / PAGE).collect();
        for page in pages {
            self.hide(page, 1);
        }
    }

    /// Hides what is no longer what it was, among some pages; whether code was among it.
    fn look_again(&mut self, pages: std::ops::Range<u64>, ram: &Ram, root: u64, paging: &PagingContext) -> bool {
        let mut paging = *paging;
        paging.root = root;
        let paging = &paging;
        let write = Access::user(AccessKind::Write);
        let mut stale = Vec::new();
        let mut looked = 0;
        let from = self.find(pages.start).map_or(pages.start, |(first, _)| first);
        for (&first, run) in self.runs.range(from..pages.end) {
            looked += run.pages;
            for n in 0..run.pages {
                let still = look(ram, paging, first + n).is_some_and(|now| {
                    now.gpa & !(PAGE - 1) == run.gpa + n * PAGE && (!run.writable || now.fills(paging, write))
                });
                if !still {
                    stale.push(first + n);
                }
            }
        }
        self.worth.spend(looked / LOOKS_IN_ONE);
        for page in stale {
            self.hide(page, 1);
        }
        let known = self.code.at.iter().filter(|(page, _)| pages.contains(page));
        let moved: Vec<u64> = known
            .filter(|&(&page, &home)| {
                look(ram, paging, page)
                    .is_none_or(|now| now.gpa / PAGE != home || !now.executable || now.page_size != PAGE)
            })
            .map(|(&page, _)| page)
            .collect();
        for page in moved {
            self.code.forget(page);
        }
        self.code.gone.iter().any(|page| pages.contains(page))
    }

    /// Shows a run; whether the host could.
    fn open(&mut self, page: u64, run: Run, file: (RawFd, u64)) -> bool {
        let (fd, offset) = file;
        let Ok(offset) = libc::off_t::try_from(offset) else { return false };
        let protection = libc::PROT_READ | if run.writable { libc::PROT_WRITE } else { 0 };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let at = std::ptr::without_provenance_mut((page * PAGE) as usize);
        // SAFETY: outside the arena, where nothing but guest pages is mapped.
        let mapped = unsafe { libc::mmap(at, (run.pages * PAGE) as usize, protection, flags, fd, offset) };
        self.forget(page, run.pages);
        if mapped == libc::MAP_FAILED {
            close(page, run.pages);
            return false;
        }
        let mut run = run;
        let mut first = page;
        // Neighbours that go on in the file are one.
        if let Some((before, other)) = page.checked_sub(1).and_then(|page| self.find(page))
            && other.writable == run.writable
            && other.gpa + other.pages * PAGE == run.gpa
        {
            self.runs.remove(&before);
            (first, run) = (before, Run { pages: other.pages + run.pages, ..other });
        }
        let behind = first + run.pages;
        if let Some(&other) = self.runs.get(&behind)
            && other.writable == run.writable
            && run.gpa + run.pages * PAGE == other.gpa
        {
            self.runs.remove(&behind);
            run.pages += other.pages;
        }
        self.runs.insert(first, run);
        true
    }
}

/// Takes pages out of the address space.
fn close(page: u64, pages: u64) {
    let at = std::ptr::without_provenance_mut((page * PAGE) as usize);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: where guest pages are mapped; nothing else uses them.
    let closed = unsafe { libc::mmap(at, (pages * PAGE) as usize, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(closed, libc::MAP_FAILED, "a page that the guest has given up must not stay within its reach");
}

impl Cpu {
    /// Whether the current address space is shown.
    pub fn is_shown(&mut self) -> bool {
        let context = self.context();
        context.paging.mode == PagingMode::FourLevel && context.shared.mirror.shows(context.paging.root)
    }

    /// To be called when another address space is loaded, or shown.
    pub fn renew_mirrored(&mut self) {
        let shown = self.is_shown();
        self.renew_branches();
        if shown != self.mirrored {
            self.mirrored = shown;
            self.mode = Mode::of(self).0;
            self.renew_sides();
        }
    }

    /// Drops what is known of a page: in the current address space, or in the one that has `pcid`.
    pub fn flush_page(&mut self, linear: u64, pcid: Option<u64>) {
        let context = self.context();
        context.regions.flush_page(linear, pcid);
        // Which address space has a PCID is not known here, and what is global is flushed in all.
        context.shared.flush_mirrored_page(linear, &context.paging);
        self.renew_branches();
    }

    /// Empties the branch table if what it leads to may no longer be there. Due after each flush, and when the address
    /// space that is shown is loaded: nobody may rely on the table before.
    pub fn renew_branches(&mut self) {
        if self.is_shown() {
            let context = self.context();
            context.regions.renew_branches(context.shared.mirror.severed());
        }
    }

    /// Has what is shown looked at again: all that is known of an address space, perhaps the one that is shown, was
    /// dropped.
    pub fn flush_mirror(&mut self) {
        let context = self.context();
        context.shared.flush_mirror(&context.paging);
        self.renew_branches();
    }

    /// Shows the page at `linear`, if the program may access it so, and it is RAM that can be accessed without more ado;
    /// whether the access may be tried again. To be called where emitted code has raised a page fault.
    pub fn show_page(&mut self, linear: u64, write: bool) -> bool {
        if !Mode(self.mode).is_mirrored() || self.how != 0 || in_arena(linear) || !(START..END).contains(&linear) {
            return false;
        }
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let shared = std::sync::Arc::clone(&self.context().shared);
        let paging = self.context().paging;
        let mut shown = shared.mirror.shown.lock();
        if !shared.mirror.shows(paging.root) {
            return false;
        }
        let page = linear / PAGE;
        let asked = &mut self.context().asked;
        *asked = if asked.0 == page { (page, asked.1 + 1) } else { (page, 0) };
        if asked.1 > PATIENCE {
            *asked = (0, 0);
            return false;
        }
        let Ok(translation) = self.translate(linear, Access::user(kind)) else { return false };
        if translation.global {
            return false;
        }
        let ram = &shared.ram;
        let Some(wanted) = piece(ram, &paging, &translation) else { return false };
        if write && !wanted.writable {
            return false;
        }
        if shown.runs.len() > MAPPINGS {
            shown.clear();
        }
        self.context().counts.shown += 1;
        shown.worth.spend(SHOW_COST);
        shown.large |= translation.page_size > PAGE;
        let pieces = around(ram, &paging, page, &translation, &shown);
        let mut whole = true;
        let mut next = 0;
        while let Some(&(first, start)) = pieces.get(next) {
            let mut run = start;
            next += 1;
            while let Some(&(_, more)) = pieces.get(next).filter(|(page, more)| {
                *page == first + run.pages && more.writable == run.writable && more.gpa == run.gpa + run.pages * PAGE
            }) {
                run.pages += more.pages;
                next += 1;
            }
            whole &= ram.file(run.gpa).is_some_and(|file| shown.open(first, run, file));
        }
        whole
    }
}

/// How a page of a translation can be shown; `None`: it is not RAM.
fn piece(ram: &Ram, paging: &PagingContext, translation: &Translation) -> Option<Run> {
    let gpa = translation.gpa & !(PAGE - 1);
    ram.file(gpa)?;
    // As for a TLB entry: whoever translates code from it takes the permission back.
    let writable = translation.fills(paging, Access::user(AccessKind::Write)) && ram.admit_writes(gpa);
    Some(Run { pages: 1, gpa, writable })
}

/// The page that is asked for and others around it that are known to be used, in order.
fn around(ram: &Ram, paging: &PagingContext, page: u64, asked: &Translation, shown: &Shown) -> Vec<(u64, Run)> {
    let large = asked.page_size > PAGE;
    let count = if large { (asked.page_size / PAGE).min(512) } else { AROUND };
    let first = page & !(count - 1);
    let mut pieces = Vec::new();
    for other in first..first + count {
        let at = other * PAGE;
        if other != page && (shown.find(other).is_some() || in_arena(at) || !(START..END).contains(&at)) {
            continue;
        }
        let translation = if other == page {
            Some(*asked)
        } else if large {
            let gpa = (asked.gpa & !(PAGE - 1)).wrapping_add(at).wrapping_sub(page * PAGE);
            Some(Translation { gpa, ..*asked })
        } else {
            look(ram, paging, other)
        };
        let Some(piece) = translation.and_then(|translation| piece(ram, paging, &translation)) else { continue };
        pieces.push((other, piece));
    }
    pieces
}
