//! Control and debug registers, descriptor-table registers, and invalidation.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use lodge_x86::TableRegister;
use lodge_x86::bits::{cr0, cr3, cr4, efer};
use lodge_x86::exception::Exception;
use lodge_x86::paging::PagingContext;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::partition::PHYSICAL_BITS;
use crate::system::{Flow, Outcome};

/// CR4 bits that the profile has.
const CR4_KNOWN: u64 = cr4::VME
    | cr4::PVI
    | cr4::TSD
    | cr4::DE
    | cr4::PSE
    | cr4::PAE
    | cr4::MCE
    | cr4::PGE
    | cr4::PCE
    | cr4::OSFXSR
    | cr4::OSXMMEXCPT
    | cr4::UMIP
    | cr4::FSGSBASE
    | cr4::PCIDE
    | cr4::OSXSAVE
    | cr4::SMEP
    | cr4::SMAP;

impl Cpu {
    /// The PCID that is loaded.
    pub fn current_pcid(&self) -> u64 {
        if self.cr4 & cr4::PCIDE != 0 { self.cr3 & cr3::PCID } else { 0 }
    }

    /// Goes to the TLB region of an address space. The state looks the same from every region.
    pub fn switch_region(&mut self, pcid: u64, keep: bool) {
        self.context().regions.switch(pcid, keep);
    }

    /// Sets CR3 and drops or keeps what belongs to its PCID.
    pub fn set_cr3(&mut self, value: u64) {
        let keep = self.cr4 & cr4::PCIDE != 0 && value & cr3::NO_FLUSH != 0;
        self.cr3 = value & !cr3::NO_FLUSH;
        let paging = PagingContext::new(self.cr0, self.cr3, self.cr4, self.msrs.efer, PHYSICAL_BITS);
        self.context().paging = paging;
        self.renew_walk(&paging);
        let pcid = self.current_pcid();
        self.switch_region(pcid, keep);
        self.renew_mirrored();
        if self.mirrored && !keep {
            self.flush_mirror();
        }
    }

