mod fragments;
mod guest;
mod many;
mod netboot;
mod random;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use guest::{ADDRESS, ADDRESS_6, CARD, Guest, ip_packet};
use lodge_net::segment::{ICMP, ICMPV6, TCP, UDP, ethertype};
use lodge_net::{Frame, MacAddress, Network};
use lodge_trial::{Random, steps, wait_for};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE};
use smoltcp::socket::tcp::State;

use crate::config::{destination, is_outside};
use crate::*;

fn plain() -> Guest {
    Guest::new(&UserConfig::default())
}

/// A guest that reaches the host's loopback interface.
fn local() -> Guest {
    Guest::new(&UserConfig { loopback: Loopback { all: true, ports: Vec::new() }, ..UserConfig::default() })
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

// --- the link ---

#[test]
fn the_router_and_the_name_server_have_a_card() {
    let mut guest = plain();
    let ask = |guest: &Guest, target: Ipv4Addr, sender: Ipv4Addr| {
        let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
        request.extend(CARD.0);
        request.extend(sender.octets());
        request.extend([0; 6]);
        request.extend(target.octets());
        guest.wire.send_to(MacAddress::BROADCAST, ethertype::ARP, &request);
    };
    for target in [GATEWAY, NAME_SERVER] {
        ask(&guest, target, ADDRESS);
        let reply = guest.wire.expect("a reply", |frame| Some(frame.to_vec()));
        assert_eq!(reply[..6], CARD.0);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[28..32], target.octets());
    }
    // Nobody has the address that a guest is about to take.
    ask(&guest, ADDRESS, Ipv4Addr::UNSPECIFIED);
    guest.wire.expect_nothing();
}

#[test]
fn routers_are_advertised() {
    let mut guest = plain();
    let solicitation = [133, 0, 0, 0, 0, 0, 0, 0];
    let link: Ipv6Addr = "fe80::9".parse().unwrap();
    guest.wire.ip(link.into(), "ff02::2".parse().unwrap(), ICMPV6, &solicitation, 255);
    let (from, message) = guest.wire.expect_icmp(134);
    assert_eq!(from, "fe80::2".parse::<IpAddr>().unwrap());
    let prefix = "fd6c:6f64:6765::".parse::<Ipv6Addr>().unwrap().octets();
    assert!(message.windows(16).any(|bytes| bytes == prefix), "the prefix");
    assert!(message.windows(16).any(|bytes| bytes == NAME_SERVER_6.octets()), "the name server");
    // What came through a router is not of this link (RFC 4861, section 6.1.1).
    guest.wire.ip(link.into(), "ff02::2".parse().unwrap(), ICMPV6, &solicitation, 254);
    guest.wire.expect_nothing();
}

// --- addresses ---

fn dhcp(guest: &mut Guest, mac: MacAddress, kind: MessageType, more: &[DhcpOption]) -> Message {
    let any = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, any, any, any, any, &mac.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    more.iter().for_each(|option| _ = message.opts_mut().insert(option.clone()));
    let bytes = message.to_vec().unwrap();
    guest.wire.udp(at(any, 68), at(Ipv4Addr::BROADCAST, 67), &bytes);
    let (from, reply) = guest.wire.expect_udp(68);
    assert_eq!(from, at(GATEWAY, 67));
    Message::decode(&mut Decoder::new(&reply)).unwrap()
}

