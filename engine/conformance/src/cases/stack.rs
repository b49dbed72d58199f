//! A stack that has been used for a while, so that an engine may know its page by heart, and then changes: by its
//! tables, by privilege, by a breakpoint, by code that lies on it. And accesses close together of which only some can be
//! made.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::cr4;

use crate::case::{Case, Ending, Place};
use crate::layout::{CODE, PLAY, RAM, selector};
use crate::tables::{P, RW, US};

const TOP: u64 = PLAY + 0x800;
const EDGE: u64 = PLAY + 0x1000;
/// Where user code lies.
const USER: u64 = CODE + 0x200;
/// Instructions of [`warm`].
const WARM: usize = 6;

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = changes();
    all.extend(privileges());
    all.extend(parts());
    all
}

/// Uses the stack; flags are free where it does.
fn warm(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    emit!(a; mov(ecx, 4); set_label(&mut again); push(rax); pop(rdx); nop(); dec(ecx); jne(again))
}

/// Finds the entry of level 1 for PLAY into RBX.
fn entry(a: &mut CodeAssembler) -> Result<(), IcedError> {
    emit!(a; mov(rbx, cr3); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx));
        and(rbx, -4096); mov(rbx, qword_ptr(rbx + (PLAY >> 21) * 8)); and(rbx, -4096))
}

fn case(
    name: &str,
    bits: u64,
    rest: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    Case::long(name, move |a| {
        entry(a)?;
        warm(a)?;
        rest(a)
    })
    .map(PLAY, RAM, bits)
    .with(Rsp, TOP)
    .any(Rbx)
    .any(Rcx)
    .any(Rdx)
    .gate(14, None, |gate| gate.ist = 1)
    .gate(1, None, |gate| gate.ist = 1)
}

fn changes() -> Vec<Case> {
    vec![
        case("stack/made_read_only", P | RW, |a| {
            emit!(a; and(qword_ptr(rbx), -3); invlpg(ptr(rsp)); push(rax); xor(edx, edx))
        })
        .page_fault(3, TOP - 8, 8 + WARM + 2),
        case("stack/made_absent", P | RW, |a| {
            emit!(a; and(qword_ptr(rbx), -2); invlpg(ptr(rsp)); mov(rax, qword_ptr(rsp + 8)); xor(edx, edx))
        })
        .page_fault(0, TOP + 8, 8 + WARM + 2),
        case("stack/moved_by_cr3", P | RW, |a| {
            emit!(a; add(qword_ptr(rbx), 0x1000); mov(rdx, cr3); mov(cr3, rdx); mov(eax, 77); push(rax); pop(rsi);
                xor(edx, edx))
        })
        .with(Rax, 5)
        .gives(Rax, 77)
        .gives(Rsi, 77)
        .leaves(RAM + 0x7f8, &[5])
        .leaves(RAM + 0x17f8, &[77]),
        case("stack/watched", P | RW, |a| {
            emit!(a; lea(rdx, ptr(rsp - 8)); mov(dr0, rdx); mov(edx, 0x9_0001); mov(dr7, rdx); push(rax); xor(edx, edx))
        })
        .gives(Rsp, TOP - 8)
        .ends(Ending::Vector { vector: 1, error: None, rip: Place::Instruction(8 + WARM + 5) }),
        // push rax; pop rcx; inc byte [rip + 1]; mov eax, 5; ret
        case("stack/with_code_that_changes_itself", P | RW, |a| {
            let mut again = a.create_label();
            emit!(a; lea(rsi, ptr(rsp + 0x40)); mov(edi, 4); set_label(&mut again); call(rsi); dec(edi); jne(again))
        })
        .poke(RAM + 0x840, &[0x50, 0x59, 0xfe, 0x05, 1, 0, 0, 0, 0xb8, 5, 0, 0, 0, 0xc3])
        .any(Rsi)
        .gives(Rdi, 0)
        .gives(Rax, 9),
    ]
}

