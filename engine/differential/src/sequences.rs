//! Cases of accesses that lie close together: off the stack pointer and off a few bases near the ends of pages, with
//! flags live in between, calls and returns, and indirect jumps.
//!
//! They are what an engine that checks several accesses at once has to get right. Control goes through a sequence in the
//! order in which its instructions lie, returns and jumps of a call excepted, which change no flag: what is known of
//! flags in that order holds.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use crate::generate::{Case, Generator, Known, ROOM};
use crate::layout::{DATA, DATA_BYTES, READ_ONLY, READ_ONLY_BYTES};
use crate::random::Random;

/// Registers that operands count from, and the one that is an index.
const BASES: [Register; 4] = [Register::RBX, Register::RBP, Register::R10, Register::R15];
const INDEX: Register = Register::R14;
/// Registers that are loaded.
const FREE: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 11, 12];
/// Most pieces of a sequence.
const MOST: u64 = 24;

/// Near the end of a page of data, mostly.
fn near_an_end(random: &mut Random) -> u64 {
    let ends = [DATA, DATA + 0x1000, DATA + 0x1000, READ_ONLY, READ_ONLY + READ_ONLY_BYTES as u64];
    match random.below(24) {
        0 => [0, 1 << 47, 1 << 63, u64::MAX << 47][random.below(4) as usize]
            .wrapping_add(random.below(64))
            .wrapping_sub(32),
        1..8 => DATA + random.below(DATA_BYTES as u64),
        _ => random.pick(&ends).wrapping_add(random.below(320)).wrapping_sub(160),
    }
}

