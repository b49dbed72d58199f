//! Blocks by physical address: where emitted code looks when the jump cache does not know a linear one.
//!
//! The jump cache of an address space that is new is empty, though most of its code has long been translated for others:
//! what a shell starts would come to the dispatcher thousands of times. So there are two more tables:
//!
//! ```text
//! linear page     --  Known::fetches, in each region, by who runs it          -->  physical page
//! physical address, mode  --  Blocks, one per vCPU, which all regions show     -->  where the block is entered
//! ```
//!
//! Rust fills both with what a lookup found ([`Regions::learn_block`]). Emitted code puts what they say into the jump
//! cache and logs the slot in [`Known`], for flushes to find. The first table is flushed like the jump cache, and
//! whatever it holds was found by the dispatcher, with all that is due there, since then; the second one holds until the
//! code cache is emptied, because a block that is dropped leads to the dispatcher from then on.
#![expect(unsafe_code, reason = "the tables lie behind the GS base, shared with emitted code")]
// UNSAFETY: all accesses are within what `Regions` has mapped, by the thread whose it is; slots are masked.

use std::mem::offset_of;

use super::{JUMP_HASH, JumpEntry, Regions, jump_hash};
use crate::asm::{Asm, Mem, R11, RAX, RCX, RDX, Size, gs, gs_index};
use crate::branch_table;
use crate::cpu::{JUMP_OFFSET, KNOWN_OFFSET, off};
use crate::mode::Mode;
use crate::stubs::jump_slot;

/// Linear pages that are known at a time, of each kind of code: two to the power of this.
const FETCHES_LOG: u32 = 12;
const FETCHES: usize = 1 << FETCHES_LOG;
/// Linear pages that the log of filled slots tells apart.
const FILLED: usize = 256;
/// Slots of the jump cache that emitted code fills between two flushes.
const FILLS: usize = 1000;
/// Blocks that are known at a time.
const BLOCKS: usize = 1 << 15;
/// Bytes of the table of blocks.
pub const BYTES: usize = BLOCKS * size_of::<Block>();
/// Where it is in a region.
pub const OFFSET: usize = branch_table::OFFSET + branch_table::BYTES;
/// What a physical address is marked with where the block is one of a large page.
const LARGE: u64 = 1 << 62;

/// Where a linear page lies.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Fetch {
    /// The linear page's number, inverted; no page's is zero.
    page: u64,
    /// What makes a physical address of a linear one.
    delta: u64,
}

/// Where the block for a physical address is entered.
#[derive(Clone, Copy)]
#[repr(C)]
struct Block {
    /// The address, inverted. The slot says for which mode, as in the jump cache.
    address: u64,
    host: u64,
}

/// What a region knows of linear pages that hold code.
#[repr(C)]
pub struct Known {
    /// By who runs what lies there ([`row`]).
    fetches: [[Fetch; FETCHES]; 3],
    /// Not 0: the log may have slots for a page of this slot.
    filled: [u32; FILLED],
    /// Slots of the jump cache that emitted code has filled, times 8.
    length: u32,
    log: [u16; FILLS],
}

impl Regions {
    #[expect(clippy::mut_from_ref, reason = "it lies in a mapping that only the owning thread changes")]
    fn known(&self, n: usize) -> &mut Known {
        // SAFETY: within the region, zeroed at first, plain data that this thread owns while it is not in emitted code.
        unsafe { &mut *self.region(n).add(KNOWN_OFFSET).cast::<Known>() }
    }

