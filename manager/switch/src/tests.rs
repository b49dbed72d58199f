use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lodge_net::switch::protocol::{Hello, Refusal};
use lodge_net::switch::{Place, SwitchError, SwitchLink};
use lodge_net::{Accepts, Cable, CableConfig, Frame, Listener, MacAddress};
use lodge_trial::{Random, steps, wait_for};

use crate::{Core, Ended, Fault, Verdict, serve};

const ALL: MacAddress = MacAddress::BROADCAST;

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

fn hello(number: u8) -> Hello {
    Hello { mac: mac(number), spoof: false, nat: false }
}

fn frame(to: MacAddress, from: MacAddress, kind: u16, packet: &[u8]) -> Frame {
    Frame::plain([&to.0[..], &from.0, &kind.to_be_bytes(), packet].concat())
}

/// A frame of no protocol that a switch looks into.
fn plain(to: MacAddress, from: MacAddress) -> Frame {
    frame(to, from, 0x88b5, &[7; 50])
}

fn arp(from: MacAddress, says: MacAddress, address: [u8; 4], asks: [u8; 4]) -> Frame {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &says.0, &address, &[0; 6], &asks].concat();
    frame(ALL, from, 0x0806, &packet)
}

fn ipv4(from: MacAddress, address: [u8; 4]) -> Frame {
    let head = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    frame(ALL, from, 0x0800, &[&head[..], &address, &[255; 4], &[0, 9, 0, 9, 0, 8, 0, 0]].concat())
}

fn ipv6(from: MacAddress, address: [u8; 16], kind: u8, body: &[u8]) -> Frame {
    let head = [&[0x60, 0, 0, 0, 0, body.len() as u8, kind, 255][..], &address, &[0xff; 16]].concat();
    frame(ALL, from, 0x86dd, &[&head[..], body].concat())
}

fn fault(verdict: Verdict) -> Option<Fault> {
    match verdict {
        Verdict::Drop { fault, .. } => Some(fault),
        _ => None,
    }
}

#[test]
fn frames_go_to_whom_they_are_for() {
    let (mut core, now) = (Core::default(), Instant::now());
    let [a, b, c] = [1, 2, 3].map(|number| core.join(hello(number)).unwrap());
    assert_eq!(core.frame(a, &plain(mac(2), mac(1)), now), Verdict::To(b));
    assert_eq!(core.frame(a, &plain(mac(1), mac(1)), now), Verdict::Nowhere, "to itself");
    assert_eq!(core.frame(b, &plain(ALL, mac(2)), now), Verdict::All(vec![a, c]));
    assert_eq!(core.frame(b, &plain(mac(9), mac(2)), now), Verdict::All(vec![a, c]), "nobody knows where that is");
    let bridges = MacAddress([1, 0x80, 0xc2, 0, 0, 0]);
    assert_eq!(core.frame(b, &plain(bridges, mac(2)), now), Verdict::Nowhere);
    core.leave(b);
    assert_eq!(core.frame(a, &plain(mac(2), mac(1)), now), Verdict::All(vec![c]));
    assert_eq!(core.join(hello(3)), Err(Refusal::MacTaken));
    assert_eq!(core.join(Hello { nat: true, ..hello(4) }), Err(Refusal::NatDiffers));
    let b = core.join(hello(2)).unwrap();
    assert_eq!(core.frame(a, &plain(mac(2), mac(1)), now), Verdict::To(b));
    for number in 4..=128 {
        core.join(hello(number)).unwrap();
    }
    assert_eq!(core.join(hello(200)), Err(Refusal::Full));
}

