//! virtio-input: a tablet, which is a pointer that knows where it is (virtio 1.2 section 5.8).
//!
//! [`Tablet`] is a [`Pointer`] for a [`lodge_input::Desk`]. What happens becomes a [`Report`] that waits until the guest has
//! given buffers; without a driver nothing is kept, and the desk turns to another pointer. Where a saved state goes on, the
//! buttons that were held then are released: whoever sits there now may not hold them.
//!
//! ```text
//!   desk --report--> reports --> events of one report --> buffers of queue 0
//! ```

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lodge_bus::StateError;
use lodge_input::{Button, Pointer};
use parking_lot::Mutex;
use registers::*;
pub use state::{Event, Report, TabletState};

use crate::device::VirtioDevice;
use crate::queue::{Broken, VirtQueue};
use crate::worker::Bell;

#[derive(Default)]
struct Volatile {
    state: TabletState,
    /// There while a driver is.
    bell: Option<Bell>,
    /// The state was restored: nobody here holds the buttons that were down when it was saved.
    restored: bool,
}

impl Volatile {
    /// The state, of this machine's user.
    fn present(&mut self) -> &mut TabletState {
        if std::mem::take(&mut self.restored) {
            self.state.release();
        }
        &mut self.state
    }
}

/// A tablet with three buttons, two more, and a wheel.
pub struct Tablet {
    // configuration
    name: String,
    // volatile
    volatile: Mutex<Volatile>,
}

/// Which bits of a bit map are set.
fn bits(codes: &[u16]) -> Vec<u8> {
    let last = codes.iter().copied().max().unwrap_or(0);
    let mut map = vec![0; usize::from(last) / 8 + 1];
    for code in codes {
        map[usize::from(code / 8)] |= 1 << (code % 8);
    }
    map
}

impl Tablet {
    /// A tablet.
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), volatile: Mutex::default() })
    }

    /// What the selected part of the configuration says; nothing where there is none.
    fn selected(select: u8, subsel: u8) -> Vec<u8> {
        match (select, subsel) {
            (select::ID_NAME, 0) => NAME.to_vec(),
            (select::ID_DEVIDS, 0) => IDS.iter().flat_map(|id| id.to_le_bytes()).collect(),
            (select::EV_BITS, kind) => match u16::from(kind) {
                kind::KEY => bits(&code::BUTTONS),
                kind::REL => bits(&[code::REL_WHEEL]),
                kind::ABS => bits(&[code::ABS_X, code::ABS_Y]),
                _ => Vec::new(),
            },
            (select::ABS_INFO, axis) if [code::ABS_X, code::ABS_Y].contains(&axis.into()) => {
                // Least and most; noise, dead zone, and resolution are unknown.
                [0, MOST, 0, 0, 0].iter().flat_map(|value: &u32| value.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn report(&self, report: Report) {
        let mut volatile = self.volatile.lock();
        let Some(bell) = volatile.bell.clone() else { return };
        volatile.present().add(report);
        drop(volatile);
        bell.ring(EVENTS);
    }

    fn tell(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            loop {
                let mut volatile = self.volatile.lock();
                let Some((kind, code, value)) = volatile.present().next() else { break };
                let Some(chain) = queue.pop()? else { break };
                // A buffer without room for an event goes back as it came.
                let room = chain.writable.length() >= EVENT as u64;
                if room {
                    volatile.state.told();
                }
                drop(volatile);
                if room {
                    let mut event = [0; EVENT];
                    event[..2].copy_from_slice(&kind.to_le_bytes());
                    event[2..4].copy_from_slice(&code.to_le_bytes());
                    event[4..].copy_from_slice(&value.to_le_bytes());
                    queue.write(&chain, 0, &event)?;
                }
                queue.push(&chain, if room { EVENT as u64 } else { 0 })?;
            }
            queue.signal()?;
            // With nothing to tell, buffers that come need no look.
            if !queue.listen()? || self.volatile.lock().state.is_idle() {
                return Ok(());
            }
        }
    }
}

impl Pointer for Tablet {
    fn is_absolute(&self) -> bool {
        // One whose events go nowhere leaves the pointer to the mouse.
        self.volatile.lock().bell.as_ref().is_some_and(|bell| bell.is_live(EVENTS))
    }

    fn motion(&self, _dx: i32, _dy: i32) {}

    fn position(&self, x: u16, y: u16) {
        self.report(Report::Position(x >> 1, y >> 1));
    }

    fn wheel(&self, notches: i32) {
        self.report(Report::Wheel(notches.saturating_neg()));
    }

    fn button(&self, button: Button, down: bool) {
        let code = match button {
            Button::Left => code::BTN_LEFT,
            Button::Right => code::BTN_RIGHT,
            Button::Middle => code::BTN_MIDDLE,
            Button::Back => code::BTN_SIDE,
            Button::Forward => code::BTN_EXTRA,
        };
        self.report(Report::Button(code, down));
    }
}

impl VirtioDevice for Tablet {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x09, 0x80, 0x00]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (select, subsel) = {
            let state = &self.volatile.lock().state;
            (state.select, state.subsel)
        };
        let selected = Self::selected(select, subsel);
        let mut image = [0; CONFIG_SIZE];
        image[..2].copy_from_slice(&[select, subsel]);
        image[CONFIG_LENGTH] = selected.len() as u8;
        image[CONFIG_DATA..][..selected.len()].copy_from_slice(&selected);
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let state = &mut self.volatile.lock().state;
        for (at, byte) in (offset..).zip(data) {
            match at {
                0 => state.select = *byte,
                1 => state.subsel = *byte,
                _ => {}
            }
        }
    }

    fn activate(&self, _features: u64, bell: Bell) {
        self.volatile.lock().bell = Some(bell);
    }

    fn deactivate(&self) {
        *self.volatile.lock() = Volatile::default();
    }

    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        if index == EVENTS { self.tell(queue) } else { queue.drain(|queue, chain| queue.push(chain, 0)) }
    }

    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.volatile.lock().state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: TabletState = StateError::read(&self.name, record)?;
        if !state.is_sound() {
            return Err(StateError { device: self.name.clone(), cause: "too much waits for the guest".into() });
        }
        let mut volatile = self.volatile.lock();
        (volatile.state, volatile.restored) = (state, true);
        Ok(())
    }
}
