//! The machine that an installation runs on: the command line of `lodge run` for it, and the one for afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use lodge_guests::{Firmware, Nic, Unattended};
use lodge_install::boot_files::{Linux, linux_on};
use lodge_install::{Carrier, InstallError, PrepareError, Prepared, Target, append_archive, prepare, pxe};
use lodge_net::MacAddress;

use super::wanted::{From, Wanted};
use super::{CommandError, InstallArgs};
use crate::net::NetworkPlan;

/// The command that runs the machine, and whether the installer's log tells of its progress. What the machine needs besides is
/// put into `work`.
///
/// # Errors
/// Answers can't be given, the installer is not where it should be, or files can't be read or written.
pub fn command(
    args: &InstallArgs,
    wanted: &Wanted,
    target: &Target,
    work: &Path,
) -> Result<(Command, bool), CommandError> {
    let plan = &wanted.plan;
    let mut command = Command::new(std::env::current_exe().map_err(InstallError::Start)?);
    command.arg("run");
    command.args(["--memory", &format!("{}K", plan.memory.bytes() >> 10), "--cpus", &plan.cpus.to_string()]);
    command.args(["--engine", &args.engine]);
    let disk = [",format=", target.format().name(), ",bus=", plan.bus.name()].concat();
    command.arg("--disk").arg(file(&target.incomplete(), &disk));
    for (option, value) in [("--firmware-dir", &args.firmware_dir), ("--control", &args.control)] {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    if let Some(timeout) = args.timeout {
        command.args(["--timeout", &timeout.as_secs_f64().to_string()]);
    }
    match &args.display {
        Some(display) => _ = command.args(["--display", display]),
        None if !args.unattended => _ = command.args(["--display", "vnc=:0"]),
        None => {}
    }
    // Windows' installer goes on after reboots; others have done their work.
    if wanted.profile.unattended != Unattended::Autounattend {
        command.arg("--no-reboot");
    }
    let prepared =
        wanted.answers.as_ref().map(|answers| prepare(wanted.profile, answers, plan.firmware)).transpose()?;
    let tells = wanted.profile.unattended == Unattended::Preseed && prepared.is_some();
    let mut boot_files = String::new();
    match &wanted.from {
        From::Disc(path) => disc(&mut command, wanted, path, prepared.as_ref(), work)?,
        From::Folder(folder) => {
            boot_files = served(args, wanted, folder, prepared.as_ref(), work)?;
            command.args(["--firmware", plan.firmware.name(), "--boot", "network"]);
        }
        From::Server => _ = command.args(["--firmware", plan.firmware.name(), "--boot", "network"]),
    }
    if let Some(plan) = &wanted.net {
        let model = if wanted.model_is_said { String::new() } else { format!(",model={}", wanted.model) };
        let mac = if plan.mac.is_some() { String::new() } else { format!(",mac={}", mac(target.disk())) };
        command.args(["--net", &[&args.net, boot_files.as_str(), &model, &mac].concat()]);
    }
    Ok((command, tells))
}

/// A file and its properties, as `lodge run` takes them: a comma in a file's name is doubled.
fn file(path: &Path, properties: &str) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend(properties.as_bytes());
    OsString::from_vec(bytes)
}

/// The card's address: the one that it will have with the disk.
fn mac(disk: &Path) -> MacAddress {
    let folder = disk.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(disk.file_name().unwrap_or_default());
    MacAddress::derived(whole.as_os_str().as_bytes(), 0)
}

