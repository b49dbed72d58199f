use lodge_net::segment::{self, Layout, TCP, UDP};
use lodge_net::{Accepts, Checksum, Frame, checksum};
use lodge_trial::Random;

use super::*;
use crate::filter::check_sequence;
use crate::testing::{BAR, Board, MAC, RAM, frame_to, packet, restore, save, steps, wait_for};

const TX: u64 = 0x1_0000;
const RX: u64 = 0x2_0000;
const DATA: u64 = 0x4_0000;
const BUFFERS: u64 = 0x8_0000;
/// Descriptors of each ring of the tests.
const COUNT: u32 = 16;
const BROADCAST: [u8; 6] = [0xff; 6];

struct Bench {
    board: Board,
    card: Arc<E1000>,
}

fn bench() -> Bench {
    let board = Board::new();
    let card = E1000::new(board.config(), board.cable.clone(), board.wiring()).unwrap();
    board.place(&*card);
    Bench { board, card }
}

/// A card whose rings are set up as drivers do it.
fn started() -> Bench {
    let bench = bench();
    bench.start(RCTL_EN | RCTL_BAM | RCTL_SECRC);
    bench
}

impl Bench {
    fn read(&self, register: u32) -> u32 {
        self.board.read(register)
    }
    fn write(&self, register: u32, value: u32) {
        self.board.write(register, value);
    }

    fn start(&self, receive: u32) {
        for (base, at) in [(RDBAL, RX), (TDBAL, TX)] {
            self.board.put(at, &[0; 16 * COUNT as usize]);
            self.write(base, at as u32);
            self.write(base + 4, 0);
            self.write(base + 8, COUNT * 16);
            self.write(base + 0x10, 0);
            self.write(base + 0x18, 0);
        }
        for n in 0..u64::from(COUNT) {
            self.board.put(RX + n * 16, &(BUFFERS + n * 0x4000).to_le_bytes());
        }
        self.write(VET, 0x8100);
        self.write(TCTL, TCTL_EN | TCTL_PSP);
        self.write(RCTL, receive);
        self.write(RDT, COUNT - 1);
        // What happened meanwhile is no news.
        self.read(ICR);
    }

    fn descriptor(&self, at: u32, words: [u64; 2]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.board.put(TX + u64::from(at) * 16, &bytes);
    }

    /// A legacy descriptor's second word.
    fn legacy(length: usize, flags: u8, cso: u8, css: u8, tag: u16) -> u64 {
        length as u64 | u64::from(cso) << 16 | u64::from(flags) << 24 | u64::from(css) << 40 | u64::from(tag) << 48
    }

    /// A data descriptor's second word.
    fn data(length: usize, flags: u8, options: u8, tag: u16) -> u64 {
        let flags = flags | command::DEXT;
        length as u64 | 1 << 20 | u64::from(flags) << 24 | u64::from(options) << 40 | u64::from(tag) << 48
    }

    fn context(&self, at: u32, flags: u8, header: u8, size: u16) {
        // IP from 14 to 33, its sum at 24; TCP from 34 on, its sum at 50.
        let first = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40;
        let flags = u64::from(flags | command::DEXT | command::IP);
        self.descriptor(at, [first, flags << 24 | u64::from(header) << 40 | u64::from(size) << 48]);
    }

    /// Sends a frame with a legacy descriptor at `at`.
    fn send(&self, at: u32, bytes: &[u8], flags: u8) {
        let data = DATA + u64::from(at) * 0x1000;
        self.board.put(data, bytes);
        let flags = flags | command::EOP | command::IFCS;
        self.descriptor(at, [data, Self::legacy(bytes.len(), flags, 0, 0, 0)]);
        self.write(TDT, (at + 1) % COUNT);
    }

    fn deliver(&self, bytes: Vec<u8>) {
        self.board.peer.deliver(Frame::plain(bytes));
    }

    /// The receive descriptor at `at`, once it is done: length, sum, status, errors, tag.
    #[track_caller]
    fn received(&self, at: u32) -> (usize, u16, u8, u8, u16) {
        let place = RX + u64::from(at) * 16;
        wait_for("the descriptor", || self.board.get(place + 12, 1)[0] & received::DD != 0);
        let word = self.board.get(place + 8, 8);
        let half = |at: usize| u16::from_le_bytes([word[at], word[at + 1]]);
        (half(0).into(), half(2), word[4], word[5], half(6))
    }

    fn buffer(&self, at: u32, length: usize) -> Vec<u8> {
        self.board.get(BUFFERS + u64::from(at) * 0x4000, length)
    }

    /// That a frame is not taken, by one that is.
    #[track_caller]
    fn refuses(&self, at: u32, bytes: Vec<u8>) {
        self.deliver(bytes);
        self.takes(at, frame_to(MAC, 100));
    }

    #[track_caller]
    fn takes(&self, at: u32, bytes: Vec<u8>) -> u8 {
        self.deliver(bytes.clone());
        let (length, _, status, ..) = self.received(at);
        assert_eq!(self.buffer(at, length), bytes);
        assert_eq!(status & (received::DD | received::EOP), received::DD | received::EOP);
        status
    }

