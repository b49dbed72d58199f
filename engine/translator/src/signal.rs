//! Host signals raised in emitted code, which are the guest's exceptions.
//!
//! A SIGSEGV, SIGFPE, SIGILL or SIGBUS whose program counter lies in a code cache is a guest instruction's #GP, #DE,
//! #MF, #XM, #UD or #AC. The handler only notes it in the vCPU's state, which it finds by the GS base, and sends the
//! thread to the stub that leaves emitted code; all else happens in the dispatcher. Anywhere else such a signal is a
//! fault of lodge's own: the handler that was there before gets it, and the process dies loudly.
#![expect(unsafe_code, reason = "installs signal handlers and edits a thread's context")]
// UNSAFETY: handlers touch only the interrupted thread's own vCPU state and atomics.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::cpu::Cpu;

/// Most code caches in one process.
const MAX: usize = 64;

struct Slot {
    start: AtomicU64,
    end: AtomicU64,
    leave: AtomicU64,
}

static SLOTS: [Slot; MAX] =
    [const { Slot { start: AtomicU64::new(0), end: AtomicU64::new(0), leave: AtomicU64::new(0) } }; MAX];
static USED: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: OnceLock<Vec<(i32, usize, libc::c_int)>> = OnceLock::new();
static REGISTER: Mutex<()> = Mutex::new(());

/// The trap number of a page fault.
const PAGE_FAULT: u64 = 14;

const SIGNALS: [i32; 4] = [libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGBUS];

/// Makes faults in `range` the guest's, once [`set_leave`] has said where to send them.
pub fn register(range: Range<u64>) -> io::Result<()> {
    let _guard = REGISTER.lock().unwrap_or_else(|poison| poison.into_inner());
    install()?;
    // A slot whose range was unmapped may be mapped again by a later cache: reuse it by its start.
    let used = USED.load(Ordering::SeqCst);
    let free = (0..used)
        .find(|&n| {
            let (start, end) = (SLOTS[n].start.load(Ordering::SeqCst), SLOTS[n].end.load(Ordering::SeqCst));
            start == end || (start < range.end && range.start < end)
        })
        .unwrap_or(used);
    if free >= MAX {
        return Err(io::Error::other("too many guests in one process"));
    }
    let slot = &SLOTS[free];
    slot.end.store(0, Ordering::SeqCst);
    slot.start.store(range.start, Ordering::SeqCst);
    slot.end.store(range.end, Ordering::SeqCst);
    USED.fetch_max(free + 1, Ordering::SeqCst);
    Ok(())
}

/// Forgets a range: its cache is gone.
pub fn forget(range: &Range<u64>) {
    for slot in &SLOTS {
        if slot.start.load(Ordering::SeqCst) == range.start {
            slot.end.store(0, Ordering::SeqCst);
            slot.start.store(0, Ordering::SeqCst);
        }
    }
}

/// Where to send a thread that faulted in the range that begins at `start`.
pub fn set_leave(start: u64, leave: u64) {
    for slot in &SLOTS {
        if slot.start.load(Ordering::SeqCst) == start {
            slot.leave.store(leave, Ordering::SeqCst);
        }
    }
}

/// Gives the calling thread a stack for signal handlers, for as long as the result lives.
pub fn alternate_stack() -> io::Result<AlternateStack> {
    // AVX-512 state alone is over 2 KiB of a signal frame.
    let mut memory = vec![0u8; 64 << 10].into_boxed_slice();
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory outlives its use: Drop takes it out of service first.
    let mut old = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::sigaltstack(&raw const stack, &raw mut old) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(AlternateStack { old, _memory: memory })
}

/// A thread's stack for signal handlers.
pub struct AlternateStack {
    old: libc::stack_t,
    _memory: Box<[u8]>,
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: gives back what was there before.
        unsafe { libc::sigaltstack(&raw const self.old, std::ptr::null_mut()) };
    }
}

