//! Ordinary instructions: registers in every position, flags, the stack, bits, and forms that 64-bit mode lacks.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::rflags;

use crate::case::{Case, Ending, Mode};
use crate::layout::DATA;

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = basics();
    all.extend(parked());
    all.extend(stack_pointer());
    all.extend(frames());
    all.extend(bits());
    all.extend(extensions());
    all.extend(legacy());
    all.extend(branches());
    all
}

const ALL: u64 = rflags::ARITHMETIC;

fn basics() -> Vec<Case> {
    vec![
        Case::long("integer/add_carries", |a| emit!(a; mov(eax, -1); add(eax, 1)))
            .gives(Rax, 0)
            .flags(ALL, rflags::CF | rflags::ZF | rflags::PF | rflags::AF),
        Case::long(
            "integer/flags_live_across_memory_access",
            |a| emit!(a; mov(al, 0x7f); add(al, 1); mov(ecx, dword_ptr(DATA)); mov(dword_ptr(DATA + 8), ecx); nop()),
        )
        .with(Rax, 0)
        .poke(DATA, &[1, 2, 3, 4])
        .gives(Rax, 0x80)
        .gives(Rcx, 0x0403_0201)
        .leaves(DATA + 8, &[1, 2, 3, 4])
        .flags(ALL, rflags::OF | rflags::SF | rflags::AF),
        Case::long(
            "integer/carry_lives_through_inc_and_loads",
            |a| emit!(a; stc(); mov(rcx, qword_ptr(DATA)); inc(rcx); adc(rdx, 0); dec(qword_ptr(DATA)); adc(rdx, 0)),
        )
        .with(Rdx, 10)
        .poke(DATA, &5u64.to_le_bytes())
        .gives(Rcx, 6)
        .gives(Rdx, 11)
        .leaves(DATA, &4u64.to_le_bytes()),
        Case::long("integer/writes_of_32_bits_clear_the_upper_half", |a| {
            emit!(a; mov(r10d, eax); mov(r11d, dword_ptr(DATA)); xchg(eax, eax); cmovne(ecx, eax); cmp(eax, eax);
                cmovne(edx, eax))
        })
        .with(Rax, u64::MAX)
        .with(Rcx, u64::MAX)
        .with(Rdx, u64::MAX)
        .tweak(|state| state.rflags |= rflags::ZF)
        .gives(R10, 0xffff_ffff)
        .gives(R11, 0)
        // XCHG EAX, EAX (90) is a NOP; CMOVcc clears the upper half even where it does not move.
        .gives(Rcx, 0xffff_ffff)
        .gives(Rdx, 0xffff_ffff)
        .flags(rflags::ZF, rflags::ZF),
        Case::long("integer/high_bytes", |a| {
            emit!(a; mov(ah, 0x12); mov(bh, ah); add(ch, bh); mov(dh, byte_ptr(DATA)); mov(byte_ptr(DATA + 1), bh);
                xchg(ah, al); movzx(esi, dh); xadd(ch, dh))
        })
        .with(Rax, 0x34)
        .with(Rbx, 0)
        .with(Rcx, 0x100)
        .with(Rdx, 0)
        .poke(DATA, &[0x77])
        .gives(Rax, 0x3412)
        .gives(Rbx, 0x1200)
        .gives(Rcx, 0x8a00)
        .gives(Rdx, 0x1300)
        .gives(Rsi, 0x77)
        .leaves(DATA, &[0x77, 0x12]),
        Case::long("integer/high_bytes_in_memory", |a| {
            // An engine that moves the base elsewhere must not need a REX prefix for it: AH would become SPL.
            emit!(a; mov(byte_ptr(rdx), ah); mov(bh, byte_ptr(rsi + rdi)); add(byte_ptr(rsp - 16), ch);
                mov(ch, byte_ptr(rsp - 16)); xchg(byte_ptr(rbp + 1), dh))
        })
        .with(Rdx, DATA)
        .with(Rbp, DATA)
        .with(Rsi, DATA)
        .with(Rdi, 4)
        .with(Rcx, 0x200)
        .with(Rax, 0xab00)
        .with(Rbx, 0)
        .poke(DATA + 1, &[0x77])
        .poke(DATA + 4, &[0xcd])
        .poke(Mode::Long64.stack() - 16, &[5])
        .gives(Rbx, 0xcd00)
        .gives(Rcx, 0x700)
        .gives(Rdx, DATA & !0xff00 | 0x7700)
        .leaves(DATA, &[0xab, 0]),
        Case::long(
            "integer/high_bytes_into_rsp",
            |a| emit!(a; mov(rdx, rsp); movzx(esp, bh); mov(ecx, esp); movsx(sp, bh); mov(esi, esp); mov(rsp, rdx)),
        )
        .with(Rbx, 0xfe00)
        .gives(Rdx, Mode::Long64.stack())
        .gives(Rcx, 0xfe)
        .gives(Rsi, 0xfffe),
        Case::long("integer/divide_128_bits", |a| emit!(a; div(r10); mov(r11, rax)))
            .with(Rdx, 1)
            .with(Rax, 0)
            .with(R10, 2)
            .gives(Rax, 1 << 63)
            .gives(Rdx, 0)
            .gives(R11, 1 << 63),
        Case::long(
            "integer/multiply_wide_and_mulx",
            |a| emit!(a; mul(r15); mov(r10, rdx); mov(rdx, 3u64); mulx(r11, r12, r15)),
        )
        .with(Rax, u64::MAX)
        .with(R15, u64::MAX)
        .gives(Rax, 1)
        .gives(R10, u64::MAX - 1)
        .gives(Rdx, 3)
        .gives(R11, 2)
        .gives(R12, u64::MAX - 2),
        Case::long(
            "integer/cmpxchg16b",
            |a| emit!(a; cmpxchg16b(xmmword_ptr(r15)); lock().cmpxchg16b(xmmword_ptr(r15))),
        )
        .with(Rax, 1)
        .with(Rdx, 2)
        .with(Rbx, 3)
        .with(Rcx, 4)
        .with(R15, DATA)
        .poke(DATA, &[1u64.to_le_bytes(), 2u64.to_le_bytes()].concat())
        .leaves(DATA, &[3u64.to_le_bytes(), 4u64.to_le_bytes()].concat())
        .gives(Rax, 3)
        .gives(Rdx, 4)
        .flags(rflags::ZF, 0),
    ]
}