fn privileges() -> Vec<Case> {
    let to_user = |name: &str, rest: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        case(name, P | RW, rest)
            .tweak(|state| state.msrs.star = 0x0023_0008 << 32)
            .entry(CODE, 1, 0, US)
            .entry(CODE, 2, 0, US)
            .entry(PLAY, 2, 0, US)
            .chunk(USER, USER, 64, |a| emit!(a; push(rax); xor(edx, edx)))
            .any(R11)
            .page_fault_at(7, TOP - 8, USER)
    };
    vec![
        to_user("stack/of_the_kernel_after_sysret", |a| emit!(a; mov(ecx, USER as u32); mov(r11d, 2); sysretq())),
        to_user("stack/of_the_kernel_after_iret", |a| {
            emit!(a; mov(rdx, rsp); push(i32::from(selector::USER_DATA)); push(rdx); push(2);
                push(i32::from(selector::USER_CODE64)); push(USER as i32); iretq())
        }),
        Case::long("stack/of_the_user_after_clac", |a| {
            a.stac()?;
            warm(a)?;
            emit!(a; clac(); push(rax); xor(edx, edx))
        })
        .tweak(|state| state.cr4 |= cr4::SMAP)
        .map(PLAY, RAM, P | RW | US)
        .with(Rsp, TOP)
        .any(Rcx)
        .any(Rdx)
        .gate(14, None, |gate| gate.ist = 1)
        .page_fault(3, TOP - 8, 1 + WARM + 1),
    ]
}

fn parts() -> Vec<Case> {
    let near = |name: &str, body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        // Twice: the second time the page is known.
        Case::long(name, move |a| {
            emit!(a; mov(qword_ptr(rdi), rsi); mov(rsi, qword_ptr(rdi)))?;
            body(a)
        })
        .map(PLAY, RAM, P | RW)
        .gate(14, None, |gate| gate.ist = 1)
        .with(Rdi, EDGE - 16)
        .with(Rsp, EDGE - 16)
        .with(Rax, 5)
        .with(Rbx, 0)
        .gives(Rbx, 1)
    };
    vec![
        near(
            "stack/only_the_first_access_is_reached",
            |a| emit!(a; mov(qword_ptr(rsp), rax); inc(ebx); mov(rdx, qword_ptr(rsp + 0x20)); xor(edx, edx)),
        )
        .leaves(RAM + 0xff0, &[5])
        .page_fault(0, EDGE + 16, 4),
        near(
            "stack/only_the_first_access_off_a_base_is_reached",
            |a| emit!(a; mov(qword_ptr(rdi), rax); inc(ebx); mov(rdx, qword_ptr(rdi + 0x20)); xor(edx, edx)),
        )
        .leaves(RAM + 0xff0, &[5])
        .page_fault(0, EDGE + 16, 4),
        near("stack/an_access_behind_a_branch_is_not_made", |a| {
            let mut over = a.create_label();
            emit!(a; mov(qword_ptr(rdi), rax); inc(ebx); jne(over); mov(rdx, qword_ptr(rdi + 0x20));
                set_label(&mut over); nop())
        })
        .leaves(RAM + 0xff0, &[5]),
        Case::long(
            "stack/push_below_the_page",
            |a| emit!(a; push(rax); pop(rdx); push(rax); push(rax); inc(ebx); push(rax); xor(edx, edx)),
        )
        .map(EDGE, RAM, P | RW)
        .gate(14, None, |gate| gate.ist = 1)
        .with(Rsp, EDGE + 16)
        .with(Rax, 5)
        .with(Rbx, 0)
        .gives(Rbx, 1)
        .gives(Rdx, 5)
        .gives(Rsp, EDGE)
        .leaves(RAM, &[5, 0, 0, 0, 0, 0, 0, 0, 5])
        .page_fault(2, EDGE - 8, 5),
    ]
}
