use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use lodge_trial::{Random, steps};

use super::*;

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 15)), 2070);

fn other(number: u16) -> SocketAddr {
    SocketAddr::new(CLIENT.ip(), 3000 + number)
}

/// A server, with its time and what it has sent.
struct Bench {
    place: tempfile::TempDir,
    tftp: Tftp,
    now: Instant,
    sent: VecDeque<(u16, SocketAddr, Vec<u8>)>,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let tftp = Tftp::new(Folder::open(place.path()).unwrap());
        Self { place, tftp, now: Instant::now(), sent: VecDeque::new() }
    }

    fn file(&self, name: &str, size: usize) -> Vec<u8> {
        let content: Vec<u8> = (0..size).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
        std::fs::write(self.place.path().join(name), &content).unwrap();
        content
    }

    fn packet(&mut self, client: SocketAddr, port: u16, data: &[u8]) {
        let Self { tftp, now, sent, .. } = self;
        tftp.packet(client, port, data, *now, &mut |port, to, data| sent.push_back((port, to, data.to_vec())));
    }

    /// Goes on to the next deadline.
    fn wait(&mut self) {
        let Self { tftp, now, sent, .. } = self;
        *now = (*now).max(tftp.deadline().expect("something to wait for"));
        tftp.time_passed(*now, &mut |port, to, data| sent.push_back((port, to, data.to_vec())));
    }

    fn read(&mut self, client: SocketAddr, name: &str, options: &[(&str, &str)]) {
        let request = request(name, "octet", options);
        self.packet(client, PORT, &request);
    }

    fn acknowledge(&mut self, port: u16, number: u16) {
        self.packet(CLIENT, port, &[&[0, 4], number.to_be_bytes().as_slice()].concat());
    }

    fn next(&mut self) -> (u16, Vec<u8>) {
        let (port, _, data) = self.sent.pop_front().expect("a packet");
        (port, data)
    }

    #[track_caller]
    fn expect_error(&mut self, code: u16, text: &str) {
        let (_, data) = self.next();
        assert_eq!(data[..4], [0, 5, 0, code as u8], "{}", String::from_utf8_lossy(&data));
        assert!(String::from_utf8_lossy(&data).contains(text), "{}", String::from_utf8_lossy(&data));
        assert!(self.sent.is_empty());
    }
}

fn request(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut request = format!("\0\x01{name}\0{mode}\0");
    for (name, value) in options {
        request += &format!("{name}\0{value}\0");
    }
    request.into_bytes()
}

/// What a way does with a packet, or with an acknowledgement: how often it arrives, and whether before all that are on the way.
type Way<'a> = &'a mut dyn FnMut(bool) -> (usize, bool);

/// A client that reads a file, as firmware does: it acknowledges each window, and what it has when a block is missing.
fn transfer(bench: &mut Bench, options: &[(&str, &str)], way: Way<'_>) -> (Vec<u8>, usize) {
    let (mut block_size, mut window) = (512, 1);
    let (mut port, mut content, mut have, mut since, mut packets) = (0, Vec::new(), 0_u64, 0, 0);
    let ask = request("file", "octet", options);
    bench.packet(CLIENT, PORT, &ask);
    let mut arrived: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
    let mut rounds = 0;
    loop {
        while let Some((from, _, data)) = bench.sent.pop_front() {
            packets += 1;
            let (times, early) = way(false);
            for _ in 0..times {
                if early {
                    arrived.push_front((from, data.clone()));
                } else {
                    arrived.push_back((from, data.clone()));
                }
            }
        }
        let Some((from, data)) = arrived.pop_front() else {
            rounds += 1;
            assert!(rounds < 5000, "it makes no progress");
            bench.wait();
            continue;
        };
        if port == 0 {
            port = from;
        }
        if from != port {
            continue;
        }
        let mut answers = Vec::new();
        match data[1] {
            6 => {
                let texts: Vec<&str> = str::from_utf8(&data[2..]).unwrap().split('\0').collect();
                for pair in texts.chunks_exact(2) {
                    match pair[0] {
                        "blksize" => block_size = pair[1].parse().unwrap(),
                        "windowsize" => window = pair[1].parse().unwrap(),
                        _ => {}
                    }
                }
                if have == 0 {
                    answers.push(0);
                }
            }
            3 => {
                let number = u16::from_be_bytes([data[2], data[3]]);
                if number == (have + 1) as u16 {
                    assert!(data.len() - 4 <= block_size);
                    content.extend_from_slice(&data[4..]);
                    have += 1;
                    since += 1;
                    let last = data.len() - 4 < block_size;
                    if last || since == window {
                        since = 0;
                        answers.push(have as u16);
                    }
                    if last {
                        bench.acknowledge(port, have as u16);
                        return (content, packets);
                    }
                } else {
                    // What comes out of order is answered with what there is, each time (Mtftp4Rrq.c of EDK II).
                    since = 0;
                    answers.push(have as u16);
                }
            }
            kind => panic!("a packet of kind {kind}: {}", String::from_utf8_lossy(&data)),
        }
        for number in answers {
            for _ in 0..way(true).0 {
                bench.acknowledge(port, number);
            }
        }
    }
}

