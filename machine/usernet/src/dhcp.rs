//! Addresses for guests (DHCP, RFC 2131 and RFC 2132).
//!
//! One guest is expected, and gets [`GUEST`]; a network behind it (a bridge, a guest's guests) gets the addresses that
//! follow. A card keeps its address for as long as the network is there, and the names that guests give themselves are known
//! to the name server.

use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use lodge_net::MacAddress;
use lodge_netboot::OfferConfig;

use crate::config::{BROADCAST, DOMAIN, GATEWAY, GUEST, NAME_SERVER, NETMASK, is_guests};
use crate::outbox::MTU;

/// The server's port, and the client's.
pub(crate) const SERVER: u16 = 67;
pub(crate) const CLIENT: u16 = 68;
/// How long an address is a guest's, in seconds.
const LEASE: u32 = 86_400;
/// Addresses that are given.
const ADDRESSES: u8 = 64;
/// The longest label of a name (RFC 1035, section 2.3.4).
const LABEL: usize = 63;

/// A card, and what it was given.
struct Lease {
    mac: MacAddress,
    address: Ipv4Addr,
    /// What it calls itself.
    name: Option<String>,
}

/// Who has which address.
#[derive(Default)]
pub(crate) struct Dhcp {
    /// What guests boot.
    boot: Option<OfferConfig>,
    /// In the order of the addresses.
    leases: Vec<Lease>,
}

/// An answer, and whom it goes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The message.
    pub(crate) message: Vec<u8>,
    /// Whose address it goes to; everybody's while the client has none.
    pub(crate) to: Ipv4Addr,
    /// The client's card and address, which are known from here on.
    pub(crate) client: Option<(MacAddress, Ipv4Addr)>,
    /// The client has no address yet, as after a start.
    pub(crate) begins: bool,
}

impl Dhcp {
    /// Nobody has an address yet; guests boot `boot`, if anything.
    pub(crate) fn new(boot: Option<OfferConfig>) -> Self {
        Self { boot, leases: Vec::new() }
    }

