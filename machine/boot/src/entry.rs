//! The state in which the boot processor enters a kernel.

use lodge_engine_api::GuestMemory;
use lodge_x86::bits::{cr0, cr4, efer};
use lodge_x86::segment::attribute;
use lodge_x86::{CpuState, Gpr, Segment, SegmentName, TableRegister, cpuid, descriptor};

use crate::LoadError;
use crate::image::{write, zero};
use crate::layout::{GDT, PAGE_TABLES};

/// Selector of flat code (Linux calls it __BOOT_CS).
const CODE: u16 = 0x10;
/// Selector of flat data (__BOOT_DS).
const DATA: u16 = 0x18;
/// Selector of a task-state segment.
const TASK: u16 = 0x20;

/// MTRRs on, write-back by default, as firmware would leave them; Linux gives up the PAT otherwise.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

const FLAT: u16 =
    attribute::PRESENT | attribute::NON_SYSTEM | attribute::READ_WRITE | attribute::ACCESSED | attribute::GRANULARITY;

/// A flat segment.
const fn flat(selector: u16, more: u16) -> Segment {
    Segment { base: 0, limit: u32::MAX, selector, attributes: FLAT | more }
}

/// Writes the descriptor table, and gives a processor with flat segments, interrupts off, at `rip`.
fn flat_state(memory: &GuestMemory, code: Segment, rip: u64) -> Result<CpuState, LoadError> {
    let data = flat(DATA, attribute::BIG);
    let task = Segment {
        base: 0,
        limit: descriptor::tss32::MIN_LIMIT,
        selector: TASK,
        attributes: attribute::PRESENT | descriptor::kind::TSS_32_BUSY as u16,
    };
    // The second half of the task's descriptor is for 64-bit mode.
    let table = [0, 0, descriptor::pack(&code), descriptor::pack(&data), descriptor::pack(&task), 0];
    let bytes: Vec<u8> = table.iter().flat_map(|raw: &u64| raw.to_le_bytes()).collect();
    write(memory, GDT, &bytes)?;

    let mut state = CpuState::reset(cpuid::SIGNATURE);
    state.gpr = [0; 16];
    state.rip = rip;
    state.segment = [data; 6];
    state.segment[SegmentName::Cs as usize] = code;
    state.tr = task;
    state.ldtr = Segment::default();
    state.gdtr = TableRegister { base: GDT, limit: bytes.len() as u16 - 1 };
    state.idtr = TableRegister { base: 0, limit: 0 };
    state.cr0 = cr0::PE | cr0::ET;
    state.msrs.mtrr_def_type = MTRR_WRITE_BACK;
    Ok(state)
}

/// 32-bit protected mode without paging.
pub(crate) fn protected_mode(memory: &GuestMemory, rip: u64) -> Result<CpuState, LoadError> {
    flat_state(memory, flat(CODE, attribute::CODE | attribute::BIG), rip)
}

/// 64-bit mode with the first 4 GiB mapped one to one.
pub(crate) fn long_mode(memory: &GuestMemory, rip: u64) -> Result<CpuState, LoadError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 0x80;
    let (directories, pages) = (PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    zero(memory, PAGE_TABLES, 0x2000)?;
    write(memory, PAGE_TABLES, &(directories | PRESENT_WRITABLE).to_le_bytes())?;
    for gib in 0..4 {
        write(memory, directories + gib * 8, &((pages + gib * 0x1000) | PRESENT_WRITABLE).to_le_bytes())?;
    }
    let entries: Vec<u8> =
        (0..2048u64).flat_map(|page| (page << 21 | PRESENT_WRITABLE | LARGE).to_le_bytes()).collect();
    write(memory, pages, &entries)?;

    let mut state = flat_state(memory, flat(CODE, attribute::CODE | attribute::LONG), rip)?;
    state.cr0 |= cr0::PG;
    state.cr3 = PAGE_TABLES;
    state.cr4 = cr4::PAE;
    state.msrs.efer = efer::LME | efer::LMA;
    Ok(state)
}

/// Sets a register.
pub(crate) fn set(state: &mut CpuState, register: Gpr, value: u64) {
    state.gpr[register as usize] = value;
}
