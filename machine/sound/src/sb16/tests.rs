use super::*;
use crate::sink::{Frame, WavSink};
use crate::testing::{Bench, Random, Rig, read_wav, steps};
use vm_memory::{Bytes, GuestAddress};

const MS: u64 = 1_000_000;
const BUFFER: u64 = 0x2_0000;

impl Bench<Sb16> {
    fn new(rig: Rig) -> Self {
        let memory = Self::ram();
        let dma = Dma::new(memory.clone());
        let interrupts = [None, Some(rig.line(5)), Some(rig.line(7)), None];
        let card = Sb16::new(Sb16Wiring { dma: dma.clone(), interrupts, mixer: rig.mixer.clone() }, &rig.timers);
        rig.attach(dma);
        rig.attach(card.clone());
        Self { rig, memory, card }
    }

    /// As drivers do it.
    fn reset(&self) -> bool {
        self.outb(0x226, 1);
        self.advance(10_000);
        self.outb(0x226, 0);
        self.advance(200_000);
        self.inb(0x22e) & 0x80 != 0 && self.inb(0x22a) == 0xaa
    }

    fn dsp(&self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(self.inb(0x22c) & 0x80, 0);
            self.outb(0x22c, *byte);
        }
    }

    fn answer(&self) -> Option<u8> {
        (self.inb(0x22e) & 0x80 != 0).then(|| self.inb(0x22a))
    }

    fn mixer(&self, register: u8, value: u8) {
        self.outb(0x224, register);
        self.outb(0x225, value);
    }

    fn mixed(&self, register: u8) -> u8 {
        self.outb(0x224, register);
        self.inb(0x225)
    }

    fn loudest(&self) {
        (0x30..=0x33).for_each(|register| self.mixer(register, 0xf8));
    }

    /// Programs channel 1 or 5 for `units` from [`BUFFER`] on.
    fn dma(&self, channel: u16, units: usize, mode: u8) {
        let (base, step, page) = if channel == 1 { (0x00, 1, 0x83) } else { (0xc0, 2, 0x8b) };
        let outb = |register: u16, value: u8| self.outb(base + register * step, value);
        outb(10, 5);
        outb(12, 0);
        outb(11, mode | 1);
        let address = if channel == 1 { BUFFER } else { BUFFER / 2 } as u16;
        address.to_le_bytes().into_iter().for_each(|byte| outb(2, byte));
        ((units - 1) as u16).to_le_bytes().into_iter().for_each(|byte| outb(3, byte));
        self.outb(page, (BUFFER >> 16) as u8);
        outb(10, 1);
    }

    fn put(&self, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(BUFFER)).unwrap();
    }

    fn heard(&self) -> Vec<Frame> {
        self.advance(1000 * MS);
        self.end();
        self.sink.frames()
    }
}

fn bench(rate: u32) -> Bench<Sb16> {
    let bench = Bench::new(Rig::new(rate));
    assert!(bench.reset());
    bench.loudest();
    bench
}

fn sine(n: usize) -> [i16; 2] {
    let angle = n as f64 * std::f64::consts::TAU * 440.0 / 44_100.0;
    [(angle.sin() * 30_000.0) as i16, (angle.cos() * 20_000.0) as i16]
}

#[test]
fn it_is_found_and_identified() {
    let bench = Bench::new(Rig::new(44_100));
    assert_eq!(bench.answer(), None);
    assert!(bench.reset());
    bench.dsp(&[0xe1]);
    assert_eq!([bench.answer(), bench.answer(), bench.answer()], [Some(4), Some(5), None]);
    bench.dsp(&[0xe0, 0x5a]);
    assert_eq!(bench.answer(), Some(0xa5));
    bench.dsp(&[0xe4, 0x99, 0xe8]);
    assert_eq!(bench.answer(), Some(0x99));
    bench.dsp(&[0xe3]);
    let text: Vec<u8> = std::iter::from_fn(|| bench.answer()).collect();
    assert_eq!(text, b"COPYRIGHT (C) CREATIVE TECHNOLOGY LTD, 1992.\0");
    bench.dsp(&[0xd1, 0xd8]);
    assert_eq!(bench.answer(), Some(0xff));
    bench.dsp(&[0xd3, 0xd8]);
    assert_eq!(bench.answer(), Some(0));
    // Data that are not awaited are the last ones again; unknown commands do nothing.
    assert_eq!(bench.inb(0x22a), 0);
    bench.dsp(&[0x03, 0xff]);
    assert_eq!(bench.answer(), None);
    assert_eq!((bench.mixed(0x80), bench.mixed(0x81)), (0x02, 0x22));
    // MIDI swallows commands until the next reset.
    bench.dsp(&[0x34, 0xe1]);
    assert_eq!(bench.answer(), None);
    assert!(bench.reset());
}

