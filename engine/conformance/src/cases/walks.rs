//! Page walks that find accessed flags set: what an engine may do by a short way, and what then has to be noticed
//! nonetheless. Each case touches a page, drops it by INVLPG, and goes on from there.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr0, cr4, rflags};

use crate::case::{Case, Ending, Place};
use crate::layout::{CODE, PLAY, RAM};
use crate::tables::{G, P, PS, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = permissions();
    all.extend(marks());
    all.extend(sizes());
    all
}

const ONE: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const DIRTY: u64 = 0x40;

/// Reads the page at PLAY, so that accessed flags are set, and drops it from the TLB.
fn touch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    emit!(a; mov(rax, qword_ptr(PLAY)); invlpg(ptr(PLAY)))
}

fn touched(
    name: &str,
    bits: u64,
    rest: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    Case::long(name, move |a| {
        touch(a)?;
        rest(a)
    })
    .map(PLAY, RAM, bits)
    .poke(RAM, &ONE)
    .gives(Rax, 1)
}

/// Finds the entry of level 1 for PLAY into RBX.
fn entry(a: &mut CodeAssembler) -> Result<(), IcedError> {
    emit!(a; mov(rbx, cr3); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx));
        and(rbx, -4096); mov(rbx, qword_ptr(rbx + (PLAY >> 21) * 8)); and(rbx, -4096))
}

