use lodge_net::Frame;
use lodge_trial::Random;

use super::*;
use crate::filter::{check_sequence, multicast_bit};
use crate::testing::{Board, MAC, PORTS as PCI_PORTS, frame_to, restore, save, steps, wait_for};

const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
/// Pages as drivers use them: six to send from, the rest is the ring.
const TRANSMIT: u8 = 0x40;
const START: u8 = 0x46;
const STOP: u8 = 0x80;
/// DCR for words, and for bytes.
const WORDS: u8 = 0x49;
const BYTES: u8 = 0x48;

struct Bench {
    board: Board,
    card: Arc<Ne2000>,
    base: u16,
    /// The next page of the ring that the driver reads.
    next: Mutex<u8>,
}

/// The card for ISA, and that for PCI.
fn benches() -> [Bench; 2] {
    let board = Board::new();
    let line = IrqLine::new(board.wire.clone(), IsaConfig::INTERRUPT);
    let config = IsaConfig { name: "net0".into(), base: IsaConfig::BASE };
    let card = Ne2000::isa(config, board.cable.clone(), line).unwrap();
    let device: Arc<dyn Device> = card.clone();
    assert!(device.clone().pci().is_none());
    board.ports.attach(&device.port().unwrap()).unwrap();
    let isa = Bench { board, card, base: IsaConfig::BASE, next: Mutex::default() };
    let board = Board::new();
    let card = Ne2000::pci(board.config(), board.cable.clone(), board.wiring()).unwrap();
    let device: Arc<dyn Device> = card.clone();
    assert!(device.clone().port().is_none());
    board.place(&*device.pci().unwrap());
    [isa, Bench { board, card, base: PCI_PORTS, next: Mutex::default() }]
}

fn started() -> [Bench; 2] {
    let benches = benches();
    benches.iter().for_each(|bench| bench.start(WORDS, RCR_AB));
    benches
}

impl Bench {
    fn write(&self, offset: u16, value: u8) {
        self.board.ports.write(self.base + offset, Width::Byte, value.into());
    }
    fn read(&self, offset: u16) -> u8 {
        self.board.ports.read(self.base + offset, Width::Byte) as u8
    }

    /// Sets the card up as drivers do it.
    fn start(&self, data: u8, receive: u8) {
        self.read(RESET);
        self.write(0, 0x21);
        self.write(0xe, data);
        self.write(0xc, 0x20);
        self.write(0xd, 2);
        for (offset, value) in [(1, START), (2, STOP), (3, START), (7, 0xff), (0xf, 0)] {
            self.write(offset, value);
        }
        self.write(0, 0x61);
        (0..6).for_each(|at| self.write(1 + at, MAC[usize::from(at)]));
        (0..8).for_each(|at| self.write(8 + at, 0));
        self.write(7, START + 1);
        *self.next.lock() = START + 1;
        self.write(0, 0x22);
        self.write(0xd, 0);
        self.write(0xc, receive);
    }

    fn remote(&self, address: u16, count: u16, command: u8) {
        self.write(0, 0x22);
        for (offset, value) in [(8, address), (0xa, count)] {
            self.write(offset, value as u8);
            self.write(offset + 1, (value >> 8) as u8);
        }
        self.write(0, 0x02 | command);
    }

    fn width(&self) -> Width {
        self.write(0, 0xa2);
        let words = self.read(0xe) & DCR_WTS != 0;
        self.write(0, 0x22);
        if words { Width::Word } else { Width::Byte }
    }

    fn get(&self, address: u16, length: u16) -> Vec<u8> {
        let width = self.width();
        self.write(7, cause::RDC);
        self.remote(address, length, CR_READ);
        let mut bytes = Vec::new();
        while bytes.len() < length.into() {
            assert_eq!(self.read(7) & cause::RDC, 0, "not yet");
            bytes.extend(&self.board.ports.read(self.base + DATA, width).to_le_bytes()[..width.bytes()]);
        }
        assert_eq!(self.read(7) & cause::RDC, cause::RDC);
        bytes.truncate(length.into());
        bytes
    }

