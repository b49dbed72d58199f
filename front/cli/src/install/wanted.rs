//! What is to be installed, on what: options, the system's profile, and all that speaks against it.

use std::fs::File;
use std::path::{Path, PathBuf};

use lodge_guests::{Catalogue, DiskBus, Firmware, Profile, Size, Unattended, detect};
use lodge_install::{Answers, Finish, Mirror, Nic, Plan, Start, User, WindowsAnswers, check};

use super::{CommandError, InstallArgs};
use crate::net::{self, NetPlan, NetworkPlan};

/// Where the installer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// On a disc: an image, or the host's drive.
    Disc(PathBuf),
    /// In a folder that lodge serves.
    Folder(PathBuf),
    /// With a server on the network.
    Server,
}

/// What is to be installed, and on what.
pub struct Wanted {
    /// The system.
    pub profile: &'static Profile,
    /// The machine, which suits it.
    pub plan: Plan,
    /// Where the installer is.
    pub from: From,
    /// The network card.
    pub net: Option<NetPlan>,
    /// The card's model: what was said, or what suits the system.
    pub model: lodge_guests::Nic,
    /// It was said.
    pub model_is_said: bool,
    /// What the installer is told, with nobody to ask.
    pub answers: Option<Answers>,
}

/// Reads the options, and holds them against the profile.
///
/// # Errors
/// An option makes no sense, a file can't be read, or something speaks against it.
pub fn wanted(args: &InstallArgs) -> Result<Wanted, CommandError> {
    let profile = Catalogue::built_in().find(&args.os).ok_or_else(|| CommandError::NoSystem(args.os.clone()))?;
    let from = from(&args.from)?;
    let mut plan = Plan::recommended(profile);
    plan.unattended = args.unattended;
    plan.start = if matches!(from, From::Disc(_)) { Start::Medium } else { Start::Pxe };
    plan.disk = args.size.map_or(plan.disk, Size::from_bytes);
    plan.memory = args.memory.map_or(plan.memory, Size::from_bytes);
    plan.cpus = args.cpus.unwrap_or(plan.cpus);
    if let Some(name) = &args.firmware {
        plan.firmware = one_of("--firmware", name, [Firmware::Bios, Firmware::Uefi], Firmware::name)?;
    }
    if let Some(name) = &args.bus {
        let buses = [DiskBus::Virtio, DiskBus::Scsi, DiskBus::Sata, DiskBus::Nvme, DiskBus::Ide];
        plan.bus = one_of("--bus", name, buses, DiskBus::name)?;
    }
    let model_is_said = net::says(&args.net, "model");
    let (net, model) = network(args, &from, &mut plan, model_is_said)?;
    if let From::Disc(path) = &from {
        plan.medium_is = looked_at(path)?;
    }
    let problems = check(profile, &plan);
    if !problems.is_empty() {
        return Err(CommandError::Problems(problems));
    }
    if args.unattended && from == From::Server {
        let problem =
            "a server elsewhere has its own answers; unattended, name the installer's folder (pxe=DIR) or disc";
        return Err(CommandError::Value { option: "--from", problem: problem.into() });
    }
    if args.bootfile.is_some() && !matches!(from, From::Folder(_)) {
        let problem = "it is a file in the folder of --from pxe=DIR".into();
        return Err(CommandError::Value { option: "--bootfile", problem });
    }
    let answers = if args.unattended { Some(answers(args, profile, &plan)?) } else { None };
    Ok(Wanted { profile, plan, from, net, model, model_is_said, answers })
}

fn one_of<T: Copy>(
    option: &'static str,
    given: &str,
    known: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'static str,
) -> Result<T, CommandError> {
    let known: Vec<T> = known.into_iter().collect();
    known.iter().copied().find(|item| name(*item) == given).ok_or_else(|| {
        let names: Vec<_> = known.into_iter().map(&name).collect();
        CommandError::Value { option, problem: format!("'{given}' is not one of {}", names.join(", ")) }
    })
}

