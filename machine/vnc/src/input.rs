//! What a viewer's keys and pointer do to the machine's.

use std::collections::BTreeMap;
use std::sync::Arc;

use lodge_input::text::{Stroke, stroke};
use lodge_input::{Button, Key, Keyboard, Pointer, keysym};

/// Buttons by their bits. The fourth and fifth are the wheel, the next two one that tilts.
const BUTTONS: [(u8, Button); 4] = [(0, Button::Left), (1, Button::Middle), (2, Button::Right), (7, Button::Back)];
const WHEEL_UP: u8 = 1 << 3;
const WHEEL_DOWN: u8 = 1 << 4;
/// Most keys that can be held: a viewer that claims more is mistaken.
const HELD_MOST: usize = 64;
/// What a motion's coordinates are relative to (QEMU's pointer motion).
const STILL: i32 = 0x7fff;

/// A viewer's hands. What they hold is let go when the viewer leaves.
pub struct Hands {
    keyboard: Arc<dyn Keyboard>,
    pointer: Arc<dyn Pointer>,
    /// Symbols and codes that are held, and the keys that they are on.
    held: BTreeMap<(u32, Option<u32>), Key>,
    /// Caps Lock as far as this viewer has turned it.
    caps: bool,
    buttons: u8,
    place: Option<(u16, u16)>,
}

impl Hands {
    /// Hands that hold nothing.
    pub fn new(keyboard: Arc<dyn Keyboard>, pointer: Arc<dyn Pointer>) -> Self {
        Self { keyboard, pointer, held: BTreeMap::new(), caps: false, buttons: 0, place: None }
    }

    fn holds(&self, keys: &[Key]) -> Vec<Key> {
        let held = |key: &&Key| self.held.values().any(|own| own == *key);
        keys.iter().filter(held).copied().collect()
    }

    /// A key goes down or up: `symbol` is what is on it, `code` where it is, if that is known.
    pub fn key(&mut self, down: bool, symbol: u32, code: Option<u32>) {
        let name = (symbol, code);
        if !down {
            if let Some(key) = self.held.remove(&name)
                && !self.held.values().any(|other| *other == key)
            {
                self.keyboard.key(key, false);
            }
            return;
        }
        let Some(key) = code.and_then(Key::from_xt).or_else(|| keysym::key(symbol)) else { return };
        if self.held.len() >= HELD_MOST && !self.held.contains_key(&name) {
            return;
        }
        // The symbol may need Shift here where the viewer's keyboard needs none, or the other way round.
        let shift = if code.is_none() { self.shift_for(symbol) } else { None };
        if key == Key::CapsLock && !self.held.contains_key(&name) {
            self.caps = !self.caps;
        }
        let shifts = self.holds(&[Key::ShiftLeft, Key::ShiftRight]);
        self.held.insert(name, key);
        match shift {
            Some(true) if shifts.is_empty() => {
                self.keyboard.key(Key::ShiftLeft, true);
                self.keyboard.key(key, true);
                self.keyboard.key(Key::ShiftLeft, false);
            }
            Some(false) if !shifts.is_empty() => {
                shifts.iter().for_each(|shift| self.keyboard.key(*shift, false));
                self.keyboard.key(key, true);
                shifts.iter().for_each(|shift| self.keyboard.key(*shift, true));
            }
            _ => self.keyboard.key(key, true),
        }
    }

    /// Whether a character is typed with Shift; `None` where it does not matter.
    fn shift_for(&self, symbol: u32) -> Option<bool> {
        let character = char::from_u32(symbol).filter(|character| character.is_ascii_graphic())?;
        let shortcut = [Key::ControlLeft, Key::ControlRight, Key::AltLeft, Key::MetaLeft, Key::MetaRight];
        if !self.holds(&shortcut).is_empty() {
            return None;
        }
        let caps = self.caps && character.is_ascii_alphabetic();
        stroke(character).map(|Stroke { shift, .. }| shift != caps)
    }

    /// The pointer is at a place of a screen of `size`, or, if `relative`, has moved.
    pub fn pointer(&mut self, buttons: u8, x: u16, y: u16, size: (usize, usize), relative: bool) {
        if relative {
            let (dx, dy) = (i32::from(x) - STILL, i32::from(y) - STILL);
            if (dx, dy) != (0, 0) {
                self.pointer.motion(dx, dy);
            }
        } else if self.pointer.is_absolute() {
            let scale = |at: u16, side: usize| {
                let last = side.saturating_sub(1).max(1);
                (usize::from(at).min(last) * 0xffff / last) as u16
            };
            // With a button always: a tablet may have come since the pointer was moved last.
            if self.place != Some((x, y)) || buttons != self.buttons {
                self.pointer.position(scale(x, size.0), scale(y, size.1));
            }
        } else if let Some((old_x, old_y)) = self.place
            && (old_x, old_y) != (x, y)
        {
            self.pointer.motion(i32::from(x) - i32::from(old_x), i32::from(y) - i32::from(old_y));
        }
        self.place = (!relative).then_some((x, y));
        let (pressed, changed) = (buttons & !self.buttons, buttons ^ self.buttons);
        for (bit, button) in BUTTONS {
            if changed >> bit & 1 != 0 {
                self.pointer.button(button, buttons >> bit & 1 != 0);
            }
        }
        if pressed & WHEEL_UP != 0 {
            self.pointer.wheel(-1);
        }
        if pressed & WHEEL_DOWN != 0 {
            self.pointer.wheel(1);
        }
        self.buttons = buttons;
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        let mut keys: Vec<Key> = std::mem::take(&mut self.held).into_values().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().for_each(|key| self.keyboard.key(key, false));
        for (bit, button) in BUTTONS {
            if self.buttons >> bit & 1 != 0 {
                self.pointer.button(button, false);
            }
        }
    }
}
