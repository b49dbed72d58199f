//! Where installers' kernels, initial RAM disks and boot loaders are, on discs and in trees for the network.
//!
//! Paths are those of the distributions' media of today and of the years before.

use std::path::Path;

use lodge_guests::{Architecture, Firmware, MediaError, Profile, ReadAt, Unattended, read_file};

/// The most that a kernel or an initial RAM disk has.
pub const LARGEST: usize = 512 << 20;

/// A Linux installer's kernel and initial RAM disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinuxFiles {
    /// The kernel's path.
    pub kernel: &'static str,
    /// The initial RAM disk's.
    pub initrd: &'static str,
}

const fn files(kernel: &'static str, initrd: &'static str) -> LinuxFiles {
    LinuxFiles { kernel, initrd }
}

/// Debian's: on its discs and in its trees for the network.
const DEBIAN_64: &[LinuxFiles] = &[
    files("install.amd/vmlinuz", "install.amd/initrd.gz"),
    files("debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz"),
];
const DEBIAN_32: &[LinuxFiles] = &[
    files("install.386/vmlinuz", "install.386/initrd.gz"),
    files("debian-installer/i386/linux", "debian-installer/i386/initrd.gz"),
];
const UBUNTU: &[LinuxFiles] = &[
    files("casper/vmlinuz", "casper/initrd"),
    files("casper/vmlinuz", "casper/initrd.lz"),
    files("casper/vmlinuz.efi", "casper/initrd.lz"),
];
const ANACONDA: &[LinuxFiles] =
    &[files("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"), files("isolinux/vmlinuz", "isolinux/initrd.img")];

/// Where the kernel and the initial RAM disk of a system's installer may be, in order.
pub fn linux(profile: &Profile) -> impl Iterator<Item = LinuxFiles> {
    let lists: &[&[LinuxFiles]] = match profile.unattended {
        Unattended::Preseed if profile.architectures.contains(&Architecture::X86_64) => &[DEBIAN_64, DEBIAN_32],
        Unattended::Preseed => &[DEBIAN_32],
        Unattended::Autoinstall => &[UBUNTU],
        Unattended::Kickstart => &[ANACONDA],
        Unattended::Autounattend | Unattended::None => &[],
    };
    lists.iter().flat_map(|list| list.iter().copied())
}

/// Loaders that firmware finds in trees for the network, those of the distributions themselves first.
pub fn loaders(firmware: Firmware) -> &'static [&'static str] {
    match firmware {
        Firmware::Bios => &[
            "pxelinux.0",
            "debian-installer/amd64/pxelinux.0",
            "debian-installer/i386/pxelinux.0",
            "lpxelinux.0",
            "undionly.kpxe",
            "ipxe.pxe",
        ],
        Firmware::Uefi => &[
            "debian-installer/amd64/bootnetx64.efi",
            "debian-installer/amd64/grubx64.efi",
            "bootnetx64.efi",
            "shimx64.efi",
            "bootx64.efi",
            "EFI/BOOT/BOOTX64.EFI",
            "grubx64.efi",
            "ipxe.efi",
            "snponly.efi",
        ],
    }
}

/// The loader for firmware in a folder.
pub fn loader_in(folder: &Path, firmware: Firmware) -> Option<&'static str> {
    loaders(firmware).iter().copied().find(|name| folder.join(name).is_file())
}

/// The kernel and initial RAM disk in a folder.
pub fn linux_in(folder: &Path, profile: &Profile) -> Option<LinuxFiles> {
    linux(profile).find(|files| [files.kernel, files.initrd].iter().all(|name| folder.join(name).is_file()))
}

/// A kernel and its initial RAM disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The kernel's bytes.
    pub kernel: Vec<u8>,
    /// The initial RAM disk's.
    pub initrd: Vec<u8>,
}

/// The kernel and initial RAM disk on a disc; `None` if they are not where they should be.
///
/// # Errors
///
/// The disc can't be read, or contradicts itself.
pub fn linux_on(disc: &dyn ReadAt, profile: &Profile) -> Result<Option<Linux>, MediaError> {
    for files in linux(profile) {
        let Some(kernel) = read_file(disc, files.kernel, LARGEST)? else { continue };
        if let Some(initrd) = read_file(disc, files.initrd, LARGEST)? {
            return Ok(Some(Linux { kernel, initrd }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use lodge_guests::Catalogue;

    use super::*;

    #[test]
    fn trees_for_the_network_are_looked_through() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let debian = Catalogue::built_in().find("debian-12").unwrap();
        assert_eq!((loader_in(place, Firmware::Bios), linux_in(place, debian)), (None, None));
        std::fs::create_dir_all(place.join("debian-installer/amd64")).unwrap();
        for name in ["linux", "initrd.gz", "bootnetx64.efi", "pxelinux.0"] {
            std::fs::write(place.join("debian-installer/amd64").join(name), "x").unwrap();
        }
        assert_eq!(loader_in(place, Firmware::Bios), Some("debian-installer/amd64/pxelinux.0"));
        assert_eq!(loader_in(place, Firmware::Uefi), Some("debian-installer/amd64/bootnetx64.efi"));
        assert_eq!(linux_in(place, debian), Some(DEBIAN_64[1]));
        let windows = Catalogue::built_in().find("windows-10").unwrap();
        assert_eq!(linux_in(place, windows), None);
    }
}
