//! Random cases: a state, and one to twelve instructions with operands that mostly reach memory.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use crate::exclusions::{Group, group};
use crate::flags;
use crate::layout::{CODE, DATA, DATA_BYTES, GS_BASE, INT3, READ_ONLY, READ_ONLY_BYTES, Record, SLOT};
use crate::operands::{Memory, operands};
use crate::random::Random;

/// Most instructions of a case.
const MOST: u64 = 12;
/// Bytes that a case's code may have, for the end to fit.
pub(crate) const ROOM: usize = SLOT - 48;
/// Flags that a case may begin with besides the one that is always set: the arithmetic ones.
const STATUS: u64 = 0x8d5;
const DIRECTION: u64 = 0x400;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its code, without what ends it.
    pub code: Vec<u8>,
    /// Where instructions begin.
    pub starts: Vec<usize>,
    /// The state that it begins with; the instruction pointer is set when it gets its place.
    pub input: Record,
}

impl Case {
    /// Its first `count` instructions.
    pub fn prefix(&self, count: usize) -> Self {
        let end = self.starts.get(count).copied().unwrap_or(self.code.len());
        let starts = self.starts[..count.min(self.starts.len())].to_vec();
        Self { code: self.code[..end].to_vec(), starts, input: self.input }
    }

    /// The code with its end.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.code.clone();
        // More than one: a branch over the last instruction may be the last of a prefix.
        bytes.extend([INT3; 16]);
        bytes
    }

    /// Its instructions, as decoded at its place.
    pub fn instructions(&self, address: u64) -> Vec<Instruction> {
        let mut decoder = Decoder::with_ip(64, &self.code, address, DecoderOptions::NONE);
        decoder.iter().collect()
    }
}

/// Makes cases.
pub struct Generator {
    pub(crate) random: Random,
    groups: [(Group, u64, Vec<Code>); 6],
    encoder: Encoder,
    info: InstructionInfoFactory,
}

/// What is known of the registers while a case is made.
pub struct Known {
    /// Values of those that no instruction has changed yet.
    pub values: [Option<u64>; 16],
    /// Flags that are undefined: none may be read, or anything might come of it.
    pub undefined: u64,
}

