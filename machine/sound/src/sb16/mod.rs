//! Creative's Sound Blaster 16 with DSP 4.05, where games and old systems expect it: ports 220h to 22Fh, and 388h.
//!
//! [`Sb16`] has the ports and the DSP's commands ([`commands`]); blocks that the DSP moves are [`transfer`]'s, volumes and the
//! choice of interrupt and DMA channels [`mixer`]'s, FM [`crate::opl`]'s. There is no MPU-401.
//!
//! ```text
//!   DMA 1, 5 ──► transfer ──► voice ──► mixer        write port ──► command, its parameters ──► carried out
//!   direct DAC ──► stepper ──► voice ──┤             reset port: 1, then 0 ──► AAh to read
//!   FM ports ──► opl ────────► voice ──┘
//! ```

mod commands;
mod mixer;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PauseDevice, PortDevice, PortRange, ResetDevice, SaveDevice, StateError,
    Timer, Timers, Width,
};
use lodge_chipset::{Dma, DmaChannel};
use parking_lot::Mutex;
use registers::*;
pub use state::{Coding, MixerState, Sb16State, Transfer};

use crate::mixer::{Mixer, Voice};
use crate::pace::arm;
use crate::stepper::{self, Level, Stepper};

const REGION_MAIN: u8 = 0;
const REGION_ADLIB: u8 = 1;

/// What the card is connected to.
pub struct Sb16Wiring {
    /// The DMA controllers.
    pub dma: Arc<Dma>,
    /// ISA interrupts 2, 5, 7 and 10, as far as the card can be set to them.
    pub interrupts: [Option<IrqLine>; 4],
    /// What the card is heard through.
    pub mixer: Arc<Mixer>,
}

/// The direct DAC's level, as samples are.
fn direct_level(level: u8) -> Level {
    Level::constant(i16::from_le_bytes([0, level ^ 0x80]))
}

/// The card.
pub struct Sb16 {
    // wiring
    channels: [DmaChannel; 8],
    interrupts: [Option<IrqLine>; 4],
    clock: Arc<dyn Clock>,
    timer: Timer,
    // volatile
    volatile: Mutex<Volatile>,
}

struct Volatile {
    state: Sb16State,
    voice: Voice,
    direct: Stepper,
    fm: Voice,
}

