//! Segmentation: limits, types, privilege, gates, far transfers, task switches, and instructions that ask about them.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::rflags;

use crate::case::{Case, End, Ending, Mode, Place};
use crate::layout::{self, CODE, DATA, selector};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = limits();
    all.extend(loads());
    all.extend(transfers());
    all.extend(questions());
    all.extend(modes());
    all
}

const FREE: u16 = selector::FREE;

/// A descriptor of eight bytes: base, limit as it lies there, access byte, flags.
const fn raw(base: u64, limit: u64, access: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (base >> 24) << 56
}

/// A gate of eight bytes.
const fn gate(selector: u16, offset: u64, kind: u64, dpl: u64, parameters: u64) -> u64 {
    offset & 0xffff
        | (selector as u64) << 16
        | parameters << 32
        | (0x80 | kind | dpl << 5) << 40
        | (offset >> 16 & 0xffff) << 48
}

fn cs_is(want: u16) -> impl Fn(&End<'_>) -> Result<(), String> {
    move |end| {
        if end.frame.cs == want { Ok(()) } else { Err(format!("CS is {:#x} rather than {want:#x}", end.frame.cs)) }
    }
}

fn limits() -> Vec<Case> {
    let with = |case: Case, limit: u32, attributes: u16| {
        case.tweak(move |state| {
            let segment = &mut state.segment[4];
            segment.base = DATA;
            segment.limit = limit;
            segment.attributes = attributes;
        })
    };
    const UP: u16 = 0x4093;
    const DOWN: u16 = 0x4097;
    const DOWN_16: u16 = 0x0097;
    const READ_ONLY: u16 = 0x4091;
    const EXECUTE_ONLY: u16 = 0x4099;
    vec![
        with(
            Case::flat(
                "segments/last_byte_is_inside",
                |a| emit!(a; mov(al, byte_ptr(0xfff).fs()); mov(ax, word_ptr(0xfff).fs())),
            ),
            0xfff,
            UP,
        )
        .with(Rax, 1)
        .gives(Rax, 0)
        .raises(13, Some(0), 1),
        with(
            Case::flat(
                "segments/expand_down",
                |a| emit!(a; mov(al, byte_ptr(0x1000).fs()); mov(al, byte_ptr(0xfff).fs())),
            ),
            0xfff,
            DOWN,
        )
        .with(Rax, 1)
        .gives(Rax, 0)
        .raises(13, Some(0), 1),
        with(
            Case::flat(
                "segments/expand_down_16_ends_at_64_kib",
                |a| emit!(a; mov(al, byte_ptr(0xffff).fs()); mov(ax, word_ptr(0xffff).fs())),
            ),
            0xfff,
            DOWN_16,
        )
        .with(Rax, 1)
        .gives(Rax, 0)
        .raises(13, Some(0), 1),
        with(
            Case::flat(
                "segments/write_to_read_only",
                |a| emit!(a; mov(eax, dword_ptr(0).fs()); mov(dword_ptr(0).fs(), eax)),
            ),
            0xfff,
            READ_ONLY,
        )
        .gives(Rax, 0)
        .raises(13, Some(0), 1),
        with(
            Case::flat("segments/read_of_execute_only", |a| emit!(a; nop(); mov(eax, dword_ptr(0).fs()))),
            0xfff,
            EXECUTE_ONLY,
        )
        .raises(13, Some(0), 1),
        with(Case::flat("segments/null_segment", |a| emit!(a; nop(); mov(eax, dword_ptr(0).fs()))), 0, 0).raises(
            13,
            Some(0),
            1,
        ),
        Case::flat("segments/write_to_code", |a| emit!(a; nop(); mov(byte_ptr(DATA as u32).cs(), 1))).raises(
            13,
            Some(0),
            1,
        ),
        Case::flat("segments/stack_limit", |a| emit!(a; nop(); push(eax)))
            .user()
            .tweak(|state| state.segment[2].limit = layout::STACK as u32 - 5)
            .raises(12, Some(0), 1),
        Case::flat("segments/base_and_wrap", |a| emit!(a; mov(eax, dword_ptr(0x1_0000).fs())))
            .tweak(|state| state.segment[4].base = 0xffff_0000 + DATA)
            .poke(DATA, &[1, 2, 3, 4])
            .gives(Rax, 0x0403_0201),
        Case::real("segments/real_mode_limit", |a| emit!(a; nop(); mov(ax, word_ptr(0xffff)))).raises(13, None, 1),
        Case::real("segments/real_mode_stack_limit", |a| emit!(a; nop(); db(&[0x67, 0x66, 0x8b, 0x04, 0x24])))
            .with(Rsp, 0xfffe)
            .gate(12, None, |_| {})
            .tweak(|state| state.gpr[4] = 0xfffe)
            .raises(12, None, 1),
        Case::flat("segments/code_limit", |a| emit!(a; nop(); jmp(CODE + 0x100)))
            .tweak(|state| state.segment[1].limit = CODE as u32 + 0x80)
            .raises(13, Some(0), 1),
        Case::real("segments/unreal_mode", |a| emit!(a; db(&[0x67, 0x66, 0xa1, 0x00, 0x00, 0x20, 0x00])))
            .tweak(|state| {
                state.segment[3].limit = u32::MAX;
                state.segment[3].base = 0;
            })
            .poke(layout::RAM, &[9, 8, 7, 6])
            .gives(Rax, 0x0607_0809),
    ]
}

