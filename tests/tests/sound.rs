//! Stock drivers play a tone, and the recording has it.

use std::path::Path;

use iced_x86::code_asm::*;
use lodge_tests::disks::{ALL_GOOD, Made, Program, boot_disk};
use lodge_tests::{TestVm, check_log, copy_of, finish, guest, linux_with, run, with_firmware};

/// A rectangle of 500 Hz at 8000 samples a second, 8 bits each, for 2 seconds, in /tmp/p.
const TONE: &str = "printf \\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340 > /tmp/p; \
                    for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/p /tmp/p > /tmp/q; mv /tmp/q /tmp/p; done";
/// Its frequency, and how long it lasts in seconds.
const FREQUENCY: f64 = 500.0;
const SECONDS: f64 = 2.048;

/// Holds that a recording is of the tone, in both channels, for so long.
#[track_caller]
fn check_tone(path: &Path, expected: f64) {
    let bytes = std::fs::read(path).expect("a recording");
    assert_eq!((&bytes[..4], &bytes[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    // Samples of 16 bits, left and right, at this rate.
    assert_eq!((number(22) & 0xffff, number(34) & 0xffff), (2, 16));
    let rate = f64::from(number(24));
    for channel in [0, 2] {
        let samples: Vec<_> =
            bytes[44..].chunks_exact(4).map(|frame| i16::from_le_bytes([frame[channel], frame[channel + 1]])).collect();
        // Silence before and after it is at zero.
        let loud: Vec<_> = samples.iter().enumerate().filter(|(_, sample)| sample.unsigned_abs() > 1000).collect();
        let turns: Vec<_> =
            loud.windows(2).filter(|pair| (*pair[0].1 < 0) != (*pair[1].1 < 0)).map(|pair| pair[1].0).collect();
        let (Some(first), Some(last)) = (turns.first(), turns.last()) else { panic!("there is no sound") };
        let seconds = (last - first) as f64 / rate;
        let frequency = (turns.len() - 1) as f64 / 2.0 / seconds;
        assert!((frequency / FREQUENCY - 1.0).abs() < 1e-3, "{frequency} Hz");
        assert!((seconds / expected - 1.0).abs() < 1e-2, "{seconds} s");
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn linux_plays_on_a_sound_blaster() {
    // ALSA begins in silence: master and voice are turned up at the mixer's ports, 224h and 225h.
    const UP: &str = "for r in \\\\060 \\\\061 \\\\062 \\\\063; do \
                      printf $r | dd of=/dev/port bs=1 seek=548 conv=notrunc 2>/dev/null; \
                      printf \\\\370 | dd of=/dev/port bs=1 seek=549 conv=notrunc 2>/dev/null; done";
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("sound.wav");
    let options = "snd_sb16.isapnp=0 snd_sb16.port=0x220 snd_sb16.irq=5 snd_sb16.dma8=1 snd_sb16.dma16=5";
    let script = format!("{TONE}; {UP}; cat /tmp/p > /dev/dsp; cat /proc/asound/cards");
    let append = format!("{options} lodge.run=\"{script}\"");
    let (mut command, _initrd) = linux_with("snd_sb16,snd_pcm_oss", "686-pae", &append);
    command.arg("--sound").arg(format!("wav={},model=sb16", recording.display()));
    let (status, output) = finish(&mut command);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("Sound Blaster 16 at 0x220, irq 5, dma 1&5"), "{output}");
    check_log(&output);
    check_tone(&recording, SECONDS);
}

/// What plays it, with the volume turned up. What is typed comes back as an echo.
const PLAY: &[&str] = &[
    "modprobe -a snd-mixer-oss snd-pcm-oss",
    "perl -e 'open(M, q(+<), q(/dev/mixer)) or die; for (0, 4) { $v = pack(q(l), 0x6464); ioctl(M, 0xc0044d00 + $_, $v) or die }'",
    "cat /tmp/p > /dev/dsp",
    "grep -c Intel /proc/asound/cards",
];

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn an_installed_debian_root_plays_on_ac97() {
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("sound.wav");
    let disk = copy_of(&guest("installed/disk.img"));
    let mut command = run();
    command.arg("--kernel").arg(guest("installed/vmlinuz")).arg("--initrd").arg(guest("installed/initrd"));
    command.args(["--append", "root=LABEL=root console=ttyS0 panic=-1", "--memory", "512M"]);
    command.arg("--disk").arg(format!("{},format=raw", disk.display()));
    command.arg("--sound").arg(format!("wav={}", recording.display()));
    let mut vm = TestVm::start(&mut command);
    vm.expect("login:");
    vm.send("root\n");
    vm.expect("# ");
    for (number, command) in [TONE].iter().chain(PLAY).enumerate() {
        vm.send(&format!("{command}; echo \"done {number}:\"$?\n"));
        vm.expect(&format!("done {number}:0"));
    }
    vm.send("poweroff\n");
    let (status, output) = vm.wait();
    assert_eq!(status, 0, "{output}");
    check_log(&output);
    check_tone(&recording, SECONDS);
}

/// Writes a register of the FM synthesizer as programs for the AdLib did, with reads between for its sake.
fn fm(p: &mut Program, register: u32, value: u32) -> Made {
    for (port, byte, reads) in [(0x388, register, 6u32), (0x389, value, 35)] {
        p.outb(port, byte)?;
        p.a.mov(dx, 0x388)?;
        p.a.mov(cx, reads)?;
        let mut wait = p.a.create_label();
        p.a.set_label(&mut wait)?;
        p.a.in_(al, dx)?;
        p.a.loop_(wait)?;
    }
    Ok(())
}

/// Checks the upper bits of the synthesizer's status.
fn fm_status(p: &mut Program, status: u32, what: &str) -> Made {
    p.a.mov(dx, 0x388)?;
    p.a.in_(al, dx)?;
    p.a.and(al, 0xe0)?;
    p.a.cmp(al, status)?;
    p.check(what)
}

/// How long it plays, in ticks of the BIOS's clock.
const TICKS: u32 = 37;

/// Waits for so many ticks of the BIOS's clock, of which there are 18.2 in a second.
fn ticks(p: &mut Program, count: u32) -> Made {
    p.a.sti()?;
    p.a.mov(cx, count)?;
    let mut wait = p.a.create_label();
    p.a.set_label(&mut wait)?;
    p.a.mov(bx, word_ptr(0x46c))?;
    let mut same = p.a.create_label();
    p.a.set_label(&mut same)?;
    p.a.hlt()?;
    p.a.cmp(bx, word_ptr(0x46c))?;
    p.a.je(same)?;
    p.a.loop_(wait)
}

/// Finds an AdLib by its timers, and plays 500 Hz.
fn adlib(p: &mut Program) -> Made {
    fm(p, 4, 0x60)?;
    fm(p, 4, 0x80)?;
    fm_status(p, 0, "the timers rest")?;
    fm(p, 2, 0xff)?;
    fm(p, 4, 0x21)?;
    ticks(p, 2)?;
    fm_status(p, 0xc0, "the first timer has run over")?;
    fm(p, 4, 0x60)?;
    fm(p, 4, 0x80)?;
    // The whole status is zero: an OPL3.
    p.a.mov(dx, 0x388)?;
    p.a.in_(al, dx)?;
    p.a.cmp(al, 0)?;
    p.check("it is an OPL3")?;
    p.say("found ")?;
    // Volumes of master and FM.
    for register in [0x30, 0x31, 0x34, 0x35] {
        p.outb(0x224, register)?;
        p.outb(0x225, 0xf8)?;
    }
    // A modulator that is all but silent, and a sine: 659 / 2^20 * 2^4 * 49716 Hz.
    for (register, value) in
        [(0x20, 1), (0x40, 0x3f), (0x60, 0xf0), (0x80, 0x0f), (0x23, 0x21), (0x43, 0), (0x63, 0xf0)]
    {
        fm(p, register, value)?;
    }
    for (register, value) in [(0x83, 0x0f), (0xc0, 1), (0xa0, 0x93)] {
        fm(p, register, value)?;
    }
    ticks(p, 1)?;
    fm(p, 0xb0, 0x32)?;
    ticks(p, TICKS)?;
    fm(p, 0xb0, 0x12)?;
    ticks(p, 2)?;
    p.say("played")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_boot_disk_finds_an_adlib_and_plays_on_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("sound.wav");
    let disk = boot_disk(adlib);
    let mut command = with_firmware();
    command.arg("--disk").arg(format!("{},bus=ide,readonly", disk.path().display()));
    command.arg("--sound").arg(format!("wav={},model=sb16", recording.display()));
    command.args(["--memory", "16M", "--debug-exit", "--timeout", "60"]);
    let (status, output) = finish(&mut command);
    assert_eq!(status, ALL_GOOD, "{output}");
    assert!(output.contains("found played") && !output.contains("FAILED"), "{output}");
    check_tone(&recording, f64::from(TICKS) * 65_536.0 / 1_193_182.0);
}
