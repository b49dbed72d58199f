//! Accesses to memory: page faults with their error codes, accesses and instructions that span two pages, MMIO.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr0, cr4, rflags};

use crate::case::{Access, Case, Ending, Paging, Place};
use crate::layout::{DATA, MMIO, PLAY, RAM};
use crate::tables::{A, D, G, NX, P, PS, RW, US};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = faults();
    all.extend(exactness());
    all.extend(crossing());
    all.extend(mmio());
    all
}

const PAGE: u64 = 0x1000;
const EDGE: u64 = PLAY + PAGE;

/// A bit that lies more than 4 GiB from where the counting begins.
const FAR_BIT: i64 = 0xcf61_075e_1a34_7dc5u64 as i64;

fn faults() -> Vec<Case> {
    vec![
        Case::long("memory/read_of_nothing", |a| emit!(a; nop(); mov(rax, qword_ptr(PLAY + 0x123)))).page_fault(
            0,
            PLAY + 0x123,
            1,
        ),
        Case::long("memory/write_of_nothing", |a| emit!(a; nop(); mov(qword_ptr(PLAY + 0x123), rax))).page_fault(
            2,
            PLAY + 0x123,
            1,
        ),
        Case::long("memory/write_of_read_only", |a| emit!(a; mov(rax, qword_ptr(PLAY)); mov(qword_ptr(PLAY), rax)))
            .map(PLAY, RAM, P)
            .gives(Rax, 0)
            .page_fault(3, PLAY, 1),
        Case::long("memory/write_of_read_only_without_wp", |a| emit!(a; mov(qword_ptr(PLAY), rax)))
            .map(PLAY, RAM, P)
            .tweak(|state| state.cr0 &= !cr0::WP)
            .with(Rax, 5)
            .leaves(RAM, &5u64.to_le_bytes()),
        Case::long("memory/read_modify_write_of_read_only", |a| emit!(a; add(qword_ptr(PLAY), 1)))
            .map(PLAY, RAM, P)
            .page_fault(3, PLAY, 0),
        Case::long("memory/cmpxchg_that_fails_still_writes", |a| emit!(a; cmpxchg(qword_ptr(PLAY), rcx)))
            .map(PLAY, RAM, P)
            .page_fault(3, PLAY, 0),
        Case::long("memory/user_reads_system", |a| emit!(a; nop(); mov(rax, qword_ptr(PLAY))))
            .user()
            .map(PLAY, RAM, P | RW)
            .page_fault(5, PLAY, 1),
        Case::long("memory/user_writes_system", |a| emit!(a; nop(); mov(qword_ptr(PLAY), rax)))
            .user()
            .map(PLAY, RAM, P | RW)
            .page_fault(7, PLAY, 1),
        Case::long("memory/user_jumps_to_system", |a| emit!(a; nop(); jmp(rbx)))
            .user()
            .with(Rbx, PLAY)
            .map(PLAY, RAM, P | RW)
            .page_fault_at(5 | 16, PLAY, PLAY),
        Case::long("memory/no_execute", |a| emit!(a; nop(); jmp(rbx)))
            .with(Rbx, PLAY)
            .map(PLAY, RAM, P | RW | NX)
            .page_fault_at(0x11, PLAY, PLAY),
        Case::long("memory/reserved_bit", |a| emit!(a; nop(); mov(al, byte_ptr(PLAY))))
            .map(PLAY, RAM | 1 << 51, P | RW)
            .page_fault(9, PLAY, 1),
        Case::long("memory/smap", |a| emit!(a; stac(); mov(eax, dword_ptr(PLAY)); clac(); mov(ebx, dword_ptr(PLAY))))
            .tweak(|state| state.cr4 |= cr4::SMAP)
            .map(PLAY, RAM, P | RW | US)
            .gives(Rax, 0)
            .page_fault(1, PLAY, 3)
            .flags(rflags::AC, 0),
        Case::long("memory/smep", |a| emit!(a; nop(); jmp(rbx)))
            .with(Rbx, PLAY)
            .tweak(|state| state.cr4 |= cr4::SMEP)
            .map(PLAY, RAM, P | RW | US)
            .page_fault_at(0x11, PLAY, PLAY),
    ]
}

