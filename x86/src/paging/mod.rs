//! The walk of the guest's page tables: from a linear address to a physical one, with everything a TLB wants to know.
//!
//! * [`PagingContext`] is what the control registers say about paging, digested once per change of them.
//! * [`PhysicalMemory`] is how the walk reaches guest RAM; an engine implements it over its own mapping.
//! * [`walk`] follows the tables, checks reserved bits and permissions, sets accessed and dirty flags the way
//!   hardware does (compare and swap, so that a concurrent change by another processor is never lost), and gives a
//!   [`Translation`] or the page fault to deliver.
//!
//! Neighbours: engines fill their TLBs from [`Translation::fills`]; `lodge_x86::bits` names the register bits.
//!
//! Choices where processors differ: PAE's four page-directory-pointer entries are read at each walk, as AMD
//! processors do (APM 2 5.2.2), so that no hidden registers have to be saved; a table that lies outside RAM reads as
//! all ones, as an empty bus does.

mod walk;

#[cfg(test)]
mod tests;

pub use walk::walk;

use crate::bits::{cr0, cr4, efer};

/// Guest physical memory as the walk sees it. Addresses given are aligned to the width. `None` means that there is
/// no RAM.
pub trait PhysicalMemory {
    /// Reads eight bytes, in one piece.
    fn read_u64(&self, address: u64) -> Option<u64>;

    /// Reads four bytes, in one piece.
    fn read_u32(&self, address: u64) -> Option<u32>;

    /// Replaces `old` by `new` atomically; whether memory held `old`.
    fn compare_exchange_u64(&self, address: u64, old: u64, new: u64) -> Option<bool>;

    /// The same with four bytes.
    fn compare_exchange_u32(&self, address: u64, old: u32, new: u32) -> Option<bool>;
}

/// How linear addresses are translated (SDM 3A 4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PagingMode {
    /// CR0.PG is clear: linear is physical.
    #[default]
    None,
    /// Two levels of 4-byte entries (SDM 3A 4.3).
    Bits32,
    /// Three levels of 8-byte entries (SDM 3A 4.4).
    Pae,
    /// Four levels of 8-byte entries (SDM 3A 4.5).
    FourLevel,
}

impl PagingMode {
    /// The mode that these registers select.
    pub const fn of(cr0: u64, cr4: u64, efer: u64) -> Self {
        if cr0 & cr0::PG == 0 {
            Self::None
        } else if cr4 & cr4::PAE == 0 {
            Self::Bits32
        } else if efer & efer::LMA == 0 {
            Self::Pae
        } else {
            Self::FourLevel
        }
    }
}

/// What a walk needs of the control registers. Make a new one whenever CR0, CR3, CR4 or EFER changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagingContext {
    /// The mode.
    pub mode: PagingMode,
    /// Physical address of the root table, without PCID and flags.
    pub root: u64,
    /// Reserved bits of any 8-byte entry: those above the physical address width, and bit 63 without EFER.NXE.
    reserved: u64,
    /// Reserved bits of a 4 MiB page's entry.
    reserved_4m: u64,
    /// CR0.WP.
    write_protect: bool,
    /// CR4.PSE.
    large_4m: bool,
    /// CR4.SMEP.
    smep: bool,
    /// CR4.SMAP.
    smap: bool,
    /// The fetch bit of the error code is defined: CR4.SMEP, or EFER.NXE with CR4.PAE (SDM 3A 4.7).
    reports_fetch: bool,
}

/// Bits 12 to 51: where an 8-byte entry holds a physical address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl PagingContext {
    /// Digests the control registers. `physical_bits` is the width of a physical address, CPUID 0x80000008 EAX 7:0,
    /// from 32 to 52; other values are brought into that range.
    pub const fn new(cr0: u64, cr3: u64, cr4: u64, efer: u64, physical_bits: u8) -> Self {
        let bits = if physical_bits < 32 {
            32
        } else if physical_bits > 52 {
            52
        } else {
            physical_bits
        };
        let mode = PagingMode::of(cr0, cr4, efer);
        let above_width = ADDRESS & !((1 << bits) - 1);
        let no_execute = if efer & efer::NXE == 0 { 1 << 63 } else { 0 };
        let root = match mode {
            PagingMode::None => 0,
            PagingMode::Bits32 => cr3 & 0xffff_f000,
            PagingMode::Pae => cr3 & 0xffff_ffe0,
            PagingMode::FourLevel => cr3 & ADDRESS,
        };
        // In PAE paging bits 62:52 are reserved, in 4-level paging they are software's (SDM 3A tables 4-11, 4-20).
        let above_address = if matches!(mode, PagingMode::Pae) { 0x7ff << 52 } else { 0 };
        // PSE-36 (SDM 3A table 4-4): bits 20:13 hold address bits 39:32, as far as the width goes; bit 21 is reserved.
        let pse36 = if bits > 40 { 8 } else { bits - 32 };
        Self {
            mode,
            root,
            reserved: above_width | no_execute | above_address,
            reserved_4m: 0x003f_e000 & !(((1 << pse36) - 1) << 13),
            write_protect: cr0 & cr0::WP != 0,
            large_4m: cr4 & cr4::PSE != 0,
            smep: cr4 & cr4::SMEP != 0,
            smap: cr4 & cr4::SMAP != 0,
            reports_fetch: cr4 & cr4::SMEP != 0 || (efer & efer::NXE != 0 && cr4 & cr4::PAE != 0),
        }
    }
}

