//! The 8042 keyboard controller with a PS/2 keyboard and mouse.
//!
//! [`I8042`] has one output buffer, which is filled from its own replies, then the keyboard, then the mouse whenever it is
//! empty; the interrupt line of whoever filled it is high until the byte is read. Command 0xfe resets the processors.
//!
//! ```text
//!   replies --+
//!   keyboard -+--(translation)--> output buffer --> port 0x60, IRQ 1 or 12
//!   mouse ----+
//! ```

mod ps2;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, AddressLine20, Clock, Device, IrqLine, PortDevice, PortRange, ResetDevice, SaveDevice, StateError,
    SystemControl, Timer, Timers, Width,
};
use lodge_input::{Button, Edge, Key, Pointer};
use parking_lot::Mutex;
pub use ps2::{Keyboard, Mouse};
use registers::*;
pub use state::I8042State;

const REGION_DATA: u8 = 0;
/// Most of the controller's own replies that wait.
const MOST_REPLIES: usize = 16;

/// The keyboard controller.
pub struct I8042 {
    // wiring
    keyboard_irq: IrqLine,
    mouse_irq: IrqLine,
    system: Arc<dyn SystemControl>,
    line_20: Arc<AddressLine20>,
    clock: Arc<dyn Clock>,
    repeat: Timer,
    // volatile
    state: Mutex<I8042State>,
    /// The key that went down last and is still held. Locked after `state`.
    held: Mutex<Option<Key>>,
}

impl I8042State {
    /// Scan code set 2 to set 1; `None` for the release prefix, which becomes part of what follows.
    fn translate(&mut self, byte: u8) -> Option<u8> {
        if self.mode & MODE_TRANSLATE == 0 {
            return Some(byte);
        }
        if byte == 0xf0 {
            self.release = true;
            return None;
        }
        let code = TRANSLATION.get(usize::from(byte)).copied().unwrap_or(byte);
        let release = std::mem::take(&mut self.release);
        Some(if release { code | 0x80 } else { code })
    }

    /// Fills the output buffer if it is empty.
    fn fill(&mut self) {
        if self.output.is_some() {
            return;
        }
        self.output = self.replies.pop_front();
        while self.output.is_none() && self.mode & MODE_KEYBOARD_OFF == 0 {
            let Some(byte) = self.keyboard.queue.pop() else { break };
            self.output = self.translate(byte).map(|byte| (byte, false));
        }
        if self.output.is_none() && self.mode & MODE_AUX_OFF == 0 {
            self.output = self.mouse.queue.pop().map(|byte| (byte, true));
        }
    }

    fn reply(&mut self, byte: u8, aux: bool) {
        if self.replies.len() < MOST_REPLIES {
            self.replies.push_back((byte, aux));
        }
    }
}

impl I8042 {
    /// A controller that drives ISA interrupts 1 and 12.
    pub fn new(
        keyboard_irq: IrqLine,
        mouse_irq: IrqLine,
        system: Arc<dyn SystemControl>,
        line_20: Arc<AddressLine20>,
        timers: &Timers,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let repeat = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.repeat();
                }
            });
            let (state, held, clock) = (Mutex::default(), Mutex::default(), timers.clock().clone());
            Self { keyboard_irq, mouse_irq, system, line_20, clock, repeat, state, held }
        })
    }

    /// A key went down or up. `false` if the keyboard is off or has no room.
    pub fn press(&self, key: Key, down: bool) -> bool {
        let mut state = self.state.lock();
        let taken = state.keyboard.key(key, if down { Edge::Make } else { Edge::Break });
        self.update(&mut state);
        let mut held = self.held.lock();
        if down && taken && key != Key::Pause {
            *held = Some(key);
            self.repeat.set(Some(self.clock.now_ns() + state.keyboard.repetition()[0]));
        } else if *held == Some(key) {
            *held = None;
            self.repeat.set(None);
        }
        taken
    }

    /// The key that is held is sent again.
    fn repeat(&self) {
        let mut state = self.state.lock();
        let held = self.held.lock();
        let Some(key) = *held else { return };
        // One that finds no room is sent the next time.
        state.keyboard.key(key, Edge::Make);
        self.repeat.set(Some(self.clock.now_ns() + state.keyboard.repetition()[1]));
        drop(held);
        self.update(&mut state);
    }

    /// Nothing is held any more.
    fn let_go(&self) {
        *self.held.lock() = None;
        self.repeat.set(None);
    }

    /// The mouse moved right and up, or its wheel towards the user; `change` makes of the buttons that are down, left,
    /// right and middle in bits 0 to 2, those that are down now.
    fn pointer(&self, right: i32, up: i32, wheel: i32, change: impl FnOnce(u8) -> u8) {
        let mut state = self.state.lock();
        let buttons = change(state.mouse.buttons());
        state.mouse.input(right, up, wheel, buttons);
        self.update(&mut state);
    }

    /// The keyboard's lights: scroll, num and caps lock in bits 0 to 2.
    pub fn leds(&self) -> u8 {
        self.state.lock().keyboard.leds()
    }

    fn update(&self, state: &mut I8042State) {
        state.fill();
        let (keyboard, mouse) = match state.output {
            Some((_, true)) => (false, state.mode & MODE_AUX_IRQ != 0),
            Some((_, false)) => (state.mode & MODE_KEYBOARD_IRQ != 0, false),
            None => (false, false),
        };
        self.keyboard_irq.set(keyboard);
        self.mouse_irq.set(mouse);
    }

    fn command(&self, state: &mut I8042State, value: u8) {
        state.command = None;
        match value {
            // The controller's memory; byte 0 is the command byte.
            0x20 => state.reply(state.mode, false),
            0x21..=0x3f => state.reply(0, false),
            0x60..=0x7f | 0xd1..=0xd4 => state.command = Some(value),
            0xa7 => state.mode |= MODE_AUX_OFF,
            0xa8 => state.mode &= !MODE_AUX_OFF,
            // Tests of the mouse's and the keyboard's interface: no error.
            0xa9 | 0xab => state.reply(0, false),
            0xaa => {
                state.status |= STATUS_SYSTEM;
                state.reply(0x55, false);
            }
            0xad => state.mode |= MODE_KEYBOARD_OFF,
            0xae => state.mode &= !MODE_KEYBOARD_OFF,
            // Input port: keyboard not locked.
            0xc0 => state.reply(0x80, false),
            // Output port: not in reset, address line 20, and the interrupts.
            0xd0 => {
                let (keyboard, mouse) = (self.keyboard_irq.is_high(), self.mouse_irq.is_high());
                let line_20 = u8::from(self.line_20.is_open());
                state.reply(0x01 | line_20 << 1 | u8::from(keyboard) << 4 | u8::from(mouse) << 5, false);
            }
            // Address line 20 without the output port, as many controllers have it.
            0xdd | 0xdf => self.line_20.set(value == 0xdf),
            // Pulses output lines; line 0 is the processor's reset.
            0xf0..=0xff if value & 1 == 0 => self.system.reset_processors(),
            // The rest does nothing on this controller.
            _ => {}
        }
    }

    fn data(&self, state: &mut I8042State, value: u8) {
        match state.command.take() {
            Some(0x60) => {
                state.mode = value;
                state.status = state.status & !STATUS_SYSTEM | value & MODE_SYSTEM;
            }
            Some(0x61..=0x7f) => {}
            Some(0xd1) => {
                // Output port: address line 20, and line 0 low is a reset.
                self.line_20.set(value & 2 != 0);
                if value & 1 == 0 {
                    self.system.reset_processors();
                }
            }
            Some(0xd2) => state.reply(value, false),
            Some(0xd3) => state.reply(value, true),
            Some(0xd4) => state.mouse.write(value),
            _ => {
                // Writing to the keyboard switches it on.
                state.mode &= !MODE_KEYBOARD_OFF;
                state.keyboard.write(value);
            }
        }
    }
}

