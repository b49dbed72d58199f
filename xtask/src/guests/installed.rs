//! A disk with partitions that a Debian is on, which has yet to install its boot loaders: the tests boot it, and have it
//! do that.
//!
//! ```text
//! cache/guests/installed/disk.img              GPT: GRUB's embedding area, the EFI system partition, root
//! cache/guests/installed/{vmlinuz,initrd}      the kernel that is on it
//! ```

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::media::fresh;
use crate::shell;

/// Programs that make it, with the packages that bring them.
pub const PROGRAMS: &[(&str, &str)] = &[("/sbin/sfdisk", "fdisk")];

/// What the system has beside the least that Debian calls a system.
const PACKAGES: &str = "linux-image-amd64,systemd-sysv,udev,grub2-common,grub-pc-bin,grub-efi-amd64-bin";

/// Bytes of a sector, and of the disk.
const SECTOR: u64 = 512;
const SIZE: u64 = 2 << 30;

/// First sector and number of sectors of the EFI system partition and of the root file system.
const SYSTEM: (u64, u64) = (4096, 131_072);
const ROOT: (u64, u64) = (135_168, 4_050_944);

const TABLE: &str = "\
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
start=4096, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=135168, size=4050944, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
";

const MOUNTS: &str = "\
LABEL=root / ext4 errors=remount-ro 0 1
LABEL=SYSTEM /boot/efi vfat umask=0077 0 1
";

/// GRUB and the kernel talk on the serial port, and the system says when it is up.
const LOADER: &str = "\
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_CMDLINE_LINUX=\"console=ttyS0 lodge.report\"
";

/// Says from where the system was started, and switches it off.
const UNIT: &str = "\
[Unit]
Description=Tell that the system is up
ConditionKernelCommandLine=lodge.report
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh /usr/local/sbin/lodge-report
[Install]
WantedBy=multi-user.target
";

const REPORT: &str = "\
firmware=bios
[ -d /sys/firmware/efi ] && firmware=uefi
echo \"lodge: up by $firmware from $(readlink -f /sys/class/block/$(basename $(findmnt -n -o SOURCE /)))\"
systemctl poweroff
";

/// Makes it, unless it is there.
pub fn build(folder: &Path) -> Result<()> {
    let recipe = [PACKAGES, TABLE, MOUNTS, LOADER, UNIT, REPORT].concat();
    let stamp = folder.join("recipe");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    println!("guests: building an installed system");
    fs::create_dir_all(folder)?;
    let work = fresh(&folder.join("work"))?;
    let tree = work.join("root");
    let mut debootstrap = shell::command("mmdebstrap", ["--quiet", "--variant=minbase"]);
    debootstrap.arg(format!("--include={PACKAGES}"));
    debootstrap.args(["--customize-hook=echo lodge > \"$1/etc/hostname\""]);
    debootstrap.args(["--customize-hook=chroot \"$1\" passwd --delete root"]);
    shell::run(debootstrap.arg("bookworm").arg(&tree))?;
    fs::create_dir_all(tree.join("boot/efi"))?;
    let wants = "etc/systemd/system/multi-user.target.wants";
    fs::create_dir_all(tree.join(wants))?;
    for (file, text) in [
        ("etc/fstab", MOUNTS),
        ("etc/default/grub", LOADER),
        ("etc/systemd/system/lodge-report.service", UNIT),
        ("usr/local/sbin/lodge-report", REPORT),
    ] {
        fs::write(tree.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    std::os::unix::fs::symlink("../lodge-report.service", tree.join(wants).join("lodge-report.service"))?;
    for (link, name) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")] {
        let target = fs::read_link(tree.join(link))?;
        fs::copy(tree.join(target.strip_prefix("/").unwrap_or(&target)), folder.join(name))?;
    }
    let disk = work.join("disk.img");
    fs::File::create(&disk)?.set_len(SIZE)?;
    partition(&disk)?;
    let (start, sectors) = SYSTEM;
    let at = format!("{}@@{}", disk.display(), start * SECTOR);
    let mut format = Command::new("mformat");
    shell::run(format.args(["-i", &at, "-F", "-v", "SYSTEM", "-T", &sectors.to_string(), "::"]))?;
    let (start, sectors) = ROOT;
    let mut mke2fs = shell::command("mke2fs", ["-q", "-t", "ext4", "-L", "root", "-d"]);
    mke2fs.arg(&tree).arg("-E").arg(format!("offset={}", start * SECTOR)).arg(&disk);
    shell::run(mke2fs.arg(format!("{}k", (sectors * SECTOR) >> 10)))?;
    fs::rename(disk, folder.join("disk.img"))?;
    fs::remove_dir_all(work)?;
    Ok(fs::write(stamp, recipe)?)
}

/// Writes the table of partitions.
fn partition(disk: &Path) -> Result<()> {
    let mut sfdisk = Command::new("/sbin/sfdisk").args(["--quiet"]).arg(disk).stdin(Stdio::piped()).spawn()?;
    if let Some(input) = &mut sfdisk.stdin {
        input.write_all(TABLE.as_bytes())?;
    }
    let status = sfdisk.wait()?;
    if !status.success() {
        bail!("sfdisk failed ({status})");
    }
    Ok(())
}
