//! The PC speaker: the PIT's counter 2 through the gate of port 61h's bit 1.
//!
//! [`Speaker`] is told by the PIT whenever the signal at the speaker becomes another one, with guest time; it works out the sound
//! in between. A program that plays samples, by toggling bit 1 or by pulses of counter 2, is heard as one that plays tones.

use std::sync::{Arc, Weak};

use lodge_bus::{Clock, Device, PauseDevice, Timer, Timers};
use lodge_chipset::pit::{Loudspeaker, Signal};
use parking_lot::Mutex;

use crate::mixer::Mixer;
use crate::stepper::{INTERVAL, Level, Stepper};

/// From low to high, in units of samples.
const SWING: f64 = 12_000.0;

/// The speaker.
pub struct Speaker {
    // wiring
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    stepper: Mutex<Stepper>,
}

impl Speaker {
    /// A speaker that is heard in a mixer's stream; `Pit::connect` takes it.
    pub fn new(mixer: &Arc<Mixer>, timers: &Timers) -> Arc<Self> {
        let stepper = Mutex::new(Stepper::new(mixer.voice()));
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.go_on();
                }
            });
            Self { clock: timers.clock().clone(), timer, stepper }
        })
    }

    fn go_on(&self) {
        let mut stepper = self.stepper.lock();
        let now = self.clock.now_ns();
        stepper.render(now);
        self.timer.set(stepper.is_live().then(|| now.saturating_add(INTERVAL)));
    }
}

impl Loudspeaker for Speaker {
    fn drive(&self, now: u64, signal: Signal) {
        let mut stepper = self.stepper.lock();
        stepper.change(now, Level { signal, high: SWING });
        if stepper.is_live() && self.timer.deadline().is_none() {
            self.timer.arm_at(now.saturating_add(INTERVAL));
        }
    }
}

impl Device for Speaker {
    fn name(&self) -> &str {
        "speaker"
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
}

impl PauseDevice for Speaker {
    fn pause(&self) {
        self.go_on();
    }

    fn resume(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;
    use lodge_bus::{IrqLine, ResetDevice, SaveDevice, Width};
    use lodge_chipset::Pit;

    const MS: u64 = 1_000_000;
    const RATE: u32 = 48_000;

    fn rig() -> (Rig, Arc<Pit>, Arc<Speaker>) {
        let rig = Rig::new(RATE);
        let pit = Pit::new(&rig.timers, IrqLine::unconnected());
        let speaker = Speaker::new(&rig.mixer, &rig.timers);
        pit.connect(speaker.clone());
        rig.attach(pit.clone());
        (rig, pit, speaker)
    }

    fn tone(rig: &Rig, divisor: u16) {
        rig.outb(0x43, 0xb6);
        divisor.to_le_bytes().into_iter().for_each(|byte| rig.outb(0x42, byte));
        rig.outb(0x61, rig.inb(0x61) & 0x0f | 3);
    }

    fn crossings(samples: &[i16]) -> usize {
        samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count()
    }

    fn left(rig: &Rig) -> Vec<i16> {
        rig.sink.frames().iter().map(|frame| frame[0]).collect()
    }

    #[test]
    fn a_tone_has_the_frequency_of_the_divisor() {
        for (divisor, hertz) in [(1193, 1000), (2712, 440), (300, 3977), (65535, 18)] {
            let (rig, ..) = rig();
            tone(&rig, divisor);
            rig.advance(1000 * MS);
            rig.outb(0x61, 0);
            rig.advance(1000 * MS);
            let samples = left(&rig);
            let second = &samples[..RATE as usize];
            let found = crossings(second);
            assert!(found.abs_diff(hertz) <= 1, "{hertz} Hz: {found}");
            let peak = second[4800..].iter().max().unwrap();
            assert!((5000..=12_000).contains(peak), "{hertz} Hz: {peak}");
            assert!(samples.len() < RATE as usize * 5 / 4, "it dies down");
            assert_eq!(rig.timers.next_deadline(), None, "and costs nothing then");
        }
    }

    #[test]
    fn the_gate_and_the_data_bit_are_needed() {
        let (rig, ..) = rig();
        tone(&rig, 1193);
        rig.outb(0x61, 1);
        rig.advance(500 * MS);
        let before = left(&rig).len();
        rig.advance(500 * MS);
        assert_eq!(left(&rig).len(), before);
        // Linux calibrates with the gate on and the speaker off.
        tone(&rig, 0xffff);
        rig.outb(0x61, 0x01);
        rig.advance(100 * MS);
        assert_eq!(rig.timers.next_deadline(), None);
    }

    #[test]
    fn toggling_bit_1_is_heard() {
        let (rig, ..) = rig();
        // The counter's output is high while its gate is closed.
        rig.outb(0x43, 0xb6);
        for _ in 0..200 {
            rig.outb(0x61, rig.inb(0x61) & !3 | 2);
            rig.advance(MS);
            rig.outb(0x61, rig.inb(0x61) & !3);
            rig.advance(MS);
        }
        rig.advance(1000 * MS);
        let samples = left(&rig);
        assert!(crossings(&samples[..RATE as usize * 4 / 10]).abs_diff(200) <= 1);
    }

    #[test]
    fn pulses_of_counter_2_are_heard_as_their_mean() {
        // 16 kHz of pulses whose widths follow a 250 Hz sine, as programs play samples.
        let (rig, ..) = rig();
        rig.outb(0x43, 0x90);
        rig.outb(0x61, 3);
        for n in 0..8000 {
            let sine = (f64::from(n) * 250.0 * std::f64::consts::TAU / 16_000.0).sin();
            rig.outb(0x42, (37.0 + 30.0 * sine) as u8);
            rig.advance(62_500);
        }
        let samples = left(&rig);
        let sound = &samples[4800..RATE as usize * 4 / 10];
        // What a listener's ear does to the carrier.
        let smooth: Vec<i16> =
            sound.windows(24).map(|near| (near.iter().map(|s| i32::from(*s)).sum::<i32>() / 24) as i16).collect();
        assert!(crossings(&smooth).abs_diff(75) <= 1, "{}", crossings(&smooth));
        let peak = *smooth.iter().max().unwrap();
        assert!((3500..6000).contains(&peak), "{peak}");
    }

    #[test]
    fn a_tone_goes_on_where_the_pit_is_restored_and_ends_with_a_reset() {
        let (rig, pit, speaker) = rig();
        tone(&rig, 1193);
        let saved = pit.save();
        rig.advance(10 * MS);
        pit.reset();
        rig.advance(1000 * MS);
        assert_eq!(rig.timers.next_deadline(), None);
        let before = left(&rig).len();
        pit.restore(&saved).unwrap();
        rig.advance(100 * MS);
        speaker.pause();
        rig.mixer.pause();
        let samples = left(&rig);
        assert!(crossings(&samples[samples.len() - 4800..]).abs_diff(100) <= 1, "{} {before}", samples.len());
    }

    #[test]
    fn the_time_that_the_host_lost_is_not_all_made_up_for() {
        let (rig, _, speaker) = rig();
        tone(&rig, 1193);
        rig.clock.set(3_600_000 * MS);
        speaker.pause();
        rig.end();
        assert!(left(&rig).len() <= RATE as usize + 2);
        rig.ports.write(0x61, Width::Byte, 0);
    }
}
