//! Names for a profiler: a line for each block in `/tmp/perf-PID.map`, which `perf report` reads.
//!
//! Written only where the environment asks for it (`LODGE_PERF_MAP=1`; see `docs/performance.md`): it costs a line of
//! text per translation. After the code cache was emptied the file begins anew, so what was sampled before that has
//! wrong names; a profile is best taken of a short run.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, Write};
use std::ops::Range;
use std::path::PathBuf;

use crate::mode::Mode;

/// The variable that asks for the file.
const VARIABLE: &str = "LODGE_PERF_MAP";

/// The file under way.
pub struct PerfMap {
    file: BufWriter<File>,
    stubs: Range<u64>,
}

impl PerfMap {
    /// The file, if it is asked for and can be made. `stubs` is the code that no block owns.
    pub fn wanted(stubs: Range<u64>) -> Option<Self> {
        std::env::var_os(VARIABLE).filter(|value| value != "0")?;
        let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
        // The folder is everybody's: only a file that is made here is written.
        let _ = fs::remove_file(&path);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                let mut map = Self { file: BufWriter::new(file), stubs };
                map.head();
                Some(map)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no names for the profiler");
                None
            }
        }
    }

    /// Names a block: its hot and its cold code, mode, linear and physical address.
    pub fn note(&mut self, hot: Range<u64>, cold: Range<u64>, mode: Mode, linear: u64, gpa: u64) {
        let name = name(mode, linear, gpa);
        self.line(&hot, &name);
        self.line(&cold, &format!("{name}_cold"));
    }

    /// All blocks are gone.
    pub fn restart(&mut self) {
        // A profile with gaps is no reason to stop a guest: here as in `line`, failures to write pass.
        let _ = self.file.flush();
        let _ = self.file.get_ref().set_len(0);
        let _ = self.file.rewind();
        self.head();
    }

    fn head(&mut self) {
        let stubs = self.stubs.clone();
        self.line(&stubs, "lodge_stubs");
    }

    fn line(&mut self, range: &Range<u64>, name: &str) {
        let _ = writeln!(self.file, "{:x} {:x} {name}", range.start, range.end.saturating_sub(range.start));
    }
}

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _ = self.file.flush();
    }
}

/// Such as `k64_ffffffff81000000_at_1000000`: kernel, user or a mirrored program, width, linear and physical address.
fn name(mode: Mode, linear: u64, gpa: u64) -> String {
    let who = match mode {
        _ if mode.has(Mode::MIRRORED) => "m",
        _ if mode.has(Mode::USER) => "u",
        _ => "k",
    };
    let how = match mode {
        _ if mode.has(Mode::HOW) => "_single",
        _ if mode.has(Mode::PLAIN) => "_plain",
        _ => "",
    };
    format!("{who}{}_{linear:x}_at_{gpa:x}{how}", mode.code_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_named_by_mode_and_addresses() {
        assert_eq!(name(Mode(2), 0xffff_ffff_8100_0000, 0x100_0000), "k64_ffffffff81000000_at_1000000");
        assert_eq!(name(Mode(1 | Mode::USER | Mode::SINGLE), 0x1000, 0x2000), "u32_1000_at_2000_single");
        let plain = Mode(2 | Mode::USER | Mode::MIRRORED | Mode::PLAIN);
        assert_eq!(name(plain, 0x1000, 0x2000), "m64_1000_at_2000_plain");
    }

    #[test]
    fn lines_are_what_perf_reads_and_end_with_the_cache() {
        let folder = std::env::temp_dir().join(format!("lodge-perf-map-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&folder).unwrap();
        let mut map = PerfMap { file: BufWriter::new(file), stubs: 0x1000..0x1800 };
        map.head();
        map.note(0x2000..0x2040, 0x8000..0x8100, Mode(2), 0x40_0000, 0x9000);
        map.file.flush().unwrap();
        let text = fs::read_to_string(&folder).unwrap();
        assert_eq!(text, "1000 800 lodge_stubs\n2000 40 k64_400000_at_9000\n8000 100 k64_400000_at_9000_cold\n");
        map.restart();
        drop(map);
        assert_eq!(fs::read_to_string(&folder).unwrap(), "1000 800 lodge_stubs\n");
        fs::remove_file(&folder).unwrap();
    }
}
