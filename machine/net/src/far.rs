//! What tests of cards and cables have at the far end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::{Accepts, Frame, Listener, Network};

/// A network for tests that keeps what it is sent, while it has room.
pub struct Far {
    accepts: Accepts,
    /// What it was sent.
    pub sent: Mutex<Vec<Frame>>,
    /// For how many more frames there is room.
    pub room: AtomicUsize,
    /// What the card shall get.
    pub waiting: Mutex<VecDeque<Frame>>,
    listener: Mutex<Option<Weak<dyn Listener>>>,
}

impl Far {
    /// With room for so many frames.
    pub fn new(accepts: Accepts, room: usize) -> Arc<Self> {
        let (sent, waiting, listener) = Default::default();
        Arc::new(Self { accepts, sent, room: room.into(), waiting, listener })
    }

    /// Who listens.
    ///
    /// # Panics
    /// Nobody does.
    pub fn listener(&self) -> Arc<dyn Listener> {
        self.listener.lock().as_ref().and_then(Weak::upgrade).expect("somebody listens")
    }

    /// Sends frames to the card.
    pub fn bring(&self, frames: impl IntoIterator<Item = Frame>) {
        self.waiting.lock().extend(frames);
        self.listener().frames_wait();
    }
}

impl Network for Far {
    fn connect(&self, listener: Weak<dyn Listener>) {
        *self.listener.lock() = Some(listener);
    }

    fn accepts(&self) -> Accepts {
        self.accepts
    }

    fn send(&self, frame: &Frame) -> bool {
        let room = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_ok();
        if room {
            self.sent.lock().push(frame.clone());
        }
        room
    }

    fn receive(&self) -> Option<Frame> {
        self.waiting.lock().pop_front()
    }
}
