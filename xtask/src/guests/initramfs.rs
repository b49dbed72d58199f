//! The initial RAM disk of Linux guests: busybox, the modules for virtio and ext4, and an init of our own.
//!
//! The kernel's command line drives the init:
//!
//! * `lodge.root=DEV` mounts DEV and hands over to its init; with `lodge.run`, the command runs in it.
//! * `lodge.run="SCRIPT"` runs a script, which must hold no quotation marks itself, says its status as
//!   "lodge: status N", and powers off; with `lodge.exit` it ends the VM through the debug exit port instead.
//! * Without either there is a shell on the console.
//! * `udhcpc -s /bin/lodge-dhcp` asks for an address and takes what it gets.
//! * `lodge.modules=NAME,...` loads more modules before, of those in [`DEVICES`], with options of the form
//!   `NAME.OPTION=VALUE`. They are in an archive of their own ([`devices`]), which goes behind this one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use crate::shell;

/// Modules that guests want; what they depend on comes along. One that a kernel does not have is built in.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "virtio_net", "ext4", "crc32c_generic"];

/// Modules for devices that few guests want.
const DEVICES: &[&str] = &[
    "virtio_gpu", "virtio_input", "evdev", "snd_intel8x0", "snd_sb16", "snd_pcm_oss", "snd_mixer_oss", "ata_piix",
    "ahci", "virtio_scsi", "sd_mod", "sr_mod", "isofs", "parport_pc", "lp", "e1000", "8139cp", "8139too", "ne2k-pci",
    "ne",
];

const INIT: &str = r##"#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
for module in $(cat /modules/order); do
    insmod /modules/$module || echo "lodge: module $module was not loaded"
done
set -f
line=$(cat /proc/cmdline)
exit=:
root=
for word in $line; do
    case $word in
        lodge.modules=*)
            for name in $(echo ${word#lodge.modules=} | tr , ' '); do
                for module in $(cat /modules/$name.order); do
                    loaded=$(echo ${module%.ko} | tr - _)
                    options=
                    for option in $line; do
                        case $option in $loaded.*=*) options="$options ${option#*.}" ;; esac
                    done
                    [ -d /sys/module/$loaded ] || insmod /modules/$module $options || echo "lodge: module $module was not loaded"
                done
            done ;;
        lodge.root=*) root=${word#lodge.root=} ;;
        lodge.exit) exit=lodge-exit ;;
        lodge.run=*) break ;;
    esac
done
if [ -n "$root" ]; then
    mkdir -p /root
    for try in 1 2 3 4 5 6 7 8 9 10; do
        [ -b "$root" ] && break
        sleep 0.1
    done
    mount -t ext4 "$root" /root || { echo "lodge: $root could not be mounted"; poweroff -f; }
    mount -t devtmpfs dev /root/dev
    mount -t proc proc /root/proc
