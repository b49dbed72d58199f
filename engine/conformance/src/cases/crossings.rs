//! Crossings between privilege levels again and again: what an engine may do faster from the second time on, and the
//! unusual case that comes after usual ones.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_engine_api::Event;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr4, rflags};
use lodge_x86::segment::attribute;

use crate::case::{Case, End, Ending, Place};
use crate::layout::{CODE, DATA, PLAY, RAM, port, selector};
use crate::tables::{P, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = calls();
    all.extend(unusual_returns());
    all.extend(accesses());
    all.extend(faults());
    all.extend(flags());
    all
}

/// SYSCALL goes to CS 8 and SS 0x10, SYSRETQ to 0x33 and 0x2b.
const STAR: u64 = 0x0023_0008 << 32;
/// Where the kernel's code is.
const ENTRY: u64 = CODE + 0x100;
const IRQ: u8 = 0x40;

/// User code that makes system calls, and what they do.
pub(super) fn with_entry(
    case: Case,
    entry: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    case.user()
        .tweak(|state| {
            state.msrs.star = STAR;
            state.msrs.lstar = ENTRY;
            state.msrs.fmask = rflags::IF | rflags::TF | rflags::DF | rflags::AC | rflags::CF;
        })
        .chunk(ENTRY, ENTRY, 64, entry)
        .any(Rcx)
        .any(R11)
}

/// Four rounds of `body`, counted in RBX.
pub(super) fn four(
    a: &mut CodeAssembler,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut again = a.create_label();
    emit!(a; mov(ebx, 4); set_label(&mut again))?;
    body(a)?;
    emit!(a; dec(ebx); jne(again))
}

fn segments(code: u16, stack: u16) -> impl Fn(&End<'_>) -> Result<(), String> {
    move |end| {
        let got = (end.frame.cs, end.frame.ss);
        if got == (code, stack) { Ok(()) } else { Err(format!("CS and SS are {got:x?}")) }
    }
}

fn calls() -> Vec<Case> {
    vec![
        with_entry(
            Case::long("crossings/system_calls_keep_flags_and_count", |a| {
                four(a, |a| emit!(a; stc(); mov(eax, 0x8000_0000u32); syscall(); adc(esi, 0); add(rdi, r11)))
            }),
            // CF is masked in the kernel; SYSRET brings it back.
            |a| emit!(a; adc(edx, 0); inc(r8d); cmp(r8d, r8d); sysretq()),
        )
        .with(Rsi, 0)
        .with(Rdi, 0)
        .with(Rdx, 0)
        .with(R8, 0)
        .gives(Rsi, 4)
        // R11 at each return: the fixed flag, CF, and for the rounds before DEC's the parity that was.
        .any(Rdi)
        .gives(Rdx, 0)
        .gives(R8, 4)
        .gives(Rax, 0x8000_0000)
        .gives(Rbx, 0)
        .check(segments(selector::USER_CODE64, selector::USER_DATA)),
        with_entry(
            Case::long("crossings/system_call_shows_flags", |a| {
                four(a, |a| emit!(a; mov(al, 0x7f); add(al, 1); syscall(); mov(rdi, r11)))
            }),
            |a| emit!(a; mov(rsi, r11); sysretq()),
        )
        .any(Rax)
        .gives(Rbx, 0)
        // 0x80: OF, SF, AF.
        .gives(Rsi, rflags::OF | rflags::SF | rflags::AF | 2)
        .gives(Rdi, rflags::OF | rflags::SF | rflags::AF | 2),
        with_entry(
            // SS was small and elsewhere before, and is flat afterwards, which shows outside 64-bit mode.
            Case::long("crossings/system_call_makes_segments_flat", |a| four(a, |a| emit!(a; syscall()))),
            |a| {
                let mut first = a.create_label();
                emit!(a; inc(r8d); cmp(r8d, 4); jb(first); push(i32::from(selector::CODE32)); push((CODE + 0x200) as i32);
                    db(&[0x48, 0xcb]); set_label(&mut first); sysretq())
            },
        )
        .tweak(|state| {
            state.segment[2].base = 0x3_0000;
            state.segment[2].limit = 0xffff;
            state.segment[1].limit = 0xfff;
        })
        .with(R8, 0)
        .any(R8)
        .any(Rbx)
        .any(Rsp)
        .chunk(CODE + 0x200, CODE + 0x200, 32, |a| emit!(a; mov(eax, dword_ptr(DATA as u32).ss())))
        .poke(DATA, &[9, 0, 0, 0])
        .gives(Rax, 9)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Any }),
        with_entry(
            Case::long("crossings/swapgs_at_each_call", |a| {
                four(a, |a| emit!(a; mov(rax, qword_ptr(8).gs()); syscall(); add(r9, qword_ptr(8).gs())))
            }),
            |a| emit!(a; swapgs(); add(r8, qword_ptr(8).gs()); swapgs(); sysretq()),
        )
        .tweak(|state| {
            state.segment[5].base = DATA;
            state.msrs.kernel_gs_base = DATA + 0x100;
        })
        .poke(DATA + 8, &[1])
        .poke(DATA + 0x108, &[2])
        .with(R8, 0)
        .with(R9, 0)
        .gives(Rax, 1)
        .gives(Rbx, 0)
        .gives(R8, 8)
        .gives(R9, 4),
    ]
}

