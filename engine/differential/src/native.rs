//! The host's processor: cases run in a forked child, from signal to signal.
//!
//! The child maps code and data where the guest has them. A case ends with a signal, if only that of its INT3; the
//! handler finds the whole state in the signal's frame, copies it out, and writes the next case's state over it, so
//! that returning from the handler begins the next case. Nothing has to be saved or loaded by hand.
//!
//! ```text
//! parent: write cases, "go" ----> child: INT3 -> handler: case 0 into the frame -> return = run case 0
//!                                          ^----- signal: copy result 0, case 1 into the frame
//! parent: read results <-- "done" -- handler: the child's own state into the frame again
//! ```
#![expect(unsafe_code, reason = "forks, maps memory at fixed addresses and edits signal frames")]
// UNSAFETY: the parent touches its mapping only while the child waits; the child is a process of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::layout::{
    BATCH, CODE, CODE_BYTES, DATA, DATA_BYTES, GS_BASE, READ_ONLY, READ_ONLY_BYTES, Record, XSAVE_BYTES,
};

/// What parent and child share.
#[repr(C, align(4096))]
struct Exchange {
    code: [u8; CODE_BYTES],
    /// What the data is at the beginning of each case.
    template: [u8; DATA_BYTES + READ_ONLY_BYTES],
    inputs: [Record; BATCH],
    results: [Record; BATCH],
    data: [[u8; DATA_BYTES]; BATCH],
    count: AtomicU64,
    /// The case that runs.
    current: AtomicU64,
}

/// How long a batch may take.
const LIMIT: Duration = Duration::from_secs(20);
/// What [`Exchange::current`] is between batches.
const IDLE: u64 = u64::MAX;

/// The native side.
pub struct Native {
    memory: OwnedFd,
    exchange: *mut Exchange,
    child: Option<Child>,
}

struct Child {
    pid: libc::pid_t,
    go: File,
    done: File,
}

// SAFETY: the mapping belongs to this object alone.
unsafe impl Send for Native {}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Native {
    /// Makes the exchange; the child comes with the first batch.
    ///
    /// # Errors
    ///
    /// The host gives no memory.
    pub fn new() -> io::Result<Self> {
        let memory = memfd_create("lodge-differential", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, size_of::<Exchange>() as u64)?;
        // SAFETY: a new mapping, wherever there is room.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Exchange>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                memory.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { memory, exchange: at.cast(), child: None })
    }

    fn exchange(&mut self) -> &mut Exchange {
        // SAFETY: mapped as long as this lives; the child does not touch it between batches.
        unsafe { &mut *self.exchange }
    }

    /// Lays out a batch: code, data and states.
    pub fn prepare(&mut self, code: &[u8], template: &[u8], inputs: &[Record]) {
        let exchange = self.exchange();
        exchange.code[..code.len()].copy_from_slice(code);
        exchange.template.copy_from_slice(template);
        exchange.inputs[..inputs.len()].copy_from_slice(inputs);
        exchange.count.store(inputs.len() as u64, Ordering::SeqCst);
        exchange.current.store(IDLE, Ordering::SeqCst);
    }

    /// Starts the batch.
    ///
    /// # Errors
    ///
    /// There can be no child.
    pub fn start(&mut self) -> io::Result<()> {
        if self.child.is_none() {
            self.child = Some(spawn(self.exchange, self.memory.as_raw_fd())?);
        }
        match &mut self.child {
            Some(child) => child.go.write_all(&[1]),
            None => Ok(()),
        }
    }

    /// Waits for the batch; the number of the case that killed the child, if one did.
    ///
    /// # Errors
    ///
    /// The child cannot be waited for.
    pub fn finish(&mut self) -> io::Result<Option<usize>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let mut poll = libc::pollfd { fd: child.done.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor that is open.
        let ready = check(unsafe { libc::poll(&raw mut poll, 1, LIMIT.as_millis() as i32) }.into())?;
        let mut byte = [0];
        if ready == 1 && child.done.read(&mut byte)? == 1 {
            return Ok(None);
        }
        self.kill();
        let current = self.exchange().current.load(Ordering::SeqCst);
        Ok(Some(usize::try_from(current).unwrap_or(0).min(BATCH - 1)))
    }

    /// A case's end.
    pub fn result(&mut self, number: usize) -> (&Record, &[u8]) {
        let exchange = self.exchange();
        (&exchange.results[number], &exchange.data[number])
    }

    fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            // SAFETY: a child of ours that nobody has waited for.
            unsafe {
                libc::kill(child.pid, libc::SIGKILL);
                libc::waitpid(child.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: mapped by `new`, and no longer used.
        unsafe { libc::munmap(self.exchange.cast(), size_of::<Exchange>()) };
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which become ours.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC).into())?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

fn spawn(exchange: *mut Exchange, memory: i32) -> io::Result<Child> {
    let (go_read, go_write) = pipe()?;
    let (done_read, done_write) = pipe()?;
    // SAFETY: the child calls async-signal-safe functions only, and never returns.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: in the child, before anything else.
        unsafe {
            libc::close(go_write.as_raw_fd());
            libc::close(done_read.as_raw_fd());
            child(exchange, memory, go_read.as_raw_fd(), done_write.as_raw_fd())
        }
    }
    check(pid.into())?;
    Ok(Child { pid, go: go_write.into(), done: done_read.into() })
}

