use std::io::{IoSliceMut, Write};
use std::time::{Duration, Instant};

use lodge_backend::RawDisk;
use lodge_bus::{IrqSink, MockClock, PortBus};
use lodge_chipset::Dma;
use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::*;

#[derive(Default)]
struct Line(Mutex<bool>);

impl IrqSink for Line {
    fn set_level(&self, _: u32, high: bool) {
        *self.0.lock() = high;
    }
}

struct Bench {
    ports: PortBus,
    memory: GuestMemory,
    clock: Arc<MockClock>,
    timers: Timers,
    line: Arc<Line>,
    floppy: Arc<Floppy>,
    tray: Arc<Tray>,
    _file: tempfile::NamedTempFile,
}

fn image(kib: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..kib << 10).map(|n| (n / 512) as u8).collect();
    file.write_all(&content).unwrap();
    file
}

fn bench() -> Bench {
    let file = image(1440);
    let tray = Tray::new(Some(Arc::new(RawDisk::open(file.path(), false).unwrap())));
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let dma = Dma::new(memory.clone());
    let clock = Arc::new(MockClock::new());
    let timers = Timers::mock(clock.clone());
    let line = Arc::new(Line::default());
    let irq = IrqLine::new(line.clone(), INTERRUPT);
    let floppy = Floppy::new([Some(tray.clone()), None], dma.channel(CHANNEL), irq, &timers).unwrap();
    let ports = PortBus::new();
    for device in [floppy.clone().port().unwrap(), dma.port().unwrap()] {
        ports.attach(&device).unwrap();
    }
    let bench = Bench { ports, memory, clock, timers, line, floppy, tray, _file: file };
    bench.start();
    bench
}

impl Bench {
    fn outb(&self, port: u16, value: u8) {
        self.ports.write(port, Width::Byte, value.into());
    }

    fn inb(&self, port: u16) -> u8 {
        self.ports.read(port, Width::Byte) as u8
    }

    /// Takes the controller out of reset and asks what the four drives want.
    fn start(&self) {
        self.outb(0x3f2, 0);
        self.outb(0x3f2, NOT_RESET | DMA_GATE | MOTOR);
        assert!(*self.line.0.lock());
        for drive in 0..4 {
            assert_eq!(self.command(&[8]), [0xc0 | drive, 0]);
        }
        self.outb(0x3f7, 0);
        self.command(&[3, 0xdf, 2]);
    }

    /// A reset in whatever state.
    fn start_blindly(&self) {
        self.outb(0x3f2, 0);
        self.outb(0x3f2, NOT_RESET | DMA_GATE | MOTOR);
    }

