//! Random operands for an instruction code.

use iced_x86::{Code, Instruction, Mnemonic, OpCodeOperandKind as K, OpKind, Register};

use crate::generate::{Known, access_size, memory, target};
use crate::random::Random;

/// A memory operand.
pub struct Memory {
    /// Base, RIP or none.
    pub base: Register,
    /// Index or none.
    pub index: Register,
    /// Its factor.
    pub scale: u32,
    /// The displacement; with RIP the whole address.
    pub displacement: u64,
    /// Bytes of the displacement as the encoder wants it said.
    pub size: u32,
    /// Behind GS.
    pub gs: bool,
}

fn put(instruction: &mut Instruction, operand: u32, memory: &Memory) {
    instruction.set_op_kind(operand, OpKind::Memory);
    instruction.set_memory_base(memory.base);
    instruction.set_memory_index(memory.index);
    instruction.set_memory_index_scale(memory.scale);
    instruction.set_memory_displacement64(memory.displacement);
    instruction.set_memory_displ_size(memory.size);
    if memory.gs {
        instruction.set_segment_prefix(Register::GS);
    }
}

fn numbered(random: &mut Random, first: Register, count: u64) -> Register {
    first + random.below(count) as u32
}

/// The code with random operands; `None` if it has some that cases do without.
pub fn operands(random: &mut Random, code: Code, known: &Known) -> Option<Instruction> {
    let mut instruction = Instruction::new();
    instruction.set_code(code);
    let op_code = code.op_code();
    let narrow = random.chance(1, 12);
    for operand in 0..op_code.op_count() {
        one(random, &mut instruction, operand, op_code.op_kind(operand), known, narrow)?;
    }
    avoid_overlap(random, &mut instruction, op_code.requires_unique_reg_nums());
    Some(instruction)
}

/// Gathers must have three different vector registers, most of the time.
fn avoid_overlap(random: &mut Random, instruction: &mut Instruction, unique: bool) {
    if unique && random.chance(15, 16) {
        let first = if instruction.op0_register().is_ymm() { Register::YMM0 } else { Register::XMM0 };
        instruction.set_op0_register(first + random.below(5) as u32);
        let index = instruction.memory_index();
        let base = if index.is_ymm() { Register::YMM0 } else { Register::XMM0 };
        instruction.set_memory_index(base + 5 + random.below(5) as u32);
        let mask = if instruction.op2_register().is_ymm() { Register::YMM0 } else { Register::XMM0 };
        instruction.set_op2_register(mask + 10 + random.below(6) as u32);
    }
}

fn one(
    random: &mut Random,
    instruction: &mut Instruction,
    operand: u32,
    kind: K,
    known: &Known,
    narrow: bool,
) -> Option<()> {
    let or_memory = |random: &mut Random, first: Register, count: u64| {
        if random.chance(2, 5) { Some(numbered(random, first, count)) } else { None }
    };
    let register = match kind {
        K::r8_or_mem => or_memory(random, Register::AL, 20),
        K::r16_or_mem => or_memory(random, Register::AX, 16),
        K::r32_or_mem => or_memory(random, Register::EAX, 16),
        K::r64_or_mem => or_memory(random, Register::RAX, 16),
        K::mm_or_mem => or_memory(random, Register::MM0, 8),
        K::xmm_or_mem => or_memory(random, Register::XMM0, 16),
        K::ymm_or_mem => or_memory(random, Register::YMM0, 16),
        K::r8_reg | K::r8_opcode => Some(numbered(random, Register::AL, 20)),
        K::r16_reg | K::r16_rm | K::r16_opcode => Some(numbered(random, Register::AX, 16)),
        K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => Some(numbered(random, Register::EAX, 16)),
        K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => Some(numbered(random, Register::RAX, 16)),
        K::seg_reg => Some(numbered(random, Register::ES, 6)),
        K::mm_reg | K::mm_rm => Some(numbered(random, Register::MM0, 8)),
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => Some(numbered(random, Register::XMM0, 16)),
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => Some(numbered(random, Register::YMM0, 16)),
        K::cr_reg => Some(*random.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4, Register::CR8])),
        K::dr_reg => Some(numbered(random, Register::DR0, 8)),
        K::sti_opcode => Some(numbered(random, Register::ST0, 8)),
        K::st0 => Some(Register::ST0),
        K::al => Some(Register::AL),
        K::cl => Some(Register::CL),
        K::ax => Some(Register::AX),
        K::dx => Some(Register::DX),
        K::eax => Some(Register::EAX),
        K::rax => Some(Register::RAX),
        K::es => Some(Register::ES),
        K::cs => Some(Register::CS),
        K::ss => Some(Register::SS),
        K::ds => Some(Register::DS),
        K::fs => Some(Register::FS),
        K::gs => Some(Register::GS),
        K::mem | K::mem_offs => None,
        K::mem_vsib32x | K::mem_vsib64x => return gather(random, instruction, operand, known, Register::XMM0),
        K::mem_vsib32y | K::mem_vsib64y => return gather(random, instruction, operand, known, Register::YMM0),
        _ => return other(random, instruction, operand, kind, narrow),
    };
    if let Some(register) = register {
        instruction.set_op_kind(operand, OpKind::Register);
        instruction.set_op_register(operand, register);
        return Some(());
    }
    let at = target(random, access_size(instruction.code()));
    if kind == K::mem_offs {
        let memory =
            Memory { base: Register::None, index: Register::None, scale: 1, displacement: at, size: 8, gs: false };
        put(instruction, operand, &memory);
        return Some(());
    }
    let found = memory(random, known, at);
    put(instruction, operand, &found);
    Some(())
}