    /// Remembers that the block for `linear` in the current address space, which lies in one page, is entered at
    /// `host`; `salt` is the mode's.
    pub fn learn_block(&mut self, linear: u64, mode: Mode, salt: u32, host: u64) {
        let Some(translation) = self.fetch(linear) else { return };
        let large = if translation.page_size > 4096 { LARGE } else { 0 };
        let address = translation.gpa | large;
        let page = linear >> 12;
        // What is kept where global pages are: the supervisor's pages, and slots for the upper half.
        let may_be_kept = !mode.has(Mode::USER) || linear >> 63 != 0;
        self.meta[self.current].knows_passing |= may_be_kept && !translation.global;
        let (row, place) = (row(mode), page as usize % FETCHES);
        let fetch = Fetch { page: !page, delta: address.wrapping_sub(linear) };
        if std::mem::replace(&mut self.known(self.current).fetches[row][place], fetch).page == 0 {
            self.meta[self.current].fetched.push((row as u8, place as u16));
        }
        let hash = jump_hash(address, 0, salt);
        // SAFETY: the table is in each region, and no emitted code of this thread runs.
        let block = unsafe { &mut *self.region(0).add(OFFSET).cast::<Block>().add(hash as usize % BLOCKS) };
        *block = Block { address: !address, host };
        self.meta[self.current].knows = true;
    }

    /// Forgets all blocks, and gives the table's memory back.
    pub fn forget_blocks(&mut self) {
        // SAFETY: the mapping is of this length, and shared memory, which is zero afterwards.
        let removed = unsafe { libc::madvise(self.region(0).add(OFFSET).cast(), BYTES, libc::MADV_REMOVE) };
        debug_assert_eq!(removed, 0, "it is a mapping of a file in memory");
    }

    /// Forgets what a region knows of linear pages, and the ways to code that emitted code has made of it.
    pub(super) fn forget_known(&mut self, n: usize) {
        if !std::mem::take(&mut self.meta[n].knows) {
            return;
        }
        let mut fetched = std::mem::take(&mut self.meta[n].fetched);
        let known = self.known(n);
        for &slot in known.log.iter().take(known.length as usize) {
            self.clear_jump(n, usize::from(slot / 8));
        }
        known.filled = [0; FILLED];
        known.length = 0;
        for (row, place) in fetched.drain(..) {
            known.fetches[usize::from(row)][usize::from(place)] = Fetch::default();
        }
        self.meta[n].fetched = fetched;
    }

    /// The same but for what is in global pages.
    pub(super) fn forget_known_but_global(&mut self, n: usize) {
        if std::mem::take(&mut self.meta[n].knows_passing) {
            return self.forget_known(n);
        }
        if !self.meta[n].knows {
            return;
        }
        let mut fetched = std::mem::take(&mut self.meta[n].fetched);
        let known = self.known(n);
        let mut kept = 0;
        for place in 0..known.length as usize {
            let slot = known.log[place];
            // What the supervisor runs in the upper half is in global pages, as long as nothing passing is known.
            if self.jump(n, usize::from(slot / 8), 0).linear >> 63 != 0 {
                known.log[kept] = slot;
                kept += 1;
            } else {
                self.clear_jump(n, usize::from(slot / 8));
            }
        }
        known.length = kept as u32;
        fetched.retain(|&(row, place)| {
            if row != 0 {
                known.fetches[usize::from(row)][usize::from(place)] = Fetch::default();
            }
            row == 0
        });
        self.meta[n].fetched = fetched;
    }

    /// The same for one linear page.
    pub(super) fn forget_known_page(&mut self, n: usize, page: u64) {
        let place = page as usize % FETCHES;
        let mut any = false;
        for fetches in &mut self.known(n).fetches {
            any |= std::mem::take(&mut fetches[place]).page != 0;
        }
        if any {
            self.meta[n].fetched.retain(|&(_, other)| usize::from(other) != place);
        }
        let known = self.known(n);
        if known.filled[page as usize % FILLED] == 0 {
            return;
        }
        for &slot in known.log.iter().take(known.length as usize) {
            let slot = usize::from(slot / 8);
            if self.jump(n, slot, 0).linear >> 12 == page {
                self.clear_jump(n, slot);
            }
        }
    }
}

/// The row of a mode: the supervisor's, users', and mirrored programs', whose code the mirror has to know of.
fn row(mode: Mode) -> usize {
    match mode {
        _ if mode.has(Mode::MIRRORED) => 2,
        _ => usize::from(mode.has(Mode::USER)),
    }
}

const fn of(offset: usize) -> i32 {
    (KNOWN_OFFSET + offset) as i32
}