fn loads() -> Vec<Case> {
    vec![
        Case::flat(
            "segments/load_sets_accessed",
            |a| emit!(a; mov(eax, FREE as u32); mov(es, eax); mov(ebx, dword_ptr(4).es())),
        )
        .descriptor(FREE, raw(DATA, 0xff, 0x92, 4))
        .poke(DATA + 4, &[7, 0, 0, 0])
        .gives(Rax, FREE.into())
        .gives(Rbx, 7)
        .leaves(layout::GDT + u64::from(FREE) + 5, &[0x93]),
        Case::flat("segments/load_of_not_present", |a| emit!(a; mov(eax, FREE as u32); mov(es, eax)))
            .descriptor(FREE, raw(DATA, 0xff, 0x12, 4))
            .gives(Rax, FREE.into())
            .raises(11, Some(FREE.into()), 1),
        Case::flat("segments/load_of_not_present_into_ss", |a| emit!(a; mov(eax, FREE as u32); mov(ss, eax)))
            .descriptor(FREE, raw(0, 0xf_ffff, 0x12, 12))
            .gives(Rax, FREE.into())
            .raises(12, Some(FREE.into()), 1),
        Case::flat("segments/load_beyond_the_table", |a| emit!(a; mov(eax, 0x108); mov(es, eax)))
            .gives(Rax, 0x108)
            .raises(13, Some(0x108), 1),
        Case::flat("segments/load_of_system_descriptor", |a| emit!(a; mov(eax, selector::TSS as u32); mov(es, eax)))
            .gives(Rax, selector::TSS.into())
            .raises(13, Some(selector::TSS.into()), 1),
        Case::flat("segments/null_into_ss", |a| emit!(a; xor(eax, eax); mov(ss, eax))).gives(Rax, 0).raises(
            13,
            Some(0),
            1,
        ),
        Case::flat("segments/user_loads_system_data", |a| emit!(a; mov(eax, selector::DATA as u32); mov(es, eax)))
            .user()
            .gives(Rax, selector::DATA.into())
            .raises(13, Some(selector::DATA.into()), 1),
        Case::flat("segments/mov_to_cs", |a| emit!(a; nop(); db(&[0x8e, 0xc8]))).raises(6, None, 1),
        Case::flat("segments/ldt", |a| emit!(a; mov(eax, 0x0c); mov(es, eax); mov(ebx, dword_ptr(0).es())))
            .poke(layout::LDT + 8, &raw(DATA, 0xff, 0x93, 4).to_le_bytes())
            .poke(DATA, &[3, 0, 0, 0])
            .gives(Rax, 0x0c)
            .gives(Rbx, 3),
        Case::flat("segments/lldt_and_ltr", |a| {
            emit!(a; mov(eax, FREE as u32); lldt(ax); mov(eax, 12); mov(es, eax); mov(eax, FREE as u32 + 8);
                ltr(ax); str(ebx))
        })
        .descriptor(FREE, raw(layout::LDT, 0x1f, 0x82, 0))
        .descriptor(FREE + 8, raw(layout::TSS2, 0x67, 0x89, 0))
        .poke(layout::LDT + 8, &raw(DATA, 0xff, 0x93, 4).to_le_bytes())
        .gives(Rax, u64::from(FREE) + 8)
        .gives(Rbx, u64::from(FREE) + 8)
        .leaves(layout::GDT + u64::from(FREE) + 13, &[0x8b]),
        Case::flat("segments/ltr_of_busy", |a| emit!(a; mov(eax, selector::TSS as u32); ltr(ax)))
            .gives(Rax, selector::TSS.into())
            .raises(13, Some(selector::TSS.into()), 1),
    ]
}

