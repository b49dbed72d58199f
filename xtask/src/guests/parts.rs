//! What Debian's installer fetches from the mirror: its further parts (udebs), those that an installation by lodge's answers
//! is made of, as a suite of their own.
//!
//! A mirror should have all of them, and some do not. What this one lacks is taken from the next Debian, where it is scripts
//! that fit either, or is put together from ordinary packages with the same programs and libraries.
//!
//! ```text
//! cache/guests/mirror/dists/lodge/    the suite's Release and index
//! cache/guests/mirror/pool/           the parts
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Apt;
use super::media::fresh;
use crate::shell;

/// Where parts are from: the first that has one.
const SUITES: &[&str] = &["bookworm", "trixie"];
/// The name of the suite that is made.
const SUITE: &str = "lodge";
/// Its one index.
const INDEX: &str = "main/debian-installer/binary-amd64/Packages";

/// Parts that are scripts for the most part.
const SCRIPTS: &str = "\
apt-mirror-setup apt-setup-udeb base-installer bootstrap-base clock-setup debootstrap-udeb di-utils-mapdevfs disk-detect \
finish-install grub-installer nobootloader os-prober-udeb partman-auto partman-base partman-basicfilesystems \
partman-basicmethods partman-efi partman-ext3 partman-partitioning partman-target partman-utils pkgsel rdate-udeb tzsetup-udeb \
user-setup-udeb";

/// Modules of the installer's kernel.
const MODULES: &str = "ata cdrom-core efi ext4 isofs loop pata sata scsi";

/// Programs and libraries, and the packages that they are in, too, or the file of a package.
const PROGRAMS_AND_LIBRARIES: &[(&str, &str)] = &[
    ("dmidecode-udeb", "dmidecode"),
    ("dosfstools-udeb", "dosfstools"),
    ("e2fsprogs-udeb", "e2fsprogs libext2fs2 libss2 libcom-err2"),
    ("fuse3-udeb", "fuse3"),
    ("grub-mount-udeb", "grub-common:usr/bin/grub-mount"),
    ("libbsd0-udeb", "libbsd0"),
    ("libdevmapper1.02.1-udeb", "libdevmapper1.02.1 libselinux1 libpcre2-8-0"),
    ("libfuse2-udeb", "libfuse2"),
    ("libfuse3-3-udeb", "libfuse3-3"),
    ("libmd0-udeb", "libmd0"),
    ("libparted-fs-resize0-udeb", "libparted-fs-resize0"),
    ("libparted2-udeb", "libparted2"),
    ("ntfs-3g-udeb", "ntfs-3g libntfs-3g89"),
];

/// What of ordinary packages no installer has.
const LEFT_OUT: &[&str] = &["doc", "man", "locale", "lintian", "bash-completion", "initramfs-tools", "info"];

/// Makes the suite in a folder, for an installer with that kernel.
pub fn build(apt: &Apt, kernel: &Path, folder: &Path) -> Result<()> {
    let kernel = kernel_version(&fs::read(kernel)?)?;
    let recipe = [&kernel, SCRIPTS, MODULES, &format!("{PROGRAMS_AND_LIBRARIES:?}{LEFT_OUT:?}")].join("\n");
    let stamp = folder.join("recipe");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    println!("guests: the parts of Debian's installer for {kernel}");
    let pool = fresh(&fresh(folder)?.join("pool"))?;
    let parts = apt.of_parts(SUITES)?;
    let modules = MODULES.split_whitespace().map(|name| format!("{name}-modules-{kernel}-di"));
    for name in SCRIPTS.split_whitespace().map(str::to_owned).chain(modules) {
        let mut found = false;
        for suite in SUITES {
            found = found || parts.part(&name, suite, &pool)?;
        }
        if !found {
            bail!("the mirror has no {name}; looked for in {}", SUITES.join(", "));
        }
    }
    for (name, packages) in PROGRAMS_AND_LIBRARIES {
        if !parts.part(name, SUITES[0], &pool)? {
            let control = parts.description(name, SUITES[0])?;
            put_together(apt, name, packages, &control, &pool)
                .with_context(|| format!("cannot put {name} together"))?;
        }
    }
    index(folder, &pool)?;
    Ok(fs::write(stamp, recipe)?)
}

