//! Segments: the hidden part of a segment register, and descriptors as they lie in memory (SDM 3A 3.4, 3.5).

/// Names a segment register by its number in instruction encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// Attribute bits of [`Segment::attributes`]: bits 8 to 15 and 20 to 23 of a descriptor's high half, shifted to 0.
pub mod attribute {
    /// Accessed.
    pub const ACCESSED: u16 = 1 << 0;
    /// Data: writable. Code: readable.
    pub const READ_WRITE: u16 = 1 << 1;
    /// Data: expands down. Code: conforming.
    pub const DOWN_CONFORMING: u16 = 1 << 2;
    /// Code rather than data.
    pub const CODE: u16 = 1 << 3;
    /// Code or data rather than system.
    pub const NON_SYSTEM: u16 = 1 << 4;
    /// Where the privilege level begins.
    pub const DPL_SHIFT: u16 = 5;
    /// Present.
    pub const PRESENT: u16 = 1 << 7;
    /// 64-bit code.
    pub const LONG: u16 = 1 << 13;
    /// 32-bit code or stack; expand-down data reach to 4 GiB.
    pub const BIG: u16 = 1 << 14;
    /// The limit counts pages.
    pub const GRANULARITY: u16 = 1 << 15;
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// First linear address.
    pub base: u64,
    /// Last offset, in bytes (a page-granular limit has been scaled).
    pub limit: u32,
    /// What software sees.
    pub selector: u16,
    /// [`attribute`] bits. Without [`attribute::PRESENT`] the register holds a null selector: unusable.
    pub attributes: u16,
}

impl Segment {
    /// A segment as real mode and virtual-8086 mode make it: base from the selector, 64 KiB, `attributes` given.
    pub const fn real_mode(selector: u16, attributes: u16) -> Self {
        Self { base: (selector as u64) << 4, limit: 0xffff, selector, attributes }
    }

    /// Unpacks a descriptor of eight bytes. The base has its low 32 bits; a 16-byte system descriptor's upper half
    /// is the caller's to add.
    pub const fn from_descriptor(selector: u16, raw: u64) -> Self {
        let base = (raw >> 16) & 0xff_ffff | (raw >> 32) & 0xff00_0000;
        let attributes = ((raw >> 40) & 0xf0ff) as u16;
        let small = (raw & 0xffff | (raw >> 32) & 0xf_0000) as u32;
        let limit = if attributes & attribute::GRANULARITY != 0 { small << 12 | 0xfff } else { small };
        Self { base, limit, selector, attributes }
    }

    /// Whether the register can be used to reach memory.
    pub const fn is_usable(&self) -> bool {
        self.attributes & attribute::PRESENT != 0
    }

    /// The descriptor's privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.attributes >> attribute::DPL_SHIFT & 3) as u8
    }

    /// Whether it describes code.
    pub const fn is_code(&self) -> bool {
        self.attributes & (attribute::CODE | attribute::NON_SYSTEM) == attribute::CODE | attribute::NON_SYSTEM
    }

    /// Whether data may be written through it.
    pub const fn is_writable_data(&self) -> bool {
        const WANT: u16 = attribute::NON_SYSTEM | attribute::READ_WRITE | attribute::PRESENT;
        self.attributes & (WANT | attribute::CODE) == WANT
    }

    /// Whether data may be read through it: all data, and readable code.
    pub const fn is_readable(&self) -> bool {
        self.is_usable() && (self.attributes & attribute::CODE == 0 || self.attributes & attribute::READ_WRITE != 0)
    }

    /// Whether it is data that expands down.
    pub const fn is_expand_down(&self) -> bool {
        self.attributes & (attribute::CODE | attribute::DOWN_CONFORMING) == attribute::DOWN_CONFORMING
    }

    /// The four type bits and the non-system bit.
    pub const fn kind(&self) -> u8 {
        (self.attributes & 0x1f) as u8
    }

    /// Base 0 and a limit of 4 GiB in a segment that expands up: address and offset are one.
    pub const fn is_flat(&self) -> bool {
        self.base == 0 && self.limit == u32::MAX && self.is_usable() && !self.is_expand_down()
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableRegister {
    /// First linear address.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}
