//! What guests ask of their link: who has an address (ARP, RFC 826; neighbour discovery, RFC 4861), who the router is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lodge_net::MacAddress;
use lodge_net::ip::Sum;
use lodge_net::segment::{ICMPV6, ethertype};

use crate::config::{GATEWAY, LINK_LOCAL, MAC, NAME_SERVER_6, PREFIX_LENGTH, is_guests, is_ours, prefix_6};
use crate::outbox::{MTU, Outbox};

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Bytes of an ARP packet for Ethernet and IPv4.
const ARP: usize = 28;

/// ICMPv6 types (RFC 4861, section 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Options (section 4.6; RFC 8106, section 5.1).
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const LINK_MTU: u8 = 5;
const NAME_SERVERS: u8 = 25;
/// Flags of an advertisement: from a router, asked for, instead of what was known.
const ROUTER_SOLICITED_OVERRIDE: u8 = 0xe0;
/// Flags of a prefix: it is on the link, addresses may be made of it.
const ON_LINK_AUTONOMOUS: u8 = 0xc0;
/// How long what is advertised holds, in seconds.
const LIFETIME: u32 = 86_400;
/// How long the router is one, in seconds; at most 9,000.
const ROUTER_LIFETIME: u16 = 9_000;
/// Hop limit of neighbour discovery: what comes through a router has less.
const ON_LINK: u8 = 255;

/// Answers an ARP packet, and learns from it.
pub(crate) fn arp(packet: &[u8], outbox: &mut Outbox) {
    let Some(packet) = packet.first_chunk::<ARP>() else { return };
    // Ethernet, IPv4, addresses of 6 and 4 bytes.
    let [0, 1, 8, 0, 6, 4, o0, o1, m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = *packet
    else {
        return;
    };
    let (mac, sender) = (MacAddress([m0, m1, m2, m3, m4, m5]), Ipv4Addr::new(s0, s1, s2, s3));
    if is_guests(sender.into()) {
        outbox.learn(sender.into(), mac);
    }
    let target = Ipv4Addr::new(t0, t1, t2, t3);
    if u16::from_be_bytes([o0, o1]) == REQUEST && is_ours(target.into()) {
        // To whoever asks, whoever he says that he is: with no address yet, he looks whether somebody has it.
        outbox.frame(mac, ethertype::ARP, &arp_packet(REPLY, target, mac, sender));
    }
}

/// Asks who has the addresses that somebody has something for.
pub(crate) fn ask(outbox: &mut Outbox) {
    for address in std::mem::take(&mut outbox.wanted) {
        match address {
            IpAddr::V4(address) => {
                let request = arp_packet(REQUEST, GATEWAY, MacAddress([0; 6]), address);
                outbox.frame(MacAddress::BROADCAST, ethertype::ARP, &request);
            }
            IpAddr::V6(address) => {
                let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
                message.extend(address.octets());
                message.extend([SOURCE_ADDRESS, 1]);
                message.extend(MAC.0);
                // The solicited-node multicast address (RFC 4291, section 2.7.1).
                let [.., a, b, c] = address.octets();
                let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
                send(outbox, LINK_LOCAL, group, &message);
            }
        }
    }
}

fn arp_packet(operation: u16, sender: Ipv4Addr, mac: MacAddress, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(MAC.0);
    packet.extend(sender.octets());
    packet.extend(mac.0);
    packet.extend(target.octets());
    packet
}

/// Answers a message of neighbour discovery, and learns from it. Whether it is one.
pub(crate) fn discovery(from: Ipv6Addr, hops: u8, message: &[u8], mac: MacAddress, outbox: &mut Outbox) -> bool {
    let Some(kind @ ROUTER_SOLICITATION..=NEIGHBOUR_ADVERTISEMENT) = message.first().copied() else { return false };
    if hops != ON_LINK {
        return true;
    }
    if is_guests(from.into()) {
        outbox.learn(from.into(), mac);
    }
    match kind {
        ROUTER_SOLICITATION => advertise(outbox, from),
        NEIGHBOUR_SOLICITATION => {
            let Some(target) = message.get(8..24).and_then(|target| <[u8; 16]>::try_from(target).ok()) else {
                return true;
            };
            let target = Ipv6Addr::from(target);
            if is_ours(target.into()) {
                let mut answer = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, ROUTER_SOLICITED_OVERRIDE, 0, 0, 0];
                answer.extend(target.octets());
                answer.extend([TARGET_ADDRESS, 1]);
                answer.extend(MAC.0);
                send(outbox, target, to_whoever_asked(from), &answer);
            }
        }
        _ => {}
    }
    true
}

/// Who an answer goes to: all, if whoever asked has no address yet.
fn to_whoever_asked(from: Ipv6Addr) -> Ipv6Addr {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    if from.is_unspecified() { ALL_NODES } else { from }
}

/// Tells a guest of the router, the prefix and the name server (RFC 4861, section 4.2; RFC 8106).
fn advertise(outbox: &mut Outbox, to: Ipv6Addr) {
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
    message.extend(ROUTER_LIFETIME.to_be_bytes());
    message.extend([0; 8]);
    message.extend([SOURCE_ADDRESS, 1]);
    message.extend(MAC.0);
    message.extend([LINK_MTU, 1, 0, 0]);
    message.extend((MTU as u32).to_be_bytes());
    message.extend([PREFIX_INFORMATION, 4, PREFIX_LENGTH, ON_LINK_AUTONOMOUS]);
    message.extend(LIFETIME.to_be_bytes());
    message.extend(LIFETIME.to_be_bytes());
    message.extend([0; 4]);
    message.extend(prefix_6().octets());
    message.extend([NAME_SERVERS, 3, 0, 0]);
    message.extend(LIFETIME.to_be_bytes());
    message.extend(NAME_SERVER_6.octets());
    send(outbox, LINK_LOCAL, to_whoever_asked(to), &message);
}

fn send(outbox: &mut Outbox, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) {
    outbox.ip_with_hops(from.into(), to.into(), ICMPV6, message, Sum::WithAddresses(2), ON_LINK);
}