#[test]
fn other_cards_addresses_are_learned_of_those_who_may_use_them() {
    let (mut core, now) = (Core::default(), Instant::now());
    let bridge = core.join(Hello { spoof: true, ..hello(1) }).unwrap();
    let b = core.join(hello(2)).unwrap();
    let other = core.join(Hello { spoof: true, ..hello(3) }).unwrap();
    assert_eq!(core.frame(bridge, &plain(mac(2), mac(50)), now), Verdict::To(b));
    assert_eq!(core.frame(b, &plain(mac(50), mac(2)), now), Verdict::To(bridge));
    assert_eq!(fault(core.frame(other, &plain(ALL, mac(50)), now)), Some(Fault::Card), "it is behind another");
    assert_eq!(fault(core.frame(bridge, &plain(ALL, mac(2)), now)), Some(Fault::Card), "it is another's own");
    let later = now + Duration::from_secs(301);
    assert_eq!(core.frame(b, &plain(mac(50), mac(2)), later), Verdict::All(vec![bridge, other]), "it is forgotten");
    assert_eq!(core.frame(other, &plain(mac(2), mac(50)), later), Verdict::To(b));
    assert_eq!(core.frame(b, &plain(mac(50), mac(2)), later), Verdict::To(other), "it has moved");
    // The table is bounded: what is beyond goes to all, until there is room again.
    let number = |at: u16| MacAddress([2, 1, 0, 0, (at >> 8) as u8, at as u8]);
    for at in 0..1000 {
        assert_eq!(fault(core.frame(bridge, &plain(ALL, number(at)), later)), None);
    }
    assert_eq!(core.frame(b, &plain(number(100), mac(2)), later), Verdict::To(bridge));
    assert_eq!(core.frame(b, &plain(number(900), mac(2)), later), Verdict::All(vec![bridge, other]));
    let latest = later + Duration::from_secs(301);
    core.frame(bridge, &plain(ALL, number(900)), latest);
    assert_eq!(core.frame(b, &plain(number(900), mac(2)), latest), Verdict::To(bridge));
    // Who comes with an address that was learned has it.
    let owner = core.join(Hello { mac: number(900), ..hello(0) }).unwrap();
    assert_eq!(core.frame(b, &plain(number(900), mac(2)), latest), Verdict::To(owner));
}

#[test]
fn nobody_is_somebody_else() {
    let (mut core, now) = (Core::default(), Instant::now());
    let [a, b] = [1, 2].map(|number| core.join(hello(number)).unwrap());
    let (own, others) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    assert_eq!(core.frame(a, &plain(ALL, mac(2)), now), Verdict::Drop { fault: Fault::Card, first: true });
    assert_eq!(core.frame(a, &plain(ALL, mac(2)), now), Verdict::Drop { fault: Fault::Card, first: false });
    assert_eq!((core.faults(a, Fault::Card), core.faults(b, Fault::Card)), (2, 0));
    assert_eq!(fault(core.frame(a, &arp(mac(1), mac(2), own, others), now)), Some(Fault::Card));
    assert_eq!(fault(core.frame(a, &arp(mac(1), mac(1), own, others), now)), None);
    assert_eq!(fault(core.frame(b, &ipv4(mac(2), others), now)), None);
    assert_eq!(fault(core.frame(a, &arp(mac(1), mac(1), others, own), now)), Some(Fault::Address));
    assert_eq!(fault(core.frame(b, &ipv4(mac(2), own), now)), Some(Fault::Address));
    // A probe, and DHCP, before there is an address.
    assert_eq!(fault(core.frame(a, &arp(mac(1), mac(1), [0; 4], others), now)), None);
    assert_eq!(fault(core.frame(a, &ipv4(mac(1), [0; 4]), now)), None);
    assert_eq!(fault(core.frame(a, &ipv4(mac(1), [224, 0, 0, 1]), now)), Some(Fault::Senseless));
    // Neighbours: what is advertised belongs to who advertises it.
    let address = |last: u8| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let advertise = |last: u8| [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address(last)].concat();
    assert_eq!(fault(core.frame(b, &ipv6(mac(2), address(2), 58, &advertise(2)), now)), None);
    assert_eq!(fault(core.frame(a, &ipv6(mac(1), address(1), 58, &advertise(2)), now)), Some(Fault::Address));
    assert_eq!(fault(core.frame(a, &ipv6(mac(1), address(2), 59, &[]), now)), Some(Fault::Address));
    // Behind tags, too; and not behind more than are looked at.
    let mut tagged = ipv4(mac(1), others);
    tagged.bytes.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(fault(core.frame(a, &tagged, now)), Some(Fault::Address));
    tagged.bytes.splice(12..12, [0x81, 0, 0, 5, 0x81, 0, 0, 5]);
    assert_eq!(fault(core.frame(a, &tagged, now)), Some(Fault::Senseless));
    core.leave(b);
    assert_eq!(fault(core.frame(a, &ipv4(mac(1), others), now)), None, "its owner has gone");
    // Many addresses: the oldest is anybody's again.
    let b = core.join(hello(2)).unwrap();
    for last in 0..64 {
        assert_eq!(fault(core.frame(a, &ipv4(mac(1), [10, 1, 0, last]), now)), None);
    }
    assert_eq!(fault(core.frame(b, &ipv4(mac(2), own), now)), None);
    assert_eq!(fault(core.frame(b, &ipv4(mac(2), [10, 1, 0, 63]), now)), Some(Fault::Address));
}

