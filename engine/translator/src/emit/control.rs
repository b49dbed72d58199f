//! Near branches, calls and returns.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};

use super::Emitter;
use super::cold::Cold;
use super::probe::Ea;
use super::registers::GprOperand;
use crate::asm::{Mem, R10, R11, RCX, Size, at, cond, gs};
use crate::branch_table;
use crate::cpu::off;
use crate::mode::Mode;
use crate::stubs::{probe_jumps, probe_jumps_freely};

impl Emitter<'_> {
    /// Emits a branch; whether control may go on behind it in the block.
    pub(super) fn control(&mut self, ins: &Instruction) -> bool {
        match ins.flow_control() {
            FlowControl::ConditionalBranch => {
                self.conditional(ins);
                if self.number + 1 < self.plan.reaches.len() {
                    return true;
                }
                let next = self.next as i64;
                self.exit_direct(next, false);
            }
            FlowControl::UnconditionalBranch => {
                let target = self.target(ins);
                self.branch_to(target);
            }
            FlowControl::Call => self.call(ins),
            FlowControl::IndirectCall => self.call_indirect(ins),
            FlowControl::IndirectBranch => {
                self.load_target(ins);
                if self.asks() {
                    self.jump_indirect(operand_size(ins));
                } else {
                    self.look_up_and_jump(operand_size(ins));
                }
            }
            FlowControl::Return => self.ret(ins),
            _ => {
                // XBEGIN and the like are refused by the profile before they come here.
                self.raise(lodge_x86::exception::vector::INVALID_OPCODE);
            }
        }
        false
    }

    /// Whether calls, returns and indirect branches go to the dispatcher, which looks at the stack pointer: what they have
    /// moved it by may not have faulted where it would have at the program's own address ([`super::mirrored`]).
    fn asks(&self) -> bool {
        asks(self.mode)
    }

    /// To the block for the instruction pointer in R11, of `size` bytes, by a lookup of its own, so that the processor
    /// predicts each such jump by itself.
    fn look_up_and_jump(&mut self, size: usize) {
        let miss = self.asm.label();
        let remat = self.let_go.take();
        if self.mode.is_mirrored() && size == 8 {
            branch_table::probe(self.asm, self.salt, miss);
            self.make_flags(remat);
            let entry = branch_table::entry(self.asm);
            self.asm.jmp_mem(entry);
            self.asm.bind(miss);
            self.note_source();
            self.make_flags(remat);
            self.asm.jmp_to(self.indirect);
            return;
        }
        self.narrow(size);
        if remat.is_none() && !self.parked {
            probe_jumps(self.asm, self.salt, 0, miss);
            self.asm.jmp_reg(RCX);
        } else {
            // Flags may be written until they are made again, which takes RCX.
            let entry = probe_jumps_freely(self.asm, self.salt, miss);
            if remat.is_none() {
                self.asm.jmp_mem(entry);
            } else {
                self.asm.load(RCX, entry);
                self.asm.store(gs(off::spill(1)), RCX);
                self.make_flags(remat);
                self.asm.jmp_mem(gs(off::spill(1)));
            }
        }
        self.asm.bind(miss);
        self.make_flags(remat);
        self.asm.jmp_to(self.indirect);
    }

    /// A near branch's target relative to the page. Decoding wrapped it to the operand's width.
    fn target(&self, ins: &Instruction) -> Target {
        let wrapped = ins.near_branch_target();
        match ins.op0_kind() {
            OpKind::NearBranch64 => Target::Page(wrapped as i64),
            OpKind::NearBranch32 => Target::Page(i64::from(wrapped as u32 as i32)),
            // IP wraps within its 64 KiB, and the page does not say where in them it lies.
            _ => Target::Wrapping(i64::from(wrapped as u16 as i16)),
        }
    }

    fn branch_to(&mut self, target: Target) {
        match target {
            Target::Page(offset) => self.exit_direct(offset, offset <= self.offset as i64),
            Target::Wrapping(offset) => {
                self.settle_flags();
                self.wrapped(offset);
                self.asm.jmp_to(self.indirect);
            }
        }
    }

    /// R11 = the linear address of a target whose instruction pointer wraps at 64 KiB.
    fn wrapped(&mut self, offset: i64) {
        self.linear(offset);
        self.to_instruction_pointer();
        self.asm.movzx16(R11, R11);
        self.to_linear();
    }

    /// R11 += CS base outside 64-bit mode. Writes RCX, no flags.
    #[expect(clippy::wrong_self_convention, reason = "it is R11 that is converted")]
    fn to_linear(&mut self) {
        if !self.mode.is_64() && !self.mode.has(Mode::CS_FLAT) {
            self.asm.load(RCX, gs(off::segment_base(1)));
            self.asm.lea32(R11, Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 0 });
        }
    }

    /// Jumps to the instruction pointer in R11, of `size` bytes.
    fn jump_indirect(&mut self, size: usize) {
        self.settle_flags();
        self.narrow(size);
        self.asm.jmp_to(self.indirect);
    }

    /// Notes where a branch is whose target may be refused.
    fn note_source(&mut self) {
        self.asm.store_imm32(gs(off::SOURCE), self.offset as u32);
    }

    /// From the instruction pointer in R11, of `size` bytes, to the linear address.
    fn narrow(&mut self, size: usize) {
        self.note_source();
        match size {
            2 => self.asm.movzx16(R11, R11),
            4 => self.asm.mov32(R11, R11),
            _ => {}
        }
        self.to_linear();
    }

    fn conditional(&mut self, ins: &Instruction) {
        let target = self.target(ins);
        match ins.mnemonic() {
            Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
                self.count_down(ins);
                let condition = match ins.mnemonic() {
                    Mnemonic::Loope => Some(cond::NE),
                    Mnemonic::Loopne => Some(cond::E),
                    _ => None,
                };
                let done = self.asm.label();
                let go_on = self.asm.label();
                self.asm.unless_rcx_zero(|asm| asm.jmp(go_on));
                self.asm.jmp(done);
                self.asm.bind(go_on);
                if let Some(leave) = condition {
                    self.asm.jcc(leave, done);
                }
                self.branch_to(target);
                self.asm.bind(done);
            }
            Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
                match ins.mnemonic() {
                    Mnemonic::Jcxz => self.asm.movzx16(RCX, R10),
                    Mnemonic::Jecxz => self.asm.mov32(RCX, R10),
                    _ => self.asm.mov(RCX, R10),
                }
                let not_taken = self.asm.label();
                self.asm.unless_rcx_zero(|asm| asm.jmp(not_taken));
                self.branch_to(target);
                self.asm.bind(not_taken);
            }
            _ => {
                let condition = ins.condition_code() as u8 - 1;
                match target {
                    Target::Page(offset) if self.chains_to(offset) => {
                        let backward = offset <= self.offset as i64;
                        let enter = self.chain(offset, backward);
                        self.align_displacement(2);
                        self.asm.bytes(&[0x0f, 0x80 | condition]);
                        self.patchable(enter);
                    }
                    Target::Page(offset) => {
                        let enter = self.asm.label();
                        self.asm.jcc(condition, enter);
                        let exit = self.far_exit(offset);
                        self.cold.push(Cold::Far { enter, target: offset, exit });
                    }
                    Target::Wrapping(_) => {
                        let not_taken = self.asm.label();
                        self.asm.jcc(condition ^ 1, not_taken);
                        self.branch_to(target);
                        self.asm.bind(not_taken);
                    }
                }
            }
        }
    }

    /// LOOP's count, in the address size: decremented, and left in RCX. No flags.
    fn count_down(&mut self, ins: &Instruction) {
        use iced_x86::Code;
        let bits = match ins.code() {
            Code::Loop_rel8_16_CX
            | Code::Loop_rel8_32_CX
            | Code::Loope_rel8_16_CX
            | Code::Loope_rel8_32_CX
            | Code::Loopne_rel8_16_CX
            | Code::Loopne_rel8_32_CX => 16,
            Code::Loop_rel8_64_RCX
            | Code::Loop_rel8_16_RCX
            | Code::Loope_rel8_64_RCX
            | Code::Loope_rel8_16_RCX
            | Code::Loopne_rel8_64_RCX
            | Code::Loopne_rel8_16_RCX => 64,
            _ => 32,
        };
        match bits {
            64 => {
                self.asm.lea(R10, at(R10, -1));
                self.asm.mov(RCX, R10);
            }
            32 => {
                self.asm.lea32(R10, at(R10, -1));
                self.asm.mov32(RCX, R10);
            }
            _ => {
                self.asm.lea32(RCX, at(R10, -1));
                self.asm.mov16(R10, RCX);
                self.asm.movzx16(RCX, RCX);
            }
        }
    }

    /// Pushes the address of the next instruction.
    fn push_return(&mut self, size: usize) {
        let place = self.stack_place(-(size as i64), size, true);
        self.settle_flags();
        // Before anything has changed: the push may find the stack full, and the instruction is begun again.
        self.expect_return();
        if self.mode.is_64() {
            if self.asks() {
                self.asm.load(RCX, gs(off::CODE_BASE));
                self.asm.lea(RCX, at(RCX, self.next as i32));
            }
            self.store_place(place, size, RCX);
        } else {
            self.asm.store(gs(off::spill(2)), R11);
            self.linear(self.next as i64);
            self.to_instruction_pointer();
            self.asm.mov(RCX, R11);
            self.asm.load(R11, gs(off::spill(2)));
            self.asm.store_sized(Size::of(size), at(R11, 0), RCX);
        }
        self.commit();
        self.move_stack(-(size as i32));
    }

    /// Leaves a frame for the return that is to come: its first half. The call itself leaves the second.
    fn expect_return(&mut self) {
        if self.asks() {
            return;
        }
        self.asm.load(RCX, gs(off::CODE_BASE));
        self.asm.lea(RCX, at(RCX, self.next as i32));
        if !self.mode.is_64() {
            self.asm.mov32(RCX, RCX);
        }
        self.asm.push(RCX);
    }

    /// What stands behind a host CALL: the guest returns to R11. Where that is the address expected, the block goes on
    /// there.
    fn landing(&mut self) {
        if self.asks() {
            return;
        }
        let elsewhere = self.underflow;
        self.asm.pop(RCX);
        self.asm.not(RCX);
        self.asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R11, 0)), disp: 1 });
        self.asm.unless_rcx_zero(|asm| asm.jmp_to(elsewhere));
        self.asm.lea(RCX, at(R11, -(self.next as i32)));
        self.asm.store(gs(off::CODE_BASE), RCX);
        // The block that returned may have left flags parked. It has not if it is a mirrored program's: frames do not
        // outlast a change to other code ([`crate::vcpu`], [`Mode::is_like`]).
        self.parked = !self.mode.has(Mode::MIRRORED);
        let next = self.next as i64;
        self.exit_direct(next, false);
    }

    fn call(&mut self, ins: &Instruction) {
        let size = operand_size(ins);
        let target = self.target(ins);
        self.push_return(size);
        if self.asks() {
            self.settle_flags();
            match target {
                Target::Page(offset) => {
                    self.asm.store_imm32(gs(off::SOURCE), self.source(offset));
                    self.linear(offset);
                }
                Target::Wrapping(offset) => self.wrapped(offset),
            }
            return self.asm.jmp_to(self.indirect);
        }
        match target {
            Target::Page(offset) if self.chains_to(offset) => {
                let backward = offset <= self.offset as i64;
                let enter = self.chain(offset, backward);
                self.align_displacement(1);
                self.asm.byte(0xe8);
                self.patchable(enter);
            }
            Target::Page(offset) => {
                self.linear(offset);
                match self.far_exit(offset) {
                    Some(exit) => {
                        let enter = self.asm.label();
                        self.cold.push(Cold::Chain { enter, exit });
                        self.align_displacement(1);
                        self.asm.byte(0xe8);
                        self.patchable(enter);
                    }
                    None => self.asm.call_to(self.indirect),
                }
            }
            Target::Wrapping(offset) => {
                self.wrapped(offset);
                self.asm.call_to(self.indirect);
            }
        }
        self.landing();
    }

    /// R11 = the operand of an indirect branch.
    fn load_target(&mut self, ins: &Instruction) {
        match GprOperand::of(ins.op0_register()) {
            Some(gpr) if ins.op0_kind() == OpKind::Register => self.read_gpr(gpr.number, R11),
            _ => {
                let size = operand_size(ins);
                let place = self.operand_place(&Ea::of(ins), size as u32, false, true);
                self.load_place(place, size, R11);
                self.held = None;
            }
        }
    }

    fn call_indirect(&mut self, ins: &Instruction) {
        let size = operand_size(ins);
        self.load_target(ins);
        self.asm.store(gs(off::spill(1)), R11);
        self.push_return(size);
        self.asm.load(R11, gs(off::spill(1)));
        if self.asks() {
            return self.jump_indirect(size);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        let direct = self.mode.is_mirrored() && size == 8;
        if direct {
            branch_table::probe(self.asm, self.salt, miss);
            let entry = branch_table::entry(self.asm);
            self.asm.load(RCX, entry);
        } else {
            self.narrow(size);
            probe_jumps(self.asm, self.salt, 0, miss);
        }
        self.asm.call_reg(RCX);
        self.asm.bind(back);
        self.landing();
        self.asm.bind(miss);
        if direct {
            self.note_source();
        }
        self.asm.call_to(self.indirect);
        self.asm.jmp(back);
    }

    fn ret(&mut self, ins: &Instruction) {
        let size = operand_size(ins);
        let place = self.stack_place(0, size, false);
        self.load_place(place, size, R11);
        let extra = if ins.op_count() == 1 { i32::from(ins.immediate16()) } else { 0 };
        self.move_stack(size as i32 + extra);
        if self.asks() {
            return self.jump_indirect(size);
        }
        self.narrow(size);
        self.settle_flags();
        self.asm.ret();
    }
}

/// See [`Emitter::asks`].
pub(super) fn asks(mode: Mode) -> bool {
    mode.has(Mode::HOW) || mode.has(Mode::PLAIN) && mode.has(Mode::MIRRORED)
}

/// Where a branch goes.
#[derive(Clone, Copy)]
enum Target {
    /// To an offset from the start of the page.
    Page(i64),
    /// The same, with the instruction pointer cut to 16 bits.
    Wrapping(i64),
}

/// Bytes of the instruction pointer that a near branch, call or return moves.
fn operand_size(ins: &Instruction) -> usize {
    use iced_x86::Code;
    match ins.code() {
        Code::Call_rel16 | Code::Call_rm16 | Code::Jmp_rm16 | Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Call_rel32_32 | Code::Call_rm32 | Code::Jmp_rm32 | Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    }
}
