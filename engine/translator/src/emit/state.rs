//! XSAVE and XRSTOR in emitted code: the processor's own, on the guest's memory, for vector and x87 registers are live
//! in the processor.
//!
//! Only in the form that kernels use: all three components, in the standard format, into or out of an aligned area
//! within one page. What cannot be told from the outside is looked at before, so that the instruction itself does not
//! fault; [`crate::fpu`] has all the rest.
//!
//! XSAVE leaves in the area what is the host's: the instruction and data pointers of x87, and the mask of MXCSR. They
//! are written over ([`crate::fpu`] says how they read).

use iced_x86::{Instruction, Mnemonic};

use super::Emitter;
use super::cold::Cold;
use super::probe::Ea;
use crate::asm::{Mem, R11, RAX, RCX, RDX, Size, at, cond, gs, gs_at};
use crate::cpu::{TLB_OFFSET, off};
use crate::fpu::MXCSR_MASK;
use crate::mode::Mode;
use crate::tlb::{HOST_OFFSET, TLB_ENTRIES, tag_offset};
use lodge_x86::state::XSAVE_SIZE;

/// x87, SSE and AVX.
const COMPONENTS: i32 = 7;
/// Where things are in the area (SDM 1 13.4).
mod area {
    pub const FOP: i32 = 6;
    pub const FIP: i32 = 8;
    pub const FDP: i32 = 16;
    pub const MXCSR: i32 = 24;
    pub const MXCSR_MASK: i32 = 28;
    pub const XSTATE_BV: i32 = 512;
    pub const XCOMP_BV: i32 = 520;
    pub const RESERVED: i32 = 528;
}

impl Emitter<'_> {
    /// XSAVE and XRSTOR; whether control goes on behind it (always).
    pub(super) fn extended_state(&mut self, ins: &Instruction) -> bool {
        if !self.mode.has(Mode::AVX) {
            return self.system_instruction(ins);
        }
        let wide = matches!(ins.mnemonic(), Mnemonic::Xsave64 | Mnemonic::Xrstor64);
        let save = matches!(ins.mnemonic(), Mnemonic::Xsave | Mnemonic::Xsave64);
        let (enter, back) = (self.asm.label(), self.asm.label());
        let (slow, done) = (self.asm.label(), self.asm.label());
        let ea = Ea::of(ins);
        self.effective(&ea);
        self.add_base(ea.segment);
        self.asm.store(gs(off::spill(6)), RAX);
        self.asm.save_flags_in_rax();
        self.asm.store(gs(off::spill(5)), RAX);
        self.asm.load(RAX, gs(off::spill(6)));
        self.asm.and32_imm(RAX, COMPONENTS);
        self.asm.cmp32_imm(RAX, COMPONENTS);
        self.asm.jcc(cond::NE, slow);
        self.asm.test32_imm(R11, 63);
        self.asm.jcc(cond::NE, slow);
        self.asm.rorx(RCX, R11, 6);
        self.asm.and32_imm(RCX, ((TLB_ENTRIES - 1) << 6) as i32);
        self.asm.add_mem(R11, gs_at(RCX, TLB_OFFSET as i32 + tag_offset(self.mode.tlb_context(), save)));
        self.asm.cmp_imm(R11, 4096 - XSAVE_SIZE as i32);
        self.asm.jcc(cond::A, slow);
        self.asm.add_mem(R11, gs_at(RCX, TLB_OFFSET as i32 + HOST_OFFSET));
        if !save {
            // The format, and what would fault.
            self.asm.load(RAX, at(R11, area::XSTATE_BV));
            self.asm.and_imm(RAX, !COMPONENTS);
            self.asm.or_mem(RAX, at(R11, area::XCOMP_BV));
            self.asm.or_mem(RAX, at(R11, area::RESERVED));
            self.asm.jcc(cond::NE, slow);
            self.asm.load32(RAX, at(R11, area::MXCSR));
            self.asm.test32_imm(RAX, !MXCSR_MASK);
            self.asm.jcc(cond::NE, slow);
        }
        self.asm.store(gs(off::spill(7)), RDX);
        self.asm.mov_imm32(RDX, 0);
        self.asm.mov_imm32(RAX, COMPONENTS as u32);
        self.asm.extended_state(save, wide, R11);
        self.asm.load(RDX, gs(off::spill(7)));
        if save {
            self.asm.mov_imm32(RCX, 0);
            self.asm.store_sized(Size::B2, at(R11, area::FOP), RCX);
            self.asm.store(at(R11, area::FIP), RCX);
            self.asm.store(at(R11, area::FDP), RCX);
            self.asm.store_imm32(Mem { gs: false, base: Some(R11), index: None, disp: area::MXCSR_MASK }, MXCSR_MASK);
        }
        self.flags_and_rax();
        self.asm.jmp(done);
        self.asm.bind(slow);
        self.flags_and_rax();
        self.asm.jmp(enter);
        self.asm.bind(done);
        self.asm.bind(back);
        let instruction = self.remember(ins);
        self.cold.push(Cold::System { enter, back, instruction, guest: self.guest });
        true
    }

    /// Brings back what was put aside.
    fn flags_and_rax(&mut self) {
        self.asm.load(RAX, gs(off::spill(5)));
        self.asm.restore_flags_from_rax();
        self.asm.load(RAX, gs(off::spill(6)));
    }
}
