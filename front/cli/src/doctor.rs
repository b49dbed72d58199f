//! `lodge doctor`: what the host offers and lacks, and the command that mends it.
//!
//! Each look at the host gives a [`Finding`]; [`render`] makes text of them. Looks take what they look at as parameters, so
//! that tests can show them hosts of all kinds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, MemfdFlags, access, ftruncate, memfd_create, statvfs};

/// How a look came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Good,
    /// lodge runs, but something is slower or missing.
    Lacking,
    /// lodge does not run.
    Bad,
}

/// What a look at the host found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    text: String,
    /// What would mend it: a command, or where there is none what to do.
    remedy: Option<String>,
}

fn good(text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Good, text: text.into(), remedy: None }
}

fn lacking(text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { grade: Grade::Lacking, text: text.into(), remedy: Some(remedy.into()) }
}

fn bad(text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { grade: Grade::Bad, text: text.into(), remedy: Some(remedy.into()) }
}

/// Looks at the host. The text to print, and whether lodge can run here.
pub fn examine() -> (String, bool) {
    let (engines, any) = crate::run::list_engines();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let temporary = std::env::temp_dir();
    // Before anything here makes a thread.
    let direct = direct(lodge_arena::examine());
    let host = [
        processor(),
        system(&release),
        kvm(Path::new("/dev/kvm"), &read("/proc/cpuinfo")),
        memory(&read("/proc/meminfo")),
        memfd(),
        mappings(&read("/proc/sys/vm/max_map_count")),
        direct,
    ];
    let more = [
        space(Path::new("."), "disk images here"),
        space(&temporary, "ephemeral disks"),
        tunnel(Path::new("/dev/net/tun")),
        namespaces(&read("/proc/sys/user/max_user_namespaces"), &read("/proc/sys/kernel/unprivileged_userns_clone")),
    ];
    let firmware = FIRMWARE.iter().map(|package| package.look(Path::new("/")));
    let sections = [("Host", host.to_vec()), ("For disks, networks and sandboxes", more.to_vec())];
    let firmware = ("Firmware, which --kernel does without", firmware.collect());
    let sections: Vec<_> = sections.into_iter().chain([firmware]).collect();
    let works = any && sections.iter().flat_map(|(_, findings)| findings).all(|finding| finding.grade != Grade::Bad);
    (render(&engines, &sections, works), works)
}

/// The text: the engines' own lines, findings by section with their remedies below them, and a verdict.
fn render(engines: &str, sections: &[(&str, Vec<Finding>)], works: bool) -> String {
    let mut text = String::from("Engines\n");
    for line in engines.lines() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {line}");
    }
    for (title, findings) in sections {
        let _ = writeln!(text, "{title}");
        for finding in findings {
            let mark = match finding.grade {
                Grade::Good => "ok  ",
                Grade::Lacking => "note",
                Grade::Bad => "BAD ",
            };
            let _ = writeln!(text, "  {mark} {}", finding.text);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "       -> {remedy}");
            }
        }
    }
    text += if works { "lodge runs here.\n" } else { "lodge cannot run here: see what is BAD above.\n" };
    text
}

fn processor() -> Finding {
    match lodge_vm::host_profile() {
        Ok(profile) if profile.has("avx2") => {
            good(format!("processor: BMI2, FSGSBASE and AVX2; guests see {}", profile.level().name()))
        }
        Ok(profile) => lacking(
            format!("processor: no AVX2; guests see {} and run programs built for that only", profile.level().name()),
            "in a VM, have its processor passed through; otherwise nothing but a newer processor helps",
        ),
        Err(missing) => bad(missing.to_string(), "in a VM, have its processor passed through (QEMU: -cpu host)"),
    }
}

fn system(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 9) {
        good(format!("Linux {release}"))
    } else {
        bad(format!("Linux {release} is older than 5.9"), "boot a newer kernel")
    }
}

/// The device, whether it is ours to open, and what is behind it.
fn kvm(path: &Path, cpuinfo: &str) -> Finding {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let kind = match (has("vmx"), has("svm")) {
        (true, _) => Some("Intel VT-x"),
        (_, true) => Some("AMD-V"),
        _ => None,
    };
    let shown = path.display();
    if !path.exists() {
        return match kind {
            Some(kind) => lacking(
                format!("no {shown}, though the processor has {kind}; the translator is used"),
                "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
            ),
            None => lacking(
                format!("no {shown}, and no virtualization in the processor's flags; the translator is used"),
                "to have it, enable virtualization in the firmware's or the cloud's settings",
            ),
        };
    }
    if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        return lacking(format!("{shown} is not ours to open"), "sudo usermod -aG kvm $USER, then log in anew");
    }
    match kind {
        Some(kind) if has("hypervisor") => good(format!("{shown} can be opened: {kind}, nested in another hypervisor")),
        Some(kind) => good(format!("{shown} can be opened: {kind}")),
        None => lacking(
            format!("{shown} can be opened, but the processor has neither VT-x nor AMD-V: its KVM may not run guests"),
            "to have it, enable nested virtualization in the outer hypervisor's or the cloud's settings",
        ),
    }
}

