use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lodge_trial::{Random, steps};

use super::gate::{ANSWERED, REFUSALS};
use super::*;
use crate::far::Far;
use crate::frame::{Accepts, Checksum, Frame, HEADER, Offload, Segmentation};
use crate::ip::{self, Head, Sum};
use crate::segment::{Layout, ethertype, is_intact};
use crate::{Cable, CableConfig, Listener, MacAddress};

const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Rules as they are said: `allow=...` and `deny=...`.
fn rules(text: &str) -> Rules {
    let one = |text: &str| match text.split_once('=').unwrap() {
        ("allow", what) => Rule::allow(what).unwrap(),
        (_, what) => Rule::deny(what).unwrap(),
    };
    Rules::new(text.split_whitespace().map(one).collect(), Vec::new())
}

fn gate(text: &str) -> Gate {
    Gate::new(rules(text)).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The guest's address of the same kind.
fn ours(to: IpAddr) -> IpAddr {
    address(if to.is_ipv4() { "10.0.2.15" } else { "fd6c:6f64:6765::15" })
}

fn wrapped(to: MacAddress, from: MacAddress, mut packet: Vec<u8>) -> Vec<u8> {
    packet[..6].copy_from_slice(&to.0);
    packet[6..12].copy_from_slice(&from.0);
    let kind = if packet[HEADER] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 };
    packet[12..HEADER].copy_from_slice(&kind.to_be_bytes());
    packet
}

fn framed(from: IpAddr, to: IpAddr, protocol: u8, data: &[u8], hops: u8) -> Vec<u8> {
    let sum = match protocol {
        TCP => Sum::WithAddresses(16),
        UDP => Sum::WithAddresses(6),
        ICMP => Sum::Data(2),
        ICMPV6 => Sum::WithAddresses(2),
        _ => Sum::None,
    };
    let packet = ip::packet(&Head { from, to, protocol, hops, number: 7 }, data, sum).unwrap();
    wrapped(ROUTER, GUEST, packet)
}

fn segment(from: u16, to: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 100, 0, 0, 1, 0, 0x50, flags, 255, 255, 0, 0, 0, 0], data].concat()
}

fn datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    [&[from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat(), data].concat()
}

/// What the guest sends to one place: `tcp:`, `udp:` or `icmp:` and an address, with a port.
fn sent(to: &str) -> Vec<u8> {
    let (protocol, to) = to.split_once(':').unwrap();
    if protocol == "icmp" {
        let to = address(to);
        let (number, kind) = if to.is_ipv4() { (ICMP, 8) } else { (ICMPV6, 128) };
        return framed(ours(to), to, number, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1, 9, 9], 64);
    }
    let to: SocketAddr = to.parse().unwrap();
    let (number, data) = match protocol {
        "tcp" => (TCP, segment(4000, to.port(), SYN, &[])),
        _ => (UDP, datagram(4000, to.port(), b"hello")),
    };
    framed(ours(to.ip()), to.ip(), number, &data, 64)
}

#[test]
fn destinations_as_they_are_written() {
    for good in [
        "*",
        "192.0.2.1",
        "192.0.2.0/24",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::1",
        "2001:db8::/32",
        "[2001:db8::1]",
        "[2001:db8::/32]:443",
        "*:53",
        "tcp:*:80-88",
        "udp:192.0.2.1:1-65535",
        "icmp:*",
        "icmp:2001:db8::/32",
        "tcp:2001:db8::1",
    ] {
        assert!(Rule::allow(good).is_ok() && Rule::deny(good).is_ok(), "{good}: {:?}", Rule::allow(good));
    }
    let beyond = "10.0.2.1 has more than 24 bits set; write 10.0.2.0/24";
    for (bad, says) in [
        ("", "'' is neither * nor an address"),
        ("host.example", "'host.example' is neither * nor an address"),
        ("sctp:192.0.2.1", "'sctp' is neither * nor an address"),
        ("[192.0.2.1]:80", "'[192.0.2.1]:80' is neither * nor an address"),
        ("[2001:db8::1", "'[2001:db8::1' is neither * nor an address"),
        ("[2001:db8::1]80", "'[2001:db8::1]80' is neither * nor an address"),
        ("192.0.2.1/33", "'33' is not a number of bits"),
        ("192.0.2.1/+1", "'+1' is not a number of bits"),
        ("2001:db8::/129", "'129' is not a number of bits"),
        ("10.0.2.1/24", beyond),
        ("2001:db8::1/0", "2001:db8::1 has more than 0 bits set; write ::/0"),
        ("*:0", "'0' is neither a port"),
        ("*:80-79", "'80-79' is neither a port"),
        ("*:65536", "'65536' is neither a port"),
        ("*:", "'' is neither a port"),
        ("*:-80", "'-80' is neither a port"),
        ("icmp:*:80", "icmp has no ports"),
    ] {
        let error = Rule::deny(bad).unwrap_err().to_string();
        assert!(error.starts_with(says), "{bad}: {error}");
    }
}

