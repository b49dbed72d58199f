//! Instructions that only stubs use: those that write flags, and jumps through memory.

use super::{Asm, Mem, Reg};

impl Asm {
    pub fn jmp_mem(&mut self, m: Mem) {
        self.mem(None, false, &[0xff], 4, m, false);
    }

    pub fn add(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x01], from, to);
    }

    pub fn and(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x21], from, to);
    }

    pub fn and32(&mut self, to: Reg, from: Reg) {
        self.rr(false, &[0x21], from, to);
    }

    /// With a sign-extended immediate.
    pub fn and_imm(&mut self, reg: Reg, imm: i32) {
        self.group1(true, 4, reg, imm);
    }

    /// Writes flags.
    pub fn shl32_imm(&mut self, reg: Reg, count: u8) {
        self.rr(false, &[0xc1], Reg(4), reg);
        self.byte(count);
    }

    pub fn cmp32_imm(&mut self, reg: Reg, imm: i32) {
        self.group1(false, 7, reg, imm);
    }

    pub fn cmp32_mem(&mut self, a: Reg, m: Mem) {
        self.mem(None, false, &[0x3b], a.0, m, false);
    }

    pub fn xor(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x31], from, to);
    }

    pub fn test32_mem(&mut self, a: Reg, m: Mem) {
        self.mem(None, false, &[0x85], a.0, m, false);
    }

    pub fn sub_mem(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x2b], to.0, m, false);
    }

    pub fn neg(&mut self, reg: Reg) {
        self.rr(true, &[0xf7], Reg(3), reg);
    }

    pub fn sbb(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x19], from, to);
    }

    pub fn imul(&mut self, to: Reg, from: Reg) {
        self.rr(true, &[0x0f, 0xaf], to, from);
    }

    /// Sets bit `bit` modulo 64.
    pub fn bts(&mut self, to: Reg, bit: Reg) {
        self.rr(true, &[0x0f, 0xab], bit, to);
    }

    pub fn shr_imm(&mut self, reg: Reg, count: u8) {
        self.rr(true, &[0xc1], Reg(5), reg);
        self.byte(count);
    }

    /// XSAVE or XRSTOR, with REX.W or without, at `[base]`.
    pub fn extended_state(&mut self, save: bool, wide: bool, base: Reg) {
        self.mem(None, wide, &[0x0f, 0xae], if save { 4 } else { 5 }, super::at(base, 0), false);
    }

    pub fn test8_mem_imm(&mut self, m: Mem, imm: u8) {
        self.mem(None, false, &[0xf6], 0, m, false);
        self.byte(imm);
    }

    pub fn lock_or8_mem_imm(&mut self, m: Mem, imm: u8) {
        self.byte(0xf0);
        self.mem(None, false, &[0x80], 1, m, false);
        self.byte(imm);
    }

    pub fn and_mem(&mut self, to: Reg, m: Mem) {
        self.mem(None, true, &[0x23], to.0, m, false);
    }

    pub fn and32_mem(&mut self, to: Reg, m: Mem) {
        self.mem(None, false, &[0x23], to.0, m, false);
    }

    pub fn test32_imm(&mut self, reg: Reg, imm: u32) {
        self.rr(false, &[0xf7], Reg(0), reg);
        self.bytes(&imm.to_le_bytes());
    }

    /// Shifts left or, arithmetically, right by the count in `count`. No flags.
    pub fn shlx(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex_shift(1, to, from, count);
    }

    /// See [`Asm::shlx`].
    pub fn sarx(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex_shift(2, to, from, count);
    }

    fn vex_shift(&mut self, prefix: u8, to: Reg, from: Reg, count: Reg) {
        // VEX.LZ.pp.0F38.W1 F7 /r, with the count in vvvv.
        let high = (u8::from(to.0 < 8) << 7) | 1 << 6 | (u8::from(from.0 < 8) << 5) | 2;
        self.bytes(&[0xc4, high, 0x80 | (!count.0 & 15) << 3 | prefix, 0xf7, 0xc0 | (to.0 & 7) << 3 | from.0 & 7]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{R10, R11, RCX, RDX, at, gs};
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

    fn text(emit: impl FnOnce(&mut Asm)) -> String {
        let mut asm = Asm::new(0x1000);
        emit(&mut asm);
        let code = asm.finish().0.to_vec();
        let ins = Decoder::with_ip(64, &code, 0x1000, DecoderOptions::NONE).decode();
        assert_eq!(ins.len(), code.len());
        let mut line = String::new();
        IntelFormatter::new().format(&ins, &mut line);
        line
    }

    #[test]
    fn encodes() {
        assert_eq!(text(|a| a.shlx(RDX, R11, RCX)), "shlx rdx,r11,rcx");
        assert_eq!(text(|a| a.sarx(R11, RDX, R10)), "sarx r11,rdx,r10");
        assert_eq!(text(|a| a.add(R10, RCX)), "add r10,rcx");
        assert_eq!(text(|a| a.test32_imm(RDX, 0x4_0500)), "test edx,40500h");
        assert_eq!(text(|a| a.and32_mem(R10, gs(0x4008))), "and r10d,gs:[8]");
        assert_eq!(text(|a| a.and_mem(RDX, gs(0x4008))), "and rdx,gs:[8]");
        assert_eq!(text(|a| a.and(RCX, R11)), "and rcx,r11");
        assert_eq!(text(|a| a.and32(R10, RCX)), "and r10d,ecx");
        assert_eq!(text(|a| a.and_imm(RDX, -4096)), "and rdx,0FFFFFFFFFFFFF000h");
        assert_eq!(text(|a| a.cmp32_imm(RCX, 0x21)), "cmp ecx,21h");
        assert_eq!(text(|a| a.cmp32_mem(RDX, gs(0x4008))), "cmp edx,gs:[8]");
        assert_eq!(text(|a| a.xor(RCX, R11)), "xor rcx,r11");
        assert_eq!(text(|a| a.test32_mem(RCX, gs(0x4008))), "test gs:[8],ecx");
        assert_eq!(text(|a| a.sub_mem(RCX, gs(0x4008))), "sub rcx,gs:[8]");
        assert_eq!(text(|a| a.neg(R11)), "neg r11");
        assert_eq!(text(|a| a.sbb(RDX, RDX)), "sbb rdx,rdx");
        assert_eq!(text(|a| a.imul(RDX, R10)), "imul rdx,r10");
        assert_eq!(text(|a| a.bts(RDX, R11)), "bts rdx,r11");
        assert_eq!(text(|a| a.shr_imm(R10, 12)), "shr r10,0Ch");
        assert_eq!(text(|a| a.test8_mem_imm(at(RDX, 0), 2)), "test byte ptr [rdx],2");
        assert_eq!(text(|a| a.lock_or8_mem_imm(at(RDX, 0), 1)), "lock or byte ptr [rdx],1");
        assert_eq!(text(|a| a.extended_state(true, true, R11)), "xsave64 [r11]");
        assert_eq!(text(|a| a.extended_state(false, false, R11)), "xrstor [r11]");
        assert_eq!(text(|a| a.jmp_mem(gs(0x4010))), "jmp qword ptr gs:[10h]");
    }
}
