//! What guest physical addresses are changes while the guest runs: chipsets shadow ROMs, move cards' memory, and hold
//! address line 20 low.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use lodge_engine_api::{MemoryChange, Reach};
use lodge_x86::Gpr::*;

use crate::board::mmio_byte;
use crate::case::{Access, Case};
use crate::layout::{RAM, port};

/// The board's port for changes.
const MEMORY: u32 = port::MEMORY as u32;
/// A call of ffff:0610.
const FAR_CALL: [u8; 5] = [0x9a, 0x10, 0x06, 0xff, 0xff];
/// A page of RAM that changes.
const PAGE: u64 = RAM + 0x1000;
/// Where region 1 is moved to.
const ELSEWHERE: u64 = 0x2000_0000;
/// Where region 1 is.
const REGION_1: u64 = 0x10_0000;

fn reach(reach: Reach) -> MemoryChange {
    MemoryChange::Reach { range: PAGE..PAGE + 0x1000, reach }
}

fn line_20(open: bool) -> MemoryChange {
    MemoryChange::AddressLine20 { open }
}

/// Four bytes as MMIO answers them.
fn mmio(address: u64) -> u64 {
    u32::from_le_bytes([0, 1, 2, 3].map(|n| mmio_byte(address + n))).into()
}

pub fn cases() -> Vec<Case> {
    let mut all = reaches();
    all.extend(lines());
    all
}

fn reaches() -> Vec<Case> {
    vec![
        Case::long("maps/read_only_memory_reads_and_its_writes_go_to_devices", |a| { emit!(a; mov(dword_ptr(rbx), 1); mov(al, 0); out(MEMORY, al); mov(dword_ptr(rbx), 2); mov(ecx, dword_ptr(rbx)); mov(al, 1); out(MEMORY, al); mov(dword_ptr(rbx + 4), ecx)) })
        .change(reach(Reach::ReadOnly))
        .change(reach(Reach::Memory))
        .any(Rax)
        .with(Rbx, PAGE)
        .gives(Rcx, 1)
        .accesses(Access::MmioWrite(PAGE, vec![2, 0, 0, 0]))
        .leaves(PAGE, &[1, 0, 0, 0, 1, 0, 0, 0]),
        Case::long("maps/hidden_memory_is_devices", |a| { emit!(a; mov(ecx, dword_ptr(rbx)); mov(al, 0); out(MEMORY, al); mov(edx, dword_ptr(rbx)); mov(al, 1); out(MEMORY, al); mov(esi, dword_ptr(rbx))) })
        .any(Rax)
        .change(reach(Reach::Devices))
        .change(reach(Reach::Memory))
        .with(Rbx, PAGE)
        .poke(PAGE, &[0x11, 0x22, 0x33, 0x44])
        .gives(Rcx, 0x4433_2211)
        .gives(Rdx, mmio(PAGE))
        .gives(Rsi, 0x4433_2211)
        .accesses(Access::MmioRead(PAGE, 4)),
        // A BIOS copies itself to memory that is then made read-only, and goes on.
        Case::long("maps/code_in_read_only_memory_is_not_changed_by_writes", |a| { emit!(a; mov(dword_ptr(rbx), 0x00c3_c1ff); call(rbx); mov(al, 0); out(MEMORY, al); mov(byte_ptr(rbx + 1), 0xc2u32); call(rbx); mov(al, 1); out(MEMORY, al); mov(byte_ptr(rbx + 1), 0xc2u32); call(rbx)) })
        .change(reach(Reach::ReadOnly))
        .change(reach(Reach::Memory))
        .any(Rax)
        .with(Rbx, PAGE)
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rcx, 2)
        .gives(Rdx, 1)
        .accesses(Access::MmioWrite(PAGE + 1, vec![0xc2])),
        Case::long("maps/string_stores_into_read_only_memory", |a| { emit!(a; mov(al, 0); out(MEMORY, al); mov(al, 0x55); rep().stosb(); mov(edx, dword_ptr(rbx))) })
        .change(reach(Reach::ReadOnly))
        .with(Rbx, PAGE)
        .with(Rdi, PAGE)
        .any(Rax)
        .with(Rcx, 2)
        .poke(PAGE, &[1, 2, 3, 4])
        .gives(Rdi, PAGE + 2)
        .gives(Rcx, 0)
        .gives(Rdx, 0x0403_0201)
        .accesses(Access::MmioWrite(PAGE, vec![0x55]))
        .accesses(Access::MmioWrite(PAGE + 1, vec![0x55])),
        Case::flat("maps/a_region_moves", |a| { emit!(a; mov(ecx, dword_ptr(ebx)); mov(al, 0); out(MEMORY, al); mov(edx, dword_ptr(ebx)); add(ebx, (ELSEWHERE - REGION_1) as i32); mov(esi, dword_ptr(ebx)); mov(dword_ptr(ebx + 4), esi); mov(al, 1); out(MEMORY, al); mov(edi, dword_ptr(ebx))) })
        .change(MemoryChange::Move { region: 1, to: Some(ELSEWHERE) })
        .change(MemoryChange::Move { region: 1, to: Some(REGION_1) })
        .with(Rbx, PAGE)
        .poke(PAGE, &[0x11, 0x22, 0x33, 0x44])
        .any(Rax)
        .gives(Rbx, PAGE + ELSEWHERE - REGION_1)
        .gives(Rcx, 0x4433_2211)
        .gives(Rdx, mmio(PAGE))
        .gives(Rsi, 0x4433_2211)
        .gives(Rdi, mmio(PAGE + ELSEWHERE - REGION_1))
        .accesses(Access::MmioRead(PAGE, 4))
        .accesses(Access::MmioRead(PAGE + ELSEWHERE - REGION_1, 4))
        .leaves(PAGE, &[0x11, 0x22, 0x33, 0x44, 0x11, 0x22, 0x33, 0x44]),
    ]
}

