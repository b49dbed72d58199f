//! Numbers of model-specific registers, and their bits where a guest's use of them matters.
//!
//! Architectural ones are from SDM 4 chapter 2, AMD's (0xc000_0000 and 0xc001_0000 up) from APM 2 appendix A and the
//! Processor Programming Reference for family 19h, the paravirtual ones from the KVM interface. Who keeps the values:
//! the engine those of [`crate::state::Msrs`], the interrupt controller the APIC's, [`crate::cpuid`] says which exist.

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Wall clock of the first KVM paravirtual clock: same meaning as [`KVM_WALL_CLOCK`], older number.
pub const KVM_WALL_CLOCK_OLD: u32 = 0x11;
/// System time of the first KVM paravirtual clock: same meaning as [`KVM_SYSTEM_TIME`], older number.
pub const KVM_SYSTEM_TIME_OLD: u32 = 0x12;
/// Platform identification (Intel).
pub const PLATFORM_ID: u32 = 0x17;
/// Address and mode of the local APIC.
pub const APIC_BASE: u32 = 0x1b;
/// Hard power-on configuration (Intel).
pub const EBL_CR_POWERON: u32 = 0x2a;
/// Control of features in Intel 64 processors (Intel).
pub const FEATURE_CONTROL: u32 = 0x3a;
/// What software added to the time-stamp counter.
pub const TSC_ADJUST: u32 = 0x3b;
/// Speculation control.
pub const SPEC_CTRL: u32 = 0x48;
/// Prediction command (IBPB).
pub const PRED_CMD: u32 = 0x49;
/// Trigger of a microcode update (Intel).
pub const BIOS_UPDATE_TRIGGER: u32 = 0x79;
/// Microcode revision: Intel's signature register and AMD's patch level.
pub const PATCH_LEVEL: u32 = 0x8b;
/// SMM monitor control (Intel).
pub const SMM_MONITOR_CTL: u32 = 0x9b;
/// First of the performance counters (Intel).
pub const PMC0: u32 = 0xc1;
/// Platform information (Intel).
pub const PLATFORM_INFO: u32 = 0xce;
/// Clocks at the maximal frequency.
pub const MPERF: u32 = 0xe7;
/// Clocks at the actual frequency.
pub const APERF: u32 = 0xe8;
/// Memory-type range registers' capabilities.
pub const MTRR_CAP: u32 = 0xfe;
/// Enumeration of architectural features (Intel).
pub const ARCH_CAPABILITIES: u32 = 0x10a;
/// Enables CPUID faulting (Intel).
pub const MISC_FEATURES_ENABLES: u32 = 0x140;
/// SYSENTER: code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER: stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER: instruction pointer.
pub const SYSENTER_EIP: u32 = 0x176;
/// Machine check: capabilities; bits 7:0 count the banks.
pub const MCG_CAP: u32 = 0x179;
/// Machine check: status.
pub const MCG_STATUS: u32 = 0x17a;
/// Machine check: control.
pub const MCG_CTL: u32 = 0x17b;
/// First event selector of the performance counters (Intel).
pub const PERFEVTSEL0: u32 = 0x186;
/// Performance status (Intel).
pub const PERF_STATUS: u32 = 0x198;
/// Enables of miscellaneous features; see [`misc_enable`].
pub const MISC_ENABLE: u32 = 0x1a0;
/// Debug control: last-branch records, single-step on branches.
pub const DEBUG_CTL: u32 = 0x1d9;
/// Last branch: from.
pub const LAST_BRANCH_FROM: u32 = 0x1db;
/// Last branch: to.
pub const LAST_BRANCH_TO: u32 = 0x1dc;
/// Last branch before an exception: from.
pub const LAST_INT_FROM: u32 = 0x1dd;
/// Last branch before an exception: to.
pub const LAST_INT_TO: u32 = 0x1de;
/// First variable memory-type range: base; masks and bases alternate up to [`MTRR_PHYS_LAST`].
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// Mask of the eighth variable memory-type range.
pub const MTRR_PHYS_LAST: u32 = 0x20f;
/// Fixed memory-type range: 64 KiB pieces from 0.
pub const MTRR_FIX_64K: u32 = 0x250;
/// Fixed memory-type range: 16 KiB pieces from 0x80000.
pub const MTRR_FIX_16K_80000: u32 = 0x258;
/// Fixed memory-type range: 16 KiB pieces from 0xa0000.
pub const MTRR_FIX_16K_A0000: u32 = 0x259;
/// Fixed memory-type range: 4 KiB pieces from 0xc0000; seven more follow, 0x8000 bytes apart.
pub const MTRR_FIX_4K_C0000: u32 = 0x268;
/// The last of the fixed 4 KiB ranges.
pub const MTRR_FIX_4K_F8000: u32 = 0x26f;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// Memory-type ranges: default type and enables.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// Fixed performance counters' control (Intel).
pub const PERF_FIXED_CTR_CTRL: u32 = 0x38d;
/// Global control of performance counters (Intel).
pub const PERF_GLOBAL_CTRL: u32 = 0x38f;
/// Machine check bank 0: control; each bank has four registers.
pub const MC0_CTL: u32 = 0x400;
/// RAPL units (Intel).
pub const RAPL_POWER_UNIT_INTEL: u32 = 0x606;
/// Deadline of the local APIC's timer, in time-stamp counts.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First register of the local APIC in x2APIC mode.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last number reserved for the local APIC in x2APIC mode.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Supervisor states that XSAVES manages.
pub const XSS: u32 = 0xda0;

