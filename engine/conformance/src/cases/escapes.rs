//! Programs that map memory where the engine's own lies, and reach it in every way there is: they must find theirs.
//!
//! Not part of the suite: where the engine's memory is only the one who runs it knows ([`escapes`]).

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::{self, *};
use lodge_x86::bits::{cr0, cr4, rflags};

use crate::case::Case;
use crate::cases::crossings::{four, with_entry};
use crate::layout::{PLAY, RAM, ROOTS, STACK};
use crate::tables::{P, RW, US};

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The first page's content at the beginning.
const FIRST: u64 = 0x0000_5a01;
/// What a round leaves at offset 0x810.
const MARK: u64 = 0x1234;

/// Programs that use two pages from `page` on, which is a multiple of 4096 in the lower half. They run at CPL 3, four
/// rounds each, and whatever they leave is in memory of theirs.
pub fn escapes(page: u64) -> Vec<Case> {
    let mut all = Vec::new();
    for (name, body) in STORES {
        all.push(program(name, page, *body).leaves(RAM + 0x810, &MARK.to_le_bytes()));
    }
    for (name, body) in LOADS {
        all.push(program(name, page, *body).with(Rdi, 0).gives(Rdi, 4));
    }
    for (name, body) in STACKS {
        let case = program(name, page, move |a| {
            emit!(a; mov(r12, rsp); mov(r13d, MARK as i32))?;
            body(a)?;
            emit!(a; push(rax); mov(qword_ptr(rsp + 8), r13); pop(rcx); mov(rsp, r12))
        });
        // What was pushed was RAX, which is the page's address.
        all.push(case.leaves(RAM + 0x808, &page.to_le_bytes()).leaves(RAM + 0x810, &MARK.to_le_bytes()));
    }
    all.extend(returns(page));
    all.push(code(page));
    all.push(code_of_another_mode(page));
    all.push(stack_led_there(page));
    all.push(far_code(page));
    all
}

fn program(
    name: &str,
    page: u64,
    body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    let case = Case::long(&format!("escapes/{name}"), move |a| {
        // One access is to where a program usually is, and shows that the engine mirrors it.
        emit!(a; mov(r8, page); mov(rax, r8); mov(r14d, MARK as i32); mov(r15d, PLAY as u32); mov(r15, qword_ptr(r15)))?;
        four(a, &body)
    });
    prepare(case.user(), page)
}

/// What is not looked at in the end.
const USED: [Gpr; 15] = [Rax, Rcx, Rdx, Rbx, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15];

/// Memory, and registers that are not looked at.
fn prepare(case: Case, page: u64) -> Case {
    USED.into_iter()
        .fold(case, Case::any)
        .map(page, RAM, P | RW | US)
        .map(page + 0x1000, RAM + 0x1000, P | RW | US)
        .map(PLAY, RAM + 0x3000, P | RW | US)
        .poke(RAM, &FIRST.to_le_bytes())
        .poke(RAM + 0x3000, &MARK.to_le_bytes())
        .tweak(|state| {
            state.cr4 |= cr4::FSGSBASE | cr4::OSXSAVE;
            state.xcr0 = 7;
        })
}

