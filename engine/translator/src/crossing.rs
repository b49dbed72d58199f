//! SYSCALL and SYSRET in emitted code.
//!
//! Where SYSCALL leads, and in which mode, depends on control registers and MSRs that hardly ever change. So it is
//! worked out when they do ([`Cpu::renew_sides`]) and kept, one [`Side`] for each direction, where the stubs of this
//! file find it. A stub does what the architecture asks (APM 3 "SYSCALL", "SYSRET"), sets the mode, empties the stack of
//! frames and goes to the target through the jump cache of the target's mode. Whatever is unusual goes to
//! [`crate::transfer`] instead, which does it all again from the start.

use lodge_x86::bits::{efer, rflags};
use lodge_x86::segment::attribute;

use crate::asm::{Asm, R9, R10, R11, RAX, RCX, RDX, RSP, at, cond, gs};
use crate::cpu::{Cpu, off};
use crate::mirror::{ARENA_BITS, ARENA_NUMBER};
use crate::mode::Mode;
use crate::transfer::{FLAT_CODE, FLAT_DATA, RING3};

/// One end of a crossing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Side {
    /// The mode there.
    pub mode: u32,
    /// Not 0: the crossing has nothing unusual.
    pub open: u32,
    /// That mode's jump-cache lookup.
    pub indirect: u64,
    /// Its way out of an empty stack of frames.
    pub underflow: u64,
    /// CS's limit, selector and attributes, as they lie in a [`lodge_x86::Segment`].
    pub cs: u64,
    /// SS's.
    pub ss: u64,
}

/// Both ends.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sides {
    /// Where SYSCALL leads.
    pub kernel: Side,
    /// Where SYSRETQ leads.
    pub user: Side,
    /// The arithmetic flags that SYSCALL keeps, as LAHF and SETO have them in AX.
    pub keep_ax: u64,
    /// The other flags that it keeps.
    pub keep: u64,
    /// 1 if it keeps IF.
    pub keep_if: u32,
}

/// Flags on which the mode depends, besides IOPL.
const MODE_FLAGS: u64 = rflags::TF | rflags::DF | rflags::AC;

fn packed(selector: u16, attributes: u16) -> u64 {
    u64::from(u32::MAX) | u64::from(selector) << 32 | u64::from(attributes) << 48
}

impl Cpu {
    /// Works out anew where SYSCALL and SYSRET lead. To be called when something that it depends on has changed:
    /// control registers, EFER, STAR, FMASK, and the stubs of modes.
    pub fn renew_sides(&mut self) {
        let enabled = self.is_long() && self.msrs.efer & efer::SCE != 0;
        let fmask = self.msrs.fmask;
        let kept = !fmask & !rflags::RF;
        let (code, base) = ((self.msrs.star >> 32) as u16 & !3, (self.msrs.star >> 48) as u16);
        let mut side = |user: bool, open: bool, cs: u64, ss: u64| {
            let mode = Mode::long(self, user);
            let own = self.context().ways.get(mode);
            let (indirect, underflow) = own.map_or((0, 0), |own| (own.indirect, own.underflow));
            Side { mode: mode.0, open: u32::from(open && own.is_some()), indirect, underflow, cs, ss }
        };
        let kernel = side(
            false,
            enabled && fmask & MODE_FLAGS == MODE_FLAGS,
            packed(code, FLAT_CODE | attribute::LONG),
            packed(code.wrapping_add(8), FLAT_DATA),
        );
        let user = side(
            true,
            enabled,
            packed(base.wrapping_add(16) | 3, FLAT_CODE | attribute::LONG | RING3),
            packed(base.wrapping_add(8) | 3, FLAT_DATA | RING3),
        );
        let keep_ax = (kept & rflags::ARITHMETIC & 0xff) << 8 | kept >> 11 & 1;
        let keep_if = u32::from(kept & rflags::IF != 0);
        self.sides = Sides { kernel, user, keep_ax, keep: kept, keep_if };
    }
}

/// Which side.
#[derive(Clone, Copy)]
enum To {
    Kernel,
    User,
}

/// A stub's beginning: RAX put aside, the arithmetic flags in AX. Its address.
fn begin(asm: &mut Asm) -> u64 {
    asm.align(16, 0);
    let here = asm.here();
    asm.store(gs(off::spill(6)), RAX);
    asm.save_flags_in_rax();
    here
}

/// A stub's way out to `to` with nothing done.
fn give_up(asm: &mut Asm, to: u64) {
    asm.restore_flags_from_rax();
    asm.load(RAX, gs(off::spill(6)));
    asm.jmp_to(to);
}

/// Brings the registers back and goes to R11 on the other side.
fn finish(asm: &mut Asm, to: To) {
    asm.restore_flags_from_rax();
    asm.load(RDX, gs(off::spill(0)));
    asm.load(RAX, gs(off::spill(6)));
    asm.jmp_mem(gs(off::side(matches!(to, To::User)).indirect));
}

