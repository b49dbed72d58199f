//! Delivery of exceptions and interrupts (SDM 3A 6.12, 6.14), and IRET.

use lodge_x86::Segment;
use lodge_x86::bits::rflags;
use lodge_x86::descriptor::{Gate, error_code, kind, selector};
use lodge_x86::exception::{Exception, vector};
use lodge_x86::segment::attribute;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::segment::V86_DATA;
use crate::task::Switch;

/// What causes a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An instruction's exception.
    Exception,
    /// INT n, INT3, INTO: the gate's privilege is checked.
    Software,
    /// An interrupt from outside.
    External,
}

/// A stack that is being pushed to or popped from, before the registers follow.
pub struct Stack {
    base: u64,
    mask: u64,
    /// The stack pointer.
    pub pointer: u64,
    privilege: Privilege,
}

impl Stack {
    /// A stack in `segment`, used by a program of privilege `cpl`.
    pub fn new(cpu: &Cpu, segment: &Segment, pointer: u64, cpl: u8) -> Self {
        let (base, mask) = if cpu.is_long() && (cpu.is_64() || segment.selector & !3 == 0) {
            (0, u64::MAX)
        } else if segment.attributes & attribute::BIG != 0 {
            (segment.base, 0xffff_ffff)
        } else {
            (segment.base, 0xffff)
        };
        Self { base, mask, pointer, privilege: Privilege::As { user: cpl == 3 } }
    }

    /// A 64-bit stack.
    pub fn long(pointer: u64, cpl: u8) -> Self {
        Self { base: 0, mask: u64::MAX, pointer, privilege: Privilege::As { user: cpl == 3 } }
    }

    fn linear(&self, cpu: &Cpu) -> u64 {
        cpu.system_address(self.base.wrapping_add(self.pointer & self.mask))
    }

    /// Pushes a number of `bytes`.
    pub fn push(&mut self, cpu: &mut Cpu, bytes: usize, value: u64) -> Result<(), Exception> {
        self.pointer = self.pointer & !self.mask | self.pointer.wrapping_sub(bytes as u64) & self.mask;
        let linear = self.linear(cpu);
        cpu.check_canonical(linear, bytes as u64, 2)?;
        cpu.write_number(linear, bytes, value, self.privilege)
    }

    /// Pops a number of `bytes`.
    pub fn pop(&mut self, cpu: &mut Cpu, bytes: usize) -> Result<u64, Exception> {
        let linear = self.linear(cpu);
        cpu.check_canonical(linear, bytes as u64, 2)?;
        let value = cpu.read_number(linear, bytes, self.privilege)?;
        self.skip(bytes as u64);
        Ok(value)
    }

    /// Moves the pointer up.
    pub fn skip(&mut self, bytes: u64) {
        self.pointer = self.pointer & !self.mask | self.pointer.wrapping_add(bytes) & self.mask;
    }
}

impl Cpu {
    /// Delivers an exception, a double fault if that fails, and says `false` if that fails too (triple fault).
    pub fn raise(&mut self, exception: Exception) -> bool {
        let mut current = exception;
        loop {
            if let Some(address) = current.address {
                self.cr2 = address;
            }
            if self.is_fault(current) {
                self.system_flags |= rflags::RF;
            }
            match self.deliver(current.vector, current.error_code, Source::Exception) {
                Ok(()) => return true,
                Err(second) => {
                    if current.vector == vector::DOUBLE_FAULT {
                        return false;
                    }
                    let page_fault = current.vector == vector::PAGE_FAULT;
                    let both = (current.is_contributory() && second.is_contributory())
                        || (page_fault && (second.is_contributory() || second.vector == vector::PAGE_FAULT));
                    current = if both { Exception::DOUBLE_FAULT } else { second };
                }
            }
        }
    }

    /// Whether the frame shows RF, so that an instruction breakpoint does not recur: for all but traps
    /// (SDM 3B 17.3.1.1).
    fn is_fault(&self, exception: Exception) -> bool {
        !matches!(exception.vector, vector::DEBUG | vector::BREAKPOINT | vector::OVERFLOW)
    }

