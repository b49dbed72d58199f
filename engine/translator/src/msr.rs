//! RDMSR and WRMSR.
//!
//! MSRs are the interrupt controller's (passed on through the I/O seam), the paravirtual clock's, the processor's own,
//! or of a list that holds what was written and means nothing here. Any other raises #GP.

use std::sync::atomic::{Ordering, fence};

use iced_x86::{Instruction, Mnemonic};
use lodge_engine_api::ClockSample;
use lodge_x86::bits::{cr0, efer};
use lodge_x86::exception::Exception;
use lodge_x86::msr;
use lodge_x86::paging::is_canonical;

use crate::cpu::Cpu;
use crate::system::{Flow, Outcome};

const GP: Exception = Exception::general_protection(0);

/// RDMSR and WRMSR.
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    cpu.require_kernel()?;
    let number = cpu.gpr[1] as u32;
    if ins.mnemonic() == Mnemonic::Rdmsr {
        let value = read(cpu, number).inspect_err(|_| tracing::debug!(number, "RDMSR refused"))?;
        cpu.gpr[0] = value & 0xffff_ffff;
        cpu.gpr[2] = value >> 32;
        return Ok(Flow::Next);
    }
    let value = cpu.gpr[0] & 0xffff_ffff | cpu.gpr[2] << 32;
    write(cpu, number, value).inspect_err(|_| tracing::debug!(number, value, "WRMSR refused"))?;
    Ok(Flow::End)
}

fn is_apic(number: u32) -> bool {
    number == msr::APIC_BASE || (msr::X2APIC_FIRST..=msr::X2APIC_LAST).contains(&number)
}

/// MSRs that keep what is written, and what they hold before. None has an effect in a guest.
const PLAIN: &[(u32, u64)] = &[
    (msr::SPEC_CTRL, 0),
    (msr::MCG_STATUS, 0),
    (msr::HWCR, 0x0100_0000),
    (msr::SYSCFG, 0),
    (msr::PATCH_LEVEL, 0x0a00_11d1),
    (msr::DE_CFG, 2),
    (msr::TOP_MEM, 0),
    (msr::TOP_MEM2, 0),
    (msr::VM_CR, 0),
    (msr::VM_HSAVE_PA, 0),
    (msr::LS_CFG, 0),
    (msr::BU_CFG2, 0),
    (msr::NB_CFG, 0),
    (msr::INT_PENDING, 0),
    (msr::MMIO_CONF_BASE, 0),
    (msr::MISC_FEATURES_ENABLES, 0),
    (msr::PSTATE_LIMIT, 0),
    (msr::PSTATE_CONTROL, 0),
    (msr::PSTATE_STATUS, 0),
    (msr::OSVW_ID_LENGTH, 0),
    (msr::OSVW_STATUS, 0),
    (msr::IC_CFG, 0),
    (msr::DC_CFG, 0),
    (msr::LAST_BRANCH_FROM, 0),
    (msr::LAST_BRANCH_TO, 0),
    (msr::LAST_INT_FROM, 0),
    (msr::LAST_INT_TO, 0),
    (msr::PLATFORM_ID, 0),
    (msr::EBL_CR_POWERON, 0),
    (msr::CSTATE_ADDRESS, 0),
    (msr::CPU_WATCHDOG, 0),
    (msr::FP_CFG, 0),
    (msr::BP_CFG, 0),
    (msr::LS_CFG2, 0),
    (msr::TW_CFG, 0),
];

fn plain(cpu: &mut Cpu, number: u32) -> Option<&mut u64> {
    let initial = plain_default(number)?;
    let list = &mut cpu.context().plain_msrs;
    let at = match list.iter().position(|(n, _)| *n == number) {
        Some(at) => at,
        None => {
            list.push((number, initial));
            list.len() - 1
        }
    };
    Some(&mut list[at].1)
}

/// Legacy performance counters of AMD processors: they can be set up and never count.
fn is_performance(number: u32) -> bool {
    (msr::K7_EVNTSEL0..=msr::K7_PERFCTR3).contains(&number)
}

fn plain_default(number: u32) -> Option<u64> {
    if is_performance(number) {
        return Some(0);
    }
    PLAIN.iter().find(|(n, _)| *n == number).map(|(_, value)| *value)
}

fn fixed_mtrr(number: u32) -> Option<usize> {
    match number {
        msr::MTRR_FIX_64K => Some(0),
        msr::MTRR_FIX_16K_80000 => Some(1),
        msr::MTRR_FIX_16K_A0000 => Some(2),
        msr::MTRR_FIX_4K_C0000..=msr::MTRR_FIX_4K_F8000 => Some(3 + (number - msr::MTRR_FIX_4K_C0000) as usize),
        _ => None,
    }
}

