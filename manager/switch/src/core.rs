//! What a switch knows, and what it decides of each frame. No sockets and no clock: [`Core`] is told.
//!
//! Who may say what, by port:
//!
//! * **Card addresses.** The address of a port's card is that port's while it lives, and nobody else gets in with it or sends
//!   with it. A port that may use others (`spoof`) has those learned that it sends with, as far as they are nobody's.
//! * **IP addresses.** One belongs to the port that used it first, while that port lives: as the source of a packet, as the
//!   sender of an ARP packet, as the target of a neighbour advertisement. Frames of other ports with it are dropped. What
//!   says nothing of who sends (0.0.0.0, ::) belongs to nobody.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use lodge_net::segment::{ICMPV6, Layout, UDP, ethertype};
use lodge_net::switch::protocol::{Hello, Refusal};
use lodge_net::{Frame, MacAddress};

/// Ports of a switch.
pub const MOST_PORTS: usize = 128;
/// Addresses of cards that are learned of one port.
const MOST_LEARNED: usize = 256;
/// IP addresses of one port; with another the one that was not used for longest is anybody's again.
const MOST_ADDRESSES: usize = 64;
/// What was learned and not seen for this long is forgotten (IEEE 802.1Q, table 8-6).
const AGE: Duration = Duration::from_secs(300);
/// The addresses of bridges themselves, which are not passed on (IEEE 802.1Q, table 8-1), without their last four bits.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];
/// Bytes of an ARP packet for Ethernet and IPv4 (RFC 826).
const ARP: usize = 28;
/// ICMPv6 types (RFC 4861, section 4).
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The port that DHCP servers send from, and that of DHCPv6's.
const SERVERS: [u16; 2] = [67, 547];

/// A port's number, which no other port ever has.
pub type PortId = u64;

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// It contradicts itself.
    #[error("they make no sense")]
    Senseless,
    /// Its sender is another card than the port's.
    #[error("they come from another card's address")]
    Card,
    /// It says that it is from an IP address that is another port's.
    #[error("they come from another machine's IP address")]
    Address,
    /// It gives out addresses, where the way out does that.
    #[error("they give out addresses, as the way out alone does")]
    Server,
}

/// What is done with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to one port.
    To(PortId),
    /// It goes to all of these.
    All(Vec<PortId>),
    /// It goes nowhere, as it should.
    Nowhere,
    /// It should not have been sent. `first` of its kind from this port.
    Drop {
        /// Why.
        fault: Fault,
        /// The port has not had this fault before.
        first: bool,
    },
}

/// What is known of a port.
struct Port {
    mac: MacAddress,
    spoof: bool,
    /// Its addresses, that which was used last at the end.
    addresses: VecDeque<IpAddr>,
    learned: usize,
    /// Frames that were dropped, by their faults.
    faults: HashMap<Fault, u64>,
}

/// Where a card is.
struct Place {
    port: PortId,
    /// When it was seen last; `None` for a port's own, which does not age.
    seen: Option<Instant>,
}

/// The switch.
#[derive(Default)]
pub struct Core {
    ports: HashMap<PortId, Port>,
    cards: HashMap<MacAddress, Place>,
    owners: HashMap<IpAddr, PortId>,
    /// What all machines said of the way out; `None` while there are none.
    nat: Option<bool>,
    way_out: Option<PortId>,
    next: PortId,
}

impl Core {
    /// Lets a machine in.
    ///
    /// # Errors
    /// Its card's address is taken, it differs from the others, or there is no room.
    pub fn join(&mut self, hello: Hello) -> Result<PortId, Refusal> {
        if self.ports.len() >= MOST_PORTS {
            return Err(Refusal::Full);
        }
        if self.nat.is_some_and(|nat| nat != hello.nat) {
            return Err(Refusal::NatDiffers);
        }
        let taken = self.cards.get(&hello.mac).is_some_and(|place| place.seen.is_none());
        if taken {
            return Err(Refusal::MacTaken);
        }
        self.nat = Some(hello.nat);
        Ok(self.add(hello.mac, hello.spoof))
    }

    /// Adds the way out, whose card and IP addresses are these, whoever comes.
    pub fn lead_out(&mut self, mac: MacAddress, addresses: &[IpAddr]) -> PortId {
        let port = self.add(mac, false);
        for address in addresses {
            self.claim(port, *address);
        }
        self.way_out = Some(port);
        port
    }

