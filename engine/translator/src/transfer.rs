//! Far control transfers, software interrupts, and the fast system calls.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use lodge_x86::Segment;
use lodge_x86::bits::{efer, rflags};
use lodge_x86::descriptor::{kind, selector};
use lodge_x86::exception::{Exception, vector};
use lodge_x86::paging::is_canonical;
use lodge_x86::segment::attribute;

use crate::access::Privilege;
use crate::cpu::{Cpu, HotSegment};
use crate::deliver::{Source, Stack};
use crate::system::{Flow, Outcome};
use crate::task::Switch;

/// Carries out one of them.
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Int => software_interrupt(cpu, ins, ins.immediate8()),
        M::Int3 => software_interrupt(cpu, ins, vector::BREAKPOINT),
        M::Int1 => {
            cpu.lip = cpu.lip.wrapping_add(ins.len() as u64);
            Err(Exception::DEBUG)
        }
        M::Into => {
            if cpu.flags & rflags::OF == 0 {
                return Ok(Flow::Next);
            }
            software_interrupt(cpu, ins, vector::OVERFLOW)
        }
        M::Bound => bound(cpu, ins),
        M::Iret | M::Iretd | M::Iretq => {
            let bytes = match ins.mnemonic() {
                M::Iret => 2,
                M::Iretd => 4,
                _ => 8,
            };
            cpu.interrupt_return(bytes)?;
            Ok(Flow::Jump)
        }
        M::Retf => far_return(cpu, ins),
        M::Syscall => syscall(cpu, ins),
        M::Sysret | M::Sysretq => sysret(cpu, ins.mnemonic() == M::Sysretq),
        M::Sysenter => sysenter(cpu),
        M::Sysexit | M::Sysexitq => sysexit(cpu, ins.mnemonic() == M::Sysexitq),
        _ => far_branch(cpu, ins),
    }
}

/// INT n: the return address is behind the instruction; a fault of the delivery is the instruction's own.
fn software_interrupt(cpu: &mut Cpu, ins: &Instruction, number: u8) -> Outcome {
    let start = cpu.lip;
    cpu.lip = start.wrapping_add(ins.len() as u64);
    // INT3 and INTO always go through the IDT.
    let redirects = cpu.is_v86() && ins.mnemonic() == Mnemonic::Int;
    let redirected = if redirects { cpu.redirect_interrupt(number) } else { Ok(false) };
    let delivered = redirected.and_then(|done| if done { Ok(()) } else { cpu.deliver(number, None, Source::Software) });
    match delivered {
        Ok(()) => Ok(Flow::Jump),
        Err(exception) => {
            cpu.lip = start;
            Err(exception)
        }
    }
}

fn bound(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let bytes = ins.op0_register().size();
    let linear = cpu.operand_address(ins, 2 * bytes as u64, false)?;
    let signed = |value: u64| if bytes == 2 { i64::from(value as u16 as i16) } else { i64::from(value as u32 as i32) };
    let low = signed(cpu.read_number(linear, bytes, Privilege::Current)?);
    let high = signed(cpu.read_number(linear.wrapping_add(bytes as u64), bytes, Privilege::Current)?);
    let index = signed(cpu.read_register(ins.op0_register()));
    if index < low || index > high { Err(Exception::BOUND) } else { Ok(Flow::Next) }
}

