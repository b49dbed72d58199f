//! Who runs the works, and how each is started.
//!
//! All three run `serve.sh` in the same root file system with a folder of memory as /tmp, the works unpacked in it: the
//! bare host in a chroot with mounts, network and processes of its own, the machines off three virtio disks (the root,
//! what is written being forgotten; an archive of the works; a scratch disk).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::root::Files;

/// Who runs a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The bare host.
    Native,
    /// QEMU's TCG.
    Qemu,
    /// lodge's translator.
    Lodge,
}

impl Contender {
    /// All, in the order of tables and runs.
    pub const ALL: [Self; 3] = [Self::Native, Self::Qemu, Self::Lodge];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Qemu => "qemu-tcg",
            Self::Lodge => "lodge",
        }
    }
}

/// What a machine boots into.
pub enum Boots<'a> {
    /// `serve.sh` in the root file system.
    Serve,
    /// The first sector of a disk, by way of SeaBIOS; it ends the machine with status 1.
    Sector,
    /// The RAM disk alone, with a script that holds no quotation marks.
    Script(&'a str),
}

/// How a contender is started.
pub struct Start<'a> {
    /// Virtual processors.
    pub cpus: u32,
    /// The host's processor to run on.
    pub pin: Option<u32>,
    /// What it boots into; nothing to the bare host.
    pub boots: Boots<'a>,
    /// More for the kernel's command line.
    pub append: &'a str,
    /// Where lodge writes its report.
    pub report: Option<PathBuf>,
    /// A port of the host's that leads to the machine's [`PORT`], by a network in user mode.
    pub forward: Option<u16>,
}

/// Where the machine's end of a transfer listens.
pub const PORT: u16 = 5201;

/// What the guest is told to run, without quotation marks. Devices' nodes are there already.
const IN_GUEST: &str = "mount -t tmpfs tmp /tmp; mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; \
                        tar -xf /dev/vdb -C /tmp; ln -s /dev/vdc /tmp/scratch; exec sh /tmp/serve.sh";

/// The same for the bare host, in namespaces of its own, with the tree, the works and the scratch file as arguments.
const ON_HOST: &str = "mount --make-rprivate / && mount --rbind /dev \"$1/dev\" && mount -t proc proc \"$1/proc\" && \
                       mount -t tmpfs tmp \"$1/tmp\" && tar -xf \"$2\" -C \"$1/tmp\" && : >\"$1/tmp/scratch\" && \
                       mount --bind \"$3\" \"$1/tmp/scratch\" && exec chroot \"$1\" sh /tmp/serve.sh";

impl Start<'_> {
    /// The command.
    pub fn command(&self, contender: Contender, files: &Files) -> Command {
        let by_firmware = matches!(self.boots, Boots::Sector);
        let mut command = match contender {
            Contender::Native => native(files),
            Contender::Qemu if by_firmware => qemu_by_firmware(files),
            Contender::Lodge if by_firmware => lodge_by_firmware(files),
            Contender::Qemu => self.qemu(files),
            Contender::Lodge => self.lodge(files),
        };
        if let Some(processor) = self.pin {
            command = pinned(&command, processor);
        }
        command
    }

    fn append(&self) -> String {
        let script = match self.boots {
            Boots::Serve => format!("lodge.root=/dev/vda {} lodge.run=\"{IN_GUEST}\"", self.append),
            Boots::Sector => String::new(),
            Boots::Script(script) => format!("{} lodge.run=\"{script}\"", self.append),
        };
        format!("console=ttyS0 loglevel=4 panic=-1 {script}")
    }

    fn memory(&self) -> &'static str {
        match self.boots {
            Boots::Serve => "2G",
            Boots::Script(_) | Boots::Sector => "512M",
        }
    }

    fn qemu(&self, files: &Files) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-m", self.memory()]);
        command.args(["-smp", &self.cpus.to_string(), "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
        command.arg("-kernel").arg(&files.kernel).arg("-initrd").arg(&files.initrd).args(["-append", &self.append()]);
        if matches!(self.boots, Boots::Serve) {
            for (path, how) in
                [(&files.image, "snapshot=on"), (&files.works, "readonly=on"), (&files.scratch, "readonly=on")]
            {
                command.arg("-drive").arg(format!("file={},format=raw,if=virtio,{how}", path.display()));
            }
        }
        if let Some(port) = self.forward {
            command.args(["-netdev", &format!("user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:{PORT}")]);
            command.args(["-device", "virtio-net-pci,netdev=net0,romfile="]);
        }
        command
    }

    fn lodge(&self, files: &Files) -> Command {
        let mut command = Command::new(&files.lodge);
        command.args([
            "run",
            "--engine",
            "translator",
            "--translations",
            "off",
            "--memory",
            self.memory(),
            "--cpus",
            &self.cpus.to_string(),
        ]);
        command.arg("--no-reboot").arg("--kernel").arg(&files.kernel).arg("--initrd").arg(&files.initrd);
        command.args(["--append", &self.append()]);
        if let Some(report) = &self.report {
            command.arg("--report").arg(report);
        }
        if matches!(self.boots, Boots::Serve) {
            for (path, how) in [(&files.image, "ephemeral"), (&files.works, "readonly"), (&files.scratch, "readonly")] {
                command.arg("--disk").arg(format!("{},format=raw,bus=virtio,{how}", path.display()));
            }
        }
        if let Some(port) = self.forward {
            command.args(["--net", &format!("user,forward=tcp:{port}:{PORT}")]);
        }
        command
    }
}

