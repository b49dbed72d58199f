//! System instructions: SYSCALL and its kin, MSRs, CPUID, control registers, XSAVE, FS and GS bases.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr4, efer, rflags};

use crate::case::{Case, Ending, Mode, Place};
use crate::layout::{self, CODE, DATA, PLAY, RAM, selector};
use crate::tables::{P, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = calls();
    all.extend(bases());
    all.extend(registers());
    all.extend(vectors());
    all
}

/// SYSCALL goes to CS 8 and SS 0x10, SYSRET to 0x33 and 0x2b (or 0x23).
const STAR: u64 = 0x0023_0008 << 32;

fn calls() -> Vec<Case> {
    let with = |case: Case| {
        case.tweak(|state| {
            state.msrs.star = STAR;
            state.msrs.lstar = CODE + 0x100;
            state.msrs.fmask = rflags::IF | rflags::CF;
            state.rflags |= rflags::IF;
        })
    };
    let segments = |code: u16, stack: u16| {
        move |end: &crate::case::End<'_>| {
            let got = (end.frame.cs, end.frame.ss);
            if got == (code, stack) { Ok(()) } else { Err(format!("CS and SS are {got:x?}")) }
        }
    };
    vec![
        with(Case::long("system/syscall", |a| emit!(a; stc(); syscall())))
            .user()
            .chunk(CODE + 0x100, CODE + 0x100, 64, |a| emit!(a; nop()))
            .gives(Rcx, CODE + 3)
            .gives(R11, rflags::IF | rflags::CF | 2)
            .flags(rflags::IF | rflags::CF, 0)
            .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x103) })
            .check(segments(selector::CODE64, selector::DATA)),
        with(Case::long("system/syscall_and_sysret", |a| emit!(a; syscall(); mov(r8, r11); nop())))
            .user()
            .chunk(CODE + 0x100, CODE + 0x100, 64, |a| emit!(a; mov(eax, 7); sysretq()))
            .any(Rcx)
            .any(R11)
            .gives(R8, rflags::IF | 2)
            .gives(Rax, 7)
            .flags(rflags::IF, rflags::IF)
            .check(segments(selector::USER_CODE64, selector::USER_DATA)),
        with(Case::long(
            "system/sysret_to_32_bits",
            |a| emit!(a; mov(ecx, (CODE + 0x200) as u32); mov(r11d, 2); sysret()),
        ))
        .chunk(CODE + 0x200, CODE + 0x200, 32, |a| emit!(a; dec(eax)))
        .paged(crate::case::Paging::FourLevel)
        .entry(CODE, 1, 0, US)
        .entry(CODE, 2, 0, US)
        .with(Rax, 6)
        .gives(Rax, 5)
        .any(Rcx)
        .any(R11)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x203) })
        .check(segments(selector::USER_CODE32, selector::USER_DATA)),
        with(Case::long("system/syscall_disabled", |a| emit!(a; nop(); syscall())))
            .tweak(|state| state.msrs.efer &= !efer::SCE)
            .user()
            .raises(6, None, 1),
        Case::long("system/sysret_at_cpl_3", |a| emit!(a; nop(); sysretq())).user().raises(13, Some(0), 1),
        with(Case::long("system/sysret_to_non_canonical", |a| emit!(a; nop(); sysretq())))
            .with(Rcx, 0x8000_0000_0000)
            .any(Rcx)
            .check(|end| {
                // Intel's fault at CPL 0, AMD's at CPL 3 with the address in RIP: APM 3 "SYSRET", SDM 2B "SYSRET".
                if end.state.cr2 == 0 { Ok(()) } else { Err("a page fault".into()) }
            })
            .ends(Ending::Vector { vector: 13, error: Some(0), rip: Place::Any }),
        Case::flat("system/sysenter", |a| emit!(a; sysenter()))
            .user()
            .tweak(|state| {
                state.msrs.sysenter_cs = u64::from(selector::CODE32);
                state.msrs.sysenter_eip = CODE + 0x100;
                state.msrs.sysenter_esp = layout::STACK_INNER;
                state.rflags |= rflags::IF;
            })
            .chunk(CODE + 0x100, CODE + 0x100, 32, |a| emit!(a; nop()))
            .gives(Rsp, layout::STACK_INNER)
            .flags(rflags::IF, 0)
            .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(CODE + 0x103) }),
        Case::flat("system/sysenter_without_cs", |a| emit!(a; nop(); sysenter())).user().raises(13, Some(0), 1),
        Case::flat("system/sysexit", |a| emit!(a; mov(edx, (CODE + 0x100) as u32); mov(ecx, 0x3b000); sysexit()))
            .tweak(|state| state.msrs.sysenter_cs = 0x08)
            .chunk(CODE + 0x100, CODE + 0x100, 32, |a| emit!(a; mov(ax, cs); mov(bx, ss)))
            .any(Rdx)
            .any(Rcx)
            .with(Rax, 0)
            .with(Rbx, 0)
            .gives(Rax, 0x1b)
            .gives(Rbx, 0x23)
            .gives(Rsp, 0x3_b000)
            .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Any }),
    ]
}

