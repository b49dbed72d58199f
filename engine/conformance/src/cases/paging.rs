//! Staleness and switches: INVLPG, CR3, PCID and INVPCID, global pages, and changes of CR0 and CR4.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::cr4;

use crate::case::{Case, Paging};
use crate::layout::{DATA, PLAY, RAM, ROOTS};
use crate::tables::{G, P, PS, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = invalidation();
    all.extend(without_pge());
    all.extend(spaces());
    all
}

const ONE: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const TWO: [u8; 8] = [2, 0, 0, 0, 0, 0, 0, 0];

/// With different data in two frames.
fn data(case: Case) -> Case {
    case.poke(RAM, &ONE).poke(RAM + 0x1000, &TWO)
}

/// Finds the entry of level 1 for PLAY into RBX, by a walk from CR3.
fn walk(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    emit!(a; mov(rbx, cr3); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx));
        and(rbx, -4096); mov(rbx, qword_ptr(rbx + (PLAY >> 21) * 8)); and(rbx, -4096))
}

/// Global pages while CR4.PGE is clear.
fn without_pge() -> Vec<Case> {
    vec![
        data(Case::long("paging/without_pge_no_page_is_global", |a| {
            walk(a)?;
            emit!(a; mov(rax, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); mov(rdx, cr3); mov(cr3, rdx);
                mov(rcx, qword_ptr(PLAY)))
        }))
        .map(PLAY, RAM, P | RW | G)
        .tweak(|state| state.cr4 &= !cr4::PGE)
        .any(Rbx)
        .any(Rdx)
        .gives(Rax, 1)
        .gives(Rcx, 2),
        data(Case::long("paging/without_pge_code_is_not_global", |a| {
            walk(a)?;
            emit!(a; mov(rsi, PLAY + 0x10); call(rsi); call(rsi); add(qword_ptr(rbx), 0x1000); mov(rdx, cr3);
                mov(cr3, rdx); mov(rcx, rax); call(rsi))
        }))
        .map(PLAY, RAM, P | RW | G)
        .tweak(|state| state.cr4 &= !cr4::PGE)
        // mov eax, ...; ret
        .poke(RAM + 0x10, &[0xb8, 5, 0, 0, 0, 0xc3])
        .poke(RAM + 0x1010, &[0xb8, 6, 0, 0, 0, 0xc3])
        .any(Rbx)
        .any(Rdx)
        .any(Rsi)
        .gives(Rax, 6)
        .gives(Rcx, 5),
    ]
}

