use lodge_net::segment::{self, Layout, TCP, UDP};
use lodge_net::{Accepts, Frame};
use lodge_trial::Random;

use super::*;
use crate::filter::{check_sequence, multicast_bit};
use crate::testing::{Board, MAC, RAM, frame_to, packet, restore, save, steps, wait_for};

const RING: u64 = 0x1_0000;
const TX: u64 = 0x3_0000;
const RX: u64 = 0x3_1000;
const DATA: u64 = 0x4_0000;
const BUFFERS: u64 = 0x8_0000;
/// Descriptors of each ring of the tests, and bytes of the buffers.
const COUNT: u64 = 8;
const BUFFER: u32 = 1536;
const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
const ALL: u32 = RCR_APM | RCR_AB;

struct Bench {
    board: Board,
    card: Arc<Rtl8139>,
    /// Where the driver reads in the ring.
    at: Mutex<usize>,
}

fn bench() -> Bench {
    let board = Board::new();
    let card = Rtl8139::new(board.config(), board.cable.clone(), board.wiring()).unwrap();
    board.place(&*card);
    Bench { board, card, at: Mutex::new(0) }
}

/// A card in the mode of the RTL8139.
fn started(receive: u32) -> Bench {
    let bench = bench();
    bench.start(receive);
    bench
}

/// A card in C+ mode.
fn plus(command: u16) -> Bench {
    let bench = bench();
    bench.start_plus(command);
    bench
}

impl Bench {
    fn byte(&self, register: u16, value: u8) {
        self.board.set_port(register, Width::Byte, value.into());
    }
    fn half(&self, register: u16, value: u16) {
        self.board.set_port(register, Width::Word, value.into());
    }
    fn word(&self, register: u16, value: u32) {
        self.board.set_port(register, Width::Dword, value);
    }
    fn read_byte(&self, register: u16) -> u8 {
        self.board.port(register, Width::Byte) as u8
    }
    fn read_half(&self, register: u16) -> u16 {
        self.board.port(register, Width::Word) as u16
    }
    fn read(&self, register: u16) -> u32 {
        self.board.port(register, Width::Dword)
    }

    fn causes(&self) -> u16 {
        self.read_half(IMR + 2)
    }
    fn clear(&self, causes: u16) {
        self.half(IMR + 2, causes);
    }

    fn reset(&self) {
        self.byte(CR + 3, CR_RST);
        assert_eq!(self.read_byte(CR + 3), CR_BUFE, "it is over, and the ring is empty");
    }

    fn start(&self, receive: u32) {
        self.reset();
        self.word(RBSTART, RING as u32);
        self.byte(CR + 3, CR_TE | CR_RE);
        self.word(RCR, receive);
        *self.at.lock() = 0;
    }

    fn start_plus(&self, command: u16) {
        self.reset();
        self.half(CPCR, CPCR_TX | CPCR_RX | command);
        for n in 0..COUNT {
            let end = if n + 1 == COUNT { descriptor::EOR } else { 0 };
            self.describe(TX, n, [end, 0], 0);
            self.describe(RX, n, [descriptor::OWN | end | BUFFER, 0], BUFFERS + n * 0x2000);
        }
        for (register, base) in [(TSAD, TX), (RDSAR, RX)] {
            self.word(register, base as u32);
            self.word(register + 4, 0);
        }
        self.byte(CR + 3, CR_TE | CR_RE);
        self.word(RCR, ALL);
    }

    fn describe(&self, ring: u64, at: u64, words: [u32; 2], buffer: u64) {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(buffer.to_le_bytes());
        self.board.put(ring + at * 16 + 4, &bytes[4..]);
        self.board.put(ring + at * 16, &bytes[..4]);
    }

    fn status(&self, ring: u64, at: u64) -> [u32; 2] {
        let bytes = self.board.get(ring + at * 16, 8);
        [0, 4].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    }

    /// Sends a frame in the mode of the RTL8139.
    fn send(&self, number: u16, bytes: &[u8]) {
        let data = DATA + u64::from(number) * 0x2000;
        self.board.put(data, bytes);
        self.word(TSAD + 4 * number, data as u32);
        self.word(TSD + 4 * number, bytes.len() as u32);
    }