#[test]
fn the_first_rule_decides() {
    let all = ["tcp:192.0.2.1:80", "udp:192.0.2.1:53", "icmp:192.0.2.1", "tcp:[2001:db8::1]:80", "icmp:2001:db8::1"];
    // What passes of these, and of 198.51.100.1 by TCP, port 443.
    for (text, passes) in [
        ("deny=192.0.2.0/24", [false, false, false, true, true, true]),
        ("deny=tcp:192.0.2.1", [false, true, true, true, true, true]),
        ("deny=*:53", [true, false, true, true, true, true]),
        ("deny=icmp:*", [true, true, false, true, false, true]),
        ("deny=tcp:*:80-443", [false, true, true, false, true, false]),
        ("deny=2001:db8::/32", [true, true, true, false, false, true]),
        ("allow=192.0.2.1", [true, true, true, false, false, false]),
        ("allow=tcp:*:80", [true, false, false, true, false, false]),
        ("deny=tcp:192.0.2.1 allow=192.0.2.0/24", [false, true, true, false, false, false]),
        ("allow=192.0.2.0/24 deny=tcp:192.0.2.1", [true, true, true, false, false, false]),
        ("deny=192.0.2.0/24 allow=*", [false, false, false, true, true, true]),
        ("deny=*", [false; 6]),
        ("deny=0.0.0.0/0", [false, false, false, true, true, false]),
    ] {
        let gate = gate(text);
        for (to, passes) in all.into_iter().chain(["tcp:198.51.100.1:443"]).zip(passes) {
            assert_eq!(gate.judge(&sent(to)) == Judged::Pass, passes, "{text}, {to}");
        }
    }
    // What is the network's own, unless it is denied.
    let own = || vec![Rule::allow("udp:10.0.2.3:53").unwrap()];
    let judged = |said: &str| {
        let rules = Rules::new(rules(said).rules, own());
        Gate::new(rules).unwrap().judge(&sent("udp:10.0.2.3:53"))
    };
    assert_eq!(judged("allow=192.0.2.1"), Judged::Pass);
    assert_eq!(judged("deny=10.0.2.0/24 allow=192.0.2.1"), Judged::Refused);
    assert!(Gate::new(Rules::new(Vec::new(), own())).is_none(), "without rules nothing is judged");
}