/// R10, R11 and R15 (or whichever an engine keeps elsewhere) in every position of an operand.
fn parked() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, number, base) in [
        ("rcx", Rcx, rcx),
        ("rsp", Rsp, rsp),
        ("r10", R10, r10),
        ("r11", R11, r11),
        ("r14", R14, r14),
        ("r15", R15, r15),
    ] {
        all.push(
            Case::long(&format!("integer/{name}_as_base"), move |a| {
                emit!(a; mov(rax, qword_ptr(base + 8)); mov(qword_ptr(base + 16), rax); add(qword_ptr(base), 1))
            })
            .with(number, DATA)
            .poke(DATA + 8, &0x1122_3344_5566_7788u64.to_le_bytes())
            .gives(Rax, 0x1122_3344_5566_7788)
            .leaves(DATA, &1u64.to_le_bytes())
            .leaves(DATA + 16, &0x1122_3344_5566_7788u64.to_le_bytes()),
        );
        if number != Rsp {
            all.push(
                Case::long(&format!("integer/{name}_as_index_and_base"), move |a| {
                    emit!(a; mov(rax, qword_ptr(base + base * 1)); mov(edx, dword_ptr(DATA - 0x40 + base * 4));
                        lea(rbx, qword_ptr(base + base * 8 + 1)))
                })
                .with(number, 0x10)
                .poke(DATA, &[9, 8, 7, 6])
                .entry(0, 1, 0, 0)
                .gives(Rax, 0)
                .gives(Rdx, 0x0607_0809)
                .gives(Rbx, 0x91),
            );
            all.push(
                Case::long(&format!("integer/{name}_as_memory_source_and_base"), move |a| {
                    emit!(a; mov(qword_ptr(base), base); xchg(qword_ptr(base), base); mov(base, qword_ptr(base + 8)))
                })
                .with(number, DATA)
                .poke(DATA + 8, &0x55u64.to_le_bytes())
                .gives(number, 0x55)
                .leaves(DATA, &DATA.to_le_bytes()),
            );
        }
        all.push(
            Case::long(&format!("integer/{name}_as_destination"), move |a| {
                emit!(a; mov(rax, base); mov(base, DATA); add(base, 7); imul_3(base, base, 3); bswap(base);
                    mov(rdx, base); mov(base, rax))
            })
            .with(number, DATA + 0x80)
            .gives(Rax, DATA + 0x80)
            .gives(Rdx, ((DATA + 7) * 3).swap_bytes()),
        );
    }
    for (name, number, count) in [("r10", R10, r10b), ("r11", R11, r11b), ("r15", R15, r15b)] {
        all.push(
            Case::long(
                &format!("integer/{name}_as_byte"),
                move |a| emit!(a; add(count, 1); setc(count); adc(count, byte_ptr(DATA)); xchg(byte_ptr(DATA), count)),
            )
            .with(number, 0x5500_0000_0000_00ff)
            .poke(DATA, &[0x40])
            .gives(number, 0x5500_0000_0000_0040)
            .leaves(DATA, &[0x42]),
        );
    }
    all.push(
        Case::long("integer/all_parked_together", |a| {
            emit!(a; lea(r10, qword_ptr(r11 + r15 * 2 + 3)); mov(dword_ptr(r10 + r15), r11d); cmpxchg(qword_ptr(r10), r15);
                xadd(qword_ptr(r10), r11); shld(r10, r15, 4); mulx(r11, r15, r10))
        })
        .with(R11, DATA)
        .with(R15, 0x20)
        .with(Rax, 0)
        .with(Rdx, 1)
        .gives(R10, (DATA + 0x43) << 4)
        .gives(R11, 0)
        .gives(R15, (DATA + 0x43) << 4)
        .leaves(DATA + 0x43, &(DATA + 0x20).to_le_bytes())
        .leaves(DATA + 0x63, &(DATA as u32).to_le_bytes()),
    );
    all
}

