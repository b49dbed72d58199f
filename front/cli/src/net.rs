//! `--net`: network cards and what they are plugged into.

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lodge_net::switch::protocol::Hello;
use lodge_net::switch::{Place, SwitchError, SwitchLink};
use lodge_net::{BadRule, Cable, CableConfig, Capture, MacAddress, Network, Rate, Rule, Rules, Tap};
use lodge_netboot::{BootFile, Folder};
use lodge_switch::{Ended, ServeError};
use lodge_usernet::{Forward, GATEWAY, Loopback, NAME_SERVER, NAME_SERVER_6, Netboot, Protocol, UserConfig, UserNet};
use lodge_vm::{AttachedNetwork, NetworkCard};

use crate::args::{DiskPlan, UsageError};
use crate::run::RunError;
use crate::{firmware, values};

/// Network cards that there are places for.
const MOST: usize = 4;
/// Most pairs of queues.
const MOST_QUEUES: u16 = 16;

/// How long a switch stays when its last machine has gone.
const LINGER: Duration = Duration::from_secs(5);

/// A network card and what it is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetPlan {
    /// The network.
    pub network: NetworkPlan,
    /// The card.
    pub card: NetworkCard,
    /// What firmware boots off the network with.
    pub rom: RomPlan,
    /// Its address; without, one that is derived.
    pub mac: Option<MacAddress>,
    /// How fast it is.
    pub rate: Option<Rate>,
    /// The file that what goes over the cable is recorded to.
    pub capture: Option<PathBuf>,
    /// What the guest may reach, in the order that was given.
    pub rules: Vec<Rule>,
    /// The cable is pulled at first.
    pub unplugged: bool,
}

/// The expansion ROM of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RomPlan {
    /// The one that the host has for the card, if it has one.
    Usual,
    /// None.
    None,
    /// This file.
    File(PathBuf),
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkPlan {
    /// In user mode.
    User {
        /// Ports that are forwarded.
        forwards: Vec<Forward>,
        /// What is reached of the host's loopback interface.
        loopback: Loopback,
        /// The folder that is served to guests that boot from the network, and the file in it that they boot.
        netboot: Option<(PathBuf, String)>,
    },
    /// A tap of the host's.
    Tap {
        /// Its interface.
        interface: String,
    },
    /// A switch among this user's machines.
    Switch {
        /// Its name.
        name: String,
        /// It leads out.
        nat: bool,
        /// The guest may use other cards' addresses than its own.
        spoof: bool,
    },
}

fn wrong(problem: String) -> UsageError {
    UsageError::Value { option: "--net", problem }
}

