//! Interrupts and their masks: IF, shadows, NMI, IST, HLT, INT and IRET in their forms, task priority.

use iced_x86::code_asm::*;
use lodge_engine_api::Event;
use lodge_x86::Gpr::*;
use lodge_x86::bits::rflags;

use crate::case::{Case, End, Ending, Mode, Paging, Place};
use crate::layout::{self, CODE, DATA, PLAY, RAM, port, selector};
use crate::tables::{P, RW};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = masks();
    all.extend(ends_of_code());
    all.extend(halts());
    all.extend(frames());
    all.extend(returns());
    all
}

const IRQ: u8 = 0x40;
const RAISE: u32 = port::EVENT as u32;

fn taken(at: usize) -> Ending {
    Ending::Vector { vector: IRQ, error: None, rip: Place::Instruction(at) }
}

/// Goes round a little, so that an event that was raised has arrived: how soon it does is nowhere promised.
fn settle(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    let mut again = a.create_label();
    emit!(a; mov(bp, 100); set_label(&mut again); dec(bp); jne(again))
}

/// Raises event 0 and lets it arrive.
fn raise(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    a.xor(eax, eax)?;
    a.out(RAISE, al)?;
    settle(a)
}

/// Instructions of [`raise`].
const RAISED: usize = 5;

/// STI where an engine may have to stop for a moment before it goes on.
fn ends_of_code() -> Vec<Case> {
    vec![
        // As many instructions as a translator may take at a time, of which STI is the last.
        Case::long("interrupts/sti_at_the_end_of_much_code", |a| {
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al))?;
            for _ in 0..61 {
                a.nop()?;
            }
            emit!(a; sti(); inc(ebx); inc(ebx))
        })
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .gives(Rbx, 1)
        .ends(taken(65)),
        // Twice, so that the way from one page to the next is known.
        Case::long("interrupts/sti_at_the_end_of_a_page", |a| emit!(a; mov(ecx, 2); mov(rdx, PLAY + 0xff0); jmp(rdx)))
            .map(PLAY, RAM, P | RW)
            .map(PLAY + 0x1000, RAM + 0x1000, P | RW)
            // dec ecx; jne over; mov al, 0; out EVENT, al; over: nop... ; sti
            .poke(
                RAM + 0xff0,
                &[
                    0xff,
                    0xc9,
                    0x75,
                    4,
                    0xb0,
                    0,
                    0xe6,
                    port::EVENT as u8,
                    0x90,
                    0x90,
                    0x90,
                    0x90,
                    0x90,
                    0x90,
                    0x90,
                    0xfb,
                ],
            )
            // inc ebx; cli; jmp rdx
            .poke(RAM + 0x1000, &[0xff, 0xc3, 0xfa, 0xff, 0xe2])
            .event(Event::Interrupt(IRQ))
            .with(Rbx, 0)
            .with(Rax, 0)
            .gives(Rbx, 2)
            .gives(Rcx, 0)
            .any(Rdx)
            .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Offset(PLAY + 0x1002) }),
    ]
}

