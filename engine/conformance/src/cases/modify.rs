//! Code that changes: by itself, by a neighbour, by another processor, by a device.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;

use crate::case::{Case, Ending, Place};
use crate::layout::{CODE, DATA, END, PLAY, RAM};
use crate::tables::{P, RW};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut cases = single();
    cases.extend(runs());
    cases
}

/// A run of a string instruction goes over code that lies behind its first element, and in other chunks.
fn runs() -> Vec<Case> {
    let runs: [(&str, u64, &[u8]); 4] = [
        ("stosb", 1, &[0xf3, 0xaa]),
        ("stosq", 8, &[0xf3, 0x48, 0xab]),
        ("movsb", 1, &[0xf3, 0xa4]),
        ("movsq", 8, &[0xf3, 0x48, 0xa5]),
    ];
    let case = |(name, size, run): (&str, u64, &'static [u8])| {
        Case::long(&format!("modify/by_{name}_from_beside_it"), move |a| {
            emit!(a; mov(rbx, PLAY + 0x200); call(rbx); mov(edx, eax); mov(rdi, PLAY + 0x10); mov(rsi, RAM + 0x1010);
                mov(rcx, (0x208 - 0x10) / size); mov(rax, 0x9090_9090_9090_9090u64); db(run); call(rbx))
        })
        .map(PLAY, RAM, P | RW)
        // mov eax, 1; ret; what comes of it is NOPs, and then mov eax, 2; ret.
        .poke(RAM + 0x200, &[0xb8, 1, 0, 0, 0, 0xc3, 0, 0, 0xb8, 2, 0, 0, 0, 0xc3])
        .poke(RAM + 0x1200, &[0x90; 8])
        .gives(Rbx, PLAY + 0x200)
        .gives(Rdx, 1)
        .gives(Rcx, 0)
        .any(Rdi)
        .any(Rsi)
        .gives(Rax, 2)
    };
    runs.into_iter().map(case).collect()
}