    /// Sends a frame in C+ mode, of one descriptor.
    fn send_plus(&self, at: u64, bytes: &[u8], flags: u32, second: u32) {
        let data = DATA + at * 0x1_0000;
        self.board.put(data, bytes);
        let end = if at + 1 == COUNT { descriptor::EOR } else { 0 };
        let first = descriptor::OWN | descriptor::FS | descriptor::LS | end | flags | bytes.len() as u32;
        self.describe(TX, at, [first, second], data);
        self.byte(CONFIG5 + 1, TPPOLL_NPQ);
    }

    fn deliver(&self, bytes: Vec<u8>) {
        self.board.peer.deliver(Frame::plain(bytes));
    }

    /// The next frame of the ring, without its check sequence, which is looked at; and its status.
    #[track_caller]
    fn take(&self, size: usize) -> (Vec<u8>, u16) {
        wait_for("the frame", || self.read_byte(CR + 3) & CR_BUFE == 0);
        let mut at = self.at.lock();
        let byte = |n: usize| self.board.get(RING + ((*at + n) % size) as u64, 1)[0];
        let status = u16::from_le_bytes([byte(0), byte(1)]);
        let length = usize::from(u16::from_le_bytes([byte(2), byte(3)]));
        let bytes: Vec<u8> = (0..length).map(|n| byte(4 + n)).collect();
        let (frame, sequence) = bytes.split_at(length - 4);
        assert_eq!(sequence, check_sequence(frame));
        *at = (*at + 4 + length).next_multiple_of(4) % size;
        self.half(CAPR, (*at as u16).wrapping_sub(CAPR_BEHIND));
        (frame.to_vec(), status)
    }

    /// Frame and status of a descriptor, which is given back.
    #[track_caller]
    fn take_plus(&self, at: u64) -> (Vec<u8>, [u32; 2]) {
        wait_for("the descriptor", || self.status(RX, at)[0] & descriptor::OWN == 0);
        let words = self.status(RX, at);
        let bytes = self.board.get(BUFFERS + at * 0x2000, (words[0] & descriptor::SIZE) as usize);
        let end = if at + 1 == COUNT { descriptor::EOR } else { 0 };
        self.describe(RX, at, [descriptor::OWN | end | BUFFER, 0], BUFFERS + at * 0x2000);
        (bytes[..bytes.len() - 4].to_vec(), words)
    }
}

#[test]
fn it_is_the_card_that_drivers_look_for() {
    let bench = bench();
    assert_eq!(bench.card.config_read(0), 0x8139_10ec);
    assert_eq!(bench.card.config_read(8), 0x0200_0020);
    let address: Vec<u8> = (0..6).map(|at| bench.read_byte(at)).collect();
    assert_eq!(address, MAC);
    assert_eq!(bench.read(TCR) & 0x7cc0_0000, TCR_VERSION, "a C+");
    assert_eq!(bench.board.read(0), bench.read(0), "in memory, too");
    assert_eq!(bench.read(2), u32::from_le_bytes([MAC[2], MAC[3], MAC[4], MAC[5]]), "over two registers");
    // The EEPROM by its wires.
    let clock = |input: u8| {
        bench.byte(EEPROM_COMMAND, EE_PROGRAM | EE_CS | input);
        bench.byte(EEPROM_COMMAND, EE_PROGRAM | EE_CS | EE_SK | input);
        bench.read_byte(EEPROM_COMMAND) & EE_DO
    };
    let word = |at: u16| {
        bench.byte(EEPROM_COMMAND, EE_PROGRAM);
        for bit in (0..9).rev() {
            clock(if (0b110 << 6 | at) >> bit & 1 != 0 { EE_DI } else { 0 });
        }
        (0..16).fold(0u16, |word, _| word << 1 | u16::from(clock(0)))
    };
    assert_eq!([word(0), word(7), word(8), word(9)], [0x8129, 0x5452, 0x1200, 0x5634]);
    bench.byte(EEPROM_COMMAND, 0);
    // What was changed is loaded again.
    bench.word(0, 0x0706_0504);
    assert_eq!(bench.read_byte(0), 4);
    bench.byte(EEPROM_COMMAND, EE_LOAD);
    assert_eq!((bench.read_byte(0), bench.read_byte(EEPROM_COMMAND)), (MAC[0], 0));
    // Configuration is locked.
    bench.byte(MSR + 1, 0x20);
    assert_eq!(bench.read_byte(MSR + 1), 0);
    bench.byte(EEPROM_COMMAND, EE_CONFIGURE);
    bench.byte(MSR + 1, 0x20);
    bench.byte(EEPROM_COMMAND + 2, 0x20);
    assert_eq!((bench.read_byte(MSR + 1), bench.read_byte(EEPROM_COMMAND + 2)), (0x20, 0x2c));
}