fn masks() -> Vec<Case> {
    vec![
        Case::long("interrupts/masked_until_sti_and_one_more", |a| {
            raise(a)?;
            emit!(a; sti(); inc(ebx); inc(ebx))
        })
        .any(Rbp)
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .gives(Rbx, 1)
        .ends(taken(RAISED + 2)),
        Case::long("interrupts/sti_cli_lets_nothing_through", |a| {
            raise(a)?;
            emit!(a; sti(); cli(); inc(ebx); nop(); nop())
        })
        .any(Rbp)
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .gives(Rbx, 1),
        Case::long("interrupts/popf_has_no_shadow", |a| {
            raise(a)?;
            emit!(a; push(0x202); popfq(); inc(ebx); inc(ebx))
        })
        .any(Rbp)
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .ends(taken(RAISED + 2)),
        Case::long("interrupts/mov_ss_has_a_shadow", |a| {
            a.mov(ecx, ss)?;
            raise(a)?;
            emit!(a; sti(); mov(ss, ecx); inc(ebx); inc(ebx))
        })
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .any(Rcx)
        .any(Rbp)
        .any(Rbx)
        .check(|end| {
            // Of two shadows in a row the second may or may not hold (SDM 3A 6.8.3): one INC, or none.
            if end.state.gpr[3] < 2 { Ok(()) } else { Err("the interrupt came too late".into()) }
        })
        .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Any }),
        Case::long("interrupts/pending_at_the_beginning", |a| emit!(a; nop(); sti(); nop(); nop()))
            .pending(Event::Interrupt(IRQ))
            .ends(taken(3)),
        Case::long("interrupts/into_an_endless_loop", |a| {
            let mut here = a.create_label();
            emit!(a; sti(); set_label(&mut here); jmp(here))
        })
        .later(Event::Interrupt(IRQ))
        .ends(taken(1)),
        Case::long("interrupts/into_a_loop_of_calls", |a| {
            let (mut again, mut sub, mut begin) = (a.create_label(), a.create_label(), a.create_label());
            emit!(a; jmp(begin); set_label(&mut sub); inc(rax); ret(); set_label(&mut begin); sti();
                lea(rbx, ptr(sub)); set_label(&mut again); call(rbx); jmp(again))
        })
        .later(Event::Interrupt(IRQ))
        .any(Rax)
        .any(Rbx)
        .any(Rsp)
        .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Any }),
        into_a_string(),
        Case::long("interrupts/task_priority_holds_them_back", |a| {
            a.mov(eax, 4)?;
            a.mov(cr8, rax)?;
            a.sti()?;
            raise(a)?;
            a.inc(ebx)?;
            a.mov(cr8, rax)?;
            settle(a)
        })
        .event(Event::Interrupt(IRQ))
        .with(Rbx, 0)
        .gives(Rax, 0)
        .gives(Rbx, 1)
        .any(Rbp)
        .ends(Ending::Vector { vector: IRQ, error: None, rip: Place::Any }),
        Case::long("interrupts/nmi_is_not_masked", raise)
            .event(Event::Nmi)
            .any(Rbp)
            .gives(Rax, 0)
            .ends(Ending::Vector { vector: 2, error: None, rip: Place::Any })
            .check(|end| if end.frame.rsp == layout::STACK { Ok(()) } else { Err("it came too late".into()) }),
        nmi_blocking(),
    ]
}

fn into_a_string() -> Case {
    const BYTES: u64 = 1 << 30;
    const AT: u64 = 0x4000_0000;
    let mut case =
        Case::long("interrupts/into_a_repeated_string_instruction", |a| emit!(a; sti(); xor(eax, eax); repe().scasb()));
    // The same two megabytes again and again.
    for page in 0..BYTES >> 21 {
        case = case.map_in(0, 2, AT + (page << 21), 0x40_0000, 0x83);
    }
    case.later(Event::Interrupt(IRQ))
        .with(Rdi, AT)
        .with(Rcx, BYTES)
        .any(Rcx)
        .any(Rdi)
        .gives(Rax, 0)
        .check(|end| {
            let (counted, moved) = (BYTES.wrapping_sub(end.state.gpr[1]), end.state.gpr[7].wrapping_sub(AT));
            if counted == moved { Ok(()) } else { Err(format!("RCX counted {counted:#x}, RDI moved {moved:#x}")) }
        })
        .ends(taken(2))
}

fn nmi_blocking() -> Case {
    Case::long("interrupts/nmi_waits_for_iret", |a| {
        let mut out_of_here = a.create_label();
        emit!(a; xor(eax, eax); out(RAISE, al); nop(); jmp(out_of_here); inc(ebx); cmp(ebx, 2); je(out_of_here);
            out(RAISE, al); nop(); nop(); mov(ecx, ebx); iretq(); set_label(&mut out_of_here); nop())
    })
    .event(Event::Nmi)
    .handler(2, 4)
    .with(Rbx, 0)
    .with(Rcx, 0)
    .gives(Rax, 0)
    .gives(Rbx, 2)
    // The first had gone to its end.
    .gives(Rcx, 1)
    .any(Rsp)
}

fn halts() -> Vec<Case> {
    vec![
        Case::long("interrupts/hlt_wakes", |a| emit!(a; sti(); hlt(); nop()))
            .later(Event::Interrupt(IRQ))
            .ends(taken(2)),
        Case::long("interrupts/hlt_with_interrupts_off_stays", |a| emit!(a; hlt(); nop()))
            .pending(Event::Interrupt(IRQ))
            .ends(Ending::Halt),
        Case::long("interrupts/nmi_wakes_hlt_with_interrupts_off", |a| emit!(a; hlt(); nop()))
            .once_halted(Event::Nmi)
            .ends(Ending::Vector { vector: 2, error: None, rip: Place::Instruction(1) }),
        Case::long("interrupts/sti_hlt_loses_nothing", |a| {
            raise(a)?;
            emit!(a; sti(); hlt(); nop())
        })
        .event(Event::Interrupt(IRQ))
        .gives(Rax, 0)
        .any(Rbp)
        .ends(taken(RAISED + 2)),
        Case::real("interrupts/in_real_mode", |a| {
            raise(a)?;
            emit!(a; sti(); nop(); nop())
        })
        .event(Event::Interrupt(IRQ))
        .gives(Rax, 0)
        .any(Rbp)
        .ends(taken(RAISED + 2)),
        Case::new(Mode::V86, "interrupts/in_virtual_8086_mode", |a| {
            raise(a)?;
            emit!(a; sti(); nop(); nop())
        })
        .event(Event::Interrupt(IRQ))
        .tweak(|state| state.tr.limit = 0x200)
        .poke(layout::TSS + 102, &0x68u16.to_le_bytes())
        .gives(Rax, 0)
        .any(Rbp)
        .ends(taken(RAISED + 2)),
    ]
}