/// Each stores [`MARK`] at offset 0x810. R8 and RAX are the page, R14 is the mark.
const STORES: &[(&str, Body)] = &[
    ("store", |a| emit!(a; mov(qword_ptr(r8 + 0x810), r14))),
    ("store_by_a_parked_base", |a| emit!(a; mov(r10, r8); mov(qword_ptr(r10 + 0x810), r14))),
    ("store_by_an_index", |a| emit!(a; mov(ecx, 0x102); mov(qword_ptr(r8 + rcx * 8), r14))),
    ("store_by_the_index_alone", |a| emit!(a; mov(rcx, r8); shr(rcx, 3u32); mov(qword_ptr(rcx * 8 + 0x810), r14))),
    (
        "store_by_two_halves",
        |a| emit!(a; mov(rcx, r8); shr(rcx, 1u32); mov(rdx, r8); sub(rdx, rcx); mov(qword_ptr(rcx + rdx + 0x810), r14)),
    ),
    (
        "store_by_a_far_displacement",
        |a| emit!(a; lea(rcx, ptr(r8 + 0x7fff_0000)); mov(qword_ptr(rcx - 0x7fff_0000 + 0x810), r14)),
    ),
    (
        "store_after_a_check_of_what_the_base_was",
        |a| emit!(a; mov(ecx, PLAY as u32); mov(rdx, qword_ptr(rcx)); mov(rcx, r8); mov(qword_ptr(rcx + 0x810), rdx)),
    ),
    ("store_by_a_base_that_was_added_to", |a| {
        emit!(a; mov(ecx, PLAY as u32); mov(rdx, qword_ptr(rcx)); lea(rsi, ptr(r8 - PLAY as i32)); add(rcx, rsi);
            mov(qword_ptr(rcx + 0x810), rdx))
    }),
    ("store_behind_a_branch", |a| {
        let mut over = a.create_label();
        emit!(a; mov(ecx, PLAY as u32); mov(rdx, qword_ptr(rcx)); cmp(ebx, 9); je(over); mov(rcx, r8);
            set_label(&mut over); mov(qword_ptr(rcx + 0x810), rdx))
    }),
    ("store_with_flags_live", |a| emit!(a; cmp(rbx, r8); mov(qword_ptr(r8 + 0x810), r14); adc(ecx, 0))),
    ("store_by_fs", |a| emit!(a; wrfsbase(r8); mov(ecx, 0x810); mov(qword_ptr(rcx).fs(), r14))),
    ("store_by_gs_alone", |a| emit!(a; wrgsbase(r8); mov(qword_ptr(0x810).gs(), r14))),
    ("exchange", |a| emit!(a; mov(rcx, r14); xchg(qword_ptr(r8 + 0x810), rcx))),
    (
        "exchange_and_add",
        |a| emit!(a; mov(qword_ptr(r8 + 0x810), 0); mov(rcx, r14); lock().xadd(qword_ptr(r8 + 0x810), rcx)),
    ),
    ("compare_and_exchange", |a| emit!(a; mov(rax, qword_ptr(r8 + 0x810)); lock().cmpxchg(qword_ptr(r8 + 0x810), r14))),
    ("store_of_a_vector", |a| emit!(a; movq(xmm0, r14); movups(xmmword_ptr(r8 + 0x810), xmm0))),
    (
        "store_of_chosen_bytes",
        |a| emit!(a; movq(xmm0, r14); pcmpeqd(xmm1, xmm1); lea(rdi, ptr(r8 + 0x810)); maskmovdqu(xmm0, xmm1)),
    ),
    ("store_from_the_stack", |a| emit!(a; push(r14); pop(qword_ptr(r8 + 0x810)))),
    ("string_store", |a| emit!(a; mov(rax, r14); lea(rdi, ptr(r8 + 0x810)); stosq())),
    ("repeated_string_store", |a| emit!(a; mov(rax, r14); lea(rdi, ptr(r8 + 0x810)); mov(ecx, 8); rep().stosq())),
    (
        "repeated_string_move",
        |a| emit!(a; mov(esi, PLAY as u32); lea(rdi, ptr(r8 + 0x810)); mov(ecx, 8); rep().movsb()),
    ),
    ("bit_of_a_string", |a| {
        emit!(a; mov(qword_ptr(r8 + 0x810), r14); btr(qword_ptr(r8 + 0x810), 2u32); mov(ecx, 0x810 * 8 + 2);
            bts(qword_ptr(r8), rcx))
    }),
    ("store_of_x87", |a| emit!(a; push(r14); fild(qword_ptr(rsp)); fistp(qword_ptr(r8 + 0x810)); pop(rcx))),
];

