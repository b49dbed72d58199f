//! A TLB miss in emitted code: the walk of four-level page tables and the filling of the entry.
//!
//! The stub stands where emitted accesses call for [`crate::access::memory`]. It does the common case by itself: 64-bit
//! addresses, CR0.WP set, every entry present with its accessed flag set, pages of 4 KiB and 2 MiB in RAM, and an access
//! that is then permitted. Whatever else comes is left to Rust as if nothing had happened: flags to be set in entries,
//! faults, devices, accesses over two pages, stores beside translated code. The two must agree on what an entry holds
//! ([`crate::tlb::Regions::fill`]); the conformance suite runs each case through both.
//!
//! That a page may be written is noted before it is looked whether it holds code, as [`crate::memory`] says.

use lodge_x86::bits::{cr0, cr4};
use lodge_x86::paging::{PagingContext, PagingMode};

use crate::asm::{Asm, Label, Mem, R9, R11, RAX, RCX, RDI, RDX, RSI, Reg, at, cond, gs, gs_at};
use crate::cpu::{Cpu, TLB_OFFSET, off};
use crate::emit::probe::argument;
use crate::memory::{HIDDEN, REFUSING, WRITABLE};
use crate::tlb::{BLOOM_HASH, GLOBAL, HOST_OFFSET, LOG, PAGE_OFFSET, TLB_ENTRIES, tag_offset};

const R8: Reg = Reg(8);

/// What the stub needs to know of paging and of RAM.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// Physical address of the root table; 0: leave all walks to Rust.
    pub root: u64,
    /// Reserved bits of every entry.
    pub reserved: u64,
    /// The address in an entry.
    pub address: u64,
    /// All ones under CR4.SMAP.
    pub smap: u64,
    /// The largest pieces of RAM.
    pub ram: [View; 2],
    /// Registers that the stub uses, and the flags.
    pub saved: [u64; 8],
}

/// A piece of RAM.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct View {
    /// Its first physical address.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// Where it lies on the host.
    pub host: u64,
    /// Its pages' marks ([`crate::memory::Ram`]), a byte each.
    pub pages: u64,
}

const PRESENT_ACCESSED: i32 = 0x21;
const WRITABLE_ENTRY: i32 = 2;
const USER_ENTRY: u32 = 4;
const LARGE_ENTRY: u32 = 0x80;
const GLOBAL_SHIFT: u8 = 8;

impl Cpu {
    /// To be called when control registers or address line 20 have changed.
    pub fn renew_walk(&mut self, paging: &PagingContext) {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let line_20 = self.context().shared.ram.line_20();
        let open = paging.mode == PagingMode::FourLevel && self.cr0 & cr0::WP != 0 && line_20;
        self.walk.root = if open { paging.root } else { 0 };
        self.walk.reserved = paging.reserved();
        self.walk.address = ADDRESS;
        self.walk.smap = if self.cr4 & cr4::SMAP != 0 { u64::MAX } else { 0 };
    }
}

/// Where the walk's saved registers are.
const SAVED: [Reg; 6] = [RDX, RSI, RDI, R8, R9, RCX];

/// Emits the stub; `slow` is the one that calls Rust.
pub fn emit(asm: &mut Asm, slow: u64) -> u64 {
    asm.align(16, 0);
    let here = asm.here();
    let (give_up, done) = (asm.label(), asm.label());
    asm.store(gs(off::walk_saved(6)), RAX);
    asm.save_flags_in_rax();
    asm.store(gs(off::walk_saved(7)), RAX);
    for (n, reg) in (0u8..).zip(SAVED) {
        asm.store(gs(off::walk_saved(n)), reg);
    }
    check(asm, give_up);
    let large = asm.label();
    let leaf = asm.label();
    tables(asm, large, give_up);
    asm.load(RDX, gs(off::WALK_ADDRESS));
    asm.and(RDX, RSI);
    asm.bind(leaf);
    fill(asm, give_up);
    // Whether this access is one of those that the entry now permits.
    asm.load32(RCX, gs(off::walk_saved(5)));
    asm.shr_imm(RCX, argument::CONTEXT_SHIFT as u8);
    let tag = Mem { gs: true, base: Some(R8), index: Some((RCX, 3)), disp: gs(TLB_OFFSET as i32).disp };
    asm.cmp_mem(RDX, tag);
    asm.jcc(cond::NE, give_up);
    asm.and32_imm(R11, 4095);
    asm.add(R11, RSI);
    asm.bind(done);
    restore(asm);
    asm.ret();
    asm.bind(give_up);
    restore(asm);
    asm.jmp_to(slow);

    asm.bind(large);
    asm.test32_imm(RSI, 0x1f_e000);
    asm.jcc(cond::NE, give_up);
    note_large(asm);
    asm.load(RDX, gs(off::WALK_ADDRESS));
    asm.and(RDX, RSI);
    asm.and_imm(RDX, -(2 << 20));
    asm.mov32(RAX, R11);
    asm.and32_imm(RAX, 0x1f_f000);
    asm.or(RDX, RAX);
    asm.jmp(leaf);
    here
}

