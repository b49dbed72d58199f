//! The machine's end of the control socket.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lodge_backend::{Openness, Tray, listen_at};
use lodge_display::Monitor;
use lodge_input::{Desk, Key, Keyboard};
use lodge_vm::{Handle, Phase, Status};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{Shutdown, shutdown};

use crate::protocol::{CardReport, DriveReport};
use crate::{Request, Response, StatusReport};

/// Between two movements of a key.
const STROKE: Duration = Duration::from_millis(15);
/// A drive of the host's opens within this time; the host's driver gives up sooner.
const OPENING: Duration = Duration::from_secs(40);
/// How long the end of a server waits for what was asked last, and again for those who do not take the answer.
const LAST: Duration = Duration::from_secs(1);
/// Connections at a time.
const CONNECTIONS: usize = 16;
/// Keys that one request can have pressed: two minutes' worth.
const MOST_KEYS: usize = 4096;
/// Longest request in bytes.
const LONGEST: u64 = 1 << 20;

/// Puts the medium of a file into a tray, not to be written if so said, or says what is wrong in a line.
pub type Loader = Box<dyn Fn(&Arc<Tray>, &Path, bool) -> Result<(), String> + Send + Sync>;

/// A drive whose medium can be changed.
pub struct Drive {
    /// What it is called.
    pub name: String,
    /// Its tray.
    pub tray: Arc<Tray>,
    /// Puts media into it.
    pub load: Loader,
}

/// What a server acts on.
pub struct Machine {
    /// Where requests go.
    pub handle: Handle,
    /// What it shows.
    pub monitor: Arc<Monitor>,
    /// What keys go to.
    pub desk: Arc<Desk>,
    /// Drives whose media can be changed.
    pub drives: Vec<Drive>,
}

impl Machine {
    /// What comes of a request; `wanted` says whether anybody still waits for that.
    fn serve(&self, request: Request, wanted: &dyn Fn() -> bool) -> Response {
        match request {
            Request::Status => match self.handle.status() {
                Some(status) => Response::Status(self.report(&status)),
                None => ended(),
            },
            Request::Pause => self.done(Handle::pause),
            Request::Resume => self.done(Handle::resume),
            Request::Reset => self.done(Handle::reset),
            Request::Quit => self.done(Handle::quit),
            Request::Powerdown => match self.handle.press_power_button() {
                Some(true) => Response::Done,
                Some(false) => {
                    Response::Error("the guest does not listen to its power button; `quit` ends it at once".into())
                }
                None => ended(),
            },
            Request::Screenshot => self.screenshot(),
            Request::Text => match (self.monitor.mode(), self.monitor.text()) {
                (_, Some(text)) => Response::Text(text),
                (None, None) => no_screen(),
                (Some(_), None) => Response::Error(
                    "the screen shows graphics, which have no text; `screenshot` has the picture".into(),
                ),
            },
            Request::Type { text } => match lodge_input::text::strokes(&text) {
                Ok(strokes) => self.strike(&strokes, wanted),
                Err(character) => Response::Error(format!("no key of a US keyboard types '{character}'")),
            },
            Request::Key { keys } => {
                let chords: Result<Vec<_>, _> = keys.iter().map(|names| lodge_input::chord(names)).collect();
                match chords {
                    Ok(chords) => self.strike(&chords.into_iter().flat_map(strokes).collect::<Vec<_>>(), wanted),
                    Err(error) => Response::Error(error.to_string()),
                }
            }
            Request::Media { device, file, readonly } => {
                self.change(&device, file.as_deref().map(|file| (file, readonly)), wanted)
            }
            Request::Link { card, up } => match self.handle.set_link(&card, up) {
                Some(true) => Response::Done,
                Some(false) => self.no_card(&card),
                None => ended(),
            },
        }
    }

    fn screenshot(&self) -> Response {
        if self.monitor.mode().is_none() {
            return no_screen();
        }
        match self.monitor.picture_now().frame.png() {
            Ok(png) => Response::Screenshot(BASE64_STANDARD.encode(png)),
            Err(error) => Response::Error(format!("the screen can't be made a picture: {error}")),
        }
    }

