//! The state that a case begins in: descriptors, vectors and handlers in guest memory, and the processor.

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::CodeAssembler;
use lodge_engine_api::GuestMemory;
use lodge_x86::bits::{cr0, cr4, efer, rflags};
use lodge_x86::descriptor::{Gate, kind, tss16, tss32, tss64};
use lodge_x86::segment::attribute;
use lodge_x86::{CpuState, Segment, TableRegister};
use vm_memory::{Bytes, GuestAddress};

use crate::Failure;
use crate::case::{Case, Mode, Paging, Place};
use crate::layout::{self, selector};

/// The first chunk's code.
pub struct Code {
    /// Offsets in CS at which instructions begin.
    instructions: Vec<u64>,
    /// Offset behind it.
    end: u64,
}

impl Code {
    /// The offset of a place.
    pub fn place(&self, place: Place) -> Option<u64> {
        match place {
            Place::End => Some(self.end),
            Place::Instruction(number) => self.instructions.get(number).copied(),
            Place::Offset(offset) => Some(offset),
            Place::Any => None,
        }
    }
}

/// Assembles a case's code into memory.
pub fn assemble(memory: &GuestMemory, case: &Case) -> Result<Code, Failure> {
    let mut code = Code { instructions: Vec::new(), end: 0 };
    for (number, chunk) in case.chunks.iter().enumerate() {
        let broken = |error: iced_x86::IcedError| Failure::Setup(format!("chunk {number}: {error}"));
        let mut asm = CodeAssembler::new(chunk.bits).map_err(broken)?;
        (chunk.assemble)(&mut asm).map_err(broken)?;
        asm.db(&[0xcd, layout::END]).map_err(broken)?;
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = asm.assemble_options(chunk.offset, options).map_err(broken)?;
        memory.write_slice(&result.inner.code_buffer, GuestAddress(chunk.linear)).map_err(Failure::setup)?;
        if number == 0 {
            let offsets = &result.inner.new_instruction_offsets;
            code.instructions = offsets.iter().map(|&offset| chunk.offset + u64::from(offset)).collect();
            code.end = chunk.offset + result.inner.code_buffer.len() as u64;
        }
    }
    Ok(code)
}

const PRESENT_CODE: u16 = attribute::PRESENT | attribute::NON_SYSTEM | attribute::CODE | attribute::READ_WRITE | 1;
const PRESENT_DATA: u16 = attribute::PRESENT | attribute::NON_SYSTEM | attribute::READ_WRITE | 1;
const FLAT: u16 = attribute::BIG | attribute::GRANULARITY;
const USER: u16 = 3 << attribute::DPL_SHIFT;

/// The board's descriptors but for the system's: selector, base, limit, attributes.
const DESCRIPTORS: [(u16, u64, u32, u16); 12] = [
    (selector::CODE64, 0, u32::MAX, PRESENT_CODE | attribute::LONG | attribute::GRANULARITY),
    (selector::DATA, 0, u32::MAX, PRESENT_DATA | FLAT),
    (selector::CODE32, 0, u32::MAX, PRESENT_CODE | FLAT),
    (selector::USER_CODE32, 0, u32::MAX, PRESENT_CODE | FLAT | USER),
    (selector::USER_DATA, 0, u32::MAX, PRESENT_DATA | FLAT | USER),
    (selector::USER_CODE64, 0, u32::MAX, PRESENT_CODE | attribute::LONG | attribute::GRANULARITY | USER),
    (selector::CODE16, layout::CODE, 0xffff, PRESENT_CODE),
    (selector::DATA16, layout::DATA, 0xffff, PRESENT_DATA),
    (selector::USER_CODE16, layout::CODE, 0xffff, PRESENT_CODE | USER),
    (selector::USER_DATA16, layout::DATA, 0xffff, PRESENT_DATA | USER),
    (selector::STACK16, layout::STACKS, 0xffff, PRESENT_DATA),
    (selector::USER_STACK16, layout::STACKS, 0xffff, PRESENT_DATA | USER),
];

/// The limit of the TSS: no I/O map.
const TSS_LIMIT: u32 = tss64::MIN_LIMIT;
/// The limit of the LDT.
const LDT_LIMIT: u32 = 0x3f;

