//! The terminal's raw mode, which is always undone: at the end, at a panic, at a signal.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use rustix::process::getpgrp;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// How the terminal was before, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Undoes raw mode when it goes.
pub struct Raw;

impl Raw {
    /// Puts standard input into raw mode, if it is a terminal and ours: `None` otherwise. Line feeds in what the guest
    /// writes go on to return the carriage, since the start line and error messages share the terminal.
    pub fn enter() -> Option<Self> {
        if !std::io::stdin().is_terminal() || tcgetpgrp(stdin()).ok() != Some(getpgrp()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            default(panic);
        }));
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was. Harmless if it is.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // There is nobody left to tell if the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}