    fn put(&self, address: u16, bytes: &[u8]) {
        let width = self.width();
        self.remote(address, bytes.len() as u16, CR_WRITE);
        for part in bytes.chunks(width.bytes()) {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            self.board.ports.write(self.base + DATA, width, u32::from_le_bytes(word));
        }
    }

    /// Puts a frame where it is sent from, and sends it.
    fn send(&self, bytes: &[u8]) {
        self.put(u16::from(TRANSMIT) * PAGE, bytes);
        self.write(4, TRANSMIT);
        self.write(5, bytes.len() as u8);
        self.write(6, (bytes.len() >> 8) as u8);
        self.write(0, 0x26);
    }

    fn wait_sent(&self) -> u8 {
        wait_for("the end", || self.read(0) & CR_TXP == 0);
        let status = self.read(4);
        let expected = if status & TSR_ABT != 0 { cause::TXE } else { cause::PTX };
        assert_eq!(self.read(7) & (cause::PTX | cause::TXE), expected);
        self.write(7, expected);
        status
    }

    fn deliver(&self, bytes: Vec<u8>) {
        self.board.peer.deliver(Frame::plain(bytes));
    }

    fn current(&self) -> u8 {
        self.write(0, 0x62);
        let page = self.read(7);
        self.write(0, 0x22);
        page
    }

    /// The next frame of the ring, its check sequence looked at, and its status.
    #[track_caller]
    fn take(&self) -> (Vec<u8>, u8) {
        let mut next = self.next.lock();
        wait_for("the frame", || self.current() != *next);
        let at = u16::from(*next) * PAGE;
        let header = self.get(at, 4);
        let length = u16::from_le_bytes([header[2], header[3]]);
        // Remote DMA goes round by itself.
        let bytes = self.get(at + 4, length);
        let (frame, sequence) = bytes.split_at(bytes.len() - 4);
        assert_eq!(sequence, check_sequence(frame));
        let pages = (4 + length).div_ceil(PAGE) as u8;
        let after = if *next + pages >= STOP { *next + pages - STOP + START } else { *next + pages };
        assert_eq!(header[1], after);
        *next = after;
        self.write(3, if after == START { STOP - 1 } else { after - 1 });
        (frame.to_vec(), header[0])
    }
}

#[test]
fn it_is_the_card_that_drivers_look_for() {
    for bench in benches() {
        // Resetting: the cause is there after it and goes with the start.
        bench.read(RESET);
        assert_eq!((bench.read(7), bench.read(0)), (cause::RST, 0x21));
        bench.write(7, 0xff);
        assert_eq!(bench.read(7), cause::RST, "it stays as long as it is stopped");
        bench.write(0, 0x22);
        assert_eq!(bench.read(7), 0);
        bench.write(0xe, BYTES);
        let prom = bench.get(0, 32);
        let twice: Vec<u8> = MAC.iter().flat_map(|byte| [*byte; 2]).collect();
        assert_eq!((&prom[..12], &prom[28..]), (&twice[..], &[SIGNATURE; 4][..]));
        bench.write(0xe, WORDS);
        assert_eq!(bench.get(0, 32), prom);
    }
    let [isa, pci] = benches();
    assert_eq!(pci.card.config_read(0), 0x8029_10ec);
    assert_eq!(pci.card.config_read(8) >> 16, 0x0200);
    assert_eq!([pci.read(0xa), pci.read(0xb)], ID);
    assert_ne!([isa.read(0xa), isa.read(0xb)], ID);
    // Full duplex, as Linux sets it.
    pci.write(0, 0xe1);
    assert_eq!([pci.read(0xe), pci.read(0xf)], ID_PAGE_3);
    pci.write(6, 0);
    assert_eq!(pci.read(6), CONFIG3_FUDUP, "it is locked");
    pci.write(1, EE_MODE);
    pci.write(6, 0);
    assert_eq!(pci.read(6), 0);
    let mut rom = [0; 2];
    pci.board.mmio.read(crate::testing::BAR + 0x10_0000, &mut rom);
    assert_eq!(rom, [0x55, 0xaa]);
}