/// Goes to the block for the linear address in R11 if both tables know it, else to `miss`. No flags.
pub fn emit(asm: &mut Asm, mode: Mode, salt: u32, miss: u64) {
    const _: () = assert!(size_of::<Fetch>() == 16 && size_of::<Block>() == 16 && size_of::<JumpEntry>() == 16);
    const _: () = assert!(FILLED == 1 << 8 && BLOCKS == 1 << 15);
    let fetches = of(offset_of!(Known, fetches)) + (row(mode) * FETCHES * 16) as i32;
    let field = |offset: usize| gs(of(offset));
    let sum = |base, index, disp| Mem { gs: false, base: Some(base), index: Some((index, 0)), disp };
    let times = |index, scale| Mem { gs: false, base: None, index: Some((index, scale)), disp: 0 };
    let (unknown, fill, go) = (asm.label(), asm.label(), asm.label());
    let (rotate, shift) = JUMP_HASH[0];
    asm.store(gs(off::spill(0)), RDX);
    asm.store(gs(off::spill(1)), RAX);
    asm.mov_imm32(RCX, 64 - 12 - FETCHES_LOG);
    asm.shlx(RAX, R11, RCX);
    asm.mov_imm32(RCX, 64 - FETCHES_LOG);
    asm.shrx(RAX, RAX, RCX);
    asm.mov_imm32(RCX, 12);
    asm.shrx(RDX, R11, RCX);
    asm.lea32(RAX, times(RAX, 3));
    asm.load(RCX, gs_index(RAX, 1, fetches));
    asm.lea(RCX, sum(RCX, RDX, 1));
    asm.unless_rcx_zero(|asm| asm.jmp(unknown));
    asm.load(RDX, gs_index(RAX, 1, fetches + 8));
    asm.lea(RDX, sum(RDX, R11, 0));
    asm.rorx(RCX, RDX, rotate);
    asm.lea32_salt(RCX, RCX, (RDX, shift), salt);
    // The slot twice in 16 bits, then times 8 by the scale.
    asm.lea32(RCX, times(RCX, 1));
    asm.movzx16(RCX, RCX);
    asm.load(RAX, gs_index(RCX, 3, OFFSET as i32));
    asm.lea(RAX, sum(RAX, RDX, 1));
    asm.mov(RDX, RCX);
    asm.mov(RCX, RAX);
    asm.unless_rcx_zero(|asm| asm.jmp(unknown));
    asm.load(RAX, gs_index(RDX, 3, OFFSET as i32 + 8));
    asm.load32(RCX, field(offset_of!(Known, length)));
    asm.lea32(RCX, crate::asm::at(RCX, -(FILLS as i32)));
    asm.unless_rcx_zero(|asm| asm.jmp(fill));
    asm.bind(go);
    asm.mov(RCX, RAX);
    asm.load(RAX, gs(off::spill(1)));
    asm.load(RDX, gs(off::spill(0)));
    if mode.is_mirrored() {
        branch_table::fill(asm, salt);
    }
    asm.jmp_reg(RCX);
    asm.bind(fill);
    jump_slot(asm, salt, 0);
    asm.store(gs_index(RDX, 1, JUMP_OFFSET as i32), R11);
    asm.store(gs_index(RDX, 1, JUMP_OFFSET as i32 + 8), RAX);
    asm.load32(RCX, field(offset_of!(Known, length)));
    asm.store_sized(Size::B2, gs_index(RCX, 1, of(offset_of!(Known, log))), RDX);
    asm.lea32(RCX, crate::asm::at(RCX, 1));
    asm.store32(field(offset_of!(Known, length)), RCX);
    asm.rorx(RCX, R11, 12);
    asm.movzx8(RCX, RCX);
    asm.store_imm32(gs_index(RCX, 2, of(offset_of!(Known, filled))), 1);
    asm.jmp(go);
    asm.bind(unknown);
    asm.load(RAX, gs(off::spill(1)));
    asm.load(RDX, gs(off::spill(0)));
    asm.jmp_to(miss);
}