#[test]
fn the_link_follows_the_cable() {
    let bench = started(ALL);
    bench.half(IMR, cause::PUN);
    assert_eq!((bench.read_half(BMSR) & 0x24, bench.read_byte(MSR) & MSR_LINKB), (0x24, 0));
    assert_eq!(bench.read_half(ANLPAR) & 0x01e0, 0x01e0);
    bench.board.cable.set_up(false);
    wait_for("the interrupt", || bench.board.interrupted());
    assert_eq!((bench.read_half(BMSR) & 0x24, bench.read_byte(MSR) & MSR_LINKB), (0, MSR_LINKB));
    bench.clear(cause::PUN);
    assert!(!bench.board.interrupted());
    bench.board.cable.set_up(true);
    wait_for("the interrupt", || bench.board.interrupted());
    bench.half(TSAD_STATUS + 2, 0x9300);
    assert_eq!(bench.read_half(TSAD_STATUS + 2), BMCR_RESET, "reset and negotiation clear themselves");
}

#[test]
fn four_descriptors_are_sent_in_turn() {
    let bench = started(ALL);
    bench.half(IMR, cause::TOK);
    for n in 0..10u16 {
        let frame = frame_to(MAC, 60 + usize::from(n) * 100);
        bench.send(n % 4, &frame);
        assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame)]);
        wait_for("the interrupt", || bench.board.interrupted());
        let status = bench.read(TSD + 4 * (n % 4));
        assert_eq!(status & (TSD_OWN | TSD_TOK), TSD_OWN | TSD_TOK);
        bench.clear(cause::TOK);
    }
    assert_eq!(bench.read_half(TSAD_STATUS), 0xf00f);
    // One that is not its turn waits.
    bench.send(3, &frame_to(MAC, 100));
    std::thread::sleep(std::time::Duration::from_millis(10));
    assert_eq!(bench.board.peer.count(), 0);
    bench.send(2, &frame_to(MAC, 20));
    let sent = bench.board.peer.sent(2);
    assert_eq!((sent[0].bytes.len(), sent[1].bytes.len()), (60, 100), "short ones are padded");
    // With its check sequence.
    bench.word(TCR, TCR_RESET | TCR_CRC);
    bench.send(0, &[frame_to(MAC, 100), vec![1, 2, 3, 4]].concat());
    assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame_to(MAC, 100))]);
    // Memory that is not there.
    bench.word(TSAD + 4, 0xf000_0000);
    bench.word(TSD + 4, 100);
    wait_for("the end", || bench.read(TSD + 4) & TSD_TOK != 0);
    assert_eq!(bench.board.peer.count(), 0);
}

#[test]
fn a_full_network_stops_both_modes() {
    let bench = started(ALL);
    bench.board.peer.set_full(true);
    (0..4).for_each(|n| bench.send(n, &frame_to(MAC, 100 + usize::from(n))));
    wait_for("the first", || bench.read(TSD) & TSD_OWN != 0);
    assert_eq!(bench.read(TSD + 4) & TSD_OWN, 0);
    bench.board.peer.set_full(false);
    let lengths = |sent: Vec<Frame>| sent.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>();
    assert_eq!(lengths(bench.board.peer.sent(4)), [100, 101, 102, 103]);
    let bench = plus(0);
    bench.board.peer.set_full(true);
    (0..4).for_each(|n| bench.send_plus(n, &frame_to(MAC, 100 + n as usize), 0, 0));
    wait_for("the first", || bench.status(TX, 0)[0] & descriptor::OWN == 0);
    assert_ne!(bench.status(TX, 1)[0] & descriptor::OWN, 0);
    bench.board.peer.set_full(false);
    assert_eq!(lengths(bench.board.peer.sent(4)), [100, 101, 102, 103]);
}

