use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lodge_trial::wait_for;

use super::{Tap, TapError};
use crate::segment::{Layout, TCP, prepare};
use crate::{Accepts, Checksum, Frame, Listener, Network, Offload, Segmentation, checksum};

/// The host's end, and the guest's.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// Runs the test `name` of this program in a network of its own, after `commands`, as somebody who may do `drop`'s not. Says
/// so and does nothing if the host allows no such thing.
fn in_a_namespace(name: &str, commands: &str, drop: &str) {
    let program = std::env::current_exe().unwrap();
    let base = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-ec", command]);
        unshare
    };
    let can = base("ip tuntap add dev probe mode tap").output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no network namespace with a tap here; it takes root, unshare, ip and /dev/net/tun");
        return;
    }
    let run =
        format!("{commands}\nexec {drop} '{}' --exact --ignored --nocapture tap::tests::{name}", program.display());
    let output = base(&run).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_tap_carries_large_segments() {
    let commands = "ip tuntap add dev tap0 mode tap\nip addr add 10.99.0.1/24 dev tap0\nip link set tap0 up\n\
                    ip tuntap add dev tap1 mode tap multi_queue\nip link set lo up";
    in_a_namespace("within_a_namespace", commands, "");
}

#[test]
fn somebody_elses_tap_is_refused() {
    let commands = "ip tuntap add dev tap0 mode tap user 12345";
    in_a_namespace(
        "within_a_namespace_without_rights",
        commands,
        "setpriv --bounding-set=-net_admin --inh-caps=-net_admin",
    );
}

#[test]
fn what_is_no_name_is_refused() {
    for name in ["", "sixteen_letters_", "tap%d", "a b", "a/b", "..", "tap\u{e9}"] {
        assert!(matches!(Tap::open(name), Err(TapError::Name { .. })), "{name}");
    }
    let error = Tap::open("lodge-no-such").err().unwrap();
    assert_eq!(error.to_string(), "there is no interface 'lodge-no-such'");
    assert!(error.remedy().contains("ip tuntap add dev lodge-no-such mode tap user"), "{}", error.remedy());
}

#[test]
#[ignore = "runs in a network namespace of its own, which another test makes"]
fn within_a_namespace_without_rights() {
    let error = Tap::open("tap0").err().unwrap();
    assert!(matches!(error, TapError::Owner { .. }), "{error}");
    assert!(matches!(Tap::open("tap1"), Err(TapError::Missing { .. })));
}

#[derive(Default)]
struct Near {
    waits: AtomicUsize,
}

impl Listener for Near {
    fn frames_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn room_to_send(&self) {}
}

/// A card with as much of TCP as it takes to send and receive.
struct Guest {
    tap: Arc<Tap>,
    near: Arc<Near>,
    host_mac: [u8; 6],
    port: u16,
    sequence: u32,
    acknowledged: u32,
}

impl Guest {
    /// The next frame, whenever it comes.
    fn next(&self) -> Frame {
        loop {
            let seen = self.near.waits.load(Ordering::Relaxed);
            if let Some(frame) = self.tap.receive() {
                return frame;
            }
            wait_for("a frame", || self.near.waits.load(Ordering::Relaxed) != seen);
        }
    }

    /// The next TCP segment, its data whole.
    fn segment(&mut self) -> (Frame, Vec<u8>) {
        loop {
            let frame = self.next();
            let Some(Layout { transport: Some((TCP, at)), end, .. }) = Layout::of(&frame.bytes) else { continue };
            let start = at + usize::from(frame.bytes[at + 12] >> 4) * 4;
            let data = frame.bytes[start..end].to_vec();
            let sequence = u32::from_be_bytes(frame.bytes[at + 4..at + 8].try_into().unwrap());
            let begins = u32::from(frame.bytes[at + 13] >> 1 & 1);
            self.acknowledged = sequence + data.len() as u32 + begins;
            return (frame, data);
        }
    }

