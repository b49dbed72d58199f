//! The command line: what there is to say, without looking at the world.
//!
//! [`Cli`] is clap's; [`RunArgs::plan`] turns the text of `run` into a [`Plan`], or says what is wrong or not available
//! yet. Neither touches a file: that is [`crate::run`]'s.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lodge_disk::Format;
use lodge_engine_api::Mirroring;
use lodge_vm::engines::Choice;
use lodge_vm::{BootDevice, BootOrder, Bus, CdBus, GraphicsCard, MachineType, SoundCard};
use lodge_vnc::Address;

use crate::ctl::CtlArgs;
use crate::disk::DiskCommand;
use crate::guests::GuestsArgs;
use crate::install::InstallArgs;
use crate::net::{self, NetPlan};
use crate::values;

/// Runs guest operating systems, with or without hardware virtualization.
#[derive(Debug, Parser)]
#[command(name = "lodge", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one throw-away VM in the foreground
    Run(Box<RunArgs>),
    /// Say which engines this host can use, and why not the others
    Engines,
    /// Say what this host offers and lacks, with remedies
    Doctor,
    /// Talk to a running VM
    Ctl(CtlArgs),
    /// Be the switch NAME among this user's machines; `run --net switch=NAME` starts it
    Switch {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make, look at, copy and mend disk images
    #[command(subcommand)]
    Disk(DiskCommand),
    /// List guest operating systems and what each needs, and recognise their media
    Guests(GuestsArgs),
    /// Make a disk and install a guest operating system on it
    Install(Box<InstallArgs>),
}