/// Each adds one to RDI, which is the page's first byte.
const LOADS: &[(&str, Body)] = &[
    ("load", |a| emit!(a; movzx(ecx, byte_ptr(r8)); add(rdi, rcx))),
    (
        "load_by_a_high_byte",
        |a| emit!(a; xor(ecx, ecx); mov(rdx, r8); mov(ch, byte_ptr(rdx)); shr(ecx, 8u32); add(rdi, rcx)),
    ),
    ("load_and_compare", |a| emit!(a; cmp(byte_ptr(r8), 1); setz(cl); movzx(ecx, cl); add(rdi, rcx))),
    ("load_by_a_push", |a| emit!(a; push(qword_ptr(r8)); pop(rcx); movzx(ecx, cl); add(rdi, rcx))),
    (
        "load_by_a_table",
        |a| emit!(a; push(rbx); mov(rbx, r8); xor(eax, eax); xlatb(); pop(rbx); movzx(ecx, al); add(rdi, rcx)),
    ),
    ("string_load", |a| emit!(a; mov(rsi, r8); lodsb(); movzx(ecx, al); add(rdi, rcx))),
    ("string_scan", |a| {
        emit!(a; mov(r9, rdi); mov(rdi, r8); mov(ecx, 9); mov(eax, 0x5a); repne().scasb(); sub(rdi, r8);
            lea(rdi, ptr(r9 + rdi - 1)))
    }),
    ("load_of_elements", |a| {
        // vpgatherdd xmm0, [r8+xmm1*1], xmm2
        emit!(a; vpxor(xmm1, xmm1, xmm1); vpcmpeqd(xmm2, xmm2, xmm2); db(&[0xc4, 0xc2, 0x69, 0x90, 0x04, 0x08]);
            vmovd(ecx, xmm0); movzx(ecx, cl); add(rdi, rcx))
    }),
    ("jump_by_a_table", |a| {
        let (mut here, mut there) = (a.create_label(), a.create_label());
        emit!(a; lea(rcx, ptr(there)); mov(qword_ptr(r8 + 0x20), rcx); jmp(qword_ptr(r8 + 0x20));
            set_label(&mut here); ud2(); set_label(&mut there); inc(rdi))
    }),
];

/// Each has RSP become the page and 0x810. R8 and RAX are the page.
const STACKS: &[(&str, Body)] = &[
    ("stack_by_lea", |a| emit!(a; lea(rsp, ptr(r8 + 0x810)))),
    ("stack_by_mov_and_add", |a| emit!(a; mov(rsp, r8); add(rsp, 0x810))),
    ("stack_by_mov", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); mov(rsp, rcx))),
    ("stack_by_exchange", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); xchg(rsp, rcx))),
    ("stack_by_pop", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); push(rcx); pop(rsp))),
    ("stack_by_leave", |a| emit!(a; lea(rcx, ptr(r8 + 0x808)); mov(rbp, rcx); mov(qword_ptr(rcx), r8); leave())),
    ("stack_by_a_register_added", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); sub(rcx, rsp); add(rsp, rcx))),
    ("stack_by_a_condition", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); test(rcx, rcx); cmovne(rsp, rcx))),
    ("stack_by_a_mask", |a| emit!(a; lea(rcx, ptr(r8 + 0x81f)); mov(rsp, rcx); and(rsp, -16))),
    ("stack_by_load", |a| emit!(a; lea(rcx, ptr(r8 + 0x810)); push(rcx); mov(rsp, qword_ptr(rsp)))),
    ("stack_by_many_steps", |a| {
        let mut again = a.create_label();
        emit!(a; lea(rcx, ptr(r8 + 0x810)); mov(rdx, rcx); mov(r9, 0x40_0000_0000u64); sub(rcx, r9); mov(rsp, rcx);
            set_label(&mut again); add(rsp, 0x4000_0000); cmp(rsp, rdx); jne(again))
    }),
    ("stack_by_enter", |a| emit!(a; lea(rcx, ptr(r8 + 0x818)); mov(rsp, rcx); enter(0, 0))),
];