/// The cards that all `--net` say.
///
/// # Errors
/// Something makes no sense, or there are too many.
pub fn plans(texts: &[String]) -> Result<Vec<NetPlan>, UsageError> {
    let plans: Vec<_> =
        texts.iter().map(|text| plan(text)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if plans.len() > MOST {
        return Err(wrong(format!("a PC has at most {MOST} network cards")));
    }
    if plans.iter().filter(|plan| plan.card == NetworkCard::Ne2000Isa).count() > 1 {
        return Err(wrong("there is room for one ne2k-isa".into()));
    }
    Ok(plans)
}

/// Whether a card's text says something of this name.
pub fn says(text: &str, name: &str) -> bool {
    values::properties(text).1.iter().any(|(said, _)| said == name)
}

/// One card; `none` is none.
fn plan(text: &str) -> Result<Option<NetPlan>, UsageError> {
    let (main, properties) = values::properties(text);
    let network = match main.split_once('=') {
        None if main == "none" && properties.is_empty() => return Ok(None),
        None if main == "user" => {
            NetworkPlan::User { forwards: Vec::new(), loopback: Loopback::default(), netboot: None }
        }
        Some(("tap", "")) => return Err(wrong("tap= takes the name of an interface, as in tap=tap0".into())),
        Some(("tap", interface)) => NetworkPlan::Tap { interface: interface.to_owned() },
        Some(("switch", "")) => return Err(wrong("switch= takes a name, as in switch=lab".into())),
        Some(("switch", name)) => NetworkPlan::Switch { name: name.to_owned(), nat: false, spoof: false },
        _ => return Err(wrong(format!("'{text}' is not one of none, user, tap=INTERFACE, switch=NAME"))),
    };
    let mut queues = None;
    let mut bootfile = None;
    let mut plan = NetPlan {
        network,
        card: NetworkCard::Virtio { pairs: 1 },
        rom: RomPlan::Usual,
        mac: None,
        rate: None,
        capture: None,
        rules: Vec::new(),
        unplugged: false,
    };
    for (name, given) in properties {
        let given = given.as_deref();
        match (name.as_str(), given) {
            ("model", Some(model)) => plan.card = card(model)?,
            ("queues", Some(number)) => {
                let number = number.parse().ok().filter(|number| (1..=MOST_QUEUES).contains(number));
                queues = Some(number.ok_or_else(|| wrong(format!("queues= takes a number from 1 to {MOST_QUEUES}")))?);
            }
            ("mac", Some(mac)) => plan.mac = Some(mac.parse().map_err(|error| wrong(format!("mac={error}")))?),
            ("rate", Some(rate)) => plan.rate = Some(rate_of(rate)?),
            ("rom", Some("none")) => plan.rom = RomPlan::None,
            ("rom", Some(file)) if !file.is_empty() => plan.rom = RomPlan::File(file.into()),
            ("bootfile", Some(file)) if !file.is_empty() => bootfile = Some(file.to_owned()),
            ("capture", Some(file)) if !file.is_empty() => plan.capture = Some(file.into()),
            ("link", Some(state @ ("up" | "down"))) => plan.unplugged = state == "down",
            ("allow", Some(what)) => plan.rules.push(rule(&name, what, Rule::allow)?),
            ("deny", Some(what)) => plan.rules.push(rule(&name, what, Rule::deny)?),
            _ => own_property(&mut plan.network, &name, given)?,
        }
    }
    match (&mut plan.card, queues) {
        (NetworkCard::Virtio { pairs }, Some(number)) => *pairs = number,
        (_, Some(_)) => return Err(wrong("only model=virtio has queues=".into())),
        (_, None) => {}
    }
    match (&mut plan.network, bootfile) {
        (NetworkPlan::User { netboot: Some((_, name)), .. }, Some(file)) => *name = file,
        (NetworkPlan::User { netboot: Some(_), .. }, None) => {
            return Err(wrong("netboot= takes bootfile=F with it, the file in the folder that guests boot".into()));
        }
        (_, Some(_)) => return Err(wrong("bootfile= takes netboot=DIR with it, the folder that is served".into())),
        (_, None) => {}
    }
    if plan.card == NetworkCard::Ne2000Isa && plan.rom != RomPlan::Usual {
        return Err(wrong("ne2k-isa has no place for a ROM".into()));
    }
    Ok(Some(plan))
}

/// A card by its name.
fn card(model: &str) -> Result<NetworkCard, UsageError> {
    Ok(match model {
        "virtio" => NetworkCard::Virtio { pairs: 1 },
        "e1000" => NetworkCard::E1000,
        "rtl8139" => NetworkCard::Rtl8139,
        "ne2k" => NetworkCard::Ne2000,
        "ne2k-isa" => NetworkCard::Ne2000Isa,
        other => return Err(wrong(format!("model={other} is not one of virtio, e1000, rtl8139, ne2k, ne2k-isa"))),
    })
}

/// What a card is called.
pub fn model(card: &NetworkCard) -> &'static str {
    match card {
        NetworkCard::Virtio { .. } => "virtio",
        NetworkCard::E1000 => "e1000",
        NetworkCard::Rtl8139 => "rtl8139",
        NetworkCard::Ne2000 => "ne2k",
        NetworkCard::Ne2000Isa => "ne2k-isa",
    }
}

/// A property of the network itself.
fn own_property(network: &mut NetworkPlan, name: &str, given: Option<&str>) -> Result<(), UsageError> {
    match (network, name, given) {
        (NetworkPlan::User { forwards, .. }, "forward", Some(text)) => forwards.push(forward(text)?),
        (NetworkPlan::User { loopback, .. }, "loopback", Some("on")) => loopback.all = true,
        (NetworkPlan::User { loopback, .. }, "loopback", Some(text)) => loopback.ports.push(
            port_of_protocol(text).ok_or_else(|| wrong(format!("loopback={text} is not on, tcp:PORT or udp:PORT")))?,
        ),
        (NetworkPlan::User { netboot, .. }, "netboot", Some(folder)) if !folder.is_empty() => {
            *netboot = Some((folder.into(), String::new()));
        }
        (NetworkPlan::Switch { nat, .. }, "nat", None) => *nat = true,
        (NetworkPlan::Switch { spoof, .. }, "spoof", Some("allow")) => *spoof = true,
        (network, ..) => {
            let own = match network {
                NetworkPlan::User { .. } => {
                    ", forward=tcp|udp:HOST:GUEST, loopback=on|tcp:PORT|udp:PORT, netboot=DIR, bootfile=F"
                }
                NetworkPlan::Tap { .. } => "",
                NetworkPlan::Switch { .. } => ", nat, spoof=allow",
            };
            let known = "model=virtio|e1000|rtl8139|ne2k|ne2k-isa, mac=ADDRESS, queues=N, rate=BITS, capture=F, \
                         rom=none|F, link=up|down, allow=WHAT, deny=WHAT";
            let given = given.map_or_else(|| name.to_owned(), |given| format!("{name}={given}"));
            return Err(wrong(format!("'{given}' is not one of {known}{own}; a comma in a file's name is doubled")));
        }
    }
    Ok(())
}