impl PagingContext {
    /// Reserved bits of any 8-byte entry.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }
}

/// What is done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data are read.
    Read,
    /// Data are written, or read and written.
    Write,
    /// An instruction is fetched.
    Execute,
}

/// An access to memory and on whose behalf it is made (SDM 3A 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What is done.
    pub kind: AccessKind,
    /// A user-mode access: made at CPL 3, and not implicitly to a descriptor table or a TSS.
    pub user: bool,
    /// SMAP does not apply: an explicit access at CPL 0 to 2 while RFLAGS.AC is set. Implicit supervisor accesses
    /// (to the GDT, the IDT, an LDT, a TSS) never have it.
    pub smap_override: bool,
}

impl Access {
    /// A user-mode access.
    pub const fn user(kind: AccessKind) -> Self {
        Self { kind, user: true, smap_override: false }
    }

    /// An explicit supervisor-mode access, with RFLAGS.AC as given.
    pub const fn supervisor(kind: AccessKind, alignment_check: bool) -> Self {
        Self { kind, user: false, smap_override: alignment_check }
    }

    /// An implicit supervisor-mode access, at whatever CPL (SDM 3A 4.6.1).
    pub const fn implicit(kind: AccessKind) -> Self {
        Self { kind, user: false, smap_override: false }
    }
}

/// Where a linear address leads, and what may be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The exact physical address.
    pub gpa: u64,
    /// Size in bytes of the page that the leaf entry maps: 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 GiB without paging. Both
    /// linear and physical address are aligned to it at the page's start.
    pub page_size: u64,
    /// Every level lets user mode in.
    pub user: bool,
    /// Every level permits writes.
    pub writable: bool,
    /// No level forbids execution.
    pub executable: bool,
    /// The leaf's dirty flag is set, so writes need no further walk.
    pub dirty: bool,
    /// The leaf is global: it outlives a CR3 write where CR4.PGE is set.
    pub global: bool,
}

impl Translation {
    /// Without paging everything is permitted and there is nothing to mark.
    const fn identity(linear: u64) -> Self {
        Self {
            gpa: linear & 0xffff_ffff,
            page_size: 1 << 32,
            user: true,
            writable: true,
            executable: true,
            dirty: true,
            global: false,
        }
    }

    /// Whether the access is permitted (SDM 3A 4.6.1).
    #[inline]
    pub const fn permits(&self, context: &PagingContext, access: Access) -> bool {
        if matches!(context.mode, PagingMode::None) {
            return true;
        }
        match (access.user, access.kind) {
            (true, AccessKind::Read) => self.user,
            (true, AccessKind::Write) => self.user && self.writable,
            (true, AccessKind::Execute) => self.user && self.executable,
            (false, AccessKind::Execute) => self.executable && !(self.user && context.smep),
            (false, kind) => {
                let smap = self.user && context.smap && !access.smap_override;
                let read_only = matches!(kind, AccessKind::Write) && !self.writable && context.write_protect;
                !smap && !read_only
            }
        }
    }

    /// Whether a TLB may serve accesses of this sort from this translation without another walk: they are permitted,
    /// and a write would find the dirty flag set already.
    #[inline]
    pub const fn fills(&self, context: &PagingContext, access: Access) -> bool {
        self.permits(context, access) && (self.dirty || !matches!(access.kind, AccessKind::Write))
    }
}

/// Whether bits 63 to 47 of a linear address are the same, as 4-level paging demands (SDM 1 3.3.7.1).
#[inline]
pub const fn is_canonical(linear: u64) -> bool {
    ((linear << 16) as i64 >> 16) as u64 == linear
}
