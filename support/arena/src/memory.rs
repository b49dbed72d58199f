//! Makes mappings: [`map`], [`fill`], and the [`Reservation`], which keeps others away and is undone when it is dropped.
#![expect(unsafe_code, reason = "maps memory")]
// UNSAFETY: new mappings go where nothing is or over what a reservation of ours holds, and only such are unmapped or
// written to.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Rounds down to a page.
pub fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// Rounds up to a page.
pub fn page_up(address: u64) -> u64 {
    page_down(address + PAGE - 1)
}

/// What reservations are made with; whoever unmaps by mapping over does it so too.
pub const RESERVE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

fn mmap(range: &Range<u64>, protection: i32, flags: i32, file: Option<(&File, u64)>) -> io::Result<u64> {
    let length = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (descriptor, offset) = file.map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), offset));
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: it replaces nothing (MAP_FIXED_NOREPLACE, or no address at all), or is `fill`, which may.
    let at = unsafe { libc::mmap(at_address(range.start), length, protection, flags, descriptor, offset) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as u64) }
}

fn at_address(address: u64) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Addresses that nobody else can use until this is dropped, nor use what has been mapped in them.
#[derive(Debug)]
pub struct Reservation {
    range: Range<u64>,
}

impl Reservation {
    /// Reserves `range`, which must be free.
    pub fn new(range: Range<u64>) -> io::Result<Self> {
        let at = mmap(&range, libc::PROT_NONE, RESERVE | libc::MAP_FIXED_NOREPLACE, None)?;
        let made = Self { range: at..at + (range.end - range.start) };
        // Kernels older than the flag take the address for a wish; `made` is undone then.
        if at == range.start { Ok(made) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }

    /// Reserves `length` bytes wherever the kernel places them.
    pub fn anywhere(length: u64) -> io::Result<Self> {
        let at = mmap(&(0..length), libc::PROT_NONE, RESERVE, None)?;
        Ok(Self { range: at..at + length })
    }

    /// Where it is.
    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Maps in a part of it: from an offset in a file, or zeros.
    ///
    /// # Panics
    ///
    /// The part is not in it.
    pub fn map(&self, part: Range<u64>, protection: i32, file: Option<(&File, u64)>) -> io::Result<()> {
        self.check(&part);
        if part.is_empty() {
            return Ok(());
        }
        // MAP_STACK keeps huge pages away, which would be touched for a few bytes.
        let kind = if file.is_some() { 0 } else { libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK };
        mmap(&part, protection, libc::MAP_PRIVATE | libc::MAP_FIXED | kind, file).map(drop)
    }

    /// Writes to what [`Self::map`] has mapped for writing.
    ///
    /// # Panics
    ///
    /// It is not in it.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.check(&(at..at + bytes.len() as u64));
        let to: *mut u8 = at_address(at).cast();
        // SAFETY: in this reservation, in which only we map; no reference to it exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn check(&self, part: &Range<u64>) {
        assert!(self.range.start <= part.start && part.end <= self.range.end, "{part:x?} is not in {:x?}", self.range);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let length = (self.range.end - self.range.start) as usize;
        // SAFETY: mapped by us, and used by nobody: it is dropped only where the program is not started over.
        unsafe { libc::munmap(at_address(self.range.start), length) };
    }
}

/// Moves pages of the kernel's to a place in a reservation, or back.
///
/// # Errors
///
/// The kernel has sealed them; they have not been moved.
pub fn move_pages(from: &Range<u64>, to: u64) -> io::Result<()> {
    let length = (from.end - from.start) as usize;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: only for the vDSO and its data, which nobody calls meanwhile, and to where we have reserved or they were.
    let at = unsafe { libc::mremap(at_address(from.start), length, length, flags, at_address(to)) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
