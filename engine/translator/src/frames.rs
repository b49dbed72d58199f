//! The stack that emitted code runs on: return addresses of guest calls, paired with the host's.
//!
//! A guest CALL becomes a host CALL, so that the processor predicts the guest's return. Each leaves a *frame* of 16
//! bytes: the linear address to which the guest is expected to return, and the host address of the *landing* behind the
//! call. A guest RET loads its target and does a host RET; the landing compares. What does not match goes through the
//! jump cache, and the stack starts over. It also starts over whenever emitted code is left, so nothing in it outlives
//! a change of mode or mapping.
//!
//! At the bottom of an empty stack lies the address of the mode's *underflow* stub. Below the last frame is a guard
//! page: a push into it is a host fault, which the dispatcher takes as "start over".
#![expect(unsafe_code, reason = "maps a stack with a guard page")]
// UNSAFETY: one mapping, owned; the one slot that Rust writes is in bounds.

use std::io;
use std::ops::Range;

/// Bytes of frames.
const SIZE: usize = 64 << 10;
/// Bytes of the guard.
const GUARD: usize = 4096;

/// A vCPU's stack of frames.
pub struct Frames {
    base: *mut u8,
}

impl Frames {
    /// Maps one.
    pub fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: plain system calls; results are checked.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let base = libc::mmap(std::ptr::null_mut(), GUARD + SIZE, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let frames = Self { base: base.cast() };
            if libc::mprotect(base, GUARD, libc::PROT_NONE) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(frames)
        }
    }

    /// The stack pointer of an empty stack, 16-aligned; the underflow address lies there.
    pub fn top(&self) -> u64 {
        self.base as u64 + (GUARD + SIZE - 64) as u64
    }

    /// Sets where a return from the empty stack goes.
    pub fn set_underflow(&mut self, stub: u64) {
        // SAFETY: 64 bytes below the end of the mapping.
        unsafe { self.base.add(GUARD + SIZE - 64).cast::<u64>().write(stub) };
    }

    /// The guard's addresses.
    pub fn guard(&self) -> Range<u64> {
        self.base as u64..self.base as u64 + GUARD as u64
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and the vCPU that used it is gone.
        unsafe { libc::munmap(self.base.cast(), GUARD + SIZE) };
    }
}
