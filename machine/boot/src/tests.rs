//! Loaders against images made here, whole and damaged.

use std::io::Write;

use lodge_x86::bits::{cr0, efer, rflags};
use lodge_x86::paging::{Access, AccessKind, PagingContext, PhysicalMemory, walk};
use lodge_x86::{Gpr, SegmentName};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::layout::tests::memory;
use crate::layout::{COMMAND_LINE, MULTIBOOT_INFO, START_INFO, ZERO_PAGE};

const RSDP: u64 = 0xe_0000;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn load_with(memory: &GuestMemory, kernel: &[u8], initrd: Option<&[u8]>, text: &str) -> Result<Loaded, LoadError> {
    let kernel = file(kernel);
    let initrd = initrd.map(file);
    load(&Request {
        memory,
        kernel: kernel.path(),
        initrd: initrd.as_ref().map(|file| file.path()),
        command_line: text,
        rsdp: Some(RSDP),
    })
}

fn u32_at(memory: &GuestMemory, address: u64) -> u32 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

fn u64_at(memory: &GuestMemory, address: u64) -> u64 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

fn bytes_at(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// A bzImage of two setup sectors and `code`. Fields as (offset, bytes) replace the usual ones.
fn bzimage(code: &[u8], fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let usual: &[(usize, &[u8])] = &[
        (0x1f1, &[1]),
        (0x1f4, &(code.len().div_ceil(16) as u32).to_le_bytes()),
        (0x1fe, &[0x55, 0xaa]),
        (0x201, &[0x6a]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 0x02]),
        (0x211, &[1]),
        (0x22c, &0x7fff_ffffu32.to_le_bytes()),
        (0x230, &0x20_0000u32.to_le_bytes()),
        (0x234, &[1]),
        (0x236, &[1, 0]),
        (0x238, &100u32.to_le_bytes()),
        (0x258, &0x100_0000u64.to_le_bytes()),
        (0x260, &0x30_0000u32.to_le_bytes()),
    ];
    for (at, bytes) in usual.iter().chain(fields) {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image.extend(code);
    image
}

/// An ELF image of one segment at physical 0x200000, linear 0xc0200000 (32-bit) or 0xffffffff80200000, with a note.
fn elf(wide: bool, code: &[u8], note: Option<u32>) -> Vec<u8> {
    let linear: u64 = if wide { 0xffff_ffff_8020_0000 } else { 0xc020_0000 };
    let word = |value: u64| if wide { value.to_le_bytes().to_vec() } else { (value as u32).to_le_bytes().to_vec() };
    let (header, entry_size) = if wide { (64, 56) } else { (52, 32) };
    let mut image = b"\x7fELF".to_vec();
    image.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    image.extend(2u16.to_le_bytes());
    image.extend(if wide { 62u16 } else { 3 }.to_le_bytes());
    image.extend(1u32.to_le_bytes());
    image.extend(word(linear + 0x10));
    image.extend(word(header));
    image.extend(word(0));
    image.extend(0u32.to_le_bytes());
    for half in [header as u16, entry_size, 2, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    let data = header + 2 * u64::from(entry_size);
    let note_at = data + code.len() as u64;
    let note_bytes: Vec<u8> = note.map_or(Vec::new(), |entry| {
        [4u32, 4, 18].iter().flat_map(|w| w.to_le_bytes()).chain(*b"Xen\0").chain(entry.to_le_bytes()).collect()
    });
    for (kind, offset, physical, linear, file, mem) in [
        (1u32, data, 0x20_0000, linear, code.len() as u64, code.len() as u64 + 0x2000),
        (4, note_at, 0, 0, note_bytes.len() as u64, note_bytes.len() as u64),
    ] {
        image.extend(kind.to_le_bytes());
        if wide {
            image.extend(7u32.to_le_bytes());
        }
        for value in [offset, linear, physical, file, mem] {
            image.extend(word(value));
        }
        if !wide {
            image.extend(7u32.to_le_bytes());
        }
        image.extend(word(4));
    }
    image.extend(code);
    image.extend(note_bytes);
    image
}

struct Tables<'a>(&'a GuestMemory);

impl PhysicalMemory for Tables<'_> {
    fn read_u64(&self, address: u64) -> Option<u64> {
        self.0.read_obj(GuestAddress(address)).ok()
    }
    fn read_u32(&self, address: u64) -> Option<u32> {
        self.0.read_obj(GuestAddress(address)).ok()
    }
    fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Option<bool> {
        Some(true)
    }
    fn compare_exchange_u32(&self, _: u64, _: u32, _: u32) -> Option<bool> {
        Some(true)
    }
}

