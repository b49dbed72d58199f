//! String instructions: widths, directions, address sizes, overlaps, page edges, and faults in the middle.

use iced_x86::code_asm::*;
use lodge_engine_api::Event;
use lodge_x86::Gpr::*;
use lodge_x86::bits::rflags;

use crate::case::{Access, Case, Ending, Mode, Place};
use crate::layout::{self, DATA, PLAY, RAM, port};
use crate::tables::{P, RW};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = moves();
    all.extend(scans());
    all.extend(faults());
    all.extend(narrow());
    all.extend(ports());
    all.extend(port_checks());
    all
}

const PAGE: u64 = 0x1000;
const EDGE: u64 = PLAY + PAGE;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251 + 1) as u8).collect()
}

fn moves() -> Vec<Case> {
    let down = |case: Case| case.tweak(|state| state.rflags |= rflags::DF);
    vec![
        Case::long("strings/movsb", |a| emit!(a; rep().movsb()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 0x4000)
            .with(Rcx, 9001)
            .poke(DATA, &pattern(9001))
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 9001)
            .gives(Rdi, DATA + 0x4000 + 9001)
            .leaves(DATA + 0x4000, &[pattern(9001), vec![0]].concat()),
        Case::long("strings/movsq_unaligned", |a| emit!(a; rep().movsq()))
            .with(Rsi, DATA + 3)
            .with(Rdi, DATA + 0x4001)
            .with(Rcx, 1001)
            .poke(DATA + 3, &pattern(8008))
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 3 + 8008)
            .gives(Rdi, DATA + 0x4001 + 8008)
            .leaves(DATA + 0x4001, &[pattern(8008), vec![0]].concat()),
        // The first element lies in two pages that are not side by side in memory.
        Case::long("strings/movsq_from_two_pages", |a| emit!(a; rep().movsq()))
            .map(PLAY, RAM, P | RW)
            .map(EDGE, RAM + 2 * PAGE, P | RW)
            .with(Rsi, EDGE - 4)
            .with(Rdi, RAM + 4 * PAGE)
            .with(Rcx, 100)
            .poke(RAM + PAGE - 4, &pattern(800)[..4])
            .poke(RAM + 2 * PAGE, &pattern(800)[4..])
            .gives(Rcx, 0)
            .gives(Rsi, EDGE + 796)
            .gives(Rdi, RAM + 4 * PAGE + 800)
            .leaves(RAM + 4 * PAGE, &[pattern(800), vec![0; 8]].concat()),
        down(Case::long("strings/movsd_down", |a| emit!(a; rep().movsd())))
            .with(Rsi, DATA + 0x1ffc)
            .with(Rdi, DATA + 0x5ffe)
            .with(Rcx, 0x600)
            .poke(DATA + 0x800, &pattern(0x1800))
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 0x7fc)
            .gives(Rdi, DATA + 0x47fe)
            .leaves(DATA + 0x4802, &pattern(0x1800)),
        Case::long("strings/overlap_forward_repeats", |a| emit!(a; rep().movsb()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 3)
            .with(Rcx, 30)
            .poke(DATA, b"abc")
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 30)
            .gives(Rdi, DATA + 33)
            .leaves(DATA, b"abcabcabcabcabcabcabcabcabcabcabc\0"),
        Case::long("strings/overlap_forward_of_wide_elements", |a| emit!(a; rep().movsq()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 3)
            .with(Rcx, 3)
            .poke(DATA, b"abcdefghijklmnopqrstuvwxyzABCDEF")
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 24)
            .gives(Rdi, DATA + 27)
            // Each element is read after the one before was written.
            .leaves(DATA, b"abcabcdefghfghlmnopnoptuvwxBCDEF"),
        down(Case::long("strings/overlap_down", |a| emit!(a; rep().movsb())))
            .with(Rsi, DATA + 9)
            .with(Rdi, DATA + 12)
            .with(Rcx, 10)
            .poke(DATA, b"0123456789")
            .gives(Rcx, 0)
            .gives(Rsi, DATA - 1)
            .gives(Rdi, DATA + 2)
            .leaves(DATA, b"0120123456789\0"),
        Case::long("strings/stos_of_all_widths", |a| {
            emit!(a; mov(ecx, 5); rep().stosb(); mov(ecx, 3); rep().stosw(); mov(ecx, 2); rep().stosd();
                mov(ecx, 2); rep().stosq(); stosb())
        })
        .with(Rdi, DATA + PAGE - 6)
        .with(Rax, 0x0807_0605_0403_0201)
        .gives(Rcx, 0)
        .gives(Rdi, DATA + PAGE - 6 + 5 + 6 + 8 + 16 + 1)
        .leaves(
            DATA + PAGE - 6,
            &[
                1, 1, 1, 1, 1, 1, 2, 1, 2, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7,
                8, 1, 0,
            ],
        ),
        down(Case::long("strings/stosd_down", |a| emit!(a; rep().stosd())))
            .with(Rdi, DATA + 0x1004)
            .with(Rax, 0x0403_0201)
            .with(Rcx, 5)
            .gives(Rcx, 0)
            .gives(Rdi, DATA + 0xff0)
            .leaves(
                DATA + 0xff0,
                &[[0u8; 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]].concat(),
            ),
        Case::long("strings/lods_repeated", |a| emit!(a; rep().lodsw()))
            .with(Rsi, DATA)
            .with(Rax, 0)
            .with(Rcx, 3)
            .poke(DATA, &[1, 2, 3, 4, 5, 6])
            .gives(Rax, 0x0605)
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 6),
        Case::long("strings/count_zero_does_nothing", |a| emit!(a; rep().movsb(); repe().cmpsb(); rep().stosq()))
            .with(Rsi, PLAY)
            .with(Rdi, PLAY)
            .with(Rcx, 0)
            .flags(rflags::ZF, 0),
    ]
}

