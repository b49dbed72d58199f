//! Guest physical memory at direct boot: where the loaders' own data lie, and the map that guests are told.
//!
//! ```text
//! 0x00500  global descriptor table
//! 0x06000  PVH start information, modules, memory map
//! 0x07000  Linux boot parameters ("zero page")
//! 0x08000  Multiboot information, modules, memory map, names
//! 0x09000  page tables: 4 GiB, identical, 2 MiB pages
//! 0x20000  command line, at most 64 KiB
//! 0x9fc00  reserved, as a BIOS has its extended data there
//! 0xa0000  VGA, no RAM
//! 0xe0000  reserved: ACPI tables
//! 1 MiB    kernel and initial RAM disk, up to at most 3 GiB
//! 4 GiB    the rest of RAM
//! ```

use std::ops::Range;

use lodge_engine_api::{GuestMemory, NOWHERE};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// Global descriptor table.
pub(crate) const GDT: u64 = 0x500;
/// PVH start information.
pub(crate) const START_INFO: u64 = 0x6000;
/// PVH module list.
pub(crate) const START_INFO_MODULES: u64 = 0x6040;
/// PVH memory map.
pub(crate) const START_INFO_MAP: u64 = 0x6100;
/// Linux boot parameters.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// Multiboot information.
pub(crate) const MULTIBOOT_INFO: u64 = 0x8000;
/// Multiboot module list.
pub(crate) const MULTIBOOT_MODULES: u64 = 0x8080;
/// Multiboot names.
pub(crate) const MULTIBOOT_NAME: u64 = 0x80c0;
/// Multiboot memory map.
pub(crate) const MULTIBOOT_MAP: u64 = 0x8100;
/// Page tables.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
/// Command line.
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line, without its final NUL.
pub(crate) const COMMAND_LINE_MAX: usize = 0xffff;
/// All of the above: no kernel may be loaded here.
pub(crate) const BOOT_DATA: Range<u64> = GDT..0x3_0000;

/// Where the extended BIOS data area would be; conventional memory ends here.
pub const EBDA: u64 = 0x9_fc00;
/// Where VGA memory begins and RAM has a hole.
pub const VGA: Range<u64> = 0xa_0000..0xc_0000;
/// Where ACPI tables lie. Reserved in the map.
pub const FIRMWARE: Range<u64> = 0xe_0000..0x10_0000;
/// Where memory above conventional memory begins.
pub const HIGH: u64 = 0x10_0000;
/// Where there is never RAM: PCI devices, the APICs, flash.
pub const DEVICE_HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;

/// What memory is for. The numbers are the E820 types (ACPI 6.5 table 15.374).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// Free for use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// The first address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What it is for.
    pub kind: MapKind,
}

/// The memory map that a guest is told, in order.
pub fn memory_map(memory: &GuestMemory) -> Vec<MapEntry> {
    let mut map = Vec::new();
    let mut add = |kind, range: Range<u64>| {
        if !range.is_empty() {
            map.push(MapEntry { start: range.start, length: range.end - range.start, kind });
        }
    };
    for region in memory.iter() {
        let start = region.start_addr().raw_value();
        let end = start.saturating_add(region.len());
        let cut = |range: Range<u64>| range.start.max(start)..range.end.min(end);
        add(MapKind::Ram, cut(0..EBDA));
        add(MapKind::Reserved, cut(EBDA..VGA.start));
        add(MapKind::Reserved, cut(FIRMWARE));
        add(MapKind::Ram, cut(HIGH..DEVICE_HOLE.start));
        add(MapKind::Ram, cut(DEVICE_HOLE.end..NOWHERE));
    }
    map
}

/// Where RAM that begins at 1 MiB ends, at most at the hole below 4 GiB.
pub(crate) fn low_ram_end(memory: &GuestMemory) -> u64 {
    memory_map(memory)
        .iter()
        .find(|entry| entry.start == HIGH)
        .map_or(HIGH, |entry| (entry.start + entry.length).min(DEVICE_HOLE.start))
}

#[cfg(test)]
pub(crate) mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    /// Guest memory as `vm` lays it out, `mib` below 4 GiB and one above.
    pub(crate) fn memory(mib: usize) -> GuestMemory {
        GuestMemory::from_ranges(&[
            (GuestAddress(0), 0xa_0000),
            (GuestAddress(0xc_0000), (mib << 20) - 0xc_0000),
            (GuestAddress(4 << 30), 1 << 20),
            // Video memory, which is not RAM, and lies where its card is told to.
            (GuestAddress(NOWHERE), 1 << 20),
        ])
        .expect("the host has so much memory")
    }

    #[test]
    fn the_map_leaves_out_what_is_not_ram() {
        let map: Vec<_> = memory_map(&memory(16)).iter().map(|e| (e.start, e.start + e.length, e.kind)).collect();
        assert_eq!(
            map,
            [
                (0, 0x9_fc00, MapKind::Ram),
                (0x9_fc00, 0xa_0000, MapKind::Reserved),
                (0xe_0000, 0x10_0000, MapKind::Reserved),
                (0x10_0000, 16 << 20, MapKind::Ram),
                (4 << 30, (4 << 30) + (1 << 20), MapKind::Ram),
            ]
        );
        assert_eq!(low_ram_end(&memory(16)), 16 << 20);
    }
}
