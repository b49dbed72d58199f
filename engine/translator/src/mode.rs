//! The mode key: all of the processor's state that changes what the same bytes translate to.
//!
//! A block is found by guest physical address *and* [`Mode`]; emitted code may rely on every bit of it. Whatever
//! changes one of these bits therefore ends its block and has the key recomputed.

use lodge_x86::bits::{cr0, cr4, rflags};

use crate::cpu::Cpu;

/// The key. Equal keys mean that translations can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode(pub u32);

impl Mode {
    const WIDTH: u32 = 3;
    /// The stack pointer is ESP rather than SP (outside 64-bit mode).
    pub const STACK32: u32 = 1 << 2;
    /// CPL 3.
    pub const USER: u32 = 1 << 3;
    /// CPL 0-2 and user pages are out of reach: CR4.SMAP without RFLAGS.AC.
    pub const STRICT: u32 = 1 << 4;
    /// CR0.EM: x87 raises #NM, SSE #UD.
    pub const EMULATE: u32 = 1 << 5;
    /// CR0.TS: x87 and SSE raise #NM.
    pub const SWITCHED: u32 = 1 << 6;
    /// CR0.MP: with TS, WAIT raises #NM.
    pub const MONITOR: u32 = 1 << 7;
    /// CR4.OSFXSR.
    pub const SSE: u32 = 1 << 8;
    /// CR4.OSXSAVE, and XCR0 has SSE and AVX.
    pub const AVX: u32 = 1 << 9;
    /// CR4.OSXSAVE.
    pub const XSAVE: u32 = 1 << 10;
    /// CLI, STI, POPF need no check: CPL is not above IOPL, no virtual-8086 mode.
    pub const IF_FREE: u32 = 1 << 11;
    /// CS has base 0.
    pub const CS_FLAT: u32 = 1 << 12;
    /// DS, ES and SS each have base 0 and no limit.
    pub const DATA_FLAT: u32 = 1 << 13;
    /// FS has no limit.
    pub const FS_OPEN: u32 = 1 << 14;
    /// GS has no limit.
    pub const GS_OPEN: u32 = 1 << 15;
    /// The code lies in a page of 2 MiB or more, or paging is off: blocks may run over 4 KiB boundaries.
    pub const LARGE: u32 = 1 << 16;
    /// Translate one instruction, with every memory access through the bounce buffer.
    pub const BOUNCE: u32 = 1 << 17;
    /// Translate one instruction.
    pub const SINGLE: u32 = 1 << 18;
    /// CR4.FSGSBASE.
    pub const FSGSBASE: u32 = 1 << 19;
    /// RDTSC needs a check or a record: leave it to a helper.
    pub const TSC_CHECKED: u32 = 1 << 20;
    /// Real or virtual-8086 mode: segment loads are shifts.
    pub const REAL: u32 = 1 << 21;
    /// CPL 0.
    pub const KERNEL: u32 = 1 << 22;
    /// CR0.AM and RFLAGS.AC at CPL 3: misaligned accesses raise #AC.
    pub const ALIGN: u32 = 1 << 23;
    /// CR4.UMIP at CPL above 0.
    pub const UMIP: u32 = 1 << 24;

    /// RFLAGS.DF: string instructions go down.
    pub const DOWN: u32 = 1 << 25;

    /// Each access checks for itself ([`crate::emit::plan`]).
    pub const PLAIN: u32 = 1 << 26;

    /// Those bits that say how one instruction is to be run rather than what the processor is like.
    pub const HOW: u32 = Self::BOUNCE | Self::SINGLE;

    /// CR4.SMAP at CPL 0: STAC and CLAC change [`Mode::STRICT`].
    pub const SMAP: u32 = 1 << 27;

    /// The program's memory is mirrored ([`crate::mirror`]).
    pub const MIRRORED: u32 = 1 << 28;

    /// The key for the processor's state now, [`Mode::LARGE`] and [`Mode::HOW`] left out.
    pub fn of(cpu: &Cpu) -> Self {
        use lodge_x86::segment::attribute;
        let (real, v86, long) = (cpu.is_real(), cpu.is_v86(), cpu.is_64());
        let cs = &cpu.segment[1];
        let mut key = Self::common(cpu, long, cpu.cpl(), cpu.system_flags);
        let mut put = |on: bool, bit: u32| key.0 |= if on { bit } else { 0 };
        let code32 = cs.segment.attributes & attribute::BIG != 0;
        put(code32 && !long, 1);
        put(cpu.segment[2].segment.attributes & attribute::BIG != 0 && !long, Self::STACK32);
        put(cs.base == 0, Self::CS_FLAT);
        let flat = |n: usize| cpu.segment[n].base == 0 && cpu.segment[n].is_unlimited();
        put(flat(0) && flat(2) && flat(3), Self::DATA_FLAT);
        put(cpu.segment[4].is_unlimited(), Self::FS_OPEN);
        put(cpu.segment[5].is_unlimited(), Self::GS_OPEN);
        put(real || v86, Self::REAL);
        if real {
            put(true, Self::IF_FREE);
        }
        if v86 {
            key.0 &= !Self::IF_FREE;
        }
        if real || v86 {
            key.0 &= !Self::AVX;
        }
        key
    }

