//! Exceptions: every vector that an instruction can raise, its error code and the saved instruction pointer.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr0, cr4, rflags};

use crate::case::{Case, Ending, Mode, Place};
use crate::layout::{self, DATA, selector};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in [Mode::Real16, Mode::V86, Mode::Protected16, Mode::Protected32, Mode::Compat32, Mode::Long64] {
        all.extend(everywhere(mode));
    }
    all.extend(legacy_only());
    all.extend(nowhere());
    all.extend(privileged());
    all.extend(double());
    all.extend(found());
    all
}

fn trap(vector: u8, next: usize) -> Ending {
    Ending::Vector { vector, error: None, rip: Place::Instruction(next) }
}

fn everywhere(mode: Mode) -> Vec<Case> {
    let case = |name: &str, f: fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>| {
        Case::new(mode, format!("exceptions/{name}_{mode:?}"), f).with(Rax, 5).with(Rdx, 0).with(Rcx, 0)
    };
    vec![
        case("divide_by_zero", |a| emit!(a; nop(); div(cl); nop())).raises(0, None, 1),
        case("divide_overflow", |a| emit!(a; nop(); mov(ax, 0x8000); cwd(); mov(cx, -1); idiv(cx); nop()))
            .with(Rax, 0)
            .gives(Rax, 0x8000)
            .gives(Rdx, 0xffff)
            .gives(Rcx, 0xffff)
            .raises(0, None, 4),
        case("undefined", |a| emit!(a; inc(ax); ud2())).gives(Rax, 6).raises(6, None, 1),
        case("breakpoint", |a| emit!(a; nop(); int3(); nop())).ends(trap(3, 2)),
        case("lock_without_memory", |a| emit!(a; nop(); db(&[0xf0, 0x01, 0xc8]); nop())).raises(6, None, 1),
        case("lock_of_what_cannot", |a| emit!(a; nop(); db(&[0xf0, 0x90]); nop())).raises(6, None, 1),
        // There is no system-management mode to return from (SDM 2, RSM).
        case("rsm", |a| emit!(a; nop(); db(&[0x0f, 0xaa]); nop())).raises(6, None, 1),
        // APM 3, PREFETCH: the operand is a register. A register of PREFETCHh does nothing.
        case("prefetch_of_a_register", |a| emit!(a; db(&[0x0f, 0x18, 0xc8]); nop(); db(&[0x0f, 0x0d, 0xc0]); nop()))
            .ends(Ending::Vector { vector: 6, error: None, rip: Place::Offset(layout::CODE - mode.code_base() + 4) }),
        case("prefetchw_of_a_register", |a| emit!(a; nop(); db(&[0x0f, 0x0d, 0xc8]); nop())).raises(6, None, 1),
        case("device_not_available", |a| emit!(a; nop(); fninit(); nop()))
            .tweak(|state| state.cr0 |= cr0::TS)
            .raises(7, None, 1),
        case("emulated_x87", |a| emit!(a; nop(); fld1(); nop())).tweak(|state| state.cr0 |= cr0::EM).raises(7, None, 1),
        case("wait_with_task_switched", |a| emit!(a; nop(); wait(); nop()))
            .tweak(|state| state.cr0 |= cr0::TS | cr0::MP)
            .raises(7, None, 1),
        case("sse_with_task_switched", |a| emit!(a; nop(); addps(xmm0, xmm1)))
            .tweak(|state| state.cr0 |= cr0::TS)
            .raises(7, None, 1),
        case("sse_not_enabled", |a| emit!(a; nop(); addps(xmm0, xmm1)))
            .tweak(|state| state.cr4 &= !cr4::OSFXSR)
            .raises(6, None, 1),
    ]
}

