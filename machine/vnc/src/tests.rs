//! Against a small viewer, over a real connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lodge_display::{Frame, Look, Mode, Monitor, Screen};
use lodge_input::{Button, Key, Keyboard, Pointer};
use parking_lot::Mutex;

use super::*;
use crate::auth::Password;
use crate::pixel::PixelFormat;

/// A card whose picture a test draws.
struct Card(Mutex<Frame>, Mutex<Option<[u16; 2]>>, AtomicBool);

impl Screen for Card {
    fn mode(&self) -> Mode {
        Mode::Graphics { width: 0, height: 0, depth: 32 }
    }
    fn look(&self, _last: &mut Look) -> Option<Frame> {
        Some(self.0.lock().clone())
    }
    fn text(&self) -> Option<String> {
        None
    }
    fn prefer(&self, size: [u16; 2]) -> bool {
        let listens = self.2.load(Ordering::SeqCst);
        *self.1.lock() = Some(size);
        listens
    }
}

#[derive(Default)]
struct Devices {
    log: Mutex<Vec<String>>,
    absolute: AtomicBool,
}

impl Keyboard for Devices {
    fn key(&self, key: Key, down: bool) {
        self.log.lock().push(format!("{}{key}", if down { '+' } else { '-' }));
    }
}

impl Pointer for Devices {
    fn is_absolute(&self) -> bool {
        self.absolute.load(Ordering::SeqCst)
    }
    fn motion(&self, dx: i32, dy: i32) {
        self.log.lock().push(format!("by {dx} {dy}"));
    }
    fn position(&self, x: u16, y: u16) {
        self.log.lock().push(format!("at {x:#x} {y:#x}"));
    }
    fn wheel(&self, notches: i32) {
        self.log.lock().push(format!("wheel {notches}"));
    }
    fn button(&self, button: Button, down: bool) {
        self.log.lock().push(format!("{}{button:?}", if down { '+' } else { '-' }));
    }
}

impl Devices {
    /// Waits for what has been logged.
    fn expect(&self, expected: &[&str]) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.log.lock().len() < expected.len() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*self.log.lock(), expected);
        self.log.lock().clear();
    }
}

struct Rig {
    server: Server,
    card: Arc<Card>,
    devices: Arc<Devices>,
}

/// A picture with areas of few and of many colours.
fn picture(width: usize, height: usize, seed: u32) -> Frame {
    let mut frame = Frame::black(width, height);
    for y in 0..height {
        for x in 0..width {
            frame.pixels[y * width + x] = match (x / 64 + y / 64) % 6 {
                0 => 0x20_4060 ^ seed,
                1 => [0xff_ffff, 0x00_00aa][(x ^ y) & 1],
                2 => (x as u32 * 7 + y as u32 * 131).wrapping_mul(0x9e37_79b1 ^ seed) & 0xff_ffff,
                3 => (y as u32 * 5) << 8,
                4 => ((x / 40) as u32 * 0x0a_0b0c) ^ ((y % 32) as u32),
                _ => [0, 0xff_0000, 0x00_ff00, 0x00_00ff, 0x88_8888][(x * y) % 5],
            };
        }
    }
    frame
}

fn rig(password: Option<&str>) -> Rig {
    let monitor = Monitor::new();
    let card = Arc::new(Card(Mutex::new(picture(200, 150, 0)), Mutex::default(), AtomicBool::default()));
    let face: Arc<dyn Screen> = card.clone();
    monitor.connect(Arc::downgrade(&face));
    let devices = Arc::new(Devices::default());
    let config = VncConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        password: password.and_then(Password::new),
        name: "guest".into(),
    };
    let wiring = VncWiring { monitor, keyboard: devices.clone(), pointer: devices.clone() };
    Rig { server: Server::start(config, wiring).unwrap(), card, devices }
}

struct Viewer {
    stream: TcpStream,
    format: PixelFormat,
    frame: Frame,
    inflate: flate2::Decompress,
    /// Pseudo-rectangles: encoding, x, y.
    notes: Vec<(i32, u16, u16)>,
    map: usize,
}

