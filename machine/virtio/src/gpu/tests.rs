use lodge_bus::{FixedMemory, MemoryMapping, PauseDevice, ResetDevice, SaveDevice};
use lodge_display::{Monitor, Resizing, VideoMemory, edid};
use lodge_engine_api::NOWHERE;
use vm_memory::GuestAddress;

use super::*;
use crate::testing::{DATA, Driver, wait_for};
use crate::transport::registers::{DEVICE_OFFSET, common};

const ANSWER: u64 = DATA + 0x9_0000;
const PIXELS: u64 = DATA + 0xa_0000;
const OK: u32 = response::OK_NODATA;
const RED: u32 = 0xff_0000;

/// A VGA in text mode.
struct Text;

impl Screen for Text {
    fn mode(&self) -> Mode {
        Mode::Text { columns: 80, rows: 25 }
    }
    fn look(&self, last: &mut Look) -> Option<Frame> {
        last.memory.resize(10, 1);
        (last.stamp.replace(5) != Some(5)).then(|| Frame { width: 1, height: 1, pixels: vec![7] })
    }
    fn text(&self) -> Option<String> {
        Some("text".into())
    }
}

struct Rig {
    driver: Driver,
    gpu: Arc<Gpu>,
}

fn rig() -> Rig {
    rig_with(Driver::memory(), None)
}