impl lodge_input::Keyboard for I8042 {
    fn key(&self, key: Key, down: bool) {
        self.press(key, down);
    }
}

impl Pointer for I8042 {
    fn is_absolute(&self) -> bool {
        false
    }

    fn motion(&self, dx: i32, dy: i32) {
        self.pointer(dx, dy.saturating_neg(), 0, |buttons| buttons);
    }

    fn position(&self, _x: u16, _y: u16) {}

    fn wheel(&self, notches: i32) {
        self.pointer(0, 0, notches, |buttons| buttons);
    }

    fn button(&self, button: Button, down: bool) {
        let bit = match button {
            Button::Left => 1,
            Button::Right => 2,
            Button::Middle => 4,
            // It has three.
            Button::Back | Button::Forward => return,
        };
        self.pointer(0, 0, 0, |buttons| if down { buttons | bit } else { buttons & !bit });
    }
}

impl Device for I8042 {
    fn name(&self) -> &str {
        "i8042"
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

impl PortDevice for I8042 {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base, region| PortRange { base, length: 1, region, widths: Width::Byte };
        vec![range(DATA, REGION_DATA), range(COMMAND, 1)]
    }

    fn port_read(&self, region: u8, _offset: u16, _width: Width) -> Result<u32, AccessError> {
        let mut state = self.state.lock();
        if region != REGION_DATA {
            let output = match state.output {
                Some((_, true)) => STATUS_OUTPUT | STATUS_AUX,
                Some((_, false)) => STATUS_OUTPUT,
                None => 0,
            };
            return Ok((state.status | STATUS_UNLOCKED | output).into());
        }
        if let Some((byte, _)) = state.output.take() {
            state.last = byte;
            // The line falls before the next byte raises it.
            self.keyboard_irq.set(false);
            self.mouse_irq.set(false);
        }
        self.update(&mut state);
        Ok(state.last.into())
    }

    fn port_write(&self, region: u8, _offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut state = self.state.lock();
        if region == REGION_DATA {
            state.status &= !STATUS_COMMAND;
            self.data(&mut state, value as u8);
        } else {
            state.status |= STATUS_COMMAND;
            self.command(&mut state, value as u8);
        }
        self.update(&mut state);
        Ok(())
    }
}

impl ResetDevice for I8042 {
    fn reset(&self) {
        let mut state = self.state.lock();
        *state = I8042State::default();
        self.let_go();
        self.update(&mut state);
    }
}

impl SaveDevice for I8042 {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let mut restored: I8042State = StateError::read("i8042", record)?;
        restored.replies.truncate(MOST_REPLIES);
        restored.keyboard.queue.limit();
        restored.mouse.queue.limit();
        let mut state = self.state.lock();
        *state = restored;
        self.let_go();
        self.update(&mut state);
        Ok(())
    }
}
