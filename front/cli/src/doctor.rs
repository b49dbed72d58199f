//! `lodge doctor`: what the host offers and lacks, and the command that mends it.

use std::fmt::Write as _;
use std::path::Path;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// lodge runs, but something is slower or missing.
    Lacking,
    /// lodge does not run.
    Bad,
}

/// Looks at the host. The text to print, and whether lodge can run here.
pub fn examine() -> (String, bool) {
    let (engines, any) = crate::run::list_engines();
    let mut text = String::from("Engines\n");
    for line in engines.lines() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {line}");
    }
    text += "Host\n";
    let checks = [processor(), system(), kvm(Path::new("/dev/kvm")), memory()];
    for (grade, line) in &checks {
        let mark = match grade {
            Grade::Good => "ok  ",
            Grade::Lacking => "note",
            Grade::Bad => "BAD ",
        };
        let _ = writeln!(text, "  {mark} {line}");
    }
    (text, any && checks.iter().all(|(grade, _)| *grade != Grade::Bad))
}

fn processor() -> (Grade, String) {
    match lodge_vm::host_profile() {
        Ok(profile) => (Grade::Good, format!("processor: guests see {}", profile.level().name())),
        Err(missing) => (Grade::Bad, missing.to_string()),
    }
}

fn system() -> (Grade, String) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 9) {
        (Grade::Good, format!("Linux {release}"))
    } else {
        (Grade::Bad, format!("Linux {release} is older than 5.9; boot a newer kernel"))
    }
}

fn kvm(path: &Path) -> (Grade, String) {
    use rustix::fs::{Access, access};
    if !path.exists() {
        let remedy = "fine for the translator; for KVM, enable virtualization in the firmware or the cloud's settings";
        return (Grade::Lacking, format!("{} is not there: {remedy}", path.display()));
    }
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => (Grade::Good, format!("{} can be opened", path.display())),
        Err(_) => (
            Grade::Lacking,
            format!("{} is not ours to open: sudo usermod -aG kvm $USER, then log in anew", path.display()),
        ),
    }
}

fn memory() -> (Grade, String) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    match kib {
        Some(kib) if kib < 256 << 10 => (Grade::Lacking, format!("only {} MiB of memory are free", kib >> 10)),
        Some(kib) => (Grade::Good, format!("{} MiB of memory are free", kib >> 10)),
        None => (Grade::Lacking, "free memory is unknown: /proc/meminfo cannot be read".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kvm_is_a_note_with_a_remedy() {
        let (grade, line) = kvm(Path::new("/no/such/kvm"));
        assert!(grade == Grade::Lacking && line.contains("enable virtualization"), "{line}");
    }

    #[test]
    fn this_host_is_examined() {
        let (text, _) = examine();
        for part in ["Engines", "Host", "Linux ", "MiB of memory"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