fn stack_pointer() -> Vec<Case> {
    let top = Mode::Long64.stack();
    vec![
        Case::long(
            "integer/push_and_pop_of_rsp",
            |a| emit!(a; push(rsp); pop(rax); push(rbx); mov(rcx, rsp); pop(rsp)),
        )
        .with(Rbx, 0x3_b000)
        .gives(Rax, top)
        .gives(Rcx, top - 8)
        .gives(Rsp, 0x3_b000),
        Case::long("integer/push_and_pop_memory", |a| {
            emit!(a; push(qword_ptr(rsp + 8)); pop(qword_ptr(rsp + 8)); push(qword_ptr(DATA)); pop(rax);
                push(0x1234); pop(qword_ptr(rsp)))
        })
        .poke(top + 8, &7u64.to_le_bytes())
        .poke(DATA, &9u64.to_le_bytes())
        .gives(Rax, 9)
        // POP computes its address after it has moved RSP (SDM 2B "POP").
        .leaves(top + 8, &7u64.to_le_bytes())
        .leaves(top, &0x1234u64.to_le_bytes()),
        Case::long(
            "integer/push_of_immediates_extends_the_sign",
            |a| emit!(a; push(-2); pop(rax); db(&[0x66, 0x6a, 0xfe]); pop(cx)),
        )
        .with(Rcx, 0)
        .gives(Rax, u64::MAX - 1)
        .gives(Rcx, 0xfffe),
        Case::long("integer/arithmetic_on_rsp", |a| {
            emit!(a; sub(rsp, 0x20); mov(qword_ptr(rsp + 0x18), rsp); and(rsp, -64); mov(eax, esp); add(rsp, 0x40);
                lea(rsp, qword_ptr(rsp - 0x20)))
        })
        .gives(Rax, (top - 0x20) & !63)
        .gives(Rsp, ((top - 0x20) & !63) + 0x20)
        .leaves(top - 8, &(top - 0x20).to_le_bytes()),
        Case::long(
            "integer/xchg_rsp",
            |a| emit!(a; xchg(rsp, rax); xchg(qword_ptr(rsp), rsp); mov(rbx, rsp); mov(rsp, rax)),
        )
        .with(Rax, DATA)
        .poke(DATA, &(DATA + 0x800).to_le_bytes())
        .gives(Rax, top)
        .gives(Rbx, DATA + 0x800)
        .leaves(DATA, &DATA.to_le_bytes()),
        Case::long("integer/pushfq_popfq", |a| emit!(a; push(0x8d5); popfq(); pushfq(); pop(rax); push(2); popfq()))
            .gives(Rax, 0x8d7)
            .flags(ALL, 0),
    ]
}

/// Ends a case without a frame on its stack: out STOP, al; jmp $.
const STOP: [u8; 4] = [0xe6, crate::layout::port::STOP as u8, 0xeb, 0xfe];