#[test]
fn memory_is_read_and_written_by_remote_dma() {
    for bench in benches() {
        for data in [BYTES, WORDS] {
            bench.start(data, 0);
            let bytes: Vec<u8> = (0..0x3a00u32).map(|at| (at * 31 + u32::from(data)) as u8).collect();
            bench.put(0x4600, &bytes);
            assert!(bench.get(0x4600, 0x3a00) == bytes);
            assert_eq!((bench.read(8), bench.read(9)), (0, START), "at the end of the ring it goes round");
            assert_eq!(bench.get(0x7f00, 0x200), [&bytes[0x3900..], &bytes[..0x100]].concat());
            // What is not there, and what cannot be written.
            bench.put(0, &[0; 32]);
            assert_eq!(bench.get(0, 1)[0], MAC[0]);
            assert_eq!(bench.get(0x1000, 2), [0xff; 2]);
            // Without a count nothing moves.
            bench.write(7, cause::RDC);
            bench.remote(0x4600, 0, CR_READ);
            assert_eq!(bench.read(7) & cause::RDC, cause::RDC);
            assert_eq!(bench.board.ports.read(bench.base + DATA, Width::Word), 0xffff);
        }
        // Double words are two words.
        bench.put(0x4600, &[1, 2, 3, 4]);
        bench.remote(0x4600, 4, CR_READ);
        assert_eq!(bench.board.ports.read(bench.base + DATA, Width::Dword), 0x0403_0201);
        bench.remote(0x4600, 4, CR_WRITE);
        bench.board.ports.write(bench.base + DATA, Width::Dword, 0x0807_0605);
        assert_eq!(bench.get(0x4600, 4), [5, 6, 7, 8]);
    }
}

#[test]
fn registers_are_in_pages() {
    for bench in benches() {
        bench.start(WORDS, RCR_AB | RCR_AM);
        bench.write(0, 0xa2);
        let page_2 = [1, 2, 4, 0xc, 0xd, 0xe].map(|offset| bench.read(offset));
        assert_eq!(page_2, [START, STOP, 0, 0xc0 | RCR_AB | RCR_AM, 0xe0, 0x80 | WORDS]);
        bench.write(0, 0x62);
        assert_eq!((1..7).map(|offset| bench.read(offset)).collect::<Vec<_>>(), MAC);
        bench.write(0, 0x22);
        assert_eq!(bench.read(3), START);
        assert_eq!(bench.board.ports.read(bench.base + 2, Width::Word) >> 8, u32::from(START), "words are two bytes");
    }
}

#[test]
fn frames_are_sent() {
    for bench in started() {
        bench.write(0xf, cause::PTX);
        for length in [60, 61, 1000, 1514] {
            bench.send(&frame_to(MAC, length));
            assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame_to(MAC, length))]);
            wait_for("the interrupt", || bench.board.interrupted());
            assert_eq!(bench.wait_sent(), TSR_PTX);
            assert!(!bench.board.interrupted());
        }
        // With its check sequence.
        bench.write(0xd, TCR_CRC);
        bench.send(&[frame_to(MAC, 100), vec![1, 2, 3, 4]].concat());
        bench.wait_sent();
        assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame_to(MAC, 100))]);
        bench.write(0xd, 0);
        // No room in the network: it is under way until there is.
        bench.board.peer.set_full(true);
        bench.send(&frame_to(MAC, 100));
        bench.wait_sent();
        bench.send(&frame_to(MAC, 101));
        std::thread::sleep(std::time::Duration::from_millis(5));
        bench.write(0, 0x22);
        assert_eq!(bench.read(0) & CR_TXP, CR_TXP, "writing 0 changes nothing");
        bench.board.peer.set_full(false);
        bench.wait_sent();
        let sent = bench.board.peer.sent(2);
        assert_eq!(sent.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>(), [100, 101]);
        // What is no frame is given up.
        for (low, high) in [(0, 0), (13, 0), (0xff, 0xff), (0xf3, 5)] {
            bench.write(5, low);
            bench.write(6, high);
            bench.write(0, 0x26);
            assert_eq!(bench.wait_sent(), TSR_ABT);
        }
        assert_eq!(bench.board.peer.count(), 0);
    }
}

