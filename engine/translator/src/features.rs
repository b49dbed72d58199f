//! Which instructions the guest's processor has, and what must be enabled for them.
//!
//! The translator re-emits instructions, so one that the profile does not name must be refused here or it would leak
//! through. The table is by `iced-x86` code and computed once.

use std::sync::OnceLock;

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction};

use crate::mode::Mode;

/// What an instruction needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but the processor.
    Nothing,
    /// x87: #NM under CR0.EM or CR0.TS.
    X87,
    /// WAIT: #NM under CR0.TS with CR0.MP.
    Wait,
    /// MMX: #UD under CR0.EM, #NM under CR0.TS.
    Mmx,
    /// SSE: #UD without CR4.OSFXSR or under CR0.EM, #NM under CR0.TS.
    Sse,
    /// AVX: #UD unless XCR0 enables it, #NM under CR0.TS.
    Avx,
    /// A VEX-encoded instruction on general registers: #UD in real and virtual-8086 mode.
    VexGpr,
    /// FXSAVE and FXRSTOR: #NM under CR0.EM or CR0.TS.
    Fxsave,
    /// XSAVE and its kin: #UD without CR4.OSXSAVE, #NM under CR0.TS.
    Xsave,
    /// The profile has no such instruction: #UD.
    Absent,
}

/// What stands in an instruction's way in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// #UD.
    InvalidOpcode,
    /// #NM.
    NotAvailable,
}

/// What `instruction` needs.
pub fn needs(instruction: &Instruction) -> Needs {
    static TABLE: OnceLock<Vec<Needs>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Code::values().map(needs_of).collect());
    table[instruction.code() as usize]
}

/// What keeps `instruction` from running in `mode`.
pub fn obstacle(instruction: &Instruction, mode: Mode) -> Option<Obstacle> {
    use Obstacle::{InvalidOpcode, NotAvailable};
    let switched = mode.has(Mode::SWITCHED).then_some(NotAvailable);
    let emulated = mode.has(Mode::EMULATE);
    match needs(instruction) {
        Needs::Nothing => None,
        Needs::Absent => Some(InvalidOpcode),
        Needs::X87 | Needs::Fxsave => {
            if emulated {
                Some(NotAvailable)
            } else {
                switched
            }
        }
        Needs::Wait => switched.filter(|_| mode.has(Mode::MONITOR)),
        Needs::Mmx => {
            if emulated {
                Some(InvalidOpcode)
            } else {
                switched
            }
        }
        Needs::Sse => {
            if emulated || !mode.has(Mode::SSE) {
                Some(InvalidOpcode)
            } else {
                switched
            }
        }
        Needs::Avx => {
            if mode.has(Mode::AVX) {
                switched
            } else {
                Some(InvalidOpcode)
            }
        }
        Needs::VexGpr => mode.has(Mode::REAL).then_some(InvalidOpcode),
        Needs::Xsave => {
            if mode.has(Mode::XSAVE) {
                switched
            } else {
                Some(InvalidOpcode)
            }
        }
    }
}