/// Far JMP and CALL.
fn far_branch(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let call = ins.mnemonic() == Mnemonic::Call;
    let (target, offset, bytes) = match ins.op0_kind() {
        OpKind::FarBranch16 => (ins.far_branch_selector(), u64::from(ins.far_branch16()), 2),
        OpKind::FarBranch32 => (ins.far_branch_selector(), u64::from(ins.far_branch32()), 4),
        _ => {
            let bytes = match ins.code() {
                Code::Jmp_m1616 | Code::Call_m1616 => 2,
                Code::Jmp_m1632 | Code::Call_m1632 => 4,
                _ => 8,
            };
            let linear = cpu.operand_address(ins, bytes as u64 + 2, false)?;
            let offset = cpu.read_number(linear, bytes, Privilege::Current)?;
            let target = cpu.read_number(linear.wrapping_add(bytes as u64), 2, Privilege::Current)?;
            (target as u16, offset, bytes)
        }
    };
    if cpu.is_real() || cpu.is_v86() {
        return far_real(cpu, ins, target, offset, bytes, call);
    }
    let gp = Exception::general_protection(selector::error_code(target));
    if selector::is_null(target) {
        return Err(Exception::general_protection(0));
    }
    let descriptor = cpu.descriptor(target, Exception::general_protection)?;
    if descriptor.segment.attributes & attribute::NON_SYSTEM != 0 {
        return far_direct(cpu, ins, target, offset, bytes, call);
    }
    let cpl = cpu.cpl();
    let dpl = descriptor.segment.dpl();
    if dpl < cpl || dpl < (target & selector::RPL) as u8 {
        return Err(gp);
    }
    let how = if call { Switch::Call } else { Switch::Jump };
    match descriptor.kind() {
        kind::CALL_GATE_16 | kind::CALL_GATE_32 => through_gate(cpu, ins, target, call),
        kind::TSS_16 | kind::TSS_32 if !cpu.is_long() => {
            cpu.lip = cpu.lip.wrapping_add(ins.len() as u64);
            cpu.switch_task(target, how)?;
            Ok(Flow::Jump)
        }
        kind::TASK_GATE if !cpu.is_long() => {
            if !descriptor.is_present() {
                return Err(Exception::not_present(selector::error_code(target)));
            }
            let gate = cpu.gate(&descriptor)?;
            cpu.lip = cpu.lip.wrapping_add(ins.len() as u64);
            cpu.switch_task(gate.selector, how)?;
            Ok(Flow::Jump)
        }
        _ => Err(gp),
    }
}

fn far_real(cpu: &mut Cpu, ins: &Instruction, target: u16, offset: u64, bytes: usize, call: bool) -> Outcome {
    if offset > 0xffff {
        return Err(Exception::general_protection(0));
    }
    if call {
        let (cs, ip) = (cpu.segment[1].segment.selector, cpu.next_ip(ins));
        let mut stack = Stack::new(cpu, &cpu.segment[2].segment, cpu.gpr[4], cpu.cpl());
        stack.push(cpu, bytes, cs.into())?;
        stack.push(cpu, bytes, ip)?;
        cpu.set_stack_pointer(stack.pointer);
    }
    cpu.load_real_segment(1, target);
    cpu.set_rip(offset);
    Ok(Flow::Jump)
}

fn far_direct(cpu: &mut Cpu, ins: &Instruction, target: u16, offset: u64, bytes: usize, call: bool) -> Outcome {
    let descriptor = cpu.check_code_segment(target, true)?;
    let cpl = cpu.cpl();
    let long = cpu.is_long() && descriptor.segment.attributes & attribute::LONG != 0;
    let offset = if bytes == 2 { offset & 0xffff } else { offset };
    if long && !is_canonical(offset) || !long && offset > u64::from(descriptor.segment.limit) {
        return Err(Exception::general_protection(0));
    }
    if call {
        let (cs, ip) = (cpu.segment[1].segment.selector, cpu.next_ip(ins));
        let mut stack = current_stack(cpu);
        stack.push(cpu, bytes, cs.into())?;
        stack.push(cpu, bytes, ip)?;
        cpu.set_stack_pointer(stack.pointer);
    }
    cpu.put_code_segment(descriptor, cpl)?;
    cpu.set_rip(offset);
    Ok(Flow::Jump)
}

fn current_stack(cpu: &Cpu) -> Stack {
    if cpu.is_64() {
        Stack::long(cpu.gpr[4], cpu.cpl())
    } else {
        Stack::new(cpu, &cpu.segment[2].segment, cpu.gpr[4], cpu.cpl())
    }
}