fn frames() -> Vec<Case> {
    let top = Mode::Long64.stack();
    let flat = Mode::Protected32.stack();
    let mut all = vec![
        Case::long("integer/enter_and_leave", |a| emit!(a; enter(0x20, 0); mov(rax, rsp); mov(rcx, rbp); leave()))
            .gives(Rax, top - 8 - 0x20)
            .gives(Rcx, top - 8),
        Case::long(
            "integer/enter_nested",
            |a| emit!(a; enter(0x10, 3); mov(rax, rsp); mov(rcx, rbp); mov(rsp, rbp); pop(rbp)),
        )
        .with(Rbp, DATA + 0x100)
        .poke(DATA + 0x100 - 16, &[0x22u64.to_le_bytes(), 0x11u64.to_le_bytes()].concat())
        .gives(Rax, top - 8 - 24 - 0x10)
        .gives(Rcx, top - 8)
        .leaves(top - 32, &[(top - 8).to_le_bytes(), 0x22u64.to_le_bytes(), 0x11u64.to_le_bytes()].concat()),
        Case::flat(
            "integer/pushad_popad",
            |a| emit!(a; pushad(); mov(eax, 0); mov(ebx, 0); mov(edi, 0); popad(); db(&STOP)),
        )
        .ends(Ending::Stop)
        .leaves(flat - 20, &(flat as u32).to_le_bytes())
        .leaves(flat - 4, &0x4b5a_6900u32.to_le_bytes()),
        Case::flat("integer/pusha_16", |a| emit!(a; pusha(); add(esp, 16); db(&STOP)))
            .ends(Ending::Stop)
            .leaves(flat - 2, &0x6900u16.to_le_bytes())
            .leaves(flat - 16, &0x7007u16.to_le_bytes()),
    ];
    all.push(
        Case::flat("integer/enter_32_nested", |a| emit!(a; enter(8, 2); mov(eax, esp); leave(); db(&STOP)))
            .ends(Ending::Stop)
            .with(Rbp, DATA + 0x100)
            .poke(DATA + 0xfc, &0x77u32.to_le_bytes())
            .gives(Rax, flat - 4 - 8 - 8)
            .leaves(flat - 12, &[(flat as u32 - 4).to_le_bytes(), 0x77u32.to_le_bytes()].concat()),
    );
    all.push(
        Case::real(
            "integer/stack_pointer_wraps_in_real_mode",
            |a| emit!(a; push(ax); pop(bx); pop(cx); push(cx); db(&STOP)),
        )
        .ends(Ending::Stop)
        .with(Rsp, 0)
        .with(Rcx, 0)
        .gives(Rbx, 0x4b5a_6900)
        .with(Rbx, 0x4b5a_0000)
        .poke(crate::layout::STACKS, &[0x34, 0x12])
        .gives(Rcx, 0x1234)
        .leaves(crate::layout::STACKS + 0xfffe, &[0x00, 0x69]),
    );
    all
}

