//! `cargo xtask guests`: kernels from Debian's packages, and initial RAM disks to boot them with, in `cache/guests`.
//!
//! Packages are fetched with apt into a state directory of our own (both architectures, the host's own sources), so
//! that neither root nor a change of the host's apt configuration is needed. What is there already is not fetched again.
//!
//! ```text
//! cache/guests/cloud-amd64/{vmlinuz,initrd}     linux-image-cloud-amd64
//! cache/guests/amd64/{vmlinuz,initrd}           linux-image-amd64
//! cache/guests/686-pae/{vmlinuz,initrd}         linux-image-686-pae, i386
//! cache/guests/*/devices.cpio                   more modules, to be put behind an initrd
//! cache/guests/memtest86+/{x64,ia32}.bin        memtest86+
//! cache/guests/{firmware,media}                 firmware and boot media (media.rs)
//! cache/guests/installed                        a Debian on a disk with partitions (installed.rs), with --root
//! cache/guests/mirror                           parts of Debian's installer (parts.rs), with --installer
//! cache/root/{root.img,tree}                    a Debian root file system, with --root
//! ```

mod apt;
mod cpio;
mod initramfs;
mod installed;
mod installer;
mod media;
mod parts;
mod root;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use apt::Apt;
pub use installed::PROGRAMS as DISK_PROGRAMS;
pub use media::PROGRAMS as MEDIA_PROGRAMS;
pub use root::{Extras, PROGRAMS as ROOT_PROGRAMS, Recipe};

/// A Linux guest: the folder's name, the package that depends on the kernel's, and the architecture.
const LINUX: &[(&str, &str, &str)] = &[
    ("cloud-amd64", "linux-image-cloud-amd64", "amd64"),
    ("amd64", "linux-image-amd64", "amd64"),
    ("686-pae", "linux-image-686-pae", "i386"),
];

/// What the root file system holds besides the least that Debian calls a system.
const ROOT_PACKAGES: &str = "systemd-sysv,udev,dbus,iproute2,procps,kmod,python3,perl,xz-utils,openssl,sqlite3,gcc,\
                             libc6-dev";

/// Bytes of the root file system's image.
const ROOT_SIZE: &str = "2G";

/// Where guests are.
pub fn folder() -> PathBuf {
    crate::root().join("cache/guests")
}

/// The root file system that whole-VM tests boot.
fn recipe() -> Recipe<'static> {
    Recipe { folder: crate::root().join("cache/root"), packages: ROOT_PACKAGES, size: ROOT_SIZE, extras: None }
}

/// That as an image.
pub fn root_image() -> PathBuf {
    recipe().image()
}

/// Fetches and builds the cloud guest alone; its folder, which holds `vmlinuz` and `initrd`.
pub fn cloud() -> Result<PathBuf> {
    let (name, package, architecture) = LINUX[0];
    let folder = folder().join(name);
    let apt = Apt::new(&crate::root().join("cache/apt"))?;
    linux(&apt, &folder, package, architecture).with_context(|| format!("guest {name}"))?;
    Ok(folder)
}

/// Fetches or makes the parts of Debian's installer; the mirror that they go with.
pub fn parts() -> Result<String> {
    let apt = Apt::new(&crate::root().join("cache/apt"))?;
    let kernel = folder().join("media/netboot").join(installer::KERNEL);
    parts::build(&apt, &kernel, &folder().join("mirror")).context("the parts of Debian's installer")?;
    apt.mirror("bookworm")
}

/// Fetches firmware alone; its folder.
pub fn firmware() -> Result<PathBuf> {
    media::firmware(&Apt::new(&crate::root().join("cache/apt"))?, &folder())
}

/// Fetches and builds what is missing.
pub fn run(root: bool) -> Result<()> {
    let folder = folder();
    let apt = Apt::new(&crate::root().join("cache/apt"))?;
    for (name, package, architecture) in LINUX {
        linux(&apt, &folder.join(name), package, architecture).with_context(|| format!("guest {name}"))?;
    }
    memtest(&apt, &folder.join("memtest86+")).context("guest memtest86+")?;
    media::build(&apt, &folder, root).context("firmware and media")?;
    if root {
        installed::build(&folder.join("installed")).context("the installed system")?;
        recipe().build().context("the root file system")?;
    }
    println!("guests: all are in {}", folder.display());
    Ok(())
}

/// A Linux kernel and its initial RAM disk.
fn linux(apt: &Apt, folder: &Path, package: &str, architecture: &str) -> Result<()> {
    let (kernel, initrd) = (folder.join("vmlinuz"), folder.join("initrd"));
    // The RAM disk is built anew each time: it takes a moment and changes with this program.
    let image = apt.unpacked(&apt.dependency(package, architecture, "linux-image-")?, architecture)?;
    let busybox = apt.unpacked("busybox-static", architecture)?;
    fs::create_dir_all(folder)?;
    let found = fs::read_dir(image.join("boot"))?
        .filter_map(|entry| entry.ok())
        .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .context("the package holds no kernel")?;
    replace(&kernel, &fs::read(found.path())?)?;
    replace(&initrd, &initramfs::build(&image, &busybox)?)?;
    replace(&folder.join("devices.cpio"), &initramfs::devices(&image)?)?;
    println!("guests: {} and initrd", kernel.display());
    Ok(())
}

/// Writes a file in one step, for whoever reads it at the same time.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, path)?;
    Ok(())
}

fn memtest(apt: &Apt, folder: &Path) -> Result<()> {
    let package = apt.unpacked("memtest86+", "amd64")?;
    fs::create_dir_all(folder)?;
    for name in ["x64", "ia32"] {
        let program = fs::read(package.join(format!("boot/memtest86+{name}.bin")))?;
        replace(&folder.join(format!("{name}.bin")), &program)?;
    }
    Ok(())
}