fn from(text: &str) -> Result<From, CommandError> {
    match text.split_once('=') {
        None if text == "pxe" => Ok(From::Server),
        Some(("iso" | "disc", file)) if !file.is_empty() => Ok(From::Disc(file.into())),
        Some(("pxe", folder)) if !folder.is_empty() => Ok(From::Folder(folder.into())),
        _ => Err(CommandError::Value {
            option: "--from",
            problem: format!("'{text}' is not one of iso=F, disc=DEVICE, pxe=DIR, pxe"),
        }),
    }
}

/// The card and its network, which the plan is told of.
fn network(
    args: &InstallArgs,
    from: &From,
    plan: &mut Plan,
    model_is_said: bool,
) -> Result<(Option<NetPlan>, lodge_guests::Nic), CommandError> {
    let wrong = |problem: String| CommandError::Value { option: "--net", problem };
    let mut nets = net::plans(std::slice::from_ref(&args.net)).map_err(|error| wrong(error.to_string()))?;
    let usual = plan.nics.first().map_or(lodge_guests::Nic::Virtio, |nic| nic.model);
    plan.nics.clear();
    let Some(net) = nets.pop() else { return Ok((None, usual)) };
    let said = net::model(&net.card);
    // What is not said is what suits the system.
    let model = if model_is_said {
        [lodge_guests::Nic::Virtio, lodge_guests::Nic::E1000, lodge_guests::Nic::Rtl8139, lodge_guests::Nic::Ne2k]
            .into_iter()
            .find(|model| said.starts_with(model.name()))
            .unwrap_or(usual)
    } else {
        usual
    };
    let elsewhere = !matches!(net.network, NetworkPlan::User { .. });
    let offers_boot = match from {
        From::Folder(_) => !elsewhere,
        From::Server => elsewhere,
        From::Disc(_) => false,
    };
    if net.serves_boot_files() {
        return Err(wrong("what is booted is said with --from pxe=DIR".into()));
    }
    plan.nics.push(Nic { model, connected: true, offers_boot });
    Ok((Some(net), model))
}

/// What a disc is of; nothing if it is not known.
fn looked_at(path: &Path) -> Result<Vec<String>, CommandError> {
    let disc = File::open(path).map_err(|source| CommandError::Read { path: path.into(), source })?;
    let detection =
        detect(&disc, Catalogue::built_in()).map_err(|source| CommandError::Medium { path: path.into(), source })?;
    if !detection.medium.bios && !detection.medium.uefi {
        return Err(CommandError::NoInstaller(path.into()));
    }
    Ok(detection.profiles.iter().map(|profile| profile.id.clone()).collect())
}

/// What the installer is told.
fn answers(args: &InstallArgs, profile: &Profile, plan: &Plan) -> Result<Answers, CommandError> {
    let given = &args.answers;
    let mut keys = Vec::new();
    for path in &given.ssh_key {
        let text = read(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        keys.extend(lines.map(str::to_owned));
    }
    let windows = profile.unattended == Unattended::Autounattend;
    let password = given.password_file.as_deref().map(first_line).transpose()?;
    let (password_hash, plain) = match password {
        Some(hash) if hash.starts_with('$') && !windows => (Some(hash), None),
        Some(plain) if windows => (None, Some(plain)),
        Some(plain) => (Some(hashed(&plain)?), None),
        None => (None, None),
    };
    let mirror = given.mirror.as_deref().map(mirror).transpose()?;
    let or = |value: &Option<String>, usual: &str| value.clone().unwrap_or_else(|| usual.to_owned());
    Ok(Answers {
        hostname: given.hostname.clone().unwrap_or_else(|| hostname(&args.disk)),
        user: User { name: or(&given.user, "guest"), full_name: String::new(), password_hash, ssh_keys: keys },
        locale: or(&given.locale, "en_US.UTF-8"),
        keyboard: or(&given.keyboard, "us"),
        timezone: or(&given.timezone, "UTC"),
        disk: disk_name(plan.bus).to_owned(),
        mirror,
        packages: given.package.clone(),
        kernel_parameters: given.append.clone().unwrap_or_default(),
        finish: Finish::PowerOff,
        windows: WindowsAnswers {
            password: plain,
            product_key: given.product_key_file.as_deref().map(first_line).transpose()?,
            ..WindowsAnswers::default()
        },
    })
}

/// What Linux calls the first disk on a bus.
fn disk_name(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Virtio => "/dev/vda",
        DiskBus::Nvme => "/dev/nvme0n1",
        DiskBus::Scsi | DiskBus::Sata | DiskBus::Ide => "/dev/sda",
    }
}

