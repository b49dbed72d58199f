use super::*;
use crate::sink::{Frame, WavSink};
use crate::testing::{Bench, Random, Rig, read_wav, steps};
use vm_memory::{Bytes, GuestAddress};

const MS: u64 = 1_000_000;
const NAM: u16 = 0xc000;
const NABM: u16 = 0xc400;
const LIST_AT: u64 = 0x1000;
const DATA: u64 = 0x1_0000;
const IRQ: u32 = 11;
const PO: u16 = NABM + 0x10;

impl Bench<Ac97> {
    fn new(rig: Rig) -> Self {
        let memory = Self::ram();
        let router = Router::new(rig.lines.clone());
        (0..4).for_each(|wire| router.set_route(wire, IRQ as u8));
        let (ports, mixer) = (rig.ports.clone(), rig.mixer.clone());
        let card = Ac97::new(Ac97Wiring { ports, memory: memory.clone(), router, mixer }, &rig.timers);
        card.placed(PciAddress { device: 23, function: 0 });
        card.config_write(0x10, u32::MAX, NAM.into());
        card.config_write(0x14, u32::MAX, NABM.into());
        card.config_write(0x04, 0xffff, 5);
        Self { rig, memory, card }
    }

    fn outw(&self, port: u16, value: u16) {
        self.ports.write(port, Width::Word, value.into());
    }

    fn inw(&self, port: u16) -> u16 {
        self.ports.read(port, Width::Word) as u16
    }

    fn outl(&self, port: u16, value: u32) {
        self.ports.write(port, Width::Dword, value);
    }

    fn inl(&self, port: u16) -> u32 {
        self.ports.read(port, Width::Dword)
    }

    /// As Linux' snd_intel8x0 does it: cold reset, wait for the codec, volumes up, variable rates on.
    fn bring_up(&self) {
        assert_eq!(self.inl(NABM + 0x30) & 0x100, 0);
        self.outl(NABM + 0x2c, 2);
        assert_eq!(self.inl(NABM + 0x30) & 0x100, 0x100);
        assert_eq!(self.inb(NABM + 0x34) & 1, 0);
        assert_eq!(self.inb(NABM + 0x34) & 1, 1, "whoever asks next has to wait");
        self.outw(NAM, 0);
        assert_eq!(self.inb(NABM + 0x34) & 1, 0, "until the access is over");
        self.outw(NAM + 0x02, 0);
        self.outw(NAM + 0x18, 0x0808);
        self.outw(NAM + 0x2a, 1);
        for number in 0..3 {
            self.outb(NABM + 0x10 * number + 0xb, 2);
            assert_eq!(self.inb(NABM + 0x10 * number + 0xb), 0);
        }
    }

    fn descriptor(&self, index: u64, address: u64, samples: u16, control: u16) {
        let entry = address | u64::from(samples) << 32 | u64::from(control) << 48;
        self.memory.write_slice(&entry.to_le_bytes(), GuestAddress(LIST_AT + 8 * index)).unwrap();
    }

    fn put(&self, address: u64, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flatten().flat_map(|sample| sample.to_le_bytes()).collect();
        self.memory.write_slice(&bytes, GuestAddress(address)).unwrap();
    }

    fn heard(&self) -> Vec<Frame> {
        self.advance(1000 * MS);
        self.end();
        self.sink.frames()
    }
}

fn bench(rate: u32) -> Bench<Ac97> {
    let bench = Bench::new(Rig::new(rate));
    bench.bring_up();
    bench
}

fn sine(n: usize) -> Frame {
    let angle = n as f64 * std::f64::consts::TAU * 440.0 / 48_000.0;
    [(angle.sin() * 32_000.0) as i16, (angle.cos() * 10_000.0) as i16]
}

