//! The 8254 programmable interval timer, and system control port B.
//!
//! [`Pit`] has three counters ([`channel`]). Counter 0 interrupts; counter 2 is gated and read through port B, which is
//! how Linux calibrates. A timer is armed only while counter 0 has an edge to come and is heard.
//!
//! ```text
//!   counter 0 --OUT--> interrupt 0 (unless the HPET replaces it)
//!   counter 2 <--GATE-- port B bit 0;  --OUT--> port B bit 5
//!                                        --OUT--> and port B bit 1: the speaker ([`Loudspeaker`])
//! ```

mod channel;
pub mod registers;
mod signal;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Timer, Timers,
    Width,
};
use parking_lot::Mutex;
use registers::*;
pub use signal::{Loudspeaker, Signal};
pub use state::{ChannelState, PitState};

use channel::Channel;

const REGION_COUNTERS: u8 = 0;
const REGION_PORT_B: u8 = 1;

#[derive(Default)]
struct Volatile {
    channels: [Channel; 3],
    port_b: u8,
    replaced: bool,
    /// What the speaker was last told.
    signal: Signal,
}

impl Volatile {
    fn new() -> Self {
        let mut volatile = Self::default();
        volatile.channels[2].state.gate = false;
        volatile
    }
}

/// The PIT.
pub struct Pit {
    // wiring
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    timer: Timer,
    speaker: OnceLock<Arc<dyn Loudspeaker>>,
    // volatile
    volatile: Mutex<Volatile>,
}

impl Pit {
    /// A PIT whose counter 0 drives `irq` (ISA interrupt 0).
    pub fn new(timers: &Timers, irq: IrqLine) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.rise();
                }
            });
            Self {
                clock: timers.clock().clone(),
                irq,
                timer,
                speaker: OnceLock::new(),
                volatile: Mutex::new(Volatile::new()),
            }
        })
    }

    /// Puts a speaker on the line from counter 2. There is room for one; others are not heard.
    pub fn connect(&self, speaker: Arc<dyn Loudspeaker>) {
        let _ = self.speaker.set(speaker);
    }

    /// Tells the speaker if it is to hear something else.
    fn sound(&self, volatile: &mut Volatile) {
        let Some(speaker) = self.speaker.get() else { return };
        let now = self.clock.now_ns();
        let signal = if volatile.port_b & SPEAKER == 0 { Signal::Low } else { volatile.channels[2].signal(now) };
        if std::mem::replace(&mut volatile.signal, signal) != signal {
            speaker.drive(now, signal);
        }
    }

    /// The HPET takes interrupt 0 over, or gives it back.
    pub fn set_replaced(&self, replaced: bool) {
        let mut volatile = self.volatile.lock();
        volatile.replaced = replaced;
        self.arm(&volatile);
    }

    fn arm(&self, volatile: &Volatile) {
        let next = volatile.channels[0].next_rise(self.clock.now_ns());
        self.timer.set(next.filter(|_| !volatile.replaced));
    }

    /// Counter 0's output rose. Periods that were missed become one edge, as the 8259A would have made of them.
    fn rise(&self) {
        let volatile = self.volatile.lock();
        if !volatile.replaced && volatile.channels[0].state.started.is_some() {
            self.irq.pulse();
        }
        self.arm(&volatile);
    }

    fn control(&self, volatile: &mut Volatile, value: u8, now: u64) {
        let select = value >> SELECT_SHIFT;
        if let Some(channel) = volatile.channels.get_mut(usize::from(select)) {
            if (value >> 4) & 3 == 0 {
                channel.latch_count(now);
            } else {
                channel.set_mode(value);
            }
            return;
        }
        // Read-back command.
        for (index, channel) in volatile.channels.iter_mut().enumerate() {
            if value & 2 << index != 0 {
                if value & READ_BACK_NO_COUNT == 0 {
                    channel.latch_count(now);
                }
                if value & READ_BACK_NO_STATUS == 0 {
                    channel.latch_status(now);
                }
            }
        }
    }
}

impl Device for Pit {
    fn name(&self) -> &str {
        "pit"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Pit {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![
            PortRange { base: BASE, length: 4, region: REGION_COUNTERS, widths: Width::Byte },
            PortRange { base: PORT_B, length: 1, region: REGION_PORT_B, widths: Width::Byte },
        ]
    }

    fn port_read(&self, region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut volatile = self.volatile.lock();
        let now = self.clock.now_ns();
        if region == REGION_PORT_B {
            let refresh = if now / 15_085 % 2 == 1 { REFRESH } else { 0 };
            let out2 = if volatile.channels[2].output(now) { OUT2 } else { 0 };
            return Ok(u32::from(volatile.port_b | refresh | out2));
        }
        let channel = volatile.channels.get_mut(usize::from(offset)).ok_or(AccessError::Nobody)?;
        Ok(channel.read(now).into())
    }

    fn port_write(&self, region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut volatile = self.volatile.lock();
        let (value, now) = (value as u8, self.clock.now_ns());
        if region == REGION_PORT_B {
            volatile.port_b = value & PORT_B_WRITABLE;
            volatile.channels[2].set_gate(value & GATE2 != 0, now);
            self.sound(&mut volatile);
            return Ok(());
        }
        match volatile.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.write(value, now),
            None => self.control(&mut volatile, value, now),
        }
        self.sound(&mut volatile);
        self.arm(&volatile);
        Ok(())
    }
}

impl ResetDevice for Pit {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        *volatile = Volatile { signal: volatile.signal, ..Volatile::new() };
        self.sound(&mut volatile);
        self.arm(&volatile);
    }
}

impl SaveDevice for Pit {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        lodge_savestate::to_record(&PitState {
            channels: volatile.channels.each_ref().map(|channel| channel.state.clone()),
            port_b: volatile.port_b,
            replaced: volatile.replaced,
        })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: PitState = StateError::read("pit", record)?;
        if state.channels.iter().any(|channel| channel.mode > 5 || channel.count > 0x1_0000) {
            return Err(StateError { device: "pit".into(), cause: "a counter is out of range".into() });
        }
        let mut volatile = self.volatile.lock();
        *volatile = Volatile {
            channels: state.channels.map(|state| Channel { state }),
            port_b: state.port_b & PORT_B_WRITABLE,
            replaced: state.replaced,
            signal: volatile.signal,
        };
        self.sound(&mut volatile);
        self.arm(&volatile);
        Ok(())
    }
}