    fn phy(&self, register: u32) -> u32 {
        self.write(MDIC, MDIC_READ | 1 << 21 | register << 16);
        let value = self.read(MDIC);
        assert_eq!(value & (MDIC_READY | MDIC_ERROR), MDIC_READY);
        value & 0xffff
    }
}

#[test]
fn it_is_the_card_that_drivers_look_for() {
    let bench = bench();
    assert_eq!(bench.card.config_read(0), 0x100e_8086);
    assert_eq!(bench.card.config_read(8), 0x0200_0003);
    assert_eq!(bench.read(RA.start), u32::from_le_bytes([MAC[0], MAC[1], MAC[2], MAC[3]]));
    assert_eq!(bench.read(RA.start + 4), RAH_AV | u32::from(MAC[4]) | u32::from(MAC[5]) << 8);
    let words: Vec<u16> = (0..64)
        .map(|at: u32| {
            bench.write(EERD, EERD_START | at << 8);
            let value = bench.read(EERD);
            assert_eq!(value & EERD_DONE, EERD_DONE);
            (value >> 16) as u16
        })
        .collect();
    assert_eq!(words[0].to_le_bytes(), MAC[..2]);
    assert_eq!(words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word)), EEPROM_SUM);
    assert_eq!(words[0x0a] >> 14, 0b01, "the signature");
    // The same by the wires, as Linux reads it.
    bench.write(EECD, EECD_REQ);
    assert_eq!(bench.read(EECD) & (EECD_GNT | EECD_PRES), EECD_GNT | EECD_PRES);
    let clock = |input: u32| {
        let lines = EECD_REQ | EECD_CS | if input != 0 { EECD_DI } else { 0 };
        bench.write(EECD, lines);
        bench.write(EECD, lines | EECD_SK);
        let output = bench.read(EECD) & EECD_DO != 0;
        bench.write(EECD, lines);
        output
    };
    for at in [0u32, 2, 0x0d, 0x3f] {
        for bit in (0..9).rev() {
            clock((0b110 << 6 | at) >> bit & 1);
        }
        let word = (0..16).fold(0, |word, _| word << 1 | u16::from(clock(0)));
        assert_eq!(word, words[at as usize], "word {at}");
        bench.write(EECD, EECD_REQ);
    }
    let mut rom = [0; 4];
    bench.board.mmio.read(BAR + 0x10_0000, &mut rom);
    assert_eq!(rom, [0x55, 0xaa, 4, 0xff]);
}

#[test]
fn registers_are_behind_two_ports_too() {
    let bench = bench();
    bench.board.set_port(IOADDR, Width::Dword, RDTR);
    bench.board.set_port(IODATA, Width::Dword, 0x1_2345);
    assert_eq!(bench.board.port(IODATA, Width::Dword), 0x2345);
    assert_eq!(bench.read(RDTR), 0x2345);
    assert_eq!(bench.board.port(IOADDR, Width::Dword), RDTR);
    assert_eq!(bench.board.port(IODATA, Width::Word), 0xffff, "other widths are nobody's");
    assert_eq!(bench.board.port(8, Width::Dword), u32::MAX);
    const RDTR: u32 = 0x2820;
}

#[test]
fn the_phy_answers_and_the_link_follows_the_cable() {
    let bench = started();
    assert_eq!((bench.phy(2), bench.phy(3)), (0x0141, 0x0c20));
    assert_eq!(bench.phy(1) & 0x24, 0x24, "link, and negotiation has ended");
    assert_eq!(bench.phy(17) & 0xac00, 0xac00, "1000 Mb/s, full duplex");
    assert_eq!(bench.read(STATUS) & (STATUS_LU | 0xc1), STATUS_LU | 0x81);
    bench.write(MDIC, MDIC_READ | MDIC_INTERRUPT | 2 << 21);
    assert_eq!(bench.read(MDIC) & (MDIC_READY | MDIC_ERROR), MDIC_READY | MDIC_ERROR, "nobody else answers");
    assert_eq!(bench.read(ICR), cause::MDAC);
    // Negotiation anew.
    bench.write(MDIC, MDIC_WRITE | 1 << 21 | 0x1340);
    assert_eq!(bench.phy(0), 0x1140, "the bit clears itself");
    assert_eq!(bench.read(ICR) & cause::LSC, cause::LSC);
    bench.write(IMS, cause::LSC);
    bench.board.cable.set_up(false);
    wait_for("the interrupt", || bench.board.interrupted());
    assert_eq!((bench.read(ICR) & cause::LSC, bench.read(STATUS) & STATUS_LU), (cause::LSC, 0));
    assert_eq!(bench.phy(1) & 0x24, 0);
    bench.board.cable.set_up(true);
    wait_for("the interrupt", || bench.board.interrupted());
    assert_eq!(bench.read(STATUS) & STATUS_LU, STATUS_LU);
    assert_eq!(bench.phy(1) & 4, 0, "that it was down is shown once");
    assert_eq!(bench.phy(1) & 4, 4);
    // Switched off, and reset.
    bench.write(MDIC, MDIC_WRITE | 1 << 21 | 0x1940);
    assert_eq!(bench.read(STATUS) & STATUS_LU, 0);
    bench.write(CTRL, CTRL_RESET | CTRL_PHY_RST);
    assert_eq!((bench.read(STATUS) & STATUS_LU, bench.read(CTRL)), (STATUS_LU, CTRL_RESET));
}

