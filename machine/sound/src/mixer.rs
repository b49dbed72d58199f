//! Mixing: what all voices play at a moment of guest time, in one stream for the sink.
//!
//! Frames of the stream are numbered from power-on. A [`Voice`] adds to a window of them; what lies a little back, and what no
//! voice that still plays will add to, goes to the sink.
//!
//! ```text
//!   given to the sink │ window: voices add here          │ future
//!   ──────────────────┼──────────────▲───────────▲───────┼──────► frames
//!                    base         voice 0     voice 1   now
//! ```
//!
//! Lock order: cards and the speaker call with their own locks held; the mixer takes its own, then the sink's or the timers'.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use lodge_bus::{Clock, Device, PauseDevice, Timer, Timers};
use parking_lot::Mutex;

use crate::sink::{Frame, Sink};

/// How long frames wait for voices to add to them, in nanoseconds.
const HORIZON: u64 = 40_000_000;
/// How often they are given to the sink.
const INTERVAL: u64 = 20_000_000;
/// How long a voice that plays but gives nothing can hold up the others.
const PATIENCE: u64 = 1_000_000_000;
/// A voice goes on where it ended if it starts again within so many milliseconds: programs that start each block by themselves
/// leave no gap that could be heard.
const SLACK_MS: u64 = 5;

struct State {
    window: VecDeque<[i32; 2]>,
    /// The number of the window's first frame.
    base: u64,
    /// The number of the frame after the last that the sink got; `None` before the first sound.
    given: Option<u64>,
    /// Where voices that play will add next.
    playing: Vec<Option<u64>>,
}

/// The mixer.
pub struct Mixer {
    // configuration
    rate: u32,
    // wiring
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    state: Mutex<State>,
}

impl Mixer {
    /// A mixer in front of a sink.
    pub fn new(sink: Arc<dyn Sink>, timers: &Timers) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.serve();
                }
            });
            let state = State { window: VecDeque::new(), base: 0, given: None, playing: Vec::new() };
            let clock = timers.clock().clone();
            Self { rate: sink.rate().clamp(1, 1 << 20), sink, clock, timer, state: Mutex::new(state) }
        })
    }

    /// Frames in a second of the stream.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// A new voice.
    pub fn voice(self: &Arc<Self>) -> Voice {
        let mut state = self.state.lock();
        state.playing.push(None);
        let number = state.playing.len() - 1;
        drop(state);
        Voice { mixer: self.clone(), number, next: None, playing: false, phase: 0, last: [0; 2], gain: [UNITY; 2] }
    }

    /// The number of the frame that plays at a moment.
    fn frame_at(&self, ns: u64) -> u64 {
        let frame = (u128::from(ns) * u128::from(self.rate) + 500_000_000) / 1_000_000_000;
        u64::try_from(frame).unwrap_or(u64::MAX)
    }

    /// The timer.
    fn serve(&self) {
        let mut state = self.state.lock();
        let now = self.clock.now_ns();
        let waits = state.playing.iter().flatten().copied().min().unwrap_or(u64::MAX);
        // A voice that gives nothing for long is not waited for.
        let waits = waits.max(self.frame_at(now.saturating_sub(PATIENCE)));
        self.give(&mut state, waits.min(self.frame_at(now.saturating_sub(HORIZON))));
        if !state.window.is_empty() {
            self.timer.arm_at(now.saturating_add(INTERVAL));
        }
    }

    /// Gives frames before `limit` to the sink.
    fn give(&self, state: &mut State, limit: u64) {
        let count = limit.saturating_sub(state.base).min(state.window.len() as u64);
        if count == 0 {
            return;
        }
        let clamp = |sample: i32| sample.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let frames: Vec<Frame> = state.window.drain(..count as usize).map(|frame| frame.map(clamp)).collect();
        // A recording begins with the first sound.
        let silence = state.given.map_or(0, |given| state.base.saturating_sub(given));
        self.sink.play(silence, &frames);
        state.base += count;
        state.given = Some(state.base);
    }
}

impl Device for Mixer {
    fn name(&self) -> &str {
        "sound"
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
}

impl PauseDevice for Mixer {
    fn pause(&self) {
        let mut state = self.state.lock();
        let limit = state.playing.iter().flatten().copied().min().unwrap_or(u64::MAX);
        self.give(&mut state, limit);
    }

