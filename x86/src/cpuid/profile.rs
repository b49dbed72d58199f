//! From a host and the shape of a VM to a CPUID table.

use super::features::{FEATURES, Feature, Host};
use super::{Entry, Table};

/// Leaf 1 EAX: family 19h, model 01h, stepping 1.
pub const SIGNATURE: u32 = 0x00a0_0f11;

/// Features without which lodge does not run on a host.
const REQUIRED: [&str; 2] = ["fsgsbase", "bmi2"];

/// Features of x86-64-v3 and, first, of -v2 beyond the baseline (the psABI's micro-architecture levels).
const LEVEL_2: [&str; 7] = ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"];
const LEVEL_3: [&str; 9] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"];

/// "AuthenticAMD" as EBX, ECX, EDX.
const VENDOR: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

/// KVM's signature "KVMKVMKVM" as EBX, ECX, EDX.
const KVM_SIGNATURE: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x0000_004d];

/// KVM's paravirtual features (leaf 0x40000001 EAX): delays on I/O ports are needless (bit 1), the clock has its
/// second MSRs (bit 3), and its flag for "monotonic over all vCPUs" means something (bit 24).
const KVM_FEATURES: u32 = 1 << 1 | 1 << 3 | 1 << 24;

/// Bits of leaf 1 EDX that AMD repeats in leaf 0x80000001 EDX (APM 3 E.4.2).
const REPEATED: u32 = 0x0183_f3ff;

/// The host's processor lacks what lodge cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's processor lacks {}; lodge needs Intel Haswell, AMD Excavator or later", .features.join(" and "))]
pub struct Missing {
    /// The features' names.
    pub features: Vec<&'static str>,
}

/// A micro-architecture level of the x86-64 psABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the psABI's")]
pub enum Level {
    V1,
    V2,
    V3,
}

impl Level {
    /// The name as compilers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
        }
    }
}

/// The features that guests on this host are shown.
#[derive(Clone, Debug)]
pub struct Profile {
    features: Vec<Feature>,
}

/// What a table needs to know of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many vCPUs, 1 to 255. One socket, as many cores, one thread each; APIC IDs count from 0.
    pub vcpus: u32,
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// Frequency that the local APIC's timer divides, in Hz.
    pub apic_hz: u64,
    /// Width of a physical address in bits, 36 to 52.
    pub physical_address_bits: u8,
}

impl Profile {
    /// Holds [`FEATURES`] against a host's CPUID instruction: leaf and sub-leaf to EAX, EBX, ECX, EDX. What the host
    /// cannot give is left out.
    ///
    /// # Errors
    ///
    /// [`Missing`], where the host lacks BMI2 or FSGSBASE.
    pub fn for_host(host_cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Result<Self, Missing> {
        let host = Host::new(&host_cpuid);
        let missing: Vec<_> = FEATURES
            .iter()
            .filter(|feature| REQUIRED.contains(&feature.name) && !host.shows(feature))
            .map(|feature| feature.name)
            .collect();
        if !missing.is_empty() {
            return Err(Missing { features: missing });
        }
        let features = FEATURES.iter().filter(|feature| host.can_give(feature)).copied().collect();
        Ok(Self { features })
    }

    /// The names of the features, in the order of [`FEATURES`].
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.features.iter().map(|feature| feature.name)
    }

