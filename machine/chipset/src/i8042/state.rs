//! Saved state of the keyboard controller and its devices.

use std::collections::VecDeque;

use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::ps2::{Keyboard, Mouse};
use super::registers::{MODE_AUX_OFF, MODE_KEYBOARD_IRQ, MODE_TRANSLATE};

/// Controller, keyboard and mouse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct I8042State {
    /// The command byte.
    pub mode: u8,
    /// The status bits that are not derived.
    pub status: u8,
    /// The command whose parameter is next.
    pub command: Option<u8>,
    /// The byte that waits for the system, and whether it is the mouse's.
    pub output: Option<(u8, bool)>,
    /// The last byte read.
    pub last: u8,
    /// The controller's own replies, and whether they pose as the mouse's.
    pub replies: VecDeque<(u8, bool)>,
    /// A release prefix was translated away.
    pub release: bool,
    /// The keyboard.
    pub keyboard: Keyboard,
    /// The mouse.
    pub mouse: Mouse,
}

impl Default for I8042State {
    fn default() -> Self {
        Self {
            mode: MODE_TRANSLATE | MODE_AUX_OFF | MODE_KEYBOARD_IRQ,
            status: 0,
            command: None,
            output: None,
            last: 0,
            replies: VecDeque::new(),
            release: false,
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
        }
    }
}

impl Saved for I8042State {
    const KIND: &'static str = "i8042";
    const VERSION: u16 = 1;
}
