//! What sysfs and /proc know of a block device: whether it can be written, and how the host itself uses it, that is what is
//! mounted from it or its partitions, and which devices stand on it.
//!
//! The latter is for the text of an error: that the device is used at all, the kernel has said by refusing O_EXCL.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the device at `path` is used, as far as that can be found out.
pub(crate) fn of(path: &Path) -> String {
    const UNKNOWN: &str = "a file system, another device or a program has it for itself";
    let Ok(metadata) = fs::metadata(path) else { return UNKNOWN.into() };
    let number = numbers(metadata.rdev());
    let folder = Path::new("/sys/dev/block").join(&number);
    let devices = with_partitions(&folder, number);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| mount(line, &devices, number_of));
    mounted.or_else(|| standing(&folder)).unwrap_or_else(|| UNKNOWN.into())
}

/// Whether a device takes no writes: the kernel opens it for writing all the same.
pub(crate) fn is_read_only(device: u64) -> bool {
    let file = Path::new("/sys/dev/block").join(numbers(device)).join("ro");
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// A device number as the kernel writes it.
fn numbers(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// The number of the device that a file stands for.
fn number_of(source: &str) -> Option<String> {
    Some(numbers(fs::metadata(source).ok()?.rdev()))
}

/// A device and its partitions.
fn with_partitions(folder: &Path, number: String) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let partitions = entries.filter(|entry| entry.join("partition").exists());
    let read = |entry: PathBuf| Some(fs::read_to_string(entry.join("dev")).ok()?.trim().to_owned());
    std::iter::once(number).chain(partitions.filter_map(read)).collect()
}

/// Where a line of mountinfo (proc_pid_mountinfo(5)) says that one of the devices is mounted.
fn mount(line: &str, devices: &[String], number_of: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (number, place) = (fields.next()?, fields.nth(1)?);
    let source = after.split(' ').nth(1)?;
    // Some file systems have a number of their own, and a device as their source.
    let is_ours = |number: &str| devices.iter().any(|device| device == number);
    let ours = is_ours(number) || source.starts_with('/') && number_of(source).is_some_and(|number| is_ours(&number));
    ours.then(|| format!("{source} is mounted at {}", place.replace("\\040", " ")))
}

/// Devices that stand on it.
fn standing(folder: &Path) -> Option<String> {
    let holder = fs::read_dir(folder.join("holders")).ok()?.flatten().next()?;
    Some(format!("the device {} stands on it", holder.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let devices = ["8:0".to_owned(), "8:1".to_owned()];
        let nobody = |_: &str| None;
        let line = "36 35 8:1 / /mnt/a\\040b rw,noatime master:1 - ext3 /dev/sda1 rw,errors=continue";
        assert_eq!(mount(line, &devices, nobody).unwrap(), "/dev/sda1 is mounted at /mnt/a b");
        let other = "36 35 0:45 /@ /home rw - btrfs /dev/mapper/x rw";
        assert_eq!(mount(other, &devices, nobody), None);
        let known = |source: &str| (source == "/dev/mapper/x").then(|| "8:0".to_owned());
        assert_eq!(mount(other, &devices, known).unwrap(), "/dev/mapper/x is mounted at /home");
        for line in ["", "36 35 8:1", " - ", "36 35 8:1 / /x rw - ext4"] {
            assert_eq!(mount(line, &devices, nobody), None, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        assert!(of(Path::new("/no/such")).contains("for itself"));
        assert!(of(Path::new("/dev/null")).contains("for itself"));
    }
}