fn invalidation() -> Vec<Case> {
    vec![
        data(Case::long("paging/invlpg", |a| {
            walk(a)?;
            emit!(a; mov(rax, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); invlpg(ptr(PLAY));
                mov(rcx, qword_ptr(PLAY)))
        }))
        .map(PLAY, RAM, P | RW)
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 2),
        data(Case::long("paging/cr3_write_flushes", |a| {
            walk(a)?;
            emit!(a; mov(rax, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); mov(rdx, cr3); mov(cr3, rdx);
                mov(rcx, qword_ptr(PLAY)))
        }))
        .map(PLAY, RAM, P | RW)
        .any(Rbx)
        .any(Rdx)
        .gives(Rax, 1)
        .gives(Rcx, 2),
        data(Case::long("paging/cr4_pge_flushes_global_pages", |a| {
            walk(a)?;
            emit!(a; mov(rax, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); mov(rdx, cr4); btr(rdx, 7u32); mov(cr4, rdx);
                mov(rcx, qword_ptr(PLAY)))
        }))
        .map(PLAY, RAM, P | RW | G)
        .tweak(|state| state.cr4 |= cr4::PGE)
        .any(Rbx)
        .any(Rdx)
        .gives(Rax, 1)
        .gives(Rcx, 2),
        data(Case::long("paging/a_page_that_appears_needs_no_flush", |a| {
            walk(a)?;
            // What is not present is not kept: the fault's handler may just make it present.
            emit!(a; mov(rdx, PLAY); mov(rax, qword_ptr(rdx)); add(rsp, 48); or(qword_ptr(rbx), 1);
                mov(rax, qword_ptr(rdx)))
        }))
        .map(PLAY, RAM, RW)
        .handler(14, 10)
        .any(Rbx)
        .gives(Rdx, PLAY)
        .gives(Rax, 1),
        data(Case::long("paging/write_protection_taken_away_needs_no_flush_after_a_fault", |a| {
            walk(a)?;
            emit!(a; mov(rdx, PLAY); mov(rax, qword_ptr(rdx)); mov(qword_ptr(rdx), rdx); add(rsp, 48);
                or(qword_ptr(rbx), 2); mov(qword_ptr(rdx), rdx))
        }))
        .map(PLAY, RAM, P)
        .handler(14, 11)
        .any(Rbx)
        .gives(Rdx, PLAY)
        .gives(Rax, 1)
        .leaves(RAM, &PLAY.to_le_bytes()),
        data(Case::long("paging/invlpg_of_a_large_page", |a| {
            emit!(a; mov(rbx, cr3); mov(rbx, qword_ptr(rbx)); and(rbx, -4096); mov(rbx, qword_ptr(rbx)); and(rbx, -4096);
                add(rbx, ((PLAY >> 21) * 8) as i32); mov(rax, qword_ptr(PLAY + 0x1000)); mov(rcx, qword_ptr(PLAY + 0x9000));
                mov(qword_ptr(rbx), 0x60_0083); invlpg(ptr(PLAY + 0x5000));
                mov(rdx, qword_ptr(PLAY + 0x1000)); mov(rsi, qword_ptr(PLAY + 0x9000)))
        }))
        .map_in(0, 2, PLAY, RAM, P | RW | PS)
        .poke(0x60_1000, &[3])
        .poke(0x60_9000, &[4])
        .any(Rbx)
        .gives(Rax, 2)
        .gives(Rcx, 0)
        .gives(Rdx, 3)
        .gives(Rsi, 4),
        data(Case::long("paging/dirty_is_set_by_the_first_write_after_reads", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY)); mov(rcx, qword_ptr(PLAY)); mov(qword_ptr(PLAY), rcx))
        }))
        .map(PLAY, RAM, P | RW)
        .gives(Rax, 1)
        .gives(Rcx, 1)
        .entry_after(PLAY, 1, 0x60, 0x60),
        data(Case::long("paging/user_bit_is_needed_at_every_level", |a| emit!(a; nop(); mov(rax, qword_ptr(PLAY)))))
            .user()
            .map(PLAY, RAM, P | RW | US)
            .entry(PLAY, 2, US, 0)
            .page_fault(5, PLAY, 1),
        data(Case::long("paging/write_bit_is_needed_at_every_level", |a| emit!(a; nop(); mov(qword_ptr(PLAY), rax))))
            .map(PLAY, RAM, P | RW)
            .entry(PLAY, 2, RW, 0)
            .page_fault(3, PLAY, 1),
        data(Case::long("paging/reserved_in_a_large_page", |a| emit!(a; nop(); mov(rax, qword_ptr(PLAY)))))
            .map_in(0, 2, PLAY, RAM | 1 << 13, P | RW | PS)
            .page_fault(9, PLAY, 1),
        data(Case::long("paging/nx_is_reserved_without_nxe", |a| emit!(a; nop(); mov(rax, qword_ptr(PLAY)))))
            .map(PLAY, RAM, P | RW | 1 << 63)
            .tweak(|state| state.msrs.efer &= !lodge_x86::bits::efer::NXE)
            .page_fault(9, PLAY, 1),
        Case::flat("paging/enabled_by_cr0", |a| {
            emit!(a; mov(ecx, ROOTS[0] as u32); mov(cr3, ecx); mov(eax, cr0); or(eax, 0x8000_0000u32 as i32); mov(cr0, eax);
                mov(ebx, dword_ptr(PLAY as u32)); and(eax, 0x7fff_ffff); mov(cr0, eax); mov(edx, dword_ptr(PLAY as u32)))
        })
        .paged(Paging::Bits32)
        .tweak(|state| state.cr0 &= !lodge_x86::bits::cr0::PG)
        .map(PLAY, RAM, P | RW)
        .poke(RAM, &[5])
        .poke(PLAY, &[6])
        .any(Rax)
        .any(Rcx)
        .gives(Rbx, 5)
        .gives(Rdx, 6),
        Case::flat("paging/pse_is_looked_at_in_32_bit_paging", |a| emit!(a; nop(); mov(eax, dword_ptr(0x80_0000))))
            .paged(Paging::Bits32)
            .map_in(0, 2, 0x80_0000, 0x40_0000, P | RW | PS)
            .poke(0x40_0000, &[7, 0, 0, 0])
            .gives(Rax, 7),
    ]
}