#[test]
fn files_of_all_sizes_arrive() {
    let mut bench = Bench::new();
    for size in [0, 1, 511, 512, 513, 1024, 100_000] {
        let content = bench.file("file", size);
        for options in [
            // iPXE, GRUB, UEFI and the ROM of network cards.
            &[("blksize", "1432"), ("tsize", "0")] as &[_],
            &[("blksize", "1024"), ("tsize", "0")],
            &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")],
            &[("tsize", "0")],
            &[("windowsize", "64"), ("blksize", "8")],
            &[],
        ] {
            let (read, packets) = transfer(&mut bench, options, &mut |_| (1, false));
            assert!(read == content, "{size} bytes with {options:?}");
            if options.is_empty() {
                assert_eq!(packets, size / 512 + 1);
            }
            assert_eq!(bench.tftp.load(), 0);
            assert_eq!(bench.tftp.deadline(), None);
        }
    }
}

#[test]
fn files_arrive_over_bad_ways() {
    let mut random = Random(0x7f7);
    for window in ["1", "2", "4", "16", "64"] {
        for worst in [3, 10, 40] {
            let mut bench = Bench::new();
            let content = bench.file("file", 60_000);
            let mut way = |_| match random.below(worst) {
                0 => (0, false),
                1 => (2, false),
                2 => (1, true),
                _ => (1, false),
            };
            let options = [("blksize", "500"), ("windowsize", window)];
            // The answer to a request gets lost as well, and the client asks again.
            let (read, _) = transfer(&mut bench, &options, &mut way);
            assert!(read == content, "window {window}, one in {worst}");
        }
    }
}

#[test]
fn packets_that_come_twice_are_not_answered_twice() {
    for window in ["1", "8"] {
        let mut bench = Bench::new();
        let content = bench.file("file", 512 * 400);
        let blocks = content.len() / 512 + 1;
        // Each tenth acknowledgement arrives twice.
        let mut count = 0;
        let (read, packets) = transfer(&mut bench, &[("windowsize", window)], &mut |is_acknowledgement| {
            count += usize::from(is_acknowledgement);
            (if is_acknowledgement && count % 10 == 0 { 2 } else { 1 }, false)
        });
        assert!(count > 40);
        assert!(read == content);
        // The answer to the options, and all blocks but once.
        assert_eq!(packets, blocks + 1, "{packets} packets for {blocks} blocks with a window of {window}");
    }
}

#[test]
fn block_numbers_roll_over() {
    let mut bench = Bench::new();
    // More than 65,536 blocks, twice.
    let content = bench.file("file", 8 * 140_000 + 3);
    let (read, _) = transfer(&mut bench, &[("blksize", "8"), ("windowsize", "32")], &mut |_| (1, false));
    assert!(read == content);
    let content = bench.file("file", (33 << 20) + 17);
    let (read, _) = transfer(&mut bench, &[], &mut |_| (1, false));
    assert!(read == content);
}

#[test]
fn options_are_negotiated() {
    let mut bench = Bench::new();
    bench.file("file", 5000);
    for (options, answer) in [
        (&[("blksize", "1468")] as &[_], "blksize\x001468\0"),
        (&[("BLKSIZE", "65464")], "blksize\x001468\0"),
        (&[("tsize", "0"), ("windowsize", "65535")], "tsize\x005000\0windowsize\x0064\0"),
        (&[("windowsize", "4"), ("timeout", "255")], "windowsize\x004\0timeout\x00255\0"),
        (&[("tsize", "0"), ("blksize", "7"), ("windowsize", "0"), ("timeout", "0"), ("x", "y")], "tsize\x005000\0"),
        (&[("blksize", "8"), ("blksize", "16"), ("tsize", "none"), ("timeout", "256")], "blksize\x008\0"),
    ] {
        bench.read(CLIENT, "file", options);
        let (port, data) = bench.next();
        assert_eq!(data, [b"\0\x06", answer.as_bytes()].concat(), "{options:?}");
        assert!(Tftp::takes(port) && port != PORT);
        bench.packet(CLIENT, port, b"\0\x05\0\x08no\0");
        assert_eq!(bench.tftp.load(), 0);
    }
    // By IPv6 less fits.
    let client = "[fd6c::15]:2000".parse().unwrap();
    bench.read(client, "file", &[("blksize", "1468")]);
    assert_eq!(bench.next().1, b"\0\x06blksize\x001428\0");
    // Nothing to agree on: no answer to options.
    bench.read(CLIENT, "file", &[("blksize", "7"), ("multicast", "")]);
    assert_eq!(bench.next().1[..4], [0, 3, 0, 1]);
}