impl Viewer {
    fn dial(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn open(rig: &Rig) -> Self {
        let mut stream = Self::dial(rig.server.address());
        assert_eq!(&take::<12>(&mut stream), b"RFB 003.008\n");
        stream.write_all(b"RFB 003.008\n").unwrap();
        assert_eq!(take(&mut stream), [1, 1]);
        stream.write_all(&[1]).unwrap();
        assert_eq!(take(&mut stream), [0; 4]);
        Self::init(stream)
    }

    fn init(mut stream: TcpStream) -> Self {
        stream.write_all(&[1]).unwrap();
        let [width, height] = [0; 2].map(|_: u8| usize::from(u16::from_be_bytes(take(&mut stream))));
        assert_eq!(PixelFormat::parse(&take(&mut stream)), Ok(PixelFormat::NATIVE));
        assert_eq!(take(&mut stream), [0, 0, 0, 5, b'g', b'u', b'e', b's', b't']);
        let inflate = flate2::Decompress::new(true);
        let frame = Frame::black(width, height);
        Self { stream, format: PixelFormat::NATIVE, frame, inflate, notes: Vec::new(), map: 0 }
    }

    fn send(&mut self, message: &[u8]) {
        self.stream.write_all(message).unwrap();
    }

    fn encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0, 0, encodings.len() as u8];
        message.extend(encodings.iter().flat_map(|number| number.to_be_bytes()));
        self.send(&message);
    }

    fn format(&mut self, format: PixelFormat) {
        self.format = format;
        let message = [&[0, 0, 0, 0][..], &format.write()].concat();
        self.send(&message);
    }

    fn ask(&mut self, incremental: bool) {
        let [width, height] = [self.frame.width, self.frame.height].map(|side| (side as u16).to_be_bytes());
        let head = [3, incremental.into(), 0, 0, 0, 0];
        self.send(&[&head[..], &width, &height].concat());
    }

    /// Takes an update; rectangles of pixels that were in it.
    fn update(&mut self) -> usize {
        let [kind, _] = take(&mut self.stream);
        if kind == 1 {
            let head: [u8; 4] = take(&mut self.stream);
            assert_eq!(head, [0, 0, 1, 0]);
            let _: [u8; 256 * 6] = take(&mut self.stream);
            self.map += 1;
            return self.update();
        }
        assert_eq!(kind, 0);
        let count = u16::from_be_bytes(take(&mut self.stream));
        let mut drawn = 0;
        for _ in 0..count {
            let [x, y, width, height] = [0; 4].map(|_: u8| u16::from_be_bytes(take(&mut self.stream)));
            let encoding = i32::from_be_bytes(take(&mut self.stream));
            let area = [x, y, width, height].map(usize::from);
            match encoding {
                0 => {
                    let bytes = many(&mut self.stream, area[2] * area[3] * self.format.bytes);
                    let pixels: Vec<u32> = bytes.chunks(self.format.bytes).map(|pixel| self.decode(pixel)).collect();
                    self.draw(area, &pixels);
                    drawn += 1;
                }
                16 => {
                    self.zrle(area);
                    drawn += 1;
                }
                -223 | -308 => {
                    if encoding == -308 {
                        let screens: [u8; 20] = take(&mut self.stream);
                        assert_eq!(screens[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
                        assert_eq!(screens[12..16], [width.to_be_bytes(), height.to_be_bytes()].concat());
                    }
                    self.notes.push((encoding, x, y));
                    self.frame = Frame::black(area[2], area[3]);
                }
                other => self.notes.push((other, x, y)),
            }
        }
        drawn
    }

    fn draw(&mut self, [x, y, width, _]: [usize; 4], pixels: &[u32]) {
        for (row, pixels) in (y..).zip(pixels.chunks(width)) {
            self.frame.pixels[row * self.frame.width + x..][..width].copy_from_slice(pixels);
        }
    }

    /// A pixel as it was sent, in the frame's format.
    fn decode(&self, bytes: &[u8]) -> u32 {
        let digits = |all: u32, byte: &u8| all << 8 | u32::from(*byte);
        let value =
            if self.format.big_endian { bytes.iter().fold(0, digits) } else { bytes.iter().rev().fold(0, digits) };
        let part = |n: usize| {
            let max = u32::from(self.format.max[n]);
            (value >> self.format.shift[n] & max) * 255 / max
        };
        part(0) << 16 | part(1) << 8 | part(2)
    }

    /// The same of a pixel in a compressed encoding.
    fn compact(&self, bytes: &mut &[u8]) -> u32 {
        let length = if self.format.bytes == 4 && self.format.depth == 24 { 3 } else { self.format.bytes };
        let (pixel, rest) = bytes.split_at(length);
        *bytes = rest;
        // The byte that is left out is the one that holds no colour.
        let upper = length == 3 && self.format.shift.iter().all(|shift| *shift >= 8);
        match (upper, self.format.big_endian) {
            (true, false) => self.decode(&[&[0], pixel].concat()),
            (true, true) => self.decode(&[pixel, &[0]].concat()),
            _ => self.decode(pixel),
        }
    }

    fn zrle(&mut self, [x, y, width, height]: [usize; 4]) {
        let length = u32::from_be_bytes(take(&mut self.stream)) as usize;
        let deflated = many(&mut self.stream, length);
        let mut plain = Vec::with_capacity(width * height * 4 + 65536);
        self.inflate.decompress_vec(&deflated, &mut plain, flate2::FlushDecompress::Sync).unwrap();
        let mut rest = &plain[..];
        for ty in (0..height).step_by(64) {
            for tx in (0..width).step_by(64) {
                let area = [x + tx, y + ty, 64.min(width - tx), 64.min(height - ty)];
                let pixels = self.tile(&mut rest, area[2], area[3]);
                self.draw(area, &pixels);
            }
        }
        assert_eq!(rest, []);
    }

    fn tile(&self, rest: &mut &[u8], width: usize, height: usize) -> Vec<u32> {
        fn byte(rest: &mut &[u8]) -> u8 {
            let (first, tail) = rest.split_first().unwrap();
            *rest = tail;
            *first
        }
        fn length(rest: &mut &[u8]) -> usize {
            let mut length = 1;
            loop {
                let part = byte(rest);
                length += usize::from(part);
                if part != 255 {
                    return length;
                }
            }
        }
        let kind = byte(rest);
        let size = width * height;
        let mut pixels = Vec::new();
        let palette: Vec<u32> = match kind {
            1..=127 => (0..kind).map(|_| self.compact(rest)).collect(),
            129.. => (128..kind).map(|_| self.compact(rest)).collect(),
            _ => Vec::new(),
        };
        match kind {
            0 => pixels.extend((0..size).map(|_| self.compact(rest))),
            1 => pixels.resize(size, palette[0]),
            2..=16 => {
                let bits = [1, 1, 1, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4][usize::from(kind)];
                for _ in 0..height {
                    let row: Vec<u8> = (0..(width * bits).div_ceil(8)).map(|_| byte(rest)).collect();
                    let index = |n: usize| row[n * bits / 8] >> (8 - bits - n * bits % 8) & ((1 << bits) - 1);
                    pixels.extend((0..width).map(|n| palette[usize::from(index(n))]));
                }
            }
            128 => {
                while pixels.len() < size {
                    let pixel = self.compact(rest);
                    pixels.resize(pixels.len() + length(rest), pixel);
                }
            }
            130.. => {
                while pixels.len() < size {
                    let index = byte(rest);
                    let run = if index & 0x80 != 0 { length(rest) } else { 1 };
                    pixels.resize(pixels.len() + run, palette[usize::from(index & 0x7f)]);
                }
            }
            other => panic!("tile of kind {other}"),
        }
        assert_eq!(pixels.len(), size);
        pixels
    }
}

fn take<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut data = [0; N];
    stream.read_exact(&mut data).unwrap();
    data
}