fn read(cpu: &mut Cpu, number: u32) -> Result<u64, Exception> {
    if is_apic(number) {
        return cpu.context().io().apic_msr_read(number).map_err(|_| GP);
    }
    if let Some(slot) = fixed_mtrr(number) {
        return Ok(cpu.msrs.mtrr_fixed[slot]);
    }
    Ok(match number {
        msr::TSC => cpu.host_tsc().wrapping_add(cpu.tsc_offset),
        msr::TSC_DEADLINE => {
            let deadline = cpu.context().io().apic_msr_read(number).map_err(|_| GP)?;
            if deadline == 0 { 0 } else { deadline.wrapping_add(cpu.own_tsc_offset()) }
        }
        msr::KVM_WALL_CLOCK | msr::KVM_WALL_CLOCK_OLD => cpu.context().clock.wall_clock,
        msr::KVM_SYSTEM_TIME | msr::KVM_SYSTEM_TIME_OLD => cpu.context().clock.system_time,
        msr::EFER => cpu.msrs.efer,
        msr::STAR => cpu.msrs.star,
        msr::LSTAR => cpu.msrs.lstar,
        msr::CSTAR => cpu.msrs.cstar,
        msr::FMASK => cpu.msrs.fmask,
        msr::FS_BASE => cpu.segment[4].base,
        msr::GS_BASE => cpu.segment[5].base,
        msr::KERNEL_GS_BASE => cpu.msrs.kernel_gs_base,
        msr::TSC_AUX => cpu.msrs.tsc_aux,
        msr::TSC_ADJUST => cpu.msrs.tsc_adjust,
        msr::SYSENTER_CS => cpu.msrs.sysenter_cs,
        msr::SYSENTER_ESP => cpu.msrs.sysenter_esp,
        msr::SYSENTER_EIP => cpu.msrs.sysenter_eip,
        msr::PAT => cpu.msrs.pat,
        msr::MISC_ENABLE => cpu.msrs.misc_enable,
        msr::DEBUG_CTL => cpu.msrs.debug_control,
        msr::MTRR_DEF_TYPE => cpu.msrs.mtrr_def_type,
        // Eight variable ranges, fixed ranges, write combining.
        msr::MTRR_CAP => 0x508,
        msr::MTRR_PHYS_BASE0..=msr::MTRR_PHYS_LAST => cpu.msrs.mtrr_variable[(number - msr::MTRR_PHYS_BASE0) as usize],
        // No machine-check banks.
        msr::MCG_CAP => 0,
        msr::PATCH_LOADER => 0,
        _ => return plain(cpu, number).map(|value| *value).ok_or(GP),
    })
}

fn write(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    if is_apic(number) {
        return cpu.context().io().apic_msr_write(number, value).map_err(|_| GP);
    }
    if let Some(slot) = fixed_mtrr(number) {
        cpu.msrs.mtrr_fixed[slot] = value;
        return Ok(());
    }
    let canonical = |value: u64| if is_canonical(value) { Ok(value) } else { Err(GP) };
    match number {
        msr::TSC => {
            let offset = value.wrapping_sub(cpu.host_tsc());
            let change = offset.wrapping_sub(cpu.tsc_offset);
            cpu.msrs.tsc_adjust = cpu.msrs.tsc_adjust.wrapping_add(change);
            cpu.tsc_offset = offset;
        }
        msr::TSC_ADJUST => {
            let change = value.wrapping_sub(cpu.msrs.tsc_adjust);
            cpu.tsc_offset = cpu.tsc_offset.wrapping_add(change);
            cpu.msrs.tsc_adjust = value;
        }
        msr::TSC_DEADLINE => {
            let deadline = if value == 0 { 0 } else { value.wrapping_sub(cpu.own_tsc_offset()).max(1) };
            cpu.context().io().apic_msr_write(number, deadline).map_err(|_| GP)?;
        }
        msr::KVM_WALL_CLOCK | msr::KVM_WALL_CLOCK_OLD => write_wall_clock(cpu, value),
        msr::KVM_SYSTEM_TIME | msr::KVM_SYSTEM_TIME_OLD => write_system_time(cpu, value),
        msr::EFER => write_efer(cpu, value)?,
        msr::STAR => {
            cpu.msrs.star = value;
            cpu.renew_sides();
        }
        msr::LSTAR => cpu.msrs.lstar = canonical(value)?,
        msr::CSTAR => cpu.msrs.cstar = canonical(value)?,
        msr::FMASK => {
            cpu.msrs.fmask = value & 0xffff_ffff;
            cpu.renew_sides();
        }
        msr::FS_BASE => {
            let base = canonical(value)?;
            cpu.set_segment_base(4, base);
        }
        msr::GS_BASE => {
            let base = canonical(value)?;
            cpu.set_segment_base(5, base);
        }
        msr::KERNEL_GS_BASE => cpu.msrs.kernel_gs_base = canonical(value)?,
        msr::TSC_AUX => cpu.msrs.tsc_aux = value & 0xffff_ffff,
        msr::SYSENTER_CS => cpu.msrs.sysenter_cs = value & 0xffff_ffff,
        msr::SYSENTER_ESP => cpu.msrs.sysenter_esp = canonical(value)?,
        msr::SYSENTER_EIP => cpu.msrs.sysenter_eip = canonical(value)?,
        msr::PAT => {
            let valid = value.to_le_bytes().into_iter().all(|kind| matches!(kind, 0 | 1 | 4..=7));
            if !valid {
                return Err(GP);
            }
            cpu.msrs.pat = value;
        }
        msr::MISC_ENABLE => cpu.msrs.misc_enable = value,
        msr::DEBUG_CTL => cpu.msrs.debug_control = value & 0x3f,
        msr::MTRR_DEF_TYPE => cpu.msrs.mtrr_def_type = value & 0xcff,
        msr::MTRR_PHYS_BASE0..=msr::MTRR_PHYS_LAST => {
            cpu.msrs.mtrr_variable[(number - msr::MTRR_PHYS_BASE0) as usize] = value;
        }
        msr::PRED_CMD if value & !1 == 0 => {}
        msr::MCG_CAP => return Err(GP),
        // Microcode loads of the guest's own are ignored.
        msr::PATCH_LOADER | msr::BIOS_UPDATE_TRIGGER => {}
        msr::PATCH_LEVEL => {}
        _ => *plain(cpu, number).ok_or(GP)? = value,
    }
    Ok(())
}

