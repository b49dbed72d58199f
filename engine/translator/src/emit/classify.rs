//! What kind of instruction it is: the flags that it reads and writes, and who carries it out.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};

use super::operands::is_masked;

/// The flags that arithmetic writes, as `iced-x86` names them.
pub(super) const ARITHMETIC: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Whether the instruction branches to offset `start` in its page.
pub(super) fn loops_to(ins: &Instruction, start: u64) -> bool {
    let near = matches!(ins.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    near && !ins.is_call_near() && ins.near_branch_target() == start
}

/// For each instruction, the flags that are live before it.
pub(super) fn liveness(instructions: &[Instruction]) -> Vec<u32> {
    let mut live = vec![0; instructions.len()];
    let mut after = ARITHMETIC;
    for (ins, slot) in instructions.iter().zip(&mut live).rev() {
        if ins.is_jcc_short_or_near() {
            // Where it leads they may all be read.
            after = ARITHMETIC;
        }
        let killed = if may_leave_flags(ins) { 0 } else { ins.rflags_modified() & ARITHMETIC };
        let observed = is_system(ins) || ins.flow_control() != FlowControl::Next;
        let read = if observed && !is_plain_branch(ins) { ARITHMETIC } else { ins.rflags_read() & ARITHMETIC };
        after = after & !killed | read;
        *slot = after;
    }
    live
}

/// For each instruction, whether flags pass untouched from before it to the end of the block.
pub(super) fn flags_pass(instructions: &[Instruction]) -> Vec<bool> {
    let mut passes = vec![false; instructions.len()];
    let mut open = true;
    for (ins, slot) in instructions.iter().zip(&mut passes).rev() {
        let touches = (ins.rflags_read() | ins.rflags_modified()) & ARITHMETIC != 0;
        let branches = ins.is_jcc_short_or_near() || ins.is_jcx_short() || ins.is_loop() || ins.is_loopcc();
        open &= !touches && !branches && !is_system(ins) && !is_string(ins);
        *slot = open;
    }
    passes
}

/// Branches that stay within the program: they show their flags to nobody but their condition.
pub(super) fn is_plain_branch(ins: &Instruction) -> bool {
    ins.is_jcc_short_or_near() || ins.is_jmp_short_or_near()
}

/// Whether flags that the instruction is said to write may stay as they are: counts of zero.
pub(super) fn may_leave_flags(ins: &Instruction) -> bool {
    is_shift(ins) || ins.has_rep_prefix() || ins.has_repne_prefix()
}

/// Shifts and rotates, whose count may be in CL.
pub(super) fn is_shift(ins: &Instruction) -> bool {
    matches!(
        ins.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shld
            | Mnemonic::Shrd
    )
}

/// The form that is emitted in an instruction's place: INC and DEC of one byte have another meaning in 64-bit mode, and
/// MOVSXD without REX.W extends nothing, but reads four bytes on some processors even for two (SDM 2, MOVSXD).
pub(super) fn other_form(ins: &Instruction) -> Instruction {
    let mut ins = *ins;
    let code = match ins.code() {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Movsxd_r16_rm16 => Code::Mov_r16_rm16,
        Code::Movsxd_r32_rm32 => Code::Mov_r32_rm32,
        other => other,
    };
    ins.set_code(code);
    ins
}

/// Whether LOCK is allowed: the instruction writes its memory operand and is of those that the architecture lists.
pub(super) fn lockable(ins: &Instruction) -> bool {
    ins.op0_kind() == OpKind::Memory
        && matches!(
            ins.mnemonic(),
            Mnemonic::Add
                | Mnemonic::Adc
                | Mnemonic::And
                | Mnemonic::Btc
                | Mnemonic::Btr
                | Mnemonic::Bts
                | Mnemonic::Cmpxchg
                | Mnemonic::Cmpxchg8b
                | Mnemonic::Cmpxchg16b
                | Mnemonic::Dec
                | Mnemonic::Inc
                | Mnemonic::Neg
                | Mnemonic::Not
                | Mnemonic::Or
                | Mnemonic::Sbb
                | Mnemonic::Sub
                | Mnemonic::Xor
                | Mnemonic::Xadd
                | Mnemonic::Xchg
        )
        || (ins.mnemonic() == Mnemonic::Xchg && ins.op1_kind() == OpKind::Memory)
}

/// String instructions, and XLAT.
pub fn is_string(ins: &Instruction) -> bool {
    matches!(
        ins.mnemonic(),
        Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
            | Mnemonic::Lodsb
            | Mnemonic::Lodsw
            | Mnemonic::Lodsd
            | Mnemonic::Lodsq
            | Mnemonic::Scasb
            | Mnemonic::Scasw
            | Mnemonic::Scasd
            | Mnemonic::Scasq
            | Mnemonic::Cmpsb
            | Mnemonic::Cmpsw
            | Mnemonic::Cmpsq
    ) || matches!(ins.code(), Code::Movsd_m32_m32 | Code::Cmpsd_m32_m32)
}

/// After these the same bytes may translate differently, or be other bytes: the block must end.
pub(super) fn changes_translation(ins: &Instruction) -> bool {
    match ins.mnemonic() {
        Mnemonic::Mov => ins.op0_register().is_cr() || ins.op0_register().is_dr(),
        Mnemonic::Lmsw
        | Mnemonic::Clts
        | Mnemonic::Invlpg
        | Mnemonic::Wrmsr
        | Mnemonic::Xsetbv
        | Mnemonic::Invpcid
        | Mnemonic::Cpuid => true,
        _ => false,
    }
}

/// Whether the instruction is carried out by [`crate::system`].
pub fn is_system(ins: &Instruction) -> bool {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Mov => {
            let special = |r: Register| r.is_cr() || r.is_dr() || r.is_segment_register();
            special(ins.op0_register()) || special(ins.op1_register())
        }
        M::Push | M::Pop => ins.op0_register().is_segment_register(),
        M::Jmp | M::Call => {
            ins.is_jmp_far() || ins.is_call_far() || ins.is_jmp_far_indirect() || ins.is_call_far_indirect()
        }
        M::Cli
        | M::Sti
        | M::Cld
        | M::Std
        | M::Hlt
        | M::Int
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
        | M::Rsm
        | M::Swapgs
        | M::Popf
        | M::Popfd
        | M::Popfq
        | M::Enter
        | M::Cpuid
        | M::Rdtsc
        | M::Rdtscp
        | M::Rdpmc
        | M::Rdpid
        | M::Rdrand
        | M::Rdseed
        | M::Rdmsr
        | M::Wrmsr
        | M::In
        | M::Out
        | M::Insb
        | M::Insw
        | M::Insd
        | M::Outsb
        | M::Outsw
        | M::Outsd
        | M::Lgdt
        | M::Lidt
        | M::Lldt
        | M::Ltr
        | M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Lmsw
        | M::Smsw
        | M::Clts
        | M::Invd
        | M::Wbinvd
        | M::Invlpg
        | M::Invpcid
        | M::Verr
        | M::Verw
        | M::Lar
        | M::Lsl
        | M::Arpl
        | M::Lds
        | M::Les
        | M::Lfs
        | M::Lgs
        | M::Lss
        | M::Xgetbv
        | M::Xsetbv
        | M::Xsave
        | M::Xsave64
        | M::Xrstor
        | M::Xrstor64
        | M::Fxsave
        | M::Fxsave64
        | M::Fxrstor
        | M::Fxrstor64
        | M::Fnstenv
        | M::Fnsave
        | M::Stac
        | M::Clac
        | M::Rdfsbase
        | M::Rdgsbase
        | M::Wrfsbase
        | M::Wrgsbase
        | M::Aaa
        | M::Aas
        | M::Aad
        | M::Aam
        | M::Daa
        | M::Das
        | M::Salc
        | M::Xlatb => true,
        mnemonic => crate::gather::handles(mnemonic) && !is_masked(ins),
    }
}
