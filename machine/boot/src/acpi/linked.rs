//! Tables that firmware places: blobs, and the commands by which it links them (QEMU's linker/loader, which SeaBIOS and OVMF
//! carry out; SeaBIOS `src/fw/romfile_loader.h`).
//!
//! In the blobs pointers hold offsets, and checksums over what firmware changes are zero.

use super::tables::{self, RSDP_LENGTH};
use super::{Description, lay_out};

/// The file of the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// The file of the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The file of the commands.
pub const LOADER_FILE: &str = "etc/table-loader";

/// What firmware is handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`LOADER_FILE`].
    pub loader: Vec<u8>,
}

const NAME: usize = 56;
const COMMAND: usize = 128;
/// Where a table's checksum is (ACPI 6.5 table 5.4).
const CHECKSUM: usize = 9;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Anywhere below 4 GiB.
const HIGH: u8 = 1;
/// Between 0xe0000 and 1 MiB, where systems look for the root pointer.
const F_SEGMENT: u8 = 2;

/// Commands in the order in which they are carried out.
#[derive(Default)]
struct Commands(Vec<u8>);

impl Commands {
    fn add(&mut self, command: u32, parts: &[&[u8]]) {
        let end = self.0.len() + COMMAND;
        self.0.extend(command.to_le_bytes());
        for part in parts {
            self.0.extend(*part);
        }
        debug_assert!(self.0.len() <= end, "a command has {COMMAND} bytes");
        self.0.resize(end, 0);
    }

    /// Loads a file into memory of its own.
    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.add(ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone]]);
    }

    /// Adds the address of [`TABLES_FILE`] to the `bytes` bytes at `offset` in `file`.
    fn point(&mut self, file: &str, offset: usize, bytes: u8) {
        self.add(ADD_POINTER, &[&name(file), &name(TABLES_FILE), &(offset as u32).to_le_bytes(), &[bytes]]);
    }

    /// Has the bytes from `start` on sum up to zero, by the one at `offset`.
    fn sum(&mut self, file: &str, offset: usize, start: usize, length: usize) {
        let [offset, start, length] = [offset, start, length].map(|number| (number as u32).to_le_bytes());
        self.add(ADD_CHECKSUM, &[&name(file), &offset, &start, &length]);
    }
}

fn name(file: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..file.len()].copy_from_slice(file.as_bytes());
    bytes
}

/// Makes all tables for firmware to place.
pub fn link(description: &Description) -> Linked {
    let laid = lay_out(description, 0);
    let mut tables = laid.layout.bytes;
    let mut rsdp = tables::rsdp(laid.rsdt, laid.xsdt);
    (rsdp[8], rsdp[32]) = (0, 0);
    let mut commands = Commands::default();
    commands.allocate(RSDP_FILE, 16, F_SEGMENT);
    commands.allocate(TABLES_FILE, 64, HIGH);
    for &(offset, bytes) in &laid.pointers {
        commands.point(TABLES_FILE, offset, bytes);
    }
    for &(start, length) in &laid.pointing {
        tables[start + CHECKSUM] = 0;
        commands.sum(TABLES_FILE, start + CHECKSUM, start, length);
    }
    commands.point(RSDP_FILE, 16, 4);
    commands.point(RSDP_FILE, 24, 8);
    commands.sum(RSDP_FILE, 8, 0, 20);
    commands.sum(RSDP_FILE, 32, 0, RSDP_LENGTH);
    Linked { tables, rsdp: rsdp.to_vec(), loader: commands.0 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::description;
    use super::*;

    /// Carries the commands out as firmware does, with the tables at `base` and the root pointer at `root`.
    fn carry_out(linked: &Linked, base: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rsdp) = (linked.tables.clone(), linked.rsdp.clone());
        for command in linked.loader.chunks_exact(COMMAND) {
            let word = |at: usize| u32::from_le_bytes(command[at..at + 4].try_into().unwrap()) as usize;
            let is_rsdp = command[4..4 + NAME] == name(RSDP_FILE);
            let blob = if is_rsdp { &mut rsdp } else { &mut tables };
            match word(0) as u32 {
                ALLOCATE => {}
                ADD_POINTER => {
                    let (offset, size) = (word(4 + 2 * NAME), usize::from(command[8 + 2 * NAME]));
                    let mut pointer = [0; 8];
                    pointer[..size].copy_from_slice(&blob[offset..offset + size]);
                    let pointer = u64::from_le_bytes(pointer) + base;
                    blob[offset..offset + size].copy_from_slice(&pointer.to_le_bytes()[..size]);
                }
                ADD_CHECKSUM => {
                    let [offset, start, length] = [0, 4, 8].map(|at| word(4 + NAME + at));
                    let sum = blob[start..start + length].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                    blob[offset] = blob[offset].wrapping_sub(sum);
                }
                other => panic!("command {other}"),
            }
        }
        (tables, rsdp)
    }

    #[test]
    fn what_firmware_links_is_what_is_built_in_place() {
        let description = description();
        let linked = link(&description);
        assert_eq!(linked.loader.len() % COMMAND, 0);
        // Where `build` puts the tables behind its root pointer.
        let base = 0xf_0040;
        let built = crate::acpi::build(&description, 0xf_0000..0x10_0000).unwrap();
        let (tables, rsdp) = carry_out(&linked, base);
        assert_eq!(rsdp, built.bytes[..RSDP_LENGTH]);
        assert_eq!(tables, built.bytes[0x40..]);
    }
}
