//! System descriptors, gates and task-state segments as they lie in memory (SDM 3A 3.5, 6.11, 6.14, 7.2, 7.7).
//!
//! [`Gate`] unpacks the entries of the IDT and call gates; [`tss16`], [`tss32`] and [`tss64`] are byte offsets into
//! task-state segments. Segment descriptors of code and data are [`crate::segment`]'s.

use crate::segment::{Segment, attribute};

/// Types of system descriptors: the low four bits of [`Segment::attributes`] while `NON_SYSTEM` is clear
/// (SDM 3A table 3-2). In long mode only [`LDT`](kind::LDT) and those named `_32` exist, widened to 64 bits.
pub mod kind {
    /// 16-bit TSS, available.
    pub const TSS_16: u8 = 1;
    /// Local descriptor table.
    pub const LDT: u8 = 2;
    /// 16-bit TSS, busy.
    pub const TSS_16_BUSY: u8 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE_16: u8 = 4;
    /// Task gate.
    pub const TASK_GATE: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT_GATE_16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE_16: u8 = 7;
    /// 32-bit or 64-bit TSS, available.
    pub const TSS_32: u8 = 9;
    /// 32-bit or 64-bit TSS, busy.
    pub const TSS_32_BUSY: u8 = 11;
    /// 32-bit or 64-bit call gate.
    pub const CALL_GATE_32: u8 = 12;
    /// 32-bit or 64-bit interrupt gate.
    pub const INTERRUPT_GATE_32: u8 = 14;
    /// 32-bit or 64-bit trap gate.
    pub const TRAP_GATE_32: u8 = 15;
    /// The bit that makes a TSS busy.
    pub const BUSY: u8 = 2;
}

/// Selector bits (SDM 3A 3.4.2).
pub mod selector {
    /// Requested privilege level.
    pub const RPL: u16 = 3;
    /// In the local table rather than the global one.
    pub const LOCAL: u16 = 4;
    /// The index, which with three zero bits is the offset into the table.
    pub const INDEX: u16 = 0xfff8;

    /// The error code that names a selector: all but its RPL.
    pub const fn error_code(selector: u16) -> u32 {
        (selector & !RPL) as u32
    }

    /// A null selector: index 0 of the global table, any RPL.
    pub const fn is_null(selector: u16) -> bool {
        selector & !RPL == 0
    }
}

/// Bits of an error code that concerns the IDT (SDM 3A 6.13).
pub mod error_code {
    /// The event came from outside the program.
    pub const EXTERNAL: u32 = 1;
    /// The index is into the IDT.
    pub const IDT: u32 = 2;
}

/// A call, interrupt, trap or task gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Where to go in the segment; of a 16-bit gate the low half only, of a task gate nothing.
    pub offset: u64,
    /// The code segment, or the TSS of a task gate.
    pub selector: u16,
    /// One of [`kind`]; other values, with bit 4 for non-system descriptors, are not gates.
    pub kind: u8,
    /// Least privilege that may use it by instruction.
    pub dpl: u8,
    /// It is present.
    pub present: bool,
    /// Interrupt stack table entry, 0 to 7; only in long mode.
    pub ist: u8,
    /// Parameters that a call gate copies, 0 to 31; not in long mode.
    pub parameters: u8,
}

impl Gate {
    /// Unpacks eight bytes, as outside long mode (SDM 3A figures 5-8, 6-2).
    pub const fn from_legacy(raw: u64) -> Self {
        let kind = ((raw >> 40) & 0x1f) as u8;
        let wide = kind & 8 != 0;
        let high = if wide { (raw >> 32) & 0xffff_0000 } else { 0 };
        Self {
            offset: raw & 0xffff | high,
            selector: (raw >> 16) as u16,
            kind,
            dpl: ((raw >> 45) & 3) as u8,
            present: raw >> 47 & 1 != 0,
            ist: 0,
            parameters: ((raw >> 32) & 0x1f) as u8,
        }
    }

    /// Unpacks sixteen bytes, as in long mode (SDM 3A figures 5-9, 6-8).
    pub const fn from_long(low: u64, high: u64) -> Self {
        Self {
            offset: low & 0xffff | (low >> 32) & 0xffff_0000 | high << 32,
            selector: (low >> 16) as u16,
            kind: ((low >> 40) & 0x1f) as u8,
            dpl: ((low >> 45) & 3) as u8,
            present: low >> 47 & 1 != 0,
            ist: ((low >> 32) & 7) as u8,
            parameters: 0,
        }
    }

    /// Packs a long-mode gate; the inverse of [`Gate::from_long`].
    pub const fn to_long(&self) -> (u64, u64) {
        let low = self.offset & 0xffff
            | (self.selector as u64) << 16
            | ((self.ist & 7) as u64) << 32
            | ((self.kind & 0x1f) as u64) << 40
            | ((self.dpl & 3) as u64) << 45
            | (self.present as u64) << 47
            | (self.offset & 0xffff_0000) << 32;
        (low, self.offset >> 32)
    }
}

