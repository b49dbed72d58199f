//! What firmware tries to boot from, and in what order.
//!
//! [`Bootable`] is a device as firmware calls it: an Open Firmware path, the language of the file [`FILE`] that SeaBIOS and
//! OVMF read. Devices add theirs when they are attached; [`list`] sorts them.

use lodge_bus::PciAddress;

/// The file of firmware's configuration that has the paths, one a line, ended by a zero byte.
pub const FILE: &str = "bootorder";

/// A kind of device to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// Hard disks.
    Disk,
    /// CDs and DVDs.
    Cdrom,
    /// Floppy disks.
    Floppy,
    /// Network cards.
    Network,
}

/// The order where none is asked for: what is installed comes before what one installs from.
pub const USUAL: [BootDevice; 4] = [BootDevice::Disk, BootDevice::Cdrom, BootDevice::Floppy, BootDevice::Network];

/// What firmware is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder {
    /// Kinds in the order in which they are tried; those that are not named come last. Empty for the usual.
    pub devices: Vec<BootDevice>,
    /// Wait for a key that opens firmware's menu.
    pub menu: bool,
}

/// A device that firmware can boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootable {
    /// What it is.
    pub kind: BootDevice,
    /// Its number among those of its kind, in the order of the command line.
    pub number: usize,
    /// Its path.
    pub path: String,
}

impl Bootable {
    /// A device behind a PCI function: `name` is what Open Firmware calls the function, `rest` what is behind it.
    pub fn behind(kind: BootDevice, number: usize, at: PciAddress, name: &str, rest: &str) -> Self {
        let function = if at.function == 0 { String::new() } else { format!(",{:x}", at.function) };
        Self { kind, number, path: format!("/pci@i0cf8/{name}@{:x}{function}{rest}", at.device) }
    }
}

/// The contents of [`FILE`].
pub fn list(order: &BootOrder, bootable: &[Bootable]) -> Vec<u8> {
    let rank = |device: BootDevice| {
        let place = |list: &[BootDevice]| list.iter().position(|other| *other == device);
        let usual = place(&USUAL).unwrap_or(USUAL.len());
        place(&order.devices).unwrap_or(order.devices.len() + usual)
    };
    let mut sorted: Vec<_> = bootable.iter().collect();
    sorted.sort_by_key(|device| (rank(device.kind), device.number));
    let lines: Vec<_> = sorted.iter().map(|device| device.path.as_str()).collect();
    let mut bytes = lines.join("\n").into_bytes();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_as_asked_and_the_rest_as_usual() {
        let at = |device, function| PciAddress { device, function };
        let devices = [
            Bootable::behind(BootDevice::Cdrom, 0, at(1, 1), "ide", "/drive@1/disk@0"),
            Bootable::behind(BootDevice::Disk, 1, at(13, 0), "scsi", "/disk@0,0"),
            Bootable::behind(BootDevice::Disk, 0, at(1, 1), "ide", "/drive@0/disk@0"),
        ];
        let cd = "/pci@i0cf8/ide@1,1/drive@1/disk@0";
        let disks = "/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/scsi@d/disk@0,0";
        let of = |order: &[BootDevice]| {
            let order = BootOrder { devices: order.to_vec(), menu: false };
            String::from_utf8(list(&order, &devices)).unwrap()
        };
        assert_eq!(of(&[]), format!("{disks}\n{cd}\0"));
        assert_eq!(of(&[BootDevice::Network, BootDevice::Cdrom]), format!("{cd}\n{disks}\0"));
    }

    #[test]
    fn without_devices_there_is_an_empty_list() {
        assert_eq!(list(&BootOrder::default(), &[]), [0]);
    }
}