/// First number of a hypervisor's registers that follow Hyper-V.
pub const HYPERV_FIRST: u32 = 0x4000_0000;
/// KVM: physical address where the wall clock shall be written, once.
pub const KVM_WALL_CLOCK: u32 = 0x4b56_4d00;
/// KVM: physical address of this vCPU's clock page; bit 0 enables.
pub const KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// KVM: asynchronous page faults.
pub const KVM_ASYNC_PF_EN: u32 = 0x4b56_4d02;
/// KVM: stolen time.
pub const KVM_STEAL_TIME: u32 = 0x4b56_4d03;
/// KVM: end of interrupt without an exit.
pub const KVM_PV_EOI_EN: u32 = 0x4b56_4d04;
/// KVM: polling at HLT.
pub const KVM_POLL_CONTROL: u32 = 0x4b56_4d05;

/// Extended features; see [`crate::bits::efer`].
pub const EFER: u32 = 0xc000_0080;
/// SYSCALL: selectors and the 32-bit target.
pub const STAR: u32 = 0xc000_0081;
/// SYSCALL: target in 64-bit mode.
pub const LSTAR: u32 = 0xc000_0082;
/// SYSCALL: target in compatibility mode.
pub const CSTAR: u32 = 0xc000_0083;
/// SYSCALL: flags to clear.
pub const FMASK: u32 = 0xc000_0084;
/// Read-only [`MPERF`] (AMD).
pub const MPERF_READ_ONLY: u32 = 0xc000_00e7;
/// Read-only [`APERF`] (AMD).
pub const APERF_READ_ONLY: u32 = 0xc000_00e8;
/// Base of FS.
pub const FS_BASE: u32 = 0xc000_0100;
/// Base of GS.
pub const GS_BASE: u32 = 0xc000_0101;
/// What SWAPGS exchanges with [`GS_BASE`].
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// What RDTSCP and RDPID give.
pub const TSC_AUX: u32 = 0xc000_0103;
/// Ratio of guest to host time-stamp counter (AMD).
pub const TSC_RATIO: u32 = 0xc000_0104;
/// Control of hardware prefetchers (AMD).
pub const PREFETCH_CONTROL: u32 = 0xc000_0108;
/// Configuration of machine-check interrupts (AMD).
pub const MCA_INTR_CFG: u32 = 0xc000_0410;
/// First of the scalable machine-check registers (AMD).
pub const SMCA_FIRST: u32 = 0xc000_2000;
/// Last of the scalable machine-check registers (AMD).
pub const SMCA_LAST: u32 = 0xc000_2fff;

