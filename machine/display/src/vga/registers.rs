//! Registers of a VGA (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"), of Bochs' extension (QEMU
//! `docs/specs/standard-vga.rst`), and of the card's PCI function.

/// Ports that a VGA owns: (first, count).
pub const PORTS: [(u16, u16); 5] = [(0x3b4, 2), (0x3ba, 1), (0x3c0, 16), (0x3d4, 2), (0x3da, 1)];
/// Attribute controller: index and data.
pub const ATTRIBUTE: u16 = 0x3c0;
/// Attribute controller: data, to be read.
pub const ATTRIBUTE_READ: u16 = 0x3c1;
/// Miscellaneous output when written, input status 0 when read.
pub const MISC_WRITE: u16 = 0x3c2;
/// The subsystem's enable.
pub const ENABLE: u16 = 0x3c3;
/// Sequencer index; its data follow.
pub const SEQUENCER: u16 = 0x3c4;
/// Mask of what goes to the DAC.
pub const DAC_MASK: u16 = 0x3c6;
/// DAC: index for reads when written, state when read.
pub const DAC_READ_INDEX: u16 = 0x3c7;
/// DAC: index for writes.
pub const DAC_WRITE_INDEX: u16 = 0x3c8;
/// DAC: components.
pub const DAC_DATA: u16 = 0x3c9;
/// Feature control, to be read.
pub const FEATURE_READ: u16 = 0x3ca;
/// Miscellaneous output, to be read.
pub const MISC_READ: u16 = 0x3cc;
/// Graphics controller index; its data follow.
pub const GRAPHICS: u16 = 0x3ce;
/// CRT controller index, where a colour card has it; its data follow.
pub const CRTC: u16 = 0x3d4;
/// Input status 1 when read, feature control when written, where a colour card has it.
pub const STATUS_1: u16 = 0x3da;
/// The same where a monochrome card has it.
pub const STATUS_1_MONOCHROME: u16 = 0x3ba;

/// Miscellaneous output: ports are where a colour card has them.
pub const MISC_COLOUR: u8 = 1 << 0;
/// Input status 0: switch sense, which says that a colour monitor is there.
pub const STATUS_0_SENSE: u8 = 1 << 4;
/// Input status 1: nothing is displayed now.
pub const STATUS_1_BLANK: u8 = 1 << 0;
/// Input status 1: vertical retrace.
pub const STATUS_1_RETRACE: u8 = 1 << 3;

/// Sequencer registers.
pub mod seq {
    /// Bits that can be written, by register.
    pub const MASKS: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
    /// Clocking mode.
    pub const CLOCKING: usize = 1;
    /// Clocking mode: eight dots a character rather than nine.
    pub const CLOCKING_8_DOTS: u8 = 1 << 0;
    /// Clocking mode: the dot clock is halved.
    pub const CLOCKING_HALF: u8 = 1 << 3;
    /// Clocking mode: the screen is off.
    pub const CLOCKING_OFF: u8 = 1 << 5;
    /// Which planes are written.
    pub const MAP_MASK: usize = 2;
    /// Which fonts are used.
    pub const FONTS: usize = 3;
    /// Memory mode.
    pub const MEMORY: usize = 4;
    /// Memory mode: chain 4.
    pub const MEMORY_CHAIN_4: u8 = 1 << 3;
}

/// CRT controller registers.
pub mod crtc {
    #![expect(missing_docs, reason = "the names are the reference's")]
    /// How many there are.
    pub const COUNT: u8 = 0x19;
    pub const H_TOTAL: usize = 0x00;
    pub const H_DISPLAY_END: usize = 0x01;
    pub const V_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW: usize = 0x08;
    pub const MAX_SCAN: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const START_LOW: usize = 0x0d;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const CURSOR_LOW: usize = 0x0f;
    pub const V_RETRACE_START: usize = 0x10;
    pub const V_RETRACE_END: usize = 0x11;
    pub const V_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
    /// Beyond the documented ones: the latch of the plane that reads select.
    pub const LATCH: u8 = 0x22;
    /// Beyond the documented ones: the attribute controller's flip-flop.
    pub const FLIP_FLOP: u8 = 0x24;
    /// Vertical retrace end: registers 0 to 7 are protected.
    pub const PROTECT: u8 = 1 << 7;
    /// Overflow: bit 8 of line compare, which is never protected.
    pub const OVERFLOW_LINE_COMPARE: u8 = 1 << 4;
}