#[test]
fn it_is_found() {
    let bench = Bench::new(Rig::new(48_000));
    assert_eq!(bench.card.config_read(0), 0x2415_8086);
    assert_eq!(bench.card.config_read(8) >> 8, 0x04_01_00);
    assert_eq!(bench.card.bars(), [(0x10, 256, true), (0x14, 64, true)]);
    bench.bring_up();
    assert_eq!([bench.inw(NAM + 0x7c), bench.inw(NAM + 0x7e)], [0x8384, 0x7600]);
    // A second codec: none.
    assert_eq!(bench.inw(NAM + 0x80), 0xffff);
    assert_eq!(bench.inl(NABM + 0x30) & 0x8000, 0x8000);
    bench.outl(NABM + 0x30, 0x8000);
    assert_eq!(bench.inl(NABM + 0x30) & 0x8000, 0);
    // Boxes after a reset; registers side by side in a wider access.
    assert_eq!(bench.inl(PO + 4), 0x0001_0000);
    bench.outb(PO + 5, 0x7f);
    bench.outl(PO, 0x1234_5677);
    assert_eq!((bench.inl(PO), bench.inw(PO + 4)), (0x1234_5670, 0x1f00));
}

#[test]
fn the_codec_keeps_what_it_has_bits_for() {
    let bench = bench(48_000);
    for (register, written, read) in [
        (0x02, 0x3f3f, 0x1f1f),
        (0x02, 0x8a05, 0x8a05),
        (0x18, 0xffff, 0x9f1f),
        (0x0a, 0xffff, 0x801e),
        (0x04, 0xffff, 0),
        (0x28, 0xffff, 0x0809),
        (0x26, 0x0200, 0x020d),
        (0x26, 0x0800, 0x0803),
        (0x26, 0x0000, 0x000f),
        (0x7c, 0, 0x8384),
        (0x2c, 44_100, 44_100),
        (0x2c, 100, 8000),
        (0x32, 0xffff, 48_000),
        (0x34, 8000, 48_000),
        (0x2a, 8, 8),
        (0x2c, 44_100, 48_000),
        (0x34, 8000, 8000),
    ] {
        bench.outw(NAM + register, written);
        assert_eq!(bench.inw(NAM + register), read, "{register:#x}");
    }
    bench.outw(NAM, 0);
    assert_eq!([0x02, 0x18, 0x34, 0x2a].map(|register| bench.inw(NAM + register)), [0x8000, 0x8808, 48_000, 0]);
    assert_eq!((bench.inb(NAM + 2), bench.inl(NAM)), (0xff, 0x8000_6940), "bytes are not for the codec");
}

#[test]
fn a_sine_arrives_in_the_recording_as_it_is() {
    // 32 descriptors in a ring, as Linux has them: an interrupt for each, and the last valid index moved on at each.
    const FRAMES: usize = 512;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.wav");
    let sink = Arc::new(WavSink::create(&path, 48_000).unwrap());
    let bench = Bench::new(Rig::with(sink.clone()));
    bench.bring_up();
    let at = |block: usize| DATA + (block % 32 * FRAMES * 4) as u64;
    let fill = |block: usize| {
        let frames: Vec<Frame> = (block * FRAMES..(block + 1) * FRAMES).map(sine).collect();
        bench.put(at(block), &frames);
    };
    for block in 0..32 {
        fill(block);
        bench.descriptor(block as u64, at(block), 2 * FRAMES as u16, 0x8000);
    }
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 5, 31);
    bench.outb(PO + 0xb, 0x11);
    let block_ns = FRAMES as u64 * 1_000_000_000 / 48_000 + 1;
    for block in 0..200 {
        assert_eq!(bench.inb(PO + 4), (block % 32) as u8);
        bench.advance(block_ns);
        assert!(bench.level(IRQ));
        assert_eq!(bench.inl(NABM + 0x30) & 0xe0, 0x40);
        assert_eq!(bench.inw(PO + 6) & 8, 8);
        bench.outw(PO + 6, 8);
        assert!(!bench.level(IRQ));
        if block < 199 - 31 {
            fill(block + 32);
            bench.outb(PO + 5, (block % 32) as u8);
        }
    }
    assert_eq!(bench.inw(PO + 6), 7, "the last valid buffer is done: halted");
    bench.advance(1000 * MS);
    assert_eq!(bench.timers.next_deadline(), None);
    drop(bench);
    drop(sink);
    let (rate, frames) = read_wav(&path);
    let expected: Vec<Frame> = (0..200 * FRAMES).map(sine).collect();
    assert_eq!((rate, frames.len()), (48_000, expected.len()));
    assert!(frames == expected);
}