#[test]
fn the_ring_goes_round() {
    for bench in started() {
        bench.write(0xf, cause::PRX);
        for n in 0..150 {
            let to = if n % 3 == 0 { BROADCAST } else { MAC };
            let frame = frame_to(to, 60 + n * 9);
            bench.deliver(frame.clone());
            let (got, status) = bench.take();
            assert!(got == frame, "frame {n}");
            assert_eq!(status, RSR_PRX | if n % 3 == 0 { RSR_PHY } else { 0 });
            assert_eq!(bench.read(0xc), status);
        }
        assert!(bench.board.interrupted());
        bench.write(7, cause::PRX);
        assert!(!bench.board.interrupted());
    }
}

#[test]
fn frames_wait_for_room_and_are_lost_without_a_receiver() {
    for bench in started() {
        (0..20).for_each(|n| bench.deliver(frame_to(MAC, 1400 + n)));
        // 58 pages, 6 a frame: what might be a longest one has to fit.
        wait_for("a full ring", || bench.board.peer.left() == 11);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(bench.board.peer.left(), 11, "the rest waits at the network");
        (0..20).for_each(|n| assert_eq!(bench.take().0.len(), 1400 + n));
        assert_eq!(bench.read(7) & 0x10, 0, "nothing has run over");
        bench.write(0, 0x21);
        bench.deliver(frame_to(MAC, 99));
        wait_for("the loss", || bench.board.peer.left() == 0);
        bench.write(0, 0x22);
        bench.deliver(frame_to(MAC, 98));
        assert_eq!(bench.take().0.len(), 98);
    }
}

#[test]
fn a_driver_that_has_not_seen_all_is_told_again() {
    for bench in started() {
        bench.deliver(frame_to(MAC, 200));
        wait_for("the frame", || bench.read(7) & cause::PRX != 0);
        // It says that it has, as Linux's does after ten.
        bench.write(7, cause::PRX);
        wait_for("the frame again", || bench.read(7) & cause::PRX != 0);
        bench.take();
        bench.write(7, cause::PRX);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(bench.read(7) & cause::PRX, 0, "there is nothing any more");
    }
}

#[test]
fn the_next_packet_is_sent_to_the_guest() {
    let [bench, _] = started();
    // Drivers that use it let BNRY be where they read next.
    bench.write(3, START + 1);
    bench.deliver(frame_to(MAC, 300));
    wait_for("the frame", || bench.current() == START + 3);
    bench.write(7, cause::RDC);
    bench.write(0, 0x02 | CR_SEND);
    let words: Vec<u8> =
        (0..152).flat_map(|_| (bench.board.ports.read(bench.base + DATA, Width::Word) as u16).to_le_bytes()).collect();
    assert_eq!(words[4..], frame_to(MAC, 300));
    assert_eq!((bench.read(7) & cause::RDC, bench.read(3)), (cause::RDC, START + 3));
}

