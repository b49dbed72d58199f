//! The hot state of one vCPU, as emitted code sees it behind the GS base.
//!
//! ```text
//!            +0x00000  Cpu            one memfd, mapped at the start of every region
//! GS base -> +0x04000  soft TLB       TLB_ENTRIES entries of 64 bytes        (crate::tlb)
//!            +0x84000  jump cache     two ways of JUMP_ENTRIES of 16 bytes    (crate::tlb)
//!            +0xc4000  record         which slots of the TLB are in use       (crate::tlb)
//! ```
//!
//! There is one such *region* per guest address space that is kept warm; a CR3 write under PCID moves the GS base
//! to another region and flushes nothing. All regions show the same [`Cpu`]. Rust code reaches it through the pointer
//! that the trampoline read from the GS base, so that both sides use one linear address for it.
//!
//! Emitted code addresses fields by [`std::mem::offset_of`]; the constants are in [`off`].
#![expect(unsafe_code, reason = "the cold state hangs on a raw pointer")]
// UNSAFETY: one pointer, set by the owner before any use and valid as long as the vCPU.

use std::sync::atomic::AtomicU32;

use lodge_x86::bits::{cr0, efer, rflags};
use lodge_x86::segment::{Segment, TableRegister, attribute};
use lodge_x86::state::Msrs;

use crate::branch_table;
use crate::context::Context;
use crate::crossing::{Side, Sides};
use crate::tlb::Record;
use crate::tlb::physical::{self, Known};
use crate::walk::{View, Walk};

/// What the GS base is beyond a region's start: at the TLB, so that probes have short displacements.
pub const GS_BIAS: i32 = STATE_SIZE as i32;
/// Bytes of a region before the TLB.
pub const STATE_SIZE: usize = 0x4000;
/// Where the soft TLB begins in a region.
pub const TLB_OFFSET: usize = STATE_SIZE;
/// Where the jump cache begins in a region.
pub const JUMP_OFFSET: usize = TLB_OFFSET + crate::tlb::TLB_ENTRIES * 64;
/// Distance of two regions.
pub const REGION_STRIDE: usize = 4 << 20;

/// Where a region's [`Record`] is.
pub const RECORD_OFFSET: usize = JUMP_OFFSET + 2 * crate::tlb::JUMP_ENTRIES * 16;

/// Where its [`Known`] is.
pub const KNOWN_OFFSET: usize = (RECORD_OFFSET + size_of::<Record>()).next_multiple_of(64);

const _: () = assert!(KNOWN_OFFSET + size_of::<Known>() <= branch_table::OFFSET);
const _: () = assert!(physical::OFFSET + physical::BYTES <= REGION_STRIDE);

/// A segment register with what emitted code needs to check an access through it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HotSegment {
    /// First linear address.
    pub base: u64,
    /// One more than the last offset that a read may touch; 0 where the slow path has to decide.
    pub read_end: u64,
    /// The same for writes.
    pub write_end: u64,
    /// The architectural register.
    pub segment: Segment,
}

impl HotSegment {
    /// Derives the hot form. `real` also stands for virtual-8086 mode.
    pub fn new(segment: Segment, real: bool) -> Self {
        let end = u64::from(segment.limit) + 1;
        let up = !segment.is_expand_down();
        let usable = segment.is_usable();
        Self {
            base: segment.base,
            read_end: if real || (usable && up && segment.is_readable()) { end } else { 0 },
            write_end: if real || (usable && up && segment.is_writable_data()) { end } else { 0 },
            segment,
        }
    }

    /// Whether any 32-bit offset may be read and written through it.
    pub fn is_unlimited(&self) -> bool {
        self.read_end == 1 << 32 && self.write_end == 1 << 32
    }
}

/// Why emitted code came back to the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitReason {
    /// Find the block at [`Cpu::lip`]: an indirect branch missed, or a direct one leaves its page.
    Lookup = 0,
    /// The exit numbered [`Cpu::exit_arg`] wants its target.
    Chain = 1,
    /// A safepoint saw [`Cpu::pending`]; go on at [`Cpu::lip`].
    Poll = 2,
    /// A helper asked to leave; it has set [`Cpu::lip`].
    Helper = 3,
    /// The host CPU raised a signal at [`Cpu::fault_pc`].
    Fault = 4,
}

