//! PS/2 keyboard and mouse: their command protocols and their queues of bytes to send.
//!
//! [`Keyboard`] sends keys in scan code set 1 or 2 and says when to repeat one that is held; [`Mouse`] makes packets of
//! movements. Queues are bounded: a key that goes down and finds its queue full is dropped as on the real thing.

use std::collections::VecDeque;

use lodge_input::{Edge, Key};
use serde::{Deserialize, Serialize};

use super::registers::{ACK, PASSED, RESEND, TYPEMATIC};

/// Most input bytes that wait; releases and replies to commands fit beyond.
const INPUT: usize = 16;
/// Most bytes that wait in all.
const MOST: usize = 64;

/// Bytes on their way to the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queue(VecDeque<u8>);

impl Queue {
    fn reply(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.0.len() < MOST {
                self.0.push_back(*byte);
            }
        }
    }

    /// Adds all of an input, or nothing if more than so many bytes would wait.
    fn input(&mut self, bytes: &[u8], most: usize) -> bool {
        let fits = self.0.len() + bytes.len() <= most;
        if fits {
            self.0.extend(bytes);
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<u8> {
        self.0.pop_front()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn limit(&mut self) {
        self.0.truncate(MOST);
    }
}

/// A keyboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keyboard {
    pub(super) queue: Queue,
    /// The command whose parameter is next.
    command: Option<u8>,
    scanning: bool,
    leds: u8,
    set: u8,
    /// Delay and rate of repetition, as command 0xf3 sets them.
    typematic: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self { queue: Queue::default(), command: None, scanning: true, leds: 0, set: 2, typematic: TYPEMATIC }
    }
}

impl Keyboard {
    /// A byte from the system.
    pub(super) fn write(&mut self, value: u8) {
        match self.command.take() {
            Some(0xed) if value < 0x80 => {
                self.leds = value & 7;
                self.queue.reply(&[ACK]);
                return;
            }
            Some(0xf0) if value == 0 => {
                self.queue.reply(&[ACK, self.set]);
                return;
            }
            Some(0xf0) if value <= 2 => {
                self.set = value;
                self.queue.reply(&[ACK]);
                return;
            }
            Some(0xf3) if value < 0x80 => {
                self.typematic = value;
                self.queue.reply(&[ACK]);
                return;
            }
            _ => {}
        }
        match value {
            0xed | 0xf0 | 0xf3 => {
                self.command = Some(value);
                self.queue.reply(&[ACK]);
            }
            0xee => self.queue.reply(&[0xee]),
            0xf2 => self.queue.reply(&[ACK, 0xab, 0x83]),
            0xf4 => {
                self.queue.clear();
                self.scanning = true;
                self.queue.reply(&[ACK]);
            }
            0xf5 | 0xf6 => {
                self.queue.clear();
                self.scanning = value == 0xf6;
                (self.set, self.typematic) = (2, TYPEMATIC);
                self.queue.reply(&[ACK]);
            }
            // All keys typematic, make-break and so on: of set 3, accepted.
            0xf7..=0xfa => self.queue.reply(&[ACK]),
            0xff => {
                *self = Self::default();
                self.queue.reply(&[ACK, PASSED]);
            }
            _ => self.queue.reply(&[RESEND]),
        }
    }

    /// A key went down or up. Whether it was taken.
    pub(super) fn key(&mut self, key: Key, edge: Edge) -> bool {
        let codes = if self.set == 1 { key.set1(edge) } else { key.set2(edge) };
        // A key that stays down for ever is worse than one that never went down.
        let most = if edge == Edge::Make { INPUT } else { MOST };
        self.scanning && self.queue.input(&codes, most)
    }

    /// Nanoseconds until a key that is held is sent again: the first time, and from then on.
    pub(super) fn repetition(&self) -> [u64; 2] {
        let delay = u64::from(self.typematic >> 5 & 3) + 1;
        let period = u64::from(8 + (self.typematic & 7)) << (self.typematic >> 3 & 3);
        [delay * 250_000_000, period * 4_170_000]
    }

    /// Scroll, num and caps lock lights in bits 0 to 2.
    pub(super) fn leds(&self) -> u8 {
        self.leds
    }
}

