//! The code between Rust and emitted blocks: entry, exits, and calls of helpers.
//!
//! ```text
//! Rust --enter--> block --jmp leave_*-----> Rust        (a block is done)
//!                 block --call helper stub--> Rust fn --0--> back into the block
//!                                                     --1--> leave
//!                                                     --2--> jump cache  (crate::go)
//! ```
//!
//! Emitted code runs on a stack of its own ([`crate::frames`]), helpers on the thread's. A helper stub saves all guest
//! registers to the vCPU's state, so that a helper sees and may change them, and loads them again. x87 state stays in
//! the processor: Rust does not touch it.

use crate::asm::{Asm, Label, Mem, R11, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Reg, at, cond, gs, gs_at, gs_index};
use crate::branch_table;
use crate::cpu::{Cpu, ExitReason, GS_BIAS, JUMP_OFFSET, TLB_OFFSET, off};
use crate::emit::probe::argument;
use crate::emit::registers::pinned;
use crate::mode::Mode;
use crate::tlb::{HOST_OFFSET, JUMP_ENTRIES, JUMP_HASH, JUMP_WAY, JumpEntry, TLB_ENTRIES, physical};

/// A function that emitted code calls: the state and two arguments; an answer of [`crate::go`].
pub type Helper = extern "sysv64" fn(&mut Cpu, u64, u64) -> u64;

/// Functions behind the helper stubs.
pub struct Helpers {
    /// A TLB miss: RCX says what ([`crate::emit::probe::argument`]), R11 where; R11 becomes the host address.
    pub memory: Helper,
    /// The same for an access through the bounce buffer.
    pub bounce_begin: Helper,
    /// Writes the bounce buffer back.
    pub bounce_end: Helper,
    /// A system instruction: RCX is place and length, R11 points to it.
    pub system: Helper,
    /// A repeated string instruction, likewise.
    pub string: Helper,
    /// Raises the exception whose vector is in R11.
    pub raise: Helper,
}

/// Addresses of the stubs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stubs {
    /// `extern "sysv64" fn(code)`: runs a block. The GS base must be the vCPU's.
    pub enter: u64,
    /// To the block at linear address R11.
    pub leave_lookup: u64,
    /// For the target of exit number RCX.
    pub leave_chain: u64,
    /// A poll at linear address R11 saw something.
    pub leave_poll: u64,
    /// Where the signal handler sends a thread that faulted in emitted code.
    pub leave_fault: u64,
    /// Walks the page tables, or calls [`Helpers::memory`].
    pub memory: u64,
    /// Calls [`Helpers::memory`].
    pub memory_checked: u64,
    /// Calls [`Helpers::bounce_begin`].
    pub bounce_begin: u64,
    /// Calls [`Helpers::bounce_end`].
    pub bounce_end: u64,
    /// Calls [`Helpers::system`].
    pub system: u64,
    /// SYSCALL of 64-bit mode, called as [`Stubs::system`] is.
    pub syscall: u64,
    /// SYSRETQ, likewise.
    pub sysret: u64,
    /// Calls [`Helpers::string`].
    pub string: u64,
    /// Calls [`Helpers::raise`].
    pub raise: u64,
}

/// Callee-saved registers of the System V ABI.
const SAVED: [Reg; 6] = [Reg(3), Reg(5), Reg(12), Reg(13), Reg(14), Reg(15)];

impl Stubs {
    /// How many of them blocks may refer to.
    pub const PLACES: usize = 12;

