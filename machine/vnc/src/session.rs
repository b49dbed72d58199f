//! One viewer.
//!
//! ```text
//!   version -> security -> [challenge] -> init          (all within HANDSHAKE)
//!   then, on two threads:
//!     messages -> keys, pointer; wishes --bell--> updates: what the viewer has not seen of the monitor's picture
//! ```
//! An update is only sent when the viewer has asked for one, so that a slow viewer gets fewer, and newer, pictures.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lodge_display::{Monitor, Picture, Resizing};
use lodge_input::{Keyboard, Pointer};
use parking_lot::{Condvar, Mutex};

use crate::auth::{CHALLENGE, Password};
use crate::encoding::{Zrle, number, raw};
use crate::input::Hands;
use crate::message::{Message, ProtocolError};
use crate::pixel::{Converter, PixelFormat};
use crate::region::{Rect, Stale};

/// How long a viewer may take until it is served.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long it may take nothing of what is sent to it.
const WRITE: Duration = Duration::from_secs(30);
/// Most answers to wishes for another size that wait.
const ANSWERS_MOST: usize = 64;
/// How long a wrong password is thought about.
const PENALTY: Duration = Duration::from_secs(1);

const SECURITY_NONE: u8 = 1;
const SECURITY_VNC: u8 = 2;

/// What all viewers share.
pub struct Shared {
    /// What they look at.
    pub monitor: Arc<Monitor>,
    /// What they type on.
    pub keyboard: Arc<dyn Keyboard>,
    /// What they point with.
    pub pointer: Arc<dyn Pointer>,
    /// What they have to know.
    pub password: Option<Password>,
    /// The title of their windows.
    pub name: String,
}

/// A stream that has to be read by some time.
struct Hurried<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl Read for Hurried<'_> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(data)
    }
}

impl Hurried<'_> {
    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut data = [0; N];
        self.read_exact(&mut data)?;
        Ok(data)
    }
}

/// Minor version of the protocol: 3, 7 or 8.
fn version(line: [u8; 12]) -> Option<u8> {
    let minor = line.strip_prefix(b"RFB 003.")?.strip_suffix(b"\n")?;
    let minor: u32 = std::str::from_utf8(minor).ok()?.parse().ok()?;
    Some(match minor {
        0..7 => 3,
        7 => 7,
        _ => 8,
    })
}

/// Gets to know a viewer, up to and with ClientInit; whether it may be served.
fn handshake(mut stream: &TcpStream, shared: &Shared) -> Result<(), ProtocolError> {
    let mut from = Hurried { stream, until: Instant::now() + HANDSHAKE };
    stream.write_all(b"RFB 003.008\n")?;
    let minor = version(from.exactly()?).ok_or(ProtocolError::Version)?;
    let offered = if shared.password.is_some() { SECURITY_VNC } else { SECURITY_NONE };
    if minor == 3 {
        stream.write_all(&u32::from(offered).to_be_bytes())?;
    } else {
        stream.write_all(&[1, offered])?;
        let [chosen] = from.exactly()?;
        if chosen != offered {
            return Err(ProtocolError::Security { chosen });
        }
    }
    if let Some(password) = &shared.password {
        let mut challenge = [0; CHALLENGE];
        getrandom::fill(&mut challenge).map_err(|error| io::Error::other(error.to_string()))?;
        stream.write_all(&challenge)?;
        if !password.accepts(challenge, from.exactly()?) {
            std::thread::sleep(PENALTY);
            stream.write_all(&1u32.to_be_bytes())?;
            if minor == 8 {
                const REASON: &[u8] = b"wrong password";
                stream.write_all(&[&(REASON.len() as u32).to_be_bytes(), REASON].concat())?;
            }
            return Err(ProtocolError::Password);
        }
    }
    if shared.password.is_some() || minor == 8 {
        stream.write_all(&0u32.to_be_bytes())?;
    }
    // Whether others may stay: they may.
    let [_shared] = from.exactly()?;
    Ok(())
}

/// Encodings that a viewer knows.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    zrle: bool,
    size: bool,
    extended_size: bool,
    /// Whether the pointer is sent as motions.
    pointer_motion: bool,
}