/// Graphics controller registers.
pub mod gfx {
    #![expect(missing_docs, reason = "the names are the reference's")]
    /// Bits that can be written, by register.
    pub const MASKS: [u8; 16] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COMPARE: usize = 2;
    pub const ROTATE: usize = 3;
    pub const READ_MAP: usize = 4;
    pub const MODE: usize = 5;
    pub const MISC: usize = 6;
    pub const DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
    /// Mode: read mode 1.
    pub const MODE_READ_1: u8 = 1 << 3;
    /// Mode: odd and even addresses go to odd and even planes.
    pub const MODE_ODD_EVEN: u8 = 1 << 4;
    /// Mode: what is shown comes from two planes in turn.
    pub const MODE_INTERLEAVED: u8 = 1 << 5;
    /// Mode: what is shown has 256 colours.
    pub const MODE_256: u8 = 1 << 6;
    /// Miscellaneous: graphics, not text.
    pub const MISC_GRAPHICS: u8 = 1 << 0;
}

/// Attribute controller registers.
pub mod attr {
    #![expect(missing_docs, reason = "the names are the reference's")]
    /// Bits of the index; more say whether the palette is shown.
    pub const INDEX: u8 = 0x1f;
    /// Index: the palette is the screen's, not the processor's.
    pub const SHOWN: u8 = 1 << 5;
    pub const MODE: usize = 0x10;
    pub const OVERSCAN: usize = 0x11;
    pub const PLANES: usize = 0x12;
    pub const PANNING: usize = 0x13;
    pub const COLOUR_SELECT: usize = 0x14;
    /// Mode: graphics.
    pub const MODE_GRAPHICS: u8 = 1 << 0;
    /// Mode: line graphics reach into the ninth dot.
    pub const MODE_LINES: u8 = 1 << 2;
    /// Mode: the upper bit of the background blinks.
    pub const MODE_BLINK: u8 = 1 << 3;
    /// Mode: panning ends where the screen is split.
    pub const MODE_PAN_TOP: u8 = 1 << 5;
    /// Mode: two pixels are one of 256 colours.
    pub const MODE_256: u8 = 1 << 6;
    /// Mode: colour select replaces two bits of the palette.
    pub const MODE_SELECT: u8 = 1 << 7;
}

/// Bochs' extension.
pub mod dispi {
    #![expect(missing_docs, reason = "the names are the specification's")]
    /// The index port; the data port follows it.
    pub const PORT: u16 = 0x1ce;
    /// How many registers can be written.
    pub const COUNT: u16 = 10;
    pub const ID: usize = 0;
    pub const X_RESOLUTION: usize = 1;
    pub const Y_RESOLUTION: usize = 2;
    pub const DEPTH: usize = 3;
    pub const ENABLE: usize = 4;
    pub const BANK: usize = 5;
    pub const VIRTUAL_WIDTH: usize = 6;
    pub const VIRTUAL_HEIGHT: usize = 7;
    pub const X_OFFSET: usize = 8;
    pub const Y_OFFSET: usize = 9;
    /// Video memory in units of 64 KiB, to be read.
    pub const MEMORY_64K: u16 = 10;
    pub const ID_FIRST: u16 = 0xb0c0;
    pub const ID_LAST: u16 = 0xb0c5;
    pub const ENABLED: u16 = 1 << 0;
    /// Resolutions and depth read as the most there can be.
    pub const GET_CAPABILITIES: u16 = 1 << 1;
    pub const DAC_8_BITS: u16 = 1 << 5;
    pub const KEEP_MEMORY: u16 = 1 << 7;
    pub const X_MOST: u16 = 16_000;
    pub const Y_MOST: u16 = 12_000;
    pub const DEPTH_MOST: u16 = 32;
}

/// The PCI function.
pub mod pci {
    #![expect(missing_docs, reason = "the names are the specification's")]
    pub const VENDOR: u16 = 0x1234;
    pub const DEVICE: u16 = 0x1111;
    pub const REVISION: u8 = 2;
    pub const SUBSYSTEM: [u16; 2] = [0x1af4, 0x1100];
    /// Bytes of the registers behind BAR 2.
    pub const REGISTERS: u64 = 0x1000;
    /// Where in them the VGA's ports from 0x3c0 on are.
    pub const PORTS: u64 = 0x400;
    /// Where Bochs' registers are, two bytes each.
    pub const DISPI: u64 = 0x500;
    /// Where the size of the block that follows is.
    pub const EXTENSION: u64 = 0x600;
    pub const EXTENSION_SIZE: u32 = 8;
    /// Which order of bytes the frame buffer has.
    pub const ENDIAN: u64 = 0x604;
    pub const ENDIAN_LITTLE: u32 = 0x1e1e_1e1e;
    pub const ENDIAN_BIG: u32 = 0xbebe_bebe;
}
