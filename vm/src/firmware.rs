//! Firmware, and what it is told; or what it would leave in memory, where there is none.

use std::fs;
use std::io::IoSliceMut;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lodge_backend::Disk;
use lodge_boot::acpi::{self, Description};
use lodge_boot::layout::{DEVICE_HOLE, FIRMWARE, HIGH};
use lodge_boot::smbios;
use lodge_bus::{MemoryChange, MemoryControl, Reach};
use lodge_chipset::{Items, Pm, parallel};
use lodge_engine_api::GuestMemory;
use lodge_pci::DEFAULT_ROUTES;
use lodge_pci::bridges::pam;
use lodge_x86::cpuid::{Profile, Register, SIGNATURE};
use vm_memory::{Bytes, GuestAddress};

use crate::assembly::{Backends, PCI_WINDOW};
use crate::devices::SERIAL_PORTS;
use crate::{Config, Firmware, VmError, ram};

/// The MultiProcessor table lies where kernels look for it; the ACPI tables before it.
const MP_TABLE: u64 = 0xf_0000;
/// What OVMF is told of sleep states 0 to 5: each one's sleep type, with bit 7 if there is the state (QEMU's etc/system-states).
const SLEEP_STATES: [u8; 6] = [0x80, 0, 0, 0x81, 0, 0x80];
/// Sizes of images: 64 KiB, as much as lies below 1 MiB, to the 16 MiB that flash may take.
const IMAGE_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;
/// What memory is changed by.
const PAGE: u64 = 4096;
/// Bytes of the image that are found below 1 MiB, too.
const BELOW_1M: usize = 128 << 10;

/// What the tables are to say of a machine with these back ends.
pub fn description(config: &Config, backends: &Backends) -> Description {
    Description {
        suspend: config.boot.firmware().is_some(),
        apic_ids: (0..config.vcpus).collect(),
        pci_window: PCI_WINDOW.memory_base..PCI_WINDOW.memory_end,
        pci_window_64: None,
        pci_routes: DEFAULT_ROUTES,
        hpet: true,
        pm_base: Pm::block().base,
        uarts: SERIAL_PORTS.into_iter().take(backends.serials().len()).collect(),
        parallel: backends.parallel().map(|_| (parallel::registers::BASE, parallel::registers::INTERRUPT)),
        keyboard: true,
        vga: config.card_memory() > 0,
    }
}

/// Writes the tables of a machine. The ACPI root pointer's address.
///
/// # Errors
///
/// They do not fit, which is a fault of lodge's.
pub fn write_tables(memory: &GuestMemory, description: &Description, profile: &Profile) -> Result<u64, VmError> {
    let fault = |cause: String| VmError::Device { device: "acpi".into(), cause };
    let tables = acpi::build(description, FIRMWARE.start..MP_TABLE).map_err(|error| fault(error.to_string()))?;
    write(memory, tables.address, &tables.bytes)?;
    let features = profile.bits(1, Register::Edx);
    if let Some(table) = acpi::mp_table(description, MP_TABLE as u32, SIGNATURE, features) {
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
        .map_err(|error| VmError::Device { device: "firmware".into(), cause: error.to_string() })
}

/// An image of firmware, read from its file.
pub struct Image {
    bytes: Vec<u8>,
}

/// Why an image will not do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It can't be read.
    #[error(
        "the firmware {path} can't be read: {source}; install the package `seabios` or `ovmf`, or name the folder with --firmware-dir"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The variables have a size that no firmware gives them.
    #[error(
        "the file of the firmware's variables has {size} bytes; name a copy of the one that came with the firmware"
    )]
    Variables {
        /// Their bytes.
        size: u64,
    },
    /// The variables can't be read.
    #[error("the file of the firmware's variables can't be read: {0}")]
    ReadVariables(std::io::Error),
    /// It has a size that no firmware has.
    #[error("the firmware {path} has {size} bytes; an image has 64 KiB to 16 MiB, in whole pages")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
}

impl Image {
    /// Reads the image in a file.
    ///
    /// # Errors
    ///
    /// It can't be read, or has a size that no firmware has.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(failed)?.len();
        if !IMAGE_SIZES.contains(&size) || !size.is_multiple_of(PAGE) {
            return Err(ImageError::Size { path: path.to_owned(), size });
        }
        Ok(Self { bytes: fs::read(path).map_err(failed)? })
    }

    /// Bytes that it takes below 4 GiB.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the variables on a disk are to be found: before the image.
    ///
    /// # Errors
    ///
    /// Their size is not one of whole pages, or too large.
    pub fn variables(&self, disk: &dyn Disk) -> Result<Range<u64>, ImageError> {
        let size = disk.size();
        if !size.is_multiple_of(PAGE) || size > *IMAGE_SIZES.end() {
            return Err(ImageError::Variables { size });
        }
        let end = DEVICE_HOLE.end - self.size();
        Ok(end - size..end)
    }

    /// Puts it where the processor begins, and its end below 1 MiB, and has the map be as at power-on.
    ///
    /// # Errors
    ///
    /// There is no memory for it, which is a fault of lodge's.
    pub fn place(&self, memory: &GuestMemory, map: &dyn MemoryControl) -> Result<(), VmError> {
        let rom = DEVICE_HOLE.end - self.size()..DEVICE_HOLE.end;
        write(memory, rom.start, &self.bytes)?;
        let end = self.bytes.get(self.bytes.len().saturating_sub(BELOW_1M)..).unwrap_or_default();
        write(memory, HIGH - end.len() as u64, end)?;
        pam::at_power_on().into_iter().for_each(|change| map.change(change));
        map.change(MemoryChange::Reach { range: rom, reach: Reach::ReadOnly });
        Ok(())
    }
}