#[test]
fn a_refusal_is_what_the_standard_says() {
    let gate = gate("deny=*");
    let refused = |frame: &[u8]| {
        assert_eq!(gate.judge(frame), Judged::Refused);
        let answer = gate.refusal().unwrap().bytes;
        assert_eq!(answer[..12], [GUEST.0, ROUTER.0].concat());
        let layout = Layout::of(&answer).unwrap();
        assert!(is_intact(&answer, &layout), "{answer:02x?}");
        let (protocol, at) = layout.transport.unwrap();
        (protocol, answer[at..].to_vec())
    };
    for to in ["192.0.2.1", "2001:db8::1"].map(address) {
        let tcp = |flags, data: &[u8]| framed(ours(to), to, TCP, &segment(4000, 80, flags, data), 64);
        // Sequence number 100, acknowledged 256.
        let (protocol, reset) = refused(&tcp(SYN, b""));
        assert_eq!((protocol, &reset[..4]), (TCP, &[0, 80, 15, 160][..]));
        assert_eq!(reset[4..14], [0, 0, 0, 0, 0, 0, 0, 101, 0x50, RST | ACK]);
        let (_, reset) = refused(&tcp(SYN, b"early"));
        assert_eq!(reset[4..14], [0, 0, 0, 0, 0, 0, 0, 106, 0x50, RST | ACK]);
        let (_, reset) = refused(&tcp(ACK, b"data"));
        assert_eq!(reset[4..14], [0, 0, 1, 0, 0, 0, 0, 0, 0x50, RST]);
        assert_eq!(gate.judge(&tcp(RST, b"")), Judged::Lost, "a reset is not answered");

        let sent = framed(ours(to), to, UDP, &datagram(4000, 53, &[7; 1400]), 64);
        let (protocol, message) = refused(&sent);
        let (expected, size) = if to.is_ipv4() { ((ICMP, 3, 13), 576 - 20) } else { ((ICMPV6, 1, 1), 1280 - 40) };
        assert_eq!((protocol, message[0], message[1]), expected);
        assert_eq!(message[8..], sent[HEADER..][..message.len() - 8], "it repeats the packet");
        assert_eq!(message.len(), size);
        let echo = if to.is_ipv4() { "icmp:192.0.2.1" } else { "icmp:2001:db8::1" };
        let (protocol, message) = refused(&super::tests::sent(echo));
        assert_eq!((protocol, message[0], message[1]), expected);
        // Another protocol.
        assert_eq!(refused(&framed(ours(to), to, 47, &[1; 30], 64)).0, expected.0);
        // An error.
        let (protocol, kind) = if to.is_ipv4() { (ICMP, 3) } else { (ICMPV6, 1) };
        let error = framed(ours(to), to, protocol, &[kind, 3, 0, 0, 0, 0, 0, 0, 1, 2, 3], 64);
        assert_eq!(gate.judge(&error), Judged::Lost);
    }
    // What goes to many.
    for to in ["224.0.0.251", "255.255.255.255", "ff02::fb"].map(address) {
        assert_eq!(gate.judge(&framed(ours(to), to, UDP, &datagram(5353, 5353, b"who"), 255)), Judged::Lost, "{to}");
    }
    let mut to_all = sent("tcp:192.0.2.1:80");
    to_all[..6].fill(0xff);
    assert_eq!(gate.judge(&to_all), Judged::Lost);
    // What the guest does not listen to does not pile up.
    for _ in 0..2 * REFUSALS {
        gate.judge(&sent("tcp:192.0.2.1:80"));
    }
    assert_eq!(std::iter::from_fn(|| gate.refusal()).count(), REFUSALS);
}

#[test]
fn the_link_works_whatever_is_denied() {
    let link = |to, protocol, data: &[u8], hops| {
        let to = address(to);
        framed(if to.is_ipv4() { address("0.0.0.0") } else { address("fe80::9") }, to, protocol, data, hops)
    };
    let arp = [&[0xff; 6][..], &GUEST.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    let passing = [
        arp,
        link("255.255.255.255", UDP, &datagram(68, 67, &[1; 240]), 64),
        link("ff02::1:2", UDP, &datagram(546, 547, &[1; 40]), 1),
        link("ff02::2", ICMPV6, &[133, 0, 0, 0, 0, 0, 0, 0], 255),
        link("ff02::1:ff00:2", ICMPV6, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[7; 24]].concat(), 255),
        link("2001:db8::1", ICMPV6, &[&[136, 0, 0, 0, 0, 0, 0, 0][..], &[7; 24]].concat(), 255),
        link("ff02::16", ICMPV6, &[143, 0, 0, 0, 0, 0, 0, 1], 1),
        link("224.0.0.22", 2, &[0x22, 0, 0, 0, 0, 0, 0, 1], 1),
    ];
    let stopped = [
        // What is not of the link, and only looks like it.
        link("192.0.2.1", UDP, &datagram(68, 67, &[1; 240]), 64),
        link("2001:db8::1", ICMPV6, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[7; 100]].concat(), 255),
        link("2001:db8::1", ICMPV6, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[7; 24]].concat(), 64),
        link("2001:db8::1", UDP, &datagram(546, 547, &[1; 40]), 1),
        link("ff02::1", ICMPV6, &[&[134, 0, 0, 0, 0, 0, 0, 0][..], &[7; 24]].concat(), 255),
        link("192.0.2.1", 2, &[0x22, 0, 0, 0, 0, 0, 0, 1], 1),
    ];
    for text in ["deny=*", "allow=198.51.100.1"] {
        let gate = gate(text);
        for frame in &passing {
            assert_eq!(gate.judge(frame), Judged::Pass, "{text}: {frame:02x?}");
        }
        for frame in &stopped {
            assert_ne!(gate.judge(frame), Judged::Pass, "{text}: {frame:02x?}");
        }
    }
}

