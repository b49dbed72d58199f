//! What the kernel knows of a process besides its mappings, and what has to be taken back before they go: restartable
//! sequences ([`Sequences`]), the vDSO ([`KernelsPages`]) and signals ([`Signals`]). Each gives back what it took when it
//! is dropped. [`Facts`] is what is only read.
#![expect(unsafe_code, reason = "system calls that say where the kernel finds things in memory")]
// UNSAFETY: each call leads to memory that outlives it, or takes away what led to memory; the thread is the only one.

use std::arch::asm;
use std::io;
use std::ops::Range;

use crate::Error;
use crate::maps::Area;
use crate::memory::{Reservation, move_pages};
use crate::stack::Auxiliary;

const AUXILIARY: &str = "/proc/self/auxv";
const STAT: &str = "/proc/self/stat";

/// What can be read of the process.
#[derive(Debug)]
pub struct Facts {
    pub auxiliary: Vec<Auxiliary>,
}

impl Facts {
    /// Reads them, and refuses a process that cannot be started over.
    pub fn read() -> Result<Self, Error> {
        let malformed = |path: &str, what| Error::Malformed { path: path.into(), what };
        let stat = std::fs::read(STAT).map_err(Error::unreadable(STAT))?;
        let stat = String::from_utf8_lossy(&stat);
        // The second field may hold anything, and is in parentheses; fields are counted from 1 (proc(5)).
        let (_, fields) = stat.rsplit_once(')').ok_or_else(|| malformed(STAT, "there is no name"))?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let threads = field(20).ok_or_else(|| malformed(STAT, "there is no number of threads"))?;

        let bytes = std::fs::read(AUXILIARY).map_err(Error::unreadable(AUXILIARY))?;
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0);
        let entries = bytes.chunks_exact(16).map(|entry| (word(&entry[..8]), word(&entry[8..])));
        let auxiliary: Vec<_> = entries.take_while(|(kind, _)| *kind != libc::AT_NULL).collect();

        let facts = Self { auxiliary };
        if threads != 1 {
            return Err(Error::Threads(threads));
        }
        if facts.auxiliary(libc::AT_SECURE).is_some_and(|secure| secure != 0) {
            return Err(Error::Privileged);
        }
        if limit(libc::RLIMIT_AS) != libc::RLIM_INFINITY {
            return Err(Error::AddressSpaceLimit);
        }
        if has_shadow_stack() { Err(Error::ShadowStack) } else { Ok(facts) }
    }

    /// The value of an entry of the auxiliary vector.
    pub fn auxiliary(&self, kind: u64) -> Option<u64> {
        self.auxiliary.iter().find(|entry| entry.0 == kind).map(|entry| entry.1)
    }

    /// The string that an entry leads to.
    pub fn auxiliary_string(&self, kind: u64) -> Option<Vec<u8>> {
        let at = self.auxiliary(kind).filter(|at| *at != 0)?;
        // SAFETY: the kernel puts strings there before it starts a program, and nobody has reason to take them away.
        let string = unsafe { std::ffi::CStr::from_ptr(std::ptr::with_exposed_provenance(at as usize)) };
        Some(string.to_bytes_with_nul().to_vec())
    }
}

/// The soft limit of a resource.
pub fn limit(resource: libc::__rlimit_resource_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel fills the structure in, or leaves it.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_cur
}

/// Random numbers.
pub fn random<const N: usize>() -> Result<[u64; N], Error> {
    let mut numbers = [0_u64; N];
    let length = size_of_val(&numbers);
    // SAFETY: the buffer has this length.
    let got = unsafe { libc::getrandom(numbers.as_mut_ptr().cast(), length, 0) };
    if usize::try_from(got).ok() == Some(length) {
        Ok(numbers)
    } else {
        Err(Error::Refused { what: "random numbers", source: io::Error::last_os_error() })
    }
}

/// The environment as it is now, with what is no `NAME=value` too.
pub fn environment() -> Vec<Vec<u8>> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut strings = Vec::new();
    // SAFETY: the C library's list of strings ends with a null pointer; no other thread changes it.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            strings.push(std::ffi::CStr::from_ptr(*entry).to_bytes().to_vec());
            entry = entry.add(1);
        }
    }
    strings
}

/// Linux, arch/x86/include/uapi/asm/prctl.h.
const ARCH_SHSTK_STATUS: libc::c_long = 0x5005;

fn has_shadow_stack() -> bool {
    let mut features = 0_u64;
    // SAFETY: the kernel fills the number in, or refuses.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SHSTK_STATUS, &raw mut features) };
    result == 0 && features != 0
}

/// The vDSO and its data, moved.
#[derive(Debug)]
pub struct KernelsPages {
    /// From where to where.
    moved: Vec<(Range<u64>, u64)>,
}

impl KernelsPages {
    /// The addresses that they cover together: the vDSO finds its data by their distance.
    pub fn span(areas: &[Area]) -> Range<u64> {
        let mut ours = areas.iter().filter(|area| area.is_kernels()).map(|area| &area.range);
        let first = ours.next().cloned().unwrap_or(0..0);
        ours.fold(first, |all, range| all.start.min(range.start)..all.end.max(range.end))
    }

