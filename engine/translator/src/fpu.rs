//! Saving and restoring x87 and SIMD state: FXSAVE, XSAVE, FNSTENV and their kin (SDM 1 10.5, 13).
//!
//! SSE and AVX registers are in the vCPU's state while Rust runs; x87 registers are live in the processor, whose own
//! FXSAVE and FXRSTOR move them. Instruction and data pointers that they hold are the host's and are not shown to the
//! guest: they read as zero, as on processors that have deprecated them.
#![expect(unsafe_code, reason = "executes FXSAVE, FXRSTOR and x87 instructions")]
// UNSAFETY: inline assembly on local, aligned buffers.

use iced_x86::{Instruction, Mnemonic};
use lodge_x86::exception::Exception;
use lodge_x86::state::XsaveArea;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::system::{Flow, Outcome};

/// The legacy area.
#[repr(C, align(64))]
struct Legacy([u8; 512]);

/// Bits of MXCSR that may be set.
pub const MXCSR_MASK: u32 = 0xffff;
/// x87 state in XCR0 and XSTATE_BV.
const X87: u64 = 1;
/// SSE.
const SSE: u64 = 2;
/// AVX.
const AVX: u64 = 4;

/// x87 state as FXSAVE64 writes it, the pointers blanked. SSE parts are left zero.
fn save_x87() -> Legacy {
    let mut area = Legacy([0; 512]);
    // SAFETY: the area is 512 bytes and aligned.
    unsafe { std::arch::asm!("fxsave64 [{}]", in(reg) &raw mut area, options(nostack)) };
    // FOP, FIP, FDP.
    area.0[6..24].fill(0);
    area.0[24..32].fill(0);
    area.0[160..].fill(0);
    area
}

/// Whether the next x87 instruction raises #MF: the error summary in the status word, which is still the guest's.
pub fn x87_error_pending() -> bool {
    let status: u16;
    // SAFETY: reads one register.
    unsafe { std::arch::asm!("fnstsw ax", out("ax") status, options(nomem, nostack, preserves_flags)) };
    status & 0x80 != 0
}

/// Loads x87 state from a legacy area.
fn load_x87(source: &[u8]) {
    let mut area = Legacy([0; 512]);
    area.0[..160].copy_from_slice(&source[..160]);
    area.0[6..24].fill(0);
    // What FXRSTOR loads besides: the MXCSR that Rust runs with, and XMM registers, which it may clobber.
    area.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    // SAFETY: the area is aligned and its MXCSR valid; all XMM registers are declared clobbered.
    unsafe {
        std::arch::asm!(
            "fxrstor64 [{}]", in(reg) &raw const area,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
            out("st(6)") _, out("st(7)") _, options(nostack)
        );
    }
}

