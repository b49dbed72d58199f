//! Instructions that random cases leave out, each with its reason, and the features of those that they have.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Mnemonic};

/// What is left out, and why.
pub const LEFT_OUT: &[(&[Mnemonic], &str)] = &[
    (&[Mnemonic::Rdtsc, Mnemonic::Rdtscp, Mnemonic::Rdrand, Mnemonic::Rdseed], "gives another number each time"),
    (
        &[Mnemonic::Rdpid, Mnemonic::Cpuid, Mnemonic::Xgetbv, Mnemonic::Rdpmc],
        "tells of the processor, and that differs",
    ),
    (
        &[
            Mnemonic::Fnsave,
            Mnemonic::Fnstenv,
            Mnemonic::Fxsave,
            Mnemonic::Fxsave64,
            Mnemonic::Xsave,
            Mnemonic::Xsave64,
            Mnemonic::Frstor,
            Mnemonic::Fldenv,
        ],
        "stores or loads the address of the last x87 instruction, which is the host's; conformance has cases",
    ),
    (
        &[Mnemonic::Fxrstor, Mnemonic::Fxrstor64, Mnemonic::Xrstor, Mnemonic::Xrstor64],
        "of random memory loads nothing: reserved bits raise #GP; conformance has cases",
    ),
    (
        &[Mnemonic::Popf, Mnemonic::Popfd, Mnemonic::Popfq],
        "may set TF and AC, which end the native side elsewhere; conformance has cases",
    ),
    (
        &[
            Mnemonic::Sgdt,
            Mnemonic::Sidt,
            Mnemonic::Sldt,
            Mnemonic::Str,
            Mnemonic::Smsw,
            Mnemonic::Verr,
            Mnemonic::Verw,
            Mnemonic::Lar,
            Mnemonic::Lsl,
        ],
        "tells of the system's tables, and those differ; under UMIP the host's kernel emulates some",
    ),
    (
        &[Mnemonic::Lfs, Mnemonic::Lgs, Mnemonic::Lss, Mnemonic::Lds, Mnemonic::Les],
        "loads a segment register: the tables differ",
    ),
    (
        &[Mnemonic::Rdfsbase, Mnemonic::Wrfsbase, Mnemonic::Rdgsbase, Mnemonic::Wrgsbase],
        "the native side's thread pointer lies behind FS, and GS must stay where both have it",
    ),
    (&[Mnemonic::Xbegin, Mnemonic::Xabort, Mnemonic::Xend], "no transactions in the guest's profile"),
    (&[Mnemonic::Int1], "the host's kernel makes a signal of it that looks like a single step"),
    (&[Mnemonic::Clac, Mnemonic::Stac], "at CPL 3 #UD in both; nothing to learn"),
];

/// Why an instruction is left out, if it is.
pub fn left_out(mnemonic: Mnemonic) -> Option<&'static str> {
    LEFT_OUT.iter().find(|(all, _)| all.contains(&mnemonic)).map(|(_, why)| *why)
}

/// Groups that cases draw from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// General-purpose registers.
    Integer,
    /// BMI, ADX and other late additions.
    Bits,
    /// x87.
    X87,
    /// MMX.
    Mmx,
    /// SSE to SSE4.2, AES, PCLMUL, SHA.
    Sse,
    /// AVX, AVX2, FMA, F16C.
    Avx,
}

/// The group of a code that cases may have.
pub fn group(code: Code) -> Option<Group> {
    use CpuidFeature as F;
    let op_code = code.op_code();
    let encoding = code.encoding();
    if !op_code.mode64() || !matches!(encoding, EncodingKind::Legacy | EncodingKind::VEX) {
        return None;
    }
    if matches!(
        code,
        Code::INVALID
            | Code::DeclareByte
            | Code::DeclareWord
            | Code::DeclareDword
            | Code::DeclareQword
            | Code::Zero_bytes
    ) {
        return None;
    }
    // Control flow other than what the generator makes itself goes where nothing is.
    if !matches!(code.flow_control(), FlowControl::Next | FlowControl::Exception) || left_out(code.mnemonic()).is_some()
    {
        return None;
    }
    let vex = encoding == EncodingKind::VEX;
    let mut group = Group::Integer;
    for &feature in code.cpuid_features() {
        let this = match feature {
            F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::CX8
            | F::CMOV
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::MOVBE
            | F::POPCNT
            | F::PAUSE
            | F::MULTIBYTENOP
            | F::X64
            | F::CMPXCHG16B
            | F::PREFETCHW
            | F::MSR
            | F::SEP => Group::Integer,
            F::BMI1 | F::BMI2 | F::ADX | F::LZCNT => Group::Bits,
            F::FPU | F::FPU287 | F::FPU387 => Group::X87,
            F::MMX => Group::Mmx,
            F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::AES | F::PCLMULQDQ | F::SHA => {
                Group::Sse
            }
            F::AVX | F::AVX2 | F::FMA | F::F16C => Group::Avx,
            _ => return None,
        };
        if this != Group::Integer {
            group = this;
        }
    }
    if vex && group == Group::Sse {
        group = Group::Avx;
    }
    Some(group)
}
