//! The walk against a small physical memory, case by case.

use std::cell::RefCell;
use std::collections::HashMap;

use super::*;
use crate::bits::page_fault::{FETCH, PRESENT, RESERVED, USER, WRITE};
use crate::exception::Exception;

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;

/// Physical memory of 8-byte cells; RAM ends at 1 TiB. `race` changes a cell just before the next exchange.
#[derive(Default)]
struct Memory {
    cells: RefCell<HashMap<u64, u64>>,
    race: RefCell<Vec<(u64, u64)>>,
}

impl Memory {
    fn with(cells: &[(u64, u64)]) -> Self {
        Self { cells: RefCell::new(cells.iter().copied().collect()), race: RefCell::default() }
    }

    fn get(&self, address: u64) -> u64 {
        self.cells.borrow().get(&address).copied().unwrap_or(0)
    }
}

impl PhysicalMemory for Memory {
    fn read_u64(&self, address: u64) -> Option<u64> {
        assert_eq!(address % 8, 0);
        (address < 1 << 40).then(|| self.get(address))
    }

    fn read_u32(&self, address: u64) -> Option<u32> {
        assert_eq!(address % 4, 0);
        (address < 1 << 40).then(|| (self.get(address & !7) >> ((address & 4) * 8)) as u32)
    }

    fn compare_exchange_u64(&self, address: u64, old: u64, new: u64) -> Option<bool> {
        self.read_u64(address)?;
        if let Some((at, value)) = self.race.borrow_mut().pop() {
            self.cells.borrow_mut().insert(at, value);
        }
        let same = self.get(address) == old;
        if same {
            self.cells.borrow_mut().insert(address, new);
        }
        Some(same)
    }

    fn compare_exchange_u32(&self, address: u64, old: u32, new: u32) -> Option<bool> {
        let shift = (address & 4) * 8;
        let cell = self.get(address & !7);
        let put = |half: u32| cell & !(0xffff_ffff << shift) | u64::from(half) << shift;
        self.compare_exchange_u64(address & !7, put(old), put(new))
    }
}

const LONG: (u64, u64, u64) = (cr0::PE | cr0::PG | cr0::WP, cr4::PAE, efer::LME | efer::LMA | efer::NXE);

fn long(cr4_more: u64) -> PagingContext {
    PagingContext::new(LONG.0, 0x1000, LONG.1 | cr4_more, LONG.2, 40)
}

/// Linear 0x0000_0080_4060_3123: index 1 in the root, 1 in the next, 3 in the third, 3 in the last.
const LINEAR: u64 = (1 << 39) | (1 << 30) | (3 << 21) | (3 << 12) | 0x123;
const L4: u64 = 0x1008;
const L3: u64 = 0x2008;
const L2: u64 = 0x3018;
const L1: u64 = 0x4018;

/// A 4-level map of [`LINEAR`] with the given extra bits in each entry.
fn four(bits: [u64; 4]) -> Memory {
    Memory::with(&[
        (L4, 0x2000 | P | bits[0]),
        (L3, 0x3000 | P | bits[1]),
        (L2, 0x4000 | P | bits[2]),
        (L1, 0x7_5000 | P | bits[3]),
    ])
}

fn read(user: bool) -> Access {
    Access { kind: AccessKind::Read, user, smap_override: false }
}

fn write(user: bool) -> Access {
    Access { kind: AccessKind::Write, user, smap_override: false }
}

fn fetch(user: bool) -> Access {
    Access { kind: AccessKind::Execute, user, smap_override: false }
}

#[track_caller]
fn code_of(result: Result<Translation, Exception>) -> u32 {
    let fault = result.expect_err("a page fault");
    assert_eq!(fault.vector, crate::exception::vector::PAGE_FAULT);
    fault.error_code.expect("page faults have codes")
}

#[test]
fn modes_follow_the_registers() {
    let cases = [
        (0, cr4::PAE, efer::LMA, PagingMode::None),
        (cr0::PG, 0, 0, PagingMode::Bits32),
        (cr0::PG, cr4::PSE, 0, PagingMode::Bits32),
        (cr0::PG, cr4::PAE, efer::LME, PagingMode::Pae),
        (cr0::PG, cr4::PAE, efer::LME | efer::LMA, PagingMode::FourLevel),
    ];
    for (cr0, cr4, efer, mode) in cases {
        assert_eq!(PagingMode::of(cr0, cr4, efer), mode, "{cr0:#x} {cr4:#x} {efer:#x}");
    }
}