impl Generator {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        let of = |wanted: Group| Code::values().filter(|&code| group(code) == Some(wanted)).collect::<Vec<_>>();
        let groups = [
            (Group::Integer, 50),
            (Group::Bits, 6),
            (Group::X87, 10),
            (Group::Mmx, 5),
            (Group::Sse, 14),
            (Group::Avx, 15),
        ]
        .map(|(group, weight)| (group, weight, of(group)));
        Self { random: Random::new(seed), groups, encoder: Encoder::new(64), info: InstructionInfoFactory::new() }
    }

    /// How many instruction codes cases draw from.
    pub fn codes(&self) -> usize {
        self.groups.iter().map(|(_, _, codes)| codes.len()).sum()
    }

    /// The next case for the place at `address`: of one group for the most part, so that what an instruction leaves is
    /// what the next takes.
    pub fn case(&mut self, address: u64) -> Case {
        if self.random.chance(2, 5) {
            return self.sequence(address);
        }
        let input = self.input();
        let mut known = Known { values: std::array::from_fn(|n| Some(input.gpr(n))), undefined: 0 };
        let mut case = Case { code: Vec::new(), starts: Vec::new(), input };
        let count = if self.random.chance(2, 5) { 1 } else { 2 + self.random.below(MOST - 1) };
        let main = self.group();
        for _ in 0..count {
            let group = if self.random.chance(1, 4) { self.group() } else { main };
            self.one(&mut case, &mut known, group, address);
            if case.code.len() > ROOM {
                break;
            }
        }
        case
    }

    pub(crate) fn group(&mut self) -> usize {
        let total: u64 = self.groups.iter().map(|(_, weight, _)| weight).sum();
        let mut at = self.random.below(total);
        for (n, (_, weight, _)) in self.groups.iter().enumerate() {
            if at < *weight {
                return n;
            }
            at -= weight;
        }
        0
    }

    /// Adds an instruction, perhaps with a branch over it.
    pub(crate) fn one(&mut self, case: &mut Case, known: &mut Known, group: usize, address: u64) {
        let branch = self.random.chance(1, 12);
        let room = if branch { 6 } else { 0 };
        let at = case.code.len() + room;
        let Some((bytes, instruction)) = self.instruction(known, group, address + at as u64) else { return };
        if branch {
            let over = bytes.len() as u8;
            let branch = self.branch(over, known.undefined != 0);
            case.starts.push(case.code.len());
            // Pad in front of the branch to the room that was set aside.
            let pad = room - branch.len();
            case.code.extend(NOPS[pad]);
            if pad > 0 {
                case.starts.push(case.code.len());
            }
            case.code.extend(branch);
        }
        case.starts.push(case.code.len());
        case.code.extend(bytes);
        self.note(known, &instruction, branch);
    }

    /// An instruction's bytes at its place, and what they decode to, unless it reads flags that are undefined.
    pub(crate) fn encoded(&mut self, ins: &Instruction, at: u64, known: &Known) -> Option<(Vec<u8>, Instruction)> {
        if self.encoder.encode(ins, at).is_err() {
            drop(self.encoder.take_buffer());
            return None;
        }
        let bytes = self.encoder.take_buffer();
        let decoded = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
        (flags::read(&decoded) & known.undefined == 0).then_some((bytes, decoded))
    }

    /// Notes what an instruction changes; `branch`: it may be gone over.
    pub(crate) fn note(&mut self, known: &mut Known, instruction: &Instruction, branch: bool) {
        let undefined = flags::undefined_after(instruction, known.undefined);
        known.undefined = if branch { undefined | known.undefined } else { undefined };
        for used in self.info.info(instruction).used_registers() {
            let full = used.register().full_register();
            let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            if full.is_gpr() && written {
                known.values[full.number()] = None;
            }
        }
    }

    /// A branch over `over` bytes: Jcc, LOOPcc, JRCXZ, JMP or CALL.
    fn branch(&mut self, over: u8, undefined: bool) -> Vec<u8> {
        match self.random.below(if undefined { 4 } else { 20 }) {
            // LOOP and JRCXZ read no flag; LOOPE and LOOPNE do.
            0 if undefined => vec![0xe2 + self.random.below(2) as u8, over],
            0 => vec![0xe0 + self.random.below(4) as u8, over],
            1 => vec![0xeb, over],
            2 => vec![0xe8, over, 0, 0, 0],
            3 => vec![0x67, 0xe3, over],
            4..8 => vec![0x0f, 0x80 + self.random.below(16) as u8, over, 0, 0, 0],
            _ => vec![0x70 + self.random.below(16) as u8, over],
        }
    }

    /// An instruction of a group, at its place.
    fn instruction(&mut self, known: &Known, group: usize, address: u64) -> Option<(Vec<u8>, Instruction)> {
        for _ in 0..40 {
            let code = *self.random.pick(&self.groups[group].2);
            let Some(mut instruction) = operands(&mut self.random, code, known) else {
                continue;
            };
            self.prefixes(&mut instruction, code);
            if self.encoder.encode(&instruction, address).is_err() {
                drop(self.encoder.take_buffer());
                continue;
            }
            let mut bytes = self.encoder.take_buffer();
            if self.random.chance(1, 60) {
                // Prefixes that mean nothing, or something else.
                let prefix = *self.random.pick(&[0x26u8, 0x2e, 0x36, 0x3e, 0x66, 0xf2, 0xf3, 0xf0, 0x40, 0x48, 0x67]);
                bytes.insert(0, prefix);
            }
            if let Some(decoded) = acceptable(&bytes, address)
                && flags::read(&decoded) & known.undefined == 0
            {
                return Some((bytes, decoded));
            }
        }
        None
    }

    fn prefixes(&mut self, instruction: &mut Instruction, code: Code) {
        let op_code = code.op_code();
        if op_code.can_use_lock_prefix() && instruction.op0_kind() == OpKind::Memory && self.random.chance(1, 3) {
            instruction.set_has_lock_prefix(true);
        }
        if (op_code.can_use_rep_prefix() || op_code.can_use_repne_prefix()) && self.random.chance(1, 2) {
            if op_code.can_use_repne_prefix() && self.random.chance(1, 2) {
                instruction.set_has_repne_prefix(true);
            } else {
                instruction.set_has_rep_prefix(true);
            }
        }
    }

    /// A random state.
    pub(crate) fn input(&mut self) -> Record {
        let random = &mut self.random;
        let mut input = Record::new();
        for n in 0..16 {
            let value = match random.below(10) {
                0..4 => DATA + random.below(DATA_BYTES as u64),
                4 => random.below(64),
                _ => random.interesting(),
            };
            input.set_gpr(n, value);
        }
        // Counts of string instructions, and the stack.
        if random.chance(3, 4) {
            input.set_gpr(1, random.below(40));
        }
        if random.chance(15, 16) {
            input.set_gpr(4, (DATA + 0x400 + random.below(0x1800)) & !7);
        }
        for n in [6, 7] {
            if random.chance(1, 2) {
                input.set_gpr(n, DATA + random.below(DATA_BYTES as u64));
            }
        }
        let direction = if random.chance(1, 8) { DIRECTION } else { 0 };
        // IF is set on the native side, and cannot be changed by either.
        input.set(Record::RFLAGS, random.bits() & STATUS | direction | 0x202);
        let area = input.xsave_mut();
        vector_state(random, area);
        input
    }

    /// Random data for a batch: what cases may write, and what they may only read.
    pub fn data(&mut self) -> Vec<u8> {
        let mut data = vec![0; DATA_BYTES + READ_ONLY_BYTES];
        for chunk in data.chunks_exact_mut(16) {
            element(&mut self.random, chunk);
        }
        data
    }
}

