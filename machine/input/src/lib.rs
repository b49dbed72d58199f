//! Keys and pointers: what viewers and scripts send, and what keyboards and mice of a PC take.
//!
//! * [`Key`] is a key of a PC keyboard; it has names, and codes in the scan sets of PS/2 ([`Key::set1`], [`Key::set2`]).
//! * [`keysym`] knows which key an X11 key symbol is on, [`text`] which keys type a text, both on a US keyboard.
//! * [`Keyboard`] and [`Pointer`] are the devices; a [`Desk`] is where a machine's are plugged in.
//!
//! Neighbours: `lodge-vnc` sends what its viewers do; the chipset's i8042 has the devices.
#![forbid(unsafe_code)]

mod desk;
mod key;
pub mod keysym;
mod scan;
pub mod text;

pub use desk::Desk;
pub use key::{Key, UnknownKey, chord};
pub use scan::{Codes, Edge};

/// A keyboard.
pub trait Keyboard: Send + Sync {
    /// A key goes down, or up. While a key is held, its repetition is the device's affair.
    fn key(&self, key: Key, down: bool);
}

/// A button of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Button {
    /// The first.
    Left,
    /// The wheel, pressed.
    Middle,
    /// The second.
    Right,
    /// The fourth: back.
    Back,
    /// The fifth: forward.
    Forward,
}

/// A pointer: a mouse, or a tablet.
pub trait Pointer: Send + Sync {
    /// Whether it takes positions, as a tablet does; else it takes motions.
    fn is_absolute(&self) -> bool;

    /// Moves by so many steps, to the right and down. A tablet ignores it.
    fn motion(&self, dx: i32, dy: i32);

    /// Moves to a place: 0 is the left or upper edge of the screen, 0xffff the right or lower one. A mouse ignores it.
    fn position(&self, x: u16, y: u16);

    /// Turns the wheel by so many notches towards the user.
    fn wheel(&self, notches: i32);

    /// A button goes down, or up.
    fn button(&self, button: Button, down: bool);
}