/// First legacy event selector of the performance counters (AMD).
pub const K7_EVNTSEL0: u32 = 0xc001_0000;
/// First legacy performance counter (AMD).
pub const K7_PERFCTR0: u32 = 0xc001_0004;
/// The last legacy performance counter (AMD).
pub const K7_PERFCTR3: u32 = 0xc001_0007;
/// System configuration (AMD); see [`syscfg`].
pub const SYSCFG: u32 = 0xc001_0010;
/// Hardware configuration (AMD); see [`hwcr`].
pub const HWCR: u32 = 0xc001_0015;
/// First I/O range register (AMD).
pub const IORR_BASE0: u32 = 0xc001_0016;
/// Last I/O range register (AMD).
pub const IORR_MASK1: u32 = 0xc001_0019;
/// Top of memory below 4 GiB (AMD).
pub const TOP_MEM: u32 = 0xc001_001a;
/// Top of memory above 4 GiB (AMD).
pub const TOP_MEM2: u32 = 0xc001_001d;
/// Northbridge configuration (AMD).
pub const NB_CFG: u32 = 0xc001_001f;
/// Loads microcode (AMD).
pub const PATCH_LOADER: u32 = 0xc001_0020;
/// First mask of machine-check banks (AMD).
pub const MC0_CTL_MASK: u32 = 0xc001_0044;
/// Interrupt pending and C1E (AMD).
pub const INT_PENDING: u32 = 0xc001_0055;
/// Base of PCI configuration space in memory (AMD).
pub const MMIO_CONF_BASE: u32 = 0xc001_0058;
/// Current limit of performance states (AMD).
pub const PSTATE_LIMIT: u32 = 0xc001_0061;
/// Control of performance states (AMD).
pub const PSTATE_CONTROL: u32 = 0xc001_0062;
/// Status of performance states (AMD).
pub const PSTATE_STATUS: u32 = 0xc001_0063;
/// First definition of a performance state (AMD); seven more follow.
pub const PSTATE_DEF0: u32 = 0xc001_0064;
/// I/O port that enters a C-state (AMD).
pub const CSTATE_ADDRESS: u32 = 0xc001_0073;
/// Watchdog of the processor (AMD).
pub const CPU_WATCHDOG: u32 = 0xc001_0074;
/// Base of system-management memory (AMD).
pub const SMM_BASE: u32 = 0xc001_0111;
/// System-management memory above 1 MiB: address (AMD).
pub const SMM_ADDR: u32 = 0xc001_0112;
/// System-management memory above 1 MiB: mask (AMD).
pub const SMM_MASK: u32 = 0xc001_0113;
/// Control of SVM (AMD).
pub const VM_CR: u32 = 0xc001_0114;
/// IGNNE# (AMD).
pub const IGNNE: u32 = 0xc001_0115;
/// Host save area of SVM (AMD).
pub const VM_HSAVE_PA: u32 = 0xc001_0117;
/// Virtual SPEC_CTRL (AMD).
pub const VIRT_SPEC_CTRL: u32 = 0xc001_011f;
/// State of encrypted virtualization (AMD).
pub const SEV_STATUS: u32 = 0xc001_0131;
/// OS-visible workarounds: how many bits (AMD).
pub const OSVW_ID_LENGTH: u32 = 0xc001_0140;
/// OS-visible workarounds: the bits (AMD).
pub const OSVW_STATUS: u32 = 0xc001_0141;
/// First core event selector; selectors and counters alternate (AMD).
pub const PERF_CTL0: u32 = 0xc001_0200;
/// The last core performance counter (AMD).
pub const PERF_CTR5: u32 = 0xc001_020b;
/// RAPL units (AMD).
pub const RAPL_POWER_UNIT: u32 = 0xc001_0299;
/// Energy used by the core (AMD).
pub const RAPL_CORE_ENERGY: u32 = 0xc001_029a;
/// Energy used by the package (AMD).
pub const RAPL_PACKAGE_ENERGY: u32 = 0xc001_029b;
/// Protected processor inventory number (AMD).
pub const PPIN_CTL: u32 = 0xc001_02f0;
/// Configuration of cached CPUID features, leaf 7 (AMD).
pub const CPUID_7_FEATURES: u32 = 0xc001_1002;
/// Configuration of cached CPUID features, leaf 6 (AMD).
pub const CPUID_6_FEATURES: u32 = 0xc001_1003;
/// Configuration of cached CPUID features, leaf 1 (AMD).
pub const CPUID_1_FEATURES: u32 = 0xc001_1004;
/// Configuration of cached CPUID features, leaf 0x80000001 (AMD).
pub const CPUID_8000_0001_FEATURES: u32 = 0xc001_1005;
/// Configuration of loads and stores (AMD).
pub const LS_CFG: u32 = 0xc001_1020;
/// Configuration of the instruction cache (AMD).
pub const IC_CFG: u32 = 0xc001_1021;
/// Configuration of the data cache (AMD).
pub const DC_CFG: u32 = 0xc001_1022;
/// Configuration of the table walker (AMD).
pub const TW_CFG: u32 = 0xc001_1023;
/// Configuration of the floating-point unit (AMD).
pub const FP_CFG: u32 = 0xc001_1028;
/// Configuration of the decoder (AMD); see [`de_cfg`].
pub const DE_CFG: u32 = 0xc001_1029;
/// Configuration of the bus unit (AMD).
pub const BU_CFG2: u32 = 0xc001_102a;
/// Configuration of loads and stores, the newer half (AMD).
pub const LS_CFG2: u32 = 0xc001_102d;
/// Spectral chicken and other bits of the branch predictor (AMD).
pub const BP_CFG: u32 = 0xc001_10e3;