#[test]
fn identification_by_dma() {
    let bench = bench(44_100);
    bench.dma(1, 8, 0x44);
    // Eight answers to nothing are sums of what is always added; the first to all bits is AAh + (1-2-4+8-16+32+64-128) + 96h.
    for _ in 0..3 {
        bench.dsp(&[0xe2, 0]);
    }
    bench.dsp(&[0xe2, 0xff]);
    let mut bytes = [0; 4];
    bench.memory.read_slice(&mut bytes, GuestAddress(BUFFER)).unwrap();
    let third = 0xaau8.wrapping_add(0x96).wrapping_add(0xa5).wrapping_add(0x69);
    let all = 1i32 - 2 + 4 - 8 - 16 + 32 - 64 + 128;
    assert_eq!(bytes, [0x40, 0xe5, third, (i32::from(third) + all + 0x5a) as u8]);
}

#[test]
fn interrupts_are_raised_and_acknowledged() {
    let bench = bench(44_100);
    bench.dsp(&[0xf2]);
    assert_eq!((bench.level(5), bench.mixed(0x82)), (true, 1));
    bench.inb(0x22f);
    assert!(bench.level(5));
    bench.inb(0x22e);
    assert_eq!((bench.level(5), bench.mixed(0x82)), (false, 0));
    bench.dsp(&[0xf3]);
    bench.inb(0x22f);
    assert_eq!((bench.level(5), bench.edges(5)), (false, 2));
    // Set to 7; then to one that the board does not have.
    bench.mixer(0x80, 0x04);
    bench.dsp(&[0xf2]);
    assert_eq!((bench.level(5), bench.level(7)), (false, true));
    bench.mixer(0x80, 0x08);
    assert_eq!((bench.level(5), bench.level(7)), (false, false));
    // A reset of the mixer leaves it, as one of the DSP does, which takes the interrupt away.
    bench.mixer(0x80, 0x02);
    bench.mixer(0, 0);
    assert!(bench.level(5) && bench.mixed(0x80) == 2);
    assert!(bench.reset() && !bench.level(5));
}

#[test]
fn a_sine_arrives_in_the_recording_as_it_is() {
    // 16-bit stereo, auto-init, two blocks in a ring that the guest fills at each interrupt.
    const RING: usize = 8192;
    const BLOCK: usize = RING / 2;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.wav");
    let sink = Arc::new(WavSink::create(&path, 44_100).unwrap());
    let bench = Bench::new(Rig::with(sink.clone()));
    assert!(bench.reset());
    bench.loudest();
    let bytes =
        |from: usize| -> Vec<u8> { (from..from + BLOCK / 4).flat_map(sine).flat_map(i16::to_le_bytes).collect() };
    let place = |block: usize, bytes: &[u8]| {
        bench.memory.write_slice(bytes, GuestAddress(BUFFER + (block % 2 * BLOCK) as u64)).unwrap();
    };
    place(0, &bytes(0));
    place(1, &bytes(BLOCK / 4));
    bench.dma(5, RING / 2, 0x58);
    bench.dsp(&[0x41, 0xac, 0x44]);
    let [low, high] = ((BLOCK / 2 - 1) as u16).to_le_bytes();
    bench.dsp(&[0xb6, 0x30, low, high]);
    let block_ns = (BLOCK / 4) as u64 * 1_000_000_000 / 44_100;
    for block in 0..50 {
        bench.advance(block_ns + 1);
        assert_eq!((bench.level(5), bench.edges(5), bench.mixed(0x82)), (true, block as u32 + 1, 2));
        bench.inb(0x22f);
        place(block, &bytes((block + 2) * BLOCK / 4));
        if block == 48 {
            bench.dsp(&[0xd9]);
        }
    }
    bench.advance(1000 * MS);
    assert_eq!((bench.edges(5), bench.timers.next_deadline()), (50, None));
    drop(bench);
    drop(sink);
    let (rate, frames) = read_wav(&path);
    assert_eq!(rate, 44_100);
    let expected: Vec<Frame> = (0..50 * BLOCK / 4).map(sine).collect();
    assert_eq!(frames.len(), expected.len());
    assert!(frames == expected);
}