fn stack_is(want: u64) -> impl Fn(&End<'_>) -> Result<(), String> {
    move |end| {
        // RIP, CS, RFLAGS, RSP, SS lie below the top of the handler's stack.
        let top = end.state.gpr[4] + 40;
        if top == want { Ok(()) } else { Err(format!("the handler's stack begins at {top:#x} rather than {want:#x}")) }
    }
}

fn frames() -> Vec<Case> {
    vec![
        Case::long("interrupts/stack_is_aligned", |a| emit!(a; sub(rsp, 5); int3()))
            .gives(Rsp, layout::STACK - 5)
            .check(stack_is(layout::STACK - 16))
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::long("interrupts/inner_stack", |a| emit!(a; int3()))
            .user()
            .check(stack_is(layout::STACK_INNER))
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::long("interrupts/ist", |a| emit!(a; int3()))
            .user()
            .gate(3, None, |gate| gate.ist = 4)
            .check(stack_is(layout::STACKS + 4 * 0x1000))
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::long("interrupts/interrupt_gate_clears_if", |a| emit!(a; sti(); nop(); int3()))
            .check(|end| if end.state.rflags & rflags::IF == 0 { Ok(()) } else { Err("IF is set".into()) })
            .flags(rflags::IF, rflags::IF)
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::long("interrupts/trap_gate_leaves_if", |a| emit!(a; sti(); nop(); int3()))
            .gate(3, None, |gate| gate.kind = lodge_x86::descriptor::kind::TRAP_GATE_32)
            .check(|end| if end.state.rflags & rflags::IF != 0 { Ok(()) } else { Err("IF is clear".into()) })
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::new(Mode::Compat32, "interrupts/from_compatibility_mode", |a| emit!(a; int3()))
            .user()
            .check(stack_is(layout::STACK_INNER))
            .check(|end| {
                let saved = (end.frame.cs, end.frame.ss);
                if saved == (selector::USER_CODE32, selector::USER_DATA) { Ok(()) } else { Err(format!("{saved:x?}")) }
            })
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::new(Mode::V86, "interrupts/virtual_8086_frame_has_all_segments", |a| emit!(a; int3()))
            .tweak(|state| state.segment[5].selector = 0x1234)
            .leaves(layout::STACK_INNER - 4, &0x1234u32.to_le_bytes())
            .leaves(layout::STACK_INNER - 16, &(DATA as u32 >> 4).to_le_bytes())
            .check(|end| {
                if end.state.segment[3].selector == 0 { Ok(()) } else { Err("DS is not null in the handler".into()) }
            })
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
        Case::flat("interrupts/sixteen_bit_gate", |a| emit!(a; int(0x50); nop(); pop(cx); pop(dx); pop(bp); nop()))
            .gate(0x50, Some(Place::Instruction(2)), |gate| {
                gate.kind = lodge_x86::descriptor::kind::INTERRUPT_GATE_16;
            })
            .with(Rcx, 0)
            .with(Rdx, 0)
            .with(Rbp, 0)
            .gives(Rcx, CODE + 2)
            .gives(Rdx, selector::CODE32.into())
            .gives(Rbp, 2),
        Case::long("interrupts/int_n_in_a_page_of_its_own_returns", |a| {
            let mut end = a.create_label();
            emit!(a; int(0x50); inc(rbx); jmp(end); inc(rcx); iretq(); set_label(&mut end); nop())
        })
        .handler(0x50, 3)
        .with(Rbx, 0)
        .with(Rcx, 0)
        .gives(Rbx, 1)
        .gives(Rcx, 1),
        Case::new(Mode::V86, "interrupts/int_n_without_iopl", |a| emit!(a; nop(); int(0x50)))
            .tweak(|state| state.rflags &= !rflags::IOPL)
            .raises(13, Some(0), 1),
        Case::new(Mode::V86, "interrupts/cli_without_iopl", |a| emit!(a; nop(); cli()))
            .tweak(|state| state.rflags &= !rflags::IOPL)
            .raises(13, Some(0), 1),
        Case::new(Mode::V86, "interrupts/pushf_without_iopl", |a| emit!(a; nop(); pushf()))
            .tweak(|state| state.rflags &= !rflags::IOPL)
            .raises(13, Some(0), 1),
        Case::new(Mode::V86, "interrupts/virtual_8086_under_paging", |a| emit!(a; mov(ax, word_ptr(4)); int3()))
            .paged(Paging::Bits32)
            .with(Rax, 0)
            .poke(DATA + 4, &[7, 9])
            .gives(Rax, 0x907)
            .ends(Ending::Vector { vector: 3, error: None, rip: Place::Any }),
    ]
}

