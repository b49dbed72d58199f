//! A small assembler for the code that surrounds re-emitted guest instructions: probes, stubs, control flow.
//!
//! Guest instructions themselves go through `iced-x86`'s encoder ([`crate::emit`]); what is here is the fixed glue,
//! which has to be emitted fast. Key types: [`Asm`], [`Reg`], [`Label`]. What is emitted that depends on where things
//! lie is noted ([`Relocation`]). Encodings: SDM 2 chapter 2.

mod relocation;
mod stub;

pub use relocation::{Places, Relocation};

use crate::cpu::GS_BIAS;

/// A host general-purpose register by encoding number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

pub const RAX: Reg = Reg(0);
pub const RCX: Reg = Reg(1);
pub const RDX: Reg = Reg(2);
pub const RBX: Reg = Reg(3);
pub const RSP: Reg = Reg(4);
pub const RBP: Reg = Reg(5);
pub const RSI: Reg = Reg(6);
pub const RDI: Reg = Reg(7);
pub const R9: Reg = Reg(9);
pub const R10: Reg = Reg(10);
pub const R11: Reg = Reg(11);

/// Condition codes as in Jcc.
pub mod cond {
    pub const AE: u8 = 3;
    pub const E: u8 = 4;
    pub const NE: u8 = 5;
    pub const A: u8 = 7;
}

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    /// Through the GS base: vCPU state.
    pub gs: bool,
    pub base: Option<Reg>,
    /// Index and log2 of its scale.
    pub index: Option<(Reg, u8)>,
    pub disp: i32,
}

/// The field at `disp` of the vCPU's region.
pub const fn gs(disp: i32) -> Mem {
    Mem { gs: true, base: None, index: None, disp: disp - GS_BIAS }
}

/// The same, `index << scale` further.
pub const fn gs_index(index: Reg, scale: u8, disp: i32) -> Mem {
    Mem { gs: true, base: None, index: Some((index, scale)), disp: disp - GS_BIAS }
}

/// The same, `base` further.
pub const fn gs_at(base: Reg, disp: i32) -> Mem {
    Mem { gs: true, base: Some(base), index: None, disp: disp - GS_BIAS }
}

/// `[base + disp]`.
pub const fn at(base: Reg, disp: i32) -> Mem {
    Mem { gs: false, base: Some(base), index: None, disp }
}

/// A place in code that is not yet emitted, named by jumps to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

/// Operand size of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    B1,
    B2,
    B4,
    B8,
}

impl Size {
    /// From bytes; anything but 1, 2 and 4 is 8.
    pub fn of(bytes: usize) -> Self {
        match bytes {
            1 => Self::B1,
            2 => Self::B2,
            4 => Self::B4,
            _ => Self::B8,
        }
    }
}

const UNBOUND: u32 = u32::MAX;

/// Where code goes: what runs often lies apart from what runs rarely, so that the processor's caches hold the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Hot,
    Cold,
}

/// Emits machine code into two buffers, each of which will run at an address of its own.
pub struct Asm {
    /// The section that is being emitted into.
    code: Vec<u8>,
    base: u64,
    /// The other one.
    other: (Vec<u8>, u64),
    section: Section,
    /// Sections and offsets.
    labels: Vec<(Section, u32)>,
    /// (section and offset of a rel32, label).
    fixups: Vec<(Section, u32, Label)>,
    /// What depends on where things lie.
    relocations: Vec<Relocation>,
}

impl Asm {
    /// Code that will run at `base`, none of it cold.
    pub fn new(base: u64) -> Self {
        Self {
            code: Vec::with_capacity(1024),
            base,
            other: (Vec::with_capacity(1024), 0),
            section: Section::Hot,
            labels: Vec::new(),
            fixups: Vec::new(),
            relocations: Vec::new(),
        }
    }

    /// Starts over at other addresses, keeping the buffers.
    pub fn restart(&mut self, hot: u64, cold: u64) {
        self.switch(Section::Hot);
        self.code.clear();
        self.other.0.clear();
        self.labels.clear();
        self.fixups.clear();
        self.relocations.clear();
        self.base = hot;
        self.other.1 = cold;
    }