fn bases() -> Vec<Case> {
    let with = |case: Case| {
        case.tweak(|state| {
            state.cr4 |= cr4::FSGSBASE;
            state.segment[4].base = DATA;
            state.segment[5].base = DATA + 0x100;
            state.msrs.kernel_gs_base = DATA + 0x200;
        })
        .poke(DATA + 8, &1u64.to_le_bytes())
        .poke(DATA + 0x108, &2u64.to_le_bytes())
        .poke(DATA + 0x208, &3u64.to_le_bytes())
    };
    vec![
        with(Case::long("system/fs_and_gs", |a| {
            emit!(a; mov(rax, qword_ptr(8).fs()); mov(rbx, qword_ptr(8).gs()); swapgs(); mov(rcx, qword_ptr(8).gs());
                rdgsbase(rdx); rdfsbase(rsi))
        }))
        .gives(Rax, 1)
        .gives(Rbx, 2)
        .gives(Rcx, 3)
        .gives(Rdx, DATA + 0x200)
        .gives(Rsi, DATA),
        with(Case::long("system/wrfsbase_at_cpl_3", |a| {
            emit!(a; mov(r10, DATA + 0x100); wrfsbase(r10); mov(rax, qword_ptr(8).fs()); mov(r11d, -1); wrgsbase(r11d);
                rdgsbase(r15))
        }))
        .user()
        .gives(R10, DATA + 0x100)
        .gives(Rax, 2)
        .gives(R11, 0xffff_ffff)
        .gives(R15, 0xffff_ffff),
        with(Case::long("system/wrgsbase_non_canonical", |a| emit!(a; nop(); wrgsbase(rax))))
            .with(Rax, 1 << 47)
            .raises(13, Some(0), 1),
        Case::long("system/fsgsbase_disabled", |a| emit!(a; nop(); rdfsbase(rax))).raises(6, None, 1),
        Case::long("system/swapgs_at_cpl_3", |a| emit!(a; nop(); swapgs())).user().raises(13, Some(0), 1),
        with(Case::long("system/selector_load_changes_base", |a| emit!(a; xor(eax, eax); mov(fs, eax); rdfsbase(rbx))))
            .gives(Rax, 0)
            .gives(Rbx, 0),
        with(Case::long("system/base_msrs", |a| {
            emit!(a; mov(ecx, 0xc000_0101u32); rdmsr(); mov(ebx, eax); mov(eax, (DATA + 0x200) as u32); xor(edx, edx);
                wrmsr(); mov(rsi, qword_ptr(8).gs()))
        }))
        .gives(Rcx, 0xc000_0101)
        .gives(Rbx, DATA + 0x100)
        .gives(Rax, DATA + 0x200)
        .gives(Rdx, 0)
        .gives(Rsi, 3),
        // Addresses wrap in 64 bits.
        with(Case::long("system/gs_base_in_the_upper_half", |a| emit!(a; mov(rax, qword_ptr(rbx).gs()))))
            .tweak(|state| state.segment[5].base = 0xffff_8000_0000_0000)
            .with(Rbx, (DATA + 8).wrapping_sub(0xffff_8000_0000_0000))
            .gives(Rax, 1),
    ]
}