    /// Emits all stubs. `avx`: the host has YMM registers.
    pub fn emit(asm: &mut Asm, helpers: &Helpers, avx: bool) -> Self {
        let mut stubs = Self { enter: asm.here(), ..Self::default() };
        for reg in SAVED {
            asm.push(reg);
        }
        asm.push(RAX);
        asm.store(gs(off::HOST_RSP), RSP);
        asm.mov(R11, RDI);
        asm.load(RSP, gs(off::FRAMES_TOP));
        asm.store_imm32(gs(off::PARKED), 0);
        // What the window showed may have changed.
        empty_window(asm, RCX);
        asm.mov_imm(RCX, 0);
        asm.store(gs(off::WINDOW_DELTA), RCX);
        load_guest(asm, avx);
        asm.jmp_reg(R11);

        asm.align(16, 0);
        let unwind = asm.here();
        asm.load(RSP, gs(off::HOST_RSP));
        asm.pop(RAX);
        for reg in SAVED.into_iter().rev() {
            asm.pop(reg);
        }
        asm.ret();

        let leave = |asm: &mut Asm, reason: ExitReason, keep: Option<(i32, Reg)>| {
            asm.align(16, 0);
            let here = asm.here();
            if let Some((offset, reg)) = keep {
                asm.store(gs(offset), reg);
            }
            // A fault may have been for want of room below the stack pointer.
            asm.load(RSP, gs(off::HOST_RSP));
            asm.store_imm32(gs(off::EXIT_REASON), reason as u32);
            asm.store(gs(off::gpr(0)), RAX);
            save_guest(asm, avx);
            asm.jmp_to(unwind);
            here
        };
        stubs.leave_lookup = leave(asm, ExitReason::Lookup, Some((off::LIP, R11)));
        stubs.leave_poll = leave(asm, ExitReason::Poll, Some((off::LIP, R11)));
        stubs.leave_chain = leave(asm, ExitReason::Chain, Some((off::EXIT_ARG, RCX)));
        stubs.leave_fault = leave(asm, ExitReason::Fault, None);

        asm.align(16, 0);
        let call = asm.here();
        call_helper(asm, avx, unwind);
        let helper = |asm: &mut Asm, function: Helper| {
            asm.align(16, 0);
            let here = asm.here();
            asm.store(gs(off::gpr(0)), RAX);
            asm.mov_imm(RAX, function as usize as u64);
            asm.jmp_to(call);
            here
        };
        stubs.memory_checked = helper(asm, helpers.memory);
        stubs.bounce_begin = helper(asm, helpers.bounce_begin);
        stubs.bounce_end = helper(asm, helpers.bounce_end);
        stubs.system = helper(asm, helpers.system);
        stubs.string = helper(asm, helpers.string);
        stubs.raise = helper(asm, helpers.raise);
        stubs.memory = crate::walk::emit(asm, stubs.memory_checked);
        stubs.syscall = crate::crossing::emit_syscall(asm, stubs.system);
        stubs.sysret = crate::crossing::emit_sysret(asm, stubs.system, stubs.leave_poll);
        stubs
    }

    /// The addresses that blocks may refer to, in an order of their own.
    pub fn places(&self) -> [u64; Self::PLACES] {
        // All fields are named, so that none can be forgotten here.
        let &Self {
            enter: _,
            leave_lookup,
            leave_chain,
            leave_poll,
            leave_fault: _,
            memory,
            memory_checked,
            bounce_begin,
            bounce_end,
            system,
            syscall,
            sysret,
            string,
            raise,
        } = self;
        [
            leave_lookup, leave_chain, leave_poll, memory, memory_checked, bounce_begin, bounce_end, system, syscall,
            sysret, string, raise,
        ]
    }

    /// Emits the jump-cache lookup for one mode: finds the block for the linear address in R11 and goes there.
    /// `salt` sets the mode's slots apart. No flags.
    pub fn emit_indirect(&self, asm: &mut Asm, salt: u32, mode: Mode) -> u64 {
        asm.align(16, 0);
        let here = asm.here();
        for way in [0, JUMP_WAY] {
            let miss = asm.label();
            probe_jumps(asm, salt, way, miss);
            if mode.is_mirrored() {
                branch_table::fill(asm, salt);
            }
            asm.jmp_reg(RCX);
            asm.bind(miss);
        }
        if mode.is_64() {
            physical::emit(asm, mode, salt, self.leave_lookup);
        } else {
            asm.jmp_to(self.leave_lookup);
        }
        here
    }

