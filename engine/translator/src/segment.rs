//! Loads of segment registers and the descriptors behind them (SDM 3A 5).

use lodge_x86::Segment;
use lodge_x86::bits::cr0;
use lodge_x86::descriptor::{Gate, kind, selector};
use lodge_x86::exception::Exception;
use lodge_x86::segment::attribute;

use crate::access::Privilege;
use crate::cpu::{Cpu, HotSegment};

/// A descriptor with where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its eight bytes.
    pub raw: u64,
    /// Their linear address.
    pub address: u64,
    /// Unpacked.
    pub segment: Segment,
}

impl Descriptor {
    /// The four type bits and the non-system bit.
    pub fn kind(&self) -> u8 {
        self.segment.kind()
    }

    /// Present.
    pub fn is_present(&self) -> bool {
        self.segment.is_usable()
    }

    /// Conforming code.
    pub fn is_conforming(&self) -> bool {
        self.segment.attributes & attribute::DOWN_CONFORMING != 0
    }
}

/// Bit of a raw descriptor: accessed.
const ACCESSED: u64 = 1 << 40;

impl Cpu {
    /// Reads the descriptor that `selector` names; `fault` makes the exception if there is none.
    pub fn descriptor(&mut self, selector: u16, fault: fn(u32) -> Exception) -> Result<Descriptor, Exception> {
        let offset = u64::from(selector & selector::INDEX);
        let (base, limit) = if selector & selector::LOCAL != 0 {
            if !self.ldtr.is_usable() {
                return Err(fault(selector::error_code(selector)));
            }
            (self.ldtr.base, u64::from(self.ldtr.limit))
        } else {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        };
        if offset + 7 > limit {
            return Err(fault(selector::error_code(selector)));
        }
        let address = self.system_address(base.wrapping_add(offset));
        let raw = self.read_number(address, 8, Privilege::System)?;
        Ok(Descriptor { raw, address, segment: Segment::from_descriptor(selector, raw) })
    }

    /// Linear addresses of system structures wrap at 4 GiB outside long mode.
    pub fn system_address(&self, address: u64) -> u64 {
        if self.is_long() { address } else { address & 0xffff_ffff }
    }

    /// A system descriptor (TSS, LDT, call gate): 16 bytes in long mode, the second half's address bits merged in.
    pub fn system_descriptor(&mut self, selector: u16, fault: fn(u32) -> Exception) -> Result<Descriptor, Exception> {
        let mut descriptor = self.descriptor(selector, fault)?;
        if self.is_long() {
            let offset = u64::from(selector & selector::INDEX);
            let limit =
                if selector & selector::LOCAL != 0 { u64::from(self.ldtr.limit) } else { self.gdtr.limit.into() };
            if offset + 15 > limit {
                return Err(fault(selector::error_code(selector)));
            }
            let high = self.read_number(descriptor.address.wrapping_add(8), 8, Privilege::System)?;
            descriptor.segment.base |= high << 32;
        }
        Ok(descriptor)
    }

    /// The gate that a descriptor is.
    pub fn gate(&mut self, descriptor: &Descriptor) -> Result<Gate, Exception> {
        if self.is_long() {
            let high = self.read_number(descriptor.address.wrapping_add(8), 8, Privilege::System)?;
            Ok(Gate::from_long(descriptor.raw, high))
        } else {
            Ok(Gate::from_legacy(descriptor.raw))
        }
    }

    /// Sets a descriptor's accessed bit in memory.
    pub fn mark_accessed(&mut self, descriptor: &mut Descriptor) -> Result<(), Exception> {
        if descriptor.raw & ACCESSED == 0 {
            descriptor.raw |= ACCESSED;
            descriptor.segment.attributes |= attribute::ACCESSED;
            self.write_number(descriptor.address + 5, 1, descriptor.raw >> 40 & 0xff, Privilege::System)?;
        }
        Ok(())
    }

    /// Puts a segment into a register and brings the mode key up to date.
    pub fn put_segment(&mut self, number: usize, segment: Segment) {
        self.load_segment(number, segment);
        self.mode = crate::mode::Mode::of(self).0;
    }