#[test]
fn without_paging_linear_is_physical() {
    let context = PagingContext::new(cr0::PE, 0x5000, 0, 0, 40);
    let t = walk(&Memory::default(), &context, 0x1_8765_4321, write(true)).unwrap();
    assert_eq!((t.gpa, t.page_size), (0x8765_4321, 1 << 32));
    assert!(t.fills(&context, write(false)) && t.fills(&context, fetch(true)));
}

#[test]
fn canonical_addresses() {
    for good in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
        assert!(is_canonical(good), "{good:#x}");
    }
    for bad in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63, 0x0001_0000_0000_0000] {
        assert!(!is_canonical(bad), "{bad:#x}");
    }
}

#[test]
fn four_levels_and_flags() {
    let memory = four([W | U, W | U, W | U, W | U | G]);
    let context = long(0);
    let t = walk(&memory, &context, LINEAR, read(true)).unwrap();
    assert_eq!(
        t,
        Translation {
            gpa: 0x7_5123,
            page_size: 4096,
            user: true,
            writable: true,
            executable: true,
            dirty: false,
            global: true
        }
    );
    assert!(t.permits(&context, write(true)) && !t.fills(&context, write(true)));
    for address in [L4, L3, L2, L1] {
        assert_eq!(memory.get(address) & (A | D), A, "{address:#x}");
    }
    let t = walk(&memory, &context, LINEAR, write(true)).unwrap();
    assert!(t.dirty && t.fills(&context, write(true)));
    assert_eq!(memory.get(L1) & (A | D), A | D);
    assert_eq!(memory.get(L2) & (A | D), A);
}

#[test]
fn large_pages() {
    let context = long(0);
    let memory = Memory::with(&[
        (L4, 0x2000 | P | W | U),
        (L3, 0x3000 | P | W | U),
        (L2, 0x12_3460_0000 | P | W | U | PS),
        (0x1010, 0x6000 | P | W | U),
        (0x6008, 0x42_4000_0000 | P | W | U | PS | G),
    ]);
    let t = walk(&memory, &context, LINEAR, write(false)).unwrap();
    assert_eq!((t.gpa, t.page_size, t.dirty), (0x12_3460_3123, 2 << 20, true));
    let gigantic = (2 << 39) | (1 << 30) | 0x1234_5678;
    let t = walk(&memory, &context, gigantic, read(false)).unwrap();
    assert_eq!((t.gpa, t.page_size, t.dirty, t.global), (0x42_5234_5678, 1 << 30, false, true));
    // The PAT bit of a large leaf is not an address bit, and not a reserved one.
    memory.cells.borrow_mut().insert(L2, 0x12_3460_0000 | 1 << 12 | P | PS);
    assert_eq!(walk(&memory, &context, LINEAR, read(false)).unwrap().gpa, 0x12_3460_3123);
}

#[test]
fn absent_entries_fault_and_change_nothing() {
    for level in 0..4 {
        let mut bits = [W | U; 4];
        bits[level] |= 0xff0; // set everything but "present"
        let memory = four(bits);
        let address = [L4, L3, L2, L1][level];
        let entry = memory.get(address) & !P;
        memory.cells.borrow_mut().insert(address, entry);
        let before = memory.cells.borrow().clone();
        let context = long(0);
        // An entry above with PS or G set by the case would be another page: only this level has those bits.
        assert_eq!(code_of(walk(&memory, &context, LINEAR, read(false))), 0);
        assert_eq!(code_of(walk(&memory, &context, LINEAR, write(true))), WRITE | USER);
        assert_eq!(code_of(walk(&memory, &context, LINEAR, fetch(true))), FETCH | USER);
        assert_eq!(*memory.cells.borrow(), before);
    }
    let fault = walk(&Memory::default(), &long(0), LINEAR, read(false)).unwrap_err();
    assert_eq!(fault.address, Some(LINEAR));
}

