//! A stream that listens on a Unix socket; one peer at a time.
//!
//! [`SocketStream`] drops what the guest sends while nobody is connected, so that a guest never waits for a peer.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::fd::{Queues, pump_in, wait_readable};
use super::{CharStream, Receiver};
use crate::listen::{Openness, listen_at};

struct Shared {
    queues: Queues,
    stop: OwnedFd,
    connected: AtomicBool,
    peer: Mutex<Option<UnixStream>>,
}

/// A stream that listens on a Unix socket.
pub struct SocketStream {
    shared: Arc<Shared>,
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl SocketStream {
    /// Listens at `path`. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the host gives no socket or thread.
    pub fn listen(path: &Path) -> std::io::Result<Self> {
        let listener = listen_at(path, Openness::Umask)?;
        let shared = Arc::new(Shared {
            queues: Queues::default(),
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
            connected: AtomicBool::new(false),
            peer: Mutex::default(),
        });
        let mut threads = Vec::new();
        let on_thread = shared.clone();
        let run = move || serve(&on_thread, &listener);
        threads.push(std::thread::Builder::new().name("char-in".into()).spawn(run)?);
        let on_thread = shared.clone();
        let run = move || write_out(&on_thread);
        threads.push(std::thread::Builder::new().name("char-out".into()).spawn(run)?);
        Ok(Self { shared, path: path.to_owned(), threads })
    }
}

fn serve(shared: &Shared, listener: &UnixListener) {
    while wait_readable(listener, &shared.stop) {
        let Ok((peer, _)) = listener.accept() else { continue };
        let Ok(writer) = peer.try_clone() else { continue };
        *shared.peer.lock() = Some(writer);
        shared.connected.store(true, Ordering::Release);
        pump_in(&shared.queues, peer, &shared.stop);
        shared.connected.store(false, Ordering::Release);
        if let Some(peer) = shared.peer.lock().take() {
            // It may have gone already.
            let _ = peer.shutdown(std::net::Shutdown::Both);
        }
        if shared.queues.inbox.is_closed() {
            return;
        }
    }
}

fn write_out(shared: &Shared) {
    use std::io::Write;
    let mut buffer = Vec::new();
    while let Some(owed) = shared.queues.outbox.take(&mut buffer) {
        if owed {
            shared.queues.inbox.room_to_send();
        }
        let peer = shared.peer.lock().as_ref().and_then(|peer| peer.try_clone().ok());
        if let Some(mut peer) = peer
            && peer.write_all(&buffer).is_err()
        {
            // The reading side notices too and waits for the next peer.
            shared.connected.store(false, Ordering::Release);
        }
    }
}

impl CharStream for SocketStream {
    fn connect(&self, receiver: Weak<dyn Receiver>) {
        self.shared.queues.inbox.connect(receiver);
    }

    fn send(&self, data: &[u8]) -> usize {
        if !self.shared.connected.load(Ordering::Acquire) {
            return data.len();
        }
        self.shared.queues.outbox.push(data)
    }

    fn resume(&self) {
        self.shared.queues.inbox.resume();
    }

    fn flush(&self, at_most: Duration) {
        self.shared.queues.outbox.flush(at_most);
    }
}

impl Drop for SocketStream {
    fn drop(&mut self) {
        self.shared.queues.outbox.flush(Duration::from_secs(1));
        self.shared.queues.outbox.close();
        self.shared.queues.inbox.close();
        if let Err(error) = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "a stream's thread can't be stopped");
        }
        if let Some(peer) = self.shared.peer.lock().take() {
            let _ = peer.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a stream's thread panicked");
            }
        }
        // Somebody may have tidied up already.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    struct Echo(Mutex<Option<Arc<SocketStream>>>);

    impl Receiver for Echo {
        fn receive(&self, data: &[u8]) -> usize {
            let stream = self.0.lock().clone();
            stream.map_or(0, |stream| stream.send(data))
        }
        fn room_to_send(&self) {}
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serial");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(SocketStream::listen(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        let error = SocketStream::listen(&path).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn peers_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serial");
        let stream = Arc::new(SocketStream::listen(&path).unwrap());
        assert_eq!(stream.send(b"nobody hears this"), 17);
        let echo = Arc::new(Echo(Mutex::new(Some(stream.clone()))));
        stream.connect(Arc::downgrade(&echo) as Weak<dyn Receiver>);
        for word in [b"one", b"two"] {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            peer.write_all(word).unwrap();
            let mut answer = [0; 3];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, word);
        }
        assert!(SocketStream::listen(&path).is_err(), "somebody listens there");
        echo.0.lock().take();
        drop(stream);
        // The last handle may be the one that the echo has borrowed on the stream's own thread.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while path.exists() {
            assert!(std::time::Instant::now() < until, "the socket is left behind");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("serial");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        SocketStream::listen(&path).unwrap();
    }
}
