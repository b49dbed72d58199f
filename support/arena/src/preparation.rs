//! Puts all in place for a program to be started over: [`Preparation`]. Undone when it is dropped.
//!
//! ```text
//!   new ── refuse ─► reserve ─► map program, loader ─► build stack ─► try where the kernel places ─► take back what
//!    │      (kernel)  (memory)   (image)                (stack)        mappings                       the kernel knows
//!    │                                                                                                   │
//!    └── an error: drop undoes, last thing first ◄──────────────────────────────── it fails ◄── go ◄─────┘
//!                                                                                     (leap) ──► the new program
//! ```
#![expect(unsafe_code, reason = "leaves the program for another copy of it")]
// UNSAFETY: one call, of what all the rest here is the preparation of.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;

use crate::image::Image;
use crate::kernel::{self, Facts, KernelsPages, Sequences, Signals};
use crate::leap::{Call, leap};
use crate::maps::{self, Area};
use crate::memory::{PAGE, RESERVE, Reservation, page_up};
use crate::stack::{Built, Contents};
use crate::{ARENA, Error, USABLE};

/// The first address that nothing can be mapped at without asking for it (Linux, `DEFAULT_MAP_WINDOW`).
const USER_END: u64 = 0x7fff_ffff_f000;
/// Where to begin below the arena: the first that is not below the host's vm.mmap_min_addr.
const LOWEST: [u64; 3] = [64 << 10, 1 << 20, 16 << 20];
/// The part of the arena in which each of program, loader, stack and vDSO has a random place in a quarter.
const OWN: Range<u64> = USABLE.end - (32 << 30)..USABLE.end;
/// How far below that the kernel begins to place mappings, at random.
const JITTER: u64 = 16 << 30;
/// The largest alignment that segments have in practice.
const LARGE: u64 = 2 << 20;
/// The main stack where its size is not limited, and the most that it has where the limit is higher.
const STACK: u64 = 8 << 20;
const MOST_STACK: u64 = 1 << 30;
/// Room on the main stack beyond what the program is given.
const LEAST_STACK: u64 = 256 << 10;
/// Gaps between old mappings are reserved if they are larger, and but for as much at both ends, where heap and stack may
/// grow meanwhile.
const MARGIN: u64 = 64 << 20;

/// All that is in place. What was done last is undone first.
pub struct Preparation {
    /// Reserved between the old program's mappings.
    _gaps: Vec<Reservation>,
    /// Below the arena.
    _low: Reservation,
    /// The kernel's pages; before what they have been moved into.
    _pages: KernelsPages,
    /// Program, loader and stack.
    own: Reservation,
    facts: Facts,
    /// From the old program to the new.
    bias: u64,
    /// The loader's entry.
    entry: u64,
    /// What PR_SET_MM_MAP is told.
    layout: [u64; 13],
    stack: Built,
}

impl Preparation {
    /// Does all that can be undone, but for signals and restartable sequences.
    pub fn new() -> Result<Self, Error> {
        let facts = Facts::read()?;
        let program = Image::open("/proc/self/exe")?;
        let loader = Image::open(program.loader.as_deref().ok_or(Error::Static)?)?;
        let old_headers = facts.auxiliary(libc::AT_PHDR).ok_or(Error::Static)?;
        let areas = maps::read()?;
        if let Some(area) = areas.iter().find(|area| area.range.start < ARENA.end) {
            return Err(Error::Occupied(area.range.start));
        }

        let [jitter, at_program, at_loader, at_stack, at_pages, random @ ..] = kernel::random::<7>()?;
        let reserve = |range| Reservation::new(range).map_err(Error::refused("a reservation"));
        let own = reserve(OWN.start - jitter % JITTER / PAGE * PAGE..OWN.end)?;
        let bias = place(0, program.span(), LARGE, at_program)?;
        let loader_bias = place(1, loader.span(), LARGE, at_loader)?;
        program.map(&own, bias)?;
        loader.map(&own, loader_bias)?;

        let pages_span = KernelsPages::span(&areas);
        let pages_bias = place(3, pages_span.clone(), PAGE, at_pages)?;
        let mut contents = contents(&facts, random)?;
        for (kind, value) in &mut contents.auxiliary {
            match *kind {
                libc::AT_PHDR => *value = program.headers.wrapping_add(bias),
                libc::AT_PHNUM => *value = program.header_count,
                libc::AT_ENTRY => *value = program.entry.wrapping_add(bias),
                libc::AT_BASE => *value = loader_bias,
                libc::AT_SYSINFO_EHDR => *value = value.wrapping_add(pages_bias),
                _ => {}
            }
        }
        let stack = build_stack(&contents, &own, at_stack)?;
        let layout = layout(&program, bias, &stack);

        let low = LOWEST.iter().find_map(|start| Reservation::new(*start..USABLE.start).ok());
        let low = low.ok_or_else(|| Error::refused("a reservation")(io::Error::last_os_error()))?;
        let gaps = reserve_gaps(&areas)?;
        check_placement(&own)?;
        let pages = KernelsPages::move_to(&areas, &own, pages_span.start.wrapping_add(pages_bias))?;
        let entry = loader.entry.wrapping_add(loader_bias);
        let bias = program.headers.wrapping_add(bias).wrapping_sub(old_headers);
        Ok(Self { _gaps: gaps, _low: low, _pages: pages, own, facts, bias, entry, layout, stack })
    }

