//! Operands of instructions that Rust carries out: registers, memory, immediates.

use iced_x86::{Instruction, OpKind, Register};
use lodge_x86::exception::Exception;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::emit::probe::{Ea, segment_number};
use crate::emit::registers::GprOperand;

impl Cpu {
    /// Reads a general-purpose register in its width.
    pub fn read_register(&self, register: Register) -> u64 {
        let Some(gpr) = GprOperand::of(register) else {
            return if register.is_segment_register() {
                self.segment[usize::from(segment_number(register))].segment.selector.into()
            } else {
                0
            };
        };
        let value = self.gpr[usize::from(gpr.number)];
        match (gpr.bytes, gpr.high) {
            (_, true) => value >> 8 & 0xff,
            (1, _) => value & 0xff,
            (2, _) => value & 0xffff,
            (4, _) => value & 0xffff_ffff,
            _ => value,
        }
    }

    /// Writes a general-purpose register as an instruction of its width does.
    pub fn write_register(&mut self, register: Register, value: u64) {
        let Some(gpr) = GprOperand::of(register) else { return };
        let slot = &mut self.gpr[usize::from(gpr.number)];
        *slot = match (gpr.bytes, gpr.high) {
            (_, true) => *slot & !0xff00 | (value & 0xff) << 8,
            (1, _) => *slot & !0xff | value & 0xff,
            (2, _) => *slot & !0xffff | value & 0xffff,
            (4, _) => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// The offset in its segment that the memory operand names, and the segment.
    pub fn effective(&self, ins: &Instruction) -> (u64, u8) {
        let ea = Ea::of(ins);
        let mut offset = ea.displacement as u64;
        if ea.relative {
            offset = offset.wrapping_add(self.code_base);
        }
        if let Some(base) = ea.base {
            offset = offset.wrapping_add(self.gpr[usize::from(base)]);
        }
        if let Some((index, scale)) = ea.index {
            offset = offset.wrapping_add(self.gpr[usize::from(index)] << scale);
        }
        let offset = match ea.bits {
            16 => offset & 0xffff,
            32 => offset & 0xffff_ffff,
            _ => offset,
        };
        (offset, ea.segment)
    }

    /// The linear address of the memory operand, checked for an access.
    pub fn operand_address(&self, ins: &Instruction, length: u64, write: bool) -> Result<u64, Exception> {
        let (offset, segment) = self.effective(ins);
        self.in_segment(segment, offset, length, write)
    }

    /// Reads operand `n` as a number of `bytes`.
    pub fn read_operand(&mut self, ins: &Instruction, n: u32, bytes: usize) -> Result<u64, Exception> {
        match ins.op_kind(n) {
            OpKind::Register => Ok(self.read_register(ins.op_register(n))),
            OpKind::Memory => {
                let linear = self.operand_address(ins, bytes as u64, false)?;
                self.read_number(linear, bytes, Privilege::Current)
            }
            _ => Ok(ins.immediate(n)),
        }
    }

    /// Writes operand `n`; memory as a number of `bytes`, a register in its own width.
    pub fn write_operand(&mut self, ins: &Instruction, n: u32, bytes: usize, value: u64) -> Result<(), Exception> {
        if ins.op_kind(n) == OpKind::Memory {
            let linear = self.operand_address(ins, bytes as u64, true)?;
            return self.write_number(linear, bytes, value, Privilege::Current);
        }
        self.write_register(ins.op_register(n), value);
        Ok(())
    }
}
