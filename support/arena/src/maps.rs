//! What is mapped: the [`Area`]s of /proc/self/maps (proc(5)).

use std::ops::Range;

use crate::Error;

const PATH: &str = "/proc/self/maps";

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    pub range: Range<u64>,
    /// It may be read, written or executed.
    pub accessible: bool,
    /// It may be read.
    pub readable: bool,
    /// Its file, or what the kernel calls it, or "anonymous memory".
    pub name: String,
}

impl Area {
    pub fn is_in(&self, range: &Range<u64>) -> bool {
        range.start <= self.range.start && self.range.end <= range.end
    }

    /// The vsyscall page is.
    pub fn is_in_kernel_half(&self) -> bool {
        self.range.start >= 1 << 63
    }

    /// One of the pages that the kernel gives to each process: the vDSO and its data.
    pub fn is_kernels(&self) -> bool {
        self.name == "[vdso]" || self.name.starts_with("[vvar")
    }
}

/// All mappings in the user half, in the order of their addresses.
pub fn read() -> Result<Vec<Area>, Error> {
    Ok(all()?.into_iter().filter(|area| !area.is_in_kernel_half()).collect())
}

/// The same, and what is in the kernel's half.
pub fn all() -> Result<Vec<Area>, Error> {
    // Names of files may be any bytes.
    let text = std::fs::read(PATH).map_err(Error::unreadable(PATH))?;
    parse(&String::from_utf8_lossy(&text))
}

fn parse(text: &str) -> Result<Vec<Area>, Error> {
    let malformed = || Error::Malformed { path: PATH.into(), what: "a line is not of the form that it should have" };
    text.lines().map(|line| area(line).ok_or_else(malformed)).collect()
}

/// From a line: `start-end permissions offset device inode name`.
fn area(line: &str) -> Option<Area> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let permissions = words.next()?;
    let (accessible, readable) = (!permissions.starts_with("---"), permissions.starts_with('r'));
    let name = words.nth(3).map(str::trim).filter(|name| !name.is_empty()).unwrap_or("anonymous memory");
    let range = number(start)?..number(end)?;
    (range.start < range.end).then(|| Area { range, accessible, readable, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text = "55d0c0000000-55d0c0001000 r--p 00000000 fe:00 42                        /usr/bin/a b\n\
                    7ffd00000000-7ffd00021000 ---p 00000000 00:00 0 \n\
                    7ffd10000000-7ffd10002000 r-xp 00000000 00:00 0                          [vdso]\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        let areas = parse(text).unwrap();
        let names: Vec<_> = areas.iter().map(|area| (area.name.as_str(), area.accessible, area.is_kernels())).collect();
        let expected = [
            ("/usr/bin/a b", true, false),
            ("anonymous memory", false, false),
            ("[vdso]", true, true),
            ("[vsyscall]", true, false),
        ];
        assert_eq!(names, expected);
        assert_eq!(areas.iter().map(|area| area.readable).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!(areas[1].range, 0x7ffd_0000_0000..0x7ffd_0002_1000);
        for wrong in ["x", "1-2", "2-1 r--p 0 0 0", "g-h r--p 0 0 0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
