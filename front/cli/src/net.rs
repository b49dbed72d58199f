//! `--net`: network cards and what they are plugged into.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use lodge_net::{Cable, CableConfig, Capture, MacAddress, Network, Rate, Tap};
use lodge_usernet::{Forward, Loopback, Protocol, UserConfig, UserNet};
use lodge_vm::{AttachedNetwork, NetworkCard};

use crate::args::{DiskPlan, UsageError};
use crate::run::RunError;
use crate::values;

/// Network cards that there are places for.
const MOST: usize = 4;
/// Most pairs of queues.
const MOST_QUEUES: u16 = 16;

/// A network card and what it is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetPlan {
    /// The network.
    pub network: NetworkPlan,
    /// The card.
    pub card: NetworkCard,
    /// Its address; without, one that is derived.
    pub mac: Option<MacAddress>,
    /// How fast it is.
    pub rate: Option<Rate>,
    /// The file that what goes over the cable is recorded to.
    pub capture: Option<PathBuf>,
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
    },
    /// A tap of the host's.
    Tap {
        /// Its interface.
        interface: String,
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
    Ok(plans)
}

/// One card; `none` is none.
fn plan(text: &str) -> Result<Option<NetPlan>, UsageError> {
    let (main, properties) = values::properties(text);
    let network = match main.split_once('=') {
        None if main == "none" && properties.is_empty() => return Ok(None),
        None if main == "user" => NetworkPlan::User { forwards: Vec::new(), loopback: Loopback::default() },
        Some(("tap", "")) => return Err(wrong("tap= takes the name of an interface, as in tap=tap0".into())),
        Some(("tap", interface)) => NetworkPlan::Tap { interface: interface.to_owned() },
        Some(("switch", _)) => {
            return Err(UsageError::NotYet { what: format!("--net {main}"), instead: "use --net user" });
        }
        _ => return Err(wrong(format!("'{text}' is not one of none, user, tap=INTERFACE"))),
    };
    let card = NetworkCard::Virtio { pairs: 1 };
    let mut plan = NetPlan { network, card, mac: None, rate: None, capture: None };
    for (name, given) in properties {
        let given = given.as_deref();
        match (name.as_str(), given) {
            ("model", Some("virtio")) => plan.card = NetworkCard::Virtio { pairs: 1 },
            ("model", Some(other)) => return Err(wrong(format!("model={other} is not one of model=virtio"))),
            ("queues", Some(number)) => {
                let NetworkCard::Virtio { pairs } = &mut plan.card;
                let number = number.parse().ok().filter(|number| (1..=MOST_QUEUES).contains(number));
                *pairs = number.ok_or_else(|| wrong(format!("queues= takes a number from 1 to {MOST_QUEUES}")))?;
            }
            ("mac", Some(mac)) => plan.mac = Some(mac.parse().map_err(|error| wrong(format!("mac={error}")))?),
            ("rate", Some(rate)) => plan.rate = Some(rate_of(rate)?),
            ("capture", Some(file)) if !file.is_empty() => plan.capture = Some(file.into()),
            _ => own_property(&mut plan.network, &name, given)?,
        }
    }
    Ok(Some(plan))
}

/// A property of the network itself.
fn own_property(network: &mut NetworkPlan, name: &str, given: Option<&str>) -> Result<(), UsageError> {
    match (network, name, given) {
        (NetworkPlan::User { forwards, .. }, "forward", Some(text)) => forwards.push(forward(text)?),
        (NetworkPlan::User { loopback, .. }, "loopback", Some("on")) => loopback.all = true,
        (NetworkPlan::User { loopback, .. }, "loopback", Some(text)) => loopback.ports.push(
            port_of_protocol(text).ok_or_else(|| wrong(format!("loopback={text} is not on, tcp:PORT or udp:PORT")))?,
        ),
        (network, ..) => {
            let own = match network {
                NetworkPlan::User { .. } => ", forward=tcp|udp:HOST:GUEST, loopback=on|tcp:PORT|udp:PORT",
                NetworkPlan::Tap { .. } => "",
            };
            let known = "model=virtio, mac=ADDRESS, queues=N, rate=BITS, capture=F";
            let given = given.map_or_else(|| name.to_owned(), |given| format!("{name}={given}"));
            return Err(wrong(format!("'{given}' is not one of {known}{own}; a comma in a file's name is doubled")));
        }
    }
    Ok(())
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

/// What makes a machine that which it is, so that its cards have the same addresses the next time: the disk that is its
/// alone. `None` if it has none.
pub fn identity(disks: &[DiskPlan]) -> Option<Vec<u8>> {
    let own = disks.iter().find(|disk| !disk.readonly && !disk.ephemeral)?;
    let path = std::fs::canonicalize(&own.path).unwrap_or_else(|_| own.path.clone());
    Some(path.into_os_string().into_encoded_bytes())
}

/// Makes the cards' networks, and plugs them in.
///
/// # Errors
/// A port can't be had, a file can't be made, or the host has no room.
pub fn attach(plans: &[NetPlan], disks: &[DiskPlan]) -> Result<Vec<AttachedNetwork>, RunError> {
    let identity = match identity(disks) {
        Some(identity) => identity,
        // Nobody will know it again.
        None => {
            std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()).to_le_bytes().into()
        }
    };
    let attach = |(number, plan): (usize, &NetPlan)| {
        let name = format!("net{number}");
        let network: Arc<dyn Network> = match &plan.network {
            NetworkPlan::User { forwards, loopback } => {
                let config = UserConfig {
                    name: name.clone(),
                    forwards: forwards.clone(),
                    loopback: loopback.clone(),
                    ..UserConfig::default()
                };
                UserNet::new(&config)?
            }
            NetworkPlan::Tap { interface } => {
                Tap::open(interface).map_err(|source| RunError::Tap { interface: interface.clone(), source })?
            }
        };
        let capture = plan
            .capture
            .as_deref()
            .map(|path| Capture::create(path, &name).map_err(|source| crate::run::output("capture", path, source)));
        let config = CableConfig {
            mac: Some(plan.mac.unwrap_or_else(|| MacAddress::derived(&identity, number as u32))),
            name,
            rate: plan.rate,
            capture: capture.transpose()?,
        };
        let cable = Cable::new(config, network).map_err(RunError::Network)?;
        Ok(AttachedNetwork { card: plan.card, cable })
    };
    plans.iter().enumerate().map(attach).collect()
}