/// A place below 64 KiB, and the one that is a MiB above it, as real mode reaches both.
const LOW: u64 = 0x600;
const HIGH: u64 = LOW + (1 << 20);

fn lines() -> Vec<Case> {
    let real = |name: &str, body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        Case::real(name, body)
            .change(line_20(false))
            .change(line_20(true))
            .tweak(|state| {
                state.segment[4].selector = 0xffff;
                state.segment[4].base = 0xf_fff0;
            })
            .any(Rax)
    };
    vec![
        real("maps/addresses_wrap_at_1_mib_while_line_20_is_low", |a| { emit!(a; mov(cx, word_ptr(0x610).fs()); mov(al, 0); out(MEMORY, al); mov(dx, word_ptr(0x610).fs()); mov(word_ptr(0x612).fs(), 0x5555); mov(al, 1); out(MEMORY, al); mov(bx, word_ptr(0x610).fs())) })
        .poke(LOW, &[0x11, 0x11, 0, 0])
        .poke(HIGH, &[0x22, 0x22, 0, 0])
        .with(Rbx, 0)
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rcx, 0x2222)
        .gives(Rdx, 0x1111)
        .gives(Rbx, 0x2222)
        .leaves(LOW, &[0x11, 0x11, 0x55, 0x55])
        .leaves(HIGH, &[0x22, 0x22, 0, 0]),
        // inc cx; retf below, inc dx; retf above.
        real("maps/code_is_fetched_through_line_20", |a| { emit!(a; db(&FAR_CALL); mov(al, 0); out(MEMORY, al); db(&FAR_CALL); db(&FAR_CALL); mov(al, 1); out(MEMORY, al); db(&FAR_CALL)) })
        .poke(LOW, &[0x41, 0xcb])
        .poke(HIGH, &[0x42, 0xcb])
        .with(Rcx, 0)
        .with(Rdx, 0)
        .gives(Rcx, 2)
        .gives(Rdx, 2)
        .tweak(|state| {
            // The case returns to where CS begins with a selector of its own.
            let base = state.segment[1].base;
            state.segment[1].selector = (base >> 4) as u16;
        }),
        Case::long("maps/line_20_is_low_under_paging_too", |a| { emit!(a; mov(ecx, dword_ptr(rbx)); mov(al, 0); out(MEMORY, al); mov(edx, dword_ptr(rbx)); mov(esi, dword_ptr(rbx + 0x1000)); mov(al, 1); out(MEMORY, al); mov(edi, dword_ptr(rbx))) })
        .change(line_20(false))
        .change(line_20(true))
        .any(Rax)
        .with(Rbx, RAM + 0x10_0000)
        .poke(RAM, &[1, 0, 0, 0])
        .poke(RAM + 0x1000, &[3, 0, 0, 0])
        .poke(RAM + 0x10_0000, &[2, 0, 0, 0])
        .gives(Rcx, 2)
        .gives(Rdx, 1)
        .gives(Rsi, 3)
        .gives(Rdi, 2),
    ]
}