/// A host name made of the disk's.
fn hostname(disk: &Path) -> String {
    let stem = disk.file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let letters: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    let name = letters.trim_matches('-');
    if name.is_empty() { "guest".into() } else { name.to_owned() }
}

fn read(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|source| CommandError::Read { path: path.into(), source })
}

fn first_line(path: &Path) -> Result<String, CommandError> {
    Ok(read(path)?.lines().next().unwrap_or_default().to_owned())
}

/// A password's hash (crypt(5), sha512crypt).
fn hashed(password: &str) -> Result<String, CommandError> {
    /// What is usual (Drepper, "Unix crypt using SHA-256 and SHA-512").
    const ROUNDS: usize = 5_000;
    let failed = |problem: String| CommandError::Value { option: "--password-file", problem };
    if password.is_empty() {
        return Err(failed("its first line is empty".into()));
    }
    let params = sha_crypt::Sha512Params::new(ROUNDS).map_err(|error| failed(format!("{error:?}")))?;
    sha_crypt::sha512_simple(password, &params).map_err(|error| failed(format!("it can't be hashed: {error:?}")))
}

/// A mirror's address.
fn mirror(text: &str) -> Result<Mirror, CommandError> {
    let problem = || CommandError::Value {
        option: "--mirror",
        problem: format!("'{text}' is not http://HOST/FOLDER, as in http://mirror.example.org/debian"),
    };
    let (host, folder) = text.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or_else(problem)?;
    Ok(Mirror { host: host.to_owned(), folder: format!("/{}", folder.trim_end_matches('/')) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_installer_is_has_four_forms() {
        assert_eq!(from("iso=a.iso").unwrap(), From::Disc("a.iso".into()));
        assert_eq!(from("disc=/dev/sr0").unwrap(), From::Disc("/dev/sr0".into()));
        assert_eq!(from("pxe=/srv/tftp").unwrap(), From::Folder("/srv/tftp".into()));
        assert_eq!(from("pxe").unwrap(), From::Server);
        for wrong in ["", "iso", "iso=", "pxe=", "usb=x"] {
            assert!(from(wrong).unwrap_err().to_string().contains("--from"), "{wrong}");
        }
    }

    #[test]
    fn a_host_name_is_made_of_the_disks() {
        let of = |name: &str| hostname(Path::new(name));
        assert_eq!(of("/x/Web Server_1.qcow2"), "web-server-1");
        assert_eq!((of("--.img"), of("")), ("guest".into(), "guest".into()));
    }

    #[test]
    fn mirrors_and_passwords_are_read() {
        let expected = Mirror { host: "mirror.example.org:8080".into(), folder: "/debian".into() };
        assert_eq!(mirror("http://mirror.example.org:8080/debian/").unwrap(), expected);
        assert!(mirror("https://mirror.example.org/debian").is_err());
        let hash = hashed("secret").unwrap();
        assert!(hash.starts_with("$6$") && sha_crypt::sha512_check("secret", &hash).is_ok(), "{hash}");
        assert!(hashed("").is_err());
    }
}