fn single() -> Vec<Case> {
    vec![
        Case::long("modify/flags_live_into_code_that_killed_them_before", |a| {
            let mut again = a.create_label();
            emit!(a; mov(rbx, PLAY); mov(ecx, 5); set_label(&mut again); call(rbx); dec(ecx); jne(again);
                // setc al; ret
                mov(dword_ptr(RAM), 0xc3c0_920f_u32 as i32); stc(); call(rbx))
        })
        .with(Rax, 0x100)
        .map(PLAY, RAM, P | RW)
        // xor eax, eax; nop; ret
        .poke(RAM, &[0x31, 0xc0, 0x90, 0xc3])
        .gives(Rax, 1)
        .gives(Rbx, PLAY)
        .gives(Rcx, 0),
        Case::long("modify/the_next_instruction", |a| {
            // inc eax becomes dec eax.
            let mut here = a.create_label();
            emit!(a; lea(rdi, ptr(here)); mov(byte_ptr(rdi + 1), 0xc8u32); set_label(&mut here); db(&[0xff, 0xc0]))
        })
        .with(Rax, 5)
        .any(Rdi)
        .gives(Rax, 4),
        Case::long("modify/a_later_instruction_of_the_block", |a| {
            let mut here = a.create_label();
            emit!(a; lea(rdi, ptr(here)); nop(); mov(byte_ptr(rdi + 1), 0xc8u32); nop(); add(ebx, 1); nop();
                set_label(&mut here); db(&[0xff, 0xc0]))
        })
        .with(Rax, 5)
        .with(Rbx, 0)
        .gives(Rbx, 1)
        .any(Rdi)
        .gives(Rax, 4),
        Case::long("modify/in_a_loop", |a| {
            // The immediate of ADD counts up.
            let (mut again, mut here) = (a.create_label(), a.create_label());
            emit!(a; xor(eax, eax); mov(ecx, 100); lea(rdi, ptr(here)); set_label(&mut again); inc(byte_ptr(rdi + 2));
                set_label(&mut here); db(&[0x83, 0xc0, 0x00]); dec(ecx); jne(again))
        })
        .any(Rdi)
        .gives(Rcx, 0)
        // The sum of 1 to 100.
        .gives(Rax, 5050),
        Case::long("modify/by_a_string_instruction_into_its_own_block", |a| {
            let mut here = a.create_label();
            emit!(a; lea(rdi, ptr(here)); mov(ecx, 4); mov(eax, 0x90); rep().stosb(); set_label(&mut here); inc(edx);
                inc(edx))
        })
        .with(Rdx, 7)
        .any(Rdi)
        .gives(Rcx, 0)
        .gives(Rax, 0x90),
        Case::long("modify/by_push", |a| {
            let mut here = a.create_label();
            emit!(a; mov(rbp, rsp); lea(rsp, ptr(here)); add(rsp, 8); mov(rax, 0x9090_9090_9090_c8ffu64); push(rax);
                set_label(&mut here); db(&[0xff, 0xc0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90]); mov(rsp, rbp))
        })
        .gives(Rax, 0x9090_c8fe)
        .gives(Rbp, crate::layout::STACK),
        Case::long(
            "modify/through_another_mapping",
            |a| emit!(a; mov(rbx, CODE + 0x800); call(rbx); mov(dword_ptr(PLAY + 0x801), 77); call(rbx)),
        )
        .map(PLAY, CODE, P | RW)
        // mov eax, 5; ret
        .poke(CODE + 0x800, &[0xb8, 5, 0, 0, 0, 0xc3])
        .gives(Rbx, CODE + 0x800)
        .gives(Rax, 77),
        // Each of these changes INC EAX behind it to DEC EAX.
        Case::long(
            "modify/by_a_store_across_pages_into_its_own_block",
            |a| emit!(a; movdqu(xmm0, xmmword_ptr(DATA)); mov(rdi, PLAY + 0xfff); mov(rcx, PLAY + 0x1000); jmp(rcx)),
        )
        .map(PLAY, RAM, P | RW)
        .map(PLAY + 0x1000, RAM + 0x1000, P | RW)
        // movdqu [rdi], xmm0; inc eax; int 0xff
        .poke(RAM + 0x1000, &[0xf3, 0x0f, 0x7f, 0x07, 0xff, 0xc0, 0xcd, 0xff])
        .poke(DATA, &[0, 0xf3, 0x0f, 0x7f, 0x07, 0xff, 0xc8, 0xcd, 0xff])
        .with(Rax, 5)
        .gives(Rax, 4)
        .any(Rdi)
        .any(Rcx)
        .ends(Ending::Vector { vector: END, error: None, rip: Place::Offset(PLAY + 0x1008) }),
        Case::flat("modify/by_a_string_instruction_in_32_bit_code", |a| {
            let (mut get, mut here) = (a.create_label(), a.create_label());
            emit!(a; call(get); set_label(&mut get); pop(edi); add(edi, 16); mov(eax, 0x48); mov(ecx, 1);
                rep().stosb(); set_label(&mut here); db(&[0x40, 0x90]))
        })
        .gives(Rax, 0x47)
        .gives(Rcx, 0)
        .any(Rdi),
        Case::long("modify/by_a_store_of_a_selector", |a| {
            let mut here = a.create_label();
            emit!(a; lea(rdi, ptr(here)); mov(word_ptr(rdi), fs); set_label(&mut here); db(&[0xff, 0xc0]))
        })
        .tweak(|state| state.segment[4].selector = 0xc8ff)
        .with(Rax, 5)
        .any(Rdi)
        .gives(Rax, 4),
        Case::long("modify/the_second_page_of_an_instruction", |a| {
            emit!(a; mov(rbx, PLAY + 0xffd); call(rbx); mov(rdx, rax);
                mov(dword_ptr(RAM + 0x1000), 0x0077_6655); call(rbx))
        })
        .map(PLAY, RAM, P | RW)
        .map(PLAY + 0x1000, RAM + 0x1000, P | RW)
        // mov rax, 0x...; ret
        .poke(RAM + 0xffd, &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0, 0xc3])
        .gives(Rbx, PLAY + 0xffd)
        .gives(Rdx, 0x0007_0605_0403_0201)
        .gives(Rax, 0x0007_0600_7766_5501),
    ]
}
