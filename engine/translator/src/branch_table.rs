//! Where indirect branches of the program that is mirrored lead: a look in one place, without flags.
//!
//! Two columns of 64 Ki entries, by the lower 16 bits of the linear address. The first holds what makes zero with the
//! address and the mode's salt, the second where the block is entered:
//!
//! ```text
//! movzx ecx, r11w; mov rcx, gs:[FIRST + rcx*8]; lea rcx, [rcx + r11 + salt]; jrcxz hit; jmp miss
//! hit: movzx ecx, r11w; jmp gs:[SECOND + rcx*8]
//! ```
//!
//! Salts are less than 64 Ki, so that in one entry no address matches with another mode's salt.
//!
//! Each vCPU has one table, and all of its regions show it. It is filled by the mirrored modes' stubs from the jump cache
//! ([`crate::stubs`]), and outlives flushes for as long as the program's code is where it was: [`crate::mirror`] counts
//! when that changes, and whoever flushes looks at the count.
#![expect(unsafe_code, reason = "the table lies behind the GS base, shared with emitted code")]
// UNSAFETY: all accesses are within the table that `Regions` has mapped, by the thread whose it is.

use crate::asm::{Asm, Label, Mem, R11, RCX, RDX, gs, gs_index};
use crate::cpu::off;

/// Entries of a column.
const ENTRIES: usize = 1 << 16;
/// Bytes of the table.
pub const BYTES: usize = 2 * ENTRIES * 8;
/// Where it is in a region.
pub const OFFSET: usize = 2 << 20;
const FIRST: i32 = OFFSET as i32;
const SECOND: i32 = FIRST + (ENTRIES * 8) as i32;
/// Salts are less than this.
pub const SALTS: u32 = 0x2000;

/// A vCPU's table.
pub struct BranchTable {
    base: *mut u64,
    /// What an entry that is empty leads to.
    miss: u64,
    /// The count at which it was last emptied, and the region for which.
    count: Option<(u64, usize)>,
}

impl BranchTable {
    /// The table in the [`BYTES`] of zeroes at `base`.
    pub fn new(base: *mut u64, miss: u64) -> Self {
        Self { base, miss, count: None }
    }

    /// Empties the table, unless that was done at this count and for this region.
    pub fn renew(&mut self, count: (u64, usize)) {
        if self.count != Some(count) {
            self.count = Some(count);
            self.empty();
        }
    }

    /// Gives the table's memory back. [`BranchTable::renew`] is due before the table is used again.
    pub fn forget(&mut self) {
        if self.count.take().is_some() {
            // SAFETY: the mapping is of this length, and shared memory, which is zero afterwards.
            let removed = unsafe { libc::madvise(self.base.cast(), BYTES, libc::MADV_REMOVE) };
            debug_assert_eq!(removed, 0, "it is a mapping of a file in memory");
        }
    }

    fn empty(&self) {
        // SAFETY: the mapping has both columns, and no emitted code of this thread runs.
        let (first, second) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.base, ENTRIES),
                std::slice::from_raw_parts_mut(self.base.add(ENTRIES), ENTRIES),
            )
        };
        first.fill(0);
        // Zero matches the address that is the salt negated.
        second[0] = self.miss;
        second[ENTRIES - SALTS as usize..].fill(self.miss);
    }
}

/// To `miss` unless the table knows the block for the linear address in R11; then [`go`]. Writes RCX, no flags.
pub fn probe(asm: &mut Asm, salt: u32, miss: Label) {
    asm.movzx16(RCX, R11);
    asm.load(RCX, gs_index(RCX, 3, FIRST));
    asm.lea_salt(RCX, RCX, R11, salt);
    asm.unless_rcx_zero(|asm| asm.jmp(miss));
}

/// Where the block is entered whose address in R11 the table was found to know. Writes RCX, no flags.
pub fn entry(asm: &mut Asm) -> Mem {
    asm.movzx16(RCX, R11);
    gs_index(RCX, 3, SECOND)
}

/// Notes that the block for the linear address in R11 is entered at RCX, which stays. No flags.
pub fn fill(asm: &mut Asm, salt: u32) {
    asm.store(gs(off::spill(0)), RDX);
    asm.store(gs(off::spill(1)), RCX);
    asm.movzx16(RDX, R11);
    asm.store(gs_index(RDX, 3, SECOND), RCX);
    asm.lea(RCX, crate::asm::at(R11, salt as i32 - 1));
    asm.not(RCX);
    asm.store(gs_index(RDX, 3, FIRST), RCX);
    asm.load(RDX, gs(off::spill(0)));
    asm.load(RCX, gs(off::spill(1)));
}
