//! The architectural state of one logical processor: what is saved, restored, printed at a crash and compared
//! between engines.
//!
//! An engine keeps its own hot form of this and converts at its seam.

use crate::bits::{cr0, rflags};
use crate::segment::{Segment, SegmentName, TableRegister, attribute};

/// Names a general-purpose register by its number in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// Halted until an interrupt.
    Halted,
    /// After INIT on an application processor: until a start-up IPI.
    WaitForSipi,
}

/// Bytes of the XSAVE area for x87, SSE and AVX state (SDM 1 13.4): legacy region, header, upper YMM halves.
pub const XSAVE_SIZE: usize = 512 + 64 + 256;

/// x87, SSE and AVX state in the standard XSAVE format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct XsaveArea(pub [u8; XSAVE_SIZE]);

impl Default for XsaveArea {
    /// The state after power-up: FCW 0x37f, MXCSR 0x1f80, the rest zero.
    fn default() -> Self {
        let mut area = [0; XSAVE_SIZE];
        area[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        area[512] = 7;
        Self(area)
    }
}

/// MSRs that belong to the processor proper (the local APIC's and the paravirtual clock's live elsewhere).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Msrs {
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub misc_enable: u64,
    pub debug_control: u64,
    pub mtrr_def_type: u64,
    pub mtrr_variable: [u64; 16],
    pub mtrr_fixed: [u64; 11],
}

/// All of a processor's architectural state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuState {
    /// General-purpose registers by [`Gpr`] number.
    pub gpr: [u64; 16],
    /// The next instruction's offset in CS.
    pub rip: u64,
    /// All flags.
    pub rflags: u64,
    /// Segment registers by [`SegmentName`] number.
    pub segment: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// DR0 to DR7; 4 and 5 are unused.
    pub dr: [u64; 8],
    /// The processor's MSRs.
    pub msrs: Msrs,
    /// The guest's time-stamp counter.
    pub tsc: u64,
    /// x87, SSE and AVX registers.
    pub xsave: XsaveArea,
    /// Running, halted or waiting.
    pub activity: Activity,
    /// Between delivery of an NMI and the next IRET.
    pub nmi_blocked: bool,
    /// After STI or a load of SS: interrupts wait for one more instruction.
    pub interrupt_shadow: bool,
}

impl CpuState {
    /// The state after RESET (SDM 3A table 9-1): real mode at 0xf000:0xfff0 with a CS base of 0xffff0000.
    /// `signature` is CPUID leaf 1 EAX, which EDX holds.
    pub fn reset(signature: u32) -> Self {
        const DATA: u16 = attribute::PRESENT | attribute::NON_SYSTEM | attribute::READ_WRITE | attribute::ACCESSED;
        let mut segment = [Segment::real_mode(0, DATA); 6];
        segment[SegmentName::Cs as usize] =
            Segment { base: 0xffff_0000, limit: 0xffff, selector: 0xf000, attributes: DATA | attribute::CODE };
        let mut gpr = [0; 16];
        gpr[Gpr::Rdx as usize] = u64::from(signature);
        Self {
            gpr,
            rip: 0xfff0,
            rflags: rflags::FIXED,
            segment,
            ldtr: Segment { limit: 0xffff, attributes: attribute::PRESENT | 2, ..Segment::default() },
            tr: Segment { limit: 0xffff, attributes: attribute::PRESENT | 11, ..Segment::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            cr0: cr0::ET | cr0::NW | cr0::CD,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            xcr0: 1,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            msrs: Msrs { pat: 0x0007_0406_0007_0406, misc_enable: 1, ..Msrs::default() },
            tsc: 0,
            xsave: XsaveArea::default(),
            activity: Activity::Running,
            nmi_blocked: false,
            interrupt_shadow: false,
        }
    }

    /// The current privilege level: SS's DPL in protected mode, 0 in real mode, 3 in virtual-8086 mode.
    pub fn cpl(&self) -> u8 {
        if self.cr0 & cr0::PE == 0 {
            0
        } else if self.rflags & rflags::VM != 0 {
            3
        } else {
            self.segment[SegmentName::Ss as usize].dpl()
        }
    }
}
