//! Kernels of a few bytes, for what no real one does on purpose.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use tempfile::NamedTempFile;

/// A Multiboot image at 1 MiB whose code, 32 bytes into it, is `code`.
pub fn multiboot(code: &[u8]) -> NamedTempFile {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    let sum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    let header = [MAGIC, ADDRESSES, sum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(code);
    write_file(&bytes)
}

/// A file that goes away, readable by all.
pub fn write_file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    // Temporary files are their owner's alone otherwise, and tests that are root's run lodge as somebody else.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    file
}
