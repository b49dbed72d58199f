//! String instructions without REP; those with it go to [`crate::string`] as a whole.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::Emitter;
use super::probe::{Ea, segment_of};
use crate::asm::{Label, Mem, R10, R11, RAX, RCX, RDI, RSI, Reg, Size, at, cond, gs};
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
        let segment = segment_of(ins, 3);
        Self { size: ins.memory_size().size().max(1), bits, segment }
    }
}

/// A string instruction's opcode for elements of `size`, from that for bytes.
fn string_opcode(byte: u8, size: usize) -> &'static [u8] {
    match (byte, size) {
        (0xa4, 1) => &[0xa4],
        (0xa4, 2) => &[0x66, 0xa5],
        (0xa4, 4) => &[0xa5],
        (0xa4, _) => &[0x48, 0xa5],
        (_, 1) => &[0xaa],
        (_, 2) => &[0x66, 0xab],
        (_, 4) => &[0xab],
        _ => &[0x48, 0xab],
    }
}

impl Emitter<'_> {
    /// Emits a string instruction; control goes on behind it.
    pub(super) fn string(&mut self, ins: &Instruction) -> bool {
        let shape = Shape::of(ins);
        if ins.has_rep_prefix() || ins.has_repne_prefix() {
            self.repeated(ins, &shape);
            return true;
        }
        let size = shape.size;
        let source = Ea::simple(RSI_NUMBER, 0, shape.segment, shape.bits.into());
        let target = Ea::simple(RDI_NUMBER, 0, 0, shape.bits.into());
        match ins.mnemonic() {
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
                self.probe(&source, size as u32, false);
                self.load_accumulator(size);
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

    /// REP: on the host's own string instruction where everything lies in one page at either end, by the helper
    /// otherwise.
    fn repeated(&mut self, ins: &Instruction, shape: &Shape) {
        let helper = self.asm.label();
        let done = self.asm.label();
        let flat = self.mode.is_64() && shape.bits == 64 && shape.segment < 4;
        let fast = flat && !self.mode.has(Mode::DOWN | Mode::HOW);
        let number = self.remember(ins);
        // MOVS and STOS write no flags, but what surrounds them does.
        let keep = self.keep_flags;
        if fast && self.mode.is_mirrored() && self.repeat_mirrored(ins, shape, number) {
            return;
        }
        match ins.mnemonic() {
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq if fast => {
                self.save_flags();
                self.copy_in_page(shape, helper);
                self.restore_flags(keep);
            }
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq if fast => {
                self.save_flags();
                self.fill_in_page(shape, helper);
                self.restore_flags(keep);
            }
            Mnemonic::Scasb if fast && !keep => {
                self.probes = true;
                self.scan_in_page(ins.has_repne_prefix(), helper);
                self.probes = false;
            }
            _ => {
                self.call_system(number, self.stubs.string);
                return;
            }
        }
        self.flags_saved = false;
        self.asm.jmp(done);
        self.asm.bind(helper);
        self.restore_flags(keep && !matches!(ins.mnemonic(), Mnemonic::Scasb));
        self.call_system(number, self.stubs.string);
        self.asm.bind(done);
    }

    /// MOVS and STOS where memory is mirrored: the host's own, on the program's addresses; whether that can be. A fault
    /// in their midst finds the guest's registers where they belong, but for the count
    /// ([`crate::translate::Code::is_repeated`]).
    fn repeat_mirrored(&mut self, ins: &Instruction, shape: &Shape, number: usize) -> bool {
        /// Elements: what can be moved within the latency that an interrupt may see.
        const MOST: i32 = 1 << 16;
        let (opcode, copies) = match ins.mnemonic() {
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => (0xa4, true),
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => (0xaa, false),
            _ => return false,
        };
        let keep = self.keep_flags;
        let (helper, done) = (self.asm.label(), self.asm.label());
        self.save_flags();
        self.asm.cmp_imm(R10, MOST);
        self.asm.jcc(cond::A, helper);
        if copies {
            self.jump_if_inside(RSI, helper);
        }
        self.jump_if_inside(RDI, helper);
        self.restore_flags(keep);
        self.flags_saved = false;
        self.asm.mov(RCX, R10);
        self.asm.bytes(&[0xf3]);
        self.asm.bytes(string_opcode(opcode, shape.size));
        self.asm.mov(R10, RCX);
        self.asm.jmp(done);
        self.asm.bind(helper);
        self.restore_flags(keep);
        self.call_system(number, self.stubs.string);
        self.asm.bind(done);
        true
    }

    /// Puts live flags aside, so that probes may write them until [`Emitter::restore_flags`]. Writes RCX.
    fn save_flags(&mut self) {
        if self.keep_flags {
            self.asm.store(gs(off::spill(4)), RAX);
            self.asm.save_flags_in_rax();
            self.asm.store(gs(off::spill(5)), RAX);
            self.asm.load(RAX, gs(off::spill(4)));
            self.keep_flags = false;
            self.flags_saved = true;
        }
    }

    /// Brings them back if `kept`.
    pub(super) fn restore_flags(&mut self, kept: bool) {
        if kept {
            self.asm.store(gs(off::spill(4)), RAX);
            self.asm.load(RAX, gs(off::spill(5)));
            self.asm.restore_flags_from_rax();
            self.asm.load(RAX, gs(off::spill(4)));
        }
    }

    /// Goes to `helper` unless the count's elements at host address R11 end in its page. Writes RCX and flags.
    fn check_run(&mut self, size: usize, helper: Label) {
        self.asm.mov32(RCX, R11);
        self.asm.and32_imm(RCX, 0xfff);
        let scale = size.trailing_zeros() as u8;
        self.asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R10, scale)), disp: 0 });
        self.asm.cmp_imm(RCX, 4096);
        self.asm.jcc(cond::A, helper);
    }

    fn check_count(&mut self, helper: Label) {
        self.asm.cmp_imm(R10, 4096);
        self.asm.jcc(cond::A, helper);
    }

    /// `reg` += count elements. No flags.
    fn advance_by_count(&mut self, reg: Reg, size: usize) {
        let scale = size.trailing_zeros() as u8;
        self.asm.lea(reg, Mem { gs: false, base: Some(reg), index: Some((R10, scale)), disp: 0 });
    }

    /// R11 = the host address of a run that is to be written. Writes RCX and flags.
    fn probe_run(&mut self, shape: &Shape) {
        self.run = true;
        self.probe_as(&Ea::simple(RDI_NUMBER, 0, 0, 64), shape.size as u32, true, false);
        self.run = false;
    }

    fn copy_in_page(&mut self, shape: &Shape, helper: Label) {
        self.check_count(helper);
        // With a count of zero nothing may be touched.
        self.asm.cmp_imm(R10, 0);
        self.asm.jcc(cond::E, helper);
        self.probe(&Ea::simple(RSI_NUMBER, 0, 3, 64), shape.size as u32, false);
        self.check_run(shape.size, helper);
        self.asm.store(gs(off::spill(1)), R11);
        self.probe_run(shape);
        self.check_run(shape.size, helper);
        self.asm.store(gs(off::spill(2)), RSI);
        self.asm.store(gs(off::spill(3)), RDI);
        self.asm.load(RSI, gs(off::spill(1)));
        self.asm.mov(RDI, R11);
        self.asm.mov(RCX, R10);
        self.asm.bytes(&[0xf3]);
        self.asm.bytes(string_opcode(0xa4, shape.size));
        self.asm.load(RSI, gs(off::spill(2)));
        self.asm.load(RDI, gs(off::spill(3)));
        self.advance_by_count(RSI, shape.size);
        self.advance_by_count(RDI, shape.size);
        self.asm.mov_imm32(R10, 0);
    }

    fn fill_in_page(&mut self, shape: &Shape, helper: Label) {
        self.check_count(helper);
        self.asm.cmp_imm(R10, 0);
        self.asm.jcc(cond::E, helper);
        self.probe_run(shape);
        self.check_run(shape.size, helper);
        self.asm.store(gs(off::spill(3)), RDI);
        self.asm.mov(RDI, R11);
        self.asm.mov(RCX, R10);
        self.asm.bytes(&[0xf3]);
        self.asm.bytes(string_opcode(0xaa, shape.size));
        self.asm.load(RDI, gs(off::spill(3)));
        self.advance_by_count(RDI, shape.size);
        self.asm.mov_imm32(R10, 0);
    }

    /// SCASB over what is left of the page; the helper goes on if that did not settle it.
    fn scan_in_page(&mut self, until_equal: bool, helper: Label) {
        self.asm.cmp_imm(R10, 0);
        self.asm.jcc(cond::E, helper);
        self.probe(&Ea::simple(RDI_NUMBER, 0, 0, 64), 1, false);
        // RCX = bytes left in the page, or the count if that is less; spill 1 keeps it.
        self.asm.mov32(RCX, R11);
        self.asm.or_imm(RCX, -4096);
        self.asm.not(RCX);
        self.asm.lea(RCX, at(RCX, 1));
        let short = self.asm.label();
        self.asm.cmp(R10, RCX);
        self.asm.jcc(cond::AE, short);
        self.asm.mov(RCX, R10);
        self.asm.bind(short);
        self.asm.store(gs(off::spill(1)), RCX);
        self.asm.store(gs(off::spill(3)), RDI);
        self.asm.mov(RDI, R11);
        self.asm.bytes(&[if until_equal { 0xf2 } else { 0xf3 }, 0xae]);
        self.asm.load(RDI, gs(off::spill(3)));
        // R11 = bytes looked at = what RCX began with less what it is now. No flags from here: they are the result.
        self.asm.not(RCX);
        self.asm.load(R11, gs(off::spill(1)));
        self.asm.lea(R11, Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 1 });
        self.asm.lea(RDI, Mem { gs: false, base: Some(RDI), index: Some((R11, 0)), disp: 0 });
        self.asm.not(R11);
        self.asm.lea(R10, Mem { gs: false, base: Some(R10), index: Some((R11, 0)), disp: 1 });
        // Found, or the count used up: done. The helper goes on with the next page, or sees a count of zero.
        self.asm.jcc(if until_equal { cond::NE } else { cond::E }, helper);
    }

    fn load_accumulator(&mut self, size: usize) {
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