/// Options of `run`.
#[derive(Args, Debug, Default)]
pub struct RunArgs {
    /// Kernel: a Linux bzImage, a PVH ELF image or a Multiboot image
    #[arg(long, value_name = "F")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, or a Multiboot kernel's module
    #[arg(long, value_name = "F", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Disk, repeatable: F[,format=raw|qcow2|vmdk|vdi|vhd|vhdx][,bus=virtio|ide|sata|nvme|scsi][,readonly][,ephemeral]
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<String>,
    /// RAM, with suffix K, M, G or T; MiB without
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = values::size, allow_hyphen_values = true)]
    pub memory: u64,
    /// Number of virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::processors, allow_hyphen_values = true)]
    pub cpus: u32,
    /// Engine: auto, translator or kvm
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub engine: String,
    /// Whether programs of the guest that compute for long get their memory mapped as they see it: auto, off or always
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub mirror: String,
    /// Where translations of guest code are kept from one run to the next: auto, off or a folder that is yours alone;
    /// auto is lodge/translations in the user's folder for caches
    #[arg(long, value_name = "auto|off|DIR", default_value = "off")]
    pub translations: String,
    /// Network card, repeatable: none, user[,forward=tcp|udp:HOST:GUEST][,loopback=on|tcp:PORT|udp:PORT],
    /// tap=INTERFACE or switch=NAME[,nat][,spoof=allow], with [,model=virtio|e1000|rtl8139|ne2k|ne2k-isa][,queues=N][,mac=ADDRESS][,rate=BITS][,capture=F.pcapng][,link=down]
    /// [,allow|deny=[tcp:|udp:|icmp:]ADDRESS[/BITS][:PORT[-PORT]]]...  [default: none]
    #[arg(long, value_name = "SPEC")]
    pub net: Vec<String>,
    /// Serial port, repeatable: stdio, none, file=F or unix=F  [default: stdio]
    #[arg(long, value_name = "SPEC")]
    pub serial: Vec<String>,
    /// Virtio console, which Linux calls hvc0: stdio, none, file=F or unix=F  [default: none]
    #[arg(long, value_name = "SPEC")]
    pub virtio_console: Option<String>,
    /// Parallel port with a printer: none, file=F or unix=F, which get what is printed
    #[arg(long, value_name = "SPEC", default_value = "none")]
    pub parallel: String,
    /// Which PC it is: pc-1, or pc, the newest. Name a version where a guest is to find the same hardware for years
    #[arg(long, value_name = "NAME", default_value = "pc")]
    pub machine: String,
    /// Who sees the screen: none (but `lodge ctl`) or vnc=ADDR[,password-file=F]; ADDR is HOST:PORT, or :N for port 5900 + N of this
    /// host alone
    #[arg(long, value_name = "SPEC", default_value = "none")]
    pub display: String,
    /// Graphics card: std, or virtio, which is a VGA until the guest has its driver. Without firmware or viewers there is one only
    /// if it is named [default: std]
    #[arg(long, value_name = "NAME")]
    pub vga: Option<String>,
    /// What moves the pointer: ps2, a mouse, or tablet, a virtio tablet beside it, by which viewers' pointers and the guest's
    /// are at the same place
    #[arg(long, value_name = "NAME", default_value = "ps2")]
    pub pointer: String,
    /// Where sound goes: none or wav=F, a recording; with ,model=ac97|sb16 for the sound card [default: none, with no card; for
    /// wav=F ac97]. The PC speaker is recorded, too
    #[arg(long, value_name = "SPEC", default_value = "none")]
    pub sound: String,
    /// Add a port at 0xf4 at which writing v ends the VM with status (v << 1) | 1
    #[arg(long)]
    pub debug_exit: bool,
    /// End, with status 0, when the guest reboots
    #[arg(long)]
    pub no_reboot: bool,
    /// End, with status 4, after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// End with the process that started this one, which has this number
    #[arg(long, value_name = "PID", hide = true)]
    pub ends_with: Option<i32>,
    /// Write a report in JSON when the VM ends
    #[arg(long, value_name = "F.json")]
    pub report: Option<PathBuf>,
    /// CD or DVD, repeatable: F[,bus=ide|sata|scsi], an ISO image; `none` for an empty drive
    #[arg(long, value_name = "SPEC")]
    pub cdrom: Vec<String>,
    /// Floppy, repeatable once: F[,readonly], an image of 360, 720, 1200, 1440 or 2880 KiB; `none` for an empty drive
    #[arg(long, value_name = "SPEC")]
    pub floppy: Vec<String>,
    /// What is booted from, in order: disk, cdrom, floppy, network, separated by commas; `menu` among them lets one choose
    /// [default: in this order]
    #[arg(long, value_name = "LIST", conflicts_with = "kernel")]
    pub boot: Option<String>,
    /// Firmware: bios or uefi, which starts a kernel that is named, too  [default: bios; for a kernel none]
    #[arg(long, value_name = "NAME")]
    pub firmware: Option<String>,
    /// Where UEFI firmware keeps its variables, made if it is not there; without it they are forgotten
    #[arg(long, value_name = "F")]
    pub firmware_vars: Option<PathBuf>,
    /// Where firmware is looked for before the folders of distributions
    #[arg(long, value_name = "DIR")]
    pub firmware_dir: Option<PathBuf>,
    /// Where what firmware says of its progress is written
    #[arg(long, value_name = "F")]
    pub firmware_log: Option<PathBuf>,
    /// Make a socket through which `lodge ctl` talks to the VM
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Nothing to boot.
    #[error(
        "there is nothing to boot; name a kernel with --kernel, a disk with --disk, a CD with --cdrom or a floppy with --floppy"
    )]
    NothingToBoot,
    /// A value that means nothing.
    #[error("{option}: {problem}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlan {
    /// The image's file.
    pub path: PathBuf,
    /// The image's format, if it is given.
    pub format: Option<Format>,
    /// The device that it is behind.
    pub bus: Bus,
    /// The guest cannot write.
    pub readonly: bool,
    /// What the guest writes is forgotten.
    pub ephemeral: bool,
}

/// A CD drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdPlan {
    /// The disc's image, if there is one in the drive.
    pub path: Option<PathBuf>,
    /// The device that it is behind.
    pub bus: CdBus,
}

/// A floppy drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloppyPlan {
    /// The image's file, if there is a floppy in the drive.
    pub path: Option<PathBuf>,
    /// The guest cannot write.
    pub readonly: bool,
}

/// What a serial port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialPlan {
    /// Standard input and output.
    Stdio,
    /// Nothing.
    None,
    /// A file that is written.
    File(PathBuf),
    /// A Unix socket that others connect to.
    Unix(PathBuf),
}