fn many(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    stream.read_exact(&mut data).unwrap();
    data
}

/// The frame as a viewer with this format sees it.
fn reduced(frame: &Frame, format: PixelFormat) -> Frame {
    let part = |pixel: u32, n: usize| {
        let (value, max) = (pixel >> (16 - 8 * n) & 0xff, u32::from(format.max[n]));
        (value * max + 127) / 255 * 255 / max
    };
    let pixels = frame.pixels.iter().map(|p| part(*p, 0) << 16 | part(*p, 1) << 8 | part(*p, 2)).collect();
    Frame { pixels, ..*frame }
}

#[test]
fn viewers_see_the_frame_in_every_encoding_and_format() {
    let rig = rig(None);
    let native = PixelFormat::NATIVE;
    let high = PixelFormat { bytes: 2, depth: 16, max: [31, 63, 31], shift: [11, 5, 0], ..native };
    let low = PixelFormat { bytes: 1, depth: 8, max: [7, 7, 3], shift: [5, 2, 0], ..native };
    let formats = [
        native,
        PixelFormat { big_endian: true, ..native },
        PixelFormat { big_endian: true, shift: [24, 16, 8], ..native },
        PixelFormat { depth: 32, ..native },
        high,
        PixelFormat { big_endian: true, ..high },
        low,
    ];
    let mut viewer = Viewer::open(&rig);
    for encoding in [0, 16] {
        for format in formats {
            viewer.format(format);
            viewer.encodings(&[encoding]);
            viewer.ask(false);
            assert!(viewer.update() > 0);
            assert!(viewer.frame == reduced(&rig.card.0.lock(), format), "{encoding} {format:?}");
        }
    }
    // A colour map is told, and then indices into it.
    viewer.format = low;
    let mapped = PixelFormat { true_colour: false, ..low };
    viewer.send(&[&[0, 0, 0, 0][..], &mapped.write()].concat());
    viewer.ask(false);
    viewer.update();
    assert!(viewer.map == 1 && viewer.frame == reduced(&rig.card.0.lock(), low));
}