#[test]
fn it_halts_at_the_last_valid_buffer_and_goes_on_with_a_new_one() {
    let bench = bench(48_000);
    for index in 0..4 {
        bench.put(DATA + 0x1000 * index, &[[index as i16 + 1; 2]; 480]);
        bench.descriptor(index, DATA + 0x1000 * index, 960, 0);
    }
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 5, 1);
    bench.outb(PO + 0xb, 0x05);
    assert_eq!((bench.inb(PO + 4), bench.inb(PO + 0xa), bench.inw(PO + 8)), (0, 1, 960));
    bench.advance(5 * MS);
    assert_eq!((bench.inw(PO + 8), bench.inb(PO + 6)), (480, 0));
    bench.advance(15 * MS);
    assert_eq!((bench.inb(PO + 4), bench.inb(PO + 6), bench.level(IRQ)), (1, 7, true));
    bench.outw(PO + 6, 0x1c);
    assert_eq!((bench.inb(PO + 6), bench.level(IRQ)), (3, false), "what it is in is no event");
    bench.outb(PO + 5, 3);
    assert_eq!((bench.inb(PO + 4), bench.inb(PO + 6)), (2, 0));
    bench.advance(20 * MS);
    assert_eq!(bench.inb(PO + 6), 7);
    let expected: Vec<Frame> = (1..5).flat_map(|level| [[level; 2]; 480]).collect();
    assert_eq!(bench.heard(), expected);
}

#[test]
fn a_pause_keeps_the_place() {
    let bench = bench(48_000);
    let frames: Vec<Frame> = (0..960).map(sine).collect();
    bench.put(DATA, &frames);
    bench.descriptor(0, DATA, 1920, 0x8000);
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 0xb, 0x11);
    bench.advance(10 * MS);
    bench.outb(PO + 0xb, 0x10);
    assert_eq!((bench.inb(PO + 6), bench.inw(PO + 8)), (1, 960));
    bench.advance(500 * MS);
    assert_eq!(bench.timers.next_deadline(), None);
    bench.outb(PO + 0xb, 0x11);
    bench.advance(10 * MS);
    assert_eq!((bench.inb(PO + 6), bench.level(IRQ)), (0x0f, true));
    let heard = bench.heard();
    assert_eq!((heard[..480] == frames[..480], heard[480..].len()), (true, 24_000 + 480));
    assert_eq!(heard[24_480..], frames[480..]);
}

#[test]
fn rates_and_volumes() {
    let bench = bench(48_000);
    bench.outw(NAM + 0x2c, 24_000);
    // Left 6 dB down by the master, right 6 dB up by PCM and down again by 1.5 dB.
    bench.outw(NAM + 0x02, 0x0401);
    bench.outw(NAM + 0x18, 0x0804);
    bench.put(DATA, &[[1000, 1000]; 240]);
    bench.descriptor(0, DATA, 480, 0);
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 0xb, 0x01);
    bench.advance(10 * MS - 1);
    assert_eq!(bench.inb(PO + 6), 0);
    bench.advance(1);
    assert_eq!(bench.inb(PO + 6), 7);
    assert_eq!(bench.heard(), [[501, 1678]; 479]);
    // Muted, and without power, it is silent.
    for (register, value) in [(0x02, 0x8000), (0x18, 0x8808), (0x26, 0x0200)] {
        bench.outw(NAM + 0x02, 0);
        bench.outw(NAM + 0x18, 0x0808);
        bench.outw(NAM + register, value);
        bench.outb(PO + 5, 0);
        let before = bench.sink.frames().len();
        bench.outb(PO + 0xb, 2);
        bench.outl(PO, LIST_AT as u32);
        bench.outb(PO + 0xb, 1);
        let heard = bench.heard();
        assert!(heard.len() > before && heard[before..].iter().all(|frame| *frame == [0, 0]), "{register:#x}");
    }
}