fn bits() -> Vec<Case> {
    vec![
        Case::long("integer/bt_reaches_beyond_its_operand", |a| {
            emit!(a; bts(qword_ptr(DATA + 0x100), rax); btr(dword_ptr(DATA + 0x100), ecx); setc(dl);
                btc(word_ptr(DATA), si))
        })
        .with(Rax, 64 * 5 + 3)
        .with(Rcx, (-65i64) as u64)
        .with(Rdx, 0)
        .with(Rsi, 17)
        .poke(DATA + 0x100 - 12, &[0xff, 0xff, 0xff, 0xff])
        .gives(Rdx, 1)
        .leaves(DATA + 0x100 + 40, &[8])
        .leaves(DATA + 0x100 - 12, &[0xff, 0xff, 0xff, 0x7f])
        .leaves(DATA, &[0, 0, 2, 0]),
        Case::long(
            "integer/bt_with_parked_offset",
            |a| emit!(a; lock().bts(qword_ptr(r10), r11); bt(qword_ptr(r15), r15); setc(al)),
        )
        .with(Rax, 0)
        .with(R10, DATA)
        .with(R11, 200)
        .with(R15, DATA)
        .poke(DATA + DATA / 8, &[1])
        .gives(Rax, 1)
        .leaves(DATA + 24, &[0, 1]),
        Case::long(
            "integer/bt_immediate_stays_inside",
            |a| emit!(a; bts(dword_ptr(DATA), 35u32); bt(eax, 33u32); setc(cl)),
        )
        .with(Rax, 2)
        .with(Rcx, 0)
        .gives(Rcx, 1)
        .leaves(DATA, &[8, 0, 0, 0, 0]),
        Case::long("integer/bmi", |a| {
            emit!(a; andn(r10, r11, qword_ptr(DATA)); blsr(r15, r10); pdep(rax, rbx, r15); bextr(rcx, r11, rdx);
                rorx(r12, r11, 8); shlx(r13, qword_ptr(DATA + 8), r10))
        })
        .with(R11, 0xff00)
        .with(Rbx, 5)
        .with(Rdx, 0x0408)
        .poke(DATA, &0xf0f0u64.to_le_bytes())
        .poke(DATA + 8, &4u64.to_le_bytes())
        .gives(R10, 0xf0)
        .gives(R15, 0xe0)
        .gives(Rax, 0xa0)
        .gives(Rcx, 0xf)
        .gives(R12, 0xff)
        .gives(R13, 4 << 0x30),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        // 66 63 /r is MOVSXD of 16 bits, 63 /r of 32 to 32, and 48 63 /r of 32 to 64 (SDM 2, MOVSXD).
        Case::long("integer/movsxd_of_all_widths", |a| {
            emit!(a; db(&[0x66, 0x63, 0xc3]); db(&[0x63, 0xcb]); db(&[0x48, 0x63, 0xd3]); db(&[0x66, 0x45, 0x63, 0xd3]);
                db(&[0x45, 0x63, 0xfb]); db(&[0x4d, 0x63, 0xc3]))
        })
        .with(Rax, u64::MAX)
        .with(Rbx, 0x1_8765_4321)
        .with(Rcx, u64::MAX)
        .with(R10, u64::MAX)
        .with(R11, 0x1_8765_4321)
        .gives(Rax, 0xffff_ffff_ffff_4321)
        .gives(Rcx, 0x8765_4321)
        .gives(Rdx, 0xffff_ffff_8765_4321)
        .gives(R10, 0xffff_ffff_ffff_4321)
        .gives(R15, 0x8765_4321)
        .gives(R8, 0xffff_ffff_8765_4321),
        Case::long(
            "integer/movsxd_of_memory",
            |a| emit!(a; db(&[0x66, 0x63, 0x03]); db(&[0x63, 0x0b]); db(&[0x48, 0x63, 0x13]); db(&[0x44, 0x63, 0x1b])),
        )
        .with(Rax, u64::MAX)
        .with(Rbx, DATA + 0xffd)
        .with(Rcx, u64::MAX)
        .with(R11, u64::MAX)
        .poke(DATA + 0xffd, &0x8765_4321u32.to_le_bytes())
        .gives(Rax, 0xffff_ffff_ffff_4321)
        .gives(Rcx, 0x8765_4321)
        .gives(Rdx, 0xffff_ffff_8765_4321)
        .gives(R11, 0x8765_4321),
    ]
}

fn legacy() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in [Mode::Real16, Mode::V86, Mode::Protected16, Mode::Protected32, Mode::Compat32] {
        let case = |name: &str, f: fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>| {
            Case::new(mode, format!("integer/{name}_{mode:?}"), f).with(Rax, 0).with(Rbx, 0).with(Rcx, 0)
        };
        all.push(
            case(
                "daa_das",
                |a| emit!(a; mov(al, 0x79); add(al, 0x35); daa(); setc(bl); mov(cl, al); sub(al, 0x47); das()),
            )
            .gives(Rax, 0x67)
            .gives(Rbx, 1)
            .gives(Rcx, 0x14)
            .flags(rflags::CF | rflags::ZF | rflags::SF, rflags::CF),
        );
        all.push(
            case("aaa_aas", |a| emit!(a; mov(ax, 0x0a); aaa(); mov(bx, ax); mov(ax, 0x1ff); aas()))
                .gives(Rax, 0x0009)
                .gives(Rbx, 0x0100)
                .flags(rflags::CF | rflags::AF, rflags::CF | rflags::AF),
        );
        all.push(
            case("aam_aad", |a| emit!(a; mov(al, 99); aam(10); mov(bx, ax); aad(16)))
                .gives(Rax, 0x99)
                .gives(Rbx, 0x0909)
                .flags(rflags::ZF | rflags::SF | rflags::PF, rflags::SF | rflags::PF),
        );
        all.push(case("salc", |a| emit!(a; stc(); db(&[0xd6]); mov(bl, al); clc(); db(&[0xd6]))).gives(Rbx, 0xff));
        all.push(
            case("pushes_segments", |a| {
                emit!(a; push(ds); pop(es); push(fs); pop(gs); mov(ax, sp); push(cs); pop(cx); mov(sp, ax); mov(ax, cs);
                    sub(cx, ax))
            })
            .any(Rax)
            .any(Rcx)
            .flags(rflags::ZF, rflags::ZF),
        );
        all.push(
            case("jcxz_and_loop", |a| {
                let (mut first, mut second) = (a.create_label(), a.create_label());
                emit!(a; mov(cx, 5); set_label(&mut first); inc(bx); loop_(first); jcxz(second); mov(bx, 0);
                    set_label(&mut second); nop())
            })
            .any(Rcx)
            .gives(Rbx, 5),
        );
    }
    // LES, LDS and LSS; BOUND that holds.
    all.push(
        Case::real("integer/lds_les_lss", |a| emit!(a; les(bx, dword_ptr(0)); mov(cx, word_ptr(bx).es()); nop()))
            .with(Rbx, 0)
            .with(Rcx, 0)
            .poke(DATA, &[0x10, 0, 0x00, 0x21])
            .poke(DATA + 0x1010, &[0xcd, 0xab])
            .gives(Rbx, 0x10)
            .gives(Rcx, 0xabcd),
    );
    all.push(
        Case::flat("integer/xlat_with_segment", |a| emit!(a; xlatb()))
            .with(Rbx, DATA)
            .with(Rax, 7)
            .poke(DATA + 7, &[0x99])
            .gives(Rax, 0x99),
    );
    all
}

