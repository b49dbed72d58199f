//! Holding the two ends of a case against each other.

use std::sync::LazyLock;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::flags::{self, ARITHMETIC};
use crate::layout::{DATA, GS_BASE, Record};

/// Error code bit: the page is there.
const PRESENT: u64 = 1;

/// Where the host's kernel has its own part of the linear addresses begin: with the last page of the lower half.
const KERNEL: u64 = 0x7fff_ffff_f000;

/// A page fault's error code, as far as it is comparable: of its own part the host's kernel always says that it is
/// there, so as not to tell.
fn error_code(record: &Record) -> u64 {
    let own = record.get(Record::VECTOR) == 14 && record.get(Record::CR2) >= KERNEL;
    record.get(Record::ERROR) | if own { PRESENT } else { 0 }
}

/// Whether what an instruction does where its memory faults is the processor's choice.
fn faults_as_it_likes(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    // Which of the two operands of CMPS is read first is nowhere written.
    let compares =
        matches!(instruction.mnemonic(), M::Cmpsb | M::Cmpsw | M::Cmpsq) || instruction.code() == Code::Cmpsd_m32_m32;
    // "Exceptions associated with addressing memory and page faults may still be signaled" where the mask is zero
    // (SDM 2B "MASKMOVDQU").
    compares || matches!(instruction.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu)
}

/// Whether an offset that is not canonical became an address that is by way of GS's base: AMD's processors raise #GP
/// nonetheless; by the letter (SDM 1 3.3.7.1) it is the address that counts.
fn becomes_canonical(instruction: &Instruction, native: &Record, engine: &Record) -> bool {
    const UPPER: u64 = 0xffff_8000_0000_0000;
    instruction.segment_prefix() == Register::GS
        && (native.get(Record::VECTOR), engine.get(Record::VECTOR)) == (13, 14)
        && native.get(Record::RIP) == engine.get(Record::RIP)
        && engine.get(Record::CR2).wrapping_sub(UPPER) <= GS_BASE
}

/// Whether a SHA instruction's operand is neither aligned nor there: Intel's processors look at the alignment first, and AMD's
/// not at all.
fn is_unaligned_sha(instruction: &Instruction, native: &Record, engine: &Record) -> bool {
    use Mnemonic as M;
    let sha = matches!(
        instruction.mnemonic(),
        M::Sha1msg1 | M::Sha1msg2 | M::Sha1nexte | M::Sha1rnds4 | M::Sha256msg1 | M::Sha256msg2 | M::Sha256rnds2
    );
    sha && (native.get(Record::VECTOR), engine.get(Record::VECTOR)) == (13, 14)
        && native.get(Record::RIP) == engine.get(Record::RIP)
}

/// Whether a VCVTPS2PH has both an exception that is not masked and nowhere to store: Intel's processors raise the one, AMD's
/// the other.
fn is_doubly_wrong(instruction: &Instruction, native: &Record, engine: &Record) -> bool {
    instruction.mnemonic() == Mnemonic::Vcvtps2ph
        && (native.get(Record::VECTOR), engine.get(Record::VECTOR)) == (19, 14)
        && native.get(Record::RIP) == engine.get(Record::RIP)
}

/// What of a register is comparable behind a string instruction that has 32-bit addresses and faults at its first element, or has
/// none to do: Intel's processors clear the upper halves of those that count nonetheless, AMD's do not.
fn comparable(instructions: &[Instruction], number: usize) -> u64 {
    // RCX, RSI, RDI.
    let narrow = matches!(number, 1 | 6 | 7) && instructions.iter().any(is_32_bit_string);
    if narrow { 0xffff_ffff } else { u64::MAX }
}

/// Whether the rest of a case may follow from such an instruction: what comes behind it may use the upper halves.
fn goes_on_otherwise(instructions: &[Instruction]) -> bool {
    static INTEL: LazyLock<bool> = LazyLock::new(|| {
        // The maker's name (SDM 2A "CPUID").
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    });
    let repeats = |one: &Instruction| one.has_rep_prefix() || one.has_repne_prefix();
    *INTEL && instructions.iter().any(|one| is_32_bit_string(one) && repeats(one))
}

