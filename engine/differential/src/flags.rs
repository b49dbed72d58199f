//! What is specified of the arithmetic flags.

use iced_x86::{FlowControl, Instruction, Mnemonic, RflagsBits};

/// The arithmetic flags in RFLAGS.
pub const ARITHMETIC: u64 = 0x8d5;

/// From `iced-x86`'s names of the arithmetic flags to RFLAGS.
fn rflags(bits: u32) -> u64 {
    [
        (RflagsBits::CF, 0),
        (RflagsBits::PF, 2),
        (RflagsBits::AF, 4),
        (RflagsBits::ZF, 6),
        (RflagsBits::SF, 7),
        (RflagsBits::OF, 11),
    ]
    .into_iter()
    .filter(|(name, _)| bits & name != 0)
    .fold(0, |all, (_, bit)| all | 1 << bit)
}

/// Whether an instruction may leave flags that it is said to write: counts of zero.
fn may_leave(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Shl | M::Shr | M::Sar | M::Sal | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    ) || instruction.has_rep_prefix()
        || instruction.has_repne_prefix()
}

/// The arithmetic flags that an instruction reads.
pub fn read(instruction: &Instruction) -> u64 {
    rflags(instruction.rflags_read())
}

/// Rotates by any count but one leave OF undefined (SDM 2, RCL), even by a count that brings the operand back to what it
/// was: processors have been seen to change it then.
fn rotated_overflow(instruction: &Instruction) -> u64 {
    use Mnemonic as M;
    let rotates = matches!(instruction.mnemonic(), M::Rcl | M::Rcr | M::Rol | M::Ror);
    let by_one = instruction.op1_kind() == iced_x86::OpKind::Immediate8 && instruction.immediate8() & 31 == 1;
    if rotates && !by_one { rflags(RflagsBits::OF) } else { 0 }
}

/// The flags that are undefined behind an instruction, of those before it (SDM 1 appendix A).
pub fn undefined_after(instruction: &Instruction, before: u64) -> u64 {
    let undefined = rflags(instruction.rflags_undefined()) | rotated_overflow(instruction);
    let kept = if may_leave(instruction) { before } else { before & !rflags(instruction.rflags_modified()) };
    kept | undefined
}

/// The flags that are undefined when instruction `number` begins, or behind all.
pub fn undefined_at(instructions: &[Instruction], number: usize) -> u64 {
    let mut undefined = 0;
    let mut skipped = false;
    for instruction in &instructions[..number] {
        // What a branch may have gone over may not have been executed.
        let after = undefined_after(instruction, undefined);
        undefined = if skipped { undefined | after } else { after };
        skipped = instruction.flow_control() != FlowControl::Next;
    }
    undefined
}

/// The arithmetic flags that the program may still read when instruction `number` faults. Those that it provably
/// overwrites first are unspecified then: an engine may have changed them already, and only a debugger could tell.
pub fn live(instructions: &[Instruction], number: usize) -> u64 {
    let mut live = ARITHMETIC;
    for instruction in instructions[number..].iter().rev() {
        if instruction.flow_control() != FlowControl::Next {
            live = ARITHMETIC;
            continue;
        }
        let written = if may_leave(instruction) { 0 } else { rflags(instruction.rflags_modified()) };
        live = live & !written | read(instruction);
    }
    live
}