impl Cpu {
    /// The legacy area for the guest: `registers` says how many XMM registers it gets.
    fn legacy_area(&self, registers: usize) -> [u8; 512] {
        let mut area = save_x87();
        area.0[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        area.0[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        for (n, vector) in self.vectors.0.iter().enumerate().take(registers) {
            area.0[160 + n * 16..176 + n * 16].copy_from_slice(&vector[..16]);
        }
        area.0
    }

    fn xmm_from(&mut self, area: &[u8], registers: usize) {
        for (n, vector) in self.vectors.0.iter_mut().enumerate().take(registers) {
            vector[..16].copy_from_slice(&area[160 + n * 16..176 + n * 16]);
        }
    }

    /// All of it, for a saved state.
    pub fn export_fpu(&self) -> XsaveArea {
        let mut area = XsaveArea::default();
        area.0[..512].copy_from_slice(&self.legacy_area(16));
        area.0[512..520].copy_from_slice(&(X87 | SSE | AVX).to_le_bytes());
        for (n, vector) in self.vectors.0.iter().enumerate() {
            area.0[576 + n * 16..592 + n * 16].copy_from_slice(&vector[16..]);
        }
        area
    }

    /// Loads a saved state.
    pub fn import_fpu(&mut self, area: &XsaveArea) {
        load_x87(&area.0);
        let mxcsr = u32::from_le_bytes([area.0[24], area.0[25], area.0[26], area.0[27]]);
        self.mxcsr = mxcsr & MXCSR_MASK;
        self.xmm_from(&area.0, 16);
        for (n, vector) in self.vectors.0.iter_mut().enumerate() {
            vector[16..].copy_from_slice(&area.0[576 + n * 16..592 + n * 16]);
        }
    }

    /// An MMX register, in the low bytes of a vector. MMX registers are x87's, counted from the bottom of its stack.
    pub fn mmx(&self, number: usize) -> [u8; 32] {
        let area = save_x87();
        let top = usize::from(area.0[3] >> 3 & 7);
        let at = 32 + (number.wrapping_sub(top) & 7) * 16;
        let mut vector = [0; 32];
        vector[..8].copy_from_slice(&area.0[at..at + 8]);
        vector
    }

    /// What every MMX instruction does besides: the x87 stack's top is register 0, and all registers are in use
    /// (SDM 1 9.5.1).
    pub fn enter_mmx(&mut self) {
        let mut area = save_x87();
        let top = usize::from(area.0[3] >> 3 & 7);
        area.0[32..160].rotate_left((8 - top) % 8 * 16);
        area.0[3] &= !0x38;
        area.0[4] = 0xff;
        load_x87(&area.0);
    }
}

/// Carries out one of them.
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Fxsave | M::Fxsave64 => {
            let linear = cpu.operand_address(ins, 512, true)?;
            aligned(linear, 16)?;
            let registers = if cpu.is_64() { 16 } else { 8 };
            let area = cpu.legacy_area(registers);
            // The bytes from 416 on belong to software.
            cpu.write_linear(linear, &area[..416], Privilege::Current)?;
        }
        M::Fxrstor | M::Fxrstor64 => {
            let linear = cpu.operand_address(ins, 512, false)?;
            aligned(linear, 16)?;
            let mut area = [0; 512];
            cpu.read_linear(linear, &mut area, Privilege::Current)?;
            let mxcsr = checked_mxcsr(&area)?;
            load_x87(&area);
            cpu.mxcsr = mxcsr;
            let registers = if cpu.is_64() { 16 } else { 8 };
            cpu.xmm_from(&area, registers);
        }
        M::Xsave | M::Xsave64 => xsave(cpu, ins)?,
        M::Xrstor | M::Xrstor64 => xrstor(cpu, ins)?,
        _ => environment(cpu, ins)?,
    }
    Ok(Flow::Next)
}

fn aligned(linear: u64, to: u64) -> Result<(), Exception> {
    if linear.is_multiple_of(to) { Ok(()) } else { Err(Exception::general_protection(0)) }
}

fn checked_mxcsr(area: &[u8]) -> Result<u32, Exception> {
    let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    if mxcsr & !MXCSR_MASK != 0 { Err(Exception::general_protection(0)) } else { Ok(mxcsr) }
}

/// The components that EDX:EAX and XCR0 both name.
fn requested(cpu: &Cpu) -> u64 {
    (cpu.gpr[0] & 0xffff_ffff | cpu.gpr[2] << 32) & cpu.xcr0
}

/// XSAVE in the standard format (SDM 1 13.7). Everything counts as in use.
fn xsave(cpu: &mut Cpu, ins: &Instruction) -> Result<(), Exception> {
    let linear = cpu.operand_address(ins, 576, true)?;
    aligned(linear, 64)?;
    let wanted = requested(cpu);
    let registers = if cpu.is_64() { 16 } else { 8 };
    let legacy = cpu.legacy_area(registers);
    // All checks come first: nothing is written by an instruction that faults.
    let length = if wanted & AVX != 0 { 832 } else { 576 };
    cpu.check_write(linear, length, Privilege::Current)?;
    let mut header = [0; 8];
    cpu.read_linear(linear.wrapping_add(512), &mut header, Privilege::Current)?;
    if wanted & X87 != 0 {
        cpu.write_linear(linear, &legacy[..24], Privilege::Current)?;
        cpu.write_linear(linear.wrapping_add(32), &legacy[32..160], Privilege::Current)?;
    }
    if wanted & (SSE | AVX) != 0 {
        cpu.write_linear(linear.wrapping_add(24), &legacy[24..32], Privilege::Current)?;
    }
    if wanted & SSE != 0 {
        cpu.write_linear(linear.wrapping_add(160), &legacy[160..160 + registers * 16], Privilege::Current)?;
    }
    if wanted & AVX != 0 {
        let mut high = [0; 256];
        for (n, vector) in cpu.vectors.0.iter().enumerate().take(registers) {
            high[n * 16..n * 16 + 16].copy_from_slice(&vector[16..]);
        }
        cpu.write_linear(linear.wrapping_add(576), &high[..registers * 16], Privilege::Current)?;
    }
    let old = u64::from_le_bytes(header);
    cpu.write_number(linear.wrapping_add(512), 8, old & !wanted | wanted, Privilege::Current)
}

