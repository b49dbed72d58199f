//! Task switches through TSS descriptors and task gates (SDM 3A 7.3). There are none in long mode.

use lodge_x86::Segment;
use lodge_x86::bits::{cr0, rflags};
use lodge_x86::descriptor::{kind, selector, tss16, tss32};
use lodge_x86::exception::Exception;
use lodge_x86::segment::attribute;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::segment::{Descriptor, V86_DATA};

/// What kind of switch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// JMP: the old task is no longer busy.
    Jump,
    /// CALL, an interrupt or an exception: the old task is linked to.
    Call,
    /// IRET: back along the link.
    Return,
}

/// Where the fields of a TSS are.
struct Layout {
    bytes: usize,
    ip: u64,
    flags: u64,
    registers: u64,
    segments: u64,
    segment_count: usize,
    segment_stride: u64,
    ldt: u64,
    min_limit: u32,
}

const NARROW: Layout = Layout {
    bytes: 2,
    ip: tss16::IP,
    flags: tss16::FLAGS,
    registers: tss16::AX,
    segments: tss16::ES,
    segment_count: 4,
    segment_stride: 2,
    ldt: tss16::LDT,
    min_limit: tss16::MIN_LIMIT,
};

const WIDE: Layout = Layout {
    bytes: 4,
    ip: tss32::EIP,
    flags: tss32::EFLAGS,
    registers: tss32::EAX,
    segments: tss32::ES,
    segment_count: 6,
    segment_stride: 4,
    ldt: tss32::LDT,
    min_limit: tss32::MIN_LIMIT,
};

