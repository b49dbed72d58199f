//! Fragments, the guest's and those for it.

use std::time::Instant;

use super::*;
use crate::fragments::{Fragments, MOST, PATIENCE, PIECES};

/// A fragment of an IP packet: `data` is its part from `offset` on.
fn fragment(whole: &(u16, Vec<u8>), number: u8, offset: usize, data: &[u8], more: bool) -> Vec<u8> {
    let (kind, packet) = whole;
    if *kind == ethertype::IPV4 {
        let mut packet = packet[..20].to_vec();
        packet[2..4].copy_from_slice(&((20 + data.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&[0x77, number]);
        let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&place.to_be_bytes());
        packet[10..12].fill(0);
        let sum = lodge_net::checksum::finish(lodge_net::checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        [packet, data.to_vec()].concat()
    } else {
        let mut head = packet[..40].to_vec();
        head[4..6].copy_from_slice(&((8 + data.len()) as u16).to_be_bytes());
        let next = std::mem::replace(&mut head[6], 44);
        let place = offset as u16 | u16::from(more);
        let [high, low] = place.to_be_bytes();
        [&head[..], &[next, 0, high, low, 9, 9, 9, number], data].concat()
    }
}

/// All fragments of a packet.
fn fragments(whole: &(u16, Vec<u8>), number: u8, size: usize) -> Vec<Vec<u8>> {
    let data = &whole.1[if whole.0 == ethertype::IPV4 { 20 } else { 40 }..];
    let place = |(index, piece): (usize, &[u8])| {
        fragment(whole, number, index * size, piece, index * size + piece.len() < data.len())
    };
    data.chunks(size).enumerate().map(place).collect()
}

/// Waits for a packet of the network's that is too long for the link: what it carries.
#[track_caller]
fn expect_fragments(guest: &mut Guest, protocol: u8) -> Vec<u8> {
    let (mut whole, mut there, mut total) = (vec![0; 70_000], 0, None);
    guest.wire.expect("all fragments", |frame| {
        assert!(frame.len() <= 1514, "{}", frame.len());
        let (data, offset, more) = if frame[12..14] == [8, 0] {
            assert_eq!(frame[23], protocol);
            let place = u16::from_be_bytes([frame[20], frame[21]]);
            (&frame[34..], usize::from(place & 0x1fff) * 8, place & 0x2000 != 0)
        } else if frame[12..14] == [0x86, 0xdd] && frame[20] == 44 {
            assert_eq!(frame[54], protocol);
            let place = u16::from_be_bytes([frame[56], frame[57]]);
            (&frame[62..], usize::from(place & 0xfff8), place & 1 != 0)
        } else {
            return None;
        };
        whole[offset..offset + data.len()].copy_from_slice(data);
        there += data.len();
        if !more {
            total = Some(offset + data.len());
        }
        (total == Some(there)).then_some(())
    });
    whole.truncate(there);
    whole
}

fn datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    [&[from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat(), data].concat()
}

#[test]
fn long_datagrams_go_both_ways() {
    for (address, us, router) in
        [("127.0.0.1:0", IpAddr::from(ADDRESS), IpAddr::from(GATEWAY)), ("[::1]:0", ADDRESS_6.into(), GATEWAY_6.into())]
    {
        let server = UdpSocket::bind(address).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = server.local_addr().unwrap().port();
        let mut guest = local();
        for (number, length) in [(0, 1473), (1, 4000), (2, 65_000)] {
            let text = pattern(length);
            let whole = ip_packet(us, router, UDP, &datagram(7000, port, &text), 64);
            let mut pieces = fragments(&whole, number, 1440);
            // In which order they come is the network's matter, and one may come twice.
            pieces.reverse();
            pieces.insert(1, pieces[0].clone());
            pieces.iter().for_each(|piece| guest.wire.send(whole.0, piece));
            let mut buffer = vec![0; 70_000];
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            assert!(buffer[..count] == text, "{count} of {length} bytes");
            server.send_to(&text, from).unwrap();
            assert!(expect_fragments(&mut guest, UDP)[8..] == text);
        }
    }
}

#[test]
fn long_pings_are_answered() {
    let mut guest = plain();
    for (us, router, protocol, kind, reply) in [
        (IpAddr::from(ADDRESS), IpAddr::from(GATEWAY), ICMP, 8, 0),
        (ADDRESS_6.into(), GATEWAY_6.into(), ICMPV6, 128, 129),
    ] {
        let request = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], &pattern(4000)].concat();
        let whole = ip_packet(us, router, protocol, &request, 64);
        fragments(&whole, 5, 1448).iter().for_each(|piece| guest.wire.send(whole.0, piece));
        let answer = expect_fragments(&mut guest, protocol);
        assert_eq!(answer[0], reply);
        assert!(answer[4..] == request[4..]);
    }
}