/// What a viewer wants.
struct Wishes {
    format: PixelFormat,
    /// It has to be told the colour map.
    map: bool,
    known: Known,
    /// Of what it wants an update, once there is something new.
    wanted: Option<Rect>,
    /// What shall be sent anew.
    anew: Option<Rect>,
    /// What it has to be told: pseudo-encodings that it has just named, and what came of its wishes for another size.
    tell_keys: bool,
    tell_size: bool,
    resized: Vec<u8>,
    /// It sends motions.
    relative: bool,
    /// The size that the screen has.
    screen: (usize, usize),
    closed: bool,
}

struct Viewer {
    wishes: Mutex<Wishes>,
    bell: Condvar,
}

/// Serves a viewer until it leaves, or misbehaves.
pub fn serve(stream: &TcpStream, shared: &Shared) -> Result<(), ProtocolError> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE))?;
    // A viewer's host that has gone without a word is noticed some time.
    rustix::net::sockopt::set_socket_keepalive(stream, true).map_err(io::Error::from)?;
    handshake(stream, shared)?;
    stream.set_read_timeout(None)?;
    let picture = shared.monitor.picture();
    let size = (picture.frame.width.min(0xffff), picture.frame.height.min(0xffff));
    let mut init = Vec::new();
    [size.0, size.1].iter().for_each(|side| put16(*side, &mut init));
    init.extend_from_slice(&PixelFormat::NATIVE.write());
    init.extend_from_slice(&(shared.name.len() as u32).to_be_bytes());
    init.extend_from_slice(shared.name.as_bytes());
    { stream }.write_all(&init)?;
    let viewer = Viewer {
        wishes: Mutex::new(Wishes {
            format: PixelFormat::NATIVE,
            map: false,
            known: Known::default(),
            wanted: None,
            anew: None,
            tell_keys: false,
            tell_size: false,
            resized: Vec::new(),
            relative: false,
            screen: (picture.frame.width, picture.frame.height),
            closed: false,
        }),
        bell: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let update = || {
            let result = Updates::new(stream, shared, &viewer, size).run();
            // Whatever it was: the other thread shall not wait for messages.
            let _ = stream.shutdown(Shutdown::Both);
            result
        };
        std::thread::Builder::new().name("vnc-updates".into()).spawn_scoped(scope, update)?;
        let result = listen(stream, shared, &viewer);
        viewer.wishes.lock().closed = true;
        viewer.bell.notify_all();
        let _ = stream.shutdown(Shutdown::Both);
        result
    })
}

/// Takes a viewer's messages.
fn listen(stream: &TcpStream, shared: &Shared, viewer: &Viewer) -> Result<(), ProtocolError> {
    let mut from = io::BufReader::new(stream);
    let mut hands = Hands::new(shared.keyboard.clone(), shared.pointer.clone());
    loop {
        let message = Message::read(&mut from)?;
        let mut wishes = viewer.wishes.lock();
        match message {
            Message::Format(format) => {
                wishes.format = format;
                wishes.map = !format.true_colour;
            }
            Message::Encodings(encodings) => wishes.learn(&encodings),
            Message::Update { incremental, area } => {
                let [x, y, width, height] = area.map(usize::from);
                let area = Rect { x, y, width, height };
                let join = |old: Option<Rect>| Some(old.map_or(area, |old| old.union(&area)));
                wishes.wanted = join(wishes.wanted);
                if !incremental {
                    wishes.anew = join(wishes.anew);
                }
                viewer.bell.notify_all();
            }
            Message::Key { down, symbol, code } => {
                drop(wishes);
                hands.key(down, symbol, code);
            }
            Message::Pointer { buttons, x, y } => {
                let (screen, relative) = (wishes.screen, wishes.relative);
                drop(wishes);
                hands.pointer(buttons, x, y, screen, relative);
            }
            Message::Resize(size) => {
                let screen = wishes.screen;
                drop(wishes);
                let status = resize(&shared.monitor, size, screen);
                let mut wishes = viewer.wishes.lock();
                // One that does not want to know is not told for ever.
                if wishes.resized.len() < ANSWERS_MOST {
                    wishes.resized.push(status);
                }
                viewer.bell.notify_all();
            }
            Message::Nothing => {}
        }
    }
}