#[test]
fn only_changes_are_sent_and_only_when_there_are_some() {
    let rig = rig(None);
    let (mut first, mut second) = (Viewer::open(&rig), Viewer::open(&rig));
    first.encodings(&[16, 0]);
    for viewer in [&mut first, &mut second] {
        viewer.ask(false);
        viewer.update();
        viewer.ask(true);
    }
    assert_eq!(rig.server.viewers(), 2);
    for change in 1..5 {
        std::thread::sleep(Duration::from_millis(10 * change));
        rig.card.0.lock().pixels[change as usize * 40 + 30_000 - 200] = 0xab_cdef;
        let expected = rig.card.0.lock().clone();
        for viewer in [&mut first, &mut second] {
            assert_eq!(viewer.update(), 1);
            assert!(viewer.frame == expected);
            viewer.ask(true);
        }
    }
    // Nothing has changed: nothing comes.
    first.stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    assert!(first.stream.read(&mut [0]).is_err());
    drop(first);
    second.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    rig.card.0.lock().pixels[0] = 1;
    assert_eq!(second.update(), 1, "others stay");
}

#[test]
fn the_screen_changes_its_size() {
    let rig = rig(None);
    let mut viewers = [Viewer::open(&rig), Viewer::open(&rig), Viewer::open(&rig)];
    viewers[0].encodings(&[16, -223]);
    viewers[1].encodings(&[0, -308, -223]);
    for viewer in &mut viewers {
        viewer.ask(false);
        viewer.update();
        viewer.ask(true);
    }
    assert_eq!(viewers[1].notes, [(-308, 0, 0)], "it is told its size at first");
    for (width, height) in [(320, 100), (90, 200)] {
        *rig.card.0.lock() = picture(width, height, 5);
        let expected = rig.card.0.lock().clone();
        for (viewer, note) in viewers[..2].iter_mut().zip([-223, -308]) {
            viewer.update();
            assert_eq!(viewer.notes.last(), Some(&(note, 0, 0)));
            assert_eq!((viewer.frame.width, viewer.frame.height), (width, height));
            viewer.ask(false);
            viewer.update();
            assert!(viewer.frame == expected);
            viewer.ask(true);
        }
        // Who cannot change its size sees what fits, and black beyond.
        let third = &mut viewers[2];
        third.update();
        for y in 0..150 {
            let seen: Vec<u32> = (0..200).map(|x| expected.pixel(x, y)).collect();
            assert_eq!(third.frame.row(y), seen);
        }
        third.ask(true);
    }
    // Its pointer is on the screen that there is.
    rig.devices.absolute.store(true, Ordering::SeqCst);
    viewers[2].send(&pointer(0, 89, 199));
    rig.devices.expect(&["at 0xffff 0xffff"]);
}