/// What is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootPlan {
    /// This kernel.
    Kernel(PathBuf),
    /// What a BIOS finds, in this order.
    Bios(BootOrder),
    /// What UEFI firmware finds, in this order.
    Uefi(BootOrder),
}

/// A `run` command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is booted.
    pub boot: BootPlan,
    /// The engine.
    pub engine: Choice,
    /// Which programs' memory is mirrored, if lodge is where it has to be for that.
    pub mirroring: Mirroring,
    /// The disks, in order.
    pub disks: Vec<DiskPlan>,
    /// The CD drives, in order.
    pub cds: Vec<CdPlan>,
    /// The floppy drives, in order; at most two.
    pub floppies: Vec<FloppyPlan>,
    /// The serial ports, in order; at most four.
    pub serials: Vec<SerialPlan>,
    /// What the printer on the parallel port prints to; `None` for no port.
    pub parallel: SerialPlan,
    /// The virtio console.
    pub console: SerialPlan,
    /// Who sees the screen.
    pub display: DisplayPlan,
    /// The graphics card, if it is named.
    pub graphics: Option<GraphicsCard>,
    /// Which PC it is.
    pub machine: MachineType,
    /// The network cards, in order.
    pub networks: Vec<NetPlan>,
    /// There is a tablet.
    pub tablet: bool,
    /// The sound card, and where sound goes.
    pub sound: SoundPlan,
    /// Where translations are kept.
    pub translations: TranslationsPlan,
}

/// The sound card, and where sound goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoundPlan {
    /// The file that is recorded to.
    pub recording: Option<PathBuf>,
    /// The card.
    pub card: Option<SoundCard>,
}

/// Who sees the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisplayPlan {
    /// Whoever talks to the control socket.
    None,
    /// Viewers of a VNC server, too.
    Vnc {
        /// Where it listens.
        address: Address,
        /// The file whose first line is the password.
        password: Option<PathBuf>,
    },
}

/// Where translations are kept from one run to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TranslationsPlan {
    /// Where the user's caches are.
    Auto,
    /// Nowhere.
    Off,
    /// There.
    Folder(PathBuf),
}

/// Serial ports of a PC.
const SERIAL_PORTS: usize = 4;
/// Floppy drives of a PC.
const FLOPPY_DRIVES: usize = 2;