#[test]
fn linux_enters_in_64_bit_mode_with_its_parameters() {
    let memory = memory(64);
    let loaded = load_with(&memory, &bzimage(&[0xf4; 5000], &[]), Some(&[7; 5000]), "console=ttyS0").unwrap();
    assert_eq!(loaded.protocol, Protocol::Linux64);
    assert_eq!(loaded.kernel, 0x100_0000..0x130_0000);
    assert_eq!(bytes_at(&memory, 0x100_0000, 5000), [0xf4; 5000]);
    let initrd = loaded.initrd.unwrap();
    assert_eq!(initrd, 0x3ff_e000..0x3ff_e000 + 5000);
    assert_eq!(bytes_at(&memory, initrd.start, 5000), [7; 5000]);
    assert_eq!(bytes_at(&memory, COMMAND_LINE, 14), b"console=ttyS0\0");
    assert_eq!(u64_at(&memory, ZERO_PAGE + 0x70), RSDP);
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x218), 0x3ff_e000);
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x21c), 5000);
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x228), COMMAND_LINE as u32);
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x210) & 0xff, 0xff, "a loader must say that it is one");
    assert_eq!(bytes_at(&memory, ZERO_PAGE + 0x1e8, 1), [5]);
    assert_eq!(u64_at(&memory, ZERO_PAGE + 0x2d0 + 3 * 20), 0x10_0000);
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x2d0 + 3 * 20 + 16), 1);

    let state = loaded.state;
    assert_eq!(state.rip, 0x100_0200);
    assert_eq!(state.gpr[Gpr::Rsi as usize], ZERO_PAGE);
    assert_eq!(state.segment[SegmentName::Cs as usize].selector, 0x10);
    assert_eq!(state.segment[SegmentName::Ds as usize].selector, 0x18);
    assert_eq!(state.rflags & rflags::IF, 0);
    assert_eq!(state.msrs.efer, efer::LME | efer::LMA);
    assert_eq!(state.cpl(), 0);
    let context = PagingContext::new(state.cr0, state.cr3, state.cr4, state.msrs.efer, 40);
    for address in [0, 0x7000, 0x100_0200, 0xffff_f000, 0x1_0000_0000 - 1] {
        let found = walk(&Tables(&memory), &context, address, Access::supervisor(AccessKind::Write, false)).unwrap();
        assert_eq!(found.gpa, address);
    }
    assert!(walk(&Tables(&memory), &context, 1 << 32, Access::supervisor(AccessKind::Read, false)).is_err());
    // The table in memory holds what the hidden parts say.
    for (index, segment) in [(2, SegmentName::Cs), (3, SegmentName::Ss)] {
        let raw = u64_at(&memory, state.gdtr.base + index * 8);
        let hidden = state.segment[segment as usize];
        assert_eq!(lodge_x86::Segment::from_descriptor(hidden.selector, raw), hidden);
    }
}

#[test]
fn linux_without_a_64_bit_entry_is_entered_in_protected_mode() {
    let memory = memory(64);
    let loaded = load_with(&memory, &bzimage(&[0xf4; 100], &[(0x236, &[0, 0])]), None, "").unwrap();
    assert_eq!(loaded.protocol, Protocol::Linux32);
    assert_eq!(loaded.state.rip, 0x100_0000);
    assert_eq!(loaded.state.cr0 & (cr0::PE | cr0::PG), cr0::PE);
    assert_eq!(loaded.state.gpr[Gpr::Rsi as usize], ZERO_PAGE);
    assert!(loaded.state.segment.iter().all(lodge_x86::Segment::is_flat));
    assert_eq!(u32_at(&memory, ZERO_PAGE + 0x218), 0);
}

#[test]
fn linux_needs_room_where_it_unpacks_itself() {
    // The preferred place is at 16 MiB, whether it can be relocated or not.
    for image in [bzimage(&[0xf4; 100], &[]), bzimage(&[0xf4; 100], &[(0x234, &[0])])] {
        let error = load_with(&memory(18), &image, None, "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "18 MiB of memory are too little for the kernel; it needs 19 MiB: say --memory 19M or more"
        );
        let loaded = load_with(&memory(19), &image, None, "").unwrap();
        assert_eq!(loaded.kernel, 0x100_0000..0x130_0000);
    }
    // The RAM disk stays clear of the kernel's working room.
    let error = load_with(&memory(20), &bzimage(&[0xf4; 100], &[]), Some(&[1; 4 << 20]), "").unwrap_err();
    assert!(matches!(error, LoadError::MemoryTooSmall { what: "initial RAM disk", needed_mib: 24, .. }), "{error}");
    // And below what the kernel says is its limit.
    let limited = bzimage(&[0xf4; 100], &[(0x22c, &0x17f_ffffu32.to_le_bytes())]);
    let loaded = load_with(&memory(64), &limited, Some(&[1; 4096]), "").unwrap();
    assert_eq!(loaded.initrd.unwrap().end, 0x180_0000);
}