fn transfers() -> Vec<Case> {
    let target = |bits: u32| move |case: Case| case.chunk(CODE + 0x100, CODE + 0x100, bits, |a| emit!(a; nop()));
    let end = Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x103) };
    let far = |selector: u16| {
        // jmp far selector:CODE+0x100
        let mut code = vec![0xea];
        code.extend((CODE as u32 + 0x100).to_le_bytes());
        code.extend(selector.to_le_bytes());
        code
    };
    vec![
        target(32)(Case::flat("segments/far_jump", move |a| a.db(&far(FREE))))
            .descriptor(FREE, raw(0, 0xf_ffff, 0x9a, 12))
            .check(cs_is(FREE))
            .ends(end),
        Case::flat("segments/far_jump_to_data", move |a| a.db(&far(selector::DATA))).raises(
            13,
            Some(selector::DATA.into()),
            0,
        ),
        Case::flat("segments/far_jump_to_not_present", move |a| a.db(&far(FREE)))
            .descriptor(FREE, raw(0, 0xf_ffff, 0x1a, 12))
            .raises(11, Some(FREE.into()), 0),
        Case::flat("segments/user_far_jump_to_system_code", move |a| a.db(&far(selector::CODE32))).user().raises(
            13,
            Some(selector::CODE32.into()),
            0,
        ),
        target(32)(Case::flat("segments/user_far_jump_to_conforming_code", move |a| a.db(&far(FREE))))
            .user()
            .descriptor(FREE, raw(0, 0xf_ffff, 0x9e, 12))
            .check(cs_is(FREE | 3))
            .ends(end),
        target(32)(Case::flat(
            "segments/call_gate_to_inner_privilege",
            move |a| emit!(a; push(0x11); push(0x22); db(&[0x9a, 0, 0, 0, 0, FREE as u8 + 3, 0])),
        ))
        .user()
        .descriptor(FREE, gate(selector::CODE32, CODE + 0x100, 12, 3, 2))
        .check(cs_is(selector::CODE32))
        // EIP, CS, two parameters, ESP, SS.
        .leaves(layout::STACK_INNER - 16, &[0x22, 0, 0, 0, 0x11, 0, 0, 0])
        .leaves(layout::STACK_INNER - 8, &(layout::STACK as u32 - 8).to_le_bytes())
        .any(Rsp)
        .ends(end),
        Case::flat("segments/call_gate_without_right", |a| a.db(&[0x9a, 0, 0, 0, 0, FREE as u8 + 3, 0]))
            .user()
            .descriptor(FREE, gate(selector::CODE32, CODE + 0x100, 12, 0, 0))
            .raises(13, Some(FREE.into()), 0),
        Case::flat(
            "segments/far_call_and_return",
            |a| emit!(a; db(&[0x9a, 0, 0x81, 0, 0, selector::CODE32 as u8, 0]); inc(ebx)),
        )
        .chunk(CODE + 0x100, CODE + 0x100, 32, |a| emit!(a; inc(eax); retf()))
        .with(Rax, 0)
        .with(Rbx, 0)
        .gives(Rax, 1)
        .gives(Rbx, 1),
        target(32)(Case::flat("segments/far_return_to_user", |a| {
            emit!(a; push(selector::USER_DATA as i32); push(0x3_b000); push(selector::USER_CODE32 as i32);
                push((CODE + 0x100) as i32); retf())
        }))
        .gives(Rsp, 0x3_b000)
        .check(cs_is(selector::USER_CODE32))
        .check(|end| {
            // Data segments that the outer level may not have become null (SDM 2B "RET").
            let left = end.state.segment[3].selector;
            if left == 0 { Ok(()) } else { Err(format!("DS is {left:#x}")) }
        })
        .ends(end),
        Case::flat("segments/far_return_inwards", |a| emit!(a; push(selector::CODE32 as i32); push(0x1234); retf()))
            .user()
            .any(Rsp)
            .raises(13, Some(selector::CODE32.into()), 2),
        Case::long("segments/long_call_gate", |a| emit!(a; db(&[0xff, 0x1c, 0x25, 0x00, 0x00, 0x02, 0x00])))
            .user()
            .poke(DATA, &[0, 0, 0, 0, FREE as u8 + 3, 0])
            .descriptor(FREE, gate(selector::CODE64, CODE + 0x100, 12, 3, 0))
            .descriptor(FREE + 8, 0)
            .chunk(CODE + 0x100, CODE + 0x100, 64, |a| emit!(a; nop()))
            .gives(Rsp, layout::STACK_INNER - 32)
            .check(cs_is(selector::CODE64))
            .ends(end),
        Case::long(
            "segments/to_compatibility_mode_and_back",
            |a| emit!(a; db(&[0xff, 0x2c, 0x25, 0x00, 0x00, 0x02, 0x00])),
        )
        .poke(DATA, &[0, 0x81, 0, 0, selector::CODE32 as u8, 0])
        // dec eax is REX.W in 64-bit mode; then jmp far CODE64:CODE+0x200.
        .poke(CODE + 0x100, &[0x48, 0xea, 0, 0x82, 0, 0, selector::CODE64 as u8, 0])
        .poke(CODE + 0x200, &[0x48, 0xff, 0xc3, 0xcd, 0xff])
        .with(Rax, 0x10)
        .with(Rbx, u64::MAX)
        .gives(Rax, 0xf)
        .gives(Rbx, 0)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x205) }),
        task_switch(),
        Case::long(
            "segments/no_task_switches_in_long_mode",
            |a| emit!(a; nop(); db(&[0xff, 0x2c, 0x25, 0x00, 0x00, 0x02, 0x00])),
        )
        .poke(DATA, &[0, 0, 0, 0, selector::TSS as u8, 0])
        .raises(13, Some(selector::TSS.into()), 1),
    ]
}

