//! What a hostile guest sends, a million of each: no panic, and nothing that grows without bound.

use super::guest::datagram;
use super::netboot::serving;
use super::*;

/// What a guest sends: an ether type, and the packet.
type Sample = (u16, Vec<u8>);

/// A network that serves a boot file and has a name server that never answers, so that nobody is bothered; and the guest.
struct Hostile {
    _place: tempfile::TempDir,
    _resolver: tempfile::NamedTempFile,
    _silent: UdpSocket,
    guest: Guest,
    random: Random,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver_port = silent.local_addr().unwrap().port();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let config = UserConfig { resolver: file.path().to_owned(), resolver_port, ..UserConfig::default() };
        let (place, guest) = serving(&pattern(3000), config);
        Self { _place: place, _resolver: file, _silent: silent, guest, random: Random(seed) }
    }

    /// Sends a million packets: one of these each, changed here and there, behind so many bytes that stay.
    fn sends(&mut self, samples: &[Sample], kept: usize) {
        let Self { guest, random, .. } = self;
        let mut answers = 0;
        for step in 0..steps(1_000_000) {
            let (kind, mut packet) = samples[random.below(samples.len() as u64) as usize].clone();
            // Not the destination: nobody outside shall be bothered.
            let fixed = match kind {
                ethertype::IPV4 => 16..20,
                ethertype::IPV6 => 24..40,
                _ => 0..0,
            };
            let mut bytes = [crate::config::MAC.0, CARD.0].concat();
            bytes.extend(kind.to_be_bytes());
            for _ in 0..random.below(6) {
                let at = random.below(packet.len() as u64) as usize;
                if !fixed.contains(&at) && at >= kept {
                    packet[at] = random.next() as u8;
                }
            }
            if random.below(8) == 0 {
                packet.truncate(random.below(packet.len() as u64 + 1) as usize);
            }
            if random.below(8) == 0 {
                packet.extend((0..random.below(1400)).map(|at| at as u8));
            }
            bytes.extend(packet);
            // Mostly nobody looks at checksums, or nothing but these would be tried.
            let checksum = if random.below(4) == 0 { lodge_net::Checksum::There } else { lodge_net::Checksum::Good };
            let offload = lodge_net::Offload { checksum, segmentation: None };
            assert!(guest.wire.net.send(&Frame { bytes, offload }));
            if step % 50 == 0 {
                answers += std::iter::from_fn(|| guest.wire.net.receive()).count();
            }
        }
        assert!(answers > 1000, "{answers} answers: what is sent is mostly not understood");
        let (connections, exchanges) = guest.wire.net.load();
        assert!(connections <= 4096 && exchanges <= 1024, "{connections}, {exchanges}");
        let (packets, bytes) = guest.wire.net.fragments();
        assert!(packets <= 64 && bytes <= 64 * 65_535, "{packets} packets, {bytes} bytes wait for their rest");
    }
}

/// The length of the headers of IPv4 and UDP.
const HEADERS: usize = 20 + 8;

fn udp(to: Ipv4Addr, ports: (u16, u16), data: &[u8]) -> Sample {
    let from = if to.is_broadcast() { Ipv4Addr::UNSPECIFIED } else { ADDRESS };
    ip_packet(from.into(), to.into(), UDP, &datagram(ports.0, ports.1, data), 64)
}

fn dhcp_packets() -> Vec<Sample> {
    let any = Ipv4Addr::UNSPECIFIED;
    let message = |kind, more: &[DhcpOption]| {
        let mut message = Message::new_with_id(7, any, any, any, any, &CARD.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::Hostname("fuzz".into()));
        more.iter().for_each(|option| _ = message.opts_mut().insert(option.clone()));
        udp(Ipv4Addr::BROADCAST, (68, 67), &message.to_vec().unwrap())
    };
    let pxe = [
        DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003016".to_vec()),
        DhcpOption::ParameterRequestList(vec![OptionCode::BootfileName, OptionCode::TFTPServerName]),
    ];
    let asks = [DhcpOption::RequestedIpAddress(ADDRESS), DhcpOption::ServerIdentifier(GATEWAY)];
    let kinds = [MessageType::Release, MessageType::Decline, MessageType::Inform];
    let mut packets = vec![message(MessageType::Discover, &pxe), message(MessageType::Request, &asks)];
    packets.extend(kinds.map(|kind| message(kind, &[])));
    packets
}