fn restore(asm: &mut Asm) {
    for (n, reg) in (0u8..).zip(SAVED) {
        asm.load(reg, gs(off::walk_saved(n)));
    }
    asm.load(RAX, gs(off::walk_saved(7)));
    asm.restore_flags_from_rax();
    asm.load(RAX, gs(off::walk_saved(6)));
}

/// What can be seen without the tables: R8 = the slot's offset in the TLB.
fn check(asm: &mut Asm, give_up: Label) {
    asm.test32_imm(RCX, argument::OFFSET);
    asm.jcc(cond::NE, give_up);
    // Canonical (SDM 1 3.3.7.1).
    asm.mov(RSI, R11);
    asm.shl_imm(RSI, 16);
    asm.sar_imm(RSI, 16);
    asm.cmp(RSI, R11);
    asm.jcc(cond::NE, give_up);
    // Within a page: and if it has to be aligned, it is.
    asm.mov32(RSI, RCX);
    asm.and32_imm(RSI, argument::SIZE as i32);
    asm.mov32(RDI, R11);
    asm.and32_imm(RDI, 4095);
    asm.add(RDI, RSI);
    asm.cmp_imm(RDI, 4096);
    asm.jcc(cond::A, give_up);
    let aligned = asm.label();
    asm.test32_imm(RCX, argument::ALIGNED);
    asm.jcc(cond::E, aligned);
    asm.lea32(RSI, at(RSI, -1));
    asm.test32(RSI, R11);
    asm.jcc(cond::NE, give_up);
    asm.bind(aligned);
    // The first and the last slot have an empty form of their own.
    asm.rorx(R8, R11, 6);
    asm.and32_imm(R8, ((TLB_ENTRIES - 1) << 6) as i32);
    asm.lea32(RSI, at(R8, -64));
    asm.cmp32_imm(RSI, ((TLB_ENTRIES - 2) << 6) as i32);
    asm.jcc(cond::AE, give_up);
    asm.load(RDX, gs(off::WALK_ROOT));
    asm.test32(RDX, RDX);
    asm.jcc(cond::E, give_up);
}

/// From the root in RDX to the leaf's entry: RSI is the entry, RDI has what all entries permit.
fn tables(asm: &mut Asm, large: Label, give_up: Label) {
    for shift in [39u8, 30, 21, 12] {
        asm.rorx(RSI, R11, shift - 3);
        asm.and32_imm(RSI, 0xff8);
        asm.add(RDX, RSI);
        to_host(asm, give_up, false);
        asm.load(RSI, at(RCX, 0));
        asm.mov32(RAX, RSI);
        asm.and32_imm(RAX, PRESENT_ACCESSED);
        asm.cmp32_imm(RAX, PRESENT_ACCESSED);
        asm.jcc(cond::NE, give_up);
        asm.mov(RAX, RSI);
        asm.and_mem(RAX, gs(off::WALK_RESERVED));
        asm.jcc(cond::NE, give_up);
        if shift == 39 {
            asm.mov32(RDI, RSI);
        } else {
            asm.and32(RDI, RSI);
        }
        if shift != 12 {
            asm.test32_imm(RSI, LARGE_ENTRY);
            // In the root it is reserved; a page of 1 GiB is Rust's.
            asm.jcc(cond::NE, if shift == 21 { large } else { give_up });
            asm.load(RDX, gs(off::WALK_ADDRESS));
            asm.and(RDX, RSI);
        }
    }
}

/// RCX = where the physical address in RDX lies on the host. With `marks`, RDX = where its page's mark is.
fn to_host(asm: &mut Asm, give_up: Label, marks: bool) {
    let found = asm.label();
    for n in [0u8, 1] {
        let next = asm.label();
        asm.mov(RCX, RDX);
        asm.sub_mem(RCX, gs(off::walk_view(n).start));
        asm.cmp_mem(RCX, gs(off::walk_view(n).length));
        asm.jcc(cond::AE, if n == 0 { next } else { give_up });
        if marks {
            asm.mov(RDX, RCX);
            asm.shr_imm(RDX, 12);
            asm.add_mem(RDX, gs(off::walk_view(n).pages));
        }
        asm.add_mem(RCX, gs(off::walk_view(n).host));
        if n == 0 {
            asm.jmp(found);
        }
        asm.bind(next);
    }
    asm.bind(found);
}