static EXCHANGE: AtomicPtr<Exchange> = AtomicPtr::new(std::ptr::null_mut());

/// The child's own state while cases run.
struct Home {
    registers: [i64; 23],
    vectors: [u8; XSAVE_BYTES],
}

static mut HOME: Home = Home { registers: [0; 23], vectors: [0; XSAVE_BYTES] };

/// The child: maps what cases see, then runs batch after batch.
unsafe fn child(exchange: *mut Exchange, memory: i32, go: i32, done: i32) -> ! {
    const STACK: usize = 256 << 10;
    // SAFETY: fixed addresses that nothing else in this process uses, or the child gives up.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let fixed = |at: u64, length: usize, protection, flags, fd| {
            // Addresses may be reserved that nothing of this program's lies at.
            let free = if lodge_arena::inside() { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
            let got = libc::mmap(at as *mut _, length, protection, flags | free, fd, 0);
            if got as u64 != at {
                libc::_exit(100);
            }
        };
        const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
        const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        fixed(CODE, CODE_BYTES, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED | libc::MAP_POPULATE, memory);
        fixed(DATA, DATA_BYTES + READ_ONLY_BYTES, RW, PRIVATE, -1);
        let stack = libc::mmap(std::ptr::null_mut(), STACK, RW, PRIVATE, -1, 0);
        let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        EXCHANGE.store(exchange, Ordering::SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in [libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGBUS, libc::SIGTRAP] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        std::arch::asm!("wrgsbase {}", in(reg) GS_BASE, options(nostack, preserves_flags));
        loop {
            let mut byte = 0u8;
            if libc::read(go, (&raw mut byte).cast(), 1) != 1 {
                libc::_exit(0);
            }
            let template = (&raw const (*exchange).template).cast::<u8>();
            libc::mprotect(READ_ONLY as *mut _, READ_ONLY_BYTES, RW);
            std::ptr::copy_nonoverlapping(template.add(DATA_BYTES), READ_ONLY as *mut u8, READ_ONLY_BYTES);
            libc::mprotect(READ_ONLY as *mut _, READ_ONLY_BYTES, libc::PROT_READ);
            std::arch::asm!("int3");
            if libc::write(done, (&raw const byte).cast(), 1) != 1 {
                libc::_exit(0);
            }
        }
    }
}

/// Where the kernel keeps registers in a signal's frame, by their number in encodings.
const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid frame, whose vector state has the standard format and AVX; one thread.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let vectors = std::slice::from_raw_parts_mut(machine.fpregs.cast::<u8>(), XSAVE_BYTES);
        let registers = &mut machine.gregs;
        let exchange = &mut *EXCHANGE.load(Ordering::SeqCst);
        let home = &raw mut HOME;
        let home = &mut *home;
        let current = exchange.current.load(Ordering::SeqCst);
        let next = if current == IDLE {
            home.registers.copy_from_slice(registers);
            home.vectors.copy_from_slice(vectors);
            0
        } else {
            let number = current as usize;
            keep(&mut exchange.results[number], registers, vectors);
            std::ptr::copy_nonoverlapping(DATA as *const u8, exchange.data[number].as_mut_ptr(), DATA_BYTES);
            current + 1
        };
        if next >= exchange.count.load(Ordering::SeqCst) {
            exchange.current.store(IDLE, Ordering::SeqCst);
            registers.copy_from_slice(&home.registers);
            restore(vectors, &home.vectors);
            return;
        }
        exchange.current.store(next, Ordering::SeqCst);
        std::ptr::copy_nonoverlapping(exchange.template.as_ptr(), DATA as *mut u8, DATA_BYTES);
        let input = &exchange.inputs[next as usize];
        for (number, &register) in REGISTERS.iter().enumerate() {
            registers[register as usize] = input.gpr(number) as i64;
        }
        registers[libc::REG_RIP as usize] = input.get(Record::RIP) as i64;
        registers[libc::REG_EFL as usize] = input.get(Record::RFLAGS) as i64;
        registers[libc::REG_CR2 as usize] = 0;
        restore(vectors, input.xsave());
    }
}

/// Copies a state out of a frame.
fn keep(result: &mut Record, registers: &[i64; 23], vectors: &[u8]) {
    for (number, &register) in REGISTERS.iter().enumerate() {
        result.set_gpr(number, registers[register as usize] as u64);
    }
    for (at, register) in [
        (Record::RIP, libc::REG_RIP),
        (Record::RFLAGS, libc::REG_EFL),
        (Record::VECTOR, libc::REG_TRAPNO),
        (Record::ERROR, libc::REG_ERR),
        (Record::CR2, libc::REG_CR2),
    ] {
        result.set(at, registers[register as usize] as u64);
    }
    result.xsave_mut().copy_from_slice(vectors);
}

/// Copies x87, SSE and AVX state into a frame: all but what the kernel keeps there for itself.
fn restore(vectors: &mut [u8], from: &[u8]) {
    // Bytes 464 to 511 are software's; the rest of the header says which components are beyond AVX.
    vectors[..28].copy_from_slice(&from[..28]);
    vectors[32..416].copy_from_slice(&from[32..416]);
    vectors[512] |= from[512] & 7;
    vectors[576..XSAVE_BYTES].copy_from_slice(&from[576..XSAVE_BYTES]);
}