#[test]
fn linux_that_cannot_be_booted_is_refused_with_the_reason() {
    let memory = memory(64);
    let cases: &[(Vec<u8>, &str)] = &[
        (bzimage(&[0; 64], &[(0x206, &[5, 2])]), "boot protocol 2.05 is older"),
        (bzimage(&[0; 64], &[(0x211, &[0])]), "zImage"),
        (bzimage(&[0; 64], &[(0x1f4, &[0, 1, 0, 0])]), "its code has 4096 bytes, and 64 are there"),
        (bzimage(&[], &[]), "cut short"),
    ];
    for (image, expected) in cases {
        let error = load_with(&memory, image, None, "").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = load_with(&memory, &bzimage(&[0; 64], &[]), None, &"x".repeat(101)).unwrap_err();
    assert!(matches!(error, LoadError::CommandLineTooLong { length: 101, limit: 100 }));
    assert!(load_with(&memory, &bzimage(&[0; 64], &[]), None, &"x".repeat(100)).is_ok());
    assert!(matches!(load_with(&memory, &bzimage(&[0; 64], &[]), None, "a\0b"), Err(LoadError::CommandLineNul)));
}

#[test]
fn pvh_gets_its_start_information() {
    for wide in [true, false] {
        let memory = memory(64);
        let image = elf(wide, &[0x90; 300], Some(0x20_0040));
        let loaded = load_with(&memory, &image, Some(b"module"), "one two").unwrap();
        assert_eq!(loaded.protocol, Protocol::Pvh);
        assert_eq!(loaded.kernel, 0x20_0000..0x20_0000 + 300 + 0x2000);
        assert_eq!(loaded.state.rip, 0x20_0040);
        assert_eq!(loaded.state.gpr[Gpr::Rbx as usize], START_INFO);
        assert_eq!(loaded.state.cr0 & cr0::PG, 0);
        assert_eq!(bytes_at(&memory, 0x20_0000, 300), [0x90; 300]);
        assert_eq!(u32_at(&memory, START_INFO), 0x336e_c578);
        assert_eq!(u32_at(&memory, START_INFO + 12), 1);
        let module = u64_at(&memory, u64_at(&memory, START_INFO + 16));
        assert_eq!(bytes_at(&memory, module, 6), b"module");
        assert_eq!(bytes_at(&memory, u64_at(&memory, START_INFO + 24), 8), b"one two\0");
        assert_eq!(u64_at(&memory, START_INFO + 32), RSDP);
        assert_eq!(u32_at(&memory, START_INFO + 48), 5);
        let map = u64_at(&memory, START_INFO + 40);
        assert_eq!((u64_at(&memory, map), u64_at(&memory, map + 8), u32_at(&memory, map + 16)), (0, 0x9_fc00, 1));
    }
}

/// A header for images with address fields: loaded at 0x100000 from offset 16, with 0x1000 bytes zeroed.
fn multiboot(flags: u32, code: &[u8]) -> Vec<u8> {
    let words = [
        0x1bad_b002,
        flags,
        0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags),
        0x10_0000,
        0x10_0000,
        0,
        0x10_1000,
        0x10_0020,
    ];
    let mut image = vec![0; 16];
    image.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    image.extend(code);
    image
}

#[test]
fn multiboot_by_address_fields() {
    let memory = memory(32);
    memory.write_slice(&[0xee; 0x1000], GuestAddress(0x10_0000)).unwrap();
    let loaded = load_with(&memory, &multiboot(1 << 16 | 3, b"code"), Some(b"module"), "args").unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot);
    assert_eq!(loaded.kernel, 0x10_0000..0x10_1000);
    assert_eq!(loaded.state.rip, 0x10_0020);
    assert_eq!(loaded.state.gpr[Gpr::Rax as usize], 0x2bad_b002);
    assert_eq!(loaded.state.gpr[Gpr::Rbx as usize], MULTIBOOT_INFO);
    assert_eq!(bytes_at(&memory, 0x10_0020, 5), b"code\0");
    assert_eq!(u32_at(&memory, MULTIBOOT_INFO), 0b10_0100_1101);
    assert_eq!(u32_at(&memory, MULTIBOOT_INFO + 4), 639);
    assert_eq!(u32_at(&memory, MULTIBOOT_INFO + 8), 31 << 10);
    let text = u64::from(u32_at(&memory, MULTIBOOT_INFO + 16));
    assert_eq!(bytes_at(&memory, text, 5), b"args\0");
    let module = u64::from(u32_at(&memory, MULTIBOOT_INFO + 24));
    assert_eq!((u32_at(&memory, module), u32_at(&memory, module + 4)), (0x10_1000, 0x10_1006));
    let map = u64::from(u32_at(&memory, MULTIBOOT_INFO + 48));
    assert_eq!((u32_at(&memory, map), u64_at(&memory, map + 12)), (20, 0x9_fc00));
    assert_eq!(u32_at(&memory, MULTIBOOT_INFO + 44), 5 * 24);
    let name = u64::from(u32_at(&memory, MULTIBOOT_INFO + 64));
    assert_eq!(bytes_at(&memory, name, 6), b"lodge\0");
}

