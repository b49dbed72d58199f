//! Accesses of programs whose memory is mirrored ([`crate::mirror`]): at their own addresses, without a probe.
//!
//! All that must hold of an address is that it is not where lodge's own memory lies, the *arena*: one comparison of eight
//! of its bits. Whatever else is wrong with it the host's processor finds ([`crate::signal`]). A check that fails leaves
//! for a translation of the same code that probes ([`Mode::PLAIN`]).
//!
//! Most addresses need no check of their own. What is known of the registers is followed through the block
//! ([`Outside`]): the arena's guards are so wide that a register which has been checked may be moved by constants, and
//! indexed by a register that holds a small number, and still not lead into lodge's memory.
//!
//! The stack pointer is checked where it is written rather than where it is used: no mirrored code is entered with one
//! that lies in the arena, but for what a push, pop, call or return at the program's own address has moved it by, and
//! those fault in the guard before they get far. Whoever enters such code from elsewhere looks at it: the dispatcher
//! ([`crate::vcpu`]), SYSRET ([`crate::crossing`]), and helpers ([`crate::go`]). Where accesses probe nothing faults in
//! the guard: there the stack pointer is checked after whatever moves it. Nor does mirrored code lie in the arena itself,
//! which its entries for far links see to, and the dispatcher, which fills the tables that other branches look in.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::Emitter;
use super::classify::{is_string, is_system};
use super::cold::Cold;
use super::plan::{moves_stack_freely, stack_movement};
use super::probe::Ea;
use super::reach::Place;
use super::registers::{GprOperand, host};
use crate::asm::{Label, Mem, R9, R11, RCX, Reg, cond, gs};
use crate::cpu::off;
use crate::mirror::{ARENA_BITS, ARENA_NUMBER, GUARD};
use crate::mode::Mode;

const RSP: u8 = 4;

/// How far registers that are known to lie outside the arena may have moved since: with a displacement of 2 GiB, and an
/// index of 4 GiB times 8, they do not pass a guard. What the stack pointer may be inside it is less than the last term.
const DRIFT: u64 = 28 << 30;
const _: () = assert!(DRIFT + (2 << 30) + (32 << 30) + (1 << 30) <= GUARD);

/// What is known of general-purpose registers, a bit each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outside {
    /// They are outside the arena, but for what all of them together have moved.
    checked: u32,
    /// They hold numbers from -2 to the power of 31 up to 2 to the power of 32.
    small: u32,
    moved: u64,
}

impl Default for Outside {
    fn default() -> Self {
        Self { checked: 1 << RSP, small: 0, moved: 0 }
    }
}

impl Outside {
    fn is_outside(&self, number: u8) -> bool {
        (self.checked | self.small) & 1 << number != 0
    }

    fn is_small(&self, number: u8) -> bool {
        self.small & 1 << number != 0
    }

    fn note(&mut self, number: u8) {
        self.checked |= 1 << number;
    }

    /// What is known after an instruction that writes the registers `written`.
    pub(super) fn after(&mut self, ins: &Instruction, written: u32) {
        if is_system(ins) || is_string(ins) {
            *self = Self::default();
        }
        if written == 0 {
            return;
        }
        let before = *self;
        self.checked &= !written;
        self.small &= !written;
        if let Some(by) = stack_movement(ins, written)
            && written & 1 << RSP != 0
        {
            self.checked |= (before.checked | before.small) & 1 << RSP;
            self.moved += by.unsigned_abs();
        }
        if ins.op0_kind() == OpKind::Register
            && let Some(to) = GprOperand::of(ins.op0_register())
            && written & 1 << to.number != 0
        {
            self.learn(ins, to, written, &before);
        }
        // Wherever it was written to, it is checked before the next instruction.
        self.checked |= written & 1 << RSP;
        if self.moved > DRIFT {
            (self.checked, self.moved) = (0, 0);
        }
    }

