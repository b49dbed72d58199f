use std::sync::Arc;

use lodge_net::vnet::*;
use lodge_net::{Accepts, Cable, CableConfig, Checksum, Far, Frame, MacAddress, Offload, Segmentation, checksum};

use super::registers::{feature as net, *};
use super::*;
use crate::device::feature;
use crate::testing::{DATA, Driver, wait_for};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
const RX: u16 = 0;
const TX: u16 = 1;
const CONTROL: u16 = 2;
/// Where the tests have buffers for frames that are received.
const BUFFERS: u64 = DATA + 0x10_0000;

struct Setup {
    far: Arc<Far>,
    cable: Arc<Cable>,
    driver: Driver,
}

fn card(pairs: u16) -> Setup {
    let far = Far::new(Accepts::ALL, usize::MAX);
    let config = CableConfig { name: "net0".into(), mac: Some(MAC), ..CableConfig::default() };
    let cable = Cable::new(config, far.clone()).unwrap();
    let driver = Driver::new(Net::new(NetConfig { pairs }, cable.clone()));
    Setup { far, cable, driver }
}

/// A frame to the card with `data` behind an IPv4 header and ports.
fn frame(destination: [u8; 6], port: u16, data: &[u8]) -> Frame {
    let mut bytes = destination.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    bytes.extend(((28 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 53]);
    bytes.extend(((8 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    Frame::plain(bytes)
}

/// A TCP segment over IPv4 with a missing checksum, to be cut.
fn large(data: &[u8], size: u16) -> Frame {
    let mut bytes = frame(MAC.0, 80, &[]).bytes;
    bytes.truncate(34);
    bytes[23] = 6;
    bytes[16..18].copy_from_slice(&((40 + data.len()) as u16).to_be_bytes());
    let pseudo = checksum::pseudo_header(&bytes[26..30], &bytes[30..34], 6, 20 + data.len());
    bytes.extend([0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0]);
    bytes.extend(checksum::fold(pseudo).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    let checksum = Checksum::Missing { start: 34, offset: 16 };
    Frame { bytes, offload: Offload { checksum, segmentation: Some(Segmentation { size, congestion: false }) } }
}

impl Setup {
    /// Sends a frame with this header, in two buffers, and waits until the device has taken it.
    fn send(&self, header: [u8; HEADER], bytes: &[u8]) {
        self.offer_to_send(0, header, bytes);
        assert_eq!(self.driver.complete(TX), (0, 0));
    }

    fn offer_to_send(&self, first: u16, header: [u8; HEADER], bytes: &[u8]) {
        let at = DATA + u64::from(first) * 0x1_0000;
        self.driver.put(at, &header);
        self.driver.put(at + 0x100, bytes);
        self.driver.submit(TX, first, &[(at, HEADER as u32, false), (at + 0x100, bytes.len() as u32, false)]);
    }

    /// Offers buffer `number` of so many bytes for what is received.
    fn offer_buffer(&self, number: u16, length: u32) {
        self.driver.submit(RX, number, &[(BUFFERS + u64::from(number) * 0x4000, length, true)]);
    }

    /// What is in the buffer that was filled next: header and bytes.
    fn received(&self) -> ([u8; HEADER], Vec<u8>) {
        let (head, length) = self.driver.complete(RX);
        let all = self.driver.get(BUFFERS + u64::from(head) * 0x4000, length as usize);
        let (header, bytes) = all.split_first_chunk().unwrap();
        (*header, bytes.to_vec())
    }

    /// A command, and whether it was carried out.
    fn command(&self, queue: u16, (class, command): (u8, u8), data: &[u8]) -> bool {
        self.driver.put(DATA, &[class, command]);
        self.driver.put(DATA + 0x100, data);
        self.driver.put(DATA + 0x8000, &[0xee]);
        let parts = [(DATA, 2, false), (DATA + 0x100, data.len() as u32, false), (DATA + 0x8000, 1, true)];
        self.driver.submit(queue, 0, &parts);
        assert_eq!(self.driver.complete(queue), (0, 1));
        match self.driver.get(DATA + 0x8000, 1)[0] {
            OK => true,
            ERR => false,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_it_says_of_itself() {
    let setup = card(4);
    let driver = &setup.driver;
    let offered = driver.offered();
    for wanted in [net::MAC, net::STATUS, net::MQ, net::MRG_RXBUF, net::HOST_TSO6, net::GUEST_TSO4, net::CTRL_VQ] {
        assert!(offered & wanted != 0, "{wanted:#x}");
    }
    assert_eq!(card(1).driver.offered() & net::MQ, 0, "one pair is not several");
    assert_eq!(driver.config(0, 8).to_le_bytes(), [2, 0, 0, 0, 0, 7, 1, 0], "the address, and a link");
    assert_eq!((driver.config(8, 2), driver.config(10, 2), driver.config(12, 4)), (4, 1500, 0));
}

#[test]
fn frames_are_sent_as_they_are() {
    let setup = card(1);
    setup.driver.start(net::MRG_RXBUF);
    let plain = frame([0xff; 6], 1, b"hello");
    setup.send([0; HEADER], &plain.bytes);
    assert_eq!(*setup.far.sent.lock(), [plain]);

    let whole = large(&[7; 4000], 1000);
    let mut header = [0; HEADER];
    header[..10].copy_from_slice(&[NEEDS_CSUM, GSO_TCPV4, 54, 0, 0xe8, 3, 34, 0, 16, 0]);
    setup.send(header, &whole.bytes);
    assert_eq!(setup.far.sent.lock()[1], whole);
    header[1] |= GSO_ECN;
    setup.send(header, &whole.bytes);
    assert!(setup.far.sent.lock()[2].offload.segmentation.unwrap().congestion);

    // What makes no sense is taken and lost: another kind of segment, a checksum outside, no frame at all.
    let (mut datagrams, mut outside) = (header, header);
    datagrams[1] = 3;
    (outside[1], outside[6], outside[7]) = (GSO_NONE, 0xff, 0xff);
    setup.send(datagrams, &whole.bytes);
    setup.send(outside, &whole.bytes);
    setup.send([0; HEADER], &[1, 2, 3]);
    assert_eq!(setup.far.sent.lock().len(), 3);
    // Without room for a header there is no way to go on.
    setup.driver.submit(TX, 0, &[(DATA, 11, false)]);
    wait_for("the device to break", || setup.driver.status() & 0x40 != 0);
}

#[test]
fn a_driver_never_sees_a_part_of_a_frame() {
    const PIECES: u16 = 4;
    const FRAMES: u16 = 2000;
    let setup = card(1);
    setup.driver.start(net::GUEST_CSUM | net::GUEST_TSO4 | net::MRG_RXBUF);
    let whole = large(&[7; 7000], 1460);
    std::thread::scope(|scope| {
        // As a driver that polls on a processor of its own.
        let seen = scope.spawn(|| {
            let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let mut odd = 0;
            while setup.driver.used_index(RX) != FRAMES * PIECES && std::time::Instant::now() < until {
                odd += u32::from(!setup.driver.used_index(RX).is_multiple_of(PIECES));
            }
            odd
        });
        for number in 1..=FRAMES {
            (0..PIECES).for_each(|number| setup.offer_buffer(number, 2048));
            setup.far.bring([whole.clone()]);
            wait_for("the frame", || setup.driver.used_index(RX) == number * PIECES);
        }
        assert_eq!(seen.join().unwrap(), 0);
    });
}

#[test]
fn a_driver_hears_of_frames_in_several_buffers_as_often_as_it_wants() {
    let setup = card(1);
    setup.driver.start(net::GUEST_CSUM | net::GUEST_TSO4 | net::MRG_RXBUF | feature::EVENT_IDX);
    // It wants to hear of the second of four.
    setup.driver.wants_to_hear_of(RX, 1);
    (0..4).for_each(|number| setup.offer_buffer(number, 2048));
    setup.far.bring([large(&[7; 7000], 1460)]);
    wait_for("an interrupt", || *setup.driver.wire.0.lock());
    assert_eq!(setup.driver.isr(), 1);
    // And not of what comes after, until it says so.
    (0..4).for_each(|number| setup.offer_buffer(number, 2048));
    setup.far.bring([large(&[7; 7000], 1460)]);
    wait_for("the frame", || setup.driver.used_index(RX) == 8);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!*setup.driver.wire.0.lock());
}

#[test]
fn a_full_network_holds_requests_up() {
    let setup = card(1);
    setup.driver.start(0);
    setup.far.room.store(2, Ordering::Relaxed);
    let frames: Vec<_> = (0..5).map(|port| frame([0xff; 6], port, b"data")).collect();
    for (index, frame) in frames.iter().enumerate() {
        setup.offer_to_send(index as u16 * 2, [0; HEADER], &frame.bytes);
    }
    // One more is in the cable.
    wait_for("three frames", || setup.driver.used_index(TX) == 3);
    assert_eq!(setup.far.sent.lock().len(), 2);
    setup.far.room.store(10, Ordering::Relaxed);
    setup.far.listener().room_to_send();
    wait_for("the others", || setup.driver.used_index(TX) == 5);
    assert_eq!(*setup.far.sent.lock(), frames, "in order, each once");
}

#[test]
fn frames_are_received_in_one_buffer() {
    let setup = card(1);
    setup.driver.start(net::GUEST_CSUM | net::GUEST_TSO4);
    setup.offer_buffer(0, 2000);
    setup.offer_buffer(1, 2000);
    let plain = frame(MAC.0, 1, b"hello");
    setup.far.bring([plain.clone()]);
    let mut one = [0; HEADER];
    one[10] = 1;
    assert_eq!(setup.received(), (one, plain.bytes.clone()));
    let good = Frame { offload: Offload { checksum: Checksum::Good, segmentation: None }, ..plain.clone() };
    setup.far.bring([good]);
    one[0] = DATA_VALID;
    assert_eq!(setup.received(), (one, plain.bytes));

    // Without buffers they wait, and one that is too small loses its frame.
    let (first, second) = (large(&[5; 8000], 1460), frame(MAC.0, 2, b"next"));
    setup.far.bring([first.clone(), first.clone(), second.clone()]);
    setup.offer_buffer(2, 9000);
    let (header, bytes) = setup.received();
    assert_eq!(header, [NEEDS_CSUM, GSO_TCPV4, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0]);
    assert!(bytes == first.bytes);
    setup.offer_buffer(3, 2000);
    assert_eq!(setup.received().1, second.bytes);
}

#[test]
fn frames_are_received_in_several_buffers() {
    let setup = card(1);
    setup.driver.start(net::GUEST_CSUM | net::GUEST_TSO4 | net::MRG_RXBUF | feature::EVENT_IDX);
    for number in 0..3 {
        setup.offer_buffer(number, 2048);
    }
    let whole = large(&std::array::from_fn::<u8, 8000, _>(|at| at as u8), 1460);
    setup.far.bring([whole.clone()]);
    // There are too few, and the driver is asked to tell of more.
    wait_for("a wish for a fourth", || {
        let ring = u16::from_le_bytes(setup.driver.get(0x1000 + 0x2000 + 4 + 8 * 16, 2).try_into().unwrap());
        ring == 3
    });
    assert_eq!(setup.driver.used_index(RX), 0);
    setup.offer_buffer(3, 2048);
    let (header, mut bytes) = setup.received();
    assert_eq!(header[10..], [4, 0]);
    for number in 1..4 {
        let (head, length) = setup.driver.complete(RX);
        assert_eq!(head, number);
        bytes.extend(setup.driver.get(BUFFERS + u64::from(number) * 0x4000, length as usize));
    }
    assert!(bytes == whole.bytes);
}

#[test]
fn a_driver_gets_what_it_can_take() {
    let setup = card(1);
    let control = net::CTRL_VQ | net::CTRL_GUEST_OFFLOADS;
    setup.driver.start(net::GUEST_CSUM | net::GUEST_TSO4 | net::MRG_RXBUF | control);
    for number in 0..8 {
        setup.offer_buffer(number, 8192);
    }
    let whole = large(&[3; 3000], 1000);
    setup.far.bring([whole.clone()]);
    assert!(setup.received().1 == whole.bytes);
    assert!(!setup.command(CONTROL, command::GUEST_OFFLOADS, &(1u64 << 10).to_le_bytes()), "it has no such thing");
    assert!(!setup.command(CONTROL, command::GUEST_OFFLOADS, &net::GUEST_TSO6.to_le_bytes()), "it did not say so");
    assert!(setup.command(CONTROL, command::GUEST_OFFLOADS, &0u64.to_le_bytes()));
    setup.far.bring([whole.clone()]);
    let parts: Vec<_> = (0..3).map(|_| setup.received()).collect();
    assert!(parts.iter().all(|(header, bytes)| header[..2] == [0, 0] && bytes.len() == 1054), "{:?}", parts[0].0);
}

#[test]
fn filters() {
    let setup = card(1);
    setup.driver.start(net::CTRL_VQ | net::CTRL_RX | net::CTRL_RX_EXTRA | net::CTRL_MAC_ADDR);
    for number in 0..16 {
        setup.offer_buffer(number, 2048);
    }
    let other = [2, 0, 0, 0, 0, 9];
    let (group, another) = ([1, 0, 0x5e, 0, 0, 1], [1, 0, 0x5e, 0, 0, 2]);
    let got = |frames: &[[u8; 6]]| {
        setup.far.bring(frames.iter().map(|to| frame(*to, 1, b"data")));
        // A frame that passes every filter comes behind them.
        setup.far.bring([frame([0xff; 6], 2, b"end")]);
        let mut all = Vec::new();
        loop {
            let (head, length) = setup.driver.complete(RX);
            let bytes = setup.driver.get(BUFFERS + u64::from(head) * 0x4000, length as usize)[HEADER..].to_vec();
            setup.offer_buffer(head as u16, 2048);
            if bytes.ends_with(b"end") {
                return all;
            }
            all.push(*bytes.first_chunk::<6>().unwrap());
        }
    };
    let all = [MAC.0, other, group, another];
    assert_eq!(got(&all), all, "who asks for nothing gets everything");
    assert!(setup.command(CONTROL, command::PROMISCUOUS, &[0]));
    assert_eq!(got(&all), [MAC.0]);
    let table = [&1u32.to_le_bytes()[..], &other, &1u32.to_le_bytes(), &group].concat();
    assert!(setup.command(CONTROL, command::MAC_TABLE, &table));
    assert_eq!(got(&all), [MAC.0, other, group]);
    assert!(setup.command(CONTROL, command::ALL_MULTICAST, &[1]));
    assert_eq!(got(&all), all);
    assert!(setup.command(CONTROL, command::NO_UNICAST, &[1]));
    assert_eq!(got(&all), [group, another]);
    assert!(setup.command(CONTROL, command::NO_UNICAST, &[0]));
    assert!(setup.command(CONTROL, command::NO_MULTICAST, &[1]));
    assert!(setup.command(CONTROL, command::MAC_TABLE, &[0; 8]));
    assert!(setup.command(CONTROL, command::MAC_ADDRESS, &[2, 0, 0, 0, 0, 5]));
    assert_eq!(got(&[MAC.0, [2, 0, 0, 0, 0, 5], group]), [[2, 0, 0, 0, 0, 5]]);
    assert!(setup.command(CONTROL, command::ALL_UNICAST, &[1]));
    assert_eq!(got(&all), [MAC.0, other]);
    // Too many are all.
    assert!(setup.command(CONTROL, command::ALL_UNICAST, &[0]));
    let many = [&65u32.to_le_bytes()[..], &[4; 65 * 6], &0u32.to_le_bytes()].concat();
    assert!(setup.command(CONTROL, command::MAC_TABLE, &many));
    assert_eq!(got(&[other]), [other]);
    // Tables that are cut, commands that nobody knows.
    assert!(!setup.command(CONTROL, command::MAC_TABLE, &u32::MAX.to_le_bytes()));
    assert!(!setup.command(CONTROL, command::MAC_ADDRESS, &[1, 2]));
    assert!(!setup.command(CONTROL, command::QUEUE_PAIRS, &[1, 0]), "it was not agreed on");
    assert!(!setup.command(CONTROL, (9, 9), &[1]));
}

#[test]
fn flows_have_queues() {
    let setup = card(2);
    setup.driver.start(net::CTRL_VQ | net::MQ);
    let control = 4;
    for pairs in [0u16, 3] {
        assert!(!setup.command(control, command::QUEUE_PAIRS, &pairs.to_le_bytes()));
    }
    assert!(setup.command(control, command::QUEUE_PAIRS, &2u16.to_le_bytes()));
    for (queue, base) in [(0u16, 0), (2, 8)] {
        for number in 0..8u16 {
            let at = BUFFERS + (base + u64::from(number)) * 0x4000;
            setup.driver.submit(queue, number, &[(at, 2048, true)]);
        }
    }
    setup.far.bring((0..8).map(|port| frame(MAC.0, 1000 + port / 2, b"data")));
    let used = || [0, 2].map(|queue| setup.driver.used_index(queue));
    wait_for("all frames", || used().iter().sum::<u16>() == 8);
    assert!(used().iter().all(|count| *count > 0 && count % 2 == 0), "flows stay together: {:?}", used());
    // The second pair sends, too.
    setup.driver.put(DATA, &[0; HEADER]);
    let sent = frame([0xff; 6], 1, b"second");
    setup.driver.put(DATA + 0x100, &sent.bytes);
    setup.driver.submit(3, 0, &[(DATA, HEADER as u32, false), (DATA + 0x100, sent.bytes.len() as u32, false)]);
    assert_eq!(setup.driver.complete(3), (0, 0));
    assert_eq!(*setup.far.sent.lock(), [sent]);
}

#[test]
fn the_control_queue_comes_third_where_pairs_were_not_agreed_on() {
    let setup = card(2);
    setup.driver.start(net::CTRL_VQ | net::CTRL_RX);
    assert!(setup.command(CONTROL, command::PROMISCUOUS, &[1]));
}

#[test]
fn a_pulled_cable_is_told() {
    let setup = card(1);
    setup.driver.start(net::STATUS);
    assert_eq!(setup.driver.config(6, 2), 1);
    setup.cable.set_up(false);
    assert_eq!(setup.driver.config(6, 2), 0);
    wait_for("the interrupt", || setup.driver.isr() & 2 != 0);
    setup.cable.set_up(true);
    assert_eq!(setup.driver.config(6, 2), 1);
}

#[test]
fn its_state_is_saved() {
    let setup = card(2);
    setup.driver.start(net::CTRL_VQ | net::CTRL_RX | net::MQ | net::GUEST_CSUM | net::CTRL_GUEST_OFFLOADS);
    assert!(setup.command(4, command::PROMISCUOUS, &[0]));
    assert!(setup.command(4, command::QUEUE_PAIRS, &[2, 0]));
    assert!(setup.command(4, command::GUEST_OFFLOADS, &[0; 8]));
    let record = setup.driver.function.device().save();
    let other = card(2);
    other.driver.function.device().restore(&record).unwrap();
    assert_eq!(other.driver.function.device().save(), record);
    assert_ne!(card(2).driver.function.device().save(), record, "it is not what a new card has");
    assert!(card(1).driver.function.device().restore(&record).is_err(), "a card with one pair can't be in it");
    assert!(other.driver.function.device().restore(&record[..record.len() / 2]).is_err());
}

#[test]
fn what_came_before_the_driver_is_lost() {
    let setup = card(1);
    setup.far.bring([frame(MAC.0, 1, b"stale")]);
    setup.driver.start(0);
    setup.offer_buffer(0, 2048);
    let fresh = frame(MAC.0, 1, b"fresh");
    setup.far.bring([fresh.clone()]);
    assert_eq!(setup.received().1, fresh.bytes);
}