    /// Has keys go down and up at the pace of a quick typist, which every guest keeps up with.
    /// Once nobody wants it any more, it ends, with no key down.
    fn strike(&self, strokes: &[(Key, bool)], wanted: &dyn Fn() -> bool) -> Response {
        if strokes.iter().filter(|(_, down)| *down).count() > MOST_KEYS {
            return Response::Error(format!("a request can press at most {MOST_KEYS} keys; send the rest with others"));
        }
        if !self.desk.has_keyboard() {
            return Response::Error("this machine has no keyboard".into());
        }
        let mut held = Vec::new();
        for (key, down) in strokes {
            if !wanted() {
                held.iter().rev().for_each(|key| self.desk.key(*key, false));
                return Response::Error("the request was given up".into());
            }
            held.retain(|other| other != key);
            if *down {
                held.push(*key);
            }
            self.desk.key(*key, *down);
            std::thread::sleep(STROKE);
        }
        Response::Done
    }

    fn done(&self, ask: impl Fn(&Handle)) -> Response {
        ask(&self.handle);
        Response::Done
    }

    fn report(&self, status: &Status) -> StatusReport {
        let phase = match status.phase {
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Suspended => "suspended",
        };
        let drive = |drive: &Drive| DriveReport {
            name: drive.name.clone(),
            loaded: drive.tray.medium().is_some(),
            locked: drive.tray.is_locked(),
        };
        StatusReport {
            phase: phase.into(),
            uptime: status.uptime.as_secs_f64(),
            resets: status.resets,
            engine: status.engine.into(),
            drives: self.drives.iter().map(drive).collect(),
            cards: status.links.iter().map(|link| CardReport { name: link.card.clone(), up: link.up }).collect(),
        }
    }

    fn no_card(&self, card: &str) -> Response {
        let Some(status) = self.handle.status() else { return ended() };
        let names: Vec<_> = status.links.iter().map(|link| link.card.as_str()).collect();
        let there = if names.is_empty() {
            "this machine has none; start it with --net".into()
        } else {
            format!("there are: {}", names.join(", "))
        };
        Response::Error(format!("there is no network card '{card}'; {there}"))
    }

    fn change(&self, device: &str, medium: Option<(&Path, bool)>, wanted: &dyn Fn() -> bool) -> Response {
        let Some(drive) = self.drives.iter().find(|drive| drive.name == device) else {
            let names: Vec<_> = self.drives.iter().map(|drive| drive.name.as_str()).collect();
            let there = if names.is_empty() {
                "this machine has no drives whose media can be changed; start it with --cdrom or --floppy".into()
            } else {
                format!("there are: {}", names.join(", "))
            };
            return Response::Error(format!("there is no drive '{device}'; {there}"));
        };
        let result = match medium {
            None => drive.tray.eject_and_wait(OPENING, wanted).map_err(|error| error.to_string()),
            Some((file, readonly)) => (drive.load)(&drive.tray, file, readonly),
        };
        result.map_or_else(Response::Error, |()| Response::Done)
    }
}

fn no_screen() -> Response {
    Response::Error("this machine has no screen; start it with --display or boot firmware".into())
}

/// Keys that are held together go down in turn, and up the other way round.
fn strokes(keys: Vec<Key>) -> Vec<(Key, bool)> {
    let down = keys.iter().map(|key| (*key, true));
    down.chain(keys.iter().rev().map(|key| (*key, false))).collect()
}

fn ended() -> Response {
    Response::Error("the machine has ended".into())
}

/// What the threads of a server share. They hold the machine only while they serve a request, so that none that waits for
/// its peer keeps disks and drives open when it ends.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    peers: Mutex<Peers>,
    /// A peer has gone.
    gone: Condvar,
}

/// Who is connected.
#[derive(Default)]
struct Peers {
    connected: BTreeMap<u64, Arc<UnixStream>>,
    /// How many there have been.
    count: u64,
}