/// Passes on a viewer's wish for another size than `screen`, which there is; what came of it (RFB, ExtendedDesktopSize).
fn resize(monitor: &Monitor, size: Option<[u16; 2]>, screen: (usize, usize)) -> u8 {
    const DONE: u8 = 0;
    const PROHIBITED: u8 = 1;
    const RESOURCES: u8 = 2;
    const LAYOUT: u8 = 3;
    const FORWARDED: u8 = 4;
    let Some(size) = size else { return LAYOUT };
    match monitor.resize(size) {
        Resizing::Told if [screen.0, screen.1] == size.map(usize::from) => DONE,
        Resizing::Told => FORWARDED,
        Resizing::Fixed => PROHIBITED,
        Resizing::Impossible => RESOURCES,
    }
}

impl Wishes {
    /// Learns which encodings the viewer knows.
    fn learn(&mut self, encodings: &[i32]) {
        let knows = |number| encodings.contains(&number);
        let before = self.known;
        let first = encodings.iter().find(|number| matches!(**number, number::RAW | number::ZRLE));
        self.known = Known {
            zrle: first == Some(&number::ZRLE),
            size: knows(number::DESKTOP_SIZE),
            extended_size: knows(number::EXTENDED_DESKTOP_SIZE),
            pointer_motion: knows(number::POINTER_MOTION),
        };
        // Whoever does not know of motion says places.
        self.relative &= self.known.pointer_motion;
        self.tell_size |= self.known.extended_size && !before.extended_size;
        self.tell_keys |= knows(number::EXTENDED_KEYS);
    }
}

fn put16(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value as u16).to_be_bytes());
}

fn put_head(rect: &Rect, encoding: i32, out: &mut Vec<u8>) {
    [rect.x, rect.y, rect.width, rect.height].iter().for_each(|part| put16(*part, out));
    out.extend_from_slice(&encoding.to_be_bytes());
}

/// Sends a viewer what it has not seen.
struct Updates<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    viewer: &'a Viewer,
    seen: Option<Arc<Picture>>,
    stale: Stale,
    converter: (PixelFormat, Converter),
    zrle: Zrle,
}

/// What to do next.
struct Task {
    wanted: Rect,
    zrle: bool,
    /// Whether the viewer can be told another size.
    resizable: bool,
    extended_size: bool,
    /// Pseudo-rectangles to send: how many, and their bytes.
    notes: (u16, Vec<u8>),
    map: bool,
}

impl<'a> Updates<'a> {
    fn new(stream: &'a TcpStream, shared: &'a Shared, viewer: &'a Viewer, size: (usize, usize)) -> Self {
        let format = PixelFormat::NATIVE;
        Self {
            stream,
            shared,
            viewer,
            seen: None,
            stale: Stale::all(size.0, size.1),
            converter: (format, Converter::new(format)),
            zrle: Zrle::default(),
        }
    }

    fn run(&mut self) -> io::Result<()> {
        while let Some(task) = self.next() {
            let picture = self.shared.monitor.picture();
            if self.send(&task, &picture)? {
                continue;
            }
            // Nothing new: what was wanted is wanted still.
            let mut wishes = self.viewer.wishes.lock();
            wishes.wanted = Some(wishes.wanted.map_or(task.wanted, |newer| newer.union(&task.wanted)));
            if !wishes.closed {
                self.viewer.bell.wait_for(&mut wishes, Monitor::INTERVAL);
            }
        }
        Ok(())
    }

    /// Waits until an update is wanted; `None` once the viewer has gone.
    fn next(&mut self) -> Option<Task> {
        let mut wishes = self.viewer.wishes.lock();
        let wanted = loop {
            if wishes.closed {
                return None;
            }
            match wishes.wanted.take() {
                Some(wanted) => break wanted,
                None => self.viewer.bell.wait(&mut wishes),
            }
        };
        if let Some(anew) = wishes.anew.take() {
            self.stale.mark(&anew);
        }
        if wishes.format != self.converter.0 {
            self.converter = (wishes.format, Converter::new(wishes.format));
            self.stale.mark(&self.stale.bounds());
        }
        let notes = self.notes(&mut wishes);
        Some(Task {
            wanted,
            zrle: wishes.known.zrle,
            resizable: wishes.known.size || wishes.known.extended_size,
            extended_size: wishes.known.extended_size,
            notes,
            map: std::mem::take(&mut wishes.map),
        })
    }