#[test]
fn the_ring_goes_round() {
    for (size, bits) in [(8192, 0), (16384, 1), (32768, 2), (65536, 3)] {
        let bench = started(ALL | bits << RCR_RBLEN);
        bench.half(IMR, cause::ROK);
        let mut total = 0;
        for n in 0..200 {
            let frame = frame_to(if n % 3 == 0 { BROADCAST } else { MAC }, 60 + n * 7);
            bench.deliver(frame.clone());
            let (got, status) = bench.take(size);
            assert!(got == frame, "frame {n} of a ring of {size}");
            assert_eq!(status, HEADER_OK | if n % 3 == 0 { HEADER_BROADCAST } else { HEADER_PHYSICAL });
            total += got.len();
        }
        assert!(total > 2 * size);
        assert!(bench.board.interrupted());
        bench.clear(cause::ROK);
        assert!(!bench.board.interrupted());
    }
}

#[test]
fn a_frame_may_go_on_behind_the_ring() {
    let bench = started(ALL | RCR_WRAP);
    bench.board.put(RING, &[0; 12_000]);
    for n in 0..6 {
        bench.deliver(frame_to(MAC, 1500));
        wait_for("the frame", || bench.read_byte(CR + 3) & CR_BUFE == 0);
        let at = n * 1508;
        assert_eq!(bench.board.get(RING + at + 4, 1500), frame_to(MAC, 1500), "frame {n}");
        bench.half(CAPR, (((at + 1508) % 8192) as u16).wrapping_sub(CAPR_BEHIND));
    }
    assert_eq!(bench.read_half(CAPR + 2), (6 * 1508 % 8192) as u16);
    assert_eq!(bench.board.get(RING, 2), [1, 0x40], "nothing has gone round");
}

#[test]
fn frames_wait_for_room_and_are_lost_without_a_receiver() {
    let bench = started(ALL);
    (0..20).for_each(|n| bench.deliver(frame_to(MAC, 1000 + n)));
    wait_for("a full ring", || bench.board.peer.left() == 13);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(bench.board.peer.left(), 13, "the rest waits at the network");
    (0..20).for_each(|n| assert_eq!(bench.take(8192).0.len(), 1000 + n));
    assert_eq!(bench.causes() & !cause::ROK, 0, "nothing has run over");
    bench.byte(CR + 3, CR_TE);
    bench.deliver(frame_to(MAC, 99));
    wait_for("the loss", || bench.board.peer.left() == 0);
    bench.byte(CR + 3, CR_TE | CR_RE);
    *bench.at.lock() = 0;
    bench.deliver(frame_to(MAC, 98));
    assert_eq!(bench.take(8192).0.len(), 98);
}

#[test]
fn addresses_are_filtered() {
    let another = [2, 0, 0, 0, 0, 1];
    let takes = |receive: u32, groups: u64, expected: [bool; 4]| {
        let bench = started(receive);
        bench.word(MAR, groups as u32);
        bench.word(MAR + 4, (groups >> 32) as u32);
        let destinations = [MAC, BROADCAST, GROUP, another];
        destinations.into_iter().enumerate().for_each(|(n, to)| bench.deliver(frame_to(to, 100 + n)));
        let mut got = [false; 4];
        // One that is always taken comes last.
        bench.word(RCR, receive);
        wait_for("all", || bench.board.peer.left() == 0);
        for _ in 0..expected.iter().filter(|taken| **taken).count() {
            got[bench.take(8192).0.len() - 100] = true;
        }
        assert_eq!(got, expected);
        assert_eq!(bench.read_byte(CR + 3) & CR_BUFE, CR_BUFE);
    };
    let bit = 1u64 << multicast_bit(&GROUP);
    takes(0, u64::MAX, [false; 4]);
    takes(RCR_APM, 0, [true, false, false, false]);
    takes(RCR_AB, 0, [false, true, false, false]);
    takes(RCR_AM, bit, [false, false, true, false]);
    takes(RCR_AM, !bit, [false; 4]);
    takes(RCR_AAP, 0, [true; 4]);
}