fn rig_with(memory: GuestMemory, video: Option<VideoAperture>) -> Rig {
    let gpu = Gpu::new("gpu", GpuWiring { memory: memory.clone(), before: Some(Arc::new(Text)), video });
    let driver = Driver::over(memory, gpu.clone());
    driver.start(FEATURE_EDID);
    Rig { driver, gpu }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Rig {
    /// Sends bytes to a queue; the answer's.
    fn send(&self, queue: u16, command: &[u8], room: u32) -> Vec<u8> {
        self.driver.put(DATA, command);
        let mut parts = vec![(DATA, command.len() as u32, false)];
        if room > 0 {
            parts.push((ANSWER, room, true));
        }
        self.driver.submit(queue, 0, &parts);
        let (_, written) = self.driver.complete(queue);
        assert!(written <= room);
        self.driver.get(ANSWER, written as usize)
    }

    /// A command with a fence; the response and what comes behind its header.
    fn command(&self, kind: u32, words: &[u32]) -> (u32, Vec<u8>) {
        let answer = self.send(CONTROL, &bytes(&[&[kind, FLAG_FENCE, 77, 1, 9, 0], words].concat()), 4096);
        assert_eq!(answer[4..24], bytes(&[FLAG_FENCE, 77, 1, 9, 0]));
        (u32::from_le_bytes(answer[..4].try_into().unwrap()), answer[24..].to_vec())
    }

    fn run(&self, kind: u32, words: &[u32]) -> u32 {
        self.command(kind, words).0
    }

    fn create(&self, id: u32, format: u32, width: u32, height: u32) -> u32 {
        self.run(command::RESOURCE_CREATE_2D, &[id, format, width, height])
    }

    fn attach(&self, id: u32, pieces: &[(u64, u32)]) -> u32 {
        let entries = pieces.iter().flat_map(|(at, length)| [*at as u32, (at >> 32) as u32, *length, 0]);
        let words: Vec<_> = [id, pieces.len() as u32].into_iter().chain(entries).collect();
        self.run(command::RESOURCE_ATTACH_BACKING, &words)
    }

    fn transfer(&self, id: u32, area: [u32; 4], offset: u64) -> u32 {
        let rest = [offset as u32, (offset >> 32) as u32, id, 0];
        self.run(command::TRANSFER_TO_HOST_2D, &[&area[..], &rest].concat())
    }

    fn flush(&self, id: u32, area: [u32; 4]) -> u32 {
        self.run(command::RESOURCE_FLUSH, &[&area[..], &[id, 0]].concat())
    }

    fn show(&self, scanout: u32, id: u32, area: [u32; 4]) -> u32 {
        self.run(command::SET_SCANOUT, &[&area[..], &[scanout, id]].concat())
    }

    /// A resource with pixel n coloured n, whole and shown.
    fn shown(&self, id: u32, width: u32, height: u32) {
        let pixels: Vec<_> = (0..width * height).collect();
        self.driver.put(PIXELS, &bytes(&pixels));
        assert_eq!(self.create(id, 2, width, height), OK);
        assert_eq!(self.attach(id, &[(PIXELS, 4 * width * height)]), OK);
        let whole = [0, 0, width, height];
        assert_eq!((self.transfer(id, whole, 0), self.show(0, id, whole), self.flush(id, whole)), (OK, OK, OK));
    }

    fn cursor(&self, kind: u32, x: i32, y: i32, resource: u32) -> Vec<u8> {
        self.send(CURSOR, &bytes(&[kind, 0, 0, 0, 0, 0, 0, x as u32, y as u32, 0, resource, 3, 4, 0]), 24)
    }
}

#[test]
fn what_a_driver_finds() {
    let rig = rig();
    assert_eq!(rig.driver.offered(), crate::feature::COMMON | FEATURE_EDID);
    let config: Vec<_> = (0..5).map(|word| rig.driver.config(4 * word, 4)).collect();
    assert_eq!(config, [0, 0, 1, 0, 0]);
    let (kind, info) = rig.command(command::GET_DISPLAY_INFO, &[]);
    assert_eq!((kind, info.len()), (response::OK_DISPLAY_INFO, 16 * 24));
    assert_eq!(info[..24], bytes(&[0, 0, 1920, 1080, 1, 0]));
    assert!(info[24..].iter().all(|byte| *byte == 0), "the others are not there");
    let (kind, body) = rig.command(command::GET_EDID, &[0, 0]);
    assert_eq!((kind, body.len()), (response::OK_EDID, 8 + 1024));
    assert_eq!((&body[..8], &body[8..136]), (&bytes(&[128, 0])[..], &edid::block(edid::PREFERRED)[..]));
    assert_eq!(rig.run(command::GET_EDID, &[1, 0]), response::ERR_INVALID_SCANOUT_ID);
    // Without a fence the answer tells of none.
    let answer = rig.send(CONTROL, &bytes(&[command::GET_DISPLAY_INFO, 0, 77, 1, 9, 0]), 4096);
    assert_eq!(answer[..24], bytes(&[response::OK_DISPLAY_INFO, 0, 0, 0, 0, 0]));
}

#[test]
fn a_resource_is_seen_when_it_is_shown_and_flushed() {
    let rig = rig();
    let mut look = Look::default();
    assert_eq!(rig.gpu.look(&mut look).unwrap().pixels, [7], "the VGA is seen");
    assert_eq!((rig.gpu.text().as_deref(), rig.gpu.look(&mut look)), (Some("text"), None));
    // Pixels in three pieces that do not end with one.
    let pixels: Vec<u8> = bytes(&(0..20 * 10u32).map(|n| n << 8 | 1).collect::<Vec<_>>());
    let pieces = [(PIXELS + 0x3000, 99u32), (PIXELS + 0x1000, 0), (PIXELS + 1, 402), (PIXELS + 0x5000, 299)];
    let mut from = 0;
    for (at, length) in pieces {
        rig.driver.put(at, &pixels[from..from + length as usize]);
        from += length as usize;
    }
    assert_eq!(from, pixels.len());
    assert_eq!(rig.create(5, 2, 20, 10), OK);
    assert_eq!(rig.attach(5, &pieces), OK);
    assert_eq!(rig.gpu.look(&mut look), None);
    assert_eq!(rig.transfer(5, [0, 0, 20, 10], 0), OK);
    assert_eq!(rig.show(0, 5, [4, 2, 10, 5]), OK);
    let frame = rig.gpu.look(&mut look).unwrap();
    assert_eq!((frame.width, frame.height, rig.gpu.text(), look.memory.len()), (10, 5, None, 0));
    assert_eq!(rig.gpu.mode(), Mode::Graphics { width: 10, height: 5, depth: 32 });
    for (x, y) in [(0, 0), (9, 0), (0, 4), (9, 4), (3, 2)] {
        let number = (y + 2) * 20 + x + 4;
        assert_eq!(frame.pixel(x, y), (number as u32) << 8 | 1, "{x} {y}");
    }
    assert_eq!(rig.gpu.look(&mut look), None, "nothing has changed");
    // A part is copied from where its first pixel is said to be.
    rig.driver.put(PIXELS + 1, &vec![0xee; 402]);
    assert_eq!(rig.transfer(5, [5, 3, 2, 1], (3 * 20 + 5) * 4), OK);
    assert_eq!(rig.gpu.look(&mut look), None, "nothing was flushed");
    assert_eq!(rig.flush(5, [5, 3, 2, 1]), OK);
    let other = rig.gpu.look(&mut look).unwrap();
    let changed = (0..50).filter(|n| frame.pixels[*n] != other.pixels[*n]).collect::<Vec<_>>();
    assert_eq!((changed, other.pixel(1, 1)), (vec![11, 12], 0xee_eeee));
    // What is not shown changes nothing.
    assert_eq!((rig.create(6, 1, 4, 4), rig.flush(6, [0, 0, 4, 4])), (OK, OK));
    assert_eq!(rig.gpu.look(&mut look), None);
    assert_eq!(rig.run(command::RESOURCE_DETACH_BACKING, &[5, 0]), OK);
    assert_eq!(rig.transfer(5, [0, 0, 1, 1], 0), response::ERR_UNSPEC);
    // Without what it shows the screen is black, and as large as before.
    assert_eq!(rig.run(command::RESOURCE_UNREF, &[5, 0]), OK);
    assert_eq!(rig.gpu.look(&mut look), Some(Frame::black(10, 5)));
    assert_eq!(rig.show(0, 0, [0; 4]), OK);
    assert_eq!(rig.gpu.look(&mut look), Some(Frame::black(10, 5)));
    ResetDevice::reset(&*rig.driver.function);
    assert_eq!(rig.gpu.look(&mut look).unwrap().pixels, [7], "the VGA is seen again");
    assert_eq!(rig.gpu.mode(), Mode::Text { columns: 80, rows: 25 });
}

#[test]
fn bytes_beyond_the_backing_leave_pixels_as_they_are() {
    let rig = rig();
    rig.driver.put(PIXELS, &[0x55; 64]);
    assert_eq!((rig.create(1, 2, 4, 4), rig.attach(1, &[(PIXELS, 22)])), (OK, OK));
    assert_eq!(rig.transfer(1, [0, 0, 4, 4], 0), OK);
    assert_eq!(rig.transfer(1, [0, 0, 4, 4], u64::MAX - 3), OK);
    assert_eq!(rig.show(0, 1, [0, 0, 4, 4]), OK);
    let frame = rig.gpu.frame();
    let expected: Vec<_> = (0..16)
        .map(|n| {
            if n < 5 {
                0x55_5555
            } else if n == 5 {
                0x00_5555
            } else {
                0
            }
        })
        .collect();
    assert_eq!(frame.pixels, expected);
}

#[test]
fn formats_are_named_by_their_bytes() {
    // The place of red, green and blue among the bytes.
    for (number, red, green, blue) in [
        (1, 2, 1, 0),
        (2, 2, 1, 0),
        (3, 1, 2, 3),
        (4, 1, 2, 3),
        (67, 0, 1, 2),
        (68, 3, 2, 1),
        (121, 3, 2, 1),
        (134, 0, 1, 2),
    ] {
        let format = Format::of(number).unwrap();
        let mut pixel = [0xcc; 4];
        (pixel[red], pixel[green], pixel[blue]) = (0x12, 0x34, 0x56);
        assert_eq!(format.colour(pixel), 0x12_3456, "{number}");
        assert_eq!(format.colour_and_alpha(pixel), 0xcc12_3456, "{number}");
    }
    assert!([0, 5, 66, 69, u32::MAX].into_iter().all(|number| Format::of(number).is_none()));
}

#[test]
fn a_cursor_is_drawn_over_the_picture() {
    let rig = rig();
    rig.shown(1, 100, 80);
    let mut look = Look::default();
    let plain = rig.gpu.look(&mut look).unwrap();
    // Red, half of it through; but the first column, which covers nothing.
    let image: Vec<_> = (0..64 * 64).map(|n| if n % 64 == 0 { 0 } else { 0x80_80_00_00u32 }).collect();
    rig.driver.put(PIXELS, &bytes(&image));
    // As Linux makes it, in a format whose fourth byte is said to be unused.
    assert_eq!((rig.create(2, 2, 64, 64), rig.attach(2, &[(PIXELS, 64 * 64 * 4)])), (OK, OK));
    assert_eq!(rig.transfer(2, [0, 0, 64, 64], 0), OK);
    assert_eq!(rig.gpu.look(&mut look), None);
    assert_eq!(rig.cursor(command::UPDATE_CURSOR, 10, 20, 2)[..4], OK.to_le_bytes());
    let frame = rig.gpu.look(&mut look).unwrap();
    for (x, y, inside) in [(10, 20, false), (11, 20, true), (73, 79, true), (74, 79, false), (11, 19, false)] {
        let below = plain.pixel(x, y);
        let dim = |shift: u32| ((below >> shift & 0xff) * 0x7f / 0xff) << shift;
        let expected = if inside { 0x80_0000 + dim(8) + dim(0) } else { below };
        assert_eq!(frame.pixel(x, y), expected, "{x} {y}");
    }
    // Beyond the edges there is nothing to draw on. Drivers need not leave room for an answer.
    let request = bytes(&[command::MOVE_CURSOR, 0, 0, 0, 0, 0, 0, -60i32 as u32, 78, 0]);
    assert_eq!(rig.send(CURSOR, &request, 0), []);
    let frame = rig.gpu.look(&mut look).unwrap();
    let drawn = (0..8000).filter(|n| frame.pixels[*n] != plain.pixels[*n]).collect::<Vec<_>>();
    assert_eq!(drawn, [7800, 7801, 7802, 7803, 7900, 7901, 7902, 7903]);
    for (x, y) in [(i32::MIN, i32::MIN), (i32::MAX, i32::MAX), (100, 0), (0, 80)] {
        rig.cursor(command::MOVE_CURSOR, x, y, 0);
        assert_eq!(rig.gpu.look(&mut look).unwrap(), plain);
    }
    // Its image is the one that it was when it was given.
    rig.cursor(command::MOVE_CURSOR, 0, 0, 0);
    assert_eq!(rig.run(command::RESOURCE_UNREF, &[2, 0]), OK);
    assert_ne!(rig.gpu.frame(), plain);
    for (resource, expected) in [(2, response::ERR_INVALID_RESOURCE_ID), (1, response::ERR_INVALID_PARAMETER), (0, OK)]
    {
        assert_eq!(rig.cursor(command::UPDATE_CURSOR, 0, 0, resource)[..4], expected.to_le_bytes());
    }
    assert_eq!(rig.gpu.frame(), plain, "it is hidden");
    assert_eq!(rig.cursor(command::GET_EDID, 0, 0, 0)[..4], response::ERR_UNSPEC.to_le_bytes());
    let elsewhere = bytes(&[command::MOVE_CURSOR, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(rig.send(CURSOR, &elsewhere, 24)[..4], response::ERR_INVALID_SCANOUT_ID.to_le_bytes());
}

#[test]
fn what_makes_no_sense_is_refused() {
    use command::*;
    use response::*;
    let rig = rig();
    rig.shown(1, 32, 16);
    let picture = rig.gpu.frame();
    let refused: &[(u32, &[u32], u32)] = &[
        (0, &[], ERR_UNSPEC),
        (0x108, &[0, 0], ERR_UNSPEC),
        (UPDATE_CURSOR, &[0; 10], ERR_UNSPEC),
        (u32::MAX, &[], ERR_UNSPEC),
        (GET_EDID, &[0], ERR_UNSPEC),
        (RESOURCE_CREATE_2D, &[2, 1, 4], ERR_UNSPEC),
        (RESOURCE_CREATE_2D, &[0, 1, 4, 4], ERR_INVALID_RESOURCE_ID),
        (RESOURCE_CREATE_2D, &[1, 1, 4, 4], ERR_INVALID_RESOURCE_ID),
        (RESOURCE_CREATE_2D, &[2, 9, 4, 4], ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, &[2, 1, 0, 4], ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, &[2, 1, 4, 0], ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, &[2, 1, u32::MAX, u32::MAX], ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, &[2, 1, 0x4000_0000, 4], ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, &[2, 1, 16_384, 16_384], ERR_OUT_OF_MEMORY),
        (RESOURCE_UNREF, &[2, 0], ERR_INVALID_RESOURCE_ID),
        (RESOURCE_UNREF, &[0, 0], ERR_INVALID_RESOURCE_ID),
        (SET_SCANOUT, &[0, 0, 32, 16, 1, 1], ERR_INVALID_SCANOUT_ID),
        (SET_SCANOUT, &[0, 0, 32, 16, u32::MAX, 0], ERR_INVALID_SCANOUT_ID),
        (SET_SCANOUT, &[0, 0, 32, 16, 0, 9], ERR_INVALID_RESOURCE_ID),
        (SET_SCANOUT, &[0, 0, 33, 16, 0, 1], ERR_INVALID_PARAMETER),
        (SET_SCANOUT, &[0, 1, 32, 16, 0, 1], ERR_INVALID_PARAMETER),
        (SET_SCANOUT, &[0, 0, 0, 16, 0, 1], ERR_INVALID_PARAMETER),
        (SET_SCANOUT, &[u32::MAX, u32::MAX, 2, 2, 0, 1], ERR_INVALID_PARAMETER),
        (RESOURCE_FLUSH, &[0, 0, 32, 17, 1, 0], ERR_INVALID_PARAMETER),
        (RESOURCE_FLUSH, &[2, 0, u32::MAX, 1, 1, 0], ERR_INVALID_PARAMETER),
        (RESOURCE_FLUSH, &[0, 0, 1, 1, 3, 0], ERR_INVALID_RESOURCE_ID),
        (TRANSFER_TO_HOST_2D, &[31, 0, 2, 1, 0, 0, 1, 0], ERR_INVALID_PARAMETER),
        (TRANSFER_TO_HOST_2D, &[0, 0, 1, 1, 0, 0, 7, 0], ERR_INVALID_RESOURCE_ID),
        (TRANSFER_TO_HOST_2D, &[0, 0, 1, 1, 0, 0, 1], ERR_UNSPEC),
        (RESOURCE_ATTACH_BACKING, &[1, 1, PIXELS as u32, 0, 4, 0], ERR_UNSPEC),
        (RESOURCE_ATTACH_BACKING, &[7, 1, PIXELS as u32, 0, 4, 0], ERR_INVALID_RESOURCE_ID),
        (RESOURCE_ATTACH_BACKING, &[7, 2, PIXELS as u32, 0, 4, 0], ERR_UNSPEC),
        (RESOURCE_ATTACH_BACKING, &[7, 1 << 20, PIXELS as u32, 0, 4, 0], ERR_UNSPEC),
        (RESOURCE_ATTACH_BACKING, &[7, u32::MAX, PIXELS as u32, 0, 4, 0], ERR_UNSPEC),
        (RESOURCE_DETACH_BACKING, &[7, 0], ERR_INVALID_RESOURCE_ID),
    ];
    for (kind, words, expected) in refused {
        assert_eq!(rig.run(*kind, words), *expected, "{kind:#x} {words:?}");
    }
    // An empty transfer is one.
    assert_eq!(rig.transfer(1, [32, 16, 0, 0], 0), OK);
    assert_eq!(rig.create(2, 1, 4, 4), OK);
    let outside = [(4 << 20, 1), ((4 << 20) - 4, 8), (u64::MAX, 1), (u64::MAX - 1, u32::MAX), (0, u32::MAX)];
    for piece in outside {
        assert_eq!(rig.attach(2, &[(PIXELS, 4), piece]), ERR_UNSPEC, "{piece:x?}");
    }
    assert_eq!((rig.run(RESOURCE_DETACH_BACKING, &[2, 0]), rig.attach(2, &[])), (ERR_UNSPEC, OK));
    // Commands without a header, and answers without room.
    assert_eq!(rig.send(CONTROL, &[1; 23], 24)[..4], ERR_UNSPEC.to_le_bytes());
    assert_eq!(rig.send(CONTROL, &bytes(&[GET_DISPLAY_INFO, 0, 0, 0, 0, 0]), 5).len(), 5);
    assert_eq!(rig.send(CONTROL, &bytes(&[GET_DISPLAY_INFO, 0, 0, 0, 0, 0]), 0), []);
    assert_eq!((rig.driver.status(), rig.gpu.frame()), (15, picture));
}

#[test]
fn what_resources_take_is_bounded() {
    let rig = rig();
    let full = response::ERR_OUT_OF_MEMORY;
    assert_eq!(rig.create(1, 1, 8192, 8191), OK);
    assert_eq!(rig.create(2, 1, 8193, 1), full);
    assert_eq!(rig.create(2, 1, 8191, 1), OK);
    // Four bytes are left; a list takes more.
    assert_eq!((rig.attach(2, &[(0, 4)]), rig.attach(2, &[])), (full, OK));
    assert_eq!((rig.create(3, 1, 1, 1), rig.create(4, 1, 1, 1)), (OK, full));
    assert_eq!(rig.run(command::RESOURCE_UNREF, &[1, 0]), OK);
    assert_eq!((rig.run(command::RESOURCE_DETACH_BACKING, &[2, 0]), rig.attach(2, &[(0, 4), (8, 4)])), (OK, OK));
    assert_eq!(rig.create(1, 1, 8192, 8191), full);
    assert_eq!(rig.run(command::RESOURCE_DETACH_BACKING, &[2, 0]), OK);
    assert_eq!(rig.create(1, 1, 8192, 8191), OK);
    // A reset gives all of it back.
    rig.driver.start(0);
    assert_eq!(rig.gpu.volatile.lock().bytes, 0);
    // There are not more than so many, either.
    for id in 1..=MOST_RESOURCES as u32 {
        rig.gpu.volatile.lock().resources.insert(
            id,
            Resource { format: Format::of(1).unwrap(), size: [1, 1], pixels: Arc::new(vec![0; 4]), backing: None },
        );
    }
    assert_eq!(rig.create(1 << 20, 1, 1, 1), full);
}

#[test]
fn the_most_pieces_that_there_may_be() {
    let rig = rig();
    assert_eq!(rig.create(1, 1, 64, 64), OK);
    let list = 0x20_0000;
    for index in 0..=u64::from(MOST_ENTRIES) {
        rig.driver.put(list + index * 16, &[(PIXELS).to_le_bytes(), 1u64.to_le_bytes()].concat());
    }
    let with = |entries: u32| {
        rig.driver.put(DATA, &bytes(&[command::RESOURCE_ATTACH_BACKING, 0, 0, 0, 0, 0, 1, entries]));
        rig.driver.submit(0, 0, &[(DATA, 32, false), (list, entries * 16, false), (ANSWER, 24, true)]);
        rig.driver.complete(0);
        u32::from_le_bytes(rig.driver.get(ANSWER, 4).try_into().unwrap())
    };
    assert_eq!(with(MOST_ENTRIES + 1), response::ERR_UNSPEC);
    assert_eq!(with(MOST_ENTRIES), OK);
    rig.driver.put(PIXELS, &[9]);
    assert_eq!((rig.transfer(1, [0, 0, 64, 64], 0), rig.show(0, 1, [0, 0, 64, 64])), (OK, OK));
    assert_eq!(rig.gpu.frame().pixels, [0x09_0909; 4096]);
}

#[test]
fn resources_may_lie_in_the_video_memory() {
    const VIDEO: u64 = 1 << 20;
    const PLACE: u64 = 0xd000_0000;
    let ranges = [(GuestAddress(0), 4 << 20), (GuestAddress(NOWHERE), VIDEO as usize)];
    let memory = GuestMemory::from_ranges(&ranges).unwrap();
    let video = VideoMemory::new(memory.clone(), NOWHERE, VIDEO).unwrap();
    let bar = MemoryMapping::new(Arc::new(FixedMemory), 1, VIDEO, Vec::new());
    let rig = rig_with(memory, Some(video.aperture(bar.place())));
    video.write(VIDEO - 16, &bytes(&[1, 2, 3, 4]));
    rig.driver.put(PIXELS, &bytes(&[5, 6]));
    assert_eq!(rig.create(1, 2, 3, 2), OK);
    let pieces = [(PLACE + VIDEO - 16, 16), (PIXELS, 8)];
    assert_eq!(rig.attach(1, &pieces), response::ERR_UNSPEC, "the BAR is nowhere");
    bar.set(Some(PLACE));
    for outside in [(PLACE + VIDEO - 4, 8), (PLACE - 4, 8), (PLACE + VIDEO, 1), (NOWHERE, 4), (u64::MAX, u32::MAX)] {
        assert_eq!(rig.attach(1, &[outside]), response::ERR_UNSPEC, "{outside:x?}");
    }
    assert_eq!((rig.attach(1, &pieces), rig.show(0, 1, [0, 0, 3, 2])), (OK, OK));
    assert_eq!(rig.transfer(1, [0, 0, 3, 2], 0), OK);
    assert_eq!(rig.gpu.frame().pixels, [1, 2, 3, 4, 5, 6]);
    // The bytes are those that it was given, wherever the BAR goes; and it can be saved.
    bar.set(None);
    let saved = VirtioDevice::save(&*rig.gpu);
    rig.gpu.restore(&saved).unwrap();
    assert!(VirtioDevice::save(&*rig.gpu) == saved);
    video.write(VIDEO - 4, &bytes(&[9]));
    assert_eq!((rig.transfer(1, [0, 0, 3, 2], 0), rig.flush(1, [0, 0, 3, 2])), (OK, OK));
    assert_eq!(rig.gpu.frame().pixels, [1, 2, 3, 9, 5, 6]);
    // A machine without that memory is another one.
    assert!(self::rig().gpu.restore(&saved).is_err());
}

#[test]
fn a_wish_for_another_size_is_told_to_the_driver() {
    let monitor = Monitor::new();
    let rig = rig();
    let face: Arc<dyn Screen> = rig.gpu.clone();
    monitor.connect(Arc::downgrade(&face));
    let function = &rig.driver.function;
    let size = || {
        let (_, info) = rig.command(command::GET_DISPLAY_INFO, &[]);
        let (_, body) = rig.command(command::GET_EDID, &[0, 0]);
        let side = |at: usize| [info[at], info[at + 1]].map(u16::from);
        let size = [side(8), side(12)].map(|[low, high]| low | high << 8);
        assert_eq!(body[8..136], edid::block(size));
        size
    };
    let told = || rig.driver.config(0, 4) as u32;
    let generation = || rig.driver.read(common::GENERATION, 1);
    // Whether the configuration's interrupt has come since this was last asked.
    let interrupted = || rig.driver.isr() & 2 != 0;
    let before = generation();
    assert_eq!(monitor.resize([1000, 700]), Resizing::Told);
    wait_for("the interrupt", interrupted);
    assert_eq!((told(), rig.driver.config(4, 4)), (EVENT_DISPLAY, 0));
    assert_ne!(generation(), before);
    assert_eq!(size(), [1000, 700]);
    // It is cleared by ones, by whatever access.
    rig.driver.write(DEVICE_OFFSET + 4, 4, 0xffff_fffe);
    rig.driver.write(DEVICE_OFFSET, 4, 1);
    assert_eq!(told(), EVENT_DISPLAY);
    rig.driver.write(DEVICE_OFFSET + 4, 1, 1);
    assert_eq!(told(), 0);
    // The guest shows something else: it is told again.
    assert_eq!(monitor.resize([1000, 700]), Resizing::Told);
    wait_for("the event", || told() == EVENT_DISPLAY);
    wait_for("the interrupt", interrupted);
    assert_eq!(size(), [1000, 700]);
    // Someone wishes for something else before the event of the first wish is cleared: another one comes then.
    assert_eq!(monitor.resize([320, 200]), Resizing::Told);
    rig.run(command::GET_DISPLAY_INFO, &[]);
    assert!(!interrupted());
    rig.driver.write(DEVICE_OFFSET + 4, 4, 1);
    wait_for("the event", || told() == EVENT_DISPLAY);
    wait_for("the interrupt", interrupted);
    assert_eq!(size(), [320, 200]);
    rig.driver.write(DEVICE_OFFSET + 4, 4, 1);
    // The same again, once it is shown, and what can't be, is no news.
    rig.shown(1, 320, 200);
    assert_eq!(monitor.resize([320, 200]), Resizing::Told);
    assert_eq!(monitor.resize([10_000, 700]), Resizing::Impossible);
    rig.run(command::GET_DISPLAY_INFO, &[]);
    assert_eq!((told(), interrupted()), (0, false));
    // During a pause it waits, and is saved.
    function.pause();
    assert_eq!(monitor.resize([640, 480]), Resizing::Told);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((told(), interrupted()), (0, false));
    let saved = function.save();
    function.restore(&saved).unwrap();
    assert!(function.save() == saved);
    function.resume();
    wait_for("the event", || told() == EVENT_DISPLAY);
    wait_for("the interrupt", interrupted);
    assert_eq!(size(), [640, 480]);
    // A state that goes on where the monitor is another one by now.
    rig.driver.write(DEVICE_OFFSET + 4, 4, 1);
    function.pause();
    let saved = function.save();
    assert_eq!(monitor.resize([1111, 444]), Resizing::Told);
    function.restore(&saved).unwrap();
    function.resume();
    wait_for("the event", || told() == EVENT_DISPLAY);
    assert_eq!(size(), [1111, 444]);
    // A reset forgets the event, not the monitor.
    rig.driver.start(0);
    assert_eq!((told(), size()), (0, [1111, 444]));
    // Before there is a driver, nobody is told, and it will find it.
    ResetDevice::reset(&**function);
    assert_eq!(monitor.resize([800, 600]), Resizing::Told);
    assert!(!rig.gpu.connector.lock().announce);
}

#[test]
fn nobody_waits_for_a_picture_to_be_drawn() {
    let rig = rig();
    rig.shown(1, 20, 10);
    let mut look = Look::default();
    // Someone is about to draw.
    let shown = rig.gpu.shown(&mut look).unwrap();
    let before = rig.gpu.frame();
    rig.driver.put(PIXELS, &bytes(&[0x77; 200]));
    assert_eq!((rig.transfer(1, [0, 0, 20, 10], 0), rig.flush(1, [0, 0, 20, 10])), (OK, OK));
    let after = rig.gpu.look(&mut look).unwrap();
    assert_eq!(after.pixels, [0x77; 200]);
    ResetDevice::reset(&*rig.driver.function);
    assert_eq!(rig.gpu.volatile.lock().bytes, 0);
    assert_eq!(shown.draw(), before, "what is drawn is what was seen then");
}

#[test]
fn state_is_restored_with_what_is_seen() {
    let rig = rig();
    let function = &rig.driver.function;
    rig.shown(1, 100, 80);
    assert_eq!((rig.create(2, 67, 64, 64), rig.cursor(command::UPDATE_CURSOR, 3, -4, 2).len()), (OK, 24));
    assert_eq!(rig.create(3, 121, 3, 3), OK);
    // Nothing more is done, so that what is in the rings is not done again.
    function.pause();
    let (saved, seen) = (function.save(), rig.gpu.frame());
    ResetDevice::reset(&**function);
    let mut look = Look::default();
    assert!(function.save() != saved && rig.gpu.look(&mut look).unwrap() != seen);
    function.restore(&saved).unwrap();
    assert!(function.save() == saved);
    assert!(rig.gpu.look(&mut look).as_ref() == Some(&seen), "whoever has looked before sees it");
    // Another machine takes it, too; the guest's memory is saved elsewhere.
    let other = self::rig();
    other.driver.function.pause();
    other.driver.function.restore(&saved).unwrap();
    assert!(other.driver.function.save() == saved && other.gpu.frame() == seen);
    assert_eq!(other.gpu.volatile.lock().bytes, rig.gpu.volatile.lock().bytes);
    assert_eq!(other.gpu.volatile.lock().resources.len(), 3);
}

#[test]
fn a_state_that_makes_no_sense_is_refused() {
    let rig = rig();
    rig.shown(1, 4, 4);
    let record = VirtioDevice::save(&*rig.gpu);
    let sound: GpuState = lodge_savestate::from_record(&record).unwrap();
    rig.gpu.restore(&record).unwrap();
    let wrong: &[fn(&mut GpuState)] = &[
        |state| state.resources[0].id = 0,
        |state| state.resources.push(state.resources[0].clone()),
        |state| state.resources[0].width = 5,
        |state| (state.resources[0].width, state.resources[0].pixels) = (0, Vec::new()),
        |state| state.resources[0].format = 5,
        |state| state.resources[0].backing = Some(vec![(1 << 40, 4)]),
        |state| state.resources[0].backing = Some(vec![(0, 4); MOST_ENTRIES as usize + 1]),
        |state| state.resources.clear(),
        |state| state.scanout.as_mut().unwrap().area.x = 1,
        |state| state.scanout.as_mut().unwrap().area.width = 0,
        |state| state.size = Some([0, 1]),
        |state| state.size = Some([u32::MAX; 2]),
        |state| state.cursor.image = vec![0; 7],
        |state| state.preferred = Some([0, 600]),
        |state| state.events = 2,
    ];
    for (number, change) in wrong.iter().enumerate() {
        let mut state = sound.clone();
        change(&mut state);
        assert!(rig.gpu.restore(&lodge_savestate::to_record(&state)).is_err(), "{number}");
        assert!(VirtioDevice::save(&*rig.gpu) == record, "{number}");
    }
}

#[test]
fn colours_stay_in_bounds() {
    // Not multiplied by alpha, as a driver should have done.
    let rig = rig();
    rig.driver.put(PIXELS, &bytes(&[0xffff_ffff; 64 * 64]));
    rig.shown(1, 64, 64);
    let frame = |image: u32| {
        let mut frame = Frame { width: 64, height: 64, pixels: vec![0xff_ffff; 64 * 64] };
        CursorState { x: 0, y: 0, image: image.to_le_bytes().repeat(64 * 64) }.draw(&mut frame);
        frame.pixels[100]
    };
    assert_eq!([frame(0x01ff_ffff), frame(0x00ff_0000), frame(0xff00_0000 | RED)], [0xff_ffff, 0xff_ffff, RED]);
}
