//! The virtual interrupt flag: CR4.VME in virtual-8086 mode with each row of the table of INT n (SDM 3B 20.3.3, table
//! 20-2), CR4.PVI at CPL 3, and what the two leave alone.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_x86::Gpr::*;
use lodge_x86::bits::{cr4, rflags};

use crate::case::{Case, Ending, Mode, Place};
use crate::layout::{self, CODE};

/// All cases on this subject.
pub fn cases() -> Vec<Case> {
    let mut all = software_interrupts();
    all.extend(flags());
    all.extend(pending());
    all.extend(protected());
    all
}

/// A vector that is redirected to the 8086 program.
const REDIRECTED: i32 = 0x50;
/// One that is not.
const TRAPPED: i32 = 0x51;
/// Where the I/O permission map begins in the TSS; the redirection map lies below it.
const IO_MAP: u64 = 0x88;
/// Where the 8086 program's handler is, as an offset in CS.
const HANDLER: u64 = 0x100;
/// INT3 ends these: it goes through the IDT whatever IOPL is.
const INT3: Ending = Ending::Vector { vector: 3, error: None, rip: Place::Any };
const SEGMENT: u64 = CODE >> 4;

/// In virtual-8086 mode with CR4.VME and a redirection map.
fn vme(
    name: &str,
    iopl: u64,
    assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
) -> Case {
    let far = (HANDLER as u32 | (SEGMENT as u32) << 16).to_le_bytes();
    Case::new(Mode::V86, name, assemble)
        .tweak(move |state| {
            state.cr4 |= cr4::VME;
            state.rflags = state.rflags & !rflags::IOPL | iopl << 12;
            state.tr.limit = 0x200;
        })
        .poke(layout::TSS + 102, &(IO_MAP as u16).to_le_bytes())
        .poke(layout::TSS + IO_MAP - 32 + TRAPPED as u64 / 8, &[1 << (TRAPPED % 8)])
        .poke(REDIRECTED as u64 * 4, &far)
        .poke(TRAPPED as u64 * 4, &far)
        .ends(INT3)
}

/// Takes the frame of a redirected interrupt off the stack.
fn takes_frame(case: Case) -> Case {
    case.chunk(CODE + HANDLER, HANDLER, 16, |a| emit!(a; pop(ax); pop(bx); pop(cx); int3()))
        .with(Rax, 0)
        .with(Rbx, 0)
        .with(Rcx, 0)
        .gives(Rbx, SEGMENT)
}