    /// What the viewer has to be told besides pixels.
    fn notes(&self, wishes: &mut Wishes) -> (u16, Vec<u8>) {
        let (mut count, mut notes) = (0, Vec::new());
        let whole = self.stale.bounds();
        if std::mem::take(&mut wishes.tell_keys) {
            put_head(&whole, number::EXTENDED_KEYS, &mut notes);
            count += 1;
        }
        // It changes when a guest starts or stops to make use of a tablet.
        let absolute = self.shared.pointer.is_absolute();
        if wishes.known.pointer_motion && wishes.relative == absolute {
            put_head(&Rect { x: absolute.into(), y: 0, ..whole }, number::POINTER_MOTION, &mut notes);
            wishes.relative = !absolute;
            count += 1;
        }
        if std::mem::take(&mut wishes.tell_size) {
            put_size(&whole, 0, 0, &mut notes);
            count += 1;
        }
        let answers = std::mem::take(&mut wishes.resized);
        for status in answers.into_iter().filter(|_| wishes.known.extended_size) {
            // By this viewer.
            put_size(&whole, 1, status.into(), &mut notes);
            count += 1;
        }
        (count, notes)
    }

    /// Sends an update; whether there was anything to send.
    fn send(&mut self, task: &Task, picture: &Arc<Picture>) -> io::Result<bool> {
        let frame = &picture.frame;
        match &self.seen {
            Some(seen) if seen.serial == picture.serial => {}
            Some(seen) => self.stale.mark_changes(&seen.frame, frame),
            None => {}
        }
        self.seen = Some(picture.clone());
        self.viewer.wishes.lock().screen = (frame.width, frame.height);
        let mut stream = self.stream;
        if task.map {
            stream.write_all(&colour_map())?;
        }
        let (mut count, mut out) = task.notes.clone();
        let bounds = self.stale.bounds();
        let size = (frame.width.min(0xffff), frame.height.min(0xffff));
        let mut rects = Vec::new();
        if task.resizable && size != (bounds.width, bounds.height) {
            let whole = Rect { x: 0, y: 0, width: size.0, height: size.1 };
            if task.extended_size {
                put_size(&whole, 0, 0, &mut out);
            } else {
                put_head(&whole, number::DESKTOP_SIZE, &mut out);
            }
            count += 1;
            // The pixels come when they are asked for.
            self.stale = Stale::all(size.0, size.1);
        } else {
            rects = self.stale.take(&task.wanted);
        }
        if count == 0 && rects.is_empty() {
            return Ok(false);
        }
        let rectangles = usize::from(count) + rects.len();
        let mut head = vec![0, 0];
        put16(rectangles, &mut head);
        stream.write_all(&[head, out].concat())?;
        let mut out = Vec::new();
        for rect in rects {
            out.clear();
            if task.zrle {
                put_head(&rect, number::ZRLE, &mut out);
                self.zrle.encode(frame, &rect, &self.converter.1, &mut out)?;
            } else {
                put_head(&rect, number::RAW, &mut out);
                raw(frame, &rect, &self.converter.1, &mut out);
            }
            stream.write_all(&out)?;
        }
        Ok(true)
    }
}

/// The size, with one screen that has all of it: why it is sent, and whether a wish was granted.
fn put_size(whole: &Rect, reason: usize, status: usize, out: &mut Vec<u8>) {
    put_head(&Rect { x: reason, y: status, ..*whole }, number::EXTENDED_DESKTOP_SIZE, out);
    out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    [0, 0, whole.width, whole.height].iter().for_each(|part| put16(*part, out));
    out.extend_from_slice(&[0; 4]);
}

/// SetColourMapEntries, of all 256.
fn colour_map() -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0, 1, 0];
    message.extend(PixelFormat::map().flatten().flat_map(u16::to_be_bytes));
    message
}