fn is_32_bit_string(instruction: &Instruction) -> bool {
    use OpKind as K;
    instruction.is_string_instruction()
        && instruction.op_kinds().any(|kind| matches!(kind, K::MemorySegESI | K::MemorySegEDI | K::MemoryESEDI))
}

/// Whether the flags of an instruction that faults are the processor's choice: Intel's restores those from before a repeated
/// SCAS (SDM 2B "REP"), AMD's has those of the last element.
fn faults_with_any_flags(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let scans = matches!(instruction.mnemonic(), M::Scasb | M::Scasw | M::Scasd | M::Scasq);
    scans && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}

/// Whether an instruction has MMX registers. Where one faults, Intel's processors have made the x87's stack begin at register 0
/// by then (SDM 3A 13.2), AMD's have not.
fn has_mmx(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|number| instruction.op_register(number).is_mm())
}

fn is_x87_store(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp)
}

/// Whether an x87 store did not store, for an exception that is not masked, and natively its operand was not looked at: Intel's
/// processors go on, AMD's fault if there is no memory.
fn did_not_store(instructions: &[Instruction], native: &Record, engine: &Record) -> bool {
    const SUMMARY: u8 = 1 << 7;
    let stores = instructions.iter().any(|one| one.ip() == engine.get(Record::RIP) && is_x87_store(one));
    let went_on = native.get(Record::RIP) != engine.get(Record::RIP);
    stores && engine.get(Record::VECTOR) == 14 && went_on && native.xsave()[2] & SUMMARY != 0
}

/// The bytes of memory that are not comparable: of a store of ten bytes that faults in its second page, Intel's processors have
/// written what is in the first (SDM 3A 9.1.1 has such stores not be atomic), AMD's have not.
fn partly_stored(at_fault: Option<&Instruction>, native: &Record) -> std::ops::Range<usize> {
    let ten = at_fault.is_some_and(|one| is_x87_store(one) && one.memory_size().size() == 10);
    let end = native.get(Record::CR2).wrapping_sub(DATA) as usize;
    if ten && end.is_multiple_of(0x1000) { end.saturating_sub(10)..end } else { 0..0 }
}

/// Whether an instruction reaches only those elements of its operand that a mask selects.
fn is_masked(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq)
}

fn has_32_bit_address(instruction: &Instruction) -> bool {
    let parts = [instruction.memory_base(), instruction.memory_index()];
    let absolute = parts == [Register::None; 2] && instruction.memory_displ_size() == 4;
    absolute || parts.iter().any(|register| register.is_gpr32() || *register == Register::EIP)
}