/// Exactness: what is done and what is not, where something faults.
fn exactness() -> Vec<Case> {
    vec![
        Case::long("memory/accessed_and_dirty", |a| {
            emit!(a; mov(eax, dword_ptr(PLAY)); mov(dword_ptr(PLAY + PAGE), eax);
                mov(ebx, dword_ptr(PLAY + PAGE * 2)); mov(dword_ptr(PLAY + PAGE * 2), eax))
        })
        .map(PLAY, RAM, P | RW)
        .map(PLAY + PAGE, RAM + PAGE, P | RW)
        .map(PLAY + PAGE * 2, RAM + PAGE * 2, P | RW)
        .map(PLAY + PAGE * 3, RAM + PAGE * 3, P | RW)
        .gives(Rax, 0)
        .gives(Rbx, 0)
        .entry_after(PLAY, 1, A | D, A)
        .entry_after(PLAY + PAGE, 1, A | D, A | D)
        .entry_after(PLAY + PAGE * 2, 1, A | D, A | D)
        .entry_after(PLAY + PAGE * 3, 1, A | D, 0)
        .entry_after(PLAY, 2, A | D, A),
        Case::long("memory/fault_in_the_middle_of_a_block_is_precise", |a| {
            emit!(a; mov(eax, 1); mov(ecx, 2); push(rax); mov(r10, DATA); mov(qword_ptr(r10), rcx);
                mov(r11, qword_ptr(rbx)); mov(eax, 9); pop(rcx))
        })
        .with(Rbx, PLAY)
        .gives(Rax, 1)
        .gives(Rcx, 2)
        .gives(R10, DATA)
        .gives(Rsp, crate::layout::STACK - 8)
        .leaves(DATA, &2u64.to_le_bytes())
        .page_fault(0, PLAY, 5),
        Case::long("memory/access_that_wraps_around", |a| emit!(a; stc(); mov(rax, qword_ptr(rbx)); adc(rax, 0)))
            .with(Rbx, (-4i64) as u64)
            .page_fault(0, (-4i64) as u64, 1),
        Case::long(
            "memory/access_across_the_end_of_page_0",
            |a| emit!(a; stc(); mov(rax, qword_ptr(rbx)); adc(rax, 0)),
        )
        .with(Rbx, 0xffd)
        .entry(0, 1, P, 0)
        .page_fault(0, 0xffd, 1),
        Case::long(
            "memory/reserved_nops_access_nothing",
            |a| emit!(a; db(&[0x0f, 0x19, 0x03]); db(&[0x0f, 0x1d, 0x03]); db(&[0x0f, 0x1f, 0x03])),
        )
        .with(Rbx, PLAY),
        Case::long("memory/alignment_comes_before_the_page", |a| emit!(a; nop(); addps(xmm0, xmmword_ptr(PLAY + 8))))
            .raises(13, Some(0), 1),
        Case::long(
            "memory/cmpxchg16b_alignment_comes_before_the_page",
            |a| emit!(a; nop(); cmpxchg16b(xmmword_ptr(PLAY + 8))),
        )
        .raises(13, Some(0), 1),
        Case::long(
            "memory/unaligned_vectors_may_fault",
            |a| emit!(a; nop(); pcmpistri(xmm0, xmmword_ptr(PLAY + 8), 0)),
        )
        .page_fault(0, PLAY + 8, 1),
        Case::long("memory/masked_move_reaches_only_what_is_selected", |a| {
            emit!(a; vmovdqu(ymm1, ymmword_ptr(DATA)); vpmaskmovd(ymm2, ymm1, ymmword_ptr(PLAY + PAGE - 8));
                vmovq(rax, xmm2); vpmaskmovd(ymmword_ptr(PLAY + PAGE - 4), ymm1, ymm1))
        })
        .tweak(|state| {
            state.cr4 |= cr4::OSXSAVE;
            state.xcr0 = 7;
        })
        .map(PLAY, RAM, P | RW)
        .poke(DATA, &[0, 0, 0, 0x80, 0, 0, 0, 0x80])
        .poke(RAM + PAGE - 8, &[1, 2, 3, 4, 5, 6, 7, 8])
        .gives(Rax, 0x0807_0605_0403_0201)
        .leaves(RAM + PAGE - 4, &[5, 6, 7, 8])
        .page_fault(2, PLAY + PAGE, 3),
        Case::long(
            "memory/masked_move_by_a_32_bit_address_goes_on_behind_4_gib",
            |a| emit!(a; vmovdqu(ymm1, ymmword_ptr(DATA)); vpmaskmovd(ymm2, ymm1, ymmword_ptr(ecx)); vmovq(rax, xmm2)),
        )
        .tweak(|state| {
            state.cr4 |= cr4::OSXSAVE;
            state.xcr0 = 7;
        })
        .with(Rcx, 0xffff_fffc)
        .map(1 << 32, RAM, P | RW)
        .poke(DATA + 4, &[0, 0, 0, 0x80])
        .poke(RAM, &[1, 2, 3, 4])
        .gives(Rax, 0x0403_0201_0000_0000),
        Case::long(
            "memory/x87_error_comes_before_the_page",
            |a| emit!(a; fldcw(word_ptr(DATA)); fldz(); fldz(); fdivp(st1, st0); fld(dword_ptr(PLAY))),
        )
        .poke(DATA, &0x37eu16.to_le_bytes())
        .raises(16, None, 4),
        Case::long(
            "memory/x87_store_that_fails_leaves_memory",
            |a| emit!(a; fldcw(word_ptr(DATA)); fld(dword_ptr(DATA + 4)); fistp(qword_ptr(EDGE - 3)); mov(eax, 1)),
        )
        .map(PLAY, RAM + 5 * PAGE, P | RW)
        .map(EDGE, RAM, P | RW)
        .poke(DATA, &0x37eu16.to_le_bytes())
        // Infinity.
        .poke(DATA + 4, &0x7f80_0000u32.to_le_bytes())
        .poke(RAM + 6 * PAGE - 3, &[1, 2, 3])
        .poke(RAM, &[4, 5, 6, 7, 8])
        .gives(Rax, 1)
        .leaves(RAM + 6 * PAGE - 3, &[1, 2, 3])
        .leaves(RAM, &[4, 5, 6, 7, 8]),
        Case::long(
            "memory/push_of_a_selector_across_pages",
            |a| emit!(a; push(fs); mov(rax, qword_ptr(rsp)); add(rsp, 8)),
        )
        .tweak(|state| state.segment[4].selector = 0x2b)
        .with(Rsp, EDGE + 6)
        .map(PLAY, RAM + 5 * PAGE, P | RW)
        .map(EDGE, RAM, P | RW)
        .poke(RAM + 6 * PAGE, &[0xee; 8])
        .poke(RAM, &[0xff; 8])
        .gives(Rax, 0x2b)
        .leaves(RAM, &[0, 0, 0, 0, 0, 0, 0xff, 0xff])
        .leaves(RAM + 6 * PAGE, &[0xee; 8]),
        Case::long("memory/push_of_a_selector_into_nothing", |a| emit!(a; nop(); push(fs)))
            .with(Rsp, EDGE + 6)
            .map(PLAY, RAM, P | RW)
            .gate(14, None, |gate| gate.ist = 1)
            .page_fault(2, EDGE, 1),
        // vpgatherdd xmm1, [eax-wide: xmm2 * 1 + DATA + 16], xmm3: the sum wraps at 32 bits.
        Case::long("memory/gather_with_32_bit_addresses_and_no_base", |a| {
            emit!(a; movd(xmm2, eax); pcmpeqd(xmm3, xmm3); psrldq(xmm3, 12);
                db(&[0x67, 0xc4, 0xe2, 0x61, 0x90, 0x0c, 0x15, 0x10, 0x00, 0x02, 0x00]); movd(ebx, xmm1))
        })
        .tweak(|state| {
            state.cr4 |= cr4::OSXSAVE;
            state.xcr0 = 7;
        })
        .with(Rax, 0xffff_fff0)
        .poke(DATA, &[9, 8, 7, 6])
        .gives(Rbx, 0x0607_0809),
        Case::long("memory/stack_pointer_far_from_canonical", |a| emit!(a; nop(); push(rax); xor(ebx, ebx)))
            .with(Rsp, 1 << 63 | 0x18)
            .gate(8, None, |gate| gate.ist = 1)
            .gate(12, None, |gate| gate.ist = 1)
            .raises(12, Some(0), 1),
        Case::long(
            "memory/alignment_comes_before_a_stack_that_is_not_canonical",
            |a| emit!(a; nop(); movaps(xmm0, xmmword_ptr(rsp + 8)); xor(ebx, ebx)),
        )
        .with(Rsp, 1 << 63 | 0x10)
        .gate(13, None, |gate| gate.ist = 1)
        .raises(13, Some(0), 1),
        Case::long(
            "memory/displacement_from_far_to_far",
            |a| emit!(a; nop(); mov(rax, qword_ptr(rsp + 0x7000_0000)); xor(ebx, ebx)),
        )
        .with(Rsp, (1 << 63) - 0x7000_0000 + 0x10)
        .gate(12, None, |gate| gate.ist = 1)
        .raises(12, Some(0), 1),
        Case::long("memory/ldmxcsr_beside_other_accesses", |a| {
            emit!(a; mov(rcx, qword_ptr(rbx)); add(rcx, qword_ptr(rbx + 8)); ldmxcsr(dword_ptr(rdx));
                mov(rax, qword_ptr(rdx + 8)); add(rax, qword_ptr(rdx + 16)))
        })
        .with(Rbx, DATA)
        .with(Rdx, PLAY)
        .map(PLAY, RAM, P | RW)
        .poke(DATA, &1u64.to_le_bytes())
        .poke(DATA + 8, &2u64.to_le_bytes())
        .poke(RAM, &0x1f80u64.to_le_bytes())
        .poke(RAM + 8, &0x10u64.to_le_bytes())
        .poke(RAM + 16, &0x20u64.to_le_bytes())
        .gives(Rcx, 3)
        .gives(Rax, 0x30),
        // btr [PLAY + 0x44], r8, the address and the distance of the bit added in 32 bits.
        Case::long(
            "memory/bit_string_with_a_32_bit_address_and_no_base",
            |a| emit!(a; nop(); db(&[0x67, 0x4c, 0x0f, 0xb3, 0x04, 0x25, 0x44, 0x00, 0x40, 0x00])),
        )
        .with(R8, FAR_BIT as u64)
        .page_fault(2, ((FAR_BIT >> 6 << 3) as u64).wrapping_add(PLAY + 0x44) & 0xffff_ffff, 1),
        Case::long("memory/push_that_faults_leaves_rsp", |a| emit!(a; nop(); push(rax)))
            .with(Rsp, EDGE + 4)
            .map(EDGE, RAM, P | RW)
            .gate(14, None, |gate| gate.ist = 1)
            .page_fault(2, EDGE - 4, 1),
        Case::long("memory/large_and_huge_pages", |a| {
            emit!(a; mov(rax, qword_ptr(PLAY + 0x5008)); mov(rbx, 0x4000_0000u64);
                mov(rcx, qword_ptr(rbx + 0x20_0008)); mov(qword_ptr(rbx + 0x20_0010), rcx))
        })
        .map_in(0, 2, PLAY, RAM, P | RW | PS)
        .map_in(0, 3, 0x4000_0000, 0, P | RW | PS | G)
        .poke(RAM + 0x5008, &0x11u64.to_le_bytes())
        .poke(RAM + 8, &0x22u64.to_le_bytes())
        .gives(Rax, 0x11)
        .gives(Rbx, 0x4000_0000)
        .gives(Rcx, 0x22)
        .leaves(RAM + 16, &0x22u64.to_le_bytes())
        .entry_after(0x4000_0000, 3, A | D, A | D),
        Case::flat("memory/paging_32_bits", |a| {
            emit!(a; mov(eax, dword_ptr(PLAY as u32 + 4)); mov(dword_ptr(0x80_0008), eax);
                mov(ebx, dword_ptr(0x80_0008)); mov(ecx, dword_ptr(0xc0_0000)))
        })
        .paged(Paging::Bits32)
        .map(PLAY, RAM, P | RW)
        .map_in(0, 2, 0x80_0000, 0x40_0000, P | RW | PS)
        .poke(RAM + 4, &[1, 2, 3, 4])
        .gives(Rax, 0x0403_0201)
        .gives(Rbx, 0x0403_0201)
        .leaves(0x40_0008, &[1, 2, 3, 4])
        .page_fault(0, 0xc0_0000, 3),
        Case::flat(
            "memory/paging_pae",
            |a| emit!(a; mov(eax, dword_ptr(PLAY as u32 + 4)); mov(dword_ptr(0x80_0008), eax); jmp(ebx)),
        )
        .paged(Paging::Pae)
        .map(PLAY, RAM, P | RW | NX)
        .map_in(0, 2, 0x80_0000, 0x40_0000, P | RW | PS)
        .with(Rbx, PLAY)
        .poke(RAM + 4, &[1, 2, 3, 4])
        .gives(Rax, 0x0403_0201)
        .leaves(0x40_0008, &[1, 2, 3, 4])
        .page_fault_at(0x11, PLAY, PLAY),
    ]
}

