//! Conditional branches in the midst of straight code, taken once and not taken at other times, as an engine sees that
//! goes on behind them: what holds on one way must not be taken to hold on the other.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;

use crate::case::Case;
use crate::layout::{PLAY, RAM};
use crate::tables::{P, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for user in [false, true] {
        let case = |name: &str, body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
            let case = Case::long(&format!("branches/{name}_{}", if user { "user" } else { "system" }), body)
                .map(PLAY, RAM, P | RW | US)
                .with(R8, PLAY);
            if user { case.user() } else { case }
        };
        all.push(
            // INC leaves CF alone, and only where the branch leads is it read.
            case("flags_that_only_the_target_reads", |a| {
                let (mut again, mut over, mut next) = (a.create_label(), a.create_label(), a.create_label());
                emit!(a; mov(ecx, 4); mov(edx, -2); set_label(&mut again); cmp(ecx, 9); mov(dword_ptr(r8), edx);
                    inc(edx); je(over); xor(esi, esi); jmp(next); set_label(&mut over); adc(rdi, 5);
                    set_label(&mut next); dec(ecx); jne(again))
            })
            .with(Rdi, 0)
            .with(Rsi, 0)
            .gives(Rdi, 6)
            .gives(Rcx, 0)
            .gives(Rdx, 2)
            .leaves(RAM, &[1]),
        );
        all.push(
            // Flags that outlive the block are those of the comparison before the first branch.
            case("flags_that_outlive_accesses_behind_branches", |a| {
                let (mut again, mut out, mut next) = (a.create_label(), a.create_label(), a.create_label());
                emit!(a; mov(ecx, 4); set_label(&mut again); cmp(ecx, 2); je(out); mov(rax, qword_ptr(r8));
                    js(out); lea(r9, ptr(r9 + 1)); mov(qword_ptr(r8 + 8), r9); jmp(next); set_label(&mut out);
                    lea(rdx, ptr(rdx + 1)); set_label(&mut next); adc(rdi, 0); dec(ecx); jne(again))
            })
            .with(Rdi, 0)
            .with(Rdx, 0)
            .with(R9, 0)
            .poke(RAM, &[7])
            .gives(Rdi, 1)
            .gives(Rdx, 2)
            .gives(Rax, 7)
            .gives(R9, 2)
            .gives(Rcx, 0)
            .leaves(RAM + 8, &[2]),
        );
        all.push(
            case("registers_of_a_fault_behind_branches", |a| {
                let mut over = a.create_label();
                emit!(a; mov(r10, qword_ptr(r8)); add(r10, 2); mov(r9, r8); cmp(r10, 5); je(over); inc(r10);
                    mov(qword_ptr(r9 + 8), r10); js(over); mov(r11, r10); inc(r11); push(qword_ptr(r9 + 0x1000));
                    set_label(&mut over); nop())
            })
            .with(R10, 0)
            .with(R11, 0)
            .poke(RAM, &[7])
            .gives(R9, PLAY)
            .gives(R10, 10)
            .gives(R11, 11)
            .leaves(RAM + 8, &[10])
            .page_fault(if user { 4 } else { 0 }, PLAY + 0x1000, 10),
        );
        all.push(
            // The way back is in the midst, and what is behind it is run in the end.
            case("a_way_back_in_the_midst", |a| {
                let (mut again, mut out) = (a.create_label(), a.create_label());
                emit!(a; mov(ecx, 1000); set_label(&mut again); add(qword_ptr(r8), rcx); dec(ecx); jne(again);
                    mov(rax, qword_ptr(r8)); test(rax, rax); je(out); mov(qword_ptr(r8 + 8), rax);
                    set_label(&mut out); nop())
            })
            .with(Rax, 0)
            .gives(Rax, 500_500)
            .gives(Rcx, 0)
            .leaves(RAM + 8, &500_500u64.to_le_bytes()),
        );
    }
    all.push(
        Case::long("branches/code_that_changes_behind_one", |a| {
            // inc eax becomes dec eax.
            let (mut here, mut out) = (a.create_label(), a.create_label());
            emit!(a; lea(rdi, ptr(here)); mov(byte_ptr(rdi + 1), 0xc8u32); cmp(eax, 4); je(out); nop();
                set_label(&mut here); db(&[0xff, 0xc0]); set_label(&mut out); nop())
        })
        .with(Rax, 5)
        .any(Rdi)
        .gives(Rax, 4),
    );
    all
}