    /// The key for 64-bit mode at CPL 3 or 0, with IOPL 0 and TF, DF and AC clear, whatever the state now.
    pub fn long(cpu: &Cpu, user: bool) -> Self {
        Self::common(cpu, true, if user { 3 } else { 0 }, 0)
    }

    /// What does not depend on the contents of segment registers outside 64-bit mode.
    fn common(cpu: &Cpu, long: bool, cpl: u8, system_flags: u64) -> Self {
        let mut bits = 0;
        let mut put = |on: bool, bit: u32| bits |= if on { bit } else { 0 };
        let ac = system_flags & rflags::AC != 0;
        let iopl = (system_flags >> 12 & 3) as u8;
        let smap = cpu.cr4 & cr4::SMAP != 0;
        put(long, 2 | Self::CS_FLAT | Self::DATA_FLAT | Self::FS_OPEN | Self::GS_OPEN);
        put(cpl == 3, Self::USER);
        put(cpl != 3 && smap && !ac, Self::STRICT);
        put(cpl == 0 && smap, Self::SMAP);
        put(cpu.cr0 & cr0::EM != 0, Self::EMULATE);
        put(cpu.cr0 & cr0::TS != 0, Self::SWITCHED);
        put(cpu.cr0 & cr0::MP != 0, Self::MONITOR);
        put(cpu.cr4 & cr4::OSFXSR != 0, Self::SSE);
        let xsave = cpu.cr4 & cr4::OSXSAVE != 0;
        put(xsave, Self::XSAVE);
        put(xsave && cpu.xcr0 & 6 == 6, Self::AVX);
        put(cpl <= iopl, Self::IF_FREE);
        put(long && cpu.cr4 & cr4::FSGSBASE != 0, Self::FSGSBASE);
        put(cpl != 0 && cpu.cr4 & cr4::TSD != 0, Self::TSC_CHECKED);
        put(cpl == 0, Self::KERNEL);
        let aligned = cpl == 3 && ac && cpu.cr0 & cr0::AM != 0;
        put(aligned, Self::ALIGN);
        put(long && cpl == 3 && !aligned && cpu.mirrored, Self::MIRRORED);
        put(cpl != 0 && cpu.cr4 & cr4::UMIP != 0, Self::UMIP);
        put(system_flags & rflags::DF != 0, Self::DOWN);
        Self(bits)
    }

    /// The key after STAC or CLAC, under [`Mode::SMAP`].
    pub fn other_access(self) -> Self {
        Self(self.0 ^ Self::STRICT)
    }

    /// Whether any of `bits` is set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// The key without the size of the page that the code lies in, which an address decides by itself, and without what
    /// does not outlast the block.
    pub fn without_page(self) -> Self {
        Self(self.0 & !(Self::LARGE | Self::PLAIN))
    }

    /// Whether memory is accessed at the program's own addresses.
    pub fn is_mirrored(self) -> bool {
        self.has(Self::MIRRORED) && !self.has(Self::PLAIN | Self::HOW)
    }

    /// Whether both are for a program that is mirrored, or neither.
    pub fn is_like(self, other: Self) -> bool {
        self.has(Self::MIRRORED) == other.has(Self::MIRRORED)
    }

    /// 16, 32 or 64.
    pub fn code_bits(self) -> u32 {
        16 << (self.0 & Self::WIDTH)
    }

    /// 64-bit mode.
    pub fn is_64(self) -> bool {
        self.0 & Self::WIDTH == 2
    }

    /// Width of the stack pointer.
    pub fn stack_bits(self) -> u32 {
        if self.is_64() {
            64
        } else if self.has(Self::STACK32) {
            32
        } else {
            16
        }
    }

    /// Which pair of tags in a TLB entry this mode's accesses are checked against ([`crate::tlb`]).
    pub fn tlb_context(self) -> usize {
        if self.has(Self::USER) {
            1
        } else if self.has(Self::STRICT) {
            0
        } else {
            2
        }
    }
}
