//! The virtio GPU and the tablet: firmware has a VGA, Linux its own drivers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lodge_tests::{Controlled, PATIENCE, check_log, finish, guest, linux, linux_with, plain, with_firmware};

/// Pixels in a row and rows of what the monitor prefers.
const SIZE: [usize; 2] = [1920, 1080];

/// A VNC viewer that does nothing but point, and wish for another size.
struct Viewer(TcpStream);

impl Viewer {
    fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut version = [0; 12];
        stream.read_exact(&mut version).unwrap();
        stream.write_all(b"RFB 003.008\n").unwrap();
        let mut kinds = [0; 2];
        stream.read_exact(&mut kinds).unwrap();
        assert_eq!(kinds, [1, 1], "no password");
        stream.write_all(&[1]).unwrap();
        let mut result = [1; 4];
        stream.read_exact(&mut result).unwrap();
        assert_eq!(result, [0; 4]);
        stream.write_all(&[1]).unwrap();
        let mut start = [0; 24];
        stream.read_exact(&mut start).unwrap();
        let sides = [0, 2].map(|at| usize::from(u16::from_be_bytes([start[at], start[at + 1]])));
        assert_eq!(sides, SIZE);
        let name = u32::from_be_bytes([start[20], start[21], start[22], start[23]]);
        stream.read_exact(&mut vec![0; name as usize]).unwrap();
        Self(stream)
    }

    fn point(&mut self, buttons: u8, x: u16, y: u16) {
        let [x, y] = [x, y].map(u16::to_be_bytes);
        self.0.write_all(&[&[5, buttons][..], &x, &y].concat()).unwrap();
    }

    /// Wishes for a size; what came of it.
    fn resize(&mut self, width: u16, height: u16) -> u16 {
        const EXTENDED_SIZE: i32 = -308;
        let [width, height] = [width, height].map(u16::to_be_bytes);
        // It knows of sizes; the wish, with one screen; an update of one pixel, whatever it is.
        let encodings = [&[2, 0, 0, 1][..], &EXTENDED_SIZE.to_be_bytes()].concat();
        let wish = [&[251, 0][..], &width, &height, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &width, &height, &[0; 4]].concat();
        let update = [3, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        self.0.write_all(&[&encodings[..], &wish, &update].concat()).unwrap();
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0, "an update");
        let mut answer = None;
        for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
            let mut head = [0; 12];
            self.0.read_exact(&mut head).unwrap();
            let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
            if i32::from_be_bytes([head[8], head[9], head[10], head[11]]) != EXTENDED_SIZE {
                self.0.read_exact(&mut vec![0; 4 * usize::from(word(4)) * usize::from(word(6))]).unwrap();
                continue;
            }
            self.0.read_exact(&mut [0; 20]).unwrap();
            answer = answer.or((word(0) == 1).then_some(word(2)));
        }
        answer.expect("the wish was not answered")
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_bios_shows_grub_on_the_virtio_card() {
    let mut command = with_firmware();
    command.arg("--cdrom").arg(guest("media/grub-rescue.iso"));
    let vm = Controlled::unheard(command.args(["--memory", "64M", "--vga", "virtio", "--pointer", "tablet"]));
    let screen = vm.expect_on_screen("Memtest86+");
    assert!(screen.contains("GNU GRUB"), "{screen}");
    // A machine that is reset shows it again.
    assert_eq!(vm.ctl(&["key", "c"]).0, 0);
    vm.expect_on_screen("grub>");
    assert_eq!(vm.ctl(&["reset"]).0, 0);
    vm.expect_on_screen("Memtest86+");
    vm.quit();
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn uefi_firmware_has_a_driver_for_the_virtio_card() {
    let mut command = with_firmware();
    command.arg("--cdrom").arg(guest("media/grub-mkrescue.iso")).args(["--firmware", "uefi", "--vga", "virtio"]);
    let vm = Controlled::start(command.args(["--memory", "256M"]));
    // What firmware draws has a picture of its own in the middle.
    let [width, height] = SIZE;
    let until = Instant::now() + PATIENCE;
    loop {
        // It is not there at once.
        if vm.ctl(&["status"]).0 == 0 {
            let shown = vm.picture();
            let middle = shown.pixels.iter().skip(width * height / 2).take(width);
            if [shown.width, shown.height] == SIZE && middle.into_iter().any(|pixel| *pixel == 0x00ff_ffff) {
                break;
            }
        }
        assert!(Instant::now() < until, "nothing was drawn");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, output) = vm.vm.wait();
    assert_eq!(status, 0, "{output}");
    assert!(plain(&output).contains("lodge: grub on efi"), "{output}");
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn linux_draws_through_the_virtio_card_and_hears_the_tablet() {
    // Two rows of pixels twice (of one row alone Linux does not tell the card), and five events with eight words of time
    // before each.
    let script = "yes ABCD | tr -d \\\\n | head -c 15360 >/tmp/row; \
                  dd if=/tmp/row of=/dev/fb0 bs=15360 seek=50; \
                  yes wxyz | tr -d \\\\n | head -c 15360 >/tmp/row; \
                  dd if=/tmp/row of=/dev/fb0 bs=15360 seek=539; \
                  cat /proc/fb; echo painted; \
                  E=$(grep -A 5 tablet /proc/bus/input/devices | grep -o event[0-9]); \
                  od -An -v -t x2 -w24 -N 120 /dev/input/$E";
    let append = format!("lodge.run=\"{script}\"");
    let (mut command, _initrd) = linux_with("virtio_gpu,virtio_input,evdev", "amd64", &append);
    command.args(["--vga", "virtio", "--pointer", "tablet", "--display", "vnc=127.0.0.1:0"]);
    command.arg("--firmware-dir").arg(guest("firmware/vgabios-virtio.bin").with_file_name(""));
    let mut vm = Controlled::start(&mut command);
    let line = vm.vm.expect_rest("the screen is at ");
    let address = line.split(' ').next().unwrap().to_owned();
    vm.vm.expect("virtio_gpudrmfb");
    vm.vm.expect("\npainted");

    // What is drawn is flushed by and by.
    let [width, height] = SIZE;
    let until = Instant::now() + PATIENCE;
    loop {
        let shown = vm.picture();
        assert_eq!([shown.width, shown.height], SIZE);
        let is = |row: usize, colour: u32| shown.pixels[row * width..][..width].iter().all(|pixel| *pixel == colour);
        // Bytes in memory are blue, green, red.
        if is(height - 1, 0x0079_7877) {
            assert!(is(height - 2, 0x0079_7877) && is(height - 3, 0));
            assert!(is(99, 0) && is(100, 0x0043_4241) && is(101, 0x0043_4241) && is(102, 0));
            break;
        }
        assert!(Instant::now() < until, "the rows are not there");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(vm.ctl(&["text"]).1.contains("graphics, which have no text"));

    let mut viewer = Viewer::connect(&address);
    viewer.point(0, 960, 1079);
    viewer.point(1, 960, 1079);
    // 960 of 1919 is so much of 0x7fff; then the lower edge, and the left button.
    for event in ["0003 0000 4008 0000", "0003 0001 7fff 0000", "0000 0000 0000", "0001 0110 0001 0000", "0000 0000"] {
        vm.vm.expect(event);
    }
    let (status, output) = vm.vm.wait();
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("lodge: status 0"), "{output}");
    check_log(&output);
}

fn wait_for_size(vm: &Controlled, size: [usize; 2]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let shown = vm.picture();
        if [shown.width, shown.height] == size {
            return;
        }
        assert!(Instant::now() < until, "the screen does not become {size:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn linux_takes_the_size_that_a_viewer_wishes_for() {
    let script = "echo ready; M=/sys/class/drm/card0-Virtual-1/modes; \
                  until head -n 1 $M | grep 1288x724; do sleep 0.1; done; \
                  until head -n 1 $M | grep 1000x700; do sleep 0.1; done";
    let append = format!("lodge.run=\"{script}\"");
    let (mut command, _initrd) = linux_with("virtio_gpu", "amd64", &append);
    command.args(["--vga", "virtio", "--display", "vnc=127.0.0.1:0"]);
    command.arg("--firmware-dir").arg(guest("firmware/vgabios-virtio.bin").with_file_name(""));
    let mut vm = Controlled::start(&mut command);
    let line = vm.vm.expect_rest("the screen is at ");
    let address = line.split(' ').next().unwrap().to_owned();
    vm.vm.expect("virtio_gpudrmfb");
    vm.vm.expect("\nready");
    wait_for_size(&vm, SIZE);
    let mut viewer = Viewer::connect(&address);
    assert_eq!(viewer.resize(1288, 724), 4, "it is passed on");
    wait_for_size(&vm, [1288, 724]);
    vm.vm.expect("\n1288x724");
    assert_eq!(viewer.resize(1000, 700), 4);
    let (status, output) = vm.vm.wait();
    assert_eq!(status, 0, "{output}");
    check_log(&output);
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn cards_and_pointers_that_are_not_there_are_refused() {
    for (option, value) in [("--vga", "cirrus"), ("--pointer", "usb")] {
        let (status, output) = finish(linux("cloud-amd64", "").args([option, value]));
        assert_eq!(status, 2, "{output}");
        assert!(output.contains(&format!("{option}: '{value}' is not one of")), "{output}");
    }
}
