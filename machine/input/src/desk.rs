//! What people sit at.
//!
//! A [`Desk`] outlives the machine's devices: a reset machine's keyboard and pointer are plugged in where the old ones
//! were. Viewers and scripts use it as a keyboard and a pointer itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::{Button, Key, Keyboard, Pointer};

/// A place for a keyboard and pointers to be plugged in.
#[derive(Default)]
pub struct Desk {
    keyboard: Mutex<Option<Weak<dyn Keyboard>>>,
    mouse: Mutex<Option<Weak<dyn Pointer>>>,
    tablet: Mutex<Option<Weak<dyn Pointer>>>,
    /// Which pointer each button that is down was pressed on: it hears of the release, too.
    pressed: Mutex<BTreeMap<Button, Weak<dyn Pointer>>>,
}

impl Desk {
    /// A desk with nothing on it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Keys go to this keyboard from now on, until it goes away.
    pub fn connect_keyboard(&self, keyboard: Weak<dyn Keyboard>) {
        *self.keyboard.lock() = Some(keyboard);
    }

    /// Motions go to this mouse from now on, until it goes away; buttons and the wheel too unless there is a tablet.
    pub fn connect_mouse(&self, mouse: Weak<dyn Pointer>) {
        *self.mouse.lock() = Some(mouse);
    }

    /// Positions, buttons and the wheel go to this tablet from now on, until it goes away.
    pub fn connect_tablet(&self, tablet: Weak<dyn Pointer>) {
        *self.tablet.lock() = Some(tablet);
    }

    fn mouse(&self) -> Option<Arc<dyn Pointer>> {
        self.mouse.lock().as_ref()?.upgrade()
    }

    /// The tablet, if the guest makes use of one.
    fn tablet(&self) -> Option<Arc<dyn Pointer>> {
        self.tablet.lock().as_ref()?.upgrade().filter(|tablet| tablet.is_absolute())
    }

    fn pointer(&self) -> Option<Arc<dyn Pointer>> {
        self.tablet().or_else(|| self.mouse())
    }

    /// Whether there is a keyboard.
    pub fn has_keyboard(&self) -> bool {
        self.keyboard.lock().as_ref().is_some_and(|keyboard| keyboard.strong_count() > 0)
    }
}

impl Keyboard for Desk {
    fn key(&self, key: Key, down: bool) {
        let keyboard = self.keyboard.lock().as_ref().and_then(Weak::upgrade);
        if let Some(keyboard) = keyboard {
            keyboard.key(key, down);
        }
    }
}

impl Pointer for Desk {
    fn is_absolute(&self) -> bool {
        self.tablet().is_some()
    }

    fn motion(&self, dx: i32, dy: i32) {
        if let Some(mouse) = self.mouse() {
            mouse.motion(dx, dy);
        }
    }

    fn position(&self, x: u16, y: u16) {
        if let Some(tablet) = self.tablet() {
            tablet.position(x, y);
        }
    }

    fn wheel(&self, notches: i32) {
        if let Some(pointer) = self.pointer() {
            pointer.wheel(notches);
        }
    }

    fn button(&self, button: Button, down: bool) {
        let before = self.pressed.lock().remove(&button).and_then(|pointer| pointer.upgrade());
        let Some(pointer) = before.or_else(|| self.pointer()) else { return };
        if down {
            self.pressed.lock().insert(button, Arc::downgrade(&pointer));
        }
        pointer.button(button, down);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(&'static str, Mutex<Vec<String>>);

    impl Recorder {
        fn note(&self, text: String) {
            self.1.lock().push(text);
        }
    }

    impl Keyboard for Recorder {
        fn key(&self, key: Key, down: bool) {
            self.note(format!("{key} {down}"));
        }
    }

    impl Pointer for Recorder {
        fn is_absolute(&self) -> bool {
            self.0 == "tablet"
        }
        fn motion(&self, dx: i32, dy: i32) {
            self.note(format!("by {dx} {dy}"));
        }
        fn position(&self, x: u16, y: u16) {
            self.note(format!("to {x} {y}"));
        }
        fn wheel(&self, notches: i32) {
            self.note(format!("wheel {notches}"));
        }
        fn button(&self, button: Button, down: bool) {
            self.note(format!("{button:?} {down}"));
        }
    }

    #[test]
    fn input_goes_to_what_is_plugged_in() {
        let desk = Desk::default();
        desk.key(Key::A, true);
        let (keyboard, mouse, tablet) = ("keyboard", "mouse", "tablet");
        let [keyboard, mouse, tablet] =
            [keyboard, mouse, tablet].map(|name| Arc::new(Recorder(name, Mutex::default())));
        let weak: Weak<dyn Keyboard> = Arc::downgrade(&(keyboard.clone() as Arc<dyn Keyboard>));
        desk.connect_keyboard(weak);
        desk.connect_mouse(Arc::downgrade(&(mouse.clone() as Arc<dyn Pointer>)));
        desk.key(Key::A, true);
        desk.motion(1, 2);
        desk.position(3, 4);
        desk.wheel(1);
        assert!(!desk.is_absolute());
        desk.connect_tablet(Arc::downgrade(&(tablet.clone() as Arc<dyn Pointer>)));
        assert!(desk.is_absolute());
        desk.position(3, 4);
        desk.button(Button::Left, true);
        assert_eq!(*keyboard.1.lock(), ["a true"]);
        assert_eq!(*mouse.1.lock(), ["by 1 2", "wheel 1"]);
        assert_eq!(*tablet.1.lock(), ["to 3 4", "Left true"]);
        drop(tablet);
        desk.button(Button::Left, false);
        assert_eq!(mouse.1.lock().last().unwrap(), "Left false");
        // Who heard of the press hears of the release, whatever comes between.
        desk.button(Button::Right, true);
        let tablet = Arc::new(Recorder("tablet", Mutex::default()));
        desk.connect_tablet(Arc::downgrade(&(tablet.clone() as Arc<dyn Pointer>)));
        desk.button(Button::Right, false);
        desk.button(Button::Middle, true);
        assert_eq!(mouse.1.lock().last().unwrap(), "Right false");
        assert_eq!(*tablet.1.lock(), ["Middle true"]);
    }
}
