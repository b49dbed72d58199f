//! The thread of a card, and the bell that wakes it.
//!
//! ```text
//!   vCPU, network: ring ──► flag ──► thread: pieces of work, until there is no more
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

/// A card whose thread works for it.
pub(crate) trait Work: Send + Sync {
    /// Does a piece of work, of bounded time; whether there may be more at once.
    fn work(&self) -> bool;
}

/// Wakes a card's thread.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    ended: AtomicBool,
    thread: OnceLock<std::thread::Thread>,
}

impl Bell {
    /// Has the card work soon. Never blocks, takes no lock.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// The thread ends soon.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn serve(&self, card: &Weak<dyn Work>) {
        // Nobody else sets it.
        let _ = self.thread.set(std::thread::current());
        while !self.ended.load(Ordering::SeqCst) {
            if !self.rung.swap(false, Ordering::SeqCst) {
                std::thread::park();
                continue;
            }
            loop {
                let Some(card) = card.upgrade() else { return };
                if !card.work() || self.ended.load(Ordering::SeqCst) {
                    break;
                }
            }
        }
    }
}

/// The thread. Dropping it waits for its end, which whoever owns it has asked for before.
pub(crate) struct Worker(Option<JoinHandle<()>>);

impl Worker {
    /// Starts the thread of a card.
    ///
    /// # Errors
    /// The host gives none.
    pub fn start(name: &str, bell: Arc<Bell>, card: Weak<dyn Work>) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name(format!("io-{name}"));
        thread.spawn(move || bell.serve(&card)).map(|handle| Self(Some(handle)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(handle) = self.0.take() else { return };
        // The card may end on its own thread, if that held it last.
        if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
            tracing::error!("the thread of a network card panicked");
        }
    }
}
