//! Commands of a flash chip (Intel 28F008SA command definitions; JEDEC JESD68.01, Common Flash Interface).

/// Program a byte: the next write is the byte.
pub const PROGRAM: [u8; 2] = [0x10, 0x40];
/// Erase the block at this address, once confirmed.
pub const ERASE: u8 = 0x20;
/// Clear the status register.
pub const CLEAR_STATUS: u8 = 0x50;
/// Lock or unlock a block: the next write says which.
pub const LOCK: u8 = 0x60;
/// Read the status register.
pub const READ_STATUS: u8 = 0x70;
/// Read the chip's identity.
pub const READ_ID: u8 = 0x90;
/// Read the query table of the Common Flash Interface.
pub const QUERY: u8 = 0x98;
/// Fill the write buffer: a count, the bytes, and a confirmation.
pub const WRITE_BUFFER: u8 = 0xe8;
/// Confirm.
pub const CONFIRM: u8 = 0xd0;
/// Read the array.
pub const READ_ARRAY: u8 = 0xff;

/// Status: ready.
pub const STATUS_READY: u8 = 1 << 7;
/// Status: erasing failed; with [`STATUS_PROGRAM_FAILED`], a command sequence was wrong.
pub const STATUS_ERASE_FAILED: u8 = 1 << 5;
/// Status: programming failed.
pub const STATUS_PROGRAM_FAILED: u8 = 1 << 4;

/// Bytes that are erased at once.
pub const BLOCK: u64 = 4096;
/// Most bytes in the write buffer.
pub const BUFFER: usize = 64;
/// Manufacturer and device, as QEMU's flash names itself.
pub const IDENTITY: [u8; 2] = [0x89, 0x18];

/// The query table from offset 0x10 on (JESD68.01 section 2), of a chip with so many bytes.
pub fn query(size: u64) -> [u8; 0x21] {
    let blocks = (size / BLOCK).saturating_sub(1).min(0xffff) as u16;
    let [blocks_low, blocks_high] = blocks.to_le_bytes();
    let block = ((BLOCK / 256) as u16).to_le_bytes();
    let mut table = [0; 0x21];
    table[..3].copy_from_slice(b"QRY");
    // Intel's command set, whose extended table is behind this one.
    table[3..7].copy_from_slice(&[0x01, 0x00, 0x31, 0x00]);
    // Supply voltages of 2.7 to 3.6 V; typical and longest times, as powers of two.
    table[0x0b..0x17].copy_from_slice(&[0x27, 0x36, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0]);
    table[0x17] = size.checked_ilog2().unwrap_or(0) as u8;
    // Eight bits wide; the buffer; one region of equal blocks.
    table[0x1a] = BUFFER.ilog2() as u8;
    table[0x1c..0x21].copy_from_slice(&[1, blocks_low, blocks_high, block[0], block[1]]);
    table
}
