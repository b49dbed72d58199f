//! The code that runs while there is no program: [`leap`] makes a list of system calls ([`Call`]), of which the first
//! unmaps the old program with its stack, and jumps to the new one's loader.
//!
//! It runs in the new program's copy of itself, which is at other addresses but the same to the byte: position-independent
//! code has nothing relocated. It uses no stack from the first system call on.
#![expect(unsafe_code, reason = "replaces the program that it is part of")]
// UNSAFETY: what it relies on is put in place by `preparation`.

use std::arch::naked_asm;

/// A system call: its number and six arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call(pub [u64; 7]);

impl Call {
    /// As bytes, to be put where [`leap`] finds them.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

type Leap = unsafe extern "C" fn(calls: u64, count: u64, stack: u64, entry: u64) -> i64;

/// Makes `count` system calls, a list of [`Call`] at `calls`, with the code `bias` bytes from here, sets the stack pointer
/// to `stack` and goes to `entry`. If the first call fails, nothing else is done, and this returns its error number; what
/// comes of the others is not looked at.
///
/// # Safety
///
/// At `bias` bytes from this program is another copy of it, which the calls leave alone, as they do the list, the stack
/// and the entry. There is one thread, no handler of a signal, and what comes after the first call needs nothing of what
/// that unmaps.
pub unsafe fn leap(bias: u64, calls: u64, count: u64, stack: u64, entry: u64) -> i32 {
    let there = (run as *const () as u64).wrapping_add(bias) as usize;
    // SAFETY: the same function in the other copy.
    let run: Leap = unsafe { std::mem::transmute(there) };
    // SAFETY: the caller's.
    let result = unsafe { run(calls, count, stack, entry) };
    i32::try_from(-result).unwrap_or(libc::EINVAL)
}

/// What [`leap`] does. RBX leads to the call, RBP counts them, R14 is not zero but for the first one.
#[unsafe(naked)]
unsafe extern "C" fn run(calls: u64, count: u64, stack: u64, entry: u64) -> i64 {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "mov rbx, rdi",
        "mov rbp, rsi",
        "mov r12, rdx",
        "mov r13, rcx",
        "xor r14d, r14d",
        "2:",
        "mov rax, [rbx]",
        "mov rdi, [rbx + 8]",
        "mov rsi, [rbx + 16]",
        "mov rdx, [rbx + 24]",
        "mov r10, [rbx + 32]",
        "mov r8, [rbx + 40]",
        "mov r9, [rbx + 48]",
        "syscall",
        "test r14d, r14d",
        "jnz 3f",
        "cmp rax, -4095",
        "jae 4f",
        "mov r14d, 1",
        "3:",
        "add rbx, 56",
        "dec rbp",
        "jnz 2b",
        // As execve(2) leaves the registers; RDX would be a function to be called at the end.
        "mov rsp, r12",
        "push r13",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor ebp, ebp",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "cld",
        "ret",
        "4:",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}