#[test]
fn formats() {
    // Command, mode, bytes and what they sound like; each of them single-cycle.
    let cases: [(&[u8], &[u8], &[Frame]); 6] = [
        (&[0xc0, 0x00], &[0x80, 0xff, 0x00, 0x81], &[[0, 0], [0x7f00, 0x7f00], [-0x8000, -0x8000], [0x100, 0x100]]),
        (&[0xc0, 0x10], &[0x00, 0x7f, 0x80], &[[0, 0], [0x7f00, 0x7f00], [-0x8000, -0x8000]]),
        (&[0xc0, 0x20], &[0x80, 0xff, 0x00, 0x81], &[[0, 0x7f00], [-0x8000, 0x100]]),
        (&[0xb0, 0x10], &[1, 0, 0xff, 0x7f, 0, 0x80], &[[1, 1], [0x7fff, 0x7fff], [-0x8000, -0x8000]]),
        (&[0xb0, 0x00], &[0, 0, 0, 0x80], &[[-0x8000, -0x8000], [0, 0]]),
        (&[0xb0, 0x30], &[1, 0, 2, 0, 3, 0, 4, 0], &[[1, 2], [3, 4]]),
    ];
    for (command, bytes, frames) in cases {
        let bench = bench(22_050);
        bench.put(bytes);
        let wide = command[0] < 0xc0;
        let units = bytes.len() / if wide { 2 } else { 1 };
        bench.dma(if wide { 5 } else { 1 }, units, 0x48);
        bench.dsp(&[0x41, 0x56, 0x22]);
        bench.dsp(&[command[0], command[1], (units - 1) as u8, 0]);
        assert_eq!(bench.heard(), frames, "{command:x?}");
        assert_eq!((bench.edges(5), bench.mixed(0x82)), (1, if wide { 2 } else { 1 }));
        assert_eq!(bench.timers.next_deadline(), None);
    }
}

#[test]
fn blocks_take_the_time_that_they_have() {
    let bench = bench(44_100);
    bench.put(&[0x80; 4000]);
    // The first card's way: a time constant for 8000 Hz, 800 bytes.
    bench.dma(1, 800, 0x48);
    bench.dsp(&[0x40, 131, 0x14, 0x1f, 0x03]);
    bench.advance(99 * MS);
    assert_eq!(bench.edges(5), 0);
    bench.advance(MS);
    assert_eq!(bench.edges(5), 1);
    bench.inb(0x22e);
    // High speed, again and again, until it is told to end.
    bench.dma(1, 1600, 0x58);
    bench.dsp(&[0x48, 0x1f, 0x03, 0x90]);
    for n in 2..7 {
        bench.advance(100 * MS);
        assert_eq!((bench.edges(5), bench.level(5)), (n, true));
        bench.inb(0x22e);
    }
    bench.dsp(&[0xda]);
    bench.advance(1000 * MS);
    assert_eq!(bench.edges(5), 7);
    // Silence without DMA.
    bench.inb(0x22e);
    bench.dsp(&[0x80, 0x8f, 0x01]);
    bench.advance(49 * MS);
    assert_eq!(bench.edges(5), 7);
    bench.advance(2 * MS);
    assert_eq!((bench.edges(5), bench.timers.next_deadline()), (8, None));
}

#[test]
fn a_pause_holds_the_transfer() {
    let bench = bench(8000);
    let bytes: Vec<u8> = (0..=255).cycle().take(1600).collect();
    bench.put(&bytes);
    bench.dma(1, 1600, 0x48);
    bench.dsp(&[0x40, 131, 0x14, 0x3f, 0x06]);
    bench.advance(100 * MS);
    bench.dsp(&[0xd0]);
    bench.advance(500 * MS);
    assert_eq!((bench.edges(5), bench.timers.next_deadline()), (0, None));
    // Of the other width.
    bench.dsp(&[0xd6]);
    bench.advance(500 * MS);
    bench.dsp(&[0xd4]);
    bench.advance(100 * MS - 1);
    assert_eq!(bench.edges(5), 0);
    bench.advance(1);
    assert_eq!(bench.edges(5), 1);
    let frames = bench.heard();
    let expected: Vec<Frame> = bytes.iter().map(|byte| [i16::from_le_bytes([0, byte ^ 0x80]); 2]).collect();
    assert_eq!(frames[..800], expected[..800]);
    assert_eq!(frames[frames.len() - 800..], expected[800..]);
    assert_eq!(frames.len(), 1600 + 8000, "a second of silence");
}

