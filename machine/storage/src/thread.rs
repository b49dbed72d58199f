//! A thread that its owner waits for.

use std::thread::JoinHandle;

/// A thread. Dropping it waits for its end, which whoever owns it has asked for before.
pub(crate) struct Thread(Option<JoinHandle<()>>);

impl Thread {
    /// Starts one.
    ///
    /// # Errors
    /// The host gives none.
    pub fn start(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map(|handle| Self(Some(handle)))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(handle) = self.0.take() else { return };
        handle.thread().unpark();
        if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
            tracing::error!("an I/O thread panicked");
        }
    }
}