#[test]
fn fragments_that_contradict_each_other_come_to_nothing() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let port = server.local_addr().unwrap().port();
    let guest = local();
    let whole = ip_packet(ADDRESS.into(), GATEWAY.into(), UDP, &datagram(7000, port, &pattern(400)), 64);
    let good = |number| fragments(&whole, number, 136);
    let spoilers: [&dyn Fn(u8) -> Vec<u8>; 5] = [
        // It overlaps, from one side and the other; the same place with other bytes; beyond the end; another end.
        &|number| fragment(&whole, number, 128, &[1; 136], true),
        &|number| fragment(&whole, number, 8, &[1; 8], true),
        &|number| fragment(&whole, number, 136, &[1; 136], true),
        &|number| fragment(&whole, number, 1360, &[1; 136], true),
        &|number| fragment(&whole, number, 272, &[1; 8], false),
    ];
    for (number, spoiler) in (0..).zip(spoilers) {
        // Before the last is there, or all would be.
        let [first, second, third] = &good(number)[..] else { panic!("three fragments") };
        for piece in [first, third, &spoiler(number), second, first, third] {
            // With 136 bytes each, only the spoilers of the second's place do not meet what is there.
            guest.wire.send(whole.0, piece);
        }
        let got = server.recv(&mut [0; 1000]);
        assert!(got.is_err() || number == 2, "{number}: {got:?}");
    }
    // And of each by itself nothing is left that would spoil others.
    good(77).iter().for_each(|piece| guest.wire.send(whole.0, piece));
    assert_eq!(server.recv(&mut [0; 1000]).unwrap(), 400);
    // Those that can't be: empty, of odd length, longer than a packet may be.
    for piece in [
        fragment(&whole, 90, 0, &[], true),
        fragment(&whole, 91, 0, &[1; 9], true),
        fragment(&whole, 92, 65_528, &[1; 100], false),
    ] {
        guest.wire.send(whole.0, &piece);
    }
}

/// A frame with a fragment.
fn framed(whole: &(u16, Vec<u8>), piece: &[u8]) -> Vec<u8> {
    [&crate::config::MAC.0[..], &CARD.0, &whole.0.to_be_bytes(), piece].concat()
}

#[test]
fn fragments_that_wait_are_bounded() {
    for (us, router) in [(IpAddr::from(ADDRESS), IpAddr::from(GATEWAY)), (ADDRESS_6.into(), GATEWAY_6.into())] {
        let whole = ip_packet(us, router, UDP, &datagram(7000, 9, &[]), 64);
        let mut fragments = Fragments::default();
        let mut take = |piece: &[u8]| {
            let frame = framed(&whole, piece);
            fragments.take(&frame, 14, frame.len())
        };
        for number in 0..200 {
            for index in 1..2 * PIECES {
                assert_eq!(take(&fragment(&whole, number, index * 8, &[1; 8], true)), Some(None));
            }
        }
        let (packets, bytes) = fragments.load();
        assert!(packets <= MOST && bytes <= MOST * PIECES * 8, "{packets}, {bytes}");
        for number in 0..200 {
            for index in 1..44 {
                let frame = framed(&whole, &fragment(&whole, number, index * 1448, &[1; 1448], true));
                assert_eq!(fragments.take(&frame, 14, frame.len()), Some(None));
            }
        }
        let (packets, bytes) = fragments.load();
        assert!(packets <= MOST && bytes <= MOST * 65_535, "{packets}, {bytes}");
        assert!(fragments.deadline().is_some_and(|at| at <= Instant::now() + PATIENCE));
        fragments.forget_old(Instant::now() + PATIENCE);
        assert_eq!((fragments.load(), fragments.deadline()), ((0, 0), None));
        // All of a packet in one (RFC 6946), and what is none.
        for packet in [fragment(&whole, 1, 0, &[1; 16], false), whole.1.clone()] {
            let frame = framed(&whole, &packet);
            assert_eq!(fragments.take(&frame, 14, frame.len()), None);
        }
    }
}