/// Three calls that return as usual, and a fourth for which `last` prepares R11 and RCX.
fn fourth(name: &str, last: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static) -> Case {
    let user = |a: &mut CodeAssembler| four(a, |a| emit!(a; syscall(); inc(r9d)));
    with_entry(Case::long(name, user), move |a| {
        let mut usual = a.create_label();
        emit!(a; inc(r8d); cmp(r8d, 4); jb(usual))?;
        last(a)?;
        emit!(a; set_label(&mut usual); sysretq())
    })
    .with(R8, 0)
    .with(R9, 0)
    .any(Rbx)
    .gives(R8, 4)
}

/// In [`fourth`]'s user code, behind SYSCALL: `mov ebx, 4; syscall`.
const BEHIND: u64 = CODE + 5 + 2;

fn unusual_returns() -> Vec<Case> {
    vec![
        fourth("crossings/sysret_lets_a_waiting_interrupt_through", |a| {
            let mut settle = a.create_label();
            emit!(a; xor(eax, eax); out(u32::from(port::EVENT), al); mov(bp, 100); set_label(&mut settle); dec(bp);
                jne(settle); or(r11, 0x200))
        })
        .event(Event::Interrupt(IRQ))
        .any(Rbp)
        .gives(Rax, 0)
        .gives(R9, 3)
        .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Offset(BEHIND) })
        .check(segments(selector::USER_CODE64, selector::USER_DATA)),
        fourth("crossings/sysret_to_single_stepping", |a| emit!(a; or(r11, 0x100))).gives(R9, 4).ends(Ending::Vector {
            vector: 1,
            error: None,
            rip: Place::Offset(BEHIND + 3),
        }),
        fourth(
            "crossings/sysret_to_downward_strings",
            |a| emit!(a; or(r11, 0x400); mov(rsi, DATA); lea(rcx, ptr(CODE + 0x300))),
        )
        .chunk(CODE + 0x300, CODE + 0x300, 64, |a| emit!(a; lodsb()))
        .gives(R9, 3)
        .any(Rax)
        .gives(Rsi, DATA - 1)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x303) }),
        fourth("crossings/sysret_to_an_address_that_is_not_canonical", |a| emit!(a; mov(rcx, 1u64 << 47)))
            .gives(R9, 3)
            .ends(Ending::Vector { vector: 13, error: Some(0), rip: Place::Any }),
        fourth("crossings/sysret_to_a_virtual_interrupt", |a| emit!(a; or(r11, (rflags::VIF | rflags::VIP) as i32)))
            .tweak(|state| state.cr4 |= cr4::PVI)
            .gives(R9, 3)
            .ends(Ending::Vector { vector: 13, error: Some(0), rip: Place::Offset(BEHIND) }),
        fourth("crossings/sysret_to_a_kernel_page", |a| emit!(a; mov(rcx, PLAY)))
            .map(PLAY, RAM, P | RW)
            .gives(R9, 3)
            .page_fault_at(0x15, PLAY, PLAY),
    ]
}