fn segment(number: u16) -> Segment {
    let found = DESCRIPTORS.iter().find(|(selector, ..)| selector & !3 == number & !3);
    found.map_or_else(Segment::default, |&(_, base, limit, attributes)| Segment {
        base,
        limit,
        selector: number,
        attributes,
    })
}

fn system_segment(number: u16, base: u64, limit: u32, kind: u8) -> Segment {
    Segment { base, limit, selector: number, attributes: attribute::PRESENT | u16::from(kind) }
}

/// Packs a gate as outside long mode.
pub fn pack_legacy(gate: &Gate) -> u64 {
    gate.offset & 0xffff
        | u64::from(gate.selector) << 16
        | u64::from(gate.parameters & 0x1f) << 32
        | u64::from(gate.kind & 0x1f) << 40
        | u64::from(gate.dpl & 3) << 45
        | u64::from(gate.present) << 47
        | (gate.offset & 0xffff_0000) << 32
}

/// Writes descriptors, vectors and handlers.
pub fn system(memory: &GuestMemory, case: &Case, code: &Code) -> Result<(), Failure> {
    let put = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).map_err(Failure::setup);
    for vector in 0..256 {
        // out STOP, al; jmp $
        put(layout::HANDLERS + vector * layout::HANDLER_STRIDE, &[0xe6, layout::port::STOP as u8, 0xeb, 0xfe])?;
    }
    for (number, base, limit, attributes) in DESCRIPTORS {
        let raw = lodge_x86::descriptor::pack(&Segment { base, limit, selector: number, attributes });
        put(layout::GDT + u64::from(number & !7), &raw.to_le_bytes())?;
    }
    for (number, base, limit, kind) in
        [(selector::TSS, layout::TSS, TSS_LIMIT, kind::TSS_32_BUSY), (selector::LDT, layout::LDT, LDT_LIMIT, kind::LDT)]
    {
        let raw = lodge_x86::descriptor::pack(&system_segment(number, base, limit, kind));
        put(layout::GDT + u64::from(number), &raw.to_le_bytes())?;
    }
    if case.mode.is_long() {
        put(layout::TSS + tss64::RSP0, &layout::STACK_INNER.to_le_bytes())?;
        for number in 0..7 {
            let stack = layout::STACKS + (number + 1) * 0x1000;
            put(layout::TSS + tss64::IST1 + number * 8, &stack.to_le_bytes())?;
        }
        put(layout::TSS + tss64::IO_MAP, &(TSS_LIMIT as u16 + 1).to_le_bytes())?;
    } else {
        put(layout::TSS + tss32::ESP0, &(layout::STACK_INNER as u32).to_le_bytes())?;
        put(layout::TSS + tss32::SS0, &selector::DATA.to_le_bytes())?;
        put(layout::TSS + tss32::IO_MAP, &(TSS_LIMIT as u16 + 1).to_le_bytes())?;
    }
    const { assert!(tss16::MIN_LIMIT < TSS_LIMIT) };
    vectors(memory, case, code)
}

fn vectors(memory: &GuestMemory, case: &Case, code: &Code) -> Result<(), Failure> {
    let put = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).map_err(Failure::setup);
    for vector in 0..=255u8 {
        let mut gate = Gate {
            offset: layout::HANDLERS + u64::from(vector) * layout::HANDLER_STRIDE,
            selector: if case.mode.is_long() { selector::CODE64 } else { selector::CODE32 },
            kind: kind::INTERRUPT_GATE_32,
            dpl: if matches!(vector, 3 | 4 | 0x80 | layout::END) { 3 } else { 0 },
            present: true,
            // A double fault needs a stack that works; so does the end of a case.
            ist: match vector {
                8 => 7,
                layout::END => 6,
                _ => 0,
            },
            parameters: 0,
        };
        if case.mode == Mode::Real16 {
            gate.selector = 0;
        }
        for (_, place, change) in case.gates.iter().filter(|(number, ..)| *number == vector) {
            if let Some(place) = place {
                gate.offset = code
                    .place(*place)
                    .ok_or_else(|| Failure::Setup(format!("the handler of vector {vector} is nowhere")))?;
                if case.mode == Mode::Real16 {
                    gate.selector = (layout::CODE >> 4) as u16;
                } else if case.mode.bits() == 16 {
                    gate.selector = selector::CODE16;
                }
            }
            change(&mut gate);
        }
        if case.mode == Mode::Real16 {
            let far = gate.offset as u32 & 0xffff | u32::from(gate.selector) << 16;
            put(u64::from(vector) * 4, &far.to_le_bytes())?;
        }
        if case.mode.is_long() {
            let (low, high) = gate.to_long();
            put(layout::IDT + u64::from(vector) * 16, &low.to_le_bytes())?;
            put(layout::IDT + u64::from(vector) * 16 + 8, &high.to_le_bytes())?;
        } else {
            put(layout::IDT + u64::from(vector) * 8, &pack_legacy(&gate).to_le_bytes())?;
        }
    }
    Ok(())
}