/// The system returns to a program whose stack is there, in the last two rounds.
fn returns(page: u64) -> Vec<Case> {
    let case = |name: &str, leave: Body| {
        let user = Case::long(&format!("escapes/{name}"), move |a| {
            emit!(a; mov(r8, page); mov(r14d, MARK as i32); mov(r12, rsp))?;
            four(a, |a| emit!(a; syscall(); mov(qword_ptr(rsp), r14); push(r8); pop(r9); mov(rsp, r12)))
        });
        prepare(with_entry(user, leave), page)
            .leaves(RAM + 0x808, &page.to_le_bytes())
            .leaves(RAM + 0x810, &MARK.to_le_bytes())
    };
    vec![
        case("stack_by_sysret", |a| emit!(a; lea(rdx, ptr(r8 + 0x810)); cmp(ebx, 3); cmovb(rsp, rdx); sysretq())),
        case("stack_by_iret", |a| {
            emit!(a; lea(rdx, ptr(r8 + 0x810)); cmp(ebx, 3); cmovae(rdx, r12); mov(rsp, r12); push(0x2b); push(rdx);
                push(r11); push(0x33); push(rcx);
                iretq())
        }),
    ]
}

/// Code that lies there reaches what is around it.
fn code(page: u64) -> Case {
    // mov [rip+0x806], r14; lea rcx, [rip+0x7ff]; mov [rcx+8], r14; ret
    const CODE: [u8; 19] = [0x4c, 0x89, 0x35, 6, 8, 0, 0, 0x48, 0x8d, 0x0d, 0xff, 7, 0, 0, 0x4c, 0x89, 0x71, 8, 0xc3];
    program("code", page, |a| emit!(a; lea(rcx, ptr(r8 + 3)); call(rcx)))
        .poke(RAM + 3, &CODE)
        .leaves(RAM + 0x810, &MARK.to_le_bytes())
        .leaves(RAM + 0x818, &MARK.to_le_bytes())
}

/// Code that lies there is run with alignment checks, which no mirrored mode has, and then without: what is known of its
/// page by then is another mode's. The same code is known by another address.
fn code_of_another_mode(page: u64) -> Case {
    const ALIAS: u64 = PLAY + 0x37000;
    const AC: i32 = rflags::AC as i32;
    // mov [rip+0x709], r14; ret
    const CODE: [u8; 8] = [0x4c, 0x89, 0x35, 9, 7, 0, 0, 0xc3];
    let case = Case::long("escapes/code_of_another_mode", move |a| {
        emit!(a; mov(r8, page); mov(r14d, MARK as i32); mov(ecx, (ALIAS + 0x100) as u32); call(rcx); pushfq();
            or(qword_ptr(rsp), AC); popfq(); lea(rcx, ptr(r8 + 0x100)); call(rcx); pushfq();
            and(qword_ptr(rsp), !AC); popfq(); lea(rcx, ptr(r8 + 0x100)); call(rcx))
    });
    prepare(case.user(), page)
        .map(ALIAS, RAM, P | RW | US)
        .poke(RAM + 0x100, &CODE)
        .tweak(|state| state.cr0 |= cr0::AM)
        .leaves(RAM + 0x810, &MARK.to_le_bytes())
}

/// Where the engine's memory is: in one entry of the top-level table.
const ENTRY: u64 = 512 << 30;

/// All of the table's entry, and the last of the one before, are one page. A return at a time the stack pointer comes
/// from one end to where the engine's memory is, and every access on the way finds something. Each is from a block that
/// has just stored to that page in plain sight.
fn stack_led_there(page: u64) -> Case {
    const STEP: u64 = 0x1_0000;
    let begin = page & !(ENTRY - 1);
    let target = page + 0x800;
    let start = begin - 0x10_0000 + target % STEP;
    let count = (target - start) / STEP;
    let case = Case::long("escapes/stack_led_there_by_returns", move |a| {
        let (mut again, mut step, mut done) = (a.create_label(), a.create_label(), a.create_label());
        emit!(a; push(r12); pop(r12); mov(r8, page + 0x800); mov(r14d, MARK as i32); mov(r12, rsp); mov(r13, start); lea(rcx, ptr(step));
            mov(qword_ptr(r8), rcx); mov(ebx, 4); set_label(&mut again); mov(ecx, 3); cmp(ebx, 1);
            mov(edx, (count + 1) as u32); cmove(ecx, edx); mov(rsp, r13); jmp(step);
            // RET with 0xfff8 bytes more.
            set_label(&mut step); dec(ecx); je(done); mov(qword_ptr(r8 + 0x100), r14); db(&[0xc2, 0xf8, 0xff]);
            set_label(&mut done); mov(qword_ptr(rsp + 0x10), r14); mov(rsp, r12); dec(ebx); jne(again))
    });
    const ALL: u64 = P | RW | US;
    const TABLES: [u64; 4] = [RAM + 0x1_0000, RAM + 0x1_1000, RAM + 0x1_2000, RAM + 0x1_3000];
    let full = |to: u64| (0..512).flat_map(|_| (to | ALL).to_le_bytes()).collect::<Vec<u8>>();
    let case = USED.into_iter().fold(case.user(), Case::any);
    TABLES
        .windows(2)
        .fold(case, |case, pair| case.poke(pair[0], &full(pair[1])))
        .map_in(0, 4, begin, TABLES[0], ALL)
        .map_in(0, 4, begin - 0x1000, TABLES[0], ALL)
        .leaves(TABLES[3] + 0x810, &MARK.to_le_bytes())
}