fn registers() -> Vec<Case> {
    vec![
        Case::long("system/rdmsr_of_none", |a| emit!(a; mov(ecx, 0x1234_5678); rdmsr()))
            .gives(Rcx, 0x1234_5678)
            .raises(13, Some(0), 1),
        Case::long("system/wrmsr_non_canonical_lstar", |a| {
            emit!(a; mov(ecx, 0xc000_0082u32); mov(edx, 0x8000); xor(eax, eax); wrmsr())
        })
        .gives(Rcx, 0xc000_0082)
        .gives(Rdx, 0x8000)
        .gives(Rax, 0)
        .raises(13, Some(0), 3),
        Case::long("system/efer_reserved", |a| {
            emit!(a; mov(ecx, 0xc000_0080u32); rdmsr(); or(eax, 2); wrmsr())
        })
        .any(Rax)
        .gives(Rcx, 0xc000_0080)
        .gives(Rdx, 0)
        .raises(13, Some(0), 3),
        Case::long("system/cr4_reserved", |a| emit!(a; mov(rax, cr4); bts(rax, 40u32); mov(cr4, rax)))
            .any(Rax)
            .raises(13, Some(0), 2),
        Case::long("system/cr0_paging_off_in_64_bit_mode", |a| emit!(a; mov(rax, cr0); btr(rax, 31u32); mov(cr0, rax)))
            .any(Rax)
            .raises(13, Some(0), 2),
        Case::long("system/cr4_pae_off_in_long_mode", |a| emit!(a; mov(rax, cr4); btr(rax, 5u32); mov(cr4, rax)))
            .any(Rax)
            .raises(13, Some(0), 2),
        Case::long("system/cr0_upper_half", |a| emit!(a; mov(rax, cr0); bts(rax, 32u32); mov(cr0, rax)))
            .any(Rax)
            .raises(13, Some(0), 2),
        Case::long("system/cr1", |a| emit!(a; nop(); db(&[0x0f, 0x20, 0xc8]))).raises(6, None, 1),
        Case::long("system/cr8_is_the_task_priority", |a| emit!(a; mov(eax, 5); mov(cr8, rax); mov(rbx, cr8)))
            .gives(Rax, 5)
            .gives(Rbx, 5),
        Case::long("system/clts_and_lmsw", |a| {
            emit!(a; mov(rax, cr0); or(eax, 8); mov(cr0, rax); smsw(rbx); clts(); smsw(rcx); and(ebx, 8); and(ecx, 8);
                mov(eax, 9); lmsw(ax); mov(rdx, cr0); and(edx, 8); clts())
        })
        .gives(Rax, 9)
        .gives(Rbx, 8)
        .gives(Rcx, 0)
        .gives(Rdx, 8),
        Case::long("system/umip", |a| emit!(a; nop(); sgdt(ptr(DATA))))
            .user()
            .tweak(|state| state.cr4 |= cr4::UMIP)
            .raises(13, Some(0), 1),
        Case::long("system/sgdt", |a| emit!(a; sgdt(ptr(DATA)); sidt(ptr(DATA + 16)); str(eax); sldt(ebx)))
            .user()
            .gives(Rax, selector::TSS.into())
            .gives(Rbx, selector::LDT.into())
            .leaves(DATA, &[0xff, 0, 0x00, 0x20, 0, 0, 0, 0, 0, 0])
            .leaves(DATA + 16, &[0xff, 0x0f, 0x00, 0x30, 0, 0, 0, 0, 0, 0]),
        Case::long("system/cpuid", |a| {
            emit!(a; mov(eax, 0); cpuid(); mov(r8d, ebx); mov(eax, 1); xor(ecx, ecx); cpuid(); bt(ecx, 31u32))
        })
            .any(Rax)
            .any(Rbx)
            .any(Rcx)
            .any(Rdx)
            .gives(R8, 0x6874_7541)
            // A hypervisor is present.
            .flags(rflags::CF, rflags::CF),
        Case::long("system/cpuid_follows_osxsave", |a| {
            emit!(a; mov(eax, 1); cpuid(); mov(r8d, ecx); mov(rax, cr4); bts(rax, 18u32); mov(cr4, rax); mov(eax, 1); cpuid();
                xor(r8d, ecx))
        })
        .any(Rax)
        .any(Rbx)
        .any(Rcx)
        .any(Rdx)
        .gives(R8, 1 << 27),
        Case::long("system/rdtsc_at_cpl_3_under_tsd", |a| emit!(a; nop(); rdtsc()))
            .user()
            .tweak(|state| state.cr4 |= cr4::TSD)
            .raises(13, Some(0), 1),
        Case::long("system/rdtsc_goes_up", |a| {
            emit!(a; rdtsc(); shl(rdx, 32u32); lea(rbx, ptr(rax + rdx)); rdtsc(); shl(rdx, 32u32);
                add(rax, rdx); cmp(rbx, rax))
        })
        .any(Rax)
        .any(Rbx)
        .any(Rdx)
        .flags(rflags::CF, rflags::CF),
        Case::long("system/tsc_aux", |a| {
            emit!(a; mov(ecx, 0xc000_0103u32); mov(eax, 77); xor(edx, edx); wrmsr(); rdtscp(); rdpid(rbx))
        })
            .any(Rax)
            .any(Rdx)
            .gives(Rcx, 77)
            .gives(Rbx, 77),
        Case::long("system/user_port_by_io_map", |a| {
            emit!(a; in_(al, layout::port::DATA as u32); in_(al, layout::port::DATA as u32 + 1))
        })
            .user()
            .with(Rax, 0)
            .tweak(|state| state.tr.limit = 0x200)
            .poke(layout::TSS + 102, &0x68u16.to_le_bytes())
            // A bit that is set refuses.
            .poke(layout::TSS + 0x68 + layout::port::DATA as u64 / 8, &[0xef])
            .gives(Rax, 0xef)
            .accesses(crate::case::Access::PortRead(layout::port::DATA, 1))
            .raises(13, Some(0), 1),
    ]
}

