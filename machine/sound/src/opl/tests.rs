use super::*;
use crate::testing::{Random, Rig, steps};

const MS: u64 = 1_000_000;

struct Bench {
    rig: Rig,
    opl: OplState,
    voice: Voice,
}

impl Bench {
    /// With a sink of so many frames a second.
    fn new(rate: u32) -> Self {
        let rig = Rig::new(rate);
        let voice = rig.mixer.voice();
        Self { rig, opl: OplState::default(), voice }
    }

    /// One that is an OPL3.
    fn opl3() -> Self {
        let mut bench = Self::new(RATE);
        bench.write(MODE, NEW);
        bench
    }

    fn now(&self) -> u64 {
        self.rig.timers.clock().now_ns()
    }

    fn write(&mut self, register: u16, value: u8) {
        let now = self.now();
        self.opl.advance(now, &mut self.voice);
        self.opl.write(if register < 0x100 { 0 } else { 2 }, register as u8, now);
        self.opl.write(1, value, now);
    }

    /// An operator that is at its loudest at once, and stays there.
    fn operator(&mut self, operator: usize, level: u8, wave: u8) {
        let offset = operator_offset(operator);
        let values =
            [(FLAGS, HOLD | 1), (LEVEL, level), (ATTACK_DECAY, 0xf0), (SUSTAIN_RELEASE, 0x0f), (WAVEFORM, wave)];
        for (register, value) in values {
            self.write(register + offset, value);
        }
    }

    /// Sets the note of a channel, and its key.
    fn key(&mut self, channel: usize, number: u16, block: u8, on: bool) {
        let offset = channel_offset(channel);
        self.write(NUMBER + offset, number as u8);
        self.write(KEY + offset, if on { KEY_ON } else { 0 } | block << 2 | (number >> 8) as u8);
    }

    /// What the sink gets in so much time.
    fn play(&mut self, ms: u64) -> Vec<Frame> {
        self.rig.end();
        let before = self.rig.sink.frames().len();
        for _ in 0..ms {
            self.rig.advance(MS);
            let now = self.now();
            self.opl.advance(now, &mut self.voice);
        }
        self.rig.end();
        self.rig.sink.frames().split_off(before)
    }
}

/// The frequency of the left side, by where it rises through zero.
fn frequency(frames: &[Frame], rate: u32) -> f64 {
    let rises: Vec<f64> = frames
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0][0] < 0 && pair[1][0] >= 0)
        .map(|(n, pair)| n as f64 - f64::from(pair[0][0]) / (f64::from(pair[1][0]) - f64::from(pair[0][0])))
        .collect();
    assert!(rises.len() > 2, "there is no tone");
    (rises.len() - 1) as f64 / (rises[rises.len() - 1] - rises[0]) * f64::from(rate)
}

fn peak(frames: &[Frame]) -> i16 {
    frames.iter().map(|frame| frame[0]).max().unwrap_or(0)
}

/// How much of a frequency there is on the left side: the amplitude.
fn amount(frames: &[Frame], hertz: f64) -> f64 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, frame) in frames.iter().enumerate() {
        let angle = n as f64 * hertz / f64::from(RATE) * std::f64::consts::TAU;
        (sine, cosine) = (sine + f64::from(frame[0]) * angle.sin(), cosine + f64::from(frame[0]) * angle.cos());
    }
    2.0 * sine.hypot(cosine) / frames.len() as f64
}

#[test]
fn a_voice_has_its_frequency_in_the_recording() {
    for (number, block) in [(0x244, 4), (0x159, 3), (0x3ff, 1), (0x2ae, 6)] {
        let mut bench = Bench::new(48_000);
        bench.operator(3, 0, 0);
        bench.operator(0, 63, 0);
        bench.key(0, number, block, true);
        let frames = bench.play(1000);
        let expected = f64::from(number) * f64::from(1u32 << block) / f64::from(1 << 20) * 14_318_180.0 / 288.0;
        let heard = frequency(&frames, 48_000);
        assert!((heard / expected - 1.0).abs() < 1e-3, "{heard} Hz, not {expected}");
        assert!(frames.iter().all(|frame| frame[0] == frame[1]), "an OPL2 has one side");
    }
}

#[test]
fn multiples_are_of_the_frequency() {
    for (field, multiple) in [(0, 0.5), (1, 1.0), (3, 3.0), (11, 10.0), (13, 12.0), (15, 15.0)] {
        let mut bench = Bench::new(RATE);
        bench.operator(3, 0, 0);
        bench.write(FLAGS + 3, HOLD | field);
        bench.key(0, 0x200, 2, true);
        let heard = frequency(&bench.play(500), RATE);
        assert!((heard / (97.1 * multiple) - 1.0).abs() < 1e-3, "{heard} Hz");
    }
}