/// Bits of [`APIC_BASE`] (SDM 3A 10.4.4, 10.12.1).
pub mod apic_base {
    /// This is the bootstrap processor.
    pub const BSP: u64 = 1 << 8;
    /// x2APIC mode.
    pub const X2APIC: u64 = 1 << 10;
    /// The APIC is enabled.
    pub const ENABLE: u64 = 1 << 11;
    /// The address after RESET.
    pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;
}

/// Bits of [`MISC_ENABLE`] (SDM 4 table 2-2).
pub mod misc_enable {
    /// Fast string operations.
    pub const FAST_STRING: u64 = 1 << 0;
    /// CPUID's highest basic leaf is limited to 2.
    pub const LIMIT_CPUID: u64 = 1 << 22;
    /// No execute-disable.
    pub const XD_DISABLE: u64 = 1 << 34;
}

/// Bits of [`HWCR`] (PPR 19h, MSRC001_0015).
pub mod hwcr {
    /// SMM code lock.
    pub const SMM_LOCK: u64 = 1 << 0;
    /// Machine-check status registers can be written.
    pub const MC_STATUS_WRITE: u64 = 1 << 18;
    /// The time-stamp counter counts at the frequency of P0.
    pub const TSC_FREQ_SEL: u64 = 1 << 24;
}

/// Bits of [`SYSCFG`] (APM 2 7.9.2, A.1).
pub mod syscfg {
    /// The fixed ranges' extended attributes are in force.
    pub const MTRR_FIX_DRAM_EN: u64 = 1 << 18;
    /// The fixed ranges' extended attributes may be changed.
    pub const MTRR_FIX_DRAM_MOD_EN: u64 = 1 << 19;
    /// I/O ranges and [`super::TOP_MEM`] are in force.
    pub const MTRR_VAR_DRAM_EN: u64 = 1 << 20;
    /// [`super::TOP_MEM2`] is in force.
    pub const TOM2_EN: u64 = 1 << 21;
    /// Memory between 4 GiB and [`super::TOP_MEM2`] is write-back.
    pub const TOM2_FORCE_WB: u64 = 1 << 22;
    /// Memory encryption.
    pub const MEM_ENCRYPTION: u64 = 1 << 23;
}

/// Bits of [`DE_CFG`].
pub mod de_cfg {
    /// LFENCE waits for all instructions before it.
    pub const LFENCE_SERIALIZE: u64 = 1 << 1;
}