fn branches() -> Vec<Case> {
    vec![
        Case::long("integer/call_and_ret", |a| {
            let (mut over, mut sub) = (a.create_label(), a.create_label());
            emit!(a; mov(ecx, 100); jmp(over); set_label(&mut sub); add(rax, 3); ret(); set_label(&mut over); call(sub);
                dec(ecx); jne(over))
        })
        .with(Rax, 0)
        .gives(Rax, 300)
        .gives(Rcx, 0),
        Case::long("integer/ret_with_immediate_and_odd_address", |a| {
            let (mut over, mut sub, mut out) = (a.create_label(), a.create_label(), a.create_label());
            emit!(a; jmp(over); set_label(&mut sub); lea(rdx, ptr(out)); mov(qword_ptr(rsp), rdx); ret_1(0x10);
                set_label(&mut over); push(1); push(2); call(sub); ud2(); set_label(&mut out); nop())
        })
        .any(Rdx),
        Case::long("integer/indirect_calls_through_every_form", |a| {
            let (mut over, mut sub) = (a.create_label(), a.create_label());
            emit!(a; jmp(over); set_label(&mut sub); inc(rax); ret(); set_label(&mut over); lea(r11, ptr(sub)); call(r11);
                mov(qword_ptr(DATA), r11); call(qword_ptr(DATA)); mov(r10, DATA); call(qword_ptr(r10)); push(r11);
                call(qword_ptr(rsp)); pop(r15); call(r15); mov(qword_ptr(rsp - 0x100), r15); call(qword_ptr(rsp - 0x100)))
        })
        .with(Rax, 0)
        .gives(Rax, 6)
        .any(R11)
        .gives(R10, DATA)
        .any(R15),
        Case::long("integer/loop_with_address_size", |a| {
            let mut top = a.create_label();
            emit!(a; set_label(&mut top); inc(rax); db(&[0x67]); loop_(top))
        })
        .with(Rax, 0)
        .with(Rcx, 0x1_0000_0003)
        .gives(Rax, 3)
        .gives(Rcx, 0),
        Case::long("integer/loope_keeps_flags", |a| {
            let mut top = a.create_label();
            emit!(a; xor(eax, eax); stc(); set_label(&mut top); inc(rdx); cmp(rdx, 5); loopne(top); setc(al))
        })
        .with(Rdx, 0)
        .with(Rcx, 100)
        .gives(Rax, 0)
        .gives(Rdx, 5)
        .gives(Rcx, 95)
        .flags(rflags::ZF, rflags::ZF),
        Case::long("integer/retpoline", |a| {
            let (mut thunk, mut capture, mut set, mut target, mut over) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label(), a.create_label());
            emit!(a; jmp(over); set_label(&mut thunk); call(set); set_label(&mut capture); pause(); lfence(); jmp(capture);
                set_label(&mut set); mov(qword_ptr(rsp), rax); ret(); set_label(&mut target); mov(ecx, 77); ret();
                set_label(&mut over); lea(rax, ptr(target)); call(thunk))
        })
        .any(Rax)
        .gives(Rcx, 77),
    ]
}