impl RunArgs {
    /// Understands the options.
    ///
    /// # Errors
    ///
    /// Something is wrong, or not available yet.
    pub fn plan(&self) -> Result<Plan, UsageError> {
        let engine = match self.engine.as_str() {
            "auto" => Choice::Auto,
            name @ ("translator" | "kvm") => Choice::Named(name.to_owned()),
            other => return Err(value("--engine", format!("'{other}' is not one of auto, translator, kvm"))),
        };
        let mirroring = match self.mirror.as_str() {
            "auto" => Mirroring::Auto,
            "off" => Mirroring::Never,
            "always" => Mirroring::Always,
            other => return Err(value("--mirror", format!("'{other}' is not one of auto, off, always"))),
        };
        let mut serials: Vec<_> = self.serial.iter().map(|text| serial("--serial", text)).collect::<Result<_, _>>()?;
        let console = self.virtio_console.as_deref().map(|text| serial("--virtio-console", text)).transpose()?;
        let console = console.unwrap_or(SerialPlan::None);
        if serials.is_empty() {
            // The port is always there: kernels look for it.
            serials.push(if console == SerialPlan::Stdio { SerialPlan::None } else { SerialPlan::Stdio });
        }
        if serials.len() > SERIAL_PORTS {
            return Err(value("--serial", format!("a PC has at most {SERIAL_PORTS} serial ports")));
        }
        if serials.iter().filter(|plan| **plan == SerialPlan::Stdio).count() > 1 {
            return Err(value("--serial", "only one port can have stdio".into()));
        }
        if console == SerialPlan::Stdio && serials.contains(&SerialPlan::Stdio) {
            return Err(value("--virtio-console", "a serial port has stdio already; say --serial none".into()));
        }
        let disks: Vec<_> = self.disk.iter().map(|text| disk(text)).collect::<Result<_, _>>()?;
        let cds: Vec<_> = self.cdrom.iter().map(|text| cd(text)).collect::<Result<_, _>>()?;
        let floppies: Vec<_> = self.floppy.iter().map(|text| floppy("--floppy", text)).collect::<Result<_, _>>()?;
        if floppies.len() > FLOPPY_DRIVES {
            return Err(value("--floppy", format!("a PC has at most {FLOPPY_DRIVES} floppy drives")));
        }
        let order = self.boot.as_deref().map(boot_order).transpose()?.unwrap_or_default();
        let networks = net::plans(&self.net)?;
        // A card may boot from what is at the other end of its cable.
        let from_network = networks.iter().any(NetPlan::serves_boot_files)
            || !networks.is_empty() && order.devices.contains(&BootDevice::Network);
        let boot = match (&self.kernel, self.firmware.as_deref()) {
            (Some(kernel), None) => BootPlan::Kernel(kernel.clone()),
            (Some(_), Some("bios")) => {
                return Err(value(
                    "--firmware",
                    "a kernel is started without a BIOS; leave it out, or say uefi".into(),
                ));
            }
            (None, None) if disks.is_empty() && cds.is_empty() && floppies.is_empty() && !from_network => {
                return Err(UsageError::NothingToBoot);
            }
            (None, None | Some("bios")) => BootPlan::Bios(order),
            (_, Some("uefi")) => BootPlan::Uefi(order),
            (_, Some(other)) => return Err(value("--firmware", format!("'{other}' is not one of bios, uefi"))),
        };
        if self.firmware_vars.is_some() && !matches!(boot, BootPlan::Uefi(_)) {
            return Err(value("--firmware-vars", "only UEFI firmware has variables; say --firmware uefi".into()));
        }
        let parallel = parallel(&self.parallel)?;
        let display = display(&self.display)?;
        let graphics = self.vga.as_deref().map(graphics).transpose()?;
        let tablet = match self.pointer.as_str() {
            "ps2" => false,
            "tablet" => true,
            other => return Err(value("--pointer", format!("'{other}' is not one of ps2, tablet"))),
        };
        let sound = sound(&self.sound)?;
        let translations = match self.translations.as_str() {
            "auto" => TranslationsPlan::Auto,
            "off" => TranslationsPlan::Off,
            "" => return Err(value("--translations", "'' is not one of auto, off, DIR".into())),
            folder => TranslationsPlan::Folder(folder.into()),
        };
        Ok(Plan {
            boot,
            display,
            engine,
            mirroring,
            disks,
            cds,
            floppies,
            serials,
            parallel,
            console,
            graphics,
            machine: machine(&self.machine)?,
            networks,
            tablet,
            sound,
            translations,
        })
    }
}

fn value(option: &'static str, problem: String) -> UsageError {
    UsageError::Value { option, problem }
}

fn display(text: &str) -> Result<DisplayPlan, UsageError> {
    let (main, properties) = values::properties(text);
    let wrong = || value("--display", format!("'{text}' is not one of none, vnc=ADDR[,password-file=F]"));
    let address = match main.split_once('=') {
        None if main == "none" && properties.is_empty() => return Ok(DisplayPlan::None),
        Some(("vnc", address)) => address.parse().map_err(|error| value("--display", format!("{error}")))?,
        _ => return Err(wrong()),
    };
    let mut password = None;
    for (name, given) in properties {
        match (name.as_str(), given) {
            ("password-file", Some(file)) if !file.is_empty() => password = Some(file.into()),
            _ => return Err(wrong()),
        }
    }
    Ok(DisplayPlan::Vnc { address, password })
}

fn machine(text: &str) -> Result<MachineType, UsageError> {
    let known = MachineType::ALL.map(MachineType::name).join(", ");
    MachineType::from_name(text).ok_or_else(|| value("--machine", format!("'{text}' is not one of pc, {known}")))
}

fn graphics(text: &str) -> Result<GraphicsCard, UsageError> {
    match text {
        "std" => Ok(GraphicsCard::Standard),
        "virtio" => Ok(GraphicsCard::Virtio),
        other => Err(value("--vga", format!("'{other}' is not one of std, virtio"))),
    }
}