fn needs_of(code: Code) -> Needs {
    use CpuidFeature as F;
    if matches!(code, Code::INVALID | Code::DeclareByte | Code::DeclareWord | Code::DeclareDword | Code::DeclareQword) {
        return Needs::Absent;
    }
    match code {
        Code::Wait => return Needs::Wait,
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte | Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => {
            return Needs::Fxsave;
        }
        // PREFETCH and PREFETCHW of a register: AMD's processors, of whose vendor the profile is, raise #UD (APM 3,
        // PREFETCH), Intel's do nothing.
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D => {
            return Needs::Absent;
        }
        Code::Ud0 | Code::Ud0_r16_rm16 | Code::Ud0_r32_rm32 | Code::Ud0_r64_rm64 | Code::Ud2 => return Needs::Absent,
        Code::Ud1_r16_rm16 | Code::Ud1_r32_rm32 | Code::Ud1_r64_rm64 => return Needs::Absent,
        _ => {}
    }
    let vex = code.encoding() == EncodingKind::VEX;
    if !matches!(code.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return Needs::Absent;
    }
    let features = code.cpuid_features();
    let mut needs = Needs::Nothing;
    for &feature in features {
        let this = match feature {
            F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::CPUID
            | F::CX8
            | F::CMOV
            | F::MSR
            | F::TSC
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::MOVBE
            | F::POPCNT
            | F::LZCNT
            | F::RDTSCP
            | F::PAUSE
            | F::MULTIBYTENOP
            | F::X64
            | F::SYSCALL
            | F::SEP
            | F::FSGSBASE
            | F::SMAP
            | F::INVPCID
            | F::RDPID
            | F::RDRAND
            | F::RDSEED
            | F::ADX
            | F::CMPXCHG16B
            | F::PREFETCHW
            | F::RDPMC
            | F::CET_IBT
            | F::INTEL386_ONLY
            | F::INTEL286_ONLY => Needs::Nothing,
            F::BMI1 | F::BMI2 => {
                if vex {
                    Needs::VexGpr
                } else {
                    Needs::Nothing
                }
            }
            F::FPU | F::FPU287 | F::FPU387 => Needs::X87,
            F::XSAVE => Needs::Xsave,
            F::MMX | F::FXSR => Needs::Mmx,
            F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::AES | F::PCLMULQDQ | F::SHA => {
                Needs::Sse
            }
            F::AVX | F::AVX2 | F::FMA | F::F16C => Needs::Avx,
            _ => return Needs::Absent,
        };
        if this != Needs::Nothing {
            needs = this;
        }
    }
    if vex && needs == Needs::Sse {
        needs = Needs::Avx;
    }
    // SSE instructions that touch no vector register work without it being enabled.
    match code.mnemonic() {
        iced_x86::Mnemonic::Prefetchnta
        | iced_x86::Mnemonic::Prefetcht0
        | iced_x86::Mnemonic::Prefetcht1
        | iced_x86::Mnemonic::Prefetcht2
        | iced_x86::Mnemonic::Prefetchw
        | iced_x86::Mnemonic::Prefetch
        | iced_x86::Mnemonic::Sfence
        | iced_x86::Mnemonic::Lfence
        | iced_x86::Mnemonic::Mfence
        | iced_x86::Mnemonic::Movnti
        | iced_x86::Mnemonic::Crc32
        | iced_x86::Mnemonic::Pause => Needs::Nothing,
        iced_x86::Mnemonic::Fisttp => Needs::X87,
        _ => needs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn of(bytes: &[u8]) -> Needs {
        needs(&Decoder::new(64, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn knows_what_enables_what() {
        assert_eq!(of(&[0x90]), Needs::Nothing);
        assert_eq!(of(&[0x0f, 0x0b]), Needs::Absent);
        assert_eq!(of(&[0xd9, 0xe8]), Needs::X87);
        assert_eq!(of(&[0x0f, 0x77]), Needs::Mmx);
        assert_eq!(of(&[0x0f, 0x58, 0xc1]), Needs::Sse);
        assert_eq!(of(&[0xc5, 0xf8, 0x58, 0xc1]), Needs::Avx);
        assert_eq!(of(&[0xc4, 0xe2, 0x70, 0xf2, 0xc2]), Needs::VexGpr);
        assert_eq!(of(&[0x66, 0x0f, 0x38, 0xdc, 0xc1]), Needs::Sse);
        assert_eq!(of(&[0xf3, 0x0f, 0xb8, 0xc1]), Needs::Nothing);
        assert_eq!(of(&[0x0f, 0xae, 0xf8]), Needs::Nothing);
        assert_eq!(of(&[0x0f, 0xae, 0x20]), Needs::Xsave);
        // VPADDD zmm
        assert_eq!(of(&[0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2]), Needs::Absent);
        // VMRUN, VMLAUNCH
        assert_eq!(of(&[0x0f, 0x01, 0xd8]), Needs::Absent);
        assert_eq!(of(&[0x0f, 0x01, 0xc2]), Needs::Absent);
        // SYSCALL, SWAPGS, CMPXCHG16B, ENDBR64, CRC32, ADCX
        for code in [
            &[0x0f, 0x05][..],
            &[0x0f, 0x01, 0xf8],
            &[0x48, 0x0f, 0xc7, 0x08],
            &[0xf3, 0x0f, 0x1e, 0xfa],
            &[0xf2, 0x0f, 0x38, 0xf0, 0xc1],
            &[0x66, 0x0f, 0x38, 0xf6, 0xc1],
        ] {
            assert_eq!(of(code), Needs::Nothing, "{code:x?}");
        }
    }
}