/// Writes a file beside others that the machine needs.
fn write(work: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, CommandError> {
    let path = work.join(name);
    std::fs::write(&path, bytes).map_err(CommandError::Work)?;
    Ok(path)
}

/// A disc in the drive. With answers, a Linux's kernel is started directly, which is how it is told of them.
fn disc(
    command: &mut Command,
    wanted: &Wanted,
    path: &Path,
    prepared: Option<&Prepared>,
    work: &Path,
) -> Result<(), CommandError> {
    command.arg("--cdrom").arg(file(path, ""));
    let firmware = wanted.plan.firmware;
    let Some(prepared) = prepared else {
        command.args(["--firmware", firmware.name(), "--boot", "cdrom,disk"]);
        return Ok(());
    };
    let (mut kernel, mut archive) = (true, None);
    match &prepared.carrier {
        Carrier::Initrd(carried) => archive = Some(carried),
        Carrier::Disk(volume) => {
            let path = write(work, "answers.img", &volume.image)?;
            let properties = format!(",format=raw,bus={},readonly", wanted.plan.bus);
            command.arg("--disk").arg(file(&path, &properties));
        }
        Carrier::Floppy(volume) => {
            let path = write(work, "answers.img", &volume.image)?;
            command.arg("--floppy").arg(file(&path, ",readonly")).args(["--boot", "cdrom,disk"]);
            kernel = false;
        }
    }
    // Without firmware a system is installed for the BIOS.
    if !kernel || firmware == Firmware::Uefi {
        command.args(["--firmware", firmware.name()]);
    }
    if kernel {
        let medium = |source| CommandError::Medium { path: path.into(), source };
        let image = File::open(path).map_err(|source| CommandError::Read { path: path.into(), source })?;
        let found = linux_on(&image, wanted.profile).map_err(medium)?;
        let Linux { kernel, mut initrd } =
            found.ok_or_else(|| CommandError::NoKernel { path: path.into(), name: wanted.profile.name.clone() })?;
        if let Some(archive) = archive {
            initrd = append_archive(initrd, archive).map_err(PrepareError::from)?;
        }
        command.arg("--kernel").arg(write(work, "kernel", &kernel)?);
        command.arg("--initrd").arg(write(work, "initrd", &initrd)?);
        command.args(["--append", &format!("console=ttyS0 {}", prepared.kernel_parameters)]);
    }
    Ok(())
}

/// A folder that lodge serves: as it is, or one that answers. The properties of `--net` that say so.
fn served(
    args: &InstallArgs,
    wanted: &Wanted,
    folder: &Path,
    prepared: Option<&Prepared>,
    work: &Path,
) -> Result<String, CommandError> {
    let problem = |problem: String| CommandError::Value { option: "--from", problem };
    if !folder.is_dir() {
        return Err(problem(format!("'{}' is not a folder", folder.display())));
    }
    let bootfile = match &args.bootfile {
        Some(file) => file.clone(),
        None => pxe::loader(folder, wanted.plan.firmware)?.to_owned(),
    };
    let mut place = folder.to_owned();
    if let Some(prepared) = prepared {
        place = work.join("network");
        std::fs::create_dir(&place).map_err(CommandError::Work)?;
        pxe::answering(folder, &place, &bootfile, wanted.profile, prepared)?;
    }
    let named = |path: &OsStr| {
        file(Path::new(path), "").into_string().map_err(|_| problem("a folder's name has to be one of UTF-8".into()))
    };
    Ok(format!(",netboot={},bootfile={}", named(place.as_os_str())?, named(OsStr::new(&bootfile))?))
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._,=:-+@".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The command line that starts the installed system.
pub fn start(args: &InstallArgs, wanted: &Wanted, target: &Target) -> String {
    let plan = &wanted.plan;
    let disk = file(target.disk(), &format!(",format={},bus={}", target.format().name(), plan.bus));
    let mut text = format!("lodge run --disk {}", quoted(&disk.to_string_lossy()));
    text += &format!(" --memory {}M", plan.memory.bytes() >> 20);
    if plan.cpus != 1 {
        text += &format!(" --cpus {}", plan.cpus);
    }
    if plan.firmware == Firmware::Uefi {
        text += " --firmware uefi";
    }
    if let Some(folder) = &args.firmware_dir {
        text += &format!(" --firmware-dir {}", quoted(&folder.to_string_lossy()));
    }
    if let Some(plan) = &wanted.net {
        let unsaid = !wanted.model_is_said && wanted.model != Nic::Virtio;
        let model = if unsaid { format!(",model={}", wanted.model) } else { String::new() };
        let leads_nowhere = matches!(&plan.network, NetworkPlan::User { forwards, .. } if forwards.is_empty());
        let forward = if leads_nowhere { ",forward=tcp:2222:22" } else { "" };
        text += &format!(" --net {}", quoted(&[&args.net, model.as_str(), forward].concat()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_names_are_doubled() {
        assert_eq!(file(Path::new("/a,b/c"), ",bus=ide"), OsString::from("/a,,b/c,bus=ide"));
        assert_eq!((quoted("/a.b"), quoted("it's")), ("/a.b".into(), r"'it'\''s'".into()));
    }

    #[test]
    fn a_card_has_the_address_that_it_will_have() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("d.img");
        let before = mac(&disk);
        std::fs::write(&disk, "").unwrap();
        let plan = crate::args::DiskPlan {
            path: disk,
            format: None,
            bus: lodge_vm::Bus::Virtio,
            readonly: false,
            ephemeral: false,
        };
        assert_eq!(Some(before), crate::net::identity(&[plan]).map(|identity| MacAddress::derived(&identity, 0)));
    }
}