/// Through a call gate (SDM 3A 5.8.3 to 5.8.5).
fn through_gate(cpu: &mut Cpu, ins: &Instruction, target: u16, call: bool) -> Outcome {
    let descriptor = cpu.system_descriptor(target, Exception::general_protection)?;
    if !descriptor.is_present() {
        return Err(Exception::not_present(selector::error_code(target)));
    }
    let gate = cpu.gate(&descriptor)?;
    if cpu.is_long() && gate.kind != kind::CALL_GATE_32 {
        return Err(Exception::general_protection(selector::error_code(target)));
    }
    let code = selector::error_code(gate.selector);
    if selector::is_null(gate.selector) {
        return Err(Exception::general_protection(0));
    }
    let handler = cpu.descriptor(gate.selector, Exception::general_protection)?;
    let cpl = cpu.cpl();
    let dpl = handler.segment.dpl();
    let wrong_width =
        cpu.is_long() && handler.segment.attributes & (attribute::LONG | attribute::BIG) != attribute::LONG;
    if !handler.segment.is_code() || dpl > cpl || wrong_width {
        return Err(Exception::general_protection(code));
    }
    let inward = dpl < cpl && !handler.is_conforming();
    if inward && !call {
        return Err(Exception::general_protection(code));
    }
    if !handler.is_present() {
        return Err(Exception::not_present(code));
    }
    let bytes = if cpu.is_long() {
        8
    } else if gate.kind & 8 != 0 {
        4
    } else {
        2
    };
    let (cs, ip) = (cpu.segment[1].segment.selector, cpu.next_ip(ins));
    let level = if inward { dpl } else { cpl };
    if call && inward {
        call_inward(cpu, &gate, level, bytes, cs, ip)?;
    } else if call {
        let mut stack = current_stack(cpu);
        stack.push(cpu, bytes, cs.into())?;
        stack.push(cpu, bytes, ip)?;
        cpu.set_stack_pointer(stack.pointer);
    }
    cpu.put_code_segment(handler, level)?;
    cpu.refresh();
    cpu.set_rip(gate.offset);
    Ok(Flow::Jump)
}

/// The stack of a call to an inner privilege: old stack, copied parameters, return address.
fn call_inward(
    cpu: &mut Cpu,
    gate: &lodge_x86::descriptor::Gate,
    level: u8,
    bytes: usize,
    cs: u16,
    ip: u64,
) -> Result<(), Exception> {
    let (old_ss, old_sp) = (cpu.segment[2].segment.selector, cpu.gpr[4]);
    let (value, pointer) = cpu.inner_stack(level)?;
    let mut parameters = Vec::new();
    if !cpu.is_long() {
        for n in (0..u64::from(gate.parameters)).rev() {
            parameters.push(cpu.peek_stack(n * bytes as u64, bytes)?);
        }
    }
    let (mut stack, segment) = if cpu.is_long() {
        let attributes = attribute::PRESENT
            | attribute::NON_SYSTEM
            | attribute::READ_WRITE
            | attribute::ACCESSED
            | u16::from(level) << attribute::DPL_SHIFT;
        (Stack::long(pointer, level), HotSegment::flat(u16::from(level), attributes))
    } else {
        let mut descriptor = cpu.check_inner_stack(value, level)?;
        cpu.mark_accessed(&mut descriptor)?;
        (Stack::new(cpu, &descriptor.segment, pointer, level), descriptor.segment)
    };
    stack.push(cpu, bytes, old_ss.into())?;
    stack.push(cpu, bytes, old_sp)?;
    for value in parameters {
        stack.push(cpu, bytes, value)?;
    }
    stack.push(cpu, bytes, cs.into())?;
    stack.push(cpu, bytes, ip)?;
    cpu.load_segment(2, segment);
    if cpu.is_long() {
        cpu.gpr[4] = stack.pointer;
    } else {
        cpu.set_stack_pointer(stack.pointer);
    }
    Ok(())
}

