//! Intel's AC'97 audio controller (82801AA) with a codec like STAC9700: systems from Windows 98 on have drivers for it.
//!
//! [`Ac97`] is the PCI function and its two ranges of ports; a box of the bus master is [`stream`]'s, the codec [`codec`]'s. What
//! is recorded is silence.
//!
//! ```text
//!   BAR 0: codec ── volumes, rates ─┐
//!   BAR 1: PCM out ── descriptors ──┴─► voice ──► mixer        any box's interrupt ──► INTA
//!          PCM in, microphone ◄── silence
//! ```

mod codec;
pub mod registers;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PauseDevice, PciAddress, PciFunction, PortBus, PortDevice, PortRange,
    ResetDevice, SaveDevice, StateError, Timer, Timers, Width,
};
use lodge_engine_api::GuestMemory;
use lodge_pci::bridges::registers::{INTEL, SUBSYSTEM};
use lodge_pci::config::registers::{COMMAND_MASTER, COMMAND_NO_INTX};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Router};
use parking_lot::Mutex;
use registers::*;
pub use state::{Ac97State, CodecState, StreamState};
use stream::Surroundings;

use crate::mixer::{Mixer, Voice};
use crate::pace::arm;

const REGION_MIXER: u8 = 0;
const REGION_MASTER: u8 = 1;

/// Channels of what each box moves.
const CHANNELS: [u32; BOXES] = [2, 2, 1];

/// What the function is connected to.
pub struct Ac97Wiring {
    /// Where its ports are.
    pub ports: PortBus,
    /// Where its buffers are.
    pub memory: GuestMemory,
    /// Where its interrupt goes.
    pub router: Arc<Router>,
    /// What it is heard through.
    pub mixer: Arc<Mixer>,
}

/// The function.
pub struct Ac97 {
    // wiring
    memory: GuestMemory,
    router: Arc<Router>,
    line: OnceLock<IrqLine>,
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    volatile: Mutex<Volatile>,
}

struct Volatile {
    config: ConfigSpace,
    /// But for the configuration space.
    state: Ac97State,
    voice: Voice,
}

impl Ac97 {
    /// A function after power-on.
    pub fn new(wiring: Ac97Wiring, timers: &Timers) -> Arc<Self> {
        let Ac97Wiring { ports, memory, router, mixer } = wiring;
        Arc::new_cyclic(|this: &Weak<Self>| {
            let spec = ConfigSpec {
                vendor: INTEL,
                device: ICH_AUDIO,
                revision: 1,
                class: [4, 1, 0],
                subsystem: SUBSYSTEM,
                pin: 1,
                ..ConfigSpec::default()
            };
            let mut config = ConfigSpace::new(&spec);
            let bars = [(MIXER_PORTS, REGION_MIXER, Width::Word), (MASTER_PORTS, REGION_MASTER, Width::Dword)];
            for (index, (length, region, widths)) in (0..).zip(bars) {
                let face: Weak<dyn PortDevice> = this.clone();
                let mapping = ports.mapping(face, PortRange { base: 0, length, region, widths });
                config.add_bar(index, length.into(), BarTarget::Ports(mapping));
            }
            let on_timer = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = on_timer.upgrade() {
                    this.with(|_, _| ());
                }
            });
            let mut voice = mixer.voice();
            let state = Ac97State::default();
            voice.set_gain(state.codec.gains());
            Self {
                memory,
                router,
                line: OnceLock::new(),
                clock: timers.clock().clone(),
                timer,
                volatile: Mutex::new(Volatile { config, state, voice }),
            }
        })
    }

    /// Brings all boxes up to now, does something, and sees to what comes of it.
    fn with<R>(&self, act: impl FnOnce(&mut Volatile, u64) -> R) -> R {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        for (number, channels) in CHANNELS.into_iter().enumerate() {
            volatile.on_box(&self.memory, number, |stream, around| stream.advance(now, channels, around));
        }
        let result = act(&mut volatile, now);
        self.drive(&mut volatile);
        arm(&self.timer, volatile.state.streams.iter().filter_map(|stream| stream.due(now)).min());
        result
    }

    fn drive(&self, volatile: &mut Volatile) {
        let raised = volatile.state.streams.iter().any(StreamState::interrupts);
        volatile.config.set_intx_status(raised);
        if let Some(line) = self.line.get() {
            line.set(raised && volatile.config.command() & COMMAND_NO_INTX == 0);
        }
    }
}

