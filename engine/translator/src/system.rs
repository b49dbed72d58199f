//! System instructions: what the translator leaves to Rust.
//!
//! [`system`] is the helper behind the stub. It carries out one decoded instruction on the vCPU's state, with
//! [`Cpu::lip`] at the instruction while it may still fault and behind it afterwards, and says whether the block can
//! go on: not if control went elsewhere, or the mode or the translation of addresses may have changed.
//!
//! Groups have files of their own: [`crate::transfer`] far control transfers, [`crate::control`] control registers and
//! tables, [`crate::msr`], [`crate::fpu`] saving of x87 and SIMD state, [`crate::port`] I/O, [`crate::legacy`] what
//! 64-bit mode lacks.
#![expect(unsafe_code, reason = "emitted code passes a pointer to the decoded instruction")]
// UNSAFETY: the block keeps the instruction as long as its code can run.

use iced_x86::{Instruction, Mnemonic, OpKind};
use lodge_x86::bits::{cr0, cr4, rflags};
use lodge_x86::exception::{Exception, vector};

use crate::context::After;
use crate::cpu::Cpu;
use crate::go::{LEAVE, STAY};
use crate::mode::Mode;
use crate::virtual_flag::InterruptFlag;

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction; the block may go on unless the mode changed.
    Next,
    /// To the next instruction, but the block must end.
    End,
    /// To where [`Cpu::lip`] now is.
    Jump,
    /// HLT.
    Halt,
}

/// What carrying out an instruction gives.
pub type Outcome = Result<Flow, Exception>;

/// The helper for system instructions.
pub extern "sysv64" fn system(cpu: &mut Cpu, place: u64, pointer: u64) -> u64 {
    // SAFETY: emitted code passes the address of an instruction that its block owns.
    let ins = unsafe { *(pointer as *const Instruction) };
    let context = cpu.context();
    context.counts.system += 1;
    context.helped.count(ins.mnemonic());
    run(cpu, place, |cpu| execute(cpu, &ins))
}

/// The helper that raises an exception: #GP with an error code of zero, others without any.
pub extern "sysv64" fn raise(cpu: &mut Cpu, place: u64, number: u64) -> u64 {
    cpu.context().counts.raised += 1;
    let vector = number as u8;
    let error_code = (vector == vector::GENERAL_PROTECTION).then_some(0);
    run(cpu, place, |_| Err(Exception { vector, error_code, address: None }))
}

/// Carries out `body` for the instruction at `place` (offset in the page, length in the high half); the helper's answer.
pub fn run(cpu: &mut Cpu, place: u64, body: impl FnOnce(&mut Cpu) -> Outcome) -> u64 {
    let (offset, length) = (place & 0xffff_ffff, place >> 32);
    let mask = if cpu.is_64() { u64::MAX } else { 0xffff_ffff };
    let start = cpu.code_base.wrapping_add(offset) & mask;
    let next = start.wrapping_add(length) & mask;
    cpu.lip = start;
    cpu.context().code_hit = false;
    let mode = cpu.mode;
    match body(cpu) {
        Ok(Flow::Next) => {
            cpu.lip = next;
            let context = cpu.context();
            let changed = context.shared.memory_changed.load(std::sync::atomic::Ordering::Relaxed);
            let ends = context.shadow || context.code_hit || changed;
            if cpu.mode != mode || ends { cpu.go() } else { STAY }
        }
        Ok(Flow::End) => {
            cpu.lip = next;
            cpu.go()
        }
        Ok(Flow::Jump) => cpu.go(),
        Ok(Flow::Halt) => {
            cpu.lip = next;
            cpu.context().after = After::Halt;
            LEAVE
        }
        Err(_) if cpu.context().after != After::Continue => LEAVE,
        Err(exception) => cpu.raise_and_go(exception),
    }
}

impl Cpu {
    /// The address behind the instruction that is being carried out.
    pub fn next_ip(&self, ins: &Instruction) -> u64 {
        self.rip_of(self.lip.wrapping_add(ins.len() as u64))
    }

    /// #GP(0) unless the CPL is 0.
    pub fn require_kernel(&self) -> Result<(), Exception> {
        if self.cpl() == 0 { Ok(()) } else { Err(Exception::general_protection(0)) }
    }

    /// #GP(0) in user mode under CR4.UMIP.
    fn require_umip(&self) -> Result<(), Exception> {
        let hidden = self.cr4 & cr4::UMIP != 0 && self.cpl() != 0;
        if hidden { Err(Exception::general_protection(0)) } else { Ok(()) }
    }

    fn require_protected(&self) -> Result<(), Exception> {
        if self.is_real() || self.is_v86() { Err(Exception::INVALID_OPCODE) } else { Ok(()) }
    }