fi
echo "lodge: init"
case $line in
    *lodge.run=*)
        script=${line#*lodge.run=}
        case $script in
            \"*) script=${script#\"}; script=${script%%\"*} ;;
        esac
        if [ -n "$root" ]; then
            PATH=/usr/bin:/bin:/usr/sbin:/sbin chroot /root /bin/sh -c "$script"
        else
            sh -c "$script"
        fi
        status=$?
        echo "lodge: status $status"
        $exit $status
        poweroff -f ;;
esac
[ -n "$root" ] && umount /root/dev /root/proc && exec switch_root /root /sbin/init
while :; do
    setsid cttyhack sh
    poweroff -f
done
"##;

/// Ends the VM through the debug exit port.
const EXIT: &str = r#"#!/bin/sh
printf "\\$(printf %03o "$1")" | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
"#;

/// What udhcpc does with an address that it has got.
const DHCP: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "nameserver $dns" > /etc/resolv.conf
"#;

/// Builds the archive from an unpacked kernel package and an unpacked busybox.
pub fn build(image: &Path, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "etc", "modules"] {
        archive.directory(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    let program = busybox.join("bin/busybox");
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    archive.file("bin/busybox", 0o755, &bytes);
    for applet in applets(&program)? {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.file("bin/lodge-exit", 0o755, EXIT.as_bytes());
    archive.file("bin/lodge-dhcp", 0o755, DHCP.as_bytes());
    archive.file("init", 0o755, INIT.as_bytes());

    let order = modules(&find_modules(image)?, MODULES, &mut BTreeSet::new())?;
    pack(&mut archive, "order", &order, &mut BTreeSet::new())?;
    Ok(archive.finish())
}

/// Builds the archive of modules for more devices from an unpacked kernel package: for each the list of what it takes,
/// beyond what the other archive has.
pub fn devices(image: &Path) -> Result<Vec<u8>> {
    let tree = find_modules(image)?;
    let mut loaded = BTreeSet::new();
    modules(&tree, MODULES, &mut loaded)?;
    let (mut archive, mut packed) = (Archive::default(), BTreeSet::new());
    for name in DEVICES {
        let order = modules(&tree, &[name], &mut loaded.clone())?;
        pack(&mut archive, &format!("{name}.order"), &order, &mut packed)?;
    }
    Ok(archive.finish())
}

/// The files of modules, each after what it depends on, but for those that have been seen.
fn modules(tree: &BTreeMap<String, PathBuf>, names: &[&str], seen: &mut BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let mut order = Vec::new();
    for name in names {
        load_after_dependencies(tree, name, seen, &mut order)?;
    }
    Ok(order)
}

/// Puts modules into an archive, those that are not there yet, and the list of them.
fn pack(archive: &mut Archive, list: &str, order: &[PathBuf], packed: &mut BTreeSet<PathBuf>) -> Result<()> {
    let mut names = String::new();
    for path in order {
        let name = path.file_name().and_then(|name| name.to_str()).context("a module's name is not text")?;
        if packed.insert(path.clone()) {
            archive.file(&format!("modules/{name}"), 0o644, &fs::read(path)?);
        }
        names += &format!("{name}\n");
    }
    archive.file(&format!("modules/{list}"), 0o644, names.as_bytes());
    Ok(())
}

/// What busybox can be called as. The host runs it for that; one that the host cannot run has the usual names.
fn applets(program: &Path) -> Result<Vec<String>> {
    const USUAL: &str = "sh mount umount mkdir cat echo insmod sleep switch_root poweroff reboot setsid cttyhack printf dd \
                         ls ps uname dmesg date seq head tail grep sed awk wc sort md5sum sha256sum true false test [ \
                         sync free df cp mv rm ln touch kill find xargs time gzip tar vi hostname id env expr tr cut od \
                         hexdump usleep mknod stat chmod";
    let listed = shell::output(&mut shell::command(&program.display().to_string(), ["--list"]));
    let text = listed.unwrap_or_else(|_| USUAL.to_owned());
    Ok(text.split_whitespace().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

/// All modules by name; dashes and underscores are the same to the kernel.
fn find_modules(image: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![image.join("lib/modules"), image.join("usr/lib/modules")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}

/// Puts a module into `order` after what it depends on.
fn load_after_dependencies(
    tree: &BTreeMap<String, PathBuf>,
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<PathBuf>,
) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = tree.get(&name) else { return Ok(()) };
    if !seen.insert(name) {
        return Ok(());
    }
    for dependency in depends(&fs::read(path)?) {
        load_after_dependencies(tree, &dependency, seen, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The names in a module's "depends=" text, which lies in its information section between NULs, and those of soft
/// dependencies to be loaded before ("softdep=pre: ...").
fn depends(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for text in module.split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else { continue };
        if let Some(list) = text.strip_prefix("depends=") {
            names.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        } else if let Some(list) = text.strip_prefix("softdep=pre: ") {
            names.extend(list.split_whitespace().take_while(|word| !word.ends_with(':')).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("lib/modules/6/kernel");
        fs::create_dir_all(&modules).unwrap();
        for (name, text) in [
            ("a-b.ko", &b"\x7fELF\0\0depends=c,d\0x"[..]),
            ("c.ko", b"depends=d\0"),
            ("d.ko", b"depends=\0softdep=pre: e post: f\0"),
            ("e.ko", b"depends=\0"),
            ("f.ko", b"depends=\0"),
        ] {
            fs::write(modules.join(name), text).unwrap();
        }
        let tree = find_modules(folder.path()).unwrap();
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for name in ["a_b", "built_in", "c"] {
            load_after_dependencies(&tree, name, &mut seen, &mut order).unwrap();
        }
        let names: Vec<_> = order.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["e.ko", "d.ko", "c.ko", "a-b.ko"]);
        let mut seen = BTreeSet::from(["d".to_owned(), "e".to_owned()]);
        let more = super::modules(&tree, &["f", "c"], &mut seen).unwrap();
        assert_eq!(more.len(), 2, "what has been loaded is left out: {more:?}");
    }
}