    /// Emits what moves the stack window of one mode to the page of the RCX bytes at linear address R11, whose tag is
    /// `tag`. RCX = 0 where they are in it now; R11 is scratch. Writes flags.
    pub fn emit_window(&self, asm: &mut Asm, tag: i32) -> u64 {
        const SS: u32 = 2;
        asm.align(16, 0);
        let here = asm.here();
        let (again, fail, done, walk) = (asm.label(), asm.label(), asm.label(), asm.label());
        asm.store(gs(off::spill(0)), RDX);
        asm.mov32(RDX, R11);
        asm.and32_imm(RDX, 0xfff);
        asm.lea(RDX, Mem { gs: false, base: Some(RDX), index: Some((RCX, 0)), disp: 0 });
        asm.cmp_imm(RDX, 4096);
        asm.jcc(cond::A, fail);
        asm.bind(again);
        asm.rorx(RDX, R11, 6);
        asm.and32_imm(RDX, ((TLB_ENTRIES - 1) << 6) as i32);
        asm.load(RCX, gs_at(RDX, TLB_OFFSET as i32 + tag));
        asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R11, 0)), disp: 0 });
        asm.cmp_imm(RCX, 4095);
        asm.jcc(cond::A, walk);
        asm.sub(RCX, R11);
        asm.load(RDX, gs_at(RDX, TLB_OFFSET as i32 + HOST_OFFSET));
        asm.lea(RDX, Mem { gs: false, base: Some(RCX), index: Some((RDX, 0)), disp: 0 });
        // It must be canonical, which it is not where both are far up in their halves.
        asm.mov(R11, RDX);
        asm.shl_imm(R11, 16);
        asm.sar_imm(R11, 16);
        asm.cmp(R11, RDX);
        asm.jcc(cond::NE, fail);
        asm.store(gs(off::WINDOW), RCX);
        asm.store(gs(off::WINDOW_DELTA), RDX);
        asm.wrfsbase(RDX);
        asm.mov_imm32(RCX, 0);
        asm.bind(done);
        asm.load(RDX, gs(off::spill(0)));
        asm.ret();
        asm.bind(fail);
        asm.mov_imm32(RCX, 1);
        asm.jmp(done);
        // The address is kept in two places: the helper gives another in R11, and uses the first spill slots.
        asm.bind(walk);
        asm.load(RDX, gs(off::spill(0)));
        asm.store(gs(off::spill(1)), R11);
        let what = 1 | argument::WRITE | argument::READ | argument::TRY | SS << argument::SEGMENT_SHIFT;
        asm.mov_imm32(RCX, what | (tag as u32 / 8) << argument::CONTEXT_SHIFT);
        asm.call_to(self.memory);
        asm.store(gs(off::spill(0)), RDX);
        asm.test(R11, R11);
        asm.jcc(cond::E, fail);
        asm.load(R11, gs(off::spill(1)));
        asm.jmp(again);
        here
    }

    /// Emits where a guest return goes when the stack of frames is empty: through the jump cache of one mode.
    pub fn emit_underflow(&self, asm: &mut Asm, indirect: u64) -> u64 {
        asm.align(16, 0);
        let here = asm.here();
        asm.load(RSP, gs(off::FRAMES_TOP));
        asm.jmp_to(indirect);
        here
    }
}

/// RCX = where the jump cache's `way` says that the block for the linear address in R11 is entered; to `miss` where it
/// does not know. Keeps R11, which the block's entry wants. No flags.
pub fn probe_jumps(asm: &mut Asm, salt: u32, way: i32, miss: Label) {
    const LINEAR: i32 = JUMP_OFFSET as i32;
    const HOST: i32 = LINEAR + 8;
    asm.store(gs(off::spill(0)), RDX);
    jump_slot(asm, salt, usize::from(way != 0));
    asm.load(RCX, gs_index(RDX, 1, LINEAR + way));
    asm.not(RCX);
    asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R11, 0)), disp: 1 });
    asm.unless_rcx_zero(|asm| {
        asm.load(RDX, gs(off::spill(0)));
        asm.jmp(miss);
    });
    asm.load(RCX, gs_index(RDX, 1, HOST + way));
    asm.load(RDX, gs(off::spill(0)));
}

/// RDX = 8 times the slot of the linear address in R11 in a way of the jump cache; an entry is twice that far. No flags.
pub fn jump_slot(asm: &mut Asm, salt: u32, way: usize) {
    let (rotate, shift) = JUMP_HASH[way];
    asm.rorx(RDX, R11, rotate);
    asm.lea32_salt(RDX, RDX, (R11, shift), salt);
    // 16 bits, which MOVZX masks.
    asm.lea32(RDX, Mem { gs: false, base: None, index: Some((RDX, 3)), disp: 0 });
    asm.movzx16(RDX, RDX);
}

/// The same as [`probe_jumps`] where flags may be written: the operand that says where the block is entered. Writes RCX.
pub fn probe_jumps_freely(asm: &mut Asm, salt: u32, miss: Label) -> Mem {
    const _: () = assert!(JUMP_ENTRIES == 1 << 13 && size_of::<JumpEntry>() == 16);
    let (rotate, shift) = JUMP_HASH[0];
    asm.rorx(RCX, R11, rotate);
    asm.lea32_salt(RCX, RCX, (R11, shift), salt);
    asm.shl32_imm(RCX, 4);
    asm.and32_imm(RCX, ((JUMP_ENTRIES - 1) << 4) as i32);
    asm.cmp_mem(R11, gs_at(RCX, JUMP_OFFSET as i32));
    asm.jcc(cond::NE, miss);
    gs_at(RCX, JUMP_OFFSET as i32 + 8)
}

/// Has the stack window show nothing, as is due whenever mode or mappings may have changed. The FS base may stay: what
/// is taken to be in this window is not canonical with any. No flags.
pub fn empty_window(asm: &mut Asm, scratch: Reg) {
    asm.mov_imm(scratch, Cpu::NO_WINDOW);
    asm.store(gs(off::WINDOW), scratch);
}