#[test]
fn multiboot_elf_entry_is_physical() {
    let memory = memory(32);
    let header = &multiboot(0, b"")[16..28];
    let loaded = load_with(&memory, &elf(false, header, None), None, "").unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot);
    assert_eq!(loaded.state.rip, 0x20_0010);
    let error = load_with(&memory, &elf(true, header, None), None, "").unwrap_err();
    assert!(error.to_string().contains("32-bit ELF"), "{error}");
}

#[test]
fn multiboot_refusals() {
    let memory = memory(32);
    let unknown = load_with(&memory, &multiboot(1 << 5, b""), None, "").unwrap_err();
    assert!(unknown.to_string().contains("unknown Multiboot features (0x20)"), "{unknown}");
    let plain = load_with(&memory, &multiboot(0, b""), None, "").unwrap_err();
    assert!(plain.to_string().contains("no addresses"), "{plain}");
    let mut overlapping = multiboot(1 << 16, b"");
    for at in [16 + 12, 16 + 16] {
        overlapping[at..at + 4].copy_from_slice(&0x8000u32.to_le_bytes());
    }
    let error = load_with(&memory, &overlapping, None, "").unwrap_err();
    assert!(error.to_string().contains("overlaps boot data"), "{error}");
    let mut high = multiboot(1 << 16, b"");
    high[16 + 24..16 + 28].copy_from_slice(&0x3000_0000u32.to_le_bytes());
    let error = load_with(&memory, &high, None, "").unwrap_err();
    assert!(matches!(error, LoadError::MemoryTooSmall { needed_mib: 768, available_mib: 32, .. }), "{error}");
}

#[test]
fn files_that_are_not_there_or_no_kernels() {
    let memory = memory(32);
    let try_path = |kernel: &Path, initrd: Option<&Path>| {
        load(&Request { memory: &memory, kernel, initrd, command_line: "", rsdp: None }).unwrap_err().to_string()
    };
    assert_eq!(try_path(Path::new("/no/such"), None), "the kernel '/no/such' does not exist; check the name");
    assert!(try_path(Path::new("/"), None).contains("it is a directory"));
    assert!(try_path(Path::new("/dev/zero"), None).contains("not a regular file"));
    assert!(try_path(file(b"").path(), None).contains("is empty"));
    assert!(try_path(file(b"\x1f\x8bxx").path(), None).contains("it looks like a gzip file"));
    assert!(try_path(file(&elf(true, &[0; 8], None)).path(), None).contains("an ELF file without a PVH note"));
    assert!(try_path(file(b"#!/bin/sh").path(), None).contains("a script"));
    assert!(try_path(file(b"hello\n").path(), None).contains("it looks like text"));
    let mut foreign = elf(true, &[0; 8], None);
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    assert!(try_path(file(&foreign).path(), None).contains("for another processor, AArch64"));
    let kernel = file(&bzimage(&[0; 64], &[]));
    assert!(try_path(kernel.path(), Some(Path::new("/no/such"))).starts_with("the initial RAM disk '/no/such'"));
    assert!(try_path(kernel.path(), Some(file(b"").path())).contains("is empty"));
}

#[test]
fn damaged_images_never_panic() {
    let memory = memory(20);
    let images = [
        bzimage(&[0xf4; 64], &[]),
        elf(true, &[0x90; 64], Some(0x20_0040)),
        elf(false, &[0x90; 64], Some(0x20_0040)),
        elf(false, &multiboot(0, b"")[16..28], None),
        multiboot(1 << 16, b"code"),
    ];
    let mut loaded = 0;
    for image in images {
        let try_one = |bytes: Vec<u8>| {
            let image = Image::from_bytes(bytes);
            let request =
                Request { memory: &memory, kernel: Path::new("test"), initrd: None, command_line: "", rsdp: None };
            load_image(&request, &image).is_ok()
        };
        for length in 0..image.len() {
            try_one(image[..length].to_vec());
        }
        for at in 0..image.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = image.clone();
                damaged[at] = value;
                loaded += u32::from(try_one(damaged));
            }
        }
        assert!(try_one(image), "the whole image loads");
    }
    assert!(loaded > 0);
}