    /// Delivers an interrupt or exception through the IDT. On an error nothing has changed but memory below the stack.
    pub fn deliver(&mut self, number: u8, code: Option<u32>, source: Source) -> Result<(), Exception> {
        if self.is_real() {
            return self.deliver_real(number);
        }
        let external = if source == Source::Software { 0 } else { error_code::EXTERNAL };
        let place = u32::from(number) << 3 | error_code::IDT | external;
        let gate = self.idt_gate(number, place)?;
        if source == Source::Software && gate.dpl < self.cpl() {
            return Err(Exception::general_protection(place & !external));
        }
        let task = gate.kind == kind::TASK_GATE && !self.is_long();
        let handler = match gate.kind {
            kind::INTERRUPT_GATE_32 | kind::TRAP_GATE_32 => true,
            kind::INTERRUPT_GATE_16 | kind::TRAP_GATE_16 => !self.is_long(),
            _ => false,
        };
        if !task && !handler {
            return Err(Exception::general_protection(place));
        }
        if !gate.present {
            return Err(Exception::not_present(place));
        }
        if task {
            return self.deliver_to_task(gate.selector, code);
        }
        if self.is_long() {
            self.deliver_long(&gate, code, external)
        } else {
            self.deliver_legacy(&gate, code, external)
        }
    }

    fn idt_gate(&mut self, number: u8, place: u32) -> Result<Gate, Exception> {
        let size = if self.is_long() { 16 } else { 8 };
        let offset = u64::from(number) * size;
        if offset + size - 1 > u64::from(self.idtr.limit) {
            return Err(Exception::general_protection(place));
        }
        let address = self.system_address(self.idtr.base.wrapping_add(offset));
        let low = self.read_number(address, 8, Privilege::System)?;
        if size == 8 {
            return Ok(Gate::from_legacy(low));
        }
        let high = self.read_number(address.wrapping_add(8), 8, Privilege::System)?;
        Ok(Gate::from_long(low, high))
    }

    fn deliver_real(&mut self, number: u8) -> Result<(), Exception> {
        let offset = u64::from(number) * 4;
        if offset + 3 > u64::from(self.idtr.limit) {
            return Err(if number == vector::DOUBLE_FAULT || number == vector::GENERAL_PROTECTION {
                Exception::DOUBLE_FAULT
            } else {
                Exception::general_protection(0)
            });
        }
        let target = self.read_number(self.idtr.base.wrapping_add(offset) & 0xffff_ffff, 4, Privilege::System)?;
        let mut stack = Stack::new(self, &self.segment[2].segment, self.gpr[4], 0);
        let (flags, cs, ip) = (self.rflags(), self.segment[1].segment.selector, self.rip());
        stack.push(self, 2, flags)?;
        stack.push(self, 2, cs.into())?;
        stack.push(self, 2, ip)?;
        self.gpr[4] = stack.pointer;
        self.set_rflags(flags & !(rflags::IF | rflags::TF | rflags::AC));
        self.load_real_segment(1, (target >> 16) as u16);
        self.set_rip(target & 0xffff);
        Ok(())
    }

