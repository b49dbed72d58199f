//! The two queues of a stream, shared by a device and the stream's threads.
//!
//! [`Outbox`] holds what the device sent until the writer thread has written it; [`Inbox`] hands what the reader thread
//! read to the device, and waits where the device has no room.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Receiver;

/// Most bytes that wait to be written.
pub(super) const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct OutState {
    bytes: VecDeque<u8>,
    /// The writer is writing bytes that it took out.
    writing: bool,
    /// A send took less than it was given.
    owed: bool,
    closed: bool,
}

/// Bytes on their way to the host.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<OutState>,
    /// There is something to write, or it is closed.
    work: Condvar,
    /// Everything was written.
    idle: Condvar,
}

impl Outbox {
    /// Takes what there is room for. A closed outbox swallows everything: nobody will ever read it.
    pub(super) fn push(&self, data: &[u8]) -> usize {
        let mut state = self.state.lock();
        if state.closed {
            return data.len();
        }
        let taken = data.len().min(CAPACITY - state.bytes.len());
        let was_empty = state.bytes.is_empty();
        state.bytes.extend(&data[..taken]);
        state.owed |= taken < data.len();
        if was_empty && taken > 0 && !state.writing {
            self.work.notify_one();
        }
        taken
    }

    /// Waits for bytes and takes them all; `None` once closed and empty. The second result says whether a send is
    /// owed the news that there is room.
    pub(super) fn take(&self, buffer: &mut Vec<u8>) -> Option<bool> {
        let mut state = self.state.lock();
        state.writing = false;
        while state.bytes.is_empty() {
            self.idle.notify_all();
            if state.closed {
                return None;
            }
            self.work.wait(&mut state);
        }
        buffer.clear();
        buffer.extend(state.bytes.drain(..));
        state.writing = true;
        Some(std::mem::take(&mut state.owed))
    }

    /// No more bytes will come, or they can't be written.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// Forgets what waits.
    pub(super) fn clear(&self) {
        self.state.lock().bytes.clear();
    }

    /// Waits until everything was written.
    pub(super) fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut state = self.state.lock();
        while !state.bytes.is_empty() || state.writing {
            if self.idle.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct InState {
    receiver: Option<Weak<dyn Receiver>>,
    /// Rises with each resume and connect.
    resumed: u64,
    closed: bool,
}

/// Bytes on their way to the device.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InState>,
    changed: Condvar,
}

impl Inbox {
    pub(super) fn connect(&self, receiver: Weak<dyn Receiver>) {
        let mut state = self.state.lock();
        state.receiver = Some(receiver);
        state.resumed += 1;
        self.changed.notify_all();
    }

    pub(super) fn resume(&self) {
        self.state.lock().resumed += 1;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until there is a device.
    pub(super) fn wait_connected(&self) {
        let mut state = self.state.lock();
        while state.receiver.is_none() && !state.closed {
            self.changed.wait(&mut state);
        }
    }

    /// Tells the device that there is room to send.
    pub(super) fn room_to_send(&self) {
        let receiver = self.state.lock().receiver.as_ref().and_then(Weak::upgrade);
        if let Some(receiver) = receiver {
            receiver.room_to_send();
        }
    }

    /// Hands all of `data` to the device, waiting for room. `false` once closed or the device is gone.
    pub(super) fn deliver(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let (receiver, resumed) = {
                let mut state = self.state.lock();
                while state.receiver.is_none() && !state.closed {
                    self.changed.wait(&mut state);
                }
                if state.closed {
                    return false;
                }
                (state.receiver.as_ref().and_then(Weak::upgrade), state.resumed)
            };
            let Some(receiver) = receiver else { return false };
            let taken = receiver.receive(data).min(data.len());
            data = &data[taken..];
            drop(receiver);
            if !data.is_empty() {
                let mut state = self.state.lock();
                while state.resumed == resumed && !state.closed {
                    self.changed.wait(&mut state);
                }
            }
        }
        true
    }
}