/// x87, SSE and AVX state.
fn vector_state(random: &mut Random, area: &mut [u8]) {
    let mut control = 0x37fu16;
    if random.chance(1, 4) {
        control = control & !0xf00 | (random.bits() as u16 & 0xf00);
    }
    if random.chance(1, 12) {
        control &= !(random.bits() as u16 & 0x3f);
    }
    // TOP and the condition codes; sometimes flags of earlier exceptions that are masked.
    let mut status = random.bits() as u16 & 0x7f00;
    if random.chance(1, 4) {
        status |= random.bits() as u16 & 0x3f & control;
    }
    let mut mxcsr = 0x1f80u32;
    if random.chance(1, 4) {
        mxcsr ^= random.bits() as u32 & 0xe07f;
    }
    if random.chance(1, 12) {
        mxcsr &= !(random.bits() as u32 & 0x1f80);
        mxcsr &= !0x3f;
    }
    area[0..2].copy_from_slice(&control.to_le_bytes());
    area[2..4].copy_from_slice(&status.to_le_bytes());
    area[4] = if random.chance(1, 4) { random.bits() as u8 } else { 0xff };
    area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for n in 0..8 {
        let at = 32 + n * 16;
        extended(random, &mut area[at..at + 10]);
    }
    for n in 0..16 {
        element(random, &mut area[160 + n * 16..176 + n * 16]);
        element(random, &mut area[576 + n * 16..592 + n * 16]);
    }
    area[512] = 7;
}

/// An 80-bit number: mostly a normal one.
fn extended(random: &mut Random, out: &mut [u8]) {
    let (significand, exponent) = match random.below(8) {
        0 => (random.bits(), random.bits() as u16),
        1 => (0, if random.chance(1, 2) { 0 } else { 0x8000 }),
        2 => (1 << 63, 0x7fff),
        3 => (random.bits(), 0x7fff),
        4 => (random.bits() & !(1 << 63), 0),
        _ => (random.bits() | 1 << 63, (0x3fff + random.below(70) as u16 - 35) | (random.bits() as u16 & 0x8000)),
    };
    out[..8].copy_from_slice(&significand.to_le_bytes());
    out[8..10].copy_from_slice(&exponent.to_le_bytes());
}

/// Sixteen bytes of one kind of numbers.
fn element(random: &mut Random, out: &mut [u8]) {
    let kind = random.below(8);
    for half in out.chunks_exact_mut(8) {
        let value = match kind {
            0 | 1 => random.bits(),
            2 => 0,
            3 => random.interesting(),
            // Two singles, or a double, of moderate size.
            4 => {
                let single = |random: &mut Random| u64::from(((random.bits() as f32) / 1e15).to_bits());
                single(random) | single(random) << 32
            }
            5 => ((random.bits() as i64 as f64) / 1e12).to_bits(),
            6 => random.below(16) | random.below(16) << 32,
            _ => [
                0,
                f64::NAN.to_bits(),
                f64::INFINITY.to_bits(),
                1,
                0x7f80_0000_ff80_0001,
                0x8000_0000_0000_0000,
                u64::MAX,
            ][random.below(7) as usize],
        };
        half.copy_from_slice(&value.to_le_bytes());
    }
}

/// NOPs by length.
const NOPS: [&[u8]; 5] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00], &[0x0f, 0x1f, 0x40, 0x00]];