    /// The handler's code segment and the privilege it runs at.
    fn handler_segment(&mut self, gate: &Gate, external: u32) -> Result<(crate::segment::Descriptor, u8), Exception> {
        let code = selector::error_code(gate.selector) | external;
        if selector::is_null(gate.selector) {
            return Err(Exception::general_protection(external));
        }
        let descriptor = self
            .descriptor(gate.selector, Exception::general_protection)
            .map_err(|e| Exception { error_code: e.error_code.map(|c| c | external), ..e })?;
        let cpl = self.cpl();
        if !descriptor.segment.is_code() || descriptor.segment.dpl() > cpl {
            return Err(Exception::general_protection(code));
        }
        let long = descriptor.segment.attributes & (attribute::LONG | attribute::BIG);
        if self.is_long() && long != attribute::LONG {
            return Err(Exception::general_protection(code));
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(code));
        }
        let level = if descriptor.is_conforming() { cpl } else { descriptor.segment.dpl() };
        Ok((descriptor, level))
    }

    fn flags_in_handler(&self, gate: &Gate) -> u64 {
        let trap = gate.kind & 1 != 0;
        let cleared = rflags::TF | rflags::NT | rflags::RF | rflags::VM | if trap { 0 } else { rflags::IF };
        self.rflags() & !cleared
    }

    fn deliver_long(&mut self, gate: &Gate, code: Option<u32>, external: u32) -> Result<(), Exception> {
        use lodge_x86::descriptor::tss64;
        let (descriptor, level) = self.handler_segment(gate, external)?;
        let cpl = self.cpl();
        let pointer = if gate.ist != 0 {
            let at = tss64::IST1 + (u64::from(gate.ist) - 1) * 8;
            if at + 7 > u64::from(self.tr.limit) {
                return Err(Exception::invalid_tss(selector::error_code(self.tr.selector) | external));
            }
            self.read_number(self.tr.base.wrapping_add(at), 8, Privilege::System)?
        } else if level < cpl {
            self.inner_stack(level)?.1
        } else {
            self.gpr[4]
        };
        let mut stack = Stack::long(pointer & !15, level);
        let (ss, rsp, flags) = (self.segment[2].segment.selector, self.gpr[4], self.rflags());
        let (cs, rip) = (self.segment[1].segment.selector, self.rip());
        for value in [ss.into(), rsp, flags, cs.into(), rip].into_iter().chain(code.map(u64::from)) {
            stack.push(self, 8, value)?;
        }
        let flags = self.flags_in_handler(gate);
        if level < cpl {
            let attributes = ATTRIBUTES_SS | u16::from(level) << attribute::DPL_SHIFT;
            let segment = Segment { base: 0, limit: u32::MAX, selector: level.into(), attributes };
            self.load_segment(2, segment);
        }
        self.put_code_segment(descriptor, level)?;
        self.set_rflags(flags);
        self.gpr[4] = stack.pointer;
        self.mode = crate::mode::Mode::of(self).0;
        self.lip = gate.offset;
        Ok(())
    }

    fn deliver_legacy(&mut self, gate: &Gate, code: Option<u32>, external: u32) -> Result<(), Exception> {
        let (descriptor, level) = self.handler_segment(gate, external)?;
        let bytes = if gate.kind & 8 != 0 { 4 } else { 2 };
        let cpl = self.cpl();
        let v86 = self.is_v86();
        if v86 && level != 0 {
            return Err(Exception::general_protection(selector::error_code(gate.selector)));
        }
        let (old_ss, old_sp, flags) = (self.segment[2].segment.selector, self.gpr[4], self.rflags());
        let (cs, ip) = (self.segment[1].segment.selector, self.rip());
        let inner = if level < cpl {
            let (value, pointer) = self.inner_stack(level)?;
            Some((self.check_inner_stack(value, level)?, pointer))
        } else {
            None
        };
        let mut stack = match &inner {
            Some((stack, pointer)) => Stack::new(self, &stack.segment, *pointer, level),
            None => Stack::new(self, &self.segment[2].segment, old_sp, level),
        };
        if inner.is_some() {
            if v86 {
                for number in [5, 4, 3, 0] {
                    let value = self.segment[number].segment.selector;
                    stack.push(self, bytes, value.into())?;
                }
            }
            stack.push(self, bytes, old_ss.into())?;
            stack.push(self, bytes, old_sp)?;
        }
        for value in [flags, cs.into(), ip].into_iter().chain(code.map(u64::from)) {
            stack.push(self, bytes, value)?;
        }
        let flags = self.flags_in_handler(gate);
        if v86 {
            self.set_rflags(flags);
            for number in [0, 3, 4, 5] {
                self.load_segment(number, Segment::default());
            }
        }
        if let Some((mut stack_segment, _)) = inner {
            self.mark_accessed(&mut stack_segment)?;
            self.load_segment(2, stack_segment.segment);
        }
        self.put_code_segment(descriptor, level)?;
        self.set_rflags(flags);
        self.set_stack_pointer(stack.pointer);
        self.refresh();
        self.set_rip(gate.offset);
        Ok(())
    }

    /// Sets the stack pointer in the width that SS has now.
    pub fn set_stack_pointer(&mut self, value: u64) {
        let rsp = &mut self.gpr[4];
        *rsp = match self.segment[2].segment.attributes & attribute::BIG {
            _ if self.msrs.efer & lodge_x86::bits::efer::LMA != 0
                && self.segment[1].segment.attributes & attribute::LONG != 0 =>
            {
                value
            }
            0 => *rsp & !0xffff | value & 0xffff,
            _ => value & 0xffff_ffff,
        };
    }

    fn deliver_to_task(&mut self, value: u16, code: Option<u32>) -> Result<(), Exception> {
        self.switch_task(value, Switch::Call)?;
        if let Some(code) = code {
            let bytes = if self.tr.attributes & 8 != 0 { 4 } else { 2 };
            let mut stack = Stack::new(self, &self.segment[2].segment, self.gpr[4], self.cpl());
            stack.push(self, bytes, code.into())?;
            self.set_stack_pointer(stack.pointer);
        }
        Ok(())
    }

    /// IRET with an operand of `bytes` (2, 4 or 8).
    pub fn interrupt_return(&mut self, bytes: usize) -> Result<(), Exception> {
        self.nmi_blocked = false;
        if self.is_real() {
            return self.return_real(bytes);
        }
        if self.is_v86() {
            return if self.virtualizes_flags(bytes)? { self.return_virtualized() } else { self.return_real(bytes) };
        }
        if self.system_flags & rflags::NT != 0 {
            if self.is_long() {
                return Err(Exception::general_protection(0));
            }
            return self.return_to_task();
        }
        let cpl = self.cpl();
        let mut stack = if self.is_64() {
            Stack::long(self.gpr[4], cpl)
        } else {
            Stack::new(self, &self.segment[2].segment, self.gpr[4], cpl)
        };
        let ip = stack.pop(self, bytes)?;
        let cs = stack.pop(self, bytes)? as u16;
        let flags = stack.pop(self, bytes)?;
        if bytes == 4 && flags & rflags::VM != 0 && cpl == 0 && !self.is_long() {
            return self.return_to_v86(stack, ip, cs, flags);
        }
        let (descriptor, level) = self.check_return(cs)?;
        let to_64 = self.is_long() && descriptor.segment.attributes & attribute::LONG != 0;
        let outer = if level > cpl || self.is_64() {
            let pointer = stack.pop(self, bytes)?;
            let ss = stack.pop(self, bytes)? as u16;
            Some((ss, pointer))
        } else {
            None
        };
        if to_64 {
            if !lodge_x86::paging::is_canonical(ip) {
                return Err(Exception::general_protection(0));
            }
        } else if ip & 0xffff_ffff > u64::from(descriptor.segment.limit) {
            return Err(Exception::general_protection(0));
        }
        let stack_segment = match outer {
            Some((ss, _)) => Some(self.check_outer_stack(ss, level, to_64)?),
            None => None,
        };
        self.put_code_segment(descriptor, level)?;
        match (outer, stack_segment) {
            (Some((_, pointer)), Some(segment)) => {
                self.load_segment(2, segment);
                if to_64 {
                    self.gpr[4] = pointer;
                } else {
                    self.set_stack_pointer(pointer);
                }
            }
            _ => self.set_stack_pointer(stack.pointer),
        }
        self.set_flags_checked(flags, bytes, cpl);
        if level > cpl {
            self.drop_inner_segments();
        }
        self.mode = crate::mode::Mode::of(self).0;
        self.set_rip(if bytes == 2 { ip & 0xffff } else { ip });
        Ok(())
    }

    /// Checks the code segment that a far return goes to; its privilege.
    pub fn check_return(&mut self, cs: u16) -> Result<(crate::segment::Descriptor, u8), Exception> {
        let gp = || Exception::general_protection(selector::error_code(cs));
        if selector::is_null(cs) {
            return Err(Exception::general_protection(0));
        }
        let level = (cs & selector::RPL) as u8;
        let descriptor = self.descriptor(cs, Exception::general_protection)?;
        let segment = &descriptor.segment;
        let permitted = if descriptor.is_conforming() { segment.dpl() <= level } else { segment.dpl() == level };
        if !segment.is_code() || level < self.cpl() || !permitted || self.is_malformed_long(segment) {
            return Err(gp());
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(selector::error_code(cs)));
        }
        Ok((descriptor, level))
    }

    /// Checks the stack segment that a far return loads for privilege `level`.
    pub fn check_outer_stack(&mut self, ss: u16, level: u8, to_64: bool) -> Result<Segment, Exception> {
        if selector::is_null(ss) {
            if to_64 && level != 3 {
                let attributes = u16::from(level) << attribute::DPL_SHIFT;
                return Ok(Segment { base: 0, limit: 0, selector: ss, attributes });
            }
            return Err(Exception::general_protection(0));
        }
        let gp = Exception::general_protection(selector::error_code(ss));
        let mut descriptor = self.descriptor(ss, Exception::general_protection)?;
        let segment = &descriptor.segment;
        const TYPE: u16 = attribute::NON_SYSTEM | attribute::CODE | attribute::READ_WRITE;
        let writable = segment.attributes & TYPE == attribute::NON_SYSTEM | attribute::READ_WRITE;
        if (ss & selector::RPL) as u8 != level || segment.dpl() != level || !writable {
            return Err(gp);
        }
        if !descriptor.is_present() {
            return Err(Exception::stack_fault(selector::error_code(ss)));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment)
    }

    /// POPF and IRET: takes over the flags that privilege `cpl` and IOPL allow, in an operand of `bytes`.
    pub fn set_flags_checked(&mut self, value: u64, bytes: usize, cpl: u8) {
        let mut writable =
            rflags::ARITHMETIC | rflags::TF | rflags::DF | rflags::NT | rflags::RF | rflags::AC | rflags::ID;
        if cpl <= self.iopl() {
            writable |= rflags::IF;
        }
        if cpl == 0 {
            writable |= rflags::IOPL | rflags::VIF | rflags::VIP;
        }
        if bytes == 2 {
            writable &= 0xffff;
        }
        let old = self.rflags();
        self.set_rflags(old & !writable | value & writable);
    }

    fn return_real(&mut self, bytes: usize) -> Result<(), Exception> {
        let cpl = self.cpl();
        let mut stack = Stack::new(self, &self.segment[2].segment, self.gpr[4], cpl);
        let ip = stack.pop(self, bytes)?;
        let cs = stack.pop(self, bytes)? as u16;
        let flags = stack.pop(self, bytes)?;
        let keep = if self.is_v86() { rflags::IOPL | rflags::VIF | rflags::VIP } else { 0 } | rflags::VM;
        let keep = if bytes == 2 { keep | !0xffff } else { keep };
        let old = self.rflags();
        self.set_stack_pointer(stack.pointer);
        self.set_rflags(old & keep | flags & !keep);
        self.load_real_segment(1, cs);
        self.refresh();
        self.set_rip(if bytes == 2 { ip & 0xffff } else { ip });
        Ok(())
    }

    /// IRET of an 8086 program whose flags are virtualized.
    fn return_virtualized(&mut self) -> Result<(), Exception> {
        let mut stack = Stack::new(self, &self.segment[2].segment, self.gpr[4], 3);
        let ip = stack.pop(self, 2)?;
        let cs = stack.pop(self, 2)? as u16;
        let flags = stack.pop(self, 2)?;
        self.set_virtualized_flags(flags)?;
        self.set_stack_pointer(stack.pointer);
        self.load_real_segment(1, cs);
        self.refresh();
        self.set_rip(ip);
        Ok(())
    }

    fn return_to_v86(&mut self, mut stack: Stack, ip: u64, cs: u16, flags: u64) -> Result<(), Exception> {
        let pointer = stack.pop(self, 4)?;
        let mut values = [0u16; 6];
        for number in [2, 0, 3, 4, 5] {
            values[number] = stack.pop(self, 4)? as u16;
        }
        values[1] = cs;
        self.set_rflags(flags);
        for (number, value) in values.into_iter().enumerate() {
            self.load_segment(number, Segment::real_mode(value, V86_DATA));
        }
        self.gpr[4] = pointer;
        self.refresh();
        self.set_rip(ip & 0xffff);
        Ok(())
    }
}

/// A writable flat stack segment.
const ATTRIBUTES_SS: u16 = attribute::PRESENT
    | attribute::NON_SYSTEM
    | attribute::READ_WRITE
    | attribute::ACCESSED
    | attribute::BIG
    | attribute::GRANULARITY;