/// What is allowed or denied.
fn rule(name: &str, what: &str, make: fn(&str) -> Result<Rule, BadRule>) -> Result<Rule, UsageError> {
    make(what).map_err(|error| {
        let form = "[tcp:|udp:|icmp:]ADDRESS[/BITS][:PORT[-PORT]], as in tcp:192.0.2.0/24:80-88 or *:53";
        wrong(format!("{name}={what} is not {form}: {error}"))
    })
}

impl NetworkPlan {
    /// What belongs to the network itself, and is allowed unless it is denied: its servers of names, addresses and boot
    /// files.
    fn own(&self) -> Vec<Rule> {
        if !matches!(self, Self::User { .. } | Self::Switch { nat: true, .. }) {
            return Vec::new();
        }
        let mut own = vec![format!("{NAME_SERVER}:53"), format!("[{NAME_SERVER_6}]:53"), format!("udp:{GATEWAY}:67")];
        if matches!(self, Self::User { netboot: Some(_), .. }) {
            own.extend([format!("udp:{GATEWAY}:69"), format!("tcp:{GATEWAY}:80")]);
        }
        own.iter().filter_map(|what| Rule::allow(what).ok()).collect()
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn port_of_protocol(text: &str) -> Option<(Protocol, u16)> {
    let (name, number) = text.split_once(':')?;
    Some((protocol(name)?, port(number)?))
}

/// A forwarded port: `tcp:[ADDRESS:]HOST:GUEST`, on this host alone unless an address says otherwise.
fn forward(text: &str) -> Result<Forward, UsageError> {
    let parse = || {
        let (name, rest) = text.split_once(':')?;
        let (host, guest) = rest.rsplit_once(':')?;
        let (address, host) = match host.rsplit_once(':') {
            Some((address, port)) => (address.trim_start_matches('[').trim_end_matches(']').parse().ok()?, port),
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), host),
        };
        Some(Forward { protocol: protocol(name)?, host: SocketAddr::new(address, port(host)?), guest: port(guest)? })
    };
    parse().ok_or_else(|| {
        wrong(format!("forward={text} is not tcp|udp:[ADDRESS:]PORT:PORT, the host's port first, as in tcp:2222:22"))
    })
}

/// Bits a second, with suffix K, M or G (powers of 1000).
fn rate_of(text: &str) -> Result<Rate, UsageError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" => Some(1),
        "K" | "k" => Some(1_000),
        "M" | "m" => Some(1_000_000),
        "G" | "g" => Some(1_000_000_000u64),
        _ => None,
    };
    let rate = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor)).filter(|rate| *rate >= 1000);
    rate.map(Rate).ok_or_else(|| wrong(format!("rate={text} is not a number of bits a second from 1K on, as in 10M")))
}

impl NetPlan {
    /// Whether guests are told what to boot from it.
    pub fn serves_boot_files(&self) -> bool {
        matches!(self.network, NetworkPlan::User { netboot: Some(_), .. })
    }
}

/// What makes a machine that which it is, so that its cards have the same addresses the next time: the disk that is its
/// alone. `None` if it has none.
pub fn identity(disks: &[DiskPlan]) -> Option<Vec<u8>> {
    let own = disks.iter().find(|disk| !disk.readonly && !disk.ephemeral)?;
    let path = std::fs::canonicalize(&own.path).unwrap_or_else(|_| own.path.clone());
    Some(path.into_os_string().into_encoded_bytes())
}

/// What the cards' ROMs are for.
#[derive(Clone, Copy, Debug)]
pub struct RomUse<'a> {
    /// The folder that firmware is looked for in first.
    pub folder: Option<&'a Path>,
    /// The firmware, which finds them: UEFI or the BIOS.
    pub uefi: bool,
    /// The network is to be booted from, so that the cards need theirs.
    pub needed: bool,
}

