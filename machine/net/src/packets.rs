//! Frames by way of a file of the host's of which each read or write is one, behind its header ([`crate::vnet`]).
//!
//! Both ends of the work are done by those who have the frames: nothing is kept here, so that who is slow slows the file's
//! other end. The thread only waits for what somebody found missing:
//!
//! ```text
//!   send: no room ──► wants OUT ─┐                       ┌─► room_to_send
//!                                ├─► epoll, once ─thread─┤
//!   receive: empty ─► wants IN ──┘                       └─► frames_wait
//! ```

use std::io::{Error, IoSlice, Result};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::Listener;
use crate::frame::{Frame, LARGEST};
use crate::vnet;

/// What the file is in the epoll set, and what wakes the thread for its end.
const FILE: u64 = 0;
const END: u64 = 1;
/// Packets that make no sense and are skipped in one go.
const SENSELESS: usize = 64;

struct Inner {
    // configuration
    /// What it is called in messages ("tap0").
    name: String,
    // wiring
    file: OwnedFd,
    epoll: OwnedFd,
    // volatile
    listener: Mutex<Option<Weak<dyn Listener>>>,
    /// What the thread waits for.
    wanted: Mutex<epoll::EventFlags>,
    /// Where a packet is read to.
    packet: Mutex<Box<[u8]>>,
    /// The other end has gone.
    ended: AtomicBool,
    /// It was said that frames are lost.
    complained: AtomicBool,
}

/// A file that frames go through.
pub(crate) struct Packets {
    inner: Arc<Inner>,
    end: OwnedFd,
}

impl Packets {
    /// Frames by way of `file`, which does not block.
    ///
    /// # Errors
    /// The host gives no thread or no means of waiting.
    pub(crate) fn new(name: &str, file: OwnedFd) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &end, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let wanted = epoll::EventFlags::IN;
        epoll::add(&epoll, &file, epoll::EventData::new_u64(FILE), wanted | epoll::EventFlags::ONESHOT)?;
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            file,
            epoll: epoll.try_clone()?,
            listener: Mutex::default(),
            wanted: Mutex::new(wanted),
            packet: Mutex::new(vec![0; vnet::HEADER + LARGEST].into()),
            ended: AtomicBool::new(false),
            complained: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name(format!("net-{name}")).spawn(move || wait(&epoll, &weak))?;
        Ok(Self { inner, end })
    }

    /// See [`crate::Network::connect`].
    pub(crate) fn connect(&self, listener: Weak<dyn Listener>) {
        *self.inner.listener.lock() = Some(listener);
    }

    /// See [`crate::Network::send`].
    pub(crate) fn send(&self, frame: &Frame) -> bool {
        let inner = &*self.inner;
        if inner.ended.load(Ordering::Relaxed) || !frame.has_sane_size() {
            return true;
        }
        let header = vnet::encode(frame);
        let parts = [IoSlice::new(&header), IoSlice::new(&frame.bytes)];
        match rustix::io::retry_on_intr(|| rustix::io::writev(&inner.file, &parts)) {
            Ok(_) => true,
            Err(Errno::AGAIN) => !inner.want(epoll::EventFlags::OUT),
            Err(error) => {
                inner.failed(error);
                true
            }
        }
    }

    /// See [`crate::Network::receive`].
    pub(crate) fn receive(&self) -> Option<Frame> {
        let inner = &*self.inner;
        let mut packet = inner.packet.lock();
        for _ in 0..SENSELESS {
            if inner.ended.load(Ordering::Relaxed) {
                return None;
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(&inner.file, &mut packet[..])) {
                Ok(0) => inner.failed(Errno::PIPE),
                Ok(length) => {
                    if let Some(frame) = vnet::unpack(&packet[..length]) {
                        return Some(frame);
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => inner.failed(error),
            }
        }
        inner.want(epoll::EventFlags::IN);
        None
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // The thread finds that nobody is left; an eventfd takes the first one always.
        let _ = rustix::io::write(&self.end, &1u64.to_ne_bytes());
    }
}

impl Inner {
    /// Has the thread tell when something has come. Whether it will.
    fn want(&self, what: epoll::EventFlags) -> bool {
        let mut wanted = self.wanted.lock();
        *wanted |= what;
        let result = self.wait_for(*wanted);
        drop(wanted);
        if let Err(error) = result {
            self.failed(error);
        }
        result.is_ok()
    }

    fn wait_for(&self, wanted: epoll::EventFlags) -> rustix::io::Result<()> {
        let once = wanted | epoll::EventFlags::ONESHOT;
        epoll::modify(&self.epoll, &self.file, epoll::EventData::new_u64(FILE), once)
    }

    /// Notes that a frame was lost, or that all will be.
    fn failed(&self, error: Errno) {
        let (name, cause) = (&self.name, Error::from(error));
        if matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::BADFD | Errno::BADF | Errno::NODEV)
        {
            if !self.ended.swap(true, Ordering::Relaxed) {
                tracing::error!("the network {name} has gone ({cause}): frames are lost from here on");
            }
        } else if !self.complained.swap(true, Ordering::Relaxed) {
            // A tap whose interface is down gives EIO.
            tracing::warn!("the network {name} loses frames: {cause}; `ip link show {name}` says whether a tap is up");
        }
    }
}

/// The thread: tells those who found no frame or no room.
fn wait(epoll: &OwnedFd, inner: &Weak<Inner>) {
    let mut events = Vec::with_capacity(2);
    loop {
        events.clear();
        match epoll::wait(epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!("a network ends: the host does not say when frames come: {}", Error::from(error));
                return;
            }
        }
        let Some(inner) = inner.upgrade() else { return };
        let Some(event) = events.iter().find(|event| event.data.u64() == FILE) else { continue };
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        let flags = event.flags;
        // Whatever is the matter, who tries again finds out.
        let over = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        let come = if over { both } else { flags & both };
        let mut wanted = inner.wanted.lock();
        *wanted &= !come;
        if !wanted.is_empty()
            && let Err(error) = inner.wait_for(*wanted)
        {
            inner.failed(error);
        }
        drop(wanted);
        let listener = inner.listener.lock().as_ref().and_then(Weak::upgrade);
        let Some(listener) = listener else { continue };
        if come.contains(epoll::EventFlags::OUT) {
            listener.room_to_send();
        }
        if come.contains(epoll::EventFlags::IN) {
            listener.frames_wait();
        }
    }
}
