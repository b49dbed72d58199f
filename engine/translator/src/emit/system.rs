//! System instructions that are emitted rather than carried out by a helper: those that kernels run at each system call,
//! interrupt or access to user memory.
//!
//! Only in 64-bit mode, and not where instructions are run one by one ([`Mode::HOW`]): there is [`crate::system`], which
//! also takes over whatever is unusual. SYSCALL and SYSRET are stubs ([`crate::crossing`]).
//!
//! STAC and CLAC change the mode under SMAP. What the mode becomes is known, so they end their block with an exit that
//! is chained like any other, to the next instruction in the other mode.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Emitter;
use super::cold::Cold;
use super::probe::segment_number;
use super::registers::GprOperand;
use crate::asm::{Mem, R10, R11, RAX, RCX, RDX, RSP, at, cond, gs};
use crate::cpu::off;
use crate::mode::Mode;
use lodge_x86::bits::rflags;

impl Emitter<'_> {
    /// Emits a system instruction; whether control goes on behind it.
    pub(super) fn system(&mut self, ins: &Instruction) -> bool {
        if self.mode.has(Mode::HOW) || !self.mode.is_64() {
            return self.system_instruction(ins);
        }
        let kernel = self.mode.has(Mode::KERNEL);
        match ins.mnemonic() {
            Mnemonic::Syscall => self.crossing(ins, self.stubs.syscall),
            Mnemonic::Sysretq if kernel => self.crossing(ins, self.stubs.sysret),
            Mnemonic::Swapgs if kernel => self.swapgs(),
            Mnemonic::Rdfsbase | Mnemonic::Rdgsbase if self.mode.has(Mode::FSGSBASE) => self.read_base(ins),
            Mnemonic::Wrfsbase | Mnemonic::Wrgsbase if self.mode.has(Mode::FSGSBASE) => self.write_base(ins),
            Mnemonic::Stac | Mnemonic::Clac if self.mode.has(Mode::SMAP) => {
                return self.change_access(ins.mnemonic() == Mnemonic::Stac);
            }
            Mnemonic::Popfq if kernel => self.pop_flags(ins),
            Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
                return self.extended_state(ins);
            }
            Mnemonic::Rdtscp if !self.mode.has(Mode::TSC_CHECKED) => {
                self.rdtsc();
                self.asm.load32(R10, gs(off::TSC_AUX));
            }
            Mnemonic::Mov if ins.op0_kind() == OpKind::Register && ins.op0_register().is_gpr() => {
                return self.move_from(ins, kernel);
            }
            _ => return self.system_instruction(ins),
        }
        !matches!(ins.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysretq)
    }

    fn crossing(&mut self, ins: &Instruction, stub: u64) {
        let number = self.remember(ins);
        self.call_system(number, stub);
    }

    fn swapgs(&mut self) {
        self.asm.load(RCX, gs(off::segment_base(5)));
        self.asm.load(R11, gs(off::KERNEL_GS_BASE));
        self.asm.store(gs(off::KERNEL_GS_BASE), RCX);
        self.set_base(5);
    }

    /// A segment's base = R11.
    fn set_base(&mut self, segment: u8) {
        self.asm.store(gs(off::segment_base(segment)), R11);
        self.asm.store(gs(off::segment_limits(segment) - 8), R11);
    }

    fn base_operand(ins: &Instruction) -> (u8, usize, u8) {
        let segment = if matches!(ins.mnemonic(), Mnemonic::Rdfsbase | Mnemonic::Wrfsbase) { 4 } else { 5 };
        let number = GprOperand::of(ins.op0_register()).map_or(0, |gpr| gpr.number);
        (number, ins.op0_register().size(), segment)
    }

    fn read_base(&mut self, ins: &Instruction) {
        let (number, size, segment) = Self::base_operand(ins);
        self.asm.load(R11, gs(off::segment_base(segment)));
        self.write_gpr(number, size, R11);
    }

    fn write_base(&mut self, ins: &Instruction) {
        let (number, size, segment) = Self::base_operand(ins);
        self.read_gpr(number, R11);
        if size == 4 {
            self.asm.mov32(R11, R11);
            return self.set_base(segment);
        }
        // Bits 63 to 47 alike: sign-extended from bit 47 it is what it was. No flags.
        self.asm.store(gs(off::spill(0)), RDX);
        self.asm.mov_imm32(RCX, 16);
        self.asm.shlx(RDX, R11, RCX);
        self.asm.sarx(RDX, RDX, RCX);
        self.asm.not(RDX);
        self.asm.lea(RCX, Mem { gs: false, base: Some(RDX), index: Some((R11, 0)), disp: 1 });
        self.asm.load(RDX, gs(off::spill(0)));
        let (enter, back) = (self.asm.label(), self.asm.label());
        self.asm.unless_rcx_zero(|asm| asm.jmp(enter));
        self.set_base(segment);
        self.asm.bind(back);
        let instruction = self.remember(ins);
        self.cold.push(Cold::System { enter, back, instruction, guest: self.guest });
    }

    /// STAC and CLAC at CPL 0 under CR4.SMAP.
    fn change_access(&mut self, open: bool) -> bool {
        if open != self.mode.has(Mode::STRICT) {
            // AC is already what it is to be.
            return true;
        }
        let Some(other) = self.other else { return true };
        const AC: i32 = rflags::AC as i32;
        self.asm.load(RCX, gs(off::SYSTEM_FLAGS));
        self.asm.lea(RCX, at(RCX, if open { AC } else { -AC }));
        self.asm.store(gs(off::SYSTEM_FLAGS), RCX);
        self.mode = self.mode.other_access();
        self.asm.store_imm32(gs(off::MODE), self.mode.without_page().0);
        self.asm.load(RSP, gs(off::FRAMES_TOP));
        self.asm.lea_to(RCX, other.underflow);
        self.asm.store(at(RSP, 0), RCX);
        if !open {
            // It may show a page that only AC laid open.
            crate::stubs::empty_window(self.asm, RCX);
        }
        (self.indirect, self.salt) = (other.indirect, other.salt);
        let next = self.next as i64;
        self.exit_direct(next, false);
        false
    }

    /// POPFQ at CPL 0, where nothing but IF and arithmetic flags changes, and nothing waits for IF.
    fn pop_flags(&mut self, ins: &Instruction) {
        const OTHERS: u64 = rflags::WRITABLE & !(rflags::ARITHMETIC | rflags::IF | rflags::RF | rflags::VM);
        let (enter, back) = (self.asm.label(), self.asm.label());
        let slot = self.stack_slot(0);
        // All that a probe could spoil is about to be overwritten.
        self.keep_flags = false;
        self.probe(&slot, 8, false);
        self.fetch(8, R11);
        self.asm.load(RCX, gs(off::SYSTEM_FLAGS));
        self.asm.xor(RCX, R11);
        self.asm.test32_imm(RCX, OTHERS as u32);
        self.asm.jcc(cond::NE, enter);
        self.asm.rorx(RCX, R11, 9);
        self.asm.and32_imm(RCX, 1);
        self.asm.test32_mem(RCX, gs(off::LATCHED));
        self.asm.jcc(cond::NE, enter);
        self.asm.store32(gs(off::INTERRUPT_FLAG), RCX);
        self.asm.store(gs(off::spill(6)), RAX);
        self.asm.rorx(RCX, R11, 11);
        self.asm.and32_imm(RCX, 1);
        self.asm.mov32(RAX, R11);
        self.asm.shl_imm(RAX, 8);
        self.asm.or(RAX, RCX);
        self.move_stack(8);
        self.asm.restore_flags_from_rax();
        self.asm.load(RAX, gs(off::spill(6)));
        self.asm.bind(back);
        let instruction = self.remember(ins);
        self.cold.push(Cold::System { enter, back, instruction, guest: self.guest });
    }

    /// MOV from a segment or control register to a general-purpose one.
    fn move_from(&mut self, ins: &Instruction, kernel: bool) -> bool {
        let (to, from) = (ins.op0_register(), ins.op1_register());
        let number = GprOperand::of(to).map_or(0, |gpr| gpr.number);
        if from.is_segment_register() {
            let selector = off::segment_selector(segment_number(from));
            self.asm.load_sized(crate::asm::Size::B2, R11, gs(selector));
            self.write_gpr(number, to.size(), R11);
            return true;
        }
        let field = match from {
            Register::CR0 => off::CR0,
            Register::CR2 => off::CR2,
            Register::CR3 => off::CR3,
            Register::CR4 => off::CR4,
            _ => return self.system_instruction(ins),
        };
        if !kernel {
            return self.system_instruction(ins);
        }
        self.asm.load(R11, gs(field));
        self.write_gpr(number, 8, R11);
        true
    }
}