fn sound(text: &str) -> Result<SoundPlan, UsageError> {
    let (main, properties) = values::properties(text);
    let mut plan = match main.split_once('=') {
        None if main == "none" => SoundPlan::default(),
        Some(("wav", file)) if !file.is_empty() => {
            SoundPlan { recording: Some(file.into()), card: Some(SoundCard::Ac97) }
        }
        _ => return Err(value("--sound", format!("'{main}' is not one of none, wav=F"))),
    };
    for (name, given) in properties {
        plan.card = Some(match (name.as_str(), given.as_deref()) {
            ("model", Some("ac97")) => SoundCard::Ac97,
            ("model", Some("sb16")) => SoundCard::Sb16,
            _ => {
                let given = given.map_or_else(|| name.clone(), |given| format!("{name}={given}"));
                let problem = format!("'{given}' is not model=ac97 or model=sb16; a comma in a file's name is doubled");
                return Err(value("--sound", problem));
            }
        });
    }
    Ok(plan)
}

fn boot_order(text: &str) -> Result<BootOrder, UsageError> {
    let mut order = BootOrder::default();
    for name in text.split(',') {
        let device = match name {
            "menu" => {
                order.menu = true;
                continue;
            }
            "disk" => BootDevice::Disk,
            "cdrom" => BootDevice::Cdrom,
            "floppy" => BootDevice::Floppy,
            "network" => BootDevice::Network,
            other => {
                return Err(value("--boot", format!("'{other}' is not one of disk, cdrom, floppy, network, menu")));
            }
        };
        if order.devices.contains(&device) {
            return Err(value("--boot", format!("'{name}' is there twice")));
        }
        order.devices.push(device);
    }
    Ok(order)
}

fn serial(option: &'static str, text: &str) -> Result<SerialPlan, UsageError> {
    match text.split_once('=') {
        None if text == "stdio" => Ok(SerialPlan::Stdio),
        None if text == "none" => Ok(SerialPlan::None),
        Some(("file", path)) if !path.is_empty() => Ok(SerialPlan::File(path.into())),
        Some(("unix", path)) if !path.is_empty() => Ok(SerialPlan::Unix(path.into())),
        _ => Err(value(option, format!("'{text}' is not one of stdio, none, file=F, unix=F"))),
    }
}

fn parallel(text: &str) -> Result<SerialPlan, UsageError> {
    match serial("--parallel", text) {
        Ok(SerialPlan::Stdio) | Err(_) => {
            Err(value("--parallel", format!("'{text}' is not one of none, file=F, unix=F")))
        }
        other => other,
    }
}

fn cd(text: &str) -> Result<CdPlan, UsageError> {
    let (path, properties) = values::properties(text);
    if path.is_empty() {
        return Err(value("--cdrom", "the file's name is missing".into()));
    }
    let mut plan = CdPlan { path: (path != "none").then(|| path.into()), bus: CdBus::Ide };
    for (name, given) in properties {
        plan.bus = match (name.as_str(), given.as_deref()) {
            ("bus", Some("ide")) => CdBus::Ide,
            ("bus", Some("sata")) => CdBus::Sata,
            ("bus", Some("scsi")) => CdBus::Scsi,
            _ => {
                let given = given.map_or_else(|| name.clone(), |given| format!("{name}={given}"));
                let problem = format!("'{given}' is not bus=ide|sata|scsi; a comma in a file's name is doubled");
                return Err(value("--cdrom", problem));
            }
        };
    }
    Ok(plan)
}

/// A floppy as `option` says it: a file and what is to be done with it.
pub fn floppy(option: &'static str, text: &str) -> Result<FloppyPlan, UsageError> {
    let (path, properties) = values::properties(text);
    if path.is_empty() {
        return Err(value(option, "the file's name is missing".into()));
    }
    let mut plan = FloppyPlan { path: (path != "none").then(|| path.into()), readonly: false };
    for (name, given) in properties {
        match (name.as_str(), given.as_deref()) {
            ("readonly", None) => plan.readonly = true,
            _ => {
                return Err(value(option, format!("'{name}' is not readonly; a comma in a file's name is doubled")));
            }
        }
    }
    Ok(plan)
}

