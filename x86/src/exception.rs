//! Exceptions and their vectors (SDM 3A 6.15, table 6-1).

use std::fmt;

/// An exception that an instruction raises, with the error code that is pushed, if the vector has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector, 0 to 31.
    pub vector: u8,
    /// The error code; `None` where the vector pushes none.
    pub error_code: Option<u32>,
    /// The address for CR2; only a page fault has one.
    pub address: Option<u64>,
}

/// Vector numbers.
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod vector {
    pub const DIVIDE: u8 = 0;
    pub const DEBUG: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const BOUND: u8 = 5;
    pub const INVALID_OPCODE: u8 = 6;
    pub const DEVICE_NOT_AVAILABLE: u8 = 7;
    pub const DOUBLE_FAULT: u8 = 8;
    pub const INVALID_TSS: u8 = 10;
    pub const SEGMENT_NOT_PRESENT: u8 = 11;
    pub const STACK_FAULT: u8 = 12;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const X87: u8 = 16;
    pub const ALIGNMENT: u8 = 17;
    pub const MACHINE_CHECK: u8 = 18;
    pub const SIMD: u8 = 19;
}

impl Exception {
    const fn plain(vector: u8) -> Self {
        Self { vector, error_code: None, address: None }
    }

    const fn with_code(vector: u8, code: u32) -> Self {
        Self { vector, error_code: Some(code), address: None }
    }

    /// #DE.
    pub const DIVIDE: Self = Self::plain(vector::DIVIDE);
    /// #DB.
    pub const DEBUG: Self = Self::plain(vector::DEBUG);
    /// #BP.
    pub const BREAKPOINT: Self = Self::plain(vector::BREAKPOINT);
    /// #OF.
    pub const OVERFLOW: Self = Self::plain(vector::OVERFLOW);
    /// #BR.
    pub const BOUND: Self = Self::plain(vector::BOUND);
    /// #UD.
    pub const INVALID_OPCODE: Self = Self::plain(vector::INVALID_OPCODE);
    /// #NM.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::plain(vector::DEVICE_NOT_AVAILABLE);
    /// #MF.
    pub const X87: Self = Self::plain(vector::X87);
    /// #XM.
    pub const SIMD: Self = Self::plain(vector::SIMD);
    /// #DF(0).
    pub const DOUBLE_FAULT: Self = Self::with_code(vector::DOUBLE_FAULT, 0);
    /// #AC(0).
    pub const ALIGNMENT: Self = Self::with_code(vector::ALIGNMENT, 0);

    /// #GP with `code`, a selector's index and table bits or zero.
    pub const fn general_protection(code: u32) -> Self {
        Self::with_code(vector::GENERAL_PROTECTION, code)
    }

    /// #SS with `code`.
    pub const fn stack_fault(code: u32) -> Self {
        Self::with_code(vector::STACK_FAULT, code)
    }

    /// #NP with `code`.
    pub const fn not_present(code: u32) -> Self {
        Self::with_code(vector::SEGMENT_NOT_PRESENT, code)
    }

    /// #TS with `code`.
    pub const fn invalid_tss(code: u32) -> Self {
        Self::with_code(vector::INVALID_TSS, code)
    }

    /// #PF with the bits of [`crate::bits::page_fault`] in `code` and the faulting linear `address`.
    pub const fn page_fault(code: u32, address: u64) -> Self {
        Self { vector: vector::PAGE_FAULT, error_code: Some(code), address: Some(address) }
    }

    /// Whether a second exception of this kind during delivery of a first contributory one makes a double fault
    /// (SDM 3A table 6-4).
    pub const fn is_contributory(self) -> bool {
        matches!(
            self.vector,
            vector::DIVIDE
                | vector::INVALID_TSS
                | vector::SEGMENT_NOT_PRESENT
                | vector::STACK_FAULT
                | vector::GENERAL_PROTECTION
        )
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 20] = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "vector 9", "#TS", "#NP", "#SS", "#GP",
            "#PF", "vector 15", "#MF", "#AC", "#MC", "#XM",
        ];
        match NAMES.get(usize::from(self.vector)) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "vector {}", self.vector)?,
        }
        if let Some(code) = self.error_code {
            write!(f, "({code:#x})")?;
        }
        if let Some(address) = self.address {
            write!(f, " at {address:#x}")?;
        }
        Ok(())
    }
}