    fn command(&self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            assert_eq!(self.inb(0x3f4) & (RQM | DIO), RQM);
            self.outb(0x3f5, *byte);
        }
        self.result()
    }

    fn result(&self) -> Vec<u8> {
        let mut result = Vec::new();
        while self.inb(0x3f4) & (RQM | DIO) == RQM | DIO {
            result.push(self.inb(0x3f5));
        }
        result
    }

    /// Lets drives have their time until there is an interrupt.
    fn settle(&self) {
        assert!(!*self.line.0.lock());
        self.until_interrupt();
    }

    fn until_interrupt(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !*self.line.0.lock() {
            assert!(Instant::now() < until, "no interrupt");
            self.timers.advance(&self.clock, 1_000_000);
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// What a transfer came to.
    fn wait(&self) -> Vec<u8> {
        self.settle();
        self.result()
    }

    fn seek(&self, cylinder: u8) {
        assert_eq!(self.command(&[0x0f, 0, cylinder]), []);
        assert_eq!(self.inb(0x3f4), RQM | 1, "it seeks");
        self.wait();
        assert_eq!(self.command(&[8]), [0x20, cylinder]);
        assert!(!*self.line.0.lock());
    }

    /// Programs DMA for so many bytes at 0x1000; `mode` is 0x46 to memory, 0x4a from it.
    fn dma(&self, mode: u8, count: usize) {
        let [low, high] = (count as u16 - 1).to_le_bytes();
        for (port, value) in
            [(0x0a, 6), (0x0c, 0), (0x0b, mode), (4, 0), (4, 0x10), (5, low), (5, high), (0x81, 0), (0x0a, 2)]
        {
            self.outb(port, value);
        }
    }

    fn at(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        bytes
    }

    fn sector(&self, number: u64) -> Vec<u8> {
        let mut data = vec![0; 512];
        self.tray.medium().unwrap().read_at(number * 512, &mut [IoSliceMut::new(&mut data)]).unwrap();
        data
    }
}

#[test]
fn sectors_are_read_by_dma() {
    let bench = bench();
    assert_eq!(bench.command(&[0x10]), [0x90]);
    bench.seek(1);
    bench.dma(0x46, 3 * 512);
    // Over both sides: sectors 18 of head 0, then 1 and 2 of head 1.
    assert_eq!(bench.command(&[0xe6, 0, 1, 0, 18, 2, 18, 0x1b, 0xff]), []);
    assert_eq!(bench.wait(), [4, 0, 0, 1, 1, 3, 2]);
    assert_eq!(bench.at(1536), [vec![53; 512], vec![54; 512], vec![55; 512]].concat());
    // Without a terminal count it ends at the last sector.
    bench.dma(0x46, 4 * 512);
    bench.command(&[0x46, 0, 1, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait(), [0x40, ST1_END, 0, 2, 0, 1, 2]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let bench = bench();
    bench.dma(0x46, 512);
    bench.command(&[0x46, 0, 1, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..3], [0x40, ST1_NO_DATA, ST2_WRONG_CYLINDER], "the head is elsewhere");
    bench.command(&[0x46, 0, 0, 0, 19, 2, 19, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..3], [0x40, ST1_NO_DATA, 0]);
    bench.outb(0x3f7, 2);
    bench.command(&[0x4a, 0]);
    assert_eq!(bench.wait()[..3], [0x40, ST1_NO_MARK, 0], "at another rate");
    bench.outb(0x3f7, 0);
    bench.command(&[0x4a, 0]);
    assert_eq!(bench.wait(), [0, 0, 0, 0, 0, 1, 2]);
    bench.command(&[0x4a, 1]);
    assert_eq!(bench.wait()[..2], [0x41, ST1_NO_MARK], "there is no second drive");
    assert_eq!(bench.command(&[0x07, 1]), []);
    bench.wait();
    assert_eq!(bench.command(&[8]), [0x71, 0]);
    assert_eq!(bench.command(&[8]), [0x80], "nothing has happened");
    assert_eq!(bench.command(&[0x1f]), [0x80]);
}

#[test]
fn sectors_are_written_and_tracks_formatted() {
    let bench = bench();
    bench.memory.write_slice(&[0xab; 1024], GuestAddress(0x1000)).unwrap();
    bench.dma(0x4a, 1024);
    bench.command(&[0x45, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait(), [0, 0, 0, 0, 0, 7, 2]);
    assert_eq!((bench.sector(4), bench.sector(5), bench.sector(6)), (vec![0xab; 512], vec![0xab; 512], vec![6; 512]));
    let headers: Vec<u8> = (1..=18).flat_map(|sector| [0, 1, sector, 2]).collect();
    bench.memory.write_slice(&headers, GuestAddress(0x1000)).unwrap();
    bench.dma(0x4a, headers.len());
    bench.command(&[0x4d, 4, 2, 18, 0x54, 0xf6]);
    assert_eq!(bench.wait()[..3], [4, 0, 0]);
    assert_eq!(
        (bench.sector(17)[0], bench.sector(18)[0], bench.sector(35)[0], bench.sector(36)[0]),
        (17, 0xf6, 0xf6, 36)
    );
    bench.tray.insert(Arc::new(RawDisk::open(image(1440).path(), true).unwrap())).unwrap();
    bench.dma(0x4a, 512);
    bench.command(&[0x45, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..2], [0x40, ST1_PROTECTED]);
}

#[test]
fn data_go_by_the_port_where_that_is_wanted() {
    let bench = bench();
    bench.command(&[3, 0xdf, 3]);
    bench.command(&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    bench.settle();
    let data: Vec<u8> = (0..1024)
        .map(|_| {
            assert_eq!(bench.inb(0x3f4), RQM | DIO | NON_DMA | BUSY);
            bench.inb(0x3f5)
        })
        .collect();
    assert!(*bench.line.0.lock(), "the end is an interrupt of its own");
    assert_eq!(data, [vec![16; 512], vec![17; 512]].concat());
    assert_eq!(bench.result(), [0x40, ST1_END, 0, 1, 0, 1, 2]);
    bench.command(&[0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]);
    bench.settle();
    (0..512).for_each(|_| bench.outb(0x3f5, 0x5a));
    bench.until_interrupt();
    assert_eq!(bench.result()[..2], [0x40, ST1_END]);
    assert_eq!(bench.sector(17), [0x5a; 512]);
}

#[test]
fn a_change_of_the_medium_is_seen() {
    let bench = bench();
    assert_eq!(bench.inb(0x3f7), CHANGED);
    bench.seek(1);
    assert_eq!(bench.inb(0x3f7), 0);
    bench.tray.eject().unwrap();
    bench.seek(0);
    assert_eq!(bench.inb(0x3f7), CHANGED, "a step does not help where there is none");
    bench.tray.insert(Arc::new(RawDisk::open(image(720).path(), true).unwrap())).unwrap();
    assert_eq!(bench.inb(0x3f7), CHANGED);
    bench.seek(1);
    assert_eq!(bench.inb(0x3f7), 0);
}

#[test]
fn dma_that_comes_late_is_waited_for() {
    let bench = bench();
    bench.command(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    bench.timers.advance(&bench.clock, 20_000_000);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!*bench.line.0.lock());
    bench.dma(0x46, 512);
    assert_eq!(bench.wait()[..3], [0, 0, 0]);
}

#[test]
fn drives_seek_at_the_same_time_and_other_commands_come_between() {
    let bench = bench();
    assert_eq!(bench.command(&[0x0f, 0, 40]), []);
    assert_eq!(bench.command(&[0x0f, 5, 3]), []);
    assert_eq!(bench.inb(0x3f4), RQM | 3);
    // What is asked meanwhile does not change where they go.
    assert_eq!(bench.command(&[0x04, 0]), [0x38]);
    assert_eq!(bench.command(&[8]), [0x80], "none has ended");
    bench.outb(0x3f5, 0x03);
    bench.timers.advance(&bench.clock, 100_000_000);
    assert_eq!(bench.inb(0x3f4), RQM | BUSY, "half a command");
    bench.outb(0x3f5, 0xdf);
    bench.outb(0x3f5, 2);
    assert_eq!(bench.command(&[8]), [0x20, 40]);
    assert!(*bench.line.0.lock(), "the second's interrupt follows the first's");
    assert_eq!(bench.command(&[8]), [0x25, 0]);
    // By so many cylinders: outwards, inwards.
    bench.command(&[0x8f, 0, 10]);
    bench.wait();
    assert_eq!(bench.command(&[8]), [0x20, 30]);
    bench.command(&[0xcf, 0, 4]);
    bench.wait();
    assert_eq!(bench.command(&[8]), [0x20, 34]);
    assert_eq!(bench.command(&[0x4a, 0]), []);
    assert_eq!(bench.wait()[3], 34);
}

#[test]
fn a_transfer_behind_a_seek_waits_for_it() {
    let bench = bench();
    bench.dma(0x46, 512);
    bench.command(&[0x0f, 0, 20]);
    bench.command(&[0x46, 0, 20, 0, 1, 2, 18, 0x1b, 0xff]);
    bench.settle();
    // The seek has ended; its cause is asked for when the transfer is done.
    let until = Instant::now() + Duration::from_secs(20);
    while bench.inb(0x3f4) & DIO == 0 {
        assert!(Instant::now() < until);
        bench.timers.advance(&bench.clock, 1_000_000);
        std::thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(bench.result()[..4], [0, 0, 0, 20]);
    assert_eq!(bench.command(&[8]), [0x20, 20]);
}

#[test]
fn sectors_are_verified_compared_and_told_by_their_marks() {
    let bench = bench();
    assert_eq!(bench.command(&[0x56, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]), []);
    assert_eq!(bench.wait(), [0, 0, 0, 1, 0, 1, 2]);
    bench.command(&[0x56, 0x80, 0, 0, 1, 2, 18, 0x1b, 3]);
    assert_eq!(bench.wait(), [0, 0, 0, 0, 0, 4, 2], "three sectors");
    // Sector 3 holds twos.
    bench.memory.write_slice(&[2; 18 * 512], GuestAddress(0x1000)).unwrap();
    bench.dma(0x4a, 18 * 512);
    bench.command(&[0x51, 0, 0, 0, 1, 2, 18, 0x1b, 1]);
    assert_eq!(bench.wait(), [0, 0, ST2_SCAN_HIT, 0, 0, 3, 2]);
    bench.dma(0x4a, 18 * 512);
    bench.command(&[0x51, 0, 0, 0, 4, 2, 18, 0x1b, 1]);
    assert_eq!(bench.wait()[..3], [0, 0, ST2_SCAN_MISS]);
    bench.dma(0x4a, 18 * 512);
    bench.command(&[0x5d, 0, 0, 0, 1, 2, 18, 0x1b, 2]);
    assert_eq!(bench.wait(), [0, 0, ST2_SCAN_HIT, 0, 0, 3, 2], "every second sector");
    // READ DELETED finds common marks only.
    bench.dma(0x46, 3 * 512);
    bench.command(&[0x4c, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait(), [0, 0, ST2_OTHER_MARK, 0, 0, 2, 2]);
    // READ TRACK begins with the first sector.
    bench.dma(0x46, 2 * 512);
    bench.command(&[0x42, 0, 0, 0, 9, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..3], [0, ST1_NO_DATA, 0]);
    assert_eq!(bench.at(1024), [vec![0; 512], vec![1; 512]].concat());
    // Single density is not there, and another head reads other tracks.
    bench.command(&[0x06, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..2], [0x40, ST1_NO_MARK]);
    bench.command(&[0x46, 4, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[1], ST1_NO_DATA);
}

#[test]
fn the_controller_tells_what_it_is() {
    let bench = bench();
    assert_eq!(bench.command(&[0x18]), [0x80], "no 82078");
    assert_eq!(bench.command(&[0x8e]), [0x80]);
    bench.command(&[0x13, 0, 0x57, 0]);
    bench.command(&[0x12, 0x84]);
    assert_eq!(bench.command(&[0x0e]), [0, 0, 0, 0, 0xdf, 2, 0, 4, 0x57, 0]);
    assert_eq!(bench.command(&[0x94]), [0x10]);
    bench.start();
    assert_eq!(bench.command(&[0x0e])[7..], [0x84, 0x57, 0], "locked");
    assert_eq!(bench.command(&[0x14]), [0]);
    bench.start();
    assert_eq!(bench.command(&[0x0e])[7..], [4, 0, 0]);
    // With CONFIGURE's bit each transfer seeks first.
    bench.command(&[0x13, 0, 0x57, 0]);
    bench.dma(0x46, 512);
    bench.command(&[0x46, 0, 33, 0, 1, 2, 18, 0x1b, 0xff]);
    assert_eq!(bench.wait()[..4], [0, 0, 0, 33]);
    // A reset by the data rate register ends by itself.
    bench.outb(0x3f4, 0x80);
    assert!(*bench.line.0.lock());
    assert_eq!(bench.command(&[8])[0], 0xc0);
}

#[test]
fn images_of_odd_sizes_are_refused() {
    let error = Geometry::of_file("a.img".as_ref(), 1_000_000).unwrap_err().to_string();
    assert!(error.starts_with("the floppy a.img has 1000000 bytes"), "{error}");
    assert!(error.ends_with("`truncate -s 1440K a.img`") && !error.contains('\n'), "{error}");
    assert_eq!(Geometry::of_file("a.img".as_ref(), 1200 << 10).unwrap().sectors, 15);
}

/// Whole commands with random bytes, random answers to data requests, resets and saved states.
#[test]
fn commands_at_random_do_no_harm() {
    let bench = bench();
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut random = |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 16) % most
    };
    let kinds = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 25, 29];
    for _ in 0..crate::testing::steps(20_000) {
        let options = [0x40, 0xc0, 0xe0, 0x00][random(4) as usize];
        bench.outb(0x3f5, kinds[random(kinds.len() as u64) as usize] | options);
        for _ in 0..9 {
            if bench.inb(0x3f4) & (RQM | DIO) == RQM {
                bench.outb(0x3f5, if random(3) == 0 { random(256) } else { random(4) } as u8);
            }
        }
        match random(12) {
            0 => bench.dma(0x46, 1 + random(4096) as usize),
            1 => bench.dma(0x4a, 1 + random(4096) as usize),
            2 => bench.outb(0x3f7, random(4) as u8),
            3 => bench.outb(0x3f2, NOT_RESET | DMA_GATE | MOTOR | random(4) as u8),
            4 if random(20) == 0 => bench.start_blindly(),
            5 if random(20) == 0 => {
                bench.floppy.pause();
                let saved = bench.floppy.save();
                bench.floppy.restore(&saved).unwrap();
                bench.floppy.resume();
            }
            _ => {}
        }
        bench.timers.advance(&bench.clock, 1_000_000);
        for _ in 0..random(2000) {
            match bench.inb(0x3f4) & (RQM | DIO | NON_DMA) {
                bits if bits & RQM == 0 => break,
                bits if bits & DIO != 0 => {
                    bench.inb(0x3f5);
                }
                bits if bits & NON_DMA != 0 => bench.outb(0x3f5, random(256) as u8),
                _ => break,
            }
        }
    }
    bench.floppy.reset();
    bench.start();
}

#[test]
fn what_a_guest_does_at_random_does_no_harm() {
    let bench = bench();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..crate::testing::steps(1_000_000) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let port = 0x3f0 + ((seed >> 8) % 8) as u16;
        if seed & 1 == 0 {
            bench.inb(port);
        } else {
            bench.outb(port, (seed >> 16) as u8);
        }
        if seed.is_multiple_of(64) {
            bench.timers.advance(&bench.clock, 1_000_000);
        }
    }
    bench.floppy.reset();
    bench.start();
}

#[test]
fn state_is_restored() {
    let bench = bench();
    bench.seek(7);
    bench.dma(0x46, 512);
    bench.command(&[0x46, 0, 7, 0, 1, 2, 18, 0x1b, 0xff]);
    let saved = bench.floppy.save();
    bench.floppy.reset();
    assert_ne!(bench.floppy.save(), saved);
    bench.floppy.restore(&saved).unwrap();
    assert_eq!(bench.wait()[..4], [0, 0, 0, 7]);
    // In the middle of a seek.
    bench.command(&[0x0f, 0, 9]);
    let saved = bench.floppy.save();
    bench.floppy.reset();
    bench.floppy.restore(&saved).unwrap();
    bench.wait();
    assert_eq!(bench.command(&[8]), [0x20, 9]);
    let broken = FloppyState { phase: Phase::Waiting, ..FloppyState::default() };
    assert!(bench.floppy.restore(&lodge_savestate::to_record(&broken)).is_err());
}