fn tftp_packets() -> Vec<Sample> {
    let request = b"\0\x01pxe.0\0octet\0blksize\x001024\0windowsize\x004\0tsize\x000\0timeout\x001\0";
    vec![
        udp(GATEWAY, (3000, 69), request),
        udp(GATEWAY, (3000, 69), b"\0\x02pxe.0\0octet\0"),
        udp(GATEWAY, (3000, 57_344), &[0, 4, 0, 0]),
        udp(GATEWAY, (3000, 57_344), &[0, 4, 0, 1]),
        udp(GATEWAY, (3000, 57_344), b"\0\x05\0\0enough\0"),
    ]
}

fn dns_packets() -> Vec<Sample> {
    let names = [("host.lodge.internal", TYPE::A), ("2.2.0.10.in-addr.arpa", TYPE::PTR), ("www.example", TYPE::AAAA)];
    names.iter().map(|(name, kind)| udp(NAME_SERVER, (5000, 53), &query(name, *kind))).collect()
}

#[test]
fn random_dhcp_packets_do_no_harm() {
    Hostile::new(0x0bad_d4c9).sends(&dhcp_packets(), HEADERS);
}

#[test]
fn random_tftp_packets_do_no_harm() {
    Hostile::new(0x0bad_7f79).sends(&tftp_packets(), HEADERS);
}

#[test]
fn random_questions_do_no_harm() {
    Hostile::new(0x0bad_0d45).sends(&dns_packets(), HEADERS);
}

#[test]
fn random_frames_do_no_harm() {
    let (us, router, names): (IpAddr, IpAddr, IpAddr) = (ADDRESS.into(), GATEWAY.into(), NAME_SERVER.into());
    let (us_6, router_6): (IpAddr, IpAddr) = (ADDRESS_6.into(), GATEWAY_6.into());
    let syn = [0x12, 0x34, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 255, 255, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let http = [&syn[..2], &[0, 80], &syn[4..]].concat();
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([CARD.0.to_vec(), ADDRESS.octets().to_vec(), vec![0; 6], GATEWAY.octets().to_vec()].concat());
    let fragment = |(kind, mut packet): Sample, place: u16| {
        packet[6..8].copy_from_slice(&place.to_be_bytes());
        packet[10..12].fill(0);
        let sum = lodge_net::checksum::finish(lodge_net::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        (kind, packet)
    };
    let mut samples = [dhcp_packets(), tftp_packets(), dns_packets()].concat();
    samples.extend([
        ip_packet(us, router, TCP, &http, 64),
        // Nobody listens there: what is opened ends at once.
        ip_packet(us, names, TCP, &syn, 64),
        ip_packet(us, router, ICMP, &[8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3], 64),
        ip_packet(us_6, router_6, ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3], 64),
        ip_packet(us_6, "ff02::2".parse().unwrap(), ICMPV6, &[133, 0, 0, 0, 0, 0, 0, 0], 255),
        ip_packet(us_6, router_6, ICMPV6, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY_6.octets()].concat(), 255),
        (ethertype::ARP, arp),
        // Fragments: a first one, a later one, of IPv6.
        fragment(ip_packet(us, router, ICMP, &[8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8], 64), 0x2000),
        fragment(ip_packet(us, router, ICMP, &[9; 40], 64), 2),
        ip_packet(
            us_6,
            router_6,
            44,
            &[ICMPV6, 0, 0, 1, 0, 0, 0, 7, 128, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
            64,
        ),
        ip_packet(us_6, router_6, 44, &[[ICMPV6, 0, 0, 16, 0, 0, 0, 7], [8; 8], [8; 8]].concat(), 64),
    ]);
    let mut hostile = Hostile::new(0x0bad_cafe);
    hostile.sends(&samples, 0);
    assert!(hostile.guest.wire.net.fragments().0 > 0, "fragments were tried");
}