    /// The address of the guest that calls itself so.
    pub(crate) fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let named = |lease: &&Lease| lease.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        self.leases.iter().find(named).map(|lease| lease.address)
    }

    /// What the guest with this address calls itself.
    pub(crate) fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.leases.iter().find(|lease| lease.address == address)?.name.as_deref()
    }

    /// Answers a client.
    pub(crate) fn serve(&mut self, request: &[u8]) -> Option<Answer> {
        let request = lodge_netboot::decode_request(request)?;
        // The length is the client's word: addresses of another are not looked at.
        if request.opcode() != Opcode::BootRequest || request.htype() != HType::Eth || request.hlen() != 6 {
            return None;
        }
        let mac = MacAddress(request.chaddr().try_into().ok()?);
        if !mac.is_one_card() {
            return None;
        }
        let options = request.opts();
        if let Some(DhcpOption::ServerIdentifier(server)) = options.get(OptionCode::ServerIdentifier)
            && *server != GATEWAY
        {
            return None;
        }
        let kind = match options.get(OptionCode::MessageType) {
            Some(DhcpOption::MessageType(kind)) => Some(*kind),
            // BOOTP (RFC 951).
            _ => None,
        };
        let asked = match options.get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
            _ => Some(request.ciaddr()).filter(|address| !address.is_unspecified()),
        };
        let answer = match kind {
            None => None,
            Some(MessageType::Discover) => Some(MessageType::Offer),
            Some(MessageType::Request) => {
                let own = self.lease(mac)?.address;
                if asked.is_some_and(|asked| asked != own) {
                    return Some(self.refuse(&request));
                }
                Some(MessageType::Ack)
            }
            Some(MessageType::Inform) => Some(MessageType::Ack),
            Some(MessageType::Decline | MessageType::Release) => {
                return None;
            }
            Some(_) => return None,
        };
        let lease = self.lease(mac)?;
        if let Some(DhcpOption::Hostname(name)) = options.get(OptionCode::Hostname) {
            lease.name = is_label(name).then(|| name.clone());
        }
        let address = lease.address;
        let inform = kind == Some(MessageType::Inform);
        let mut reply = reply_to(&request);
        if !inform {
            reply.set_yiaddr(address);
        }
        if let Some(answer) = answer {
            reply.opts_mut().insert(DhcpOption::MessageType(answer));
            reply.opts_mut().insert(DhcpOption::ServerIdentifier(GATEWAY));
            if !inform {
                for option in [
                    DhcpOption::AddressLeaseTime(LEASE),
                    DhcpOption::Renewal(LEASE / 2),
                    DhcpOption::Rebinding(LEASE / 8 * 7),
                ] {
                    reply.opts_mut().insert(option);
                }
            }
        }
        for option in [
            DhcpOption::SubnetMask(NETMASK),
            DhcpOption::BroadcastAddr(BROADCAST),
            DhcpOption::Router(vec![GATEWAY]),
            DhcpOption::DomainNameServer(vec![NAME_SERVER]),
            DhcpOption::DomainName(DOMAIN.into()),
            DhcpOption::InterfaceMtu(MTU as u16),
        ] {
            reply.opts_mut().insert(option);
        }
        if let Some(boot) = &self.boot {
            say_what_to_boot(&mut reply, &request, boot);
        }
        // A client that has an address is answered there; another one hears what goes to all (RFC 2131, section 4.1).
        let has = request.ciaddr();
        let to = if is_guests(has.into()) { has } else { Ipv4Addr::BROADCAST };
        let client = (!inform).then_some((mac, address));
        Some(Answer { message: reply.to_vec().ok()?, to, client, begins: kind == Some(MessageType::Discover) })
    }

    /// The lease of a card, a new one if need be. `None` if there is none left.
    fn lease(&mut self, mac: MacAddress) -> Option<&mut Lease> {
        if let Some(at) = self.leases.iter().position(|lease| lease.mac == mac) {
            return self.leases.get_mut(at);
        }
        let number = u8::try_from(self.leases.len()).ok().filter(|number| *number < ADDRESSES)?;
        let [a, b, c, first] = GUEST.octets();
        let address = Ipv4Addr::new(a, b, c, first + number);
        self.leases.push(Lease { mac, address, name: None });
        self.leases.last_mut()
    }

    /// Says that an address is not the client's (section 3.1, step 4).
    fn refuse(&self, request: &Message) -> Answer {
        let mut reply = reply_to(request);
        reply.set_ciaddr(Ipv4Addr::UNSPECIFIED);
        reply.opts_mut().insert(DhcpOption::MessageType(MessageType::Nak));
        reply.opts_mut().insert(DhcpOption::ServerIdentifier(GATEWAY));
        Answer { message: reply.to_vec().unwrap_or_default(), to: Ipv4Addr::BROADCAST, client: None, begins: false }
    }
}

/// Adds where the boot file is, if there is one for the client.
fn say_what_to_boot(reply: &mut Message, request: &Message, boot: &OfferConfig) {
    let Some(offer) = lodge_netboot::offer(request, boot) else { return };
    reply.set_siaddr(offer.siaddr);
    if let Some(name) = &offer.fname {
        reply.set_fname(name);
    }
    offer.options.into_iter().for_each(|option| _ = reply.opts_mut().insert(option));
}

fn reply_to(request: &Message) -> Message {
    let mut reply = Message::new_with_id(
        request.xid(),
        request.ciaddr(),
        Ipv4Addr::UNSPECIFIED,
        GATEWAY,
        request.giaddr(),
        request.chaddr(),
    );
    reply.set_opcode(Opcode::BootReply).set_flags(request.flags());
    reply
}

/// Whether a text can be a label of a name (RFC 952, RFC 1123 section 2.1).
fn is_label(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LABEL).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('-') && !text.ends_with('-')
}