    /// MOV, POP and L?S of a data segment register (SDM 2, MOV).
    pub fn load_data_segment(&mut self, number: usize, selector: u16) -> Result<(), Exception> {
        if self.is_real() || self.is_v86() {
            self.load_real_segment(number, selector);
            return Ok(());
        }
        let cpl = self.cpl();
        let rpl = (selector & selector::RPL) as u8;
        let gp = || Exception::general_protection(selector::error_code(selector));
        if selector::is_null(selector) {
            if number == 2 && !(self.is_64() && cpl != 3 && rpl == cpl) {
                return Err(Exception::general_protection(0));
            }
            let attributes = if number == 2 { u16::from(cpl) << attribute::DPL_SHIFT } else { 0 };
            // A null FS or GS clears the base, as CPUID says (APM 3 E.4.18, NullSelectorClearsBase).
            self.put_segment(number, Segment { base: 0, limit: 0, selector, attributes });
            return Ok(());
        }
        let mut descriptor = self.descriptor(selector, Exception::general_protection)?;
        let segment = descriptor.segment;
        let dpl = segment.dpl();
        if segment.attributes & attribute::NON_SYSTEM == 0 {
            return Err(gp());
        }
        if number == 2 {
            let writable = segment.attributes & (attribute::CODE | attribute::READ_WRITE) == attribute::READ_WRITE;
            if rpl != cpl || dpl != cpl || !writable {
                return Err(gp());
            }
            if !descriptor.is_present() {
                return Err(Exception::stack_fault(selector::error_code(selector)));
            }
        } else {
            let code = segment.is_code();
            let readable = !code || segment.attributes & attribute::READ_WRITE != 0;
            let guarded = !code || !descriptor.is_conforming();
            if !readable || (guarded && (rpl > dpl || cpl > dpl)) {
                return Err(gp());
            }
            if !descriptor.is_present() {
                return Err(Exception::not_present(selector::error_code(selector)));
            }
        }
        self.mark_accessed(&mut descriptor)?;
        self.put_segment(number, descriptor.segment);
        Ok(())
    }

    /// A segment load in real and virtual-8086 mode. Real mode keeps limit and attributes ("unreal" mode).
    pub fn load_real_segment(&mut self, number: usize, selector: u16) {
        let base = u64::from(selector) << 4;
        let mut segment = self.segment[number].segment;
        segment.selector = selector;
        segment.base = base;
        if self.is_v86() {
            segment = Segment::real_mode(selector, V86_DATA);
        }
        self.put_segment(number, segment);
    }