fn qemu_by_firmware(files: &Files) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-m", "512M", "-display", "none", "-nodefaults", "-vga", "std"]);
    command.arg("-bios").arg(files.firmware.join("bios-256k.bin")).args(["-device", "isa-debug-exit,iobase=0xf4"]);
    command.arg("-drive").arg(format!("file={},format=raw,if=ide,snapshot=on", files.sector.display()));
    command
}

fn lodge_by_firmware(files: &Files) -> Command {
    let mut command = Command::new(&files.lodge);
    command.args(["run", "--engine", "translator", "--translations", "off", "--memory", "512M", "--serial", "none"]);
    command.arg("--firmware-dir").arg(&files.firmware).arg("--debug-exit");
    command.arg("--disk").arg(format!("{},format=raw,bus=ide,ephemeral", files.sector.display()));
    command
}

fn native(files: &Files) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--", "sh", "-c", ON_HOST, "sh"]);
    command.args([&files.tree, &files.works, &files.scratch]);
    command
}

/// A program of the root file system on the bare host, in its network.
pub fn in_tree(files: &Files, program: &str) -> Command {
    const SCRIPT: &str = "mount --make-rprivate / && mount --rbind /dev \"$1/dev\" && mount -t tmpfs tmp \"$1/tmp\" && \
                          exec chroot \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", SCRIPT, "sh"]).arg(&files.tree).arg(program);
    command
}

/// The same command on one of the host's processors.
fn pinned(command: &Command, processor: u32) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", &processor.to_string()]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// The processors that this process may use.
pub fn processors() -> Vec<u32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    parse_list(list.trim())
}

/// A list like "0-2,5".
fn parse_list(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Keeps this process, which takes the time, off the processor that is measured.
pub fn keep_off(processors: &[u32], pin: u32) -> Result<()> {
    let others: Vec<_> = processors.iter().filter(|&&other| other != pin).map(u32::to_string).collect();
    if others.is_empty() {
        return Ok(());
    }
    let mut taskset = Command::new("taskset");
    taskset.args(["--cpu-list", "--pid", &others.join(","), &std::process::id().to_string()]);
    crate::shell::output(&mut taskset).map(|_| ())
}

/// The first line that a program prints about its version.
pub fn version(program: &Path) -> String {
    let text = crate::shell::output(Command::new(program).arg("--version")).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(parse_list("3"), [3]);
        assert_eq!(parse_list(""), [] as [u32; 0]);
    }

    #[test]
    fn what_the_guest_runs_can_be_quoted() {
        assert!(!IN_GUEST.contains(['"', '\'']));
    }

    #[test]
    fn a_pinned_command_keeps_its_arguments() {
        let command = pinned(Command::new("true").args(["a", "b c"]), 1);
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["--cpu-list", "1", "true", "a", "b c"]);
    }
}