fn vectors() -> Vec<Case> {
    let with = |case: Case| {
        case.tweak(|state| {
            state.cr4 |= cr4::OSXSAVE;
            state.xcr0 = 7;
        })
    };
    let image = DATA + 0x400;
    vec![
        with(Case::long("system/xsave_and_xrstor", move |a| {
            emit!(a; vmovdqu(ymm3, ymmword_ptr(DATA)); fld1(); mov(eax, 7); xor(edx, edx); xsave(ptr(image)); vzeroall();
                fninit(); xrstor(ptr(image)); vextracti128(xmm4, ymm3, 1u32); vmovq(rbx, xmm4); fistp(qword_ptr(DATA + 0x40)))
        }))
        .poke(DATA + 16, &0x1122_3344_5566_7788u64.to_le_bytes())
        .gives(Rax, 7)
        .gives(Rdx, 0)
        .gives(Rbx, 0x1122_3344_5566_7788)
        .leaves(DATA + 0x40, &1u64.to_le_bytes()),
        with(Case::long("system/xrstor_of_initial_state", move |a| {
            emit!(a; movdqu(xmm3, xmmword_ptr(DATA)); mov(eax, 6); xor(edx, edx); xrstor(ptr(image)); movq(rbx, xmm3))
        }))
        .poke(DATA, &[1; 16])
        .poke(image + 24, &0x1f80u32.to_le_bytes())
        .gives(Rax, 6)
        .gives(Rdx, 0)
        .gives(Rbx, 0),
        with(Case::long("system/xsave_unaligned", |a| emit!(a; nop(); xsave(ptr(DATA + 16))))).raises(13, Some(0), 1),
        with(Case::long("system/xrstor_of_a_bad_header", move |a| {
            emit!(a; mov(eax, 7); xor(edx, edx); xrstor(ptr(image)))
        }))
            .poke(image + 520, &[1])
            .gives(Rax, 7)
            .gives(Rdx, 0)
            .raises(13, Some(0), 2),
        Case::long("system/xsave_disabled", move |a| emit!(a; nop(); xsave(ptr(image)))).raises(6, None, 1),
        Case::long("system/avx_disabled", |a| emit!(a; nop(); vaddps(xmm0, xmm1, xmm2))).raises(6, None, 1),
        with(Case::long("system/xsetbv", |a| {
            emit!(a; xor(ecx, ecx); mov(eax, 3); xor(edx, edx); xsetbv(); xgetbv(); vaddps(xmm0, xmm1, xmm2))
        }))
        .gives(Rcx, 0)
        .gives(Rax, 3)
        .gives(Rdx, 0)
        .raises(6, None, 5),
        with(Case::long("system/xsetbv_without_x87", |a| emit!(a; xor(ecx, ecx); mov(eax, 6); xor(edx, edx); xsetbv())))
            .gives(Rcx, 0)
            .gives(Rax, 6)
            .gives(Rdx, 0)
            .raises(13, Some(0), 3),
        Case::long("system/fxsave_and_fxrstor", move |a| {
            emit!(a; movdqu(xmm9, xmmword_ptr(DATA)); fldpi(); fxsave(ptr(image)); pxor(xmm9, xmm9); fninit(); fxrstor(ptr(image));
                movq(rax, xmm9); fistp(qword_ptr(DATA + 0x40)); mov(bl, byte_ptr(image + 4)))
        })
        .with(Rbx, 0)
        .poke(DATA, &0x0102_0304_0506_0708u64.to_le_bytes())
        .gives(Rax, 0x0102_0304_0506_0708)
        // Abridged: one register in use.
        .gives(Rbx, 0x80)
        .leaves(DATA + 0x40, &3u64.to_le_bytes()),
        Case::long("system/fxrstor_of_reserved_mxcsr", move |a| emit!(a; nop(); fxrstor(ptr(image))))
            .poke(image + 24, &[0, 0, 0, 0x80])
            .raises(13, Some(0), 1),
        Case::long("system/ldmxcsr_reserved", |a| emit!(a; nop(); ldmxcsr(dword_ptr(DATA))))
            .poke(DATA, &[0, 0, 0, 0x80])
            .raises(13, Some(0), 1),
        // Some processors have bit 17; MXCSR_MASK, as FXSAVE stores it, says that the guest's has not.
        Case::long("system/ldmxcsr_beyond_the_mask", |a| {
            emit!(a; stc(); ldmxcsr(dword_ptr(DATA + 4)); setc(al); ldmxcsr(dword_ptr(DATA)))
        })
            .with(Rax, 0)
            .poke(DATA, &0x2_1f80u32.to_le_bytes())
            .poke(DATA + 4, &0xffbfu32.to_le_bytes())
            .gives(Rax, 1)
            .raises(13, Some(0), 3),
        with(Case::long("system/vldmxcsr_beyond_the_mask", |a| emit!(a; nop(); vldmxcsr(dword_ptr(DATA)))))
            .poke(DATA, &0x2_1f80u32.to_le_bytes())
            .raises(13, Some(0), 1),
        with(Case::long("system/ldmxcsr_and_stmxcsr", |a| {
            emit!(a; ldmxcsr(dword_ptr(DATA)); stmxcsr(dword_ptr(DATA + 4)); vldmxcsr(dword_ptr(DATA + 0xffe));
                vstmxcsr(dword_ptr(DATA + 0x1ffe)))
        }))
        .poke(DATA, &0xffffu32.to_le_bytes())
        .poke(DATA + 0xffe, &0x1fc0u32.to_le_bytes())
        .leaves(DATA + 4, &0xffffu32.to_le_bytes())
        .leaves(DATA + 0x1ffe, &0x1fc0u32.to_le_bytes()),
        Case::long("system/fnstenv_masks_and_stores", |a| {
            emit!(a; fldcw(word_ptr(DATA)); fnstenv(ptr(DATA + 0x40)); fnstcw(word_ptr(DATA + 0x20)))
        })
        .poke(DATA, &0x372u16.to_le_bytes())
        .leaves(DATA + 0x40, &[0x72, 3])
        .leaves(DATA + 0x20, &[0x7f, 3]),
        Case::new(Mode::Long64, "system/vector_state_across_a_fault", |a| {
            emit!(a; movdqu(xmm5, xmmword_ptr(DATA)); mov(rax, qword_ptr(PLAY)); nop(); movq(rbx, xmm5); add(rsp, 48))
        })
        .handler(14, 2)
        .poke(DATA, &0x77u64.to_le_bytes())
        .map(PLAY + 0x1000, RAM, P | RW)
        .gives(Rbx, 0x77),
    ]
}