#[test]
fn what_is_not_served_is_named() {
    let mut bench = Bench::new();
    bench.file("file", 1);
    std::fs::create_dir(bench.place.path().join("folder")).unwrap();
    bench.read(CLIENT, "/pxelinux.cfg/default", &[("tsize", "0")]);
    bench.expect_error(1, "/pxelinux.cfg/default");
    bench.read(CLIENT, "../../etc/passwd", &[]);
    bench.expect_error(2, "../../etc/passwd");
    bench.read(CLIENT, "folder", &[]);
    bench.expect_error(2, "folder");
    bench.read(CLIENT, "", &[]);
    bench.expect_error(2, "names nothing");
    bench.read(CLIENT, &"\u{1f4be}".repeat(200), &[]);
    let (_, data) = bench.next();
    assert!(data.len() <= LONGEST_TEXT + 5 && str::from_utf8(&data[4..]).is_ok());
    bench.packet(CLIENT, PORT, &request("file", "mail", &[]));
    bench.expect_error(4, "octet");
    bench.packet(CLIENT, PORT, b"\0\x02file\0octet\0");
    bench.expect_error(2, "written");
    bench.packet(CLIENT, PORT, b"\0\x04\0\0");
    bench.expect_error(4, "request");
    for malformed in [b"\0\x01".as_slice(), b"\0\x01file", b"\0\x01file\0", b"\0\x01file\0octet"] {
        bench.packet(CLIENT, PORT, malformed);
        bench.expect_error(4, "");
    }
    bench.packet(CLIENT, FIRST_PORT + 5, b"\0\x04\0\0");
    bench.expect_error(5, "no such transfer");
    for silent in [b"".as_slice(), b"\0", b"\0\x05\0\0\0"] {
        bench.packet(CLIENT, PORT, silent);
        bench.packet(CLIENT, FIRST_PORT, silent);
        assert!(bench.sent.is_empty());
    }
    assert_eq!(bench.tftp.load(), 0);
    bench.packet(CLIENT, PORT, &request("FILE", "NetASCII", &[]));
    assert_eq!(bench.next().1, [0, 3, 0, 1, 0]);
}

#[test]
fn only_its_client_moves_a_transfer() {
    let mut bench = Bench::new();
    bench.file("file", 2000);
    bench.read(CLIENT, "file", &[]);
    let (port, _) = bench.next();
    bench.packet(other(1), port, b"\0\x04\0\x01");
    bench.expect_error(5, "");
    bench.packet(other(1), port, b"\0\x05\0\0\0");
    assert_eq!(bench.tftp.load(), 1);
    // Nor does an acknowledgement of what was not sent.
    bench.acknowledge(port, 2);
    bench.acknowledge(port, 0xffff);
    assert!(bench.sent.is_empty());
    bench.acknowledge(port, 1);
    assert_eq!(bench.next().1[..4], [0, 3, 0, 2]);
}

#[test]
fn what_is_lost_is_sent_again_until_it_is_given_up() {
    let mut bench = Bench::new();
    bench.file("file", 2000);
    let start = bench.now;
    bench.read(CLIENT, "file", &[("blksize", "600"), ("windowsize", "2")]);
    let (port, answer) = bench.next();
    bench.wait();
    assert_eq!(bench.next(), (port, answer));
    assert_eq!(bench.now - start, Duration::from_secs(1));
    bench.acknowledge(port, 0);
    assert_eq!([bench.next().1[3], bench.next().1[3]], [1, 2]);
    bench.wait();
    assert_eq!([bench.next().1[3], bench.next().1[3]], [1, 2]);
    // A part of a window was enough: what follows comes from there.
    bench.acknowledge(port, 1);
    assert_eq!([bench.next().1[3], bench.next().1[3]], [2, 3]);
    let before = bench.now;
    while bench.tftp.load() > 0 {
        bench.wait();
        assert!(bench.sent.len() < 100);
    }
    assert!((60..300).contains(&(bench.now - before).as_secs()));
    bench.sent.drain(..bench.sent.len() - 1);
    bench.expect_error(0, "does not answer");
}

