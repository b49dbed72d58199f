//! PUSH, POP and their kin.
//!
//! Each writes or reads memory first and moves the stack pointer after, so that a fault has changed nothing.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::Emitter;
use super::probe::{Ea, segment_number};
use super::reach::Place;
use super::registers::{GprOperand, host};
use crate::asm::{Mem, R9, R11, RCX, Size, at, gs};
use crate::cpu::off;
use crate::mode::Mode;

const RSP: u8 = 4;
const RBP: u8 = 5;
/// The stack segment's number.
const SS: u8 = 2;

impl Emitter<'_> {
    /// `[rsp + displacement]`.
    pub(super) fn stack_slot(&self, displacement: i64) -> Ea {
        Ea::simple(RSP, displacement, SS, self.mode.stack_bits())
    }

    /// RSP += `by`, in the stack's width. Writes RCX, no flags.
    pub(super) fn move_stack(&mut self, by: i32) {
        match self.mode.stack_bits() {
            64 => self.asm.lea(R9, at(R9, by)),
            32 => self.asm.lea32(R9, at(R9, by)),
            _ => {
                self.asm.lea32(RCX, at(R9, by));
                self.asm.mov16(R9, RCX);
            }
        }
    }

    /// Pushes what is in spill slot 1.
    fn push_spilled(&mut self, size: usize) {
        let place = self.stack_place(-(size as i64), size, true);
        self.asm.load(RCX, gs(off::spill(1)));
        self.store_place(place, size, RCX);
        self.commit();
        self.move_stack(-(size as i32));
    }

    /// Emits a stack instruction; whether control goes on behind it.
    pub(super) fn stack(&mut self, ins: &Instruction) -> bool {
        match ins.mnemonic() {
            Mnemonic::Push if ins.op0_register().is_segment_register() => self.push_segment(ins),
            Mnemonic::Pop if ins.op0_register().is_segment_register() => return self.system_instruction(ins),
            Mnemonic::Push => self.push(ins),
            Mnemonic::Pop => self.pop(ins),
            Mnemonic::Leave => self.leave(ins),
            Mnemonic::Pusha | Mnemonic::Pushad => self.push_all(ins),
            Mnemonic::Popa | Mnemonic::Popad => self.pop_all(ins),
            _ if self.mode.has(Mode::IF_FREE) => self.push_flags(ins),
            _ => return self.system_instruction(ins),
        }
        true
    }

    fn push(&mut self, ins: &Instruction) {
        let size = stack_size(ins);
        match ins.op0_kind() {
            OpKind::Register => {
                let number = GprOperand::of(ins.op0_register()).map_or(0, |g| g.number);
                let place = self.stack_place(-(size as i64), size, true);
                let from = host(number).unwrap_or_else(|| {
                    self.asm.load(RCX, gs(off::gpr(number)));
                    RCX
                });
                self.store_place(place, size, from);
                if matches!(place, Place::Window(_)) {
                    self.held = self.was_held;
                }
                self.commit();
                self.move_stack(-(size as i32));
            }
            OpKind::Memory => {
                let place = self.operand_place(&Ea::of(ins), size as u32, false, true);
                self.load_place(place, size, RCX);
                self.asm.store(gs(off::spill(1)), RCX);
                self.held = None;
                self.push_spilled(size);
            }
            _ => {
                let place = self.stack_place(-(size as i64), size, true);
                self.asm.mov_imm(RCX, ins.immediate(0));
                self.store_place(place, size, RCX);
                self.commit();
                self.move_stack(-(size as i32));
            }
        }
    }

    fn push_segment(&mut self, ins: &Instruction) {
        // A 32-bit push of a selector writes only 16 bits on today's processors; the slot is still four bytes.
        let size = stack_size(ins);
        let slot = self.stack_slot(-(size as i64));
        let width = if self.mode.is_64() { size } else { 2 };
        self.probe_as(&slot, width as u32, true, false);
        let selector = off::segment_selector(segment_number(ins.op0_register()));
        self.asm.load_sized(Size::B2, RCX, gs(selector));
        self.asm.store_sized(Size::of(width), at(R11, 0), RCX);
        self.commit();
        self.move_stack(-(size as i32));
    }

    fn pop(&mut self, ins: &Instruction) {
        let size = stack_size(ins);
        let place = self.stack_place(0, size, false);
        if ins.op0_kind() == OpKind::Register {
            let number = GprOperand::of(ins.op0_register()).map_or(0, |g| g.number);
            match host(number) {
                Some(home) if size == 8 => {
                    self.load_place(place, size, home);
                    if matches!(place, Place::Window(_)) {
                        self.held = self.was_held;
                    }
                }
                _ => {
                    self.load_place(place, size, R11);
                    self.write_gpr(number, size, R11);
                }
            }
            if number != RSP {
                self.move_stack(size as i32);
            }
            return;
        }
        // The address is computed with RSP already moved (SDM 2, POP).
        self.load_place(place, size, RCX);
        self.asm.store(gs(off::spill(1)), RCX);
        let mut ea = Ea::of(ins);
        if ea.base == Some(RSP) {
            ea.displacement = ea.displacement.wrapping_add(size as i64);
        }
        self.probe_as(&ea, size as u32, true, false);
        self.asm.load(RCX, gs(off::spill(1)));
        self.asm.store_sized(Size::of(size), at(R11, 0), RCX);
        self.commit();
        self.move_stack(size as i32);
    }

    fn leave(&mut self, ins: &Instruction) {
        let size = match ins.code() {
            Code::Leavew => 2,
            Code::Leaved => 4,
            _ => 8,
        };
        let slot = Ea::simple(RBP, 0, SS, self.mode.stack_bits());
        self.probe(&slot, size as u32, false);
        self.fetch(size, R11);
        match self.mode.stack_bits() {
            64 => self.asm.lea(R9, at(crate::asm::RBP, size as i32)),
            32 => self.asm.lea32(R9, at(crate::asm::RBP, size as i32)),
            _ => {
                self.asm.lea32(RCX, at(crate::asm::RBP, size as i32));
                self.asm.mov16(R9, RCX);
            }
        }
        self.write_gpr(RBP, size, R11);
    }

    /// PUSHF where nothing has to be checked.
    fn push_flags(&mut self, ins: &Instruction) {
        let size = match ins.code() {
            Code::Pushfw => 2,
            Code::Pushfd => 4,
            _ => 8,
        };
        let place = self.stack_place(-(size as i64), size, true);
        // The host's arithmetic flags; the rest of its image is fixed (bit 1, IF) and replaced by the guest's.
        self.asm.pushfq();
        self.asm.pop(RCX);
        self.asm.store(gs(off::spill(1)), RCX);
        self.asm.pushfq();
        self.asm.and32_imm(RCX, lodge_x86::bits::rflags::ARITHMETIC as i32);
        self.asm.or_mem(RCX, gs(off::SYSTEM_FLAGS));
        self.asm.or_imm(RCX, 2);
        self.asm.store(gs(off::spill(1)), RCX);
        self.asm.load32(RCX, gs(off::INTERRUPT_FLAG));
        self.asm.shl_imm(RCX, 9);
        self.asm.or_mem(RCX, gs(off::spill(1)));
        // RF and VM are pushed as zero (SDM 2, PUSHF).
        self.asm.and32_imm(RCX, !0x3_0000);
        self.asm.popfq();
        self.store_place(place, size, RCX);
        self.commit();
        self.move_stack(-(size as i32));
    }

    /// PUSHA: one check for all eight, then eight stores.
    fn push_all(&mut self, ins: &Instruction) {
        let size = if ins.mnemonic() == Mnemonic::Pusha { 2 } else { 4i64 };
        let slot = self.stack_slot(-8 * size);
        self.probe_as(&slot, 8 * size as u32, true, false);
        for number in 0..8u8 {
            let from = host(number).unwrap_or(RCX);
            let to = at(R11, ((7 - i64::from(number)) * size) as i32);
            self.asm.store_sized(Size::of(size as usize), to, from);
        }
        self.commit();
        self.move_stack(-8 * size as i32);
    }

    fn pop_all(&mut self, ins: &Instruction) {
        let size = if ins.mnemonic() == Mnemonic::Popa { 2 } else { 4usize };
        let slot = self.stack_slot(0);
        self.probe(&slot, 8 * size as u32, false);
        for number in (0..8u8).filter(|&n| n != RSP) {
            self.asm.load_sized(Size::of(size), RCX, at(R11, (7 - i32::from(number)) * size as i32));
            self.write_gpr(number, size, RCX);
        }
        self.move_stack(8 * size as i32);
    }

    /// R11 -= CS base, outside 64-bit mode: from a linear address to an instruction pointer. Writes RCX, no flags.
    #[expect(clippy::wrong_self_convention, reason = "it is R11 that is converted")]
    pub(super) fn to_instruction_pointer(&mut self) {
        if !self.mode.is_64() && !self.mode.has(Mode::CS_FLAT) {
            self.asm.load(RCX, gs(off::segment_base(1)));
            self.asm.not(RCX);
            self.asm.lea32(R11, Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 1 });
        }
    }
}

/// Bytes that a PUSH or POP moves.
fn stack_size(ins: &Instruction) -> usize {
    ins.stack_pointer_increment().unsigned_abs() as usize
}
