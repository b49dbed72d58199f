//! What controller and namespace say of themselves (NVMe 1.4 section 5.15).

use lodge_backend::{Disk, SECTOR};

use super::registers::*;

/// Bytes of any of these structures.
pub(super) const SIZE: usize = 4096;

struct Structure(Vec<u8>);

impl Structure {
    fn new() -> Self {
        Self(vec![0; SIZE])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Text, padded with blanks.
    fn text(&mut self, at: usize, length: usize, text: &str) {
        let bytes: Vec<u8> = text.bytes().chain(std::iter::repeat(b' ')).take(length).collect();
        self.put(at, &bytes);
    }
}

const MODEL: &str = "lodge NVMe disk";

/// The controller (figure 247).
pub(super) fn controller(serial: &str) -> Vec<u8> {
    let mut out = Structure::new();
    out.put(0, &VENDOR.to_le_bytes());
    out.put(2, &SUBSYSTEM_VENDOR.to_le_bytes());
    out.text(4, 20, serial);
    out.text(24, 40, MODEL);
    out.text(64, 8, env!("CARGO_PKG_VERSION"));
    out.put(77, &[MDTS]);
    out.put(80, &VS_VALUE.to_le_bytes());
    // An I/O controller.
    out.put(111, &[1]);
    // Aborts, events; one slot of firmware that cannot be written; effects and long logs; errors.
    out.put(258, &[3, EVENTS as u8 - 1, 0x03, 0x06, ERRORS as u8 - 1]);
    // Temperatures to be warned at, in kelvin.
    out.put(266, &343u16.to_le_bytes());
    out.put(268, &373u16.to_le_bytes());
    // Entries of 64 and 16 bytes.
    out.put(512, &[0x66, 0x44]);
    out.put(516, &1u32.to_le_bytes());
    // Compare, dataset management, write zeroes.
    out.put(520, &0x0du16.to_le_bytes());
    // A write cache, which can be flushed for all namespaces at once.
    out.put(525, &[0x07]);
    let name = format!("nqn.2014.08.org.nvmexpress:{VENDOR:04x}{SUBSYSTEM_VENDOR:04x}{serial:<20.20}{MODEL:<40}");
    out.put(768, name.as_bytes());
    // Power state 0: 25 W.
    out.put(2048, &2500u16.to_le_bytes());
    out.0
}

/// The namespace (figure 245).
pub(super) fn namespace(disk: &dyn Disk, serial: &str) -> Vec<u8> {
    let mut out = Structure::new();
    let blocks = disk.size() / SECTOR;
    for at in [0, 8, 16] {
        out.put(at, &blocks.to_le_bytes());
    }
    // WRITE ZEROES may free space; what is read then is not said.
    out.put(33, &[0x08]);
    out.put(99, &[u8::from(disk.is_read_only())]);
    let (long, short) = names(serial);
    out.put(104, &long);
    out.put(120, &short);
    // One format: blocks of 512 bytes.
    out.put(128, &(9u32 << 16).to_le_bytes());
    out.0
}

/// Which namespaces there are from the one behind `after` on (figure 244).
pub(super) fn list(after: u32) -> Vec<u8> {
    let mut out = Structure::new();
    if after < 1 {
        out.put(0, &1u32.to_le_bytes());
    }
    out.0
}

/// The namespace's names, each with its kind (figure 246).
pub(super) fn descriptors(serial: &str) -> Vec<u8> {
    let mut out = Structure::new();
    let (long, short) = names(serial);
    out.put(0, &[1, 8, 0, 0]);
    out.put(4, &short);
    out.put(12, &[2, 16, 0, 0]);
    out.put(16, &long);
    out.0
}

/// A long and a short unique name, made from the serial number (FNV-1a).
fn names(serial: &str) -> ([u8; 16], [u8; 8]) {
    let hash = |seed: u64| {
        serial.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)).to_be_bytes()
    };
    let (first, second) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9ae1_6a3b_2f90_404f));
    let mut long = [0; 16];
    long[..8].copy_from_slice(&second);
    long[8..].copy_from_slice(&first);
    let mut short = first;
    // Locally administered.
    short[0] = short[0] & 0xfc | 0x02;
    (long, short)
}

/// Which commands there are, and which of them change data (figure 206).
pub(super) fn effects() -> Vec<u8> {
    const SUPPORTED: u32 = 1 << 0;
    const CHANGES: u32 = 1 << 1;
    let mut out = Structure::new();
    let all = [
        admin::DELETE_SQ,
        admin::CREATE_SQ,
        admin::GET_LOG,
        admin::DELETE_CQ,
        admin::CREATE_CQ,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::EVENT,
    ];
    for code in all {
        out.put(usize::from(code) * 4, &SUPPORTED.to_le_bytes());
    }
    for code in [io::FLUSH, io::WRITE, io::READ, io::COMPARE, io::WRITE_ZEROES, io::DATASET] {
        let changes = matches!(code, io::WRITE | io::WRITE_ZEROES | io::DATASET);
        let bits = SUPPORTED | if changes { CHANGES } else { 0 };
        out.put(1024 + usize::from(code) * 4, &bits.to_le_bytes());
    }
    out.0
}