#[test]
fn a_frame_of_several_descriptors_is_sent_as_one() {
    let bench = started();
    let frame = frame_to(BROADCAST, 700);
    bench.board.put(DATA, &frame);
    bench.descriptor(0, [DATA, Bench::legacy(14, command::IFCS, 0, 0, 0)]);
    bench.descriptor(1, [DATA + 14, Bench::legacy(0, command::IFCS, 0, 0, 0)]);
    let last = command::IFCS | command::EOP | command::RS;
    bench.descriptor(2, [DATA + 14, Bench::legacy(686, last, 0, 0, 0)]);
    bench.write(TDT, 2);
    wait_for("the head", || bench.read(TDH) == 2);
    assert_eq!(bench.board.peer.count(), 0, "it has not ended");
    assert_eq!(bench.read(ICR), cause::TXQE);
    bench.write(TDT, 3);
    assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame)]);
    wait_for("the head", || bench.read(TDH) == 3);
    assert_eq!(bench.read(ICR), cause::TXDW | cause::TXQE);
    assert_eq!([0, 1, 2].map(|at: u64| bench.board.get(TX + at * 16 + 12, 1)[0] & 1), [0, 0, 1], "as RS says");
    // A short one is padded, and one with its check sequence loses that.
    bench.send(3, &frame_to(MAC, 20), 0);
    let sent = bench.board.peer.sent(1);
    assert_eq!((sent[0].bytes.len(), &sent[0].bytes[..20]), (60, &frame_to(MAC, 20)[..]));
    let frame = frame_to(MAC, 100);
    bench.board.put(DATA, &frame);
    bench.board.put(DATA + 100, &check_sequence(&frame));
    bench.descriptor(4, [DATA, Bench::legacy(104, command::EOP, 0, 0, 0)]);
    bench.write(TDT, 5);
    assert_eq!(bench.board.peer.sent(1), [Frame::plain(frame)]);
}

#[test]
fn the_ring_goes_round_and_low_descriptors_are_told() {
    let bench = started();
    bench.write(TXDCTL, 1 << 25);
    for n in 0..40 {
        bench.send(n % COUNT, &frame_to(MAC, 60 + n as usize), 0);
        let sent = bench.board.peer.sent(1);
        assert_eq!(sent[0].bytes, frame_to(MAC, 60 + n as usize));
    }
    wait_for("the cause", || bench.read(ICR) & cause::TXD_LOW != 0);
}

#[test]
fn checksums_are_made_and_tags_put_in() {
    let bench = started();
    let whole = packet(TCP, &[7; 333]);
    let mut frame = whole.clone();
    frame[24..26].fill(0);
    let pseudo = checksum::fold(checksum::pseudo_header(&frame[26..30], &frame[30..34], TCP, 353));
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    bench.board.put(DATA, &frame);
    let flags = command::EOP | command::IFCS;
    let send = |at: u32, flags: u8, tag: u16| {
        bench.context(at, command::TCP, 0, 0);
        bench.descriptor(at + 1, [DATA, Bench::data(frame.len(), flags, command::IXSM | command::TXSM, tag)]);
        bench.write(TDT, at + 2);
        bench.board.peer.sent(1).remove(0)
    };
    assert_eq!(send(0, flags, 0), Frame { offload: send_good(), bytes: whole.clone() });
    assert_eq!(send(2, flags | command::VLE, 0x2007).bytes, whole, "no VLAN mode");
    bench.write(CTRL, CTRL_RESET | CTRL_VME);
    let mut tagged = whole.clone();
    tagged.splice(12..12, [0x81, 0, 0x20, 7]);
    assert_eq!(send(4, flags | command::VLE, 0x2007).bytes, tagged);
    assert_eq!(send(6, flags, 0x2007).bytes, whole, "without the bit");
    // Without a context; and one that has no place in the frame.
    frame[24..26].copy_from_slice(&whole[24..26]);
    bench.board.put(DATA, &frame);
    bench.descriptor(8, [DATA, Bench::legacy(frame.len(), flags | command::IC, 50, 34, 0)]);
    bench.write(TDT, 9);
    assert_eq!(bench.board.peer.sent(1)[0].bytes, whole);
    bench.board.put(DATA, &whole);
    bench.descriptor(9, [DATA, Bench::legacy(64, flags | command::IC, 63, 34, 0)]);
    bench.write(TDT, 10);
    assert_eq!(bench.board.peer.sent(1)[0].bytes, whole[..64], "nothing is put in");
    // A sum that ends before the frame does is made here.
    let first = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 60 << 40 | 41 << 48;
    bench.descriptor(10, [first, u64::from(command::DEXT) << 24]);
    bench.descriptor(11, [DATA, Bench::data(whole.len(), flags, command::TXSM, 0)]);
    bench.write(TDT, 12);
    let sent = bench.board.peer.sent(1).remove(0);
    assert_eq!(sent.bytes[60..62], checksum::finish(checksum::sum(&whole[34..42])).to_be_bytes());
    fn send_good() -> lodge_net::Offload {
        lodge_net::Offload { checksum: Checksum::Good, segmentation: None }
    }
}