/// Pages a gibibyte apart, each of which jumps to the next; the first is known by an address below the engine's memory
/// and then taken from there, but for a space with another identifier. Run from there it must not find the way that it
/// has from where it is now.
fn far_code(page: u64) -> Case {
    const FAR: u64 = 1 << 30;
    const M: u64 = 0x180_0000_0000;
    const ALL: u64 = P | RW | US | 0x20;
    const TABLES: u64 = RAM + 0x10_0000;
    let last = page % ENTRY / FAR + 1;
    let first = page - last * FAR;
    let (upper, [lower3, lower2, lower1]) = (RAM + 0x1_0000, [RAM + 0x1_1000, RAM + 0x1_2000, RAM + 0x1_3000]);
    let number = |shift: u32| (first >> shift & 511) * 8;
    let entry = lower1 + number(12);
    let user = Case::long("escapes/far_code", move |a| {
        emit!(a; mov(r8, first + 0x100); mov(r9, M + 0x100); mov(r14d, MARK as i32); mov(r12, ROOTS[0]);
            lea(rdi, ptr(r12 + 2)); syscall(); xor(esi, esi); call(r8); xor(esi, esi); call(r8); mov(eax, entry as u32);
            mov(qword_ptr(rax), 0); lea(rdi, ptr(r12 + 1)); syscall(); lea(rdi, ptr(r12 + 2)); bts(rdi, 63u32);
            syscall(); mov(esi, 1); call(r9); mov(esi, 1); call(r9); mov(esi, 1); call(r8))
    });
    let case = with_entry(user, |a| emit!(a; mov(cr3, rdi); sysretq()));
    let case = USED.into_iter().fold(case, Case::any).tweak(|state| state.cr4 |= cr4::PCIDE);
    let leads = |case: Case, at: u64, to: u64| case.poke(at, &(to | ALL).to_le_bytes());
    let case = leads(case, lower3 + number(30), lower2);
    let case = leads(case, lower2 + number(21), lower1);
    let case = leads(case, entry, TABLES + 0x2000);
    (0..=last)
        .fold(case, |case, n| {
            let table = TABLES + n * 0x3000;
            let case = leads(case, upper + n * 8, table);
            let case = leads(case, table, table + 0x1000);
            let case = leads(case, table + 0x1000, table + 0x2000);
            // test esi, esi; je to the end; jmp to the next page; ret. In all but the first: from the jump on.
            let next = (FAR as u32 - 5).to_le_bytes();
            let mut code = vec![0x85, 0xf6, 0x74, 5, 0xe9, next[0], next[1], next[2], next[3], 0xc3];
            if n == last {
                // mov [rip+0x705], r14; ret
                code.splice(4.., [0x4c, 0x89, 0x35, 5, 7, 0, 0, 0xc3]);
            }
            case.poke(table + 0x2100, &code)
        })
        .map_in(0, 4, M, upper, ALL)
        .map_in(0, 4, first, lower3, ALL)
        .gives(Rsp, STACK - 8)
        .page_fault_at(0x14, first + FAR + 0x104, first + FAR + 0x104)
}
