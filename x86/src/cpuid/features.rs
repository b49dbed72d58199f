//! The feature bits by name, and why a guest can be shown each.

use super::Register::{self, Eax, Ebx, Ecx, Edx};

/// Why a feature can be shown.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The instructions run as themselves: the host must show the same bit.
    Host,
    /// They run as themselves and use YMM state: the host must show the bit, and its system must have enabled AVX.
    HostAvx,
    /// The engine provides it, whatever the host has.
    Engine,
    /// True of the host or of nobody; the function decides.
    Property(fn(&Host<'_>) -> bool),
}

/// A named feature bit.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The name, in lower case, as Linux writes it where Linux knows it.
    pub name: &'static str,
    /// The leaf (sub-leaf 0).
    pub leaf: u32,
    /// The register of the answer.
    pub register: Register,
    /// The bit in it.
    pub bit: u32,
    /// Why it can be shown.
    pub source: Source,
}

/// A host's CPUID, as far as features are concerned.
pub struct Host<'a> {
    cpuid: &'a dyn Fn(u32, u32) -> [u32; 4],
}

impl<'a> Host<'a> {
    /// Looks at a host through its CPUID instruction: leaf and sub-leaf to EAX, EBX, ECX, EDX.
    pub fn new(cpuid: &'a dyn Fn(u32, u32) -> [u32; 4]) -> Self {
        Self { cpuid }
    }

    /// Asks, respecting the highest leaf of the range: some processors repeat another leaf beyond it.
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let [highest, ..] = (self.cpuid)(leaf & 0x8000_0000, 0);
        if leaf > highest { [0; 4] } else { (self.cpuid)(leaf, subleaf) }
    }

    /// Whether the bit is set.
    pub fn bit(&self, leaf: u32, register: Register, bit: u32) -> bool {
        self.leaf(leaf, 0)[register as usize] >> bit & 1 != 0
    }

    /// Whether the host shows the feature itself.
    pub fn shows(&self, feature: &Feature) -> bool {
        self.bit(feature.leaf, feature.register, feature.bit)
    }

    /// Whether the host's system has enabled XSAVE with AVX state: CR4.OSXSAVE, and room for the upper halves in an
    /// area for the enabled components.
    pub fn avx_enabled(&self) -> bool {
        let [supported, enabled_size, ..] = self.leaf(0xd, 0);
        self.bit(1, Ecx, 27) && supported & 7 == 7 && enabled_size >= 832
    }

    /// Whether a feature can be given to a guest here.
    pub fn can_give(&self, feature: &Feature) -> bool {
        match feature.source {
            Source::Host => self.shows(feature),
            Source::HostAvx => self.shows(feature) && self.avx_enabled(),
            Source::Engine => true,
            Source::Property(holds) => holds(self),
        }
    }

    /// Whether the host's vendor is Intel.
    fn is_intel(&self) -> bool {
        let [_, b, c, d] = (self.cpuid)(0, 0);
        (b, d, c) == (0x756e_6547, 0x4965_6e69, 0x6c65_746e)
    }
}

/// XSAVE itself needs no more of the host than that its system enabled it: CR4.OSXSAVE.
fn xsave_enabled(host: &Host<'_>) -> bool {
    host.bit(1, Ecx, 27)
}

/// FXRSTOR and XRSTOR always restore the x87 error pointers: newer AMD processors say so, Intel's never did otherwise.
fn restores_error_pointers(host: &Host<'_>) -> bool {
    host.is_intel() || host.bit(0x8000_0008, Ebx, 2)
}

const fn host(name: &'static str, leaf: u32, register: Register, bit: u32) -> Feature {
    Feature { name, leaf, register, bit, source: Source::Host }
}

const fn avx(name: &'static str, leaf: u32, register: Register, bit: u32) -> Feature {
    Feature { name, leaf, register, bit, source: Source::HostAvx }
}

const fn engine(name: &'static str, leaf: u32, register: Register, bit: u32) -> Feature {
    Feature { name, leaf, register, bit, source: Source::Engine }
}