/// Segments, mode and stack of frames of the other side. Writes RDX.
fn cross(asm: &mut Asm, to: To) {
    let side = off::side(matches!(to, To::User));
    asm.mov_imm32(RDX, 0);
    for field in [off::segment_base(1), off::segment_limits(1) - 8, off::segment_end(1, true)] {
        asm.store(gs(field), RDX);
    }
    for field in [off::segment_base(2), off::segment_limits(2) - 8] {
        asm.store(gs(field), RDX);
    }
    asm.mov_imm(RDX, 1 << 32);
    for field in [off::segment_end(1, false), off::segment_end(2, false), off::segment_end(2, true)] {
        asm.store(gs(field), RDX);
    }
    for (from, to) in [(side.cs, off::segment_limits(1)), (side.ss, off::segment_limits(2))] {
        asm.load(RDX, gs(from));
        asm.store(gs(to), RDX);
    }
    asm.load32(RDX, gs(side.mode));
    asm.store32(gs(off::MODE), RDX);
    crate::stubs::empty_window(asm, RDX);
    asm.load(RSP, gs(off::FRAMES_TOP));
    asm.load(RDX, gs(side.underflow));
    asm.store(at(RSP, 0), RDX);
    asm.store_imm32(gs(off::SOURCE), Cpu::NO_SOURCE);
}

/// Emits SYSCALL of 64-bit mode; called as the helper `system` is, which is where it gives up to.
pub fn emit_syscall(asm: &mut Asm, system: u64) -> u64 {
    let here = begin(asm);
    let slow = asm.label();
    asm.cmp32_mem_imm8(gs(off::side(false).open), 0);
    asm.jcc(cond::E, slow);
    asm.store(gs(off::spill(0)), RDX);
    // RCX: the address behind the instruction.
    asm.mov32(R10, RCX);
    asm.rorx(RCX, RCX, 32);
    asm.mov32(RCX, RCX);
    asm.add(R10, RCX);
    asm.add_mem(R10, gs(off::CODE_BASE));
    // R11: the flags.
    asm.rorx(RDX, RAX, 8);
    asm.and32_imm(RDX, (rflags::ARITHMETIC & 0xff) as i32);
    asm.mov32(RCX, RAX);
    asm.and32_imm(RCX, 1);
    asm.shl_imm(RCX, 11);
    asm.or(RDX, RCX);
    asm.load32(RCX, gs(off::INTERRUPT_FLAG));
    asm.shl_imm(RCX, 9);
    asm.or(RDX, RCX);
    asm.load(RCX, gs(off::SYSTEM_FLAGS));
    asm.or(RDX, RCX);
    asm.or_imm(RDX, rflags::FIXED as i32);
    asm.and32_imm(RDX, !(rflags::RF as i32));
    asm.store(gs(off::gpr(11)), RDX);
    // The flags that are left.
    asm.and_mem(RCX, gs(off::SIDES_KEEP));
    asm.store(gs(off::SYSTEM_FLAGS), RCX);
    asm.load32(RCX, gs(off::INTERRUPT_FLAG));
    asm.and32_mem(RCX, gs(off::SIDES_KEEP_IF));
    asm.store32(gs(off::INTERRUPT_FLAG), RCX);
    asm.and_mem(RAX, gs(off::SIDES_KEEP_AX));
    cross(asm, To::Kernel);
    asm.load(R11, gs(off::LSTAR));
    finish(asm, To::Kernel);
    asm.bind(slow);
    give_up(asm, system);
    here
}

/// Emits SYSRETQ. `poll`: where to go with the target in R11 if an interrupt waits for IF.
pub fn emit_sysret(asm: &mut Asm, system: u64, poll: u64) -> u64 {
    let here = begin(asm);
    let (slow, slower, waits) = (asm.label(), asm.label(), asm.label());
    asm.cmp32_mem_imm8(gs(off::side(true).open), 0);
    asm.jcc(cond::E, slow);
    asm.store(gs(off::spill(0)), RDX);
    asm.mov(RDX, R10);
    asm.shl_imm(RDX, 16);
    asm.sar_imm(RDX, 16);
    asm.cmp(RDX, R10);
    asm.jcc(cond::NE, slower);
    // Where the program is mirrored its stack pointer must not lie in the arena.
    asm.rorx(RDX, R9, ARENA_BITS.start);
    asm.cmp8_imm(RDX, ARENA_NUMBER);
    asm.jcc(cond::E, slower);
    asm.load(RDX, gs(off::gpr(11)));
    // VIP may owe the program a #GP, which the dispatcher raises.
    asm.test32_imm(RDX, (MODE_FLAGS | rflags::IOPL | rflags::VIP) as u32);
    asm.jcc(cond::NE, slower);
    asm.mov32(RAX, RDX);
    asm.and32_imm(RAX, (rflags::ARITHMETIC & 0xff) as i32);
    asm.shl_imm(RAX, 8);
    asm.rorx(RCX, RDX, 11);
    asm.and32_imm(RCX, 1);
    asm.or(RAX, RCX);
    asm.rorx(RCX, RDX, 9);
    asm.and32_imm(RCX, 1);
    asm.store32(gs(off::INTERRUPT_FLAG), RCX);
    const SYSTEM: u64 = rflags::WRITABLE & !(rflags::ARITHMETIC | rflags::IF | rflags::RF | rflags::VM);
    asm.and32_imm(RDX, SYSTEM as i32);
    asm.store(gs(off::SYSTEM_FLAGS), RDX);
    cross(asm, To::User);
    asm.mov(R11, R10);
    asm.and32_mem(RCX, gs(off::LATCHED));
    asm.jcc(cond::NE, waits);
    finish(asm, To::User);
    asm.bind(waits);
    asm.load(RDX, gs(off::spill(0)));
    give_up(asm, poll);
    asm.bind(slower);
    asm.load(RDX, gs(off::spill(0)));
    asm.bind(slow);
    give_up(asm, system);
    here
}