fn scans() -> Vec<Case> {
    let status = rflags::ARITHMETIC;
    vec![
        Case::long("strings/repne_scasb", |a| emit!(a; repne().scasb()))
            .with(Rdi, DATA + PAGE - 3)
            .with(Rax, 0x41)
            .with(Rcx, u64::MAX)
            .poke(DATA + PAGE - 3, b"xyzzyA")
            .gives(Rdi, DATA + PAGE + 3)
            .gives(Rcx, u64::MAX - 6)
            .flags(rflags::ZF, rflags::ZF),
        Case::long("strings/repe_scasw_to_the_end", |a| emit!(a; repe().scasw()))
            .with(Rdi, DATA)
            .with(Rax, 0)
            .with(Rcx, 100)
            .gives(Rdi, DATA + 200)
            .gives(Rcx, 0)
            .flags(status, rflags::ZF | rflags::PF),
        Case::long("strings/repe_cmpsb_differs", |a| emit!(a; repe().cmpsb()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 0x100)
            .with(Rcx, 10)
            .poke(DATA, b"same\x01")
            .poke(DATA + 0x100, b"same\x02")
            .gives(Rsi, DATA + 5)
            .gives(Rdi, DATA + 0x105)
            .gives(Rcx, 5)
            .flags(status, rflags::CF | rflags::SF | rflags::AF | rflags::PF),
        Case::long("strings/cmpsq_single", |a| emit!(a; cmpsq()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 8)
            .poke(DATA, &[1, 0, 0, 0, 0, 0, 0, 0x80, 1])
            .gives(Rsi, DATA + 8)
            .gives(Rdi, DATA + 16)
            .flags(status, rflags::SF | rflags::PF),
        Case::long("strings/repne_cmpsd_down", |a| emit!(a; repne().cmpsd()))
            .tweak(|state| state.rflags |= rflags::DF)
            .with(Rsi, DATA + 0x20)
            .with(Rdi, DATA + 0x120)
            .with(Rcx, 50)
            .poke(DATA + 0x14, &[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])
            .poke(DATA + 0x114, &[1, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0])
            .gives(Rsi, DATA + 0x10)
            .gives(Rdi, DATA + 0x110)
            .gives(Rcx, 46)
            .flags(rflags::ZF, rflags::ZF),
    ]
}

fn faults() -> Vec<Case> {
    vec![
        Case::long("strings/movsb_source_faults_in_the_middle", |a| emit!(a; nop(); rep().movsb()))
            .map(PLAY, RAM, P | RW)
            .poke(RAM + PAGE - 5, b"hello")
            .with(Rsi, EDGE - 5)
            .with(Rdi, DATA)
            .with(Rcx, 20)
            .gives(Rsi, EDGE)
            .gives(Rdi, DATA + 5)
            .gives(Rcx, 15)
            .leaves(DATA, b"hello\0")
            .page_fault(0, EDGE, 1),
        Case::long("strings/fault_shows_the_flags_that_live", |a| emit!(a; stc(); rep().movsb(); rep().stosb()))
            .with(Rsi, DATA)
            .with(Rdi, PLAY)
            .with(Rcx, 3)
            .tweak(|state| state.rflags |= rflags::ARITHMETIC)
            .flags(rflags::ARITHMETIC, rflags::ARITHMETIC)
            .page_fault(2, PLAY, 1),
        Case::long("strings/movsd_destination_faults_across_the_edge", |a| emit!(a; nop(); rep().movsd()))
            .map(PLAY, RAM, P | RW)
            .poke(DATA, &pattern(64))
            .with(Rsi, DATA)
            .with(Rdi, EDGE - 10)
            .with(Rcx, 16)
            .gives(Rsi, DATA + 8)
            .gives(Rdi, EDGE - 2)
            .gives(Rcx, 14)
            .leaves(RAM + PAGE - 10, &[pattern(8), vec![0, 0]].concat())
            .page_fault(2, EDGE, 1),
        Case::long("strings/stosq_faults_on_read_only", |a| emit!(a; nop(); rep().stosq()))
            .map(PLAY, RAM, P | RW)
            .map(EDGE, RAM + PAGE, P)
            .with(Rdi, EDGE - 16)
            .with(Rcx, 600)
            .with(Rax, 3)
            .gives(Rdi, EDGE)
            .gives(Rcx, 598)
            .leaves(RAM + PAGE - 16, &[3u64.to_le_bytes(), 3u64.to_le_bytes(), [0; 8]].concat())
            .page_fault(3, EDGE, 1),
        Case::long("strings/scasb_faults", |a| emit!(a; nop(); repne().scasb()))
            .map(PLAY, RAM, P | RW)
            .with(Rdi, EDGE - 4)
            .with(Rcx, 100)
            .with(Rax, 1)
            .gives(Rdi, EDGE)
            .gives(Rcx, 96)
            .page_fault(0, EDGE, 1),
        Case::long("strings/cmpsw_second_faults_first", |a| emit!(a; nop(); repe().cmpsw()))
            .map(PLAY, RAM, P | RW)
            .with(Rsi, DATA)
            .with(Rdi, EDGE - 6)
            .with(Rcx, 100)
            .gives(Rsi, DATA + 6)
            .gives(Rdi, EDGE)
            .gives(Rcx, 97)
            .page_fault(0, EDGE, 1),
        Case::long("strings/movsb_down_faults", |a| emit!(a; nop(); rep().movsb()))
            .tweak(|state| state.rflags |= rflags::DF)
            .map(EDGE, RAM, P | RW)
            .poke(RAM, b"abcd")
            .with(Rsi, EDGE + 3)
            .with(Rdi, DATA + 3)
            .with(Rcx, 9)
            .gives(Rsi, EDGE - 1)
            .gives(Rdi, DATA - 1)
            .gives(Rcx, 5)
            .leaves(DATA, b"abcd")
            .page_fault(0, EDGE - 1, 1),
    ]
}

fn narrow() -> Vec<Case> {
    let mut all = vec![
        Case::long("strings/movsb_with_32_bit_addresses", |a| emit!(a; db(&[0x67]); rep().movsb()))
            .with(Rsi, DATA)
            .with(Rdi, DATA + 0x100)
            .with(Rcx, 0x1_0000_0004)
            .poke(DATA, b"wxyz!")
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 4)
            .gives(Rdi, DATA + 0x104)
            .leaves(DATA + 0x100, b"wxyz\0"),
        Case::flat("strings/stosb_with_16_bit_addresses_wraps", |a| emit!(a; db(&[0x67]); rep().stosb()))
            .tweak(|state| state.segment[0].base = DATA)
            .with(Rdi, 0x1234_fffe)
            .with(Rcx, 0x5678_0004)
            .with(Rax, 0x33)
            .gives(Rdi, 0x1234_0002)
            .gives(Rcx, 0x5678_0000)
            .leaves(DATA, &[0x33, 0x33, 0])
            .leaves(DATA + 0xfffd, &[0, 0x33, 0x33, 0]),
    ];
    for mode in [Mode::Real16, Mode::V86, Mode::Protected16] {
        all.push(
            Case::new(mode, format!("strings/movsw_{mode:?}"), |a| emit!(a; rep().movsw(); db(&[0x26]); lodsb()))
                .with(Rsi, 0x10)
                .with(Rdi, 0x20)
                .with(Rcx, 3)
                .with(Rax, 0)
                .poke(DATA + 0x10, b"abcdefg")
                .gives(Rsi, 0x17)
                .gives(Rdi, 0x26)
                .gives(Rcx, 0)
                .gives(Rax, b'g'.into())
                .leaves(DATA + 0x20, b"abcdef\0"),
        );
    }
    all.push(
        Case::flat(
            "strings/movs_with_segment_override",
            |a| emit!(a; db(&[0x64]); movsd(); db(&[0x65, 0xf3]); movsb()),
        )
        .tweak(|state| {
            state.segment[4].base = DATA;
            state.segment[5].base = DATA + 0x100;
        })
        .with(Rsi, 0)
        .with(Rdi, DATA + 0x200)
        .with(Rcx, 2)
        .poke(DATA, b"1234")
        .poke(DATA + 0x104, b"56")
        .gives(Rsi, 6)
        .gives(Rdi, DATA + 0x206)
        .gives(Rcx, 0)
        .leaves(DATA + 0x200, b"123456"),
    );
    all
}

fn ports() -> Vec<Case> {
    vec![
        Case::long("strings/outs_and_ins", |a| emit!(a; rep().outsb(); insw(); outsd(); insd()))
            .with(Rdx, port::DATA.into())
            .with(Rsi, DATA)
            .with(Rdi, DATA + 0x100)
            .with(Rcx, 2)
            .poke(DATA, &[1, 2, 3, 4, 5, 6])
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 6)
            .gives(Rdi, DATA + 0x106)
            .leaves(DATA + 0x100, &[0xef, 0xcd, 0xef, 0xcd, 0xab, 0x89])
            .accesses(Access::PortWrite(port::DATA, 1, 1))
            .accesses(Access::PortWrite(port::DATA, 1, 2))
            .accesses(Access::PortRead(port::DATA, 2))
            .accesses(Access::PortWrite(port::DATA, 4, 0x0605_0403))
            .accesses(Access::PortRead(port::DATA, 4)),
        Case::long("strings/rep_insb_faults_before_the_port_is_read", |a| emit!(a; nop(); rep().insb()))
            .map(PLAY, RAM, P | RW)
            .with(Rdx, port::DATA.into())
            .with(Rdi, EDGE - 2)
            .with(Rcx, 4)
            .gives(Rdi, EDGE)
            .gives(Rcx, 2)
            .leaves(RAM + PAGE - 2, &[0xef, 0xef])
            .accesses(Access::PortRead(port::DATA, 1))
            .accesses(Access::PortRead(port::DATA, 1))
            .page_fault(2, EDGE, 1),
        Case::long("strings/rep_outsw_faults_in_the_middle", |a| emit!(a; nop(); rep().outsw()))
            .map(PLAY, RAM, P | RW)
            .poke(RAM + PAGE - 4, &[1, 2, 3, 4])
            .with(Rdx, port::DATA.into())
            .with(Rsi, EDGE - 4)
            .with(Rcx, 9)
            .gives(Rsi, EDGE)
            .gives(Rcx, 7)
            .accesses(Access::PortWrite(port::DATA, 2, 0x0201))
            .accesses(Access::PortWrite(port::DATA, 2, 0x0403))
            .page_fault(0, EDGE, 1),
        // The element that crosses into the missing page is neither read from the port nor stored in part.
        Case::long("strings/rep_insd_faults_across_the_edge", |a| emit!(a; nop(); rep().insd()))
            .map(PLAY, RAM, P | RW)
            .with(Rdx, port::DATA.into())
            .with(Rdi, EDGE - 6)
            .with(Rcx, 2)
            .gives(Rdi, EDGE - 2)
            .gives(Rcx, 1)
            .leaves(RAM + PAGE - 6, &[0xef, 0xcd, 0xab, 0x89, 0, 0])
            .accesses(Access::PortRead(port::DATA, 4))
            .page_fault(2, EDGE, 1),
        Case::long("strings/rep_outsb_down", |a| emit!(a; std(); rep().outsb(); insw(); cld()))
            .with(Rdx, port::DATA.into())
            .with(Rsi, DATA + 1)
            .with(Rdi, DATA + 0x100)
            .with(Rcx, 3)
            .poke(DATA - 1, &[1, 2, 3])
            .gives(Rcx, 0)
            .gives(Rsi, DATA - 2)
            .gives(Rdi, DATA + 0xfe)
            .leaves(DATA + 0x100, &[0xef, 0xcd])
            .accesses(Access::PortWrite(port::DATA, 1, 3))
            .accesses(Access::PortWrite(port::DATA, 1, 2))
            .accesses(Access::PortWrite(port::DATA, 1, 1))
            .accesses(Access::PortRead(port::DATA, 2)),
        Case::long("strings/rep_outsb_with_32_bit_addresses", |a| emit!(a; db(&[0x67]); rep().outsb()))
            .with(Rdx, port::DATA.into())
            .with(Rsi, 0x5_0000_0000 + DATA)
            .with(Rcx, 0x1_0000_0002)
            .poke(DATA, &[7, 8])
            .gives(Rcx, 0)
            .gives(Rsi, DATA + 2)
            .accesses(Access::PortWrite(port::DATA, 1, 7))
            .accesses(Access::PortWrite(port::DATA, 1, 8)),
        Case::flat("strings/rep_insb_with_16_bit_addresses_wraps", |a| emit!(a; db(&[0x67]); rep().insb()))
            .tweak(|state| state.segment[0].base = DATA)
            .with(Rdx, port::DATA.into())
            .with(Rdi, 0x1234_ffff)
            .with(Rcx, 0x5678_0002)
            .gives(Rdi, 0x1234_0001)
            .gives(Rcx, 0x5678_0000)
            .leaves(DATA, &[0xef, 0])
            .leaves(DATA + 0xffff, &[0xef])
            .accesses(Access::PortRead(port::DATA, 1))
            .accesses(Access::PortRead(port::DATA, 1)),
        // OUTS takes another segment, INS does not.
        Case::flat(
            "strings/outs_with_segment_override",
            |a| emit!(a; db(&[0x64]); outsb(); db(&[0x65, 0xf3]); outsw(); db(&[0x64]); insb()),
        )
        .tweak(|state| {
            state.segment[4].base = DATA;
            state.segment[5].base = DATA + 0x100;
        })
        .with(Rdx, port::DATA.into())
        .with(Rsi, 0)
        .with(Rdi, DATA + 0x200)
        .with(Rcx, 1)
        .poke(DATA, &[1])
        .poke(DATA + 0x101, &[2, 3])
        .gives(Rsi, 3)
        .gives(Rdi, DATA + 0x201)
        .gives(Rcx, 0)
        .leaves(DATA + 0x200, &[0xef])
        .accesses(Access::PortWrite(port::DATA, 1, 1))
        .accesses(Access::PortWrite(port::DATA, 2, 0x0302))
        .accesses(Access::PortRead(port::DATA, 1)),
        Case::real("strings/outs_and_ins_in_real_mode", |a| emit!(a; db(&[0x26]); rep().outsb(); rep().insw()))
            .with(Rdx, port::DATA.into())
            .with(Rsi, 0xffff)
            .with(Rdi, 0x100)
            .with(Rcx, 2)
            .poke(DATA, &[2])
            .poke(DATA + 0xffff, &[1])
            .gives(Rsi, 1)
            .gives(Rcx, 0)
            .accesses(Access::PortWrite(port::DATA, 1, 1))
            .accesses(Access::PortWrite(port::DATA, 1, 2)),
    ]
}