    fn sync_mode(&mut self) {
        self.mode = Mode::of(self).0;
    }
}

fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Mov | M::Push | M::Pop => moves(cpu, ins),
        M::Cli
        | M::Sti
        | M::Cld
        | M::Std
        | M::Stac
        | M::Clac
        | M::Popf
        | M::Popfd
        | M::Popfq
        | M::Pushf
        | M::Pushfd
        | M::Pushfq => flags(cpu, ins),
        M::Hlt => {
            cpu.require_kernel()?;
            Ok(Flow::Halt)
        }
        M::Int
        | M::Int1
        | M::Int3
        | M::Into
        | M::Bound
        | M::Iret
        | M::Iretd
        | M::Iretq
        | M::Retf
        | M::Syscall
        | M::Sysret
        | M::Sysretq
        | M::Sysenter
        | M::Sysexit
        | M::Sysexitq
        | M::Jmp
        | M::Call => crate::transfer::execute(cpu, ins),
        M::Enter => enter(cpu, ins),
        M::Swapgs => {
            cpu.require_kernel()?;
            let base = cpu.segment[5].base;
            cpu.set_segment_base(5, cpu.msrs.kernel_gs_base);
            cpu.msrs.kernel_gs_base = base;
            Ok(Flow::Next)
        }
        M::Cpuid => {
            let answer = crate::cpuid::answer(cpu, cpu.gpr[0] as u32, cpu.gpr[1] as u32);
            for (register, value) in [0, 3, 1, 2].into_iter().zip(answer) {
                cpu.gpr[register] = value.into();
            }
            Ok(Flow::End)
        }
        M::Rdtsc | M::Rdtscp | M::Rdpid | M::Rdpmc | M::Rdrand | M::Rdseed => counters(cpu, ins),
        M::Rdmsr | M::Wrmsr => crate::msr::execute(cpu, ins),
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => crate::port::execute(cpu, ins),
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => {
            cpu.require_umip()?;
            if matches!(ins.mnemonic(), M::Sldt | M::Str) {
                cpu.require_protected()?;
            }
            crate::control::store(cpu, ins)
        }
        M::Lgdt
        | M::Lidt
        | M::Lldt
        | M::Ltr
        | M::Lmsw
        | M::Clts
        | M::Invd
        | M::Wbinvd
        | M::Invlpg
        | M::Invpcid
        | M::Xsetbv => {
            if matches!(ins.mnemonic(), M::Lldt | M::Ltr) {
                cpu.require_protected()?;
            }
            cpu.require_kernel()?;
            crate::control::load(cpu, ins)
        }
        M::Verr | M::Verw | M::Lar | M::Lsl | M::Arpl => {
            cpu.require_protected()?;
            crate::legacy::inspect(cpu, ins)
        }
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => load_far_pointer(cpu, ins),
        M::Xgetbv => {
            if cpu.gpr[1] as u32 != 0 {
                return Err(Exception::general_protection(0));
            }
            let value = cpu.xcr0;
            cpu.gpr[0] = value & 0xffff_ffff;
            cpu.gpr[2] = value >> 32;
            Ok(Flow::Next)
        }
        M::Xsave
        | M::Xsave64
        | M::Xrstor
        | M::Xrstor64
        | M::Fxsave
        | M::Fxsave64
        | M::Fxrstor
        | M::Fxrstor64
        | M::Fnstenv
        | M::Fnsave => crate::fpu::execute(cpu, ins),
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase => segment_bases(cpu, ins),
        M::Aaa | M::Aas | M::Aad | M::Aam | M::Daa | M::Das | M::Salc | M::Xlatb => crate::legacy::execute(cpu, ins),
        mnemonic if crate::gather::handles(mnemonic) => crate::gather::execute(cpu, ins),
        _ => Err(Exception::INVALID_OPCODE),
    }
}

/// Moves to and from segment, control and debug registers.
fn moves(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let (to, from) = (ins.op0_register(), ins.op1_register());
    if ins.mnemonic() == Mnemonic::Pop {
        return pop_segment(cpu, ins);
    }
    if to.is_segment_register() {
        let number = usize::from(crate::emit::probe::segment_number(to));
        if number == 1 {
            return Err(Exception::INVALID_OPCODE);
        }
        let value = cpu.read_operand(ins, 1, 2)? as u16;
        cpu.load_data_segment(number, value)?;
        cpu.context().shadow = number == 2;
        cpu.context().no_step = number == 2;
        return Ok(Flow::Next);
    }
    if from.is_segment_register() {
        let value = cpu.read_register(from);
        let bytes = if ins.op0_kind() == OpKind::Memory { 2 } else { ins.op0_register().size() };
        cpu.write_operand(ins, 0, bytes, value)?;
        return Ok(Flow::Next);
    }
    crate::control::move_register(cpu, ins)
}