#[test]
fn recording_is_silence() {
    let bench = bench(48_000);
    for (number, frames) in [(0, 480), (2, 960)] {
        let port = NABM + 0x10 * number;
        bench.memory.write_slice(&[0x55; 1924], GuestAddress(DATA)).unwrap();
        bench.descriptor(0, DATA, 960, 0x8000);
        bench.outl(port, LIST_AT as u32);
        bench.outb(port + 0xb, 0x11);
        bench.advance(frames * 1_000_000_000 / 48_000 - 1);
        assert!(!bench.level(IRQ));
        bench.advance(1);
        assert_eq!((bench.level(IRQ), bench.inl(NABM + 0x30) & 0xe0), (true, if number == 0 { 0x20 } else { 0x80 }));
        bench.outb(port + 6, 0x1c);
        let mut bytes = [1; 1924];
        bench.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        assert!(bytes[..1920].iter().all(|byte| *byte == 0) && bytes[1920] == 0x55);
    }
    assert!(bench.heard().is_empty());
}

#[test]
fn empty_and_unreachable_descriptors_do_not_hang() {
    let bench = bench(48_000);
    for index in 0..32 {
        bench.descriptor(index, u64::from(u32::MAX), if index % 2 == 0 { 0 } else { 3 }, 0x8000);
    }
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 5, 31);
    bench.outb(PO + 0xb, 0x1d);
    for _ in 0..100 {
        bench.advance(MS);
        // It never catches up with what is last.
        bench.outb(PO + 5, bench.inb(PO + 4).wrapping_sub(1));
    }
    // All of them empty, and the list nowhere.
    bench.outl(PO, 0xffff_fff8);
    bench.advance(100 * MS);
    // Without bus mastering nothing moves.
    bench.card.config_write(0x04, 0xffff, 1);
    let before = bench.inl(PO + 4);
    bench.advance(100 * MS);
    assert_eq!(bench.inl(PO + 4), before);
}

#[test]
fn state_is_restored() {
    let bench = bench(48_000);
    bench.put(DATA, &[[7, 8]; 960]);
    bench.descriptor(0, DATA, 1920, 0x8000);
    bench.outl(PO, LIST_AT as u32);
    bench.outb(PO + 0xb, 0x11);
    bench.advance(10 * MS);
    bench.card.pause();
    let saved = bench.card.save();
    bench.card.reset();
    assert_eq!(bench.inl(PO), u32::MAX, "its ports are gone");
    assert_ne!(bench.card.save(), saved);
    bench.card.restore(&saved).unwrap();
    assert_eq!(bench.card.save(), saved);
    assert_eq!((bench.inw(PO + 8), bench.inw(NAM + 2)), (960, 0));
    bench.advance(10 * MS);
    assert!(bench.level(IRQ));
    let heard = bench.heard();
    assert_eq!((heard.len(), heard.iter().position(|frame| *frame != [7, 8])), (960, None));
    assert!(bench.card.restore(&saved[..30]).is_err());
    let mut broken = Ac97State::default();
    broken.streams[1].current = 32;
    assert!(bench.card.restore(&lodge_savestate::to_record(&broken)).is_err());
    broken = Ac97State::default();
    broken.codec.registers.truncate(3);
    assert!(bench.card.restore(&lodge_savestate::to_record(&broken)).is_err());
}

#[test]
fn random_accesses_do_no_harm() {
    let bench = bench(44_100);
    let mut random = Random(0x1357_9bdf_0246_8ace);
    for _ in 0..steps(1_000_000) {
        let port = if random.below(3) == 0 { NAM } else { NABM } + random.below(0x80) as u16;
        match random.below(12) {
            0 => bench.advance(random.below(30 * MS)),
            1 => bench.outl(port, random.next() as u32),
            2 => bench.outw(port, random.next() as u16),
            3 => drop(bench.inl(port)),
            4 => drop(bench.inw(port)),
            5 => bench.outb(PO + 0xb, random.next() as u8),
            6 => bench.outl(NABM + 0x10 * random.below(3) as u16, random.pick(&[0, LIST_AT as u32, u32::MAX])),
            7 => bench.descriptor(
                random.below(32),
                random.below(1 << 21),
                random.below(0x1000) as u16,
                random.next() as u16,
            ),
            8 if random.below(50) == 0 => {
                let record = bench.card.save();
                bench.card.restore(&record).unwrap();
                assert_eq!(bench.card.save(), record);
            }
            9 if random.below(100) == 0 => bench.card.config_write(4, 0xffff, random.next() as u32 | 1),
            _ => bench.outb(port, random.next() as u8),
        }
    }
    bench.card.reset();
    bench.advance(2000 * MS);
    assert_eq!(bench.timers.next_deadline(), None);
}