    /// Moves them so that what was at the start of their span is at `to`, which is in `place`.
    pub fn move_to(areas: &[Area], place: &Reservation, to: u64) -> Result<Self, Error> {
        let span = Self::span(areas);
        assert!(place.range().start <= to && to + (span.end - span.start) <= place.range().end, "no room");
        let mut pages = Self { moved: Vec::new() };
        for area in areas.iter().filter(|area| area.is_kernels()) {
            let new = area.range.start - span.start + to;
            move_pages(&area.range, new).map_err(Error::refused("to have its vDSO moved"))?;
            pages.moved.push((area.range.clone(), new));
        }
        Ok(pages)
    }
}

impl Drop for KernelsPages {
    fn drop(&mut self) {
        for (old, new) in self.moved.drain(..).rev() {
            // They were there, and what was moved once can be moved again.
            let back = move_pages(&(new..new + (old.end - old.start)), old.start);
            debug_assert!(back.is_ok(), "{back:?}");
        }
    }
}

/// The thread's area for restartable sequences, which the C library registers and the kernel writes to, taken away.
#[derive(Debug)]
pub struct Sequences {
    /// Address and bytes of the area, if there was any.
    registered: Option<(u64, u64)>,
}

/// What the C library on x86 registers areas with (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h).
const SIGNATURE: u64 = 0x5305_3053;
/// Linux, include/uapi/linux/rseq.h.
const RSEQ_FLAG_UNREGISTER: u64 = 1;
/// Bytes that every kernel knows.
const LEAST: u64 = 32;
/// Linux, include/uapi/linux/auxvec.h.
const AT_RSEQ_FEATURE_SIZE: u64 = 27;

impl Sequences {
    /// Takes it away.
    pub fn unregister(facts: &Facts) -> Result<Self, Error> {
        let Some((area, size)) = Self::area() else { return Ok(Self { registered: None }) };
        // Which length was registered depends on the C library's version: the least, the size that it tells, or what the
        // kernel can use, rounded up.
        let features = facts.auxiliary(AT_RSEQ_FEATURE_SIZE).unwrap_or(LEAST);
        let lengths = [LEAST, size, features, features.next_multiple_of(LEAST)];
        let mut result = Ok(());
        for length in lengths {
            result = Self::call(area, length, RSEQ_FLAG_UNREGISTER);
            if result.is_ok() {
                return Ok(Self { registered: Some((area, length)) });
            }
        }
        result.map_err(Error::refused("to forget the restartable sequences"))?;
        Ok(Self { registered: None })
    }

    /// Where glibc (2.35 and later) says that it is; nowhere for others, which register none.
    fn area() -> Option<(u64, u64)> {
        // SAFETY: looks names up, without an effect.
        let [offset, size] =
            [c"__rseq_offset", c"__rseq_size"].map(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
        if offset.is_null() || size.is_null() {
            return None;
        }
        let thread: u64;
        // SAFETY: of these types by the C library's manual, section "Restartable Sequences"; the thread pointer is at the
        // FS base, by the ABI.
        let (offset, size) = unsafe {
            asm!("mov {}, fs:[0]", out(reg) thread, options(nostack, preserves_flags, readonly));
            (*offset.cast::<isize>(), *size.cast::<u32>())
        };
        (size != 0).then(|| (thread.wrapping_add_signed(offset as i64), u64::from(size)))
    }

    fn call(area: u64, length: u64, flags: u64) -> io::Result<()> {
        // SAFETY: the area is the C library's own, and lasts as long as the thread.
        match unsafe { libc::syscall(libc::SYS_rseq, area, length, flags, SIGNATURE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Sequences {
    fn drop(&mut self) {
        if let Some((area, length)) = self.registered {
            // The C library does without, if need be.
            let _ = Self::call(area, length, 0);
        }
    }
}

/// The kernel's structure, other than the C library's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Handlers of signals and their stack, taken away; what is ignored stays so, as with execve(2).
#[derive(Debug)]
pub struct Signals {
    handled: Vec<(libc::c_int, Action)>,
    stack: libc::stack_t,
}

const LAST_SIGNAL: libc::c_int = 64;

impl Signals {
    /// Takes them away.
    pub fn reset() -> Self {
        let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        let mut signals = Self { handled: Vec::with_capacity(8), stack: none };
        let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
        for number in 1..=LAST_SIGNAL {
            let mut old = default;
            Self::action(number, None, Some(&mut old));
            if ![libc::SIG_DFL, libc::SIG_IGN].contains(&old.handler) {
                signals.handled.push((number, old));
                Self::action(number, Some(&default), None);
            }
        }
        // SAFETY: nothing runs on the stack for signals: this is no handler.
        unsafe { libc::sigaltstack(&raw const none, &raw mut signals.stack) };
        signals
    }

    /// The system call rather than the C library's function, which does not know the signals that it uses itself.
    fn action(number: libc::c_int, new: Option<&Action>, old: Option<&mut Action>) {
        let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
        let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: either null or such a structure, and what is set is the default or what was set before.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, new, old, size_of::<u64>()) };
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the stack that was set before.
        unsafe { libc::sigaltstack(&raw const self.stack, std::ptr::null_mut()) };
        for (number, action) in &self.handled {
            Self::action(*number, Some(action), None);
        }
    }
}
