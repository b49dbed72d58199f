//! Multiboot 1 (the Multiboot specification, version 0.6.96): ELF images, and images with address fields in their
//! header.

use std::ops::Range;

use lodge_x86::Gpr;

use crate::image::{Image, command_line, copy_file, open, write};
use crate::layout::{
    COMMAND_LINE, COMMAND_LINE_MAX, EBDA, HIGH, MULTIBOOT_INFO, MULTIBOOT_MAP, MULTIBOOT_MODULES, MULTIBOOT_NAME,
    low_ram_end, memory_map,
};
use crate::{LoadError, Loaded, Protocol, Request, elf, entry};

/// In the header (section 3.1.1).
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX at the entry (section 3.2).
const ENTRY_MAGIC: u64 = 0x2bad_b002;
/// How far into the file the header may begin, at most.
const SEARCH: usize = 8192;
/// Header flag: the address fields are valid.
const ADDRESS_FIELDS: u32 = 1 << 16;
/// Header flags that must be understood (0 to 15): aligned modules, memory information, video mode.
const UNDERSTOOD: u32 = 0b111;
/// The boot loader's name.
const NAME: &[u8] = b"lodge\0";

/// Flags of the information (section 3.3).
mod info {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
    /// Bytes of it that are used.
    pub(super) const SIZE: usize = 120;
}

/// A Multiboot header: its offset in the file, and its first eight words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    offset: u64,
    words: [u32; 8],
}

/// Finds the header: aligned to 4, with a valid checksum. Words beyond the file's end are zero.
pub(crate) fn find_header(bytes: &[u8]) -> Option<Header> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes);
    (0..SEARCH.min(bytes.len())).step_by(4).find_map(|at| {
        let sum = word(at).wrapping_add(word(at + 4)).wrapping_add(word(at + 8));
        (word(at) == HEADER_MAGIC && sum == 0)
            .then(|| Header { offset: at as u64, words: std::array::from_fn(|index| word(at + index * 4)) })
    })
}

/// Loads a Multiboot image and its module.
pub(crate) fn load(request: &Request<'_>, image: &Image, header: Header) -> Result<Loaded, LoadError> {
    let memory = request.memory;
    let flags = header.words[1];
    if flags & 0xffff & !UNDERSTOOD != 0 {
        return Err(image.unsupported(format!("it demands unknown Multiboot features ({:#x})", flags & 0xffff)));
    }
    let (kernel, entry_point) = if flags & ADDRESS_FIELDS != 0 {
        load_by_fields(request, image, header)?
    } else if elf::recognizes(image.bytes()) {
        (elf::load_segments(memory, image)?, elf::multiboot_entry(image)?)
    } else {
        return Err(image.unsupported("its Multiboot header has no addresses, and it is not an ELF image"));
    };
    write(memory, COMMAND_LINE, &command_line(request.command_line, COMMAND_LINE_MAX)?)?;
    write(memory, MULTIBOOT_NAME, NAME)?;
    let module = load_module(request, &kernel)?;

    let mut map = Vec::new();
    for entry in memory_map(memory) {
        // The first field is the size of the rest of the entry.
        map.extend(20u32.to_le_bytes());
        map.extend(entry.start.to_le_bytes());
        map.extend(entry.length.to_le_bytes());
        map.extend((entry.kind as u32).to_le_bytes());
    }
    write(memory, MULTIBOOT_MAP, &map)?;

    let mut bytes = [0; info::SIZE];
    let mut put = |at: usize, value: u64| bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    let mut present = info::MEMORY | info::COMMAND_LINE | info::MEMORY_MAP | info::LOADER_NAME;
    put(4, EBDA >> 10);
    put(8, (low_ram_end(memory) - HIGH) >> 10);
    put(16, COMMAND_LINE);
    if module.is_some() {
        present |= info::MODULES;
        put(20, 1);
        put(24, MULTIBOOT_MODULES);
    }
    put(44, map.len() as u64);
    put(48, MULTIBOOT_MAP);
    put(64, MULTIBOOT_NAME);
    put(0, u64::from(present));
    write(memory, MULTIBOOT_INFO, &bytes)?;

    let mut state = entry::protected_mode(memory, u64::from(entry_point))?;
    entry::set(&mut state, Gpr::Rax, ENTRY_MAGIC);
    entry::set(&mut state, Gpr::Rbx, MULTIBOOT_INFO);
    Ok(Loaded { protocol: Protocol::Multiboot, state, kernel, initrd: module })
}

/// Loads by the header's address fields (section 3.1.3).
fn load_by_fields(request: &Request<'_>, image: &Image, header: Header) -> Result<(Range<u64>, u32), LoadError> {
    let [_, _, _, header_address, load_address, load_end, bss_end, entry_point] = header.words;
    let offset = u64::from(header_address)
        .checked_sub(u64::from(load_address))
        .and_then(|into| header.offset.checked_sub(into))
        .ok_or_else(|| image.unsupported("its Multiboot addresses contradict each other"))?;
    let (load_address, load_end, bss_end) = (u64::from(load_address), u64::from(load_end), u64::from(bss_end));
    let length = match load_end {
        0 => (image.bytes().len() as u64).saturating_sub(offset),
        end => end
            .checked_sub(load_address)
            .ok_or_else(|| image.unsupported("its Multiboot image ends before it begins"))?,
    };
    let bytes = image.slice(offset, length)?;
    let size = length.max(bss_end.saturating_sub(load_address));
    let end = elf::load_at(request.memory, image, load_address, bytes, size)?;
    Ok((load_address..end, entry_point))
}

/// Loads the module on the page after the kernel, and lists it.
fn load_module(request: &Request<'_>, kernel: &Range<u64>) -> Result<Option<Range<u64>>, LoadError> {
    const WHAT: &str = "module";
    let Some(path) = request.initrd else { return Ok(None) };
    let (file, length) = open(path, WHAT)?;
    let start = kernel.end.max(HIGH).next_multiple_of(0x1000);
    let available = low_ram_end(request.memory);
    let Some(end) = start.checked_add(length).filter(|end| *end <= available) else {
        let needed_mib = start.saturating_add(length).div_ceil(1 << 20);
        return Err(LoadError::MemoryTooSmall { what: WHAT, needed_mib, available_mib: available >> 20 });
    };
    copy_file(request.memory, path, WHAT, file, length, start)?;
    // The module's own text is empty: it points at the name's final NUL.
    let text = MULTIBOOT_NAME + NAME.len() as u64 - 1;
    let list: Vec<u8> = [start, end, text, 0].iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
    write(request.memory, MULTIBOOT_MODULES, &list)?;
    Ok(Some(start..end))
}