fn disk(text: &str) -> Result<DiskPlan, UsageError> {
    let (path, properties) = values::properties(text);
    if path.is_empty() {
        return Err(value("--disk", "the file's name is missing".into()));
    }
    let mut plan = DiskPlan { path: path.into(), format: None, bus: Bus::Virtio, readonly: false, ephemeral: false };
    for (name, given) in properties {
        match (name.as_str(), given.as_deref()) {
            ("readonly", None) => plan.readonly = true,
            ("ephemeral", None) => plan.ephemeral = true,
            ("format", Some(name)) => plan.format = Some(values::format(name).map_err(|text| value("--disk", text))?),
            ("bus", Some("virtio")) => plan.bus = Bus::Virtio,
            ("bus", Some("ide")) => plan.bus = Bus::Ide,
            ("bus", Some("sata")) => plan.bus = Bus::Sata,
            ("bus", Some("nvme")) => plan.bus = Bus::Nvme,
            ("bus", Some("scsi")) => plan.bus = Bus::Scsi,
            _ => {
                let known = "format=raw|qcow2|vmdk|vdi|vhd|vhdx, bus=virtio|ide|sata|nvme|scsi, readonly, ephemeral; a \
                             comma in a file's name is doubled";
                let given = given.map_or_else(|| name.clone(), |given| format!("{name}={given}"));
                return Err(value("--disk", format!("'{given}' is not one of {known}")));
            }
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use lodge_net::Rule;

    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, UsageError> {
        let all = ["lodge", "run", "--kernel", "k"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(run) => run.plan(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let plan = plan(&[]).unwrap();
        assert_eq!(plan.serials, [SerialPlan::Stdio]);
        assert_eq!(plan.engine, Choice::Auto);
        let Command::Run(run) = Cli::try_parse_from(["lodge", "run"]).unwrap().command else { panic!() };
        assert_eq!((run.memory, run.cpus, run.timeout), (512 << 20, 1, None));
        assert_eq!(run.plan(), Err(UsageError::NothingToBoot));
    }

    #[test]
    fn disks_and_serials() {
        let plan =
            plan(&["--disk", "a.img,format=raw,bus=virtio,readonly", "--disk", "b,,c,ephemeral", "--serial", "none"])
                .unwrap();
        let disk = |path: &str, format, readonly, ephemeral| DiskPlan {
            path: path.into(),
            format,
            bus: Bus::Virtio,
            readonly,
            ephemeral,
        };
        assert_eq!(plan.disks, [disk("a.img", Some(Format::Raw), true, false), disk("b,c", None, false, true)]);
        assert_eq!((plan.serials, plan.console), (vec![SerialPlan::None], SerialPlan::None));
        assert_eq!(plan.parallel, SerialPlan::None);
    }

    #[test]
    fn disks_are_behind_what_is_asked_for() {
        let buses =
            [("virtio", Bus::Virtio), ("ide", Bus::Ide), ("sata", Bus::Sata), ("nvme", Bus::Nvme), ("scsi", Bus::Scsi)];
        for (name, bus) in buses {
            assert_eq!(plan(&["--disk", &format!("a,bus={name}")]).unwrap().disks[0].bus, bus);
        }
        let floppies = plan(&["--floppy", "a,,b.img,readonly", "--floppy", "none"]).unwrap().floppies;
        let drive = |path: Option<&str>, readonly| FloppyPlan { path: path.map(PathBuf::from), readonly };
        assert_eq!(floppies, [drive(Some("a,b.img"), true), drive(None, false)]);
        // A floppy is something to boot.
        let Command::Run(run) = Cli::try_parse_from(["lodge", "run", "--floppy", "f"]).unwrap().command else {
            panic!()
        };
        assert_eq!(run.plan().unwrap().boot, BootPlan::Bios(BootOrder::default()));
    }

    #[test]
    fn networks_have_rules_in_order() {
        let rules = |text: &str| plan(&["--net", text]).map(|plan| plan.networks[0].rules.clone());
        for network in ["user", "tap=tap0", "switch=lab,nat"] {
            let expected = [Rule::deny("*:25"), Rule::allow("[2001:db8::/32]:80-88"), Rule::allow("icmp:*")];
            let text = format!("{network},deny=*:25,rate=1M,allow=[2001:db8::/32]:80-88,allow=icmp:*");
            assert_eq!(rules(&text), Ok(expected.map(Result::unwrap).to_vec()));
        }
        assert_eq!(rules("user"), Ok(Vec::new()));
        assert!(rules("user,allow").is_err() && rules("user,deny=").is_err());
    }

    #[test]
    fn a_printer_prints_where_it_is_asked_to() {
        let of = |text: &str| plan(&["--parallel", text]).unwrap().parallel;
        assert_eq!(of("file=a,b"), SerialPlan::File("a,b".into()));
        assert_eq!((of("unix=s"), of("none")), (SerialPlan::Unix("s".into()), SerialPlan::None));
    }

    #[test]
    fn cd_drives_are_behind_what_is_asked_for() {
        let of = |text: &str| plan(&["--cdrom", text]).map(|plan| plan.cds[0].clone());
        let drive = |path: Option<&str>, bus| Ok(CdPlan { path: path.map(PathBuf::from), bus });
        assert_eq!(of("a,,b.iso"), drive(Some("a,b.iso"), CdBus::Ide));
        assert_eq!(of("a,bus=ide"), drive(Some("a"), CdBus::Ide));
        assert_eq!(of("a,bus=sata"), drive(Some("a"), CdBus::Sata));
        assert_eq!(of("none,bus=scsi"), drive(None, CdBus::Scsi));
    }

    #[test]
    fn a_console_on_stdio_takes_it_from_the_serial_port() {
        let plan = plan(&["--virtio-console", "stdio"]).unwrap();
        assert_eq!((plan.serials, plan.console), (vec![SerialPlan::None], SerialPlan::Stdio));
    }

    #[test]
    fn sound_goes_where_it_is_asked_for() {
        let of = |text: &str| {
            let SoundPlan { recording, card } = plan(&["--sound", text]).unwrap().sound;
            (recording.map(|path| path.display().to_string()), card)
        };
        assert_eq!(plan(&[]).unwrap().sound, SoundPlan::default());
        assert_eq!(of("none"), (None, None));
        assert_eq!(of("none,model=sb16"), (None, Some(SoundCard::Sb16)));
        assert_eq!(of("wav=a,,b.wav"), (Some("a,b.wav".into()), Some(SoundCard::Ac97)));
        assert_eq!(of("wav=a=b,model=sb16"), (Some("a=b".into()), Some(SoundCard::Sb16)));
    }

    #[test]
    fn graphics_and_pointers() {
        let of = |arguments: &[&str]| plan(arguments).map(|plan| (plan.graphics, plan.tablet)).unwrap();
        assert_eq!(of(&[]), (None, false));
        assert_eq!(of(&["--vga", "std", "--pointer", "ps2"]), (Some(GraphicsCard::Standard), false));
        for name in ["pc", "pc-1"] {
            assert_eq!(plan(&["--machine", name]).unwrap().machine, MachineType::Pc1);
        }
        assert_eq!(of(&["--vga", "virtio", "--pointer", "tablet"]), (Some(GraphicsCard::Virtio), true));
    }

    #[test]
    fn translations_are_kept_where_that_is_asked_for() {
        let of = |arguments: &[&str]| plan(arguments).map(|plan| plan.translations);
        assert_eq!(of(&[]), Ok(TranslationsPlan::Off));
        assert_eq!(of(&["--translations", "auto"]), Ok(TranslationsPlan::Auto));
        assert_eq!(of(&["--translations", "off"]), Ok(TranslationsPlan::Off));
        assert_eq!(of(&["--translations", "./off"]), Ok(TranslationsPlan::Folder("./off".into())));
        assert!(of(&["--translations", ""]).is_err());
    }

    #[test]
    fn negative_numbers_are_values() {
        for option in ["--cpus", "--memory", "--timeout"] {
            let error = Cli::try_parse_from(["lodge", "run", "--kernel", "k", option, "-1"]).unwrap_err().to_string();
            assert!(error.contains("'-1' is not a"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (arguments, expected) in [
            (
                &["--disk", "a,format=qed"][..],
                "--disk: 'qed' is not one of the formats raw, qcow2, vmdk, vdi, vhd, vhdx",
            ),
            (&["--disk", ",readonly"], "--disk: the file's name is missing"),
            (&["--net", "switch="], "--net: switch= takes a name, as in switch=lab"),
            (
                &["--net", "switch=lab,nat=on"],
                "--net: 'nat=on' is not one of model=virtio|e1000|rtl8139|ne2k|ne2k-isa, mac=ADDRESS, queues=N, rate=BITS, \
                 capture=F, rom=none|F, link=up|down, allow=WHAT, deny=WHAT, nat, spoof=allow; a comma in a file's name is doubled",
            ),
            (&["--net", "tap="], "--net: tap= takes the name of an interface, as in tap=tap0"),
            (
                &["--net", "tap=tap0,forward=tcp:1:2"],
                "--net: 'forward=tcp:1:2' is not one of model=virtio|e1000|rtl8139|ne2k|ne2k-isa, mac=ADDRESS, queues=N, rate=BITS, \
                 capture=F, rom=none|F, link=up|down, allow=WHAT, deny=WHAT; a comma in a file's name is doubled",
            ),
            (&["--net", "usr"], "--net: 'usr' is not one of none, user, tap=INTERFACE, switch=NAME"),
            (
                &["--net", "user,deny=10.0.0.1/8"],
                "--net: deny=10.0.0.1/8 is not [tcp:|udp:|icmp:]ADDRESS[/BITS][:PORT[-PORT]], as in tcp:192.0.2.0/24:80-88 \
                 or *:53: 10.0.0.1 has more than 8 bits set; write 10.0.0.0/8",
            ),
            (&["--floppy", "x.img,size=1"], "--floppy: 'size' is not readonly; a comma in a file's name is doubled"),
            (&["--floppy", ""], "--floppy: the file's name is missing"),
            (&["--floppy", "a", "--floppy", "b", "--floppy", "c"], "--floppy: a PC has at most 2 floppy drives"),
            (
                &["--cdrom", "x.iso,bus=nvme"],
                "--cdrom: 'bus=nvme' is not bus=ide|sata|scsi; a comma in a file's name is doubled",
            ),
            (&["--parallel", "stdio"], "--parallel: 'stdio' is not one of none, file=F, unix=F"),
            (&["--cdrom", ""], "--cdrom: the file's name is missing"),
            (&["--serial", "tcp=1"], "--serial: 'tcp=1' is not one of stdio, none, file=F, unix=F"),
            (&["--virtio-console", "tty"], "--virtio-console: 'tty' is not one of stdio, none, file=F, unix=F"),
            (
                &["--virtio-console", "stdio", "--serial", "stdio"],
                "--virtio-console: a serial port has stdio already; say --serial none",
            ),
            (&["--sound", "pulse"], "--sound: 'pulse' is not one of none, wav=F"),
            (&["--sound", "wav="], "--sound: 'wav=' is not one of none, wav=F"),
            (
                &["--sound", "wav=a,model=gus"],
                "--sound: 'model=gus' is not model=ac97 or model=sb16; a comma in a file's name is doubled",
            ),
            (&["--machine", "q35"], "--machine: 'q35' is not one of pc, pc-1"),
            (&["--vga", "cirrus"], "--vga: 'cirrus' is not one of std, virtio"),
            (&["--pointer", "usb"], "--pointer: 'usb' is not one of ps2, tablet"),
            (&["--engine", "hvf"], "--engine: 'hvf' is not one of auto, translator, kvm"),
            (&["--serial", "stdio", "--serial", "stdio"], "--serial: only one port can have stdio"),
        ] {
            assert_eq!(plan(arguments).unwrap_err().to_string(), expected);
        }
        let error = plan(&["--disk", "a,size=1"]).unwrap_err().to_string();
        assert!(error.starts_with("--disk: 'size=1' is not one of format=raw|qcow2"), "{error}");
        assert!(Cli::try_parse_from(["lodge", "run", "--memory", "0"]).is_err());
        assert!(Cli::try_parse_from(["lodge", "run", "--cpus", "256"]).is_err());
        assert!(Cli::try_parse_from(["lodge", "run", "--initrd", "x"]).is_err(), "an initrd needs a kernel");
    }
}