/// Sends a large segment from descriptor 0 on.
fn send_large(bench: &Bench, data: &[u8], size: u16) {
    let mut frame = packet(TCP, data);
    // The driver leaves length and checksums to the card.
    frame[16..18].fill(0);
    frame[24..26].fill(0);
    frame[50..52].fill(0);
    bench.board.put(DATA, &frame);
    bench.context(0, command::TCP | command::TSE, 54, size);
    let options = command::IXSM | command::TXSM;
    bench.descriptor(1, [DATA, Bench::data(54, command::TSE | command::IFCS, options, 0)]);
    let last = command::TSE | command::IFCS | command::EOP | command::RS;
    bench.descriptor(2, [DATA + 54, Bench::data(frame.len() - 54, last, 0, 0)]);
    bench.write(TDT, 3);
}

#[test]
fn a_large_segment_is_cut_or_handed_on() {
    let bench = started();
    let data: Vec<u8> = (0..20_000u32).map(|at| (at * 13) as u8).collect();
    send_large(&bench, &data, 1460);
    let sent = bench.board.peer.sent(14);
    let mut got = Vec::new();
    for frame in &sent {
        let layout = Layout::of(&frame.bytes).unwrap();
        assert!(segment::is_intact(&frame.bytes, &layout));
        got.extend_from_slice(&frame.bytes[54..]);
    }
    assert!(got == data);
    assert_eq!(bench.read(0x40f8), 1, "TSCTC");
    assert_eq!(bench.read(0x40d4), 14, "TPT");
    let bench = started();
    bench.board.peer.set_accepts(Accepts::ALL);
    send_large(&bench, &data, 1460);
    let sent = bench.board.peer.sent(1).remove(0);
    assert_eq!(sent.offload.segmentation.unwrap().size, 1460);
    assert_eq!(sent.offload.checksum, Checksum::Missing { start: 34, offset: 16 });
    assert_eq!(u16::from_be_bytes([sent.bytes[16], sent.bytes[17]]), 20_040);
    assert_eq!(checksum::fold(checksum::sum(&sent.bytes[14..34])), 0xffff, "the IP header's is there");
    assert!(sent.bytes[54..] == data);
}

#[test]
fn a_full_network_stops_the_ring() {
    let bench = started();
    bench.board.peer.set_full(true);
    for n in 0..5 {
        bench.send(n, &frame_to(MAC, 100 + n as usize), command::RS);
    }
    // One is in the cable, one in the card.
    wait_for("the head", || bench.read(TDH) == 2);
    assert_eq!(bench.board.peer.count(), 0);
    // Saved so, nothing is lost in a card of another machine.
    let record = save(&bench.card);
    let other = started();
    other.board.put(TX, &bench.board.get(TX, 256));
    other.board.put(DATA, &bench.board.get(DATA, 0x8000));
    restore(&other.card, &record).unwrap();
    bench.board.peer.set_full(false);
    let lengths = |sent: Vec<Frame>| sent.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>();
    assert_eq!(lengths(bench.board.peer.sent(5)), [100, 101, 102, 103, 104]);
    // Frame 0 was in the first machine's cable.
    assert_eq!(lengths(other.board.peer.sent(4)), [101, 102, 103, 104]);
    bench.board.cable.set_up(false);
    bench.send(5, &frame_to(MAC, 100), command::RS);
    wait_for("the head", || bench.read(TDH) == 6);
    assert_eq!(bench.board.peer.count(), 0, "into a cable that was pulled all is lost");
}