#[test]
fn what_can_not_be_judged_does_not_go_on() {
    let tagged = |to: &str, tags: usize| {
        let mut frame = sent(to);
        (0..tags).for_each(|_| _ = frame.splice(12..12, [0x81, 0, 0, 7]));
        frame
    };
    let unknown = [&ROUTER.0[..], &GUEST.0, &[0x88, 0xcc, 1, 2, 3, 4]].concat();
    let open = gate("deny=192.0.2.1");
    assert_eq!(open.judge(&tagged("tcp:192.0.2.1:80", 1)), Judged::Lost, "a tag hides nothing");
    assert_eq!(open.judge(&tagged("tcp:192.0.2.1:80", 2)), Judged::Lost);
    assert_eq!(open.judge(&tagged("tcp:192.0.2.9:80", 3)), Judged::Lost);
    assert_eq!(open.judge(&tagged("tcp:192.0.2.9:80", 1)), Judged::Pass);
    assert_eq!(open.judge(&unknown), Judged::Pass);
    let strict = gate("allow=192.0.2.9");
    for frame in [tagged("tcp:192.0.2.9:80", 1), unknown, sent("tcp:192.0.2.9:80")[..40].to_vec()] {
        assert_eq!(strict.judge(&frame), Judged::Lost);
    }
    // By way of others (IPv4).
    let mut routed = sent("udp:192.0.2.9:80");
    routed.splice(34..34, [131, 7, 4, 192, 0, 2, 1, 0]);
    routed[14] = 0x47;
    routed[17] += 8;
    assert_eq!(open.judge(&routed), Judged::Lost);
    routed[34] = 148;
    assert_eq!(open.judge(&routed), Judged::Pass, "another option");
    // A routing header with segments left, and encryption, which hides what it is (IPv6).
    let to = address("2001:db8::1");
    let unseen = [(43, [&[UDP, 0, 4, 1, 0, 0, 0, 0][..], &datagram(1, 2, b"")].concat()), (50, vec![7; 40])];
    for (kind, data) in unseen {
        let frame = framed(ours(to), to, kind, &data, 64);
        assert_eq!(gate("deny=udp:2001:db8::1").judge(&frame), Judged::Refused, "{kind}");
        assert_eq!(gate("allow=udp:2001:db8::1").judge(&frame), Judged::Refused, "{kind}");
        assert_eq!(gate("allow=2001:db8::1").judge(&frame), Judged::Pass, "{kind}");
    }
}

/// Part of a packet of the guest's: from `offset` of what it carries on.
fn fragment(to: &str, offset: u16, data: &[u8]) -> Vec<u8> {
    let to = address(to);
    if to.is_ipv4() {
        let mut frame = framed(ours(to), to, 255, data, 64);
        frame[HEADER + 9] = UDP;
        frame[HEADER + 6..HEADER + 8].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
        ip::finish_header(&mut frame[HEADER..]);
        frame
    } else {
        let [high, low] = (offset | 1).to_be_bytes();
        framed(ours(to), to, 44, &[&[UDP, 0, high, low, 0, 0, 0, 9], data].concat(), 64)
    }
}