/// The processor at the beginning of a case.
pub fn state(case: &Case, signature: u32) -> CpuState {
    let mut state = CpuState::reset(signature);
    let mode = case.mode;
    let wide = mode.is_long();
    for (n, register) in (0u64..).zip(&mut state.gpr) {
        let value = 0x0f1e_2d3c_4b5a_6900 + n * 0x0101;
        *register = if wide { value } else { value & 0xffff_ffff };
    }
    state.gpr[4] = mode.stack();
    state.rip = case.chunks.first().map_or(0, |chunk| chunk.offset);
    state.cr0 = cr0::ET | cr0::NE | cr0::MP | if mode == Mode::Real16 { 0 } else { cr0::PE | cr0::WP };
    state.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::DE | cr4::PSE;
    match case.paging {
        Paging::None => {}
        paging => {
            state.cr0 |= cr0::PG;
            state.cr3 = layout::ROOTS[0];
            state.cr4 |= if paging == Paging::Bits32 { 0 } else { cr4::PAE };
        }
    }
    state.msrs.efer = efer::NXE | efer::SCE | if wide { efer::LME | efer::LMA } else { 0 };
    state.gdtr = TableRegister { base: layout::GDT, limit: layout::GDT_BYTES as u16 - 1 };
    state.idtr = TableRegister { base: layout::IDT, limit: if wide { 0xfff } else { 0x7ff } };
    if mode == Mode::Real16 {
        state.idtr = TableRegister { base: 0, limit: 0x3ff };
    }
    state.tr = system_segment(selector::TSS, layout::TSS, TSS_LIMIT, kind::TSS_32_BUSY);
    state.ldtr = system_segment(selector::LDT, layout::LDT, LDT_LIMIT, kind::LDT);
    let user = case.cpl == 3;
    let pick = |system: u16, other: u16| if user { other } else { system };
    let (cs, ss, data) = match mode {
        Mode::Real16 | Mode::V86 => (0, 0, 0),
        Mode::Protected16 => (
            pick(selector::CODE16, selector::USER_CODE16),
            pick(selector::STACK16, selector::USER_STACK16),
            pick(selector::DATA16, selector::USER_DATA16),
        ),
        Mode::Protected32 | Mode::Compat32 => {
            let data = pick(selector::DATA, selector::USER_DATA);
            (pick(selector::CODE32, selector::USER_CODE32), data, data)
        }
        Mode::Long64 => {
            let data = pick(selector::DATA, selector::USER_DATA);
            (pick(selector::CODE64, selector::USER_CODE64), data, data)
        }
    };
    if matches!(mode, Mode::Real16 | Mode::V86) {
        let attributes = PRESENT_DATA | if mode == Mode::V86 { USER } else { 0 };
        let at = |base: u64| Segment::real_mode((base >> 4) as u16, attributes);
        state.segment = [at(layout::DATA); 6];
        state.segment[1] = at(layout::CODE);
        state.segment[2] = at(layout::STACKS);
        if mode == Mode::Real16 {
            state.segment[1].attributes |= attribute::CODE;
        } else {
            state.rflags |= rflags::VM | rflags::IOPL;
        }
    } else {
        state.segment = [segment(data); 6];
        state.segment[1] = segment(cs);
        state.segment[2] = segment(ss);
    }
    for &(register, value) in &case.registers {
        state.gpr[register as usize] = value;
    }
    for tweak in &case.tweaks {
        tweak(&mut state);
    }
    state
}
