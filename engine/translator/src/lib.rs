//! The same-ISA binary translator: runs x86 guests on an x86-64 host without hardware virtualization, as an ordinary
//! process.
//!
//! Guest and host speak the same instruction set, so an ordinary guest instruction is emitted again almost as it
//! stands ([`emit`]), and its results are right by construction. Memory operands go through an inline soft TLB
//! ([`tlb`]). Blocks of such code live in a cache ([`cache`]) and are found by guest physical address and mode
//! ([`translate`]), and may be kept from one run to the next ([`kept`]); the dispatcher ([`vcpu`]) runs where nothing is
//! known yet. System instructions are carried out in Rust ([`system`] and its neighbours) on the vCPU's state ([`cpu`]),
//! which emitted code reaches behind the GS base.
//!
//! There is no interpreter.
//!
//! Neighbours: `lodge_engine_api` is the seam to the machine; `lodge_x86` has the architecture as data.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("lodge's translator needs an x86-64 host");

mod access;
mod alias;
mod asm;
mod branch_table;
mod cache;
mod context;
mod control;
mod cpu;
mod cpuid;
mod crossing;
mod debug;
mod deliver;
mod disassemble;
mod emit;
mod features;
mod fpu;
mod frames;
mod gather;
mod go;
mod kept;
mod kvmclock;
mod legacy;
mod link;
mod load;
mod memory;
mod mirror;
mod mode;
mod msr;
mod operand;
mod partition;
mod perf;
mod port;
mod segment;
mod signal;
mod string;
mod stubs;
mod system;
mod task;
mod tlb;
mod transfer;
mod translate;
mod vcpu;
mod virtual_flag;
mod walk;
mod whole;
mod worth;

use std::sync::Arc;

use lodge_engine_api::{Capabilities, Engine, EngineError, Partition, PartitionSpec, Verdict};

use partition::{PHYSICAL_BITS, TranslatorPartition};
use stubs::Helpers;

/// Most vCPUs of a guest.
const MAX_VCPUS: u32 = 32;
/// Least and most bytes of code cache.
const CODE_CACHE: std::ops::RangeInclusive<usize> = (1 << 20)..=(1 << 30);

/// The translator as an engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Translator;

impl Engine for Translator {
    fn name(&self) -> &'static str {
        "translator"
    }

    fn probe(&self) -> Verdict {
        match missing() {
            None => Verdict::Usable("works on any x86-64 host with BMI2 and FSGSBASE, as this one".into()),
            Some(what) => Verdict::Unusable {
                cause: format!("the host has no {what}"),
                remedy: Some("use a processor of 2015 or later and Linux 5.9 or later".into()),
            },
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { max_vcpus: MAX_VCPUS, physical_address_bits: PHYSICAL_BITS, maps_at_guest_addresses: true }
    }

    fn create(&self, spec: PartitionSpec) -> Result<Arc<dyn Partition>, EngineError> {
        let refuse = |what: String| EngineError::Unsupported { engine: "translator", what };
        if let Some(what) = missing() {
            return Err(refuse(format!("running without {what}")));
        }
        if !(1..=MAX_VCPUS).contains(&spec.vcpus) {
            return Err(refuse(format!("{} vCPUs (1 to {MAX_VCPUS} are possible)", spec.vcpus)));
        }
        if !CODE_CACHE.contains(&spec.code_cache) {
            return Err(refuse(format!("a code cache of {} bytes", spec.code_cache)));
        }
        let helpers = Helpers {
            memory: access::memory,
            bounce_begin: access::bounce_begin,
            bounce_end: access::bounce_end,
            system: system::system,
            string: string::string,
            raise: system::raise,
        };
        let partition = TranslatorPartition::new(spec, &helpers)
            .map_err(|source| EngineError::Host { what: "setting up the code cache", source })?;
        Ok(Arc::new(partition))
    }
}

/// A host feature that the translator cannot do without and that is not there.
fn missing() -> Option<&'static str> {
    if !std::arch::is_x86_feature_detected!("bmi2") {
        return Some("BMI2");
    }
    (!host_has_fsgsbase()).then_some("FSGSBASE for user programs")
}

/// Whether the kernel lets programs use WRGSBASE (getauxval AT_HWCAP2, bit 1).
fn host_has_fsgsbase() -> bool {
    rustix::param::linux_hwcap().1 & 2 != 0
}