/// A card's expansion ROM; empty for none.
fn rom(plan: &NetPlan, roms: Option<RomUse<'_>>) -> Result<Vec<u8>, RunError> {
    /// The most that there is room for (PCI Local Bus Specification 3.0, section 6.2.5.2).
    const MOST: u64 = 16 << 20;
    let Some(roms) = roms else { return Ok(Vec::new()) };
    let (path, needed) = match &plan.rom {
        RomPlan::None => return Ok(Vec::new()),
        RomPlan::File(path) => (path.clone(), true),
        RomPlan::Usual => match firmware::boot_rom(roms.folder, plan.card, roms.uefi) {
            Some(path) => (path, roms.needed),
            None => return Ok(Vec::new()),
        },
    };
    let read = || {
        let size = std::fs::metadata(&path)?.len();
        if !(1..=MOST).contains(&size) {
            return Err(std::io::Error::other(format!("it has {size} bytes, and a ROM at most {MOST}")));
        }
        std::fs::read(&path)
    };
    match read() {
        Ok(rom) => Ok(rom),
        Err(source) if needed => Err(RunError::BootRom { path: path.display().to_string(), source }),
        Err(error) => {
            tracing::info!(
                "nothing boots off the network: {}: {error}; the package `ipxe-qemu` has it",
                path.display()
            );
            Ok(Vec::new())
        }
    }
}

/// A network in user mode.
fn user(
    name: &str,
    forwards: &[Forward],
    loopback: &Loopback,
    boot: Option<&(PathBuf, String)>,
) -> Result<Arc<UserNet>, RunError> {
    let open = |(folder, file): &(PathBuf, String)| {
        let folder = Folder::open(folder)?;
        let bootfile = BootFile::new(&folder, file)?;
        Ok(Netboot { folder, bootfile })
    };
    let netboot = boot.map(open).transpose().map_err(|source| RunError::Netboot { source })?;
    let config = UserConfig {
        name: name.to_owned(),
        forwards: forwards.to_vec(),
        loopback: loopback.clone(),
        netboot,
        ..UserConfig::default()
    };
    Ok(UserNet::new(&config)?)
}

/// Makes the cards' networks, and plugs them in.
///
/// # Errors
/// A port can't be had, a file can't be made, or the host has no room.
pub fn attach(
    plans: &[NetPlan],
    disks: &[DiskPlan],
    roms: Option<RomUse<'_>>,
) -> Result<Vec<AttachedNetwork>, RunError> {
    let identity = match identity(disks) {
        Some(identity) => identity,
        // Nobody will know it again.
        None => {
            std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()).to_le_bytes().into()
        }
    };
    let attach = |(number, plan): (usize, &NetPlan)| {
        let name = format!("net{number}");
        let mac = plan.mac.unwrap_or_else(|| MacAddress::derived(&identity, number as u32));
        let network: Arc<dyn Network> = match &plan.network {
            NetworkPlan::User { forwards, loopback, netboot } => user(&name, forwards, loopback, netboot.as_ref())?,
            NetworkPlan::Tap { interface } => {
                Tap::open(interface).map_err(|source| RunError::Tap { interface: interface.clone(), source })?
            }
            NetworkPlan::Switch { name, nat, spoof } => {
                let hello = Hello { mac, spoof: *spoof, nat: *nat };
                join(name, hello).map_err(|source| RunError::Switch { name: name.clone(), source })?
            }
        };
        let capture = plan
            .capture
            .as_deref()
            .map(|path| Capture::create(path, &name).map_err(|source| crate::run::output("capture", path, source)));
        let rules = Rules::new(plan.rules.clone(), plan.network.own());
        let (capture, unplugged) = (capture.transpose()?, plan.unplugged);
        let config = CableConfig { mac: Some(mac), name, rate: plan.rate, capture, rules, unplugged };
        let cable = Cable::new(config, network).map_err(RunError::Network)?;
        Ok(AttachedNetwork { card: plan.card, cable, rom: rom(plan, roms)? })
    };
    plans.iter().enumerate().map(attach).collect()
}

/// Plugs into a switch of this user's, which is started if it is not there.
fn join(name: &str, hello: Hello) -> Result<Arc<SwitchLink>, SwitchError> {
    let place = Place::of(name)?;
    SwitchLink::join(&place, hello, || {
        // A switch outlives the machine that starts it, and the terminal.
        let log = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(place.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["switch", name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/")
            .process_group(0);
        let mut child = command.spawn()?;
        // It may end before this machine does.
        std::thread::Builder::new().name(format!("switch-{name}")).spawn(move || child.wait())?;
        Ok(())
    })
}

fn remedied(error: &SwitchError) -> String {
    format!("{error}; {}", error.remedy())
}

/// `lodge switch`: is the switch, until its machines have gone.
///
/// # Errors
/// It can't be.
pub fn serve(name: &str) -> Result<(), String> {
    let place = Place::of(name).map_err(|error| remedied(&SwitchError::from(error)))?;
    let told = |error: ServeError| format!("{error}; end other programs, or raise their limits (ulimit -a)");
    if lodge_switch::serve(&place, LINGER).map_err(told)? == Ended::Elsewhere {
        eprintln!("lodge: the switch '{name}' is there already");
    }
    Ok(())
}