fn write_efer(cpu: &mut Cpu, value: u64) -> Result<(), Exception> {
    const KNOWN: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::FFXSR;
    /// Automatic IBRS, which needs nothing done here.
    const AIBRSE: u64 = 1 << 21;
    if value & !(KNOWN | AIBRSE) != 0 {
        return Err(GP);
    }
    let changes_lme = (cpu.msrs.efer ^ value) & efer::LME != 0;
    if changes_lme && cpu.cr0 & cr0::PG != 0 {
        return Err(GP);
    }
    let changed = cpu.msrs.efer ^ value;
    cpu.msrs.efer = value & !efer::LMA | cpu.msrs.efer & efer::LMA;
    if changed & efer::NXE != 0 {
        cpu.context().regions.flush_all();
    }
    cpu.refresh();
    if changed & efer::NXE != 0 {
        cpu.flush_mirror();
    }
    Ok(())
}

impl Cpu {
    /// The host's counter, through the input boundary.
    pub fn host_tsc(&mut self) -> u64 {
        let context = self.context();
        match context.io {
            Some(_) => context.io().host_tsc(),
            None => 0,
        }
    }

    /// What the guest itself has added to the machine's counter.
    fn own_tsc_offset(&self) -> u64 {
        self.tsc_offset.wrapping_sub(self.tsc_shift)
    }

    /// Takes over what the machine's counter has fallen behind the host's by, from the input boundary.
    pub fn shift_tsc(&mut self, shift: u64) {
        self.tsc_offset = self.own_tsc_offset().wrapping_add(shift);
        self.tsc_shift = shift;
    }

    /// The paravirtual clock's reference, the same for all vCPUs.
    fn clock_reference(&mut self) -> ClockSample {
        let context = self.context();
        let mut reference = context.shared.clock.lock();
        let sample = *reference.get_or_insert_with(|| context.io().clock());
        drop(reference);
        ClockSample { tsc: sample.tsc.wrapping_add(self.own_tsc_offset()), ..sample }
    }

    /// Writes guest physical memory that may cross pages; what is not RAM is left alone.
    fn write_clock(&mut self, gpa: u64, data: &[u8]) {
        for (n, &byte) in data.iter().enumerate() {
            let at = gpa.wrapping_add(n as u64);
            let shared = &self.context().shared;
            if shared.ram.write(at, &[byte]) {
                // As in `Cpu::write_physical`.
                fence(Ordering::SeqCst);
                shared.note_write(at, 1);
            }
        }
    }
}

fn write_system_time(cpu: &mut Cpu, value: u64) {
    cpu.context().clock.system_time = value;
    if value & 1 != 0 {
        let sample = cpu.clock_reference();
        let hz = cpu.context().shared.tsc_hz;
        let info = cpu.context().clock.time_info(&sample, hz);
        cpu.write_clock(value & !1, &info);
    }
}

fn write_wall_clock(cpu: &mut Cpu, value: u64) {
    cpu.context().clock.wall_clock = value;
    // Not the reference: the wall clock goes on while the machine is paused.
    let sample = cpu.context().io().clock();
    let clock = cpu.context().clock.wall_clock(&sample);
    cpu.write_clock(value, &clock);
}
