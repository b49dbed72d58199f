//! Stock drivers play a tone, and the recording has it.

use std::path::Path;

use lodge_tests::{TestVm, check_log, copy_of, finish, guest, linux_with, run};

/// A rectangle of 500 Hz at 8000 samples a second, 8 bits each, for 2 seconds, in /tmp/p.
const TONE: &str = "printf \\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\040\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340\\\\340 > /tmp/p; \
                    for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/p /tmp/p > /tmp/q; mv /tmp/q /tmp/p; done";
/// Its frequency, and how long it lasts in seconds.
const FREQUENCY: f64 = 500.0;
const SECONDS: f64 = 2.048;

/// Holds that a recording is of the tone, in both channels.
#[track_caller]
fn check_tone(path: &Path) {
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
        assert!((seconds / SECONDS - 1.0).abs() < 1e-2, "{seconds} s");
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
    check_tone(&recording);
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
    check_tone(&recording);
}
