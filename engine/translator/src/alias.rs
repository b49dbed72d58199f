//! Guest RAM mapped again where emitted code can use it best: at a low host address, in the arena ([`lodge_arena`]).
//!
//! The FS base that makes a guest's stack addresses host addresses is the difference of the two
//! ([`crate::emit::plan`]), and must be canonical. For stacks in the upper half, where kernels have theirs, it is only
//! if the host address is low. Where no low place is to be had, the mapping that the machine made serves, and such
//! stacks do without a window.
#![expect(unsafe_code, reason = "maps memory")]
// UNSAFETY: new mappings at addresses where nothing is; owned, and unmapped with their owner.

use std::os::fd::AsRawFd;

use lodge_arena::USABLE;
use lodge_engine_api::NOWHERE;
use vm_memory::FileOffset;

/// Distance of places to try, from the arena's start up: the kernel places all else from its end down.
const DISTANCE: usize = 64 << 30;

/// One region's second mapping.
pub struct Alias {
    host: *mut u8,
    length: usize,
}

impl Alias {
    /// Maps regions of (guest physical address, bytes, file) so that all have the same distance to their guest
    /// address, but for those that are nowhere: they have none. `None`: there is no such place.
    pub fn of_all(regions: &[(u64, usize, FileOffset)]) -> Option<Vec<Option<Self>>> {
        let places = (USABLE.start..USABLE.end).step_by(DISTANCE);
        let at = |base, region: &(u64, usize, FileOffset)| match region.0 {
            NOWHERE => Some(None),
            _ => Self::new(base, region).map(Some),
        };
        places.into_iter().find_map(|base| regions.iter().map(|region| at(base, region)).collect())
    }

    fn new(base: u64, (start, length, file): &(u64, usize, FileOffset)) -> Option<Self> {
        let at = base
            .checked_add(*start)
            .filter(|at| at.checked_add(*length as u64).is_some_and(|end| end <= USABLE.end))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        let offset = libc::off_t::try_from(file.start()).ok()?;
        // SAFETY: a new mapping where nothing is mapped; the result is checked.
        let host = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(at as usize),
                *length,
                protection,
                flags,
                file.file().as_raw_fd(),
                offset,
            )
        };
        if host == libc::MAP_FAILED {
            return None;
        }
        // A child process has no business there. If the host does not heed that, no harm is done.
        // SAFETY: the new mapping.
        unsafe { libc::madvise(host, *length, libc::MADV_DONTFORK) };
        Some(Self { host: host.cast(), length: *length })
    }

    /// Where the region begins on the host.
    pub fn host(&self) -> *mut u8 {
        self.host
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nobody holds a pointer any more.
        unsafe { libc::munmap(self.host.cast(), self.length) };
    }
}