    fn add(&mut self, mac: MacAddress, spoof: bool) -> PortId {
        let number = self.next;
        self.next += 1;
        // A port's own address is not one that another one was learned with.
        if let Some(before) = self.cards.insert(mac, Place { port: number, seen: None })
            && let Some(port) = self.ports.get_mut(&before.port)
        {
            port.learned = port.learned.saturating_sub(1);
        }
        let (addresses, faults) = Default::default();
        self.ports.insert(number, Port { mac, spoof, addresses, learned: 0, faults });
        number
    }

    /// Forgets a port. What was its own is anybody's.
    pub fn leave(&mut self, port: PortId) {
        self.ports.remove(&port);
        self.cards.retain(|_, place| place.port != port);
        self.owners.retain(|_, owner| *owner != port);
        if self.way_out == Some(port) {
            self.way_out = None;
        }
        if self.machines() == 0 {
            self.nat = None;
        }
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.ports.len() - usize::from(self.way_out.is_some())
    }

    /// The address of a port's card.
    pub fn mac(&self, port: PortId) -> Option<MacAddress> {
        self.ports.get(&port).map(|port| port.mac)
    }

    /// How many frames of a port were dropped for a fault.
    pub fn faults(&self, port: PortId, fault: Fault) -> u64 {
        self.ports.get(&port).and_then(|port| port.faults.get(&fault)).copied().unwrap_or(0)
    }

    /// Decides what is done with a frame of a port's.
    pub fn frame(&mut self, from: PortId, frame: &Frame, now: Instant) -> Verdict {
        match self.examine(from, frame, now) {
            Ok(verdict) => verdict,
            Err(fault) => {
                let count = self.ports.get_mut(&from).map(|port| port.faults.entry(fault).or_default());
                let first = count.is_some_and(|count| {
                    *count += 1;
                    *count == 1
                });
                Verdict::Drop { fault, first }
            }
        }
    }