#[test]
fn descriptors_are_sent_with_all_that_c_plus_does() {
    let bench = plus(0);
    // Several of one frame.
    let frame = frame_to(MAC, 1000);
    bench.board.put(DATA, &frame);
    bench.describe(TX, 0, [descriptor::OWN | descriptor::FS | 400, 0], DATA);
    bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_ne!(bench.status(TX, 0)[0] & descriptor::OWN, 0, "the rest is not there");
    bench.describe(TX, 1, [descriptor::OWN | descriptor::LS | 600, 0], DATA + 400);
    bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
    assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame)]);
    wait_for("the end", || bench.causes() & cause::TDU != 0);
    assert_eq!([0, 1].map(|at| bench.status(TX, at)[0] & descriptor::OWN), [0, 0]);
    assert_eq!(bench.causes(), cause::TOK | cause::TDU);
    // Checksums, whatever the driver has put there.
    for (n, protocol, bit) in [(2, TCP, descriptor::TCPCS), (3, UDP, descriptor::UDPCS)] {
        let whole = packet(protocol, &[9; 321]);
        let mut frame = whole.clone();
        frame[24..26].fill(0x55);
        let at = if protocol == TCP { 50 } else { 40 };
        frame[at..at + 2].fill(0x77);
        bench.send_plus(n, &frame, descriptor::IPCS | bit, 0);
        assert_eq!(bench.board.peer.sent(1)[0].bytes, whole);
    }
    let mut tagged = packet(TCP, &[9; 321]);
    bench.send_plus(4, &tagged, descriptor::TCPCS, descriptor::TAGC | 0x0720);
    tagged.splice(12..12, [0x81, 0, 0x20, 0x07]);
    assert_eq!(bench.board.peer.sent(1)[0].bytes, tagged);
    // Large ones.
    let data: Vec<u8> = (0..20_000u32).map(|at| (at * 13) as u8).collect();
    let large = packet(TCP, &data);
    bench.send_plus(5, &large, descriptor::LGSEN | 1460 << descriptor::MSS_SHIFT, 0);
    let sent = bench.board.peer.sent(14);
    let got: Vec<u8> = sent.iter().flat_map(|frame| frame.bytes[54..].to_vec()).collect();
    assert!(got == data);
    assert!(sent.iter().all(|frame| segment::is_intact(&frame.bytes, &Layout::of(&frame.bytes).unwrap())));
    bench.board.peer.set_accepts(Accepts::ALL);
    bench.send_plus(6, &large, descriptor::LGSEN | 1460 << descriptor::MSS_SHIFT, 0);
    assert_eq!(bench.board.peer.sent(1)[0].offload.segmentation.unwrap().size, 1460);
    // And round.
    bench.send_plus(7, &frame_to(MAC, 107), 0, 0);
    bench.board.peer.sent(1);
    bench.send_plus(0, &frame_to(MAC, 108), 0, 0);
    assert_eq!(bench.board.peer.sent(1)[0].bytes.len(), 108);
    // The other ring.
    bench.word(TSAD + 8, (TX + 0x800) as u32);
    bench.board.put(DATA, &frame_to(MAC, 200));
    let flags = descriptor::OWN | descriptor::FS | descriptor::LS | descriptor::EOR | 200;
    bench.describe(TX + 0x800, 0, [flags, 0], DATA);
    bench.byte(CONFIG5 + 1, TPPOLL_HPQ | TPPOLL_FSWINT);
    assert_eq!(bench.board.peer.sent(1)[0].bytes.len(), 200);
    assert_ne!(bench.causes() & cause::SWINT, 0);
}