    /// What an instruction makes of its first operand, which it writes.
    fn learn(&mut self, ins: &Instruction, to: GprOperand, written: u32, before: &Self) {
        let bit = 1 << to.number;
        match to.bytes {
            // What lies above the width becomes zero.
            4 if clears_above(ins) => self.small |= bit,
            8 => self.learn_wide(ins, to.number, before),
            1 | 2 if written == bit => {
                self.checked |= before.checked & bit;
                self.small |= before.small & bit;
                self.moved += 1 << 16;
            }
            _ => {}
        }
    }

    fn learn_wide(&mut self, ins: &Instruction, to: u8, before: &Self) {
        let bit = 1 << to;
        let from = (ins.op1_kind() == OpKind::Register).then(|| GprOperand::of(ins.op1_register())).flatten();
        let immediate = match ins.op1_kind() {
            OpKind::Immediate8to64 | OpKind::Immediate32to64 => Some(ins.immediate(1) as i64),
            _ => None,
        };
        match (ins.mnemonic(), from, immediate) {
            (Mnemonic::Mov, Some(from), _) => {
                self.checked |= u32::from(before.checked & 1 << from.number != 0) << to;
                self.small |= u32::from(before.small & 1 << from.number != 0) << to;
            }
            (Mnemonic::Mov, _, Some(_)) | (Mnemonic::Movsxd | Mnemonic::Movzx | Mnemonic::Movsx, _, _) => {
                self.small |= bit;
            }
            (Mnemonic::Add | Mnemonic::Sub, _, Some(by)) if before.is_outside(to) => {
                self.checked |= bit;
                self.moved += by.unsigned_abs();
            }
            (Mnemonic::Add, Some(from), _) if before.is_outside(to) && before.is_small(from.number) => {
                self.checked |= bit;
                self.moved += 4 << 30;
            }
            (Mnemonic::And, _, Some(0..)) => self.small |= bit,
            (Mnemonic::And, _, Some(by)) if before.is_outside(to) => {
                self.checked |= bit;
                self.moved += by.unsigned_abs();
            }
            (Mnemonic::Inc | Mnemonic::Dec, _, _) if before.is_outside(to) => {
                self.checked |= bit;
                self.moved += 1;
            }
            (Mnemonic::Lea, _, _) => self.learn_sum(ins, to, before),
            _ => {}
        }
    }

    /// LEA.
    fn learn_sum(&mut self, ins: &Instruction, to: u8, before: &Self) {
        let ea = Ea::of(ins);
        let known = ea.relative || ea.base.is_none_or(|base| before.is_outside(base));
        let near = i32::try_from(ea.displacement).is_ok();
        let by = match ea.index {
            None => Some(0),
            Some((index, scale)) => before.is_small(index).then_some(4 << 30 << scale),
        };
        if ea.bits == 64
            && near
            && known
            && let Some(by) = by
        {
            self.checked |= 1 << to;
            self.moved += by + if ea.relative { 0 } else { ea.displacement.unsigned_abs() };
        }
    }
}