/// Keeps signals that tell of the outside world off the calling thread, as long as the result lives: their handlers
/// would find the guest's FS base where they expect thread-local storage.
pub fn keep_off() -> Quiet {
    // SAFETY: plain system calls on local sets.
    unsafe {
        let mut set = std::mem::zeroed();
        let mut old = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for signal in SIGNALS.into_iter().chain([libc::SIGTRAP, libc::SIGABRT]) {
            libc::sigdelset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old);
        Quiet(old)
    }
}

/// A thread's signal mask as it was.
pub struct Quiet(libc::sigset_t);

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: gives back what was there before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

fn install() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut previous = Vec::new();
    for signal in SIGNALS {
        // SAFETY: the handler is async-signal-safe; the previous action is kept for what is not ours.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let mut old: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, &raw const action, &raw mut old) != 0 {
                return Err(io::Error::last_os_error());
            }
            previous.push((signal, old.sa_sigaction, old.sa_flags));
        }
    }
    let _ = PREVIOUS.set(previous);
    Ok(())
}

/// Runs `body` with the FS base, that of thread-local storage, that Rust expects.
///
/// # Safety
///
/// To be called on the vCPU's own thread, which was in emitted code.
unsafe fn on_own_thread<T>(cpu: &mut Cpu, body: impl FnOnce(&mut Cpu) -> T) -> T {
    let guests: u64;
    // SAFETY: FSGSBASE was checked when the engine was made, and the thread's own base is what it was.
    unsafe {
        std::arch::asm!("rdfsbase {}", out(reg) guests, options(nostack, nomem, preserves_flags));
        std::arch::asm!("wrfsbase {}", in(reg) cpu.host_fs, options(nostack, nomem, preserves_flags));
    }
    let result = body(cpu);
    // SAFETY: as above.
    unsafe { std::arch::asm!("wrfsbase {}", in(reg) guests, options(nostack, nomem, preserves_flags)) };
    result
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context and info.
    unsafe {
        let context = context.cast::<libc::ucontext_t>();
        let registers = &mut (*context).uc_mcontext.gregs;
        let pc = registers[libc::REG_RIP as usize] as u64;
        let used = USED.load(Ordering::SeqCst).min(MAX);
        for slot in &SLOTS[..used] {
            let range = slot.start.load(Ordering::SeqCst)..slot.end.load(Ordering::SeqCst);
            let leave = slot.leave.load(Ordering::SeqCst);
            if range.contains(&pc) && leave != 0 {
                let base: *mut u8;
                std::arch::asm!("rdgsbase {}", out(reg) base, options(nostack, nomem));
                let cpu = base.sub(crate::cpu::STATE_SIZE).cast::<Cpu>();
                let trap = registers[libc::REG_TRAPNO as usize] as u64;
                if trap == PAGE_FAULT && (*cpu).mirrored {
                    // The thread is in no library, and holds no lock but `world`: Rust may run as in a helper.
                    const WRITE: i64 = 2;
                    let code = registers[libc::REG_ERR as usize];
                    let address = registers[libc::REG_CR2 as usize] as u64;
                    if on_own_thread(&mut *cpu, |cpu| cpu.show_page(address, code & WRITE != 0)) {
                        return;
                    }
                }
                (*cpu).fault_pc = pc;
                (*cpu).fault_counter = registers[libc::REG_RCX as usize] as u64;
                (*cpu).fault_signal = [signal as u64, trap, (*info).si_addr() as u64];
                registers[libc::REG_RIP as usize] = leave as i64;
                return;
            }
        }
        // Not the guest's. Give it back to whom it belonged; returning runs the instruction again.
        let old = PREVIOUS.get().and_then(|all| all.iter().find(|(s, _, _)| *s == signal));
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = old.map_or(libc::SIG_DFL, |(_, handler, _)| *handler);
        action.sa_flags = old.map_or(0, |(_, _, flags)| *flags);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}