/// A gather's operand: a base, and indices that are small in some of the initial states.
fn gather(
    random: &mut Random,
    instruction: &mut Instruction,
    operand: u32,
    known: &Known,
    first: Register,
) -> Option<()> {
    let at = target(random, 64);
    let mut found = memory(random, known, at);
    if found.base == Register::RIP || found.index != Register::None {
        return None;
    }
    found.index = numbered(random, first, 16);
    found.scale = 1 << random.below(4);
    put(instruction, operand, &found);
    Some(())
}

/// Immediates and string operands.
fn other(random: &mut Random, instruction: &mut Instruction, operand: u32, kind: K, narrow: bool) -> Option<()> {
    let width = |wide: OpKind, short: OpKind| if narrow { short } else { wide };
    let op_kind = match kind {
        K::imm8 => OpKind::Immediate8,
        K::imm8_const_1 => OpKind::Immediate8,
        K::imm8sex16 => OpKind::Immediate8to16,
        K::imm8sex32 => OpKind::Immediate8to32,
        K::imm8sex64 => OpKind::Immediate8to64,
        K::imm16 => OpKind::Immediate16,
        K::imm32 => OpKind::Immediate32,
        K::imm32sex64 => OpKind::Immediate32to64,
        K::imm64 => OpKind::Immediate64,
        K::seg_rSI => width(OpKind::MemorySegRSI, OpKind::MemorySegESI),
        K::es_rDI => width(OpKind::MemoryESRDI, OpKind::MemoryESEDI),
        K::seg_rDI => width(OpKind::MemorySegRDI, OpKind::MemorySegEDI),
        K::seg_rBX_al => {
            let base = if random.chance(1, 12) { Register::EBX } else { Register::RBX };
            let table =
                Memory { base, index: Register::AL, scale: 1, displacement: 0, size: 0, gs: random.chance(1, 12) };
            put(instruction, operand, &table);
            return Some(());
        }
        _ => return None,
    };
    instruction.set_op_kind(operand, op_kind);
    let value = random.interesting();
    match op_kind {
        OpKind::Immediate8 if kind == K::imm8_const_1 => instruction.set_immediate8(1),
        // ENTER's nesting level is its second immediate.
        OpKind::Immediate8 if instruction.mnemonic() == Mnemonic::Enter => {
            instruction.set_op_kind(operand, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(value as u8);
        }
        OpKind::Immediate8 if operand > 0 && instruction.op_kind(operand - 1) == OpKind::Immediate8 => {
            instruction.set_op_kind(operand, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(value as u8);
        }
        OpKind::Immediate8 => instruction.set_immediate8(value as u8),
        OpKind::Immediate8to16 => instruction.set_immediate8to16((value as i8).into()),
        OpKind::Immediate8to32 => instruction.set_immediate8to32((value as i8).into()),
        OpKind::Immediate8to64 => instruction.set_immediate8to64((value as i8).into()),
        OpKind::Immediate16 => {
            let small = instruction.mnemonic() == Mnemonic::Enter;
            instruction.set_immediate16(if small { random.below(0x100) as u16 } else { value as u16 });
        }
        OpKind::Immediate32 => instruction.set_immediate32(value as u32),
        OpKind::Immediate32to64 => instruction.set_immediate32to64((value as i32).into()),
        OpKind::Immediate64 => instruction.set_immediate64(value),
        _ => {}
    }
    Some(())
}