fn kind(message: &Message) -> MessageType {
    match message.opts().get(OptionCode::MessageType) {
        Some(DhcpOption::MessageType(kind)) => *kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_given() {
    let mut guest = plain();
    let offer = dhcp(&mut guest, CARD, MessageType::Discover, &[]);
    assert_eq!((kind(&offer), offer.yiaddr(), offer.xid()), (MessageType::Offer, ADDRESS, 7));
    let wanted = [
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::DomainNameServer(vec![NAME_SERVER]),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::ServerIdentifier(GATEWAY),
    ];
    for option in &wanted {
        assert_eq!(offer.opts().get(OptionCode::from(option)), Some(option));
    }
    let asked = |address| [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(GATEWAY)];
    let ack = dhcp(&mut guest, CARD, MessageType::Request, &asked(ADDRESS));
    assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, ADDRESS));
    assert!(ack.opts().get(OptionCode::AddressLeaseTime).is_some());
    // Another card gets another address, and keeps it.
    let other = MacAddress([2, 0, 0, 0, 0, 10]);
    for _ in 0..2 {
        assert_eq!(dhcp(&mut guest, other, MessageType::Discover, &[]).yiaddr(), Ipv4Addr::new(10, 0, 2, 16));
    }
    let nak = dhcp(&mut guest, other, MessageType::Request, &asked(ADDRESS));
    assert_eq!((kind(&nak), nak.yiaddr()), (MessageType::Nak, Ipv4Addr::UNSPECIFIED));
    let inform = dhcp(&mut guest, other, MessageType::Inform, &[]);
    assert_eq!((kind(&inform), inform.yiaddr()), (MessageType::Ack, Ipv4Addr::UNSPECIFIED));
    assert_eq!(inform.opts().get(OptionCode::AddressLeaseTime), None);
}

#[test]
fn there_are_so_many_addresses() {
    let mut guest = plain();
    for number in 0..64 {
        let mac = MacAddress([2, 0, 0, 1, 0, number]);
        assert_eq!(dhcp(&mut guest, mac, MessageType::Discover, &[]).yiaddr(), Ipv4Addr::new(10, 0, 2, 15 + number));
    }
    let any = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, any, any, any, any, &[2, 0, 0, 2, 0, 0]);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
    guest.wire.udp(at(any, 68), at(Ipv4Addr::BROADCAST, 67), &message.to_vec().unwrap());
    guest.wire.expect_nothing();
}

// --- names ---

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    let question = Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

/// What the name server says: addresses and names, or an error.
fn ask(guest: &mut Guest, name: &str, kind: TYPE) -> Result<Vec<String>, RCODE> {
    guest.wire.udp(at(ADDRESS, 5000), at(NAME_SERVER, 53), &query(name, kind));
    let (from, reply) = guest.wire.expect_udp(5000);
    assert_eq!(from, at(NAME_SERVER, 53));
    let reply = Packet::parse(&reply).unwrap();
    assert_eq!(reply.id(), 0x1234);
    if reply.rcode() != RCODE::NoError {
        return Err(reply.rcode());
    }
    let text = |data: &RData<'_>| match data {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => format!("{other:?}"),
    };
    Ok(reply.answers.iter().map(|record| text(&record.rdata)).collect())
}

#[test]
fn names_of_the_network() {
    let mut guest = plain();
    assert_eq!(ask(&mut guest, "host.lodge.internal", TYPE::A).unwrap(), ["10.0.2.2"]);
    assert_eq!(ask(&mut guest, "HOST.lodge.internal", TYPE::AAAA).unwrap(), ["fd6c:6f64:6765::2"]);
    assert_eq!(ask(&mut guest, "host.lodge.internal", TYPE::MX).unwrap(), [""; 0]);
    assert_eq!(ask(&mut guest, "2.2.0.10.in-addr.arpa", TYPE::PTR).unwrap(), ["host.lodge.internal"]);
    assert_eq!(ask(&mut guest, "web.lodge.internal", TYPE::A), Err(RCODE::NameError));
    dhcp(&mut guest, CARD, MessageType::Discover, &[DhcpOption::Hostname("web".into())]);
    for name in ["web.lodge.internal", "Web"] {
        assert_eq!(ask(&mut guest, name, TYPE::A).unwrap(), ["10.0.2.15"]);
    }
    assert_eq!(ask(&mut guest, "15.2.0.10.in-addr.arpa", TYPE::PTR).unwrap(), ["web.lodge.internal"]);
    // A name that can be none is none.
    dhcp(&mut guest, CARD, MessageType::Discover, &[DhcpOption::Hostname("a b".into())]);
    assert_eq!(ask(&mut guest, "web.lodge.internal", TYPE::A), Err(RCODE::NameError));
}