/// The vCPU's state.
#[repr(C, align(64))]
pub struct Cpu {
    /// General-purpose registers; valid outside emitted code. R9, R10 and R11 live here always.
    pub gpr: [u64; 16],
    /// An address that emitted code computes in two steps; follows the registers so that it has a number.
    pub extra: u64,
    /// Linear address of the next instruction, outside emitted code.
    pub lip: u64,
    /// Linear address of the guest page (4 KiB or the large page) that the current block lies in.
    pub code_base: u64,
    /// Arithmetic flags as the host has them; valid outside emitted code.
    pub flags: u64,
    /// All other flags but IF: TF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID. The host's DF stays clear.
    pub system_flags: u64,
    /// RFLAGS.IF, as 0 or 1.
    pub interrupt_flag: u32,
    /// Something waits for IF: STI has to leave to the dispatcher.
    pub latched: u32,
    /// Look at [`Context`]'s requests and the interrupt controller at the next safepoint.
    pub pending: AtomicU32,
    /// An [`ExitReason`].
    pub exit_reason: u32,
    /// Belongs to the exit reason.
    pub exit_arg: u64,
    /// The engine's stack pointer while emitted code runs.
    pub host_rsp: u64,
    /// Emitted code's stack pointer when its stack is empty ([`crate::frames`]).
    pub frames_top: u64,
    /// Emitted code's stack pointer while a helper runs: the helper's return address lies there.
    pub code_rsp: u64,
    /// Host address at which a signal was raised.
    pub fault_pc: u64,
    /// The signal, its code and its address.
    pub fault_signal: [u64; 3],
    /// Host RCX then: what is left of a repeated string instruction's count.
    pub fault_counter: u64,
    /// Where in its page the last branch by address was, or [`Cpu::NO_SOURCE`]: its target may be refused.
    pub source: u32,
    /// Not 0 between the place where a block puts live flags aside and the entry of the next: they are in
    /// [`Cpu::parked_flags`], and what the host has is void.
    pub parked: u32,
    /// AH and AL as LAHF and SETO left them.
    pub parked_flags: u64,
    /// Spill slots of emitted code.
    pub spill: [u64; 8],
    /// The host address that a memory helper found.
    pub host_address: u64,
    /// Where the groups of accesses that share a check are on the host ([`crate::emit::plan`]).
    pub groups: [u64; crate::emit::plan::GROUPS],
    /// The negated linear page that the stack window shows, or [`Cpu::NO_WINDOW`].
    pub window: u64,
    /// The FS base while emitted code runs: what is to be added to an address in the window for its host address.
    pub window_delta: u64,
    /// The FS base that Rust runs with.
    pub host_fs: u64,
    /// RDTSC adds this: the guest's own offset, and [`Cpu::tsc_shift`].
    pub tsc_offset: u64,
    /// Guest MXCSR while Rust runs.
    pub mxcsr: u32,
    /// MXCSR that Rust runs with.
    pub host_mxcsr: u32,
    /// ES, CS, SS, DS, FS, GS.
    pub segment: [HotSegment; 6],
    /// XCR0.
    pub xcr0: u64,
    /// Bounce buffer for accesses that are not plain RAM in one page.
    pub bounce: Bounce,
    /// Vector registers while Rust runs: YMM0 to YMM15 (XMM in the low halves where the host has no AVX).
    pub vectors: Vectors,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// DR0 to DR7.
    pub dr: [u64; 8],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// MSRs.
    pub msrs: Msrs,
    /// What the host's counter lacks to the machine's, for the time that the machine was paused (`CpuIo::tsc_shift`).
    pub tsc_shift: u64,
    /// Between an NMI and the next IRET.
    pub nmi_blocked: bool,
    /// The current address space is the one that is mirrored ([`crate::mirror`]).
    pub mirrored: bool,
    /// The mode key under which blocks are now looked up ([`crate::mode::Mode`]).
    pub mode: u32,
    /// Where SYSCALL and SYSRET lead.
    pub sides: Sides,
    /// What TLB misses need to know.
    pub walk: Walk,
    /// How the running block is run: bits of [`crate::mode::Mode::HOW`].
    pub how: u32,
    /// The jump-cache lookup, and the way out of an empty stack of frames, of the mode that a helper goes on in.
    pub go_indirect: u64,
    /// See [`Cpu::go_indirect`].
    pub go_underflow: u64,
    /// All that only Rust needs.
    pub context: *mut Context,
}