    /// Checks and loads CS for a far JMP or CALL without a gate, or through one to the same privilege.
    pub fn check_code_segment(&mut self, selector: u16, rpl_matters: bool) -> Result<Descriptor, Exception> {
        let gp = || Exception::general_protection(selector::error_code(selector));
        if selector::is_null(selector) {
            return Err(Exception::general_protection(0));
        }
        let descriptor = self.descriptor(selector, Exception::general_protection)?;
        let segment = &descriptor.segment;
        let cpl = self.cpl();
        let rpl = (selector & selector::RPL) as u8;
        if !segment.is_code() {
            return Err(gp());
        }
        let permitted = if descriptor.is_conforming() {
            segment.dpl() <= cpl
        } else {
            segment.dpl() == cpl && (!rpl_matters || rpl <= cpl)
        };
        if !permitted || self.is_malformed_long(segment) {
            return Err(gp());
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(selector::error_code(selector)));
        }
        Ok(descriptor)
    }

    /// In long mode a code segment may not have both L and D set.
    pub fn is_malformed_long(&self, segment: &Segment) -> bool {
        const BOTH: u16 = attribute::LONG | attribute::BIG;
        self.is_long() && segment.attributes & BOTH == BOTH
    }

    /// Puts a checked code segment into CS with privilege `cpl`.
    pub fn put_code_segment(&mut self, mut descriptor: Descriptor, cpl: u8) -> Result<(), Exception> {
        self.mark_accessed(&mut descriptor)?;
        let mut segment = descriptor.segment;
        segment.selector = segment.selector & !selector::RPL | u16::from(cpl);
        if !self.is_long() {
            segment.attributes &= !attribute::LONG;
        }
        self.put_segment(1, segment);
        Ok(())
    }

    /// After a return to an outer privilege: data segments that the new privilege may not have become null
    /// (SDM 2, RET).
    pub fn drop_inner_segments(&mut self) {
        let cpl = self.cpl();
        for number in [0, 3, 4, 5] {
            let segment = self.segment[number].segment;
            let guarded = !segment.is_code() || segment.attributes & attribute::DOWN_CONFORMING == 0;
            if segment.is_usable() && guarded && segment.dpl() < cpl {
                let base = if self.is_64() { segment.base } else { 0 };
                self.put_segment(number, Segment { base, ..Segment::default() });
            }
        }
    }

    /// LLDT.
    pub fn load_ldtr(&mut self, value: u16) -> Result<(), Exception> {
        if selector::is_null(value) {
            self.ldtr = Segment { selector: value, ..Segment::default() };
            return Ok(());
        }
        let gp = Exception::general_protection(selector::error_code(value));
        if value & selector::LOCAL != 0 {
            return Err(gp);
        }
        let descriptor = self.system_descriptor(value, Exception::general_protection)?;
        if descriptor.kind() != kind::LDT {
            return Err(gp);
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(selector::error_code(value)));
        }
        self.ldtr = descriptor.segment;
        Ok(())
    }

    /// LTR.
    pub fn load_tr(&mut self, value: u16) -> Result<(), Exception> {
        let gp = Exception::general_protection(selector::error_code(value));
        if selector::is_null(value) || value & selector::LOCAL != 0 {
            return Err(gp);
        }
        let mut descriptor = self.system_descriptor(value, Exception::general_protection)?;
        let wanted = if self.is_long() {
            descriptor.kind() == kind::TSS_32
        } else {
            matches!(descriptor.kind(), kind::TSS_16 | kind::TSS_32)
        };
        if !wanted {
            return Err(gp);
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(selector::error_code(value)));
        }
        descriptor.segment.attributes |= u16::from(kind::BUSY);
        self.write_number(
            descriptor.address + 5,
            1,
            descriptor.raw >> 40 & 0xff | u64::from(kind::BUSY),
            Privilege::System,
        )?;
        self.tr = descriptor.segment;
        Ok(())
    }

    /// The inner stack for `cpl` from the TSS: SS selector (0 in long mode) and stack pointer (SDM 3A 5.8.5).
    pub fn inner_stack(&mut self, cpl: u8) -> Result<(u16, u64), Exception> {
        use lodge_x86::descriptor::{tss16, tss32, tss64};
        let tss = self.tr;
        let fault = Exception::invalid_tss(selector::error_code(tss.selector));
        let level = u64::from(cpl);
        let limit = u64::from(tss.limit);
        if self.is_long() {
            let at = tss64::RSP0 + level * 8;
            if at + 7 > limit {
                return Err(fault);
            }
            return Ok((0, self.read_number(tss.base.wrapping_add(at), 8, Privilege::System)?));
        }
        let wide = tss.attributes & 8 != 0;
        let (sp, ss, bytes) = if wide {
            (tss32::ESP0 + level * tss32::STACK_STRIDE, tss32::SS0 + level * tss32::STACK_STRIDE, 4)
        } else {
            (tss16::SP0 + level * tss16::STACK_STRIDE, tss16::SS0 + level * tss16::STACK_STRIDE, 2)
        };
        if ss + 1 > limit {
            return Err(fault);
        }
        let pointer = self.read_number(self.system_address(tss.base + sp), bytes, Privilege::System)?;
        let stack = self.read_number(self.system_address(tss.base + ss), 2, Privilege::System)?;
        Ok((stack as u16, pointer))
    }

    /// Checks a stack segment from a TSS for use at `cpl` (SDM 3A 6.12.1).
    pub fn check_inner_stack(&mut self, value: u16, cpl: u8) -> Result<Descriptor, Exception> {
        let ts = Exception::invalid_tss(selector::error_code(value));
        if selector::is_null(value) {
            return Err(ts);
        }
        let descriptor = self.descriptor(value, Exception::invalid_tss)?;
        let segment = &descriptor.segment;
        const TYPE: u16 = attribute::NON_SYSTEM | attribute::CODE | attribute::READ_WRITE;
        let writable = segment.attributes & TYPE == attribute::NON_SYSTEM | attribute::READ_WRITE;
        if (value & selector::RPL) as u8 != cpl || segment.dpl() != cpl || !writable {
            return Err(ts);
        }
        if !descriptor.is_present() {
            return Err(Exception::stack_fault(selector::error_code(value)));
        }
        Ok(descriptor)
    }

    /// Sets CR0, with what follows from it. The caller has checked the bits.
    pub fn set_cr0(&mut self, value: u64) {
        let changed = self.cr0 ^ value;
        self.cr0 = value | cr0::ET;
        if changed & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.context().regions.flush_all();
        }
        self.refresh();
        if changed & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.flush_mirror();
        }
    }
}

/// Attributes of every segment in virtual-8086 mode.
pub const V86_DATA: u16 = attribute::PRESENT
    | attribute::NON_SYSTEM
    | attribute::READ_WRITE
    | attribute::ACCESSED
    | 3 << attribute::DPL_SHIFT;

impl HotSegment {
    /// A flat segment for SYSCALL and its kin.
    pub fn flat(selector: u16, attributes: u16) -> Segment {
        Segment { base: 0, limit: u32::MAX, selector, attributes }
    }
}