fn legacy_only() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in [Mode::Real16, Mode::V86, Mode::Protected16, Mode::Protected32, Mode::Compat32] {
        let case = |name: &str, f: fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>| {
            Case::new(mode, format!("exceptions/{name}_{mode:?}"), f).with(Rax, 0).with(Rbx, mode.data())
        };
        all.push(
            case("into", |a| emit!(a; mov(al, 1); into(); mov(al, 0x7f); inc(al); into(); nop()))
                .gives(Rax, 0x80)
                .ends(trap(4, 5)),
        );
        // ModRM 07 is [BX] with 16-bit addresses and [EDI] with 32-bit ones.
        let bounds = if mode.bits() == 16 { [3, 0, 4, 0, 0, 0, 0, 0] } else { [3, 0, 0, 0, 4, 0, 0, 0] };
        all.push(
            case("bound", |a| emit!(a; nop(); db(&[0x62, 0x07]); inc(ax); db(&[0x62, 0x07]); nop()))
                .with(Rax, 4)
                .with(Rdi, mode.data())
                .poke(DATA, &bounds)
                .gives(Rax, 5)
                .raises(5, None, 3),
        );
    }
    for code in [0x06u8, 0x0e, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62, 0x9a, 0xc4, 0xc5, 0xce, 0xd4, 0xd6, 0xea] {
        // C4 and C5 with a memory operand are VEX prefixes there, of an opcode that does not exist.
        all.push(
            Case::long(
                &format!("exceptions/no_{code:02x}_in_64_bit_mode"),
                move |a| emit!(a; nop(); db(&[code, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
            )
            .raises(6, None, 1),
        );
    }
    all
}

/// Code where nobody answers: an empty bus reads as ones, which is no instruction.
fn nowhere() -> Vec<Case> {
    let end = |at| Ending::Vector { vector: 6, error: None, rip: Place::Offset(at) };
    vec![
        Case::long("exceptions/jump_to_where_nothing_is", |a| emit!(a; jmp(rax)))
            .with(Rax, layout::MMIO)
            .ends(end(layout::MMIO)),
        Case::flat("exceptions/jump_to_where_nothing_is_without_paging", |a| emit!(a; jmp(eax)))
            .with(Rax, layout::MMIO + 0xfff)
            .ends(end(layout::MMIO + 0xfff)),
    ]
}

fn privileged() -> Vec<Case> {
    let mut all = Vec::new();
    type F = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let list: [(&str, F); 16] = [
        ("hlt", |a| emit!(a; nop(); hlt())),
        ("cli", |a| emit!(a; nop(); cli())),
        ("sti", |a| emit!(a; nop(); sti())),
        ("in", |a| emit!(a; nop(); in_(al, 0xe4))),
        ("out", |a| emit!(a; nop(); out(dx, eax))),
        ("insb", |a| emit!(a; nop(); insb())),
        ("lgdt", |a| emit!(a; nop(); lgdt(ptr(DATA as u32)))),
        ("ltr", |a| emit!(a; nop(); ltr(ax))),
        ("clts", |a| emit!(a; nop(); clts())),
        ("wrmsr", |a| emit!(a; nop(); wrmsr())),
        ("rdmsr", |a| emit!(a; nop(); rdmsr())),
        ("wbinvd", |a| emit!(a; nop(); wbinvd())),
        ("invlpg", |a| emit!(a; nop(); invlpg(ptr(DATA as u32)))),
        ("lmsw", |a| emit!(a; nop(); lmsw(ax))),
        ("mov_from_cr", |a| emit!(a; nop(); db(&[0x0f, 0x20, 0xc0]))),
        ("mov_to_dr", |a| emit!(a; nop(); db(&[0x0f, 0x23, 0xc0]))),
    ];
    for (name, f) in list {
        for mode in [Mode::Protected32, Mode::Long64] {
            all.push(Case::new(mode, format!("exceptions/user_{name}_{mode:?}"), f).user().raises(13, Some(0), 1));
        }
    }
    all.push(Case::long("exceptions/user_int_without_right", |a| emit!(a; nop(); int(0x21))).user().raises(
        13,
        Some(0x21 * 8 + 2),
        1,
    ));
    all.push(
        Case::long("exceptions/user_int_with_right", |a| emit!(a; nop(); int(0x80); nop())).user().ends(trap(0x80, 2)),
    );
    all.push(
        Case::flat("exceptions/vector_beyond_the_idt", |a| emit!(a; nop(); int(0x90)))
            .tweak(|s| s.idtr.limit = 0x90 * 8 + 6)
            .raises(13, Some(0x90 * 8 + 2), 1),
    );
    all.push(
        Case::long("exceptions/gate_not_present", |a| emit!(a; nop(); int(0x90)))
            .gate(0x90, None, |g| g.present = false)
            .raises(11, Some(0x90 * 8 + 2), 1),
    );
    all.push(
        Case::long("exceptions/non_canonical", |a| emit!(a; nop(); mov(rax, qword_ptr(rbx))))
            .with(Rbx, 0x8000_0000_0000)
            .raises(13, Some(0), 1),
    );
    all.push(
        Case::long("exceptions/non_canonical_stack", |a| emit!(a; nop(); push(rax)))
            .with(Rsp, 0x8000_0000_0010)
            .gate(12, None, |gate| gate.ist = 1)
            .raises(12, Some(0), 1),
    );
    all.push(
        Case::long("exceptions/non_canonical_jump", |a| emit!(a; nop(); jmp(rbx))).with(Rbx, 0x8000_0000_0000).raises(
            13,
            Some(0),
            1,
        ),
    );
    all.push(
        Case::long(
            "exceptions/alignment_check",
            |a| emit!(a; nop(); mov(eax, dword_ptr(DATA + 4)); mov(eax, dword_ptr(DATA + 1))),
        )
        .user()
        .tweak(|state| {
            state.cr0 |= cr0::AM;
            state.rflags |= rflags::AC;
        })
        .gives(Rax, 0)
        .raises(17, Some(0), 2),
    );
    all.push(
        Case::long("exceptions/movaps_unaligned", |a| emit!(a; nop(); movaps(xmm0, xmmword_ptr(DATA + 8)))).raises(
            13,
            Some(0),
            1,
        ),
    );
    all.push(
        Case::long("exceptions/simd", |a| emit!(a; ldmxcsr(dword_ptr(DATA)); xorps(xmm0, xmm0); divss(xmm0, xmm0)))
            .poke(DATA, &0x1f00u32.to_le_bytes())
            .raises(19, None, 2),
    );
    all.push(
        Case::long(
            "exceptions/simd_without_osxmmexcpt",
            |a| emit!(a; ldmxcsr(dword_ptr(DATA)); xorps(xmm0, xmm0); divss(xmm0, xmm0)),
        )
        .poke(DATA, &0x1f00u32.to_le_bytes())
        .tweak(|state| state.cr4 &= !cr4::OSXMMEXCPT)
        .raises(6, None, 2),
    );
    all.push(
        Case::long(
            "exceptions/x87_error_waits_for_the_next",
            |a| emit!(a; fldcw(word_ptr(DATA)); fldz(); fldz(); fdivp(st1, st0); mov(eax, 1); fld1()),
        )
        .poke(DATA, &0x37eu16.to_le_bytes())
        .gives(Rax, 1)
        .raises(16, None, 5),
    );
    all
}

/// Found by running random instructions natively and under an engine.
fn found() -> Vec<Case> {
    vec![
        Case::long(
            "exceptions/segment_overrides_mean_nothing_in_64_bit_mode",
            |a| emit!(a; nop(); mov(rax, qword_ptr(rbx).ss())),
        )
        .with(Rbx, 0x8000_0000_0000)
        .raises(13, Some(0), 1),
        Case::long(
            "exceptions/stack_fault_by_base_whatever_the_override",
            |a| emit!(a; nop(); mov(rax, qword_ptr(rbp).cs())),
        )
        .with(Rbp, 0x8000_0000_0000)
        .raises(12, Some(0), 1),
        Case::long(
            "exceptions/x87_error_beside_flags_in_mxcsr",
            |a| emit!(a; ldmxcsr(dword_ptr(DATA)); fldcw(word_ptr(DATA + 4)); fldz(); fldz(); fdivp(st1, st0); fld1()),
        )
        .poke(DATA, &0x1f3fu32.to_le_bytes())
        .poke(DATA + 4, &0x37eu16.to_le_bytes())
        .raises(16, None, 5),
    ]
}

fn double() -> Vec<Case> {
    vec![
        Case::long("exceptions/double_fault_by_missing_gate", |a| emit!(a; nop(); ud2()))
            .gate(6, None, |gate| gate.present = false)
            .gate(11, None, |gate| gate.present = false)
            // #UD is benign: #NP is delivered for it, and #NP while delivering #NP is a double fault.
            .raises(8, Some(0), 1),
        Case::long("exceptions/benign_then_contributory", |a| emit!(a; nop(); ud2()))
            .gate(6, None, |gate| gate.present = false)
            // EXT: it happened while another exception was delivered (SDM 3A 6.13).
            .raises(11, Some(6 * 8 + 3), 1),
        Case::long(
            "exceptions/page_fault_on_the_handlers_stack",
            |a| emit!(a; nop(); mov(eax, dword_ptr(layout::PLAY))),
        )
        .with(Rsp, layout::PLAY + 0x800)
        .raises(8, Some(0), 1),
        Case::long("exceptions/triple_fault", |a| emit!(a; nop(); ud2()))
            .tweak(|state| state.idtr.limit = 0)
            .ends(Ending::TripleFault),
        Case::flat("exceptions/triple_fault_32", |a| emit!(a; nop(); mov(eax, dword_ptr(layout::PLAY as u32))))
            .paged(crate::case::Paging::Bits32)
            .with(Rsp, layout::PLAY + 0x800)
            .gate(8, None, |gate| gate.present = false)
            .ends(Ending::TripleFault),
        Case::flat("exceptions/stack_switch_to_bad_segment", |a| emit!(a; nop(); ud2()))
            .user()
            .poke(layout::TSS + 8, &selector::USER_DATA.to_le_bytes())
            .gate(10, None, |gate| gate.present = false)
            .ends(Ending::TripleFault),
    ]
}
