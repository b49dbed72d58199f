//! CPUID: the profile's table with what depends on the processor's state filled in.

use lodge_x86::bits::cr4;
use lodge_x86::cpuid::Processor;

use crate::cpu::Cpu;

/// What CPUID answers on this vCPU now: EAX, EBX, ECX, EDX.
pub fn answer(cpu: &mut Cpu, leaf: u32, subleaf: u32) -> [u32; 4] {
    let (osxsave, xcr0) = (cpu.cr4 & cr4::OSXSAVE != 0, cpu.xcr0);
    let context = cpu.context();
    let apic_base = context.io().apic_msr_read(lodge_x86::msr::APIC_BASE).unwrap_or(0);
    let processor = Processor {
        apic_id: context.index,
        apic_enabled: apic_base & lodge_x86::msr::apic_base::ENABLE != 0,
        osxsave,
        xcr0,
    };
    context.shared.cpuid.answer(leaf, subleaf, processor)
}