fn port_checks() -> Vec<Case> {
    vec![
        // The map is looked at before memory is.
        with_map(Case::long("strings/outsw_of_a_port_half_of_which_is_refused", |a| emit!(a; outsb(); outsw())), 0b10)
            .with(Rsi, DATA)
            .poke(DATA, &[5])
            .gives(Rsi, DATA + 1)
            .accesses(Access::PortWrite(port::DATA, 1, 5))
            .raises(13, Some(0), 1),
        with_map(Case::long("strings/rep_insb_of_a_port_that_is_refused", |a| emit!(a; nop(); rep().insb())), 0b01)
            .with(Rdi, PLAY)
            .with(Rcx, 5)
            .raises(13, Some(0), 1),
        with_map(Case::long("strings/rep_insb_by_io_map", |a| emit!(a; rep().insb())), 0b10)
            .with(Rdi, DATA)
            .with(Rcx, 2)
            .gives(Rdi, DATA + 2)
            .gives(Rcx, 0)
            .leaves(DATA, &[0xef, 0xef, 0])
            .accesses(Access::PortRead(port::DATA, 1))
            .accesses(Access::PortRead(port::DATA, 1)),
        // What the first element does raises an interrupt, which comes before the second.
        Case::long("strings/rep_outsb_is_interrupted_between_elements", |a| emit!(a; sti(); nop(); rep().outsb()))
            .event(Event::Interrupt(0x40))
            .with(Rdx, port::EVENT.into())
            .with(Rsi, DATA)
            .with(Rcx, 3)
            .poke(DATA, &[0, 0xee, 0xee])
            .gives(Rsi, DATA + 1)
            .gives(Rcx, 2)
            .ends(Ending::Vector { vector: 0x40, error: None, rip: Place::Instruction(2) }),
        // With interrupts off it goes on.
        Case::long("strings/rep_outsb_with_interrupts_off", |a| emit!(a; rep().outsb()))
            .event(Event::Interrupt(0x40))
            .with(Rdx, port::EVENT.into())
            .with(Rsi, DATA)
            .with(Rcx, 3)
            .poke(DATA, &[0, 0xee, 0xee])
            .gives(Rsi, DATA + 3)
            .gives(Rcx, 0),
        Case::long("strings/rep_insb_is_stepped_by_element", |a| emit!(a; push(0x102); popfq(); rep().insb()))
            .with(Rdx, port::DATA.into())
            .with(Rdi, DATA)
            .with(Rcx, 3)
            .gives(Rdi, DATA + 1)
            .gives(Rcx, 2)
            .accesses(Access::PortRead(port::DATA, 1))
            .ends(Ending::Vector { vector: 1, error: None, rip: Place::Instruction(2) }),
    ]
}

/// At CPL 3 with an I/O permission map that lets everything through but, of the byte for [`port::DATA`] and its
/// neighbours, what `refused` names from that port on.
fn with_map(case: Case, refused: u8) -> Case {
    const MAP: u64 = 0x68;
    case.user()
        .tweak(|state| state.tr.limit = 0x200)
        .with(Rdx, port::DATA.into())
        .poke(layout::TSS + 102, &(MAP as u16).to_le_bytes())
        .poke(layout::TSS + MAP + u64::from(port::DATA) / 8, &[refused << (port::DATA % 8)])
}
