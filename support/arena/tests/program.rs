//! Programs that enter the arena, or cannot: this one starts itself as each of them, by name, and looks at what they do.
#![expect(unsafe_code, reason = "the programs handle signals, seal memory and set limits")]
// UNSAFETY: plain system calls of programs that do nothing else.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use lodge_arena::{Entered, Error, USABLE, enter, examine, inside, verify};

/// What comes before the name of the program to be, which is the first argument.
const PREFIX: &str = "program:";
/// Arguments of each program after its name, and the environment variable that it is given.
const ARGUMENTS: &[&str] = &["", "two words", "\u{fc}"];
const VARIABLE: (&str, &str) = ("LODGE_ARENA_TEST", "a = b");
/// What each program that is content ends with.
const CONTENT: u8 = 42;
/// And one that cannot try here what it is for.
const SKIPPED: u8 = 77;

type Program = fn() -> ExitCode;

const PROGRAMS: &[(&str, Program)] = &[
    ("inside", program_inside),
    ("overflow", program_overflow),
    ("examined", program_examined),
    ("threads", program_threads),
    ("limited", program_limited),
    ("sealed", program_sealed),
    ("from_below", program_from_below),
];

const TESTS: &[(&str, fn())] = &[
    ("a program enters and works", enters_and_works),
    ("addresses are random", addresses_are_random),
    ("a stack without a limit is no hindrance", stack_without_limit),
    ("an overflow of the main stack is noticed", overflow_is_noticed),
    ("an examination changes nothing", || content("examined")),
    ("threads stand in the way", || content("threads")),
    ("a limit stands in the way", || content("limited")),
    ("a refusal at the last step is undone", || content("sealed")),
    ("a layout from below up stands in the way", layout_from_below),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(name) = arguments.first().and_then(|first| first.strip_prefix(PREFIX)) {
        let (_, program) = PROGRAMS.iter().find(|(known, _)| *known == name).unwrap();
        return program();
    }
    // The harness's options that list tests are known; others are not needed.
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let parts: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()));
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn this_path() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn this() -> Command {
    Command::new(this_path())
}

fn run(mut command: Command, name: &str) -> (u32, Output) {
    command.arg(format!("{PREFIX}{name}")).args(ARGUMENTS).env(VARIABLE.0, VARIABLE.1);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"what comes in").unwrap();
    (child.id(), child.wait_with_output().unwrap())
}

fn content(name: &str) {
    content_of(this(), name);
}

#[track_caller]
fn content_of(command: Command, name: &str) {
    let (_, output) = run(command, name);
    if output.status.code() == Some(SKIPPED.into()) {
        println!("skipped: {}", String::from_utf8_lossy(&output.stdout));
    } else {
        assert_eq!(output.status.code(), Some(CONTENT.into()), "{output:?}");
    }
}

fn enters_and_works() {
    let (id, output) = run(this(), "inside");
    assert_eq!(output.status.code(), Some(CONTENT.into()), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("{id} ")), "{output:?}");
}

fn addresses_are_random() {
    let runs: Vec<_> = (0..3).map(|_| String::from_utf8(run(this(), "inside").1.stdout).unwrap()).collect();
    let count = runs[0].split_whitespace().count();
    assert!(count > 5);
    for word in 1..count {
        let distinct: HashSet<_> = runs.iter().map(|line| line.split_whitespace().nth(word).unwrap()).collect();
        assert_eq!(distinct.len(), runs.len(), "address {word} of {runs:?}");
    }
}

fn overflow_is_noticed() {
    let (_, output) = run(this(), "overflow");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has overflowed its stack"), "{output:?}");
}

fn layout_from_below() {
    // As vm.legacy_va_layout does for all programs.
    const ADDR_COMPAT_LAYOUT: libc::c_ulong = 0x020_0000;
    let mut command = this();
    // SAFETY: a system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::personality(ADDR_COMPAT_LAYOUT) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    content_of(command, "from_below");
}

fn stack_without_limit() {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -s unlimited || exit {SKIPPED}; exec \"$0\" \"$@\"")).arg(this_path());
    content_of(command, "inside");
}

/// What any program can do, wherever it is.
fn works() {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    assert_eq!(arguments, ARGUMENTS);
    assert_eq!(std::env::var(VARIABLE.0).unwrap(), VARIABLE.1);
    assert!(std::thread::available_parallelism().unwrap().get() > 0);
    let now = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert!(now.elapsed().as_millis() >= 1);
    assert_eq!(
        std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7))).unwrap_err().downcast_ref(),
        Some(&7)
    );
    let added = std::thread::spawn(|| address_of_local() + 1).join().unwrap();
    assert!(added > 1);
    assert!(Command::new("true").status().unwrap().success());
    let failing = Command::new("sh").arg("-c").arg("kill -9 $$").status().unwrap();
    assert_eq!(failing.signal(), Some(9));
    handles_faults();
}

fn address_of_local() -> u64 {
    let local = 0_u8;
    std::ptr::from_ref(&local) as u64
}

static FAULT: AtomicU64 = AtomicU64::new(0);
static HANDLER_STACK: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HANDLER_STACK.store(address_of_local(), Ordering::SeqCst);
    // SAFETY: the kernel's structure for SIGSEGV.
    let at = unsafe { (*info).si_addr() } as u64;
    FAULT.store(at, Ordering::SeqCst);
    // SAFETY: makes the page accessible, so that the access succeeds the second time.
    unsafe { libc::mprotect(at as *mut libc::c_void, 4096, libc::PROT_READ) };
}