#[test]
fn permissions_of_all_levels_combine() {
    // Per case: what each level allows, the access, and the error code; `None` is success.
    let all = W | U;
    let cases: &[([u64; 4], u64, Access, Option<u32>)] = &[
        ([all, all, all, all], 0, write(true), None),
        ([all, all, all, U], 0, write(true), Some(PRESENT | WRITE | USER)),
        ([U, all, all, all], 0, write(true), Some(PRESENT | WRITE | USER)),
        ([all, W, all, all], 0, read(true), Some(PRESENT | USER)),
        ([all, all, W, all], 0, fetch(true), Some(PRESENT | USER | FETCH)),
        ([all, all, U, all], 0, write(false), Some(PRESENT | WRITE)),
        ([W, W, W, W], 0, write(false), None),
        ([all | NX, all, all, all], 0, fetch(true), Some(PRESENT | USER | FETCH)),
        ([W, W, W, W | NX], 0, fetch(false), Some(PRESENT | FETCH)),
        ([W, W, W, W | NX], 0, read(false), None),
        // SMEP concerns pages that user mode may reach, by all levels.
        ([all, all, all, all], cr4::SMEP, fetch(false), Some(PRESENT | FETCH)),
        ([all, W, all, all], cr4::SMEP, fetch(false), None),
        ([all, all, all, all], cr4::SMEP, read(false), None),
        // SMAP: explicit accesses with AC pass, implicit ones never.
        ([all, all, all, all], cr4::SMAP, read(false), Some(PRESENT)),
        ([all, all, all, all], cr4::SMAP, write(false), Some(PRESENT | WRITE)),
        ([all, all, all, all], cr4::SMAP, Access::supervisor(AccessKind::Write, true), None),
        ([all, all, all, all], cr4::SMAP, Access::supervisor(AccessKind::Read, false), Some(PRESENT)),
        ([all, all, all, all], cr4::SMAP, Access::implicit(AccessKind::Read), Some(PRESENT)),
        ([all, all, all, all], cr4::SMAP, read(true), None),
        ([all, all, all, all], cr4::SMAP, fetch(false), None),
        ([all, all, W, all], cr4::SMAP, read(false), None),
        // The override does not lift write protection.
        ([all, all, all, U], cr4::SMAP, Access::supervisor(AccessKind::Write, true), Some(PRESENT | WRITE)),
    ];
    for (number, (bits, cr4_more, access, expected)) in cases.iter().enumerate() {
        let memory = four(*bits);
        let before = memory.cells.borrow().clone();
        let result = walk(&memory, &long(*cr4_more), LINEAR, *access);
        match expected {
            None => assert!(result.is_ok(), "case {number}: {result:?}"),
            Some(code) => {
                assert_eq!(code_of(result), *code, "case {number}");
                assert_eq!(*memory.cells.borrow(), before, "case {number}: a fault changes nothing");
            }
        }
    }
}

#[test]
fn supervisor_writes_pass_without_write_protect() {
    let memory = four([U, U, U, U]);
    let context = PagingContext::new(cr0::PE | cr0::PG, 0x1000, LONG.1, LONG.2, 40);
    let t = walk(&memory, &context, LINEAR, write(false)).unwrap();
    assert!(t.dirty && !t.writable);
    assert!(t.fills(&context, write(false)) && !t.fills(&context, write(true)));
    assert_eq!(code_of(walk(&memory, &context, LINEAR, write(true))), PRESENT | WRITE | USER);
}