    fn resume(&self) {}
}

impl Drop for Mixer {
    fn drop(&mut self) {
        let sink = self.sink.clone();
        let state = self.state.get_mut();
        let clamp = |sample: i32| sample.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let frames: Vec<Frame> = state.window.drain(..).map(|frame| frame.map(clamp)).collect();
        if !frames.is_empty() {
            sink.play(state.given.map_or(0, |given| state.base.saturating_sub(given)), &frames);
        }
    }
}

/// A gain of one.
const UNITY: u32 = 1 << 16;

/// A gain in decibels as a factor in units of 1/65536; at most that of 48 dB.
pub(crate) fn gain(decibels: f64) -> u32 {
    (10f64.powf(decibels.min(48.0) / 20.0) * f64::from(UNITY)).round() as u32
}

/// One source of sound.
pub struct Voice {
    mixer: Arc<Mixer>,
    number: usize,
    /// The number of the frame that it adds to next, once it has played.
    next: Option<u64>,
    playing: bool,
    /// How far the next frame of the stream lies behind the source's last one, in units of source frames divided by the
    /// stream's rate.
    phase: u64,
    last: [i32; 2],
    gain: [u32; 2],
}

impl Voice {
    /// Sets the gains of left and right, in units of 1/65536, for what is played from now on.
    pub(crate) fn set_gain(&mut self, gain: [u32; 2]) {
        self.gain = gain;
    }

    /// Frames in a second of the mixer's stream.
    pub fn rate(&self) -> u32 {
        self.mixer.rate
    }

    /// Plays frames of so many a second, the first of which belongs at the moment `at`. They go on where those before ended, as
    /// long as that is about the moment. A rate that is not the mixer's is converted, linearly.
    pub fn play(&mut self, at: u64, rate: u32, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let (mixer, rate) = (self.mixer.clone(), u64::from(rate.clamp(1, 1 << 20)));
        let stream = u64::from(mixer.rate);
        let mut state = mixer.state.lock();
        let wanted = mixer.frame_at(at);
        if wanted > mixer.frame_at(mixer.clock.now_ns()).saturating_add(stream) {
            // Cards play what has been; this is no time that there is yet.
            return;
        }
        let mut next = match self.next {
            Some(next) if wanted <= next.saturating_add(stream * SLACK_MS / 1000) => next,
            _ => {
                self.playing = false;
                wanted
            }
        };
        if !self.playing {
            (self.phase, self.last) = (stream, [0; 2]);
        }
        let others = state.playing.iter().enumerate().any(|(number, next)| number != self.number && next.is_some());
        if state.window.is_empty() && !others {
            state.base = state.base.max(next);
        }
        // What is late is heard late.
        next = next.max(state.base);
        self.playing = true;
        for frame in frames {
            let now: [i32; 2] = std::array::from_fn(|side| {
                let scaled = i64::from(frame[side]) * i64::from(self.gain[side]);
                // Beyond any that can be heard, and far from where sums overflow.
                (scaled >> 16).clamp(-(1 << 24), 1 << 24) as i32
            });
            while self.phase <= stream {
                let between = |side: usize| {
                    let (from, to) = (i64::from(self.last[side]), i64::from(now[side]));
                    (from + (to - from) * self.phase as i64 / stream as i64) as i32
                };
                state.add(next, [between(0), between(1)], stream);
                next = next.saturating_add(1);
                self.phase += rate;
            }
            self.phase -= stream;
            self.last = now;
        }
        self.next = Some(next);
        state.playing[self.number] = self.next;
        if mixer.timer.deadline().is_none() {
            mixer.timer.arm_at(mixer.clock.now_ns().saturating_add(INTERVAL));
        }
    }

