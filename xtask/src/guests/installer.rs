//! Debian's installer, as its package has it: for booting from the network, and on a disc.
//!
//! ```text
//! cache/guests/media/netboot/        the package's files; the loaders' configurations start the installer on the serial port
//! cache/guests/media/installer.iso   kernel and initial RAM disk of the same on a disc like Debian's own
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Apt;
use super::media::{fresh, is_made_of, note_made_of};
use crate::shell;

/// The package.
const PACKAGE: &str = "debian-installer-12-netboot-amd64";
/// Its text-mode installer.
const FILES: &str = "usr/lib/debian-installer/images/12/amd64/text";
/// Kernel and initial RAM disk in that.
const IMAGES: &str = "debian-installer/amd64";

/// Its kernel, in `netboot`.
pub const KERNEL: &str = "debian-installer/amd64/linux";

/// For PXELINUX.
const PXELINUX: &str = "\
SERIAL 0
SAY lodge: pxelinux
DEFAULT install
LABEL install
KERNEL debian-installer/amd64/linux
INITRD debian-installer/amd64/initrd.gz
APPEND console=ttyS0 DEBIAN_FRONTEND=text ---
";

/// For GRUB, started by UEFI from the network or a disc. The disc has a name for the same place.
const GRUB: &str = "\
echo \"lodge: grub on $grub_platform\"
linux /debian-installer/amd64/linux console=ttyS0 DEBIAN_FRONTEND=text ---
initrd /debian-installer/amd64/initrd.gz
boot
";

/// What a Debian disc says that it is.
const DISK_INFO: &str = "Debian GNU/Linux 12.0.0 \"Bookworm\" - Unofficial amd64 NETINST\n";

/// Makes both.
pub fn build(apt: &Apt, media: &Path) -> Result<()> {
    let recipe = [PACKAGE, PXELINUX, GRUB, DISK_INFO].concat();
    let (folder, image) = (media.join("netboot"), media.join("installer.iso"));
    if is_made_of(&image, &recipe) && folder.is_dir() {
        return Ok(());
    }
    println!("guests: Debian's installer");
    let files = apt.unpacked(PACKAGE, "amd64")?.join(FILES);
    let partial = netboot(&files, &folder.with_extension("partial"))?;
    fresh(&folder)?;
    fs::remove_dir(&folder)?;
    fs::rename(partial, &folder)?;
    disc(&folder.join(IMAGES), &image, &media.join("work.installer"))?;
    note_made_of(&image, &recipe)
}

/// The files for the network.
fn netboot(files: &Path, folder: &Path) -> Result<PathBuf> {
    let folder = fresh(folder)?;
    shell::run(Command::new("cp").args(["--recursive", "--no-preserve=mode"]).arg(files.join(".")).arg(&folder))?;
    let images = folder.join(IMAGES);
    let pxelinux = fresh(&images.join("pxelinux.cfg"))?;
    fs::write(pxelinux.join("default"), PXELINUX)?;
    fs::write(images.join("grub/grub.cfg"), GRUB)?;
    Ok(folder)
}

/// The disc, which starts by BIOS and UEFI.
fn disc(images: &Path, image: &Path, work: &Path) -> Result<()> {
    let tree = fresh(work)?;
    for name in [IMAGES, ".disk", "boot/grub"] {
        fs::create_dir_all(tree.join(name))?;
    }
    for name in ["linux", "initrd.gz"] {
        fs::copy(images.join(name), tree.join(IMAGES).join(name))?;
    }
    fs::write(tree.join(".disk/info"), DISK_INFO)?;
    fs::write(tree.join("boot/grub/grub.cfg"), GRUB)?;
    let mut command = Command::new("grub-mkrescue");
    command.arg("--output").arg(image).arg(&tree).args(["--", "-volid", "Debian 12.0.0 amd64 n"]);
    shell::run(&mut command)?;
    Ok(fs::remove_dir_all(tree)?)
}