    /// Starts the program over. Returns only if that failed; it is undone then.
    pub fn go(self) -> Error {
        let sequences = match Sequences::unregister(&self.facts) {
            Ok(sequences) => sequences,
            Err(error) => return error,
        };
        let signals = Signals::reset();
        // Below the stack's contents, where the loader's stack comes to lie.
        let at_layout = (self.stack.pointer - 2048) & !15;
        let at_calls = at_layout - 1024;
        let flags = (RESERVE | libc::MAP_FIXED) as u64;
        let calls = [
            // Everything that was mapped before lies above the arena.
            (libc::SYS_mmap, [USABLE.end, USER_END - USABLE.end, libc::PROT_NONE as u64, flags, u64::MAX, 0]),
            // For ps(1) and such, and nothing else: a kernel may be built without.
            (
                libc::SYS_prctl,
                [libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64, at_layout, size_of_val(&self.layout) as u64, 0, 0],
            ),
        ];
        let calls = calls.map(|(number, [a, b, c, d, e, f])| Call([number as u64, a, b, c, d, e, f]));
        self.own.write(at_layout, &self.layout.map(u64::to_ne_bytes).concat());
        self.own.write(at_calls, &calls.iter().flat_map(Call::bytes).collect::<Vec<_>>());
        // SAFETY: the program is mapped again at this distance, as are its loader and a stack with the list and what it
        // leads to, all in the arena; nothing of what is elsewhere is needed by them: no thread, no handler, no area that
        // the kernel writes to.
        let number = unsafe { leap(self.bias, at_calls, calls.len() as u64, self.stack.pointer, self.entry) };
        drop((signals, sequences));
        Error::Refused { what: "to unmap the old program", source: io::Error::from_raw_os_error(number) }
    }
}

/// How far to move what covers `span` so that it lies at a random place in a quarter of [`OWN`], aligned to `large` bytes
/// if it has that many.
fn place(quarter: u64, span: Range<u64>, large: u64, random: u64) -> Result<u64, Error> {
    let length = span.end - span.start;
    let alignment = if length >= large { large } else { PAGE };
    let room = (OWN.end - OWN.start) / 4;
    // What is left free on both sides keeps neighbours apart.
    let places = room.checked_sub(length + 2 * alignment).ok_or_else(|| Error::Refused {
        what: "a new mapping of the program",
        source: io::ErrorKind::OutOfMemory.into(),
    })?;
    let start = OWN.start + quarter * room + alignment + random % places;
    Ok((start / alignment * alignment).wrapping_sub(span.start))
}

/// What the program is given again, with the old values in the auxiliary vector.
fn contents(facts: &Facts, random: [u64; 2]) -> Result<Contents, Error> {
    let arguments: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
    if arguments.is_empty() {
        return Err(Error::Arguments);
    }
    let strings = [libc::AT_PLATFORM, libc::AT_EXECFN].map(|kind| (kind, facts.auxiliary_string(kind)));
    let strings = strings.into_iter().filter_map(|(kind, string)| Some((kind, string?)));
    let random = (libc::AT_RANDOM, random.map(u64::to_ne_bytes).concat());
    Ok(Contents {
        arguments,
        environment: kernel::environment(),
        auxiliary: facts.auxiliary.clone(),
        others: strings.chain([random]).collect(),
    })
}

/// Maps a stack of the size that the program's limit has, between pages that stay reserved, and fills it.
fn build_stack(contents: &Contents, own: &Reservation, random: u64) -> Result<Built, Error> {
    let wanted = match kernel::limit(libc::RLIMIT_STACK) {
        libc::RLIM_INFINITY => STACK,
        limit => limit.min(MOST_STACK),
    };
    // How much is needed does not depend on where it is.
    let needed = contents.build(1 << 40).bytes.len() as u64 + LEAST_STACK;
    let size = page_up(wanted.max(needed));
    let start = place(2, 0..size, PAGE, random)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    own.map(start..start + size, protection, None).map_err(Error::refused("a stack"))?;
    let built = contents.build(start + size);
    own.write(built.pointer, &built.bytes);
    Ok(built)
}

/// `struct prctl_mm_map` (Linux, include/uapi/linux/prctl.h): what /proc shows of the process. The heap of
/// brk(2) is in the upper guard, where it can never grow: the C library then maps its own.
fn layout(program: &Image, bias: u64, stack: &Built) -> [u64; 13] {
    let (code, data) = program.code_and_data();
    let Built { pointer, arguments, environment, auxiliary, .. } = stack;
    let there = |address: u64| address.wrapping_add(bias);
    // The last: the bytes of the auxiliary vector, and no file instead of the program's.
    let last = (auxiliary.end - auxiliary.start) | u64::from(u32::MAX) << 32;
    [
        there(code.start),
        there(code.end),
        there(data.start),
        there(data.end),
        USABLE.end,
        USABLE.end,
        *pointer,
        arguments.start,
        arguments.end,
        environment.start,
        environment.end,
        auxiliary.start,
        last,
    ]
}

/// Reserves what is free above the arena, but for small gaps and the ends of large ones.
fn reserve_gaps(areas: &[Area]) -> Result<Vec<Reservation>, Error> {
    let starts = std::iter::once(USABLE.end).chain(areas.iter().map(|area| area.range.end + MARGIN));
    let ends = areas.iter().map(|area| area.range.start.min(USER_END).saturating_sub(MARGIN)).chain([USER_END]);
    let gaps = starts.zip(ends).filter(|(start, end)| *start + MARGIN <= *end);
    gaps.map(|(start, end)| Reservation::new(start..end).map_err(Error::refused("a reservation"))).collect()
}

/// Whether the kernel places a mapping that is larger than any gap that was left in the arena, where it is free.
fn check_placement(own: &Reservation) -> Result<(), Error> {
    let free = USABLE.start..own.range().start;
    match Reservation::anywhere(4 * MARGIN) {
        Ok(probe) if free.start <= probe.range().start && probe.range().end <= free.end => Ok(()),
        _ => Err(Error::Placement),
    }
}