    /// The voice is silent from here on; [`Self::play`] starts it again, without a crossing from what it played last.
    pub fn stop(&mut self) {
        self.playing = false;
        self.mixer.state.lock().playing[self.number] = None;
    }
}

impl State {
    fn add(&mut self, number: u64, frame: [i32; 2], rate: u64) {
        let index = number.saturating_sub(self.base);
        // The future beyond two seconds is not now's concern.
        if index > 2 * rate {
            return;
        }
        let index = index as usize;
        if index >= self.window.len() {
            self.window.resize(index + 1, [0; 2]);
        }
        let sum = &mut self.window[index];
        (sum[0], sum[1]) = (sum[0].saturating_add(frame[0]), sum[1].saturating_add(frame[1]));
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;

    const MS: u64 = 1_000_000;

    #[test]
    fn voices_are_added_up_at_their_moments() {
        let rig = Rig::new(1000);
        let (mut a, mut b) = (rig.mixer.voice(), rig.mixer.voice());
        rig.advance(100 * MS);
        a.play(100 * MS, 1000, &[[1, 10], [2, 20], [3, 30]]);
        b.play(102 * MS, 1000, &[[100, i16::MAX], [200, 7]]);
        a.stop();
        b.stop();
        rig.advance(200 * MS);
        assert_eq!(rig.sink.frames(), [[1, 10], [2, 20], [103, i16::MAX], [200, 7]]);
        assert_eq!(rig.timers.next_deadline(), None, "silence costs nothing");
        a.play(300 * MS, 1000, &[[9, 9]]);
        drop((a, b));
        rig.end();
        assert_eq!(rig.sink.frames()[4..], [&[[0, 0]; 196][..], &[[9, 9]]].concat());
    }

    #[test]
    fn rates_are_converted() {
        let rig = Rig::new(4000);
        let mut voice = rig.mixer.voice();
        voice.play(0, 2000, &[[100, -100], [200, -200], [300, -300]]);
        voice.stop();
        rig.advance(1000 * MS);
        assert_eq!(rig.sink.frames(), [[100, -100], [150, -150], [200, -200], [250, -250], [300, -300]]);
        // Down, and in pieces: as many frames as time has.
        let frames: Vec<Frame> = (0..8000).map(|n| [n, -n]).collect();
        for (n, piece) in frames.chunks(7).enumerate() {
            voice.play(1000 * MS + n as u64 * 7 * 125_000, 8000, piece);
        }
        voice.stop();
        rig.advance(3000 * MS);
        let all = rig.sink.frames();
        let heard = &all[all.len() - 4000..];
        assert_eq!((heard[0], heard[1], heard[3999]), ([0, 0], [2, -2], [7998, -7998]));
    }

    #[test]
    fn blocks_that_are_started_one_by_one_leave_no_gap() {
        let rig = Rig::new(1000);
        let mut voice = rig.mixer.voice();
        for n in 0..10 {
            let at = rig.clock.now_ns();
            voice.play(at, 1000, &[[n; 2]; 50]);
            voice.stop();
            // The guest's handler takes a moment.
            rig.advance(50 * MS + MS / 10);
        }
        rig.advance(1000 * MS);
        let expected: Vec<Frame> = (0..10).flat_map(|n| [[n; 2]; 50]).collect();
        assert_eq!(rig.sink.frames(), expected);
    }

    #[test]
    fn a_slow_voice_is_waited_for_but_not_for_ever() {
        let rig = Rig::new(1000);
        let (mut slow, mut quick) = (rig.mixer.voice(), rig.mixer.voice());
        slow.play(0, 1000, &[[1, 1]]);
        quick.play(0, 1000, &[[1, 1]; 400]);
        quick.stop();
        rig.advance(500 * MS);
        assert_eq!(rig.sink.frames().len(), 1);
        slow.play(MS, 1000, &[[1, 1]; 399]);
        rig.advance(100 * MS);
        assert_eq!(rig.sink.frames(), [[2, 2]; 400], "what came late was added");
        quick.play(600 * MS, 1000, &[[3, 3]; 10]);
        quick.stop();
        rig.advance(3000 * MS);
        assert_eq!(rig.sink.frames()[600..], [[3, 3]; 10]);
        assert_eq!(rig.timers.next_deadline(), None);
    }

    #[test]
    fn sums_are_cut_off_rather_than_wrapped_and_the_far_future_is_left_alone() {
        let rig = Rig::new(1000);
        let mut voices: Vec<_> = (0..4).map(|_| rig.mixer.voice()).collect();
        for voice in &mut voices {
            voice.set_gain([u32::MAX, gain(-6.0)]);
            voice.play(0, 1000, &[[i16::MAX, i16::MIN]]);
            voice.play(u64::MAX, 1, &[[1, 1]]);
            voice.stop();
        }
        rig.advance(5000 * MS);
        assert_eq!(rig.sink.frames()[0], [i16::MAX, i16::MIN]);
        assert_eq!((gain(0.0), gain(-6.0), gain(-1000.0)), (65536, 32846, 0));
        rig.end();
        assert!(rig.sink.frames().len() < 10);
        // Nor does it keep the present from being heard.
        voices[0].set_gain([UNITY; 2]);
        voices[0].play(5000 * MS, 1000, &[[77, 77]]);
        rig.end();
        drop(voices);
        rig.end();
        assert_eq!(rig.sink.frames().last(), Some(&[77, 77]));
    }
}