/// Bytes in a range.
pub fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// Puts the variables on a disk where they are to be found.
///
/// # Errors
///
/// They can't be read, or there is no memory for them, which is a fault of lodge's.
pub fn place_variables(memory: &GuestMemory, range: &Range<u64>, disk: &dyn Disk) -> Result<(), VmError> {
    let mut bytes = vec![0; length(range) as usize];
    disk.read_at(0, &mut [IoSliceMut::new(&mut bytes)]).map_err(ImageError::ReadVariables)?;
    write(memory, range.start, &bytes)
}

/// What firmware is told of a machine.
///
/// # Errors
///
/// The kernel that it is to start can't be read, or is none.
pub fn items(
    config: &Config,
    description: &Description,
    profile: &Profile,
    firmware: &Firmware,
) -> Result<Items, VmError> {
    let vcpus = description.apic_ids.len() as u32;
    let serials = description.uarts.len();
    let mut items = Items::new(vcpus);
    let tables = acpi::link(description);
    items.file(acpi::RSDP_FILE, tables.rsdp);
    items.file(acpi::LOADER_FILE, tables.loader);
    let (below, above) = ram::sizes(config.memory);
    let smbios = smbios::build(&smbios::Description {
        machine: config.machine.name().into(),
        uuid: [0; 16],
        vcpus,
        memory_below_4g: below,
        memory_above_4g: above,
        processor_id: [SIGNATURE, profile.bits(1, Register::Edx)],
    });
    items.file(smbios::TABLES_FILE, smbios.tables);
    items.file(smbios::ANCHOR_FILE, smbios.anchor);
    items.file("etc/system-states", SLEEP_STATES.to_vec());
    items.file("etc/e820", memory_ranges(below, above));
    items.boot_menu(firmware.order.menu);
    if let Some(kernel) = &firmware.kernel {
        let given = lodge_boot::hand_over(&kernel.path, kernel.initrd.as_deref(), &kernel.command_line)?;
        items.kernel(&given.setup, &given.kernel, &given.initrd, &given.command_line);
    }
    if firmware.serial_console && serials > 0 {
        items.file("etc/sercon-port", SERIAL_PORTS[0].0.to_le_bytes().to_vec());
    }
    Ok(items)
}

/// RAM as firmware wants it: address, length, kind; it knows of the hole for VGA itself.
fn memory_ranges(below: u64, above: u64) -> Vec<u8> {
    const RAM: u32 = 1;
    let ranges = [(0, below), (DEVICE_HOLE.end, above)];
    let entry = |(start, length): (u64, u64)| {
        [&start.to_le_bytes()[..], &length.to_le_bytes()[..], &RAM.to_le_bytes()[..]].concat()
    };
    ranges.into_iter().filter(|(_, length)| *length > 0).flat_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io::Write;

    #[test]
    fn an_image_is_found_in_both_places() {
        #[derive(Default)]
        struct Changes(Mutex<Vec<MemoryChange>>);
        impl MemoryControl for Changes {
            fn change(&self, change: MemoryChange) {
                self.0.lock().push(change);
            }
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..256u32 << 10).map(|n| (n >> 10) as u8).collect();
        file.write_all(&bytes).unwrap();
        let image = Image::read(file.path()).unwrap();
        let memory = ram::create(4 << 20, image.size(), 0).unwrap();
        let changes = Changes::default();
        image.place(&memory, &changes).unwrap();
        let byte = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!((byte(0xfffc_0000), byte(0xffff_ffff)), (0, 255));
        assert_eq!((byte(0xe_0000), byte(0xf_ffff)), (128, 255));
        let rom = MemoryChange::Reach { range: 0xfffc_0000..1 << 32, reach: Reach::ReadOnly };
        assert_eq!(changes.0.lock().last(), Some(&rom));
    }

    #[test]
    fn what_is_no_firmware_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 1000]).unwrap();
        assert!(matches!(Image::read(file.path()), Err(ImageError::Size { size: 1000, .. })));
        assert!(matches!(Image::read(Path::new("/no/such")), Err(ImageError::Read { .. })));
    }

    #[test]
    fn ranges_are_those_of_ram() {
        let ranges = memory_ranges(3 << 30, 1 << 30);
        assert_eq!(ranges.len(), 40);
        assert_eq!(ranges[..8], [0; 8]);
        assert_eq!(ranges[20..28], (4u64 << 30).to_le_bytes());
        assert_eq!(memory_ranges(64 << 20, 0).len(), 20);
    }
}
