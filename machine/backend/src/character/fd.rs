//! A stream over file descriptors: standard input and output, files, an accepted socket.
//!
//! [`FdStream`] has a writer thread and, if there is something to read from, a reader thread that polls its descriptor
//! together with one that closes it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::ring::{Inbox, Outbox};
use super::{CharStream, Receiver};

/// The two queues of a stream.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
}

/// Waits until `fd` can be read. `false` when `stop` became readable.
pub(super) fn wait_readable(fd: &impl AsFd, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) if !fds[0].revents().is_empty() => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "a character stream can't be polled");
                return false;
            }
        }
    }
}

/// Writes all that comes into the outbox; returns when it is closed or writing fails.
pub(super) fn pump_out(queues: &Queues, mut output: impl Write) {
    let mut buffer = Vec::new();
    while let Some(owed) = queues.outbox.take(&mut buffer) {
        if owed {
            queues.inbox.room_to_send();
        }
        if let Err(error) = output.write_all(&buffer).and_then(|()| output.flush()) {
            tracing::warn!(%error, "a character stream can't be written; its output is dropped");
            queues.outbox.close();
            queues.outbox.clear();
            // Whoever waits for room has all there is.
            queues.inbox.room_to_send();
        }
    }
}

/// Reads until end of file, an error, `stop`, or the device's end.
pub(super) fn pump_in(queues: &Queues, mut input: impl Read + AsFd, stop: &OwnedFd) {
    let mut buffer = [0; 4096];
    queues.inbox.wait_connected();
    while !queues.inbox.is_closed() && wait_readable(&input, stop) {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if !queues.inbox.deliver(&buffer[..count]) {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "a character stream can't be read");
                return;
            }
        }
    }
}

/// A stream over descriptors.
pub struct FdStream {
    queues: Arc<Queues>,
    stop: Arc<OwnedFd>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl FdStream {
    /// Reads from `input`, if there is one, and writes to `output`.
    ///
    /// # Errors
    /// The host gives no descriptor or no thread.
    pub fn new<I, O>(input: Option<I>, output: O) -> std::io::Result<Self>
    where
        I: Read + AsFd + Send + 'static,
        O: Write + Send + 'static,
    {
        let queues = Arc::new(Queues::default());
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let mut threads = Vec::new();
        let writer = queues.clone();
        threads.push(std::thread::Builder::new().name("char-out".into()).spawn(move || pump_out(&writer, output))?);
        if let Some(input) = input {
            let (reader, stop) = (queues.clone(), stop.clone());
            let run = move || pump_in(&reader, input, &stop);
            threads.push(std::thread::Builder::new().name("char-in".into()).spawn(run)?);
        }
        Ok(Self { queues, stop, threads: Mutex::new(threads) })
    }

    /// Standard input and output. The terminal's mode is the caller's affair.
    ///
    /// # Errors
    /// The host gives no descriptor or no thread.
    pub fn stdio() -> std::io::Result<Self> {
        let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let output = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Self::new(Some(input), output)
    }

    /// Writes to a file, which is created or truncated, and reads nothing.
    ///
    /// # Errors
    /// The file can't be created, or the host gives no thread.
    pub fn file(path: &Path) -> std::io::Result<Self> {
        Self::new(None::<std::fs::File>, std::fs::File::create(path)?)
    }
}

impl CharStream for FdStream {
    fn connect(&self, receiver: Weak<dyn Receiver>) {
        self.queues.inbox.connect(receiver);
    }

    fn send(&self, data: &[u8]) -> usize {
        self.queues.outbox.push(data)
    }

    fn resume(&self) {
        self.queues.inbox.resume();
    }

    fn flush(&self, at_most: Duration) {
        self.queues.outbox.flush(at_most);
    }
}

impl Drop for FdStream {
    fn drop(&mut self) {
        // A reader of a pipe that nobody empties could keep the writer thread for ever: give up on it after a second.
        self.queues.outbox.flush(Duration::from_secs(1));
        self.queues.outbox.close();
        self.queues.inbox.close();
        if let Err(error) = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            tracing::error!(%error, "a stream's thread can't be stopped");
        }
        for thread in self.threads.lock().drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.is_finished() && thread.join().is_err() {
                tracing::error!("a stream's thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Takes at most `room` bytes in all, until given more room.
    #[derive(Default)]
    struct Device {
        got: Mutex<Vec<u8>>,
        room: Mutex<usize>,
        rooms: parking_lot::Condvar,
        told: Mutex<u32>,
    }

    impl Receiver for Device {
        fn receive(&self, data: &[u8]) -> usize {
            let mut room = self.room.lock();
            let taken = data.len().min(*room);
            *room -= taken;
            self.got.lock().extend(&data[..taken]);
            self.rooms.notify_all();
            taken
        }
        fn room_to_send(&self) {
            *self.told.lock() += 1;
        }
    }

    fn wait_for(condition: impl Fn() -> bool) {
        lodge_trial::wait_for("anything", condition);
    }

    #[test]
    fn what_the_device_has_no_room_for_waits() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let stream = FdStream::new(Some(near.try_clone().unwrap()), near).unwrap();
        let device = Arc::new(Device { room: Mutex::new(3), ..Device::default() });
        stream.connect(Arc::downgrade(&device) as Weak<dyn Receiver>);
        far.write_all(b"hello").unwrap();
        wait_for(|| *device.got.lock() == b"hel");
        *device.room.lock() = 100;
        stream.resume();
        wait_for(|| *device.got.lock() == b"hello");
        assert_eq!(stream.send(b"world"), 5);
        let mut answer = [0; 5];
        far.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"world");
    }

    #[test]
    fn a_far_end_that_does_not_read_blocks_nobody() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let stream = FdStream::new(None::<UnixStream>, near).unwrap();
        let device = Arc::new(Device::default());
        stream.connect(Arc::downgrade(&device) as Weak<dyn Receiver>);
        let chunk = [7; 4096];
        let mut sent = 0;
        loop {
            let taken = stream.send(&chunk);
            sent += taken;
            if taken < chunk.len() {
                break;
            }
            assert!(sent < 64 << 20, "it takes without bound");
        }
        let mut drained = vec![0; sent];
        far.read_exact(&mut drained).unwrap();
        wait_for(|| *device.told.lock() > 0);
        assert_eq!(drained, vec![7; sent]);
    }

    #[test]
    fn a_file_gets_everything_before_the_stream_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let stream = FdStream::file(&path).unwrap();
        assert_eq!(stream.send(b"last words"), 10);
        drop(stream);
        assert_eq!(std::fs::read(&path).unwrap(), b"last words");
    }
}