fn returns() -> Vec<Case> {
    vec![
        Case::long("interrupts/iretq_to_user", |a| {
            emit!(a; push(selector::USER_DATA as i32); push(0x3_b000); push(0x202); push(selector::USER_CODE64 as i32);
                push((CODE + 0x100) as i32); iretq())
        })
        .chunk(CODE + 0x100, CODE + 0x100, 64, |a| emit!(a; mov(eax, cs)))
        .entry(CODE, 1, 0, 4)
        .entry(CODE, 2, 0, 4)
        .gives(Rax, selector::USER_CODE64.into())
        .gives(Rsp, 0x3_b000)
        .flags(rflags::IF, rflags::IF)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x104) }),
        Case::long("interrupts/iretq_to_non_canonical", |a| {
            emit!(a; push(0x10); push(0x3_b000); push(2); push(8); mov(rax, 0x8000_0000_0000u64); push(rax); iretq())
        })
        .any(Rax)
        .any(Rsp)
        .raises(13, Some(0), 6),
        Case::long("interrupts/iretq_with_nested_task", |a| emit!(a; nop(); iretq()))
            .tweak(|state| state.rflags |= rflags::NT)
            .raises(13, Some(0), 1),
        Case::long("interrupts/iretq_to_null_cs", |a| {
            emit!(a; push(0x10); push(0x3_b000); push(2); push(0); push(0x1234); iretq())
        })
        .any(Rsp)
        .raises(13, Some(0), 5),
        Case::long("interrupts/iretq_loads_flags", |a| {
            let mut next = a.create_label();
            emit!(a; mov(rdx, rsp); lea(rcx, ptr(next)); push(0x10); push(rdx); push(0xad7); push(8); push(rcx); iretq();
                set_label(&mut next); nop())
        })
        .any(Rcx)
        .gives(Rdx, layout::STACK)
        .flags(0xfff, 0xad7 & !0x200 | 0x200),
        Case::flat("interrupts/iretd_to_virtual_8086_mode", |a| {
            emit!(a; push(0); push(0); push(0x2000); push(0x2000); push(0x3000); push(0xc000); push(0x2_3002); push(0x0810);
                push(0); iretd())
        })
        // mov al, [4]; int3
        .poke(CODE + 0x100, &[0xa0, 4, 0, 0xcc])
        .poke(DATA + 4, &[0x5c])
        .with(Rax, 0)
        .gives(Rax, 0x5c)
        .gives(Rsp, 0xc000)
        .flags(rflags::VM, rflags::VM)
        .ends(Ending::Vector { vector: 3, error: None, rip: Place::Offset(4) }),
        Case::real("interrupts/int_and_iret_in_real_mode", |a| {
            let mut end = a.create_label();
            emit!(a; stc(); int(0x50); inc(bx); jmp(end); clc(); inc(cx); iret(); set_label(&mut end); setc(dl))
        })
        .handler(0x50, 4)
        .with(Rbx, 0)
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rbx, 1)
        .gives(Rcx, 1)
        .gives(Rdx, 1),
        Case::long("interrupts/user_iretq_cannot_raise_privilege", |a| {
            emit!(a; push(0x2b); push(0x3_b000); push(2); push(8); push(0x1234); iretq())
        })
        .user()
        .any(Rsp)
        .raises(13, Some(8), 5),
        Case::long("interrupts/user_popf_leaves_if_and_iopl", |a| emit!(a; push(0x3202); popfq()))
            .user()
            .flags(rflags::IF | rflags::IOPL, 0),
    ]
}
