//! Single steps, breakpoints in debug registers, and DR6 and DR7 themselves.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr4, rflags};

use crate::case::{Case, End, Ending, Mode, Place};
use crate::layout::{CODE, DATA};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = steps();
    all.extend(breakpoints());
    all
}

fn debug(at: usize) -> Ending {
    Ending::Vector { vector: 1, error: None, rip: Place::Instruction(at) }
}

fn dr6(want: u64) -> impl Fn(&End<'_>) -> Result<(), String> {
    // BS, BD and B0 to B3.
    const MASK: u64 = 0x600f;
    move |end| {
        let got = end.state.dr[6] & MASK;
        if got == want { Ok(()) } else { Err(format!("DR6 is {got:#x} rather than {want:#x}")) }
    }
}

const BS: u64 = 1 << 14;

fn steps() -> Vec<Case> {
    let mut all = vec![
        Case::long("debug/step_after_popf", |a| emit!(a; push(0x102); popfq(); inc(ebx); inc(ebx)))
            .with(Rbx, 0)
            .gives(Rbx, 1)
            .flags(rflags::TF, rflags::TF)
            .check(dr6(BS))
            .ends(debug(3)),
        Case::long("debug/steps_go_by_one", |a| {
            // The handler counts; five instructions are stepped, and the POPF that ends it is one of them.
            let mut begin = a.create_label();
            emit!(a; jmp(begin); inc(ebx); iretq(); set_label(&mut begin); push(0x102); popfq(); nop(); nop(); nop();
                push(2); popfq(); nop())
        })
        .handler(1, 1)
        .with(Rbx, 0)
        .gives(Rbx, 5),
        Case::long("debug/handler_runs_without_tf", |a| emit!(a; push(0x102); popfq(); nop()))
            .check(|end| if end.state.rflags & rflags::TF == 0 { Ok(()) } else { Err("TF is set".into()) })
            .ends(debug(3)),
        Case::long(
            "debug/mov_ss_delays_the_step",
            |a| emit!(a; mov(ecx, ss); push(0x102); popfq(); mov(ss, ecx); inc(ebx); inc(ebx)),
        )
        .with(Rbx, 0)
        .any(Rcx)
        .gives(Rbx, 1)
        .ends(debug(5)),
        Case::long("debug/step_over_a_branch", |a| {
            let mut over = a.create_label();
            emit!(a; push(0x102); popfq(); jmp(over); ud2(); set_label(&mut over); nop())
        })
        .check(dr6(BS))
        .ends(debug(4)),
        Case::long("debug/step_through_a_string_instruction", |a| emit!(a; push(0x102); popfq(); rep().stosb()))
            .with(Rdi, DATA)
            .with(Rcx, 3)
            .with(Rax, 0x77)
            // After each iteration.
            .gives(Rcx, 2)
            .gives(Rdi, DATA + 1)
            .leaves(DATA, &[0x77, 0])
            .check(dr6(BS))
            .ends(debug(2)),
        Case::long("debug/fault_takes_precedence_over_the_step", |a| emit!(a; push(0x102); popfq(); ud2()))
            .raises(6, None, 2)
            .flags(rflags::TF | rflags::RF, rflags::TF | rflags::RF),
        Case::long("debug/icebp", |a| emit!(a; nop(); db(&[0xf1]); nop())).check(dr6(0)).ends(debug(2)),
        Case::new(Mode::Real16, "debug/step_in_real_mode", |a| emit!(a; push(0x102); popf(); inc(bx); inc(bx)))
            .with(Rbx, 0)
            .gives(Rbx, 1)
            .check(dr6(BS))
            .ends(debug(3)),
    ];
    all.push(
        Case::long("debug/syscall_under_tf", |a| emit!(a; push(0x102); popfq(); syscall()))
            .user()
            .tweak(|state| {
                state.msrs.star = 0x0023_0008 << 32;
                state.msrs.lstar = CODE + 0x100;
                state.msrs.fmask = rflags::TF;
            })
            .chunk(CODE + 0x100, CODE + 0x100, 64, |a| emit!(a; nop()))
            .any(Rcx)
            .any(R11)
            // The mask takes TF away before the step: none is taken.
            .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Any }),
    );
    all
}

fn breakpoints() -> Vec<Case> {
    vec![
        Case::long("debug/instruction_breakpoint", |a| emit!(a; inc(ebx); nop(); inc(ebx); nop()))
            .with(Rbx, 0)
            .tweak(|state| {
                state.dr[0] = CODE + 3;
                state.dr[7] |= 2;
            })
            .gives(Rbx, 1)
            .check(dr6(1))
            .ends(debug(2)),
        Case::long("debug/resume_flag_passes_one", |a| {
            // The handler sets RF in its frame and goes back: the breakpoint's instruction runs this time.
            let mut begin = a.create_label();
            emit!(a; jmp(begin); inc(ecx); bts(qword_ptr(rsp + 16), 16u32); iretq(); set_label(&mut begin);
                nop(); inc(ebx))
        })
        .handler(1, 1)
        .tweak(|state| {
            state.dr[7] |= 2;
            // JMP 2, INC 2, BTS 7, IRETQ 2.
            state.dr[0] = CODE + 13;
        })
        .with(Rbx, 0)
        .with(Rcx, 0)
        .gives(Rbx, 1)
        .gives(Rcx, 1),
        Case::long(
            "debug/write_breakpoint_is_a_trap",
            |a| emit!(a; mov(eax, dword_ptr(DATA)); mov(byte_ptr(DATA + 2), 5); inc(ebx)),
        )
        .with(Rbx, 0)
        .tweak(|state| {
            state.dr[1] = DATA;
            // Writes, four bytes.
            state.dr[7] |= 8 | 0xd << 20;
        })
        .gives(Rax, 0)
        .leaves(DATA + 2, &[5])
        .check(dr6(2))
        .ends(debug(2)),
        Case::long("debug/access_breakpoint_sees_reads", |a| emit!(a; nop(); mov(eax, dword_ptr(DATA + 2)); inc(ebx)))
            .with(Rbx, 0)
            .tweak(|state| {
                state.dr[2] = DATA + 4;
                state.dr[7] |= 0x20 | 0xf << 24;
            })
            .gives(Rax, 0)
            .check(dr6(4))
            .ends(debug(2)),
        Case::long("debug/general_detect", |a| emit!(a; nop(); mov(rax, dr0)))
            .tweak(|state| state.dr[7] |= 1 << 13)
            .check(dr6(1 << 13))
            .ends(debug(1)),
        Case::long("debug/dr4_under_de", |a| emit!(a; nop(); db(&[0x0f, 0x21, 0xe0]))).raises(6, None, 1),
        Case::long("debug/dr4_without_de", |a| emit!(a; db(&[0x0f, 0x21, 0xe0]); and(eax, 0xff0)))
            .tweak(|state| state.cr4 &= !cr4::DE)
            .gives(Rax, 0xff0),
        Case::long("debug/dr7_upper_half", |a| emit!(a; mov(rax, 1u64 << 32); mov(dr7, rax)))
            .gives(Rax, 1 << 32)
            .raises(13, Some(0), 1),
        Case::long("debug/registers_hold", |a| emit!(a; mov(rax, DATA); mov(dr3, rax); mov(rbx, dr3); mov(rcx, dr7)))
            .gives(Rax, DATA)
            .gives(Rbx, DATA)
            .gives(Rcx, 0x400),
    ]
}
