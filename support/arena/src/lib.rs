//! Starts a running program over with all that it has mapped in one small part of its address space, the *arena*, so
//! that the rest belongs to nobody and can be used for mappings at chosen addresses.
//!
//! [`enter`] does for a dynamically linked program what execve(2) does, but in the same process and at other addresses:
//! it maps the program and its dynamic loader afresh, builds a main stack, moves the kernel's own pages (vDSO), covers
//! everything outside the arena with a mapping that nothing can access, and jumps to the loader. As nothing but the
//! arena is free then, whatever the new C library maps has to come to lie there. Arguments, environment, files, working
//! directory, signal mask and process id stay; what is in memory is lost, as it is by execve.
//!
//! ```text
//!          64 KiB  ┌──────────────────────────────┐
//!                  │ reserved: PROT_NONE          │  here others may map with MAP_FIXED
//!         7.5 TiB  ├──────────────────────────────┤ ARENA.start
//!                  │ guard: GUARD bytes, reserved │
//!                  ├──────────────────────────────┤ USABLE.start
//!                  │ free: large mappings at      │
//!                  │ addresses of one's choice    │
//!                  │             ▲                │
//!                  │ the kernel's choice for all  │
//!                  │ mappings, from above down    │
//!                  ├──────────────────────────────┤ random, at most 16 GiB below the next
//!                  │ reserved, and in it, each at │
//!                  ├──────────────────────────────┤ 32 GiB below the next
//!                  │ a random place: program,     │
//!                  │ loader, main stack, vDSO     │
//!                  ├──────────────────────────────┤ USABLE.end
//!                  │ guard: GUARD bytes, reserved │
//!           8 TiB  ├──────────────────────────────┤ ARENA.end
//!                  │ reserved: PROT_NONE          │  here too
//!         128 TiB  └──────────────────────────────┘
//! ```
//!
//! All that can go wrong is done first, and undone if it does: then [`enter`] returns an [`Error`], nothing has changed,
//! and the program goes on where it is. The one step that cannot be undone is the system call that unmaps all of the old
//! program, and it does all or nothing.
//!
//! `preparation` puts the steps together; `image` maps ELF files, `stack` builds a main stack, `kernel` is what the kernel
//! knows of a process besides its mappings, `leap` the code that runs while there is no program, `maps` and `memory` look
//! at mappings and make them.
#![deny(unsafe_code)]

mod error;
mod image;
mod kernel;
mod leap;
mod maps;
mod memory;
mod preparation;
mod stack;

use std::ops::Range;

pub use crate::error::Error;
use crate::preparation::Preparation;

/// Where all of a program that has entered lies: the addresses whose bits 39 and up are 15, which are one entry of a
/// top-level page table.
pub const ARENA: Range<u64> = 0x780_0000_0000..0x800_0000_0000;
/// Bytes at both ends of the arena in which nothing is mapped.
pub const GUARD: u64 = 64 << 30;
/// The arena without its guards.
pub const USABLE: Range<u64> = ARENA.start + GUARD..ARENA.end - GUARD;

/// The program has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is in the arena, and so is all that it has mapped.
    Inside,
}

/// Starts the program over in the arena, or if that has been done, says so.
///
/// Buffers of output that have not been flushed are lost, as is all else that is in memory; so this is best called first
/// thing in `main`. Signals that have handlers get their default action back.
///
/// # Errors
///
/// It cannot be started over; nothing has changed. Or it is in the arena and something is mapped elsewhere.
pub fn enter() -> Result<Entered, Error> {
    if inside() {
        return verify().map(|()| Entered::Inside);
    }
    Err(Preparation::new()?.go())
}

/// Whether [`enter`] would succeed: does all of it but for the last step, and undoes it.
///
/// # Errors
///
/// What [`enter`] would return.
pub fn examine() -> Result<(), Error> {
    if inside() { verify() } else { Preparation::new().map(drop) }
}

/// Whether this program runs in the arena.
#[must_use]
pub fn inside() -> bool {
    // Any address in the program says where it lies.
    ARENA.contains(&(inside as *const () as u64))
}

/// Checks that nothing is mapped outside the arena, or in its guards, but for what cannot be accessed, and that nothing
/// can be read in the kernel's half.
///
/// # Errors
///
/// Something is, or the mappings cannot be listed.
pub fn verify() -> Result<(), Error> {
    for area in maps::all()? {
        match area {
            area if area.is_in_kernel_half() && area.readable => return Err(Error::Vsyscall),
            area if area.is_in_kernel_half() || !area.accessible || area.is_in(&USABLE) => {}
            area => return Err(Error::Outside { at: area.range.start, name: area.name }),
        }
    }
    Ok(())
}

/// Enters before `main`, for programs whose `main` is another's, such as the test harness's. Where that fails the program
/// goes on as if nothing had been said; [`inside`] tells.
#[macro_export]
macro_rules! enter_before_main {
    () => {
        #[expect(unsafe_code, reason = "names a section that the C library calls the functions of, before `main`")]
        #[used]
        #[unsafe(link_section = ".init_array")]
        static ENTER_BEFORE_MAIN: extern "C" fn() = $crate::before_main;
    };
}

/// What [`enter_before_main!`] has called.
#[doc(hidden)]
pub extern "C" fn before_main() {
    // Nobody is there to be told; a panic must not go on into the C library.
    let _ = std::panic::catch_unwind(enter);
}
// UNSAFETY: none here; the macro's expansion opts in where it is used.
