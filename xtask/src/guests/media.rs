//! Firmware, and what a PC boots from: discs and floppies of Debian's packages, and some made of them.
//!
//! ```text
//! cache/guests/firmware/     SeaBIOS, the graphics card's BIOS, OVMF
//! cache/guests/media/        grub-rescue.{iso,img}, memtest86+.iso, ipxe.{iso,img}, grub-mkrescue.iso, linux.iso, isolinux.iso,
//!                            live.iso; netboot and installer.iso (installer.rs)
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Apt, installer, replace};
use crate::shell;

/// Programs that make media, and what they read, with the packages that bring them.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("grub-mkrescue", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
    ("mksquashfs", "squashfs-tools"),
];

/// A file of a package, and what it is called here.
type Taken = (&'static str, &'static str, &'static str);

const FIRMWARE: &[Taken] = &[
    ("seabios", "usr/share/seabios/bios-256k.bin", "bios-256k.bin"),
    ("seabios", "usr/share/seabios/vgabios-stdvga.bin", "vgabios-stdvga.bin"),
    ("seabios", "usr/share/seabios/vgabios-virtio.bin", "vgabios-virtio.bin"),
    ("ovmf", "usr/share/OVMF/OVMF_CODE_4M.fd", "OVMF_CODE_4M.fd"),
    ("ovmf", "usr/share/OVMF/OVMF_VARS_4M.fd", "OVMF_VARS_4M.fd"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/pxe-virtio.rom", "pxe-virtio.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/pxe-e1000.rom", "pxe-e1000.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/pxe-rtl8139.rom", "pxe-rtl8139.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/pxe-ne2k_pci.rom", "pxe-ne2k_pci.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/efi-e1000.rom", "efi-e1000.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/efi-rtl8139.rom", "efi-rtl8139.rom"),
    ("ipxe-qemu", "usr/lib/ipxe/qemu/efi-ne2k_pci.rom", "efi-ne2k_pci.rom"),
];

const MEDIA: &[Taken] = &[
    ("grub-rescue-pc", "usr/lib/grub-rescue/grub-rescue-cdrom.iso", "grub-rescue.iso"),
    ("grub-rescue-pc", "usr/lib/grub-rescue/grub-rescue-floppy.img", "grub-rescue.img"),
    ("memtest86+", "usr/lib/memtest86+/memtest86+x64.iso", "memtest86+.iso"),
    ("ipxe", "usr/lib/ipxe/ipxe.iso", "ipxe.iso"),
];

/// Says what firmware started it, and switches off.
const GRUB_CONFIGURATION: &str = "\
echo \"lodge: grub on $grub_platform\"
sleep 1
halt
";

/// Boots the kernel beside it to a shell. What it says while it goes to sleep is heard.
const LINUX_CONFIGURATION: &str = "\
echo \"lodge: linux on $grub_platform\"
linux /boot/vmlinuz console=ttyS0 panic=-1 no_console_suspend
initrd /boot/initrd
boot
";

/// Boots the kernel beside it.
const ISOLINUX_CONFIGURATION: &str = "\
SAY lodge: isolinux
DEFAULT linux
LABEL linux
KERNEL vmlinuz
INITRD initrd
APPEND console=ttyS0 panic=-1 lodge.run=\"uname -m\"
";

/// What the live system has beside the least that Debian calls a system.
const LIVE_PACKAGES: &str = "live-boot,linux-image-amd64,systemd-sysv";

/// Boots it with its console on the serial port, from BIOS and UEFI.
const LIVE_CONFIGURATION: &str = "\
echo \"lodge: live on $grub_platform\"
linux /live/vmlinuz boot=live console=ttyS0 systemd.journald.forward_to_console=0
initrd /live/initrd
boot
";

/// Says that the system is up, and switches it off.
const LIVE_UNIT: &str = "\
[Unit]
Description=Tell that the system is up
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'echo lodge: live system is up, root is $(findmnt -n -o FSTYPE /); systemctl poweroff'
[Install]
WantedBy=multi-user.target
";

/// Fetches and makes what is missing. Only root makes the live system, whose files belong to root.
pub fn build(apt: &Apt, folder: &Path, root: bool) -> Result<()> {
    firmware(apt, folder)?;
    let media = folder.join("media");
    take(apt, MEDIA, &media)?;
    let work = folder.join("media/work");
    mkrescue(&media.join("grub-mkrescue.iso"), &work, GRUB_CONFIGURATION, |_| Ok(()))?;
    linux(&media.join("linux.iso"), &work, &folder.join("amd64"))?;
    isolinux(apt, &media.join("isolinux.iso"), &work, &folder.join("cloud-amd64"))?;
    ipxe(apt, &media.join("ipxe.img"))?;
    installer::build(apt, &media)?;
    if root {
        live(&media.join("live.iso"), &work)?;
    }
    println!("guests: firmware and media are in {}", folder.display());
    Ok(())
}

/// Fetches firmware; its folder.
pub fn firmware(apt: &Apt, folder: &Path) -> Result<PathBuf> {
    let firmware = folder.join("firmware");
    take(apt, FIRMWARE, &firmware)?;
    Ok(firmware)
}

fn take(apt: &Apt, files: &[Taken], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (package, file, name) in files {
        let bytes =
            fs::read(apt.unpacked(package, "amd64")?.join(file)).with_context(|| format!("{package}: {file}"))?;
        replace(&folder.join(name), &bytes)?;
    }
    Ok(())
}

/// An empty folder.
pub(super) fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

/// Whether `image` is there and was made of `recipe`.
pub(super) fn is_made_of(image: &Path, recipe: &str) -> bool {
    image.is_file() && fs::read_to_string(image.with_extension("recipe")).is_ok_and(|text| text == recipe)
}

/// Notes what `image` was made of.
pub(super) fn note_made_of(image: &Path, recipe: &str) -> Result<()> {
    Ok(fs::write(image.with_extension("recipe"), recipe)?)
}

/// A disc that starts GRUB under BIOS and UEFI.
fn mkrescue(image: &Path, work: &Path, configuration: &str, add: impl Fn(&Path) -> Result<()>) -> Result<()> {
    if is_made_of(image, configuration) {
        return Ok(());
    }
    let tree = fresh(work)?;
    fs::create_dir_all(tree.join("boot/grub"))?;
    fs::write(tree.join("boot/grub/grub.cfg"), configuration)?;
    add(&tree)?;
    shell::run(Command::new("grub-mkrescue").arg("--output").arg(image).arg(&tree))?;
    fs::remove_dir_all(tree)?;
    note_made_of(image, configuration)
}

/// A disc that starts a kernel by GRUB. It is made anew each time, as the kernel's RAM disk is.
fn linux(image: &Path, work: &Path, kernel: &Path) -> Result<()> {
    let _ = fs::remove_file(image.with_extension("recipe"));
    mkrescue(image, work, LINUX_CONFIGURATION, |tree| {
        for file in ["vmlinuz", "initrd"] {
            fs::copy(kernel.join(file), tree.join("boot").join(file))?;
        }
        Ok(())
    })
}

/// A disc that starts ISOLINUX, and that a kernel.
fn isolinux(apt: &Apt, image: &Path, work: &Path, kernel: &Path) -> Result<()> {
    let tree = fresh(work)?;
    fs::copy(apt.unpacked("isolinux", "amd64")?.join("usr/lib/ISOLINUX/isolinux.bin"), tree.join("isolinux.bin"))?;
    let modules = apt.unpacked("syslinux-common", "amd64")?.join("usr/lib/syslinux/modules/bios");
    fs::copy(modules.join("ldlinux.c32"), tree.join("ldlinux.c32"))?;
    for file in ["vmlinuz", "initrd"] {
        fs::copy(kernel.join(file), tree.join(file))?;
    }
    fs::write(tree.join("isolinux.cfg"), ISOLINUX_CONFIGURATION)?;
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"]);
    shell::run(command.args(["-boot-load-size", "4", "-boot-info-table", "-o"]).arg(image).arg(&tree))?;
    Ok(fs::remove_dir_all(tree)?)
}

/// A floppy that starts iPXE by way of SYSLINUX.
fn ipxe(apt: &Apt, image: &Path) -> Result<()> {
    const CONFIGURATION: &str = "DEFAULT ipxe\nLABEL ipxe\nKERNEL ipxe.krn\n";
    let partial = image.with_extension("partial");
    let program = apt.unpacked("ipxe", "amd64")?.join("boot/ipxe.lkrn");
    let modules = apt.unpacked("syslinux-common", "amd64")?.join("usr/lib/syslinux/modules/bios");
    let installer = apt.unpacked("syslinux", "amd64")?.join("usr/bin/syslinux");
    let configuration = image.with_extension("cfg");
    fs::write(&configuration, CONFIGURATION)?;
    shell::run(Command::new("mformat").args(["-C", "-f", "1440", "-i"]).arg(&partial).arg("::"))?;
    for (file, name) in
        [(&program, "::ipxe.krn"), (&configuration, "::syslinux.cfg"), (&modules.join("ldlinux.c32"), "::ldlinux.c32")]
    {
        shell::run(Command::new("mcopy").args(["-o", "-i"]).arg(&partial).arg(file).arg(name))?;
    }
    shell::run(Command::new(installer).arg("--install").arg(&partial))?;
    fs::remove_file(configuration)?;
    Ok(fs::rename(partial, image)?)
}

/// A live Debian on a disc.
fn live(image: &Path, work: &Path) -> Result<()> {
    let recipe = [LIVE_CONFIGURATION, LIVE_PACKAGES, LIVE_UNIT].concat();
    if is_made_of(image, &recipe) {
        return Ok(());
    }
    println!("guests: building a live system");
    let tree = fresh(&work.with_extension("live"))?.join("root");
    let include = format!("--include={LIVE_PACKAGES}");
    shell::run(Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", &include, "bookworm"]).arg(&tree))?;
    fs::write(tree.join("etc/systemd/system/lodge-up.service"), LIVE_UNIT)?;
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../lodge-up.service", wants.join("lodge-up.service"))?;
    let add = |disc: &Path| -> Result<()> {
        let live = disc.join("live");
        fs::create_dir_all(&live)?;
        for (link, name) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")] {
            let target = fs::read_link(tree.join(link))?;
            fs::copy(tree.join(target.strip_prefix("/").unwrap_or(&target)), live.join(name))?;
        }
        let mut squash = Command::new("mksquashfs");
        squash.arg(&tree).arg(live.join("filesystem.squashfs")).args(["-quiet", "-no-progress", "-comp", "zstd"]);
        shell::run(squash.args(["-Xcompression-level", "3", "-e", "boot"]))
    };
    mkrescue(image, work, LIVE_CONFIGURATION, add)?;
    fs::remove_dir_all(work.with_extension("live"))?;
    Ok(fs::write(image.with_extension("recipe"), recipe)?)
}