#[test]
fn fragments_are_judged_by_what_is_known_of_them() {
    let first = datagram(4000, 53, &[1; 64]);
    for to in ["192.0.2.1", "2001:db8::1"] {
        for (text, begins, goes_on) in [
            (format!("deny={to}"), Judged::Refused, Judged::Lost),
            (format!("deny=udp:{to}"), Judged::Refused, Judged::Lost),
            (format!("allow=tcp:{to}"), Judged::Refused, Judged::Lost),
            ("deny=*:53".into(), Judged::Refused, Judged::Pass),
            ("allow=*:53".into(), Judged::Pass, Judged::Pass),
            ("allow=*:54".into(), Judged::Refused, Judged::Pass),
        ] {
            let gate = gate(&text);
            assert_eq!(gate.judge(&fragment(to, 0, &first)), begins, "{text}");
            assert_eq!(gate.judge(&fragment(to, 1480, &first)), goes_on, "{text}");
        }
        // Too short to have ports.
        assert_eq!(gate("deny=198.51.100.1").judge(&fragment(to, 0, &first[..4])), Judged::Lost);
    }
    // A piece of a TCP header, which might take the place of what was judged.
    let mut piece = fragment("192.0.2.1", 8, &first);
    piece[HEADER + 9] = TCP;
    assert_eq!(gate("deny=198.51.100.1").judge(&piece), Judged::Lost);
}

#[test]
fn who_came_in_is_answered() {
    let gate = gate("allow=198.51.100.1");
    for outside in ["192.0.2.1", "2001:db8::1"].map(address) {
        let us = ours(outside);
        let opening = framed(outside, us, TCP, &segment(999, 22, SYN, b""), 64);
        let answer = |from, to, flags| framed(us, outside, TCP, &segment(from, to, flags, b""), 64);
        assert_eq!(gate.judge(&answer(22, 999, SYN | ACK)), Judged::Refused, "nobody asked");
        gate.note(&opening);
        for flags in [SYN | ACK, ACK, RST] {
            assert_eq!(gate.judge(&answer(22, 999, flags)), Judged::Pass);
        }
        assert_eq!(gate.judge(&answer(22, 999, SYN)), Judged::Refused, "that would be a new connection");
        assert_eq!(gate.judge(&answer(22, 998, ACK)), Judged::Refused);
        assert_eq!(gate.judge(&answer(23, 999, ACK)), Judged::Refused);
        gate.note(&framed(outside, us, UDP, &datagram(999, 53, b"?"), 64));
        assert_eq!(gate.judge(&framed(us, outside, UDP, &datagram(53, 999, b"!"), 64)), Judged::Pass);
        assert_eq!(gate.judge(&framed(us, outside, UDP, &datagram(54, 999, b"!"), 64)), Judged::Refused);
        let (protocol, ask, reply) = if us.is_ipv4() { (ICMP, 8, 0) } else { (ICMPV6, 128, 129) };
        let echo = |kind, identifier| [kind, 0, 0, 0, identifier, 0, 0, 1];
        gate.note(&framed(outside, us, protocol, &echo(ask, 5), 64));
        assert_eq!(gate.judge(&framed(us, outside, protocol, &echo(reply, 5), 64)), Judged::Pass);
        assert_eq!(gate.judge(&framed(us, outside, protocol, &echo(reply, 6), 64)), Judged::Refused);
        assert_eq!(gate.judge(&framed(us, outside, protocol, &echo(ask, 5), 64)), Judged::Refused);
    }
}

#[test]
fn memory_of_who_came_in_is_bounded() {
    let gate = gate("allow=198.51.100.1");
    let (outside, us) = (address("192.0.2.1"), address("10.0.2.15"));
    let note = |port| gate.note(&framed(outside, us, TCP, &segment(port, 22, SYN, b""), 64));
    let passes = |port| gate.judge(&framed(us, outside, TCP, &segment(22, port, ACK, b""), 64)) == Judged::Pass;
    note(1);
    note(2);
    for port in 3..60_000 {
        note(port);
        if port % 1000 == 0 {
            assert!(passes(1), "one that goes on is remembered, {port}");
        }
    }
    assert!(!passes(2));
    assert!(gate.remembered() <= 2 * ANSWERED, "{}", gate.remembered());
    // Who may be spoken to anyway is not.
    let before = gate.remembered();
    gate.note(&framed(address("198.51.100.1"), us, TCP, &segment(3, 22, SYN, b""), 64));
    assert_eq!(gate.remembered(), before);
}

