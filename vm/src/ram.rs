//! Guest RAM: one memfd, mapped with a hole for VGA and one for devices below 4 GiB.
//!
//! The memfd's offsets are those of the guest up to the device hole, and go on without a gap above it. What lies in the
//! file where VGA memory is stays unused. ROM follows, then video memory: a region of its own that is nowhere until its card
//! is told where.

use std::fs::File;
use std::ops::Range;

use lodge_boot::layout::{DEVICE_HOLE, VGA};
use lodge_engine_api::{GuestMemory, NOWHERE};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::VmError;

/// Least RAM in bytes.
pub const MEMORY_MIN: u64 = 2 << 20;
/// Most RAM in bytes.
pub const MEMORY_MAX: u64 = 512 << 30;
/// RAM comes in pages.
const PAGE: u64 = 4096;
/// Above the devices.
const ABOVE: u64 = DEVICE_HOLE.end;
/// Where the board itself has what no BAR may cover: interrupt controllers, timers, the ROM.
const BOARD: Range<u64> = 0xfec0_0000..DEVICE_HOLE.end;
/// Bytes of video memory that most machines have.
pub const VIDEO_MEMORY: u64 = 16 << 20;

/// Makes guest RAM of `bytes`, a ROM of `rom` bytes below 4 GiB and `video` bytes of video memory, all zero; the host gives
/// pages as they are touched.
///
/// # Errors
///
/// The size is out of range, or the host has no memory or address space for it.
pub fn create(bytes: u64, rom: u64, video: u64) -> Result<GuestMemory, VmError> {
    let video_sound = video == 0 || video.is_power_of_two() && lodge_display::VIDEO_MEMORY_SIZES.contains(&video);
    if !video_sound {
        return Err(VmError::VideoMemorySize { bytes: video });
    }
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) || !bytes.is_multiple_of(PAGE) {
        return Err(VmError::MemorySize { bytes });
    }
    let failed = |source: std::io::Error| VmError::Memory { mib: bytes >> 20, source };
    let memfd = memfd_create("lodge-ram", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    ftruncate(&memfd, bytes + rom + video).map_err(|error| failed(error.into()))?;
    let file = File::from(memfd);

    let mut ranges = Vec::new();
    for (start, length, offset) in split(bytes, rom, video) {
        let file = file.try_clone().map_err(failed)?;
        let length = usize::try_from(length).map_err(|error| failed(std::io::Error::other(error)))?;
        ranges.push((GuestAddress(start), length, Some(FileOffset::new(file, offset))));
    }
    GuestMemory::from_ranges_with_files(ranges).map_err(|error| failed(std::io::Error::other(error)))
}

/// How much of `bytes` of RAM lies below and above 4 GiB.
pub fn sizes(bytes: u64) -> (u64, u64) {
    let low = bytes.min(DEVICE_HOLE.start);
    (low, bytes - low)
}

/// The region of video memory: its number, and the addresses where it must never be. `None`: there is none.
pub fn video(memory: &GuestMemory) -> Option<(usize, Vec<Range<u64>>)> {
    let range = |region: &<GuestMemory as GuestMemoryBackend>::R| {
        let start = region.start_addr().raw_value();
        start..start.saturating_add(region.len())
    };
    let number = memory.iter().position(|region| region.start_addr().raw_value() == NOWHERE)?;
    let others = memory.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, region)| range(region));
    Some((number, others.chain([VGA, BOARD]).collect()))
}

/// Where RAM, ROM and video memory lie: (guest address, bytes, offset in the file).
fn split(bytes: u64, rom: u64, video: u64) -> Vec<(u64, u64, u64)> {
    let (low, high) = sizes(bytes);
    let mut ranges = vec![(0, VGA.start, 0), (VGA.end, low - VGA.end, VGA.end)];
    if rom > 0 {
        ranges.push((ABOVE - rom, rom, bytes));
    }
    if high > 0 {
        ranges.push((ABOVE, high, low));
    }
    if video > 0 {
        ranges.push((NOWHERE, video, bytes + rom));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn ram_has_its_holes() {
        assert_eq!(split(64 << 20, 0, 0), [(0, 0xa_0000, 0), (0xc_0000, (64 << 20) - 0xc_0000, 0xc_0000)]);
        assert_eq!(split(5 << 30, 0, 0)[2], (4 << 30, 2 << 30, 3 << 30));
        assert_eq!(split(3 << 30, 0, 0).len(), 2);
        assert_eq!(split(3 << 30, 0x4_0000, 0)[2], (0xfffc_0000, 0x4_0000, 3 << 30));
        let memory = create(5 << 30, 0, 0).unwrap();
        for (address, there) in [
            (0x9_fff0, true),
            (0xa_0000, false),
            (0xb_ffff, false),
            (0xc_0000, true),
            (0xbfff_ffff, true),
            (0xc000_0000, false),
            (0xffff_ffff, false),
            (0x1_0000_0000, true),
            (0x1_7fff_ffff, true),
            (0x1_8000_0000, false),
        ] {
            assert_eq!(memory.address_in_range(GuestAddress(address)), there, "{address:#x}");
        }
        memory.write_obj(7u64, GuestAddress(0x1_7fff_fff8)).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1_7fff_fff8)).unwrap(), 7);
    }

    #[test]
    fn video_memory_is_nowhere_and_may_not_cover_the_rest() {
        assert_eq!(video(&create(64 << 20, 0x4_0000, 0).unwrap()), None);
        assert_eq!(split(5 << 30, 0x4_0000, 16 << 20)[4], (NOWHERE, 16 << 20, (5 << 30) + 0x4_0000));
        let memory = create(5 << 30, 0x4_0000, 16 << 20).unwrap();
        let (number, taken) = video(&memory).unwrap();
        assert_eq!(number, 4);
        let covers = |address: u64| taken.iter().any(|range| range.contains(&address));
        for address in [0, 0xa_0000, 0xc_0000, 0xbfff_ffff, 0xfec0_0000, 0xfee0_0000, 0xffff_ffff, 0x1_7fff_ffff] {
            assert!(covers(address), "{address:#x}");
        }
        assert!(!covers(0xc000_0000) && !covers(0xfebf_ffff) && !covers(NOWHERE));
        memory.write_obj(7u64, GuestAddress(NOWHERE + (16 << 20) - 8)).unwrap();
        for bytes in [1 << 19, 3 << 20, 512 << 20, u64::MAX] {
            assert!(matches!(create(64 << 20, 0, bytes), Err(VmError::VideoMemorySize { .. })), "{bytes}");
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for bytes in [0, MEMORY_MIN - 1, (64 << 20) + 1, MEMORY_MAX + PAGE, u64::MAX] {
            assert!(matches!(create(bytes, 0, 0), Err(VmError::MemorySize { .. })), "{bytes}");
        }
    }
}
