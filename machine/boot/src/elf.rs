//! ELF images, 32-bit and 64-bit, as far as loading kernels goes.

use std::ops::Range;

use lodge_engine_api::GuestMemory;
use object::Endianness;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, Machine, NoteType, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::LoadError;
use crate::image::{Image, write, zero};
use crate::layout::{BOOT_DATA, low_ram_end};

/// Note type XEN_ELFNOTE_PHYS32_ENTRY (Xen's public/elfnote.h).
const PHYS32_ENTRY: NoteType = NoteType(18);

/// A loadable segment.
struct Load {
    /// Offset in the file.
    offset: u64,
    /// Bytes in the file.
    file_size: u64,
    /// Physical address.
    physical: u64,
    /// Virtual address.
    linear: u64,
    /// Bytes in memory.
    memory_size: u64,
}

/// What the loaders want to know of an image.
struct Parsed {
    loads: Vec<Load>,
    entry: u64,
    machine: Machine,
    phys32: Option<u64>,
}

/// Whether a file is an ELF image.
pub(crate) fn recognizes(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

fn parse(image: &Image) -> Result<Parsed, LoadError> {
    match image.bytes().get(4) {
        Some(1) => parse_class::<FileHeader32<Endianness>>(image),
        Some(2) => parse_class::<FileHeader64<Endianness>>(image),
        _ => Err(image.unsupported("its ELF header is damaged")),
    }
}

fn parse_class<H: FileHeader<Endian = Endianness>>(image: &Image) -> Result<Parsed, LoadError> {
    let damaged = |error: object::read::Error| image.unsupported(format!("its ELF structure is damaged: {error}"));
    let bytes = image.bytes();
    let file = H::parse(bytes).map_err(damaged)?;
    let endian = file.endian().map_err(damaged)?;
    let mut parsed =
        Parsed { loads: Vec::new(), entry: file.e_entry(endian).into(), machine: file.e_machine(endian), phys32: None };
    for segment in file.program_headers(endian, bytes).map_err(damaged)? {
        if segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian).into() != 0 {
            parsed.loads.push(Load {
                offset: segment.p_offset(endian).into(),
                file_size: segment.p_filesz(endian).into(),
                physical: segment.p_paddr(endian).into(),
                linear: segment.p_vaddr(endian).into(),
                memory_size: segment.p_memsz(endian).into(),
            });
        }
        if let Some(mut notes) = segment.notes(endian, bytes).map_err(damaged)? {
            while let Some(note) = notes.next().map_err(damaged)? {
                if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                    parsed.phys32 = entry_value(note.desc());
                }
            }
        }
    }
    Ok(parsed)
}

/// The note's value: four or eight bytes.
fn entry_value(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(|bytes| u64::from(u32::from_le_bytes(bytes))),
        8 => bytes.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    }
}

/// The PVH entry point, where the image has one.
pub(crate) fn pvh_entry(image: &Image) -> Result<Option<u32>, LoadError> {
    let Some(entry) = parse(image)?.phys32 else { return Ok(None) };
    let narrow = u32::try_from(entry);
    narrow.map(Some).map_err(|_| image.unsupported(format!("its PVH entry {entry:#x} lies above 4 GiB")))
}

/// The entry point of a Multiboot image, as a physical address.
pub(crate) fn multiboot_entry(image: &Image) -> Result<u32, LoadError> {
    let parsed = parse(image)?;
    if parsed.machine != EM_386 {
        return Err(image.unsupported("Multiboot 1 wants a 32-bit ELF image, and this one is not"));
    }
    // Linkers often give the virtual address; GRUB translates it by the segment that holds it.
    let holds = |load: &&Load| (load.linear..load.linear.saturating_add(load.memory_size)).contains(&parsed.entry);
    let entry = match parsed.loads.iter().find(holds) {
        Some(load) => (parsed.entry - load.linear).saturating_add(load.physical),
        None => parsed.entry,
    };
    u32::try_from(entry).map_err(|_| image.unsupported(format!("its entry {entry:#x} lies above 4 GiB")))
}

/// Loads the segments at their physical addresses, and gives the range that they span.
pub(crate) fn load_segments(memory: &GuestMemory, image: &Image) -> Result<Range<u64>, LoadError> {
    let parsed = parse(image)?;
    if ![EM_386, EM_X86_64].contains(&parsed.machine) {
        return Err(image.unsupported("it is for another kind of processor"));
    }
    if parsed.loads.is_empty() {
        return Err(image.unsupported("it has no segment to load"));
    }
    let (mut first, mut last) = (u64::MAX, 0);
    for load in &parsed.loads {
        let bytes = image.slice(load.offset, load.file_size.min(load.memory_size))?;
        let end = load_at(memory, image, load.physical, bytes, load.memory_size)?;
        (first, last) = (first.min(load.physical), last.max(end));
    }
    Ok(first..last)
}

/// Writes `bytes` at `start`, zeroes the rest of `size`, and gives the end. Checks that there is RAM below 4 GiB which
/// the loaders do not use themselves.
pub(crate) fn load_at(
    memory: &GuestMemory,
    image: &Image,
    start: u64,
    bytes: &[u8],
    size: u64,
) -> Result<u64, LoadError> {
    let available = low_ram_end(memory);
    let end = start.checked_add(size).filter(|end| *end <= u64::from(u32::MAX));
    let Some(end) = end else {
        return Err(image.unsupported(format!("a segment at {start:#x} reaches beyond 4 GiB")));
    };
    if start < BOOT_DATA.end && end > BOOT_DATA.start {
        let (from, to) = (BOOT_DATA.start, BOOT_DATA.end);
        return Err(image.unsupported(format!("a segment at {start:#x} overlaps boot data ({from:#x} to {to:#x})")));
    }
    if end > available {
        let (needed_mib, available_mib) = (end.div_ceil(1 << 20), available >> 20);
        return Err(LoadError::MemoryTooSmall { what: "kernel", needed_mib, available_mib });
    }
    write(memory, start, bytes)?;
    zero(memory, start + bytes.len() as u64, size - bytes.len() as u64)?;
    Ok(end)
}
