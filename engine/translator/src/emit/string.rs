//! String instructions without REP; those with it go to [`crate::string`] as a whole.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Emitter;
use super::probe::{Ea, segment_number};
use crate::asm::{R11, RAX, RCX, RDI, RSI, Reg, Size, at, gs};
use crate::cpu::off;
use crate::mode::Mode;

const RSI_NUMBER: u8 = 6;
const RDI_NUMBER: u8 = 7;

/// A string instruction's shape.
pub struct Shape {
    /// Bytes of an element.
    pub size: usize,
    /// Width of the address registers.
    pub bits: u8,
    /// Segment of the source.
    pub segment: u8,
}

impl Shape {
    /// Reads it off the operands.
    pub fn of(ins: &Instruction) -> Self {
        let kinds = [ins.op0_kind(), ins.op1_kind()];
        let bits = kinds
            .into_iter()
            .find_map(|kind| match kind {
                OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => Some(16),
                OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => Some(32),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI => Some(64),
                _ => None,
            })
            .unwrap_or(64);
        let segment = match ins.segment_prefix() {
            Register::None => 3,
            register => segment_number(register),
        };
        Self { size: ins.memory_size().size().max(1), bits, segment }
    }
}

impl Emitter<'_> {
    /// Emits a string instruction; control goes on behind it.
    pub(super) fn string(&mut self, ins: &Instruction) -> bool {
        if ins.has_rep_prefix() || ins.has_repne_prefix() {
            let number = self.remember(ins);
            self.call_system(number, self.stubs.string);
            return true;
        }
        let shape = Shape::of(ins);
        let size = shape.size;
        let source = Ea::simple(RSI_NUMBER, 0, shape.segment, shape.bits.into());
        let target = Ea::simple(RDI_NUMBER, 0, 0, shape.bits.into());
        match ins.mnemonic() {
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
                self.probe(&source, size as u32, false);
                self.into_accumulator(size);
                self.advance(RSI, &shape);
            }
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
                self.probe_as(&target, size as u32, true, false);
                self.asm.store_sized(Size::of(size), at(R11, 0), RAX);
                self.commit();
                self.advance(RDI, &shape);
            }
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
                self.probe(&source, size as u32, false);
                self.fetch(size, RCX);
                self.asm.store(gs(off::spill(1)), RCX);
                self.probe_as(&target, size as u32, true, false);
                self.asm.load(RCX, gs(off::spill(1)));
                self.asm.store_sized(Size::of(size), at(R11, 0), RCX);
                self.commit();
                self.advance(RSI, &shape);
                self.advance(RDI, &shape);
            }
            Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => {
                self.probe(&target, size as u32, false);
                self.asm.cmp_sized(Size::of(size), RAX, at(R11, 0));
                self.advance(RDI, &shape);
            }
            _ => {
                self.probe(&source, size as u32, false);
                self.fetch(size, RCX);
                self.asm.store(gs(off::spill(1)), RCX);
                self.probe(&target, size as u32, false);
                self.asm.load(RCX, gs(off::spill(1)));
                self.asm.cmp_sized(Size::of(size), RCX, at(R11, 0));
                self.advance(RSI, &shape);
                self.advance(RDI, &shape);
            }
        }
        true
    }

    fn into_accumulator(&mut self, size: usize) {
        match size {
            8 => self.asm.load(RAX, at(R11, 0)),
            4 => self.asm.load32(RAX, at(R11, 0)),
            2 => {
                self.fetch(2, R11);
                self.asm.mov16(RAX, R11);
            }
            _ => self.asm.load8_into_low(RAX, at(R11, 0)),
        }
    }

    /// Moves an index register by one element, in the address size. Writes RCX, no flags.
    fn advance(&mut self, reg: Reg, shape: &Shape) {
        let by = if self.mode.has(Mode::DOWN) { -(shape.size as i32) } else { shape.size as i32 };
        match shape.bits {
            64 => self.asm.lea(reg, at(reg, by)),
            32 => self.asm.lea32(reg, at(reg, by)),
            _ => {
                self.asm.lea32(RCX, at(reg, by));
                self.asm.mov16(reg, RCX);
            }
        }
    }
}