#[test]
fn reserved_bits() {
    let all = W | U;
    // Physical addresses have 40 bits here.
    let cases: &[([u64; 4], bool)] = &[
        ([all | 1 << 40, all, all, all], true),
        ([all, all | 1 << 51, all, all], true),
        ([all, all, all, all | 1 << 45], true),
        ([all, all, all, all | 1 << 39], false),
        ([all, all, all, all | 0x7ff << 52], false),
        ([all | PS, all, all, all], true),
        ([all, all | PS | 1 << 29, all, all], true),
        ([all, all | PS | 1 << 12, all, all], true), // 0x3000 itself has bit 13 set
        ([all, all, all | PS | 1 << 13, all], true),
        ([all, all, all | PS | 1 << 20, all], true),
        ([all, all, all, all | PS], false), // the PAT bit at the lowest level
    ];
    for (number, (bits, reserved)) in cases.iter().enumerate() {
        let result = walk(&four(*bits), &long(0), LINEAR, write(true));
        if *reserved {
            assert_eq!(code_of(result), PRESENT | RESERVED | WRITE | USER, "case {number}");
        } else {
            assert!(result.is_ok(), "case {number}: {result:?}");
        }
    }
    // Bit 63 is reserved without EFER.NXE, and then fetches are not reported but for SMEP.
    let memory = four([all, all, all, all | NX]);
    let plain = PagingContext::new(LONG.0, 0x1000, cr4::PAE, efer::LMA, 40);
    assert_eq!(code_of(walk(&memory, &plain, LINEAR, fetch(false))), PRESENT | RESERVED);
    let smep = PagingContext::new(LONG.0, 0x1000, cr4::PAE | cr4::SMEP, efer::LMA, 40);
    assert_eq!(code_of(walk(&memory, &smep, LINEAR, fetch(false))), PRESENT | RESERVED | FETCH);
}

#[test]
fn reserved_bits_come_before_permissions_and_after_presence() {
    let memory = four([0, 1 << 41, 0, 0]);
    assert_eq!(code_of(walk(&memory, &long(0), LINEAR, read(true))), PRESENT | RESERVED | USER);
    memory.cells.borrow_mut().insert(L4, 1 << 41);
    assert_eq!(code_of(walk(&memory, &long(0), LINEAR, read(true))), USER);
}

#[test]
fn pae() {
    let context = PagingContext::new(cr0::PE | cr0::PG | cr0::WP, 0x1020, cr4::PAE, efer::NXE, 40);
    // 0xc040_3abc: top index 3, then 2, then 3.
    let linear = 0xc040_3abc;
    let memory = Memory::with(&[
        (0x1038, 0x2000 | P),
        (0x2010, 0x3000 | P | W | U),
        (0x3018, 0x9_8765_4000 | P | W | U | NX),
        (0x2018, 0x8_0060_0000 | P | W | PS),
    ]);
    let t = walk(&memory, &context, linear, write(true)).unwrap();
    assert_eq!((t.gpa, t.page_size, t.executable), (0x9_8765_4abc, 4096, false));
    assert_eq!(memory.get(0x1038), 0x2000 | P, "the top level has no accessed flag");
    assert_eq!(memory.get(0x2010) & (A | D), A);
    assert_eq!(memory.get(0x3018) & (A | D), A | D);
    assert_eq!(code_of(walk(&memory, &context, linear, fetch(true))), PRESENT | USER | FETCH);
    let t = walk(&memory, &context, 0xffff_ffff_c06a_bcde, read(false)).unwrap();
    assert_eq!((t.gpa, t.page_size), (0x8_006a_bcde, 2 << 20));
    assert_eq!(code_of(walk(&memory, &context, 0x1000, read(false))), 0);
    for reserved in [1 << 1, 1 << 5, 1 << 8, 1 << 40, 1 << 52, 1 << 62, NX] {
        memory.cells.borrow_mut().insert(0x1038, 0x2000 | P | reserved);
        assert_eq!(code_of(walk(&memory, &context, linear, read(false))), PRESENT | RESERVED, "{reserved:#x}");
    }
    memory.cells.borrow_mut().insert(0x1038, 0x2000 | P);
    memory.cells.borrow_mut().insert(0x3018, 0x5000 | P | 1 << 52);
    assert_eq!(code_of(walk(&memory, &context, linear, read(false))), PRESENT | RESERVED);
}