fn accesses() -> Vec<Case> {
    let smap = |case: Case| case.tweak(|state| state.cr4 |= cr4::SMAP).map(PLAY, RAM, P | RW | US).poke(RAM, &[1]);
    vec![
        smap(Case::long("crossings/stac_and_clac_in_a_loop", |a| {
            four(a, |a| emit!(a; stac(); add(rax, qword_ptr(PLAY)); clac()))?;
            emit!(a; mov(rdx, qword_ptr(PLAY)))
        }))
        .with(Rax, 0)
        .gives(Rax, 4)
        .gives(Rbx, 0)
        .page_fault(1, PLAY, 6)
        .flags(rflags::AC, 0),
        smap(Case::long("crossings/access_opened_by_a_callee_that_returns", |a| {
            let (mut open, mut shut, mut begin) = (a.create_label(), a.create_label(), a.create_label());
            emit!(a; jmp(begin); set_label(&mut open); stac(); ret(); set_label(&mut shut); clac(); ret();
                set_label(&mut begin))?;
            four(a, |a| emit!(a; call(open); add(rax, qword_ptr(PLAY)); call(shut); nop()))?;
            emit!(a; mov(rdx, qword_ptr(PLAY)))
        }))
        .with(Rax, 0)
        .gives(Rax, 4)
        .gives(Rbx, 0)
        .page_fault(1, PLAY, 12)
        .flags(rflags::AC, 0),
        smap(Case::long("crossings/flags_pass_through_stac_and_clac", |a| {
            four(a, |a| emit!(a; stc(); stac(); adc(rax, qword_ptr(PLAY)); stc(); clac(); adc(rax, 0)))
        }))
        .with(Rax, 0)
        .gives(Rax, 12)
        .gives(Rbx, 0),
        Case::long("crossings/fs_base_that_is_not_canonical", |a| emit!(a; wrfsbase(rdx); stc(); wrfsbase(rbx)))
            .tweak(|state| state.cr4 |= cr4::FSGSBASE)
            .with(Rbx, 0x8000_0000_0000)
            .with(Rdx, 0xffff_8000_0000_0000)
            .check(|end| {
                let base = end.state.segment[4].base;
                if base == 0xffff_8000_0000_0000 { Ok(()) } else { Err(format!("the base is {base:#x}")) }
            })
            .raises(13, Some(0), 2)
            .flags(rflags::CF, rflags::CF),
        Case::long("crossings/control_registers_are_the_kernels", |a| emit!(a; nop(); mov(rax, cr2))).user().raises(
            13,
            Some(0),
            1,
        ),
    ]
}

fn faults() -> Vec<Case> {
    // From the handler's stack: the error code, then RIP, CS, RFLAGS.
    vec![
        Case::long("crossings/page_faults_that_are_mended_and_begun_again", |a| {
            let mut begin = a.create_label();
            // The handler points RSI at a page that is there.
            emit!(a; jmp(begin); mov(esi, DATA as u32); inc(r8d); add(rsp, 8); iretq(); set_label(&mut begin))?;
            four(a, |a| emit!(a; mov(esi, PLAY as u32); stc(); adc(rax, qword_ptr(rsi))))
        })
        .handler(14, 1)
        .with(Rax, 0)
        .with(R8, 0)
        .poke(DATA, &[1])
        .gives(Rax, 8)
        .gives(R8, 4)
        .gives(Rsi, DATA)
        .gives(Rbx, 0),
        Case::long("crossings/page_faults_from_user_code", |a| {
            let mut begin = a.create_label();
            emit!(a; jmp(begin); mov(esi, DATA as u32); inc(r8d); add(rsp, 8); iretq(); set_label(&mut begin))?;
            four(a, |a| emit!(a; mov(esi, PLAY as u32); stc(); adc(rax, qword_ptr(rsi))))
        })
        .user()
        .handler(14, 1)
        .with(Rax, 0)
        .with(R8, 0)
        .poke(DATA, &[1])
        .gives(Rax, 8)
        .gives(R8, 4)
        .gives(Rsi, DATA)
        .gives(Rbx, 0)
        .check(segments(selector::USER_CODE64, selector::USER_DATA)),
        Case::long("crossings/iret_to_a_smaller_mode_after_others", |a| {
            let mut begin = a.create_label();
            // The fourth fault returns to 32-bit code.
            emit!(a; jmp(begin); mov(esi, DATA as u32); add(rsp, 8); inc(r8d); cmp(r8d, 4);
                mov(ecx, CODE as u32 + 0x200); cmove(r9, rcx); mov(ecx, u32::from(selector::USER_CODE32));
                cmove(r10, rcx); test(r9, r9))?;
            let mut usual = a.create_label();
            emit!(a; je(usual); mov(qword_ptr(rsp), r9); mov(qword_ptr(rsp + 8), r10); set_label(&mut usual); iretq();
                set_label(&mut begin))?;
            four(a, |a| emit!(a; mov(esi, PLAY as u32); add(rax, qword_ptr(rsi))))
        })
        .user()
        .handler(14, 1)
        .with(Rax, 0)
        .with(R8, 0)
        .with(R9, 0)
        .any(R9)
        .any(R10)
        .any(Rcx)
        .chunk(CODE + 0x200, CODE + 0x200, 32, |a| emit!(a; dec(eax)))
        .poke(DATA, &[1])
        .gives(Rax, 2)
        .gives(R8, 4)
        .gives(Rsi, DATA)
        .any(Rbx)
        .check(segments(selector::USER_CODE32, selector::USER_DATA))
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Any }),
        Case::long("crossings/fault_in_the_delivery_of_a_fault", |a| {
            // The gate's segment is not there: #NP of the delivery, and of that one too.
            emit!(a; mov(rbx, rsp); mov(rax, qword_ptr(PLAY)))
        })
        .gate(14, None, |gate| gate.present = false)
        .gives(Rbx, crate::layout::STACK)
        .ends(Ending::Vector { vector: 8, error: Some(0), rip: Place::Instruction(1) })
        .check(|end| {
            let stack = end.state.segment[2].attributes & attribute::PRESENT;
            if stack != 0 { Ok(()) } else { Err("SS is unusable".into()) }
        }),
    ]
}