fn software_interrupts() -> Vec<Case> {
    let without = |case: Case| case.tweak(|state| state.cr4 &= !cr4::VME);
    let through_idt = |vector: i32| Ending::Vector { vector: vector as u8, error: None, rip: Place::Instruction(2) };
    vec![
        without(vme("virtual_flag/int_method_1", 3, |a| emit!(a; nop(); int(REDIRECTED); nop())))
            .gate(REDIRECTED as u8, None, |gate| gate.dpl = 3)
            .ends(through_idt(REDIRECTED)),
        without(vme("virtual_flag/int_method_2", 0, |a| emit!(a; nop(); int(REDIRECTED)))).raises(13, Some(0), 1),
        vme("virtual_flag/int_method_3", 0, |a| emit!(a; nop(); int(TRAPPED))).raises(13, Some(0), 1),
        vme("virtual_flag/int_method_4", 3, |a| emit!(a; nop(); int(TRAPPED); nop()))
            .gate(TRAPPED as u8, None, |gate| gate.dpl = 3)
            .ends(through_idt(TRAPPED)),
        takes_frame(vme("virtual_flag/int_method_5", 3, |a| emit!(a; stc(); sti(); int(REDIRECTED); nop())))
            .gives(Rax, 4)
            .gives(Rcx, rflags::IF | rflags::IOPL | rflags::CF | 2)
            .flags(
                rflags::IF | rflags::VIF | rflags::IOPL | rflags::VM | rflags::CF,
                rflags::IOPL | rflags::VM | rflags::CF,
            ),
        takes_frame(vme("virtual_flag/int_method_6", 1, |a| emit!(a; stc(); int(REDIRECTED); nop())))
            .tweak(|state| state.rflags |= rflags::VIF)
            .gives(Rax, 3)
            // IOPL reads as 3, and VIF as IF.
            .gives(Rcx, rflags::IF | rflags::IOPL | rflags::CF | 2)
            .flags(rflags::IF | rflags::VIF | rflags::IOPL | rflags::CF, 1 << 12 | rflags::CF),
        takes_frame(vme("virtual_flag/int_method_6_with_vif_clear", 0, |a| emit!(a; nop(); int(REDIRECTED); nop())))
            .tweak(|state| state.rflags |= rflags::IF)
            .gives(Rax, 3)
            .gives(Rcx, rflags::IOPL | 2)
            .flags(rflags::IF | rflags::VIF | rflags::IOPL, rflags::IF),
        vme("virtual_flag/int_and_iret_of_an_8086_program", 0, |a| emit!(a; sti(); int(REDIRECTED); inc(bx); int3()))
            .chunk(CODE + HANDLER, HANDLER, 16, |a| emit!(a; inc(cx); iret()))
            .with(Rbx, 0)
            .with(Rcx, 0)
            .gives(Rbx, 1)
            .gives(Rcx, 1)
            .flags(rflags::IF | rflags::VIF | rflags::IOPL | rflags::VM, rflags::VIF | rflags::VM),
        vme("virtual_flag/map_beyond_the_limit", 3, |a| emit!(a; nop(); int(REDIRECTED)))
            .tweak(|state| state.tr.limit = (IO_MAP - 32) as u32 + REDIRECTED as u32 / 8 - 1)
            .raises(13, Some(0), 1),
        vme("virtual_flag/map_before_the_segment", 3, |a| emit!(a; nop(); int(REDIRECTED)))
            .poke(layout::TSS + 102, &31u16.to_le_bytes())
            .raises(13, Some(0), 1),
    ]
}

fn flags() -> Vec<Case> {
    const SEEN: u64 = rflags::IF | rflags::VIF | rflags::IOPL;
    vec![
        vme("virtual_flag/cli", 0, |a| emit!(a; cli(); int3()))
            .tweak(|state| state.rflags |= rflags::VIF | rflags::IF)
            .flags(SEEN, rflags::IF),
        vme("virtual_flag/sti", 2, |a| emit!(a; sti(); int3())).flags(SEEN, rflags::VIF | 2 << 12),
        vme("virtual_flag/cli_with_iopl_3_is_real", 3, |a| emit!(a; cli(); int3()))
            .tweak(|state| state.rflags |= rflags::VIF | rflags::IF)
            .flags(SEEN, rflags::VIF | rflags::IOPL),
        vme("virtual_flag/pushf", 0, |a| emit!(a; pushf(); pop(ax); sti(); pushf(); pop(bx); int3()))
            .with(Rax, 0)
            .with(Rbx, 0)
            .gives(Rax, rflags::IOPL | 2)
            .gives(Rbx, rflags::IOPL | rflags::IF | 2),
        vme("virtual_flag/pushf_with_iopl_3_is_real", 3, |a| emit!(a; pushf(); pop(ax); int3()))
            .tweak(|state| state.rflags |= rflags::VIF)
            .with(Rax, 0)
            .gives(Rax, rflags::IOPL | 2),
        vme("virtual_flag/popf", 1, |a| emit!(a; push(0x4601); popf(); int3())).flags(
            SEEN | rflags::CF | rflags::DF | rflags::NT,
            rflags::VIF | 1 << 12 | rflags::CF | rflags::DF | rflags::NT,
        ),
        vme("virtual_flag/popf_cannot_set_tf", 0, |a| emit!(a; push(0x100); popf()))
            .gives(Rsp, layout::STACK - layout::STACKS - 2)
            .raises(13, Some(0), 1),
        vme("virtual_flag/pushfd", 0, |a| emit!(a; nop(); pushfd())).raises(13, Some(0), 1),
        vme("virtual_flag/popfd", 0, |a| emit!(a; nop(); popfd())).raises(13, Some(0), 1),
        vme("virtual_flag/iretd", 0, |a| emit!(a; nop(); iretd())).raises(13, Some(0), 1),
        vme("virtual_flag/iret_cannot_set_tf", 0, |a| emit!(a; push(0x100); push(0); push(0); iret()))
            .gives(Rsp, layout::STACK - layout::STACKS - 6)
            .raises(13, Some(0), 3),
    ]
}

