//! What firmware would leave in memory: ACPI tables, and the older MultiProcessor table.

use lodge_boot::acpi::{self, Description};
use lodge_boot::layout::FIRMWARE;
use lodge_chipset::Pm;
use lodge_engine_api::GuestMemory;
use lodge_pci::DEFAULT_ROUTES;
use lodge_x86::cpuid::{Profile, Register, SIGNATURE};
use vm_memory::{Bytes, GuestAddress};

use crate::VmError;
use crate::assembly::PCI_WINDOW;
use crate::devices::SERIAL_PORTS;

/// The MultiProcessor table lies where kernels look for it; the ACPI tables before it.
const MP_TABLE: u64 = 0xf_0000;

/// Writes the tables of a machine with so many processors and serial ports. The ACPI root pointer's address.
///
/// # Errors
///
/// They do not fit, which is a fault of lodge's.
pub fn write_tables(memory: &GuestMemory, vcpus: u32, serials: usize, profile: &Profile) -> Result<u64, VmError> {
    let description = Description {
        apic_ids: (0..vcpus).collect(),
        pci_window: PCI_WINDOW.memory_base..PCI_WINDOW.memory_end,
        pci_window_64: None,
        pci_routes: DEFAULT_ROUTES,
        hpet: true,
        pm_base: Pm::block().base,
        uarts: SERIAL_PORTS.into_iter().take(serials).collect(),
        keyboard: true,
        vga: false,
    };
    let fault = |cause: String| VmError::Device { device: "acpi".into(), cause };
    let tables = acpi::build(&description, FIRMWARE.start..MP_TABLE).map_err(|error| fault(error.to_string()))?;
    write(memory, tables.address, &tables.bytes)?;
    let features = profile.bits(1, Register::Edx);
    if let Some(table) = acpi::mp_table(&description, MP_TABLE as u32, SIGNATURE, features) {
        if MP_TABLE + table.len() as u64 > FIRMWARE.end {
            return Err(fault(format!("the MultiProcessor table of {} bytes has no room", table.len())));
        }
        write(memory, MP_TABLE, &table)?;
    }
    Ok(tables.rsdp)
}

fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), VmError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|error| VmError::Device { device: "acpi".into(), cause: error.to_string() })
}
