//! PVH: an ELF image with a 32-bit entry point in a Xen note, and start information for it (Xen's
//! docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h). Linux, FreeBSD and unikernels have it.

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use lodge_x86::Gpr;
use vm_memory::ByteValued;

use crate::image::{Image, command_line, copy_file, open, write};
use crate::layout::{
    COMMAND_LINE, COMMAND_LINE_MAX, START_INFO, START_INFO_MAP, START_INFO_MODULES, low_ram_end, memory_map,
};
use crate::{LoadError, Loaded, Protocol, Request, elf, entry};

/// `hvm_start_info::magic`.
const MAGIC: u32 = 0x336e_c578;

/// Loads a PVH image and its module.
pub(crate) fn load(request: &Request<'_>, image: &Image, entry_point: u32) -> Result<Loaded, LoadError> {
    const WHAT: &str = "initial RAM disk";
    let memory = request.memory;
    let kernel = elf::load_segments(memory, image)?;
    write(memory, COMMAND_LINE, &command_line(request.command_line, COMMAND_LINE_MAX)?)?;

    let mut initrd = None;
    if let Some(path) = request.initrd {
        let (file, length) = open(path, WHAT)?;
        let end = low_ram_end(memory);
        let start = end.checked_sub(length).map(|start| start & !0xfff).filter(|start| *start >= kernel.end);
        let Some(start) = start else {
            let needed_mib = kernel.end.saturating_add(length).saturating_add(0xfff).div_ceil(1 << 20);
            return Err(LoadError::MemoryTooSmall { what: WHAT, needed_mib, available_mib: end >> 20 });
        };
        copy_file(memory, path, WHAT, file, length, start)?;
        let module = hvm_modlist_entry { paddr: start, size: length, ..Default::default() };
        write(memory, START_INFO_MODULES, module.as_slice())?;
        initrd = Some(start..start + length);
    }

    let map = memory_map(memory);
    for (address, entry) in (START_INFO_MAP..).step_by(size_of::<hvm_memmap_table_entry>()).zip(&map) {
        // The types are those of E820.
        let entry =
            hvm_memmap_table_entry { addr: entry.start, size: entry.length, type_: entry.kind as u32, reserved: 0 };
        write(memory, address, entry.as_slice())?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: initrd.iter().len() as u32,
        modlist_paddr: if initrd.is_some() { START_INFO_MODULES } else { 0 },
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: request.rsdp.unwrap_or(0),
        memmap_paddr: START_INFO_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    write(memory, START_INFO, info.as_slice())?;

    let mut state = entry::protected_mode(memory, u64::from(entry_point))?;
    entry::set(&mut state, Gpr::Rbx, START_INFO);
    Ok(Loaded { protocol: Protocol::Pvh, state, kernel, initrd })
}