/// A name server that answers every question with an address.
fn name_server(address: Ipv4Addr, port: u16, answer: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).unwrap();
    let ours = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = ours.recv_from(&mut buffer) {
            let query = Packet::parse(&buffer[..count]).unwrap();
            let mut reply = Packet::new_reply(query.id());
            let data = RData::A(simple_dns::rdata::A { address: answer.into() });
            let name = query.questions[0].qname.clone();
            reply.answers.push(simple_dns::ResourceRecord::new(name, CLASS::IN, 1, data));
            ours.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
        }
    });
    socket
}

#[test]
fn the_hosts_name_servers_are_followed() {
    let one = name_server(Ipv4Addr::LOCALHOST, 0, Ipv4Addr::new(192, 0, 2, 1));
    let port = one.local_addr().unwrap().port();
    let _two = name_server(Ipv4Addr::new(127, 0, 0, 2), port, Ipv4Addr::new(192, 0, 2, 2));
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    let config = UserConfig { resolver: resolver.clone(), resolver_port: port, ..UserConfig::default() };
    let mut guest = Guest::new(&config);
    assert_eq!(ask(&mut guest, "example.org", TYPE::A).unwrap(), ["192.0.2.1"]);
    // The host moves: another file takes the place of the old one.
    std::fs::write(folder.path().join("new"), "nameserver 127.0.0.2\n").unwrap();
    std::fs::rename(folder.path().join("new"), &resolver).unwrap();
    assert_eq!(ask(&mut guest, "example.org", TYPE::A).unwrap(), ["192.0.2.2"]);
    // Nobody is at the first: the second is asked.
    std::fs::write(&resolver, "nameserver 127.0.0.3\nnameserver 127.0.0.1\n").unwrap();
    assert_eq!(ask(&mut guest, "example.org", TYPE::A).unwrap(), ["192.0.2.1"]);
    wait_for("the questions to end", || guest.wire.net.load().1 == 0);
}

/// As the C library asks, for both kinds of addresses at once, before either is answered.
#[test]
fn two_questions_from_one_port_are_both_answered() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
    let resolver_port = server.local_addr().unwrap().port();
    let mut guest = Guest::new(&UserConfig { resolver, resolver_port, ..UserConfig::default() });
    let mut sent = Vec::new();
    for (number, kind) in [(1, TYPE::A), (2, TYPE::AAAA)] {
        let mut question = query("example.org", kind);
        question[1] = number;
        guest.wire.udp(at(ADDRESS, 5300), at(NAME_SERVER, 53), &question);
        sent.push(question);
    }
    let mut buffer = [0; 512];
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            (buffer[..count].to_vec(), from)
        })
        .collect();
    for (question, from) in &asked {
        server.send_to(question, from).unwrap();
    }
    let mut answered: Vec<_> = (0..2).map(|_| guest.wire.expect_udp(5300).1).collect();
    answered.sort();
    assert_eq!(answered, sent);
    wait_for("the questions to end", || guest.wire.net.load().1 == 0);
}

// --- connections ---

fn listener(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn data_goes_both_ways_and_each_ends_by_itself() {
    const LENGTH: usize = 5 << 20;
    for (address, router) in [("127.0.0.1:0", IpAddr::from(GATEWAY)), ("[::1]:0", GATEWAY_6.into())] {
        let (listener, port) = listener(address);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            // The guest has said its last, and listens.
            stream.write_all(&all).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            all
        });
        let mut guest = local();
        let socket = guest.connect(at(router, port));
        let (data, mut sent, mut back) = (pattern(LENGTH), 0, Vec::new());
        guest.until("the data", |guest| {
            let socket = guest.with(socket);
            if socket.can_send() && sent < LENGTH {
                sent += socket.send_slice(&data[sent..]).unwrap();
                if sent == LENGTH {
                    socket.close();
                }
            }
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), back.extend_from_slice(bytes))).unwrap();
            }
            !socket.is_open()
        });
        assert!(back == data && server.join().unwrap() == data);
        guest.until("the connection to be forgotten", |guest| guest.wire.net.load().0 == 0);
    }
}