/// The version that a kernel's image says it has (Documentation/arch/x86/boot.rst, `kernel_version`).
fn kernel_version(image: &[u8]) -> Result<String> {
    let at = image.get(0x20e..0x210).map_or(0, |field| usize::from(u16::from_le_bytes([field[0], field[1]])));
    let text = image.get(0x200 + at..).unwrap_or_default();
    let word = text.split(|byte| matches!(byte, b' ' | 0)).next().unwrap_or_default();
    let version = std::str::from_utf8(word).ok().filter(|version| version.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned).context("the installer's kernel does not say its version")
}

/// A part made of what is in ordinary packages: `control` is what it is described as.
fn put_together(apt: &Apt, name: &str, packages: &str, control: &str, pool: &Path) -> Result<()> {
    let tree = fresh(&pool.with_file_name("work"))?;
    for package in packages.split_whitespace() {
        let (package, file) = package.split_once(':').unwrap_or((package, "."));
        let from = apt.unpacked(package, "amd64")?;
        let mut copy = Command::new("cp");
        shell::run(copy.args(["--archive", "--parents", file]).arg(&tree).current_dir(from))?;
    }
    for part in LEFT_OUT {
        let path = tree.join("usr/share").join(part);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    fs::create_dir(tree.join("DEBIAN"))?;
    fs::write(tree.join("DEBIAN/control"), control)?;
    let mut build = shell::command("dpkg-deb", ["--build", "--root-owner-group"]);
    shell::output(build.arg(&tree).arg(pool.join(format!("{name}_lodge_amd64.udeb"))))?;
    Ok(fs::remove_dir_all(tree)?)
}

/// Writes the index and the Release. All parts are standard ones: the installer takes those by itself.
fn index(folder: &Path, pool: &Path) -> Result<()> {
    let sum = |path: &Path| -> Result<String> {
        let text = shell::output(Command::new("sha256sum").arg(path))?;
        text.split(' ').next().map(str::to_owned).context("sha256sum says nothing")
    };
    let mut files: Vec<_> = fs::read_dir(pool)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut text = String::new();
    for archive in files {
        let control = shell::output(Command::new("dpkg-deb").arg("--field").arg(&archive))?;
        control.split_inclusive('\n').filter(|line| !line.starts_with("Priority:")).for_each(|line| text += line);
        // Names with signs in them would mean something else in URLs.
        let name = control.lines().find_map(|line| line.strip_prefix("Package: ")).context("a part has no name")?;
        let name = format!("{name}.udeb");
        let file = pool.join(&name);
        fs::rename(archive, &file)?;
        let size = fs::metadata(&file)?.len();
        text += &format!("Priority: standard\nFilename: pool/{name}\nSize: {size}\nSHA256: {}\n\n", sum(&file)?);
    }
    let suite = folder.join("dists").join(SUITE);
    let path = suite.join(INDEX);
    fs::create_dir_all(path.parent().context("an index is in a folder")?)?;
    fs::write(&path, &text)?;
    let release = format!(
        "Origin: Debian\nSuite: {SUITE}\nCodename: {SUITE}\nArchitectures: amd64\nComponents: main\nSHA256:\n {} {} {INDEX}\n",
        sum(&path)?,
        text.len()
    );
    Ok(fs::write(suite.join("Release"), release)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_its_version() {
        let mut image = vec![0; 0x400];
        image[0x20e..0x210].copy_from_slice(&0x80_u16.to_le_bytes());
        image[0x280..0x298].copy_from_slice(b"6.1.0-50-amd64 (debian) ");
        assert_eq!(kernel_version(&image).unwrap(), "6.1.0-50-amd64");
        assert!(kernel_version(&[0; 0x400]).is_err() && kernel_version(&[]).is_err());
    }
}
