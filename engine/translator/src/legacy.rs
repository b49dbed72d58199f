//! Instructions that 64-bit mode lacks, and those that inspect descriptors.

use iced_x86::{Instruction, Mnemonic, OpKind};
use lodge_x86::bits::rflags;
use lodge_x86::descriptor::{kind, selector};
use lodge_x86::exception::Exception;
use lodge_x86::segment::attribute;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::emit::probe::segment_of;
use crate::system::{Flow, Outcome};

/// SF, ZF and PF of a byte.
fn result_flags(value: u8) -> u64 {
    let mut flags = 0;
    if value == 0 {
        flags |= rflags::ZF;
    }
    if value & 0x80 != 0 {
        flags |= rflags::SF;
    }
    if value.count_ones().is_multiple_of(2) {
        flags |= rflags::PF;
    }
    flags
}

impl Cpu {
    fn put_flags(&mut self, mask: u64, value: u64) {
        self.flags = self.flags & !mask | value & mask;
    }

    fn set_al(&mut self, value: u8) {
        self.gpr[0] = self.gpr[0] & !0xff | u64::from(value);
    }

    fn set_ax(&mut self, value: u16) {
        self.gpr[0] = self.gpr[0] & !0xffff | u64::from(value);
    }
}

/// Decimal adjustment, SALC and XLAT (SDM 2; the flags that are undefined there are as AMD's processors leave them,
/// or unchanged).
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let al = cpu.gpr[0] as u8;
    let ah = (cpu.gpr[0] >> 8) as u8;
    let (af, cf) = (cpu.flags & rflags::AF != 0, cpu.flags & rflags::CF != 0);
    const ALL: u64 = rflags::ARITHMETIC;
    match ins.mnemonic() {
        Mnemonic::Aaa | Mnemonic::Aas => {
            let adjust = al & 15 > 9 || af;
            let ax = cpu.gpr[0] as u16;
            let ax = match (adjust, ins.mnemonic()) {
                (false, _) => ax,
                (true, Mnemonic::Aaa) => ax.wrapping_add(0x106),
                (true, _) => ax.wrapping_sub(0x106),
            };
            cpu.set_ax(ax & 0xff0f);
            let carry = if adjust { rflags::AF | rflags::CF } else { 0 };
            cpu.put_flags(ALL, carry | result_flags(ax as u8 & 15));
        }
        Mnemonic::Aad => {
            let value = al.wrapping_add(ah.wrapping_mul(ins.immediate8()));
            cpu.set_ax(value.into());
            cpu.put_flags(ALL, result_flags(value));
        }
        Mnemonic::Aam => {
            let base = ins.immediate8();
            if base == 0 {
                return Err(Exception::DIVIDE);
            }
            cpu.set_ax(u16::from(al / base) << 8 | u16::from(al % base));
            cpu.put_flags(ALL, result_flags(al % base));
        }
        Mnemonic::Daa | Mnemonic::Das => {
            let add = ins.mnemonic() == Mnemonic::Daa;
            let step = |value: u8, by: u8| if add { value.wrapping_add(by) } else { value.wrapping_sub(by) };
            let mut value = al;
            let mut flags = 0;
            if al & 15 > 9 || af {
                value = step(value, 6);
                flags |= rflags::AF;
                let wrapped = if add { al > 0xf9 } else { al < 6 };
                if cf || wrapped {
                    flags |= rflags::CF;
                }
            }
            if al > 0x99 || cf {
                value = step(value, 0x60);
                flags |= rflags::CF;
            } else if add {
                flags &= !rflags::CF;
            }
            cpu.set_al(value);
            cpu.put_flags(ALL, flags | result_flags(value));
        }
        Mnemonic::Salc => cpu.set_al(if cf { 0xff } else { 0 }),
        _ => {
            let segment = segment_of(ins, 3);
            let mask = match ins.memory_base().size() {
                2 => 0xffff,
                4 => 0xffff_ffff,
                _ => u64::MAX,
            };
            let offset = cpu.gpr[3].wrapping_add(al.into()) & mask;
            let linear = cpu.in_segment(segment, offset, 1, false)?;
            let value = cpu.read_number(linear, 1, Privilege::Current)?;
            cpu.set_al(value as u8);
        }
    }
    Ok(Flow::Next)
}

/// LAR, LSL, VERR, VERW and ARPL: ZF says whether the selector is good.
pub fn inspect(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    if ins.mnemonic() == Mnemonic::Arpl {
        let target = cpu.read_operand(ins, 0, 2)? as u16;
        let source = cpu.read_register(ins.op1_register()) as u16;
        let raise = target & selector::RPL < source & selector::RPL;
        if raise {
            cpu.write_operand(ins, 0, 2, u64::from(target & !selector::RPL | source & selector::RPL))?;
        }
        cpu.put_flags(rflags::ZF, if raise { rflags::ZF } else { 0 });
        return Ok(Flow::Next);
    }
    let operand = u32::from(matches!(ins.mnemonic(), Mnemonic::Lar | Mnemonic::Lsl));
    let value = match ins.op_kind(operand) {
        OpKind::Memory => cpu.read_operand(ins, operand, 2)?,
        _ => cpu.read_register(ins.op_register(operand)),
    } as u16;
    let found = look_up(cpu, ins, value)?;
    cpu.put_flags(rflags::ZF, if found.is_some() { rflags::ZF } else { 0 });
    if let Some(result) = found
        && operand == 1
    {
        cpu.write_register(ins.op0_register(), result);
    }
    Ok(Flow::Next)
}

/// What LAR or LSL gives, or nothing where the selector is no good for it.
fn look_up(cpu: &mut Cpu, ins: &Instruction, value: u16) -> Result<Option<u64>, Exception> {
    if selector::is_null(value) {
        return Ok(None);
    }
    let descriptor = match cpu.descriptor(value, Exception::general_protection) {
        Ok(descriptor) => descriptor,
        Err(exception) if exception.address.is_some() => return Err(exception),
        Err(_) => return Ok(None),
    };
    let segment = descriptor.segment;
    let data_or_code = segment.attributes & attribute::NON_SYSTEM != 0;
    let conforming = segment.is_code() && descriptor.is_conforming();
    let privilege = cpu.cpl().max((value & selector::RPL) as u8);
    if !conforming && segment.dpl() < privilege {
        return Ok(None);
    }
    let long = cpu.is_long();
    let kind = descriptor.kind();
    Ok(match ins.mnemonic() {
        Mnemonic::Verr => {
            (data_or_code && (!segment.is_code() || segment.attributes & attribute::READ_WRITE != 0)).then_some(0)
        }
        Mnemonic::Verw => {
            (data_or_code && !segment.is_code() && segment.attributes & attribute::READ_WRITE != 0).then_some(0)
        }
        Mnemonic::Lar => {
            let gates =
                matches!(kind, kind::CALL_GATE_32) || !long && matches!(kind, kind::CALL_GATE_16 | kind::TASK_GATE);
            let tables = matches!(kind, kind::LDT | kind::TSS_32 | kind::TSS_32_BUSY)
                || !long && matches!(kind, kind::TSS_16 | kind::TSS_16_BUSY);
            (data_or_code || gates || tables).then_some(descriptor.raw >> 32 & 0x00ff_ff00)
        }
        _ => {
            let tables = matches!(kind, kind::LDT | kind::TSS_32 | kind::TSS_32_BUSY)
                || !long && matches!(kind, kind::TSS_16 | kind::TSS_16_BUSY);
            (data_or_code || tables).then_some(segment.limit.into())
        }
    })
}
