//! XSAVE and XRSTOR of all three components into memory that has been accessed before, which an engine may leave to the
//! host's processor: what must not come through from there, and what must be refused.

use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr4, rflags};

use crate::case::Case;
use crate::layout::{DATA, PLAY, RAM};
use crate::tables::{P, RW};

const IMAGE: u64 = DATA + 0x400;

fn with(case: Case) -> Case {
    case.tweak(|state| {
        state.cr4 |= cr4::OSXSAVE;
        state.xcr0 = 7;
    })
    .gives(Rax, 7)
    .gives(Rdx, 0)
}

/// The area is in the TLB, for reads and writes, and its header clear.
fn touch(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    emit!(a; xor(edx, edx); mov(qword_ptr(IMAGE + 512), rdx); mov(qword_ptr(IMAGE + 512), rdx); mov(eax, 7))
}

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    vec![
        with(Case::long("states/saved_and_brought_back", |a| {
            emit!(a; vmovdqu(ymm3, ymmword_ptr(DATA)); fld1())?;
            touch(a)?;
            emit!(a; stc(); xsave64(ptr(IMAGE)); vzeroall(); fninit(); xrstor64(ptr(IMAGE)); adc(rsi, 0);
                vextracti128(xmm4, ymm3, 1u32); vmovq(rbx, xmm4); fistp(qword_ptr(DATA + 0x40));
                mov(rcx, qword_ptr(IMAGE + 8)); or(rcx, qword_ptr(IMAGE + 16)); mov(r8w, word_ptr(IMAGE + 6));
                mov(r9d, dword_ptr(IMAGE + 28)); mov(r10d, dword_ptr(IMAGE + 24)))
        }))
        .poke(DATA + 16, &0x1122_3344_5566_7788u64.to_le_bytes())
        .with(Rsi, 1)
        .with(R8, 0)
        .gives(Rsi, 2)
        .gives(Rbx, 0x1122_3344_5566_7788)
        // No pointers of the host's; MXCSR and its mask as they are shown.
        .gives(Rcx, 0)
        .gives(R8, 0)
        .gives(R9, 0xffff)
        .gives(R10, 0x1f80)
        .leaves(DATA + 0x40, &1u64.to_le_bytes()),
        with(Case::long("states/initial_state", |a| {
            emit!(a; movdqu(xmm3, xmmword_ptr(DATA)); fld1())?;
            touch(a)?;
            emit!(a; xrstor64(ptr(IMAGE)); movq(rbx, xmm3); fnstsw(word_ptr(DATA + 0x40)); fnstcw(word_ptr(DATA + 0x42)))
        }))
        .poke(DATA, &[1; 16])
        .poke(IMAGE + 24, &0x1f80u32.to_le_bytes())
        .gives(Rbx, 0)
        .leaves(DATA + 0x40, &[0, 0, 0x7f, 3]),
        with(Case::long("states/unknown_component", |a| {
            touch(a)?;
            emit!(a; stc(); bts(qword_ptr(IMAGE + 512), 5u32); stc(); xrstor64(ptr(IMAGE)))
        }))
        .raises(13, Some(0), 7)
        .flags(rflags::CF, rflags::CF),
        with(Case::long("states/compacted_format", |a| {
            touch(a)?;
            emit!(a; bts(qword_ptr(IMAGE + 520), 63u32); xrstor64(ptr(IMAGE)))
        }))
        .raises(13, Some(0), 5),
        with(Case::long("states/reserved_mxcsr", |a| {
            touch(a)?;
            emit!(a; mov(dword_ptr(IMAGE + 512), 2); xrstor64(ptr(IMAGE)))
        }))
        .poke(IMAGE + 24, &[0x80, 0x1f, 1, 0])
        .raises(13, Some(0), 5),
        with(Case::long("states/unaligned", |a| {
            touch(a)?;
            emit!(a; nop(); xsave64(ptr(IMAGE + 16)))
        }))
        .raises(13, Some(0), 5),
        with(Case::long("states/over_two_pages", |a| {
            emit!(a; vmovdqu(ymm15, ymmword_ptr(DATA)); mov(qword_ptr(PLAY + 0xe00), rdx); mov(qword_ptr(PLAY + 0x1000), rdx);
                xor(edx, edx); mov(eax, 7); xsave64(ptr(PLAY + 0xd00)); vzeroall(); xrstor64(ptr(PLAY + 0xd00));
                vextracti128(xmm4, ymm15, 1u32); vmovq(rbx, xmm4))
        }))
        .map(PLAY, RAM, P | RW)
        .map(PLAY + 0x1000, RAM + 0x8000, P | RW)
        .poke(DATA + 16, &0x1122_3344_5566_7788u64.to_le_bytes())
        .with(Rdx, 0)
        .gives(Rbx, 0x1122_3344_5566_7788),
    ]
}