#[test]
fn levels_are_steps_of_three_quarters_of_a_decibel() {
    let mut bench = Bench::new(RATE);
    bench.operator(3, 0, 0);
    bench.key(0, 0x244, 4, true);
    bench.play(10);
    let loudest = f64::from(peak(&bench.play(50)));
    assert_eq!(loudest, 4084.0);
    for level in [1, 2, 8, 16, 32, 63] {
        bench.write(LEVEL + 3, level);
        let heard = f64::from(peak(&bench.play(50)));
        let expected = loudest * 10f64.powf(-0.75 * f64::from(level) / 20.0);
        assert!((heard - expected).abs() < 0.003 * expected + 2.0, "{level}: {heard}, not {expected}");
    }
}

#[test]
fn silence_costs_nothing() {
    let mut bench = Bench::new(RATE);
    assert_eq!((bench.play(100), bench.opl.due(0)), (vec![], None));
    for channel in 0..9 {
        let [first, second] = operators(channel);
        bench.operator(first, 20, 0);
        bench.operator(second, 0, 0);
        bench.key(channel, 0x244, 4, true);
    }
    assert!(bench.opl.due(0).is_some());
    assert!(peak(&bench.play(100)) > 10_000);
    for channel in 0..9 {
        bench.key(channel, 0x244, 4, false);
    }
    bench.play(100);
    assert_eq!((bench.opl.pace, peak(&bench.play(100))), (None, 0));
    assert_eq!(bench.rig.timers.next_deadline(), None);
    // Nor is a key that is down a sound, at a level of nothing.
    bench.write(SUSTAIN_RELEASE + 3, 0xff);
    bench.write(ATTACK_DECAY + 3, 0xff);
    bench.write(SUSTAIN_RELEASE, 0xff);
    bench.write(ATTACK_DECAY, 0xff);
    bench.key(0, 0x244, 4, true);
    assert!(peak(&bench.play(100)) > 100);
    assert_eq!((bench.opl.pace, bench.play(100).len()), (None, 0));
    // It is heard again when it is let go on.
    bench.key(0, 0x244, 4, false);
    bench.key(0, 0x244, 4, true);
    assert!(peak(&bench.play(100)) > 100);
}

#[test]
fn sides_and_waveforms_are_an_opl3s() {
    for (sides, expected) in [(0, [false, false]), (1, [true, false]), (2, [false, true]), (3, [true, true])] {
        let mut bench = Bench::opl3();
        bench.operator(21, 0, 6);
        bench.write(FEEDBACK + 0x100, sides << 4);
        bench.key(9, 0x244, 4, true);
        let frames = bench.play(50);
        assert_eq!([0, 1].map(|side| frames.iter().any(|frame| frame[side] == 4084)), expected);
        // Both, and the third waveform, as an OPL2.
        bench.write(MODE, 0);
        let frames = &bench.play(50)[10..];
        assert!(frames.iter().all(|frame| frame[0] >= 0 && frame[0] == frame[1]));
        assert!(frames.iter().any(|frame| frame[0] < 2000));
    }
}

#[test]
fn an_opl2_has_one_bank() {
    let mut bench = Bench::new(RATE);
    bench.operator(21, 0, 0);
    bench.key(9, 0x244, 4, true);
    assert_eq!((bench.opl.registers[0x43], bench.opl.registers[0xb0]), (0, 0x32));
    assert_eq!((bench.opl.registers[0x163], bench.opl.registers[0x1b0]), (0, 0));
    bench.write(MODE, NEW);
    bench.write(0x143, 0x11);
    assert_eq!((bench.opl.registers[0x43], bench.opl.registers[0x143]), (0, 0x11));
    // Data go to the address that was written last, by either port.
    bench.opl.write(0, 0x43, 0);
    bench.opl.write(3, 0x22, 0);
    assert_eq!(bench.opl.registers[0x43], 0x22);
}