    fn examine(&mut self, from: PortId, frame: &Frame, now: Instant) -> Result<Verdict, Fault> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *frame.bytes else { return Err(Fault::Senseless) };
        let (destination, source) = (MacAddress([d0, d1, d2, d3, d4, d5]), MacAddress([s0, s1, s2, s3, s4, s5]));
        if !frame.has_sane_size() || !source.is_one_card() {
            return Err(Fault::Senseless);
        }
        self.learn(from, source, now)?;
        self.examine_packet(from, source, &frame.bytes)?;
        if destination.0[..5] == RESERVED && destination.0[5] < 0x10 {
            return Ok(Verdict::Nowhere);
        }
        if !destination.is_group()
            && let Some(place) = self.cards.get(&destination)
            && place.seen.is_none_or(|seen| now.saturating_duration_since(seen) < AGE)
        {
            return Ok(if place.port == from { Verdict::Nowhere } else { Verdict::To(place.port) });
        }
        let mut others: Vec<_> = self.ports.keys().copied().filter(|port| *port != from).collect();
        others.sort_unstable();
        Ok(Verdict::All(others))
    }

    /// Notes where a card is, if its port may say so.
    fn learn(&mut self, from: PortId, source: MacAddress, now: Instant) -> Result<(), Fault> {
        let Some(port) = self.ports.get_mut(&from) else { return Err(Fault::Senseless) };
        if source == port.mac {
            return Ok(());
        }
        if !port.spoof {
            return Err(Fault::Card);
        }
        if let Some(place) = self.cards.get_mut(&source) {
            let Some(seen) = &mut place.seen else { return Err(Fault::Card) };
            if place.port == from {
                *seen = now;
                return Ok(());
            }
            // It is another's that may use it, until it was not seen there for long.
            if now.saturating_duration_since(*seen) < AGE {
                return Err(Fault::Card);
            }
            let before = std::mem::replace(&mut place.port, from);
            *seen = now;
            port.learned += 1;
            if let Some(before) = self.ports.get_mut(&before) {
                before.learned = before.learned.saturating_sub(1);
            }
            return Ok(());
        }
        if port.learned >= MOST_LEARNED {
            let old = |place: &Place| place.seen.is_some_and(|seen| now.saturating_duration_since(seen) >= AGE);
            self.cards.retain(|_, place| place.port != from || !old(place));
            port.learned = self.cards.values().filter(|place| place.port == from && place.seen.is_some()).count();
            if port.learned >= MOST_LEARNED {
                // What goes to it goes to all.
                return Ok(());
            }
        }
        port.learned += 1;
        self.cards.insert(source, Place { port: from, seen: Some(now) });
        Ok(())
    }

    /// Looks whether a port may say what is in a frame.
    fn examine_packet(&mut self, from: PortId, source: MacAddress, bytes: &[u8]) -> Result<(), Fault> {
        let layout = Layout::of(bytes).ok_or(Fault::Senseless)?;
        let packet = bytes.get(layout.network..layout.end).ok_or(Fault::Senseless)?;
        match layout.ethertype {
            ethertype::ARP => {
                let packet = packet.first_chunk::<ARP>().ok_or(Fault::Senseless)?;
                // Ethernet, IPv4, addresses of 6 and 4 bytes.
                let [0, 1, 8, 0, 6, 4, _, _, m0, m1, m2, m3, m4, m5, i0, i1, i2, i3, ..] = *packet else {
                    return Err(Fault::Senseless);
                };
                if [m0, m1, m2, m3, m4, m5] != source.0 {
                    return Err(Fault::Card);
                }
                self.may_say(from, Ipv4Addr::new(i0, i1, i2, i3).into())
            }
            ethertype::IPV4 => {
                let address = packet.get(12..16).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                self.may_say(from, Ipv4Addr::from(address.ok_or(Fault::Senseless)?).into())?;
                self.may_serve(from, &layout, bytes)
            }
            ethertype::IPV6 => {
                let address = packet.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                self.may_say(from, Ipv6Addr::from(address.ok_or(Fault::Senseless)?).into())?;
                if let Some((ICMPV6, at)) = layout.transport
                    && bytes.get(at) == Some(&NEIGHBOUR_ADVERTISEMENT)
                {
                    let target = bytes.get(at + 8..at + 24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                    self.may_say(from, Ipv6Addr::from(target.ok_or(Fault::Senseless)?).into())?;
                }
                self.may_serve(from, &layout, bytes)
            }
            // More tags than are looked behind.
            ethertype::VLAN | ethertype::SERVICE_VLAN => Err(Fault::Senseless),
            _ => Ok(()),
        }
    }

    /// Where there is a way out, it alone gives out addresses and says that it is a router.
    fn may_serve(&self, from: PortId, layout: &Layout, bytes: &[u8]) -> Result<(), Fault> {
        if self.way_out.is_none() || self.way_out == Some(from) {
            return Ok(());
        }
        let serves = match layout.transport {
            Some((UDP, at)) => {
                bytes.get(at..at + 2).is_some_and(|port| SERVERS.contains(&u16::from_be_bytes([port[0], port[1]])))
            }
            Some((ICMPV6, at)) => bytes.get(at) == Some(&ROUTER_ADVERTISEMENT),
            _ => false,
        };
        if serves { Err(Fault::Server) } else { Ok(()) }
    }

    /// Whether a port may say that something is from an address. If it is nobody's it is the port's from here on.
    fn may_say(&mut self, from: PortId, address: IpAddr) -> Result<(), Fault> {
        if address.is_unspecified() {
            return Ok(());
        }
        if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Fault::Senseless);
        }
        // What comes through the way out comes from all over the world, and nothing else does.
        if self.way_out == Some(from) {
            return Ok(());
        }
        let foreign = self.way_out.is_some() && !is_local(address);
        if foreign || self.owners.get(&address).is_some_and(|owner| *owner != from) {
            return Err(Fault::Address);
        }
        self.claim(from, address);
        Ok(())
    }

    fn claim(&mut self, port: PortId, address: IpAddr) {
        let Some(known) = self.ports.get_mut(&port) else { return };
        if known.addresses.back() == Some(&address) {
            return;
        }
        match known.addresses.iter().position(|one| *one == address) {
            Some(at) => drop(known.addresses.remove(at)),
            None if known.addresses.len() >= MOST_ADDRESSES => {
                if let Some(oldest) = known.addresses.pop_front() {
                    self.owners.remove(&oldest);
                }
            }
            None => {}
        }
        known.addresses.push_back(address);
        self.owners.insert(address, port);
    }
}

/// Whether an address is of a network that nobody routes to from outside (RFC 1918, RFC 3927, RFC 4193, RFC 4291).
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}
