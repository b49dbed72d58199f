//! The walk proper (SDM 3A 4.3 to 4.8).
//!
//! One attempt reads the entries from the root down, noting where they were found. When the access turns out to be
//! permitted, the notes are used to set the accessed flags and, for a write, the leaf's dirty flag; an access that
//! faults changes nothing. If an entry was changed by another processor in between, the attempt starts anew.

use super::{ADDRESS, Access, AccessKind, PagingContext, PagingMode, PhysicalMemory, Translation};
use crate::bits::page_fault;
use crate::exception::Exception;

/// Entry: present.
const PRESENT: u64 = 1 << 0;
/// Entry: writable.
const WRITABLE: u64 = 1 << 1;
/// Entry: user mode may access.
const USER: u64 = 1 << 2;
/// Entry: accessed.
const ACCESSED: u64 = 1 << 5;
/// Leaf: dirty.
const DIRTY: u64 = 1 << 6;
/// Entry above the lowest level: a leaf (page size).
const LARGE: u64 = 1 << 7;
/// Leaf: global.
const GLOBAL: u64 = 1 << 8;
/// 8-byte entry: execution forbidden.
const NO_EXECUTE: u64 = 1 << 63;
/// PAE's top level: bits 1, 2 and 5 to 8 are reserved (SDM 3A table 4-8).
const PDPTE_RESERVED: u64 = 0x1e6;

/// How often an attempt may lose the race for an entry. A processor that loses this often in a row gets a page fault
/// "not present", which an operating system must take for a spurious one and retry.
const ATTEMPTS: u32 = 256;

/// An entry and where it was found.
#[derive(Clone, Copy, Default)]
struct Step {
    address: u64,
    entry: u64,
}

/// The entries of one attempt, root first, and what follows from them.
struct Path {
    steps: [Step; 4],
    depth: usize,
    translation: Translation,
}

/// Why an attempt ended early.
enum Miss {
    /// An entry is not present.
    NotPresent,
    /// A reserved bit is set.
    Reserved,
}

/// Translates `linear` for `access`.
///
/// In 4-level mode the caller has checked that `linear` is canonical; in the other modes its upper half is ignored.
///
/// # Errors
///
/// The page fault to deliver, with its error code (SDM 3A 4.7) and `linear` as the address.
pub fn walk<M: PhysicalMemory + ?Sized>(
    memory: &M,
    context: &PagingContext,
    linear: u64,
    access: Access,
) -> Result<Translation, Exception> {
    for _ in 0..ATTEMPTS {
        let path = match context.mode {
            PagingMode::None => return Ok(Translation::identity(linear)),
            PagingMode::Bits32 => follow_32(memory, context, linear),
            PagingMode::Pae => follow_64(memory, context, linear & 0xffff_ffff, 30),
            PagingMode::FourLevel => follow_64(memory, context, linear, 39),
        };
        let mut path = match path {
            Ok(path) => path,
            Err(Miss::NotPresent) => return Err(fault(context, access, linear, 0)),
            Err(Miss::Reserved) => {
                return Err(fault(context, access, linear, page_fault::PRESENT | page_fault::RESERVED));
            }
        };
        if !path.translation.permits(context, access) {
            return Err(fault(context, access, linear, page_fault::PRESENT));
        }
        if mark(memory, context, &mut path, access) {
            return Ok(path.translation);
        }
    }
    Err(fault(context, access, linear, 0))
}

/// The page fault with error code bits `reason` and those that describe the access.
#[cold]
fn fault(context: &PagingContext, access: Access, linear: u64, reason: u32) -> Exception {
    let mut code = reason;
    if access.user {
        code |= page_fault::USER;
    }
    match access.kind {
        AccessKind::Read => {}
        AccessKind::Write => code |= page_fault::WRITE,
        AccessKind::Execute if context.reports_fetch => code |= page_fault::FETCH,
        AccessKind::Execute => {}
    }
    Exception::page_fault(code, linear)
}