#[test]
fn feedback_and_modulation_make_overtones() {
    // What there is of the fundamental and of overtones.
    let spectrum = |feedback: u8, modulator: u8| {
        let mut bench = Bench::new(RATE);
        bench.operator(0, modulator, 0);
        bench.operator(3, 0, 0);
        bench.write(FEEDBACK, feedback);
        bench.key(0, 0x200, 4, true);
        bench.play(10);
        let frames = bench.play(400);
        let fundamental = 388.405;
        [1.0, 2.0, 3.0, 4.0].map(|n| amount(&frames, fundamental * n))
    };
    let [plain, others @ ..] = spectrum(0, 63);
    assert!(plain > 4000.0 && others.iter().all(|other| *other < 250.0), "{plain} {others:?}");
    // Modulation by 24 dB less than 8 pi.
    let index = 8.0 * std::f64::consts::PI * 4084.0 / 4096.0 * 10f64.powf(-24.0 / 20.0);
    let angle = |n: i32| f64::from(n) * std::f64::consts::TAU / 1000.0;
    for (overtone, heard) in spectrum(0, 32).into_iter().enumerate() {
        let product = |n: i32| (angle(n) + index * angle(n).sin()).sin() * (angle(n) * (overtone + 1) as f64).sin();
        let expected = (0..1000).map(product).sum::<f64>() / 500.0;
        assert!((heard / 4084.0 - expected.abs()).abs() < 0.02, "{overtone}: {heard}, not {expected}");
    }
    // Added, with feedback: the first one's sine becomes a saw.
    let [.., quiet] = spectrum(CONNECTION, 0);
    let [.., loud] = spectrum(CONNECTION | 4 << 1, 0);
    assert!(quiet < 50.0 && loud > 200.0, "{quiet} {loud}");
}

#[test]
fn four_operators_are_routed() {
    // The operators of channels 0 and 3, each with a multiple of its own.
    let multiples = [(0, 1), (3, 2), (6, 3), (9, 4)];
    for (connections, heard) in [
        ([0, 0], [false, false, false, true]),
        ([0, 1], [false, true, false, true]),
        ([1, 0], [true, false, false, true]),
        ([1, 1], [true, false, true, true]),
    ] {
        let mut bench = Bench::opl3();
        bench.write(FOUR_OPERATORS, 1);
        for (operator, multiple) in multiples {
            bench.operator(operator, 0, 0);
            bench.write(FLAGS + operator_offset(operator), HOLD | multiple);
        }
        bench.write(FEEDBACK, LEFT | connections[0]);
        bench.write(FEEDBACK + 3, LEFT | connections[1]);
        bench.key(0, 0x200, 4, true);
        // One at a time: those that are heard by themselves are.
        for (n, (alone, multiple)) in multiples.into_iter().enumerate() {
            for (operator, _) in multiples {
                bench.write(LEVEL + operator_offset(operator), if operator == alone { 0 } else { 63 });
            }
            bench.play(10);
            let there = amount(&bench.play(200), 388.405 * f64::from(multiple));
            assert_eq!(there > 2000.0, heard[n], "{connections:?}: {operator}: {there}", operator = n + 1);
        }
        // The first channel's key is that of all.
        bench.key(3, 0x200, 4, true);
        bench.key(0, 0x200, 4, false);
        bench.play(50);
        assert_eq!(bench.opl.pace, None);
    }
}

#[test]
fn drums_are_heard_and_hats_are_noise() {
    let mut bench = Bench::new(RATE);
    for operator in 12..18 {
        bench.operator(operator, 0, 0);
    }
    for channel in 6..9 {
        bench.key(channel, 0x200, 2, false);
    }
    // Jumps between samples: noise has many, a low tone none.
    let mut jumps = [0; 5];
    // Hi-hat and cymbal have few phases, and not the highest.
    let peaks = [7824, 5794, 8168, 8168, 8168];
    for (drum, count) in jumps.iter_mut().enumerate() {
        bench.write(RHYTHM, RHYTHM_MODE | 1 << drum);
        let frames = bench.play(1000);
        assert!(peak(&frames).abs_diff(peaks[drum]) < 10, "drums are twice as loud: {} {drum}", peak(&frames));
        *count = frames.windows(2).filter(|pair| pair[0][0].abs_diff(pair[1][0]) > 3000).count();
        bench.write(RHYTHM, RHYTHM_MODE);
        bench.play(50);
        assert_eq!(bench.opl.pace, None, "{drum}");
    }
    let [hat, cymbal, tom, snare, _] = jumps;
    assert!(hat > 5000 && snare > 10_000 && cymbal > 1000 && tom == 0, "{jumps:?}");
    // Out of rhythm mode there are no drums.
    bench.write(RHYTHM, 0x1f);
    assert_eq!(bench.opl.pace, None);
}

