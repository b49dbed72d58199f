//! CPUID: the processor that a guest sees.
//!
//! * [`Feature`] names every feature bit that a guest may be shown, with the reason why it can be ([`features`]).
//!   A bit without a name there is zero, whatever the host has.
//! * [`Profile`] is the outcome of holding those names against a host's own CPUID ([`Profile::for_host`]).
//! * [`Table`] is what the CPUID instruction answers: a profile plus the VM's [`Shape`], made by [`Profile::table`].
//!   What depends on the processor or its state is filled in by [`Table::answer`].
//!
//! The guest sees an AMD processor of family 19h (the signature of a "Milan") whatever the host is: guests then need
//! no kernel page-table isolation and none of the mitigations for flaws that only Intel's processors had, which a
//! translated guest does not have either. Leaves are described in SDM 2A "CPUID" and APM 3 appendix E.
//!
//! Neighbours: engines execute CPUID from a [`Table`]; `vm` makes the profile at start.

mod features;
mod profile;

#[cfg(test)]
mod tests;

pub use features::{FEATURES, Feature, Host, Source};
pub use profile::{Level, Missing, Profile, SIGNATURE, Shape};

/// A register of a CPUID answer, by its index in [`Entry::registers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum Register {
    Eax = 0,
    Ebx = 1,
    Ecx = 2,
    Edx = 3,
}

/// One CPUID answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// EAX asked.
    pub leaf: u32,
    /// ECX asked, where the leaf has sub-leaves.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX answered.
    pub registers: [u32; 4],
}

/// What CPUID answers, but for the fields that depend on the vCPU or its state, which [`Table::answer`] fills in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The answers, in any order.
    pub entries: Vec<Entry>,
}

/// What of a processor CPUID tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its local APIC's ID.
    pub apic_id: u32,
    /// The APIC is enabled in its base MSR.
    pub apic_enabled: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// XCR0.
    pub xcr0: u64,
}

impl Table {
    /// The answer to a leaf and sub-leaf, as it is for any processor. Leaves and sub-leaves that are not there are
    /// all zeros, which is AMD's rule (APM 3 appendix E.2); Intel would repeat the highest basic leaf.
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.entries
            .iter()
            .find(|entry| entry.leaf == leaf && entry.subleaf.is_none_or(|asked| asked == subleaf))
            .map_or([0; 4], |entry| entry.registers)
    }

    /// The answer to a leaf and sub-leaf on one processor in its present state.
    pub fn answer(&self, leaf: u32, subleaf: u32, processor: Processor) -> [u32; 4] {
        let mut registers = self.lookup(leaf, subleaf);
        let [eax, ebx, ecx, edx] = &mut registers;
        match leaf {
            1 => {
                *ebx = *ebx & 0x00ff_ffff | processor.apic_id << 24;
                set(ecx, 27, processor.osxsave && *ecx & 1 << 26 != 0);
                set(edx, 9, processor.apic_enabled && *edx & 1 << 9 != 0);
            }
            // A sub-leaf beyond the last level echoes its number and still has the ID.
            0xb if self.has(0xb) => {
                *ecx = *ecx & !0xff | subleaf & 0xff;
                *edx = processor.apic_id;
            }
            // The size for the components now enabled (SDM 1 13.2).
            0xd if subleaf == 0 && *eax != 0 => {
                *ebx = if processor.xcr0 & *eax as u64 & 4 != 0 { 832 } else { 576 };
            }
            0x8000_0001 => set(edx, 9, processor.apic_enabled && *edx & 1 << 9 != 0),
            0x8000_001e if self.has(0x8000_001e) => {
                *eax = processor.apic_id;
                *ebx = *ebx & !0xff | processor.apic_id & 0xff;
            }
            _ => {}
        }
        registers
    }

    /// Whether there is any entry of a leaf.
    fn has(&self, leaf: u32) -> bool {
        self.entries.iter().any(|entry| entry.leaf == leaf)
    }
}

/// Sets or clears a bit.
fn set(register: &mut u32, bit: u32, value: bool) {
    *register = *register & !(1 << bit) | u32::from(value) << bit;
}
