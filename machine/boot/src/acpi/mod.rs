//! ACPI tables for machines without firmware (ACPI 6.5 chapter 5).
//!
//! [`build`] takes a [`Description`] of the machine and an area of guest memory and gives the bytes of that area: the root
//! pointer first, then FACS, DSDT, FADT, MADT, HPET, RSDT and XSDT. [`link`] makes the same for firmware to place. [`dsdt`] writes the name space; [`tables`] the rest; [`mp`] the
//! older MultiProcessor tables for kernels that do without ACPI.
//!
//! What the tables say must agree with what `lodge-chipset`, `lodge-irq` and `lodge-pci` do: the interrupts that PCI wires lead
//! to, and the power-management block's place, are passed in by whoever assembles the machine.

mod dsdt;
mod linked;
mod mp;
mod tables;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use linked::{LOADER_FILE, Linked, RSDP_FILE, TABLES_FILE, link};
pub use mp::mp_table;

/// Bytes that [`build`] leaves for the root pointer.
const ROOM_OF_RSDP: u64 = 64;

/// What the tables tell about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The APIC IDs of the vCPUs, the first being the one that boots.
    pub apic_ids: Vec<u32>,
    /// The memory window of PCI devices, below 4 GiB.
    pub pci_window: Range<u64>,
    /// A second window above 4 GiB.
    pub pci_window_64: Option<Range<u64>>,
    /// The global system interrupts that PCI's four interrupt wires lead to; INTA of device n is on wire `(n + 3) % 4`.
    pub pci_routes: [u8; 4],
    /// Whether there is an HPET at 0xfed00000.
    pub hpet: bool,
    /// The first port of the power-management block.
    pub pm_base: u16,
    /// Whether the machine can be suspended to memory, from which firmware brings the system back.
    pub suspend: bool,
    /// First port and interrupt of each serial port.
    pub uarts: Vec<(u16, u8)>,
    /// First port and interrupt of the parallel port, if there is one.
    pub parallel: Option<(u16, u8)>,
    /// Whether there is a keyboard controller.
    pub keyboard: bool,
    /// Whether there is a VGA adapter.
    pub vga: bool,
}

/// Why no tables can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// They don't fit.
    #[error("the ACPI tables take {wanted} bytes, and there is room for {room}")]
    Room {
        /// Bytes that they take.
        wanted: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// The area is not below 4 GiB, where 32-bit fields point.
    #[error("the area for ACPI tables at {0:#x} is not below 4 GiB")]
    Place(u64),
}

/// Finished tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Where the bytes go.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the root pointer is among them.
    pub rsdp: u64,
}

/// Lays tables out one behind the other.
struct Layout {
    base: u64,
    bytes: Vec<u8>,
}

impl Layout {
    /// Adds a table at the next multiple of `align` and returns its address.
    fn add(&mut self, align: usize, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend(table);
        address
    }
}

/// All tables but the root pointer, in their places.
struct Laid {
    layout: Layout,
    rsdt: u64,
    xsdt: u64,
    /// Offset and size of each pointer.
    pointers: Vec<(usize, u8)>,
    /// Offset and length of each table that has any, and a checksum.
    pointing: Vec<(usize, usize)>,
}

/// Lays out all tables but the root pointer, from `base` on (64-byte aligned).
fn lay_out(description: &Description, base: u64) -> Laid {
    let mut layout = Layout { base, bytes: Vec::new() };
    let facs = layout.add(64, &tables::facs());
    let dsdt = layout.add(16, &dsdt::dsdt(description));
    let fixed = tables::fadt(description, facs, dsdt);
    let fadt = layout.add(16, &fixed);
    let madt = layout.add(16, &tables::madt(description));
    let mut entries = vec![fadt, madt];
    if description.hpet {
        entries.push(layout.add(16, &tables::hpet()));
    }
    let (narrow, wide) = (tables::rsdt(&entries), tables::xsdt(&entries));
    // The older table for systems that know nothing of 64 bits.
    let rsdt = layout.add(16, &narrow);
    let xsdt = layout.add(16, &wide);
    let place = |address: u64| (address - base) as usize;
    let mut pointers: Vec<(usize, u8)> = tables::FADT_POINTERS.map(|(at, size)| (place(fadt) + at, size)).to_vec();
    for entry in 0..entries.len() {
        pointers.push((place(rsdt) + tables::HEADER + 4 * entry, 4));
        pointers.push((place(xsdt) + tables::HEADER + 8 * entry, 8));
    }
    let pointing = vec![(place(fadt), fixed.len()), (place(rsdt), narrow.len()), (place(xsdt), wide.len())];
    Laid { layout, rsdt, xsdt, pointers, pointing }
}

/// Makes all tables for an area of guest memory (64-byte aligned; for BIOS-style search between 0xe0000 and 0x100000).
///
/// # Errors
/// They don't fit the area, or it is not below 4 GiB.
pub fn build(description: &Description, area: Range<u64>) -> Result<Tables, AcpiError> {
    if area.end > 1 << 32 || !area.start.is_multiple_of(64) {
        return Err(AcpiError::Place(area.start));
    }
    // The root pointer is found by its place: it comes first.
    let laid = lay_out(description, area.start + ROOM_OF_RSDP);
    let mut bytes = tables::rsdp(laid.rsdt, laid.xsdt).to_vec();
    bytes.resize(ROOM_OF_RSDP as usize, 0);
    bytes.extend(laid.layout.bytes);
    let (wanted, room) = (bytes.len() as u64, area.end.saturating_sub(area.start));
    if wanted > room {
        return Err(AcpiError::Room { wanted, room });
    }
    Ok(Tables { address: area.start, bytes, rsdp: area.start })
}
