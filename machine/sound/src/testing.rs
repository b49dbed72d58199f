//! What the tests share: a mock clock, buses, a sink that keeps what it gets, and a reader of recordings.

use std::path::Path;
use std::sync::Arc;

use lodge_bus::{Device, IrqLine, IrqSink, MockClock, PortBus, Timers, Width};
use lodge_engine_api::GuestMemory;
pub(crate) use lodge_trial::{Random, steps};
use parking_lot::Mutex;
use vm_memory::GuestAddress;

use crate::mixer::Mixer;
use crate::sink::{Frame, Sink};

/// Keeps what is played.
pub(crate) struct Keeper {
    rate: u32,
    frames: Mutex<Vec<Frame>>,
}

impl Keeper {
    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.frames.lock().clone()
    }
}

impl Sink for Keeper {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn play(&self, silence: u64, frames: &[Frame]) {
        let mut all = self.frames.lock();
        let length = all.len() + silence.min(10_000_000) as usize;
        all.resize(length, [0; 2]);
        all.extend_from_slice(frames);
    }
}

/// Keeps levels and counts rising edges.
#[derive(Default)]
pub(crate) struct Lines(Mutex<[(bool, u32); 32]>);

impl IrqSink for Lines {
    fn set_level(&self, line: u32, high: bool) {
        let (level, edges) = &mut self.0.lock()[line as usize];
        *edges += u32::from(high && !*level);
        *level = high;
    }
}

/// A board without devices but a mixer.
pub(crate) struct Rig {
    pub clock: Arc<MockClock>,
    pub timers: Timers,
    pub ports: PortBus,
    pub lines: Arc<Lines>,
    pub sink: Arc<Keeper>,
    pub mixer: Arc<Mixer>,
}

impl Rig {
    pub(crate) fn new(rate: u32) -> Self {
        let sink = Arc::new(Keeper { rate, frames: Mutex::default() });
        Self { sink: sink.clone(), ..Self::with(sink) }
    }

    /// With another sink.
    pub(crate) fn with(sink: Arc<dyn Sink>) -> Self {
        let clock = Arc::new(MockClock::new());
        let timers = Timers::mock(clock.clone());
        let mixer = Mixer::new(sink, &timers);
        let sink = Arc::new(Keeper { rate: 1, frames: Mutex::default() });
        Self { clock, timers, ports: PortBus::new(), lines: Arc::default(), sink, mixer }
    }

    pub(crate) fn line(&self, line: u32) -> IrqLine {
        IrqLine::new(self.lines.clone(), line)
    }

    pub(crate) fn level(&self, line: u32) -> bool {
        self.lines.0.lock()[line as usize].0
    }

    pub(crate) fn edges(&self, line: u32) -> u32 {
        self.lines.0.lock()[line as usize].1
    }

    pub(crate) fn attach(&self, device: Arc<impl Device + 'static>) {
        let device: Arc<dyn Device> = device;
        self.ports.attach(&device.port().unwrap()).unwrap();
    }

    pub(crate) fn advance(&self, ns: u64) {
        self.timers.advance(&self.clock, ns);
    }

    pub(crate) fn outb(&self, port: u16, value: u8) {
        self.ports.write(port, Width::Byte, value.into());
    }

    pub(crate) fn inb(&self, port: u16) -> u8 {
        self.ports.read(port, Width::Byte) as u8
    }

    /// Gives the sink all that is left.
    pub(crate) fn end(&self) {
        use lodge_bus::PauseDevice;
        self.mixer.pause();
    }
}

/// A board with a card and the memory that it reaches.
pub(crate) struct Bench<C> {
    pub rig: Rig,
    pub memory: GuestMemory,
    pub card: Arc<C>,
}

impl<C> std::ops::Deref for Bench<C> {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl<C> Bench<C> {
    pub(crate) fn ram() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }
}

/// A recording's rate and frames.
pub(crate) fn read_wav(path: &Path) -> (u32, Vec<Frame>) {
    let mut reader = hound::WavReader::open(path).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.bits_per_sample, spec.sample_format), (2, 16, hound::SampleFormat::Int));
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    (spec.sample_rate, samples.chunks_exact(2).map(|frame| [frame[0], frame[1]]).collect())
}