/// What bytes decode to, if a case may have it.
fn acceptable(bytes: &[u8], address: u64) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.len() != bytes.len() {
        return None;
    }
    if decoded.is_invalid() {
        // What does not exist must raise #UD in both; but what exists beyond the guest's profile does not.
        return None;
    }
    group(decoded.code())?;
    let loads_segment = decoded.op0_kind() == OpKind::Register
        && decoded.op0_register().is_segment_register()
        && matches!(decoded.mnemonic(), Mnemonic::Mov | Mnemonic::Pop);
    // PREFETCH with a register: AMD's processors raise #UD, Intel's have a NOP there.
    // MOVSXD with a 16-bit destination: AMD's read four bytes, Intel's two.
    let differs = matches!(
        decoded.code(),
        Code::Movsxd_r16_rm16
            | Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D
    );
    // PAUSE with REX.B is XCHG on some processors.
    let differs = differs || (decoded.mnemonic() == Mnemonic::Pause && decoded.len() > 2);
    // The native side's thread pointer lies behind FS.
    let behind_fs = decoded.segment_prefix() == Register::FS;
    (!loads_segment && !behind_fs && !differs).then_some(decoded)
}

/// Where a memory operand of `size` bytes shall lie.
pub fn target(random: &mut Random, size: u64) -> u64 {
    let whole = (DATA_BYTES + READ_ONLY_BYTES) as u64;
    let size = size.clamp(1, 64);
    match random.below(40) {
        // Across the edge between the two pages, into what is read-only, before and behind.
        0 | 1 => DATA + 0x1000 - random.below(size + 1),
        2 => READ_ONLY - random.below(size + 1),
        3 => READ_ONLY + random.below(READ_ONLY_BYTES as u64),
        4 => DATA - random.below(size + 1),
        5 => DATA + whole - random.below(size + 1),
        6 => random.interesting(),
        n => {
            let at = DATA + random.below(DATA_BYTES as u64 - size);
            if n < 28 && size.is_power_of_two() { at & !(size - 1) } else { at }
        }
    }
}

/// A memory operand at `address`, by registers of which something is known.
pub fn memory(random: &mut Random, known: &Known, address: u64) -> Memory {
    let mut memory =
        Memory { base: Register::None, index: Register::None, scale: 1, displacement: 0, size: 0, gs: false };
    memory.gs = random.chance(1, 24);
    let mut rest = if memory.gs { address.wrapping_sub(GS_BASE) } else { address };
    let narrow = random.chance(1, 16) && rest >> 32 == 0;
    let register = |number: usize| if narrow { Register::EAX } else { Register::RAX } + number as u32;
    let value = |number: usize| known.values[number].map(|value| if narrow { value & 0xffff_ffff } else { value });
    let truncate = |value: u64| if narrow { u64::from(value as u32) } else { value };
    let near = |rest: u64| i32::try_from(if narrow { i64::from(rest as u32 as i32) } else { rest as i64 }).is_ok();
    for _ in 0..6 {
        let (base, index) = (random.below(16) as usize, random.below(16) as usize);
        let scale = 1u64 << random.below(4);
        let with_index = random.chance(2, 5) && index != 4;
        let with_base = random.chance(7, 8);
        let mut sum = 0u64;
        if with_base {
            let Some(value) = value(base) else { continue };
            sum = value;
        }
        if with_index {
            let Some(value) = value(index) else { continue };
            sum = sum.wrapping_add(value.wrapping_mul(scale));
        }
        let left = truncate(rest.wrapping_sub(sum));
        if near(left) && (with_base || with_index) {
            if with_base {
                memory.base = register(base);
            }
            if with_index {
                memory.index = register(index);
                memory.scale = scale as u32;
            }
            rest = left;
            break;
        }
    }
    if memory.base == Register::None && memory.index == Register::None && !narrow && random.chance(1, 2) && !memory.gs {
        memory.base = Register::RIP;
        memory.displacement = rest;
        memory.size = 8;
        return memory;
    }
    let wide = if narrow { 4 } else { 8 };
    memory.displacement = rest;
    memory.size = match rest as i64 {
        0 if memory.base != Register::None => 0,
        -128..=127 if memory.base != Register::None => 1,
        _ => wide,
    };
    memory
}

/// Bytes of a code's memory operand.
pub fn access_size(code: Code) -> u64 {
    let size = code.op_code().memory_size();
    (size.size() as u64).max(1)
}

/// Whether cases' code fits its place.
const _: () = assert!(CODE.is_multiple_of(4096) && ROOM + 48 <= SLOT);