    /// Goes on in `section`.
    pub fn switch(&mut self, section: Section) {
        if self.section != section {
            std::mem::swap(&mut self.code, &mut self.other.0);
            std::mem::swap(&mut self.base, &mut self.other.1);
            self.section = section;
        }
    }

    /// Offset of the next byte in its section.
    pub fn offset(&self) -> usize {
        self.code.len()
    }

    /// Address of the next byte.
    pub fn here(&self) -> u64 {
        self.base + self.code.len() as u64
    }

    /// The code of both sections, hot and cold, with all labels resolved.
    pub fn finish(&mut self) -> (&[u8], &[u8]) {
        self.switch(Section::Hot);
        let bases = [self.base, self.other.1];
        for (section, at, label) in self.fixups.drain(..) {
            let (target_section, target) = self.labels[label.0 as usize];
            assert_ne!(target, UNBOUND, "a label is used but never bound");
            let code = match section {
                Section::Hot => &mut self.code,
                Section::Cold => &mut self.other.0,
            };
            let target = bases[target_section as usize] + u64::from(target);
            let from = bases[section as usize] + u64::from(at) + 4;
            let rel = target.wrapping_sub(from) as i64 as i32;
            code[at as usize..at as usize + 4].copy_from_slice(&rel.to_le_bytes());
            if section != target_section {
                self.relocations.push(Relocation::across(section, at));
            }
        }
        self.finished()
    }

    /// The same once more.
    pub fn finished(&self) -> (&[u8], &[u8]) {
        (&self.code, &self.other.0)
    }