/// A control socket that is served.
pub struct Server {
    shared: Arc<Shared>,
    /// The only one to hold it for long.
    _machine: Arc<Machine>,
    listener: Arc<UnixListener>,
    path: PathBuf,
    /// Which file the socket is, for as long as nobody puts another in its place.
    file: Option<(u64, u64)>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes the socket, which only its user can open. One that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the host gives no socket.
    pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
        listen_at(path, Openness::Private)
    }

    /// Serves what was bound at `path` until the server is dropped, which removes the socket.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(listener: UnixListener, path: &Path, machine: Machine) -> std::io::Result<Self> {
        let (shared, machine, listener) = (Arc::<Shared>::default(), Arc::new(machine), Arc::new(listener));
        let (on_thread, served, incoming) = (shared.clone(), Arc::downgrade(&machine), listener.clone());
        let accept = move || {
            loop {
                let peer = incoming.accept();
                if on_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                match peer {
                    Ok((peer, _)) => take(&on_thread, &served, Arc::new(peer)),
                    // The host has none to give for the moment.
                    Err(_) => std::thread::sleep(STROKE),
                }
            }
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(accept)?;
        let (path, file) = (path.to_owned(), identity(path));
        Ok(Self { shared, _machine: machine, listener, path, file, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Nobody waits any more at a socket that is shut down.
        if shutdown(&*self.listener, Shutdown::Both).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control socket's thread panicked");
        }
        // Those who wait for requests get none; those who answer one may end that, and then have to.
        for how in [std::net::Shutdown::Read, std::net::Shutdown::Both] {
            let until = Instant::now() + LAST;
            let mut peers = self.shared.peers.lock();
            for peer in peers.connected.values() {
                // One that has gone is shut down.
                let _ = peer.shutdown(how);
            }
            while !peers.connected.is_empty() && !self.shared.gone.wait_until(&mut peers, until).timed_out() {}
        }
        // It may be another machine's now.
        if self.file.is_some() && identity(&self.path) == self.file {
            // Whoever removed it before was quicker.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which file is at `path`: device and number.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Gives a connection a thread of its own, or ends it if there are too many.
fn take(shared: &Arc<Shared>, machine: &Weak<Machine>, peer: Arc<UnixStream>) {
    let mut peers = shared.peers.lock();
    if peers.connected.len() >= CONNECTIONS {
        drop(peers);
        answer(&peer, &Response::Error(format!("{CONNECTIONS} others are connected; try again")));
        return;
    }
    peers.count += 1;
    let number = peers.count;
    peers.connected.insert(number, peer.clone());
    drop(peers);
    let (on_thread, served) = (shared.clone(), machine.clone());
    let converse = move || {
        converse(&on_thread, &served, &peer);
        on_thread.forget(number);
    };
    if let Err(error) = std::thread::Builder::new().name("control-peer".into()).spawn(converse) {
        shared.forget(number);
        tracing::warn!("no thread for a connection to the control socket: {error}");
    }
}

impl Shared {
    /// A peer has gone.
    fn forget(&self, number: u64) {
        self.peers.lock().connected.remove(&number);
        self.gone.notify_all();
    }
}

/// Serves a peer until it goes.
fn converse(shared: &Shared, machine: &Weak<Machine>, peer: &UnixStream) {
    let wanted = || !shared.stop.load(Ordering::SeqCst) && !is_gone(peer);
    let mut reader = BufReader::new(peer);
    while !shared.stop.load(Ordering::SeqCst) {
        let mut line = Vec::new();
        match (&mut reader).take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if !line.ends_with(b"\n") && line.len() as u64 >= LONGEST {
            answer(peer, &Response::Error(format!("a request has at most {LONGEST} bytes")));
            return;
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => machine.upgrade().map_or_else(ended, |machine| machine.serve(request, &wanted)),
            Err(error) => Response::Error(format!("this is no request: {error}")),
        };
        if !answer(peer, &response) {
            return;
        }
    }
}

/// Whether the peer has closed the connection. One that only has nothing more to say still listens.
fn is_gone(peer: &UnixStream) -> bool {
    let mut poll = [PollFd::new(peer, PollFlags::empty())];
    let asked = rustix::event::poll(&mut poll, Some(&Timespec::default()));
    asked.is_ok() && poll[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Whether the peer took it.
fn answer(mut peer: &UnixStream, response: &Response) -> bool {
    let Ok(mut line) = serde_json::to_vec(response) else { return false };
    line.push(b'\n');
    peer.write_all(&line).is_ok()
}