/// Whether the upper half of a 16-byte system descriptor is well formed: bits 12:8 of its second dword are zero
/// (SDM 3A 3.5.2).
pub const fn upper_half_is_valid(high: u64) -> bool {
    high >> 40 & 0x1f == 0
}

/// Packs a segment descriptor of eight bytes; the inverse of [`Segment::from_descriptor`], but for the low bits of a
/// page-granular limit. Of the base only the low 32 bits fit.
pub const fn pack(segment: &Segment) -> u64 {
    let limit = if segment.attributes & attribute::GRANULARITY != 0 { segment.limit >> 12 } else { segment.limit };
    (limit & 0xffff) as u64
        | ((limit & 0xf_0000) as u64) << 32
        | (segment.base & 0xff_ffff) << 16
        | (segment.base & 0xff00_0000) << 32
        | ((segment.attributes & 0xf0ff) as u64) << 40
}

/// Byte offsets in a 16-bit TSS (SDM 3A figure 7-10).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod tss16 {
    pub const BACK_LINK: u64 = 0;
    pub const SP0: u64 = 2;
    pub const SS0: u64 = 4;
    pub const IP: u64 = 14;
    pub const FLAGS: u64 = 16;
    /// AX, CX, DX, BX, SP, BP, SI, DI, two bytes each.
    pub const AX: u64 = 18;
    /// ES, CS, SS, DS, two bytes each.
    pub const ES: u64 = 34;
    pub const LDT: u64 = 42;
    /// The least limit that a 16-bit TSS may have.
    pub const MIN_LIMIT: u32 = 0x2b;
    /// Bytes from one privilege level's stack to the next.
    pub const STACK_STRIDE: u64 = 4;
}

/// Byte offsets in a 32-bit TSS (SDM 3A figure 7-2).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod tss32 {
    pub const BACK_LINK: u64 = 0;
    pub const ESP0: u64 = 4;
    pub const SS0: u64 = 8;
    pub const CR3: u64 = 28;
    pub const EIP: u64 = 32;
    pub const EFLAGS: u64 = 36;
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, four bytes each.
    pub const EAX: u64 = 40;
    /// ES, CS, SS, DS, FS, GS, four bytes each.
    pub const ES: u64 = 72;
    pub const LDT: u64 = 96;
    /// Bit 0: raise #DB on a switch to this task.
    pub const TRAP: u64 = 100;
    /// Offset of the I/O permission map.
    pub const IO_MAP: u64 = 102;
    /// The least limit that a 32-bit TSS may have.
    pub const MIN_LIMIT: u32 = 0x67;
    /// Bytes from one privilege level's stack to the next.
    pub const STACK_STRIDE: u64 = 8;
}

/// Byte offsets in a 64-bit TSS (SDM 3A figure 7-11).
pub mod tss64 {
    /// RSP0, RSP1, RSP2, eight bytes each.
    pub const RSP0: u64 = 4;
    /// IST1 to IST7, eight bytes each.
    pub const IST1: u64 = 36;
    /// Offset of the I/O permission map.
    pub const IO_MAP: u64 = 102;
    /// The least limit that a 64-bit TSS may have.
    pub const MIN_LIMIT: u32 = 0x67;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gates_round_trip() {
        let gate = Gate {
            offset: 0xffff_8123_4567_89ab,
            selector: 0x10,
            kind: kind::INTERRUPT_GATE_32,
            dpl: 3,
            present: true,
            ist: 5,
            parameters: 0,
        };
        let (low, high) = gate.to_long();
        assert_eq!(low, 0x4567_ee05_0010_89ab);
        assert_eq!(high, 0xffff_8123);
        assert_eq!(Gate::from_long(low, high), gate);
    }

    #[test]
    fn legacy_gates() {
        // A 32-bit trap gate at 0x0008:0x12345678, DPL 0.
        let gate = Gate::from_legacy(0x1234_8f00_0008_5678);
        assert_eq!((gate.offset, gate.selector, gate.kind), (0x1234_5678, 8, kind::TRAP_GATE_32));
        assert!(gate.present);
        // A 16-bit call gate ignores the upper half, and copies three words.
        let gate = Gate::from_legacy(0x1234_e403_0008_5678);
        assert_eq!((gate.offset, gate.parameters, gate.dpl), (0x5678, 3, 3));
        assert_eq!(gate.kind, kind::CALL_GATE_16);
    }

    #[test]
    fn descriptors_round_trip() {
        for raw in [0x00cf_9a00_0000_ffff, 0x00af_9b00_0000_ffff, 0x1200_8b34_5678_0067, 0x0000_f300_7c00_ffff] {
            assert_eq!(pack(&Segment::from_descriptor(8, raw)), raw, "{raw:#x}");
        }
        assert!(upper_half_is_valid(0xffff_8000));
        assert!(!upper_half_is_valid(1 << 40));
    }

    #[test]
    fn null_selectors_and_error_codes() {
        assert!((0..4).all(selector::is_null));
        assert!(!selector::is_null(selector::LOCAL));
        assert_eq!(selector::error_code(0x2b), 0x28);
        assert_eq!(selector::error_code(0x2f), 0x2c);
    }
}