/// What differs between native and engine, one line each; empty if nothing that is specified.
pub fn differences(instructions: &[Instruction], native: (&Record, &[u8]), engine: (&Record, &[u8])) -> Vec<String> {
    let (n, e) = (native.0, engine.0);
    let mut all = Vec::new();
    let mut compare = |name: &str, a: u64, b: u64| {
        if a != b {
            all.push(format!("{name}: native {a:#x}, engine {b:#x}"));
        }
    };
    const NAMES: [&str; 16] =
        ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
    let vector = n.get(Record::VECTOR);
    let at = |rip: u64| instructions.iter().position(|instruction| instruction.ip() == rip);
    let faulting = if vector == 3 { None } else { at(n.get(Record::RIP)) };
    if faulting.is_some_and(|number| faults_as_it_likes(&instructions[number])) {
        return Vec::new();
    }
    let at_fault = faulting.map(|number| &instructions[number]);
    let permitted = [becomes_canonical, is_unaligned_sha, is_doubly_wrong];
    if at_fault.is_some_and(|instruction| permitted.iter().any(|is| is(instruction, n, e))) {
        return Vec::new();
    }
    if did_not_store(instructions, n, e) {
        return Vec::new();
    }
    compare("vector", vector, e.get(Record::VECTOR));
    compare("RIP", n.get(Record::RIP), e.get(Record::RIP));
    if vector == e.get(Record::VECTOR) {
        if matches!(vector, 8 | 10..=14 | 17) {
            compare("error code", error_code(n), error_code(e));
        }
        if vector == 14 {
            // Of a masked load or store the address may be that of the element or that of the page. With a 32-bit address
            // some processors wrap that of each element, and AMD's of family 1Ah don't, as SDM 2C "VPMASKMOV" has it.
            let masked = at_fault.filter(|instruction| is_masked(instruction));
            let mask = match masked {
                Some(instruction) if has_32_bit_address(instruction) => 0xffff_f000,
                Some(_) => !0xfff,
                None => u64::MAX,
            };
            compare("CR2", n.get(Record::CR2) & mask, e.get(Record::CR2) & mask);
        }
    }
    if n.xsave()[26] & 2 != 0 {
        // LDMXCSR has set AMD's misaligned mode (APM 2 11.5.10), which is the host's and not in the guest's profile.
        return Vec::new();
    }
    for (number, name) in NAMES.iter().enumerate() {
        let mask = comparable(instructions, number);
        compare(name, n.gpr(number) & mask, e.gpr(number) & mask);
    }
    let undefined = flags::undefined_at(instructions, faulting.unwrap_or(instructions.len()));
    let unread = faulting.map_or(0, |number| ARITHMETIC & !flags::live(instructions, number));
    let chosen = if at_fault.is_some_and(faults_with_any_flags) { ARITHMETIC } else { 0 };
    let mask = !(undefined | unread | chosen);
    // RF is set in the frame of a fault (SDM 3A 6.8.3); the host's kernel shows it too.
    compare("RFLAGS", n.get(Record::RFLAGS) & mask, e.get(Record::RFLAGS) & mask);
    // A gather that faults has done some elements, and which is the processor's choice (SDM 2A 2.7).
    let partial = at_fault.is_some_and(Instruction::is_vsib);
    let x87 = !at_fault.is_some_and(has_mmx);
    // What VCVTPS2PH has found of exceptions when its store faults, Intel's processors have noted, AMD's have not.
    let control = at_fault.is_none_or(|instruction| instruction.mnemonic() != Mnemonic::Vcvtps2ph);
    vectors(n.xsave(), e.xsave(), [x87, control, partial], &mut all);
    let partly = partly_stored(at_fault, n);
    let differs = |(at, (a, b)): (usize, (&u8, &u8))| (a != b && !partly.contains(&at)).then_some(at);
    if let Some(at) = native.1.iter().zip(engine.1).enumerate().find_map(differs) {
        let from = at & !7;
        let show = |data: &[u8]| data[from..(from + 32).min(data.len())].to_vec();
        all.push(format!(
            "memory at {:#x}: native {:02x?}, engine {:02x?}",
            DATA + from as u64,
            show(native.1),
            show(engine.1)
        ));
    }
    if goes_on_otherwise(instructions) { Vec::new() } else { all }
}

/// A component's bytes, or those of its initial state if the area says that it is in that.
fn component(area: &[u8], bit: u8, at: std::ops::Range<usize>) -> Vec<u8> {
    if area[512] & bit != 0 { area[at].to_vec() } else { vec![0; at.len()] }
}

fn vectors(native: &[u8], engine: &[u8], [x87, control_too, partial]: [bool; 3], all: &mut Vec<String>) {
    let mut compare = |name: String, a: &[u8], b: &[u8]| {
        if a != b {
            let show = |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
            all.push(format!("{name}: native {}, engine {}", show(a), show(b)));
        }
    };
    let control = |area: &[u8], at: std::ops::Range<usize>, initial: &[u8]| {
        if area[512] & 1 != 0 { area[at].to_vec() } else { initial.to_vec() }
    };
    let words = [("FCW", 0..2, &[0x7f, 3][..]), ("FSW", 2..4, &[0, 0][..]), ("FTW (abridged)", 4..5, &[0][..])];
    for (name, at, initial) in words.into_iter().take(if x87 { 3 } else { 1 }) {
        compare(name.into(), &control(native, at.clone(), initial), &control(engine, at, initial));
    }
    if control_too {
        compare("MXCSR".into(), &native[24..28], &engine[24..28]);
    }
    for n in (0..8).filter(|_| x87) {
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
