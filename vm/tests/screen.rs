//! The graphics card under real firmware, on a real engine: SeaBIOS (Debian's package `seabios`) runs the card's own BIOS,
//! and a boot sector draws through both.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use lodge_backend::{Disk, RawDisk};
use lodge_display::{Frame, Mode, Monitor};
use lodge_engine_api::Mirroring;
use lodge_vm::{
    Attached, Backends, Boot, BootOrder, Bus, Config, Firmware, OnReboot, Outcome, VIDEO_MEMORY, Vm, engines,
};

/// How long a machine may take for one thing, on a slow and busy host.
const PATIENCE: Duration = Duration::from_secs(20);
const FOLDER: &str = "/usr/share/seabios";

fn firmware(file: &str) -> PathBuf {
    let path = Path::new(FOLDER).join(file);
    assert!(path.is_file(), "{} is missing; the package `seabios` brings it", path.display());
    path
}

/// A machine with firmware and a card, that boots from this sector if there is one.
fn start(sector: Option<&[u8]>) -> (Vm, Arc<Monitor>) {
    let config = Config {
        machine: Default::default(),
        memory: 64 << 20,
        vcpus: 1,
        boot: Boot::Firmware(Firmware {
            image: firmware("bios-256k.bin"),
            order: BootOrder::default(),
            serial_console: false,
            kernel: None,
        }),
        display: false,
        vga_bios: std::fs::read(firmware("vgabios-stdvga.bin")).unwrap(),
        graphics: lodge_vm::GraphicsCard::Standard,
        tablet: false,
        video_memory: VIDEO_MEMORY,
        sound: None,
        debug_exit: true,
        on_reboot: OnReboot::End,
        timeout: Some(2 * PATIENCE),
        code_cache: 16 << 20,
        mirroring: Mirroring::Never,
        kept_code: None,
    };
    let disks = sector.map(|code| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut image = vec![0; 1 << 20];
        image[..code.len()].copy_from_slice(code);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        file.write_all(&image).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RawDisk::open(file.path(), true).unwrap());
        Attached { bus: Bus::Ide, disk }
    });
    let monitor = Monitor::new();
    let backends = Backends::new(Vec::new(), disks.into_iter().collect()).with_monitor(monitor.clone());
    let engine = engines::all().remove(0);
    (Vm::start(config, engine, backends).unwrap(), monitor)
}

