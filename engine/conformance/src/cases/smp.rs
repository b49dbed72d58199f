//! Several processors: start-up, memory between them, translations that one changes under another.

use iced_x86::code_asm::*;
use lodge_engine_api::Event;
use lodge_x86::Gpr::*;

use crate::case::Case;
use crate::layout::{CODE, DATA, port};

/// Where a start-up IPI with vector 0x0a begins.
const SECOND: u64 = 0xa000;

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let start = |case: Case| case.processors(2).event_for(1, Event::Init).event_for(1, Event::StartUp(0xa));
    vec![
        start(Case::long("smp/start_up", |a| {
            let mut wait = a.create_label();
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al); set_label(&mut wait);
                pause(); cmp(dword_ptr(DATA), 0); je(wait); mov(ebx, dword_ptr(DATA)))
        }))
        // mov ax, 0x2000; mov ds, ax; mov bx, cs; mov [0], bx; hlt
        .poke(SECOND, &[0xb8, 0x00, 0x20, 0x8e, 0xd8, 0x8c, 0xcb, 0x89, 0x1e, 0, 0, 0xf4])
        .gives(Rax, 1)
        .gives(Rbx, 0xa00),
        start(Case::long("smp/locked_counter", |a| {
            let (mut again, mut wait) = (a.create_label(), a.create_label());
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al); mov(ecx, 20000);
                set_label(&mut again); lock().inc(word_ptr(DATA)); dec(ecx); jne(again); set_label(&mut wait); pause();
                cmp(word_ptr(DATA + 2), 0); je(wait); movzx(ebx, word_ptr(DATA)))
        }))
        // mov ax, 0x2000; mov ds, ax; mov cx, 20000; l: lock inc word [0]; loop l; mov byte [2], 1; hlt
        .poke(
            SECOND,
            &[
                0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xb9, 0x20, 0x4e, 0xf0, 0xff, 0x06, 0, 0, 0xe2, 0xf9, 0xc6, 0x06, 2, 0, 1, 0xf4,
            ],
        )
        .gives(Rax, 1)
        .gives(Rcx, 0)
        .gives(Rbx, 40000),
        start(Case::long("smp/one_changes_the_others_code", |a| {
            // The other loops until its code is changed, then says so.
            let (mut first, mut wait) = (a.create_label(), a.create_label());
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al);
                set_label(&mut first); pause(); cmp(byte_ptr(DATA), 0); je(first); mov(byte_ptr(SECOND + 10), 0u32);
                set_label(&mut wait); pause(); cmp(byte_ptr(DATA + 1), 0); je(wait))
        }))
        // mov ax, 0x2000; mov ds, ax; l: mov byte [0], 1 -- c6 06 00 00 01; then jmp l (eb f9 becomes eb 00); mov byte [1], 1; hlt
        .poke(SECOND, &[0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xfe, 0x06, 0, 0, 0xeb, 0xfa, 0xc6, 0x06, 1, 0, 1, 0xf4])
        .gives(Rax, 1),
        Case::long("smp/interrupt_between_processors", |a| {
            let mut wait = a.create_label();
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al); sti();
                set_label(&mut wait); pause(); jmp(wait))
        })
        .processors(2)
        .event_for(1, Event::Init)
        .event_for(1, Event::StartUp(0xa))
        .event_for(0, Event::Interrupt(0x40))
        // mov al, 2; out EVENT, al; hlt
        .poke(SECOND, &[0xb0, 2, 0xe6, port::EVENT as u8, 0xf4])
        .gives(Rax, 1)
        .ends(crate::case::Ending::Vector { vector: 0x40, error: None, rip: crate::case::Place::Any }),
        start(Case::long("smp/second_start_up_is_ignored", |a| {
            let mut wait = a.create_label();
            emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al);
                out(port::EVENT as u32, al); set_label(&mut wait); pause(); cmp(byte_ptr(DATA + 1), 0); je(wait);
                mov(ecx, 100_000); mov(ebx, CODE as u32); db(&[0xe2, 0xfe]); mov(bl, byte_ptr(DATA)))
        }))
        // mov ax, 0x2000; mov ds, ax; inc byte [0]; mov cx, 2000; loop $; mov byte [1], 1; hlt
        .poke(SECOND, &[0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xfe, 0x06, 0, 0, 0xb9, 0xd0, 7, 0xe2, 0xfe, 0xc6, 0x06, 1, 0, 1, 0xf4])
        .gives(Rax, 1)
        .gives(Rcx, 0)
        .gives(Rbx, CODE & !0xff | 1),
        one_writes_what_the_other_runs(start),
    ]
}

/// Before each round one processor writes the function that the other is about to call, in turn each of those that share
/// a page, and data beside them.
fn one_writes_what_the_other_runs(start: impl Fn(Case) -> Case) -> Case {
    const ROUNDS: u32 = 500;
    const FUNCTIONS: u32 = 32;
    const PAGE: u32 = 0xb000;
    let case = Case::long("smp/one_writes_what_the_other_runs_next", |a| {
        let (mut round, mut wait) = (a.create_label(), a.create_label());
        emit!(a; xor(eax, eax); out(port::EVENT as u32, al); inc(eax); out(port::EVENT as u32, al);
            xor(esi, esi); mov(ecx, 1); set_label(&mut round);
            mov(edi, ecx); and(edi, FUNCTIONS as i32 - 1); shl(edi, 6); mov(word_ptr(rdi + PAGE + 1), cx);
            inc(dword_ptr(PAGE + 0xf00)); mov(word_ptr(DATA), cx);
            set_label(&mut wait); pause(); cmp(word_ptr(DATA + 4), cx); jne(wait);
            xor(ebx, ebx); cmp(word_ptr(DATA + 2), cx); setne(bl); add(esi, ebx);
            inc(ecx); cmp(ecx, ROUNDS); jbe(round))
    });
    // mov bx, 0; ret
    let functions =
        (0..FUNCTIONS).fold(start(case), |case, n| case.poke(u64::from(PAGE + n * 64), &[0xbb, 0, 0, 0xc3]));
    functions
        .chunk(SECOND, 0, 16, |a| {
            let (mut round, mut wait) = (a.create_label(), a.create_label());
            emit!(a; mov(ax, 0x2000u32); mov(ds, ax); mov(ss, ax); mov(sp, 0x800u32); xor(cx, cx);
                set_label(&mut round); inc(cx); set_label(&mut wait); pause(); cmp(word_ptr(0), cx); jne(wait);
                mov(di, cx); and(di, FUNCTIONS as i32 - 1); shl(di, 6); add(di, 0x1000); call(di);
                mov(word_ptr(2), bx); mov(word_ptr(4), cx); cmp(cx, ROUNDS as i32); jb(round); hlt())
        })
        .gives(Rax, 1)
        .gives(Rbx, 0)
        .gives(Rcx, u64::from(ROUNDS) + 1)
        .gives(Rdi, u64::from((ROUNDS % FUNCTIONS) * 64))
        .gives(Rsi, 0)
}