fn pop_segment(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let number = usize::from(crate::emit::probe::segment_number(ins.op0_register()));
    let bytes = ins.stack_pointer_increment().unsigned_abs() as u64;
    let value = cpu.peek_stack(0, 2)? as u16;
    cpu.load_data_segment(number, value)?;
    cpu.set_stack_pointer(cpu.gpr[4].wrapping_add(bytes));
    cpu.context().shadow = number == 2;
    cpu.context().no_step = number == 2;
    Ok(Flow::Next)
}

impl Cpu {
    /// Reads `bytes` at `offset` above the stack pointer.
    pub fn peek_stack(&mut self, offset: u64, bytes: usize) -> Result<u64, Exception> {
        let pointer = self.gpr[4].wrapping_add(offset);
        let pointer = match self.stack_bits() {
            64 => pointer,
            32 => pointer & 0xffff_ffff,
            _ => pointer & 0xffff,
        };
        let linear = self.in_segment(2, pointer, bytes as u64, false)?;
        self.read_number(linear, bytes, crate::access::Privilege::Current)
    }

    /// Pushes `bytes` on the current stack.
    pub fn push_stack(&mut self, bytes: usize, value: u64) -> Result<(), Exception> {
        let pointer = self.gpr[4].wrapping_sub(bytes as u64);
        let masked = match self.stack_bits() {
            64 => pointer,
            32 => pointer & 0xffff_ffff,
            _ => pointer & 0xffff,
        };
        let linear = self.in_segment(2, masked, bytes as u64, true)?;
        self.write_number(linear, bytes, value, crate::access::Privilege::Current)?;
        self.set_stack_pointer(pointer);
        Ok(())
    }

    /// Sets a segment's base alone (MSRs, WRFSBASE, SWAPGS).
    pub fn set_segment_base(&mut self, number: usize, base: u64) {
        self.segment[number].base = base;
        self.segment[number].segment.base = base;
    }
}

fn flags(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Cli | M::Sti => {
            if cpu.interrupt_flag_in_reach()? == InterruptFlag::Virtual {
                cpu.set_virtual_flag(ins.mnemonic() == M::Sti)?;
                return Ok(Flow::Next);
            }
            let before = cpu.interrupt_flag;
            cpu.interrupt_flag = u32::from(ins.mnemonic() == M::Sti);
            // Emitted code has set the flag already when it calls here because something waits for it.
            let waits = cpu.latched != 0;
            if ins.mnemonic() == M::Sti && (before == 0 || waits) {
                cpu.context().shadow = true;
            }
            Ok(Flow::Next)
        }
        M::Cld | M::Std => {
            cpu.system_flags &= !rflags::DF;
            if ins.mnemonic() == M::Std {
                cpu.system_flags |= rflags::DF;
            }
            cpu.sync_mode();
            Ok(Flow::Next)
        }
        M::Stac | M::Clac => {
            if cpu.cpl() != 0 {
                return Err(Exception::INVALID_OPCODE);
            }
            cpu.system_flags &= !rflags::AC;
            if ins.mnemonic() == M::Stac {
                cpu.system_flags |= rflags::AC;
            }
            cpu.sync_mode();
            Ok(Flow::Next)
        }
        _ => {
            let bytes = ins.stack_pointer_increment().unsigned_abs() as usize;
            let virtualized = cpu.virtualizes_flags(bytes)?;
            if matches!(ins.mnemonic(), M::Pushf | M::Pushfd | M::Pushfq) {
                let value = if virtualized { cpu.virtualized_flags() } else { cpu.rflags() };
                cpu.push_stack(bytes, value & !(rflags::RF | rflags::VM))?;
                return Ok(Flow::Next);
            }
            let value = cpu.peek_stack(0, bytes)?;
            if virtualized {
                cpu.set_virtualized_flags(value)?;
            } else {
                cpu.set_flags_checked(value & !rflags::RF, bytes, cpu.cpl());
            }
            cpu.set_stack_pointer(cpu.gpr[4].wrapping_add(bytes as u64));
            cpu.system_flags &= !rflags::RF;
            cpu.sync_mode();
            let waits = cpu.latched != 0 && cpu.interrupt_flag != 0;
            let steps = cpu.system_flags & rflags::TF != 0;
            Ok(if waits || steps { Flow::End } else { Flow::Next })
        }
    }
}

