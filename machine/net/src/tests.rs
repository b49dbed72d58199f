use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lodge_trial::{Random, steps, wait_for};
use pcap_file::pcapng::Block;

use crate::far::Far;
use crate::frame::{Accepts, Checksum, Frame, HEADER, Offload, Segmentation};
use crate::segment::{Layout, TCP, UDP, ethertype, is_intact, prepare};
use crate::{Cable, CableConfig, Capture, Listener, MacAddress, Rate, checksum};

/// A TCP segment with `data`, its checksum that of the pseudo header alone, as a card with offloads is given it.
fn tcp(version: u8, data: &[u8], flags: u8, tagged: bool) -> Frame {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if tagged {
        bytes.extend([0x81, 0, 0, 7]);
    }
    let length = 32 + data.len();
    let pseudo;
    if version == 4 {
        bytes.extend([8, 0]);
        let mut header = vec![0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, TCP, 0, 0, 10, 0, 2, 15, 93, 184, 216, 34];
        header[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
        let sum = !checksum::fold(checksum::sum(&header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        pseudo = checksum::pseudo_header(&header[12..16], &header[16..20], TCP, length);
        bytes.extend(header);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([TCP, 64]);
        let addresses: Vec<u8> = (0..32).collect();
        pseudo = checksum::pseudo_header(&addresses[..16], &addresses[16..], TCP, length);
        bytes.extend(addresses);
    }
    let start = bytes.len() as u16;
    bytes.extend([0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0x00, 1, 2, 3, 4, 0x80, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    let at = usize::from(start) + 16;
    bytes[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    bytes.extend(data);
    let checksum = Checksum::Missing { start, offset: 16 };
    Frame { bytes, offload: Offload { checksum, segmentation: None } }
}

fn large(frame: Frame, size: u16) -> Frame {
    let segmentation = Some(Segmentation { size, congestion: false });
    Frame { offload: Offload { segmentation, ..frame.offload }, ..frame }
}

fn prepared(frame: Frame, accepts: Accepts) -> Vec<Frame> {
    let mut frames = Vec::new();
    prepare(frame, accepts, |frame| frames.push(frame));
    frames
}

#[test]
fn sums_are_those_of_the_standard() {
    // The example of RFC 1071, section 3.
    assert_eq!(checksum::fold(checksum::sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    assert_eq!(checksum::fold(checksum::sum(&[0x12, 0x34, 0x56])), 0x6834, "an odd byte is the upper half of a word");
    // An IPv4 header of the wild.
    let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
    assert_eq!(!checksum::fold(checksum::sum(&header)), 0xb861);
    assert_eq!(checksum::finish(0xffff), 0xffff, "zero means that there is none");
}

#[test]
fn a_large_segment_is_cut_into_whole_ones() {
    let data: Vec<u8> = (0..10_000u32).map(|at| (at * 7) as u8).collect();
    for (version, tagged) in [(4, false), (4, true), (6, false), (6, true)] {
        // CWR, PSH, FIN and ACK.
        let frame = large(tcp(version, &data, 0x99, tagged), 1448);
        let parts = prepared(frame, Accepts::default());
        assert_eq!(parts.len(), 7);
        let mut got = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let layout = Layout::of(&part.bytes).unwrap();
            assert_eq!(layout.network, if tagged { HEADER + 4 } else { HEADER });
            assert_eq!(layout.end, part.bytes.len());
            assert!(is_intact(&part.bytes, &layout), "part {index}");
            assert_eq!(part.offload, Offload { checksum: Checksum::Good, segmentation: None });
            let (protocol, at) = layout.transport.unwrap();
            assert_eq!(protocol, TCP);
            let sequence = u32::from_be_bytes(part.bytes[at + 4..at + 8].try_into().unwrap());
            assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(1448 * index as u32), "numbers go on over the end");
            let flags = [0x90, 0x10, 0x10, 0x10, 0x10, 0x10, 0x19][index];
            assert_eq!(part.bytes[at + 13], flags, "part {index}");
            if version == 4 {
                let number = u16::from_be_bytes([part.bytes[layout.network + 4], part.bytes[layout.network + 5]]);
                assert_eq!(number, 0xffffu16.wrapping_add(index as u16));
            }
            got.extend_from_slice(&part.bytes[at + 32..]);
        }
        assert!(got == data, "the data is the same");
    }
}

#[test]
fn what_somebody_does_himself_is_left_to_him() {
    let frame = large(tcp(4, &[7; 5000], 0x10, false), 1460);
    let whole = prepared(frame.clone(), Accepts::ALL);
    assert_eq!(whole, std::slice::from_ref(&frame));
    // With IPv6 alone an IPv4 packet is cut.
    let only_6 = Accepts { tcp4: false, ..Accepts::ALL };
    assert_eq!(prepared(frame.clone(), only_6).len(), 4);
    // Who cuts must make checksums, too.
    assert_eq!(prepared(frame.clone(), Accepts { checksum: false, ..Accepts::ALL }).len(), 4);
    let congestion = |frame: &Frame| {
        let segmentation = Some(Segmentation { size: 1460, congestion: true });
        Frame { offload: Offload { segmentation, ..frame.offload }, ..frame.clone() }
    };
    assert_eq!(prepared(congestion(&frame), Accepts { congestion: false, ..Accepts::ALL }).len(), 4);
    assert_eq!(prepared(congestion(&frame), Accepts::ALL).len(), 1);

    let small = tcp(6, b"hello", 0x18, false);
    assert_eq!(prepared(small.clone(), Accepts::ALL), std::slice::from_ref(&small));
    let [made] = &prepared(small, Accepts::default())[..] else { panic!("one frame") };
    assert!(is_intact(&made.bytes, &Layout::of(&made.bytes).unwrap()));
    assert_eq!(made.offload.checksum, Checksum::Good);
    let plain = Frame::plain(made.bytes.clone());
    assert_eq!(prepared(plain.clone(), Accepts::default()), [plain], "what is whole stays as it is");
}

#[test]
fn damage_is_seen() {
    let [whole] = &prepared(tcp(4, b"some data", 0x18, false), Accepts::default())[..] else { panic!("one frame") };
    let layout = Layout::of(&whole.bytes).unwrap();
    for at in layout.network..layout.end {
        let mut bytes = whole.bytes.clone();
        bytes[at] ^= 0x10;
        let intact = Layout::of(&bytes).is_some_and(|layout| is_intact(&bytes, &layout));
        // Another protocol's checksum is another matter, and so is a later fragment's.
        let elsewhere = at == layout.network + 9 || (6..8).contains(&(at - layout.network));
        assert!(!intact || elsewhere, "byte {at}");
    }
    // UDP without a checksum.
    let mut bytes = whole.bytes[..42].to_vec();
    bytes[16..18].copy_from_slice(&28u16.to_be_bytes());
    bytes[23] = UDP;
    bytes[24..26].fill(0);
    let sum = !checksum::fold(checksum::sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[38..42].copy_from_slice(&[0, 8, 0, 0]);
    assert!(is_intact(&bytes, &Layout::of(&bytes).unwrap()));
    bytes[41] = 1;
    assert!(!is_intact(&bytes, &Layout::of(&bytes).unwrap()));
}

#[test]
fn senseless_frames_are_lost() {
    let long = tcp(4, &[1; 3000], 0x10, false);
    let mut cases = vec![
        large(long.clone(), 0),
        large(long.clone(), 47),
        Frame::plain(vec![0; 13]),
        Frame::plain(vec![0; 70_000]),
        Frame::default(),
    ];
    let outside = Checksum::Missing { start: 3000, offset: 65 };
    cases.push(Frame { offload: Offload { checksum: outside, segmentation: None }, ..long.clone() });
    let beyond = Checksum::Missing { start: u16::MAX, offset: u16::MAX };
    cases.push(Frame { offload: Offload { checksum: beyond, segmentation: None }, ..long.clone() });
    // A header that is longer than the packet, an offset of data that is too small, another protocol.
    for (at, value) in [(14, 0x4f), (46, 0xf0), (46, 0x40), (23, UDP), (12, 0x90)] {
        let mut frame = large(tcp(4, &[], 0x10, false), 1460);
        frame.bytes[at] = value;
        cases.push(frame);
    }
    for frame in cases {
        for accepts in [Accepts::default(), Accepts::ALL] {
            assert_eq!(prepared(frame.clone(), accepts), [], "{:02x?}", &frame.bytes[..frame.bytes.len().min(60)]);
        }
    }
}

#[test]
fn random_frames_do_no_harm() {
    let mut random = Random(0x5eed_f00d);
    let samples =
        [tcp(4, &[9; 400], 0x18, false), tcp(6, &[9; 400], 0x18, true), large(tcp(6, &[9; 4000], 0x18, false), 536)];
    for _ in 0..steps(1_000_000) {
        let mut frame = samples[random.below(3) as usize].clone();
        for _ in 0..random.below(8) {
            let at = random.below(80.min(frame.bytes.len() as u64)) as usize;
            frame.bytes[at] = random.next() as u8;
        }
        if random.below(4) == 0 {
            frame.bytes.truncate(random.below(frame.bytes.len() as u64 + 1) as usize);
        }
        if random.below(4) == 0 {
            frame.offload.checksum = Checksum::Missing { start: random.next() as u16, offset: random.next() as u16 };
        }
        if random.below(4) == 0 {
            let (size, congestion) = (random.next() as u16, random.below(2) == 0);
            frame.offload.segmentation = Some(Segmentation { size, congestion });
        }
        let bit = |random: &mut Random| random.below(2) == 0;
        let accepts = Accepts {
            checksum: bit(&mut random),
            tcp4: bit(&mut random),
            tcp6: bit(&mut random),
            congestion: bit(&mut random),
        };
        let (size, mut total) = (frame.bytes.len(), 0);
        prepare(frame, accepts, |part| {
            assert!(part.has_sane_size());
            total += part.bytes.len();
            if let Some(layout) = Layout::of(&part.bytes) {
                let _ = is_intact(&part.bytes, &layout);
            }
        });
        // The headers of the smallest segments are as long as the data, or a little longer.
        assert!(total <= size * 5, "{total} bytes of {size}");
    }
}

#[derive(Default)]
struct Near {
    waits: AtomicUsize,
    room: AtomicUsize,
    link: AtomicUsize,
}

impl Listener for Near {
    fn frames_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn room_to_send(&self) {
        self.room.fetch_add(1, Ordering::Relaxed);
    }

    fn link_changed(&self) {
        self.link.fetch_add(1, Ordering::Relaxed);
    }
}

fn plugged(config: CableConfig, far: &Arc<Far>) -> (Arc<Cable>, Arc<Near>) {
    let cable = Cable::new(config, far.clone()).unwrap();
    let near = Arc::new(Near::default());
    let listener: Arc<dyn Listener> = near.clone();
    cable.plug(Arc::downgrade(&listener));
    (cable, near)
}

#[test]
fn a_full_network_gets_the_rest_later() {
    let far = Far::new(Accepts::default(), 3);
    let (cable, near) = plugged(CableConfig::default(), &far);
    assert_eq!(
        cable.send(large(tcp(4, &[5; 7000], 0x18, false), 1000)),
        Ok(()),
        "it is taken, though not all is through"
    );
    assert_eq!(far.sent.lock().len(), 3);
    let next = tcp(4, b"next", 0x18, false);
    assert_eq!(cable.send(next.clone()), Err(next.clone()));
    far.room.store(2, Ordering::Relaxed);
    far.listener().room_to_send();
    assert_eq!((far.sent.lock().len(), near.room.load(Ordering::Relaxed)), (5, 0), "there is no room for the card yet");
    far.room.store(10, Ordering::Relaxed);
    far.listener().room_to_send();
    assert_eq!((far.sent.lock().len(), near.room.load(Ordering::Relaxed)), (7, 1));
    assert_eq!(cable.send(next), Ok(()));
    assert_eq!(far.sent.lock().len(), 8);
}

#[test]
fn a_card_gets_what_it_can_take() {
    let far = Far::new(Accepts::ALL, 0);
    let (cable, near) = plugged(CableConfig::default(), &far);
    far.waiting.lock().extend([large(tcp(6, &[5; 3000], 0x18, false), 1000), tcp(4, b"more", 0x18, false)]);
    far.listener().frames_wait();
    assert_eq!(near.waits.load(Ordering::Relaxed), 1);
    let sizes: Vec<_> =
        std::iter::from_fn(|| cable.receive(Accepts::default())).map(|frame| frame.bytes.len()).collect();
    assert_eq!(sizes, [1086, 1086, 1086, 70]);
    far.waiting.lock().push_back(large(tcp(6, &[5; 3000], 0x18, false), 1000));
    assert_eq!(cable.receive(Accepts::ALL).unwrap().bytes.len(), 3086);
    assert!(cable.receive(Accepts::ALL).is_none());
}

#[test]
fn a_cable_that_is_pulled_loses_everything() {
    let far = Far::new(Accepts::ALL, 10);
    assert!(!plugged(CableConfig { unplugged: true, ..CableConfig::default() }, &far).0.is_up());
    let (cable, near) = plugged(CableConfig::default(), &far);
    assert!(cable.is_up());
    cable.set_up(false);
    cable.set_up(false);
    assert_eq!(near.link.load(Ordering::Relaxed), 1);
    far.waiting.lock().push_back(tcp(4, b"lost", 0x18, false));
    assert_eq!(cable.send(tcp(4, b"lost", 0x18, false)), Ok(()));
    assert!(cable.receive(Accepts::ALL).is_none());
    assert!(far.sent.lock().is_empty() && far.waiting.lock().is_empty());
    cable.set_up(true);
    assert_eq!(near.link.load(Ordering::Relaxed), 2);
    assert_eq!(cable.send(tcp(4, b"sent", 0x18, false)), Ok(()));
    assert_eq!(far.sent.lock().len(), 1);
}

#[test]
fn a_slow_cable_takes_its_time() {
    let far = Far::new(Accepts::ALL, usize::MAX);
    // A frame of 1,000 bytes each millisecond.
    let config = CableConfig { rate: Some(Rate(8_000_000)), ..CableConfig::default() };
    let (cable, near) = plugged(config, &far);
    let frame = || Frame::plain(vec![2; 1000]);
    let begin = Instant::now();
    let mut waits = 0;
    for _ in 0..200 {
        while cable.send(frame()).is_err() {
            waits += 1;
            wait_for("room", || near.room.swap(0, Ordering::Relaxed) > 0);
        }
    }
    let took = begin.elapsed();
    // 20 ms may have been put by, and the last frame is not waited for.
    assert!(took >= Duration::from_millis(178), "{took:?}");
    assert!(waits > 0);
    far.waiting.lock().extend((0..100).map(|_| frame()));
    let begin = Instant::now();
    let mut received = 0;
    while received < 100 {
        match cable.receive(Accepts::ALL) {
            Some(_) => received += 1,
            None => wait_for("frames", || near.waits.swap(0, Ordering::Relaxed) > 0),
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(78), "{:?}", begin.elapsed());
}

#[test]
fn a_capture_has_what_passed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net0.pcapng");
    let far = Far::new(Accepts::ALL, 1);
    let capture = Some(Capture::create(&path, "net0").unwrap());
    let (cable, _near) = plugged(CableConfig { capture, ..CableConfig::default() }, &far);
    let (out, back) = (tcp(4, b"out", 0x18, false), tcp(6, b"back", 0x18, false));
    cable.send(out.clone()).unwrap();
    // It is taken, but not through.
    cable.send(tcp(4, b"later", 0x18, false)).unwrap();
    far.waiting.lock().push_back(back.clone());
    cable.receive(Accepts::ALL).unwrap();
    let mut reader = pcap_file::pcapng::PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap().into_owned() {
            packets.push(packet);
        }
    }
    let data: Vec<_> = packets.iter().map(|packet| packet.data.to_vec()).collect();
    assert_eq!(data, [out.bytes, back.bytes]);
    assert!(packets[0].timestamp.as_secs() > 1_700_000_000, "{:?}", packets[0].timestamp);
    assert!(Capture::create(&folder.path().join("no/such/folder"), "net0").is_err());
}

#[test]
fn addresses_of_cards() {
    let good =
        ["52:54:00:12:34:56", "02-6C-64-0a-0B-0c", "2:0:0:0:0:1"].map(|text| text.parse::<MacAddress>().unwrap());
    assert_eq!(good.map(|mac| mac.to_string()), ["52:54:00:12:34:56", "02:6c:64:0a:0b:0c", "02:00:00:00:00:01"]);
    for bad in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54:00:12:34:5g",
        "+1:54:00:12:34:56",
        "525400123456",
        "52::00:12:34:56",
    ] {
        assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
    }
    for group in ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"] {
        assert!(group.parse::<MacAddress>().unwrap_err().to_string().contains("single card"), "{group}");
    }
    let derived: Vec<_> = (0..4).map(|number| MacAddress::derived(b"/home/somebody/disk.qcow2", number)).collect();
    assert!(derived.iter().all(|mac| mac.is_one_card()));
    // It is the same in every version of lodge.
    assert_eq!(derived[0], MacAddress::derived(b"/home/somebody/disk.qcow2", 0));
    assert_eq!(derived.iter().collect::<std::collections::HashSet<_>>().len(), 4);
}

#[test]
fn layouts() {
    let frame = tcp(4, b"data", 0x18, false);
    let layout = Layout::of(&frame.bytes).unwrap();
    assert_eq!(
        layout,
        Layout { ethertype: ethertype::IPV4, network: 14, transport: Some((TCP, 34)), end: frame.bytes.len() }
    );
    // Padding is not the packet's.
    let mut padded = frame.bytes.clone();
    padded.extend([0; 10]);
    assert_eq!(Layout::of(&padded).unwrap().end, frame.bytes.len());
    // A later fragment has no transport header.
    let mut fragment = frame.bytes.clone();
    fragment[21] = 1;
    assert_eq!(Layout::of(&fragment).unwrap().transport, None);
    // Hop-by-hop options before TCP.
    let mut options = tcp(6, b"data", 0x18, false).bytes;
    options.splice(54..54, [TCP, 0, 1, 4, 0, 0, 0, 0]);
    options[20] = 0;
    options[19] += 8;
    assert_eq!(Layout::of(&options).unwrap().transport, Some((TCP, 62)));
    let arp = [vec![0xff; 12], vec![8, 6, 0, 1]].concat();
    assert_eq!(Layout::of(&arp).unwrap().transport, None);
}