#[test]
fn large_segments_are_left_to_the_card() {
    for (address, router) in [("127.0.0.1:0", IpAddr::from(GATEWAY)), ("[::1]:0", GATEWAY_6.into())] {
        let (listener, port) = listener(address);
        let mut guest = local();
        let socket = guest.connect(at(router, port));
        guest.until("the connection", |guest| guest.state(socket) == State::Established);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&pattern(60_000)).unwrap();
        let frames = RefCell::new(Vec::new());
        wait_for("the data", || {
            frames.borrow_mut().extend(std::iter::from_fn(|| guest.wire.net.receive()));
            frames.borrow().iter().any(|frame: &Frame| frame.bytes.len() > 10_000)
        });
        let frames = frames.into_inner();
        // What a link of 1,500 bytes takes, as the guest has said in the beginning.
        let size = if router.is_ipv4() { 1460 } else { 1440 };
        let large = frames.iter().filter(|frame| frame.bytes.len() > 1514);
        assert!(large.map(|frame| frame.offload.segmentation).all(|cut| cut.is_some_and(|cut| cut.size == size)));
    }
}

#[test]
fn the_router_takes_what_the_link_takes() {
    let (_listener, port) = listener("127.0.0.1:0");
    let guest = local();
    // A connection's first segment by hand, without options.
    let mut segment = [30_000u16.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let Guest { mut wire, .. } = guest;
    wire.ip(ADDRESS.into(), GATEWAY.into(), TCP, &segment, 64);
    let options = wire.expect("an answer", |frame| {
        let (_, _, protocol, data) = guest::dissect(frame)?;
        (protocol == TCP).then(|| data[20..24].to_vec())
    });
    assert_eq!(options, [2, 4, 0x05, 0xb4]);
}

#[test]
fn what_a_guest_says_last_arrives() {
    let (listener, port) = listener("127.0.0.1:0");
    for host_ends_first in [true, false] {
        let mut guest = local();
        let socket = guest.connect(at(GATEWAY, port));
        guest.until("the connection", |guest| guest.state(socket) == State::Established);
        let (mut stream, _) = listener.accept().unwrap();
        if host_ends_first {
            stream.shutdown(Shutdown::Write).unwrap();
            guest.until("the host's end", |guest| guest.state(socket) == State::CloseWait);
        }
        // More than the host's kernel takes for one who does not read: it waits on the way.
        let data = pattern(16 << 20);
        let (mut sent, mut last) = (0, std::time::Instant::now());
        guest.until("the way to be full", |guest| {
            let socket = guest.with(socket);
            if socket.can_send() {
                sent += socket.send_slice(&data[sent..]).unwrap();
                last = std::time::Instant::now();
            }
            last.elapsed() > Duration::from_millis(300)
        });
        assert!(sent < data.len());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).map(|_| all)
        });
        guest.with(socket).close();
        guest.until("the end", |_| reader.is_finished());
        assert!(reader.join().unwrap().unwrap() == data[..sent], "all of it, and an orderly end");
    }
}

#[test]
fn who_is_not_there_refuses() {
    let (listener, port) = listener("127.0.0.1:0");
    drop(listener);
    let mut guest = local();
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the refusal", |guest| guest.state(socket) == State::Closed);
    assert_eq!(guest.wire.net.load().0, 0);
}

#[test]
fn what_listens_at_one_address_of_the_loopback_interface_is_reached_by_both_of_the_router() {
    for (address, router) in [("127.0.0.1:0", IpAddr::from(GATEWAY_6)), ("[::1]:0", GATEWAY.into())] {
        let (listener, port) = listener(address);
        let mut guest = local();
        let socket = guest.connect(at(router, port));
        guest.until("the connection", |guest| guest.state(socket) == State::Established);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        guest.until("what it says", |guest| guest.with(socket).recv_queue() == 5);
    }
}