impl Sb16 {
    /// A card after power-on.
    pub fn new(wiring: Sb16Wiring, timers: &Timers) -> Arc<Self> {
        let Sb16Wiring { dma, interrupts, mixer } = wiring;
        let volatile = Volatile {
            state: Sb16State::default(),
            voice: mixer.voice(),
            direct: Stepper::new(mixer.voice()),
            fm: mixer.voice(),
        };
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.settle();
                }
            });
            let card = Self {
                channels: std::array::from_fn(|number| dma.channel(number)),
                interrupts,
                clock: timers.clock().clone(),
                timer,
                volatile: Mutex::new(volatile),
            };
            card.set_gains(&mut card.volatile.lock());
            card
        })
    }

    /// Does what is due, on the timer and before the machine is paused.
    fn settle(&self) {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        self.advance(&mut volatile, now);
        Self::advance_fm(&mut volatile, now);
        self.arm(&volatile, now);
    }

    /// Plays what the synthesizer has made up to now: before its registers change, and now and then.
    fn advance_fm(volatile: &mut Volatile, now: u64) {
        volatile.state.opl.advance(now, &mut volatile.fm);
    }

    /// Brings the transfer up to now. The DMA controllers' lock is taken below the card's: they take none themselves.
    fn advance(&self, volatile: &mut Volatile, now: u64) {
        let Volatile { state, voice, direct, .. } = volatile;
        direct.render(now);
        let Some(transfer) = &mut state.transfer else { return };
        let channel = state.mixer.channel(transfer.wide).map(|number| &self.channels[number]);
        let ended = transfer.advance(now, channel, voice);
        let (single, interrupt) = (transfer.left == 0, transfer.interrupt());
        if single {
            voice.stop();
            state.transfer = None;
        }
        if ended > 0 {
            self.interrupt(state, state.interrupts | interrupt);
        }
    }

    fn arm(&self, volatile: &Volatile, now: u64) {
        let transfer = volatile.state.transfer.as_ref().and_then(|transfer| transfer.due(now));
        let direct = volatile.direct.is_live().then(|| now.saturating_add(stepper::INTERVAL));
        let fm = volatile.state.opl.due(now);
        arm(&self.timer, transfer.into_iter().chain(direct).chain(fm).min());
    }

    /// Sets the interrupt status.
    fn interrupt(&self, state: &mut Sb16State, interrupts: u8) {
        state.interrupts = interrupts;
        self.drive(state);
    }

    fn drive(&self, state: &Sb16State) {
        let selected = state.mixer.interrupt();
        for (n, line) in self.interrupts.iter().enumerate() {
            if let Some(line) = line {
                line.set(state.interrupts != 0 && selected == Some(n));
            }
        }
    }

    fn set_gains(&self, volatile: &mut Volatile) {
        let gains = volatile.state.mixer.gains(VOICE);
        volatile.voice.set_gain(gains);
        volatile.direct.voice().set_gain(gains);
        volatile.fm.set_gain(volatile.state.mixer.gains(FM));
    }

    fn set_level(&self, volatile: &mut Volatile, now: u64, level: u8) {
        volatile.state.level = level;
        volatile.direct.change(now, direct_level(level));
    }

    /// The DSP after a reset; mixer and synthesizer go on.
    fn reset_dsp(&self, volatile: &mut Volatile, now: u64) {
        let mixer = std::mem::take(&mut volatile.state.mixer);
        let opl = std::mem::take(&mut volatile.state.opl);
        volatile.state = Sb16State { mixer, opl, output: vec![READY], ..Sb16State::default() };
        volatile.voice.stop();
        self.set_level(volatile, now, 0x80);
        self.drive(&volatile.state);
    }

    fn write_reset(&self, volatile: &mut Volatile, now: u64, value: u8) {
        let before = std::mem::replace(&mut volatile.state.resetting, value & 1 != 0);
        if before && value & 1 == 0 {
            self.reset_dsp(volatile, now);
        }
    }

    fn read_data(state: &mut Sb16State) -> u8 {
        if !state.output.is_empty() {
            state.last = state.output.remove(0);
        }
        state.last
    }

    fn write_fm(volatile: &mut Volatile, now: u64, port: u16, value: u8) {
        Self::advance_fm(volatile, now);
        volatile.state.opl.write(port, value, now);
    }

    fn read(&self, volatile: &mut Volatile, now: u64, offset: u16) -> Result<u8, AccessError> {
        let state = &mut volatile.state;
        Ok(match offset {
            FM_ADDRESS | FM_OLD | 2 => state.opl.status(now),
            // Only addresses can be written there.
            1 | FM_LAST | FM_OLD_DATA => 0xff,
            MIXER_ADDRESS => state.mixer.index,
            MIXER_DATA => state.mixer.read(state.interrupts),
            READ => Self::read_data(state),
            // It is never busy.
            WRITE => 0x7f,
            READ_STATUS => {
                self.interrupt(state, state.interrupts & !STATUS_8);
                if state.output.is_empty() { 0x7f } else { 0xff }
            }
            ACK_16 => {
                self.interrupt(state, state.interrupts & !STATUS_16);
                0xff
            }
            _ => return Err(AccessError::Nobody),
        })
    }

    fn write(&self, volatile: &mut Volatile, now: u64, offset: u16, value: u8) -> Result<(), AccessError> {
        match offset {
            FM_ADDRESS..=FM_LAST => Self::write_fm(volatile, now, offset, value),
            FM_OLD | FM_OLD_DATA => Self::write_fm(volatile, now, offset - FM_OLD, value),
            MIXER_ADDRESS => volatile.state.mixer.index = value,
            MIXER_DATA => {
                Self::advance_fm(volatile, now);
                volatile.state.mixer.write(value);
                self.set_gains(volatile);
                self.drive(&volatile.state);
            }
            RESET => self.write_reset(volatile, now, value),
            WRITE => self.write_dsp(volatile, now, value),
            _ => return Err(AccessError::Nobody),
        }
        Ok(())
    }
}

impl Device for Sb16 {
    fn name(&self) -> &str {
        "sb16"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
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

impl PortDevice for Sb16 {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base, length, region| PortRange { base, length, region, widths: Width::Byte };
        vec![range(BASE, LENGTH, REGION_MAIN), range(ADLIB, ADLIB_LENGTH, REGION_ADLIB)]
    }

    // The region of AdLib's ports has the offsets of the card's first four, which are the same.
    fn port_read(&self, _region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        self.advance(&mut volatile, now);
        let value = self.read(&mut volatile, now, offset).map(u32::from);
        self.arm(&volatile, now);
        value
    }

    fn port_write(&self, _region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        self.advance(&mut volatile, now);
        let taken = self.write(&mut volatile, now, offset, value as u8);
        self.arm(&volatile, now);
        taken
    }
}

impl ResetDevice for Sb16 {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        Self::advance_fm(&mut volatile, now);
        volatile.state = Sb16State::default();
        volatile.voice.stop();
        volatile.fm.stop();
        self.set_level(&mut volatile, now, 0x80);
        self.set_gains(&mut volatile);
        self.drive(&volatile.state);
        self.arm(&volatile, now);
    }
}

impl PauseDevice for Sb16 {
    fn pause(&self) {
        self.settle();
    }

    fn resume(&self) {}
}

impl SaveDevice for Sb16 {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.volatile.lock().state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: Sb16State = StateError::read("sb16", record)?;
        if !state.is_sound() {
            return Err(StateError { device: "sb16".into(), cause: "a register or transfer is out of range".into() });
        }
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        let level = state.level;
        volatile.voice.stop();
        volatile.fm.stop();
        volatile.state = state;
        volatile.direct.rest(direct_level(level));
        self.set_gains(&mut volatile);
        self.drive(&volatile.state);
        self.arm(&volatile, now);
        Ok(())
    }
}