#[test]
fn addresses_are_filtered() {
    let another = [2, 0, 0, 0, 0, 1];
    let takes = |receive: u8, groups: u64, expected: [bool; 4]| {
        let [bench, _] = benches();
        bench.start(WORDS, RCR_MON);
        bench.write(0, 0x62);
        (0..8).for_each(|at| bench.write(8 + at, (groups >> (8 * at)) as u8));
        bench.write(0, 0x22);
        bench.write(0xc, receive);
        let destinations = [MAC, BROADCAST, GROUP, another];
        destinations.into_iter().enumerate().for_each(|(n, to)| bench.deliver(frame_to(to, 100 + n)));
        wait_for("all", || bench.board.peer.left() == 0);
        let mut got = [false; 4];
        for _ in 0..expected.iter().filter(|taken| **taken).count() {
            got[bench.take().0.len() - 100] = true;
        }
        assert_eq!(got, expected);
        assert_eq!(bench.current(), *bench.next.lock(), "there is no more");
    };
    let bit = 1u64 << multicast_bit(&GROUP);
    takes(0, 0, [true, false, false, false]);
    takes(RCR_AB, 0, [true, true, false, false]);
    takes(RCR_AM, bit, [true, false, true, false]);
    takes(RCR_AM, !bit, [true, false, false, false]);
    takes(0, bit, [true, false, false, false]);
    takes(RCR_PRO, 0, [true, false, false, true]);
    // Looked at and not kept.
    let [bench, _] = benches();
    bench.start(WORDS, RCR_MON);
    (0..130).for_each(|_| bench.deliver(frame_to(MAC, 100)));
    wait_for("the cause", || bench.read(7) & cause::CNT != 0);
    wait_for("all", || bench.board.peer.left() == 0);
    let count = bench.read(0xf);
    assert!((129..=130).contains(&count), "{count}");
    assert_eq!(bench.current(), START + 1);
}

#[test]
fn loopback_is_what_diagnosis_expects() {
    for bench in started() {
        let result = |config: u8, bytes: &[u8]| {
            bench.write(0xd, config);
            bench.write(7, 0xff);
            bench.send(bytes);
            wait_for("the end", || bench.read(0) & CR_TXP == 0);
            (bench.read(4), bench.read(0xc), bench.read(7) & !cause::RDC)
        };
        // The tables of AN-937, section 6.
        assert_eq!(result(0x02, &frame_to(MAC, 64)), (0x51, 0x02, 0x06));
        assert_eq!(result(0x04, &frame_to(MAC, 64)), (0x41, 0x02, 0x06));
        assert_eq!(result(0x06, &frame_to(MAC, 64)), (0x01, 0x02, 0x06));
        assert_eq!(result(0x02, &frame_to([2, 0, 0, 0, 0, 1], 64)), (0x51, 0x01, 0x02));
        let frame = frame_to(MAC, 64);
        let sequence = check_sequence(&frame);
        assert_eq!(result(0x03, &[&frame[..], &sequence].concat()), (0x51, 0x01, 0x02));
        assert_eq!(result(0x03, &[&frame[..], &[0; 4]].concat()), (0x51, 0x02, 0x06));
        assert_eq!(result(0x03, &[&frame_to(BROADCAST, 64)[..], &[0; 4]].concat()), (0x51, 0x22, 0x06));
        assert_eq!(result(0x02, &frame).0, 0x51);
        let fifo: Vec<u8> = (0..8).map(|_| bench.read(6)).collect();
        assert_eq!(fifo, [&[68, 0, 0, frame[63]][..], &sequence].concat());
        assert_eq!((bench.board.peer.count(), bench.current()), (0, START + 1), "nothing is sent or written");
    }
}