    pub fn label(&mut self) -> Label {
        self.labels.push((Section::Hot, UNBOUND));
        Label(self.labels.len() as u32 - 1)
    }

    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = (self.section, self.code.len() as u32);
    }

    pub fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// Replaces bytes at an offset in the section that is being emitted into.
    pub fn replace(&mut self, offset: usize, bytes: &[u8]) {
        self.code[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Pads with multi-byte NOPs until the next byte's address is `offset` modulo `alignment`.
    pub fn align(&mut self, alignment: u64, offset: u64) {
        const NOPS: [&[u8]; 8] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        ];
        let mut missing = (offset.wrapping_sub(self.here()) & (alignment - 1)) as usize;
        while missing > 0 {
            let n = missing.min(8);
            self.bytes(NOPS[n - 1]);
            missing -= n;
        }
    }

    /// Prefixes, opcode, ModRM, SIB and displacement of an instruction with register field `reg` and operand `m`.
    fn mem(&mut self, prefix: Option<u8>, wide: bool, opcode: &[u8], reg: u8, m: Mem, byte_reg: bool) {
        if m.gs {
            self.byte(0x65);
        }
        if let Some(p) = prefix {
            self.byte(p);
        }
        let base = m.base.map_or(0, |r| r.0);
        let index = m.index.map_or(0, |(r, _)| r.0);
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if rex != 0x40 || (byte_reg && reg >= 4) {
            self.byte(rex);
        }
        self.bytes(opcode);
        self.modrm_mem(reg, m);
    }

    fn modrm_mem(&mut self, reg: u8, m: Mem) {
        let reg = (reg & 7) << 3;
        let index = m.index.map_or(4 << 3, |(r, scale)| scale << 6 | (r.0 & 7) << 3);
        match m.base {
            None => {
                self.byte(reg | 4);
                self.byte(index | 5);
                self.bytes(&m.disp.to_le_bytes());
            }
            Some(base) => {
                let low = base.0 & 7;
                let (mode, short) = match m.disp {
                    0 if low != 5 => (0x00, true),
                    -128..=127 => (0x40, true),
                    _ => (0x80, false),
                };
                if m.index.is_some() || low == 4 {
                    self.byte(mode | reg | 4);
                    self.byte(index | low);
                } else {
                    self.byte(mode | reg | low);
                }
                match (mode, short) {
                    (0x00, _) => {}
                    (_, true) => self.byte(m.disp as u8),
                    (_, false) => self.bytes(&m.disp.to_le_bytes()),
                }
            }
        }
    }

    fn rr(&mut self, wide: bool, opcode: &[u8], reg: Reg, rm: Reg) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg.0 >> 3) << 2 | rm.0 >> 3;
        if rex != 0x40 {
            self.byte(rex);
        }
        self.bytes(opcode);
        self.byte(0xc0 | (reg.0 & 7) << 3 | rm.0 & 7);
    }

    pub fn mov(&mut self, to: Reg, from: Reg) {
        if to != from {
            self.rr(true, &[0x89], from, to);
        }
    }

    pub fn mov32(&mut self, to: Reg, from: Reg) {
        self.rr(false, &[0x89], from, to);
    }

    pub fn mov16(&mut self, to: Reg, from: Reg) {
        self.byte(0x66);
        self.rr(false, &[0x89], from, to);
    }

    /// No flags.
    pub fn not(&mut self, reg: Reg) {
        self.rr(true, &[0xf7], Reg(2), reg);
    }

    /// Writes flags.
    pub fn sar_imm(&mut self, reg: Reg, count: u8) {
        self.rr(true, &[0xc1], Reg(7), reg);
        self.byte(count);
    }

    /// Sign-extends the low `size` bytes of `from` to 64 bits.
    pub fn movsx(&mut self, size: Size, to: Reg, from: Reg) {
        match size {
            Size::B1 => self.rr(true, &[0x0f, 0xbe], to, from),
            Size::B2 => self.rr(true, &[0x0f, 0xbf], to, from),
            Size::B4 => self.rr(true, &[0x63], to, from),
            Size::B8 => self.mov(to, from),
        }
    }

    pub fn load(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x8b], to.0, m, false);
    }

    pub fn load32(&mut self, to: Reg, m: Mem) {
        self.mem(None, false, &[0x8b], to.0, m, false);
    }

    pub fn store(&mut self, m: Mem, from: Reg) {
        self.mem(None, true, &[0x89], from.0, m, false);
    }

    pub fn store32(&mut self, m: Mem, from: Reg) {
        self.mem(None, false, &[0x89], from.0, m, false);
    }

    /// A load that zero-extends to 64 bits.
    pub fn load_sized(&mut self, size: Size, to: Reg, m: Mem) {
        match size {
            Size::B1 => self.mem(None, false, &[0x0f, 0xb6], to.0, m, false),
            Size::B2 => self.mem(None, false, &[0x0f, 0xb7], to.0, m, false),
            Size::B4 => self.load32(to, m),
            Size::B8 => self.load(to, m),
        }
    }

    pub fn store_sized(&mut self, size: Size, m: Mem, from: Reg) {
        match size {
            Size::B1 => self.mem(None, false, &[0x88], from.0, m, true),
            Size::B2 => self.mem(Some(0x66), false, &[0x89], from.0, m, false),
            Size::B4 => self.store32(m, from),
            Size::B8 => self.store(m, from),
        }
    }

    pub fn store_imm32(&mut self, m: Mem, value: u32) {
        self.mem(None, false, &[0xc7], 0, m, false);
        self.bytes(&value.to_le_bytes());
    }

    pub fn lea(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x8d], to.0, m, false);
    }

    /// The address of a label.
    pub fn lea_label(&mut self, to: Reg, label: Label) {
        self.bytes(&[0x48 | (to.0 >> 3) << 2, 0x8d, 0x05 | (to.0 & 7) << 3]);
        self.rel32_label(label);
    }

    pub fn lea32(&mut self, to: Reg, m: Mem) {
        self.mem(None, false, &[0x8d], to.0, m, false);
    }

    /// Writes flags.
    pub fn add_mem(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x03], to.0, m, false);
    }

    /// Writes flags.
    pub fn or_mem(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x0b], to.0, m, false);
    }

    /// Compares the low part of a register with memory. Writes flags.
    pub fn cmp_sized(&mut self, size: Size, a: Reg, m: Mem) {
        match size {
            Size::B1 => self.mem(None, false, &[0x3a], a.0, m, true),
            Size::B2 => self.mem(Some(0x66), false, &[0x3b], a.0, m, false),
            Size::B4 => self.mem(None, false, &[0x3b], a.0, m, false),
            Size::B8 => self.cmp_mem(a, m),
        }
    }

    /// Loads the low byte and leaves the rest of the register.
    pub fn load8_into_low(&mut self, to: Reg, m: Mem) {
        self.mem(None, false, &[0x8a], to.0, m, true);
    }

    /// Writes flags.
    pub fn cmp_mem(&mut self, a: Reg, m: Mem) {
        self.mem(None, true, &[0x3b], a.0, m, false);
    }

    /// Writes flags.
    pub fn cmp32_mem_imm8(&mut self, m: Mem, value: i8) {
        self.mem(None, false, &[0x83], 7, m, false);
        self.byte(value as u8);
    }

    pub fn mov_imm32(&mut self, to: Reg, value: u32) {
        if to.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0xb8 | to.0 & 7);
        self.bytes(&value.to_le_bytes());
    }

    pub fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(small) = u32::try_from(value) {
            return self.mov_imm32(to, small);
        }
        self.byte(0x48 | to.0 >> 3);
        self.byte(0xb8 | to.0 & 7);
        self.bytes(&value.to_le_bytes());
    }

    fn group1(&mut self, wide: bool, which: u8, reg: Reg, imm: i32) {
        let short = i8::try_from(imm).is_ok();
        self.rr(wide, &[if short { 0x83 } else { 0x81 }], Reg(which), reg);
        if short {
            self.byte(imm as u8);
        } else {
            self.bytes(&imm.to_le_bytes());
        }
    }

    /// Writes flags.
    pub fn and32_imm(&mut self, reg: Reg, imm: i32) {
        self.group1(false, 4, reg, imm);
    }

    /// Writes flags.
    pub fn or_imm(&mut self, reg: Reg, imm: i32) {
        self.group1(true, 1, reg, imm);
    }

    /// Writes flags.
    pub fn cmp_imm(&mut self, reg: Reg, imm: i32) {
        self.group1(true, 7, reg, imm);
    }

    /// Writes flags.
    pub fn or(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x09], from, to);
    }

    /// Writes flags.
    pub fn cmp(&mut self, a: Reg, b: Reg) {
        self.rr(true, &[0x39], b, a);
    }

    /// Writes flags.
    pub fn cmp32(&mut self, a: Reg, b: Reg) {
        self.rr(false, &[0x39], b, a);
    }

    /// Writes flags.
    pub fn test32(&mut self, a: Reg, b: Reg) {
        self.rr(false, &[0x85], a, b);
    }

    /// Writes flags.
    pub fn test(&mut self, a: Reg, b: Reg) {
        self.rr(true, &[0x85], a, b);
    }

    /// Writes flags.
    pub fn sub(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x29], from, to);
    }

    /// Writes flags.
    pub fn shl_imm(&mut self, reg: Reg, count: u8) {
        self.rr(true, &[0xc1], Reg(4), reg);
        self.byte(count);
    }

    pub fn movzx16(&mut self, to: Reg, from: Reg) {
        self.rr(false, &[0x0f, 0xb7], to, from);
    }

    /// `from` is one of the first four registers.
    pub fn movzx8(&mut self, to: Reg, from: Reg) {
        debug_assert!(from.0 < 4, "others need a prefix");
        self.rr(false, &[0x0f, 0xb6], to, from);
    }

    /// Compares the low byte of one of the first four registers. Writes flags.
    pub fn cmp8_imm(&mut self, reg: Reg, imm: u8) {
        debug_assert!(reg.0 < 4, "others need a prefix");
        self.rr(false, &[0x80], Reg(7), reg);
        self.byte(imm);
    }

    /// `rorx to, from, count`, 64-bit. No flags.
    pub fn rorx(&mut self, to: Reg, from: Reg, count: u8) {
        self.bytes(&[
            0xc4,
            0xe3 ^ ((to.0 >> 3) << 7 | (from.0 >> 3) << 5),
            0xfb,
            0xf0,
            0xc0 | (to.0 & 7) << 3 | from.0 & 7,
            count,
        ]);
    }

    /// `shrx to, from, count`, 64-bit. No flags.
    pub fn shrx(&mut self, to: Reg, from: Reg, count: Reg) {
        self.bytes(&[
            0xc4,
            0xe2 ^ ((to.0 >> 3) << 7 | (from.0 >> 3) << 5),
            0x80 | (!count.0 & 15) << 3 | 0x03,
            0xf7,
            0xc0 | (to.0 & 7) << 3 | from.0 & 7,
        ]);
    }

    pub fn push(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x50 | reg.0 & 7);
    }

    pub fn pop(&mut self, reg: Reg) {
        if reg.0 >= 8 {
            self.byte(0x41);
        }
        self.byte(0x58 | reg.0 & 7);
    }

    pub fn pushfq(&mut self) {
        self.byte(0x9c);
    }

    pub fn popfq(&mut self) {
        self.byte(0x9d);
    }

    /// AH and AL = the arithmetic flags.
    pub fn save_flags_in_rax(&mut self) {
        // lahf; seto al
        self.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    /// The inverse: writes the arithmetic flags, and AL.
    pub fn restore_flags_from_rax(&mut self) {
        // add al, 127 overflows if AL is 1; sahf sets the others.
        self.bytes(&[0x04, 0x7f, 0x9e]);
    }

    pub fn ret(&mut self) {
        self.byte(0xc3);
    }

    pub fn rdgsbase(&mut self, to: Reg) {
        self.bytes(&[0xf3, 0x48 | to.0 >> 3, 0x0f, 0xae, 0xc8 | to.0 & 7]);
    }

    pub fn wrfsbase(&mut self, from: Reg) {
        self.bytes(&[0xf3, 0x48 | from.0 >> 3, 0x0f, 0xae, 0xd0 | from.0 & 7]);
    }

    fn rel32_label(&mut self, label: Label) {
        self.fixups.push((self.section, self.code.len() as u32, label));
        self.bytes(&[0; 4]);
    }

    /// The displacement of a branch to `label` whose opcode has been emitted.
    pub fn displacement(&mut self, label: Label) {
        self.rel32_label(label);
    }

    pub fn jmp(&mut self, label: Label) {
        self.byte(0xe9);
        self.rel32_label(label);
    }

    pub fn jmp_reg(&mut self, reg: Reg) {
        self.rr(false, &[0xff], Reg(4), reg);
    }

    pub fn call_reg(&mut self, reg: Reg) {
        self.rr(false, &[0xff], Reg(2), reg);
    }

    pub fn jcc(&mut self, cond: u8, label: Label) {
        self.bytes(&[0x0f, 0x80 | cond]);
        self.rel32_label(label);
    }

    /// Emits `jrcxz` over what `body` emits, which must be shorter than 128 bytes: runs `body` where RCX is not zero.
    pub fn unless_rcx_zero(&mut self, body: impl FnOnce(&mut Self)) {
        self.bytes(&[0xe3, 0]);
        let start = self.code.len();
        body(self);
        let length = i8::try_from(self.code.len() - start).expect("a short body");
        self.code[start - 1] = length as u8;
    }

    /// 256-bit (`avx`) or 128-bit unaligned vector store to `gs:[disp]`.
    pub fn save_vector(&mut self, avx: bool, number: u8, m: Mem) {
        self.vector(avx, 0x11, number, m);
    }

    /// The load that mirrors [`Asm::save_vector`].
    pub fn load_vector(&mut self, avx: bool, number: u8, m: Mem) {
        self.vector(avx, 0x10, number, m);
    }

    fn vector(&mut self, avx: bool, opcode: u8, number: u8, m: Mem) {
        if avx {
            if m.gs {
                self.byte(0x65);
            }
            self.bytes(&[0xc5, 0x7c | u8::from(number < 8) << 7, opcode]);
            self.modrm_mem(number, m);
        } else {
            self.mem(None, false, &[0x0f, opcode], number, m, false);
        }
    }

    pub fn stmxcsr(&mut self, m: Mem) {
        self.mem(None, false, &[0x0f, 0xae], 3, m, false);
    }

    pub fn ldmxcsr(&mut self, m: Mem) {
        self.mem(None, false, &[0x0f, 0xae], 2, m, false);
    }

    pub fn vzeroupper(&mut self) {
        self.bytes(&[0xc5, 0xf8, 0x77]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

    fn text(emit: impl FnOnce(&mut Asm)) -> String {
        let mut asm = Asm::new(0x1000);
        emit(&mut asm);
        let code = asm.finish().0.to_vec();
        let mut decoder = Decoder::with_ip(64, &code, 0x1000, DecoderOptions::NONE);
        let mut out = Vec::new();
        let mut formatter = IntelFormatter::new();
        while decoder.can_decode() {
            let mut line = String::new();
            formatter.format(&decoder.decode(), &mut line);
            out.push(line);
        }
        out.join("; ")
    }

    #[test]
    fn encodes_what_it_says() {
        assert_eq!(text(|a| a.load(R11, gs(GS_BIAS + 0x40))), "mov r11,gs:[40h]");
        assert_eq!(text(|a| a.add_mem(R11, gs_at(RCX, GS_BIAS + 0x10))), "add r11,gs:[rcx+10h]");
        assert_eq!(text(|a| a.load(RDX, gs_index(RDX, 3, GS_BIAS + 0x4000))), "mov rdx,gs:[rdx*8+4000h]");
        assert_eq!(text(|a| a.rorx(RCX, R11, 6)), "rorx rcx,r11,6");
        assert_eq!(text(|a| a.shrx(RCX, RCX, RDX)), "shrx rcx,rcx,rdx");
        assert_eq!(text(|a| a.shrx(R11, RDX, R10)), "shrx r11,rdx,r10");
        assert_eq!(text(|a| a.cmp_imm(R11, 0xff8)), "cmp r11,0FF8h");
        assert_eq!(text(|a| a.and32_imm(RCX, 0x7ffc0)), "and ecx,7FFC0h");
        assert_eq!(text(|a| a.store_sized(Size::B1, at(R11, 0), RSI)), "mov [r11],sil");
        assert_eq!(text(|a| a.store_sized(Size::B2, at(R9, -2), RDX)), "mov [r9-2],dx");
        assert_eq!(text(|a| a.lea(R11, at(RSP, 8))), "lea r11,[rsp+8]");
        assert_eq!(text(|a| a.lea(R11, at(Reg(13), 0))), "lea r11,[r13]");
        assert_eq!(text(|a| a.save_vector(true, 9, gs(GS_BIAS + 0x200))), "vmovups gs:[200h],ymm9");
        assert_eq!(text(|a| a.load_vector(true, 1, gs(GS_BIAS + 0x200))), "vmovups ymm1,gs:[200h]");
        assert_eq!(text(|a| a.save_vector(false, 9, gs(GS_BIAS + 0x200))), "movups gs:[200h],xmm9");
        assert_eq!(text(|a| a.rdgsbase(RDI)), "rdgsbase rdi");
        assert_eq!(text(|a| a.wrfsbase(R11)), "wrfsbase r11");
        assert_eq!(text(|a| a.sub(RCX, R11)), "sub rcx,r11");
        assert_eq!(text(|a| a.ldmxcsr(gs(GS_BIAS + 0x80))), "ldmxcsr gs:[80h]");
        assert_eq!(text(|a| a.cmp32_mem_imm8(gs(GS_BIAS + 0x80), 0)), "cmp dword ptr gs:[80h],0");
        assert_eq!(text(|a| a.jmp_reg(R11)), "jmp r11");
    }

    #[test]
    fn resolves_labels_both_ways() {
        let code = text(|a| {
            let back = a.label();
            a.bind(back);
            let ahead = a.label();
            a.jcc(cond::A, ahead);
            a.jmp(back);
            a.bind(ahead);
            a.unless_rcx_zero(|a| a.ret());
        });
        assert_eq!(code, "ja 000000000000100Bh; jmp 0000000000001000h; jrcxz 000000000000100Eh; ret");
    }

    #[test]
    fn resolves_labels_between_sections() {
        let mut asm = Asm::new(0);
        asm.restart(0x1000, 0x9000);
        let (cold, back) = (asm.label(), asm.label());
        asm.jmp(cold);
        asm.bind(back);
        asm.switch(Section::Cold);
        asm.bind(cold);
        assert_eq!(asm.here(), 0x9000);
        asm.jmp(back);
        let (hot, cold) = asm.finish();
        assert_eq!(hot, [0xe9, 0xfb, 0x7f, 0, 0]);
        assert_eq!(cold, [0xe9, 0x00, 0x80, 0xff, 0xff]);
    }
}