fn task_switch() -> Case {
    let mut tss = vec![0u8; 0x68];
    let mut put = |at: usize, value: u32| tss[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(32, CODE as u32 + 0x100);
    put(36, 0x2);
    put(40, 0x1111);
    put(44, 0x2222);
    put(56, 0x3_b000);
    for (at, value) in [(72, selector::DATA), (76, selector::CODE32), (80, selector::DATA), (84, selector::DATA)] {
        put(at, value.into());
    }
    Case::flat("segments/task_switch_there_and_back", |a| emit!(a; db(&[0x9a, 0, 0, 0, 0, FREE as u8, 0]); inc(ebx)))
        .descriptor(FREE, raw(layout::TSS2, 0x67, 0x89, 0))
        .poke(layout::TSS2, &tss)
        .chunk(CODE + 0x100, CODE + 0x100, 32, |a| {
            emit!(a; mov(dword_ptr(DATA as u32), eax); pushfd(); pop(edx); mov(dword_ptr(DATA as u32 + 4), edx);
            iretd())
        })
        .with(Rbx, 5)
        .gives(Rbx, 6)
        .leaves(DATA, &[0x11, 0x11, 0, 0, 0x02, 0x40, 0, 0])
        // Available again, and the task that was left is busy again.
        .leaves(layout::GDT + u64::from(FREE) + 5, &[0x89])
        .leaves(layout::GDT + u64::from(selector::TSS) + 5, &[0x8b])
        // Its state was saved.
        .leaves(layout::TSS2 + 44, &0x2222u32.to_le_bytes())
        .flags(rflags::NT, 0)
}

fn questions() -> Vec<Case> {
    vec![
        Case::flat("segments/lar_and_lsl", |a| {
            emit!(a; mov(ecx, FREE as u32); lar(eax, ecx); setz(dl); lsl(ebx, ecx); mov(ecx, 0x108);
                lar(esi, ecx); setz(dh))
        })
        .descriptor(FREE, raw(DATA, 0x1_2345, 0x93, 12))
        .with(Rdx, 0)
        .gives(Rax, 0xc1_9300)
        .gives(Rbx, 0x1234_5fff)
        .gives(Rcx, 0x108)
        .gives(Rdx, 1),
        Case::flat("segments/verr_and_verw", |a| {
            emit!(a; mov(eax, selector::CODE32 as u32); verr(ax); setz(cl); verw(ax); setz(ch); mov(eax, selector::DATA as u32);
                verw(ax); setz(dl); xor(eax, eax); verr(ax); setz(dh))
        })
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rax, 0)
        .gives(Rcx, 1)
        .gives(Rdx, 1),
        Case::flat("segments/verr_at_cpl_3", |a| {
            emit!(a; mov(eax, selector::DATA as u32); verr(ax); setz(cl); mov(eax, selector::USER_DATA as u32);
                verr(ax); setz(ch))
        })
            .user()
            .with(Rcx, 0)
            .gives(Rax, selector::USER_DATA.into())
            .gives(Rcx, 0x100),
        Case::flat("segments/arpl", |a| emit!(a; mov(eax, 0x10); mov(ecx, 3); arpl(ax, cx); setz(dl)))
            .with(Rdx, 0)
            .gives(Rax, 0x13)
            .gives(Rcx, 3)
            .gives(Rdx, 1),
        Case::real("segments/lar_in_real_mode", |a| emit!(a; nop(); lar(ax, cx))).raises(6, None, 1),
        Case::real("segments/arpl_in_real_mode", |a| emit!(a; nop(); db(&[0x63, 0xc8]))).raises(6, None, 1),
    ]
}