#[test]
fn addresses_are_filtered() {
    let bench = bench();
    bench.start(RCTL_EN | RCTL_SECRC);
    assert_eq!(bench.takes(0, frame_to(MAC, 200)) & received::PIF, 0);
    bench.refuses(1, frame_to(BROADCAST, 200));
    bench.refuses(2, frame_to([2, 0, 0, 0, 0, 1], 200));
    bench.refuses(3, frame_to([1, 0, 0x5e, 1, 2, 3], 200));
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_BAM | RCTL_UPE);
    bench.takes(4, frame_to(BROADCAST, 200));
    bench.takes(5, frame_to([2, 0, 0, 0, 0, 1], 200));
    bench.refuses(6, frame_to([1, 0, 0x5e, 1, 2, 3], 200));
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_MPE);
    bench.takes(7, frame_to([1, 0, 0x5e, 1, 2, 3], 200));
    // The twelve bits that each setting of MO means.
    for (at, (offset, shift)) in (8..).zip([(0, 4), (1, 3), (2, 2), (3, 0)]) {
        bench.write(RCTL, RCTL_EN | RCTL_SECRC | offset << 12);
        let group = [1, 0, 0x5e, 1, 0x35, 0xa7];
        let hash = (0xa735u32 >> shift) & 0xfff;
        bench.write(MTA.start + (hash >> 5) * 4, 1 << (hash & 31));
        assert_eq!(bench.takes(at, frame_to(group, 200)) & received::PIF, received::PIF);
        bench.write(MTA.start + (hash >> 5) * 4, 0);
    }
    // Another address, until it is not valid any more.
    bench.write(RA.start + 8, u32::from_le_bytes([2, 0, 0, 0]));
    bench.write(RA.start + 12, RAH_AV | 0x0100);
    bench.takes(12, frame_to([2, 0, 0, 0, 0, 1], 200));
    bench.write(RA.start + 12, 0x0100);
    bench.refuses(13, frame_to([2, 0, 0, 0, 0, 1], 200));
}

#[test]
fn vlans_are_filtered_and_tags_taken_out() {
    let bench = bench();
    bench.start(RCTL_EN | RCTL_SECRC);
    let mut tagged = frame_to(MAC, 200);
    tagged.splice(12..12, [0x81, 0, 0x60, 0x25]);
    assert_eq!(bench.takes(0, tagged.clone()) & received::VP, 0);
    bench.write(CTRL, CTRL_RESET | CTRL_VME);
    bench.deliver(tagged.clone());
    let (length, _, status, _, tag) = bench.received(1);
    assert_eq!((length, status & received::VP, tag), (200, received::VP, 0x6025));
    assert_eq!(bench.buffer(1, 200), frame_to(MAC, 200));
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_VFE);
    bench.refuses(2, tagged.clone());
    bench.write(VFTA.start + 4, 1 << 5);
    bench.deliver(tagged);
    assert_eq!(bench.received(3).4, 0x6025);
}

#[test]
fn large_frames_fill_several_buffers_and_the_check_sequence_may_stay() {
    let bench = bench();
    bench.start(RCTL_EN | 3 << 16);
    let frame = frame_to(MAC, 1000);
    bench.deliver(frame.clone());
    let mut got = Vec::new();
    for at in 0..4 {
        let (length, _, status, ..) = bench.received(at);
        assert_eq!(status & received::EOP != 0, at == 3);
        got.extend(bench.buffer(at, length));
    }
    assert_eq!(got[..1000], frame);
    assert_eq!(got[1000..], check_sequence(&frame));
    // Long frames are for who asks for them.
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_BSEX | 2 << 16);
    bench.refuses(4, frame_to(MAC, 4000));
    assert_eq!(bench.read(0x40ac), 1, "ROC");
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_BSEX | RCTL_LPE | 2 << 16);
    bench.takes(5, frame_to(MAC, 4000));
    // Short ones are as long as on a wire.
    bench.deliver(frame_to(MAC, 20));
    assert_eq!(bench.received(6).0, 60);
}

#[test]
fn checksums_are_looked_at() {
    let bench = started();
    let states = |status: u8| status & (received::IXSM | received::IPCS | received::TCPCS);
    let good = packet(TCP, &[1; 100]);
    bench.deliver(good.clone());
    assert_eq!(states(bench.received(0).2), received::IXSM, "nobody has asked");
    bench.write(RXCSUM, RXCSUM_IPOFL | RXCSUM_TUOFL | 14);
    let check = |at: u32, bytes: &[u8]| {
        bench.deliver(bytes.to_vec());
        let (_, _, status, errors, _) = bench.received(at);
        (states(status), errors)
    };
    assert_eq!(check(1, &good), (received::IPCS | received::TCPCS, 0));
    assert_eq!(bench.received(1).1, checksum::fold(checksum::sum(&good[14..])), "over what RXCSUM says");
    assert_eq!(check(2, &packet(UDP, &[1; 100])), (received::IPCS | received::TCPCS, 0));
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    assert_eq!(check(3, &damaged(80)), (received::IPCS | received::TCPCS, received::TCPE));
    assert_eq!(check(4, &damaged(22)), (received::IPCS, received::IPE));
    assert_eq!(check(5, &frame_to(MAC, 100)), (received::IXSM, 0), "it is not IP");
    let offload = lodge_net::Offload { checksum: Checksum::Good, segmentation: None };
    bench.board.peer.deliver(Frame { bytes: damaged(80), offload });
    assert_eq!(bench.received(6).3, 0, "what can't be damaged is not looked at");
    bench.write(RXCSUM, RXCSUM_IPOFL);
    assert_eq!(check(7, &good), (received::IPCS, 0));
}