fn memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    match kib {
        // A guest's 512 MiB by default, and lodge's own.
        Some(kib) if kib < 640 << 10 => lacking(
            format!("only {} MiB of memory are free, less than a VM has by default", kib >> 10),
            "end other programs, or give VMs less with --memory",
        ),
        Some(kib) => good(format!("{} MiB of memory are free", kib >> 10)),
        None => lacking("free memory is unknown: /proc/meminfo cannot be read", "mount -t proc proc /proc"),
    }
}

/// Guests' memory and generated code live in memfds.
fn memfd() -> Finding {
    let made = memfd_create("lodge-doctor", MemfdFlags::CLOEXEC).and_then(|file| ftruncate(&file, 512 << 20));
    match made {
        Ok(()) => good("memory files (memfd) can be made"),
        Err(error) => bad(
            format!("no memory file (memfd) of 512 MiB can be made: {error}"),
            "raise the limit with `ulimit -f unlimited`; in a sandbox, allow memfd_create",
        ),
    }
}

fn mappings(text: &str) -> Finding {
    // Guest memory, code, and some per processor and address space; far from the default, but some lower it.
    const ENOUGH: u64 = 16384;
    match text.trim().parse::<u64>() {
        Ok(count) if count >= ENOUGH => good(format!("a process may have {count} memory mappings")),
        Ok(count) => lacking(
            format!("a process may have only {count} memory mappings (vm.max_map_count)"),
            "sudo sysctl vm.max_map_count=65530",
        ),
        Err(_) => lacking("vm.max_map_count is unknown", "mount -t proc proc /proc"),
    }
}

/// Whether the translator can have the address space that it maps guest programs' memory in.
fn direct(possible: Result<(), lodge_arena::Error>) -> Finding {
    match possible {
        Ok(()) => good("guest programs' memory can be mapped directly"),
        Err(error) => lacking(
            format!("guest programs' memory cannot be mapped directly, the translator is slower: {error}"),
            error.remedy(),
        ),
    }
}

fn space(path: &Path, what: &str) -> Finding {
    const ENOUGH: u64 = 1 << 30;
    match statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let shown = path.display();
            if free >= ENOUGH {
                good(format!("{} GiB are free for {what} ({shown})", free >> 30))
            } else {
                let text = format!("only {} MiB are free for {what} ({shown})", free >> 20);
                lacking(text, "free some, or work in another folder (for ephemeral disks: set TMPDIR)")
            }
        }
        Err(error) => lacking(format!("space in {} is unknown: {error}", path.display()), "choose another folder"),
    }
}

fn tunnel(path: &Path) -> Finding {
    let shown = path.display();
    if !path.exists() {
        lacking(format!("no {shown}: no TAP networks"), "sudo modprobe tun")
    } else if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        lacking(format!("{shown} is not ours to open: no TAP networks"), format!("sudo chmod a+rw {shown}"))
    } else {
        good(format!("{shown} can be opened"))
    }
}

fn namespaces(most: &str, unprivileged: &str) -> Finding {
    // The second is Debian's own switch; where it is not, all may.
    if unprivileged.trim() == "0" {
        lacking("ordinary users may not make user namespaces", "sudo sysctl kernel.unprivileged_userns_clone=1")
    } else if most.trim().parse::<u64>().is_ok_and(|most| most > 0) {
        good("user namespaces can be made")
    } else {
        lacking("there are no user namespaces", "sudo sysctl user.max_user_namespaces=15000")
    }
}

/// A distribution's package of firmware.
struct Firmware {
    /// Its name in Debian.
    package: &'static str,
    what: &'static str,
    /// Where distributions put it, without the leading slash.
    places: &'static [&'static str],
}

