//! A processor's state as text, for crash reports.

use std::fmt;

use crate::segment::Segment;
use crate::state::CpuState;

const GPR_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// One segment register: selector, base, limit, attributes.
fn segment(f: &mut fmt::Formatter<'_>, name: &str, segment: &Segment) -> fmt::Result {
    let Segment { base, limit, selector, attributes } = *segment;
    writeln!(f, "{name:<4} {selector:04x}  base {base:016x}  limit {limit:08x}  attributes {attributes:04x}")
}

impl fmt::Display for CpuState {
    /// Several lines, each with its line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, registers) in self.gpr.chunks(4).enumerate() {
            for (column, value) in registers.iter().enumerate() {
                let gap = if column == 3 { "\n" } else { "  " };
                write!(f, "{:<3} {value:016x}{gap}", GPR_NAMES[row * 4 + column])?;
            }
        }
        writeln!(f, "rip {:016x}  rflags {:08x}  cpl {}", self.rip, self.rflags, self.cpl())?;
        for (name, value) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().zip(&self.segment) {
            segment(f, name, value)?;
        }
        segment(f, "ldtr", &self.ldtr)?;
        segment(f, "tr", &self.tr)?;
        for (name, table) in [("gdtr", self.gdtr), ("idtr", self.idtr)] {
            writeln!(f, "{name}       base {:016x}  limit {:04x}", table.base, table.limit)?;
        }
        let Self { cr0, cr2, cr3, cr4, .. } = *self;
        writeln!(f, "cr0 {cr0:08x}  cr2 {cr2:016x}  cr3 {cr3:016x}  cr4 {cr4:08x}")?;
        writeln!(f, "efer {:04x}  xcr0 {:x}", self.msrs.efer, self.xcr0)
    }
}

#[cfg(test)]
mod tests {
    use crate::state::CpuState;

    #[test]
    fn the_reset_state_shows_where_it_is() {
        let text = CpuState::reset(0x1234).to_string();
        assert!(text.contains("rdx 0000000000001234"), "{text}");
        assert!(text.contains("rip 000000000000fff0"), "{text}");
        assert!(text.contains("cs   f000  base 00000000ffff0000  limit 0000ffff"), "{text}");
        assert_eq!(text.lines().count(), 4 + 1 + 8 + 2 + 2);
    }
}