    /// Sends a segment whose checksum is left to the other side.
    fn send(&mut self, flags: u8, data: &[u8], size: Option<u16>) {
        let mut bytes = [self.host_mac, GUEST_MAC].concat();
        bytes.extend([8, 0, 0x45, 0]);
        let length = 20 + data.len();
        bytes.extend((20 + length as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, TCP, 0, 0]);
        bytes.extend(GUEST.octets());
        bytes.extend(HOST.octets());
        let sum = !checksum::fold(checksum::sum(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(4321u16.to_be_bytes());
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.extend([0x50, flags, 0xff, 0xff]);
        let pseudo = checksum::fold(checksum::pseudo_header(&GUEST.octets(), &HOST.octets(), TCP, length));
        bytes.extend(pseudo.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        let segmentation = size.map(|size| Segmentation { size, congestion: false });
        let offload = Offload { checksum: Checksum::Missing { start: 34, offset: 16 }, segmentation };
        prepare(Frame { bytes, offload }, Accepts::ALL, |frame| assert!(self.tap.send(&frame)));
        self.sequence += data.len() as u32 + u32::from(flags >> 1 & 1);
    }
}

#[test]
#[ignore = "runs in a network namespace of its own, which another test makes"]
fn within_a_namespace() {
    assert!(matches!(Tap::open("tap9"), Err(TapError::Missing { .. })));
    assert!(Command::new("ip").args(["link", "show", "tap9"]).output().is_ok_and(|output| !output.status.success()));
    assert!(matches!(Tap::open("lo"), Err(TapError::Kind { .. })));
    assert!(Tap::open("tap1").is_ok(), "one of several queues");
    let tap = Tap::open("tap0").unwrap();
    assert!(matches!(Tap::open("tap0"), Err(TapError::Busy { .. })));
    let near = Arc::new(Near::default());
    let weak: Weak<dyn Listener> = Arc::downgrade(&(near.clone() as Arc<dyn Listener>));
    tap.connect(weak);

    // Who has the host's address?
    let mut guest = Guest { tap, near, host_mac: [0; 6], port: 0, sequence: 1000, acknowledged: 0 };
    let mut request = [[0xff; 6], GUEST_MAC].concat();
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([&GUEST_MAC[..], &GUEST.octets(), &[0; 6], &HOST.octets()].concat());
    // The kernel loses what it sends before it has noticed that there is a carrier: guests ask again, too.
    guest.host_mac = (0..100)
        .find_map(|_| {
            assert!(guest.tap.send(&Frame::plain(request.clone())));
            std::thread::sleep(Duration::from_millis(50));
            std::iter::from_fn(|| guest.tap.receive())
                .find(|frame| frame.bytes[12..14] == [8, 6] && frame.bytes[20..22] == [0, 2])
                .map(|frame| frame.bytes[22..28].try_into().unwrap())
        })
        .expect("the host answers");

    let listener = TcpListener::bind((HOST, 0)).unwrap();
    guest.port = listener.local_addr().unwrap().port();
    guest.send(0x02, &[], None);
    let (answer, _) = guest.segment();
    assert_eq!(answer.bytes[47], 0x12, "the connection is taken, so the checksum was made");
    guest.send(0x10, &[], None);
    let (mut stream, _) = listener.accept().unwrap();

    // A large segment out.
    let data: Vec<u8> = (0..20_000u32).map(|at| (at * 7) as u8).collect();
    guest.send(0x18, &data, Some(1460));
    let mut got = vec![0; data.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == data);

    // And large segments in.
    stream.write_all(&data).unwrap();
    let (mut received, mut large) = (Vec::new(), false);
    while received.len() < data.len() {
        let (frame, part) = guest.segment();
        if !part.is_empty() {
            large |= frame.offload.segmentation.is_some() && part.len() > 1460;
            received.extend(part);
            guest.send(0x10, &[], None);
        }
    }
    assert!(received == data && large);

    // A tap that goes away takes what is sent, and gives nothing.
    assert!(Command::new("ip").args(["link", "del", "tap0"]).status().unwrap().success());
    for _ in 0..10 {
        guest.send(0x10, b"lost", None);
    }
    while guest.tap.receive().is_some() {}
}
