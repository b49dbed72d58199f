//! The virtual interrupt flag: what stands in for IF where a program may not change it (SDM 3B 20.3 and 20.4).
//!
//! Under CR4.VME, in virtual-8086 mode with IOPL below 3, CLI, STI, PUSHF, POPF, IRET and INT n work on VIF; under
//! CR4.PVI, at CPL 3 with IOPL below 3, CLI and STI do. VIP says that the monitor has an interrupt waiting: setting VIF
//! then raises #GP, which lets the monitor deliver it.
//!
//! Neighbours: [`crate::system`] and [`crate::transfer`] have the instructions, [`crate::deliver`] IRET.

use lodge_x86::bits::{cr4, rflags};
use lodge_x86::descriptor::tss32;
use lodge_x86::exception::Exception;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::deliver::Stack;

/// The flag that CLI and STI change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptFlag {
    /// IF.
    Real,
    /// VIF.
    Virtual,
}

/// Bytes of the software-interrupt redirection bit map, which ends where the I/O permission bit map begins.
const REDIRECTION_MAP: u64 = 32;

impl Cpu {
    /// The flag that CLI and STI change now; #GP(0) where they may change none (SDM 2, CLI).
    pub fn interrupt_flag_in_reach(&self) -> Result<InterruptFlag, Exception> {
        // Virtual-8086 mode is at CPL 3.
        if self.is_real() || self.cpl() <= self.iopl() {
            Ok(InterruptFlag::Real)
        } else if self.has_virtual_flag() {
            Ok(InterruptFlag::Virtual)
        } else {
            Err(Exception::general_protection(0))
        }
    }

    /// Whether VIF stands in for IF.
    fn has_virtual_flag(&self) -> bool {
        let extension = if self.is_v86() { cr4::VME } else { cr4::PVI };
        !self.is_real() && self.cr4 & extension != 0 && self.cpl() == 3 && self.iopl() < 3
    }

    /// Sets or clears VIF as CLI and STI do.
    pub fn set_virtual_flag(&mut self, on: bool) -> Result<(), Exception> {
        if on && self.system_flags & rflags::VIP != 0 {
            return Err(Exception::general_protection(0));
        }
        self.system_flags &= !rflags::VIF;
        if on {
            self.system_flags |= rflags::VIF;
        }
        Ok(())
    }

    /// Whether PUSHF, POPF or IRET with an operand of `bytes` works on virtualized flags; #GP(0) where it may not be
    /// used at all: in virtual-8086 mode with IOPL below 3, but for 16-bit operands under CR4.VME.
    pub fn virtualizes_flags(&self, bytes: usize) -> Result<bool, Exception> {
        if !self.is_v86() || self.iopl() == 3 {
            Ok(false)
        } else if self.cr4 & cr4::VME != 0 && bytes == 2 {
            Ok(true)
        } else {
            Err(Exception::general_protection(0))
        }
    }

    /// The flags that a virtualized PUSHF, INT n or the like pushes: IOPL 3, and VIF as IF.
    pub fn virtualized_flags(&self) -> u64 {
        let virtual_flag = if self.system_flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        self.rflags() & !rflags::IF | rflags::IOPL | virtual_flag
    }

    /// Takes over the flags that a virtualized POPF or IRET popped (SDM 2, POPF): TF cannot be set, IF goes to VIF, and
    /// IOPL stays.
    pub fn set_virtualized_flags(&mut self, value: u64) -> Result<(), Exception> {
        if value & rflags::TF != 0 {
            return Err(Exception::general_protection(0));
        }
        self.set_virtual_flag(value & rflags::IF != 0)?;
        let writable = rflags::ARITHMETIC | rflags::TF | rflags::DF | rflags::NT;
        let old = self.rflags();
        self.set_rflags(old & !writable | value & writable);
        Ok(())
    }

    /// Whether VIF and VIP are both set at the beginning of an instruction, which raises #GP(0) (SDM 3B 20.3.2): an IRET
    /// or a task switch of the monitor can make it so.
    pub fn owes_virtual_interrupt(&self) -> bool {
        const BOTH: u64 = rflags::VIF | rflags::VIP;
        self.system_flags & BOTH == BOTH && self.has_virtual_flag()
    }

    /// INT n in virtual-8086 mode, by the six methods of SDM 3B 20.3.3, table 20-2. Whether it went to the 8086 program's
    /// own handler, through the vectors at linear address 0; otherwise it goes through the IDT. The instruction pointer
    /// is already behind the instruction.
    pub fn redirect_interrupt(&mut self, number: u8) -> Result<bool, Exception> {
        if self.cr4 & cr4::VME != 0 && !self.is_trapped(number)? {
            self.deliver_to_8086(number)?;
            return Ok(true);
        }
        if self.iopl() < 3 { Err(Exception::general_protection(0)) } else { Ok(false) }
    }

    /// The vector's bit in the redirection bit map of the TSS.
    fn is_trapped(&mut self, number: u8) -> Result<bool, Exception> {
        let gp = Exception::general_protection(0);
        let tss = self.tr;
        if tss.attributes & 8 == 0 || !tss.is_usable() || tss.limit < tss32::MIN_LIMIT {
            return Err(gp);
        }
        let field = self.system_address(tss.base.wrapping_add(tss32::IO_MAP));
        let map = self.read_number(field, 2, Privilege::System)?;
        let Some(map) = map.checked_sub(REDIRECTION_MAP) else { return Err(gp) };
        let at = map + u64::from(number / 8);
        if at > u64::from(tss.limit) {
            return Err(gp);
        }
        let byte = self.read_number(self.system_address(tss.base.wrapping_add(at)), 1, Privilege::System)?;
        Ok(byte >> (number % 8) & 1 != 0)
    }

    fn deliver_to_8086(&mut self, number: u8) -> Result<(), Exception> {
        let target = self.read_number(u64::from(number) * 4, 4, Privilege::System)?;
        let virtualized = self.iopl() < 3;
        let flags = if virtualized { self.virtualized_flags() } else { self.rflags() };
        let mut stack = Stack::new(self, &self.segment[2].segment, self.gpr[4], 3);
        for value in [flags, self.segment[1].segment.selector.into(), self.rip()] {
            stack.push(self, 2, value)?;
        }
        self.set_stack_pointer(stack.pointer);
        let cleared = rflags::TF | if virtualized { rflags::VIF } else { rflags::IF };
        let old = self.rflags();
        self.set_rflags(old & !cleared);
        self.load_real_segment(1, (target >> 16) as u16);
        self.refresh();
        self.set_rip(target & 0xffff);
        Ok(())
    }
}