/// A mouse with three buttons and, once asked for, a wheel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mouse {
    pub(super) queue: Queue,
    command: Option<u8>,
    reporting: bool,
    remote: bool,
    wrap: bool,
    scaling: bool,
    rate: u8,
    resolution: u8,
    buttons: u8,
    /// Movement that was not reported yet.
    moved: (i32, i32, i32),
    /// The last three sample rates: 200, 100, 80 turns the wheel on.
    rates: [u8; 3],
    wheel: bool,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            command: None,
            reporting: false,
            remote: false,
            wrap: false,
            scaling: false,
            rate: 100,
            resolution: 2,
            buttons: 0,
            moved: (0, 0, 0),
            rates: [0; 3],
            wheel: false,
        }
    }
}

impl Mouse {
    /// A byte from the system.
    pub(super) fn write(&mut self, value: u8) {
        match self.command.take() {
            Some(0xf3) => {
                self.rate = value;
                self.rates = [self.rates[1], self.rates[2], value];
                self.wheel |= self.rates == [200, 100, 80];
                self.queue.reply(&[ACK]);
                return;
            }
            Some(0xe8) => {
                self.resolution = value & 3;
                self.queue.reply(&[ACK]);
                return;
            }
            _ => {}
        }
        if self.wrap && !matches!(value, 0xec | 0xff) {
            self.queue.reply(&[value]);
            return;
        }
        match value {
            0xe6 | 0xe7 => self.scaling = value == 0xe7,
            0xe8 | 0xf3 => self.command = Some(value),
            0xe9 => {
                let status = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.scaling) << 4
                    | self.buttons;
                self.queue.reply(&[ACK, status, self.resolution, self.rate]);
                return;
            }
            0xea => self.remote = false,
            0xeb => {
                self.queue.reply(&[ACK]);
                let packet = self.packet();
                self.queue.reply(&packet);
                return;
            }
            0xec | 0xee => self.wrap = value == 0xee,
            0xf0 => self.remote = true,
            0xf2 => {
                self.queue.reply(&[ACK, if self.wheel { 3 } else { 0 }]);
                return;
            }
            0xf4 | 0xf5 => self.reporting = value == 0xf4,
            0xf6 => *self = Self { queue: std::mem::take(&mut self.queue), wheel: self.wheel, ..Self::default() },
            0xff => {
                *self = Self::default();
                self.queue.reply(&[ACK, PASSED, 0]);
                return;
            }
            _ => {
                self.queue.reply(&[RESEND]);
                return;
            }
        }
        self.queue.reply(&[ACK]);
    }

    /// Takes what was moved, as far as a packet holds it.
    fn packet(&mut self) -> Vec<u8> {
        let take = |moved: &mut i32, most: i32| {
            let part = (*moved).clamp(-most, most);
            *moved -= part;
            part
        };
        let (x, y, z) = (take(&mut self.moved.0, 255), take(&mut self.moved.1, 255), take(&mut self.moved.2, 7));
        let sign = |value: i32, bit: u8| u8::from(value < 0) << bit;
        let mut packet = vec![8 | self.buttons | sign(x, 4) | sign(y, 5), x as u8, y as u8];
        if self.wheel {
            packet.push(z as u8);
        }
        packet
    }

    /// Those that are down.
    pub(super) fn buttons(&self) -> u8 {
        self.buttons
    }

    /// Moved right, up, and the wheel towards the user; buttons left, right, middle in bits 0 to 2.
    pub(super) fn input(&mut self, right: i32, up: i32, wheel: i32, buttons: u8) {
        const MOST: i32 = 4096;
        let add = |moved: i32, by: i32| moved.saturating_add(by).clamp(-MOST, MOST);
        self.moved = (add(self.moved.0, right), add(self.moved.1, up), add(self.moved.2, wheel));
        let pressed = buttons & 7 != self.buttons;
        self.buttons = buttons & 7;
        if self.reporting && !self.remote && (pressed || self.moved != (0, 0, 0)) {
            let kept = self.moved;
            let packet = self.packet();
            if !self.queue.input(&packet, INPUT) {
                // Reported with the next movement instead.
                self.moved = kept;
            }
        }
    }
}