    fn write_cr0(&mut self, value: u64) -> Result<(), Exception> {
        let gp = Exception::general_protection(0);
        if value >> 32 != 0
            || (value & cr0::PG != 0 && value & cr0::PE == 0)
            || (value & cr0::NW != 0 && value & cr0::CD == 0)
        {
            return Err(gp);
        }
        const KNOWN: u64 =
            cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;
        let turns_on = value & !self.cr0 & cr0::PG != 0;
        let turns_off = self.cr0 & !value & cr0::PG != 0;
        if turns_on && self.msrs.efer & efer::LME != 0 {
            let long_code = self.segment[1].segment.attributes & lodge_x86::segment::attribute::LONG != 0;
            if self.cr4 & cr4::PAE == 0 || long_code {
                return Err(gp);
            }
            self.msrs.efer |= efer::LMA;
        }
        if turns_off {
            if self.is_64() || self.cr4 & cr4::PCIDE != 0 {
                return Err(gp);
            }
            self.msrs.efer &= !efer::LMA;
        }
        self.set_cr0(value & KNOWN);
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> Result<(), Exception> {
        let reserved = if self.is_long() { !((1u64 << PHYSICAL_BITS) - 1) & !cr3::NO_FLUSH } else { 0 };
        let no_flush = self.cr4 & cr4::PCIDE == 0 && value & cr3::NO_FLUSH != 0;
        if value & reserved != 0 || (self.is_long() && no_flush) {
            return Err(Exception::general_protection(0));
        }
        self.set_cr3(value);
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Exception> {
        let gp = Exception::general_protection(0);
        if value & !CR4_KNOWN != 0 || (self.is_long() && value & cr4::PAE == 0) {
            return Err(gp);
        }
        let pcide_on = value & !self.cr4 & cr4::PCIDE != 0;
        if pcide_on && (!self.is_long() || self.cr3 & cr3::PCID != 0) {
            return Err(gp);
        }
        let changed = self.cr4 ^ value;
        self.cr4 = value;
        const PAGING: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
        if changed & PAGING != 0 {
            self.context().regions.flush_all();
        }
        self.refresh();
        if changed & PAGING != 0 {
            self.flush_mirror();
        }
        let pcid = self.current_pcid();
        self.switch_region(pcid, true);
        Ok(())
    }
}

/// MOV to and from control and debug registers.
pub fn move_register(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    cpu.require_kernel()?;
    let (to, from) = (ins.op0_register(), ins.op1_register());
    match (to.is_cr(), from.is_cr()) {
        (true, _) => {
            let value = cpu.read_register(from);
            let value = if cpu.is_64() { value } else { value & 0xffff_ffff };
            match to {
                Register::CR0 => cpu.write_cr0(value)?,
                Register::CR2 => cpu.cr2 = value,
                Register::CR3 => cpu.write_cr3(value)?,
                Register::CR4 => cpu.write_cr4(value)?,
                Register::CR8 => {
                    if value > 15 {
                        return Err(Exception::general_protection(0));
                    }
                    cpu.context().io().set_task_priority(value as u8);
                    cpu.pending.store(1, std::sync::atomic::Ordering::SeqCst);
                }
                _ => return Err(Exception::INVALID_OPCODE),
            }
            Ok(Flow::End)
        }
        (_, true) => {
            let value = match from {
                Register::CR0 => cpu.cr0,
                Register::CR2 => cpu.cr2,
                Register::CR3 => cpu.cr3,
                Register::CR4 => cpu.cr4,
                Register::CR8 => cpu.context().io().task_priority().into(),
                _ => return Err(Exception::INVALID_OPCODE),
            };
            cpu.write_register(to, value);
            Ok(Flow::Next)
        }
        _ if to.is_dr() || from.is_dr() => debug_register(cpu, to, from),
        _ => Err(Exception::INVALID_OPCODE),
    }
}

/// DR7.GD.
const GENERAL_DETECT: u64 = 1 << 13;

fn debug_register(cpu: &mut Cpu, to: Register, from: Register) -> Outcome {
    if cpu.dr[7] & GENERAL_DETECT != 0 {
        cpu.dr[6] |= 1 << 13;
        cpu.dr[7] &= !GENERAL_DETECT;
        return Err(Exception::DEBUG);
    }
    let register = if to.is_dr() { to } else { from };
    let number = register.number();
    let number = match number {
        4 | 5 if cpu.cr4 & cr4::DE != 0 => return Err(Exception::INVALID_OPCODE),
        4 | 5 => number + 2,
        0..=7 => number,
        _ => return Err(Exception::INVALID_OPCODE),
    };
    if from.is_dr() {
        let value = cpu.dr[number];
        cpu.write_register(to, value);
        return Ok(Flow::End);
    }
    let value = cpu.read_register(from);
    if number >= 6 && value >> 32 != 0 {
        return Err(Exception::general_protection(0));
    }
    cpu.dr[number] = match number {
        6 => value & 0xe00f | 0xffff_0ff0,
        7 => value & 0xffff_2bff | 0x400,
        _ => value,
    };
    Ok(Flow::End)
}

/// SGDT, SIDT, SLDT, STR, SMSW.
pub fn store(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let value = match ins.mnemonic() {
        Mnemonic::Sgdt => return store_table(cpu, ins, cpu.gdtr),
        Mnemonic::Sidt => return store_table(cpu, ins, cpu.idtr),
        Mnemonic::Sldt => cpu.ldtr.selector.into(),
        Mnemonic::Str => cpu.tr.selector.into(),
        _ => cpu.cr0,
    };
    let bytes = if ins.op0_kind() == OpKind::Memory { 2 } else { ins.op0_register().size() };
    cpu.write_operand(ins, 0, bytes, value)?;
    Ok(Flow::Next)
}

fn store_table(cpu: &mut Cpu, ins: &Instruction, table: TableRegister) -> Outcome {
    let bytes = if cpu.is_64() { 8 } else { 4 };
    let linear = cpu.operand_address(ins, 2 + bytes as u64, true)?;
    let mut data = [0; 10];
    data[..2].copy_from_slice(&table.limit.to_le_bytes());
    data[2..].copy_from_slice(&table.base.to_le_bytes());
    cpu.write_linear(linear, &data[..2 + bytes], Privilege::Current)?;
    Ok(Flow::Next)
}

/// LGDT, LIDT, LLDT, LTR, LMSW, CLTS, INVLPG, INVPCID, XSETBV and the cache instructions.
pub fn load(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    match ins.mnemonic() {
        Mnemonic::Lgdt => cpu.gdtr = read_table(cpu, ins)?,
        Mnemonic::Lidt => cpu.idtr = read_table(cpu, ins)?,
        Mnemonic::Lldt => {
            let value = cpu.read_operand(ins, 0, 2)? as u16;
            cpu.load_ldtr(value)?;
        }
        Mnemonic::Ltr => {
            let value = cpu.read_operand(ins, 0, 2)? as u16;
            cpu.load_tr(value)?;
        }
        Mnemonic::Lmsw => {
            let value = cpu.read_operand(ins, 0, 2)? & 15;
            // PE can be set this way, but not cleared.
            let value = cpu.cr0 & !14 | value;
            cpu.write_cr0(value)?;
            return Ok(Flow::End);
        }
        Mnemonic::Clts => {
            cpu.cr0 &= !cr0::TS;
            cpu.refresh();
            return Ok(Flow::End);
        }
        Mnemonic::Invlpg => {
            let (offset, segment) = cpu.effective(ins);
            let base = if cpu.is_64() && segment < 4 { 0 } else { cpu.segment[usize::from(segment)].base };
            let linear = cpu.system_address(offset.wrapping_add(base));
            cpu.flush_page(linear, None);
            return Ok(Flow::End);
        }
        Mnemonic::Invpcid => {
            invpcid(cpu, ins)?;
            return Ok(Flow::End);
        }
        Mnemonic::Xsetbv => {
            xsetbv(cpu)?;
            return Ok(Flow::End);
        }
        _ => {}
    }
    Ok(Flow::Next)
}

fn read_table(cpu: &mut Cpu, ins: &Instruction) -> Result<TableRegister, Exception> {
    let wide = cpu.is_64();
    let bytes = if wide { 8 } else { 4 };
    let linear = cpu.operand_address(ins, 2 + bytes as u64, false)?;
    let limit = cpu.read_number(linear, 2, Privilege::Current)?;
    let mut base = cpu.read_number(linear.wrapping_add(2), bytes, Privilege::Current)?;
    if wide && !lodge_x86::paging::is_canonical(base) {
        return Err(Exception::general_protection(0));
    }
    let narrow = matches!(ins.code(), iced_x86::Code::Lgdt_m1632_16 | iced_x86::Code::Lidt_m1632_16);
    if narrow {
        base &= 0xff_ffff;
    }
    Ok(TableRegister { base, limit: limit as u16 })
}

/// INVPCID (SDM 2, INVPCID).
fn invpcid(cpu: &mut Cpu, ins: &Instruction) -> Result<(), Exception> {
    let kind = cpu.read_register(ins.op0_register());
    let linear = cpu.operand_address(ins, 16, false)?;
    let pcid = cpu.read_number(linear, 8, Privilege::Current)?;
    let address = cpu.read_number(linear.wrapping_add(8), 8, Privilege::Current)?;
    let gp = Err(Exception::general_protection(0));
    if kind > 3 || (kind < 2 && pcid >> 12 != 0) {
        return gp;
    }
    if kind < 2 && cpu.cr4 & cr4::PCIDE == 0 && pcid != 0 {
        return gp;
    }
    if kind == 0 && cpu.is_long() && !lodge_x86::paging::is_canonical(address) {
        return gp;
    }
    let regions = &mut cpu.context().regions;
    match kind {
        0 => {
            cpu.flush_page(address, Some(pcid));
            return Ok(());
        }
        1 => regions.flush_pcid(pcid),
        2 => regions.flush_all(),
        _ => regions.flush_all_but_global(),
    }
    cpu.flush_mirror();
    Ok(())
}

fn xsetbv(cpu: &mut Cpu) -> Result<(), Exception> {
    if cpu.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::INVALID_OPCODE);
    }
    let value = cpu.gpr[0] & 0xffff_ffff | cpu.gpr[2] << 32;
    let offered = u64::from(cpu.context().shared.cpuid.lookup(0xd, 0)[0]);
    let bad = cpu.gpr[1] as u32 != 0 || value & 1 == 0 || value & !offered != 0 || value & 6 == 4;
    if bad {
        return Err(Exception::general_protection(0));
    }
    cpu.xcr0 = value;
    cpu.refresh();
    Ok(())
}