/// ENTER (SDM 2, ENTER).
fn enter(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let bytes = match ins.code() {
        iced_x86::Code::Enterw_imm16_imm8 => 2,
        iced_x86::Code::Enterd_imm16_imm8 => 4,
        _ => 8usize,
    };
    let size = u64::from(ins.immediate16());
    let level = ins.immediate8_2nd() & 31;
    let saved = cpu.gpr[4];
    let frame = cpu.gpr[5];
    let result = (|| {
        cpu.push_stack(bytes, frame)?;
        let top = cpu.gpr[4];
        if level > 0 {
            let mut link = frame;
            for _ in 1..level {
                link = link.wrapping_sub(bytes as u64);
                let masked = match cpu.stack_bits() {
                    64 => link,
                    32 => link & 0xffff_ffff,
                    _ => link & 0xffff,
                };
                let linear = cpu.in_segment(2, masked, bytes as u64, false)?;
                let value = cpu.read_number(linear, bytes, crate::access::Privilege::Current)?;
                cpu.push_stack(bytes, value)?;
            }
            cpu.push_stack(bytes, top)?;
        }
        let end = cpu.gpr[4].wrapping_sub(size);
        let masked = if cpu.stack_bits() == 16 { end & 0xffff } else { end };
        let linear = cpu.in_segment(2, masked, 1, true)?;
        cpu.check_write(linear, 1, crate::access::Privilege::Current)?;
        cpu.set_stack_pointer(end);
        Ok(top)
    })();
    match result {
        Ok(top) => {
            let slot = &mut cpu.gpr[5];
            *slot = match bytes {
                2 => *slot & !0xffff | top & 0xffff,
                4 => top & 0xffff_ffff,
                _ => top,
            };
            Ok(Flow::Next)
        }
        Err(exception) => {
            cpu.gpr[4] = saved;
            Err(exception)
        }
    }
}

/// Time-stamp counter, processor number, random numbers.
fn counters(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Rdtsc | M::Rdtscp => {
            if cpu.cr4 & cr4::TSD != 0 && cpu.cpl() != 0 {
                return Err(Exception::general_protection(0));
            }
            let tsc = cpu.host_tsc().wrapping_add(cpu.tsc_offset);
            cpu.gpr[0] = tsc & 0xffff_ffff;
            cpu.gpr[2] = tsc >> 32;
            if ins.mnemonic() == M::Rdtscp {
                cpu.gpr[1] = cpu.msrs.tsc_aux & 0xffff_ffff;
            }
        }
        M::Rdpid => {
            let value = cpu.msrs.tsc_aux;
            cpu.write_register(ins.op0_register(), value);
        }
        M::Rdpmc => {
            if cpu.cr4 & cr4::PCE == 0 && cpu.cpl() != 0 && cpu.cr0 & cr0::PE != 0 {
                return Err(Exception::general_protection(0));
            }
            // AMD's four legacy counters, which count nothing here.
            if cpu.gpr[1] as u32 >= 4 {
                return Err(Exception::general_protection(0));
            }
            (cpu.gpr[0], cpu.gpr[2]) = (0, 0);
        }
        _ => {
            let value = cpu.context().io().random();
            cpu.write_register(ins.op0_register(), value);
            cpu.flags = cpu.flags & !rflags::ARITHMETIC | rflags::CF;
        }
    }
    Ok(Flow::Next)
}

/// LDS and its kin.
fn load_far_pointer(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    if ins.op1_kind() != OpKind::Memory {
        return Err(Exception::INVALID_OPCODE);
    }
    let number = match ins.mnemonic() {
        M::Les => 0,
        M::Lss => 2,
        M::Lds => 3,
        M::Lfs => 4,
        _ => 5,
    };
    let bytes = ins.op0_register().size();
    let linear = cpu.operand_address(ins, bytes as u64 + 2, false)?;
    let offset = cpu.read_number(linear, bytes, crate::access::Privilege::Current)?;
    let selector = cpu.read_number(linear.wrapping_add(bytes as u64), 2, crate::access::Privilege::Current)?;
    cpu.load_data_segment(number, selector as u16)?;
    cpu.write_register(ins.op0_register(), offset);
    cpu.context().shadow = number == 2;
    cpu.context().no_step = number == 2;
    Ok(Flow::Next)
}

fn segment_bases(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    if cpu.cr4 & cr4::FSGSBASE == 0 || !cpu.is_64() {
        return Err(Exception::INVALID_OPCODE);
    }
    let number = if matches!(ins.mnemonic(), M::Rdfsbase | M::Wrfsbase) { 4 } else { 5 };
    if matches!(ins.mnemonic(), M::Rdfsbase | M::Rdgsbase) {
        let value = cpu.segment[number].base;
        cpu.write_register(ins.op0_register(), value);
    } else {
        let value = cpu.read_register(ins.op0_register());
        if ins.op0_register().size() == 8 && !lodge_x86::paging::is_canonical(value) {
            return Err(Exception::general_protection(0));
        }
        cpu.set_segment_base(number, value);
    }
    Ok(Flow::Next)
}