/// A task's state as its TSS holds it.
struct Image {
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    registers: [u64; 8],
    segments: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    /// Switches to the task whose TSS `target` names.
    pub fn switch_task(&mut self, target: u16, how: Switch) -> Result<(), Exception> {
        let fault = if how == Switch::Return { Exception::invalid_tss } else { Exception::general_protection };
        let bad = fault(selector::error_code(target));
        if selector::is_null(target) || target & selector::LOCAL != 0 {
            return Err(bad);
        }
        let descriptor = self.descriptor(target, fault)?;
        let busy = descriptor.kind() & kind::BUSY != 0;
        let is_tss = matches!(descriptor.kind(), kind::TSS_16 | kind::TSS_16_BUSY | kind::TSS_32 | kind::TSS_32_BUSY);
        if !is_tss || busy != (how == Switch::Return) {
            return Err(bad);
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(selector::error_code(target)));
        }
        let wide = descriptor.kind() & 8 != 0;
        let layout = if wide { &WIDE } else { &NARROW };
        if descriptor.segment.limit < layout.min_limit {
            return Err(Exception::invalid_tss(selector::error_code(target)));
        }
        let image = self.read_image(descriptor.segment.base, layout, wide)?;
        self.save_task(how)?;
        let old = self.tr.selector;
        if how == Switch::Call {
            self.write_number(self.system_address(descriptor.segment.base), 2, old.into(), Privilege::System)?;
        }
        if how != Switch::Return {
            self.set_busy(&descriptor, true)?;
        }
        self.enter_task(descriptor, image, how)
    }

    /// IRET with NT set: back to the task that the current one's TSS links to.
    pub fn return_to_task(&mut self) -> Result<(), Exception> {
        let link = self.read_number(self.system_address(self.tr.base), 2, Privilege::System)?;
        self.switch_task(link as u16, Switch::Return)
    }

    fn set_busy(&mut self, descriptor: &Descriptor, busy: bool) -> Result<(), Exception> {
        let byte = self.read_number(descriptor.address + 5, 1, Privilege::System)?;
        let bit = u64::from(kind::BUSY);
        let byte = if busy { byte | bit } else { byte & !bit };
        self.write_number(descriptor.address + 5, 1, byte, Privilege::System)
    }

    fn read_image(&mut self, base: u64, layout: &Layout, wide: bool) -> Result<Image, Exception> {
        let field = |cpu: &mut Self, offset: u64, bytes: usize| {
            cpu.read_number(cpu.system_address(base + offset), bytes, Privilege::System)
        };
        let mut image = Image {
            cr3: if wide { Some(field(self, tss32::CR3, 4)?) } else { None },
            ip: field(self, layout.ip, layout.bytes)?,
            flags: field(self, layout.flags, layout.bytes)?,
            registers: [0; 8],
            segments: [0; 6],
            ldt: field(self, layout.ldt, 2)? as u16,
            trap: wide && field(self, tss32::TRAP, 2)? & 1 != 0,
        };
        for (n, register) in image.registers.iter_mut().enumerate() {
            *register = field(self, layout.registers + (n * layout.bytes) as u64, layout.bytes)?;
        }
        for (n, segment) in image.segments.iter_mut().take(layout.segment_count).enumerate() {
            *segment = field(self, layout.segments + n as u64 * layout.segment_stride, 2)? as u16;
        }
        Ok(image)
    }

    /// Saves the current task into its TSS.
    fn save_task(&mut self, how: Switch) -> Result<(), Exception> {
        let tss = self.tr;
        let wide = tss.attributes & 8 != 0;
        let layout = if wide { &WIDE } else { &NARROW };
        let mut flags = self.rflags();
        if how == Switch::Return {
            flags &= !rflags::NT;
        }
        let mut fields = vec![(layout.ip, self.rip()), (layout.flags, flags)];
        for n in 0..8 {
            fields.push((layout.registers + (n * layout.bytes) as u64, self.gpr[n]));
        }
        for (offset, value) in fields {
            self.write_number(self.system_address(tss.base + offset), layout.bytes, value, Privilege::System)?;
        }
        for n in 0..layout.segment_count {
            let value = self.segment[n].segment.selector;
            let at = layout.segments + n as u64 * layout.segment_stride;
            self.write_number(self.system_address(tss.base + at), 2, value.into(), Privilege::System)?;
        }
        if how != Switch::Call {
            let descriptor = self.descriptor(tss.selector, Exception::invalid_tss)?;
            self.set_busy(&descriptor, false)?;
        }
        Ok(())
    }

    /// Loads the new task. Faults from here on are the new task's.
    fn enter_task(&mut self, descriptor: Descriptor, image: Image, how: Switch) -> Result<(), Exception> {
        self.tr = descriptor.segment;
        self.tr.attributes |= u16::from(kind::BUSY);
        self.cr0 |= cr0::TS;
        if let Some(cr3) = image.cr3
            && self.cr0 & cr0::PG != 0
        {
            self.set_cr3(cr3);
        }
        let wide = self.tr.attributes & 8 != 0;
        for (register, value) in self.gpr.iter_mut().zip(image.registers) {
            *register = if wide { value } else { *register & 0xffff_0000 | value };
        }
        let mut flags = image.flags | if how == Switch::Call { rflags::NT } else { 0 };
        if !wide {
            flags |= self.rflags() & 0xffff_0000 & !(rflags::VM | rflags::RF);
        }
        self.set_rflags(flags);
        self.dr[7] &= !0x155;
        let v86 = self.is_v86();
        for (number, &value) in image.segments.iter().enumerate() {
            let segment = if v86 {
                Segment::real_mode(value, V86_DATA)
            } else {
                Segment { selector: value, ..Segment::default() }
            };
            self.load_segment(number, segment);
        }
        self.ldtr = Segment { selector: image.ldt, ..Segment::default() };
        // Until CS is checked the privilege is that of its selector.
        if !v86 {
            let level = image.segments[1] & selector::RPL;
            self.segment[2].segment.attributes = level << attribute::DPL_SHIFT;
        }
        self.refresh();
        self.set_rip(image.ip);
        self.load_ldtr(image.ldt).map_err(as_invalid_tss)?;
        if !v86 {
            self.load_task_segments(&image)?;
        }
        self.refresh();
        self.set_rip(image.ip);
        if image.trap {
            self.dr[6] |= 1 << 15;
            return Err(Exception::DEBUG);
        }
        Ok(())
    }

    fn load_task_segments(&mut self, image: &Image) -> Result<(), Exception> {
        let cs = image.segments[1];
        let level = (cs & selector::RPL) as u8;
        let code = selector::error_code(cs);
        if selector::is_null(cs) {
            return Err(Exception::invalid_tss(code));
        }
        let mut descriptor = self.descriptor(cs, Exception::invalid_tss)?;
        let dpl = descriptor.segment.dpl();
        let permitted = if descriptor.is_conforming() { dpl <= level } else { dpl == level };
        if !descriptor.segment.is_code() || !permitted {
            return Err(Exception::invalid_tss(code));
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(code));
        }
        let stack = self.check_inner_stack(image.segments[2], level)?;
        self.load_segment(2, stack.segment);
        self.mark_accessed(&mut descriptor)?;
        self.put_segment(1, descriptor.segment);
        for number in [0, 3, 4, 5] {
            self.load_data_segment(number, image.segments[number]).map_err(as_invalid_tss)?;
        }
        Ok(())
    }
}

/// In a task switch a bad selector is the TSS's fault.
fn as_invalid_tss(exception: Exception) -> Exception {
    if exception.vector == lodge_x86::exception::vector::GENERAL_PROTECTION {
        Exception::invalid_tss(exception.error_code.unwrap_or(0))
    } else {
        exception
    }
}