fn flags() -> Vec<Case> {
    let all = (rflags::ARITHMETIC | 2) as i32;
    vec![
        Case::long("crossings/popf_brings_every_flag_back", move |a| {
            four(a, |a| emit!(a; push(all); popfq(); pushfq(); pop(rcx); push(2); popfq(); pushfq(); pop(rdx); add(rsi, rcx)))
        })
        .with(Rsi, 0)
        .gives(Rcx, rflags::ARITHMETIC | 2)
        .gives(Rdx, 2)
        .gives(Rsi, 4 * (rflags::ARITHMETIC | 2))
        .gives(Rbx, 0),
        Case::long("crossings/popf_sets_if_and_clears_it", |a| {
            four(a, |a| emit!(a; push(0x202); popfq(); pushfq(); pop(rcx); push(2); popfq(); pushfq(); pop(rdx)))
        })
        .gives(Rcx, 0x202)
        .gives(Rdx, 2)
        .gives(Rbx, 0),
        Case::long("crossings/popf_lets_a_waiting_interrupt_through_after_others", |a| {
            four(a, |a| emit!(a; push(0x202); popfq(); push(2); popfq()))?;
            let mut settle = a.create_label();
            emit!(a; xor(eax, eax); out(u32::from(port::EVENT), al); mov(bp, 100); set_label(&mut settle); dec(bp);
                jne(settle); push(0x202); popfq(); inc(edi); inc(edi))
        })
        .event(Event::Interrupt(IRQ))
        .with(Rdi, 0)
        .any(Rbp)
        .gives(Rax, 0)
        .gives(Rbx, 0)
        .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Instruction(14) }),
        Case::long("crossings/popf_opens_user_pages", |a| {
            four(a, |a| emit!(a; push(0x4_0002); popfq(); add(rax, qword_ptr(PLAY)); push(2); popfq()))?;
            emit!(a; mov(rdx, qword_ptr(PLAY)))
        })
        .tweak(|state| state.cr4 |= cr4::SMAP)
        .map(PLAY, RAM, P | RW | US)
        .poke(RAM, &[1])
        .with(Rax, 0)
        .gives(Rax, 4)
        .gives(Rbx, 0)
        .page_fault(1, PLAY, 8),
        Case::long("crossings/popf_from_a_page_that_is_not_there", |a| {
            four(a, |a| emit!(a; push(2); popfq()))?;
            emit!(a; mov(rsp, PLAY); popfq())
        })
        .gives(Rbx, 0)
        .any(Rsp)
        .gate(14, None, |gate| gate.ist = 1)
        .page_fault(0, PLAY, 6),
    ]
}