#[test]
fn frames_wait_for_descriptors_and_are_lost_without_a_receiver() {
    let bench = started();
    bench.write(RDT, 2);
    for n in 0..6 {
        bench.deliver(frame_to(MAC, 100 + n));
    }
    assert_eq!(bench.received(1).0, 101);
    wait_for("the head", || bench.read(RDH) == 2);
    assert_eq!(bench.board.peer.left(), 4, "they wait at the network");
    let causes = bench.read(ICR);
    assert_eq!(causes & (cause::RXT0 | cause::RXDMT0), cause::RXT0 | cause::RXDMT0);
    bench.write(RDT, COUNT - 1);
    assert_eq!([2, 3, 4, 5].map(|at| bench.received(at).0), [102, 103, 104, 105]);
    assert_eq!(bench.read(ICR) & (cause::RXT0 | cause::RXDMT0), cause::RXT0, "there are many left");
    // One that needs more than there is waits in the card.
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | 3 << 16);
    bench.write(RDT, 8);
    bench.deliver(frame_to(MAC, 1000));
    bench.deliver(frame_to(MAC, 99));
    wait_for("the frame", || bench.board.peer.left() == 1);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!((bench.read(RDH), bench.board.peer.left()), (6, 1));
    bench.write(RDT, COUNT - 1);
    assert_eq!(bench.received(10).0, 99);
    // A receiver that is off loses them, with what had waited.
    bench.write(RCTL, 0);
    bench.deliver(frame_to(MAC, 98));
    wait_for("the loss", || bench.board.peer.left() == 0);
    bench.write(RCTL, RCTL_EN | RCTL_SECRC);
    bench.takes(11, frame_to(MAC, 97));
}

#[test]
fn interrupts_are_masked_and_throttled() {
    let bench = started();
    bench.write(ICS, cause::RXT0);
    assert!(!bench.board.interrupted());
    bench.write(IMS, cause::RXT0 | cause::TXDW);
    assert!(bench.board.interrupted());
    assert_eq!(bench.card.config_read(4) >> 19 & 1, 1, "the status says so");
    assert_eq!(bench.read(IMS), cause::RXT0 | cause::TXDW);
    bench.card.config_write(4, 0xffff, 0x407);
    assert!(!bench.board.interrupted(), "INTx is disabled");
    bench.card.config_write(4, 0xffff, 7);
    assert!(bench.board.interrupted());
    bench.write(IMC, cause::RXT0);
    assert!(!bench.board.interrupted());
    bench.write(IMS, cause::RXT0);
    bench.write(ICR, cause::RXT0);
    assert!(!bench.board.interrupted(), "written, a cause is cleared");
    bench.write(ICS, cause::RXT0);
    assert_eq!(bench.read(ICR), cause::RXT0);
    assert!(!bench.board.interrupted(), "read, all are");
    // 1000 * 256 ns from one to the next.
    bench.write(ITR, 1000);
    bench.write(ICS, cause::RXT0);
    assert!(bench.board.interrupted(), "the first comes at once");
    bench.read(ICR);
    bench.write(ICS, cause::TXDW);
    assert!(!bench.board.interrupted());
    bench.board.pass(255_999);
    assert!(!bench.board.interrupted());
    bench.board.pass(1);
    assert!(bench.board.interrupted());
    bench.read(ICR);
    bench.write(ICS, cause::TXDW);
    let record = save(&bench.card);
    bench.read(ICR);
    bench.board.pass(1_000_000);
    assert!(!bench.board.interrupted(), "there is no cause any more");
    restore(&bench.card, &record).unwrap();
    assert!(bench.board.interrupted(), "its time has come");
    bench.read(ICR);
    bench.write(ICS, cause::TXDW);
    bench.write(ITR, 0);
    assert!(bench.board.interrupted(), "there is no wait any more");
}

#[test]
fn what_is_sent_comes_back_in_loopback() {
    let bench = bench();
    bench.start(RCTL_EN | RCTL_SECRC | RCTL_LBM);
    bench.deliver(frame_to(MAC, 98));
    bench.send(0, &frame_to(MAC, 300), 0);
    assert_eq!(bench.received(0).0, 300);
    assert_eq!(bench.buffer(0, 300), frame_to(MAC, 300));
    // By the PHY, with nothing plugged in; more than there are descriptors.
    bench.board.cable.set_up(false);
    bench.write(RCTL, RCTL_EN | RCTL_SECRC);
    bench.write(MDIC, MDIC_WRITE | 1 << 21 | 0x4140);
    assert_eq!(bench.read(STATUS) & STATUS_LU, STATUS_LU);
    bench.write(RDT, 3);
    for n in 1..6 {
        bench.send(n, &frame_to(MAC, 300 + n as usize), 0);
    }
    wait_for("the head", || bench.read(RDH) == 3);
    bench.write(RDT, COUNT - 1);
    assert_eq!([1, 2, 3, 4, 5].map(|at| bench.received(at).0), [301, 302, 303, 304, 305]);
    assert_eq!(bench.board.peer.count(), 0, "nothing goes out");
}