fn modes() -> Vec<Case> {
    vec![
        Case::real("segments/real_to_protected_and_back", |a| {
            // mov eax, cr0; inc ax; mov cr0, eax; mov bx, 0x10; mov fs, bx; mov cx, fs:[0x20000 by a32]; dec ax; mov cr0, eax
            emit!(a; mov(eax, cr0); inc(ax); mov(cr0, eax); mov(bx, selector::DATA as u32); mov(fs, bx);
                db(&[0x64, 0x67, 0x8b, 0x0d, 0x40, 0x00, 0x02, 0x00]); dec(ax); mov(cr0, eax);
                db(&[0x64, 0x67, 0x8b, 0x15, 0x40, 0x00, 0x02, 0x00]))
        })
        .poke(DATA + 0x40, &[0x34, 0x12])
        .any(Rax)
        .any(Rbx)
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rcx, 0x1234)
        // The hidden part stays.
        .gives(Rdx, 0x1234),
        Case::new(Mode::Protected32, "segments/protected_to_long", |a| {
            emit!(a; mov(eax, cr4); or(eax, 0x20); mov(cr4, eax); mov(eax, layout::ROOTS[0] as u32); mov(cr3, eax);
                mov(ecx, 0xc000_0080u32); rdmsr(); or(eax, 0x100); wrmsr(); mov(eax, cr0); or(eax, 0x8000_0000u32 as i32);
                mov(cr0, eax); db(&[0xea, 0, 0x81, 0, 0, selector::CODE64 as u8, 0]))
        })
        .paged(crate::case::Paging::FourLevel)
        .tweak(|state| {
            state.cr0 &= !lodge_x86::bits::cr0::PG;
            state.cr4 &= !lodge_x86::bits::cr4::PAE;
        })
        // mov r8, -1; shr r8, 60; mov ebx, r8d; out STOP, al; jmp $
        .poke(CODE + 0x100, &[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x49, 0xc1, 0xe8, 60, 0x44, 0x89, 0xc3, 0xe6, 0xe0, 0xeb, 0xfe])
        .any(Rax)
        .any(Rcx)
        .any(Rdx)
        .gives(Rbx, 15)
        .ends(Ending::Stop),
    ]
}