#[test]
fn viewers_can_wish_for_another_size() {
    let rig = rig(None);
    let mut viewers = [Viewer::open(&rig), Viewer::open(&rig)];
    for viewer in &mut viewers {
        viewer.encodings(&[0, -308]);
        viewer.ask(false);
        viewer.update();
    }
    let wish = |width: u16, height: u16| {
        let mut message = vec![251, 0];
        [width, height].iter().for_each(|side| message.extend(side.to_be_bytes()));
        message.extend([1, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        [width, height].iter().for_each(|side| message.extend(side.to_be_bytes()));
        message.extend([0; 4]);
        message
    };
    let [first, second] = &mut viewers;
    // A guest that can't be told.
    first.send(&wish(800, 600));
    first.ask(true);
    first.update();
    assert_eq!(first.notes.last(), Some(&(-308, 1, 1)), "prohibited");
    rig.card.2.store(true, Ordering::SeqCst);
    *rig.card.1.lock() = None;
    // Two screens, none, one that is not all of it; too large; each is answered.
    first.send(&[251, 0, 4, 0, 3, 0, 0, 0]);
    first.send(&[&[251, 0, 4, 0, 3, 0, 2, 0][..], &[0; 32]].concat());
    first.send(&wish(5000, 600));
    let before = first.notes.len();
    while first.notes.len() < before + 3 {
        first.ask(true);
        first.update();
    }
    assert_eq!(first.notes[before..], [(-308, 1, 3), (-308, 1, 3), (-308, 1, 2)]);
    assert_eq!(*rig.card.1.lock(), None);
    // One that can: the guest follows in its own time.
    first.send(&wish(300, 120));
    first.ask(true);
    first.update();
    assert_eq!(first.notes.last(), Some(&(-308, 1, 4)), "forwarded");
    assert_eq!(*rig.card.1.lock(), Some([300, 120]));
    let size = (first.frame.width, first.frame.height);
    assert_ne!(size, (300, 120), "it is as it was");
    *rig.card.0.lock() = picture(300, 120, 5);
    for viewer in [&mut *first, second] {
        viewer.ask(true);
        viewer.update();
        assert_eq!(viewer.notes.last(), Some(&(-308, 0, 0)));
        assert_eq!((viewer.frame.width, viewer.frame.height), (300, 120));
    }
    // What is there already.
    first.send(&wish(300, 120));
    while first.notes.last() != Some(&(-308, 1, 0)) {
        first.ask(true);
        first.update();
    }
}

fn key(down: bool, symbol: u32) -> Vec<u8> {
    [&[4, down.into(), 0, 0][..], &symbol.to_be_bytes()].concat()
}

fn pointer(buttons: u8, x: u16, y: u16) -> Vec<u8> {
    [&[5, buttons][..], &x.to_be_bytes(), &y.to_be_bytes()].concat()
}

#[test]
fn keys_and_pointers_reach_the_machine() {
    let rig = rig(None);
    let mut viewer = Viewer::open(&rig);
    for (down, symbol) in [(true, 0x61), (false, 0x61), (true, 0xffe1), (true, 0x41), (false, 0x41), (false, 0xffe1)] {
        viewer.send(&key(down, symbol));
    }
    rig.devices.expect(&["+a", "-a", "+shift", "+a", "-a", "-shift"]);
    // A sign that needs Shift on the viewer's keyboard, and not here; and the other way round.
    for (down, symbol) in [(true, 0xffe1), (true, 0x2f), (false, 0x2f), (false, 0xffe1), (true, 0x3a), (false, 0x3a)] {
        viewer.send(&key(down, symbol));
    }
    rig.devices.expect(&[
        "+shift", "-shift", "+slash", "+shift", "-slash", "-shift", "+shift", "+semicolon", "-shift", "-semicolon",
    ]);
    // A program that sends capitals means capitals; Caps Lock makes them without Shift.
    for (down, symbol) in [(true, 0x48), (false, 0x48), (true, 0xffe5), (false, 0xffe5), (true, 0x48), (false, 0x48)] {
        viewer.send(&key(down, symbol));
    }
    rig.devices.expect(&["+shift", "+h", "-shift", "-h", "+caps_lock", "-caps_lock", "+h", "-h"]);
    for (down, symbol) in
        [(true, 0xffe5), (false, 0xffe5), (true, 0xffe3), (true, 0x43), (false, 0x43), (false, 0xffe3)]
    {
        viewer.send(&key(down, symbol));
    }
    rig.devices.expect(&["+caps_lock", "-caps_lock", "+ctrl", "+c", "-c", "-ctrl"]);
    // Keys by their places: what is on them does not matter.
    viewer.encodings(&[0, -258]);
    viewer.ask(false);
    viewer.update();
    assert_eq!(viewer.notes, [(-258, 0, 0)]);
    viewer.send(&[255, 0, 0, 1, 0, 0, 0, 0x7a, 0, 0, 0, 0x15]);
    viewer.send(&[255, 0, 0, 0, 0, 0, 0, 0x7a, 0, 0, 0, 0x15]);
    rig.devices.expect(&["+y", "-y"]);
    // A mouse moves by what the viewer's pointer has moved.
    for event in
        [pointer(0, 10, 10), pointer(1, 13, 8), pointer(0b0001_0100, 13, 8), pointer(0b1000, 13, 8), pointer(0, 13, 8)]
    {
        viewer.send(&event);
    }
    rig.devices.expect(&["by 3 -2", "+Left", "-Left", "+Right", "wheel 1", "-Right", "wheel -1"]);
    // Or by what it says, where it can.
    viewer.encodings(&[0, -257]);
    viewer.ask(false);
    viewer.update();
    assert_eq!(viewer.notes.last(), Some(&(-257, 0, 0)));
    viewer.send(&pointer(0, 0x7fff + 5, 0x7fff - 1));
    rig.devices.expect(&["by 5 -1"]);
    // What is held is let go when the viewer leaves.
    viewer.send(&key(true, 0xffe3));
    viewer.send(&key(true, 0xffe3));
    viewer.send(&pointer(0b10, 0x7fff, 0x7fff));
    rig.devices.expect(&["+ctrl", "+ctrl", "+Middle"]);
    drop(viewer);
    rig.devices.expect(&["-ctrl", "-Middle"]);
    // A tablet is told places.
    rig.devices.absolute.store(true, Ordering::SeqCst);
    let mut viewer = Viewer::open(&rig);
    for event in [pointer(0, 0, 0), pointer(0, 199, 149), pointer(0, 100, 75), pointer(0, 9999, 9999)] {
        viewer.send(&event);
    }
    rig.devices.expect(&["at 0x0 0x0", "at 0xffff 0xffff", "at 0x80a4 0x80db", "at 0xffff 0xffff"]);
    // Who can send motions is told to, and no longer to, when that changes.
    viewer.encodings(&[0, -257]);
    viewer.ask(false);
    viewer.update();
    assert_eq!(viewer.notes, []);
    for (absolute, event) in [(false, "by 3 -4"), (true, "at 0x0 0xffff")] {
        viewer.ask(true);
        rig.devices.absolute.store(absolute, Ordering::SeqCst);
        viewer.update();
        assert_eq!(viewer.notes.last(), Some(&(-257, absolute.into(), 0)));
        viewer.send(&if absolute { pointer(0, 0, 149) } else { pointer(0, 0x7fff + 3, 0x7fff - 4) });
        rig.devices.expect(&[event]);
    }
}

/// Goes through the handshake of a version with a password; what the server says of it.
fn authenticate(rig: &Rig, minor: u8, password: &str) -> (TcpStream, u32) {
    let mut stream = Viewer::dial(rig.server.address());
    let _: [u8; 12] = take(&mut stream);
    stream.write_all(format!("RFB 003.00{minor}\n").as_bytes()).unwrap();
    if minor == 3 {
        assert_eq!(take(&mut stream), [0, 0, 0, 2]);
    } else {
        assert_eq!(take(&mut stream), [1, 2]);
        stream.write_all(&[2]).unwrap();
    }
    let challenge = take(&mut stream);
    stream.write_all(&Password::new(password).unwrap().answer(challenge)).unwrap();
    let result = u32::from_be_bytes(take(&mut stream));
    (stream, result)
}

#[test]
fn a_password_is_asked_for_in_every_version() {
    let rig = rig(Some("secret"));
    for minor in [3, 7, 8] {
        let (stream, result) = authenticate(&rig, minor, "secret");
        assert_eq!(result, 0);
        let mut viewer = Viewer::init(stream);
        viewer.ask(false);
        viewer.update();
        assert!(viewer.frame == *rig.card.0.lock());
        let (mut stream, result) = authenticate(&rig, minor, "Secret");
        assert_eq!(result, 1);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, if minor == 8 { b"\0\0\0\x0ewrong password".to_vec() } else { Vec::new() });
    }
    // No security is not for the choosing.
    let mut stream = Viewer::dial(rig.server.address());
    let _: [u8; 12] = take(&mut stream);
    stream.write_all(b"RFB 003.008\n\x01").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [1, 2]);
}

