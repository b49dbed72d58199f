//! Rules: how far what a guest sends goes.
//!
//! * [`Rules`] are a list of [`Rule`]s. The first that is about a packet decides; a packet that none is about goes on, unless
//!   something is allowed: then only that is.
//! * `Gate` is the rules of one cable, with what it has to remember: who came in and may be answered, and what is said to
//!   the guest for that which does not go on.
//! * `packet` looks into frames, `refusal` says no as a router would.
//!
//! What can't be judged does not go on: source routes, encrypted headers behind an address that is denied in part, pieces of
//! TCP headers.

mod gate;
mod packet;
mod refusal;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

pub(crate) use gate::{Gate, Judged};
use packet::End;

use crate::segment::{ICMP, ICMPV6, TCP, UDP};

/// Which packets a rule is about, and what it says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    what: What,
}

/// Destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
struct What {
    /// Of this protocol; without, of any.
    protocol: Option<Protocol>,
    /// To these addresses; without, to all.
    network: Option<Net>,
    /// To these ports of TCP or UDP; without, to all, and of what has none.
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    fn is(self, number: u8) -> bool {
        match self {
            Self::Tcp => number == TCP,
            Self::Udp => number == UDP,
            Self::Icmp => matches!(number, ICMP | ICMPV6),
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    address: IpAddr,
    bits: u8,
}

impl Net {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(address)) => {
                let differ = own.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.bits.into()
            }
            (IpAddr::V6(own), IpAddr::V6(address)) => {
                let differ = own.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.bits.into()
            }
            _ => false,
        }
    }
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// The address is none.
    #[error(
        "'{0}' is neither * nor an address, as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32; before a port, one of IPv6 is in brackets"
    )]
    Address(String),
    /// So many bits no address has.
    #[error("'{0}' is not a number of bits that such an address has")]
    Bits(String),
    /// The address says more than its bits.
    #[error("{address} has more than {bits} bits set; write {network}/{bits}")]
    Beyond {
        /// What was said.
        address: IpAddr,
        /// Its bits.
        bits: u8,
        /// What that comes to.
        network: IpAddr,
    },
    /// The ports are none.
    #[error("'{0}' is neither a port from 1 to 65535 nor a range of them, as 80-88")]
    Ports(String),
    /// ICMP has no ports.
    #[error("icmp has no ports")]
    NoPorts,
}

impl Rule {
    /// Lets packets to a destination go on: `[tcp:|udp:|icmp:]ADDRESS[/BITS][:PORT[-PORT]]`, where `*` is any address.
    ///
    /// # Errors
    /// The text is no destination.
    pub fn allow(text: &str) -> Result<Self, BadRule> {
        Ok(Self { allow: true, what: text.parse()? })
    }

    /// Refuses packets to a destination.
    ///
    /// # Errors
    /// The text is no destination.
    pub fn deny(text: &str) -> Result<Self, BadRule> {
        Ok(Self { allow: false, what: text.parse()? })
    }
}

impl FromStr for What {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let named = [("tcp:", Protocol::Tcp), ("udp:", Protocol::Udp), ("icmp:", Protocol::Icmp)];
        let named = named.iter().find_map(|(name, protocol)| Some((*protocol, text.strip_prefix(name)?)));
        let (protocol, text) = named.map_or((None, text), |(protocol, rest)| (Some(protocol), rest));
        let bad = || BadRule::Address(text.to_owned());
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or_else(bad)?;
                if !address.contains(':') {
                    return Err(bad());
                }
                match rest {
                    "" => (address, None),
                    _ => (address, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
                }
            }
            // An IPv6 address alone has many colons.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port))),
        };
        let network = match address {
            "*" => None,
            _ => Some(net(address)?),
        };
        let ports = port.map(ports).transpose()?;
        if protocol == Some(Protocol::Icmp) && ports.is_some() {
            return Err(BadRule::NoPorts);
        }
        Ok(Self { protocol, network, ports })
    }
}

/// `ADDRESS[/BITS]`.
fn net(text: &str) -> Result<Net, BadRule> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| BadRule::Address(text.to_owned()))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => number(bits).filter(|bits| *bits <= most).ok_or_else(|| BadRule::Bits(bits.to_owned()))?,
    };
    let left = u32::from(most - bits);
    let network = match address {
        IpAddr::V4(own) => IpAddr::from(Ipv4Addr::from_bits(own.to_bits() & u32::MAX.checked_shl(left).unwrap_or(0))),
        IpAddr::V6(own) => IpAddr::from(Ipv6Addr::from_bits(own.to_bits() & u128::MAX.checked_shl(left).unwrap_or(0))),
    };
    let bits = u8::try_from(bits).unwrap_or(u8::MAX);
    if network == address { Ok(Net { address, bits }) } else { Err(BadRule::Beyond { address, bits, network }) }
}

/// `PORT[-PORT]`.
fn ports(text: &str) -> Result<RangeInclusive<u16>, BadRule> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| number(text).filter(|port| *port != 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(BadRule::Ports(text.to_owned())),
    }
}

/// Digits alone: `parse` takes signs.
fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Whether a rule is about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Yes,
    No,
    /// That is in what can't be seen of it.
    Maybe,
}

impl What {
    fn is_about(&self, end: &End) -> About {
        if self.network.is_some_and(|network| !network.has(end.address)) {
            return About::No;
        }
        if self.protocol.is_none() && self.ports.is_none() {
            return About::Yes;
        }
        let Some(number) = end.protocol else { return About::Maybe };
        if self.protocol.is_some_and(|protocol| !protocol.is(number)) {
            return About::No;
        }
        let Some(ports) = &self.ports else { return About::Yes };
        match end.port {
            _ if !matches!(number, TCP | UDP) => About::No,
            Some(port) if ports.contains(&port) => About::Yes,
            Some(_) => About::No,
            None => About::Maybe,
        }
    }
}

/// How far what a guest sends goes. Without a rule, everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In order.
    rules: Vec<Rule>,
    /// Nothing goes on but what is allowed.
    strict: bool,
}

impl Rules {
    /// Rules in their order, and what belongs to the network itself, and is allowed unless one of them denies it.
    pub fn new(rules: Vec<Rule>, own: Vec<Rule>) -> Self {
        if rules.is_empty() {
            return Self::default();
        }
        let strict = rules.iter().any(|rule| rule.allow);
        Self { rules: [rules, own].concat(), strict }
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a packet may go to its destination.
    fn let_pass(&self, end: &End) -> bool {
        for rule in &self.rules {
            match rule.what.is_about(end) {
                About::Yes => return rule.allow,
                About::No => {}
                // Without its first fragment a later one is of no use, and that one is judged. But what hides its protocol
                // may be what is denied.
                About::Maybe => {
                    if rule.allow == end.protocol.is_some() {
                        return rule.allow;
                    }
                }
            }
        }
        !self.strict
    }
}