fn permissions() -> Vec<Case> {
    vec![
        touched("walks/read_again", P | RW, |a| emit!(a; stc(); mov(rcx, qword_ptr(PLAY)); adc(rcx, 0))).gives(Rcx, 2),
        touched(
            "walks/write_to_a_read_only_page",
            P,
            |a| emit!(a; mov(rcx, qword_ptr(PLAY)); mov(qword_ptr(PLAY), rax)),
        )
        .gives(Rcx, 1)
        .page_fault(3, PLAY, 3),
        touched(
            "walks/write_to_a_read_only_page_without_wp",
            P,
            |a| emit!(a; mov(rcx, qword_ptr(PLAY)); inc(rax); mov(qword_ptr(PLAY), rax)),
        )
        .tweak(|state| state.cr0 &= !cr0::WP)
        .gives(Rcx, 1)
        .gives(Rax, 2)
        .leaves(RAM, &[2]),
        Case::long("walks/made_read_only", |a| {
            entry(a)?;
            touch(a)?;
            emit!(a; mov(qword_ptr(PLAY), rax); and(qword_ptr(rbx), -3); invlpg(ptr(PLAY)); mov(rcx, qword_ptr(PLAY));
                mov(qword_ptr(PLAY), rcx))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &ONE)
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .page_fault(3, PLAY, 14),
        Case::long("walks/made_reserved", |a| {
            entry(a)?;
            touch(a)?;
            emit!(a; bts(qword_ptr(rbx), 51u32); mov(rcx, qword_ptr(PLAY)))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &ONE)
        .any(Rbx)
        .gives(Rax, 1)
        .page_fault(9, PLAY, 11),
        // The kernel has been there: user code may not go.
        touched(
            "walks/user_code_after_the_kernel",
            P | RW,
            |a| emit!(a; mov(rdx, qword_ptr(PLAY)); mov(ecx, (CODE + 0x200) as u32); mov(r11d, 2); sysretq()),
        )
        .tweak(|state| state.msrs.star = 0x0023_0008 << 32)
        .entry(CODE, 1, 0, US)
        .entry(CODE, 2, 0, US)
        .entry(PLAY, 2, 0, US)
        .chunk(CODE + 0x200, CODE + 0x200, 64, |a| emit!(a; mov(rdx, qword_ptr(PLAY))))
        .gives(Rdx, 1)
        .any(Rcx)
        .any(R11)
        .page_fault_at(5, PLAY, CODE + 0x200),
        // AC lets the kernel in; the entry that this fills does not when AC is clear again.
        Case::long("walks/smap_after_an_access_with_ac", |a| {
            emit!(a; stac(); mov(rax, qword_ptr(PLAY)); invlpg(ptr(PLAY)); mov(rcx, qword_ptr(PLAY)); clac();
                mov(rdx, qword_ptr(PLAY)))
        })
        .tweak(|state| state.cr4 |= cr4::SMAP)
        .map(PLAY, RAM, P | RW | US)
        .poke(RAM, &ONE)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .page_fault(1, PLAY, 5)
        .flags(rflags::AC, 0),
        touched("walks/aligned_vectors_are_checked", P | RW, |a| emit!(a; nop(); movaps(xmm0, xmmword_ptr(PLAY + 8))))
            .raises(13, Some(0), 3),
        Case::long("walks/address_that_is_not_canonical", |a| {
            touch(a)?;
            emit!(a; mov(rcx, PLAY | 1 << 47); mov(rdx, qword_ptr(rcx)))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &ONE)
        .gives(Rax, 1)
        .gives(Rcx, PLAY | 1 << 47)
        .raises(13, Some(0), 3),
    ]
}

fn marks() -> Vec<Case> {
    vec![
        touched(
            "walks/first_write_sets_dirty",
            P | RW,
            |a| emit!(a; mov(rcx, qword_ptr(PLAY)); inc(qword_ptr(PLAY)); inc(qword_ptr(PLAY))),
        )
        .gives(Rcx, 1)
        .leaves(RAM, &[3])
        .entry_after(PLAY, 1, DIRTY, DIRTY),
        touched("walks/reads_leave_dirty_clear", P | RW, |a| emit!(a; mov(rcx, qword_ptr(PLAY))))
            .gives(Rcx, 1)
            .entry_after(PLAY, 1, DIRTY, 0),
        Case::long("walks/accessed_is_set_anew", |a| {
            entry(a)?;
            touch(a)?;
            emit!(a; and(qword_ptr(rbx), -0x21); mov(rcx, qword_ptr(PLAY)))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &ONE)
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .entry_after(PLAY, 1, 0x20, 0x20),
        // mov eax, 5; ret: written by way of an entry that a walk fills after the code has run.
        Case::long("walks/store_over_code_that_has_run", |a| {
            emit!(a; mov(ebx, PLAY as u32); inc(byte_ptr(PLAY + 0x100)); call(rbx); mov(ecx, eax);
                invlpg(ptr(PLAY)); mov(edx, dword_ptr(PLAY)); mov(byte_ptr(PLAY + 1), 7); call(rbx))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &[0xb8, 5, 0, 0, 0, 0xc3])
        .gives(Rbx, PLAY)
        .gives(Rcx, 5)
        .gives(Rdx, 0x5b8)
        .gives(Rax, 7),
        Case::long("walks/store_beside_code_that_has_run", |a| {
            emit!(a; mov(ebx, PLAY as u32); inc(byte_ptr(PLAY + 0x100)); invlpg(ptr(PLAY)); call(rbx); mov(ecx, eax);
                invlpg(ptr(PLAY)); inc(byte_ptr(PLAY + 0x100)); mov(byte_ptr(PLAY + 1), 7); call(rbx))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &[0xb8, 5, 0, 0, 0, 0xc3])
        .gives(Rbx, PLAY)
        .gives(Rcx, 5)
        .gives(Rax, 7)
        .leaves(RAM + 0x100, &[2]),
    ]
}

fn sizes() -> Vec<Case> {
    const LARGE: u64 = 0x60_0000;
    vec![
        // The other half of the large page is dropped, too.
        Case::long("walks/large_page_moves", |a| {
            emit!(a; mov(rbx, cr3); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096);
                add(rbx, ((PLAY >> 21) * 8) as i32); mov(rax, qword_ptr(PLAY)); mov(rax, qword_ptr(PLAY + 0x5000));
                mov(rcx, qword_ptr(PLAY + 0x1f_f008)); mov(qword_ptr(rbx), (LARGE | 0xe3) as i32);
                invlpg(ptr(PLAY + 0x1000)); mov(rdx, qword_ptr(PLAY + 0x5000)); mov(rsi, qword_ptr(PLAY + 0x1f_f008));
                inc(qword_ptr(PLAY + 0x5000)))
        })
        .map_in(0, 2, PLAY, RAM, P | RW | PS | US)
        .poke(RAM + 0x5000, &ONE)
        .poke(RAM + 0x1f_f008, &[2])
        .poke(LARGE + 0x5000, &[3])
        .poke(LARGE + 0x1f_f008, &[4])
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 2)
        .gives(Rdx, 3)
        .gives(Rsi, 4)
        .leaves(LARGE + 0x5000, &[4]),
        Case::long("walks/large_page_with_a_reserved_bit", |a| {
            emit!(a; mov(rbx, cr3); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096);
                mov(rax, qword_ptr(PLAY)); bts(qword_ptr(rbx + (PLAY >> 21) * 8), 14u32);
                mov(rcx, qword_ptr(PLAY + 0x3000)))
        })
        .map_in(0, 2, PLAY, RAM, P | RW | PS)
        .poke(RAM, &ONE)
        .any(Rbx)
        .gives(Rax, 1)
        .page_fault(9, PLAY + 0x3000, 7),
        Case::long("walks/global_pages_outlive_a_switch", |a| {
            entry(a)?;
            touch(a)?;
            emit!(a; mov(rcx, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); mov(rdx, cr3); mov(cr3, rdx);
                invlpg(ptr(PLAY)); mov(rdx, qword_ptr(PLAY)))
        })
        .tweak(|state| state.cr4 |= cr4::PGE)
        .map(PLAY, RAM, P | RW | G)
        .poke(RAM, &ONE)
        .poke(RAM + 0x1000, &[2])
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .gives(Rdx, 2),
        // What an engine remembers of code in a global page may outlive a write of CR3, but not INVLPG, and not a write
        // of CR3 where the page is not global.
        code_moves("walks/code_in_a_global_page_moves", G, |a| emit!(a; invlpg(ptr(PLAY)))),
        code_moves("walks/code_in_a_page_of_the_address_space_moves", 0, |a| emit!(a; mov(r9, cr3); mov(cr3, r9))).any(R9),
        Case::long("walks/access_over_two_pages", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY)); mov(rax, qword_ptr(PLAY + 0x1000)); invlpg(ptr(PLAY));
                invlpg(ptr(PLAY + 0x1000)); mov(rax, qword_ptr(PLAY + 0xffc)))
        })
        .map(PLAY, RAM, P | RW)
        .map(PLAY + 0x1000, RAM + 0x8000, P | RW)
        .poke(RAM + 0xffc, &[1, 2, 3, 4])
        .poke(RAM + 0x8000, &[5, 6, 7, 8])
        .gives(Rax, 0x0807_0605_0403_0201),
        Case::long("walks/device_page", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY)); invlpg(ptr(PLAY)); mov(rcx, qword_ptr(PLAY)); mov(rsi, qword_ptr(PLAY + 0x1000)))
        })
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &ONE)
        .map(PLAY + 0x1000, crate::layout::RAM_END + 0x1000, P)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .any(Rsi)
        .accesses(crate::case::Access::MmioRead(crate::layout::RAM_END + 0x1000, 8))
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::End }),
    ]
}

/// Code that is called before and after its page has been mapped elsewhere, and `flush` after that.
fn code_moves(
    name: &str,
    bits: u64,
    flush: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    // mov eax, n; ret
    let returns = |n: u8| [0xb8, n, 0, 0, 0, 0xc3];
    Case::long(name, move |a| {
        entry(a)?;
        emit!(a; mov(r8d, PLAY as u32); mov(rdx, cr3); call(r8); mov(cr3, rdx); call(r8); mov(cr3, rdx); call(r8);
            mov(ecx, eax); add(qword_ptr(rbx), 0x1000))?;
        flush(a)?;
        emit!(a; call(r8); mov(esi, eax); call(r8))
    })
    .tweak(|state| state.cr4 |= cr4::PGE)
    .map(PLAY, RAM, P | RW | bits)
    .poke(RAM, &returns(5))
    .poke(RAM + 0x1000, &returns(6))
    .any(Rbx)
    .any(Rdx)
    .gives(R8, PLAY)
    .gives(Rcx, 5)
    .gives(Rsi, 6)
    .gives(Rax, 6)
}