/// RETF.
fn far_return(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let bytes = match ins.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    };
    let release = if ins.op_count() == 1 { u64::from(ins.immediate16()) } else { 0 };
    let mut stack = current_stack(cpu);
    let ip = stack.pop(cpu, bytes)?;
    let cs = stack.pop(cpu, bytes)? as u16;
    if cpu.is_real() || cpu.is_v86() {
        if ip > 0xffff {
            return Err(Exception::general_protection(0));
        }
        stack.skip(release);
        cpu.set_stack_pointer(stack.pointer);
        cpu.load_real_segment(1, cs);
        cpu.set_rip(ip);
        return Ok(Flow::Jump);
    }
    let cpl = cpu.cpl();
    let (descriptor, level) = cpu.check_return(cs)?;
    let to_64 = cpu.is_long() && descriptor.segment.attributes & attribute::LONG != 0;
    if to_64 && !is_canonical(ip) || !to_64 && ip & 0xffff_ffff > u64::from(descriptor.segment.limit) {
        return Err(Exception::general_protection(0));
    }
    stack.skip(release);
    if level == cpl {
        cpu.put_code_segment(descriptor, level)?;
        cpu.set_stack_pointer(stack.pointer);
    } else {
        let pointer = stack.pop(cpu, bytes)?;
        let ss = stack.pop(cpu, bytes)? as u16;
        let segment = cpu.check_outer_stack(ss, level, to_64)?;
        cpu.put_code_segment(descriptor, level)?;
        cpu.load_segment(2, segment);
        let pointer = pointer.wrapping_add(release);
        if to_64 {
            cpu.gpr[4] = pointer;
        } else {
            cpu.set_stack_pointer(pointer);
        }
        cpu.drop_inner_segments();
    }
    cpu.refresh();
    cpu.set_rip(if bytes == 2 { ip & 0xffff } else { ip });
    Ok(Flow::Jump)
}

impl Cpu {
    /// Whether the last branch went to where no instruction can be: an address that is not canonical, or one beyond the
    /// end of the code segment. The fault is the branch's: what it did to the stack pointer is taken back (SDM 2, JMP,
    /// CALL, RET).
    pub fn refuses_target(&mut self) -> bool {
        let source = std::mem::replace(&mut self.source, Self::NO_SOURCE);
        let limit = u64::from(self.segment[1].segment.limit);
        let good = if self.is_64() { is_canonical(self.lip) } else { self.rip() <= limit };
        if source == Self::NO_SOURCE || good {
            return false;
        }
        let at = self.code_base.wrapping_add(source.into());
        let at = if self.is_64() { at } else { at & 0xffff_ffff };
        let mut bytes = [0; crate::translate::MAX_LENGTH];
        let mut length = 0;
        for byte in &mut bytes {
            let mut one = [0];
            if self.read_linear(at.wrapping_add(length as u64), &mut one, Privilege::System).is_err() {
                break;
            }
            *byte = one[0];
            length += 1;
        }
        let bits = crate::mode::Mode(self.mode).code_bits();
        let ins = iced_x86::Decoder::new(bits, &bytes[..length], iced_x86::DecoderOptions::NONE).decode();
        let moved = i64::from(ins.stack_pointer_increment()) as u64;
        let pointer = self.gpr[4].wrapping_sub(moved);
        self.set_stack_pointer(pointer);
        self.lip = at;
        self.context().after = crate::context::After::Raise(Exception::general_protection(0));
        true
    }
}

/// A flat code segment as SYSCALL and its kin make it, but for its width and privilege.
pub const FLAT_CODE: u16 = attribute::PRESENT
    | attribute::NON_SYSTEM
    | attribute::CODE
    | attribute::READ_WRITE
    | attribute::ACCESSED
    | attribute::GRANULARITY;
/// The same for the stack segment.
pub const FLAT_DATA: u16 = attribute::PRESENT
    | attribute::NON_SYSTEM
    | attribute::READ_WRITE
    | attribute::ACCESSED
    | attribute::GRANULARITY
    | attribute::BIG;
/// CPL 3.
pub const RING3: u16 = 3 << attribute::DPL_SHIFT;

impl Cpu {
    fn enter_flat(&mut self, cs: Segment, ss: Segment) {
        self.load_segment(1, cs);
        self.load_segment(2, ss);
        self.mode = crate::mode::Mode::of(self).0;
    }
}