/// The bounce buffer.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Bounce(pub [u8; 1024]);

/// The vector register file.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Vectors(pub [[u8; 32]; 16]);

const _: () = assert!(size_of::<Cpu>() <= STATE_SIZE);

/// Offsets for emitted code.
pub mod off {
    use super::{Cpu, HotSegment, Msrs, RECORD_OFFSET, Record, Side, Sides, View, Walk};
    use std::mem::offset_of;

    const fn of(offset: usize) -> i32 {
        offset as i32
    }

    /// Of a general-purpose register.
    pub const fn gpr(number: u8) -> i32 {
        of(offset_of!(Cpu, gpr)) + number as i32 * 8
    }
    /// Of a spill slot.
    pub const fn spill(number: u8) -> i32 {
        of(offset_of!(Cpu, spill)) + number as i32 * 8
    }
    /// Of a vector register.
    pub const fn vector(number: u8) -> i32 {
        of(offset_of!(Cpu, vectors)) + number as i32 * 32
    }
    const fn segment(number: u8) -> i32 {
        of(offset_of!(Cpu, segment)) + number as i32 * size_of::<HotSegment>() as i32
    }
    /// Of a segment's base.
    pub const fn segment_base(number: u8) -> i32 {
        segment(number) + of(offset_of!(HotSegment, base))
    }
    /// Of the end of what may be read or written through a segment.
    pub const fn segment_end(number: u8, write: bool) -> i32 {
        segment(number)
            + if write { of(offset_of!(HotSegment, write_end)) } else { of(offset_of!(HotSegment, read_end)) }
    }
    /// Of a segment's limit, selector and attributes, which are eight bytes behind its architectural base.
    pub const fn segment_limits(number: u8) -> i32 {
        segment(number) + of(offset_of!(HotSegment, segment)) + of(offset_of!(lodge_x86::Segment, limit))
    }
    /// A [`Side`]'s fields.
    pub struct SideFields {
        pub mode: i32,
        pub open: i32,
        pub indirect: i32,
        pub underflow: i32,
        pub cs: i32,
        pub ss: i32,
    }
    /// Of the fields of one end of a crossing.
    pub const fn side(user: bool) -> SideFields {
        let side = if user { offset_of!(Sides, user) } else { offset_of!(Sides, kernel) };
        let at = of(offset_of!(Cpu, sides)) + of(side);
        SideFields {
            mode: at + of(offset_of!(Side, mode)),
            open: at + of(offset_of!(Side, open)),
            indirect: at + of(offset_of!(Side, indirect)),
            underflow: at + of(offset_of!(Side, underflow)),
            cs: at + of(offset_of!(Side, cs)),
            ss: at + of(offset_of!(Side, ss)),
        }
    }
    pub const SIDES_KEEP: i32 = of(offset_of!(Cpu, sides)) + of(offset_of!(Sides, keep));
    pub const SIDES_KEEP_AX: i32 = of(offset_of!(Cpu, sides)) + of(offset_of!(Sides, keep_ax));
    pub const SIDES_KEEP_IF: i32 = of(offset_of!(Cpu, sides)) + of(offset_of!(Sides, keep_if));
    const fn walk(field: usize) -> i32 {
        of(offset_of!(Cpu, walk)) + of(field)
    }
    pub const WALK_ROOT: i32 = walk(offset_of!(Walk, root));
    pub const WALK_RESERVED: i32 = walk(offset_of!(Walk, reserved));
    pub const WALK_ADDRESS: i32 = walk(offset_of!(Walk, address));
    pub const WALK_SMAP: i32 = walk(offset_of!(Walk, smap));
    /// Of a register that a walk has put aside.
    pub const fn walk_saved(number: u8) -> i32 {
        walk(offset_of!(Walk, saved)) + number as i32 * 8
    }
    /// A [`View`]'s fields.
    pub struct ViewFields {
        pub start: i32,
        pub length: i32,
        pub host: i32,
        pub pages: i32,
    }
    /// Of the fields of a piece of RAM.
    pub const fn walk_view(number: u8) -> ViewFields {
        let at = walk(offset_of!(Walk, ram)) + number as i32 * size_of::<View>() as i32;
        ViewFields {
            start: at + of(offset_of!(View, start)),
            length: at + of(offset_of!(View, length)),
            host: at + of(offset_of!(View, host)),
            pages: at + of(offset_of!(View, pages)),
        }
    }
    pub const RECORD_LENGTH: i32 = of(RECORD_OFFSET) + of(offset_of!(Record, length));
    pub const RECORD_BLOOM: i32 = of(RECORD_OFFSET) + of(offset_of!(Record, large));
    pub const RECORD_LOG: i32 = of(RECORD_OFFSET) + of(offset_of!(Record, log));
    const fn msr(field: usize) -> i32 {
        of(offset_of!(Cpu, msrs)) + of(field)
    }
    pub const LSTAR: i32 = msr(offset_of!(Msrs, lstar));
    pub const KERNEL_GS_BASE: i32 = msr(offset_of!(Msrs, kernel_gs_base));
    pub const TSC_AUX: i32 = msr(offset_of!(Msrs, tsc_aux));
    pub const MODE: i32 = of(offset_of!(Cpu, mode));
    pub const CR0: i32 = of(offset_of!(Cpu, cr0));
    pub const CR2: i32 = of(offset_of!(Cpu, cr2));
    pub const CR3: i32 = of(offset_of!(Cpu, cr3));
    pub const CR4: i32 = of(offset_of!(Cpu, cr4));
    /// Of a segment's selector.
    pub const fn segment_selector(number: u8) -> i32 {
        segment(number) + of(offset_of!(HotSegment, segment)) + of(offset_of!(lodge_x86::Segment, selector))
    }
    /// Of a group's host address.
    pub const fn group(number: u8) -> i32 {
        of(offset_of!(Cpu, groups)) + number as i32 * 8
    }
    pub const WINDOW: i32 = of(offset_of!(Cpu, window));
    pub const WINDOW_DELTA: i32 = of(offset_of!(Cpu, window_delta));
    pub const HOST_FS: i32 = of(offset_of!(Cpu, host_fs));
    pub const GO_INDIRECT: i32 = of(offset_of!(Cpu, go_indirect));
    pub const GO_UNDERFLOW: i32 = of(offset_of!(Cpu, go_underflow));
    pub const LIP: i32 = of(offset_of!(Cpu, lip));
    pub const CODE_BASE: i32 = of(offset_of!(Cpu, code_base));
    pub const FLAGS: i32 = of(offset_of!(Cpu, flags));
    pub const SYSTEM_FLAGS: i32 = of(offset_of!(Cpu, system_flags));
    pub const INTERRUPT_FLAG: i32 = of(offset_of!(Cpu, interrupt_flag));
    pub const LATCHED: i32 = of(offset_of!(Cpu, latched));
    pub const PENDING: i32 = of(offset_of!(Cpu, pending));
    pub const EXIT_REASON: i32 = of(offset_of!(Cpu, exit_reason));
    pub const EXIT_ARG: i32 = of(offset_of!(Cpu, exit_arg));
    pub const HOST_RSP: i32 = of(offset_of!(Cpu, host_rsp));
    pub const FRAMES_TOP: i32 = of(offset_of!(Cpu, frames_top));
    pub const SOURCE: i32 = of(offset_of!(Cpu, source));
    pub const PARKED: i32 = of(offset_of!(Cpu, parked));
    pub const PARKED_FLAGS: i32 = of(offset_of!(Cpu, parked_flags));
    pub const CODE_RSP: i32 = of(offset_of!(Cpu, code_rsp));
    pub const HOST_ADDRESS: i32 = of(offset_of!(Cpu, host_address));
    pub const TSC_OFFSET: i32 = of(offset_of!(Cpu, tsc_offset));
    pub const MXCSR: i32 = of(offset_of!(Cpu, mxcsr));
    pub const HOST_MXCSR: i32 = of(offset_of!(Cpu, host_mxcsr));
}