fn crossing() -> Vec<Case> {
    vec![
        Case::long("memory/load_and_store_across_unrelated_pages", |a| {
            emit!(a; mov(rax, qword_ptr(EDGE - 3)); mov(qword_ptr(EDGE - 5), rcx); add(dword_ptr(EDGE - 1), 1);
                movdqu(xmm0, xmmword_ptr(EDGE - 8)); movdqu(xmmword_ptr(EDGE - 7), xmm0))
        })
        .map(PLAY, RAM + 5 * PAGE, P | RW)
        .map(EDGE, RAM, P | RW)
        .poke(RAM + 6 * PAGE - 8, &[1, 2, 3, 4, 5, 6, 7, 8])
        .poke(RAM, &[11, 12, 13, 14, 15, 16, 17, 18, 19])
        .with(Rcx, 0xa8a7_a6a5_a4a3_a2a1)
        .gives(Rax, 0x0f0e_0d0c_0b08_0706)
        .leaves(RAM + 6 * PAGE - 8, &[1, 1, 2, 3, 0xa1, 0xa2, 0xa3, 0xa4])
        .leaves(RAM, &[0xa6, 0xa6, 0xa7, 0xa8, 14, 15, 16, 17, 18]),
        Case::long("memory/load_crossing_into_nothing", |a| emit!(a; nop(); mov(rax, qword_ptr(EDGE - 3))))
            .map(PLAY, RAM, P | RW)
            .page_fault(0, EDGE, 1),
        Case::long(
            "memory/store_crossing_into_nothing_changes_nothing",
            |a| emit!(a; nop(); mov(qword_ptr(EDGE - 3), rax)),
        )
        .map(PLAY, RAM, P | RW)
        .leaves(RAM + PAGE - 3, &[0, 0, 0])
        .page_fault(2, EDGE, 1),
        Case::long("memory/store_crossing_into_read_only", |a| emit!(a; nop(); mov(qword_ptr(EDGE - 3), rax)))
            .map(PLAY, RAM, P | RW)
            .map(EDGE, RAM + PAGE, P)
            .leaves(RAM + PAGE - 3, &[0, 0, 0, 0])
            .page_fault(3, EDGE, 1),
        Case::long(
            "memory/rmw_crossing_into_nothing_changes_nothing",
            |a| emit!(a; stc(); adc(qword_ptr(EDGE - 3), rax)),
        )
        .map(PLAY, RAM, P | RW)
        .poke(RAM + PAGE - 3, &[1, 2, 3])
        .leaves(RAM + PAGE - 3, &[1, 2, 3])
        .page_fault(2, EDGE, 1),
        Case::long(
            "memory/locked_rmw_across_pages",
            |a| emit!(a; lock().add(qword_ptr(EDGE - 3), rax); lock().cmpxchg(dword_ptr(EDGE - 2), ecx)),
        )
        .map(PLAY, RAM + 5 * PAGE, P | RW)
        .map(EDGE, RAM, P | RW)
        .with(Rax, 0x0102_0304_0506_0708)
        .gives(Rax, 0x0405_0607)
        .with(Rcx, 0)
        .leaves(RAM + 6 * PAGE - 3, &[8, 7, 6])
        .leaves(RAM, &[5, 4, 3, 2, 1]),
        instruction_across_pages(),
        Case::long(
            "memory/instruction_crossing_into_nothing",
            |a| emit!(a; mov(byte_ptr(EDGE - 1), 0x48); mov(rcx, EDGE - 1); jmp(rcx)),
        )
        .map(PLAY, RAM, P | RW)
        .gives(Rcx, EDGE - 1)
        .page_fault_at(0x10, EDGE, EDGE - 1),
        Case::long(
            "memory/code_runs_into_nothing",
            |a| emit!(a; mov(word_ptr(EDGE - 2), 0x9090); mov(rcx, EDGE - 2); jmp(rcx)),
        )
        .map(PLAY, RAM, P | RW)
        .gives(Rcx, EDGE - 2)
        .page_fault_at(0x10, EDGE, EDGE),
    ]
}