#[test]
fn bits_32() {
    let pse = PagingContext::new(cr0::PE | cr0::PG | cr0::WP, 0x1fff, cr4::PSE, 0, 40);
    let no_pse = PagingContext::new(cr0::PE | cr0::PG | cr0::WP, 0x1000, 0, 0, 40);
    // 0x0040_5678: directory index 1, table index 5. The table's entry is the upper half of a cell.
    let memory = Memory::with(&[(0x1000, (0x2000 | P | W | U) << 32), (0x2010, (0xfedc_b000 | P | W | U) << 32)]);
    let t = walk(&memory, &no_pse, 0x40_5678, write(true)).unwrap();
    assert_eq!((t.gpa, t.page_size), (0xfedc_b678, 4096));
    assert_eq!(memory.get(0x2010) >> 32, 0xfedc_b000 | P | W | U | A | D);
    assert_eq!(memory.get(0x1000) >> 32, 0x2000 | P | W | U | A);
    assert_eq!(code_of(walk(&memory, &no_pse, 0x80_0000, fetch(true))), USER, "no fetch bit without SMEP or NX");
    // A 4 MiB page with address bits 32 and 39 (PSE-36).
    let large = 0x1040_0000 | 1 << 13 | 1 << 20 | P | W | U | PS | G;
    let memory = Memory::with(&[(0x1000, large << 32), (0x1040_2010, 0)]);
    let t = walk(&memory, &pse, 0x45_6789, write(true)).unwrap();
    assert_eq!((t.gpa, t.page_size, t.global), (0x81_1045_6789, 4 << 20, true));
    // Without CR4.PSE the same entry leads to a table.
    assert_eq!(code_of(walk(&memory, &no_pse, 0x40_2000, read(false))), 0);
    memory.cells.borrow_mut().insert(0x1000, (large | 1 << 21) << 32);
    assert_eq!(code_of(walk(&memory, &pse, 0x45_6789, read(false))), PRESENT | RESERVED);
    // With 36 address bits, bit 17 (address bit 36) is reserved, bit 16 is not.
    let narrow = PagingContext::new(cr0::PE | cr0::PG, 0x1000, cr4::PSE, 0, 36);
    for (bit, good) in [(16, true), (17, false)] {
        memory.cells.borrow_mut().insert(0x1000, (0x1040_0000 | 1 << bit | P | PS) << 32);
        assert_eq!(walk(&memory, &narrow, 0x40_0000, read(false)).is_ok(), good, "bit {bit}");
    }
}

#[test]
fn tables_outside_ram_read_as_ones() {
    let context = PagingContext::new(LONG.0, 1 << 41, LONG.1, LONG.2, 48);
    assert_eq!(code_of(walk(&Memory::default(), &context, LINEAR, read(false))), PRESENT | RESERVED);
    // 32-bit entries have no reserved bits there: the page at the top of 4 GiB.
    struct Nothing;
    impl PhysicalMemory for Nothing {
        fn read_u64(&self, _: u64) -> Option<u64> {
            None
        }
        fn read_u32(&self, _: u64) -> Option<u32> {
            None
        }
        fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<bool> {
            None
        }
        fn compare_exchange_u32(&self, _: u64, _: u32, _: u32) -> Option<bool> {
            None
        }
    }
    let context = PagingContext::new(cr0::PG, 0, 0, 0, 40);
    assert_eq!(walk(&Nothing, &context, 0x1234, write(true)).unwrap().gpa, 0xffff_f234);
}

#[test]
fn a_lost_race_starts_anew() {
    let memory = four([W | U; 4]);
    // Another processor remaps the page between our look and our exchange.
    memory.race.borrow_mut().push((L1, 0x9_9000 | P | W | U));
    for address in [L4, L3, L2] {
        let marked = memory.get(address) | A;
        memory.cells.borrow_mut().insert(address, marked);
    }
    let t = walk(&memory, &long(0), LINEAR, write(true)).unwrap();
    assert_eq!(t.gpa, 0x9_9123);
    assert_eq!(memory.get(L1), 0x9_9000 | P | W | U | A | D);
    // And it may have taken the right away.
    let memory = four([W | U; 4]);
    memory.race.borrow_mut().push((L4, 0x2000 | P | U));
    assert_eq!(code_of(walk(&memory, &long(0), LINEAR, write(true))), PRESENT | WRITE | USER);
    // Losing for ever ends in a fault that software takes for a spurious one.
    let memory = four([W | U; 4]);
    *memory.race.borrow_mut() = (0..1000).map(|n| (L4, 0x2000 | P | W | U | (n % 2) << 9)).collect();
    assert_eq!(code_of(walk(&memory, &long(0), LINEAR, write(true))), WRITE | USER);
}
