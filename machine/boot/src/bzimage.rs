//! Linux bzImages (the kernel's Documentation/arch/x86/boot.rst), protocol 2.06 and later; memtest86+ is one too.
//!
//! The protected-mode part is placed where it prefers: one that can be relocated may lie higher, but from below unpacks
//! itself to the preferred place all the same ("init_size" there). The initial RAM disk goes as high below 3 GiB as the kernel permits.

use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use lodge_x86::Gpr;
use vm_memory::ByteValued;

use crate::image::{Image, command_line, copy_file, open, write};
use crate::layout::{COMMAND_LINE, COMMAND_LINE_MAX, HIGH, MapEntry, ZERO_PAGE, low_ram_end, memory_map};
use crate::{LoadError, Loaded, Protocol, Request, entry};

/// Where the setup header lies in the file and in the boot parameters.
const HEADER: usize = 0x1f1;
/// "HdrS".
const MAGIC: u32 = 0x5372_6448;
/// `type_of_loader`: a loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xff;
/// `loadflags`: the protected-mode code is loaded at 1 MiB rather than 64 KiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Entries that the boot parameters have room for.
const E820_MAX: usize = 128;

/// Whether a file is a bzImage.
pub(crate) fn recognizes(bytes: &[u8]) -> bool {
    bytes.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && bytes.get(0x202..0x206) == Some(&MAGIC.to_le_bytes())
}

/// Reads the setup header. Its length is told by the byte at 0x201, and fields beyond are zero.
fn header(image: &Image) -> Result<setup_header, LoadError> {
    let end = 0x202 + u64::from(image.slice(0x201, 1)?[0]);
    let bytes = image.slice(HEADER as u64, end - HEADER as u64)?;
    let mut header = setup_header::default();
    let length = bytes.len().min(size_of::<setup_header>());
    header.as_mut_slice()[..length].copy_from_slice(&bytes[..length]);
    Ok(header)
}

/// Bytes before the protected-mode part.
fn setup_bytes(header: &setup_header) -> u64 {
    let sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    (sectors + 1) * 512
}

/// The same for an image.
pub(crate) fn setup_length(image: &Image) -> Result<usize, LoadError> {
    // At most 256 sectors.
    Ok(setup_bytes(&header(image)?) as usize)
}

/// Loads a bzImage and its initial RAM disk.
pub(crate) fn load(request: &Request<'_>, image: &Image) -> Result<Loaded, LoadError> {
    let mut header = header(image)?;
    let version = header.version;
    if version < 0x206 {
        return Err(image.unsupported(format!(
            "boot protocol {}.{:02} is older than 2.06",
            version >> 8,
            version & 0xff
        )));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(image.unsupported("it is a zImage, which is loaded below 640 KiB"));
    }
    let offset = setup_bytes(&header);
    // `syssize` counts 16 bytes. A signature may follow, so more is not an error.
    let promised = u64::from(header.syssize) * 16;
    let present = (image.bytes().len() as u64).saturating_sub(offset);
    if present == 0 || present + 15 < promised {
        return Err(image.truncated(format!("its code has {promised} bytes, and {present} are there")));
    }
    let code = image.slice(offset, present)?;

    let place = place(request, &header, present)?;
    write(request.memory, place.start, code)?;
    let limit = (header.cmdline_size as usize).min(COMMAND_LINE_MAX);
    write(request.memory, COMMAND_LINE, &command_line(request.command_line, limit)?)?;
    let initrd = initrd(request, &header, &place)?;

    let wide = header.xloadflags & XLF_KERNEL_64 != 0 && version >= 0x20c;
    header.type_of_loader = UNDEFINED_LOADER;
    header.code32_start = place.start as u32;
    header.cmd_line_ptr = COMMAND_LINE as u32;
    if let Some(initrd) = &initrd {
        header.ramdisk_image = initrd.start as u32;
        header.ramdisk_size = (initrd.end - initrd.start) as u32;
    }
    let mut parameters = boot_params { hdr: header, acpi_rsdp_addr: request.rsdp.unwrap_or(0), ..Default::default() };
    let map = memory_map(request.memory);
    for (slot, entry) in parameters.e820_table.iter_mut().zip(&map) {
        let MapEntry { start, length, kind } = *entry;
        *slot = boot_e820_entry { addr: start, size: length, r#type: kind as u32 };
    }
    parameters.e820_entries = map.len().min(E820_MAX) as u8;
    write(request.memory, ZERO_PAGE, parameters.as_slice())?;

    let mut state = if wide {
        entry::long_mode(request.memory, place.start + 0x200)?
    } else {
        entry::protected_mode(request.memory, place.start)?
    };
    entry::set(&mut state, Gpr::Rsi, ZERO_PAGE);
    let protocol = if wide { Protocol::Linux64 } else { Protocol::Linux32 };
    Ok(Loaded { protocol, state, kernel: place, initrd })
}

/// Where the kernel goes, with the room that it needs to unpack itself.
fn place(request: &Request<'_>, header: &setup_header, code: u64) -> Result<Range<u64>, LoadError> {
    let end = low_ram_end(request.memory);
    let modern = header.version >= 0x20a;
    let size = if modern { u64::from(header.init_size).max(code) } else { code };
    let start = if modern && header.pref_address >= HIGH { header.pref_address } else { HIGH };
    match start.checked_add(size) {
        Some(last) if last <= end => Ok(start..last),
        _ => Err(LoadError::MemoryTooSmall {
            what: "kernel",
            needed_mib: start.saturating_add(size).div_ceil(1 << 20),
            available_mib: end >> 20,
        }),
    }
}

/// Loads the initial RAM disk, as high as there is room for it.
fn initrd(request: &Request<'_>, header: &setup_header, kernel: &Range<u64>) -> Result<Option<Range<u64>>, LoadError> {
    const WHAT: &str = "initial RAM disk";
    let Some(path) = request.initrd else { return Ok(None) };
    let (file, length) = open(path, WHAT)?;
    let end = low_ram_end(request.memory);
    let top = end.min(u64::from(header.initrd_addr_max).max(HIGH) + 1);
    let start = top.checked_sub(length).map(|start| start & !0xfff);
    let Some(start) = start.filter(|&start| start >= kernel.end) else {
        return Err(LoadError::MemoryTooSmall {
            what: WHAT,
            needed_mib: kernel.end.saturating_add(length).saturating_add(0xfff).div_ceil(1 << 20),
            available_mib: end >> 20,
        });
    };
    copy_file(request.memory, path, WHAT, file, length, start)?;
    Ok(Some(start..start + length))
}