fn spaces() -> Vec<Case> {
    let two = |case: Case| data(case).map_in(0, 1, PLAY, RAM, P | RW).map_in(1, 1, PLAY, RAM + 0x1000, P | RW);
    let pcid = |case: Case| two(case).tweak(|state| state.cr4 |= cr4::PCIDE);
    vec![
        two(Case::long("paging/cr3_switch", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY)); mov(ebx, ROOTS[1] as u32); mov(cr3, rbx); mov(rcx, qword_ptr(PLAY));
                mov(ebx, ROOTS[0] as u32); mov(cr3, rbx); mov(rdx, qword_ptr(PLAY)))
        }))
        .gives(Rax, 1)
        .gives(Rbx, ROOTS[0])
        .gives(Rcx, 2)
        .gives(Rdx, 1),
        two(Case::long("paging/code_differs_by_address_space", |a| {
            emit!(a; mov(r8d, PLAY as u32); call(r8); mov(ecx, eax); mov(ebx, ROOTS[1] as u32); mov(cr3, rbx); call(r8);
                mov(edx, eax); mov(ebx, ROOTS[0] as u32); mov(cr3, rbx); call(r8))
        }))
        .poke(RAM, &[0xb8, 5, 0, 0, 0, 0xc3])
        .poke(RAM + 0x1000, &[0xb8, 6, 0, 0, 0, 0xc3])
        .gives(R8, PLAY)
        .gives(Rbx, ROOTS[0])
        .gives(Rcx, 5)
        .gives(Rdx, 6)
        .gives(Rax, 5),
        pcid(Case::long("paging/pcid_switch_without_flush", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY)); mov(rbx, ROOTS[1] | 1); mov(cr3, rbx); mov(rcx, qword_ptr(PLAY));
                mov(rbx, ROOTS[0] | 1 << 63); mov(cr3, rbx); mov(rdx, qword_ptr(PLAY)); mov(rsi, cr3))
        }))
        .gives(Rax, 1)
        .any(Rbx)
        .gives(Rcx, 2)
        .gives(Rdx, 1)
        .gives(Rsi, ROOTS[0]),
        pcid(Case::long("paging/invpcid_of_one_address", |a| {
            walk(a)?;
            emit!(a; mov(rax, qword_ptr(PLAY)); add(qword_ptr(rbx), 0x1000); xor(ecx, ecx); invpcid(rcx, xmmword_ptr(DATA));
                mov(rdx, qword_ptr(PLAY)))
        }))
        .poke(DATA + 8, &PLAY.to_le_bytes())
        .any(Rbx)
        .gives(Rax, 1)
        .gives(Rcx, 0)
        .gives(Rdx, 2),
        pcid(Case::long("paging/invpcid_of_another_space", |a| {
            // Looks at space 1, changes its entry from space 0, says so by its PCID, and looks again.
            a.mov(rdi, ROOTS[1] | 1)?;
            a.mov(cr3, rdi)?;
            a.mov(rax, qword_ptr(PLAY))?;
            a.mov(r8, cr3)?;
            walk(a)?;
            emit!(a; mov(r9, ROOTS[0]); mov(cr3, r9); sub(qword_ptr(rbx), 0x1000); mov(ecx, 1);
                invpcid(rcx, xmmword_ptr(DATA)); bts(rdi, 63u32); mov(cr3, rdi); mov(rdx, qword_ptr(PLAY)))
        }))
        .poke(DATA, &1u64.to_le_bytes())
        .any(Rbx)
        .any(Rdi)
        .any(R8)
        .any(R9)
        .gives(Rcx, 1)
        .gives(Rax, 2)
        .gives(Rdx, 1),
        pcid(Case::long("paging/invpcid_of_an_unknown_kind", |a| {
            emit!(a; mov(ecx, 4); invpcid(rcx, xmmword_ptr(DATA)))
        }))
            .gives(Rcx, 4)
            .raises(13, Some(0), 1),
        two(Case::long("paging/pcide_needs_pcid_0", |a| {
            emit!(a; mov(rax, ROOTS[0] | 0x10); mov(cr3, rax); mov(rbx, cr4); bts(rbx, 17u32); mov(cr4, rbx))
        }))
        .any(Rax)
        .any(Rbx)
        .raises(13, Some(0), 4),
    ]
}
