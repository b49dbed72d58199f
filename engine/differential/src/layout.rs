//! Where a case's code and data lie, alike on both sides, and the record of a processor's state.

/// Cases in a batch.
pub const BATCH: usize = 512;
/// Bytes from one case's code to the next. Odd, so that some instructions cross pages.
pub const SLOT: usize = 243;
/// Linear address of the code.
pub const CODE: u64 = 0x2000_0000;
/// Bytes of code.
pub const CODE_BYTES: usize = 0x1f000;
/// Linear address of the data that a case may write; what lies before it is unmapped.
pub const DATA: u64 = 0x3000_0000;
/// Bytes of it.
pub const DATA_BYTES: usize = 0x2000;
/// Linear address of data that a case may only read; what follows it is unmapped.
pub const READ_ONLY: u64 = DATA + DATA_BYTES as u64;
/// Bytes of it.
pub const READ_ONLY_BYTES: usize = 0x1000;
/// Where the GS segment begins.
pub const GS_BASE: u64 = DATA + 0x800;
/// What ends a case.
pub const INT3: u8 = 0xcc;

/// Bytes of an XSAVE area with x87, SSE and AVX state.
pub const XSAVE_BYTES: usize = 832;
const XSAVE_AT: usize = 192;

/// A processor's state in a form that both sides can copy: sixteen registers by their number, then the fields named
/// by the constants of this type, then an XSAVE area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Record(pub [u8; Record::BYTES]);

impl Record {
    /// Bytes of a record.
    pub const BYTES: usize = XSAVE_AT + XSAVE_BYTES;
    /// Offset of the instruction pointer.
    pub const RIP: usize = 128;
    /// Offset of the flags.
    pub const RFLAGS: usize = 136;
    /// Offset of the vector that ended the case.
    pub const VECTOR: usize = 144;
    /// Offset of its error code.
    pub const ERROR: usize = 152;
    /// Offset of CR2.
    pub const CR2: usize = 160;
    /// Offset of the XSAVE area.
    pub const XSAVE: usize = XSAVE_AT;

    /// All zeros.
    pub const fn new() -> Self {
        Self([0; Self::BYTES])
    }

    /// The number at an offset.
    pub fn get(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Sets the number at an offset.
    pub fn set(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// A general-purpose register.
    pub fn gpr(&self, number: usize) -> u64 {
        self.get(number * 8)
    }

    /// Sets a general-purpose register.
    pub fn set_gpr(&mut self, number: usize, value: u64) {
        self.set(number * 8, value);
    }

    /// The XSAVE area.
    pub fn xsave(&self) -> &[u8] {
        &self.0[Self::XSAVE..]
    }

    /// The XSAVE area, to change.
    pub fn xsave_mut(&mut self) -> &mut [u8] {
        &mut self.0[Self::XSAVE..]
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

/// A case's end on one side.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The processor.
    pub record: Record,
    /// The data that it may write.
    pub data: Vec<u8>,
}
