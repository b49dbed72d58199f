//! A machine that is talked to through its control socket: [`Controlled`], and the [`Picture`]s that it shows.

use std::fs::File;
use std::io::BufReader;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{PATIENCE, TestVm, finish, lodge};

/// What a screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row from the top: red, green and blue, 8 bits each, blue lowest.
    pub pixels: Vec<u32>,
}

impl Picture {
    /// A picture whose pixels are computed from column and row.
    pub fn of(width: usize, height: usize, pixel: impl Fn(usize, usize) -> u32) -> Self {
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self { width, height, pixels: rows.map(|(x, y)| pixel(x, y)).collect() }
    }

    /// The pixels at which this picture differs from a reference: a PNG file of `tests/references`, whose transparent
    /// pixels mean any colour. Pictures of another size differ everywhere.
    pub fn differs_from(&self, reference: &[u8]) -> usize {
        let mut reader = png::Decoder::new(std::io::Cursor::new(reference)).read_info().expect("a PNG file");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a picture of some size")];
        let info = reader.next_frame(&mut bytes).expect("a whole picture");
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgba, png::BitDepth::Eight));
        if (info.width as usize, info.height as usize) != (self.width, self.height) {
            return self.pixels.len();
        }
        let wanted = bytes.chunks_exact(4).map(|rgba| (u32::from_be_bytes([0, rgba[0], rgba[1], rgba[2]]), rgba[3]));
        self.pixels.iter().zip(wanted).filter(|(shown, (wanted, alpha))| *alpha != 0 && *shown != wanted).count()
    }

    /// Holds that this picture has the pixels that `wanted` has.
    #[track_caller]
    pub fn is(&self, wanted: &Self, what: &str) {
        assert_eq!((self.width, self.height), (wanted.width, wanted.height), "{what}");
        let differ = self.pixels.iter().zip(&wanted.pixels).enumerate().filter(|(_, (shown, wanted))| shown != wanted);
        let places: Vec<_> =
            differ.map(|(at, (shown, wanted))| (at % self.width, at / self.width, shown, wanted)).collect();
        if let Some((x, y, shown, expected)) = places.first() {
            panic!("{what}: {} pixels differ; that at {x}, {y} is {shown:06x}, not {expected:06x}", places.len());
        }
    }
}

/// A machine that is talked to through its control socket.
pub struct Controlled {
    /// The machine.
    pub vm: TestVm,
    folder: tempfile::TempDir,
}

impl Controlled {
    /// Starts it; its serial port and its limit of time are what the command says.
    pub fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        command.arg("--control").arg(folder.path().join("control"));
        Self { vm: TestVm::start(command), folder }
    }

    /// The same without a serial port, for a few minutes.
    pub fn unheard(command: &mut Command) -> Self {
        Self::start(command.args(["--serial", "none", "--timeout", "280"]))
    }

    /// What `lodge ctl` says.
    pub fn ctl(&self, words: &[&str]) -> (i32, String) {
        finish(Command::new(lodge()).arg("ctl").arg(self.folder.path().join("control")).args(words))
    }

    /// Waits until the screen shows a text; all that it shows then.
    #[track_caller]
    pub fn expect_on_screen(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, screen) = self.ctl(&["text"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < until, "{text:?} did not come; the screen shows:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the screen shows a reference ([`Picture::differs_from`]).
    #[track_caller]
    pub fn expect_picture(&self, reference: &[u8]) {
        let until = Instant::now() + PATIENCE;
        // It is not there at once.
        while self.ctl(&["status"]).0 != 0 {
            assert!(Instant::now() < until, "nobody answers");
            std::thread::sleep(Duration::from_millis(50));
        }
        loop {
            let differ = self.picture().differs_from(reference);
            if differ == 0 {
                return;
            }
            assert!(Instant::now() < until, "{differ} pixels are others");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the screen shows.
    #[track_caller]
    pub fn picture(&self) -> Picture {
        let path = self.folder.path().join("screen.png");
        let (status, output) = self.ctl(&["screenshot", &path.to_string_lossy()]);
        assert_eq!(status, 0, "{output}");
        let file = BufReader::new(File::open(path).expect("a picture"));
        let mut reader = png::Decoder::new(file).read_info().expect("a PNG file");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a picture of some size")];
        let info = reader.next_frame(&mut bytes).expect("a whole picture");
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        let pixels = bytes.chunks_exact(3).map(|rgb| u32::from_be_bytes([0, rgb[0], rgb[1], rgb[2]]));
        Picture { width: info.width as usize, height: info.height as usize, pixels: pixels.collect() }
    }

    /// Ends it.
    #[track_caller]
    pub fn quit(self) {
        assert_eq!(self.ctl(&["quit"]).0, 0);
        assert_eq!(self.vm.wait().0, 0);
    }
}
