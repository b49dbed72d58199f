//! Flags that are made again where they are wanted, instead of being kept.
//!
//! The last instruction of a block that writes flags often comes before its last memory accesses, and their probes want
//! to write flags too. If its result, or its operands, are still there at the end of the block, the flags can be had
//! again for an instruction or two: those of `or esi, eax` by `test esi, esi`, those of `cmp` by the same `cmp`. So
//! they are let go, and made again before each way out: exits, and faults. A fault that the host's processor finds
//! comes without warning; then the dispatcher has the block make them ([`super::Header::remake`]).
//!
//! Where that is not possible they are put aside in memory (`park` in [`super`]).

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::Emitter;
use super::classify::ARITHMETIC;
use super::registers::{GprOperand, host};
use crate::asm::{Mem, RCX};

/// How to make a block's last flags again.
#[derive(Clone, Copy, Debug)]
pub enum Remat {
    /// By this instruction of the host, which writes nothing else.
    By(Instruction),
    /// What was subtracted is added to the result, in RCX, and compared with it again.
    Difference { to: GprOperand, by: Subtrahend },
}

/// A register of the guest or a number.
#[derive(Clone, Copy, Debug)]
pub enum Subtrahend {
    Register(GprOperand),
    Number(i32),
}

impl Remat {
    /// How to make the flags of `instructions`' last writer of flags again, if `passes` says which come behind it and
    /// `written` which registers each writes.
    pub fn of(instructions: &[Instruction], passes: &[bool], written: &[u32]) -> Option<Self> {
        let behind = passes.iter().position(|&passes| passes)?;
        let writer = instructions.get(..behind)?.iter().rposition(|ins| ins.rflags_modified() & ARITHMETIC != 0)?;
        let changed = written.get(writer + 1..)?.iter().fold(0, |all, registers| all | registers);
        Self::of_one(instructions.get(writer)?, changed)
    }

    fn of_one(ins: &Instruction, changed: u32) -> Option<Self> {
        let stays = |gpr: GprOperand| host(gpr.number).is_some() && changed & 1 << gpr.number == 0;
        let operand =
            |n: u32| (ins.op_kind(n) == OpKind::Register).then(|| GprOperand::of(ins.op_register(n))).flatten();
        let to = operand(0)?;
        if !stays(to) || to.high || ins.op_count() < 2 {
            return None;
        }
        match ins.mnemonic() {
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => Some(Self::By(test(to))),
            Mnemonic::Cmp | Mnemonic::Test => {
                let mut out = *ins;
                out.set_op0_register(to.on(host(to.number)?));
                if let Some(from) = operand(1) {
                    if !stays(from) || from.high {
                        return None;
                    }
                    out.set_op1_register(from.on(host(from.number)?));
                } else if ins.op1_kind() == OpKind::Memory {
                    return None;
                }
                Some(Self::By(out))
            }
            Mnemonic::Sub if to.bytes >= 4 => {
                let by = match operand(1) {
                    Some(from) if stays(from) && !from.high && from.number != to.number => Subtrahend::Register(from),
                    Some(_) => return None,
                    None if ins.op1_kind() == OpKind::Memory => return None,
                    None => Subtrahend::Number(i32::try_from(ins.immediate(1) as i64).ok()?),
                };
                Some(Self::Difference { to, by })
            }
            _ => None,
        }
    }
}

/// `test to, to`.
fn test(to: GprOperand) -> Instruction {
    let code = match to.bytes {
        1 => Code::Test_rm8_r8,
        2 => Code::Test_rm16_r16,
        4 => Code::Test_rm32_r32,
        _ => Code::Test_rm64_r64,
    };
    let register = host(to.number).map_or(Register::None, |home| to.on(home));
    let mut out = Instruction::default();
    out.set_code(code);
    out.set_op0_register(register);
    out.set_op1_register(register);
    out
}

impl Emitter<'_> {
    /// Makes flags again that have been let go. Writes RCX.
    pub(super) fn make_flags(&mut self, remat: Option<Remat>) {
        match remat {
            None => {}
            Some(Remat::By(ins)) => self.encode(&ins),
            Some(Remat::Difference { to, by }) => {
                let base = host(to.number);
                let (index, disp) = match by {
                    Subtrahend::Register(from) => (host(from.number).map(|home| (home, 0)), 0),
                    Subtrahend::Number(number) => (None, number),
                };
                let sum = Mem { gs: false, base, index, disp };
                let wide = to.bytes == 8;
                if wide {
                    self.asm.lea(RCX, sum)
                } else {
                    self.asm.lea32(RCX, sum)
                }
                match by {
                    Subtrahend::Register(from) => {
                        let from = host(from.number).unwrap_or(RCX);
                        if wide { self.asm.cmp(RCX, from) } else { self.asm.cmp32(RCX, from) }
                    }
                    Subtrahend::Number(number) if wide => self.asm.cmp_imm(RCX, number),
                    Subtrahend::Number(number) => self.asm.cmp32_imm(RCX, number),
                }
            }
        }
    }

    /// Makes flags again before control leaves the block. Writes RCX.
    pub(super) fn settle_flags(&mut self) {
        let remat = self.let_go.take();
        self.make_flags(remat);
    }
}