#[test]
fn rings_that_make_no_sense_do_no_harm() {
    for bench in started() {
        for (start, stop, boundary, current) in [
            (0, 0, 0, 0),
            (0x80, 0x40, 0x40, 0x41),
            (0, 0xff, 0, 0xfe),
            (0xf0, 0xff, 0x10, 0xff),
            (0x40, 0x42, 0x40, 0x41),
        ] {
            bench.write(0, 0x21);
            bench.write(1, start);
            bench.write(2, stop);
            bench.write(3, boundary);
            bench.write(0, 0x62);
            bench.write(7, current);
            bench.write(0, 0x22);
            (0..50).for_each(|n| bench.deliver(frame_to(MAC, 60 + n * 25)));
            bench.write(0, 0x02 | CR_SEND);
            bench.write(4, current);
            bench.write(0, 0x26);
            wait_for("the end", || bench.read(0) & CR_TXP == 0);
        }
        let device: Arc<dyn Device> = bench.card.clone();
        let pause = device.pausable().unwrap();
        pause.pause();
        pause.resume();
        bench.start(WORDS, RCR_AB);
        wait_for("what was left", || bench.board.peer.left() == 0 || bench.current() != START + 1);
    }
}

#[test]
fn a_saved_state_is_the_same_after_loading() {
    for bench in started() {
        (0..10).for_each(|n| bench.deliver(frame_to(MAC, 1400 + n)));
        wait_for("a full ring", || bench.board.peer.left() == 1);
        bench.put(0x4000, &[1, 2, 3, 4]);
        bench.write(0xf, cause::PRX);
        bench.remote(0x4000, 4, CR_READ);
        bench.board.ports.read(bench.base + DATA, Width::Word);
        let record = save(&bench.card);
        let device: Arc<dyn Device> = bench.card.clone();
        device.resettable().unwrap().reset();
        assert!(!bench.board.interrupted());
        assert_ne!(save(&bench.card), record);
        bench.card.pause();
        restore(&bench.card, &record).unwrap();
        assert_eq!(bench.card.save(), record);
        bench.card.resume();
        assert!(bench.board.interrupted());
        assert_eq!(bench.board.ports.read(bench.base + DATA, Width::Word), 0x0403);
        assert_eq!(bench.take().0, frame_to(MAC, 1400));
        for cut in (0..record.len()).step_by(101) {
            assert!(restore(&bench.card, &record[..cut]).is_err());
        }
        let damaged = Ne2000State { ram: vec![0; 3], ..Ne2000State::default() };
        assert!(restore(&bench.card, &lodge_savestate::to_record(&damaged)).is_err());
    }
}

#[test]
fn nothing_moves_while_it_is_paused() {
    let [bench, _] = started();
    bench.card.pause();
    bench.deliver(frame_to(MAC, 100));
    bench.send(&frame_to(MAC, 100));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((bench.current(), bench.board.peer.count(), bench.read(0) & CR_TXP), (START + 1, 0, CR_TXP));
    bench.card.resume();
    bench.take();
    bench.board.peer.sent(1);
}

#[test]
fn random_accesses_do_no_harm() {
    for bench in started() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let widths = [Width::Byte, Width::Word, Width::Dword];
        for _ in 0..steps(100_000) {
            let (width, offset) = (random.pick(&widths), random.below(PORTS.into()) as u16);
            match random.below(16) {
                0..=5 => bench.board.ports.write(bench.base + offset, width, random.next() as u32),
                6..=8 => drop(bench.board.ports.read(bench.base + offset, width)),
                9 => bench.write(0, random.pick(&[0x22, 0x26, 0x62, 0x0a, 0x12, 0x1a])),
                10 => bench.write(0xd, random.pick(&[0, 0, 1, 2])),
                11..=12 => bench.deliver(frame_to(random.pick(&[MAC, BROADCAST]), 14 + random.below(1600) as usize)),
                13 => bench.board.peer.set_full(random.below(2) == 0),
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
        device.clone().resettable().unwrap().reset();
        if let Some(function) = device.pci() {
            bench.board.place(&*function);
        }
        wait_for("the loss of what has come", || bench.board.peer.left() == 0);
        bench.start(WORDS, 0);
        bench.board.peer.clear();
        bench.deliver(frame_to(MAC, 100));
        assert_eq!(bench.take().0, frame_to(MAC, 100));
        bench.send(&frame_to(MAC, 100));
        bench.board.peer.sent(1);
    }
}
