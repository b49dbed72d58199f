//! Holding the two ends of a case against each other.

use iced_x86::{FlowControl, Instruction, Mnemonic, RflagsBits};

use crate::layout::{DATA, Record};

/// The arithmetic flags in RFLAGS.
const ARITHMETIC: u64 = 0x8d5;

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
fn may_leave_flags(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Shl | M::Shr | M::Sar | M::Sal | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    ) || instruction.has_rep_prefix()
        || instruction.has_repne_prefix()
}

/// The arithmetic flags that the program may still read when instruction `number` faults. Those that it provably
/// overwrites first are unspecified then (a processor of our own may say so: only a debugger could tell).
fn live_flags(instructions: &[Instruction], number: usize) -> u64 {
    let mut live = ARITHMETIC;
    for instruction in instructions[number..].iter().rev() {
        if instruction.flow_control() != FlowControl::Next {
            live = ARITHMETIC;
            continue;
        }
        let written = if may_leave_flags(instruction) { 0 } else { rflags(instruction.rflags_modified()) };
        live = live & !written | rflags(instruction.rflags_read());
    }
    live
}

/// What differs between native and engine, one line each; empty if nothing that is specified.
pub fn differences(
    instructions: &[Instruction],
    native: (&Record, &[u8]),
    engine: (&Record, &[u8]),
) -> Vec<String> {
    let (n, e) = (native.0, engine.0);
    let mut all = Vec::new();
    let mut compare = |name: &str, a: u64, b: u64| {
        if a != b {
            all.push(format!("{name}: native {a:#x}, engine {b:#x}"));
        }
    };
    const NAMES: [&str; 16] = [
        "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
    ];
    let vector = n.get(Record::VECTOR);
    compare("vector", vector, e.get(Record::VECTOR));
    compare("RIP", n.get(Record::RIP), e.get(Record::RIP));
    if vector == e.get(Record::VECTOR) {
        if matches!(vector, 8 | 10..=14 | 17) {
            compare("error code", n.get(Record::ERROR), e.get(Record::ERROR));
        }
        if vector == 14 {
            compare("CR2", n.get(Record::CR2), e.get(Record::CR2));
        }
    }
    for (number, name) in NAMES.iter().enumerate() {
        compare(name, n.gpr(number), e.gpr(number));
    }
    let faulting = (vector != 3).then(|| instructions.iter().position(|i| i.ip() == n.get(Record::RIP))).flatten();
    let mask = faulting.map_or(u64::MAX, |number| !ARITHMETIC | live_flags(instructions, number));
    // RF is set in the frame of a fault (SDM 3A 6.8.3); the host's kernel shows it too.
    compare("RFLAGS", n.get(Record::RFLAGS) & mask, e.get(Record::RFLAGS) & mask);
    // A gather that faults has done some elements, and which is the processor's choice (SDM 2A 2.7).
    let partial = faulting.is_some_and(|number| instructions[number].is_vsib());
    vectors(n.xsave(), e.xsave(), partial, &mut all);
    if let Some(at) = native.1.iter().zip(engine.1).position(|(a, b)| a != b) {
        let from = at & !7;
        let show = |data: &[u8]| data[from..(from + 32).min(data.len())].to_vec();
        all.push(format!(
            "memory at {:#x}: native {:02x?}, engine {:02x?}",
            DATA + from as u64,
            show(native.1),
            show(engine.1)
        ));
    }
    all
}

/// A component's bytes, or those of its initial state if the area says that it is in that.
fn component(area: &[u8], bit: u8, at: std::ops::Range<usize>) -> Vec<u8> {
    if area[512] & bit != 0 { area[at].to_vec() } else { vec![0; at.len()] }
}

fn vectors(native: &[u8], engine: &[u8], partial: bool, all: &mut Vec<String>) {
    let mut compare = |name: String, a: &[u8], b: &[u8]| {
        if a != b {
            let show = |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
            all.push(format!("{name}: native {}, engine {}", show(a), show(b)));
        }
    };
    let control = |area: &[u8], at: std::ops::Range<usize>, initial: &[u8]| {
        if area[512] & 1 != 0 { area[at].to_vec() } else { initial.to_vec() }
    };
    for (name, at, initial) in
        [("FCW", 0..2, &[0x7f, 3][..]), ("FSW", 2..4, &[0, 0][..]), ("FTW (abridged)", 4..5, &[0][..])]
    {
        compare(name.into(), &control(native, at.clone(), initial), &control(engine, at, initial));
    }
    compare("MXCSR".into(), &native[24..28], &engine[24..28]);
    for n in 0..8 {
        let at = 32 + n * 16..42 + n * 16;
        compare(format!("ST{n}"), &component(native, 1, at.clone()), &component(engine, 1, at));
    }
    if partial {
        return;
    }
    for n in 0..16 {
        let low = 160 + n * 16..176 + n * 16;
        let high = 576 + n * 16..592 + n * 16;
        compare(format!("XMM{n}"), &component(native, 2, low.clone()), &component(engine, 2, low));
        compare(format!("YMM{n} upper"), &component(native, 4, high.clone()), &component(engine, 4, high));
    }
}