/// Waits until the monitor shows what it shall; otherwise says what it shows.
fn wait(monitor: &Monitor, what: &str, shown: impl Fn(&Monitor) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !shown(monitor) {
        assert!(
            Instant::now() < until,
            "{what} is not shown: {:?} {}",
            monitor.mode(),
            monitor.text().unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(vm: Vm) {
    vm.handle().quit();
    let outcome = vm.wait().unwrap().outcome;
    assert!(matches!(outcome, Outcome::Quit), "{outcome:?}");
}

#[test]
fn the_firmware_shows_its_banner() {
    let (vm, monitor) = start(None);
    wait(&monitor, "the banner", |monitor| monitor.text().is_some_and(|text| text.contains("SeaBIOS (version")));
    assert_eq!(monitor.mode(), Some(Mode::Text { columns: 80, rows: 25 }));
    wait(&monitor, "the end", |monitor| monitor.text().is_some_and(|text| text.contains("No bootable device")));
    // What is drawn is light grey on black, in the font that the card's BIOS has loaded.
    let picture = monitor.picture();
    let frame = &picture.frame;
    assert_eq!((frame.width, frame.height), (720, 400));
    let colours = frame.pixels.iter().filter(|pixel| ![0, 0xaa_aaaa].contains(*pixel)).count();
    assert_eq!(colours, 0);
    let lit = frame.pixels.iter().filter(|pixel| **pixel == 0xaa_aaaa).count();
    assert!((500..20_000).contains(&lit), "{lit} pixels are lit");
    end(vm);
}

/// Assembles a boot sector.
fn sector(write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Vec<u8> {
    let mut code = CodeAssembler::new(16).unwrap();
    write(&mut code).unwrap();
    let code = code.assemble(0x7c00).unwrap();
    assert!(code.len() <= 510, "{} bytes", code.len());
    code
}

/// Stops for good, with interrupts on.
fn rest(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    let mut here = a.create_label();
    a.set_label(&mut here)?;
    a.hlt()?;
    a.jmp(here)
}

#[test]
fn a_program_draws_in_256_colours() {
    let code = sector(|a| {
        a.mov(ax, 0x13)?;
        a.int(0x10)?;
        a.mov(ax, 0xa000)?;
        a.mov(es, ax)?;
        // Pixel n of the first rows has colour n & 255.
        a.xor(di, di)?;
        let mut next = a.create_label();
        a.set_label(&mut next)?;
        a.mov(ax, di)?;
        a.stosb()?;
        a.cmp(di, 320 * 8)?;
        a.jb(next)?;
        rest(a)
    });
    let (vm, monitor) = start(Some(&code));
    // The standard palette: 2 is green, 4 red, 15 white; 16 to 31 are greys.
    let drawn =
        |frame: &Frame| [4, 8, 30, 62].map(|x| frame.pixel(x, 0)) == [0x00_aa00, 0xaa_0000, 0xff_ffff, 0xff_ffff];
    wait(&monitor, "the picture", |monitor| {
        let picture = monitor.picture();
        (picture.frame.width, picture.frame.height) == (640, 400)
            && drawn(&picture.frame)
            && picture.frame.pixel(3 * 2, 14) != 0
    });
    assert_eq!(monitor.mode(), Some(Mode::Graphics { width: 640, height: 400, depth: 8 }));
    assert_eq!(monitor.text(), None);
    end(vm);
}

#[test]
fn a_program_draws_into_the_linear_frame_buffer() {
    const INFO: u16 = 0x0600;
    const TABLE: u16 = 0x7dc0;
    const POINTER: u16 = TABLE + 16;
    const LINEAR: i32 = 0x4144;
    let code = sector(|a| {
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        // Where mode 0x144, 1024x768 in 32 bits, has its frame buffer; and set it.
        a.mov(ax, 0x4f01)?;
        a.mov(cx, 0x144)?;
        a.mov(di, u32::from(INFO))?;
        a.int(0x10)?;
        a.mov(ax, 0x4f02)?;
        a.mov(bx, LINEAR)?;
        a.int(0x10)?;
        // Data segments of 4 GiB.
        a.cli()?;
        a.mov(bx, u32::from(POINTER))?;
        a.lgdt(ptr(bx))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        a.mov(bx, 8)?;
        a.mov(ds, bx)?;
        a.and(al, !1 & 0xff)?;
        a.mov(cr0, eax)?;
        a.xor(bx, bx)?;
        a.mov(ds, bx)?;
        a.mov(edi, dword_ptr(i32::from(INFO) + 0x28))?;
        // Pixel n is n times 5, read back and written again with the upper bit of red turned.
        a.xor(ecx, ecx)?;
        let mut next = a.create_label();
        a.set_label(&mut next)?;
        a.lea(eax, dword_ptr(ecx + ecx * 4))?;
        a.mov(dword_ptr(edi + ecx * 4), eax)?;
        a.xor(dword_ptr(edi + ecx * 4), 0x80_0000)?;
        a.inc(ecx)?;
        a.cmp(ecx, 1024 * 768)?;
        a.jb(next)?;
        a.sti()?;
        rest(a)
    });
    // The table of segments, and where it is.
    let mut code = code;
    code.resize(usize::from(TABLE - 0x7c00), 0);
    code.extend([0, 0x00cf_9300_0000_ffffu64].iter().flat_map(|segment| segment.to_le_bytes()));
    code.extend([15, TABLE, 0].iter().flat_map(|word| word.to_le_bytes()));
    let (vm, monitor) = start(Some(&code));
    wait(&monitor, "the picture", |monitor| {
        let picture = monitor.picture();
        picture.frame.width == 1024 && picture.frame.pixel(1023, 767) != 0
    });
    assert_eq!(monitor.mode(), Some(Mode::Graphics { width: 1024, height: 768, depth: 32 }));
    let picture = monitor.picture();
    let wrong = (0u32..).zip(&picture.frame.pixels).find(|(n, pixel)| **pixel != ((n * 5) ^ 0x80_0000) & 0xff_ffff);
    assert_eq!((picture.frame.height, wrong), (768, None));
    end(vm);
}

/// A machine whose boot sector sets a mode by the card's BIOS and draws a pixel of colour 1 at column 100 of row 50, or
/// writes "Hi" as text.
fn in_mode(mode: u32, text: bool) -> (Vm, Arc<Monitor>) {
    let code = sector(|a| {
        a.mov(ax, mode)?;
        a.int(0x10)?;
        if text {
            for character in *b"Hi" {
                a.mov(ax, 0x0e00 | u32::from(character))?;
                a.mov(bx, 7)?;
                a.int(0x10)?;
            }
        } else {
            a.mov(ax, 0x0c01)?;
            a.xor(bx, bx)?;
            a.mov(cx, 100)?;
            a.mov(dx, 50)?;
            a.int(0x10)?;
        }
        rest(a)
    });
    start(Some(&code))
}

#[test]
fn every_mode_of_the_cards_bios_is_shown() {
    // Mode, columns, rows, size of the picture.
    let texts = [(0, 40, 25, 720), (1, 40, 25, 720), (2, 80, 25, 720), (3, 80, 25, 720), (7, 80, 25, 720)];
    for (mode, columns, rows, width) in texts {
        let (vm, monitor) = in_mode(mode, true);
        let expected = Some(Mode::Text { columns, rows });
        wait(&monitor, "a text mode", |monitor| {
            monitor.mode() == expected && monitor.text().is_some_and(|text| text.starts_with("Hi\n"))
        });
        assert_eq!((monitor.picture().frame.width, monitor.picture().frame.height), (width, 400), "mode {mode:#x}");
        end(vm);
    }
    // Mode, resolution, size of the picture, depth.
    let graphics = [
        (0x04, (320, 200), (640, 400), 2),
        (0x05, (320, 200), (640, 400), 2),
        (0x06, (640, 200), (640, 400), 4),
        (0x0d, (320, 200), (640, 400), 4),
        (0x0e, (640, 200), (640, 400), 4),
        (0x0f, (640, 350), (640, 350), 4),
        (0x10, (640, 350), (640, 350), 4),
        (0x11, (640, 480), (640, 480), 4),
        (0x12, (640, 480), (640, 480), 4),
        (0x13, (320, 200), (640, 400), 8),
    ];
    for (mode, (width, height), shown, depth) in graphics {
        let (vm, monitor) = in_mode(mode, false);
        let expected = Some(Mode::Graphics { width: shown.0, height: shown.1, depth });
        let (across, down) = (shown.0 / width, shown.1 / height);
        // The one pixel, and no other. While the mode is being set there may be others.
        let drawn =
            |(at, pixel): (usize, &u32)| (*pixel != 0) == ((at % shown.0 / across, at / shown.0 / down) == (100, 50));
        wait(&monitor, &format!("the pixel in mode {mode:#x}"), |monitor| {
            monitor.mode() == expected && monitor.picture().frame.pixels.iter().enumerate().all(drawn)
        });
        end(vm);
    }
}