/// A register of `bytes` bytes by its number.
fn sized(number: usize, bytes: usize) -> Register {
    let first = match bytes {
        1 => return Register::AL + [0u32, 1, 2, 3, 0, 0, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19][number],
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    first + number as u32
}

/// For each size, the codes of one operation with memory and a register.
type BySize = [Code; 4];

const STORES: BySize = [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32, Code::Mov_rm64_r64];
const LOADS: BySize = [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32, Code::Mov_r64_rm64];
/// Memory first.
const CHANGES: [BySize; 9] = [
    [Code::Add_rm8_r8, Code::Add_rm16_r16, Code::Add_rm32_r32, Code::Add_rm64_r64],
    [Code::Adc_rm8_r8, Code::Adc_rm16_r16, Code::Adc_rm32_r32, Code::Adc_rm64_r64],
    [Code::Sub_rm8_r8, Code::Sub_rm16_r16, Code::Sub_rm32_r32, Code::Sub_rm64_r64],
    [Code::Sbb_rm8_r8, Code::Sbb_rm16_r16, Code::Sbb_rm32_r32, Code::Sbb_rm64_r64],
    [Code::Cmp_rm8_r8, Code::Cmp_rm16_r16, Code::Cmp_rm32_r32, Code::Cmp_rm64_r64],
    [Code::Test_rm8_r8, Code::Test_rm16_r16, Code::Test_rm32_r32, Code::Test_rm64_r64],
    [Code::Xchg_rm8_r8, Code::Xchg_rm16_r16, Code::Xchg_rm32_r32, Code::Xchg_rm64_r64],
    [Code::Xadd_rm8_r8, Code::Xadd_rm16_r16, Code::Xadd_rm32_r32, Code::Xadd_rm64_r64],
    [Code::Cmpxchg_rm8_r8, Code::Cmpxchg_rm16_r16, Code::Cmpxchg_rm32_r32, Code::Cmpxchg_rm64_r64],
];
/// The register first.
const TAKES: [BySize; 3] = [
    [Code::Add_r8_rm8, Code::Add_r16_rm16, Code::Add_r32_rm32, Code::Add_r64_rm64],
    [Code::Adc_r8_rm8, Code::Adc_r16_rm16, Code::Adc_r32_rm32, Code::Adc_r64_rm64],
    [Code::Cmp_r8_rm8, Code::Cmp_r16_rm16, Code::Cmp_r32_rm32, Code::Cmp_r64_rm64],
];
const CONDITIONAL: [Code; 6] =
    [Code::Setb_rm8, Code::Sete_rm8, Code::Sets_rm8, Code::Seto_rm8, Code::Setp_rm8, Code::Setg_rm8];
const MOVES_IF: [Code; 3] = [Code::Cmovb_r64_rm64, Code::Cmovne_r32_rm32, Code::Cmovl_r64_rm64];
const VECTORS: [(Code, Register, bool); 8] = [
    (Code::Movups_xmm_xmmm128, Register::XMM0, true),
    (Code::Movups_xmmm128_xmm, Register::XMM0, false),
    (Code::Movaps_xmm_xmmm128, Register::XMM0, true),
    (Code::Movaps_xmmm128_xmm, Register::XMM0, false),
    (Code::Movq_xmmm64_xmm, Register::XMM0, false),
    (Code::VEX_Vmovdqu_ymm_ymmm256, Register::YMM0, true),
    (Code::VEX_Vmovdqu_ymmm256_ymm, Register::YMM0, false),
    (Code::Paddd_xmm_xmmm128, Register::XMM0, true),
];

impl Generator {
    /// The next case for the place at `address`, as this module makes them.
    pub(crate) fn sequence(&mut self, address: u64) -> Case {
        let mut input = self.input();
        let random = &mut self.random;
        let align = |random: &mut Random, at: u64, mask: u64| if random.chance(3, 4) { at & !mask } else { at };
        let stack = near_an_end(random);
        input.set_gpr(4, align(random, stack, 7));
        for base in BASES {
            let at = near_an_end(random);
            input.set_gpr(base.number(), align(random, at, 15));
        }
        input.set_gpr(INDEX.number(), random.below(24));
        let mut known = Known { values: std::array::from_fn(|n| Some(input.gpr(n))), undefined: 0 };
        let mut case = Case { code: Vec::new(), starts: Vec::new(), input };
        for _ in 0..4 + self.random.below(MOST - 4) {
            match self.random.below(40) {
                0..3 => self.call(&mut case, &mut known, address),
                3 => self.jump(&mut case, &mut known, address),
                4 => self.flags_from_the_stack(&mut case, &mut known, address),
                5..10 => {
                    let group = self.group();
                    self.one(&mut case, &mut known, group, address);
                }
                10 => {
                    let at = self.place();
                    for code in [Code::Stmxcsr_m32, Code::Ldmxcsr_m32] {
                        self.push(&mut case, &mut known, address, Instruction::with1(code, at).ok());
                    }
                }
                _ => self.access(&mut case, &mut known, address),
            }
            if case.code.len() > ROOM {
                break;
            }
        }
        case
    }

    /// A memory operand near the stack pointer or a base.
    fn place(&mut self) -> MemoryOperand {
        let random = &mut self.random;
        let near = random.below(160) as i64 - 48;
        let displacement = if random.chance(1, 2) { near & !7 } else { near };
        let on_stack = random.chance(1, 2);
        let base = if on_stack { Register::RSP } else { *random.pick(&BASES[..2 + random.clone().below(3) as usize]) };
        let size = if i8::try_from(displacement).is_ok() { 1 } else { 8 };
        if random.chance(1, 8) {
            let scale = 1 << random.below(4);
            return MemoryOperand::with_base_index_scale_displ_size(base, INDEX, scale, displacement, size);
        }
        MemoryOperand::with_base_displ_size(base, displacement, size)
    }

    /// Adds an instruction, if it can be encoded and reads no flag that is undefined.
    fn push(&mut self, case: &mut Case, known: &mut Known, address: u64, instruction: Option<Instruction>) {
        let Some(instruction) = instruction else { return };
        let at = address + case.code.len() as u64;
        if let Some((bytes, decoded)) = self.encoded(&instruction, at, known) {
            case.starts.push(case.code.len());
            case.code.extend(bytes);
            self.note(known, &decoded, false);
        }
    }

    /// One access, or what moves the stack pointer, or what makes flags.
    fn access(&mut self, case: &mut Case, known: &mut Known, address: u64) {
        let at = self.place();
        let random = &mut self.random;
        let size = random.below(4) as usize;
        let from = sized(random.below(16) as usize, 1 << size);
        let any = sized(random.below(16) as usize, 8);
        let free = *random.pick(&FREE);
        let to = sized(free, 1 << size);
        let instruction = match random.below(32) {
            0..4 => Instruction::with1(Code::Push_r64, any),
            4 => Instruction::with1(Code::Push_r16, sized(free, 2)),
            5 => Instruction::with1(Code::Pushq_imm32, random.bits() as i32),
            6 => Instruction::with1(Code::Push_rm64, at),
            7..10 => Instruction::with1(Code::Pop_r64, sized(free, 8)),
            10 => Instruction::with1(Code::Pop_rm64, at),
            11 => Instruction::with1(Code::Pop_r64, any),
            12..15 => {
                let code = *random.pick(&[Code::Sub_rm64_imm8, Code::Add_rm64_imm8]);
                Instruction::with2(code, Register::RSP, random.below(16) as i32 * 8)
            }
            15 => {
                let code = *random.pick(&[Code::Sub_rm64_imm32, Code::Add_rm64_imm32, Code::And_rm64_imm32]);
                Instruction::with2(code, Register::RSP, if code == Code::And_rm64_imm32 { -16 } else { 0x1a8 })
            }
            16 => {
                let near = MemoryOperand::with_base_displ_size(Register::RSP, random.below(160) as i64 - 80, 1);
                Instruction::with2(Code::Lea_r64_m, Register::RSP, near)
            }
            17..20 => Instruction::with2(STORES[size], at, from),
            20..23 => Instruction::with2(LOADS[size], to, at),
            23..25 => Instruction::with2(random.pick(&CHANGES)[size], at, from),
            25 | 26 => Instruction::with2(random.pick(&TAKES)[size], to, at),
            27 => Instruction::with1(*random.pick(&CONDITIONAL), at),
            28 => {
                let code = *random.pick(&MOVES_IF);
                let bytes = if code == Code::Cmovne_r32_rm32 { 4 } else { 8 };
                Instruction::with2(code, sized(free, bytes), at)
            }
            29 => {
                let (code, first, load) = *random.pick(&VECTORS);
                let vector = first + random.below(16) as u32;
                if load { Instruction::with2(code, vector, at) } else { Instruction::with2(code, at, vector) }
            }
            30 => {
                let code = *random.pick(&[Code::Inc_rm32, Code::Dec_rm64, Code::Not_rm64, Code::Neg_rm8]);
                Instruction::with1(code, at)
            }
            _ => Instruction::with2(Code::Add_rm64_r64, sized(free, 8), any),
        };
        self.push(case, known, address, instruction.ok());
    }

    /// `call` over a jump to what the jump leads behind, which ends with a return.
    fn call(&mut self, case: &mut Case, known: &mut Known, address: u64) {
        let start = case.code.len();
        let body_at = if self.random.chance(1, 3) { 7 + 2 + 3 } else { 5 + 2 };
        let mut body = Case { code: vec![0; start + body_at], starts: Vec::new(), input: case.input };
        // Nothing that could change where it returns to: it might never end.
        for _ in 0..self.random.below(4) {
            let free = *self.random.pick(&FREE);
            let at = self.place();
            let pair = self.random.chance(1, 3);
            if pair {
                let any = sized(self.random.below(16) as usize, 8);
                self.push(&mut body, known, address, Instruction::with1(Code::Push_r64, any).ok());
            }
            let code = *self.random.pick(&[Code::Mov_r64_rm64, Code::Adc_r64_rm64, Code::Cmovb_r64_rm64]);
            self.push(&mut body, known, address, Instruction::with2(code, sized(free, 8), at).ok());
            if pair {
                self.push(&mut body, known, address, Instruction::with1(Code::Pop_r64, sized(free, 8)).ok());
            }
        }
        let ret = body.code.len();
        let ret_bytes: &[u8] = if self.random.chance(1, 8) { &[0xc2, 8, 0] } else { &[0xc3] };
        let over = (ret + ret_bytes.len() - start - body_at) as u8;
        if body_at == 7 {
            case.starts.push(start);
            case.code.extend([0xe8, 2, 0, 0, 0]);
        } else {
            // lea r13, [rip + 5]; call r13
            case.starts.extend([start, start + 7]);
            case.code.extend([0x4c, 0x8d, 0x2d, 5, 0, 0, 0, 0x41, 0xff, 0xd5]);
            known.values[13] = None;
        }
        case.starts.push(case.code.len());
        case.code.extend([0xeb, over]);
        case.starts.extend(body.starts);
        case.code.extend(&body.code[start + body_at..]);
        case.starts.push(ret);
        case.code.extend(ret_bytes);
    }

    /// To the next instruction, by way of a register or the stack.
    fn jump(&mut self, case: &mut Case, known: &mut Known, _address: u64) {
        let start = case.code.len();
        known.values[13] = None;
        if self.random.chance(1, 2) {
            // lea r13, [rip + 3]; jmp r13
            case.starts.extend([start, start + 7]);
            case.code.extend([0x4c, 0x8d, 0x2d, 3, 0, 0, 0, 0x41, 0xff, 0xe5]);
        } else {
            // lea r13, [rip + 3]; push r13; ret
            case.starts.extend([start, start + 7, start + 9]);
            case.code.extend([0x4c, 0x8d, 0x2d, 3, 0, 0, 0, 0x41, 0x55, 0xc3]);
        }
    }

    /// PUSH of flags that a program may set, and POPF.
    fn flags_from_the_stack(&mut self, case: &mut Case, known: &mut Known, address: u64) {
        let flags = self.random.bits() as i32 & crate::flags::ARITHMETIC as i32 | 0x202;
        self.push(case, known, address, Instruction::with1(Code::Pushq_imm32, flags).ok());
        let popf = Instruction::with(Code::Popfq);
        let follows = case.starts.last().is_some_and(|&last| case.code[last] == 0x68);
        self.push(case, known, address, follows.then_some(popf));
    }
}