/// With an interrupt waiting for the monitor to deliver it.
fn pending() -> Vec<Case> {
    let with = |case: Case| case.tweak(|state| state.rflags |= rflags::VIP);
    vec![
        with(vme("virtual_flag/sti_with_vip", 0, |a| emit!(a; nop(); sti())))
            .flags(rflags::VIF | rflags::VIP, rflags::VIP)
            .raises(13, Some(0), 1),
        with(vme("virtual_flag/cli_with_vip", 0, |a| emit!(a; cli(); int3()))).flags(rflags::VIP, rflags::VIP),
        with(vme("virtual_flag/popf_with_vip", 0, |a| emit!(a; push(0x200); popf())))
            .gives(Rsp, layout::STACK - layout::STACKS - 2)
            .raises(13, Some(0), 1),
        with(vme("virtual_flag/popf_with_vip_may_clear_vif", 0, |a| emit!(a; push(0); popf(); int3())))
            .flags(rflags::VIF | rflags::VIP, rflags::VIP),
        with(vme("virtual_flag/iret_with_vip", 0, |a| emit!(a; push(0x200); push(0); push(0); iret())))
            .gives(Rsp, layout::STACK - layout::STACKS - 6)
            .raises(13, Some(0), 3),
        with(vme("virtual_flag/sti_with_vip_and_iopl_3", 3, |a| emit!(a; sti(); int3())))
            .flags(rflags::IF | rflags::VIF | rflags::VIP, rflags::IF | rflags::VIP),
        // The monitor returns to an 8086 program that has both set: the program's first instruction faults.
        Case::flat("virtual_flag/iretd_to_an_8086_program_with_both", |a| {
            emit!(a; push(0); push(0); push(0x2000); push(0x2000); push(0x3000); push(0xc000);
                push((rflags::VM | rflags::VIF | rflags::VIP | 2) as i32); push(0x0810); push(0); iretd())
        })
        .tweak(|state| state.cr4 |= cr4::VME)
        .poke(CODE + 0x100, &[0x90, 0xcc])
        .gives(Rsp, 0xc000)
        .flags(rflags::VM | rflags::VIF | rflags::VIP, rflags::VM | rflags::VIF | rflags::VIP)
        .ends(Ending::Vector { vector: 13, error: Some(0), rip: Place::Offset(0) }),
    ]
}

/// CR4.PVI.
fn protected() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in [Mode::Protected16, Mode::Protected32, Mode::Compat32, Mode::Long64] {
        let case = |name: &str, assemble: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
            Case::new(mode, format!("virtual_flag/{name}_{mode:?}"), assemble).user()
        };
        let pvi = |case: Case| case.tweak(|state| state.cr4 |= cr4::PVI);
        let both = rflags::IF | rflags::VIF;
        all.extend([
            case("cli_without_pvi", |a| emit!(a; nop(); cli())).raises(13, Some(0), 1),
            pvi(case("cli", |a| emit!(a; cli())))
                .tweak(|state| state.rflags |= rflags::IF | rflags::VIF)
                .flags(rflags::IF | rflags::VIF, rflags::IF),
            pvi(case("sti", |a| emit!(a; sti()))).flags(both, rflags::VIF),
            pvi(case("sti_with_vip", |a| emit!(a; nop(); sti()))).tweak(|state| state.rflags |= rflags::VIP).raises(
                13,
                Some(0),
                1,
            ),
            // PUSHF and POPF know nothing of it.
            pvi(case("pushf_and_popf", |a| emit!(a; pushf(); pop(ax); push(0x200); popf())))
                .tweak(|state| state.rflags |= rflags::VIF)
                .with(Rax, 0)
                .gives(Rax, 2)
                .any(Rsp)
                .flags(both, rflags::VIF),
            pvi(case("cli_with_iopl_3", |a| emit!(a; cli())))
                .tweak(|state| state.rflags |= rflags::IOPL | rflags::IF | rflags::VIF)
                .flags(both, rflags::VIF),
        ]);
    }
    all
}