impl Volatile {
    fn on_box<R>(
        &mut self,
        memory: &GuestMemory,
        number: usize,
        act: impl FnOnce(&mut StreamState, &mut Surroundings<'_>) -> R,
    ) -> R {
        let master = self.config.command() & COMMAND_MASTER != 0;
        let voice = (number == PCM_OUT).then_some(&mut self.voice);
        act(&mut self.state.streams[number], &mut Surroundings { memory, master, voice })
    }

    /// Samples a second of a box.
    fn samples(&self, number: usize) -> u32 {
        self.state.codec.rate(number) * CHANNELS[number]
    }

    /// The codec may have other rates and volumes.
    fn codec_changed(&mut self, now: u64) {
        for number in 0..BOXES {
            let samples = self.samples(number);
            self.state.streams[number].set_rate(now, samples);
        }
        self.voice.set_gain(self.state.codec.gains());
    }

    fn read_codec(&mut self, offset: u16) -> u16 {
        self.state.semaphore = false;
        match u8::try_from(offset) {
            Ok(register @ 0..0x80) if register % 2 == 0 => self.state.codec.read(register),
            // The other codec does not answer.
            _ => {
                self.state.status |= READ_FAILED;
                0xffff
            }
        }
    }

    fn write_codec(&mut self, offset: u16, value: u16, now: u64) {
        self.state.semaphore = false;
        if let Ok(register @ 0..0x80) = u8::try_from(offset)
            && register % 2 == 0
        {
            self.state.codec.write(register, value);
            self.codec_changed(now);
        }
    }

    fn global_status(&self) -> u32 {
        let ready = if self.state.control & NO_COLD_RESET != 0 { CODEC_READY } else { 0 };
        let boxes = self.state.streams.iter().zip(BOX_INTERRUPTS);
        let interrupts: u32 = boxes.filter(|(stream, _)| stream.interrupts()).map(|(_, bit)| bit).sum();
        self.state.status | ready | interrupts
    }

    fn read_byte(&mut self, offset: u16) -> u8 {
        let number = usize::from(offset / BOX_PORTS);
        if let Some(stream) = self.state.streams.get(number).filter(|_| offset < GLOBAL_CONTROL) {
            return stream.read(offset % BOX_PORTS);
        }
        match offset {
            GLOBAL_CONTROL..GLOBAL_STATUS => self.state.control.to_le_bytes()[usize::from(offset - GLOBAL_CONTROL)],
            GLOBAL_STATUS..SEMAPHORE => self.global_status().to_le_bytes()[usize::from(offset - GLOBAL_STATUS)],
            // Who reads that it was free has it.
            SEMAPHORE => u8::from(std::mem::replace(&mut self.state.semaphore, true)),
            _ => 0,
        }
    }

    fn write_byte(&mut self, memory: &GuestMemory, offset: u16, value: u8, now: u64) {
        let number = usize::from(offset / BOX_PORTS);
        if number < BOXES && offset < GLOBAL_CONTROL {
            let samples = self.samples(number);
            let offset = offset % BOX_PORTS;
            return self.on_box(memory, number, |stream, around| stream.write(offset, value, now, samples, around));
        }
        match offset {
            GLOBAL_CONTROL..GLOBAL_STATUS => {
                let mut bytes = self.state.control.to_le_bytes();
                bytes[usize::from(offset - GLOBAL_CONTROL)] = value;
                self.state.control = u32::from_le_bytes(bytes) & GLOBAL_KEPT;
                if self.state.control & NO_COLD_RESET == 0 {
                    self.state.codec = CodecState::default();
                    self.codec_changed(now);
                }
            }
            GLOBAL_STATUS..SEMAPHORE => {
                let shift = 8 * u32::from(offset - GLOBAL_STATUS);
                self.state.status &= !(u32::from(value) << shift & READ_FAILED);
            }
            _ => {}
        }
    }
}

impl Device for Ac97 {
    fn name(&self) -> &str {
        "ac97"
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Ac97 {
    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        match (region, width) {
            (REGION_MIXER, Width::Word) => Ok(self.with(|volatile, _| volatile.read_codec(offset)).into()),
            (REGION_MIXER, _) => Err(AccessError::Width),
            _ => Ok(self.with(|volatile, _| {
                let bytes = (0..width.bytes() as u16).map(|n| u32::from(volatile.read_byte(offset + n)) << (8 * n));
                bytes.sum()
            })),
        }
    }

    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        match (region, width) {
            (REGION_MIXER, Width::Word) => self.with(|volatile, now| volatile.write_codec(offset, value as u16, now)),
            (REGION_MIXER, _) => return Err(AccessError::Width),
            _ => self.with(|volatile, now| {
                for n in 0..width.bytes() as u16 {
                    volatile.write_byte(&self.memory, offset + n, (value >> (8 * n)) as u8, now);
                }
            }),
        }
        Ok(())
    }
}

impl PciFunction for Ac97 {
    fn config_read(&self, offset: u8) -> u32 {
        self.volatile.lock().config.read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        self.with(|volatile, _| volatile.config.write(offset, mask, value));
    }

    fn placed(&self, address: PciAddress) {
        // A function is placed once.
        let _ = self.line.set(self.router.line(address.device, 0));
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.volatile.lock().config.bars()
    }
}

impl ResetDevice for Ac97 {
    fn reset(&self) {
        self.with(|volatile, now| {
            volatile.config.reset();
            volatile.state = Ac97State::default();
            volatile.voice.stop();
            volatile.codec_changed(now);
        });
    }
}

impl PauseDevice for Ac97 {
    fn pause(&self) {
        self.with(|_, _| ());
    }

    fn resume(&self) {}
}

impl SaveDevice for Ac97 {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        lodge_savestate::to_record(&Ac97State { config: volatile.config.state(), ..volatile.state.clone() })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: Ac97State = StateError::read("ac97", record)?;
        if !state.is_sound() {
            return Err(StateError { device: "ac97".into(), cause: "a register is out of range".into() });
        }
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        volatile.config.set_state(&state.config);
        volatile.voice.stop();
        volatile.voice.set_gain(state.codec.gains());
        volatile.state = Ac97State { config: Default::default(), ..state };
        self.drive(&mut volatile);
        arm(&self.timer, volatile.state.streams.iter().filter_map(|stream| stream.due(now)).min());
        Ok(())
    }
}