impl Emitter<'_> {
    /// Whether the current instruction's accesses are made at their own addresses.
    pub(super) fn is_mirrored(&self) -> bool {
        self.mode.is_mirrored() && !self.probes
    }

    /// Leaves if the linear address in `reg` lies in the arena. Writes RCX, and flags unless they are live.
    fn check_outside(&mut self, reg: Reg) {
        if self.keep_flags && self.may_park && self.remat.is_some() {
            self.release_flags();
        }
        let enter = self.asm.label();
        self.jump_if_inside(reg, enter);
        let exit = self.plain_exit();
        self.cold.push(Cold::Plain { enter, exit, remat: self.let_go });
    }

    /// To `enter` if the linear address in `reg` lies in the arena. Writes RCX, and flags unless they are live.
    pub(super) fn jump_if_inside(&mut self, reg: Reg, enter: Label) {
        self.asm.rorx(RCX, reg, ARENA_BITS.start);
        if self.keep_flags {
            let outside = self.asm.label();
            self.asm.movzx8(RCX, RCX);
            self.asm.lea32(RCX, crate::asm::at(RCX, -i32::from(ARENA_NUMBER)));
            self.asm.unless_rcx_zero(|asm| asm.jmp(outside));
            self.asm.jmp(enter);
            self.asm.bind(outside);
        } else {
            self.asm.cmp8_imm(RCX, ARENA_NUMBER);
            self.asm.jcc(cond::E, enter);
        }
    }

    /// Sees to it that a register which is at home lies outside the arena. Writes RCX, and flags unless they are live.
    fn settle(&mut self, number: u8, home: Reg) {
        if !self.outside.is_outside(number) {
            self.check_outside(home);
            self.outside.note(number);
        }
    }

    /// R11 = the linear address, which lies outside the arena. Writes RCX, and flags unless they are live.
    pub(super) fn mirrored_address(&mut self, ea: &Ea) {
        self.effective(ea);
        self.add_base(ea.segment);
        if !self.needs_no_check(ea) {
            self.check_outside(R11);
        }
    }

    /// Whether what is known of an operand's registers is enough.
    fn needs_no_check(&self, ea: &Ea) -> bool {
        if ea.segment >= 4 {
            return false;
        }
        let near = i32::try_from(ea.displacement).is_ok();
        ea.bits == 32
            || near
                && ea.base.is_none_or(|base| self.outside.is_outside(base))
                && ea.index.is_none_or(|(index, _)| self.outside.is_small(index))
    }

    /// Where an operand is, at its own address. Writes R11 and RCX, and flags unless they are live.
    pub(super) fn mirrored_place(&mut self, ea: &Ea) -> Place {
        let in_r11 = |displacement| Place::Own(Mem { gs: false, base: Some(R11), index: None, disp: displacement });
        let Ok(displacement) = i32::try_from(ea.displacement) else {
            self.mirrored_address(ea);
            return in_r11(0);
        };
        if ea.bits != 64 {
            self.mirrored_address(ea);
            return in_r11(0);
        }
        match (ea.base, ea.index) {
            (None, None) if ea.relative && ea.segment < 4 => {
                // Mirrored code does not lie in the arena ([`crate::vcpu`]).
                self.address.calm = true;
                self.asm.load(R11, gs(off::CODE_BASE));
                in_r11(displacement)
            }
            (None, None) if !ea.relative && ea.segment >= 4 => {
                self.asm.load(R11, gs(off::segment_base(ea.segment)));
                self.check_outside(R11);
                in_r11(displacement)
            }
            (Some(base), None) if ea.segment < 4 => {
                self.address.calm = self.outside.is_outside(base);
                let reg = host(base).unwrap_or_else(|| self.parked_base(base));
                self.settle(base, reg);
                Place::Own(Mem { gs: false, base: Some(reg), index: None, disp: displacement })
            }
            (Some(base), Some((index, scale)))
                if self.needs_no_check(ea)
                    && let Some(home) = host(base)
                    && let Some(second) = host(index) =>
            {
                self.address.calm = true;
                Place::Own(Mem { gs: false, base: Some(home), index: Some((second, scale)), disp: displacement })
            }
            _ => {
                self.mirrored_address(ea);
                in_r11(0)
            }
        }
    }

    /// A scratch register that holds a parked one. Where RCX will be written it is R11.
    fn parked_base(&mut self, number: u8) -> Reg {
        let reg = match self.address.place(number) {
            Some(RCX) if self.address.calm => RCX,
            Some(RCX) => {
                self.asm.mov(R11, RCX);
                R11
            }
            Some(reg) => reg,
            None => {
                self.asm.load(R11, gs(off::gpr(number)));
                R11
            }
        };
        self.address.base = Some((reg, number));
        reg
    }

    /// Where the current instruction's push or pop is, so far from the stack pointer.
    pub(super) fn mirrored_stack_place(&mut self, displacement: i32) -> Place {
        self.settle(RSP, R9);
        Place::Own(Mem { gs: false, base: Some(R9), index: None, disp: displacement })
    }

    /// Notes what is known after an instruction.
    pub(super) fn learn(&mut self, ins: &Instruction) {
        let written = self.plan.written.get(self.number).copied().unwrap_or(u32::MAX);
        self.stack_moved =
            self.mode.has(Mode::MIRRORED) && !self.mode.has(Mode::HOW) && moves_stack_freely(ins, written, self.mode);
        if self.mode.is_mirrored() {
            self.outside.after(ins, written);
        }
    }

    /// Leaves for the dispatcher if the block, whose linear address is in R11, lies in the arena. Writes RCX, and flags
    /// unless they are live.
    pub(super) fn check_place(&mut self, flags_live: bool) {
        if !self.mode.has(Mode::MIRRORED) {
            return;
        }
        let enter = self.asm.label();
        self.keep_flags = flags_live;
        self.jump_if_inside(R11, enter);
        self.cold.push(Cold::Place { enter });
    }

    /// Leaves for the dispatcher if the stack pointer was written and lies in the arena; `place` is the next
    /// instruction. Writes RCX, and flags unless they are live.
    pub(super) fn check_stack(&mut self, place: u64) {
        if !std::mem::take(&mut self.stack_moved) {
            return;
        }
        let enter = self.asm.label();
        self.jump_if_inside(R9, enter);
        self.cold.push(Cold::Stack { enter, place, remat: self.let_go });
        self.old_copies = super::operands::Copies::default();
    }

    /// Whether an instruction with a memory operand finds registers for all else that it names without borrowing
    /// any: if one is borrowed where an access faults, its content would be lost.
    pub(super) fn names_few(&self, ins: &Instruction, counter: bool) -> bool {
        let mut away = 0;
        for n in 0..ins.op_count() {
            if ins.op_kind(n) == OpKind::Register
                && let Some(gpr) = GprOperand::of(ins.op_register(n))
            {
                if gpr.high {
                    return false;
                }
                away += u32::from(host(gpr.number).is_none());
            }
        }
        away <= u32::from(!counter)
    }
}

