//! Where everything lies in a case's memory: one fixed board for all cases.
//!
//! ```text
//! 0x00000  real-mode interrupt vectors      0x30000  stacks (IST 1 to 7, then the inner one, then the case's)
//! 0x01000  handlers, 8 bytes each           0xa0000  nobody: MMIO, reachable in real mode
//! 0x02000  GDT   0x03000  IDT               0x100000 page tables of two address spaces
//! 0x04000  TSS with I/O map                 0x200000 RAM for the case, mapped where it is
//! 0x07000  LDT   0x07800  a second TSS      0x400000 RAM for the case; as linear addresses unmapped
//! 0x08000  code  0x20000  data              0xd0000000 MMIO, one page of it mapped
//! ```

/// Handler of vector 0; each has [`HANDLER_STRIDE`] bytes.
pub const HANDLERS: u64 = 0x1000;
/// Bytes from one handler to the next.
pub const HANDLER_STRIDE: u64 = 8;
/// Global descriptor table.
pub const GDT: u64 = 0x2000;
/// Bytes of the GDT.
pub const GDT_BYTES: u64 = 0x100;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x3000;
/// Task-state segment.
pub const TSS: u64 = 0x4000;
/// Local descriptor table, 8 entries.
pub const LDT: u64 = 0x7000;
/// Room for a second task-state segment.
pub const TSS2: u64 = 0x7800;
/// The case's code; in 16-bit modes CS begins here.
pub const CODE: u64 = 0x8000;
/// The case's data; in 16-bit modes DS, ES, FS and GS begin here.
pub const DATA: u64 = 0x2_0000;
/// Where SS begins in 16-bit modes.
pub const STACKS: u64 = 0x3_0000;
/// Top of the inner stack, in the TSS.
pub const STACK_INNER: u64 = 0x3_8000;
/// Top of the stack that a case begins with.
pub const STACK: u64 = 0x3_c000;
/// MMIO below 1 MiB.
pub const MMIO_LOW: u64 = 0xa_0000;
/// First byte that is RAM again.
pub const MMIO_LOW_END: u64 = 0x10_0000;
/// Roots of the page tables of the two address spaces; each has [`TABLES_BYTES`].
pub const ROOTS: [u64; 2] = [0x10_0000, 0x18_0000];
/// Bytes for one address space's tables.
pub const TABLES_BYTES: u64 = 0x8_0000;
/// RAM that a case may use, identity-mapped.
pub const RAM: u64 = 0x20_0000;
/// Beginning of linear addresses that are unmapped where paging is on, but for what a case maps.
pub const PLAY: u64 = 0x40_0000;
/// End of RAM.
pub const RAM_END: u64 = 0x100_0000;
/// MMIO above RAM. One page of it is mapped.
pub const MMIO: u64 = 0xd000_0000;

/// Selectors of the GDT.
pub mod selector {
    /// 64-bit code, CPL 0.
    pub const CODE64: u16 = 0x08;
    /// Flat data, CPL 0.
    pub const DATA: u16 = 0x10;
    /// Flat 32-bit code, CPL 0.
    pub const CODE32: u16 = 0x18;
    /// Flat 32-bit code, CPL 3.
    pub const USER_CODE32: u16 = 0x23;
    /// Flat data, CPL 3.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit code, CPL 3.
    pub const USER_CODE64: u16 = 0x33;
    /// The TSS; two entries.
    pub const TSS: u16 = 0x38;
    /// 16-bit code at [`super::CODE`], CPL 0.
    pub const CODE16: u16 = 0x48;
    /// 16-bit data at [`super::DATA`], CPL 0.
    pub const DATA16: u16 = 0x50;
    /// 16-bit code, CPL 3.
    pub const USER_CODE16: u16 = 0x5b;
    /// 16-bit data, CPL 3.
    pub const USER_DATA16: u16 = 0x63;
    /// The LDT; two entries.
    pub const LDT: u16 = 0x68;
    /// 16-bit stack at [`super::STACKS`], CPL 0.
    pub const STACK16: u16 = 0x78;
    /// 16-bit stack, CPL 3.
    pub const USER_STACK16: u16 = 0x83;
    /// First that is a case's to define.
    pub const FREE: u16 = 0x90;
}

/// Ports of the board.
pub mod port {
    /// A write ends the case.
    pub const STOP: u16 = 0xe0;
    /// A write of n raises the case's event n.
    pub const EVENT: u16 = 0xe1;
    /// A write of n has the case's nth change of memory take place.
    pub const MEMORY: u16 = 0xe2;
    /// Reads as 0x89abcdef in its width, and writes are logged.
    pub const DATA: u16 = 0xe4;
}

/// The vector that ends a case as it should.
pub const END: u8 = 0xff;