/// Flags that live in [`Cpu::flags`].
pub const HOST_FLAGS: u64 = rflags::ARITHMETIC;

impl Cpu {
    /// [`Cpu::source`] where control just went on.
    pub const NO_SOURCE: u32 = u32::MAX;
    /// A window that shows nothing: only addresses that are not canonical are in it, and stay so.
    pub const NO_WINDOW: u64 = 1 << 63;

    /// RFLAGS as software sees them.
    pub fn rflags(&self) -> u64 {
        self.flags & HOST_FLAGS
            | self.system_flags
            | rflags::FIXED
            | if self.interrupt_flag != 0 { rflags::IF } else { 0 }
    }

    /// Replaces RFLAGS whole. The caller recomputes the mode.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags = value & HOST_FLAGS;
        self.system_flags = value & (rflags::WRITABLE & !(HOST_FLAGS | rflags::IF));
        self.interrupt_flag = u32::from(value & rflags::IF != 0);
    }

    /// Real mode.
    pub fn is_real(&self) -> bool {
        self.cr0 & cr0::PE == 0
    }

    /// Virtual-8086 mode.
    pub fn is_v86(&self) -> bool {
        self.system_flags & rflags::VM != 0 && !self.is_real()
    }

    /// Long mode, its compatibility sub-mode included.
    pub fn is_long(&self) -> bool {
        self.msrs.efer & efer::LMA != 0
    }

    /// 64-bit mode.
    pub fn is_64(&self) -> bool {
        self.is_long() && self.segment[1].segment.attributes & attribute::LONG != 0
    }

    /// The current privilege level.
    pub fn cpl(&self) -> u8 {
        if self.is_real() {
            0
        } else if self.is_v86() {
            3
        } else {
            self.segment[2].segment.dpl()
        }
    }

    /// The I/O privilege level.
    pub fn iopl(&self) -> u8 {
        (self.system_flags >> 12 & 3) as u8
    }

    /// The instruction pointer as software sees it: an offset in CS.
    pub fn rip(&self) -> u64 {
        self.rip_of(self.lip)
    }

    /// The offset in CS of a linear address.
    pub fn rip_of(&self, linear: u64) -> u64 {
        if self.is_64() { linear } else { u64::from(linear.wrapping_sub(self.segment[1].base) as u32) }
    }

    /// Sets the instruction pointer to an offset in CS.
    pub fn set_rip(&mut self, rip: u64) {
        self.lip = if self.is_64() { rip } else { u64::from(rip.wrapping_add(self.segment[1].base) as u32) };
    }

    /// The stack pointer's width in bits, by mode and SS.
    pub fn stack_bits(&self) -> u32 {
        if self.is_64() {
            64
        } else if self.segment[2].segment.attributes & attribute::BIG != 0 {
            32
        } else {
            16
        }
    }

    /// Replaces a segment register's whole content.
    pub fn load_segment(&mut self, number: usize, segment: Segment) {
        let real = self.is_real() || self.is_v86();
        self.segment[number] = HotSegment::new(segment, real);
    }

    /// Sets [`Cpu::pending`] of a vCPU that may be running on another thread, or gone where `cpu` is null.
    pub fn set_pending(cpu: *mut Self) {
        if !cpu.is_null() {
            // SAFETY: a vCPU unties its mailbox before its state is unmapped; the field is atomic.
            unsafe { (*cpu).pending.store(1, std::sync::atomic::Ordering::SeqCst) };
        }
    }

    /// What only Rust needs.
    pub fn context(&mut self) -> &mut Context {
        // SAFETY: set when the vCPU is made to a box that lives as long as the regions do, and used by its thread only.
        unsafe { &mut *self.context }
    }
}