const FIRMWARE: &[Firmware] = &[
    Firmware {
        package: "seabios",
        what: "BIOS",
        places: &["usr/share/seabios/bios-256k.bin", "usr/share/qemu/bios-256k.bin"],
    },
    Firmware {
        package: "ovmf",
        what: "UEFI",
        places: &[
            "usr/share/OVMF/OVMF_CODE_4M.fd",
            "usr/share/OVMF/OVMF_CODE.fd",
            "usr/share/edk2/ovmf/OVMF_CODE.fd",
            "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        ],
    },
    Firmware {
        package: "ipxe-qemu",
        what: "booting from the network",
        places: &[
            "usr/lib/ipxe/qemu/pxe-virtio.rom",
            "usr/share/ipxe/qemu/pxe-virtio.rom",
            "usr/share/qemu/pxe-virtio.rom",
        ],
    },
];

impl Firmware {
    fn look(&self, root: &Path) -> Finding {
        let found: Option<PathBuf> = self.places.iter().map(|place| root.join(place)).find(|path| path.is_file());
        match found {
            Some(path) => good(format!("{} ({}): {}", self.package, self.what, path.display())),
            None => lacking(
                format!("no {} ({})", self.package, self.what),
                format!("sudo apt-get install {}, or your distribution's package of it", self.package),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_marked_and_remedies_named() {
        let sections = [
            ("Host", vec![good("all is well"), lacking("little is there", "sudo more")]),
            ("Else", vec![bad("nothing is", "buy one")]),
        ];
        let text = render("translator   usable\nauto takes   translator\n", &sections, false);
        let expected = "Engines\n  translator   usable\n  auto takes   translator\nHost\n  ok   all is well\n  \
                        note little is there\n       -> sudo more\nElse\n  BAD  nothing is\n       -> buy one\n\
                        lodge cannot run here: see what is BAD above.\n";
        assert_eq!(text, expected);
        assert!(render("", &[], true).ends_with("lodge runs here.\n"));
    }

    /// The grade, and a word that its text or remedy has.
    #[track_caller]
    fn check(finding: &Finding, grade: Grade, word: &str) {
        let all = format!("{} {}", finding.text, finding.remedy.as_deref().unwrap_or_default());
        assert!(finding.grade == grade && all.contains(word), "{finding:?}");
        assert_eq!(finding.remedy.is_none(), grade == Grade::Good, "what is wrong has a remedy: {finding:?}");
    }

    #[test]
    fn kinds_of_kvm() {
        let none = Path::new("/no/such/kvm");
        check(&kvm(none, "flags : fpu vmx\n"), Grade::Lacking, "modprobe kvm_intel");
        check(&kvm(none, "flags : fpu\n"), Grade::Lacking, "enable virtualization");
        // Any device that can be opened stands in.
        let there = Path::new("/dev/null");
        check(&kvm(there, "flags : fpu svm\n"), Grade::Good, "AMD-V");
        check(&kvm(there, "flags : fpu vmx hypervisor\n"), Grade::Good, "VT-x, nested");
        check(&kvm(there, "flags : fpu hypervisor\n"), Grade::Lacking, "neither VT-x nor AMD-V");
    }

    #[test]
    fn hosts_of_all_kinds() {
        check(&system("6.1.0-50-amd64"), Grade::Good, "6.1");
        check(&system("5.8.19"), Grade::Bad, "older than 5.9");
        check(&memory("MemTotal: 1 kB\nMemAvailable:  2097152 kB\n"), Grade::Good, "2048 MiB");
        check(&memory("MemAvailable: 1024 kB\n"), Grade::Lacking, "--memory");
        check(&memory(""), Grade::Lacking, "/proc/meminfo");
        check(&mappings("65530\n"), Grade::Good, "65530");
        check(&mappings("100\n"), Grade::Lacking, "vm.max_map_count");
        check(&direct(Ok(())), Grade::Good, "directly");
        check(&direct(Err(lodge_arena::Error::AddressSpaceLimit)), Grade::Lacking, "ulimit -v unlimited");
        check(&namespaces("15000\n", ""), Grade::Good, "can be made");
        check(&namespaces("15000\n", "1\n"), Grade::Good, "can be made");
        check(&namespaces("15000\n", "0\n"), Grade::Lacking, "unprivileged_userns_clone=1");
        check(&namespaces("0\n", ""), Grade::Lacking, "max_user_namespaces");
        check(&tunnel(Path::new("/no/such/tun")), Grade::Lacking, "modprobe tun");
        check(&tunnel(Path::new("/dev/null")), Grade::Good, "opened");
        check(&space(Path::new("/no/such/folder"), "disks"), Grade::Lacking, "/no/such/folder");
    }

    #[test]
    fn firmware_is_found_where_distributions_put_it() {
        let root = tempfile::tempdir().unwrap();
        for firmware in FIRMWARE {
            check(&firmware.look(root.path()), Grade::Lacking, "sudo apt-get install");
            let place = root.path().join(firmware.places[0]);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, "code").unwrap();
            check(&firmware.look(root.path()), Grade::Good, firmware.package);
        }
    }

    #[test]
    fn this_host_is_examined() {
        let (text, _) = examine();
        for part in ["Engines", "Host", "Linux ", "MiB of memory", "kvm", "seabios", "namespaces", "lodge "] {
            assert!(text.contains(part), "{text}");
        }
    }
}