#[test]
fn a_transfer_waits_for_the_dma_controller_and_recording_is_silence() {
    let bench = bench(8000);
    bench.put(&[0xa0; 64]);
    bench.dsp(&[0x40, 131, 0x14, 0x1f, 0x00]);
    bench.advance(200 * MS);
    assert_eq!(bench.edges(5), 0);
    bench.dma(1, 32, 0x48);
    bench.advance(10 * MS);
    assert_eq!(bench.edges(5), 1);
    assert_eq!(bench.heard(), [[0x2000; 2]; 32]);
    for (command, channel, expected) in [
        (&[0x24, 15, 0][..], 1, [0x80; 4]),
        (&[0xb8, 0x10, 15, 0], 5, [0; 4]),
        (&[0xb8, 0, 15, 0], 5, [0, 0x80, 0, 0x80]),
    ] {
        bench.put(&[0x55; 64]);
        bench.dma(channel, 16, 0x44);
        bench.dsp(command);
        bench.advance(10 * MS);
        let mut bytes = [0; 64];
        bench.memory.read_slice(&mut bytes, GuestAddress(BUFFER)).unwrap();
        let length = if channel == 1 { 16 } else { 32 };
        assert_eq!((&bytes[..4], bytes[length - 1], bytes[length]), (&expected[..], expected[3], 0x55));
        bench.inb(0x22e);
        bench.inb(0x22f);
    }
    bench.dsp(&[0x20]);
    assert_eq!(bench.answer(), Some(0x80));
}

#[test]
fn adpcm_is_decoded() {
    let bench = bench(8000);
    bench.put(&[0x80, 0x77, 0x80]);
    bench.dma(1, 3, 0x48);
    bench.dsp(&[0x40, 131, 0x75, 2, 0]);
    let levels = [135, 150, 148, 149].map(|level: i16| [(level - 128) * 256; 2]);
    assert_eq!(bench.heard(), levels);
    assert_eq!(bench.edges(5), 1);
}

#[test]
fn the_direct_dac_is_heard() {
    let bench = bench(44_100);
    // A square wave of 500 Hz by hand.
    for n in 0..500 {
        bench.dsp(&[0x10, if n % 2 == 0 { 0xc0 } else { 0x40 }]);
        bench.advance(MS);
    }
    let frames = bench.heard();
    let rises = frames[..22_050].windows(2).filter(|pair| pair[0][0] < 0 && pair[1][0] >= 0).count();
    assert!(rises.abs_diff(250) <= 1, "{rises}");
    assert!((16_000..17_500).contains(&frames[10_000..12_000].iter().map(|frame| frame[0]).max().unwrap()));
    assert_eq!(bench.timers.next_deadline(), None, "a level that stays is silent");
}

#[test]
fn the_mixer_sets_volumes() {
    let bench = Bench::new(Rig::new(8000));
    assert!(bench.reset());
    assert_eq!(
        [0x30, 0x31, 0x32, 0x36, 0x3c, 0x44].map(|register| bench.mixed(register)),
        [0xc0, 0xc0, 0xc0, 0, 0x1f, 0x80]
    );
    assert_eq!((bench.mixed(0x22), bench.mixed(0x04)), (0xcc, 0xcc));
    bench.mixer(0x22, 0xf7);
    assert_eq!((bench.mixed(0x30), bench.mixed(0x31), bench.mixed(0x22)), (0xf8, 0x78, 0xf7));
    bench.mixer(0x0a, 5);
    assert_eq!((bench.mixed(0x0a), bench.mixed(0x3a)), (5, 0xb8));
    bench.mixer(0x50, 0xff);
    assert_eq!(bench.mixed(0x50), 0);
    // Left 6 dB below, right at the loudest and 6 dB above.
    bench.loudest();
    bench.mixer(0x30, 28 << 3);
    bench.mixer(0x42, 0x40);
    bench.put(&[1, 0x10, 1, 0x10]);
    bench.dma(5, 2, 0x48);
    bench.dsp(&[0x41, 0x1f, 0x40, 0xb0, 0x30, 1, 0]);
    let frames = bench.heard();
    assert_eq!(frames, [[2053, 8174]]);
}