#[test]
fn the_loopback_interface_is_reached_only_if_that_is_asked_for() {
    let (listener, port) = listener("127.0.0.1:0");
    listener.set_nonblocking(true).unwrap();
    let mut guest = plain();
    for to in [at(GATEWAY, port), at(NAME_SERVER, port), at(Ipv4Addr::LOCALHOST, port)] {
        let socket = guest.connect(to);
        guest.until("the refusal", |guest| guest.state(socket) == State::Closed);
    }
    assert!(listener.accept().is_err());
    let ports = vec![(Protocol::Tcp, port)];
    let mut guest = Guest::new(&UserConfig { loopback: Loopback { all: false, ports }, ..UserConfig::default() });
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    assert!(listener.accept().is_ok());
}

#[test]
fn where_guests_may_go() {
    let all = Loopback { all: true, ports: Vec::new() };
    let to = |loopback: &Loopback, text: &str| destination(loopback, Protocol::Tcp, text.parse().unwrap());
    let same = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
    for text in ["93.184.216.34:80", "192.168.1.1:53", "[2001:db8::1]:443"] {
        assert_eq!(to(&Loopback::default(), text), same(text));
    }
    for text in [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "0.0.0.0:80",
        "0.1.2.3:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "10.0.2.77:80",
        "10.0.2.3:80",
        "[::1]:80",
        "[::]:80",
        "[fe80::77]:80",
        "[ff02::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:93.184.216.34]:80",
        "[fd6c:6f64:6765::77]:80",
        "93.184.216.34:0",
    ] {
        assert_eq!(to(&all, text), None, "{text}");
    }
    assert_eq!(to(&all, "10.0.2.2:80"), same("127.0.0.1:80"));
    assert_eq!(to(&all, "[fd6c:6f64:6765::2]:80"), same("[::1]:80"));
    assert!(to(&Loopback::default(), "10.0.2.2:80").is_none_or(|to| !to.ip().is_loopback()));
    assert!(is_outside("8.8.8.8".parse().unwrap()));
}

#[test]
fn a_reset_is_passed_on() {
    let (listener, port) = listener("127.0.0.1:0");
    let mut guest = local();
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    guest.with(socket).abort();
    guest.poll();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    let (stream, _) = listener.accept().unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("the reset", |guest| guest.state(socket) == State::Closed);
    assert_eq!(guest.wire.net.load().0, 0);
}

#[test]
fn a_guest_that_starts_anew_has_no_connections() {
    let (listener, port) = listener("127.0.0.1:0");
    let mut guest = local();
    dhcp(&mut guest, CARD, MessageType::Discover, &[]);
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    dhcp(&mut guest, CARD, MessageType::Discover, &[]);
    assert_eq!(guest.wire.net.load().0, 0);
    assert!(stream.read(&mut [0; 10]).is_err());
}

#[test]
fn a_slow_guest_slows_the_host() {
    let (listener, port) = listener("127.0.0.1:0");
    let mut guest = local();
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let data = pattern(64 << 20);
    let mut sent = 0;
    while let Ok(count @ 1..) = stream.write(&data[sent..]) {
        sent += count;
    }
    assert!(sent < data.len() / 2, "{sent} bytes were taken though nobody reads");
    // Nothing of it is lost when the guest goes on.
    drop(stream);
    let mut received = Vec::new();
    guest.until("the end", |guest| {
        let socket = guest.with(socket);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
        }
        !socket.may_recv()
    });
    assert!(received == data[..sent]);
}