/// Notes that an entry of a large page is about to be filled, as [`crate::tlb`] wants it. Writes RAX and RCX.
fn note_large(asm: &mut Asm) {
    asm.mov(RAX, R11);
    asm.shr_imm(RAX, 22);
    asm.mov_imm(RCX, BLOOM_HASH);
    asm.imul(RAX, RCX);
    asm.shr_imm(RAX, 52);
    asm.mov32(RCX, RAX);
    asm.shr_imm(RCX, 6);
    let word = Mem { gs: true, base: None, index: Some((RCX, 3)), disp: gs(off::RECORD_BLOOM).disp };
    asm.load(RDX, word);
    asm.bts(RDX, RAX);
    asm.store(word, RDX);
}

/// Fills the entry at R8 for the page in RDX, with the leaf's entry in RSI and the permissions in RDI. Leaves the
/// negated linear page in RDX and the page's host address in RSI.
fn fill(asm: &mut Asm, give_up: Label) {
    to_host(asm, give_up, true);
    // RAX: all ones if the page may be written without another look: writable, dirty, no code in it.
    let (unseen, noted, admitted) = (asm.label(), asm.label(), asm.label());
    asm.mov32(RAX, RSI);
    asm.shr_imm(RAX, 5);
    asm.and32(RAX, RDI);
    asm.and32_imm(RAX, WRITABLE_ENTRY);
    asm.test8_mem_imm(at(RDX, 0), HIDDEN);
    asm.jcc(cond::NE, give_up);
    asm.test8_mem_imm(at(RDX, 0), REFUSING);
    asm.jcc(cond::E, unseen);
    asm.mov_imm32(RAX, 0);
    asm.bind(unseen);
    asm.test32(RAX, RAX);
    asm.jcc(cond::E, noted);
    asm.test8_mem_imm(at(RDX, 0), WRITABLE);
    asm.jcc(cond::NE, noted);
    asm.lock_or8_mem_imm(at(RDX, 0), WRITABLE);
    asm.bind(noted);
    // Once more: it may have come to be watched before that was noted.
    asm.test8_mem_imm(at(RDX, 0), REFUSING);
    asm.jcc(cond::E, admitted);
    asm.mov_imm32(RAX, 0);
    asm.bind(admitted);
    asm.neg(RAX);
    asm.sbb(RAX, RAX);
    // The page, negated for tags, and as it is with its mark.
    asm.mov(RDX, R11);
    asm.and_imm(RDX, -4096);
    asm.shr_imm(RSI, GLOBAL_SHIFT);
    asm.and32_imm(RSI, GLOBAL as i32);
    asm.or(RSI, RDX);
    asm.neg(RDX);
    let field = |offset: i32| gs_at(R8, TLB_OFFSET as i32 + offset);
    asm.store(field(PAGE_OFFSET), RSI);
    asm.store(field(HOST_OFFSET), RCX);
    asm.mov(RSI, RCX);
    // RDI: all ones for a user page.
    asm.and32_imm(RDI, USER_ENTRY as i32);
    asm.neg(RDI);
    asm.sbb(RDI, RDI);
    for context in 0..3 {
        match context {
            // Supervisor under SMAP.
            0 => {
                asm.load(R9, gs(off::WALK_SMAP));
                asm.and(R9, RDI);
                asm.not(R9);
                asm.and(R9, RDX);
            }
            1 => {
                asm.mov(R9, RDI);
                asm.and(R9, RDX);
            }
            _ => asm.mov(R9, RDX),
        }
        asm.store(field(tag_offset(context, false)), R9);
        asm.and(R9, RAX);
        asm.store(field(tag_offset(context, true)), R9);
    }
    let full = asm.label();
    asm.load32(RCX, gs(off::RECORD_LENGTH));
    asm.cmp32_imm(RCX, LOG as i32);
    asm.jcc(cond::AE, full);
    asm.mov32(RAX, R8);
    asm.shr_imm(RAX, 6);
    let slot = Mem { gs: true, base: None, index: Some((RCX, 1)), disp: gs(off::RECORD_LOG).disp };
    asm.store_sized(crate::asm::Size::B2, slot, RAX);
    asm.lea32(RCX, at(RCX, 1));
    asm.store32(gs(off::RECORD_LENGTH), RCX);
    asm.bind(full);
}