/// SYSCALL (APM 3, SYSCALL).
fn syscall(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    cpu.context().no_step = cpu.msrs.fmask & rflags::TF != 0;
    if cpu.msrs.efer & efer::SCE == 0 || cpu.is_real() {
        return Err(Exception::INVALID_OPCODE);
    }
    let next = cpu.next_ip(ins);
    let star = cpu.msrs.star;
    let code = (star >> 32) as u16 & !3;
    cpu.gpr[1] = next;
    let flags = cpu.rflags();
    if cpu.is_long() {
        cpu.gpr[11] = flags & !rflags::RF;
        let target = if cpu.is_64() { cpu.msrs.lstar } else { cpu.msrs.cstar };
        cpu.set_rflags(flags & !cpu.msrs.fmask & !rflags::RF);
        cpu.enter_flat(
            HotSegment::flat(code, FLAT_CODE | attribute::LONG),
            HotSegment::flat(code.wrapping_add(8), FLAT_DATA),
        );
        cpu.lip = target;
    } else {
        cpu.set_rflags(flags & !(rflags::IF | rflags::VM | rflags::RF));
        cpu.enter_flat(
            HotSegment::flat(code, FLAT_CODE | attribute::BIG),
            HotSegment::flat(code.wrapping_add(8), FLAT_DATA),
        );
        cpu.lip = star & 0xffff_ffff;
    }
    Ok(Flow::Jump)
}

/// SYSRET (APM 3, SYSRET). AMD's leaves SS's hidden part alone but for its privilege.
fn sysret(cpu: &mut Cpu, wide: bool) -> Outcome {
    if cpu.msrs.efer & efer::SCE == 0 || cpu.is_real() {
        return Err(Exception::INVALID_OPCODE);
    }
    cpu.require_kernel()?;
    let base = (cpu.msrs.star >> 48) as u16;
    let target = cpu.gpr[1];
    if wide {
        if !is_canonical(target) {
            return Err(Exception::general_protection(0));
        }
        cpu.enter_flat(
            HotSegment::flat(base.wrapping_add(16) | 3, FLAT_CODE | attribute::LONG | RING3),
            HotSegment::flat(base.wrapping_add(8) | 3, FLAT_DATA | RING3),
        );
    } else {
        cpu.enter_flat(
            HotSegment::flat(base | 3, FLAT_CODE | attribute::BIG | RING3),
            HotSegment::flat(base.wrapping_add(8) | 3, FLAT_DATA | RING3),
        );
    }
    if cpu.is_long() {
        let keep = rflags::WRITABLE & !(rflags::RF | rflags::VM);
        let flags = cpu.gpr[11] & keep;
        cpu.set_rflags(flags);
    } else {
        cpu.interrupt_flag = 1;
    }
    cpu.mode = crate::mode::Mode::of(cpu).0;
    cpu.lip = if wide { target } else { target & 0xffff_ffff };
    Ok(Flow::Jump)
}

/// SYSENTER; in long mode AMD's processors have none (APM 3, SYSENTER).
fn sysenter(cpu: &mut Cpu) -> Outcome {
    if cpu.is_long() {
        return Err(Exception::INVALID_OPCODE);
    }
    if cpu.is_real() || cpu.msrs.sysenter_cs & 0xfffc == 0 {
        return Err(Exception::general_protection(0));
    }
    let code = cpu.msrs.sysenter_cs as u16 & !3;
    cpu.system_flags &= !(rflags::VM | rflags::RF);
    cpu.interrupt_flag = 0;
    cpu.enter_flat(
        HotSegment::flat(code, FLAT_CODE | attribute::BIG),
        HotSegment::flat(code.wrapping_add(8), FLAT_DATA),
    );
    cpu.gpr[4] = cpu.msrs.sysenter_esp & 0xffff_ffff;
    cpu.refresh();
    cpu.lip = cpu.msrs.sysenter_eip & 0xffff_ffff;
    Ok(Flow::Jump)
}

/// SYSEXIT.
fn sysexit(cpu: &mut Cpu, wide: bool) -> Outcome {
    if cpu.is_long() || wide {
        return Err(Exception::INVALID_OPCODE);
    }
    if cpu.is_real() || cpu.msrs.sysenter_cs & 0xfffc == 0 || cpu.cpl() != 0 {
        return Err(Exception::general_protection(0));
    }
    let base = cpu.msrs.sysenter_cs as u16;
    cpu.enter_flat(
        HotSegment::flat(base.wrapping_add(16) | 3, FLAT_CODE | attribute::BIG | RING3),
        HotSegment::flat(base.wrapping_add(24) | 3, FLAT_DATA | RING3),
    );
    cpu.gpr[4] = cpu.gpr[1] & 0xffff_ffff;
    cpu.lip = cpu.gpr[2] & 0xffff_ffff;
    Ok(Flow::Jump)
}