#[derive(Default)]
struct Near(AtomicUsize);

impl Listener for Near {
    fn frames_wait(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn room_to_send(&self) {}
}

#[test]
fn a_cable_refuses() {
    let far = Far::new(Accepts::default(), 10);
    let config = CableConfig { rules: rules("deny=tcp:192.0.2.1 deny=*:53"), ..CableConfig::default() };
    let cable = Cable::new(config, far.clone()).unwrap();
    let near = Arc::new(Near::default());
    let listener: Arc<dyn Listener> = near.clone();
    cable.plug(Arc::downgrade(&listener));
    // A large segment of a connection that was never made, its checksum missing.
    let (from, to) = (address("10.0.2.15"), address("192.0.2.1"));
    let bytes = framed(from, to, TCP, &segment(4000, 80, ACK, &[1; 8000]), 64);
    let checksum = Checksum::Missing { start: 34, offset: 16 };
    let segmentation = Some(Segmentation { size: 1460, congestion: false });
    cable.send(Frame { bytes, offload: Offload { checksum, segmentation } }).unwrap();
    assert_eq!(near.0.load(Ordering::Relaxed), 1);
    cable.send(Frame::plain(sent("udp:192.0.2.1:53"))).unwrap();
    cable.send(Frame::plain(sent("udp:192.0.2.1:54"))).unwrap();
    assert_eq!(far.sent.lock().len(), 1, "what is not denied goes on");
    far.waiting.lock().push_back(Frame::plain(sent("udp:192.0.2.1:1")));
    let got: Vec<_> = std::iter::from_fn(|| cable.receive(Accepts::default())).collect();
    let protocols: Vec<_> = got.iter().map(|frame| frame.bytes[23]).collect();
    assert_eq!(protocols, [TCP, ICMP, UDP]);
    // Nobody hears of it when the cable was pulled.
    cable.send(Frame::plain(sent("tcp:192.0.2.1:80"))).unwrap();
    cable.set_up(false);
    assert_eq!(cable.receive(Accepts::default()), None);
    cable.set_up(true);
    assert_eq!(cable.receive(Accepts::default()), None);
}

#[test]
fn random_frames_get_nowhere() {
    let mut random = Random(0xf00d_4a7e);
    let gates = [gate("deny=*"), gate("deny=198.51.100.7 allow=tcp:192.0.2.0/24:80 allow=[2001:db8::/32]:53")];
    let samples = [
        sent("tcp:192.0.2.1:80"),
        sent("tcp:198.51.100.7:80"),
        sent("udp:[2001:db8::1]:53"),
        sent("icmp:2001:db8::1"),
        fragment("192.0.2.1", 0, &datagram(1, 80, b"begins")),
        fragment("2001:db8::1", 1480, &[3; 40]),
        fragment("2001:db8::1", 0, &datagram(1, 53, b"begins")),
        framed(address("fe80::9"), address("ff02::2"), ICMPV6, &[133, 0, 0, 0, 0, 0, 0, 0], 255),
    ];
    let mut passed = 0;
    for _ in 0..steps(1_000_000) {
        let mut frame = samples[random.below(samples.len() as u64) as usize].clone();
        for _ in 0..random.below(5) {
            let at = random.below(frame.len() as u64) as usize;
            frame[at] = random.next() as u8;
        }
        if random.below(8) == 0 {
            frame.truncate(random.below(frame.len() as u64 + 1) as usize);
        }
        gates[0].note(&frame);
        assert!(gates[0].remembered() <= 2 * ANSWERED);
        gates[0].judge(&frame);
        if gates[1].judge(&frame) == Judged::Pass {
            passed += 1;
            // Nothing goes to where all is denied, whatever it says.
            let layout = Layout::of(&frame).unwrap();
            let denied = layout.ethertype == ethertype::IPV4 && frame[30..34] == [198, 51, 100, 7];
            assert!(layout.network == HEADER && !denied, "{frame:02x?}");
        }
        if random.below(100) == 0 {
            assert!(gates.iter().all(|gate| std::iter::from_fn(|| gate.refusal()).count() <= REFUSALS));
        }
    }
    assert!(passed > 1000, "{passed}");
}