#[test]
fn the_way_out_is_trusted_and_nobody_else_is_it() {
    let (mut core, now) = (Core::default(), Instant::now());
    let router: IpAddr = [10, 0, 2, 2].into();
    let out = core.lead_out(mac(99), &[router]);
    let a = core.join(Hello { nat: true, ..hello(1) }).unwrap();
    assert_eq!(core.join(Hello { nat: true, ..hello(99) }), Err(Refusal::MacTaken));
    assert_eq!(core.machines(), 1);
    assert_eq!(fault(core.frame(a, &ipv4(mac(1), [10, 0, 2, 2]), now)), Some(Fault::Address));
    assert_eq!(fault(core.frame(a, &ipv4(mac(1), [1, 1, 1, 1]), now)), Some(Fault::Address));
    assert_eq!(fault(core.frame(out, &ipv4(mac(99), [1, 1, 1, 1]), now)), None);
    let mut server = ipv4(mac(1), [10, 0, 2, 15]);
    server.bytes[35] = 67;
    assert_eq!(fault(core.frame(a, &server, now)), Some(Fault::Server));
    let mut server = ipv4(mac(99), [10, 0, 2, 2]);
    server.bytes[35] = 67;
    assert_eq!(fault(core.frame(out, &server, now)), None);
    core.leave(a);
    core.leave(out);
    assert!(core.join(hello(99)).is_ok(), "another switch, without a way out");
}

#[test]
fn random_frames_do_no_harm() {
    let (mut random, mut core, now) = (Random(0x51_7c4), Core::default(), Instant::now());
    let [a, b] = [1, 2].map(|number| core.join(Hello { spoof: number == 2, ..hello(number) }).unwrap());
    for _ in 0..steps(300_000) {
        let from = mac(1 + random.below(2) as u8);
        let mut frame = match random.below(3) {
            0 => arp(from, from, [10, 0, 0, random.next() as u8], [0; 4]),
            1 => ipv4(from, [10, 0, 0, random.next() as u8]),
            _ => ipv6(from, [random.next() as u8; 16], random.pick(&[0, 17, 43, 44, 58]), &[136; 32]),
        };
        for _ in 0..random.below(4) {
            let at = random.below(frame.bytes.len() as u64) as usize;
            frame.bytes[at] = random.next() as u8;
        }
        frame.bytes.truncate(random.below(frame.bytes.len() as u64 * 2) as usize);
        let port = random.pick(&[a, b]);
        if let Verdict::To(to) = core.frame(port, &frame, now) {
            assert!(to != port);
        }
    }
}

#[derive(Default)]
struct Near {
    waits: AtomicUsize,
    room: AtomicUsize,
}

impl Listener for Near {
    fn frames_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn room_to_send(&self) {
        self.room.fetch_add(1, Ordering::Relaxed);
    }
}

/// A machine's card.
struct Card {
    cable: Arc<Cable>,
    near: Arc<Near>,
}

impl Card {
    fn join(place: &Place, hello: Hello) -> Result<Self, SwitchError> {
        let start = || {
            let place = place.clone();
            std::thread::spawn(move || serve(&place, Duration::from_millis(300)).unwrap());
            Ok(())
        };
        let link = SwitchLink::join(place, hello, start)?;
        let cable = Cable::new(CableConfig { mac: Some(hello.mac), ..CableConfig::default() }, link)?;
        let near = Arc::new(Near::default());
        let listener: Weak<dyn Listener> = Arc::downgrade(&(near.clone() as Arc<dyn Listener>));
        cable.plug(listener);
        Ok(Self { cable, near })
    }

    /// The next frame, whenever it comes.
    fn next(&self) -> Frame {
        loop {
            let seen = self.near.waits.load(Ordering::Relaxed);
            if let Some(frame) = self.cable.receive(Accepts::ALL) {
                return frame;
            }
            wait_for("a frame", || self.near.waits.load(Ordering::Relaxed) != seen);
        }
    }
}