/// Follows 8-byte entries, the first of which is selected by the bits of `linear` from `shift` up.
#[inline]
fn follow_64<M: PhysicalMemory + ?Sized>(
    memory: &M,
    context: &PagingContext,
    linear: u64,
    top_shift: u32,
) -> Result<Path, Miss> {
    let mut steps = [Step::default(); 4];
    let mut depth = 0;
    let mut table = context.root;
    let mut shift = top_shift;
    let mut allowed = USER | WRITABLE;
    let mut forbidden = 0;
    loop {
        let address = table + ((linear >> shift) & 0x1ff) * 8;
        let entry = memory.read_u64(address).unwrap_or(u64::MAX);
        if entry & PRESENT == 0 {
            return Err(Miss::NotPresent);
        }
        if context.mode == PagingMode::Pae && shift == 30 {
            // These four have neither permissions nor an accessed flag, and bit 63 is reserved whatever EFER.NXE.
            if entry & (context.reserved | NO_EXECUTE | PDPTE_RESERVED) != 0 {
                return Err(Miss::Reserved);
            }
            table = entry & ADDRESS;
            shift = 21;
            continue;
        }
        steps[depth] = Step { address, entry };
        depth += 1;
        allowed &= entry;
        forbidden |= entry;
        let leaf = shift == 12 || (shift < 39 && entry & LARGE != 0);
        let mut reserved = context.reserved;
        if shift == 39 {
            reserved |= LARGE;
        } else if leaf && shift > 12 {
            // Between the PAT bit (12) and the page's address (SDM 3A tables 4-16, 4-18).
            reserved |= (1 << shift) - (1 << 13);
        }
        if entry & reserved != 0 {
            return Err(Miss::Reserved);
        }
        if leaf {
            let offset = (1u64 << shift) - 1;
            let translation = Translation {
                gpa: (entry & ADDRESS & !offset) | (linear & offset),
                page_size: 1 << shift,
                user: allowed & USER != 0,
                writable: allowed & WRITABLE != 0,
                executable: forbidden & NO_EXECUTE == 0,
                dirty: entry & DIRTY != 0,
                global: entry & GLOBAL != 0,
            };
            return Ok(Path { steps, depth, translation });
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
}

/// Follows 4-byte entries.
#[inline]
fn follow_32<M: PhysicalMemory + ?Sized>(memory: &M, context: &PagingContext, linear: u64) -> Result<Path, Miss> {
    let read = |address| u64::from(memory.read_u32(address).unwrap_or(u32::MAX));
    let mut steps = [Step::default(); 4];
    let address = context.root + ((linear >> 22) & 0x3ff) * 4;
    let directory = read(address);
    steps[0] = Step { address, entry: directory };
    if directory & PRESENT == 0 {
        return Err(Miss::NotPresent);
    }
    if context.large_4m && directory & LARGE != 0 {
        if directory & context.reserved_4m != 0 {
            return Err(Miss::Reserved);
        }
        let base = (directory & 0xffc0_0000) | ((directory >> 13) & 0xff) << 32;
        let translation = Translation {
            gpa: base | (linear & 0x3f_ffff),
            page_size: 1 << 22,
            user: directory & USER != 0,
            writable: directory & WRITABLE != 0,
            executable: true,
            dirty: directory & DIRTY != 0,
            global: directory & GLOBAL != 0,
        };
        return Ok(Path { steps, depth: 1, translation });
    }
    let address = (directory & 0xffff_f000) + ((linear >> 12) & 0x3ff) * 4;
    let entry = read(address);
    steps[1] = Step { address, entry };
    if entry & PRESENT == 0 {
        return Err(Miss::NotPresent);
    }
    let allowed = directory & entry;
    let translation = Translation {
        gpa: (entry & 0xffff_f000) | (linear & 0xfff),
        page_size: 1 << 12,
        user: allowed & USER != 0,
        writable: allowed & WRITABLE != 0,
        executable: true,
        dirty: entry & DIRTY != 0,
        global: entry & GLOBAL != 0,
    };
    Ok(Path { steps, depth: 2, translation })
}

/// Sets the accessed flags of a path and, for a write, its dirty flag (SDM 3A 4.8). False: an entry is no longer
/// what it was, and the walk has to start anew.
#[inline]
fn mark<M: PhysicalMemory + ?Sized>(memory: &M, context: &PagingContext, path: &mut Path, access: Access) -> bool {
    let leaf = path.depth - 1;
    for (index, step) in path.steps[..path.depth].iter().enumerate() {
        let mut marked = step.entry | ACCESSED;
        if index == leaf && access.kind == AccessKind::Write {
            marked |= DIRTY;
        }
        if marked == step.entry {
            continue;
        }
        let swapped = if context.mode == PagingMode::Bits32 {
            memory.compare_exchange_u32(step.address, step.entry as u32, marked as u32)
        } else {
            memory.compare_exchange_u64(step.address, step.entry, marked)
        };
        // Outside RAM the write goes nowhere, as on a bus.
        if swapped == Some(false) {
            return false;
        }
    }
    path.translation.dirty |= access.kind == AccessKind::Write;
    true
}