fn instruction_across_pages() -> Case {
    // mov rax, 0x1122334455667788; inc rax; int 0xff
    let code = [0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x48, 0xff, 0xc0, 0xcd, 0xff];
    Case::long("memory/instruction_across_unrelated_pages", |a| emit!(a; nop(); mov(rcx, EDGE - 3); jmp(rcx)))
        .map(PLAY, RAM, P | RW)
        .map(EDGE, RAM + 3 * PAGE, P | RW)
        .poke(RAM + PAGE - 3, &code[..3])
        .poke(RAM + 3 * PAGE, &code[3..])
        .gives(Rax, 0x1122_3344_5566_7789)
        .gives(Rcx, EDGE - 3)
        .ends(Ending::Vector { vector: 0xff, error: None, rip: Place::Offset(EDGE + 12) })
}

fn mmio() -> Vec<Case> {
    let byte = |n: u64| crate::board::mmio_byte(MMIO + n);
    let word = |n: u64, len: u64| (0..len).fold(0u64, |all, i| all | u64::from(byte(n + i)) << (8 * i));
    let read = |n: u64, len: usize| Access::MmioRead(MMIO + n, len);
    let write = |n: u64, bytes: &[u8]| Access::MmioWrite(MMIO + n, bytes.to_vec());
    vec![
        Case::long("memory/mmio_loads", |a| {
            emit!(a; mov(al, byte_ptr(r10)); mov(cx, word_ptr(r10 + 2)); mov(edx, dword_ptr(r10 + 4));
                mov(rbx, qword_ptr(r10 + 8)); movzx(esi, byte_ptr(r10 + 1)); movsx(rdi, word_ptr(r10 + 6));
                mov(r10, qword_ptr(r10)))
        })
        .with(R10, MMIO)
        .with(Rax, 0)
        .with(Rcx, 0)
        .gives(Rax, word(0, 1))
        .gives(Rcx, word(2, 2))
        .gives(Rdx, word(4, 4))
        .gives(Rbx, word(8, 8))
        .gives(Rsi, word(1, 1))
        .gives(Rdi, word(6, 2) as i16 as u64)
        .gives(R10, word(0, 8))
        .accesses(read(0, 1))
        .accesses(read(2, 2))
        .accesses(read(4, 4))
        .accesses(read(8, 8))
        .accesses(read(1, 1))
        .accesses(read(6, 2))
        .accesses(read(0, 8)),
        Case::long("memory/mmio_stores", |a| {
            emit!(a; mov(byte_ptr(rbx), ah); mov(word_ptr(r11 + 2), r11w); mov(dword_ptr(r11 + 4), 0x01020304);
                mov(qword_ptr(r11 + 8), rax); movnti(dword_ptr(r11), eax); setnz(byte_ptr(r11 + 1)))
        })
        .with(R11, MMIO)
        .with(Rbx, MMIO)
        .with(Rax, 0x1817_1615_1413_1211)
        .accesses(write(0, &[0x12]))
        .accesses(write(2, &[0, 0]))
        .accesses(write(4, &[4, 3, 2, 1]))
        .accesses(write(8, &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]))
        .accesses(write(0, &[0x11, 0x12, 0x13, 0x14]))
        .accesses(write(1, &[1])),
        Case::long(
            "memory/mmio_read_modify_write",
            |a| emit!(a; add(byte_ptr(r15), 1); xchg(dword_ptr(r15 + 4), eax); lock().or(dword_ptr(r15 + 8), 0x40)),
        )
        .with(R15, MMIO)
        .with(Rax, 0x4433_2211)
        .gives(Rax, word(4, 4))
        .accesses(read(0, 1))
        .accesses(write(0, &[byte(0).wrapping_add(1)]))
        .accesses(read(4, 4))
        .accesses(write(4, &[0x11, 0x22, 0x33, 0x44]))
        .accesses(read(8, 4))
        .accesses(write(8, &(word(8, 4) as u32 | 0x40).to_le_bytes())),
        Case::long(
            "memory/mmio_push_pop",
            |a| emit!(a; push(qword_ptr(rbx)); pop(qword_ptr(rbx + 8)); push(qword_ptr(rbx + 0x10)); pop(rcx)),
        )
        .with(Rbx, MMIO)
        .gives(Rcx, word(0x10, 8))
        .accesses(read(0, 8))
        .accesses(write(8, &word(0, 8).to_le_bytes()))
        .accesses(read(0x10, 8)),
        Case::long("memory/mmio_sse", |a| {
            emit!(a; movdqu(xmm1, xmmword_ptr(rbx)); movdqu(xmmword_ptr(rbx + 0x20), xmm1); movq(rax, xmm1);
                paddb(xmm1, xmmword_ptr(rbx + 0x10)))
        })
        .with(Rbx, MMIO)
        .gives(Rax, word(0, 8))
        .accesses(read(0, 16))
        .accesses(write(0x20, &[word(0, 8).to_le_bytes(), word(8, 8).to_le_bytes()].concat()))
        .accesses(read(0x10, 16)),
        Case::long("memory/mmio_string", |a| emit!(a; rep().movsd(); lodsb(); stosw()))
            .with(Rsi, MMIO)
            .with(Rdi, DATA)
            .with(Rcx, 3)
            .with(Rax, 0)
            .gives(Rcx, 0)
            .gives(Rsi, MMIO + 13)
            .gives(Rdi, DATA + 14)
            .gives(Rax, word(12, 1))
            .leaves(DATA, &(0..12).map(byte).collect::<Vec<_>>())
            .accesses(read(0, 4))
            .accesses(read(4, 4))
            .accesses(read(8, 4))
            .accesses(read(12, 1)),
        Case::real(
            "memory/mmio_in_real_mode",
            |a| emit!(a; mov(ax, word_ptr(bx)); mov(byte_ptr(bx + 5), al); cmp(byte_ptr(bx), 0)),
        )
        .tweak(|state| state.segment[3] = lodge_x86::Segment::real_mode(0xa000, state.segment[3].attributes))
        .with(Rbx, 0x10)
        .with(Rax, 0)
        .gives(
            Rax,
            u64::from(u16::from_le_bytes([crate::board::mmio_byte(0xa_0010), crate::board::mmio_byte(0xa_0011)])),
        )
        .accesses(Access::MmioRead(0xa_0010, 2))
        .accesses(Access::MmioWrite(0xa_0015, vec![crate::board::mmio_byte(0xa_0010)]))
        .accesses(Access::MmioRead(0xa_0010, 1)),
    ]
}