/// A frame with a number.
fn numbered(to: u8, from: u8, number: u32) -> Frame {
    frame(mac(to), mac(from), 0x88b5, &[&number.to_be_bytes()[..], &[0; 3000]].concat())
}

fn place() -> (tempfile::TempDir, Place) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::within(&folder.path().join("lodge"), "lab").unwrap();
    (folder, place)
}

#[test]
fn two_machines_reach_each_other_and_nobody_else() {
    let (_folder, place) = place();
    let [a, b, c] = [1, 2, 3].map(|number| Card::join(&place, hello(number)).unwrap());
    assert_eq!(serve(&place, Duration::ZERO).unwrap(), Ended::Elsewhere);
    let taken = Card::join(&place, hello(2)).err().unwrap();
    assert!(matches!(&taken, SwitchError::Refused { refusal: Refusal::MacTaken, .. }), "{taken}");
    assert!(taken.remedy().contains("mac=ADDRESS"), "{}", taken.remedy());
    a.cable.send(plain(ALL, mac(1))).unwrap();
    assert_eq!((b.next(), c.next()), (plain(ALL, mac(1)), plain(ALL, mac(1))));
    b.cable.send(plain(mac(1), mac(2))).unwrap();
    assert_eq!(a.next(), plain(mac(1), mac(2)));
    // A spoofed frame is lost, and what follows it is not.
    a.cable.send(plain(mac(2), mac(3))).unwrap();
    a.cable.send(numbered(2, 1, 5)).unwrap();
    assert_eq!(b.next(), numbered(2, 1, 5));
    assert_eq!(c.cable.receive(Accepts::ALL), None);
    // One that has gone makes room for another.
    drop(b);
    wait_for("the address", || Card::join(&place, hello(2)).is_ok());
}

#[test]
fn who_is_slow_slows_those_who_send() {
    let (_folder, place) = place();
    let [a, b, c] = [1, 2, 3].map(|number| Card::join(&place, hello(number)).unwrap());
    // Until there is no room, in less time than a machine is waited for; then all that was taken comes, in order.
    let mut sent = 0;
    while a.cable.send(numbered(2, 1, sent)).is_ok() {
        sent += 1;
        assert!(sent < 10_000);
    }
    assert!(sent > 50, "{sent}");
    for number in 0..sent {
        assert_eq!(b.next(), numbered(2, 1, number));
    }
    wait_for("room", || a.near.room.load(Ordering::Relaxed) > 0);
    // One that never takes anything does not keep others from what is for them.
    let mut sent = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        if a.cable.send(numbered(2, 1, sent)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        sent += 1;
    }
    wait_for("room", || a.cable.send(numbered(3, 1, 77)).is_ok());
    assert_eq!(c.next(), numbered(3, 1, 77));
    // And comes back.
    while b.cable.receive(Accepts::ALL).is_some() {}
    a.cable.send(numbered(2, 1, u32::MAX)).unwrap();
    wait_for("the last", || b.next() == numbered(2, 1, u32::MAX));
}

#[test]
fn a_switch_ends_when_its_machines_have_gone_and_comes_back() {
    let (_folder, place) = place();
    for _ in 0..2 {
        let card = Card::join(&place, hello(1)).unwrap();
        assert!(place.socket().exists());
        drop(card);
        wait_for("its end", || !place.socket().exists());
    }
}

#[test]
fn the_way_out_answers() {
    let (_folder, place) = place();
    let a = Card::join(&place, Hello { nat: true, ..hello(1) }).unwrap();
    let differs = Card::join(&place, hello(2)).err().unwrap();
    assert!(matches!(differs, SwitchError::Refused { refusal: Refusal::NatDiffers, .. }), "{differs}");
    let b = Card::join(&place, Hello { nat: true, ..hello(2) }).unwrap();
    for (card, number) in [(&a, 1), (&b, 2)] {
        card.cable.send(arp(mac(number), mac(number), [0; 4], [10, 0, 2, 2])).unwrap();
        let answer = loop {
            let frame = card.next();
            if frame.bytes[20..22] == [0, 2] {
                break frame;
            }
        };
        assert_eq!(answer.bytes[..6], mac(number).0);
        assert_eq!(answer.bytes[28..32], [10, 0, 2, 2]);
    }
}