#[test]
fn fm_timers_are_found() {
    let bench = Bench::new(Rig::new(8000));
    for base in [0x388, 0x220, 0x228] {
        let fm = |register, value| {
            bench.outb(base, register);
            bench.outb(base + 1, value);
        };
        fm(4, 0x60);
        fm(4, 0x80);
        assert_eq!(bench.inb(base), 0, "all of 0x06 is zero: an OPL3");
        fm(2, 0xff);
        fm(4, 0x21);
        bench.advance(79_000);
        assert_eq!(bench.inb(base), 0);
        bench.advance(1_000);
        assert_eq!(bench.inb(base), 0xc0);
        fm(4, 0x60);
        fm(4, 0x80);
        assert_eq!(bench.inb(base), 0);
        fm(3, 0xfe);
        fm(4, 0x42);
        bench.advance(640_000);
        assert_eq!(bench.inb(base), 0xa0);
        fm(4, 0x80);
    }
    assert_eq!(bench.timers.next_deadline(), None);
}

/// Sets registers of the synthesizer for a sine of 440 Hz, and its key.
fn fm_tone(bench: &Bench<Sb16>) {
    let values = [(0x23, 0x21), (0x43, 0), (0x63, 0xf0), (0x83, 0x0f), (0xa0, 0x44), (0xb0, 0x32)];
    for (register, value) in values {
        bench.outb(0x388, register);
        bench.outb(0x389, value);
    }
}

#[test]
fn fm_is_heard_at_its_volume() {
    let bench = bench(48_000);
    let peak = |frames: &[Frame], side: usize| frames.iter().map(|frame| frame[side]).max().unwrap_or(0);
    let play = |ms: u64| {
        bench.end();
        let before = bench.sink.frames().len();
        (0..ms).for_each(|_| bench.advance(MS));
        bench.card.pause();
        bench.end();
        bench.sink.frames().split_off(before)
    };
    assert_eq!((bench.mixed(0x34), bench.mixed(0x35), bench.mixed(0x26)), (0xc0, 0xc0, 0xcc));
    bench.mixer(0x34, 0xf8);
    bench.mixer(0x35, 0xf8);
    fm_tone(&bench);
    let frames = play(1000);
    let rises = frames.windows(2).filter(|pair| pair[0][0] < 0 && pair[1][0] >= 0).count();
    assert!(rises.abs_diff(440) <= 1, "{rises}");
    assert!((4070..=4084).contains(&peak(&frames, 0)), "{}", peak(&frames, 0));
    // Left 6 dB, right 12 dB below; then by the register of the card before, in steps of 4 dB.
    bench.mixer(0x34, 28 << 3);
    bench.mixer(0x35, 25 << 3);
    let frames = &play(100)[10..];
    assert!(peak(frames, 0).abs_diff(2047) < 10 && peak(frames, 1).abs_diff(1026) < 10);
    bench.mixer(0x26, 0xf0);
    assert_eq!((bench.mixed(0x34), bench.mixed(0x35)), (0xf8, 0x08));
    let frames = &play(100)[10..];
    assert!(peak(frames, 0) > 4000 && peak(frames, 1) < 5);
    // A reset of the DSP is none of the synthesizer's; one of the machine is.
    assert!(bench.reset());
    assert!(peak(&play(100), 0) > 4000);
    bench.card.reset();
    bench.loudest();
    play(100);
    assert_eq!((play(100).len(), bench.timers.next_deadline()), (0, None));
}