#[test]
fn descriptors_are_received_with_all_that_c_plus_does() {
    let bench = plus(CPCR_CHECKSUM);
    let kind = |at: u64, bytes: Vec<u8>| {
        bench.deliver(bytes.clone());
        let (got, [status, _]) = bench.take_plus(at);
        assert_eq!(got, bytes);
        assert_eq!(status & (descriptor::FS | descriptor::LS), descriptor::FS | descriptor::LS);
        status & (descriptor::IP | descriptor::IPF | descriptor::TCPF | descriptor::UDPF)
    };
    let damaged = |protocol: u8, at: usize| {
        let mut bytes = packet(protocol, &[5; 100]);
        bytes[at] ^= 1;
        bytes
    };
    assert_eq!(kind(0, frame_to(MAC, 100)), 0);
    assert_eq!(kind(1, packet(TCP, &[5; 100])), descriptor::TCP);
    assert_eq!(kind(2, packet(UDP, &[5; 100])), descriptor::UDP);
    assert_eq!(kind(3, damaged(TCP, 90)), descriptor::TCP | descriptor::TCPF);
    assert_eq!(kind(4, damaged(UDP, 90)), descriptor::UDP | descriptor::UDPF);
    assert_eq!(kind(5, damaged(TCP, 22)), descriptor::TCP | descriptor::TCPF | descriptor::IPF);
    bench.half(CPCR, CPCR_TX | CPCR_RX | CPCR_VLAN);
    let mut tagged = frame_to(BROADCAST, 200);
    tagged.splice(12..12, [0x81, 0, 0x20, 0x07]);
    bench.deliver(tagged.clone());
    let (got, [status, second]) = bench.take_plus(6);
    // Its check sequence is that of the frame with the tag.
    assert_eq!((got, second), (frame_to(BROADCAST, 200), descriptor::TAVA | 0x0720));
    assert_eq!(status & (descriptor::BAR | descriptor::PAM | descriptor::MAR), descriptor::BAR);
    bench.half(CPCR, CPCR_TX | CPCR_RX);
    bench.deliver(tagged.clone());
    assert_eq!(bench.take_plus(7).0, tagged);
    // One that needs two.
    bench.describe(RX, 0, [descriptor::OWN | 256, 0], BUFFERS);
    bench.deliver(frame_to(MAC, 1000));
    wait_for("the descriptor", || bench.status(RX, 1)[0] & descriptor::OWN == 0);
    assert_eq!(bench.status(RX, 0)[0] >> 28, 0b0010, "the first");
    assert_eq!(bench.status(RX, 1)[0] >> 28, 0b0001, "the last");
    let got = [bench.board.get(BUFFERS, 256), bench.board.get(BUFFERS + 0x2000, 744)].concat();
    assert_eq!(got, frame_to(MAC, 1000));
}

#[test]
fn descriptors_that_are_given_back_in_silence_are_found() {
    let bench = plus(0);
    (0..COUNT as usize + 3).for_each(|n| bench.deliver(frame_to(MAC, 100 + n)));
    wait_for("the last", || bench.status(RX, COUNT - 1)[0] & descriptor::OWN == 0);
    wait_for("the wait", || bench.board.peer.left() == 2 && bench.board.timers.next_deadline().is_some());
    for n in 0..COUNT {
        assert_eq!(bench.take_plus(n).0.len(), 100 + n as usize);
    }
    assert_eq!(bench.board.peer.left(), 2);
    // Nobody has told the card.
    bench.board.pass(LOOK_AGAIN);
    (0..3).for_each(|n| assert_eq!(bench.take_plus(n).0.len(), 108 + n as usize));
    wait_for("rest", || bench.board.timers.next_deadline().is_none());
}

