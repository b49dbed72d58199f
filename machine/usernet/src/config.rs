//! What a network in user mode is: its addresses, and what of the host is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use lodge_net::MacAddress;
use lodge_netboot::{BootFile, Folder};

/// The name by which guests reach the host.
pub const HOST_NAME: &str = "host.lodge.internal";
/// The domain of guests' names.
pub const DOMAIN: &str = "lodge.internal";

/// The network's address: 10.0.2.0/24, as with the networks that people know.
const NETWORK: [u8; 3] = [10, 0, 2];
/// The IPv6 network's: locally assigned (RFC 4193), the same for all, because nothing of it is seen outside.
const PREFIX: [u16; 4] = [0xfd6c, 0x6f64, 0x6765, 0];
/// Bits of the networks' addresses.
pub(crate) const PREFIX_LENGTH: u8 = 64;

/// The router, which stands for the host as well.
pub const GATEWAY: Ipv4Addr = host4(2);
/// The name server.
pub const NAME_SERVER: Ipv4Addr = host4(3);
/// The first guest; DHCP gives further ones the addresses behind it.
pub const GUEST: Ipv4Addr = host4(15);
/// The router's IPv6 address.
pub const GATEWAY_6: Ipv6Addr = host6(2);
/// The name server's IPv6 address.
pub const NAME_SERVER_6: Ipv6Addr = host6(3);
/// The router's address on the link, which it says what it has to say from.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// What the router and the name server have for a network card.
pub const MAC: MacAddress = MacAddress([0x02, 0x6c, 0x64, 0, 0, 2]);
pub(crate) const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
pub(crate) const BROADCAST: Ipv4Addr = host4(255);

const fn host4(number: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, number)
}

const fn host6(number: u16) -> Ipv6Addr {
    let [a, b, c, d] = PREFIX;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, number)
}

/// The prefix of guests' IPv6 addresses.
pub(crate) fn prefix_6() -> Ipv6Addr {
    host6(0)
}

/// Whether an address is one of a guest's, or could be.
pub(crate) fn is_guests(address: IpAddr) -> bool {
    is_inside(address) && !is_ours(address) && address != IpAddr::V4(BROADCAST) && address != IpAddr::V4(host4(0))
}

/// Whether an address is in the network.
pub(crate) fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == NETWORK,
        IpAddr::V6(address) => address.segments()[..4] == PREFIX || is_link_local_6(address),
    }
}

pub(crate) fn is_link_local_6(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// Whether an address is the router's or the name server's.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    is_gateway(address) || is_name_server(address)
}

pub(crate) fn is_gateway(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(GATEWAY) | IpAddr::V6(GATEWAY_6 | LINK_LOCAL))
}

pub(crate) fn is_name_server(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(NAME_SERVER) | IpAddr::V6(NAME_SERVER_6))
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host's that leads to one of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest: u16,
}

/// What of the host's loopback interface guests reach, at the router's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loopback {
    /// All of it.
    pub all: bool,
    /// These ports.
    pub ports: Vec<(Protocol, u16)>,
}

impl Loopback {
    /// Whether a port is reached.
    pub(crate) fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.all || self.ports.contains(&(protocol, port))
    }
}

/// What guests boot that boot from the network.
#[derive(Clone, Debug)]
pub struct Netboot {
    /// What the router serves, by TFTP and HTTP.
    pub folder: Folder,
    /// The file that DHCP names.
    pub bootfile: BootFile,
}

/// What a network in user mode is.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// Its name, for messages and threads ("net0").
    pub name: String,
    /// Ports that are forwarded.
    pub forwards: Vec<Forward>,
    /// What is reached of the host's loopback interface.
    pub loopback: Loopback,
    /// The file that says who the host's name servers are (resolv.conf(5)); what it says is looked at as it changes.
    pub resolver: PathBuf,
    /// Their port, which is 53 anywhere but in tests.
    pub resolver_port: u16,
    /// What is served to guests that boot from the network.
    pub netboot: Option<Netboot>,
}

impl Default for UserConfig {
    fn default() -> Self {
        let resolver = PathBuf::from("/etc/resolv.conf");
        Self {
            name: "net0".into(),
            forwards: Vec::new(),
            loopback: Loopback::default(),
            resolver,
            resolver_port: 53,
            netboot: None,
        }
    }
}

/// Where what a guest sends to `to` is sent by the host, if anywhere.
pub(crate) fn destination(loopback: &Loopback, protocol: Protocol, to: SocketAddr) -> Option<SocketAddr> {
    let local = |address: IpAddr| Some(SocketAddr::new(address, to.port()));
    if is_gateway(to.ip()) {
        // With the host's own address what listens on all interfaces is reached, and not what listens on the loopback
        // interface alone.
        return if loopback.has(protocol, to.port()) {
            local(match to.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            })
        } else {
            local(own_address(to.is_ipv6())?)
        };
    }
    (is_outside(to.ip()) && to.port() != 0).then_some(to)
}

/// Whether an address is one of the world's: neither the host's alone, nor of one link, nor a group's.
pub(crate) fn is_outside(address: IpAddr) -> bool {
    if is_inside(address) || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return false;
    }
    match address {
        // Of one link are, among others, the services that tell a rented machine its owner's secrets.
        IpAddr::V4(address) => !address.is_link_local() && !address.is_broadcast() && address.octets()[0] != 0,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            // The host would take it for the IPv4 address.
            Some(_) => false,
            None => !is_link_local_6(address),
        },
    }
}

/// The address by which the host would talk to the world, if it would.
fn own_address(v6: bool) -> Option<IpAddr> {
    // No packet is sent: connecting a UDP socket looks for a route (RFC 5737, RFC 3849: addresses of nobody).
    let (any, world) = if v6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(world).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