#[test]
fn fm_goes_on_from_its_saved_state() {
    let run = |save: bool| {
        // Without conversion, frames are samples.
        let bench = bench(crate::opl::registers::RATE);
        fm_tone(&bench);
        // Drums, timers and a second voice that dies away.
        for (register, value) in [(0x64, 0xf3), (0x84, 0xf3), (0xa1, 0x99), (0xb1, 0x2d), (0x74, 0xf4), (0x94, 0xf4)] {
            bench.outb(0x220, register);
            bench.outb(0x221, value);
        }
        for (register, value) in [(0xbd, 0xe8), (0x24, 0xc2), (4, 0x03), (0xb1, 0x0d)] {
            bench.outb(0x220, register);
            bench.outb(0x221, value);
        }
        bench.advance(100 * MS);
        bench.card.pause();
        if save {
            let saved = bench.card.save();
            bench.card.reset();
            assert_ne!(bench.card.save(), saved);
            bench.card.restore(&saved).unwrap();
            assert_eq!(bench.card.save(), saved);
        }
        bench.advance(100 * MS);
        bench.card.pause();
        bench.end();
        (bench.inb(0x388), bench.sink.frames().split_off(5000))
    };
    let (kept, restored) = (run(false), run(true));
    assert_eq!(kept.0, restored.0);
    assert!(kept.1.len() > 4000 && kept.1.iter().any(|frame| frame[0] > 300));
    assert!(kept.1 == restored.1);
    let bench = Bench::new(Rig::new(48_000));
    let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| Sb16State::default());
    a.opl.registers.truncate(500);
    b.opl.operators.push(Default::default());
    c.opl.operators[3].envelope.level = 512;
    d.opl.noise = 0;
    for state in [a, b, c, d] {
        assert!(bench.card.restore(&lodge_savestate::to_record(&state)).is_err());
    }
}

#[test]
fn state_is_restored() {
    let bench = bench(8000);
    bench.put(&[0xa0; 1600]);
    bench.dma(1, 1600, 0x48);
    bench.dsp(&[0x40, 131, 0x14, 0x3f, 0x06, 0xf3, 0xe4, 7, 0x41, 0x12]);
    bench.advance(50 * MS);
    let saved = bench.card.save();
    bench.card.reset();
    assert!(!bench.level(5));
    bench.mixer(0x22, 0x11);
    assert_ne!(bench.card.save(), saved);
    bench.card.restore(&saved).unwrap();
    assert_eq!(bench.card.save(), saved);
    assert!(bench.level(5));
    bench.inb(0x22f);
    // The second parameter of what was being written, and the rest of the block.
    bench.dsp(&[0x34]);
    bench.advance(150 * MS);
    assert_eq!(bench.mixed(0x82), 1);
    assert_eq!(bench.card.volatile.lock().state.rate, 0x1234);
    assert!(bench.card.restore(&saved[..30]).is_err());
    let transfer = Some(Transfer { block: 4, left: 5, ..Transfer::default() });
    let broken = Sb16State { transfer, ..Sb16State::default() };
    assert!(bench.card.restore(&lodge_savestate::to_record(&broken)).is_err());
    let mut broken = Sb16State::default();
    broken.mixer.registers.truncate(3);
    assert!(bench.card.restore(&lodge_savestate::to_record(&broken)).is_err());
}

#[test]
fn random_accesses_do_no_harm() {
    let bench = Bench::new(Rig::new(44_100));
    let mut random = Random(0x1234_5678_9abc_def1);
    let commands = [0x10, 0x14, 0x1c, 0x1f, 0x24, 0x2c, 0x40, 0x41, 0x48, 0x75, 0x77, 0x7d, 0x80, 0x90, 0x98];
    for _ in 0..steps(1_000_000) {
        match random.below(16) {
            0 => bench.advance(random.below(20 * MS)),
            1 => bench.outb(0x22c, random.pick(&commands)),
            2 => bench.outb(0x22c, 0xb0 | random.below(0x30) as u8),
            3 => bench.outb(random.pick(&[0x0a, 0x0b, 0x83, 0xd4, 0xd6, 0x8b, 0x02, 0x03]), random.next() as u8),
            4..6 => drop(bench.inb(0x220 + random.below(16) as u16)),
            6 => bench.outb(0x226, random.next() as u8 & 1),
            7 if random.below(50) == 0 => {
                let record = bench.card.save();
                bench.card.restore(&record).unwrap();
                assert_eq!(bench.card.save(), record);
            }
            8 => bench.outb(0x388 + random.below(4) as u16, random.next() as u8),
            _ => bench.outb(0x220 + random.below(16) as u16, random.next() as u8),
        }
    }
    assert!(bench.reset());
}