    /// Whether it has the feature of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    /// Leaves features out by name: what an engine cannot do, or a user does not want.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.features.retain(|feature| !names.contains(&feature.name));
        self
    }

    /// The highest level all of whose features are there.
    pub fn level(&self) -> Level {
        let all = |names: &[&str]| names.iter().all(|name| self.has(name));
        match (all(&LEVEL_2), all(&LEVEL_3)) {
            (true, true) => Level::V3,
            (true, false) => Level::V2,
            (false, _) => Level::V1,
        }
    }

    /// The feature bits of one register of a leaf's answer.
    pub fn bits(&self, leaf: u32, register: super::Register) -> u32 {
        self.features
            .iter()
            .filter(|feature| feature.leaf == leaf && feature.register == register)
            .fold(0, |bits, feature| bits | 1 << feature.bit)
    }

    /// Only feature bits in a leaf.
    fn feature_leaf(&self, leaf: u32) -> [u32; 4] {
        use super::Register::{Eax, Ebx, Ecx, Edx};
        [Eax, Ebx, Ecx, Edx].map(|register| self.bits(leaf, register))
    }

    /// What CPUID answers in a VM of this shape.
    pub fn table(&self, shape: &Shape) -> Table {
        let mut table = Table::default();
        let mut plain = |leaf, registers| table.entries.push(Entry { leaf, subleaf: None, registers });
        let vcpus = shape.vcpus.clamp(1, 255);
        let khz = |hz: u64| u32::try_from(hz / 1000).unwrap_or(u32::MAX);
        let [ebx, ecx, edx] = VENDOR;
        plain(0, [0x16, ebx, ecx, edx]);

        let [_, _, ecx, edx] = self.feature_leaf(1);
        let several = u32::from(vcpus > 1);
        // Eight times eight bytes in a cache line; bit 28 (HTT) says that the count of processors means something.
        plain(1, [SIGNATURE, 8 << 8 | vcpus << 16, ecx, edx | several << 28]);
        plain(6, self.feature_leaf(6));
        // The crystal is what the APIC's timer divides, and the counter runs at this ratio to it.
        plain(0x15, [khz(shape.apic_hz), khz(shape.tsc_hz), u32::try_from(shape.apic_hz).unwrap_or(0), 0]);
        let mhz = (khz(shape.tsc_hz) / 1000).min(0xffff);
        plain(0x16, [mhz, mhz, 100, 0]);

        let [ebx, ecx, edx] = KVM_SIGNATURE;
        plain(0x4000_0000, [0x4000_0010, ebx, ecx, edx]);
        plain(0x4000_0001, [KVM_FEATURES, 0, 0, 0]);
        plain(0x4000_0010, [khz(shape.tsc_hz), khz(shape.apic_hz), 0, 0]);

        let [ebx, ecx, edx] = VENDOR;
        plain(0x8000_0000, [0x8000_0021, ebx, ecx, edx]);
        let [_, _, more_ecx, more_edx] = self.feature_leaf(0x8000_0001);
        let repeated = self.bits(1, super::Register::Edx) & REPEATED;
        // Bit 1 of ECX (CmpLegacy): the several processors are cores, not threads.
        plain(0x8000_0001, [SIGNATURE, 0x4000_0000, more_ecx | several << 1, more_edx | repeated]);
        for (leaf, registers) in (0x8000_0002..).zip(brand(self.level())) {
            plain(leaf, registers);
        }
        // L1: TLBs of 64 fully associative entries for any page size; 32 KiB, 8 ways, 64-byte lines, twice.
        plain(0x8000_0005, [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140]);
        // L2: TLBs of 1024 and 512 entries, 8 ways; 512 KiB, 8 ways. L3: 32 MiB (in 512 KiB), 16 ways.
        plain(0x8000_0006, [0x6400_6200, 0x6400_6200, 0x0200_6140, 64 << 18 | 0x8140]);
        plain(0x8000_0007, self.feature_leaf(0x8000_0007));
        let id_bits = vcpus.next_power_of_two().trailing_zeros();
        let [_, ebx, _, _] = self.feature_leaf(0x8000_0008);
        let widths = u32::from(shape.physical_address_bits.clamp(36, 52)) | 48 << 8;
        plain(0x8000_0008, [widths, ebx, id_bits << 12 | (vcpus - 1), 0]);
        // Thread 0 of each core; node 0 of one.
        plain(0x8000_001e, [0, 0, 0, 0]);
        plain(0x8000_0021, self.feature_leaf(0x8000_0021));

        table.entries.extend(self.subleaves(vcpus, id_bits));
        table
    }

    /// The leaves that have sub-leaves.
    fn subleaves(&self, vcpus: u32, id_bits: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut sub = |leaf, subleaf, registers| entries.push(Entry { leaf, subleaf: Some(subleaf), registers });
        // EAX is the highest sub-leaf.
        let [_, ebx, ecx, edx] = self.feature_leaf(7);
        sub(7, 0, [0, ebx, ecx, edx]);
        // Topology: one thread a core, all cores in one package (SDM 2A, leaf 0BH).
        sub(0xb, 0, [0, 1, 1 << 8, 0]);
        sub(0xb, 1, [id_bits, vcpus, 2 << 8 | 1, 0]);
        if self.has("xsave") {
            // Components x87, SSE and, where there is AVX, the upper halves: 256 bytes at 576. Sub-leaf 1 is zero:
            // no XSAVEOPT, XSAVEC or XSAVES, which would need a format or tracking of their own.
            let (components, size) = if self.has("avx") { (7, 832) } else { (3, 576) };
            sub(0xd, 0, [components, 576, size, 0]);
            if self.has("avx") {
                sub(0xd, 2, [256, 576, 0, 0]);
            }
        }
        // Caches (APM 3 E.4.15): L1 data, L1 code, L2 of one core each, and L3 of all.
        sub(0x8000_001d, 0, cache(1, 1, 8, 64, 1, 0));
        sub(0x8000_001d, 1, cache(2, 1, 8, 64, 1, 0));
        sub(0x8000_001d, 2, cache(3, 2, 8, 1024, 1, 2));
        sub(0x8000_001d, 3, cache(3, 3, 16, 32768, vcpus, 1));
        entries
    }
}

/// A cache with 64-byte lines. `kind`: 1 data, 2 code, 3 both. `flags`: 1 as WBINVD does not reach the sharers' lower
/// levels, 2 as it includes the lower levels.
fn cache(kind: u32, level: u32, ways: u32, sets: u32, sharers: u32, flags: u32) -> [u32; 4] {
    [kind | level << 5 | 1 << 8 | (sharers - 1) << 14, 63 | (ways - 1) << 22, sets - 1, flags]
}

/// Leaves 0x80000002 to 0x80000004: the name in 48 bytes.
fn brand(level: Level) -> [[u32; 4]; 3] {
    let mut text = [0u8; 48];
    let name = format!("lodge virtual CPU ({})", level.name());
    text[..name.len()].copy_from_slice(name.as_bytes());
    let word = |at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    [0, 16, 32].map(|at| [word(at), word(at + 4), word(at + 8), word(at + 12)])
}