#[test]
fn connections_are_forwarded() {
    let forward = |protocol| Forward { protocol, host: at(Ipv4Addr::LOCALHOST, 0), guest: 2222 };
    let forwards = vec![forward(Protocol::Tcp), forward(Protocol::Udp)];
    let mut guest = Guest::new(&UserConfig { forwards, ..UserConfig::default() });
    let addresses = guest.wire.net.addresses().to_vec();

    let socket = guest.listen(2222);
    let mut stream = TcpStream::connect(addresses[0]).unwrap();
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    stream.write_all(b"hello").unwrap();
    guest.until("its data", |guest| guest.with(socket).recv_queue() == 5);
    guest.with(socket).send_slice(b"good day").unwrap();
    guest.with(socket).close();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    guest.until("the answer", |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), "good day");
    // Nobody listens any more.
    let mut stream = TcpStream::connect(addresses[0]).unwrap();
    let reader = std::thread::spawn(move || stream.read(&mut [0; 10]).is_err());
    guest.until("the refusal", |_| reader.is_finished());
    assert!(reader.join().unwrap());

    let peers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let ports = [b"one", b"two"].map(|text| {
        let peer = &peers[usize::from(text == b"two")];
        peer.send_to(text, addresses[1]).unwrap();
        let (from, data) = guest.wire.expect_udp(2222);
        assert_eq!((from.ip(), &data[..]), (GATEWAY.into(), &text[..]));
        from
    });
    assert_ne!(ports[0], ports[1]);
    for (peer, port) in peers.iter().zip(ports) {
        guest.wire.udp(at(ADDRESS, 2222), port, b"answer");
        let mut buffer = [0; 10];
        let (count, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from), (&b"answer"[..], addresses[1]));
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (_listener, port) = listener("127.0.0.1:0");
    let forwards = vec![Forward { protocol: Protocol::Tcp, host: at(Ipv4Addr::LOCALHOST, port), guest: 22 }];
    let error = UserNet::new(&UserConfig { forwards, ..UserConfig::default() }).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with(&format!("tcp port 127.0.0.1:{port} can't be forwarded: ")), "{text}");
    assert!(error.remedy().contains("another port"), "{}", error.remedy());
}

// --- datagrams ---

#[test]
fn datagrams_are_exchanged() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut guest = local();
    // Longer than a packet of the guest's may be, on the way back.
    for length in [1, 500, 1472, 4000, 60_000] {
        let text = pattern(length.min(1472));
        guest.wire.udp(at(ADDRESS, 7000), at(GATEWAY, port), &text);
        let mut buffer = [0; 2000];
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..count] == text);
        let answer = pattern(length);
        server.send_to(&answer, from).unwrap();
        if length <= 1472 {
            let (from, data) = guest.wire.expect_udp(7000);
            assert_eq!(from, at(GATEWAY, port));
            assert!(data == answer);
        } else {
            let mut whole = vec![0; 8 + length];
            let mut missing = whole.len();
            guest.wire.expect("all fragments", |frame| {
                assert!(frame.len() <= 1514 && frame[23] == UDP);
                let place = u16::from_be_bytes([frame[20], frame[21]]);
                let offset = usize::from(place & 0x1fff) * 8;
                let data = &frame[34..];
                whole[offset..offset + data.len()].copy_from_slice(data);
                missing -= data.len();
                assert_eq!(place & 0x2000 == 0, offset + data.len() == 8 + length);
                (missing == 0).then_some(())
            });
            assert!(whole[8..] == answer);
        }
    }
    // Others can't answer in its place.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"forged", at(Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(guest.wire.net.load().1, 1, "one exchange");
}

#[test]
fn where_nobody_is_the_guest_is_told() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    drop(server);
    let mut guest = local();
    guest.wire.udp(at(ADDRESS, 7000), at(GATEWAY, port), b"hello");
    // The host's kernel says so, and the packet is repeated.
    let (from, message) = guest.wire.expect_icmp(3);
    assert_eq!((from, message[1]), (GATEWAY.into(), 3));
    assert_eq!(message[8..12], [0x45, 0, 0, 33]);
    guest.wire.udp(at(ADDRESS, 7001), at(Ipv4Addr::new(10, 0, 2, 77), 9), b"hello");
    assert_eq!(guest.wire.expect_icmp(3).1[1], 3);
}

