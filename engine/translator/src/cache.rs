//! Memory for generated code: one memfd, mapped twice.
//!
//! Code is written through one mapping and runs from another, so that no address is ever both writable and executable.
//! There are two areas, for code that runs often and for code that runs rarely. Space in each is handed out front to
//! back; when one is used up the owner stops all vCPUs and starts over ([`CodeCache::reset`]). The stubs that were
//! emitted first are kept.
#![expect(unsafe_code, reason = "maps memory and writes machine code into it")]
// UNSAFETY: this file owns both mappings; bounds are checked on each write.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cache. Addresses are those of the executable mapping.
pub struct CodeCache {
    execute: *mut u8,
    write: *mut u8,
    size: usize,
    /// The end of what is used of the hot area, and of the cold one, which begins at `split`.
    used: usize,
    used_cold: usize,
    split: usize,
    /// Where the stubs end.
    kept: usize,
}

/// How much of the cache is for hot code: its share, in sixteenths, of what a block takes on average.
const HOT_SHARE: usize = 6;

// SAFETY: the mappings belong to the cache; writes are through `&mut self`.
unsafe impl Send for CodeCache {}

impl CodeCache {
    /// Maps `size` bytes, rounded up to whole pages.
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.next_multiple_of(4096);
        let split = size / 16 * HOT_SHARE & !63;
        // SAFETY: plain system calls; results are checked.
        unsafe {
            let fd = libc::memfd_create(c"lodge-code".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let map = |protection| libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0);
            let sized = libc::ftruncate(fd, size as libc::off_t) == 0;
            let write = if sized { map(libc::PROT_READ | libc::PROT_WRITE) } else { libc::MAP_FAILED };
            let execute = if sized { map(libc::PROT_READ | libc::PROT_EXEC) } else { libc::MAP_FAILED };
            let error = io::Error::last_os_error();
            libc::close(fd);
            let cache =
                Self { execute: execute.cast(), write: write.cast(), size, used: 0, used_cold: split, split, kept: 0 };
            if write == libc::MAP_FAILED || execute == libc::MAP_FAILED {
                return Err(error);
            }
            Ok(cache)
        }
    }

    /// The executable range.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.execute as u64..self.execute as u64 + self.size as u64
    }

    /// Where the cold area begins.
    pub fn cold_start(&self) -> u64 {
        self.execute as u64 + self.split as u64
    }

    /// Where the next hot and the next cold code will run.
    pub fn next(&self) -> (u64, u64) {
        (self.execute as u64 + self.used as u64, self.execute as u64 + self.used_cold as u64)
    }

    /// Bytes used.
    pub fn used(&self) -> usize {
        self.used + (self.used_cold - self.split)
    }

    /// Bytes left in the fuller area.
    pub fn left(&self) -> usize {
        (self.split - self.used).min(self.size - self.used_cold)
    }

    /// Appends code that was emitted for [`CodeCache::next`]. `false`: it does not fit.
    pub fn push(&mut self, (hot, cold): (&[u8], &[u8])) -> bool {
        if hot.len() > self.split - self.used || cold.len() > self.size - self.used_cold {
            return false;
        }
        // SAFETY: both fit, as just checked.
        unsafe {
            std::ptr::copy_nonoverlapping(hot.as_ptr(), self.write.add(self.used), hot.len());
            std::ptr::copy_nonoverlapping(cold.as_ptr(), self.write.add(self.used_cold), cold.len());
        }
        self.used = (self.used + hot.len()).next_multiple_of(16).min(self.split);
        self.used_cold = (self.used_cold + cold.len()).next_multiple_of(8).min(self.size);
        true
    }

    /// Keeps what has been pushed so far over [`CodeCache::reset`].
    pub fn keep(&mut self) {
        self.kept = self.used;
    }

    /// Forgets all code but the stubs. No vCPU may be in it.
    pub fn reset(&mut self) {
        self.used = self.kept;
        self.used_cold = self.split;
    }

    /// Whether the `length` bytes at `offset` have been handed out.
    fn is_used(&self, offset: usize, length: usize) -> bool {
        let end = offset + length;
        if offset < self.split { end <= self.used } else { end <= self.used_cold }
    }

    /// Replaces the aligned eight bytes at `address` at once, with respect to all processors.
    pub fn patch(&mut self, address: u64, bytes: [u8; 8]) {
        let offset = (address - self.execute as u64) as usize;
        assert!(offset.is_multiple_of(8) && self.is_used(offset, 8));
        // SAFETY: aligned and within what has been written.
        let cell = unsafe { AtomicU64::from_ptr(self.write.add(offset).cast()) };
        cell.store(u64::from_le_bytes(bytes), Ordering::SeqCst);
    }

    /// What has been written at `address`.
    pub fn read(&self, address: u64, length: usize) -> &[u8] {
        let offset = (address - self.execute as u64) as usize;
        assert!(self.is_used(offset, length));
        // SAFETY: within what has been written; data among the code are never patched.
        unsafe { std::slice::from_raw_parts(self.write.add(offset), length) }
    }

    /// The eight bytes at an aligned address.
    pub fn peek(&self, address: u64) -> [u8; 8] {
        let offset = (address - self.execute as u64) as usize;
        assert!(offset.is_multiple_of(8) && self.is_used(offset, 8));
        // SAFETY: aligned and within what has been written.
        let cell = unsafe { AtomicU64::from_ptr(self.write.add(offset).cast()) };
        cell.load(Ordering::SeqCst).to_le_bytes()
    }
}

impl Drop for CodeCache {
    fn drop(&mut self) {
        // SAFETY: both were mapped with this size, and no vCPU is left.
        unsafe {
            libc::munmap(self.execute.cast(), self.size);
            libc::munmap(self.write.cast(), self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_from_where_it_was_written_and_can_be_patched() {
        let mut cache = CodeCache::new(8192).unwrap();
        let (entry, cold) = cache.next();
        assert!(cache.push((&[0xb8, 42, 0, 0, 0, 0xc3, 0x90, 0x90], &[0xb8, 9, 0, 0, 0, 0xc3])));
        // SAFETY: `mov eax, imm; ret` follows the C calling convention.
        let functions: [extern "C" fn() -> u32; 2] = unsafe { [entry, cold].map(|at| std::mem::transmute(at)) };
        assert_eq!(functions.map(|function| function()), [42, 9]);
        cache.patch(entry, [0xb8, 7, 0, 0, 0, 0xc3, 0x90, 0x90]);
        assert_eq!(cache.peek(entry)[1], 7);
        assert_eq!(functions[0](), 7);
        assert!(!cache.push((&[0; 8192], &[])));
        assert!(!cache.push((&[], &[0; 8192])));
    }
}