/// XRSTOR from the standard format (SDM 1 13.8).
fn xrstor(cpu: &mut Cpu, ins: &Instruction) -> Result<(), Exception> {
    let linear = cpu.operand_address(ins, 576, false)?;
    aligned(linear, 64)?;
    let wanted = requested(cpu);
    let mut area = [0; 832];
    cpu.read_linear(linear, &mut area[..576], Privilege::Current)?;
    let word = |n: usize| u64::from_le_bytes(area[n..n + 8].try_into().unwrap_or_default());
    let (present, compact) = (word(512), word(520));
    let reserved = area[528..576].iter().any(|&byte| byte != 0);
    if present & !cpu.xcr0 != 0 || compact != 0 || reserved {
        return Err(Exception::general_protection(0));
    }
    if wanted & present & AVX != 0 {
        let mut high = [0; 256];
        cpu.read_linear(linear.wrapping_add(576), &mut high, Privilege::Current)?;
        area[576..].copy_from_slice(&high);
    }
    let mxcsr = if wanted & (SSE | AVX) != 0 { Some(checked_mxcsr(&area)?) } else { None };
    let registers = if cpu.is_64() { 16 } else { 8 };
    if wanted & X87 != 0 {
        if present & X87 != 0 {
            load_x87(&area);
        } else {
            load_x87(&XsaveArea::default().0);
        }
    }
    if let Some(mxcsr) = mxcsr {
        cpu.mxcsr = mxcsr;
    }
    if wanted & SSE != 0 {
        if present & SSE == 0 {
            area[160..416].fill(0);
        }
        cpu.xmm_from(&area, registers);
    }
    if wanted & AVX != 0 {
        for (n, vector) in cpu.vectors.0.iter_mut().enumerate().take(registers) {
            let high = &area[576 + n * 16..592 + n * 16];
            vector[16..].copy_from_slice(if present & AVX != 0 { high } else { &[0; 16] });
        }
    }
    Ok(())
}

/// FNSTENV and FNSAVE: written by the processor to a buffer, the pointers blanked, then copied.
fn environment(cpu: &mut Cpu, ins: &Instruction) -> Result<(), Exception> {
    use iced_x86::Code;
    let narrow = matches!(ins.code(), Code::Fnstenv_m14byte | Code::Fnsave_m94byte);
    let save = ins.mnemonic() == Mnemonic::Fnsave;
    let length = match (narrow, save) {
        (true, false) => 14,
        (false, false) => 28,
        (true, true) => 94,
        (false, true) => 108,
    };
    let linear = cpu.operand_address(ins, length as u64, true)?;
    cpu.check_write(linear, length, Privilege::Current)?;
    let mut buffer = [0u8; 112];
    let at = buffer.as_mut_ptr();
    // SAFETY: the buffer holds the longest form. FNSAVE initialises x87, FNSTENV masks its exceptions, as for a guest.
    unsafe {
        match (narrow, save) {
            (true, false) => std::arch::asm!(".byte 0x66, 0xd9, 0x30", in("rax") at, options(nostack)),
            (false, false) => std::arch::asm!("fnstenv [rax]", in("rax") at, options(nostack)),
            (true, true) => std::arch::asm!(".byte 0x66, 0xdd, 0x30", in("rax") at, options(nostack)),
            (false, true) => std::arch::asm!("fnsave [rax]", in("rax") at, options(nostack)),
        }
    }
    // After control, status and tag words: FIP, FCS and FOP, FDP, FDS.
    let pointers = if narrow { 6..14 } else { 12..28 };
    buffer[pointers].fill(0);
    if !narrow {
        // The upper halves of the first words and of the last are reserved and read as ones.
        for n in [2, 6, 10, 26] {
            buffer[n..n + 2].fill(0xff);
        }
    }
    cpu.write_linear(linear, &buffer[..length], Privilege::Current)
}