/// Whether a write of 32 bits to the first operand, a register, always clears the upper half. Some instructions may leave
/// the register alone: BSF, LAR, CMPXCHG.
fn clears_above(ins: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        ins.mnemonic(),
        M::Mov
            | M::Cmova
            | M::Cmovae
            | M::Cmovb
            | M::Cmovbe
            | M::Cmove
            | M::Cmovg
            | M::Cmovge
            | M::Cmovl
            | M::Cmovle
            | M::Cmovne
            | M::Cmovno
            | M::Cmovnp
            | M::Cmovns
            | M::Cmovo
            | M::Cmovp
            | M::Cmovs
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Lea
            | M::Add
            | M::Sub
            | M::And
            | M::Or
            | M::Xor
            | M::Imul
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::Shl
            | M::Shr
            | M::Sar
            | M::Movd
    )
}

/// An operand of the host in place of the guest's.
pub(super) fn put(out: &mut Instruction, mem: Mem) {
    let name = |reg: Reg| Register::RAX + u32::from(reg.0);
    out.set_segment_prefix(Register::None);
    out.set_memory_base(mem.base.map_or(Register::None, name));
    out.set_memory_index(mem.index.map_or(Register::None, |(reg, _)| name(reg)));
    out.set_memory_index_scale(mem.index.map_or(1, |(_, scale)| 1 << scale));
    out.set_memory_displacement64(i64::from(mem.disp) as u64);
    out.set_memory_displ_size(match mem.disp {
        0 => 0,
        -128..=127 => 1,
        _ => 8,
    });
}

/// The same instruction with a general memory operand where its own form has but a displacement.
pub(super) fn general_form(code: Code) -> Code {
    match code {
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_RAX_moffs64 => Code::Mov_r64_rm64,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Mov_moffs64_RAX => Code::Mov_rm64_r64,
        other => other,
    }
}