#[test]
fn noise_does_not_repeat_itself() {
    let mut bench = Bench::new(RATE);
    (12..18).for_each(|operator| bench.operator(operator, 0, 0));
    bench.key(7, 0x200, 5, false);
    bench.write(RHYTHM, RHYTHM_MODE | SNARE);
    let frames = bench.play(400);
    // Of a tone, or of noise that repeats itself, some shift would be the same again.
    let (piece, rest) = (&frames[..4000], &frames[4000..]);
    let energy: f64 = piece.iter().map(|frame| f64::from(frame[0]).powi(2)).sum();
    for shift in (0..rest.len() - 4000).step_by(1) {
        let both: f64 = piece.iter().zip(&rest[shift..]).map(|(a, b)| f64::from(a[0]) * f64::from(b[0])).sum();
        assert!(both.abs() < 0.9 * energy, "{shift}");
    }
}

#[test]
fn notes_that_follow_at_once_begin_anew() {
    let mut bench = Bench::new(RATE);
    bench.operator(3, 0, 0);
    bench.write(ATTACK_DECAY + 3, 0xf8);
    bench.write(SUSTAIN_RELEASE + 3, 0xf8);
    bench.key(0, 0x244, 4, true);
    bench.play(500);
    assert!(peak(&bench.play(10)) < 100);
    // Between two samples.
    bench.key(0, 0x244, 4, false);
    bench.key(0, 0x244, 4, true);
    assert!(peak(&bench.play(10)) > 3000);
}

#[test]
fn tremolo_and_vibrato_are_heard() {
    let mut bench = Bench::new(RATE);
    bench.operator(3, 0, 0);
    bench.write(RHYTHM, DEEP_TREMOLO | DEEP_VIBRATO);
    bench.write(FLAGS + 3, TREMOLO | HOLD | 1);
    bench.key(0, 0x244, 4, true);
    let peaks: Vec<i16> = bench.play(1000).chunks_exact(500).map(peak).collect();
    let (least, most) = (peaks.iter().min().unwrap(), peaks.iter().max().unwrap());
    let depth = 20.0 * (f64::from(*most) / f64::from(*least)).log10();
    assert!((4.4..=4.9).contains(&depth), "{depth} dB");
    bench.write(FLAGS + 3, VIBRATO | HOLD | 1);
    bench.write(NUMBER, 0x80);
    let frames = bench.play(1000);
    let heard: Vec<f64> = frames.chunks_exact(1024).map(|piece| frequency(piece, RATE)).collect();
    let [least, most] = [f64::min, f64::max].map(|f| heard.iter().copied().reduce(f).unwrap());
    assert!((1.004..1.014).contains(&(most / least)), "{least} to {most} Hz");
}

#[test]
fn timers_run_on_from_what_they_had() {
    let mut opl = OplState::default();
    let mut fm = |register: u8, value, now| {
        opl.write(0, register, now);
        opl.write(1, value, now);
        opl.status(now)
    };
    fm(2, 0xfe, 0);
    fm(4, 0x01, 0);
    // What is written is for the next time.
    assert_eq!(fm(2, 0x00, 80_000), 0);
    assert_eq!((fm(0, 0, 159_999), fm(0, 0, 160_000)), (0, 0xc0));
    assert_eq!(fm(4, 0x80, 160_000), 0);
    assert_eq!((fm(0, 0, 160_000 + 256 * 80_000 - 1), fm(0, 0, 160_000 + 256 * 80_000)), (0, 0xc0));
    // A mask takes the flag away, and time at its end does no harm.
    assert_eq!(fm(4, 0x41, 30_000_000), 0);
    assert_eq!(fm(4, 0x03, 30_000_000), 0);
    assert_eq!(fm(0, 0, u64::MAX), 0xe0);
    assert_eq!(fm(0, 0, 0), 0xe0);
}

#[test]
fn random_writes_do_no_harm() {
    let mut bench = Bench::new(48_000);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for step in 0..steps(100_000) {
        let registers = [FLAGS, LEVEL, ATTACK_DECAY, SUSTAIN_RELEASE, NUMBER, KEY, FEEDBACK, WAVEFORM];
        let register = match random.below(16) {
            0 => random.pick(&[RHYTHM, MODE, FOUR_OPERATORS, KEYBOARD_SPLIT]),
            1 => random.below(512) as u16,
            _ => random.pick(&registers) + random.below(2) as u16 * 0x100 + random.below(22) as u16,
        };
        bench.write(register, random.next() as u8);
        if step % 8 == 0 {
            bench.rig.advance(random.below(MS));
        }
        if step % 5000 == 0 {
            assert!(bench.opl.is_sound());
        }
    }
    // A stall is made up for by a second at most.
    bench.rig.advance(1 << 50);
    bench.write(0, 0);
    assert!(bench.opl.is_sound() && bench.rig.sink.frames().len() < 100 * 48_000);
}