#[test]
fn the_timer_counts_and_interrupts() {
    let bench = started(ALL);
    bench.half(IMR, cause::TIMEOUT);
    bench.board.pass(5_000);
    bench.word(TCTR, 0);
    assert_eq!(bench.read(TCTR), 0);
    bench.word(TIMER_INTERRUPT, 33_000);
    bench.board.pass(999_999);
    assert_eq!((bench.read(TCTR), bench.board.interrupted()), (32_999, false));
    bench.board.pass(1);
    assert_eq!((bench.read(TCTR), bench.board.interrupted()), (33_000, true));
    bench.clear(cause::TIMEOUT);
    bench.board.pass(1_000_000_000);
    assert!(!bench.board.interrupted(), "once a round");
    bench.word(TCTR, 0);
    let record = save(&bench.card);
    bench.word(TIMER_INTERRUPT, 0);
    bench.board.pass(2_000_000);
    assert!(!bench.board.interrupted(), "0 is never");
    restore(&bench.card, &record).unwrap();
    assert!(bench.board.interrupted(), "its time has passed");
}

#[test]
fn what_is_sent_comes_back_in_loopback() {
    let bench = started(ALL);
    bench.word(TCR, TCR_RESET | TCR_LBK);
    bench.board.cable.set_up(false);
    for n in 0..4 {
        bench.send(n, &frame_to(MAC, 200));
        assert_eq!(bench.take(8192).0, frame_to(MAC, 200));
    }
    assert_eq!(bench.board.peer.count(), 0);
}

#[test]
fn counters_are_dumped() {
    let bench = plus(0);
    bench.send_plus(0, &frame_to(MAC, 100), 0, 0);
    bench.board.peer.sent(1);
    bench.word(RCR, RCR_AAP);
    for to in [MAC, BROADCAST, GROUP, GROUP] {
        bench.deliver(frame_to(to, 100));
    }
    bench.take_plus(3);
    bench.word(TSD + 4, 0);
    bench.word(TSD, DATA as u32 | DUMP);
    assert_eq!(bench.read(TSD), DATA as u32, "it is done");
    let bytes = bench.board.get(DATA, 64);
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!([0, 8, 16, 40, 48].map(long), [1, 4, 0, 1, 1]);
    assert_eq!(bytes[56], 2);
}

#[test]
fn rings_that_make_no_sense_do_no_harm() {
    let bench = plus(0);
    // No end of a frame, and none of the ring.
    for at in 0..64 {
        bench.describe(TX, at, [descriptor::OWN | 0xffff, 0], DATA);
        bench.describe(RX, at, [descriptor::OWN, 0], BUFFERS);
    }
    bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
    bench.deliver(frame_to(MAC, 100));
    wait_for("the end", || bench.status(TX, 63)[0] & descriptor::OWN == 0);
    wait_for("the loss", || bench.causes() & cause::RER != 0);
    assert_eq!(bench.board.peer.count(), 0);
    // An end of the ring that leads past where it began.
    bench.start_plus(0);
    for at in 0..4 {
        bench.send_plus(at, &frame_to(MAC, 100), 0, 0);
    }
    bench.board.peer.sent(4);
    for at in 0..64 {
        let end = if at == 1 || at == 63 { descriptor::EOR } else { 0 };
        bench.describe(TX, at, [descriptor::OWN | end | 8, 0], DATA);
        bench.describe(RX, at, [descriptor::OWN | end, 0], BUFFERS);
    }
    bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
    wait_for("the end", || bench.status(TX, 0)[0] & descriptor::OWN == 0);
    // Rings where nothing is.
    bench.word(RDSAR + 4, 0x10_0000);
    bench.word(TSAD + 4, 0x10_0000);
    bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
    bench.deliver(frame_to(MAC, 100));
    bench.start_plus(0);
    bench.deliver(frame_to(MAC, 101));
    wait_for("the frame", || bench.status(RX, 0)[0] & descriptor::OWN == 0);
    // A ring of bytes where nothing is.
    bench.start(ALL);
    bench.word(RBSTART, u32::MAX);
    bench.deliver(frame_to(MAC, 100));
    wait_for("the frame", || bench.read_byte(CR + 3) & CR_BUFE == 0);
}