const fn property(
    name: &'static str,
    leaf: u32,
    register: Register,
    bit: u32,
    holds: fn(&Host<'_>) -> bool,
) -> Feature {
    Feature { name, leaf, register, bit, source: Source::Property(holds) }
}

/// Every feature bit that a guest may be shown.
pub const FEATURES: &[Feature] = &[
    // Leaf 1 EDX: the base architecture.
    host("fpu", 1, Edx, 0),
    engine("vme", 1, Edx, 1),
    engine("de", 1, Edx, 2),
    engine("pse", 1, Edx, 3),
    engine("tsc", 1, Edx, 4),
    engine("msr", 1, Edx, 5),
    engine("pae", 1, Edx, 6),
    // Machine checks never happen, and MCG_CAP shows no banks.
    engine("mce", 1, Edx, 7),
    host("cx8", 1, Edx, 8),
    engine("apic", 1, Edx, 9),
    engine("sep", 1, Edx, 11),
    engine("mtrr", 1, Edx, 12),
    engine("pge", 1, Edx, 13),
    engine("mca", 1, Edx, 14),
    host("cmov", 1, Edx, 15),
    engine("pat", 1, Edx, 16),
    engine("pse36", 1, Edx, 17),
    host("clflush", 1, Edx, 19),
    host("mmx", 1, Edx, 23),
    host("fxsr", 1, Edx, 24),
    host("sse", 1, Edx, 25),
    host("sse2", 1, Edx, 26),
    // Leaf 1 ECX.
    host("pni", 1, Ecx, 0),
    host("pclmulqdq", 1, Ecx, 1),
    host("ssse3", 1, Ecx, 9),
    avx("fma", 1, Ecx, 12),
    host("cx16", 1, Ecx, 13),
    engine("pcid", 1, Ecx, 17),
    host("sse4_1", 1, Ecx, 19),
    host("sse4_2", 1, Ecx, 20),
    engine("x2apic", 1, Ecx, 21),
    host("movbe", 1, Ecx, 22),
    host("popcnt", 1, Ecx, 23),
    engine("tsc_deadline_timer", 1, Ecx, 24),
    host("aes", 1, Ecx, 25),
    property("xsave", 1, Ecx, 26, xsave_enabled),
    avx("avx", 1, Ecx, 28),
    avx("f16c", 1, Ecx, 29),
    // Random numbers pass through the input boundary, so the engine serves them.
    engine("rdrand", 1, Ecx, 30),
    engine("hypervisor", 1, Ecx, 31),
    // Leaf 6: the APIC's timer runs in every C-state.
    engine("arat", 6, Eax, 2),
    // Leaf 7.
    engine("fsgsbase", 7, Ebx, 0),
    engine("tsc_adjust", 7, Ebx, 1),
    host("bmi1", 7, Ebx, 3),
    avx("avx2", 7, Ebx, 5),
    engine("smep", 7, Ebx, 7),
    host("bmi2", 7, Ebx, 8),
    host("erms", 7, Ebx, 9),
    engine("invpcid", 7, Ebx, 10),
    engine("rdseed", 7, Ebx, 18),
    host("adx", 7, Ebx, 19),
    engine("smap", 7, Ebx, 20),
    host("clflushopt", 7, Ebx, 23),
    host("sha_ni", 7, Ebx, 29),
    engine("umip", 7, Ecx, 2),
    engine("rdpid", 7, Ecx, 22),
    host("fsrm", 7, Edx, 4),
    // Leaf 0x80000001. The copies of leaf 1's EDX bits that AMD has here are made when the table is built.
    engine("syscall", 0x8000_0001, Edx, 11),
    engine("nx", 0x8000_0001, Edx, 20),
    host("mmxext", 0x8000_0001, Edx, 22),
    engine("pdpe1gb", 0x8000_0001, Edx, 26),
    engine("rdtscp", 0x8000_0001, Edx, 27),
    engine("lm", 0x8000_0001, Edx, 29),
    host("lahf_lm", 0x8000_0001, Ecx, 0),
    host("abm", 0x8000_0001, Ecx, 5),
    host("3dnowprefetch", 0x8000_0001, Ecx, 8),
    // Leaves 0x8000001d and 0x8000001e describe caches and topology.
    engine("topoext", 0x8000_0001, Ecx, 22),
    // The time-stamp counter runs at one rate, always. lodge requires that of the host.
    engine("invariant_tsc", 0x8000_0007, Edx, 8),
    // Spares Linux a dummy load at each restore of x87 state.
    property("xsaveerptr", 0x8000_0008, Ebx, 2, restores_error_pointers),
    // EFER has no LMSLE bit.
    engine("lmsle_unsupported", 0x8000_0008, Ebx, 20),
    //
    // What follows tells a guest which mitigations it need not apply. They would be void here: VERW, IBPB and writes
    // to SPEC_CTRL are emulated and touch no predictor or buffer of the host, retpolines are turned into plain jumps,
    // and guest branches are renamed, so that their addresses are not the predictor's. Keeping the VM away from the rest of
    // the host is the host kernel's work (a process among processes). IBPB, IBRS, STIBP and SSBD themselves stay
    // hidden, so that SPEC_CTRL and PRED_CMD need not exist.
    //
    // No speculative store bypass to control, so that Linux does not switch SSBD per task.
    engine("ssb_no", 0x8000_0008, Ebx, 26),
    // No branch type confusion ("Retbleed"): no untraining of returns at each kernel entry.
    engine("btc_no", 0x8000_0008, Ebx, 29),
    // LFENCE waits for what is before it (the host's kernel has seen to that): no write of DE_CFG at start.
    engine("lfence_rdtsc", 0x8000_0021, Eax, 2),
    // Loading a null selector into FS or GS clears the base.
    engine("null_sel_clr_base", 0x8000_0021, Eax, 6),
    // One bit in EFER instead of retpolines at each indirect branch or of SPEC_CTRL at each kernel entry.
    engine("autoibrs", 0x8000_0021, Eax, 8),
    // There is no SMM control register.
    engine("no_smm_ctl_msr", 0x8000_0021, Eax, 9),
    // No speculative return stack overflow ("Inception"): no safe-return thunks.
    engine("srso_no", 0x8000_0021, Eax, 29),
    // No transient scheduler attacks by way of the store queue or the L1 cache: no VERW at each kernel exit.
    engine("tsa_sq_no", 0x8000_0021, Ecx, 1),
    engine("tsa_l1_no", 0x8000_0021, Ecx, 2),
];