/// Faults are handled on the stack for signals.
fn handles_faults() {
    let mut stack = vec![0_u8; 64 << 10];
    // SAFETY: the stack outlives its use, and the page is nobody else's.
    unsafe {
        let new = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        let mut old: libc::stack_t = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(&raw const new, &raw mut old), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before), 0);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0);
        assert_eq!(page.cast::<u8>().read_volatile(), 0);
        assert_eq!(FAULT.load(Ordering::SeqCst), page as u64);
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const before, std::ptr::null_mut()), 0);
        assert_eq!(libc::sigaltstack(&raw const old, std::ptr::null_mut()), 0);
    }
    let range = stack.as_ptr() as u64..stack.as_ptr() as u64 + stack.len() as u64;
    assert!(range.contains(&HANDLER_STACK.load(Ordering::SeqCst)));
}

fn signal_mask() -> bool {
    // SAFETY: reads this thread's mask.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
        libc::sigismember(&raw const mask, libc::SIGUSR2) == 1
    }
}

/// Enters, and tells where things are: its id, program, stack, heap, large block, thread, vDSO.
fn program_inside() -> ExitCode {
    if !inside() {
        // SAFETY: blocks a signal that nobody sends.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut mask, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut());
        }
    }
    assert_eq!(enter().unwrap(), Entered::Inside);
    assert!(signal_mask());
    works();
    verify().unwrap();

    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    assert_eq!(input, "what comes in");
    let shown = std::fs::read_to_string("/proc/self/cmdline").unwrap();
    assert!(shown.ends_with(&format!("\0{PREFIX}inside\0{}\0", ARGUMENTS.join("\0"))), "{shown:?}");
    assert!(std::fs::read_to_string("/proc/self/environ").unwrap().contains(VARIABLE.1));
    // Nothing was left open by entering.
    let opened =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let wrong = |path: &PathBuf| path.extension().is_some_and(|end| end == "2") || *path == this_path();
    assert_eq!(opened.filter(wrong).count(), 0);

    // SAFETY: asks for memory that nobody uses.
    let grown = unsafe { libc::sbrk(4096) };
    assert_eq!(grown as isize, -1, "the heap cannot grow");
    let small = Box::new(1_u8);
    let large = vec![1_u8; 64 << 20];
    let blocks: Vec<_> = (0..1000).map(|n| vec![n as u8; n * 100]).collect();
    assert!(blocks.iter().enumerate().all(|(n, block)| block.iter().all(|byte| *byte == n as u8)));
    // SAFETY: asks only.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let thread = std::thread::spawn(address_of_local).join().unwrap();
    let program = program_inside as *const () as u64;
    let places =
        [program, address_of_local(), &raw const *small as u64, large.as_ptr() as u64, thread, vdso, getpid_address()];
    for place in places {
        assert!(USABLE.contains(&place), "{place:#x}");
    }
    verify().unwrap();
    println!("{} {}", std::process::id(), places.map(|place| format!("{place:x}")).join(" "));
    ExitCode::from(CONTENT)
}

/// An address in the C library.
fn getpid_address() -> u64 {
    // SAFETY: looks a name up.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getpid".as_ptr()) as u64 }
}

fn program_overflow() -> ExitCode {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let block = std::hint::black_box([depth; 100]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1) + block[usize::try_from(depth % 100).unwrap()] }
    }
    assert_eq!(enter().unwrap(), Entered::Inside);
    ExitCode::from(deeper(0) as u8)
}

/// Where things are mapped that are there for good: what comes and goes has no name.
fn named_mappings() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    let named = text.lines().filter(|line| line.contains('/') || line.contains("[v"));
    named.map(str::to_owned).collect()
}

/// Which signals are blocked, ignored and handled.
fn signals() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let wanted = |line: &&str| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name));
    status.lines().filter(wanted).map(str::to_owned).collect()
}

/// `enter` or `examine`, after which all is as it was.
fn without_change<T>(what: impl FnOnce() -> T) -> T {
    let before = (named_mappings(), signals());
    let result = what();
    assert_eq!((named_mappings(), signals()), before);
    assert!(!inside());
    works();
    result
}

fn program_examined() -> ExitCode {
    if !inside() {
        without_change(examine).unwrap();
        without_change(examine).unwrap();
    }
    assert_eq!(enter().unwrap(), Entered::Inside);
    works();
    ExitCode::from(CONTENT)
}

fn program_threads() -> ExitCode {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert!(matches!(without_change(enter), Err(Error::Threads(2))));
    drop(end);
    assert!(thread.join().unwrap().is_err());
    ExitCode::from(CONTENT)
}

fn program_limited() -> ExitCode {
    let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
    // SAFETY: the structure is whole.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    assert!(matches!(without_change(enter), Err(Error::AddressSpaceLimit)));
    ExitCode::from(CONTENT)
}

/// A page that cannot be unmapped is noticed at the last step only.
fn program_sealed() -> ExitCode {
    const SYS_MSEAL: libc::c_long = 462;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a page of our own, sealed for good.
    let sealed = unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0);
        libc::syscall(SYS_MSEAL, page, 4096, 0)
    };
    if sealed != 0 {
        println!("this kernel cannot seal mappings");
        return ExitCode::from(SKIPPED);
    }
    let result = without_change(enter);
    assert!(matches!(result, Err(Error::Refused { what: "to unmap the old program", .. })), "{result:?}");
    // Restartable sequences are back, or what the C library has instead.
    // SAFETY: asks only.
    assert!(unsafe { libc::sched_getcpu() } >= 0);
    ExitCode::from(CONTENT)
}

fn program_from_below() -> ExitCode {
    assert!(matches!(without_change(enter), Err(Error::Placement)));
    ExitCode::from(CONTENT)
}