#[test]
fn older_viewers_come_in_without_a_result() {
    let rig = rig(None);
    for minor in [3u8, 5, 7] {
        let mut stream = Viewer::dial(rig.server.address());
        let _: [u8; 12] = take(&mut stream);
        stream.write_all(format!("RFB 003.00{minor}\n").as_bytes()).unwrap();
        if minor == 7 {
            assert_eq!(take(&mut stream), [1, 1]);
            stream.write_all(&[1]).unwrap();
        } else {
            assert_eq!(take(&mut stream), [0, 0, 0, 1]);
        }
        let mut viewer = Viewer::init(stream);
        viewer.ask(false);
        viewer.update();
        assert!(viewer.frame == *rig.card.0.lock());
    }
}

#[test]
fn garbage_ends_one_viewer_and_no_other() {
    let rig = rig(None);
    let mut good = Viewer::open(&rig);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"RFB 004.001\n", b"RFB 003.0x8\n", &[0xff; 100]] {
        let mut stream = Viewer::dial(rig.server.address());
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        // Cut off; what was not read makes it a reset.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.starts_with(b"RFB 003.008\n") && rest.len() == 12, "{rest:?}");
    }
    let mut noise = 1u32;
    for length in [1, 10, 100, 5000] {
        let mut bad = Viewer::open(&rig);
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        let _ = bad.stream.write_all(&bytes);
        let _ = bad.stream.write_all(&[0xaa]);
        let _ = bad.stream.shutdown(std::net::Shutdown::Write);
        let _ = bad.stream.read_to_end(&mut Vec::new());
    }
    // Areas beyond the screen are not on it; others are served all the while.
    good.send(&[3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    good.ask(false);
    good.update();
    assert!(good.frame == *rig.card.0.lock());
}

#[test]
fn a_viewer_that_takes_nothing_holds_up_nobody() {
    let rig = rig(None);
    *rig.card.0.lock() = picture(1600, 1200, 1);
    std::thread::sleep(Monitor::INTERVAL);
    let mut stuck = Viewer::open(&rig);
    stuck.ask(false);
    let mut good = Viewer::open(&rig);
    good.encodings(&[16]);
    good.ask(false);
    for n in 1..20 {
        stuck.ask(false);
        good.update();
        rig.card.0.lock().pixels[n * 1000] ^= 0x0f_0f0f;
        good.ask(true);
    }
    // Ending the server ends it, too.
    let begin = Instant::now();
    drop(rig);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn what_can_not_be_listened_at_is_refused() {
    let rig = rig(None);
    let start = |address: &str, password: Option<&str>| {
        let monitor = Monitor::new();
        let config = VncConfig {
            address: address.parse().unwrap(),
            password: password.and_then(Password::new),
            name: String::new(),
        };
        let wiring = VncWiring { monitor, keyboard: rig.devices.clone(), pointer: rig.devices.clone() };
        Server::start(config, wiring)
    };
    let error = start("0.0.0.0:0", None).err().unwrap();
    assert!(matches!(error, VncError::Open { .. }) && error.to_string().contains("set one"), "{error}");
    let error = start("[::]:0", None).err().unwrap();
    assert!(matches!(error, VncError::Open { .. }), "{error}");
    assert!(start("0.0.0.0:0", Some("secret")).is_ok());
    let taken = rig.server.address().to_string();
    let error = start(&taken, None).err().unwrap();
    assert!(matches!(error, VncError::InUse { .. }) && error.to_string().contains("is in use"), "{error}");
    let error = start("no-such-host.invalid:1", None).err().unwrap();
    assert!(matches!(error, VncError::Resolve { .. }), "{error}");
}

#[test]
fn there_are_only_so_many_viewers() {
    let rig = rig(None);
    let viewers: Vec<_> = (0..16).map(|_| Viewer::open(&rig)).collect();
    let mut late = Viewer::dial(rig.server.address());
    assert_eq!(late.read(&mut [0; 12]).unwrap_or(0), 0);
    drop(viewers);
    let until = Instant::now() + Duration::from_secs(20);
    while rig.server.viewers() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    Viewer::open(&rig);
}