#[test]
fn a_saved_state_is_the_same_after_loading() {
    let bench = started(ALL);
    for n in 0..9 {
        bench.deliver(frame_to(MAC, 1000));
        bench.send(n % 4, &frame_to(MAC, 100));
        bench.board.peer.sent(1);
    }
    wait_for("a full ring", || bench.board.peer.left() == 2);
    bench.word(MAR, 0x1234_5678);
    bench.word(TIMER_INTERRUPT, 77_777);
    bench.half(BMSR + 2, 0x0061);
    bench.byte(EEPROM_COMMAND, EE_PROGRAM | EE_CS | EE_DI);
    bench.half(IMR, cause::TOK);
    let record = save(&bench.card);
    let device: Arc<dyn Device> = bench.card.clone();
    device.resettable().unwrap().reset();
    assert!(!bench.board.interrupted());
    assert_ne!(save(&bench.card), record);
    restore(&bench.card, &record).unwrap();
    assert_eq!(save(&bench.card), record);
    assert!(bench.board.interrupted());
    assert_eq!(bench.take(8192).0, frame_to(MAC, 1000));
    for cut in (0..record.len()).step_by(7) {
        assert!(restore(&bench.card, &record[..cut]).is_err());
    }
    let damaged = Rtl8139State { next: 4, ..Rtl8139State::default() };
    assert!(restore(&bench.card, &lodge_savestate::to_record(&damaged)).is_err());
}

#[test]
fn nothing_moves_while_it_is_paused_or_not_the_master() {
    let bench = started(ALL);
    bench.card.pause();
    bench.deliver(frame_to(MAC, 100));
    bench.send(0, &frame_to(MAC, 100));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((bench.read_byte(CR + 3) & CR_BUFE, bench.board.peer.count()), (CR_BUFE, 0));
    bench.card.resume();
    bench.take(8192);
    bench.board.peer.sent(1);
    bench.card.config_write(4, 0xffff, 3);
    bench.deliver(frame_to(MAC, 100));
    bench.send(1, &frame_to(MAC, 100));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((bench.board.peer.left(), bench.board.peer.count()), (1, 0));
    bench.card.config_write(4, 0xffff, 7);
    bench.take(8192);
    bench.board.peer.sent(1);
}

#[test]
fn random_accesses_and_rings_do_no_harm() {
    let bench = started(ALL);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let widths = [Width::Byte, Width::Word, Width::Dword];
    for _ in 0..steps(200_000) {
        let width = random.pick(&widths);
        match random.below(16) {
            0..=4 => bench.board.set_port(random.below(SPACE.into()) as u16, width, random.next() as u32),
            5..=6 => drop(bench.board.port(random.below(SPACE.into()) as u16, width)),
            7 => bench.byte(CR + 3, CR_TE | CR_RE),
            8 => bench.half(CPCR, random.below(4) as u16),
            9 => {
                let base = random.pick(&[TX, RX, RING]) as u32;
                bench.word(random.pick(&[TSAD, RDSAR, RBSTART]), base);
                bench.byte(CONFIG5 + 1, TPPOLL_NPQ);
            }
            10..=11 => {
                let ring = random.pick(&[TX, RX]) + random.below(16 * 64);
                let words = [random.next(), random.below(RAM as u64), random.next() << 24];
                bench.board.put(ring & !7, &random.pick(&words).to_le_bytes());
            }
            12 => bench.deliver(frame_to(random.pick(&[MAC, BROADCAST]), 14 + random.below(1600) as usize)),
            13 => bench.board.peer.set_full(random.below(2) == 0),
            14 => bench.board.pass(random.below(100_000)),
            _ if random.below(50) == 0 => {
                let record = save(&bench.card);
                restore(&bench.card, &record).unwrap();
            }
            _ => bench.board.cable.set_up(random.below(4) != 0),
        }
        if bench.board.peer.count() > 1000 {
            bench.board.peer.clear();
        }
    }
    bench.board.cable.set_up(true);
    bench.board.peer.set_full(false);
    let device: Arc<dyn Device> = bench.card.clone();
    device.resettable().unwrap().reset();
    bench.board.place(&*bench.card);
    wait_for("the loss of what has come", || bench.board.peer.left() == 0);
    bench.start(ALL);
    bench.board.peer.clear();
    bench.deliver(frame_to(MAC, 100));
    assert_eq!(bench.take(8192).0, frame_to(MAC, 100));
    bench.send(0, &frame_to(MAC, 100));
    bench.board.peer.sent(1);
}