/// Loads all that the guest has in registers. R11 keeps its value; RCX is scratch.
fn load_guest(asm: &mut Asm, avx: bool) {
    asm.load(RCX, gs(off::WINDOW_DELTA));
    asm.wrfsbase(RCX);
    // Loading MXCSR costs more than looking whether that is needed.
    let same = asm.label();
    asm.stmxcsr(gs(off::spill(0)));
    asm.load32(RAX, gs(off::spill(0)));
    asm.cmp32_mem(RAX, gs(off::MXCSR));
    asm.jcc(cond::E, same);
    asm.ldmxcsr(gs(off::MXCSR));
    asm.bind(same);
    for n in 0..16 {
        asm.load_vector(avx, n, gs(off::vector(n)));
    }
    asm.load(RAX, gs(off::FLAGS));
    asm.rorx(RCX, RAX, 11);
    asm.and32_imm(RCX, 1);
    asm.shl_imm(RAX, 8);
    asm.or(RAX, RCX);
    asm.restore_flags_from_rax();
    for (reg, number) in pinned() {
        asm.load(reg, gs(off::gpr(number)));
    }
}

/// Saves all that the guest has in registers but RAX, which the caller has saved, and sets up what Rust expects. RBX
/// is what RAX was.
fn save_guest(asm: &mut Asm, avx: bool) {
    for (reg, number) in pinned().filter(|(reg, _)| *reg != RAX) {
        asm.store(gs(off::gpr(number)), reg);
    }
    asm.load(RDX, gs(off::HOST_FS));
    asm.wrfsbase(RDX);
    asm.mov(RBX, RAX);
    asm.save_flags_in_rax();
    // Flags that were put aside are the guest's.
    asm.load32(RDX, gs(off::PARKED));
    asm.test32(RDX, RDX);
    let in_place = asm.label();
    asm.jcc(cond::E, in_place);
    asm.load(RAX, gs(off::PARKED_FLAGS));
    asm.bind(in_place);
    // AH as it is, OF from AL.
    asm.rorx(RDX, RAX, 8);
    asm.and32_imm(RDX, (lodge_x86::bits::rflags::ARITHMETIC & 0xff) as i32);
    asm.and32_imm(RAX, 1);
    asm.shl_imm(RAX, 11);
    asm.or(RDX, RAX);
    asm.store(gs(off::FLAGS), RDX);
    for n in 0..16 {
        asm.save_vector(avx, n, gs(off::vector(n)));
    }
    if avx {
        asm.vzeroupper();
    }
    // Rust runs with the guest's MXCSR where that differs from its own in what has happened only.
    const HAPPENED: i32 = 0x3f;
    let same = asm.label();
    asm.stmxcsr(gs(off::MXCSR));
    asm.load32(RDX, gs(off::MXCSR));
    asm.and32_imm(RDX, !HAPPENED);
    asm.cmp32_mem(RDX, gs(off::HOST_MXCSR));
    asm.jcc(cond::E, same);
    asm.ldmxcsr(gs(off::HOST_MXCSR));
    asm.bind(same);
}

/// The common part of helper stubs: RAX is the function, RCX and R11 its arguments.
fn call_helper(asm: &mut Asm, avx: bool, unwind: u64) {
    asm.store(gs(off::CODE_RSP), RSP);
    asm.load(RSP, gs(off::HOST_RSP));
    save_guest(asm, avx);
    asm.mov(RSI, RCX);
    asm.mov(RDX, R11);
    asm.rdgsbase(RDI);
    asm.lea(RDI, at(RDI, -GS_BIAS));
    asm.call_reg(RBX);
    asm.test32(RAX, RAX);
    let leave = asm.label();
    asm.jcc(cond::NE, leave);
    asm.load(RSP, gs(off::CODE_RSP));
    load_guest(asm, avx);
    asm.load(R11, gs(off::HOST_ADDRESS));
    asm.ret();
    asm.bind(leave);
    asm.cmp_imm(RAX, crate::go::GO as i32);
    let go = asm.label();
    asm.jcc(cond::E, go);
    asm.store_imm32(gs(off::EXIT_REASON), ExitReason::Helper as u32);
    asm.jmp_to(unwind);
    asm.bind(go);
    asm.load(RSP, gs(off::FRAMES_TOP));
    asm.load(RAX, gs(off::GO_UNDERFLOW));
    asm.store(at(RSP, 0), RAX);
    asm.store_imm32(gs(off::PARKED), 0);
    empty_window(asm, RAX);
    load_guest(asm, avx);
    asm.load(R11, gs(off::LIP));
    asm.jmp_mem(gs(off::GO_INDIRECT));
}