#[test]
fn counters_count_and_are_cleared_by_reading() {
    let bench = started();
    for (at, length) in [(0, 60), (1, 100), (2, 1400)] {
        bench.takes(at, frame_to(MAC, length));
        bench.send(at, &frame_to(BROADCAST, length), 0);
    }
    bench.refuses(3, frame_to([2, 0, 0, 0, 0, 1], 60));
    bench.takes(4, frame_to(BROADCAST, 61));
    bench.board.peer.sent(3);
    let all = |registers: &[u32]| registers.iter().map(|at| bench.read(*at)).collect::<Vec<_>>();
    assert_eq!(all(&[0x405c, 0x4060, 0x4070, 0x4074, 0x4078, 0x40d0]), [1, 3, 1, 5, 1, 6], "received");
    assert_eq!(all(&[0x405c, 0x4060, 0x4070, 0x4074, 0x4078, 0x40d0]), [0; 6]);
    let octets = 64 + 104 + 1404;
    assert_eq!(all(&[0x40d8, 0x40dc, 0x40ec, 0x4080, 0x40f4, 0x40d4]), [1, 1, 1, 3, 3, 3], "sent");
    assert_eq!(all(&[0x4090, 0x4090, 0x4094, 0x4090]), [octets, octets, 0, 0], "the upper half clears both");
    assert_eq!(all(&[0x4088, 0x408c]), [octets + 104 + 65, 0]);
}

#[test]
fn a_reset_of_the_controller_keeps_what_is_not_its_own() {
    let bench = started();
    bench.write(RA.start, 1);
    bench.write(IMS, cause::LSC);
    bench.write(0x5808, 3);
    bench.write(MDIC, MDIC_WRITE | 1 << 21 | 4 << 16 | 0x0181);
    bench.write(CTRL, CTRL_RST);
    assert_eq!((bench.read(CTRL), bench.read(IMS), bench.read(RCTL), bench.read(0x5808)), (CTRL_RESET, 0, 0, 0));
    assert_eq!(bench.read(RA.start).to_le_bytes(), MAC[..4]);
    assert_eq!(bench.phy(4), 0x0181, "the PHY is another matter");
    bench.write(RA.start, 1);
    bench.write(CTRL_EXT, CTRL_EXT_EE_RST);
    assert_eq!(bench.read(RA.start).to_le_bytes(), MAC[..4]);
    bench.start(RCTL_EN | RCTL_SECRC);
    bench.takes(0, frame_to(MAC, 100));
    let device: Arc<dyn Device> = bench.card.clone();
    device.resettable().unwrap().reset();
    assert_eq!(bench.card.config_read(4) & 7, 0);
    bench.board.place(&*bench.card);
    assert_eq!(bench.phy(4), 0x0de1);
    bench.start(RCTL_EN | RCTL_SECRC);
    bench.takes(0, frame_to(MAC, 100));
}

#[test]
fn nothing_moves_while_it_is_paused_or_not_the_master() {
    let bench = started();
    bench.card.pause();
    bench.deliver(frame_to(MAC, 100));
    bench.send(0, &frame_to(MAC, 100), 0);
    bench.write(IMS, cause::ALL);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((bench.read(TDH), bench.read(RDH), bench.board.peer.count()), (0, 0, 0));
    bench.card.resume();
    bench.received(0);
    bench.board.peer.sent(1);
    bench.card.config_write(4, 0xffff, 3);
    bench.deliver(frame_to(MAC, 100));
    bench.send(1, &frame_to(MAC, 100), 0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((bench.read(TDH), bench.read(RDH), bench.board.peer.left()), (1, 1, 1));
    bench.card.config_write(4, 0xffff, 7);
    bench.received(1);
    bench.board.peer.sent(1);
}

#[test]
fn rings_that_make_no_sense_do_no_harm() {
    let bench = started();
    // Descriptors, data and ends where nothing is.
    bench.write(TDBAL + 4, 0x10_0000);
    bench.write(TDT, COUNT - 1);
    wait_for("the head", || bench.read(TDH) == COUNT - 1);
    bench.write(TDBAL + 4, 0);
    bench.descriptor(COUNT - 1, [u64::MAX - 3, Bench::legacy(100, command::EOP | command::RS, 0, 0, 0)]);
    bench.write(TDT, 0);
    wait_for("the head", || bench.read(TDH) == 0);
    assert_eq!(bench.board.peer.count(), 0);
    for tail in [COUNT, 0xffff] {
        bench.write(TDT, tail);
        bench.write(RDT, tail);
        assert_eq!((bench.read(TDH), bench.read(RDH)), (0, 0));
    }
    bench.write(TDLEN, 0);
    bench.write(RDLEN, 0);
    bench.deliver(frame_to(MAC, 100));
    // A frame without an end, larger than frames are.
    bench.start(RCTL_EN | RCTL_SECRC);
    for at in 0..COUNT - 1 {
        bench.descriptor(at, [DATA, Bench::data(0xf_ffff, command::IFCS, 0, 0)]);
    }
    bench.descriptor(COUNT - 1, [DATA, Bench::data(100, command::IFCS | command::EOP | command::RS, 0, 0)]);
    bench.write(TDT, COUNT - 1);
    wait_for("the head", || bench.read(TDH) == COUNT - 1);
    bench.write(TDT, 0);
    wait_for("the head", || bench.read(TDH) == 0);
    assert_eq!(bench.board.peer.count(), 0);
    bench.send(0, &frame_to(MAC, 100), 0);
    assert_eq!(bench.board.peer.sent(1)[0].bytes, frame_to(MAC, 100));
    // A ring too small for a frame loses it rather than wait for ever.
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | 3 << 16);
    bench.received(0);
    bench.write(RDH, 1);
    bench.write(RDLEN, 128);
    bench.write(RDT, 7);
    bench.write(RCTL, RCTL_EN | RCTL_SECRC | RCTL_LPE | 3 << 16);
    bench.deliver(frame_to(MAC, 8000));
    bench.takes(1, frame_to(MAC, 101));
}

