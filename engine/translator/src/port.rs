//! Port I/O.

use iced_x86::{Instruction, Mnemonic, OpKind};
use lodge_engine_api::Width;
use lodge_x86::bits::rflags;
use lodge_x86::descriptor::tss32;
use lodge_x86::exception::Exception;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::emit::string::Shape;
use crate::system::{Flow, Outcome};

/// Most elements that one INS or OUTS moves before it looks for interrupts.
const BATCH: u64 = 64;

/// IN, OUT, INS, OUTS.
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    match ins.mnemonic() {
        Mnemonic::In => {
            let port = port(cpu, ins, 1);
            let bytes = ins.op0_register().size();
            check(cpu, port, bytes as u16)?;
            let value = cpu.context().io().port_read(port, width(bytes));
            cpu.write_register(ins.op0_register(), value.into());
            Ok(Flow::Next)
        }
        Mnemonic::Out => {
            let port = port(cpu, ins, 0);
            let bytes = ins.op1_register().size();
            check(cpu, port, bytes as u16)?;
            let value = cpu.read_register(ins.op1_register()) as u32;
            cpu.context().io().port_write(port, width(bytes), value);
            Ok(Flow::Next)
        }
        _ => string(cpu, ins),
    }
}

fn port(cpu: &Cpu, ins: &Instruction, operand: u32) -> u16 {
    if ins.op_kind(operand) == OpKind::Register { cpu.gpr[2] as u16 } else { ins.immediate8().into() }
}

fn width(bytes: usize) -> Width {
    match bytes {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

/// The I/O privilege check: IOPL, then the permission bit map in the TSS (SDM 1 19.5).
fn check(cpu: &mut Cpu, port: u16, bytes: u16) -> Result<(), Exception> {
    cpu.note_port(port, bytes);
    if cpu.is_real() || (cpu.cpl() <= cpu.iopl() && !cpu.is_v86()) {
        return Ok(());
    }
    let gp = Exception::general_protection(0);
    let tss = cpu.tr;
    // A 16-bit TSS has no map.
    if tss.attributes & 8 == 0 || !tss.is_usable() || tss.limit < tss32::MIN_LIMIT {
        return Err(gp);
    }
    let field = cpu.system_address(tss.base.wrapping_add(tss32::IO_MAP));
    let map = cpu.read_number(field, 2, Privilege::System)?;
    let at = map + u64::from(port / 8);
    if at + 1 > u64::from(tss.limit) {
        return Err(gp);
    }
    let linear = cpu.system_address(tss.base.wrapping_add(at));
    let bits = cpu.read_number(linear, 2, Privilege::System)?;
    let mask = ((1u64 << bytes) - 1) << (port % 8);
    if bits & mask != 0 { Err(gp) } else { Ok(()) }
}

/// INS and OUTS, repeated or not. Each element is complete before the next begins.
fn string(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let input = matches!(ins.mnemonic(), Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd);
    let shape = Shape::of(ins);
    let size = shape.size as u64;
    let port = cpu.gpr[2] as u16;
    check(cpu, port, size as u16)?;
    let repeated = ins.has_rep_prefix() || ins.has_repne_prefix();
    let mask = match shape.bits {
        16 => 0xffff,
        32 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let (index, segment) = if input { (7, 0) } else { (6, shape.segment) };
    let step = if cpu.system_flags & rflags::DF != 0 { size.wrapping_neg() } else { size };
    for _ in 0..BATCH {
        if repeated && cpu.gpr[1] & mask == 0 {
            return Ok(Flow::Next);
        }
        let linear = cpu.in_segment(segment, cpu.gpr[index] & mask, size, input)?;
        if input {
            cpu.check_write(linear, shape.size, Privilege::Current)?;
            let value = cpu.context().io().port_read(port, width(shape.size));
            cpu.write_number(linear, shape.size, value.into(), Privilege::Current)?;
        } else {
            let value = cpu.read_number(linear, shape.size, Privilege::Current)?;
            cpu.context().io().port_write(port, width(shape.size), value as u32);
        }
        let moved = cpu.gpr[index].wrapping_add(step);
        cpu.gpr[index] = merge(cpu.gpr[index], moved, mask);
        if !repeated {
            return Ok(Flow::Next);
        }
        cpu.gpr[1] = merge(cpu.gpr[1], cpu.gpr[1].wrapping_sub(1), mask);
        // What the port did may have raised an interrupt, and under TF each element is a step of its own.
        let stepped = cpu.system_flags & rflags::TF != 0;
        if stepped || cpu.pending.load(std::sync::atomic::Ordering::Relaxed) != 0 {
            break;
        }
    }
    // Once more from the top: interrupts get their chance.
    Ok(if cpu.gpr[1] & mask == 0 { Flow::Next } else { Flow::Jump })
}

/// Writes an address-sized part of a register as an instruction of that size does.
pub fn merge(old: u64, new: u64, mask: u64) -> u64 {
    if mask == 0xffff { old & !mask | new & mask } else { new & mask }
}