#[test]
fn the_router_answers_pings() {
    let mut guest = plain();
    let request = [8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
    for target in [GATEWAY, NAME_SERVER] {
        guest.wire.ip(ADDRESS.into(), target.into(), ICMP, &request, 64);
        let (from, reply) = guest.wire.expect_icmp(0);
        assert_eq!((from, &reply[4..]), (target.into(), &request[4..]));
    }
    let request = [128, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
    guest.wire.ip(ADDRESS_6.into(), GATEWAY_6.into(), ICMPV6, &request, 64);
    assert_eq!(guest.wire.expect_icmp(129).1[4..], request[4..]);
    // What is of one link is not reached.
    guest.wire.ip(ADDRESS.into(), Ipv4Addr::new(169, 254, 1, 1).into(), ICMP, &[8, 0, 0, 0, 0, 1, 0, 1], 64);
    assert_eq!(guest.wire.expect_icmp(3).1[1], 13);
}

#[test]
fn only_guests_are_heard() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut guest = local();
    for liar in [GATEWAY, NAME_SERVER, Ipv4Addr::new(10, 0, 3, 1), Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 2, 255)] {
        guest.wire.udp(at(liar, 7000), at(GATEWAY, port), b"lie");
    }
    assert!(server.recv(&mut [0; 10]).is_err());
    // A damaged packet, one to another card, one in a VLAN.
    let (kind, mut packet) = ip_packet(ADDRESS.into(), GATEWAY.into(), UDP, &[1, 2, 3, 4, 0, 9, 0, 0, 7], 64);
    packet[28] ^= 1;
    guest.wire.send(kind, &packet);
    packet[28] ^= 1;
    guest.wire.send_to(MacAddress([2, 0, 0, 0, 0, 77]), kind, &packet);
    let tagged = [&[0, 5, 8, 0], &packet[..]].concat();
    guest.wire.send(ethertype::VLAN, &tagged);
    assert_eq!(guest.wire.net.load(), (0, 0));
    guest.wire.expect_nothing();
}

#[test]
fn exchanges_are_bounded() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let guest = local();
    // Each has a descriptor, of which there may be few.
    let most = 600;
    for number in 0..most {
        guest.wire.udp(at(ADDRESS, 1000 + number), at(GATEWAY, port), b"hello");
    }
    let (_, exchanges) = guest.wire.net.load();
    assert!(exchanges <= 1024 && exchanges > 100, "{exchanges}");
}

#[test]
fn a_guest_leaves_descriptors_to_the_rest() {
    use std::os::fd::AsRawFd;
    let (listener, port) = listener("127.0.0.1:0");
    let mut guest = local();
    // All descriptors below this one are taken: none is left for guests.
    let lowest = listener.as_raw_fd();
    guest.wire.net.inner.stack.lock().sockets.set_ceiling(lowest);
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the refusal", |guest| guest.state(socket) == State::Closed);
    guest.wire.udp(at(ADDRESS, 7000), at(GATEWAY, port), b"hello");
    assert_eq!(guest.wire.expect_icmp(3).1[1], 3);
    assert_eq!(guest.wire.net.load(), (0, 0));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody was bothered");
    // There is room for some: an exchange of datagrams takes the place of another, connections are refused.
    guest.wire.net.inner.stack.lock().sockets.set_ceiling(i32::MAX);
    guest.wire.udp(at(ADDRESS, 7001), at(GATEWAY, port), b"hello");
    assert_eq!(guest.wire.net.load(), (0, 1));
    let socket = guest.connect(at(GATEWAY, port));
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    guest.wire.net.inner.stack.lock().sockets.set_ceiling(lowest);
    guest.wire.udp(at(ADDRESS, 7002), at(GATEWAY, port), b"hello");
    assert_eq!(guest.wire.net.load(), (1, 0), "it was tried");
}