#[test]
fn a_saved_state_is_the_same_after_loading() {
    let bench = started();
    let mut random = Random(0x1234_5678_9abc_def1);
    for (register, ..) in STORED {
        bench.write(register, random.next() as u32);
    }
    for table in [MTA, RA, VFTA] {
        table.step_by(4).for_each(|register| bench.write(register, random.next() as u32));
    }
    bench.takes_nothing_more();
    bench.send(0, &frame_to(MAC, 100), command::RS);
    bench.board.peer.sent(1);
    bench.descriptor(1, [DATA, Bench::legacy(50, command::IFCS, 0, 0, 0)]);
    bench.write(TDT, 2);
    wait_for("the head", || bench.read(TDH) == 2);
    bench.write(ITR, 7);
    bench.write(VET, 0x88a8);
    bench.write(EECD, EECD_REQ | EECD_CS | EECD_DI | EECD_SK);
    let record = save(&bench.card);
    let device: Arc<dyn Device> = bench.card.clone();
    device.resettable().unwrap().reset();
    assert_ne!(save(&bench.card), record);
    restore(&bench.card, &record).unwrap();
    assert_eq!(save(&bench.card), record);
    // The frame that was half there goes on.
    bench.descriptor(2, [DATA + 50, Bench::legacy(50, command::IFCS | command::EOP, 0, 0, 0)]);
    bench.write(TDT, 3);
    assert_eq!(bench.board.peer.sent(1)[0].bytes, frame_to(MAC, 100));
    for cut in (0..record.len()).step_by(7) {
        assert!(restore(&bench.card, &record[..cut]).is_err());
    }
    let damaged = E1000State { stored: vec![0; 3], ..E1000State::default() };
    assert!(restore(&bench.card, &lodge_savestate::to_record(&damaged)).is_err());
}

impl Bench {
    /// Receives nothing, so that a saved state can be compared.
    fn takes_nothing_more(&self) {
        self.write(RCTL, RCTL_EN);
    }
}

#[test]
fn random_accesses_and_rings_do_no_harm() {
    let bench = started();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let interesting = [RDBAL, RDLEN, RDH, RDT, TDBAL, TDLEN, TDH, TDT, RCTL, TCTL, CTRL, MDIC, EECD, ICS, IMS, ITR];
    for _ in 0..steps(200_000) {
        match random.below(16) {
            0..=5 => {
                let register = random.pick(&interesting);
                let value = match register {
                    TDT | RDT | TDH | RDH => random.below(u64::from(COUNT) + 2) as u32,
                    RCTL => random.next() as u32 | RCTL_EN,
                    TCTL => TCTL_EN,
                    TDBAL => TX as u32,
                    RDBAL => RX as u32,
                    TDLEN | RDLEN => 16 * COUNT,
                    CTRL => random.next() as u32 & if random.below(16) == 0 { u32::MAX } else { !CTRL_RST },
                    _ => random.next() as u32,
                };
                bench.write(register, value);
            }
            6 => bench.write(random.below(BAR_SIZE) as u32, random.next() as u32),
            7..=8 => drop(bench.read(random.below(BAR_SIZE) as u32)),
            9..=11 => {
                let ring = random.pick(&[TX, RX]) + random.below(16 * u64::from(COUNT));
                let word = [random.next(), random.below(RAM as u64), random.next() << 24];
                bench.board.put(ring & !7, &random.pick(&word).to_le_bytes());
            }
            12 => bench.deliver(frame_to(MAC, 14 + random.below(1600) as usize)),
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
    bench.start(RCTL_EN | RCTL_SECRC);
    bench.board.peer.clear();
    bench.takes(0, frame_to(MAC, 100));
    bench.send(0, &frame_to(MAC, 100), 0);
    bench.board.peer.sent(1);
}