#[test]
fn a_request_that_comes_again_begins_nothing_new() {
    let mut bench = Bench::new();
    bench.file("file", 5000);
    bench.file("else", 10);
    bench.read(CLIENT, "file", &[("tsize", "0")]);
    let first = bench.next();
    bench.read(CLIENT, "file", &[("tsize", "0")]);
    assert_eq!(bench.next(), first);
    bench.acknowledge(first.0, 0);
    bench.next();
    bench.acknowledge(first.0, 1);
    bench.next();
    // It was long on its way.
    bench.read(CLIENT, "file", &[("tsize", "0")]);
    assert!(bench.sent.is_empty());
    assert_eq!(bench.tftp.load(), 1);
    // A guest that was reset begins again from the same port.
    bench.now += Duration::from_secs(2);
    bench.read(CLIENT, "file", &[("tsize", "0")]);
    let again = bench.next();
    assert_ne!(again.0, first.0);
    assert_eq!(again.1, first.1);
    bench.read(CLIENT, "else", &[]);
    assert_eq!(bench.next().1.len(), 14);
    assert_eq!(bench.tftp.load(), 1);
}

#[test]
fn the_oldest_idle_transfer_makes_room() {
    let mut bench = Bench::new();
    bench.file("file", 5000);
    let mut ports = Vec::new();
    for number in 0..MOST as u16 {
        bench.read(other(number), "file", &[]);
        ports.push(bench.next().0);
        bench.now += Duration::from_millis(1);
    }
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), MOST);
    bench.packet(other(0), ports[0], b"\0\x04\0\x01");
    bench.next();
    bench.read(other(99), "file", &[]);
    assert_eq!(bench.tftp.load(), MOST);
    let (port, to, data) = bench.sent.pop_front().unwrap();
    assert_eq!((port, to, data[1]), (ports[1], other(1), 5));
    assert_eq!(bench.next().1[..4], [0, 3, 0, 1]);
}

#[test]
fn a_file_that_becomes_shorter_ends_with_an_error() {
    let mut bench = Bench::new();
    bench.file("file", 5000);
    bench.read(CLIENT, "file", &[]);
    let (port, _) = bench.next();
    bench.file("file", 600);
    bench.acknowledge(port, 1);
    bench.expect_error(0, "shorter");
    assert_eq!(bench.tftp.load(), 0);
}

#[test]
fn random_packets_do_no_harm() {
    let mut bench = Bench::new();
    bench.file("file", 3000);
    bench.file("long", 200_000);
    let mut random = Random(0x1350);
    let good = [
        request("file", "octet", &[("blksize", "1432"), ("tsize", "0")]),
        request("long", "octet", &[("windowsize", "8"), ("timeout", "1"), ("blksize", "8")]),
        request("../x", "netascii", &[]),
        vec![0, 4, 0, 0],
        vec![0, 5, 0, 0, 0],
        Vec::new(),
    ];
    let mut served = 0_u64;
    for _ in 0..steps(1_000_000) {
        let mut data = good[random.below(good.len() as u64) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(data.len() as u64 + 1) as usize;
            match random.below(3) {
                0 => data.insert(at, random.next() as u8),
                1 => data.truncate(at),
                _ if at < data.len() => data[at] = random.next() as u8,
                _ => {}
            }
        }
        let client = other(random.below(24) as u16);
        let port = match random.below(3) {
            0 => PORT,
            1 => random.next() as u16,
            _ => bench.sent.back().map_or(PORT, |(port, _, _)| *port),
        };
        bench.sent.clear();
        if random.below(4) == 0 && bench.tftp.deadline().is_some() {
            bench.now += Duration::from_millis(random.below(3000));
            let Bench { tftp, now, sent, .. } = &mut bench;
            tftp.time_passed(*now, &mut |port, to, data| sent.push_back((port, to, data.to_vec())));
            assert!(bench.sent.len() <= MOST * 64);
        }
        let before = bench.sent.len();
        bench.packet(client, port, &data);
        assert!(bench.sent.len() - before <= 65);
        assert!(bench.sent.iter().all(|(port, _, data)| Tftp::takes(*port) && data.len() <= 1472));
        assert!(bench.tftp.load() <= MOST);
        served += bench.sent.iter().filter(|(_, _, data)| data[1] == 3).count() as u64;
    }
    assert!(served > 1000, "the packets got nowhere: {served}");
}
